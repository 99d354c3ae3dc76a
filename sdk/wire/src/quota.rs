//! Quotas: how much a principal may use (contract K12).
//!
//! A quota is a table of limits, each of which may be left out: what is left out is not limited, and that is the default. Amounts are
//! written as in `Capsule.toml`: sizes as `"32MiB"`, times as `"5s"`, everything else as whole numbers.
//!
//! ```
//! let quota: astrid_wire::Quota = toml::from_str(
//!     r#"
//!     fuel_per_second = 50_000_000
//!     memory = "64MiB"
//!     messages_per_second = 200
//!     "#,
//! )?;
//! assert_eq!(quota.memory.map(|size| size.0), Some(64 << 20));
//! assert_eq!(quota.children, None);
//! # Ok::<(), toml::de::Error>(())
//! ```
//!
//! Deliberately absent: counting, which is the kernel's ledger, and who may change a quota, which is its gate.

use serde::{Deserialize, Serialize};

use crate::manifest::{ByteSize, Time};

/// The limits of one principal. `None` is unlimited; zero allows nothing of that kind.
///
/// What is counted a second is counted in a window that lets a second's worth through at once after a pause, and not more than
/// rate x time + one second's worth in any stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Fuel a second; about a unit an instruction. A handling that ends over it is paid for by the wait of the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_per_second: Option<u64>,
    /// Fuel in total, over restarts of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_total: Option<u64>,
    /// Memory of all live instances that are the principal's own, together (`"64MiB"`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Messages published a second: events, asks and requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages_per_second: Option<u64>,
    /// Bytes of the bodies of those messages a second (`"1MiB"`). A body larger than this is never taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<ByteSize>,
    /// Bytes in the store: keys and values of its actors' state, and messages kept for its actors (`"1GiB"`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<ByteSize>,
    /// Child programs at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children: Option<u64>,
    /// Open connections at a time, once they showed who they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u64>,
    /// Asks and requests that wait for an answer at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<u64>,
    /// The longest that an ask or a request may wait (`"30s"`). What asks for more gets this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
}

impl Quota {
    /// Its limits with their names, in a fixed order; sizes in bytes, times in milliseconds.
    #[must_use]
    pub fn limits(&self) -> [(&'static str, Option<u64>); 10] {
        let bytes = |size: Option<ByteSize>| size.map(|size| size.0);
        let timeout = self
            .timeout
            .map(|time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX));
        [
            ("fuel_per_second", self.fuel_per_second),
            ("fuel_total", self.fuel_total),
            ("memory", bytes(self.memory)),
            ("messages_per_second", self.messages_per_second),
            ("bytes_per_second", bytes(self.bytes_per_second)),
            ("storage", bytes(self.storage)),
            ("children", self.children),
            ("connections", self.connections),
            ("calls", self.calls),
            ("timeout", timeout),
        ]
    }

    /// The first limit that is higher here than in `other`, where no limit is the highest.
    #[must_use]
    pub fn raised_from(&self, other: &Self) -> Option<&'static str> {
        let both = self.limits().into_iter().zip(other.limits());
        let mut raised = both.filter(|((_, new), (_, old))| new.unwrap_or(u64::MAX) > old.unwrap_or(u64::MAX));
        raised.next().map(|((name, _), _)| name)
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn survives_toml_and_json() {
        let quota = Quota {
            fuel_total: Some(1_000_000_000_000),
            storage: Some(ByteSize(1 << 30)),
            timeout: Some(Time(std::time::Duration::from_secs(30))),
            ..Quota::default()
        };
        let text = toml::to_string(&quota).unwrap();
        assert_eq!(
            text,
            "fuel_total = 1000000000000\nstorage = \"1GiB\"\ntimeout = \"30s\"\n"
        );
        assert_eq!(toml::from_str::<Quota>(&text).unwrap(), quota);
        let json = serde_json::to_string(&quota).unwrap();
        assert_eq!(serde_json::from_str::<Quota>(&json).unwrap(), quota);
    }

    #[test]
    fn refusals_say_where() {
        for (text, says) in [
            ("fuel = 1", "unknown field `fuel`"),
            ("memory = 5", "invalid type"),
            ("memory = \"5\"", "KiB"),
            ("children = -1", "invalid value"),
            ("timeout = \"5 minutes\"", "ms, s, m, h"),
        ] {
            let error = toml::from_str::<Quota>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains("line 1"), "{error}");
        }
        assert!(toml::from_str::<Quota>("").unwrap().is_unlimited());
    }
}
