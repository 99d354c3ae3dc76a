//! `astrid workspace diff`.

use std::fmt::Write as _;

use astrid_wire::Principal;
use astrid_wire::control::admin::Admin;
use astrid_wire::control::workspace::{Diff, Differences, EntryKind, FileDiff, How};

use super::ask_slow;
use crate::cli::Context;
use crate::output::{Output, Style, printable, printable_lines};

/// Columns of a bar at most.
const BAR_MAX: u64 = 40;

/// Show what a principal changed, as a patch
///
/// `git apply` takes it, when it goes to a file or a pipe. On a terminal what could deceive who reads it is replaced, unless --raw is said.
/// With `--format json` each difference is a line.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose
    #[arg(value_name = "PRINCIPAL", default_value_t = Principal::default_owner())]
    name: Principal,
    /// Only these and what is below them
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// How many lines of which files, instead of a patch
    #[arg(long)]
    stat: bool,
    /// Only the names, and what became of each
    #[arg(long, conflicts_with = "stat")]
    names: bool,
    /// As it is, also on a terminal
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(context: &Context, args: Args) -> anyhow::Result<()> {
    let mut asked = Diff {
        name: args.name,
        paths: args.paths,
        after: None,
        names_only: args.names,
    };
    let (style, mut sum) = (Output::style(), Sum::default());
    loop {
        let page: Differences = ask_slow(context, Admin::WorkspaceDiff, &asked)?;
        for file in &page.files {
            if context.output.is_json() {
                Output::json_line(file)?;
                continue;
            }
            let text = if args.names {
                name_line(file, style)
            } else if args.stat {
                sum.add(file);
                stat_line(file, style)
            } else if args.raw || !Output::is_terminal() {
                file.patch()
            } else {
                coloured(&printable_lines(&file.patch()), style)
            };
            Output::bytes(text.as_bytes())?;
        }
        asked.after = page.next;
        if asked.after.is_none() {
            break;
        }
    }
    if args.stat && !context.output.is_json() {
        return Output::bytes(sum.line().as_bytes());
    }
    Ok(())
}

/// What a file's lines add up to.
#[derive(Default)]
struct Sum {
    files: u64,
    added: u64,
    removed: u64,
}

impl Sum {
    fn add(&mut self, file: &FileDiff) {
        self.files += 1;
        self.added += file.lines_added.unwrap_or_default();
        self.removed += file.lines_removed.unwrap_or_default();
    }

    fn line(&self) -> String {
        let things = if self.files == 1 { "path" } else { "paths" };
        format!("{} {things}, +{} -{} lines\n", self.files, self.added, self.removed)
    }
}

fn name_line(file: &FileDiff, style: Style) -> String {
    let (letter, paint): (&str, fn(Style, &str) -> String) = match file.how {
        How::Added => ("A", Style::good),
        How::Modified => ("M", Style::warn),
        How::Removed => ("R", Style::bad),
    };
    format!("{} {}{}\n", paint(style, letter), path(file), dangers(file, style))
}

/// What is worth a second look.
fn dangers(file: &FileDiff, style: Style) -> String {
    let dangers = file.dangers();
    if dangers.is_empty() {
        return String::new();
    }
    format!("  {}", style.warn(&format!("({})", dangers.join(", "))))
}

/// A path, and a slash behind that of a directory.
fn path(file: &FileDiff) -> String {
    let side = file.after.as_ref().or(file.before.as_ref());
    let directory = side.is_some_and(|side| side.kind == EntryKind::Directory);
    format!("{}{}", printable(&file.path), if directory { "/" } else { "" })
}

fn stat_line(file: &FileDiff, style: Style) -> String {
    let mut text = format!("{} | ", path(file));
    match (file.lines_added, file.lines_removed) {
        _ if file.binary => {
            let size = |side: &Option<_>| {
                side.as_ref()
                    .and_then(|side: &astrid_wire::control::workspace::Side| side.size)
            };
            let (old, new) = (size(&file.before).unwrap_or(0), size(&file.after).unwrap_or(0));
            let _ = write!(text, "binary, {old} -> {new} bytes");
        }
        (Some(added), Some(removed)) if added + removed > 0 => {
            let all = added + removed;
            let width = |count: u64| {
                let part = if all > BAR_MAX {
                    (count * BAR_MAX).div_ceil(all)
                } else {
                    count
                };
                usize::try_from(part).unwrap_or(0)
            };
            let _ = write!(
                text,
                "{all} {}{}",
                style.good(&"+".repeat(width(added))),
                style.bad(&"-".repeat(width(removed)))
            );
        }
        _ => text.push_str(match file.how {
            How::Added => "new",
            How::Modified => "changed",
            How::Removed => "removed",
        }),
    }
    text.push_str(&dangers(file, style));
    text.push('\n');
    text
}

fn coloured(patch: &str, style: Style) -> String {
    if !style.is_coloured() {
        return patch.to_owned();
    }
    // A header ends where the hunks begin.
    let mut in_hunks = false;
    let mut text = String::with_capacity(patch.len());
    for line in patch.lines() {
        in_hunks = match line.as_bytes() {
            [b'@', b'@', ..] => true,
            [b'+' | b'-' | b' ' | b'\\', ..] => in_hunks,
            _ => false,
        };
        text += &match line.as_bytes() {
            [b'@', b'@', ..] => style.warn(line),
            [b'+', ..] if in_hunks => style.good(line),
            [b'-', ..] if in_hunks => style.bad(line),
            [b' ', ..] => line.to_owned(),
            _ => style.faint(line),
        };
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a header are none that are added or removed.
    #[test]
    fn headers_are_told_from_lines() {
        let style = Style::COLOURED;
        let patch = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- x\n+++ y\n";
        let lines: Vec<String> = coloured(patch, style).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], style.faint("--- a/x"));
        assert_eq!(lines[2], style.faint("+++ b/x"));
        assert_eq!(lines[4], style.bad("--- x"));
        assert_eq!(lines[5], style.good("+++ y"));
    }
}
