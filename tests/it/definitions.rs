//! The definitions that ship with the program load, check clean and compile.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use trunkline::definition::catalogue::ids;
use trunkline::definition::check;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::plan::api::{HostPattern, Placement};
use trunkline::definition::plan::rule::What;
use trunkline::definition::plan::webhook::Verify;
use trunkline::definition::plan::{Auth, Integration};
use trunkline::definition::problem::Severity;
use trunkline::definition::templates::Templates;
use trunkline::definition::workspace::{Deployment, Reading, select};

fn document(path: &str) -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap();
    Document::unplaced(path, serde_yaml::from_str(&text).unwrap())
}

fn catalogue(name: &str) -> Integration {
    compile::integration(&document(&format!("integrations/{name}.yaml")), &Templates::new()).unwrap()
}

#[test]
fn the_catalogue_has_no_error_and_only_lacks_secrets() {
    assert!(ids().count() >= 60);
    for name in ids() {
        let problems = check::integration(&document(&format!("integrations/{name}.yaml")), &[], &Templates::new());
        let loud: Vec<_> = problems.iter().filter(|problem| problem.severity != Severity::Notice).collect();
        // Some services give a delivery no id of any kind.
        let known = ["has no secret", "without `delivery_id`"];
        let all_known = loud.iter().all(|problem| known.iter().any(|words| problem.message.contains(words)));
        assert!(all_known, "{name}: {loud:?}");
    }
}

/// Addresses that signing in asks, wherever they stand in `auth`. People are sent to `authorize`: no
/// credential goes there.
fn asked_addresses(value: &Value, addresses: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let address = text.rsplit_once(' ').filter(|(method, _)| !method.contains('{')).map_or(&**text, |(_, a)| a);
            addresses.extend(address.strip_prefix("https://").map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| asked_addresses(item, addresses)),
        Value::Object(map) => {
            let asked = map
                .iter()
                .filter(|(key, _)| !["authorize", "claims", "help", "form", "json", "scopes"].contains(&&***key));
            asked.for_each(|(_, item)| asked_addresses(item, addresses));
        }
        _ => {}
    }
}

#[test]
fn hosts_that_signing_in_takes_from_inputs_are_named() {
    for name in ids() {
        let document = document(&format!("integrations/{name}.yaml")).value;
        let mut addresses = Vec::new();
        asked_addresses(&document["auth"], &mut addresses);
        let hosts = document["api"]["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let hosts: Vec<_> = hosts.filter_map(HostPattern::parse).collect();
        for address in addresses {
            let authority = address.split('/').next().unwrap().to_owned();
            let Some((before, after)) = authority.split_once("{{ input.") else { continue };
            let (input, after) = after.split_once(" }}").unwrap();
            let input = &document["inputs"][input];
            let value = input["default"].as_str().or(input["choices"][0].as_str()).unwrap_or("a");
            // A host that is wholly the connection's own is named by the deployment.
            let host = format!("{before}{value}{}", after.split(':').next().unwrap());
            let named = hosts.iter().any(|pattern| pattern.matches(&host));
            assert!(named || host == "a", "{name}: `{host}` is not among `api.hosts`");
        }
    }
}

#[test]
fn github_compiles_to_what_its_file_says() {
    let github = catalogue("github");
    let Auth::OAuth2(oauth2) = &github.auth else { panic!("{:?}", github.auth) };
    assert!(oauth2.client.is_none() && oauth2.token.len() == 1 && oauth2.default_scopes().count() > 0);
    let api = github.api.as_ref().unwrap();
    assert!(matches!(api.credential, Placement::Bearer) && api.headers.len() == 2);
    let create = api.endpoint("create_issue").unwrap();
    assert!(create.pattern.matches(&http::Method::POST, "/repos/o/r/issues"));
    let webhook = github.webhook.as_ref().unwrap();
    assert!(matches!(&webhook.verify, Verify::Hmac(hmac) if hmac.signatures[0].prefix.is_some()));
}

#[test]
fn every_webhook_of_the_catalogue_is_verified_or_says_why_not() {
    for name in ids() {
        let Some(webhook) = catalogue(name).webhook else { continue };
        // A scheme that this version does not run is told as a notice, and refuses.
        if let Verify::NotYet(part) = &webhook.verify {
            let problems = check::integration(&document(&format!("integrations/{name}.yaml")), &[], &Templates::new());
            let told = problems.iter().any(|problem| problem.message.contains(&format!("`{}`", part.part)));
            assert!(told, "{name}: {part}");
        }
    }
}

#[test]
fn stripe_is_ready_with_a_key_alone() {
    let stripe = catalogue("stripe");
    let api = stripe.api.as_ref().unwrap();
    let key = api.retry(None).and_then(|retry| retry.idempotency_key.as_ref());
    assert_eq!(key, Some(&http::HeaderName::from_static("idempotency-key")));
    assert!(matches!(&stripe.auth, Auth::ApiKey { pattern: Some(pattern) } if pattern.is_match("sk_test_1")));
    assert!(matches!(&api.credential, Placement::Header { name, .. } if name == "authorization"));
}

fn quickstart() -> Deployment {
    let names = [
        "GITHUB_CLIENT_ID",
        "GITHUB_CLIENT_SECRET",
        "GITHUB_WEBHOOK_SECRET",
        "SLACK_CLIENT_ID",
        "SLACK_CLIENT_SECRET",
        "SLACK_SIGNING_SECRET",
        "STRIPE_API_KEY",
        "STRIPE_WEBHOOK_SECRET",
        "APP_WEBHOOK_SECRET",
        "TRUNKLINE_KEY",
    ];
    let value = |name: &str| if name == "STRIPE_API_KEY" { "sk_test_0123456789abcdef" } else { "0123456789abcdef0123" };
    let environment: HashMap<String, String> =
        names.into_iter().map(|name| (name.to_owned(), value(name).to_owned())).collect();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    let selection = select(&[directory]).pop().unwrap();
    Reading { environment: &environment, previous: None, keep_documents: false }.read(&selection)
}

#[test]
fn the_quickstart_is_clean_and_its_names_point_somewhere() {
    let report = quickstart().report();
    let loud: Vec<_> = report.problems.iter().filter(|problem| problem.severity != Severity::Notice).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[test]
fn the_quickstart_compiles() {
    let deployment = quickstart();
    assert!(deployment.gateway.unwrap().compiled.is_some());
    let ids: Vec<_> =
        deployment.integrations.iter().map(|read| read.compiled.as_ref().unwrap().id.to_string()).collect();
    assert_eq!(ids, ["github", "slack", "stripe"]);
    let github = deployment.integrations[0].compiled.as_ref().unwrap();
    assert_eq!((github.rules.len(), github.webhook.as_ref().unwrap().secrets.len()), (2, 1));
}

#[test]
fn what_the_quickstart_does_not_run_yet_is_told() {
    let deployment = quickstart();
    let told: Vec<_> =
        deployment.integrations[0].problems.iter().map(|problem| problem.place.pointer.as_str()).collect();
    assert_eq!(told, ["/syncs"]);
}

#[test]
fn what_a_reference_brings_into_a_message_is_never_run_as_a_template() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    let text = "
        trunkline: 1
        id: a
        webhook: { verify: { token: { header: X } }, event: body.type, secrets: ['${env:LONG}'] }
        rules: [{ id: r, when: a, do: [{ call: a.e, input: { deep: [{ er: 'x${env:HOSTILE}' }] } }] }]
        api: { base_url: https://a.example, endpoints: [{ id: e, request: GET / }] }
    ";
    std::fs::write(&file, text).unwrap();
    let environment: HashMap<String, String> = [("HOSTILE", "{{ body.secret }}"), ("LONG", "0123456789abcdef")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let selection = select(&[file]).pop().unwrap();
    let deployment = Reading { environment: &environment, previous: None, keep_documents: false }.read(&selection);
    let definition = &deployment.integrations[0];
    let compiled = definition.compiled.as_ref().unwrap_or_else(|| panic!("{:?}", definition.problems));
    let What::Call { input, .. } = &compiled.rules[0].actions[0].what else { panic!("a call") };
    let rendered = input.render(&trunkline::template::Context::new()).unwrap();
    assert_eq!(rendered, serde_json::json!({ "deep": [{ "er": "x{{ body.secret }}" }] }));
}
