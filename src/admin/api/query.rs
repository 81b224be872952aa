//! Query parameters and path segments, refused with a problem document when they are wrong.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;
use utoipa::IntoParams;

use super::parameters;
use crate::admin::refusal::Refused;
use crate::base::clock::Timestamp;
use crate::base::id::{EventId, WebhookId};
use crate::base::units::parse_duration;
use crate::respond::Refusal;
use crate::store::model::{EventFilter, EventState, PageRequest};

/// The query's parameters.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Head, _: &S) -> Result<Self, Refused> {
        let query = head.uri.query().unwrap_or_default();
        // What changes something takes what is written, so that a filter that somebody forgot to fill selects nothing.
        let selects = matches!(head.method, Method::GET | Method::HEAD) && head.uri.path().starts_with("/api/");
        let read = if selects { parameters::filters(query) } else { parameters::read(query) };
        read.map(Self).map_err(|fault| Refused::new(Refusal::InvalidInput, &fault))
    }
}

/// A body of JSON. What is wrong with it is told by where it is and never by what it says: it may hold
/// secrets.
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Sent<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        parse(&body_of(request, state).await?).map(Self)
    }
}

/// A body of JSON that need not be there: without one everything is as when nobody says.
pub struct MaySend<T>(pub T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for MaySend<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        let body = body_of(request, state).await?;
        if body.is_empty() { Ok(Self(T::default())) } else { parse(&body).map(Self) }
    }
}

async fn body_of<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Refused> {
    if !says_json(request.headers()) {
        return Err(Refused::new(Refusal::UnsupportedMediaType, "the body must be `application/json`"));
    }
    Bytes::from_request(request, state).await.map_err(|rejected| {
        let refusal = match rejected.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::BodyTooLarge,
            _ => Refusal::MalformedRequest,
        };
        Refused::new(refusal, "the body could not be read to its end, or is larger than this path takes")
    })
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            Category::Data => "is not of the form that this path takes",
            Category::Io | Category::Syntax | Category::Eof => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        Refused::new(Refusal::InvalidInput, &format!("the body {what}: line {line}, column {column}"))
    })
}

/// Whether a body is JSON by its type, or has none.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return true };
    let essence = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// An id in the path.
pub struct Named<T>(pub T);

impl<T: FromStr, S: Send + Sync> FromRequestParts<S> for Named<T>
where
    T::Err: std::fmt::Display,
{
    type Rejection = Refused;

    async fn from_request_parts(head: &mut Head, state: &S) -> Result<Self, Refused> {
        let refuse = |detail: String| Refused::new(Refusal::InvalidInput, &detail);
        let segment = Path::<String>::from_request_parts(head, state).await;
        let text = segment.map_err(|_| refuse("a part of the path is not UTF-8".to_owned()))?;
        text.parse().map(Self).map_err(|error: T::Err| refuse(format!("`{}`: {error}", *text)))
    }
}

/// Which events are meant.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Only this integration's.
    integration: Option<String>,
    /// Only those that came to an endpoint of the connection of this name.
    connection: Option<String>,
    /// Only those that came to this managed endpoint.
    webhook: Option<WebhookId>,
    /// Only those that stand so.
    state: Option<EventState>,
    /// Only of this type; `*` stands for any text.
    r#type: Option<String>,
    /// Only those that the sender calls so.
    delivery_id: Option<String>,
    /// Only those that arrived then or later: a moment, or a duration back.
    since: Option<String>,
    /// Only those that arrived before then.
    until: Option<String>,
    /// Only those that hold this text in type, ids, query, headers or body, whatever the case of its letters. One search
    /// reads the newest 2,000 events, or 32 MiB of their bodies.
    q: Option<String>,
    /// At most so many: 1 to 1,000, or 50 when nobody says.
    limit: Option<usize>,
    /// Only those older than this one.
    after: Option<EventId>,
}

/// Rows of a page when nobody says.
pub const ROWS: usize = 50;
/// The most rows of a page.
const MAX_ROWS: usize = 1_000;

impl EventQuery {
    /// The filter; times are read against `now`.
    ///
    /// # Errors
    /// When a time is not one.
    pub fn filter(&self, now: Timestamp) -> Result<EventFilter, Refused> {
        let time = |text: &Option<String>| text.as_deref().map(|text| moment(text, now)).transpose();
        Ok(EventFilter {
            integration: self.integration.clone(),
            connection: self.connection.clone(),
            webhook: self.webhook,
            state: self.state,
            event_type: self.r#type.clone(),
            delivery_id: self.delivery_id.clone(),
            since: time(&self.since)?,
            until: time(&self.until)?,
        })
    }

    /// The text that the events are to hold.
    pub fn text(&self) -> Option<&str> {
        self.q.as_deref().filter(|text| !text.is_empty())
    }

    /// The page.
    ///
    /// # Errors
    /// When the limit is out of bounds.
    pub fn page(&self) -> Result<PageRequest, Refused> {
        Ok(PageRequest { after: self.after, limit: rows(self.limit)? })
    }

    /// The same, of dead events only.
    #[must_use]
    pub fn of_the_dead(self) -> Self {
        Self { state: Some(EventState::Dead), ..self }
    }

    /// The same, with pages of so many rows.
    #[must_use]
    pub fn limited(self, limit: usize) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same, of events older than this one.
    #[must_use]
    pub fn after(self, event: EventId) -> Self {
        Self { after: Some(event), ..self }
    }

    /// What it selects by, for people.
    pub fn shown(&self) -> Value {
        let webhook = self.webhook.map(|webhook| webhook.to_string());
        let texts = [
            ("integration", &self.integration),
            ("connection", &self.connection),
            ("webhook", &webhook),
            ("type", &self.r#type),
            ("delivery_id", &self.delivery_id),
            ("since", &self.since),
            ("until", &self.until),
            ("q", &self.q),
        ];
        texts.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::from(text.clone()?)))).collect()
    }

    /// The state that was asked for.
    pub fn state(&self) -> Option<EventState> {
        self.state
    }
}

/// How many rows are wanted.
///
/// # Errors
/// When it is none, or too many.
pub fn rows(limit: Option<usize>) -> Result<usize, Refused> {
    match limit.unwrap_or(ROWS) {
        limit @ 1..=MAX_ROWS => Ok(limit),
        other => Err(Refused::new(Refusal::InvalidInput, &format!("limit: {other} is not between 1 and {MAX_ROWS}"))),
    }
}

/// A part of a list whose rows stand in order of their places, as text: those beyond a place, at most as many as wanted;
/// and the place to go on from, where there are more. Without a limit it has all of them.
///
/// # Errors
/// When the limit is out of bounds.
pub fn part<T>(
    mut list: Vec<T>,
    (after, limit): (Option<&str>, Option<usize>),
    place: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), Refused> {
    let limit = limit.map(|limit| rows(Some(limit))).transpose()?;
    if let Some(after) = after {
        list.retain(|row| place(row).as_str() > after);
    }
    let Some(limit) = limit.filter(|limit| *limit < list.len()) else { return Ok((list, None)) };
    list.truncate(limit);
    let next = list.last().map(place);
    Ok((list, next))
}

/// A moment: RFC 3339 in UTC, or a duration that lies that far back.
///
/// # Errors
/// When it is neither.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Refused> {
    if let Ok(back) = parse_duration(text) {
        return Ok(now.before(back));
    }
    let detail = || format!("`{text}` is not a time: expected 2026-01-31T10:00:00Z, or a duration back such as 2h");
    Timestamp::parse_rfc3339(text).ok_or_else(|| Refused::new(Refusal::InvalidInput, &detail()))
}

/// The header that names the next page: this request with another `after`.
pub fn next_page(uri: &http::Uri, next: Option<EventId>) -> HeaderMap {
    link_next(uri, "after", next.map(|next| next.to_string()))
}

/// The header that names the next page: this request with another value of the parameter that says where
/// to begin.
pub fn link_next(uri: &http::Uri, parameter: &str, next: Option<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(next) = next else { return headers };
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let given = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(given.filter(|(name, _)| name != parameter)).append_pair(parameter, &next);
    let link = format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish());
    if let Ok(value) = HeaderValue::from_str(&link) {
        headers.insert(header::LINK, value);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_or_lie_back() {
        let now = Timestamp::from_seconds(10_000);
        let read = |text| moment(text, now).map(Timestamp::seconds).ok();
        assert_eq!(read("1h"), Some(6_400));
        assert_eq!(read("1970-01-01T00:00:05Z"), Some(5));
        assert_eq!(read("yesterday"), None);
    }

    #[test]
    fn parts_of_a_list_follow_each_other_also_when_a_row_goes() {
        let list = || vec!["a", "b", "c", "d"];
        let of = |list, after, limit| part(list, (after, limit), |row: &&str| (*row).to_owned()).ok();
        assert_eq!(of(list(), None, None), Some((list(), None)));
        assert_eq!(of(list(), None, Some(2)), Some((vec!["a", "b"], Some("b".to_owned()))));
        assert_eq!(of(vec!["a", "c", "d"], Some("b"), Some(2)), Some((vec!["c", "d"], None)));
        assert_eq!((of(list(), Some("z"), Some(1)), of(list(), None, Some(0))), (Some((Vec::new(), None)), None));
    }

    #[test]
    fn the_next_page_keeps_the_filter() {
        let uri = "/api/events?type=a%20b&after=evt_00000000000000000000000000".parse().expect("a target");
        let link = next_page(&uri, Some(EventId::from_u128(1)));
        assert_eq!(link[header::LINK], "</api/events?type=a+b&after=evt_00000000000000000000000001>; rel=\"next\"");
        assert!(next_page(&uri, None).is_empty());
    }
}
