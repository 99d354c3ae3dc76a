//! `astrid:kernel/bus`: messages between actors.

use std::sync::Arc;
use std::time::Duration;

use astrid_wire::authority::Action;
use astrid_wire::problem::codes;
use astrid_wire::{Pattern, Problem, Topic};

use super::bindings::astrid::kernel::bus::{Answer, Host, PublishError, ReplyError, RequestError, SubscribeError};
use super::bindings::astrid::kernel::types;
use crate::authority::{Denied, Permit, Say};
use crate::bus::asks::{ASKS_PER_ACTOR_MAX, Outcome};
use crate::bus::inbox::{DURABLE_BODY_BYTES_MAX, NoPlace};
use crate::bus::message::{BODY_BYTES_MAX, Body, ContentType, ReplyTo, Source};
use crate::bus::{Saying, Slots};
use crate::capsule::commands::{Command, Refused};
use crate::capsule::guest::Guest;
use crate::ledger::{Exceeded, Hold, Limit};

/// How long an ask waits at most. Longer waits are for `reply_to` kept by the answerer and a published result.
const ASK_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// How long an ask waits when the guest does not say.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of the id of a message that is published once at most.
const ID_BYTES_MAX: u32 = 128;

/// Subscriptions of one connection at most (A8).
pub(crate) const SUBSCRIPTIONS_MAX: usize = 16;

impl From<Denied> for PublishError {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied.to_string())
    }
}

impl From<NoPlace> for PublishError {
    fn from(no: NoPlace) -> Self {
        match no {
            NoPlace::Full(name) => Self::Full(name.to_string()),
            NoPlace::Closed(_) => Self::NoSubscriber,
            NoPlace::TooLarge(_) => Self::TooLarge(DURABLE_BODY_BYTES_MAX as u64),
            NoPlace::OverQuota(exceeded) => (*exceeded).into(),
        }
    }
}

impl From<Exceeded> for PublishError {
    fn from(exceeded: Exceeded) -> Self {
        Self::Refused(guest_problem(&exceeded.problem()))
    }
}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany(limit) => Self::TooMany(limit),
            Refused::TooLarge(limit) => Self::TooLarge(limit),
        }
    }
}

impl From<Refused> for ReplyError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany(limit) => Self::TooMany(limit),
            Refused::TooLarge(limit) => Self::TooLarge(limit),
        }
    }
}

impl From<types::ReplyTo> for ReplyTo {
    fn from(to: types::ReplyTo) -> Self {
        Self {
            high: to.high,
            low: to.low,
        }
    }
}

impl From<Box<Problem>> for PublishError {
    fn from(refused: Box<Problem>) -> Self {
        Self::Refused(guest_problem(&refused))
    }
}

fn topic(text: &str) -> Result<Topic, PublishError> {
    text.parse()
        .map_err(|e: astrid_wire::topic::TopicError| PublishError::InvalidTopic(e.to_string()))
}

fn body(content_type: &str, bytes: Vec<u8>) -> Result<Body, PublishError> {
    if bytes.len() > BODY_BYTES_MAX {
        return Err(PublishError::TooLarge(BODY_BYTES_MAX as u64));
    }
    let content_type = ContentType::parse(content_type).ok_or(PublishError::InvalidContentType)?;
    Ok(Body {
        content_type,
        bytes: bytes.into(),
    })
}

fn timeout(ms: Option<u32>) -> Duration {
    ms.map_or(ASK_TIMEOUT, |ms| Duration::from_millis(ms.into()))
        .min(ASK_TIMEOUT_MAX)
}

impl Guest {
    fn saying(&self, body: Body) -> Saying {
        let source = Source::Capsule(Arc::clone(self.actor.capsule_name()));
        Saying {
            principal: self.principal.clone(),
            source,
            body,
            public: false,
        }
    }

    fn may_say(&self, topic: Topic) -> Result<Permit<Say>, Denied> {
        let said = self.host().gate.say(self.subject(), topic);
        said.map_err(|denied| self.refused(denied))
    }

    fn may_request(&self, topic: Topic) -> Result<Permit<Say>, Denied> {
        let said = self.host().gate.request(self.subject(), topic);
        said.map_err(|denied| self.refused(denied))
    }

    /// Asks the guards of a topic on which this may be said. Who has lost the right meanwhile is refused.
    async fn guarded(
        &mut self,
        say: Permit<Say>,
        saying: &mut Saying,
        kind: types::Kind,
        decide: fn(&Self, Topic) -> Result<Permit<Say>, Denied>,
    ) -> Result<Permit<Say>, PublishError> {
        let asked = self.pass_guards(&say.object().topic, saying, kind).await?;
        if !asked || self.host().gate.still(&say) {
            return Ok(say);
        }
        Ok(decide(self, say.into_object().topic)?)
    }

    /// Checks and reserves, in the order in which a mistake is cheapest to find.
    async fn prepare(
        &mut self,
        to: &str,
        content_type: &str,
        bytes: Vec<u8>,
        kind: types::Kind,
    ) -> Result<(Permit<Say>, Saying, Slots), PublishError> {
        self.commands.room(bytes.len())?;
        if self.host().is_stopping() {
            return Err(PublishError::Unavailable("the daemon stops".to_owned()));
        }
        let mut saying = self.saying(body(content_type, bytes)?);
        let say = self.may_say(topic(to)?)?;
        self.pay_for_saying(saying.body.bytes.len())?;
        let say = self.guarded(say, &mut saying, kind, Self::may_say).await?;
        // A guard may have made it longer.
        self.commands.room(saying.body.bytes.len())?;
        let reserved = self.host().bus.reserve(&say, &saying);
        if let Err(NoPlace::OverQuota(exceeded)) = &reserved {
            self.exceeded = Some((**exceeded).clone());
        }
        self.found_full |= matches!(reserved, Err(NoPlace::Full(_)));
        let slots = reserved?;
        if slots.is_kept() {
            self.check_store()?;
        }
        Ok((say, saying, slots))
    }

    /// Windows of messages and bytes. Where a client comes in, also its fuel: what it asks for would not be handled.
    fn pay_for_saying(&mut self, bytes: usize) -> Result<(), Exceeded> {
        let account = &self.payer.account;
        let entry = self.actor.connection().is_some();
        let paid = if entry { account.check_fuel() } else { Ok(()) };
        paid.and_then(|()| account.say(bytes)).map_err(|e| self.over(e))
    }

    /// Calls that a quota refuses fail with a variant that guests know, and a guest passes that on. Who asked is told of the quota.
    fn true_problem(&self, problem: Problem) -> Problem {
        match (&self.exceeded, problem.code()) {
            (Some(exceeded), codes::UNAVAILABLE | codes::TOO_MANY) => exceeded.problem(),
            _ => problem,
        }
    }

    fn hold_call(&mut self) -> Result<Hold, Exceeded> {
        self.payer.account.hold(Limit::Calls, 1).map_err(|e| self.over(e))
    }

    /// How long an ask waits: as it says, as long as its principal may.
    fn ask_timeout(&self, ms: Option<u32>) -> Duration {
        timeout(ms).min(self.payer.account.timeout_max())
    }

    fn check_store(&self) -> Result<(), PublishError> {
        let open = self.host().store.check_open();
        open.map_err(|why| PublishError::Unavailable(why.to_string()))
    }

    fn settle(&mut self, to: types::ReplyTo, outcome: Outcome, bytes: usize) -> Result<u32, ReplyError> {
        self.commands.room(bytes)?;
        let to = to.into();
        if !self.host().bus.asks().waits(to) {
            return Err(ReplyError::NotWaiting);
        }
        Ok(self.commands.push(Command::Settle { to, outcome }, bytes))
    }
}

impl Host for Guest {
    async fn publish(&mut self, to: String, content_type: String, bytes: Vec<u8>) -> Result<u32, PublishError> {
        let (say, saying, slots) = self.prepare(&to, &content_type, bytes, types::Kind::Event).await?;
        let weight = saying.body.bytes.len();
        self.payer.says(weight);
        let once = None;
        Ok(self.commands.push(
            Command::Publish {
                say,
                saying,
                slots,
                once,
            },
            weight,
        ))
    }

    async fn publish_once(
        &mut self,
        id: String,
        to: String,
        content_type: String,
        bytes: Vec<u8>,
    ) -> Result<u32, PublishError> {
        if id.is_empty() || id.len() > ID_BYTES_MAX as usize {
            return Err(PublishError::InvalidId(ID_BYTES_MAX));
        }
        let (say, saying, slots) = self.prepare(&to, &content_type, bytes, types::Kind::Event).await?;
        self.check_store()?;
        let weight = saying.body.bytes.len();
        self.payer.says(weight);
        let once = Some(id.into());
        Ok(self.commands.push(
            Command::Publish {
                say,
                saying,
                slots,
                once,
            },
            weight,
        ))
    }

    async fn ask(
        &mut self,
        to: String,
        content_type: String,
        bytes: Vec<u8>,
        timeout_ms: Option<u32>,
    ) -> Result<u32, PublishError> {
        if self.actor.open_asks().count() + self.commands.asks() >= ASKS_PER_ACTOR_MAX {
            return Err(PublishError::TooMany(ASKS_PER_ACTOR_MAX));
        }
        let hold = self.hold_call()?;
        let (say, saying, slots) = self.prepare(&to, &content_type, bytes, types::Kind::Ask).await?;
        if slots.is_unheard() {
            return Err(PublishError::NoSubscriber);
        }
        let weight = saying.body.bytes.len();
        let kept = self.durable && self.actor.owner().is_some();
        if kept && weight > DURABLE_BODY_BYTES_MAX {
            return Err(PublishError::TooLarge(DURABLE_BODY_BYTES_MAX as u64));
        }
        self.payer.says(weight);
        Ok(self.commands.push(
            Command::Ask {
                say,
                saying,
                slots,
                timeout: self.ask_timeout(timeout_ms),
                kept,
                hold,
            },
            weight,
        ))
    }

    fn reply(&mut self, to: types::ReplyTo, content_type: String, bytes: Vec<u8>) -> Result<u32, ReplyError> {
        let weight = bytes.len();
        if weight > BODY_BYTES_MAX {
            return Err(ReplyError::TooLarge(BODY_BYTES_MAX as u64));
        }
        let content_type = ContentType::parse(&content_type).ok_or(ReplyError::InvalidContentType)?;
        self.settle(
            to,
            Outcome::Answer(Body {
                content_type,
                bytes: bytes.into(),
            }),
            weight,
        )
    }

    fn refuse(&mut self, to: types::ReplyTo, problem: types::Problem) -> Result<u32, ReplyError> {
        let problem = self.true_problem(wire_problem(problem));
        let weight = problem.message().len();
        self.settle(to, Outcome::Refusal(problem), weight)
    }

    async fn request(
        &mut self,
        to: String,
        content_type: String,
        bytes: Vec<u8>,
        timeout_ms: Option<u32>,
    ) -> Result<Answer, RequestError> {
        let prepare = |guest: &Self| -> Result<_, PublishError> {
            let saying = guest.saying(body(&content_type, bytes)?);
            Ok((guest.may_request(topic(&to)?)?, saying))
        };
        let (say, mut saying) = prepare(self).map_err(RequestError::Unsent)?;
        let paid = self.pay_for_saying(saying.body.bytes.len());
        let held = paid.and_then(|()| self.hold_call());
        let _hold = held.map_err(|e| RequestError::Unsent(e.into()))?;
        let guarded = self.guarded(say, &mut saying, types::Kind::Ask, Self::may_request);
        let say = guarded.await.map_err(RequestError::Unsent)?;
        self.payer.account.published(1, saying.body.bytes.len() as u64);
        self.at_once.add(Action::Publish);
        // A nested request never waits longer than whoever waits for this actor, nor than the actor may run.
        let wait = self
            .ask_timeout(timeout_ms)
            .min(self.meter.time_left())
            .min(self.time_left_of_caller());
        let host = Arc::clone(self.host());
        let began = host.deadlines.now();
        let outcome = host.bus.request(say, saying, wait).await;
        self.meter.waited(host.deadlines.now().saturating_duration_since(began));
        self.look_at_clocks();
        match outcome.map_err(|no| RequestError::Unsent(no.into()))? {
            Outcome::Answer(body) => Ok(Answer {
                content_type: body.content_type.as_str().to_owned(),
                body: body.bytes.to_vec(),
            }),
            Outcome::Refusal(problem) => Err(RequestError::Refused(guest_problem(&problem))),
            Outcome::Timeout => Err(RequestError::Timeout),
        }
    }

    async fn emit(&mut self, to: String, content_type: String, bytes: Vec<u8>) -> Result<(), PublishError> {
        let mut saying = self.saying(body(&content_type, bytes)?);
        let say = self.may_say(topic(&to)?)?;
        self.pay_for_saying(saying.body.bytes.len())?;
        let say = self
            .guarded(say, &mut saying, types::Kind::Event, Self::may_say)
            .await?;
        self.payer.account.published(1, saying.body.bytes.len() as u64);
        self.at_once.add(Action::Publish);
        self.host().bus.emit(say, saying);
        Ok(())
    }

    fn subscribe(&mut self, pattern: String) -> Result<(), SubscribeError> {
        let pattern: Pattern = pattern
            .parse()
            .map_err(|e: astrid_wire::topic::TopicError| SubscribeError::InvalidPattern(e.to_string()))?;
        let permit = self
            .host()
            .gate
            .hear(self.subject(), pattern)
            .map_err(|denied| SubscribeError::Denied(self.refused(denied).to_string()))?;
        let Some(connection) = self.actor.connection() else {
            return Err(SubscribeError::Denied(
                "only a connection subscribes while it runs".into(),
            ));
        };
        let route = self.actor.connection_route();
        connection
            .subscribe(permit, &self.host().bus, route, SUBSCRIPTIONS_MAX)
            .map_err(SubscribeError::TooMany)?;
        self.at_once.add(Action::Subscribe);
        Ok(())
    }

    fn unsubscribe(&mut self, pattern: String) -> bool {
        match (pattern.parse::<Pattern>(), self.actor.connection()) {
            (Ok(pattern), Some(connection)) => connection.unsubscribe(&pattern),
            _ => false,
        }
    }
}

/// A guest's problem as the wire has it, cut to its limits.
pub(crate) fn wire_problem(problem: types::Problem) -> Problem {
    let wire = Problem::new(&problem.code, problem.message);
    match problem.hint {
        Some(hint) => wire.with_hint(hint),
        None => wire,
    }
}

pub(crate) fn guest_problem(problem: &Problem) -> types::Problem {
    types::Problem {
        code: problem.code().to_owned(),
        message: problem.message().to_owned(),
        hint: problem.hint().map(str::to_owned),
    }
}
