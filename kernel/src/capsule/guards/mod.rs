//! Guards: capsules that are asked before others are heard.
//!
//! A guard is an export of its own, called when a guest says something on a topic that is guarded: after the gate has permitted it and
//! before anybody's place is reserved. So who speaks is told at once, what is recorded is what the guards made of it, and a commit has
//! nothing left to ask. Each sees what the one before it made; the first refusal ends it.
//!
//! It fails closed. What cannot be asked refuses: a guard that traps, that uses too much, whose capsule does not run or is ill, and one that
//! the operator has granted and that is not there at all. What is *not* granted is no guard: it could refuse what others say, so
//! what its manifest asks for is not enough ([`Gate::guard`]).
//!
//! Not guarded are the kernel itself and what is asked of it, which is how an operator gets rid of a guard; answers, whose asker was
//! guarded; and what a capsule says on topics that it guards itself, which it decides on anyway.
//!
//! - `registry`: who stands where, by the policy in force;
//! - `run`: one guard and one message;
//! - `watch`: what a guard may call.
//!
//! Deliberately absent: any second look. What was permitted and recorded is not shown again at the commit, after a crash, or when a
//! dead letter is tried again.

mod registry;
mod run;
mod watch;

use std::sync::Arc;

use astrid_wire::problem::codes;
use astrid_wire::{Problem, Topic};

pub use self::registry::Guards;
use self::registry::Post;
use self::run::{Shown, Why};
pub use self::watch::{Watch, link};
use super::Host;
use super::guest::Guest;
use super::host::bindings::Verdict;
use super::host::bindings::astrid::kernel::types::Kind;
use crate::bus::Saying;
use crate::bus::message::{BODY_BYTES_MAX, Body};

#[cfg(doc)]
use crate::authority::Gate;

/// What a guard refused, or could not be asked about, as whoever speaks is told.
fn refusal(post: &Post, topic: &Topic, outcome: Result<String, Why>) -> Problem {
    let guard = &post.capsule;
    match outcome {
        Ok(reason) => Problem::new(codes::GUARD_DENIED, format!("{guard} refused {topic}: {reason}")),
        Err(why) => {
            let hint = format!(
                "`astrid capsule show {guard}` says how it is, and `astrid caps revoke capsule:{guard} guard:..` takes its grant back"
            );
            let message = format!("{guard} guards {topic} and could not be asked: {why}");
            Problem::new(codes::GUARD_FAILED, message).with_hint(hint)
        }
    }
}

impl Guest {
    /// Shows what is to be said to the guards of its topic; it may be another body afterwards. Whether there were any.
    ///
    /// # Errors
    /// What the first that refused said, or why it could not be asked.
    pub(crate) async fn pass_guards(
        &mut self,
        topic: &Topic,
        saying: &mut Saying,
        kind: Kind,
    ) -> Result<bool, Box<Problem>> {
        let host = self.host();
        let posts = host.guards.posts(&host.gate, topic, self.actor.capsule_name());
        if posts.is_empty() {
            return Ok(false);
        }
        let host = Arc::clone(host);
        let began = host.deadlines.now();
        let mut passed = Ok(true);
        for post in &posts {
            let shown = Shown {
                speaker: &self.actor,
                account: &self.payer.account,
                id: self.message_id(),
                topic,
                kind,
            };
            if let Err(problem) = ask(&host, post, &shown, saying).await {
                passed = Err(Box::new(problem));
                break;
            }
        }
        // Its own time, as any wait is.
        self.meter.waited(host.deadlines.now().saturating_duration_since(began));
        self.look_at_clocks();
        passed
    }
}

async fn ask(host: &Arc<Host>, post: &Post, shown: &Shown<'_>, saying: &mut Saying) -> Result<(), Problem> {
    let outcome = match run::ask(host, &post.capsule, shown, saying).await {
        Ok(Verdict::Allow) => return Ok(()),
        Ok(Verdict::Replace(bytes)) if bytes.len() <= BODY_BYTES_MAX => {
            saying.body = Body {
                content_type: saying.body.content_type.clone(),
                bytes: bytes.into(),
            };
            return Ok(());
        }
        Ok(Verdict::Replace(bytes)) => Err(Why::Size(bytes.len())),
        Ok(Verdict::Deny(reason)) => Ok(reason),
        Err(why) => Err(why),
    };
    let guard = &post.capsule;
    if let Err(why) = &outcome {
        tracing::warn!(%guard, topic = %shown.topic, principal = %saying.principal, reason = %why, "a guard could not be asked");
    }
    let problem = refusal(post, shown.topic, outcome);
    // By pattern and not by topic or reason: what is counted must stay few.
    let rule = format!("{guard} guards {}", post.pattern);
    let (principal, speaker) = (saying.principal.as_str(), shown.speaker.capsule_name());
    host.audit.denied(principal, speaker, &rule, problem.message());
    Err(problem)
}
