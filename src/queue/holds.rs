//! Endpoints whose events wait: stored and kept, and not matched until they are let go.
//!
//! What waits stays ready in the store, in a lane of its endpoint, and is only passed over; so nothing is written for
//! it while it waits, and nothing of it can be lost. Filled by `connection::endpoints`; asked by `worker`.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::connection::endpoints::Holding;
use crate::store::model::Lane;

/// The lanes that are held back.
#[derive(Debug, Default)]
pub struct Holds {
    lanes: Mutex<BTreeSet<Lane>>,
    changed: Notify,
}

impl Holds {
    /// The lanes that are held back now.
    pub fn lanes(&self) -> Vec<Lane> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits until something was let go; at once where that was since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Holding for Holds {
    fn hold(&self, endpoint: &str) {
        let lane = Lane::matching_of(Some(endpoint));
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(lane);
    }

    fn let_go(&self, endpoint: &str) {
        let lane = Lane::matching_of(Some(endpoint));
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(&lane);
        self.changed.notify_one();
    }
}
