//! Rates: a call goes when every budget it needs has one left, waits for its turn where that is allowed, or is
//! refused with when to come again.
//!
//! [`gate`] decides, [`queue`] keeps the order; here are the lock (never held across an await), the clock and
//! those who wait. One of these for each integration that declares limits or a quota; others have none and pay
//! nothing. Called by `policy`.

pub mod gate;
pub mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Method};
use prometheus::IntGauge;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::quota::{Report, Told};
use crate::base::clock::Clock;
use crate::definition::plan::policy::Limit;
use gate::{Claim, Gate, Later, Standing, Waiting};

/// What a call is, as far as limits are concerned.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The connection.
    pub connection: &'a Arc<str>,
    /// The caller; `None` for the gateway's own calls.
    pub caller: Option<&'a Arc<str>>,
    /// The endpoint, where it is one.
    pub endpoint: Option<&'a Arc<str>>,
    /// The method.
    pub method: &'a Method,
    /// The path below the API's base, without the query.
    pub path: &'a str,
    /// Where it goes: scheme, host and port.
    pub place: &'a Arc<str>,
    /// When the call must be done, in monotonic time, where it must.
    pub until: Option<Duration>,
    /// How it stands to those who wait.
    pub lane: Lane,
}

/// How a call stands to those who wait for their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// It takes its turn.
    #[default]
    Turn,
    /// It counts, and goes ahead of all who take turns.
    First,
    /// It goes elsewhere than the API, and counts nowhere.
    Apart,
}

/// The limits of one integration, and what is left of them.
#[derive(Debug)]
pub struct Limiter {
    limits: Vec<Limit>,
    reserve: u32,
    /// Whether a reload took them away: they hold up nothing, and are kept for when they come back.
    is_lifted: bool,
    state: Mutex<State>,
    /// Told when somebody new waits, or something was learned.
    news: Notify,
    waiting: IntGauge,
    clock: Arc<dyn Clock>,
    nobody: Arc<str>,
    /// What `RateLimit-Policy` says of each limit, and of all of them.
    policies: Vec<Box<str>>,
    policy: Option<HeaderValue>,
}

type Turn = oneshot::Sender<Vec<Standing>>;

#[derive(Debug)]
struct State {
    gate: Gate<Turn>,
    /// What is in its place since a reload: whoever comes here or waits here goes on there.
    successor: Option<Arc<Limiter>>,
    /// Whether a task looks after those who wait.
    is_driven: bool,
    ids: u64,
}

/// What a call took. Whoever has it says what became of the call; dropped without a word it counts as sent, and
/// never answered.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    claim: Claim,
    standing: Vec<Standing>,
    is_open: bool,
}

/// One of the service's counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// The name of the special limit that it is of; `None` for the general one.
    pub limit: Option<Box<str>>,
    /// The connection; empty where all of them share it.
    pub connection: Arc<str>,
    /// What is known of it.
    pub told: Told,
}

/// A count of the service that holds calls up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// The name of the special limit that it is of; `None` for the general one.
    pub limit: Option<Box<str>>,
    /// The connection; empty where all of them share it.
    pub connection: Arc<str>,
    /// For how long.
    pub wait: Duration,
}

/// Why a call may not go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Full {
    /// What stood in the way.
    pub why: Why,
    /// The limit's name; `None` for the service's own count.
    pub limit: Option<Box<str>>,
    /// How long until it makes sense to come again.
    pub after: Duration,
    /// `RateLimit-Policy` and `RateLimit` of the answer, where there are limits.
    pub fields: Option<(HeaderValue, HeaderValue)>,
    /// How long it waited in vain.
    pub waited: Duration,
}

/// What stood in a call's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A declared rate, and waiting is not allowed or would not help in time.
    Rate,
    /// The service's own count, or the pause it asked for.
    Quota,
    /// It waited for as long as it may.
    Waited,
    /// Too many wait already.
    Crowded,
}

impl Why {
    /// A word of a small list, for metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Waited => "waited",
            Self::Crowded => "crowded",
        }
    }
}

impl Later {
    /// Why a call is refused that does not wait for so long.
    const fn why(self) -> Why {
        if self.limit.is_some() { Why::Rate } else { Why::Quota }
    }
}

/// What a limiter is made from.
struct Rules<'a> {
    limits: &'a [Limit],
    reserve: u32,
    is_lifted: bool,
}

enum Entered {
    Moved(Arc<Limiter>),
    Go(Vec<Standing>),
    Wait(u64, oneshot::Receiver<Vec<Standing>>, Duration),
    Full(Full),
}

impl Limiter {
    /// The limits of an integration. `before` is what there was before a reload: the very same where nothing
    /// changed, else what is still the same of it is carried over.
    pub fn of(
        (limits, reserve): (&[Limit], u32),
        before: Option<&Arc<Self>>,
        waiting: IntGauge,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        if let Some(before) = before
            && before.limits == limits
            && before.reserve == reserve
            && !before.is_lifted
        {
            return Arc::clone(before);
        }
        Self::after(before, Rules { limits, reserve, is_lifted: false }, (waiting, clock))
    }

    /// What becomes of limits that a reload took away: whoever waits or comes goes at once, and counts against none of them.
    /// What is left of them, and what the service asks for, is known when they come back.
    pub fn lifted(before: &Arc<Self>) -> Arc<Self> {
        if before.is_lifted {
            return Arc::clone(before);
        }
        let rules = Rules { limits: &before.limits, reserve: before.reserve, is_lifted: true };
        Self::after(Some(before), rules, (before.waiting.clone(), &before.clock))
    }

    fn after(
        before: Option<&Arc<Self>>,
        Rules { limits, reserve, is_lifted }: Rules<'_>,
        (waiting, clock): (IntGauge, &Arc<dyn Clock>),
    ) -> Arc<Self> {
        // Nothing is taken of the budgets while they change hands.
        let mut known = before.map(|before| before.lock());
        let gate = Gate::new(limits, reserve, known.as_deref().map(|state| &state.gate));
        let policies: Vec<_> = limits.iter().map(policy_of).collect();
        let limiter = Arc::new(Self {
            limits: limits.to_vec(),
            reserve,
            is_lifted,
            state: Mutex::new(State { gate, successor: None, is_driven: false, ids: 0 }),
            news: Notify::new(),
            waiting,
            clock: Arc::clone(clock),
            nobody: Arc::from(""),
            policy: HeaderValue::try_from(policies.join(", ")).ok(),
            policies,
        });
        if let Some(state) = &mut known {
            state.successor = Some(Arc::clone(&limiter));
            // Those who wait learn it by this, and wait there.
            state.gate.dismiss();
        }
        limiter
    }

    /// Takes what a call needs, at once or when it is its turn; `most` is how many may wait in all. Dropping the
    /// future leaves the queue.
    ///
    /// # Errors
    /// When the call may not go.
    pub async fn admit(self: &Arc<Self>, ask: &Ask<'_>, most: usize) -> Result<Permit, Full> {
        let mut limiter = Arc::clone(self);
        loop {
            let claim = limiter.claim(ask);
            let entered = match limiter.enter(&claim, ask.until, most) {
                Entered::Wait(id, turn, wait) => limiter.wait(&claim, (id, turn), wait).await,
                entered => entered,
            };
            match entered {
                Entered::Go(standing) => return Ok(Permit { limiter, claim, standing, is_open: true }),
                Entered::Full(full) => return Err(full),
                Entered::Moved(successor) => limiter = successor,
                // Nobody waits a second time without a word.
                Entered::Wait(..) => {}
            }
        }
    }

    /// The limits in force, and what a claim is by them: of limits that are the same.
    fn newest(self: &Arc<Self>, claim: &Claim) -> (Arc<Self>, Claim) {
        let (mut limiter, mut claim) = (Arc::clone(self), claim.clone());
        loop {
            let Some(next) = limiter.lock().successor.clone() else { return (limiter, claim) };
            let same = |place: usize| {
                let limit = limiter.limits.get(place)?;
                next.limits.iter().position(|other| other == limit)
            };
            claim.limits = claim.limits.iter().filter_map(|place| same(*place)).collect();
            claim.count = claim.count.checked_sub(1).and_then(same).map_or(0, |place| place + 1);
            limiter = next;
        }
    }

    /// What is known of the service's counts, those with the least left first.
    pub fn counts(&self) -> Vec<Count> {
        if self.is_lifted {
            return Vec::new();
        }
        let told = self.lock().gate.told(self.clock.monotonic());
        let count = |(place, connection, told): (Option<usize>, Arc<str>, Told)| {
            let limit = place.and_then(|place| self.name(place));
            Count { limit, connection, told }
        };
        let mut counts: Vec<_> = told.into_iter().map(count).collect();
        counts.sort_by(|a, b| (a.told.left, &a.connection, &a.limit).cmp(&(b.told.left, &b.connection, &b.limit)));
        counts
    }

    /// What the service said that holds calls up.
    pub fn pauses(&self) -> Vec<Pause> {
        if self.is_lifted {
            return Vec::new();
        }
        let held = self.lock().gate.held(self.clock.monotonic());
        let pause = |(place, connection, wait): (Option<usize>, Arc<str>, Duration)| {
            let limit = place.and_then(|place| self.name(place));
            Pause { limit, connection, wait }
        };
        let mut pauses: Vec<_> = held.into_iter().map(pause).collect();
        pauses.sort_by(|a, b| (&a.connection, &a.limit).cmp(&(&b.connection, &b.limit)));
        pauses
    }

    /// Lets calls go whatever the service said: one call of each count that held others up finds out what is left.
    pub fn lift(&self) {
        self.lock().gate.lift(self.clock.monotonic());
        self.news.notify_one();
    }

    fn name(&self, place: usize) -> Option<Box<str>> {
        self.limits.get(place).map(|limit| limit.name.clone())
    }

    fn claim(&self, ask: &Ask<'_>) -> Claim {
        let endpoint = ask.endpoint.map(|id| &**id);
        let is_for = |limit: &Limit| limit.is_for(endpoint, ask.method, ask.path);
        let limits: Vec<usize> =
            (0..self.limits.len()).filter(|place| self.limits.get(*place).is_some_and(is_for)).collect();
        let of = |place: &usize| self.limits.get(*place);
        let special = limits.iter().rev().find(|place| of(place).is_some_and(Limit::is_special));
        let may_wait = limits.iter().filter_map(of).any(|limit| !limit.wait.is_zero());
        Claim {
            connection: Arc::clone(ask.connection),
            caller: Arc::clone(ask.caller.unwrap_or(&self.nobody)),
            endpoint: Arc::clone(ask.endpoint.unwrap_or(&self.nobody)),
            count: special.map_or(0, |place| place + 1),
            is_patient: may_wait || ask.caller.is_none(),
            lane: ask.lane,
            limits: if self.is_lifted { Vec::new() } else { limits },
        }
    }

    fn enter(self: &Arc<Self>, claim: &Claim, until: Option<Duration>, most: usize) -> Entered {
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if let Some(successor) = &state.successor {
            return Entered::Moved(Arc::clone(successor));
        }
        if state.gate.waiting() > 0 && claim.lane == Lane::Turn {
            // What has come free meanwhile is for those who came before.
            state.gate.release(now, take_turn);
        }
        let later = if self.is_lifted { None } else { state.gate.look(claim, now) };
        let Some(later) = later else {
            state.gate.take(claim, now);
            return Entered::Go(state.gate.standing(claim, now));
        };
        let end = now.saturating_add(later.wait).min(until.unwrap_or(Duration::MAX));
        if later.at > end {
            return Entered::Full(self.full(&mut state, claim, later, (later.why(), now)));
        }
        let (turn, receiver) = oneshot::channel();
        let id = state.ids;
        state.ids += 1;
        if let Some(refused) = state.gate.wait(Waiting { id, claim: claim.clone(), until: end, call: turn }, most) {
            // Its receiver learns it by this; it may be this very call's.
            drop(refused);
        }
        if !std::mem::replace(&mut state.is_driven, true) {
            drop(tokio::spawn(Arc::clone(self).drive()));
        }
        drop(state);
        self.news.notify_one();
        Entered::Wait(id, receiver, end.saturating_sub(now))
    }

    async fn wait(
        &self,
        claim: &Claim,
        (id, turn): (u64, oneshot::Receiver<Vec<Standing>>),
        wait: Duration,
    ) -> Entered {
        let mut place = Place { limiter: self, claim, id, turn };
        let end = self.clock.monotonic().saturating_add(wait);
        self.waiting.inc();
        let why = match timeout(wait, &mut place.turn).await {
            Ok(Ok(standing)) => return Entered::Go(standing),
            Ok(Err(_refused)) => Why::Crowded,
            Err(_elapsed) => Why::Waited,
        };
        if let Ok(standing) = place.turn.try_recv() {
            return Entered::Go(standing);
        }
        drop(place);
        let now = self.clock.monotonic();
        let mut state = self.lock();
        if let Some(successor) = state.successor.as_ref().filter(|_| why == Why::Crowded) {
            return Entered::Moved(Arc::clone(successor));
        }
        let later = state.gate.look(claim, now).unwrap_or(Later { at: now, limit: None, wait });
        let why = match why {
            // What was learned meanwhile holds it up for longer than it waits.
            Why::Crowded if later.at > end => later.why(),
            why => why,
        };
        Entered::Full(self.full(&mut state, claim, later, (why, now)))
    }

    fn full(&self, state: &mut State, claim: &Claim, later: Later, (why, now): (Why, Duration)) -> Full {
        let after = state.gate.expected(claim, later).saturating_sub(now);
        let standing = state.gate.standing(claim, now);
        let name = later.limit.and_then(|place| self.name(place));
        Full { why, limit: name, after, fields: self.fields(&standing), waited: Duration::ZERO }
    }

    /// Looks after those who wait, for as long as somebody does.
    async fn drive(self: Arc<Self>) {
        loop {
            let now = self.clock.monotonic();
            let next = {
                let mut state = self.lock();
                let next = state.gate.release(now, take_turn);
                state.is_driven = next.is_some();
                next
            };
            let Some(next) = next else { return };
            let pause = next.saturating_sub(now).max(Duration::from_millis(1));
            tokio::select! {
                () = sleep(pause) => {}
                () = self.news.notified() => {}
            }
        }
    }

    /// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
    fn fields(&self, standing: &[Standing]) -> Option<(HeaderValue, HeaderValue)> {
        // Every call has these: nothing is formatted that is known already, nor by the formatting machinery.
        let mut left = String::with_capacity(64 * standing.len());
        let mut number = itoa::Buffer::new();
        for (place, remaining, full_in) in standing {
            if !left.is_empty() {
                left.push_str(", ");
            }
            left.push('"');
            left.push_str(&self.limits.get(*place)?.name);
            left.push_str("\";r=");
            left.push_str(number.format(*remaining));
            left.push_str(";t=");
            left.push_str(number.format(full_in.as_millis().div_ceil(1_000)));
        }
        let policy = if standing.len() == self.limits.len() { self.policy.clone() } else { self.policy_for(standing) };
        let field = |value: HeaderValue| Some(value).filter(|value| !value.is_empty());
        policy.and_then(field).zip(HeaderValue::try_from(left).ok().and_then(field))
    }

    /// `RateLimit-Policy` of some of the limits.
    fn policy_for(&self, standing: &[Standing]) -> Option<HeaderValue> {
        let policies: Vec<&str> =
            standing.iter().filter_map(|(place, ..)| Some(&**self.policies.get(*place)?)).collect();
        HeaderValue::try_from(policies.join(", ")).ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `RateLimit-Policy` says of a limit.
fn policy_of(limit: &Limit) -> Box<str> {
    format!("\"{}\";q={};w={}", limit.name, limit.rate.count, limit.rate.period.as_secs()).into()
}

fn take_turn(turn: Turn, standing: Vec<Standing>) -> bool {
    turn.send(standing).is_ok()
}

/// A place in the queue, which is left when this is dropped.
struct Place<'a> {
    limiter: &'a Limiter,
    claim: &'a Claim,
    id: u64,
    turn: oneshot::Receiver<Vec<Standing>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.limiter.waiting.dec();
        self.turn.close();
        let mut state = self.limiter.lock();
        // A turn that came and was not taken is for whoever is next.
        if !state.gate.leave(self.id) && self.turn.try_recv().is_ok() {
            state.gate.give_back(self.claim);
            drop(state);
            self.limiter.news.notify_one();
        }
    }
}

impl Permit {
    /// `RateLimit-Policy` and `RateLimit`, where limits are for this call.
    pub fn fields(&self) -> Option<(HeaderValue, HeaderValue)> {
        self.limiter.fields(&self.standing)
    }

    /// The service answered.
    pub fn answered(mut self, report: Report) {
        self.close(Some(report));
    }

    /// Nothing was sent: what was taken is given back.
    pub fn unsent(mut self) {
        self.is_open = false;
        let (limiter, claim) = self.limiter.newest(&self.claim);
        limiter.lock().gate.give_back(&claim);
        limiter.news.notify_one();
    }

    fn close(&mut self, report: Option<Report>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        // What a call learns that began before a reload is for those after it.
        let (limiter, claim) = self.limiter.newest(&self.claim);
        let now = limiter.clock.monotonic();
        let mut state = limiter.lock();
        state.gate.learn(&claim, report, now);
        let news = state.gate.waiting() > 0;
        if news && report.is_some_and(|report| report.refused || report.left == Some(0)) {
            state.gate.give_up(now);
        }
        drop(state);
        if news {
            limiter.news.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.close(None);
    }
}

#[cfg(test)]
mod tests;
