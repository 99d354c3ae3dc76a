//! What the compiler must refuse, as tests of the documentation: each is right but for one thing.
//!
//! ```
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[on("a.*")] fn two(&mut self, body: Body) {} }
//! ```
//! Not a pattern:
//! ```compile_fail
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[on("a.B*")] fn two(&mut self, body: Body) {} }
//! ```
//! The same topic twice:
//! ```compile_fail
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.*")] fn one(&mut self) {} #[on("a.*")] fn two(&mut self, body: Body) {} }
//! ```
//! A body that nothing reads:
//! ```compile_fail,E0277
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[on("a.*")] fn two(&mut self, body: C) {} }
//! ```
//! Asynchronous:
//! ```compile_fail
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[on("a.*")] async fn two(&mut self, body: Body) {} }
//! ```
//! No state to begin with:
//! ```compile_fail,E0277
//! use astrid_sdk::prelude::*;
//! struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[on("a.*")] fn two(&mut self, body: Body) {} }
//! ```
//! An answer to what only tells:
//! ```compile_fail
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[on("a.b")] fn one(&mut self) {} #[timer] fn two(&mut self) -> u32 { 7 } }
//! ```
//! A guard with a state:
//! ```compile_fail
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[guard] fn one(&self, message: &Guarded) -> Verdict { Verdict::Allow } }
//! ```
//! Without:
//! ```
//! use astrid_sdk::prelude::*;
//! #[derive(Default)] struct C;
//! #[capsule] impl C { #[guard] fn one(message: &Guarded) -> Verdict { Verdict::Allow } }
//! ```
