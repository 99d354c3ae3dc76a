//! `astrid:kernel/child`: programs of the actor. Not served yet: everything is refused.

use super::bindings::astrid::kernel::child::{ChildError, Host, Reach, Signal, SpawnError, Spec, TailError, Usage};
use crate::capsule::guest::Guest;

impl Host for Guest {
    fn spawn(&mut self, _: Spec) -> Result<u64, SpawnError> {
        Err(SpawnError::Unsupported("children".to_owned()))
    }

    fn send_signal(&mut self, _: u64, _: Signal, _: Reach) -> Result<u32, ChildError> {
        Err(ChildError::Unknown)
    }

    fn write(&mut self, _: u64, _: Vec<u8>) -> Result<u32, ChildError> {
        Err(ChildError::Unknown)
    }

    fn close_input(&mut self, _: u64) -> Result<u32, ChildError> {
        Err(ChildError::Unknown)
    }

    fn measure(&mut self, _: u64) -> Result<Usage, ChildError> {
        Err(ChildError::Unknown)
    }

    fn tail(&mut self, _: String, _: u32) -> Result<Vec<u8>, TailError> {
        Err(TailError::NotFound)
    }

    fn log_path(&mut self, _: String) -> Result<String, TailError> {
        Err(TailError::NotFound)
    }
}
