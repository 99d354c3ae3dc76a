//! `kill -9` of daemon, keeper, guard, children and grandchildren, in random orders at random instants: nothing is left, nothing runs
//! twice, and everything is back (A14).
//!
//! Rounds and seed come from `ASTRID_ROUNDS` and `ASTRID_SEED`; a failure names the seed of its round.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(clippy::print_stdout, reason = "what was killed in which round is read by people")]

use std::fs;
use std::time::{Duration, Instant};

use astrid_tests::chance::{Chance, from_environment};
use astrid_tests::daemon::Astrid;
use astrid_tests::herd::{Herd, MARK, describe, kill, parent};
use astrid_tests::process::PATIENCE;

/// Rounds when nobody says otherwise.
const ROUNDS: u64 = 20;

/// The longest pause between two kills: long enough for each part to notice the one before, or not.
const PAUSE_MAX: Duration = Duration::from_millis(12);

/// Programs that make it hard: one that is nothing but there, one with a grandchild in a session of its own, one that ignores TERM, and
/// one that closes its pipes. With how many processes each is.
const PROGRAMS: [(&str, &str, usize); 4] = [
    ("plain", "exec sleep 1000000", 1),
    ("forker", "(setsid sleep 1000000 &); exec sleep 1000000", 2),
    (
        "stubborn",
        "trap '' TERM HUP INT; sleep 1000000 & wait; sleep 1000000",
        2,
    ),
    ("closer", "exec 0<&- 1>&- 2>&-; exec sleep 1000000", 1),
];

fn definitions(mark: &str) -> String {
    let mut text = String::new();
    for (name, script, _) in PROGRAMS {
        text += &format!(
            "[[processes]]\nname = \"{name}\"\ncommand = \"/bin/sh\"\nargs = ['-c', \"\"\"{script}\"\"\"]\nenv = {{ {MARK} = \"{mark}\" }}\n\
             restart = \"always\"\nstop = {{ timeout = \"200ms\" }}\nmax_restarts = 1000\nmin_uptime = \"1ms\"\nbackoff = {{ policy = \"fixed\", base = \"1ms\" }}\n\n"
        );
    }
    text
}

/// Waits until every program runs, once.
#[track_caller]
fn wait_until_whole(astrid: &Astrid, herd: &Herd) {
    let expected: usize = PROGRAMS.iter().map(|(_, _, processes)| processes).sum();
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Answered when all of them run.
        let started = astrid.run(&["process", "start", "--all", "--format", "json"]);
        let members = herd.members();
        if started.status.success() && members.len() == expected {
            let listed = astrid.run(&["process", "list", "--format", "json"]).ok().json();
            let running = listed["processes"].as_array().unwrap().iter().all(|process| {
                let instance = &process["instances"][0];
                instance["state"] == "running"
                    && members
                        .iter()
                        .any(|member| u64::from(member.pid) == instance["pid"].as_u64().unwrap_or(0))
            });
            if running {
                return;
            }
        }
        // A grandchild that was killed comes back with its parent only.
        if started.status.success() && members.len() < expected {
            let _ = astrid.run(&["process", "restart", "--all"]);
        }
        assert!(
            Instant::now() < deadline,
            "{} processes instead of {expected}: {:#?}; {}",
            members.len(),
            members.iter().map(|member| describe(member.pid)).collect::<Vec<_>>(),
            started.stderr
        );
    }
}

/// The keeper and its guard, when everything runs. What was killed a moment ago may seem to be there still.
fn keeper_and_guard(astrid: &Astrid, herd: &Herd) -> (u32, u32) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        wait_until_whole(astrid, herd);
        let status = astrid.run(&["status", "--format", "json"]).ok().json();
        let keeper = status["children"]["keeper_pid"].as_u64();
        if let Some(keeper) = keeper.map(|pid| u32::try_from(pid).unwrap())
            && let Some(guard) = parent(keeper)
        {
            return (keeper, guard);
        }
        assert!(Instant::now() < deadline, "there is no keeper: {status}");
    }
}

#[test]
fn whatever_is_killed_nothing_is_left_and_everything_comes_back() {
    let seed = from_environment("ASTRID_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = from_environment("ASTRID_ROUNDS").unwrap_or(ROUNDS);
    let astrid = Astrid::new();
    let mark = format!("kills-{seed}");
    let herd = Herd::of(&mark);
    let _ = astrid.run(&["start"]).ok();
    let file = astrid.scratch().join("programs.toml");
    fs::write(&file, definitions(&mark)).unwrap();
    let _ = astrid.run(&["process", "apply", file.to_str().unwrap()]).ok();

    for round in 0..rounds {
        let (keeper, guard) = keeper_and_guard(&astrid, &herd);
        let mut chance = Chance(seed.wrapping_add(round));
        let daemon = astrid.pid();
        let mut victims = vec![daemon, keeper, guard];
        victims.extend(herd.members().iter().map(|member| member.pid));
        let count = 1 + chance.below(4);
        let chosen: Vec<u32> = (0..count)
            .map(|_| {
                let chosen = chance.below(victims.len() as u64);
                victims.remove(usize::try_from(chosen).unwrap())
            })
            .collect();
        let names: Vec<String> = chosen.iter().map(|pid| describe(*pid)).collect();
        for pid in &chosen {
            kill(*pid);
            // Half of the time at once.
            if chance.below(2) == 0 {
                std::thread::sleep(PAUSE_MAX.mul_f64(chance.below(1000) as f64 / 1000.0));
            }
        }
        println!(
            "round {round} (ASTRID_SEED={}): killed {names:?}",
            seed.wrapping_add(round)
        );
        if chosen.contains(&daemon) {
            // Who could end the rest is gone too when all three are; then the next daemon does it.
            if !(chosen.contains(&keeper) && chosen.contains(&guard)) {
                herd.wait_until_gone();
            }
            let _ = astrid.run(&["start"]).ok();
        }
    }
    wait_until_whole(&astrid, &herd);
    let _ = astrid.run(&["stop"]).ok();
    herd.wait_until_gone();
    println!("rounds {rounds}, left behind 0, doubled 0");
}

/// A daemon that is started right after another one was killed takes over what is to be adopted, and starts nothing beside it: also while a
/// program that ignores being asked is still being ended.
#[test]
fn adopted_programs_stay_through_kills_and_stops() {
    let astrid = Astrid::new();
    let mark = format!("adopted-{}", std::process::id());
    let herd = Herd::of(&mark);
    let _ = astrid.run(&["start"]).ok();
    let script = "trap '' TERM HUP INT; sleep 1000000 & wait; sleep 1000000";
    let text = format!(
        "[[processes]]\nname = \"kept\"\ncommand = \"sleep\"\nargs = [\"1000000\"]\nadopt = true\nenv = {{ {MARK} = \"{mark}\" }}\n\n\
         [[processes]]\nname = \"stubborn\"\ncommand = \"/bin/sh\"\nargs = ['-c', \"\"\"{script}\"\"\"]\nenv = {{ {MARK} = \"{mark}\" }}\n\
         stop = {{ timeout = \"200ms\" }}\n"
    );
    let file = astrid.scratch().join("programs.toml");
    fs::write(&file, text).unwrap();
    let _ = astrid.run(&["process", "apply", file.to_str().unwrap()]).ok();
    let pid = || {
        let _ = astrid.run(&["process", "start", "--all"]).ok();
        let status = astrid
            .run(&["process", "status", "kept", "--format", "json"])
            .ok()
            .json();
        status["instances"][0]["pid"].as_u64().unwrap()
    };
    let first = pid();
    for round in 0..6 {
        if round % 3 == 2 {
            let began = Instant::now();
            let _ = astrid.run(&["stop"]).ok();
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "a stop waits for what is to stay"
            );
        } else {
            kill(astrid.pid());
        }
        let _ = astrid.run(&["start"]).ok();
        assert_eq!(pid(), first, "round {round}");
        // `kept`, and `stubborn` with its sleep, which it starts a moment after it runs.
        let deadline = Instant::now() + PATIENCE;
        let mut members = herd.members();
        while members.len() < 3 && Instant::now() < deadline {
            members = herd.members();
        }
        assert_eq!(
            members.len(),
            3,
            "round {round}: {:?}",
            members.iter().map(|member| describe(member.pid)).collect::<Vec<_>>()
        );
    }
    let _ = astrid.run(&["process", "remove", "kept"]).ok();
    let _ = astrid.run(&["stop"]).ok();
    herd.wait_until_gone();
}
