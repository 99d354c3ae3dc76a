//! The content store as capsules reach it: what is kept and refused, what is recorded of it, what it takes, and who waits for it. The test guest
//! `clerk` does one call after another.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

use std::fs;
use std::path::PathBuf;

use astrid_kernel::blob::pin::Named;
use astrid_kernel::bus::message::Body;
use astrid_kernel::config::BlobsConfig;
use astrid_kernel::store::memory::Memory;
use astrid_tests::bed::{Bed, Settings, answer};
use astrid_wire::manifest::{ByteSize, Time};
use astrid_wire::{Principal, Quota};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// What lasts over several lives of a kernel.
struct House {
    directory: tempfile::TempDir,
    memory: Memory,
    blobs: BlobsConfig,
}

fn who(name: &str) -> Principal {
    Principal::stamped(name).unwrap()
}

impl House {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            memory: Memory::default(),
            blobs: BlobsConfig::default(),
        }
    }

    async fn live(&self) -> Bed {
        let settings = Settings {
            home: Some(self.directory.path().join("h")),
            memory: self.memory.clone(),
            blobs: self.blobs,
            ..Settings::default()
        };
        Bed::with(&["clerk"], settings).await
    }
}

fn limit(bed: &Bed, name: &str, storage: Option<u64>) {
    let quota = Quota {
        storage: storage.map(ByteSize),
        ..Quota::default()
    };
    bed.host.ledger.set_quota(&who(name), &quota);
}

async fn steps(bed: &Bed, name: &str, steps: Value) -> Vec<Value> {
    let done = bed.ask_as(name, "clerk.v1.do.steps", Body::json(&steps)).await;
    answer(done).as_array().unwrap().clone()
}

async fn step(bed: &Bed, name: &str, step: Value) -> Value {
    steps(bed, name, json!([step])).await.remove(0)
}

async fn keep(bed: &Bed, name: &str, bytes: u64, seed: u8) -> Value {
    step(bed, name, json!({ "keep-blob": { "bytes": bytes, "seed": seed } })).await
}

#[track_caller]
fn error(value: &Value) -> &str {
    value["error"]
        .as_str()
        .unwrap_or_else(|| panic!("no error, but {value}"))
}

/// Kind, who, by what, on what, how it went, and what else, of what was recorded of these actions.
fn recorded(bed: &Bed, actions: &[&str]) -> Vec<[String; 6]> {
    let all = bed.host.audit.recorded();
    let of = all.iter().filter(|entry| actions.contains(&&*entry.action));
    of.map(|entry| {
        [
            entry.kind.to_string(),
            entry.principal.to_string(),
            entry.capsule.to_string(),
            entry.resource.to_string(),
            entry.outcome.to_string(),
            entry.detail.to_string(),
        ]
    })
    .collect()
}

fn object(bed: &Bed, address: &str) -> PathBuf {
    let named = Named::Object(address.parse().unwrap());
    bed.host.home.blobs_dir().join(named.path())
}

/// A8: blobs of any size come back; an upload goes on in another life of the daemon; K13: what is kept and given up is recorded with its address,
/// whose it is and how much, before it happens.
#[tokio::test]
async fn kept_recorded_and_given_up() {
    let house = House::new();
    let bed = house.live().await;
    for (bytes, part) in [(0, 10), (70_000, 9_000), (3 * MIB + 7, 1 << 20)] {
        let address = keep(&bed, "ada", bytes, 1).await;
        let fetch = json!({ "fetch": { "address": address, "part": part } });
        assert_eq!(step(&bed, "ada", fetch.clone()).await, bytes);
        assert_eq!(error(&step(&bed, "bob", fetch.clone()).await), "NotFound");
        let release = json!({ "release": { "address": address } });
        assert_eq!(error(&step(&bed, "bob", release.clone()).await), "NotFound");
        assert_eq!(step(&bed, "ada", release).await, Value::Null);
        assert_eq!(error(&step(&bed, "ada", fetch).await), "NotFound");
        let address = address.as_str().unwrap().to_owned();
        let detail = format!("bytes={bytes}");
        let wanted = ["store", "ada", "clerk", &address, "done", &detail].map(str::to_owned);
        let told = recorded(&bed, &["blob.keep", "blob.release"]);
        assert_eq!(told[told.len() - 2..], [wanted.clone(), wanted]);
    }
    let begun = step(&bed, "ada", json!({ "begin": { "bytes": 2 * MIB, "expected": null } })).await;
    let half = json!({ "append": { "upload": begun, "bytes": MIB + 5, "seed": 3, "part": 300_000 } });
    assert_eq!(step(&bed, "ada", half).await, MIB + 5);
    let finish = json!({ "finish": { "upload": begun } });
    assert!(error(&step(&bed, "ada", finish.clone()).await).starts_with("Incomplete"));
    drop(bed);
    let bed = house.live().await;
    let whole = json!({ "append": { "upload": begun, "bytes": 2 * MIB, "seed": 3, "part": 1 << 20 } });
    let done = steps(&bed, "ada", json!([whole, finish])).await;
    let address = done[1].as_str().unwrap();
    let bytes: Vec<u8> = (0..2 * MIB).map(|at| (at % 251) as u8 ^ 3).collect();
    assert_eq!(address, blake3::hash(&bytes).to_hex().as_str());
    assert_eq!(recorded(&bed, &["blob.keep"]).len(), 1);
}

/// The limits that an operator sets hold, and each refusal is recorded with the one that refused.
#[tokio::test]
async fn limits_are_the_operators() {
    let mut house = House::new();
    house.blobs = BlobsConfig {
        max_size: ByteSize(MIB),
        max_total: ByteSize(2 * MIB),
        max_count: 4,
        max_uploads: 2,
        upload_age: Time(std::time::Duration::from_secs(3600)),
    };
    let bed = house.live().await;
    let begin = |bytes: u64| json!({ "begin": { "bytes": bytes, "expected": null } });
    assert_eq!(
        error(&step(&bed, "ada", begin(MIB + 1)).await),
        format!("TooLarge({MIB})")
    );
    let done = steps(&bed, "ada", json!([begin(MIB), begin(MIB), begin(1)])).await;
    assert!(
        error(&done[2]).starts_with("NoSpace(\"0 bytes are free in the store"),
        "{done:?}"
    );
    assert_eq!(error(&step(&bed, "ada", begin(0)).await), "TooMany(2)");
    let done = steps(&bed, "bob", json!([begin(0), begin(0)])).await;
    assert!(done.iter().all(Value::is_u64), "{done:?}");
    assert!(error(&step(&bed, "eve", begin(0)).await).starts_with("NoSpace(\"the store has 4 blobs"));
    let abort = json!({ "abort": { "upload": done[0] } });
    let wrong = steps(
        &bed,
        "bob",
        json!([abort, { "begin": { "bytes": 0, "expected": "0".repeat(64) } }]),
    )
    .await;
    let mismatch = step(&bed, "bob", json!({ "finish": { "upload": wrong[1] } })).await;
    assert!(error(&mismatch).starts_with("Mismatch"), "{mismatch}");
    let told = recorded(&bed, &["blob.refused"]);
    let rules: Vec<(&str, &str, &str)> = told
        .iter()
        .map(|[kind, who, _, _, _, detail]| (kind.as_str(), who.as_str(), detail.split(':').next().unwrap()))
        .collect();
    let wanted = [
        ("denial", "ada", "blobs.max_size"),
        ("denial", "ada", "blobs.max_total"),
        ("denial", "ada", "blobs.max_uploads"),
        ("denial", "eve", "blobs.max_count"),
        ("denial", "bob", "blob.mismatch"),
    ];
    assert_eq!(rules, wanted);
    assert_eq!(recorded(&bed, &["blob.keep"]), [[""; 6]; 0]);
}

/// What is spoilt on disk is never served, is the kernel's entry in the log, once, and is repaired by who writes it anew.
#[tokio::test]
async fn what_is_spoilt_is_told() {
    let house = House::new();
    let bed = house.live().await;
    for bytes in [1000, MIB + 1000] {
        let address = keep(&bed, "ada", bytes, 5).await;
        let text = address.as_str().unwrap();
        let mut content = fs::read(object(&bed, text)).unwrap();
        content[999] ^= 1;
        fs::write(object(&bed, text), content).unwrap();
        let fetch = json!({ "fetch": { "address": address, "part": 100_000 } });
        for _ in 0..2 {
            assert!(error(&step(&bed, "ada", fetch.clone()).await).starts_with("Corrupted"));
        }
        let told = recorded(&bed, &["blob.corrupted"]);
        let told: Vec<&[String; 6]> = told.iter().filter(|entry| entry[3] == text).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0][..2], ["integrity", "system:kernel"]);
        assert_eq!(told[0][4], "failed");
        assert_eq!(keep(&bed, "ada", bytes, 5).await, address);
        assert_eq!(step(&bed, "ada", fetch).await, bytes);
    }
}

/// One of three ways to store something.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    File,
    Blob,
    Table,
}

const WAYS: [Way; 3] = [Way::File, Way::Blob, Way::Table];

impl Way {
    async fn take(self, bed: &Bed, bytes: u64) -> Value {
        match self {
            Self::File => step(bed, "ada", json!({ "fill": { "path": "home://f", "bytes": bytes } })).await,
            Self::Blob => keep(bed, "ada", bytes, 9).await,
            Self::Table => step(bed, "ada", json!({ "store": { "key": "k", "bytes": bytes } })).await,
        }
    }

    async fn give_back(self, bed: &Bed, bytes: u64) {
        let done = match self {
            Self::File => {
                step(
                    bed,
                    "ada",
                    json!({ "remove": { "path": "home://f", "recursive": false } }),
                )
                .await
            }
            Self::Blob => {
                let content: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8 ^ 9).collect();
                let address = blake3::hash(&content).to_hex().to_string();
                step(bed, "ada", json!({ "release": { "address": address } })).await
            }
            Self::Table => step(bed, "ada", json!({ "unstore": { "key": "k" } })).await,
        };
        assert_eq!(done, Value::Null, "{self:?}");
    }
}

/// Returns when all that was committed is on disk.
async fn on_disk(bed: &Bed) {
    let number = bed.host.ledger.forget(&who("nobody")).unwrap();
    let epoch = bed.host.store.epoch();
    bed.host.store.settled(number, epoch).await.unwrap();
}

/// K12: what is stored is one account. Whatever one of files, blobs and the table takes the others do not have, in this life of the daemon and in the
/// next one; what does not fit is refused, with what and when; what is given back is there at once; and nobody else is held by it.
#[tokio::test]
async fn storage_is_one_account() {
    const SIZE: u64 = 600 << 10;
    for restarted in [false, true] {
        let house = House::new();
        let mut bed = house.live().await;
        limit(&bed, "ada", Some(MIB));
        for first in WAYS {
            for second in WAYS.into_iter().filter(|second| *second != first) {
                let at = format!("{first:?}, then {second:?}, restarted: {restarted}");
                let taken = first.take(&bed, SIZE).await;
                assert!(taken.get("error").is_none(), "{at}: {taken}");
                if restarted {
                    on_disk(&bed).await;
                    drop(bed);
                    bed = house.live().await;
                    limit(&bed, "ada", Some(MIB));
                }
                let refused = second.take(&bed, SIZE).await;
                let text = refused["error"].as_str().unwrap_or_else(|| panic!("{at}: {refused}"));
                assert!(text.contains("NoSpace") || text.contains("Unavailable"), "{at}: {text}");
                if second != Way::File {
                    let words =
                        "ada is over its quota storage: 1048576 allowed, it frees when something of it is deleted";
                    assert!(text.contains(words), "{at}: {text}");
                }
                if second == Way::File {
                    // What could be written of it was.
                    second.give_back(&bed, SIZE).await;
                }
                first.give_back(&bed, SIZE).await;
                let taken = second.take(&bed, SIZE).await;
                assert!(taken.get("error").is_none(), "{at}: {taken}");
                second.give_back(&bed, SIZE).await;
            }
        }
        let told = recorded(&bed, &["quota.exceeded"]);
        assert!(told.iter().all(|[kind, who, ..]| kind == "denial" && who == "ada") && !told.is_empty());
        let usage = bed.host.ledger.usage(&who("ada"), || 0).unwrap().unwrap();
        assert!(usage.storage_bytes.unwrap() < 100 << 10, "{:?}", usage.storage_bytes);
        let others = keep(&bed, "bob", 2 * MIB, 1).await;
        assert!(others.is_string(), "{others}");
    }
}

/// What was announced counts before it is written; twice the same counts once; and what was stored while there was no limit counts when there is one.
#[tokio::test]
async fn what_counts_when() {
    const SIZE: u64 = 600 << 10;
    let house = House::new();
    let bed = house.live().await;
    limit(&bed, "ada", Some(MIB));
    let begun = step(&bed, "ada", json!({ "begin": { "bytes": SIZE, "expected": null } })).await;
    assert!(error(&Way::Table.take(&bed, SIZE).await).contains("quota storage"));
    assert_eq!(
        step(&bed, "ada", json!({ "abort": { "upload": begun } })).await,
        Value::Null
    );
    for _ in 0..3 {
        assert!(keep(&bed, "ada", 400 << 10, 1).await.is_string());
    }
    limit(&bed, "ada", None);
    assert!(Way::File.take(&bed, 2 * MIB).await.is_u64());
    limit(&bed, "ada", Some(2 * MIB + (512 << 10)));
    assert!(error(&Way::Table.take(&bed, SIZE).await).contains("quota storage"));
    assert!(error(&Way::Blob.take(&bed, SIZE).await).contains("quota storage"));
    Way::File.give_back(&bed, 0).await;
    assert_eq!(Way::Table.take(&bed, SIZE).await, Value::Null);
}

/// Who waits for a disk does not hold up the others of its thread.
#[tokio::test]
async fn others_go_on_while_one_waits() {
    let house = House::new();
    let bed = house.live().await;
    let others = async || step(&bed, "bob", json!({ "store": { "key": "k", "bytes": 10 } })).await;
    let address = keep(&bed, "ada", MIB, 1).await;
    // Whoever opens a pipe to read waits until somebody writes.
    let path = object(&bed, address.as_str().unwrap());
    fs::remove_file(&path).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    let mut reading = std::pin::pin!(step(
        &bed,
        "ada",
        json!({ "fetch": { "address": address, "part": 10 } })
    ));
    tokio::select! {
        biased;
        read = &mut reading => panic!("it did not wait: {read}"),
        done = others() => assert_eq!(done, Value::Null),
    }
    drop(fs::OpenOptions::new().write(true).open(&path).unwrap());
    assert!(error(&reading.await).starts_with("Corrupted"));
    // And whoever announces a blob waits for the write of a file of the same principal that is being counted.
    limit(&bed, "ada", Some(100 * MIB));
    let (files, account) = (&bed.host.files, bed.host.ledger.account(&who("ada")));
    let owned = files.of(&who("ada"));
    let spending = owned.spend(files, &account).unwrap();
    let mut keeping = std::pin::pin!(keep(&bed, "ada", 100, 2));
    tokio::select! {
        biased;
        kept = &mut keeping => panic!("it did not wait: {kept}"),
        done = others() => assert_eq!(done, Value::Null),
    }
    drop(spending);
    assert!(keeping.await.is_string());
}
