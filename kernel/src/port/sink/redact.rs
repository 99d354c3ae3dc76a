//! Blots secrets out of a stream of bytes, also where one arrives in pieces.
//!
//! The result is that of replacing every secret in the whole text, leftmost first and of those that begin there the longest,
//! however the text was cut into chunks. So only the end of what came is ever held back, and only while it is the beginning of a
//! secret; when the stream ends it is let go.
//!
//! Deliberately absent: encodings of a secret (base64, percent, JSON escapes). Who wants one of those blotted out names it as well.

use aho_corasick::{AhoCorasick, MatchKind};
use memchr::memmem::Finder;

/// Bytes of a secret at least: shorter ones occur in any text, and blotting them out would tell what they are.
pub const SECRET_BYTES_MIN: usize = 4;

/// Bytes of a secret at most: a large private key.
pub const SECRET_BYTES_MAX: usize = 16 << 10;

/// Secrets of one stream at most: more than any environment carries.
pub const SECRETS_MAX: usize = 256;

/// Secrets that are looked for one by one before all at once: this many searches of one take less than one search of many.
const FINDERS_MAX: usize = 16;

/// What stands for a secret. Not longer than the shortest one, so that no text grows.
const BLOT: &[u8] = b"***";

/// Why a set of secrets cannot be blotted out. Values are never named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// One is too short.
    #[error("secret {index} has {bytes} bytes, and at least {SECRET_BYTES_MIN} are needed")]
    Short {
        /// Which one, counted from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// One is too long.
    #[error("secret {index} has {bytes} bytes, and at most {SECRET_BYTES_MAX} are possible")]
    Long {
        /// Which one, counted from 0.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// There are too many, or they are too large together.
    #[error("{count} secrets, and at most {SECRETS_MAX} are possible")]
    Many {
        /// How many.
        count: usize,
    },
}

/// The state of one stream.
#[derive(Debug)]
pub struct Redactor {
    secrets: Vec<Vec<u8>>,
    searcher: AhoCorasick,
    /// For the usual case, that no secret occurs; none when there are too many.
    finders: Vec<Finder<'static>>,
    /// Bytes of the longest one.
    longest: usize,
    /// What came last and is the beginning of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// For these secrets; `None` where there are none, and bytes need not be looked at.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn new(secrets: &[Vec<u8>]) -> Result<Option<Self>, SecretError> {
        let count = secrets.len();
        if count > SECRETS_MAX {
            return Err(SecretError::Many { count });
        }
        for (index, secret) in secrets.iter().enumerate() {
            match secret.len() {
                bytes if bytes < SECRET_BYTES_MIN => return Err(SecretError::Short { index, bytes }),
                bytes if bytes > SECRET_BYTES_MAX => return Err(SecretError::Long { index, bytes }),
                _ => {}
            }
        }
        let Some(longest) = secrets.iter().map(Vec::len).max() else {
            return Ok(None);
        };
        let searcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(secrets)
            .map_err(|_| SecretError::Many { count })?;
        let few = if count > FINDERS_MAX { &[] } else { secrets };
        Ok(Some(Self {
            finders: few.iter().map(|secret| Finder::new(secret).into_owned()).collect(),
            secrets: secrets.to_vec(),
            searcher,
            longest,
            held: Vec::new(),
        }))
    }

    /// Bytes that are held back: fewer than the longest secret has.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes what came next, and adds to `out` what may be seen of the text so far.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let joined;
        let text = if self.held.is_empty() {
            bytes
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            joined = held;
            &joined
        };
        let clean = !self.finders.is_empty() && self.finders.iter().all(|finder| finder.find(text).is_none());
        let mut at = 0;
        loop {
            // A match that begins before the hold is final: one that began earlier or went further would have begun a hold.
            let hold = self.hold(text, at);
            let found = if clean {
                None
            } else {
                self.searcher.find(aho_corasick::Input::new(text).range(at..))
            };
            match found {
                Some(found) if found.start() < hold => {
                    out.extend_from_slice(&text[at..found.start()]);
                    out.extend_from_slice(BLOT);
                    at = found.end();
                }
                _ => {
                    out.extend_from_slice(&text[at..hold]);
                    self.held = text[hold..].to_vec();
                    return;
                }
            }
        }
    }

    /// The stream has ended: what is held back is no secret, or one that is followed by the beginning of a longer one.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        let mut at = 0;
        for found in self.searcher.find_iter(&held) {
            out.extend_from_slice(&held[at..found.start()]);
            out.extend_from_slice(BLOT);
            at = found.end();
        }
        out.extend_from_slice(&held[at..]);
    }

    /// Where the first end of the text begins, not before `from`, that is the beginning of a secret and not all of it.
    fn hold(&self, text: &[u8], from: usize) -> usize {
        let first = from.max(text.len().saturating_sub(self.longest - 1));
        (first..text.len())
            .find(|at| {
                let end = &text[*at..];
                self.secrets
                    .iter()
                    .any(|secret| secret.len() > end.len() && secret.starts_with(end))
            })
            .unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    /// The whole text with secrets replaced, by looking at every place.
    fn replaced(secrets: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let (mut out, mut at) = (Vec::new(), 0);
        while at < text.len() {
            let here = secrets.iter().filter(|secret| text[at..].starts_with(secret));
            match here.map(Vec::len).max() {
                Some(length) => {
                    out.extend_from_slice(BLOT);
                    at += length;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        out
    }

    fn pushed(secrets: &[Vec<u8>], chunks: &[&[u8]]) -> Vec<u8> {
        let mut redactor = Redactor::new(secrets).unwrap().unwrap();
        let mut out = Vec::new();
        for chunk in chunks {
            redactor.push(chunk, &mut out);
            assert!(redactor.held() < redactor.longest);
        }
        redactor.finish(&mut out);
        out
    }

    proptest! {
        /// A16: secrets are redacted, wherever a read happens to end.
        #[test]
        fn any_cut_gives_what_the_whole_text_gives(
            secrets in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 4..9), 1..20),
            text in prop::collection::vec(b'a'..=b'd', 0..200),
            spots in prop::collection::vec((0..200_usize, 0..20_usize), 0..6),
            cuts in prop::collection::vec(0..200_usize, 0..20),
        ) {
            let mut text = text;
            for (spot, which) in spots {
                let spot = spot.min(text.len());
                let secret = secrets[which % secrets.len()].clone();
                text.splice(spot..spot, secret);
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            prop_assert_eq!(pushed(&secrets, &chunks), replaced(&secrets, &text));
        }
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_held() {
        let secrets = [b"hunter2".to_vec(), b"hunter22 and more".to_vec()];
        let mut redactor = Redactor::new(&secrets).unwrap().unwrap();
        let mut out = Vec::new();
        redactor.push(b"password: hun", &mut out);
        assert_eq!((out.as_slice(), redactor.held()), (&b"password: "[..], 3));
        redactor.push(b"ter2", &mut out);
        assert_eq!((out.as_slice(), redactor.held()), (&b"password: "[..], 7));
        redactor.push(b"1\n", &mut out);
        assert_eq!((out.as_slice(), redactor.held()), (&b"password: ***1\n"[..], 0));
        redactor.push(b"hunter22 and", &mut out);
        redactor.finish(&mut out);
        assert_eq!(out, b"password: ***1\n***2 and");
    }

    #[test]
    fn what_cannot_be_blotted_out_is_refused() {
        assert!(Redactor::new(&[]).unwrap().is_none());
        let index = 1;
        for (second, expected) in [
            (0, SecretError::Short { index, bytes: 0 }),
            (3, SecretError::Short { index, bytes: 3 }),
            (16_385, SecretError::Long { index, bytes: 16_385 }),
        ] {
            let secrets = [b"long enough".to_vec(), vec![b'x'; second]];
            assert_eq!(Redactor::new(&secrets).unwrap_err(), expected);
        }
        let many = vec![b"long enough".to_vec(); SECRETS_MAX + 1];
        assert_eq!(Redactor::new(&many).unwrap_err(), SecretError::Many { count: 257 });
    }
}
