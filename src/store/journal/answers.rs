//! How a written batch is answered: one caller is woken by the journal's thread, and wakes the others.
//!
//! Waking a task from a thread outside its runtime takes system calls and a switch to a worker, for each
//! task anew. A worker that wakes others puts them into its own queue.

use tokio::sync::oneshot;

use super::Appended;
use crate::store::StoreError;

/// Where an append is answered.
pub type Reply = oneshot::Sender<Told>;

/// The answer to one append, and those that it brings along.
#[derive(Debug)]
pub struct Told {
    result: Result<Appended, StoreError>,
    rest: Rest,
}

impl Told {
    /// The answer to an append that is refused.
    pub fn refused(error: StoreError) -> Self {
        Self { result: Err(error), rest: Rest::default() }
    }

    /// Passes the other answers on, and gives this one.
    pub fn take(self) -> Result<Appended, StoreError> {
        drop(self.rest);
        self.result
    }
}

/// Answers that are given when this is dropped, so that none is lost with a caller that has gone away.
#[derive(Debug, Default)]
struct Rest(Vec<(Reply, Appended)>);

impl Drop for Rest {
    fn drop(&mut self) {
        for (reply, place) in self.0.drain(..) {
            let _gone = reply.send(Told { result: Ok(place), rest: Self::default() }).is_err();
        }
    }
}

/// Answers all appends of a batch that was written.
pub fn all(mut replies: Vec<(Reply, Appended)>) {
    let Some((first, place)) = replies.pop() else { return };
    let _gone = first.send(Told { result: Ok(place), rest: Rest(replies) }).is_err();
}
