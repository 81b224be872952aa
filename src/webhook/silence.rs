//! Integrations from which no webhook comes any more, although some did.
//!
//! When a webhook was last verified is in memory, and for the time before this process as far as the store knows. Told
//! once, until one comes again. Called by [`super::receive`], and by `app`, which lets it look.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, Timestamp};
use crate::definition::live::Live;
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::Gateway;
use crate::queue::durable;
use crate::store::model::{EventFilter, PageRequest};
use crate::store::{Events, StoreError};
use crate::telemetry::notice::{Kind, Notice, Notices};

/// How often it is looked: a quarter of the shortest silence, within these.
const LOOK: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// How far back the store is searched for a webhook among durable calls, in pages of a hundred.
const PAGES: usize = 10;

/// When webhooks were last verified.
#[derive(Debug, Default)]
pub struct Silence {
    heard: Mutex<HashMap<Arc<str>, Heard>>,
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    /// `None` where none ever came.
    at: Option<Timestamp>,
    told: bool,
}

/// What looking needs.
pub struct Watch {
    /// Which integrations there are.
    pub live: Arc<Live>,
    /// The events that came before this process began.
    pub events: Arc<dyn Events>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who is told.
    pub notices: Arc<Notices>,
}

impl Silence {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A webhook of an integration was verified.
    pub fn hear(&self, integration: &Arc<str>, now: Timestamp) {
        self.lock().insert(Arc::clone(integration), Heard { at: Some(now), told: false });
    }

    /// Looks now and then, until `stop`.
    pub async fn watch(self: Arc<Self>, watch: Watch, stop: CancellationToken) {
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
        let mut shortest = None;
        for integration in generation.integrations.values() {
            let Some(limit) = limit(integration, &generation.gateway) else { continue };
            shortest = Some(shortest.map_or(limit, |known: Duration| known.min(limit)));
            let Some(heard) = self.heard(watch, &integration.id).await else { continue };
            let Some(at) = heard.at.filter(|at| !heard.told && watch.clock.now().since(*at) >= limit) else { continue };
            if let Some(known) = self.lock().get_mut(&integration.id).filter(|known| known.at == Some(at)) {
                known.told = true;
                watch.notices.tell(|| notice(&integration.id, at, limit));
            }
        }
        shortest
    }

    async fn heard(&self, watch: &Watch, integration: &Arc<str>) -> Option<Heard> {
        if let Some(heard) = self.lock().get(integration) {
            return Some(*heard);
        }
        match last(&*watch.events, integration).await {
            // One that came meanwhile is newer than whatever the store had.
            Ok(at) => Some(*self.lock().entry(Arc::clone(integration)).or_insert(Heard { at, told: false })),
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

/// When the last webhook came that the store has. Durable calls are events as well, and none that came.
async fn last(events: &dyn Events, integration: &str) -> Result<Option<Timestamp>, StoreError> {
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
