//! The daemon's log: `log/astrid.log`, and standard error when it runs in the foreground.
//!
//! A line is written by who logs it, in one write, so there is no thread to wake up and nothing is lost when the
//! process is killed. The file is bounded: at 10 MiB it becomes `astrid.log.1`, that one `.2`, and the
//! oldest goes. A log that cannot be written is given up for that line; the daemon does not stop for it.
//!
//! What guests and peers say reaches the log as values. In the human format every value with anything but plain
//! characters is quoted, and control characters (line breaks, terminal escapes, text direction) are escaped
//! everywhere, so that no value can look like a line, a field, or an instruction to a terminal. JSON does that by
//! itself.
//!
//! Where standard error is the journal, which stamps lines itself, there are no timestamps of ours.

#![allow(clippy::disallowed_methods, reason = "this module owns the log files")]

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::home::{Home, PRIVATE_FILE};

/// Bytes at which a log file is put aside.
const FILE_BYTES_MAX: u64 = 10 << 20;

/// Files that were put aside and are kept.
const FILES_KEPT: u32 = 5;

/// Targets that the configured level is for; what libraries say matters from `warn` on.
const OWN_TARGETS: [&str; 2] = ["astrid", "capsule"];

/// Set by the service manager to device and inode of the journal's stream.
const JOURNAL_VARIABLE: &str = "JOURNAL_STREAM";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file cannot be opened.
    #[error("cannot open {}", .path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This process logs already.
    #[error("this process has a log already")]
    Twice,
}

impl LoggingError {
    /// What the operator could do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            LoggingError::Open { path, .. } => Some(format!("see that {} can be written", path.display())),
            LoggingError::Twice => None,
        }
    }
}

/// Sends what this process logs, from now on, to the home's log file and, in the foreground, to standard error.
///
/// # Errors
///
/// [`LoggingError`]; nothing is logged then.
pub fn start(home: &Home, config: &LogConfig, foreground: bool) -> Result<(), LoggingError> {
    let path = home.log_file();
    let file = Rotating::open(&path, FILE_BYTES_MAX).map_err(|source| LoggingError::Open { path, source })?;
    let stamped = !is_journal(std::env::var(JOURNAL_VARIABLE).ok().as_deref(), &stderr_identity());
    let stderr = foreground.then(|| layer(config.format, stamped, io::stderr));
    let subscriber = tracing_subscriber::registry()
        .with(targets(config.level))
        .with(layer(config.format, true, Mutex::new(file)))
        .with(stderr);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    Targets::new()
        .with_default(level.min(Level::WARN))
        .with_targets(OWN_TARGETS.map(|target| (target, level)))
}

/// One way out: lines of that format, with or without timestamps.
fn layer<S, W>(format: LogFormat, stamped: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match (format, stamped) {
        (LogFormat::Human, true) => lines.fmt_fields(HumanFields).boxed(),
        (LogFormat::Human, false) => lines.fmt_fields(HumanFields).without_time().boxed(),
        (LogFormat::Json, true) => lines.json().flatten_event(true).with_span_list(false).boxed(),
        (LogFormat::Json, false) => lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .without_time()
            .boxed(),
    }
}

/// Device and inode of standard error, as the journal's variable writes them.
fn stderr_identity() -> String {
    match rustix::fs::fstat(io::stderr()) {
        Ok(found) => format!("{}:{}", found.st_dev, found.st_ino),
        Err(_) => String::new(),
    }
}

/// Whether standard error is the stream that the variable names, and not something that it was redirected to since.
fn is_journal(variable: Option<&str>, stderr: &str) -> bool {
    variable.is_some_and(|stream| stream == stderr)
}

/// Formats fields for people: `message key=value`, nothing of which can be mistaken for something else.
struct HumanFields;

impl<'w> FormatFields<'w> for HumanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = HumanVisitor {
            writer,
            first: true,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct HumanVisitor<'w> {
    writer: Writer<'w>,
    first: bool,
    result: fmt::Result,
}

impl HumanVisitor<'_> {
    fn value(&mut self, field: &Field, value: &str) {
        if self.result.is_err() {
            return;
        }
        let separator = if std::mem::take(&mut self.first) { "" } else { " " };
        self.result = match field.name() {
            "message" => write!(self.writer, "{separator}{}", Escaped(value)),
            name if is_plain(value) => write!(self.writer, "{separator}{name}={value}"),
            name => write!(self.writer, "{separator}{name}=\"{}\"", Escaped(value)),
        };
    }
}

impl Visit for HumanVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.value(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field, &format!("{value:?}"));
    }
}

/// Whether a value needs no quotes: one word of visible characters, without what quotes and separates.
fn is_plain(value: &str) -> bool {
    !value.is_empty()
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\'))
}

/// Text whose control, format and separator characters, quotes and backslashes are written as escapes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\'' => f.write_char(c)?,
                // Escapes what is not printable in Unicode's sense, and quotes and backslashes.
                _ => write!(f, "{}", c.escape_debug())?,
            }
        }
        Ok(())
    }
}

/// A file that is put aside when it is large. Every write is a whole line.
struct Rotating {
    path: PathBuf,
    file: File,
    length: u64,
    limit: u64,
}

impl Rotating {
    fn open(path: &Path, limit: u64) -> io::Result<Rotating> {
        let file = append_to(path)?;
        let length = file.metadata()?.size();
        Ok(Rotating {
            path: path.to_path_buf(),
            file,
            length,
            limit,
        })
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// Puts the file aside. Where that fails, the file grows on, and it is tried again after as much.
    fn rotate(&mut self) {
        self.length = 0;
        for number in (1..FILES_KEPT).rev() {
            // One that is not there yet cannot be moved; one that cannot be moved is overwritten.
            let _ = fs::rename(self.aside(number), self.aside(number + 1));
        }
        if fs::rename(&self.path, self.aside(1)).is_ok()
            && let Ok(file) = append_to(&self.path)
        {
            self.file = file;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(PRIVATE_FILE)
        .custom_flags(flags)
        .open(path)
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.length > 0 && self.length + line.len() as u64 > self.limit {
            self.rotate();
        }
        let written = self.file.write(line)?;
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is kept back.
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use super::*;

    /// Collects what a layer writes.
    #[derive(Clone, Default)]
    struct Collected(Arc<Mutex<Vec<u8>>>);

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, stamped: bool, level: LogLevel, act: impl FnOnce()) -> String {
        let collected = Collected::default();
        let writer = collected.clone();
        let subscriber = tracing_subscriber::registry()
            .with(targets(level))
            .with(layer(format, stamped, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, act);
        let bytes = collected.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "x\nERROR forged\x1b[2J\u{9b}31m\u{202e}\u{2028}\" a=\"b";

    /// What a guest says cannot make lines, fields or terminal commands.
    #[test]
    fn no_value_can_look_like_something_else() {
        let hostile = HOSTILE;
        let human = logged(LogFormat::Human, true, LogLevel::Info, || {
            let span = tracing::info_span!(target: "capsule", "handle", capsule = %hostile);
            span.in_scope(|| tracing::info!(target: "capsule", text = hostile, shown = %hostile, debug = ?hostile, "said {hostile}"));
        });
        assert_eq!(human.lines().count(), 1, "{human}");
        assert!(
            human.trim_end().chars().all(|c| c == ' ' || c.is_ascii_graphic()),
            "{human}"
        );
        // Once in the span, once in the message, and in two values; `?` has escaped once more.
        assert_eq!(human.matches("a=\\\"b").count(), 4, "{human}");
        let json = logged(
            LogFormat::Json,
            true,
            LogLevel::Info,
            || tracing::info!(target: "capsule", text = hostile, "said"),
        );
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (line["text"].as_str(), line["message"].as_str()),
            (Some(hostile), Some("said"))
        );
        assert_eq!(json.lines().count(), 1);
    }

    #[test]
    fn plain_values_are_plain() {
        let human = logged(LogFormat::Human, false, LogLevel::Info, || {
            tracing::info!(target: "astrid_kernel::boot", ms = 12, name = "text", path = %"/a/b c", empty = "", yes = true, "ready");
        });
        assert_eq!(
            human,
            " INFO astrid_kernel::boot: ready ms=12 name=text path=\"/a/b c\" empty=\"\" yes=true\n"
        );
    }

    #[test]
    fn levels_are_for_our_own_and_libraries_speak_from_warn_on() {
        let lines = |level| {
            logged(LogFormat::Human, true, level, || {
                tracing::debug!(target: "astrid_kernel::bus", "1");
                tracing::debug!(target: "capsule", "2");
                tracing::info!(target: "wasmtime", "3");
                tracing::warn!(target: "wasmtime", "4");
                tracing::error!(target: "wasmtime", "5");
            })
            .lines()
            .filter_map(|line| line.chars().last())
            .collect::<String>()
        };
        assert_eq!(lines(LogLevel::Debug), "1245");
        assert_eq!(lines(LogLevel::Info), "45");
        assert_eq!(lines(LogLevel::Error), "5");
    }

    #[test]
    fn no_timestamps_where_the_journal_makes_them() {
        let json = logged(
            LogFormat::Json,
            false,
            LogLevel::Info,
            || tracing::info!(target: "astrid", "x"),
        );
        assert!(!json.contains("timestamp"), "{json}");
        assert!(is_journal(Some("8:1"), "8:1") && !is_journal(Some("8:1"), "8:2") && !is_journal(None, "8:1"));
        assert!(!stderr_identity().is_empty());
    }

    #[test]
    fn a_log_is_bounded_and_its_end_is_in_the_newest_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("astrid.log");
        fs::write(&path, "from before\n").unwrap();
        let mut log = Rotating::open(&path, 100).unwrap();
        for number in 0..200 {
            log.write_all(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let mut lengths: Vec<u64> = Vec::new();
        for entry in fs::read_dir(directory.path()).unwrap() {
            lengths.push(entry.unwrap().metadata().unwrap().len());
        }
        assert_eq!(lengths.len(), 1 + FILES_KEPT as usize);
        assert!(lengths.iter().all(|length| *length <= 100));
        assert!(fs::read_to_string(&path).unwrap().ends_with("line 0199\n"));
        let before = fs::read_to_string(log.aside(1)).unwrap();
        assert!(before.starts_with("line 0") && before.ends_with('\n'));
    }

    #[test]
    fn a_line_longer_than_a_file_is_still_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("astrid.log");
        let mut log = Rotating::open(&path, 10).unwrap();
        log.write_all(&[b'x'; 50]).unwrap();
        log.write_all(b"short").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "short");
        assert_eq!(fs::read(log.aside(1)).unwrap(), [b'x'; 50]);
    }

    #[test]
    fn a_full_disk_stops_nobody() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let log = Rotating {
            path: "/nonexistent/log".into(),
            file,
            length: 0,
            limit: 10,
        };
        let subscriber = tracing_subscriber::registry().with(layer(LogFormat::Human, true, Mutex::new(log)));
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..3 {
                tracing::info!("lost");
            }
        });
    }
}
