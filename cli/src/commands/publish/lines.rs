//! `astrid publish --lines`: many messages through one connection, so many on their way at once that the disk's syncs are shared, and
//! not more.

use std::collections::BTreeMap;
use std::time::Instant;

use astrid_wire::Topic;
use rustix::io::Errno;
use serde_json::json;

use crate::body::Body;
use crate::client::{Client, REQUEST_TIMEOUT};
use crate::failure::Failure;
use crate::output::Output;

/// Messages that were sent and not answered at most.
const AHEAD_MAX: usize = 64;

/// Bytes of a line at most.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Bytes that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Bytes that a line's number adds to an id at most.
pub(super) const NUMBER_BYTES_MAX: usize = 21;

/// What is the same for all lines.
pub(super) struct Lines {
    /// Where.
    pub(super) topic: Topic,
    /// Of each.
    pub(super) content_type: Option<String>,
    /// Begins the ids.
    pub(super) id_prefix: Option<String>,
}

/// Lines of stdin as they come, without waiting for more than there is.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    /// Before here it was given out.
    start: usize,
    /// From there up to here there is no line's end.
    looked_at: usize,
    ended: bool,
}

impl Input {
    /// The next line, without its end, if it is there. A last one without an end counts if it is not empty.
    fn line(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let rest = &self.bytes[self.looked_at..];
        let end = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => self.looked_at + at,
            None if self.ended && self.start < self.bytes.len() => self.bytes.len(),
            None => {
                self.looked_at = self.bytes.len();
                if self.bytes.len() - self.start > LINE_BYTES_MAX {
                    let text = format!("a line of stdin is longer than {LINE_BYTES_MAX} bytes");
                    return Err(Failure::failed(text).into());
                }
                return Ok(None);
            }
        };
        let line = self.bytes[self.start..end].to_vec();
        self.start = (end + 1).min(self.bytes.len());
        self.looked_at = self.start;
        Ok(Some(line))
    }

    /// Reads what there is; waits if that is nothing.
    fn fill(&mut self) -> anyhow::Result<()> {
        self.bytes.drain(..self.start);
        self.looked_at -= self.start;
        self.start = 0;
        let mut buffer = vec![0; READ_BYTES];
        match rustix::io::read(std::io::stdin(), &mut buffer) {
            Ok(0) => self.ended = true,
            Ok(read) => self.bytes.extend_from_slice(&buffer[..read]),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(anyhow::Error::new(error).context("cannot read stdin")),
        }
        Ok(())
    }
}

impl Lines {
    /// Publishes all of them. What is refused is said, and the others go on.
    pub(super) fn publish(&self, client: &mut Client, output: Output) -> anyhow::Result<()> {
        let mut input = Input::default();
        // By the number of the request, the number of its line.
        let mut ahead: BTreeMap<u64, u64> = BTreeMap::new();
        let (mut line, mut refused) = (0u64, 0u64);
        loop {
            while ahead.len() < AHEAD_MAX
                && let Some(bytes) = input.line()?
            {
                line += 1;
                let id = self.id_prefix.as_ref().map(|prefix| format!("{prefix}-{line}"));
                let body = Body::of(bytes, self.content_type.clone());
                ahead.insert(client.publish_ahead(&self.topic, body, id)?, line);
            }
            if ahead.is_empty() && input.ended {
                break;
            }
            // Only a full window, or the end of the input, is worth waiting for answers alone.
            let must = ahead.len() >= AHEAD_MAX || input.ended;
            let answer = client.accepted(must.then(|| Instant::now() + REQUEST_TIMEOUT))?;
            match answer {
                Some((id, failure)) => {
                    if let Some(line) = ahead.remove(&id) {
                        refused += u64::from(failure.is_some());
                        tell(output, line, failure)?;
                    }
                }
                None => {
                    client.wait_for(std::io::stdin())?;
                    if is_readable()? {
                        input.fill()?;
                    }
                }
            }
        }
        if refused > 0 {
            return Err(Failure::failed(format!("{refused} of {line} lines were refused")).into());
        }
        Ok(())
    }
}

/// Whether stdin has something, or has ended.
fn is_readable() -> anyhow::Result<bool> {
    use rustix::event::{PollFd, PollFlags};
    let stdin = std::io::stdin();
    let ready = crate::process::wait(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(Instant::now()))?;
    Ok(ready > 0)
}

fn tell(output: Output, line: u64, failure: Option<Failure>) -> anyhow::Result<()> {
    match (failure, output.is_json()) {
        (None, false) => Output::bytes(format!("accepted {line}\n").as_bytes()),
        (None, true) => Output::json_line(&json!({ "accepted": line })),
        (Some(failure), false) => {
            output.say(&format!("refused {line}: {failure}"));
            Ok(())
        }
        (Some(failure), true) => Output::json_line(&json!({ "refused": line, "message": failure.to_string() })),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_come_as_they_are_complete() {
        let mut input = Input::default();
        let text = |line: Option<Vec<u8>>| line.map(|line| String::from_utf8(line).unwrap());
        assert_eq!(text(input.line().unwrap()), None);
        input.bytes.extend(b"one\n\ntw");
        assert_eq!(text(input.line().unwrap()).as_deref(), Some("one"));
        assert_eq!(text(input.line().unwrap()).as_deref(), Some(""));
        assert_eq!(text(input.line().unwrap()), None);
        input.bytes.extend(b"o\nthree");
        assert_eq!(text(input.line().unwrap()).as_deref(), Some("two"));
        assert_eq!(text(input.line().unwrap()), None);
        input.ended = true;
        assert_eq!(text(input.line().unwrap()).as_deref(), Some("three"));
        assert_eq!(text(input.line().unwrap()), None);
        let mut input = Input {
            bytes: vec![b'x'; LINE_BYTES_MAX + 1],
            ..Input::default()
        };
        assert!(input.line().is_err());
    }

    #[test]
    fn numbers_fit_beside_a_prefix() {
        assert_eq!(format!("-{}", u64::MAX).len(), NUMBER_BYTES_MAX);
    }
}
