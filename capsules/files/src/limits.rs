//! What a request may cost. All of it lies far below the manifest's fuel, memory and time.

/// Bytes of a file that is decoded whole: to edit it, to search it, or because it is UTF-16.
pub const FILE_BYTES: u64 = 16 << 20;

/// Bytes of a text that is written: what a file's text may have.
pub const TEXT_BYTES: usize = FILE_BYTES as usize;

/// Lines of an answer to `read_text`, when the request does not say, and at most.
pub const LINES: u32 = 2_000;
/// As above, at most.
pub const LINES_MAX: u32 = 100_000;

/// Bytes of an answer to `read_text`, when the request does not say: what a reader can be expected to read.
pub const READ_BYTES: u32 = 256 << 10;
/// As above, at most. A larger answer would be read by nobody.
pub const READ_BYTES_MAX: u32 = 4 << 20;

/// Bytes that `read_text` goes through to find its first line.
pub const SCAN_BYTES: u64 = 256 << 20;

/// Bytes of a file whose hash is told with a part of it: a second of the disk's time.
pub const HASH_BYTES: u64 = 256 << 20;

/// Bytes of an answer to `read_bin`, when the request does not say, and at most.
pub const BINARY_BYTES: u32 = 1 << 20;
/// As above, at most: base64 of it is a third more.
pub const BINARY_BYTES_MAX: u32 = 8 << 20;

/// Bytes at the beginning of a file in which a zero means that it is no text.
pub const BINARY_PROBE_BYTES: usize = 8 << 10;

/// Entries of an answer to `list_dir`, when the request does not say, and at most.
pub const ENTRIES: u32 = 1_000;
/// As above, at most.
pub const ENTRIES_MAX: u32 = 10_000;

/// Bytes of all paths in an answer to `list_dir`.
pub const LISTED_BYTES: usize = 2 << 20;

/// Directories below one another that are gone into. Each is a handle, of which the kernel gives 64.
pub const DEPTH_MAX: u32 = 50;

/// Names that one request looks at, and directories that it opens, before it answers with a part: seconds of the disk's time.
pub const NAMES_VISITED: u32 = 200_000;
/// As above, directories.
pub const DIRECTORIES_VISITED: u32 = 10_000;

/// Bytes of a `.gitignore`, and rules of all of them that are in force at a time: larger ones are passed over.
pub const IGNORE_BYTES: u64 = 64 << 10;
/// As above, rules.
pub const IGNORE_RULES: usize = 5_000;

/// Globs of a request, and bytes of one.
pub const GLOBS: usize = 64;
/// As above, bytes.
pub const GLOB_BYTES: usize = 512;

/// Bytes of a pattern to search for, and of its compiled form.
pub const PATTERN_BYTES: usize = 4 << 10;
/// As above, compiled: some ten thousand states.
pub const PATTERN_COMPILED_BYTES: usize = 512 << 10;

/// Matches of an answer to `search`, when the request does not say, and at most.
pub const MATCHES: u32 = 200;
/// As above, at most.
pub const MATCHES_MAX: u32 = 2_000;

/// Lines before and after a match, at most.
pub const CONTEXT_MAX: u32 = 20;

/// Bytes of a line as it is shown; the rest is left out.
pub const SHOWN_LINE_BYTES: usize = 512;

/// Bytes of all lines that an answer to `search` shows.
pub const SHOWN_BYTES: usize = 1 << 20;

/// Bytes of a line that are searched.
pub const SEARCHED_LINE_BYTES: usize = 64 << 10;

/// Files and bytes that one request to `search` reads before it answers with a part.
pub const SEARCHED_FILES: u32 = 10_000;
/// As above, bytes.
pub const SEARCHED_BYTES: u64 = 64 << 20;

/// Work of one search, in units of about one fuel each, before it answers with a part: a tenth of the manifest's fuel.
pub const SEARCH_WORK: u64 = 4_000_000_000;

/// Replacements of a request to `edit`.
pub const EDITS: usize = 100;

/// Places of an ambiguous replacement that are told.
pub const PLACES: usize = 20;

/// Bytes of a diff in an answer; the rest is left out.
pub const DIFF_BYTES: usize = 32 << 10;
