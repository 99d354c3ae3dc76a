//! Two actors to which the same happens, at random, one of which loses its instance before each message: nobody can tell them apart. And
//! one whose daemon ends at random: nothing runs twice, nothing that is down comes up, nothing is forgotten.

use proptest::prelude::*;

use super::*;

const PROCESSES: &str = "\
[[processes]]\nname = \"a\"\ncommand = \"a\"\nmax_restarts = 2\n\
health = { kind = \"tcp\", address = \"x:1\", interval = \"2s\", unhealthy_after = 1 }\n\
[[processes]]\nname = \"b\"\ncommand = \"b\"\ninstances = 2\nbackoff = { base = \"500ms\" }\nstop = { command = \"s\", timeout = \"3s\" }\n\
[[processes]]\nname = \"c\"\ncommand = \"c\"\nautostart = false\nrestart = \"always\"\nadopt = true\nbackoff = { base = \"0s\" }\n";
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Step {
    Told(&'static str, usize),
    /// The child at this place, of those that there are, starts or ends.
    Moves(usize, i32),
    Pass(u64),
    /// The definition of `b` is another.
    Apply(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let verb = prop_oneof![Just("start"), Just("stop"), Just("restart")];
    let step = prop_oneof![
        2 => (verb, 0..NAMES.len()).prop_map(|(verb, name)| Step::Told(verb, name)),
        5 => (0_usize..8, 0..2).prop_map(|(place, code)| Step::Moves(place, code)),
        3 => (0_u64..3000).prop_map(Step::Pass),
        1 => (1_u32..4).prop_map(Step::Apply),
    ];
    proptest::collection::vec(step, 1..40)
}

/// False when it was asked for and refused.
fn happens(bed: &mut Bed, step: &Step) -> bool {
    match step {
        Step::Told(verb, name) => {
            let asked = ask(bed, verb, json!({ "name": NAMES[*name], "wait": false }));
            return !matches!(asked.reply, Some(Err(_)));
        }
        Step::Moves(place, code) => {
            let children = bed.children();
            let Some(child) = children.get(place % children.len().max(1)) else {
                return true;
            };
            if child.pid.is_none() {
                bed.child_started(child.port).committed();
            } else {
                bed.child_exited(child.port, Exit::Code(*code)).committed();
            }
        }
        Step::Pass(ms) => advance(bed, Duration::from_millis(*ms)),
        Step::Apply(instances) => {
            let text = format!(
                "[[processes]]\nname = \"b\"\ncommand = \"b{instances}\"\ninstances = {instances}\nbackoff = {{ base = \"500ms\" }}\n\
                 stop = {{ command = \"s\", timeout = \"3s\" }}\n"
            );
            drop(ask(bed, "apply", json!({ "text": text })));
        }
    }
    true
}

/// Why it is as it is, without process ids.
fn why_so(bed: &mut Bed, name: &str) -> String {
    let said = super::why(bed, name);
    let mut words: Vec<&str> = said.split(' ').collect();
    for at in 1..words.len() {
        if words[at - 1] == "process" {
            words[at] = "";
        }
    }
    words.join(" ")
}

/// What can be seen, but for numbers that are each daemon's own.
fn seen(bed: &mut Bed) -> String {
    let mut list = ask(bed, "list", json!({})).json();
    for process in list["processes"].as_array_mut().unwrap() {
        for instance in process["instances"].as_array_mut().unwrap() {
            instance["pid"] = json!(instance["pid"].is_u64());
        }
    }
    let mut children = bed.children();
    // To be killed twice is no difference.
    children.iter_mut().for_each(|child| child.signals.dedup());
    let mut children: Vec<String> = children
        .iter()
        .map(|child| {
            format!(
                "{} {:?} {:?} {:?}",
                child.spec.tag,
                child.spec.program,
                child.pid.is_some(),
                child.signals
            )
        })
        .collect();
    children.sort();
    format!("{list:#}\n{children:#?}")
}

/// A child of `c` is adopted by the next daemon; the others end with theirs.
fn next_daemon(bed: &mut Bed) {
    let stays: Vec<Child> = bed
        .children()
        .into_iter()
        .filter(|child| child.spec.adopt && child.pid.is_some())
        .collect();
    bed.restart_after(SECOND);
    let held: Vec<Value> = stays
        .into_iter()
        .map(|child| {
            let tag = child.spec.tag.clone();
            let port = bed.adopted_child(child.spec);
            json!({ "port": port, "tag": tag, "pid": child.pid, "started_at_ms": 1_767_225_600_000_u64 })
        })
        .collect();
    let body = json!({ "capsule": "process", "generation": 1, "ports": held });
    bed.event("lifecycle.v1.started", body).committed();
}

fn instances(bed: &mut Bed) -> Vec<(String, Value)> {
    let list = ask(bed, "list", json!({})).json();
    let mut all = Vec::new();
    for process in list["processes"].as_array().unwrap() {
        for instance in process["instances"].as_array().unwrap() {
            all.push((
                format!("{}/{}", process["name"].as_str().unwrap(), instance["index"]),
                instance.clone(),
            ));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(150) })]

    /// A10, A11: an eviction at any point is not noticed.
    #[test]
    fn an_eviction_is_not_noticed(steps in steps()) {
        let (mut one, mut other) = (bed(PROCESSES), bed(PROCESSES));
        for step in &steps {
            happens(&mut one, step);
            other.evict();
            happens(&mut other, step);
            prop_assert_eq!(seen(&mut one), seen(&mut other), "after {:?}", step);
            for name in NAMES {
                prop_assert_eq!(why_so(&mut one, name), why_so(&mut other, name));
            }
        }
    }

    /// A10, A11, A14: over any number of daemons nothing runs twice, counters only grow, what was stopped by hand stays stopped, and an open
    /// circuit stays open.
    #[test]
    fn a_daemon_that_ends_costs_nothing(steps in steps(), ends in proptest::collection::vec(any::<bool>(), 40)) {
        let mut bed = bed(PROCESSES);
        let mut held_down = [false; NAMES.len()];
        for (step, end) in steps.iter().zip(ends) {
            let done = happens(&mut bed, step);
            if let Step::Apply(_) = step {
                // A new definition restarts one instance after the other, also one that is stopping.
                held_down[1] = false;
            }
            if let Step::Told(verb, name) = step
                && done
            {
                held_down[*name] = *verb == "stop";
            }
            if !end {
                continue;
            }
            let before = instances(&mut bed);
            next_daemon(&mut bed);
            let after = instances(&mut bed);
            prop_assert_eq!(before.len(), after.len());
            for ((key, was), (_, is)) in before.iter().zip(&after) {
                prop_assert!(is["restarts"].as_u64() >= was["restarts"].as_u64(), "{key}: {was} {is}");
                if was["circuit_open"] == true {
                    prop_assert!(is["circuit_open"] == true && is["pid"].is_null(), "{key}: {is}");
                }
                if was["state"] == "running" && was["restart_at_ms"].is_null() {
                    prop_assert!(is["state"] == "starting" || is["state"] == "running", "{key}: {was} {is}");
                }
            }
            for (name, held_down) in NAMES.iter().zip(held_down) {
                let (_, is) = after.iter().find(|(key, _)| key.starts_with(&format!("{name}/"))).unwrap();
                let down = is["state"] == "stopped" || is["state"] == "terminated" || is["state"] == "stopping";
                prop_assert!(!held_down || down, "{name} was stopped: {is}");
            }
            let mut tags: Vec<String> = bed
                .children()
                .iter()
                .filter_map(|child| child.spec.tag.strip_prefix("p/")?.rsplit_once('/').map(|(key, _)| key.to_owned()))
                .collect();
            tags.sort();
            let all = tags.len();
            tags.dedup();
            prop_assert_eq!(tags.len(), all, "something runs twice");
        }
    }
}
