//! The embedded store in a test's directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use trunkline::base::clock::Clock;
use trunkline::store::StoreError;
use trunkline::store::embedded::{self, Embedded, Options};

/// Options for a small store: segments of 16 KiB, so that a few events fill several.
pub fn options(directory: &Path, clock: Arc<dyn Clock>) -> Options {
    Options { segment_bytes: 16 << 10, min_free: 0, ..Options::new(directory, clock) }
}

/// Opens a store, waiting a little for the threads of one that was just dropped there.
pub async fn open(options: Options) -> Result<Arc<Embedded>, StoreError> {
    for _ in 0..500 {
        let options = options.clone();
        match tokio::task::spawn_blocking(move || embedded::open(&options)).await.unwrap() {
            Err(StoreError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => return other,
        }
    }
    panic!("the store was not let go of within five seconds");
}
