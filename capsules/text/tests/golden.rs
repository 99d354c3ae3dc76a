//! What documents become, as files: `documents/*.txt` hold the expected texts. `UPDATE=1 cargo test` writes them anew.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod support;

use std::path::Path;

use support::Pdf;
use text::encoding::{Kind, decode};
use text::options::Options;
use text::{html, markdown, pdf};

#[track_caller]
fn check(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{name} differs; found:\n{found}");
}

fn options(settings: &[(&str, &str)]) -> Options {
    let mut options = Options::default();
    for (name, value) in settings {
        options.set(name, value).unwrap();
    }
    options
}

#[test]
fn markdown_document() {
    let source = include_str!("documents/guide.md");
    check("guide.txt", &markdown::convert(source, Options::default()).unwrap());
    let narrow = options(&[("width", "40"), ("links", "footnote"), ("tables", "grid")]);
    check("guide-40-footnote.txt", &markdown::convert(source, narrow).unwrap());
    let plain = options(&[("links", "omit"), ("tables", "plain")]);
    check("guide-omit-plain.txt", &markdown::convert(source, plain).unwrap());
}

#[test]
fn html_document() {
    let source = decode(include_bytes!("documents/page.html"), None, Kind::Html).unwrap();
    let page = html::convert(&source, Options::default()).unwrap();
    assert_eq!(page.title.as_deref(), Some("A page & its title"));
    check("page.txt", &page.text);
    let narrow = options(&[("width", "40"), ("links", "footnote")]);
    check("page-40-footnote.txt", &html::convert(&source, narrow).unwrap().text);
    let bare = options(&[("width", "72"), ("links", "omit"), ("tables", "omit")]);
    check("page-72-omit.txt", &html::convert(&source, bare).unwrap().text);
}

/// A file of another writer: fonts with character maps, two pages, compressed.
#[test]
fn pdf_with_composite_fonts() {
    let document = pdf::convert(include_bytes!("documents/composite.pdf").to_vec(), Options::default()).unwrap();
    assert_eq!((document.pages, document.title.as_deref()), (2, Some("Grüße – Ελλάδα")));
    check("composite.txt", &document.text);
    let narrow = options(&[("width", "30")]);
    let text = pdf::convert(include_bytes!("documents/composite.pdf").to_vec(), narrow)
        .unwrap()
        .text;
    assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
}

#[test]
fn pdf_text_operators() {
    let content = b"BT /F1 12 Tf 14 TL 50 700 Td (First line) Tj T* (Second \\(line\\)) Tj (, third) ' 0 -40 Td
        [(Gr) 20 (\xfc\xdfe) -300 (and) -2500 (column)] TJ ET
        q 1 0 0 1 50 500 cm BT /F1 10 Tf (moved) Tj 5 Ts (2) Tj ET Q
        BT /F1 10 Tf 0 1 -1 0 300 300 Tm (upwards) Tj 1 0 0 1 50 450 Tm <48656c6c6f> Tj 2 3 (spaced) \" ET";
    let document = pdf::convert(
        Pdf::with_pages(&[content, b"", b"BT /F1 9 Tf (Last) Tj ET"]).build(),
        Options::default(),
    );
    let document = document.unwrap();
    assert_eq!(document.pages, 3);
    assert_eq!(
        document.text,
        "First line\nSecond (line)\n, third\n\nGrüße and  column\n\nmoved2\n\nupwards\n\nHello\nspaced\n\nLast\n"
    );
}

#[test]
fn pdf_encodings() {
    let mut pdf = Pdf::with_pages(&[
        b"BT /F1 9 Tf (ab\\001\\002) Tj /F2 9 Tf 0 -20 Td <00410042ffff> Tj /F3 9 Tf 0 -20 Td <93fa967b> Tj
        /F4 9 Tf 0 -20 Td <d83dde00> Tj /F5 9 Tf 0 -20 Td (abg) Tj /F6 9 Tf 0 -20 Td (it's) Tj ET",
    ]);
    pdf.object(
        10,
        "<< /Type /Page /Parent 2 0 R /Contents 11 0 R /Resources << /Font << /F1 20 0 R /F2 21 0 R /F3 22 0 R /F4 23 0 R
        /F5 24 0 R /F6 25 0 R >> >> >>",
    );
    pdf.object(
        20,
        "<< /Type /Font /Subtype /Type1 /BaseFont /X /Encoding << /BaseEncoding /WinAnsiEncoding
        /Differences [1 /eacute /f_f_i 97 /Alpha] >> >>",
    );
    pdf.object(
        21,
        "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /Identity-H /ToUnicode 30 0 R /DescendantFonts [31 0 R] >>",
    );
    pdf.stream(
        30,
        "",
        b"begincmap 1 begincodespacerange <0000> <ffff> endcodespacerange 1 beginbfrange <0042> <0050> <0062> endbfrange
        1 beginbfchar <0041> <00660069> endbfchar endcmap",
    );
    pdf.object(
        31,
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /X /DW 500 /W [65 [250 300] 70 80 600] >>",
    );
    pdf.object(
        22,
        "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /90ms-RKSJ-H /DescendantFonts [31 0 R] >>",
    );
    pdf.object(
        23,
        "<< /Type /Font /Subtype /Type0 /BaseFont /X /Encoding /UniJIS-UTF16-H /DescendantFonts [31 0 R] >>",
    );
    pdf.object(24, "<< /Type /Font /Subtype /Type1 /BaseFont /Symbol >>");
    pdf.object(25, "<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman >>");
    let text = pdf::convert(pdf.build(), Options::default()).unwrap().text;
    assert_eq!(text.replace("\n\n", "\n"), "Αbéffi\nfib\u{fffd}\n日本\n😀\nαβγ\nit’s\n");
}

/// Forms have their own place, resources and state; images are passed over.
#[test]
fn pdf_forms() {
    let mut pdf =
        Pdf::with_pages(&[b"BT /F1 9 Tf 50 700 Td (before) Tj ET /Fm Do /Im Do BT /F1 9 Tf 50 600 Td (after) Tj ET"]);
    pdf.object(
        10,
        "<< /Type /Page /Parent 2 0 R /Contents 11 0 R /Resources << /Font << /F1 3 0 R >>
        /XObject << /Fm 20 0 R /Im 21 0 R >> >> >>",
    );
    pdf.stream(
        20,
        "/Type /XObject /Subtype /Form /Matrix [1 0 0 1 0 650] /Resources << /Font << /G 3 0 R >> >>",
        b"BT /G 9 Tf 50 0 Td (within) Tj ET q",
    );
    pdf.raw_stream(21, "/Subtype /Image /Filter /DCTDecode", b"\xff\xd8");
    assert_eq!(
        pdf::convert(pdf.build(), Options::default()).unwrap().text,
        "before\n\nwithin\n\nafter\n"
    );
}

/// Object and cross-reference streams; and a file whose cross-references are gone.
#[test]
fn pdf_structures() {
    let pdf = Pdf::with_pages(&[b"BT /F1 9 Tf (compact) Tj ET"]);
    assert_eq!(
        pdf::convert(pdf.build_compact(0, 0), Options::default()).unwrap().text,
        "compact\n"
    );
    let file = pdf.build();
    let table = file.windows(4).rposition(|window| window == b"xref").unwrap() - 5;
    assert_eq!(
        pdf::convert(file[..table].to_vec(), Options::default()).unwrap().text,
        "compact\n"
    );
}

/// A document that only forbids changes opens without a password; one that asks for one is refused.
#[test]
fn pdf_encryption() {
    let open = pdf::convert(include_bytes!("documents/owner-aes.pdf").to_vec(), Options::default()).unwrap();
    assert_eq!(
        (open.text.as_str(), open.title.as_deref()),
        ("Only for those who know.\n", Some("Protected"))
    );
    for file in [
        &include_bytes!("documents/password-rc4.pdf")[..],
        include_bytes!("documents/password-aes.pdf"),
    ] {
        assert_eq!(
            pdf::convert(file.to_vec(), Options::default()).unwrap_err().code(),
            "text.encrypted"
        );
    }
}

/// The documents that `make run` shows.
#[test]
fn example_documents() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/documents");
    let page = std::fs::read(examples.join("page.html")).unwrap();
    let page = html::convert(&decode(&page, None, Kind::Html).unwrap(), Options::default()).unwrap();
    assert!(page.text.len() > 500 && page.title.is_some());
    let report = pdf::convert(std::fs::read(examples.join("report.pdf")).unwrap(), Options::default()).unwrap();
    assert!(report.text.len() > 500 && report.pages == 4, "{}", report.text);
}
