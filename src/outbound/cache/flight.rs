//! One asks, the others wait: requests for the same thing at once become one call. What is the same is told by a
//! [`Line`], which is finer once it is known what the service's answers differ by.
//!
//! Whoever leads holds a [`Lead`]. When it is dropped, for whatever reason, nobody waits any longer: its
//! caller may go away, its call may fail, its answer may not be one to keep.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::key::{Chosen, Key};

/// How long others wait for the rest of an answer whose head has come: its caller may read it slowly.
const REST: Duration = Duration::from_secs(2);

/// Requests that wait for each other: for what is of one key and, where `Vary` is known of an answer of that key, chosen
/// by the same headers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// What is asked for.
    pub key: Key,
    /// What chooses the answer; `None` while no answer has told.
    pub chosen: Option<Chosen>,
}

/// Calls under way.
#[derive(Debug, Default)]
pub struct Flights(Mutex<HashMap<Line, watch::Receiver<Stage>>>);

/// How far a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asking,
    Reading,
    Over(Ended),
}

/// How a call ended, for those who waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its answer is kept, or is one that was not to be kept, or it failed: look once more, then ask.
    Done,
    /// Its caller went away before its answer came: another one may lead.
    Left,
}

/// Who asks, for all.
#[derive(Debug)]
pub struct Lead {
    flights: Arc<Flights>,
    line: Line,
    stage: watch::Sender<Stage>,
}

/// Who waits.
#[derive(Debug)]
pub struct Wait(watch::Receiver<Stage>);

impl Flights {
    fn lock(&self) -> MutexGuard<'_, HashMap<Line, watch::Receiver<Stage>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads, or waits for who does.
    ///
    /// # Errors
    /// The way to wait, where somebody leads already.
    pub fn join(self: &Arc<Self>, line: &Line) -> Result<Lead, Wait> {
        match self.lock().entry(line.clone()) {
            Entry::Occupied(under_way) => Err(Wait(under_way.get().clone())),
            Entry::Vacant(free) => {
                let (stage, seen) = watch::channel(Stage::Asking);
                free.insert(seen);
                Ok(Lead { flights: Arc::clone(self), line: line.clone(), stage })
            }
        }
    }
}

impl Lead {
    /// The head of an answer that is to be kept has come.
    pub fn reads(&self) {
        self.stage.send_replace(Stage::Reading);
    }

    /// There is nothing more to wait for.
    pub fn ends(self) {
        self.stage.send_replace(Stage::Over(Ended::Done));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.line);
    }
}

impl Wait {
    /// Waits for the end, at most for `patience` and not long for a slow reader.
    pub async fn ended(mut self, patience: Duration) -> Ended {
        let past_asking = timeout(patience, self.0.wait_for(|stage| *stage != Stage::Asking)).await;
        let stage = match past_asking.map(|told| told.map(|stage| *stage)) {
            Ok(Ok(stage)) => stage,
            Ok(Err(_)) => return Ended::Left,
            Err(_) => return Ended::Done,
        };
        if let Stage::Over(ended) = stage {
            return ended;
        }
        match timeout(REST, self.0.wait_for(|stage| matches!(stage, Stage::Over(_)))).await {
            Ok(Err(_)) => Ended::Left,
            Ok(Ok(_)) | Err(_) => Ended::Done,
        }
    }
}
