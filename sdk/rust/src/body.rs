//! Bodies: bytes with a content type, and how typed ones are read and written.
//!
//! A handler says by its parameter's type what it takes: [`Body`] is the bytes as they came, any other type is read from
//! JSON. What it returns works the same way. Deliberately absent: any other encoding. A capsule that speaks one takes
//! a [`Body`] and reads it itself.

use std::borrow::Cow;

use astrid_wire::Problem;
use astrid_wire::problem::codes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Media type of typed bodies.
pub const JSON: &str = "application/json";

/// Media type of [`Body::text`]; its characters are UTF-8.
pub const TEXT: &str = "text/plain";

/// A body as it travels: its bytes and what they are.
///
/// ```
/// use astrid_sdk::Body;
///
/// let page = Body::new("text/html; width=72; links=\"in line\"", "<p>hello");
/// assert_eq!(page.media_type(), "text/html");
/// assert_eq!(page.parameter("Width").as_deref(), Some("72"));
/// assert_eq!(page.parameter("links").as_deref(), Some("in line"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// Media type with its parameters (RFC 9110), at most 255 bytes.
    pub content_type: Cow<'static, str>,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Body {
    /// Bytes of this content type.
    pub fn new(content_type: impl Into<Cow<'static, str>>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            content_type: content_type.into(),
            bytes: bytes.into(),
        }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(TEXT, text.into())
    }

    /// A value as JSON.
    ///
    /// # Errors
    /// The value has no JSON form (a map whose keys are not strings, or its `Serialize` fails).
    pub fn json(value: &impl Serialize) -> Result<Self, Unserializable> {
        match serde_json::to_vec(value) {
            Ok(bytes) => Ok(Self {
                content_type: Cow::Borrowed(JSON),
                bytes,
            }),
            Err(error) => Err(Unserializable(error.to_string())),
        }
    }

    /// The content type without its parameters.
    pub fn media_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }

    /// A parameter of the content type, its quotes removed. Names are compared without case.
    pub fn parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let mut rest = self.content_type.split_once(';')?.1;
        loop {
            let (key, after) = rest.split_once('=')?;
            let (value, next) = parameter_value(after.trim_start());
            // `a; b=1`: what has no value is skipped with its semicolon.
            let key = key.rsplit(';').next().unwrap_or_default().trim();
            if key.eq_ignore_ascii_case(name) {
                return Some(value);
            }
            rest = next;
        }
    }

    /// Whether typed bodies can be read from it: JSON by its media type, or no bytes at all.
    pub fn is_json(&self) -> bool {
        let media_type = self.media_type();
        let suffix = media_type.rsplit_once('+').map_or("", |(_, suffix)| suffix);
        media_type.eq_ignore_ascii_case(JSON) || suffix.eq_ignore_ascii_case("json") || self.bytes.is_empty()
    }

    /// Reads a value from JSON. No bytes read as `null`.
    ///
    /// ```
    /// use astrid_sdk::Body;
    ///
    /// let body = Body::new("application/json", r#"{"points": [{"x": 1}, {"x": "two"}]}"#);
    /// # #[derive(Debug, serde::Deserialize)] struct Point { x: i64 }
    /// # #[derive(Debug, serde::Deserialize)] struct Line { points: Vec<Point> }
    /// let problem = body.read::<Line>().unwrap_err();
    /// assert_eq!(problem.code(), "invalid");
    /// assert!(problem.message().starts_with("points[1].x: invalid type: string"), "{problem}");
    /// ```
    ///
    /// # Errors
    /// `unsupported` when the content type is not JSON; `invalid`, naming the path of the offending field, when it does not
    /// fit.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if !self.is_json() {
            return Err(not_json(self.media_type()));
        }
        // The path costs time, so it is only looked for when there is something to tell.
        serde_json::from_slice(self.document()).map_err(|_| misfit::<T>(self.document()))
    }

    fn document(&self) -> &[u8] {
        if self.bytes.is_empty() { b"null" } else { &self.bytes }
    }
}

/// The value at the beginning of `text`, and what follows it.
fn parameter_value(text: &str) -> (Cow<'_, str>, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (
            Cow::Borrowed(text[..end].trim_end()),
            text.get(end + 1..).unwrap_or_default(),
        );
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (Cow::Owned(value), quoted[at + 1..].trim_start().trim_start_matches(';')),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            character => value.push(character),
        }
    }
    (Cow::Owned(value), "")
}

#[cold]
fn not_json(media_type: &str) -> Problem {
    let shown = if media_type.is_empty() { "none" } else { media_type };
    Problem::new(
        codes::UNSUPPORTED,
        format!("the content type is {shown}, this takes {JSON}"),
    )
    .with_hint(format!("send a JSON document as {JSON}"))
}

#[cold]
fn misfit<T: DeserializeOwned>(document: &[u8]) -> Problem {
    let mut reader = serde_json::Deserializer::from_slice(document);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) => invalid(&error.path().to_string(), error.inner()),
        // The value is fine, so something follows it.
        Ok(_) => match reader.end() {
            Err(error) => invalid(".", &error),
            Ok(()) => Problem::new(codes::INVALID, "the body does not read the same twice"),
        },
    }
}

#[cold]
fn invalid(path: &str, error: &serde_json::Error) -> Problem {
    // `.` and `?` are what a path to nothing looks like.
    let message = if matches!(path, "." | "?") {
        error.to_string()
    } else {
        format!("{path}: {error}")
    };
    Problem::new(codes::INVALID, message)
}

/// A value has no JSON form; says why. The capsule's own mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it has no JSON form: {0}")]
pub struct Unserializable(pub String);

impl From<Unserializable> for Problem {
    fn from(error: Unserializable) -> Self {
        Self::new(codes::CAPSULE_FAILED, error.to_string())
    }
}

/// What a handler can take: [`Body`], or anything that serde reads.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}`",
    label = "not a body",
    note = "take `Body` for the bytes as they came, or a type that is `serde::Deserialize` (`#[body]` derives it)"
)]
pub trait FromBody: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What does not fit, and where: the answer to who sent it.
    fn from_body(body: Body) -> Result<Self, Problem>;
}

impl<T: DeserializeOwned> FromBody for T {
    fn from_body(body: Body) -> Result<Self, Problem> {
        body.read()
    }
}

impl FromBody for Body {
    fn from_body(body: Body) -> Result<Self, Problem> {
        Ok(body)
    }
}

/// What can be sent: [`Body`], or anything that serde writes, by value or by reference.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent",
    label = "not a body",
    note = "send a `Body`, or a type that is `serde::Serialize` (`#[body]` derives it)"
)]
pub trait IntoBody {
    /// Writes it.
    ///
    /// # Errors
    /// It has no JSON form.
    fn into_body(self) -> Result<Body, Unserializable>;
}

impl<T: Serialize> IntoBody for T {
    fn into_body(self) -> Result<Body, Unserializable> {
        Body::json(&self)
    }
}

impl IntoBody for Body {
    fn into_body(self) -> Result<Body, Unserializable> {
        Ok(self)
    }
}

impl IntoBody for &Body {
    fn into_body(self) -> Result<Body, Unserializable> {
        Ok(self.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::Value;

    use super::*;

    #[test]
    fn content_types_are_read_leniently() {
        let body = |content_type: &'static str| Body::new(content_type, "{}");
        for (content_type, name, expected) in [
            ("text/html", "width", None),
            ("text/html;", "width", None),
            ("text/html;width=72", "width", Some("72")),
            ("text/html ; flag ; WIDTH = 72 ; x=1", "width", Some("72")),
            ("a/b; t=\"x; width=1\"; width=2", "width", Some("2")),
            ("a/b; width=\"say \\\"hi\\\"\"", "width", Some("say \"hi\"")),
            ("a/b; width=\"never closed", "width", Some("never closed")),
            ("a/b; width", "width", None),
            (";;;===", "width", None),
        ] {
            assert_eq!(
                body(content_type).parameter(name).as_deref(),
                expected,
                "{content_type}"
            );
        }
        for (content_type, json) in [
            ("application/json; charset=utf-8", true),
            ("Application/Problem+JSON", true),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(body(content_type).is_json(), json, "{content_type}");
        }
        assert!(Body::text("").is_json());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let read = |text: &str| Body::new(JSON, text).read::<Vec<u8>>().unwrap_err();
        assert!(
            read("[1, 300]")
                .message()
                .starts_with("[1]: invalid value: integer `300`")
        );
        assert_eq!(
            read("").message(),
            "invalid type: null, expected a sequence at line 1 column 4"
        );
        assert_eq!(read("[1] 2").message(), "trailing characters at line 1 column 5");
        assert_eq!(read("[1").code(), codes::INVALID);
        assert_eq!(
            Body::text("[]").read::<Vec<u8>>().unwrap_err().code(),
            codes::UNSUPPORTED
        );
        // Deeper than any body should be: a refusal, not a stack overflow.
        assert_eq!(
            Body::new(JSON, "[".repeat(100_000)).read::<Value>().unwrap_err().code(),
            codes::INVALID
        );
    }
}
