//! What happened in a run, as lines: their hash tells two runs apart, the last of them are shown when one fails.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// Lines that are kept to be shown.
const KEPT_LINES_MAX: usize = 50;

/// A sequence of numbers that a seed decides (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    /// Happens that many times in a thousand.
    pub(crate) fn per_mille(&mut self, times: usize) -> bool {
        self.below(1000) < times
    }
}

#[derive(Default)]
struct Lines {
    hash: u64,
    kept: VecDeque<String>,
    violation: Option<String>,
}

/// The lines of one run. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Lines>>);

impl Trace {
    pub(crate) fn line(&self, text: String) {
        let mut lines = self.0.lock();
        for byte in text.bytes().chain([b'\n']) {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if std::env::var_os("ASTRID_TRACE").is_some() {
            println!("{text}");
        }
        lines.kept.push_back(text);
        if lines.kept.len() > KEPT_LINES_MAX {
            lines.kept.pop_front();
        }
    }

    /// Something that must never be. The first counts.
    pub(crate) fn violated(&self, what: String) {
        self.line(format!("VIOLATED: {what}"));
        self.0.lock().violation.get_or_insert(what);
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }

    pub(crate) fn hash(&self) -> u64 {
        self.0.lock().hash
    }

    pub(crate) fn last(&self) -> Vec<String> {
        self.0.lock().kept.iter().cloned().collect()
    }
}
