//! The standard parameters of token calls, put where the service wants them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value as Json;
use url::form_urlencoded;

use super::scene::{Scene, misconfigured, no_client};
use crate::base::secret::Secret;
use crate::connection::grant::TokenError;
use crate::definition::plan::oauth2::{Client, ClientAuth, ParamsIn, TokenCall};
use crate::definition::plan::request::{Body, CredentialUse, Request};
use crate::definition::plan::{Auth, Integration};
use crate::template::Tree;

/// Parameters in order; each once, or with several values.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(&'static str, Vec<String>)>);

impl Params {
    /// Adds one.
    pub fn add(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, vec![value.into()]));
    }

    /// Adds one where there is a value.
    pub fn add_some(&mut self, name: &'static str, value: Option<impl Into<String>>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    /// Adds one that is repeated; without values it is left out.
    pub fn add_all(&mut self, name: &'static str, values: Vec<String>) {
        if !values.is_empty() {
            self.0.push((name, values));
        }
    }
}

/// Adds how the application proves itself: to the parameters, or as the header that comes back. A call
/// with a `basic` of its own says for itself who asks.
///
/// # Errors
/// When the deployment has not told the credentials that are needed.
pub(super) fn prove(
    (scene, call): (&Scene<'_>, &TokenCall),
    params: &mut Params,
    assertion: Option<&Secret>,
) -> Result<Option<HeaderValue>, TokenError> {
    if call.request.basic.is_some() {
        return Ok(None);
    }
    let Some(client) = scene.known_client() else {
        // Assertions and exchanged tokens can stand for themselves; the rest cannot.
        return if scene.oauth2.grant.needs_client() { scene.client().map(|_| None) } else { Ok(None) };
    };
    let secret = || {
        let secret = client.secret.as_ref().map(|secret| secret.expose().as_str());
        secret.ok_or_else(|| {
            misconfigured("`auth.oauth2.client.secret` is missing; a public client says `client_auth: none`")
        })
    };
    match scene.client_auth() {
        ClientAuth::Form => {
            params.add("client_id", client.id.as_str());
            params.add("client_secret", secret()?);
        }
        ClientAuth::None => params.add("client_id", client.id.as_str()),
        ClientAuth::Basic => return basic(&form_encoded(&client.id), &form_encoded(secret()?)).map(Some),
        ClientAuth::BasicRaw => return basic(&client.id, secret()?).map(Some),
        ClientAuth::PrivateKeyJwt => {
            let assertion =
                assertion.ok_or_else(|| misconfigured("`client_auth: private_key_jwt` needs `assertion`"))?;
            params.add("client_id", client.id.as_str());
            params.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
            params.add("client_assertion", assertion.expose().as_str());
        }
    }
    Ok(None)
}

/// RFC 6749 §2.3.1 and appendix B: id and secret are form-encoded before they become a Basic credential,
/// so that a colon in either does not move the boundary.
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// `Authorization: Basic` of the application's own credentials as they are given.
///
/// # Errors
/// When the id has a colon, which would move the boundary between the two.
pub(super) fn basic(id: &str, secret: &str) -> Result<HeaderValue, TokenError> {
    if id.contains(':') {
        return Err(misconfigured(
            "the client id has a colon, which `basic_raw` cannot carry: use `client_auth: basic`",
        ));
    }
    let pair = Secret::new(format!("{id}:{secret}"));
    let value = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    let mut value =
        HeaderValue::from_str(value.expose()).map_err(|_| misconfigured("the client's credentials fit no header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Authorization: Basic` of an integration's own application, which `credential: client` puts on a
/// request: encoded where token calls have it so, else as it is.
///
/// # Errors
/// When the integration does not sign in by OAuth 2.0, the deployment has not told its credentials, or the application
/// has no secret because it signs assertions.
pub fn client_header(integration: &Integration) -> Result<HeaderValue, TokenError> {
    let Auth::OAuth2(oauth2) = &integration.auth else {
        return Err(misconfigured("`credential: client` is for services of `auth: oauth2`"));
    };
    let client = oauth2.client.as_ref().ok_or_else(|| no_client(oauth2, &integration.id))?;
    if oauth2.client_auth == ClientAuth::PrivateKeyJwt && client.secret.is_none() {
        return Err(misconfigured(
            "`credential: client` of the API's own requests shows id and secret, and with `client_auth: private_key_jwt` \
             there is no secret",
        ));
    }
    header_of(client, oauth2.client_auth)
}

/// The same of the application that a call is made for.
///
/// # Errors
/// When its credentials are not known.
pub(super) fn scene_header(scene: &Scene<'_>) -> Result<HeaderValue, TokenError> {
    header_of(scene.client()?, scene.client_auth())
}

fn header_of(client: &Client, way: ClientAuth) -> Result<HeaderValue, TokenError> {
    let secret = client.secret.as_ref().map(|secret| secret.expose().as_str()).unwrap_or_default();
    if way == ClientAuth::Basic {
        basic(&form_encoded(&client.id), &form_encoded(secret))
    } else {
        basic(&client.id, secret)
    }
}

/// The call's request with the parameters in their place, under the names that the service knows. A
/// parameter that the definition writes itself stands as it is written.
pub(super) fn placed(call: &TokenCall, params: Params) -> Request {
    let mut request = call.request.clone();
    if call.params_in == ParamsIn::Nowhere {
        return request;
    }
    let renamed = |name: &'static str| {
        let found = call.rename.iter().find(|(from, _)| from == name);
        found.map_or_else(|| name.to_owned(), |(_, to)| to.clone())
    };
    let sent = params.0.into_iter().filter(|(name, _)| !call.omit.iter().any(|omitted| omitted == name));
    let sent = sent.map(|(name, values)| (renamed(name), tree(values)));
    match call.params_in {
        ParamsIn::Query => add_missing(&mut request.query, sent),
        ParamsIn::Form => {
            let mut form = if let Body::Form(form) = request.body { form } else { Vec::new() };
            add_missing(&mut form, sent);
            request.body = if form.is_empty() { Body::Empty } else { Body::Form(form) };
        }
        ParamsIn::Json => {
            let mut entries = if let Body::Json(Tree::Map(entries)) = request.body { entries } else { Vec::new() };
            add_missing(&mut entries, sent);
            request.body = Body::Json(Tree::Map(entries));
        }
        ParamsIn::Nowhere => {}
    }
    request
}

/// The standard parameters come first, where services' documents have them.
fn add_missing(written: &mut Vec<(String, Tree)>, sent: impl Iterator<Item = (String, Tree)>) {
    let mut all: Vec<_> = sent.filter(|(name, _)| written.iter().all(|(known, _)| known != name)).collect();
    all.append(written);
    *written = all;
}

/// A value that is no template, whatever characters it has.
fn tree(mut values: Vec<String>) -> Tree {
    let literal = match values.len() {
        1 => values.pop().map_or(Json::Null, Json::String),
        _ => Json::from(values),
    };
    Tree::Literal(literal)
}

/// The headers that a token call has besides its own.
pub(super) fn headers(request: &Request, own: &mut HeaderMap, proof: Option<HeaderValue>) {
    own.entry(header::ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    let says_who = own.contains_key(header::AUTHORIZATION) || !matches!(request.credential, CredentialUse::None);
    if let Some(proof) = proof.filter(|_| !says_who) {
        own.insert(header::AUTHORIZATION, proof);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::compile;
    use crate::definition::document::Document;
    use crate::definition::templates::Templates;
    use serde_json::json;

    fn header_of(auth: &Json) -> Result<String, String> {
        let value = json!({ "trunkline": 1, "id": "svc", "auth": auth });
        let document = Document::unplaced("svc.yaml".into(), value);
        let integration = compile::integration(&document, &Templates::new()).expect("compiles");
        let header = client_header(&integration).map_err(|error| error.to_string())?;
        let encoded = header.to_str().expect("visible").strip_prefix("Basic ").expect("Basic").to_owned();
        Ok(String::from_utf8(STANDARD.decode(encoded).expect("base 64")).expect("text"))
    }

    #[test]
    fn the_applications_own_credentials_are_encoded_as_for_token_calls() {
        let oauth2 =
            |way: &str| json!({ "oauth2": { "client_auth": way, "client": { "id": "a", "secret": "s/+ é" } } });
        assert_eq!(header_of(&oauth2("basic")).as_deref(), Ok("a:s%2F%2B+%C3%A9"));
        assert_eq!(header_of(&oauth2("form")).as_deref(), Ok("a:s/+ é"));
    }

    #[test]
    fn without_an_application_there_is_nothing_to_show() {
        assert!(header_of(&json!({ "none": {} })).is_err_and(|error| error.contains("auth: oauth2")));
        assert!(header_of(&json!({ "oauth2": {} })).is_err_and(|error| error.contains("client` of `svc` is missing")));
        let colon = json!({ "oauth2": { "client": { "id": "a:b", "secret": "s" } } });
        assert!(header_of(&colon).is_err_and(|error| error.contains("has a colon")));
    }
}
