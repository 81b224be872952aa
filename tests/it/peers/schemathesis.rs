//! The API as schemathesis sees it: what it answers to thousands of requests made of its own document, right ones and
//! wrong ones, is what the document says.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use trunkline::admin::api::document;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;
use crate::support::peer::installed;

/// Requests for one operation that are made of its types; more are made of their edges.
const EXAMPLES: &str = "20";
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance";

/// What there is to be asked for, so that not every id is one that is not there.
struct Known {
    main: Value,
    spare: Value,
    gone: Value,
    event: Value,
    webhooks: [Value; 2],
    activity: Value,
    link: Value,
    /// One to look at, one to run, one to cancel.
    replays: [Value; 3],
}

fn ask(client: &mut Client, method: &str, target: &str, body: &Value) -> Value {
    let reply = client.send(method, target, &[("content-type", "application/json")], body.to_string().as_bytes());
    let reply = reply.unwrap();
    assert!(reply.status < 300, "{method} {target}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
    reply.json()
}

impl Known {
    fn prepare(deployment: &Deployment) -> Self {
        let mut door = Client::new(deployment.admin);
        let mut save = |integration: &str, name: &str, credential: Value| {
            let draft = json!({ "integration": integration, "connection": name, "credential": credential });
            ask(&mut door, "POST", "/api/integrations/save", &draft)["id"].clone()
        };
        let key = || json!({ "api_key": "key-0001" });
        let (main, spare, gone) =
            (save("shop", "main", key()), save("shop", "spare", key()), save("shop", "gone", key()));
        let load = save("load", "default", json!("none"));
        let endpoints = format!("/api/integrations/{}/webhooks", load.as_str().unwrap());
        let webhooks = [(); 2].map(|()| ask(&mut door, "POST", &endpoints, &json!({}))["id"].clone());
        Ledger::default().send_one(&mut Client::new(deployment.public), 300).unwrap();
        let mut newest = |list: &str| {
            let target = format!("{list}?limit=1");
            let there = within(std::time::Duration::from_secs(20), || {
                Client::new(deployment.admin).get(&target).is_ok_and(|reply| reply.json()[0]["id"].is_string())
            });
            assert!(there, "{target}");
            ask(&mut door, "GET", &target, &Value::Null)[0]["id"].clone()
        };
        let (event, activity) = (newest("/api/events"), newest("/api/activity"));
        let link = ask(&mut door, "POST", "/api/connect-links", &json!({ "integration": "shop" }))["result"].clone();
        let replays = [(); 3].map(|()| ask(&mut door, "POST", "/api/replays", &Value::Null)["id"].clone());
        ask(&mut door, "PUT", "/api/integrations/shop/rating", &json!({ "stars": 4, "comment": "It is there." }));
        Self { main, spare, gone, event, webhooks, activity, link, replays }
    }

    /// What an operation can ask for by its path. What one takes away or out of use, no other asks for.
    fn of(&self, method: &str, path: &str) -> Option<Value> {
        let known = match path {
            _ if path.contains("/breaker") => json!("held"),
            _ if path.contains("/registration") || path.contains("/rating") => json!("shop"),
            _ if path.ends_with("/install") => json!("github"),
            "/api/replays/{id}/run" => self.replays[1].clone(),
            "/api/replays/{id}/cancel" => self.replays[2].clone(),
            _ if path.starts_with("/api/replays/") => self.replays[0].clone(),
            _ if path.ends_with("/pause") || path.ends_with("/resume") => self.spare.clone(),
            "/api/integrations/connections/{id}" if method == "delete" => self.gone.clone(),
            "/api/webhooks/{id}" if method == "delete" => self.webhooks[1].clone(),
            _ if path.starts_with("/api/webhooks/{id}") => self.webhooks[0].clone(),
            _ if path.starts_with("/api/integrations/") => self.main.clone(),
            _ if path.starts_with("/api/events/") => self.event.clone(),
            _ if path.starts_with("/api/deliveries/") => json!(format!("{}.0", self.event.as_str().unwrap())),
            _ if path.starts_with("/api/activity/") => self.activity.clone(),
            _ if path.starts_with("/api/connect-links/") => self.link.clone(),
            _ => return None,
        };
        Some(known)
    }

    /// The document, in which ids are one of what there is and one of what there is not; wrong ones are made of it all
    /// the same.
    fn document(&self) -> Value {
        let mut document: Value = serde_json::from_str(document::text()).unwrap();
        // Those of the public door are for people with a browser, and at another address.
        document["paths"].as_object_mut().unwrap().retain(|_, item| item.get("servers").is_none());
        for (path, item) in document["paths"].as_object_mut().unwrap() {
            for (method, operation) in item.as_object_mut().unwrap() {
                let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
                for parameter in parameters.filter(|parameter| parameter["in"] == "path") {
                    let known = self.of(method, path).unwrap_or_else(|| panic!("{method} {path}: nothing is known"));
                    parameter["schema"] = json!({ "type": "string", "enum": [known, absent(&known)] });
                }
            }
        }
        for body in ["ConnectionDraft", "NewConnectLink", "NewConnectDevice"] {
            let integration = document["components"]["schemas"][body]["properties"].get_mut("integration").unwrap();
            *integration = json!({ "type": "string", "enum": ["shop", "nothing"] });
        }
        document
    }
}

/// An id of the same form of which there is none.
fn absent(known: &Value) -> Value {
    let known = known.as_str().unwrap();
    if known.chars().all(|c| c.is_ascii_digit()) {
        return json!("0");
    }
    let zeros = |text: &str| text.chars().map(|c| if c == '.' { '.' } else { '0' }).collect::<String>();
    json!(known.split_once('_').map_or_else(|| "nothing".to_owned(), |(kind, id)| format!("{kind}_{}", zeros(id))))
}

fn deployment(sink: &Sink) -> Deployment {
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    for id in ["shop", "held"] {
        let service = format!(
            "trunkline: 1\nid: {id}\ntitle: Shop\nsummary: A shop.\nauth: {{ api_key: {{}} }}\n\
         api:\n  base_url: {}\n  credential: {{ header: X-Key, value: \"{{{{ api_key }}}}\" }}\n\
         \x20 test: {{ request: POST /me, json: {{ id: probe }} }}\n",
            sink.url()
        );
        fs::write(deployment.path().join(format!("integrations/{id}.yaml")), service).unwrap();
    }
    deployment
}

#[test]
fn schemathesis_finds_nothing_that_is_not_documented() {
    let sink = Sink::start(Mood::Well);
    let deployment = deployment(&sink);
    let mut gateway = deployment.start();
    let document = Known::prepare(&deployment).document();
    let here = tempfile::tempdir().unwrap();
    fs::write(here.path().join("openapi.json"), document.to_string()).unwrap();
    let url = format!("http://{}", deployment.admin);
    let mut command = Command::new(installed().join("python/bin/python"));
    command.current_dir(here.path()).args(["-m", "schemathesis.cli", "run", "openapi.json", "--url", &url]);
    command.args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", "1"]);
    // A stream of events has no end that could be waited for.
    command.args([
        "--exclude-path-regex",
        "stream$",
        "--request-timeout",
        "20",
        "--no-shrink",
        "--continue-on-failure",
    ]);
    command.args(["--report", "json", "--report-json-path", "report.json"]);
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make peers` installs it"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}\n{}", String::from_utf8_lossy(&output.stderr), deployment.log_tail());
    let report: Value = serde_json::from_slice(&fs::read(here.path().join("report.json")).unwrap()).unwrap();
    let (operations, cases) = (&report["operations"], &report["test_cases"]);
    println!("{operations} {cases}");
    assert_eq!(operations["tested"], operations["selected"], "{said}");
    assert!(operations["tested"].as_u64() >= Some(50) && cases["generated"].as_u64() >= Some(1_000), "{said}");
    assert!(gateway.is_ready(), "{}", deployment.log_tail());
}
