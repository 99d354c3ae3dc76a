//! Blobs in backups: all that somebody had at one moment, and each is what it should be.

use std::sync::atomic::{AtomicBool, Ordering};

use astrid_wire::Principal;

use super::super::blobs::BLOBS;
use super::*;
use crate::blob::pin::Named;
use crate::blob::{Address, Blobs, PART_BYTES};

const NOW: u64 = 1_767_225_600_000;

fn ada() -> Principal {
    Principal::stamped("ada").unwrap()
}

fn content(size: usize, seed: u8) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ seed).collect()
}

fn put(blobs: &Blobs, who: &Principal, bytes: &[u8]) -> Address {
    let id = blobs.begin(who, bytes.len() as u64, None, u64::MAX, NOW).unwrap();
    for (index, part) in bytes.chunks(PART_BYTES).enumerate() {
        blobs.append(who, id, (index * PART_BYTES) as u64, part).unwrap();
    }
    blobs.finish(who, id, |_| Ok(())).unwrap().address
}

fn opened(home: &Home) -> Blobs {
    let limits = BlobLimits {
        blob_bytes_max: 8 << 20,
        total_bytes_max: 32 << 20,
        count_max: 1000,
        uploads_max: 100,
        upload_age_ms_max: u64::MAX,
    };
    Blobs::open(home.blobs_dir(), limits, NOW).unwrap()
}

/// K22: blobs, who has them and the lists of their parts are saved, uploads are not; and a home that is restored has them, verified.
#[test]
fn there_and_back() {
    let bed = Bed::new();
    let (ada, ben) = (ada(), Principal::stamped("ben").unwrap());
    let contents = [content(0, 1), content(100, 2), content(2 * PART_BYTES + 5, 3)];
    let addresses = contents.each_ref().map(|bytes| put(&bed.blobs, &ada, bytes));
    bed.blobs.share(&ada, &ben, addresses[2], u64::MAX).unwrap();
    let upload = bed.blobs.begin(&ben, 10, None, u64::MAX, NOW).unwrap();
    let made = create(&bed.home, bed.online(), &bed.file(), false).unwrap();
    assert!(made.left_out.is_empty());
    // Besides the others: three blobs, one list, and four references.
    assert_eq!((made.written.blobs, made.written.files), (3, 7 + 8));
    let other = bed.other("other");
    restore(&bed.file(), &other).unwrap();
    let files = saved(&other);
    assert_eq!(files.keys().filter(|name| name.starts_with(BLOBS)).count(), 8);
    assert!(
        files
            .iter()
            .filter(|(name, _)| name.starts_with(BLOBS))
            .all(|(_, (mode, _))| *mode == 0o600)
    );
    let blobs = opened(&other);
    assert!(blobs.verify_all().is_empty());
    for (address, bytes) in addresses.iter().zip(&contents) {
        assert_eq!(blobs.size(&ada, *address).unwrap(), bytes.len() as u64);
        assert_eq!(
            blobs.read(&ada, *address, 0, PART_BYTES).unwrap(),
            bytes[..bytes.len().min(PART_BYTES)]
        );
    }
    assert_eq!(blobs.list(&ben, None, 10).len(), 1);
    assert!(blobs.progress(&ben, upload).is_err());
    drop(blobs);
    // And once more, at rest.
    let again = bed.directory.path().join("again");
    let made = create_at_rest(&other, &again, false).unwrap();
    assert_eq!((made.written.blobs, made.left_out.len()), (3, 0));
    let third = bed.other("third");
    restore(&again, &third).unwrap();
    assert_eq!(saved(&third), files);
}

/// K22: while uploads finish and blobs are given up, a backup has all that was there at its moment, and each of what it has is whole.
#[test]
fn while_others_write() {
    let bed = Bed::new();
    let ada = ada();
    let stays: Vec<Address> = (0..20).map(|n| put(&bed.blobs, &ada, &content(5000 + n, 7))).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bed = &bed;
        let stop = &stop;
        let writers: Vec<_> = (0..3_u8)
            .map(|writer| {
                scope.spawn(move || {
                    let who = Principal::stamped(&format!("w{writer}")).unwrap();
                    let mut written = 0_usize;
                    while !stop.load(Ordering::Relaxed) {
                        let size = if written.is_multiple_of(7) {
                            PART_BYTES + 1 + written
                        } else {
                            300 + written
                        };
                        let address = put(&bed.blobs, &who, &content(size, writer));
                        if written % 3 != 2 {
                            bed.blobs.release(&who, address).unwrap();
                        }
                        if written % 30 == 29 {
                            bed.blobs.release_all(&who).unwrap();
                        }
                        written += 1;
                    }
                    written
                })
            })
            .collect();
        for round in 0..6 {
            let made = create(&bed.home, bed.online(), &bed.file(), true).unwrap();
            assert_eq!(made.left_out, []);
            let other = bed.other(&format!("other-{round}"));
            restore(&bed.file(), &other).unwrap();
            let blobs = opened(&other);
            assert!(blobs.verify_all().is_empty());
            let held = blobs.list(&ada, None, 100);
            assert!(
                stays
                    .iter()
                    .all(|address| held.iter().any(|held| held.address == *address))
            );
            fs::remove_dir_all(other.root()).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        assert!(written > 6, "they wrote meanwhile: {written}");
    });
    // Nothing stays of what was given up while a backup was made.
    for writer in 0..3 {
        bed.blobs
            .release_all(&Principal::stamped(&format!("w{writer}")).unwrap())
            .unwrap();
    }
    let objects = saved(&bed.home)
        .into_keys()
        .filter(|name| name.starts_with("var/blobs/objects/"));
    assert_eq!(objects.count(), 20);
}

/// What is spoilt in the home is left out, and told; everything else is saved.
#[test]
fn what_is_spoilt_is_left_out() {
    let bed = Bed::new();
    let good = put(&bed.blobs, &ada(), &content(100, 1));
    let bad = put(&bed.blobs, &ada(), &content(200, 2));
    let object = bed.home.blobs_dir().join(Named::Object(bad).path());
    fs::write(&object, content(200, 3)).unwrap();
    let made = create(&bed.home, bed.online(), &bed.file(), false).unwrap();
    assert_eq!(made.left_out.iter().map(|left| left.address).collect::<Vec<_>>(), [bad]);
    assert_eq!((made.written.blobs, made.written.left_out), (1, 1));
    let other = bed.other("other");
    restore(&bed.file(), &other).unwrap();
    let held = opened(&other).list(&ada(), None, 10);
    assert_eq!(held.iter().map(|held| held.address).collect::<Vec<_>>(), [good]);
    let again = bed.directory.path().join("again");
    assert_eq!(create_at_rest(&bed.home, &again, false).unwrap().left_out.len(), 1);
}

/// K22: what is spoilt or missing in a backup is refused by name, before anything of it is in place.
#[test]
fn forged_blobs_are_refused() {
    let bed = Bed::new();
    let bytes = content(PART_BYTES + 1, 1);
    let address = put(&bed.blobs, &ada(), &bytes);
    let [object, parts, reference] = [
        Named::Object(address),
        Named::Parts(address),
        Named::Reference(ada(), address),
    ]
    .map(|named| format!("{BLOBS}/{}", named.path().display()));
    let list = fs::read(bed.home.root().join(&parts)).unwrap();
    let mut other = bytes.clone();
    other[PART_BYTES] ^= 1;
    let mut wrong = list.clone();
    wrong[40] ^= 1;
    let upload = format!("{BLOBS}/uploads/0000000000000001/data");
    let refused = |files: &[(&str, &[u8])]| {
        let add = |hostile: Hostile, (name, content): &(&str, &[u8])| hostile.with(name, content);
        let hostile = files.iter().fold(Hostile::new().list(files), add);
        fault(&bed, &hostile.write(&bed)).to_string()
    };
    for (files, expected) in [
        // Another content under that name, with a list that says so.
        (
            vec![(&object, &other), (&parts, &list), (&reference, &vec![])],
            (&object, "another blob"),
        ),
        (vec![(&reference, &vec![])], (&object, "it is not in it")),
        (
            vec![(&object, &bytes), (&reference, &vec![])],
            (&object, "do not belong together"),
        ),
        (vec![(&parts, &list)], (&object, "only the list of its parts")),
        (
            vec![(&object, &bytes), (&parts, &wrong), (&reference, &vec![])],
            (&parts, "is not what was saved"),
        ),
        (
            vec![(&object, &bytes), (&parts, &list), (&reference, &vec![1])],
            (&reference, "an empty file"),
        ),
        (vec![(&upload, &bytes)], (&upload, "no file of the content store")),
    ] {
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        let told = refused(&files);
        assert!(
            told.contains(expected.0.as_str()) && told.contains(expected.1),
            "{expected:?}: {told}"
        );
    }
    // And another content than its own list says.
    let hostile = Hostile::new()
        .list(&[(&object, &bytes), (&parts, &list), (&reference, b"")])
        .with(&object, &other);
    let told = fault(&bed, &hostile.write(&bed)).to_string();
    assert!(
        told.contains(&object) && told.contains("is not what was saved"),
        "{told}"
    );
}
