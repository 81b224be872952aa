//! `/api/usage`: how much was called, how it ended and how long it took, by time, integration and endpoint; and what
//! services still let us call.

mod shown;

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Shared;
use super::query::{Asked, moment};
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::base::units::parse_duration;
use crate::respond::Refusal;
use crate::usage::ask::Question;
use crate::usage::minute;
use shown::Shown;

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
    responses((status = 200, body = Shown)))]
pub async fn show(State(parts): Shared, Asked(wanted): Asked<Wanted>) -> Result<Json<Shown>, Refused> {
    describe(&parts, &wanted).await.map(Json)
}

/// The answer.
///
/// # Errors
/// When a parameter is not right.
pub async fn describe(parts: &Parts, wanted: &Wanted) -> Result<Shown, Refused> {
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
    Ok(shown::shown(parts, &answer, previous.as_ref()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::moment as beginning;

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
