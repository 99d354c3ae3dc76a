//! The JSON Schemas (2020-12) of what administrators ask, for programs and people.
//!
//! Derived from the types; written out here is only what their derived form would not show: texts with a grammar of their own, and the
//! `request_id` that every body may carry.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::admin::{Admin, REQUEST_ID, REQUEST_ID_BYTES_MAX};
use crate::Principal;
use crate::authority::{Action, Capability};
use crate::describe::{Description, Direction, TopicDescription};
use crate::proof::PublicKey;

macro_rules! text_schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

text_schema!(
    Principal,
    "Principal",
    json_schema!({ "type": "string", "pattern": "^[a-z0-9_][a-z0-9._-]{0,63}$" })
);
/// A [`Principal`] that may be a capsule's own, in schemas.
pub(super) enum Anybody {}

text_schema!(
    Anybody,
    "PrincipalOrCapsule",
    json_schema!({ "type": "string", "pattern": "^([a-z0-9_][a-z0-9._-]{0,63}|capsule:[a-z0-9-]{1,64})$" })
);
text_schema!(
    PublicKey,
    "PublicKey",
    json_schema!({ "type": "string", "pattern": "^ed25519:[0-9a-f]{64}$" })
);
text_schema!(
    Capability,
    "Capability",
    json_schema!({ "type": "string", "description": "`*`, or an action and what it is on: `publish:orders.>`, `child.spawn:/usr/bin/*`." })
);
text_schema!(
    Action,
    "Action",
    json_schema!({ "type": "string", "enum": Action::ALL.iter().map(|action| action.as_str()).collect::<Vec<_>>() })
);

/// All requests of administrators, as `astrid.v1.request.interfaces` tells them and `etc/schema/admin.json` has them.
#[must_use]
pub fn admin_description() -> Description {
    let describe = |admin: &Admin| {
        let (request, reply) = admin.schemas();
        Some(TopicDescription {
            topic: admin.topic().parse().ok()?,
            direction: Direction::Hears,
            summary: plain(admin.doc()),
            request: Some(with_id(request)),
            reply: Some(with_id(reply)),
            content_types: Vec::new(),
        })
    };
    Description {
        topics: Admin::ALL.iter().filter_map(describe).collect(),
    }
}

fn with_id(mut schema: Value) -> Value {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(
            REQUEST_ID.to_owned(),
            json!({ "type": "string", "maxLength": REQUEST_ID_BYTES_MAX }),
        );
    } else if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "properties".to_owned(),
            json!({ REQUEST_ID: { "type": "string", "maxLength": REQUEST_ID_BYTES_MAX } }),
        );
    }
    schema
}

/// Documentation without its links.
fn plain(doc: &str) -> String {
    let mut text = String::with_capacity(doc.len());
    let mut rest = doc.trim();
    while let Some((before, link)) = rest.split_once("[`") {
        text.push_str(before);
        let Some((name, after)) = link.split_once("`]") else {
            break;
        };
        text.push_str(name.rsplit("::").next().unwrap_or(name));
        rest = match after.strip_prefix('(').and_then(|target| target.split_once(')')) {
            Some((_, after)) => after,
            None => after,
        };
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// The committed schemas are the generated ones. Run with `ASTRID_BLESS=1` to write them anew.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "reads and writes the source tree")]
    fn admin_schema_of_the_manifest_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/schema/admin.json");
        let generated = serde_json::to_value(admin_description()).unwrap();
        if std::env::var_os("ASTRID_BLESS").is_some() {
            std::fs::write(&path, format!("{generated:#}\n")).unwrap();
        }
        let committed: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(
            committed, generated,
            "run this test with --features schema and ASTRID_BLESS=1 to write the schemas anew"
        );
        let all = admin_description();
        assert_eq!(all.topics.len(), Admin::ALL.len());
        for topic in all.topics {
            assert!(
                !topic.summary.is_empty() && !topic.summary.contains('['),
                "{}",
                topic.summary
            );
        }
    }
}
