//! Every definition of the catalogue that does not sign in by OAuth 2.0, from the connect page to its removal: a wrong
//! credential is refused on the page, the right one is kept, calls go out with it, and are refused once it is revoked.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, ManualClock};
use trunkline::base::random::SystemRandom;
use trunkline::base::signing_key::{Algorithm, Encoding};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::plan::{Auth, Integration};
use trunkline::definition::templates::Templates;
use trunkline::mock::{Consent, Controls, Mock, Simulated};
use trunkline::net::resolve::Resolver;
use trunkline::net::{Clients, Dialer, Redirect, Trust};
use trunkline::outbound::{self, Outbound, OutboundError};
use trunkline::telemetry::metrics::Metrics;

use super::{Outcome, inputs};
use crate::calls::world::Names;
use crate::connect::bad_input::calls;
use crate::connect::desk::{APP, Behind, Browser, Desk, html, target};
use crate::connect::entered::trial;
use crate::support::browser;
use crate::support::raw::Reply;

/// Keys of services; the first that a pattern takes is entered.
const KEYS: [&str; 3] = ["sk_test_0123456789abcdef0123", "sk-0123456789abcdef0123456789", "0123456789abcdef"];
const HOST: &str = "acme.example.com";

/// What a person enters, and what the simulated service is told is right.
struct Entry {
    fields: Vec<(&'static str, String)>,
    right: String,
    /// The field that a wrong value is put into; none where a key pair signs, of which there is one here.
    spoilt: Option<&'static str>,
}

fn entry(integration: &Integration, inputs: &mut Map<String, Value>) -> Option<Entry> {
    let one = |field, value: String| {
        let fields = vec![(field, value.clone())];
        Some(Entry { fields, right: value, spoilt: Some(field) })
    };
    let two = |[name, word]: [&'static str; 2]| {
        let fields = vec![(name, "ada".to_owned()), (word, "a-secret-word".to_owned())];
        Some(Entry { fields, right: "ada:a-secret-word".to_owned(), spoilt: Some(word) })
    };
    match &integration.auth {
        Auth::ApiKey { pattern } => {
            let key = KEYS.into_iter().find(|key| pattern.as_ref().is_none_or(|pattern| pattern.is_match(key)));
            one("api_key", key.unwrap_or_else(|| panic!("{}: no key in KEYS fits", integration.id)).to_owned())
        }
        Auth::Jwt(assertion) => {
            let key = match (assertion.algorithm, assertion.encoding) {
                (Algorithm::ES256, _) => include_str!("../../vectors/keys/p256.pkcs8.pem").to_owned(),
                (Algorithm::RS256, _) => include_str!("../../vectors/keys/rsa.pkcs8.pem").to_owned(),
                (_, Encoding::Hex) => "0123456789abcdef".repeat(4),
                other => panic!("{}: no key for {other:?}", integration.id),
            };
            one("api_key", key.trim().to_owned()).map(|entry| Entry { spoilt: None, ..entry })
        }
        Auth::Basic => two(["username", "password"]),
        Auth::SigV4(_) => two(["access_key", "access_secret"]),
        Auth::Login(_) => {
            let secret = integration.inputs.iter().find(|input| input.secret).unwrap();
            inputs.insert(secret.name.to_string(), json!("a-secret-word"));
            let field: &'static str = format!("input.{}", secret.name).leak();
            Some(Entry { fields: Vec::new(), right: "a-secret-word".to_owned(), spoilt: Some(field) })
        }
        Auth::Mtls => Some(Entry { fields: Vec::new(), right: String::new(), spoilt: None }),
        Auth::OAuth1(_) => None,
        other => panic!("{}: {other:?}", integration.id),
    }
}

/// One definition and all that it is run with.
struct Run {
    integration: Arc<Integration>,
    inputs: Map<String, Value>,
    entry: Option<Entry>,
    desk: Desk,
    mock: Arc<Mock>,
    outbound: Outbound,
}

impl Run {
    async fn open(file: PathBuf) -> Self {
        let (gateways, resolved) = compiled(&file);
        let mut inputs = inputs(&gateways);
        if gateways.inputs.iter().any(|input| &*input.name == "host" && input.choices.is_empty()) {
            inputs.insert("host".to_owned(), json!(if &*gateways.id == "snowflake" { "acme" } else { HOST }));
        }
        let entry = entry(&gateways, &mut inputs);
        let mut started = None;
        let desk = Desk::over(APP, |_, clock: Arc<ManualClock>| -> Behind {
            let clock: Arc<dyn Clock> = clock;
            let simulated = Simulated { integration: Arc::new(compiled(&file).0), resolved };
            let controls = Controls { consent: Consent::Granted, ..Controls::default() };
            let random = Arc::new(SystemRandom::default());
            let mock = Arc::new(Mock::new(&[simulated], controls, Arc::clone(&clock), random));
            let address = crate::mock::serve(Arc::clone(&mock));
            started = Some((mock, address));
            (vec![gateways], Arc::new(calls(&clock, Some(address))), Some(trial(&clock, Some(address))))
        })
        .await;
        let (mock, address) = started.unwrap();
        let clock: Arc<dyn Clock> = desk.clock.clone();
        let dialer = Dialer::new(Resolver::new(Arc::new(Names), Arc::clone(&clock)), Some(Redirect { address }));
        let outbound = Outbound::new(outbound::Parts {
            random: Arc::new(SystemRandom::default()),
            connections: desk.connections.clone(),
            refresher: None,
            clients: Clients::new(Arc::new(dialer), Trust::of(&[])),
            clock,
            metrics: Arc::new(Metrics::new().unwrap()),
            activity: Arc::new(Activity::default()),
        });
        let integration = desk.generation().integrations.values().next().unwrap().clone();
        Self { integration, inputs, entry, desk, mock, outbound }
    }

    fn form(&self, spoilt: Option<&str>) -> String {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        let inputs = self.inputs.iter().map(|(name, value)| (format!("input.{name}"), value.as_str().unwrap()));
        let fields = self.entry.iter().flat_map(|entry| &entry.fields);
        let all = inputs.chain(fields.map(|(name, value)| ((*name).to_owned(), value.as_str())));
        for (name, value) in all {
            let value = if spoilt == Some(&*name) { format!("{value}x") } else { value.to_owned() };
            form.append_pair(&name, &value);
        }
        form.finish()
    }

    async fn enter(&self, form: &str) -> Reply {
        let made = self.desk.link_for(|wanted| wanted.integration = self.integration.id.to_string()).await;
        let mut browser = Browser::new(&self.desk);
        browser.get(target(&made.url)).await;
        let reply = browser.post(target(&made.url), form).await;
        let Some(url) = html(&reply)
            .replace("&amp;", "&")
            .split("0;url=")
            .nth(1)
            .and_then(|rest| rest.split('"').next().map(str::to_owned))
        else {
            return reply;
        };
        // A person who is sent to the service agrees there and comes back.
        let back = format!("http://localhost:{}/", self.desk.door.port());
        let page = tokio::task::spawn_blocking(move || {
            let mut person = browser::Browser::default();
            person.stop = Some(back);
            person.open(&url)
        });
        let page = page.await.unwrap();
        browser.get(&format!("{}?{}", page.url.path(), page.url.query().unwrap_or_default())).await
    }

    async fn test(&self) -> Result<(), OutboundError> {
        let generation = self.desk.generation();
        outbound::test(&self.outbound, &generation, &self.integration, "acme").await.map(drop)
    }

    fn tell(&self, change: &Value) {
        self.mock.control(&self.integration.id, change).unwrap();
    }

    async fn whole(self) -> Outcome<()> {
        if let Some(entry) = self.entry.as_ref().filter(|entry| !entry.right.is_empty()) {
            self.tell(&if entry.spoilt.is_some() {
                json!({ "accept": entry.right })
            } else {
                json!({ "revoke": true })
            });
            let wrong = self.enter(&self.form(entry.spoilt)).await;
            let page = html(&wrong);
            if wrong.status != 400 || !page.contains("does not work") || self.desk.records("connections").await != 0 {
                return Err(format!("a wrong credential was answered {} {page}", wrong.status));
            }
            self.tell(&json!({ "accept": entry.right }));
        }
        let right = self.enter(&self.form(None)).await;
        if right.status != 303 || self.desk.records("connections").await != 1 {
            return Err(format!("connect: {} {} {:?}", right.status, html(&right), self.mock.requests().last()));
        }
        // Limits of a second must not be what is seen.
        self.desk.clock.advance(Duration::from_mins(1));
        self.test().await.map_err(|error| format!("call: {error}, {:?}", self.mock.requests().last()))?;
        // A certificate is shown below what the simulation sees of a call.
        if !matches!(self.integration.auth, Auth::Mtls) {
            self.tell(&json!({ "revoke": true }));
            self.desk.clock.advance(Duration::from_mins(1));
            match self.test().await {
                Err(error) if error.status() == Some(401) => {}
                other => return Err(format!("a revoked credential should be refused with 401, and is {other:?}")),
            }
        }
        let removed = self.desk.connect.remove("operator", &self.integration.id, "acme").await;
        if !matches!(removed, Ok(Some(_))) {
            return Err(format!("remove: {removed:?}"));
        }
        match self.test().await {
            Err(OutboundError::Connection(_)) => Ok(()),
            other => Err(format!("a removed connection is used: {other:?}")),
        }
    }
}

/// A definition as a deployment makes it usable: with a client of its own, and its own host among those allowed.
fn compiled(file: &Path) -> (Integration, Value) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut resolved = tree::parse(&Arc::new(file.to_owned()), &text).document.unwrap().value;
    if let Some(oauth1) = resolved.pointer_mut("/auth/oauth1").and_then(Value::as_object_mut) {
        oauth1.insert("client".to_owned(), json!({ "id": "app", "secret": "a+/=%&b" }));
    }
    if let Some(mtls) = resolved.pointer_mut("/auth/mtls").and_then(Value::as_object_mut) {
        mtls.insert("certificate".to_owned(), json!(include_str!("../../vectors/keys/p256.certificate.pem")));
        mtls.insert("key".to_owned(), json!(include_str!("../../vectors/keys/p256.pkcs8.pem")));
    }
    if let Some(hosts) = resolved.pointer_mut("/api/hosts").and_then(Value::as_array_mut) {
        hosts.push(json!(HOST));
    }
    let document = Document::unplaced(file.to_owned(), resolved.clone());
    let integration = compile::integration(&document, &Templates::new());
    (integration.unwrap_or_else(|fault| panic!("{}: {fault:?}", file.display())), resolved)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_definition_connects_calls_is_refused_and_removed() {
    let files: Vec<_> = super::files().into_iter().filter(|file| super::simulated(file).is_none()).collect();
    assert!(files.len() >= 27, "{}", files.len());
    let mut failures = Vec::new();
    for file in files {
        let id = file.file_stem().unwrap().to_string_lossy().into_owned();
        let outcome = tokio::spawn(async move { Run::open(file).await.whole().await }).await;
        if let Err(failure) = outcome.map_err(|panicked| panicked.to_string()).and_then(|outcome| outcome) {
            failures.push(format!("{id}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

/// Calls in a role: the key that a person enters signs the call that gives another one.
const ROLES: &str = "trunkline: 1
id: roles
title: Roles
inputs: { role: { title: Role } }
auth:
  sigv4:
    service: execute-api
    region: eu-central-1
    session:
      request: POST https://sts.aws.example/
      form: { Action: AssumeRole, RoleArn: \"{{ input.role }}\" }
      headers: { Accept: application/json }
      access_key:
        id: body.result.AccessKeyId
        secret: body.result.SecretAccessKey
        session: body.result.SessionToken
        expires: { at: body.result.Expiration, unit: epoch_seconds }
      error: body.message
api:
  base_url: https://api.aws.example
  test: GET /me
";

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_of_temporary_keys_is_run_like_the_catalogues() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("roles.yaml");
    std::fs::write(&file, ROLES).unwrap();
    let run = Run::open(file).await;
    let mock = Arc::clone(&run.mock);
    assert_eq!(run.whole().await, Ok(()));
    let asked = mock.requests().iter().filter(|request| format!("{request:?}").contains("sts.aws.example")).count();
    // The wrong key, the right one on the page, its first call (the page's session is not kept), and after the 401.
    assert!((3..=5).contains(&asked), "{asked}");
}
