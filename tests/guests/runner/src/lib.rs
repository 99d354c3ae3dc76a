//! A capsule that runs programs on request. The kernel's tests drive it; it is of no other use.
use std::collections::BTreeMap;

use astrid_sdk::child::{
    Begun, Confinement, Exited, LogFile, Network, Reach, Sandbox, Signal, Sink, Spec, Started, Workspace,
};
use astrid_sdk::prelude::*;

#[derive(Default)]
struct Runner;

/// A program to run.
#[body]
#[serde(default)]
#[derive(Default)]
struct Run {
    tag: String,
    program: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    secrets: Vec<String>,
    cwd: Option<String>,
    input: bool,
    terminal: bool,
    /// Log file of its output.
    log: Option<String>,
    messages: bool,
    errors_too: bool,
    processes: Option<u64>,
    open_files: Option<u64>,
    open: bool,
    adopt: bool,
    /// What it writes and whom it speaks to, when it is confined.
    write: Option<Vec<String>>,
    read: Option<Vec<String>>,
    silent: bool,
    overlay: bool,
    copy: Option<u64>,
}

/// A child.
#[body]
struct Child {
    port: u64,
}

/// Something to do to a child.
#[body]
struct Act {
    port: u64,
    #[serde(default)]
    text: String,
    #[serde(default)]
    tree: bool,
}

/// What a child uses.
#[body]
struct Used {
    processes: u32,
    memory_bytes: u64,
}

/// What was written.
#[body]
struct Text {
    text: String,
}

fn sink(run: &Run, name: &str) -> Sink {
    let file = run.log.as_ref().map(|log| LogFile {
        name: format!("{log}{name}"),
        bytes_max: 1 << 20,
        keep: 2,
        every: None,
        compress: false,
    });
    Sink {
        file,
        messages: run.messages,
    }
}

#[capsule(says("runner.v1.event.started" = Value, "runner.v1.event.failed" = Value, "runner.v1.event.output" = Text, "runner.v1.event.exited" = Value, "runner.v1.event.begun" = Value))]
impl Runner {
    /// Runs a program.
    #[on("runner.v1.do.run")]
    fn run(&mut self, ctx: &mut Context, run: Run) -> Result<Child> {
        let mut spec = Spec::new(&run.program);
        spec.stdout = sink(&run, ".out");
        spec.stderr = run.errors_too.then(|| sink(&run, ".err"));
        spec.tag = run.tag;
        spec.args = run.args;
        spec.env = run.env.into_iter().collect();
        spec.secrets = run.secrets;
        spec.cwd = run.cwd;
        spec.input = run.input;
        spec.terminal = run.terminal;
        spec.limits.processes = run.processes;
        spec.limits.open_files = run.open_files;
        spec.sandbox = match (run.write, run.read) {
            (None, None) if run.open => Sandbox::None,
            (None, None) => Sandbox::Home,
            (write, read) => Sandbox::Confined(Confinement {
                network: if run.silent { Network::None } else { Network::Full },
                read,
                write,
                best_effort: run.open,
            }),
        };
        spec.workspace = match run.copy {
            Some(bytes) => Workspace::Checkout(bytes),
            None if run.overlay => Workspace::Overlay,
            None => Workspace::None,
        };
        spec.adopt = run.adopt;
        Ok(Child {
            port: ctx.spawn(&spec)?,
        })
    }

    /// Kills it.
    #[on("runner.v1.do.kill")]
    fn kill(&mut self, ctx: &mut Context, act: Act) -> Result<Child> {
        let reach = if act.tree { Reach::Tree } else { Reach::Main };
        ctx.signal(act.port, Signal::Kill, reach)?;
        Ok(Child { port: act.port })
    }

    /// Writes to it, or ends its input when there is nothing to write.
    #[on("runner.v1.do.write")]
    fn write(&mut self, ctx: &mut Context, act: Act) -> Result<Child> {
        if act.text.is_empty() {
            ctx.close_input(act.port)?;
        } else {
            ctx.write_input(act.port, act.text.as_bytes())?;
        }
        Ok(Child { port: act.port })
    }

    /// Says what it uses.
    #[on("runner.v1.do.measure")]
    fn measure(&mut self, ctx: &mut Context, act: Act) -> Result<Used> {
        let usage = ctx.measure(act.port)?;
        Ok(Used {
            processes: usage.processes,
            memory_bytes: usage.memory_bytes,
        })
    }

    /// The last lines of a log file.
    #[on("runner.v1.do.tail")]
    fn tail(&mut self, ctx: &mut Context, file: Text) -> Result<Text> {
        let bytes = ctx.tail(&file.text, 10)?;
        Ok(Text {
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    /// Replaces its document, and says what was there.
    #[on("runner.v1.do.document")]
    fn document(&mut self, ctx: &mut Context, new: Text) -> Result<Text> {
        let was = ctx.read_document("runner.toml")?;
        ctx.replace_document("runner.toml", was.as_deref(), &new.text)?;
        Ok(Text {
            text: was.unwrap_or_default(),
        })
    }

    /// Fails, so that a new generation begins.
    #[on("runner.v1.do.panic")]
    fn panic(&mut self, _body: Body) -> Result<()> {
        panic!("on request");
    }

    #[on("lifecycle.v1.started", "lifecycle.v1.restarted")]
    fn begun(&mut self, ctx: &mut Context, begun: Begun) -> Result<()> {
        ctx.publish(
            "runner.v1.event.begun",
            json!({ "ports": begun.ports, "how": ctx.topic() }),
        )?;
        Ok(())
    }

    #[on("port.v1.child.started")]
    fn started(&mut self, ctx: &mut Context, started: Started) -> Result<()> {
        let port = ctx.port();
        ctx.publish("runner.v1.event.started", json!({ "port": port, "started": started }))?;
        Ok(())
    }

    #[on("port.v1.child.failed")]
    fn failed(&mut self, ctx: &mut Context, problem: Value) -> Result<()> {
        ctx.publish("runner.v1.event.failed", problem)?;
        Ok(())
    }

    #[on("port.v1.child.output")]
    fn output(&mut self, ctx: &mut Context, output: Body) -> Result<()> {
        let stream = output.parameter("stream").unwrap_or_default().into_owned();
        let text = String::from_utf8_lossy(&output.bytes).into_owned();
        ctx.publish("runner.v1.event.output", json!({ "stream": stream, "text": text }))?;
        Ok(())
    }

    #[on("port.v1.child.exited")]
    fn exited(&mut self, ctx: &mut Context, exited: Exited) -> Result<()> {
        ctx.publish("runner.v1.event.exited", json!(exited))?;
        Ok(())
    }
}
