//! Consent on another device: a code on a page or at the admin door, and the gateway that waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline::connection::TokenErrorKind::{Misconfigured, Permanent};
use trunkline::connection::connect::{Connect, DeviceRefused, Wanted};
use trunkline::connection::{Credential, TokenError};

use super::desk::{Browser, DEVICE, Desk, HUB, error_of, html, refused, target};

pub fn wanted() -> Wanted {
    Wanted { integration: "screen".to_owned(), connection: "tv".to_owned(), ..Wanted::default() }
}

/// The gateway waits for people, until what this gives is dropped.
pub fn waits(connect: &Arc<Connect>) -> DropGuard {
    let (connect, stop) = (Arc::clone(connect), CancellationToken::new());
    let until = stop.clone();
    drop(tokio::spawn(async move { connect.await_devices(until).await }));
    stop.drop_guard()
}

/// What the audit log has once it has the end of a flow. An outcome is on disk before its end is told, so that who
/// asks for outcomes in between sees one of which the log has no end yet.
async fn told(desk: &Desk) -> Vec<String> {
    for _ in 0..2_000 {
        let actions: Vec<String> = desk.audit().await.into_iter().map(|(action, _)| action).collect();
        if actions.last().is_some_and(|last| last == "connect.end") {
            return actions;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("its end is never told")
}

/// Lets time pass until a link has ended, and says how.
async fn ended(desk: &Desk, result: &str) -> &'static str {
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..1_000 {
        looks.tick().await;
        desk.clock.advance(Duration::from_secs(1));
        let state = desk.connect.outcome(result).await.unwrap().unwrap().state;
        if !matches!(state, "started" | "waiting") {
            return state;
        }
    }
    panic!("it never ended")
}

async fn tv(desk: &Desk) -> bool {
    let stored = desk.connections.peek("screen", "tv").await.unwrap();
    stored.is_some_and(|content| matches!(content.credential, Credential::Tokens(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_types_the_code_of_a_page_elsewhere_and_the_page_goes_on() {
    let desk = Desk::open().await;
    let _waiting = waits(&desk.connect);
    desk.service.set(|manners| manners.polls = vec![Ok(Duration::from_secs(5)), Ok(Duration::from_secs(10))]);
    let made = desk.connect.link("operator", wanted()).await.unwrap();
    let mut browser = Browser::new(&desk);
    assert!(browser.get(target(&made.url)).await.text().contains("See your programmes"));
    let sent = browser.post(target(&made.url), "scope=rent").await;
    let page = sent.header("location").unwrap().to_owned();
    let shown = html(&browser.get(&page).await);
    for text in ["WDJB-MJHT", "https://hub.example/device?user_code=WDJB-MJHT", "data-base=\"/api/connect/screen\""] {
        assert!(shown.contains(text), "{text} is not in {shown}");
    }
    assert!(!shown.contains("canary"));
    // The same form again asks for no second code, and another browser sees none.
    assert_eq!(browser.post(target(&made.url), "scope=rent").await.header("location"), Some(page.as_str()));
    assert_eq!(*desk.service.codes.lock().unwrap(), [["watch", "rent"]]);
    let mut stranger = Browser::new(&desk);
    stranger.get(target(&desk.link().await.url)).await;
    assert_eq!(stranger.get(&page).await.status, 400);
    assert_eq!(ended(&desk, &made.result).await, "connected");
    assert_eq!(*desk.service.waits.lock().unwrap(), [5, 5, 10]);
    assert!(tv(&desk).await);
    let after = browser.get(&page).await;
    let outcome = browser.get(after.header("location").unwrap()).await;
    assert!(outcome.text().contains("Screen is connected"), "{}", outcome.text());
    assert_eq!(desk.records("connect_devices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_at_the_admin_door_is_waited_for_across_a_restart() {
    let desk = Desk::open().await;
    let shown = desk.connect.start_device("operator", wanted(), Map::new()).await.unwrap();
    assert_eq!((shown.state, shown.user_code.as_deref()), ("started", Some("WDJB-MJHT")));
    assert!(desk.service.waits.lock().unwrap().is_empty());
    // Nothing waited until now, as after a start of the program.
    let _waiting = waits(&desk.connect);
    assert_eq!(ended(&desk, &shown.result).await, "connected");
    assert!(tv(&desk).await);
    assert_eq!(told(&desk).await, ["connect.link", "connect.start", "connection.put", "connect.end"]);
    let other = Wanted { integration: "hub".to_owned(), ..wanted() };
    let refusal = desk.connect.start_device("operator", other, Map::new()).await.unwrap_err();
    assert!(matches!(refusal, DeviceRefused::OtherWay(_)), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_has_errors_for_a_while_ends_no_flow() {
    let desk = Desk::open().await;
    let shown = desk.connect.start_device("operator", wanted(), Map::new()).await.unwrap();
    let (mut browser, made) = desk.departed().await;
    desk.swap(&[], &["screen", "hub"]);
    let _waiting = waits(&desk.connect);
    for _ in 0..20 {
        desk.clock.advance(Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(desk.service.waits.lock().unwrap().is_empty(), "there is nothing to ask with");
    let callback = format!("state={}&code=the-code", desk.service.state());
    let waits = browser.callback(&callback).await;
    assert_eq!((waits.status, waits.header("retry-after")), (503, Some("30")), "{}", waits.text());
    assert!(waits.text().contains("load this page again"), "{}", waits.text());
    desk.swap(&[HUB, DEVICE], &[]);
    assert_eq!(browser.callback(&callback).await.status, 303);
    assert_eq!(desk.state_of(&made).await, "connected");
    assert_eq!(ended(&desk, &shown.result).await, "connected");
    // One whose definition is gone has ended.
    let shown = desk.connect.start_device("operator", wanted(), Map::new()).await.unwrap();
    desk.swap(&[HUB], &[]);
    assert_eq!(ended(&desk, &shown.result).await, "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_who_says_no_or_nothing_connects_nothing() {
    let code = |code: &str| TokenError { code: Some(code.to_owned()), ..refused(Permanent, Some(400), "no") };
    for (polls, failure) in [
        (vec![Err(code("access_denied"))], "denied"),
        (vec![Err(code("expired_token"))], "not_in_time"),
        (vec![Err(TokenError { kind: Misconfigured, ..code("invalid_client") })], "misconfigured"),
    ] {
        let desk = Desk::open().await;
        let _waiting = waits(&desk.connect);
        desk.service.set(|manners| manners.polls = polls);
        let shown = desk.connect.start_device("operator", wanted(), Map::new()).await.unwrap();
        assert_eq!(ended(&desk, &shown.result).await, "failed");
        assert_eq!(error_of(&desk.connect.outcome(&shown.result).await.unwrap().unwrap())["code"], failure);
        assert!(!tv(&desk).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_gives_no_code_is_the_links_outcome() {
    let desk = Desk::open().await;
    desk.service.set(|manners| manners.grant = Err(refused(Misconfigured, Some(400), "unknown client")));
    let shown = desk.connect.start_device("operator", wanted(), Map::new()).await.unwrap();
    assert_eq!((shown.state, shown.user_code), ("failed", None));
    assert_eq!(shown.error.unwrap()["code"], "misconfigured");
    assert_eq!(desk.connect.outcome(&shown.result).await.unwrap().unwrap().state, "failed");
}
