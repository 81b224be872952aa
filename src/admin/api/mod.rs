//! The API, a resource a file.
//!
//! Lists are bare arrays; where there are more rows, `Link: <…>; rel="next"` says how to go on
//! (RFC 8288). Times are RFC 3339 in UTC. Unknown query parameters are refused, so that a filter with a
//! slip in its name does not silently select everything.

pub mod accounts;
pub mod activity;
pub mod audit;
pub mod breaker;
pub mod config;
pub mod connect_links;
pub mod connections;
pub mod deliveries;
pub mod events;
mod health;
pub mod install;
pub mod integrations;
mod keys;
pub mod marketplace;
mod parameters;
pub mod query;
pub mod ratings;
pub mod replays;
mod registrations;
mod sign_in_links;
mod transfer;
pub mod usage;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post, put};

use super::Parts;
use super::entry::for_api;

/// What handlers share.
type Shared = axum::extract::State<Arc<Parts>>;

/// Every route of the API, and those of metrics and health, which nobody has to sign in for.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let known = middleware::from_fn_with_state(Arc::clone(parts), for_api);
    guarded()
        .route_layer(known)
        .route("/metrics", get(health::metrics))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
}

fn guarded() -> Router<Arc<Parts>> {
    Router::new()
        .route("/api/config", get(config::show))
        .route("/api/config/diff", get(config::diff))
        .route("/api/reload", post(config::reload))
        .route("/api/integrations", get(integrations::list))
        .route("/api/integrations/marketplace", get(marketplace::list))
        .route("/api/sign-in-links", post(sign_in_links::make))
        .route("/api/keys", get(keys::show))
        .route("/api/keys/check", post(keys::check))
        .route("/api/keys/rotate", post(keys::rotate))
        .route("/api/integrations/test", post(accounts::test))
        .route("/api/integrations/save", post(accounts::save))
        .route("/api/integrations/revocations", get(accounts::revocations))
        .route("/api/connections", get(connections::list))
        .route("/api/integrations/connections", get(connections::list))
        .route("/api/integrations/connections/{id}", get(connections::show).delete(accounts::remove))
        .route("/api/integrations/connections/{id}/pause", post(connections::pause))
        .route("/api/integrations/connections/{id}/resume", post(connections::resume))
        .route("/api/integrations/connections/{id}/refresh", post(connections::refresh))
        .route("/api/integrations/connections/{id}/test", post(connections::test))
        .route("/api/integrations/{id}/breaker", get(breaker::show))
        .route("/api/integrations/{id}/breaker/open", post(breaker::open))
        .route("/api/integrations/{id}/breaker/close", post(breaker::close))
        .route("/api/integrations/{id}/ratings", get(ratings::show))
        .route("/api/integrations/{id}/rating", put(ratings::give).delete(ratings::forget))
        .route("/api/integrations/{id}/install", get(install::show).post(install::write))
        .route("/api/registrations", get(registrations::list))
        .route("/api/integrations/{id}/registration", post(registrations::make).delete(registrations::forget))
        .route("/api/export", get(transfer::export).post(transfer::export_sealed))
        .route("/api/import", post(transfer::import).layer(DefaultBodyLimit::max(transfer::MAX_IMPORT)))
        .route("/api/connect-links", post(connect_links::make))
        .route("/api/connect-devices", post(connect_links::device))
        .route("/api/connect-links/{result}", get(connect_links::show))
        .route("/api/events", get(events::list))
        .route("/api/events/{id}", get(events::show))
        .route("/api/events/{id}/replay", post(events::replay))
        .route("/api/deliveries", get(deliveries::list))
        .route("/api/deliveries/replay", post(deliveries::replay_all))
        .route("/api/deliveries/{id}/replay", post(deliveries::replay))
        .route("/api/replays", get(replays::list).post(replays::plan))
        .route("/api/replays/{id}", get(replays::show))
        .route("/api/replays/{id}/run", post(replays::run))
        .route("/api/replays/{id}/cancel", post(replays::cancel))
        .route("/api/integrations/{id}/webhooks", get(webhooks::of_connection).post(webhooks::create))
        .route("/api/webhooks", get(webhooks::list))
        .route("/api/webhooks/refused", get(webhooks::refused))
        .route("/api/webhooks/{id}", get(webhooks::show).patch(webhooks::change).delete(webhooks::delete))
        .route("/api/webhooks/{id}/rotate", post(webhooks::rotate))
        .route("/api/webhooks/{id}/reveal", post(webhooks::reveal))
        .route("/api/webhooks/{id}/test", post(webhooks::test))
        .route("/api/activity", get(activity::list))
        .route("/api/activity/stream", get(activity::stream::live))
        .route("/api/activity/export.csv", get(activity::export::csv))
        .route("/api/activity/export.ndjson", get(activity::export::ndjson))
        .route("/api/activity/{id}", get(activity::show))
        .route("/api/integrations/{id}/logs", get(activity::of_connection))
        .route("/api/integrations/{id}/logs/stream", get(activity::stream::of_connection))
        .route("/api/usage", get(usage::show))
        .route("/api/audit", get(audit::list))
        .route("/api/audit/check", get(audit::check))
}
