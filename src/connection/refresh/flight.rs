//! One renewal at a time for each connection of a process, however many wait for it, and a bounded number
//! for each integration.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{RefreshError, Refresher, Wish};
use crate::connection::health::Key;

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(45);
/// How many flights for other tokens of the connection a caller waits for before its own.
const TURNS: usize = 8;

/// How a renewal ended.
pub(super) type Ended = Result<(), RefreshError>;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<Key, Flight>>,
    gates: Mutex<HashMap<Arc<str>, Gate>>,
}

/// How many pass at once, and what counts them.
type Gate = (usize, Arc<Semaphore>);

#[derive(Debug, Clone)]
pub(super) struct Flight {
    token: Arc<str>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Flights {
    fn flying(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection's tokens are being renewed.
    pub fn has(&self, key: &Key) -> bool {
        self.flying().contains_key(key)
    }

    /// What token calls of an integration pass through, `most` at once.
    pub fn gate(&self, integration: &Arc<str>, most: usize) -> Arc<Semaphore> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        let gate = gates.entry(Arc::clone(integration)).or_insert_with(|| (most, Arc::new(Semaphore::new(most))));
        // Those under way keep the gate they passed when a reload changes the number.
        if gate.0 != most {
            *gate = (most, Arc::new(Semaphore::new(most)));
        }
        Arc::clone(&gate.1)
    }
}

/// Removes a flight when its task ends, however it ends.
struct Landing {
    refresher: Arc<Refresher>,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.refresher.flights.flying().remove(&self.key);
        self.refresher.reschedule(&self.key);
    }
}

impl Refresher {
    /// Has a token renewed and waits for the end of it. Those who wish it meanwhile wait for the same end.
    pub(super) async fn renew(self: &Arc<Self>, wish: Wish) -> Ended {
        for _ in 0..TURNS {
            let mut flight = self.board(&wish, None);
            let told = match tokio::time::timeout(PATIENCE, flight.ended.wait_for(Option::is_some)).await {
                Ok(Ok(ended)) => ended.clone().unwrap_or(Err(RefreshError::Broken)),
                Ok(Err(_)) => Err(RefreshError::Broken),
                Err(_) => Err(RefreshError::Slow),
            };
            if flight.token == wish.token {
                return told;
            }
        }
        Err(RefreshError::Slow)
    }

    /// The flight of the wish's connection: the one under way, else a new one, for which a place at the
    /// integration's gate may have been taken already.
    pub(super) fn board(self: &Arc<Self>, wish: &Wish, place: Option<OwnedSemaphorePermit>) -> Flight {
        let mut flying = self.flights.flying();
        if let Some(flight) = flying.get(&wish.key) {
            return flight.clone();
        }
        let (tell, ended) = watch::channel(None);
        let flight = Flight { token: Arc::clone(&wish.token), ended };
        flying.insert(wish.key.clone(), flight.clone());
        drop(flying);
        let landing = Landing { refresher: Arc::clone(self), key: wish.key.clone() };
        let wish = wish.clone();
        self.tasks.spawn(async move {
            let ended = landing.refresher.attempt(&wish, place).await;
            // Who comes after this line begins a flight of its own, and finds the new token in the store.
            drop(landing);
            tell.send_replace(Some(ended));
        });
        flight
    }
}
