//! `astrid process logs NAME`: the end of what a program wrote, and what it adds. The capsule says where the files are; they are
//! read here, so that what a program writes does not pass through anybody's memory.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::ask;
use crate::cli::Context;
use crate::failure::Failure;
use crate::logfile::{Log, Watch};
use crate::output::{Output, Style, printable_lines};

/// Show what a program wrote to its stdout and stderr
///
/// Where there is more than one file, each line begins with the instance that wrote it. Lines of different files are not in
/// the order in which they were written, except while following.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program
    name: String,

    /// Go on with what is added, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// How many of the last lines of each file to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: u32,

    /// Only of this instance, counted from 0
    #[arg(long, value_name = "I")]
    instance: Option<u32>,

    /// Only what went to stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,

    /// Only what went to stderr
    #[arg(long)]
    stderr: bool,
}

/// The answer.
#[derive(Debug, Deserialize)]
struct Files {
    files: Vec<LogFile>,
}

/// One file of a program's output.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct LogFile {
    instance: u32,
    stream: String,
    path: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let answer = ask::<Files>(context, "logs", &json!({ "name": args.name }))?;
    let files = chosen(answer.read.files, args);
    if files.is_empty() {
        let failure = Failure::failed(format!("{} has no such log", args.name));
        return Err(failure
            .hint(format!("`astrid process status {}` shows its instances", args.name))
            .into());
    }
    // Watched before the files are read, so that nothing falls in between.
    let watch = match args.follow {
        true => Some(Watch::new(files.iter().map(|file| file.path.as_path()))?),
        false => None,
    };
    let prefixed = files.len() > 1 || Output::is_terminal();
    let mut tails: Vec<Tail> = files
        .into_iter()
        .map(|file| Tail {
            line: Line::new(context.output, Output::style(), &args.name, &file, prefixed),
            path: file.path,
            log: None,
        })
        .collect();
    for tail in &mut tails {
        tail.show_last(u64::from(args.lines), args.follow)?;
    }
    let Some(watch) = watch else { return Ok(()) };
    loop {
        watch.wait()?;
        for tail in &mut tails {
            tail.show_added()?;
        }
    }
}

/// Those that were asked for, each file once: stderr may go where stdout goes.
fn chosen(files: Vec<LogFile>, args: &Args) -> Vec<LogFile> {
    let mut chosen: Vec<LogFile> = Vec::new();
    for file in files {
        let stream = match file.stream.as_str() {
            "stderr" => !args.stdout,
            _ => !args.stderr,
        };
        let instance = args.instance.is_none_or(|wanted| wanted == file.instance);
        if stream && instance && chosen.iter().all(|other| other.path != file.path) {
            chosen.push(file);
        }
    }
    chosen
}

/// One file, read up to somewhere.
struct Tail {
    path: PathBuf,
    log: Option<Log>,
    line: Line,
}

impl Tail {
    /// Shows the last lines; those that are missing come from the file that was rotated away last.
    fn show_last(&mut self, lines: u64, goes_on: bool) -> anyhow::Result<()> {
        let Some(mut log) = Log::open(&self.path)? else {
            return Ok(());
        };
        let missing = log.skip_to_last(lines)?;
        if missing > 0
            && let Some(mut rotated) = Log::open(&rotated(&self.path))?
        {
            rotated.skip_to_last(missing)?;
            rotated.print_added(|line| self.line.shown(line))?;
            rotated.finish(|line| self.line.shown(line))?;
        }
        log.print_added(|line| self.line.shown(line))?;
        if goes_on {
            self.log = Some(log);
            return Ok(());
        }
        log.finish(|line| self.line.shown(line))
    }

    fn show_added(&mut self) -> anyhow::Result<()> {
        if let Some(log) = &mut self.log {
            log.print_added(|line| self.line.shown(line))?;
        }
        // A rotated log goes on in a new file of the same name.
        if self.log.as_ref().is_none_or(|log| !log.is_at(&self.path)) {
            if let Some(mut old) = self.log.take() {
                old.finish(|line| self.line.shown(line))?;
            }
            self.log = Log::open(&self.path)?;
            if let Some(log) = &mut self.log {
                log.print_added(|line| self.line.shown(line))?;
            }
        }
        Ok(())
    }
}

/// Where a file's older part is.
fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

/// How the lines of one file are shown.
struct Line {
    json: bool,
    name: String,
    instance: u32,
    stream: String,
    prefix: String,
}

impl Line {
    fn new(output: Output, style: Style, name: &str, file: &LogFile, prefixed: bool) -> Self {
        let prefix = format!("{name}-{} | ", file.instance);
        let prefix = match (prefixed, file.stream.as_str()) {
            (false, _) => String::new(),
            (true, "stderr") => style.warn(&prefix),
            (true, _) => style.faint(&prefix),
        };
        Self {
            json: output.is_json(),
            name: name.to_owned(),
            instance: file.instance,
            stream: file.stream.clone(),
            prefix,
        }
    }

    fn shown(&self, line: &[u8]) -> String {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        if self.json {
            let document = json!({ "name": self.name, "instance": self.instance, "stream": self.stream, "line": text });
            return format!("{document}\n");
        }
        format!("{}{}\n", self.prefix, printable_lines(&uncoloured(text)))
    }
}

/// The text without the colours that a program gave it: an escape, `[`, and all up to a letter.
fn uncoloured(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        shown.push_str(before);
        let parameters = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        match parameters.strip_prefix('m') {
            Some(next) => rest = next,
            None => {
                // Something else than a colour stays, and is made harmless.
                shown.push('\u{1b}');
                rest = &rest[before.len() + 1..];
            }
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
    use super::*;
    use crate::output::Format;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        CommandLine::try_parse_from([&["logs", "web"], line].concat())
            .unwrap()
            .args
    }

    fn file(instance: u32, stream: &str, path: &str) -> LogFile {
        LogFile {
            instance,
            stream: stream.into(),
            path: path.into(),
        }
    }

    #[test]
    fn files_are_chosen() {
        let files = || {
            vec![
                file(0, "stdout", "/0.out"),
                file(0, "stderr", "/0.err"),
                file(1, "stdout", "/1"),
                file(1, "stderr", "/1"),
            ]
        };
        let paths = |line: &[&str]| -> Vec<String> {
            let chosen = chosen(files(), &args(line));
            chosen.iter().map(|file| file.path.display().to_string()).collect()
        };
        assert_eq!(paths(&[]), ["/0.out", "/0.err", "/1"]);
        assert_eq!(paths(&["--stderr"]), ["/0.err", "/1"]);
        assert_eq!(paths(&["--instance", "0", "--stdout"]), ["/0.out"]);
        assert!(paths(&["--instance", "7"]).is_empty());
    }

    #[test]
    fn lines_are_shown() {
        let line =
            |format, style, prefixed| Line::new(Output { format }, style, "web", &file(1, "stderr", "/"), prefixed);
        assert_eq!(
            line(Format::Human, Style::PLAIN, true).shown(b"x\t\x1b[1;31my\x1b[0m\r\n"),
            "web-1 | x\ty\n"
        );
        assert_eq!(
            line(Format::Human, Style::PLAIN, false).shown(b"a\x1b[2Jb\xff"),
            "a\u{fffd}[2Jb\u{fffd}\n"
        );
        assert!(
            line(Format::Human, Style::COLOURED, true)
                .shown(b"x")
                .starts_with("\u{1b}[33mweb-1 | ")
        );
        assert_eq!(
            line(Format::Json, Style::PLAIN, true).shown(b"a\n"),
            "{\"instance\":1,\"line\":\"a\",\"name\":\"web\",\"stream\":\"stderr\"}\n"
        );
        assert_eq!(uncoloured("\u{1b}[\u{1b}[31m"), "\u{1b}[");
    }

    #[test]
    fn the_older_part() {
        assert_eq!(rotated(Path::new("/l/web-0.out.log")), Path::new("/l/web-0.out.log.1"));
    }
}
