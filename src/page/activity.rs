//! Activity: the newest calls to services.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::shell::Shell;
use crate::admin::Parts;
use crate::admin::api::activity::{self, Outcome, Wanted, newest};
use crate::admin::api::query::Asked;
use crate::admin::refusal::Refused;

/// The newest calls that fit the filters.
pub async fn list(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<Wanted>,
) -> Result<Response, Refused> {
    let rows = newest(&parts, &wanted)?;
    let count = |outcome| activity::count(&parts, &Wanted { outcome, ..wanted.clone() });
    let counts = json!({
        "all": count(None),
        "success": count(Some(Outcome::Success)),
        "error": count(Some(Outcome::Error)),
    });
    let capacity = parts.activity.capacity();
    let view = json!({ "rows": rows, "counts": counts, "capacity": capacity, "integrations": integrations(&parts) });
    shell.page("activity.html", "Activity", view).await
}

/// The ids that a filter offers, in order.
pub fn integrations(parts: &Parts) -> Vec<Arc<str>> {
    let mut ids: Vec<_> = parts.live.load().integrations.keys().cloned().collect();
    ids.sort();
    ids
}
