//! The checker: what the clients know, against what the three stages and the dead letters tell.

use std::collections::{BTreeMap, BTreeSet};

use astrid_tests::daemon::Astrid;
use astrid_tests::wire::Connection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::fate::{Fate, STAGES};
use super::submitter::Known;

/// Where a letter is read.
const SHOW: &str = "astrid.v1.request.dead.show";

/// Numbers of a kind that a report names at most; where there are as many, there may be more.
const NAMED_MAX: usize = 1000;

/// What a stage tells of a client.
#[derive(Debug, Default, PartialEq, Eq)]
struct Effects {
    last: u64,
    missing: BTreeSet<u64>,
    doubled: BTreeSet<u64>,
    out_of_order: Vec<u64>,
}

impl Effects {
    fn read(told: &Value) -> Self {
        let numbers = |name: &str| -> Vec<u64> {
            let named: Vec<u64> = told[name]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_u64)
                .collect();
            assert!(named.len() < NAMED_MAX, "too many are {name} to name them all");
            named
        };
        let effects = Self {
            last: told["last"].as_u64().unwrap(),
            missing: numbers("missing").into_iter().collect(),
            doubled: numbers("doubled").into_iter().collect(),
            out_of_order: numbers("out_of_order"),
        };
        let count = told["count"].as_u64().unwrap();
        assert_eq!(
            count + effects.missing.len() as u64,
            effects.last,
            "a report contradicts itself: {told}"
        );
        effects
    }

    fn has(&self, number: u64) -> bool {
        number <= self.last && !self.missing.contains(&number)
    }
}

/// What became of all numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    /// By stage, by client.
    effects: [BTreeMap<String, Effects>; 3],
    /// Where each letter was given up, by client and number.
    dead: BTreeMap<(String, u64), Vec<String>>,
}

/// What is wrong with them.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Accepted numbers.
    pub(crate) accepted: u64,
    /// Those of them without an effect.
    pub(crate) lost: BTreeSet<(String, u64)>,
    /// Numbers with two.
    pub(crate) doubled: BTreeSet<(String, u64)>,
    /// Sentences about everything else.
    pub(crate) wrong: Vec<String>,
    /// Letters that there are.
    pub(crate) dead: usize,
}

impl Books {
    /// Asks for them. The daemon goes on meanwhile.
    pub(crate) fn read(astrid: &Astrid, connection: &mut Connection) -> Self {
        let mut books = Self::default();
        // What is on its way from one stage to the next is then missing, and not doubled.
        for (stage, (_, _, topic)) in STAGES.iter().enumerate() {
            let report = connection.ask(topic, &json!({})).unwrap();
            for (client, told) in report["clients"].as_object().unwrap() {
                books.effects[stage].insert(client.clone(), Effects::read(told));
            }
        }
        let list = astrid.run(&["dead", "list", "--format", "json"]).ok().json();
        for letter in list["letters"].as_array().unwrap() {
            let shown = connection.ask(SHOW, &json!({ "id": letter["id"] })).unwrap();
            let body = BASE64.decode(shown["body_base64"].as_str().unwrap()).unwrap();
            let message: Value = serde_json::from_slice(&body).unwrap();
            let key = (
                message["client"].as_str().unwrap().to_owned(),
                message["number"].as_u64().unwrap(),
            );
            let capsule = letter["capsule"].as_str().unwrap().to_owned();
            books.dead.entry(key).or_default().push(capsule);
        }
        books
    }

    fn has(&self, stage: usize, client: &str, number: u64) -> bool {
        self.effects[stage]
            .get(client)
            .is_some_and(|effects| effects.has(number))
    }

    fn is_dead(&self, client: &str, number: u64) -> bool {
        self.dead.contains_key(&(client.to_owned(), number))
    }

    /// Whether every accepted number has come to its end.
    pub(crate) fn are_settled(&self, known: &BTreeMap<&str, Known>) -> bool {
        known.iter().all(|(client, known)| {
            let mut begun = (1..=known.sent).filter(|number| known.has(*number) || self.has(0, client, *number));
            begun.all(|number| self.has(2, client, number) || self.is_dead(client, number))
        })
    }

    /// Compares.
    pub(crate) fn check(&self, known: &BTreeMap<&str, Known>, fate: Fate) -> Verdict {
        let mut verdict = Verdict {
            dead: self.dead.values().map(Vec::len).sum(),
            ..Verdict::default()
        };
        for (client, known) in known {
            verdict.accepted += known.count();
            for number in 1..=known.sent {
                self.check_number(client, number, known.has(number), fate, &mut verdict);
            }
            for stage in [0, 2] {
                self.check_order(stage, client, known, fate, &mut verdict);
            }
            let unheard: Vec<u64> = self
                .effects
                .iter()
                .filter_map(|of| of.get(*client))
                .map(|e| e.last)
                .collect();
            if unheard.iter().any(|last| *last > known.sent) {
                verdict
                    .wrong
                    .push(format!("{client} sent up to {}, and there are {unheard:?}", known.sent));
            }
        }
        verdict
    }

    fn check_number(&self, client: &str, number: u64, accepted: bool, fate: Fate, verdict: &mut Verdict) {
        let one = (client.to_owned(), number);
        let dead = self.dead.get(&one).map_or(&[][..], Vec::as_slice);
        let effects = [0, 1, 2].map(|stage| self.has(stage, client, number));
        let twice = self
            .effects
            .iter()
            .any(|of| of.get(client).is_some_and(|e| e.doubled.contains(&number)));
        if dead.len() > 1 || twice || (effects[2] && !dead.is_empty()) {
            verdict.doubled.insert(one);
            return;
        }
        if !accepted && dead.is_empty() && effects == [false; 3] {
            return;
        }
        // Where it is to die, if it is; there and from there on it has no effect.
        let fatal = fate.of(client, number).filter(super::fate::Fault::is_fatal);
        let end = fatal.map(|fault| STAGES.iter().position(|(stage, ..)| *stage == fault.stage).unwrap());
        let expected = [0, 1, 2].map(|stage| end.is_none_or(|end| stage < end));
        let grave = end.map(|end| STAGES[end].1.to_owned());
        if effects == expected && dead == grave.as_slice() {
            return;
        }
        if !effects[2] && dead.is_empty() {
            verdict.lost.insert(one);
        } else {
            let text =
                format!("{client} {number}: effects {effects:?}, letters {dead:?}; expected {expected:?}, {grave:?}");
            verdict.wrong.push(text);
        }
    }

    /// What came at a stage when it was not the next one. That is as it should be behind a number that never came there, and around one that
    /// stepped aside on its way: `relay-b` keeps no order over retries.
    fn check_order(&self, stage: usize, client: &str, known: &Known, fate: Fate, verdict: &mut Verdict) {
        let Some(effects) = self.effects[stage].get(client) else {
            return;
        };
        let stepped_aside = |number: u64| {
            let failed = stage > 1 && fate.of(client, number).is_some_and(|fault| fault.stage == "b");
            failed || known.late.contains(&number)
        };
        for number in &effects.out_of_order {
            let before = number - 1;
            if effects.has(before) && !stepped_aside(before) && !stepped_aside(*number) {
                verdict
                    .wrong
                    .push(format!("{client} {number} came out of order to {}", STAGES[stage].1));
            }
        }
    }
}
