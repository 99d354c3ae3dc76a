//! `astrid logs`: the end of the daemon's log, and what is added to it.

use serde_json::{Map, Value, json};

use crate::cli::Context;
use crate::failure::Failure;
use crate::logfile::{Log, Watch};
use crate::output::{Output, Style, printable};

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
    let watch = if args.follow {
        Some(Watch::new([path.as_path()])?)
    } else {
        None
    };
    let mut log = match Log::open(&path)? {
        Some(mut log) => {
            log.skip_to_last(u64::from(args.lines))?;
            log.print_added(|line| printer.line(line))?;
            Some(log)
        }
        None if args.follow => None,
        None => {
            let failure = Failure::failed(format!("there is no log at {}", path.display()));
            return Err(failure.hint("the daemon writes it when it starts").into());
        }
    };
    let Some(watch) = watch else {
        return log.map_or(Ok(()), |mut log| log.finish(|line| printer.line(line)));
    };
    loop {
        watch.wait()?;
        if let Some(log) = &mut log {
            log.print_added(|line| printer.line(line))?;
        }
        // A rotated log goes on in a new file of the same name.
        if log.as_ref().is_none_or(|log| !log.is_at(&path)) {
            if let Some(mut old) = log.take() {
                old.finish(|line| printer.line(line))?;
            }
            log = Log::open(&path)?;
            if let Some(log) = &mut log {
                log.print_added(|line| printer.line(line))?;
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
