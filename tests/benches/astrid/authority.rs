//! The gate: a decision, first and repeated; and what many principals and groups cost.

use std::time::Instant;

use astrid_kernel::authority::{Acl, Authority, Gate, Subject};
use astrid_kernel::home::Home;
use astrid_wire::manifest::Manifest;
use astrid_wire::{Principal, Topic};

use crate::{alone, line, pair, per_unit};

/// As many as there may be.
const PRINCIPALS: usize = 10_000;

/// As many as there may be.
const GROUPS: usize = 1_000;

pub fn run() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    let groups: String = (0..GROUPS)
        .map(|n| format!("[group.g{n}]\ngrants = [\"publish:g{n}.>\", \"subscribe:g{n}.>\"]\n"))
        .collect();
    std::fs::write(home.groups_file(), groups).unwrap();
    for n in 0..PRINCIPALS {
        let text = format!(
            "groups = [\"restricted\", \"g{}\"]\ngrants = [\"publish:p{n}.>\", \"kv\"]\nrevokes = [\"publish:p{n}.secret\"]\n",
            n % GROUPS
        );
        std::fs::write(home.profiles_dir().join(format!("p{n}.toml")), text).unwrap();
    }
    let (before, began) = (rss(), Instant::now());
    let authority = Authority::open(&home).unwrap();
    let took = began.elapsed();
    alone(
        "10,000 principals and 1,000 groups: read at boot",
        &format!("{} ms", took.as_millis()),
        "",
    );
    alone(
        "  memory",
        &format!("{:.1} MB", rss().saturating_sub(before) as f64 / 1e6),
        "",
    );
    decisions(&Gate::new(authority));
}

fn decisions(gate: &Gate) {
    const UNITS: u64 = 200_000;
    let manifest = "[package]\nname = \"bench\"\nversion = \"1.0.0\"\ndescription = \"says something\"\nkernel = \">=0.1, <1\"\n\
                    [runtime]\nscope = \"principal\"\n[publish]\n\">\" = {}\n";
    let acl = Acl::new(&Manifest::parse(manifest, "Capsule.toml").unwrap(), Vec::new());
    let topic: Topic = "p77.v1.something".parse().unwrap();
    let who: Principal = "p77".parse().unwrap();
    let standing = gate.authority().standing(&who);
    let subject = Subject {
        acl: &acl,
        standing: &standing,
        socket: None,
    };
    let again = || {
        per_unit(UNITS, || {
            for _ in 0..UNITS {
                drop(std::hint::black_box(gate.say(subject, topic.clone()).unwrap()));
            }
        })
    };
    let first = || {
        per_unit(UNITS, || {
            for _ in 0..UNITS {
                let standing = gate.authority().standing(&who);
                let subject = Subject {
                    standing: &standing,
                    ..subject
                };
                drop(std::hint::black_box(gate.say(subject, topic.clone()).unwrap()));
            }
        })
    };
    let (first, again) = pair(first, again);
    line(
        "a decision, principal looked up",
        first,
        "not looked up again",
        again,
        "tens of ns",
    );
}

/// Bytes of this process that are in memory.
fn rss() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}
