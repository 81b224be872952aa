//! Ways of signing in that are not OAuth 2.0, at the proxy door and in the gateway's own calls: what a service
//! gets is what was signed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::activity::{Activity, Asker};
use trunkline::base::clock::{Clock, SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::base::secret::Secret;
use trunkline::connection::grant::{Account, TokenErrorKind};
use trunkline::connection::sign::{Body, Unsigned, oauth1, sigv4};
use trunkline::connection::sign_in;
use trunkline::connection::sign_in::oauth1::{Consent, ThreeLegs};
use trunkline::connection::{Connections, Status};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::plan::Integration;
use trunkline::definition::plan::oauth1::Signature;
use trunkline::definition::templates::Templates;
use trunkline::net::resolve::{Resolver, SystemDns};
use trunkline::net::{Clients, Dialer, Trust};
use trunkline::telemetry::metrics::Metrics;

use crate::calls::service::{Answer, Service};
use crate::support::desk::turns;
use crate::support::doors::{Doors, Setup, generation};
use crate::support::origin::{Recorder, Seen, serve};
use crate::support::raw::{PATIENCE, Reply, call};
use crate::support::tls::Authority;

/// A definition with these blocks, as a file would bring it.
fn definition(blocks: &Value) -> Integration {
    let mut whole = json!({ "trunkline": 1, "id": "svc" });
    whole.as_object_mut().unwrap().extend(blocks.as_object().unwrap().clone());
    let document = Document::unplaced("svc.yaml".into(), whole);
    compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{}", fault.message))
}

/// An API at an address with an endpoint `add` that sends a form, and `put` that sends JSON.
fn api(url: &str) -> Value {
    json!({
        "base_url": url,
        "endpoints": [
            { "id": "add", "request": "POST /add?a=%C3%A9", "form": { "x y": "{{ input.x }}", "k": "2" } },
            { "id": "put", "request": "PUT /put", "json": { "x": "{{ input.x }}" } },
            { "id": "get", "request": "GET /get" },
        ],
    })
}

fn with(url: &str, auth: &Value, connection: &Value) -> Doors {
    let connections: Vec<_> = connection.as_object().map(|_| connection.clone()).into_iter().collect();
    Doors::start(Setup::of(definition(&json!({ "auth": auth, "api": api(url), "connections": connections }))))
}

/// Runs an endpoint by name: a call of the gateway's own.
async fn own(door: SocketAddr, endpoint: &str) -> Reply {
    call(door, &format!("POST /svc/-/{endpoint}"), "", r#"{"x": "1&2"}"#).await
}

/// A request as a signature sees it.
struct Got {
    method: Method,
    path: String,
    query: String,
    authority: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn of(seen: &Seen) -> Self {
        let mut line = seen.first_line().split(' ');
        let method = line.next().unwrap().parse().unwrap();
        let (path, query) = line.next().map(|target| target.split_once('?').unwrap_or((target, ""))).unwrap();
        let fields = seen.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let headers: HeaderMap = fields
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value.trim()).unwrap()))
            .collect();
        let authority = headers["host"].to_str().unwrap().to_owned();
        Self { method, path: path.to_owned(), query: query.to_owned(), authority, headers, body: seen.body.clone() }
    }

    fn of_text(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        Self::of(&Seen { head: head.to_owned(), body: body.as_bytes().to_vec() })
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    fn unsigned(&self) -> Unsigned<'_> {
        Unsigned {
            method: &self.method,
            secure: false,
            authority: &self.authority,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
            body: Body::Whole(&self.body),
        }
    }
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// What a shared secret signed, after another library has verified it.
fn claims(seen: &Seen, secret: &[u8]) -> Value {
    let token = seen.all("authorization")[0].strip_prefix("Bearer ").unwrap().to_owned();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.validate_aud = false;
    let key = jsonwebtoken::DecodingKey::from_secret(secret);
    jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims
}

#[tokio::test]
async fn a_signed_token_goes_on_every_call_and_serves_for_a_while() {
    let origin = Recorder::start().await;
    let auth = json!({ "jwt": { "algorithm": "HS256", "key": "a-shared-secret", "claims": { "sub": "{{ connection.id }}" } } });
    let doors = with(&origin.url(), &auth, &Value::Null);
    for _ in 0..2 {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    }
    own(doors.proxy, "get").await;
    let seen = origin.all();
    let claims = claims(&seen[0], b"a-shared-secret");
    assert_eq!(claims["sub"], "default");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert!(seen.iter().all(|other| other.all("authorization") == seen[0].all("authorization")) && seen.len() == 3);
}

#[tokio::test]
async fn a_token_that_lives_a_second_is_made_again_before_it_ends() {
    let origin = Recorder::start().await;
    let auth = json!({ "jwt": { "algorithm": "HS256", "key_encoding": "hex", "ttl": "1s" } });
    let doors = with(&origin.url(), &auth, &json!({ "id": "default", "api_key": "6b6b6b6b" }));
    let two = async {
        let mut tokens = std::collections::HashSet::new();
        while tokens.len() < 2 {
            assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
            tokens.insert(origin.last().all("authorization")[0].to_owned());
        }
    };
    tokio::time::timeout(PATIENCE, two).await.expect("a second token within the patience of a test");
    claims(&origin.last(), b"kkkk");
}

/// `20150830T123600Z` as a moment.
fn moment_of(written: &str) -> Timestamp {
    let part = |range| written.get(range).unwrap();
    let day = [part(0..4), part(4..6), part(6..8)].join("-");
    let time = [part(9..11), part(11..13), part(13..15)].join(":");
    Timestamp::parse_rfc3339(&format!("{day}T{time}Z")).unwrap()
}

/// The `Authorization` that a request should have, by what it was signed with.
fn resigned(got: &Got, service: &str, session: Option<&Secret>) -> String {
    let at = got.header("x-amz-date");
    let secret = Secret::from("a-secret-access-key");
    let key = sigv4::AccessKey { id: "AKID", secret: &secret, session };
    let scope = sigv4::Scope { service, region: "eu-central-1" };
    let signed = sigv4::headers(&got.unsigned(), scope, key, moment_of(at)).unwrap();
    let signed: HeaderMap = signed.into_iter().collect();
    signed["authorization"].to_str().unwrap().to_owned()
}

fn access_key(session: Option<&str>) -> Value {
    let mut connection = json!({ "id": "default", "username": "AKID", "password": "a-secret-access-key" });
    if let Some(session) = session {
        connection["token"] = session.into();
    }
    connection
}

#[tokio::test]
async fn aws_gets_calls_signed_as_it_gets_them() {
    let origin = Recorder::start().await;
    let auth = json!({ "sigv4": { "service": "execute-api", "region": "eu-central-1" } });
    for session in [None, Some("a-session-token")] {
        let doors = with(&format!("{}/base", origin.url()), &auth, &access_key(session));
        let smuggled = "X-Amz-Security-Token: evil\r\nX-Amz-Date: 20000101T000000Z\r\nX-Amz-Target: A.B\r\n";
        let json = format!("{JSON}{smuggled}");
        for (line, headers, body) in [
            ("GET /svc/a%20b/c?z=1&a=%2F&a=%C3%A9", smuggled, ""),
            ("POST /svc/a?x=1", &*json, "{\"a\": [1, 2]}"),
            ("DELETE /svc/a", "", ""),
        ] {
            assert_eq!(call(doors.proxy, line, headers, body).await.status, 200, "{line}");
            let got = Got::of(&origin.last());
            assert_eq!(got.body, body.as_bytes());
            let session = session.map(Secret::from);
            assert_eq!(got.header("authorization"), resigned(&got, "execute-api", session.as_ref()), "{line}");
            assert_eq!(got.headers.get("x-amz-security-token").is_some(), session.is_some());
        }
        for endpoint in ["add", "put", "get"] {
            own(doors.proxy, endpoint).await;
            let got = Got::of(&origin.last());
            let session = session.map(Secret::from);
            assert_eq!(got.header("authorization"), resigned(&got, "execute-api", session.as_ref()), "{endpoint}");
        }
    }
}

#[tokio::test]
async fn a_body_that_must_be_signed_and_is_too_large_is_refused_before_anything_is_sent() {
    let origin = Recorder::start().await;
    let auth = json!({ "sigv4": { "service": "execute-api", "region": "eu-central-1" } });
    let mut api = api(&origin.url());
    api["body_limit"] = "1KiB".into();
    let blocks = json!({ "auth": auth, "api": api, "connections": [access_key(None)] });
    let doors = Doors::start(Setup::of(definition(&blocks)));
    let reply = call(doors.proxy, "POST /svc/a", JSON, &"x".repeat(1025)).await;
    assert_eq!((reply.status, reply.code()), (413, Some("body_too_large")));
    assert_eq!(call(doors.proxy, "POST /svc/a", JSON, &"x".repeat(1024)).await.status, 200);
    assert_eq!(origin.all().len(), 1);
}

#[tokio::test]
async fn uploads_to_s3_stream_over_tls_and_are_signed_as_such() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("s3.test", &[]);
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = Arc::clone(&heads);
    let address = serve(move |stream| {
        let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            if let Some(head) = head_of(&mut stream).await {
                kept.lock().unwrap().push(head);
                drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await);
                drop(stream.shutdown().await);
            }
        }
    })
    .await;
    let mut api = api(&format!("https://s3.test:{}", address.port()));
    (api["tls"], api["http"], api["allow_private"]) = (json!({ "ca": authority.pem() }), "1.1".into(), true.into());
    let auth = json!({ "sigv4": { "service": "s3", "region": "eu-central-1" } });
    let blocks = json!({ "auth": auth, "api": api, "connections": [access_key(None)] });
    let mut setup = Setup::of(definition(&blocks));
    setup.names = vec![("s3.test", vec!["127.0.0.1"])];
    setup.private_networks =
        vec![trunkline::definition::plan::gateway::Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
    let reply = call(Doors::start(setup).proxy, "PUT /svc/bucket/a%20b", "Content-Type: text/plain\r\n", "hello").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let got = Got::of(&Seen { head: heads.lock().unwrap()[0].clone(), body: Vec::new() });
    assert_eq!(got.header("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
    let streamed = Unsigned { secure: true, body: Body::Streamed, ..got.unsigned() };
    let secret = Secret::from("a-secret-access-key");
    let key = sigv4::AccessKey { id: "AKID", secret: &secret, session: None };
    let at = got.header("x-amz-date");
    let scope = sigv4::Scope { service: "s3", region: "eu-central-1" };
    let signed = sigv4::headers(&streamed, scope, key, moment_of(at)).unwrap();
    let signed: HeaderMap = signed.into_iter().collect();
    assert_eq!(got.header("authorization"), signed["authorization"]);
}

async fn head_of(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(bytes).unwrap())
}

/// The parameters of an OAuth 1.0a header.
fn params(got: &Got) -> BTreeMap<String, String> {
    let header = got.header("authorization").strip_prefix("OAuth ").unwrap();
    let pairs = header.split(", ").map(|pair| pair.split_once('=').unwrap());
    let decoded =
        |text: &str| percent_encoding::percent_decode_str(text.trim_matches('"')).decode_utf8_lossy().into_owned();
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn fits(got: &Got, token: Option<(&Secret, &Secret)>) -> bool {
    let mut params = params(got);
    let (sent, _realm) = (params.remove("oauth_signature").unwrap(), params.remove("realm"));
    assert_eq!(params.get("oauth_token").map(String::as_str), token.map(|(token, _)| token.expose().as_str()));
    let pairs: Vec<_> = params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let signatory = oauth1::Signatory {
        method: &Signature::HmacSha256,
        consumer: "app",
        secret: &"app-secret".into(),
        token: token.map(|(token, secret)| (token, Some(secret))),
        realm: None,
    };
    sent == *oauth1::signature(&got.unsigned(), signatory, &pairs).unwrap().expose()
}

#[tokio::test]
async fn oauth_1_signs_queries_and_forms_as_the_service_gets_them() {
    let origin = Recorder::start().await;
    let auth = json!({ "oauth1": {
        "request_token": "POST https://a.example/r", "authorize": "https://a.example/a",
        "access_token": "POST https://a.example/t", "signature": "hmac_sha256", "realm": "{{ connection.id }}",
        "client": { "id": "app", "secret": "app-secret" },
    } });
    let (token, secret) = (Secret::from("the-token"), Secret::from("the-token-secret"));
    let account = json!({ "id": "default", "token": "the-token", "token_secret": "the-token-secret" });
    for (connection, token) in [(account, Some((&token, &secret))), (json!({ "id": "default" }), None)] {
        let doors = with(&origin.url(), &auth, &connection);
        let mut nonces = std::collections::HashSet::new();
        for (line, headers, body) in [
            ("GET /svc/a%20b?z=1&a=%2F&a=b+c", "", ""),
            ("POST /svc/a?x=1", FORM, "b=1+2&a=%26%3D"),
            ("POST /svc/a?x=1", JSON, "{\"a\": \"b=c&d\"}"),
        ] {
            assert_eq!(call(doors.proxy, line, headers, body).await.status, 200, "{line}");
            let got = Got::of(&origin.last());
            assert!(fits(&got, token), "{line} {:?}", got.headers);
            assert_eq!(params(&got)["realm"], "default");
            nonces.insert(params(&got)["oauth_nonce"].clone());
        }
        for endpoint in ["add", "put", "get"] {
            own(doors.proxy, endpoint).await;
            assert!(fits(&Got::of(&origin.last()), token), "{endpoint}");
        }
        assert_eq!(nonces.len(), 3, "no two calls are alike");
    }
}

#[tokio::test]
async fn secrets_that_are_signatures_do_not_leave_unprotected() {
    let origin = Recorder::start().await;
    let auth = json!({ "oauth1": {
        "request_token": "POST https://a.example/r", "authorize": "https://a.example/a",
        "access_token": "POST https://a.example/t", "signature": "plaintext", "client": { "id": "app", "secret": "canary" },
    } });
    let doors = with(&origin.url(), &auth, &json!({ "id": "default", "token": "t" }));
    for reply in [call(doors.proxy, "GET /svc/a", "", "").await, own(doors.proxy, "get").await] {
        assert_eq!(reply.code(), Some("connection_unusable"), "{reply:?}");
        assert!(!reply.text().contains("canary"));
    }
    assert_eq!(origin.all().len(), 0);
}

#[tokio::test]
async fn a_key_in_the_body_is_a_field_of_it_and_a_call_without_fields_is_refused() {
    let origin = Recorder::start().await;
    let mut api = api(&origin.url());
    api["credential"] = json!({ "body": "k", "value": "{{ api_key }}" });
    let connection = json!({ "id": "default", "api_key": "the key" });
    let blocks = json!({ "auth": { "api_key": {} }, "api": api, "connections": [connection] });
    let doors = Doors::start(Setup::of(definition(&blocks)));
    for (headers, body, expected) in
        [(FORM, "a=1&k=mine", "a=1&k=the+key"), (JSON, "{\"a\": 1.50, \"k\": 2}", "{\"a\":1.50,\"k\":\"the key\"}")]
    {
        assert_eq!(call(doors.proxy, "POST /svc/a", headers, body).await.status, 200);
        assert_eq!(String::from_utf8(origin.last().body).unwrap(), expected);
    }
    for (endpoint, expected) in [("add", "x+y=1%262&k=the+key"), ("put", "{\"k\":\"the key\",\"x\":\"1&2\"}")] {
        own(doors.proxy, endpoint).await;
        assert_eq!(String::from_utf8(origin.last().body).unwrap(), expected);
    }
    let before = origin.all().len();
    for (line, headers, body) in
        [("GET /svc/a", "", ""), ("POST /svc/a", "Content-Type: text/plain\r\n", "a"), ("POST /svc/a", JSON, "[1]")]
    {
        let reply = call(doors.proxy, line, headers, body).await;
        assert_eq!((reply.status, reply.code()), (400, Some("invalid_input")), "{line} {body}");
    }
    assert_eq!(origin.all().len(), before);
}

#[tokio::test]
async fn a_client_certificate_is_shown_by_both_transports_and_the_service_is_verified_all_the_same() {
    let (services, clients) = (Authority::new(), Authority::new());
    let acceptor = services.strict_acceptor("svc.test", &clients);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
            if head_of(&mut stream).await.is_some() {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{shown}");
                drop(stream.write_all(answer.as_bytes()).await);
                drop(stream.shutdown().await);
            }
        }
    })
    .await;
    let ((certificate, key), (_, other_key)) = (clients.client(), clients.client());
    let doors = |auth: &Value, trusted: &Authority| {
        let mut api = api(&format!("https://svc.test:{}", address.port()));
        (api["tls"], api["http"], api["allow_private"]) = (json!({ "ca": trusted.pem() }), "1.1".into(), true.into());
        let mut setup = Setup::of(definition(&json!({ "auth": auth, "api": api })));
        setup.names = vec![("svc.test", vec!["127.0.0.1"])];
        setup.private_networks =
            vec![trunkline::definition::plan::gateway::Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
        Doors::start(setup)
    };
    let auth = json!({ "mtls": { "certificate": certificate, "key": key } });
    let with_certificate = doors(&auth, &services);
    let streamed = call(with_certificate.proxy, "GET /svc/a", "", "").await;
    assert_eq!((streamed.status, streamed.text().as_str()), (200, "1"), "{streamed:?}");
    let named = own(with_certificate.proxy, "get").await;
    assert_eq!(named.status, 200, "{named:?}");
    let without = doors(&json!({ "none": {} }), &services);
    assert_ne!(call(without.proxy, "GET /svc/a", "", "").await.status, 200);
    let elsewhere = doors(&auth, &clients);
    for reply in [call(elsewhere.proxy, "GET /svc/a", "", "").await, own(elsewhere.proxy, "get").await] {
        assert_eq!(reply.code(), Some("service_untrusted"), "{reply:?}");
    }
    let mismatched = json!({ "trunkline": 1, "id": "svc", "api": api("https://svc.test"),
        "auth": { "mtls": { "certificate": certificate, "key": other_key } } });
    let fault =
        compile::integration(&Document::unplaced("svc.yaml".into(), mismatched), &Templates::new()).unwrap_err();
    assert_eq!(fault.place.pointer, "/auth/mtls/key", "{}", fault.message);
}

#[tokio::test]
async fn a_token_got_elsewhere_is_carried_as_it_is() {
    let origin = Recorder::start().await;
    let auth = json!({ "oauth2": { "token": "https://a.example/t", "authorize": "https://a.example/a" } });
    let doors = with(&origin.url(), &auth, &json!({ "id": "default", "token": "elsewhere" }));
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
    assert_eq!(origin.last().all("authorization"), ["Bearer elsewhere"]);
}

/// Three legs and where their calls are told, over names that lead nowhere but to this machine's addresses.
fn three_legs() -> (ThreeLegs, Arc<Activity>) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let resolver = Resolver::new(Arc::new(SystemDns::new().unwrap()), Arc::clone(&clock));
    let clients = Clients::new(Arc::new(Dialer::new(resolver, None)), Trust::of(&[]));
    let (turns, random, metrics) =
        (turns(&clock), Arc::new(SystemRandom::default()), Arc::new(Metrics::new().unwrap()));
    let activity = Arc::<Activity>::default();
    let legs =
        ThreeLegs::new(sign_in::Parts { clients, clock, random, metrics, activity: Arc::clone(&activity), turns });
    (legs, activity)
}

fn three_legged(service: &Service) -> Value {
    let at = |path: &str| format!("http://127.0.0.1:{}/{path}", service.port());
    let auth = json!({ "oauth1": {
        "request_token": format!("POST {}", at("request_token")), "authorize": at("authorize?name=Trunk%20line"),
        "access_token": { "request": format!("POST {}", at("access_token")), "save": { "user": "body.user_id" } },
        "signature": "hmac_sha256", "client": { "id": "app", "secret": "app-secret" },
    } });
    json!({ "auth": auth, "api": api(&at("api")) })
}

#[tokio::test]
async fn the_three_legs_of_oauth_1_bring_a_token_that_signs() {
    let service = Service::start(|seen| {
        let temporary = "oauth_token=temp%2F1&oauth_token_secret=temp-secret&oauth_callback_confirmed=true";
        let form = [("content-type", "application/x-www-form-urlencoded")];
        match seen.split(' ').nth(1).unwrap() {
            "/request_token" => Answer::of(200, &[("content-type", "text/html")], temporary),
            "/access_token" => Answer::of(200, &form, "oauth_token=tok&oauth_token_secret=tok-secret&user_id=7"),
            _ => Answer::of(404, &[], ""),
        }
    })
    .await;
    let generation = generation(Setup::of(definition(&three_legged(&service))));
    let ((legs, activity), none) = (three_legs(), serde_json::Map::new());
    let integration = generation.integration("svc").unwrap();
    let account = Account { generation: &generation, integration, connection: "default", inputs: &none, saved: &none };
    let callback = "https://gateway.example/api/auth/callback/svc?state=a%20b";
    let temporary = legs.begin(account, callback).await.unwrap();
    assert!(temporary.url.ends_with("/authorize?name=Trunk%20line&oauth_token=temp%2F1"), "{}", temporary.url);
    let verifier = Secret::from("v+1");
    let consent = Consent { token: &temporary.token, secret: &temporary.secret, verifier: &verifier };
    let grant = legs.finish(account, consent).await.unwrap();
    let tokens: Vec<_> = grant.tokens.iter().map(|(name, token)| (&**name, token.access.expose().as_str())).collect();
    assert_eq!(tokens, [("default", "tok"), ("secret", "tok-secret")]);
    assert_eq!(Value::Object(grant.saved), json!({ "user": "7" }));
    let seen: Vec<Got> = service.seen().iter().map(|text| Got::of_text(text)).collect();
    assert!(fits(&seen[0], None) && params(&seen[0])["oauth_callback"] == callback);
    assert!(fits(&seen[1], Some((&temporary.token, &temporary.secret))) && params(&seen[1])["oauth_verifier"] == "v+1");
    let told = activity.newest(3, |_| true);
    let calls: Vec<_> = told.iter().map(|call| (call.endpoint.as_deref(), &*call.path, call.status)).collect();
    assert_eq!(
        calls,
        [(Some("access_token"), "/access_token", Some(200)), (Some("request_token"), "/request_token", Some(200))]
    );
    assert!(
        told.iter()
            .all(|call| call.asker == Asker::SignIn && call.received_bytes > 0 && &*call.connection == "default")
    );
    assert!(!format!("{told:?}").contains("secret") && !format!("{told:?}").contains("v+1"), "{told:?}");
}

#[tokio::test]
async fn a_service_that_does_not_confirm_the_callback_or_says_no_gets_nobody_sent() {
    for (status, answer, kind) in [
        (200, "oauth_token=t&oauth_token_secret=s", TokenErrorKind::Misconfigured),
        (200, "oauth_callback_confirmed=true&oauth_token=t", TokenErrorKind::Passing),
        (200, "<html>", TokenErrorKind::Misconfigured),
        (401, "oauth_problem=consumer_key_unknown", TokenErrorKind::Permanent),
        (503, "", TokenErrorKind::Passing),
        (302, "", TokenErrorKind::Permanent),
    ] {
        let service = Service::start(move |_| Answer::of(status, &[], answer)).await;
        let generation = generation(Setup::of(definition(&three_legged(&service))));
        let (integration, none) = (generation.integration("svc").unwrap(), serde_json::Map::new());
        let account =
            Account { generation: &generation, integration, connection: "default", inputs: &none, saved: &none };
        let error = three_legs().0.begin(account, "https://gateway.example/").await.unwrap_err();
        assert_eq!((error.kind, service.seen().len()), (kind, 1), "{answer}: {error}");
        assert!(!error.to_string().contains("app-secret"));
    }
}

/// A service that signs in by a request of its own and refuses what it is told to refuse.
async fn login_service(refusing: bool) -> Service {
    Service::start(move |seen| match seen.starts_with("POST /login ") {
        true if refusing => Answer::json(401, r#"{"message": "no such password canary-password"}"#),
        true => Answer::json(200, r#"{"id": "session", "site": "s7"}"#),
        false => Answer::json(200, "{}"),
    })
    .await
}

fn login(url: &str) -> (Doors, Arc<Connections>) {
    login_at(url, "/login")
}

fn login_at(url: &str, path: &str) -> (Doors, Arc<Connections>) {
    let auth = json!({ "login": {
        "fields": { "username": {}, "password": { "secret": true } },
        "steps": {
            "request": format!("POST {url}{path}"),
            "json": { "u": "{{ input.username }}", "p": "{{ input.password }}" },
            "save": { "site": "body.site" },
        },
        "tokens": { "default": { "access": "body.id" } },
        "default_ttl": "1h",
    } });
    let api = json!({
        "base_url": url,
        "credential": { "header": "X-Session", "value": "{{ token.access }}" },
        "endpoints": [{ "id": "get", "request": "GET /sites/{{ saved.site }}" }],
    });
    let inputs = json!({ "username": "u", "password": "canary-password" });
    let connections = json!([{ "id": "default", "inputs": inputs }]);
    let setup = Setup::of(definition(&json!({ "auth": auth, "api": api, "connections": connections })));
    let connections = Arc::new(Connections::declared());
    (Doors::over(setup, Arc::clone(&connections), None), connections)
}

#[tokio::test]
async fn a_login_is_made_once_for_all_who_ask_at_once() {
    let service = login_service(false).await;
    let (doors, _) = login(&format!("http://{}", service.address));
    let replies = tokio::join!(own(doors.proxy, "get"), own(doors.proxy, "get"), own(doors.proxy, "get"));
    assert_eq!([replies.0.status, replies.1.status, replies.2.status], [200; 3]);
    let seen = service.seen();
    assert_eq!(seen.iter().filter(|call| call.starts_with("POST /login ")).count(), 1, "{seen:?}");
    let calls: Vec<_> = seen.iter().filter(|call| call.starts_with("GET /sites/s7 ")).collect();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.to_lowercase().contains("x-session: session")), "{calls:?}");
}

#[tokio::test]
async fn a_refused_login_is_not_tried_again_at_once_and_tells_no_password() {
    let service = login_service(true).await;
    let (doors, connections) = login(&format!("http://{}", service.address));
    for _ in 0..2 {
        let reply = own(doors.proxy, "get").await;
        assert!(reply.status >= 400, "{}", reply.status);
        assert!(!format!("{reply:?}").contains("canary-password"));
    }
    assert_eq!(service.seen().len(), 1);
    let health = connections.health("svc", "default").await;
    assert_eq!(health.status(), Status::NeedsReconnect);
    assert!(health.last_error.is_some_and(|trouble| !trouble.what.contains("canary-password")));
}

#[tokio::test]
async fn a_login_is_told_as_a_call_without_what_it_signs_in_with() {
    let service = Service::start(|_| Answer::json(401, r#"{"message": "not canary-password"}"#)).await;
    let (doors, _) = login_at(&format!("http://{}", service.address), "/login/{{ input.password }}");
    assert!(own(doors.proxy, "get").await.status >= 400);
    let told = doors.activity.newest(10, |entry| entry.asker == Asker::SignIn);
    let seen = service.seen().remove(0);
    assert!(seen.starts_with("POST /login/canary-password "), "{seen}");
    let (_, body) = seen.split_once("\r\n\r\n").unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    let call = &told[0];
    assert_eq!((call.endpoint.as_deref(), &*call.path, call.status), (Some("steps"), "/login/[redacted]", Some(401)));
    assert_eq!((call.sent_bytes, call.received_bytes, call.attempts), (body.len() as u64, 34, 1));
    assert_eq!(doors.metrics.upstream_requests.with_label_values(&["svc", "401"]).get(), 1);
    let all = format!("{:?}", doors.activity.newest(10, |_| true));
    assert!(!all.contains("canary-password"), "{all}");
}
