//! What a document may cost, in one place.
//!
//! The kernel meters fuel, memory and time of every message, and ends whoever runs past them. These limits lie below
//! those: a document that is too much is answered with a typed error which says in what it is too much, and only what
//! slips through here meets the kernel's.

/// Bytes of a document.
pub const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of an answer: 16 MiB, less what the envelope takes, since a client gets it in one frame.
pub const OUTPUT_BYTES: usize = 16 * 1024 * 1024 - 8 * 1024;

/// Quotes, lists, list items, tables and cells open at one time. Real mail threads reach about 40.
pub const NESTING: usize = 200;

/// Smallest line width that can be asked for, in columns: below it a list in a quote has no room for a word.
pub const WIDTH_MIN: usize = 20;

/// Largest line width that can be asked for, in columns. Whoever wants more wants no wrapping: 0.
pub const WIDTH_MAX: usize = 1_000;

/// Columns left for text, however deep it is indented and however narrow the line.
pub const TEXT_COLUMNS_MIN: usize = 16;

/// Cells of one table: 12 bytes each are kept until it ends.
pub const TABLE_CELLS: usize = 1_000_000;

/// Columns a cell may be wide in a table before the table is taken for page layout and written as paragraphs.
pub const CELL_COLUMNS: usize = 1_000;

/// Columns a cell is padded to when lines are not wrapped: one long cell must not multiply by the rows.
pub const PAD_COLUMNS: usize = 60;

/// Columns a table's column has at most when lines are wrapped, for the same reason.
pub const WRAP_COLUMNS: usize = 120;

/// Columns below which a table's column is not squeezed; a table that needs less is written as plain rows.
pub const COLUMN_MIN: usize = 5;

/// Bytes of a link's target that are shown. Longer ones are data rather than addresses.
pub const LINK_BYTES: usize = 2_048;

/// Bytes of a document's title.
pub const TITLE_BYTES: usize = 1_024;

/// Bytes at the start of an HTML document in which its encoding is looked for (WHATWG HTML, 13.2.3.2).
pub const META_BYTES: usize = 1_024;

/// Nodes that a Markdown document can have in its parse tree, as its marks and lines tell. A node costs 36 bytes, three times that
/// while the tree grows. Documents of 16 MiB with a link in every line have 3.7 million.
pub const MARKDOWN_NODES: usize = 4_000_000;

/// Containers that one line of Markdown may open; thematic breaks such as `* * *` look like these, too.
pub const MARKDOWN_LINE_CONTAINERS: usize = 256;

/// Objects of a PDF file: its cross-reference table costs about 40 bytes each.
pub const PDF_OBJECTS: usize = 1_000_000;

/// Arrays and dictionaries of a PDF file within one another; real ones nest about ten.
pub const PDF_NESTING: usize = 100;

/// Pages of a PDF file: a page costs about 2 KiB while the file is open.
pub const PDF_PAGES: usize = 20_000;

/// Bytes of a PDF's object and cross-reference streams, unpacked, all together: they stay in memory.
pub const PDF_OBJECT_STREAM_BYTES: usize = 64 * 1024 * 1024;

/// Bytes of one page's content or of one form in it, unpacked.
pub const PDF_CONTENT_BYTES: usize = 64 * 1024 * 1024;

/// Bytes unpacked for text in all: contents, forms and character maps. A form drawn a thousand times counts as often.
pub const PDF_UNPACKED_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of one font's character map, unpacked. The largest real ones, for Chinese, have about 400 KiB.
pub const PDF_CMAP_BYTES: usize = 2 * 1024 * 1024;

/// Drawing instructions interpreted in all.
pub const PDF_OPERATORS: usize = 20_000_000;

/// Forms drawn in all: each is unpacked and read anew.
pub const PDF_FORMS: usize = 50_000;

/// Forms within forms; real files nest three or four.
pub const PDF_FORM_DEPTH: usize = 16;

/// Saved graphics states (`q`) open at one time.
pub const PDF_STATES: usize = 1_024;

/// Fonts kept decoded at one time; beyond it they are decoded again when they are used again.
pub const PDF_FONTS: usize = 256;

/// Fonts decoded in all: each costs up to 50 µs.
pub const PDF_FONT_READS: usize = 100_000;

/// Characters that one code of a font stands for. Ligatures have three or four.
pub const PDF_CODE_CHARS: usize = 32;

/// Filters one stream may pass through.
pub const PDF_FILTERS: usize = 8;

/// Widths taken from one font's table: one for each code of two bytes.
pub const PDF_WIDTHS: usize = 65_536;
