//! What waits to be written: callers put in, the committer takes out all there is.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue with one taker.
#[derive(Debug)]
pub struct Queue<R> {
    inner: Mutex<Inner<R>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Inner<R> {
    waiting: VecDeque<R>,
    closed: bool,
}

/// What there was to take.
#[derive(Debug)]
pub enum Taken<R> {
    /// At least one.
    Batch(Vec<R>),
    /// None came in time.
    Idle,
    /// None, and none will come.
    Closed,
}

impl<R> Default for Queue<R> {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { waiting: VecDeque::new(), closed: false }), filled: Condvar::new() }
    }
}

impl<R> Queue<R> {
    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts one in; gives it back when the queue is closed.
    pub fn push(&self, request: R) -> Result<(), R> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(request);
        }
        inner.waiting.push_back(request);
        // The taker sleeps only while there is nothing.
        if inner.waiting.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes no more in; what is there can still be taken out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Takes what waits, in order, while `weight` of it stays below `limit`; at least one. Waits for the
    /// first at most `patience`, or for ever.
    pub fn take(&self, patience: Option<Duration>, limit: usize, weight: impl Fn(&R) -> usize) -> Taken<R> {
        let mut inner = self.lock();
        while inner.waiting.is_empty() {
            if inner.closed {
                return Taken::Closed;
            }
            inner = match patience {
                None => self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (inner, timeout) =
                        self.filled.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && inner.waiting.is_empty() {
                        return if inner.closed { Taken::Closed } else { Taken::Idle };
                    }
                    inner
                }
            };
        }
        let (mut count, mut total) = (0, 0);
        for request in &inner.waiting {
            total += weight(request);
            if count > 0 && total > limit {
                break;
            }
            count += 1;
        }
        Taken::Batch(inner.waiting.drain(..count).collect())
    }
}
