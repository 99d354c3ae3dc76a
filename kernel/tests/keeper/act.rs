//! What a confined program tries, one thing a word: this program once more, so that no interpreter is needed. What came of each is a line,
//! `ok` or what the system said.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket, socketpair};
use rustix::process::{Pid, kill_process, test_kill_process};

/// The word that makes this program one that tries.
pub const ACT: &str = "__act";

pub fn act(words: &[&str]) {
    for word in words {
        let (what, with) = word.split_once(' ').unwrap_or((word, ""));
        let line = match act_one(what, with) {
            Ok(text) => text,
            Err(error) => match error.raw_os_error() {
                Some(number) => nix::errno::Errno::from_raw(number)
                    .to_string()
                    .split(':')
                    .next()
                    .unwrap()
                    .to_owned(),
                None => error.to_string(),
            },
        };
        println!("{line}");
    }
}

fn act_one(what: &str, with: &str) -> io::Result<String> {
    let number = || with.parse::<u16>().unwrap();
    let pid = || Pid::from_raw(with.parse().unwrap()).unwrap();
    let anything = "/nonexistent";
    match what {
        "read" => {
            let mut text = String::new();
            fs::File::open(with)?.read_to_string(&mut text)?;
            return Ok(text.trim_end().to_owned());
        }
        "room" => {
            let found = rustix::fs::statvfs(with)?;
            return Ok((found.f_blocks * found.f_frsize).to_string());
        }
        "list" => drop(fs::read_dir(with)?),
        "write" => OpenOptions::new()
            .create(true)
            .append(true)
            .open(with)?
            .write_all(b"x")?,
        "open" => drop(OpenOptions::new().write(true).open(with)?),
        "cut" => rustix::fs::ftruncate(OpenOptions::new().write(true).open(with)?, 0)?,
        "make" => fs::create_dir(with)?,
        "chmod" => fs::set_permissions(with, fs::Permissions::from_mode(0o777))?,
        "device" => mknodat(
            CWD,
            with,
            FileType::BlockDevice,
            Mode::RUSR,
            rustix::fs::makedev(254, 0),
        )?,
        "socket" => drop(
            socket(AddressFamily::from_raw(number()), SocketType::RAW, None).or_else(|error| match error {
                // Of that family others: it is the family that counts.
                rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::PERM | rustix::io::Errno::SOCKTNOSUPPORT => {
                    socket(AddressFamily::from_raw(number()), SocketType::STREAM, None)
                }
                other => Err(other),
            })?,
        ),
        "pair" => drop(socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?),
        "tcp" => drop(TcpStream::connect_timeout(
            &with.parse().unwrap(),
            Duration::from_secs(10),
        )?),
        "itself" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            drop(TcpStream::connect(listener.local_addr()?)?);
        }
        "unix" | "abstract" => {
            let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
            let address = match what {
                "unix" => SocketAddrUnix::new(with)?,
                _ => SocketAddrUnix::new_abstract_name(with.as_bytes())?,
            };
            connect(&socket, &address)?;
        }
        // By the name that a message has.
        "gram" => {
            let (one, _other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::sendto(&one, b"x", SendFlags::empty(), &SocketAddrUnix::new(with)?)?;
        }
        "name" => {
            let (one, _other) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            rustix::net::bind(&one, &SocketAddrUnix::new(with)?)?;
        }
        "deaf" => rustix::process::set_parent_process_death_signal(None)?,
        "renice" => rustix::process::setpriority_process(Pid::from_raw(with.parse().unwrap()), 19)?,
        // Nothing tells of it but whom it descends from, and it does not end.
        "hide" => {
            rustix::process::set_parent_process_death_signal(None)?;
            let _ = rustix::process::setsid();
            for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
                signal_hook::flag::register(signal, std::sync::Arc::default())?;
            }
            println!("{}", std::process::id());
            loop {
                std::thread::park();
            }
        }
        "unshare" => unshare(CloneFlags::CLONE_NEWUSER)?,
        "setns" => setns(fs::File::open(with)?, CloneFlags::empty())?,
        "mount" => mount(Some("none"), "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>)?,
        "umount" => umount2(with, MntFlags::MNT_DETACH)?,
        "exists" => fs::metadata(with).map(|_| ())?,
        "signal" => test_kill_process(pid())?,
        "kill" => kill_process(pid(), rustix::process::Signal::KILL)?,
        "memory" => drop(fs::File::open(format!("/proc/{with}/mem"))?),
        "raise" => drop(rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit {
                current: Some(1 << 20),
                maximum: Some(1 << 20),
            },
        )?),
        other => return Err(io::Error::other(format!("{anything}: {other}"))),
    }
    Ok("ok".to_owned())
}
