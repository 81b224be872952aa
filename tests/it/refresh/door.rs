//! A service that refuses a token, behind the proxy door: renewed once, tried once more where that is safe.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::io::AsyncWriteExt as _;
use trunkline::connection::{Neighbours, Refresher, Use};
use trunkline::definition::plan::api::{Api, Endpoint, Errors, PathPattern, Placement, Transform};
use trunkline::definition::plan::request::CredentialUse;
use trunkline::template::Text;

use super::world::World;
use crate::calls::world::request;
use crate::support::doors::{Doors, Setup, service};
use crate::support::origin::{Seen, read_request, serve};
use crate::support::raw::{Reply, call};

/// A service that answers 401 to tokens it does not like, and keeps what it got.
#[derive(Clone, Default)]
struct Picky {
    refused: Arc<Mutex<HashSet<String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Picky {
    async fn start(&self) -> String {
        let picky = self.clone();
        let address = serve(move |mut stream| {
            let picky = picky.clone();
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let refused =
                        picky.refused.lock().unwrap().iter().any(|token| request.head.contains(token.as_str()));
                    picky.seen.lock().unwrap().push(request);
                    let status = if refused { "401 Unauthorized" } else { "200 OK" };
                    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        format!("http://{address}")
    }

    fn refuse(&self, token: &str) {
        self.refused.lock().unwrap().insert(token.to_owned());
    }

    /// The tokens and the sizes of the bodies of the requests since this was last asked.
    fn took(&self) -> Vec<(String, usize)> {
        let seen: Vec<Seen> = self.seen.lock().unwrap().drain(..).collect();
        let token = |seen: &Seen| {
            let carried = [seen.all("authorization"), seen.all("x-none")].concat();
            let in_query = seen.first_line().split("key=").nth(1).and_then(|rest| rest.split(' ').next());
            carried.first().copied().or(in_query).unwrap_or("none").to_owned()
        };
        seen.iter().map(|seen| (token(seen), seen.body.len())).collect()
    }
}

struct Scene {
    world: World,
    doors: Doors,
    picky: Picky,
    /// The world's process; the doors hold it as well.
    _refresher: Arc<Refresher>,
}

impl Scene {
    async fn of(seed: u64, change: impl FnOnce(&mut Api)) -> Self {
        let (world, picky) = (World::new(seed).await, Picky::default());
        let mut integration = service(&picky.start().await);
        integration.connections.clear();
        let api = integration.api.as_mut().unwrap();
        api.credential = Placement::Bearer;
        change(api);
        let refresher = world.process(Neighbours::None);
        let doors = Doors::over(Setup::of(integration), world.connections().clone(), Some(refresher.clone()));
        Self { world, doors, picky, _refresher: refresher }
    }

    /// A call that names a token.
    async fn call_as(&self, token: &str, first_line: &str) -> Reply {
        call(self.doors.proxy, first_line, &format!("Trunkline-Connection: team\r\nTrunkline-Token: {token}\r\n"), "")
            .await
    }

    async fn call(&self, first_line: &str, body: &str) -> Reply {
        call(self.doors.proxy, first_line, "Trunkline-Connection: team\r\n", body).await
    }

    /// A token that is old enough to be the reason of a refusal is refused from now on.
    fn refuse(&self, token: &str) {
        self.world.clock.advance(Duration::from_mins(10));
        self.picky.refuse(token);
    }
}

fn took(of: &[(&str, usize)]) -> Vec<(String, usize)> {
    of.iter().map(|(token, size)| ((*token).to_owned(), *size)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_may_be_repeated_is_made_once_more_with_a_new_token() {
    let scene = Scene::of(21, |_| {}).await;
    scene.refuse("Bearer a0");
    assert_eq!(scene.call("GET /svc/a", "").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a0", 0), ("Bearer a1", 0)]));
    scene.refuse("Bearer a1");
    let body = "x".repeat(60_000);
    assert_eq!(scene.call("PUT /svc/a", &body).await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1", 60_000), ("Bearer a2", 60_000)]));
    assert_eq!(scene.world.provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_or_cannot_be_repeated_passes_and_the_next_call_has_a_new_token() {
    let scene = Scene::of(22, |_| {}).await;
    scene.refuse("Bearer a0");
    let reply = scene.call("POST /svc/a", "hello").await;
    assert_eq!((reply.status, reply.header("trunkline-error")), (401, None), "it is the service's own answer");
    assert_eq!(scene.picky.took(), took(&[("Bearer a0", 5)]));
    assert_eq!(scene.call("POST /svc/a", "hello").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1", 5)]));
    scene.refuse("Bearer a1");
    let large = "x".repeat(200_000);
    assert_eq!(scene.call("PUT /svc/a", &large).await.status, 401, "its body is held no longer");
    assert_eq!(scene.picky.took(), took(&[("Bearer a1", 200_000)]));
    assert_eq!(scene.call("PUT /svc/a", &large).await.status, 200);
    assert_eq!(scene.world.provider.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_refuses_every_token_is_tried_twice_and_its_refusal_passes() {
    let scene = Scene::of(23, |_| {}).await;
    scene.refuse("Bearer a");
    for _ in 0..20 {
        assert_eq!(scene.call("GET /svc/a", "").await.status, 401);
    }
    assert_eq!(scene.picky.took().len(), 21);
    assert_eq!(scene.world.provider.calls(), 1, "a token that was only just issued is not the reason");
    assert_eq!(scene.world.health().await.status().word(), "warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_in_the_query_is_replaced_where_it_stands() {
    let scene = Scene::of(24, |api| {
        let value = Text::compile("{{ token.access }}").unwrap();
        api.credential = Placement::Query { name: "key".to_owned(), value };
    })
    .await;
    scene.refuse("key=a0");
    assert_eq!(scene.call("GET /svc/a?b=key", "").await.status, 200);
    let seen = scene.picky.seen.lock().unwrap().clone();
    let lines: Vec<_> = seen.iter().map(Seen::first_line).collect();
    assert_eq!(lines, ["GET /a?b=key&key=a0 HTTP/1.1", "GET /a?b=key&key=a1 HTTP/1.1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_calls_do_the_same() {
    let scene = Scene::of(25, |api| {
        let endpoint = |id: &str, method: Method| Endpoint {
            id: Arc::from(id),
            pattern: PathPattern { method: method.clone(), segments: vec![Some("a".into())] },
            request: request(method, "/a"),
            scopes: Vec::new(),
            retry: None,
            transform: None,
            cache: None,
            page: None,
        };
        api.endpoints = vec![endpoint("read", Method::GET), endpoint("write", Method::POST)];
    })
    .await;
    scene.refuse("Bearer a0");
    assert_eq!(scene.call("POST /svc/-/read", "{}").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a0", 0), ("Bearer a1", 0)]));
    scene.refuse("Bearer a1");
    assert_eq!(scene.call("POST /svc/-/write", "{}").await.code(), Some("service_refused"));
    assert_eq!(scene.picky.took(), took(&[("Bearer a1", 0)]));
    assert_eq!(scene.call("POST /svc/-/write", "{}").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a2", 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_asks_for_a_token_that_lasts_and_is_told_what_stands_in_the_way() {
    let scene = Scene::of(26, |_| {}).await;
    let ask = |validity: &str| {
        let headers = format!("Trunkline-Connection: team\r\nTrunkline-Min-Validity: {validity}\r\n");
        let door = scene.doors.proxy;
        async move { call(door, "GET /svc/a", &headers, "").await }
    };
    assert_eq!(ask("soon").await.code(), Some("invalid_input"));
    scene.world.clock.advance(Duration::from_mins(56));
    assert_eq!((ask("3m").await.status, scene.world.provider.calls()), (200, 0));
    assert_eq!((ask("5m").await.status, scene.world.provider.calls()), (200, 1));
    assert!(scene.picky.seen.lock().unwrap().iter().all(|seen| seen.all("trunkline-min-validity").is_empty()));
    scene.world.connections().set_use("operator", "svc", "team", Use::Paused).await.unwrap();
    assert_eq!(ask("0s").await.code(), Some("connection_paused"));
    scene.world.connections().set_use("operator", "svc", "team", Use::Resumed).await.unwrap();
    scene.world.provider.revoke();
    scene.world.clock.advance(Duration::from_hours(2));
    let reply = ask("0s").await;
    assert_eq!((reply.status, reply.code()), (503, Some("connection_needs_reconnect")));
    assert!(reply.text().contains("the token was revoked"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_token_is_renewed_after_a_refusal_and_ahead_of_its_end_and_the_default_one_is_left_alone() {
    let scene = Scene::of(41, |_| {}).await;
    scene.world.connect_second("user", 1_000).await;
    assert_eq!(scene.call_as("user", "GET /svc/a").await.status, 200);
    assert_eq!(scene.call_as("default", "GET /svc/a").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1000", 0), ("Bearer a0", 0)]));
    scene.refuse("Bearer a1000");
    assert_eq!(scene.call_as("user", "GET /svc/a").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1000", 0), ("Bearer a1001", 0)]));
    // What a POST carries is the same, and is not repeated.
    scene.refuse("Bearer a1001");
    assert_eq!(scene.call_as("user", "POST /svc/a").await.status, 401);
    assert_eq!(scene.call_as("user", "POST /svc/a").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1001", 0), ("Bearer a1002", 0)]));
    // Near its end it is renewed before the call.
    scene.world.clock.advance(Duration::from_secs(3_598));
    assert_eq!(scene.call_as("user", "GET /svc/a").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a1003", 0)]));
    assert_eq!(scene.world.provider.calls(), 3);
    assert!(scene.world.stored().await.0 == "a0", "the default token was renewed as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_there_is_not_is_refused_and_no_other_is_sent() {
    let scene = Scene::of(42, |_| {}).await;
    let cases = [
        ("bot", "GET /svc/a", "connection_unusable"),
        ("token_secret", "GET /svc/a", "connection_unusable"),
        ("", "GET /svc/a", "invalid_input"),
        ("user", "POST /svc/-/anything", "invalid_input"),
    ];
    for (token, line, code) in cases {
        let refused = scene.call_as(token, line).await;
        assert_eq!(refused.code(), Some(code), "{token} {line}: {refused:?}");
    }
    assert!(scene.picky.took().is_empty());
}

/// All pages of a collection carry the token that the call names.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_all_pages_carries_the_token_that_it_names() {
    let scene = Scene::of(43, |api| api.endpoints = vec![crate::pages::items()]).await;
    scene.world.connect_second("user", 1_000).await;
    scene.call_as("user", "GET /svc/items?trunkline-page=all").await;
    assert_eq!(scene.picky.took(), took(&[("Bearer a1000", 0)]));
}

/// An endpoint that is reached by its path carries the token that the call names, whatever token its own definition
/// says it carries when it is run by name.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_with_a_transform_carries_the_token_that_the_call_names() {
    let scene = Scene::of(44, |api| {
        let mut endpoint = crate::pages::items();
        endpoint.page = None;
        endpoint.request.credential = CredentialUse::Token(Some("user".to_owned()));
        endpoint.transform = Some(Transform { request: None, response: None, errors: Errors::Pass, max_body: 1_000 });
        api.endpoints = vec![endpoint];
    })
    .await;
    scene.world.connect_second("user", 1_000).await;
    assert_eq!(scene.call("GET /svc/items", "").await.status, 200);
    assert_eq!(scene.call_as("user", "GET /svc/items").await.status, 200);
    assert_eq!(scene.call("POST /svc/-/items", "{}").await.status, 200);
    assert_eq!(scene.picky.took(), took(&[("Bearer a0", 0), ("Bearer a1000", 0), ("Bearer a1000", 0)]));
}
