//! `astrid logs`: the end of the daemon's log, and what is added to it. Waits for the file system's word, never polls.

#![allow(clippy::disallowed_methods, reason = "reads the log")]

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use serde_json::{Map, Value, json};

use crate::cli::Context;
use crate::failure::Failure;
use crate::output::{Closed, Output, Style, printable};
use crate::process;

/// How much is read at once, from either end.
const BLOCK_BYTES: u64 = 64 * 1024;

/// A line longer than this is shown in parts: memory does not follow what was written.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Show the daemon's log
///
/// Works whether or not the daemon runs. With `--format json` each line is a JSON document.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Go on with what is added, until interrupted
    #[arg(short, long)]
    follow: bool,

    /// How many of the last lines to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: u32,
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let path = context.home()?.log_file();
    let printer = Printer {
        output: context.output,
        style: Output::style(),
    };
    // Watched before the file is read, so that nothing falls in between.
    let watch = if args.follow { Some(Watch::new(&path)?) } else { None };
    let mut log = match Log::open(&path)? {
        Some(mut log) => {
            log.skip_to_last(u64::from(args.lines))?;
            log.print_added(&printer)?;
            Some(log)
        }
        None if args.follow => None,
        None => {
            let failure = Failure::failed(format!("there is no log at {}", path.display()));
            return Err(failure.hint("the daemon writes it when it starts").into());
        }
    };
    let Some(watch) = watch else {
        return log.map_or(Ok(()), |mut log| log.finish(&printer));
    };
    loop {
        watch.wait()?;
        if let Some(log) = &mut log {
            log.print_added(&printer)?;
        }
        // A rotated log goes on in a new file of the same name.
        if log.as_ref().is_none_or(|log| !log.is_at(&path)) {
            if let Some(mut old) = log.take() {
                old.finish(&printer)?;
            }
            log = Log::open(&path)?;
            if let Some(log) = &mut log {
                log.print_added(&printer)?;
            }
        }
    }
}

/// The log file, read up to somewhere.
struct Log {
    file: File,
    inode: u64,
    position: u64,
    partial: Vec<u8>,
}

impl Log {
    fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Self {
                    file,
                    inode,
                    position: 0,
                    partial: Vec::new(),
                }))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot open {}", path.display())),
        }
    }

    /// Whether it is still the file of that name.
    fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode)
    }

    /// Goes to where that many lines are left, reading backwards.
    fn skip_to_last(&mut self, lines: u64) -> anyhow::Result<()> {
        let end = self.file.metadata()?.len();
        let mut start = end;
        let mut wanted = lines;
        let mut buffer = vec![0; usize::try_from(BLOCK_BYTES)?];
        self.position = if lines == 0 { end } else { 0 };
        while start > 0 && wanted > 0 {
            let length = start.min(BLOCK_BYTES);
            start -= length;
            let block = &mut buffer[..usize::try_from(length)?];
            self.file.seek(SeekFrom::Start(start))?;
            self.file
                .read_exact(block)
                .context("the log changed while it was read; try again")?;
            for (index, byte) in block.iter().enumerate().rev() {
                let after = start + index as u64 + 1;
                // The newline that ends the last line begins none.
                if *byte == b'\n' && after < end {
                    wanted -= 1;
                    if wanted == 0 {
                        self.position = after;
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Prints the whole lines from here to the end.
    fn print_added(&mut self, printer: &Printer) -> anyhow::Result<()> {
        if self.file.metadata()?.len() < self.position {
            // It was truncated: what follows is new.
            self.position = 0;
            self.partial.clear();
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        let mut buffer = vec![0; usize::try_from(BLOCK_BYTES)?];
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.position += read as u64;
            let mut shown = String::new();
            for part in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                self.partial.extend_from_slice(part);
                if part.ends_with(b"\n") || self.partial.len() > LINE_BYTES_MAX {
                    shown.push_str(&printer.line(&self.partial));
                    self.partial.clear();
                }
            }
            Output::bytes(shown.as_bytes())?;
        }
    }

    /// Prints the last line even if it was not ended.
    fn finish(&mut self, printer: &Printer) -> anyhow::Result<()> {
        if self.partial.is_empty() {
            return Ok(());
        }
        Output::bytes(printer.line(&std::mem::take(&mut self.partial)).as_bytes())
    }
}

/// Tells when the log's directory or the log changes.
struct Watch {
    inotify: OwnedFd,
}

impl Watch {
    fn new(path: &Path) -> anyhow::Result<Self> {
        use inotify::{CreateFlags, WatchFlags};
        let directory: PathBuf = path.parent().unwrap_or(Path::new("/")).to_owned();
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, &directory, changes).map_err(|error| {
            let failure = Failure::failed(format!("cannot follow {}", directory.display())).source(error);
            failure.hint("the daemon makes the directory when it starts")
        })?;
        Ok(Self { inotify })
    }

    /// Waits for a change, or until nobody reads stdout any more.
    fn wait(&self) -> anyhow::Result<()> {
        let stdout = std::io::stdout();
        let mut fds = [
            PollFd::new(&self.inotify, PollFlags::IN),
            PollFd::new(&stdout, PollFlags::empty()),
        ];
        process::wait(&mut fds, None)?;
        if fds[1].revents().intersects(PollFlags::ERR | PollFlags::HUP) {
            return Err(Closed.into());
        }
        let mut buffer = [const { MaybeUninit::uninit() }; 4096];
        let mut events = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(_) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
                Err(error) => return Err(error).context("cannot follow the log"),
            }
        }
    }
}

/// Turns a line as it was written into a line as it is shown, whichever of the two formats either has.
struct Printer {
    output: Output,
    style: Style,
}

impl Printer {
    fn line(&self, line: &[u8]) -> String {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches(['\n', '\r']);
        let entry = serde_json::from_str::<Map<String, Value>>(line).ok();
        let shown = match (self.output.is_json(), entry) {
            (true, Some(entry)) => Value::Object(entry).to_string(),
            (true, None) => json!({ "line": line }).to_string(),
            (false, Some(entry)) => self.entry(entry),
            (false, None) => printable(line),
        };
        shown + "\n"
    }

    /// `time LEVEL message name=value...`
    fn entry(&self, mut entry: Map<String, Value>) -> String {
        let mut text = |key: &str| entry.remove(key).map(|value| plain(&value)).unwrap_or_default();
        let (time, level) = (text("timestamp"), text("level"));
        let mut fields = match entry.remove("fields") {
            Some(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let message = fields.remove("message").or_else(|| entry.remove("message"));
        fields.extend(entry);
        let level = match level.as_str() {
            "ERROR" => self.style.bad("ERROR"),
            "WARN" => self.style.warn("WARN "),
            other => format!("{:<5}", printable(other)),
        };
        let mut line = format!(
            "{} {level} {}",
            self.style.faint(&printable(&time)),
            message.as_ref().map(plain).unwrap_or_default()
        );
        for (name, value) in &fields {
            line.push(' ');
            line.push_str(&self.style.faint(&format!("{}={}", printable(name), plain(value))));
        }
        line
    }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        other => printable(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::output::Format;

    fn last(text: &str, lines: u64) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let mut log = Log::open(file.path()).unwrap().unwrap();
        log.skip_to_last(lines).unwrap();
        text[usize::try_from(log.position).unwrap()..].to_owned()
    }

    #[test]
    fn the_last_lines() {
        assert_eq!(last("a\nb\nc\n", 2), "b\nc\n");
        assert_eq!(last("a\nb\nc", 2), "b\nc");
        assert_eq!(last("a\nb\n", 9), "a\nb\n");
        assert_eq!(last("a\nb\n", 0), "");
        assert_eq!(last("", 3), "");
        assert_eq!(last("\n\n\n", 1), "\n");
        let long = "x".repeat(200_000);
        assert_eq!(last(&format!("{long}\n{long}\ny\n"), 2), format!("{long}\ny\n"));
    }

    #[test]
    fn lines_of_either_format_are_shown_in_either() {
        let json = r#"{"timestamp":"T","level":"WARN","fields":{"message":"slow","ms":7},"target":"x"}"#;
        let shown = |format, line: &str| {
            Printer {
                output: Output { format },
                style: Style::PLAIN,
            }
            .line(line.as_bytes())
        };
        assert_eq!(shown(Format::Human, json), "T WARN  slow ms=7 target=x\n");
        assert_eq!(shown(Format::Human, "free \u{1b} text\n"), "free \u{fffd} text\n");
        assert_eq!(shown(Format::Json, "free text\n"), "{\"line\":\"free text\"}\n");
        assert!(serde_json::from_str::<Value>(&shown(Format::Json, json)).is_ok());
    }
}
