//! `astrid:kernel/actor`: the actor itself.

use super::bindings::astrid::kernel::actor::{ActorError, Host};
use crate::capsule::guest::Guest;

impl Host for Guest {
    fn pin(&mut self) -> Result<(), ActorError> {
        Err(ActorError::Denied("this kernel has no store yet".into()))
    }

    fn unpin(&mut self) -> Result<(), ActorError> {
        Err(ActorError::Denied("this kernel has no store yet".into()))
    }
}
