//! Astrid's one binary: the command line, and hidden behind two commands the daemon and the compiler child.
//!
//! Reading order: [`cli`] (what can be typed), [`commands`] (one file for each), [`launch`] and [`process`] (how a daemon is
//! started and stopped), [`client`] (the conversation with a running one), [`daemon`] (every call into the kernel).
//!
//! Conventions, the same for every command: data on stdout, words on stderr; `--format json` changes both; an error prints
//! its causes and at most one hint, and its exit code says what kind it is ([`failure::Exit`]).
//!
//! Deliberately absent: policy. What a command may do is the daemon's decision, so that a second client in another language
//! is neither weaker nor stronger than this one.

mod body;
mod cli;
mod client;
mod commands;
mod confirm;
mod daemon;
mod ephemeral;
mod failure;
mod launch;
mod logfile;
mod output;
mod probe;
mod process;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
