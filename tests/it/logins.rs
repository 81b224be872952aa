//! Services that are signed in to by requests of their own: sessions that end, are refused, are made anew,
//! and of whose end the service is told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use trunkline::activity::{Activity, Asker};
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::connect::{self, Calls, Connect, RevocationState, Revocations};
use trunkline::connection::flow::{self, TokenCalls};
use trunkline::connection::sign_in::{self, oauth1::ThreeLegs};
use trunkline::connection::{Connections, Content, Credential, KeyRing, MasterKey, Status, Stored, Vault};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::plan::Integration;
use trunkline::definition::templates::Templates;
use trunkline::store::Audit;
use trunkline::store::embedded::Embedded;

use crate::calls::service::{Answer, Service};
use crate::connect::desk::Scribe;
use crate::support::desk::turns;
use crate::support::doors::{Doors, Setup};
use crate::support::raw::call;
use crate::support::store;

/// How the service is.
#[derive(Default)]
struct Manners {
    logins: AtomicUsize,
    /// The session that it refuses.
    refused: Mutex<Option<String>>,
    /// What it answers to a login, where that is a refusal.
    login_status: Mutex<Option<u16>>,
    /// How often a session was renewed.
    renewals: AtomicUsize,
    /// What it answers to a renewal, where that is a refusal.
    renewal_status: Mutex<Option<u16>>,
    /// What it answers to a logout.
    logout_status: Mutex<Option<u16>>,
}

impl Manners {
    fn answer(&self, seen: &str) -> Answer {
        if seen.starts_with("POST /login ") {
            if let Some(status) = *self.login_status.lock().unwrap() {
                return Answer::json(status, r#"{"message": "not now"}"#);
            }
            let number = self.logins.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::json(
                200,
                &json!({ "id": format!("s{number}"), "again": format!("r{number}") }).to_string(),
            );
        }
        if seen.starts_with("POST /renew ") {
            if let Some(status) = *self.renewal_status.lock().unwrap() {
                return Answer::json(status, "{}");
            }
            let number = self.renewals.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::json(
                200,
                &json!({ "id": format!("n{number}"), "again": format!("m{number}") }).to_string(),
            );
        }
        if seen.starts_with("DELETE /session ") {
            return Answer::json(self.logout_status.lock().unwrap().unwrap_or(200), "{}");
        }
        let refused = self.refused.lock().unwrap().clone();
        let is_refused =
            refused.is_some_and(|session| seen.to_lowercase().contains(&format!("x-session: {session}\r")));
        Answer::json(if is_refused { 401 } else { 200 }, "{}")
    }
}

fn integration(url: &str, renews: Renews) -> Integration {
    let mut auth = json!({ "login": {
        "fields": { "username": {}, "password": { "secret": true } },
        "steps": {
            "request": format!("POST {url}/login"),
            "json": { "u": "{{ input.username }}", "p": "{{ input.password }}" },
        },
        "tokens": { "default": { "access": "body.id", "refresh": "body.again" } },
        "logout": {
            "request": format!("DELETE {url}/session"),
            "headers": { "X-Session": "{{ token.access }}", "X-Again": "{{ token.refresh }}" },
        },
        "default_ttl": "1h",
    } });
    if renews == Renews::Yes {
        auth["login"]["refresh"] =
            json!({ "request": format!("POST {url}/renew"), "json": { "again": "{{ token.refresh }}" } });
    }
    let api = json!({
        "base_url": url,
        "credential": { "header": "X-Session", "value": "{{ token.access }}" },
        "endpoints": [{ "id": "get", "request": "GET /get" }],
    });
    let declared = json!([{ "id": "declared", "inputs": inputs() }]);
    let whole = json!({ "trunkline": 1, "id": "svc", "auth": auth, "api": api, "connections": declared });
    let document = Document::unplaced("svc.yaml".into(), whole);
    compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{}", fault.message))
}

/// Whether the definition says how a session is renewed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renews {
    Yes,
    No,
}

fn inputs() -> Value {
    json!({ "username": "u", "password": "canary-password" })
}

struct World {
    manners: Arc<Manners>,
    service: Service,
    clock: Arc<ManualClock>,
    doors: Doors,
    connect: Arc<Connect>,
    store: Arc<Embedded>,
    scribe: Arc<Scribe>,
    _telling: DropGuard,
    _directory: TempDir,
}

async fn world() -> World {
    world_that(Renews::No).await
}

async fn world_that(renews: Renews) -> World {
    let (manners, directory) = (Arc::<Manners>::default(), TempDir::new().unwrap());
    let answers = Arc::clone(&manners);
    let service = Service::start(move |seen| answers.answer(seen)).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_790_000_000)));
    let store = store::open(store::options(directory.path(), clock.clone())).await.unwrap();
    let random = Arc::new(SystemRandom::default());
    let vault = Arc::new(Vault::new(KeyRing::of(MasterKey::generate(&*random).unwrap()), random.clone()));
    let scribe = Arc::new(Scribe::over(store.clone()));
    let stored = Stored::new(vault, store.clone(), scribe.clone(), clock.clone());
    let connections = Arc::new(Connections::with_stored(stored));
    let svc = integration(&format!("http://{}", service.address), renews);
    let Value::Object(inputs) = inputs() else { unreachable!() };
    let content = Content { credential: Credential::None, inputs, saved: Map::new() };
    connections.put("operator", &svc, "stored", content).await.unwrap();
    let setup = Setup { clock: clock.clone(), ..Setup::of(svc) };
    let doors = Doors::over(setup, connections.clone(), None);
    let (metrics, activity) = (doors.metrics.clone(), Arc::new(Activity::default()));
    let shared: Arc<dyn Clock> = clock.clone();
    let (turns, clients) = (turns(&shared), doors.clients.clone());
    let legs = sign_in::Parts {
        clients,
        clock: clock.clone(),
        random: random.clone(),
        metrics: metrics.clone(),
        activity: activity.clone(),
        turns: turns.clone(),
    };
    let tokens = Arc::new(TokenCalls::new(flow::Parts {
        clients: doors.clients.clone(),
        clock: clock.clone(),
        random: random.clone(),
        metrics: metrics.clone(),
        activity: activity.clone(),
        turns,
    }));
    let logins = Arc::clone(doors.outbound.logins());
    let revocations = connections
        .vault()
        .map(|vault| Arc::new(Revocations::new(vault, store.clone(), clock.clone(), random.clone())));
    let connect = Connect::new(connect::Parts {
        live: doors.live.clone(),
        connections: connections.clone(),
        vault: connections.vault(),
        records: store.clone(),
        audit: store.clone(),
        activity,
        metrics,
        clock: clock.clone(),
        random,
        provider: Arc::new(Calls { tokens, legs: ThreeLegs::new(legs), logins: logins.clone() }),
        revocations,
    });
    let connect = Arc::new(connect.with_logins(logins));
    let stop = CancellationToken::new();
    let (telling, until) = (connect.clone(), stop.clone());
    drop(tokio::spawn(async move { telling.tell_services(until).await }));
    World { manners, service, clock, doors, connect, store, scribe, _telling: stop.drop_guard(), _directory: directory }
}

impl World {
    /// Calls the service over a connection; the session that the call carried, where it was a success.
    async fn session(&self, connection: &str) -> Result<String, u16> {
        let named = format!("Trunkline-Connection: {connection}\r\n");
        let reply = call(self.doors.proxy, "GET /svc/get", &named, "").await;
        assert!(!format!("{reply:?}").contains("canary-password"));
        if reply.status != 200 {
            return Err(reply.status);
        }
        let seen = self.seen("GET /get ");
        let head = seen.last().unwrap().to_lowercase();
        let line = head.lines().find_map(|line| line.strip_prefix("x-session: ").map(str::to_owned));
        Ok(line.unwrap())
    }

    fn seen(&self, start: &str) -> Vec<String> {
        self.service.seen().into_iter().filter(|request| request.starts_with(start)).collect()
    }

    /// Waits until the service was told of this many ends of sessions; with what.
    async fn logouts(&self, count: usize) -> Vec<String> {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..3_000 {
            looks.tick().await;
            let seen = self.seen("DELETE /session ");
            if seen.len() >= count {
                return seen.iter().map(|request| request.to_lowercase()).collect();
            }
        }
        panic!("the service was told of {} ends of sessions", self.seen("DELETE /session ").len())
    }

    /// Waits until a condition of what is kept of revocations holds.
    async fn kept(&self, holds: impl Fn(&[connect::Revocation]) -> bool) {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..3_000 {
            looks.tick().await;
            if holds(&self.connect.revocations().await.unwrap()) {
                return;
            }
        }
        panic!("it never came to that: {:?}", self.connect.revocations().await.unwrap())
    }

    /// Wakes whoever tells services, by removing the stored connection.
    async fn wake(&self) {
        self.connect.remove("operator", "svc", "stored").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_used_until_shortly_before_its_end_and_then_made_anew() {
    for connection in ["declared", "stored"] {
        let world = world().await;
        assert_eq!(world.session(connection).await.as_deref(), Ok("s1"));
        world.clock.advance(Duration::from_mins(58));
        assert_eq!(world.session(connection).await.as_deref(), Ok("s1"));
        // The last minute of its hour is left for calls under way.
        world.clock.advance(Duration::from_secs(61));
        assert_eq!(world.session(connection).await.as_deref(), Ok("s2"));
        assert_eq!(world.seen("POST /login ").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_session_is_made_anew_once_and_a_young_one_is_kept() {
    for connection in ["declared", "stored"] {
        let world = world().await;
        assert_eq!(world.session(connection).await.as_deref(), Ok("s1"));
        *world.manners.refused.lock().unwrap() = Some("s1".to_owned());
        // Made a moment ago: to sign in again for each refusal would be a flood.
        assert_eq!(world.session(connection).await, Err(401));
        assert_eq!(world.seen("POST /login ").len(), 1);
        world.clock.advance(Duration::from_secs(31));
        assert_eq!(world.session(connection).await.as_deref(), Ok("s2"));
        *world.manners.refused.lock().unwrap() = Some("s2".to_owned());
        assert_eq!(world.session(connection).await, Err(401));
        assert_eq!(world.seen("POST /login ").len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_to_sign_in_are_paused_after_and_the_pause_ends() {
    for (status, pause) in [(401, 300), (503, 10)] {
        let world = world().await;
        *world.manners.login_status.lock().unwrap() = Some(status);
        for _ in 0..3 {
            assert!(world.session("declared").await.is_err());
        }
        assert_eq!(world.seen("POST /login ").len(), 1, "{status}");
        *world.manners.login_status.lock().unwrap() = None;
        world.clock.advance(Duration::from_secs(pause - 1));
        assert!(world.session("declared").await.is_err());
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.session("declared").await.as_deref(), Ok("s1"), "{status}");
        assert_eq!(world.seen("POST /login ").len(), 2, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_cannot_sign_in_fares_so_and_what_a_person_must_mend_outlives_an_outage() {
    let world = world().await;
    let fares = async || {
        let health = world.doors.outbound.connections().health("svc", "stored").await;
        (health.status(), health.last_error.map_or_else(String::new, |trouble| trouble.what))
    };
    *world.manners.login_status.lock().unwrap() = Some(503);
    assert!(world.session("stored").await.is_err());
    assert_eq!(fares().await.0, Status::Error, "it has no token");
    *world.manners.login_status.lock().unwrap() = Some(401);
    world.clock.advance(Duration::from_mins(10));
    assert!(world.session("stored").await.is_err());
    assert_eq!(fares().await.0, Status::NeedsReconnect);
    let refused = fares().await.1;
    *world.manners.login_status.lock().unwrap() = Some(503);
    world.clock.advance(Duration::from_mins(10));
    assert!(world.session("stored").await.is_err());
    assert_eq!(fares().await, (Status::NeedsReconnect, refused));
    *world.manners.login_status.lock().unwrap() = None;
    world.clock.advance(Duration::from_mins(10));
    assert!(world.session("stored").await.is_ok());
    let all = world.store.read(1, 1_000).await.unwrap();
    let changes = all.iter().filter(|record| record.entry.action == "connection.status");
    let to: Vec<_> = changes.map(|record| record.entry.detail["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["error", "needs_reconnect", "active"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_told_of_a_session_that_was_replaced_when_calls_under_way_are_over() {
    let world = world().await;
    world.session("declared").await.unwrap();
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.session("declared").await.as_deref(), Ok("s2"));
    world.kept(|kept| kept.len() == 1 && kept[0].state == RevocationState::Pending).await;
    assert!(world.seen("DELETE /session ").is_empty());
    world.clock.advance(Duration::from_secs(61));
    world.wake().await;
    let told = world.logouts(1).await;
    assert!(told[0].contains("x-session: s1\r") && told[0].contains("x-again: r1\r"), "{told:?}");
    world.kept(|kept| kept.iter().all(|one| one.connection == "stored")).await;
    let audit = world.store.read(1, 100).await.unwrap();
    let ended = audit.iter().find(|record| record.entry.action == "session.end").unwrap();
    assert_eq!(ended.entry.detail["state"], "revoked");
    assert_eq!(world.session("declared").await.as_deref(), Ok("s2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_connection_is_logged_out_and_a_session_that_is_over_there_is_no_failure() {
    for (status, state) in
        [(200, RevocationState::Revoked), (401, RevocationState::Revoked), (403, RevocationState::GivenUp)]
    {
        let world = world().await;
        *world.manners.logout_status.lock().unwrap() = Some(status);
        world.session("stored").await.unwrap();
        world.connect.remove("operator", "svc", "stored").await.unwrap().unwrap();
        world.kept(|kept| kept.len() == 1 && kept[0].state == state).await;
        assert_eq!(world.logouts(1).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_not_forgotten_where_the_removal_of_its_connection_fails() {
    let world = world().await;
    assert_eq!(world.session("stored").await.as_deref(), Ok("s1"));
    world.scribe.refuses.store(true, Ordering::Relaxed);
    world.connect.remove("operator", "svc", "stored").await.unwrap_err();
    world.scribe.refuses.store(false, Ordering::Relaxed);
    assert_eq!(world.session("stored").await.as_deref(), Ok("s2"), "it is there still, and signs in anew");
    world.connect.remove("operator", "svc", "stored").await.unwrap().unwrap();
    world.clock.advance(Duration::from_secs(61));
    let told = world.logouts(2).await;
    for session in ["x-session: s1\r", "x-session: s2\r"] {
        assert!(told.iter().any(|told| told.contains(session)), "{session}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_cannot_log_out_now_is_told_again() {
    let world = world().await;
    *world.manners.logout_status.lock().unwrap() = Some(503);
    world.session("stored").await.unwrap();
    world.connect.remove("operator", "svc", "stored").await.unwrap().unwrap();
    world.kept(|kept| kept.len() == 1 && kept[0].attempts == 1 && kept[0].state == RevocationState::Pending).await;
    *world.manners.logout_status.lock().unwrap() = None;
    world.clock.advance(Duration::from_mins(2));
    world.kept(|kept| kept[0].state == RevocationState::Revoked).await;
    assert_eq!(world.logouts(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_with_a_refresh_token_is_renewed_by_it_ahead_of_its_end_and_after_a_refusal() {
    for connection in ["declared", "stored"] {
        let world = world_that(Renews::Yes).await;
        assert_eq!(world.session(connection).await.as_deref(), Ok("s1"));
        world.clock.advance(Duration::from_mins(59) + Duration::from_secs(1));
        assert_eq!(world.session(connection).await.as_deref(), Ok("n1"));
        let renewal = world.seen("POST /renew ").pop().unwrap();
        assert!(renewal.ends_with(r#"{"again":"r1"}"#), "{renewal}");
        *world.manners.refused.lock().unwrap() = Some("n1".to_owned());
        world.clock.advance(Duration::from_secs(31));
        assert_eq!(world.session(connection).await.as_deref(), Ok("n2"));
        let renewal = world.seen("POST /renew ").pop().unwrap();
        assert!(renewal.ends_with(r#"{"again":"m1"}"#), "the newest refresh token counts: {renewal}");
        assert_eq!(world.seen("POST /login ").len(), 1);
        // It is one session that went on: nobody is told of its end.
        assert!(world.connect.revocations().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_is_followed_by_a_sign_in_at_once() {
    for status in [400, 401, 503] {
        let world = world_that(Renews::Yes).await;
        assert_eq!(world.session("declared").await.as_deref(), Ok("s1"));
        *world.manners.renewal_status.lock().unwrap() = Some(status);
        world.clock.advance(Duration::from_hours(1));
        assert_eq!(world.session("declared").await.as_deref(), Ok("s2"), "{status}");
        assert_eq!((world.seen("POST /renew ").len(), world.seen("POST /login ").len()), (1, 2));
        // Both were sessions of their own: the service is told of the first.
        world.kept(|kept| kept.len() == 1 && kept[0].state == RevocationState::Pending).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_for_a_session_has_an_entry_and_is_counted() {
    let world = world_that(Renews::Yes).await;
    assert_eq!(world.session("stored").await.as_deref(), Ok("s1"));
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(world.session("stored").await.as_deref(), Ok("n1"));
    world.wake().await;
    world.logouts(1).await;
    let told = || world.doors.activity.newest(10, |entry| entry.asker == Asker::SignIn);
    // With the two calls that used the session.
    let counted = || world.doors.metrics.upstream_requests.with_label_values(&["svc", "200"]).get();
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..3_000 {
        looks.tick().await;
        if told().len() >= 3 && counted() >= 5 {
            break;
        }
    }
    let told = told();
    let calls: Vec<_> = told.iter().map(|call| (call.endpoint.as_deref().unwrap(), &*call.path)).collect();
    assert_eq!(calls, [("logout", "/session"), ("refresh", "/renew"), ("steps", "/login")]);
    assert!(told.iter().all(|call| call.status == Some(200) && &*call.connection == "stored"), "{told:?}");
    assert_eq!(counted(), 5);
}
