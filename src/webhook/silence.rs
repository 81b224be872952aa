//! Integrations from which no webhook comes any more, although some did.
//!
//! When a webhook was last verified is in memory, and in a record that is written now and then, before a silence is told
//! and at the end: no event tells of one that was a duplicate, or is older than the store keeps. Told once, until one comes
//! again. Called by [`super::receive`], and by `app`, which lets it look.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Timestamp};
use crate::definition::live::Live;
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::Gateway;
use crate::queue::durable;
use crate::store::model::{EventFilter, PageRequest, RecordKey};
use crate::store::{Events, Records, StoreError};
use crate::telemetry::notice::{Kind, Notice, Notices};

/// How often it is looked: a quarter of the shortest silence, within these.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// The collection of what was heard of integrations.
const COLLECTION: &str = "webhook_silence";
/// How many records are written at once.
const AT_ONCE: usize = 64;
/// How far back the store is searched for a webhook among durable calls, in pages of a hundred.
const PAGES: usize = 10;

/// When webhooks were last verified.
#[derive(Debug, Default)]
pub struct Silence {
    heard: Mutex<HashMap<Arc<str>, Heard>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    last: Last,
    /// What the store's record says, where that is known.
    kept: Option<Last>,
}

/// The last webhook that was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    /// `None` where none ever came.
    at: Option<Timestamp>,
    /// Whether the silence since then was told.
    told: bool,
}

impl Heard {
    /// Whether the record says less than is known, or a moment that is older by more than this.
    fn is_due(&self, slack: Duration) -> bool {
        let Some(at) = self.last.at else { return false };
        let is_late = |kept: Last| kept.at.is_none_or(|kept| at.since(kept) > slack);
        self.kept.is_none_or(|kept| kept.told != self.last.told || is_late(kept))
    }
}

/// What looking needs.
pub struct Watch {
    /// Which integrations there are.
    pub live: Arc<Live>,
    /// The events that came before this process began.
    pub events: Arc<dyn Events>,
    /// Where it is kept when webhooks were last verified.
    pub records: Arc<dyn Records>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub notices: Arc<Notices>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Silence {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A webhook of an integration was verified.
    pub fn hear(&self, integration: &Arc<str>, now: Timestamp) {
        self.lock().entry(Arc::clone(integration)).or_default().last = Last { at: Some(now), told: false };
    }

    /// Looks now and then, until `stop`.
    pub async fn watch(self: Arc<Self>, watch: Arc<Watch>, stop: CancellationToken) {
        loop {
            let shortest = self.look(&watch).await;
            let pause = shortest.map_or(LOOK.1, |shortest| (shortest / 4).clamp(LOOK.0, LOOK.1));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Tells of integrations that are silent for too long. Answers the shortest silence that any may have.
    async fn look(&self, watch: &Watch) -> Option<Duration> {
        if !watch.notices.are_wanted() {
            return None;
        }
        let generation = watch.live.load();
        self.lock().retain(|id, _| generation.integration(id).is_some());
        let (mut shortest, mut due) = (None, Vec::new());
        for integration in generation.integrations.values() {
            let Some(limit) = limit(integration, &generation.gateway) else { continue };
            shortest = Some(shortest.map_or(limit, |known: Duration| known.min(limit)));
            let Some(heard) = self.heard(watch, &integration.id).await else { continue };
            let is_silent = |at: &Timestamp| !heard.last.told && watch.clock.now().since(*at) >= limit;
            if let Some(at) = heard.last.at.filter(is_silent) {
                // Before it is told, so that after a crash it is the same silence, which is not told twice.
                self.keep(watch, &integration.id).await;
                if let Some(known) = self.lock().get_mut(&integration.id).filter(|known| known.last.at == Some(at)) {
                    known.last.told = true;
                    watch.notices.tell(|| notice(&integration.id, at, limit));
                }
            } else if heard.is_due(limit / 4) {
                due.push(Arc::clone(&integration.id));
            }
        }
        self.keep_each(watch, due).await;
        shortest
    }

    /// Writes what is known of all that is watched.
    pub async fn keep_all(&self, watch: &Watch) {
        if watch.notices.are_wanted() {
            let generation = watch.live.load();
            let watched = generation.integrations.values();
            let watched = watched.filter(|integration| limit(integration, &generation.gateway).is_some());
            self.keep_each(watch, watched.map(|integration| Arc::clone(&integration.id)).collect()).await;
        }
    }

    async fn keep_each(&self, watch: &Watch, ids: Vec<Arc<str>>) {
        let keep = |id: Arc<str>| async move { self.keep(watch, &id).await };
        futures_util::stream::iter(ids).for_each_concurrent(AT_ONCE, keep).await;
    }

    /// Writes what is known of an integration, where the record says something else. What cannot be written is tried again at the next look.
    async fn keep(&self, watch: &Watch, integration: &Arc<str>) {
        let heard = self.lock().get(integration).copied().filter(|heard| heard.is_due(Duration::ZERO));
        let Some((last, Ok(bytes))) = heard.map(|heard| (heard.last, serde_json::to_vec(&heard.last))) else { return };
        match watch.records.put(&record(integration), Bytes::from(bytes), None).await {
            Ok(_) => {
                if let Some(known) = self.lock().get_mut(integration) {
                    known.kept = Some(last);
                }
            }
            Err(error) => {
                tracing::debug!(integration = &**integration, "when a webhook last came is not kept: {error}");
            }
        }
    }

    async fn heard(&self, watch: &Watch, integration: &Arc<str>) -> Option<Heard> {
        if let Some(heard) = self.lock().get(integration) {
            return Some(*heard);
        }
        match last(watch, integration).await {
            // One that came meanwhile is newer than whatever the store had.
            Ok(heard) => Some(*self.lock().entry(Arc::clone(integration)).or_insert(heard)),
            Err(error) => {
                tracing::warn!(integration = &**integration, "nobody can say when a webhook last came: {error}");
                None
            }
        }
    }
}

/// How long an integration may be silent.
fn limit(integration: &Integration, gateway: &Gateway) -> Option<Duration> {
    let own = integration.webhook.as_ref()?.silent_after;
    own.or(gateway.notifications.silent_after).filter(|limit| !limit.is_zero())
}

fn record(integration: &Arc<str>) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::clone(integration) }
}

/// What the store knows: of the record and the last event what is newer.
async fn last(watch: &Watch, integration: &Arc<str>) -> Result<Heard, StoreError> {
    let found = watch.records.get(&record(integration)).await?;
    // A record in no form of ours is written anew.
    let kept: Option<Last> = found.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
    let stored = last_stored(&*watch.events, integration).await?;
    let last = kept.filter(|kept| kept.at >= stored).unwrap_or(Last { at: stored, told: false });
    Ok(Heard { last, kept })
}

/// When the last webhook came that the store has. Durable calls are events as well, and none that came.
async fn last_stored(events: &dyn Events, integration: &str) -> Result<Option<Timestamp>, StoreError> {
    let filter = EventFilter { integration: Some(integration.to_owned()), ..EventFilter::default() };
    let mut after = None;
    for _ in 0..PAGES {
        let page = events.list(&filter, PageRequest { after, limit: 100 }).await?;
        if let Some(head) = page.rows.iter().find(|head| !durable::may_be(&head.event_type)) {
            return Ok(Some(head.received_at));
        }
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(None)
}

fn notice(integration: &Arc<str>, last: Timestamp, limit: Duration) -> Notice {
    let (what, since) = (format!("No webhook of `{integration}` came since {last}."), last);
    let step = "See whether the service still sends them here, and whether what it sends is refused.";
    Notice::new(Kind::WebhookSilent, since, what, step)
        .of(integration)
        .because(format!("one was expected within {} s", limit.as_secs()))
        .once(format!("{}/{integration}/{}", Kind::WebhookSilent.word(), last.millis()))
}
