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

/// How long others wait for the next [`PACE`] bytes of an answer whose body has begun to come: its caller may read it
/// slowly. Before the body begins only the service can be slow.
const REST: Duration = Duration::from_secs(2);
const PACE: usize = 64 << 10;

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
    /// So many bytes of the body have come.
    Reading(usize),
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
    /// So many bytes of the body of an answer that is to be kept have come.
    pub fn has_read(&self, bytes: usize) {
        self.stage.send_replace(Stage::Reading(bytes));
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
        timeout(patience, self.end_of_reading()).await.unwrap_or(Ended::Done)
    }

    async fn end_of_reading(&mut self) -> Ended {
        let Ok(stage) = self.0.wait_for(|stage| *stage != Stage::Asking).await.map(|stage| *stage) else {
            return Ended::Left;
        };
        let mut stage = stage;
        while let Stage::Reading(bytes) = stage {
            let enough = |stage: &Stage| !matches!(stage, Stage::Reading(now) if *now < bytes + PACE);
            stage = match timeout(REST, self.0.wait_for(enough)).await.map(|told| told.map(|stage| *stage)) {
                Ok(Ok(stage)) => stage,
                Ok(Err(_)) => return Ended::Left,
                Err(_) => return Ended::Done,
            };
        }
        match stage {
            Stage::Over(ended) => ended,
            Stage::Asking | Stage::Reading(_) => Ended::Done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line { key: Key::for_test("/a"), chosen: None }
    }

    /// How a wait of ten seconds ends, and after how many, where so much of the body has come in each, and all in the last.
    async fn waited(over_at: u64, came: impl Fn(usize) -> Option<usize>) -> (Ended, u64) {
        let flights = Arc::new(Flights::default());
        let mut lead = flights.join(&line()).ok();
        let wait = flights.join(&line()).expect_err("somebody leads");
        let waiting = tokio::spawn(wait.ended(Duration::from_secs(10)));
        for (second, count) in (0_u64..).zip(0_usize..) {
            if let (Some(lead), Some(bytes)) = (&lead, came(count)) {
                lead.has_read(bytes);
            }
            if second == over_at {
                lead.take().into_iter().for_each(Lead::ends);
            }
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            if waiting.is_finished() {
                return (waiting.await.expect("no panic"), second);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        unreachable!("seconds do not end")
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_a_slow_service_and_not_for_a_slow_reader() {
        let late = waited(6, |second| (second == 5).then_some(100)).await;
        assert_eq!(late, (Ended::Done, 6), "the body begins late");
        let steady = waited(9, |second| Some(second * PACE)).await;
        assert_eq!(steady, (Ended::Done, 9), "a long body at a good pace");
        let trickle = waited(9, |second| Some(second * 1_000).filter(|bytes| *bytes > 0)).await;
        assert_eq!(trickle, (Ended::Done, 3), "two seconds after the body began");
        let endless = waited(30, |second| Some(second * PACE)).await;
        assert_eq!(endless, (Ended::Done, 10), "no longer than the call may take");
    }
}
