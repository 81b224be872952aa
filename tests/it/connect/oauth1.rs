//! OAuth 1.0a in a browser, against `trunkline mock` and against oauthlib: consent, and everything that goes wrong
//! on the way to it and back.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use trunkline::base::clock::{Clock, ManualClock};
use trunkline::base::random::SystemRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::templates::Templates;
use trunkline::mock::{Consent, Controls, Mock, Simulated};

use super::bad_input::{calls, departed, parameter};
use super::desk::{APP, Behind, Browser, Desk, error_of, html};
use super::entered::trial;
use crate::support::browser;
use crate::support::origin::serve;
use crate::support::peer::Peer;
use crate::support::tls::Authority;

const KEY: &str = include_str!("../../vectors/keys/rsa.pkcs8.pem");
const PUBLIC_KEY: &str = include_str!("../../vectors/keys/rsa.public.pem");
const SECRET: &str = "a+/=%&b";
/// Signatures as definitions and as the wire name them, with the application's secret.
const METHODS: [(&str, &str, &str); 4] = [
    ("hmac_sha1", "HMAC-SHA1", SECRET),
    ("hmac_sha256", "HMAC-SHA256", SECRET),
    ("rsa_sha1", "RSA-SHA1", KEY),
    ("plaintext", "PLAINTEXT", SECRET),
];

/// A definition `hub` whose calls of the three legs go to `legs`, and people to `people`.
fn definition((legs, people): (&str, &str), signature: &str, secret: &str, api: &Value) -> Simulated {
    let resolved = json!({
        "trunkline": 1, "id": "hub", "title": "Hub",
        "auth": { "oauth1": {
            "request_token": format!("POST {legs}/request_token"), "authorize": format!("{people}/authorize?name=App"),
            "access_token": format!("POST {legs}/access_token"),
            "signature": signature, "client": { "id": "app", "secret": secret },
        } },
        "api": api,
    });
    let document = Document::unplaced("hub.yaml".into(), resolved.clone());
    let integration = compile::integration(&document, &Templates::new());
    Simulated { integration: Arc::new(integration.unwrap_or_else(|fault| panic!("{}", fault.message))), resolved }
}

fn own(simulated: Simulated) -> trunkline::definition::plan::Integration {
    Arc::into_inner(simulated.integration).unwrap()
}

/// A desk whose service is the mock. `signs` is the secret that the gateway has.
async fn mocked(signature: &str, secret: &str, signs: &str, consent: Consent) -> (Desk, Arc<Mock>) {
    let api = json!({ "base_url": "https://api.hub.example/v1", "test": "GET /me?fields=a%20b" });
    let places = ("https://hub.example/oauth", "https://hub.example/oauth");
    let mut started = None;
    let desk = Desk::over(APP, |_, clock: Arc<ManualClock>| -> Behind {
        let simulated = definition(places, signature, secret, &api);
        let controls = Controls { consent, ..Controls::default() };
        let clock: Arc<dyn Clock> = clock;
        let mock = Mock::new(&[simulated], controls, Arc::clone(&clock), Arc::new(SystemRandom::default()));
        let mock = Arc::new(mock);
        let address = crate::mock::serve(Arc::clone(&mock));
        started = Some(mock);
        let integration = own(definition(places, signature, signs, &api));
        (vec![integration], Arc::new(calls(&clock, Some(address))), Some(trial(&clock, Some(address))))
    })
    .await;
    (desk, started.unwrap())
}

/// The query that a person comes back with who decides so.
async fn decided(desk: &Desk, browser: &mut Browser<'_>, decision: &'static str) -> (String, String) {
    let (url, result) = departed(desk, browser).await;
    let back = format!("http://localhost:{}/api/auth/callback/hub", desk.door.port());
    let page = tokio::task::spawn_blocking(move || {
        let mut person = browser::Browser::default();
        person.stop = Some(back);
        let page = person.open(&url);
        if page.forms().is_empty() { page } else { person.submit(&page, &[("decision", decision)]) }
    });
    (page.await.unwrap().url.query().unwrap_or_default().to_owned(), result)
}

/// Comes back, and follows to the page that says how it ended.
async fn outcome(browser: &mut Browser<'_>, query: &str) -> String {
    let reply = browser.callback(query).await;
    match reply.header("location").map(str::to_owned) {
        Some(place) => html(&browser.get(&place).await),
        None => html(&reply),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_consents_at_the_mock_and_calls_are_signed_with_what_came_of_it() {
    for (signature, _, secret) in METHODS {
        let (desk, mock) = mocked(signature, secret, secret, Consent::Asked).await;
        let mut browser = Browser::new(&desk);
        let (query, result) = decided(&desk, &mut browser, "allow").await;
        let page = outcome(&mut browser, &query).await;
        assert!(page.contains("Hub is connected"), "{signature}: {page}");
        let shown = desk.connect.outcome(&result).await.unwrap().unwrap();
        assert_eq!(shown.state, "connected", "{signature}");
        // The connection was tried: the mock verifies every call.
        let called = mock.requests().pop().unwrap();
        assert_eq!((&called["request"]["path"], &called["status"]), (&json!("/v1/me"), &json!(200)), "{signature}");
        assert_eq!(mock.control("hub", &json!({})).unwrap(), json!({ "tokens": 1, "issued": 1, "refused": 0 }));
        let health = desk.connections.health("hub", "acme").await;
        assert!(health.last_test.is_some_and(|test| test.passed), "{signature}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_says_no_connects_nothing() {
    for consent in [Consent::Asked, Consent::Denied] {
        let (desk, _mock) = mocked("hmac_sha1", SECRET, SECRET, consent).await;
        let mut browser = Browser::new(&desk);
        let (query, result) = decided(&desk, &mut browser, "deny").await;
        assert!(query.contains("denied="), "{query}");
        let page = outcome(&mut browser, &query).await;
        assert!(page.contains("Access was not granted") && page.contains("Try again"), "{page}");
        let shown = desk.connect.outcome(&result).await.unwrap().unwrap();
        assert_eq!(error_of(&shown)["code"], "denied");
        assert_eq!(desk.records("connections").await, 0);
        assert_eq!(desk.activity.newest(1, |_| true)[0].error.as_deref(), Some("denied"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_changed_connects_nothing() {
    let changed = |query: &str, name: &str, value: &str| query.replace(&parameter(query, name), value);
    let (desk, mock) = mocked("hmac_sha256", SECRET, SECRET, Consent::Granted).await;
    // A verifier of someone else's: the service refuses it, and says so.
    let mut browser = Browser::new(&desk);
    let (query, result) = decided(&desk, &mut browser, "allow").await;
    let page = outcome(&mut browser, &changed(&query, "oauth_verifier", "mock-verifier-of-nobody")).await;
    assert!(page.contains("refused to finish"), "{page}");
    for said in ["auth.oauth1.access_token", "401", "is not the one that was given"] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert_eq!(error_of(&desk.connect.outcome(&result).await.unwrap().unwrap())["code"], "code_refused");
    // No verifier at all.
    let (query, _) = decided(&desk, &mut Browser::new(&desk), "allow").await;
    assert_eq!(Browser::new(&desk).callback(&query).await.code(), Some("flow_unknown"), "it is another browser's");
    let mut browser = Browser::new(&desk);
    let (query, _) = decided(&desk, &mut browser, "allow").await;
    let (state, token) = (parameter(&query, "state"), parameter(&query, "oauth_token"));
    let page = outcome(&mut browser, &format!("state={state}&oauth_token={token}")).await;
    assert!(page.contains("without a confirmation"), "{page}");
    // Another person's token: refused before anything is sent.
    let mut browser = Browser::new(&desk);
    let (query, _) = decided(&desk, &mut browser, "allow").await;
    let calls = mock.requests().len();
    let reply = browser.callback(&changed(&query, "oauth_token", "mock-token-of-another")).await;
    assert_eq!((reply.status, reply.code()), (400, Some("flow_unknown")));
    let refused: Vec<_> = desk.audit().await.into_iter().filter(|(action, _)| action == "connect.refused").collect();
    let reasons: Vec<_> = refused.iter().map(|(_, detail)| detail["reason"].clone()).collect();
    assert_eq!(reasons, [json!("other_browser"), json!("other_token")]);
    assert_eq!((mock.requests().len(), desk.records("connections").await), (calls, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_first_call_is_told_with_its_name_what_was_answered_and_what_to_do() {
    let (desk, mock) = mocked("hmac_sha1", SECRET, "canary-other-secret", Consent::Asked).await;
    let mut browser = Browser::new(&desk);
    let made = desk.link().await;
    browser.get(super::desk::target(&made.url)).await;
    let reply = browser.post(super::desk::target(&made.url), "").await;
    let page = html(&browser.get(reply.header("location").unwrap_or_else(|| panic!("{}", reply.text()))).await);
    for said in [
        "refused to begin the sign-in",
        "You did nothing wrong",
        "Tell whoever runs this application",
        "auth.oauth1.request_token",
        "401",
        "the signature is wrong",
    ] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert!(!page.contains("canary") && !page.contains("confirmation it had just given"), "{page}");
    assert_eq!(error_of(&desk.connect.outcome(&made.result).await.unwrap().unwrap())["code"], "begin_refused");
    assert_eq!(mock.control("hub", &json!({})).unwrap()["refused"], 1);
    assert_eq!(desk.records("connect_flows").await, 0);
}

/// TLS in front of a peer: PLAINTEXT goes over nothing else.
async fn behind_tls(authority: &Authority, behind: SocketAddr) -> SocketAddr {
    let acceptor = authority.acceptor("oauth.test", &[]);
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut outside) = acceptor.accept(stream).await else { return };
            let mut inside = TcpStream::connect(behind).await.unwrap();
            drop(tokio::io::copy_bidirectional(&mut outside, &mut inside).await);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn oauthlib_lets_a_person_connect_in_every_way_of_signing() {
    for (signature, method, secret) in METHODS {
        let (authority, mut started) = (Authority::new(), None);
        let desk = Desk::over(APP, |address, clock: Arc<ManualClock>| -> Behind {
            let callback = format!("http://localhost:{}/api/auth/callback/hub", address.port());
            let peer = Peer::oauth1(&json!({
                "key": "app", "secret": secret, "method": method, "public_key": PUBLIC_KEY,
                "redirect_uris": [callback], "scheme": "https", "timestamp_lifetime": 1_u64 << 40,
            }));
            let tls = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(behind_tls(&authority, peer.address))
            });
            let legs = format!("https://oauth.test:{}", tls.port());
            let api = json!({ "base_url": format!("{legs}/api"), "tls": { "ca": authority.pem() },
                    "http": "1.1", "allow_private": true, "test": "GET /me" });
            let integration = own(definition((&legs, &peer.url()), signature, secret, &api));
            started = Some(peer);
            let clock: Arc<dyn Clock> = clock;
            (vec![integration], Arc::new(calls(&clock, None)), Some(trial(&clock, None)))
        })
        .await;
        let mut browser = Browser::new(&desk);
        let (query, _) = decided(&desk, &mut browser, "allow").await;
        let page = outcome(&mut browser, &query).await;
        assert!(page.contains("Hub is connected"), "{method}: {page}");
        let health = desk.connections.health("hub", "acme").await;
        assert!(health.last_test.is_some_and(|test| test.passed), "{method}: oauthlib verified the test call");
        // The same verifier a second time, and one of nobody's.
        let mut browser = Browser::new(&desk);
        let (query, _) = decided(&desk, &mut browser, "allow").await;
        let forged = query.replace(&parameter(&query, "oauth_verifier"), "another");
        let page = outcome(&mut browser, &forged).await;
        assert!(page.contains("refused to finish") && page.contains("auth.oauth1.access_token"), "{method}: {page}");
        drop(started);
    }
}
