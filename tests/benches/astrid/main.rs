//! What Astrid costs, beside the limit of this machine: each line is ours, the limit or peer measured in the same run, and the ratio.
//!
//! Rounds of ours and of the limit alternate, and the median of each is printed, so that a slow moment of the machine hits both. Nothing
//! fails here because a machine is slow: these are figures to look at. Goals are from the design's budget.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "a program that prints figures"
)]

mod audit;
mod authority;
mod bare;
mod daemon;
mod durable;
mod files;
mod kernel;
mod output;
mod programs;
mod workspaces;

use std::time::{Duration, Instant};

/// Rounds of each measurement.
const ROUNDS: usize = 7;

/// Calls `work` for so many units and returns nanoseconds a unit.
pub fn per_unit(units: u64, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    began.elapsed().as_secs_f64() * 1e9 / units as f64
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Alternates two measurements, in nanoseconds.
pub fn pair(mut ours: impl FnMut() -> f64, mut limit: impl FnMut() -> f64) -> (f64, f64) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(ours());
        b.push(limit());
    }
    (median(a), median(b))
}

pub fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

/// One line: what, ours, the limit, ratio, goal.
pub fn line(what: &str, ours: f64, peer: &str, limit: f64, goal: &str) {
    println!(
        "{what:<58} {:>11} {:>11}  {peer:<34} {:>6.2}x  {goal}",
        time(ours),
        time(limit),
        ours / limit
    );
}

/// One line without a peer.
pub fn alone(what: &str, figure: &str, goal: &str) {
    println!("{what:<58} {figure:>11} {:>11}  {:<34} {:>7}  {goal}", "", "", "");
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, size] = arguments.as_slice()
        && word == bare::ECHO_ARGUMENT
    {
        return bare::echo(size.parse().unwrap());
    }
    // `cargo bench` passes `--bench`; the names of parts are all that means something here.
    println!(
        "{:<58} {:>11} {:>11}  {:<34} {:>7}  goal",
        "what", "ours", "limit", "the limit is", "ratio"
    );
    let parts: [(&str, fn()); 10] = [
        ("authority", authority::run),
        ("audit", audit::run),
        ("kernel", kernel::run),
        ("durable", durable::run),
        ("principals", durable::principals),
        ("files", files::run),
        ("output", output::run),
        ("programs", programs::run),
        ("workspaces", workspaces::run),
        ("daemon", daemon::run),
    ];
    // Without names, all of them.
    let chosen = |name: &str| {
        arguments.iter().any(|a| a == name) || !parts.iter().any(|(n, _)| arguments.contains(&(*n).to_owned()))
    };
    for (_, part) in parts.iter().filter(|(name, _)| chosen(name)) {
        part();
    }
}
