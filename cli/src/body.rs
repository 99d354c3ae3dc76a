//! Bodies of messages: where they come from on the command line, what type they are, and how they are shown.

#![allow(
    clippy::disallowed_methods,
    reason = "reads what is named on the command line, bounded"
)]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::output::{printable, printable_lines};

/// Most bytes that are read: what would be refused anyway must not fill the memory first.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const OTHER: &str = "application/octet-stream";

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// The bytes.
    pub(crate) bytes: Vec<u8>,
    /// Their media type.
    pub(crate) content_type: String,
}

impl Body {
    /// A JSON document.
    pub(crate) fn json(value: &Value) -> anyhow::Result<Self> {
        Ok(Self {
            bytes: serde_json::to_vec(value)?,
            content_type: JSON.to_owned(),
        })
    }

    /// These bytes, of this type or what they look like.
    pub(crate) fn of(bytes: Vec<u8>, content_type: Option<String>) -> Self {
        let content_type = content_type.unwrap_or_else(|| by_content(&bytes).to_owned());
        Self { bytes, content_type }
    }

    /// Reads what BODY names: text as it stands, `-` for stdin, `@FILE` for a file, nothing for an empty body.
    pub(crate) fn read(argument: Option<&str>, content_type: Option<String>) -> anyhow::Result<Self> {
        let (bytes, guess) = match argument {
            None => (Vec::new(), TEXT),
            Some("-") => {
                let bytes = read_bounded(std::io::stdin().lock(), "stdin", BYTES_MAX)?;
                let guess = by_content(&bytes);
                (bytes, guess)
            }
            Some(argument) => match argument.strip_prefix('@') {
                Some(path) => {
                    let file = File::open(path).with_context(|| format!("cannot open {path}"))?;
                    let bytes = read_bounded(file, path, BYTES_MAX)?;
                    let guess = by_extension(Path::new(path)).unwrap_or_else(|| by_content(&bytes));
                    (bytes, guess)
                }
                None => (argument.as_bytes().to_vec(), by_content(argument.as_bytes())),
            },
        };
        Ok(Self {
            bytes,
            content_type: content_type.unwrap_or_else(|| guess.to_owned()),
        })
    }
}

/// Reads a file, or stdin if it is `-`, of at most so many bytes.
pub(crate) fn read_file(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        return read_bounded(std::io::stdin().lock(), "stdin", bytes_max);
    }
    let name = path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
    read_bounded(file, &name, bytes_max)
}

fn read_bounded(source: impl Read, name: &str, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::failed(format!("{name} is larger than {bytes_max} bytes")).into());
    }
    Ok(bytes)
}

fn by_extension(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "md" | "markdown" => "text/markdown",
        "html" | "htm" => "text/html",
        "pdf" => "application/pdf",
        "json" => JSON,
        "txt" => TEXT,
        _ => return None,
    })
}

fn by_content(bytes: &[u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Err(_) => OTHER,
        Ok(text) if !text.trim().is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => JSON,
        Ok(_) => TEXT,
    }
}

/// Whether this media type is JSON, whatever its parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence == JSON || essence.ends_with("+json")
}

/// A body in a JSON document.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Encoded {
    /// `json`: the value itself; `text`: a string; `base64`: a string of that.
    encoding: &'static str,
    body: Value,
}

impl Encoded {
    /// The most readable form that loses nothing.
    pub(crate) fn of(content_type: &str, body: &[u8]) -> Self {
        if is_json(content_type)
            && let Ok(body) = serde_json::from_slice(body)
        {
            return Self { encoding: "json", body };
        }
        match std::str::from_utf8(body) {
            Ok(text) => Self {
                encoding: "text",
                body: text.into(),
            },
            Err(_) => Self {
                encoding: "base64",
                body: BASE64.encode(body).into(),
            },
        }
    }
}

/// A body as a person at a terminal can read it; none if it is not text.
pub(crate) fn for_terminal(content_type: &str, body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let pretty = is_json(content_type)
        .then(|| serde_json::from_str::<Value>(text).ok())
        .flatten()
        .and_then(|value| serde_json::to_string_pretty(&value).ok());
    let mut text = printable_lines(pretty.as_deref().unwrap_or(text));
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Some(text)
}

/// A body on one line, for people.
pub(crate) fn on_one_line(content_type: &str, body: &[u8]) -> String {
    match Encoded::of(content_type, body) {
        Encoded { encoding: "json", body } => printable(&body.to_string()),
        Encoded {
            encoding: "text",
            body: Value::String(text),
        } => text
            .trim_end()
            .split('\n')
            .map(printable)
            .collect::<Vec<_>>()
            .join("\\n"),
        _ => format!("({} bytes)", body.len()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn inline_bodies_are_json_or_text() {
        let guess = |text: &str| Body::read(Some(text), None).unwrap().content_type;
        assert_eq!(guess("{\"a\": 1}"), JSON);
        assert_eq!(guess("17"), JSON);
        assert_eq!(guess("hello"), TEXT);
        assert_eq!(guess(""), TEXT);
        assert_eq!(guess("{oops"), TEXT);
        assert_eq!(
            Body::read(Some("x"), Some("text/x".into())).unwrap().content_type,
            "text/x"
        );
        assert_eq!(
            Body::read(None, None).unwrap(),
            Body {
                bytes: Vec::new(),
                content_type: TEXT.into()
            }
        );
    }

    #[test]
    fn files_are_typed_by_name_then_by_content() {
        assert_eq!(by_extension(Path::new("a/README.MD")), Some("text/markdown"));
        assert_eq!(by_extension(Path::new("x.pdf")), Some("application/pdf"));
        assert_eq!(by_extension(Path::new("x.bin")), None);
        assert_eq!(by_content(&[0xff, 0xfe]), OTHER);
        assert!(Body::read(Some("@/nonexistent/file"), None).is_err());
    }

    #[test]
    fn sources_are_bounded() {
        assert!(read_bounded(std::io::repeat(b'x'), "x", 1000).is_err());
    }

    #[test]
    fn bodies_become_json_without_loss() {
        let encoded = |content_type, body| serde_json::to_value(Encoded::of(content_type, body)).unwrap();
        assert_eq!(
            encoded("application/x+json; charset=utf-8", b"[1]"),
            serde_json::json!({"encoding": "json", "body": [1]})
        );
        assert_eq!(
            encoded(JSON, b"[1"),
            serde_json::json!({"encoding": "text", "body": "[1"})
        );
        assert_eq!(
            encoded("text/plain", &[0xff]),
            serde_json::json!({"encoding": "base64", "body": "/w=="})
        );
    }

    #[test]
    fn people_see_text() {
        assert_eq!(for_terminal(JSON, b"{\"a\":1}").unwrap(), "{\n  \"a\": 1\n}\n");
        assert_eq!(for_terminal(TEXT, b"a\x1b[0m\nb").unwrap(), "a\u{fffd}[0m\nb\n");
        assert_eq!(for_terminal(OTHER, &[0xff]), None);
        assert_eq!(on_one_line(TEXT, b"a\nb\n"), "a\\nb");
        assert_eq!(on_one_line(OTHER, &[0xff, 0]), "(2 bytes)");
    }
}
