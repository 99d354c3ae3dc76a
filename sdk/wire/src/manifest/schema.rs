//! The JSON Schema (2020-12) of a manifest, for editors.

use super::Manifest;

/// The schema, as committed in `etc/schema/capsule-manifest.json`.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).to_value()
}
