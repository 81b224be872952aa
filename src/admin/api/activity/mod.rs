//! `/api/activity`: what happened, by one filter for lists, counts, the live stream and exports.

pub mod export;
mod shown;
pub mod stream;
pub mod wanted;

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::{HeaderMap, Uri};

use super::Shared;
use super::connections;
use super::query::{Asked, Named, link_next, rows};
use crate::activity::entry::Entry;
use crate::activity::filter::Filter;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::base::id::{ActivityId, ConnectionId};
use crate::respond::Refusal;
pub use shown::{EntryShown, describe, describe_whole};
pub use wanted::{Outcome, Wanted};

/// The newest entries that are wanted, newest first.
#[utoipa::path(get, path = "/api/activity", tag = "activity", params(Wanted),
    responses((status = 200, body = [EntryShown])))]
pub async fn list(
    State(parts): Shared,
    uri: Uri,
    Asked(wanted): Asked<Wanted>,
) -> Result<(HeaderMap, Json<Vec<EntryShown>>), Refused> {
    let page = page(&parts, &wanted).await?;
    Ok((link_next(&uri, "after", page.next.map(|next| next.to_string())), Json(page.rows)))
}

/// What happened with one connection, newest first.
#[utoipa::path(get, path = "/api/integrations/{id}/logs", tag = "activity",
    params(("id" = ConnectionId, Path, description = "The connection"), Wanted),
    responses((status = 200, body = [EntryShown]), (status = 404, description = "connection_unknown"),
        (status = 503, description = "connection_unusable")))]
pub async fn of_connection(
    State(parts): Shared,
    Named(id): Named<ConnectionId>,
    uri: Uri,
    Asked(wanted): Asked<Wanted>,
) -> Result<(HeaderMap, Json<Vec<EntryShown>>), Refused> {
    let wanted = within(&parts, id, wanted).await?;
    list(State(parts), uri, Asked(wanted)).await
}

/// What is wanted, of this connection alone.
async fn within(parts: &Parts, id: ConnectionId, wanted: Wanted) -> Result<Wanted, Refused> {
    let head = connections::find(parts, id).await?;
    if wanted.integration.is_some() || wanted.connection.is_some() {
        let detail = "`integration` and `connection` are told by the path already";
        return Err(Refused::new(Refusal::InvalidInput, detail));
    }
    let (integration, connection) = (Some(head.integration), Some(head.name));
    Ok(Wanted { integration, connection, ..wanted })
}

/// One entry.
#[utoipa::path(get, path = "/api/activity/{id}", tag = "activity",
    params(("id" = ActivityId, Path, description = "The entry")),
    responses((status = 200, body = EntryShown), (status = 404, description = "not_found")))]
pub async fn show(State(parts): Shared, Named(id): Named<ActivityId>) -> Result<Json<EntryShown>, Refused> {
    Ok(Json(describe_whole(&*one(&parts, id)?)))
}

/// One entry.
///
/// # Errors
/// When there is none of this id, or none any more.
pub fn one(parts: &Parts, id: ActivityId) -> Result<Arc<Entry>, Refused> {
    parts.activity.snapshot().find(id).ok_or_else(|| {
        let help = "entries are kept as `activity` in the gateway file says";
        Refused::with_help(Refusal::NotFound, &format!("there is no entry `{id}`, or not any more"), help)
    })
}

/// A page of entries.
#[derive(Debug)]
pub struct Page {
    /// The entries, newest first.
    pub rows: Vec<EntryShown>,
    /// The last of them, where there are more.
    pub next: Option<ActivityId>,
    /// The newest entry of all when the page was made, whether it is wanted or not: what comes after it is new.
    pub newest: ActivityId,
}

/// The newest entries that are wanted, newest first.
///
/// # Errors
/// When a parameter is not right.
pub async fn page(parts: &Parts, wanted: &Wanted) -> Result<Page, Refused> {
    let (filter, limit, after) = (wanted.filter(parts.clock.now())?, rows(wanted.limit)?, wanted.after);
    let snapshot = parts.activity.snapshot();
    blocking(move || {
        let begin = after.unwrap_or(ActivityId::from_u64(u64::MAX));
        let mut found = snapshot.before(begin).filter(|entry| filter.selects(entry));
        let rows: Vec<_> = found.by_ref().take(limit).collect();
        let next = rows.last().map(|entry| entry.id).filter(|_| found.next().is_some());
        Page { rows: rows.into_iter().map(|entry| describe(entry)).collect(), next, newest: snapshot.last() }
    })
    .await
}

/// How many entries there are of each outcome, whatever outcome is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// All of them.
    pub all: usize,
    /// Those that did not fail.
    pub success: usize,
    /// Those that did.
    pub error: usize,
}

/// Counts the entries that are wanted.
///
/// # Errors
/// When a parameter is not right.
pub async fn count(parts: &Parts, wanted: &Wanted) -> Result<Counts, Refused> {
    let filter = Filter { failed: None, ..wanted.filter(parts.clock.now())? };
    let snapshot = parts.activity.snapshot();
    blocking(move || {
        let mut counts = Counts::default();
        for entry in snapshot.newest().filter(|entry| filter.selects(entry)) {
            counts.all += 1;
            *(if entry.has_failed() { &mut counts.error } else { &mut counts.success }) += 1;
        }
        counts
    })
    .await
}

/// Looks through many entries where that holds nobody else up.
async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Refused> {
    tokio::task::spawn_blocking(look).await.map_err(|error| {
        tracing::error!("the activity could not be looked through: {error}");
        Refused::new(Refusal::Internal, "the activity could not be looked through")
    })
}
