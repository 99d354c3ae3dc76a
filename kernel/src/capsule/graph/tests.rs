//! Orders and refusals, by example and for arbitrary graphs.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::capsule::bundle::tests::bundle;

const UPLINK: &str =
    "[runtime]\nscope = \"connection\"\n[capabilities.listen]\nallow = [\"session\"]\nreason = \"r\"\n";

/// Capsules from `name: exports / imports`, where `x1` is interface x 1.0, `x^1` imports it, `?` makes that optional
/// and `+` many.
fn capsules(lines: &[&str]) -> Vec<Bundle> {
    lines.iter().map(|line| capsule(line)).collect()
}

fn capsule(line: &str) -> Bundle {
    let (name, rest) = line.split_once(':').unwrap();
    let (exports, imports) = rest.split_once('/').unwrap_or((rest, ""));
    let (uplink, name) = name.strip_prefix('@').map_or(("", name), |name| (UPLINK, name));
    let mut manifest = uplink.to_owned() + "[exports]\n";
    for export in exports.split_whitespace() {
        let (interface, major) = export.split_at(1);
        manifest += &format!("{interface} = \"{major}.0\"\n");
    }
    manifest += "[imports]\n";
    for import in imports.split_whitespace() {
        let (interface, version) = import.split_at(1);
        let (optional, many) = (version.ends_with('?'), version.ends_with('+'));
        let version = version.trim_end_matches(['?', '+']);
        manifest += &format!("{interface} = {{ version = \"{version}\", optional = {optional}, many = {many} }}\n");
    }
    bundle(name, &manifest)
}

fn levels(plan: &Plan) -> Vec<Vec<&str>> {
    plan.levels
        .iter()
        .map(|level| level.iter().map(Bundle::name).collect())
        .collect()
}

fn reasons(plan: &Plan) -> Vec<String> {
    plan.refused
        .iter()
        .map(|refused| format!("{}: {}", refused.bundle.name(), refused.reason))
        .collect()
}

#[track_caller]
fn check(lines: &[&str], expected: &[&[&str]], refused: &[&str]) {
    let plan = plan(capsules(lines));
    assert_eq!(levels(&plan), expected);
    assert_eq!(reasons(&plan), refused);
}

#[test]
fn uplinks_first_then_level_by_level() {
    check(
        &["d:/ b^1 c^1", "b:b1/ a^1", "c:c1/ a^1", "a:a1", "@u:", "e:"],
        &[&["u"], &["a", "e"], &["b", "c"], &["d"]],
        &[],
    );
    check(&[], &[&[]], &[]);
    // What an uplink exports may be imported.
    check(&["@u:u1", "a:/ u^1"], &[&["u"], &["a"]], &[]);
}

#[test]
fn what_is_missing_is_named_and_takes_along_who_needs_it() {
    check(
        &["a:a1/ x^1", "b:b1/ a^1", "c:/ b^1", "d:/ a^1?", "e:"],
        &[&[], &["d", "e"]],
        &[
            "a: nobody exports `x` ^1",
            "b: it needs `a` of `a`, kept out",
            "c: it needs `b` of `b`, kept out",
        ],
    );
    check(
        &["a:a1", "b:/ a^2"],
        &[&[], &["a"]],
        &["b: nobody exports `a` ^2; there is 1.0"],
    );
}

#[test]
fn two_exporters_need_a_stated_choice() {
    check(
        &["a:x1", "b:x1", "c:/ x^1", "d:/ x^1+", "e:x2", "f:/ x^2"],
        &[&[], &["a", "b", "e"], &["d", "f"]],
        &["c: `x` is exported by `a`, `b`; import it with `many = true`, or remove all but one"],
    );
}

#[test]
fn a_circle_is_named_with_its_path() {
    check(
        &["a:a1/ b^1", "b:b1/ c^1?", "c:c1/ a^1", "d:/ a^1", "e:"],
        &[&[], &["e"]],
        &[
            "a: imports go in a circle: a -> b -> c -> a",
            "b: imports go in a circle: b -> c -> a -> b",
            "c: imports go in a circle: c -> a -> b -> c",
            "d: it needs `a` of `a`, kept out",
        ],
    );
}

#[test]
fn what_cannot_be_by_itself_is_refused() {
    check(
        &["@u:/ a^1?", "a:a1", "a:b1"],
        &[&[], &["a"]],
        &[
            "a: there is another capsule of this name",
            "u: it serves connections, so it starts first and may not import (`a`)",
        ],
    );
    let mut other = capsule("k:k1");
    other.manifest.package.kernel = ">=99".parse().unwrap();
    let plan = plan(vec![other, capsule("l:/ k^1")]);
    assert_eq!(
        reasons(&plan),
        [
            format!("k: it works with kernel >=99; this is {}", kernel_version()),
            "l: it needs `k` of `k`, kept out".to_owned()
        ]
    );
}

/// A capsule's random exports and imports (interface, major version, and how), and whether it is an uplink.
type Parts = (Vec<(u8, u8)>, Vec<(u8, u8, &'static str)>, bool);

fn line(number: usize, (exports, imports, uplink): Parts) -> String {
    let interface = |i: u8| char::from(b'w' + i);
    let exports: BTreeMap<_, _> = exports.into_iter().collect();
    let foreign = imports.into_iter().filter(|(i, ..)| !exports.contains_key(i));
    let imports: BTreeMap<_, _> = foreign.map(|(i, version, how)| (i, (version, how))).collect();
    let mut line = format!("{}c{number}:", if uplink { "@" } else { "" });
    line.extend(
        exports
            .into_iter()
            .map(|(i, version)| format!(" {}{version}", interface(i))),
    );
    line.push('/');
    line.extend(
        imports
            .into_iter()
            .map(|(i, (version, how))| format!(" {}^{version}{how}", interface(i))),
    );
    line
}

/// Up to eight capsules with random exports and imports of four interfaces.
fn graphs() -> impl Strategy<Value = Vec<String>> {
    let export = (0..4u8, 1..3u8);
    let import = (0..4u8, 1..3u8, prop::sample::select(vec!["", "?", "+"]));
    let uplink = prop::bool::weighted(0.125);
    let capsule = (
        prop::collection::vec(export, 0..2),
        prop::collection::vec(import, 0..3),
        uplink,
    );
    prop::collection::vec(capsule, 0..8).prop_map(|capsules| {
        capsules
            .into_iter()
            .enumerate()
            .map(|(number, parts)| line(number, parts))
            .collect()
    })
}

proptest! {
    /// Everything is in the plan once; what starts finds all that serves it started; the order of finding does not
    /// matter.
    #[test]
    fn every_capsule_starts_after_what_it_imports(lines in graphs(), turn in 0..8usize) {
        let bundles = capsules(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let mut turned = bundles.clone();
        turned.reverse();
        let middle = turn.min(turned.len());
        turned.rotate_left(middle);
        let plan = plan(bundles.clone());
        let again = super::plan(turned);
        prop_assert_eq!(levels(&plan), levels(&again));
        prop_assert_eq!(reasons(&plan), reasons(&again));

        let names: Vec<&str> =
            plan.levels.iter().flatten().map(Bundle::name).chain(plan.refused.iter().map(|r| r.bundle.name())).collect();
        prop_assert_eq!(names.len(), bundles.len());
        prop_assert_eq!(names.iter().collect::<HashSet<_>>().len(), bundles.len());

        let mut started: Vec<&Bundle> = Vec::new();
        let running: Vec<&Bundle> = plan.levels.iter().flatten().collect();
        for (level, bundles) in plan.levels.iter().enumerate() {
            for bundle in bundles {
                prop_assert_eq!(level == 0, bundle.manifest.runtime.scope == Scope::Connection);
                for (interface, import) in &bundle.manifest.imports {
                    let serves = |other: &&&Bundle| {
                        let version = other.manifest.exports.get(interface.as_str());
                        version.is_some_and(|v| v.satisfies(&import.version))
                    };
                    let before = started.iter().filter(serves).count();
                    prop_assert_eq!(before, running.iter().filter(serves).count());
                    prop_assert!(before <= 1 || import.many);
                    prop_assert!(before >= 1 || import.optional);
                }
            }
            started.extend(bundles);
        }
        // Who asks for nothing is never kept out, and the levels are the fewest that will do.
        prop_assert!(plan.levels.iter().skip(1).all(|level| !level.is_empty()));
        prop_assert!(plan.refused.iter().all(|refused| !refused.bundle.manifest.imports.is_empty()));
    }
}
