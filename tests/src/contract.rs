//! The contract between kernel and capsules (`wit/`) as a document: it parses, it says what everything is for, and it asks
//! for nothing but the kernel. What the functions do is tested where they are implemented.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use wit_parser::{Docs, Resolve, TypeDefKind, TypeOwner, WorldItem, WorldKey};

fn contract() -> (Resolve, wit_parser::PackageId) {
    let mut resolve = Resolve::default();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (package, _) = resolve.push_dir(&dir).unwrap_or_else(|error| panic!("{error:#}"));
    (resolve, package)
}

fn is_documented(docs: &Docs) -> bool {
    docs.contents.as_deref().is_some_and(|text| !text.trim().is_empty())
}

#[test]
fn it_is_one_package_with_a_world_for_guards() {
    let (resolve, package) = contract();
    assert_eq!(resolve.packages.len(), 1, "the contract depends on another package");
    let package = &resolve.packages[package];
    assert_eq!(
        (package.name.namespace.as_str(), package.name.name.as_str()),
        ("astrid", "kernel")
    );
    assert!(package.name.version.is_some(), "the package has no version");
    assert_eq!(
        package.worlds.keys().map(String::as_str).collect::<Vec<_>>(),
        ["capsule", "guarding"]
    );
}

#[test]
fn every_interface_has_a_file_of_its_own() {
    let (resolve, package) = contract();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut expected: Vec<String> = resolve.packages[package]
        .interfaces
        .keys()
        .map(|name| format!("{name}.wit"))
        .collect();
    expected.push("world.wit".to_owned());
    expected.sort();
    let mut files: Vec<String> = dir
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, expected);
}

#[test]
fn everything_says_what_it_is_for() {
    let (resolve, package) = contract();
    let mut bare = Vec::new();
    for (name, interface) in &resolve.packages[package].interfaces {
        let interface = &resolve.interfaces[*interface];
        if !is_documented(&interface.docs) {
            bare.push(format!("interface {name}"));
        }
        for (function, item) in &interface.functions {
            if !is_documented(&item.docs) {
                bare.push(format!("function {name}.{function}"));
            }
        }
        for (type_name, id) in &interface.types {
            let item = &resolve.types[*id];
            let is_use = matches!(item.kind, TypeDefKind::Type(wit_parser::Type::Id(of)) if resolve.types[of].owner != item.owner);
            if !is_use && !is_documented(&item.docs) {
                bare.push(format!("type {name}.{type_name}"));
            }
            // A record's fields explain themselves more often than not; the reasons for a refusal never do.
            if let TypeDefKind::Variant(variant) = &item.kind {
                let cases = variant.cases.iter().filter(|case| !is_documented(&case.docs));
                bare.extend(cases.map(|case| format!("case {name}.{type_name}.{}", case.name)));
            }
        }
    }
    for (name, world) in &resolve.packages[package].worlds {
        let world = &resolve.worlds[*world];
        if !is_documented(&world.docs) {
            bare.push(format!("world {name}"));
        }
        for (key, item) in &world.exports {
            if let (WorldKey::Name(export), WorldItem::Function(function)) = (key, item)
                && !is_documented(&function.docs)
            {
                bare.push(format!("export {name}.{export}"));
            }
        }
    }
    assert!(bare.is_empty(), "no documentation: {}", bare.join(", "));
}

#[test]
fn a_capsule_imports_the_kernel_and_nothing_else() {
    let (resolve, package) = contract();
    let world = resolve.packages[package].worlds["capsule"];
    for (key, item) in &resolve.worlds[world].imports {
        match item {
            WorldItem::Interface { id, .. } => assert_eq!(resolve.interfaces[*id].package, Some(package), "{key:?}"),
            // What `use` brings into the world.
            WorldItem::Type { id, .. } => assert!(matches!(resolve.types[*id].owner, TypeOwner::World(_)), "{key:?}"),
            WorldItem::Function(function) => panic!("the world imports the function {} itself", function.name),
        }
    }
}

#[test]
fn functions_are_synchronous_and_refusals_are_typed() {
    let (resolve, package) = contract();
    for (name, interface) in &resolve.packages[package].interfaces {
        for (function, item) in &resolve.interfaces[*interface].functions {
            assert!(
                !item.kind.is_async(),
                "{name}.{function} is async: a replay could not repeat it"
            );
            let Some(wit_parser::Type::Id(result)) = item.result else {
                continue;
            };
            if let TypeDefKind::Result(result) = &resolve.types[result].kind {
                let refusal = result.err.map(|err| match err {
                    wit_parser::Type::Id(id) => resolve.types[id].name.is_some(),
                    _ => false,
                });
                assert_eq!(
                    refusal,
                    Some(true),
                    "{name}.{function} refuses with something that has no name"
                );
            }
        }
    }
}
