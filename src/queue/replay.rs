//! Doing it again: one delivery, one event, or every dead one that a filter leaves.
//!
//! The audit log has a replay before it takes effect. An event that is replayed keeps its id and its
//! deliveries their idempotency keys, so a receiver that knows them can tell.

use serde::Serialize;

use crate::base::clock::Clock;
use crate::base::id::{DeliveryId, EventId};
use crate::store::model::{AuditEntry, DeliveryState, EventFilter, EventState, PageRequest};
use crate::store::{Audit, Events, StoreError, Work};

/// Events that one call replays at most.
pub const MOST: usize = 1_000;

/// What is needed to replay.
#[derive(Clone, Copy)]
pub struct Replay<'a> {
    /// The events.
    pub events: &'a dyn Events,
    /// The work because of them.
    pub work: &'a dyn Work,
    /// Where it is written down first.
    pub audit: &'a dyn Audit,
    /// The time.
    pub clock: &'a dyn Clock,
    /// Who asks, as the audit log calls them: `operator`, `caller:backend`.
    pub actor: &'a str,
}

/// What was replayed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Events that are under way again.
    pub events: Vec<EventId>,
    /// Those that could not be, with the reason.
    pub refused: Vec<(EventId, String)>,
    /// Whether there are more than one call replays: ask again.
    pub more: bool,
}

impl Replay<'_> {
    /// Makes one delivery again.
    ///
    /// # Errors
    /// As [`Work::replay_delivery`].
    pub async fn delivery(&self, id: DeliveryId) -> Result<(), StoreError> {
        self.write_down(format!("delivery:{id}")).await?;
        self.work.replay_delivery(id, self.clock.now()).await
    }

    /// Matches an event's rules anew and carries out all they ask for, also what was done before.
    ///
    /// # Errors
    /// As [`Work::replay_event`].
    pub async fn event(&self, id: EventId) -> Result<(), StoreError> {
        self.write_down(format!("event:{id}")).await?;
        self.work.replay_event(id, self.clock.now()).await
    }

    /// Makes the dead deliveries of an event again and leaves those that are done.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when it has none, and as [`Work::replay_delivery`].
    pub async fn dead_of(&self, id: EventId) -> Result<(), StoreError> {
        let deliveries = self.events.deliveries(id).await?;
        let dead: Vec<_> = deliveries.iter().filter(|delivery| delivery.state == DeliveryState::Dead).collect();
        if dead.is_empty() {
            return Err(StoreError::NotFound(format!("a dead delivery of {id}")));
        }
        for delivery in dead {
            self.delivery(delivery.id).await?;
        }
        Ok(())
    }

    /// Makes the dead deliveries of all events that a filter leaves again, at most [`MOST`] events.
    ///
    /// # Errors
    /// When the store cannot be read; a single event that is refused is in the result.
    pub async fn all_dead(&self, filter: &EventFilter) -> Result<Replayed, StoreError> {
        let filter = EventFilter { state: Some(EventState::Dead), ..filter.clone() };
        let page = self.events.list(&filter, PageRequest { after: None, limit: MOST }).await?;
        let mut replayed = Replayed { more: page.next.is_some(), ..Replayed::default() };
        for head in page.rows {
            match self.dead_of(head.id).await {
                Ok(()) => replayed.events.push(head.id),
                Err(error @ (StoreError::NotFound(_) | StoreError::Conflict(_))) => {
                    replayed.refused.push((head.id, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(replayed)
    }

    async fn write_down(&self, target: String) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: self.actor.to_owned(),
            action: "event.replay".to_owned(),
            target,
            detail: serde_json::Value::Null,
        };
        self.audit.append(entry).await.map(drop)
    }
}
