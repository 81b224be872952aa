//! What is known of a service's own count for one account: learned from its answers, never trusted to be ours.
//!
//! Between two answers it is counted down here by what goes out; each answer corrects it. Near its end the
//! rest is spread to the moment when the count is full again, for those who can wait. A 429 stops everything
//! until the service wants to be asked again, and then one call goes ahead of the others. Pure: time comes in,
//! and `limit` keeps one of these for each count that a service may have.

use std::time::Duration;

/// How long nothing goes after a count has run out, where the service does not say when it is full again.
const BLIND: Duration = Duration::from_secs(1);
/// How long a count is believed that the service neither renews nor ends.
const STALE: Duration = Duration::from_mins(1);
/// The longest pause after a 429 without a word about when to come back: a second, doubled each time.
const STRIKES: u32 = 6;
/// The longest pause that is kept to: a day.
const LONGEST: Duration = Duration::from_hours(24);
/// Two ends of a window that lie this close are one: services tell them in whole seconds.
const SAME: Duration = Duration::from_secs(2);

/// What one answer says of the service's count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether the call was refused because the count had run out (429).
    pub refused: bool,
    /// How many calls are left.
    pub left: Option<u64>,
    /// How many there are in all.
    pub limit: Option<u64>,
    /// How long until the count is full again.
    pub resets_in: Option<Duration>,
    /// How long the service asks to wait.
    pub retry_after: Option<Duration>,
}

/// What people are told of a service's count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// How many calls are left; `None` where only a pause is known.
    pub left: Option<u64>,
    /// How many there are in all.
    pub limit: Option<u64>,
    /// How long until the count is full again.
    pub resets_in: Option<Duration>,
    /// For how long nothing goes, because the service asked for a pause.
    pub hold: Duration,
}

/// Who asks to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The gateway itself: what is reserved for the application is not for it.
    pub is_gateway: bool,
    /// Whether it can wait for its turn.
    pub is_patient: bool,
}

/// What is known of one count.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    left: Option<u64>,
    limit: Option<u64>,
    /// When the count is full again.
    resets: Option<Duration>,
    /// The least that answers of this window have told: they arrive in any order.
    least: u64,
    /// When anything was last learned.
    heard: Duration,
    /// Nothing goes before.
    hold: Duration,
    /// Near the end, the next that can wait goes then.
    next: Duration,
    /// Calls whose answers are still out.
    out: u32,
    strikes: u32,
    /// `left` was not told: it is the one call that finds out.
    probing: bool,
}

impl Learned {
    /// Whether forgetting it would change nothing.
    pub fn is_idle(&self, now: Duration) -> bool {
        let over = self.resets.map_or(now >= self.heard.saturating_add(STALE), |resets| now >= resets);
        self.out == 0 && now >= self.hold && (self.left.is_none() || over)
    }

    /// How many calls are left, where that is known.
    pub fn left(&self) -> Option<u64> {
        self.left
    }

    /// What people are told of it: nothing where nothing is known, or where what is known is over.
    pub fn told(&self, now: Duration) -> Option<Told> {
        let known = self.left.filter(|_| !self.probing && !self.is_idle(now));
        let resets_in = self.resets.map(|resets| resets.saturating_sub(now));
        let hold = self.hold.saturating_sub(now);
        (known.is_some() || !hold.is_zero()).then_some(Told { left: known, limit: self.limit, resets_in, hold })
    }

    /// How long nothing goes, because the service asked for a pause or says that nothing is left; zero where calls go.
    pub fn held_for(&self, now: Duration) -> Duration {
        let spent = self.left == Some(0);
        let resets = self.resets.filter(|_| spent).unwrap_or_default();
        self.hold.max(resets).saturating_sub(now)
    }

    /// A person lets calls go whatever the service said: the next call finds out what is left.
    pub fn lift(&mut self, now: Duration) {
        if !self.held_for(now).is_zero() {
            (self.hold, self.next, self.strikes) = (Duration::ZERO, Duration::ZERO, 0);
            (self.left, self.resets, self.probing, self.heard) = (Some(1), None, true, now);
        }
    }

    /// When a call may go: `now`, or later.
    pub fn ready_at(&mut self, asker: Asker, reserve: u32, now: Duration) -> Duration {
        self.turn_over(now);
        if now < self.hold {
            return self.hold;
        }
        let Some(left) = self.left else { return now };
        let kept = if asker.is_gateway { u64::from(reserve) } else { 0 };
        if left <= kept {
            let blind = if left == 0 { BLIND } else { STALE };
            return self.resets.unwrap_or(self.heard.saturating_add(blind)).max(now.saturating_add(MOMENT));
        }
        if asker.is_patient && self.is_near_the_end(left) { self.next.max(now) } else { now }
    }

    /// Counts a call that goes.
    pub fn take(&mut self, now: Duration) {
        self.out = self.out.saturating_add(1);
        if self.probing {
            self.heard = now;
        }
        let Some(left) = self.left.as_mut() else { return };
        *left = left.saturating_sub(1);
        let left = *left;
        if let Some(resets) = self.resets.filter(|_| self.is_near_the_end(left)) {
            let parts = u32::try_from(left).unwrap_or(u32::MAX).saturating_add(1);
            self.next = now.saturating_add(resets.saturating_sub(now) / parts);
        }
    }

    /// Counts back a call that did not go after all.
    pub fn give_back(&mut self) {
        self.out = self.out.saturating_sub(1);
        self.left = self.left.map(|left| left.saturating_add(1));
    }

    /// A call ended without an answer; the service may have counted it.
    pub fn lose(&mut self, now: Duration) {
        self.out = self.out.saturating_sub(1);
        if self.probing {
            self.heard = now;
        }
    }

    /// Learns from an answer.
    pub fn learn(&mut self, report: Report, now: Duration) {
        self.out = self.out.saturating_sub(1);
        self.heard = now;
        if let Some(told) = report.left {
            self.correct(told, report, now);
        } else if self.probing && !report.refused {
            (self.probing, self.left) = (false, None);
        }
        if report.refused {
            self.pause(report, now);
        } else if now >= self.hold {
            self.strikes = 0;
        }
    }

    fn correct(&mut self, told: u64, report: Report, now: Duration) {
        let resets = report.resets_in.map(|wait| now.saturating_add(wait.min(LONGEST)));
        let same = self.resets.zip(resets).is_some_and(|(known, told)| known.abs_diff(told) <= SAME);
        self.least = if same { self.least.min(told) } else { told };
        // Those whose answers are out may be counted by the service already, or not: the worse is taken.
        self.left = Some(self.least.saturating_sub(u64::from(self.out)));
        self.probing = false;
        if !same {
            (self.resets, self.next) = (resets, Duration::ZERO);
        }
        let seen = told.saturating_add(1);
        self.limit = report.limit.or_else(|| self.limit.filter(|_| same).max(Some(seen)));
    }

    fn pause(&mut self, report: Report, now: Duration) {
        // Of several that were under way together, only the first is news.
        if now >= self.hold {
            self.strikes = self.strikes.saturating_add(1).min(STRIKES);
        }
        let ran_out = report.left.is_none_or(|left| left == 0);
        let end = report.resets_in.filter(|_| ran_out);
        let doubled = Duration::from_secs(1 << self.strikes.saturating_sub(1));
        let wait = report.retry_after.or(end).unwrap_or(doubled);
        self.hold = self.hold.max(now.saturating_add(wait.min(LONGEST)));
        if report.left.is_none() {
            (self.left, self.resets, self.probing) = (Some(1), None, true);
        }
    }

    /// What the passing of time changes.
    fn turn_over(&mut self, now: Duration) {
        match self.resets {
            Some(resets) if now >= resets => {
                let full = self.limit.map(|limit| limit.saturating_sub(u64::from(self.out)));
                (self.left, self.resets, self.least) = (full, None, u64::MAX);
                (self.heard, self.next) = (now, Duration::ZERO);
            }
            None if self.left == Some(0) && now >= self.heard.saturating_add(BLIND).max(self.hold) => {
                (self.left, self.probing, self.heard) = (Some(1), true, now);
            }
            None if self.left.is_some() && !self.probing && now >= self.heard.saturating_add(STALE) => {
                self.left = None;
            }
            _ => {}
        }
    }

    fn is_near_the_end(&self, left: u64) -> bool {
        self.resets.is_some() && self.limit.is_some_and(|limit| left.saturating_mul(10) <= limit)
    }
}

/// The least time after which looking again makes sense.
const MOMENT: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::{Random as _, SeededRandom};
    use proptest::prelude::*;

    const APP: Asker = Asker { is_gateway: false, is_patient: false };
    const PATIENT: Asker = Asker { is_gateway: false, is_patient: true };
    const GATEWAY: Asker = Asker { is_gateway: true, is_patient: true };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(left: u64, limit: u64, resets: u64) -> Report {
        Report { left: Some(left), limit: Some(limit), resets_in: Some(at(resets)), ..Report::default() }
    }

    fn refused(after: Option<u64>) -> Report {
        Report { refused: true, retry_after: after.map(at), ..Report::default() }
    }

    /// One that has sent a call and heard this.
    fn heard(report: Report) -> Learned {
        let mut learned = Learned::default();
        learned.take(at(100));
        learned.learn(report, at(100));
        learned
    }

    #[test]
    fn what_is_left_is_counted_down_until_the_count_is_full_again() {
        let mut learned = heard(told(2, 50, 30));
        for _ in 0..2 {
            assert_eq!(learned.ready_at(APP, 0, at(101)), at(101));
            learned.take(at(101));
        }
        assert_eq!(learned.ready_at(APP, 0, at(101)), at(130));
        assert_eq!(learned.ready_at(APP, 0, at(130)), at(130));
        assert_eq!(learned.left(), Some(48), "two answers are still out");
    }

    #[test]
    fn people_are_told_what_is_known_until_it_is_over() {
        let learned = heard(told(2, 50, 30));
        let shown = learned.told(at(110)).expect("known");
        assert_eq!((shown.left, shown.limit, shown.resets_in, shown.hold), (Some(2), Some(50), Some(at(20)), at(0)));
        assert_eq!((learned.told(at(130)), Learned::default().told(at(0))), (None, None));
        let paused = heard(refused(Some(30))).told(at(110)).expect("a pause");
        assert_eq!((paused.left, paused.hold), (None, at(20)));
    }

    #[test]
    fn answers_in_any_order_never_raise_it() {
        let mut learned = Learned::default();
        (0..3).for_each(|_| learned.take(at(100)));
        learned.learn(told(7, 10, 30), at(100));
        assert_eq!(learned.left(), Some(5), "two are out, and may not be counted yet");
        learned.learn(told(9, 10, 30), at(101));
        learned.learn(told(8, 10, 29), at(101));
        assert_eq!(learned.left(), Some(7));
    }

    #[test]
    fn the_last_tenth_is_spread_for_those_who_can_wait() {
        let mut learned = heard(told(3, 50, 40));
        learned.take(at(100));
        assert_eq!(learned.ready_at(APP, 0, at(100)), at(100));
        let next = learned.ready_at(PATIENT, 0, at(100));
        assert!((at(113)..=at(114)).contains(&next), "{next:?}");
    }

    #[test]
    fn the_reserve_is_not_for_the_gateway() {
        let mut learned = heard(told(10, 50, 40));
        assert_eq!(learned.ready_at(GATEWAY, 10, at(100)), at(140));
        assert_eq!(learned.ready_at(APP, 10, at(100)), at(100));
    }

    #[test]
    fn a_429_stops_all_and_then_one_goes_ahead() {
        let mut learned = heard(refused(Some(30)));
        assert_eq!(learned.ready_at(APP, 0, at(101)), at(130));
        assert_eq!(learned.ready_at(APP, 0, at(130)), at(130));
        learned.take(at(130));
        assert!(learned.ready_at(APP, 0, at(130)) > at(130), "one has gone");
        learned.learn(Report::default(), at(131));
        assert_eq!((learned.ready_at(APP, 0, at(131)), learned.left()), (at(131), None));
    }

    #[test]
    fn a_pause_that_a_person_lifts_lets_one_call_find_out() {
        for report in [refused(Some(3_600)), told(0, 100, 3_600)] {
            let mut learned = heard(report);
            assert_eq!(learned.held_for(at(100)), at(3_600));
            assert_eq!(learned.ready_at(APP, 0, at(101)), at(3_700));
            learned.lift(at(101));
            assert_eq!((learned.held_for(at(101)), learned.ready_at(APP, 0, at(101))), (Duration::ZERO, at(101)));
            learned.take(at(101));
            assert!(learned.ready_at(APP, 0, at(101)) > at(101), "the others wait for its answer");
            learned.learn(refused(Some(60)), at(102));
            assert_eq!(learned.ready_at(APP, 0, at(103)), at(162), "the service is believed again");
        }
        let mut learned = heard(told(50, 100, 60));
        let before = learned.clone();
        learned.lift(at(101));
        assert_eq!(learned.told(at(101)), before.told(at(101)), "what holds nothing up stays");
    }

    #[test]
    fn pauses_without_a_word_double_and_begin_anew_after_a_success() {
        let mut learned = Learned::default();
        let (mut now, mut pauses) = (at(100), Vec::new());
        for _ in 0..8 {
            learned.take(now);
            learned.learn(refused(None), now);
            let next = learned.ready_at(APP, 0, now);
            pauses.push(next.saturating_sub(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
        learned.take(now);
        learned.learn(Report::default(), now);
        learned.take(now);
        learned.learn(refused(None), now);
        assert_eq!(learned.ready_at(APP, 0, now).saturating_sub(now), at(1));
    }

    #[test]
    fn a_429_with_something_left_pauses_and_does_not_unlearn() {
        let report = Report { refused: true, retry_after: Some(at(5)), ..told(4_000, 5_000, 600) };
        let mut learned = heard(report);
        assert_eq!(learned.ready_at(APP, 0, at(100)), at(105));
        assert_eq!((learned.ready_at(APP, 0, at(105)), learned.left()), (at(105), Some(4_000)));
    }

    #[test]
    fn a_count_that_nobody_renews_is_asked_after() {
        let mut learned = heard(Report { left: Some(0), ..Report::default() });
        assert_eq!(learned.ready_at(APP, 0, at(100)), at(101));
        assert_eq!(learned.ready_at(APP, 0, at(101)), at(101));
        let mut some = heard(Report { left: Some(5), ..Report::default() });
        assert_eq!(some.ready_at(GATEWAY, 5, at(100)), at(160));
        assert_eq!((some.ready_at(GATEWAY, 5, at(160)), some.left()), (at(160), None));
    }

    proptest! {
        /// A service with a fixed window and a count of its own, and several calls always under way.
        #[test]
        fn a_service_that_tells_is_never_asked_for_more_than_it_has(
            limit in 1_u64..60, window in 3_u64..60, together in 1_usize..6, seed in any::<u64>(),
        ) {
            let random = SeededRandom::new(seed);
            let draw = |most: u64| {
                let mut bytes = [0; 8];
                random.fill(&mut bytes).expect("seeded");
                u64::from_le_bytes(bytes) % most
            };
            let (mut learned, mut now) = (Learned::default(), Duration::from_secs(1_000));
            let mut service = (0_u64, 0_u64); // window, used
            let mut out: Vec<Option<(u64, Duration)>> = Vec::new();
            let (mut answers, mut refusals) = (0_u32, 0_u32);
            for _ in 0..2_000 {
                if out.len() < together && learned.ready_at(PATIENT, 0, now) <= now {
                    learned.take(now);
                    let number = now.as_secs() / window;
                    if service.0 != number {
                        service = (number, 0);
                    }
                    let ends = Duration::from_secs((number + 1) * window);
                    let left = (service.1 < limit).then(|| { service.1 += 1; limit - service.1 });
                    out.push(left.map(|left| (left, ends)));
                } else if out.is_empty() {
                    now = learned.ready_at(PATIENT, 0, now).max(now + Duration::from_millis(1));
                } else {
                    let answer = out.remove(usize::try_from(draw(out.len() as u64)).expect("small"));
                    answers += 1;
                    if let Some((left, ends)) = answer {
                        let resets_in = Some(ends.saturating_sub(now));
                        learned.learn(Report { left: Some(left), resets_in, ..Report::default() }, now);
                    } else {
                        refusals += 1;
                        learned.learn(refused(None), now);
                    }
                    now += Duration::from_millis(draw(20));
                }
            }
            // The first calls know nothing yet; from then on it is kept to.
            prop_assert!(u64::from(refusals) <= together as u64 + u64::from(answers) / 100, "{refusals} of {answers}");
        }
    }
}
