//! The compiler child: this program again, with a component on its standard input and compiled code on its standard
//! output.
//!
//! It bounds itself before it reads a byte: niceness, memory, processor time, and no files. Its environment is empty,
//! so that nothing there changes what it makes. It ends with whoever started it. Its output ends with a hash, so that
//! half of one is not taken for a whole.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::CODE_BYTES_MAX;
use crate::capsule::bundle::BUNDLE_BYTES_MAX;
use crate::capsule::engine;

/// The argument that makes this program a compiler child.
pub const COMPILE_ARGUMENT: &str = "__compile";

/// Address space of the child, in bytes; the largest guest known takes a quarter of it.
const MEMORY_BYTES_MAX: u64 = 4 << 30;

/// Processor time of the child over all its threads, and time altogether. The largest guest known takes a sixth.
const CPU_SECONDS_MAX: u64 = 300;
const TIME_MAX: Duration = Duration::from_secs(300);

/// Threads of the child: more gain little, and each takes address space.
const THREADS_MAX: usize = 4;

/// How much the child gives way to everybody else; 19 is the most.
const NICENESS: i32 = 10;

/// Bytes of the child's standard error that are kept.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// Bytes of the hash that ends the output.
const HASH_BYTES: usize = 32;

/// How a refusal begins: in the child's words, which the parent repeats once.
const REFUSED: &str = "it cannot be compiled: ";

/// Why a component was not compiled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CompileError {
    /// The component is at fault.
    #[error("{REFUSED}{0}")]
    Refused(String),
    /// It needs more than a compilation may take; the component is at fault, or the machine is small.
    #[error("compiling it took more than it may ({MEMORY_BYTES_MAX} bytes, {CPU_SECONDS_MAX} s): {0}")]
    Exhausted(String),
    /// The compiler could not be started or talked to; the machine is at fault.
    #[error("the compiler could not be run: {0}")]
    NotStarted(Arc<io::Error>),
    /// The compiler made something that the engine does not take; this program is at fault.
    #[error("the compiler's output is not usable: {0}")]
    Unusable(String),
}

/// How compiler children are started.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Compiler {
    /// A compiler that is this program, started as `__compile`; also after its file was replaced.
    #[must_use]
    pub fn this_program() -> Compiler {
        Compiler::new("/proc/self/exe".into(), vec![COMPILE_ARGUMENT.to_owned()])
    }

    /// A program that calls [`compile_child`] when given those arguments.
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<String>) -> Compiler {
        Compiler { program, arguments }
    }

    /// Compiles a component in a child, which is killed when this future is dropped. The thread that polls it must
    /// outlive the child.
    ///
    /// # Errors
    ///
    /// [`CompileError`] says whose fault it is.
    pub(super) async fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        match tokio::time::timeout(TIME_MAX, self.run(component)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CompileError::Exhausted("it took too long".to_owned())),
        }
    }

    async fn run(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        let failed = |error| CompileError::NotStarted(Arc::new(error));
        let threads = thread::available_parallelism()
            .map_or(1, NonZeroUsize::get)
            .min(THREADS_MAX);
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let Some(mut input) = input {
                // One that has ended does not read; its status says why.
                let _ = input.write_all(component).await;
            }
        };
        let ((), code, complaint, status) = tokio::join!(
            feed,
            read_some(output, CODE_BYTES_MAX + HASH_BYTES as u64),
            read_some(errors, COMPLAINT_BYTES_MAX),
            child.wait()
        );
        let complaint = String::from_utf8_lossy(&complaint.map_err(failed)?).trim().to_owned();
        let status = status.map_err(failed)?;
        if !status.success() {
            return Err(ended(status, complaint));
        }
        checked(code.map_err(failed)?)
    }
}

async fn read_some(from: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // Dropped at the limit, so that a child that says more is ended by it.
        from.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What a failed child's status and words mean.
fn ended(status: ExitStatus, complaint: String) -> CompileError {
    match status.signal() {
        Some(signal) => CompileError::Exhausted(format!(
            "it was ended by signal {signal}{}{complaint}",
            separator(&complaint)
        )),
        None if complaint.is_empty() => CompileError::Refused(status.to_string()),
        None => CompileError::Refused(complaint.strip_prefix(REFUSED).unwrap_or(&complaint).to_owned()),
    }
}

fn separator(complaint: &str) -> &'static str {
    if complaint.is_empty() { "" } else { ": " }
}

/// The output without its hash, if that is right.
fn checked(mut output: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    let right = output
        .split_last_chunk::<HASH_BYTES>()
        .is_some_and(|(code, hash)| blake3::hash(code) == blake3::Hash::from_bytes(*hash));
    if !right {
        return Err(CompileError::Unusable("it is cut short".to_owned()));
    }
    output.truncate(output.len() - HASH_BYTES);
    Ok(output)
}

/// What the child does: bounds itself, reads a component, writes its code. Who calls this writes the error to
/// standard error and exits with 1.
///
/// # Errors
///
/// When it could not bound itself, read or write ([`CompileError::NotStarted`]), or the component is refused.
pub fn compile_child(input: &mut impl Read, output: &mut impl Write) -> Result<(), CompileError> {
    bound_this_process().map_err(|error| CompileError::NotStarted(Arc::new(error)))?;
    compile(input, output)
}

fn compile(input: &mut impl Read, output: &mut impl Write) -> Result<(), CompileError> {
    let failed = |error| CompileError::NotStarted(Arc::new(error));
    let refused = |error: wasmtime::Error| CompileError::Refused(format!("{error:#}"));
    let mut component = Vec::new();
    input
        .take(BUNDLE_BYTES_MAX as u64)
        .read_to_end(&mut component)
        .map_err(failed)?;
    let code = engine::engine()
        .map_err(refused)?
        .precompile_component(&component)
        .map_err(refused)?;
    output.write_all(&code).map_err(failed)?;
    output.write_all(blake3::hash(&code).as_bytes()).map_err(failed)?;
    output.flush().map_err(failed)
}

/// Bounds for the rest of this process's life.
fn bound_this_process() -> io::Result<()> {
    // The daemon may be killed; nobody is left then to take the result.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::nice(NICENESS)?;
    for (resource, limit) in [
        (Resource::As, MEMORY_BYTES_MAX),
        (Resource::Cpu, CPU_SECONDS_MAX),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ] {
        let hard = rustix::process::getrlimit(resource).maximum;
        let limit = hard.map_or(limit, |hard| hard.min(limit));
        rustix::process::setrlimit(
            resource,
            Rlimit {
                current: Some(limit),
                maximum: Some(limit),
            },
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

    use wasmtime::Engine;

    use super::*;
    use crate::capsule::bundle::tests::component;

    async fn outcome(script: &str) -> CompileError {
        let shell = Compiler::new("/bin/sh".into(), vec!["-c".to_owned(), script.to_owned()]);
        shell.compile(&vec![0; 1 << 20]).await.unwrap_err()
    }

    #[test]
    fn what_the_child_writes_is_what_the_parent_takes() {
        let mut output = Vec::new();
        compile(&mut component(&[]).as_slice(), &mut output).unwrap();
        assert!(Engine::detect_precompiled(&checked(output.clone()).unwrap()).is_some());
        output.pop();
        assert!(matches!(checked(output), Err(CompileError::Unusable(_))));
        assert!(matches!(checked(vec![]), Err(CompileError::Unusable(_))));
    }

    #[test]
    fn what_cannot_be_compiled_is_refused() {
        for bytes in [&b"not wasm"[..], b"", &wat::parse_str("(module)").unwrap()] {
            assert!(matches!(
                compile(&mut &*bytes, &mut Vec::new()),
                Err(CompileError::Refused(_))
            ));
        }
    }

    #[tokio::test]
    async fn every_end_of_a_child_is_told_apart() {
        let missing = Compiler::new("/nonexistent".into(), vec![])
            .compile(b"")
            .await
            .unwrap_err();
        assert!(matches!(missing, CompileError::NotStarted(_)), "{missing}");
        let said = outcome("cat > /dev/null; echo bad component >&2; exit 1").await;
        assert!(
            matches!(&said, CompileError::Refused(why) if why == "bad component"),
            "{said}"
        );
        let without_reading = outcome("exit 3").await;
        assert!(
            matches!(&without_reading, CompileError::Refused(_)),
            "{without_reading}"
        );
        let killed = outcome("kill -KILL $$").await;
        assert!(matches!(&killed, CompileError::Exhausted(_)), "{killed}");
        let short = outcome("cat > /dev/null; echo half").await;
        assert!(matches!(&short, CompileError::Unusable(_)), "{short}");
    }

    /// It may say no more than is kept, and inherits nothing of the environment.
    #[tokio::test]
    async fn a_talkative_child_is_cut() {
        let CompileError::Refused(why) = outcome("cat > /dev/null; env >&2; exit 1").await else {
            panic!()
        };
        assert!(
            !why.contains("PATH=/root") && why.contains("RAYON_NUM_THREADS="),
            "{why}"
        );
        let CompileError::Exhausted(why) = outcome("cat > /dev/null; exec yes >&2").await else {
            panic!()
        };
        assert!(why.len() as u64 <= COMPLAINT_BYTES_MAX + 100);
    }

    /// A future that is dropped leaves no child behind.
    #[tokio::test]
    async fn a_dropped_compilation_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
        let shell = Compiler::new("/bin/sh".into(), vec!["-c".to_owned(), script]);
        let pid = {
            let mut compilation = std::pin::pin!(shell.compile(b""));
            loop {
                let pause = tokio::time::timeout(Duration::from_millis(5), compilation.as_mut());
                assert!(pause.await.is_err(), "it ended by itself");
                if let Ok(pid) = std::fs::read_to_string(&file) {
                    break pid;
                }
            }
        };
        // Reaped or not, it does not run any more.
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        while stat().contains("(sleep) S") || stat().contains("(sleep) R") {
            tokio::task::yield_now().await;
        }
    }
}
