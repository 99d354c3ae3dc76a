//! What a child is given, what it can do, and how its end is told.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use astrid_kernel::keeper;
use astrid_kernel::keeper::protocol::{ChildId, Errors, FromKeeper, Limits, Reach, Stage, ToKeeper};
use rustix::process::Signal;

use crate::bed::{Daemon, PATIENCE, Running, by, code, daemon, nobody_is_left, program, read, shell};

pub fn exits_are_told() {
    let mut daemon = daemon();
    for (script, expected) in [
        ("exit 0", code(0)),
        ("exit 200", code(200)),
        ("kill -TERM $$", by(15, "SIGTERM")),
        ("kill -SEGV $$", by(11, "SIGSEGV")),
    ] {
        let child = daemon.run(shell(script));
        assert_eq!(daemon.exit(&child), (expected, 0), "{script}");
    }
    // Processor time of what it waited for is its own.
    let child = daemon.run(shell("i=0; (while [ $i -lt 200000 ]; do i=$((i+1)); done); exit 0"));
    match daemon.hear().0 {
        FromKeeper::Exited { id, cpu_ms, .. } if id == child.id => assert!(cpu_ms >= 10, "{cpu_ms}"),
        other => panic!("{other:?}"),
    }
    daemon.end();
}

pub fn what_cannot_run_is_told_apart() {
    let mut daemon = daemon();
    let place = daemon.place.home.root().to_owned();
    let failed = |daemon: &mut Daemon, spec| daemon.failure(spec);
    let missing = failed(&mut daemon, program("/nonexistent/x", &[]));
    assert_eq!((missing.stage, missing.errno), (Stage::Program, 2));
    // Resolved to one file, and then replaced by another.
    let mut replaced = program("/bin/sh", &[]);
    replaced.inode += 1;
    let replaced = failed(&mut daemon, replaced);
    assert!(
        replaced.stage == Stage::Program && replaced.message.contains("another file"),
        "{replaced}"
    );
    let file = place.join("file");
    fs::write(&file, "x").unwrap();
    let plain = failed(&mut daemon, program(file.to_str().unwrap(), &[]));
    assert_eq!((plain.stage, plain.errno), (Stage::Program, 13));
    fs::write(&file, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
    let no_interpreter = failed(&mut daemon, program(file.to_str().unwrap(), &[]));
    assert_eq!((no_interpreter.stage, no_interpreter.errno), (Stage::Program, 2));
    for (cwd, errno) in [("/nonexistent", 2), (file.to_str().unwrap(), 20)] {
        let mut spec = shell("exit 0");
        spec.cwd = cwd.into();
        let failure = failed(&mut daemon, spec);
        assert_eq!((&failure.stage, failure.errno), (&Stage::Directory, errno));
        assert!(failure.message.contains(cwd));
    }
    let mut small = shell("exit 0");
    small.limits.memory_bytes = Some(4096);
    assert_eq!(
        failed(&mut daemon, small).stage,
        Stage::Limit("memory-bytes".to_owned())
    );
    let mut too_much = shell("exit 0");
    too_much.limits.open_files = Some(u64::MAX / 2);
    assert_eq!(
        failed(&mut daemon, too_much).stage,
        Stage::Limit("open-files".to_owned())
    );
    let mut nowhere = shell("exit 0");
    nowhere.protect = Some(vec![place.join("nothing")]);
    assert_eq!(failed(&mut daemon, nowhere).stage, Stage::Sandbox);
    let mut again = shell("exec sleep 1000");
    again.notes = "x".repeat(9 << 10);
    assert_eq!(failed(&mut daemon, again).stage, Stage::Request);
    daemon.end();
}

/// A18: the environment is exact, descriptors are closed, privileges cannot be gained, and it leads its own session.
pub fn a_child_is_given_what_it_should_be() {
    let mut daemon = daemon();
    let mut spec = program("/usr/bin/env", &[]);
    spec.env = vec![
        ("A".to_owned(), "b c".to_owned()),
        ("ASTRID_CHILD".to_owned(), "forged".to_owned()),
    ];
    let child = daemon.run(spec);
    let mark = format!("ASTRID_CHILD={}7.1", keeper::home_mark(&daemon.place.home));
    let said = child.rest();
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=b c", &mark]);
    assert_eq!(daemon.exit(&child).0, code(0));

    let mut spec = shell("readlink /proc/self/fd/0; exec ls /proc/self/fd; :");
    spec.arg0 = "a-name".to_owned();
    let child = daemon.run(spec);
    // The fourth is the directory that `ls` reads.
    assert_eq!(
        child.rest().lines().collect::<Vec<_>>(),
        ["/dev/null", "0", "1", "2", "3"]
    );
    assert_eq!(daemon.exit(&child).0, code(0));

    let script = "grep -E '^(NoNewPrivs|SigIgn|SigBlk):' /proc/self/status | tr '\\n\\t' '  '; echo; ulimit -c; ulimit -Sn; pwd; \
                  read -r _ _ _ p g s t _ < /proc/$$/stat; echo $$ $g $s $t $p";
    let mut spec = shell(script);
    spec.cwd = "/usr".into();
    let child = daemon.run(spec);
    let said = child.rest();
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].contains("NoNewPrivs: 1"), "{said}");
    // Two signals are the C library's own, and stay as this test was given them.
    let ignored = lines[0].split("SigIgn: ").nth(1).unwrap();
    let ignored = u64::from_str_radix(&ignored[..16], 16).unwrap() & !(0b11 << 31);
    assert!(ignored == 0 && lines[0].contains("SigBlk: 0000000000000000"), "{said}");
    assert_eq!(lines[1..3], ["0", "512"]);
    assert_eq!(lines[3], "/usr");
    let own = format!("{0} {0} {0} 0 {1}", child.pid, daemon.keeper);
    assert_eq!(lines[4], own);
    assert_eq!(daemon.exit(&child).0, code(0));
    daemon.end();
}

pub fn streams() {
    let mut daemon = daemon();
    let mut spec = shell("cat; echo done; echo wrong >&2");
    (spec.input, spec.stderr) = (true, Errors::Pipe);
    let mut child = daemon.run(spec);
    rustix::io::write(child.input.as_ref().unwrap(), b"hello\n").unwrap();
    assert_eq!(child.line(), "hello");
    child.input = None;
    assert_eq!(child.rest(), "done");
    assert_eq!(read(child.errors.as_ref().unwrap(), |_| false), "wrong");
    assert_eq!(daemon.exit(&child).0, code(0));

    let mut spec = shell("echo lost; echo lost >&2");
    (spec.stdout, spec.stderr) = (false, Errors::Null);
    let child = daemon.run(spec);
    assert!(child.output.is_none() && child.errors.is_none() && child.input.is_none());
    assert_eq!(daemon.exit(&child).0, code(0));

    let mut spec = shell(
        "tty >/dev/null && [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && : </dev/tty && echo terminal; read line; echo \"<$line>\"",
    );
    spec.terminal = true;
    let child = daemon.run(spec);
    assert_eq!(child.line(), "terminal");
    rustix::io::write(child.output.as_ref().unwrap(), b"x\n").unwrap();
    assert!(child.rest().contains("<x>"));
    assert_eq!(daemon.exit(&child).0, code(0));
    // A terminal that is hung up ends its session.
    let mut spec = shell("echo on; while :; do read line || exit 3; done");
    spec.terminal = true;
    let mut child = daemon.run(spec);
    child.line();
    child.output = None;
    assert_eq!(daemon.exit(&child).0, by(1, "SIGHUP"));
    daemon.end();
}

pub fn limits_bind() {
    let mut daemon = daemon();
    let mut spec = shell("ulimit -n; ulimit -f; ulimit -t; ulimit -d; ulimit -c");
    spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_seconds: Some(100),
        open_files: Some(33),
        processes: None,
        file_bytes: Some(1 << 20),
        core_bytes: Some(512),
        ..Limits::default()
    };
    let child = daemon.run(spec);
    let said = child.rest();
    assert_eq!(said.lines().collect::<Vec<_>>(), ["33", "2048", "100", "65536", "1"]);
    assert_eq!(daemon.exit(&child).0, code(0));
    let mut spec = shell("while :; do :; done");
    spec.limits.cpu_seconds = Some(1);
    let child = daemon.run(spec);
    assert_eq!(daemon.exit(&child).0, by(24, "SIGXCPU"));
    daemon.end();
}

/// A14: what leaves its group, its session and its parent is found when the main process ends.
pub fn what_a_main_process_leaves_is_killed() {
    let mut daemon = daemon();
    let script = "setsid sh -c 'trap \"\" TERM HUP; (env -i sleep 1000 & env -i sleep 1000 &) ; sleep 1000' >/dev/null 2>&1 & \
                  while [ $(cat /proc/$$/task/*/children | wc -w) -lt 3 ]; do :; done; cat /proc/$$/task/*/children; exit 5";
    let child = daemon.run(shell(script));
    let left = child.rest();
    let (exit, count) = daemon.exit(&child);
    assert_eq!(exit, code(5));
    assert!((3..=5).contains(&count), "{count}");
    for pid in left.split_ascii_whitespace() {
        // Killed, and for a moment it may still be there.
        let until = Instant::now() + PATIENCE;
        while Path::new("/proc").join(pid).exists() {
            assert!(Instant::now() < until, "process {pid} was left");
            std::thread::yield_now();
        }
    }
    let child = daemon.run(shell("sleep 1000 & exit 0"));
    assert_eq!(daemon.exit(&child), (code(0), 1));
    // Each is counted for who left it.
    let children: Vec<Running> = (0..20)
        .map(|at| {
            daemon.run(shell(&format!(
                "for i in $(seq {}); do setsid sleep 1000 & done; echo; kill -STOP $$; exit 0",
                at % 3
            )))
        })
        .collect();
    children.iter().for_each(|child| drop(child.line()));
    children
        .iter()
        .for_each(|child| daemon.signal(child, Signal::KILL, Reach::Main));
    for _ in &children {
        match daemon.hear().0 {
            FromKeeper::Exited { id, left_behind, .. } => {
                let at = children.iter().position(|child| child.id == id).unwrap();
                assert_eq!(left_behind as usize, at % 3);
            }
            other => panic!("{other:?}"),
        }
    }
    nobody_is_left(&daemon.place.home);
    daemon.end();
}

/// A14: forking without end, double forks, stopped and deaf processes.
pub fn a_tree_ends_whatever_it_does() {
    let mut daemon = daemon();
    let bomb = "f() { n=0; while :; do (trap '' TERM; setsid sh -c 'sleep 1000 & sleep 1000' & exec sleep 1000) & n=$((n+1)); \
                [ $n -eq 20 ] && echo; [ $n -gt 300 ] && wait; done; }; trap '' TERM; f 2>/dev/null";
    let child = daemon.run(shell(bomb));
    child.line();
    assert!(keeper::usage(child.pid).processes > 1);
    daemon.signal(&child, Signal::KILL, Reach::Tree);
    assert_eq!(daemon.exit(&child).0, by(9, "SIGKILL"));
    nobody_is_left(&daemon.place.home);

    let child = daemon.run(shell("sh -c 'kill -STOP $$' & echo $!; kill -STOP $$"));
    let grandchild = child.line().parse().unwrap();
    let guard = daemon.guard.id().cast_signed();
    for below in [grandchild, child.pid, daemon.keeper] {
        assert_eq!(keeper::is_descendant(below, guard), Some(true));
    }
    assert_eq!(keeper::is_descendant(guard, daemon.keeper), Some(false));
    daemon.signal(&child, Signal::KILL, Reach::Tree);
    assert_eq!(daemon.exit(&child).0, by(9, "SIGKILL"));
    nobody_is_left(&daemon.place.home);
    // The main process alone is killed: what it has started goes with it.
    let child = daemon.run(shell("setsid sleep 1000 & echo; wait"));
    child.line();
    daemon.signal(&child, Signal::KILL, Reach::Main);
    assert_eq!(daemon.exit(&child).0, by(9, "SIGKILL"));
    nobody_is_left(&daemon.place.home);
    daemon.end();
}

pub fn signals_reach() {
    let mut daemon = daemon();
    // A stopped process hears that it should end.
    let child = daemon.run(shell("echo; kill -STOP $$; exit 0"));
    child.line();
    while !fs::read_to_string(format!("/proc/{}/stat", child.pid))
        .unwrap()
        .contains(") T ")
    {}
    daemon.signal(&child, Signal::TERM, Reach::Main);
    assert_eq!(daemon.exit(&child).0, by(15, "SIGTERM"));

    let tell = "trap 'echo main; exit 1' USR1; sh -c 'trap \"echo group; exit\" USR1; echo; while :; do sleep 1000 & wait; done' & \
                setsid sh -c 'trap \"echo tree; exit\" USR1; echo; while :; do sleep 1000 & wait; done' & wait; wait; wait";
    for (reach, expected) in [
        (Reach::Main, &["main"][..]),
        (Reach::Group, &["group", "main"]),
        (Reach::Tree, &["group", "main", "tree"]),
    ] {
        let child = daemon.run(shell(tell));
        child.line();
        child.line();
        daemon.signal(&child, Signal::USR1, reach);
        let said = child.rest();
        let mut said: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        said.sort_unstable();
        // Those that hear of it may be killed as left by the main process before they have said so.
        assert!(
            said.contains(&"main") && said.iter().all(|who| expected.contains(who)),
            "{said:?}"
        );
        assert_eq!(daemon.exit(&child).0, code(1));
    }
    daemon.say(&ToKeeper::Signal {
        id: ChildId { boot: 1, port: 999 },
        signal: 15,
        reach: Reach::Tree,
    });
    daemon.end();
}

/// A18: a child reaches neither the keys nor the keeper, and most of the rest.
pub fn the_home_is_out_of_reach() {
    let mut daemon = daemon();
    let home = daemon.place.home.root().to_owned();
    fs::write(home.join("keys/runtime.key"), "secret").unwrap();
    fs::write(home.join("home/file"), "open").unwrap();
    std::os::unix::fs::symlink(home.join("keys"), home.join("link")).unwrap();
    let script = format!(
        "cd {0}; cat keys/runtime.key; cat link/runtime.key; cat /proc/self/root{0}/keys/runtime.key; rm -f keys/runtime.key; \
         mv keys other; ln keys/runtime.key home/x; echo x >run/x; cat home/file; echo; echo x >home/y && cat home/y; \
         kill -KILL {1}; kill -0 {2}; cat /proc/{1}/environ; sh -c 'exit 0' && ls / >/dev/null && echo end",
        home.display(),
        daemon.keeper,
        daemon.guard.id(),
    );
    let mut spec = shell(&script);
    spec.stderr = Errors::Null;
    spec.protect = Some(
        ["run", "keys", "etc", "var"]
            .iter()
            .map(|name| home.join(name))
            .collect(),
    );
    let child = daemon.run(spec);
    assert_eq!(child.rest().lines().collect::<Vec<_>>(), ["open", "x", "end"]);
    assert_eq!(daemon.exit(&child).0, code(0));
    assert_eq!(fs::read_to_string(home.join("keys/runtime.key")).unwrap(), "secret");
    assert!(!home.join("home/x").exists() && !home.join("run/x").exists());
    daemon.end();
}
