//! `astrid process`: programs under supervision, from what is typed to what runs.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use astrid_tests::daemon::Astrid;
use astrid_tests::process::{ends, send};
use astrid_tests::programs::{becomes, instances, process};
use rustix::process::Signal;
use serde_json::Value;

/// Words that define a program that runs until it is told to end.
const LASTING: [&str; 3] = ["--", "sleep", "1000"];

#[track_caller]
fn run(astrid: &Astrid, name: &str, options: &[&str], command: &[&str]) {
    let arguments = [&["process", "run", name], options, command].concat();
    let _ = astrid.run(&arguments).ok();
}

#[track_caller]
fn pid(instance: &Value) -> u32 {
    u32::try_from(
        instance["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("no pid in {instance}")),
    )
    .unwrap()
}

/// A10: a pid is there iff it runs, and there are exactly as many handles as instances.
#[test]
fn a_program_from_run_to_remove() {
    let astrid = Astrid::started();
    run(
        &astrid,
        "nap",
        &["--instances", "2", "--env", "A=1", "--secret", "B=hidden"],
        &LASTING,
    );
    let list = process(&astrid, &["list"]);
    let nap = &list["processes"][0];
    assert_eq!(
        (nap["name"].as_str(), nap["instances_wanted"].as_u64()),
        (Some("nap"), Some(2))
    );
    assert_eq!(
        (nap["env"]["A"].as_str(), nap["env"]["B"].as_str()),
        (Some("1"), Some("***"))
    );
    let running = instances(&astrid, "nap");
    assert_eq!(running.len(), 2);
    let environment = fs::read(format!("/proc/{}/environ", pid(&running[1]))).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(
        environment.contains("ASTRID_INSTANCE=1") && environment.contains("B=hidden"),
        "{environment}"
    );
    let cwd = fs::read_link(format!("/proc/{}/cwd", pid(&running[0]))).unwrap();
    assert_eq!(cwd, fs::canonicalize(astrid.scratch()).unwrap());

    let table = astrid.run(&["process", "ls"]).ok().stdout;
    assert!(
        table.starts_with("NAME ") && table.contains("nap-1") && table.contains("2 running"),
        "{table}"
    );
    assert!(!table.contains('\u{1b}'), "{table}");

    let _ = astrid.run(&["process", "stop", "nap"]).ok();
    for instance in instances(&astrid, "nap") {
        assert!(
            instance["pid"].is_null() && instance["state"] == "stopped",
            "{instance}"
        );
    }
    assert!(running.iter().map(pid).all(ends));
    let _ = astrid.run(&["process", "start", "--all"]).ok();
    let again = pid(&instances(&astrid, "nap")[0]);
    let _ = astrid.run(&["process", "restart", "nap", "--instance", "0"]).ok();
    assert!(ends(again));
    let last = instances(&astrid, "nap");
    let _ = astrid.run(&["process", "remove", "nap"]).ok();
    assert!(last.iter().map(pid).all(ends));
    assert_eq!(process(&astrid, &["list"])["processes"].as_array().unwrap().len(), 0);
    assert_eq!(astrid.run(&["process", "status", "nap"]).code(), 1);
}

/// The same definition again is no error; another one is, unless it shall take its place.
#[test]
fn a_name_that_is_taken() {
    let astrid = Astrid::started();
    run(&astrid, "nap", &[], &LASTING);
    let first = pid(&instances(&astrid, "nap")[0]);
    run(&astrid, "nap", &[], &LASTING);
    assert_eq!(pid(&instances(&astrid, "nap")[0]), first);
    let other = ["process", "run", "nap", "--format", "json", "--", "sleep", "2000"];
    let refused = astrid.run(&other);
    assert_eq!(refused.code(), 1);
    assert_eq!(refused.json_error()["error"]["problem"], "conflict");
    run(&astrid, "nap", &["--replace"], &["--", "sleep", "2000"]);
    assert!(ends(first));
}

/// What cannot be started is said, by kind and with its place, and `why` repeats it (A21).
#[test]
fn what_cannot_be_started() {
    let astrid = Astrid::started();
    fs::write(astrid.scratch().join("plain"), "no program").unwrap();
    for (name, options, command, part) in [
        (
            "missing",
            &[][..],
            "no-such-program-anywhere",
            "no-such-program-anywhere",
        ),
        ("plain", &[][..], "./plain", "plain"),
        ("nowhere", &["--cwd", "/nonexistent"][..], "sleep", "/nonexistent"),
    ] {
        let arguments = [
            &["process", "run", name, "--restart", "never"],
            options,
            &["--", command, "1"],
        ]
        .concat();
        let outcome = astrid.run(&arguments);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
}

/// A11: a crash is counted, and at too many the circuit opens until somebody says otherwise.
#[test]
fn a_program_that_crashes() {
    let astrid = Astrid::started();
    let definitions = "[[processes]]\nname = \"flaky\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"echo bye >&2; exit 3\"]\n\
                       max_restarts = 2\nbackoff = { policy = \"fixed\", base = \"10ms\" }\n";
    let file = astrid.scratch().join("flaky.toml");
    fs::write(&file, definitions).unwrap();
    let applied = process(&astrid, &["apply", file.to_str().unwrap()]);
    assert_eq!(applied["added"], serde_json::json!(["flaky"]));
    let instance = becomes(&astrid, "flaky", |instance| instance["circuit_open"] == true);
    assert_eq!(
        (instance["state"].as_str(), instance["code"].as_i64()),
        (Some("crashed"), Some(3))
    );
    assert!(
        instance["pid"].is_null() && instance["restart_at_ms"].is_null(),
        "{instance}"
    );
    let why = astrid.run(&["process", "why", "flaky"]).ok().stdout;
    assert!(why.contains("exit code 3") && why.contains("bye"), "{why}");
    let list = astrid.run(&["process", "list"]).ok().stdout;
    assert!(list.contains("given up") && list.contains("exit code 3"), "{list}");
    let applied = process(&astrid, &["apply", file.to_str().unwrap()]);
    assert_eq!(applied["unchanged"], serde_json::json!(["flaky"]));
}

/// A killed program comes back, and its restarts are counted.
#[test]
fn a_program_that_is_killed() {
    let astrid = Astrid::started();
    run(&astrid, "nap", &[], &LASTING);
    let first = pid(&instances(&astrid, "nap")[0]);
    let _ = astrid.run(&["process", "signal", "nap", "kill"]).ok();
    let instance = becomes(&astrid, "nap", |instance| {
        instance["state"] == "running" && instance["restarts"] != 0
    });
    assert_ne!(pid(&instance), first);
    assert!(
        instance["last_exit"]["text"].as_str().unwrap().contains("SIGKILL"),
        "{instance}"
    );
}

/// Instance 0, without what is another at each look, and what happened to it.
#[track_caller]
fn known(astrid: &Astrid, name: &str) -> (Value, Value) {
    let instance = instances(astrid, name).remove(0);
    let part = |key: &str| (key.to_owned(), instance[key].clone());
    let parts = ["state", "code", "restarts", "circuit_open", "last_exit", "since_ms"].map(part);
    let why = process(astrid, &["why", name]);
    (parts.into_iter().collect(), why["instances"][0]["events"].clone())
}

/// A10, A11, A21: what is known of programs outlives the daemon, however that ends: restarts that were counted, a circuit that is open,
/// what was stopped by hand, and what `why` tells. What ran is started again, which is no restart.
#[test]
fn what_is_known_outlives_the_daemon() {
    let astrid = Astrid::started();
    let definitions = "[[processes]]\nname = \"flaky\"\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"exit 3\"]\n\
                       max_restarts = 2\nbackoff = { policy = \"fixed\", base = \"10ms\" }\n\
                       [[processes]]\nname = \"nap\"\ncommand = \"sleep\"\nargs = [\"1000\"]\n\
                       backoff = { policy = \"fixed\", base = \"10ms\" }\n\
                       [[processes]]\nname = \"quiet\"\ncommand = \"sleep\"\nargs = [\"1000\"]\n";
    let file = astrid.scratch().join("known.toml");
    fs::write(&file, definitions).unwrap();
    let _ = process(&astrid, &["apply", file.to_str().unwrap()]);
    let _ = astrid.run(&["process", "start", "nap"]).ok();
    for restarts in 1..=2 {
        let _ = astrid.run(&["process", "signal", "nap", "kill"]).ok();
        becomes(&astrid, "nap", |nap| {
            nap["state"] == "running" && nap["restarts"] == restarts
        });
    }
    becomes(&astrid, "flaky", |flaky| flaky["circuit_open"] == true);
    // What was before is on disk when this is answered.
    let _ = astrid.run(&["process", "stop", "quiet"]).ok();
    let before = ["flaky", "quiet"].map(|name| known(&astrid, name));
    assert_eq!(before[1].0["state"], "stopped");
    for (round, how) in ["stopped", "killed", "stopped", "killed"].into_iter().enumerate() {
        if how == "killed" {
            let daemon = astrid.pid();
            send(daemon, Signal::KILL);
            assert!(ends(daemon));
        } else {
            let _ = astrid.run(&["stop"]).ok();
        }
        let _ = astrid.run(&["start"]).ok();
        for (name, before) in ["flaky", "quiet"].into_iter().zip(&before) {
            assert_eq!(known(&astrid, name), *before, "round {round}, {how}");
        }
        let _ = astrid.run(&["process", "start", "nap"]).ok();
        let (nap, events) = known(&astrid, "nap");
        assert_eq!(
            (&nap["state"], &nap["restarts"]),
            (&"running".into(), &2.into()),
            "round {round}, {how}"
        );
        assert!(events.to_string().contains("started again with the daemon"), "{events}");
    }
}

/// A9: a mistake in a file is said with its place and a hint, and nothing changes.
#[test]
fn mistakes_in_a_file() {
    let astrid = Astrid::started();
    let file = astrid.scratch().join("bad.toml");
    for (text, place) in [
        ("[[processes]]\nname = \"a\"\ncomand = \"x\"\n", "bad.toml:3"),
        (
            "[[processes]]\nname = \"a\"\ncommand = \"x\"\n[[processes]]\nname = \"a\"\ncommand = \"y\"\n",
            "a",
        ),
        ("[[processes]\n", "bad.toml:1"),
    ] {
        fs::write(&file, text).unwrap();
        let outcome = astrid.run(&["process", "apply", file.to_str().unwrap()]);
        assert_eq!(outcome.code(), 1, "{outcome:?}");
        assert!(outcome.stderr.contains(place), "{outcome:?}");
    }
    assert_eq!(process(&astrid, &["list"])["processes"].as_array().unwrap().len(), 0);
}

/// The example of definitions is one: every key in it is known.
#[test]
fn the_example_of_definitions() {
    let astrid = Astrid::started();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/processes.toml");
    let applied = process(&astrid, &["apply", example.to_str().unwrap()]);
    assert_eq!(applied["added"], serde_json::json!(["ticker"]));
}

/// A16: the last lines of both streams, what is added, and the end when nobody reads.
#[test]
fn logs() {
    let astrid = Astrid::started();
    let script = "echo one; echo two; echo oops >&2; while read -r line <go; do echo \"$line\"; done";
    let go = astrid.scratch().join("work/go");
    fs::create_dir(go.parent().unwrap()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    run(&astrid, "talker", &["--cwd", "work"], &["--", "/bin/sh", "-c", script]);
    let follow = astrid.spawn(&["process", "logs", "talker", "--stdout", "-f", "-n", "1000"]);
    let lines = follow.stdout.as_ref().unwrap();
    assert_eq!(lines.next_line().as_deref(), Some("one"));
    assert_eq!(lines.next_line().as_deref(), Some("two"));
    fs::write(&go, "three\n").unwrap();
    assert_eq!(lines.next_line().as_deref(), Some("three"));

    let last = astrid.run(&["process", "logs", "talker", "--stdout", "-n", "2"]).ok();
    assert_eq!(last.stdout, "two\nthree\n");
    let json = astrid
        .run(&["process", "logs", "talker", "--stdout", "-n", "1", "--format", "json"])
        .ok()
        .json();
    assert_eq!(
        (json["line"].as_str(), json["stream"].as_str()),
        (Some("three"), Some("stdout"))
    );
    let _ = astrid.run(&["process", "stop", "talker"]).ok();
    let both = astrid.run(&["process", "logs", "talker"]).ok().stdout;
    assert!(
        both.contains("talker-0 | one\n") && both.contains("talker-0 | oops\n"),
        "{both}"
    );
    assert_eq!(astrid.run(&["process", "logs", "talker", "--instance", "7"]).code(), 1);
}

/// Others' files: what they hold runs, and what cannot be carried over is said.
#[test]
fn import() {
    let astrid = Astrid::started();
    let procfile: PathBuf = astrid.scratch().join("Procfile");
    fs::write(&procfile, "nap: exec sleep 1000\n").unwrap();
    let pm2 = astrid.scratch().join("pm2.json");
    fs::write(
        &pm2,
        r#"{"apps": [{"name": "two", "script": "sleep", "args": "1000", "cron_restart": "0 0 * * *"}]}"#,
    )
    .unwrap();

    let printed = astrid.run(&["process", "import", "--print", "pm2.json"]).ok();
    assert!(
        printed.stdout.starts_with("[[processes]]\nname = \"two\"\n"),
        "{printed:?}"
    );
    assert!(
        printed.stderr.contains("two: cron_restart: not carried over"),
        "{printed:?}"
    );
    assert_eq!(process(&astrid, &["list"])["processes"].as_array().unwrap().len(), 0);
    for file in ["pm2.json", "Procfile"] {
        let _ = astrid.run(&["process", "import", file]).ok();
    }
    for name in ["nap", "two"] {
        let _ = astrid.run(&["process", "start", name]).ok();
        assert_eq!(instances(&astrid, name)[0]["state"], "running");
    }
}

/// `--print` needs no daemon, so there is none around it either.
#[test]
fn what_needs_a_daemon() {
    let astrid = Astrid::new();
    assert_eq!(astrid.run(&["process", "list"]).code(), 3);
    fs::write(astrid.scratch().join("Procfile"), "nap: sleep 1\n").unwrap();
    let printed = astrid.run(&["process", "import", "--print", "Procfile"]).ok();
    assert!(printed.stdout.contains("name = \"nap\""), "{printed:?}");
    assert_eq!(
        astrid
            .run(&["--ephemeral", "process", "import", "--print", "Procfile"])
            .code(),
        2
    );
}

/// A12: what looks at health says why, and its exit code is the verdict.
#[test]
fn probes() {
    let astrid = Astrid::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let well = astrid.run(&["__probe", "tcp", &address, "--timeout-ms", "20000"]).ok();
    assert_eq!(well.stdout, format!("{address} accepts connections\n"));
    // It accepts, and never answers: the deadline is the probe's own.
    let url = format!("http://{address}/");
    let hangs = astrid.run(&["__probe", "http", &url, "--timeout-ms", "50"]);
    assert_eq!((hangs.code(), hangs.stdout.lines().count()), (1, 1));
    assert!(hangs.stdout.contains("50 ms"), "{hangs:?}");
    drop(listener);
    assert_eq!(
        astrid
            .run(&["__probe", "tcp", &address, "--timeout-ms", "20000"])
            .code(),
        1
    );
}
