//! The admin door: metrics, health and the API for people and scripts.
//!
//! [`guard`] says who may ask, [`sign_in`] who someone is, [`api`] has a resource a file, [`serve`] owns
//! connections; the page is a room of its own. Every error is a problem document made by `respond`. Nothing here
//! changes a definition file that is there, and only installing one writes another; what is changed is in the audit log
//! first. Called by `app` and `page`.

pub mod api;
mod entry;
pub mod guard;
pub mod readiness;
pub mod refusal;
pub mod serve;
pub mod sign_in;

pub use entry::{By, Entered, Source};

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};

use crate::activity::Activity;
use crate::base::clock::{Clock, Timestamp};
use crate::connection::Connections;
use crate::connection::connect::Connect;
use crate::connection::flow::TokenCalls;
use crate::definition::history::History;
use crate::definition::live::Live;
use crate::definition::plan::gateway::{DoorName, Gateway, Listen};
use crate::definition::render::Report;
use crate::outbound::Outbound;
use crate::respond::Refusal;
use crate::secrets::SecretStore;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::webhook::managed::{Managed, Sample};
use crate::webhook::refused::RefusedList;
use readiness::Readiness;
use refusal::Refused;
use sign_in::SignIn;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What the door is made of.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The program's metrics.
    pub metrics: Arc<Metrics>,
    /// The newest calls.
    pub activity: Arc<Activity>,
    /// Webhooks that could not be verified.
    pub refused: Arc<RefusedList>,
    /// The managed webhook endpoints.
    pub webhooks: Arc<Managed>,
    /// What sends sample events to them.
    pub samples: Arc<dyn Sample>,
    /// What became of the newest of those.
    pub tried: Arc<api::webhooks::Tried>,
    /// Which connections there are.
    pub connections: Arc<Connections>,
    /// The secret store, where the settings name one.
    pub secrets: Option<Arc<SecretStore>>,
    /// How accounts are connected.
    pub connect: Arc<Connect>,
    /// The calls of signing in, which have the registrations of applications.
    pub tokens: Arc<TokenCalls>,
    /// The way out, for tests and token calls that a person asks for.
    pub outbound: Arc<Outbound>,
    /// Who is signed in.
    pub sign_in: Arc<SignIn>,
    /// Whether the program serves.
    pub readiness: Arc<Readiness>,
    /// What reads the files again.
    pub reload: Arc<dyn Reload>,
    /// Dead deliveries that are tried again, many at once.
    pub replays: Arc<api::replays::Replays>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where the door really listens.
    pub listen: Listen,
}

/// Reads the files again on demand.
#[async_trait]
pub trait Reload: Send + Sync + 'static {
    /// Looks at every file now, and puts what changed into force. Returns after the swap.
    async fn reload(&self) -> Reloaded;

    /// What was found when the files were last read, with the texts for excerpts.
    fn report(&self) -> Report;

    /// What was in force before.
    fn history(&self) -> Arc<History>;

    /// Whether a variable has a value that references get.
    fn has_variable(&self, name: &str) -> bool;

    /// Writes a new definition file where the deployment has its own. Waits for the disk.
    ///
    /// # Errors
    /// When there is no such directory, it cannot be written, or has a file of this name.
    fn add_file(&self, name: &str, text: &str) -> std::io::Result<std::path::PathBuf>;

    /// Since when the files cannot be read because whatever they are on does not answer.
    fn stalled(&self) -> Option<Timestamp>;
}

/// What a reload did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// A new generation is in force, and every file counts.
    Applied,
    /// Nothing had changed.
    Unchanged,
    /// At least one file has errors; the others are in force.
    Rejected,
    /// The files were not read in time; what they say counts when they are.
    Stalled,
}

/// The door's routes, guarded, with those of the page. The addresses may begin with `admin.url`'s path or not.
pub fn router(parts: Arc<Parts>, page: Router<Arc<Parts>>) -> Router {
    let routes = api::routes(&parts)
        .merge(page)
        .fallback(|| async { Refused::new(Refusal::NotFound, "there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Refused::new(Refusal::MethodNotAllowed, "try another method") })
        .layer(middleware::from_fn_with_state(Arc::clone(&parts), admit))
        .with_state(Arc::clone(&parts));
    // What changes the path must stand before the routes, and a layer of theirs stands behind them.
    Router::new().fallback_service(routes).layer(middleware::from_fn_with_state(parts, entry::below_base_path))
}

/// What every answer of the door says to browsers: that it is what it is called, that pages of other sites may not load it,
/// and that no page may show it in a frame. A page of ours says more itself.
pub async fn kept_from_other_sites(mut response: Response) -> Response {
    const OF_ALL: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in OF_ALL {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Where people reach the page, without a slash at the end; `None` for a Unix socket that nothing is said of.
pub fn page_address(gateway: &Gateway, listen: &Listen) -> Option<String> {
    if let Some(url) = &gateway.admin.url {
        return Some(url.as_str().trim_end_matches('/').to_owned());
    }
    let scheme = if gateway.fixed.tls.contains(&DoorName::Admin) { "https" } else { "http" };
    match listen {
        Listen::Tcp(address) => Some(format!("{scheme}://{address}")),
        Listen::Unix(..) => None,
    }
}

/// What every request meets: the guard, the deadline, the count.
async fn admit(State(parts): State<Arc<Parts>>, request: Request, next: Next) -> Response {
    let response = match entry::enter(&parts, request).await {
        Err(refused) => refused.into_response(),
        Ok(mut request) => {
            DefaultBodyLimit::max(entry::most_bytes(&request, &parts.live.load().gateway)).apply(&mut request);
            match tokio::time::timeout(DEADLINE, next.run(request)).await {
                Ok(response) => response,
                Err(_elapsed) => Refused::new(Refusal::Unavailable, "the answer took longer than 30 s").into_response(),
            }
        }
    };
    parts.metrics.http_requests.with_label_values(&["admin", "other", response.status().as_str()]).inc();
    if let Some(code) = response.headers().get(crate::respond::ERROR_HEADER).and_then(|code| code.to_str().ok()) {
        parts.metrics.http_refusals.with_label_values(&["admin", code]).inc();
    }
    response
}
