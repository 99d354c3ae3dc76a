//! Between an actor and `handle`: a message as its guest sees it, and what a trap was.

use std::time::Instant;

use astrid_wire::Principal;
use wasmtime::Trap;

use super::actor::Handled;
use super::guest::Stop;
use super::health::Fault;
use super::host::bindings::astrid::kernel::types;
use crate::bus::inbox::Delivery;
use crate::bus::message::{Kind, Source};

/// Names what a trap was.
pub(super) fn classify(error: &wasmtime::Error, memory_refused: bool) -> Handled {
    let fault = match (error.downcast_ref::<Stop>(), error.downcast_ref::<Trap>()) {
        (Some(Stop::Deadline), _) => return Handled::Abandoned,
        (Some(Stop::Time), _) => Fault::Time,
        (_, Some(Trap::OutOfFuel)) => Fault::Fuel,
        _ if memory_refused => Fault::Memory,
        _ => Fault::Trap,
    };
    // The innermost cause is the trap; what is around it is a native stack, for developers.
    Handled::Faulted(fault, error.root_cause().to_string())
}

pub(super) fn guest_message<'a>(delivery: &'a Delivery, principal: &'a Principal, now: Instant) -> types::Message<'a> {
    let message = &*delivery.message;
    let id = |id: crate::bus::message::MessageId| types::MessageId {
        boot: id.boot,
        sequence: id.sequence,
    };
    let command = |c: crate::bus::message::CommandId| types::CommandId {
        cause: id(c.cause),
        ordinal: c.ordinal,
    };
    let (kind, reply_to, answers) = match message.kind {
        Kind::Event => (types::Kind::Event, None, None),
        Kind::Ask(to) => (
            types::Kind::Ask,
            Some(types::ReplyTo {
                high: to.high,
                low: to.low,
            }),
            None,
        ),
        Kind::Answer(c) => (types::Kind::Answer, None, Some(command(c))),
        Kind::Refusal(c) => (types::Kind::Refusal, None, Some(command(c))),
        Kind::Timeout(c) => (types::Kind::Timeout, None, Some(command(c))),
    };
    let left = |d: Instant| u32::try_from(d.saturating_duration_since(now).as_millis()).unwrap_or(u32::MAX);
    types::Message {
        id: id(message.id),
        kind,
        topic: message.topic.as_str(),
        principal: principal.as_str(),
        source: match &message.source {
            Source::Kernel => types::Source::Kernel,
            Source::Capsule(name) => types::Source::Capsule(name),
            Source::Port(port) => types::Source::Port(*port),
        },
        content_type: message.body.content_type.as_str(),
        body: &message.body.bytes,
        reply_to,
        answers,
        time_left_ms: message.deadline.map(left),
        attempt: delivery.attempt,
        lost: delivery.lost,
        durable: delivery.kept.is_some(),
    }
}
