//! `astrid:kernel/child`: programs of the actor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bindings::astrid::kernel::child::{
    ChildError, Host, Limits as GuestLimits, LogFile as GuestLogFile, Network as GuestNetwork, Period as GuestPeriod,
    Reach as GuestReach, Sandbox as GuestSandbox, Signal as GuestSignal, Sink as GuestSink, SpawnError, Spec,
    TailError, Usage, Workspace,
};
use crate::authority::Permit;
use crate::capsule::actor::ScopeKey;
use crate::capsule::commands::{Command, Refused};
use crate::capsule::guest::Guest;
use crate::keeper::protocol::{Limits, Network, Reach};
use crate::ledger::{Hold, Limit};
use crate::port::child::held::{CHILDREN_PER_ACTOR_MAX, Child, Owner};
use crate::port::child::launch::{self, LaunchError, LogFile, Output};
use crate::port::child::mount::Seen;
use crate::port::child::program::{OWN_PROGRAM, Program, ProgramError};
use crate::port::child::sandbox::{Asked, Sandbox};
use crate::port::child::{Children, Launch, REQUESTS_MAX};
use crate::port::sink::tail::TAIL_BYTES_MAX;
use crate::port::sink::{self, Period, Rotation};

impl From<ProgramError> for SpawnError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::NotFound(what) => Self::NotFound(what),
            ProgramError::NotExecutable(what) => Self::NotExecutable(what),
            ProgramError::Invalid(_) => Self::Invalid(error.to_string()),
        }
    }
}

impl From<LaunchError> for SpawnError {
    fn from(error: LaunchError) -> Self {
        match error {
            LaunchError::Invalid(what) => Self::Invalid(what),
            LaunchError::NoDirectory(what) => Self::NoDirectory(what),
        }
    }
}

impl From<Refused> for ChildError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::TooMany(limit) => Self::TooMany(limit),
            Refused::TooLarge(limit) => Self::Full(limit),
        }
    }
}

/// A signal's number.
fn number(signal: GuestSignal) -> i32 {
    use rustix::process::Signal;
    let signal = match signal {
        GuestSignal::Hangup => Signal::HUP,
        GuestSignal::Interrupt => Signal::INT,
        GuestSignal::Quit => Signal::QUIT,
        GuestSignal::Kill => Signal::KILL,
        GuestSignal::User1 => Signal::USR1,
        GuestSignal::User2 => Signal::USR2,
        GuestSignal::Terminate => Signal::TERM,
        GuestSignal::Continue => Signal::CONT,
        GuestSignal::Stop => Signal::STOP,
        GuestSignal::WindowChange => Signal::WINCH,
    };
    signal.as_raw()
}

/// Limits that this process could apply to a child of its user.
fn limits(asked: GuestLimits) -> Result<Limits, SpawnError> {
    if asked.processes.is_some() && rustix::process::geteuid().is_root() {
        return Err(SpawnError::Unsupported(
            "limits.processes: it does not bind root, as whom this daemon runs; run the daemon as another user"
                .to_owned(),
        ));
    }
    Ok(Limits {
        memory_bytes: asked.memory_bytes,
        cpu_seconds: asked.cpu_seconds,
        open_files: asked.open_files,
        processes: asked.processes,
        file_bytes: asked.file_bytes,
        core_bytes: asked.core_bytes,
        tree_memory_bytes: asked.tree_memory_bytes,
        tree_processes: asked.tree_processes,
    })
}

fn rotation(file: &GuestLogFile) -> Rotation {
    Rotation {
        bytes_max: file.bytes_max,
        keep: file.keep,
        every: file.every.map(|period| match period {
            GuestPeriod::Hour => Period::Hour,
            GuestPeriod::Day => Period::Day,
        }),
        compress: file.compress,
    }
}

impl Guest {
    /// The actor's child of that number, running or about to.
    fn child(&self, port: u64) -> Result<Arc<Child>, ChildError> {
        self.actor.children().get(port).ok_or(ChildError::Unknown)
    }

    /// Where a sink leads, if nothing else leads there.
    fn output(&self, sink: GuestSink, taken: &mut Vec<PathBuf>) -> Result<Output, SpawnError> {
        let Some(file) = sink.file else {
            return Ok(Output {
                file: None,
                messages: sink.messages,
            });
        };
        let rotation = rotation(&file);
        launch::check_log(&file.name, &rotation).map_err(SpawnError::Invalid)?;
        let children = &self.host().children;
        let Some(path) = children.log_path(&self.principal, &file.name) else {
            return Err(SpawnError::Invalid(format!(
                "log file {}: {} has no log files",
                file.name, self.principal
            )));
        };
        if taken.contains(&path) || children.writes(&path) || self.commands.writes_log(&path) {
            return Err(SpawnError::Invalid(format!(
                "log file {}: another child writes to it",
                file.name
            )));
        }
        taken.push(path.clone());
        Ok(Output {
            file: Some(LogFile { path, rotation }),
            messages: sink.messages,
        })
    }

    /// What it is kept from, if the manifest lets it be as loose.
    fn sandbox(&self, asked: GuestSandbox, program: &str, workspace: Option<&Path>) -> Result<Sandbox, SpawnError> {
        let host = self.host();
        let sandbox = match asked {
            GuestSandbox::None => Sandbox::None,
            GuestSandbox::Home => Sandbox::Home,
            GuestSandbox::Confined(asked) => {
                let asked = Asked {
                    network: match asked.network {
                        GuestNetwork::None => Network::None,
                        GuestNetwork::Local => Network::Local,
                        GuestNetwork::Loopback => Network::Loopback,
                        GuestNetwork::Full => Network::Full,
                    },
                    read: asked.read,
                    write: asked.write,
                    best_effort: asked.best_effort,
                };
                asked.resolve(workspace, &host.children.tmp_of(&self.principal)?)?
            }
        };
        let loose = sandbox.loose(workspace);
        let loose = host.gate.loosens(self.subject(), program, sandbox.strictness(), loose);
        loose.map_err(|denied| SpawnError::Denied(self.refused(denied).to_string()))?;
        Ok(sandbox)
    }

    /// The workspace that it sees, to be mounted or copied.
    fn workspace(&self, asked: &Workspace, adopt: bool) -> Result<Option<Seen>, SpawnError> {
        let children = &self.host().children;
        let seen = match asked {
            Workspace::None => return Ok(None),
            _ if adopt => {
                return Err(SpawnError::Invalid(
                    "workspace: not with adopt, for it is not there when the daemon is not".to_owned(),
                ));
            }
            Workspace::Overlay => children.workspace_of(&self.principal),
            Workspace::Checkout(bytes_max) => children.checkout_of(&self.principal, *bytes_max),
        };
        seen.map(Some)
            .map_err(|why| SpawnError::Unsupported(format!("workspace: {why}")))
    }

    /// Everything that can be checked now.
    fn prepare_launch(&self, spec: Spec, hold: Hold) -> Result<(Permit<Program>, Launch), SpawnError> {
        let host = self.host();
        let denied = |denied: crate::authority::Denied| SpawnError::Denied(self.refused(denied).to_string());
        host.gate.may_run(self.subject(), &spec.program).map_err(denied)?;
        launch::check_strings(&spec.tag, &spec.args, &spec.env)?;
        if spec.adopt && !matches!(self.actor.key(), ScopeKey::Principal(_)) {
            return Err(SpawnError::Invalid(
                "adopt: only a capsule of scope \"principal\" is found again by its children".to_owned(),
            ));
        }
        let secrets = launch::secret_values(&spec.secrets, &spec.env)?;
        let env = host.children.base().with(&spec.env);
        let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, path)| path);
        let workspace = self.workspace(&spec.workspace, spec.adopt)?;
        let within = workspace
            .as_ref()
            .map(|seen| Program::in_workspace(&spec.program, seen));
        let (program, found) = match within.transpose()?.flatten() {
            Some(within) => within,
            None => {
                let program = Program::find(&spec.program, path, host.children.own_program())?;
                let found = program.path.display().to_string();
                (program, found)
            }
        };
        let program = host.gate.run(self.subject(), &found, program).map_err(denied)?;
        let mut taken = Vec::new();
        let stdout = self.output(spec.stdout, &mut taken)?;
        let stderr = match spec.stderr {
            Some(_) if spec.terminal => {
                return Err(SpawnError::Invalid(
                    "stderr: a terminal has one stream of output".to_owned(),
                ));
            }
            Some(sink) => Some(self.output(sink, &mut taken)?),
            None => None,
        };
        let place = workspace.as_ref().map(|seen| seen.place().to_owned());
        let sandbox = self.sandbox(spec.sandbox, &found, place.as_deref())?;
        let launch = Launch {
            name: if spec.program == OWN_PROGRAM {
                found
            } else {
                spec.program
            },
            tag: spec.tag,
            args: spec.args,
            env,
            secrets,
            cwd: launch::working_directory(spec.cwd, place)?,
            input: spec.input && !spec.terminal,
            terminal: spec.terminal,
            stdout,
            stderr,
            limits: limits(spec.limits)?,
            sandbox,
            workspace,
            pays: self.payer.account.pays_for_storage(),
            adopt: spec.adopt,
            hold,
        };
        Ok((program, launch))
    }
}

impl Host for Guest {
    fn spawn(&mut self, spec: Spec) -> Result<u64, SpawnError> {
        let room = self.actor.children().len() + self.commands.spawns() < CHILDREN_PER_ACTOR_MAX;
        if !room || !self.host().children.may_start() {
            return Err(SpawnError::TooMany(
                u32::try_from(CHILDREN_PER_ACTOR_MAX).unwrap_or(u32::MAX),
            ));
        }
        match self.commands.room(0) {
            Ok(()) => {}
            Err(Refused::TooMany(limit)) => return Err(SpawnError::TooMany(limit)),
            Err(Refused::TooLarge(_)) => return Err(SpawnError::TooMany(0)),
        }
        let hold = self.payer.account.hold(Limit::Children, 1).map_err(|exceeded| {
            let limit = u32::try_from(self.over(exceeded).limit).unwrap_or(u32::MAX);
            SpawnError::TooMany(limit)
        })?;
        let (program, launch) = self.prepare_launch(spec, hold)?;
        let owner = Owner {
            capsule: Arc::clone(self.actor.capsule_name()),
            principal: self.principal.clone(),
        };
        if !launch.can_be_adopted(&owner) {
            return Err(SpawnError::Invalid(
                "adopt: tag, secrets and log files are too long to be kept".to_owned(),
            ));
        }
        let id = self.host().bus.ids().port();
        self.commands.push(
            Command::Spawn {
                program,
                id,
                launch: Box::new(launch),
                owner,
            },
            0,
        );
        Ok(id)
    }

    fn send_signal(&mut self, child: u64, signal: GuestSignal, reach: GuestReach) -> Result<u32, ChildError> {
        let child = self.child(child)?;
        self.commands.room(0)?;
        if !self.host().children.has_room() {
            return Err(ChildError::TooMany(u32::try_from(REQUESTS_MAX).unwrap_or(u32::MAX)));
        }
        let child = self.host().gate.own(self.subject(), child);
        let reach = match reach {
            GuestReach::Main => Reach::Main,
            GuestReach::Group => Reach::Group,
            GuestReach::Tree => Reach::Tree,
        };
        let command = Command::Signal {
            child,
            signal: number(signal),
            reach,
        };
        Ok(self.commands.push(command, 0))
    }

    fn write(&mut self, child: u64, bytes: Vec<u8>) -> Result<u32, ChildError> {
        let child = self.child(child)?;
        let input = child.input().ok_or(ChildError::NoInput)?;
        self.commands.room(bytes.len())?;
        let room = input.room(bytes.len()).map_err(|free| ChildError::Full(free as u64))?;
        let room = self.host().gate.own(self.subject(), room);
        let weight = bytes.len();
        let command = Command::WriteInput {
            room,
            bytes: bytes.into(),
        };
        Ok(self.commands.push(command, weight))
    }

    fn close_input(&mut self, child: u64) -> Result<u32, ChildError> {
        let child = self.child(child)?;
        if !child.input_closes() {
            return Err(ChildError::NoInput);
        }
        self.commands.room(0)?;
        let child = self.host().gate.own(self.subject(), child);
        Ok(self.commands.push(Command::CloseInput(child), 0))
    }

    fn measure(&mut self, child: u64) -> Result<Usage, ChildError> {
        let child = self.child(child)?;
        let usage = Children::measure(&child).unwrap_or_default();
        Ok(Usage {
            processes: usage.processes,
            cpu_ms: usage.cpu_ms,
            memory_bytes: usage.memory_bytes,
        })
    }

    fn tail(&mut self, name: String, lines: u32) -> Result<Vec<u8>, TailError> {
        let path = self.log_file(&name)?;
        match sink::tail(&path, lines as usize, TAIL_BYTES_MAX) {
            Ok(bytes) => Ok(bytes),
            Err(sink::TailError::NotFound { .. }) => Err(TailError::NotFound),
            Err(error) => Err(TailError::Failed(error.to_string())),
        }
    }

    fn log_path(&mut self, name: String) -> Result<String, TailError> {
        Ok(self.log_file(&name)?.display().to_string())
    }
}

impl Guest {
    /// The file of that name, of the principal that this is done for.
    fn log_file(&self, name: &str) -> Result<PathBuf, TailError> {
        let host = self.host();
        // Log files belong to who runs the programs.
        if host.gate.may_run(self.subject(), name).is_err() {
            return Err(TailError::NotFound);
        }
        let path = host.children.log_path(&self.principal, name);
        path.ok_or(TailError::InvalidName)
    }
}
