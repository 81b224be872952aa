//! What the events journal holds: one operation a frame.
//!
//! A payload is a length, the operation in postcard, and, for an accepted event, its content as it
//! came: headers and body are not encoded again. Operations are replayed in order; each is harmless
//! when applied to what it does not find.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::store::StoreError;
use crate::store::model::{Attempt, Event, EventHead, PlannedDelivery, Verdict};

/// The ordinal that stands for an event's match item.
pub const MATCH: u16 = u16::MAX;

/// The key of a work item: event and ordinal.
pub type ItemKey = (u128, u16);

/// An operation on events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Op {
    /// An event was accepted; its content follows the operation.
    Accepted(Head),
    /// Items were claimed, each with the time its lease runs out.
    Claimed {
        /// Which.
        items: Vec<(u128, u16)>,
    },
    /// An event's rules were matched.
    Planned {
        /// Which event.
        event: u128,
        /// What its rules ask for; empty means discarded.
        deliveries: Vec<PlannedDelivery>,
    },
    /// A delivery was tried.
    Finished {
        /// Which event.
        event: u128,
        /// Which delivery.
        ordinal: u16,
        /// The try.
        attempt: Attempt,
        /// What follows.
        outcome: Outcome,
    },
    /// An item was given back untried.
    Released {
        /// Which event.
        event: u128,
        /// Which item.
        ordinal: u16,
        /// When it is due.
        due: Timestamp,
    },
    /// A delivery is to be made again.
    ReplayedDelivery {
        /// Which event.
        event: u128,
        /// Which delivery.
        ordinal: u16,
        /// When.
        at: Timestamp,
    },
    /// An event's rules are to be matched again.
    ReplayedEvent {
        /// Which event.
        event: u128,
        /// When.
        at: Timestamp,
    },
}

/// What follows from an attempt, as it is stored: the model's own types are tagged for people who
/// read JSON, which a binary form cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It is tried again then.
    Retry(Timestamp),
    /// It is given up.
    Dead,
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::Done,
            Verdict::Retry { due } => Self::Retry(due),
            Verdict::Dead => Self::Dead,
        }
    }
}

/// What is known of an event besides its content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    /// The event's id.
    pub id: u128,
    /// Its integration.
    pub integration: Arc<str>,
    /// Its managed endpoint.
    pub endpoint: Option<Arc<str>>,
    /// Its type.
    pub event_type: String,
    /// The sender's id of the delivery.
    pub delivery_id: Option<String>,
    /// How long that counts, in milliseconds.
    pub dedupe_ms: u64,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The query string.
    pub query: String,
    /// Bytes of the headers that follow the operation; the body is the rest.
    pub header_bytes: u32,
    /// Bytes of the body.
    pub body_bytes: u64,
}

/// Encodes an operation and the content that follows it.
pub fn encode(op: &Op, content: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut payload = Vec::with_capacity(length + 256);
    payload.extend_from_slice(&[0; 4]);
    let mut payload = postcard::to_extend(op, payload).map_err(|error| unreadable(&error))?;
    let operation = u32::try_from(payload.len() - 4).unwrap_or(u32::MAX);
    if let Some(place) = payload.get_mut(..4) {
        place.copy_from_slice(&operation.to_le_bytes());
    }
    for part in content {
        payload.extend_from_slice(part);
    }
    Ok(payload)
}

/// Decodes an operation, and gives the content that follows it.
pub fn decode(payload: &[u8]) -> Result<(Op, &[u8]), StoreError> {
    let too_short = || StoreError::Read(Arc::from("an operation is cut short"));
    let (length, rest) = payload.split_first_chunk::<4>().ok_or_else(too_short)?;
    let (op, content) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(too_short)?;
    Ok((postcard::from_bytes(op).map_err(|error| unreadable(&error))?, content))
}

/// Encodes headers: name and value, each after its length.
pub fn encode_headers(headers: &[(String, Bytes)]) -> Result<Vec<u8>, StoreError> {
    let borrowed: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (name.as_str(), &value[..])).collect();
    postcard::to_allocvec(&borrowed).map_err(|error| unreadable(&error))
}

/// Puts an event together from its head and the content of its journal entry.
pub fn event(head: &Head, content: Vec<u8>, shown: EventHead) -> Result<Event, StoreError> {
    let content = Bytes::from(content);
    let split = (head.header_bytes as usize).min(content.len());
    let headers: Vec<(String, Vec<u8>)> =
        postcard::from_bytes(&content.slice(..split)).map_err(|error| unreadable(&error))?;
    let headers = headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect();
    Ok(Event { head: shown, query: head.query.clone(), headers, body: content.slice(split..) })
}

fn unreadable(error: &postcard::Error) -> StoreError {
    StoreError::Read(Arc::from(format!("an operation does not decode: {error}")))
}
