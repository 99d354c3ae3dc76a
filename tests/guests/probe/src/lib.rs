//! A capsule that misbehaves on request. The kernel's tests drive it; it is of no other use.
use std::time::Duration;

use astrid_sdk::prelude::*;

/// Counts what this instance handled, which shows when an instance is new.
#[derive(Default)]
struct Probe {
    handled: u32,
    memory: Vec<Vec<u8>>,
    parked: Vec<ReplyTo>,
}

/// How an actor is.
#[body]
struct State {
    /// Messages that this instance handled.
    handled: u32,
    /// The principal of the message.
    principal: String,
}

/// A number of something.
#[body]
struct Count {
    n: u32,
}

/// What a nested question brought.
#[body]
struct Said {
    text: String,
}

#[capsule]
impl Probe {
    /// Says how this instance is.
    #[on("probe.v1.do.state")]
    fn state(&mut self, ctx: &mut Context, _body: Body) -> State {
        self.handled += 1;
        State {
            handled: self.handled,
            principal: ctx.principal().to_owned(),
        }
    }

    /// Sends back what it got.
    #[on("probe.v1.do.echo")]
    fn echo(&mut self, body: Body) -> Body {
        body
    }

    /// Panics, after it recorded an effect that must not happen.
    #[on("probe.v1.do.panic")]
    fn panic(&mut self, ctx: &mut Context, _body: Body) -> Result<()> {
        self.say(ctx, "before the panic");
        panic!("on request");
    }

    /// Runs until it is stopped.
    #[on("probe.v1.do.spin")]
    fn spin(&mut self, ctx: &mut Context, _body: Body) -> u64 {
        self.say(ctx, "before the loop");
        let mut n: u64 = 0;
        loop {
            n = std::hint::black_box(n.wrapping_add(1));
            if n == 0 {
                return n;
            }
        }
    }

    /// Takes memory until there is none.
    #[on("probe.v1.do.hog")]
    fn hog(&mut self, _body: Body) -> u32 {
        loop {
            self.memory.push(vec![1; 1 << 20]);
        }
    }

    /// Gives up, after it recorded an effect that must not happen.
    #[on("probe.v1.do.refuse")]
    fn refuse(&mut self, ctx: &mut Context, _body: Body) -> Result<()> {
        self.say(ctx, "before giving up");
        Err(Rollback::Refuse(Problem::new("probe.refused", "on request")).into())
    }

    /// Logs that, as what happened and as a value.
    #[on("probe.v1.do.log")]
    fn log(&mut self, body: Said) -> Said {
        error!(body.text.as_str(), value = body.text);
        body
    }

    /// Says this many things, one by one.
    #[on("probe.v1.do.say")]
    fn say_many(&mut self, ctx: &mut Context, body: Count) -> Result<Count> {
        for n in 0..body.n {
            ctx.publish("probe.v1.event.said", Count { n })?;
        }
        Ok(body)
    }

    /// Says something that its manifest does not declare; answers with the refusal.
    #[on("probe.v1.do.trespass")]
    fn trespass(&mut self, ctx: &mut Context, _body: Body) -> Said {
        let text = [
            "other.v1.topic",
            "port.v1.stream.data",
            "astrid.v1.request.shutdown",
            "NOT A TOPIC",
        ]
        .map(|topic| {
            ctx.publish(topic, Count { n: 1 })
                .map_or_else(|e| e.to_string(), |_| "allowed".to_owned())
        });
        Said { text: text.join("\n") }
    }

    /// Asks `hello` and waits in place.
    #[on("probe.v1.do.request")]
    fn request(&mut self, ctx: &mut Context, _body: Body) -> Result<Said> {
        let greeting: Value = ctx
            .request("hello.v1.greet", json!({"name": "probe"}))
            .timeout(Duration::from_secs(1))
            .send()?;
        Ok(Said {
            text: greeting["text"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// Keeps the question, and answers it when the timer that it sets fires.
    #[on("probe.v1.do.later")]
    fn later(&mut self, ctx: &mut Context, body: Count) -> Result<()> {
        self.parked.extend(ctx.reply_to());
        ctx.timer(Duration::from_millis(body.n.into())).tag("later").set()?;
        Ok(())
    }

    /// Answers what was kept.
    #[timer("later")]
    fn now(&mut self, ctx: &mut Context) -> Result<()> {
        for to in self.parked.drain(..) {
            ctx.reply(
                to,
                Said {
                    text: "later".to_owned(),
                },
            )?;
        }
        Ok(())
    }

    /// Fails at the first two attempts.
    #[on("probe.v1.stubborn.try")]
    fn stubborn(&mut self, ctx: &mut Context, _body: Body) -> Result<Count> {
        if ctx.attempt() < 3 {
            return Err(Rollback::retry("not yet").into());
        }
        Ok(Count { n: ctx.attempt() })
    }

    /// Panics at every attempt.
    #[on("probe.v1.stubborn.panic")]
    fn stubborn_panic(&mut self, _body: Body) -> u32 {
        panic!("at every attempt");
    }

    /// Finishes before the daemon stops.
    #[on("astrid.v1.shutdown")]
    fn finish(&mut self, ctx: &mut Context) -> Result<()> {
        info!("finished", handled = self.handled);
        ctx.publish("astrid.v1.shutdown.done", Count { n: self.handled })?;
        Ok(())
    }

    /// Says that it was restarted.
    #[on("lifecycle.v1.restarted")]
    fn restarted(&mut self, ctx: &mut Context) -> Result<()> {
        ctx.publish("probe.v1.event.restarted", Count { n: 0 })?;
        Ok(())
    }
}

impl Probe {
    fn say(&self, ctx: &mut Context, what: &str) {
        if let Err(error) = ctx.publish("probe.v1.event.said", Body::text(what)) {
            error!("cannot say", error = error);
        }
    }
}
