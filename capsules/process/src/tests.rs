//! The capsule through the harness: the test is the machine that its programs run on.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use astrid_sdk::child::{Exit, Reach, Signal};
use astrid_sdk::prelude::*;
use astrid_sdk::testing::{Asked, Child, Harness};

use super::ProcessCapsule;

mod comeback;
mod documents;
mod life;
mod many;
mod properties;
mod refusals;
mod twins;

type Bed = Harness<ProcessCapsule>;

const SECOND: Duration = Duration::from_secs(1);

/// An actor whose document says this.
fn bed(document: &str) -> Bed {
    let mut bed = Harness::new::<ProcessCapsule>().with_manifest(include_str!("../Capsule.toml"));
    bed.set_document("processes.toml", Some(document));
    bed.event("lifecycle.v1.started", json!({ "capsule": "process", "generation": 1 }))
        .committed();
    bed
}

fn ask(bed: &mut Bed, verb: &str, body: Value) -> Asked {
    bed.ask(&format!("process.v1.request.{verb}"), body)
}

/// What is told of an instance.
fn instance(bed: &mut Bed, name: &str, index: usize) -> Value {
    ask(bed, "status", json!({ "name": name })).json()["instances"][index].clone()
}

fn state(bed: &mut Bed, name: &str) -> String {
    instance(bed, name, 0)["state"].as_str().unwrap().to_owned()
}

/// The children of an instance, of which there is never more than one.
fn main_child(bed: &Bed, name: &str, index: u32) -> Option<Child> {
    let prefix = format!("p/{name}/{index}/");
    let mut found = bed
        .children()
        .into_iter()
        .filter(|child| child.spec.tag.starts_with(&prefix));
    let child = found.next();
    assert!(found.next().is_none(), "two children of {name} {index}");
    child
}

fn child(bed: &Bed, name: &str) -> Child {
    main_child(bed, name, 0).unwrap_or_else(|| panic!("{name} has no child"))
}

fn run(bed: &mut Bed, name: &str) -> Child {
    let port = child(bed, name).port;
    bed.child_started(port).committed();
    child(bed, name)
}

fn exit(bed: &mut Bed, name: &str, exit: Exit) {
    let port = child(bed, name).port;
    bed.child_exited(port, exit).committed();
}

fn killed(name: &str) -> Exit {
    Exit::Signal {
        number: 9,
        name: name.to_owned(),
        core: false,
    }
}

fn answer(bed: &Bed, asked: &Asked) -> Value {
    match bed.reply(asked.to) {
        Some(Ok(body)) => body.read().unwrap(),
        other => panic!("not answered: {other:?}"),
    }
}

fn advance(bed: &mut Bed, time: Duration) {
    for handled in bed.advance(time) {
        handled.committed();
    }
}

fn why(bed: &mut Bed, name: &str) -> String {
    let why = ask(bed, "why", json!({ "name": name })).json();
    let sentences = why["instances"][0]["sentences"].as_array().unwrap();
    sentences
        .iter()
        .map(|said| said.as_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ")
}
