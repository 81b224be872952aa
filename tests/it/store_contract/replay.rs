//! Cases of replays.

use trunkline::base::id::{DeliveryId, EventId};
use trunkline::store::StoreError;
use trunkline::store::model::{DeliveryState, EventState, Item, Verdict};

use super::{Engine, Lab};

pub async fn a_dead_delivery_is_ready_again_with_a_fresh_count<E: Engine>(lab: Lab<E>) {
    let id = lab.dead().await;
    lab.store().replay_delivery(id, lab.now()).await.unwrap();
    assert_eq!((lab.state(id.event).await, lab.store().depth().dead), (EventState::Delivering, 0));
    let leased = lab.claim_one().await;
    assert_eq!(leased.attempt, 1);
    lab.finish(&leased, Verdict::Done).await;
    assert_eq!(lab.state(id.event).await, EventState::Done);
    assert_eq!(lab.store().deliveries(id.event).await.unwrap()[0].attempts.len(), 2);
}

pub async fn a_done_delivery_can_be_replayed<E: Engine>(lab: Lab<E>) {
    let event = lab.planned(&["a"]).await;
    let leased = lab.claim_one().await;
    lab.finish(&leased, Verdict::Done).await;
    lab.store().replay_delivery(DeliveryId { event, ordinal: 0 }, lab.now()).await.unwrap();
    let again = lab.claim_one().await;
    assert!(again.lease.fence > leased.lease.fence);
}

pub async fn a_replayed_event_is_matched_anew<E: Engine>(lab: Lab<E>) {
    let id = lab.dead().await.event;
    lab.store().replay_event(id, lab.now()).await.unwrap();
    assert_eq!((lab.state(id).await, lab.store().depth().dead), (EventState::Queued, 0));
    let matching = lab.claim_one().await;
    assert_eq!((&matching.item, matching.attempt), (&Item::Match(id), 1));
    lab.store().plan(matching.lease, vec![lab.plan(0, "b"), lab.plan(1, "c")]).await.unwrap();
    for leased in lab.claim(10).await {
        lab.finish(&leased, Verdict::Done).await;
    }
    assert_eq!(lab.state(id).await, EventState::Done);
}

/// Replays an event for which one delivery is planned then.
async fn replayed<E: Engine>(lab: &Lab<E>, id: EventId, lane: &str) {
    lab.store().replay_event(id, lab.now()).await.unwrap();
    let matching = lab.claim_one().await;
    lab.store().plan(matching.lease, vec![lab.plan(0, lane)]).await.unwrap();
}

pub async fn what_no_rule_asks_for_any_more_is_withdrawn<E: Engine>(lab: Lab<E>) {
    let id = lab.planned(&["gone", "kept", "done"]).await;
    for leased in lab.claim(10).await {
        let verdict = if &*leased.lane.0 == "done" { Verdict::Done } else { Verdict::Dead };
        lab.finish(&leased, verdict).await;
    }
    replayed(&lab, id, "kept").await;
    let again = lab.claim_one().await;
    lab.finish(&again, Verdict::Done).await;
    assert_eq!((lab.state(id).await, lab.store().depth().dead), (EventState::Done, 0));
    let lab = lab.crash().await;
    let told: Vec<_> = lab.store().deliveries(id).await.unwrap().into_iter().map(|delivery| delivery.state).collect();
    assert_eq!(told, [DeliveryState::Withdrawn, DeliveryState::Done, DeliveryState::Done]);
    replayed(&lab, id, "gone").await;
    let asked_for = lab.store().deliveries(id).await.unwrap().remove(0);
    assert!(matches!(asked_for.state, DeliveryState::Ready { .. }), "{asked_for:?}");
}

pub async fn what_is_planned_anew_keeps_its_ids_and_another_gets_its_own<E: Engine>(lab: Lab<E>) {
    let plans: [&[&str]; 3] = [&["a", "b", "b"], &["c", "b", "a"], &["b", "c", "b", "d"]];
    let id = lab.planned(plans[0]).await;
    let mut lab = lab;
    let mut seen = Vec::new();
    for next in &plans[1..] {
        for leased in lab.claim(10).await {
            lab.finish(&leased, Verdict::Done).await;
        }
        lab.store().replay_event(id, lab.now()).await.unwrap();
        // What is known of the plans before is known after a crash.
        lab = lab.crash().await;
        let matching = lab.claim_one().await;
        lab.store().plan(matching.lease, lab.plan_for(next)).await.unwrap();
        let mut planned: Vec<_> = lab.claim(10).await;
        planned.sort_by_key(|leased| leased.lease.ordinal);
        seen.push(
            planned.iter().map(|leased| (leased.lease.ordinal.unwrap(), leased.lane.0.to_string())).collect::<Vec<_>>(),
        );
        for leased in &planned {
            lab.store().release(leased.lease).await.unwrap();
        }
    }
    let named = |ordinal: u16, lane: &str| (ordinal, lane.to_owned());
    assert_eq!(seen[0], [named(0, "a"), named(1, "b"), named(3, "c")]);
    assert_eq!(seen[1], [named(1, "b"), named(2, "b"), named(3, "c"), named(4, "d")]);
    let told = lab.store().deliveries(id).await.unwrap();
    assert_eq!(told.iter().map(|delivery| delivery.attempts.len()).collect::<Vec<_>>(), [2, 2, 1, 1, 0]);
}

pub async fn a_replay_survives_a_crash<E: Engine>(lab: Lab<E>) {
    let (one, other) = (lab.dead().await, lab.dead().await);
    lab.store().replay_delivery(one, lab.now()).await.unwrap();
    lab.store().replay_event(other.event, lab.now()).await.unwrap();
    let lab = lab.crash().await;
    let items: Vec<_> = lab.claim(10).await.into_iter().map(|leased| leased.item).collect();
    assert_eq!(items.len(), 2);
    assert!(items.contains(&Item::Match(other.event)), "{items:?}");
}

pub async fn what_is_unknown_cannot_be_replayed<E: Engine>(lab: Lab<E>) {
    let known = lab.dead().await.event;
    let (unknown, now) = (EventId::from_u128(9), lab.now());
    let answers = [
        lab.store().replay_event(unknown, now).await,
        lab.store().replay_delivery(DeliveryId { event: unknown, ordinal: 0 }, now).await,
        lab.store().replay_delivery(DeliveryId { event: known, ordinal: 1 }, now).await,
    ];
    assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::NotFound(_)))), "{answers:?}");
}

pub async fn what_is_being_worked_on_cannot_be_replayed<E: Engine>(lab: Lab<E>) {
    let queued = lab.accept().await;
    assert!(matches!(lab.store().replay_event(queued, lab.now()).await, Err(StoreError::Conflict(_))));
    let matching = lab.claim_one().await;
    assert!(matches!(lab.store().replay_event(queued, lab.now()).await, Err(StoreError::Conflict(_))));
    lab.store().plan(matching.lease, vec![lab.plan(0, "a")]).await.unwrap();
    let id = DeliveryId { event: queued, ordinal: 0 };
    assert!(matches!(lab.store().replay_delivery(id, lab.now()).await, Err(StoreError::Conflict(_))));
    lab.claim_one().await;
    assert!(matches!(lab.store().replay_delivery(id, lab.now()).await, Err(StoreError::Conflict(_))));
    assert!(matches!(lab.store().replay_event(queued, lab.now()).await, Err(StoreError::Conflict(_))));
}
