//! Which notices are told now, which with others, and which later: grouping and the rate, as arithmetic without a
//! clock.
//!
//! The first of its kind, integration and connection is told at once. Those that follow within the window are told as
//! one at its end, with their count. The rate bounds all together: what is beyond it is counted by kind and told as
//! one, once there is room. Called by [`super`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::bucket::{Bucket, Shape};
use crate::base::clock::Timestamp;
use crate::definition::plan::notifications::Notifications;
use crate::telemetry::notice::{Kind, Notice};

/// The most groups that are kept apart; what would begin another is counted as beyond the rate.
const GROUPS: usize = 10_000;
/// How long what could not be stored waits at least.
const AGAIN: Duration = Duration::from_secs(5);

/// A notice as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The latest of those it stands for.
    pub notice: Notice,
    /// How many it stands for.
    pub count: u64,
    /// Since when the first of them was so.
    pub first: Timestamp,
}

/// What became of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offered {
    /// It is told now.
    Now(Box<Told>),
    /// It is told with others of its group.
    Grouped,
    /// It is beyond the rate.
    OverRate,
}

/// What is told together.
type Key = (Kind, Option<Arc<str>>, Option<Arc<str>>);

#[derive(Debug)]
struct Group {
    /// Until then, further ones wait.
    until: Duration,
    held: Option<Told>,
}

/// What waits to be told.
#[derive(Debug, Default)]
pub struct Desk {
    groups: HashMap<Key, Group>,
    bucket: Bucket,
    over: Over,
}

/// What was beyond the rate.
#[derive(Debug, Default)]
struct Over {
    since: Timestamp,
    counts: BTreeMap<Kind, u64>,
}

impl Told {
    fn of(notice: Notice) -> Self {
        Self { count: 1, first: notice.since, notice }
    }

    fn key(&self) -> Key {
        (self.notice.kind, self.notice.integration.clone(), self.notice.connection.clone())
    }

    /// This one together with one that came before it.
    fn after(self, before: Option<Self>) -> Self {
        match before {
            Some(before) => Self { count: self.count + before.count, first: before.first, notice: self.notice },
            None => self,
        }
    }
}

impl Desk {
    /// Takes a notice at a moment of monotonic time.
    pub fn offer(&mut self, notice: Notice, now: Duration, settings: &Notifications) -> Offered {
        let told = Told::of(notice);
        let key = told.key();
        if let Some(group) = self.groups.get_mut(&key).filter(|group| now < group.until) {
            group.held = Some(told.after(group.held.take()));
            return Offered::Grouped;
        }
        // What its group still held is told with it.
        let told = told.after(self.groups.remove(&key).and_then(|group| group.held));
        if self.groups.len() >= GROUPS || !self.has_room(now, settings) {
            self.over.add(&told);
            return Offered::OverRate;
        }
        if !settings.group.is_zero() {
            self.groups.insert(key, Group { until: now.saturating_add(settings.group), held: None });
        }
        Offered::Now(Box::new(told))
    }

    /// What is to be told at a moment, oldest first.
    pub fn due(&mut self, now: Duration, settings: &Notifications) -> Vec<Told> {
        let ended: Vec<Key> =
            self.groups.iter().filter(|(_, group)| group.until <= now).map(|(key, _)| key.clone()).collect();
        let held = ended.into_iter().filter_map(|key| Some((self.groups.remove(&key)?.held?, key)));
        let mut held: Vec<(Told, Key)> = held.collect();
        held.sort_by_key(|(told, _)| told.notice.since);
        let mut due = Vec::new();
        for (told, key) in held {
            if self.has_room(now, settings) {
                self.groups.insert(key, Group { until: now.saturating_add(settings.group), held: None });
                due.push(told);
            } else {
                self.over.add(&told);
            }
        }
        if !self.over.counts.is_empty() && self.has_room(now, settings) {
            due.extend(self.over.take());
        }
        due
    }

    /// When [`Self::due`] has something to do next; `None` while nothing waits.
    pub fn next(&self, settings: &Notifications) -> Option<Duration> {
        let groups = self.groups.values().map(|group| group.until).min();
        let over = (!self.over.counts.is_empty()).then(|| self.bucket.ready_at(shape(settings), Duration::ZERO));
        groups.into_iter().chain(over).min()
    }

    /// Takes back what could not be stored: it is told with the next of its group, or a little later.
    pub fn take_back(&mut self, told: Told, now: Duration) {
        let again = now.saturating_add(AGAIN);
        let group = self.groups.entry(told.key()).or_insert(Group { until: again, held: None });
        group.until = group.until.max(again);
        // What came meanwhile is later than it.
        group.held = Some(match group.held.take() {
            Some(later) => later.after(Some(told)),
            None => told,
        });
    }

    /// All that waits, whatever its time: for the end of the program.
    pub fn rest(&mut self) -> Vec<Told> {
        let mut rest: Vec<Told> = self.groups.drain().filter_map(|(_, group)| group.held).collect();
        rest.sort_by_key(|told| told.notice.since);
        rest.extend(self.over.take());
        rest
    }

    /// Whether one more may be told, and if so counts it.
    fn has_room(&mut self, now: Duration, settings: &Notifications) -> bool {
        let shape = shape(settings);
        let ready = self.bucket.ready_at(shape, now) <= now;
        if ready {
            self.bucket.take(shape, now);
        }
        ready
    }
}

fn shape(settings: &Notifications) -> Shape {
    Shape::new(settings.rate, settings.rate.count)
}

impl Over {
    fn add(&mut self, told: &Told) {
        if self.counts.is_empty() {
            self.since = told.first;
        }
        *self.counts.entry(told.notice.kind).or_default() += told.count;
    }

    fn take(&mut self) -> Option<Told> {
        let counts = std::mem::take(&mut self.counts);
        let all = counts.values().sum();
        if all == 0 {
            return None;
        }
        let each: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} of {}", kind.word())).collect();
        let what = format!("{all} events of the gateway's own were held back by `notifications.rate`.");
        let step = "See the page for what is broken; raise `notifications.rate` where this is too little.";
        let notice = Notice::new(Kind::OverRate, self.since, what, step).because(each.join(", "));
        let notice = counts.iter().fold(notice, |notice, (kind, count)| notice.with(kind.word(), count.to_string()));
        Some(Told { notice, count: all, first: self.since })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Rate;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn settings(group: Duration, per_hour: u32) -> Notifications {
        let rate = Rate { count: per_hour, period: Duration::from_hours(1) };
        Notifications { group, rate, silent_after: None }
    }

    fn dead(integration: &str, since: u64) -> Notice {
        let notice = Notice::new(Kind::EventDead, Timestamp::from_seconds(since), "given up", "look");
        notice.of(&Arc::from(integration))
    }

    #[test]
    fn the_first_is_told_at_once_and_those_after_it_together() {
        let (mut desk, settings) = (Desk::default(), settings(5 * MINUTE, 60));
        let first = desk.offer(dead("a", 1), MINUTE, &settings);
        assert_eq!(first, Offered::Now(Box::new(Told::of(dead("a", 1)))));
        for second in 2..5 {
            assert_eq!(desk.offer(dead("a", second), MINUTE, &settings), Offered::Grouped);
        }
        assert!(matches!(desk.offer(dead("b", 5), MINUTE, &settings), Offered::Now(_)), "another integration");
        assert_eq!(desk.next(&settings), Some(6 * MINUTE));
        assert_eq!(desk.due(Duration::from_secs(359), &settings), []);
        let [told] = &desk.due(6 * MINUTE, &settings)[..] else { panic!("one") };
        assert_eq!((told.count, told.first), (3, Timestamp::from_seconds(2)));
        assert_eq!(told.notice.since, Timestamp::from_seconds(4));
        assert_eq!(desk.offer(dead("a", 6), 7 * MINUTE, &settings), Offered::Grouped, "the window began anew");
        assert_eq!(desk.due(11 * MINUTE, &settings).len(), 1);
        assert_eq!(desk.due(16 * MINUTE, &settings).len(), 0);
        assert!(desk.groups.is_empty() && desk.next(&settings).is_none(), "nothing is kept of what has ended");
    }

    #[test]
    fn what_is_beyond_the_rate_is_told_in_one() {
        let (mut desk, settings) = (Desk::default(), settings(Duration::ZERO, 2));
        let offered: Vec<_> = (0..5).map(|second| desk.offer(dead("a", second), Duration::ZERO, &settings)).collect();
        assert_eq!(offered.iter().filter(|offered| **offered == Offered::OverRate).count(), 3);
        assert_eq!(desk.due(29 * MINUTE, &settings), []);
        assert_eq!(desk.next(&settings), Some(30 * MINUTE));
        let [told] = &desk.due(30 * MINUTE, &settings)[..] else { panic!("one") };
        assert_eq!((told.notice.kind, told.count, told.first), (Kind::OverRate, 3, Timestamp::from_seconds(2)));
        assert_eq!(told.notice.about, [("trunkline.event.dead", "3".to_owned())]);
        assert_eq!(desk.rest(), []);
    }

    #[test]
    fn what_could_not_be_stored_comes_again_with_what_came_meanwhile() {
        let (mut desk, settings) = (Desk::default(), settings(Duration::ZERO, 60));
        desk.take_back(Told::of(dead("a", 1)), Duration::ZERO);
        assert_eq!(desk.offer(dead("a", 2), Duration::ZERO, &settings), Offered::Grouped);
        desk.take_back(Told::of(dead("a", 1)), Duration::ZERO);
        let [told] = &desk.due(AGAIN, &settings)[..] else { panic!("one") };
        assert_eq!((told.count, told.notice.since), (3, Timestamp::from_seconds(2)));
    }

    proptest! {
        /// Whatever comes, all of it is told in the end, and no more is told than the rate allows.
        #[test]
        fn nothing_is_lost_and_the_rate_is_kept(
            steps in prop::collection::vec((0_u64..3, 0_u64..400), 1..200), group in 0_u64..600, per_hour in 1_u32..100,
        ) {
            let settings = settings(Duration::from_secs(group), per_hour);
            let (mut desk, mut now, mut told, mut events) = (Desk::default(), Duration::ZERO, 0, 0_u64);
            for (integration, pause) in &steps {
                now += Duration::from_secs(*pause);
                if let Offered::Now(now) = desk.offer(dead(&integration.to_string(), now.as_secs()), now, &settings) {
                    told += now.count;
                    events += 1;
                }
                for due in desk.due(now, &settings) {
                    told += due.count;
                    events += 1;
                }
            }
            let most = u64::from(per_hour) + now.as_secs() * u64::from(per_hour) / 3_600 + 1;
            prop_assert!(events <= most, "{events} events, {most} allowed");
            told += desk.rest().iter().map(|told| told.count).sum::<u64>();
            prop_assert_eq!(told, steps.len() as u64);
        }
    }
}
