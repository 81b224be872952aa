//! Which entries are wanted: the parameters of every address that shows some of them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::activity::entry::{Direction, Kind};
use crate::activity::filter::{Filter, statuses};
use crate::admin::api::query::moment;
use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::base::id::ActivityId;
use crate::base::units::parse_duration;

/// Which entries.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only this connection's, by its name.
    pub connection: Option<String>,
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only those that went this way.
    pub direction: Option<Direction>,
    /// Only this endpoint's.
    pub endpoint: Option<String>,
    /// Only those whose path begins so.
    pub path: Option<String>,
    /// Only this application's.
    pub caller: Option<String>,
    /// Only those answered so: `404`, or `5xx`.
    #[param(value_type = Option<String>)]
    pub status: Option<Statuses>,
    /// Only those with this error code.
    pub error: Option<String>,
    /// Only those of this trace: 32 hexadecimal digits.
    pub trace: Option<String>,
    /// Only those that began then or later: a moment, or a duration back.
    pub since: Option<String>,
    /// Only those that began before then.
    pub until: Option<String>,
    /// Only those that took at least so long.
    #[param(value_type = Option<String>)]
    pub min_duration: Option<Time>,
    /// Only those that took at most so long.
    #[param(value_type = Option<String>)]
    pub max_duration: Option<Time>,
    /// Only those with this text in path, address, error, causes, or one of their names and ids; upper and lower case
    /// are the same.
    pub q: Option<String>,
    /// Only those that carried this text in a header or a body, as far as that is kept; upper and lower case are the same.
    pub body: Option<String>,
    /// At most so many: 1 to 1,000, or 50 when nobody says.
    pub limit: Option<usize>,
    /// Only those older than this one.
    pub after: Option<ActivityId>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ActivityOutcome)]
pub enum Outcome {
    /// It was answered, and not with an error.
    Success,
    /// It was answered with an error, or not at all.
    Error,
}

/// A status, or a class of them.
#[derive(Debug, Clone, Copy)]
pub struct Statuses((u16, u16));

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let read = statuses(&text).map(Self);
        read.ok_or_else(|| serde::de::Error::custom("expected a status such as 404, or a class such as 5xx"))
    }
}

/// A duration.
#[derive(Debug, Clone, Copy)]
pub struct Time(Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Wanted {
    /// The filter; times are read against `now`.
    ///
    /// # Errors
    /// When a time is not one.
    pub fn filter(&self, now: Timestamp) -> Result<Filter, Refused> {
        let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
        let millis = |time: Time| u64::try_from(time.0.as_millis()).unwrap_or(u64::MAX);
        Ok(Filter {
            integration: self.integration.clone(),
            connection: self.connection.clone(),
            kind: self.kind,
            direction: self.direction,
            failed: self.outcome.map(|outcome| outcome == Outcome::Error),
            endpoint: self.endpoint.clone(),
            path: self.path.clone(),
            caller: self.caller.clone(),
            status: self.status.map(|statuses| statuses.0),
            error: self.error.clone(),
            trace: self.trace.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
            min_ms: self.min_duration.map(millis),
            max_ms: self.max_duration.map(millis),
            text: self.q.clone(),
            body: self.body.clone(),
        })
    }
}
