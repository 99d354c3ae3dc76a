//! Ids that clients give their messages, so that what is sent twice happens once.
//!
//! Per principal a ring: the id's own row says that it was seen, and a row per ordinal says which id came when, so that what leaves
//! the window is found without a search. The window ends after a day or a hundred thousand ids, whichever comes first.

use std::collections::HashMap;

use astrid_wire::Principal;
use bytes::{BufMut, Bytes, BytesMut};

use super::engine::{EngineError, Write};
use super::table::Table;
use super::{Once, State, Store};

/// Ids of a principal that are remembered at most.
pub const WINDOW_IDS_MAX: u64 = 100_000;

/// How long an id is remembered at most, in milliseconds.
pub const WINDOW_MS: u64 = 24 * 3600 * 1000;

/// Ids that leave the window with one that enters it at most, so that the work for one is bounded.
const LEAVING_MAX: u64 = 4;

/// Principals whose place in the ring is kept in memory at most; others are looked up.
const WINDOWS_MAX: usize = 10_000;

/// The ordinals of the ids that are remembered: from the first, up to and without the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    first: u64,
    last: u64,
}

/// Where principals are in their rings.
#[derive(Default)]
pub(super) struct Windows(HashMap<Principal, Window, ahash::RandomState>);

impl Windows {
    /// After a failure: what is on disk counts.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

const BOUNDS: &[u8] = b"b";

fn id_key(id: &[u8]) -> Bytes {
    let mut key = BytesMut::with_capacity(1 + id.len());
    key.put_u8(b'i');
    key.put(id);
    key.freeze()
}

fn place_key(ordinal: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(9);
    key.put_u8(b'n');
    key.put_u64(ordinal);
    key.freeze()
}

fn numbers(row: &[u8]) -> Option<(u64, u64)> {
    let (a, b) = row.split_at_checked(8)?;
    Some((
        u64::from_be_bytes(a.try_into().ok()?),
        u64::from_be_bytes(b.get(..8)?.try_into().ok()?),
    ))
}

impl Store {
    /// Whether an id is new; if so, the rows that remember it are added to the writes.
    pub(super) fn admit(
        &self,
        state: &mut State,
        once: &Once,
        now_ms: u64,
        writes: &mut Vec<Write>,
    ) -> Result<bool, EngineError> {
        let table = Table::once(&once.principal);
        let engine = self.engine()?;
        let sealed = engine.snapshot(&table)?;
        let get = |writes: &[Write], key: &[u8]| -> Result<Option<Bytes>, EngineError> {
            if let Some(write) = writes.iter().rev().find(|w| w.table == table && w.key == key) {
                return Ok(write.value.clone());
            }
            match state.pending.get(&table).and_then(|p| p.get(key)) {
                Some((_, value)) => Ok(value.clone()),
                None => sealed.get(key),
            }
        };
        let key = id_key(&once.id);
        if let Some(row) = get(writes, &key)?
            && numbers(&row).is_none_or(|(at, _)| now_ms.saturating_sub(at) < WINDOW_MS)
        {
            return Ok(false);
        }
        let mut window = match state.windows.0.get(&once.principal) {
            Some(window) => *window,
            None => get(writes, BOUNDS)?
                .and_then(|row| numbers(&row))
                .map_or_else(Window::default, |(first, last)| Window { first, last }),
        };
        for _ in 0..LEAVING_MAX {
            let place = place_key(window.first);
            let Some(oldest) = (window.first < window.last)
                .then(|| get(writes, &place))
                .transpose()?
                .flatten()
            else {
                break;
            };
            let (at, id) = oldest.split_at_checked(8).unwrap_or((&[], &[]));
            let at = at.try_into().map_or(0, u64::from_be_bytes);
            let old = now_ms.saturating_sub(at) >= WINDOW_MS;
            if !old && window.last - window.first < WINDOW_IDS_MAX {
                break;
            }
            // An id that came again after a day has a later place.
            let id = id_key(id);
            let current = get(writes, &id)?.and_then(|row| numbers(&row));
            if current.is_none_or(|(_, ordinal)| ordinal == window.first) {
                writes.push(Write::delete(table.clone(), id));
            }
            writes.push(Write::delete(table.clone(), place));
            window.first += 1;
        }
        let row = |a: u64, b: u64| [a.to_be_bytes(), b.to_be_bytes()].concat();
        let mut place = now_ms.to_be_bytes().to_vec();
        place.extend_from_slice(&once.id);
        writes.push(Write::put(table.clone(), key, row(now_ms, window.last)));
        writes.push(Write::put(table.clone(), place_key(window.last), place));
        window.last += 1;
        writes.push(Write::put(
            table,
            Bytes::from_static(BOUNDS),
            row(window.first, window.last),
        ));
        if state.windows.0.len() >= WINDOWS_MAX {
            state.windows.0.clear();
        }
        state.windows.0.insert(once.principal.clone(), window);
        Ok(true)
    }
}
