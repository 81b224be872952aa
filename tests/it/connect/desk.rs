//! A public door with a connect flow behind it, a service that is a record of what it was asked, and a
//! browser with a jar of cookies.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::base::secret::Secret;
use trunkline::base::units::Rate;
use trunkline::connection::connect::pending::Issuer;
use trunkline::connection::connect::provider::{Ask, Code, Departure, Found, Provider, Who};
use trunkline::connection::connect::trial::Trial;
use trunkline::connection::connect::{self, Connect, Made, Reception, Revocations, Wanted};
use trunkline::connection::flow::{DeviceCode, Poll};
use trunkline::connection::{
    Account, Connections, Credential, Grant, Issued, KeyRing, MasterKey, Stored, TokenError, TokenErrorKind, Vault,
};
use trunkline::definition::bound::LeftOut;
use trunkline::definition::live::{FileState, FileStatus, Generation, Live};
use trunkline::definition::plan::gateway::{
    Admin, Connect as Settings, Fixed, Gateway, KeySource, Limits, Listen, Mode, Network, PreviousKeys, State, Upkeep,
};
use trunkline::definition::plan::{Fingerprint, Integration};
use trunkline::server::{Listener, Running, Shared, open_public};
use trunkline::store::embedded::Embedded;
use trunkline::store::model::{AuditEntry, AuditRecord, RecordKey};
use trunkline::store::{Audit, Records, StoreError};
use trunkline::telemetry::metrics::Metrics;

use crate::events::station::compiled;
use crate::support::doors::Inbox;
use crate::support::raw::{Reply, Wire};
use crate::support::store;

/// Where the tests begin: a moment after which everything is counted.
const NOW: u64 = 1_790_000_000;
/// The origin of the application's pages.
pub const APP: &str = "https://app.example";

/// Definitions of a service that people consent at, and of others beside it.
pub const HUB: &str = r#"
trunkline: 1
id: hub
title: Hub <b>&
inputs:
  site: { title: Site, help: "The part before .hub.example", pattern: "^[a-z]+$", default: main }
  region: { title: Region, choices: [eu, us], optional: true }
auth:
  oauth2:
    authorize: https://hub.example/authorize
    token: https://hub.example/token
    client: { id: app, secret: s }
    scopes:
      - { name: read, grants: "See your projects", default: true }
      - { name: write, grants: "Change your projects" }
      - { name: admin, grants: "Manage members" }
"#;
pub const OTHER: &str = r"
trunkline: 1
id: other
auth:
  oauth2:
    authorize: https://other.example/authorize
    token: https://other.example/token
    client: { id: app, secret: s }
";
pub const DEVICE: &str = r#"
trunkline: 1
id: screen
title: Screen
auth:
  oauth2:
    grant: device_code
    device: POST https://screen.example/device
    token: https://screen.example/token
    client: { id: app, secret: s }
    scopes:
      - { name: watch, grants: "See your programmes", default: true }
      - { name: rent, grants: "Rent films" }
"#;
pub const KEYED: &str = r#"
trunkline: 1
id: keyed
title: Keyed
auth: { api_key: { title: Secret key, help: "https://keyed.example/keys", pattern: "^sk_" } }
"#;

/// What the service does.
#[derive(Debug, Clone)]
pub struct Manners {
    pub issuer: Option<Issuer>,
    pub grant: Result<Vec<&'static str>, TokenError>,
    /// Whether every token answer has the same token.
    pub same_token: bool,
    /// Whether token answers say which scopes they are for.
    pub tells_scopes: bool,
    /// The scope of a second token, `user`, which is always told.
    pub user_scope: Option<&'static str>,
    /// Whether token calls are not answered.
    pub hangs: bool,
    pub who: Result<Option<Who>, TokenError>,
    pub choices: Vec<(&'static str, Value)>,
    /// Where people are sent, in place of an address that nobody answers at.
    pub authorize: Option<String>,
    /// The connection whose page at the service cuts its tie to the window that opened it.
    pub severs: Option<String>,
    /// What each poll for a consent on another device finds, the first one first; then it is granted.
    pub polls: Vec<Result<Duration, TokenError>>,
    /// What becomes of tokens that are taken back; `false` when the definition does not say how.
    pub revoke: Result<bool, TokenError>,
}

/// State, challenge, scopes and redirect address that a person was sent with.
pub type Left = (String, Option<String>, Vec<String>, String);

/// A service that remembers what it was asked.
#[derive(Debug)]
pub struct Service {
    pub manners: Mutex<Manners>,
    /// What each person was sent with.
    pub departures: Mutex<Vec<Left>>,
    /// Code, verifier and inputs of each token call.
    pub exchanges: Mutex<Vec<(String, Option<String>, Value)>>,
    /// The scopes of each device code that was asked for.
    pub codes: Mutex<Vec<Vec<String>>>,
    /// The wait before each poll, in seconds.
    pub waits: Mutex<Vec<u64>>,
    /// The access tokens that were taken back.
    pub revoked: Mutex<Vec<String>>,
}

impl Default for Service {
    fn default() -> Self {
        let manners = Manners {
            issuer: None,
            grant: Ok(vec!["read"]),
            same_token: false,
            tells_scopes: true,
            user_scope: None,
            hangs: false,
            who: Ok(Some(Who {
                id: Some("42".to_owned()),
                name: Some("Ada <i>".to_owned()),
                email: Some("ada@example.com".to_owned()),
            })),
            choices: Vec::new(),
            authorize: None,
            severs: None,
            polls: Vec::new(),
            revoke: Ok(true),
        };
        Self {
            manners: Mutex::new(manners),
            departures: Mutex::default(),
            exchanges: Mutex::default(),
            codes: Mutex::default(),
            waits: Mutex::default(),
            revoked: Mutex::default(),
        }
    }
}

impl Service {
    pub fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    fn now(&self) -> Manners {
        self.manners.lock().unwrap().clone()
    }

    pub fn token_calls(&self) -> usize {
        self.exchanges.lock().unwrap().len()
    }

    /// The state that the last person was sent with.
    pub fn state(&self) -> String {
        self.departures.lock().unwrap().last().unwrap().0.clone()
    }
}

#[async_trait]
impl Provider for Service {
    async fn depart(&self, account: Account<'_>, ask: Ask<'_>) -> Result<Departure, TokenError> {
        let (state, challenge) = (ask.state.expose().clone(), ask.challenge.map(str::to_owned));
        let manners = self.now();
        let severs = manners.severs.as_deref() == Some(account.connection);
        let place =
            manners.authorize.unwrap_or_else(|| format!("https://{}.example/authorize", account.integration.id));
        let url = format!("{place}?state={state}{}", if severs { "&coop=same-origin" } else { "" });
        let left = (state, challenge, ask.scopes.to_vec(), ask.redirect_uri.to_owned());
        self.departures.lock().unwrap().push(left);
        Ok(Departure { url, issuer: self.now().issuer, held: None })
    }

    async fn exchange(&self, account: Account<'_>, code: Code<'_>) -> Result<Grant, TokenError> {
        let verifier = code.verifier.map(|verifier| verifier.expose().clone());
        let inputs = Value::Object(account.inputs.clone());
        self.exchanges.lock().unwrap().push((code.code.expose().clone(), verifier, inputs));
        if self.now().hangs {
            return std::future::pending().await;
        }
        let scopes = self.now().grant?;
        let number = if self.now().same_token { 1 } else { self.token_calls() };
        let token = Issued {
            access: Secret::new(format!("canary-access-{number}")),
            refresh: Some(Secret::new(format!("canary-refresh-{number}"))),
            expires_at: None,
            issued_at: Timestamp::from_seconds(NOW),
            scopes: self.now().tells_scopes.then(|| scopes.iter().map(ToString::to_string).collect()),
            client: None,
        };
        let user = self.now().user_scope.map(|scope| {
            let scopes = Some(vec![scope.to_owned()]);
            Issued { access: Secret::from("canary-user"), refresh: None, scopes, ..token.copy() }
        });
        let mut grant = Grant::of(token);
        grant.tokens.extend(user.map(|user| (Arc::from("user"), user)));
        Ok(grant)
    }

    async fn grant_itself(&self, _account: Account<'_>) -> Result<Grant, TokenError> {
        Err(refused(TokenErrorKind::Misconfigured, None, "this service wants a person"))
    }

    async fn device_code(&self, _account: Account<'_>, scopes: &[String]) -> Result<DeviceCode, TokenError> {
        self.codes.lock().unwrap().push(scopes.to_vec());
        self.now().grant?;
        Ok(DeviceCode {
            code: Secret::from("canary-device-code"),
            user_code: "WDJB-MJHT".to_owned(),
            verification_uri: "https://hub.example/device".to_owned(),
            verification_uri_complete: Some("https://hub.example/device?user_code=WDJB-MJHT".to_owned()),
            expires_at: Timestamp::from_seconds(NOW).after(Duration::from_mins(10)),
            interval: Duration::from_secs(5),
        })
    }

    async fn device_poll(
        &self,
        account: Account<'_>,
        code: &DeviceCode,
        interval: Duration,
    ) -> Result<Poll, TokenError> {
        self.waits.lock().unwrap().push(interval.as_secs());
        let next = {
            let mut manners = self.manners.lock().unwrap();
            if manners.polls.is_empty() { None } else { Some(manners.polls.remove(0)) }
        };
        if let Some(found) = next {
            return found.map(Poll::Pending);
        }
        let none = Map::new();
        let code = Code { code: &code.code, redirect_uri: "", verifier: None, held: None, callback: &none };
        self.exchange(account, code).await.map(Poll::Granted)
    }

    async fn identity(&self, _account: Account<'_>, _grant: &Grant) -> Result<Option<Who>, TokenError> {
        self.now().who
    }

    async fn discover(&self, _account: Account<'_>, _grant: &Grant, step: usize) -> Result<(usize, Found), TokenError> {
        let choices = self.now().choices;
        if step > 0 || choices.is_empty() {
            return Ok((step, Found::Settled(Map::new())));
        }
        let choice = |(label, set): (&str, Value)| (label.to_owned(), set.as_object().unwrap().clone());
        Ok((step, Found::Several(choices.into_iter().map(choice).collect())))
    }

    async fn revoke(&self, _account: Account<'_>, grant: &Grant) -> Result<bool, TokenError> {
        let taken_back = self.now().revoke?;
        self.revoked.lock().unwrap().extend(grant.tokens.values().map(|token| token.access.expose().clone()));
        Ok(taken_back)
    }
}

/// A token error of the service's own.
pub fn refused(kind: TokenErrorKind, status: Option<u16>, words: &str) -> TokenError {
    TokenError { status, ..TokenError::new(kind, words) }
}

type Integrations = HashMap<Arc<str>, Arc<Integration>>;

/// Definitions, what makes their calls, and what tries credentials before they are kept.
pub type Behind = (Vec<Integration>, Arc<dyn Provider>, Option<Arc<dyn Trial>>);

/// The door and all behind it.
pub struct Desk {
    pub door: SocketAddr,
    pub service: Arc<Service>,
    pub connect: Arc<Connect>,
    pub connections: Arc<Connections>,
    pub store: Arc<Embedded>,
    cut: Arc<Cut>,
    /// The audit log, as connections write it.
    pub scribe: Arc<Scribe>,
    pub activity: Arc<Activity>,
    metrics: Arc<Metrics>,
    pub clock: Arc<ManualClock>,
    live: Arc<Live>,
    _running: Running,
    _directory: TempDir,
}

/// An audit log that may refuse to be written.
pub struct Scribe {
    log: Arc<Embedded>,
    pub refuses: AtomicBool,
}

impl Scribe {
    /// One that writes into this log.
    pub fn over(log: Arc<Embedded>) -> Self {
        Self { log, refuses: AtomicBool::new(false) }
    }
}

#[async_trait]
impl Audit for Scribe {
    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::Read("the log is full".into()));
        }
        self.log.append(entry).await
    }

    async fn read(&self, from: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.log.read(from, max).await
    }

    async fn newest(&self) -> u64 {
        Audit::newest(&*self.log).await
    }
}

/// What the flow keeps, until it is stopped as a process that ends is.
pub struct Cut {
    log: Arc<Embedded>,
    /// How many writes are left.
    left: AtomicUsize,
}

#[async_trait]
impl Records for Cut {
    async fn put(&self, key: &RecordKey, value: Bytes, expected: Option<u64>) -> Result<u64, StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
            std::future::pending::<()>().await;
        }
        self.log.put(key, value, expected).await
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError> {
        self.log.get(key).await
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError> {
        self.log.remove(key).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        self.log.take(key).await
    }

    async fn keys(&self, collection: &str) -> Result<Vec<RecordKey>, StoreError> {
        self.log.keys(collection).await
    }
}

impl Desk {
    /// From now on the flow of this process writes so often and no more.
    pub fn cut_after(&self, writes: usize) {
        self.cut.left.store(writes, Ordering::Relaxed);
    }

    pub async fn open() -> Self {
        Self::open_for(APP).await
    }

    /// A desk whose application's pages are at `app`.
    pub async fn open_for(app: &str) -> Self {
        Self::open_with(app, &[HUB, OTHER, KEYED, DEVICE]).await
    }

    /// A desk over these definitions.
    pub async fn open_with(app: &str, definitions: &[&str]) -> Self {
        let service = Arc::new(Service::default());
        let provider: Arc<dyn Provider> = service.clone();
        let definitions = definitions.iter().map(|text| compiled(text)).collect();
        let mut desk = Self::over(app, |_, _| (definitions, provider, None)).await;
        desk.service = service;
        desk
    }

    /// A desk over definitions and what makes their calls, which are made when its address is known.
    pub async fn over(app: &str, make: impl FnOnce(SocketAddr, Arc<ManualClock>) -> Behind) -> Self {
        let directory = TempDir::new().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(NOW)));
        let store = store::open(store::options(directory.path(), clock.clone())).await.unwrap();
        let (metrics, activity) = (Arc::new(Metrics::new().unwrap()), Arc::new(Activity::default()));
        let listener = Listener::bind(&Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        let door = listener.address().tcp().unwrap();
        let url = format!("http://localhost:{}/", door.port());
        let (definitions, provider, trial) = make(door, clock.clone());
        let settings = Settings { origins: vec![app.to_owned()], ..Settings::default() };
        let all = definitions.into_iter().map(|integration| (Arc::clone(&integration.id), Arc::new(integration)));
        let live = Arc::new(Live::new(generation(url.parse().unwrap(), settings, all.collect())));
        let random = Arc::new(SystemRandom::default());
        let ring = KeyRing::of(MasterKey::generate(&*random).unwrap());
        let vault = Arc::new(Vault::new(ring, random.clone()));
        let scribe = Arc::new(Scribe::over(store.clone()));
        let stored = Stored::new(vault, store.clone(), scribe.clone(), clock.clone());
        let connections = Arc::new(Connections::with_stored(stored));
        let revocations = connections
            .vault()
            .map(|vault| Arc::new(Revocations::new(vault, store.clone(), clock.clone(), random.clone())));
        let cut = Arc::new(Cut { log: store.clone(), left: AtomicUsize::new(usize::MAX) });
        let connect = Connect::new(connect::Parts {
            live: live.clone(),
            connections: connections.clone(),
            vault: connections.vault(),
            records: cut.clone(),
            audit: store.clone(),
            activity: activity.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            random,
            provider,
            revocations,
        });
        let connect = match trial {
            Some(trial) => connect.with_trial(trial),
            None => connect,
        };
        let connect = Arc::new(connect);
        let shared = Shared { live: live.clone(), metrics: metrics.clone(), clock: clock.clone() as Arc<dyn Clock> };
        let welcome = Arc::new(Reception(connect.clone()));
        let running = open_public(listener, shared, Arc::new(Inbox::default()), welcome);
        Self {
            door,
            service: Arc::default(),
            connect,
            connections,
            store,
            cut,
            scribe,
            activity,
            metrics,
            clock,
            live,
            _running: running,
            _directory: directory,
        }
    }

    /// From here on these definitions are in force, and files of these integrations have errors; `?` is one of which
    /// nobody can say what it defines.
    pub fn swap(&self, definitions: &[&str], faulty: &[&str]) {
        let before = self.live.load();
        let integrations = definitions.iter().map(|text| Arc::new(compiled(text)));
        let rejected = |id: &&str| FileStatus {
            file: Arc::new(format!("{id}.yaml").into()),
            integration: (*id != "?").then(|| Arc::from(*id)),
            state: FileState::Rejected,
            problems: Arc::from([]),
            left_out: LeftOut::default(),
        };
        self.live.swap(Generation {
            number: before.number + 1,
            since: before.since,
            fingerprint: before.fingerprint,
            gateway: Arc::clone(&before.gateway),
            files: faulty.iter().map(rejected).collect(),
            integrations: integrations.map(|one| (Arc::clone(&one.id), one)).collect(),
        });
    }

    /// The flow of a process that begins now, over the same store.
    pub fn another(&self) -> Connect {
        let random = Arc::new(SystemRandom::default());
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let revocations = |vault| Arc::new(Revocations::new(vault, store.clone(), clock.clone(), random.clone()));
        Connect::new(connect::Parts {
            live: self.live.clone(),
            connections: self.connections.clone(),
            vault: self.connections.vault(),
            records: self.store.clone(),
            audit: self.store.clone(),
            activity: self.activity.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            revocations: self.connections.vault().map(revocations),
            random: random.clone(),
            provider: self.service.clone(),
        })
    }

    /// The definitions in force.
    pub fn generation(&self) -> Arc<Generation> {
        self.live.load()
    }

    /// Takes this many requests a minute from one source from now on.
    pub fn take_at_most(&self, count: u32) {
        let now = self.live.load();
        let rate_per_source = Rate { count, period: Duration::from_mins(1) };
        let settings = Settings { rate_per_source, ..now.gateway.connect.clone() };
        self.live.swap(generation(now.gateway.public_url.clone(), settings, now.integrations.clone()));
    }

    /// A link to connect `hub/acme`, told to the application.
    pub async fn link(&self) -> Made {
        self.link_for(|wanted| wanted.return_to = Some(format!("{APP}/done?x=1"))).await
    }

    pub async fn link_for(&self, change: impl FnOnce(&mut Wanted)) -> Made {
        let mut wanted = Wanted { integration: "hub".to_owned(), connection: "acme".to_owned(), ..Wanted::default() };
        change(&mut wanted);
        self.connect.link("operator", wanted).await.unwrap()
    }

    /// A browser that has been sent to the service, with its link.
    pub async fn departed(&self) -> (Browser<'_>, Made) {
        let (mut browser, made) = (Browser::new(self), self.link().await);
        browser.get(target(&made.url)).await;
        let left = browser.post(target(&made.url), "input.site=main").await;
        assert_eq!(left.status, 200, "{}", left.text());
        (browser, made)
    }

    pub async fn state_of(&self, made: &Made) -> String {
        self.connect.outcome(&made.result).await.unwrap().unwrap().state.to_owned()
    }

    /// The access token of `hub/acme`, where there is one.
    pub async fn token(&self) -> Option<String> {
        let generation = self.live.load();
        let hub = generation.integration("hub").unwrap();
        let found = self.connections.resolve(&generation, hub, "acme").await.ok()?;
        match &found.credential {
            Credential::Tokens(tokens) => tokens.token(None).map(|token| token.expose().clone()),
            _ => None,
        }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Keys of a collection of records.
    pub async fn records(&self, collection: &str) -> usize {
        self.store.keys(collection).await.unwrap().len()
    }

    /// How many flows of `hub` ended so, as metrics have it.
    pub fn counted(&self, result: &str) -> u64 {
        self.metrics.connect_flows.with_label_values(&["hub", result]).get()
    }

    /// Actions and details of the audit log, oldest first.
    pub async fn audit(&self) -> Vec<(String, Value)> {
        let entries = self.store.read(1, 1_000).await.unwrap();
        entries.into_iter().map(|record| (record.entry.action, record.entry.detail)).collect()
    }
}

fn generation(public_url: url::Url, connect: Settings, integrations: Integrations) -> Generation {
    let nowhere = || Listen::unix("/nonexistent");
    let fixed = Fixed {
        mode: Mode::Development,
        public: nowhere(),
        proxy: nowhere(),
        admin: nowhere(),
        tls: Vec::new(),
        integrations: Vec::new(),
        state: State::Postgres,
        key: KeySource::Missing,
        previous: PreviousKeys::default(),
        egress: trunkline::definition::plan::egress::Egress::default(),
        vault: None,
        trace: None,
        not_run: Vec::new(),
    };
    let gateway = Gateway {
        fixed,
        public_url,
        doors: trunkline::definition::plan::gateway::Doors::default(),
        admin: Admin::default(),
        connect,
        destinations: Vec::new(),
        callers: Vec::new(),
        private_networks: vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }],
        workers: 1,
        durable_calls: trunkline::definition::plan::rule::Retry::default(),
        limits: Limits::default(),
        upkeep: Upkeep::default(),
        own: Arc::new(trunkline::definition::plan::Integration::own(Vec::new())),
        notifications: trunkline::definition::plan::notifications::Notifications::default(),
        activity: trunkline::definition::plan::gateway::Activity::default(),
        usage: trunkline::definition::plan::gateway::Usage::default(),
    };
    Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway),
        files: Vec::<_>::new(),
        integrations,
    }
}

/// Path and query of an address of the door.
pub fn target(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find('/').map_or("/", |at| rest.split_at(at).1)
}

/// A browser: it keeps cookies, and sends them back.
pub struct Browser<'a> {
    desk: &'a Desk,
    pub cookie: Option<String>,
}

impl<'a> Browser<'a> {
    pub fn new(desk: &'a Desk) -> Self {
        Self { desk, cookie: None }
    }

    pub async fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "", "").await
    }

    pub async fn post(&mut self, target: &str, form: &str) -> Reply {
        let headers =
            "Content-Type: application/x-www-form-urlencoded\r\nOrigin: null\r\nSec-Fetch-Site: same-origin\r\n";
        self.ask("POST", target, headers, form).await
    }

    pub async fn ask(&mut self, method: &str, target: &str, headers: &str, body: &str) -> Reply {
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let length = if body.is_empty() && method != "POST" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{cookie}{headers}{length}\r\n{body}");
        let mut wire = Wire::open(self.desk.door).await;
        wire.send(request).await;
        let reply = if method == "HEAD" { wire.head_only().await } else { wire.reply().await };
        if let Some(set) = reply.header("set-cookie") {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        reply
    }

    /// Comes back from the service with `query`, and follows to the page that says how it ended.
    pub async fn callback(&mut self, query: &str) -> Reply {
        self.get(&format!("/api/auth/callback/hub?{query}")).await
    }

    /// Comes back with a code, and follows to the outcome.
    pub async fn succeed(&mut self) -> Reply {
        let query = format!("state={}&code=the-code", self.desk.service.state());
        let reply = self.callback(&query).await;
        assert_eq!(reply.status, 303, "{}", reply.text());
        self.get(reply.header("location").unwrap()).await
    }
}

/// A page's text as browsers read it, as far as addresses go: the engine writes slashes as references.
pub fn html(reply: &Reply) -> String {
    reply.text().replace("&#x2f;", "/")
}

/// A failed flow's `error` in the API.
pub fn error_of(shown: &connect::Shown) -> Value {
    shown.error.clone().unwrap_or(json!(null))
}

/// How long a flow lasts, and a little more.
pub const TOO_LONG: Duration = Duration::from_mins(11);
