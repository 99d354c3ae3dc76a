//! Writes Astrid capsules in Rust.
//!
//! A capsule is a type with handlers. This is a whole one:
//!
//! ```
//! use astrid_sdk::prelude::*;
//!
//! #[derive(Default)]
//! struct Hello;
//!
//! /// Whom to greet.
//! #[body]
//! struct Greet { name: String }
//!
//! #[body]
//! struct Greeting { text: String }
//!
//! #[capsule]
//! impl Hello {
//!     /// Greets somebody by name.
//!     #[on("hello.v1.greet")]
//!     fn greet(&mut self, ctx: &mut Context, body: Greet) -> Result<Greeting, Problem> {
//!         info!("greeting", by = ctx.principal());
//!         Ok(Greeting { text: format!("Hello, {}!", body.name) })
//!     }
//! }
//!
//! let mut harness = astrid_sdk::testing::Harness::new::<Hello>();
//! assert_eq!(harness.ask("hello.v1.greet", json!({ "name": "Ada" })).json()["text"], "Hello, Ada!");
//! ```
//!
//! Reading order: [`capsule`] (handlers: which messages they take, what their results mean), [`Context`] (what they can do), [`Body`],
//! [`mod@error`] (three ways to end), [`fs`] (files), [`guard`] (to stand before others' topics), [`testing`] (a fake kernel, so that all of it is tested natively).
//!
//! A `handle` is a transaction: what a handler records (publish, ask, reply, keys and values, timers, writes to streams, programs to start)
//! happens after it returned, in order, or not at all. State is of two kinds. The value itself is kept between messages and lost with the
//! instance: after a rollback, a fault, an eviction or a restart the next message meets `Default`. What must outlive that is kept in the
//! actor's table, [`Context::kv`]. This counter goes on where it was:
//!
//! ```
//! use astrid_sdk::prelude::*;
//!
//! #[derive(Default)]
//! struct Counter;
//!
//! #[capsule]
//! impl Counter {
//!     /// Counts one more.
//!     #[on("counter.v1.add")]
//!     fn add(&mut self, ctx: &mut Context) -> Result<u64> {
//!         let count = ctx.kv().get("count")?.unwrap_or(0) + 1;
//!         ctx.kv().put("count", &count)?;
//!         Ok(count)
//!     }
//! }
//!
//! let mut harness = astrid_sdk::testing::Harness::new::<Counter>();
//! assert_eq!(harness.ask("counter.v1.add", ()).read::<u64>(), 1);
//! harness.restart();
//! assert_eq!(harness.ask("counter.v1.add", ()).read::<u64>(), 2);
//! ```
//!
//! Its manifest asks for the table: `[capabilities] kv = { allow = ["*"], reason = "keeps the count" }`. With `durable = true` in the
//! line of `[subscribe]`, a message that was accepted is counted once, whatever happens to the daemon.
//!
//! The crate of a capsule is a `cdylib` (`[lib] crate-type = ["cdylib"]`) for `wasm32-unknown-unknown`. Its tests are in a module of the
//! crate and run natively.
//!
//! Crates that use `getrandom` 0.3 or 0.4 get the kernel's randomness by this crate's feature `getrandom`, compiled with
//! `--cfg getrandom_backend="custom"`.
//!
//! Deliberately absent: threads, sockets, `async`. What is not here a capsule cannot do; it asks another one that can.

pub mod answer;
#[doc(hidden)]
pub mod bindings;
pub mod blob;
pub mod body;
pub mod child;
pub mod context;
#[doc(hidden)]
pub mod describe;
#[doc(hidden)]
pub mod dispatch;
pub mod error;
pub mod fs;
pub mod guard;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod guest;
pub mod kv;
pub mod log;
#[cfg(all(feature = "getrandom", target_arch = "wasm32"))]
mod random;
#[cfg(doctest)]
mod refused;
pub mod send;
mod sys;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use astrid_sdk_macros::{body, capsule};
pub use astrid_wire::describe::Description;
pub use astrid_wire::problem::codes;
pub use astrid_wire::{Pattern, Problem, Topic};
pub use {schemars, serde, serde_json};

pub use crate::answer::{Answer, Outcome};
pub use crate::bindings::astrid::kernel::connection::{PeerInfo, Socket};
pub use crate::bindings::astrid::kernel::log::Level;
pub use crate::bindings::astrid::kernel::timer::Armed;
pub use crate::bindings::astrid::kernel::types::{CommandId, Kind, MessageId, PortId, ReplyTo, Source};
pub use crate::body::{Body, FromBody, IntoBody};
pub use crate::context::Context;
pub use crate::dispatch::Capsule;
pub use crate::error::{Failure, Result, Rollback};
pub use crate::guard::{Guard, Guarded, Verdict};

/// What most capsules use.
pub mod prelude {
    pub use serde_json::{Value, json};

    pub use crate::{
        Answer, Body, CommandId, Context, Failure, Guarded, Outcome, PortId, Problem, ReplyTo, Result, Rollback,
        Verdict, body, capsule, codes, debug, error, info, trace, warn,
    };
}
