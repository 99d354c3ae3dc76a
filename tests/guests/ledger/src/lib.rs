//! A capsule that reads and writes its table on request: the kernel's tests drive it, and it is of no other use. Its instances share one
//! table, so that they can be in each other's way.

use std::time::Duration;

use astrid_sdk::error::KvError;
use astrid_sdk::kv::Kv;
use astrid_sdk::prelude::*;

/// What an instance keeps for itself, which shows when it is new.
#[derive(Default)]
struct Ledger {
    handled: u32,
}

/// An amount for a sum.
#[body]
struct Add {
    key: String,
    amount: u64,
    /// Steps to idle between reading and writing, in which another instance can be quicker.
    #[serde(default)]
    idle: u64,
}

/// A sum, and who made it.
#[body]
struct Added {
    sum: u64,
    /// Which attempt it was.
    attempt: u32,
    /// Messages that this instance has handled, this one included.
    handled: u32,
}

/// The name of a sum.
#[body]
struct Named {
    key: String,
}

/// Operations on the table, done in order in one handling.
#[body]
struct Script {
    ops: Vec<Op>,
    /// How the handling ends.
    #[serde(default)]
    then: Then,
}

/// How a handling ends.
#[body]
#[derive(Default)]
#[serde(rename_all = "snake_case")]
enum Then {
    /// It answers with what the operations came to.
    #[default]
    Answer,
    /// It panics.
    Trap,
    /// It gives up, and wants to try again.
    Retry,
    /// It gives up for good.
    Refuse,
}

/// An operation on the table. Keys and values are text.
#[body]
#[serde(tag = "op", rename_all = "snake_case")]
enum Op {
    Get {
        key: String,
    },
    Put {
        key: String,
        value: String,
    },
    Delete {
        key: String,
    },
    Cas {
        key: String,
        expected: Option<String>,
        value: Option<String>,
    },
    Scan {
        #[serde(default)]
        start: String,
        end: Option<String>,
        #[serde(default = "all")]
        limit: u32,
        #[serde(default)]
        backwards: bool,
    },
    /// Puts this many values of this many bytes at `PREFIX00000000` and so on; answers with how many were taken.
    Fill {
        prefix: String,
        count: u32,
        bytes: usize,
    },
}

fn all() -> u32 {
    u32::MAX
}

/// A timer.
#[body]
struct SetTimer {
    after_ms: u64,
    every_ms: Option<u64>,
    tag: String,
    #[serde(default)]
    durable: bool,
}

/// Something to say, once for each id.
#[body]
struct Once {
    id: String,
    text: String,
}

#[capsule]
impl Ledger {
    /// Adds to a sum that all instances share.
    #[on("ledger.v1.add", "ledger.v1.lasting")]
    fn add(&mut self, ctx: &mut Context, add: Add) -> Result<Added, Rollback> {
        let key = format!("sum/{}", add.key);
        let sum = ctx.kv().get(&key)?.unwrap_or(0_u64);
        for n in 0..add.idle {
            std::hint::black_box(n);
        }
        let sum = sum.wrapping_add(add.amount);
        ctx.kv().put(&key, &sum)?;
        self.handled += 1;
        Ok(Added {
            sum,
            attempt: ctx.attempt(),
            handled: self.handled,
        })
    }

    /// A sum.
    #[on("ledger.v1.sum")]
    fn sum(&mut self, ctx: &mut Context, Named { key }: Named) -> Result<u64> {
        Ok(ctx.kv().get(format!("sum/{key}"))?.unwrap_or_default())
    }

    /// Does operations; answers with what each came to, `{"error": CODE}` among that.
    #[on("ledger.v1.kv")]
    fn kv(&mut self, ctx: &mut Context, script: Script) -> Result<Vec<Value>> {
        self.handled += 1;
        let mut kv = ctx.kv();
        let results = script.ops.into_iter().map(|op| run(&mut kv, op).unwrap_or_else(error));
        let results = results.collect();
        match script.then {
            Then::Answer => Ok(results),
            Then::Trap => panic!("on request"),
            Then::Retry => Err(Rollback::retry("on request").into()),
            Then::Refuse => Err(Rollback::Refuse(Problem::new("ledger.refused", "on request")).into()),
        }
    }

    /// Sets a timer; answers with its port.
    #[on("ledger.v1.timer")]
    fn set(&mut self, ctx: &mut Context, set: SetTimer) -> Result<u64> {
        let mut timer = ctx.timer(Duration::from_millis(set.after_ms)).tag(&set.tag);
        if let Some(period) = set.every_ms {
            timer = timer.every(Duration::from_millis(period));
        }
        if set.durable {
            timer = timer.durable();
        }
        Ok(timer.set()?)
    }

    /// The timers that are set.
    #[on("ledger.v1.timers")]
    fn timers(&self, ctx: &Context) -> Vec<Value> {
        let armed = ctx.timers().into_iter();
        armed
            .map(|armed| json!({ "timer": armed.timer, "tag": armed.tag, "durable": armed.durable }))
            .collect()
    }

    /// Ends the timers with this tag; answers with how many.
    #[on("ledger.v1.cancel")]
    fn cancel(&mut self, ctx: &mut Context, tag: String) -> usize {
        let mut armed = ctx.timers();
        armed.retain(|armed| armed.tag == tag && ctx.cancel(armed.timer));
        armed.len()
    }

    /// Counts a firing, and says so.
    #[timer]
    fn fired(&mut self, ctx: &mut Context, tag: String) -> Result<(), Rollback> {
        let key = format!("fired/{tag}");
        let fired = ctx.kv().get(&key)?.unwrap_or(0_u64) + 1;
        ctx.kv().put(&key, &fired)?;
        ctx.publish("ledger.v1.event.fired", json!({ "tag": tag, "fired": fired }))?;
        Ok(())
    }

    /// Pins this actor, or undoes that.
    #[on("ledger.v1.pin")]
    fn pin(&mut self, ctx: &mut Context, pin: bool) -> Result<bool> {
        if pin {
            ctx.pin()?
        } else {
            ctx.unpin()?
        };
        Ok(pin)
    }

    /// Says something, once for each id.
    #[on("ledger.v1.once")]
    fn once(&mut self, ctx: &mut Context, Once { id, text }: Once) -> Result<bool> {
        ctx.publish_once(&id, "ledger.v1.event.said", Body::text(text))?;
        Ok(true)
    }

    /// Messages that this instance has handled.
    #[on("ledger.v1.state")]
    fn state(&mut self) -> u32 {
        self.handled
    }
}

fn run(kv: &mut Kv<'_>, op: Op) -> Result<Value, KvError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match op {
        Op::Get { key } => json!({ "value": kv.get_bytes(key)?.as_deref().map(text) }),
        Op::Put { key, value } => json!({ "done": kv.put_bytes(key, value)? }),
        Op::Delete { key } => json!({ "done": kv.delete(key)? }),
        Op::Cas { key, expected, value } => {
            let bytes = |text: &'_ Option<String>| text.clone().map(String::into_bytes);
            let swapped = kv.compare_and_swap(key, bytes(&expected).as_deref(), bytes(&value).as_deref())?;
            json!({ "swapped": swapped })
        }
        Op::Scan {
            start,
            end,
            limit,
            backwards,
        } => {
            let page = kv.page(start, end.as_deref().map(str::as_bytes), limit, backwards)?;
            let entries = page.entries.iter().map(|entry| (text(&entry.key), text(&entry.value)));
            json!({ "entries": entries.collect::<Vec<_>>(), "next": page.next.as_deref().map(text) })
        }
        Op::Fill { prefix, count, bytes } => {
            let value = vec![b'x'; bytes];
            let refused =
                (0..count).find_map(|n| kv.put_bytes(format!("{prefix}{n:08}"), &value).err().map(|e| (n, e)));
            match refused {
                None => json!({ "taken": count }),
                Some((taken, refused)) => json!({ "taken": taken, "error": Problem::from(refused).code() }),
            }
        }
    })
}

fn error(error: KvError) -> Value {
    json!({ "error": Problem::from(error).code() })
}

#[cfg(test)]
mod tests;
