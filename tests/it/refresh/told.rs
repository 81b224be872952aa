//! What is told of each token, and by whom: nothing of one against another, nothing by who lost the lease, and
//! nothing of tokens that came too late but the truth.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::connection::connect::{RevocationState, What};
use trunkline::connection::health::{self, Key};
use trunkline::connection::{Grant, Need, Neighbours, Refresher, TokenError, TokenErrorKind};
use trunkline::respond::Refusal;
use trunkline::store::{Audit as _, Records as _};

use super::provider::Net;
use super::world::{LIFE, World};
use super::{token, token_of, until};

const DEFAULT: Need<'static> = Need { token: None, validity: Duration::ZERO };
const USER: Need<'static> = Need { token: Some("user"), validity: Duration::ZERO };

impl World {
    /// A world whose connection has a second token, `user`, of a consent of its own.
    async fn of_two(seed: u64) -> (Self, Arc<Refresher>) {
        let world = Self::new(seed).await;
        world.connect_second("user", 5_000).await;
        let refresher = world.process(Neighbours::None);
        (world, refresher)
    }

    /// What the audit log says of renewals: how each ended, and whether what came was taken back.
    async fn ends(&self) -> Vec<(String, Value)> {
        let all = self.store.read(1, 1_000).await.unwrap();
        let ends = all.iter().filter(|record| record.entry.action == "connection.refresh");
        let end = |detail: &Value| (detail["result"].as_str().unwrap().to_owned(), detail["taken_back"].clone());
        ends.map(|record| end(&record.entry.detail)).collect()
    }

    /// What services are to be told.
    async fn taken_back(&self) -> Vec<(What, RevocationState)> {
        let all = self.revocations.list().await.unwrap();
        all.iter().map(|revocation| (revocation.what, revocation.state)).collect()
    }

    /// A renewal is under way, and the service answers only when `hold(None)` is said.
    async fn renewing(&self, integration: &'static str, refresher: &Arc<Refresher>) {
        self.clock.advance(LIFE);
        self.provider.hold(Some(integration));
        let asked = token_of((integration, refresher), self, DEFAULT);
        assert!(tokio::time::timeout(Duration::from_millis(50), asked).await.is_err());
        until("the service is asked", || self.provider.busy(integration) == 1).await;
    }

    async fn answered(&self, refresher: &Arc<Refresher>) {
        self.provider.hold(None);
        until("the renewal ends", || !refresher.is_busy()).await;
    }

    async fn told(&self) -> (&'static str, String) {
        let health = self.health().await;
        (health.status().word(), health.last_error.map_or_else(String::new, |trouble| trouble.what))
    }
}

fn late(taken_back: bool) -> Vec<(String, Value)> {
    vec![("late".to_owned(), json!(taken_back))]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_that_is_refused_for_good_keeps_no_other_from_being_renewed_and_used() {
    let (world, refresher) = World::of_two(31).await;
    world.provider.revoke_one(5_000);
    world.clock.advance(LIFE);
    assert_eq!(token(&refresher, &world, USER).await, Err(Refusal::NeedsReconnect));
    assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a1".to_owned()));
    let (status, what) = world.told().await;
    assert_eq!(status, "needs_reconnect", "a person has to connect the user again");
    assert!(what.starts_with("the token `user`: ") && what.contains("invalid_grant"), "{what}");
    refresher.sweep().await.unwrap();
    world.clock.advance(LIFE.mul_f64(0.91));
    assert_eq!(refresher.sweep().await.unwrap(), 1, "and the other is renewed ahead of its end");
    assert!(refresher.drain(Duration::from_secs(10)).await);
    let (again, there) = world.second(Neighbours::None);
    assert_eq!(token(&again, &there, DEFAULT).await, Ok("a2".to_owned()));
    assert_eq!(token(&again, &there, USER).await, Err(Refusal::NeedsReconnect), "also after a restart");
    assert_eq!(world.provider.calls(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_that_has_to_wait_keeps_no_other_waiting() {
    let (world, refresher) = World::of_two(32).await;
    world.clock.advance(LIFE);
    world.provider.answer(Net::Busy);
    assert_eq!(token(&refresher, &world, DEFAULT).await, Err(Refusal::ConnectionUnusable));
    world.provider.answer(Net::Fine);
    assert_eq!(token(&refresher, &world, USER).await, Ok("a5001".to_owned()));
    assert_eq!(world.told().await.0, "error", "the default token has ended");
    assert_eq!(token(&refresher, &world, DEFAULT).await, Err(Refusal::ConnectionUnusable));
    assert_eq!(world.provider.calls(), 2, "its own pause counts on");
    world.clock.advance(Duration::from_secs(5));
    assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a1".to_owned()));
    assert_eq!(world.told().await.0, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_come_after_their_connection_was_removed_are_taken_back_and_said_to_be_late() {
    let world = World::new(33).await;
    let refresher = world.process(Neighbours::None);
    world.renewing("svc", &refresher).await;
    assert!(world.connections().remove("operator", "svc", "team").await.unwrap());
    world.answered(&refresher).await;
    assert_eq!(world.ends().await, late(true));
    assert_eq!(world.taken_back().await, [(What::Connection, RevocationState::Pending)]);
    let health = world.store.get(&Key::new("svc", "team").record(health::COLLECTION)).await.unwrap();
    assert!(health.is_none(), "nothing is remembered of a connection that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_come_after_their_account_was_connected_anew_are_taken_back_where_that_ends_no_others() {
    let world = World::new(34).await;
    let refresher = world.process(Neighbours::None);
    world.renewing("svc", &refresher).await;
    world.connect(9_000).await;
    world.answered(&refresher).await;
    assert_eq!(world.ends().await, late(true));
    assert_eq!(world.taken_back().await, [(What::Replaced, RevocationState::Pending)]);
    assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a9000".to_owned()));
    // `other` does not say that replaced tokens may be taken back: that could end the consent.
    world.connect_to("other", "team", 20_000).await;
    world.renewing("other", &refresher).await;
    world.connect_to("other", "team", 30_000).await;
    world.answered(&refresher).await;
    assert_eq!(world.ends().await.pop(), late(false).pop());
    assert_eq!(world.taken_back().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_came_without_an_access_token_is_kept_and_nobody_is_told_that_it_worked() {
    let world = World::new(39).await;
    let refresher = world.process(Neighbours::None);
    world.provider.spoil(|grant| {
        grant.tokens.get_mut("default").unwrap().access = "a0".into();
        grant.unfinished = Some(TokenError::new(TokenErrorKind::Passing, "the second step answered 503"));
    });
    world.clock.advance(LIFE);
    assert_eq!(token(&refresher, &world, DEFAULT).await, Err(Refusal::ConnectionUnusable));
    assert_eq!(world.stored().await, ("a0".to_owned(), "r1".to_owned()));
    let (status, what) = world.told().await;
    assert!(status == "error" && what.contains("the second step"), "{status}: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_come_after_a_removal_are_taken_back_although_the_account_is_there_again() {
    let world = World::new(40).await;
    let refresher = world.process(Neighbours::None);
    // `other` does not have replaced tokens taken back: these are none.
    world.connect_to("other", "team", 20_000).await;
    world.renewing("other", &refresher).await;
    assert!(world.connections().remove("operator", "other", "team").await.unwrap());
    world.connect_to("other", "team", 30_000).await;
    world.answered(&refresher).await;
    assert_eq!(world.ends().await, late(true));
    assert_eq!(world.taken_back().await, [(What::Connection, RevocationState::Pending)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_lease_says_nothing_of_how_the_connection_fares() {
    for net in [Net::Busy, Net::Unsent, Net::LostAnswer] {
        let world = World::new(35).await;
        let refresher = world.process(Neighbours::None);
        world.provider.answer(net);
        world.renewing("svc", &refresher).await;
        world.connect(9_000).await;
        let before = world.health().await;
        world.answered(&refresher).await;
        assert_eq!(world.health().await, before, "{net:?}");
        assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a9000".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_another_process_got_first_of_the_same_consent_are_left_alone() {
    let world = World::new(36).await;
    let (one, two) = (world.process(Neighbours::Some), world.second(Neighbours::Some));
    world.renewing("svc", &one).await;
    world.clock.advance(LIFE);
    // Both at once would be a reuse of the refresh token, which the service punishes as it likes.
    world.answered(&one).await;
    assert_eq!(token(&two.0, &two.1, DEFAULT).await.as_deref(), Ok("a1"));
    until("both end", || !one.is_busy() && !two.0.is_busy()).await;
    assert_eq!(world.taken_back().await, []);
    assert_eq!(two.1.told().await.0, "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_too_large_to_be_kept_lose_no_token() {
    let world = World::new(37).await;
    let refresher = world.process(Neighbours::None);
    world.provider.spoil(|grant| _ = grant.saved.insert("huge".to_owned(), json!("x".repeat(300 << 10))));
    world.clock.advance(LIFE);
    assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a1".to_owned()));
    assert_eq!(world.stored().await, ("a1".to_owned(), "r1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_new_tokens_cannot_be_kept_the_old_one_is_not_sent_again_at_once() {
    let world = World::new(38).await;
    let refresher = world.process(Neighbours::None);
    world.provider.spoil(|grant| {
        let token = grant.tokens.get_mut("default").unwrap();
        token.access = "x".repeat(300 << 10).as_str().into();
    });
    world.clock.advance(LIFE);
    for _ in 0..50 {
        assert_eq!(token(&refresher, &world, DEFAULT).await, Err(Refusal::ConnectionUnusable));
        refresher.sweep().await.unwrap();
    }
    assert_eq!(world.provider.calls(), 1);
    assert_eq!(world.ends().await, [("unkept".to_owned(), Value::Null)]);
    let (status, what) = world.told().await;
    assert!(status == "error" && what.starts_with("the service gave a new token, and it cannot be kept"), "{what}");
    let (again, there) = world.second(Neighbours::None);
    assert_eq!(token(&again, &there, DEFAULT).await, Err(Refusal::ConnectionUnusable), "also after a restart");
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_refresh_token_is_spent_works_to_its_end_and_then_a_person_is_asked_for() {
    let world = World::new(39).await;
    let refresher = world.process(Neighbours::None);
    world.provider.spoil(|grant: &mut Grant| {
        grant.tokens.get_mut("default").unwrap().refresh = None;
        grant.spent.insert("default".into());
        grant.warnings.push("the answer has no new refresh token".to_owned());
    });
    world.clock.advance(LIFE);
    assert_eq!(token(&refresher, &world, DEFAULT).await, Ok("a1".to_owned()));
    assert_eq!(world.told().await, ("warning", "the answer has no new refresh token".to_owned()));
    world.clock.advance(LIFE.saturating_sub(Duration::from_secs(1)));
    let soon = Need { validity: Duration::from_mins(5), ..DEFAULT };
    assert_eq!(token(&refresher, &world, soon).await, Ok("a1".to_owned()), "it works, if not for as long as asked");
    assert_eq!((refresher.sweep().await.unwrap(), world.told().await.0), (0, "warning"));
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(refresher.sweep().await.unwrap(), 1, "nobody calls, and its end is noticed");
    until("it is noticed", || !refresher.is_busy()).await;
    let (status, what) = world.told().await;
    assert!(status == "needs_reconnect" && what.contains("gave nothing to renew it with"), "{what}");
    assert_eq!(token(&refresher, &world, DEFAULT).await, Err(Refusal::NeedsReconnect));
    assert_eq!((refresher.sweep().await.unwrap(), world.provider.calls()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_which_nothing_can_be_known_keep_no_other_from_being_renewed() {
    let world = World::new(41).await;
    for number in 0..2_001 {
        let record = Key::new("aaa", &number.to_string()).record("connections");
        world.store.put(&record, b"x".to_vec().into(), None).await.unwrap();
    }
    let refresher = world.process(Neighbours::None);
    world.clock.advance(LIFE.mul_f64(0.91));
    assert_eq!(refresher.sweep().await.unwrap(), 1);
    assert!(refresher.drain(Duration::from_secs(10)).await);
}
