//! Rotation, losing and finding again.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::LazyLock;

use super::*;

const DAY: u64 = 86_400;

struct Bed {
    _directory: tempfile::TempDir,
    path: PathBuf,
    metrics: Arc<Metrics>,
    packer: Arc<Packer>,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            path: directory.path().join("deep/er/out.log"),
            _directory: directory,
            metrics: Arc::default(),
            packer: Arc::default(),
        }
    }

    fn try_open(&self, rotation: Rotation) -> Result<LogFile, SinkError> {
        let sink = FileSink {
            path: self.path.clone(),
            rotation,
        };
        LogFile::open(&sink, Arc::clone(&self.packer), Arc::clone(&self.metrics))
    }

    fn open(&self, bytes_max: u64, keep: u32) -> LogFile {
        self.try_open(rotation(bytes_max, keep)).unwrap()
    }

    /// What stands in `NAME`, `NAME.1` and so on.
    fn files(&self) -> Vec<Vec<u8>> {
        let rotated = (1..).map(|number| aside(&self.path, number, false));
        std::iter::once(self.path.clone())
            .chain(rotated)
            .map_while(|name| fs::read(name).ok())
            .collect()
    }

    fn names(&self) -> usize {
        fs::read_dir(self.path.parent().unwrap()).unwrap().count()
    }

    fn text(&self) -> String {
        String::from_utf8(fs::read(&self.path).unwrap()).unwrap()
    }
}

fn rotation(bytes_max: u64, keep: u32) -> Rotation {
    Rotation {
        bytes_max,
        keep,
        ..Rotation::default()
    }
}

fn at(wall_seconds: u64) -> Now {
    Now {
        wall_seconds,
        instant: Instant::now(),
    }
}

/// From when on time is counted, whatever the machine does meanwhile.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn later(seconds: u64) -> Now {
    Now {
        wall_seconds: DAY,
        instant: *BEGUN + Duration::from_secs(seconds),
    }
}

/// A16: rotation by size. 100 times what all files hold, in pieces of odd lengths: every file is full to the line, and the end
/// of what was written is there whole.
#[test]
fn lines_are_never_cut_and_files_never_larger() {
    let bed = Bed::new();
    let mut log = bed.open(4_096, 3);
    let text: String = (0..160_000).map(|number| format!("line {number:>4}\n")).collect();
    for chunk in text.as_bytes().chunks(3_331) {
        log.write(chunk, at(DAY));
        assert!(log.current.as_ref().unwrap().length <= 4_096);
    }
    let files = bed.files();
    assert_eq!((files.len(), bed.names()), (4, 4));
    for file in &files[1..] {
        // A chunk's part that does not fit is cut at its last line, so less than a line stays free.
        assert!(file.len() <= 4_096 && file.len() > 4_096 - 12, "{}", file.len());
        assert!(file.ends_with(b"\n") && file.starts_with(b"line "));
    }
    let kept: Vec<u8> = files.into_iter().rev().flatten().collect();
    assert!(text.as_bytes().ends_with(&kept));
    assert_eq!(bed.metrics.child_output_lost.get(), 0);
    assert!(bed.metrics.child_log_rotations.get() >= text.len() as u64 / 4_096);
}

/// A16: without line ends it is cut hard, and no file is larger than its limit.
#[test]
fn what_has_no_lines_is_cut_hard() {
    let bed = Bed::new();
    let mut log = bed.open(4_096, 2);
    log.write(b"a line\n", at(DAY));
    for _ in 0..100 {
        log.write(&[b'x'; 1_000], at(DAY));
    }
    let lengths: Vec<usize> = bed.files().iter().map(Vec::len).collect();
    assert_eq!(lengths, [100_007 % 4_096, 4_096, 4_096]);
    assert_eq!(bed.metrics.child_log_rotations.get(), 100_007 / 4_096);
    log.write(&vec![b'y'; 1 << 20], at(DAY));
    assert!(bed.files().iter().all(|file| file.len() <= 4_096) && bed.names() == 3);
}

#[test]
fn keeping_none_empties_the_file() {
    let bed = Bed::new();
    let mut log = bed.open(4_096, 0);
    for _ in 0..100 {
        log.write(&[b'x'; 1_000], at(DAY));
    }
    assert_eq!((bed.names(), bed.files()[0].len()), (1, 100_000 % 4_096));
}

/// A16: daily and hourly, also when the daemon was away over midnight.
#[test]
fn another_day_is_another_file() {
    for (every, before, same, after) in [
        (Period::Day, DAY * 3, DAY * 4 - 1, DAY * 4),
        (Period::Hour, 3_600 * 5, 3_600 * 6 - 1, 3_600 * 6),
    ] {
        let bed = Bed::new();
        let rotation = Rotation {
            every: Some(every),
            ..Rotation::default()
        };
        let mut log = bed.try_open(rotation).unwrap();
        log.write(b"1", at(before));
        log.write(b"2\n", at(same));
        assert_eq!(bed.files(), [b"12\n"]);
        log.write(b"3\n", at(after));
        assert_eq!(bed.files(), [&b"3\n"[..], b"12\n"]);
        // A clock that is set back rotates nothing.
        log.write(b"4\n", at(before));
        assert_eq!(bed.files().len(), 2);
        drop(log);
        // As if it were of long ago.
        let file = File::options().write(true).open(&bed.path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(before)).unwrap();
        let mut log = bed.try_open(rotation).unwrap();
        log.write(b"5\n", at(same));
        assert_eq!(bed.files().len(), 2);
        log.current.as_mut().unwrap().written_seconds = before;
        log.write(b"6\n", at(after));
        assert_eq!(bed.files()[0], b"6\n");
        assert_eq!(bed.files().len(), 3);
    }
}

/// A16: optional compression; nothing is lost by it, and what is left uncompressed by a killed daemon is done by the next.
#[test]
fn rotated_files_are_compressed() {
    let bed = Bed::new();
    let text: String = (0..2_000).map(|number| format!("line {number:>4}\n")).collect();
    let mut log = bed.open(4_096, 20);
    for chunk in text.as_bytes().chunks(1_000) {
        log.write(chunk, at(DAY));
    }
    drop(log);
    let rotated = bed.files().len() - 1;
    fs::write(bed.path.with_file_name(".out.log.packing"), "of one that was killed").unwrap();
    let compressing = Rotation {
        compress: true,
        ..rotation(4_096, 20)
    };
    let mut log = bed.try_open(compressing).unwrap();
    bed.packer.idle();
    assert_eq!((bed.files().len(), bed.names()), (1, 1 + rotated));
    log.write(text.as_bytes(), at(DAY));
    bed.packer.idle();
    assert_eq!(bed.files().len(), 1);
    let mut all = Vec::new();
    for number in (1..=20).rev() {
        let file = File::open(aside(&bed.path, number, true)).ok();
        file.map(|file| flate2::read::GzDecoder::new(file).read_to_end(&mut all).unwrap());
    }
    all.extend(fs::read(&bed.path).unwrap());
    assert_eq!(all, format!("{text}{text}").as_bytes());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&aside(&bed.path, 1, true)), 0o600);
    assert_eq!((mode(&bed.path), mode(bed.path.parent().unwrap())), (0o600, 0o700));
}

/// A full disk: nothing waits and nothing grows, it is counted, and said once there is room.
#[test]
fn what_the_disk_does_not_take_is_counted_and_admitted() {
    let bed = Bed::new();
    let mut log = bed.open(1 << 20, 2);
    log.write(b"half a li", at(DAY));
    let good = std::mem::replace(
        &mut log.current.as_mut().unwrap().file,
        File::options().append(true).open("/dev/full").unwrap(),
    );
    for _ in 0..100 {
        log.write(&[b'x'; 1_000], at(DAY));
    }
    assert_eq!(bed.metrics.child_output_lost.get(), 100_000);
    log.current.as_mut().unwrap().file = good;
    log.write(b"and on\n", at(DAY));
    log.write(b"and on\n", at(DAY));
    let note = "[astrid: 100000 bytes were lost: No space left on device]";
    assert_eq!(bed.text(), format!("half a li\n{note}\nand on\nand on\n"));
    assert_eq!(bed.metrics.child_output_lost.get(), 100_000);
}

/// A directory that lets nothing be put aside: the file stays below its limit.
#[test]
fn a_file_that_cannot_be_rotated_does_not_grow() {
    let bed = Bed::new();
    let mut log = bed.open(4_096, 1);
    // A directory in the way, which is not empty.
    fs::create_dir_all(aside(&bed.path, 1, false).join("x")).unwrap();
    for _ in 0..100 {
        log.write(&[b'x'; 1_000], at(DAY));
    }
    assert_eq!(fs::metadata(&bed.path).unwrap().len(), 4_096);
    assert_eq!(bed.metrics.child_output_lost.get(), 100_000 - 4_096);
    fs::remove_dir_all(aside(&bed.path, 1, false)).unwrap();
    log.write(b"on\n", at(DAY));
    let said = bed.text();
    assert!(
        said.starts_with("[astrid: 95904 bytes were lost: ") && said.ends_with("]\non\n"),
        "{said}"
    );
}

#[test]
fn a_file_that_somebody_took_away_is_made_anew() {
    let bed = Bed::new();
    let mut log = bed.open(1 << 20, 2);
    log.write(b"1\n", later(0));
    fs::rename(&bed.path, bed.path.with_extension("taken")).unwrap();
    log.write(b"2\n", later(0));
    assert!(!bed.path.exists(), "looked for again sooner than said");
    log.write(b"3\n", later(2));
    assert_eq!(bed.text(), "3\n");
    fs::remove_dir_all(bed.path.parent().unwrap()).unwrap();
    log.write(b"45\n", later(4));
    assert_eq!(bed.metrics.child_output_lost.get(), 3);
    fs::create_dir_all(bed.path.parent().unwrap()).unwrap();
    log.write(b"6\n", later(4));
    assert_eq!(
        bed.text(),
        "[astrid: 3 bytes were lost: No such file or directory]\n6\n"
    );
    // Emptied: it is not rotated before it is full again.
    log.write(&vec![b'x'; 1 << 19], later(4));
    fs::write(&bed.path, "").unwrap();
    log.write(&vec![b'x'; 1 << 20], later(6));
    assert_eq!(bed.files().len(), 1);
}

#[test]
fn fewer_are_kept_from_the_next_opening_on() {
    let bed = Bed::new();
    bed.open(4_096, 8).write(&vec![b'x'; 100_000], at(DAY));
    assert_eq!(bed.names(), 9);
    drop(bed.open(4_096, 2));
    assert_eq!(bed.names(), 3);
}

#[test]
fn what_is_no_log_file_is_refused_with_its_place() {
    let bed = Bed::new();
    for bytes_max in [0, 4_095, (1 << 30) + 1, u64::MAX] {
        assert!(matches!(
            bed.try_open(rotation(bytes_max, 1)),
            Err(SinkError::Bytes { .. })
        ));
    }
    assert!(matches!(
        bed.try_open(rotation(4_096, 1_001)),
        Err(SinkError::Keep { keep: 1_001 })
    ));
    drop(bed.open(4_096, 1));
    fs::remove_file(&bed.path).unwrap();
    let refused = || match bed.try_open(rotation(4_096, 1)) {
        Err(error @ SinkError::Open { .. }) => assert!(error.hint().unwrap().contains("out.log")),
        other => panic!("{other:?}"),
    };
    std::os::unix::fs::symlink("/etc/hostname", &bed.path).unwrap();
    refused();
    fs::remove_file(&bed.path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &bed.path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    refused();
    fs::remove_file(&bed.path).unwrap();
    fs::create_dir(&bed.path).unwrap();
    refused();
    let relative = FileSink {
        path: "out.log".into(),
        rotation: Rotation::default(),
    };
    assert!(matches!(check(&relative), Err(SinkError::Path { .. })));
}
