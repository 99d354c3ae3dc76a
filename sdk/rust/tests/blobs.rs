//! The fake kernel's content store: what `wit/blob.wit` promises, with its errors.

#![allow(clippy::unwrap_used, reason = "tests")]

use astrid_sdk::prelude::*;
use astrid_sdk::testing::Harness;

#[derive(Default)]
struct Shelf;

#[capsule]
impl Shelf {
    #[on("shelf.v1.put")]
    fn put(&mut self, ctx: &mut Context, body: Body) -> Result<String> {
        Ok(ctx.blobs().put(&body.bytes)?)
    }

    #[on("shelf.v1.get")]
    fn get(&mut self, ctx: &mut Context, (address, limit): (String, u64)) -> Result<usize> {
        Ok(ctx.blobs().get(&address, limit)?.len())
    }

    #[on("shelf.v1.begin")]
    fn begin(&mut self, ctx: &mut Context, (size, expected): (u64, Option<String>)) -> Result<u64> {
        Ok(ctx.blobs().begin(size, expected.as_deref())?)
    }

    #[on("shelf.v1.append")]
    fn append(&mut self, ctx: &mut Context, (upload, offset, text): (u64, u64, String)) -> Result<u64> {
        Ok(ctx.blobs().append(upload, offset, text.as_bytes())?)
    }

    #[on("shelf.v1.status")]
    fn status(&mut self, ctx: &mut Context, upload: u64) -> Result<u64> {
        Ok(ctx.blobs().status(upload)?.next)
    }

    #[on("shelf.v1.finish")]
    fn finish(&mut self, ctx: &mut Context, upload: u64) -> Result<String> {
        Ok(ctx.blobs().finish(upload)?)
    }

    #[on("shelf.v1.release")]
    fn release(&mut self, ctx: &mut Context, address: String) -> Result<bool> {
        ctx.blobs().release(&address)?;
        Ok(true)
    }
}

#[test]
fn blobs_are_kept_for_whoever_has_them() {
    let mut shelf = Harness::new::<Shelf>();
    let body = Body::new("application/octet-stream", vec![7; (1 << 20) + 3]);
    let address: String = shelf.ask("shelf.v1.put", &body).read();
    assert_eq!(address, blake3::hash(&body.bytes).to_hex().to_string());
    assert_eq!(
        shelf.ask("shelf.v1.get", (&address, 2 << 20)).read::<usize>(),
        body.bytes.len()
    );
    assert_eq!(shelf.ask("shelf.v1.get", (&address, 5)).refused().code(), "too-large");
    shelf.speak_as("ben");
    assert_eq!(
        shelf.ask("shelf.v1.get", (&address, 2 << 20)).refused().code(),
        "blob.not-found"
    );
    shelf.speak_as("default");
    shelf.corrupt_blob(&address);
    assert_eq!(
        shelf.ask("shelf.v1.get", (&address, 2 << 20)).refused().code(),
        "blob.corrupted"
    );
    let again: String = shelf.ask("shelf.v1.put", &body).read();
    assert_eq!(shelf.blobs("default"), [again]);
    shelf.ask("shelf.v1.release", &address).json();
    assert_eq!(shelf.blobs("default"), [""; 0]);
    assert_eq!(shelf.ask("shelf.v1.get", ("../x", 1)).refused().code(), "invalid");
}

#[test]
fn uploads_go_on_over_instances_and_daemons() {
    let mut shelf = Harness::new::<Shelf>();
    let address = blake3::hash(b"hello").to_hex().to_string();
    let upload: u64 = shelf.ask("shelf.v1.begin", (5, &address)).read();
    assert_eq!(shelf.ask("shelf.v1.append", (upload, 0, "he")).read::<u64>(), 2);
    shelf.restart();
    assert_eq!(shelf.ask("shelf.v1.status", upload).read::<u64>(), 2);
    assert_eq!(
        shelf.ask("shelf.v1.append", (upload, 0, "he")).refused().code(),
        "blob.wrong-offset"
    );
    assert_eq!(
        shelf.ask("shelf.v1.append", (upload, 2, "llo!")).refused().code(),
        "too-large"
    );
    assert_eq!(shelf.ask("shelf.v1.finish", upload).refused().code(), "blob.incomplete");
    shelf.ask("shelf.v1.append", (upload, 2, "llo")).json();
    assert_eq!(shelf.ask("shelf.v1.finish", upload).read::<String>(), address);
    assert_eq!(shelf.ask("shelf.v1.finish", upload).refused().code(), "blob.not-found");
    let upload: u64 = shelf.ask("shelf.v1.begin", (5, &address)).read();
    shelf.ask("shelf.v1.append", (upload, 0, "jello")).json();
    assert_eq!(shelf.ask("shelf.v1.finish", upload).refused().code(), "blob.mismatch");
    assert_eq!(
        shelf.ask("shelf.v1.begin", (100_000_001, ())).refused().code(),
        "too-large"
    );
}
