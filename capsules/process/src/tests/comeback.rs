//! What outlives the instance, the actor and the daemon (A10, A11, A14, A21).

use astrid_sdk::child::Spec;

use super::*;

const WEB: &str = "[[processes]]\nname = \"web\"\ncommand = \"/bin/web\"\n";

/// The next daemon, in which the actor is made, and holds nothing.
fn next_daemon(bed: &mut Bed, down: Duration) {
    bed.restart_after(down);
    begun(bed, "started", json!([]));
}

fn begun(bed: &mut Bed, how: &str, ports: Value) {
    let body = json!({ "capsule": "process", "generation": 2, "ports": ports });
    bed.event(&format!("lifecycle.v1.{how}"), body).committed();
}

fn held(bed: &mut Bed, tag: &str, pid: u32) -> (u64, Value) {
    let mut spec = Spec::new("/bin/web");
    spec.tag = tag.to_owned();
    let port = bed.adopted_child(spec);
    (
        port,
        json!({ "port": port, "tag": tag, "pid": pid, "started_at_ms": 1_767_225_600_000_u64 }),
    )
}

fn events(bed: &mut Bed, name: &str) -> Vec<String> {
    let why = ask(bed, "why", json!({ "name": name })).json();
    let events = why["instances"][0]["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["what"].as_str().unwrap().to_owned())
        .collect()
}

/// Who is told that something is stopped finds it stopped, whenever the daemon is killed: before the end, and after it.
#[test]
fn stopped_stays_stopped() {
    for ended in [false, true] {
        let mut bed = bed(WEB);
        run(&mut bed, "web");
        ask(&mut bed, "stop", json!({ "name": "web", "wait": false })).json();
        if ended {
            exit(&mut bed, "web", killed("SIGTERM"));
        }
        for _ in 0..2 {
            next_daemon(&mut bed, SECOND);
            assert_eq!(state(&mut bed, "web"), "stopped", "ended before: {ended}");
            assert!(bed.children().is_empty() && bed.timers().is_empty());
        }
        ask(&mut bed, "start", json!({ "name": "web", "wait": false })).json();
        run(&mut bed, "web");
        next_daemon(&mut bed, SECOND);
        assert_eq!(
            state(&mut bed, "web"),
            "starting",
            "whoever starts it takes the stop back"
        );
    }
}

/// A11: restarts are counted on over daemons, the circuit opens at its limit and stays open, and `why` tells all of it.
#[test]
fn counters_survive() {
    let mut bed = bed(&format!("{WEB}max_restarts = 2\nbackoff = {{ base = \"0s\" }}\n"));
    for restarts in 0..2 {
        run(&mut bed, "web");
        exit(&mut bed, "web", Exit::Code(3));
        next_daemon(&mut bed, SECOND);
        let web = instance(&mut bed, "web", 0);
        assert_eq!(
            (&web["restarts"], &web["restarts_in_window"], &web["last_exit"]["code"]),
            (&json!(restarts + 1), &json!(restarts + 1), &json!(3))
        );
    }
    run(&mut bed, "web");
    exit(&mut bed, "web", Exit::Code(3));
    let before = why(&mut bed, "web");
    for _ in 0..2 {
        next_daemon(&mut bed, SECOND * 3600);
        let web = instance(&mut bed, "web", 0);
        assert_eq!((&web["circuit_open"], &web["code"]), (&json!(true), &json!(3)));
        assert!(bed.children().is_empty());
    }
    let after = why(&mut bed, "web");
    assert!(
        before.contains("the circuit is open") && after.contains("It ended with exit code 3, 2h ago."),
        "{after}"
    );
    assert!(
        events(&mut bed, "web")
            .iter()
            .any(|event| event.contains("not restarted any more"))
    );
}

/// A11: what waits for its restart waits for what is left of it, and is started at once when that passed without a daemon.
#[test]
fn a_wait_goes_on() {
    for (down, left) in [(3, 7), (11, 0)] {
        let mut bed = bed(&format!("{WEB}backoff = {{ base = \"10s\" }}\n"));
        run(&mut bed, "web");
        exit(&mut bed, "web", Exit::Code(1));
        next_daemon(&mut bed, SECOND * down);
        if left > 0 {
            assert_eq!(bed.timers(), [("wake".to_owned(), SECOND * left)]);
            advance(&mut bed, SECOND * left - Duration::from_millis(1));
            assert!(bed.children().is_empty());
            advance(&mut bed, Duration::from_millis(1));
        }
        run(&mut bed, "web");
        assert_eq!(instance(&mut bed, "web", 0)["restarts"], 1);
    }
}

/// A child that ended with its daemon did nothing wrong: it is started again, nothing is counted, and `why` says what happened.
#[test]
fn an_end_of_the_daemon_is_no_crash() {
    let mut bed = bed(&format!("{WEB}autostart = false\nmax_restarts = 1\n"));
    next_daemon(&mut bed, SECOND);
    assert_eq!(state(&mut bed, "web"), "stopped", "what never ran is not started");
    ask(&mut bed, "start", json!({ "name": "web", "wait": false })).json();
    for _ in 0..3 {
        run(&mut bed, "web");
        next_daemon(&mut bed, SECOND);
        let web = instance(&mut bed, "web", 0);
        assert_eq!(
            (&web["state"], &web["restarts"], &web["circuit_open"]),
            (&json!("starting"), &json!(0), &json!(false))
        );
        assert_eq!(web["last_exit"]["text"], "ended with the daemon, which was killed");
    }
    run(&mut bed, "web");
    bed.event("astrid.v1.shutdown", json!({})).committed();
    exit(&mut bed, "web", Exit::Code(0));
    assert_eq!(state(&mut bed, "web"), "stopped");
    next_daemon(&mut bed, SECOND);
    run(&mut bed, "web");
    // What has done its work, and is not started with the daemon, is left alone.
    exit(&mut bed, "web", Exit::Code(0));
    next_daemon(&mut bed, SECOND);
    assert_eq!(state(&mut bed, "web"), "stopped");
    assert!(bed.children().is_empty());
}

/// A stop of the daemon neither takes a stop back nor is one, and ends no wait.
#[test]
fn a_stop_of_the_daemon_is_not_by_hand() {
    let text = ["a", "b", "c"]
        .map(|name| format!("[[processes]]\nname = \"{name}\"\ncommand = \"c\"\n"))
        .concat();
    let mut bed = bed(&text);
    for name in ["a", "b", "c"] {
        run(&mut bed, name);
    }
    ask(&mut bed, "stop", json!({ "name": "b", "wait": false })).json();
    exit(&mut bed, "c", Exit::Code(1));
    bed.event("astrid.v1.shutdown", json!({})).committed();
    exit(&mut bed, "a", killed("SIGTERM"));
    exit(&mut bed, "b", killed("SIGTERM"));
    advance(&mut bed, SECOND * 2);
    assert!(bed.children().is_empty(), "nothing is started while the daemon stops");
    next_daemon(&mut bed, SECOND);
    for (name, expected) in [("a", "starting"), ("b", "stopped"), ("c", "starting")] {
        assert_eq!(state(&mut bed, name), expected, "{name}");
    }
    assert_eq!(instance(&mut bed, "c", 0)["restarts"], 1);
}

/// Rows of what is not defined any more go, also when a person removed the definition while no daemon ran.
#[test]
fn rows_go_with_their_definitions() {
    let mut bed = bed(&format!("{WEB}instances = 2\n"));
    let keys = |bed: &Bed| {
        bed.kv()
            .iter()
            .map(|entry| entry.key_text().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&bed), ["i/web/0", "i/web/1"]);
    bed.set_document("processes.toml", Some(WEB));
    next_daemon(&mut bed, SECOND);
    assert_eq!(keys(&bed), ["i/web/0"]);
    bed.set_document("processes.toml", None);
    next_daemon(&mut bed, SECOND);
    assert_eq!(keys(&bed), [""; 0]);
    bed.set_document("processes.toml", Some(WEB));
    ask(&mut bed, "start", json!({ "name": "web", "wait": false })).json();
    run(&mut bed, "web");
    let removed = ask(&mut bed, "remove", json!({ "name": "web" }));
    exit(&mut bed, "web", killed("SIGTERM"));
    assert_eq!(answer(&bed, &removed), json!({}));
    assert_eq!(keys(&bed), [""; 0]);
}

/// A row that cannot be read, and one of another version, cost their instance its past and nobody else anything.
#[test]
fn rows_that_make_no_sense_are_left_out() {
    let mut bed = Harness::new::<ProcessCapsule>().with_manifest(include_str!("../../Capsule.toml"));
    bed.set_document("processes.toml", Some(&format!("{WEB}instances = 4\n")));
    bed.put_kv("i/web/0", "nonsense");
    bed.put_kv("i/web/1", &json!({ "v": 2, "boot": 0, "machine": {}, "events": [] }));
    bed.put_kv(
        "i/web/2",
        &json!({ "v": 1, "boot": 0, "machine": { "state": { "stopped": null }, "held_down": true }, "events": [] }),
    );
    bed.put_kv("i/web/x", &json!(1));
    bed.put_kv("r/web", &json!("x"));
    begun(&mut bed, "started", json!([]));
    let states: Vec<Value> = (0..4)
        .map(|index| instance(&mut bed, "web", index)["state"].clone())
        .collect();
    assert_eq!(states, ["starting", "starting", "stopped", "starting"]);
}

/// While the table cannot be read nothing is answered and nothing is started; then all goes on.
#[test]
fn without_the_table_nothing_begins() {
    let mut bed = bed(WEB);
    run(&mut bed, "web");
    bed.evict();
    bed.set_kv_unavailable(Some("the disk is full"));
    let rolled_back = bed.ask("process.v1.request.list", json!({}));
    assert!(rolled_back.reply.is_none(), "{rolled_back:?}");
    assert_eq!(bed.children().len(), 1);
    bed.set_kv_unavailable(None);
    assert_eq!(state(&mut bed, "web"), "running");
}

/// In the same daemon: what an actor is told that it holds is right, whatever its rows say.
#[test]
fn what_is_held_is_right() {
    let mut bed = bed(&format!("{WEB}instances = 3\n"));
    for index in 0..3 {
        let port = main_child(&bed, "web", index).unwrap().port;
        bed.child_started(port).committed();
    }
    bed.evict();
    // The last moments were lost: instance 0 had ended and was started again, and instance 1 had ended.
    let known = main_child(&bed, "web", 2).unwrap();
    let (port, newer) = held(&mut bed, "p/web/0/1", 4242);
    let same =
        json!({ "port": known.port, "tag": known.spec.tag, "pid": known.pid, "started_at_ms": 1_767_225_600_000_u64 });
    begun(&mut bed, "restarted", json!([same, newer]));
    let first = instance(&mut bed, "web", 0);
    assert_eq!((&first["pid"], &first["restarts"]), (&json!(4242), &json!(1)));
    assert!(bed.children().iter().all(|child| child.signals.is_empty()));
    // The word of its end may still come; then nobody knows how it ended, and it is no crash.
    assert_eq!(instance(&mut bed, "web", 1)["state"], "running");
    advance(&mut bed, SECOND * 2);
    let second = instance(&mut bed, "web", 1);
    assert_eq!(
        (&second["state"], &second["restarts_in_window"]),
        (&json!("starting"), &json!(0))
    );
    assert_eq!(instance(&mut bed, "web", 2)["pid"], json!(known.pid));
    bed.child_exited(port, Exit::Code(1)).committed();
    assert_eq!(instance(&mut bed, "web", 0)["state"], "crashed");
}

/// In another daemon an adopted child is found by its tag, and a stop that was told goes on with it.
#[test]
fn adopted_children_find_their_rows() {
    let mut bed = bed(&format!("{WEB}instances = 2\nadopt = true\n"));
    for index in 0..2 {
        let port = main_child(&bed, "web", index).unwrap().port;
        bed.child_started(port).committed();
    }
    ask(&mut bed, "stop", json!({ "name": "web", "instance": 1, "wait": false })).json();
    bed.restart_after(SECOND);
    let (zero, first) = held(&mut bed, "p/web/0/0", 77);
    let (one, second) = held(&mut bed, "p/web/1/0", 78);
    begun(&mut bed, "started", json!([first, second]));
    assert!(bed.child("p/web/0/0").signals.is_empty());
    assert_eq!(bed.child("p/web/1/0").signals, [(Signal::Terminate, Reach::Group)]);
    bed.child_exited(one, killed("SIGTERM")).committed();
    assert_eq!(instance(&mut bed, "web", 1)["state"], "stopped");
    bed.child_exited(zero, Exit::Code(1)).committed();
    assert_eq!(instance(&mut bed, "web", 0)["restarts"], 1);
}

/// A15: a roll goes on with the next instance of the actor.
#[test]
fn a_roll_goes_on() {
    let text = |command: &str| format!("[[processes]]\nname = \"web\"\ncommand = \"{command}\"\ninstances = 3\n");
    let mut bed = bed(&text("one"));
    for index in 0..3 {
        let port = main_child(&bed, "web", index).unwrap().port;
        bed.child_started(port).committed();
    }
    ask(&mut bed, "apply", json!({ "text": text("two") })).json();
    for index in 0..3 {
        bed.evict();
        let old = main_child(&bed, "web", index).unwrap();
        assert_eq!(old.signals.len(), 1, "{index}");
        bed.child_exited(old.port, killed("SIGTERM")).committed();
        bed.evict();
        let new = main_child(&bed, "web", index).unwrap();
        assert_eq!(new.spec.program, "two");
        bed.child_started(new.port).committed();
    }
    assert!(bed.kv().iter().all(|entry| !entry.key.starts_with(b"r/")));
}

/// What changes nothing writes nothing, and costs no timer.
#[test]
fn at_rest_nothing_is_written() {
    let mut bed = bed(WEB);
    run(&mut bed, "web");
    let before = bed.kv();
    bed.set_kv_unavailable(Some("a write would fail"));
    ask(&mut bed, "list", json!({})).json();
    ask(&mut bed, "status", json!({ "name": "web" })).json();
    bed.set_kv_unavailable(None);
    assert_eq!((bed.kv().len(), bed.timers().len()), (before.len(), 0));
}
