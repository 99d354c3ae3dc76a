//! The Astrid kernel: it moves messages between WebAssembly capsules, decides what each may do, and meters what each uses.
//! Everything that a user would call a feature is a capsule.
//!
//! # Layout
//!
//! Read in this order; each module uses only those before it, and a test holds that.
//!
//! - [`home`], [`lock`], [`keys`], [`identity`], [`config`]: what the daemon finds on disk;
//! - [`metrics`], [`logging`], [`notify`], [`status`]: what it tells about itself;
//! - [`store`]: what survives;
//! - [`audit`]: what happened, signed;
//! - [`clock`], [`deadlines`], [`ledger`]: time, and what was used;
//! - [`vfs`]: files of guests: overlays, homes, and nothing outside them;
//! - [`blob`]: bytes by their hash;
//! - [`backup`]: all that must not be lost in one file, and back;
//! - [`keeper`]: the processes that start and end programs;
//! - [`bus`]: messages; [`authority`]: who may say and hear them;
//! - [`port`]: sockets, streams, timers;
//! - [`capsule`]: bundles, compiled code, actors;
//! - [`control`]: what the kernel itself answers;
//! - [`boot`]: puts it together, and takes it apart again.

pub mod audit;
pub mod authority;
pub mod backup;
pub mod blob;
pub mod boot;
pub mod bus;
pub mod capsule;
pub mod clock;
pub mod config;
pub mod control;
pub mod deadlines;
pub mod home;
pub mod identity;
pub mod keeper;
pub mod keys;
pub mod ledger;
pub mod lock;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod port;
pub mod status;
pub mod store;
pub mod vfs;
