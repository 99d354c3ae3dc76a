//! A chain of three capsules over durable subscriptions: `relay-a` passes what is submitted on to `relay-b`, and that to `relay-c`. Each
//! keeps count of what it handled, so that a test that kills whatever it likes can ask afterwards: did every message have its effect, and
//! only once, and in order?
//!
//! What is wrong is written down and never mended. A message may say that a stage is to fail at it, at its first attempts: after
//! everything was recorded, so that there is something to undo.

use std::collections::BTreeMap;

use astrid_sdk::kv::Entry;
use astrid_sdk::prelude::*;

/// Numbers of a kind that a report names, at most. Where there are as many, there may be more.
pub const NAMED_MAX: usize = 1_000;

/// A capsule of the chain.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// `relay-a`.
    A,
    /// `relay-b`.
    B,
    /// `relay-c`.
    C,
}

/// How a stage fails.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// It panics.
    Trap,
    /// It gives up, and wants to try again.
    Retry,
    /// It gives up for good.
    Refuse,
    /// It runs until it is stopped.
    Burn,
}

/// What goes through the chain.
#[body]
#[derive(Debug, Clone)]
pub struct Passed {
    /// Who submitted it: numbers are each client's own.
    pub client: String,
    /// 1, 2, 3, ...
    pub number: u64,
    /// How many messages of this client the stage before has handled.
    #[serde(default)]
    pub seen: u64,
    /// How a stage is to fail at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Which stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// At how many attempts; at the first when not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
}

/// What a stage knows of a client, at `client/CLIENT`.
#[body]
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// The highest number so far.
    pub last: u64,
    /// How many messages were handled.
    pub handled: u64,
    /// How many of them were not the next one.
    pub violations: u64,
}

/// A message that was not the next one of its client, at `violation/CLIENT/N`.
#[body]
#[derive(Debug, Clone)]
pub struct Violation {
    /// Its number.
    pub number: u64,
    /// The highest number before.
    pub last: u64,
    /// Which attempt it was.
    pub attempt: u32,
}

/// What a stage tells of a client.
#[body]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientReport {
    /// The highest number.
    pub last: u64,
    /// How many numbers had their effect.
    pub count: u64,
    /// Those that had it more than once.
    pub doubled: Vec<u64>,
    /// Those up to the last that did not have it.
    pub missing: Vec<u64>,
    /// Those that were not the next one when they came.
    pub out_of_order: Vec<u64>,
}

/// What a stage tells.
#[body]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// By client.
    pub clients: BTreeMap<String, ClientReport>,
}

/// Handles a message: checks and counts it, passes it on, and fails if it is told to.
///
/// # Errors
/// Whatever fails, nothing of it happens.
pub fn take(stage: Stage, next: Option<&str>, ctx: &mut Context, mut message: Passed) -> Result<(), Rollback> {
    let (name, number) = (message.client.clone(), message.number);
    let attempt = ctx.attempt();
    let mut kv = ctx.kv();
    let mut client: Client = kv.get(format!("client/{name}"))?.unwrap_or_default();
    if number.checked_sub(1) != Some(client.last) {
        let violation = Violation {
            number,
            last: client.last,
            attempt,
        };
        kv.put(format!("violation/{name}/{:020}", client.violations), &violation)?;
        client.violations += 1;
    }
    client.last = client.last.max(number);
    client.handled += 1;
    kv.put(format!("client/{name}"), &client)?;
    let effect = format!("effect/{name}/{number:020}");
    let applied = kv.get(&effect)?.unwrap_or(0_u64);
    kv.put(&effect, &(applied + 1))?;
    let fault = message.fault.filter(|_| message.stage == Some(stage));
    let times = message.times.unwrap_or(1);
    if let Some(next) = next {
        message.seen = client.handled;
        ctx.publish(next, message)?;
    }
    match fault {
        Some(fault) if attempt <= times => fail(fault),
        _ => Ok(()),
    }
}

fn fail(fault: Fault) -> Result<(), Rollback> {
    match fault {
        Fault::Trap => panic!("on request"),
        Fault::Retry => Err(Rollback::retry("on request")),
        Fault::Refuse => Err(Rollback::Refuse(Problem::new("relay.refused", "on request"))),
        Fault::Burn => {
            let mut n: u64 = 0;
            loop {
                n = std::hint::black_box(n.wrapping_add(1));
            }
        }
    }
}

/// What became of all messages, read anew from what was kept.
///
/// # Errors
/// It cannot be read.
pub fn report(ctx: &mut Context) -> Result<Report> {
    let mut clients: BTreeMap<String, ClientReport> = BTreeMap::new();
    for entry in ctx.kv().prefix("client/") {
        let entry = entry?;
        let last = entry.read::<Client>()?.last;
        clients.entry(entry.key_after("client/")?.to_owned()).or_default().last = last;
    }
    // The number up to which effects were looked at, by client.
    let mut looked: BTreeMap<String, u64> = BTreeMap::new();
    for entry in ctx.kv().prefix("effect/") {
        let entry = entry?;
        let (name, number) = client_and_number(&entry, "effect/")?;
        let client = clients.entry(name.clone()).or_default();
        client.count += 1;
        if entry.read::<u64>()? != 1 {
            named(&mut client.doubled, [number]);
        }
        let before = looked.insert(name, number).unwrap_or_default();
        named(&mut client.missing, before + 1..number);
    }
    for (name, client) in &mut clients {
        let before = looked.get(name).copied().unwrap_or_default();
        named(&mut client.missing, before + 1..=client.last);
    }
    for entry in ctx.kv().prefix("violation/") {
        let entry = entry?;
        let number = entry.read::<Violation>()?.number;
        let (name, _) = client_and_number(&entry, "violation/")?;
        named(&mut clients.entry(name).or_default().out_of_order, [number]);
    }
    Ok(Report { clients })
}

fn client_and_number(entry: &Entry, table: &str) -> Result<(String, u64)> {
    let key = entry.key_after(table)?;
    let parts = key
        .rsplit_once('/')
        .and_then(|(client, n)| Some((client.to_owned(), n.parse().ok()?)));
    parts.ok_or_else(|| Problem::new("relay.key", format!("{table}{key} is no key of this table")).into())
}

fn named(numbers: &mut Vec<u64>, more: impl IntoIterator<Item = u64>) {
    let room = NAMED_MAX - numbers.len();
    numbers.extend(more.into_iter().take(room));
}

/// Writes a capsule of the chain.
#[macro_export]
macro_rules! stage {
    ($stage:ident, hears = $hears:tt, $(says = $says:tt,)? reports = $reports:tt) => {
        use ::astrid_sdk::prelude::*;

        /// All that it knows is in its table.
        #[derive(Default)]
        struct Relay;

        #[capsule($(says($says = $crate::Passed))?)]
        impl Relay {
            /// Counts a message, and passes it on.
            #[on($hears)]
            fn take(&mut self, ctx: &mut Context, message: $crate::Passed) -> Result<(), Rollback> {
                $crate::take($crate::Stage::$stage, None$(.or(Some($says)))?, ctx, message)
            }

            /// Tells what became of all messages.
            #[on($reports)]
            fn report(&mut self, ctx: &mut Context) -> Result<$crate::Report> {
                $crate::report(ctx)
            }
        }
    };
}

#[cfg(test)]
mod tests;
