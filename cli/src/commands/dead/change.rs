//! `astrid dead retry` and `astrid dead drop`.

use astrid_wire::control::dead::{Done, IDS_MAX, REQUEST_DROP, REQUEST_RETRY, Selection};

use super::{ask, list};
use crate::cli::Context;
use crate::confirm::confirmed;
use crate::failure::Failure;
use crate::output::{Output, printable};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The letters, as `list` names them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,

    /// All that there are
    #[arg(long)]
    all: bool,

    /// With --all: only those to this capsule
    #[arg(long, requires = "all")]
    capsule: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DropArgs {
    #[command(flatten)]
    which: Args,

    /// Do not ask first
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn retry(context: &Context, args: &Args) -> anyhow::Result<()> {
    if !args.all {
        return change(context, args, REQUEST_RETRY, "tried again");
    }
    // Those that there are now: one that fails at once comes back with a later id, and is not tried for ever.
    let letters = list::all(context, args.capsule.clone(), None)?;
    let these = Args {
        ids: letters.into_iter().map(|letter| letter.id).collect(),
        all: false,
        capsule: None,
    };
    change(context, &these, REQUEST_RETRY, "tried again")
}

pub(super) fn drop_letters(context: &Context, args: &DropArgs) -> anyhow::Result<()> {
    if !args.yes && !confirmed(&question(&args.which), "whether they shall be forgotten for good")? {
        return Err(Failure::failed("nothing was dropped").into());
    }
    change(context, &args.which, REQUEST_DROP, "dropped")
}

fn question(which: &Args) -> String {
    match (which.all, &which.capsule, which.ids.len()) {
        (true, Some(capsule), _) => format!("Drop all dead letters of {}?", printable(capsule)),
        (true, None, _) => "Drop all dead letters?".to_owned(),
        (false, _, 1) => format!("Drop {}?", printable(&which.ids[0])),
        (false, _, count) => format!("Drop {count} dead letters?"),
    }
}

/// Does it in parts, as many as it takes.
fn change(context: &Context, which: &Args, topic: &str, done_word: &str) -> anyhow::Result<()> {
    let mut total = Done::default();
    let mut add = |part: Done| {
        total.ids.extend(part.ids);
        total.failed.extend(part.failed);
        part.next
    };
    if which.all {
        let mut selection = Selection {
            all: true,
            capsule: which.capsule.clone(),
            ..Selection::default()
        };
        loop {
            selection.after = add(ask(context, topic, &selection)?);
            if selection.after.is_none() {
                break;
            }
        }
    } else {
        for ids in which.ids.chunks(IDS_MAX) {
            let selection = Selection {
                ids: ids.to_vec(),
                ..Selection::default()
            };
            let _ = add(ask(context, topic, &selection)?);
        }
    }
    if context.output.is_json() {
        Output::json(&total)?;
    } else {
        for failed in &total.failed {
            context
                .output
                .say(&format!("{}: {} ({})", failed.id, failed.message, failed.code));
        }
        let count = total.ids.len();
        let letters = format!("{count} dead letter{} {done_word}", if count == 1 { "" } else { "s" });
        context.output.say(&letters);
    }
    match total.failed.first() {
        None => Ok(()),
        Some(first) => {
            let text = format!("{} could not be {done_word}", total.failed.len());
            Err(Failure::problem(&first.code, &text, "`astrid dead list` shows those that there are").into())
        }
    }
}
