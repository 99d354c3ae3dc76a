//! Makes inputs: what people wrote down as examples, changed at random, a seed deciding how.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use astrid_tests::chance::{Chance, from_environment};

/// Bytes of an input at most.
const INPUT_BYTES_MAX: usize = 16 << 10;

/// Changes of one input at most.
const CHANGES_MAX: u64 = 6;

/// How long one input may take. Long: what is meant is a loop, and machines are slow.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a short run takes at most, on a machine that is slow: inputs beyond are left out.
const SHORT: Duration = Duration::from_secs(3);

/// Bytes that are the edge of something.
const EDGES: [u8; 16] = *b"\0\n\x1b\x7f\x80\xff\"\\.:/*>{[=";

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = match fs::read_dir(directory) {
        Ok(files) => files.map(|file| file.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    let mut inputs: Vec<Vec<u8>> = files.into_iter().map(|file| fs::read(file).unwrap()).collect();
    inputs.push(Vec::new());
    inputs
}

fn place(chance: &mut Chance, length: usize) -> usize {
    chance.below(length as u64 + 1) as usize
}

/// A part of an input, in its place.
fn part(chance: &mut Chance, input: &[u8]) -> std::ops::Range<usize> {
    let from = place(chance, input.len());
    let most = (input.len() - from).min(64);
    from..from + place(chance, most)
}

fn change(chance: &mut Chance, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
    let at = place(chance, input.len());
    match chance.below(8) {
        0 if at < input.len() => input[at] ^= 1 << chance.below(8),
        1 if at < input.len() => input[at] = EDGES[chance.below(16) as usize],
        2 if at < input.len() => input[at] = chance.next() as u8,
        3 => drop(input.drain(part(chance, input))),
        4 => {
            let again = input[part(chance, input)].to_vec();
            input.splice(at..at, again);
        }
        5 => input.insert(at, chance.next() as u8),
        6 => input.truncate(at),
        _ => {
            let other = &inputs[chance.below(inputs.len() as u64) as usize];
            let taken = other[part(chance, other)].to_vec();
            input.splice(at..at, taken);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

/// Runs a target: on the examples as they are, and then on `inputs` of them changed; or for `ASTRID_FUZZ_SECONDS`, when that is set.
/// `ASTRID_SEED` begins elsewhere.
pub(crate) fn fuzz(name: &str, inputs: u64, target: fn(&[u8])) {
    let examples = corpus(name);
    let seconds = from_environment("ASTRID_FUZZ_SECONDS");
    let mut chance = Chance(from_environment("ASTRID_SEED").unwrap_or(1));
    let began = Instant::now();
    let over = |count: u64| match seconds {
        Some(seconds) => began.elapsed() > Duration::from_secs(seconds),
        None => count >= inputs || began.elapsed() > SHORT,
    };
    let mut count = 0;
    while !over(count) {
        let at = usize::try_from(count).unwrap_or(usize::MAX);
        let input = examples.get(at).cloned().unwrap_or_else(|| {
            let mut input = examples[chance.below(examples.len() as u64) as usize].clone();
            for _ in 0..=chance.below(CHANGES_MAX) {
                change(&mut chance, &mut input, &examples);
            }
            input
        });
        count += 1;
        let begun = Instant::now();
        let ran = catch_unwind(AssertUnwindSafe(|| target(&input)));
        let failed = begun.elapsed() > INPUT_TIME_MAX;
        if failed || ran.is_err() {
            eprintln!("{name}: input {count} is b\"{}\"", input.escape_ascii());
        }
        assert!(!failed, "{name}: an input takes {:?}", begun.elapsed());
        if let Err(panic) = ran {
            resume_unwind(panic);
        }
    }
    eprintln!("{name}: {count} inputs in {:?}", began.elapsed());
}
