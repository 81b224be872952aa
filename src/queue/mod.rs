//! Durable work: events matched against rules, deliveries tried until they are done or dead.
//!
//! The store keeps the work and its leases ([`crate::store::Work`]); this room claims it ([`worker`]),
//! shares out slots ([`lanes`]), matches rules for many events at once (`group`), runs one delivery from lease to
//! record (`attempt`) and decides on another try ([`schedule`]). What an action does is behind [`Act`], which `action`
//! implements. Calls that an application wants made for certain ([`durable`]) are work of the same kind. Called by
//! `app`.

mod attempt;
pub mod content;
pub mod durable;
mod group;
pub mod holds;
pub mod identity;
pub mod job;
pub mod lanes;
pub mod matching;
pub mod schedule;
pub mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::definition::live::Live;
use crate::store::{Events, Work};
use crate::telemetry::metrics::Metrics;

pub use holds::Holds;
pub use job::{Act, Again, Answered, Failed, Report, Task};
pub use worker::{Running, start};

/// Runs what may take long for a large body where it holds up nobody else: the other tasks of this thread go to another
/// one.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match runtime {
        Ok(tokio::runtime::RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// What workers work with.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// The events.
    pub events: Arc<dyn Events>,
    /// The work because of them.
    pub work: Arc<dyn Work>,
    /// What carries actions out.
    pub act: Arc<dyn Act>,
    /// Endpoints whose events wait.
    pub holds: Arc<Holds>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for jitter.
    pub random: Arc<dyn Random>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// What both clocks said at the last look.
    pub clocks: Arc<Clocks>,
}

/// The least that the wall clock is set by to count: less is lost in the pauses between tries.
const STEP: Duration = Duration::from_secs(2);

/// What the wall clock and the one that nobody sets said last.
#[derive(Debug, Default)]
pub struct Clocks(Mutex<Option<(Timestamp, Duration)>>);

impl Parts {
    /// Whether the wall clock was set since the last look, which the one that nobody sets tells: work that waits is due,
    /// and leases last, as was meant. To be asked before a lease is looked at and before a due time is reckoned.
    pub(crate) async fn look_at_the_clocks(&self) {
        let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
        let last = self.clocks.0.lock().unwrap_or_else(PoisonError::into_inner).replace((wall, monotonic));
        let Some((before, then)) = last else { return };
        let expected = before.after(monotonic.saturating_sub(then));
        let (back, forward) = (expected.since(wall), wall.since(expected));
        if back >= STEP {
            let seconds = back.as_secs();
            tracing::warn!(
                "the clock was set back by {seconds} s: what waits to be tried again is due by the new time"
            );
            self.work.step_back(back, wall).await;
        }
        if forward >= STEP {
            tracing::warn!("the clock was set forward by {} s: what is under way goes on", forward.as_secs());
            self.work.step_forward(forward).await;
        }
    }
}
