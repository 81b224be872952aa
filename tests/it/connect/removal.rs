//! Connections that are taken away: gone here at once, and then at the service.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use trunkline::connection::TokenErrorKind::{Passing, Permanent};
use trunkline::connection::connect::{RevocationState, What};

use super::desk::{APP, Browser, Desk, HUB, KEYED, refused, target};

async fn connected() -> Desk {
    let desk = Desk::open().await;
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    desk
}

/// Lets the gateway tell services until nothing is left that it can do now.
async fn told(desk: &Desk) {
    let stop = CancellationToken::new();
    let telling = tokio::spawn({
        let (connect, stop) = (desk.connect.clone(), stop.clone());
        async move { connect.tell_services(stop).await }
    });
    let settled = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let all = desk.connect.revocations().await.unwrap();
            let now = desk.now().to_string();
            if all.iter().all(|one| one.next.as_ref().is_none_or(|next| *next > now)) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("still due");
    stop.cancel();
    telling.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connection_is_gone_at_once_and_taken_back_at_the_service() {
    let desk = connected().await;
    let removed = desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    assert_eq!((removed.state, desk.token().await), (RevocationState::Pending, None));
    assert!(desk.service.revoked.lock().unwrap().is_empty());
    told(&desk).await;
    assert_eq!(*desk.service.revoked.lock().unwrap(), ["canary-access-1"]);
    assert_eq!(desk.connect.revocations().await.unwrap()[0].state, RevocationState::Revoked);
    let actions: Vec<_> = desk.audit().await.into_iter().map(|(action, _)| action).collect();
    assert_eq!(actions[actions.len() - 2..], ["connection.remove", "connection.revoke"]);
    assert!(desk.connect.remove("operator", "hub", "acme").await.unwrap().is_none());
    told(&desk).await;
    assert_eq!(desk.service.revoked.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_were_replaced_are_taken_back_where_the_definition_says_so() {
    let takes_back = HUB.replace(
        "    client:",
        "    revoke: \"POST https://hub.example/revoke\"\n    revoke_replaced: true\n    client:",
    );
    for (definition, expected) in [(HUB, vec![]), (takes_back.as_str(), vec!["canary-access-1"])] {
        let desk = Desk::open_with(APP, &[definition]).await;
        for round in 1..=2 {
            assert_eq!(desk.connect.revocations().await.unwrap().len(), 0, "{round}");
            let (mut browser, _) = desk.departed().await;
            browser.succeed().await;
        }
        assert_eq!(desk.token().await.as_deref(), Some("canary-access-2"));
        told(&desk).await;
        assert_eq!(*desk.service.revoked.lock().unwrap(), expected);
        let shown = desk.connect.revocations().await.unwrap();
        let shown: Vec<_> = shown.iter().map(|one| (one.what, one.state)).collect();
        let revoked = (What::Replaced, RevocationState::Revoked);
        assert_eq!(shown, expected.iter().map(|_| revoked).collect::<Vec<_>>());
        assert_eq!(desk.token().await.as_deref(), Some("canary-access-2"), "the new ones stay");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_for_a_choice_that_nobody_makes_is_taken_back() {
    let desk = Desk::open().await;
    let choices = ["Alpha", "Beta"].map(|label| (label, serde_json::json!({ "site_id": label })));
    desk.service.set(|manners| manners.choices = choices.to_vec());
    let (mut chosen, made) = desk.departed().await;
    chosen.succeed().await;
    let (mut left, unchosen) = desk.departed().await;
    left.succeed().await;
    assert_eq!(chosen.post(&format!("/api/connect/hub/choose?result={}", made.result), "choice=1").await.status, 303);
    told(&desk).await;
    assert!(desk.service.revoked.lock().unwrap().is_empty(), "there is time to choose");
    desk.clock.advance(Duration::from_mins(12));
    let late = left.post(&format!("/api/connect/hub/choose?result={}", unchosen.result), "choice=1").await;
    assert_eq!(late.status, 400);
    // Meanwhile the account is not connected any more; else the old token could end the new connection.
    desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    told(&desk).await;
    let mut revoked = desk.service.revoked.lock().unwrap().clone();
    revoked.sort();
    assert_eq!(revoked, ["canary-access-1", "canary-access-2"]);
    assert_eq!(desk.records("connect_choices").await, 0);
    let shown = desk.connect.revocations().await.unwrap();
    assert!(shown.iter().any(|one| (one.what, one.state) == (What::Unchosen, RevocationState::Revoked)), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_choice_that_nobody_made_in_time_is_told_as_over() {
    let desk = Desk::open().await;
    let choices = ["Alpha", "Beta"].map(|label| (label, serde_json::json!({ "site_id": label })));
    desk.service.set(|manners| manners.choices = choices.to_vec());
    let (mut browser, made) = desk.departed().await;
    browser.succeed().await;
    desk.clock.advance(Duration::from_mins(12));
    assert_eq!(desk.state_of(&made).await, "choosing");
    let stop = CancellationToken::new();
    stop.cancel();
    desk.connect.tell_services(stop).await;
    let shown = desk.connect.outcome(&made.result).await.unwrap().unwrap();
    assert_eq!((shown.state, &super::desk::error_of(&shown)["code"]), ("failed", &serde_json::json!("not_in_time")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_connected_by_another_name_is_left_alone() {
    let desk = connected().await;
    let depart = async || {
        let made = desk.link_for(|wanted| wanted.connection = "other".to_owned()).await;
        let mut browser = Browser::new(&desk);
        browser.get(target(&made.url)).await;
        browser.post(target(&made.url), "input.site=main").await;
        browser
    };
    depart().await.succeed().await;
    desk.connect.remove("operator", "hub", "other").await.unwrap().unwrap();
    // A sign-in that comes to nothing, of which nobody knows whose account it is.
    desk.service.set(|manners| manners.who = Err(refused(Permanent, Some(401), "no")));
    depart().await.succeed().await;
    told(&desk).await;
    assert!(desk.service.revoked.lock().unwrap().is_empty(), "the service may end the whole consent");
    let shown = desk.connect.revocations().await.unwrap();
    let ended = |what| shown.iter().find(|one| one.what == what).unwrap_or_else(|| panic!("{shown:?}"));
    for what in [What::Connection, What::Unkept] {
        assert_eq!(ended(what).state, RevocationState::GivenUp, "{shown:?}");
        assert!(ended(what).error.as_ref().unwrap().contains("is connected as `acme`"), "{shown:?}");
    }
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-1"));
    // Another account's is taken back.
    let id =
        |id: &str| trunkline::connection::connect::provider::Who { id: Some(id.to_owned()), name: None, email: None };
    desk.service.set(|manners| manners.who = Ok(Some(id("77"))));
    depart().await.succeed().await;
    desk.connect.remove("operator", "hub", "other").await.unwrap().unwrap();
    told(&desk).await;
    assert_eq!(*desk.service.revoked.lock().unwrap(), ["canary-access-4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_service_gives_again_is_not_taken_back() {
    let desk = Desk::open_with(
        APP,
        &[&HUB.replace(
            "    client:",
            "    revoke: \"POST https://hub.example/revoke\"\n    revoke_replaced: true\n    client:",
        )],
    )
    .await;
    desk.service.set(|manners| manners.same_token = true);
    for _ in 0..2 {
        let (mut browser, _) = desk.departed().await;
        browser.succeed().await;
    }
    told(&desk).await;
    assert!(desk.service.revoked.lock().unwrap().is_empty() && desk.connect.revocations().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_be_reached_is_told_later_and_one_that_refuses_is_not() {
    let desk = connected().await;
    desk.service.set(|manners| manners.revoke = Err(refused(Passing, None, "no route")));
    desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    told(&desk).await;
    let waiting = desk.connect.revocations().await.unwrap().remove(0);
    assert_eq!((waiting.state, waiting.attempts), (RevocationState::Pending, 1));
    assert!(waiting.error.unwrap().contains("no route"));
    desk.clock.advance(Duration::from_mins(2));
    desk.service.set(|manners| manners.revoke = Err(refused(Permanent, Some(400), "unsupported_token_type")));
    told(&desk).await;
    let ended = desk.connect.revocations().await.unwrap().remove(0);
    assert_eq!((ended.state, ended.attempts, ended.next), (RevocationState::GivenUp, 2, None));
    assert_eq!(desk.audit().await.pop().unwrap().1["state"], "given_up");
    desk.clock.advance(Duration::from_hours(8 * 24));
    told(&desk).await;
    assert!(desk.connect.revocations().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_failed_is_not_carried_out_later() {
    let desk = connected().await;
    desk.scribe.refuses.store(true, Ordering::Relaxed);
    desk.connect.remove("operator", "hub", "acme").await.unwrap_err();
    desk.scribe.refuses.store(false, Ordering::Relaxed);
    // Somebody connects another account in its place before it is looked at again.
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    told(&desk).await;
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-2"), "nobody removed this one");
    desk.scribe.refuses.store(true, Ordering::Relaxed);
    desk.connect.remove("operator", "hub", "acme").await.unwrap_err();
    desk.scribe.refuses.store(false, Ordering::Relaxed);
    let before = desk.service.revoked.lock().unwrap().len();
    told(&desk).await;
    assert_eq!(desk.token().await.as_deref(), Some("canary-access-2"), "whoever removed it was told that it failed");
    assert_eq!(desk.service.revoked.lock().unwrap().len(), before);
    assert!(desk.audit().await.iter().all(|(action, _)| action != "connection.remove"));
    desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    told(&desk).await;
    assert_eq!(desk.service.revoked.lock().unwrap().last().map(String::as_str), Some("canary-access-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_definition_has_errors_is_told_once_they_are_mended() {
    for faulty in ["hub", "?"] {
        let desk = connected().await;
        desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
        desk.swap(&[KEYED], &[faulty]);
        for _ in 0..20 {
            told(&desk).await;
            desk.clock.advance(Duration::from_mins(61));
        }
        let waiting = desk.connect.revocations().await.unwrap().remove(0);
        assert_eq!((waiting.state, waiting.attempts), (RevocationState::Pending, 0));
        assert!(waiting.error.unwrap().contains("its definition has errors"));
        if faulty == "?" {
            desk.clock.advance(Duration::from_hours(6 * 24));
            told(&desk).await;
            let ended = desk.connect.revocations().await.unwrap().remove(0);
            assert_eq!((ended.state, ended.next), (RevocationState::GivenUp, None), "seen before its record ends");
            assert_eq!(desk.audit().await.pop().unwrap().1["state"], "given_up");
            return;
        }
        desk.swap(&[HUB, KEYED], &[]);
        told(&desk).await;
        assert_eq!(desk.connect.revocations().await.unwrap()[0].state, RevocationState::Revoked);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_in_use_again_are_not_taken_back() {
    let desk = connected().await;
    desk.service.set(|manners| {
        manners.same_token = true;
        manners.revoke = Err(refused(Passing, None, "no route"));
    });
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    desk.connect.remove("operator", "hub", "acme").await.unwrap().unwrap();
    told(&desk).await;
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    desk.service.set(|manners| manners.revoke = Ok(true));
    desk.clock.advance(Duration::from_mins(2));
    told(&desk).await;
    let ended = desk.connect.revocations().await.unwrap().pop().unwrap();
    assert_eq!(ended.state, RevocationState::GivenUp);
    assert!(ended.error.unwrap().contains("in use by a connection"));
    assert!(desk.service.revoked.lock().unwrap().is_empty());
    // Under another name the very same token may be in use as well.
    let made = desk.link_for(|wanted| wanted.connection = "other".to_owned()).await;
    let mut browser = Browser::new(&desk);
    browser.get(target(&made.url)).await;
    browser.post(target(&made.url), "input.site=main").await;
    browser.succeed().await;
    desk.connect.remove("operator", "hub", "other").await.unwrap().unwrap();
    told(&desk).await;
    let ended = desk.connect.revocations().await.unwrap().pop().unwrap();
    assert!(ended.error.unwrap().contains("in use by a connection"));
    assert!(desk.service.revoked.lock().unwrap().is_empty());
}
