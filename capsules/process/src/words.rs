//! Amounts for people.

use std::fmt;

/// A length of time in milliseconds, as `1h5m`, `4s`, `250ms`: its two largest units.
#[derive(Debug, Clone, Copy)]
pub struct Lasting(pub u64);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
        let Self(ms) = *self;
        let Some(at) = UNITS.iter().position(|(unit, _)| ms >= *unit) else {
            return write!(f, "{ms}ms");
        };
        let (unit, name) = UNITS[at];
        write!(f, "{}{name}", ms / unit)?;
        let rest = ms % unit;
        match UNITS.get(at + 1) {
            Some((smaller, name)) if rest >= *smaller => write!(f, "{}{name}", rest / smaller),
            None if rest > 0 => write!(f, "{rest}ms"),
            _ => Ok(()),
        }
    }
}
