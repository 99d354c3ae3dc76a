//! A daemon that is played by the test: what it says and hears, and what is left when it is over.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use astrid_kernel::home::Home;
use astrid_kernel::keeper;
use astrid_kernel::keeper::protocol::{
    ChildId, Connection, Errors, Failure, FromKeeper, Limits, ProtocolError, Reach, Spec, Streams, ToKeeper, VERSION,
};
use astrid_wire::child::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::os::unix::fs::MetadataExt as _;

/// Longer than anything takes on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    pub connection: Connection,
    pub guard: std::process::Child,
    pub keeper: i32,
    pub place: Place,
    pub buffer: Vec<u8>,
    pub next: u64,
    /// Namespaces that the next program starts in.
    pub beside: Vec<OwnedFd>,
}

pub struct Place {
    pub _directory: tempfile::TempDir,
    pub home: Home,
}

pub fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    Place {
        _directory: directory,
        home,
    }
}

pub const SECRET: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

pub fn hello() -> ToKeeper {
    ToKeeper::Hello {
        version: VERSION,
        secret: SECRET.to_owned(),
        nofile: 512,
    }
}

pub fn wait_readable(fd: impl std::os::fd::AsFd, what: &str) {
    let timeout = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    assert!(
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).unwrap() > 0,
        "{what} does not come"
    );
}

pub fn hear(connection: &Connection, buffer: &mut Vec<u8>) -> Result<(FromKeeper, Vec<OwnedFd>), ProtocolError> {
    wait_readable(connection, "a word of the keeper");
    connection.receive(buffer)
}

pub fn daemon() -> Daemon {
    daemon_in(place())
}

pub fn daemon_in(place: Place) -> Daemon {
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
        beside: Vec::new(),
    }
}

pub fn shell(script: &str) -> Spec {
    program("/bin/sh", &["-c", script])
}

pub fn program(path: &str, args: &[&str]) -> Spec {
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
        given: None,
        confined: None,
        within: None,
        adopt: false,
        notes: String::new(),
    }
}

/// A child that runs.
pub struct Running {
    pub id: ChildId,
    pub pid: i32,
    pub input: Option<OwnedFd>,
    pub output: Option<OwnedFd>,
    pub errors: Option<OwnedFd>,
}

impl Running {
    pub fn new(id: ChildId, pid: i32, streams: Streams, descriptors: Vec<OwnedFd>) -> Running {
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
    pub fn line(&self) -> String {
        read(self.output.as_ref().unwrap(), |bytes| bytes.last() == Some(&b'\n'))
    }

    /// All that it says.
    pub fn rest(&self) -> String {
        read(self.output.as_ref().unwrap(), |_| false)
    }
}

pub fn read(from: &OwnedFd, enough: impl Fn(&[u8]) -> bool) -> String {
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
    pub fn say(&self, message: &ToKeeper) {
        self.say_with(message, &[]);
    }

    pub fn say_with(&self, message: &ToKeeper, beside: &[BorrowedFd<'_>]) {
        loop {
            match self.connection.send(message, beside) {
                Ok(()) => return,
                Err(ProtocolError::WouldBlock) => {
                    poll(&mut [PollFd::new(&self.connection, PollFlags::OUT)], None).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn hear(&mut self) -> (FromKeeper, Vec<OwnedFd>) {
        hear(&self.connection, &mut self.buffer).unwrap()
    }

    pub fn ask(&mut self, spec: Spec) -> ChildId {
        self.next += 1;
        let id = ChildId {
            boot: 7,
            port: self.next,
        };
        let beside = std::mem::take(&mut self.beside);
        let beside: Vec<BorrowedFd<'_>> = beside.iter().map(|fd| fd.as_fd()).collect();
        self.say_with(
            &ToKeeper::Spawn {
                id,
                spec: Box::new(spec),
            },
            &beside,
        );
        id
    }

    #[track_caller]
    pub fn run(&mut self, spec: Spec) -> Running {
        let asked = self.ask(spec);
        match self.hear() {
            (FromKeeper::Started { id, pid, streams, .. }, descriptors) if id == asked => {
                Running::new(id, pid, streams, descriptors)
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub fn failure(&mut self, spec: Spec) -> Failure {
        let asked = self.ask(spec);
        match self.hear() {
            (FromKeeper::Failed { id, failure }, _) if id == asked => failure,
            other => panic!("{other:?}"),
        }
    }

    /// How a child ended, and how many it left.
    #[track_caller]
    pub fn exit(&mut self, child: &Running) -> (Exit, u32) {
        match self.hear().0 {
            FromKeeper::Exited {
                id, exit, left_behind, ..
            } if id == child.id => (exit, left_behind),
            other => panic!("{other:?}"),
        }
    }

    pub fn signal(&self, child: &Running, signal: Signal, reach: Reach) {
        self.say(&ToKeeper::Signal {
            id: child.id,
            signal: signal.as_raw(),
            reach,
        });
    }

    /// The keeper and its guard end, and nothing is left.
    #[track_caller]
    pub fn over(mut self) {
        while hear(&self.connection, &mut self.buffer).is_ok() {}
        self.guard.wait().unwrap();
        assert!(!keeper::held(&self.place.home));
        assert!(!self.place.home.keeper_file().exists() && !self.place.home.keeper_socket().exists());
        nobody_is_left(&self.place.home);
    }

    pub fn end(self) {
        self.say(&ToKeeper::End { grace_ms: 1000 });
        self.over();
    }
}

/// Processes with the home's mark.
pub fn marked(home: &Home) -> Vec<i32> {
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

pub fn ends(pid: i32) {
    if let Ok(process) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
        wait_readable(process, &format!("the end of process {pid}"));
    }
}

/// Waits for the end of all that are marked.
pub fn nobody_is_left(home: &Home) {
    loop {
        let found = marked(home);
        if found.is_empty() {
            return;
        }
        found.into_iter().for_each(ends);
    }
}

pub fn kill(pid: i32) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

pub fn code(code: i32) -> Exit {
    Exit::Code(code)
}

pub fn by(number: i32, name: &str) -> Exit {
    Exit::Signal {
        number,
        name: name.to_owned(),
        core: false,
    }
}
