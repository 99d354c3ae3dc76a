//! The document: what a change leaves, and what becomes of what runs.

use super::*;

const WRITTEN: &str = r#"# What runs here.

# The web server; ask Ada before changing it.
[[processes]]
name = "web"      # the one and only
command = "/bin/web"
env = { A = "1" } # see the manual
instances = 2

[processes.health] # checked
kind = "tcp"
address = "127.0.0.1:80"

# Nightly.
[[processes]]
name = "job"
command = "job"
autostart = false
"#;

/// What a person wrote above the first definition, about all of them, outlives it; its own comment does not.
#[test]
fn the_head_of_the_document_survives() {
    let entry =
        |name: &str| format!("# About {name}.\n[[processes]]\nname = \"{name}\"\ncommand = \"x\"\nautostart = false\n");
    let mut bed = bed(&format!(
        "# All of ours.\n# Ask first.\n\n{}\n{}",
        entry("a"),
        entry("b")
    ));
    ask(&mut bed, "remove", json!({ "name": "a" })).json();
    let left = bed.document("processes.toml").unwrap();
    assert_eq!(left, format!("# All of ours.\n# Ask first.\n\n{}", entry("b")));
    ask(&mut bed, "remove", json!({ "name": "b" })).json();
    assert_eq!(
        bed.document("processes.toml").unwrap().trim_end(),
        "# All of ours.\n# Ask first."
    );
}

/// A9: a person's comments and order survive, and what is the same is not touched.
#[test]
fn comments_survive() {
    let mut bed = bed(WRITTEN);
    let applied = r#"
# Mail, new.
[[processes]]
name = "mail"
command = "mail"
[processes.env]
B = "2"

[[processes]]
name = "web"
command = "/bin/web"
env = { A = "2" }
health = { kind = "tcp", address = "127.0.0.1:81" }
"#;
    let outcome = ask(&mut bed, "apply", json!({ "text": applied, "origin": "web.toml" })).json();
    assert_eq!(
        outcome,
        json!({ "added": ["mail"], "changed": ["web"], "unchanged": [], "removed": [] })
    );
    let expected = WRITTEN
        .replace("env = { A = \"1\" } # see", "env = { A = \"2\" } # see")
        .replace("instances = 2\n", "")
        .replace(":80", ":81");
    let expected = format!(
        "{expected}\n# Mail, new.\n[[processes]]\nname = \"mail\"\ncommand = \"mail\"\n[processes.env]\nB = \"2\"\n"
    );
    assert_eq!(bed.document("processes.toml").unwrap(), expected);

    // Once more: nothing changes, nothing restarts.
    let outcome = ask(&mut bed, "apply", json!({ "text": applied })).json();
    assert_eq!(outcome["unchanged"], json!(["mail", "web"]));
    assert_eq!(bed.document("processes.toml").unwrap(), expected);

    ask(&mut bed, "remove", json!({ "name": "job" })).json();
    let without = expected.replace(
        "\n# Nightly.\n[[processes]]\nname = \"job\"\ncommand = \"job\"\nautostart = false\n",
        "",
    );
    assert_eq!(bed.document("processes.toml").unwrap(), without);
}

#[test]
fn a_definition_goes_into_the_document_as_short_as_it_was() {
    let mut bed = bed("");
    let process = json!({ "name": "web", "command": "/bin/web", "env": { "A": "1" }, "backoff": { "base": "2s" },
        "limits": { "memory": "64MiB" }, "health": { "kind": "http", "url": "http://localhost/", "status": [200, 204] } });
    ask(&mut bed, "define", json!({ "process": process })).json();
    let text = bed.document("processes.toml").unwrap();
    assert_eq!(
        text,
        "\n[[processes]]\nname = \"web\"\ncommand = \"/bin/web\"\nenv = { A = \"1\" }\nbackoff = { base = \"2s\" }\n\
         health = { kind = \"http\", url = \"http://localhost/\", status = [200, 204] }\nlimits = { memory = \"64MiB\" }\n"
    );
    // The same again is no conflict; another is, unless it is meant.
    ask(&mut bed, "define", json!({ "process": process })).json();
    let other = json!({ "name": "web", "command": "/bin/other" });
    let refused = ask(&mut bed, "define", json!({ "process": other })).refused();
    assert_eq!(refused.code(), "conflict");
    ask(&mut bed, "define", json!({ "process": other, "replace": true })).json();
    assert_eq!(
        bed.document("processes.toml").unwrap(),
        "\n[[processes]]\nname = \"web\"\ncommand = \"/bin/other\"\n"
    );
}

#[test]
fn definitions_that_are_written_as_values_can_be_changed() {
    let mut bed = bed("processes = [{ name = \"a\", command = \"a\" }]\n");
    ask(
        &mut bed,
        "define",
        json!({ "process": { "name": "b", "command": "b" } }),
    )
    .json();
    let names = ask(&mut bed, "list", json!({})).json();
    assert_eq!(names["processes"].as_array().unwrap().len(), 2);
    let text = bed.document("processes.toml").unwrap();
    assert!(
        super::super::document::parse(&text, "x").is_ok_and(|parsed| parsed.len() == 2),
        "{text}"
    );
}

/// A15: one instance at a time, the next when the last is ready; and not at all after one that failed.
#[test]
fn a_changed_definition_rolls() {
    let text = |command: &str| {
        format!("[[processes]]\nname = \"web\"\ncommand = \"{command}\"\ninstances = 3\nmax_restarts = 1\n")
    };
    let mut bed = bed(&text("one"));
    for index in 0..3 {
        let port = main_child(&bed, "web", index).unwrap().port;
        bed.child_started(port).committed();
    }
    let turn = |bed: &mut Bed, index: u32| {
        let old = main_child(bed, "web", index).unwrap();
        assert_eq!(old.signals, [(Signal::Terminate, Reach::Group)], "{index}");
        for later in index + 1..3 {
            assert!(main_child(bed, "web", later).unwrap().signals.is_empty(), "{later}");
        }
        bed.child_exited(old.port, killed("SIGTERM")).committed();
        main_child(bed, "web", index).unwrap()
    };
    ask(&mut bed, "apply", json!({ "text": text("two") })).json();
    for index in 0..3 {
        let new = turn(&mut bed, index);
        assert_eq!(new.spec.program, "two");
        bed.child_started(new.port).committed();
    }
    bed.refuse_program("three", astrid_sdk::error::SpawnError::NotFound("three".to_owned()));
    ask(&mut bed, "apply", json!({ "text": text("three") })).json();
    let first = main_child(&bed, "web", 0).unwrap();
    bed.child_exited(first.port, Exit::Code(0)).committed();
    assert!(main_child(&bed, "web", 0).is_none());
    let second = main_child(&bed, "web", 1).unwrap();
    assert!(second.signals.is_empty() && second.spec.program == "two");
    let why = ask(&mut bed, "why", json!({ "name": "web", "instance": 1 })).json();
    let events = why["instances"][0]["events"].as_array().unwrap();
    assert!(
        events.last().unwrap()["what"]
            .as_str()
            .unwrap()
            .contains("instance 0 failed with it")
    );
}

/// A10: exactly n handles for n instances; growing and shrinking leave the others alone.
#[test]
fn instances_come_and_go() {
    let text = |n: u32| format!("[[processes]]\nname = \"web\"\ncommand = \"w\"\ninstances = {n}\n");
    let mut bed = bed(&text(2));
    for index in 0..2 {
        let port = main_child(&bed, "web", index).unwrap().port;
        bed.child_started(port).committed();
    }
    ask(&mut bed, "apply", json!({ "text": text(4) })).json();
    assert_eq!(bed.children().len(), 4);
    ask(&mut bed, "apply", json!({ "text": text(1) })).json();
    let status = ask(&mut bed, "status", json!({ "name": "web" })).json();
    assert_eq!(status["instances"].as_array().unwrap().len(), 1);
    for index in 1..4 {
        let leaving = main_child(&bed, "web", index).unwrap();
        assert_eq!(leaving.signals.len(), 1);
        bed.child_exited(leaving.port, killed("SIGTERM")).committed();
    }
    assert!(main_child(&bed, "web", 0).unwrap().signals.is_empty());
    assert_eq!(
        ask(&mut bed, "start", json!({ "name": "web", "instance": 1 }))
            .refused()
            .code(),
        "not-found"
    );
    assert_eq!(bed.children().len(), 1);
}

/// A10: a running process cannot be unregistered; it is stopped first.
#[test]
fn what_runs_is_stopped_before_it_is_removed() {
    let mut bed = bed(WRITTEN);
    let ports: Vec<_> = bed.children().iter().map(|child| child.port).collect();
    for port in &ports {
        bed.child_started(*port).committed();
    }
    let asked = ask(&mut bed, "remove", json!({ "name": "web" }));
    assert!(asked.is_pending());
    let again = ask(
        &mut bed,
        "define",
        json!({ "process": { "name": "web", "command": "x" } }),
    );
    assert_eq!(again.refused().code(), "stopping");
    for port in ports {
        bed.child_exited(port, killed("SIGTERM")).committed();
    }
    assert_eq!(answer(&bed, &asked), json!({}));
    assert_eq!(
        ask(&mut bed, "status", json!({ "name": "web" })).refused().code(),
        "not-found"
    );
    assert!(!bed.document("processes.toml").unwrap().contains("web"));
    assert!(bed.document("processes.toml").unwrap().contains("# Nightly."));
}

/// A9: the place of what is wrong; what runs goes on, and children wait for a valid document.
#[test]
fn an_invalid_document_is_told_with_its_place() {
    let mut bed = bed("[[processes]]\nname = \"web\"\ncommand = \"w\"\ncomand = \"x\"\n");
    for (verb, body) in [
        ("list", json!({})),
        ("start", json!({ "name": "web" })),
        ("apply", json!({ "text": "" })),
    ] {
        let refused = ask(&mut bed, verb, body).refused();
        assert_eq!(refused.code(), "invalid");
        assert_eq!(refused.message(), "processes.toml:4:1: unknown key `comand`");
        assert_eq!(refused.hint(), Some("did you mean `command`?"));
    }
    // A person corrects it.
    bed.set_document(
        "processes.toml",
        Some("[[processes]]\nname = \"web\"\ncommand = \"w\"\n"),
    );
    assert!(ask(&mut bed, "list", json!({})).json()["problem"].is_null());
    run(&mut bed, "web");
    bed.set_document("processes.toml", Some("[["));
    assert_eq!(
        ask(&mut bed, "restart", json!({ "name": "web" })).refused().code(),
        "invalid"
    );
    let list = ask(&mut bed, "list", json!({})).json();
    assert_eq!(list["problem"]["code"], "invalid");
    assert_eq!(list["processes"][0]["instances"][0]["state"], "running");
    assert!(ask(&mut bed, "stop", json!({ "name": "web" })).is_pending());
}

/// Children of an earlier generation are left alone until the document can be read, and are this one's then.
#[test]
fn children_wait_for_a_valid_document() {
    let mut bed = Harness::new::<ProcessCapsule>().with_manifest(include_str!("../../Capsule.toml"));
    bed.set_document("processes.toml", Some("processes = 7"));
    let held = ["p/a/0/0", "p/b/0/0"].map(|tag| {
        let mut spec = astrid_sdk::child::Spec::new("x");
        spec.tag = tag.to_owned();
        let port = bed.adopted_child(spec);
        json!({ "port": port, "tag": tag, "pid": 77, "started_at_ms": 1_767_225_600_000_u64 })
    });
    let begun = json!({ "capsule": "process", "generation": 2, "ports": held });
    bed.event("lifecycle.v1.restarted", begun).committed();
    assert!(bed.children().iter().all(|child| child.signals.is_empty()));
    // One ends meanwhile, and is not taken for running.
    let b = bed.child("p/b/0/0").port;
    bed.child_exited(b, Exit::Code(0)).committed();
    let text = "[[processes]]\nname = \"a\"\ncommand = \"x\"\n[[processes]]\nname = \"b\"\ncommand = \"x\"\n";
    bed.set_document("processes.toml", Some(text));
    ask(&mut bed, "list", json!({})).json();
    assert_eq!(instance(&mut bed, "a", 0)["pid"], 77);
    assert_eq!(state(&mut bed, "b"), "starting");
    assert_eq!(bed.children().len(), 2);
}

/// A person's edit is taken by the next start or restart of what it is about.
#[test]
fn an_edit_is_taken_with_the_next_restart() {
    let text = |a: &str, b: &str| {
        format!("[[processes]]\nname = \"a\"\ncommand = \"{a}\"\n[[processes]]\nname = \"b\"\ncommand = \"{b}\"\n")
    };
    let mut bed = bed(&text("one", "one"));
    run(&mut bed, "a");
    run(&mut bed, "b");
    bed.set_document("processes.toml", Some(&text("two", "two")));
    ask(&mut bed, "restart", json!({ "name": "a", "wait": false })).json();
    exit(&mut bed, "a", Exit::Code(0));
    assert_eq!(child(&bed, "a").spec.program, "two");
    assert!(child(&bed, "b").signals.is_empty());
}

#[test]
fn what_an_applied_file_does_not_name_is_removed_only_when_told() {
    let mut bed = bed(WRITTEN);
    let text = "[[processes]]\nname = \"job\"\ncommand = \"job\"\nautostart = false\n";
    let outcome = ask(&mut bed, "apply", json!({ "text": text })).json();
    assert_eq!(outcome["removed"], json!([]));
    let outcome = ask(&mut bed, "apply", json!({ "text": text, "prune": true })).json();
    assert_eq!(
        (&outcome["removed"], &outcome["unchanged"]),
        (&json!(["web"]), &json!(["job"]))
    );
}
