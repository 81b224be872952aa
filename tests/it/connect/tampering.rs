//! Twelve tamperings and more: each ends on one page, without a token call, with nothing stored, and with a
//! line in the activity and the audit log.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;
use trunkline::connection::connect::pending::Issuer;

use super::desk::{Browser, Desk, TOO_LONG, target};
use crate::support::raw::Reply;

/// How a callback's query is made of its state.
type Change<'a> = &'a dyn Fn(&str) -> String;

/// What all refused callbacks have in common.
async fn is_refused(desk: &Desk, reply: &Reply, reason: &str) {
    assert_eq!((reply.status, reply.code()), (400, Some("flow_unknown")), "{reason}: {}", reply.text());
    assert!(reply.text().contains("could not be completed") && !reply.text().contains(reason), "{reason}");
    assert_eq!(desk.service.token_calls(), 0, "{reason}");
    assert_eq!(desk.records("connections").await, 0, "{reason}");
    let (action, detail) = desk.audit().await.pop().unwrap();
    assert_eq!((action.as_str(), &detail["reason"]), ("connect.refused", &json!(reason)));
    assert_eq!(desk.activity.newest(1, |_| true)[0].error.as_deref(), Some(reason), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callbacks_that_are_not_what_they_say_are_refused_alike() {
    let swap = |state: &str| state.chars().rev().collect::<String>();
    let cases: [(&str, Change<'_>); 8] = [
        ("state_missing", &|_| "code=c".to_owned()),
        ("state_missing", &|_| "state=&code=c".to_owned()),
        ("state_unknown", &|state| format!("state={}&code=c", swap(state))),
        ("state_unknown", &|state| format!("state={state}x&code=c")),
        ("state_unknown", &|_| format!("state={}&code=c", "0".repeat(53))),
        ("repeated_parameter", &|state| format!("state={state}&code=c&code=d")),
        ("repeated_parameter", &|state| format!("state={state}&state=x&code=c")),
        ("repeated_parameter", &|state| format!("state={state}&code=c&iss=a&iss=b")),
    ];
    for (reason, query) in cases {
        let desk = Desk::open().await;
        let (mut browser, _) = desk.departed().await;
        let reply = browser.callback(&query(&desk.service.state())).await;
        is_refused(&desk, &reply, reason).await;
        assert_eq!(desk.counted(reason), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_works_in_its_own_browser_only_and_is_used_up_by_the_attempt() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    let query = format!("state={}&code=c", desk.service.state());
    let mut stranger = Browser::new(&desk);
    let reply = stranger.callback(&query).await;
    is_refused(&desk, &reply, "other_browser").await;
    stranger.get(target(&desk.link().await.url)).await;
    assert!(stranger.cookie.is_some());
    let reply = browser.callback(&query).await;
    is_refused(&desk, &reply, "state_unknown").await;
    let (mut browser, _) = desk.departed().await;
    browser.cookie = stranger.cookie;
    let reply = browser.callback(&format!("state={}&code=c", desk.service.state())).await;
    is_refused(&desk, &reply, "other_browser").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_works_for_its_own_integration_only() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    let reply = browser.get(&format!("/api/auth/callback/other?state={}&code=c", desk.service.state())).await;
    is_refused(&desk, &reply, "other_integration").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_works_for_ten_minutes() {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    desk.clock.advance(TOO_LONG);
    let reply = browser.callback(&format!("state={}&code=c", desk.service.state())).await;
    is_refused(&desk, &reply, "state_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_the_one_that_was_expected() {
    for (always, iss, refused) in [
        (true, "&iss=https%3A%2F%2Fhub.example", false),
        (true, "", true),
        (true, "&iss=", true),
        (true, "&iss=https%3A%2F%2Fhub.example%2F", true),
        (false, "", false),
        (false, "&iss=https%3A%2F%2Fevil.example", true),
    ] {
        let desk = Desk::open().await;
        let name = "https://hub.example".to_owned();
        desk.service.set(|manners| manners.issuer = Some(Issuer { name, always }));
        let (mut browser, _) = desk.departed().await;
        let reply = browser.callback(&format!("state={}&code=c{iss}", desk.service.state())).await;
        if refused {
            is_refused(&desk, &reply, "other_issuer").await;
        } else {
            assert_eq!(reply.status, 303, "{iss}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_twenty_callbacks_at_once_one_is_exchanged() {
    let desk = Desk::open().await;
    let (browser, _) = desk.departed().await;
    let query = format!("/api/auth/callback/hub?state={}&code=c", desk.service.state());
    let attempts = (0..20).map(|_| {
        let (mut each, query) = (Browser::new(&desk), query.clone());
        each.cookie.clone_from(&browser.cookie);
        async move { each.get(&query).await.status }
    });
    // Those that come later are led to what came of the one, and those that come meanwhile are refused.
    let statuses = join_all(attempts).await;
    assert!(statuses.contains(&303) && statuses.iter().all(|status| matches!(status, 303 | 400)), "{statuses:?}");
    assert_eq!(desk.service.token_calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_only_looks_uses_nothing_up() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    let query = format!("/api/auth/callback/hub?state={}&code=c", desk.service.state());
    assert_eq!(browser.ask("HEAD", &query, "", "").await.status, 405);
    assert_eq!(browser.ask("POST", &query, "", "").await.status, 405);
    // A mail program that opens the link keeps nobody from using it.
    assert_eq!(browser.ask("HEAD", target(&made.url), "", "").await.status, 200);
    assert!(browser.succeed().await.text().contains("is connected"));
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_good_for_one_account_from_one_browser_for_a_while() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    let mut stranger = Browser::new(&desk);
    let taken = stranger.get(target(&made.url)).await;
    assert_eq!((taken.status, taken.code()), (410, Some("link_over")));
    browser.succeed().await;
    for reply in [browser.get(target(&made.url)).await, browser.post(target(&made.url), "").await] {
        assert_eq!((reply.status, reply.code()), (410, Some("link_over")));
    }
    let late = desk.link().await;
    desk.clock.advance(TOO_LONG * 2);
    assert_eq!(browser.get(target(&late.url)).await.code(), Some("link_over"));
    assert_eq!(desk.state_of(&late).await, "expired");
    let fresh = desk.link().await;
    let forged = fresh.url.replace("connection=acme", "connection=evil");
    let reply = browser.get(target(&forged)).await;
    assert_eq!((reply.status, reply.code()), (400, Some("link_invalid")));
    assert_eq!(desk.audit().await.pop().unwrap().1["reason"], "link_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_other_sites_and_without_the_cookie_begin_nothing() {
    let desk = Desk::open().await;
    let made = desk.link().await;
    let mut browser = Browser::new(&desk);
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(browser.ask("POST", target(&made.url), form, "x=y").await.code(), Some("flow_unknown"));
    browser.get(target(&made.url)).await;
    for headers in [
        format!("{form}Origin: https://evil.example\r\n"),
        format!("{form}Sec-Fetch-Site: cross-site\r\nOrigin: null\r\n"),
        format!("{form}Sec-Fetch-Site: same-site\r\n"),
        "Content-Type: text/plain\r\n".to_owned(),
    ] {
        let reply = browser.ask("POST", target(&made.url), &headers, "input.site=main").await;
        is_refused(&desk, &reply, "other_site").await;
    }
    assert!(desk.service.departures.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_are_shown_in_their_own_browser_only() {
    let desk = Desk::open().await;
    let (mut browser, made) = desk.departed().await;
    browser.succeed().await;
    let place = format!("/api/connect/hub/outcome?result={}", made.result);
    assert_eq!(browser.get(&place).await.status, 200);
    let mut stranger = Browser::new(&desk);
    stranger.get(target(&desk.link().await.url)).await;
    for (target, who) in [
        (place.clone(), "a stranger"),
        (place.replace("hub", "other"), "another integration"),
        (format!("/api/connect/hub/outcome?result={}", made.link.id), "a link's id"),
    ] {
        let reply = stranger.get(&target).await;
        assert!(reply.status == 400 && !reply.text().contains("Ada"), "{who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_forged_callbacks_do_not_flood_the_audit_log() {
    let desk = Arc::new(Desk::open().await);
    let mut browser = Browser::new(&desk);
    for number in 0..100 {
        browser.callback(&format!("state={number}")).await;
    }
    assert_eq!(desk.audit().await.len(), 60);
    assert_eq!(desk.activity.newest(1_000, |_| true).len(), 60, "what calls left there stays");
    desk.clock.advance(TOO_LONG);
    browser.callback("state=x").await;
    assert_eq!(desk.audit().await.pop().unwrap().1["left_out_before"], 40);
}
