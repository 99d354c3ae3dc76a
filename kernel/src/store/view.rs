//! One table as a reader sees it: what is sealed, and over it what is sequenced.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::engine::{EngineError, Snapshot, Span};

/// What is sequenced and not sealed, of one table.
pub(super) type Pending = BTreeMap<Bytes, (u64, Option<Bytes>)>;

/// A table at one time.
pub struct View {
    pub(super) pending: Option<Arc<Pending>>,
    pub(super) sealed: Box<dyn Snapshot>,
    /// The last commit that is in it.
    pub(super) sequence: u64,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl View {
    /// The last commit that is in it.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether some of it is not on disk yet.
    pub fn is_ahead(&self) -> bool {
        self.pending.as_ref().is_some_and(|p| !p.is_empty())
    }

    /// The value of a key.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.pending.as_ref().and_then(|p| p.get(key)) {
            Some((_, value)) => Ok(value.clone()),
            None => self.sealed.get(key),
        }
    }

    /// Tells the entries of a span in order, until it is told `false`. `over` are changes on top, not sequenced yet.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn scan(
        &self,
        span: Span<'_>,
        over: &BTreeMap<Bytes, Option<Bytes>>,
        each: &mut dyn FnMut(&[u8], Bytes) -> bool,
    ) -> Result<(), EngineError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        if span.end.is_some_and(|end| end <= span.start) {
            return Ok(());
        }
        let bounds = (Included(span.start), span.end.map_or(Unbounded, Excluded));
        let mut changes: BTreeMap<&[u8], Option<&Bytes>> = BTreeMap::new();
        if let Some(pending) = &self.pending {
            let range = pending.range::<[u8], _>(bounds);
            changes.extend(range.map(|(k, (_, v))| (&k[..], v.as_ref())));
        }
        changes.extend(over.range::<[u8], _>(bounds).map(|(k, v)| (&k[..], v.as_ref())));
        // Changes up to a key of what is sealed come before it, in the direction of the scan.
        let mut changes: Box<dyn Iterator<Item = (&[u8], Option<&Bytes>)>> = if span.backwards {
            Box::new(changes.into_iter().rev())
        } else {
            Box::new(changes.into_iter())
        };
        let mut next = changes.next();
        let mut stopped = false;
        self.sealed.scan(span, &mut |key, value| {
            while let Some((changed, now)) = next {
                let before = if span.backwards { changed > key } else { changed < key };
                if !before {
                    break;
                }
                if let Some(now) = now
                    && !each(changed, now.clone())
                {
                    stopped = true;
                    return false;
                }
                next = changes.next();
            }
            let go_on = match next {
                Some((changed, now)) if changed == key => {
                    next = changes.next();
                    now.is_none_or(|now| each(key, now.clone()))
                }
                _ => each(key, value),
            };
            stopped = !go_on;
            go_on
        })?;
        while let (Some((changed, now)), false) = (next, stopped) {
            if let Some(now) = now {
                stopped = !each(changed, now.clone());
            }
            next = changes.next();
        }
        Ok(())
    }

    /// The keys of the table, in order, until it is told `false`.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn keys(&self, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), EngineError> {
        match &self.pending {
            Some(pending) if !pending.is_empty() => self.scan(Span::ALL, &BTreeMap::new(), &mut |key, _| each(key)),
            _ => self.sealed.keys(Span::ALL, each),
        }
    }
}
