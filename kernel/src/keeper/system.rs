//! What of the system any program needs: the names that a list of what may be read always has, and devices that are always written.
//!
//! Deliberately not in it: what tells of people and of secrets, as `shadow`, and everybody's home.

#![allow(clippy::disallowed_methods, reason = "the first line of a script is read")]

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Programs and their libraries, configuration that libraries read for every program, devices, and the view of processes, where Landlock
/// keeps those that it did not start to themselves.
pub(super) const READ: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix",
    "/gnu/store",
    "/proc",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/default/locale",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/gitconfig",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/java-17-openjdk",
    "/etc/java-21-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/locale.conf",
    "/etc/localtime",
    "/etc/login.defs",
    "/etc/lsb-release",
    "/etc/machine-id",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/pki/ca-trust",
    "/etc/pki/tls",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl",
    "/etc/static",
    "/etc/terminfo",
    "/etc/timezone",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
    "/run/systemd/resolve",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// Devices that hold nothing, and terminals.
pub(super) const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// Bytes of the first line of a script that the system looks at.
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// What runs a script, if that is what it is. From the file that was decided on, whatever its path leads to now.
pub(super) fn interpreter(program: &File) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    program.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let name = line
        .split(|byte| byte.is_ascii_whitespace())
        .find(|word| !word.is_empty())?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::path::Path;

    use super::*;

    #[test]
    fn scripts_name_who_runs_them() {
        let place = tempfile::tempdir().unwrap();
        let of = |text: &[u8]| {
            let path = place.path().join("script");
            std::fs::write(&path, text).unwrap();
            interpreter(&File::open(path).unwrap())
        };
        assert_eq!(of(b"#!/bin/sh -e\nx").unwrap(), Path::new("/bin/sh"));
        assert_eq!(of(b"#! /opt/x").unwrap(), Path::new("/opt/x"));
        assert!(of(b"").is_none() && of(b"#!").is_none() && of(b"\x7fELF").is_none());
        assert!(READ.iter().all(|path| !path.contains("shadow")));
    }
}
