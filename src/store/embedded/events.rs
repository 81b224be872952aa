//! Events: accepted once, read, listed.

use std::sync::Arc;

use async_trait::async_trait;

use super::dedupe::{self, Known};
use super::index::ItemKind;
use super::op::{self, Content, MATCH, Op};
use super::row::{EventRow, Head, Mark};
use super::scheduler::MAX_ITEMS;
use super::{Embedded, Entry};
use crate::base::id::EventId;
use crate::definition::plan::rule::Glob;
use crate::store::journal::{Durability, Payload, Pointer, segment};
use crate::store::model::{
    Accepted, Delivery, Event, EventFilter, EventHead, EventState, NewEvent, Page, PageRequest, named_endpoint,
};
use crate::store::{Events, StoreError};

/// The most event rows a list looks at before it answers with what it has and a cursor.
const SCAN: usize = 20_000;

impl Embedded {
    /// Takes a delivery id, or tells whose it is.
    async fn claim_delivery_id(
        &self,
        head: &Head,
        hash: [u8; 16],
        mark: Mark,
    ) -> Result<Result<dedupe::Claim, EventId>, StoreError> {
        loop {
            match self.dedupe.claim(head, hash, mark) {
                Known::Written(first) => return Ok(Err(EventId::from_u128(first.event))),
                // An error means that the writer is through, which is what is waited for.
                Known::Writing(mut done) => drop(done.changed().await),
                Known::Claimed(claim) => {
                    let known = self.index.mark(&hash)?.filter(|first| first.until > head.received_at);
                    return Ok(known.map_or(Ok(claim), |first| Err(EventId::from_u128(first.event))));
                }
            }
        }
    }

    pub(super) fn row(&self, id: u128) -> Result<Option<EventRow>, StoreError> {
        match self.applier.pending(id) {
            Some(row) => Ok(Some(row)),
            None => self.index.event(id),
        }
    }

    /// Reads an operation and the content after it back from the events journal.
    pub(super) fn payload(&self, pointer: Pointer) -> Result<Vec<u8>, StoreError> {
        let directory = self.directory.join("events");
        let path = segment::path(&directory, pointer.segment);
        match self.disk.read(&path) {
            Ok(file) => segment::payload(&file, &directory, pointer),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(segment::damaged("the segment is missing", &path, pointer.offset))
            }
            Err(error) => Err(StoreError::Read(Arc::from(format!("{}: {error}", path.display())))),
        }
    }

    fn list_dead(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<EventHead>, StoreError> {
        let after = page.after.map_or(u128::MAX, EventId::to_u128);
        let (mut rows, mut last) = (Vec::new(), None);
        for key in self.index.items(ItemKind::Dead)?.rev() {
            let (event, _) = key?;
            if event >= after || last == Some(event) {
                continue;
            }
            last = Some(event);
            let Some(row) = self.index.event(event)?.filter(|row| matches(filter, row)) else { continue };
            if rows.len() == page.limit {
                return Ok(page_of(rows));
            }
            rows.push(row.shown());
        }
        Ok(Page { rows, next: None })
    }
}

#[async_trait]
impl Events for Embedded {
    async fn accept(&self, event: NewEvent) -> Result<Accepted, StoreError> {
        self.beginning.state()?;
        self.applier.state()?;
        if self.scheduler().is_full() {
            let what = format!("{MAX_ITEMS} deliveries wait already");
            return Err(StoreError::Unavailable(Arc::from(what)));
        }
        let head = Head::of(&event)?;
        let claim = match head.mark() {
            None => None,
            Some((hash, mark)) => match self.claim_delivery_id(&head, hash, mark).await? {
                Ok(claim) => Some(claim),
                Err(first) => return Ok(Accepted::Duplicate(first)),
            },
        };
        let headers = op::encode_headers(&event.headers)?;
        let header_bytes = u32::try_from(headers.len()).unwrap_or(u32::MAX);
        let op = Op::Accepted { head, content: Content { query: event.query, header_bytes } };
        let payload = Payload { head: op::encode(&op, &[&headers])?, body: event.body };
        self.events.append(payload, Entry { delivery_id: claim, ..Entry::of(op) }, Durability::New).await?;
        Ok(Accepted::New)
    }

    async fn event(&self, id: EventId) -> Result<Option<Event>, StoreError> {
        let active = self.scheduler().event_state(id.to_u128());
        if active.is_none() {
            self.settled().await;
        }
        let Some(row) = self.row(id.to_u128())? else { return Ok(None) };
        let mut head = row.shown();
        head.state = active.unwrap_or(head.state);
        let read = self.payload(row.pointer).and_then(|payload| op::event(payload, head));
        match (read, self.row(id.to_u128())?) {
            (Ok(event), _) => Ok(Some(event)),
            // It was carried to another segment, or retired, between the two reads.
            (Err(_), None) => Ok(None),
            (Err(_), Some(moved)) if moved.pointer != row.pointer => {
                let mut head = moved.shown();
                head.state = active.unwrap_or(head.state);
                self.payload(moved.pointer).and_then(|payload| op::event(payload, head)).map(Some)
            }
            (Err(error), Some(_)) => Err(error),
        }
    }

    async fn head(&self, id: EventId) -> Result<Option<EventHead>, StoreError> {
        let active = self.scheduler().event_state(id.to_u128());
        if active.is_none() {
            self.settled().await;
        }
        let row = self.row(id.to_u128())?;
        Ok(row.map(|row| EventHead { state: active.unwrap_or(row.state), ..row.shown() }))
    }

    async fn list(&self, filter: &EventFilter, page: PageRequest) -> Result<Page<EventHead>, StoreError> {
        self.settled().await;
        let page = PageRequest { limit: page.limit.clamp(1, 1_000), ..page };
        if filter.state == Some(EventState::Dead) {
            // Dead events are few among many, and have a set of their own.
            return self.list_dead(filter, page);
        }
        let mut rows = Vec::new();
        for (looked, row) in self.index.events_before(page.after.map(EventId::to_u128))?.enumerate() {
            let row = row?;
            if looked >= SCAN {
                return Ok(Page { rows, next: Some(EventId::from_u128(row.head.id + 1)) });
            }
            if !matches(filter, &row) {
                continue;
            }
            if rows.len() == page.limit {
                return Ok(page_of(rows));
            }
            rows.push(row.shown());
        }
        Ok(Page { rows, next: None })
    }

    async fn deliveries(&self, id: EventId) -> Result<Vec<Delivery>, StoreError> {
        self.settled().await;
        let event = id.to_u128();
        let Some(row) = self.index.event(event)? else { return Ok(Vec::new()) };
        let mut deliveries = Vec::with_capacity(row.deliveries.into());
        for ordinal in (0..row.deliveries).filter(|ordinal| *ordinal != MATCH) {
            let key = (event, ordinal);
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

/// A page that is followed by another.
fn page_of(rows: Vec<EventHead>) -> Page<EventHead> {
    Page { next: rows.last().map(|row| row.id), rows }
}

/// Whether an event is one of those asked for.
fn matches(filter: &EventFilter, row: &EventRow) -> bool {
    let head = &row.head;
    let endpoint = || head.endpoint.as_deref().and_then(named_endpoint);
    filter.integration.as_deref().is_none_or(|wanted| *head.integration == *wanted)
        && filter.connection.as_deref().is_none_or(|wanted| endpoint().is_some_and(|(_, name)| name == wanted))
        && filter.webhook.is_none_or(|wanted| endpoint().is_some_and(|(id, _)| id == wanted))
        && filter.state.is_none_or(|wanted| row.state == wanted)
        && filter.event_type.as_deref().is_none_or(|glob| Glob::new(glob).matches(&head.event_type))
        && filter.delivery_id.as_deref().is_none_or(|wanted| head.delivery_id.as_deref() == Some(wanted))
        && filter.since.is_none_or(|since| head.received_at >= since)
        && filter.until.is_none_or(|until| head.received_at < until)
}
