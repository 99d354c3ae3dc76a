//! The description of a capsule, from the types of its handlers.
//!
//! Runs in the component, but only when a bundle is made: schemas are computed then and travel in the bundle. Every guest carries it
//! all the same, so what depends on a type is two function pointers, and the rest exists once.

use std::borrow::Cow;

use astrid_wire::describe::{Description, Direction, TopicDescription};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::body::{Body, JSON};

/// What is known of a body from its type.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// JSON.
    Json {
        /// What its type is called.
        name: fn() -> Cow<'static, str>,
        /// Its schema.
        schema: fn(&mut SchemaGenerator) -> Schema,
    },
    /// Bytes of any kind, or none.
    Any,
}

/// A type of bodies, for the description.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no JSON Schema",
    label = "derive `JsonSchema`",
    note = "others learn the form of a body from its schema; `#[body]` derives it"
)]
pub trait DescribeBody {
    /// Its form.
    const FORM: Form;
}

impl<T: JsonSchema> DescribeBody for T {
    const FORM: Form = Form::Json {
        name: T::schema_name,
        schema: T::json_schema,
    };
}

impl DescribeBody for Body {
    const FORM: Form = Form::Any;
}

impl Form {
    /// The JSON Schema (2020-12), as the settings say for reading or for writing.
    fn schema(self, settings: SchemaSettings) -> Option<Value> {
        let Self::Json { name, schema } = self else {
            return None;
        };
        let mut generator = settings.into_generator();
        let mut schema = schema(&mut generator);
        let definitions = generator.take_definitions(true);
        let object = schema.ensure_object();
        object.entry("title").or_insert_with(|| name().into());
        object.insert(
            "$schema".to_owned(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        if !definitions.is_empty() {
            object.insert("$defs".to_owned(), definitions.into());
        }
        Some(schema.to_value())
    }

    fn content_types(self) -> &'static [&'static str] {
        match self {
            Self::Json { .. } => &[JSON],
            Self::Any => &[],
        }
    }
}

/// Collects the topics of a capsule.
#[derive(Debug, Default)]
pub struct Describe {
    topics: Vec<TopicDescription>,
}

impl Describe {
    /// A topic that the capsule handles, what it takes there, and what it answers with. `accepts` are the media types it takes, when
    /// the form does not say.
    pub fn hears(&mut self, topic: &str, summary: &str, taken: Form, answered: Form, accepts: &[&str]) {
        let accepts = if accepts.is_empty() {
            taken.content_types()
        } else {
            accepts
        };
        let request = taken.schema(SchemaSettings::draft2020_12().for_deserialize());
        let reply = answered.schema(SchemaSettings::draft2020_12().for_serialize());
        self.push(topic, Direction::Hears, summary.to_owned(), [request, reply], accepts);
    }

    /// A topic that the capsule publishes, and what it says there. The type's documentation is the summary.
    pub fn says(&mut self, topic: &str, said: Form) {
        let body = said.schema(SchemaSettings::draft2020_12().for_serialize());
        let summary = body
            .as_ref()
            .and_then(|schema| schema.get("description"))
            .and_then(Value::as_str);
        let summary = summary.unwrap_or_default().to_owned();
        self.push(topic, Direction::Says, summary, [body, None], said.content_types());
    }

    fn push(
        &mut self,
        topic: &str,
        direction: Direction,
        summary: String,
        bodies: [Option<Value>; 2],
        accepts: &[&str],
    ) {
        // The macro checked the pattern when the capsule was compiled.
        if let Ok(topic) = topic.parse() {
            let [request, reply] = bodies;
            let content_types = accepts.iter().map(ToString::to_string).collect();
            self.topics.push(TopicDescription {
                topic,
                direction,
                summary,
                request,
                reply,
                content_types,
            });
        }
    }

    /// All of them.
    pub fn finish(self) -> Description {
        Description { topics: self.topics }
    }
}
