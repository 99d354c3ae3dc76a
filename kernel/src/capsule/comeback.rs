//! How an actor comes back after a fault (K6): when, and what those are told who would not wait so long.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use astrid_wire::Problem;
use astrid_wire::problem::codes;

use super::actor::{Actor, ActorState};
use super::health::Next;
use super::report;
use crate::bus::message::Message;

impl Actor {
    /// Is what follows a fault, before anybody is told of that.
    pub(super) fn falls(&self, next: Option<Next>) {
        match next {
            None => {}
            Some(Next::Restart(_)) => self.set_state(ActorState::Restarting),
            Some(Next::Down) => self.set_state(ActorState::Down),
        }
    }

    /// Waits for the next generation's time, or goes down.
    pub(super) async fn come_back(self: &Arc<Self>, next: Option<Next>) {
        self.is_done_handling();
        match next {
            None => {}
            Some(Next::Restart(wait)) => {
                self.wait_for_restart(wait).await;
                self.set_state(ActorState::Up);
            }
            Some(Next::Down) => {
                self.host().census.left(self);
                return;
            }
        }
        self.hear_about_itself(&self.host().topics.restarted);
    }

    /// Waits, and tells those who would have stopped waiting before the restart that they need not. An actor that ends does not wait.
    async fn wait_for_restart(&self, wait: Duration) {
        let up = self.host().deadlines.now() + wait;
        let mut sleep = std::pin::pin!(self.host().deadlines.until(up));
        std::future::poll_fn(|cx| {
            for late in self
                .inbox()
                .poll_chosen(cx, |m| m.deadline.is_some_and(|deadline| deadline <= up))
            {
                let left = up.saturating_duration_since(self.host().deadlines.now());
                let text = format!("{} failed and restarts in {:.0?}", self.capsule_name(), left);
                let problem = Problem::new(codes::UNAVAILABLE, text).with_hint("try again then");
                report::refuse(&self.host().bus, &late.message, problem);
            }
            if self.inbox().is_closed() {
                return Poll::Ready(());
            }
            sleep.as_mut().poll(cx)
        })
        .await;
    }

    /// Refuses a message because this actor is down.
    pub(super) fn turn_away(&self, message: &Message) {
        let text = format!("{} failed too often and stays down", self.capsule_name());
        let problem =
            Problem::new(codes::UNAVAILABLE, text).with_hint("see `astrid status`; `astrid restart` starts it anew");
        report::refuse(&self.host().bus, message, problem);
    }
}
