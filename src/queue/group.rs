//! Claimed events whose rules are matched together, from their leases to the one record of their plans.
//!
//! Most events are told by their heads which rules are for them; only where one of those has a condition is
//! the event itself read back. Whatever happens to one of a group, also a panic, holds up no other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::attempt::{Ended, PANICKED, told, unread};
use super::{Parts, matching, schedule};
use crate::base::clock::Timestamp;
use crate::definition::plan::Integration;
use crate::store::StoreError;
use crate::store::model::{Attempt, EventHead, Lane, Leased, Plan, PlannedDelivery, Verdict};

/// Matches the rules of claimed events.
pub(super) async fn run(parts: Arc<Parts>, group: Vec<Leased>) -> Ended {
    let mut plans = Vec::with_capacity(group.len());
    for leased in &group {
        let matched = AssertUnwindSafe(match_one(&parts, leased)).catch_unwind().await;
        let deliveries = matched.unwrap_or_else(|_| {
            parts.metrics.panics.with_label_values(&["queue"]).inc();
            Some(vec![matching::unmatched("this event", PANICKED, parts.clock.now())])
        });
        plans.extend(deliveries.map(|deliveries| Plan { lease: leased.lease, deliveries }));
    }
    let events: Vec<_> = plans.iter().map(|plan| plan.lease.event).collect();
    let recorded = parts.work.plan_all(plans).await;
    events.into_iter().zip(recorded).for_each(|(event, recorded)| told(event, recorded, "a plan"));
    Ended { leases: group.into_iter().map(|leased| leased.lease).collect(), lane: Lane::matching(), well: None }
}

/// What the rules of one event ask for. `None` when nothing can be said now: it is looked at again.
async fn match_one(parts: &Parts, leased: &Leased) -> Option<Vec<PlannedDelivery>> {
    let head = match parts.events.head(leased.lease.event).await {
        Ok(Some(head)) => head,
        Ok(None) => return Some(Vec::new()),
        Err(error) => return later(parts, leased, &error),
    };
    let (now, name) = (parts.clock.now(), &*head.integration);
    let generation = parts.live.load();
    let Some(integration) = generation.home(name) else { return unloaded(parts, leased, &head, now).await };
    match plan(parts, integration, head, now).await {
        Ok(plan) => Some(plan),
        Err(error) => later(parts, leased, &error),
    }
}

async fn plan(
    parts: &Parts,
    integration: &Integration,
    head: EventHead,
    now: Timestamp,
) -> Result<Vec<PlannedDelivery>, StoreError> {
    let planned = match matching::plan_by_head(integration, &head, now) {
        Some(planned) => Ok(planned),
        None => match parts.events.event(head.id).await? {
            Some(event) => {
                let planned = matching::plan(integration, &Arc::new(event), now);
                // A large body takes its time, and the next of the group has one as well.
                tokio::task::yield_now().await;
                planned
            }
            None => Ok(Vec::new()),
        },
    };
    let result = match &planned {
        Ok(planned) if planned.is_empty() => "discarded",
        Ok(_) => "planned",
        Err(_) => "untold",
    };
    parts.metrics.events_matched.with_label_values(&[&*head.integration, result]).inc();
    Ok(planned.unwrap_or_else(|why| vec![matching::unmatched(&head.integration, &why, now)]))
}

/// An event whose integration is not loaded waits for it, and is given up when that takes too long.
async fn unloaded(parts: &Parts, leased: &Leased, head: &EventHead, now: Timestamp) -> Option<Vec<PlannedDelivery>> {
    let verdict = schedule::unloaded(head.received_at, now);
    if verdict == Verdict::Dead {
        return Some(vec![matching::unmatched(&head.integration, "it is not loaded", now)]);
    }
    let error = matching::unloaded(&head.integration).result.err().map(|failed| failed.error);
    let attempt = Attempt { number: leased.attempt, started_at: now, duration_ms: 0, status: None, error };
    let recorded = parts.work.finish(leased.lease, attempt, verdict).await;
    told(head.id, recorded, "an attempt");
    None
}

fn later(parts: &Parts, leased: &Leased, error: &StoreError) -> Option<Vec<PlannedDelivery>> {
    unread(&parts.metrics, leased.lease.event, error);
    None
}
