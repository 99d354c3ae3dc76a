//! Supervised programs, as the command line shows them.

use serde_json::Value;

use crate::daemon::Astrid;

/// `process` with these arguments, as JSON.
///
/// # Panics
/// It fails.
#[track_caller]
pub fn process(astrid: &Astrid, arguments: &[&str]) -> Value {
    let arguments = [&["process"], arguments, &["--format", "json"]].concat();
    astrid.run(&arguments).ok().json()
}

/// The instances of a program.
///
/// # Panics
/// There is no such program.
#[track_caller]
pub fn instances(astrid: &Astrid, name: &str) -> Vec<Value> {
    let status = process(astrid, &["status", name]);
    let instances = status["instances"].as_array();
    instances.unwrap_or_else(|| panic!("no instances in {status}")).clone()
}

/// Waits until a program is as wanted: looks again whenever one changed.
///
/// # Panics
/// The daemon ends before.
#[track_caller]
pub fn becomes(astrid: &Astrid, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let watch = astrid.spawn(&["watch", "process.v1.event.>"]);
    let errors = watch.stderr.as_ref().unwrap_or_else(|| panic!("no standard error"));
    errors.wait_for("watching");
    loop {
        let instance = instances(astrid, name).remove(0);
        if wanted(&instance) {
            return instance;
        }
        let told = watch.stdout.as_ref().and_then(|lines| lines.next_line());
        assert!(told.is_some(), "last seen: {instance}");
    }
}
