//! Every OAuth 2.0 definition of the catalogue, run from the first click to the last revocation: our own
//! token calls against the simulated service, both from the one file. This proves the engine and that the
//! file says enough, not that the file is right about the service.

mod others;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::Regex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::random::SeededRandom;
use trunkline::connection::flow::{Authorization, Discovered, Purpose, Who};
use trunkline::connection::grant::{Grant, Issued, TokenError};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::load::tree;
use trunkline::definition::plan::oauth2::{self, OAuth2, Pkce, RefreshPolicy};
use trunkline::definition::plan::{Auth, Integration};
use trunkline::definition::templates::Templates;
use trunkline::mock::{Consent, Controls, Mock, Simulated};
use trunkline::net::origin::Base;
use trunkline::template::Context;

use crate::support::browser::Browser;
use crate::support::desk::Desk;

const CALLBACK: &str = "http://127.0.0.1:1/api/auth/callback/it";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// Values for inputs; the first that an input's pattern takes is given.
const VALUES: [&str; 14] = [
    "acme",
    "acme.example.com",
    "1234567",
    "ACME",
    "ABCDEFGHIJ",
    "amzn1.sp.solution.abc",
    "01234567-89ab-cdef-0123-456789abcdef",
    "0123456789abcdef01234567",
    "acme.eu.auth0.com",
    "acme.okta.com",
    "acme.crm4.dynamics.com",
    "SHA256:YWJj",
    "robot@acme.iam.gserviceaccount.com",
    "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
];

/// One definition and all that it is run with.
struct Run {
    desk: Desk,
    clock: Arc<ManualClock>,
    mock: Arc<Mock>,
}

/// What went wrong, and in which step.
type Outcome<T> = Result<T, String>;

impl Run {
    fn start(simulated: &Simulated) -> Self {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_769_853_600)));
        let controls = Controls { consent: Consent::Granted, ..Controls::default() };
        let services = std::slice::from_ref(simulated);
        let mock = Arc::new(Mock::new(services, controls, Arc::clone(&clock) as _, Arc::new(SeededRandom::new(3))));
        let address = super::mock::serve(Arc::clone(&mock));
        let clock_of_all: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let mut desk = Desk::new(Arc::clone(&simulated.integration), Some(address), &clock_of_all);
        desk.inputs = inputs(&simulated.integration);
        Self { desk, clock, mock }
    }

    fn plan(&self) -> &OAuth2 {
        match &self.desk.integration.auth {
            Auth::OAuth2(plan) => plan,
            other => panic!("{other:?}"),
        }
    }

    fn told(&self, change: &Value) -> Value {
        self.mock.control(&self.desk.integration.id, change).unwrap()
    }

    async fn connect(&self) -> Outcome<Grant> {
        let obtained = match self.plan().grant {
            oauth2::Grant::AuthorizationCode => return self.consent().await,
            oauth2::Grant::DeviceCode => {
                let begun = self.desk.calls.device_code(self.desk.account(), None).await.map_err(at("device"))?;
                let device_code = begun.code.expose();
                self.desk.calls.obtain(self.desk.account(), Purpose::Device { device_code }).await
            }
            grant => self.desk.calls.obtain(self.desk.account(), Purpose::of_grant(grant).unwrap()).await,
        };
        obtained.map_err(at("obtain"))
    }

    async fn consent(&self) -> Outcome<Grant> {
        let plan = self.plan();
        let scopes: Vec<String> = plan.scopes.iter().filter(|s| s.default).map(|s| s.name.clone()).collect();
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let with_pkce = plan.pkce == Pkce::S256;
        let challenge = with_pkce.then_some(challenge.as_str());
        let ask = Authorization { state: "the-state", redirect_uri: CALLBACK, scopes: &scopes, challenge };
        let url = self.desk.calls.authorize_url(self.desk.account(), ask).await.map_err(at("authorize_url"))?;
        let page = tokio::task::spawn_blocking(move || {
            let mut browser = Browser::default();
            browser.stop = Some(CALLBACK.to_owned());
            browser.open(&url)
        });
        let page = page.await.map_err(|error| format!("browser: {error}"))?;
        let query: Map<String, Value> = page.url.query_pairs().map(|(k, v)| (k.into_owned(), v.into())).collect();
        let name = plan.callback.code.as_str();
        let code =
            query.get(name).and_then(Value::as_str).ok_or_else(|| format!("no `{name}`: {query:?} {}", page.text))?;
        if query.get("state") != Some(&json!("the-state")) {
            return Err(format!("another state: {query:?}"));
        }
        let verifier = with_pkce.then_some(VERIFIER);
        let purpose = Purpose::Code { code, redirect_uri: CALLBACK, verifier, callback: &query };
        self.desk.calls.obtain(self.desk.account(), purpose).await.map_err(at("token"))
    }

    /// Time passes, so that a definition's own limits hold no call up.
    fn pause(&self) {
        self.clock.advance(Duration::from_secs(5));
    }

    /// Asks who it is, which is a call to the API with the token; `None` when the definition cannot.
    async fn call(&self, tokens: &BTreeMap<Arc<str>, Issued>) -> Result<Option<Who>, TokenError> {
        self.pause();
        self.desk.calls.identity(self.desk.account(), tokens).await
    }

    async fn choose(&mut self, tokens: &BTreeMap<Arc<str>, Issued>) -> Outcome<()> {
        match self.desk.calls.discover(self.desk.account(), tokens, 0).await.map_err(at("discover"))? {
            Discovered::Settled(kept) => self.desk.saved.extend(kept),
            other => return Err(format!("discover: {other:?}")),
        }
        let missing: Vec<_> = self
            .plan()
            .discover
            .iter()
            .flat_map(|step| &step.set)
            .filter(|(name, _)| !self.desk.saved.contains_key(name))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("discover kept nothing of {missing:?}")) }
    }

    /// Whether what the sign-in saved gives an address that the API may be called at.
    fn base(&self) -> Outcome<()> {
        let Some(api) = &self.desk.integration.api else { return Ok(()) };
        let context = Context::new()
            .with_json("input", &Value::Object(self.desk.inputs.clone()))
            .with_json("saved", &Value::Object(self.desk.saved.clone()));
        let base = Base::of(api, &self.desk.generation.gateway, &context);
        base.map(drop).map_err(|error| format!("base_url: {error}; saved are {:?}", self.desk.saved.keys()))
    }

    async fn refresh(&mut self, tokens: &mut BTreeMap<Arc<str>, Issued>) -> Outcome<()> {
        let names: Vec<_> = tokens.keys().cloned().collect();
        for name in names {
            let held = tokens[&name].copy();
            self.pause();
            let renewed =
                self.desk.calls.obtain(self.desk.account(), Purpose::Refresh { name: &name, held: &held }).await;
            let Grant { tokens: brought, saved, .. } = renewed.map_err(at("refresh"))?;
            let new = brought.get(&name).ok_or_else(|| format!("refresh: no token `{name}`"))?;
            let extends = self.plan().refresh_tokens == RefreshPolicy::Extend;
            if !extends && new.access.expose() == held.access.expose() {
                return Err("refresh: the same access token again".to_owned());
            }
            if self.plan().refresh_tokens == RefreshPolicy::Rotate && new.refresh.is_none() {
                return Err("refresh: no new refresh token, and they rotate".to_owned());
            }
            self.desk.saved.extend(saved);
            for (name, mut token) in brought {
                token.refresh = token.refresh.or_else(|| tokens.get(&name).and_then(|old| old.copy().refresh));
                tokens.insert(name, token);
            }
        }
        Ok(())
    }

    /// Moves the clock to where the token is no longer good, or, when it is renewed by itself, nearly.
    fn let_expire(&self, token: &Issued) -> bool {
        let Some(end) = token.expires_at else { return false };
        let by_itself = token.refresh.is_none();
        let left = end.since(self.clock.now());
        self.clock.advance(if by_itself { left.saturating_sub(Duration::from_secs(30)) } else { left });
        !by_itself
    }

    async fn whole(mut self) -> Outcome<()> {
        let Grant { mut tokens, saved, .. } = self.connect().await?;
        self.desk.saved.extend(saved);
        let who = self.call(&tokens).await.map_err(at("identity"))?;
        self.desk.saved.extend(who.iter().flat_map(|who| who.saved.clone()));
        self.choose(&tokens).await?;
        self.base()?;
        let needs_person = self.plan().grant.needs_person();
        let default = tokens.get("default").ok_or("no default token")?;
        if self.let_expire(default) && who.is_some() {
            self.refused(&tokens, "expiry").await?;
        }
        let renews = tokens["default"].refresh.is_some() || self.plan().refresh.is_some();
        if needs_person && renews {
            self.refresh(&mut tokens).await?;
        } else if !needs_person {
            tokens = self.connect().await?.tokens;
        }
        self.call(&tokens).await.map_err(at("call after refresh"))?;
        if needs_person && renews && tokens["default"].refresh.is_some() {
            self.told(&json!({ "expire": true }));
            if who.is_some() {
                self.refused(&tokens, "401").await?;
            }
            self.refresh(&mut tokens).await?;
            self.call(&tokens).await.map_err(at("call after 401"))?;
        }
        let told = self.told(&json!({}));
        if told["reuses"] != 0 || told["refused"] != 0 {
            return Err(format!("the service refused something on the way: {told}"));
        }
        if self.desk.calls.revoke(self.desk.account(), &tokens).await.map_err(at("revoke"))? {
            if needs_person && self.told(&json!({}))["consents"] != 0 {
                return Err("revoke: the consent still stands".to_owned());
            }
            if who.is_some() {
                self.refused(&tokens, "revoke").await?;
            }
        }
        Ok(())
    }

    async fn refused(&self, tokens: &BTreeMap<Arc<str>, Issued>, when: &str) -> Outcome<()> {
        match self.call(tokens).await {
            Err(error) if error.status == Some(401) => Ok(()),
            other => Err(format!("after {when} a call should be refused with 401, and is {other:?}")),
        }
    }
}

fn at(step: &'static str) -> impl Fn(TokenError) -> String {
    move |error| format!("{step}: {error}")
}

fn inputs(integration: &Integration) -> Map<String, Value> {
    let value = |input: &trunkline::definition::plan::Input| {
        let fits = |value: &&&str| input.pattern.as_ref().is_none_or(|pattern: &Regex| pattern.is_match(value));
        let made_up = || VALUES.iter().find(fits).map(|value| (*value).to_owned());
        let value = input.default.clone().or_else(|| input.choices.first().cloned()).or_else(made_up);
        let value = value.unwrap_or_else(|| panic!("{}: no value in VALUES fits `{}`", integration.id, input.name));
        (input.name.to_string(), Value::from(value))
    };
    integration.inputs.iter().map(value).collect()
}

/// The catalogue's OAuth 2.0 definitions with a client, and how many definitions there are in all.
fn catalogue() -> (Vec<Simulated>, usize) {
    let files = files();
    let simulated = files.iter().filter_map(|file| simulated(file)).collect();
    (simulated, files.len())
}

/// Every file of the catalogue.
fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("integrations");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn simulated(file: &Path) -> Option<Simulated> {
    let text = std::fs::read_to_string(file).unwrap();
    let mut resolved = tree::parse(&Arc::new(file.to_owned()), &text).document.unwrap().value;
    let oauth2 = resolved.pointer_mut("/auth/oauth2").and_then(Value::as_object_mut)?;
    let public = oauth2.get("client_auth") == Some(&json!("none"));
    let client = if public { json!({ "id": "app" }) } else { json!({ "id": "app", "secret": "a+/=%&b" }) };
    oauth2.entry("client").or_insert(client);
    if let Some(assertion) = oauth2.get_mut("assertion").and_then(Value::as_object_mut) {
        let name = match assertion["algorithm"].as_str().unwrap() {
            "ES256" => "p256.pkcs8.pem",
            "ES384" => "p384.pkcs8.pem",
            "EdDSA" => "ed25519.pkcs8.pem",
            _ => "rsa.pkcs8.pem",
        };
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys").join(name);
        assertion.entry("key").or_insert_with(|| std::fs::read_to_string(key).unwrap().into());
    }
    let document = Document::unplaced(file.to_owned(), resolved.clone());
    let integration = compile::integration(&document, &Templates::new());
    let integration = integration.unwrap_or_else(|fault| panic!("{}: {fault:?}", file.display()));
    Some(Simulated { integration: Arc::new(integration), resolved })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_definition_connects_calls_expires_refreshes_and_is_revoked() {
    let (definitions, files) = catalogue();
    assert!(definitions.len() * 2 > files, "most of the catalogue signs in by OAuth 2.0");
    let ids: Vec<_> = definitions.iter().map(|simulated| simulated.integration.id.to_string()).collect();
    let runs = definitions.iter().map(|simulated| tokio::spawn(Run::start(simulated).whole()));
    let outcomes = futures_util::future::join_all(runs).await;
    let mut failures = Vec::new();
    for (id, outcome) in ids.iter().zip(outcomes) {
        if let Err(failure) = outcome.map_err(|panicked| panicked.to_string()).and_then(|outcome| outcome) {
            failures.push(format!("{id}: {failure}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} definitions fail:\n{}", failures.len(), ids.len(), failures.join("\n"));
}

/// The marketplace calls verified what is listed here: files as they are, each of which the two runs above take through its
/// whole life. `UPDATE_SCHEMAS=1` writes the list anew.
#[test]
fn the_list_of_verified_entries_is_that_of_the_files_that_are_run() {
    let line = |file: &PathBuf| {
        let id = file.file_stem().unwrap().to_string_lossy().into_owned();
        format!("{}  {id}\n", trunkline::definition::catalogue::entry(&id).unwrap().digest())
    };
    let mut files = files();
    files.sort();
    let list: String = files.iter().map(line).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/definition/verified.txt");
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &list).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == list, "an entry was changed: run the catalogue's tests with UPDATE_SCHEMAS=1");
}
