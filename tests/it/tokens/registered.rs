//! Applications that register themselves (RFC 7591) over real sockets: once, kept sealed, told plainly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use trunkline::base::clock::{ManualClock, SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::flow::{Authorization, Force};
use trunkline::connection::grant::{TokenError, TokenErrorKind};
use trunkline::connection::{Connections, KeyRing, MasterKey, Stored, Vault};
use trunkline::store::embedded::Embedded;
use trunkline::store::{Audit, Records};

use super::world::{World, body, header, held, pair, world};
use crate::calls::service::{Answer, Service};
use crate::support::store;

const GIVEN: &str = r#"{"client_id":"made-up","client_secret":"canary-secret","client_secret_expires_at":0,
    "token_endpoint_auth_method":"client_secret_basic"}"#;

/// A service that registers with this answer, the number of the call in place of `N`.
async fn service(status: u16, answer: &'static str) -> Service {
    let calls = AtomicUsize::new(0);
    Service::start(move |request| {
        if request.starts_with("POST /register ") {
            let host = header(request, "host").unwrap();
            let number = calls.fetch_add(1, Ordering::SeqCst) + 1;
            return Answer::json(status, &answer.replace("HOST", host).replace("NUMBER", &number.to_string()));
        }
        if request.starts_with("DELETE ") {
            return Answer::of(204, &[], "");
        }
        Answer::json(200, r#"{"access_token":"at","refresh_token":"rt","expires_in":3600}"#)
    })
    .await
}

/// What a process has that keeps registrations.
pub struct Kept {
    pub connections: Arc<Connections>,
    store: Arc<Embedded>,
    _directory: TempDir,
}

impl Kept {
    pub async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = store::open(store::options(directory.path(), Arc::new(SystemClock::new()))).await.unwrap();
        let random = Arc::new(SystemRandom::default());
        let vault = Arc::new(Vault::new(KeyRing::of(MasterKey::generate(&*random).unwrap()), random));
        let stored = Stored::new(vault, store.clone(), store.clone(), Arc::new(SystemClock::new()));
        Self { connections: Arc::new(Connections::with_stored(stored)), store, _directory: directory }
    }

    /// A process with this store.
    fn world(&self, service: &Service, more: &Value) -> World {
        let mut oauth2 = json!({
            "authorize": "SVC/auth", "token": "SVC/token", "registration": "SVC/register", "client_auth": "basic",
        });
        oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let world = world(service, &oauth2);
        World { calls: world.calls.keeping(self.connections.clone()), ..world }
    }

    async fn actions(&self) -> Vec<String> {
        self.store.read(1, 100).await.unwrap().into_iter().map(|record| record.entry.action).collect()
    }
}

async fn sent_to(world: &World) -> Result<String, TokenError> {
    let redirect_uri = &world.account().redirect_uri();
    let ask = Authorization { state: "st", redirect_uri, scopes: &[], challenge: Some("ch") };
    world.calls.authorize_url(world.account(), ask).await
}

fn registrations(service: &Service) -> Vec<String> {
    service.seen().into_iter().filter(|request| request.starts_with("POST /register ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_registers_once_whoever_asks_and_what_it_got_is_used_and_sealed() {
    let (service, kept) = (service(201, GIVEN).await, Kept::new().await);
    let world = kept.world(
        &service,
        &json!({ "registration": { "url": "SVC/register", "token": "initial",
        "metadata": { "client_name": "Ours", "contacts": ["a@b.example"], "response_types": null } } }),
    );
    let urls = join_all((0..8).map(|_| sent_to(&world))).await;
    assert!(urls.iter().all(|url| url.as_ref().is_ok_and(|url| url.contains("client_id=made-up&"))), "{urls:?}");
    let asked = registrations(&service);
    assert_eq!(asked.len(), 1);
    assert_eq!(header(&asked[0], "authorization"), Some("Bearer initial"));
    let expected = json!({
        "client_name": "Ours", "contacts": ["a@b.example"], "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "client_secret_basic", "redirect_uris": [world.account().redirect_uri()],
    });
    assert_eq!(serde_json::from_str::<Value>(body(&asked[0])).unwrap(), expected);
    // Another process, and a token call with what was registered: `made-up:canary-secret`.
    let second = kept.world(&service, &json!({}));
    assert_eq!(pair(&second.code().await.unwrap(), "default").0, "at");
    assert_eq!(registrations(&service).len(), 1);
    let exchange = service.seen().pop().unwrap();
    assert_eq!(header(&exchange, "authorization"), Some("Basic bWFkZS11cDpjYW5hcnktc2VjcmV0"));
    let keys = kept.store.keys("registrations").await.unwrap();
    let sealed = kept.store.get(&keys[0]).await.unwrap().unwrap().0;
    assert!(keys.len() == 1 && !String::from_utf8_lossy(&sealed).contains("canary"));
    let shown = serde_json::to_string(&second.calls.registrations().await.unwrap()).unwrap();
    assert!(shown.contains("made-up") && !shown.contains("canary"), "{shown}");
    assert_eq!(kept.actions().await, ["registration.begin", "registration.done"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_another_process_began_is_not_made_twice() {
    let (service, kept) = (service(201, GIVEN).await, Kept::new().await);
    // A process that ended in the middle of its call: the service never answers it.
    let silent = Service::start(|_| Answer::Hang(Vec::new())).await;
    let hung = kept.world(&silent, &json!({}));
    let arrived = async {
        while silent.seen().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = arrived => {}
        ended = sent_to(&hung) => panic!("{ended:?}"),
    }
    assert_eq!(kept.actions().await, ["registration.begin"]);
    let url = format!("http://svc.example:{}/register", silent.port());
    let other = kept.world(&service, &json!({ "registration": url }));
    let error = sent_to(&other).await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Unsent);
    assert!(error.to_string().contains("is being registered by another process"), "{error}");
    assert_eq!(silent.seen().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_plainly_and_nothing_is_kept_of_them() {
    let cases = [
        (
            400,
            r#"{"error":"invalid_redirect_uri","error_description":"https only"}"#,
            "does not take the redirect address `http",
        ),
        (400, r#"{"error":"invalid_client_metadata","error_description":"no"}"#, "see `registration.metadata`"),
        (400, r#"{"error":"unapproved_software_statement"}"#, "software statement"),
        (401, "{}", "initial access token"),
        (404, "<html>", "nothing registers applications at this address"),
        (503, "{}", "503"),
        (201, r#"{"client_secret":"canary-secret"}"#, "no `client_id`"),
        (201, r#"{"client_id":"a"}"#, "no `client_secret`"),
        (201, r#"{"client_id":"a","client_secret":"s","token_endpoint_auth_method":"magic"}"#, "`magic`"),
        (201, r#"{"client_id":"a","client_secret":"s","client_secret_expires_at":5}"#, "has ended already"),
    ];
    for (status, answer, words) in cases {
        let (service, kept) = (service(status, answer).await, Kept::new().await);
        let error = sent_to(&kept.world(&service, &json!({}))).await.unwrap_err();
        assert_eq!(error.code.as_deref(), Some("registration_failed"), "{error}");
        let error = error.to_string();
        assert!(error.contains(words) && !error.contains("canary"), "{status} {answer}: {error}");
        assert_eq!(kept.store.keys("registrations").await.unwrap().len(), 0, "{answer}");
        assert_eq!(kept.actions().await, ["registration.begin", "registration.fail"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_ends_is_replaced_before_the_next_account_and_renews_nothing() {
    let answer = r#"{"client_id":"app-NUMBER","client_secret":"s","client_secret_expires_at":1790000600}"#;
    let (service, kept) = (service(201, answer).await, Kept::new().await);
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_790_000_000)));
    let world = kept.world(&service, &json!({}));
    let world = super::world::at_time(world, &clock, kept.connections.clone());
    assert!(sent_to(&world).await.unwrap().contains("client_id=app-1&"));
    clock.advance(Duration::from_secs(530));
    assert!(sent_to(&world).await.unwrap().contains("client_id=app-1&"));
    clock.advance(Duration::from_secs(20));
    let error = world.renew("default", &held("at", Some("rt"))).await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Permanent);
    assert!(error.to_string().contains("connect the account again"), "{error}");
    assert_eq!(world.calls.registrations().await.unwrap()[0].state, "ended");
    // The service gives out secrets that end at the same moment for ever, which is told.
    let again = sent_to(&world).await;
    assert_eq!(registrations(&service).len(), 2, "{again:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_forgotten_at_the_service_as_well_and_registers_anew() {
    let answer = r#"{"client_id":"app-NUMBER","client_secret":"s","registration_access_token":"canary-manage",
        "registration_client_uri":"http://HOST/register/app-NUMBER"}"#;
    let (service, kept) = (service(201, answer).await, Kept::new().await);
    let world = kept.world(&service, &json!({}));
    world.calls.register_now(&world.generation, "svc").await.unwrap();
    let issued = world.code().await.unwrap().tokens["default"].copy();
    assert_eq!(pair(&world.renew("default", &issued).await.unwrap(), "default").1, Some("rt"));
    let forgotten = world.calls.forget_registration("operator", (&world.generation, "svc"), Force::No).await.unwrap();
    assert_eq!((forgotten[0].client_id.as_deref(), forgotten[0].service), (Some("app-1"), "deleted"));
    let deleted = service.seen().pop().unwrap();
    assert!(deleted.starts_with("DELETE /register/app-1 "), "{deleted}");
    assert_eq!(header(&deleted, "authorization"), Some("Bearer canary-manage"));
    let error = world.code().await.unwrap_err();
    assert!(error.to_string().contains("has not registered itself"), "{error}");
    assert!(sent_to(&world).await.unwrap().contains("client_id=app-2&"));
    // What was issued to the first registration is not shown to the service as the second.
    let before = service.seen().len();
    let error = world.renew("default", &issued).await.unwrap_err();
    assert_eq!((error.kind, service.seen().len()), (TokenErrorKind::Permanent, before));
    assert!(error.to_string().contains("an earlier registration"), "{error}");
    // A service that cannot be asked keeps what is known of it, unless that does not matter.
    drop(service);
    let forget = |force| world.calls.forget_registration("operator", (&world.generation, "svc"), force);
    assert!(forget(Force::No).await.is_err());
    assert_eq!(world.calls.registrations().await.unwrap().len(), 1);
    assert_eq!(forget(Force::Yes).await.unwrap()[0].service, "not_reached");
    assert!(forget(Force::No).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_redirect_address_and_a_foreign_place_to_manage_are_told_or_left() {
    let answer = r#"{"client_id":"a","client_secret":"s","registration_access_token":"t","registration_client_uri":"http://169.254.169.254/a"}"#;
    let (service, kept) = (service(201, answer).await, Kept::new().await);
    let mut world = kept.world(&service, &json!({}));
    sent_to(&world).await.unwrap();
    assert!(!world.calls.registrations().await.unwrap()[0].revocable, "it would be asked at another host");
    let mut gateway = super::world::reachable();
    gateway.public_url = "https://moved.example/".parse().unwrap();
    world.generation.gateway = Arc::new(gateway);
    let error = sent_to(&world).await.unwrap_err().to_string();
    assert!(error.contains("https://moved.example/api/auth/callback/svc") && error.contains("forget"), "{error}");
    assert_eq!(registrations(&service).len(), 1);
}

#[tokio::test]
async fn without_a_master_key_nothing_registers() {
    let service = service(201, GIVEN).await;
    let world =
        world(&service, &json!({ "authorize": "SVC/auth", "token": "SVC/token", "registration": "SVC/register" }));
    let error = sent_to(&world).await.unwrap_err().to_string();
    assert!(error.contains("without a master key"), "{error}");
    assert!(service.seen().is_empty());
}
