//! What is to become of a number: nearly all of them are handled, some after a failure or two, and few end among the dead letters.
//! The seed decides, so the checker knows it as well.

use astrid_tests::chance::Chance;

/// The stages of the chain, and the capsules that they are.
pub(crate) const STAGES: [(&str, &str, &str); 3] = [
    ("a", "relay-a", "relay.v1.request.report_a"),
    ("b", "relay-b", "relay.v1.request.report_b"),
    ("c", "relay-c", "relay.v1.request.report"),
];

/// More attempts than there are.
const ALWAYS: u32 = 100;

/// How a stage fails at a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// As the message says it.
    pub(crate) kind: &'static str,
    /// Which stage.
    pub(crate) stage: &'static str,
    /// At how many attempts.
    pub(crate) times: u32,
}

impl Fault {
    /// Whether it ends as a dead letter.
    pub(crate) fn is_fatal(&self) -> bool {
        self.times == ALWAYS || self.kind == "refuse"
    }
}

/// What a seed decides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fate(pub u64);

impl Fate {
    /// What is to become of a client's number; `None`: it is handled.
    pub(crate) fn of(self, client: &str, number: u64) -> Option<Fault> {
        let seed = client
            .bytes()
            .fold(self.0, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        let mut chance = Chance(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let (kind, times) = match chance.below(8000) {
            // A trap costs two seconds of the actor's life.
            0 => ("trap", 1),
            1 => ("trap", ALWAYS),
            2..8 => ("retry", ALWAYS),
            8..24 => ("refuse", 1),
            24..48 => ("retry", 1),
            _ => return None,
        };
        let (stage, ..) = STAGES[usize::try_from(chance.below(3)).unwrap()];
        Some(Fault { kind, stage, times })
    }
}
