//! What is counted of a span of time: for each integration and endpoint one [`Cell`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::times::Times;
use crate::base::clock::Timestamp;

/// A call to a service that has ended, as far as it is counted.
#[derive(Debug, Clone)]
pub struct Sample {
    /// When it began.
    pub at: Timestamp,
    /// Whose it was.
    pub series: Series,
    /// Whether it ended badly.
    pub failed: bool,
    /// How often it was tried; zero for what was answered or refused here.
    pub attempts: u32,
    /// What the cache made of it: a word of `trunkline_cache_requests_total`.
    pub cache: Option<Arc<str>>,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Bytes of the bodies, sent and received.
    pub bytes: (u64, u64),
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Series {
    /// The integration.
    pub integration: Arc<str>,
    /// The endpoint; `None` for calls of none that is declared.
    pub endpoint: Option<Arc<str>>,
}

/// Counts of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// All of them.
    pub requests: u64,
    /// Those that ended badly.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub errors: u64,
    /// Those whose answer may be kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cacheable: u64,
    /// Of those, the ones that cost the service nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub saved: u64,
    /// Tries beyond the first of each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// Bytes of bodies that were sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sent_bytes: u64,
    /// Bytes of bodies that were received.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received_bytes: u64,
    /// How long those took that were sent to the service.
    #[serde(default)]
    pub times: Times,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a field by reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Words of the cache for a call that cost the service nothing, or next to nothing: its 304 is counted as saved.
const SAVED: [&str; 4] = ["hit", "stale", "collapsed", "revalidated"];

impl Cell {
    /// Counts a call.
    pub fn count(&mut self, sample: &Sample) {
        let one = |counts: bool| u64::from(counts);
        self.requests += 1;
        self.errors += one(sample.failed);
        self.cacheable += one(sample.cache.is_some());
        self.saved += one(sample.cache.as_deref().is_some_and(|word| SAVED.contains(&word)));
        self.retries += u64::from(sample.attempts.saturating_sub(1));
        self.sent_bytes = self.sent_bytes.saturating_add(sample.bytes.0);
        self.received_bytes = self.received_bytes.saturating_add(sample.bytes.1);
        if sample.attempts > 0 {
            self.times.count(sample.duration_ms);
        }
    }

    /// Counts all of another, but for the times.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.cacheable += other.cacheable;
        self.saved += other.saved;
        self.retries += other.retries;
        self.sent_bytes = self.sent_bytes.saturating_add(other.sent_bytes);
        self.received_bytes = self.received_bytes.saturating_add(other.received_bytes);
    }

    fn merge(&mut self, other: &Self) {
        self.add(other);
        self.times.merge(&other.times);
    }

    fn bytes(&self) -> usize {
        size_of::<(Series, Self)>() + self.times.bytes()
    }
}

/// A span of time in which the gateway ran. One without cells is one without calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Minutes.
    pub width: u32,
    /// What was counted.
    pub cells: HashMap<Series, Cell>,
}

impl Slot {
    /// One without calls.
    pub fn empty(width: u32) -> Self {
        Self { width, cells: HashMap::new() }
    }

    /// Counts all of another.
    pub fn merge(&mut self, other: &Self) {
        for (series, cell) in &other.cells {
            match self.cells.get_mut(series) {
                Some(known) => known.merge(cell),
                None => _ = self.cells.insert(series.clone(), cell.clone()),
            }
        }
    }

    /// Bytes of memory that it takes, names left out: they are shared.
    pub fn bytes(&self) -> usize {
        2 * size_of::<Self>() + self.cells.values().map(Cell::bytes).sum::<usize>()
    }

    /// What goes into a file.
    pub(super) fn encode(&self, minute: u32) -> serde_json::Result<Vec<u8>> {
        let mut cells: Vec<_> = self.cells.iter().collect();
        cells.sort_by_key(|(series, _)| *series);
        let line = |(series, cell): (&Series, &Cell)| CellLine {
            integration: Arc::clone(&series.integration),
            endpoint: series.endpoint.clone(),
            cell: cell.clone(),
        };
        serde_json::to_vec(&Line { minute, width: self.width, cells: cells.into_iter().map(line).collect() })
    }

    /// What came out of it, with its minute. Names that many have are in memory once.
    pub(super) fn decode(bytes: &[u8], known: &mut HashSet<Arc<str>>) -> serde_json::Result<(u32, Self)> {
        let line: Line = serde_json::from_slice(bytes)?;
        let mut slot = Self::empty(line.width.max(1));
        for CellLine { integration, endpoint, cell } in line.cells {
            let series = Series {
                integration: shared(integration, known),
                endpoint: endpoint.map(|endpoint| shared(endpoint, known)),
            };
            slot.cells.insert(series, cell);
        }
        Ok((line.minute, slot))
    }
}

fn shared(text: Arc<str>, known: &mut HashSet<Arc<str>>) -> Arc<str> {
    if let Some(shared) = known.get(&text) {
        return Arc::clone(shared);
    }
    known.insert(Arc::clone(&text));
    text
}

/// A slot in a file.
#[derive(Serialize, Deserialize)]
struct Line {
    minute: u32,
    width: u32,
    cells: Vec<CellLine>,
}

#[derive(Serialize, Deserialize)]
struct CellLine {
    integration: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<Arc<str>>,
    #[serde(flatten)]
    cell: Cell,
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::*;

    #[test]
    fn a_call_is_counted_by_what_became_of_it() {
        let mut cell = Cell::default();
        cell.count(&sample(0));
        cell.count(&Sample { failed: true, attempts: 3, ..sample(0) });
        cell.count(&Sample { attempts: 0, cache: Some("hit".into()), ..sample(0) });
        cell.count(&Sample { cache: Some("miss".into()), bytes: (5, 7), ..sample(0) });
        let counts = (cell.requests, cell.errors, cell.cacheable, cell.saved, cell.retries);
        assert_eq!((counts, cell.sent_bytes, cell.received_bytes), ((4, 1, 2, 1, 2), 5, 7));
        let mut sum = super::super::times::Sum::default();
        sum.add(&cell.times);
        assert_eq!(sum.count(), 3, "what was answered here took the service no time");
    }

    #[test]
    fn what_is_written_reads_back() {
        let mut slot = Slot::empty(15);
        slot.cells.entry(sample(0).series).or_default().count(&sample(0));
        slot.cells.entry(Series { endpoint: None, ..sample(0).series }).or_default().count(&sample(0));
        let mut known = HashSet::new();
        assert_eq!(Slot::decode(&slot.encode(7).expect("JSON"), &mut known).expect("own JSON"), (7, slot));
        assert_eq!(known.len(), 2);
    }
}
