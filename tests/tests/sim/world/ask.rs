//! What the outside asks: sums that last, timers that are set and ended, something to be said once.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Asking, Question, Timer, World};
use crate::disk::poll;
use crate::kernel::Kernel;

impl World<'_> {
    pub(super) fn ask(&mut self) {
        let client = self.streams[self.chance.below(self.streams.len())].client.clone();
        match self.chance.below(5) {
            4 => {
                let id = format!("once-{}", self.chance.below(4));
                let body = json!({ "id": id, "text": id });
                self.question(&client, "ledger.v1.once", &body, Question::Once);
            }
            0 => {
                let key = format!("asked-{client}");
                self.sums.entry(key.clone()).or_default().asked += 1;
                let body = json!({ "key": key, "amount": 1 });
                self.question(&client, "ledger.v1.lasting", &body, Question::Add { key });
            }
            1 | 2 => {
                let every_ms = self.chance.per_mille(300).then(|| 20 + self.chance.next() % 3_000);
                let after_ms = self.chance.next() % 4_000;
                let tag = format!("t{}", self.timers.len());
                let timer = Timer {
                    client: client.clone(),
                    every_ms,
                    set_ms: self.kernel().wall_ms(),
                    after_ms,
                    accepted: false,
                    cancelled: false,
                    asked_to_end: false,
                    ended: false,
                };
                self.timers.insert(tag.clone(), timer);
                let body = json!({ "after_ms": after_ms, "every_ms": every_ms, "tag": tag, "durable": true });
                self.question(&client, "ledger.v1.timer", &body, Question::Timer { tag });
            }
            _ => {
                let tags: Vec<String> = self.timers.keys().cloned().collect();
                if let Some(tag) = tags.get(self.chance.below(tags.len().max(1))) {
                    self.cancel(tag.clone());
                }
            }
        }
    }

    pub(super) fn cancel(&mut self, tag: String) {
        let timer = self.timers.get_mut(&tag).unwrap();
        timer.asked_to_end = true;
        let client = timer.client.clone();
        let body = json!(tag);
        self.question(&client, "ledger.v1.cancel", &body, Question::Cancel { tag });
    }

    fn question(&mut self, client: &str, topic: &str, body: &Value, question: Question) {
        self.trace.line(format!("{client} asks {topic} {body}"));
        let host = std::sync::Arc::clone(&self.kernel().host);
        let saying = Kernel::saying(client, body);
        let say = host.gate.kernel_says(topic.parse().unwrap());
        let mut asking: Asking = Box::pin(async move { host.bus.request(say, saying, Duration::from_secs(30)).await });
        match poll(asking.as_mut()) {
            None => self.questions.push((question, asking)),
            Some(outcome) => self.trace.line(format!("  at once: {outcome:?}")),
        }
    }
}
