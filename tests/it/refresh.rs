//! Tokens renewed once, and never lost: many callers, two processes, crashes at every step.

mod door;
mod provider;
mod simulation;
mod world;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline::base::clock::Clock as _;
use trunkline::connection::{Need, Neighbours, Refresher, Use};
use trunkline::respond::Refusal;

use provider::Net;
use world::{LIFE, World, access};

fn soon(minutes: u64) -> Need<'static> {
    Need { token: None, validity: Duration::from_mins(minutes) }
}

async fn token(refresher: &Arc<Refresher>, world: &World, need: Need<'_>) -> Result<String, Refusal> {
    let generation = world.live.load();
    let integration = generation.integration("svc").unwrap();
    let connections = world.connections();
    let held = connections.resolve(&generation, integration, "team").await.map_err(|error| error.refusal())?;
    let usable = refresher.usable(&generation, integration, held, need).await;
    usable.map(|connection| access(&connection)).map_err(|error| error.refusal())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_callers_at_the_end_of_a_token_renew_it_once() {
    let world = World::new(1).await;
    world.provider.slow_down(Duration::from_millis(100));
    // A second process on the same store, with its own memory.
    let (one, two) = (world.process(Neighbours::Some), world.second(Neighbours::Some));
    for round in 1..=3 {
        world.clock.advance(LIFE);
        let ask = |number: u32| {
            let (refresher, world) = if number.is_multiple_of(2) { (&one, &world) } else { (&two.0, &two.1) };
            token(refresher, world, Need::default())
        };
        let tokens = join_all((0_u32..200).map(ask)).await;
        assert!(tokens.iter().all(|token| *token == Ok(format!("a{round}"))), "{tokens:?}");
        assert_eq!(world.provider.calls(), round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_takes_no_token_with_it() {
    let world = World::new(2).await;
    world.provider.slow_down(Duration::from_millis(200));
    let refresher = world.process(Neighbours::None);
    world.clock.advance(LIFE);
    let gone = tokio::time::timeout(Duration::from_millis(50), token(&refresher, &world, Need::default())).await;
    assert!(gone.is_err());
    assert!(refresher.drain(Duration::from_secs(10)).await);
    assert_eq!(world.stored().await, ("a1".to_owned(), "r1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_renewing_fails_a_token_that_works_goes_on_being_used_and_the_service_is_left_alone() {
    let world = World::new(3).await;
    let refresher = world.process(Neighbours::None);
    world.provider.answer(Net::Busy);
    world.clock.advance(LIFE.saturating_sub(Duration::from_mins(4)));
    for _ in 0..50 {
        assert_eq!(token(&refresher, &world, soon(5)).await, Ok("a0".to_owned()));
    }
    assert_eq!(world.provider.calls(), 1);
    assert_eq!(world.health().await.status().word(), "warning");
    world.clock.advance(Duration::from_mins(4));
    for _ in 0..3_600 {
        assert_eq!(token(&refresher, &world, Need::default()).await, Err(Refusal::ConnectionUnusable));
        world.clock.advance(Duration::from_secs(1));
    }
    let calls = world.provider.calls();
    assert!((3..=9).contains(&calls), "{calls} calls in an hour");
    assert_eq!(world.health().await.status().word(), "error");
    world.provider.answer(Net::Fine);
    world.clock.advance(Duration::from_mins(20));
    assert_eq!(token(&refresher, &world, Need::default()).await, Ok("a1".to_owned()));
    assert_eq!(world.health().await.status().word(), "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_for_good_needs_a_person_and_says_why_also_after_a_restart() {
    let world = World::new(4).await;
    let refresher = world.process(Neighbours::None);
    world.provider.revoke();
    world.clock.advance(LIFE);
    for _ in 0..3 {
        assert_eq!(token(&refresher, &world, Need::default()).await, Err(Refusal::NeedsReconnect));
    }
    let (again, there) = world.second(Neighbours::None);
    assert_eq!(token(&again, &there, Need::default()).await, Err(Refusal::NeedsReconnect));
    again.sweep().await.unwrap();
    assert!(again.drain(Duration::from_secs(10)).await);
    assert_eq!(world.provider.calls(), 1, "it is asked once and no more");
    let error = there.health().await.last_error.unwrap();
    assert!(error.what.contains("invalid_grant") && error.what.contains("revoked"), "{error:?}");
    assert_eq!(error.step, "connect the account again");
    there.connect(9_000).await;
    assert_eq!(token(&again, &there, Need::default()).await, Ok("a9000".to_owned()));
    assert_eq!(there.health().await.status().word(), "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_renews_once_and_a_token_just_issued_is_not_the_reason() {
    let world = World::new(5).await;
    let refresher = world.process(Neighbours::None);
    let generation = world.live.load();
    let integration = generation.integration("svc").unwrap();
    world.clock.advance(Duration::from_mins(10));
    let held = world.connections().resolve(&generation, integration, "team").await.unwrap();
    let refused = || refresher.after_refusal(&generation, integration, &held, None);
    let others = join_all((0..50).map(|_| refused())).await;
    assert!(others.iter().all(|other| other.as_ref().map(|other| access(other)) == Some("a1".to_owned())));
    assert_eq!(world.provider.calls(), 1);
    let newest = others.into_iter().flatten().next().unwrap();
    assert!(refresher.after_refusal(&generation, integration, &newest, None).await.is_none());
    assert_eq!(world.provider.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_background_renews_ahead_and_passes_the_gate_a_few_at_a_time() {
    let world = World::new(6).await;
    for number in 0..100 {
        world.connect_as(&format!("c{number}"), 1_000 * (number + 1)).await;
    }
    world.provider.slow_down(Duration::from_millis(5));
    let refresher = world.process(Neighbours::None);
    assert_eq!(refresher.sweep().await.unwrap(), 0, "none is due");
    world.clock.advance(LIFE.mul_f64(0.91));
    let stop = tokio_util::sync::CancellationToken::new();
    let sweeping = tokio::spawn(Arc::clone(&refresher).run(stop.clone()));
    for _ in 0..1_000 {
        if world.provider.calls() == 101 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    sweeping.await.unwrap();
    assert!(refresher.drain(Duration::from_secs(10)).await);
    assert_eq!(world.provider.calls(), 101);
    assert!(world.provider.most_at_once() <= 8, "{}", world.provider.most_at_once());
    assert_eq!(world.health().await.last_refresh, Some(world.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_connection_is_refused_and_its_token_kept_alive() {
    let world = World::new(7).await;
    let refresher = world.process(Neighbours::None);
    world.connections().set_use("operator", "svc", "team", Use::Paused).await.unwrap();
    assert_eq!(token(&refresher, &world, Need::default()).await, Err(Refusal::ConnectionPaused));
    let (again, there) = world.second(Neighbours::None);
    assert_eq!(token(&again, &there, Need::default()).await, Err(Refusal::ConnectionPaused), "also after a restart");
    world.clock.advance(LIFE);
    assert_eq!(again.sweep().await.unwrap(), 1);
    assert!(again.drain(Duration::from_secs(10)).await);
    there.connections().set_use("operator", "svc", "team", Use::Resumed).await.unwrap();
    assert_eq!(token(&again, &there, Need::default()).await, Ok("a1".to_owned()));
}
