//! The audit log: who did what, newest first, and whether its chain is whole.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::shell::Shell;
use crate::admin::Parts;
use crate::admin::api::audit::{Only, Order, Row, Wanted, checked, page};
use crate::admin::api::query::{Asked, Named};
use crate::admin::refusal::Refused;
use crate::respond::Refusal;

/// The most entries of the log that one screen looks at.
const READ: usize = 10_000;
/// The newest entries that the overview looks for changes in.
const RECENT: usize = 1_000;
/// How many changes the overview shows.
const CHANGES: usize = 5;

/// The entries that fit the filters, newest first unless the filters say otherwise.
pub async fn list(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let wanted = Wanted { order: wanted.order.or(Some(Order::Newest)), ..wanted };
    let page = page(&parts, &wanted, READ).await?;
    let broken: Vec<_> = page.rows.iter().filter(|row| !row.chained).map(|row| row.sequence).collect();
    let view = json!({ "broken": broken, "rows": page.rows, "next": page.next });
    shell.page("audit.html", "Audit log", view).await
}

/// One entry, by its number.
pub async fn show(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Named(sequence): Named<u64>,
) -> Result<Response, Refused> {
    let wanted = Wanted { from: Some(sequence), limit: Some(1), ..Wanted::default() };
    let page = page(&parts, &wanted, 1).await?;
    let unknown = || Refused::new(Refusal::NotFound, &format!("the audit log has no entry {sequence}"));
    let row = page.rows.first().filter(|row| row.sequence == sequence).ok_or_else(unknown)?;
    let detail = if row.detail.is_null() { None } else { serde_json::to_string_pretty(&row.detail).ok() };
    let title = format!("Entry {sequence} of the audit log");
    shell.page("audit_entry.html", &title, json!({ "row": row, "detail": detail, "next": page.next })).await
}

/// Whether the chain is whole.
pub async fn check(State(parts): State<Arc<Parts>>, shell: Shell) -> Result<Response, Refused> {
    let found = checked(&parts).await?;
    shell.page("audit_check.html", "Check of the audit log", json!({ "found": found })).await
}

/// The newest changes, for the overview.
///
/// # Errors
/// When the log cannot be read.
pub async fn changes(parts: &Parts) -> Result<Vec<Row>, Refused> {
    let only = Some(Only::Changes);
    let wanted = Wanted { order: Some(Order::Newest), only, limit: Some(CHANGES), ..Wanted::default() };
    Ok(page(parts, &wanted, RECENT).await?.rows)
}
