//! The API, a resource a file.
//!
//! Lists are bare arrays; where there are more rows, `Link: <…>; rel="next"` says how to go on
//! (RFC 8288). Times are RFC 3339 in UTC. Unknown query parameters are refused, so that a filter with a
//! slip in its name does not silently select everything.

pub mod accounts;
pub mod activity;
pub mod audit;
mod bodies;
pub mod breaker;
mod conditional;
pub mod config;
pub mod connect_links;
mod connect_pages;
pub mod connections;
pub mod deliveries;
pub mod document;
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
mod repeated;
pub mod search;
mod sign_in_links;
mod transfer;
pub mod usage;
pub mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Parts;
use super::entry::for_api;
use conditional::Conditions;
use repeated::Answers;

/// What handlers share.
type Shared = axum::extract::State<Arc<Parts>>;

/// Every route of the API, and those of metrics and health, which nobody has to sign in for.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let known = middleware::from_fn_with_state(Arc::clone(parts), for_api);
    let (guarded, table) = guarded().split_for_parts();
    let readable =
        table.paths.paths.iter().filter(|(_, item)| item.get.is_some()).map(|(path, _)| path.clone()).collect();
    let takers = bodies::takers(&table.paths);
    let conditions = Conditions::new(guarded.clone().with_state(Arc::clone(parts)), readable);
    let answers = Answers::new(Arc::clone(parts));
    guarded
        .route_layer(middleware::from_fn_with_state(Arc::new(conditions), conditional::judge))
        .route_layer(middleware::from_fn_with_state(Arc::new(answers), repeated::once))
        .route_layer(middleware::from_fn_with_state(Arc::new(takers), bodies::judge))
        .route_layer(known)
        .route("/metrics", get(health::metrics))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/healthz", get(health::readyz))
}

/// The one table of the API's routes: each handler says its method and path, and what it takes and answers. The router
/// and the document are both made of it.
fn guarded() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(document::show))
        .routes(routes!(config::show))
        .routes(routes!(config::diff))
        .routes(routes!(config::reload))
        .routes(routes!(sign_in_links::make))
        .routes(routes!(keys::show))
        .routes(routes!(keys::check))
        .routes(routes!(keys::rotate))
        .routes(routes!(transfer::export, transfer::export_sealed))
        .routes(routes!(transfer::import))
        .routes(routes!(audit::list))
        .routes(routes!(audit::check))
        .merge(of_integrations())
        .merge(of_connections())
        .merge(of_events())
        .merge(of_webhooks())
        .merge(of_activity())
}

fn of_integrations() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(integrations::list))
        .routes(routes!(marketplace::list))
        .routes(routes!(breaker::show))
        .routes(routes!(breaker::open))
        .routes(routes!(breaker::close))
        .routes(routes!(ratings::show))
        .routes(routes!(ratings::give, ratings::forget))
        .routes(routes!(install::show, install::write))
        .routes(routes!(registrations::list))
        .routes(routes!(registrations::make, registrations::forget))
}

fn of_connections() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(accounts::test))
        .routes(routes!(accounts::save))
        .routes(routes!(accounts::revocations))
        .routes(routes!(connections::all))
        .routes(routes!(connections::list))
        .routes(routes!(connections::show, accounts::remove))
        .routes(routes!(connections::pause))
        .routes(routes!(connections::resume))
        .routes(routes!(connections::refresh))
        .routes(routes!(connections::test))
        .routes(routes!(connect_links::make))
        .routes(routes!(connect_links::device))
        .routes(routes!(connect_links::show))
}

fn of_events() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(events::list))
        .routes(routes!(events::show))
        .routes(routes!(events::raw))
        .routes(routes!(events::replay))
        .routes(routes!(deliveries::list))
        .routes(routes!(deliveries::replay_all))
        .routes(routes!(deliveries::replay))
        .routes(routes!(replays::list, replays::plan))
        .routes(routes!(replays::show))
        .routes(routes!(replays::run))
        .routes(routes!(replays::cancel))
}

fn of_webhooks() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(webhooks::of_connection, webhooks::create))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::refused))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::delete))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::reveal))
        .routes(routes!(webhooks::test))
}

fn of_activity() -> OpenApiRouter<Arc<Parts>> {
    OpenApiRouter::new()
        .routes(routes!(activity::list))
        .routes(routes!(activity::stream::live))
        .routes(routes!(activity::export::csv))
        .routes(routes!(activity::export::ndjson))
        .routes(routes!(activity::show))
        .routes(routes!(activity::of_connection))
        .routes(routes!(activity::stream::of_connection))
        .routes(routes!(usage::show))
}
