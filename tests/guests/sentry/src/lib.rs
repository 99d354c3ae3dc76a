//! A guard that does what the guarded message says, and a speaker that says what it is told. The kernel's tests drive both: two bundles of
//! this one, under two names.
use std::hint::black_box;

use astrid_sdk::bindings::astrid::kernel::bus;
use astrid_sdk::error::SendError;
use astrid_sdk::prelude::*;

#[derive(Default)]
struct Sentry;

/// What is guarded: the form that `hello` takes.
#[body]
struct Greet {
    name: String,
}

/// Something to say.
#[body]
struct Say {
    /// By which host function.
    how: String,
    topic: String,
    name: String,
}

/// A mark that the guard puts on what it replaces.
#[body]
struct Mark {
    mark: String,
}

/// What came of it.
#[body]
struct Said {
    text: String,
}

#[capsule]
impl Sentry {
    /// Keeps the mark in the table, where the guard finds it.
    #[on("sentry.v1.do.mark")]
    fn mark(&mut self, ctx: &mut Context, body: Mark) -> Result<Mark> {
        ctx.kv().put("mark", &body.mark)?;
        Ok(body)
    }

    /// Panics.
    #[on("sentry.v1.do.crash")]
    fn crash(&mut self, _body: Body) -> u32 {
        panic!("on request");
    }

    /// Says something, and gives it up when that is refused.
    #[on("sentry.v1.do.say")]
    fn say(&mut self, ctx: &mut Context, body: Say) -> Result<Said> {
        let greet = Greet { name: body.name };
        let text = match body.how.as_str() {
            "publish" => ctx.publish(&body.topic, greet).map(|_| String::new())?,
            "publish-once" => ctx.publish_once("once", &body.topic, greet).map(|_| String::new())?,
            "ask" => ctx.ask(&body.topic, greet).send().map(|_| String::new())?,
            "emit" => ctx.emit(&body.topic, greet).map(|()| String::new())?,
            _ => {
                let answer: Value = ctx.request(&body.topic, greet).send()?;
                answer["text"].as_str().unwrap_or_default().to_owned()
            }
        };
        Ok(Said { text })
    }

    /// Says something, and goes on when that is refused: what was refused is not said, and the rest is.
    #[on("sentry.v1.do.try")]
    fn try_to_say(&mut self, ctx: &mut Context, body: Say) -> Result<Said> {
        let refused = match ctx.publish(&body.topic, Greet { name: body.name }) {
            Err(SendError::Refused(problem)) => problem.code().to_owned(),
            other => other.map(|_| String::new())?,
        };
        ctx.publish("sentry.v1.event.after", Greet { name: "after".into() })?;
        Ok(Said { text: refused })
    }

    /// Does what the message says.
    #[guard]
    fn guard(message: &Guarded) -> Result<Verdict> {
        let Greet { name } = message.read()?;
        match name.split(' ').next().unwrap_or_default() {
            "deny" => return Ok(Verdict::deny(format!("{name} of {}", message.principal()))),
            "mark" => {
                let mark: String = message.get("mark")?.unwrap_or_default();
                let name = format!("{name}+{mark}");
                return Ok(Verdict::replace(&Greet { name })?);
            }
            "trap" => panic!("on request"),
            "spin" => loop {
                black_box(());
            },
            // Costs time and hardly any fuel, where the mark is long.
            "slow" => loop {
                black_box(message.kv().get_bytes("mark")?);
            },
            "hog" => drop(black_box(Vec::<u8>::with_capacity(512 << 20))),
            "write" => message.kv().put("mark", "written by a guard")?,
            "publish" => drop(bus::publish("sentry.v1.event.said", "text/plain", b"by a guard")),
            "emit" => drop(bus::emit("sentry.v1.event.said", "text/plain", b"by a guard")),
            "request" => drop(bus::request("hello.v1.greet", "application/json", b"{}", None)),
            _ => {}
        }
        Ok(Verdict::Allow)
    }
}

#[cfg(test)]
mod tests;
