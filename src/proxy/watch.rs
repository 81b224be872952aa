//! What a connection watches while a request is under way: how long the service may stay silent, and
//! how slowly the client may send or read.
//!
//! Pingora has one time limit per read and none over a whole body. Every wait of a proxied request goes
//! through the client's connection, which is polled but for one case ([`super::stuck`]), so the connection is where
//! limits are kept: phases of the request set them here, [`super::stream::DoorStream`] enforces them.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::task::AtomicWaker;

/// Why a wait, or a request, was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The service stayed silent for too long.
    Service,
    /// The client sent too slowly.
    ClientSending,
    /// The client read too slowly.
    ClientReading,
    /// The client's body is not well-formed.
    Malformed,
    /// The client sent more HTTP/2 frames that carry nothing than it may.
    Flood,
}

/// No deadline.
const NONE: u64 = u64::MAX;

/// Limits of one connection, set by the request's phases and read by the connection.
#[derive(Debug)]
pub struct Watch {
    /// Monotonic milliseconds at which the service's silence ends the request.
    service: AtomicU64,
    body: AtomicBool,
    tunnel: AtomicBool,
    overdue: AtomicU8,
    abandoned: AtomicBool,
    /// Wakes whoever serves the request.
    waker: AtomicWaker,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            service: AtomicU64::new(NONE),
            body: AtomicBool::new(false),
            tunnel: AtomicBool::new(false),
            overdue: AtomicU8::new(0),
            abandoned: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }
}

impl Watch {
    /// Forgets the last request; `body` says whether this one has a body to come.
    pub fn begin(&self, body: bool) {
        self.service.store(NONE, Ordering::Relaxed);
        self.body.store(body, Ordering::Relaxed);
        self.tunnel.store(false, Ordering::Relaxed);
        self.overdue.store(0, Ordering::Relaxed);
        self.abandoned.store(false, Ordering::Relaxed);
    }

    /// The service must be heard before `now + limit`.
    pub fn expect_service(&self, now: Duration, limit: Duration) {
        self.service.store(millis(now.saturating_add(limit)), Ordering::Relaxed);
    }

    /// Nothing is waited for from here on but what the connection itself bounds.
    pub fn expect_nothing(&self) {
        self.service.store(NONE, Ordering::Relaxed);
    }

    /// A wait that was ended begins anew with another try: nothing is waited for until that is made.
    pub fn forgive(&self) {
        self.expect_nothing();
        self.overdue.store(0, Ordering::Relaxed);
    }

    /// The client's body has ended.
    pub fn body_ended(&self) {
        self.body.store(false, Ordering::Relaxed);
    }

    /// From here on both sides exchange bytes as they like: rates no longer count.
    pub fn become_tunnel(&self) {
        self.tunnel.store(true, Ordering::Relaxed);
    }

    /// Ends the request from outside, without an answer: one whose waits nobody looks at.
    pub fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Returns when the request is to end; for whoever serves it.
    pub async fn abandoned(&self) {
        poll_fn(|cx| {
            self.waker.register(cx.waker());
            if self.abandoned.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Why the connection ended a wait, if it did.
    pub fn overdue(&self) -> Option<Overdue> {
        match self.overdue.load(Ordering::Relaxed) {
            1 => Some(Overdue::Service),
            2 => Some(Overdue::ClientSending),
            3 => Some(Overdue::ClientReading),
            4 => Some(Overdue::Flood),
            5 => Some(Overdue::Malformed),
            _ => None,
        }
    }

    /// Whether the service should have been heard before `now`.
    pub fn service_is_overdue(&self, now: Duration) -> bool {
        millis(now) >= self.service.load(Ordering::Relaxed)
    }

    pub(super) fn expects_body(&self) -> bool {
        self.body.load(Ordering::Relaxed) && !self.tunnel.load(Ordering::Relaxed)
    }

    pub(super) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }

    pub(super) fn has_deadline(&self) -> bool {
        self.service.load(Ordering::Relaxed) != NONE
    }

    pub(crate) fn end(&self, why: Overdue) {
        let code = match why {
            Overdue::Service => 1,
            Overdue::ClientSending => 2,
            Overdue::ClientReading => 3,
            Overdue::Flood => 4,
            Overdue::Malformed => 5,
        };
        self.overdue.store(code, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NONE - 1).min(NONE - 1)
}

/// How fast one direction moves, counting only the time that was spent waiting for the other side. It is
/// looked at window by window, and two slow ones in a row are too many: a fast start does not pay for a
/// standstill later, and a hiccup is none.
#[derive(Debug, Default)]
pub struct Pace {
    bytes: u64,
    waited: Duration,
    since: Option<Duration>,
    slow_before: bool,
}

impl Pace {
    /// The waiting of one window.
    const WINDOW: Duration = Duration::from_secs(5);

    /// Bytes moved.
    pub fn moved(&mut self, bytes: usize, now: impl FnOnce() -> Duration) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if let Some(since) = self.since.take() {
            self.waited = self.waited.saturating_add(now().saturating_sub(since));
        }
    }

    /// Nothing moves; whether that has lasted so long that the rate is below `minimum` bytes a second.
    pub fn waits(&mut self, now: Duration, minimum: u64) -> bool {
        let since = *self.since.get_or_insert(now);
        let waited = self.waited.saturating_add(now.saturating_sub(since));
        if waited < Self::WINDOW {
            return false;
        }
        let slow = u128::from(self.bytes) < u128::from(minimum) * waited.as_millis() / 1_000;
        let too_slow = slow && (self.slow_before || waited >= Self::WINDOW * 2);
        *self = Self { bytes: 0, waited: Duration::ZERO, since: Some(now), slow_before: slow };
        too_slow
    }

    /// Counts from here.
    pub fn begin(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_that_is_abandoned_ends_and_the_next_one_does_not() {
        let watch = std::sync::Arc::new(Watch::default());
        let serves = {
            let watch = std::sync::Arc::clone(&watch);
            tokio::spawn(async move { watch.abandoned().await })
        };
        tokio::task::yield_now().await;
        assert!(!serves.is_finished());
        watch.abandon();
        serves.await.expect("no panic");
        watch.begin(false);
        assert!(futures_util::FutureExt::now_or_never(watch.abandoned()).is_none());
    }

    #[test]
    fn a_pace_counts_waiting_only() {
        let (mut pace, second) = (Pace::default(), Duration::from_secs);
        assert!(!pace.waits(second(0), 1_024) && !pace.waits(second(5), 1_024));
        assert!(pace.waits(second(10), 1_024), "nothing in two windows");
        pace.begin();
        pace.moved(1_000_000, || second(11));
        assert!(!pace.waits(second(500), 1_024), "the pause between was not spent waiting");
        assert!(!pace.waits(second(505), 1_024), "a fast window");
        assert!(!pace.waits(second(510), 1_024), "one slow window");
        assert!(pace.waits(second(515), 1_024), "the fast start does not pay for the standstill");
    }
}
