//! Connections: which accounts there are, how they fare, why one does not work, and what to do about it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::activity::integrations;
use super::shell::Shell;
use crate::admin::api::connections::{Listed, Row, Wanted, one, renew, rows, set_use, try_again};
use crate::admin::api::query::{Asked, Named, ROWS, part};
use crate::admin::api::{accounts, integrations as loaded};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::base::id::ConnectionId;
use crate::connection::{Status, Use};

type Shared = State<Arc<Parts>>;

/// The connections that fit the filters, those that do not work first.
pub async fn list(State(parts): Shared, shell: Shell, Asked(listed): Asked<Listed>) -> Result<Response, Refused> {
    let Listed { integration, status, q, limit, after } = listed;
    let mut found = rows(&parts, &Wanted { integration, status: None, q }).await?;
    let all = found.len();
    let count = |status: Status| found.iter().filter(|row| row.facts.status == status).count();
    let counts = BROKEN_FIRST.map(|status| json!({ "status": status.word(), "count": count(status) }));
    found.retain(|row| status.is_none_or(|status| row.facts.status == status));
    found.sort_by_cached_key(place);
    let fitting = found.len();
    let (shown, next) = part(found, (after.as_deref(), limit.or(Some(ROWS))), place)?;
    let generation = parts.live.load();
    let missing: Vec<_> =
        shown.iter().map(|row| &row.integration).filter(|id| generation.integration(id).is_none()).collect();
    let view = json!({
        "missing": missing,
        "rows": shown,
        "counts": counts,
        "next": next,
        "fitting": fitting,
        "all": all,
        "integrations": integrations(&parts),
    });
    shell.page("connections.html", "Connections", view).await
}

/// The order in which a person has to look at connections.
const BROKEN_FIRST: [Status; 5] =
    [Status::NeedsReconnect, Status::Error, Status::Warning, Status::Paused, Status::Active];

fn urgency(row: &Row) -> usize {
    BROKEN_FIRST.iter().position(|status| row.facts.status == *status).unwrap_or(BROKEN_FIRST.len())
}

/// Where one stands among all, as text that orders as they do.
fn place(row: &Row) -> String {
    format!("{} {} {}", urgency(row), row.integration, row.name)
}

/// One connection.
pub async fn show(State(parts): Shared, shell: Shell, Named(id): Named<ConnectionId>) -> Result<Response, Refused> {
    let connection = one(&parts, id).await?;
    let (integration, title) = of(&parts, &connection.row)?;
    shell.page("connection.html", &title, json!({ "connection": connection, "integration": integration })).await
}

fn of(parts: &Parts, connection: &Row) -> Result<(Value, String), Refused> {
    let id = &connection.integration;
    // Of one whose integration is not in force there is little to show, and it can be removed.
    let missing = parts.live.load().integration(id).is_none();
    let integration =
        if missing { json!({ "title": id, "connect": "file", "missing": true }) } else { loaded::one(parts, id)? };
    let title = format!("{} / {}", integration["title"].as_str().unwrap_or_default(), connection.name);
    Ok((integration, title))
}

/// Makes the test request.
pub async fn test(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    try_again(&parts, &by, id).await?;
    Ok(shell.done(&format!("/connections/{id}"), "tested"))
}

/// Renews the token.
pub async fn refresh(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    renew(&parts, &by, id).await?;
    Ok(shell.done(&format!("/connections/{id}"), "renewed"))
}

/// Puts a connection out of use.
pub async fn pause(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    set_use(&parts, &by, id, Use::Paused).await?;
    Ok(shell.done(&format!("/connections/{id}"), "paused"))
}

/// Lets a connection be used again.
pub async fn resume(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    set_use(&parts, &by, id, Use::Resumed).await?;
    Ok(shell.done(&format!("/connections/{id}"), "resumed"))
}

/// What removing a connection would do.
pub async fn consequences(
    State(parts): Shared,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    let connection = one(&parts, id).await?;
    let (integration, title) = of(&parts, &connection.row)?;
    let view = json!({ "connection": connection, "integration": integration });
    shell.page("remove.html", &format!("Remove {title}"), view).await
}

/// Removes a connection.
pub async fn remove(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<ConnectionId>,
) -> Result<Response, Refused> {
    accounts::take_away(&parts, &by, id).await?;
    Ok(shell.done("/connections", "removed"))
}
