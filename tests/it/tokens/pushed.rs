//! What a person is sent with, pushed to the service first (RFC 9126).

use serde_json::{Value, json};
use trunkline::connection::flow::Authorization;
use trunkline::connection::grant::{TokenError, TokenErrorKind};

use super::client;
use super::world::{World, at, body, header, world};
use crate::calls::service::{Answer, Service};

const REDIRECT: &str = "https://gateway.example/api/auth/callback/svc";
const PUSHED: &str = r#"{"request_uri":"urn:pushed:1","expires_in":60}"#;

async fn service(status: u16, answer: &'static str) -> Service {
    Service::start(move |_| Answer::json(status, answer)).await
}

fn oauth2(more: &Value) -> Value {
    let mut oauth2 = json!({
        "authorize": { "url": "SVC/auth?v=2", "params": { "prompt": "consent" } }, "push": "POST SVC/par", "token": "SVC/token",
        "client": client(), "client_auth": "basic", "scopes": [{ "name": "a:read", "grants": "A" }],
    });
    oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    oauth2
}

async fn sent_to(world: &World) -> Result<String, TokenError> {
    let scopes = ["a:read".to_owned()];
    let ask = Authorization { state: "st/1", redirect_uri: REDIRECT, scopes: &scopes, challenge: Some("ch") };
    world.calls.authorize_url(world.account(), ask).await
}

#[tokio::test]
async fn the_browser_carries_a_name_and_the_service_has_all_the_rest() {
    let service = service(201, PUSHED).await;
    let url = sent_to(&world(&service, &oauth2(&json!({})))).await.unwrap();
    assert_eq!(url, format!("{}?v=2&client_id=app&request_uri=urn%3Apushed%3A1", at(&service, "/auth")));
    let seen = service.seen();
    assert!(seen[0].starts_with("POST /par HTTP/1.1\r\n") && seen.len() == 1, "{seen:?}");
    assert!(header(&seen[0], "authorization").is_some_and(|proof| proof.starts_with("Basic ")));
    let expected = "response_type=code&redirect_uri=https%3A%2F%2Fgateway.example%2Fapi%2Fauth%2Fcallback%2Fsvc\
        &scope=a%3Aread&state=st%2F1&code_challenge=ch&code_challenge_method=S256&client_id=app&prompt=consent";
    assert_eq!(body(&seen[0]), expected);
}

#[tokio::test]
async fn the_services_names_hold_for_what_is_pushed_as_well() {
    let service = service(201, PUSHED).await;
    let authorize = json!({ "url": "SVC/auth", "rename": { "client_id": "client_key" }, "omit": ["response_type"],
        "params": { "state": "{{ state }}.x" }, "fragment": "wechat" });
    let world = world(&service, &oauth2(&json!({ "authorize": authorize, "client_auth": "none" })));
    let url = sent_to(&world).await.unwrap();
    assert_eq!(url, format!("{}?client_key=app&request_uri=urn%3Apushed%3A1#wechat", at(&service, "/auth")));
    let sent = service.seen().remove(0);
    let sent = body(&sent);
    assert!(sent.contains("client_key=app") && sent.contains("state=st%2F1.x"), "{sent}");
    assert!(!sent.contains("response_type") && !sent.contains("client_id") && !sent.contains("secret"), "{sent}");
}

#[tokio::test]
async fn what_is_wrong_with_a_push_is_told_before_anybody_is_sent_anywhere() {
    let cases = [
        (
            400,
            r#"{"error":"invalid_request","error_description":"no such redirect"}"#,
            "no such redirect",
            "misconfigured",
        ),
        (401, r#"{"error":"invalid_client"}"#, "invalid_client", "misconfigured"),
        (503, "{}", "503", "passing"),
        (201, r#"{"expires_in":60}"#, "no `request_uri`", "passing"),
        (201, r#"{"request_uri":"urn:x","expires_in":0}"#, "has expired already", "passing"),
        (201, r#"{"request_uri":"a\nb","expires_in":9}"#, "no `request_uri`", "passing"),
    ];
    for (status, answer, words, kind) in cases {
        let service = service(status, answer).await;
        let error = sent_to(&world(&service, &oauth2(&json!({})))).await.unwrap_err();
        assert!(error.to_string().contains(words), "{status} {answer}: {error}");
        let expected = if kind == "passing" { TokenErrorKind::Passing } else { TokenErrorKind::Misconfigured };
        assert_eq!(error.kind, expected, "{status} {answer}: {error}");
        assert_eq!(service.seen().len(), 1, "a push is tried once");
    }
}

#[tokio::test]
async fn an_issuer_says_whether_it_must_be() {
    for (required, written, pushes) in [(true, true, 1), (false, true, 0), (false, false, 1)] {
        let service = Service::start(move |request| {
            let host = header(request, "host").unwrap();
            if request.starts_with("POST /par ") {
                return Answer::json(201, PUSHED);
            }
            let metadata = json!({
                "issuer": format!("http://{host}"), "authorization_endpoint": format!("http://{host}/auth"),
                "pushed_authorization_request_endpoint": format!("http://{host}/par"),
                "require_pushed_authorization_requests": required,
            });
            Answer::json(200, &metadata.to_string())
        })
        .await;
        let mut oauth2 = json!({ "issuer": "SVC", "token": "SVC/token", "client": client() });
        if written {
            oauth2["authorize"] = json!("SVC/auth");
        }
        let url = sent_to(&world(&service, &oauth2)).await.unwrap();
        let pushed = service.seen().iter().filter(|request| request.starts_with("POST /par ")).count();
        assert_eq!((pushed, url.contains("request_uri=urn")), (pushes, pushes == 1), "{required} {written}: {url}");
    }
}
