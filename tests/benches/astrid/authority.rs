//! The gate: a decision, first and repeated; and what many principals and groups cost.

use std::sync::Arc;
use std::time::Instant;

use astrid_kernel::authority::{Acl, Authority, Gate, Policy, Subject};
use astrid_kernel::home::Home;
use astrid_wire::authority::Profile;
use astrid_wire::manifest::Manifest;
use astrid_wire::{Principal, Topic};

use crate::{alone, line, median, pair, per_unit};

/// As many as there may be.
const GROUPS: usize = 1_000;

pub fn run() {
    let few = policies(10_000);
    let many = policies(100_000);
    decisions(&Gate::new(few), "10,000");
    decisions(&Gate::new(many), "100,000");
}

/// What so many principals cost at boot, and what a change costs among them.
fn policies(principals: usize) -> Arc<Authority> {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    let groups: String = (0..GROUPS)
        .map(|n| format!("[group.g{n}]\ngrants = [\"publish:g{n}.>\", \"subscribe:g{n}.>\"]\n"))
        .collect();
    std::fs::write(home.groups_file(), groups).unwrap();
    for n in 0..principals - 1 {
        let text = format!(
            "groups = [\"restricted\", \"g{}\"]\ngrants = [\"publish:p{n}.>\", \"kv\"]\nrevokes = [\"publish:p{n}.secret\"]\n",
            n % GROUPS
        );
        std::fs::write(home.profiles_dir().join(format!("p{n}.toml")), text).unwrap();
    }
    let (before, began) = (rss(), Instant::now());
    let authority = Authority::open(&home).unwrap();
    let took = began.elapsed();
    let told =
        |what: &str, figure: &str| alone(&format!("{principals} principals, {GROUPS} groups: {what}"), figure, "");
    told("read at boot", &format!("{} ms", took.as_millis()));
    told(
        "memory",
        &format!("{:.1} MB", rss().saturating_sub(before) as f64 / 1e6),
    );
    let mut revokes = 0;
    let change = median(
        (0..9)
            .map(|_| {
                let began = Instant::now();
                let edit = |_: &Policy, old: Option<Profile>| {
                    revokes += 1;
                    let mut profile = old.ok_or("gone")?;
                    profile.revokes = vec![format!("publish:n{revokes}").parse().unwrap()];
                    Ok::<_, &str>(Some(profile))
                };
                authority.edit_profile(&"p77".parse().unwrap(), edit).unwrap();
                began.elapsed().as_secs_f64() * 1e9
            })
            .collect(),
    );
    told("a change, on disk and in force", &format!("{:.1} ms", change / 1e6));
    authority
}

fn decisions(gate: &Gate, principals: &str) {
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
        &format!("a decision, looked up among {principals}"),
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
