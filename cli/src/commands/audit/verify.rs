//! `astrid audit verify`.

use std::io::Read as _;

use astrid_kernel::audit::{PublicKey, Report, key_beside, verify};

use super::{Place, unreadable};
use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Output, Style};

/// Verify the log: that nothing was changed, moved, removed, put in or cut off
///
/// Needs the log's files and a public key, and nothing else: no daemon, no home. Exit code 1 when something is wrong, with where.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,

    /// The public key that is trusted: `ed25519:...`, or a file with it [default: key.pub beside the log]
    ///
    /// The key beside the log shows that the log fits together. That it is the daemon's log only a key shows that came another way.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let directory = args.place.directory(context)?;
    let key = match &args.key {
        Some(text) => Some(given(text)?),
        None => key_beside(&directory),
    };
    let report = verify::verify(&directory, key.as_ref()).map_err(|error| unreadable(&error))?;
    if report.segments == 0 && report.is_ok() {
        let failure = Failure::failed(format!("there is no audit log in {}", directory.display()));
        return Err(failure.hint("--dir names the directory with its *.seg files").into());
    }
    if context.output.is_json() {
        Output::json(&report.to_wire())?;
    } else {
        let from = match (&args.key, key) {
            (Some(_), _) => From::Named,
            (None, Some(_)) => From::Beside,
            (None, None) => From::Nowhere,
        };
        Output::bytes(human(&report, from, Output::style()).as_bytes())?;
    }
    if report.is_ok() {
        return Ok(());
    }
    let count = report.findings_count;
    let things = if count == 1 { "thing is" } else { "things are" };
    let failure = Failure::failed(format!("the audit log is not what was written: {count} {things} wrong"));
    Err(failure
        .hint("keep the files as they are, and compare them with a copy")
        .into())
}

/// Where the key that is trusted came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Named,
    Beside,
    Nowhere,
}

/// Bytes of a file with a public key at most.
const KEY_FILE_BYTES_MAX: u64 = 1024;

#[allow(clippy::disallowed_methods, reason = "reads the file that was named")]
fn given(text: &str) -> anyhow::Result<PublicKey> {
    let read = || {
        let mut content = String::new();
        let file = std::fs::File::open(text).ok()?;
        file.take(KEY_FILE_BYTES_MAX).read_to_string(&mut content).ok()?;
        Some(content)
    };
    let is_file = !text.starts_with("ed25519:");
    let content = is_file.then(read).flatten();
    content.as_deref().unwrap_or(text).trim().parse().map_err(|error| {
        let failure = Failure::usage(format!("--key {text}: {error}"));
        failure.hint("the daemon leaves it in var/audit/key.pub").into()
    })
}

fn human(report: &Report, from: From, style: Style) -> String {
    let mut text = String::new();
    for finding in &report.findings {
        text.push_str(&format!("{} {finding}\n", style.bad("wrong  ")));
    }
    let more = report.findings_count - report.findings.len() as u64;
    if more > 0 {
        text.push_str(&format!("{} {more} more\n", style.bad("wrong  ")));
    }
    let mut note = |words: String| text.push_str(&format!("{} {words}\n", style.warn("note   ")));
    if report.unsealed_tail > 0 {
        note(format!(
            "{} entries behind the last signature prove nothing, and are not counted",
            report.unsealed_tail
        ));
    }
    if report.torn_bytes > 0 {
        note(format!(
            "the last {} bytes are the beginning of a record",
            report.torn_bytes
        ));
    }
    if report.unknown_count > 0 {
        let first = report.unknown_outcomes.first().copied().unwrap_or_default();
        let count = report.unknown_count;
        note(format!(
            "{count} intents have an unknown outcome, the first is entry {first}"
        ));
    }
    if !report.anchored {
        note("no head says where the log ended: a missing end would not be seen".to_owned());
    }
    match from {
        From::Named => {}
        From::Beside => note("the key is the one beside the log: --key says which one is trusted".to_owned()),
        From::Nowhere => note("no key is beside the log: that it fits together is seen, and not whose it is; --key says which one is trusted".to_owned()),
    }
    let verdict = if report.is_ok() {
        style.good("ok     ")
    } else {
        style.bad("bad    ")
    };
    let (first, last) = (report.first.unwrap_or_default(), report.last.unwrap_or_default());
    text.push_str(&format!(
        "{verdict} {}, entries {first} to {last}, {}, {}, head {}\n",
        count(report.entries, "signed entry", "signed entries"),
        count(report.seals, "seal", "seals"),
        count(report.segments, "segment", "segments"),
        report.head_hex()
    ));
    text
}

fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
