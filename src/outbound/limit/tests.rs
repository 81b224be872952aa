//! The limiter as calls meet it: turns, waits, refusals, reloads.

use super::*;
use crate::base::clock::{ManualClock, SystemClock, Timestamp};
use crate::base::units::Rate;
use crate::definition::plan::policy::Scope;

fn limit(count: u32, wait: Duration) -> Limit {
    Limit {
        name: "connection".into(),
        rate: Rate { count, period: Duration::from_secs(1) },
        burst: 1,
        per: Scope::Connection,
        endpoint: None,
        paths: Vec::new(),
        methods: Vec::new(),
        wait,
    }
}

fn limiter(limit: Limit, clock: &Arc<ManualClock>) -> Arc<Limiter> {
    over(limit, &(Arc::clone(clock) as Arc<dyn Clock>))
}

fn over(limit: Limit, clock: &Arc<dyn Clock>) -> Arc<Limiter> {
    let gauge = IntGauge::new("waiting", "Waiting.").expect("a gauge");
    Limiter::of((&[limit], 0), None, gauge, clock)
}

/// The same limiter after a reload that changed another limit.
fn reloaded(before: &Arc<Limiter>, burst: u32) -> Arc<Limiter> {
    let other = Limit { name: "other".into(), methods: vec![Method::TRACE], burst, ..limit(1_000, Duration::ZERO) };
    let gauge = IntGauge::new("waiting", "Waiting.").expect("a gauge");
    let limits = [before.limits.first().cloned().expect("one"), other];
    Limiter::of((&limits, 0), Some(before), gauge, &before.clock)
}

#[tokio::test]
async fn what_the_service_asked_for_is_kept_although_another_limit_changes() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1)));
    let pause = || Report { refused: true, retry_after: Some(Duration::from_mins(1)), ..Report::default() };
    let before = limiter(limit(1_000, Duration::ZERO), &clock);
    admit(&before, "app", None).await.expect("room").answered(pause());
    let after = reloaded(&before, 2);
    assert_eq!(admit(&after, "app", None).await.map(drop).map_err(|full| full.why), Err(Why::Quota));
    clock.advance(Duration::from_mins(2));
    // One that began before is answered after.
    let late = admit(&after, "app", None).await.expect("the pause is over");
    let newest = reloaded(&reloaded(&after, 3), 4);
    late.answered(pause());
    for old in [&before, &after, &newest] {
        assert_eq!(admit(old, "app", None).await.map(drop).map_err(|full| full.why), Err(Why::Quota));
    }
}

#[tokio::test]
async fn those_who_wait_go_no_faster_because_another_limit_changes() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let mut limiter = over(limit(20, Duration::from_secs(10)), &clock);
    let begun = clock.monotonic();
    let mut calls = tokio::task::JoinSet::new();
    for round in 0..3 {
        for _ in 0..10 {
            let limiter = Arc::clone(&limiter);
            calls.spawn(async move {
                admit_among(&limiter, "app", 100).await.expect("its turn").answered(Report::default());
            });
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        limiter = reloaded(&limiter, round + 2);
    }
    assert_eq!(calls.join_all().await.len(), 30);
    let took = clock.monotonic().saturating_sub(begun);
    assert!(took >= Duration::from_millis(1_400), "30 calls at 20 a second with a burst of one took {took:?}");
}

#[tokio::test]
async fn where_a_reload_takes_the_limits_away_those_who_wait_go_and_a_pause_is_kept_for_later() {
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1)));
    let before = limiter(limit(1, Duration::from_secs(30)), &clock);
    let permit = admit_among(&before, "a", 100).await.expect("the first");
    let waits = [(); 3].map(|()| {
        let limiter = Arc::clone(&before);
        tokio::spawn(async move { admit_among(&limiter, "a", 100).await.map(|permit| permit.fields()) })
    });
    while before.waiting.get() < 3 {
        tokio::task::yield_now().await;
    }
    let lifted = Limiter::lifted(&before);
    for call in waits {
        assert_eq!(call.await.expect("no panic"), Ok(None), "it goes, and there is no limit to tell of");
    }
    assert_eq!(before.waiting.get(), 0);
    permit.answered(Report { refused: true, retry_after: Some(Duration::from_mins(1)), ..Report::default() });
    assert!(admit(&lifted, "a", None).await.is_ok() && lifted.pauses().is_empty());
    let gauge = IntGauge::new("waiting", "Waiting.").expect("a gauge");
    let back = Limiter::of((&before.limits, 0), Some(&Limiter::lifted(&lifted)), gauge, &before.clock);
    for old in [&before, &lifted, &back] {
        assert_eq!(admit(old, "a", None).await.map(drop).map_err(|full| full.why), Err(Why::Quota));
    }
    clock.advance(Duration::from_mins(2));
    admit(&back, "a", None).await.expect("the pause is over").answered(Report::default());
}

async fn admit(limiter: &Arc<Limiter>, caller: &str, until: Option<Duration>) -> Result<Permit, Full> {
    asked(limiter, caller, (until, 2)).await
}

async fn admit_among(limiter: &Arc<Limiter>, caller: &str, most: usize) -> Result<Permit, Full> {
    asked(limiter, caller, (None, most)).await
}

async fn asked(limiter: &Arc<Limiter>, caller: &str, (until, most): (Option<Duration>, usize)) -> Result<Permit, Full> {
    let (connection, caller, place) = (Arc::from("default"), Arc::from(caller), Arc::from("https://a"));
    let ask = Ask {
        connection: &connection,
        caller: Some(&caller),
        endpoint: None,
        method: &Method::GET,
        path: "/x",
        place: &place,
        until,
        lane: Lane::Turn,
    };
    limiter.admit(&ask, most).await
}

#[tokio::test]
async fn a_call_of_signing_in_goes_ahead_of_a_full_queue() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let limiter = limiter(limit(1, Duration::from_mins(1)), &clock);
    drop(admit(&limiter, "a", None).await.expect("what there is"));
    let order = Arc::new(Mutex::new(Vec::new()));
    let waits = |who: &'static str| {
        let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
        tokio::spawn(async move {
            let gone = match who {
                "sign-in" => first(&limiter).await,
                caller => admit(&limiter, caller, None).await,
            };
            gone.expect("its turn comes");
            order.lock().expect("no panic").push(who);
        })
    };
    let mut waiting = Vec::new();
    for (count, who) in ["a", "b", "sign-in"].into_iter().enumerate() {
        waiting.push(waits(who));
        while limiter.lock().gate.waiting() <= count {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(admit(&limiter, "c", None).await.map(drop).expect_err("the queue is full").why, Why::Crowded);
    for task in waiting {
        while !task.is_finished() {
            clock.advance(Duration::from_millis(250));
            limiter.news.notify_one();
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(*order.lock().expect("no panic"), ["sign-in", "a", "b"]);
}

async fn first(limiter: &Arc<Limiter>) -> Result<Permit, Full> {
    let (connection, place) = (Arc::from("default"), Arc::from("https://a"));
    let (connection, place, method) = (&connection, &place, &Method::POST);
    let lane = Lane::First;
    let ask = Ask { connection, caller: None, endpoint: None, method, path: "/token", place, until: None, lane };
    limiter.admit(&ask, 2).await
}

#[tokio::test]
async fn without_waiting_a_call_is_refused_with_when_to_come_again() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let limiter = limiter(limit(2, Duration::ZERO), &clock);
    let (policy, left) = admit(&limiter, "a", None).await.expect("the first").fields().expect("has a limit");
    assert_eq!([policy, left], ["\"connection\";q=2;w=1", "\"connection\";r=0;t=1"]);
    let full = admit(&limiter, "a", None).await.expect_err("the second");
    assert_eq!(
        (full.why, full.after, full.limit.as_deref()),
        (Why::Rate, Duration::from_millis(500), Some("connection"))
    );
    clock.advance(Duration::from_millis(500));
    admit(&limiter, "a", None).await.expect("in time").unsent();
    admit(&limiter, "a", None).await.expect("what was not sent was given back");
}

#[tokio::test]
async fn a_call_waits_for_its_turn() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let limiter = over(limit(50, Duration::from_mins(1)), &clock);
    for _ in 0..3 {
        admit(&limiter, "a", None).await.expect("its turn comes");
    }
    assert_eq!(limiter.waiting.get(), 0);
}

#[tokio::test]
async fn nobody_waits_for_what_comes_too_late() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let limiter = limiter(limit(1, Duration::from_mins(1)), &clock);
    drop(admit(&limiter, "a", None).await.expect("the first"));
    let full = admit(&limiter, "a", Some(Duration::from_millis(900))).await.expect_err("it ends before its turn");
    assert_eq!((full.why, full.after), (Why::Rate, Duration::from_secs(1)));
}

#[tokio::test]
async fn a_pause_that_is_longer_than_they_wait_lets_them_go_at_once() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let limiter = limiter(limit(1, Duration::from_secs(4)), &clock);
    let permit = admit_among(&limiter, "a", 100).await.expect("the first");
    let waits = [(); 8].map(|()| {
        let limiter = Arc::clone(&limiter);
        tokio::spawn(async move { admit_among(&limiter, "a", 100).await.map(|_permit| ()) })
    });
    while limiter.waiting.get() < 8 {
        tokio::task::yield_now().await;
    }
    let pause = Report { refused: true, retry_after: Some(Duration::from_mins(1)), ..Report::default() };
    permit.answered(pause);
    for call in waits {
        let full = call.await.expect("no panic").expect_err("the pause is longer than it waits");
        assert_eq!((full.why, full.after), (Why::Quota, Duration::from_mins(1)));
    }
}

#[tokio::test]
async fn who_goes_away_leaves_the_queue_and_who_is_too_many_is_told() {
    let clock = Arc::new(ManualClock::at(Timestamp::default()));
    let limiter = limiter(limit(1, Duration::from_hours(1)), &clock);
    drop(admit(&limiter, "a", None).await.expect("the first"));
    let waits = [(); 2].map(|()| {
        let limiter = Arc::clone(&limiter);
        tokio::spawn(async move { admit(&limiter, "a", None).await.map(|_permit| ()) })
    });
    while limiter.waiting.get() < 2 {
        tokio::task::yield_now().await;
    }
    let full = admit(&limiter, "a", None).await.expect_err("two wait already");
    assert_eq!((full.why, full.after), (Why::Crowded, Duration::from_secs(3)));
    waits.iter().for_each(tokio::task::JoinHandle::abort);
    while limiter.waiting.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(limiter.lock().gate.waiting(), 0);
    clock.advance(Duration::from_secs(1));
    admit(&limiter, "a", None).await.expect("nobody took the turn of those who left");
}
