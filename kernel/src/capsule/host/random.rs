//! `astrid:kernel/random`: randomness fit for keys.

use rand::Rng;

use super::bindings::astrid::kernel::random::{Host, RandomError};
use crate::capsule::guest::Guest;

/// Bytes of one call at most.
const BYTES_MAX: u32 = 65_536;

impl Host for Guest {
    fn bytes(&mut self, count: u32) -> Result<Vec<u8>, RandomError> {
        if count > BYTES_MAX {
            return Err(RandomError::TooMany(BYTES_MAX));
        }
        let mut bytes = vec![0; count as usize];
        // ChaCha, seeded and re-seeded from the operating system.
        rand::rng().fill_bytes(&mut bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> u64 {
        rand::random()
    }
}
