//! The admin page: what people see of the gateway, rendered here from what the API answers.
//!
//! Each screen is a file: it asks the functions that the API's routes ask, and gives what they answer to a template.
//! There is no second way to the data and none to change it. [`shell`] is what stands around every screen,
//! [`render`] the templates and what they may load. Everything works without scripts; htmx and our own few lines make
//! it quicker. Called by `app`.

mod activity;
mod assets;
mod audit;
mod charts;
mod configuration;
mod connections;
mod draft;
mod events;
mod integrations;
mod overview;
mod payload;
mod render;
mod shell;
mod sign_in;
mod usage;
mod webhooks;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::admin::Parts;

pub use shell::for_people;

/// The page's routes: those for people who are signed in, and what it takes to sign in.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    screens()
        .route_layer(middleware::from_fn_with_state(Arc::clone(parts), sign_in::wanted))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-in/link", get(sign_in::by_link).head(sign_in::not_by_head))
        .route("/assets/{name}", get(assets::serve))
}

fn screens() -> Router<Arc<Parts>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/integrations", get(integrations::list))
        .route("/integrations/{id}", get(integrations::show))
        .route("/integrations/{id}/rating", post(integrations::rate))
        .route("/integrations/{id}/rating/remove", post(integrations::take_rating_back))
        .route("/integrations/{id}/install", post(integrations::install))
        .route("/integrations/{id}/logo.svg", get(integrations::logo))
        .route("/integrations/{id}/breaker/open", post(integrations::hold))
        .route("/integrations/{id}/breaker/close", post(integrations::release))
        .route("/integrations/{id}/connect", get(draft::show).post(draft::send))
        .route("/connect-links/{result}", get(draft::outcome))
        .route("/connections", get(connections::list))
        .route("/connections/{id}", get(connections::show))
        .route("/connections/{id}/test", post(connections::test))
        .route("/connections/{id}/refresh", post(connections::refresh))
        .route("/connections/{id}/pause", post(connections::pause))
        .route("/connections/{id}/resume", post(connections::resume))
        .route("/connections/{id}/remove", get(connections::consequences).post(connections::remove))
        .route("/webhooks", get(webhooks::list))
        .route("/webhooks/new", get(webhooks::draft).post(webhooks::create))
        .route("/webhooks/{id}", get(webhooks::show))
        .route("/webhooks/{id}/enable", post(webhooks::enable))
        .route("/webhooks/{id}/disable", post(webhooks::disable))
        .route("/webhooks/{id}/types", post(webhooks::types))
        .route("/webhooks/{id}/rotate", get(webhooks::back).post(webhooks::rotate))
        .route("/webhooks/{id}/reveal", get(webhooks::back).post(webhooks::reveal))
        .route("/webhooks/{id}/test", get(webhooks::back).post(webhooks::test))
        .route("/webhooks/{id}/delete", get(webhooks::consequences).post(webhooks::delete))
        .route("/events", get(events::list))
        .route("/events/{id}", get(events::show))
        .route("/events/{id}/replay", post(events::replay))
        .route("/dead-letters", get(events::dead))
        .route("/dead-letters/replay", post(events::plan))
        .route("/replays", get(events::replays))
        .route("/replays/{id}", get(events::progress))
        .route("/replays/{id}/run", post(events::run))
        .route("/replays/{id}/cancel", post(events::cancel))
        .route("/deliveries/{id}/replay", post(events::replay_delivery))
        .route("/activity", get(activity::list))
        .route("/activity/live", get(activity::live))
        .route("/activity/stream", get(activity::rows))
        .route("/activity/{id}", get(activity::show))
        .route("/usage", get(usage::show))
        .route("/audit", get(audit::list))
        .route("/audit/check", get(audit::check))
        .route("/audit/{sequence}", get(audit::show))
        .route("/configuration", get(configuration::show))
        .route("/configuration/diff", get(configuration::diff))
        .route("/configuration/reload", post(configuration::reload))
}
