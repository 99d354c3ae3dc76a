//! Documents that want to hurt: each is answered with text or a typed error, in time linear in its size and memory that the
//! limits bound. Sizes are small enough for an unoptimised build; what is quadratic or unbounded shows all the same.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::Pdf;
use text::error::TextError;
use text::limits;
use text::options::Options;
use text::{html, markdown, pdf};

fn code<T>(result: Result<T, TextError>) -> &'static str {
    match result {
        Ok(_) => "text",
        Err(error) => error.code(),
    }
}

fn html(source: &str) -> Result<String, TextError> {
    html::convert(source, Options::default()).map(|page| page.text)
}

fn markdown(source: &str) -> Result<String, TextError> {
    markdown::convert(source, Options::default())
}

fn pdf(file: Vec<u8>) -> Result<String, TextError> {
    pdf::convert(file, Options::default()).map(|document| document.text)
}

// --- HTML and Markdown ----------------------------------------------------------------------------------------------

#[test]
fn html_nesting() {
    for element in ["<ul>", "<ol><li>", "<blockquote>", "<table><td>", "<dl><dd>"] {
        assert_eq!(code(html(&element.repeat(100_000))), "text.too-deep", "{element}");
        assert!(
            html(&format!("{}x", element.repeat(40))).unwrap().contains('x'),
            "{element}"
        );
    }
    // These mean nothing to the layout, however many there are.
    for element in [
        "<div>",
        "<b>",
        "<span class=x>",
        "<section>",
        "<p>",
        "<font>",
        "<center>",
    ] {
        assert_eq!(
            html(&format!("{}x", element.repeat(100_000))).unwrap(),
            "x\n",
            "{element}"
        );
    }
}

#[test]
fn html_that_never_ends() {
    for source in [
        "<!--",
        "<a b=\"",
        "<script>",
        "<title>",
        "<svg>",
        "<pre>",
        "<plaintext>",
        "<![CDATA[",
        "<",
        "</",
        "<!",
        "&",
        "&#",
    ] {
        for document in [
            format!("<p>x{}", source.repeat(1_000)),
            format!("<p>x{source}{}", "y".repeat(10_000)),
        ] {
            assert!(html(&document).unwrap().starts_with('x'), "{source}");
        }
    }
}

#[test]
fn entities_do_not_grow() {
    let bomb = "<!DOCTYPE a [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><p>&b;";
    assert!(html(bomb).unwrap().len() < bomb.len());
    assert_eq!(
        html("&#x110000;&#xd800;&#0;&#99999999999999999999;&NotEqualTilde;").unwrap(),
        "\u{fffd}\u{fffd}\u{fffd}\u{fffd}≂̸\n"
    );
}

/// Nothing that a terminal would obey.
#[test]
fn control_characters_do_not_pass() {
    let document = "a\u{1b}[31mb\u{7}c\u{9b}d\u{0}e\u{7f}f&#27;g";
    let is_clean = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t');
    assert!(is_clean(&html(document).unwrap()));
    assert!(is_clean(
        &html(&format!(
            "<pre>{document}</pre><a href='\u{1b}x'>y</a><img alt='\u{1b}'>"
        ))
        .unwrap()
    ));
    assert!(is_clean(
        &markdown(&format!(
            "{document}\n\n    {document}\n\n[x](<\u{1b}[2J>) `{document}`"
        ))
        .unwrap()
    ));
    let content = b"BT /F1 9 Tf (a\\033[31mb\\007\\233\\000) Tj ET";
    assert!(is_clean(&pdf(Pdf::with_pages(&[content]).build()).unwrap()));
}

#[test]
fn tables_of_any_shape() {
    // One wide cell does not multiply by the rows, nor one long row by the others.
    let wide = format!(
        "<table><tr><td>{}<td>b{}",
        "x".repeat(900),
        "<tr><td>a<td>b".repeat(10_000)
    );
    assert!(html(&wide).unwrap().len() < 10 * wide.len());
    let sparse = format!("<table><tr>{}{}", "<td>x".repeat(2_000), "<tr><td>y".repeat(10_000));
    assert!(html(&sparse).unwrap().len() < 3 * sparse.len());
    assert_eq!(
        code(html(&format!("<table>{}", "<td>".repeat(limits::TABLE_CELLS + 1)))),
        "text.too-large"
    );
    for width in [20, 1_000] {
        let mut options = Options::default();
        options.set_width(width).unwrap();
        for source in [&wide, &sparse] {
            assert!(html::convert(source, options).unwrap().text.len() < 20 * source.len());
        }
    }
}

#[test]
fn characters_without_width() {
    for c in ["\u{200b}", "\u{301}", "\u{202e}", "\u{200d}", "\u{e0001}"] {
        let mut options = Options::default();
        options.set_width(20).unwrap();
        let document = format!("<p>{}</p>", c.repeat(50_000));
        assert_eq!(
            html::convert(&document, options).unwrap().text.trim_end(),
            c.repeat(50_000)
        );
    }
}

#[test]
fn markdown_nesting() {
    assert_eq!(code(markdown(&">".repeat(100_000))), "text.too-deep");
    assert_eq!(code(markdown(&"- ".repeat(100_000))), "text", "a thematic break");
    assert_eq!(code(markdown(&"- 1. ".repeat(20_000))), "text.too-deep");
    let stairs: String = (0..300).map(|depth| format!("{}- a\n", "  ".repeat(depth))).collect();
    assert_eq!(code(markdown(&stairs)), "text.too-deep");
    let brackets = format!("{}a{}", "[".repeat(20_000), "](b)".repeat(20_000));
    assert_eq!(code(markdown(&brackets)), "text");
}

#[test]
fn markdown_marks() {
    assert_eq!(
        code(markdown(&"*".repeat(limits::MARKDOWN_NODES / 2 + 1))),
        "text.too-large"
    );
    for mark in [
        "*a ",
        "_",
        "`a",
        "![",
        "[a](",
        "[a][",
        "<a",
        "<!--",
        "&",
        "\\",
        "~~a",
        "a|",
        "[^a]",
        "$",
        "<http://",
        "| a\n|-\n",
        "```\n",
    ] {
        assert!(matches!(code(markdown(&mark.repeat(20_000))), "text"), "{mark}");
    }
}

// --- PDF ------------------------------------------------------------------------------------------------------------

#[test]
fn what_is_no_pdf() {
    for file in [
        &b""[..],
        b"%PDF-1.7",
        b"%PDF-1.7\nstartxref\n0\n%%EOF",
        b"<html>",
        &[0; 5_000],
    ] {
        assert_eq!(code(pdf(file.to_vec())), "text.malformed");
    }
}

#[test]
fn decompression_bombs() {
    let spaces = vec![b' '; limits::PDF_CONTENT_BYTES + 1];
    assert_eq!(code(pdf(Pdf::with_pages(&[&spaces]).build())), "text.too-large");

    let mut file = Pdf::with_pages(&[b""]);
    let twice = miniz_oxide::deflate::compress_to_vec_zlib(&miniz_oxide::deflate::compress_to_vec_zlib(&spaces, 9), 9);
    file.raw_stream(11, "/Filter [/FlateDecode /FlateDecode]", &twice);
    assert_eq!(code(pdf(file.build())), "text.too-large");

    let mut file = Pdf::with_pages(&[b""]);
    file.raw_stream(11, &format!("/Filter [{}]", "/ASCIIHexDecode ".repeat(1_000)), b"20>");
    assert_eq!(code(pdf(file.build())), "text.too-large");

    let file = Pdf::with_pages(&[b"BT /F1 9 Tf (x) Tj ET"]);
    assert_eq!(
        code(pdf(file.build_compact(limits::PDF_OBJECT_STREAM_BYTES, 0))),
        "text.too-large"
    );
    assert_eq!(
        code(pdf(file.build_compact(0, limits::PDF_OBJECTS + 1))),
        "text.too-large"
    );
}

/// Rows that cannot be, in the streams that the reader unpacks and in those that are unpacked here.
#[test]
fn rows_that_cannot_be() {
    for parameters in [
        "/Predictor 2 /Columns 0",
        "/Predictor 12 /Columns 4000000000",
        "/Predictor 12 /Columns 100 /Colors 99 /BitsPerComponent 16",
        "/Predictor 15 /Columns -1",
        "/Predictor 2 /Colors 0",
        "/Predictor 12 /BitsPerComponent 0",
    ] {
        let mut file = Pdf::with_pages(&[b""]);
        file.stream(11, &format!("/DecodeParms << {parameters} >>"), b"BT ET");
        assert_eq!(code(pdf(file.build())), "text.malformed", "{parameters}");
        for kind in ["/Type /ObjStm", "/Type /XRef", "/N 1 /First 1", "/W [1 2 1]"] {
            let file = format!("%PDF-1.7\n9 0 obj << {kind} /DecodeParms [<< {parameters} >>] >> stream\n");
            assert_eq!(code(pdf(file.into_bytes())), "text.malformed", "{kind} {parameters}");
        }
    }
    let mut file = Pdf::with_pages(&[b""]);
    file.stream(
        11,
        "/DecodeParms << /Predictor 12 /Columns 4 >>",
        b"\0BT /\0F1 9\0 Tf \0(ok)\0 Tj ",
    );
    assert_eq!(pdf(file.build()).unwrap(), "ok\n");
}

#[test]
fn character_map_bombs() {
    let font = |map: &[u8]| {
        let mut file = Pdf::with_pages(&[b"BT /F1 9 Tf <00010002> Tj ET"]);
        file.object(
            3,
            "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 4 0 R /DescendantFonts [5 0 R] >>",
        );
        file.object(
            5,
            &format!(
                "<< /Type /Font /Subtype /CIDFontType2 /W [{}] >>",
                "0 65535 500 ".repeat(10_000)
            ),
        );
        file.stream(4, "", map);
        pdf(file.build())
    };
    assert_eq!(code(font(&vec![b' '; limits::PDF_CMAP_BYTES + 1])), "text.too-large");
    let long = format!("1 beginbfrange <0000> <ffff> <{}> endbfrange", "0041".repeat(100_000));
    assert!(font(long.as_bytes()).unwrap().len() <= 2 * limits::PDF_CODE_CHARS + 1);
    let many = "1 beginbfrange <0000> <ffffffff> <0041> endbfrange ".repeat(10_000);
    assert_eq!(code(font(many.as_bytes())), "text");
}

#[test]
fn objects_within_objects() {
    for (open, close) in [("[", "]"), ("<< /A ", ">>"), ("[<< /A ", ">>]")] {
        let nested = format!("{}0{}", open.repeat(50_000), close.repeat(50_000));
        let mut file = Pdf::with_pages(&[b"BT /F1 9 Tf (x) Tj ET"]);
        file.object(1, &format!("<< /Type /Catalog /Pages 2 0 R /X {nested} >>"));
        assert_eq!(code(pdf(file.build())), "text.too-deep", "{open}");
        assert_eq!(code(pdf(file.build_compact(0, 0))), "text.too-deep", "{open}");
        let content = format!("BT /F1 9 Tf (a) Tj {nested} TJ (b) Tj ET");
        assert_eq!(
            code(pdf(Pdf::with_pages(&[content.as_bytes()]).build())),
            "text",
            "{open}"
        );
    }
    for object in [
        "1 0 obj (",
        "1 0 obj <</A (",
        "1 0 obj <</Type/ObjStm/N 1/First 1>>stream\n",
        "1 0 obj [",
        "obj<<",
        "1 0 obj<</W[",
    ] {
        let file = format!("%PDF-1.7\n{}", object.repeat(20_000));
        assert!(
            matches!(code(pdf(file.into_bytes())), "text.malformed" | "text.too-deep"),
            "{object}"
        );
    }
}

#[test]
fn circles() {
    let circle = |objects: &[(u32, &str)]| {
        let mut file = Pdf::with_pages(&[b"BT /F1 9 Tf (x) Tj ET"]);
        for (number, body) in objects {
            file.object(*number, body);
        }
        code(pdf(file.build()))
    };
    // Pages, references, contents, lengths and fonts that lead back to themselves.
    let no_page = (10, "null");
    assert_eq!(
        circle(&[no_page, (2, "<< /Type /Pages /Kids [2 0 R] /Count 1 >>")]),
        "text.malformed"
    );
    let other = (4, "<< /Type /Pages /Kids [2 0 R 4 0 R] >>");
    assert_eq!(
        circle(&[no_page, (2, "<< /Type /Pages /Kids [4 0 R] >>"), other]),
        "text.malformed"
    );
    assert_eq!(circle(&[no_page, (2, "4 0 R"), (4, "2 0 R")]), "text.malformed");
    assert_eq!(circle(&[(2, "4 0 R"), (4, "2 0 R")]), "text", "pages are looked for");
    assert_eq!(circle(&[(11, "[11 0 R 11 0 R]")]), "text");
    assert_eq!(circle(&[(11, "<< /Length 11 0 R >> stream\nBT ET\nendstream")]), "text");
    assert_eq!(
        circle(&[(
            3,
            "<< /Type /Font /Subtype /Type0 /DescendantFonts [3 0 R] /W 3 0 R /ToUnicode 3 0 R >>"
        )]),
        "text"
    );

    let form = |forms: &[&str]| {
        let mut file = Pdf::with_pages(&[b"/X0 Do"]);
        let names: String = (0..forms.len())
            .map(|index| format!("/X{index} {} 0 R ", 30 + index))
            .collect();
        file.object(
            10,
            &format!("<< /Type /Page /Parent 2 0 R /Contents 11 0 R /Resources << /XObject << {names} >> >> >>"),
        );
        for (index, content) in forms.iter().enumerate() {
            file.stream(30 + index as u32, "/Subtype /Form", content.as_bytes());
        }
        code(pdf(file.build()))
    };
    assert_eq!(form(&["/X0 Do"]), "text.malformed");
    assert_eq!(form(&["/X1 Do", "/X0 Do"]), "text.malformed");
    let chain: Vec<String> = (1..40).map(|next| format!("/X{next} Do")).collect();
    assert_eq!(
        form(&chain.iter().map(String::as_str).collect::<Vec<_>>()),
        "text.too-deep"
    );
    let tree: Vec<String> = (1..12).map(|next| format!("/X{next} Do ").repeat(40)).collect();
    assert_eq!(
        form(&tree.iter().map(String::as_str).collect::<Vec<_>>()),
        "text.too-large"
    );
}

#[test]
fn chains_of_cross_references() {
    let mut file = b"%PDF-1.7\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]>>endobj
3 0 obj<</Type/Page>>endobj\n"
        .to_vec();
    let mut previous = file.len();
    for _ in 0..20_000 {
        let at = file.len();
        file.extend_from_slice(format!("xref\n0 0\ntrailer<</Root 1 0 R/Prev {previous}>>\n").as_bytes());
        previous = at;
    }
    file.extend_from_slice(format!("startxref\n{previous}\n%%EOF").as_bytes());
    assert_eq!(code(pdf(file)), "text", "repaired");
    let end = "startxref\n-1\n%%EOF";
    for trailer in [
        "xref\n0 4294967295\n",
        "xref\n4294967295 4294967295\n0000000000 00000 n \n",
        "9 0 obj<</W[255 255 255]/Size 9>>stream",
    ] {
        assert_eq!(
            code(pdf(format!("%PDF-1.7\n{trailer}trailer<<>>\n{end}").into_bytes())),
            "text.malformed"
        );
    }
}

#[test]
fn pages_without_end() {
    let mut file = Pdf::default();
    file.object(1, "<< /Type /Catalog /Pages 2 0 R >>");
    file.object(2, &format!("<< /Type /Pages /Kids [{}] >>", "<<>> ".repeat(50_000)));
    assert_eq!(code(pdf(file.build())), "text.malformed");
    assert_eq!(code(pdf(file.build_compact(0, 0))), "text.malformed");
    file.object(2, &format!("<< /Type /Pages /Kids [{}] >>", "3 0 R ".repeat(50_000)));
    file.object(3, "<< /Type /Page >>");
    assert_eq!(code(pdf(file.build())), "text", "one page");
    let page = "9 0 obj<</Type/Page>>endobj\n";
    assert_eq!(
        code(pdf(
            format!("%PDF-1.7\n{}", page.repeat(limits::PDF_PAGES + 1)).into_bytes()
        )),
        "text.too-large"
    );
}

#[test]
fn content_without_end() {
    let states = b"q ".repeat(limits::PDF_STATES + 1);
    assert_eq!(code(pdf(Pdf::with_pages(&[&states]).build())), "text.too-deep");
    for content in [
        &b"BT /F1 1e38 Tf 1e38 0 0 1e38 1e38 1e38 Tm 1e38 Tc (a) Tj (b) Tj [1e38 (c) -1e38 (d)] TJ ET"[..],
        b"BT /F1 0 Tf 0 0 0 0 0 0 Tm (a) Tj (b) Tj ET",
        b"BT /F1 -9 Tf -100 Tz (a) Tj Q Q Q ET Q",
        b"BI /W 1 ID EI EI EI",
        b"(((((",
        b"<<<<<<>",
        b"/F1 Tf Tj TJ Td Tm ' \" Do cm /X Do",
        b"BT /F1 99999999999999999999999999 Tf (a) Tj ET",
    ] {
        assert_eq!(
            code(pdf(Pdf::with_pages(&[content]).build())),
            "text",
            "{}",
            String::from_utf8_lossy(content)
        );
    }
}
