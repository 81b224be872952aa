//! Signed calls to a service whose clock is not ours: signed once more by its clock, which is remembered if it helped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use trunkline::base::clock::{ManualClock, Timestamp};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::templates::Templates;

use crate::calls::service::{Answer, Service};
use crate::support::doors::{Doors, Setup};
use crate::support::raw::{Reply, call};
use crate::tokens::world::header;

/// The time here.
const NOW: u64 = 1_790_000_000;

/// How far the service's clock is ahead, and how far it says it is.
#[derive(Default)]
struct Clock {
    ahead: AtomicU64,
    told: AtomicU64,
}

impl Clock {
    fn set(&self, ahead: u64, told: u64) {
        self.ahead.store(ahead, Ordering::SeqCst);
        self.told.store(told, Ordering::SeqCst);
    }
}

/// The moment that a call was signed at: of Amazon's header, or of a token's `iat`.
fn signed_at(request: &str) -> u64 {
    if let Some(date) = header(request, "x-amz-date") {
        let at = |from: usize, to: usize| date.get(from..to).unwrap();
        let text = format!("{}-{}-{}T{}:{}:{}Z", at(0, 4), at(4, 6), at(6, 8), at(9, 11), at(11, 13), at(13, 15));
        return Timestamp::parse_rfc3339(&text).unwrap().seconds();
    }
    let token = header(request, "authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["iat"].as_u64().unwrap()
}

struct Scene {
    clock: Arc<Clock>,
    service: Service,
    doors: Doors,
}

impl Scene {
    /// A service that refuses with this status what is signed a minute and more off.
    async fn of(auth: &Value, credential: &Value, status: u16) -> Self {
        let clock = Arc::<Clock>::default();
        let own = Arc::clone(&clock);
        let service = Service::start(move |request| {
            let (now, told) = (NOW + own.ahead.load(Ordering::SeqCst), NOW + own.told.load(Ordering::SeqCst));
            let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(told));
            let status = if signed_at(request).abs_diff(now) > 60 { status } else { 200 };
            Answer::of(status, &[("date", &date), ("content-type", "application/json")], "{}")
        })
        .await;
        let mut connection = json!({ "id": "default" });
        connection.as_object_mut().unwrap().extend(credential.as_object().unwrap().clone());
        let api = json!({
            "base_url": format!("http://127.0.0.1:{}", service.port()),
            "endpoints": [{ "id": "read", "request": "GET /named" }, { "id": "write", "request": "POST /named" }],
        });
        let whole = json!({ "trunkline": 1, "id": "svc", "auth": auth, "api": api, "connections": [connection] });
        let document = Document::unplaced("svc.yaml".into(), whole);
        let integration =
            compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{}", fault.message));
        let ours = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
        let doors = Doors::start(Setup { clock: ours, ..Setup::of(integration) });
        Self { clock, service, doors }
    }

    async fn aws() -> Self {
        let auth = json!({ "sigv4": { "service": "execute-api", "region": "eu-central-1" } });
        Self::of(&auth, &json!({ "username": "AKID", "password": "secret" }), 403).await
    }

    async fn call(&self, line: &str, body: &str) -> Reply {
        call(self.doors.proxy, line, "Content-Type: application/json\r\n", body).await
    }

    /// How far ahead of us the calls were signed, since this was last asked.
    fn signed(&self, from: usize) -> Vec<i64> {
        let seen = self.service.seen();
        seen[from..]
            .iter()
            .map(|request| i64::try_from(signed_at(request)).unwrap() - i64::try_from(NOW).unwrap())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_call_is_signed_once_more_by_the_services_clock_at_every_way_out() {
    // Streamed, read whole because its body is signed, and by name.
    for (line, body) in [("GET /svc/a", ""), ("PUT /svc/a", "{}"), ("POST /svc/-/read", "{}")] {
        let scene = Scene::aws().await;
        scene.clock.set(1_200, 1_200);
        assert_eq!(scene.call(line, body).await.status, 200, "{line}");
        assert_eq!(scene.call(line, body).await.status, 200, "{line}");
        assert_eq!(scene.signed(0), [0, 1_200, 1_200], "{line}");
        // Their clock is set right.
        scene.clock.set(0, 0);
        assert_eq!(scene.call(line, body).await.status, 200, "{line}");
        assert_eq!(scene.signed(3), [1_200, 0], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_must_not_be_repeated_is_not_and_the_next_one_is_signed_right() {
    for line in ["POST /svc/a", "POST /svc/-/write"] {
        let scene = Scene::aws().await;
        scene.clock.set(1_200, 1_200);
        assert_ne!(scene.call(line, "{}").await.status, 200, "{line}");
        assert_eq!(scene.call(line, "{}").await.status, 200, "{line}");
        assert_eq!(scene.signed(0), [0, 1_200], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_explains_nothing_is_not_believed_for_long() {
    // Off by less than services let pass, or by more than a day: the refusal stands at once.
    for told in [200, 90_000] {
        let scene = Scene::aws().await;
        scene.clock.set(1_200, told);
        assert_eq!(scene.call("GET /svc/a", "").await.status, 403);
        assert_eq!(scene.signed(0), [0], "{told}");
    }
    let scene = Scene::aws().await;
    scene.clock.set(1_200, 600);
    for _ in 0..2 {
        assert_eq!(scene.call("GET /svc/a", "").await.status, 403);
    }
    assert_eq!(scene.signed(0), [0, 600, 0, 600], "what did not help is let go of");
    // Once it has helped, a refusal of another kind does not undo it.
    scene.clock.set(600, 600);
    assert_eq!(scene.call("GET /svc/a", "").await.status, 200);
    scene.clock.set(3_000, 600);
    assert_eq!(scene.call("GET /svc/a", "").await.status, 403);
    assert_eq!(scene.signed(4), [0, 600, 600]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_signed_for_each_call_is_signed_by_the_services_clock_as_well() {
    let auth = json!({ "jwt": { "algorithm": "HS256", "key": "0123456789abcdef0123456789abcdef", "claims": { "iss": "us" } } });
    for line in ["GET /svc/a", "POST /svc/-/read"] {
        let scene = Scene::of(&auth, &json!({}), 401).await;
        scene.clock.set(300, 300);
        assert_eq!(scene.call(line, if line.starts_with("GET") { "" } else { "{}" }).await.status, 200, "{line}");
        assert_eq!(scene.signed(0), [0, 300], "{line}");
    }
}
