//! Frames: a length (u32, big-endian) and as many bytes (contract A3).
//!
//! The decoder takes bytes in whatever pieces they arrive and gives whole payloads. A length is judged before anything is
//! allocated for it, and memory grows with what has arrived, not with what was announced. After an error the stream
//! has no meaning any more, so the decoder stays failed: the only thing left to do is to close.

use bytes::{Buf, Bytes, BytesMut};

/// Most bytes of a payload before the handshake is complete: a stranger is owed no more (A3).
pub const HANDSHAKE_BYTES_MAX: u32 = 64 * 1024;

/// Most bytes of a payload after it (A3). Larger bodies are uploaded in chunks.
pub const PAYLOAD_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Bytes of the length.
pub const HEADER_BYTES: usize = 4;

/// What is allocated at first for an announced payload; from there on it doubles as bytes arrive.
const FIRST_BYTES: usize = 64 * 1024;

/// Why a stream is not made of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame without payload.
    #[error("a frame of length zero")]
    Empty,
    /// A length over the present limit.
    #[error("a frame of {length} bytes, the limit is {limit}")]
    TooLarge {
        /// As announced.
        length: u32,
        /// The limit at that time.
        limit: u32,
    },
    /// The stream begins like newline-delimited JSON, which is not spoken here (A4).
    #[error("this looks like JSON; frames begin with a length of four bytes")]
    Json,
}

/// Cuts a stream of bytes into payloads.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: BytesMut,
    limit: u32,
    failed: Option<FrameError>,
}

impl Default for FrameDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameDecoder {
    /// A decoder with the limit of the handshake.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            limit: HANDSHAKE_BYTES_MAX,
            failed: None,
        }
    }

    /// Sets the most bytes that a payload may have, for frames whose length has not been judged yet.
    pub fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Takes bytes that arrived. After an error they are dropped.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        // Room is made in steps: at most for the frame that is announced, at first little, then twice what has arrived.
        while !bytes.is_empty() {
            if self.buffer.capacity() == self.buffer.len() {
                let wanted = self.announced().map_or(bytes.len(), |length| {
                    (HEADER_BYTES + length as usize).saturating_sub(self.buffer.len())
                });
                let step = wanted
                    .min(FIRST_BYTES.max(self.buffer.len()))
                    .max(bytes.len().min(FIRST_BYTES));
                self.buffer.reserve(step);
            }
            let taken = bytes.len().min(self.buffer.capacity() - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
        }
    }

    /// The next payload, or nothing until more bytes are pushed.
    ///
    /// # Errors
    /// The stream is not made of frames within the limit. The same error is given from then on.
    #[allow(
        clippy::should_implement_trait,
        reason = "nothing now does not mean that nothing follows"
    )]
    pub fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(length) = self.announced() else {
            return Ok(None);
        };
        if let Err(error) = self.judge(length) {
            self.failed = Some(error);
            self.buffer = BytesMut::new();
            return Err(error);
        }
        if self.buffer.len() - HEADER_BYTES < length as usize {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        Ok(Some(self.buffer.split_to(length as usize).freeze()))
    }

    /// Whether it holds a part of a frame, so that an end of the stream here would be an early one.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    fn announced(&self) -> Option<u32> {
        self.buffer
            .first_chunk::<HEADER_BYTES>()
            .map(|header| u32::from_be_bytes(*header))
    }

    fn judge(&self, length: u32) -> Result<(), FrameError> {
        if length == 0 {
            return Err(FrameError::Empty);
        }
        if length > self.limit {
            let json = self.buffer.first() == Some(&b'{');
            return Err(if json {
                FrameError::Json
            } else {
                FrameError::TooLarge {
                    length,
                    limit: self.limit,
                }
            });
        }
        Ok(())
    }
}

/// One frame with this payload. It does not judge the length: a payload is within [`PAYLOAD_BYTES_MAX`], or the other side closes.
#[must_use]
pub fn encode(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
    frame.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests;
