//! Makes PDF files, sound and broken ones.

use miniz_oxide::deflate::compress_to_vec_zlib;

/// A PDF file in the making: its objects, by number. Object 1 is the catalogue.
#[derive(Default)]
pub(crate) struct Pdf {
    objects: Vec<(u32, Vec<u8>)>,
}

/// A font without surprises.
pub(crate) const HELVETICA: &str = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>";

impl Pdf {
    /// A file with these page contents. All pages use object 3 as font `/F1`.
    pub(crate) fn with_pages(contents: &[&[u8]]) -> Self {
        let mut pdf = Self::default();
        let kids: Vec<String> = (0..contents.len())
            .map(|index| format!("{} 0 R", 10 + 2 * index))
            .collect();
        pdf.object(1, "<< /Type /Catalog /Pages 2 0 R >>");
        pdf.object(
            2,
            &format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), kids.len()),
        );
        pdf.object(3, HELVETICA);
        for (index, content) in contents.iter().enumerate() {
            let number = 10 + 2 * index as u32;
            pdf.object(
                number,
                &format!(
                    "<< /Type /Page /Parent 2 0 R /Contents {} 0 R /Resources << /Font << /F1 3 0 R >> >> >>",
                    number + 1
                ),
            );
            pdf.stream(number + 1, "", content);
        }
        pdf
    }

    /// Sets an object.
    pub(crate) fn object(&mut self, number: u32, body: &str) {
        self.bytes(number, body.as_bytes().to_vec());
    }

    fn bytes(&mut self, number: u32, body: Vec<u8>) {
        self.objects.retain(|(present, _)| *present != number);
        self.objects.push((number, body));
    }

    /// Sets a stream, deflated. `entries` go into its dictionary.
    pub(crate) fn stream(&mut self, number: u32, entries: &str, data: &[u8]) {
        let packed = compress_to_vec_zlib(data, 9);
        self.raw_stream(number, &format!("{entries} /Filter /FlateDecode"), &packed);
    }

    /// Sets a stream as it is.
    pub(crate) fn raw_stream(&mut self, number: u32, entries: &str, data: &[u8]) {
        let mut body = format!("<< {entries} /Length {} >>\nstream\n", data.len()).into_bytes();
        body.extend_from_slice(data);
        body.extend_from_slice(b"\nendstream");
        self.bytes(number, body);
    }

    /// The file, with a cross-reference table.
    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with_trailer("")
    }

    /// The file, with these entries in its trailer.
    pub(crate) fn build_with_trailer(&self, trailer: &str) -> Vec<u8> {
        let mut file = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
        let mut offsets = vec![
            None;
            1 + self
                .objects
                .iter()
                .map(|(number, _)| *number as usize)
                .max()
                .unwrap_or(0)
        ];
        for (number, body) in &self.objects {
            offsets[*number as usize] = Some(file.len());
            file.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
            file.extend_from_slice(body);
            file.extend_from_slice(b"\nendobj\n");
        }
        let start = file.len();
        let mut table = format!("xref\n0 {}\n", offsets.len());
        for offset in &offsets {
            match offset {
                Some(offset) => table.push_str(&format!("{offset:010} 00000 n \n")),
                None => table.push_str("0000000000 65535 f \n"),
            }
        }
        table.push_str(&format!(
            "trailer\n<< /Size {} /Root 1 0 R {trailer} >>\nstartxref\n{start}\n%%EOF\n",
            offsets.len()
        ));
        file.extend_from_slice(table.as_bytes());
        file
    }

    /// The file with all objects but streams in an object stream, and a cross-reference stream. `padding` is added to the
    /// object stream and `entries` to the table.
    pub(crate) fn build_compact(&self, padding: usize, entries: usize) -> Vec<u8> {
        let size = 2 + self.objects.iter().map(|(number, _)| *number).max().unwrap_or(0);
        let (container, table) = (size - 1, size);
        let mut file = b"%PDF-1.7\n".to_vec();
        let mut rows = vec![[0, 0, 0, 0, 0, 0]; table as usize + 1];
        let mut row = |number: u32, kind: u8, offset: usize, index: u8| {
            let offset = (offset as u32).to_be_bytes();
            rows[number as usize] = [kind, offset[0], offset[1], offset[2], offset[3], index];
        };
        let (mut header, mut members) = (String::new(), Vec::new());
        let mut count = 0;
        for (number, body) in &self.objects {
            if body.ends_with(b"endstream") {
                row(*number, 1, file.len(), 0);
                file.extend_from_slice(format!("{number} 0 obj\n").as_bytes());
                file.extend_from_slice(body);
                file.extend_from_slice(b"\nendobj\n");
            } else {
                row(*number, 2, container as usize, count);
                header.push_str(&format!("{number} {} ", members.len()));
                members.extend_from_slice(body);
                members.push(b' ');
                count += 1;
            }
        }
        row(container, 1, file.len(), 0);
        let mut unpacked = header.clone().into_bytes();
        unpacked.extend(members);
        unpacked.resize(unpacked.len() + padding, b' ');
        let packed = compress_to_vec_zlib(&unpacked, 9);
        file.extend_from_slice(
            format!(
                "{container} 0 obj\n<< /Type /ObjStm /N {count} /First {} /Filter /FlateDecode /Length {} >>\nstream\n",
                header.len(),
                packed.len()
            )
            .as_bytes(),
        );
        file.extend_from_slice(&packed);
        file.extend_from_slice(b"\nendstream\nendobj\n");
        let start = file.len();
        row(table, 1, start, 0);
        let mut flat: Vec<u8> = rows.concat();
        flat.resize(flat.len() + 6 * entries, 0);
        let packed = compress_to_vec_zlib(&flat, 9);
        file.extend_from_slice(
            format!(
                "{table} 0 obj\n<< /Type /XRef /Size {} /W [1 4 1] /Root 1 0 R /Filter /FlateDecode /Length {} >>\nstream\n",
                flat.len() / 6,
                packed.len()
            )
            .as_bytes(),
        );
        file.extend_from_slice(&packed);
        file.extend_from_slice(format!("\nendstream\nendobj\nstartxref\n{start}\n%%EOF\n").as_bytes());
        file
    }
}
