//! What is done: [`call`] an endpoint, [`deliver`] to a destination, [`log`], as rules say; and [`durable`]
//! calls of applications.
//!
//! Each tries once and reports; the queue decides on another try. Nothing here stores anything. Called by
//! `queue` through [`Act`]; composed by `app`.

pub mod call;
pub mod deliver;
pub mod durable;
pub mod log;

use std::sync::Arc;

use async_trait::async_trait;

use crate::base::clock::Clock;
use crate::definition::plan::rule::What;
use crate::net::Clients;
use crate::outbound::Outbound;
use crate::queue::durable::{Carry, Conclusion};
use crate::queue::{Act, Again, Report, Task};
use crate::store::{Events, StoreError};

/// Carries out every kind of action.
pub struct Actions {
    /// The way out to services.
    pub outbound: Arc<Outbound>,
    /// What sends messages to destinations.
    pub clients: Clients,
    /// The time that messages are signed with.
    pub clock: Arc<dyn Clock>,
    /// What makes an application's calls.
    pub calls: Arc<dyn Carry>,
    /// Where their outcomes are kept.
    pub events: Arc<dyn Events>,
}

#[async_trait]
impl Act for Actions {
    async fn act(&self, task: &Task) -> Report {
        if let Some(call) = task.call() {
            return self.calls.carry(&task.generation, call, task.delivery).await;
        }
        let Some(action) = task.action() else {
            return Report::failed(None, "the rule no longer has this action", Again::Never);
        };
        match &action.what {
            What::Call { .. } => call::run(&self.outbound, task, &action.what).await,
            What::Deliver { .. } => deliver::run(&self.clients, &*self.clock, task, &action.what).await,
            What::Log { level, message } => log::run(task, *level, message),
            What::NotYet(part) => Report::failed(None, part.to_string(), Again::Never),
        }
    }

    fn may_be_cut(&self, task: &Task) -> bool {
        if let Some(call) = task.call() {
            return self.calls.repeats_safely(&task.generation, call);
        }
        match task.action().map(|action| &action.what) {
            Some(what @ What::Call { .. }) => call::repeats_safely(task, what),
            // A destination is told the same id at every try, so that it can tell them apart.
            Some(What::Deliver { .. } | What::Log { .. } | What::NotYet(_)) | None => true,
        }
    }

    async fn conclude(&self, conclusion: Conclusion<'_>) -> Result<(), StoreError> {
        durable::keep(&*self.events, &*self.clock, conclusion).await
    }
}
