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

    /// When the turn of a call that comes now is to be expected, should all go who wait for the budget that holds it up.
    /// `later` is what [`Self::look`] says of it.
    pub fn expected(&self, claim: &Claim, later: Later) -> Duration {
        let Some((place, counter)) = later.limit.and_then(|place| Some((place, self.limits.get(place)?))) else {
            return later.at;
        };
        let is_alike = |other: &Claim| other.limits.contains(&place) && counter.whose(other) == counter.whose(claim);
        let before = self.queue.iter().filter(|waiting| is_alike(&waiting.claim)).count();
        let turns = counter.shape.interval().saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
        later.at.saturating_add(turns)
    }

    /// Lets those go without a turn who wait for one that comes after they must leave.
    pub fn give_up(&mut self, now: Duration) {
        let mut queue = std::mem::take(&mut self.queue);
        queue.retain(|waiting| self.look(&waiting.claim, now).is_none_or(|later| later.at <= waiting.until));
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
mod tests;
