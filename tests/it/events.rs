//! From a webhook to its destination, over a real store and real sockets: acknowledged, matched, delivered,
//! tried again, given up, replayed; and whatever can happen in between.

pub mod station;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline::definition::plan::gateway::Mode;
use trunkline::queue::durable::{Conclusion, DurableCall, outcome_id};
use trunkline::queue::{Act, Again, Answered, Report, Task};
use trunkline::request::standard_webhooks;
use trunkline::store::embedded::Embedded;
use trunkline::store::model::{DeliveryState, EventState};
use trunkline::store::{Backlog, Events, StoreError, Work};

use crate::calls::service::{Answer, Service};
use station::{Plan, SIGNING, START, Station, eventually, head, hub, signature, to};

/// A destination that answers each request by its number, from zero.
async fn answering(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Service {
    let count = AtomicUsize::new(0);
    Service::start(move |_| answer(count.fetch_add(1, Ordering::SeqCst))).await
}

async fn well() -> Service {
    Service::start(|_| Answer::of(204, &[], "")).await
}

async fn hanging() -> Service {
    Service::start(|_| Answer::Hang(Vec::new())).await
}

fn header_lines(request: &str) -> HeaderMap {
    let head = request.split("\r\n\r\n").next().unwrap();
    let pairs = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    pairs.map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

fn due(delivery: &trunkline::store::model::Delivery) -> Duration {
    match delivery.state {
        DeliveryState::Ready { due } => due.since(START),
        other => panic!("not waiting: {other:?}"),
    }
}

#[tokio::test]
async fn an_event_reaches_its_destination_signed_and_byte_for_byte() {
    let app = well().await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let body = "{ \"type\": \"a.b\",\n\"id\": \"1\" }";
    let (status, event) = station.send(body).await;
    assert_eq!(status, 202);
    station.until(event.unwrap(), EventState::Done).await;
    let seen = app.seen().remove(0);
    let (first, sent) = seen.split_once("\r\n").unwrap();
    assert_eq!(first, "POST /in?x=1 HTTP/1.1");
    let headers = header_lines(&seen);
    let tolerance = Duration::from_mins(5);
    let verified = standard_webhooks::verify(&[SIGNING.into()], &headers, body.as_bytes(), START, tolerance);
    assert_eq!(verified, Ok(()));
    assert!(sent.ends_with(&format!("\r\n\r\n{body}")), "{sent}");
    assert_eq!(headers["trunkline-event"].to_str().unwrap(), event.unwrap().to_string());
    assert_eq!(
        (&headers["trunkline-event-type"], &headers["content-type"]),
        (&"a.b".parse().unwrap(), &"application/json".parse().unwrap())
    );
}

#[tokio::test]
async fn what_is_stored_has_no_credentials() {
    let station = Station::start(Plan::of(hub(""))).await;
    let event = station.accept("a", "1").await;
    let stored = station.store.event(event).await.unwrap().unwrap();
    let names: Vec<_> = stored.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type"]);
    station.until(event, EventState::Discarded).await;
    assert_eq!(station.metric("trunkline_events_matched_total{integration=\"hub\",result=\"discarded\"}"), 1);
}

#[tokio::test]
async fn of_a_storm_of_duplicates_one_is_processed() {
    let app = well().await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let body = "{\"type\":\"a\",\"id\":\"same\"}";
    let answers = join_all((0..200).map(|_| station.send(body))).await;
    let fresh: Vec<_> = answers.iter().filter(|(status, _)| *status == 202).collect();
    assert_eq!((fresh.len(), answers.iter().filter(|(status, _)| *status == 200).count()), (1, 199));
    assert!(answers.iter().all(|(_, event)| *event == fresh[0].1), "each names the first");
    station.until(fresh[0].1.unwrap(), EventState::Done).await;
    let station = Station::resume(station.crash().await).await;
    assert_eq!(station.send(body).await, (200, fresh[0].1), "also after a restart");
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_failure_is_tried_again_when_the_destination_says() {
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(START.seconds() + 120 + 90));
    let app = answering(move |number| match number {
        0 => Answer::of(503, &[("retry-after", "120")], ""),
        1 => Answer::of(429, &[("retry-after", &date)], ""),
        _ => Answer::of(200, &[], ""),
    })
    .await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    let first = station.until_tried(event, 1).await;
    assert!((120..=122).contains(&due(&first).as_secs()), "{first:?}");
    station.pass(due(&first));
    let second = station.until_tried(event, 2).await;
    assert!((210..=216).contains(&due(&second).as_secs()), "{second:?}");
    assert_eq!(second.attempts[1].status, Some(429));
    station.pass(due(&second));
    station.until(event, EventState::Done).await;
    let ids: Vec<_> = app.seen().iter().map(|seen| header_lines(seen)["webhook-id"].clone()).collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "one id for all tries: {ids:?}");
}

#[tokio::test]
async fn an_action_that_changed_places_is_not_taken_for_another() {
    let app = answering(|number| Answer::of(if number == 0 { 500 } else { 200 }, &[], "")).await;
    let rules = |actions: &str| hub(&format!("rules:\n  - id: r\n    when: '*'\n    do: [{actions}]"));
    let mut station = Station::start(Plan::of(rules("{ deliver: app }, { log: made }")).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    let wait = due(&station.until_tried(event, 1).await);
    station.reload(vec![rules("{ log: made }, { deliver: app }")]);
    station.pass(wait);
    station.until(event, EventState::Done).await;
    let delivery = station.deliveries(event).await.remove(0);
    assert_eq!(
        (delivery.summary.as_str(), app.seen().len()),
        ("deliver app", 2),
        "it is carried out where it stands now"
    );
}

#[tokio::test]
async fn an_action_that_is_gone_is_no_other() {
    let app = answering(|number| Answer::of(if number == 0 { 500 } else { 200 }, &[], "")).await;
    let rules = |actions: &str| hub(&format!("rules:\n  - id: r\n    when: '*'\n    do: [{actions}]"));
    let mut station = Station::start(Plan::of(rules("{ deliver: app }, { log: made }")).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    let wait = due(&station.until_tried(event, 1).await);
    station.reload(vec![rules("{ log: made }, { log: other }")]);
    station.pass(wait);
    station.until(event, EventState::Dead).await;
    let delivery = station.deliveries(event).await.remove(0);
    let error = delivery.attempts.last().unwrap().error.clone().unwrap();
    assert!(delivery.summary == "deliver app" && error.contains("no longer has this action"), "{delivery:?}");
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn a_condition_that_held_holds_still_although_the_rest_of_the_body_cannot_be_read() {
    let app = well().await;
    let rules = "rules:\n  - id: r\n    when: '*'\n    if: body.n > 5\n    do: [{ deliver: app }]";
    let station = Station::start(Plan::of(hub(rules)).with("app", app.port())).await;
    // A text that was cut in the middle of a character, as some senders do.
    let (status, event) = station.send("{\"type\":\"a\",\"id\":\"1\",\"n\":9,\"name\":\"\\ud83d\"}").await;
    assert_eq!(status, 202);
    station.until(event.unwrap(), EventState::Done).await;
    assert_eq!(app.seen().len(), 1);
}

/// Fails for good at first, and then never comes to an end.
#[derive(Default)]
struct Hanging {
    tries: AtomicUsize,
}

#[async_trait]
impl Act for Hanging {
    async fn act(&self, _task: &Task) -> Report {
        match self.tries.fetch_add(1, Ordering::SeqCst) {
            0 => Report::failed(None, "no", Again::Never),
            _ => std::future::pending().await,
        }
    }

    fn may_be_cut(&self, _task: &Task) -> bool {
        false
    }

    async fn conclude(&self, _conclusion: Conclusion<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_replayed_call_of_unknown_end_is_not_sent_twice_either() {
    let act = Arc::new(Hanging::default());
    let station = Station::start(Plan { act: Some(act.clone()), ..Plan::of(to(&["app"])) }).await;
    let event = station.accept("a", "1").await;
    station.until(event, EventState::Dead).await;
    let dead = station.deliveries(event).await.remove(0);
    station.store.replay_delivery(dead.id, station.now()).await.unwrap();
    station.pass(Duration::ZERO);
    eventually("it is under way", async || act.tries.load(Ordering::SeqCst) == 2).await;
    let station = Station::resume(station.crash().await).await;
    station.until(event, EventState::Dead).await;
    let attempts = station.deliveries(event).await.remove(0).attempts;
    assert!(attempts.last().unwrap().error.as_ref().unwrap().contains("may have been carried out"), "{attempts:?}");
    assert_eq!(act.tries.load(Ordering::SeqCst), 2);
}

/// Carries calls out, and never comes back from keeping the first outcome.
#[derive(Default)]
struct Keeping {
    tries: AtomicUsize,
    store: std::sync::Mutex<Option<Arc<Embedded>>>,
    kept: AtomicUsize,
}

#[async_trait]
impl Act for Keeping {
    async fn act(&self, _task: &Task) -> Report {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let (status, headers, body) = (http::StatusCode::CREATED, Vec::new(), bytes::Bytes::from_static(b"{}"));
        Report::done(Some(201)).with_answer(Some(Answered { status, headers, body }))
    }

    fn may_be_cut(&self, _task: &Task) -> bool {
        false
    }

    async fn conclude(&self, conclusion: Conclusion<'_>) -> Result<(), StoreError> {
        let store = self.store.lock().unwrap().take().expect("only the first comes here");
        let id = outcome_id(conclusion.delivery.event, 1);
        Events::accept(&*store, conclusion.into_event(id, START.after(Duration::from_secs(1)))).await?;
        drop(store);
        self.kept.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_outcome_that_was_kept_before_the_crash_is_the_outcome() {
    let act = Arc::new(Keeping::default());
    let station = Station::start(Plan { act: Some(act.clone()), ..Plan::of(to(&["app"])) }).await;
    *act.store.lock().unwrap() = Some(station.store.clone());
    let call = DurableCall {
        method: http::Method::POST,
        path: "/hub/a".to_owned(),
        query: None,
        connection: "default".to_owned(),
        token: None,
        caller: "app".to_owned(),
        deliver: None,
        headers: HeaderMap::new(),
        body: bytes::Bytes::from_static(b"x"),
    };
    let id = trunkline::base::id::EventId::from_u128(1_u128 << 100);
    let event = call.into_event("hub".into(), id, None, station.now());
    Events::accept(&*station.store, event).await.unwrap();
    station.pass(Duration::ZERO);
    eventually("its outcome is kept", async || act.kept.load(Ordering::SeqCst) == 1).await;
    let station = Station::resume(station.crash().await).await;
    station.until(id, EventState::Done).await;
    let attempts = station.deliveries(id).await.remove(0).attempts;
    assert_eq!((attempts.len(), attempts[0].status, attempts[0].error.as_ref()), (1, Some(201), None));
    assert_eq!(act.tries.load(Ordering::SeqCst), 1, "it is not carried out again");
    assert!(station.store.event(outcome_id(id, 2)).await.unwrap().is_none(), "there is one outcome");
}

#[tokio::test]
async fn an_event_that_is_damaged_on_disk_is_counted_and_holds_up_no_other() {
    let app = answering(|number| Answer::of(if number == 0 { 500 } else { 200 }, &[], "")).await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "canary-damaged").await;
    let wait = due(&station.until_tried(event, 1).await);
    // One bit of its body: what is damaged is found by its checksum, not by its form.
    let journal = station.directory.path().join("events");
    let damaged = std::fs::read_dir(journal).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(14).position(|window| window == b"canary-damaged")?;
        bytes[at] ^= 1;
        std::fs::write(path, bytes).ok()
    });
    assert_eq!(damaged.count(), 1);
    station.pass(wait);
    eventually("it is counted", async || station.metric("trunkline_store_unread_total ") > 0).await;
    let other = station.accept("a", "other").await;
    station.until(other, EventState::Done).await;
    assert_eq!(app.seen().len(), 2, "nothing of the damaged one went out again");
}

#[tokio::test]
async fn what_fails_three_times_is_dead_and_can_be_replayed() {
    let app = answering(|number| Answer::of(if number < 3 { 500 } else { 200 }, &[], "")).await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    for attempts in 1..3 {
        station.until_tried(event, attempts).await;
        station.pass(Duration::from_secs(5));
    }
    station.until(event, EventState::Dead).await;
    let dead = station.until_tried(event, 3).await;
    assert_eq!(dead.attempts[2].error.as_deref(), Some("destination `app` answered 500 Internal Server Error"));
    assert_eq!(
        station.metric("trunkline_delivery_attempts_total{action=\"deliver\",integration=\"hub\",result=\"dead\"}"),
        1
    );
    station.store.replay_delivery(dead.id, station.now()).await.unwrap();
    station.until(event, EventState::Done).await;
    assert_eq!(app.seen().len(), 4);
}

#[tokio::test]
async fn a_destination_that_is_gone_gets_no_second_try() {
    let app = answering(|_| Answer::of(410, &[], "")).await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    station.until(event, EventState::Dead).await;
    assert_eq!(app.seen().len(), 1);
}

#[tokio::test]
async fn destinations_that_hang_do_not_hold_up_another() {
    let (one, other, app) = (hanging().await, hanging().await, well().await);
    let plan = Plan::of(to(&["one", "other", "app"]));
    let plan = plan.with("one", one.port()).with("other", other.port()).with("app", app.port());
    let station = Station::start(plan).await;
    for number in 0..60 {
        station.accept("a", &number.to_string()).await;
    }
    eventually("the well one has all 60", async || app.seen().len() == 60).await;
    assert!(one.connections() <= 12 && other.connections() <= 12);
}

#[tokio::test]
async fn work_of_a_killed_process_is_done_by_the_next_under_the_same_id() {
    let app = answering(|number| if number == 0 { Answer::Hang(Vec::new()) } else { Answer::of(200, &[], "") }).await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    eventually("the first try is under way", async || app.seen().len() == 1).await;
    let station = Station::resume(station.crash().await).await;
    station.until(event, EventState::Done).await;
    let ids: Vec<_> = app.seen().iter().map(|seen| header_lines(seen)["webhook-id"].clone()).collect();
    assert!(ids.len() == 2 && ids[0] == ids[1]);
}

#[tokio::test]
async fn a_shutdown_gives_back_what_is_under_way() {
    let app = hanging().await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    eventually("the try is under way", async || app.seen().len() == 1).await;
    let Station { workers, store, .. } = station;
    assert!(!workers.stop(Duration::ZERO).await, "something had to be cut");
    let delivery = store.deliveries(event).await.unwrap().remove(0);
    assert_eq!((delivery.state, delivery.attempts.len()), (DeliveryState::Ready { due: START }, 0));
}

#[tokio::test]
async fn a_shutdown_lets_what_is_under_way_end() {
    let app = well().await;
    let station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let event = station.accept("a", "1").await;
    station.until(event, EventState::Done).await;
    let Station { workers, .. } = station;
    assert!(workers.stop(Duration::from_secs(10)).await);
}

/// Fails in its own way at events of the type `poison`.
struct Poisoned;

#[async_trait]
impl Act for Poisoned {
    async fn act(&self, task: &Task) -> Report {
        assert_ne!(task.event.head.event_type, "poison", "on purpose");
        Report::done(None)
    }

    fn may_be_cut(&self, _task: &Task) -> bool {
        true
    }

    async fn conclude(&self, _conclusion: Conclusion<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_is_an_attempt_like_any_other() {
    let plan = Plan { act: Some(Arc::new(Poisoned)), ..Plan::of(to(&["app"])) };
    let station = Station::start(plan).await;
    let (poison, good) = (station.accept("poison", "1").await, station.accept("good", "2").await);
    station.until(good, EventState::Done).await;
    for attempts in 1..3 {
        station.until_tried(poison, attempts).await;
        station.pass(Duration::from_secs(5));
    }
    station.until(poison, EventState::Dead).await;
    let dead = station.until_tried(poison, 3).await;
    assert!(dead.attempts.iter().all(|attempt| attempt.error.as_deref().is_some_and(|e| e.contains("panic"))));
    assert_eq!(station.metric("trunkline_panics_total{place=\"delivery\"}"), 3);
}

#[tokio::test]
async fn a_rule_that_cannot_be_decided_is_dead_with_its_reason_and_holds_up_no_other() {
    let app = well().await;
    let rules = "rules:\n  - { id: bad, when: '*', if: body.type - 1 > 0, do: [{ deliver: app }] }\n  \
                 - { id: good, when: 'a*', if: body.type == 'a.b', do: [{ deliver: app }] }";
    let station = Station::start(Plan::of(hub(rules)).with("app", app.port())).await;
    let event = station.accept("a.b", "1").await;
    station.until(event, EventState::Dead).await;
    let deliveries = station.deliveries(event).await;
    let error = deliveries[0].attempts[0].error.clone().unwrap();
    assert!(error.starts_with("`if` of the rule `bad` cannot be decided: "), "{error}");
    assert_eq!(deliveries[1].state, DeliveryState::Done);
}

#[tokio::test]
async fn what_one_rule_cannot_read_decides_nothing_for_another() {
    let app = well().await;
    let rules = "rules:\n  - { id: number, when: '*', if: body.n > 5, do: [{ deliver: app }] }\n  \
                 - { id: name, when: '*', if: body.name == 'zz', do: [{ deliver: app }] }";
    let station = Station::start(Plan::of(hub(rules)).with("app", app.port())).await;
    for (id, body, states) in [
        ("1", r#"{"type":"a","id":"1","n":9,"name":"\ud83d"}"#, vec![DeliveryState::Done, DeliveryState::Dead]),
        ("2", r#"{"type":"a","id":"2","n":1,"name":"\ud83d"}"#, vec![DeliveryState::Dead]),
        ("3", r#"{"type":"a","id":"3","n":4.9000000000000004,"name":"a"}"#, vec![]),
        ("4", r#"{"type":"a","id":"4","n":5.9000000000000004,"name":"a"}"#, vec![DeliveryState::Done]),
    ] {
        let event = station.send(body).await.1.unwrap();
        let state = if states.contains(&DeliveryState::Dead) {
            EventState::Dead
        } else if states.is_empty() {
            EventState::Discarded
        } else {
            EventState::Done
        };
        station.until(event, state).await;
        let deliveries = station.deliveries(event).await;
        let found: Vec<_> = deliveries.iter().map(|delivery| delivery.state).collect();
        assert_eq!(found, states, "{id}: {deliveries:?}");
        for dead in deliveries.iter().filter(|delivery| delivery.state == DeliveryState::Dead) {
            let error = dead.attempts[0].error.clone().unwrap();
            assert!(error.starts_with("`if` of the rule `name` cannot be decided: "), "{error}");
        }
    }
}

#[tokio::test]
async fn events_wait_for_an_integration_that_is_not_loaded() {
    let app = well().await;
    let mut station = Station::start(Plan::of(to(&["app"])).with("app", app.port())).await;
    let body = "{\"type\":\"a\",\"id\":\"1\"}";
    let admitted = trunkline::webhook::door::Receive::admit(&station.receiver, &head(body, &signature(body))).await;
    station.reload(Vec::new());
    let answer = trunkline::webhook::door::Receive::receive(
        &station.receiver,
        admitted.unwrap(),
        head(body, &signature(body)),
        body.into(),
    )
    .await;
    assert_eq!(answer.status, 202, "a request keeps the generation it began with");
    eventually("the event waits", async || {
        station.store.depth().ready == 1 && station.store.next_due(&[]).await.unwrap().is_some_and(|due| due > START)
    })
    .await;
    station.reload(vec![to(&["app"])]);
    station.pass(Duration::from_mins(1));
    eventually("it is delivered", async || app.seen().len() == 1).await;
}

/// A service `svc` whose endpoint posts without an idempotency key.
fn svc(port: u16) -> String {
    format!(
        "trunkline: 1\nid: svc\ntitle: Svc\nauth: {{ none: {{}} }}\nconnections: [{{ id: default }}]\napi:\n  base_url: \
         http://127.0.0.1:{port}\n  allow_private: true\n  allow_plain_http: true\n  endpoints:\n    - {{ id: make, \
         request: POST /things, json: {{ name: \"{{{{ input.name }}}}\" }} }}"
    )
}

fn calling(port: u16) -> Plan {
    let rule = "rules:\n  - id: call\n    when: '*'\n    do: [{ call: svc.make, input: { name: '{{ event.type }}' } }]";
    Plan { definitions: vec![hub(rule), svc(port)], ..Plan::of(String::new()) }
}

#[tokio::test]
async fn a_call_carries_the_events_values() {
    let service = well().await;
    let station = Station::start(calling(service.port())).await;
    let event = station.accept("thing.made", "1").await;
    station.until(event, EventState::Done).await;
    let seen = service.seen().remove(0);
    assert!(seen.starts_with("POST /things HTTP/1.1\r\n") && seen.ends_with("{\"name\":\"thing.made\"}"), "{seen}");
}

#[tokio::test]
async fn a_call_of_unknown_end_is_not_sent_twice() {
    let service = hanging().await;
    let station = Station::start(calling(service.port())).await;
    let event = station.accept("a", "1").await;
    eventually("the call is under way", async || service.seen().len() == 1).await;
    let station = Station::resume(station.crash().await).await;
    station.until(event, EventState::Dead).await;
    let dead = station.until_tried(event, 1).await;
    let error = dead.attempts[0].error.clone().unwrap();
    assert!(error.contains("may have been carried out"), "{error}");
    assert_eq!(service.seen().len(), 1);
}

#[tokio::test]
async fn a_flood_of_bad_signatures_never_starves_good_ones() {
    let station = Station::start(Plan::of(hub(""))).await;
    let bad = "{\"type\":\"evil\"}";
    let wrong = "00".repeat(32);
    let mut statuses = std::collections::BTreeMap::new();
    for number in 0..500 {
        let answer = station.offer(head(bad, &wrong), bad).await;
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
        if number % 50 == 0 {
            station.accept("good", &number.to_string()).await;
        }
    }
    assert_eq!(statuses, [(401, 100), (429, 400)].into());
    let large = |kind| format!("{{\"type\":\"{kind}\",\"id\":\"large\",\"much\":\"{}\"}}", "x".repeat(400_000));
    assert_eq!(station.offer(head(&large("evil"), &wrong), &large("evil")).await.status, 429);
    assert_eq!(station.send(&large("good")).await.0, 202);
    let refused = station.receiver.refused().latest(Some("hub"));
    assert_eq!((refused.len(), refused[0].reason, &*refused[0].secrets[0]), (50, "mismatch", "1"));
    assert!(!format!("{refused:?}").contains("evil"));
}

#[tokio::test]
async fn refusals_say_why() {
    let station = Station::start(Plan::of(hub(""))).await;
    let body = "{}";
    let code = |answer: &trunkline::respond::Answer| {
        answer
            .headers
            .iter()
            .find(|(name, _)| *name == "trunkline-error")
            .map(|(_, v)| v.to_str().unwrap().to_owned())
            .unwrap()
    };
    let mut unknown = head(body, "00");
    unknown.integration = "nobody".to_owned();
    let mut got = head(body, "00");
    got.method = http::Method::GET;
    let mut unsigned = head(body, "00");
    Arc::make_mut(&mut unsigned.headers).remove("x-sig");
    let mut large = head(body, "00");
    large.content_length = Some(2 << 20);
    for (head, expected) in [
        (unknown, (404, "not_found")),
        (got, (405, "method_not_allowed")),
        (unsigned, (401, "signature_invalid")),
        (large, (413, "body_too_large")),
    ] {
        let answer = station.offer(head, body).await;
        assert_eq!((answer.status.as_u16(), code(&answer).as_str()), expected);
    }
    let twice = "{\"type\":\"a\",\"type\":\"b\"}";
    assert_eq!(station.offer(head(twice, &signature(twice)), twice).await.status, 400, "two readings");
    let broken = "{\"type\":";
    assert_eq!(station.send(broken).await.0, 202, "what is verified is kept, whatever it holds");
}

#[tokio::test]
async fn production_takes_webhooks_by_https_only() {
    let station = Station::start(Plan { mode: Mode::Production, ..Plan::of(hub("")) }).await;
    assert_eq!(station.send("{}").await.0, 403);
}

#[tokio::test]
async fn a_handshake_is_answered_once_it_is_verified_and_not_stored() {
    let definition = hub("").replace(
        "  event: body.type",
        "  handshake: [{ if: body.type == 'url_verification', reply: { text: \"{{ body.challenge }}\" } }]\n  event: body.type",
    );
    let station = Station::start(Plan::of(definition)).await;
    let body = "{\"type\":\"url_verification\",\"challenge\":\"abc123\"}";
    let answer = station.offer(head(body, &signature(body)), body).await;
    assert_eq!((answer.status.as_u16(), &*answer.body), (200, &b"abc123"[..]));
    let forged = station.offer(head(body, &"00".repeat(32)), body).await;
    assert!(forged.status == 401 && !String::from_utf8_lossy(&forged.body).contains("abc123"));
    assert_eq!(station.store.depth().ready, 0);
}

#[tokio::test]
async fn a_store_that_cannot_store_is_said_so() {
    let station = Station::start(Plan::of(hub(""))).await;
    station.store.close().await;
    let body = "{\"type\":\"a\",\"id\":\"1\"}";
    let answer = station.offer(head(body, &signature(body)), body).await;
    let retry = answer.headers.iter().find(|(name, _)| *name == "retry-after");
    assert_eq!((answer.status.as_u16(), retry.is_some()), (503, true));
}
