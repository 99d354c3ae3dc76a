//! `astrid:kernel/port`: the streams of the actor.

use std::sync::Arc;

use super::bindings::astrid::kernel::port::{Host, PortError};
use crate::capsule::commands::{Command, Refused};
use crate::capsule::guest::Guest;
use crate::port::stream::Stream;

impl From<Refused> for PortError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany(limit) => Self::TooMany(limit),
            Refused::TooLarge(limit) => Self::Full(limit),
        }
    }
}

impl Guest {
    /// The actor's stream of that number: it can name only its own.
    fn stream(&self, port: u64) -> Result<Arc<Stream>, PortError> {
        let stream = self
            .actor
            .connection()
            .map(|c| c.stream())
            .filter(|s| s.id() == port && !s.is_closing());
        stream.cloned().ok_or(PortError::Unknown)
    }
}

impl Host for Guest {
    fn write(&mut self, port: u64, bytes: Vec<u8>) -> Result<u32, PortError> {
        let stream = self.stream(port)?;
        self.commands.room(bytes.len())?;
        let room = stream.room(bytes.len()).map_err(|free| PortError::Full(free as u64))?;
        let weight = bytes.len();
        let room = self.host().gate.own(self.subject(), room);
        Ok(self.commands.push(
            Command::Write {
                room,
                bytes: bytes.into(),
            },
            weight,
        ))
    }

    fn close(&mut self, port: u64) -> Result<u32, PortError> {
        let stream = self.stream(port)?;
        self.commands.room(0)?;
        let stream = self.host().gate.own(self.subject(), stream);
        Ok(self.commands.push(Command::Close(stream), 0))
    }
}
