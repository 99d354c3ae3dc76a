//! Fuzzing of what parses the outside. Each target takes any bytes and says what must hold of them; nothing may panic, loop or grow.
//!
//! Here every target gets a short run with inputs that a seed decides: what is in `tests/fuzz/corpus`, changed at random. `make fuzz` runs
//! the targets of `wire` guided by coverage (`tests/fuzz`), and all of them here for longer.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]
#![allow(
    clippy::print_stderr,
    reason = "how much was tried, and what failed, is read by people"
)]

mod driver;
mod kernel;
mod log;
mod wire;

use driver::fuzz;

#[test]
fn capabilities() {
    fuzz("capability", 200_000, wire::capability);
}

#[test]
fn profiles() {
    fuzz("profile", 60_000, wire::profile);
}

#[test]
fn groups() {
    fuzz("groups", 100_000, wire::groups);
}

#[test]
fn admin_requests() {
    fuzz("admin", 200_000, wire::admin);
}

#[test]
fn envelopes() {
    fuzz("envelope", 150_000, wire::envelope);
}

#[test]
fn manifests() {
    fuzz("manifest", 30_000, wire::manifest);
}

#[test]
fn policies() {
    fuzz("policy", 60_000, kernel::policy);
}

#[test]
fn bundles() {
    let _ = kernel::example();
    fuzz("bundle", 4_000, kernel::bundle);
}

#[test]
fn audit_segments() {
    drop(log::log());
    fuzz("audit", 600, log::any);
}

/// Every mutation that the target above can make of one place, and not only those that chance chose.
#[test]
fn audit_segments_one_change_each() {
    log::each_place();
}
