//! Old segments go, whole: what is still live in one is written again first.
//!
//! Live is an event that is not finished, a dead one, and a dedupe mark within its window. While an
//! event is carried nothing may happen to it; an event that is being worked on puts its segment off
//! until the next time. What is forgotten is written to the journal before it is, so that an index that
//! is made anew forgets the same.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::op::{self, Op};
use super::row::{DeliveryRow, EventRow, Mark};
use super::work::Settling;
use super::{Embedded, Entry};
use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::journal::{Durability, segment};
use crate::store::model::EventState;

/// Operations in one entry.
const CHUNK: usize = 4_096;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retired {
    /// Segments of the events journal.
    pub segments: usize,
    /// Finished events that are gone with them.
    pub events: usize,
    /// Live events that were written again.
    pub carried: usize,
    /// Segments of the records journal.
    pub record_segments: usize,
}

/// What a segment holds.
#[derive(Default)]
struct Contents {
    events: Vec<u128>,
    marks: Vec<([u8; 16], Mark)>,
    newest: Timestamp,
}

impl Embedded {
    /// Removes old segments as the retention says, and those of records that hold little that is live.
    /// To be called now and then; hourly is enough.
    ///
    /// # Errors
    /// When writing or reading fails; what was done until then is consistent. While the store is not in use yet: its index
    /// may know less than the journal, and what it does not know would be lost or undone.
    pub async fn retire(&self) -> Result<Retired, StoreError> {
        self.beginning.state()?;
        let _alone = self.retiring.lock().await;
        let mut retired = Retired { record_segments: self.records.compact().await?, ..Retired::default() };
        while self.retire_oldest(&mut retired).await? {}
        Ok(retired)
    }

    /// Removes the oldest segment, when it is old enough and no one works on what is in it.
    async fn retire_oldest(&self, retired: &mut Retired) -> Result<bool, StoreError> {
        let openings = self.index.openings();
        let directory = self.directory.join("events");
        let failed = |error: std::io::Error| super::open::unavailable(&directory, &error);
        let segments = segment::list(&*self.disk, &directory).map_err(failed)?;
        let &[oldest, next, ..] = segments.as_slice() else { return Ok(false) };
        let sizes = segments.iter().map(|first| {
            self.disk.read(&segment::path(&directory, *first)).and_then(|file| file.metadata()).map(|meta| meta.len())
        });
        let bytes = sizes.sum::<std::io::Result<u64>>().map_err(failed)?;
        let contents = self.contents_of(oldest, next)?;
        let now = self.clock.now();
        let too_large = self.retention.bytes.is_some_and(|limit| bytes > limit);
        if contents.newest.after(self.retention.age) > now && !too_large {
            return Ok(false);
        }
        self.up_to_date().await?;
        let Some(sorted) = self.sort_out(oldest, &contents, now)? else { return Ok(false) };
        if self.index.openings() != openings {
            // It was repaired meanwhile, and what it did not have yet would be taken for gone.
            return Ok(false);
        }
        retired.carried += self.carry(&sorted.live).await?;
        self.forget(&sorted).await?;
        self.events.retire(next).await?;
        retired.events += sorted.finished.len();
        retired.segments += 1;
        Ok(true)
    }

    fn contents_of(&self, first: u64, next: u64) -> Result<Contents, StoreError> {
        let mut contents = Contents::default();
        segment::walk(&*self.disk, &self.directory.join("events"), first, &mut |sequence, _, payload| {
            if sequence >= next {
                return Ok(ControlFlow::Break(()));
            }
            match op::decode(payload)?.0 {
                Op::Accepted { head, .. } => {
                    contents.newest = contents.newest.max(head.received_at);
                    contents.events.push(head.id);
                }
                Op::Carried { row, .. } => contents.events.push(row.head.id),
                Op::Finished { attempt, .. } => contents.newest = contents.newest.max(attempt.started_at),
                Op::Remembered { marks } => contents.marks.extend(marks),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(contents)
    }

    /// Tells what is live from what is finished, and holds all of it; `None` when someone works on it.
    fn sort_out(&self, segment: u64, contents: &Contents, now: Timestamp) -> Result<Option<Sorted>, StoreError> {
        let mut sorted = Sorted::default();
        for event in &contents.events {
            let Some(held) = self.hold_idle(*event) else {
                // It is listed twice, or being worked on.
                if sorted.seen.contains(event) {
                    continue;
                }
                return Ok(None);
            };
            let Some(row) = self.index.event(*event)?.filter(|row| row.pointer.segment == segment) else { continue };
            sorted.seen.insert(*event);
            sorted.held.push(held);
            match row.state {
                EventState::Queued | EventState::Delivering | EventState::Dead => sorted.live.push(row),
                EventState::Done | EventState::Discarded => {
                    match row.head.mark() {
                        Some((hash, mark)) if mark.until > now => sorted.remembered.push((hash, mark)),
                        Some((hash, mark)) => sorted.expired.push((hash, mark.event)),
                        None => {}
                    }
                    sorted.finished.push(row.head.id);
                }
            }
        }
        for (hash, mark) in &contents.marks {
            if mark.until > now {
                sorted.remembered.push((*hash, *mark));
            } else {
                sorted.expired.push((*hash, mark.event));
            }
        }
        Ok(Some(sorted))
    }

    /// Writes live events again, with all that is known of them.
    async fn carry(&self, live: &[EventRow]) -> Result<usize, StoreError> {
        for row in live {
            let payload = self.payload(row.pointer)?;
            let (op, bytes) = op::decode(&payload)?;
            let (Op::Accepted { content, .. } | Op::Carried { content, .. }) = op else {
                return Err(StoreError::Read(Arc::from("another operation stands where the event should")));
            };
            let deliveries: Vec<DeliveryRow> = (0..row.deliveries)
                .map(|ordinal| {
                    let found = self.index.delivery((row.head.id, ordinal))?;
                    found.ok_or_else(|| self.index.damaged("a delivery has no row"))
                })
                .collect::<Result<_, _>>()?;
            let op = Op::Carried { row: row.clone(), deliveries, content };
            let carried = op::encode(&op, &[bytes])?;
            self.events.append(carried, Entry::of(op), Durability::Written).await?;
        }
        Ok(live.len())
    }

    async fn forget(&self, sorted: &Sorted) -> Result<(), StoreError> {
        for marks in sorted.remembered.chunks(CHUNK) {
            self.write(Op::Remembered { marks: marks.to_vec() }).await?;
        }
        for events in sorted.finished.chunks(CHUNK) {
            self.write(Op::Forgotten { events: events.to_vec(), marks: Vec::new() }).await?;
        }
        for marks in sorted.expired.chunks(CHUNK) {
            self.write(Op::Forgotten { events: Vec::new(), marks: marks.to_vec() }).await?;
        }
        self.events.sync().await?;
        self.up_to_date().await
    }

    async fn write(&self, op: Op) -> Result<(), StoreError> {
        self.events.append(op::encode(&op, &[])?, Entry::of(op), Durability::Written).await.map(drop)
    }
}

/// What becomes of a segment's contents.
#[derive(Default)]
struct Sorted {
    live: Vec<EventRow>,
    finished: Vec<u128>,
    remembered: Vec<([u8; 16], Mark)>,
    expired: Vec<([u8; 16], u128)>,
    seen: std::collections::HashSet<u128>,
    /// Keeps all of them as they are.
    held: Vec<Settling>,
}

#[cfg(test)]
mod tests {
    use super::super::open::tests::event;
    use super::super::{Options, open};
    use super::*;
    use crate::base::clock::SystemClock;
    use crate::base::units::Reserve;
    use crate::store::Events as _;
    use crate::store::disk::tests::OddDisk;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_removed_by_an_index_that_is_made_anew_meanwhile() {
        let (directory, disk) = (tempfile::tempdir().expect("a directory"), Arc::new(OddDisk::default()));
        let options = Options {
            segment_bytes: 2_000,
            min_free: Reserve::Bytes(0),
            disk: Arc::clone(&disk) as _,
            ..Options::new(directory.path(), Arc::new(SystemClock::new()))
        };
        let store = open(&options).expect("opens");
        for number in 1..9 {
            store.accept(event(number)).await.expect("accepts");
        }
        store.up_to_date().await.expect("is in the index");
        let index = Arc::clone(&store.index);
        disk.before_read(move || index.wipe().expect("is made anew"));
        assert_eq!(store.retire().await.expect("nothing fails"), Retired::default());
        assert!(segment::path(&directory.path().join("events"), 1).exists(), "what is queued is gone with its segment");
        store.close().await;
    }
}
