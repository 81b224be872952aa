//! Work: claimed, planned, finished, replayed.

use async_trait::async_trait;
use tokio::sync::watch;

use super::Embedded;
use super::index::Stand;
use super::op::{self, MATCH, Op};
use super::scheduler::{NewItem, key_of};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::journal::Durability;
use crate::store::model::{Attempt, Claim, Lane, Lease, Leased, PlannedDelivery, QueueDepth, Verdict};
use crate::store::{StoreError, Work};

/// How long a lease is held anew after its outcome could not be written.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(30);

impl Embedded {
    /// Writes what came of a lease. The lease is out of the race meanwhile, and comes back to its
    /// holder when the writing fails.
    async fn settle(&self, lease: Lease, op: Op) -> Result<(), StoreError> {
        if !self.scheduler().settle(&lease) {
            return Err(StoreError::LeaseLost);
        }
        let payload = op::encode(&op, &[])?;
        match self.events.append(payload, op, Durability::Written).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.scheduler().unsettle(&lease, self.clock.now().after(AFTER_FAILURE));
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Work for Embedded {
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Leased>, StoreError> {
        let claimed = self.scheduler().claim(&claim);
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let op = Op::Claimed { items: claimed.iter().map(|leased| key_of(&leased.lease)).collect() };
        let payload = op::encode(&op, &[])?;
        match self.events.append(payload, op, Durability::Written).await {
            Ok(_) => Ok(claimed),
            Err(error) => {
                let mut scheduler = self.scheduler();
                for leased in &claimed {
                    scheduler.unclaim(&leased.lease, claim.now);
                }
                Err(error)
            }
        }
    }

    async fn plan(&self, lease: Lease, deliveries: Vec<PlannedDelivery>) -> Result<(), StoreError> {
        if deliveries.len() >= usize::from(MATCH) {
            let (size, limit) = (deliveries.len(), usize::from(MATCH) - 1);
            return Err(StoreError::TooLarge { what: "the plan", size, limit });
        }
        self.settle(lease, Op::Planned { event: lease.event.to_u128(), deliveries }).await
    }

    async fn finish(&self, lease: Lease, attempt: Attempt, verdict: Verdict) -> Result<(), StoreError> {
        let (event, ordinal) = key_of(&lease);
        self.settle(lease, Op::Finished { event, ordinal, attempt, outcome: verdict.into() }).await
    }

    async fn extend(&self, lease: Lease, until: Timestamp) -> Result<(), StoreError> {
        if self.scheduler().extend(&lease, until) { Ok(()) } else { Err(StoreError::LeaseLost) }
    }

    async fn release(&self, lease: Lease) -> Result<(), StoreError> {
        let (event, ordinal) = key_of(&lease);
        self.settle(lease, Op::Released { event, ordinal, due: self.clock.now() }).await
    }

    async fn replay_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
        let key = (id.event.to_u128(), id.ordinal);
        if self.scheduler().state(key).is_some() || self.scheduler().state((key.0, MATCH)).is_some() {
            return Err(StoreError::Conflict(format!("{id} is still being worked on")));
        }
        self.applier.barrier().await?;
        let row = self.index.delivery(key)?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        let op = Op::ReplayedDelivery { event: key.0, ordinal: key.1, at: now };
        self.events.append(op::encode(&op, &[])?, op, Durability::Synced).await?;
        let mut scheduler = self.scheduler();
        scheduler.uncount_dead(u64::from(row.stand == Stand::Dead));
        let rule = std::sync::Arc::from(row.rule.as_str());
        scheduler.insert(NewItem { key, lane: row.lane, rule, action: row.action, attempts: 0, due: now });
        drop(scheduler);
        self.rouse();
        Ok(())
    }

    async fn replay_event(&self, id: EventId, now: Timestamp) -> Result<(), StoreError> {
        self.applier.barrier().await?;
        let event = id.to_u128();
        let row = self.index.event(event)?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
        if self.scheduler().is_active(event) {
            return Err(StoreError::Conflict(format!("{id} is still being worked on")));
        }
        let mut dead = 0;
        for ordinal in 0..row.deliveries {
            let state = self.index.delivery((event, ordinal))?.map(|delivery| delivery.stand);
            dead += u64::from(state == Some(Stand::Dead));
        }
        let op = Op::ReplayedEvent { event, at: now };
        self.events.append(op::encode(&op, &[])?, op, Durability::Synced).await?;
        self.scheduler().uncount_dead(dead);
        Ok(())
    }

    fn wake(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    async fn next_due(&self, busy: &[Lane]) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.scheduler().next_due(busy))
    }

    fn depth(&self) -> QueueDepth {
        self.scheduler().depth()
    }
}
