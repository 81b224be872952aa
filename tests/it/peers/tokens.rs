//! Our token calls against authorization servers that we did not write.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use trunkline::base::clock::{Clock, SystemClock};
use trunkline::connection::flow::{Authorization, Force, Purpose};
use trunkline::connection::grant::{Grant, Issued, TokenError, TokenErrorKind};

use super::{CALLBACK, SECRET, VERIFIER, oidc_client};
use crate::support::browser::Browser;
use crate::support::desk::Desk;
use crate::support::peer::Peer;
use crate::tokens::registered::Kept;

/// A definition over a peer: `PEER` in its texts is the peer's address.
pub fn definition(peer: &Peer, oauth2: &Value) -> Value {
    let api = json!({ "base_url": "PEER", "test": "GET /me", "allow_private": true, "allow_plain_http": true });
    let definition = json!({ "trunkline": 1, "id": "svc", "title": "Svc", "auth": { "oauth2": oauth2 }, "api": api });
    serde_json::from_str(&definition.to_string().replace("PEER", &peer.url())).unwrap()
}

fn desk(peer: &Peer, oauth2: &Value) -> Desk {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    Desk::of(definition(peer, oauth2), &clock)
}

/// A person consents to these scopes, and their code becomes tokens.
pub async fn connect(desk: &Desk, scopes: &[&str]) -> Result<Grant, TokenError> {
    connect_at(desk, scopes, CALLBACK).await
}

/// The same, and they come back at this address.
async fn connect_at(desk: &Desk, scopes: &[&str], callback: &str) -> Result<Grant, TokenError> {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let ask = Authorization { state: "st", redirect_uri: callback, scopes: &scopes, challenge: Some(&challenge) };
    let url = desk.calls.authorize_url(desk.account(), ask).await?;
    let until = callback.to_owned();
    let page = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::default();
        browser.stop = Some(until.clone());
        let page = browser.open(&url);
        browser.agree(page, &until)
    });
    let page = page.await.unwrap();
    let query: Map<String, Value> = page.url.query_pairs().map(|(k, v)| (k.into_owned(), v.into())).collect();
    let code = query["code"].as_str().unwrap();
    let purpose = Purpose::Code { code, redirect_uri: callback, verifier: Some(VERIFIER), callback: &query };
    desk.calls.obtain(desk.account(), purpose).await
}

async fn refresh(desk: &Desk, held: &Issued) -> Result<Grant, TokenError> {
    desk.calls.obtain(desk.account(), Purpose::Refresh { name: "default", held }).await
}

fn scopes(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name, "grants": format!("What {name} allows"), "default": true })).collect()
}

pub fn oidc_definition(way: &str) -> Value {
    json!({
        "issuer": "PEER", "authorize": "PEER/auth", "token": "PEER/token", "client_auth": way, "refresh_tokens": "rotate",
        "client": { "id": "app", "secret": SECRET },
        "revoke": { "request": "POST PEER/token/revocation", "credential": "none",
            "form": { "token": "{{ token.refresh }}", "client_id": "{{ client.id }}", "client_secret": "{{ client.secret }}" } },
        "scopes": scopes(&["openid", "offline_access"]),
        "identity": { "request": "GET /me", "id": "body.sub" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certified_server_connects_rotates_and_revokes() {
    let mut client = oidc_client(SECRET);
    client["token_endpoint_auth_method"] = json!("client_secret_basic");
    let peer = Peer::oidc(&json!({ "clients": [client] }));
    let desk = desk(&peer, &oidc_definition("basic"));
    let grant = connect(&desk, &["openid"]).await.unwrap();
    let who = desk.calls.identity(desk.account(), &grant.tokens).await.unwrap().unwrap();
    assert_eq!(who.id, "ada");
    let renewed = refresh(&desk, &grant.tokens["default"]).await.unwrap();
    assert_eq!(desk.calls.identity(desk.account(), &renewed.tokens).await.unwrap().unwrap().id, "ada");
    peer.post("/-/expire", &json!({}));
    let refused = desk.calls.identity(desk.account(), &renewed.tokens).await.unwrap_err();
    assert_eq!(refused.status, Some(401));
    // The old one was used up: to present it again costs everything, and the error says that a person must act.
    let twice = refresh(&desk, &grant.tokens["default"]).await.unwrap_err();
    assert_eq!((twice.kind, twice.code.as_deref()), (TokenErrorKind::Permanent, Some("invalid_grant")));
    assert_eq!((peer.stat("/granted/refresh_token"), peer.stat("/revoked")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certified_server_takes_what_is_pushed_and_nothing_else() {
    let mut client = oidc_client(SECRET);
    client["token_endpoint_auth_method"] = json!("client_secret_basic");
    let peer = Peer::oidc(&json!({ "clients": [client], "require_par": true }));
    // The issuer's metadata say that it must be; then the definition does.
    let by_metadata = desk(&peer, &oidc_definition("basic"));
    let grant = connect(&by_metadata, &["openid"]).await.unwrap();
    let who = by_metadata.calls.identity(by_metadata.account(), &grant.tokens).await.unwrap().unwrap();
    assert_eq!((who.id.as_str(), peer.stat("/pushed")), ("ada", 1));
    let mut written = oidc_definition("basic");
    written["push"] = json!("POST PEER/request");
    written.as_object_mut().unwrap().remove("issuer");
    assert!(connect(&desk(&peer, &written), &["openid"]).await.is_ok());
    assert_eq!(peer.stat("/pushed"), 2);
    // A redirect address that is not registered is refused before anybody is sent anywhere.
    let ask = Authorization { state: "st", redirect_uri: "http://127.0.0.1:2/", scopes: &[], challenge: Some("x") };
    let refused = by_metadata.calls.authorize_url(by_metadata.account(), ask).await.unwrap_err();
    assert_eq!((refused.kind, refused.status), (TokenErrorKind::Misconfigured, Some(400)), "{refused}");
    // What the peer does with a browser that carries the parameters itself, so that the test rests on something.
    written.as_object_mut().unwrap().remove("push");
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let ask = Authorization { state: "st", redirect_uri: CALLBACK, scopes: &[], challenge: Some(&challenge) };
    let bare = desk(&peer, &written);
    let url = bare.calls.authorize_url(bare.account(), ask).await.unwrap();
    let page = tokio::task::spawn_blocking(move || {
        let mut browser = Browser::default();
        browser.stop = Some(CALLBACK.to_owned());
        browser.open(&url)
    });
    assert_eq!(page.await.unwrap().parameter("error").as_deref(), Some("invalid_request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_registers_itself_at_the_certified_server_and_is_forgotten_there() {
    let peer = Peer::oidc(&json!({ "clients": [], "registration": "an-initial-token" }));
    let mut oauth2 = oidc_definition("basic");
    oauth2.as_object_mut().unwrap().remove("client");
    oauth2["registration"] = json!({ "token": "an-initial-token" });
    let kept = Kept::new().await;
    let mut desk = desk(&peer, &oauth2);
    desk.calls = desk.calls.keeping(kept.connections.clone());
    let callback = desk.account().redirect_uri();
    let grant = connect_at(&desk, &["openid"], &callback).await.unwrap();
    assert_eq!(desk.calls.identity(desk.account(), &grant.tokens).await.unwrap().unwrap().id, "ada");
    assert!(refresh(&desk, &grant.tokens["default"]).await.is_ok());
    let shown = desk.calls.registrations().await.unwrap();
    assert!(shown.len() == 1 && shown[0].revocable && shown[0].state == "registered", "{shown:?}");
    let forgotten = desk.calls.forget_registration("operator", (&desk.generation, "svc"), Force::No).await.unwrap();
    assert_eq!(forgotten[0].service, "deleted");
    // The server does not know the application any more.
    let id = shown[0].client_id.clone().unwrap();
    let page = peer.get(&format!("/auth?client_id={id}&response_type=code&scope=openid"));
    assert_eq!(page.status, 400, "{page:?}");
    // What it does not take is told in words that help.
    oauth2["registration"] =
        json!({ "token": "an-initial-token", "metadata": { "redirect_uris": ["not an address"] } });
    let mut refused = self::desk(&peer, &oauth2);
    refused.calls = refused.calls.keeping(kept.connections.clone());
    let error = connect_at(&refused, &["openid"], &callback).await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Misconfigured, "{error}");
    assert!(error.code.is_some() && error.to_string().contains("does not register this application"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_odd_characters_is_form_encoded_or_raw_as_declared() {
    let peer = Peer::oidc(&json!({ "clients": [oidc_client(SECRET)] }));
    let raw = connect(&desk(&peer, &oidc_definition("basic_raw")), &["openid"]).await.unwrap_err();
    assert!(matches!(raw.status, Some(400 | 401)), "{raw}");
    assert!(connect(&desk(&peer, &oidc_definition("basic")), &["openid"]).await.is_ok());

    let odd = Peer::odd(&json!({ "client": { "id": "app", "secret": SECRET } }));
    let definition = |way: &str| {
        json!({ "authorize": "PEER/authorize", "token": "PEER/token", "client_auth": way,
            "client": { "id": "app", "secret": SECRET } })
    };
    assert!(connect(&desk(&odd, &definition("basic_raw")), &[]).await.is_ok());
    let encoded = connect(&desk(&odd, &definition("basic")), &[]).await.unwrap_err();
    assert_eq!((encoded.kind, encoded.status), (TokenErrorKind::Misconfigured, Some(401)));
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_answers_are_passing_errors_in_words_and_bring_no_token() {
    let peer = Peer::odd(&json!({}));
    let client = json!({ "id": "app", "secret": "s" });
    let desk = desk(&peer, &json!({ "authorize": "PEER/authorize", "token": "PEER/token", "client": client }));
    let grant = connect(&desk, &[]).await.unwrap();
    let held = &grant.tokens["default"];
    for fault in [
        json!({ "text": "<html>Maintenance</html>" }),
        json!({ "status": 503, "replace": { "error": "temporarily_unavailable" } }),
        json!({ "filler": 5_000_000 }),
        json!({ "body": { "access_token": ["a", "list"] } }),
        json!({ "body": { "access_token": null } }),
        json!({ "redirect": "http://127.0.0.1:1/elsewhere" }),
    ] {
        peer.post("/-/next", &json!([fault]));
        let error = refresh(&desk, held).await.err().unwrap_or_else(|| panic!("{fault} brought a token"));
        assert_ne!(error.kind, TokenErrorKind::Permanent, "{fault}: {error}");
        assert!(error.words.is_some() || error.code.is_some(), "{fault}: {error}");
    }
    for (fault, seconds) in [
        (json!({ "body": { "expires_in": "3600" } }), Some(3_600)),
        (json!({ "body": { "expires_in": null } }), None),
        (json!({ "body": { "token_type": null }, "status": 201 }), Some(3_600)),
    ] {
        peer.post("/-/next", &json!([fault]));
        let grant = refresh(&desk, held).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
        let token = &grant.tokens["default"];
        assert_eq!(token.expires_at.map(|end| end.since(token.issued_at).as_secs()), seconds, "{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn django_connects_expires_rotates_and_revokes() {
    let peer = Peer::django(&json!({ "id": "app", "secret": SECRET, "redirect_uris": [CALLBACK] }));
    let desk = desk(
        &peer,
        &json!({
            "authorize": "PEER/o/authorize/", "token": "PEER/o/token/", "client_auth": "basic", "refresh_tokens": "rotate",
            "client": { "id": "app", "secret": SECRET }, "scopes": scopes(&["read"]),
            "revoke": { "request": "POST PEER/o/revoke_token/", "credential": "none",
                "form": { "token": "{{ token.access }}", "client_id": "{{ client.id }}", "client_secret": "{{ client.secret }}" } },
            "identity": { "request": "GET /api/me", "id": "body.id", "name": "body.username", "email": "body.email" },
        }),
    );
    let mut tokens: BTreeMap<Arc<str>, Issued> = connect(&desk, &["read"]).await.unwrap().tokens;
    let who = desk.calls.identity(desk.account(), &tokens).await.unwrap().unwrap();
    assert_eq!((who.name.as_deref(), who.email.as_deref()), (Some("ada"), Some("ada@example.com")));
    peer.post("/-/expire", &json!({}));
    // It answers 403 where others answer 401.
    assert!(desk.calls.identity(desk.account(), &tokens).await.is_err());
    let renewed = refresh(&desk, &tokens["default"]).await.unwrap();
    assert!(renewed.tokens["default"].refresh.is_some());
    tokens.extend(renewed.tokens);
    assert!(desk.calls.identity(desk.account(), &tokens).await.is_ok());
    assert_eq!(desk.calls.revoke(desk.account(), &tokens).await.ok(), Some(true));
    assert!(desk.calls.identity(desk.account(), &tokens).await.is_err());
}
