//! Unfinished work, in memory: what is ready in which lane, what is leased until when.
//!
//! An item takes about 200 bytes, and there are at most [`MAX_ITEMS`]; beyond that new events are
//! refused as if the disk were full. Every method is a few operations on ordered sets.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::op::{ItemKey, MATCH, Op, Outcome};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::store::model::{Claim, DeliveryState, EventState, Item, Lane, Lease, Leased, PlannedDelivery, QueueDepth};

/// The most unfinished items.
pub const MAX_ITEMS: usize = 1_000_000;

/// Everything unfinished.
#[derive(Debug, Default)]
pub struct Scheduler {
    items: BTreeMap<ItemKey, Entry>,
    lanes: BTreeMap<Lane, BTreeSet<(Timestamp, ItemKey)>>,
    leased: BTreeSet<(Timestamp, ItemKey)>,
    events: BTreeMap<u128, u32>,
    fence: u64,
    ready: u64,
    dead: u64,
    /// Suspects under way; one at most, so that what ends the process next is known.
    suspects: u64,
    /// Events that are being carried to a new segment: nothing may happen to them meanwhile.
    held: HashSet<u128>,
}

#[derive(Debug)]
struct Entry {
    lane: Lane,
    rule: Arc<str>,
    /// As in [`NewItem`].
    action: u16,
    attempts: u32,
    /// A process has ended while it held this.
    suspect: bool,
    /// Nobody knows how a try since the last known end has ended.
    unknown: bool,
    /// When it was to be tried first since then.
    since: Timestamp,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready {
        due: Timestamp,
    },
    Leased {
        until: Timestamp,
        fence: u64,
    },
    /// The holder of the lease has told what came of it, and the journal is being written.
    Settling {
        fence: u64,
    },
}

/// A new item.
#[derive(Debug)]
pub struct NewItem {
    /// Its key.
    pub key: ItemKey,
    /// Its lane.
    pub lane: Lane,
    /// The rule that asked for it; empty for a match item.
    pub rule: Arc<str>,
    /// The action's position in the rule; of a match item, how many deliveries its event has had.
    pub action: u16,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is due.
    pub due: Timestamp,
    /// When it was to be tried first since a try has ended, where that was before.
    pub since: Option<Timestamp>,
    /// Whether a process has ended while it held this.
    pub suspect: bool,
}

impl Scheduler {
    /// An empty scheduler for a journal that ends at `sequence`: fences begin above all that processes
    /// before this one gave out, since each claim was written.
    pub fn beginning_at(sequence: u64) -> Self {
        Self { fence: sequence << 20, ..Self::default() }
    }

    /// Whether there is no room for more.
    pub fn is_full(&self) -> bool {
        self.items.len() >= MAX_ITEMS
    }

    /// Adds an item that is ready.
    pub fn insert(&mut self, new: NewItem) {
        let NewItem { key, lane, rule, action, attempts, due, since, suspect } = new;
        if self.items.contains_key(&key) {
            return;
        }
        self.lanes.entry(lane.clone()).or_default().insert((due, key));
        let (unknown, since, state) = (suspect, since.unwrap_or(due), State::Ready { due });
        self.items.insert(key, Entry { lane, rule, action, attempts, suspect, unknown, since, state });
        *self.events.entry(key.0).or_default() += 1;
        self.ready += 1;
    }

    /// Counts a dead delivery that was read from the index.
    pub fn count_dead(&mut self) {
        self.dead += 1;
    }

    /// Leases due items, first making those ready whose leases have run out.
    pub fn claim(&mut self, claim: &Claim<'_>) -> Vec<Leased> {
        self.expire(claim.now);
        let mut claimed = Vec::new();
        for (due, key) in self.candidates(claim) {
            let suspect = self.items.get(&key).is_some_and(|entry| entry.suspect);
            if suspect && self.suspects > 0 {
                continue;
            }
            claimed.extend(self.lease(due, key, claim.until));
        }
        claimed
    }

    /// What may be leased, oldest due first: of matching beside all else.
    fn candidates(&self, claim: &Claim<'_>) -> Vec<(Timestamp, ItemKey)> {
        let matching = Lane::matching();
        let open = |lane: &Lane| !claim.busy.contains(lane);
        let due = |ready: &BTreeSet<(Timestamp, ItemKey)>, most: usize| -> Vec<(Timestamp, ItemKey)> {
            let due = ready.range(..=(claim.now, (u128::MAX, u16::MAX)));
            due.filter(|(_, key)| self.is_free(*key)).take(most).copied().collect()
        };
        let others = self.lanes.iter().filter(|(lane, _)| !lane.is_matching() && open(lane));
        let mut found: Vec<_> = others.flat_map(|(_, ready)| due(ready, claim.per_lane)).collect();
        found.sort_unstable();
        found.truncate(claim.max);
        if claim.matching > 0 && open(&matching) {
            // They stand together in the order of lanes.
            let lanes = self.lanes.range(matching..).take_while(|(lane, _)| lane.is_matching());
            let lanes = lanes.filter(|(lane, _)| open(lane));
            let mut to_match: Vec<_> = lanes.flat_map(|(_, ready)| due(ready, claim.matching)).collect();
            to_match.sort_unstable();
            to_match.truncate(claim.matching);
            found.extend(to_match);
        }
        found
    }

    /// Whether a ready item may be claimed now: not while its event is held, and of suspects one at a
    /// time.
    fn is_free(&self, key: ItemKey) -> bool {
        let waits = self.suspects > 0 && self.items.get(&key).is_some_and(|entry| entry.suspect);
        !waits && (self.held.is_empty() || !self.held.contains(&key.0))
    }

    fn lease(&mut self, due: Timestamp, key: ItemKey, until: Timestamp) -> Option<Leased> {
        let entry = self.items.get_mut(&key)?;
        self.fence += 1;
        entry.state = State::Leased { until, fence: self.fence };
        entry.attempts += 1;
        self.suspects += u64::from(entry.suspect);
        if let Some(ready) = self.lanes.get_mut(&entry.lane) {
            ready.remove(&(due, key));
        }
        self.leased.insert((until, key));
        self.ready -= 1;
        let event = EventId::from_u128(key.0);
        let (ordinal, item) = match key.1 {
            MATCH => (None, Item::Match(event)),
            ordinal => {
                let id = DeliveryId { event, ordinal };
                (Some(ordinal), Item::Deliver { id, rule: entry.rule.to_string(), action: entry.action })
            }
        };
        let lease = Lease { event, ordinal, fence: self.fence };
        let (attempt, lane, unknown, since) = (entry.attempts, entry.lane.clone(), entry.unknown, entry.since);
        Some(Leased { lease, item, attempt, unknown, since, lane })
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(&(until, key)) = self.leased.first().filter(|(until, _)| *until <= now) {
            self.leased.remove(&(until, key));
            if let Some(entry) = self.items.get_mut(&key) {
                entry.unknown = true;
            }
            self.make_ready(key, now);
        }
    }

    /// Makes an item ready that is leased, or taken out of the race.
    pub fn make_ready(&mut self, key: ItemKey, due: Timestamp) {
        if let Some(entry) = self.items.get_mut(&key) {
            if !matches!(entry.state, State::Ready { .. }) {
                self.suspects -= u64::from(entry.suspect);
                self.ready += 1;
            }
            entry.state = State::Ready { due };
            self.lanes.entry(entry.lane.clone()).or_default().insert((due, key));
        }
    }

    /// The wall clock was set back by so much, and is `now`: what waits for a moment that was told by the clock before waits
    /// as long as was meant, and not for the step besides.
    pub fn step_back(&mut self, step: Duration, now: Timestamp) {
        for (key, entry) in &mut self.items {
            let State::Ready { due } = entry.state else { continue };
            let sooner = due.before(step).max(now.min(due));
            if let Some(ready) = self.lanes.get_mut(&entry.lane)
                && ready.remove(&(due, *key))
            {
                ready.insert((sooner, *key));
                entry.state = State::Ready { due: sooner };
            }
        }
    }

    /// The wall clock was set forward by so much: no lease ends because of it.
    pub fn step_forward(&mut self, step: Duration) {
        self.leased.clear();
        for (key, entry) in &mut self.items {
            if let State::Leased { until, .. } = &mut entry.state {
                *until = until.after(step);
                self.leased.insert((*until, *key));
            }
        }
    }

    /// Keeps an event from being worked on while it is carried to a new segment; false when someone
    /// works on it now.
    pub fn hold_idle(&mut self, event: u128) -> bool {
        let open = self.items_of(event).any(|entry| !matches!(entry.state, State::Ready { .. }));
        !open && self.held.insert(event)
    }

    fn items_of(&self, event: u128) -> impl Iterator<Item = &Entry> {
        self.items.range((event, 0)..=(event, MATCH)).map(|(_, entry)| entry)
    }

    /// Keeps an event's items from being claimed and the event from being held by another; false when
    /// another holds it.
    pub fn hold(&mut self, event: u128) -> bool {
        self.held.insert(event)
    }

    /// Ends [`Self::hold`] and [`Self::hold_idle`].
    pub fn let_go(&mut self, event: u128) {
        self.held.remove(&event);
    }

    /// Takes a lease out of the race while its outcome is written; false when it is lost.
    pub fn settle(&mut self, lease: &Lease) -> bool {
        let key = key_of(lease);
        match self.items.get_mut(&key) {
            Some(Entry { state: state @ State::Leased { .. }, .. }) => {
                let State::Leased { until, fence } = *state else { return false };
                if fence != lease.fence {
                    return false;
                }
                *state = State::Settling { fence };
                self.leased.remove(&(until, key));
                true
            }
            _ => false,
        }
    }

    /// Whether an event that waits to be matched was matched before.
    pub fn is_matched_again(&self, event: u128) -> bool {
        self.items.get(&(event, MATCH)).is_some_and(|entry| entry.action > 0)
    }

    /// Everything unfinished, oldest event first.
    pub fn unfinished(&self) -> Vec<ItemKey> {
        self.items.keys().copied().collect()
    }

    /// Takes an item out of the race that has no lease, to be given up; returns how often it was tried.
    pub fn condemn(&mut self, key: ItemKey) -> u32 {
        let Some(entry) = self.items.get_mut(&key) else { return 0 };
        if let State::Ready { due } = entry.state {
            entry.state = State::Settling { fence: 0 };
            self.suspects += u64::from(entry.suspect);
            self.ready -= 1;
            if let Some(ready) = self.lanes.get_mut(&entry.lane) {
                ready.remove(&(due, key));
            }
        }
        entry.attempts
    }

    /// Gives a lease back to its holder after its outcome could not be written.
    pub fn unsettle(&mut self, lease: &Lease, until: Timestamp) {
        let key = key_of(lease);
        if let Some(entry) = self.items.get_mut(&key)
            && entry.state == (State::Settling { fence: lease.fence })
        {
            entry.state = State::Leased { until, fence: lease.fence };
            self.leased.insert((until, key));
        }
    }

    /// Lengthens a lease; false when it is lost.
    pub fn extend(&mut self, lease: &Lease, until: Timestamp) -> bool {
        let still_held = self.settle(lease);
        if still_held {
            self.unsettle(lease, until);
        }
        still_held
    }

    /// Undoes a claim that could not be written, attempt included.
    pub fn unclaim(&mut self, lease: &Lease, due: Timestamp) {
        if self.settle(lease) {
            let key = key_of(lease);
            if let Some(entry) = self.items.get_mut(&key) {
                entry.attempts = entry.attempts.saturating_sub(1);
            }
            self.make_ready(key, due);
        }
    }

    /// Whether an event has unfinished items.
    pub fn is_active(&self, event: u128) -> bool {
        self.events.contains_key(&event)
    }

    /// Where an event stands that has unfinished items; `None` for any other.
    pub fn event_state(&self, event: u128) -> Option<EventState> {
        let queued = self.items.contains_key(&(event, MATCH));
        self.is_active(event).then_some(if queued { EventState::Queued } else { EventState::Delivering })
    }

    /// Where an item stands; `None` when it is finished.
    pub fn state(&self, key: ItemKey) -> Option<DeliveryState> {
        self.items.get(&key).map(|entry| match entry.state {
            State::Ready { due } => DeliveryState::Ready { due },
            State::Leased { until, .. } => DeliveryState::Leased { until },
            State::Settling { .. } => DeliveryState::Leased { until: Timestamp::from_millis(u64::MAX) },
        })
    }

    /// Applies an operation that has been written.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Accepted { head, .. } => self.insert(NewItem {
                suspect: false,
                since: None,
                key: (head.id, MATCH),
                lane: Lane::matching_of(head.endpoint.as_deref()),
                rule: Arc::from(""),
                action: 0,
                attempts: 0,
                due: head.received_at,
            }),
            // Claims are made here first, and written after. A replay needs what the index knows, and brings its
            // item along.
            Op::Claimed { .. }
            | Op::Interrupted { .. }
            | Op::Carried { .. }
            | Op::Remembered { .. }
            | Op::Forgotten { .. }
            | Op::ReplayedDelivery { .. }
            | Op::ReplayedEvent { .. } => {}
            Op::Planned { event, deliveries } => self.planned(*event, (0..).zip(deliveries)),
            Op::Matched { plans } => {
                for (event, plan) in plans {
                    self.planned(*event, (0..).zip(plan));
                }
            }
            Op::PlannedAnew { event, deliveries } => {
                self.planned(*event, deliveries.iter().map(|(ordinal, planned)| (*ordinal, planned)));
            }
            Op::Finished { event, ordinal, outcome, .. } => self.finished((*event, *ordinal), *outcome),
            Op::Released { event, ordinal, due } => {
                if let Some(entry) = self.items.get_mut(&(*event, *ordinal)) {
                    entry.attempts = entry.attempts.saturating_sub(1);
                    self.make_ready((*event, *ordinal), *due);
                }
            }
        }
    }

    fn planned<'p>(&mut self, event: u128, deliveries: impl Iterator<Item = (u16, &'p PlannedDelivery)>) {
        for (ordinal, planned) in deliveries {
            self.insert(NewItem {
                suspect: false,
                since: None,
                key: (event, ordinal),
                lane: planned.lane.clone(),
                rule: Arc::from(planned.rule.as_str()),
                action: planned.action,
                attempts: 0,
                due: planned.due,
            });
        }
        self.remove((event, MATCH));
    }

    /// Takes dead deliveries that are replayed off the count.
    pub fn uncount_dead(&mut self, count: u64) {
        self.dead = self.dead.saturating_sub(count);
    }

    fn finished(&mut self, key: ItemKey, outcome: Outcome) {
        if let Some(entry) = self.items.get_mut(&key).filter(|entry| entry.suspect) {
            // It ended, and not the process.
            self.suspects -= u64::from(!matches!(entry.state, State::Ready { .. }));
            entry.suspect = false;
        }
        match outcome {
            Outcome::Retry(due) => {
                if let Some(entry) = self.items.get_mut(&key) {
                    (entry.unknown, entry.since) = (false, due);
                }
                self.make_ready(key, due);
            }
            Outcome::Held(due) => {
                if let Some(entry) = self.items.get_mut(&key) {
                    // `since` stays: how long it was held in all has a bound.
                    (entry.unknown, entry.attempts) = (false, entry.attempts.saturating_sub(1));
                }
                self.make_ready(key, due);
            }
            Outcome::Done => self.remove(key),
            Outcome::Dead => {
                self.remove(key);
                self.dead += 1;
            }
        }
    }

    fn remove(&mut self, key: ItemKey) {
        let Some(entry) = self.items.remove(&key) else { return };
        match entry.state {
            State::Ready { due } => {
                self.ready -= 1;
                if let Some(ready) = self.lanes.get_mut(&entry.lane) {
                    ready.remove(&(due, key));
                }
            }
            State::Leased { until, .. } => {
                self.leased.remove(&(until, key));
                self.suspects -= u64::from(entry.suspect);
            }
            State::Settling { .. } => self.suspects -= u64::from(entry.suspect),
        }
        if self.lanes.get(&entry.lane).is_some_and(BTreeSet::is_empty) {
            self.lanes.remove(&entry.lane);
        }
        if let Some(open) = self.events.get_mut(&key.0) {
            *open -= 1;
            if *open == 0 {
                self.events.remove(&key.0);
            }
        }
    }

    /// When the next item outside `busy` falls due, or the next lease runs out.
    pub fn next_due(&self, busy: &[Lane]) -> Option<Timestamp> {
        let full = busy.contains(&Lane::matching());
        let open = |lane: &Lane| !(busy.contains(lane) || full && lane.is_matching());
        let ready = self.lanes.iter().filter(|(lane, _)| open(lane));
        let first =
            ready.filter_map(|(_, ready)| ready.iter().find(|(_, key)| self.is_free(*key)).map(|(due, _)| *due)).min();
        let expiry = self.leased.first().map(|(until, _)| *until);
        first.into_iter().chain(expiry).min()
    }

    /// Counts per state.
    pub fn depth(&self) -> QueueDepth {
        QueueDepth {
            ready: self.ready,
            leased: self.items.len() as u64 - self.ready,
            dead: self.dead,
            oldest: self.events.keys().next().map(|event| EventId::from_u128(*event).generated_at()),
        }
    }
}

/// The key of the item a lease is for.
pub fn key_of(lease: &Lease) -> ItemKey {
    (lease.event.to_u128(), lease.ordinal.unwrap_or(MATCH))
}
