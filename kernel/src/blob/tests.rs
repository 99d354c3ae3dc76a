//! The content store: what is kept is what comes back, whatever is interrupted when; and what is spoilt is never served.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::pin::{Named, Saved, are_parts, at_rest, has_parts, verify_at_rest};
use super::*;
use astrid_wire::Principal;

const NOW: u64 = 1_767_225_600_000;
const ROOM: u64 = u64::MAX;

fn principal(name: &str) -> Principal {
    Principal::stamped(name).unwrap()
}

fn limits() -> BlobLimits {
    BlobLimits {
        blob_bytes_max: 8 << 20,
        total_bytes_max: 16 << 20,
        count_max: 20,
        uploads_max: 16,
        upload_age_ms_max: 24 * 3600 * 1000,
    }
}

fn finish(blobs: &Blobs, who: &Principal, id: UploadId) -> Result<Address, BlobError> {
    blobs.finish(who, id, |_| Ok(())).map(|held| held.address)
}

fn open(home: &Path) -> Blobs {
    Blobs::open(home.to_owned(), limits(), NOW).unwrap()
}

/// Bytes that differ everywhere.
fn bytes(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| step()).collect()
}

fn append_from(blobs: &Blobs, who: &Principal, id: UploadId, content: &[u8], piece: usize) -> Result<(), BlobError> {
    let mut at = blobs.progress(who, id)?.next as usize;
    while at < content.len() {
        let end = (at + piece).min(content.len());
        at = blobs.append(who, id, at as u64, &content[at..end])? as usize;
    }
    Ok(())
}

fn put(blobs: &Blobs, who: &Principal, content: &[u8], piece: usize) -> Result<Address, BlobError> {
    let id = blobs.begin(who, content.len() as u64, None, ROOM, NOW)?;
    append_from(blobs, who, id, content, piece)?;
    finish(blobs, who, id)
}

fn get(blobs: &Blobs, who: &Principal, address: Address) -> Result<Vec<u8>, BlobError> {
    let mut content = Vec::new();
    loop {
        let part = blobs.read(who, address, content.len() as u64, PART_BYTES)?;
        if part.is_empty() {
            return Ok(content);
        }
        content.extend(part);
    }
}

fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false => found.push(path.strip_prefix(root).unwrap().display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// A8: the address is BLAKE3 of the bytes, for every size around the edges of parts, written in pieces of any size; and ranges are right.
#[test]
fn what_is_kept_comes_back() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let blobs = open(home.path());
    for size in [
        0,
        1,
        1023,
        PART_BYTES - 1,
        PART_BYTES,
        PART_BYTES + 1,
        2 * PART_BYTES,
        3 * PART_BYTES + 7,
    ] {
        let content = bytes(size, size as u64 + 1);
        for piece in [PART_BYTES, 333_333] {
            let address = put(&blobs, &ada, &content, piece).unwrap();
            assert_eq!(address, Address::of(&content), "{size} bytes in pieces of {piece}");
            assert_eq!(address.to_string(), blake3::hash(&content).to_hex().to_string());
            assert_eq!(get(&blobs, &ada, address).unwrap(), content);
            for (offset, length) in [
                (0, 1),
                (size / 2, 1000),
                (PART_BYTES - 3, 7),
                (size.saturating_sub(2), 10),
                (size + 9, 5),
            ] {
                let end = (offset + length).min(size);
                let expected = content.get(offset..end).unwrap_or_default();
                assert_eq!(blobs.read(&ada, address, offset as u64, length).unwrap(), expected);
            }
            blobs.release(&ada, address).unwrap();
        }
    }
    assert_eq!(files(home.path()), [""; 0]);
    assert_eq!(blobs.usage(&ada), 0);
}

/// A blob is kept once, for as long as somebody has it, and seen by those who have it only.
#[test]
fn a_blob_lives_as_long_as_a_reference() {
    let home = tempfile::tempdir().unwrap();
    let (ada, ben) = (principal("ada"), principal("ben"));
    let content = bytes(PART_BYTES + 5, 1);
    let blobs = open(home.path());
    let address = put(&blobs, &ada, &content, PART_BYTES).unwrap();
    assert!(matches!(blobs.read(&ben, address, 0, 1), Err(BlobError::NotFound)));
    assert!(matches!(blobs.release(&ben, address), Err(BlobError::NotFound)));
    assert!(matches!(
        blobs.share(&ben, &ben, address, ROOM),
        Err(BlobError::NotFound)
    ));
    assert!(matches!(
        blobs.share(&ada, &ben, address, 5),
        Err(BlobError::NoSpace { free: 5, .. })
    ));
    blobs.share(&ada, &ben, address, ROOM).unwrap();
    assert_eq!(
        (blobs.usage(&ada), blobs.usage(&ben)),
        (content.len() as u64, content.len() as u64)
    );
    drop(blobs);
    let blobs = open(home.path());
    blobs.release(&ada, address).unwrap();
    assert!(matches!(blobs.size(&ada, address), Err(BlobError::NotFound)));
    assert_eq!(get(&blobs, &ben, address).unwrap(), content);
    put(&blobs, &ada, &content, PART_BYTES).unwrap();
    assert_eq!(
        files(&home.path().join("objects")).len(),
        2,
        "the blob and its list, once"
    );
    blobs.release_all(&ben).unwrap();
    blobs.begin(&ada, 5, None, ROOM, NOW).unwrap();
    blobs.release_all(&ada).unwrap();
    assert_eq!(files(home.path()), [""; 0]);
}

#[test]
fn limits_and_wrong_calls_are_typed() {
    let home = tempfile::tempdir().unwrap();
    let (ada, ben) = (principal("ada"), principal("ben"));
    let blobs = open(home.path());
    assert!(
        matches!(blobs.begin(&ada, (8 << 20) + 1, None, ROOM, NOW), Err(BlobError::TooLarge(max)) if max == 8 << 20)
    );
    assert!(
        matches!(blobs.begin(&ada, 11, None, 10, NOW), Err(BlobError::NoSpace { free: 10, whose }) if whose == "for ada")
    );
    let id = blobs.begin(&ada, 10, None, ROOM, NOW).unwrap();
    assert!(matches!(blobs.append(&ben, id, 0, b"x"), Err(BlobError::NoUpload)));
    assert!(matches!(
        blobs.append(&ada, id, 1, b"x"),
        Err(BlobError::WrongOffset(0))
    ));
    assert!(matches!(
        blobs.append(&ada, id, 0, &[0; 11]),
        Err(BlobError::TooLarge(10))
    ));
    assert!(matches!(
        blobs.append(&ada, id, 0, &[0; PART_BYTES + 1]),
        Err(BlobError::TooLarge(_))
    ));
    assert_eq!(blobs.append(&ada, id, 0, b"hello").unwrap(), 5);
    assert!(matches!(
        blobs.append(&ada, id, 0, b"hello"),
        Err(BlobError::WrongOffset(5))
    ));
    assert!(matches!(
        finish(&blobs, &ada, id),
        Err(BlobError::Incomplete { has: 5, size: 10 })
    ));
    assert_eq!(blobs.progress(&ada, id).unwrap(), Progress { size: 10, next: 5 });
    blobs.abort(&ada, id).unwrap();
    assert!(matches!(blobs.append(&ada, id, 5, b"x"), Err(BlobError::NoUpload)));
    // What was announced counts, before any of it is written.
    let one = blobs.begin(&ada, 8 << 20, None, ROOM, NOW).unwrap();
    let two = blobs.begin(&ben, 8 << 20, None, ROOM, NOW).unwrap();
    assert_ne!(one, two);
    assert!(
        matches!(blobs.begin(&ada, 1, None, ROOM, NOW), Err(BlobError::NoSpace { free: 0, whose }) if whose == "in the store")
    );
    blobs.abort(&ada, one).unwrap();
    for _ in 0..limits().uploads_max {
        blobs.begin(&ada, 1, None, ROOM, NOW).unwrap();
    }
    assert!(matches!(
        blobs.begin(&ada, 1, None, ROOM, NOW),
        Err(BlobError::TooMany(16))
    ));
    // However small they are, there are not more than so many.
    for _ in 0..3 {
        blobs.begin(&ben, 0, None, ROOM, NOW).unwrap();
    }
    assert!(matches!(
        blobs.begin(&ben, 0, None, ROOM, NOW),
        Err(BlobError::Full(20))
    ));
    for text in ["", "abc", &"A".repeat(64), &"g".repeat(64), "../../../etc/passwd"] {
        assert!(text.parse::<Address>().is_err(), "{text}");
    }
}

#[test]
fn what_is_not_what_was_announced_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let blobs = open(home.path());
    let expected = Address::of(b"hello");
    let id = blobs.begin(&ada, 5, Some(expected), ROOM, NOW).unwrap();
    blobs.append(&ada, id, 0, b"jello").unwrap();
    assert!(matches!(finish(&blobs, &ada, id), Err(BlobError::Mismatch { is, .. }) if is == Address::of(b"jello")));
    assert!(matches!(blobs.progress(&ada, id), Err(BlobError::NoUpload)));
    assert_eq!(files(home.path()), [""; 0]);
}

/// The identity of an upload that is over names nothing: not another that begins within the same millisecond, nor when the clock goes back.
#[test]
fn identities_do_not_come_back() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let mut seen = std::collections::BTreeSet::new();
    for now in [NOW, NOW, NOW - 5] {
        let blobs = Blobs::open(home.path().to_owned(), limits(), now).unwrap();
        for _ in 0..3 {
            let id = blobs.begin(&ada, 0, None, ROOM, now).unwrap();
            assert!(seen.insert(id), "{id}");
            blobs.abort(&ada, id).unwrap();
        }
        let stays = blobs.begin(&ada, 0, None, ROOM, now).unwrap();
        assert!(seen.insert(stays), "{stays}");
    }
}

/// K13: what cannot be recorded does not happen, and can be done later.
#[test]
fn what_is_not_recorded_is_not_kept() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let blobs = open(home.path());
    let id = blobs.begin(&ada, 5, None, ROOM, NOW).unwrap();
    blobs.append(&ada, id, 0, b"hello").unwrap();
    let refused = blobs.finish(&ada, id, |_| Err("the log is full".to_owned()));
    assert!(matches!(refused, Err(BlobError::Unrecorded(why)) if why == "the log is full"));
    let address = Address::of(b"hello");
    assert!(matches!(blobs.size(&ada, address), Err(BlobError::NotFound)));
    let mut recorded = Vec::new();
    let held = blobs.finish(&ada, id, |held| {
        recorded.push(held);
        Ok(())
    });
    assert_eq!(recorded, [Held { address, size: 5 }]);
    assert_eq!(held.unwrap(), recorded[0]);
}

/// Blobs that were kept under other limits stay, and are read; what was begun can be finished.
#[test]
fn lower_limits_are_for_what_comes() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let blobs = open(home.path());
    let content = bytes(3 * PART_BYTES, 3);
    let kept = put(&blobs, &ada, &bytes(PART_BYTES + 1, 4), PART_BYTES).unwrap();
    let id = blobs.begin(&ada, content.len() as u64, None, ROOM, NOW).unwrap();
    append_from(&blobs, &ada, id, &content, PART_BYTES).unwrap();
    drop(blobs);
    let lower = BlobLimits {
        blob_bytes_max: 10,
        total_bytes_max: 10,
        count_max: 1,
        uploads_max: 1,
        ..limits()
    };
    let blobs = Blobs::open(home.path().to_owned(), lower, NOW).unwrap();
    let address = finish(&blobs, &ada, id).unwrap();
    assert_eq!(get(&blobs, &ada, address).unwrap(), content);
    assert_eq!(get(&blobs, &ada, kept).unwrap().len(), PART_BYTES + 1);
    assert!(matches!(
        blobs.begin(&ada, 11, None, ROOM, NOW),
        Err(BlobError::TooLarge(10))
    ));
    assert!(matches!(
        blobs.begin(&ada, 1, None, ROOM, NOW),
        Err(BlobError::NoSpace { free: 0, .. })
    ));
}

/// K22: what a backup sees is what was there when it began, whatever is given up meanwhile; and it goes when the backup has it.
#[test]
fn what_is_pinned_stays() {
    let home = tempfile::tempdir().unwrap();
    let (ada, ben) = (principal("ada"), principal("ben"));
    let blobs = open(home.path());
    let contents = [
        bytes(10, 1),
        bytes(PART_BYTES + 10, 2),
        bytes(20, 3),
        bytes(30, 4),
        bytes(40, 5),
    ];
    let keep = |index: usize| put(&blobs, &ada, &contents[index], PART_BYTES).unwrap();
    let (stays, before, during, after) = (keep(0), keep(1), keep(2), keep(3));
    blobs.share(&ada, &ben, stays, ROOM).unwrap();
    let upload = blobs.begin(&ada, 40, None, ROOM, NOW).unwrap();
    blobs.release(&ada, before).unwrap();
    let pinned = blobs.pin().unwrap();
    assert!(blobs.pin().is_none(), "one backup at a time");
    blobs.release(&ada, during).unwrap();
    assert!(matches!(blobs.size(&ada, during), Err(BlobError::NotFound)));
    let listed = pinned.list();
    blobs.release(&ada, after).unwrap();
    // Written anew while it is about to leave, it stays.
    assert_eq!(keep(3), after);
    blobs.append(&ada, upload, 0, &contents[4]).unwrap();
    let late = finish(&blobs, &ada, upload).unwrap();
    let saved = |address: Address, size, holders: &[&Principal]| Saved {
        held: Held { address, size },
        holders: holders.iter().map(|who| (*who).clone()).collect(),
    };
    let mut expected = vec![
        saved(stays, 10, &[&ada, &ben]),
        saved(during, 20, &[&ada]),
        saved(after, 30, &[&ada]),
    ];
    expected.sort_by_key(|saved| saved.held.address);
    assert_eq!(listed, expected);
    for one in &listed {
        pinned.verify(one.held).unwrap();
        verify_at_rest(home.path(), one.held).unwrap();
    }
    // What comes and goes behind the list goes at once.
    blobs.release(&ada, late).unwrap();
    let there = |address: Address| home.path().join(Named::Object(address).path()).exists();
    assert!(there(during) && !there(late));
    drop(pinned);
    assert!(there(stays) && there(after) && !there(during));
    assert_eq!(get(&blobs, &ada, after).unwrap(), contents[3]);
    drop(blobs);
    let mut expected = vec![saved(stays, 10, &[&ada, &ben]), saved(after, 30, &[&ada])];
    expected.sort_by_key(|saved| saved.held.address);
    assert_eq!(at_rest(home.path()).unwrap(), expected);
}

/// A backup finds what is spoilt, and names of files are those that a store has.
#[test]
fn names_and_lists_are_checked() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let blobs = open(home.path());
    let content = bytes(2 * PART_BYTES + 1, 6);
    let address = put(&blobs, &ada, &content, PART_BYTES).unwrap();
    let held = Held {
        address,
        size: content.len() as u64,
    };
    assert!(has_parts(held.size) && !has_parts(PART_BYTES as u64));
    let mut list = std::fs::read(home.path().join(Named::Parts(address).path())).unwrap();
    assert!(are_parts(&list, held));
    list[33] ^= 1;
    assert!(!are_parts(&list, held) && !are_parts(&list[1..], held) && !are_parts(&[], held));
    let name = address.to_string();
    for (text, wanted) in [
        (format!("objects/{}/{name}", &name[..2]), Some(Named::Object(address))),
        (
            format!("objects/{}/{name}.parts", &name[..2]),
            Some(Named::Parts(address)),
        ),
        (
            format!("references/ada/{name}"),
            Some(Named::Reference(ada.clone(), address)),
        ),
        (format!("objects/zz/{name}"), None),
        (format!("objects/{name}"), None),
        (format!("references/ada/x/{name}"), None),
        (format!("references/../{name}"), None),
        ("uploads/0000000000000001/data".to_owned(), None),
        ("objects".to_owned(), None),
    ] {
        assert_eq!(Named::of(&text), wanted, "{text}");
    }
    let object = home.path().join(Named::Object(address).path());
    std::fs::write(&object, vec![0; content.len()]).unwrap();
    let pinned = blobs.pin().unwrap();
    let wrong = pinned.verify(pinned.list()[0].held);
    assert!(matches!(wrong, Err(BlobError::Corrupted { first: true, .. })));
    assert!(verify_at_rest(home.path(), held).is_err());
}

/// Each byte that changes on disk, in the blob or in its list, is noticed by what reads it, told, and never served; writing anew repairs it.
#[test]
fn what_is_spoilt_is_never_served() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    for size in [100, 2 * PART_BYTES + 100] {
        let content = bytes(size, 7);
        let blobs = open(home.path());
        let address = put(&blobs, &ada, &content, PART_BYTES).unwrap();
        let name = address.to_string();
        let object = home.path().join("objects").join(&name[..2]).join(&name);
        let list = object.with_extension("parts");
        let spoil = |path: &Path, at: u64| {
            let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
        };
        let last = size as u64 - 1;
        spoil(&object, last);
        assert!(matches!(
            blobs.read(&ada, address, last, 1),
            Err(BlobError::Corrupted { first: true, .. })
        ));
        if size > PART_BYTES {
            // Another part is what it was.
            assert_eq!(blobs.read(&ada, address, 0, 100).unwrap(), content[..100]);
        }
        // Noticed once, told always.
        let again = blobs.read(&ada, address, last, 1);
        assert!(matches!(again, Err(BlobError::Corrupted { first: false, .. })));
        assert_eq!(blobs.verify_all().len(), 1);
        assert_eq!(put(&blobs, &ada, &content, PART_BYTES).unwrap(), address);
        assert_eq!(get(&blobs, &ada, address).unwrap(), content);
        assert!(blobs.verify_all().is_empty());
        if size > PART_BYTES {
            spoil(&list, 40);
            assert!(matches!(
                blobs.read(&ada, address, 0, 1),
                Err(BlobError::Corrupted { .. })
            ));
            std::fs::remove_file(&list).unwrap();
            assert!(matches!(
                blobs.read(&ada, address, 0, 1),
                Err(BlobError::Corrupted { .. })
            ));
            put(&blobs, &ada, &content, PART_BYTES).unwrap();
        }
        std::fs::OpenOptions::new()
            .write(true)
            .open(&object)
            .unwrap()
            .set_len(last)
            .unwrap();
        assert!(matches!(
            blobs.read(&ada, address, 0, 1),
            Err(BlobError::Corrupted { .. })
        ));
        std::fs::remove_file(&object).unwrap();
        assert!(matches!(
            blobs.read(&ada, address, 0, 1),
            Err(BlobError::Corrupted { .. })
        ));
        put(&blobs, &ada, &content, PART_BYTES).unwrap();
        assert_eq!(get(&blobs, &ada, address).unwrap(), content);
        blobs.release(&ada, address).unwrap();
    }
}

/// An upload goes on after a crash from what is on disk and verifies, and not from what does not.
#[test]
fn uploads_go_on_after_a_crash() {
    let home = tempfile::tempdir().unwrap();
    let ada = principal("ada");
    let content = bytes(3 * PART_BYTES + 10, 3);
    let blobs = open(home.path());
    let id = blobs
        .begin(&ada, content.len() as u64, Some(Address::of(&content)), ROOM, NOW)
        .unwrap();
    append_from(&blobs, &ada, id, &content[..2 * PART_BYTES + 500], 300_000).unwrap();
    drop(blobs);
    let blobs = open(home.path());
    assert_eq!(blobs.progress(&ada, id).unwrap().next, 2 * PART_BYTES as u64);
    drop(blobs);
    let data = home.path().join("uploads").join(id.to_string()).join("data");
    let file = std::fs::OpenOptions::new().write(true).open(data).unwrap();
    file.write_all_at(b"spoilt", PART_BYTES as u64 + 5).unwrap();
    let blobs = open(home.path());
    assert_eq!(blobs.progress(&ada, id).unwrap().next, PART_BYTES as u64);
    append_from(&blobs, &ada, id, &content, PART_BYTES).unwrap();
    let address = finish(&blobs, &ada, id).unwrap();
    assert_eq!(get(&blobs, &ada, address).unwrap(), content);
    blobs.release(&ada, address).unwrap();
    // One of long ago is removed.
    blobs.begin(&ada, 5, None, ROOM, NOW).unwrap();
    drop(blobs);
    Blobs::open(home.path().to_owned(), limits(), NOW + limits().upload_age_ms_max + 1).unwrap();
    assert_eq!(files(home.path()), [""; 0]);
}

/// Interrupted at each step on disk, all of a life (upload, keep, share, give up) leaves what can be gone on with: a principal that was told it has
/// a blob has it, whole; and nothing is left over at the end.
#[test]
fn every_step_may_be_the_last() {
    let (ada, ben) = (principal("ada"), principal("ben"));
    let content = bytes(PART_BYTES + 100, 9);
    let address = Address::of(&content);
    let life = |blobs: &Blobs, told: &mut Vec<&'static str>| -> Result<(), BlobError> {
        if blobs.size(&ada, address).is_err() && !told.contains(&"given up by ada") {
            // As a client does: it goes on with what it began, or begins anew.
            let begun = locked_uploads(blobs);
            let id = match begun.first() {
                Some(id) => *id,
                None => blobs.begin(&ada, content.len() as u64, Some(address), ROOM, NOW)?,
            };
            append_from(blobs, &ada, id, &content, 700_000)?;
            assert_eq!(finish(blobs, &ada, id)?, address);
        }
        if !told.contains(&"given up by ada") {
            told.push("kept");
            blobs.share(&ada, &ben, address, ROOM)?;
            told.push("shared");
            blobs.release(&ada, address)?;
            told.push("given up by ada");
        }
        match blobs.release(&ben, address) {
            Err(BlobError::NotFound) if told.contains(&"giving up by ben") => {}
            released => released?,
        }
        Ok(())
    };
    for fuse in 0.. {
        let home = tempfile::tempdir().unwrap();
        let mut told = Vec::new();
        let blobs = open(home.path());
        *blobs.disk.fuse.lock().unwrap() = Some(fuse);
        let finished = life(&blobs, &mut told).is_ok();
        drop(blobs);
        let blobs = open(home.path());
        let kept = told.contains(&"kept") && !told.contains(&"shared");
        if kept {
            assert_eq!(
                get(&blobs, &ada, address).unwrap(),
                content,
                "after {fuse} steps: {told:?}"
            );
        }
        if told.contains(&"shared") && !told.contains(&"given up by ada") {
            assert_eq!(
                get(&blobs, &ben, address).unwrap(),
                content,
                "after {fuse} steps: {told:?}"
            );
        }
        assert!(blobs.verify_all().is_empty(), "after {fuse} steps: {told:?}");
        if !finished {
            // The release that was interrupted may have been the last step.
            told.push("giving up by ben");
            if told.contains(&"shared") && blobs.size(&ada, address).is_err() {
                told.push("given up by ada");
            }
            life(&blobs, &mut told).unwrap_or_else(|error| panic!("after {fuse} steps: {error}: {told:?}"));
        }
        drop(blobs);
        let blobs = open(home.path());
        blobs.release_all(&ada).unwrap();
        assert_eq!(files(home.path()), [""; 0], "after {fuse} steps: {told:?}");
        if finished {
            assert!(fuse > 20, "there are that many steps");
            return;
        }
    }
}

fn locked_uploads(blobs: &Blobs) -> Vec<UploadId> {
    let names = std::fs::read_dir(blobs.root().join("uploads")).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect()
}
