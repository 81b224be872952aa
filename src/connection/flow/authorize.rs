//! Where a person is sent to consent (RFC 6749 §4.1.1).

use http::Method;
use serde_json::Value as Json;

use super::TokenCalls;
use super::issuer::{self, Endpoints};
use super::purpose::resources;
use super::registration::Need;
use super::scene::{Scene, misconfigured};
use crate::connection::grant::{Account, TokenError};
use crate::definition::plan::oauth2::{Authorize, DEFAULT_TOKEN, Grant, OAuth2, Pkce};
use crate::definition::plan::request::{Request, Target};
use crate::net::origin;
use crate::request::fill::{self, Place};
use crate::template::{Context, Text, Tree};

/// What a person is sent to a service with.
#[derive(Debug, Clone, Copy)]
pub struct Authorization<'a> {
    /// The state that must come back.
    pub state: &'a str,
    /// Where the service sends them back to.
    pub redirect_uri: &'a str,
    /// The names of the scopes that are asked for; those the definition does not have are left out.
    pub scopes: &'a [String],
    /// The PKCE challenge (S256); none where the definition turns PKCE off.
    pub challenge: Option<&'a str>,
}

impl TokenCalls {
    /// The address a person is sent to. It holds the state, and no secret of the application.
    ///
    /// # Errors
    /// When the definition gives no address, the issuer's metadata cannot be had, or the address is not
    /// one that the definition names.
    pub async fn authorize_url(&self, account: Account<'_>, ask: Authorization<'_>) -> Result<String, TokenError> {
        let mut scene = self.scene(account, Need::MayRegister).await?;
        let oauth2 = scene.oauth2;
        if oauth2.grant != Grant::AuthorizationCode {
            return Err(misconfigured("this grant sends nobody to the service"));
        }
        if ask.challenge.is_none() && oauth2.pkce == Pkce::S256 {
            return Err(misconfigured("a code is asked for without a PKCE challenge, and `pkce` is not off"));
        }
        scene.ask_for(oauth2.scopes.iter().filter(|scope| ask.scopes.contains(&scope.name)));
        scene.show("state", ask.state);
        scene.show("redirect_uri", ask.redirect_uri);
        let found = self.told_by_issuer(&scene).await?;
        let authorize = oauth2.authorize.as_ref().or_else(|| found.as_ref()?.authorize.as_ref());
        let untrusted = |name| found.as_ref().and_then(|found| found.untrusted(name));
        let needs_push = oauth2.push.is_none() && found.as_ref().is_some_and(|found| found.push_required);
        let hindered = if authorize.is_none() { untrusted(issuer::AUTHORIZE) } else { None };
        if let Some(hindered) = hindered.or_else(|| if needs_push { untrusted(issuer::PUSH) } else { None }) {
            return Err(hindered);
        }
        let authorize = authorize
            .ok_or_else(|| misconfigured("neither `authorize` nor the issuer's metadata say where people consent"))?;
        let mut sent = Sent { standard: standard(&scene, ask)?, written: written(authorize, &scene.context())? };
        if let Some(push) = pushed_to(oauth2, found.as_ref()) {
            sent = self.push(&scene, (push, authorize), sent).await?;
        }
        // A browser does not go through our dialer: it is sent to the simulation by its own address.
        let simulated = self.parts.clients.simulated(&account.integration.id);
        address(&scene, authorize, sent, simulated)
    }

    /// What the issuer says of the way to consent, where the definition names one. A definition that writes
    /// its address does without: then only that the parameters must be pushed is not known.
    async fn told_by_issuer(&self, scene: &Scene<'_>) -> Result<Option<Endpoints>, TokenError> {
        match self.endpoints(scene).await {
            Err(error) if scene.oauth2.authorize.is_some() => {
                let integration = &*scene.account.integration.id;
                tracing::warn!(integration, error = %error, "the issuer's metadata are not known");
                Ok(None)
            }
            found => found,
        }
    }
}

/// Where the parameters are pushed, where they are: as written, as the issuer requires, or as it offers to a
/// definition that leaves the way to consent to it.
fn pushed_to<'a>(oauth2: &'a OAuth2, found: Option<&'a Endpoints>) -> Option<&'a Request> {
    let offered = found.filter(|found| found.push_required || oauth2.authorize.is_none());
    oauth2.push.as_ref().or_else(|| offered?.push.as_ref())
}

/// What a person is sent with.
pub(super) struct Sent {
    /// The standard parameters, in order.
    pub standard: Vec<(&'static str, Json)>,
    /// Those that the definition writes itself.
    pub written: Vec<(String, Tree)>,
}

/// The standard parameters in order.
fn standard(scene: &Scene<'_>, ask: Authorization<'_>) -> Result<Vec<(&'static str, Json)>, TokenError> {
    let mut params = vec![
        ("response_type", Json::from("code")),
        ("client_id", Json::from(scene.client()?.id.as_str())),
        ("redirect_uri", Json::from(ask.redirect_uri)),
        ("scope", scene.scope_text(DEFAULT_TOKEN).map_or(Json::Null, Json::from)),
        ("state", Json::from(ask.state)),
    ];
    if let Some(challenge) = ask.challenge {
        params.extend([("code_challenge", Json::from(challenge)), ("code_challenge_method", Json::from("S256"))]);
    }
    params.push(("resource", Json::from(resources(scene)?)));
    Ok(params)
}

fn address(
    scene: &Scene<'_>,
    authorize: &Authorize,
    Sent { standard, written }: Sent,
    simulated: Option<String>,
) -> Result<String, TokenError> {
    let context = scene.context();
    let mut query = Vec::new();
    let mut raw = String::new();
    for (name, value) in standard {
        let wire = authorize.rename.iter().find(|(from, _)| from == name).map_or(name, |(_, to)| to);
        let replaced = authorize.params.iter().any(|(known, _)| known == wire);
        if replaced || authorize.omit.iter().any(|omitted| omitted == name) || is_empty(&value) {
            continue;
        }
        match value.as_str().filter(|_| name == "scope" && authorize.raw_scope) {
            Some(scope) => raw = format!("{wire}={}", as_written(scope)),
            None => query.push((wire.to_owned(), Tree::Literal(value))),
        }
    }
    query.extend(written);
    let filled = fill::fill(&request(&authorize.url, query), &context)
        .map_err(|error| misconfigured(scene.secrets.redact(&format!("`authorize`: {error}"))))?;
    let Place::At { origin, literal_host, path } = filled.place else {
        return Err(misconfigured("`authorize` is a whole address: write `https://HOST/PATH`"));
    };
    let account = &scene.account;
    let named = account.integration.api.as_ref().map(|api| (api.hosts.as_slice(), api.transport.allow_plain_http));
    origin::allow_named(named.unwrap_or((&[], false)), &account.generation.gateway, &origin, literal_host)
        .map_err(|error| misconfigured(error.to_string()))?;
    let parts: Vec<&str> = [filled.query.as_str(), &raw].into_iter().filter(|part| !part.is_empty()).collect();
    let fragment =
        authorize.fragment.as_ref().map_or_else(String::new, |fragment| format!("#{}", as_written(fragment)));
    let origin = simulated.unwrap_or_else(|| origin.to_string());
    Ok(format!("{origin}{path}?{}{fragment}", parts.join("&")))
}

/// The parameters that the definition writes itself; one that is none or empty is left out.
fn written(authorize: &Authorize, context: &Context) -> Result<Vec<(String, Tree)>, TokenError> {
    let mut written = Vec::new();
    for (name, tree) in &authorize.params {
        let value = tree.render(context);
        let value = value.map_err(|error| misconfigured(format!("`authorize.params.{name}`: {error}")))?;
        if !is_empty(&value) {
            written.push((name.clone(), Tree::Literal(value)));
        }
    }
    Ok(written)
}

pub(super) fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Bool(_) | Json::Number(_) | Json::Object(_) => false,
    }
}

/// A text with all that may stand in a query left as it is: only what would end the parameter or is no
/// character of URLs is encoded.
fn as_written(text: &str) -> String {
    const ENDS: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'&')
        .add(b'<')
        .add(b'>')
        .add(b'\\')
        .add(b'^')
        .add(b'`')
        .add(b'{')
        .add(b'|')
        .add(b'}');
    percent_encoding::utf8_percent_encode(text, ENDS).to_string()
}

/// A request that is only an address.
pub(super) fn request(url: &Text, query: Vec<(String, Tree)>) -> Request {
    Request { query, ..Request::bare(Method::GET, Target::Url(url.clone())) }
}
