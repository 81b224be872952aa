//! The health of one connection in memory: it costs a call an atomic store or none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Health, Key, Status, Trouble};
use crate::base::clock::Timestamp;
use crate::base::id::ConnectionId;
use crate::store::StoreError;
use crate::telemetry::notice::{Kind, Notice, Notices};

/// A last success is written again when it is this much newer than the one written.
const SUCCESS_EVERY: Duration = Duration::from_mins(10);

/// One connection's health, shared by all who use the connection.
#[derive(Debug, Default)]
pub struct Pulse {
    health: Mutex<Health>,
    /// The last success in milliseconds; zero when there was none in this process.
    success: AtomicU64,
    /// Until then, in milliseconds, a success is nothing new.
    quiet_until: AtomicU64,
    /// Whether something of it is not on disk.
    pub(super) unwritten: AtomicBool,
    /// Set while calls must not go out without a closer look.
    blocked: AtomicBool,
    /// How many refreshes in a row were made because the service refused the token, by the token's name.
    refusals: Mutex<BTreeMap<Arc<str>, u32>>,
    /// Which account it is of; see [`super::Pulses::begin_era`].
    pub(super) era: AtomicU64,
    /// Whose pulse it is, and who is told when a person has to act.
    teller: Option<(Key, Arc<Notices>)>,
    /// Why nothing is known: the store could not be read.
    unread: Option<StoreError>,
}

impl Pulse {
    /// That of a connection whose record could not be read: it is nobody's but the asker's, and is never written.
    pub(super) fn unread(error: StoreError) -> Self {
        Self { unread: Some(error), ..Self::default() }
    }

    /// Why nothing is known of the connection, where that is so: it may be paused. Whoever asks again may learn it.
    pub fn fault(&self) -> Option<&StoreError> {
        self.unread.as_ref()
    }

    /// Whether what is noted here is of a connection that is kept, and not of a draft.
    pub fn is_kept(&self) -> bool {
        self.teller.is_some()
    }

    pub(super) fn of(key: &Key, health: Health, era: u64, notices: &Arc<Notices>) -> Self {
        let teller = Some((key.clone(), Arc::clone(notices)));
        let pulse = Self { health: Mutex::new(health), era: AtomicU64::new(era), teller, ..Self::default() };
        pulse.block(&pulse.lock());
        pulse
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn block(&self, health: &Health) {
        let status = health.status();
        self.blocked.store(matches!(status, Status::Paused | Status::NeedsReconnect), Ordering::Release);
    }

    /// Which account it is of: no two of this process have the same.
    pub fn era(&self) -> u64 {
        self.era.load(Ordering::Acquire)
    }

    /// What is known now.
    pub fn health(&self) -> Health {
        let mut health = self.lock().clone();
        health.last_success = health.last_success.max(self.succeeded());
        health
    }

    fn succeeded(&self) -> Option<Timestamp> {
        Some(self.success.load(Ordering::Relaxed)).filter(|millis| *millis > 0).map(Timestamp::from_millis)
    }

    /// Whether calls need a closer look at [`Self::health`] before they go out. Costs an atomic load.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Acquire)
    }

    /// A call succeeded. A warning, which a call that failed may have left, ends with it.
    pub fn succeed(&self, now: Timestamp) {
        self.success.store(now.millis(), Ordering::Relaxed);
        if now.millis() < self.quiet_until.load(Ordering::Relaxed) {
            return;
        }
        let mut health = self.lock();
        if health.condition == Status::Warning {
            let before = health.status();
            health.condition = Status::Active;
            if before != health.status() {
                health.since = Some(now);
            }
            self.unwritten.store(true, Ordering::Relaxed);
        }
        let told = health.last_success.filter(|told| now.since(*told) < SUCCESS_EVERY);
        if told.is_none() {
            health.last_success = Some(now);
            self.unwritten.store(true, Ordering::Relaxed);
        }
        self.quiet_until.store(told.unwrap_or(now).after(SUCCESS_EVERY).millis(), Ordering::Relaxed);
    }

    /// A call was refused for its credential. Only what was well becomes a warning.
    pub fn refuse(&self, trouble: Trouble) {
        let mut health = self.lock();
        if health.condition == Status::Active {
            let before = health.status();
            health.condition = Status::Warning;
            if before != health.status() {
                health.since = Some(trouble.at);
            }
        }
        health.blame(trouble);
        self.unwritten.store(true, Ordering::Relaxed);
        self.quiet_until.store(0, Ordering::Relaxed);
    }

    /// Changes what is known. Answers the status before and after.
    pub fn change(&self, now: Timestamp, change: impl FnOnce(&mut Health)) -> (Status, Status) {
        let mut health = self.lock();
        let (before, standing) = (health.status(), health.standing());
        change(&mut health);
        let after = health.status();
        if before != after {
            health.since = Some(now);
        }
        self.unwritten.store(true, Ordering::Relaxed);
        self.quiet_until.store(0, Ordering::Relaxed);
        self.block(&health);
        if let Some((key, notices)) = &self.teller
            && standing != health.standing()
            && health.standing() == Status::NeedsReconnect
        {
            notices.tell(|| needs_reconnect(key, &health));
        }
        (before, after)
    }

    /// How long a token must have been in use before a refusal of it is a reason to renew it: from one
    /// minute, twice as long each time that a new token was refused as well, at most about an hour.
    pub fn patience(&self, token: &str) -> Duration {
        let doublings = self.refusals().get(token).copied().unwrap_or(0).min(6);
        Duration::from_mins(1) * (1 << doublings)
    }

    fn refusals(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, u32>> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::connection) fn renewed_for_refusal(&self, token: &Arc<str>) {
        let mut refusals = self.refusals();
        let count = refusals.entry(Arc::clone(token)).or_default();
        *count = count.saturating_add(1);
    }

    /// What was learnt of earlier tokens counts no more.
    pub(in crate::connection) fn forget_refusals(&self) {
        self.refusals().clear();
    }

    pub(in crate::connection) fn renewed_in_time(&self, token: &str) {
        self.refusals().remove(token);
    }
}

/// What is told of a connection that a person has to connect again.
pub(super) fn needs_reconnect(key: &Key, health: &Health) -> Notice {
    let since = health.since.unwrap_or_default();
    let (what, trouble) = (format!("The connection `{key}` has to be connected again."), health.last_error.as_ref());
    let step = trouble.map_or("connect the account again", |trouble| &trouble.step);
    let notice = Notice::new(Kind::NeedsReconnect, since, what, step)
        .of(&key.integration)
        .at(format!("/connections/{}", ConnectionId::of(&key.integration, &key.id)))
        .once(format!("{}/{key}/{}", Kind::NeedsReconnect.word(), since.millis()));
    let notice = Notice { connection: Some(Arc::clone(&key.id)), ..notice };
    match trouble {
        Some(trouble) => notice.because(&trouble.what),
        None => notice,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Renewal;
    use super::*;

    const fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn a_warning_ends_with_a_success_and_a_pause_does_not() {
        let pulse = Pulse::default();
        pulse.refuse(Trouble::new(at(1), "401", "check the key"));
        assert_eq!(pulse.health().status(), Status::Warning);
        pulse.succeed(at(2));
        assert_eq!(pulse.health().status(), Status::Active);
        pulse.change(at(3), |health| health.paused = true);
        pulse.succeed(at(4));
        assert_eq!((pulse.health().status(), pulse.is_blocked()), (Status::Paused, true));
        pulse.change(at(5), |health| health.paused = false);
        assert_eq!((pulse.health().status(), pulse.is_blocked()), (Status::Active, false));
    }

    #[test]
    fn what_the_service_said_when_it_refused_for_good_outlives_the_calls_that_fail_because_of_it() {
        let pulse = Pulse::default();
        let trouble = Trouble::new(at(1), "invalid_grant, Token has been revoked", "connect the account again");
        let renewal = Renewal::new(Status::NeedsReconnect, trouble.clone());
        pulse.change(at(1), |health| health.hold_against("default", renewal));
        pulse.refuse(Trouble::new(at(2), "the service answered 401", "see whether the account still has access"));
        pulse.succeed(at(3));
        let health = pulse.health();
        assert_eq!((health.status(), health.since), (Status::NeedsReconnect, Some(at(1))));
        assert_eq!(health.last_error, Some(trouble));
    }
}
