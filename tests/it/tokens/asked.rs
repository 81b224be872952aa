//! Where a person is sent, what an issuer tells, and what is asked once there are tokens.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::connection::flow::{Authorization, Discovered, Who};
use trunkline::connection::grant::{Issued, TokenErrorKind};

use super::client;
use super::granted::{assertion, claims, param};
use super::world::{World, at, body, header, held, world, world_with};
use crate::calls::service::{Answer, Service};

const REDIRECT: &str = "https://gateway.example/api/auth/callback/svc";

async fn silent() -> Service {
    Service::start(|_| Answer::json(500, "{}")).await
}

async fn sent_to(world: &World, scopes: &[&str], challenge: Option<&str>) -> Result<String, String> {
    let scopes: Vec<String> = scopes.iter().map(ToString::to_string).collect();
    let ask = Authorization { state: "st/1", redirect_uri: REDIRECT, scopes: &scopes, challenge };
    world.calls.authorize_url(world.account(), ask).await.map_err(|error| error.to_string())
}

fn tokens(entries: &[(&str, Issued)]) -> BTreeMap<Arc<str>, Issued> {
    entries.iter().map(|(name, token)| (Arc::from(*name), token.copy())).collect()
}

#[tokio::test]
async fn a_person_is_sent_with_what_the_rfcs_ask_for() {
    let service = silent().await;
    let scopes = json!([
        { "name": "chat:write", "grants": "W" }, { "name": "read", "grants": "R" },
        { "name": "identify", "grants": "I", "token": "user" },
    ]);
    let oauth2 = json!({
        "authorize": { "url": "SVC/auth?v=2", "params": { "user_scope": "{{ scopes.user | join(',') }}", "prompt": "consent" } },
        "token": "SVC/token", "client": client(), "scopes": scopes, "resource": ["https://a.example/"],
    });
    let world = world(&service, &oauth2);
    let url = sent_to(&world, &["chat:write", "read", "unknown"], Some("ch")).await.unwrap();
    let redirect = "https%3A%2F%2Fgateway.example%2Fapi%2Fauth%2Fcallback%2Fsvc";
    let expected = format!(
        "{}?v=2&response_type=code&client_id=app&redirect_uri={redirect}&scope=chat%3Awrite%20read&state=st%2F1\
         &code_challenge=ch&code_challenge_method=S256&resource=https%3A%2F%2Fa.example%2F&prompt=consent",
        at(&service, "/auth")
    );
    assert_eq!(url, expected);
    let url = sent_to(&world, &["identify"], Some("ch")).await.unwrap();
    assert!(url.contains("&user_scope=identify&") && !url.contains("&scope="), "{url}");
    let error = sent_to(&world, &["read"], None).await.unwrap_err();
    assert!(error.contains("without a PKCE challenge"), "{error}");
    assert_eq!(service.connections(), 0);
}

#[tokio::test]
async fn quirks_of_the_address_are_kept() {
    let service = silent().await;
    let oauth2 = json!({
        "authorize": {
            "url": "SVC/auth", "params": { "state": "{{ state }}.x", "empty": "", "none": "{{ none }}" }, "scope_separator": "+",
            "raw_scope": true, "rename": { "client_id": "client_key" }, "omit": ["response_type"], "fragment": "wechat redirect",
        },
        "token": "SVC/token", "client": client(), "pkce": { "off": "the service refuses it" },
        "scopes": [{ "name": "a:read", "grants": "A" }, { "name": "b&c", "grants": "B" }],
    });
    let url = sent_to(&world(&service, &oauth2), &["a:read", "b&c"], None).await.unwrap();
    let expected = format!(
        "{}?client_key=app&redirect_uri=https%3A%2F%2Fgateway.example%2Fapi%2Fauth%2Fcallback%2Fsvc&state=st%2F1.x\
         &scope=a:read+b%26c#wechat%20redirect",
        at(&service, "/auth")
    );
    assert_eq!(url, expected);
}

#[tokio::test]
async fn a_person_is_sent_nowhere_else() {
    let service = silent().await;
    let oauth2 = json!({ "authorize": "https://{{ input.host }}/auth", "token": "SVC/token", "client": client() });
    let mut world = world_with(&service, &oauth2, &json!({ "inputs": { "host": {} } }));
    world.inputs = json!({ "host": "evil.example" }).as_object().unwrap().clone();
    assert!(sent_to(&world, &[], Some("ch")).await.unwrap_err().contains("not among the hosts"));
}

/// An issuer that tells its addresses under the second of the two places.
async fn issuer(name: impl Fn(&str) -> String + Send + Sync + 'static) -> Service {
    Service::start(move |request| {
        let host = header(request, "host").unwrap();
        if request.starts_with("GET /.well-known/oauth-authorization-server/tenant ") {
            let metadata = json!({
                "issuer": name(host), "authorization_endpoint": format!("http://{host}/auth"),
                "token_endpoint": format!("http://{host}/token"), "revocation_endpoint": format!("http://{host}/revoke"),
                "authorization_response_iss_parameter_supported": true,
            });
            return Answer::json(200, &metadata.to_string());
        }
        if request.starts_with("POST /") { Answer::json(200, r#"{"access_token":"at"}"#) } else { Answer::of(404, &[], "") }
    })
    .await
}

#[tokio::test]
async fn an_issuer_tells_what_is_not_written() {
    let service = issuer(|host| format!("http://{host}/tenant")).await;
    let world = world(&service, &json!({ "issuer": "SVC/tenant", "client": client() }));
    let url = sent_to(&world, &[], Some("ch")).await.unwrap();
    assert!(url.starts_with(&at(&service, "/auth?response_type=code&")), "{url}");
    assert_eq!(super::world::pair(&world.code().await.unwrap(), "default").0, "at");
    let issuer = world.calls.issuer(world.account()).await.unwrap().unwrap();
    assert_eq!((issuer.id, issuer.always_sent), (at(&service, "/tenant"), true));
    let revoked = world.calls.revoke(world.account(), &tokens(&[("default", held("at", Some("rt")))])).await;
    assert_eq!(revoked, Ok(true));
    let lines: Vec<String> = service.seen().iter().map(|request| request.lines().next().unwrap().to_owned()).collect();
    let expected = [
        "GET /tenant/.well-known/openid-configuration HTTP/1.1",
        "GET /.well-known/oauth-authorization-server/tenant HTTP/1.1",
        "POST /token HTTP/1.1",
        "POST /revoke HTTP/1.1",
    ];
    assert_eq!(lines, expected, "metadata are fetched once");
    assert!(
        body(&service.seen()[3]).starts_with("token=rt&token_type_hint=refresh_token&client_id=app&client_secret=")
    );
}

#[tokio::test]
async fn an_issuer_that_names_another_is_not_believed() {
    let service = issuer(|host| format!("http://{host}/tenant/")).await;
    let world = world(&service, &json!({ "issuer": "SVC/tenant", "client": client() }));
    let error = world.code().await.unwrap_err();
    assert_eq!(error.kind, TokenErrorKind::Misconfigured);
    assert!(error.to_string().contains("name another issuer"), "{error}");
    assert!(service.seen().iter().all(|request| request.starts_with("GET /")), "nothing was sent to its addresses");
}

/// An issuer whose metadata say that token calls go there; `ISSUER` stands for itself.
async fn issuer_with(token_endpoint: &'static str) -> Service {
    Service::start(move |request| {
        let issuer = format!("http://{}", header(request, "host").unwrap());
        let token = token_endpoint.replace("ISSUER", &issuer);
        Answer::json(200, &json!({ "issuer": issuer, "token_endpoint": token }).to_string())
    })
    .await
}

#[tokio::test]
async fn what_is_secret_goes_only_to_the_issuers_host_and_to_those_that_the_definition_names() {
    let oauth2 = json!({ "issuer": "SVC", "client": client() });
    let service = issuer_with("ISSUER/{{ client.secret }}").await;
    let error = world(&service, &oauth2).code().await.unwrap_err();
    assert!(error.to_string().contains("has braces in it"), "{error}");
    let service = issuer_with("https://169.254.169.254/token").await;
    let error = world(&service, &oauth2).code().await.unwrap_err().to_string();
    assert!(
        error.contains("`token_endpoint` is at `https://169.254.169.254`") && error.contains("`api.hosts`"),
        "{error}"
    );
    assert!(service.seen().iter().all(|request| request.starts_with("GET /")), "nothing but metadata was asked for");
    let api =
        json!({ "api": { "base_url": "https://api.example", "allow_plain_http": true, "hosts": ["169.254.169.254"] } });
    let error = world_with(&service, &oauth2, &api).code().await.unwrap_err();
    assert!(error.to_string().contains("must not be dialled"), "what is named is guarded like everything: {error}");
    let service = issuer_with("http://127.0.0.1:9/token").await;
    let error = world(&service, &oauth2).code().await.unwrap_err().to_string();
    assert!(error.contains("is at `http://127.0.0.1:9`"), "another port is another service: {error}");
}

#[tokio::test]
async fn a_token_tells_whose_account_it_is() {
    let service = Service::start(|_| Answer::json(200, r#"{"ok":true,"user":{"id":7,"name":"Ada"}}"#)).await;
    let identity = json!({ "request": "GET /me", "save": { "ok": "body.ok", "gone": "body.gone" }, "id": "body.user.id",
        "name": "body.user.name", "email": "body.user.mail" });
    let world = world(&service, &json!({ "identity": identity, "client": client() }));
    let who = world.calls.identity(world.account(), &tokens(&[("default", held("at", None))])).await.unwrap();
    let saved = json!({ "ok": true }).as_object().cloned().unwrap();
    assert_eq!(who, Some(Who { id: "7".to_owned(), name: Some("Ada".to_owned()), email: None, saved }));
    let request = service.seen().remove(0);
    assert!(request.starts_with("GET /api/me ") && header(&request, "authorization") == Some("Bearer at"), "{request}");
}

#[tokio::test]
async fn what_the_service_tells_of_the_account_is_shown_without_what_it_was_asked_with() {
    let service = Service::start(|request| {
        if request.starts_with("GET /sites ") {
            return Answer::json(200, r#"[{"id":"canary/1"},{"id":"s2","name":"Two canary%2F1 canary-at"}]"#);
        }
        Answer::json(200, r#"{"id":"12345678","name":"Ada 12345678:canary-at","mail":"canary%2F1@ada.example"}"#)
    })
    .await;
    let identity = json!({ "request": "GET /me", "id": "body.id", "name": "body.name", "email": "body.mail" });
    let discover = json!([{ "request": "GET SVC/sites", "choices": "body", "label": "choice.name", "set": { "site": "choice.id" } }]);
    let client = json!({ "id": "app", "secret": "canary/1" });
    let world = world(&service, &json!({ "identity": identity, "discover": discover, "client": client }));
    // Its tokens begin with the account's id, which stays.
    let tokens = tokens(&[("default", held("12345678:canary-at", Some("canary-at")))]);
    let who = world.calls.identity(world.account(), &tokens).await.unwrap().unwrap();
    assert_eq!((who.id.as_str(), who.name.as_deref()), ("12345678", Some("Ada [redacted]")));
    assert_eq!(who.email.as_deref(), Some("[redacted]@ada.example"));
    let found = world.calls.discover(world.account(), &tokens, 0).await.unwrap();
    let Discovered::Several { choices, .. } = found else { panic!("{found:?}") };
    let labels: Vec<_> = choices.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["[redacted]", "Two [redacted] [redacted]"]);
}

#[tokio::test]
async fn a_refused_token_is_told_from_an_answer_of_another_kind() {
    let identity = json!({ "request": "GET /me", "id": "body.id" });
    let ask = async |status, body: &'static str| {
        let service = Service::start(move |_| Answer::json(status, body)).await;
        let world = world(&service, &json!({ "identity": identity, "client": client() }));
        world.calls.identity(world.account(), &tokens(&[("default", held("canary-at", None))])).await.unwrap_err()
    };
    let error = ask(401, r#"{"error":"no canary-at"}"#).await;
    assert_eq!(
        (error.kind, error.status, error.code.as_deref()),
        (TokenErrorKind::Permanent, Some(401), Some("no [redacted]"))
    );
    let error = ask(200, "{}").await;
    assert!(error.to_string().contains("it has no id at `body.id`"), "{error}");
    assert_eq!(ask(503, "{}").await.kind, TokenErrorKind::Passing);
}

fn sites() -> Value {
    json!([
        {
            "request": "GET SVC/sites", "choices": "body", "label": "choice.name ~ ' (' ~ choice.url ~ ')'",
            "set": { "cloud_id": "choice.id" }, "save": { "seen": "status" },
        },
        { "request": "GET SVC/sites/{{ saved.cloud_id }}/me", "set": { "user": "choice.user" } },
    ])
}

#[tokio::test]
async fn one_site_is_taken_and_of_several_a_person_chooses() {
    let service = Service::start(|request| {
        let one = r#"[{"id":"s1","name":"One","url":"one.example"}]"#;
        let two = r#"[{"id":"s1","name":"One","url":"one.example"},{"id":"s2","name":"Two","url":"two.example"}]"#;
        match header(request, "authorization") {
            _ if request.contains("/me ") => Answer::json(200, r#"{"user":"u1"}"#),
            Some("Bearer one") => Answer::json(200, one),
            Some("Bearer two") => Answer::json(200, two),
            _ => Answer::json(200, "[]"),
        }
    })
    .await;
    let mut world = world(&service, &json!({ "discover": sites(), "client": client() }));
    let token = |access| tokens(&[("default", held(access, None))]);
    let found = world.calls.discover(world.account(), &token("one"), 0).await.unwrap();
    let kept = |value: Value| value.as_object().unwrap().clone();
    assert_eq!(found, Discovered::Settled(kept(json!({ "cloud_id": "s1", "seen": 200, "user": "u1" }))));
    assert!(service.seen()[1].starts_with("GET /sites/s1/me "));
    assert_eq!(world.calls.discover(world.account(), &token("none"), 0).await.unwrap(), Discovered::Nothing);
    let several = world.calls.discover(world.account(), &token("two"), 0).await.unwrap();
    let Discovered::Several { next, choices, .. } = several else { panic!("{several:?}") };
    assert_eq!((next, choices[1].0.as_str()), (1, "Two (two.example)"));
    world.saved = choices[1].1.clone();
    let rest = world.calls.discover(world.account(), &token("two"), next).await.unwrap();
    assert_eq!(rest, Discovered::Settled(kept(json!({ "user": "u1" }))));
    assert!(service.seen().last().unwrap().starts_with("GET /sites/s2/me "));
}

#[tokio::test]
async fn a_choice_without_what_is_kept_of_it_cannot_be_chosen() {
    let ask = async |body: &'static str| {
        let service = Service::start(move |_| Answer::json(200, body)).await;
        let discover = json!([{ "request": "GET SVC/sites", "choices": "body", "set": { "site": "choice.id" } }]);
        let world = world(&service, &json!({ "discover": discover, "client": client() }));
        world.calls.discover(world.account(), &tokens(&[("default", held("at", None))]), 0).await
    };
    let error = ask(r#"[{"name":"x"},{"name":"y"}]"#).await.unwrap_err();
    assert!(error.to_string().contains("a choice has no `site` at `choice.id`"), "{error}");
    let settled = Discovered::Settled(json!({ "site": "a" }).as_object().unwrap().clone());
    assert_eq!(ask(r#"[{"id":"a"},{"name":"y"}]"#).await.unwrap(), settled);
}

#[tokio::test]
async fn each_token_is_taken_back_on_its_own() {
    let service = Service::start(|request| {
        if header(request, "authorization") == Some("Bearer gone") {
            Answer::json(401, "{}")
        } else {
            Answer::json(200, "{}")
        }
    })
    .await;
    let world = world(&service, &json!({ "revoke": "POST SVC/revoke", "client": client() }));
    let two = tokens(&[("default", held("bot", None)), ("user", held("gone", None))]);
    assert_eq!(
        world.calls.revoke(world.account(), &two).await,
        Ok(true),
        "one that does not work is taken back already"
    );
    let carried: Vec<_> =
        service.seen().iter().map(|request| header(request, "authorization").unwrap().to_owned()).collect();
    assert_eq!(carried, ["Bearer bot", "Bearer gone"]);
}

#[tokio::test]
async fn a_revocation_may_prove_who_the_application_is() {
    let service = Service::start(|_| Answer::of(204, &[], "")).await;
    let revoke = json!({
        "request": "DELETE SVC/applications/{{ client.id }}/grant", "credential": "client",
        "json": { "access_token": "{{ token.access }}" }, "ok": "status in [204, 404]",
    });
    let world = world(&service, &json!({ "revoke": revoke, "client": { "id": "app", "secret": "canary" } }));
    let one = tokens(&[("default", held("at", None))]);
    assert_eq!(world.calls.revoke(world.account(), &one).await, Ok(true));
    let request = service.seen().remove(0);
    assert!(request.starts_with("DELETE /applications/app/grant "), "{request}");
    assert_eq!(header(&request, "authorization"), Some("Basic YXBwOmNhbmFyeQ=="));
    assert_eq!(body(&request), r#"{"access_token":"at"}"#);
}

#[tokio::test]
async fn an_application_that_signs_assertions_takes_tokens_back_by_one() {
    let service = Service::start(|_| Answer::json(200, "{}")).await;
    let oauth2 = json!({
        "client_auth": "private_key_jwt", "client": { "id": "app" }, "assertion": assertion(&json!({})),
        "revoke": { "request": "POST SVC/revoke", "credential": "client", "form": { "token": "{{ token.access }}" } },
    });
    let world = world(&service, &oauth2);
    assert_eq!(world.calls.revoke(world.account(), &tokens(&[("default", held("at", None))])).await, Ok(true));
    let request = service.seen().remove(0);
    assert_eq!(header(&request, "authorization"), None, "there is no secret to show");
    let sent = |name| param(&request, name).unwrap_or_default();
    assert_eq!((sent("token"), sent("client_id")), ("at".to_owned(), "app".to_owned()));
    assert_eq!(sent("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    let told = claims(&sent("client_assertion"));
    assert_eq!([&told["iss"], &told["sub"]], ["app", "app"]);
    assert_eq!(told["aud"], json!(at(&service, "/revoke")));
}

#[tokio::test]
async fn a_refused_application_is_told_from_a_token_that_is_gone_whatever_its_secret_looks_like() {
    let service = Service::start(|_| Answer::json(401, r#"{"error":"invalid_client"}"#)).await;
    let client = json!({ "id": "app", "secret": "client-secret-value-1" });
    let world = world(&service, &json!({ "revoke": "POST SVC/revoke", "client": client }));
    let error = world.calls.revoke(world.account(), &tokens(&[("default", held("at", None))])).await.unwrap_err();
    assert_eq!((error.status, error.code.as_deref()), (Some(401), Some("invalid_client")));
}

#[tokio::test]
async fn where_nothing_says_how_nothing_is_taken_back() {
    let service = silent().await;
    let world = world(&service, &json!({ "token": "SVC/token", "client": client() }));
    let one = tokens(&[("default", held("at", None))]);
    assert_eq!(world.calls.revoke(world.account(), &one).await, Ok(false));
    assert_eq!(world.calls.identity(world.account(), &one).await, Ok(None));
}
