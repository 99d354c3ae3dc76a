//! What others want to say, shown to the capsule's guard.

use super::{Harness, sys, written};
use crate::bindings::astrid::kernel::types::Kind;
use crate::body::IntoBody;
use crate::dispatch::Capsule;
use crate::guard::{Guard, Guarded, Verdict};

impl<C: Capsule + Guard> Harness<C> {
    /// Shows the guard what somebody would publish. As in the kernel it reads the table and cannot write it, and nothing of the
    /// capsule's state is there.
    ///
    /// # Panics
    /// The body has no JSON form, or the manifest does not guard the topic.
    #[track_caller]
    pub fn guard(&mut self, topic: &str, body: impl IntoBody) -> Verdict {
        self.guard_of(Kind::Event, topic, body)
    }

    /// As [`Harness::guard`], for what somebody would ask.
    ///
    /// # Panics
    /// As [`Harness::guard`].
    #[track_caller]
    pub fn guard_ask(&mut self, topic: &str, body: impl IntoBody) -> Verdict {
        self.guard_of(Kind::Ask, topic, body)
    }

    #[track_caller]
    fn guard_of(&mut self, kind: Kind, topic: &str, body: impl IntoBody) -> Verdict {
        if let Some(manifest) = &self.host.manifest {
            let mut guarded = manifest.capabilities.guard.iter().flat_map(|asked| &asked.allow);
            assert!(
                guarded.any(|pattern| pattern.matches_str(topic)),
                "the capsule never guards `{topic}`: no pattern of [capabilities] guard takes it"
            );
        }
        let message = self.message(kind, topic, written(body));
        self.host.guarding = true;
        let entered = sys::Entered::new(&mut self.host);
        let verdict = C::guard(&Guarded::of(message));
        drop(entered);
        self.host.guarding = false;
        verdict
    }
}
