//! Integrations: the marketplace of what is installed, broken and available, and what one of them can do.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::shell::Shell;
use crate::admin::api::connections::{self, Wanted as Which};
use crate::admin::api::marketplace::{Standing, Wanted, one, shelf};
use crate::admin::api::query::{Asked, Named};
use crate::admin::api::{breaker, integrations as loaded};
use crate::admin::refusal::Refused;
use crate::admin::{By, Parts};
use crate::definition::catalogue;
use crate::respond::Refusal;

type Shared = State<Arc<Parts>>;

/// What a logo's own document may do: be seen.
const LOGO_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// The marketplace.
pub async fn list(State(parts): Shared, shell: Shell, Asked(wanted): Asked<Wanted>) -> Result<Response, Refused> {
    let view = json!({ "shelf": shelf(&parts, &wanted).await? });
    shell.page("integrations.html", "Integrations", view).await
}

/// One entry.
pub async fn show(State(parts): Shared, shell: Shell, Named(id): Named<String>) -> Result<Response, Refused> {
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}`"));
    let row = one(&parts, &id).await?.ok_or_else(unknown)?;
    let title = row.name.clone();
    let in_force = parts.live.load().integration(&id).is_some();
    let mut view = json!({ "row": row, "public_url": public_url(&parts) });
    if let Some(view) = view.as_object_mut() {
        if in_force {
            let wanted = Which { integration: Some(id.clone()), ..Which::default() };
            view.insert("one".to_owned(), loaded::one(&parts, &id)?);
            view.insert("connections".to_owned(), Value::from(connections::rows(&parts, &wanted).await?));
            // One without an API has no circuits.
            view.insert("breaker".to_owned(), breaker::conditions(&parts, &id).unwrap_or_default());
        } else if row.state == Standing::Available {
            view.insert("entry".to_owned(), entry(&id));
        }
    }
    shell.page("integration.html", &title, view).await
}

/// Where services reach the public door, without a slash at the end.
fn public_url(parts: &Parts) -> String {
    parts.live.load().gateway.public_url.as_str().trim_end_matches('/').to_owned()
}

/// What the catalogue says of an entry, and the file that would install it.
fn entry(id: &str) -> Value {
    let Some(document) = catalogue::entry(id).map(catalogue::Entry::document) else { return Value::Null };
    let listing = catalogue::Listing::of(&document);
    let upper = id.to_uppercase().replace('-', "_");
    let client = format!("{{ id: \"${{env:{upper}_CLIENT_ID}}\", secret: \"${{env:{upper}_CLIENT_SECRET}}\" }}");
    let auth =
        if listing.auth == "oauth2" { format!("auth:\n  oauth2:\n    client: {client}\n") } else { String::new() };
    let webhook = format!("webhook:\n  secrets: [\"${{env:{upper}_WEBHOOK_SECRET}}\"]\n");
    let webhook = if listing.events.is_empty() { String::new() } else { webhook };
    let file = format!("trunkline: 1\nid: {id}\nextends: {id}\n{auth}{webhook}");
    json!({ "listing": listing, "file": file, "scopes": document.value.pointer("/auth/oauth2/scopes") })
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
