//! What is installed may be wrong; operators still get in.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;

use astrid_kernel::capsule::bundle::assemble;
use astrid_tests::bed::{bundle_file, read_bundle};
use astrid_tests::daemon::Astrid;
use serde_json::{Value, json};

/// A daemon whose home holds a bundle of `hello`'s code under another name or manifest.
fn with(name: &str, change: impl Fn(&str) -> String) -> Astrid {
    let astrid = Astrid::new();
    let _ = astrid.run(&["start"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let hello = read_bundle("hello");
    // The sections that `assemble` adds are at the end: what is before them is the component.
    let text = change(&hello.manifest_text);
    let describe = serde_json::to_string(&hello.description).unwrap();
    let whole = hello.component;
    let component = (8..whole.len()).rev().find_map(|end| {
        let bundle = assemble(&whole[..end], &hello.manifest_text, &describe).ok()?;
        (bundle[..] == whole[..]).then(|| whole[..end].to_vec())
    });
    let bundle = assemble(&component.unwrap(), &text, &describe).unwrap();
    fs::write(astrid.home().join(format!("capsules/{name}.capsule")), bundle).unwrap();
    let _ = astrid.run(&["start"]).ok();
    astrid
}

fn status(astrid: &Astrid) -> Value {
    astrid.run(&["status", "--format", "json"]).ok().json()
}

/// Rescue: what replaced the built-in uplink does not listen, so the built-in one is started, and status says so.
#[test]
fn a_replaced_uplink_that_does_not_listen() {
    let astrid = with("uplink-local", |m| {
        m.replace("name = \"hello\"", "name = \"uplink-local\"")
    });
    let status = status(&astrid);
    assert_eq!(status["state"], "degraded");
    assert!(
        status["reasons"][0].as_str().unwrap().contains("the built-in one runs"),
        "{status}"
    );
    let _ = astrid.run(&["stop"]).ok();
    // `--safe` does not look at what is installed.
    let _ = astrid.run(&["start", "--safe"]).ok();
    assert_eq!(self::status(&astrid)["state"], "ready");
}

/// K4: a capsule with `drain = true` is told of the stop, finishes, and says so; nobody waits longer than that.
#[test]
fn a_capsule_finishes_before_the_stop() {
    let astrid = Astrid::new();
    let _ = astrid.run(&["start"]).ok();
    for name in ["hello", "probe"] {
        fs::copy(
            bundle_file(name),
            astrid.home().join(format!("capsules/{name}.capsule")),
        )
        .unwrap();
    }
    let _ = astrid.run(&["restart"]).ok();
    let _ = astrid.run(&["request", "probe.v1.do.state", "{}"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    let log = fs::read_to_string(astrid.home().join("log/astrid.log")).unwrap();
    assert!(
        log.contains("finished") && !log.contains("did not finish in time"),
        "{log}"
    );
}

/// A capsule that hears everything cannot answer for the kernel.
#[test]
fn a_capsule_that_hears_everything() {
    let astrid = with("hello", |m| m.replace("\"hello.v1.greet\" = {}", "\">\" = {}"));
    let status = status(&astrid);
    assert_eq!(
        (&status["state"], &status["mode"]),
        (&json!("ready"), &json!("persistent"))
    );
    assert!(
        status["capsules"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["name"] == "hello")
    );
}
