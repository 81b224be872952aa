//! `/api/usage`: how much was called, how it ended and how long it took, by time, integration and endpoint; and what
//! services still let us call.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::query::{Asked, moment};
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::base::units::parse_duration;
use crate::outbound::limit::Count;
use crate::respond::Refusal;
use crate::usage::ask::{Answer, Question, Total};
use crate::usage::{minute, moment as beginning};

/// The most points of an answer.
const POINTS: u32 = 1_000;
/// The points of an answer where nobody says how far apart they are.
const USUAL_POINTS: u32 = 120;
/// How far apart they are then, in minutes; beyond these, whole days.
const STEPS: [u32; 9] = [1, 5, 15, 30, 60, 120, 360, 720, DAY];
const DAY: u32 = 24 * 60;
/// How far back an answer reaches where nobody says.
const USUAL: Duration = Duration::from_hours(24);

/// What is wanted.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// From when: a moment, or a duration back. Default 24h.
    pub from: Option<String>,
    /// Until when. Default now.
    pub to: Option<String>,
    /// How far apart points are: whole minutes.
    pub step: Option<String>,
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only this endpoint's.
    pub endpoint: Option<String>,
    /// With what it is compared.
    #[param(inline)]
    pub compare: Option<Compared>,
}

/// With what it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compared {
    /// The time of the same length before.
    Previous,
}

/// Calls, errors and times by time, integration and endpoint, and what services have left for us.
#[utoipa::path(get, path = "/api/usage", tag = "usage", params(Wanted),
    responses((status = 200, body = serde_json::Value, description = "As docs/USAGE.md describes it")))]
pub async fn show(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Value>, Refused> {
    describe(&parts, &wanted).await.map(Json)
}

/// The answer.
///
/// # Errors
/// When a parameter is not right.
pub async fn describe(parts: &Parts, wanted: &Wanted) -> Result<Value, Refused> {
    let question = question(wanted, parts.clock.now())?;
    let length = question.to - question.from;
    let previous = Question { from: question.from.saturating_sub(length), to: question.from, ..question.clone() };
    let compared = wanted.compare.is_some();
    let usage = std::sync::Arc::clone(parts.activity.usage());
    let look = move || (usage.answer(question), compared.then(|| usage.answer(previous)));
    let looked = tokio::task::spawn_blocking(look).await;
    let (answer, previous) = looked.map_err(|error| {
        tracing::error!("the usage could not be looked through: {error}");
        Refused::new(Refusal::Internal, "the usage could not be looked through")
    })?;
    Ok(shown(parts, &answer, previous.as_ref()))
}

fn question(wanted: &Wanted, now: Timestamp) -> Result<Question, Refused> {
    let refuse = |detail: &str| Refused::new(Refusal::InvalidInput, detail);
    let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
    // The minute that is under way is part of it.
    let to =
        time(&wanted.to)?.map_or(minute(now).saturating_add(1), |to| minute(to.after(Duration::from_millis(59_999))));
    let from = time(&wanted.from)?.map_or(minute(now.before(USUAL)), minute);
    if from >= to {
        return Err(refuse("`from` is not before `to`"));
    }
    let length = to - from;
    let step = match &wanted.step {
        None => STEPS.into_iter().find(|step| (length - 1).div_ceil(*step) <= USUAL_POINTS),
        Some(text) => {
            let time = parse_duration(text).map_err(|error| refuse(&format!("`step`: {error}")))?;
            let minutes = u32::try_from(time.as_secs() / 60).unwrap_or(u32::MAX);
            let whole = minutes > 0 && time == Duration::from_mins(u64::from(minutes));
            Some(minutes)
                .filter(|_| whole)
                .ok_or_else(|| refuse("`step`: expected whole minutes, such as 5m or 1h"))?
                .into()
        }
    };
    let step = step.unwrap_or_else(|| length.div_ceil(USUAL_POINTS).next_multiple_of(DAY));
    if (length - 1).div_ceil(step) > POINTS {
        return Err(refuse(&format!(
            "`step`: there would be more than {POINTS} points; take a longer step or less time"
        )));
    }
    Ok(Question { from, to, step, integration: wanted.integration.clone(), endpoint: wanted.endpoint.clone() })
}

fn shown(parts: &Parts, answer: &Answer, previous: Option<&Answer>) -> Value {
    let mut shown = span(answer);
    let integration = |(id, total): (&std::sync::Arc<str>, &Total)| json!({ "integration": id, "counts": counts(total), "quota": quota(parts, id) });
    let series = answer.series.iter().map(|(series, total)| {
        json!({ "integration": series.integration, "endpoint": series.endpoint, "counts": counts(total) })
    });
    let more = json!({
        "integrations": answer.integrations.iter().map(integration).collect::<Vec<_>>(),
        "series": series.collect::<Vec<_>>(),
        "previous": previous.map(span),
        "kept_seconds": parts.activity.usage().retain().as_secs(),
    });
    if let (Some(shown), Value::Object(more)) = (shown.as_object_mut(), more) {
        shown.extend(more);
    }
    shown
}

fn span(answer: &Answer) -> Value {
    let at = |minute: u32| beginning(minute).to_string();
    let point = |(place, point): (u32, &Option<Total>)| {
        let from = answer.from.saturating_add(place.saturating_mul(answer.step));
        json!({ "at": at(from), "until": at(from.saturating_add(answer.step)), "counts": point.as_ref().map(counts) })
    };
    json!({
        "from": at(answer.from),
        "to": at(answer.to),
        "step_seconds": u64::from(answer.step) * 60,
        "points": (0..).zip(&answer.points).map(point).collect::<Vec<_>>(),
        "total": counts(&answer.total),
    })
}

/// Counts as they are shown: quantiles in milliseconds, null where there are too few calls for them.
fn counts(total: &Total) -> Value {
    let (counts, times) = (&total.counts, &total.times);
    json!({
        "requests": counts.requests,
        "errors": counts.errors,
        "cacheable": counts.cacheable,
        "saved": counts.saved,
        "retries": counts.retries,
        "sent_bytes": counts.sent_bytes,
        "received_bytes": counts.received_bytes,
        "timed": times.count(),
        "p50_ms": times.quantile(50),
        "p95_ms": times.quantile(95),
        "p99_ms": times.quantile(99),
    })
}

/// What the service of an integration is known to have left for us.
fn quota(parts: &Parts, id: &str) -> Value {
    let generation = parts.live.load();
    let Some(integration) = generation.integration(id).filter(|integration| integration.api.is_some()) else {
        return json!([]);
    };
    let row = |count: &Count| {
        json!({
            "limit": count.limit,
            "connection": Some(&count.connection).filter(|name| !name.is_empty()),
            "left": count.told.left,
            "of": count.told.limit,
            "resets_in_seconds": count.told.resets_in.map(|time| time.as_secs()),
            "held_seconds": count.told.hold.as_secs(),
        })
    };
    let counts = parts.outbound.policy(&generation, integration).counts();
    counts.iter().take(QUOTAS).map(row).collect()
}

/// The most counts of a service that are shown, those with the least left.
const QUOTAS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(from: Option<&str>, to: Option<&str>, step: Option<&str>) -> Option<(u32, u32, u32)> {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let wanted = Wanted { from: text(from), to: text(to), step: text(step), ..Wanted::default() };
        let read = question(&wanted, beginning(100_000).after(Duration::from_secs(30))).ok()?;
        Some((100_001 - read.from, 100_001 - read.to, read.step))
    }

    #[test]
    fn times_are_whole_minutes_and_points_as_many_as_people_can_see() {
        assert_eq!(asked(None, None, None), Some((1_441, 0, 15)));
        assert_eq!(asked(Some("1h"), None, None), Some((61, 0, 1)));
        assert_eq!(asked(Some("7d"), None, None).map(|read| read.2), Some(120));
        assert_eq!(asked(Some("30d"), None, None).map(|read| read.2), Some(360));
        assert_eq!(asked(Some("60d"), None, None).map(|read| read.2), Some(720));
        assert_eq!(asked(Some("2h"), Some("1h"), Some("5m")), Some((121, 60, 5)));
    }

    #[test]
    fn what_cannot_be_answered_is_refused() {
        assert_eq!(asked(Some("1h"), Some("2h"), None), None);
        assert_eq!(asked(None, None, Some("90s")), None);
        assert_eq!(asked(None, None, Some("0s")), None);
        assert_eq!(asked(None, None, Some("1m")), None, "1,441 points are too many");
    }
}
