//! Applications that register themselves, from outside: the command and the API over the simulated service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use trunkline::base::clock::SystemClock;
use trunkline::base::random::SystemRandom;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::templates::Templates;
use trunkline::mock::{Controls, Mock, Simulated};

use crate::outside::gateway::{ADMIN_TOKEN, Deployment};

const HUB: &str = "
trunkline: 1
id: hub
title: Hub
auth:
  oauth2:
    authorize: https://hub.example/authorize
    token: https://hub.example/token
    client_auth: basic
    registration: { url: https://hub.example/register, metadata: { client_name: Ours } }
api: { base_url: https://hub.example, test: GET /me }
";
const KEYED: &str = "
trunkline: 1
id: keyed
auth: { api_key: {} }
api: { base_url: https://keyed.example, credential: { header: X-Key, value: \"{{ api_key }}\" } }
";

fn hub() -> SocketAddr {
    let resolved = tree::parse(&Arc::new(PathBuf::from("hub.yaml")), HUB).document.unwrap().value;
    let document = Document::unplaced("hub.yaml".into(), resolved.clone());
    let integration = compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{fault:?}"));
    let services = [Simulated { integration: Arc::new(integration), resolved }];
    let (clock, random) = (Arc::new(SystemClock::new()), Arc::new(SystemRandom::default()));
    crate::mock::serve(Arc::new(Mock::new(&services, Controls::default(), clock, random)))
}

#[test]
fn a_registration_is_made_shown_and_forgotten_by_command_and_api() {
    let deployment = Deployment::of(&[("hub", HUB.to_owned()), ("keyed", KEYED.to_owned())]);
    let gateway = deployment.start_simulated(hub());
    let run = |arguments: &[&str]| {
        let mut command = deployment.command("registrations");
        let ended = command.args(arguments).env("TRUNKLINE_ADMIN_TOKEN", ADMIN_TOKEN).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (ended.status.code(), text(ended.stdout), text(ended.stderr))
    };
    let (code, made, words) = run(&["make", "hub", "--json"]);
    assert_eq!(code, Some(0), "{made}{words}{}", deployment.log_tail());
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made[0]["client_id"].as_str().unwrap();
    assert_eq!((&made[0]["state"], &made[0]["revocable"]), (&json!("registered"), &json!(true)));
    assert!(made[0]["redirect_uri"].as_str().unwrap().ends_with("/api/auth/callback/hub"), "{made}");
    // Once, and kept over a restart.
    assert_eq!(run(&["make", "hub"]).0, Some(0));
    gateway.kill();
    let _gateway = deployment.start_simulated(hub());
    let (code, listed, _) = run(&["list"]);
    assert!(code == Some(0) && listed.contains(id) && listed.lines().count() == 2, "{listed}");
    let (code, _, words) = run(&["make", "keyed"]);
    assert!(code == Some(1) && words.contains("has no `registration`"), "{words}");
    // This simulated service was started anew, and does not know the application: it is forgotten all the same.
    let (code, forgotten, words) = run(&["forget", "hub"]);
    assert!(
        code == Some(0) && forgotten.contains(id) && forgotten.contains("forgotten it as well"),
        "{forgotten}{words}"
    );
    let again = deployment.ask("DELETE", "/api/integrations/hub/registration", &Value::Null);
    assert_eq!(again.status, 404);
    assert_eq!(deployment.ask("GET", "/api/registrations", &Value::Null).json(), json!([]));
    // With the service that knows it: made by the API, forgotten there by RFC 7592.
    let made = deployment.ask("POST", "/api/integrations/hub/registration", &Value::Null);
    assert_eq!((made.status, made.json()[0]["state"].clone()), (200, json!("registered")));
    let forgotten = deployment.ask("DELETE", "/api/integrations/hub/registration?force=true", &Value::Null);
    assert_eq!(forgotten.json()[0]["service"], "deleted");
}
