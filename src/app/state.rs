//! The store, opened as the settings say.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Seams, StartError};
use crate::activity::Activity;
use crate::activity::files::Place;
use crate::definition::plan::gateway::{Gateway, State};
use crate::store::embedded::{self, Embedded, Retention};
use crate::usage::{self, Usage};

/// Opens the store on a thread that may wait: recovery reads what was written since the last start. It is in use only
/// after [`begin`].
pub async fn open(gateway: &Gateway, seams: &Seams) -> Result<Arc<Embedded>, StartError> {
    let options = options(gateway, seams)?;
    let opened = tokio::task::spawn_blocking(move || embedded::look_into(&options)).await;
    Ok(opened.map_err(|error| StartError::panicked(&error))??)
}

/// Begins to use the store, after all that can refuse the start: the version before may not read it any more.
pub async fn begin(store: &Arc<Embedded>) -> Result<(), StartError> {
    let store = Arc::clone(store);
    let begun = tokio::task::spawn_blocking(move || store.begin()).await;
    Ok(begun.map_err(|error| StartError::panicked(&error))??)
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

/// The activity with what is in its files. One whose files cannot be read must not keep the gateway from its calls: then
/// it begins empty, and is in memory alone.
pub async fn activity(gateway: &Gateway, seams: &Seams) -> Activity {
    let State::Sled { path, min_free, .. } = &gateway.fixed.state else { return Activity::default() };
    let place = Place { store: path.clone(), min_free: *min_free, disk: Arc::clone(&seams.disk) };
    let usage_place = usage::files::Place { store: path.clone(), min_free: *min_free, disk: Arc::clone(&seams.disk) };
    let (settings, usage_settings, now) = (gateway.activity, gateway.usage, seams.clock.now());
    let opened = tokio::task::spawn_blocking(move || {
        let usage = Usage::open(usage_place, usage_settings, now).unwrap_or_else(|error| {
            tracing::error!("the usage's files cannot be used, so it is in memory alone: {error}");
            let usage = Usage::default();
            usage.apply(usage_settings);
            usage
        });
        Activity::open(place, usage, (settings, now))
    });
    let opened = opened.await;
    let told = match opened {
        Ok(Ok(activity)) => return activity,
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.to_string(),
    };
    tracing::error!("the activity's files cannot be used, so it is in memory alone: {told}");
    Activity::default()
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
