//! Keeps a process from the limits of others (seccomp).
//!
//! A process may set the limits of every other one of its user: two words to `prlimit`, and the daemon opens no file any more.
//! Landlock does not know that call, so it is filtered: a process reads all limits, and sets its own. Programs of another word size than
//! this one (32 bits) are ended by the filter and need `sandbox = "none"`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Filters this process and all that it will start. It has no new privileges already.
pub(super) fn keep_limits_of_others() -> Result<(), seccompiler::Error> {
    let is_set = |argument, length| SeccompCondition::new(argument, length, SeccompCmpOp::Ne, 0);
    // prlimit64(pid, resource, new, old): somebody else, and something new.
    let set_anothers = SeccompRule::new(vec![
        is_set(0, SeccompCmpArgLen::Dword)?,
        is_set(2, SeccompCmpArgLen::Qword)?,
    ])?;
    let refused = u32::try_from(libc::EPERM).unwrap_or(1);
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_prlimit64, vec![set_anothers])]),
        SeccompAction::Allow,
        SeccompAction::Errno(refused),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)
}
