//! The capsule through the harness, without WebAssembly.

use astrid_sdk::prelude::*;
use astrid_sdk::testing::Harness;

use super::Hello;

#[test]
fn greets_by_name() {
    let mut hello = Harness::new::<Hello>().with_manifest(include_str!("../Capsule.toml"));
    assert_eq!(
        hello.ask("hello.v1.greet", json!({ "name": "Ada" })).json(),
        json!({ "text": "Hello, Ada!" })
    );
}

#[test]
fn says_what_is_wrong_with_a_question() {
    let mut hello = Harness::new::<Hello>();
    let refused = hello.ask("hello.v1.greet", json!({ "name": 7 })).refused();
    assert_eq!(refused.code(), codes::INVALID);
    assert!(
        refused.message().starts_with("name: invalid type: integer `7`"),
        "{refused}"
    );
}
