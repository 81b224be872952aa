//! Cases of [`trunkline::store::Work`], but for replays.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline::base::id::DeliveryId;
use trunkline::store::StoreError;
use trunkline::store::model::{
    Attempt, Claim, DeliveryState, EventState, Item, Lane, Lease, Plan, QueueDepth, Verdict,
};

use super::{Engine, Lab};

const LEASE: Duration = Duration::from_mins(1);

pub async fn a_claim_takes_the_oldest_due_first_and_at_most_max<E: Engine>(lab: Lab<E>) {
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(Item::Match(lab.accept().await));
        lab.pass(Duration::from_millis(1));
    }
    let first: Vec<_> = lab.claim(3).await.into_iter().map(|leased| leased.item).collect();
    let second: Vec<_> = lab.claim(3).await.into_iter().map(|leased| leased.item).collect();
    assert_eq!((first.as_slice(), second.as_slice()), (&ids[..3], &ids[3..]));
}

pub async fn a_claim_takes_at_most_per_lane_of_a_lane<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a", "a", "a", "b"]).await;
    let claim = Claim { now: lab.now(), until: lab.now().after(LEASE), max: 10, busy: &[], per_lane: 2, matching: 2 };
    let mut lanes: Vec<_> = lab.store().claim(claim).await.unwrap().into_iter().map(|leased| leased.lane).collect();
    lanes.sort();
    assert_eq!(lanes, ["a", "a", "b"].map(|lane| Lane(Arc::from(lane))));
}

pub async fn a_claim_passes_over_busy_lanes<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a", "b", "a"]).await;
    let claimed = lab.claim_beside(10, &[Lane(Arc::from("a"))]).await;
    assert_eq!(claimed.iter().map(|leased| &*leased.lane.0).collect::<Vec<_>>(), ["b"]);
    lab.accept().await;
    assert!(lab.claim_beside(10, &[Lane::matching(), Lane(Arc::from("a"))]).await.is_empty());
}

pub async fn nothing_is_claimed_before_it_is_due<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a"]).await;
    let leased = lab.claim_one().await;
    lab.finish(&leased, Verdict::Retry { due: lab.now().after(Duration::from_secs(5)) }).await;
    lab.pass(Duration::from_millis(4_999));
    assert!(lab.claim(10).await.is_empty());
    lab.pass(Duration::from_millis(1));
    lab.claim_one().await;
}

pub async fn what_waits_does_not_wait_for_the_step_of_a_clock_that_is_set_back<E: Engine>(mut lab: Lab<E>) {
    const DAY: Duration = Duration::from_hours(24);
    let retry = |lab: &Lab<E>| Verdict::Retry { due: lab.now().after(Duration::from_secs(5)) };
    for restarts in [false, true] {
        lab.planned(&["a"]).await;
        let leased = lab.claim_one().await;
        lab.finish(&leased, retry(&lab)).await;
        lab.set_back(DAY);
        if restarts {
            lab = lab.crash().await;
        } else {
            lab.store().step_back(DAY, lab.now()).await;
        }
        assert!(lab.claim(10).await.is_empty(), "it waits as long as was meant");
        lab.pass(Duration::from_secs(5));
        let again = lab.claim_one().await;
        lab.finish(&again, Verdict::Done).await;
    }
}

pub async fn no_lease_ends_because_the_clock_is_set_forward<E: Engine>(lab: Lab<E>) {
    const DAY: Duration = Duration::from_hours(24);
    lab.planned(&["a"]).await;
    let leased = lab.claim_one().await;
    lab.clock.set_forward(DAY);
    lab.store().step_forward(DAY).await;
    assert!(lab.claim(10).await.is_empty(), "somebody has it");
    lab.finish(&leased, Verdict::Done).await;
    assert_eq!(lab.state(leased.item.event()).await, EventState::Done);
    // Nor does one end later than it should.
    lab.planned(&["a"]).await;
    lab.claim_one().await;
    lab.clock.set_forward(DAY);
    lab.store().step_forward(DAY).await;
    lab.pass(LEASE + Duration::from_secs(1));
    lab.claim_one().await;
}

pub async fn a_leased_item_is_claimed_by_one_worker_only<E: Engine>(lab: Lab<E>) {
    for _ in 0..20 {
        lab.accept().await;
    }
    let claimed: Vec<_> = join_all((0..10).map(|_| lab.claim(5))).await.into_iter().flatten().collect();
    let distinct: HashSet<_> = claimed.iter().map(|leased| leased.item.event()).collect();
    assert_eq!((claimed.len(), distinct.len()), (20, 20));
}

pub async fn an_expired_lease_makes_the_item_ready_with_a_higher_fence<E: Engine>(lab: Lab<E>) {
    lab.accept().await;
    let first = lab.claim_one().await;
    lab.pass(LEASE.saturating_sub(Duration::from_millis(1)));
    assert!(lab.claim(10).await.is_empty());
    lab.pass(Duration::from_millis(1));
    let second = lab.claim_one().await;
    assert!(second.lease.fence > first.lease.fence);
    assert_eq!((first.attempt, second.attempt), (1, 2));
}

pub async fn an_outdated_fence_loses_and_changes_nothing<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["a"]).await;
    let old = lab.claim_one().await;
    lab.pass(LEASE);
    let held = lab.claim_one().await;
    let (store, stale, later) = (lab.store(), old.lease, lab.now().after(LEASE));
    let answers = [
        store.finish(stale, lab.attempt(1, 200), Verdict::Done).await,
        store.extend(stale, later).await,
        store.release(stale).await,
        store.plan(Lease { ordinal: None, ..stale }, Vec::new()).await,
    ];
    assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::LeaseLost))), "{answers:?}");
    let delivery = store.deliveries(id).await.unwrap().remove(0);
    assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Leased { until: later }, Vec::new()));
    lab.finish(&held, Verdict::Done).await;
    let again = store.finish(held.lease, lab.attempt(2, 200), Verdict::Done).await;
    assert!(matches!(again, Err(StoreError::LeaseLost)), "{again:?}");
}

pub async fn an_extended_lease_holds_longer<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a"]).await;
    let leased = lab.claim_one().await;
    lab.store().extend(leased.lease, lab.now().after(LEASE * 2)).await.unwrap();
    lab.pass(LEASE);
    assert!(lab.claim(10).await.is_empty());
    lab.finish(&leased, Verdict::Done).await;
}

pub async fn a_released_item_is_due_at_once_and_its_attempt_does_not_count<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a"]).await;
    let first = lab.claim_one().await;
    lab.store().release(first.lease).await.unwrap();
    let lab = lab.reopen().await;
    let second = lab.claim_one().await;
    assert_eq!((first.attempt, second.attempt), (1, 1));
    assert!(second.lease.fence > first.lease.fence);
}

pub async fn an_empty_plan_discards_the_event<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&[]).await;
    assert_eq!(lab.state(id).await, EventState::Discarded);
    assert!(lab.claim(10).await.is_empty());
    let lab = lab.reopen().await;
    assert_eq!(lab.state(id).await, EventState::Discarded);
}

pub async fn match_items_are_claimed_beside_all_others<E: Engine>(lab: Lab<E>) {
    lab.planned(&["a", "a"]).await;
    for _ in 0..3 {
        lab.accept().await;
    }
    let claim = Claim { now: lab.now(), until: lab.now().after(LEASE), max: 1, busy: &[], per_lane: 9, matching: 2 };
    let mut lanes: Vec<_> = lab.store().claim(claim).await.unwrap().into_iter().map(|leased| leased.lane).collect();
    lanes.sort();
    assert_eq!(lanes, ["a", "match", "match"].map(|lane| Lane(Arc::from(lane))));
}

pub async fn plans_written_together_are_answered_each_for_itself<E: Engine>(lab: Lab<E>) {
    for _ in 0..3 {
        lab.accept().await;
    }
    let claimed = lab.claim(3).await;
    let ids = [0, 1, 2].map(|place: usize| claimed[place].lease.event);
    let plan = |place: usize, lanes: &[&str]| Plan { lease: claimed[place].lease, deliveries: lab.plan_for(lanes) };
    let lost = Lease { fence: 0, ..claimed[1].lease };
    let plans = vec![plan(0, &["a", "b"]), Plan { lease: lost, deliveries: Vec::new() }, plan(2, &[])];
    let told = lab.store().plan_all(plans).await;
    assert!(matches!(&told[..], [Ok(()), Err(StoreError::LeaseLost), Ok(())]), "{told:?}");
    let lab = lab.crash().await;
    let states = [lab.state(ids[0]).await, lab.state(ids[1]).await, lab.state(ids[2]).await];
    assert_eq!(states, [EventState::Delivering, EventState::Queued, EventState::Discarded]);
    assert_eq!(lab.store().deliveries(ids[0]).await.unwrap().len(), 2);
}

pub async fn an_event_is_done_when_its_last_delivery_is<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["a", "b"]).await;
    let claimed = lab.claim(10).await;
    assert_eq!(claimed.len(), 2);
    lab.finish(&claimed[0], Verdict::Done).await;
    assert_eq!(lab.state(id).await, EventState::Delivering);
    lab.finish(&claimed[1], Verdict::Done).await;
    assert_eq!(lab.state(id).await, EventState::Done);
    let lab = lab.crash().await;
    assert!(lab.claim(10).await.is_empty(), "a crash of an idle process brings nothing back");
}

pub async fn an_event_is_dead_when_one_delivery_is_and_the_rest_are_finished<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["a", "b"]).await;
    let claimed = lab.claim(10).await;
    lab.finish(&claimed[0], Verdict::Dead).await;
    assert_eq!(lab.state(id).await, EventState::Delivering);
    lab.finish(&claimed[1], Verdict::Done).await;
    assert_eq!(lab.state(id).await, EventState::Dead);
    let lab = lab.reopen().await;
    assert_eq!((lab.state(id).await, lab.store().depth().dead), (EventState::Dead, 1));
}

pub async fn what_was_held_back_comes_back_with_the_same_number<E: Engine>(lab: Lab<E>) {
    let event = lab.planned(&["a"]).await;
    let begun = lab.now();
    let mut lab = lab;
    for _ in 0..3 {
        let leased = lab.claim_one().await;
        assert_eq!((leased.attempt, leased.since), (1, begun));
        lab.finish(&leased, Verdict::Held { due: lab.now().after(Duration::from_secs(5)) }).await;
        assert!(lab.claim(10).await.is_empty());
        lab.pass(Duration::from_secs(5));
    }
    let told = lab.store().deliveries(event).await.unwrap().remove(0);
    assert_eq!(told.attempts.len(), 1, "one that was held back for the same reason stands for all: {told:?}");
    lab = lab.crash().await;
    let leased = lab.claim_one().await;
    assert_eq!((leased.attempt, leased.unknown), (1, false));
    lab.finish(&leased, Verdict::Retry { due: lab.now() }).await;
    assert_eq!(lab.claim_one().await.attempt, 2);
}

pub async fn a_retry_comes_back_when_due_with_the_next_number<E: Engine>(lab: Lab<E>) {
    let event = lab.planned(&["a"]).await;
    for number in 1..4 {
        let leased = lab.claim_one().await;
        assert_eq!((leased.attempt, leased.item.event()), (number, event));
        lab.finish(&leased, Verdict::Retry { due: lab.now().after(Duration::from_secs(2)) }).await;
        lab.pass(Duration::from_secs(2));
    }
}

pub async fn deliveries_are_told_in_plan_order_with_their_attempts<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["b", "a"]).await;
    let claimed = lab.claim_beside(10, &[Lane(Arc::from("a"))]).await;
    let due = lab.now().after(Duration::from_secs(9));
    lab.finish(&claimed[0], Verdict::Retry { due }).await;
    let lab = lab.reopen().await;
    let told = lab.store().deliveries(id).await.unwrap();
    assert_eq!(told.iter().map(|delivery| delivery.id.ordinal).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(told.iter().map(|delivery| &*delivery.summary).collect::<Vec<_>>(), ["deliver b", "deliver a"]);
    assert_eq!((told[0].state, told[1].state), (DeliveryState::Ready { due }, DeliveryState::Ready { due: lab.now() }));
    assert_eq!((told[0].attempts.as_slice(), told[1].attempts.len()), (&[lab.attempt(1, 500)][..], 0));
}

pub async fn the_newest_20_attempts_and_1_kib_of_their_errors_are_kept<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["a"]).await;
    for number in 1..=23 {
        let leased = lab.claim_one().await;
        let attempt = Attempt { error: Some("é".repeat(2_000)), ..lab.attempt(number, 500) };
        lab.store().finish(leased.lease, attempt, Verdict::Retry { due: lab.now() }).await.unwrap();
    }
    let attempts = lab.store().deliveries(id).await.unwrap().remove(0).attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), (4..=23).collect::<Vec<_>>());
    assert!(attempts.iter().all(|attempt| attempt.error.as_ref().is_some_and(|error| error.len() <= 1_024)));
}

pub async fn work_of_a_crashed_process_is_done_by_the_next<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["a"]).await;
    let before = lab.claim_one().await;
    let lab = lab.crash().await;
    lab.pass(LEASE);
    let after = lab.claim_one().await;
    assert_eq!((after.item.event(), after.attempt), (id, 2));
    assert!(after.lease.fence > before.lease.fence);
    lab.finish(&after, Verdict::Done).await;
    assert_eq!(lab.state(id).await, EventState::Done);
}

pub async fn an_item_that_killed_its_process_three_times_is_quarantined<E: Engine>(lab: Lab<E>) {
    let poison = lab.planned(&["a"]).await;
    let mut lab = lab;
    for _ in 0..3 {
        lab.claim_one().await;
        lab = lab.crash().await;
        lab.pass(LEASE);
    }
    assert!(lab.claim(10).await.is_empty());
    let delivery = lab.store().deliveries(poison).await.unwrap().remove(0);
    assert_eq!((delivery.state, lab.state(poison).await), (DeliveryState::Dead, EventState::Dead));
    assert!(delivery.attempts.last().is_some_and(|attempt| attempt.error.is_some()), "{delivery:?}");
    lab.store().replay_delivery(DeliveryId { event: poison, ordinal: 0 }, lab.now()).await.unwrap();
    assert_eq!(lab.claim_one().await.attempt, 1);
}

pub async fn the_depth_follows_each_change_and_a_restart<E: Engine>(lab: Lab<E>) {
    let depth = |ready, leased, dead, oldest| QueueDepth { ready, leased, dead, oldest };
    let oldest = Some(lab.now());
    assert_eq!(lab.store().depth(), depth(0, 0, 0, None));
    lab.planned(&["a", "b", "b"]).await;
    assert_eq!(lab.store().depth(), depth(3, 0, 0, oldest));
    lab.pass(Duration::from_secs(1));
    let claimed = lab.claim_beside(10, &[Lane(Arc::from("b"))]).await;
    assert_eq!(lab.store().depth(), depth(2, 1, 0, oldest));
    lab.finish(&claimed[0], Verdict::Dead).await;
    assert_eq!(lab.store().depth(), depth(2, 0, 1, oldest));
    let lab = lab.reopen().await;
    assert_eq!(lab.store().depth(), depth(2, 0, 1, oldest));
    for leased in lab.claim(10).await {
        lab.finish(&leased, Verdict::Done).await;
    }
    assert_eq!(lab.store().depth(), depth(0, 0, 1, None));
}

pub async fn waking_and_next_due_miss_nothing<E: Engine>(lab: Lab<E>) {
    let mut wake = lab.store().wake();
    assert_eq!(lab.store().next_due(&[]).await.unwrap(), None);
    wake.mark_unchanged();
    lab.planned(&["a"]).await;
    assert!(wake.has_changed().unwrap());
    assert_eq!(lab.store().next_due(&[]).await.unwrap(), Some(lab.now()));
    assert_eq!(lab.store().next_due(&[Lane(Arc::from("a"))]).await.unwrap(), None);
    let leased = lab.claim_one().await;
    // The worker may die: what it holds falls due when its lease runs out.
    assert_eq!(lab.store().next_due(&[]).await.unwrap(), Some(lab.now().after(LEASE)));
    wake.mark_unchanged();
    let due = lab.now().after(Duration::from_secs(3));
    lab.finish(&leased, Verdict::Retry { due }).await;
    assert!(wake.has_changed().unwrap());
    assert_eq!(lab.store().next_due(&[]).await.unwrap(), Some(due));
}
