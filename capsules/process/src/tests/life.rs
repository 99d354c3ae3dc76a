//! States, restarts, health, stop.

use super::*;

const WEB: &str = "[[processes]]\nname = \"web\"\ncommand = \"/bin/web\"\nargs = [\"-p\", \"80\"]\n";

/// A10: a pid is present iff running; A9: it is started as its definition says.
#[test]
fn a_defined_process_runs() {
    let document =
        format!("{WEB}cwd = \"/srv\"\nenv = {{ MODE = \"x\", API_KEY = \"hush\", B = \"c\" }}\nsecrets = [\"B\"]\n");
    let mut bed = bed(&document);
    let spec = child(&bed, "web").spec;
    assert_eq!((spec.program.as_str(), spec.args.len()), ("/bin/web", 2));
    assert_eq!(spec.cwd.as_deref(), Some("/srv"));
    assert_eq!(spec.secrets, ["API_KEY", "B"]);
    assert!(spec.env.contains(&("ASTRID_INSTANCE".to_owned(), "0".to_owned())));
    let files: Vec<_> = [&spec.stdout, spec.stderr.as_ref().unwrap()]
        .map(|sink| sink.file.as_ref().unwrap().name.clone())
        .into();
    assert_eq!(files, ["web-0.out.log", "web-0.err.log"]);

    let before = instance(&mut bed, "web", 0);
    assert_eq!((&before["state"], &before["pid"]), (&json!("starting"), &Value::Null));
    let pid = run(&mut bed, "web").pid;
    let after = instance(&mut bed, "web", 0);
    assert_eq!((&after["state"], &after["pid"]), (&json!("running"), &json!(pid)));
    let status = ask(&mut bed, "status", json!({ "name": "web" })).json();
    assert_eq!(status["env"], json!({ "MODE": "x", "API_KEY": "***", "B": "***" }));
    let told: Vec<_> = bed
        .published()
        .iter()
        .map(|said| said.json()["state"].clone())
        .collect();
    assert_eq!(told, ["starting", "running"]);
    assert_eq!(bed.timers(), [], "at rest nothing wakes it");
}

/// A11: exit 0 does not restart; failures do, after 1 s, 2 s, 4 s ...; at the sixth within 60 s the circuit opens until told.
#[test]
fn failures_restart_until_the_circuit_opens() {
    let mut bed = bed(WEB);
    for wait in [1, 2, 4, 8, 16] {
        run(&mut bed, "web");
        exit(&mut bed, "web", Exit::Code(3));
        assert_eq!(state(&mut bed, "web"), "crashed");
        assert!(main_child(&bed, "web", 0).is_none());
        advance(&mut bed, SECOND * wait - Duration::from_millis(1));
        assert!(main_child(&bed, "web", 0).is_none(), "earlier than {wait} s");
        advance(&mut bed, Duration::from_millis(1));
    }
    run(&mut bed, "web");
    exit(&mut bed, "web", Exit::Code(3));
    let down = instance(&mut bed, "web", 0);
    assert_eq!(
        (&down["circuit_open"], &down["restarts"], &down["code"]),
        (&json!(true), &json!(5), &json!(3))
    );
    assert!(
        bed.published()
            .iter()
            .any(|said| said.topic == "process.v1.event.circuit")
    );
    advance(&mut bed, SECOND * 3600);
    assert!(main_child(&bed, "web", 0).is_none());
    let said = why(&mut bed, "web");
    assert!(
        said.contains("It ended with exit code 3, 1h ago.") && said.contains("the circuit is open"),
        "{said}"
    );

    let asked = ask(&mut bed, "start", json!({ "name": "web" }));
    assert!(asked.is_pending());
    run(&mut bed, "web");
    let web = &answer(&bed, &asked)["processes"][0]["instances"][0];
    assert_eq!(
        (&web["state"], &web["circuit_open"]),
        (&json!("running"), &json!(false))
    );

    exit(&mut bed, "web", Exit::Code(0));
    assert_eq!(state(&mut bed, "web"), "stopped");
    assert!(why(&mut bed, "web").contains("exit code 0 is no failure"));
}

/// A11: who ran for min_uptime begins with a clean record.
#[test]
fn a_long_run_clears_the_record() {
    let mut bed = bed(&format!("{WEB}max_restarts = 1\nbackoff = {{ base = \"0s\" }}\n"));
    for _ in 0..4 {
        run(&mut bed, "web");
        advance(&mut bed, SECOND * 30);
        exit(&mut bed, "web", killed("SIGSEGV"));
        assert!(main_child(&bed, "web", 0).is_some(), "restarted in the same moment");
    }
    run(&mut bed, "web");
    exit(&mut bed, "web", Exit::Code(1));
    assert_eq!(instance(&mut bed, "web", 0)["circuit_open"], true);
}

/// A14: the signal, the time, the kill of the whole tree, and the word that it is stuck.
#[test]
fn a_stop_is_asked_then_enforced_then_told() {
    let mut bed = bed(&format!("{WEB}stop = {{ signal = \"SIGINT\", timeout = \"10s\" }}\n"));
    run(&mut bed, "web");
    let asked = ask(&mut bed, "stop", json!({ "name": "web" }));
    assert_eq!(child(&bed, "web").signals, [(Signal::Interrupt, Reach::Group)]);
    let refused = ask(&mut bed, "start", json!({ "name": "web" })).refused();
    assert_eq!(refused.code(), "stopping");
    advance(&mut bed, SECOND * 10);
    assert_eq!(child(&bed, "web").signals[1], (Signal::Kill, Reach::Tree));
    advance(&mut bed, SECOND * 5);
    assert!(matches!(bed.reply(asked.to), Some(Err(problem)) if problem.code() == "stuck"));
    assert!(instance(&mut bed, "web", 0)["pid"].is_number());
    exit(&mut bed, "web", killed("SIGKILL"));
    assert_eq!(state(&mut bed, "web"), "terminated");
    assert_eq!(bed.timers(), []);
    // It stays down: it was told to.
    advance(&mut bed, SECOND * 3600);
    assert!(bed.children().is_empty());
}

/// A14: a command runs before the signal, and no longer than the stop may take.
#[test]
fn a_command_runs_before_the_stop() {
    let mut bed = bed(&format!(
        "{WEB}stop = {{ command = \"drain\", args = [\"now\"], timeout = \"10s\" }}\n"
    ));
    for slow in [false, true] {
        run(&mut bed, "web");
        let asked = ask(&mut bed, "stop", json!({ "name": "web" }));
        let drain = bed.child("s/web/0");
        assert_eq!(drain.spec.args, ["now"]);
        assert!(child(&bed, "web").signals.is_empty());
        if slow {
            advance(&mut bed, SECOND * 10);
            assert_eq!(bed.child("s/web/0").signals, [(Signal::Kill, Reach::Tree)]);
        } else {
            bed.child_exited(drain.port, Exit::Code(0)).committed();
        }
        assert_eq!(child(&bed, "web").signals, [(Signal::Terminate, Reach::Group)]);
        exit(&mut bed, "web", Exit::Code(0));
        assert_eq!(answer(&bed, &asked)["processes"][0]["instances"][0]["state"], "stopped");
        ask(&mut bed, "start", json!({ "name": "web", "wait": false })).json();
    }
}

/// A12: unhealthy after three failures, and a failing check restarts; a check that hangs is ended and counts.
#[test]
fn failing_checks_restart() {
    let health = "health = { kind = \"tcp\", address = \"127.0.0.1:80\", interval = \"10s\" }\n";
    let mut bed = bed(&format!("{WEB}{health}backoff = {{ base = \"0s\" }}\n"));
    run(&mut bed, "web");
    assert_eq!(instance(&mut bed, "web", 0)["health"], "unknown");
    advance(&mut bed, SECOND);
    let check = bed.child("h/web/0");
    assert_eq!(check.spec.program, "@astrid");
    assert_eq!(check.spec.args[..3], ["__probe", "tcp", "127.0.0.1:80"]);
    bed.child_exited(check.port, Exit::Code(0)).committed();
    assert_eq!(instance(&mut bed, "web", 0)["health"], "healthy");

    for failure in 0..3 {
        advance(&mut bed, SECOND * 10);
        let check = bed.child("h/web/0");
        if failure == 0 {
            advance(&mut bed, SECOND * 5);
            assert_eq!(bed.child("h/web/0").signals, [(Signal::Kill, Reach::Tree)]);
            bed.child_exited(check.port, killed("SIGKILL")).committed();
        } else {
            bed.child_wrote(
                check.port,
                astrid_wire::child::STDOUT_CONTENT_TYPE,
                b"connection refused\n",
            )
            .committed();
            bed.child_exited(check.port, Exit::Code(1)).committed();
        }
    }
    let sick = instance(&mut bed, "web", 0);
    assert_eq!(
        (&sick["state"], &sick["health"]),
        (&json!("stopping"), &json!("unhealthy"))
    );
    assert_eq!(sick["health_detail"], "connection refused");
    let states: Vec<_> = bed
        .published()
        .iter()
        .map(|said| said.json()["state"].clone())
        .collect();
    assert_eq!(states[states.len() - 2..], ["unhealthy", "stopping"]);
    exit(&mut bed, "web", Exit::Code(0));
    run(&mut bed, "web");
    let well = instance(&mut bed, "web", 0);
    assert_eq!(
        (&well["state"], &well["health"]),
        (&json!("running"), &json!("unknown"))
    );
    assert_eq!(well["restarts"], 1);
}

/// A12: with `restart = "never"` health is told, and nothing is done about it.
#[test]
fn health_of_what_is_never_restarted_is_only_told() {
    let health = "restart = \"never\"\nhealth = { kind = \"script\", command = \"check\", unhealthy_after = 1 }\n";
    let mut bed = bed(&format!("{WEB}{health}"));
    run(&mut bed, "web");
    advance(&mut bed, SECOND);
    let check = bed.child("h/web/0").port;
    bed.child_exited(check, Exit::Code(2)).committed();
    let sick = instance(&mut bed, "web", 0);
    assert_eq!(
        (&sick["state"], &sick["health_detail"]),
        (&json!("unhealthy"), &json!("the check ended with exit code 2"))
    );
    assert!(child(&bed, "web").signals.is_empty());
    advance(&mut bed, SECOND * 30);
    let check = bed.child("h/web/0").port;
    bed.child_exited(check, Exit::Code(0)).committed();
    assert_eq!(state(&mut bed, "web"), "running");
    exit(&mut bed, "web", Exit::Code(1));
    assert_eq!(state(&mut bed, "web"), "crashed");
    assert!(why(&mut bed, "web").contains("restart = \"never\""));
}

/// What cannot be started says why, to who asked and afterwards, and is not tried without end.
#[test]
fn what_cannot_start_says_why() {
    let mut bed = bed("");
    bed.refuse_program(
        "nginx",
        astrid_sdk::error::SpawnError::NotFound("nginx: not in /usr/bin".to_owned()),
    );
    let defined = ask(
        &mut bed,
        "define",
        json!({ "process": { "name": "web", "command": "nginx" } }),
    )
    .json();
    assert_eq!(defined["instances"][0]["state"], "starting");
    assert_eq!(state(&mut bed, "web"), "crashed");
    let said = why(&mut bed, "web");
    assert!(
        said.contains("could not be started: no such program: nginx: not in /usr/bin"),
        "{said}"
    );
    let asked = ask(&mut bed, "start", json!({ "name": "web" }));
    assert_eq!(asked.refused().code(), "child.not-found");
    assert_eq!(bed.timers(), []);

    bed.allow_program("nginx");
    let asked = ask(&mut bed, "start", json!({ "name": "web" }));
    let port = child(&bed, "web").port;
    let problem = Problem::new("child.no-directory", "no such directory: /srv");
    bed.child_failed(port, &problem).committed();
    assert!(matches!(bed.reply(asked.to), Some(Err(problem)) if problem.code() == "child.no-directory"));
}

/// What ends while it is started by `restart` is answered with how it is, and a stop beats a restart.
#[test]
fn a_stop_beats_a_restart() {
    let mut bed = bed(WEB);
    run(&mut bed, "web");
    let restart = ask(&mut bed, "restart", json!({ "name": "web" }));
    let stop = ask(&mut bed, "stop", json!({ "name": "web" }));
    exit(&mut bed, "web", killed("SIGTERM"));
    assert_eq!(
        answer(&bed, &restart)["processes"][0]["instances"][0]["state"],
        "stopped"
    );
    assert_eq!(answer(&bed, &stop)["processes"][0]["instances"][0]["signal"], "SIGTERM");
    assert!(bed.children().is_empty());

    ask(&mut bed, "start", json!({ "name": "web", "wait": false })).json();
    run(&mut bed, "web");
    let restart = ask(&mut bed, "restart", json!({ "name": "web" }));
    exit(&mut bed, "web", killed("SIGTERM"));
    assert!(bed.reply(restart.to).is_none());
    run(&mut bed, "web");
    assert_eq!(
        answer(&bed, &restart)["processes"][0]["instances"][0]["state"],
        "running"
    );
}

/// Children of an earlier generation are gone on with by their tags; what nobody wants is ended.
#[test]
fn children_of_an_earlier_generation_are_adopted() {
    use astrid_sdk::child::Spec;
    let mut bed = Harness::new::<ProcessCapsule>().with_manifest(include_str!("../../Capsule.toml"));
    bed.set_document("processes.toml", Some(&format!("{WEB}instances = 2\nadopt = true\n")));
    let held = ["p/web/0/7", "p/web/5/0", "p/old/0/0", "h/web/0"].map(|tag| {
        let mut spec = Spec::new("/bin/web");
        spec.tag = tag.to_owned();
        let port = bed.adopted_child(spec);
        json!({ "port": port, "tag": tag, "pid": 77, "started_at_ms": 1_767_225_600_000_u64 - 60_000 })
    });
    let begun = json!({ "capsule": "process", "generation": 2, "ports": held });
    bed.event("lifecycle.v1.restarted", begun).committed();
    let first = instance(&mut bed, "web", 0);
    assert_eq!(
        (&first["pid"], &first["uptime_ms"], &first["restarts"]),
        (&json!(77), &json!(60_000), &json!(7))
    );
    assert_eq!(instance(&mut bed, "web", 1)["state"], "starting");
    assert!(bed.child("p/web/0/7").signals.is_empty());
    assert_eq!(bed.child("p/web/5/0").signals, [(Signal::Terminate, Reach::Group)]);
    assert_eq!(bed.child("h/web/0").signals, [(Signal::Kill, Reach::Tree)]);
    advance(&mut bed, SECOND * 10);
    assert_eq!(
        bed.child("p/old/0/0").signals.last(),
        Some(&(Signal::Kill, Reach::Tree))
    );
    // Whose keeper is lost did nothing wrong: it comes back at once, and that does not count for the circuit.
    exit(&mut bed, "web", Exit::Lost);
    let first = instance(&mut bed, "web", 0);
    assert_eq!(
        (&first["state"], &first["restarts_in_window"]),
        (&json!("starting"), &json!(0))
    );
}

/// K4: everything ends that does not stay, in parallel, 8 s at most; then the daemon is told.
#[test]
fn a_stopping_daemon_is_told_when_all_has_ended() {
    let document =
        format!("{WEB}stop = {{ timeout = \"60s\" }}\n[[processes]]\nname = \"stay\"\ncommand = \"s\"\nadopt = true\n");
    let mut bed = bed(&document);
    run(&mut bed, "web");
    run(&mut bed, "stay");
    bed.published();
    bed.event("astrid.v1.shutdown", json!({})).committed();
    assert_eq!(ask(&mut bed, "restart", json!({})).refused().code(), "stopping");
    advance(&mut bed, SECOND * 8);
    assert_eq!(child(&bed, "web").signals.last(), Some(&(Signal::Kill, Reach::Tree)));
    let done = |bed: &mut Bed| {
        bed.published()
            .iter()
            .any(|said| said.topic == "astrid.v1.shutdown.done")
    };
    assert!(!done(&mut bed));
    exit(&mut bed, "web", killed("SIGKILL"));
    assert!(done(&mut bed));
    assert!(child(&bed, "stay").signals.is_empty());
    assert!(main_child(&bed, "web", 0).is_none());
}

#[test]
fn with_nothing_running_the_daemon_is_told_at_once() {
    let mut bed = bed("");
    bed.event("astrid.v1.shutdown", json!({})).committed();
    assert_eq!(bed.published()[0].topic, "astrid.v1.shutdown.done");
}

/// CPU: over its life at first, then since it was last looked at, at most twice a second.
#[test]
fn what_it_uses_is_told() {
    let mut bed = bed(WEB);
    let port = run(&mut bed, "web").port;
    let uses = |cpu_ms| astrid_sdk::child::Usage {
        processes: 2,
        cpu_ms,
        memory_bytes: 4096,
    };
    advance(&mut bed, SECOND * 10);
    bed.child_uses(port, uses(1000));
    let first = instance(&mut bed, "web", 0);
    assert_eq!((&first["cpu_percent"], &first["processes"]), (&json!(10.0), &json!(2)));
    advance(&mut bed, SECOND / 4);
    bed.child_uses(port, uses(1250));
    assert_eq!(instance(&mut bed, "web", 0)["cpu_percent"], 10.0);
    advance(&mut bed, SECOND / 4);
    assert_eq!(instance(&mut bed, "web", 0)["cpu_percent"], 50.0);
}
