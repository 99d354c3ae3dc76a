//! `astrid process signal NAME SIGNAL`.

use serde::Deserialize;
use serde_json::json;

use super::ask;
use crate::cli::Context;
use crate::output::Output;

/// Send a signal to a program
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The program
    name: String,

    /// The signal by its name, as in HUP or SIGHUP
    #[arg(value_parser = signal)]
    signal: String,

    /// Only to this instance, counted from 0
    #[arg(long, value_name = "I")]
    instance: Option<u32>,
}

/// The answer.
#[derive(Deserialize)]
struct Sent {
    sent: u64,
}

/// The signal's full name. Whether there is such a signal is known where it is sent.
fn signal(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    let short = name.strip_prefix("SIG").unwrap_or(&name);
    let letters = short.starts_with(|c: char| c.is_ascii_alphabetic());
    if !letters || !short.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err("name it, as in HUP, USR1 or SIGTERM".to_owned());
    }
    Ok(format!("SIG{short}"))
}

pub(super) fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let body = json!({ "name": args.name, "instance": args.instance, "signal": args.signal });
    let answer = ask::<Sent>(context, "signal", &body)?;
    if context.output.is_json() {
        return Output::json(&answer.raw);
    }
    let (signal, sent) = (&args.signal, answer.read.sent);
    let plural = if sent == 1 { "" } else { "s" };
    context.output.say(&format!(
        "{signal} was sent to {sent} instance{plural} of {}",
        args.name
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_signals() {
        for (text, name) in [("hup", "SIGHUP"), ("SIGTERM", "SIGTERM"), ("usr1", "SIGUSR1")] {
            assert_eq!(signal(text).as_deref(), Ok(name));
        }
        for bad in ["", "SIG", "9", "-9", "H UP", "sig9"] {
            assert!(signal(bad).is_err(), "{bad}");
        }
    }
}
