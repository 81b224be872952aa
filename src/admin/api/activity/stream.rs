//! `/api/activity/stream`: what is wanted, as it happens, by server-sent events.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use std::sync::Arc;
use std::time::Duration;

use super::{Wanted, describe, within};
use crate::activity::entry::Entry;
use crate::activity::stream;
use crate::admin::Parts;
use crate::admin::api::Shared;
use crate::admin::api::query::{Asked, Named};
use crate::admin::entry::{Entered, lasting};
use crate::admin::refusal::Refused;
use crate::base::id::{ActivityId, ConnectionId};
use crate::respond::Refusal;

/// The header in which a browser tells the last event it has seen.
const LAST: HeaderName = HeaderName::from_static("last-event-id");
/// When someone should come again who found no room.
const PAUSE: Duration = Duration::from_secs(5);

/// Entries as JSON, an event each.
#[utoipa::path(get, path = "/api/activity/stream", tag = "activity", params(Wanted, LastEvent),
    responses((status = 200, body = String, content_type = "text/event-stream",
        description = "Server-sent events: the id of each is an entry's, its data the entry as JSON; \
            one without data tells the place alone")))]
pub async fn live(
    State(parts): Shared,
    Extension(entered): Extension<Entered>,
    head: HeaderMap,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    open(&parts, (&entered, &head), &wanted, as_json)
}

/// The same of one connection, by its id.
#[utoipa::path(get, path = "/api/integrations/{id}/logs/stream", operation_id = "stream_of_connection", tag = "activity",
    params(("id" = ConnectionId, Path, description = "The connection"), Wanted, LastEvent),
    responses((status = 200, body = String, content_type = "text/event-stream",
        description = "Server-sent events: the id of each is an entry's, its data the entry as JSON; \
            one without data tells the place alone"),
        (status = 404, description = "connection_unknown"), (status = 503, description = "connection_unusable")))]
pub async fn of_connection(
    State(parts): Shared,
    Extension(entered): Extension<Entered>,
    head: HeaderMap,
    Named(id): Named<ConnectionId>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let wanted = within(&parts, id, wanted).await?;
    open(&parts, (&entered, &head), &wanted, as_json)
}

/// Where a browser goes on.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "it describes a header that is read by its name")]
struct LastEvent {
    /// The id of the last event that was seen; what came after it is sent first.
    #[param(rename = "Last-Event-ID")]
    last_event_id: Option<ActivityId>,
}

fn as_json(entry: &Entry) -> String {
    serde_json::to_string(&describe(entry)).unwrap_or_default()
}

/// A stream of what is wanted, each entry written by `render`. It begins after the entry that `Last-Event-ID` or `after`
/// tells, or with what happens next, and ends soon after whoever asked may not see it any more.
///
/// # Errors
/// When a parameter is not right, or too many look already.
pub fn open(
    parts: &Arc<Parts>,
    (entered, head): (&Entered, &HeaderMap),
    wanted: &Wanted,
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
    let may_look = Box::new(lasting(parts, entered, head));
    let wanted = stream::Wanted { filter, after: last, render: Box::new(render), may_look };
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
