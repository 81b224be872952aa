//! `grant: device_code` from outside: the command, the API's route and the simulated service, as processes.

use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::base::clock::SystemClock;
use trunkline::base::random::SystemRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::templates::Templates;
use trunkline::mock::{Consent, Controls, Mock, Simulated};

use crate::outside::gateway::{ADMIN_TOKEN, Deployment, Gateway};
use crate::outside::within;
use crate::support::browser::Browser;

const SCREEN: &str = "
trunkline: 1
id: screen
title: Screen
inputs: { room: { title: Room, default: den } }
auth:
  oauth2:
    grant: device_code
    device: POST https://screen.example/device
    token: https://screen.example/token
    client: { id: '${env:SHOP_KEY}', secret: '${env:SHOP_KEY}' }
    scopes:
      - { name: watch, grants: See your programmes, default: true }
    identity: { request: GET /me, id: body.id }
api: { base_url: https://screen.example, test: GET /me }
";

/// The service, simulated by a process' thread of its own.
fn screen(consent: Consent) -> SocketAddr {
    let text = SCREEN.replace("${env:SHOP_KEY}", "shop-key");
    let resolved = tree::parse(&Arc::new(PathBuf::from("screen.yaml")), &text).document.unwrap().value;
    let document = Document::unplaced("screen.yaml".into(), resolved.clone());
    let integration = compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{fault:?}"));
    let services = [Simulated { integration: Arc::new(integration), resolved }];
    let controls = Controls { consent, ..Controls::default() };
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom::default()));
    crate::mock::serve(Arc::new(Mock::new(&services, controls, clock, random)))
}

fn started(consent: Consent) -> (Deployment, Gateway) {
    let deployment = Deployment::of(&[("screen", SCREEN.to_owned())]);
    let gateway = deployment.start_simulated(screen(consent));
    (deployment, gateway)
}

/// The command that shows a code and waits.
fn command(deployment: &Deployment, more: &[&str]) -> Child {
    let mut command = deployment.command("connections");
    command.args(["connect", "screen", "--device", "--connection", "tv"]).args(more);
    command.env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_person_types_the_code_that_the_command_shows_and_it_says_that_they_are_connected() {
    let (deployment, _gateway) = started(Consent::Asked);
    let mut child = command(&deployment, &["--scope", "watch", "--input", "room=attic"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut line = |start: &str| {
        let line = lines.next().unwrap_or_else(|| panic!("no line `{start}`\n{}", deployment.log_tail()));
        line.strip_prefix(start)
            .unwrap_or_else(|| panic!("`{start}` is not at the beginning of `{line}`"))
            .trim()
            .to_owned()
    };
    let (page, code, _complete) = (line("Open"), line("Type"), line("Or"));
    let mut browser = Browser::default();
    let form = browser.open(&page);
    assert!(form.text.contains("Screen"), "{form:?}");
    browser.submit(&form, &[("user_code", &code), ("decision", "allow")]);
    assert_eq!(line("connected"), "screen/tv");
    assert!(child.wait().unwrap().success());
    assert_eq!(deployment.call("screen", "tv", "/me").unwrap().status, 200);
}

#[test]
fn a_person_who_says_no_ends_the_command_with_1_and_words() {
    let (deployment, _gateway) = started(Consent::Denied);
    let mut child = command(&deployment, &["--json"]);
    let (mut out, mut words) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{out}{words}");
    assert!(words.contains("Access was not granted"), "{words}");
    let shown: Vec<Value> = serde_json::Deserializer::from_str(&out).into_iter().map(Result::unwrap).collect();
    assert_eq!((&shown[0]["state"], &shown[1]["state"]), (&json!("started"), &json!("failed")), "{out}");
    assert_eq!(shown[1]["error"]["code"], "denied");
}

#[test]
fn the_route_gives_a_code_at_once_and_the_gateway_waits_by_itself() {
    let (deployment, _gateway) = started(Consent::Granted);
    let asked = |body: Value| deployment.ask("POST", "/api/connect-devices", &body);
    let shown = asked(json!({ "integration": "screen", "connection": "tv", "inputs": { "room": "attic" } }));
    assert_eq!((shown.status, shown.json()["state"].clone()), (201, json!("started")));
    let shown = shown.json();
    for field in ["user_code", "verification_uri", "verification_uri_complete", "expires_at", "result"] {
        assert!(shown[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {shown}");
    }
    let outcome =
        || deployment.ask("GET", &format!("/api/connect-links/{}", shown["result"].as_str().unwrap()), &Value::Null);
    assert!(within(Duration::from_mins(1), || outcome().json()["state"] == "connected"), "{}", outcome().json());
    assert_eq!(deployment.call("screen", "tv", "/me").unwrap().status, 200);
    for (body, status) in [
        (json!({ "integration": "nobody" }), 404),
        (json!({ "integration": "screen", "scopes": ["fly"] }), 400),
        (json!({ "integration": "screen", "colour": "red" }), 400),
        (json!({ "integration": "screen", "inputs": { "house": "x" } }), 400),
    ] {
        let refused = asked(body.clone());
        assert_eq!(refused.status, status, "{body}: {}", refused.json());
    }
}
