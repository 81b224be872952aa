//! Ways of signing in whose parts do not go together.

use std::time::Duration;

use super::Findings;
use super::conflicts::request;
use crate::base::secret::Secret;
use crate::definition::compile;
use crate::definition::problem::{Code, Problem};
use crate::definition::raw::auth::{Assertion, Auth, JwtAlgorithm, Mtls, OAuth1, OAuth1Signature};
use crate::definition::raw::form::Ordered;
use crate::definition::raw::integration::Integration;
use crate::definition::raw::oauth2::{ClientAuth, Grant, OAuth2, Pkce};

/// The shortest reason that tells a reader something.
const REASON: usize = 8;

pub(super) fn check(raw: &Integration, found: &mut Findings<'_>) {
    match &raw.auth {
        Some(Auth::OAuth2(oauth2)) => self::oauth2(oauth2, found),
        Some(Auth::Jwt(assertion)) => self::assertion(assertion, "/auth/jwt", found),
        Some(Auth::Mtls(mtls)) => certificate(mtls, "/auth/mtls", found),
        Some(Auth::OAuth1(oauth1)) => self::oauth1(oauth1, found),
        Some(Auth::Login(login)) if login.tokens.get("default").is_none() => {
            found.error(Code::MissingField, "/auth/login", "`tokens` names no `default`");
        }
        Some(Auth::SigV4(sigv4)) => {
            let Some(session) = &sigv4.session else { return };
            request(session.shape(), "/auth/sigv4/session", found);
            if sigv4.key.is_some() && !session.is_signed() {
                let words =
                    "the request for a temporary key is not signed, so there is nothing that this key would sign";
                found.error(Code::Conflict, "/auth/sigv4/key", words);
            }
        }
        _ => {}
    }
}

fn oauth2(oauth2: &OAuth2, found: &mut Findings<'_>) {
    let grant = oauth2.grant.unwrap_or(Grant::AuthorizationCode);
    let at = "/auth/oauth2";
    let needs = [
        ("token", oauth2.token.is_none() && oauth2.issuer.is_none(), true),
        ("authorize", oauth2.authorize.is_none() && oauth2.issuer.is_none(), grant == Grant::AuthorizationCode),
        ("device", oauth2.device.is_none() && oauth2.issuer.is_none(), grant == Grant::DeviceCode),
        ("assertion", oauth2.assertion.is_none(), grant == Grant::JwtBearer),
        ("assertion", oauth2.assertion.is_none(), oauth2.client_auth == Some(ClientAuth::PrivateKeyJwt)),
        ("exchange", oauth2.exchange.is_none(), grant == Grant::TokenExchange),
        ("registration.url", oauth2.issuer.is_none() && unplaced_registration(oauth2), true),
    ];
    for (field, missing, needed) in needs {
        if missing && needed {
            found.error(Code::MissingField, at, format!("this way of signing in needs `{field}`"));
        }
    }
    let strangers = [
        ("exchange", oauth2.exchange.is_some(), grant == Grant::TokenExchange),
        ("device", oauth2.device.is_some(), grant == Grant::DeviceCode),
        ("authorize", oauth2.authorize.is_some(), matches!(grant, Grant::AuthorizationCode | Grant::DeviceCode)),
        ("pkce", oauth2.pkce.is_some(), grant == Grant::AuthorizationCode),
        ("push", oauth2.push.is_some(), grant == Grant::AuthorizationCode),
    ];
    for (field, written, fits) in strangers {
        if written && !fits {
            found.error(Code::Conflict, &format!("{at}/{field}"), format!("`{field}` is for another `grant`"));
        }
    }
    if let Some(Pkce::Off(reason)) = &oauth2.pkce
        && reason.trim().len() < REASON
    {
        let problem = found.error(Code::BadFormat, &format!("{at}/pkce/off"), "turning PKCE off needs a reason");
        problem.help = Some("Say why in a few words, such as: the service refuses code_challenge.".to_owned());
    }
    if oauth2.revoke_replaced && oauth2.revoke.is_none() && oauth2.issuer.is_none() {
        let words = "replaced tokens are taken back by `revoke`, which is not there";
        found.error(Code::MissingField, &format!("{at}/revoke_replaced"), words);
    }
    client(oauth2, grant, found);
    scopes(oauth2, found);
    parameters(oauth2, found);
    if let Some(identity) = &oauth2.identity {
        request(identity.shape(), &format!("{at}/identity"), found);
    }
    if let Some(assertion) = &oauth2.assertion {
        self::assertion(assertion, &format!("{at}/assertion"), found);
    }
}

/// Whether a registration does not say where it is made.
fn unplaced_registration(oauth2: &OAuth2) -> bool {
    oauth2.registration.as_ref().is_some_and(|registration| registration.0.url.is_none())
}

fn client(oauth2: &OAuth2, grant: Grant, found: &mut Findings<'_>) {
    let way = oauth2.client_auth.unwrap_or(ClientAuth::Form);
    let Some(client) = &oauth2.client else { return };
    if let Some(mtls) = &client.certificate {
        certificate(mtls, "/auth/oauth2/client/certificate", found);
    }
    let needs_secret = matches!(way, ClientAuth::Form | ClientAuth::Basic | ClientAuth::BasicRaw);
    if needs_secret && client.secret.is_none() {
        let problem = found.error(Code::MissingField, "/auth/oauth2/client", "the application has no `secret`");
        problem.help = Some("A public client says so: `client_auth: none`.".to_owned());
    }
    // Without a certificate, which may be the proof (RFC 8705 §2).
    let is_public = way == ClientAuth::None && client.certificate.is_none();
    if is_public && grant == Grant::ClientCredentials {
        found.error(
            Code::Conflict,
            "/auth/oauth2/client_auth",
            "an application without credentials cannot act for itself",
        );
    }
    if is_public && matches!(oauth2.pkce, Some(Pkce::Off(_))) {
        let problem =
            found.error(Code::Conflict, "/auth/oauth2/pkce", "a public client without PKCE is open to stolen codes");
        problem.help = Some("Leave PKCE on, or give the application a secret (RFC 9700 §2.1.1).".to_owned());
    }
}

/// Parameters of token calls that are added to what is written (RFC 6749, 7521, 7523, 7636, 7662, 8628,
/// 8693, 8707).
const TOKEN_PARAMETERS: [&str; 21] = [
    "grant_type",
    "code",
    "redirect_uri",
    "code_verifier",
    "refresh_token",
    "scope",
    "resource",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "device_code",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "audience",
    "token",
    "token_type_hint",
];
/// Parameters of the address that a person is sent to (RFC 6749 §4.1.1, 7636, 8707).
const AUTHORIZE_PARAMETERS: [&str; 8] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "code_challenge",
    "code_challenge_method",
    "resource",
];

/// Parameters that are renamed or left out are ones that would be sent.
fn parameters(oauth2: &OAuth2, found: &mut Findings<'_>) {
    if let Some(authorize) = oauth2.authorize.as_ref().map(|authorize| &authorize.0) {
        known((&authorize.rename, &authorize.omit), "/auth/oauth2/authorize", &AUTHORIZE_PARAMETERS, found);
    }
    let lists = [("token", oauth2.token.as_ref()), ("refresh", oauth2.refresh.as_ref())];
    for (field, calls) in lists {
        let at = format!("/auth/oauth2/{field}");
        let is_list = found.document.value.pointer(&at).is_some_and(serde_json::Value::is_array);
        for (index, call) in calls.iter().flat_map(|calls| &calls.0).enumerate() {
            let at = if is_list { format!("{at}/{index}") } else { at.clone() };
            known((&call.0.rename, &call.0.omit), &at, &TOKEN_PARAMETERS, found);
        }
    }
    if let Some(call) = oauth2.introspect.as_ref().map(|call| &call.0) {
        known((&call.rename, &call.omit), "/auth/oauth2/introspect", &TOKEN_PARAMETERS, found);
    }
}

fn known((rename, omit): (&Ordered<String>, &[String]), at: &str, standard: &[&'static str], found: &mut Findings<'_>) {
    let document = found.document;
    let renamed =
        rename.iter().map(|(name, _)| (name, document.key_place(&super::below(&format!("{at}/rename"), name))));
    let omitted = omit.iter().enumerate();
    let omitted = omitted.map(|(index, name)| (name.as_str(), document.place(&format!("{at}/omit/{index}"))));
    for (name, place) in renamed.chain(omitted).filter(|(name, _)| !standard.contains(name)) {
        let near = crate::definition::suggest::nearest(name, standard.iter().copied());
        let message = format!("`{name}` is not a standard parameter, so it is not sent anyway");
        found.push(Problem::error(Code::UnknownName, place, message).suggestion(near));
    }
}

fn scopes(oauth2: &OAuth2, found: &mut Findings<'_>) {
    let mut seen = std::collections::HashSet::new();
    let tokens = oauth2.token.as_ref().into_iter().flat_map(|calls| &calls.0).filter_map(|call| call.0.tokens.as_ref());
    let named: Vec<&str> = tokens.flat_map(|tokens| tokens.iter().map(|(name, _)| name)).collect();
    for (index, scope) in oauth2.scopes.iter().enumerate() {
        let at = format!("/auth/oauth2/scopes/{index}");
        if !seen.insert((&scope.name, &scope.token)) {
            found.error(Code::DuplicateId, &format!("{at}/name"), format!("the scope `{}` is there twice", scope.name));
        }
        if let Some(token) = scope.token.as_deref().filter(|token| *token != "default" && !named.contains(token)) {
            let near = crate::definition::suggest::nearest(token, named.iter().copied());
            let message = format!("`{token}` is not one of the tokens that `token.tokens` names");
            found.error(Code::UnknownName, &format!("{at}/token"), message).suggestion = near;
        }
    }
}

/// A certificate proves nothing without its key, nor a key without its certificate.
fn certificate(mtls: &Mtls, at: &str, found: &mut Findings<'_>) {
    let missing = match (&mtls.certificate, &mtls.key) {
        (Some(_), None) => "key",
        (None, Some(_)) => "certificate",
        _ => {
            if let Err((field, words)) = compile::identity(mtls) {
                found.error(Code::BadFormat, &format!("{at}/{field}"), words);
            }
            return;
        }
    };
    found.error(Code::MissingField, at, format!("a certificate and its key go together: `{missing}` is missing"));
}

fn oauth1(oauth1: &OAuth1, found: &mut Findings<'_>) {
    let secret = oauth1.client.as_ref().and_then(|client| client.secret.as_ref());
    if oauth1.signature == Some(OAuth1Signature::RsaSha1)
        && let Some(text) = secret
        && let Err(words) = compile::rsa_sha1(text.0.expose())
    {
        found.error(Code::BadFormat, "/auth/oauth1/client/secret", words);
    }
    for (name, call) in [("request_token", &oauth1.request_token), ("access_token", &oauth1.access_token)] {
        request(call.0.shape(), &format!("/auth/oauth1/{name}"), found);
    }
}

fn assertion(assertion: &Assertion, at: &str, found: &mut Findings<'_>) {
    let shared = matches!(assertion.algorithm, JwtAlgorithm::HS256 | JwtAlgorithm::HS384 | JwtAlgorithm::HS512);
    if assertion.key_encoding.is_some() && !shared {
        found.error(Code::Conflict, &format!("{at}/key_encoding"), "only the keys of HS algorithms have an encoding");
    }
    if let Some(text) = &assertion.key {
        let key = Secret::new(text.0.expose().clone());
        let encoding = assertion.key_encoding.map(compile::encoding).unwrap_or_default();
        if let Err(words) = compile::read_key(compile::algorithm(assertion.algorithm), &key, encoding) {
            found.error(Code::BadFormat, &format!("{at}/key"), words);
        }
    }
    if assertion.claims.get("exp").is_some_and(|exp| !exp.0.is_null()) {
        found.error(Code::Conflict, &format!("{at}/claims/exp"), "`exp` follows from `ttl`: write that instead");
    }
    if assertion.ttl.is_some_and(|ttl| ttl.0 < Duration::from_secs(1)) {
        found.error(Code::BadFormat, &format!("{at}/ttl"), "a token lives for a second at least");
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use serde_json::{Value, json};

    fn told(more: &Value) -> String {
        let mut oauth2 = json!({ "authorize": "https://a.example/auth", "token": "https://a.example/token" });
        oauth2.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
        with(&json!({ "auth": { "oauth2": oauth2 } })).concat()
    }

    #[test]
    fn a_grant_needs_its_parts() {
        assert_eq!(told(&json!({})), "");
        assert!(told(&json!({ "registration": {} })).contains("needs `registration.url`"));
        assert!(told(&json!({ "grant": "token_exchange" })).contains("needs `exchange`"));
        assert!(told(&json!({ "grant": "jwt_bearer" })).contains("needs `assertion`"));
        assert!(told(&json!({ "client_auth": "private_key_jwt" })).contains("needs `assertion`"));
        assert!(told(&json!({ "grant": "client_credentials" })).contains("`authorize` is for another `grant`"));
    }

    #[test]
    fn pkce_is_not_turned_off_lightly() {
        assert_eq!(told(&json!({ "pkce": { "off": "the service refuses code_challenge" } })), "");
        assert!(told(&json!({ "pkce": { "off": "no" } })).contains("needs a reason"));
        let public =
            json!({ "client": { "id": "a" }, "client_auth": "none", "pkce": { "off": "the service refuses it" } });
        assert!(told(&public).contains("open to stolen codes"));
    }

    #[test]
    fn a_certificate_may_be_the_applications_only_proof() {
        let with = |client: Value| {
            let oauth2 = json!({ "grant": "client_credentials", "token": "https://a.example/token", "client_auth": "none", "client": client });
            with(&json!({ "auth": { "oauth2": oauth2 } })).concat()
        };
        assert!(with(json!({ "id": "a" })).contains("cannot act for itself"));
        assert!(!with(json!({ "id": "a", "certificate": {} })).contains("cannot act for itself"));
    }

    #[test]
    fn scopes_belong_to_tokens_that_are_named() {
        let scope = json!({ "name": "s", "grants": "Reading", "token": "usr" });
        let tokens = json!({ "default": { "access": "body.a" }, "user": { "access": "body.b" } });
        let token = json!({ "request": "POST https://a.example/token", "tokens": tokens });
        assert!(told(&json!({ "token": token, "scopes": [scope] })).contains("`usr` is not one of the tokens"));
    }
}
