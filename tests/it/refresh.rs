//! Tokens renewed once, and never lost: many callers, two processes, crashes at every step.

mod door;
mod neighbours;
mod provider;
mod simulation;
mod told;
pub mod world;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use trunkline::base::clock::Clock as _;
use trunkline::connection::{Need, Neighbours, Refresher, Use};
use trunkline::respond::Refusal;

use provider::{Net, Step};
use world::{LIFE, World, access};

use crate::support::disk::Fault;

fn soon(minutes: u64) -> Need<'static> {
    Need { token: None, validity: Duration::from_mins(minutes) }
}

async fn token(refresher: &Arc<Refresher>, world: &World, need: Need<'_>) -> Result<String, Refusal> {
    token_of(("svc", refresher), world, need).await
}

async fn token_of(
    (integration, refresher): (&str, &Arc<Refresher>),
    world: &World,
    need: Need<'_>,
) -> Result<String, Refusal> {
    let generation = world.live.load();
    let integration = generation.integration(integration).unwrap();
    let connections = world.connections();
    let held = connections.resolve(&generation, integration, "team").await.map_err(|error| error.refusal())?;
    let usable = refresher.usable(&generation, integration, held, need).await;
    usable.map(|connection| access(&connection, need.token)).map_err(|error| error.refusal())
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
async fn a_token_that_ends_before_it_is_tried_again_is_an_error_for_who_looks_and_for_who_calls() {
    for calls in [false, true] {
        let world = World::new(41).await;
        let refresher = world.process(Neighbours::None);
        world.provider.answer(Net::Stranger);
        world.clock.advance(LIFE.saturating_sub(Duration::from_secs(30)));
        assert_eq!(token(&refresher, &world, soon(5)).await, Ok("a0".to_owned()));
        assert_eq!(world.health().await.status().word(), "warning");
        world.clock.advance(Duration::from_secs(30));
        if calls {
            assert_eq!(token(&refresher, &world, Need::default()).await, Err(Refusal::ConnectionUnusable));
        } else {
            assert_eq!(refresher.sweep().await.unwrap(), 0, "it is not tried again yet");
        }
        let health = world.health().await;
        assert_eq!((health.status().word(), world.provider.calls()), ("error", 1));
        assert_eq!(health.since, Some(world.clock.now()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_definition_is_corrected_it_is_tried_at_once() {
    for calls in [false, true] {
        let world = World::new(42).await;
        let refresher = world.process(Neighbours::None);
        world.provider.answer(Net::Stranger);
        world.clock.advance(LIFE);
        for _ in 0..3 {
            assert_eq!(token(&refresher, &world, Need::default()).await, Err(Refusal::ConnectionUnusable));
        }
        assert_eq!((refresher.sweep().await.unwrap(), world.provider.calls()), (0, 1));
        world.correct("another-secret-of-the-client");
        // Another process knows of the failure by the store alone.
        let (again, there) = if calls { world.second(Neighbours::Some) } else { (refresher, world) };
        there.provider.answer(Net::Fine);
        if calls {
            assert_eq!(token(&again, &there, Need::default()).await, Ok("a1".to_owned()));
        } else {
            assert_eq!(again.sweep().await.unwrap(), 1);
            assert!(again.drain(Duration::from_secs(10)).await);
        }
        assert_eq!((there.provider.calls(), there.health().await.status().word()), (2, "active"));
    }
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
    assert!(others.iter().all(|other| other.as_ref().map(|other| access(other, None)) == Some("a1".to_owned())));
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
    // Slower than places are looked for: that all are taken must not make the wait long.
    world.provider.slow_down(Duration::from_millis(150));
    let refresher = world.process(Neighbours::None);
    assert_eq!(refresher.sweep().await.unwrap(), 0, "none is due");
    world.clock.advance(LIFE.mul_f64(0.91));
    let stop = tokio_util::sync::CancellationToken::new();
    let sweeping = tokio::spawn(Arc::clone(&refresher).run(stop.clone()));
    until("all are renewed", || world.provider.calls() == 101).await;
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

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_tokens_that_end_together_come_a_few_at_a_time_and_hold_up_nobody_else() {
    let world = World::new(8).await;
    for number in 1..1_000 {
        world.connect_as(&format!("c{number}"), 1_000 * number).await;
    }
    world.connect_to("other", "team", 2_000_000).await;
    let refresher = world.process(Neighbours::None);
    // Issued at one moment, they are renewed ahead of their end over a tenth of their life.
    let mut shares = Vec::new();
    world.clock.advance(LIFE.mul_f64(0.8));
    for _ in 0..10 {
        world.clock.advance(LIFE / 100);
        let before = world.provider.calls();
        while refresher.sweep().await.unwrap() > 0 {
            until("the sweep's renewals end", || !refresher.is_busy()).await;
        }
        shares.push(world.provider.calls() - before);
    }
    assert_eq!((shares.iter().sum::<usize>(), world.provider.calls()), (1_001, 1_001), "{shares:?}");
    assert!(shares.iter().all(|share| (40..=180).contains(share)), "a thousand in ten parts: {shares:?}");
    // Nobody renewed them ahead, and they have all ended.
    world.clock.advance(LIFE);
    world.connect_as("fresh", 3_000_000).await;
    world.provider.hold(Some("svc"));
    let stop = tokio_util::sync::CancellationToken::new();
    let sweeping = tokio::spawn(Arc::clone(&refresher).run(stop.clone()));
    until("all places are taken", || world.provider.busy("svc") == 8).await;
    let generation = world.live.load();
    let wait = Duration::from_secs(20);
    for (integration, id, expected) in [("other", "team", "a2000002"), ("svc", "fresh", "a3000000")] {
        let integration = generation.integration(integration).unwrap();
        let held = world.connections().resolve(&generation, integration, id).await.unwrap();
        let usable = refresher.usable(&generation, integration, held, Need::default());
        let usable = tokio::time::timeout(wait, usable).await.unwrap_or_else(|_| panic!("{id} is held up"));
        assert_eq!(access(&usable.unwrap(), None), expected);
    }
    assert_eq!(world.provider.busy("svc"), 8);
    world.provider.hold(None);
    until("all are renewed", || world.provider.calls() == 2_002).await;
    stop.cancel();
    sweeping.await.unwrap();
    assert!(refresher.drain(Duration::from_secs(10)).await);
    assert_eq!((world.provider.calls(), world.provider.most_at_once()), (2_002, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_tokens_wait_for_a_disk_that_fails_and_are_used_when_it_works_again() {
    let world = World::new(9).await;
    let refresher = world.process(Neighbours::None);
    world.clock.advance(LIFE);
    world.trap.plan_failing_disk(Step::BeforeTokens);
    let asking = token(&refresher, &world, Need::default());
    tokio::pin!(asking);
    let broken = async {
        world.trap.crash.notified().await;
        let calls = world.trap.disk.calls().len();
        until("the tokens are tried to be stored", || world.trap.disk.calls().len() > calls).await;
    };
    tokio::select! {
        token = &mut asking => panic!("{token:?} is used before it is durable"),
        () = broken => {}
    }
    assert_eq!((world.provider.calls(), world.stored().await.1), (1, "r0".to_owned()));
    world.trap.disk.set_broken(false);
    assert_eq!(asking.await, Ok("a1".to_owned()));
    assert_eq!(world.stored().await, ("a1".to_owned(), "r1".to_owned()));
    assert_eq!((world.provider.calls(), world.health().await.status().word()), (1, "active"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_to_the_disk_fails_while_a_token_is_renewed_it_is_renewed_once() {
    for (call, fault) in (0..8).flat_map(|call| [(call, Fault::Fails), (call, Fault::Tears)]) {
        let world = World::new(10 + call as u64).await;
        let refresher = world.process(Neighbours::None);
        world.clock.advance(LIFE);
        let before = world.trap.disk.calls().len();
        world.trap.disk.fail(before + call, fault);
        let mut last = None;
        for _ in 0..20 {
            last = Some(token(&refresher, &world, Need::default()).await);
            if last == Some(Ok("a1".to_owned())) {
                break;
            }
            // The store refuses for a moment, by its clock, before it tries the disk again.
            world.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(last, Some(Ok("a1".to_owned())), "{fault:?} at {call}");
        assert!(refresher.drain(Duration::from_secs(10)).await);
        assert_eq!(world.stored().await, ("a1".to_owned(), "r1".to_owned()), "{fault:?} at {call}");
        assert_eq!(world.provider.calls(), 1, "{fault:?} at {call}");
    }
}
