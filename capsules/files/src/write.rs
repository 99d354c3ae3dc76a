//! `write_text`, `edit`, and what is done to names: `make_dir`, `remove`, `rename`; and `stat`.

use astrid_sdk::body;
use astrid_sdk::error::FsError;
use astrid_sdk::fs::{Creation, Expected, Fs, Kind, Meta, OpenOptions};

use crate::decode::{decode, encode};
use crate::edit::{self, Edit};
use crate::error::{FilesError, too_large};
use crate::{limits, path};

/// What becomes of a file that is there already.
#[body]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Existing {
    /// It is replaced. One that is not there is made.
    #[default]
    Replace,
    /// It stays, and the request is refused.
    Keep,
    /// It is replaced, and must be there.
    Require,
}

/// A text to write.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteText {
    /// Which file: relative to the workspace, or with `workspace://`, `home://` or `tmp://`.
    path: String,
    /// The whole text. It is written in UTF-8, as it is.
    text: String,
    /// What becomes of a file that is there already.
    #[serde(default)]
    existing: Existing,
    /// The hash that the file must have now, as it was told by `read_text`: nothing is overwritten that somebody else has changed since.
    #[serde(default)]
    expected: Option<String>,
    /// Whether directories are made that are not there.
    #[serde(default)]
    parents: bool,
}

/// A file that was written.
#[body]
pub(crate) struct Written {
    /// The file, with its root.
    pub(crate) path: String,
    /// BLAKE3 of what is in it now.
    pub(crate) hash: String,
    /// Bytes that are in it now.
    pub(crate) size: u64,
}

/// Replacements to make in a text file, all of them or none.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct EditText {
    /// Which file.
    path: String,
    /// The replacements, 1 to 100, all of the text as it is before. Each `old` must be there exactly once.
    edits: Vec<Edit>,
    /// The hash that the file must have now, as it was told by `read_text`.
    #[serde(default)]
    expected: Option<String>,
}

/// A file that was edited.
#[body]
pub(crate) struct TextEdited {
    /// The file, with its root.
    pub(crate) path: String,
    /// BLAKE3 of what is in it now.
    pub(crate) hash: String,
    /// Bytes that are in it now.
    pub(crate) size: u64,
    /// What changed, as a unified diff.
    pub(crate) diff: String,
    /// Whether the end of the diff is missing, which is longer than 32 KiB.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) diff_cut: bool,
}

/// What to look at.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct Stat {
    /// Which file or directory.
    path: String,
    /// Whether the hash of a file is told.
    #[serde(default)]
    hash: bool,
    /// Whether a link is looked at, instead of what it leads to.
    #[serde(default)]
    link: bool,
}

/// What something is.
#[body]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a fifo or a socket.
    Other,
}

impl From<Kind> for What {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
            Kind::Link => Self::Link,
            Kind::Other => Self::Other,
        }
    }
}

/// What is known of something.
#[body]
pub(crate) struct Known {
    /// It, with its root.
    pub(crate) path: String,
    /// What it is.
    pub(crate) kind: What,
    /// Bytes of a file.
    pub(crate) size: u64,
    /// When its content last changed, in milliseconds since 1970.
    pub(crate) modified_ms: i64,
    /// Whether it may be executed.
    pub(crate) executable: bool,
    /// Whether it, or something in it, is not as in the directory that is attached as the workspace.
    pub(crate) changed: bool,
    /// BLAKE3 of a file, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<String>,
    /// Where a link leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

/// Whether anybody may execute it.
pub(crate) fn is_executable(meta: &Meta) -> bool {
    meta.kind == Kind::File && meta.mode & 0o111 != 0
}

/// A directory to make.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct MakeDir {
    /// Which.
    path: String,
    /// Whether those above it are made, too. It may be there already then.
    #[serde(default)]
    parents: bool,
}

/// Something to remove.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    /// What: a file, a link or an empty directory.
    path: String,
    /// Whether all that is in a directory is removed, too.
    #[serde(default)]
    recursive: bool,
}

/// Something that gets another path.
#[body]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// What.
    from: String,
    /// Its new path, in the same root.
    to: String,
    /// Whether a file, a link or an empty directory that is there gives way.
    #[serde(default)]
    overwrite: bool,
}

/// It is done.
#[body]
pub(crate) struct Done {
    /// What it was done to, with its root.
    pub(crate) path: String,
}

/// Writes a whole text.
pub(crate) fn text(fs: &mut Fs<'_>, request: WriteText) -> Result<Written, FilesError> {
    let path = path::full(&request.path)?;
    if request.text.len() > limits::TEXT_BYTES {
        return Err(too_large(&path, request.text.len() as u64, "written"));
    }
    let expected = match (request.existing, request.expected) {
        (Existing::Keep, Some(_)) => {
            return Err(FilesError::Invalid(
                "expected and `existing = keep` contradict each other".to_owned(),
            ));
        }
        (Existing::Keep, None) => Expected::Absent,
        (_, Some(hash)) => Expected::Content(checked_hash(hash)?),
        (_, None) => Expected::Anything,
    };
    if request.existing == Existing::Require {
        let options = OpenOptions {
            read: false,
            write: true,
            create: Creation::Never,
            truncate: false,
        };
        fs.open(&path, &options).map_err(FilesError::writing(&path))?;
    }
    if request.parents
        && let Some(parent) = path::parent(&path).filter(|parent| !parent.ends_with("://"))
    {
        fs.make_dirs(parent).map_err(FilesError::writing(parent))?;
    }
    let size = request.text.len() as u64;
    let hash = fs
        .replace(&path, request.text, &expected)
        .map_err(FilesError::writing(&path))?;
    Ok(Written { path, hash, size })
}

fn checked_hash(hash: String) -> Result<String, FilesError> {
    let hash = hash.to_ascii_lowercase();
    match hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(hash),
        false => Err(FilesError::Invalid(
            "expected: a hash is 64 hexadecimal digits, as `read_text` tells it".to_owned(),
        )),
    }
}

/// Makes replacements.
pub(crate) fn edit(fs: &mut Fs<'_>, request: &EditText) -> Result<TextEdited, FilesError> {
    let path = path::full(&request.path)?;
    let reading = |error| FilesError::reading(&path)(error);
    // The hash first: what somebody changes while this reads is noticed, and not lost.
    let hash = fs.hash(&path).map_err(reading)?;
    if let Some(expected) = &request.expected
        && checked_hash(expected.clone())? != hash
    {
        return Err(reading(FsError::Changed));
    }
    let bytes = match fs.read(&path, limits::FILE_BYTES) {
        Err(FsError::TooLarge(_)) => {
            let size = fs.stat(&path).map_or(limits::FILE_BYTES + 1, |meta| meta.size);
            return Err(too_large(&path, size, "edited"));
        }
        read => read.map_err(reading)?,
    };
    let (text, encoding) = decode(bytes).map_err(|why| FilesError::NotText {
        path: path.clone(),
        why,
    })?;
    let edited = edit::apply(&path, &text, &request.edits)?;
    let bytes = encode(edited.text, encoding);
    let size = bytes.len() as u64;
    let hash = fs
        .replace(&path, bytes, &Expected::Content(hash))
        .map_err(FilesError::writing(&path))?;
    Ok(TextEdited {
        path,
        hash,
        size,
        diff: edited.diff.text,
        diff_cut: edited.diff.cut,
    })
}

/// What something is.
pub(crate) fn stat(fs: &Fs<'_>, request: &Stat) -> Result<Known, FilesError> {
    let path = path::full(&request.path)?;
    let reading = |error| FilesError::reading(&path)(error);
    let meta = match request.link {
        true => fs.stat_link(&path),
        false => fs.stat(&path),
    };
    let meta = meta.map_err(reading)?;
    let hash = match request.hash && meta.kind == Kind::File {
        true => Some(fs.hash(&path).map_err(reading)?),
        false => None,
    };
    let target = match meta.kind {
        Kind::Link => Some(fs.read_link(&path).map_err(reading)?),
        _ => None,
    };
    Ok(Known {
        kind: meta.kind.into(),
        size: meta.size,
        modified_ms: meta.modified_ms,
        executable: is_executable(&meta),
        changed: meta.changed,
        hash,
        target,
        path,
    })
}

/// Makes a directory.
pub(crate) fn make_dir(fs: &mut Fs<'_>, request: &MakeDir) -> Result<Done, FilesError> {
    let path = path::full(&request.path)?;
    let made = match request.parents {
        true => fs.make_dirs(&path),
        false => fs.make_dir(&path),
    };
    made.map_err(FilesError::writing(&path))?;
    Ok(Done { path })
}

/// Removes something.
pub(crate) fn remove(fs: &mut Fs<'_>, request: &Remove) -> Result<Done, FilesError> {
    let path = path::full(&request.path)?;
    let removed = match request.recursive {
        true => fs.remove_all(&path),
        false => fs.remove(&path),
    };
    removed.map_err(FilesError::writing(&path))?;
    Ok(Done { path })
}

/// Gives something another path.
pub(crate) fn rename(fs: &mut Fs<'_>, request: &Rename) -> Result<Done, FilesError> {
    let (from, to) = (path::full(&request.from)?, path::full(&request.to)?);
    let renamed = match request.overwrite {
        true => fs.rename_over(&from, &to),
        false => fs.rename(&from, &to),
    };
    renamed.map_err(FilesError::writing(&from))?;
    Ok(Done { path: to })
}
