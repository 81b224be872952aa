//! Token calls under the policy of their integration.

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::connection::grant::{TokenError, TokenErrorKind};

use super::world::{World, held, world_with};
use super::{TOKEN, client};
use crate::calls::service::{Answer, Service};

const WAITED: Duration = Duration::from_mins(50);

fn api(base: &str, policy: &Value) -> Value {
    let mut api = json!({ "base_url": base, "hosts": ["svc.example", "else.example"],
                          "allow_private": true, "allow_plain_http": true });
    api.as_object_mut().unwrap().extend(policy.as_object().unwrap().clone());
    json!({ "api": api })
}

fn signed_in(service: &Service, base: &str, policy: &Value) -> World {
    world_with(service, &json!({ "token": "SVC/token", "client": client() }), &api(base, policy))
}

async fn renew(world: &World) -> Result<(), TokenError> {
    world.renew("default", &held("old", Some("rt"))).await.map(drop)
}

#[tokio::test]
async fn a_token_call_to_the_apis_own_address_counts_against_its_limits() {
    let service = Service::start(|_| Answer::json(200, TOKEN)).await;
    let limits = json!({ "limits": [{ "rate": "1/h", "per": "integration" }] });
    let world = signed_in(&service, "SVC/api", &limits);
    renew(&world).await.unwrap();
    let error = renew(&world).await.expect_err("the hour's call is used up");
    assert_eq!((error.kind, service.seen().len()), (TokenErrorKind::Unsent, 1), "{error}");
    assert!(
        error.retry_after.is_some_and(|wait| wait > WAITED) && error.to_string().contains("`integration`"),
        "{error}"
    );
    let elsewhere = signed_in(&service, "http://else.example/api", &limits);
    for _ in 0..2 {
        renew(&elsewhere).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_with_paths_is_for_token_calls_that_match() {
    let service = Service::start(|_| Answer::json(200, TOKEN)).await;
    let search = json!({ "limits": [{ "rate": "1/h", "paths": ["/search*"] }] });
    let world = signed_in(&service, "SVC", &search);
    for _ in 0..2 {
        renew(&world).await.unwrap();
    }
    let token = json!({ "limits": [{ "rate": "1/h", "paths": ["/tok*"] }] });
    let world = signed_in(&service, "SVC", &token);
    renew(&world).await.unwrap();
    assert_eq!(renew(&world).await.expect_err("the second").kind, TokenErrorKind::Unsent);
}

#[tokio::test]
async fn a_429_pauses_token_calls_for_as_long_as_the_service_asks() {
    let service = Service::start(|_| Answer::of(429, &[("retry-after", "3000")], "{}")).await;
    let world = signed_in(&service, "SVC/api", &json!({ "limits": [{ "rate": "100/s" }] }));
    assert_eq!(renew(&world).await.expect_err("429").status, Some(429));
    let error = renew(&world).await.expect_err("paused");
    assert_eq!((error.kind, error.status, service.seen().len()), (TokenErrorKind::Unsent, None, 1), "{error}");
    assert!(error.retry_after.is_some_and(|wait| wait > Duration::from_secs(2_900)), "{error:?}");
}

#[tokio::test]
async fn a_circuit_that_is_open_holds_token_calls_back_and_each_place_has_its_own() {
    let service = Service::start(|_| Answer::json(500, "{}")).await;
    let breaker = json!({ "breaker": { "consecutive": 2, "open": "50m" } });
    for base in ["SVC/api", "http://else.example/api"] {
        let before = service.seen().len();
        let world = signed_in(&service, base, &breaker);
        for _ in 0..2 {
            assert_eq!(renew(&world).await.expect_err("500").status, Some(500));
        }
        let error = renew(&world).await.expect_err("it is left alone");
        assert_eq!((error.kind, service.seen().len() - before), (TokenErrorKind::Unsent, 2), "{error}");
        assert!(error.retry_after.is_some_and(|wait| wait > Duration::from_mins(49)), "{error:?}");
    }
    let refusing = Service::start(|_| Answer::json(400, r#"{"error":"invalid_grant"}"#)).await;
    let world = signed_in(&refusing, "SVC/api", &breaker);
    for _ in 0..3 {
        assert_eq!(
            renew(&world).await.expect_err("refused").kind,
            TokenErrorKind::Permanent,
            "an answer is no failure"
        );
    }
}
