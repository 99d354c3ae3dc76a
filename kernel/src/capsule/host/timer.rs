//! `astrid:kernel/timer`: timers of the actor.

use std::time::Duration;

use super::bindings::astrid::kernel::timer::{Armed, Host, TimerError};
use crate::capsule::commands::Command;
use crate::capsule::guest::Guest;
use crate::port::timer::{AFTER_MS_MAX, EVERY_MS_MIN, TAG_BYTES_MAX, TIMERS_PER_ACTOR_MAX, TimerSpec};

impl Guest {
    fn set_timer(
        &mut self,
        after_ms: u64,
        every_ms: Option<u64>,
        tag: String,
        durable: bool,
    ) -> Result<u64, TimerError> {
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
        let owner = match (durable, self.actor.owner()) {
            (true, None) => {
                return Err(TimerError::Denied("nothing of a connection outlives it".into()));
            }
            (true, Some(owner)) => Some(owner.clone()),
            (false, _) => None,
        };
        let kept = self.actor.owner().map_or(0, |o| self.host().durable.timers.count_of(o));
        let set = self.actor.timers().len() + kept + self.commands.timers_set();
        if self.commands.room(0).is_err() || set >= TIMERS_PER_ACTOR_MAX {
            return Err(too_many);
        }
        let id = self.host().bus.ids().port();
        let timer = self
            .host()
            .gate
            .timer(self.subject(), id)
            .map_err(|denied| TimerError::Denied(self.refused(denied).to_string()))?;
        let spec = TimerSpec {
            after: Duration::from_millis(after_ms),
            every: every_ms.map(Duration::from_millis),
            tag: tag.into(),
            principal: self.principal.clone(),
        };
        let now_ms = self.now.wall_ms;
        self.commands.push(
            match owner {
                None => Command::SetTimer { timer, spec },
                Some(owner) => Command::KeepTimer {
                    timer,
                    spec,
                    owner,
                    now_ms,
                },
            },
            0,
        );
        Ok(id)
    }
}

impl Host for Guest {
    fn set(&mut self, after_ms: u64, every_ms: Option<u64>, tag: String) -> Result<u64, TimerError> {
        self.set_timer(after_ms, every_ms, tag, false)
    }

    fn set_durable(&mut self, after_ms: u64, every_ms: Option<u64>, tag: String) -> Result<u64, TimerError> {
        self.set_timer(after_ms, every_ms, tag, true)
    }

    fn list_set(&mut self) -> Vec<Armed> {
        let armed = |durable| {
            move |(timer, tag): (u64, std::sync::Arc<str>)| Armed {
                timer,
                tag: tag.to_string(),
                durable,
            }
        };
        let kept = self
            .actor
            .owner()
            .map(|o| self.host().durable.timers.of(o))
            .unwrap_or_default();
        let own = self.actor.timers().all();
        let mut all: Vec<Armed> = own
            .into_iter()
            .map(armed(false))
            .chain(kept.into_iter().map(armed(true)))
            .collect();
        all.sort_unstable_by_key(|armed| armed.timer);
        all
    }

    fn cancel(&mut self, timer: u64) -> bool {
        let own = self.actor.timers().has(timer) || self.commands.sets_timer(timer);
        let owner = self
            .actor
            .owner()
            .filter(|owner| self.host().durable.timers.is_of(timer, owner) || self.commands.keeps_timer(timer));
        if !(own || owner.is_some()) || self.commands.room(0).is_err() {
            return false;
        }
        let permit = self.host().gate.own(self.subject(), timer);
        let command = match owner.cloned() {
            Some(owner) => Command::ForgetTimer { timer: permit, owner },
            None => Command::CancelTimer(permit),
        };
        self.commands.push(command, 0);
        true
    }
}
