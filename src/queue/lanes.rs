//! Slots: how much of what may run at once.
//!
//! Deliveries of one lane (one destination, one integration) share its slots, and all lanes share the
//! workers. So that a slow or dead destination never blocks the others:
//! - the first [`OWN`] slots of every lane are its own and do not count as workers;
//! - a lane whose tries fail gets fewer slots, down to one, and gets them back one success at a time, so that
//!   what piled up during an outage drains gradually.
//!
//! Matching has slots of its own. Only the worker loop holds this, so nothing here is locked.

use std::collections::HashMap;

use crate::definition::plan::gateway::Gateway;
use crate::store::model::Lane;

/// Slots of every lane that do not count as workers.
const OWN: usize = 2;
/// Events whose rules are matched at once, and the most of them in one group.
const MATCHING: usize = 256;
const GROUP: usize = 64;
/// Slots of a lane that is not a destination.
const USUAL: usize = 10;
/// How many items a generous look takes from one lane.
const GENEROUS: usize = 8;

/// What may be claimed at one look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The most items.
    pub max: usize,
    /// The most items of one lane.
    pub per_lane: usize,
    /// The most events whose rules are matched.
    pub matching: usize,
    /// Lanes without that much room.
    pub busy: Vec<Lane>,
}

/// The slots of all lanes.
#[derive(Debug, Default)]
pub struct Lanes {
    workers: usize,
    lanes: HashMap<Lane, Slots>,
}

#[derive(Debug, Clone, Copy)]
struct Slots {
    /// Taken now.
    taken: usize,
    /// What the definition allows.
    limit: usize,
    /// What recent tries allow.
    allowed: usize,
}

impl Slots {
    fn with(limit: usize) -> Self {
        Self { taken: 0, limit, allowed: limit }
    }

    fn borrowed(&self) -> usize {
        self.taken.saturating_sub(OWN)
    }
}

impl Lanes {
    /// Takes over the settings of a generation; what is taken stays taken.
    pub fn configure(&mut self, gateway: &Gateway) {
        self.workers = gateway.workers.max(1);
        for (lane, slots) in &mut self.lanes {
            let limit = limit_of(lane, gateway);
            if slots.limit != limit {
                (slots.limit, slots.allowed) = (limit, limit);
            }
        }
        // Lanes that allow little are known before their first item, so that a generous look passes over them.
        for destination in &gateway.destinations {
            let lane = Lane(format!("destination:{}", destination.id).into());
            self.lanes.entry(lane).or_insert_with(|| Slots::with(destination.concurrency.max(1)));
        }
        self.lanes.entry(Lane::matching()).or_insert(Slots::with(MATCHING));
    }

    /// A look that takes much from lanes with much room; `None` while there is none.
    pub fn generous(&self) -> Option<Look> {
        let shared = self.shared();
        let look = || Look { max: shared, per_lane: GENEROUS, matching: 0, busy: self.without(GENEROUS, shared) };
        (shared >= GENEROUS).then(look)
    }

    /// A look that takes one item of every lane that has any room, and a group of events to match.
    pub fn careful(&self) -> Look {
        let shared = self.shared();
        // A lane that nobody knows yet has slots of its own, so there is always room for one of it.
        let max = shared + OWN * self.lanes.len().max(1);
        Look { max, per_lane: 1, matching: self.to_match(), busy: self.without(1, shared) }
    }

    fn to_match(&self) -> usize {
        let room = |slots: &Slots| slots.allowed.saturating_sub(slots.taken);
        self.lanes.get(&Lane::matching()).map_or(GROUP, room).min(GROUP)
    }

    fn shared(&self) -> usize {
        self.workers.saturating_sub(self.borrowed())
    }

    fn without(&self, room: usize, shared: usize) -> Vec<Lane> {
        let full = |slots: &Slots, lane: &Lane| {
            let own = OWN.saturating_sub(slots.taken);
            let reachable = if *lane == Lane::matching() { usize::MAX } else { own + shared };
            slots.allowed.saturating_sub(slots.taken).min(reachable) < room
        };
        self.lanes.iter().filter(|(lane, slots)| full(slots, lane)).map(|(lane, _)| lane.clone()).collect()
    }

    fn borrowed(&self) -> usize {
        self.lanes.iter().filter(|(lane, _)| **lane != Lane::matching()).map(|(_, slots)| slots.borrowed()).sum()
    }

    /// Takes a slot.
    pub fn take(&mut self, lane: &Lane, gateway: &Gateway) {
        self.lanes.entry(lane.clone()).or_insert_with(|| Slots::with(limit_of(lane, gateway))).taken += 1;
    }

    /// Gives a slot back, with whether the other side was well: `None` when that is not known.
    pub fn give_back(&mut self, lane: &Lane, well: Option<bool>) {
        let Some(slots) = self.lanes.get_mut(lane) else { return };
        slots.taken = slots.taken.saturating_sub(1);
        match well {
            Some(true) => slots.allowed = (slots.allowed + 1).min(slots.limit),
            Some(false) if *lane != Lane::matching() => slots.allowed = (slots.allowed / 2).max(1),
            Some(false) | None => {}
        }
        if slots.taken == 0 && slots.allowed == slots.limit && slots.limit == USUAL {
            self.lanes.remove(lane);
        }
    }

    /// Deliveries that run now.
    pub fn running(&self) -> usize {
        self.lanes.iter().filter(|(lane, _)| **lane != Lane::matching()).map(|(_, slots)| slots.taken).sum()
    }
}

fn limit_of(lane: &Lane, gateway: &Gateway) -> usize {
    if *lane == Lane::matching() {
        return MATCHING;
    }
    let destination = lane.0.strip_prefix("destination:").and_then(|id| gateway.destination(id));
    destination.map_or(USUAL, |destination| destination.concurrency.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(name: &str) -> Lane {
        Lane(name.into())
    }

    fn lanes(workers: usize) -> Lanes {
        Lanes { workers, lanes: HashMap::from([(Lane::matching(), Slots::with(MATCHING))]) }
    }

    fn fill(lanes: &mut Lanes, name: &str) -> usize {
        let lane = lane(name);
        lanes.lanes.entry(lane.clone()).or_insert(Slots::with(USUAL));
        let mut taken = 0;
        while !lanes.careful().busy.contains(&lane) {
            lanes.lanes.get_mut(&lane).expect("there").taken += 1;
            taken += 1;
        }
        taken
    }

    #[test]
    fn lanes_that_take_all_workers_leave_every_other_its_own_slots() {
        let mut lanes = lanes(10);
        assert_eq!(fill(&mut lanes, "destination:a"), 10);
        assert_eq!(fill(&mut lanes, "destination:b"), 4);
        assert_eq!(fill(&mut lanes, "destination:c"), OWN);
        assert!(lanes.careful().max > 0, "an unknown lane has slots of its own");
        assert_eq!(lanes.generous(), None);
        assert_eq!(fill(&mut lanes, "match"), MATCHING);
    }

    #[test]
    fn a_lane_that_fails_shrinks_to_one_and_comes_back_step_by_step() {
        let (mut lanes, a) = (lanes(10), lane("destination:a"));
        assert_eq!(fill(&mut lanes, "destination:a"), 10);
        (0..10).for_each(|_| lanes.give_back(&a, Some(false)));
        let room = |lanes: &mut Lanes| {
            let taken = fill(lanes, "destination:a");
            (0..taken).for_each(|_| lanes.give_back(&a, None));
            taken
        };
        assert_eq!(room(&mut lanes), 1);
        lanes.give_back(&a, Some(true));
        assert_eq!(room(&mut lanes), 2);
        (0..20).for_each(|_| lanes.give_back(&a, Some(true)));
        assert_eq!(room(&mut lanes), 10);
    }

    #[test]
    fn a_generous_look_passes_over_lanes_with_little_room() {
        let mut lanes = lanes(20);
        lanes.lanes.insert(lane("destination:small"), Slots::with(3));
        let look = lanes.generous().expect("there is room");
        assert_eq!((look.max, look.per_lane, look.busy), (20, GENEROUS, vec![lane("destination:small")]));
    }
}
