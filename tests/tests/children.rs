//! Programs outside of the daemon, from a capsule's side: what is refused, what is heard, what survives a fault, and what nobody may
//! reach.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Condvar, Mutex};

use astrid_kernel::authority::Policy;
use astrid_kernel::bus::Subscribed;
use astrid_kernel::bus::inbox::Inbox;
use astrid_kernel::bus::message::Body;
use astrid_kernel::keeper::protocol::Layers;
use astrid_kernel::port::child::Count;
use astrid_kernel::port::child::mount::{Checkout, Free, Room, Taken, Uncounted, Workspaces};
use astrid_tests::bed::{Bed, PATIENCE, answer, refusal};
use astrid_tests::herd::{Herd, MARK};
use astrid_wire::authority::{GroupsFile, Profile};
use astrid_wire::{Principal, Problem};
use serde_json::{Value, json};

/// Runs a test in the runtime that a kernel lives in.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test takes too long")
    });
}

/// A kernel with the guest that runs programs, and what that tells.
struct Yard {
    bed: Bed,
    events: Arc<Inbox>,
    _heard: Vec<Subscribed>,
}

impl Yard {
    async fn new() -> Self {
        let bed = Bed::new(&["runner"]).await;
        let (events, heard) = bed.hear("runner.v1.event.>");
        Self {
            bed,
            events,
            _heard: heard,
        }
    }

    /// The next event of that name; others are passed over.
    async fn event(&self, name: &str) -> Value {
        loop {
            let message = self.events.next().await.unwrap().message;
            if message.topic.as_str().strip_prefix("runner.v1.event.") == Some(name) {
                return serde_json::from_slice(&message.body.bytes).unwrap();
            }
        }
    }

    async fn run(&self, run: Value) -> u64 {
        answer(self.bed.ask("runner.v1.do.run", run).await)["port"]
            .as_u64()
            .unwrap()
    }

    async fn refused(&self, run: Value) -> String {
        refusal(self.bed.ask("runner.v1.do.run", run).await)
    }

    /// Runs a script to its end; gives what it wrote and how it ended.
    async fn script(&self, script: &str, more: Value) -> (String, Value) {
        let mut run = json!({ "program": "/bin/sh", "args": ["-c", script], "messages": true });
        run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.run(run).await;
        let mut text = String::new();
        loop {
            let message = self.events.next().await.unwrap().message;
            let body: Value = serde_json::from_slice(&message.body.bytes).unwrap();
            match message.topic.as_str() {
                "runner.v1.event.output" => text.push_str(body["text"].as_str().unwrap()),
                "runner.v1.event.exited" => return (text, body),
                "runner.v1.event.failed" => panic!("it does not start: {body}"),
                _ => {}
            }
        }
    }
}

/// Exits are told with code or signal, after everything that was written.
#[test]
fn a_program_runs_and_its_end_is_told() {
    run(async {
        let yard = Yard::new().await;
        let (text, exited) = yard
            .script("echo out; echo err >&2; exit 3", json!({ "tag": "t" }))
            .await;
        assert_eq!(
            (text.as_str(), &exited["exit"], &exited["tag"]),
            ("out\nerr\n", &json!({ "code": 3 }), &json!("t"))
        );
        let (_, exited) = yard.script("kill -SEGV $$", json!({})).await;
        assert_eq!(exited["exit"]["signal"]["name"], "SIGSEGV");
        // Its group and its tree end with it.
        let mark = format!("leaves-{}", std::process::id());
        let herd = Herd::of(&mark);
        let script = "(setsid sleep 1000000 &); sleep 1000000 & exit 0";
        let (_, exited) = yard.script(script, json!({ "env": { MARK: mark } })).await;
        assert!(exited["left_behind"].as_u64().unwrap() >= 1, "{exited}");
        herd.wait_until_gone();
    });
}

/// What can be seen before is refused before, typed; what only the start shows comes as an event with its stage.
#[test]
fn what_cannot_run_is_refused_by_kind() {
    run(async {
        let yard = Yard::new().await;
        let place = tempfile::tempdir().unwrap();
        let plain = place.path().join("plain");
        fs::write(&plain, "no program").unwrap();
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        for (spec, code) in [
            (json!({ "program": "no-such-program" }), "child.not-found"),
            (json!({ "program": "/no/such/program" }), "child.not-found"),
            (json!({ "program": plain }), "child.not-executable"),
            (json!({ "program": "/" }), "child.not-executable"),
            (json!({ "program": "./sh" }), "invalid"),
            (json!({ "program": "sh", "cwd": "/no/such" }), "child.no-directory"),
            (json!({ "program": "sh", "cwd": "relative" }), "child.no-directory"),
            (json!({ "program": "sh", "args": ["a\u{0}b"] }), "invalid"),
            (json!({ "program": "sh", "env": { "ASTRID_CHILD": "x" } }), "invalid"),
            (json!({ "program": "sh", "log": "../escape" }), "invalid"),
            (json!({ "program": "sh", "secrets": ["NONE"] }), "invalid"),
            (json!({ "program": "sh", "args": ["x".repeat(200_000)] }), "invalid"),
        ] {
            assert_eq!(yard.refused(spec.clone()).await, code, "{spec}");
        }
        if rustix::process::geteuid().is_root() {
            assert_eq!(
                yard.refused(json!({ "program": "sh", "processes": 10 })).await,
                "child.unsupported"
            );
        }
        // Two writers of one file would rotate each other's.
        yard.run(json!({ "program": "sleep", "args": ["1000000"], "log": "same" }))
            .await;
        yard.event("started").await;
        assert_eq!(
            yard.refused(json!({ "program": "true", "log": "same" })).await,
            "invalid"
        );
        // No more than the hard limit can be had.
        yard.run(json!({ "program": "true", "open_files": 1_u64 << 40 })).await;
        assert_eq!(yard.event("failed").await["code"], "child.limit");
        // A script whose interpreter is missing fails where it is executed.
        let script = place.path().join("script");
        fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        yard.run(json!({ "program": script })).await;
        assert_eq!(yard.event("failed").await["code"], "child.not-executable");
        // What is no program is not given to a shell.
        fs::write(&script, "echo no interpreter is named\n").unwrap();
        yard.run(json!({ "program": script })).await;
        assert_eq!(yard.event("failed").await["code"], "child.not-executable");
    });
}

/// A scrubbed environment, a session of its own, no privileges to gain, nothing inherited.
#[test]
fn a_child_has_what_it_was_given_and_nothing_else() {
    run(async {
        let yard = Yard::new().await;
        let script = "env | cut -d= -f1 | sort | tr '\\n' ' '; ls /proc/self/fd | wc -l; grep NoNewPrivs /proc/self/status; \
                      ps -o pid=,sid=,pgid= -p $$ | awk '{ print ($1 == $2 && $2 == $3) ? \"leads\" : \"follows\" }'; pwd";
        let (text, _) = yard
            .script(script, json!({ "env": { "PORT": "80" }, "cwd": "/usr" }))
            .await;
        let lines: Vec<&str> = text.lines().collect();
        let known = [
            "ASTRID_CHILD",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "PORT",
            "PWD",
            "SHELL",
            "SHLVL",
            "TZ",
            "USER",
            "_",
            "OLDPWD",
        ];
        let names: Vec<&str> = lines[0].split_whitespace().collect();
        let (count, names) = names.split_last().unwrap();
        assert!(
            names.contains(&"PORT") && names.iter().all(|name| known.contains(name)),
            "{names:?}"
        );
        // Standard input, output and errors, and the one that `ls` reads the directory with.
        assert_eq!(*count, "4", "{text}");
        assert_eq!(&lines[1..], ["NoNewPrivs:\t1", "leads", "/usr"], "{text}");
    });
}

/// A child reads no key or token, makes nothing in the private directories, and cannot signal who holds it; with `sandbox = none`, which
/// status counts, it can.
#[test]
fn a_child_reaches_nothing_of_the_home_that_is_private() {
    run(async {
        let yard = Yard::new().await;
        let home = yard.bed.host.home.root().display().to_string();
        let own = std::process::id();
        let keeper = || yard.bed.host.children.count().keeper.unwrap();
        let attempts = format!(
            "for f in {home}/keys/runtime.key {home}/run/token; do cat $f >/dev/null 2>&1 && echo \"read $f\"; done; \
             (echo x >{home}/etc/astrid.toml) 2>/dev/null && echo wrote; mkdir {home}/var/x 2>/dev/null && echo made; \
             mv {home}/keys {home}/stolen 2>/dev/null && echo moved; \
             (echo x >{home}/capsules/x.capsule) 2>/dev/null && echo planted; (echo x >{home}/log/x) 2>/dev/null && echo logged; \
             prlimit --pid {own} --nofile=1:1 2>/dev/null && echo limited; prlimit --pid {own} --nofile >/dev/null || echo blind; \
             (ulimit -n 100) || echo bound; kill -9 $PPID 2>/dev/null && echo killed; \
             cat /proc/{own}/root/{home}/keys/runtime.key 2>/dev/null; echo done"
        );
        fs::create_dir_all(format!("{home}/keys")).unwrap();
        fs::write(format!("{home}/keys/runtime.key"), "secret").unwrap();
        let (text, _) = yard.script(&attempts, json!({})).await;
        assert_eq!(text, "done\n", "the keeper is {}", keeper());
        let open = format!("cat {home}/keys/runtime.key; sleep 1000000");
        yard.run(json!({ "program": "sh", "args": ["-c", open], "messages": true, "open": true }))
            .await;
        assert_eq!(yard.event("output").await["text"], "secret");
        let Count { all, unprotected, .. } = yard.bed.host.children.count();
        assert_eq!((all, unprotected), (1, 1));
    });
}

/// A18: a confined child writes what it was given, has a `/tmp` of its principal's, and speaks to nobody; what the audit log has of that is
/// what was asked for.
#[test]
fn a_confined_child_has_what_it_was_given() {
    run(async {
        let yard = Yard::new().await;
        let place = tempfile::Builder::new().prefix("given").tempdir_in("/var/tmp").unwrap();
        let here = place.path().display().to_string();
        // Not what another run of this test on this machine writes.
        let note = format!("note-{}", std::process::id());
        let outside = format!("/var/tmp/outside-{}", std::process::id());
        let home = yard.bed.host.home.root().display().to_string();
        let script = format!(
            "echo x >{here}/file && echo wrote; (echo x >{outside}) 2>/dev/null && echo outside; echo kept >/tmp/{note}; cat /tmp/{note}; \
             chmod 777 {home}/etc 2>/dev/null && echo opened; mount -t tmpfs none /mnt 2>/dev/null && echo mounted; echo done"
        );
        let more = json!({ "write": [here, "tmp://"], "silent": true, "cwd": here });
        let (text, exited) = yard.script(&script, more.clone()).await;
        assert_eq!(text, "wrote\nkept\ndone\n");
        assert!(exited["violation"].is_null(), "{exited}");
        // The next one of this principal finds it, and nobody else.
        let (text, _) = yard.script(&format!("cat /tmp/{note}"), more).await;
        assert_eq!(text, "kept\n");
        assert!(!std::path::Path::new("/tmp").join(&note).exists());
        let note = yard.bed.host.home.root().join("var/tmp/default").join(&note);
        assert_eq!(fs::read_to_string(note).unwrap(), "kept\n");
        for (more, code) in [
            (json!({ "write": ["relative"] }), "invalid"),
            (json!({ "write": ["workspace://"] }), "invalid"),
            (json!({ "overlay": true, "adopt": true }), "invalid"),
            (json!({ "overlay": true }), "child.unsupported"),
            (json!({ "copy": 1 }), "child.unsupported"),
        ] {
            let mut run = json!({ "program": "true" });
            run.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(yard.refused(run.clone()).await, code, "{run}");
        }
        // What is the daemon's, or not there, is a failure that names it.
        for path in [format!("{home}/etc"), "/no/such".to_owned()] {
            yard.run(json!({ "program": "true", "write": [path] })).await;
            let failed = yard.event("failed").await;
            assert!(
                failed["code"] == "child.sandbox" && failed.to_string().contains(&path),
                "{failed}"
            );
        }
    });
}

/// What a program was ended for by the system is said with its end.
#[test]
fn a_violation_is_named() {
    run(async {
        let yard = Yard::new().await;
        for (script, part) in [("kill -SYS $$", "system call"), ("kill -XCPU $$", "processor time")] {
            let (_, exited) = yard.script(script, json!({})).await;
            assert!(exited["violation"].as_str().unwrap().contains(part), "{exited}");
        }
    });
}

/// A workspace in a directory, for everybody.
struct Workshop(std::path::PathBuf);

impl Workspaces for Workshop {
    fn layers(&self, _: &Principal) -> Result<Layers, String> {
        let place = |name: &str| self.0.join(name);
        let layers = Layers::of(place("lower"), place("upper"), place("work"));
        layers.map_err(|error| error.to_string())
    }

    fn check_out(&self, _: &Principal, bytes_max: u64) -> Result<Arc<dyn Checkout>, String> {
        Err(format!("it is larger than {bytes_max} bytes"))
    }

    fn room(&self, _: &Principal, _: u64) -> Result<Room, Uncounted> {
        Ok(Room::Left)
    }

    fn free(&self, _: &Principal) -> Option<Free> {
        None
    }
}

/// Workspaces that take for ever to be copied, unless they are given up.
#[derive(Debug, Clone, Default)]
struct Endless(Arc<(Mutex<bool>, Condvar)>);

impl Workspaces for Endless {
    fn layers(&self, _: &Principal) -> Result<Layers, String> {
        Err("it cannot be mounted".to_owned())
    }

    fn check_out(&self, _: &Principal, _: u64) -> Result<Arc<dyn Checkout>, String> {
        Ok(Arc::new(self.clone()))
    }

    fn room(&self, _: &Principal, _: u64) -> Result<Room, Uncounted> {
        Ok(Room::Left)
    }

    fn free(&self, _: &Principal) -> Option<Free> {
        None
    }
}

impl Checkout for Endless {
    fn place(&self) -> &std::path::Path {
        "/nowhere".as_ref()
    }

    fn lower(&self) -> &std::path::Path {
        "/nowhere".as_ref()
    }

    fn make(&self) -> Result<(), Problem> {
        let (over, told) = &*self.0;
        drop(told.wait_while(over.lock().unwrap(), |over| !*over).unwrap());
        Err(Problem::new("child.no-copy", "it was given up"))
    }

    fn give_up(&self) {
        let (over, told) = &*self.0;
        *over.lock().unwrap() = true;
        told.notify_all();
    }

    fn take_back(&self) -> Result<Taken, String> {
        // As the real one: not while it is being made.
        drop(self.make());
        Ok(Taken::default())
    }
}

/// A program that waits for its copy can be stopped; nobody waits for the copy then.
#[test]
fn a_copy_that_is_not_wanted_is_given_up() {
    run(async {
        let yard = Yard::new().await;
        yard.bed.host.children.set_workspaces(Arc::new(Endless::default()));
        let port = yard.run(json!({ "program": "true", "copy": 5 })).await;
        let _ = answer(yard.bed.ask("runner.v1.do.kill", json!({ "port": port })).await);
        assert_eq!(yard.event("failed").await["code"], "child.withdrawn");
    });
}

/// Children of one principal see one workspace in its own place, the daemon sees what they do there, and it is gone with the last of them.
#[test]
fn children_share_a_workspace() {
    run(async {
        let yard = Yard::new().await;
        let place = tempfile::Builder::new()
            .prefix("workshop")
            .tempdir_in("/var/tmp")
            .unwrap();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let lower = place.path().join("lower");
        fs::write(lower.join("file"), "before\n").unwrap();
        let children = &yard.bed.host.children;
        children.set_workspaces(Arc::new(Workshop(place.path().to_owned())));
        let confined = json!({ "write": ["workspace://"], "overlay": true });
        let script = "echo after >>file; echo made >new; (echo x >../outside) 2>/dev/null; pwd; sleep 1000000";
        let mut first = json!({ "program": "sh", "args": ["-c", script], "messages": true });
        first
            .as_object_mut()
            .unwrap()
            .extend(confined.as_object().unwrap().clone());
        let port = yard.run(first).await;
        assert_eq!(yard.event("output").await["text"], format!("{}\n", lower.display()));
        let default: Principal = "default".parse().unwrap();
        let root = children.mounts().of(&default).unwrap().root().unwrap().unwrap();
        let read = |name: &str| {
            let flags = rustix::fs::OFlags::RDONLY;
            let file = rustix::fs::openat(&root, name, flags, rustix::fs::Mode::empty()).unwrap();
            std::io::read_to_string(fs::File::from(file)).unwrap()
        };
        assert_eq!(
            (read("file").as_str(), read("new").as_str()),
            ("before\nafter\n", "made\n")
        );
        assert_eq!(fs::read_to_string(lower.join("file")).unwrap(), "before\n");
        // Not beside a child that still runs, and one that is not confined sees the same.
        let second = json!({ "program": "sh", "args": ["-c", "cat file"], "messages": true, "overlay": true });
        yard.run(second).await;
        assert_eq!(yard.event("output").await["text"], "before\nafter\n");
        yard.event("exited").await;
        assert!(children.mounts().of(&default).is_some());
        let _ = answer(yard.bed.ask("runner.v1.do.kill", json!({ "port": port })).await);
        yard.event("exited").await;
        assert!(children.mounts().of(&default).is_none());
        assert!(!place.path().join("outside").exists() && !lower.join("new").exists());
        assert_eq!(
            yard.refused(json!({ "program": "true", "copy": 5 })).await,
            "child.unsupported"
        );
        // What cannot be mounted is a failure of the child, and the next one tries again.
        drop(root);
        fs::rename(place.path().join("upper"), place.path().join("gone")).unwrap();
        for _ in 0..2 {
            yard.run(json!({ "program": "true", "overlay": true })).await;
            assert_eq!(yard.event("failed").await["code"], "child.sandbox");
        }
        fs::rename(place.path().join("gone"), place.path().join("upper")).unwrap();
        yard.run(json!({ "program": "true", "overlay": true })).await;
        assert_eq!(yard.event("exited").await["exit"], json!({ "code": 0 }));
    });
}

/// Input arrives in order, and its end is an end; a terminal is one.
#[test]
fn input_and_terminals() {
    run(async {
        let yard = Yard::new().await;
        let port = yard
            .run(json!({ "program": "cat", "input": true, "messages": true }))
            .await;
        yard.event("started").await;
        for text in ["one ", "two"] {
            let _ = answer(
                yard.bed
                    .ask("runner.v1.do.write", json!({ "port": port, "text": text }))
                    .await,
            );
        }
        let mut text = String::new();
        while text != "one two" {
            text += yard.event("output").await["text"].as_str().unwrap();
        }
        let _ = answer(yard.bed.ask("runner.v1.do.write", json!({ "port": port })).await);
        assert_eq!(yard.event("exited").await["exit"], json!({ "code": 0 }));

        let no_input = yard.run(json!({ "program": "cat", "messages": true })).await;
        assert_eq!(
            yard.event("exited").await["exit"],
            json!({ "code": 0 }),
            "its input is empty"
        );
        let late = yard
            .bed
            .ask("runner.v1.do.write", json!({ "port": no_input, "text": "x" }))
            .await;
        assert_eq!(refusal(late), "not-found");

        let (text, _) = yard
            .script(
                "test -t 0 && test -t 1 && test -t 2 && echo terminal",
                json!({ "terminal": true }),
            )
            .await;
        assert_eq!(text.trim_end(), "terminal");
    });
}

/// Output goes into its file with secrets blotted out, and the end of the file can be read by its owner.
#[test]
fn output_goes_into_files_without_secrets() {
    run(async {
        let yard = Yard::new().await;
        let run = json!({
            "program": "/bin/sh", "args": ["-c", "echo the key is $KEY; echo oops >&2"], "log": "web", "errors_too": true,
            "env": { "KEY": "hunter22" }, "secrets": ["KEY"],
        });
        yard.run(run).await;
        yard.event("exited").await;
        let tail = |name: &str| {
            let name = name.to_owned();
            yard.bed.ask("runner.v1.do.tail", json!({ "text": name }))
        };
        assert_eq!(answer(tail("web.out").await)["text"], "the key is ***\n");
        assert_eq!(answer(tail("web.err").await)["text"], "oops\n");
        assert_eq!(refusal(tail("none").await), "not-found");
        assert_eq!(refusal(tail("../../keys/runtime.key").await), "invalid");
    });
}

/// K6: children stay when their owner fails, and the next generation is told which there are.
#[test]
fn children_outlive_a_generation() {
    run(async {
        let yard = Yard::new().await;
        let port = yard
            .run(json!({ "program": "sleep", "args": ["1000000"], "tag": "sleeper" }))
            .await;
        assert_eq!(yard.event("begun").await["how"], "lifecycle.v1.started");
        let pid = yard.event("started").await["started"]["pid"].clone();
        let _ = refusal(yard.bed.ask("runner.v1.do.panic", json!({})).await);
        let begun = yard.event("begun").await;
        assert_eq!(begun["how"], "lifecycle.v1.restarted");
        let held = &begun["ports"][0];
        assert_eq!(
            (&held["port"], &held["tag"], &held["pid"]),
            (&json!(port), &json!("sleeper"), &pid)
        );
        let used = answer(yard.bed.ask("runner.v1.do.measure", json!({ "port": port })).await);
        assert_eq!(used["processes"], 1);
        let _ = answer(
            yard.bed
                .ask("runner.v1.do.kill", json!({ "port": port, "tree": true }))
                .await,
        );
        assert_eq!(yard.event("exited").await["exit"]["signal"]["name"], "SIGKILL");
    });
}

fn policy(members: &[(&str, &str, bool)]) -> Policy {
    let mut policy = Policy::with_groups(&GroupsFile::default()).unwrap();
    for (name, group, enabled) in members {
        let profile = Profile {
            enabled: *enabled,
            groups: vec![(*group).to_owned()],
            ..Profile::default()
        };
        policy.insert(name.parse().unwrap(), profile).unwrap();
    }
    policy
}

/// Programs of whoever is disabled end at once.
#[test]
fn programs_of_whoever_is_disabled_end() {
    run(async {
        let yard = Yard::new().await;
        let (mut running, authority) = (yard.bed.host.children.running(), yard.bed.host.gate.authority());
        authority.replace(policy(&[("default", "admin", true)]));
        let body = json!({ "program": "sleep", "args": ["1000"] });
        let _ = answer(yard.bed.ask("runner.v1.do.run", body).await);
        running.wait_for(|running| *running == 1).await.unwrap();
        authority.replace(policy(&[("default", "admin", false)]));
        running.wait_for(|running| *running == 0).await.unwrap();
    });
}

/// Only whom that is granted runs programs and reads documents: the daemon's owner, at first.
#[test]
fn programs_and_documents_are_the_owners() {
    run(async {
        let yard = Yard::new().await;
        let known = policy(&[("default", "admin", true), ("ada", "agent", true)]);
        yard.bed.host.gate.authority().replace(known);
        let body = Body::json(&json!({ "program": "true" }));
        assert_eq!(
            refusal(yard.bed.ask_as("ada", "runner.v1.do.run", body).await),
            "denied"
        );
        let text = |text: &str| Body::json(&json!({ "text": text }));
        assert_eq!(
            refusal(yard.bed.ask_as("ada", "runner.v1.do.document", text("x")).await),
            "denied"
        );
        for (new, was) in [("first", ""), ("second", "first")] {
            assert_eq!(
                answer(yard.bed.ask_as("default", "runner.v1.do.document", text(new)).await)["text"],
                was
            );
        }
    });
}

/// Backpressure: a program that writes faster than its owner handles waits, and nothing grows.
#[test]
fn a_flood_waits_for_its_reader() {
    run(async {
        let yard = Yard::new().await;
        let megabytes = 8;
        let script = format!("head -c {}000000 /dev/zero | tr '\\0' x", megabytes);
        let (text, exited) = yard.script(&script, json!({})).await;
        assert_eq!(
            (text.len(), &exited["exit"]),
            (megabytes * 1_000_000, &json!({ "code": 0 }))
        );
    });
}
