//! Events: accepted once, read, listed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::Embedded;
use super::index::{EventRow, ItemKind, dedupe_hash};
use super::op::{self, Head, Op};
use super::open::content;
use super::scheduler::MAX_ITEMS;
use crate::base::clock::Timestamp;
use crate::base::id::EventId;
use crate::definition::plan::rule::Glob;
use crate::store::journal::Durability;
use crate::store::model::{Accepted, Delivery, Event, EventFilter, EventHead, EventState, NewEvent, Page, PageRequest};
use crate::store::{Events, StoreError};

/// The most event rows a list looks at before it answers with what it has and a cursor.
const SCAN: usize = 20_000;
/// Delivery ids remembered in memory beyond those under way.
const RECENT: usize = 65_536;

/// Delivery ids that are being accepted or are not in the index yet.
#[derive(Debug, Default)]
pub struct Dedupe(Mutex<HashMap<[u8; 16], Entry>>);

#[derive(Debug, Clone)]
enum Entry {
    /// Being written: wait, and look again.
    Writing(watch::Receiver<()>),
    /// Written as this event, received then, and remembered until the moment given.
    Written { event: u128, until: Timestamp },
}

impl Dedupe {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 16], Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a delivery id while its event is written; gives it up when dropped before that.
struct Claim<'a> {
    dedupe: &'a Dedupe,
    hash: [u8; 16],
    written: Option<(u128, Timestamp)>,
    _done: watch::Sender<()>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut entries = self.dedupe.lock();
        match self.written {
            Some((event, until)) => drop(entries.insert(self.hash, Entry::Written { event, until })),
            None => drop(entries.remove(&self.hash)),
        }
    }
}

impl Embedded {
    /// Takes a delivery id, or tells whose it is.
    async fn claim_delivery_id(&self, head: &Head) -> Result<Result<Option<Claim<'_>>, EventId>, StoreError> {
        let Some(hash) = dedupe_hash(head) else { return Ok(Ok(None)) };
        loop {
            let mut writing = {
                let mut entries = self.dedupe.lock();
                match entries.get(&hash) {
                    Some(Entry::Writing(done)) => done.clone(),
                    Some(Entry::Written { event, until }) if *until > head.received_at => {
                        return Ok(Err(EventId::from_u128(*event)));
                    }
                    Some(Entry::Written { .. }) | None => {
                        let (done, waiter) = watch::channel(());
                        entries.insert(hash, Entry::Writing(waiter));
                        drop(entries);
                        let claim = Claim { dedupe: &self.dedupe, hash, written: None, _done: done };
                        return match self.indexed_duplicate(&hash, head.received_at)? {
                            Some(first) => Ok(Err(first)),
                            None => Ok(Ok(Some(claim))),
                        };
                    }
                }
            };
            // An error means that the writer is through, which is what is waited for.
            drop(writing.changed().await);
        }
    }

    fn indexed_duplicate(&self, hash: &[u8; 16], now: Timestamp) -> Result<Option<EventId>, StoreError> {
        let Some(event) = self.index.duplicate_of(hash)? else { return Ok(None) };
        let row = self.index.event(event)?;
        let counts = row.is_some_and(|row| dedupe_until(&row.head) > now);
        Ok(counts.then(|| EventId::from_u128(event)))
    }

    /// Forgets remembered delivery ids that the index has by now.
    async fn trim_dedupe(&self) -> Result<(), StoreError> {
        if self.dedupe.lock().len() <= RECENT {
            return Ok(());
        }
        // Only what was written before the barrier is in the index after it.
        let written: Vec<[u8; 16]> = self
            .dedupe
            .lock()
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Written { .. }))
            .map(|(hash, _)| *hash)
            .collect();
        self.applier.barrier().await?;
        let mut entries = self.dedupe.lock();
        for hash in written {
            if matches!(entries.get(&hash), Some(Entry::Written { .. })) {
                entries.remove(&hash);
            }
        }
        Ok(())
    }

    pub(super) fn row(&self, id: EventId) -> Result<Option<EventRow>, StoreError> {
        match self.applier.pending(id.to_u128()) {
            Some(row) => Ok(Some(row)),
            None => self.index.event(id.to_u128()),
        }
    }
}

#[async_trait]
impl Events for Embedded {
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError> {
        self.applier.state()?;
        if self.scheduler().is_full() {
            let what = format!("{MAX_ITEMS} deliveries wait already");
            return Err(StoreError::Unavailable(Arc::from(what)));
        }
        let headers = op::encode_headers(&event.headers)?;
        let head = Head {
            id: event.id.to_u128(),
            integration: event.integration,
            endpoint: event.endpoint,
            event_type: event.event_type,
            delivery_id: event.delivery_id,
            dedupe_ms: u64::try_from(event.dedupe_window.as_millis()).unwrap_or(u64::MAX),
            received_at: event.received_at,
            query: event.query,
            header_bytes: u32::try_from(headers.len()).unwrap_or(u32::MAX),
            body_bytes: event.body.len() as u64,
        };
        let mut claim = match self.claim_delivery_id(&head).await? {
            Ok(claim) => claim,
            Err(first) => return Ok(Accepted::Duplicate(first)),
        };
        let (id, until) = (head.id, dedupe_until(&head));
        let op = Op::Accepted(head);
        let payload = op::encode(&op, &[&headers, &event.body])?;
        self.events.append(payload, op, Durability::New).await?;
        if let Some(claim) = claim.as_mut() {
            claim.written = Some((id, until));
        }
        drop(claim);
        self.trim_dedupe().await?;
        Ok(Accepted::New)
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let active = self.scheduler().event_state(id.to_u128());
        if active.is_none() {
            self.applier.barrier().await?;
        }
        let Some(row) = self.row(id)? else { return Ok(None) };
        let mut shown = row.shown();
        shown.state = active.unwrap_or(shown.state);
        op::event(&row.head, content(self, &row)?, shown).map(Some)
    }

    async fn list(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<EventHead>, StoreError> {
        self.applier.barrier().await?;
        let limit = page.limit.clamp(1, 1_000);
        let mut rows = Vec::new();
        if filter.state == Some(EventState::Dead) {
            // Dead events are few among many, and have a set of their own.
            let mut dead: Vec<u128> =
                self.index.items(ItemKind::Dead).map(|key| key.map(|key| key.0)).collect::<Result<_, _>>()?;
            dead.dedup();
            let after = page.after.map_or(u128::MAX, EventId::to_u128);
            for event in dead.into_iter().rev().filter(|event| *event < after) {
                let Some(row) = self.index.event(event)? else { continue };
                if matches(filter, &row) {
                    rows.push(row.shown());
                }
                if rows.len() == limit {
                    return Ok(Page { next: rows.last().map(|row| row.id), rows });
                }
            }
            return Ok(Page { rows, next: None });
        }
        for (looked, row) in self.index.events_before(page.after.map(EventId::to_u128)).enumerate() {
            let row = row?;
            if matches(filter, &row) {
                rows.push(row.shown());
            }
            if rows.len() == limit || looked >= SCAN {
                return Ok(Page { rows, next: Some(EventId::from_u128(row.head.id)) });
            }
        }
        Ok(Page { rows, next: None })
    }

    async fn deliveries(&self, id: EventId) -> Result<Vec<Delivery>, StoreError> {
        self.applier.barrier().await?;
        let Some(row) = self.index.event(id.to_u128())? else { return Ok(Vec::new()) };
        let mut deliveries = Vec::with_capacity(row.deliveries.into());
        for ordinal in 0..row.deliveries {
            let key = (id.to_u128(), ordinal);
            let Some(delivery) = self.index.delivery(key)? else { continue };
            let mut shown = delivery.shown(key);
            if let Some(state) = self.scheduler().state(key) {
                shown.state = state;
            }
            deliveries.push(shown);
        }
        Ok(deliveries)
    }
}

fn dedupe_until(head: &Head) -> Timestamp {
    head.received_at.after(std::time::Duration::from_millis(head.dedupe_ms))
}

/// The content after an accepted event's operation.
pub(super) fn content_of(payload: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let length = op::decode(&payload)?.1.len();
    let mut payload = payload;
    payload.drain(..payload.len() - length);
    Ok(payload)
}

/// Whether an event is one of those asked for.
fn matches(filter: &EventFilter, row: &EventRow) -> bool {
    let head = &row.head;
    filter.integration.as_deref().is_none_or(|wanted| *head.integration == *wanted)
        && filter.state.is_none_or(|wanted| row.state == wanted)
        && filter.event_type.as_deref().is_none_or(|glob| Glob::new(glob).matches(&head.event_type))
        && filter.delivery_id.as_deref().is_none_or(|wanted| head.delivery_id.as_deref() == Some(wanted))
        && filter.since.is_none_or(|since| head.received_at >= since)
        && filter.until.is_none_or(|until| head.received_at < until)
}
