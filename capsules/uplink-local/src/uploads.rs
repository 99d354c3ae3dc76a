//! Bodies that are too large for a frame: announced with their size and BLAKE3, sent in chunks, used by name (contract A3).
//!
//! An upload is checked when it is complete, so what can be named is what was announced. Everything is bounded: how many are
//! open, how large one is and all are together, and how much may be sent ahead. They live and die with their
//! connection; within it a client that lost track announces again and learns where to go on.

use astrid_wire::Problem;
use astrid_wire::problem::codes;

/// Bytes of one body at most, as the kernel takes them.
pub const UPLOAD_BYTES_MAX: u64 = 32 << 20;

/// Open uploads at most: one that is used while the next arrives.
pub const OPEN_MAX: usize = 2;

/// Bytes of all open uploads at most; with a frame and a message in hand it bounds a connection's memory.
pub const ALL_BYTES_MAX: u64 = 48 << 20;

/// Bytes that may be sent ahead: one chunk at most. It bounds what one message costs.
pub const CREDIT_BYTES: u64 = 1 << 20;

/// Where an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bytes that have arrived.
    pub received: u64,
    /// Bytes that may follow.
    pub credit: u64,
}

#[derive(Debug)]
struct Upload {
    name: String,
    size: u64,
    expected: [u8; blake3::OUT_LEN],
    hasher: blake3::Hasher,
    bytes: Vec<u8>,
}

impl Upload {
    fn received(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn is_complete(&self) -> bool {
        self.received() == self.size
    }

    fn standing(&self) -> Standing {
        Standing {
            received: self.received(),
            credit: CREDIT_BYTES.min(self.size - self.received()),
        }
    }
}

/// The uploads of a connection.
#[derive(Debug, Default)]
pub struct Uploads {
    open: Vec<Upload>,
}

impl Uploads {
    /// Opens an upload, or says where one that is open stands.
    ///
    /// # Errors
    /// Over a limit, or another upload has this name.
    pub fn begin(&mut self, name: &str, size: u64, expected: &[u8]) -> Result<Standing, Problem> {
        let expected = <[u8; blake3::OUT_LEN]>::try_from(expected)
            .map_err(|_| Problem::new(codes::INVALID, "blake3 is not a BLAKE3 hash"))?;
        if name.is_empty() {
            return Err(Problem::new(codes::INVALID, "an upload needs a name"));
        }
        if let Some(upload) = self.open.iter().find(|upload| upload.name == name) {
            if upload.size == size && upload.expected == expected {
                return Ok(upload.standing());
            }
            return Err(Problem::new(codes::INVALID, "another upload of this name is open")
                .with_hint("choose another name, or give that one up"));
        }
        if size > UPLOAD_BYTES_MAX {
            let text = format!("an upload of {size} bytes; the limit is {UPLOAD_BYTES_MAX}");
            return Err(Problem::new(codes::TOO_LARGE, text));
        }
        let hint = "use one that is complete, or give one up";
        if self.open.len() >= OPEN_MAX {
            let text = format!("{OPEN_MAX} uploads are open, the limit");
            return Err(Problem::new(codes::TOO_MANY, text).with_hint(hint));
        }
        let held: u64 = self.open.iter().map(|upload| upload.size).sum();
        if held + size > ALL_BYTES_MAX {
            let text = format!(
                "open uploads would hold {} bytes; the limit is {ALL_BYTES_MAX}",
                held + size
            );
            return Err(Problem::new(codes::TOO_LARGE, text).with_hint(hint));
        }
        // Room for all of it at once: it is within the limits, and growing by doubling would take more.
        let room = usize::try_from(size).unwrap_or_default();
        self.open.push(Upload {
            name: name.to_owned(),
            size,
            expected,
            hasher: blake3::Hasher::new(),
            bytes: Vec::with_capacity(room),
        });
        if size == 0 {
            self.complete(self.open.len() - 1)
        } else {
            Ok(Standing {
                received: 0,
                credit: CREDIT_BYTES.min(size),
            })
        }
    }

    /// Takes the next bytes. What breaks a promise of the client is refused, and the upload stays where it was; one whose
    /// hash is wrong at the end is given up.
    ///
    /// # Errors
    /// No such upload, bytes from the wrong place, more than the credit, or the wrong hash.
    pub fn chunk(&mut self, name: &str, offset: u64, data: &[u8]) -> Result<Standing, Problem> {
        let index = self.find(name)?;
        let upload = &mut self.open[index];
        let Standing { received, credit } = upload.standing();
        if offset != received {
            return Err(Problem::new(
                codes::INVALID,
                format!("bytes from {offset} on; the upload stands at {received}"),
            )
            .with_hint("announce it again to learn where it stands"));
        }
        if data.len() as u64 > credit {
            return Err(Problem::new(
                codes::TOO_LARGE,
                format!("{} bytes at once; the credit is {credit}", data.len()),
            ));
        }
        upload.hasher.update(data);
        upload.bytes.extend_from_slice(data);
        if upload.is_complete() {
            self.complete(index)
        } else {
            Ok(upload.standing())
        }
    }

    /// The body of a complete upload.
    ///
    /// # Errors
    /// No such upload, or it is not complete.
    pub fn body(&self, name: &str) -> Result<&[u8], Problem> {
        let upload = &self.open[self.find(name)?];
        if upload.is_complete() {
            return Ok(&upload.bytes);
        }
        Err(Problem::new(
            codes::INVALID,
            format!("the upload stands at {} of {} bytes", upload.received(), upload.size),
        ))
    }

    /// Forgets an upload, used or given up.
    pub fn remove(&mut self, name: &str) {
        self.open.retain(|upload| upload.name != name);
    }

    fn find(&self, name: &str) -> Result<usize, Problem> {
        self.open
            .iter()
            .position(|upload| upload.name == name)
            .ok_or_else(|| Problem::new(codes::NOT_FOUND, "no upload of this name is open"))
    }

    fn complete(&mut self, index: usize) -> Result<Standing, Problem> {
        let upload = &self.open[index];
        if upload.hasher.finalize() == blake3::Hash::from_bytes(upload.expected) {
            return Ok(upload.standing());
        }
        self.open.remove(index);
        Err(Problem::new(
            codes::INVALID,
            "the bytes do not have the BLAKE3 that was announced; the upload is given up",
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hash(bytes: &[u8]) -> [u8; 32] {
        *blake3::hash(bytes).as_bytes()
    }

    fn code(result: Result<Standing, Problem>) -> String {
        result.unwrap_err().code().to_owned()
    }

    /// A3: begin, chunks under credit, and the whole under its hash.
    #[test]
    fn chunks_become_a_body() {
        let body: Vec<u8> = (0..(CREDIT_BYTES * 2 + 100)).map(|n| (n % 251) as u8).collect();
        let mut uploads = Uploads::default();
        let mut standing = uploads.begin("u", body.len() as u64, &hash(&body)).unwrap();
        assert_eq!(
            standing,
            Standing {
                received: 0,
                credit: CREDIT_BYTES
            }
        );
        while standing.credit > 0 {
            let (from, many) = (standing.received as usize, standing.credit as usize);
            assert!(uploads.body("u").is_err());
            standing = uploads.chunk("u", standing.received, &body[from..from + many]).unwrap();
        }
        assert_eq!(
            standing,
            Standing {
                received: body.len() as u64,
                credit: 0
            }
        );
        assert_eq!(uploads.body("u").unwrap(), body);
        uploads.remove("u");
        assert_eq!(uploads.body("u").unwrap_err().code(), codes::NOT_FOUND);
    }

    /// A3: what was announced is what is used.
    #[test]
    fn a_wrong_hash_is_given_up() {
        let mut uploads = Uploads::default();
        uploads.begin("u", 3, &hash(b"abc")).unwrap();
        assert_eq!(code(uploads.chunk("u", 0, b"abd")), codes::INVALID);
        assert_eq!(code(uploads.chunk("u", 3, b"")), codes::NOT_FOUND);
        assert_eq!(code(uploads.begin("empty", 0, &hash(b"x"))), codes::INVALID);
        assert!(uploads.begin("empty", 0, &hash(b"")).is_ok());
        assert_eq!(uploads.body("empty").unwrap(), b"");
    }

    /// A3: resume by asking.
    #[test]
    fn announcing_again_tells_where_it_stands() {
        let mut uploads = Uploads::default();
        uploads.begin("u", 6, &hash(b"abcdef")).unwrap();
        uploads.chunk("u", 0, b"abc").unwrap();
        // Repeated, or with a gap: refused, and nothing is lost.
        assert_eq!(code(uploads.chunk("u", 0, b"abc")), codes::INVALID);
        assert_eq!(code(uploads.chunk("u", 4, b"ef")), codes::INVALID);
        assert_eq!(
            uploads.begin("u", 6, &hash(b"abcdef")),
            Ok(Standing { received: 3, credit: 3 })
        );
        assert_eq!(code(uploads.begin("u", 7, &hash(b"abcdef"))), codes::INVALID);
        assert_eq!(code(uploads.begin("u", 6, &hash(b"other"))), codes::INVALID);
        uploads.chunk("u", 3, b"def").unwrap();
        assert_eq!(uploads.body("u").unwrap(), b"abcdef");
        // Complete: nothing follows, not even a byte.
        assert_eq!(code(uploads.chunk("u", 6, b"g")), codes::TOO_LARGE);
    }

    #[test]
    fn limits() {
        let mut uploads = Uploads::default();
        let any = [0; 32];
        assert_eq!(code(uploads.begin("u", UPLOAD_BYTES_MAX + 1, &any)), codes::TOO_LARGE);
        assert_eq!(code(uploads.begin("u", u64::MAX, &any)), codes::TOO_LARGE);
        assert_eq!(code(uploads.begin("", 1, &any)), codes::INVALID);
        uploads.begin("a", UPLOAD_BYTES_MAX, &any).unwrap();
        assert_eq!(code(uploads.begin("b", UPLOAD_BYTES_MAX, &any)), codes::TOO_LARGE);
        uploads.begin("b", ALL_BYTES_MAX - UPLOAD_BYTES_MAX, &any).unwrap();
        assert_eq!(code(uploads.begin("c", 0, &any)), codes::TOO_MANY);
        assert_eq!(
            code(uploads.chunk("a", 0, &vec![0; CREDIT_BYTES as usize + 1])),
            codes::TOO_LARGE
        );
        assert_eq!(uploads.chunk("a", 0, b"x").unwrap().received, 1);
        uploads.remove("b");
        assert_eq!(code(uploads.begin("c", 0, &any)), codes::INVALID);
    }
}
