//! What the index knows of events and deliveries. A row stays below 6 KiB: its texts are bounded
//! where they come in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::op::{ItemKey, MATCH, Outcome};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::StoreError;
use crate::store::journal::Pointer;
use crate::store::model::{
    Attempt, Delivery, DeliveryState, EventHead, EventState, Lane, NO_RULE, NewEvent, PlannedDelivery,
};

/// Attempts that are kept of a delivery.
const ATTEMPTS: usize = 20;
/// Bytes of an attempt's error that are kept.
const ERROR_BYTES: usize = 200;
/// Bytes of a delivery's summary that are kept.
const SUMMARY_BYTES: usize = 200;
/// The most bytes of each text that names something.
const NAME_BYTES: usize = 1_024;

/// What is known of an event from its arrival.
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
    /// Bytes of the body.
    pub body_bytes: u64,
}

/// What is known of an event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventRow {
    /// What it said when it came.
    pub head: Head,
    /// Where its content stands.
    pub pointer: Pointer,
    /// Where it stands.
    pub state: EventState,
    /// How many deliveries it has.
    pub deliveries: u16,
    /// What was tried of its match item.
    pub tries: Tries,
    /// Whether matching its rules was given up.
    pub given_up: bool,
}

/// What is known of a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// The rule that asked for it.
    pub rule: String,
    /// The action's position in the rule.
    pub action: u16,
    /// The action in words.
    pub summary: String,
    /// Its lane.
    pub lane: Lane,
    /// Where it stands.
    pub stand: Stand,
    /// The newest attempts.
    pub attempts: Vec<Attempt>,
    /// What was tried of it.
    pub tries: Tries,
}

/// How often an item was tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Attempts since the last replay, counting one under way.
    pub begun: u32,
    /// Whether one is under way.
    pub claimed: bool,
    /// Processes that ended while they held it, since it was last finished.
    pub deaths: u8,
}

impl Tries {
    /// It is claimed.
    pub fn claim(&mut self) {
        (self.begun, self.claimed) = (self.begun + 1, true);
    }

    /// It is given back untried.
    pub fn release(&mut self) {
        (self.begun, self.claimed) = (self.begun.saturating_sub(1), false);
    }

    /// The process that held it has ended.
    pub fn interrupt(&mut self) {
        (self.deaths, self.claimed) = (self.deaths.saturating_add(1), false);
    }

    /// The attempt under way has ended.
    pub fn finish(&mut self) {
        (self.deaths, self.claimed) = (0, false);
    }

    /// What was under way has ended without being an attempt.
    pub fn hold(&mut self) {
        self.finish();
        self.begun = self.begun.saturating_sub(1);
    }
}

/// Where a delivery stands, as far as the index knows: a lease is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stand {
    /// It is tried at this moment.
    Ready(Timestamp),
    /// It succeeded.
    Done,
    /// It was given up.
    Dead,
    /// It was given up, and the event's rules were matched again since and do not ask for it.
    Withdrawn,
}

impl From<Outcome> for Stand {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Retry(due) | Outcome::Held(due) => Self::Ready(due),
            Outcome::Done => Self::Done,
            Outcome::Dead => Self::Dead,
        }
    }
}

/// A dedupe mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The first event with the delivery id.
    pub event: u128,
    /// Until when another one is a duplicate.
    pub until: Timestamp,
}

impl Head {
    /// The head of an event that arrives.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when one of its names is longer than 1 KiB.
    pub fn of(event: &NewEvent) -> Result<Self, StoreError> {
        bounded("the integration's id", &event.integration)?;
        bounded("the endpoint's id", event.endpoint.as_deref().unwrap_or_default())?;
        bounded("the event's type", &event.event_type)?;
        bounded("the delivery id", event.delivery_id.as_deref().unwrap_or_default())?;
        Ok(Self {
            id: event.id.to_u128(),
            integration: Arc::clone(&event.integration),
            endpoint: event.endpoint.clone(),
            event_type: event.event_type.clone(),
            delivery_id: event.delivery_id.clone(),
            dedupe_ms: u64::try_from(event.dedupe_window.as_millis()).unwrap_or(u64::MAX),
            received_at: event.received_at,
            body_bytes: event.body.len() as u64,
        })
    }

    /// The mark of its delivery id, and what it is kept by; `None` for an event without one.
    pub fn mark(&self) -> Option<([u8; 16], Mark)> {
        let delivery = self.delivery_id.as_deref()?;
        let mut hasher = Sha256::new();
        hasher.update([u8::from(self.endpoint.is_some())]);
        for part in [&*self.integration, self.endpoint.as_deref().unwrap_or_default(), delivery] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        let until = self.received_at.after(std::time::Duration::from_millis(self.dedupe_ms));
        hasher.finalize().first_chunk().map(|hash| (*hash, Mark { event: self.id, until }))
    }
}

fn bounded(what: &'static str, text: &str) -> Result<(), StoreError> {
    if text.len() > NAME_BYTES {
        return Err(StoreError::TooLarge { what, size: text.len(), limit: NAME_BYTES });
    }
    Ok(())
}

impl EventRow {
    /// The row of an event that has arrived.
    pub fn arrived(head: Head, pointer: Pointer) -> Self {
        let state = EventState::Queued;
        Self { head, pointer, state, deliveries: 0, tries: Tries::default(), given_up: false }
    }

    /// What lists show of the event.
    pub fn shown(&self) -> EventHead {
        EventHead {
            id: EventId::from_u128(self.head.id),
            integration: Arc::clone(&self.head.integration),
            endpoint: self.head.endpoint.clone(),
            event_type: self.head.event_type.clone(),
            delivery_id: self.head.delivery_id.clone(),
            received_at: self.head.received_at,
            body_bytes: self.head.body_bytes,
            state: self.state,
        }
    }
}

impl DeliveryRow {
    /// The row of a delivery that rules ask for. What was recorded of one in its place before stays.
    pub fn planned(planned: &PlannedDelivery, before: Option<Self>) -> Self {
        Self {
            rule: planned.rule.clone(),
            action: planned.action,
            summary: cut(&planned.summary, SUMMARY_BYTES).to_owned(),
            lane: planned.lane.clone(),
            stand: Stand::Ready(planned.due),
            attempts: before.map(|before| before.attempts).unwrap_or_default(),
            tries: Tries::default(),
        }
    }

    /// Whether it is the delivery that is planned: of the same rule, the same action in words. Where the action stands
    /// in the rule does not count.
    pub fn is_of(&self, planned: &PlannedDelivery) -> bool {
        self.rule == planned.rule && self.summary == cut(&planned.summary, SUMMARY_BYTES)
    }

    /// The event's rules are matched again: what was given up is withdrawn, until they ask for it. What only tells that
    /// they were not matched has come to its end.
    pub fn withdraw(&mut self) {
        self.stand = if self.stand == Stand::Done || self.rule == NO_RULE { Stand::Done } else { Stand::Withdrawn };
    }

    /// Adds an attempt, keeping the newest within bounds. One that was held back takes the place of the one before it
    /// that was held back for the same reason.
    pub fn record(&mut self, attempt: &Attempt, outcome: Outcome) {
        let mut attempt = attempt.clone();
        let is_same = |last: &Attempt| last.number == attempt.number && last.error == attempt.error;
        if matches!(outcome, Outcome::Held(_)) && self.attempts.last().is_some_and(is_same) {
            self.attempts.pop();
        }
        if let Some(error) = attempt.error.as_mut() {
            error.truncate(cut(error, ERROR_BYTES).len());
        }
        self.attempts.push(attempt);
        if self.attempts.len() > ATTEMPTS {
            self.attempts.remove(0);
        }
    }

    /// What the API shows of the delivery.
    pub fn shown(self, key: ItemKey) -> Delivery {
        Delivery {
            id: DeliveryId { event: EventId::from_u128(key.0), ordinal: key.1 },
            rule: self.rule,
            action: self.action,
            summary: self.summary,
            lane: self.lane,
            state: match self.stand {
                Stand::Ready(due) => DeliveryState::Ready { due },
                Stand::Done => DeliveryState::Done,
                Stand::Dead => DeliveryState::Dead,
                Stand::Withdrawn => DeliveryState::Withdrawn,
            },
            attempts: self.attempts,
        }
    }
}

/// Refuses a plan with more deliveries than can be numbered, or whose names are too long to be kept.
pub fn check_plan(deliveries: &[PlannedDelivery]) -> Result<(), StoreError> {
    if deliveries.len() >= usize::from(MATCH) {
        let (size, limit) = (deliveries.len(), usize::from(MATCH) - 1);
        return Err(StoreError::TooLarge { what: "the plan", size, limit });
    }
    deliveries.iter().try_for_each(|planned| {
        bounded("the rule's id", &planned.rule)?;
        bounded("the lane's name", &planned.lane.0)
    })
}

/// The beginning of a text, at most `limit` bytes, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.split_at(end).0
}
