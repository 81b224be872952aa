//! `/api/activity/stream`: what is wanted, as it happens, by server-sent events.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::time::Duration;

use super::{Wanted, describe, within};
use crate::activity::entry::Entry;
use crate::activity::stream;
use crate::admin::Parts;
use crate::admin::api::Shared;
use crate::admin::api::query::{Asked, Named};
use crate::admin::refusal::Refused;
use crate::base::id::{ActivityId, ConnectionId};
use crate::respond::Refusal;

/// The header in which a browser tells the last event it has seen.
const LAST: HeaderName = HeaderName::from_static("last-event-id");
/// When someone should come again who found no room.
const PAUSE: Duration = Duration::from_secs(5);

/// Entries as JSON, an event each.
pub async fn live(State(parts): Shared, head: HeaderMap, Asked(wanted): Asked<Wanted>) -> Result<Response, Refused> {
    open(&parts, (&head, &wanted), |entry| describe(entry).to_string())
}

/// The same of one connection, by its id.
pub async fn of_connection(
    State(parts): Shared,
    head: HeaderMap,
    Named(id): Named<ConnectionId>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let wanted = within(&parts, id, wanted).await?;
    open(&parts, (&head, &wanted), |entry| describe(entry).to_string())
}

/// A stream of what is wanted, each entry written by `render`. It begins after the entry that `Last-Event-ID` or `after`
/// tells, or with what happens next.
///
/// # Errors
/// When a parameter is not right, or too many look already.
pub fn open(
    parts: &Parts,
    (head, wanted): (&HeaderMap, &Wanted),
    render: impl Fn(&Entry) -> String + Send + Sync + 'static,
) -> Result<Response, Refused> {
    let refuse = |detail: &str| Refused::new(Refusal::InvalidInput, detail);
    if wanted.limit.is_some() {
        return Err(refuse("`limit`: a stream has no end"));
    }
    let last = match head.get(&LAST).map(|value| value.to_str().unwrap_or_default()) {
        None | Some("") => wanted.after,
        Some(text) => Some(text.parse::<ActivityId>().map_err(|error| refuse(&format!("`Last-Event-ID`: {error}")))?),
    };
    let filter = wanted.filter(parts.clock.now())?;
    let wanted = stream::Wanted { filter, after: last, render: Box::new(render) };
    let Some(events) = stream::open(&parts.activity, wanted) else {
        let detail = "as many look at the live activity as `activity.viewers` allows";
        return Err(Refusal::RateLimited.answer_after(detail, PAUSE).into());
    };
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // A proxy that collects answers would hold events back.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}
