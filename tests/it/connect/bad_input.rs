//! The bad inputs of a connect flow, one after another, with the calls as they are really made: each ends on a
//! page that a person can act on, with a line in the activity and in the audit log, and with nothing stored.

use std::net::SocketAddr;
use std::sync::Arc;

use regex::Regex;
use serde_json::{Value, json};
use trunkline::activity::Activity;
use trunkline::base::clock::Clock;
use trunkline::base::random::SystemRandom;
use trunkline::connection::connect::Calls;
use trunkline::connection::flow::{Parts, TokenCalls};
use trunkline::connection::sign_in;
use trunkline::connection::sign_in::oauth1::ThreeLegs;
use trunkline::net::resolve::Resolver;
use trunkline::net::{Clients, Dialer, Redirect, Trust};
use trunkline::telemetry::metrics::Metrics;

use super::desk::{APP, Browser, Desk, TOO_LONG, html, target};
use crate::calls::world::Names;
use crate::events::station::compiled;
use crate::support::browser;
use crate::support::desk::turns;
use crate::support::peer::Peer;
use crate::support::raw::Reply;

/// What is wrong.
enum Wrong {
    /// The next token call, by `POST /-/next` of the peer.
    Answer(Value),
    /// The callback's query, made of the right one.
    Query(fn(&str) -> String),
    /// It comes too late.
    Late,
    /// It comes in another browser.
    Elsewhere,
    /// It comes a second time.
    Twice,
    /// A code that was used before comes with a state that was not.
    Replayed,
}

/// How it must end.
enum End {
    /// On the outcome's page, with this failure and these words.
    Failed(&'static str, &'static str),
    /// On the page that all forgeries end on, for this reason.
    Refused(&'static str),
    /// For this reason on the page of what came of it before, which has these words.
    Told(&'static str, &'static str),
}

/// The calls of a connect flow as they are really made; `mock` is where services are played.
pub fn calls(clock: &Arc<dyn Clock>, mock: Option<SocketAddr>) -> Calls {
    let redirect = mock.map(|address| Redirect { address });
    let dialer = Arc::new(Dialer::new(Resolver::new(Arc::new(Names), Arc::clone(clock)), redirect));
    let (clients, random) = (Clients::new(dialer, Trust::of(&[])), Arc::new(SystemRandom::default()));
    let parts = Parts {
        clients: clients.clone(),
        clock: Arc::clone(clock),
        random: random.clone(),
        metrics: Arc::new(Metrics::new().unwrap()),
        activity: Arc::new(Activity::default()),
        turns: turns(clock),
    };
    let (metrics, activity, turns) = (Arc::clone(&parts.metrics), Arc::clone(&parts.activity), turns(clock));
    let signing = sign_in::Parts { clients, clock: Arc::clone(clock), random, metrics, activity, turns };
    let logins = Arc::new(sign_in::login::Logins::new(signing.clone()));
    Calls { tokens: Arc::new(TokenCalls::new(parts)), legs: ThreeLegs::new(signing), logins }
}

/// A desk whose service is a peer.
async fn desk(peer: impl FnOnce(&str) -> (Peer, [&'static str; 2])) -> (Desk, Peer) {
    let mut started = None;
    let desk = Desk::over(APP, |door, clock| {
        let (peer, [authorize, scope]) = peer(&format!("http://localhost:{}/api/auth/callback/hub", door.port()));
        let url = peer.url();
        let definition = compiled(&format!(
            "trunkline: 1\nid: hub\ntitle: Hub\nauth:\n  oauth2:\n    authorize: {url}{authorize}\n\
             \x20   token: {{ request: \"POST {url}/token\", timeout: 1s }}\n    client: {{ id: app, secret: canary-secret }}\n\
             \x20   scopes: [{{ name: {scope}, grants: \"See it\", default: true }}]\n\
             api: {{ base_url: \"{url}\", test: GET /me }}\n"
        ));
        started = Some(peer);
        let clock: Arc<dyn Clock> = clock;
        (vec![definition], Arc::new(calls(&clock, None)), None)
    })
    .await;
    (desk, started.unwrap())
}

/// A person is sent to the service. Answers where to, and the id of the outcome.
pub async fn departed(desk: &Desk, browser: &mut Browser<'_>) -> (String, String) {
    let made = desk.link().await;
    browser.get(target(&made.url)).await;
    let mut left = browser.post(target(&made.url), "").await;
    if let Some(place) = left.header("location").map(str::to_owned) {
        left = browser.get(&place).await;
    }
    let page = html(&left).replace("&amp;", "&");
    let url = Regex::new("0;url=([^\"]+)\"").unwrap().captures(&page).unwrap_or_else(|| panic!("{page}"))[1].to_owned();
    (url, made.result)
}

/// A person consents at the service. Answers the query they come back with.
async fn consent(desk: &Desk, browser: &mut Browser<'_>) -> (String, String) {
    let (url, result) = departed(desk, browser).await;
    let back = format!("http://localhost:{}/api/auth/callback/", desk.door.port());
    let page = tokio::task::spawn_blocking(move || {
        let mut person = browser::Browser::default();
        person.stop = Some(back.clone());
        let page = person.open(&url);
        person.agree(page, &back)
    });
    (page.await.unwrap().url.query().unwrap().to_owned(), result)
}

pub fn parameter(query: &str, name: &str) -> String {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Comes back with something wrong. Answers the last page, and how many connections there were before.
async fn go_wrong(desk: &Desk, peer: &Peer, wrong: &Wrong) -> (Reply, usize) {
    let mut browser = Browser::new(desk);
    let (query, _) = consent(desk, &mut browser).await;
    let mut stored = 0;
    let reply = match wrong {
        Wrong::Answer(answer) => {
            peer.post("/-/next", &json!([answer]));
            browser.callback(&query).await
        }
        Wrong::Query(change) => browser.callback(&change(&query)).await,
        Wrong::Late => {
            desk.clock.advance(TOO_LONG);
            browser.callback(&query).await
        }
        Wrong::Elsewhere => Browser::new(desk).callback(&query).await,
        Wrong::Twice => {
            assert_eq!(browser.callback(&query).await.status, 303);
            stored = 1;
            browser.callback(&query).await
        }
        Wrong::Replayed => {
            assert_eq!(browser.callback(&query).await.status, 303);
            stored = 1;
            let (fresh, _) = consent(desk, &mut browser).await;
            let (state, code) = (parameter(&fresh, "state"), parameter(&query, "code"));
            let iss = url::form_urlencoded::byte_serialize(parameter(&fresh, "iss").as_bytes()).collect::<String>();
            browser.callback(&format!("state={state}&code={code}&iss={iss}")).await
        }
    };
    match reply.header("location").map(str::to_owned) {
        Some(place) => (browser.get(&place).await, stored),
        None => (reply, stored),
    }
}

async fn ends(desk: &Desk, (page, stored): (Reply, usize), (what, end): (&str, &End)) {
    let text = html(&page);
    let (action, detail) = desk.audit().await.pop().unwrap();
    let told = desk.activity.newest(1, |_| true).remove(0);
    let told = told.error.as_deref();
    match end {
        End::Failed(code, words) => {
            assert!(text.contains(words) && text.contains("Try again"), "{what}: {text}");
            assert_eq!(
                (action.as_str(), &detail["failure"], told),
                ("connect.end", &json!(code), Some(*code)),
                "{what}"
            );
        }
        End::Refused(reason) => {
            assert_eq!((page.status, page.code()), (400, Some("flow_unknown")), "{what}: {text}");
            assert!(text.contains("could not be completed") && text.contains("again"), "{what}: {text}");
            assert_eq!((action.as_str(), &detail["reason"]), ("connect.refused", &json!(reason)), "{what}");
            assert_eq!(told, Some(*reason), "{what}");
        }
        End::Told(reason, words) => {
            assert!(page.status == 200 && text.contains(words), "{what}: {text}");
            assert_eq!((action.as_str(), &detail["reason"]), ("connect.refused", &json!(reason)), "{what}");
            assert_eq!(told, Some(*reason), "{what}");
        }
    }
    assert_eq!(desk.records("connections").await, stored, "{what}");
    assert!(!text.contains("canary") && !text.contains("<script>alert"), "{what}: {text}");
    let written = serde_json::to_string(&desk.audit().await).unwrap();
    assert!(!written.contains("canary"), "{what}: {written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_input_ends_on_a_page_to_act_on_with_a_line_in_both_logs_and_nothing_stored() {
    let token = |value: Value| Wrong::Answer(json!({ "body": { "access_token": value } }));
    let unusable = || End::Failed("answer_unusable", "answered in a way that cannot be used");
    let cases = [
        (
            "denied consent",
            Wrong::Query(|query| format!("state={}&error=access_denied", parameter(query, "state"))),
            End::Failed("denied", "Access was not granted"),
        ),
        (
            "a state of nobody",
            Wrong::Query(|_| format!("state={}&code=c", "0".repeat(53))),
            End::Refused("state_unknown"),
        ),
        ("no state", Wrong::Query(|query| format!("code={}", parameter(query, "code"))), End::Refused("state_missing")),
        ("a used state", Wrong::Twice, End::Told("state_unknown", "is connected")),
        ("an expired state", Wrong::Late, End::Refused("state_unknown")),
        ("another browser's callback", Wrong::Elsewhere, End::Refused("other_browser")),
        ("a token that is a list", token(json!(["a", "list"])), unusable()),
        ("a token that is an object", token(json!({ "a": 1 })), unusable()),
        ("a token that is empty", token(json!("")), unusable()),
        ("no token", token(Value::Null), unusable()),
        ("a list for an answer", Wrong::Answer(json!({ "replace": [1] })), unusable()),
        ("5 MB", Wrong::Answer(json!({ "filler": 5_000_000 })), unusable()),
        ("HTML", Wrong::Answer(json!({ "text": "<html><script>alert(1)</script>Maintenance</html>" })), unusable()),
        (
            "a redirect",
            Wrong::Answer(json!({ "redirect": "http://127.0.0.1:1/elsewhere" })),
            End::Failed("misconfigured", "not set up correctly"),
        ),
        (
            "a slow answer",
            Wrong::Answer(json!({ "delay": 4_000 })),
            End::Failed("service_unreachable", "did not answer in time"),
        ),
        (
            "a fault of the service's",
            Wrong::Answer(json!({ "status": 503, "replace": { "error": "temporarily_unavailable" } })),
            End::Failed("service_fault", "Try again in a few minutes"),
        ),
        (
            "a refused code",
            Wrong::Answer(
                json!({ "status": 400, "replace": { "error": "invalid_grant", "error_description": "used" } }),
            ),
            End::Failed("code_refused", "refused to finish"),
        ),
        (
            "a client that the service does not know",
            Wrong::Answer(json!({ "status": 401, "replace": { "error": "invalid_client" } })),
            End::Failed("misconfigured", "not set up correctly"),
        ),
    ];
    for (what, wrong, end) in &cases {
        let (desk, peer) = desk(|_| (Peer::odd(&json!({})), ["/authorize", "read"])).await;
        let gone = go_wrong(&desk, &peer, wrong).await;
        ends(&desk, gone, (what, end)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_was_used_before_brings_nothing_and_the_service_is_believed() {
    let (desk, peer) = desk(|callback| {
        let client = json!({ "client_id": "app", "client_secret": "canary-secret", "redirect_uris": [callback],
            "token_endpoint_auth_method": "client_secret_post", "grant_types": ["authorization_code", "refresh_token"] });
        (Peer::oidc(&json!({ "clients": [client] })), ["/auth", "openid"])
    })
    .await;
    let gone = go_wrong(&desk, &peer, &Wrong::Replayed).await;
    ends(&desk, gone, ("a replayed code", &End::Failed("code_refused", "refused to finish"))).await;
    assert_eq!(peer.stat("/granted/authorization_code"), 1);
}
