//! `astrid:kernel/log`: lines of a guest in the daemon's log.
//!
//! A guest's text is data: it becomes the value of a field, which the formatter escapes, so it cannot forge a line.

use astrid_wire::Principal;

use super::bindings::astrid::kernel::log::{Host, Level};
use crate::bus::message::MessageId;
use crate::capsule::guest::Guest;

/// Bytes of a message, a name or a value at most.
const TEXT_BYTES_MAX: usize = 1024;

/// Fields of a line at most.
const FIELDS_MAX: usize = 16;

/// Lines while handling one message at most.
pub(crate) const LINES_MAX: u32 = 64;

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

/// Who writes a line, and about what.
pub(crate) struct Line<'a> {
    pub(crate) capsule: &'a str,
    pub(crate) generation: u32,
    pub(crate) id: MessageId,
    pub(crate) principal: &'a Principal,
}

impl Line<'_> {
    /// Writes it, cut to its limits.
    pub(crate) fn write(&self, level: Level, message: &str, fields: &[(String, String)]) {
        let mut named: serde_json::Map<String, serde_json::Value> = fields
            .iter()
            .take(FIELDS_MAX)
            .map(|(name, value)| (cut(name).to_owned(), cut(value).into()))
            .collect();
        if fields.len() > FIELDS_MAX {
            named.insert("fields_dropped".into(), (fields.len() - FIELDS_MAX).into());
        }
        let fields = if named.is_empty() {
            String::new()
        } else {
            serde_json::Value::from(named).to_string()
        };
        let Self {
            capsule,
            generation,
            id,
            principal,
        } = *self;
        let (principal, text) = (principal.as_str(), cut(message));
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(target: "capsule", $level, capsule, generation, message_id = %id, principal, text, fields, "guest")
            };
        }
        match level {
            Level::Trace => line!(tracing::Level::TRACE),
            Level::Debug => line!(tracing::Level::DEBUG),
            Level::Info => line!(tracing::Level::INFO),
            Level::Warn => line!(tracing::Level::WARN),
            Level::Error => line!(tracing::Level::ERROR),
        }
    }
}

impl Host for Guest {
    fn write(&mut self, level: Level, message: String, fields: Vec<(String, String)>) {
        self.log_lines = self.log_lines.saturating_add(1);
        if self.log_lines > LINES_MAX {
            return;
        }
        let line = Line {
            capsule: self.actor.capsule_name(),
            generation: self.actor.generation(),
            id: self.message_id(),
            principal: &self.principal,
        };
        line.write(level, &message, &fields);
    }
}
