//! Any bytes: an answer, never a panic, and never more than the limits allow. A panic here would be a fault of the capsule.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use proptest::prelude::*;
use support::Pdf;
use text::encoding::{Kind, decode};
use text::layout::display_width;
use text::options::Options;
use text::{html, markdown, pdf};

/// Options in all their forms.
fn options() -> impl Strategy<Value = Options> {
    (prop_oneof![Just(0_u32), 20_u32..120], 0_usize..3, 0_usize..3).prop_map(|(width, links, tables)| {
        let mut options = Options::default();
        options.set_width(width).unwrap();
        options.set("links", ["inline", "footnote", "omit"][links]).unwrap();
        options.set("tables", ["grid", "plain", "omit"][tables]).unwrap();
        options
    })
}

/// Pieces that mean something, and some that do not, in any order.
fn pieces(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => proptest::sample::select(pieces).prop_map(str::to_owned), 1 => "\\PC{0,8}"];
    proptest::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const HTML: &[&str] = &[
    "<p>",
    "</p>",
    "<div>",
    "</div>",
    "<ul>",
    "</ul>",
    "<ol start=7>",
    "</ol>",
    "<li>",
    "</li>",
    "<blockquote>",
    "</blockquote>",
    "<table>",
    "</table>",
    "<tr>",
    "</tr>",
    "<td>",
    "</td>",
    "<th>",
    "<caption>",
    "<pre>",
    "</pre>",
    "<h1>",
    "</h1>",
    "<h3>",
    "<br>",
    "<hr>",
    "<a href=/x>",
    "<a href=\"http://a.b/c\">",
    "</a>",
    "<img alt=z>",
    "<dl>",
    "</dl>",
    "<dt>",
    "<dd>",
    "<q>",
    "</q>",
    "<div hidden>",
    "<svg>",
    "</svg>",
    "<script>",
    "</script>",
    "<title>",
    "</title>",
    "<!--",
    "-->",
    "&amp;",
    "&nbsp;",
    "word ",
    "a b c ",
    "\n",
    "  ",
    "日本語",
    "\u{200b}",
    "</",
    "<",
    "<plaintext>",
];

const MARKDOWN: &[&str] = &[
    "# ",
    "## ",
    "- ",
    "1. ",
    "> ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    "```\n",
    "`",
    "*",
    "**",
    "_",
    "[",
    "]",
    "](",
    ")",
    "![",
    "[^a]",
    "[^a]: ",
    "[a]: /x\n",
    "| a | b |\n",
    "|--|--|\n",
    "---\n",
    "===\n",
    "<div>",
    "</div>",
    "<br>",
    "<!--",
    "-->",
    "<http://a.b>",
    "&amp;",
    "\\",
    "- [x] ",
    "~~",
    "word ",
    "a b c ",
    "\t",
    "日本語",
    "<table><tr><td>",
    "</table>",
];

/// A file whose parts all occur: fonts, forms, object streams.
fn seed(compact: bool) -> Vec<u8> {
    let mut file = Pdf::with_pages(&[
        b"BT /F1 9 Tf 14 TL 50 700 Td (One) Tj T* [(Tw) -300 (o)] TJ ET /X Do",
        b"BT /F1 9 Tf (Last) Tj ET",
    ]);
    file.object(3, "<< /Type /Font /Subtype /Type1 /Encoding << /Differences [65 /B /eacute] >> /ToUnicode 5 0 R /Widths [500 600] >>");
    file.raw_stream(
        5,
        "",
        b"1 beginbfchar <4f> <0050> endbfchar 1 beginbfrange <61> <7a> <0041> endbfrange",
    );
    file.object(
        10,
        "<< /Type /Page /Parent 2 0 R /Contents [11 0 R] /Resources << /Font << /F1 3 0 R >> /XObject << /X 6 0 R >> >> >>",
    );
    file.raw_stream(6, "/Subtype /Form /Matrix [1 0 0 1 0 0]", b"BT /F1 9 Tf (form) Tj ET");
    if compact {
        file.build_compact(0, 0)
    } else {
        file.build_with_trailer("/Info << /Title (T) >>")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn html_of_any_kind(source in pieces(HTML), options in options()) {
        if let Ok(page) = html::convert(&source, options) {
            prop_assert!(page.text.is_empty() || page.text.ends_with('\n'));
            let is_laid_out = !source.contains("<pre") && !source.contains("<plaintext");
            prop_assert!(!is_laid_out || !page.text.contains("\n\n\n\n"), "{:?}", page.text);
        }
    }

    #[test]
    fn markdown_of_any_kind(source in pieces(MARKDOWN), options in options()) {
        if let Ok(text) = markdown::convert(&source, options) {
            prop_assert!(text.is_empty() || text.ends_with('\n'));
        }
    }

    /// Paragraphs keep their words, and lines their width.
    #[test]
    fn words_survive(words in proptest::collection::vec("[a-zäöü]{1,12}", 1..80), width in 20_u32..100) {
        let mut options = Options::default();
        options.set_width(width).unwrap();
        let source = words.join(" ");
        for text in [html::convert(&source, options).unwrap().text, markdown::convert(&source, options).unwrap()] {
            prop_assert_eq!(text.split_whitespace().collect::<Vec<_>>(), words.clone());
            prop_assert!(text.lines().all(|line| display_width(line) <= width as usize));
        }
    }

    #[test]
    fn bytes_of_any_kind(bytes: Vec<u8>, charset in proptest::option::of("[a-z0-9-]{1,10}")) {
        for kind in [Kind::Html, Kind::Plain] {
            let _ = decode(&bytes, charset.as_deref(), kind);
        }
        let mut file = b"%PDF-1.7\n".to_vec();
        file.extend(&bytes);
        prop_assert!(pdf::convert(file, Options::default()).is_err());
    }

    /// A sound file with some bytes changed, some removed and a part repeated.
    #[test]
    fn pdf_with_changes(
        compact: bool,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of((any::<proptest::sample::Index>(), 0_usize..40)),
        repeated in proptest::option::of((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), 0_usize..200)),
    ) {
        let mut file = seed(compact);
        for (index, byte) in changes {
            let at = index.index(file.len());
            file[at] = byte;
        }
        if let Some((index, length)) = cut {
            let at = index.index(file.len());
            file.drain(at..(at + length).min(file.len()));
        }
        if let Some((from, to, length)) = repeated {
            let at = from.index(file.len());
            let part = file[at..(at + length).min(file.len())].to_vec();
            let at = to.index(file.len());
            file.splice(at..at, part);
        }
        let _ = pdf::convert(file, Options::default());
    }

    /// Numbers and names where others belong.
    #[test]
    fn pdf_with_other_values(values in proptest::collection::vec(
        proptest::sample::select(&["0", "-1", "4294967295", "1e99", "[", "]", "<<", ">>", "(", ")", "null", "1 0 R", "2 0 R", "11 0 R", "/Pages",
            "99999 0 R", "stream", "endobj", "%", "<", "true"][..]),
        1..6,
    ), places in proptest::collection::vec(any::<proptest::sample::Index>(), 6)) {
        let file = String::from_utf8_lossy(&seed(false)).into_owned();
        let mut words: Vec<&str> = file.split_inclusive(' ').collect();
        for (value, place) in values.iter().zip(places) {
            let at = place.index(words.len());
            words[at] = value;
            words.insert(at + 1, " ");
        }
        let _ = pdf::convert(words.concat().into_bytes(), Options::default());
    }

    #[test]
    fn pdf_content_of_any_kind(content in pieces(&["BT ", "ET ", "/F1 9 Tf ", "(a b) Tj ", "[(a) -500 (b)] TJ ", "1 0 0 1 5 5 cm ", "q ", "Q ", "/X Do ",
        "14 TL ", "T* ", "(x) ' ", "1 2 (y) \" ", "0 -20 Td ", "BI /W 1 ID ", "EI ", "<41> Tj ", "1e30 ", "-1 ", "<< /A [", ">> BDC ", "(", "[", "]"])) {
        let file = Pdf::with_pages(&[content.as_bytes()]).build();
        prop_assert!(pdf::convert(file, Options::default()).is_ok());
    }
}
