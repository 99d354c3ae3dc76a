//! Guards: a capsule that stands before topics, and says what becomes of what others want to say there.
//!
//! A function of the capsule's impl block with `#[guard]`; it has no `self`, because each message is shown to an instance that has seen
//! nothing else. What it goes by is in the capsule's table, which its handlers write and which it reads:
//!
//! ```
//! use astrid_sdk::prelude::*;
//! use astrid_sdk::testing::Harness;
//!
//! /// Keeps certain commands from the shell.
//! #[derive(Default)]
//! struct Warden;
//!
//! /// What the shell is asked to do.
//! #[body]
//! struct Run { command: String }
//!
//! #[capsule]
//! impl Warden {
//!     /// Forbids a program.
//!     #[on("warden.v1.forbid")]
//!     fn forbid(&mut self, ctx: &mut Context, program: String) -> Result<()> {
//!         Ok(ctx.kv().put(program, &true)?)
//!     }
//!
//!     #[guard]
//!     fn judge(message: &Guarded) -> Result<Verdict> {
//!         let run: Run = message.read()?;
//!         let program = run.command.split(' ').next().unwrap_or_default();
//!         if message.get::<bool>(program)?.is_some() {
//!             return Ok(Verdict::deny(format!("{program} is forbidden to {}", message.principal())));
//!         }
//!         Ok(Verdict::Allow)
//!     }
//! }
//!
//! let mut warden = Harness::new::<Warden>();
//! warden.event("warden.v1.forbid", "rm").committed();
//! assert_eq!(warden.guard("tool.v1.shell.run", json!({ "command": "ls /" })), Verdict::Allow);
//! let verdict = warden.guard("tool.v1.shell.run", json!({ "command": "rm -r /" }));
//! assert_eq!(verdict, Verdict::deny("rm is forbidden to default"));
//! ```
//!
//! Its manifest says what it guards, and for what: `[capabilities] guard = { allow = ["tool.v1.shell.*"], reason = "..." }`. The operator
//! then grants it: `astrid caps grant capsule:warden 'guard:tool.v1.shell.*'`.
//!
//! A guard that panics, runs too long, or calls anything but its table and the log refuses the message. So does one that fails: an error is
//! a denial with its words. Deliberately absent: state between two messages, and any way to act; who wants to act subscribes.

use serde::de::DeserializeOwned;

use crate::bindings::astrid::kernel::types::{self, Kind, Source};
use crate::body::{Body, FromBody};
use crate::error::{Failure, KvError};
use crate::{Problem, kv};

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is said as it is.
    Allow,
    /// It is said with these bytes as its body. Its content type stays.
    Replace(Vec<u8>),
    /// It is not said: why, for whoever wanted to. At most 1 KiB; longer text is cut.
    Deny(String),
}

impl Verdict {
    /// It is not said, for this reason.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(reason.into())
    }

    /// It is said with that in the place of its body, as JSON.
    ///
    /// # Errors
    /// It has no JSON form.
    pub fn replace(body: &impl serde::Serialize) -> Result<Self, Problem> {
        let bytes = serde_json::to_vec(body);
        bytes
            .map(Self::Replace)
            .map_err(|error| crate::body::Unserializable(error.to_string()).into())
    }
}

/// What a guard may return: a verdict, or a verdict and a failure, which denies.
pub trait IntoVerdict {
    /// The verdict.
    fn into_verdict(self) -> Verdict;
}

impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Verdict {
        self
    }
}

impl<E: Into<Failure>> IntoVerdict for Result<Verdict, E> {
    fn into_verdict(self) -> Verdict {
        self.unwrap_or_else(|failure| match failure.into() {
            Failure::Refuse(problem) => Verdict::deny(problem.message()),
            Failure::Rollback(crate::Rollback::Retry(why)) => Verdict::Deny(why),
            Failure::Rollback(crate::Rollback::Refuse(problem)) => Verdict::deny(problem.message()),
        })
    }
}

/// A capsule that guards. Implemented by `#[capsule]` where a function has `#[guard]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no guard",
    note = "put `#[guard]` on a function of its impl block: `fn guard(message: &Guarded) -> Verdict`"
)]
pub trait Guard {
    /// Decides about one message.
    fn guard(message: &Guarded) -> Verdict;
}

/// A message that somebody wants to say, as a guard sees it.
#[derive(Debug, Clone)]
pub struct Guarded {
    message: types::Message,
}

impl Guarded {
    /// A message as the kernel shows it.
    #[doc(hidden)]
    pub fn of(message: types::Message) -> Self {
        Self { message }
    }

    /// Where it would be said.
    pub fn topic(&self) -> &str {
        &self.message.topic
    }

    /// On whose behalf.
    pub fn principal(&self) -> &str {
        &self.message.principal
    }

    /// The capsule that says it: for a client, the one that the client is connected to.
    pub fn capsule(&self) -> &str {
        match &self.message.source {
            Source::Capsule(name) => name,
            // Neither is ever shown to a guard.
            Source::Kernel | Source::Port(_) => "",
        }
    }

    /// Whether an answer is wanted.
    pub fn is_ask(&self) -> bool {
        self.message.kind == Kind::Ask
    }

    /// Its media type.
    pub fn content_type(&self) -> &str {
        &self.message.content_type
    }

    /// Its body.
    pub fn bytes(&self) -> &[u8] {
        &self.message.body
    }

    /// Its body, read as handlers read theirs.
    ///
    /// # Errors
    /// It does not fit; the problem says where.
    pub fn read<T: FromBody>(&self) -> Result<T, Problem> {
        T::from_body(Body::new(self.message.content_type.clone(), self.bytes()))
    }

    /// A value of the capsule's table, read from JSON.
    ///
    /// # Errors
    /// The manifest does not ask for `kv`, it cannot be read, or is something else than a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>, KvError> {
        kv::Kv::new().get(key)
    }

    /// The capsule's table. What would write it fails.
    pub fn kv(&self) -> kv::Kv<'_> {
        kv::Kv::new()
    }
}
