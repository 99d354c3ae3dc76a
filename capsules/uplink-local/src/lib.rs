//! The uplink of local clients: turns what comes through the daemon's two sockets into messages on the bus, and back.
//!
//! - [`session`]: the protocol of one connection, as plain code;
//! - [`uploads`], [`subscriptions`]: what a client holds, bounded;
//! - this file: the capsule, which puts a session and the kernel's functions together.
//!
//! One actor serves one connection, so its state is that conversation. A handler here never gives up: a roll-back would drop
//! the conversation, and what goes wrong is the client's to hear.

use astrid_sdk::error::{ConnectionError, SendError};
use astrid_sdk::prelude::*;
use astrid_sdk::{MessageId, Socket};
use astrid_wire::envelope;

use crate::session::{AskId, Event, Full, Kernel, Said, Session};

pub mod session;
pub mod subscriptions;
pub mod uploads;

/// The capsule: one conversation, from the first message on.
#[derive(Debug, Default)]
pub struct Uplink {
    conversation: Option<(PortId, Session)>,
}

#[capsule]
impl Uplink {
    #[on("port.v1.stream.opened")]
    fn opened(&mut self, ctx: &mut Context) {
        match ctx.peer() {
            Ok(peer) => {
                let socket = match peer.socket {
                    Socket::Operator => envelope::Socket::Operator,
                    Socket::Session => envelope::Socket::Session,
                };
                self.conversation = Some((peer.stream, Session::new(socket)));
            }
            Err(problem) => error!("no connection to serve", problem = problem),
        }
    }

    #[on("port.v1.stream.data")]
    fn data(&mut self, ctx: &mut Context, body: Body) {
        self.with(ctx, |session, kernel| session.data(kernel, &body.bytes));
    }

    #[on("port.v1.stream.closed")]
    fn closed(&mut self, ctx: &mut Context) {
        self.with(ctx, |session, kernel| session.ended(kernel));
    }

    /// Every message that the client subscribed to.
    #[on(">")]
    fn event(&mut self, ctx: &mut Context, body: Body) {
        let event = Event {
            id: name(ctx.id()),
            topic: ctx.topic().to_owned(),
            principal: ctx.principal().to_owned(),
            content_type: body.content_type.into_owned(),
            body: body.bytes.into(),
            lost: ctx.lost(),
        };
        self.with(ctx, |session, kernel| session.event(kernel, event));
    }

    #[answer(">")]
    fn answered(&mut self, ctx: &mut Context, answer: Answer<Body>) {
        let outcome = match answer.outcome {
            Outcome::Ok(Body { content_type, bytes }) => session::Outcome::Answer {
                content_type: content_type.into_owned(),
                body: bytes.into(),
            },
            Outcome::Refused(problem) => session::Outcome::Refused(problem),
            Outcome::TimedOut => session::Outcome::TimedOut,
        };
        self.with(ctx, |session, kernel| {
            session.outcome(kernel, ask_id(answer.id), outcome)
        });
    }
}

impl Uplink {
    fn with(&mut self, ctx: &mut Context, tell: impl FnOnce(&mut Session, &mut Host<'_>)) {
        if let Some((stream, session)) = &mut self.conversation {
            tell(session, &mut Host { ctx, stream: *stream });
        }
    }
}

/// A message's identity as text, as the daemon writes it everywhere.
fn name(MessageId { boot, sequence }: MessageId) -> String {
    format!("{boot:016x}-{sequence:x}")
}

fn ask_id(
    CommandId {
        cause: MessageId { boot, sequence },
        ordinal,
    }: CommandId,
) -> AskId {
    AskId {
        boot,
        sequence,
        ordinal,
    }
}

fn body(said: Said<'_>) -> Body {
    Body::new(said.content_type.to_owned(), said.body)
}

/// What a client did wrong is not a failure of this capsule.
fn problem(error: SendError) -> Problem {
    match error {
        SendError::InvalidTopic(_) | SendError::InvalidContentType => Problem::new(codes::INVALID, error.to_string()),
        other => other.into(),
    }
}

/// The kernel as a session has it.
struct Host<'a> {
    ctx: &'a mut Context,
    stream: PortId,
}

impl Kernel for Host<'_> {
    fn challenge(&mut self, claim: &str) -> Option<Vec<u8>> {
        self.ctx.challenge(claim).ok()
    }

    fn authenticate(&mut self, credential: &[u8]) -> Result<String, Option<Problem>> {
        self.ctx.authenticate(credential).map_err(|error| match error {
            ConnectionError::NoPlace(problem) => Some(problem),
            _ => None,
        })
    }

    fn publish(&mut self, said: Said<'_>) -> Result<(), Problem> {
        self.ctx.publish(said.topic, body(said)).map(|_| ()).map_err(problem)
    }

    fn publish_once(&mut self, id: &str, said: Said<'_>) -> Result<(), Problem> {
        let published = self.ctx.publish_once(id, said.topic, body(said));
        published.map(|_| ()).map_err(problem)
    }

    fn ask(&mut self, said: Said<'_>, timeout_ms: Option<u32>) -> Result<AskId, Problem> {
        let ask = self.ctx.ask(said.topic, body(said));
        let ask = match timeout_ms {
            Some(ms) => ask.timeout(std::time::Duration::from_millis(ms.into())),
            None => ask,
        };
        ask.send().map(ask_id).map_err(problem)
    }

    fn subscribe(&mut self, pattern: &str) -> Result<(), Problem> {
        Ok(self.ctx.subscribe(pattern)?)
    }

    fn unsubscribe(&mut self, pattern: &str) {
        self.ctx.unsubscribe(pattern);
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Full> {
        // Whatever the reason, these bytes will not reach the client.
        self.ctx.write(self.stream, bytes).map(|_| ()).map_err(|_| Full)
    }

    fn close(&mut self) {
        if let Err(problem) = self.ctx.close(self.stream) {
            debug!("closed already", problem = problem);
        }
    }
}

#[cfg(test)]
mod tests;
