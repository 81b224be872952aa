//! What an issuer tells of itself (RFC 8414, OpenID Connect Discovery): the addresses that a definition
//! does not write.
//!
//! Metadata are fetched from the issuer by name over verified TLS, and believed only when they name that
//! very issuer. They are kept as long as the answer allows, within bounds; when they cannot be had again
//! the last ones go on for a day. What they name must be at the issuer's own origin or at a place that the definition
//! names, since the application's secret and people's tokens go there, and is dialled under the same guard as everything else.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderMap, Method, header};
use serde_json::Value as Json;
use tokio::sync::Mutex;
use url::Url;

use super::authorize::request;
use super::scene::{Scene, misconfigured};
use super::send::{self, Step};
use super::{Parts, Stage, TokenCalls};
use crate::base::clock::Timestamp;
use crate::connection::grant::{Account, TokenError, TokenErrorKind};
use crate::definition::plan::oauth2::{Authorize, DEFAULT_TOKEN, ParamsIn, TOKEN_TIMEOUT, TokenCall, TokenMap};
use crate::definition::plan::request::Request;
use crate::net::origin::{self, Origin};
use crate::net::{Base, Received};
use crate::request::Answer;
use crate::template::{Expr, Text};

/// How long metadata are kept when the answer does not say, and the bounds of what it may say.
const KEPT: Duration = Duration::from_hours(1);
const KEPT_LEAST: Duration = Duration::from_mins(5);
const KEPT_MOST: Duration = Duration::from_hours(24);
/// How long the last metadata go on when there are no new ones.
const STALE: Duration = Duration::from_hours(24);
/// The most issuers that are kept; when there are more all are fetched again.
const CAPACITY: usize = 4_096;
/// How long a fetch may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The names of addresses in metadata (RFC 8414 §2, RFC 8628 §4, RFC 9126 §5).
pub(super) const AUTHORIZE: &str = "authorization_endpoint";
pub(super) const TOKEN: &str = "token_endpoint";
pub(super) const REVOKE: &str = "revocation_endpoint";
pub(super) const DEVICE: &str = "device_authorization_endpoint";
pub(super) const PUSH: &str = "pushed_authorization_request_endpoint";

/// The addresses that an issuer tells.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pub authorize: Option<Authorize>,
    pub token: Option<TokenCall>,
    pub revoke: Option<TokenCall>,
    pub device: Option<Request>,
    /// Where the parameters of an authorization may be pushed (RFC 9126 §5).
    pub push: Option<Request>,
    /// Where applications register (RFC 7591).
    pub registration: Option<Text>,
    /// Whether the parameters of an authorization must be pushed.
    pub push_required: bool,
    iss_sent: bool,
    /// What is not used because of where it is, by its name in the metadata.
    elsewhere: Vec<(&'static str, String)>,
}

impl Endpoints {
    /// What there is to say of an address that cannot be used because of where it is; `None` where that is not why.
    pub fn untrusted(&self, name: &str) -> Option<TokenError> {
        let (name, place) = self.elsewhere.iter().find(|(known, _)| *known == name)?;
        Some(misconfigured(format!(
            "the issuer says that its `{name}` is at `{place}`, which is neither the issuer's own place nor one that the \
             definition names: add its host to `api.hosts` if that is right; it must be https where the issuer is"
        )))
    }
}

/// Who signs in people, and whether their answers say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The issuer, as the `iss` of callbacks names it (RFC 9207).
    pub id: String,
    /// Whether it says that every callback has `iss`, so that one without it is not from there.
    pub always_sent: bool,
}

/// The metadata that are known.
#[derive(Debug, Default)]
pub(super) struct Issuers(std::sync::Mutex<HashMap<Key, Arc<Mutex<Option<Known>>>>>);

/// Metadata are not shared between integrations: what may be dialled differs.
type Key = (Arc<str>, String);

/// What an issuer said. What of it may be used is judged anew each time: that depends on the definition and on the
/// account, which change.
#[derive(Debug, Clone)]
struct Known {
    metadata: Arc<Json>,
    until: Timestamp,
}

impl TokenCalls {
    /// The issuer of an account's service, where its definition names one. Its metadata are asked whether
    /// callbacks always name it; when they cannot be had that is not known, and not required.
    ///
    /// # Errors
    /// When the issuer's address cannot be made.
    pub async fn issuer(&self, account: Account<'_>) -> Result<Option<Issuer>, TokenError> {
        let scene = Scene::of(account)?;
        let Some(text) = &scene.oauth2.issuer else { return Ok(None) };
        let id = text.render(&scene.context()).map_err(|error| misconfigured(format!("`issuer`: {error}")))?;
        let always_sent = match self.endpoints(&scene).await {
            Ok(found) => found.is_some_and(|found| found.iss_sent),
            Err(error) => {
                tracing::warn!(integration = &*account.integration.id, error = %error, "the issuer's metadata are not known");
                false
            }
        };
        Ok(Some(Issuer { id, always_sent }))
    }

    /// What the issuer of a definition tells; `None` when the definition names none. One fetch at a time
    /// for each issuer.
    pub(super) async fn endpoints(&self, scene: &Scene<'_>) -> Result<Option<Endpoints>, TokenError> {
        let Some(text) = &scene.oauth2.issuer else { return Ok(None) };
        let issuer = text.render(&scene.context()).map_err(|error| misconfigured(format!("`issuer`: {error}")))?;
        let slot = self.issuers.slot((Arc::clone(&scene.account.integration.id), issuer.clone()));
        let mut known = slot.lock().await;
        let now = self.parts.clock.now();
        let base = place(scene, text)?;
        let metadata = match known.as_ref().filter(|known| now < known.until) {
            Some(known) => Arc::clone(&known.metadata),
            None => match (fetch(&self.parts, scene, &base, &issuer).await, known.as_ref()) {
                (Ok(fetched), _) => Arc::clone(&known.insert(fetched).metadata),
                (Err(error), Some(last)) if now < last.until.after(STALE) => {
                    tracing::warn!(issuer, error = %error, "the issuer's metadata could not be fetched again; the last ones go on");
                    Arc::clone(&last.metadata)
                }
                (Err(error), _) => return Err(error),
            },
        };
        let trusted = |url: &Url| {
            let encrypted = url.scheme() == "https" || url.scheme() == base.origin.scheme.as_str();
            encrypted && (is_at(url, &base.origin) || names(scene, url))
        };
        endpoints(&metadata, &trusted).map(Some)
    }
}

impl Issuers {
    fn slot(&self, key: Key) -> Arc<Mutex<Option<Known>>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= CAPACITY && !slots.contains_key(&key) {
            slots.clear();
        }
        Arc::clone(slots.entry(key).or_default())
    }
}

/// Where an issuer is.
fn place(scene: &Scene<'_>, text: &Text) -> Result<Base, TokenError> {
    let account = &scene.account;
    let base = Base::fill(text, &scene.context()).map_err(|error| misconfigured(format!("`issuer`: {error}")))?;
    let named = account.integration.api.as_ref().map(|api| (api.hosts.as_slice(), api.transport.allow_plain_http));
    origin::allow_named(named.unwrap_or((&[], false)), &account.generation.gateway, &base.origin, base.literal_host)
        .map_err(|error| misconfigured(format!("`issuer`: {error}")))?;
    Ok(base)
}

/// Asks at both well-known places, OpenID Connect's first: most services have that one.
async fn fetch(parts: &Parts, scene: &Scene<'_>, base: &Base, issuer: &str) -> Result<Known, TokenError> {
    let places = [
        format!("{}{}/.well-known/openid-configuration", base.origin, base.path),
        format!("{}/.well-known/oauth-authorization-server{}", base.origin, base.path),
    ];
    let mut last = misconfigured("the issuer tells nothing of itself");
    for place in places {
        let mut request = request(&literal(&place)?, Vec::new());
        request.timeout = Some(TIMEOUT);
        let finish = |headers: &mut HeaderMap| {
            headers.insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
        };
        let received =
            send::send(parts, scene, Step { stage: Stage::Issuer, request: &request, finish: &finish }).await;
        match received.and_then(|received| understand(received, issuer, parts.clock.now())) {
            Ok(known) => return Ok(known),
            Err(error) => last = error,
        }
    }
    let words = last.words.take().unwrap_or_default();
    last.words = Some(format!("the issuer `{issuer}` tells nothing that could be used: {words}"));
    Err(last)
}

/// Whether a definition itself says that calls may go to the place of an address.
fn names(scene: &Scene<'_>, url: &Url) -> bool {
    let (Some(api), Some(host)) = (&scene.account.integration.api, url.host_str()) else { return false };
    let own = Base::fill(&api.base_url, &scene.context()).is_ok_and(|base| is_at(url, &base.origin));
    own || api.hosts.iter().any(|pattern| pattern.matches(host))
}

/// Whether an address is at an origin: the same scheme, host and port.
fn is_at(url: &Url, origin: &Origin) -> bool {
    url.scheme() == origin.scheme.as_str()
        && url.host_str() == Some(&*origin.host)
        && url.port_or_known_default() == Some(origin.port)
}

fn understand(received: Received, issuer: &str, now: Timestamp) -> Result<Known, TokenError> {
    let status = received.status;
    let kept = lifetime(&received.headers);
    let answer = Answer::of(received);
    let of = |kind, words: String| TokenError { status: Some(status.as_u16()), ..TokenError::new(kind, words) };
    if !status.is_success() {
        let kind = if status.is_server_error() { TokenErrorKind::Passing } else { TokenErrorKind::Misconfigured };
        return Err(of(kind, "there are no metadata".to_owned()));
    }
    let metadata = answer.json().filter(|json| json.is_object());
    let metadata = metadata.ok_or_else(|| of(TokenErrorKind::Misconfigured, "its metadata are not JSON".to_owned()))?;
    if metadata.get("issuer").and_then(Json::as_str) != Some(issuer) {
        let words = "its metadata name another issuer (RFC 8414 §3.3): write `issuer` just as they do";
        return Err(of(TokenErrorKind::Misconfigured, words.to_owned()));
    }
    Ok(Known { metadata: Arc::new(metadata.clone()), until: now.after(kept) })
}

/// Whether the place of an address may be given what is secret.
type Trusted<'a> = dyn Fn(&Url) -> bool + Send + Sync + 'a;

fn lifetime(headers: &HeaderMap) -> Duration {
    let control = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let seconds = control.split(',').find_map(|part| part.trim().strip_prefix("max-age=")?.parse().ok());
    seconds.map_or(KEPT, Duration::from_secs).clamp(KEPT_LEAST, KEPT_MOST)
}

fn endpoints(metadata: &Json, trusted: &Trusted<'_>) -> Result<Endpoints, TokenError> {
    let mut elsewhere = Vec::new();
    let mut url = |name: &'static str| {
        let Some(text) = metadata.get(name).and_then(Json::as_str) else { return Ok(None) };
        match Url::parse(text) {
            Ok(url) if trusted(&url) => literal(text).map(Some),
            other => {
                let place = other.map_or_else(|_| "no address".to_owned(), |url| url.origin().ascii_serialization());
                elsewhere.push((name, place));
                Ok(None)
            }
        }
    };
    let [authorize, token, revoke, device, push, registration] =
        [AUTHORIZE, TOKEN, REVOKE, DEVICE, PUSH, "registration_endpoint"].map(&mut url);
    let call = |url: Option<Text>| url.map(|url| standard_call(&url)).transpose();
    let post = |url: Text| Request { method: Method::POST, ..request(&url, Vec::new()) };
    let says = |name: &str| metadata.get(name).and_then(Json::as_bool).unwrap_or_default();
    Ok(Endpoints {
        authorize: authorize?.map(|url| Authorize {
            url,
            params: Vec::new(),
            raw_scope: false,
            rename: Vec::new(),
            omit: Vec::new(),
            fragment: None,
        }),
        token: call(token?)?,
        revoke: call(revoke?)?,
        device: device?.map(post),
        push: push?.map(post),
        registration: registration?,
        push_required: says("require_pushed_authorization_requests"),
        iss_sent: says("authorization_response_iss_parameter_supported"),
        elsewhere,
    })
}

/// A text that stands as it is. What metadata say is never a template.
pub(super) fn literal(url: &str) -> Result<Text, TokenError> {
    if url.contains("{{") || url.contains("{%") || url.contains("{#") {
        return Err(misconfigured("an address of the issuer has braces in it"));
    }
    Text::compile(url).map_err(|error| misconfigured(error.to_string()))
}

/// A token call by the letter of the RFCs.
fn standard_call(url: &Text) -> Result<TokenCall, TokenError> {
    let expr = |source: &str| Expr::compile(source).map_err(|error| misconfigured(error.to_string()));
    let map = TokenMap {
        access: expr("body.access_token")?,
        refresh: Some(expr("body.refresh_token")?),
        expires_in: Some(expr("body.expires_in")?),
        expires: None,
        scope: Some(expr("body.scope")?),
    };
    Ok(TokenCall {
        request: Request { method: Method::POST, timeout: Some(TOKEN_TIMEOUT), ..request(url, Vec::new()) },
        params_in: ParamsIn::Form,
        rename: Vec::new(),
        omit: Vec::new(),
        tokens: vec![(DEFAULT_TOKEN.to_owned(), map)],
        mapped: false,
        permanent: None,
        default_ttl: None,
    })
}
