//! `astrid publish`.

use astrid_wire::Topic;
use astrid_wire::envelope::CLIENT_ID_BYTES_MAX;
use serde_json::json;

use crate::body::Body;
use crate::cli::Context;
use crate::output::Output;

mod lines;

/// Publish a message
///
/// Returns when it was accepted; what a durable subscription hears is on disk then. Who does not know whether it was accepted says
/// it again under the same --id: it happens once.
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

    /// Let it happen only if nothing was published under this id in the last 24 hours, or as one of the last 100,000 with one
    #[arg(long, value_name = "ID", value_parser = id, conflicts_with = "lines")]
    id: Option<String>,

    /// Publish each line of stdin as a message, and print `accepted N` for line N, from 1, when it was accepted
    #[arg(long, conflicts_with = "body")]
    lines: bool,

    /// With --lines: give line N the id PREFIX-N
    #[arg(long, value_name = "PREFIX", value_parser = prefix, requires = "lines")]
    id_prefix: Option<String>,
}

fn id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=CLIENT_ID_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(format!("1 to {CLIENT_ID_BYTES_MAX} bytes")),
    }
}

fn prefix(text: &str) -> Result<String, String> {
    let max = CLIENT_ID_BYTES_MAX - lines::NUMBER_BYTES_MAX;
    if text.len() > max {
        return Err(format!("at most {max} bytes"));
    }
    Ok(text.to_owned())
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    if args.lines {
        let lines = lines::Lines {
            topic: args.topic,
            content_type: args.content_type,
            id_prefix: args.id_prefix,
        };
        return context.talk(|client| lines.publish(client, context.output));
    }
    let body = Body::read(args.body.as_deref(), args.content_type)?;
    let said = json!({
        "topic": args.topic.as_str(),
        "content_type": body.content_type,
        "bytes": body.bytes.len(),
        "id": args.id,
    });
    context.talk(|client| client.publish(&args.topic, body, args.id))?;
    if context.output.is_json() {
        Output::json(&said)
    } else {
        Ok(())
    }
}
