//! `astrid publish`.

use astrid_wire::Topic;
use serde_json::json;

use crate::body::Body;
use crate::cli::Context;
use crate::output::Output;

/// Publish a message
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where, as in `notes.v1.added`
    topic: Topic,

    /// The body: text, `-` for stdin, `@FILE` for a file; empty if left out
    #[arg(value_name = "BODY|-|@FILE", allow_hyphen_values = true)]
    body: Option<String>,

    /// Media type of the body [default: by the file's name, else by what it looks like]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let body = Body::read(args.body.as_deref(), args.content_type)?;
    let said = json!({ "topic": args.topic.as_str(), "content_type": body.content_type, "bytes": body.bytes.len() });
    context.talk(|client| client.publish(&args.topic, body))?;
    if context.output.is_json() {
        Output::json(&said)
    } else {
        Ok(())
    }
}
