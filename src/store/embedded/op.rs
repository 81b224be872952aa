//! What the events journal holds: one operation a frame.
//!
//! A payload is a length, the operation in postcard, and, for an accepted event, its content as it
//! came: headers and body are not encoded again. Operations are replayed in order; each is harmless
//! when applied to what it does not find.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::row::{DeliveryRow, EventRow, Head, Mark};
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
    Accepted {
        /// What lists show.
        head: Head,
        /// How the content is to be read.
        content: Content,
    },
    /// Items were claimed.
    Claimed {
        /// Which.
        items: Vec<ItemKey>,
    },
    /// The process that held these items ended without telling what came of them.
    Interrupted {
        /// Which.
        items: Vec<ItemKey>,
    },
    /// An event's rules were matched.
    Planned {
        /// Which event.
        event: u128,
        /// What its rules ask for; empty means discarded.
        deliveries: Vec<PlannedDelivery>,
    },
    /// An item was tried. A match item ends so only when it is given up.
    Finished {
        /// Which event.
        event: u128,
        /// Which item.
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
    /// An event was written again with all that is known of it, so that its old segment can go; its
    /// content follows the operation.
    Carried {
        /// The event.
        row: EventRow,
        /// Its deliveries in plan order.
        deliveries: Vec<DeliveryRow>,
        /// How the content is to be read.
        content: Content,
    },
    /// Finished events and dedupe marks whose time is over.
    Forgotten {
        /// The events.
        events: Vec<u128>,
        /// The marks, each with the event it names.
        marks: Vec<([u8; 16], u128)>,
    },
    /// Dedupe marks that outlive their events.
    Remembered {
        /// The marks.
        marks: Vec<([u8; 16], Mark)>,
    },
    /// The rules of several events were matched, each as by [`Self::Planned`].
    Matched {
        /// The events, each with what its rules ask for.
        plans: Vec<(u128, Vec<PlannedDelivery>)>,
    },
    /// The rules of an event were matched again: each delivery stands in the place of the same one of the plans
    /// before, or in one that none has had.
    PlannedAnew {
        /// Which event.
        event: u128,
        /// What its rules ask for, each with its place; empty means discarded.
        deliveries: Vec<(u16, PlannedDelivery)>,
    },
}

impl Op {
    /// The event that arrives with it.
    pub fn arrival(&self) -> Option<&Head> {
        if let Self::Accepted { head, .. } = self { Some(head) } else { None }
    }
}

/// How the bytes that follow an operation are to be read: headers, then body.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Content {
    /// The query string.
    pub query: String,
    /// Bytes of the headers; the body is the rest.
    pub header_bytes: u32,
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
    /// It was held back, which is no try; it is tried then.
    Held(Timestamp),
}

impl From<Verdict> for Outcome {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Done => Self::Done,
            Verdict::Retry { due } => Self::Retry(due),
            Verdict::Dead => Self::Dead,
            Verdict::Held { due } => Self::Held(due),
        }
    }
}

/// Encodes an operation and the content that follows it.
pub fn encode(op: &Op, content: &[&[u8]]) -> Result<Vec<u8>, StoreError> {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut payload = Vec::with_capacity(length + 512);
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

/// Puts an event together from the journal entry that holds its content.
pub fn event(payload: Vec<u8>, head: EventHead) -> Result<Event, StoreError> {
    let (op, bytes) = decode(&payload)?;
    let length = bytes.len();
    let (Op::Accepted { content, .. } | Op::Carried { content, .. }) = op else {
        return Err(StoreError::Read(Arc::from("another operation stands where the event should")));
    };
    let all = Bytes::from(payload);
    let bytes = all.slice(all.len() - length..);
    let split = (content.header_bytes as usize).min(length);
    let headers: Vec<(String, Vec<u8>)> =
        postcard::from_bytes(&bytes.slice(..split)).map_err(|error| unreadable(&error))?;
    let headers = headers.into_iter().map(|(name, value)| (name, Bytes::from(value))).collect();
    Ok(Event { head, query: content.query, headers, body: bytes.slice(split..) })
}

fn unreadable(error: &postcard::Error) -> StoreError {
    StoreError::Read(Arc::from(format!("an operation does not decode: {error}")))
}
