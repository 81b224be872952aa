//! The newest entries in memory: those that lists, counts and the live stream look at.
//!
//! Kept in chunks that never change once they are full, so that whoever looks takes a [`Snapshot`] by counting
//! references to chunks, and never holds a call up while it filters.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;

/// Entries of a chunk.
const CHUNK: usize = 512;

type Chunk = Arc<[Arc<Entry>]>;

/// The newest entries, oldest first.
#[derive(Debug, Default)]
pub struct Ring {
    full: VecDeque<Chunk>,
    open: Vec<Arc<Entry>>,
    /// So many of the oldest chunk, or of the open one where there is no other, are let go already.
    skip: usize,
    /// The newest that was let go.
    gone: ActivityId,
}

/// Entries as they were at a moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Oldest first, the open one last.
    chunks: Vec<Chunk>,
    skip: usize,
    gone: ActivityId,
}

impl Ring {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.open.len() - self.skip
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of the newest that was ever put in.
    pub fn last(&self) -> ActivityId {
        let newest = self.open.last().or_else(|| self.full.back().and_then(|chunk| chunk.last()));
        newest.map_or(self.gone, |entry| entry.id.max(self.gone))
    }

    /// The newest that was let go.
    pub fn gone(&self) -> ActivityId {
        self.gone
    }

    /// Puts one in, after all others.
    pub fn push(&mut self, entry: Arc<Entry>) {
        self.open.push(entry);
        if self.open.len() == CHUNK {
            let full = std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK));
            self.full.push_back(full.into());
        }
    }

    /// Lets go of the oldest until `keep` are left. What is freed is returned, to be freed outside a lock.
    pub fn keep(&mut self, keep: usize) -> Vec<Chunk> {
        let over = self.len().saturating_sub(keep);
        self.release(over)
    }

    /// Lets go of the oldest as long as they began before a moment, or are not after `id`.
    pub fn retire(&mut self, before: Timestamp, id: ActivityId) -> Vec<Chunk> {
        // They are put in when they end; a long one may stand behind shorter ones that began later.
        let old = self.iter().take_while(|entry| entry.at < before || entry.id <= id).count();
        self.release(old)
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.full.iter().flat_map(|chunk| chunk.iter()).chain(&self.open).skip(self.skip)
    }

    fn at(&self, place: usize) -> Option<&Arc<Entry>> {
        let place = self.skip + place;
        match self.full.get(place / CHUNK) {
            Some(chunk) => chunk.get(place % CHUNK),
            None => self.open.get(place - self.full.len() * CHUNK),
        }
    }

    fn release(&mut self, count: usize) -> Vec<Chunk> {
        if count == 0 {
            return Vec::new();
        }
        self.gone = self.at(count - 1).map_or(self.gone, |entry| entry.id);
        self.skip += count;
        let mut freed = Vec::new();
        while self.skip >= CHUNK {
            let Some(chunk) = self.full.pop_front() else { break };
            self.skip -= CHUNK;
            freed.push(chunk);
        }
        // All of the open chunk is let go only when nothing is kept.
        if self.full.is_empty() && self.skip == self.open.len() {
            freed.push(std::mem::take(&mut self.open).into());
            self.skip = 0;
        }
        freed
    }

    /// All of them.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_after(ActivityId::default())
    }

    /// Those after `id`, and perhaps some before it.
    pub fn snapshot_after(&self, id: ActivityId) -> Snapshot {
        let begin = self.full.partition_point(|chunk| chunk.last().is_some_and(|entry| entry.id <= id));
        let chunks = self.full.range(begin..).cloned().chain([Chunk::from(self.open.as_slice())]).collect();
        Snapshot { chunks, skip: if begin == 0 { self.skip } else { 0 }, gone: self.gone }
    }
}

impl Snapshot {
    /// From the newest to the oldest.
    pub fn newest(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let total: usize = self.chunks.iter().map(|chunk| chunk.len()).sum();
        self.chunks.iter().rev().flat_map(|chunk| chunk.iter().rev()).take(total.saturating_sub(self.skip))
    }

    /// From the newest before `id` to the oldest.
    pub fn before(&self, id: ActivityId) -> impl Iterator<Item = &Arc<Entry>> {
        let end = self.chunks.partition_point(|chunk| chunk.first().is_some_and(|entry| entry.id < id));
        let (chunks, _) = self.chunks.split_at(end);
        let total: usize = chunks.iter().map(|chunk| chunk.len()).sum();
        let newest = chunks.iter().rev().flat_map(|chunk| chunk.iter().rev()).take(total.saturating_sub(self.skip));
        newest.skip_while(move |entry| entry.id >= id)
    }

    /// From the first after `id` to the newest.
    pub fn after(&self, id: ActivityId) -> impl Iterator<Item = &Arc<Entry>> {
        let all = self.chunks.iter().flat_map(|chunk| chunk.iter()).skip(self.skip);
        all.skip_while(move |entry| entry.id <= id)
    }

    /// The one with this id.
    pub fn find(&self, id: ActivityId) -> Option<Arc<Entry>> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|entry| entry.id < id));
        let chunk = self.chunks.get(chunk)?;
        let entry = chunk.binary_search_by_key(&id, |entry| entry.id).ok().and_then(|place| chunk.get(place))?;
        (id > self.gone).then(|| Arc::clone(entry))
    }

    /// The id of the newest that was ever put in.
    pub fn last(&self) -> ActivityId {
        self.newest().next().map_or(self.gone, |entry| entry.id.max(self.gone))
    }

    /// The newest that is not there any more.
    pub fn gone(&self) -> ActivityId {
        self.gone
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::call;
    use super::*;

    fn entry(number: u64) -> Arc<Entry> {
        Arc::new(Entry::of(ActivityId::from_u64(number), call(number)))
    }

    fn ids<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<u64> {
        entries.map(|entry| entry.id.to_u64()).collect()
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_a_list_would_be(steps in proptest::collection::vec((1_usize..700, 0_usize..1_500), 1..8)) {
            let (mut ring, mut list, mut next) = (Ring::default(), Vec::<u64>::new(), 1);
            for (pushed, keep) in steps {
                for _ in 0..pushed {
                    ring.push(entry(next));
                    list.push(next);
                    next += 1;
                }
                ring.keep(keep);
                list.drain(..list.len().saturating_sub(keep));
                let snapshot = ring.snapshot();
                let mut back = list.clone();
                back.reverse();
                proptest::prop_assert_eq!(ring.len(), list.len());
                proptest::prop_assert_eq!(ids(snapshot.newest()), back);
                proptest::prop_assert_eq!((ring.last().to_u64(), snapshot.last().to_u64()), (next - 1, next - 1));
                for middle in [next / 3, next / 2, next - 1] {
                    let id = ActivityId::from_u64(middle);
                    let after: Vec<_> = list.iter().copied().filter(|number| *number > middle).collect();
                    let mut before: Vec<_> = list.iter().copied().filter(|number| *number < middle).collect();
                    before.reverse();
                    proptest::prop_assert_eq!(ids(ring.snapshot_after(id).after(id)), after);
                    proptest::prop_assert_eq!(ids(snapshot.before(id)), before);
                    proptest::prop_assert_eq!(snapshot.find(id).is_some(), list.contains(&middle));
                }
            }
        }
    }

    #[test]
    fn what_is_old_or_not_in_the_files_any_more_is_let_go() {
        let mut ring = Ring::default();
        (1..=10).for_each(|number| ring.push(entry(number)));
        ring.retire(Timestamp::from_seconds(4), ActivityId::default());
        assert_eq!((ring.len(), ring.snapshot().gone().to_u64()), (7, 3));
        ring.retire(Timestamp::default(), ActivityId::from_u64(8));
        assert_eq!(ids(ring.snapshot().newest()), [10, 9]);
        ring.retire(Timestamp::from_seconds(99), ActivityId::default());
        assert_eq!((ring.len(), ring.last().to_u64()), (0, 10));
    }
}
