//! What a capsule says about itself: its topics and the JSON Schemas (2020-12) of their bodies.
//!
//! Made by `describe` when a bundle is made and carried in it, so that the daemon never runs a guest to know its interface.
//! The kernel treats schemas as opaque.

use serde::{Deserialize, Serialize};

use crate::topic::Pattern;

/// Most bytes of a description: what a bundle may carry besides code.
pub const DESCRIPTION_BYTES_MAX: usize = 1024 * 1024;

/// Most topics in a description.
pub const TOPICS_MAX: usize = 256;

/// What a capsule hears and says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// One entry a topic and direction.
    pub topics: Vec<TopicDescription>,
}

/// Which way messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The capsule handles them.
    Hears,
    /// The capsule publishes them.
    Says,
}

/// A topic, or a pattern of topics that are treated alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicDescription {
    /// Where.
    pub topic: Pattern,
    /// Which way.
    pub direction: Direction,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// JSON Schema of the body, when it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<serde_json::Value>,
    /// JSON Schema of the answer's body, when there is one and it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<serde_json::Value>,
    /// Media types of bodies that are taken (or said).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content_types: Vec<String>,
}

/// Why bytes are not a description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// Over [`DESCRIPTION_BYTES_MAX`].
    #[error("the description has {bytes} bytes, the limit is {DESCRIPTION_BYTES_MAX}")]
    TooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Over [`TOPICS_MAX`].
    #[error("the description has {topics} topics, the limit is {TOPICS_MAX}")]
    TooMany {
        /// How many.
        topics: usize,
    },
    /// Not the JSON of one.
    #[error("the description is not valid: {0}")]
    Json(#[from] serde_json::Error),
}

impl Description {
    /// Reads the JSON document that `describe` returned.
    ///
    /// # Errors
    /// Over a limit, not JSON, or not of this form.
    pub fn parse(document: &[u8]) -> Result<Self, DescribeError> {
        if document.len() > DESCRIPTION_BYTES_MAX {
            return Err(DescribeError::TooLarge { bytes: document.len() });
        }
        let description: Self = serde_json::from_slice(document)?;
        if description.topics.len() > TOPICS_MAX {
            return Err(DescribeError::TooMany {
                topics: description.topics.len(),
            });
        }
        Ok(description)
    }

    /// The JSON document.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Strings and JSON values always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let description = Description {
            topics: vec![TopicDescription {
                topic: "tool.v1.text.*".parse().unwrap(),
                direction: Direction::Hears,
                summary: "Converts".into(),
                request: Some(serde_json::json!({"type": "object"})),
                reply: None,
                content_types: vec!["text/html".into()],
            }],
        };
        assert_eq!(
            Description::parse(description.to_json().as_bytes()).unwrap(),
            description
        );
        assert!(matches!(
            Description::parse(b"{\"topic\": []}"),
            Err(DescribeError::Json(_))
        ));
        assert!(matches!(
            Description::parse(b"{\"topics\": [{\"topic\": \"A\", \"direction\": \"says\"}]}"),
            Err(DescribeError::Json(error)) if error.to_string().contains("`A` is not a pattern")
        ));
        assert!(matches!(
            Description::parse(&vec![b' '; DESCRIPTION_BYTES_MAX + 1]),
            Err(DescribeError::TooLarge { .. })
        ));
        // Deeper than any schema: a typed error, not a stack overflow.
        let deep = format!("{{\"topics\": {}", "[".repeat(100_000));
        assert!(matches!(
            Description::parse(deep.as_bytes()),
            Err(DescribeError::Json(_))
        ));
    }
}
