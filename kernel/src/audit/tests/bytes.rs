//! The form of entries: vectors, strictness, and texts that are made harmless.

use proptest::prelude::*;

use super::*;
use crate::audit::entry::{DecodeError, Place, Stage, View};

fn encoded(entry: &Entry, sequence: u64, wall_ms: u64, link: [u8; 32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry.encode(&Place { sequence, wall_ms }, &link, &mut bytes);
    bytes
}

/// K13: the vectors of `docs/audit.md`, byte for byte.
#[test]
fn canonical_vectors() {
    let first = Entry::kernel(Kind::Boot, "boot").detail("v=1");
    let expected = concat!(
        "0100000000000000", // sequence
        "0068e5cf8b010000", // wall clock
        "010001",           // boot, event, done
        "0000000000000000", // answers
        "0100000000000000", // count
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0d0073797374656d3a6b65726e656c",
        "0000",
        "0400626f6f74",
        "0000",
        "0300763d31",
    );
    assert_eq!(hex::encode(encoded(&first, 1, 1_700_000_000_000, [0; 32])), expected);
    let second = Entry::outcome_of(258, "ada", "child.spawn", Outcome::Failed)
        .capsule("process")
        .resource("/bin/é")
        .detail("a\nb");
    let expected = concat!(
        "0201000000000000",
        "ffffffffffffffff",
        "0c0203",
        "0201000000000000",
        "0100000000000000",
        "abababababababababababababababababababababababababababababababab",
        "0300616461",
        "070070726f63657373",
        "0b006368696c642e737061776e",
        "07002f62696e2fc3a9",
        "0400615c6e62",
    );
    assert_eq!(hex::encode(encoded(&second, 258, u64::MAX, [0xab; 32])), expected);
}

/// K13: numbers and words of kinds and outcomes are in files and scripts.
#[test]
fn kinds_keep_their_numbers() {
    let kinds: Vec<String> = Kind::ALL.iter().map(|kind| format!("{}={kind}", *kind as u8)).collect();
    assert_eq!(
        kinds.join(" "),
        "1=boot 2=stop 3=load 4=decision 5=denial 6=admin 7=spawn 8=child-exit 9=connection 10=file-write 11=store \
         12=outcome 13=prune 14=rotate 15=summary 16=integrity"
    );
    assert!("bot".parse::<Kind>().unwrap_err().contains("child-exit"));
}

/// K13: every encoding but the canonical one is refused, with what is wrong.
#[test]
fn decoding_is_strict() {
    let good = encoded(&entry(1), 7, 8, [9; 32]);
    let view = View::decode(&good).unwrap();
    assert_eq!((view.sequence, view.stage), (7, Stage::Event));
    for end in 0..good.len() {
        assert_eq!(View::decode(&good[..end]), Err(DecodeError::Length), "{end}");
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        View::decode(&bytes).map(drop).unwrap_err()
    };
    assert_eq!(changed(16, 0), DecodeError::Value("kind"));
    assert_eq!(changed(16, 99), DecodeError::Value("kind"));
    assert_eq!(changed(17, 3), DecodeError::Value("stage"));
    assert_eq!(changed(19, 1), DecodeError::Value("stage"), "an event answers nothing");
    assert_eq!(changed(18, 5), DecodeError::Value("outcome"));
    let principal = 67;
    assert_eq!(changed(principal, 200), DecodeError::TooLong("principal"));
    for harmful in [0, b'\n', 0x1b, 0x7f, 0xff] {
        assert_eq!(changed(principal + 2, harmful), DecodeError::Text("principal"));
    }
    let longer = [good.clone(), vec![0]].concat();
    assert_eq!(View::decode(&longer), Err(DecodeError::Length));
}

/// K13: nothing that a guest says makes a second line, moves a cursor, or fills the log.
#[test]
fn texts_are_made_harmless() {
    let said = |text: &str| Entry::new(Kind::Denial, "ada", "x").detail(text).detail;
    assert_eq!(&*said("a\nb\r\tc\\n"), "a\\nb\\r\\tc\\\\n");
    assert_eq!(&*said("\u{1b}[2J\0"), "\\u{1b}[2J\\u{0}");
    assert_eq!(&*said("\u{202e}evil\u{2028}\u{85}"), "\\u{202e}evil\\u{2028}\\u{85}");
    for hidden in [
        '\u{61c}',
        '\u{200b}',
        '\u{200d}',
        '\u{200f}',
        '\u{2060}',
        '\u{2069}',
        '\u{feff}',
        '\u{e0041}',
    ] {
        assert_eq!(
            &*said(&hidden.to_string()),
            format!("\\u{{{:x}}}", u32::from(hidden)),
            "it would not be seen"
        );
        // Nor is it an entry when somebody else writes it so.
        let mut entry = entry(1);
        entry.detail = hidden.to_string().into();
        let bytes = encoded(&entry, 1, 1, [0; 32]);
        assert_eq!(View::decode(&bytes), Err(DecodeError::Text("detail")), "{hidden:?}");
    }
    for (text, length) in [
        ("x".repeat(5000), 1024),
        ("é".repeat(5000), 1023),
        ("\n".repeat(5000), 1023),
    ] {
        let cut = said(&text);
        assert_eq!(cut.len(), length, "{text:.4}");
        assert!(cut.ends_with('…'));
        assert!(!cut.trim_end_matches('…').ends_with('\\') || cut.trim_end_matches('…').ends_with("\\n"));
    }
    assert_eq!(said(&"x".repeat(1024)).len(), 1024, "what fits is not cut");
    let huge = Entry::new(Kind::Denial, &"p".repeat(1 << 20), &"a".repeat(1 << 20))
        .capsule(&"c".repeat(1 << 20))
        .resource(&"r".repeat(1 << 20))
        .detail(&"d".repeat(1 << 20));
    let bytes = encoded(&huge, 1, 1, [0; 32]);
    assert!(bytes.len() <= entry::ENTRY_BYTES_MAX);
    View::decode(&bytes).unwrap();
}

proptest! {
    /// K13: whatever is said, what is written is read again, and is on one line of an export.
    #[test]
    fn whatever_is_said_can_be_read(principal: String, resource: String, detail in "\\PC{0,400}|[\\x00-\\x7f]{0,1500}", count: u64) {
        let entry = Entry::new(Kind::Denial, &principal, "x").resource(&resource).detail(&detail).count(count);
        let bytes = encoded(&entry, 3, 4, [1; 32]);
        let view = View::decode(&bytes).unwrap();
        prop_assert_eq!(view.detail, &*entry.detail);
        let recorded = Recorded::unchained(3, 4, &entry);
        prop_assert!(!serde_json::to_string(&recorded).unwrap().contains('\n'));
        prop_assert!(!recorded.detail.chars().any(char::is_control));
    }

    /// K13: any bytes are an entry or are not, and what is one encodes to the same bytes again.
    #[test]
    fn any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, to: u8) {
        if let Ok(view) = View::decode(&bytes) {
            let mut again = Vec::new();
            view.encode(&mut again);
            prop_assert_eq!(&again, &bytes);
        }
        bytes = encoded(&entry(5), 1, 2, [3; 32]);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(view) = View::decode(&bytes) {
            let mut again = Vec::new();
            view.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// K13: a file of any bytes is verified to be wrong, or torn, and never more.
    #[test]
    fn any_file(bytes in proptest::collection::vec(any::<u8>(), 0..2000), behind: bool) {
        static LOG: std::sync::LazyLock<Log> = std::sync::LazyLock::new(|| filled(1 << 20, 1));
        let copy = copy_of(&LOG.dir());
        let path = copy.path().join("00000001.seg");
        let mut content = if behind { std::fs::read(&path).unwrap() } else { Vec::new() };
        content.extend_from_slice(&bytes);
        std::fs::write(&path, content).unwrap();
        let report = verify(copy.path(), Some(&LOG.key())).unwrap();
        prop_assert!(!report.is_ok() || report.torn_bytes == bytes.len() as u64);
        query::stats(copy.path()).unwrap();
    }
}
