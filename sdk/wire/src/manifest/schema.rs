//! The JSON Schema (2020-12) of a manifest, for editors.
//!
//! Derived from the types; written out here is only what their derived form would not show: texts with a grammar of their
//! own, and the two ways to write an import.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{ByteSize, CapsuleName, DocumentName, FilePath, Import, InterfaceVersion, Manifest, Program, Time};
use crate::topic::{self, Pattern};

/// The schema, as committed in `etc/schema/capsule-manifest.json`.
#[must_use]
pub fn manifest_schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).to_value()
}

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
    CapsuleName,
    "CapsuleName",
    json_schema!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" })
);
text_schema!(
    Program,
    "Program",
    json_schema!({ "type": "string", "pattern": "^(\\*|/.*)$" })
);
text_schema!(
    DocumentName,
    "DocumentName",
    json_schema!({ "type": "string", "pattern": "^[a-z0-9-]+\\.toml$" })
);
text_schema!(
    FilePath,
    "FilePath",
    json_schema!({ "type": "string", "pattern": "^/(workspace|home|tmp)(/.+)?$" })
);
text_schema!(
    Pattern,
    "Pattern",
    json_schema!({
        "type": "string",
        "maxLength": topic::BYTES_MAX,
        "pattern": "^(([a-z0-9_-]+|\\*)\\.){0,11}([a-z0-9_-]+|\\*|>)$",
    })
);
text_schema!(
    InterfaceVersion,
    "InterfaceVersion",
    json_schema!({ "type": "string", "pattern": "^(0|[1-9][0-9]*)\\.(0|[1-9][0-9]*)$" })
);
text_schema!(
    ByteSize,
    "ByteSize",
    json_schema!({ "type": "string", "pattern": "^[0-9][0-9_]* *(B|KiB|MiB|GiB)$" })
);
text_schema!(
    Time,
    "Time",
    json_schema!({ "type": "string", "pattern": "^[0-9][0-9_]* *(ms|s|m|h)$" })
);
text_schema!(
    Import,
    "Import",
    json_schema!({
        "description": "An interface that a capsule needs: what versions will do (`\"^1\"`), or a table.",
        "oneOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": {
                    "version": { "type": "string", "description": "What versions will do." },
                    "optional": { "type": "boolean", "default": false, "description": "Whether it runs without." },
                    "many": {
                        "type": "boolean",
                        "default": false,
                        "description": "Whether it takes every exporter, instead of the one.",
                    },
                },
                "required": ["version"],
                "additionalProperties": false,
            },
        ],
    })
);
