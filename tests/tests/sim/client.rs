//! Simulated clients: each submits its numbers in order, a few at a time, and again with the same ids until it hears that they were taken.

use std::collections::BTreeMap;
use std::pin::Pin;

use astrid_kernel::capsule::durable::{self, SubmitError};
use serde_json::{Value, json};

use crate::disk::poll;
use crate::kernel::Kernel;
use crate::trace::{Chance, Trace};

/// Numbers on their way at once, of one stream.
const WINDOW: usize = 4;

/// How a stage is told to fail at a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Its place in the chain.
    pub(crate) stage: usize,
    pub(crate) fault: &'static str,
    pub(crate) times: u32,
}

impl Planned {
    /// Whether that ends the message.
    pub(crate) fn kills(&self, retries: u32) -> bool {
        match self.fault {
            "refuse" => true,
            "retry" => self.times > retries,
            _ => self.times > 1,
        }
    }
}

type Submitting = Pin<Box<dyn Future<Output = Result<bool, SubmitError>>>>;

enum Item {
    Unsent,
    Sent(Submitting),
    Accepted,
}

/// Numbers of one client that go to one topic.
pub(crate) struct Stream {
    pub(crate) client: String,
    topic: &'static str,
    items: Vec<(Value, Item)>,
    /// By number.
    pub(crate) planned: BTreeMap<u64, Planned>,
}

impl Stream {
    pub(crate) fn relay(client: &str, count: u64, faults: bool, chance: &mut Chance) -> Self {
        let mut planned = BTreeMap::new();
        let mut items = Vec::new();
        for number in 1..=count {
            let mut body = json!({ "client": client, "number": number });
            if faults && chance.per_mille(250) {
                let plan = Planned {
                    stage: chance.below(3),
                    fault: ["trap", "retry", "refuse", "burn", "retry"][chance.below(5)],
                    times: 1 + u32::try_from(chance.below(5)).unwrap(),
                };
                body["stage"] = ["a", "b", "c"][plan.stage].into();
                body["fault"] = plan.fault.into();
                body["times"] = plan.times.into();
                planned.insert(number, plan);
            }
            items.push((body, Item::Unsent));
        }
        Self {
            client: client.to_owned(),
            topic: "relay.v1.submit",
            items,
            planned,
        }
    }

    pub(crate) fn ledger(client: &str, count: u64) -> Self {
        let item = |_| (json!({ "key": "submitted", "amount": 1 }), Item::Unsent);
        Self {
            client: client.to_owned(),
            topic: "ledger.v1.lasting",
            items: (0..count).map(item).collect(),
            planned: BTreeMap::new(),
        }
    }

    pub(crate) fn is_relay(&self) -> bool {
        self.topic == "relay.v1.submit"
    }

    pub(crate) fn len(&self) -> u64 {
        self.items.len() as u64
    }

    pub(crate) fn is_done(&self) -> bool {
        self.accepted() == self.len()
    }

    /// How many were taken.
    pub(crate) fn accepted(&self) -> u64 {
        self.items
            .iter()
            .filter(|(_, item)| matches!(item, Item::Accepted))
            .count() as u64
    }

    /// The kernel is gone, and with it every answer.
    pub(crate) fn disconnected(&mut self) {
        for (_, item) in &mut self.items {
            if let Item::Sent(_) = item {
                *item = Item::Unsent;
            }
        }
    }

    /// Looks for answers, and submits one more if there is one. Whether something happened.
    pub(crate) fn step(&mut self, kernel: &Kernel, trace: &Trace) -> bool {
        let mut moved = false;
        for (number, (_, item)) in (1..).zip(&mut self.items) {
            let Item::Sent(sent) = item else { continue };
            let Some(outcome) = poll(sent.as_mut()) else { continue };
            moved = true;
            trace.line(format!("{} hears of {} {number}: {outcome:?}", self.client, self.topic));
            *item = match outcome {
                Ok(_) => Item::Accepted,
                Err(_) => Item::Unsent,
            };
        }
        let sent = self
            .items
            .iter()
            .filter(|(_, item)| matches!(item, Item::Sent(_)))
            .count();
        let next = self.items.iter().position(|(_, item)| matches!(item, Item::Unsent));
        // What comes later must not overtake.
        let overtaken = |next: usize| self.items[next..].iter().any(|(_, item)| matches!(item, Item::Sent(_)));
        let Some(next) = next.filter(|next| sent < WINDOW && !overtaken(*next)) else {
            return moved;
        };
        let (body, item) = &mut self.items[next];
        let host = std::sync::Arc::clone(&kernel.host);
        let saying = Kernel::saying(&self.client, body);
        let say = host.gate.kernel_says(self.topic.parse().unwrap());
        let id = format!("{}-{next}", self.topic).into_bytes().into();
        let mut sending: Submitting = Box::pin(async move { durable::submit(&host, say, saying, Some(id)).await });
        trace.line(format!("{} submits {} {}", self.client, self.topic, next + 1));
        match poll(sending.as_mut()) {
            None => *item = Item::Sent(sending),
            Some(Ok(_)) => *item = Item::Accepted,
            Some(Err(error)) => {
                trace.line(format!("  {error}"));
                return moved;
            }
        }
        true
    }
}
