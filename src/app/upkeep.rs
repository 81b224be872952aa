//! What goes on beside the calls while the program runs: tokens renewed, connections tested, the activity kept,
//! services told of webhook endpoints.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::activity::keep::Keeper;
use crate::outbound::{Outbound, retest};
use crate::webhook::managed::Managed;

/// The background work under way.
#[derive(Debug)]
pub struct Upkeep {
    outbound: Arc<Outbound>,
    keeper: Keeper,
    tasks: Vec<JoinHandle<()>>,
}

impl Upkeep {
    /// Begins it; it ends after `stop`.
    pub fn start(outbound: &Arc<Outbound>, keeper: Keeper, webhooks: &Arc<Managed>, stop: &CancellationToken) -> Self {
        let testing = retest::run(Arc::clone(outbound), Arc::clone(&keeper.live), stop.clone());
        let mut tasks = vec![tokio::spawn(testing), tokio::spawn(keeper.clone().run(stop.clone()))];
        tasks.push(tokio::spawn(Arc::clone(webhooks).run(stop.clone())));
        if let Some(refresher) = outbound.refresher() {
            tasks.push(tokio::spawn(Arc::clone(refresher).run(stop.clone())));
        }
        Self { outbound: Arc::clone(outbound), keeper, tasks }
    }

    /// Waits for its end, and for token calls under way, whose tokens would be lost. `stop` has been given,
    /// and nobody asks for tokens any more.
    pub async fn end(self, grace: Duration) {
        for task in self.tasks {
            // A panic in it has been logged by the process's hook.
            drop(task.await);
        }
        self.keeper.write().await;
        self.keeper.close().await;
        match self.outbound.refresher() {
            Some(refresher) => {
                if !refresher.drain(grace).await {
                    tracing::warn!("token calls were cut off; they are made again at the next start");
                }
            }
            None => self.outbound.connections().flush_health().await,
        }
    }
}
