//! Whether a call is tried again, and when: the one rule for both transports.
//!
//! A try that failed is followed by another where all of this holds: the definition declares `retry`, and it is not
//! the last try; the fault or the status is one that may pass; doing it twice is the same as doing it once, or
//! nothing was sent; the pause and a part of a try fit in what is left of the call's time; the integration's
//! budget has one left. Pauses are drawn evenly from zero to a width that doubles; a wait that the service asks for
//! comes first. Called by `call` and by the proxy door.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::base::clock::Clock;
use crate::base::random::{Random, RandomUnavailable};
use crate::definition::plan::policy::Retry;

/// Over what time calls and retries are counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Retries that each window allows whatever else happens: one a second.
const FLOOR: u32 = 10;
/// One retry for this many calls: a fifth, 20 %.
const SHARE: u32 = 5;

/// How a try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing of the call was sent.
    Unsent,
    /// There was no answer, and the service may have seen the call.
    Broken,
    /// The service answered, and may have wished for a pause.
    Status(u16, Option<Duration>),
}

/// A call between its tries.
#[derive(Debug, Clone, Copy)]
pub struct Between<'a> {
    /// What is declared.
    pub plan: &'a Retry,
    /// How many tries were made, at least one.
    pub tries: u32,
    /// Whether doing it twice is the same as doing it once: by its method, or by a key that the service knows it by.
    pub repeatable: bool,
    /// What is left of the call's time.
    pub left: Duration,
}

/// Why a call is not tried again, or how long it pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It pauses so long.
    After(Duration),
    /// It was the last, or this fault does not pass.
    Over,
    /// It would be, and doing it twice is not the same as doing it once.
    Unsafe,
    /// There is no time left for the pause.
    Late,
}

impl Between<'_> {
    /// What follows from a fault.
    pub fn next(&self, fault: Fault, random: &dyn Random) -> Next {
        let asked = match fault {
            Fault::Status(status, _) if !self.plan.statuses.contains(&status) => return Next::Over,
            Fault::Status(_, asked) => asked,
            Fault::Unsent | Fault::Broken => None,
        };
        if self.tries >= self.plan.attempts {
            return Next::Over;
        }
        if !self.repeatable && fault != Fault::Unsent {
            return Next::Unsafe;
        }
        // What the service asks for is kept to, and the jitter comes on top: a crowd was told the same.
        let pause = self.plan.backoff.pause(self.tries, random).saturating_add(asked.unwrap_or_default());
        if pause >= self.left { Next::Late } else { Next::After(pause) }
    }
}

/// A key for a call that has none: 128 random bits, in hexadecimal.
///
/// # Errors
/// When there is no randomness; the call then goes without, and only once.
pub fn fresh_key(random: &dyn Random) -> Result<HeaderValue, RandomUnavailable> {
    use std::fmt::Write as _;
    let mut bytes = [0_u8; 16];
    random.fill(&mut bytes)?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        write!(text, "{byte:02x}").map_err(|_| RandomUnavailable)?;
    }
    HeaderValue::try_from(text).map_err(|_| RandomUnavailable)
}

/// The header for the key of a call, where it needs one to be repeatable.
pub fn key_header<'a>(plan: Option<&'a Retry>, method: &Method) -> Option<&'a HeaderName> {
    plan?.idempotency_key.as_ref().filter(|_| !method.is_idempotent())
}

/// The retries that an integration may make: a fifth of its calls and one a second, those that wait among them. It
/// keeps the gateway from adding to the trouble of a service that is down.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    /// Calls and retries by the second they began in.
    seconds: VecDeque<Second>,
    waiting: u32,
}

#[derive(Debug, Default)]
struct Second {
    number: u64,
    calls: u32,
    retries: u32,
}

/// A retry that was taken from the budget. While it waits it counts, however long that is; [`Self::goes`] ends that.
#[derive(Debug)]
pub struct Spent(Arc<Budget>);

impl Budget {
    /// One by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), clock }
    }

    /// A call begins.
    pub fn call(&self) {
        self.with(|second| second.calls = second.calls.saturating_add(1));
    }

    /// Takes one retry; `None` when there is none left.
    pub fn spend(self: &Arc<Self>) -> Option<Spent> {
        self.lock_and_tidy(|state| {
            let sum = |of: fn(&Second) -> u32| state.seconds.iter().map(of).fold(0, u32::saturating_add);
            let room = (sum(|second| second.calls) / SHARE).saturating_add(FLOOR);
            let free = sum(|second| second.retries).saturating_add(state.waiting) < room;
            free.then(|| {
                state.waiting += 1;
                Spent(Arc::clone(self))
            })
        })
    }

    fn with(&self, work: impl FnOnce(&mut Second)) {
        let number = self.clock.monotonic().as_secs();
        self.lock_and_tidy(|state| {
            if state.seconds.back().is_none_or(|newest| newest.number != number) {
                state.seconds.push_back(Second { number, ..Second::default() });
            }
            if let Some(newest) = state.seconds.back_mut() {
                work(newest);
            }
        });
    }

    fn lock_and_tidy<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let now = self.clock.monotonic().as_secs();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.seconds.front().is_some_and(|old| now.saturating_sub(old.number) >= WINDOW.as_secs()) {
            state.seconds.pop_front();
        }
        work(&mut state)
    }
}

impl Spent {
    /// The retry goes: from here on it counts like any other of its second.
    pub fn goes(self) {
        self.0.with(|second| second.retries = second.retries.saturating_add(1));
    }
}

impl Drop for Spent {
    fn drop(&mut self) {
        self.0.lock_and_tidy(|state| state.waiting = state.waiting.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::backoff::Backoff;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::base::random::SeededRandom;

    fn plan() -> Retry {
        Retry {
            attempts: 3,
            backoff: Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) },
            statuses: vec![429, 503, 409],
            idempotency_key: None,
            retry_after: None,
        }
    }

    fn next(tries: u32, repeatable: bool, left: u64, fault: Fault) -> Next {
        let plan = plan();
        let between = Between { plan: &plan, tries, repeatable, left: Duration::from_secs(left) };
        match between.next(fault, &SeededRandom::new(5)) {
            // Whole seconds: what the service asked for; the jitter comes on top.
            Next::After(pause) => Next::After(Duration::from_secs(pause.as_secs())),
            other => other,
        }
    }

    #[test]
    fn what_may_not_be_done_twice_is_tried_again_only_when_nothing_was_sent() {
        let soon = Next::After(Duration::ZERO);
        assert_eq!(next(1, true, 60, Fault::Broken), soon);
        assert_eq!(next(1, false, 60, Fault::Unsent), soon);
        for fault in [Fault::Broken, Fault::Status(503, None), Fault::Status(429, None)] {
            assert_eq!(next(1, false, 60, fault), Next::Unsafe, "{fault:?}");
        }
    }

    #[test]
    fn declared_statuses_and_no_others_are_tried_again() {
        assert_eq!(next(1, true, 60, Fault::Status(409, None)), Next::After(Duration::ZERO));
        assert_eq!(next(1, true, 60, Fault::Status(500, None)), Next::Over);
        assert_eq!(next(3, true, 60, Fault::Status(409, None)), Next::Over, "the third was the last");
    }

    #[test]
    fn the_services_wish_is_kept_to_and_a_pause_that_does_not_fit_is_none() {
        let asked = Fault::Status(503, Some(Duration::from_secs(20)));
        assert_eq!(next(1, true, 60, asked), Next::After(Duration::from_secs(20)));
        assert_eq!(next(1, true, 20, asked), Next::Late);
    }

    #[test]
    fn keys_are_for_methods_that_need_them_and_differ() {
        let keyed = Retry { idempotency_key: Some(HeaderName::from_static("idempotency-key")), ..plan() };
        assert!(key_header(Some(&keyed), &Method::POST).is_some() && key_header(Some(&keyed), &Method::GET).is_none());
        assert!(key_header(Some(&plan()), &Method::POST).is_none());
        let random = SeededRandom::new(1);
        let keys = [fresh_key(&random), fresh_key(&random)].map(|key| key.expect("random"));
        assert!(keys[0] != keys[1] && keys.iter().all(|key| key.len() == 32));
    }

    fn budget() -> (Arc<Budget>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        (Arc::new(Budget::new(Arc::clone(&clock) as _)), clock)
    }

    #[test]
    fn a_fifth_of_the_calls_and_a_floor() {
        let (budget, clock) = budget();
        let spend = |most: u32| (0..most).filter_map(|_| budget.spend()).map(Spent::goes).count();
        assert_eq!(spend(100), 10, "the floor");
        (0..200).for_each(|_| budget.call());
        assert_eq!(spend(100), 40, "a fifth of two hundred, in the same window");
        clock.advance(WINDOW);
        assert_eq!(spend(100), 10, "the window is over");
    }

    #[test]
    fn those_that_wait_count_for_as_long_as_they_do() {
        let (budget, clock) = budget();
        let waiting: Vec<_> = (0..10).filter_map(|_| budget.spend()).collect();
        clock.advance(WINDOW * 3);
        assert!(budget.spend().is_none(), "ten still wait");
        drop(waiting);
        assert!(budget.spend().is_some());
    }
}
