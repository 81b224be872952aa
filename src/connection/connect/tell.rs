//! What is told of flows: the audit log, the activity and the metrics, each in one place.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::Method;
use serde_json::{Value as Json, json};

use super::link::Link;
use super::outcome::{Outcome, State};
use super::trial::Found;
use crate::activity::{Activity, Asker, CallRecord, Course, Told};
use crate::base::clock::Clock;
use crate::store::model::AuditEntry;
use crate::store::{Audit, StoreError};
use crate::telemetry::metrics::Metrics;

/// How many refused callbacks a minute are written to the audit log, the activity and the log: anyone can send
/// them, each write is synced, and they must not push out what calls left in the activity. The rest are counted,
/// and the next entry says how many they were.
const REFUSALS: NonZeroU32 = NonZeroU32::MIN.saturating_add(59);

/// Why a callback, or a link, was turned away. The person sees one page for all of them, so that nobody
/// learns which part of a forgery was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tampering {
    /// There is no state, or not in our form.
    StateMissing,
    /// The state is unknown: never given out, used before, or too old.
    StateUnknown,
    /// The browser is not the one that the flow began in.
    Browser,
    /// The callback is another integration's.
    Integration,
    /// Another issuer than the expected one sent it (RFC 9207).
    Issuer,
    /// The callback is for another temporary token (RFC 5849).
    Token,
    /// A parameter is there twice.
    Repeated,
    /// The link was changed.
    Link,
    /// Another browser began with the link.
    LinkTaken,
    /// A form came from a page of another site.
    Origin,
}

impl Tampering {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateMissing => "state_missing",
            Self::StateUnknown => "state_unknown",
            Self::Browser => "other_browser",
            Self::Integration => "other_integration",
            Self::Issuer => "other_issuer",
            Self::Token => "other_token",
            Self::Repeated => "repeated_parameter",
            Self::Link => "link_invalid",
            Self::LinkTaken => "link_taken",
            Self::Origin => "other_site",
        }
    }
}

/// Tells what happened.
pub(super) struct Teller {
    pub audit: Arc<dyn Audit>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    budget: RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>,
    left_out: AtomicU64,
}

/// The gateway's own clock, as the budget has it.
struct Ticks(Arc<dyn Clock>);

impl governor::clock::Clock for Ticks {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

impl Clone for Ticks {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl Teller {
    pub fn new(audit: Arc<dyn Audit>, activity: Arc<Activity>, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let budget = RateLimiter::direct_with_clock(Quota::per_minute(REFUSALS), Ticks(Arc::clone(&clock)));
        Self { audit, activity, metrics, clock, budget, left_out: AtomicU64::new(0) }
    }

    /// A link was made.
    pub async fn made(&self, actor: &str, link: &Link) -> Result<(), StoreError> {
        let detail = json!({
            "link": link.id, "return_to": link.return_to, "origin": link.origin, "scopes": link.scopes,
            "expires_at": link.expires_at().to_string(),
        });
        self.write(actor, "connect.link", link, detail).await
    }

    /// A person was sent to the service.
    pub async fn started(&self, link: &Link, scopes: &[String]) -> Result<(), StoreError> {
        self.metrics.connect_flows.with_label_values(&[link.integration.as_str(), "started"]).inc();
        self.write(&actor(link), "connect.start", link, json!({ "link": link.id, "scopes": scopes })).await
    }

    /// What a person entered was tried without success, and is not kept. `result` is one of `credential_refused` and
    /// `credential_untried`.
    pub async fn tried(&self, link: &Link, result: &'static str, found: &Found) -> Result<(), StoreError> {
        self.metrics.connect_flows.with_label_values(&[link.integration.as_str(), result]).inc();
        self.record(&link.integration, &link.connection, Some(result));
        let detail = json!({ "link": link.id, "result": result, "cause": found.cause });
        self.write(&actor(link), "connect.try", link, detail).await
    }

    /// A flow has an outcome. Call it when that is on disk.
    pub async fn ended(&self, outcome: &Outcome) {
        let link = &outcome.link;
        let (result, detail) = match &outcome.state {
            State::Started { .. } | State::Finishing { .. } | State::Choosing { .. } => return,
            State::Connected(connected) => {
                ("connected", json!({ "link": link.id, "granted": connected.granted, "missing": connected.missing() }))
            }
            State::Failed(failed) => {
                (failed.failure.code(), json!({ "link": link.id, "failure": failed.failure.code() }))
            }
        };
        let error = matches!(outcome.state, State::Failed(_)).then_some(result);
        self.metrics.connect_flows.with_label_values(&[link.integration.as_str(), result]).inc();
        self.record(&link.integration, &link.connection, error);
        if let Err(error) = self.write(&actor(link), "connect.end", link, detail).await {
            tracing::error!(integration = %link.integration, "the end of a connect flow is not in the audit log: {error}");
        }
    }

    /// Someone tried what nobody does by accident, or an old page was used again. `known` is the integration
    /// where there is one of that name: others are not a label.
    pub async fn refused(&self, known: Option<&str>, why: Tampering, link: Option<&Link>) {
        let integration = known.unwrap_or("other");
        self.metrics.connect_flows.with_label_values(&[integration, why.as_str()]).inc();
        let Some(left_out) = self.may_write() else { return };
        self.record(integration, link.map_or("", |link| &link.connection), Some(why.as_str()));
        tracing::warn!(
            integration,
            reason = why.as_str(),
            left_out,
            "a connect flow of {integration} was refused: {}",
            why.as_str()
        );
        let detail = json!({ "reason": why.as_str(), "link": link.map(|link| &link.id), "left_out_before": left_out });
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: "browser".to_owned(),
            action: "connect.refused".to_owned(),
            target: format!("integration:{integration}"),
            detail,
        };
        if let Err(error) = self.audit.append(entry).await {
            tracing::error!(integration, "a refused connect flow is not in the audit log: {error}");
        }
    }

    /// Whether another refusal may be written, and how many were left out before it.
    fn may_write(&self) -> Option<u64> {
        if self.budget.check().is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }

    fn record(&self, integration: &str, connection: &str, error: Option<&'static str>) {
        self.activity.record(CallRecord {
            at: self.clock.now(),
            generation: 0,
            integration: Arc::from(integration),
            connection: Arc::from(connection),
            asker: Asker::Connect,
            endpoint: None,
            method: Method::GET,
            origin: Arc::from(""),
            path: format!("/api/auth/callback/{integration}"),
            status: None,
            error,
            duration_ms: 0,
            sent_bytes: 0,
            received_bytes: 0,
            course: Course::default(),
            told: Told::default(),
        });
    }

    async fn write(&self, actor: &str, action: &str, link: &Link, detail: Json) -> Result<(), StoreError> {
        let entry = AuditEntry {
            at: self.clock.now(),
            actor: actor.to_owned(),
            action: action.to_owned(),
            target: format!("connection:{}/{}", link.integration, link.connection),
            detail,
        };
        self.audit.append(entry).await.map(drop)
    }
}

/// Who acts in a flow: whoever holds its link.
pub(super) fn actor(link: &Link) -> String {
    format!("connect-link:{}", link.id)
}
