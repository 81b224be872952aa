//! What the program tells of itself as events: a connection that needs a person, a service that is left alone, a
//! delivery that was given up.
//!
//! Whoever counts a fact can tell it here: at a cost of one atomic load while no rule of the gateway file wants to
//! know, and of a push into a bounded list while one does. Nothing here waits, and what finds no room is counted. The
//! room `notices` takes what was told, groups it, and stores it. A notice has no secret in it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::base::clock::Timestamp;

/// The integration that the gateway's own events come to. No definition can have this id.
pub const OWN: &str = "trunkline";
/// The most notices that wait to be taken.
const ROOM: usize = 1_024;

/// What a notice is about: the type of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A service refused a connection for good: a person has to connect again.
    NeedsReconnect,
    /// A service failed, and is left alone for a while.
    BreakerOpen,
    /// It is called again.
    BreakerClosed,
    /// A delivery was given up.
    EventDead,
    /// A file of the deployment does not count.
    ConfigRejected,
    /// It counts again, or is gone.
    ConfigRecovered,
    /// No webhook came for longer than `silent_after`.
    WebhookSilent,
    /// The certificate of a door ends soon, or has ended.
    CertificateExpiring,
    /// There were more notices than `notifications.rate` lets pass.
    OverRate,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::NeedsReconnect,
        Self::BreakerOpen,
        Self::BreakerClosed,
        Self::EventDead,
        Self::ConfigRejected,
        Self::ConfigRecovered,
        Self::WebhookSilent,
        Self::CertificateExpiring,
        Self::OverRate,
    ];

    /// The type of its event, which `when` matches.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NeedsReconnect => "trunkline.connection.needs_reconnect",
            Self::BreakerOpen => "trunkline.breaker.open",
            Self::BreakerClosed => "trunkline.breaker.closed",
            Self::EventDead => "trunkline.event.dead",
            Self::ConfigRejected => "trunkline.config.rejected",
            Self::ConfigRecovered => "trunkline.config.recovered",
            Self::WebhookSilent => "trunkline.webhook.silent",
            Self::CertificateExpiring => "trunkline.certificate.expiring",
            Self::OverRate => "trunkline.notifications.over_rate",
        }
    }
}

/// Something that a person may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What it is about.
    pub kind: Kind,
    /// The integration it is about, where it is about one.
    pub integration: Option<Arc<str>>,
    /// The connection of that integration, where it is about one.
    pub connection: Option<Arc<str>>,
    /// What happened, as a sentence.
    pub what: String,
    /// Why, as far as it is known.
    pub why: Option<String>,
    /// Since when it is so.
    pub since: Timestamp,
    /// What to do about it, as a sentence.
    pub step: String,
    /// Where the page shows it: a path below the page's own address.
    pub page: String,
    /// More that programs may want, by name.
    pub about: Vec<(&'static str, String)>,
    /// What it is known by, so that it is not told again after a restart; `None` for what happens only once.
    pub once: Option<String>,
}

impl Notice {
    /// A notice about the deployment as a whole.
    pub fn new(kind: Kind, since: Timestamp, what: impl Into<String>, step: impl Into<String>) -> Self {
        let (what, step) = (what.into(), step.into());
        Self {
            kind,
            integration: None,
            connection: None,
            what,
            why: None,
            since,
            step,
            page: "/".to_owned(),
            about: Vec::new(),
            once: None,
        }
    }

    /// About an integration, which the page shows.
    #[must_use]
    pub fn of(self, integration: &Arc<str>) -> Self {
        Self { page: format!("/integrations/{integration}"), integration: Some(Arc::clone(integration)), ..self }
    }

    /// With why it is so.
    #[must_use]
    pub fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// With where the page shows it.
    #[must_use]
    pub fn at(self, page: impl Into<String>) -> Self {
        Self { page: page.into(), ..self }
    }

    /// With one more thing that programs may want.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.about.push((name, value.into()));
        self
    }

    /// With what it is known by over a restart.
    #[must_use]
    pub fn once(self, name: impl Into<String>) -> Self {
        Self { once: Some(name.into()), ..self }
    }
}

/// Notices that wait to be taken.
#[derive(Debug, Default)]
pub struct Notices {
    wanted: AtomicBool,
    waiting: Mutex<VecDeque<Notice>>,
    came: Notify,
    dropped: AtomicU64,
}

impl Notices {
    /// Whether anybody wants to know: says so for all that is told from now on.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.store(wanted == Wanted::Yes, Ordering::Relaxed);
    }

    /// Whether anybody wants to know.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Tells something, where anybody wants to know; `make` is not called otherwise.
    pub fn tell(&self, make: impl FnOnce() -> Notice) {
        if !self.are_wanted() {
            return;
        }
        let notice = make();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= ROOM {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(notice);
        drop(waiting);
        self.came.notify_one();
    }

    /// Waits until something was told; at once where that was since the last time.
    pub async fn come(&self) {
        self.came.notified().await;
    }

    /// Takes what was told, oldest first.
    pub fn take(&self) -> Vec<Notice> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    /// How many found no room since this was last asked.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }
}

/// Whether anybody wants to know of notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A rule of the gateway file may.
    Yes,
    /// There is no such rule.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice::new(Kind::EventDead, Timestamp::default(), "a", "b")
    }

    #[test]
    fn what_nobody_wants_is_not_even_made() {
        let notices = Notices::default();
        notices.tell(|| unreachable!("nobody wants it"));
        notices.want(Wanted::Yes);
        notices.tell(notice);
        assert_eq!((notices.take(), notices.take()), (vec![notice()], Vec::new()));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let notices = Notices::default();
        notices.want(Wanted::Yes);
        (0..ROOM + 3).for_each(|_| notices.tell(notice));
        assert_eq!((notices.take().len(), notices.take_dropped(), notices.take_dropped()), (ROOM, 3, 0));
    }

    #[test]
    fn every_kind_has_a_type_of_its_own() {
        let words: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), Kind::ALL.len());
        assert!(words.iter().all(|word| word.starts_with("trunkline.")));
    }
}
