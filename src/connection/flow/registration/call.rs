//! The calls of a registration: to register (RFC 7591) and to take that back (RFC 7592 §2.3).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Map, Value as Json, json};

use super::record::Registered;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::flow::authorize::request;
use crate::connection::flow::codes;
use crate::connection::flow::issuer::literal;
use crate::connection::flow::scene::{Scene, misconfigured};
use crate::connection::flow::send::{self, Step};
use crate::connection::flow::{Parts, Stage};
use crate::connection::grant::{TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{ClientAuth, Grant, Registration};
use crate::definition::plan::request::{Body, Request};
use crate::request::Answer;
use crate::request::answer::plain_words;
use crate::template::{Text, Tree};

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest id that is believed.
const ID_MOST: usize = 2_048;

/// Registers the application. Tried once: what a second call makes is another application.
///
/// # Errors
/// When the service refuses, or its answer names no application.
pub(super) async fn register(
    parts: &Parts,
    scene: &mut Scene<'_>,
    (plan, endpoint): (&Registration, &Text),
    redirect_uri: &str,
) -> Result<Registered, TokenError> {
    let asked = Json::Object(metadata(scene, plan, redirect_uri)?);
    let body = Body::Json(Tree::Literal(asked));
    let request = Request { method: Method::POST, body, timeout: Some(TIMEOUT), ..request(endpoint, Vec::new()) };
    let received = sent(parts, scene, &request, plan.token.as_ref()).await?;
    let url = endpoint.render(&scene.context()).map_err(|error| misconfigured(format!("`registration`: {error}")))?;
    understand(scene, &Answer::of(received), (&url, redirect_uri), parts.clock.now())
}

/// What is told of the application (RFC 7591 §2): what follows from the definition, and over it what the
/// definition writes. What is written as null is left out.
fn metadata(scene: &Scene<'_>, plan: &Registration, redirect_uri: &str) -> Result<Map<String, Json>, TokenError> {
    let grants: &[&str] = match scene.oauth2.grant {
        Grant::AuthorizationCode => &["authorization_code", "refresh_token"],
        Grant::DeviceCode => &["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        Grant::ClientCredentials => &["client_credentials"],
        Grant::JwtBearer => &["urn:ietf:params:oauth:grant-type:jwt-bearer"],
        Grant::TokenExchange => &["urn:ietf:params:oauth:grant-type:token-exchange"],
    };
    let in_browser = scene.oauth2.grant == Grant::AuthorizationCode;
    let mut told = Map::new();
    told.insert("client_name".to_owned(), "Trunkline".into());
    told.insert("grant_types".to_owned(), json!(grants));
    told.insert("response_types".to_owned(), if in_browser { json!(["code"]) } else { json!([]) });
    told.insert("token_endpoint_auth_method".to_owned(), method_of(scene.oauth2.client_auth).into());
    if in_browser {
        told.insert("redirect_uris".to_owned(), json!([redirect_uri]));
    }
    let context = scene.context();
    for (name, tree) in &plan.metadata {
        let value = tree.render(&context);
        let value = value.map_err(|error| misconfigured(format!("`registration.metadata.{name}`: {error}")))?;
        told.insert(name.clone(), value);
    }
    told.retain(|_, value| !value.is_null());
    Ok(told)
}

const fn method_of(way: ClientAuth) -> &'static str {
    match way {
        ClientAuth::Form => "client_secret_post",
        ClientAuth::Basic | ClientAuth::BasicRaw => "client_secret_basic",
        ClientAuth::None => "none",
        ClientAuth::PrivateKeyJwt => "private_key_jwt",
    }
}

/// The way that a service's word for it means; the declared one where both send the same header.
pub(super) fn way_of(method: &str, declared: ClientAuth) -> Option<ClientAuth> {
    match method {
        "client_secret_post" => Some(ClientAuth::Form),
        "client_secret_basic" if declared == ClientAuth::BasicRaw => Some(ClientAuth::BasicRaw),
        "client_secret_basic" => Some(ClientAuth::Basic),
        "none" => Some(ClientAuth::None),
        "private_key_jwt" => Some(ClientAuth::PrivateKeyJwt),
        _ => None,
    }
}

async fn sent(
    parts: &Parts,
    scene: &mut Scene<'_>,
    request: &Request,
    token: Option<&Secret>,
) -> Result<crate::net::Received, TokenError> {
    let bearer = token.map(|token| bearer(scene, token)).transpose()?;
    let finish = |headers: &mut HeaderMap| {
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(bearer) = &bearer {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
    };
    send::send(parts, scene, Step { stage: Stage::Registration, request, finish: &finish }).await
}

fn bearer(scene: &mut Scene<'_>, token: &Secret) -> Result<HeaderValue, TokenError> {
    scene.secrets.add(token.expose());
    let value = Secret::new(format!("Bearer {}", token.expose()));
    let mut value =
        HeaderValue::from_str(value.expose()).map_err(|_| misconfigured("the registration's token fits no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn understand(
    scene: &mut Scene<'_>,
    answer: &Answer,
    (endpoint, redirect_uri): (&str, &str),
    now: Timestamp,
) -> Result<Registered, TokenError> {
    let field = |name: &str| answer.json().and_then(|json| json.get(name));
    let text = |name: &str| field(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    for secret in ["client_secret", "registration_access_token"] {
        scene.secrets.add(text(secret).unwrap_or_default());
    }
    if !(200..300).contains(&answer.status()) {
        return Err(refused(scene, answer, redirect_uri));
    }
    let unusable = |reason: &str| {
        let words = format!("the answer to the registration cannot be used: {reason}");
        let error = TokenError::new(TokenErrorKind::Passing, scene.secrets.redact(&words));
        TokenError { status: Some(answer.status()), ..error }
    };
    let usable = |text: &&str| text.len() <= ID_MOST && !text.contains(char::is_control);
    let id = text("client_id").filter(usable).ok_or_else(|| unusable("it has no `client_id` (RFC 7591 §3.2.1)"))?;
    let secret = text("client_secret");
    if secret.is_some_and(|secret| !usable(&secret)) {
        return Err(unusable("its `client_secret` has characters that no call can carry, or too many of them"));
    }
    let method = text("token_endpoint_auth_method");
    let way = match method {
        Some(method) => way_of(method, scene.oauth2.client_auth).ok_or_else(|| {
            let words = format!("the application is to prove itself by `{}`", plain_words(method));
            unusable(&format!("{words}, which is none of the ways of `client_auth`"))
        })?,
        None => scene.oauth2.client_auth,
    };
    if secret.is_none() && matches!(way, ClientAuth::Form | ClientAuth::Basic | ClientAuth::BasicRaw) {
        return Err(unusable("it has no `client_secret`; a service of public clients needs `client_auth: none`"));
    }
    if way == ClientAuth::PrivateKeyJwt && scene.oauth2.assertion.is_none() {
        return Err(unusable("the application is to sign assertions, and the definition has no `assertion`"));
    }
    // Zero means that it does not end (RFC 7591 §3.2.1); what is odd says nothing.
    let end = field("client_secret_expires_at").and_then(Json::as_u64).filter(|seconds| *seconds > 0);
    let secret_expires_at = end.filter(|_| secret.is_some()).map(Timestamp::from_seconds);
    if secret_expires_at.is_some_and(|end| end <= now) {
        return Err(unusable("its secret has ended already (`client_secret_expires_at`)"));
    }
    let management = text("registration_client_uri").filter(|url| is_same_place(url, endpoint));
    let token = management.and_then(|_| text("registration_access_token"));
    Ok(Registered {
        client_id: id.to_owned(),
        client_secret: secret.map(Secret::from),
        secret_expires_at,
        method: method.map(str::to_owned),
        management: management.filter(|_| token.is_some()).map(str::to_owned),
        management_token: token.map(Secret::from),
    })
}

/// A registration is managed where it was made: an answer names no other host to us.
fn is_same_place(url: &str, endpoint: &str) -> bool {
    let origin = |text: &str| url::Url::parse(text).ok().map(|url| url.origin());
    origin(url).is_some_and(|origin_of| Some(origin_of) == origin(endpoint)) && literal(url).is_ok()
}

/// What a refusal means (RFC 7591 §3.2.2), and what the service says of it.
fn refused(scene: &Scene<'_>, answer: &Answer, redirect_uri: &str) -> TokenError {
    let text = |name: &str| answer.json().and_then(|json| json.get(name)?.as_str()).map(plain_words);
    let (status, code) = (answer.status(), text("error"));
    let meaning = match (code.as_deref(), status) {
        (Some("invalid_redirect_uri"), _) => {
            format!("it does not take the redirect address `{redirect_uri}`, which follows from `public_url`")
        }
        (Some("invalid_client_metadata"), _) => {
            "it does not take something of what it was told: see `registration.metadata`, `grant` and `client_auth`"
                .to_owned()
        }
        (Some("invalid_software_statement" | "unapproved_software_statement"), _) => {
            "it does not take the software statement in `registration.metadata`".to_owned()
        }
        (_, 401 | 403) => {
            "it lets only applications register that have an initial access token: see `registration.token`".to_owned()
        }
        (_, 404 | 405) => "nothing registers applications at this address: see `registration.url`".to_owned(),
        _ => "it gives no reason that is known here".to_owned(),
    };
    let said = text("error_description").map(|words| format!("; it says: {words}")).unwrap_or_default();
    let words = scene.secrets.redact(&format!("the service does not register this application: {meaning}{said}"));
    let passing = status == 429 || status >= 500;
    let kind = if passing { TokenErrorKind::Passing } else { TokenErrorKind::Misconfigured };
    let code = code.map(|code| codes::told(&code, &scene.secrets));
    TokenError { code, status: Some(status), ..TokenError::new(kind, words) }
}

/// How a service took it that an application is to be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deleted {
    /// It has forgotten it, or did not know it.
    Yes,
    /// It does not do that.
    NotDone,
}

/// Has the service forget the application (RFC 7592 §2.3).
///
/// # Errors
/// When the service could not be asked, or cannot do it now.
pub(super) async fn delete(
    parts: &Parts,
    scene: &mut Scene<'_>,
    (url, token): (&str, &Secret),
) -> Result<Deleted, TokenError> {
    let request = Request { method: Method::DELETE, timeout: Some(TIMEOUT), ..request(&literal(url)?, Vec::new()) };
    let status = sent(parts, scene, &request, Some(token)).await?.status;
    match status.as_u16() {
        200..=299 | 401 | 404 | 410 => Ok(Deleted::Yes),
        status if status == 429 || status >= 500 => {
            let error = TokenError::new(TokenErrorKind::Passing, "the service cannot forget the application now");
            Err(TokenError { status: Some(status), ..error })
        }
        _ => Ok(Deleted::NotDone),
    }
}
