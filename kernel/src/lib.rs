//! The Astrid kernel.
