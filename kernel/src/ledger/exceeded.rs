//! What somebody is told who is over quota: of what, how much there is, and when it frees.

use std::time::Duration;

use astrid_wire::problem::codes;
use astrid_wire::{Principal, Problem};

/// A limit of a quota, by the name that it has in a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Fuel a second.
    FuelPerSecond,
    /// Fuel in total.
    FuelTotal,
    /// Bytes of instances' memory.
    Memory,
    /// Messages a second.
    MessagesPerSecond,
    /// Bytes of messages a second.
    BytesPerSecond,
    /// Bytes that are kept: in the store, in files, in the content store.
    Storage,
    /// Programs.
    Children,
    /// Connections.
    Connections,
    /// Asks that wait.
    Calls,
}

impl Limit {
    /// As in a profile.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FuelPerSecond => "fuel_per_second",
            Self::FuelTotal => "fuel_total",
            Self::Memory => "memory",
            Self::MessagesPerSecond => "messages_per_second",
            Self::BytesPerSecond => "bytes_per_second",
            Self::Storage => "storage",
            Self::Children => "children",
            Self::Connections => "connections",
            Self::Calls => "calls",
        }
    }

    /// What frees it, where that is not time.
    const fn frees_when(self) -> &'static str {
        match self {
            Self::FuelPerSecond | Self::MessagesPerSecond => "its rate is 0",
            Self::BytesPerSecond => "one message may not be larger than a second's worth",
            Self::FuelTotal => "it frees when the quota is raised",
            Self::Memory => "it frees when an instance of the principal ends",
            Self::Storage => "it frees when something of it is deleted or handled",
            Self::Children => "it frees when a program ends",
            Self::Connections => "it frees when a connection closes",
            Self::Calls => "it frees when one is answered",
        }
    }
}

/// A principal used as much as its quota allows (K12).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{principal} is over its quota {}: {limit} allowed, {}", what.as_str(), self.when())]
pub struct Exceeded {
    /// Who.
    pub principal: Principal,
    /// Of what.
    pub what: Limit,
    /// How much is allowed, in units, bytes or units a second.
    pub limit: u64,
    /// Milliseconds until it frees by itself, rounded up; `None`: when something ends, or the quota is raised.
    pub retry_after_ms: Option<u64>,
}

impl Exceeded {
    fn when(&self) -> String {
        match self.retry_after_ms {
            Some(ms) => format!("free again in {ms} ms"),
            None => self.what.frees_when().to_owned(),
        }
    }

    /// How long until it frees by itself.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(Duration::from_millis)
    }

    /// As who asked is told.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let hint = match self.retry_after_ms {
            Some(ms) => format!("try again in {ms} ms"),
            None => format!("`astrid usage {}` shows what is used", self.principal),
        };
        Problem::new(codes::QUOTA_EXCEEDED, self.to_string()).with_hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_how_much_and_when() {
        let mut exceeded = Exceeded {
            principal: Principal::default_owner(),
            what: Limit::MessagesPerSecond,
            limit: 5,
            retry_after_ms: Some(200),
        };
        let problem = exceeded.problem();
        assert_eq!(problem.code(), "quota.exceeded");
        assert_eq!(
            problem.message(),
            "default is over its quota messages_per_second: 5 allowed, free again in 200 ms"
        );
        exceeded.what = Limit::Children;
        exceeded.retry_after_ms = None;
        assert_eq!(
            exceeded.to_string(),
            "default is over its quota children: 5 allowed, it frees when a program ends"
        );
    }
}
