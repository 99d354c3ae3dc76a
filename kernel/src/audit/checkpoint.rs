//! `checkpoint`: how far the log was verified, so that a boot looks only at what came after (K13).
//!
//! It holds the whole state of verification after a seal, signed with the log's own key: nobody else can make one that stands for entries
//! that were never looked at. A checkpoint that does not fit is no error; everything is verified then. One that fits is the log's own word
//! that there was so much: a log that ends before it was cut off.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::entry::{Hash, NAME_BYTES_MAX};
use astrid_wire::proof::PublicKey;

use super::files::read_bounded;
use super::key::{Signer, has_signed};
use super::links::{Links, PRINCIPALS_MAX};
use super::verify::{OPEN_INTENTS_MAX, State};
use crate::home::{Durability, PRIVATE_FILE, replace_file};

/// Its name.
pub(super) const FILE: &str = "checkpoint";

const MAGIC: [u8; 12] = *b"ASTRIDAC\x01\0\0\0";

/// Before what is signed.
const DOMAIN: &[u8] = b"astrid audit checkpoint v1";

/// Bytes of a checkpoint at most.
const BYTES_MAX: u64 = (512 + OPEN_INTENTS_MAX * 8 + PRINCIPALS_MAX * (2 + NAME_BYTES_MAX + 32)) as u64;

fn encode(state: &State, key: &PublicKey) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for number in [state.segment, state.offset, state.sequence, state.boot] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(&state.head);
    bytes.extend_from_slice(&key.0);
    bytes.push(u8::from(state.links.is_anywhere()));
    bytes.extend_from_slice(&(state.open.len() as u64).to_le_bytes());
    for intent in &state.open {
        bytes.extend_from_slice(&intent.to_le_bytes());
    }
    bytes.extend_from_slice(&(state.links.iter().len() as u64).to_le_bytes());
    for (principal, hash) in state.links.iter() {
        // Within its limit, which two bytes hold.
        bytes.extend_from_slice(&(principal.len() as u16).to_le_bytes());
        bytes.extend_from_slice(principal.as_bytes());
        bytes.extend_from_slice(hash);
    }
    bytes
}

/// Writes the state. It must be sealed and on disk.
pub(super) fn write(directory: &Path, state: &State, signer: &Signer) -> io::Result<()> {
    let bytes = encode(state, &signer.public());
    let digest = blake3::hash(&bytes);
    let signature = signer.sign(&[DOMAIN, digest.as_bytes()].concat());
    replace_file(
        &directory.join(FILE),
        &[&bytes, &signature],
        PRIVATE_FILE,
        Durability::Synced,
    )
}

/// The state that its key signed, whosever that is; none when there is none that can be used.
pub(super) fn read(directory: &Path) -> Option<State> {
    let bytes = read_bounded(&directory.join(FILE), BYTES_MAX).ok()?;
    let (content, signature) = bytes.split_last_chunk::<64>()?;
    let digest = blake3::hash(content);
    // Where `encode` puts it.
    let key = PublicKey(content.get(12 + 4 * 8 + 32..)?.first_chunk().copied()?);
    if !has_signed(&key, &[DOMAIN, digest.as_bytes()].concat(), signature) {
        return None;
    }
    decode(content)
}

/// What was signed is right; that it is short is all that could be wrong.
fn decode(mut bytes: &[u8]) -> Option<State> {
    fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (part, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*part)
    }
    let from = &mut bytes;
    let number = |from: &mut &[u8]| array(from).map(u64::from_le_bytes);
    (array(from)? == MAGIC).then_some(())?;
    let (segment, offset, sequence, boot) = (number(from)?, number(from)?, number(from)?, number(from)?);
    let head: Hash = array(from)?;
    let key = PublicKey(array(from)?);
    let [anywhere] = array(from)?;
    let open = (0..number(from)?)
        .map(|_| number(from))
        .collect::<Option<BTreeSet<u64>>>()?;
    let mut links = Links::default();
    links.begin_anywhere(anywhere == 1);
    for _ in 0..number(from)? {
        let length = usize::from(u16::from_le_bytes(array(from)?));
        let (name, rest) = from.split_at_checked(length)?;
        *from = rest;
        links.set(std::str::from_utf8(name).ok()?, &array(from)?);
    }
    from.is_empty().then_some(State {
        segment,
        offset,
        head,
        sequence,
        unsealed: 0,
        key: Some(key),
        links,
        open,
        boot,
    })
}
