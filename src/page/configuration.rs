//! Configuration: what is in force, and what is wrong with what is not.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;

use super::shell::Shell;
use crate::admin::api::config::{self, OfFile};
use crate::admin::api::query::Asked;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};

/// What is in force.
pub async fn show(State(parts): State<Arc<Parts>>, shell: Shell) -> Result<Response, Refused> {
    shell.page("configuration.html", "Configuration", json!(config::describe(&parts))).await
}

/// How a file differs from what it was.
pub async fn diff(
    State(parts): State<Arc<Parts>>,
    shell: Shell,
    Asked(wanted): Asked<OfFile>,
) -> Result<Response, Refused> {
    let view = config::difference(&parts, &wanted.file)?;
    shell.page("configuration_diff.html", "What changed in a file", json!(view)).await
}

/// Reads the files again.
pub async fn reload(State(parts): State<Arc<Parts>>, By(by): By, shell: Shell) -> Result<Response, Refused> {
    let came = config::read_again(&parts, &by).await?;
    Ok(shell.done("/configuration", came))
}
