//! Usage as it is shown.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Parts;
use crate::outbound::limit::Count;
use crate::usage::ask::{Answer, Total};
use crate::usage::moment;

/// The most counts of a service that are shown, those with the least left.
const QUOTAS: usize = 5;

/// How much was called, how it ended and how long it took.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Usage)]
pub struct Shown {
    /// The time that was asked for.
    #[serde(flatten)]
    pub span: Span,
    /// The time of the same length before, where that was asked for.
    pub previous: Option<Span>,
    /// The total by integration and endpoint.
    pub series: Vec<SeriesShown>,
    /// The total by integration.
    pub integrations: Vec<OfIntegration>,
    /// For how long usage is kept, in seconds.
    pub kept_seconds: u64,
}

/// How much was called in a time.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageSpan)]
pub struct Span {
    /// The beginning of the first point.
    #[schema(format = DateTime)]
    pub from: String,
    /// The end of the last point.
    #[schema(format = DateTime)]
    pub to: String,
    /// How far apart points are, in seconds: what was asked for, or more where less is not kept any more.
    pub step_seconds: u64,
    /// A point for each step.
    pub points: Vec<Point>,
    /// All points together.
    pub total: Counts,
}

/// How much was called in one step.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsagePoint)]
pub struct Point {
    /// Its beginning.
    #[schema(format = DateTime)]
    pub at: String,
    /// Its end.
    #[schema(format = DateTime)]
    pub until: String,
    /// What there was; null while the gateway did not run.
    pub counts: Option<Counts>,
}

/// How much an endpoint was called.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageSeries)]
pub struct SeriesShown {
    /// The integration.
    pub integration: Arc<str>,
    /// The endpoint; null for calls of none that is declared.
    pub endpoint: Option<Arc<str>>,
    /// What there was.
    pub counts: Counts,
}

/// How much an integration was called.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageOfIntegration)]
pub struct OfIntegration {
    /// The integration.
    pub integration: Arc<str>,
    /// What there was.
    pub counts: Counts,
    /// What its service is known to have left for us now, the least first; at most five.
    pub quota: Vec<Quota>,
}

/// Calls together.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageCounts)]
pub struct Counts {
    /// All of them.
    pub requests: u64,
    /// Those that ended with a refusal of the gateway, a status of 400 or more, or no answer.
    pub errors: u64,
    /// Those whose answer may be kept.
    pub cacheable: u64,
    /// Those of them that cost the service nothing.
    pub saved: u64,
    /// Tries beyond the first.
    pub retries: u64,
    /// Bytes of bodies that were sent.
    pub sent_bytes: u64,
    /// Bytes of bodies that were received.
    pub received_bytes: u64,
    /// Those that were sent to the service: the times are of these.
    pub timed: u64,
    /// What half of them took at most, in milliseconds; null where there are fewer than 2.
    pub p50_ms: Option<u64>,
    /// What 95 of a hundred took at most; null where there are fewer than 20.
    pub p95_ms: Option<u64>,
    /// What 99 of a hundred took at most; null where there are fewer than 100.
    pub p99_ms: Option<u64>,
}

/// What a service is known to have left for us.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = UsageQuota)]
pub struct Quota {
    /// The name of the special limit that it is of; null for the general one.
    pub limit: Option<Box<str>>,
    /// The connection; null where all of them share it.
    pub connection: Option<Arc<str>>,
    /// How many calls are left.
    pub left: Option<u64>,
    /// Of how many.
    pub of: Option<u64>,
    /// In how many seconds it is full again.
    pub resets_in_seconds: Option<u64>,
    /// For how many seconds nothing goes, because the service asked for a pause.
    pub held_seconds: u64,
}

/// An answer, beside the one for the time before where that was asked for.
pub(super) fn shown(parts: &Parts, answer: &Answer, previous: Option<&Answer>) -> Shown {
    let series = answer.series.iter().map(|(series, total)| SeriesShown {
        integration: Arc::clone(&series.integration),
        endpoint: series.endpoint.clone(),
        counts: Counts::of(total),
    });
    let integrations = answer.integrations.iter().map(|(id, total)| OfIntegration {
        integration: Arc::clone(id),
        counts: Counts::of(total),
        quota: quota(parts, id),
    });
    Shown {
        span: Span::of(answer),
        previous: previous.map(Span::of),
        series: series.collect(),
        integrations: integrations.collect(),
        kept_seconds: parts.activity.usage().retain().as_secs(),
    }
}

impl Span {
    fn of(answer: &Answer) -> Self {
        let at = |minute: u32| moment(minute).to_string();
        let point = |(place, point): (u32, &Option<Total>)| {
            let from = answer.from.saturating_add(place.saturating_mul(answer.step));
            let until = from.saturating_add(answer.step);
            Point { at: at(from), until: at(until), counts: point.as_ref().map(Counts::of) }
        };
        Self {
            from: at(answer.from),
            to: at(answer.to),
            step_seconds: u64::from(answer.step) * 60,
            points: (0..).zip(&answer.points).map(point).collect(),
            total: Counts::of(&answer.total),
        }
    }
}

impl Counts {
    fn of(total: &Total) -> Self {
        let (counts, times) = (&total.counts, &total.times);
        Self {
            requests: counts.requests,
            errors: counts.errors,
            cacheable: counts.cacheable,
            saved: counts.saved,
            retries: counts.retries,
            sent_bytes: counts.sent_bytes,
            received_bytes: counts.received_bytes,
            timed: times.count(),
            p50_ms: times.quantile(50),
            p95_ms: times.quantile(95),
            p99_ms: times.quantile(99),
        }
    }
}

/// What the service of an integration is known to have left for us.
fn quota(parts: &Parts, id: &str) -> Vec<Quota> {
    let generation = parts.live.load();
    let Some(integration) = generation.integration(id).filter(|integration| integration.api.is_some()) else {
        return Vec::new();
    };
    let row = |count: Count| Quota {
        limit: count.limit,
        connection: Some(count.connection).filter(|name| !name.is_empty()),
        left: count.told.left,
        of: count.told.limit,
        resets_in_seconds: count.told.resets_in.map(|time| time.as_secs()),
        held_seconds: count.told.hold.as_secs(),
    };
    parts.outbound.policy(&generation, integration).counts().into_iter().take(QUOTAS).map(row).collect()
}
