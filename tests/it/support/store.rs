//! The embedded store in a test's directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use trunkline::base::clock::Clock;
use trunkline::base::id::EventId;
use trunkline::base::units::Reserve;
use trunkline::store::embedded::{self, Embedded, Options};
use trunkline::store::model::{
    Accepted, Delivery, Event, EventFilter, EventHead, NewEvent, Page, PageRequest, QueueDepth,
};
use trunkline::store::{Backlog, Events, StoreError};

/// Options for a small store: segments of 16 KiB, so that a few events fill several.
pub fn options(directory: &Path, clock: Arc<dyn Clock>) -> Options {
    Options { segment_bytes: 16 << 10, min_free: Reserve::Bytes(0), ..Options::new(directory, clock) }
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

/// A store of events that takes none and has none.
pub struct NoEvents;

impl Backlog for NoEvents {
    fn depth(&self) -> QueueDepth {
        QueueDepth::default()
    }
}

#[async_trait]
impl Events for NoEvents {
    async fn accept(&self, _event: NewEvent) -> Result<Accepted, StoreError> {
        Err(StoreError::Unavailable(Arc::from("nothing is stored here")))
    }

    async fn event(&self, _id: EventId) -> Result<Option<Event>, StoreError> {
        Ok(None)
    }

    async fn head(&self, _id: EventId) -> Result<Option<EventHead>, StoreError> {
        Ok(None)
    }

    async fn list(&self, _filter: &EventFilter, _page: PageRequest) -> Result<Page<EventHead>, StoreError> {
        Ok(Page { rows: Vec::new(), next: None })
    }

    async fn deliveries(&self, _id: EventId) -> Result<Vec<Delivery>, StoreError> {
        Ok(Vec::new())
    }
}
