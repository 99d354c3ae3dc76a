//! The smallest capsule: greets whoever asks.
use astrid_sdk::prelude::*;

#[derive(Default)]
struct Hello;

/// Whom to greet.
#[body]
struct Greet {
    name: String,
}

/// What to say to them.
#[body]
struct Greeting {
    text: String,
}

#[capsule]
impl Hello {
    /// Greets somebody by name.
    #[on("hello.v1.greet")]
    fn greet(&mut self, body: Greet) -> Greeting {
        Greeting {
            text: format!("Hello, {}!", body.name),
        }
    }
}

#[cfg(test)]
mod tests;
