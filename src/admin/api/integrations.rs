//! `/api/integrations`: what is loaded.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Shared;
use crate::definition::plan::webhook::Verify;
use crate::definition::plan::{Auth, Integration};

/// Every loaded integration by id.
pub async fn list(State(parts): Shared) -> Json<Value> {
    let generation = parts.live.load();
    let mut integrations: Vec<_> = generation.integrations.values().collect();
    integrations.sort_by(|a, b| a.id.cmp(&b.id));
    Json(integrations.into_iter().map(|integration| describe(integration)).collect())
}

fn describe(integration: &Integration) -> Value {
    let auth = match &integration.auth {
        Auth::None => "none".to_owned(),
        Auth::ApiKey { .. } => "api_key".to_owned(),
        Auth::Basic => "basic".to_owned(),
        Auth::OAuth2(_) => "oauth2".to_owned(),
        Auth::OAuth1(_) => "oauth1".to_owned(),
        Auth::Jwt(_) => "jwt".to_owned(),
        Auth::SigV4(_) => "sigv4".to_owned(),
        Auth::Login(_) => "login".to_owned(),
        Auth::Mtls => "mtls".to_owned(),
    };
    let endpoints = integration.api.as_ref().map(|api| api.endpoints.as_slice()).unwrap_or_default();
    let webhook = integration.webhook.as_ref().map(|webhook| {
        let verify = match &webhook.verify {
            Verify::Hmac(_) => "hmac".to_owned(),
            Verify::Token(_) => "token".to_owned(),
            Verify::Basic { .. } => "basic".to_owned(),
            Verify::NotYet(part) => part.to_string(),
        };
        json!({
            "path": format!("/webhooks/{}", integration.id),
            "verify": verify,
            "secrets": webhook.secrets.len(),
            "events": webhook.events,
        })
    });
    json!({
        "id": integration.id,
        "title": integration.title,
        "fingerprint": integration.fingerprint.to_string(),
        "auth": auth,
        "endpoints": endpoints.iter().map(|endpoint| &endpoint.id).collect::<Vec<_>>(),
        "connections": integration.connections.len(),
        "webhook": webhook,
        "rules": integration.rules.iter().map(|rule| &rule.id).collect::<Vec<_>>(),
    })
}
