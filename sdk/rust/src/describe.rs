//! The description of a capsule, from the types of its handlers.
//!
//! Runs in the component, but only when a bundle is made: schemas are computed then and travel in the bundle.

use astrid_wire::describe::{Description, Direction, TopicDescription};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::body::{Body, JSON};

/// What is known of a body from its type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON Schema",
    label = "derive `JsonSchema`",
    note = "others learn the form of a body from its schema; `#[body]` derives it"
)]
pub trait DescribeBody {
    /// Its JSON Schema (2020-12), when it is JSON. `settings` say whether it is read or written.
    fn schema(settings: SchemaSettings) -> Option<Value>;

    /// Its media types, as far as the type says.
    fn content_types() -> &'static [&'static str];
}

impl<T: JsonSchema> DescribeBody for T {
    fn schema(settings: SchemaSettings) -> Option<Value> {
        Some(settings.into_generator().into_root_schema_for::<T>().to_value())
    }

    fn content_types() -> &'static [&'static str] {
        &[JSON]
    }
}

impl DescribeBody for Body {
    fn schema(_: SchemaSettings) -> Option<Value> {
        None
    }

    fn content_types() -> &'static [&'static str] {
        &[]
    }
}

/// Stands for the body of a handler that takes none.
#[derive(Debug)]
pub struct Nothing;

impl DescribeBody for Nothing {
    fn schema(_: SchemaSettings) -> Option<Value> {
        None
    }

    fn content_types() -> &'static [&'static str] {
        &[]
    }
}

/// Collects the topics of a capsule.
#[derive(Debug, Default)]
pub struct Describe {
    topics: Vec<TopicDescription>,
}

impl Describe {
    /// A topic that the capsule handles: `Q` is what it takes, `A` what it answers with. `accepts` are the media types it takes,
    /// when `Q` does not say.
    pub fn hears<Q: DescribeBody, A: DescribeBody>(&mut self, topic: &str, summary: &str, accepts: &[&str]) {
        let accepts = if accepts.is_empty() { Q::content_types() } else { accepts };
        let request = Q::schema(SchemaSettings::draft2020_12().for_deserialize());
        let reply = A::schema(SchemaSettings::draft2020_12().for_serialize());
        self.push(topic, Direction::Hears, summary.to_owned(), request, reply, accepts);
    }

    /// A topic that the capsule publishes: `Q` is what it says. The type's documentation is the summary.
    pub fn says<Q: DescribeBody>(&mut self, topic: &str) {
        let request = Q::schema(SchemaSettings::draft2020_12().for_serialize());
        let said = request.as_ref().and_then(|schema| schema.get("description")).and_then(Value::as_str);
        let summary = said.unwrap_or_default().to_owned();
        self.push(topic, Direction::Says, summary, request, None, Q::content_types());
    }

    fn push(
        &mut self,
        topic: &str,
        direction: Direction,
        summary: String,
        request: Option<Value>,
        reply: Option<Value>,
        content_types: &[&str],
    ) {
        // The macro checked the pattern when the capsule was compiled.
        if let Ok(topic) = topic.parse() {
            let content_types = content_types.iter().map(ToString::to_string).collect();
            self.topics.push(TopicDescription { topic, direction, summary, request, reply, content_types });
        }
    }

    /// All of them.
    pub fn finish(self) -> Description {
        Description { topics: self.topics }
    }
}
