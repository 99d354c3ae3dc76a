//! Compiled code is used only whole, ours and for this engine; what is in its place otherwise is not.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::capsule::bundle::tests::{bundle, component};

fn home() -> (tempfile::TempDir, Home, RuntimeKey) {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::resolve(Some(&directory.path().join("h"))).unwrap();
    home.create().unwrap();
    let key = RuntimeKey::open(&home).unwrap();
    (directory, home, key)
}

fn aot_of(home: &Home, key: &RuntimeKey) -> Aot {
    Aot::open(
        engine::engine().unwrap(),
        home,
        key,
        Compiler::new("/nonexistent".into(), vec![]),
    )
}

/// Code made for the least processor loads on this one.
#[tokio::test]
async fn embedded_code_is_used() {
    let (_directory, home, key) = home();
    let code = precompile(&component(&[])).unwrap().leak();
    let aot = aot_of(&home, &key);
    let loaded = aot
        .load(&bundle("a", "").with_precompiled(Some(code)))
        .await
        .ok()
        .unwrap();
    assert_eq!(loaded.source, Source::Embedded);
}

#[tokio::test]
async fn embedded_code_of_another_engine_is_not_used() {
    let (_directory, home, key) = home();
    let other = Engine::new(engine::config().consume_fuel(false)).unwrap();
    let code = other.precompile_component(&component(&[])).unwrap().leak();
    let error = aot_of(&home, &key)
        .load(&bundle("a", "").with_precompiled(Some(code)))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, CompileError::NotStarted(_)), "{error}");
}

#[test]
fn a_cached_file_is_used_only_whole_and_in_its_place() {
    let (_directory, home, key) = home();
    let aot = aot_of(&home, &key);
    let (first, second) = (aot.cache.key(&blake3::hash(b"1")), aot.cache.key(&blake3::hash(b"2")));
    let code = Trusted::compiled(aot.cache.engine.precompile_component(&component(&[])).unwrap());
    assert!(aot.cache.get(&first).is_none());
    aot.cache.put(&first, &code).unwrap();
    assert!(aot.cache.get(&first).is_some());

    let path = aot.cache.path(&first);
    let good = fs::read(&path).unwrap();
    let mut damaged = [good.clone(), good.clone(), good.clone()];
    damaged[0].truncate(good.len() - 1);
    damaged[1].truncate(MAC_BYTES - 1);
    damaged[2][MAC_BYTES + 5] ^= 1;
    for content in damaged.into_iter().chain([vec![], code.0.to_vec()]) {
        fs::write(&path, content).unwrap();
        assert!(aot.cache.get(&first).is_none());
    }
    // Another content's file under this name.
    fs::write(aot.cache.path(&second), &good).unwrap();
    assert!(aot.cache.get(&second).is_none());
    // The same home under another runtime key.
    fs::write(&path, &good).unwrap();
    assert!(aot.cache.get(&first).is_some());
    fs::remove_file(home.keys_dir().join("runtime.key")).unwrap();
    let stranger = aot_of(&home, &RuntimeKey::open(&home).unwrap());
    assert!(stranger.cache.get(&first).is_none());
}

#[test]
fn a_link_or_a_pipe_in_its_place_is_not_read() {
    let (directory, home, key) = home();
    let cache = aot_of(&home, &key).cache;
    let entry = cache.key(&blake3::hash(b"1"));
    let code = Trusted::compiled(cache.engine.precompile_component(&component(&[])).unwrap());
    cache.put(&entry, &code).unwrap();
    let aside = directory.path().join("aside");
    fs::rename(cache.path(&entry), &aside).unwrap();
    std::os::unix::fs::symlink(&aside, cache.path(&entry)).unwrap();
    assert!(cache.get(&entry).is_none());
    fs::remove_file(cache.path(&entry)).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(cache.path(&entry))
        .status()
        .unwrap();
    assert!(made.success());
    assert!(cache.get(&entry).is_none());
}

#[test]
fn keys_differ_by_content_and_by_engine() {
    let (_directory, home, key) = home();
    let one = aot_of(&home, &key).cache;
    let two = Aot::open(
        Engine::new(engine::config().cranelift_nan_canonicalization(false)).unwrap(),
        &home,
        &key,
        Compiler::new("/nonexistent".into(), vec![]),
    )
    .cache;
    let contents = [blake3::hash(b"1"), blake3::hash(b"2")];
    let keys: std::collections::HashSet<Key> = contents
        .iter()
        .flat_map(|content| [one.key(content), two.key(content)])
        .collect();
    assert_eq!(keys.len(), 4);
    assert_eq!(one.key(&contents[0]), aot_of(&home, &key).cache.key(&contents[0]));
}

#[test]
fn the_least_used_goes_first_and_half_written_ones_at_once() {
    let (_directory, home, _key) = home();
    let directory = home.cache_dir().join("aot");
    prepare(&directory).unwrap();
    let now = SystemTime::now();
    for (name, age) in [("old.code", 300), ("used.code", 1), ("new.code", 2), ("kept.txt", 900)] {
        fs::write(directory.join(name), [0; 10]).unwrap();
        let file = File::open(directory.join(name)).unwrap();
        file.set_modified(now - Duration::from_secs(age)).unwrap();
    }
    fs::write(directory.join(".x.tmp"), "").unwrap();
    prepare(&directory).unwrap();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    prune(&directory, 2, 1000).unwrap();
    assert_eq!(names(), ["kept.txt", "new.code", "used.code"]);
    prune(&directory, 2, 19).unwrap();
    assert_eq!(names(), ["kept.txt", "used.code"]);
}
