//! Whole streams in arbitrary pieces, and hostile ones (A3).
#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;

/// Pushes a stream in pieces of these sizes (the last one repeats) and takes what comes out.
fn decode(decoder: &mut FrameDecoder, mut stream: &[u8], pieces: &[usize]) -> Result<Vec<Bytes>, FrameError> {
    let mut payloads = Vec::new();
    let mut sizes = pieces
        .iter()
        .copied()
        .chain(std::iter::repeat(*pieces.last().unwrap_or(&1)));
    while !stream.is_empty() {
        let size = sizes.next().unwrap().clamp(1, stream.len());
        decoder.push(&stream[..size]);
        stream = &stream[size..];
        while let Some(payload) = decoder.next()? {
            payloads.push(payload);
        }
    }
    Ok(payloads)
}

proptest! {
    #[test]
    fn any_pieces_give_the_same_payloads(
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
        pieces in proptest::collection::vec(1usize..700, 1..16),
    ) {
        let stream: Vec<u8> = payloads.iter().flat_map(|payload| encode(payload)).collect();
        let mut decoder = FrameDecoder::new();
        let decoded = decode(&mut decoder, &stream, &pieces).unwrap();
        prop_assert_eq!(decoded, payloads);
        prop_assert!(!decoder.is_mid_frame());
    }

    /// Whatever a stranger sends: payloads within the limit or a typed error, and memory within what was sent.
    #[test]
    fn garbage_is_bounded(
        stream in proptest::collection::vec(any::<u8>(), 0..4096),
        pieces in proptest::collection::vec(1usize..64, 1..16),
        limit in 1u32..5000,
    ) {
        let mut decoder = FrameDecoder::new();
        decoder.set_limit(limit);
        if let Ok(payloads) = decode(&mut decoder, &stream, &pieces) {
            prop_assert!(payloads.iter().all(|payload| !payload.is_empty() && payload.len() <= limit as usize));
        }
        prop_assert!(decoder.buffer.capacity() <= 2 * FIRST_BYTES);
    }

    /// Small lengths, so that valid frames and broken ones follow each other.
    #[test]
    fn an_error_is_final(
        lengths in proptest::collection::vec(0u32..12, 1..12),
        pieces in proptest::collection::vec(1usize..9, 1..4),
    ) {
        let stream: Vec<u8> =
            lengths.iter().flat_map(|length| [length.to_be_bytes().to_vec(), vec![7; *length as usize]].concat()).collect();
        let mut decoder = FrameDecoder::new();
        decoder.set_limit(9);
        let result = decode(&mut decoder, &stream, &pieces);
        let first_bad = lengths.iter().find(|length| !(1..=9).contains(*length));
        match first_bad {
            None => prop_assert_eq!(result.unwrap().len(), lengths.len()),
            Some(bad) => {
                let error = if *bad == 0 { FrameError::Empty } else { FrameError::TooLarge { length: *bad, limit: 9 } };
                prop_assert_eq!(result, Err(error));
                decoder.push(&encode(b"ok"));
                prop_assert_eq!(decoder.next(), Err(error));
                prop_assert_eq!(decoder.buffer.capacity(), 0);
            }
        }
    }
}

/// A3: a length is judged from its four bytes alone.
#[test]
fn lengths_are_judged_before_allocation() {
    for (limit, length) in [
        (HANDSHAKE_BYTES_MAX, HANDSHAKE_BYTES_MAX + 1),
        (PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MAX + 1),
        (PAYLOAD_BYTES_MAX, u32::MAX),
    ] {
        let mut decoder = FrameDecoder::new();
        decoder.set_limit(limit);
        decoder.push(&length.to_be_bytes()[..3]);
        assert_eq!(decoder.next(), Ok(None));
        decoder.push(&length.to_be_bytes()[3..]);
        assert_eq!(decoder.next(), Err(FrameError::TooLarge { length, limit }));
    }
    let mut decoder = FrameDecoder::new();
    decoder.push(&[0, 0, 0, 0]);
    assert_eq!(decoder.next(), Err(FrameError::Empty));
}

/// A3: what is announced is not allocated, only what arrived.
#[test]
fn memory_follows_what_arrived() {
    let mut decoder = FrameDecoder::new();
    decoder.set_limit(PAYLOAD_BYTES_MAX);
    decoder.push(&PAYLOAD_BYTES_MAX.to_be_bytes());
    assert!(decoder.buffer.capacity() <= FIRST_BYTES);
    let piece = vec![1; 64 * 1024];
    let mut arrived = HEADER_BYTES;
    for _ in 0..255 {
        decoder.push(&piece);
        arrived += piece.len();
        assert_eq!(decoder.next(), Ok(None));
        assert!(
            decoder.buffer.capacity() <= 2 * (arrived + FIRST_BYTES),
            "{} for {arrived}",
            decoder.buffer.capacity()
        );
    }
    decoder.push(&piece);
    assert_eq!(decoder.next().unwrap().unwrap().len(), PAYLOAD_BYTES_MAX as usize);
}

/// The limit may be raised between frames: the next length is judged by the new one, also when its bytes are here already.
#[test]
fn the_limit_moves_with_the_handshake() {
    let large = vec![1; HANDSHAKE_BYTES_MAX as usize + 1];
    let mut decoder = FrameDecoder::new();
    decoder.push(&[encode(b"hello"), encode(&large)].concat());
    assert_eq!(decoder.next().unwrap().unwrap(), &b"hello"[..]);
    decoder.set_limit(PAYLOAD_BYTES_MAX);
    assert_eq!(decoder.next().unwrap().unwrap(), large);
}

/// A4: newline JSON is refused, and named.
#[test]
fn json_is_named() {
    let mut decoder = FrameDecoder::new();
    decoder.push(b"{\"method\":\"hello\"}\n");
    assert_eq!(decoder.next(), Err(FrameError::Json));
}
