//! What can be typed, and how it is dispatched.
//!
//! Options that every command shares are here; the rest is beside the command it belongs to. A usage error obeys
//! `--format json` like any other error, although it is found before the options are known.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use astrid_wire::Principal;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use crate::client::{Client, Identity, SERVER_TIMEOUT};
use crate::commands::{self, Command, internal};
use crate::daemon::{self, Home};
use crate::ephemeral;
use crate::failure::{Exit, Failure, conclude};
use crate::output::{Format, Output};

/// Heading of the options that every command has.
const EVERYWHERE: &str = "Options of every command";

/// Runs and supervises capsules: WebAssembly components that talk by messages.
///
/// Exit codes: 0 ok, 1 failed, 2 usage, 3 daemon not reachable, 4 denied, 124 timeout. NO_COLOR is obeyed.
#[derive(Debug, Parser)]
#[command(
    name = "astrid",
    version,
    max_term_width = 100,
    subcommand_value_name = "COMMAND",
    propagate_version = false
)]
struct Cli {
    /// The daemon's home [default: $ASTRID_HOME, or ~/.astrid]
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE, display_order = 100)]
    home: Option<PathBuf>,

    /// How results and errors are printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t, help_heading = EVERYWHERE, display_order = 101)]
    format: Format,

    /// Act as this principal, proven by its private key [default: whoever owns the daemon]
    #[arg(long, global = true, value_name = "NAME", help_heading = EVERYWHERE, display_order = 102)]
    principal: Option<Principal>,

    /// File with the private key of --principal [default: keys/principals/NAME.key in the home]
    #[arg(long, global = true, value_name = "FILE", requires = "principal", help_heading = EVERYWHERE, display_order = 103)]
    identity: Option<PathBuf>,

    /// Join the running daemon, or start one for this command alone and stop it at once after
    ///
    /// Without a command: a daemon in the foreground that ends when its last client has been gone for 30 seconds, or as many
    /// as $ASTRID_IDLE_TIMEOUT_SECS says.
    #[arg(long)]
    ephemeral: bool,

    /// Like --ephemeral, in a home of its own that is thrown away afterwards
    #[arg(long)]
    private: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

/// What every command is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    home: Option<PathBuf>,
    /// As whom, if not as the owner of the daemon.
    identity: Option<Identity>,
    /// Where results go.
    pub(crate) output: Output,
    /// The connection that keeps a daemon alive while the command runs, if one does.
    session: Option<Rc<RefCell<Client>>>,
}

impl Context {
    /// The home that was named, or the default one. It need not exist.
    pub(crate) fn home(&self) -> anyhow::Result<Home> {
        daemon::home(self.home.as_deref())
    }

    /// As whom, if not as the owner of the daemon.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Talks with the daemon of this home.
    pub(crate) fn talk<T>(&self, say: impl FnOnce(&mut Client) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.talk_within(SERVER_TIMEOUT, say)
    }

    /// The same, with other patience until the conversation is open.
    pub(crate) fn talk_within<T>(
        &self,
        timeout: Duration,
        say: impl FnOnce(&mut Client) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        match &self.session {
            Some(client) => say(&mut client.borrow_mut()),
            None => say(&mut Client::connect_within(
                &self.home()?,
                self.identity.as_ref(),
                timeout,
            )?),
        }
    }

    /// The same, in another home, with a conversation that is open already.
    pub(crate) fn within(&self, home: &Home, session: Rc<RefCell<Client>>) -> Self {
        Self {
            home: Some(home.root().to_owned()),
            identity: self.identity.clone(),
            output: self.output,
            session: Some(session),
        }
    }
}

/// The whole command line, for completions.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// Parses, runs, and says how it went.
pub(crate) fn main() -> ExitCode {
    if let Some(code) = internal::main() {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let format = cli.format;
    conclude(run(cli), format)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let context = Context {
        home: cli.home,
        identity: cli.principal.map(|principal| Identity {
            principal,
            key: cli.identity,
        }),
        output: Output { format: cli.format },
        session: None,
    };
    if cli.private && context.home.is_some() {
        return Err(Failure::usage("--private makes a home of its own, so --home cannot name one").into());
    }
    if context.identity.is_some() && cli.command.as_ref().is_some_and(Command::is_the_users_own) {
        let text = "--principal means nothing here: this is done with the files and processes of whoever runs it";
        return Err(Failure::usage(text)
            .hint("what a principal may is asked by `astrid caps check`")
            .into());
    }
    match (cli.ephemeral || cli.private, cli.command) {
        (true, command) => ephemeral::run(&context, cli.private, command),
        (false, Some(command)) => commands::run(&context, command),
        (false, None) => Err(Failure::usage("a command is missing")
            .hint("`astrid --help` lists them")
            .into()),
    }
}

/// Prints what the parser has to say: help and version as data, the rest as an error.
fn refuse(error: &clap::Error) -> ExitCode {
    let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if !asked && wants_json(std::env::args_os()) {
        let text = error.render().to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text);
        let mut parts = message.split("\n\n").map(str::trim);
        let failure = Failure::usage(parts.next().unwrap_or(message));
        let tip = parts.find_map(|part| part.strip_prefix("tip: "));
        return conclude(
            Err(failure
                .hint(tip.unwrap_or("`astrid --help` shows what can be typed"))
                .into()),
            Format::Json,
        );
    }
    // Fails only when nobody reads it.
    let _ = error.print();
    if asked {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(Exit::Usage as u8)
    }
}

/// Whether the arguments ask for JSON, although they could not be parsed.
fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<OsString> = arguments.take_while(|argument| argument != "--").collect();
    arguments.iter().any(|argument| argument == "--format=json")
        || arguments
            .windows(2)
            .any(|pair| pair[0] == "--format" && pair[1] == OsStr::new("json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn usage_errors_obey_the_format() {
        let json = |line: &str| wants_json(line.split(' ').map(OsString::from));
        assert!(json("astrid statsu --format json"));
        assert!(json("astrid --format=json --nope"));
        assert!(!json("astrid publish a.b -- --format json"));
        assert!(!json("astrid status --format human"));
    }
}
