//! What a connection was granted, and endpoints that need more.

use serde_json::json;
use trunkline::definition::plan::Integration;

use super::desk::{APP, Desk};
use crate::events::station::compiled;
use crate::support::doors::{Doors, Setup};
use crate::support::origin::Recorder;
use crate::support::raw::{Reply, call};

fn definition(url: &str) -> String {
    format!(
        "trunkline: 1\nid: hub\ntitle: Hub\nauth:\n  oauth2:\n    authorize: https://hub.example/authorize\n\
         \x20   token: https://hub.example/token\n    client: {{ id: app, secret: s }}\n    scopes:\n\
         \x20     - {{ name: read, grants: See, default: true }}\n      - {{ name: write, grants: Change }}\n\
         \x20     - {{ name: admin, grants: Everything, includes: [read, write] }}\n\
         api:\n  base_url: {url}\n  endpoints:\n    - {{ id: list, request: GET /projects, scopes: [read] }}\n\
         \x20   - {{ id: change, request: POST /projects, scopes: [read, write], json: {{}} }}\n\
         connections:\n  - {{ id: given, token: canary }}\n"
    )
}

/// A door over what a person connected who was granted this.
async fn granted(origin: &Recorder, scopes: Vec<&'static str>) -> (Desk, Doors) {
    let text = definition(&origin.url());
    let desk = Desk::open_with(APP, &[&text]).await;
    desk.service.set(|manners| manners.grant = Ok(scopes));
    let (mut browser, _) = desk.departed().await;
    browser.succeed().await;
    let integration: Integration = compiled(&text);
    let doors = Doors::over(Setup::of(integration), desk.connections.clone(), None);
    (desk, doors)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_does_not_say_of_one_token_was_granted_as_asked_whatever_it_says_of_another() {
    let text = definition("http://127.0.0.1:1")
        .replace("    scopes:\n", "    scopes:\n      - { name: usr, grants: You, default: true, token: user }\n");
    let text = text.replace(
        "token: https://hub.example/token",
        "token: { request: POST https://hub.example/token, tokens: { default: { access: body.a }, user: { access: body.b } } }",
    );
    let desk = Desk::open_with(APP, &[&text]).await;
    desk.service.set(|manners| (manners.tells_scopes, manners.user_scope) = (false, Some("usr")));
    let (mut browser, made) = desk.departed().await;
    let page = browser.succeed().await.text();
    assert!(!page.contains("Not everything was granted"), "{page}");
    let connected = desk.connect.outcome(&made.result).await.unwrap().unwrap().connected.unwrap();
    assert_eq!(connected.granted, Some(vec!["read".to_owned(), "usr".to_owned()]));
}

async fn named(doors: &Doors, endpoint: &str, connection: &str) -> Reply {
    let header = format!("Trunkline-Connection: {connection}\r\n");
    call(doors.proxy, &format!("POST /hub/-/{endpoint}"), &header, "{}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_needs_more_than_was_granted_is_refused_without_a_call() {
    let origin = Recorder::start().await;
    let (_desk, doors) = granted(&origin, vec!["read"]).await;
    let refused = named(&doors, "change", "acme").await;
    assert_eq!((refused.status, refused.code()), (403, Some("scope_missing")), "{}", refused.text());
    let told = refused.json();
    assert!(
        told["detail"].as_str().unwrap().contains("was not granted `write`, which the endpoint `change`"),
        "{told}"
    );
    let help = told["help"].as_str().unwrap();
    let wanted = json!({ "integration": "hub", "connection": "acme", "scopes": ["read", "write"] });
    assert!(help.contains("/api/connect-links") && help.contains(&wanted.to_string()), "{told}");
    // The path of the endpoint needs what the endpoint needs, however it is written.
    for (line, status) in [("POST /hub/projects", 403), ("POST /hub/%70rojects/", 403), ("GET /hub/projects", 200)] {
        let reply = call(doors.proxy, line, "Trunkline-Connection: acme\r\n", "{}").await;
        assert_eq!(reply.status, status, "{line}: {}", reply.text());
        assert_eq!(reply.code(), (status == 403).then_some("scope_missing"), "{line}");
    }
    // Nor is such a call taken in to be carried out later.
    for line in ["POST /hub/projects", "POST /hub/-/change"] {
        let reply = call(doors.proxy, line, "Trunkline-Connection: acme\r\nTrunkline-Async: true\r\n", "{}").await;
        assert_eq!((reply.status, reply.code()), (403, Some("scope_missing")), "{line}: {}", reply.text());
    }
    assert_eq!(origin.all().len(), 1);
    assert_eq!(named(&doors, "list", "acme").await.status, 200);
    assert_eq!(origin.all().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_includes_others_stands_for_them() {
    let origin = Recorder::start().await;
    let (_desk, doors) = granted(&origin, vec!["admin"]).await;
    for endpoint in ["list", "change"] {
        assert_eq!(named(&doors, endpoint, "acme").await.status, 200, "{endpoint}");
    }
    assert_eq!(origin.all().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_which_nobody_knows_what_it_was_granted_is_the_services_to_judge() {
    let origin = Recorder::start().await;
    let (_desk, doors) = granted(&origin, vec!["read"]).await;
    assert_eq!(named(&doors, "change", "given").await.status, 200);
    assert_eq!(origin.all().len(), 1);
}
