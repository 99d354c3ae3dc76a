//! How keeper, guard and daemon end, in order and by force; who is let in; and what hostile packets do.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Instant;

use astrid_kernel::home::Home;
use astrid_kernel::keeper;
use astrid_kernel::keeper::protocol::{
    ChildId, Connection, FromKeeper, ProtocolError, Reach, Stage, ToKeeper, VERSION,
};
use astrid_wire::child::Exit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::act::ACT;
use crate::bed::{
    Daemon, PATIENCE, Running, SECRET, by, code, daemon, ends, hear, hello, kill, marked, nobody_is_left, place,
    program, shell, stop,
};

pub fn the_end_is_asked_for_then_forced() {
    let mut asked = daemon();
    let polite = asked.run(shell("trap 'exit 9' TERM; echo; while :; do sleep 1000 & wait; done"));
    polite.line();
    asked.say(&ToKeeper::End { grace_ms: 60_000 });
    assert_eq!(asked.exit(&polite).0, code(9));
    asked.over();
    let mut daemon = daemon();
    let deaf = daemon.run(shell("trap '' TERM; echo; while :; do sleep 1000; done"));
    deaf.line();
    daemon.say(&ToKeeper::End { grace_ms: 300 });
    assert_eq!(daemon.exit(&deaf).0, by(9, "SIGKILL"));
    assert!(daemon.connection.send(&hello(), &[]).is_err() || hear(&daemon.connection, &mut daemon.buffer).is_err());
    daemon.over();
}

/// A14: killed by ones and twos, in every order, keeper, guard and daemon leave nothing.
pub fn nothing_outlives_any_two() {
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

/// A14: who clears its environment, leaves its session and takes back that it dies with the keeper comes to the daemon when keeper and guard
/// are killed, in each order; and guards of other homes are none of that.
pub fn who_hides_from_everybody_is_inherited() {
    let other = daemon();
    let own = std::env::current_exe().unwrap();
    let hide = format!("env -i {} {ACT} hide", own.display());
    for keeper_first in [true, false] {
        let mut daemon = daemon();
        let child = daemon.run(shell(&format!("({hide} &) ; exec {hide}")));
        let hidden: Vec<i32> = [child.line(), child.line()].map(|pid| pid.parse().unwrap()).into();
        assert!(hidden.contains(&child.pid), "{hidden:?}");
        let Daemon {
            connection: _connection,
            mut guard,
            keeper: keeper_pid,
            place,
            ..
        } = daemon;
        let guard_pid = guard.id();
        let order = [keeper_pid, guard_pid.cast_signed()];
        // Stopped, neither does anything about the end of the other.
        order.iter().for_each(|pid| stop(*pid));
        for at in if keeper_first { [0, 1] } else { [1, 0] } {
            kill(order[at]);
        }
        guard.wait().unwrap();
        assert_eq!(keeper::end_inherited(Some(guard_pid)), 0);
        for pid in hidden {
            assert!(
                !std::path::Path::new(&format!("/proc/{pid}")).exists(),
                "{pid} still lives"
            );
        }
        assert!(!keeper::held(&place.home));
        assert_eq!(keeper::sweep(&place.home), 0);
    }
    other.end();
}

/// A14: what is to be adopted goes on writing while no daemon is there, and the next one has its streams.
pub fn adopted_children_find_the_next_daemon() {
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

pub fn only_the_right_daemon_is_let_in() {
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
        // Who says nothing for two seconds is sent away.
        let until = Instant::now() + PATIENCE;
        let (connection, answer) = loop {
            let connection = connect(&place.home);
            let sent = connection.send(stranger, &[]).is_ok();
            match hear(&connection, &mut buffer) {
                Ok((answer, _)) if sent => break (connection, answer),
                _ => assert!(Instant::now() < until, "it is not heard"),
            }
        };
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

pub fn garbage_ends_the_conversation() {
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
            version: VERSION + 1,
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

pub fn many_at_once() {
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
pub fn a_daemon_that_does_not_read() {
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

pub fn one_keeper_a_home() {
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
