//! Credentials that a person enters here: tried before they are kept, against the simulated service.

use std::net::SocketAddr;
use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::connect::trial::Trial;
use trunkline::connection::{Connections, Content, Credential, Status};
use trunkline::mock::{Controls, Faults, Mock, Simulated};
use trunkline::net::resolve::Resolver;
use trunkline::net::{Clients, Dialer, Redirect, Trust};
use trunkline::outbound::{self, Outbound};
use trunkline::telemetry::metrics::Metrics;

use super::bad_input::calls;
use super::desk::{APP, Behind, Browser, Desk, html, target};
use crate::calls::world::Names;
use crate::events::station::compiled;
use crate::support::doors::Setup;
use crate::support::raw::Reply;

const API: &str = "api: { base_url: \"https://api.hub.example\", test: GET /me, error: body.error.message, credential:";
const KEY: &str = "{ header: Authorization, value: \"Key {{ api_key }}\" } }";

/// What makes test requests; `mock` is where services are played.
pub fn trial(clock: &Arc<dyn Clock>, mock: Option<SocketAddr>) -> Arc<dyn Trial> {
    way_out(clock, mock)
}

fn way_out(clock: &Arc<dyn Clock>, mock: Option<SocketAddr>) -> Arc<Outbound> {
    let redirect = mock.map(|address| Redirect { address });
    let dialer = Dialer::new(Resolver::new(Arc::new(Names), Arc::clone(clock)), redirect);
    Arc::new(Outbound::new(outbound::Parts {
        random: Arc::new(SystemRandom::default()),
        connections: Arc::new(Connections::declared()),
        refresher: None,
        clients: Clients::new(Arc::new(dialer), Trust::of(&[])),
        clock: Arc::clone(clock),
        metrics: Arc::new(Metrics::new().unwrap()),
        activity: Arc::new(Activity::default()),
    }))
}

/// A service `hub` that signs in so, and a desk over it.
struct Scene {
    desk: Desk,
    mock: Arc<Mock>,
}

impl Scene {
    async fn open(auth: &str, api: &str) -> Self {
        Self::with(auth, api, Faults::default()).await
    }

    async fn with(auth: &str, api: &str, faults: Faults) -> Self {
        let inputs = "inputs: { site: { title: Site, default: main } }";
        let text = format!("trunkline: 1\nid: hub\ntitle: Hub\n{inputs}\nauth: {auth}\n{api}\n");
        let mut started = None;
        let desk = Desk::over(APP, |_, clock: Arc<ManualClock>| -> Behind {
            let clock: Arc<dyn Clock> = clock;
            let simulated = Simulated { integration: Arc::new(compiled(&text)), resolved: json!({}) };
            let random = Arc::new(SystemRandom::default());
            let mock = Arc::new(Mock::new(&[simulated], Controls::from(faults), Arc::clone(&clock), random));
            let address = crate::mock::serve(Arc::clone(&mock));
            started = Some(mock);
            (vec![compiled(&text)], Arc::new(calls(&clock, Some(address))), Some(trial(&clock, Some(address))))
        })
        .await;
        Self { desk, mock: started.unwrap() }
    }

    /// Opens a link and sends the form.
    async fn enter<'a>(&'a self, form: &str) -> (Browser<'a>, String, Reply) {
        let made = self.desk.link().await;
        let mut browser = Browser::new(&self.desk);
        browser.get(target(&made.url)).await;
        let reply = browser.post(target(&made.url), form).await;
        (browser, made.url, reply)
    }

    async fn status(&self) -> Status {
        self.desk.connections.health("hub", "acme").await.status()
    }
}

async fn keyed() -> Scene {
    let scene = Scene::open("{ api_key: { title: Key } }", &format!("{API} {KEY}")).await;
    scene.mock.control("hub", &json!({ "accept": "sk_right" })).unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_works_is_kept_and_has_been_tried() {
    let scene = keyed().await;
    let (mut browser, _, reply) = scene.enter("input.site=north&api_key=sk_right").await;
    assert_eq!(reply.status, 303, "{}", reply.text());
    let page = html(&browser.get(reply.header("location").unwrap()).await);
    assert!(page.contains("Hub is connected"), "{page}");
    assert_eq!(scene.mock.requests().len(), 1);
    let health = scene.desk.connections.health("hub", "acme").await;
    assert!(health.status() == Status::Active && health.last_test.is_some_and(|test| test.passed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_service_refuses_is_told_on_the_page_and_nothing_is_stored() {
    let scene = keyed().await;
    let (mut browser, url, reply) = scene.enter("input.site=north&api_key=sk_canary_wrong").await;
    let page = html(&reply);
    assert_eq!((reply.status, reply.code()), (400, Some("invalid_input")), "{page}");
    for said in ["was tried at Hub and does not work", "not known here", "enter it again whole", "value=\"north\""] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert!(!page.contains("canary") && !page.contains("untried"), "{page}");
    assert_eq!(scene.desk.records("connections").await, 0);
    let (action, detail) = scene.desk.audit().await.pop().unwrap();
    assert_eq!((action.as_str(), &detail["cause"]), ("connect.try", &json!("unauthorized")));
    assert_eq!(detail["result"], "credential_refused");
    assert_eq!(scene.desk.activity.newest(1, |_| true)[0].error.as_deref(), Some("credential_refused"));
    assert_eq!(scene.desk.counted("credential_refused"), 1);
    // Saying that it need not be tried does not help a key that was refused.
    let again = browser.post(target(&url), "input.site=north&api_key=sk_wrong&untried=yes").await;
    assert_eq!((again.status, scene.desk.records("connections").await), (400, 0));
    // The link was not used up.
    let right = browser.post(target(&url), "input.site=north&api_key=sk_right").await;
    assert_eq!((right.status, scene.desk.records("connections").await), (303, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_keeps_nobody_from_connecting_who_says_so_twice() {
    let down = Faults { status: Some(StatusCode::SERVICE_UNAVAILABLE), ..Faults::default() };
    let scene = Scene::with("{ api_key: { title: Key } }", &format!("{API} {KEY}"), down).await;
    let (mut browser, url, reply) = scene.enter("input.site=north&api_key=sk_canary").await;
    let page = html(&reply);
    assert_eq!((reply.status, reply.code()), (502, Some("service_unreachable")), "{page}");
    for said in ["could not be tried at Hub", "name=\"untried\"", "until its first call succeeds", "value=\"north\""] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    assert!(!page.contains("canary"), "{page}");
    assert_eq!(scene.desk.records("connections").await, 0);
    assert_eq!(scene.desk.audit().await.pop().unwrap().1["result"], "credential_untried");
    let kept = browser.post(target(&url), "input.site=north&api_key=sk_canary&untried=yes").await;
    assert_eq!((kept.status, scene.desk.records("connections").await), (303, 1), "{}", kept.text());
    assert_eq!(scene.status().await, Status::Warning);
    let health = scene.desk.connections.health("hub", "acme").await;
    assert!(health.last_test.is_none() && health.last_error.is_some_and(|trouble| trouble.what.contains("503")));
    let pulse = scene.desk.connections.pulse(&trunkline::connection::health::Key::new("hub", "acme")).await;
    pulse.succeed(scene.desk.now());
    assert_eq!(scene.status().await, Status::Active);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_passwords_and_sign_ins_are_tried_as_well() {
    let login = "\n  login:\n    fields: { name: { title: Name }, word: { title: Word, secret: true } }\n\
        \x20   steps: { request: \"POST https://hub.example/session\", json: { n: \"{{ input.name }}\", w: \"{{ input.word }}\" } }\n\
        \x20   tokens: { default: { access: body.id } }";
    let token = format!("{API} {{ header: X-Session, value: \"{{{{ token.access }}}}\" }} }}");
    let basic = "api: { base_url: \"https://api.hub.example\", test: GET /me }".to_owned();
    for (auth, api, accept, form) in [
        ("{ basic: {} }", &basic, "ada:right", "username=ada&password"),
        (login, &token, "right", "input.name=ada&input.word"),
    ] {
        let scene = Scene::open(auth, api).await;
        scene.mock.control("hub", &json!({ "accept": accept })).unwrap();
        let (_, _, refused) = scene.enter(&format!("{form}=canary")).await;
        let page = html(&refused);
        assert!(refused.status == 400 && page.contains("value=\"ada\""), "{auth}: {page}");
        assert!(page.contains("does not work") && !page.contains("canary"), "{auth}: {page}");
        assert_eq!(scene.desk.records("connections").await, 0, "{auth}");
        assert_eq!(scene.desk.audit().await.pop().unwrap().1["cause"], "unauthorized", "{auth}");
        let (_, _, kept) = scene.enter(&format!("{form}=right")).await;
        assert_eq!((kept.status, scene.desk.records("connections").await), (303, 1), "{auth}: {}", kept.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_only_tried_an_account_is_over() {
    let text = "trunkline: 1\nid: hub\nauth:\n  login:\n    fields: { word: { title: Word, secret: true } }\n\
        \x20   steps: { request: \"POST https://hub.example/session\", json: { w: \"{{ input.word }}\" } }\n\
        \x20   tokens: { default: { access: body.id } }\n    logout: DELETE https://hub.example/session\n\
        api: { base_url: \"https://api.hub.example\", test: GET /me, \
        credential: { header: X-Session, value: \"{{ token.access }}\" } }\n";
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp::from_seconds(1_790_000_000)));
    let simulated = Simulated { integration: Arc::new(compiled(text)), resolved: json!({}) };
    let random = Arc::new(SystemRandom::default());
    let mock = Arc::new(Mock::new(&[simulated], Controls::default(), Arc::clone(&clock), random));
    let outbound = way_out(&clock, Some(crate::mock::serve(mock)));
    let integration = Arc::new(compiled(text));
    let generation = crate::support::doors::generation(Setup::of(compiled(text)));
    let inputs = json!({ "word": "open" }).as_object().unwrap().clone();
    let content = Content { credential: Credential::None, inputs, saved: serde_json::Map::new() };
    outbound::try_out(&outbound, (&generation, &integration), "acme", content).await.unwrap();
    assert_eq!(outbound.logins().over().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_sign_in_says_what_becomes_of_what_is_entered() {
    let login = "\n  login:\n    fields: { word: { title: Word, secret: true } }\n\
        \x20   steps: { request: \"POST https://hub.example/session\", json: { w: \"{{ input.word }}\" } }\n\
        \x20   tokens: { default: { access: body.id } }";
    let scene = Scene::open(login, "api: { base_url: \"https://api.hub.example\" }").await;
    let made = scene.desk.link().await;
    let page = html(&Browser::new(&scene.desk).get(target(&made.url)).await);
    assert!(page.contains("kept sealed by") && page.contains("sent to Hub alone"), "{page}");
    assert!(!page.contains("needs no sign-in"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_no_header_can_carry_is_refused_where_it_is_entered() {
    let scene = keyed().await;
    for key in ["sk_caf%C3%A9", "sk_a%0Ab", "sk_%E2%80%8Bx"] {
        let (_, _, reply) = scene.enter(&format!("api_key={key}")).await;
        let page = html(&reply);
        assert!(reply.status == 400 && page.contains("characters that no key has"), "{key}: {page}");
    }
    assert_eq!((scene.mock.requests().len(), scene.desk.records("connections").await), (0, 0));
}
