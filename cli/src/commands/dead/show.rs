//! `astrid dead show ID`.

use std::fmt::Write as _;

use anyhow::Context as _;
use astrid_wire::control::dead::{REQUEST_SHOW, ShowRequest, Shown};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::ask;
use crate::body::{self, Encoded};
use crate::cli::Context;
use crate::commands::process;
use crate::failure::Failure;
use crate::output::{Output, Style, printable};
use crate::time;

/// Bytes of a body that is not text which are shown.
const HEAD_BYTES: usize = 256;

/// Bytes of a line of those.
const LINE_BYTES: usize = 16;

/// Show a message that was given up: what it says, and why it failed
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The letter, as `list` names it
    id: String,

    /// Write its body to stdout as it is, and nothing else
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let request = ShowRequest { id: args.id.clone() };
    let shown: Shown = ask(context, REQUEST_SHOW, &request)?;
    let body = BASE64.decode(&shown.body_base64).context("the body is not base64")?;
    let cut = (body.len() as u64) < shown.letter.body_bytes;
    if args.raw {
        if cut {
            let text = format!(
                "the body has {} bytes, and only {} are given out",
                shown.letter.body_bytes,
                body.len()
            );
            return Err(Failure::failed(text).into());
        }
        return Output::bytes(&body);
    }
    if context.output.is_json() {
        let mut value = serde_json::to_value(&shown.letter)?;
        let encoded = serde_json::to_value(Encoded::of(&shown.letter.content_type, &body))?;
        if let (Some(all), serde_json::Value::Object(more)) = (value.as_object_mut(), encoded) {
            all.extend(more);
            all.insert("cut".into(), cut.into());
        }
        return Output::json(&value);
    }
    Output::bytes(text(&shown, &body, time::now_ms(), Output::style()).as_bytes())
}

/// The letter for people.
fn text(shown: &Shown, body: &[u8], now_ms: u64, style: Style) -> String {
    let letter = &shown.letter;
    let died = format!(
        "{} ({})",
        time::utc(letter.died_at_ms),
        process::ago(letter.died_at_ms, now_ms)
    );
    let source = if letter.source.is_empty() {
        "the kernel"
    } else {
        &letter.source
    };
    let lines = [
        ("letter", letter.id.clone()),
        ("topic", letter.topic.clone()),
        ("principal", letter.principal.clone()),
        ("from", source.to_owned()),
        ("message", letter.message_id.clone()),
        ("died", died),
        ("tries", letter.attempts.to_string()),
        ("reason", format!("{} ({})", letter.reason, letter.code)),
        (
            "body",
            format!("{} bytes of {}", letter.body_bytes, letter.content_type),
        ),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{} {}", style.faint(&format!("{name:<9}")), printable(&value));
    }
    if body.is_empty() {
        return text;
    }
    text.push('\n');
    match body::for_terminal(&letter.content_type, body) {
        Some(body) => text.push_str(&body),
        None => text.push_str(&dump(body)),
    }
    text
}

/// The first bytes in hexadecimal and as characters.
fn dump(body: &[u8]) -> String {
    let mut text = String::new();
    let head = &body[..body.len().min(HEAD_BYTES)];
    for (number, line) in head.chunks(LINE_BYTES).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = line.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
        let characters: String = shown.collect();
        let width = LINE_BYTES * 3 - 1;
        let _ = writeln!(
            text,
            "{:08x}  {:width$}  {characters}",
            number * LINE_BYTES,
            hex.join(" ")
        );
    }
    if body.len() > head.len() {
        let _ = writeln!(text, "... {} more; --raw writes all of it", body.len() - head.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_dumped_up_to_a_bound() {
        assert_eq!(
            dump(b"ab\x1b\xff0123456789abcdef"),
            "00000000  61 62 1b ff 30 31 32 33 34 35 36 37 38 39 61 62  ab..0123456789ab\n\
             00000010  63 64 65 66                                      cdef\n"
        );
        let long = dump(&[0; 1000]);
        assert_eq!(long.lines().count(), 17);
        assert!(long.ends_with("... 744 more; --raw writes all of it\n"), "{long}");
    }
}
