//! `astrid request`.

use std::time::Duration;

use astrid_wire::Topic;
use serde::Serialize;

use crate::body::{self, Body, Encoded};
use crate::cli::Context;
use crate::client::REQUEST_TIMEOUT;
use crate::failure::Failure;
use crate::output::Output;
use crate::time;

/// The longest that an answer may be waited for, as the bus has it.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 60);

/// Publish a message that wants an answer, and print the answer's body
///
/// The body is printed as it is; on a terminal JSON is indented, and control characters are replaced.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where, as in `tool.v1.text.markdown`
    topic: Topic,

    /// The body: text, `-` for stdin, `@FILE` for a file; empty if left out
    #[arg(value_name = "BODY|-|@FILE", allow_hyphen_values = true)]
    body: Option<String>,

    /// Media type of the body [default: by the file's name, else by what it looks like]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,

    /// How long to wait for the answer, as 500ms, 10s or 2m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = timeout)]
    timeout: Option<Duration>,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Answered<'a> {
    topic: &'a str,
    content_type: &'a str,
    #[serde(flatten)]
    body: Encoded,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = time::parse(text)?;
    if timeout.is_zero() || timeout > TIMEOUT_MAX {
        return Err("between 1ms and 10m".into());
    }
    Ok(timeout)
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let body = Body::read(args.body.as_deref(), args.content_type)?;
    let timeout = args.timeout.unwrap_or(REQUEST_TIMEOUT);
    let answer = context.talk(|client| client.request(&args.topic, body, timeout))?;
    if context.output.is_json() {
        return Output::json(&Answered {
            topic: args.topic.as_str(),
            content_type: &answer.content_type,
            body: Encoded::of(&answer.content_type, &answer.body),
        });
    }
    if !Output::is_terminal() {
        return Output::bytes(&answer.body);
    }
    match body::for_terminal(&answer.content_type, &answer.body) {
        Some(text) => Output::bytes(text.as_bytes()),
        None => {
            let (bytes, content_type) = (answer.body.len(), &answer.content_type);
            let failure = Failure::failed(format!("the answer is {bytes} bytes of {content_type}, not text"));
            Err(failure.hint("redirect it to a file, or use --format json").into())
        }
    }
}
