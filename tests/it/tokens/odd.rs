//! Services that do not behave, and addresses that are not theirs: each an error a person can act on, and
//! nothing of the application's own in it.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::connection::grant::{TokenError, TokenErrorKind};

use super::world::{World, at, body, world, world_with};
use crate::calls::service::{Answer, Service};

fn oauth2() -> Value {
    json!({ "token": "SVC/token", "client": { "id": "app", "secret": "canary-secret" } })
}

async fn refused(world: &World) -> TokenError {
    let error = world.code().await.expect_err("no token");
    assert!(!error.to_string().contains("canary"), "{error}");
    error
}

#[tokio::test]
async fn a_redirect_takes_nothing_along() {
    let elsewhere = Service::start(|_| Answer::json(200, "{}")).await;
    let location = at(&elsewhere, "/token?code=canary-code");
    let service = Service::start(move |_| Answer::of(307, &[("location", &location)], "")).await;
    let error = refused(&world(&service, &oauth2())).await;
    assert_eq!((error.kind, error.status), (TokenErrorKind::Misconfigured, Some(307)));
    let words = format!("it leads to {}, and token calls follow nowhere", at(&elsewhere, ""));
    assert!(error.to_string().contains(&words), "{error}");
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn five_mebibytes_are_not_read() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec();
    let service = Service::start(move |_| Answer::Endless(head.clone(), vec![b' '; 1 << 16])).await;
    let error = refused(&world(&service, &oauth2())).await;
    assert_eq!(error.kind, TokenErrorKind::Passing);
    assert!(error.to_string().contains("more than 262144 bytes"), "{error}");
}

#[tokio::test]
async fn a_slow_service_is_not_waited_for() {
    let service = Service::start(|_| Answer::Hang(b"HTTP/1.1 200 OK\r\n".to_vec())).await;
    let token = json!({ "request": "POST SVC/token", "timeout": "300ms" });
    let world = world(&service, &json!({ "token": token, "client": { "id": "app", "secret": "canary-secret" } }));
    let error = tokio::time::timeout(Duration::from_secs(5), refused(&world)).await.expect("in time");
    assert_eq!(error.kind, TokenErrorKind::Passing);
    assert!(error.to_string().contains("the call took too long"), "{error}");
}

#[tokio::test]
async fn what_never_left_is_told_from_what_may_have() {
    let service = Service::start(|_| Answer::Bytes(Vec::new())).await;
    let error = refused(&world(&service, &oauth2())).await;
    assert_eq!(error.kind, TokenErrorKind::Passing, "{error}");
    let world = world(&service, &oauth2());
    drop(service);
    let deadline = Duration::from_secs(5);
    let unsent = async {
        loop {
            let error = refused(&world).await;
            if error.kind == TokenErrorKind::Unsent {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(deadline, unsent).await.expect("nobody listens any more");
    assert!(error.to_string().contains("no connection could be made"), "{error}");
}

#[tokio::test]
async fn secrets_go_only_where_the_definition_says() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let cases = [
        ("{{ input.url }}", "https://evil.example/token", "not among the hosts"),
        ("https://{{ input.url }}/token", "evil.example", "not among the hosts"),
        ("http://10.0.0.1/token", "", "must not be dialled"),
        ("http://metadata.test/token", "", "must not be dialled"),
    ];
    for (token, input, words) in cases {
        let oauth2 = json!({ "token": { "request": format!("POST {token}") }, "client": { "id": "app", "secret": "canary-secret" } });
        let more = json!({ "inputs": { "url": {} } });
        let mut world = world_with(&service, &oauth2, &more);
        world.inputs = json!({ "url": input }).as_object().unwrap().clone();
        let error = refused(&world).await;
        assert_eq!(error.kind, TokenErrorKind::Misconfigured, "{error}");
        assert!(error.to_string().contains(words), "{token}: {error}");
    }
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn a_service_that_repeats_what_it_was_sent_is_not_repeated() {
    let service = Service::start(|request| {
        let body = body(request).to_owned();
        let echo = json!({ "error": "invalid_grant", "error_description": body });
        Answer::json(400, &echo.to_string())
    })
    .await;
    let error = refused(&world(&service, &oauth2())).await;
    assert_eq!(error.kind, TokenErrorKind::Permanent);
    assert!(error.words.unwrap().contains("[redacted]"));
}

#[tokio::test]
async fn what_the_deployment_has_not_told_is_named() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let error = refused(&world(&service, &json!({ "token": "SVC/token" }))).await;
    assert_eq!(error.kind, TokenErrorKind::Misconfigured);
    assert!(error.to_string().contains("`auth.oauth2.client` of `svc` is missing"), "{error}");
    let error = refused(&world(&service, &json!({ "token": "SVC/token", "client": { "id": "app" } }))).await;
    assert!(error.to_string().contains("`auth.oauth2.client.secret` is missing"), "{error}");
    let error = refused(&world(&service, &json!({ "client": { "id": "app", "secret": "canary-secret" } }))).await;
    assert!(error.to_string().contains("`auth.oauth2.token` is missing"), "{error}");
    assert_eq!(service.connections(), 0);
}
