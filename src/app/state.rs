//! The store, opened as the settings say.

use std::sync::Arc;

use super::{Seams, StartError};
use crate::definition::plan::gateway::{Gateway, State};
use crate::store::embedded::{self, Embedded};

/// Opens the store on a thread that may wait: recovery reads what was written since the last start.
pub async fn open(gateway: &Gateway, seams: &Seams) -> Result<Arc<Embedded>, StartError> {
    let options = options(gateway, seams)?;
    let opened = tokio::task::spawn_blocking(move || embedded::open(&options)).await;
    Ok(opened.map_err(|error| StartError::panicked(&error))??)
}

/// How the embedded store is opened.
pub fn options(gateway: &Gateway, seams: &Seams) -> Result<embedded::Options, StartError> {
    let State::Sled { path, cache, min_free, retention: _ } = &gateway.fixed.state else {
        return Err(StartError::StateNotYet);
    };
    Ok(embedded::Options {
        cache_bytes: *cache,
        min_free: *min_free,
        disk: Arc::clone(&seams.disk),
        ..embedded::Options::new(path.clone(), Arc::clone(&seams.clock))
    })
}
