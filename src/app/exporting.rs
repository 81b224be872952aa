//! Spans sent to the collector while the program runs, where the settings name one.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Seams;
use crate::definition::plan::gateway::Gateway;
use crate::net::Clients;
use crate::otlp::Exporter;

/// Spans being sent.
#[derive(Debug)]
pub struct Exporting {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Exporting {
    /// Begins to record and to send; `None` where the settings name no collector.
    pub fn start(gateway: &Gateway, clients: &Clients, seams: &Seams) -> Option<Self> {
        let settings = gateway.fixed.trace.clone()?;
        let metrics = Arc::clone(&seams.metrics);
        metrics.traces.record(settings.sample_millionths, Arc::clone(&seams.random), Arc::clone(&seams.clock));
        let stop = CancellationToken::new();
        let exporter = Exporter { settings, clients: clients.clone(), metrics };
        Some(Self { task: tokio::spawn(exporter.run(stop.clone())), stop })
    }

    /// Sends what waits, and ends.
    pub async fn end(self, grace: Duration) {
        self.stop.cancel();
        // A panic in it has been logged by the process's hook.
        drop(tokio::time::timeout(grace, self.task).await);
    }
}
