//! One circuit as pure arithmetic: closed, open, probed. Each is a type of its own and knows what may follow.

use std::time::Duration;

use crate::definition::plan::policy::Breaker;

/// The parts a window is counted in.
const SLICES: usize = 10;
const PARTS: u32 = 10;
/// How soon who came while a circuit is probed may come again.
const PROBED: Duration = Duration::from_secs(1);

/// A circuit towards one place.
#[derive(Debug)]
pub struct Circuit {
    state: State,
    /// Grows with every change, so that what began under another state is known by its end.
    era: u64,
}

#[derive(Debug)]
enum State {
    Closed(Closed),
    Open(Open),
    Probed(Probed),
}

/// Calls go, and how they end is counted.
#[derive(Debug, Default)]
struct Closed {
    slices: [(u32, u32); SLICES],
    /// The number of the newest slice since the beginning of time.
    newest: u128,
    in_row: u32,
}

/// No call goes.
#[derive(Debug)]
struct Open {
    until: Duration,
}

/// A few calls go, to see.
#[derive(Debug, Default)]
struct Probed {
    gone: u32,
    succeeded: u32,
    /// When the newest went.
    last: Duration,
}

impl Probed {
    /// Whether all places are taken. Probes that have not ended for as long as a circuit is open hold nobody up any
    /// longer: a slow upload says nothing of the service, however long it lasts.
    fn is_full(&self, plan: &Breaker, now: Duration) -> bool {
        self.gone >= plan.probes && now < self.last.saturating_add(plan.open)
    }
}

/// A call that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    era: u64,
}

/// How a call ended, as far as the service's health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The service did its part, whatever it said.
    Fine,
    /// It could not be reached, was silent, or failed.
    Failed,
    /// Nobody knows: the caller went away, or nothing was sent for another reason.
    Unknown,
}

/// What people call a circuit's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Calls go.
    Closed,
    /// No call goes.
    Open,
    /// A few calls go, to see.
    HalfOpen,
}

impl Condition {
    /// The word in metrics and the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl Default for Circuit {
    fn default() -> Self {
        Self { state: State::Closed(Closed::default()), era: 0 }
    }
}

impl Circuit {
    /// What state it is in.
    pub fn condition(&self) -> Condition {
        match self.state {
            State::Closed(_) => Condition::Closed,
            State::Open(_) => Condition::Open,
            State::Probed(_) => Condition::HalfOpen,
        }
    }

    /// How long a call would be refused, were it made now; `None` when it may go. Changes nothing.
    pub fn refuses(&self, plan: &Breaker, now: Duration) -> Option<Duration> {
        match &self.state {
            State::Closed(_) => None,
            State::Open(open) => open.until.checked_sub(now).filter(|left| !left.is_zero()),
            State::Probed(probed) => probed.is_full(plan, now).then_some(PROBED),
        }
    }

    /// Lets a call through.
    ///
    /// # Errors
    /// How long until it makes sense to come again.
    pub fn enter(&mut self, plan: &Breaker, now: Duration) -> Result<Entry, Duration> {
        if let Some(left) = self.refuses(plan, now) {
            return Err(left);
        }
        match &mut self.state {
            State::Closed(_) => {}
            State::Open(_) => self.become_(State::Probed(Probed { gone: 1, succeeded: 0, last: now })),
            State::Probed(probed) => {
                // Who is let in past a full one takes the places of those that do not end.
                probed.gone = if probed.gone >= plan.probes { 1 } else { probed.gone + 1 };
                probed.last = now;
            }
        }
        Ok(Entry { era: self.era })
    }

    /// A call has ended.
    pub fn end(&mut self, entry: Entry, end: End, (plan, now): (&Breaker, Duration)) {
        if entry.era != self.era {
            return;
        }
        let opens = match (&mut self.state, end) {
            (State::Closed(closed), End::Fine | End::Failed) => closed.count(end, plan, now),
            (State::Probed(probed), End::Fine) => {
                probed.succeeded += 1;
                if probed.succeeded >= plan.probes {
                    self.become_(State::Closed(Closed::default()));
                }
                return;
            }
            (State::Probed(_), End::Failed) => true,
            (State::Probed(probed), End::Unknown) => {
                probed.gone = probed.gone.saturating_sub(1);
                return;
            }
            (State::Closed(_) | State::Open(_), _) => false,
        };
        if opens {
            self.become_(State::Open(Open { until: now.saturating_add(plan.open) }));
        }
    }

    /// Whether forgetting it would change nothing.
    pub fn is_idle(&self, plan: &Breaker, now: Duration) -> bool {
        matches!(&self.state, State::Closed(closed) if closed.is_over(plan, now))
    }

    fn become_(&mut self, state: State) {
        self.state = state;
        self.era += 1;
    }
}

impl Closed {
    /// Counts a call; whether that opens the circuit.
    fn count(&mut self, end: End, plan: &Breaker, now: Duration) -> bool {
        self.turn(plan, now);
        let failed = end == End::Failed;
        let place = usize::try_from(self.newest % SLICES as u128).unwrap_or_default();
        if let Some(slice) = self.slices.get_mut(place) {
            slice.0 = slice.0.saturating_add(1);
            slice.1 = slice.1.saturating_add(u32::from(failed));
        }
        self.in_row = if failed { self.in_row.saturating_add(1) } else { 0 };
        if !failed {
            return false;
        }
        let all = self.slices.iter().fold(0_u32, |sum, (calls, _)| sum.saturating_add(*calls));
        let bad = self.slices.iter().fold(0_u32, |sum, (_, failures)| sum.saturating_add(*failures));
        let rate = f64::from(bad) / f64::from(all.max(1));
        let many = all >= plan.min_requests.max(1) && rate >= plan.failure_rate;
        many || plan.consecutive.is_some_and(|most| self.in_row >= most)
    }

    /// Empties the slices that lie before the window.
    fn turn(&mut self, plan: &Breaker, now: Duration) {
        let slice = number(plan, now);
        let passed = slice.saturating_sub(self.newest).min(SLICES as u128);
        for step in 0..passed {
            let place = usize::try_from((slice - step) % SLICES as u128).unwrap_or_default();
            if let Some(slice) = self.slices.get_mut(place) {
                *slice = (0, 0);
            }
        }
        self.newest = self.newest.max(slice);
    }

    fn is_over(&self, plan: &Breaker, now: Duration) -> bool {
        number(plan, now).saturating_sub(self.newest) >= SLICES as u128
    }
}

fn number(plan: &Breaker, now: Duration) -> u128 {
    now.as_nanos() / (plan.window / PARTS).as_nanos().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Breaker = Breaker {
        failure_rate: 0.5,
        window: Duration::from_secs(10),
        min_requests: 4,
        consecutive: None,
        open: Duration::from_secs(15),
        probes: 2,
        groups: Vec::new(),
    };

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000 + seconds)
    }

    fn call(circuit: &mut Circuit, plan: &Breaker, end: End, now: Duration) -> bool {
        let Ok(entry) = circuit.enter(plan, now) else { return false };
        circuit.end(entry, end, (plan, now));
        true
    }

    /// A circuit that opened at the beginning.
    fn opened() -> Circuit {
        let mut circuit = Circuit::default();
        (0..4).for_each(|_| assert!(call(&mut circuit, &PLAN, End::Failed, at(0))));
        assert_eq!(circuit.condition(), Condition::Open);
        circuit
    }

    #[test]
    fn it_opens_at_the_rate_and_not_before_enough_was_seen() {
        let mut circuit = Circuit::default();
        for end in [End::Failed, End::Failed, End::Failed] {
            assert!(call(&mut circuit, &PLAN, end, at(0)));
        }
        assert_eq!(circuit.condition(), Condition::Closed, "three are too few");
        call(&mut circuit, &PLAN, End::Fine, at(0));
        assert_eq!(circuit.condition(), Condition::Closed, "a success opens nothing");
        call(&mut circuit, &PLAN, End::Failed, at(0));
        assert_eq!(circuit.refuses(&PLAN, at(5)), Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_lies_before_the_window_does_not_count() {
        let mut circuit = Circuit::default();
        (0..3).for_each(|_| _ = call(&mut circuit, &PLAN, End::Failed, at(0)));
        (0..3).for_each(|_| _ = call(&mut circuit, &PLAN, End::Failed, at(10)));
        assert_eq!(circuit.condition(), Condition::Closed);
        call(&mut circuit, &PLAN, End::Failed, at(15));
        assert_eq!(circuit.condition(), Condition::Open);
    }

    #[test]
    fn failures_in_a_row_open_it_whatever_the_rate() {
        let plan = Breaker { consecutive: Some(3), min_requests: 1_000, ..PLAN };
        let mut circuit = Circuit::default();
        for end in [End::Failed, End::Failed, End::Fine, End::Failed, End::Failed, End::Unknown] {
            call(&mut circuit, &plan, end, at(0));
        }
        assert_eq!(circuit.condition(), Condition::Closed);
        call(&mut circuit, &plan, End::Failed, at(0));
        assert_eq!(circuit.condition(), Condition::Open);
    }

    #[test]
    fn a_limited_number_probes_and_all_must_succeed() {
        let mut circuit = opened();
        assert_eq!(circuit.enter(&PLAN, at(14)), Err(Duration::from_secs(1)));
        let first = circuit.enter(&PLAN, at(15)).expect("the time is over");
        let second = circuit.enter(&PLAN, at(15)).expect("two may probe");
        assert!(circuit.enter(&PLAN, at(15)).is_err(), "and no third");
        circuit.end(first, End::Fine, (&PLAN, at(16)));
        assert_eq!(circuit.condition(), Condition::HalfOpen);
        circuit.end(second, End::Fine, (&PLAN, at(16)));
        assert_eq!(circuit.condition(), Condition::Closed);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again_and_one_that_is_lost_is_made_again() {
        let mut circuit = opened();
        let lost = circuit.enter(&PLAN, at(15)).expect("a probe");
        circuit.end(lost, End::Unknown, (&PLAN, at(15)));
        let probes = [circuit.enter(&PLAN, at(16)), circuit.enter(&PLAN, at(16))].map(|entry| entry.expect("a probe"));
        circuit.end(probes[0], End::Failed, (&PLAN, at(17)));
        assert_eq!(circuit.refuses(&PLAN, at(17)), Some(Duration::from_secs(15)));
        circuit.end(probes[1], End::Fine, (&PLAN, at(18)));
        assert_eq!(circuit.condition(), Condition::Open, "what began before says nothing any more");
    }

    #[test]
    fn probes_that_do_not_end_hold_nobody_up_for_longer_than_the_circuit_was_open() {
        let mut circuit = opened();
        let slow = [(); 2].map(|()| circuit.enter(&PLAN, at(15)).expect("a probe"));
        assert_eq!(circuit.refuses(&PLAN, at(29)), Some(PROBED));
        let next = [(); 2].map(|()| circuit.enter(&PLAN, at(30)).expect("the time is over again"));
        assert!(circuit.enter(&PLAN, at(31)).is_err(), "and no more than before");
        for entry in next {
            circuit.end(entry, End::Fine, (&PLAN, at(31)));
        }
        assert_eq!(circuit.condition(), Condition::Closed);
        for entry in slow {
            circuit.end(entry, End::Failed, (&PLAN, at(40)));
        }
        assert_eq!(circuit.condition(), Condition::Closed);
    }

    #[test]
    fn a_late_failure_of_before_does_not_spoil_a_circuit_that_closed() {
        let mut circuit = Circuit::default();
        let late = circuit.enter(&PLAN, at(0)).expect("closed");
        (0..4).for_each(|_| _ = call(&mut circuit, &PLAN, End::Failed, at(0)));
        (0..2).for_each(|_| assert!(call(&mut circuit, &PLAN, End::Fine, at(20))));
        circuit.end(late, End::Failed, (&Breaker { consecutive: Some(1), ..PLAN }, at(21)));
        assert_eq!(circuit.condition(), Condition::Closed);
        assert!(!circuit.is_idle(&PLAN, at(0)) || circuit.is_idle(&PLAN, at(100)));
    }
}
