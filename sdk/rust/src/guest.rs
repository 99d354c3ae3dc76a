//! The exports of a component, for `#[capsule]` to fill in.
//!
//! An instance of the component holds one instance of the capsule, made by the first message. Where the kernel drops the
//! instance (rollback, fault, eviction), the state goes with it.

use std::cell::RefCell;
use std::panic;
use std::thread::LocalKey;

use crate::bindings::astrid::kernel::log::Level;
use crate::bindings::astrid::kernel::types;
use crate::bindings::guarding;
use crate::context::Context;
use crate::dispatch::Capsule;
use crate::guard::{Guard, Guarded, Verdict};
use crate::log;

/// Where the export keeps its capsule.
pub type Cell<C> = RefCell<Option<C>>;

/// The export `handle`.
///
/// # Errors
/// The handler gave up.
pub fn handle<C: Capsule>(cell: &'static LocalKey<Cell<C>>, message: types::Message) -> Result<(), types::Rollback> {
    let (mut ctx, body) = Context::of(message);
    cell.with_borrow_mut(|capsule| {
        let capsule = capsule.get_or_insert_with(|| {
            say_panics();
            C::default()
        });
        capsule.handle(&mut ctx, body).map_err(types::Rollback::from)
    })
}

/// The export `guard`.
pub fn guard<C: Guard>(message: types::Message) -> guarding::Verdict {
    say_panics();
    match C::guard(&Guarded::of(message)) {
        Verdict::Allow => guarding::Verdict::Allow,
        Verdict::Replace(body) => guarding::Verdict::Replace(body),
        Verdict::Deny(reason) => guarding::Verdict::Deny(reason),
    }
}

/// The export `describe`.
pub fn describe<C: Capsule>() -> String {
    C::describe().to_json()
}

/// A panic ends as a trap, of which the kernel sees only the place in the code. What was said goes to the log.
fn say_panics() {
    panic::set_hook(Box::new(|info| {
        let said = info.payload_as_str().unwrap_or_default().to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        log::line(
            Level::Error,
            "panicked",
            vec![("said".to_owned(), said), ("at".to_owned(), place)],
        );
    }));
}
