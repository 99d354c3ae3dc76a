//! Dead letters: messages that were given up, and what an operator does with them. Asked on the operator socket only.

use serde::{Deserialize, Serialize};

/// Request with a [`ListRequest`]: a [`Page`].
pub const REQUEST_LIST: &str = "astrid.v1.request.dead.list";
/// Request with a [`ShowRequest`]: a [`Shown`].
pub const REQUEST_SHOW: &str = "astrid.v1.request.dead.show";
/// Request with a [`Selection`]: the letters go back to where they were to be handled; a [`Done`].
pub const REQUEST_RETRY: &str = "astrid.v1.request.dead.retry";
/// Request with a [`Selection`]: the letters are forgotten; a [`Done`].
pub const REQUEST_DROP: &str = "astrid.v1.request.dead.drop";

/// Letters of one answer at most.
pub const PAGE_MAX: u32 = 1000;

/// Ids of one request at most.
pub const IDS_MAX: usize = 1000;

/// Body of [`REQUEST_LIST`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListRequest {
    /// Only letters to this capsule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capsule: Option<String>,
    /// Only letters on behalf of this principal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// After this one: [`Page::next`] of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// So many at most; 100 when left out, never more than [`PAGE_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
}

/// A message that was given up, without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What it is called: `<capsule>:<number>`.
    pub id: String,
    /// Who was to handle it.
    pub capsule: String,
    /// Which of its actors: a principal's name, `#N` for one of several, or empty for the only one.
    pub actor: String,
    /// Where it was published. Empty, like all that follows, when the row cannot be read.
    pub topic: String,
    /// On whose behalf.
    pub principal: String,
    /// Which capsule said it; empty: the kernel, or a port.
    pub source: String,
    /// Identity of the message.
    pub message_id: String,
    /// Media type of its body.
    pub content_type: String,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// Why it was given up: a problem code.
    pub code: String,
    /// The same for people.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub died_at_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
}

/// Answer to [`REQUEST_LIST`]: by capsule, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The letters. May be fewer than asked for although there are more.
    pub letters: Vec<Letter>,
    /// Where to go on; none: that was all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of [`REQUEST_SHOW`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowRequest {
    /// Which.
    pub id: String,
}

/// Answer to [`REQUEST_SHOW`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// All but the body.
    #[serde(flatten)]
    pub letter: Letter,
    /// The body in base64, with padding.
    pub body_base64: String,
}

/// Body of [`REQUEST_RETRY`] and [`REQUEST_DROP`]: these, or all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// These, [`IDS_MAX`] at most.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// All that there are, and no `ids`. A letter that is tried again and fails at once comes back behind the others: whoever goes on until
    /// there is none should list them first, and name them.
    pub all: bool,
    /// With `all`: of this capsule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capsule: Option<String>,
    /// With `all`: after this one: [`Done::next`] of the answer before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Answer to [`REQUEST_RETRY`] and [`REQUEST_DROP`], once it is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// With these it was done.
    pub ids: Vec<String>,
    /// With these it was not, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<Failed>,
    /// With `all`: where to go on, as not everything is done at once; none: that was all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A letter that stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Which.
    pub id: String,
    /// Why: a problem code.
    pub code: String,
    /// The same for people.
    pub message: String,
}
