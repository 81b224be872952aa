//! The gateway's own events while the program runs: who tells of what stands still, and who stores what was told.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Seams;
use crate::connection::Connections;
use crate::definition::live::Live;
use crate::notices;
use crate::store::embedded::Embedded;
use crate::webhook::silence::{Silence, Watch};

/// Own events being stored.
#[derive(Debug)]
pub struct Telling {
    task: JoinHandle<()>,
    stop: CancellationToken,
    silence: (Arc<Silence>, Arc<Watch>),
}

impl Telling {
    /// Begins it. What looks at connections and webhooks ends with `until`; what is told is stored until
    /// [`Self::end`].
    pub fn start(
        (live, store): (&Arc<Live>, &Arc<Embedded>),
        (connections, silence): (&Arc<Connections>, &Arc<Silence>),
        seams: &Seams,
        until: &CancellationToken,
    ) -> Self {
        let watch = Arc::new(Watch {
            live: Arc::clone(live),
            events: Arc::clone(store) as _,
            records: Arc::clone(store) as _,
            clock: Arc::clone(&seams.clock),
            notices: Arc::clone(&seams.metrics.notices),
        });
        drop(tokio::spawn(Arc::clone(silence).watch(Arc::clone(&watch), until.clone())));
        let silence = (Arc::clone(silence), watch);
        if seams.metrics.notices.are_wanted() {
            let (connections, generation) = (Arc::clone(connections), live.load());
            // A stop in between loses nothing: the next start looks again.
            drop(tokio::spawn(async move { connections.tell_broken(&generation).await }));
        }
        let parts = notices::Parts {
            live: Arc::clone(live),
            events: Arc::clone(store) as _,
            clock: Arc::clone(&seams.clock),
            random: Arc::clone(&seams.random),
            metrics: Arc::clone(&seams.metrics),
        };
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(notices::run(parts, stop.clone())), stop, silence }
    }

    /// Stores what waits and when webhooks last came, and ends.
    pub async fn end(self, grace: Duration) {
        self.stop.cancel();
        // A panic in it has been logged by the process's hook.
        drop(tokio::time::timeout(grace, self.task).await);
        let (silence, watch) = self.silence;
        drop(tokio::time::timeout(grace, silence.keep_all(&watch)).await);
    }
}
