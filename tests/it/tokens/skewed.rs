//! Services whose clock is not ours: what they say of times, and what they take of assertions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use trunkline::base::clock::{ManualClock, Timestamp};
use trunkline::connection::flow::Purpose;
use trunkline::connection::grant::TokenErrorKind;

use super::granted::{assertion, claims, param};
use super::registered::Kept;
use super::world::{World, at_time, held, world};
use crate::calls::service::{Answer, Service};

/// The time here.
const NOW: u64 = 1_790_000_000;

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A service with this clock that takes assertions of about now, and says `code` to others.
async fn service(clock: u64, code: &'static str, told: u64) -> Service {
    Service::start(move |request| {
        let signed = param(request, "assertion").or_else(|| param(request, "client_assertion")).unwrap();
        let issued = claims(&signed)["iat"].as_u64().unwrap();
        let answered = if issued.abs_diff(clock) > 20 {
            (400, json!({ "error": code }))
        } else {
            (200, json!({ "access_token": "at" }))
        };
        let headers = [("content-type", "application/json"), ("date", &date(told))];
        Answer::of(answered.0, &headers, &answered.1.to_string())
    })
    .await
}

async fn at_now(service: &Service, oauth2: &Value) -> (World, Kept) {
    let (kept, clock) = (Kept::new().await, Arc::new(ManualClock::at(Timestamp::from_seconds(NOW))));
    let world = at_time(world(service, oauth2), &clock, kept.connections.clone());
    (world, kept)
}

fn bearer() -> Value {
    json!({ "grant": "jwt_bearer", "token": "SVC/token", "assertion": assertion(&json!({ "iss": "x", "nbf": "{{ now }}" })) })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_is_signed_once_more_by_the_services_clock_which_is_remembered() {
    for theirs in [NOW - 600, NOW + 600, NOW - 80_000] {
        let service = service(theirs, "invalid_grant", theirs).await;
        let (world, _kept) = at_now(&service, &bearer()).await;
        world.obtain(Purpose::JwtBearer).await.unwrap();
        world.obtain(Purpose::JwtBearer).await.unwrap();
        let issued: Vec<_> =
            service.seen().iter().map(|request| claims(&param(request, "assertion").unwrap())).collect();
        let times: Vec<_> = issued.iter().map(|claims| claims["iat"].as_u64().unwrap()).collect();
        assert_eq!(times, [NOW, theirs, theirs], "the second sign-in begins with their clock");
        let expected = Value::from(theirs);
        assert!(
            issued[1]["nbf"].as_f64().is_some_and(|nbf| (nbf - expected.as_f64().unwrap()).abs() < 1.0),
            "{}",
            issued[1]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_explains_nothing_changes_nothing() {
    // It is right, a little off, or absurd: one call, and the refusal stands.
    for told in [NOW, NOW + 25, NOW + 90_000] {
        let service = service(NOW - 600, "invalid_grant", told).await;
        let (world, _kept) = at_now(&service, &bearer()).await;
        assert!(world.obtain(Purpose::JwtBearer).await.is_err());
        assert_eq!(service.seen().len(), 1, "{told}");
    }
    // What answers has another clock than what checks: it is tried, does not help, and is let go of.
    let service = service(NOW - 600, "invalid_grant", NOW + 300).await;
    let (world, _kept) = at_now(&service, &bearer()).await;
    for _ in 0..2 {
        assert!(world.obtain(Purpose::JwtBearer).await.is_err());
    }
    let times: Vec<_> =
        service.seen().iter().map(|r| claims(&param(r, "assertion").unwrap())["iat"].as_u64().unwrap()).collect();
    assert_eq!(times, [NOW, NOW + 300, NOW, NOW + 300]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_refusal_of_the_application_itself_is_tried_again_with_a_code_or_a_refresh_token() {
    let oauth2 = json!({ "authorize": "SVC/auth", "token": "SVC/token", "client": { "id": "app" },
        "client_auth": "private_key_jwt", "assertion": assertion(&json!({})) });
    let theirs = NOW - 600;
    let service_of = |code| service(theirs, code, theirs);
    let refusing = service_of("invalid_client").await;
    let (world, _kept) = at_now(&refusing, &oauth2).await;
    world.code().await.unwrap();
    world.renew("default", &held("at", Some("rt"))).await.unwrap();
    assert_eq!(refusing.seen().len(), 3);
    // A refresh token that was refused may be used up: to present it again could cost the account.
    let used_up = service_of("invalid_grant").await;
    let (world, _kept) = at_now(&used_up, &oauth2).await;
    let error = world.renew("default", &held("at", Some("rt"))).await.unwrap_err();
    assert_eq!((error.kind, used_up.seen().len()), (TokenErrorKind::Permanent, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_neither_fresh_nor_expired_because_their_clock_is_off() {
    let map = json!({ "access": "body.t", "expires": { "at": "body.end", "unit": "epoch_seconds" } });
    let oauth2 = json!({ "grant": "client_credentials", "client": super::client(),
        "token": { "request": "POST SVC/token", "tokens": { "default": map } } });
    for (theirs, believed) in [(NOW - 7_200, true), (NOW + 7_200, true), (NOW + 200_000, false)] {
        // It gives tokens of an hour by its own clock.
        let calls = AtomicUsize::new(0);
        let service = Service::start(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            let headers = [("content-type", "application/json"), ("date", &*date(theirs))];
            Answer::of(200, &headers, &json!({ "t": "at", "end": theirs + 3_600 }).to_string())
        })
        .await;
        let (world, _kept) = at_now(&service, &oauth2).await;
        let grant = world.obtain(Purpose::ClientCredentials).await.unwrap();
        let end = grant.tokens["default"].expires_at.unwrap().seconds();
        // More than a day off is a fault and says nothing: then the time stands as it was written.
        assert_eq!(end, if believed { NOW + 3_600 } else { theirs + 3_600 }, "{theirs}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_sign_in_has_a_limit_with_a_name_that_is_counted() {
    let service = Service::start(|_| {
        Answer::json(200, &json!({ "access_token": "at", "filler": "x".repeat(5_000) }).to_string())
    })
    .await;
    let oauth2 = json!({ "grant": "client_credentials", "client": super::client(), "token": "SVC/token" });
    let mut world = world(&service, &oauth2);
    assert!(world.obtain(Purpose::ClientCredentials).await.is_ok(), "there is room for 256 KiB");
    let mut gateway = super::world::reachable();
    gateway.limits.sign_in_answer_bytes = 4_096;
    world.generation.gateway = Arc::new(gateway);
    let error = world.obtain(Purpose::ClientCredentials).await.unwrap_err();
    assert!(error.to_string().contains("more than 4096 bytes"), "{error}");
    assert_eq!(world.metrics.upstream_errors.with_label_values(&["svc", "too_large"]).get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_of_a_token_answer_counts_and_what_was_not_sent_does_not() {
    let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(5_000));
    let service = Service::start(move |_| Answer::Bytes(answer.clone().into_bytes())).await;
    let oauth2 = json!({ "grant": "client_credentials", "client": super::client(), "token": "SVC/token" });
    let mut gateway = super::world::reachable();
    gateway.limits.sign_in_answer_bytes = 4_096;
    let gateway = Arc::new(gateway);
    // Nobody listens at the other's port.
    let worlds = [world(&service, &oauth2), super::world::world_at("http://svc.example:1", &oauth2, &json!({}))];
    for (mut world, (sends, read)) in worlds.into_iter().zip([(true, 4_097..=5_000), (false, 0..=0)]) {
        world.generation.gateway = Arc::clone(&gateway);
        world.obtain(Purpose::ClientCredentials).await.unwrap_err();
        let told = world.activity.newest(1, |_| true).remove(0);
        assert!((told.sent_bytes > 0) == sends && read.contains(&told.received_bytes), "{told:?}");
    }
}
