//! Documents to plain text: the capsule `text`.

pub mod encoding;
pub mod error;
pub mod html;
pub mod layout;
pub mod limits;
pub mod markdown;
pub mod options;
pub mod pdf;
