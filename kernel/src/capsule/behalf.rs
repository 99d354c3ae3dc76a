//! On whose behalf an actor handles a message, and what that one may do now.

use std::sync::Arc;

use astrid_wire::Principal;
use astrid_wire::problem::codes;

use super::actor::{Actor, Life, ScopeKey};
use crate::authority::Standing;
use crate::bus::inbox::Delivery;
use crate::bus::message::{Message, Source};

impl Actor {
    /// On whose behalf it handles a message: its key's, or the message's for a system actor. What the kernel says to a system actor it
    /// handles as itself.
    pub(super) fn acts_as(&self, message: &Message) -> Principal {
        match (self.key(), &message.source) {
            (ScopeKey::System(_), Source::Kernel) if message.public => self.own_principal(),
            (ScopeKey::System(_), _) => message.principal.clone(),
            _ => self.own_principal(),
        }
    }

    /// Looks up on whose behalf a message is handled. What is wanted is the policy of now, not of when it was said: on behalf of whoever
    /// may not act any more nothing is handled. The reason, then. A connection is closed instead.
    pub(super) fn look_up(&self, life: &mut Life, message: &Message) -> Option<String> {
        let principal = self.acts_as(message);
        let authority = self.host().gate.authority();
        match &mut life.standing {
            Some(standing) if *standing.principal() == principal => self.host().gate.refresh(standing),
            other => *other = Some(authority.standing(&principal)),
        }
        let standing = life.standing.as_ref().filter(|_| self.connection().is_none())?;
        let reason = standing.check_active().err()?;
        Some(format!(
            "{}; it needs {}",
            reason.rule(&principal),
            reason.change(&principal, "")
        ))
    }

    /// Nothing is handled for whoever may not act. What the store kept for it is laid aside, unless that is not kept any more, because all of
    /// its principal's went.
    pub(super) fn refuse_to_act(self: &Arc<Self>, life: &mut Life, delivery: Delivery, refusal: &str) {
        if self.is_kept_still(&delivery) {
            self.give_up(life, delivery, codes::DENIED, refusal);
        } else {
            self.inbox().put_rows_back(life.order.done(&delivery));
        }
    }

    /// What whoever a message is handled for may do, as it was looked up before that began.
    pub(super) fn standing_for(&self, life: &Life, message: &Message) -> Standing {
        let principal = self.acts_as(message);
        match &life.standing {
            Some(standing) if *standing.principal() == principal => standing.clone(),
            _ => self.host().gate.authority().standing(&principal),
        }
    }
}
