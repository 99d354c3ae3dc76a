//! Keeps a process from system calls (seccomp).
//!
//! A process may set the limits, the priority and the processors of every other one of its user: two words to `prlimit`, and the daemon
//! opens no file any more. Landlock does not know such calls, so they are filtered: a process reads them all, and sets its own. Nor does
//! a process leave its place below the keeper: its main process ends with that, and what it starts is its own child and not its sibling.
//! Who is confined is kept besides from what reaches around the rest: mounts and namespaces, other processes' memory, the system's keys and modules, interfaces whose
//! requests no filter sees, and from sockets as it was said.
//!
//! Programs of another word size than this one (32 bits, x32) are ended by the filter, with `SIGSYS`, and need `sandbox = "none"`.
//! What is refused is refused with an error that programs know; `clone3`, whose flags a filter cannot see, is not there for them, and
//! they use `clone`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use super::confine::Network;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Result<T> = std::result::Result<T, seccompiler::Error>;

/// Never for who is confined, whatever the arguments are.
const NEVER: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Flags that make a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// As [`NAMESPACES`]; to `clone` it is part of a signal.
const NEW_TIME: libc::c_int = 0x80;

/// Personalities that are as good as none: of Linux, one that was asked for by old programs, and the question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// What Linux calls the selection and the input of a terminal.
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;

/// The protocol of `AF_NETLINK` by which programs list the addresses of this machine.
const NETLINK_ROUTE: u64 = 0;

/// Where a filter finds the number of the call, and what marks one of the x32 interface.
const X32: u32 = 0x4000_0000;

/// What `prctl` is told by who sets the signal that comes when its parent ends; the one that says nothing else is left to it.
const PR_SET_PDEATHSIG: u64 = 1;
const SIGKILL: u64 = 9;

/// What calls of priority are told that are about all processes of a user.
const PRIO_USER: u64 = 2;
const IOPRIO_WHO_USER: u64 = 3;

/// The part of the second word of `socket` that is the kind, the kinds that there can be, and those that cannot speak to others than
/// the one that they were made with.
const SOCKET_KIND: u64 = 0xf;
const PAIRED_FOR_EVER: [libc::c_int; 2] = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET];

/// Filters this process and all that it will start: it sets nothing of others, and stays where it is. It has no new privileges already.
pub(super) fn keep_others() -> Result<()> {
    of_everybody()?.iter().try_for_each(|filter| apply_filter(filter))
}

/// Filters this process and all that it will start, as one that is confined.
pub(super) fn confine(network: Network) -> Result<()> {
    filters(network)?.iter().try_for_each(|filter| apply_filter(filter))
}

/// Each says one kind of no; the system goes by the strictest.
fn of_everybody() -> Result<Vec<BpfProgram>> {
    let mut rules = others()?;
    rules.insert(libc::SYS_clone, vec![makes(libc::CLONE_PARENT)?]);
    let anothers_signal = [
        (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PR_SET_PDEATHSIG),
        (1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, SIGKILL),
    ];
    rules.insert(libc::SYS_prctl, vec![rule(&anothers_signal)?]);
    Ok(vec![
        refuse(rules, libc::EPERM)?,
        refuse(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?,
        #[cfg(target_arch = "x86_64")]
        no_x32(),
    ])
}

fn filters(network: Network) -> Result<Vec<BpfProgram>> {
    let mut rules: Rules = NEVER.iter().map(|call| (*call, Vec::new())).collect();
    let mut clone = NAMESPACES.iter().map(|flag| makes(*flag)).collect::<Result<Vec<_>>>()?;
    rules.insert(libc::SYS_clone, clone.clone());
    clone.push(makes(NEW_TIME)?);
    rules.insert(libc::SYS_unshare, clone);
    let command = |command| rule(&[(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)]);
    rules.insert(libc::SYS_ioctl, vec![command(TIOCSTI)?, command(TIOCLINUX)?]);
    let others = PERSONALITIES.map(|one| (0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, one));
    rules.insert(libc::SYS_personality, vec![rule(&others)?]);
    let mut filters = of_everybody()?;
    filters.push(refuse(rules, libc::EPERM)?);
    filters.push(refuse(sockets(network)?, libc::EACCES)?);
    Ok(filters)
}

fn makes(flag: libc::c_int) -> Result<SeccompRule> {
    let flag = u64::from(flag.cast_unsigned());
    rule(&[(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)])
}

/// What sets something of another process; 0 is oneself.
fn others() -> Result<Rules> {
    let number = |at, operation, value| (at, SeccompCmpArgLen::Dword, operation, value);
    let another = |at| rule(&[number(at, SeccompCmpOp::Ne, 0)]);
    // prlimit64(pid, resource, new, old): somebody else, and something new.
    let set_anothers = rule(&[
        number(0, SeccompCmpOp::Ne, 0),
        (2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0),
    ])?;
    let of_user = |kind| rule(&[number(0, SeccompCmpOp::Ge, kind)]);
    Ok(BTreeMap::from([
        (libc::SYS_prlimit64, vec![set_anothers]),
        (libc::SYS_setpriority, vec![another(1)?, of_user(PRIO_USER)?]),
        (libc::SYS_ioprio_set, vec![another(1)?, of_user(IOPRIO_WHO_USER)?]),
        (libc::SYS_sched_setparam, vec![another(0)?]),
        (libc::SYS_sched_setscheduler, vec![another(0)?]),
        (libc::SYS_sched_setattr, vec![another(0)?]),
        (libc::SYS_sched_setaffinity, vec![another(0)?]),
    ]))
}

/// Which sockets are refused. A pair of datagrams is a way to every socket with a path, by the name that a message has: who is kept
/// from those has pairs that are connected for ever. What it could do with one besides is refused as well where it needs none of it.
fn sockets(network: Network) -> Result<Rules> {
    let family = |operation, family: libc::c_int| {
        let family = u64::from(family.cast_unsigned());
        (0, SeccompCmpArgLen::Dword, operation, family)
    };
    let but = |families: &[libc::c_int]| {
        let others = families.iter().map(|other| family(SeccompCmpOp::Ne, *other));
        rule(&others.collect::<Vec<_>>())
    };
    let other_netlink = rule(&[
        family(SeccompCmpOp::Eq, libc::AF_NETLINK),
        (2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, NETLINK_ROUTE),
    ])?;
    let made = match network {
        // No rule at all: every one.
        Network::None => Vec::new(),
        Network::Local => vec![but(&[libc::AF_UNIX])?],
        Network::Loopback => vec![but(&[libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK])?, other_netlink],
        Network::Full => {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            vec![but(&families)?, other_netlink]
        }
    };
    let mut pairs = vec![but(&[libc::AF_UNIX])?];
    if matches!(network, Network::None | Network::Loopback) {
        let kept = PAIRED_FOR_EVER.map(|kind| u64::from(kind.cast_unsigned()));
        for kind in (0..=SOCKET_KIND).filter(|kind| !kept.contains(kind)) {
            let is = SeccompCmpOp::MaskedEq(SOCKET_KIND);
            pairs.push(rule(&[(1, SeccompCmpArgLen::Dword, is, kind)])?);
        }
    }
    let mut rules = BTreeMap::from([(libc::SYS_socket, made), (libc::SYS_socketpair, pairs)]);
    if network == Network::None {
        let never = [libc::SYS_bind, libc::SYS_connect, libc::SYS_listen];
        rules.extend(never.map(|call| (call, Vec::new())));
    }
    Ok(rules)
}

fn rule(conditions: &[(u8, SeccompCmpArgLen, SeccompCmpOp, u64)]) -> Result<SeccompRule> {
    let conditions = conditions
        .iter()
        .map(|(argument, length, operation, value)| {
            SeccompCondition::new(*argument, length.clone(), operation.clone(), *value)
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(SeccompRule::new(conditions)?)
}

/// These calls end with that error.
fn refuse(rules: Rules, error: libc::c_int) -> Result<BpfProgram> {
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(error.unsigned_abs()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    Ok(filter.try_into()?)
}

/// The same machine's other interface has calls of other numbers, which would be none of those above: ends who uses it.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> BpfProgram {
    let (load, jump_if_at_least, ret) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let step = |code: u32, jt, jf, k| seccompiler::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt,
        jf,
        k,
    };
    vec![
        step(load, 0, 0, 0),
        step(jump_if_at_least, 0, 1, X32),
        step(ret, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(ret, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What the system does with a call: the filters as the system reads them, over what it gives them.
    fn answer(network: Network, call: i64, arguments: &[u64]) -> u32 {
        let answers = filters(network).unwrap();
        // Of several answers the lowest wins: an end, an error, nothing.
        let signed = |answer: u32| answer.cast_signed();
        let all = answers.iter().map(|filter| run(filter, call, arguments));
        all.min_by_key(|answer| signed(*answer)).unwrap()
    }

    fn run(filter: &BpfProgram, call: i64, arguments: &[u64]) -> u32 {
        let architecture = if cfg!(target_arch = "x86_64") {
            0xc000_003e
        } else {
            0xc000_00b7_u32
        };
        let mut data = u32::try_from(call).unwrap().to_ne_bytes().to_vec();
        data.extend(architecture.to_ne_bytes());
        data.extend([0; 8]);
        (0..6).for_each(|n| data.extend(arguments.get(n).copied().unwrap_or(0).to_ne_bytes()));
        let (mut accumulator, mut at) = (0u32, 0);
        loop {
            let step = &filter[at];
            at += 1;
            let code = u32::from(step.code);
            let k = step.k;
            let mut jump = |yes: bool| at += usize::from(if yes { step.jt } else { step.jf });
            match code {
                0x20 => accumulator = u32::from_ne_bytes(data[k as usize..][..4].try_into().unwrap()),
                0x05 => at += k as usize,
                0x15 => jump(accumulator == k),
                0x25 => jump(accumulator > k),
                0x35 => jump(accumulator >= k),
                0x45 => jump(accumulator & k != 0),
                0x54 => accumulator &= k,
                0x06 => return k,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn refused(error: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | error.unsigned_abs()
    }

    /// A18: what reaches around Landlock is refused, and what every program does is not.
    #[test]
    fn calls_are_told_apart() {
        let full = |call, arguments: &[u64]| answer(Network::Full, call, arguments);
        for call in NEVER {
            assert_eq!(full(*call, &[]), refused(libc::EPERM), "{call}");
        }
        let fork = u64::from(libc::SIGCHLD.unsigned_abs());
        let thread = u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_FILES).unsigned_abs());
        let user = u64::from(libc::CLONE_NEWUSER.unsigned_abs());
        let sibling = u64::from(libc::CLONE_PARENT.unsigned_abs());
        let sets_limits = [1, 7, 0x7fff_0000_0000, 0];
        for (call, arguments, expected) in [
            (libc::SYS_clone, &[fork][..], None),
            (libc::SYS_clone, &[thread], None),
            (libc::SYS_clone, &[fork | user], Some(libc::EPERM)),
            (libc::SYS_clone, &[fork | sibling], Some(libc::EPERM)),
            (libc::SYS_clone3, &[], Some(libc::ENOSYS)),
            (libc::SYS_prctl, &[1, 0], Some(libc::EPERM)),
            (libc::SYS_prctl, &[1, 17], Some(libc::EPERM)),
            (libc::SYS_prctl, &[1, 9], None),
            (libc::SYS_prctl, &[15, 0], None),
            (libc::SYS_setpriority, &[0, 0, 5], None),
            (libc::SYS_setpriority, &[0, 7, 5], Some(libc::EPERM)),
            (libc::SYS_setpriority, &[2, 0, 5], Some(libc::EPERM)),
            (libc::SYS_ioprio_set, &[1, 0, 5], None),
            (libc::SYS_ioprio_set, &[3, 0, 5], Some(libc::EPERM)),
            (libc::SYS_sched_setaffinity, &[0, 8], None),
            (libc::SYS_sched_setaffinity, &[7, 8], Some(libc::EPERM)),
            (libc::SYS_sched_setscheduler, &[7, 1], Some(libc::EPERM)),
            (libc::SYS_sched_setparam, &[7, 1], Some(libc::EPERM)),
            (libc::SYS_sched_setattr, &[7, 1], Some(libc::EPERM)),
            (libc::SYS_unshare, &[u64::from(libc::CLONE_FILES.unsigned_abs())], None),
            (libc::SYS_unshare, &[user], Some(libc::EPERM)),
            (libc::SYS_unshare, &[0x80], Some(libc::EPERM)),
            (libc::SYS_ioctl, &[0, TIOCSTI], Some(libc::EPERM)),
            // The system looks at half of the number only.
            (libc::SYS_ioctl, &[0, TIOCSTI | 1 << 32], Some(libc::EPERM)),
            (libc::SYS_ioctl, &[0, 0x5413], None),
            (libc::SYS_personality, &[0xffff_ffff], None),
            (libc::SYS_personality, &[0x004_0000], Some(libc::EPERM)),
            (libc::SYS_prlimit64, &sets_limits, Some(libc::EPERM)),
            (libc::SYS_prlimit64, &[0, 7, 0x7fff_0000_0000, 0], None),
            (libc::SYS_prlimit64, &[1, 7, 0, 0x7fff_0000_0000], None),
            (libc::SYS_openat, &[], None),
            (libc::SYS_kill, &[1, 9], None),
        ] {
            let expected = expected.map_or(libc::SECCOMP_RET_ALLOW, refused);
            assert_eq!(full(call, arguments), expected, "{call} {arguments:x?}");
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(full(0x4000_0000 | libc::SYS_mount, &[]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    /// A18: of the families of sockets those that were said, and pairs.
    #[test]
    fn sockets_are_told_apart() {
        let (unix, inet, inet6) = (libc::AF_UNIX, libc::AF_INET, libc::AF_INET6);
        for (network, allowed) in [
            (Network::None, &[][..]),
            (Network::Local, &[unix]),
            (Network::Loopback, &[inet, inet6, libc::AF_NETLINK]),
            (Network::Full, &[unix, inet, inet6, libc::AF_NETLINK]),
        ] {
            for family in 0..50_i32 {
                let found = answer(network, libc::SYS_socket, &[u64::from(family.unsigned_abs()), 1, 0]);
                let expected = if allowed.contains(&family) {
                    libc::SECCOMP_RET_ALLOW
                } else {
                    refused(libc::EACCES)
                };
                assert_eq!(found, expected, "{network:?} {family}");
            }
            let others = !matches!(network, Network::None | Network::Loopback);
            for (kind, allowed) in [(1, true), (5, true), (2, others), (3, others), (0, others)] {
                // With what else can be said there: closed on exec, does not block.
                for besides in [0, 0x8_0000, 0x800] {
                    let found = answer(network, libc::SYS_socketpair, &[1, kind | besides, 0]);
                    assert_eq!(found == libc::SECCOMP_RET_ALLOW, allowed, "{network:?} {kind}");
                }
            }
            assert_eq!(
                answer(network, libc::SYS_socketpair, &[30, 1, 0]),
                refused(libc::EACCES)
            );
            for call in [libc::SYS_bind, libc::SYS_connect, libc::SYS_listen] {
                let found = answer(network, call, &[3]);
                assert_eq!(
                    found == libc::SECCOMP_RET_ALLOW,
                    network != Network::None,
                    "{network:?}"
                );
            }
        }
        let netlink = u64::from(libc::AF_NETLINK.unsigned_abs());
        let other = answer(Network::Full, libc::SYS_socket, &[netlink, 3, 9]);
        assert_eq!(other, refused(libc::EACCES));
    }
}
