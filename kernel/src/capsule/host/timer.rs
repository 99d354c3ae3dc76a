//! `astrid:kernel/timer`: timers of the actor.

use std::time::Duration;

use super::bindings::astrid::kernel::timer::{Armed, Host, TimerError};
use crate::capsule::commands::Command;
use crate::capsule::guest::Guest;
use crate::port::timer::{AFTER_MS_MAX, EVERY_MS_MIN, TAG_BYTES_MAX, TIMERS_PER_ACTOR_MAX, TimerSpec};

impl Host for Guest {
    fn set(&mut self, after_ms: u64, every_ms: Option<u64>, tag: String) -> Result<u64, TimerError> {
        let too_many = TimerError::TooMany(u32::try_from(TIMERS_PER_ACTOR_MAX).unwrap_or(u32::MAX));
        if after_ms > AFTER_MS_MAX || every_ms.is_some_and(|ms| ms > AFTER_MS_MAX) {
            return Err(TimerError::OutOfRange(AFTER_MS_MAX));
        }
        if every_ms.is_some_and(|ms| ms < EVERY_MS_MIN) {
            return Err(TimerError::OutOfRange(EVERY_MS_MIN));
        }
        if tag.len() > TAG_BYTES_MAX {
            return Err(TimerError::TagTooLong);
        }
        if self.commands.room(0).is_err()
            || self.actor.timers().len() + self.commands.timers_set() >= TIMERS_PER_ACTOR_MAX
        {
            return Err(too_many);
        }
        let id = self.host().bus.ids().port();
        let timer = self
            .host()
            .gate
            .timer(self.subject(), id)
            .map_err(|denied| TimerError::Denied(denied.to_string()))?;
        let spec = TimerSpec {
            after: Duration::from_millis(after_ms),
            every: every_ms.map(Duration::from_millis),
            tag: tag.into(),
            principal: self.principal.clone(),
        };
        self.commands.push(Command::SetTimer { timer, spec }, 0);
        Ok(id)
    }

    fn set_durable(&mut self, _: u64, _: Option<u64>, _: String) -> Result<u64, TimerError> {
        Err(TimerError::Denied("this kernel has no store yet".into()))
    }

    fn list_set(&mut self) -> Vec<Armed> {
        Vec::new()
    }

    fn cancel(&mut self, timer: u64) -> bool {
        let has = self.actor.timers().has(timer) || self.commands.sets_timer(timer);
        if !has || self.commands.room(0).is_err() {
            return false;
        }
        let permit = self.host().gate.own(self.subject(), timer);
        self.commands.push(Command::CancelTimer(permit), 0);
        true
    }
}
