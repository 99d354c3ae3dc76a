//! The description that others learn a capsule's interface from.
#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::prelude::*;
use astrid_sdk::{Capsule, Description};

#[derive(Default)]
struct Converter;

/// A page to convert.
#[body]
#[serde(deny_unknown_fields)]
struct Page {
    /// The document.
    html: String,
    #[serde(default = "width")]
    width: u16,
    /// Where it came from.
    from: Option<Link>,
}

fn width() -> u16 {
    80
}

#[body]
struct Link {
    url: String,
    via: Option<Box<Link>>,
}

/// Plain text.
#[body]
struct Text {
    text: String,
}

#[capsule(says("convert.v1.done" = Text, "convert.v1.raw.>" = Body))]
impl Converter {
    /// Converts a page
    /// to text.
    ///
    /// Links are kept.
    #[on("convert.v1.page")]
    fn page(&mut self, page: Page) -> Result<Text> {
        let _ = (page.width, page.from.map(|link| (link.url, link.via)));
        Ok(Text { text: page.html })
    }

    #[on("convert.v1.raw.*", accepts("text/html", "application/json"), request = Page, reply = Text)]
    fn raw(&mut self, body: Body) -> Body {
        body
    }

    #[on("convert.v1.reset", "lifecycle.v1.restarted", "port.v1.stream.closed")]
    fn reset(&mut self) {}
}

#[test]
fn types_and_documentation_are_the_description() {
    let description = Converter::describe();
    let document = serde_json::to_value(&description).unwrap();
    assert_eq!(
        Description::parse(description.to_json().as_bytes()).unwrap(),
        description
    );

    let topics: Vec<_> = description.topics.iter().map(|topic| topic.topic.as_str()).collect();
    assert_eq!(
        topics,
        [
            "convert.v1.page",
            "convert.v1.raw.*",
            "convert.v1.reset",
            "convert.v1.done",
            "convert.v1.raw.>"
        ],
        "what the kernel tells one actor is no part of it"
    );
    let page = &document["topics"][0];
    assert_eq!(page["summary"], "Converts a page to text.");
    assert_eq!(page["direction"], "hears");
    assert_eq!(page["content_types"], json!(["application/json"]));
    let request = &page["request"];
    assert_eq!(request["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(
        (&request["title"], &request["description"]),
        (&json!("Page"), &json!("A page to convert."))
    );
    assert_eq!(request["required"], json!(["html"]));
    assert_eq!(request["additionalProperties"], false);
    assert_eq!(request["properties"]["from"]["anyOf"][0]["$ref"], "#/$defs/Link");
    assert_eq!(
        request["$defs"]["Link"]["properties"]["via"]["anyOf"][0]["$ref"],
        "#/$defs/Link"
    );
    assert_eq!(page["reply"]["properties"]["text"]["type"], "string");

    let raw = &document["topics"][1];
    assert_eq!(raw["content_types"], json!(["text/html", "application/json"]));
    assert_eq!(
        (&raw["request"]["title"], &raw["reply"]["title"]),
        (&json!("Page"), &json!("Text"))
    );

    assert_eq!(
        document["topics"][2],
        json!({ "topic": "convert.v1.reset", "direction": "hears" })
    );
    assert_eq!(document["topics"][3]["summary"], "Plain text.");
    assert_eq!(document["topics"][3]["direction"], "says");
    assert_eq!(
        document["topics"][4],
        json!({ "topic": "convert.v1.raw.>", "direction": "says" })
    );
}
