//! The capsule as its callers see it: topics, content types, options, answers and refusals.
#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::testing::Harness;
use astrid_wire::envelope::BODY_BYTES_MAX;
use base64::Engine;

use super::*;

const MARKDOWN: &str = "tool.v1.text.markdown";
const HTML: &str = "tool.v1.text.html";
const PDF: &str = "tool.v1.text.pdf";

/// What is answered.
fn ask(topic: &str, body: Body) -> Result<Body, Problem> {
    let mut harness = Harness::new::<TextCapsule>().with_manifest(include_str!("../Capsule.toml"));
    let asked = harness.ask(topic, body);
    asked.handled.committed();
    asked.reply.unwrap()
}

fn text(topic: &str, content_type: &'static str, document: impl Into<Vec<u8>>) -> String {
    let body = ask(topic, Body::new(content_type, document)).unwrap();
    assert_eq!(body.content_type, "text/plain; charset=utf-8");
    String::from_utf8(body.bytes).unwrap()
}

fn json_of(topic: &str, request: &Value) -> Value {
    let body = ask(topic, Body::json(request).unwrap()).unwrap();
    assert_eq!(body.content_type, "application/json");
    astrid_sdk::serde_json::from_slice(&body.bytes).unwrap()
}

fn refusal(topic: &str, content_type: &'static str, document: impl Into<Vec<u8>>) -> Problem {
    ask(topic, Body::new(content_type, document)).unwrap_err()
}

#[test]
fn raw_documents() {
    assert_eq!(text(MARKDOWN, "text/markdown", "# A\n\n*b*"), "A\n=\n\nb\n");
    assert_eq!(
        text(
            MARKDOWN,
            "text/plain; charset=iso-8859-1",
            "gr\u{fc}n".chars().map(|c| c as u8).collect::<Vec<_>>()
        ),
        "grün\n"
    );
    assert_eq!(text(HTML, "Text/HTML", "<p>a<p>b"), "a\n\nb\n");
    assert_eq!(text(HTML, "text/html; charset=koi8-r", b"<p>\xc1".to_vec()), "а\n");
    assert_eq!(
        text(
            PDF,
            "application/pdf",
            include_bytes!("../tests/documents/owner-aes.pdf")
        ),
        "Only for those who know.\n"
    );
    assert_eq!(text(MARKDOWN, "text/markdown", ""), "");
    assert_eq!(text(HTML, "text/html", ""), "");
}

#[test]
fn options_are_parameters() {
    let page = "<p>one two three four five six seven <a href=/x>eight</a><table><tr><td>a<td>b";
    assert_eq!(
        text(
            HTML,
            "text/html; width=20; Links=footnote; tables=\"plain\"; version=5",
            page
        ),
        "one two three four\nfive six seven\neight[1]\n\na\tb\n\n[1]: /x\n"
    );
    for (parameters, says) in [
        (
            "width=12",
            "width 12 is out of range: 0 for no wrapping, or 20 to 1000 columns",
        ),
        ("width=wide", "width is not a number: \"wide\""),
        ("links=all", "links cannot be \"all\": inline, footnote, omit"),
        ("tables=", "tables cannot be \"\": grid, plain, omit"),
    ] {
        let body = Body::new(format!("text/html; {parameters}"), page);
        let problem = ask(HTML, body).unwrap_err();
        assert_eq!((problem.code(), problem.message()), (codes::INVALID, says));
    }
}

#[test]
fn json_documents() {
    assert_eq!(
        json_of(MARKDOWN, &json!({ "document": "*a*" })),
        json!({ "text": "a\n" })
    );
    assert_eq!(
        json_of(
            HTML,
            &json!({ "document": "<title>T</title><a href=/x>b</a>", "links": "omit", "width": 40 })
        ),
        json!({ "text": "b\n", "title": "T" })
    );
    let file = base64::engine::general_purpose::STANDARD.encode(include_bytes!("../tests/documents/owner-aes.pdf"));
    let (start, end) = file.split_at(100);
    assert_eq!(
        json_of(PDF, &json!({ "document": format!("{start}\n{end}") })),
        json!({ "text": "Only for those who know.\n", "title": "Protected", "pages": 1 })
    );
    for (topic, request, says) in [
        (HTML, r#"{"document": "", "link": "omit"}"#, "unknown field `link`"),
        (
            HTML,
            r#"{"document": 1}"#,
            "document: invalid type: integer `1`, expected a string",
        ),
        (
            MARKDOWN,
            r#"{"document": "", "links": "none"}"#,
            "links: unknown variant `none`",
        ),
        (MARKDOWN, r#"{"document": "", "width": 7}"#, "width 7 is out of range"),
        (PDF, r#"{"document": "%PDF"}"#, "document: it is not base64"),
        (PDF, r#"{"document": "", "links": "omit"}"#, "unknown field `links`"),
    ] {
        let problem = refusal(topic, "application/json", request);
        assert_eq!(problem.code(), codes::INVALID);
        assert!(problem.message().contains(says), "{problem}");
    }
}

#[test]
fn other_content_types_are_refused() {
    for (topic, content_type) in [
        (HTML, "application/pdf"),
        (PDF, "text/html"),
        (MARKDOWN, "image/png"),
        (PDF, ""),
    ] {
        let problem = refusal(topic, content_type, "x");
        assert_eq!(problem.code(), codes::UNSUPPORTED, "{topic} {content_type}");
        assert!(problem.hint().unwrap().contains("application/json"));
    }
    // No bytes are no JSON object.
    assert_eq!(refusal(PDF, "application/json", "").code(), codes::UNSUPPORTED);
}

#[test]
fn documents_that_cannot_be_converted_are_refused() {
    for (topic, content_type, document, code) in [
        (MARKDOWN, "text/markdown", vec![b'a', 0xff], "text.malformed"),
        (
            MARKDOWN,
            "text/markdown; charset=no-such",
            vec![b'a'],
            "text.unsupported",
        ),
        (MARKDOWN, "text/markdown", b"> ".repeat(1_000), "text.too-deep"),
        (HTML, "text/html", b"<ul>".repeat(1_000), "text.too-deep"),
        (
            HTML,
            "text/html",
            vec![b' '; limits::DOCUMENT_BYTES + 1],
            "text.too-large",
        ),
        (HTML, "text/html", vec![b'a'; limits::DOCUMENT_BYTES], "text.too-large"),
        (PDF, "application/pdf", b"no".to_vec(), "text.malformed"),
        (
            PDF,
            "application/pdf",
            include_bytes!("../tests/documents/password-aes.pdf").to_vec(),
            "text.encrypted",
        ),
    ] {
        let problem = refusal(topic, content_type, document);
        assert_eq!(problem.code(), code, "{problem}");
        assert!(problem.hint().is_some(), "{problem}");
    }
}

/// A client gets an answer in one frame (A3), so no answer is larger.
#[test]
fn answers_fit_a_frame() {
    assert_eq!(limits::OUTPUT_BYTES, BODY_BYTES_MAX);
    let largest = vec![b'a'; limits::OUTPUT_BYTES - 1];
    assert_eq!(
        text(MARKDOWN, "text/markdown", largest.clone()).len(),
        limits::OUTPUT_BYTES
    );
    // The same in JSON is a little longer.
    let request = json!({ "document": String::from_utf8(largest).unwrap() });
    assert_eq!(
        ask(MARKDOWN, Body::json(&request).unwrap()).unwrap_err().code(),
        "text.too-large"
    );
}

/// The topics and their schemas are part of the bundle.
#[test]
fn topics_are_described() {
    let description = <TextCapsule as astrid_sdk::Capsule>::describe();
    assert_eq!(description.topics.len(), 3);
    for topic in description.topics {
        let request = topic.request.unwrap();
        assert_eq!(request["additionalProperties"], false, "{}", topic.topic);
        assert_eq!(request["required"], json!(["document"]));
        assert_eq!(topic.reply.unwrap()["required"], json!(["text"]));
        assert!(
            topic
                .content_types
                .iter()
                .any(|content_type| content_type == "application/json")
        );
    }
}
