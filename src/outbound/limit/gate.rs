//! The budgets of one integration and who waits for them, as pure arithmetic: time comes in, decisions go out.
//!
//! A call names the budgets it needs and takes from all of them or from none. Budgets are kept by what they count
//! together (a connection, a caller, an endpoint); full ones are the same as new ones and are forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::Lane;
use super::queue::Queue;
use crate::base::bucket::{Bucket, Shape};
use crate::base::map::Map;
use crate::definition::plan::policy::{Limit, Scope};
use crate::outbound::quota::{Asker, Learned, Report, Told};

/// The most budgets of one limit that are kept; beyond that, unknown ones share one.
const BUDGETS: usize = 65_536;
/// The most counts of the service that are kept; beyond that, unknown ones are not learned.
const COUNTS: usize = 16_384;
/// Of those before a call every second may go away, or be held up by what does not hold up others, before it is said
/// that its turn cannot come.
const STEADY: u32 = 2;
/// How often it is looked for what can be forgotten, where there is no room: every one of them is looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What a call needs to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The connection.
    pub connection: Arc<str>,
    /// The caller; empty for the gateway's own calls.
    pub caller: Arc<str>,
    /// The endpoint; empty for none.
    pub endpoint: Arc<str>,
    /// The places of the limits that are for it, in order.
    pub limits: Vec<usize>,
    /// Which of the service's counts it draws from: zero is the general one, else a special limit's place and one.
    pub count: usize,
    /// Whether it can wait.
    pub is_patient: bool,
    /// How it stands to those who wait.
    pub lane: Lane,
}

impl Claim {
    fn asker(&self) -> Asker {
        match self.lane {
            Lane::Turn => Asker { is_gateway: self.caller.is_empty(), is_patient: self.is_patient },
            // The application's calls need what it brings: nothing is kept back from it, and nothing spread.
            Lane::First | Lane::Apart => Asker { is_gateway: false, is_patient: false },
        }
    }
}

/// A budget as answers tell of it: what is left, and in how long it is full.
pub type Standing = (usize, u32, Duration);

/// Why a call cannot go yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Later {
    /// When it could, if nobody else went before.
    pub at: Duration,
    /// Which limit holds it up the longest; `None` for the service's own count.
    pub limit: Option<usize>,
    /// How long whatever holds it up lets a call wait.
    pub wait: Duration,
}

/// The budgets of one integration. `W` is a call that waits.
#[derive(Debug)]
pub struct Gate<W> {
    limits: Vec<Counter>,
    counts: Map<(usize, Arc<str>), Learned>,
    /// When they may be swept again.
    sweep_at: Duration,
    /// Which counts are of the whole integration, by number.
    shared: Vec<bool>,
    reserve: u32,
    queue: Queue<Waiting<W>>,
    nobody: Arc<str>,
}

/// The budgets of one limit.
#[derive(Debug, Clone)]
struct Counter {
    limit: Limit,
    shape: Shape,
    budgets: Map<Arc<str>, Bucket>,
    /// When they may be swept again.
    sweep_at: Duration,
}

/// A call that waits.
#[derive(Debug)]
pub struct Waiting<W> {
    /// Its number.
    pub id: u64,
    /// What it needs.
    pub claim: Claim,
    /// When it leaves without a turn.
    pub until: Duration,
    /// The call.
    pub call: W,
}

/// What a call takes its turn from, as it stands before those who wait.
struct Prospect {
    budgets: Vec<(Shape, Bucket)>,
    /// The service's count: how many calls go before the next of its windows, and when that begins.
    count: Option<(u64, Duration)>,
    now: Duration,
}

impl Prospect {
    /// When the turn comes of the one after this many.
    fn after(&self, others: u32) -> Duration {
        let ready = self.budgets.iter().map(|(shape, bucket)| bucket.ready_after(*shape, others, self.now)).max();
        let spent = self.count.filter(|(left, _)| u64::from(others) >= *left);
        ready.max(spent.map(|(_, full)| full)).unwrap_or(self.now)
    }
}

impl<W> Gate<W> {
    /// One for these limits. What `before` knows of limits that are the same, and of the service's counts, is
    /// carried over.
    pub fn new(limits: &[Limit], reserve: u32, before: Option<&Self>) -> Self {
        let mut known: Vec<&Counter> = before.into_iter().flat_map(|gate| &gate.limits).collect();
        let counter = |limit: &Limit| {
            let same = known.iter().position(|counter| counter.limit == *limit);
            same.map_or_else(
                || Counter {
                    limit: limit.clone(),
                    shape: Shape::new(limit.rate, limit.burst),
                    budgets: Map::default(),
                    sweep_at: Duration::ZERO,
                },
                |at| known.remove(at).clone(),
            )
        };
        let general: Vec<_> = limits.iter().filter(|limit| !limit.is_special()).collect();
        let all = !general.is_empty() && general.iter().all(|limit| limit.per == Scope::Integration);
        let special = limits.iter().map(|limit| limit.per == Scope::Integration);
        let shared: Vec<bool> = std::iter::once(all).chain(special).collect();
        Self {
            limits: limits.iter().map(counter).collect(),
            counts: before.map(|gate| gate.counts_of(limits, &shared)).unwrap_or_default(),
            sweep_at: Duration::ZERO,
            shared,
            reserve,
            queue: Queue::default(),
            nobody: Arc::from(""),
        }
    }

    /// What is known of the service's counts, by the places of other limits: the general ones, and those of special limits
    /// that are among these. Where all share one now that each connection had, the first is as good as any.
    fn counts_of(&self, limits: &[Limit], shared: &[bool]) -> Map<(usize, Arc<str>), Learned> {
        let mut counts = Map::default();
        for ((count, whose), learned) in &self.counts {
            let place = match count.checked_sub(1) {
                None => Some(0),
                Some(place) => {
                    let same = self.limits.get(place).map(|counter| &counter.limit);
                    limits.iter().position(|limit| Some(limit) == same).map(|place| place + 1)
                }
            };
            let Some(place) = place else { continue };
            let is_shared = shared.get(place).copied().unwrap_or_default();
            let whose = if is_shared { Arc::clone(&self.nobody) } else { Arc::clone(whose) };
            counts.entry((place, whose)).or_insert_with(|| learned.clone());
        }
        counts
    }

    /// Lets all who wait go without a turn.
    pub fn dismiss(&mut self) {
        self.queue = Queue::default();
    }

    /// When a call could go: `None` is now.
    pub fn look(&mut self, claim: &Claim, now: Duration) -> Option<Later> {
        let mut later = Later { at: now, limit: None, wait: Duration::MAX };
        let mut patience = Duration::ZERO;
        for &place in &claim.limits {
            let Some(counter) = self.limits.get(place) else { continue };
            let bucket = counter.bucket(claim).copied().unwrap_or_default();
            let at = bucket.ready_at(counter.shape, now);
            patience = patience.max(counter.limit.wait);
            if at > now {
                later.wait = later.wait.min(counter.limit.wait);
            }
            if at > later.at {
                (later.at, later.limit) = (at, Some(place));
            }
        }
        let reserve = self.reserve;
        let count = self.count(claim);
        let at = count.map_or(now, |count| count.ready_at(claim.asker(), reserve, now));
        if at > now && !claim.caller.is_empty() {
            later.wait = later.wait.min(patience);
        }
        if at > later.at {
            (later.at, later.limit) = (at, None);
        }
        if claim.lane == Lane::First {
            later.wait = Duration::MAX;
        }
        (later.at > now).then_some(later)
    }

    /// Takes from every budget of a claim.
    pub fn take(&mut self, claim: &Claim, now: Duration) {
        for &place in &claim.limits {
            let Some(counter) = self.limits.get_mut(place) else { continue };
            let (shape, key) = (counter.shape, counter.key(claim, &self.nobody));
            let full = counter.is_full_for(&key, now);
            let key = if full { Arc::clone(&self.nobody) } else { key };
            counter.budgets.entry(key).or_default().take(shape, now);
        }
        let key = self.count_key(claim);
        let known = self.counts.len() < COUNTS || self.counts.contains_key(&key);
        if !known && now >= self.sweep_at {
            self.sweep_at = now.saturating_add(SWEEP);
            self.counts.retain(|_, count| !count.is_idle(now));
        }
        if known || self.counts.len() < COUNTS {
            self.counts.entry(key).or_default().take(now);
        }
    }

    /// Gives back what a call took that did not go after all.
    pub fn give_back(&mut self, claim: &Claim) {
        for &place in &claim.limits {
            let Some(counter) = self.limits.get_mut(place) else { continue };
            let (shape, key) = (counter.shape, counter.key(claim, &self.nobody));
            let key = if counter.budgets.contains_key(&key) { key } else { Arc::clone(&self.nobody) };
            if let Some(bucket) = counter.budgets.get_mut(&key) {
                bucket.give_back(shape);
            }
        }
        if let Some(count) = self.count(claim) {
            count.give_back();
        }
    }

    /// Learns from an answer; `None` when there was none.
    pub fn learn(&mut self, claim: &Claim, report: Option<Report>, now: Duration) {
        let Some(count) = self.count(claim) else { return };
        match report {
            Some(report) => count.learn(report, now),
            None => count.lose(now),
        }
    }

    /// How the budgets of a claim stand.
    pub fn standing(&mut self, claim: &Claim, now: Duration) -> Vec<Standing> {
        let count = self.count(claim).and_then(|count| count.left());
        let count = count.map_or(u32::MAX, |left| u32::try_from(left).unwrap_or(u32::MAX));
        let of = |&place: &usize| {
            let counter = self.limits.get(place)?;
            let bucket = counter.bucket(claim).copied().unwrap_or_default();
            Some((place, bucket.left(counter.shape, now).min(count), bucket.full_in(now)))
        };
        claim.limits.iter().filter_map(of).collect()
    }

    /// What is known of the service's counts: the limit that each is of (`None` for the general one), the connection
    /// (empty where all share it), and what is told.
    pub fn told(&self, now: Duration) -> Vec<(Option<usize>, Arc<str>, Told)> {
        let told = self.counts.iter().filter_map(|((count, whose), learned)| {
            Some((count.checked_sub(1), Arc::clone(whose), learned.told(now)?))
        });
        told.collect()
    }

    /// Lets calls go whatever the service said of its counts; those that were held up find out what is left.
    pub fn lift(&mut self, now: Duration) {
        self.counts.values_mut().for_each(|learned| learned.lift(now));
    }

    /// Which of the service's counts hold calls up, as [`Self::told`] names them, and for how long.
    pub fn held(&self, now: Duration) -> Vec<(Option<usize>, Arc<str>, Duration)> {
        let held = self
            .counts
            .iter()
            .map(|((count, whose), learned)| (count.checked_sub(1), Arc::clone(whose), learned.held_for(now)));
        held.filter(|(_, _, wait)| !wait.is_zero()).collect()
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// When the turn of a call that comes now could come at the soonest, behind those who wait: before then it cannot
    /// come unless more of them go away than every second. `later` is what [`Self::look`] says of it.
    pub fn soonest(&self, claim: &Claim, later: Later, now: Duration) -> Duration {
        if claim.lane != Lane::Turn {
            return later.at;
        }
        let prospect = self.prospect(claim, None, now);
        self.turn(claim, (&prospect, STEADY), |other| self.goes_as(claim, other)).max(later.at)
    }

    /// When the turn of a call that comes now is to be expected, should nobody go away.
    pub fn expected(&self, claim: &Claim, later: Later, now: Duration) -> Duration {
        let prospect = self.prospect(claim, later.limit, now);
        let counter = later.limit.and_then(|place| Some((place, self.limits.get(place)?)));
        let turn = match counter {
            Some((place, counter)) => self.turn(claim, (&prospect, 1), |other| {
                other.limits.contains(&place) && counter.whose(other) == counter.whose(claim)
            }),
            None => self.turn(claim, (&prospect, 1), |other| self.goes_as(claim, other)),
        };
        turn.max(later.at)
    }

    fn turn(&self, claim: &Claim, (prospect, steady): (&Prospect, u32), is_alike: impl Fn(&Claim) -> bool) -> Duration {
        let mut turns = 0;
        self.queue.ahead(
            &claim.caller,
            |other| is_alike(&other.claim),
            |other| {
                let takes = prospect.after(turns / steady) <= other.until;
                turns += u32::from(takes);
                takes
            },
        );
        prospect.after(turns / steady)
    }

    /// What a claim takes from: of one limit, or of all of them and the service's count.
    fn prospect(&self, claim: &Claim, limit: Option<usize>, now: Duration) -> Prospect {
        let places = claim.limits.iter().filter(|place| limit.is_none_or(|limit| limit == **place));
        let budget = |counter: &Counter| (counter.shape, counter.bucket(claim).copied().unwrap_or_default());
        let budgets = places.filter_map(|place| self.limits.get(*place)).map(budget).collect();
        let count = self.counts.get(&self.count_key(claim)).filter(|_| limit.is_none());
        Prospect { budgets, count: count.and_then(Learned::until_full), now }
    }

    /// Whether another call can go whenever one could, because it draws from the very same.
    fn goes_as(&self, claim: &Claim, other: &Claim) -> bool {
        let own = |place: &usize| self.limits.get(*place).is_some_and(|counter| counter.limit.per == Scope::Caller);
        let same = (&claim.connection, &claim.endpoint, &claim.limits, claim.count)
            == (&other.connection, &other.endpoint, &other.limits, other.count);
        let is_gateway = |claim: &Claim| claim.caller.is_empty();
        let free = other.lane == Lane::First || is_gateway(claim) == is_gateway(other);
        same && (claim.caller == other.caller || free && !claim.limits.iter().any(own))
    }

    /// Lets those go without a turn who wait for one that comes after they must leave.
    pub fn give_up(&mut self, now: Duration) {
        let mut queue = std::mem::take(&mut self.queue);
        let gate = std::cell::RefCell::new(&mut *self);
        queue.retain(|waiting| {
            let later = gate.borrow_mut().look(&waiting.claim, now);
            later.is_none_or(|later| later.at <= waiting.until)
        });
        self.queue = queue;
    }

    /// Queues a call up. At most `most` wait: beyond that the newest of the longest line is given back to be
    /// refused, or this one, where its own caller has as many as anyone.
    pub fn wait(&mut self, waiting: Waiting<W>, most: usize) -> Option<W> {
        let mut refused = None;
        if waiting.claim.lane == Lane::First {
            self.queue.push_first(waiting);
            return None;
        }
        if self.queue.len() >= most {
            match self.queue.yield_by_longest(&waiting.claim.caller) {
                Some(newest) => refused = Some(newest.call),
                None => return Some(waiting.call),
            }
        }
        let caller = Arc::clone(&waiting.claim.caller);
        self.queue.push(&caller, waiting, |one, other| one.claim == other.claim);
        refused
    }

    /// Takes a waiting call out; whether it was still there.
    pub fn leave(&mut self, id: u64) -> bool {
        self.queue.remove(|waiting| waiting.id == id).is_some()
    }

    /// Lets go whoever can; `go` gets each with how its budgets stand, and says whether it went. Answers when to
    /// look again; `None` when nobody waits.
    pub fn release(&mut self, now: Duration, mut go: impl FnMut(W, Vec<Standing>) -> bool) -> Option<Duration> {
        let mut queue = std::mem::take(&mut self.queue);
        let mut soonest: Option<Duration> = None;
        let gate = std::cell::RefCell::new(&mut *self);
        queue.release(
            |waiting| match gate.borrow_mut().look(&waiting.claim, now) {
                None => true,
                Some(later) => {
                    soonest = Some(soonest.map_or(later.at, |known| known.min(later.at)));
                    false
                }
            },
            |waiting| {
                let mut gate = gate.borrow_mut();
                gate.take(&waiting.claim, now);
                let standing = gate.standing(&waiting.claim, now);
                if !go(waiting.call, standing) {
                    gate.give_back(&waiting.claim);
                }
            },
        );
        self.queue = queue;
        soonest.filter(|_| !self.queue.is_empty())
    }

    fn count_key(&self, claim: &Claim) -> (usize, Arc<str>) {
        let shared = self.shared.get(claim.count).copied().unwrap_or_default();
        (claim.count, Arc::clone(if shared { &self.nobody } else { &claim.connection }))
    }

    fn count(&mut self, claim: &Claim) -> Option<&mut Learned> {
        self.counts.get_mut(&self.count_key(claim))
    }
}

impl Counter {
    fn key(&self, claim: &Claim, nobody: &Arc<str>) -> Arc<str> {
        match self.limit.per {
            Scope::Integration => Arc::clone(nobody),
            Scope::Connection => Arc::clone(&claim.connection),
            Scope::Caller => Arc::clone(&claim.caller),
            Scope::Endpoint => Arc::clone(&claim.endpoint),
        }
    }

    /// Whose budget a claim draws from.
    fn whose<'a>(&self, claim: &'a Claim) -> &'a str {
        match self.limit.per {
            Scope::Integration => "",
            Scope::Connection => &claim.connection,
            Scope::Caller => &claim.caller,
            Scope::Endpoint => &claim.endpoint,
        }
    }

    fn bucket(&self, claim: &Claim) -> Option<&Bucket> {
        let key = self.whose(claim);
        let shared = || (self.budgets.len() >= BUDGETS).then(|| self.budgets.get("")).flatten();
        self.budgets.get(key).or_else(shared)
    }

    /// Whether there is no room for a budget of its own.
    fn is_full_for(&mut self, key: &Arc<str>, now: Duration) -> bool {
        if self.budgets.len() < BUDGETS || self.budgets.contains_key(key) {
            return false;
        }
        if now < self.sweep_at {
            return true;
        }
        self.sweep_at = now.saturating_add(SWEEP);
        self.budgets.retain(|_, bucket| !bucket.full_in(now).is_zero());
        self.budgets.len() >= BUDGETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::units::Rate;

    const LIMIT: Rate = Rate { count: 10, period: Duration::from_secs(1) };

    fn limit(per: Scope, burst: u32) -> Limit {
        Limit {
            name: "x".into(),
            rate: LIMIT,
            burst,
            per,
            endpoint: None,
            paths: Vec::new(),
            methods: Vec::new(),
            wait: Duration::from_secs(30),
        }
    }

    fn claim(caller: &str, connection: &str, limits: &[usize]) -> Claim {
        Claim {
            connection: connection.into(),
            caller: caller.into(),
            endpoint: "".into(),
            limits: limits.to_vec(),
            count: 0,
            is_patient: true,
            lane: Lane::Turn,
        }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    fn waiting<W>(id: u64, claim: Claim, call: W) -> Waiting<W> {
        Waiting { id, claim, until: Duration::MAX, call }
    }

    fn goes(gate: &mut Gate<usize>, claim: &Claim, now: Duration) -> bool {
        let free = gate.look(claim, now).is_none();
        if free {
            gate.take(claim, now);
        }
        free
    }

    #[test]
    fn a_call_takes_from_all_its_budgets_or_from_none() {
        let limits = [limit(Scope::Integration, 3), limit(Scope::Connection, 1)];
        let mut gate = Gate::<usize>::new(&limits, 0, None);
        let a = claim("app", "a", &[0, 1]);
        assert!(goes(&mut gate, &a, at(0)));
        for _ in 0..10 {
            assert!(!goes(&mut gate, &a, at(0)), "its own is used up");
        }
        let all = [claim("app", "b", &[0, 1]), claim("app", "c", &[0, 1])];
        assert!(all.iter().all(|claim| goes(&mut gate, claim, at(0))), "the refusals took nothing of the common one");
        let later = gate.look(&claim("app", "d", &[0, 1]), at(0)).expect("three have gone");
        assert_eq!((later.at, later.limit), (at(100), Some(0)));
    }

    #[test]
    fn what_did_not_go_is_given_back() {
        let mut gate = Gate::<usize>::new(&[limit(Scope::Caller, 1)], 0, None);
        let a = claim("app", "a", &[0]);
        assert!(goes(&mut gate, &a, at(0)) && !goes(&mut gate, &a, at(0)));
        gate.give_back(&a);
        assert!(goes(&mut gate, &a, at(0)));
        assert!(goes(&mut gate, &claim("other", "a", &[0]), at(0)), "another caller has its own");
    }

    /// Jain's index: one when all get the same, one of n when one gets all.
    fn fairness(shares: &[f64; 50]) -> f64 {
        let sum: f64 = shares.iter().sum();
        sum * sum / (50.0 * shares.iter().map(|share| share * share).sum::<f64>())
    }

    #[test]
    fn fifty_callers_at_one_limited_service_get_the_same() {
        let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
        let (mut served, mut id) = ([0_u32; 50], 0);
        // Caller number n always has n + 1 calls waiting: the greediest has fifty times what the first has.
        for (number, _) in served.iter().enumerate() {
            for _ in 0..=number {
                id += 1;
                let refused = gate.wait(waiting(id, claim(&number.to_string(), "one", &[0]), number), 10_000);
                assert_eq!(refused, None);
            }
        }
        let mut now = at(0);
        for _ in 0..2_000 {
            let mut gone = Vec::new();
            let next = gate.release(now, |number, _| {
                gone.push(number);
                true
            });
            for number in gone {
                served[number] += 1;
                id += 1;
                gate.wait(waiting(id, claim(&number.to_string(), "one", &[0]), number), 10_000);
            }
            now = next.expect("somebody waits").max(now + Duration::from_millis(1));
        }
        let shares = served.map(f64::from);
        let total: f64 = shares.iter().sum();
        assert!((1_990.0..=2_010.0).contains(&total), "one in 100 ms: {total}");
        assert!(fairness(&shares) >= 0.999, "{} {served:?}", fairness(&shares));
    }

    #[test]
    fn one_used_up_connection_does_not_hold_up_another_of_the_same_caller() {
        let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
        assert!(goes_of(&mut gate, "a"));
        for (id, connection) in [(1, "a"), (2, "a"), (3, "b")] {
            gate.wait(waiting(id, claim("app", connection, &[0]), connection), 10);
        }
        let mut gone = Vec::new();
        let next = gate.release(at(0), |connection, _| {
            gone.push(connection);
            true
        });
        assert_eq!((gone, next, gate.waiting()), (vec!["b"], Some(at(100)), 2));
    }

    fn goes_of(gate: &mut Gate<&str>, connection: &str) -> bool {
        let claim = claim("app", connection, &[0]);
        let free = gate.look(&claim, at(0)).is_none();
        gate.take(&claim, at(0));
        free
    }

    #[test]
    fn a_caller_that_went_away_costs_no_token() {
        let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
        for id in 0..3 {
            gate.wait(waiting(id, claim(&id.to_string(), "a", &[0]), id), 10);
        }
        assert!(gate.leave(1) && !gate.leave(1));
        let mut asked = Vec::new();
        gate.release(at(0), |id, _| {
            asked.push(id);
            id != 0
        });
        assert_eq!(asked, [0, 2], "the first is gone, and what it took went to the next");
    }

    #[test]
    fn the_queue_is_bounded_and_its_room_goes_to_those_who_have_less() {
        let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
        for id in 0..4 {
            assert_eq!(gate.wait(waiting(id, claim("greedy", "a", &[0]), id), 4), None);
        }
        assert_eq!(gate.wait(waiting(4, claim("greedy", "a", &[0]), 4), 4), Some(4));
        assert_eq!(gate.wait(waiting(5, claim("modest", "a", &[0]), 5), 4), Some(3), "the newest of the longest line");
        assert_eq!(gate.waiting(), 4);
    }

    /// When the turn of another call could come, and is to be expected.
    fn foreseen(gate: &mut Gate<u64>, claim: &Claim, now: Duration) -> (Duration, Duration) {
        let later = gate.look(claim, now).expect("it has to wait");
        (gate.soonest(claim, later, now), gate.expected(claim, later, now))
    }

    #[test]
    fn a_turn_is_foreseen_by_those_who_wait_before_it() {
        let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
        let (app, other) = (claim("app", "a", &[0]), claim("other", "a", &[0]));
        gate.take(&app, at(0));
        assert_eq!(foreseen(&mut gate, &app, at(0)), (at(100), at(100)));
        for id in 0..10 {
            gate.wait(waiting(id, app.clone(), id), 100);
        }
        assert_eq!(foreseen(&mut gate, &app, at(0)), (at(600), at(1_100)), "every second may go away");
        assert_eq!(foreseen(&mut gate, &other, at(0)), (at(100), at(100)), "another caller has its turn next");
        for id in 10..14 {
            gate.wait(waiting(id, other.clone(), id), 100);
        }
        assert_eq!(foreseen(&mut gate, &other, at(0)), (at(500), at(900)));
        let elsewhere = claim("app", "b", &[0]);
        let (soonest, expected) = foreseen(&mut gate, &elsewhere, at(0));
        assert_eq!(soonest, at(100), "what may be held up by something else does not count");
        assert!(expected > at(1_100), "but is to be expected before it");
        let mut sign_in = claim("", "a", &[0]);
        sign_in.lane = Lane::First;
        assert_eq!(foreseen(&mut gate, &sign_in, at(0)).0, at(100));
    }

    #[test]
    fn who_leaves_before_its_turn_is_not_before_another() {
        let mut gate = Gate::new(&[limit(Scope::Integration, 1)], 0, None);
        let app = claim("app", "a", &[0]);
        gate.take(&app, at(0));
        for id in 0..10 {
            gate.wait(Waiting { until: at(300), ..waiting(id, app.clone(), id) }, 100);
        }
        assert_eq!(foreseen(&mut gate, &app, at(0)).1, at(400), "three have their turns, seven leave");
    }

    #[test]
    fn a_window_of_the_service_that_is_used_up_by_those_before_is_foreseen() {
        let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
        let app = claim("app", "a", &[0]);
        gate.take(&app, at(0));
        let resets_in = Some(Duration::from_mins(1));
        let report = Report { left: Some(3), limit: Some(10), resets_in, ..Report::default() };
        gate.learn(&app, Some(report), at(0));
        for id in 0..6 {
            gate.wait(waiting(id, app.clone(), id), 100);
        }
        assert_eq!(foreseen(&mut gate, &app, at(0)).0, at(60_000), "half of them use up what is left");
    }

    #[test]
    fn who_waits_for_what_cannot_come_any_more_is_let_go() {
        let mut gate = Gate::new(&[limit(Scope::Connection, 1)], 0, None);
        let app = claim("app", "a", &[0]);
        gate.take(&app, at(0));
        for (id, until) in [(0, at(5_000)), (1, at(30_000))] {
            gate.wait(Waiting { until, ..waiting(id, app.clone(), id) }, 100);
        }
        let report = Report { refused: true, retry_after: Some(Duration::from_secs(9)), ..Report::default() };
        gate.learn(&app, Some(report), at(0));
        gate.give_up(at(0));
        assert!(gate.waiting() == 1 && gate.leave(1));
    }

    #[test]
    fn a_429_pauses_the_count_it_is_about_and_no_other() {
        let mut search = limit(Scope::Connection, 9);
        search.paths = vec![crate::definition::plan::path::PathGlob::new("/search*")];
        let mut gate = Gate::<usize>::new(&[limit(Scope::Connection, 9), search], 0, None);
        let special = Claim { count: 2, ..claim("app", "a", &[0, 1]) };
        gate.take(&special, at(0));
        let report = Report { refused: true, retry_after: Some(Duration::from_secs(9)), ..Report::default() };
        gate.learn(&special, Some(report), at(0));
        assert_eq!(gate.look(&special, at(1)).map(|later| later.at), Some(at(9_000)));
        assert_eq!(gate.look(&claim("app", "a", &[0]), at(1)), None, "other paths go on");
        assert_eq!(gate.look(&Claim { count: 2, ..claim("app", "b", &[0, 1]) }, at(1)), None, "other accounts too");
    }

    #[test]
    fn a_reload_keeps_what_is_still_the_same() {
        let same = limit(Scope::Integration, 1);
        let mut gate = Gate::<usize>::new(&[same.clone(), limit(Scope::Connection, 1)], 0, None);
        let a = claim("app", "a", &[0, 1]);
        assert!(goes(&mut gate, &a, at(0)));
        let mut next = Gate::new(&[limit(Scope::Connection, 2), same], 0, Some(&gate));
        assert!(next.look(&claim("app", "a", &[0]), at(0)).is_none(), "a changed limit begins anew");
        assert!(next.look(&claim("app", "b", &[1]), at(0)).is_some(), "an unchanged one goes on, wherever it stands");
    }

    #[test]
    fn memory_is_bounded() {
        let mut gate = Gate::<usize>::new(&[limit(Scope::Connection, 1)], 0, None);
        for number in 0..BUDGETS + 100 {
            let claim = claim("app", &number.to_string(), &[0]);
            gate.take(&claim, at(0));
            gate.learn(
                &claim,
                Some(Report { left: Some(1), resets_in: Some(Duration::from_secs(9)), ..Report::default() }),
                at(0),
            );
        }
        assert!(gate.limits[0].budgets.len() <= BUDGETS + 1, "{}", gate.limits[0].budgets.len());
        assert_eq!(gate.counts.len(), COUNTS);
        gate.take(&claim("app", "late", &[0]), at(100_000));
        assert_eq!((gate.limits[0].budgets.len(), gate.counts.len()), (1, 1));
    }
}
