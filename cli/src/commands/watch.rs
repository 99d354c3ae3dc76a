//! `astrid watch`.

use std::num::NonZeroU64;

use astrid_wire::Pattern;
use serde::Serialize;

use crate::body::{self, Encoded};
use crate::cli::Context;
use crate::client::Client;
use crate::output::{Output, printable};

/// Print messages as they are published, one a line
///
/// In a pattern `*` is one segment, and a final `>` one or more.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which topics, as in `notes.v1.>`
    pattern: Pattern,

    /// End after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
}

/// What `--format json` prints, on one line.
#[derive(Serialize)]
struct Seen<'a> {
    topic: &'a str,
    principal: &'a str,
    message_id: &'a str,
    content_type: &'a str,
    #[serde(flatten)]
    body: Encoded,
    lost: u64,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    context.talk(|client| watch(context, args, client))
}

fn watch(context: &Context, args: &Args, client: &mut Client) -> anyhow::Result<()> {
    client.subscribe(&args.pattern)?;
    context.output.say(&format!("watching {}", args.pattern));
    let mut left = args.count.map(NonZeroU64::get);
    while left != Some(0) {
        let event = client.event()?;
        left = left.map(|left| left - 1);
        if context.output.is_json() {
            Output::json_line(&Seen {
                topic: &event.topic,
                principal: &event.principal,
                message_id: &event.message_id,
                content_type: &event.content_type,
                body: Encoded::of(&event.content_type, &event.body),
                lost: event.lost,
            })?;
            continue;
        }
        if event.lost > 0 {
            context.output.say(&format!(
                "{} messages were lost here: they came faster than they were taken",
                event.lost
            ));
        }
        let body = body::on_one_line(&event.content_type, &event.body);
        let style = Output::style();
        let (topic, principal) = (printable(&event.topic), printable(&event.principal));
        Output::bytes(format!("{topic} {} {body}\n", style.faint(&principal)).as_bytes())?;
    }
    Ok(())
}
