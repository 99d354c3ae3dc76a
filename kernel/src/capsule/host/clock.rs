//! `astrid:kernel/clock`: time, which stands still within one `handle` and moves on when that waited.

use super::bindings::astrid::kernel::clock::Host;
use crate::capsule::guest::Guest;

impl Host for Guest {
    fn wall_ms(&mut self) -> u64 {
        self.now.wall_ms
    }

    fn monotonic_ns(&mut self) -> u64 {
        self.now.monotonic_ns
    }
}
