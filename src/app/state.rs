//! The store, opened as the settings say.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Seams, StartError};
use crate::definition::plan::gateway::{Gateway, State};
use crate::store::embedded::{self, Embedded, Retention};

/// Opens the store on a thread that may wait: recovery reads what was written since the last start.
pub async fn open(gateway: &Gateway, seams: &Seams) -> Result<Arc<Embedded>, StartError> {
    let options = options(gateway, seams)?;
    let opened = tokio::task::spawn_blocking(move || embedded::open(&options)).await;
    Ok(opened.map_err(|error| StartError::panicked(&error))??)
}

/// How the embedded store is opened.
pub fn options(gateway: &Gateway, seams: &Seams) -> Result<embedded::Options, StartError> {
    let State::Sled { path, cache, min_free, retention } = &gateway.fixed.state else {
        return Err(StartError::NotYet("state.postgres".to_owned()));
    };
    Ok(embedded::Options {
        cache_bytes: *cache,
        min_free: *min_free,
        retention: Retention { age: *retention, bytes: None },
        disk: Arc::clone(&seams.disk),
        ..embedded::Options::new(path.clone(), Arc::clone(&seams.clock))
    })
}

/// How often old segments are looked for.
const TIDY_EVERY: Duration = Duration::from_mins(10);

/// Removes what is older than the retention, now and then, until it is told to stop.
pub async fn tidy(store: Arc<Embedded>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(TIDY_EVERY)).await.is_some() {
        match store.retire().await {
            Ok(retired) if retired.segments + retired.record_segments > 0 => tracing::info!(
                segments = retired.segments + retired.record_segments,
                events = retired.events,
                carried = retired.carried,
                "old segments of the store were removed"
            ),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = %error, "old segments of the store could not be removed; they are tried again");
            }
        }
    }
}
