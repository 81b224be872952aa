//! `/api/integrations`: what is loaded.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shared;
use crate::admin::Parts;
use crate::admin::refusal::Refused;
use crate::definition::live::Generation;
use crate::definition::plan::api::{Api, Endpoint};
use crate::definition::plan::gateway::KeySource;
use crate::definition::plan::policy::{Limit, Scope};
use crate::definition::plan::request::Target;
use crate::definition::plan::webhook::Verify;
use crate::definition::plan::{Auth, Input, Integration, NotYet, oauth2};
use crate::respond::Refusal;

/// An integration in force.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = LoadedIntegration)]
pub struct Loaded {
    /// Its id.
    pub id: Arc<str>,
    /// What people call the service.
    pub title: String,
    /// Stands for its content.
    pub fingerprint: String,
    /// The grammar's word for how connections sign in.
    pub auth: &'static str,
    /// The names of its endpoints.
    pub endpoints: Vec<Arc<str>>,
    /// How many connections files declare.
    pub connections: usize,
    /// Its webhook.
    pub webhook: Option<LoadedWebhook>,
    /// The names of its rules.
    pub rules: Vec<Arc<str>>,
}

/// The webhook of an integration.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LoadedWebhook {
    /// Its path at the public door.
    pub path: String,
    /// The grammar's word for how it is verified.
    pub verify: String,
    /// Whether this version takes what comes; else each is refused, and `verify` says why.
    pub taken: bool,
    /// How many secrets there are to verify it with.
    pub secrets: usize,
    /// The types of events that the definition lists.
    pub events: Vec<String>,
}

/// Every loaded integration by id.
#[utoipa::path(get, path = "/api/integrations", tag = "integrations", responses((status = 200, body = [Loaded])))]
pub async fn list(State(parts): Shared) -> Json<Vec<Loaded>> {
    let generation = parts.live.load();
    let mut integrations: Vec<_> = generation.integrations.values().collect();
    integrations.sort_by(|a, b| a.id.cmp(&b.id));
    Json(integrations.into_iter().map(|integration| describe(integration)).collect())
}

/// The grammar's word for how connections sign in.
pub fn auth_word(auth: &Auth) -> &'static str {
    match auth {
        Auth::None => "none",
        Auth::ApiKey { .. } => "api_key",
        Auth::Basic => "basic",
        Auth::OAuth2(_) => "oauth2",
        Auth::OAuth1(_) => "oauth1",
        Auth::Jwt(_) => "jwt",
        Auth::SigV4(_) => "sigv4",
        Auth::Login(_) => "login",
        Auth::Mtls => "mtls",
    }
}

fn describe(integration: &Integration) -> Loaded {
    let endpoints = integration.api.as_ref().map(|api| api.endpoints.as_slice()).unwrap_or_default();
    let webhook = integration.webhook.as_ref().map(|webhook| LoadedWebhook {
        path: format!("/webhooks/{}", integration.id),
        verify: match &webhook.verify {
            Verify::Hmac(_) => "hmac".to_owned(),
            Verify::Token(_) => "token".to_owned(),
            Verify::Basic { .. } => "basic".to_owned(),
            Verify::NotYet(part) => part.to_string(),
        },
        taken: untaken(integration).is_none(),
        secrets: webhook.secrets.len(),
        events: webhook.events.clone(),
    });
    Loaded {
        id: Arc::clone(&integration.id),
        title: integration.title.clone(),
        fingerprint: integration.fingerprint.to_string(),
        auth: auth_word(&integration.auth),
        endpoints: endpoints.iter().map(|endpoint| endpoint.id.clone()).collect(),
        connections: integration.connections.len(),
        webhook,
        rules: integration.rules.iter().map(|rule| rule.id.clone()).collect(),
    }
}

/// What is shown of one loaded integration.
pub fn one(parts: &Parts, id: &str) -> Result<Value, Refused> {
    let generation = parts.live.load();
    let unknown = || Refused::new(Refusal::NotFound, &format!("there is no integration `{id}`"));
    let integration = generation.integration(id).ok_or_else(unknown)?;
    let mut shown = json!(describe(integration));
    if let Some(map) = shown.as_object_mut() {
        let api = integration.api.as_ref();
        map.insert("endpoints".to_owned(), api.map_or_else(|| json!([]), endpoints));
        map.insert("limits".to_owned(), api.map_or_else(|| json!([]), limits));
        map.insert("hosts".to_owned(), json!(api.map(hosts).unwrap_or_default()));
        map.insert("scopes".to_owned(), scopes(&integration.auth));
        map.insert("inputs".to_owned(), inputs(integration));
        map.insert("connect".to_owned(), Value::from(way_of_connecting(&integration.auth)));
        let all: Vec<_> = missing(integration).into_iter().chain(missing_key(&generation)).collect();
        map.insert("missing".to_owned(), json!(all));
    }
    Ok(shown)
}

fn endpoints(api: &Api) -> Value {
    let row = |endpoint: &Endpoint| {
        let target = match &endpoint.request.target {
            Target::Path { path, .. } => path.source(),
            Target::Url(url) => url.source(),
        };
        json!({
            "id": endpoint.id,
            "method": endpoint.request.method.as_str(),
            "target": target,
            "scopes": endpoint.scopes,
        })
    };
    api.endpoints.iter().map(row).collect()
}

fn limits(api: &Api) -> Value {
    let row = |limit: &Limit| {
        let per = match limit.per {
            Scope::Integration => "integration",
            Scope::Connection => "connection",
            Scope::Caller => "caller",
            Scope::Endpoint => "endpoint",
        };
        json!({
            "name": limit.name,
            "rate": limit.rate.to_string(),
            "burst": limit.burst,
            "per": per,
            "wait_seconds": limit.wait.as_secs(),
        })
    };
    api.policy.limits.iter().map(row).collect()
}

fn hosts(api: &Api) -> Vec<String> {
    api.hosts.iter().map(ToString::to_string).collect()
}

fn scopes(auth: &Auth) -> Value {
    let Auth::OAuth2(oauth) = auth else { return json!([]) };
    let row = |scope: &oauth2::Scope| json!({ "name": scope.name, "grants": scope.grants, "default": scope.default });
    oauth.scopes.iter().map(row).collect()
}

fn inputs(integration: &Integration) -> Value {
    let row = |input: &Input| {
        json!({
            "name": input.name,
            "title": input.title,
            "help": input.help,
            "choices": input.choices,
            "optional": input.optional,
            "default": input.default,
            "secret": input.secret,
        })
    };
    integration.inputs.iter().map(row).collect()
}

/// How a connection is made: `link` (a person consents or enters what it needs in a browser), `form` (a credential is entered) or `file`
/// (a definition declares it).
fn way_of_connecting(auth: &Auth) -> &'static str {
    match auth {
        Auth::ApiKey { .. } | Auth::Basic | Auth::None => "form",
        Auth::OAuth2(_) | Auth::OAuth1(_) | Auth::Login(_) | Auth::SigV4(_) => "link",
        Auth::Jwt(assertion) if assertion.key.is_none() => "link",
        Auth::Jwt(_) | Auth::Mtls => "file",
    }
}

/// Something that a deployment has yet to give before everything of an integration works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What it is.
    pub what: &'static str,
    /// Where it goes.
    pub r#where: String,
    /// The lines that give it from variables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lines: Option<String>,
    /// The path on the public door that the service has to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enter: Option<String>,
}

/// What all integrations lack where there is no master key.
pub fn missing_key(generation: &Generation) -> Option<Missing> {
    let (what, place) = ("A master key; without one no credential can be kept", "secrets.key in trunkline.yaml");
    let missing = Missing { what, r#where: place.to_owned(), lines: None, enter: None };
    (generation.gateway.fixed.key == KeySource::Missing).then_some(missing)
}

/// What the deployment has yet to give an integration.
pub fn missing(integration: &Integration) -> Vec<Missing> {
    let id = &integration.id;
    let variable = |what: &str| super::install::variable(id, what);
    let client = |kind: &str| {
        let [name, secret] = ["CLIENT_ID", "CLIENT_SECRET"].map(variable);
        format!("auth:\n  {kind}:\n    client: {{ id: \"${{env:{name}}}\", secret: \"${{env:{secret}}}\" }}\n")
    };
    let callback = || Some(format!("/api/auth/callback/{id}"));
    let of_client = match &integration.auth {
        // One that registers itself has none of its own.
        Auth::OAuth2(oauth) if oauth.grant.needs_client() && oauth.client.is_none() && oauth.registration.is_none() => {
            Some(Missing {
                what: "The application's client id and secret at the service",
                r#where: "auth.oauth2.client".to_owned(),
                lines: Some(client("oauth2")),
                enter: callback(),
            })
        }
        Auth::OAuth1(oauth) if oauth.client.is_none() => Some(Missing {
            what: "The application's key and secret at the service",
            r#where: "auth.oauth1.client".to_owned(),
            lines: Some(client("oauth1")),
            enter: callback(),
        }),
        _ => None,
    };
    of_client.into_iter().chain(of_webhook(integration)).collect()
}

/// What a webhook lacks. A secret would not help one that this version does not take.
fn of_webhook(integration: &Integration) -> Option<Missing> {
    let webhook = integration.webhook.as_ref()?;
    if let Some(part) = untaken(integration) {
        let what =
            "A version that takes these webhooks; this one refuses each, because it does not run a part of them yet";
        return Some(Missing { what, r#where: part.part.clone(), lines: None, enter: None });
    }
    let variable = super::install::variable(&integration.id, "WEBHOOK_SECRET");
    webhook.secrets.is_empty().then(|| Missing {
        what: "A secret that proves webhooks; without one every webhook is refused",
        r#where: "webhook.secrets".to_owned(),
        lines: Some(format!("webhook:\n  secrets: [\"${{env:{variable}}}\"]\n")),
        enter: Some(format!("/webhooks/{}", integration.id)),
    })
}

/// The part of an integration's webhook that this version does not run, where it has one: no webhook is taken then.
pub fn untaken(integration: &Integration) -> Option<&NotYet> {
    match &integration.webhook.as_ref()?.verify {
        Verify::NotYet(part) => Some(part),
        _ => None,
    }
}
