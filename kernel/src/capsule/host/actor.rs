//! `astrid:kernel/actor`: the actor itself.

use super::bindings::astrid::kernel::actor::{ActorError, Host};
use crate::capsule::commands::{COMMANDS_MAX, Command};
use crate::capsule::guest::Guest;

impl Guest {
    fn set_pinned(&mut self, pinned: bool) -> Result<(), ActorError> {
        let Some(owner) = self.actor.owner() else {
            return Err(ActorError::Connection);
        };
        let permit = self.host().gate.pin(self.subject(), owner.clone());
        let owner = permit.map_err(|denied| ActorError::Denied(self.refused(denied).to_string()))?;
        if self.commands.room(0).is_err() {
            return Err(ActorError::TooMany(COMMANDS_MAX));
        }
        self.commands.push(Command::Pin { owner, pinned }, 0);
        Ok(())
    }
}

impl Host for Guest {
    fn pin(&mut self) -> Result<(), ActorError> {
        self.set_pinned(true)
    }

    fn unpin(&mut self) -> Result<(), ActorError> {
        self.set_pinned(false)
    }
}
