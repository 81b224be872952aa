//! What every storage engine promises, sentence by sentence of the traits in `store`.
//!
//! A case is a function over a [`Lab`]; [`contract`] runs all of them for one engine. An engine joins
//! by saying how it is opened, closed and killed.

mod events;
mod records;
mod replay;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::id::{DeliveryId, EventId};
use trunkline::base::random::SeededRandom;
use trunkline::store::embedded::Embedded;
use trunkline::store::model::{
    Accepted, Attempt, Claim, EventState, Item, Lane, Leased, NewEvent, PlannedDelivery, Verdict,
};
use trunkline::store::{DEDUPE_WINDOW, Store};

use crate::support::store::{open, options};

/// The moment every case begins at.
pub const START: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// How one kind of engine is started and ended.
pub trait Engine: Sized + Send {
    /// An engine over nothing, with this clock.
    async fn begin(clock: Arc<ManualClock>) -> Self;
    /// The engine as callers hold it.
    fn store(&self) -> &dyn Store;
    /// Ends it in good order and opens it again on the same data.
    async fn reopen(self) -> Self;
    /// Ends it as `kill -9` does and opens it again on the same data.
    async fn crash(self) -> Self;
}

/// An engine, a clock and the domain's verbs.
pub struct Lab<E> {
    pub engine: E,
    pub clock: Arc<ManualClock>,
    random: SeededRandom,
}

impl<E: Engine> Lab<E> {
    pub async fn begin() -> Self {
        let clock = Arc::new(ManualClock::at(START));
        Self { engine: E::begin(Arc::clone(&clock)).await, clock, random: SeededRandom::new(11) }
    }

    pub async fn reopen(self) -> Self {
        Self { engine: self.engine.reopen().await, ..self }
    }

    pub async fn crash(self) -> Self {
        Self { engine: self.engine.crash().await, ..self }
    }

    pub fn store(&self) -> &dyn Store {
        self.engine.store()
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The wall clock is set back.
    pub fn set_back(&self, step: Duration) {
        self.clock.set_back(step);
    }

    pub fn pass(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// An event of `stripe` without a delivery id.
    pub fn event(&self, event_type: &str) -> NewEvent {
        NewEvent {
            id: EventId::generate(self.now(), &self.random).unwrap(),
            integration: Arc::from("stripe"),
            endpoint: None,
            event_type: event_type.to_owned(),
            delivery_id: None,
            dedupe_window: DEDUPE_WINDOW,
            received_at: self.now(),
            query: String::new(),
            headers: vec![("content-type".to_owned(), Bytes::from_static(b"application/json"))],
            body: Bytes::from_static(b"{\"id\":1}"),
        }
    }

    /// An event of `stripe` with a delivery id.
    pub fn delivery(&self, delivery_id: &str) -> NewEvent {
        NewEvent { delivery_id: Some(delivery_id.to_owned()), ..self.event("charge.paid") }
    }

    /// Stores a fresh event.
    pub async fn accept(&self) -> EventId {
        let event = self.event("charge.paid");
        let id = event.id;
        assert_eq!(self.store().accept(event).await.unwrap(), Accepted::New);
        id
    }

    /// Leases what is due now, for one minute.
    pub async fn claim(&self, max: usize) -> Vec<Leased> {
        self.claim_beside(max, &[]).await
    }

    /// Leases what is due now in lanes that are not busy.
    pub async fn claim_beside(&self, max: usize, busy: &[Lane]) -> Vec<Leased> {
        let until = self.now().after(Duration::from_mins(1));
        self.store().claim(Claim { now: self.now(), until, max, busy, per_lane: 100, matching: max }).await.unwrap()
    }

    /// Leases the one item that is due.
    pub async fn claim_one(&self) -> Leased {
        let mut claimed = self.claim(10).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Stores an event and plans a delivery for each of the lanes.
    pub async fn planned(&self, lanes: &[&str]) -> EventId {
        let id = self.accept().await;
        let matching = self.claim_one().await;
        assert_eq!(matching.item, Item::Match(id));
        self.store().plan(matching.lease, self.plan_for(lanes)).await.unwrap();
        id
    }

    /// A delivery for each of the lanes, due now.
    pub fn plan_for(&self, lanes: &[&str]) -> Vec<PlannedDelivery> {
        lanes.iter().enumerate().map(|(place, lane)| self.plan(place, lane)).collect()
    }

    /// A delivery due now.
    pub fn plan(&self, place: usize, lane: &str) -> PlannedDelivery {
        PlannedDelivery {
            rule: "forward".to_owned(),
            action: u16::try_from(place).unwrap(),
            summary: format!("deliver {lane}"),
            lane: Lane(Arc::from(lane)),
            due: self.now(),
        }
    }

    /// An attempt that began now.
    pub fn attempt(&self, number: u32, status: u16) -> Attempt {
        let error = (status >= 400).then(|| format!("answered {status}"));
        Attempt { number, started_at: self.now(), duration_ms: 5, status: Some(status), error }
    }

    /// Ends a leased delivery.
    pub async fn finish(&self, leased: &Leased, verdict: Verdict) {
        let status = if verdict == Verdict::Done { 200 } else { 500 };
        self.store().finish(leased.lease, self.attempt(leased.attempt, status), verdict).await.unwrap();
    }

    /// Stores an event whose one delivery was given up.
    pub async fn dead(&self) -> DeliveryId {
        let event = self.planned(&["destination:app"]).await;
        let leased = self.claim_one().await;
        self.finish(&leased, Verdict::Dead).await;
        DeliveryId { event, ordinal: 0 }
    }

    /// Where an event stands.
    pub async fn state(&self, id: EventId) -> EventState {
        self.store().event(id).await.unwrap().expect("the event is stored").head.state
    }
}

/// The embedded engine in a directory of its own.
pub struct EmbeddedEngine {
    directory: TempDir,
    clock: Arc<ManualClock>,
    store: Arc<Embedded>,
}

impl EmbeddedEngine {
    async fn open(directory: TempDir, clock: Arc<ManualClock>) -> Self {
        let store = open(options(directory.path(), clock.clone())).await.unwrap();
        Self { directory, clock, store }
    }
}

impl Engine for EmbeddedEngine {
    async fn begin(clock: Arc<ManualClock>) -> Self {
        Self::open(TempDir::new().unwrap(), clock).await
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    async fn reopen(self) -> Self {
        let Self { directory, clock, store } = self;
        store.close().await;
        drop(store);
        Self::open(directory, clock).await
    }

    async fn crash(self) -> Self {
        let Self { directory, clock, store } = self;
        drop(store);
        Self::open(directory, clock).await
    }
}

/// Runs every case for an engine.
macro_rules! contract {
    ($engine:ty: $($room:ident { $($case:ident),+ $(,)? })+) => {
        $($(
            #[tokio::test]
            async fn $case() {
                $room::$case(Lab::<$engine>::begin().await).await;
            }
        )+)+
    };
}

macro_rules! contract_of {
    ($engine:ty) => {
        contract! { $engine:
            events {
                an_accepted_event_reads_back_byte_for_byte,
                an_accepted_event_is_claimable_and_survives_a_crash,
                a_body_of_25_mib_is_kept,
                an_unknown_event_is_none,
                a_second_delivery_with_one_id_names_the_first_event,
                the_scope_of_a_delivery_id_is_integration_and_endpoint,
                events_without_a_delivery_id_are_never_duplicates,
                a_delivery_id_counts_anew_after_its_window,
                a_delivery_id_is_remembered_across_crash_and_restart,
                of_concurrent_events_with_one_delivery_id_one_is_stored,
                events_are_listed_newest_first,
                pages_hold_every_event_once,
                each_filter_narrows_the_list,
            }
            work {
                no_lease_ends_because_the_clock_is_set_forward,
                what_waits_does_not_wait_for_the_step_of_a_clock_that_is_set_back,
                a_claim_takes_the_oldest_due_first_and_at_most_max,
                a_claim_takes_at_most_per_lane_of_a_lane,
                a_claim_passes_over_busy_lanes,
                nothing_is_claimed_before_it_is_due,
                a_leased_item_is_claimed_by_one_worker_only,
                an_expired_lease_makes_the_item_ready_with_a_higher_fence,
                an_outdated_fence_loses_and_changes_nothing,
                an_extended_lease_holds_longer,
                a_released_item_is_due_at_once_and_its_attempt_does_not_count,
                an_empty_plan_discards_the_event,
                match_items_are_claimed_beside_all_others,
                plans_written_together_are_answered_each_for_itself,
                an_event_is_done_when_its_last_delivery_is,
                an_event_is_dead_when_one_delivery_is_and_the_rest_are_finished,
                a_retry_comes_back_when_due_with_the_next_number,
                what_was_held_back_comes_back_with_the_same_number,
                deliveries_are_told_in_plan_order_with_their_attempts,
                the_newest_20_attempts_and_1_kib_of_their_errors_are_kept,
                work_of_a_crashed_process_is_done_by_the_next,
                an_item_that_killed_its_process_three_times_is_quarantined,
                the_depth_follows_each_change_and_a_restart,
                waking_and_next_due_miss_nothing,
            }
            replay {
                a_dead_delivery_is_ready_again_with_a_fresh_count,
                a_done_delivery_can_be_replayed,
                a_replayed_event_is_matched_anew,
                what_no_rule_asks_for_any_more_is_withdrawn,
                what_is_planned_anew_keeps_its_ids_and_another_gets_its_own,
                a_replay_survives_a_crash,
                what_is_unknown_cannot_be_replayed,
                what_is_being_worked_on_cannot_be_replayed,
            }
            records {
                a_record_reads_back_with_its_version,
                a_put_with_a_wrong_expectation_is_a_conflict,
                of_concurrent_puts_with_one_expectation_one_happens,
                a_removed_record_is_absent,
                of_concurrent_takes_one_gets_the_record,
                records_survive_a_crash,
                keys_of_a_collection_are_in_order,
                a_record_above_256_kib_is_refused,
                audit_entries_are_numbered_and_chained,
                concurrent_audit_entries_leave_no_gap,
                the_audit_chain_goes_on_after_crash_and_restart,
                an_open_store_is_writable_and_measured,
            }
        }
    };
}

mod embedded {
    use super::{EmbeddedEngine, Lab, events, records, replay, work};

    contract_of!(EmbeddedEngine);
}
