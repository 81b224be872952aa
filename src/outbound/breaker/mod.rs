//! Circuits of one integration, one for each place it calls and for each group of calls there that the definition
//! names: what fails is left alone for a while.
//!
//! What counts as a failure: no connection, no answer in time, an answer that is no HTTP or broke off before its
//! head, and the statuses 5xx but 501 and 505. What never does: 4xx and 429 among them, a caller that goes away,
//! and whatever this gateway refused itself. A person can open and close all of an integration's circuits; that
//! lasts until it is undone or the program ends, and over reloads. [`circuit`] decides. Called by `policy`.

pub mod circuit;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{IntCounter, IntGauge};

use crate::base::clock::Clock;
use crate::base::map::Map;
use crate::definition::plan::policy::Breaker;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notice::{Kind, Notice, Notices};
use circuit::{Circuit, Condition, End, Entry};

/// The most places that are kept for one group of one integration; calls to more have no circuit.
const PLACES: usize = 1_024;
/// When to come again after a person has opened a circuit.
const BY_HAND: Duration = Duration::from_secs(30);

/// The circuits of one integration.
#[derive(Debug)]
pub struct Breakers {
    plan: Option<Breaker>,
    /// Whether a person holds all of them open.
    held: Arc<AtomicBool>,
    circuits: Mutex<Circuits>,
    meters: Meters,
    clock: Arc<dyn Clock>,
}

/// Circuits by place, first those of calls in no group, then those of each group.
type Circuits = Vec<Map<Arc<str>, Circuit>>;

/// What shares a circuit.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The place that is called: scheme, host and port.
    pub place: &'a Arc<str>,
    /// The number of the group; zero is none.
    group: usize,
}

/// A circuit that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The place that is called: scheme, host and port.
    pub place: Arc<str>,
    /// The group of calls, where the definition names it.
    pub group: Option<Arc<str>>,
    /// What state it is in.
    pub condition: Condition,
}

/// What is told of them.
#[derive(Debug, Clone)]
struct Meters {
    integration: Arc<str>,
    open: IntGauge,
    half_open: IntGauge,
    held: IntGauge,
    opened: IntCounter,
    notices: Arc<Notices>,
}

/// A call that was let through. Dropped without a word, nobody knows how it ended.
#[derive(Debug)]
pub struct Guard {
    breakers: Arc<Breakers>,
    place: Arc<str>,
    group: usize,
    entry: Option<Entry>,
}

/// Who holds calls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Failures,
    Hand,
}

/// A call that was not let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The place that is called: scheme, host and port.
    pub place: Arc<str>,
    /// The group of calls that fails there, where it is one.
    pub group: Option<Arc<str>>,
    /// How long until it makes sense to come again.
    pub after: Duration,
    /// Whether a person wants it so.
    pub by_hand: bool,
}

impl Breakers {
    /// The circuits of an integration. `before` is what there was before a reload: the very same where nothing
    /// changed; what a person holds open stays so in any case.
    pub fn of(
        plan: Option<Breaker>,
        integration: &Arc<str>,
        before: Option<&Arc<Self>>,
        (metrics, clock): (&Metrics, &Arc<dyn Clock>),
    ) -> Arc<Self> {
        if let Some(before) = before.filter(|before| before.plan == plan) {
            return Arc::clone(before);
        }
        let state = |condition: &str| metrics.breaker_circuits.with_label_values(&[&**integration, condition]);
        let meters = Meters {
            integration: Arc::clone(integration),
            open: state(Condition::Open.word()),
            half_open: state(Condition::HalfOpen.word()),
            held: state("held"),
            opened: metrics.breaker_opened.with_label_values(&[&**integration]),
            notices: Arc::clone(&metrics.notices),
        };
        let held = before.map_or_else(Arc::default, |before| Arc::clone(&before.held));
        let groups = plan.as_ref().map_or(0, |plan| plan.groups.len());
        let circuits = Mutex::new((0..=groups).map(|_| Map::default()).collect());
        Arc::new(Self { plan, held, circuits, meters, clock: Arc::clone(clock) })
    }

    /// Which circuit a call belongs to. `path` is below the API's base, without the query.
    pub fn spot<'a>(&self, place: &'a Arc<str>, method: &Method, path: &str) -> Spot<'a> {
        let groups = self.plan.as_ref().map_or(&[][..], |plan| &plan.groups);
        let group = groups.iter().position(|group| group.is_for(method, path)).map_or(0, |at| at + 1);
        Spot { place, group }
    }

    /// Whether a call would be refused now. Changes nothing.
    ///
    /// # Errors
    /// When it would.
    pub fn check(&self, spot: Spot<'_>) -> Result<(), Refused> {
        if self.held.load(Ordering::Relaxed) {
            return Err(Refused { group: None, ..self.refused(spot, BY_HAND, By::Hand) });
        }
        let Some(plan) = &self.plan else { return Ok(()) };
        let now = self.clock.monotonic();
        let left = self.lock().get(spot.group).and_then(|circuits| circuits.get(spot.place)?.refuses(plan, now));
        left.map_or(Ok(()), |left| Err(self.refused(spot, left, By::Failures)))
    }

    /// Lets a call through; `None` where nothing is counted.
    ///
    /// # Errors
    /// When it is not let through.
    pub fn enter(self: &Arc<Self>, spot: Spot<'_>) -> Result<Option<Guard>, Refused> {
        self.check(spot)?;
        let Some(plan) = &self.plan else { return Ok(None) };
        let now = self.clock.monotonic();
        let mut all = self.lock();
        let Some(circuits) = all.get_mut(spot.group) else { return Ok(None) };
        if !circuits.contains_key(spot.place) {
            if circuits.len() >= PLACES {
                circuits.retain(|_, circuit| !circuit.is_idle(plan, now));
            }
            if circuits.len() >= PLACES {
                return Ok(None);
            }
            circuits.insert(Arc::clone(spot.place), Circuit::default());
        }
        let Some(circuit) = circuits.get_mut(spot.place) else { return Ok(None) };
        let before = circuit.condition();
        let entered = circuit.enter(plan, now);
        self.changed(spot, before, circuit.condition());
        drop(all);
        let guard = |entry| {
            let (breakers, place) = (Arc::clone(self), Arc::clone(spot.place));
            Guard { breakers, place, group: spot.group, entry: Some(entry) }
        };
        entered.map(|entry| Some(guard(entry))).map_err(|after| self.refused(spot, after, By::Failures))
    }

    fn refused(&self, spot: Spot<'_>, after: Duration, by: By) -> Refused {
        Refused { place: Arc::clone(spot.place), group: self.name(spot.group), after, by_hand: by == By::Hand }
    }

    fn name(&self, group: usize) -> Option<Arc<str>> {
        let groups = &self.plan.as_ref()?.groups;
        groups.get(group.checked_sub(1)?).map(|group| Arc::clone(&group.id))
    }

    /// Opens all circuits until [`Self::release`].
    pub fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
        self.meters.held.set(1);
    }

    /// Closes all circuits, whatever opened them.
    pub fn release(&self) {
        self.held.store(false, Ordering::Relaxed);
        self.meters.held.set(0);
        for (group, circuits) in self.lock().iter_mut().enumerate() {
            for (place, circuit) in circuits.drain() {
                self.changed(Spot { place: &place, group }, circuit.condition(), Condition::Closed);
            }
        }
    }

    /// A circuit's state may be another one: counted, and told where it opened or closed. One that opens again after
    /// it was probed was never closed, so that this is not told.
    fn changed(&self, spot: Spot<'_>, before: Condition, after: Condition) {
        self.meters.change(before, after);
        let (id, notices, now) = (&self.meters.integration, &self.meters.notices, || self.clock.now());
        let notice = match (before, after) {
            (Condition::Closed, Condition::Open) => |id: &str, now, after: Duration| {
                let step = format!(
                    "See whether the service is well. It is tried again by itself, for the first time after {} s.",
                    after.as_secs()
                );
                let why = "calls got no connection, no answer in time, or a status from 500 on";
                Notice::new(Kind::BreakerOpen, now, format!("`{id}` fails and is left alone for a while."), step)
                    .because(why)
            },
            (Condition::Open | Condition::HalfOpen, Condition::Closed) => {
                |id: &str, now, _| Notice::new(Kind::BreakerClosed, now, format!("`{id}` is called again."), "Nothing.")
            }
            _ => return,
        };
        notices.tell(|| {
            let pause = self.plan.as_ref().map(|plan| plan.open).unwrap_or_default();
            let notice = notice(id, now(), pause).of(id).with("place", &**spot.place);
            match self.name(spot.group) {
                Some(group) => notice.with("group", &*group),
                None => notice,
            }
        });
    }

    /// Whether a person holds them open, and the circuits that are not closed.
    pub fn conditions(&self) -> (bool, Vec<Shown>) {
        let mut shown = Vec::new();
        for (group, circuits) in self.lock().iter().enumerate() {
            let group = self.name(group);
            let of = |(place, circuit): (&Arc<str>, &Circuit)| Shown {
                place: Arc::clone(place),
                group: group.clone(),
                condition: circuit.condition(),
            };
            shown.extend(circuits.iter().map(of).filter(|shown| shown.condition != Condition::Closed));
        }
        shown.sort_by(|one, other| (&one.place, &one.group).cmp(&(&other.place, &other.group)));
        (self.held.load(Ordering::Relaxed), shown)
    }

    fn lock(&self) -> MutexGuard<'_, Circuits> {
        self.circuits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Breakers {
    fn drop(&mut self) {
        for (group, circuits) in std::mem::take(&mut *self.lock()).iter().enumerate() {
            for (place, circuit) in circuits {
                self.changed(Spot { place, group }, circuit.condition(), Condition::Closed);
            }
        }
    }
}

impl Meters {
    fn change(&self, before: Condition, after: Condition) {
        if before == after {
            return;
        }
        let gauge = |condition| match condition {
            Condition::Closed => None,
            Condition::Open => Some(&self.open),
            Condition::HalfOpen => Some(&self.half_open),
        };
        if let Some(gauge) = gauge(before) {
            gauge.dec();
        }
        if let Some(gauge) = gauge(after) {
            gauge.inc();
        }
        if after == Condition::Open {
            self.opened.inc();
        }
        let (integration, state) = (&*self.integration, after.word());
        tracing::info!(integration, state, "a circuit of `{integration}` is {state} now");
    }
}

impl Guard {
    /// The call has ended.
    pub fn end(mut self, end: End) {
        self.close(end);
    }

    fn close(&mut self, end: End) {
        let (Some(entry), Some(plan)) = (self.entry.take(), &self.breakers.plan) else { return };
        let now = self.breakers.clock.monotonic();
        let mut circuits = self.breakers.lock();
        let Some(circuit) = circuits.get_mut(self.group).and_then(|circuits| circuits.get_mut(&self.place)) else {
            return;
        };
        let before = circuit.condition();
        circuit.end(entry, end, (plan, now));
        let spot = Spot { place: &self.place, group: self.group };
        self.breakers.changed(spot, before, circuit.condition());
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.close(End::Unknown);
    }
}

/// What an answer's status says of the service's health.
pub fn end_of(status: StatusCode) -> End {
    let is_fine = !status.is_server_error() || matches!(status.as_u16(), 501 | 505);
    if is_fine { End::Fine } else { End::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::definition::plan::path::PathGlob;
    use crate::definition::plan::policy::BreakerGroup;

    const PLAN: Breaker = Breaker {
        failure_rate: 1.0,
        window: Duration::from_secs(10),
        min_requests: 1_000,
        consecutive: Some(2),
        open: Duration::from_secs(15),
        probes: 1,
        groups: Vec::new(),
    };

    struct Scene {
        metrics: Metrics,
        clock: Arc<ManualClock>,
        id: Arc<str>,
        place: Arc<str>,
    }

    impl Scene {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(Timestamp::default()));
            Self { metrics: Metrics::new().expect("metrics"), clock, id: "svc".into(), place: "https://a".into() }
        }

        fn breakers(&self, plan: Option<Breaker>, before: Option<&Arc<Breakers>>) -> Arc<Breakers> {
            let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
            Breakers::of(plan, &self.id, before, (&self.metrics, &clock))
        }

        fn call(&self, breakers: &Arc<Breakers>, status: u16) -> bool {
            self.call_of(breakers, "/", status)
        }

        fn call_of(&self, breakers: &Arc<Breakers>, path: &str, status: u16) -> bool {
            let spot = breakers.spot(&self.place, &Method::GET, path);
            let Ok(guard) = breakers.enter(spot) else { return false };
            guard.expect("counted").end(end_of(StatusCode::from_u16(status).expect("a status")));
            true
        }

        fn enter(&self, breakers: &Arc<Breakers>) -> Result<Option<Guard>, Refused> {
            breakers.enter(breakers.spot(&self.place, &Method::GET, "/"))
        }

        fn gauge(&self, state: &str) -> i64 {
            self.metrics.breaker_circuits.with_label_values(&["svc", state]).get()
        }
    }

    #[test]
    fn only_what_the_service_does_counts() {
        let scene = Scene::new();
        let breakers = scene.breakers(Some(PLAN), None);
        for status in [400, 401, 404, 429, 429, 429, 501, 505, 200, 302] {
            assert!(scene.call(&breakers, status), "{status}");
        }
        (0..9).for_each(|_| drop(scene.enter(&breakers)));
        assert!(scene.call(&breakers, 500) && scene.call(&breakers, 503));
        let refused = scene.enter(&breakers).expect_err("two in a row");
        assert_eq!((refused.after, refused.by_hand), (Duration::from_secs(15), false));
        let other = Arc::from("https://b");
        assert!(breakers.enter(breakers.spot(&other, &Method::GET, "/")).is_ok(), "another place has its own");
    }

    #[test]
    fn the_state_is_told() {
        let scene = Scene::new();
        let breakers = scene.breakers(Some(PLAN), None);
        (0..2).for_each(|_| _ = scene.call(&breakers, 500));
        assert_eq!((scene.gauge("open"), scene.gauge("half_open")), (1, 0));
        scene.clock.advance(Duration::from_secs(15));
        let probe = scene.enter(&breakers).expect("a probe");
        assert_eq!((scene.gauge("open"), scene.gauge("half_open")), (0, 1));
        let shown = Shown { place: Arc::clone(&scene.place), group: None, condition: Condition::HalfOpen };
        assert_eq!(breakers.conditions().1, [shown]);
        drop(probe);
        assert!(scene.call(&breakers, 200));
        assert_eq!((scene.gauge("open"), scene.gauge("half_open")), (0, 0));
        (0..2).for_each(|_| _ = scene.call(&breakers, 500));
        drop(breakers);
        assert_eq!(scene.gauge("open"), 0, "what is gone is not open");
    }

    #[test]
    fn a_reload_keeps_an_unchanged_circuit_and_what_a_person_holds() {
        let scene = Scene::new();
        let breakers = scene.breakers(Some(PLAN), None);
        (0..2).for_each(|_| _ = scene.call(&breakers, 500));
        assert!(scene.enter(&scene.breakers(Some(PLAN), Some(&breakers))).is_err());
        breakers.hold();
        let changed = scene.breakers(None, Some(&breakers));
        assert!(scene.enter(&changed).expect_err("held").by_hand);
        changed.release();
        assert!(scene.enter(&changed).expect("released").is_none(), "nothing is counted without a breaker");
        assert_eq!(scene.gauge("held"), 0);
    }

    #[test]
    fn a_group_fails_alone() {
        let scene = Scene::new();
        let search = BreakerGroup { id: "search".into(), paths: vec![PathGlob::new("/search*")], methods: Vec::new() };
        let breakers = scene.breakers(Some(Breaker { groups: vec![search], ..PLAN }), None);
        (0..2).for_each(|_| _ = scene.call_of(&breakers, "/search/x", 500));
        assert!(!scene.call_of(&breakers, "/search", 200) && scene.call(&breakers, 200));
        let (_, shown) = breakers.conditions();
        assert_eq!((shown.len(), shown[0].group.as_deref()), (1, Some("search")));
        assert_eq!(scene.gauge("open"), 1);
        let refused = breakers.check(breakers.spot(&scene.place, &Method::GET, "/search")).expect_err("open");
        assert_eq!(refused.group.as_deref(), Some("search"));
        breakers.release();
        assert!(scene.call_of(&breakers, "/search", 200));
        assert_eq!(scene.gauge("open"), 0);
    }
}
