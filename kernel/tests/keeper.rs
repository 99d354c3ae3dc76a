//! The keeper, its guard and its launchers as real processes (A14, A18): this program is each of them when it is started as a daemon
//! would start itself. So it has no test harness.
//!
//! A daemon is played by the test, which says what it likes on the socket. That nothing is left is read from `/proc`, by the mark.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use astrid_kernel::home::Home;
use astrid_kernel::keeper::protocol::{
    ChildId, Connection, Errors, Failure, FromKeeper, Limits, ProtocolError, Reach, Spec, Stage, Streams, ToKeeper,
    VERSION,
};
use astrid_kernel::keeper::{self, INNER_ARGUMENT, KEEPER_ARGUMENT, LAUNCHER_ARGUMENT};
use astrid_wire::child::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Longer than anything takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [LAUNCHER_ARGUMENT] => {
            let _ = keeper::launcher::run();
            ExitCode::FAILURE
        }
        [KEEPER_ARGUMENT, "--home", home] => ended(keeper::guard::run(&Home::resolve(Some(Path::new(home))).unwrap())),
        [KEEPER_ARGUMENT, "--home", home, INNER_ARGUMENT, guard] => ended(keeper::serve(
            Home::resolve(Some(Path::new(home))).unwrap(),
            guard.parse().unwrap(),
        )),
        ref filter => tests(filter),
    }
}

fn ended(result: std::io::Result<()>) -> ExitCode {
    ExitCode::from(u8::from(result.is_err()))
}

fn tests(filter: &[&str]) -> ExitCode {
    let wanted = filter.iter().find(|word| !word.starts_with('-'));
    let all: &[(&str, fn())] = &[
        ("exits_are_told", exits_are_told),
        ("what_cannot_run_is_told_apart", what_cannot_run_is_told_apart),
        ("a_child_is_given_what_it_should_be", a_child_is_given_what_it_should_be),
        ("streams", streams),
        ("limits_bind", limits_bind),
        (
            "what_a_main_process_leaves_is_killed",
            what_a_main_process_leaves_is_killed,
        ),
        ("a_tree_ends_whatever_it_does", a_tree_ends_whatever_it_does),
        ("signals_reach", signals_reach),
        ("the_home_is_out_of_reach", the_home_is_out_of_reach),
        ("the_end_is_asked_for_then_forced", the_end_is_asked_for_then_forced),
        ("nothing_outlives_any_two", nothing_outlives_any_two),
        (
            "adopted_children_find_the_next_daemon",
            adopted_children_find_the_next_daemon,
        ),
        ("only_the_right_daemon_is_let_in", only_the_right_daemon_is_let_in),
        ("garbage_ends_the_conversation", garbage_ends_the_conversation),
        ("many_at_once", many_at_once),
        ("a_daemon_that_does_not_read", a_daemon_that_does_not_read),
        ("one_keeper_a_home", one_keeper_a_home),
    ];
    for (name, test) in all {
        if wanted.is_none_or(|wanted| name.contains(wanted)) {
            let begun = Instant::now();
            test();
            println!("test {name} ... ok ({} ms)", begun.elapsed().as_millis());
        }
    }
    ExitCode::SUCCESS
}

// ---- A daemon ----

struct Daemon {
    connection: Connection,
    guard: std::process::Child,
    keeper: i32,
    place: Place,
    buffer: Vec<u8>,
    next: u64,
}

struct Place {
    _directory: tempfile::TempDir,
    home: Home,
}

fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    Place {
        _directory: directory,
        home,
    }
}

const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn hello() -> ToKeeper {
    ToKeeper::Hello {
        version: VERSION,
        secret: SECRET.to_owned(),
        nofile: 512,
    }
}

fn wait_readable(fd: impl std::os::fd::AsFd, what: &str) {
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    assert!(
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0,
        "{what} does not come"
    );
}

fn hear(connection: &Connection, buffer: &mut Vec<u8>) -> Result<(FromKeeper, Vec<OwnedFd>), ProtocolError> {
    wait_readable(connection, "a word of the keeper");
    connection.receive(buffer)
}

fn daemon() -> Daemon {
    daemon_in(place())
}

fn daemon_in(place: Place) -> Daemon {
    let (socket, guard) = keeper::start(&place.home, &std::env::current_exe().unwrap()).unwrap();
    let connection = Connection::new(socket);
    connection.send(&hello(), &[]).unwrap();
    let mut buffer = Vec::new();
    let Ok((FromKeeper::Hello { version, pid, kept }, _)) = hear(&connection, &mut buffer) else {
        panic!("no greeting")
    };
    assert_eq!((version, kept), (VERSION, 0));
    assert!(keeper::held(&place.home));
    Daemon {
        connection,
        guard,
        keeper: pid,
        place,
        buffer,
        next: 0,
    }
}

fn shell(script: &str) -> Spec {
    program("/bin/sh", &["-c", script])
}

fn program(path: &str, args: &[&str]) -> Spec {
    let found = fs::metadata(path);
    Spec {
        program: path.into(),
        device: found.as_ref().map_or(0, |found| found.dev()),
        inode: found.as_ref().map_or(0, |found| found.ino()),
        arg0: path.to_owned(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin:/sbin".to_owned())],
        cwd: "/".into(),
        input: false,
        terminal: false,
        stdout: true,
        stderr: Errors::Merge,
        limits: Limits::default(),
        protect: None,
        adopt: false,
        notes: String::new(),
    }
}

/// A child that runs.
struct Running {
    id: ChildId,
    pid: i32,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    errors: Option<OwnedFd>,
}

impl Running {
    fn new(id: ChildId, pid: i32, streams: Streams, descriptors: Vec<OwnedFd>) -> Running {
        let mut descriptors = descriptors.into_iter();
        let mut take = |there: bool| there.then(|| descriptors.next().unwrap());
        Running {
            id,
            pid,
            input: take(streams.input),
            output: take(streams.output),
            errors: take(streams.errors),
        }
    }

    /// A line that it says.
    fn line(&self) -> String {
        read(self.output.as_ref().unwrap(), |bytes| bytes.last() == Some(&b'\n'))
    }

    /// All that it says.
    fn rest(&self) -> String {
        read(self.output.as_ref().unwrap(), |_| false)
    }
}

fn read(from: &OwnedFd, enough: impl Fn(&[u8]) -> bool) -> String {
    let mut bytes = Vec::new();
    while !enough(&bytes) {
        wait_readable(from, "output");
        let mut byte = [0; 1];
        // The other end of a terminal that is gone is an error, and also the end.
        match rustix::io::read(from, &mut byte) {
            Ok(1..) => bytes.push(byte[0]),
            Ok(0) | Err(rustix::io::Errno::IO) => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

impl Daemon {
    fn say(&self, message: &ToKeeper) {
        loop {
            match self.connection.send(message, &[]) {
                Ok(()) => return,
                Err(ProtocolError::WouldBlock) => {
                    poll(&mut [PollFd::new(&self.connection, PollFlags::OUT)], None).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn hear(&mut self) -> (FromKeeper, Vec<OwnedFd>) {
        hear(&self.connection, &mut self.buffer).unwrap()
    }

    fn ask(&mut self, spec: Spec) -> ChildId {
        self.next += 1;
        let id = ChildId {
            boot: 7,
            port: self.next,
        };
        self.say(&ToKeeper::Spawn {
            id,
            spec: Box::new(spec),
        });
        id
    }

    #[track_caller]
    fn run(&mut self, spec: Spec) -> Running {
        let asked = self.ask(spec);
        match self.hear() {
            (FromKeeper::Started { id, pid, streams, .. }, descriptors) if id == asked => {
                Running::new(id, pid, streams, descriptors)
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn failure(&mut self, spec: Spec) -> Failure {
        let asked = self.ask(spec);
        match self.hear() {
            (FromKeeper::Failed { id, failure }, _) if id == asked => failure,
            other => panic!("{other:?}"),
        }
    }

    /// How a child ended, and how many it left.
    #[track_caller]
    fn exit(&mut self, child: &Running) -> (Exit, u32) {
        match self.hear().0 {
            FromKeeper::Exited {
                id, exit, left_behind, ..
            } if id == child.id => (exit, left_behind),
            other => panic!("{other:?}"),
        }
    }

    fn signal(&self, child: &Running, signal: Signal, reach: Reach) {
        self.say(&ToKeeper::Signal {
            id: child.id,
            signal: signal.as_raw(),
            reach,
        });
    }

    /// The keeper and its guard end, and nothing is left.
    #[track_caller]
    fn over(mut self) {
        while hear(&self.connection, &mut self.buffer).is_ok() {}
        self.guard.wait().unwrap();
        assert!(!keeper::held(&self.place.home));
        assert!(!self.place.home.keeper_file().exists() && !self.place.home.keeper_socket().exists());
        nobody_is_left(&self.place.home);
    }

    fn end(self) {
        self.say(&ToKeeper::End { grace_ms: 1000 });
        self.over();
    }
}

/// Processes with the home's mark.
fn marked(home: &Home) -> Vec<i32> {
    let mark = format!("ASTRID_CHILD={}", keeper::home_mark(home));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|one| one.starts_with(mark.as_bytes()))
        {
            found.push(pid);
        }
    }
    found
}

fn ends(pid: i32) {
    if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        wait_readable(process, &format!("the end of process {pid}"));
    }
}

/// Waits for the end of all that are marked.
fn nobody_is_left(home: &Home) {
    loop {
        let found = marked(home);
        if found.is_empty() {
            return;
        }
        found.into_iter().for_each(ends);
    }
}

fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn code(code: i32) -> Exit {
    Exit::Code(code)
}

fn by(number: i32, name: &str) -> Exit {
    Exit::Signal {
        number,
        name: name.to_owned(),
        core: false,
    }
}

// ---- Tests ----

fn exits_are_told() {
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

fn what_cannot_run_is_told_apart() {
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
fn a_child_is_given_what_it_should_be() {
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

fn streams() {
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

fn limits_bind() {
    let mut daemon = daemon();
    let mut spec = shell("ulimit -n; ulimit -f; ulimit -t; ulimit -d; ulimit -c");
    spec.limits = Limits {
        memory_bytes: Some(64 << 20),
        cpu_seconds: Some(100),
        open_files: Some(33),
        processes: None,
        file_bytes: Some(1 << 20),
        core_bytes: Some(512),
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
fn what_a_main_process_leaves_is_killed() {
    let mut daemon = daemon();
    let script = "setsid sh -c 'trap \"\" TERM HUP; (env -i sleep 1000 & env -i sleep 1000 &) ; sleep 1000' >/dev/null 2>&1 & \
                  while [ $(cat /proc/$$/task/*/children | wc -w) -lt 3 ]; do :; done; cat /proc/$$/task/*/children; exit 5";
    let child = daemon.run(shell(script));
    let left = child.rest();
    let (exit, count) = daemon.exit(&child);
    assert_eq!(exit, code(5));
    assert!((3..=5).contains(&count), "{count}");
    for pid in left.split_ascii_whitespace() {
        assert!(!Path::new("/proc").join(pid).exists(), "process {pid} was left");
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
fn a_tree_ends_whatever_it_does() {
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

fn signals_reach() {
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
fn the_home_is_out_of_reach() {
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

fn the_end_is_asked_for_then_forced() {
    let mut daemon = daemon();
    let polite = daemon.run(shell("trap 'exit 9' TERM; echo; while :; do sleep 1000 & wait; done"));
    let deaf = daemon.run(shell("trap '' TERM; echo; while :; do sleep 1000; done"));
    polite.line();
    deaf.line();
    daemon.say(&ToKeeper::End { grace_ms: 300 });
    assert_eq!(daemon.exit(&polite).0, code(9));
    assert_eq!(daemon.exit(&deaf).0, by(9, "SIGKILL"));
    assert!(daemon.connection.send(&hello(), &[]).is_err() || hear(&daemon.connection, &mut daemon.buffer).is_err());
    daemon.over();
}

/// A14: killed by ones and twos, in every order, keeper, guard and daemon leave nothing.
fn nothing_outlives_any_two() {
    const KEEPER: usize = 0;
    const GUARD: usize = 1;
    const DAEMON: usize = 2;
    let orders: [&[usize]; 9] = [
        &[KEEPER],
        &[GUARD],
        &[DAEMON],
        &[KEEPER, GUARD],
        &[GUARD, KEEPER],
        &[KEEPER, DAEMON],
        &[DAEMON, KEEPER],
        &[GUARD, DAEMON],
        &[DAEMON, GUARD],
    ];
    for order in orders {
        let mut daemon = daemon();
        let scripts = [
            "trap '' TERM; setsid sh -c 'sleep 1000 & sleep 1000' & echo; while :; do sleep 1000; done",
            "echo; exec sleep 1000",
        ];
        for (script, adopt) in [(0, false), (1, false), (0, true)] {
            let mut spec = shell(scripts[script]);
            // Adopted by the next daemon, if the keeper lives; so that one does not outlive the keeper either.
            spec.adopt = adopt && order != [DAEMON];
            daemon.run(spec).line();
        }
        assert!(marked(&daemon.place.home).len() >= 3);
        let Daemon {
            connection,
            mut guard,
            keeper: keeper_pid,
            place,
            ..
        } = daemon;
        let guard_pid = guard.id().cast_signed();
        let mut connection = Some(connection);
        for who in order {
            match *who {
                KEEPER => kill(keeper_pid),
                GUARD => kill(guard_pid),
                _ => drop(connection.take()),
            }
        }
        guard.wait().unwrap();
        ends(keeper_pid);
        assert!(!keeper::held(&place.home), "{order:?}");
        let both = order.contains(&KEEPER) && order.contains(&GUARD);
        // Both at once: what is left is the daemon's to find. Otherwise nothing is left to be found.
        let swept = keeper::sweep(&place.home);
        assert!(both || swept == 0, "{order:?}: {swept} were left");
        nobody_is_left(&place.home);
        assert!(!place.home.keeper_file().exists(), "{order:?}");
    }
}

/// A14: what is to be adopted goes on writing while no daemon is there, and the next one has its streams.
fn adopted_children_find_the_next_daemon() {
    let mut daemon = daemon();
    let mut spec = shell(
        "echo one; read line; echo \"<$line>\"; echo two; while read line; do echo \"[$line]\"; done; echo three; exit 4",
    );
    (spec.adopt, spec.input, spec.notes) = (true, true, "what the daemon noted".to_owned());
    let kept = daemon.run(spec);
    assert_eq!(kept.line(), "one");
    let other = daemon.run(shell("echo; exec sleep 1000"));
    other.line();
    let mut brief = shell("read line; exit 6");
    (brief.adopt, brief.input) = (true, true);
    let brief = daemon.run(brief);
    // Everything of the daemon goes at once, as when it is killed.
    let Daemon {
        connection,
        mut guard,
        place,
        keeper: keeper_pid,
        ..
    } = daemon;
    rustix::io::write(kept.input.as_ref().unwrap(), b"while nobody reads\n").unwrap();
    drop(connection);
    drop(kept);
    ends(other.pid);
    rustix::io::write(brief.input.as_ref().unwrap(), b"\n").unwrap();
    ends(brief.pid);
    drop(brief);
    let connection = connect(&place.home);
    connection.send(&hello(), &[]).unwrap();
    let mut buffer = Vec::new();
    let (greeting, _) = hear(&connection, &mut buffer).unwrap();
    assert_eq!(
        greeting,
        FromKeeper::Hello {
            version: VERSION,
            pid: keeper_pid,
            kept: 1
        }
    );
    let (
        FromKeeper::Kept {
            id,
            pid,
            notes,
            streams,
            ..
        },
        descriptors,
    ) = hear(&connection, &mut buffer).unwrap()
    else {
        panic!("nothing was kept")
    };
    assert_eq!(notes, "what the daemon noted");
    let mut kept = Running::new(id, pid, streams, descriptors);
    assert_eq!([kept.line(), kept.line()], ["<while nobody reads>", "two"]);
    assert!(matches!(
        hear(&connection, &mut buffer).unwrap().0,
        FromKeeper::Exited {
            exit: Exit::Code(6),
            ..
        }
    ));
    // The end of its input is seen once nobody holds it any more.
    connection.send(&ToKeeper::CloseInput { id }, &[]).unwrap();
    rustix::io::write(kept.input.as_ref().unwrap(), b"x\n").unwrap();
    kept.input = None;
    assert_eq!(kept.rest(), "[x]\nthree");
    let exit = hear(&connection, &mut buffer).unwrap().0;
    assert!(
        matches!(
            exit,
            FromKeeper::Exited {
                exit: Exit::Code(4),
                ..
            }
        ),
        "{exit:?}"
    );
    drop(connection);
    guard.wait().unwrap();
    assert!(!keeper::held(&place.home) && !place.home.keeper_file().exists());
    nobody_is_left(&place.home);
}

/// Connects to a keeper that waits for the next daemon, as soon as it does.
fn connect(home: &Home) -> Connection {
    let until = Instant::now() + PATIENCE;
    loop {
        match keeper::reconnect(home) {
            Ok(socket) => return Connection::new(socket),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::yield_now();
    }
}

fn only_the_right_daemon_is_let_in() {
    let mut daemon = daemon();
    let mut spec = shell("exec sleep 1000");
    spec.adopt = true;
    let child = daemon.run(spec);
    assert!(keeper::reconnect(&daemon.place.home).is_err(), "it has a daemon");
    let Daemon {
        connection,
        mut guard,
        place,
        ..
    } = daemon;
    drop(connection);
    let mut buffer = Vec::new();
    let strangers = [
        ToKeeper::Hello {
            version: VERSION,
            secret: SECRET.replace('0', "1"),
            nofile: 1,
        },
        ToKeeper::Hello {
            version: VERSION + 1,
            secret: SECRET.to_owned(),
            nofile: 1,
        },
        ToKeeper::End { grace_ms: 0 },
    ];
    for stranger in &strangers {
        let connection = connect(&place.home);
        connection.send(stranger, &[]).unwrap();
        let (answer, _) = hear(&connection, &mut buffer).unwrap();
        assert!(matches!(answer, FromKeeper::Refused { .. }), "{answer:?}");
        assert!(hear(&connection, &mut buffer).is_err());
    }
    assert_eq!(fs::metadata(place.home.keeper_socket()).unwrap().mode() & 0o777, 0o600);
    // One that says nothing is sent away, and hinders nobody.
    let silent = connect(&place.home);
    let right = connect(&place.home);
    right.send(&hello(), &[]).unwrap();
    assert!(matches!(
        hear(&right, &mut buffer).unwrap().0,
        FromKeeper::Hello { kept: 1, .. }
    ));
    assert!(hear(&silent, &mut buffer).is_err());
    // A second keeper would not know of this one's children.
    let (socket, mut second) = keeper::start(&place.home, &std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(
        hear(&Connection::new(socket), &mut buffer).unwrap().0,
        FromKeeper::Refused { .. }
    ));
    assert!(!second.wait().unwrap().success());
    assert_eq!(keeper::sweep(&place.home), 0);
    right
        .send(
            &ToKeeper::Signal {
                id: child.id,
                signal: 15,
                reach: Reach::Group,
            },
            &[],
        )
        .unwrap();
    ends(child.pid);
    drop(right);
    guard.wait().unwrap();
    nobody_is_left(&place.home);
}

fn garbage_ends_the_conversation() {
    let packets: [Vec<u8>; 4] = [
        b"{".to_vec(),
        b"{\"dance\":{}}".to_vec(),
        vec![b'x'; 200_000],
        serde_json::to_vec(&ToKeeper::Signal {
            id: ChildId { boot: 1, port: 1 },
            signal: 4711,
            reach: Reach::Main,
        })
        .unwrap(),
    ];
    for packet in packets {
        let mut daemon = daemon();
        let child = daemon.run(shell("echo; exec sleep 1000"));
        child.line();
        rustix::net::send(&daemon.connection, &packet, rustix::net::SendFlags::empty()).unwrap();
        assert!(matches!(daemon.hear().0, FromKeeper::Refused { .. }));
        daemon.over();
        ends(child.pid);
    }
    // Before a greeting nothing is done, and another version's greeting is none.
    for first in [
        ToKeeper::End { grace_ms: 0 },
        ToKeeper::Hello {
            version: 2,
            secret: SECRET.to_owned(),
            nofile: 1,
        },
    ] {
        let place = place();
        let (socket, mut guard) = keeper::start(&place.home, &std::env::current_exe().unwrap()).unwrap();
        let connection = Connection::new(socket);
        connection.send(&first, &[]).unwrap();
        let (answer, _) = hear(&connection, &mut Vec::new()).unwrap();
        assert!(matches!(answer, FromKeeper::Refused { .. }), "{answer:?}");
        guard.wait().unwrap();
        assert!(!keeper::held(&place.home));
    }
}

fn many_at_once() {
    const MANY: usize = 500;
    let mut daemon = daemon();
    let ids: Vec<ChildId> = (0..MANY)
        .map(|at| {
            daemon.ask(if at % 2 == 0 {
                program("/bin/true", &[])
            } else {
                program("/bin/sleep", &["1000"])
            })
        })
        .collect();
    let (mut started, mut exited) = (0, 0);
    while started < MANY || exited < MANY / 2 {
        match daemon.hear().0 {
            FromKeeper::Started { .. } => started += 1,
            FromKeeper::Exited { exit, left_behind, .. } => {
                assert_eq!((exit, left_behind), (code(0), 0));
                exited += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ids.len(), MANY);
    daemon.end();
}

/// The keeper neither waits for its daemon nor grows for it; and what is told is not lost.
fn a_daemon_that_does_not_read() {
    const FAR_TOO_MANY: usize = 100_000;
    let mut daemon = daemon();
    let child = daemon.run(shell("echo; read line; exec sleep 1000"));
    child.line();
    let again = ToKeeper::Spawn {
        id: child.id,
        spec: Box::new(shell("exit 0")),
    };
    let mut asked = 0;
    loop {
        match daemon.connection.send(&again, &[]) {
            Ok(()) => asked += 1,
            Err(ProtocolError::WouldBlock) => {
                let moment = Timespec {
                    tv_sec: 0,
                    tv_nsec: 200_000_000,
                };
                // If it reads on, there will be room.
                if poll(&mut [PollFd::new(&daemon.connection, PollFlags::OUT)], Some(&moment)).unwrap() == 0 {
                    break;
                }
            }
            Err(error) => panic!("{error}"),
        }
        assert!(asked < FAR_TOO_MANY, "it reads what nobody hears the answer of");
    }
    // A child that ends meanwhile is waited for all the same.
    kill(child.pid);
    ends(child.pid);
    let mut exited = 0;
    for _ in 0..=asked {
        match daemon.hear().0 {
            FromKeeper::Failed { failure, .. } => assert_eq!(failure.stage, Stage::Request),
            FromKeeper::Exited { id, exit, .. } => {
                assert_eq!((id, exit), (child.id, by(9, "SIGKILL")));
                exited += 1;
            }
            // Asked for once more when the first had ended.
            FromKeeper::Started { id, .. } => assert_eq!(id, child.id),
            other => panic!("{other:?}"),
        }
        if exited == 1 {
            break;
        }
    }
    assert_eq!(exited, 1);
    let Daemon {
        connection,
        mut guard,
        place,
        ..
    } = daemon;
    // Gone without having read.
    drop(connection);
    guard.wait().unwrap();
    nobody_is_left(&place.home);
}

fn one_keeper_a_home() {
    let daemon = daemon();
    let (socket, mut second) = keeper::start(&daemon.place.home, &std::env::current_exe().unwrap()).unwrap();
    let (answer, _) = hear(&Connection::new(socket), &mut Vec::new()).unwrap();
    assert!(matches!(answer, FromKeeper::Refused { .. }), "{answer:?}");
    assert!(!second.wait().unwrap().success());
    // Its files are still there: they are the first one's.
    let mut text = String::new();
    fs::File::open(daemon.place.home.keeper_file())
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(text.contains(&format!("\"keeper\":{}", daemon.keeper)), "{text}");
    daemon.end();
}
