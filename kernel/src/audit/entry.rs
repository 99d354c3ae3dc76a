//! What is recorded, and its one form in bytes.
//!
//! Every number has a fixed width, every text a length and a limit, and each value has exactly one encoding: what decodes encodes to the same
//! bytes again. That is what makes a signature over the bytes a signature over every field. `docs/audit.md` has the layout.
//!
//! Texts may come from a guest or a peer. They are made harmless when an entry is made: control characters, and those that are not seen or reorder
//! what is shown ([`is_harmful`]), are written as escapes, a backslash is doubled, and what is too long is cut between two characters. A text that is not so
//! is no entry when it is read.

use std::fmt::Write as _;

use astrid_wire::text::is_harmful;

/// Bytes of the name of a principal or a capsule at most: 64 of a name, and what may stand before it.
pub const NAME_BYTES_MAX: usize = 128;

/// Bytes of an action at most: they are the kernel's own words.
pub const ACTION_BYTES_MAX: usize = 64;

/// Bytes of a resource at most, as of every text of a guest (K13).
pub const RESOURCE_BYTES_MAX: usize = 1024;

/// Bytes of the detail at most, as of every text of a guest (K13).
pub const DETAIL_BYTES_MAX: usize = 1024;

/// Bytes before the texts.
const FIXED_BYTES: usize = 8 + 8 + 3 + 8 + 8 + 32;

/// Bytes of an entry at least: with no text at all.
pub const ENTRY_BYTES_MIN: usize = FIXED_BYTES + 5 * 2;

/// Bytes of an entry at most.
pub const ENTRY_BYTES_MAX: usize =
    ENTRY_BYTES_MIN + 2 * NAME_BYTES_MAX + ACTION_BYTES_MAX + RESOURCE_BYTES_MAX + DETAIL_BYTES_MAX;

/// Ends a text that was cut.
const CUT: &str = "…";

/// Who the kernel is in its own entries. No principal can be called so: their names have no colon.
pub const KERNEL: &str = "system:kernel";

/// A hash of the chain.
pub type Hash = [u8; 32];

/// Defines an enum whose numbers and words are in files and scripts.
macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $number:literal, $word:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$of])* $variant = $number,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// Its word, for people and scripts.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }

            fn of(number: u8) -> Option<$name> {
                match number {
                    $($number => Some($name::$variant),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(word: &str) -> Result<Self, String> {
                let known = || $name::ALL.iter().map(|one| one.as_str()).collect::<Vec<_>>().join(", ");
                $name::ALL
                    .iter()
                    .copied()
                    .find(|one| one.as_str() == word)
                    .ok_or_else(|| format!("there is no {word:?}; there are {}", known()))
            }
        }
    };
}

closed_set! {
    /// What an entry is about. Numbers are in files: they are never given again.
    Kind {
        /// A daemon began.
        Boot = 1, "boot";
        /// A daemon ended in order.
        Stop = 2, "stop";
        /// A capsule was loaded, or could not be.
        Load = 3, "load";
        /// Something was allowed. Reserved: nothing records it yet.
        Decision = 4, "decision";
        /// Something was refused.
        Denial = 5, "denial";
        /// Authority was changed.
        Admin = 6, "admin";
        /// A program was started.
        Spawn = 7, "spawn";
        /// A program ended.
        ChildExit = 8, "child-exit";
        /// A connection proved who it is. One that could not is a denial.
        Connection = 9, "connection";
        /// A file is about to be written, removed, moved or changed otherwise; with the hash of what is written, where there is one.
        FileWrite = 10, "file-write";
        /// A blob is about to be kept in the content store, or given up.
        Store = 11, "store";
        /// What became of something that was intended.
        Outcome = 12, "outcome";
        /// A segment of this log is removed.
        Prune = 13, "prune";
        /// Another key signs from here on.
        Rotate = 14, "rotate";
        /// Something happened this many times in a while.
        Summary = 15, "summary";
        /// Something was wrong with this log itself, or it was put back from a backup; or a blob is not what was kept.
        Integrity = 16, "integrity";
    }
}

closed_set! {
    /// How it went.
    Outcome {
        /// It is about to happen.
        Pending = 0, "pending";
        /// It happened.
        Done = 1, "done";
        /// It was not allowed.
        Denied = 2, "denied";
        /// It was tried, and failed.
        Failed = 3, "failed";
        /// Nobody knows whether it happened.
        Unknown = 4, "unknown";
    }
}

/// Where an entry stands between wish and effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It stands for itself.
    Event,
    /// Said before the effect; an outcome follows.
    Intent,
    /// What became of the intent with this sequence number.
    Answers(u64),
}

/// Bytes of a record beside its texts at most: numbers, hashes, lengths.
const FIXED_BYTES_MAX: usize = 256;

/// What is recorded, before it has its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub(super) kind: Kind,
    pub(super) stage: Stage,
    pub(super) outcome: Outcome,
    pub(super) count: u64,
    pub(super) principal: Box<str>,
    pub(super) capsule: Box<str>,
    pub(super) action: Box<str>,
    pub(super) resource: Box<str>,
    pub(super) detail: Box<str>,
    /// How it may be written; the record does not have it.
    pub(super) makes_room: bool,
}

impl Entry {
    /// Something that this principal did, or that was done for it.
    #[must_use]
    pub fn new(kind: Kind, principal: &str, action: &str) -> Self {
        Self {
            kind,
            stage: Stage::Event,
            outcome: Outcome::Done,
            count: 1,
            principal: harmless(principal, NAME_BYTES_MAX),
            capsule: Box::default(),
            action: harmless(action, ACTION_BYTES_MAX),
            resource: Box::default(),
            detail: Box::default(),
            makes_room: false,
        }
    }

    /// Something of the kernel's own.
    #[must_use]
    pub fn kernel(kind: Kind, action: &str) -> Self {
        Self::new(kind, KERNEL, action)
    }

    /// What became of an intent.
    #[must_use]
    pub fn outcome_of(intent: u64, principal: &str, action: &str, outcome: Outcome) -> Self {
        Self {
            stage: Stage::Answers(intent),
            outcome,
            ..Self::new(Kind::Outcome, principal, action)
        }
    }

    /// It is about to happen.
    #[must_use]
    pub fn intent(mut self) -> Self {
        (self.stage, self.outcome) = (Stage::Intent, Outcome::Pending);
        self
    }

    /// Through which capsule.
    #[must_use]
    pub fn capsule(mut self, name: &str) -> Self {
        self.capsule = harmless(name, NAME_BYTES_MAX);
        self
    }

    /// On what.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = harmless(resource, RESOURCE_BYTES_MAX);
        self
    }

    /// How it went.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Whatever else there is to say.
    #[must_use]
    pub fn detail(mut self, detail: &str) -> Self {
        self.detail = harmless(detail, DETAIL_BYTES_MAX);
        self
    }

    /// As many entries as a text of any length needs for its detail: one that says all of it, or several that say which part they are, the
    /// last of which is this one. The others are events, whatever this is.
    #[must_use]
    pub fn parts(&self, text: &str) -> Vec<Self> {
        let pieces = pieces(text);
        let of = pieces.len();
        let part = |(n, piece): (usize, &&str)| match n + 1 {
            _ if of == 1 => self.clone().detail(piece),
            last if last == of => self.clone().detail(&format!("part {last} of {of}: {piece}")),
            part => Self {
                stage: Stage::Event,
                ..self.clone().detail(&format!("part {part} of {of}: {piece}"))
            },
        };
        pieces.iter().enumerate().map(part).collect()
    }

    /// What happens makes room on the disk: when that is full, it is recorded in the room that is kept for this.
    #[must_use]
    pub fn makes_room(mut self) -> Self {
        self.makes_room = true;
        self
    }

    /// Bytes of its record at most.
    pub(super) fn bytes_max(&self) -> usize {
        let texts = [
            &self.principal,
            &self.capsule,
            &self.action,
            &self.resource,
            &self.detail,
        ];
        texts.iter().map(|text| text.len()).sum::<usize>() + FIXED_BYTES_MAX
    }

    /// It stands for that many.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// Appends its canonical bytes.
    pub(super) fn encode(&self, place: &Place, link: &Hash, to: &mut Vec<u8>) {
        View {
            sequence: place.sequence,
            wall_ms: place.wall_ms,
            kind: self.kind,
            stage: self.stage,
            outcome: self.outcome,
            count: self.count,
            link,
            principal: &self.principal,
            capsule: &self.capsule,
            action: &self.action,
            resource: &self.resource,
            detail: &self.detail,
        }
        .encode(to);
    }
}

/// Where an entry is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) wall_ms: u64,
}

/// An entry of the log as its bytes say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// Its number: one more than that of the entry before it, whatever the clock says.
    pub sequence: u64,
    /// Milliseconds since 1970 by the wall clock, which may jump.
    pub wall_ms: u64,
    /// What it is about.
    pub kind: Kind,
    /// Between wish and effect.
    pub stage: Stage,
    /// How it went.
    pub outcome: Outcome,
    /// How many it stands for.
    pub count: u64,
    /// Hash of the last entry before it of the same principal; zero if there is none.
    pub link: &'a Hash,
    /// Who.
    pub principal: &'a str,
    /// Through which capsule; empty if none.
    pub capsule: &'a str,
    /// What.
    pub action: &'a str,
    /// On what; empty if nothing in particular.
    pub resource: &'a str,
    /// Whatever else there was to say.
    pub detail: &'a str,
}

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends too early, or goes on.
    #[error("its length is not that of its parts")]
    Length,
    /// A number that stands for nothing.
    #[error("{0} has an unknown value")]
    Value(&'static str),
    /// A text that is longer than it may be.
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// A text that no entry is made with.
    #[error("{0} is not a harmless text")]
    Text(&'static str),
}

/// Takes parts from the front of bytes.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (part, rest) = self.0.split_first_chunk().ok_or(DecodeError::Length)?;
        self.0 = rest;
        Ok(part)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(*self.array()?))
    }

    fn text(&mut self, what: &'static str, max: usize) -> Result<&'a str, DecodeError> {
        let length = usize::from(u16::from_le_bytes(*self.array()?));
        if length > max {
            return Err(DecodeError::TooLong(what));
        }
        let (text, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Length)?;
        self.0 = rest;
        let text = std::str::from_utf8(text).map_err(|_| DecodeError::Text(what))?;
        // Nearly all of it is plain ASCII, which is quickly seen.
        let plain = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !plain && text.chars().any(is_harmful) {
            return Err(DecodeError::Text(what));
        }
        Ok(text)
    }
}

impl<'a> View<'a> {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`DecodeError`] for whatever no entry encodes to.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut parts = Parts(bytes);
        let (sequence, wall_ms) = (parts.number()?, parts.number()?);
        let [kind, stage, outcome] = *parts.array()?;
        let answers = parts.number()?;
        let view = View {
            sequence,
            wall_ms,
            kind: Kind::of(kind).ok_or(DecodeError::Value("kind"))?,
            stage: match (stage, answers) {
                (0, 0) => Stage::Event,
                (1, 0) => Stage::Intent,
                (2, intent) => Stage::Answers(intent),
                _ => return Err(DecodeError::Value("stage")),
            },
            outcome: Outcome::of(outcome).ok_or(DecodeError::Value("outcome"))?,
            count: parts.number()?,
            link: parts.array()?,
            principal: parts.text("principal", NAME_BYTES_MAX)?,
            capsule: parts.text("capsule", NAME_BYTES_MAX)?,
            action: parts.text("action", ACTION_BYTES_MAX)?,
            resource: parts.text("resource", RESOURCE_BYTES_MAX)?,
            detail: parts.text("detail", DETAIL_BYTES_MAX)?,
        };
        if parts.0.is_empty() {
            Ok(view)
        } else {
            Err(DecodeError::Length)
        }
    }

    /// Appends the canonical bytes.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let (stage, answers) = match self.stage {
            Stage::Event => (0, 0),
            Stage::Intent => (1, 0),
            Stage::Answers(intent) => (2, intent),
        };
        to.extend_from_slice(&self.sequence.to_le_bytes());
        to.extend_from_slice(&self.wall_ms.to_le_bytes());
        to.extend_from_slice(&[self.kind as u8, stage, self.outcome as u8]);
        to.extend_from_slice(&answers.to_le_bytes());
        to.extend_from_slice(&self.count.to_le_bytes());
        to.extend_from_slice(self.link);
        for text in [self.principal, self.capsule, self.action, self.resource, self.detail] {
            // Within the limits, which two bytes hold.
            to.extend_from_slice(&(text.len() as u16).to_le_bytes());
            to.extend_from_slice(text.as_bytes());
        }
    }
}

/// Bytes that a character has in an entry.
fn width(c: char) -> usize {
    match c {
        '\\' | '\n' | '\r' | '\t' => 2,
        c if is_harmful(c) => "\\u{}".len() + format!("{:x}", u32::from(c)).len(),
        c => c.len_utf8(),
    }
}

/// A text cut into pieces that are not cut again in an entry's detail. One at least.
fn pieces(text: &str) -> Vec<&str> {
    const NUMBERS_BYTES: usize = "part 18446744073709551615 of 18446744073709551615: ".len();
    let whole: usize = text.chars().map(width).sum();
    if whole <= DETAIL_BYTES_MAX {
        return vec![text];
    }
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        if bytes + width(c) > DETAIL_BYTES_MAX - NUMBERS_BYTES {
            pieces.push(&text[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += width(c);
    }
    pieces.push(&text[start..]);
    pieces
}

/// The text as it may stand in an entry: with escapes, and not longer than that many bytes.
fn harmless(text: &str, max: usize) -> Box<str> {
    let plain = text.len() <= max && text.bytes().all(|byte| (0x20..0x7f).contains(&byte) && byte != b'\\');
    if plain {
        return text.into();
    }
    let mut out = String::with_capacity(text.len().min(max));
    // As much as leaves room to say that there was more.
    let mut fits = 0;
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing into a string does not fail.
            c if is_harmful(c) => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
        if out.len() > max {
            out.truncate(fits);
            out.push_str(CUT);
            break;
        }
        if out.len() + CUT.len() <= max {
            fits = out.len();
        }
    }
    out.into()
}
