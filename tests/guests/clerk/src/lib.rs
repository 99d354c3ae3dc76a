//! A capsule that does to files, blobs and its table what it is told. The kernel's tests drive it; it is of no other use.
use astrid_sdk::fs::{Changed, Creation, Entry, Expected, File, FsError, Kind, Meta, OpenOptions};
use astrid_sdk::prelude::*;

mod stored;

use stored::Wrong;

#[derive(Default)]
struct Clerk {
    /// Kept open past the handling that opened it, which is a mistake.
    kept: Option<File>,
}

/// One call.
#[body]
#[serde(rename_all = "kebab-case")]
enum Step {
    /// The text of a file.
    Read { path: String },
    /// Bytes of a file that are not looked at: how many, and their hash.
    Pour { path: String, part: u32 },
    /// Puts a whole file there.
    Replace {
        path: String,
        text: String,
        #[serde(default)]
        expected: Option<String>,
        #[serde(default)]
        absent: bool,
    },
    /// Writes into a file that is there, or is made.
    Write { path: String, offset: u64, text: String },
    /// Writes that many bytes in parts of 1 MiB.
    Fill { path: String, bytes: u64 },
    /// Cuts it.
    Cut { path: String, length: u64 },
    /// Names in a directory.
    List { path: String },
    /// What is there.
    Stat { path: String, follow: bool },
    /// Its hash.
    Hash { path: String },
    /// Makes a directory.
    MakeDir { path: String, parents: bool },
    /// Removes.
    Remove { path: String, recursive: bool },
    /// Renames.
    Rename { path: String, to: String, overwrite: bool },
    /// Makes a link.
    MakeLink { path: String, to: String },
    /// Reads a link.
    ReadLink { path: String },
    /// Sets its mode.
    SetMode { path: String, mode: u32 },
    /// Sets when it changed.
    SetModified { path: String, ms: i64 },
    /// Opens that many handles, and keeps them all until the end.
    OpenMany { path: String, count: u32 },
    /// Keeps a handle past the end of this handling.
    Keep { path: String },
    /// Uses it.
    UseKept,
    /// Panics.
    Panic,
    /// Has changes told.
    Watch { path: String },
    /// Has them not told any more.
    Unwatch { port: u64 },
    /// Keeps a blob of that many bytes.
    KeepBlob { bytes: u64, seed: u8 },
    /// Announces one.
    Begin { bytes: u64, expected: Option<String> },
    /// Writes all that is missing of it, in parts of that many bytes.
    Append {
        upload: u64,
        bytes: u64,
        seed: u8,
        part: u64,
    },
    /// Makes a blob of it.
    Finish { upload: u64 },
    /// Gives it up.
    Abort { upload: u64 },
    /// Bytes of a blob.
    Size { address: String },
    /// Reads all of it, in parts of that many bytes: how many there were.
    Fetch { address: String, part: u32 },
    /// Gives it up.
    Release { address: String },
    /// Puts that many bytes into the table.
    Store { key: String, bytes: u64 },
    /// Removes them.
    Unstore { key: String },
}

fn meta(meta: &Meta) -> Value {
    let kind = match meta.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Link => "link",
        Kind::Other => "other",
    };
    json!({ "kind": kind, "size": meta.size, "mode": meta.mode, "changed": meta.changed, "modified_ms": meta.modified_ms })
}

fn entries(list: impl Iterator<Item = Result<Entry, FsError>>) -> Result<Vec<Value>, FsError> {
    list.map(|entry| entry.map(|entry| json!([entry.name, meta(&entry.meta)])))
        .collect()
}

fn writing(create: Creation) -> OpenOptions {
    OpenOptions {
        read: false,
        write: true,
        create,
        truncate: false,
    }
}

#[capsule]
impl Clerk {
    /// Does the steps in order, each whatever became of the others.
    #[on("clerk.v1.do.steps")]
    fn steps(&mut self, ctx: &mut Context, steps: Vec<Step>) -> Vec<Value> {
        steps
            .into_iter()
            .map(|step| self.step(ctx, step).unwrap_or_else(Wrong::told))
            .collect()
    }

    /// Passes on what a watch tells.
    #[on("port.v1.watch.changed")]
    fn changed(&mut self, ctx: &mut Context, changed: Changed) -> Result<()> {
        ctx.publish("clerk.v1.event.changed", json!(changed))?;
        Ok(())
    }

    /// Passes on that it ended.
    #[on("port.v1.watch.ended")]
    fn ended(&mut self, ctx: &mut Context, reason: Body) -> Result<()> {
        ctx.publish("clerk.v1.event.ended", json!(String::from_utf8_lossy(&reason.bytes)))?;
        Ok(())
    }
}

impl Clerk {
    fn step(&mut self, ctx: &mut Context, step: Step) -> Result<Value, Wrong> {
        let step = match stored::step(ctx, step)? {
            Ok(done) => return Ok(done),
            Err(step) => step,
        };
        let mut fs = ctx.fs();
        Ok(match step {
            Step::Read { path } => json!(fs.read_to_string(path, 32 << 20)?),
            Step::Pour { path, part } => {
                let file = fs.open(path, &OpenOptions::reading())?;
                let mut bytes = 0;
                loop {
                    let read = file.read(bytes, part)?;
                    if read.is_empty() {
                        break json!(bytes);
                    }
                    bytes += read.len() as u64;
                }
            }
            Step::Replace {
                path,
                text,
                expected,
                absent,
            } => {
                let expected = match expected {
                    Some(hash) => Expected::Content(hash),
                    None if absent => Expected::Absent,
                    None => Expected::Anything,
                };
                json!(fs.replace(path, text, &expected)?)
            }
            Step::Write { path, offset, text } => {
                let mut file = fs.open(path, &writing(Creation::IfMissing))?;
                file.write(offset, text.as_bytes())?;
                json!(file.stat()?.size)
            }
            Step::Fill { path, bytes } => {
                let mut file = fs.open(path, &writing(Creation::IfMissing))?;
                let part = vec![b'x'; 1 << 20];
                let mut at = 0;
                while at < bytes {
                    let now = part.len().min(usize::try_from(bytes - at).unwrap_or(usize::MAX));
                    file.write(at, &part[..now])?;
                    at += now as u64;
                }
                json!(at)
            }
            Step::Cut { path, length } => {
                fs.open(path, &writing(Creation::Never))?.set_length(length)?;
                json!(length)
            }
            Step::List { path } => json!(entries(fs.list(path))?),
            Step::Stat { path, follow: true } => meta(&fs.stat(path)?),
            Step::Stat { path, follow: false } => meta(&fs.stat_link(path)?),
            Step::Hash { path } => json!(fs.hash(path)?),
            Step::MakeDir { path, parents: true } => json!(fs.make_dirs(path)?),
            Step::MakeDir { path, parents: false } => json!(fs.make_dir(path)?),
            Step::Remove { path, recursive: true } => json!(fs.remove_all(path)?),
            Step::Remove { path, recursive: false } => json!(fs.remove(path)?),
            Step::Rename {
                path,
                to,
                overwrite: true,
            } => json!(fs.rename_over(path, to)?),
            Step::Rename { path, to, .. } => json!(fs.rename(path, to)?),
            Step::MakeLink { path, to } => json!(fs.make_link(path, &to)?),
            Step::ReadLink { path } => json!(fs.read_link(path)?),
            Step::SetMode { path, mode } => json!(fs.set_mode(path, mode)?),
            Step::SetModified { path, ms } => json!(fs.set_modified(path, ms)?),
            Step::OpenMany { path, count } => {
                let open = |_| fs.open(&path, &OpenOptions::reading());
                json!((0..count).map(open).collect::<Result<Vec<_>, _>>()?.len())
            }
            Step::Keep { path } => {
                self.kept = Some(fs.open(path, &OpenOptions::reading())?);
                json!(null)
            }
            Step::UseKept => match &self.kept {
                Some(file) => json!(file.read(0, 10)?.len()),
                None => json!("nothing is kept"),
            },
            Step::Panic => panic!("on request"),
            Step::Watch { path } => json!(fs.watch(path)?),
            Step::Unwatch { port } => json!(fs.unwatch(port)),
            _ => json!(null),
        })
    }
}
