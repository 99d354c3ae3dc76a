//! The rules of the kernel: its modules use each other in one direction, and it knows no feature.
//!
//! The order of the modules is read from the layout that the kernel's own documentation gives, so that there is one place
//! that says it. What the architecture fixes about that order is checked against it here.

use std::collections::BTreeMap;

use super::tokens::{Kind, Token, code, tokens};
use super::{report, rust_sources};

/// Words for things that users of capsules talk about. A kernel that needs one of them is cut in the wrong place.
const FEATURES: [&str; 8] = [
    "llm",
    "tool",
    "mcp",
    "task",
    "goal",
    "prompt",
    "heartbeat",
    "supervisor",
];

/// Where `task` is a word of the language and its runtimes, a module of theirs or what it holds, or of the system: the directory of a
/// process's threads. Nothing of ours is called so.
const TECHNICAL: [&str; 5] = [
    "tokio::task",
    "std::task",
    "core::task",
    "/proc/{of}/task",
    "/proc/$$/task",
];

/// The modules of the kernel in layers, as its documentation lists them: a module uses its own layer and those before it.
fn layers() -> Vec<Vec<String>> {
    let source = rust_sources("kernel/src/lib.rs").remove(0).text;
    let layout = source.lines().skip_while(|line| line.trim() != "//! # Layout").skip(1);
    let mut layers: Vec<Vec<String>> = Vec::new();
    for line in layout.take_while(|line| line.starts_with("//!") && !line.starts_with("//! #")) {
        let line = line.trim_start_matches("//!").trim_start();
        if line.starts_with("- ") {
            layers.push(Vec::new());
        }
        let Some(layer) = layers.last_mut() else { continue };
        layer.extend(
            line.split("[`")
                .skip(1)
                .filter_map(|link| link.split_once("`]"))
                .map(|(name, _)| name.to_owned()),
        );
    }
    layers
}

#[test]
fn the_layout_is_the_one_of_the_architecture() {
    let layers = layers();
    let layer = |module: &str| {
        layers
            .iter()
            .position(|layer| layer.iter().any(|name| name == module))
            .unwrap_or_else(|| panic!("the layout in kernel/src/lib.rs does not list `{module}`"))
    };
    // boot -> control -> capsule -> {port, bus, authority, ledger}
    for (lower, upper) in [
        ("bus", "capsule"),
        ("authority", "capsule"),
        ("port", "capsule"),
        ("ledger", "capsule"),
        ("capsule", "control"),
        ("control", "boot"),
    ] {
        assert!(
            layer(lower) < layer(upper),
            "`{upper}` is above `{lower}`, and the layout must say so"
        );
    }
    // Alone in their layers, or their own layer would be a way around.
    for module in ["capsule", "control", "boot"] {
        assert_eq!(layers[layer(module)], [module], "`{module}` shares its layer");
    }
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut layer_of: BTreeMap<String, usize> = BTreeMap::new();
    for (number, layer) in layers().into_iter().enumerate() {
        layer_of.extend(layer.into_iter().map(|module| (module, number)));
    }
    let mut places = Vec::new();
    for source in rust_sources("kernel/src/") {
        let module = module_path(&source.path);
        let Some(own) = module.first() else { continue };
        let Some(own_layer) = layer_of.get(own) else {
            places.push(format!(
                "{}: the layout in kernel/src/lib.rs does not list `{own}`",
                source.path
            ));
            continue;
        };
        for (line, used) in uses(&source.text, module.len()) {
            match layer_of.get(used) {
                Some(layer) if layer <= own_layer => {}
                Some(_) => places.push(format!("{}:{line}: {own} uses {used}, which is above it", source.path)),
                None => places.push(format!("{}:{line}: `{used}` is not in the layout", source.path)),
            }
        }
    }
    report(
        "modules of the kernel use each other in the order of the layout in kernel/src/lib.rs",
        &places,
    );
}

/// The module that a file of the kernel is: `kernel/src/bus/trie.rs` is `bus::trie`, the crate's root is empty.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("kernel/src/").trim_end_matches(".rs");
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module
        .last()
        .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
    {
        module.pop();
    }
    module
}

/// The modules at the crate's root that a file names, by `crate::` or by as many `super::` as lead there, with their lines.
fn uses(source: &str, depth: usize) -> Vec<(usize, &str)> {
    let found = code(source);
    let mut used = Vec::new();
    // The braces that are open, and whether each is a module's.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < found.len() {
        match found[at].text {
            "{" => braces.push(at >= 2 && found[at - 2].text == "mod"),
            "}" => drop(braces.pop()),
            "crate" => at = first_segments(&found, at + 1, &mut used),
            "super" if at == 0 || found[at - 1].text != "::" => {
                let mut supers = 1;
                while texts(&found, at + 1) == ["::", "super"] {
                    supers += 1;
                    at += 2;
                }
                if supers == depth + braces.iter().filter(|module| **module).count() {
                    at = first_segments(&found, at + 1, &mut used);
                }
            }
            _ => {}
        }
        at += 1;
    }
    used
}

fn texts<'a>(found: &[Token<'a>], at: usize) -> Vec<&'a str> {
    found[at.min(found.len())..]
        .iter()
        .take(2)
        .map(|token| token.text)
        .collect()
}

/// What follows the crate's root at `at`: `::name`, or `::{name, other::{..}}`. Returns where the last token of it is.
fn first_segments<'a>(found: &[Token<'a>], at: usize, used: &mut Vec<(usize, &'a str)>) -> usize {
    match texts(found, at)[..] {
        ["::", "{"] => {
            let mut depth = 0;
            for (offset, token) in found[at + 1..].iter().enumerate() {
                match token.text {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                let starts_a_path = ["{", ","].contains(&found[at + offset].text);
                if depth == 1 && token.kind == Kind::Word && starts_a_path {
                    used.push((token.line, token.text));
                }
                if depth == 0 {
                    return at + 1 + offset;
                }
            }
            found.len()
        }
        // `crate::Type` at the root and `crate::macro!` do not exist here; what begins in lower case is a module.
        ["::", name] if name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            used.push((found[at + 1].line, name));
            at + 1
        }
        _ => at.saturating_sub(1),
    }
}

#[test]
fn the_kernel_knows_no_feature() {
    let mut places = Vec::new();
    for source in rust_sources("kernel/") {
        for (line, word) in features(&source.text) {
            places.push(format!("{}:{line}: {word}", source.path));
        }
    }
    report(
        "a word for a feature in the kernel: what it stands for belongs into a capsule",
        &places,
    );
}

/// Words for features in code, comments and literals alike, but for the language's own.
fn features(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let all = tokens(source);
    for (at, token) in all.iter().enumerate() {
        for word in parts(token.text).into_iter().filter(|word| is_feature(word)) {
            if !(word == "task" && is_technical(&all, at)) {
                let before = token.text.to_lowercase();
                let lines = before
                    .find(&word)
                    .map_or(0, |offset| before[..offset].matches('\n').count());
                found.push((token.line + lines, word));
            }
        }
    }
    found
}

/// Whether a token is part of a path such as `tokio::task`, or a comment or literal whose every `task` is.
fn is_technical(all: &[Token<'_>], at: usize) -> bool {
    let token = all[at];
    match token.kind {
        Kind::Word => at >= 2 && TECHNICAL.contains(&format!("{}::{}", all[at - 2].text, token.text).as_str()),
        _ => {
            let mut rest = token.text.to_lowercase();
            for path in TECHNICAL {
                rest = rest.replace(path, "");
            }
            !parts(&rest).iter().any(|word| is_feature(word))
        }
    }
}

fn is_feature(word: &str) -> bool {
    FEATURES
        .iter()
        .any(|feature| word == *feature || word.strip_suffix('s') == Some(feature))
}

/// The words in a text, in lower case; a name is as many words as it was put together of.
fn parts(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in text.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphabetic()) {
            word.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_uses(source: &str, depth: usize, expected: &[&str]) {
        let used: Vec<&str> = uses(source, depth).into_iter().map(|(_, name)| name).collect();
        assert_eq!(used, expected, "{source}");
    }

    #[test]
    fn uses_are_found_in_every_spelling() {
        check_uses("use crate::bus::Bus;", 1, &["bus"]);
        check_uses(
            "use crate::{\n  authority::{Gate, gate::X},\n  port,\n};",
            1,
            &["authority", "port"],
        );
        check_uses(
            "fn f(x: crate::ledger::Usage) { crate::boot::run() }",
            1,
            &["ledger", "boot"],
        );
        check_uses("use super::boot::Kernel;", 1, &["boot"]);
        check_uses("use super::super::{boot, control::x};", 2, &["boot", "control"]);
        check_uses("use super::super::boot;", 3, &[]);
        check_uses("mod tests { use super::*; use super::super::boot::run; }", 1, &["boot"]);
        check_uses("pub(crate) fn f() {} use super::trie; // crate::boot", 2, &[]);
    }

    #[test]
    fn modules_are_found_by_their_files() {
        assert_eq!(module_path("kernel/src/bus/trie.rs"), ["bus", "trie"]);
        assert_eq!(module_path("kernel/src/bus/mod.rs"), ["bus"]);
        assert!(module_path("kernel/src/lib.rs").is_empty());
    }

    #[test]
    fn features_are_found_in_names_and_in_prose() {
        let words = |source| features(source).into_iter().map(|(_, word)| word).collect::<Vec<_>>();
        assert_eq!(words("struct TaskList; let run_tools = 1;"), ["task", "tools"]);
        assert_eq!(words("// the LLM's goal"), ["llm", "goal"]);
        assert_eq!(words("f(\"tool.v1.text\")"), ["tool"]);
        assert_eq!(words("// promptly, a multitasking toolchain"), Vec::<String>::new());
        assert_eq!(
            words("use std::task::Poll; tokio::task::yield_now() // tokio::task, std::task"),
            Vec::<String>::new()
        );
        assert_eq!(words("read(\"/proc/{of}/task\")"), Vec::<String>::new());
        assert_eq!(words("spawn_task(); my::task::x()"), ["task", "task"]);
    }

    #[test]
    fn features_are_found_on_their_line() {
        assert_eq!(features("/* a\n b\n task */"), [(3, "task".to_owned())]);
    }
}
