//! The attribute macros of `astrid-sdk`: `#[capsule]` and `#[body]`. Use them through that crate, whose paths they write.
//!
//! Reading order: `handler` (what the attributes on methods say), then `capsule` (what is made of them). Topics are checked here by
//! the same code that the kernel uses, so that a wrong one is an error of the compiler with its place.
//!
//! Deliberately absent: anything that runs in the capsule. What the macros write calls `astrid_sdk::dispatch`.

use proc_macro::TokenStream;
use syn::parse_macro_input;

mod body;
mod capsule;
mod guard;
mod handler;

/// Makes a capsule of a type: on its impl block, whose methods are handlers.
///
/// The type needs `Default`: that is its state when its first message comes. There is one capsule to a crate that is compiled
/// for WebAssembly.
///
/// # Handlers
///
/// A method with one of these attributes is a handler. It takes `&mut self` (or `&self`), then, if it wants them, `&mut Context`
/// and the body.
///
/// | Attribute | Handles | The body's type |
/// |---|---|---|
/// | `#[on("topic or pattern", ...)]` | events and asks on these topics, `lifecycle.v1.*` and `port.v1.stream.*` among them | `Body`, or anything that serde reads (from JSON) |
/// | `#[answer("topic or pattern", ...)]` | the outcomes of this capsule's own asks on these topics | `Answer<T>` |
/// | `#[timer("tag", ...)]` | firings of timers with these tags | `String`: the tag |
/// | `#[timer]` | firings of all others | `String`: the tag |
///
/// Of the handlers whose patterns take a topic the most specific gets the message: compared from the left, a literal segment
/// comes before `*`, and `*` before `>`. The order in the source does not matter, and the same pattern twice is an error.
/// Topics without wildcards are found by one comparison of the whole, before any pattern is tried.
///
/// # What a handler returns
///
/// | Returned | An ask is answered | An event |
/// |---|---|---|
/// | `()`, `Ok(())` | not by this; keep `ctx.reply_to()` to do it later | |
/// | `T`, `Ok(T)` | with it, as JSON; a `Body` as it is | it is dropped |
/// | `Err(Problem)`, or an error that becomes one | with this refusal; what was recorded happens | logged as a warning |
/// | `Err(Rollback)` | as the rollback says; nothing that was recorded happens | |
///
/// A method fails when its return type is written as `Result<..>`. A body that does not fit its type never reaches the handler: an
/// ask is refused with `invalid` and the path of the field, an event is logged. A handler that only watches a topic which another
/// capsule answers should therefore take `Body` or no body, and return `()`.
///
/// # A guard
///
/// `#[guard]` on a function `fn(message: &Guarded) -> Verdict` (or `Result<Verdict>`): it is asked before others say something on the topics
/// of `[capabilities] guard`. See `astrid_sdk::guard`.
///
/// # Description
///
/// Others learn a capsule's interface from the types and the documentation of its handlers. Where types do not tell,
/// `#[on("topic", accepts("text/html", "application/json"), request = Page, reply = Text)]` does. What a capsule publishes
/// is said at the top: `#[capsule(says("tally.v1.report" = Report))]`; the type's documentation is the summary.
#[proc_macro_attribute]
pub fn capsule(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let says = parse_macro_input!(arguments as capsule::Says);
    let block = parse_macro_input!(item as syn::ItemImpl);
    capsule::expand(says, block)
        .unwrap_or_else(|error| error.to_compile_error())
        .into()
}

/// Makes a struct or enum a body: it can be read from JSON, written as JSON, and described by a JSON Schema.
///
/// Short for deriving serde's `Serialize` and `Deserialize` and schemars' `JsonSchema` without depending on either. `#[serde(...)]`
/// attributes work as always. A type that needs only some of them can derive those instead.
#[proc_macro_attribute]
pub fn body(arguments: TokenStream, item: TokenStream) -> TokenStream {
    body::expand(&arguments.into(), &item.into()).into()
}
