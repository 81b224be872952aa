//! Operations folded into rows: what a batch of them makes of the index.
//!
//! An event that came and ended within one batch is written once, in its last state. Called by the
//! applier, when catching up and when rebuilding; the same operations give the same rows each time.

use std::collections::{BTreeMap, HashSet};

use super::index::{Batch, Index, ItemKind};
use super::op::{ItemKey, MATCH, Op, Outcome};
use super::row::{DeliveryRow, EventRow, Mark, Stand, Tries};
use crate::store::StoreError;
use crate::store::journal::{Appended, Pointer};
use crate::store::model::{EventState, PlannedDelivery};

/// Applies operations to the index as one step; those it has already are passed over.
pub fn apply<'a>(index: &Index, ops: impl Iterator<Item = (Appended, &'a Op)>) -> Result<(), StoreError> {
    let already = index.applied();
    let mut fold = Fold {
        index,
        events: BTreeMap::new(),
        fresh: HashSet::new(),
        deliveries: BTreeMap::new(),
        marks: BTreeMap::new(),
        forgotten: Vec::new(),
    };
    let mut applied = None;
    for (appended, op) in ops.filter(|(appended, _)| appended.sequence > already) {
        fold.apply(appended.pointer, op)?;
        applied = Some(appended.sequence);
    }
    match applied {
        Some(applied) => index.write(fold.batch()?, applied),
        None => Ok(()),
    }
}

/// Rows as they will be after a batch; a row that is not here is as the index has it.
struct Fold<'a> {
    index: &'a Index,
    events: BTreeMap<u128, EventRow>,
    /// Events that arrive with this batch: the index has nothing of them yet.
    fresh: HashSet<u128>,
    deliveries: BTreeMap<ItemKey, DeliveryRow>,
    /// `None` for a mark that is taken away.
    marks: BTreeMap<[u8; 16], Option<Mark>>,
    forgotten: Vec<EventRow>,
}

impl Fold<'_> {
    fn apply(&mut self, pointer: Pointer, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Accepted { head, .. } => {
                self.marks.extend(head.mark().map(|(hash, mark)| (hash, Some(mark))));
                self.events.insert(head.id, EventRow::arrived(head.clone(), pointer));
                self.fresh.insert(head.id);
                Ok(())
            }
            Op::Claimed { items } => items.iter().try_for_each(|key| self.change_tries(*key, Tries::claim)),
            Op::Interrupted { items } => items.iter().try_for_each(|key| self.change_tries(*key, Tries::interrupt)),
            Op::Planned { event, deliveries } => self.planned(*event, (0..).zip(deliveries)),
            Op::Matched { plans } => plans.iter().try_for_each(|(event, plan)| self.planned(*event, (0..).zip(plan))),
            Op::PlannedAnew { event, deliveries } => {
                self.planned(*event, deliveries.iter().map(|(ordinal, planned)| (*ordinal, planned)))
            }
            Op::Finished { event, ordinal: MATCH, outcome, .. } => self.change_event(*event, |row| {
                row.tries.finish();
                match outcome {
                    Outcome::Dead => (row.state, row.given_up) = (EventState::Dead, true),
                    Outcome::Held(_) => row.tries.hold(),
                    Outcome::Done | Outcome::Retry(_) => {}
                }
            }),
            Op::Finished { event, ordinal, attempt, outcome } => {
                self.change_delivery((*event, *ordinal), |row| {
                    row.record(attempt, *outcome);
                    if matches!(outcome, Outcome::Held(_)) {
                        row.tries.hold();
                    } else {
                        row.tries.finish();
                    }
                    row.stand = (*outcome).into();
                })?;
                if matches!(outcome, Outcome::Retry(_) | Outcome::Held(_)) { Ok(()) } else { self.settle_event(*event) }
            }
            Op::Released { event, ordinal, due } => {
                self.change_tries((*event, *ordinal), Tries::release)?;
                self.change_delivery((*event, *ordinal), |row| row.stand = Stand::Ready(*due))
            }
            Op::ReplayedDelivery { event, ordinal, at } => {
                self.change_delivery((*event, *ordinal), |row| {
                    row.tries = Tries::default();
                    row.stand = Stand::Ready(*at);
                })?;
                self.change_event(*event, |row| row.state = EventState::Delivering)
            }
            Op::ReplayedEvent { event, .. } => self.replayed(*event),
            Op::Carried { row, deliveries, .. } => {
                self.events.insert(row.head.id, EventRow { pointer, ..row.clone() });
                let rows = (0..).zip(deliveries.iter().cloned());
                self.deliveries.extend(rows.map(|(ordinal, delivery)| ((row.head.id, ordinal), delivery)));
                self.remember(row.head.mark())
            }
            Op::Forgotten { events, marks } => self.forgotten(events, marks),
            Op::Remembered { marks } => self.remember(marks.iter().copied()),
        }
    }

    /// Takes marks along, unless the delivery id has come again since.
    fn remember(&mut self, marks: impl IntoIterator<Item = ([u8; 16], Mark)>) -> Result<(), StoreError> {
        for (hash, mark) in marks {
            if self.mark(&hash)?.is_none_or(|known| known.until < mark.until) {
                self.marks.insert(hash, Some(mark));
            }
        }
        Ok(())
    }

    fn mark(&self, hash: &[u8; 16]) -> Result<Option<Mark>, StoreError> {
        match self.marks.get(hash) {
            Some(mark) => Ok(*mark),
            None => self.index.mark(hash),
        }
    }

    fn forgotten(&mut self, events: &[u128], marks: &[([u8; 16], u128)]) -> Result<(), StoreError> {
        for event in events {
            if self.event(*event)?.is_some() {
                self.forgotten.extend(self.events.remove(event));
                self.deliveries.retain(|key, _| key.0 != *event);
            }
        }
        for (hash, event) in marks {
            if self.mark(hash)?.is_some_and(|mark| mark.event == *event) {
                self.marks.insert(*hash, None);
            }
        }
        Ok(())
    }

    fn planned<'p>(
        &mut self,
        event: u128,
        deliveries: impl Iterator<Item = (u16, &'p PlannedDelivery)>,
    ) -> Result<(), StoreError> {
        if self.event(event)?.is_none() {
            return Ok(());
        }
        let (mut is_empty, mut places) = (true, 0);
        for (ordinal, planned) in deliveries {
            (is_empty, places) = (false, places.max(ordinal.saturating_add(1)));
            let before = self.delivery((event, ordinal))?;
            self.deliveries.insert((event, ordinal), DeliveryRow::planned(planned, before));
        }
        self.change_event(event, |row| {
            row.state = if is_empty { EventState::Discarded } else { EventState::Delivering };
            row.deliveries = row.deliveries.max(places);
            row.tries.finish();
        })
    }

    /// Ends the deliveries of a plan that is to be made anew; their attempts stay.
    fn replayed(&mut self, event: u128) -> Result<(), StoreError> {
        let count = self.event(event)?.map_or(0, |row| row.deliveries);
        for ordinal in 0..count {
            self.change_delivery((event, ordinal), DeliveryRow::withdraw)?;
        }
        self.change_event(event, |row| {
            (row.state, row.given_up, row.tries) = (EventState::Queued, false, Tries::default());
        })
    }

    fn change_tries(&mut self, key: ItemKey, change: fn(&mut Tries)) -> Result<(), StoreError> {
        if key.1 == MATCH {
            return self.change_event(key.0, |row| change(&mut row.tries));
        }
        self.change_delivery(key, |row| change(&mut row.tries))
    }

    fn event(&mut self, event: u128) -> Result<Option<&mut EventRow>, StoreError> {
        if !self.events.contains_key(&event)
            && !self.forgotten.iter().any(|row| row.head.id == event)
            && let Some(row) = self.index.event(event)?
        {
            self.events.insert(event, row);
        }
        Ok(self.events.get_mut(&event))
    }

    fn change_event(&mut self, event: u128, change: impl FnOnce(&mut EventRow)) -> Result<(), StoreError> {
        if let Some(row) = self.event(event)? {
            change(row);
        }
        Ok(())
    }

    fn delivery(&mut self, key: ItemKey) -> Result<Option<DeliveryRow>, StoreError> {
        match self.deliveries.remove(&key) {
            Some(row) => Ok(Some(row)),
            // A row may be left of an event that was retired; only those of known events count.
            None if self.fresh.contains(&key.0) => Ok(None),
            None if self.event(key.0)?.is_some_and(|row| key.1 < row.deliveries) => self.index.delivery(key),
            None => Ok(None),
        }
    }

    fn change_delivery(&mut self, key: ItemKey, change: impl FnOnce(&mut DeliveryRow)) -> Result<(), StoreError> {
        if let Some(mut row) = self.delivery(key)? {
            change(&mut row);
            self.deliveries.insert(key, row);
        }
        Ok(())
    }

    /// The event's state after one of its deliveries has ended.
    fn settle_event(&mut self, event: u128) -> Result<(), StoreError> {
        let count = self.event(event)?.map_or(0, |row| row.deliveries);
        let (mut open, mut dead) = (false, false);
        for ordinal in 0..count {
            let stand = match self.deliveries.get(&(event, ordinal)) {
                Some(row) => Some(row.stand),
                None => self.index.delivery((event, ordinal))?.map(|row| row.stand),
            };
            match stand {
                Some(Stand::Dead) => dead = true,
                Some(Stand::Ready(_)) => open = true,
                Some(Stand::Done | Stand::Withdrawn) | None => {}
            }
        }
        let state = match (open, dead) {
            (true, _) => EventState::Delivering,
            (false, true) => EventState::Dead,
            (false, false) => EventState::Done,
        };
        self.change_event(event, |row| row.state = state)
    }

    fn batch(&self) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        for (hash, mark) in &self.marks {
            batch.mark(hash, mark.as_ref())?;
        }
        for row in &self.forgotten {
            batch.forget(row);
        }
        for (event, row) in &self.events {
            let mut part = batch.part(*event, self.fresh.contains(event));
            part.event(row)?;
            part.item(ItemKind::Active, MATCH, row.state == EventState::Queued);
            part.item(ItemKind::Dead, MATCH, row.given_up);
        }
        for ((event, ordinal), row) in &self.deliveries {
            let mut part = batch.part(*event, self.fresh.contains(event));
            part.delivery(*ordinal, row)?;
            part.item(ItemKind::Active, *ordinal, matches!(row.stand, Stand::Ready(_)));
            part.item(ItemKind::Dead, *ordinal, row.stand == Stand::Dead);
        }
        Ok(batch)
    }
}
