//! Work: claimed, planned, finished, replayed.

use std::sync::{Arc, Mutex, PoisonError};

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::op::{self, ItemKey, MATCH, Op};
use super::row::{Stand, check_plan};
use super::scheduler::{NewItem, Scheduler, key_of};
use super::{Embedded, Entry};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::journal::Durability;
use crate::store::model::{Attempt, Claim, Lane, Lease, Leased, NO_RULE, Plan, PlannedDelivery, QueueDepth, Verdict};
use crate::store::{Backlog, StoreError, Work};

/// How long a lease is held anew after its outcome could not be written.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(30);

/// Leases whose change is on its way into the journal. Dropped without [`Settling::written`], which is
/// when the journal refused it, the change is taken back.
#[derive(Debug)]
pub struct Settling {
    scheduler: Arc<Mutex<Scheduler>>,
    wake: Arc<watch::Sender<u64>>,
    back: Option<Back>,
}

/// A plan that may be written, with its place among all.
type Held = (usize, Plan);

/// What is done when the change was refused.
#[derive(Debug)]
enum Back {
    /// The holders have their leases again, until then.
    Leases(Vec<Lease>, Timestamp),
    /// What was claimed is ready again, due then.
    Unclaim(Vec<Lease>, Timestamp),
    /// What was to be given up is ready again, due then.
    Pardon(ItemKey, Timestamp),
    /// The event can be worked on again, as it can when the change was written.
    LetGo(u128),
}

impl Settling {
    /// The change is in the journal.
    pub fn written(mut self) {
        if !matches!(self.back, Some(Back::LetGo(_))) {
            self.back = None;
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        let Some(back) = self.back.take() else { return };
        let mut scheduler = self.scheduler.lock().unwrap_or_else(PoisonError::into_inner);
        match back {
            Back::Leases(leases, until) => leases.iter().for_each(|lease| scheduler.unsettle(lease, until)),
            Back::Unclaim(leases, due) => leases.iter().for_each(|lease| scheduler.unclaim(lease, due)),
            Back::Pardon(key, due) => scheduler.make_ready(key, due),
            Back::LetGo(event) => scheduler.let_go(event),
        }
        drop(scheduler);
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Embedded {
    /// Writes what came of a lease. The lease is out of the race meanwhile, and comes back to its
    /// holder when the writing fails.
    async fn settle(&self, lease: Lease, op: Op) -> Result<(), StoreError> {
        let payload = op::encode(&op, &[])?;
        if !self.scheduler().settle(&lease) {
            return Err(StoreError::LeaseLost);
        }
        self.settled_by(self.settling_leases(vec![lease]), op, payload).await
    }

    /// Takes the leases of plans out of the race; answers which plans may be written, each with its place among all,
    /// and for each of all why it may not.
    fn take_out(&self, plans: Vec<Plan>) -> (Vec<Held>, Vec<Result<(), StoreError>>) {
        let mut told: Vec<Result<(), StoreError>> = plans.iter().map(|plan| check_plan(&plan.deliveries)).collect();
        let mut held = Vec::with_capacity(plans.len());
        let mut scheduler = self.scheduler();
        let all = plans.into_iter().zip(&mut told).enumerate();
        for (place, (plan, told)) in all.filter(|(_, (_, told))| told.is_ok()) {
            if scheduler.settle(&plan.lease) {
                held.push((place, plan));
            } else {
                *told = Err(StoreError::LeaseLost);
            }
        }
        (held, told)
    }

    /// Writes what came of leases that are out of the race.
    async fn settled_by(&self, settling: Settling, op: Op, payload: Vec<u8>) -> Result<(), StoreError> {
        let entry = Entry { settling: Some(settling), ..Entry::of(op) };
        self.events.append(payload, entry, Durability::Written).await.map(drop)
    }

    /// Writes plans that may be written together.
    async fn write_plans(&self, plans: Vec<Plan>) -> Result<(), StoreError> {
        let settling = self.settling_leases(plans.iter().map(|plan| plan.lease).collect());
        let op = match <[Plan; 1]>::try_from(plans) {
            Ok([Plan { lease, deliveries }]) => Op::Planned { event: lease.event.to_u128(), deliveries },
            Err(plans) => Op::Matched {
                plans: plans.into_iter().map(|plan| (plan.lease.event.to_u128(), plan.deliveries)).collect(),
            },
        };
        let payload = op::encode(&op, &[])?;
        self.settled_by(settling, op, payload).await
    }

    /// Writes the plan of an event that had one before.
    async fn write_again(&self, Plan { lease, deliveries }: Plan) -> Result<(), StoreError> {
        let settling = self.settling_leases(vec![lease]);
        self.up_to_date().await?;
        let op = self.plan_op(lease.event.to_u128(), deliveries)?;
        let payload = op::encode(&op, &[])?;
        self.settled_by(settling, op, payload).await
    }

    /// The plan of an event that may have had plans before. Its deliveries keep their ids: one of the same rule with the
    /// same action is the same delivery, so that whoever gets it knows it again, and another is another.
    fn plan_op(&self, event: u128, deliveries: Vec<PlannedDelivery>) -> Result<Op, StoreError> {
        let count = self.index.event(event)?.map_or(0, |row| row.deliveries);
        if count == 0 {
            return Ok(Op::Planned { event, deliveries });
        }
        let mut before = Vec::with_capacity(count.into());
        for ordinal in 0..count {
            before.extend(self.index.delivery((event, ordinal))?.map(|row| (ordinal, row)));
        }
        let mut fresh = count..MATCH;
        let mut placed = Vec::with_capacity(deliveries.len());
        for planned in deliveries {
            let known = before.iter().position(|(_, row)| row.is_of(&planned));
            let place = known.map(|known| before.remove(known).0).or_else(|| fresh.next());
            let limit = usize::from(MATCH);
            let place = place.ok_or(StoreError::TooLarge { what: "the event's plans", size: limit, limit })?;
            placed.push((place, planned));
        }
        Ok(Op::PlannedAnew { event, deliveries: placed })
    }

    fn settling_leases(&self, leases: Vec<Lease>) -> Settling {
        self.settling(Back::Leases(leases, self.clock.now().after(AFTER_FAILURE)))
    }

    fn settling(&self, back: Back) -> Settling {
        Settling { scheduler: Arc::clone(&self.scheduler), wake: Arc::clone(&self.wake), back: Some(back) }
    }

    /// Gives up an item that no one holds, and says why. Of an event that waits to be matched this is a delivery that
    /// tells so, because what has none is in no list. Blocks.
    pub(super) fn condemn(&self, key: ItemKey, why: &str, durability: Durability) -> Result<(), StoreError> {
        let now = self.clock.now();
        let key = if key.1 == MATCH { self.unmatched(key.0, now)? } else { key };
        let number = self.scheduler().condemn(key);
        let attempt = Attempt { number, started_at: now, duration_ms: 0, status: None, error: Some(why.to_owned()) };
        let op = Op::Finished { event: key.0, ordinal: key.1, attempt, outcome: op::Outcome::Dead };
        let settling = Some(self.settling(Back::Pardon(key, now)));
        let payload = op::encode(&op, &[])?;
        self.events.append_blocking(payload, Entry { settling, ..Entry::of(op) }, durability).map(drop)
    }

    /// Plans the one delivery of an event whose rules are not matched.
    fn unmatched(&self, event: u128, due: Timestamp) -> Result<ItemKey, StoreError> {
        let (rule, summary) = (NO_RULE.to_owned(), "match the rules".to_owned());
        let planned = PlannedDelivery { rule, action: 0, summary, lane: Lane::matching(), due };
        let op = self.plan_op(event, vec![planned])?;
        let ordinal = match &op {
            Op::PlannedAnew { deliveries, .. } => deliveries.first().map_or(0, |(ordinal, _)| *ordinal),
            _ => 0,
        };
        self.events.append_blocking(op::encode(&op, &[])?, Entry::of(op), Durability::Written)?;
        Ok((event, ordinal))
    }

    /// Keeps an event that no one works on as it is until what is returned is dropped.
    pub(super) fn hold_idle(&self, event: u128) -> Option<Settling> {
        self.scheduler().hold_idle(event).then(|| self.settling(Back::LetGo(event)))
    }

    /// Holds an event for a replay, with what is in the index of it up to date.
    async fn hold_for_replay(&self, event: EventId, items: &[ItemKey]) -> Result<Settling, StoreError> {
        self.beginning.state()?;
        let conflict = || StoreError::Conflict(format!("{event} is still being worked on"));
        if !self.scheduler().hold(event.to_u128()) {
            return Err(conflict());
        }
        let held = self.settling(Back::LetGo(event.to_u128()));
        if items.iter().any(|key| self.scheduler().state(*key).is_some()) {
            return Err(conflict());
        }
        self.up_to_date().await?;
        Ok(held)
    }
}

impl Backlog for Embedded {
    fn depth(&self) -> QueueDepth {
        self.scheduler().depth()
    }
}

#[async_trait]
impl Work for Embedded {
    async fn claim(&self, claim: Claim<'_>) -> Result<Vec<Leased>, StoreError> {
        if self.beginning.state().is_err() {
            return Ok(Vec::new());
        }
        let claimed = self.scheduler().claim(&claim);
        if claimed.is_empty() {
            return Ok(claimed);
        }
        let leases: Vec<Lease> = claimed.iter().map(|leased| leased.lease).collect();
        let op = Op::Claimed { items: leases.iter().map(key_of).collect() };
        let settling = Some(self.settling(Back::Unclaim(leases, claim.now)));
        let payload = op::encode(&op, &[])?;
        self.events.append(payload, Entry { settling, ..Entry::of(op) }, Durability::Written).await?;
        Ok(claimed)
    }

    async fn plan_all(&self, plans: Vec<Plan>) -> Vec<Result<(), StoreError>> {
        let (held, mut told) = self.take_out(plans);
        let (again, first): (Vec<_>, Vec<_>) = {
            let scheduler = self.scheduler();
            held.into_iter().partition(|(_, plan)| scheduler.is_matched_again(plan.lease.event.to_u128()))
        };
        let (places, plans): (Vec<usize>, Vec<Plan>) = first.into_iter().unzip();
        if !plans.is_empty()
            && let Err(error) = self.write_plans(plans).await
        {
            for place in places {
                told[place] = Err(error.clone());
            }
        }
        for (place, plan) in again {
            told[place] = self.write_again(plan).await;
        }
        told
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
        let held = self.hold_for_replay(id.event, &[key, (key.0, MATCH)]).await?;
        let unknown = || StoreError::NotFound(format!("{id} is not in the store"));
        let event = self.index.event(key.0)?.filter(|event| key.1 < event.deliveries).ok_or_else(unknown)?;
        if event.given_up {
            return Err(StoreError::Conflict(format!("the rules of {} were not matched: replay the event", id.event)));
        }
        let row = self.index.delivery(key)?.ok_or_else(unknown)?;
        let revived = u64::from(row.stand == Stand::Dead);
        let rule = Arc::from(row.rule.as_str());
        let item = NewItem {
            key,
            lane: row.lane,
            rule,
            action: row.action,
            attempts: 0,
            due: now,
            since: None,
            suspect: false,
        };
        let op = Op::ReplayedDelivery { event: key.0, ordinal: key.1, at: now };
        let payload = op::encode(&op, &[])?;
        let entry = Entry { settling: Some(held), replay: Some((item, revived)), ..Entry::of(op) };
        self.events.append(payload, entry, Durability::Synced).await.map(drop)
    }

    async fn replay_event(&self, id: EventId, now: Timestamp) -> Result<(), StoreError> {
        let event = id.to_u128();
        let held = self.hold_for_replay(id, &[]).await?;
        if self.scheduler().is_active(event) {
            return Err(StoreError::Conflict(format!("{id} is still being worked on")));
        }
        let row = self.index.event(event)?.ok_or_else(|| StoreError::NotFound(format!("{id} is not in the store")))?;
        let mut revived = u64::from(row.given_up);
        for ordinal in 0..row.deliveries {
            let stand = self.index.delivery((event, ordinal))?.map(|delivery| delivery.stand);
            revived += u64::from(stand == Some(Stand::Dead));
        }
        let item = NewItem {
            key: (event, MATCH),
            lane: Lane::matching(),
            rule: Arc::from(""),
            action: row.deliveries,
            attempts: 0,
            due: now,
            since: None,
            suspect: false,
        };
        let op = Op::ReplayedEvent { event, at: now };
        let payload = op::encode(&op, &[])?;
        let entry = Entry { settling: Some(held), replay: Some((item, revived)), ..Entry::of(op) };
        self.events.append(payload, entry, Durability::Synced).await.map(drop)
    }

    fn wake(&self) -> watch::Receiver<u64> {
        self.wake.subscribe()
    }

    async fn step_back(&self, step: Duration, now: Timestamp) {
        self.scheduler().step_back(step, now);
    }

    async fn step_forward(&self, step: Duration) {
        self.scheduler().step_forward(step);
    }

    async fn next_due(&self, busy: &[Lane]) -> Result<Option<Timestamp>, StoreError> {
        // What wakes the workers then is sent when it begins.
        Ok(self.beginning.state().ok().and_then(|()| self.scheduler().next_due(busy)))
    }
}
