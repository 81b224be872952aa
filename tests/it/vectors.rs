//! Known answers: what services and their own libraries sign, verified by definitions.
//!
//! `tests/vectors/webhooks.json` has the requests, `tests/vectors/schemes.yaml` the `verify` blocks. A scheme
//! without a block is one whose engine is not there yet.

use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};
use trunkline::base::clock::Timestamp;
use trunkline::definition::catalogue;
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::plan::Integration;
use trunkline::definition::plan::webhook::Verify;
use trunkline::definition::templates::Templates;
use trunkline::template::payload::Numbers;
use trunkline::webhook::door::RequestHead;
use trunkline::webhook::scope::{Came, Scope, wanted};
use trunkline::webhook::verify::{Failure, Request, precheck, verify};
use url::{Position, Url};

/// Vectors that need parts of the grammar which are not run yet.
const NOT_YET: [&str; 1] = ["box-sigversion-2"];

fn schemes() -> Value {
    let text = include_str!("../vectors/schemes.yaml");
    let parsed = tree::parse(&Arc::new(PathBuf::from("schemes.yaml")), text);
    assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
    parsed.document.unwrap().value
}

fn vectors() -> Vec<Value> {
    static ALL: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(include_str!("../vectors/webhooks.json")).unwrap());
    ALL["vectors"].as_array().unwrap().clone()
}

fn integration(verify: &Value, secrets: &Value) -> Integration {
    let webhook = json!({ "verify": verify, "secrets": secrets, "event": "'x'" });
    let definition = json!({ "trunkline": 1, "id": "x", "title": "X", "webhook": webhook });
    let document = Document::unplaced(PathBuf::from("x.yaml"), definition);
    compile::integration(&document, &Templates::new()).unwrap()
}

/// A vector's request, and the URL that the service was told.
struct Sent {
    head: RequestHead,
    body: Bytes,
    public_url: Url,
    now: Timestamp,
}

impl Sent {
    fn of(vector: &Value) -> Self {
        let request = &vector["request"];
        let url: Url = request["url"].as_str().unwrap_or("https://example.com/webhooks/x").parse().unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in request["headers"].as_object().unwrap() {
            let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let head = RequestHead {
            token: None,
            method: request["method"].as_str().unwrap().parse().unwrap(),
            integration: "x".to_owned(),
            query: url.query().unwrap_or_default().to_owned(),
            target: url[Position::BeforePath..].to_owned(),
            headers: Arc::new(headers),
            source: None,
            content_length: None,
        };
        let body = Bytes::from(STANDARD.decode(request["body_base64"].as_str().unwrap()).unwrap());
        let now = Timestamp::from_seconds(vector["now"].as_u64().unwrap_or(1_700_000_000));
        Self { head, body, public_url: url[..Position::BeforePath].parse().unwrap(), now }
    }

    fn verified(&self, integration: &Integration) -> Result<(), Failure> {
        let webhook = integration.webhook.as_ref().unwrap();
        let came = Came { head: &self.head, body: &self.body };
        let scope = Scope::of(came, &wanted(webhook), Numbers::Values);
        let request = Request {
            head: &self.head,
            body: &self.body,
            public_url: &self.public_url,
            context: &scope.context,
            now: self.now,
        };
        let whole = verify(&webhook.verify, &webhook.secrets, &request).map(drop);
        let by_head = precheck(&webhook.verify, &webhook.secrets, &self.head, self.now);
        assert!(by_head.is_ok() || whole.is_err(), "the head alone is refused: {by_head:?}");
        whole
    }
}

/// The vector's definition; `None` when its scheme has no engine.
fn defined(vector: &Value, schemes: &Value) -> Option<Integration> {
    let verify = schemes.get(vector["scheme"].as_str()?)?;
    let secret = vector["secret"]["value"].as_str()?;
    let password = secret.split_once(':').filter(|_| vector["scheme"] == "basic-auth").map(|(_, password)| password);
    let mut secrets = vec![json!(password.unwrap_or(secret))];
    secrets.extend(vector["secret"].get("secondary").cloned());
    Some(integration(verify, &Value::Array(secrets)))
}

#[test]
fn every_known_answer_comes_out() {
    let (schemes, mut count, mut wrong) = (schemes(), 0, Vec::new());
    for vector in vectors() {
        let id = vector["id"].as_str().unwrap();
        let Some(integration) = defined(&vector, &schemes).filter(|_| !NOT_YET.contains(&id)) else { continue };
        count += 1;
        let outcome = Sent::of(&vector).verified(&integration);
        if outcome.is_ok() != vector["expected"].as_bool().unwrap() {
            wrong.push(format!("{id}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count >= 90, "only {count} vectors have a definition");
}

/// Catalogue entries, and the scheme that the vectors know their webhooks by.
const CATALOGUE: [(&str, &str); 32] = [
    ("aws-ses", "sns-v2"),
    ("bitbucket", "bitbucket-hub"),
    ("box", "box"),
    ("calendly", "calendly"),
    ("contentful", "contentful"),
    ("discord", "discord"),
    ("dropbox", "dropbox"),
    ("facebook", "meta"),
    ("github", "github-sha256"),
    ("github-app", "github-sha256"),
    ("gitlab", "gitlab-token"),
    ("google", "google-channel-token"),
    ("hubspot", "hubspot-v3"),
    ("instagram", "meta"),
    ("jira", "jira-hub"),
    ("linear", "linear"),
    ("linkedin", "linkedin"),
    ("microsoft", "msgraph-clientstate"),
    ("monday", "monday-jwt"),
    ("openai", "standard-webhooks"),
    ("paddle", "paddle-h1"),
    ("quickbooks", "quickbooks"),
    ("sendgrid", "sendgrid-ecdsa"),
    ("shopify", "shopify"),
    ("slack", "slack-v0"),
    ("square", "square-url-body"),
    ("stripe", "stripe-v1"),
    ("stripe-app", "stripe-v1"),
    ("telnyx", "telnyx"),
    ("trello", "trello"),
    ("twilio", "twilio-sha1"),
    ("x", "twitter"),
];

#[test]
fn the_catalogues_own_blocks_give_the_known_answers() {
    let (mut entries, mut wrong) = (0, Vec::new());
    for (id, scheme) in CATALOGUE {
        let verify = &catalogue::entry(id).unwrap().document().value["webhook"]["verify"];
        let mut count = 0;
        for vector in vectors().iter().filter(|vector| vector["scheme"] == scheme) {
            let name = vector["id"].as_str().unwrap();
            let Some(integration) = defined(vector, &json!({ scheme: verify })) else { continue };
            let is_run = !matches!(integration.webhook.as_ref().unwrap().verify, Verify::NotYet(_));
            if !is_run || NOT_YET.contains(&name) {
                continue;
            }
            count += 1;
            let outcome = Sent::of(vector).verified(&integration);
            if outcome.is_ok() != vector["expected"].as_bool().unwrap() {
                wrong.push(format!("{id} {name}: {outcome:?}"));
            }
        }
        entries += usize::from(count > 0);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(entries >= 20, "only {entries} entries have an answer to give");
}

#[test]
fn an_older_and_a_newer_family_of_headers_are_one_scheme() {
    let schemes = schemes();
    let mut vector = vectors().into_iter().find(|vector| vector["id"] == "stdwh-1").unwrap();
    let headers = vector["request"]["headers"].as_object().unwrap().clone();
    let svix = headers.into_iter().map(|(name, value)| (name.replace("webhook-", "svix-"), value)).collect();
    vector["request"]["headers"] = Value::Object(svix);
    vector["scheme"] = json!("svix");
    assert_eq!(Sent::of(&vector).verified(&defined(&vector, &schemes).unwrap()), Ok(()));
}

#[test]
fn a_header_that_comes_twice_is_refused() {
    let schemes = schemes();
    for id in ["github-octokit-1", "slack-1", "stdwh-1"] {
        let vector = vectors().into_iter().find(|vector| vector["id"] == id).unwrap();
        let integration = defined(&vector, &schemes).unwrap();
        let mut sent = Sent::of(&vector);
        let names: Vec<_> = sent.head.headers.keys().filter(|name| *name != "content-type").cloned().collect();
        for name in names {
            let value = sent.head.headers[&name].clone();
            Arc::make_mut(&mut sent.head.headers).append(&name, value.clone());
            let refused = sent.verified(&integration);
            assert!(
                matches!(refused, Err(Failure::HeaderRepeated(_))) || name == "webhook-id" && refused.is_err(),
                "{id} {name}: {refused:?}"
            );
            Arc::make_mut(&mut sent.head.headers).insert(&name, value);
        }
    }
}

#[test]
fn of_several_secrets_the_one_that_matched_is_known_and_an_expired_one_does_not_count() {
    let vector = vectors().into_iter().find(|vector| vector["id"] == "github-octokit-1").unwrap();
    let verify_block = schemes()["github-sha256"].clone();
    let secrets = |expiry: &str| json!([{ "id": "new", "secret": "anothersecret" }, { "id": "old", "secret": "mysecret", "expires_at": expiry }]);
    let sent = Sent::of(&vector);
    let valid = integration(&verify_block, &secrets("2030-01-01T00:00:00Z"));
    assert_eq!(sent.verified(&valid), Ok(()));
    let expired = integration(&verify_block, &secrets("2020-01-01T00:00:00Z"));
    assert_eq!(sent.verified(&expired), Err(Failure::Mismatch));
    let none = integration(&verify_block, &json!([{ "secret": "mysecret", "expires_at": "2020-01-01T00:00:00Z" }]));
    assert_eq!(sent.verified(&none), Err(Failure::NoSecret));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_changed_byte_of_a_body_fails(which in 0_usize..4, place in any::<prop::sample::Index>(), flip in 1_u8..=255) {
        let id = ["github-octokit-1", "slack-1", "stripe-sdk-1", "stdwh-1"][which];
        let vector = vectors().into_iter().find(|vector| vector["id"] == id).unwrap();
        let integration = defined(&vector, &schemes()).unwrap();
        let mut sent = Sent::of(&vector);
        let mut body = sent.body.to_vec();
        let at = place.index(body.len());
        body[at] ^= flip;
        sent.body = Bytes::from(body);
        prop_assert_eq!(sent.verified(&integration), Err(Failure::Mismatch));
    }
}
