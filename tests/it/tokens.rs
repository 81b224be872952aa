//! Token calls over real sockets: what is sent, where it may go, what is made of the answer.

mod asked;
mod granted;
mod odd;
mod policy;
mod pushed;
pub mod registered;
mod skewed;
pub mod world;

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::connection::flow::Purpose;
use trunkline::connection::grant::TokenErrorKind;

use crate::calls::service::{Answer, Service};
use world::{body, header, held, pair, world, world_with};

const TOKEN: &str =
    r#"{"access_token":"at","token_type":"bearer","expires_in":3600,"refresh_token":"rt","scope":"read write"}"#;

async fn service() -> Service {
    Service::start(|_| Answer::json(200, TOKEN)).await
}

fn client() -> Value {
    json!({ "id": "app", "secret": "canary/+=%&:secret" })
}

/// The only request that came.
fn only(service: &Service) -> String {
    let seen = service.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.into_iter().next().unwrap()
}

#[tokio::test]
async fn a_code_becomes_tokens_by_the_call_of_the_rfc() {
    let service = service().await;
    let world =
        world(&service, &json!({ "token": "SVC/token", "client": client(), "resource": ["https://a.example/"] }));
    let grant = world.code().await.unwrap();
    let request = only(&service);
    assert!(request.starts_with("POST /token HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "accept"), Some("application/json"));
    assert_eq!(header(&request, "authorization"), None);
    assert_eq!(
        body(&request),
        "grant_type=authorization_code&code=canary-code\
         &redirect_uri=https%3A%2F%2Fgateway.example%2Fapi%2Fauth%2Fcallback%2Fsvc&code_verifier=canary-verifier\
         &resource=https%3A%2F%2Fa.example%2F&client_id=app&client_secret=canary%2F%2B%3D%25%26%3Asecret"
    );
    assert_eq!(pair(&grant, "default"), ("at", Some("rt")));
    let token = &grant.tokens["default"];
    assert_eq!(token.scopes.as_deref(), Some(&["read".to_owned(), "write".to_owned()][..]));
    assert_eq!(token.expires_at.unwrap().since(token.issued_at), Duration::from_hours(1));
    let record = world.activity.newest(1, |_| true).remove(0);
    assert_eq!((record.path.as_str(), record.status, record.endpoint.as_deref()), ("/token", Some(200), Some("token")));
    assert_eq!(record.sent_bytes, body(&request).len() as u64);
    assert!(record.received_bytes > 0, "{record:?}");
    let counted = world.metrics.token_calls.with_label_values(&["svc", "token", "ok"]).get();
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn the_application_proves_itself_as_the_service_wants() {
    use base64::Engine as _;
    let decoded = |request: &str| {
        let text = header(request, "authorization")?.strip_prefix("Basic ")?.to_owned();
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).ok()?).ok()
    };
    let cases = [
        ("basic", Some("app:canary%2F%2B%3D%25%26%3Asecret"), ""),
        ("basic_raw", Some("app:canary/+=%&:secret"), ""),
        ("none", None, "&client_id=app"),
        ("form", None, "&client_id=app&client_secret=canary%2F%2B%3D%25%26%3Asecret"),
    ];
    for (way, basic, params) in cases {
        let service = service().await;
        let world = world(&service, &json!({ "token": "SVC/token", "client": client(), "client_auth": way }));
        world.code().await.unwrap();
        let request = only(&service);
        assert_eq!(decoded(&request).as_deref(), basic, "{way}");
        assert_eq!(body(&request).split_once("canary-verifier").unwrap().1, params, "{way}");
    }
    let service = service().await;
    let token = json!({ "request": "POST SVC/token", "basic": { "username": "{{ client.secret }}" } });
    let client = json!({ "id": "app", "secret": "canary-secret" });
    world(&service, &json!({ "token": token, "client": client })).code().await.unwrap();
    let request = only(&service);
    assert_eq!(decoded(&request).as_deref(), Some("canary-secret:"));
    assert!(!body(&request).contains("client_"));
}

#[tokio::test]
async fn parameters_go_where_and_as_the_service_wants() {
    let rename = json!({ "client_id": "client_key", "code": "auth_code" });
    let service = service().await;
    let token = json!({
        "request": "POST SVC/token?v=1", "json": { "grant_type": "code", "nested": { "id": "{{ client.id }}" } },
        "rename": rename, "omit": ["redirect_uri", "code_verifier"],
    });
    world(&service, &json!({ "token": token, "client": client() })).code().await.unwrap();
    let request = only(&service);
    let sent: Value = serde_json::from_str(body(&request)).unwrap();
    let expected = json!({
        "auth_code": "canary-code", "client_key": "app", "client_secret": "canary/+=%&:secret",
        "grant_type": "code", "nested": { "id": "app" },
    });
    assert_eq!(sent, expected);

    let service = self::service().await;
    let token = json!({ "request": "GET SVC/token?v=1", "rename": rename, "omit": ["redirect_uri", "client_secret"] });
    world(&service, &json!({ "token": token, "client": client(), "pkce": { "off": "refused there" } }))
        .code()
        .await
        .unwrap();
    let request = only(&service);
    let line = "GET /token?v=1&grant_type=authorization_code&auth_code=canary-code&code_verifier=canary-verifier&client_key=app ";
    assert!(request.starts_with(line), "{request}");

    let service = self::service().await;
    let token = json!({ "request": "POST SVC/token", "headers": { "Content-Type": "text/xml" }, "text": "<code>{{ code }}</code>" });
    world(&service, &json!({ "token": token, "client": client() })).code().await.unwrap();
    assert_eq!(body(&only(&service)), "<code>canary-code</code>");
}

#[tokio::test]
async fn a_step_sees_what_came_before_and_no_secret_of_the_application() {
    let service = Service::start(|request| {
        if request.starts_with("POST /token ") {
            return Answer::json(200, r#"{"access_token":"short","refresh_token":"rt","rest_host":"svc.example"}"#);
        }
        Answer::json(200, r#"{"BhRestToken":"session","restUrl":"https://rest.example/x"}"#)
    })
    .await;
    let login = json!({
        "request": "GET SVC/login?version=*&access_token={{ token.access }}&host={{ saved.host }}",
        "tokens": { "default": { "access": "body.BhRestToken" } },
        "save": { "rest_url": "body.restUrl" }, "default_ttl": "10m",
    });
    let first =
        json!({ "request": "POST SVC/token", "save": { "host": "body.rest_host", "refresh": "body.refresh_token" } });
    let world = world(&service, &json!({ "token": [first, login], "client": client() }));
    let grant = world.code().await.unwrap();
    let second = service.seen().remove(1);
    assert!(second.starts_with("GET /login?version=*&access_token=short&host=svc.example HTTP"), "{second}");
    assert!(!second.contains("canary"));
    assert_eq!(pair(&grant, "default"), ("session", None));
    let kept = json!({ "host": "svc.example", "refresh": "rt", "rest_url": "https://rest.example/x" });
    assert_eq!(Value::Object(grant.saved), kept);
    let token = &grant.tokens["default"];
    assert_eq!(token.expires_at.unwrap().since(token.issued_at), Duration::from_mins(10));
}

#[tokio::test]
async fn values_of_the_callback_are_kept_and_used() {
    let service = service().await;
    let oauth2 = json!({
        "token": "SVC/{{ saved.realm }}/token", "client": client(),
        "callback": { "save": { "realm": "query.realmId", "gone": "query.other" } },
    });
    let grant = world(&service, &oauth2).code_with(&json!({ "realmId": "r/1" })).await.unwrap();
    assert!(only(&service).starts_with("POST /r%2F1/token "));
    assert_eq!(Value::Object(grant.saved), json!({ "realm": "r/1" }));
}

#[tokio::test]
async fn a_token_that_no_call_can_carry_is_refused_whoever_asks_and_loses_no_other() {
    let answering = |answer: &'static str| Service::start(move |_| Answer::json(200, answer));
    let tokens = json!({ "default": { "access": "body.access_token" }, "user": { "access": "body.user" } });
    let call = json!({ "request": "POST SVC/token", "tokens": tokens });
    let oauth2 = json!({ "token": call, "client": client() });
    let service = answering(r#"{"access_token":"tök"}"#).await;
    let world = world(&service, &oauth2);
    let errors = [world.code().await.unwrap_err(), world.renew("default", &held("at", Some("rt"))).await.unwrap_err()];
    for error in errors {
        let told = "the token call failed: 200, the answer cannot be used: the token `default` has characters that no call can carry";
        assert_eq!((error.kind, error.to_string().as_str()), (TokenErrorKind::Passing, told));
        assert_eq!(error.status, Some(200), "the service was reached");
    }
    let service = answering(r#"{"access_token":"at2","user":"tök"}"#).await;
    let grant = self::world(&service, &oauth2).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!((pair(&grant, "default"), grant.tokens.len()), (("at2", None), 1));
    assert_eq!(grant.warnings, ["the token `user` was left out, it has characters that no call can carry"]);
}

#[tokio::test]
async fn a_renewal_keeps_rotates_or_extends() {
    let answering = |answer: &'static str| Service::start(move |_| Answer::json(200, answer));
    let oauth2 = |policy: &str| json!({ "token": "SVC/token", "client": client(), "refresh_tokens": policy });
    let service = answering(r#"{"access_token":"at2"}"#).await;
    let grant = world(&service, &oauth2("keep")).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!(pair(&grant, "default"), ("at2", None), "the old one stays in force");
    assert_eq!(grant.tokens["default"].scopes.as_deref(), Some(&["read".to_owned()][..]));
    assert!(body(&only(&service)).starts_with("grant_type=refresh_token&refresh_token=rt&client_id=app&"));

    let grant = world(&service, &oauth2("rotate")).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!(pair(&grant, "default"), ("at2", None), "the access token that came is kept");
    assert!(grant.spent.contains("default") && grant.warnings[0].contains("has to be connected again"), "{grant:?}");
    let service = answering(r#"{"access_token":"at2","refresh_token":"rt2"}"#).await;
    let grant = world(&service, &oauth2("rotate")).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!(pair(&grant, "default"), ("at2", Some("rt2")));

    let service = answering(r#"{"result":"0000"}"#).await;
    let call = json!({ "request": "POST SVC/extend", "ok": "body.result == '0000'", "default_ttl": "30d" });
    let extend = json!({ "token": "SVC/token", "refresh": call, "client": client(), "refresh_tokens": "extend" });
    let grant = world(&service, &extend).renew("default", &held("at", None)).await.unwrap();
    let token = &grant.tokens["default"];
    let lives = token.expires_at.unwrap().since(token.issued_at);
    assert_eq!((token.access.expose().as_str(), lives), ("at", Duration::from_hours(30 * 24)));
}

#[tokio::test]
async fn a_refresh_token_that_came_is_kept_although_no_access_token_did() {
    let service = Service::start(|head| {
        if head.starts_with("POST /second") {
            return Answer::json(503, "{}");
        }
        Answer::json(200, r#"{"access_token":"first","refresh_token":"rt2"}"#)
    })
    .await;
    let call = json!({ "request": "POST SVC/first" });
    let second = json!({ "request": "POST SVC/second", "json": { "token": "{{ token.access }}" } });
    let steps = json!({ "token": "SVC/token", "refresh": [call, second], "client": client() });
    let grant = world(&service, &steps).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!(pair(&grant, "default"), ("at", Some("rt2")));
    assert_eq!(
        grant.unfinished.as_ref().map(|error| (error.kind, error.status)),
        Some((TokenErrorKind::Passing, Some(503)))
    );
    let service = Service::start(|_| Answer::json(200, r#"{"access_token":"tök","refresh_token":"rt3"}"#)).await;
    let oauth2 = json!({ "token": "SVC/token", "client": client() });
    let grant = world(&service, &oauth2).renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!((pair(&grant, "default"), grant.unfinished.is_some()), (("at", Some("rt3")), true));
}

#[tokio::test]
async fn a_renewal_may_have_calls_of_its_own() {
    let service = service().await;
    let refresh = json!({
        "request": "GET SVC/refresh", "omit": ["grant_type", "refresh_token", "client_secret"],
        "query": { "grant_type": "fb_exchange_token", "fb_exchange_token": "{{ token.access }}" },
    });
    let oauth2 = json!({ "token": "SVC/token", "refresh": refresh, "client": client() });
    world(&service, &oauth2).renew("default", &held("old", None)).await.unwrap();
    let line = "GET /refresh?client_id=app&grant_type=fb_exchange_token&fb_exchange_token=old HTTP";
    assert!(only(&service).starts_with(line), "{:?}", service.seen());

    let service = self::service().await;
    let refresh = json!({ "request": "POST SVC/refresh", "credential": "token", "params_in": "query", "omit": ["client_secret"] });
    let oauth2 = json!({ "token": "SVC/token", "refresh": refresh, "client": client(), "client_auth": "basic" });
    world(&service, &oauth2).renew("default", &held("old", Some("rt"))).await.unwrap();
    assert_eq!(header(&only(&service), "authorization"), Some("Bearer old"));
}

#[tokio::test]
async fn how_long_tokens_live_is_the_same_for_renewed_ones_unless_they_say_otherwise() {
    let service = Service::start(|_| Answer::json(200, r#"{"access_token":"at"}"#)).await;
    let life = async |refresh: Value| {
        let token = json!({ "request": "POST SVC/token", "default_ttl": "100s" });
        let world = world(&service, &json!({ "token": token, "refresh": refresh, "client": client() }));
        let grant = world.renew("default", &held("old", Some("rt"))).await.unwrap();
        let token = &grant.tokens["default"];
        token.expires_at.map(|end| end.since(token.issued_at).as_secs())
    };
    assert_eq!(life(json!("SVC/refresh")).await, Some(100));
    assert_eq!(life(json!({ "request": "POST SVC/refresh", "default_ttl": "50s" })).await, Some(50));
}

#[tokio::test]
async fn without_a_refresh_token_a_person_has_to_come() {
    let service = service().await;
    let world = world(&service, &json!({ "token": "SVC/token", "client": client() }));
    let error = world.renew("default", &held("old", None)).await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Permanent);
    assert!(service.seen().is_empty());
}

#[tokio::test]
async fn a_named_token_is_renewed_by_its_own_refresh_token() {
    let service = Service::start(|_| Answer::json(200, r#"{"access_token":"user2","refresh_token":"ur2"}"#)).await;
    let map =
        |place: &str| json!({ "access": format!("{place}.access_token"), "refresh": format!("{place}.refresh_token") });
    let tokens = json!({ "default": map("body"), "user": map("body.authed_user") });
    let oauth2 = json!({ "token": { "request": "POST SVC/token", "tokens": tokens }, "client": client() });
    let grant = world(&service, &oauth2).renew("user", &held("user1", Some("ur1"))).await.unwrap();
    assert!(body(&only(&service)).contains("refresh_token=ur1"));
    assert_eq!(grant.tokens.keys().map(|name| &**name).collect::<Vec<_>>(), ["user"]);
    assert_eq!(pair(&grant, "user"), ("user2", Some("ur2")));
}

#[tokio::test]
async fn an_application_acts_for_itself_and_is_renewed_the_same_way() {
    let service = service().await;
    let scopes = json!([
        { "name": "a", "grants": "A", "default": true }, { "name": "b", "grants": "B", "default": true },
        { "name": "c", "grants": "C" },
    ]);
    let oauth2 = json!({ "grant": "client_credentials", "token": "SVC/token", "client": client(), "client_auth": "basic", "scopes": scopes });
    let world = world(&service, &oauth2);
    world.obtain(Purpose::ClientCredentials).await.unwrap();
    world.renew("default", &held("old", Some("rt"))).await.unwrap();
    for request in service.seen() {
        assert_eq!(body(&request), "grant_type=client_credentials&scope=a+b");
    }
}

#[tokio::test]
async fn a_token_is_exchanged_for_another() {
    let service = service().await;
    let exchange = json!({
        "subject_token": "{{ input.subject }}", "subject_token_type": "urn:t:access_token",
        "actor_token": "canary-actor", "actor_token_type": "urn:t:jwt", "requested_token_type": "urn:t:access_token",
        "audience": ["https://one.example", "https://two.example"],
    });
    let oauth2 = json!({ "grant": "token_exchange", "token": "SVC/token", "exchange": exchange });
    let mut world = world_with(&service, &oauth2, &json!({ "inputs": { "subject": { "secret": true } } }));
    world.inputs = json!({ "subject": "canary-subject" }).as_object().unwrap().clone();
    world.obtain(Purpose::Exchange).await.unwrap();
    assert_eq!(
        body(&only(&service)),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=canary-subject\
         &subject_token_type=urn%3At%3Aaccess_token&actor_token=canary-actor&actor_token_type=urn%3At%3Ajwt\
         &requested_token_type=urn%3At%3Aaccess_token&audience=https%3A%2F%2Fone.example&audience=https%3A%2F%2Ftwo.example"
    );
}

#[tokio::test]
async fn a_service_that_gives_no_expiry_is_asked() {
    let service = Service::start(|request| {
        if request.starts_with("POST /token ") {
            return Answer::json(200, r#"{"access_token":"at","refresh_token":"rt"}"#);
        }
        Answer::json(200, r#"{"active":true,"exp":4102444800}"#)
    })
    .await;
    let oauth2 = json!({ "token": "SVC/token", "introspect": "SVC/introspect", "client": client() });
    let grant = world(&service, &oauth2).code().await.unwrap();
    assert_eq!(grant.tokens["default"].expires_at.unwrap().seconds(), 4_102_444_800);
    assert_eq!(pair(&grant, "default"), ("at", Some("rt")));
    let asked = service.seen().remove(1);
    assert!(body(&asked).starts_with("token=at&token_type_hint=access_token&client_id=app&client_secret="), "{asked}");
}

#[tokio::test]
async fn a_service_that_cannot_be_asked_costs_no_token() {
    let service = Service::start(|request| {
        if request.starts_with("POST /token ") { Answer::json(200, TOKEN) } else { Answer::json(500, "{}") }
    })
    .await;
    let token = json!({ "request": "POST SVC/token", "tokens": { "default": { "access": "body.access_token" } }, "default_ttl": "2h" });
    let oauth2 = json!({ "token": token, "introspect": "SVC/introspect", "client": client() });
    let grant = world(&service, &oauth2).code().await.unwrap();
    let token = &grant.tokens["default"];
    assert_eq!(token.expires_at.unwrap().since(token.issued_at).as_secs(), 7_200);
}
