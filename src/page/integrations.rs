//! Integrations: the marketplace of what is installed, broken and available, and what one of them can do.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Form, State};
use axum::response::Response;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::shell::Shell;
use super::webhooks;
use crate::admin::api::connections::{self, Wanted as Which};
use crate::admin::api::marketplace::{Standing, Wanted, one, shelf};
use crate::admin::api::query::{Asked, Named};
use crate::admin::api::{breaker, install, integrations as loaded, ratings};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::definition::catalogue;
use crate::respond::Refusal;

type Shared = State<Arc<Parts>>;

/// What a logo's own document may do: be seen.
const LOGO_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox";

/// A definition that counts as it is.
const SCAFFOLD: &str = include_str!("scaffold.yaml");

/// The marketplace.
pub async fn list(State(parts): Shared, shell: Shell, Asked(wanted): Asked<Wanted>) -> Result<Response, Refused> {
    let view = json!({ "shelf": shelf(&parts, &wanted).await?, "scaffold": SCAFFOLD });
    shell.page("integrations.html", "Integrations", view).await
}

/// One entry.
pub async fn show(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
) -> Result<Response, Refused> {
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}`"));
    let row = one(&parts, &id).await?.ok_or_else(unknown)?;
    let title = row.name.clone();
    let in_force = parts.live.load().integration(&id).is_some();
    let rated = ratings::describe(&parts, &id).await?;
    let own = rated.ratings.iter().find(|row| row.by == *by).cloned();
    let mut view = json!({ "row": row, "public_url": public_url(&parts), "rated": rated, "own": own });
    if let Some(view) = view.as_object_mut() {
        if in_force {
            let wanted = Which { integration: Some(id.clone()), ..Which::default() };
            view.insert("one".to_owned(), loaded::one(&parts, &id)?);
            view.insert("connections".to_owned(), json!(connections::rows(&parts, &wanted).await?));
            view.insert("refusals".to_owned(), json!(webhooks::refusals(&parts, &id, |_| true)));
            // One without an API has no circuits.
            view.insert("breaker".to_owned(), json!(breaker::conditions(&parts, &id).ok()));
        } else if row.state == Standing::Available {
            view.insert("entry".to_owned(), entry(&parts, &id)?);
        }
    }
    shell.page("integration.html", &title, view).await
}

/// Where services reach the public door, without a slash at the end.
fn public_url(parts: &Parts) -> String {
    parts.live.load().gateway.public_url.as_str().trim_end_matches('/').to_owned()
}

/// What the catalogue says of an entry, and what it takes to install it.
fn entry(parts: &Parts, id: &str) -> Result<Value, Refused> {
    let Some(document) = catalogue::entry(id).map(catalogue::Entry::document) else { return Ok(Value::Null) };
    let listing = catalogue::Listing::of(&document);
    let scopes = document.value.pointer("/auth/oauth2/scopes");
    Ok(json!({ "listing": listing, "install": install::plan(parts, id)?, "scopes": scopes }))
}

/// Writes the file that installs an entry.
pub async fn install(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
) -> Result<Response, Refused> {
    let written = install::install(&parts, &by, &id).await?;
    let in_force = parts.live.load().integration(&id).is_some() && written.result != "stalled";
    Ok(shell.done(&format!("/integrations/{id}"), if in_force { "installed" } else { "not_in_force" }))
}

/// The form of a rating, with the session's word beside it.
#[derive(Debug, Deserialize)]
pub struct Rating {
    stars: u8,
    comment: Option<String>,
}

/// Keeps a rating of who is signed in.
pub async fn rate(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
    Form(filled): Form<Rating>,
) -> Result<Response, Refused> {
    let given = ratings::Given { stars: filled.stars, comment: filled.comment };
    ratings::keep(&parts, &by, &id, given).await?;
    Ok(shell.done(&format!("/integrations/{id}"), "rated"))
}

/// Takes the rating of who is signed in back.
pub async fn take_rating_back(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
) -> Result<Response, Refused> {
    ratings::take_back(&parts, &by, &id).await?;
    Ok(shell.done(&format!("/integrations/{id}"), "rating_removed"))
}

/// The logo that a definition gives.
pub async fn logo(State(parts): Shared, Named(id): Named<String>) -> Result<Response, Refused> {
    let generation = parts.live.load();
    let logo = generation.integration(&id).and_then(|integration| integration.about.logo.clone());
    let logo = logo.ok_or_else(|| Refused::new(Refusal::NotFound, "the definition gives no logo"))?;
    let mut response = Response::new(Body::from(logo.to_string()));
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CONTENT_SECURITY_POLICY, LOGO_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "private, max-age=60"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    Ok(response)
}

/// Holds calls to a service back.
pub async fn hold(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
) -> Result<Response, Refused> {
    breaker::hold(&parts, &by, &id).await?;
    Ok(shell.done(&format!("/integrations/{id}"), "held"))
}

/// Lets calls to a service go again.
pub async fn release(
    State(parts): Shared,
    By(by): By,
    shell: Shell,
    Named(id): Named<String>,
) -> Result<Response, Refused> {
    breaker::release(&parts, &by, &id).await?;
    Ok(shell.done(&format!("/integrations/{id}"), "released"))
}
