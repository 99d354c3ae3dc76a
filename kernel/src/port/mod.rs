//! The world's edges: what the kernel holds for an actor, and tells it about by messages.
//!
//! - [`stream`] for bytes to and from a peer, under credit;
//! - [`listener`] for sockets that accept streams;
//! - [`timer`] for instants, [`watch`] for changes of files;
//! - [`child`] for programs outside of the daemon, and [`sink`] for what those write.
//!
//! A port knows its owner only as an inbox. Every event carries a [`Credit`](crate::bus::inbox::Credit): the port delivers the next one when
//! that was consumed by a commit, so an owner that does not handle is backpressure that reaches the socket.

pub mod child;
pub mod listener;
pub mod sink;
pub mod stream;
pub mod timer;
pub mod watch;

use std::sync::Arc;

use astrid_wire::{Principal, Topic};

use crate::bus::inbox::{Credit, Inbox};
use crate::bus::message::{Body, Ids, Kind, Message, PortId, Source};

/// Tells the owner of a port what happened. False when the owner has ended.
pub(crate) fn tell(
    inbox: &Inbox,
    ids: &Ids,
    port: PortId,
    topic: &Topic,
    principal: Principal,
    body: Body,
    credit: Option<Box<dyn Credit>>,
) -> bool {
    let message = Message {
        id: ids.message(),
        kind: Kind::Event,
        topic: topic.clone(),
        principal,
        source: Source::Port(port),
        body,
        deadline: None,
        public: false,
    };
    inbox.push(Arc::new(message), credit)
}
