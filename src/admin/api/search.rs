//! Searching in what events hold: type, ids, query, headers and body, as they were stored.
//!
//! Contents are on disk, so that each is read to be looked through. One search reads [`EVENTS`] events or [`BYTES`] of
//! their bodies at most, the newest first, and says where it stopped, so that the next can go on there.

use regex::bytes::{Regex, RegexBuilder};

use super::query::EventQuery;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::base::id::EventId;
use crate::respond::Refusal;
use crate::store::model::{Event, EventFilter, EventHead, PageRequest};

/// The most bytes of a text that is searched for.
const TEXT: usize = 256;
/// The most events that one search reads.
const EVENTS: usize = 2_000;
/// The most bytes of bodies that one search reads; the last event may have more.
const BYTES: u64 = 32 << 20;
/// Heads that are asked for together.
const PART: usize = 200;

/// The events that a query means.
#[derive(Debug)]
pub struct Found {
    /// They, newest first.
    pub heads: Vec<EventHead>,
    /// The last that was looked at, where there are more.
    pub next: Option<EventId>,
    /// Whether there is more to look through because a search has read as much as one may.
    pub ended_early: bool,
}

/// The newest events that a query means; where it has a text, those that hold it.
///
/// # Errors
/// When a parameter is not right, or the store fails.
pub async fn find(parts: &Parts, query: &EventQuery) -> Result<Found, Refused> {
    let (filter, page) = (query.filter(parts.clock.now())?, query.page()?);
    match query.text() {
        None => {
            let listed = parts.store.list(&filter, page).await?;
            Ok(Found { heads: listed.rows, next: listed.next, ended_early: false })
        }
        Some(text) => look_through(parts, (&filter, page), &expression(text)?).await,
    }
}

/// What finds a text whatever the case of its letters.
fn expression(text: &str) -> Result<Regex, Refused> {
    if text.len() > TEXT {
        let detail = format!("`q`: a text of more than {TEXT} bytes is not searched for");
        return Err(Refused::new(Refusal::InvalidInput, &detail));
    }
    let built = RegexBuilder::new(&regex::escape(text)).case_insensitive(true).build();
    built.map_err(|_| Refused::new(Refusal::InvalidInput, "`q`: this text cannot be searched for"))
}

async fn look_through(
    parts: &Parts,
    (filter, page): (&EventFilter, PageRequest),
    text: &Regex,
) -> Result<Found, Refused> {
    let (mut heads, mut after) = (Vec::new(), page.after);
    let (mut events, mut bytes) = (0, 0);
    loop {
        let listed = parts.store.list(filter, PageRequest { after, limit: PART }).await?;
        let whole = listed.rows.len() == PART;
        for head in listed.rows {
            let ended_early = events == EVENTS || bytes >= BYTES;
            if ended_early || heads.len() == page.limit {
                return Ok(Found { heads, next: after, ended_early });
            }
            (events, bytes, after) = (events + 1, bytes + head.body_bytes, Some(head.id));
            // One that was retired meanwhile holds nothing any more.
            let event = parts.store.event(head.id).await?;
            if event.is_some_and(|event| holds(&event, text)) {
                heads.push(head);
            }
            // Reading waits for the disk: others have their turn in between.
            tokio::task::yield_now().await;
        }
        match listed.next {
            Some(next) if whole => after = Some(next),
            // The store has looked through as many as it does at once.
            next => return Ok(Found { heads, next, ended_early: next.is_some() }),
        }
    }
}

fn holds(event: &Event, text: &Regex) -> bool {
    let head = &event.head;
    let mut words = [&head.event_type, &event.query].into_iter().chain(&head.delivery_id);
    words.any(|word| text.is_match(word.as_bytes()))
        || text.is_match(head.id.to_string().as_bytes())
        || event.headers.iter().any(|(name, value)| text.is_match(name.as_bytes()) || text.is_match(value))
        || text.is_match(&event.body)
}
