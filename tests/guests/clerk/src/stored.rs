//! What is stored elsewhere than in files: blobs, and the table.

use astrid_sdk::error::{BlobError, KvError};
use astrid_sdk::fs::FsError;
use astrid_sdk::prelude::*;

use super::Step;

/// Why a step did not do what it should.
pub(crate) enum Wrong {
    Fs(FsError),
    Blob(BlobError),
    Kv(KvError),
}

impl Wrong {
    pub(crate) fn told(self) -> Value {
        match self {
            Self::Fs(error) => json!({ "error": format!("{error:?}"), "text": error.to_string() }),
            Self::Blob(error) => json!({ "error": format!("{error:?}"), "text": error.to_string() }),
            Self::Kv(error) => json!({ "error": format!("{error:?}"), "text": error.to_string() }),
        }
    }
}

impl From<FsError> for Wrong {
    fn from(error: FsError) -> Self {
        Self::Fs(error)
    }
}

impl From<BlobError> for Wrong {
    fn from(error: BlobError) -> Self {
        Self::Blob(error)
    }
}

impl From<KvError> for Wrong {
    fn from(error: KvError) -> Self {
        Self::Kv(error)
    }
}

/// Bytes that differ, by the seed.
fn content(from: u64, to: u64, seed: u8) -> Vec<u8> {
    (from..to).map(|at| (at % 251) as u8 ^ seed).collect()
}

/// Does it, or gives it back.
pub(crate) fn step(ctx: &mut Context, step: Step) -> Result<Result<Value, Step>, Wrong> {
    Ok(Ok(match step {
        Step::KeepBlob { bytes, seed } => json!(ctx.blobs().put(&content(0, bytes, seed))?),
        Step::Begin { bytes, expected } => json!(ctx.blobs().begin(bytes, expected.as_deref())?),
        Step::Append {
            upload,
            bytes,
            seed,
            part,
        } => {
            let mut next = ctx.blobs().status(upload)?.next;
            while next < bytes {
                let part = content(next, bytes.min(next + part), seed);
                next = ctx.blobs().append(upload, next, &part)?;
            }
            json!(next)
        }
        Step::Finish { upload } => json!(ctx.blobs().finish(upload)?),
        Step::Abort { upload } => json!(ctx.blobs().abort(upload)?),
        Step::Size { address } => json!(ctx.blobs().size(&address)?),
        Step::Fetch { address, part } => {
            let mut bytes = 0;
            loop {
                let read = ctx.blobs().read(&address, bytes, part)?;
                if read.is_empty() {
                    break json!(bytes);
                }
                bytes += read.len() as u64;
            }
        }
        Step::Release { address } => json!(ctx.blobs().release(&address)?),
        Step::Store { key, bytes } => json!(ctx.kv().put_bytes(&key, content(0, bytes, 0))?),
        Step::Unstore { key } => json!(ctx.kv().delete(&key)?),
        other => return Ok(Err(other)),
    }))
}
