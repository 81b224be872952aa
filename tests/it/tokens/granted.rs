//! Grants by assertion and by another device.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::connection::flow::{Poll, Purpose};
use trunkline::connection::grant::{TokenError, TokenErrorKind};

use super::world::{at, body, header, held, pair, world, world_at};
use super::{client, service};
use crate::calls::service::{Answer, Service};
use crate::support::origin::serve;
use crate::support::tls::Authority;

const KEY: &str = "0123456789abcdef0123456789abcdef";

pub fn assertion(claims: &Value) -> Value {
    json!({ "algorithm": "HS256", "key": KEY, "key_id": "k1", "claims": claims, "ttl": "2m" })
}

/// The claims of a token, once its signature was checked.
pub fn claims(token: &str) -> Value {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).expect("the signature fits");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

pub fn param(request: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(body(request).as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_signed_assertion_becomes_a_token() {
    let service = service().await;
    let oauth2 = json!({
        "grant": "jwt_bearer", "token": "SVC/token", "scopes": [{ "name": "a", "grants": "A", "default": true }],
        "assertion": assertion(&json!({ "iss": "robot@project", "aud": "https://a.example/token", "scope": "{{ scopes.default | join(' ') }}" })),
    });
    let world = world(&service, &oauth2);
    world.obtain(Purpose::JwtBearer).await.unwrap();
    world.renew("default", &held("old", None)).await.unwrap();
    let requests = service.seen();
    let sent: Vec<_> = requests.iter().map(|request| param(request, "assertion").unwrap()).collect();
    let told = claims(&sent[0]);
    assert_eq!((&told["iss"], &told["scope"]), (&json!("robot@project"), &json!("a")));
    assert_eq!(told["exp"].as_u64().unwrap() - told["iat"].as_u64().unwrap(), 120);
    assert_ne!(sent[0], sent[1], "each is signed anew");
    assert_eq!(param(&requests[0], "grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:jwt-bearer"));
    assert!(param(&requests[0], "client_id").is_none());
}

/// GitHub's installation tokens: the assertion is the credential, and the answer is no RFC's.
#[tokio::test]
async fn an_assertion_may_be_the_credential_itself() {
    let answer = r#"{"token":"ghs_1","expires_at":"2100-01-01T00:00:00Z"}"#;
    let service = Service::start(move |_| Answer::json(201, answer)).await;
    let token = json!({
        "request": "POST SVC/app/installations/{{ saved.installation }}/access_tokens", "params_in": "query",
        "omit": ["grant_type", "assertion", "scope"], "headers": { "Authorization": "Bearer {{ assertion }}" },
        "tokens": { "default": { "access": "body.token", "expires": { "at": "body.expires_at", "unit": "rfc3339" } } },
    });
    let oauth2 = json!({ "grant": "jwt_bearer", "token": token, "assertion": assertion(&json!({ "iss": "app-1" })) });
    let mut world = world(&service, &oauth2);
    world.saved = json!({ "installation": 42 }).as_object().unwrap().clone();
    let grant = world.obtain(Purpose::JwtBearer).await.unwrap();
    let request = service.seen().remove(0);
    assert!(request.starts_with("POST /app/installations/42/access_tokens HTTP"), "{request}");
    assert_eq!(claims(header(&request, "authorization").unwrap().strip_prefix("Bearer ").unwrap())["iss"], "app-1");
    assert_eq!((pair(&grant, "default").0, body(&request)), ("ghs_1", ""));
    assert_eq!(grant.tokens["default"].expires_at.unwrap().seconds(), 4_102_444_800);
}

#[tokio::test]
async fn an_application_may_prove_itself_by_assertion() {
    let service = service().await;
    let oauth2 = json!({
        "grant": "client_credentials", "token": "SVC/token", "client": { "id": "app" }, "client_auth": "private_key_jwt",
        "assertion": assertion(&json!({})),
    });
    world(&service, &oauth2).obtain(Purpose::ClientCredentials).await.unwrap();
    let request = service.seen().remove(0);
    let told = claims(&param(&request, "client_assertion").unwrap());
    assert_eq!(
        (&told["iss"], &told["sub"], &told["aud"]),
        (&json!("app"), &json!("app"), &json!(at(&service, "/token")))
    );
    assert!(told["jti"].is_string());
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    assert_eq!(param(&request, "client_assertion_type").as_deref(), Some(kind));
    assert!(header(&request, "authorization").is_none() && param(&request, "client_secret").is_none());
}

#[tokio::test]
async fn a_connection_may_bring_its_own_key() {
    let service = service().await;
    let mut oauth2 =
        json!({ "grant": "jwt_bearer", "token": "SVC/token", "assertion": assertion(&json!({ "iss": "x" })) });
    oauth2["assertion"].as_object_mut().unwrap().remove("key");
    let mut world = world(&service, &oauth2);
    let error = world.obtain(Purpose::JwtBearer).await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Misconfigured);
    assert!(error.to_string().contains("there is no key to sign with"), "{error}");
    world.inputs = json!({ "private_key": KEY }).as_object().unwrap().clone();
    world.obtain(Purpose::JwtBearer).await.unwrap();
    assert_eq!(claims(&param(&service.seen()[0], "assertion").unwrap())["iss"], "x");
}

fn device() -> Value {
    json!({
        "grant": "device_code", "device": "POST SVC/device", "token": "SVC/token", "client": client(),
        "scopes": [{ "name": "a", "grants": "A", "default": true }],
    })
}

#[tokio::test]
async fn a_person_consents_on_another_device() {
    let polls = AtomicUsize::new(0);
    let service = Service::start(move |request| {
        if request.starts_with("POST /device ") {
            let code = r#"{"device_code":"dc","user_code":"AB-CD","verification_uri":"https://a.example/device","expires_in":600,"interval":3}"#;
            return Answer::json(200, code);
        }
        match polls.fetch_add(1, Ordering::SeqCst) {
            0 => Answer::json(400, r#"{"error":"authorization_pending"}"#),
            1 => Answer::json(400, r#"{"error":"slow_down"}"#),
            2 => Answer::json(503, "{}"),
            _ => Answer::json(200, r#"{"access_token":"at","refresh_token":"rt"}"#),
        }
    })
    .await;
    let world = world(&service, &device());
    let code = world.calls.device_code(world.account(), None).await.unwrap();
    assert_eq!(body(&service.seen()[0]), "client_id=app&scope=a");
    assert_eq!((code.user_code.as_str(), code.interval), ("AB-CD", Duration::from_secs(3)));
    let mut wait = code.interval;
    let mut waits = Vec::new();
    let grant = loop {
        match world.calls.device_poll(world.account(), &code, wait).await.unwrap() {
            Poll::Pending(next) => {
                waits.push(next.as_secs());
                wait = next;
            }
            Poll::Granted(grant) => break grant,
        }
    };
    assert_eq!(waits, [3, 8, 16], "slow_down adds five seconds, and what does not get through doubles");
    assert_eq!(pair(&grant, "default"), ("at", Some("rt")));
    let poll = &service.seen()[1];
    assert_eq!(param(poll, "grant_type").as_deref(), Some("urn:ietf:params:oauth:grant-type:device_code"));
    assert_eq!(param(poll, "device_code").as_deref(), Some("dc"));
}

#[tokio::test]
async fn a_device_flow_ends_when_a_person_says_no_or_nothing() {
    for (code, words) in [("access_denied", "the person said no"), ("expired_token", "nobody consented in time")] {
        let service = Service::start(move |request| {
            if request.starts_with("POST /device ") {
                let answer = r#"{"device_code":"dc","user_code":"A","verification_url":"https://a.example/d"}"#;
                return Answer::json(200, answer);
            }
            Answer::json(400, &json!({ "error": code }).to_string())
        })
        .await;
        let world = world(&service, &device());
        let code = world.calls.device_code(world.account(), None).await.unwrap();
        assert_eq!(code.interval, Duration::from_secs(5), "the RFC's default");
        let error = world.calls.device_poll(world.account(), &code, code.interval).await.unwrap_err();
        assert_eq!(error.kind, TokenErrorKind::Permanent);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn an_answer_without_a_place_to_go_is_refused() {
    let answer = r#"{"device_code":"dc","user_code":"A","verification_uri":"javascript:alert(1)"}"#;
    let service = Service::start(move |_| Answer::json(200, answer)).await;
    let world = world(&service, &device());
    let error = world.calls.device_code(world.account(), None).await.unwrap_err();
    assert!(error.to_string().contains("`verification_uri` is no address"), "{error}");
}

/// RFC 8705: a service that takes no connection without a certificate of its own people.
#[tokio::test]
async fn token_calls_and_calls_of_the_api_are_made_with_the_applications_certificate() {
    let (services, clients) = (Authority::new(), Authority::new());
    let acceptor = services.strict_acceptor("svc.example", &clients);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or_default();
            if read > 0 {
                let body = r#"{"access_token":"at"}"#;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
                drop(stream.shutdown().await);
            }
        }
    })
    .await;
    let base = format!("https://svc.example:{}", address.port());
    let api = json!({ "base_url": "SVC/api", "allow_private": true, "tls": { "ca": services.pem() } });
    let ask = async |client: Value| {
        let identity = json!({ "request": "GET /me", "id": "body.access_token" });
        let oauth2 = json!({ "grant": "client_credentials", "token": "SVC/token", "client": client, "client_auth": "none",
            "identity": identity });
        let world = world_at(&base, &oauth2, &json!({ "api": api }));
        let grant = world.obtain(Purpose::ClientCredentials).await?;
        let who = world.calls.identity(world.account(), &grant.tokens).await?;
        Ok::<_, TokenError>((grant, who.map(|who| who.id)))
    };
    let (certificate, key) = clients.client();
    let (grant, who) =
        ask(json!({ "id": "app", "certificate": { "certificate": certificate, "key": key } })).await.unwrap();
    assert_eq!((pair(&grant, "default").0, who.as_deref()), ("at", Some("at")));
    assert!(ask(json!({ "id": "app" })).await.is_err(), "without it there is no connection");
}
