//! Configuration: what is in force, and what is wrong with what is not.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::shell::Shell;
use crate::admin::api::config;
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};

/// What is in force.
pub async fn show(State(parts): State<Arc<Parts>>, shell: Shell) -> Result<Response, Refused> {
    shell.page("configuration.html", "Configuration", config::describe(&parts)).await
}

/// Reads the files again.
pub async fn reload(State(parts): State<Arc<Parts>>, By(by): By, shell: Shell) -> Result<Response, Refused> {
    let came = config::read_again(&parts, &by).await?;
    Ok(shell.done("/configuration", came))
}
