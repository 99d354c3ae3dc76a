//! From a message to a handler and back: the part that `#[capsule]` does not write out.
//!
//! The macro writes the choice of handler and the calls, which need the types; what is the same for every capsule is here, so
//! that it exists once in a guest.

use astrid_wire::Problem;
pub use astrid_wire::topic::matches;

use crate::answer::{Answer, Outcome, UNHANDLED, UNREADABLE};
use crate::bindings::astrid::kernel::log::Level;
use crate::bindings::astrid::kernel::types::{CommandId, Kind};
use crate::body::{Body, FromBody, IntoBody};
use crate::context::Context;
use crate::error::{Failure, ReplyError, Rollback};
use crate::{Description, log, sys};

/// A capsule: its state and its handlers. Implemented by `#[capsule]`.
#[diagnostic::on_unimplemented(message = "`{Self}` is not a capsule", note = "put `#[capsule]` on its impl block")]
pub trait Capsule: Default + 'static {
    /// Handles one message.
    ///
    /// # Errors
    /// The handler gave up; nothing it recorded happens.
    fn handle(&mut self, ctx: &mut Context, body: Body) -> Result<(), Rollback>;

    /// What it hears and says.
    fn describe() -> Description;
}

/// What a handler came to: the body of the answer, if it gives one now.
pub type Handled = Result<Option<Body>, Failure>;

/// The handler's parameter.
///
/// # Errors
/// The body does not fit.
pub fn decode<T: FromBody>(body: Body) -> Result<T, Failure> {
    T::from_body(body).map_err(Failure::Refuse)
}

/// What the handler returned.
///
/// # Errors
/// It has no JSON form.
pub fn encode(value: impl IntoBody) -> Handled {
    match value.into_body() {
        Ok(body) => Ok(Some(body)),
        Err(error) => Err(Failure::Refuse(error.into())),
    }
}

/// The parameter of a handler of answers.
pub fn answer<T: FromBody>(ctx: &Context, body: Body) -> Answer<T> {
    // The kernel says which ask on every outcome.
    let id = ctx.answers().unwrap_or(CommandId {
        cause: ctx.id(),
        ordinal: 0,
    });
    let outcome = match ctx.kind() {
        Kind::Timeout => Outcome::TimedOut,
        Kind::Refusal => Outcome::Refused(refusal(&body)),
        Kind::Answer | Kind::Event | Kind::Ask => match T::from_body(body) {
            Ok(value) => Outcome::Ok(value),
            Err(problem) => Outcome::Refused(Problem::new(UNREADABLE, problem.message())),
        },
    };
    Answer { id, outcome }
}

fn refusal(body: &Body) -> Problem {
    Problem::from_json(&body.bytes)
        .unwrap_or_else(|error| Problem::new(UNREADABLE, format!("refused without a problem document: {error}")))
}

/// Turns what a handler came to into commands.
///
/// # Errors
/// The handler gave up, or its answer could not even be refused.
pub fn settle(ctx: &mut Context, handled: Handled) -> Result<(), Rollback> {
    match handled {
        Ok(None) => Ok(()),
        Ok(Some(body)) => match ctx.reply_to() {
            None => Ok(()),
            Some(to) => match sys::bus::reply(to, &body.content_type, &body.bytes) {
                Ok(_) => Ok(()),
                Err(error) => refuse(ctx, ReplyError::from(error).into()),
            },
        },
        Err(Failure::Refuse(problem)) => refuse(ctx, problem),
        Err(Failure::Rollback(rollback)) => Err(rollback),
    }
}

fn refuse(ctx: &Context, problem: Problem) -> Result<(), Rollback> {
    let Some(to) = ctx.reply_to() else {
        if ctx.is_durable() {
            // Somebody was told that it is kept: it is laid aside with this reason.
            return Err(Rollback::Refuse(problem));
        }
        log::line(
            Level::Warn,
            "a message failed, and nobody waits for an answer",
            vec![
                ("topic".to_owned(), ctx.topic().to_owned()),
                ("code".to_owned(), problem.code().to_owned()),
                ("problem".to_owned(), problem.message().to_owned()),
            ],
        );
        return Ok(());
    };
    match sys::bus::refuse(to, &(&problem).into()).map_err(ReplyError::from) {
        // Who asked has gone, or the handler answered before it failed: nothing is left to say.
        Ok(_) | Err(ReplyError::NotWaiting) => Ok(()),
        Err(_) => Err(Rollback::Refuse(problem)),
    }
}

/// No handler takes this message.
///
/// # Errors
/// As [`settle`].
pub fn unhandled(ctx: &mut Context) -> Result<(), Rollback> {
    if ctx.kind() == Kind::Ask {
        let problem = Problem::new(UNHANDLED, format!("nothing here handles {}", ctx.topic()));
        return refuse(ctx, problem);
    }
    // Of these a capsule hears without asking for them, and most do not care.
    let expected = ctx.topic().starts_with("lifecycle.")
        || matches!(ctx.topic(), "port.v1.stream.opened" | "port.v1.stream.closed");
    log::line(
        if expected { Level::Debug } else { Level::Warn },
        "no handler takes this message",
        vec![("topic".to_owned(), ctx.topic().to_owned())],
    );
    Ok(())
}
