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

use std::sync::Arc;

use crate::base::clock::Clock;
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
}
