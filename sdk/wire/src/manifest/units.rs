//! Amounts as people write them: `32MiB`, `5s`. A whole number and one unit; nothing that could be read in two ways.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits first.
    #[error("`{0}` does not begin with a whole number")]
    Number(String),
    /// No unit, or none that is known.
    #[error("`{text}` has no known unit; write one of {units}")]
    Unit {
        /// The text.
        text: String,
        /// The units.
        units: &'static str,
    },
    /// Over what can be counted.
    #[error("`{0}` is too large")]
    Overflow(String),
}

fn split<'a>(text: &'a str, units: &[(&str, u64)], names: &'static str) -> Result<u64, UnitError> {
    let shown = || crate::text::cut(text, 64).to_owned();
    let digits = text
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'_')
        .count();
    let (number, unit): (&'a str, &'a str) = text.split_at(digits);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(UnitError::Number(shown()));
    }
    let unit = unit.trim_start();
    let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(UnitError::Unit {
            text: shown(),
            units: names,
        });
    };
    let number: u64 = number
        .replace('_', "")
        .parse()
        .map_err(|_| UnitError::Overflow(shown()))?;
    number.checked_mul(*factor).ok_or_else(|| UnitError::Overflow(shown()))
}

macro_rules! amount {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

amount!(
    /// An amount of memory, in bytes.
    ByteSize, u64
);

amount!(
    /// A length of time.
    Time, Duration
);

const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        split(text, &BYTE_UNITS, "B, KiB, MiB, GiB (as in \"32MiB\")").map(Self)
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        split(text, &TIME_UNITS, "ms, s, m, h (as in \"5s\")").map(|ms| Self(Duration::from_millis(ms)))
    }
}

/// The largest unit that gives a whole number.
fn write_amount(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    match units
        .iter()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
    {
        Some((unit, factor)) => write!(f, "{}{unit}", amount / factor),
        None => write!(f, "0{}", units.last().map_or("", |(unit, _)| unit)),
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, self.0, &BYTE_UNITS)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_amount(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn amounts() {
        for (text, bytes, shown) in [
            ("32MiB", 32 << 20, "32MiB"),
            ("1024 KiB", 1 << 20, "1MiB"),
            ("1_500B", 1500, "1500B"),
            ("0B", 0, "0B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
        }
        for (text, ms, shown) in [
            ("5s", 5000, "5s"),
            ("10m", 600_000, "10m"),
            ("90s", 90_000, "90s"),
            ("250ms", 250, "250ms"),
        ] {
            let time: Time = text.parse().unwrap();
            assert_eq!((time.0.as_millis(), time.to_string().as_str()), (ms, shown));
        }
    }

    #[test]
    fn refusals() {
        for text in ["", "MiB", "-1MiB", "_1MiB", "١MiB"] {
            assert!(matches!(text.parse::<ByteSize>(), Err(UnitError::Number(_))), "{text}");
        }
        for text in ["32", "32MB", "32mib", "1.5MiB", "32MiB "] {
            assert!(
                matches!(text.parse::<ByteSize>(), Err(UnitError::Unit { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            "99999999999999999999B".parse::<ByteSize>(),
            Err(UnitError::Overflow(_))
        ));
        assert!(matches!(
            "18446744073709551615GiB".parse::<ByteSize>(),
            Err(UnitError::Overflow(_))
        ));
        assert!(matches!("5 minutes".parse::<Time>(), Err(UnitError::Unit { .. })));
    }
}
