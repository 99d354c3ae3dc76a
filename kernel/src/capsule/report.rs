//! What the kernel says when an actor fails: to who asked, to who watches, and to the log.

use std::sync::Arc;

use astrid_wire::child::HeldPort;
use astrid_wire::problem::codes;
use astrid_wire::{Problem, Topic, control};
use serde::Serialize;

use super::Host;
use super::actor::Actor;
use super::health::{Fault, Next};
use crate::bus::asks::Outcome;
use crate::bus::inbox::Delivery;
use crate::bus::message::{Body, Kind, Message, Source};
use crate::bus::{Bus, Saying};

/// Bytes of a dead message's body that its obituary carries.
const DEAD_BODY_BYTES_MAX: usize = 16 << 10;

/// The code that who asked is told.
pub(crate) fn problem_code(fault: Fault) -> &'static str {
    match fault {
        Fault::Trap => codes::FAULT_TRAP,
        Fault::Fuel => codes::FAULT_FUEL,
        Fault::Memory => codes::FAULT_MEMORY,
        Fault::Time => codes::FAULT_TIME,
        Fault::Start => codes::UNAVAILABLE,
    }
}

/// Tells who asked, if anybody did, that there will be no answer.
pub(crate) fn refuse(bus: &Bus, message: &Message, problem: Problem) {
    if let Kind::Ask(address) = message.kind {
        bus.asks().settle(address, Outcome::Refusal(problem), Source::Kernel);
    }
}

/// A message that is not tried again: who asked is told, and it is laid out on `dead.v1.<capsule>`, once the commit of the number `after`
/// is sealed, if that says so.
pub(crate) fn give_up(host: &Host, actor: &Actor, delivery: &Delivery, code: &str, reason: &str, after: Option<u64>) {
    #[derive(Serialize)]
    struct Dead<'a> {
        capsule: &'a str,
        message_id: String,
        topic: &'a str,
        principal: &'a str,
        attempts: u32,
        code: &'a str,
        reason: &'a str,
        content_type: &'a str,
        body_bytes: usize,
        /// The beginning of the body, as text where it is text.
        body: String,
    }
    let message = &delivery.message;
    let name = actor.capsule_name();
    let text = match code {
        codes::FAULT_FUEL => format!("{name} used up its fuel on this message"),
        codes::FAULT_MEMORY => format!("{name} needed more memory than it may have for this message"),
        codes::FAULT_TIME => format!("{name} took longer than it may for this message"),
        codes::FAULT_TRAP => format!("{name} crashed on this message: {reason}"),
        _ => format!("{name} failed: {reason}"),
    };
    refuse(&host.bus, message, Problem::new(code, text));
    let bytes = &message.body.bytes;
    let dead = Dead {
        capsule: name,
        message_id: message.id.to_string(),
        topic: message.topic.as_str(),
        principal: message.principal.as_str(),
        attempts: delivery.attempt,
        code,
        reason,
        content_type: message.body.content_type.as_str(),
        body_bytes: bytes.len(),
        body: String::from_utf8_lossy(&bytes[..bytes.len().min(DEAD_BODY_BYTES_MAX)]).into_owned(),
    };
    host.metrics.capsule_dead.increment();
    tracing::warn!(capsule = %name, message_id = %message.id, topic = %message.topic, code, "a message is given up");
    match format!("{}{name}", control::DEAD_PREFIX).parse() {
        Ok(topic) => {
            // It is its principal's message, so only that principal and operators hear of it.
            let saying = Saying {
                principal: message.principal.clone(),
                source: Source::Kernel,
                body: Body::json(&dead),
                public: false,
            };
            let say = host.gate.kernel_says(topic);
            let slots = host.bus.reserve_some(&say, &saying);
            let message = host.bus.compose(say, saying, Kind::Event, None);
            match after {
                None => host.bus.deliver(message, slots),
                Some(number) => host
                    .durable
                    .outbox
                    .push_said(number, host.store.sealed(), &host.bus, message, slots),
            }
        }
        Err(error) => tracing::error!(%error, capsule = %name, "no topic for dead messages of this name"),
    }
}

/// A generation ended in a fault (K6).
pub(crate) fn fault(host: &Host, actor: &Actor, message: &Message, fault: Fault, reason: &str, next: Option<Next>) {
    let restart_in_ms = match next {
        Some(Next::Restart(wait)) => Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        _ => None,
    };
    host.metrics.capsule_faults(fault.name()).increment();
    tracing::warn!(
        capsule = %actor.capsule_name(),
        generation = actor.generation(),
        message_id = %message.id,
        principal = %message.principal,
        topic = %message.topic,
        fault = fault.name(),
        reason,
        restart_in_ms,
        down = next == Some(Next::Down),
        "an actor failed"
    );
    let failed = control::HealthFailed {
        capsule: actor.capsule_name().to_string(),
        actor: actor.own_principal().to_string(),
        generation: actor.generation().into(),
        cause: fault.name().to_owned(),
        message_id: message.id.to_string(),
        restart_in_ms,
        down: next == Some(Next::Down),
    };
    host.bus.emit(
        host.gate.kernel_says(host.topics.health_failed.clone()),
        Saying::announcement(Body::json(&failed)),
    );
    host.changed.notify_one();
}

/// What an actor hears about its own life.
pub(crate) fn lifecycle(host: &Host, actor: &Actor, topic: &Topic) -> Arc<Message> {
    #[derive(Serialize)]
    struct Lifecycle<'a> {
        capsule: &'a str,
        /// Of the instance that will handle this.
        generation: u32,
        /// What it holds already.
        ports: Vec<HeldPort>,
    }
    let body = Body::json(&Lifecycle {
        capsule: actor.capsule_name(),
        generation: actor.generation() + 1,
        ports: actor.children().ports(),
    });
    Arc::new(Message {
        id: host.bus.ids().message(),
        kind: Kind::Event,
        topic: topic.clone(),
        principal: actor.own_principal(),
        source: Source::Kernel,
        body,
        deadline: None,
        public: false,
    })
}
