//! The gateway's own events: what was told ([`crate::telemetry::notice`]) becomes an event that rules of the gateway
//! file match.
//!
//! Such an event is stored as a webhook's is and goes the same way: the same queue, tries, dead letters and lists. What
//! no rule is for is not stored. [`desk`] groups and bounds. Called by `app`.

mod desk;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::base::clock::{Clock, Timestamp};
use crate::base::id::EventId;
use crate::base::random::Random;
use crate::definition::live::Live;
use crate::definition::plan::gateway::Gateway;
use crate::store::model::{Accepted, NewEvent};
use crate::store::{Events, StoreError};
use crate::telemetry::log::redact;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notice::{Notice, OWN};
use desk::{Desk, Offered, Told};

/// How long what was told once is not told again, also over restarts.
const KNOWN: Duration = Duration::from_hours(30 * 24);
/// The most characters of a text in an event.
const LONGEST: usize = 1_000;
/// The longest sleep; a change of settings counts after it at the latest.
const SLEEP: Duration = Duration::from_mins(1);

/// What own events are made with.
pub struct Parts {
    /// The rules and settings in force.
    pub live: Arc<Live>,
    /// Where events are stored.
    pub events: Arc<dyn Events>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids.
    pub random: Arc<dyn Random>,
    /// Where they are counted, and where what is told waits.
    pub metrics: Arc<Metrics>,
}

/// Stores what is told, until `stop`; what waits then is stored before this returns.
pub async fn run(parts: Parts, stop: CancellationToken) {
    let mut desk = Desk::default();
    loop {
        let settings = parts.live.load().gateway.notifications;
        let now = parts.clock.monotonic();
        let pause = desk.next(&settings).map_or(SLEEP, |next| next.saturating_sub(now).min(SLEEP));
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            () = parts.metrics.notices.come() => false,
            () = tokio::time::sleep(pause) => false,
        };
        parts.take(&mut desk).await;
        if ends {
            for told in desk.rest() {
                parts.store(told, &mut desk).await;
            }
            return;
        }
    }
}

impl Parts {
    /// Takes what was told meanwhile, and stores what is due.
    async fn take(&self, desk: &mut Desk) {
        let gateway = Arc::clone(&self.live.load().gateway);
        self.count_all("dropped", self.metrics.notices.take_dropped());
        let now = self.clock.monotonic();
        for notice in self.metrics.notices.take() {
            if !is_wanted(&gateway, &notice) {
                continue;
            }
            match desk.offer(notice, now, &gateway.notifications) {
                Offered::Now(told) => self.store(*told, desk).await,
                Offered::Grouped => self.count_all("grouped", 1),
                Offered::OverRate => self.count_all("over_rate", 1),
            }
        }
        for told in desk.due(now, &gateway.notifications) {
            self.store(told, desk).await;
        }
    }

    async fn store(&self, told: Told, desk: &mut Desk) {
        let gateway = Arc::clone(&self.live.load().gateway);
        // The rule may be gone since it was told, and the sum of what was held back may have none.
        if !is_wanted(&gateway, &told.notice) {
            return;
        }
        match self.accept(&gateway, &told).await {
            Ok(Accepted::New) => self.count_all("told", 1),
            Ok(Accepted::Duplicate(_)) => self.count_all("known", 1),
            Err(error) => {
                self.count_all("unstored", 1);
                let event_type = told.notice.kind.word();
                tracing::warn!(event.r#type = event_type, "an event of the gateway's own was not stored: {error}");
                desk.take_back(told, self.clock.monotonic());
            }
        }
    }

    async fn accept(&self, gateway: &Gateway, told: &Told) -> Result<Accepted, StoreError> {
        let now = self.clock.now();
        let id = self.id(now).map_err(|error| StoreError::Unavailable(Arc::from(error)))?;
        self.events.accept(event(gateway, told, (id, now))).await
    }

    fn id(&self, now: Timestamp) -> Result<EventId, String> {
        EventId::generate(now, &*self.random).map_err(|error| error.to_string())
    }

    fn count_all(&self, result: &str, count: u64) {
        if count > 0 {
            self.metrics.notices_told.with_label_values(&[result]).inc_by(count);
        }
    }
}

/// Whether a rule is for it.
fn is_wanted(gateway: &Gateway, notice: &Notice) -> bool {
    gateway.own.rules.iter().any(|rule| rule.is_for(notice.kind.word()))
}

fn event(gateway: &Gateway, told: &Told, (id, now): (EventId, Timestamp)) -> NewEvent {
    NewEvent {
        id,
        integration: Arc::from(OWN),
        endpoint: None,
        event_type: told.notice.kind.word().to_owned(),
        delivery_id: told.notice.once.clone(),
        dedupe_window: KNOWN,
        received_at: now,
        query: String::new(),
        headers: vec![("content-type".to_owned(), Bytes::from_static(b"application/json"))],
        body: Bytes::from(body(gateway.admin.url.as_ref(), told).to_string()),
    }
}

/// What an own event says: the fields that `docs/NOTIFICATIONS.md` promises. Its texts come from rooms that keep
/// secrets out of them; they are searched once more all the same.
fn body(url: Option<&Url>, told: &Told) -> Value {
    let Notice { kind, integration, connection, what, why, since, step, page, about, .. } = &told.notice;
    let about: Map<String, Value> =
        about.iter().map(|(name, value)| ((*name).to_owned(), Value::from(plain(value)))).collect();
    let link = url.map(|url| format!("{}{page}", url.as_str().trim_end_matches('/')));
    json!({
        "type": kind.word(),
        "what": plain(what),
        "why": why.as_ref().map(|why| plain(why)),
        "integration": integration.as_deref(),
        "connection": connection.as_deref(),
        "since": since.to_string(),
        "step": plain(step),
        "link": link,
        "page": page,
        "count": told.count,
        "first": told.first.to_string(),
        "about": about,
    })
}

fn plain(text: &str) -> String {
    redact(text).chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::notice::Kind;
    use crate::template::{Context, Text};

    const MANUAL: &str = include_str!("../../docs/NOTIFICATIONS.md");

    /// The texts with slots in a value.
    fn texts(value: &Value, found: &mut Vec<Text>) {
        match value {
            Value::String(text) if text.contains("{{") => found.push(Text::compile(text).expect(text)),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
            _ => {}
        }
    }

    /// What the rules of the manual's example tell.
    fn told_by_the_manual() -> Vec<Text> {
        let example = MANUAL.split("```").find_map(|block| block.strip_prefix("yaml\n")).expect("an example");
        let example: Value = serde_yaml::from_str(example).expect("YAML");
        let mut found = Vec::new();
        texts(&example["rules"], &mut found);
        assert!(found.len() >= 2, "{found:?}");
        found
    }

    /// Notices of a kind: with all that one may have, and with no more than each has.
    fn notices(kind: Kind) -> [Notice; 2] {
        let bare = Notice::new(kind, Timestamp::from_seconds(1), "It happened.", "Look at it.");
        let integration = Arc::from("shop");
        let full = bare.clone().of(&integration).because("it failed").with("place", "here");
        [bare, Notice { connection: Some(Arc::from("main")), ..full }]
    }

    #[test]
    fn the_example_of_the_manual_can_tell_every_event_with_and_without_an_address_of_the_page() {
        let url = Url::parse("https://trunkline.example/ops/").expect("a URL");
        let texts = told_by_the_manual();
        for kind in Kind::ALL {
            assert!(MANUAL.contains(&format!("| `{}` |", kind.word())), "{kind:?}");
            for (notice, url) in notices(kind).into_iter().flat_map(|one| [(one.clone(), None), (one, Some(&url))]) {
                let told = Told { count: 1, first: notice.since, notice };
                let body = body(url, &told);
                let context = Context::new().with_json("body", &body);
                for text in &texts {
                    let said = text.render(&context).unwrap_or_else(|error| panic!("{kind:?}: {error}: {body}"));
                    assert!(said.starts_with("It happened."), "{said}");
                }
                assert_eq!(body["link"].is_string(), url.is_some(), "{body}");
                assert!(body["page"].as_str().is_some_and(|page| page.starts_with('/')), "{body}");
            }
        }
    }
}
