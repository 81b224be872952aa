//! Both doors in this process, over definitions made by hand.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};
use serde_json::{Map, json};
use sha2::{Digest, Sha256};
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::base::secret::Secret;
use trunkline::base::units::Reserve;
use trunkline::connection::connect::door::{Visit, Welcome};
use trunkline::connection::{Connections, Refresher};
use trunkline::definition::live::{Generation, Live};
use trunkline::definition::plan::about::About;
use trunkline::definition::plan::api::{Api, Placement, Timeouts, Transport};
use trunkline::definition::plan::egress::Egress;
use trunkline::definition::plan::gateway::{
    Admin, Caller, Connect, DoorName, Doors as Settings, Fixed, Gateway, Grant, KeySource, Limits, Listen, Mode,
    Network, State,
};
use trunkline::definition::plan::policy::Policy;
use trunkline::definition::plan::rule::Glob;
use trunkline::definition::plan::{Auth, DeclaredConnection, DeclaredCredential, Fingerprint, Integration};
use trunkline::net::client::Clients;
use trunkline::net::resolve::{Found, Lookup, Resolver, Unresolved};
use trunkline::net::trust::Trust;
use trunkline::net::{Dialer, Redirect};
use trunkline::outbound::{self, Outbound};
use trunkline::proxy::{Parts, ProxyDoor};
use trunkline::respond::{Answer, Refusal};
use trunkline::server::{Listener, Running, Shared, open_proxy, open_public};
use trunkline::telemetry::metrics::Metrics;
use trunkline::template::Text;
use trunkline::webhook::door::{Admission, Receive, RequestHead};

use super::store::NoEvents;

/// The key of the caller that may do everything.
pub const KEY: &str = "test-key-0123456789abcdef";

/// An integration `svc` whose API is at `base_url`, with an API key `sk_test` as Bearer.
pub fn service(base_url: &str) -> Integration {
    let api = Api {
        base_url: Text::compile(base_url).unwrap(),
        hosts: Vec::new(),
        headers: Vec::new(),
        credential: header_credential("Bearer {{ api_key }}"),
        test: None,
        endpoints: Vec::new(),
        ok: None,
        error: None,
        policy: Policy::default(),
        timeouts: Timeouts::default(),
        cache: None,
        body_limit: 1 << 20,
        transport: Transport::default(),
    };
    let connection = DeclaredConnection {
        id: Arc::from("default"),
        credential: DeclaredCredential::ApiKey(Secret::from("sk_test")),
        inputs: Map::new(),
        saved: Map::new(),
    };
    Integration {
        id: Arc::from("svc"),
        title: "Service".to_owned(),
        about: About::default(),
        fingerprint: Fingerprint([0; 32]),
        inputs: Vec::new(),
        auth: Auth::ApiKey { pattern: None },
        api: Some(api),
        connections: vec![connection],
        webhook: None,
        prompts: trunkline::definition::plan::Prompts::default(),
        rules: Vec::new(),
        referenced: Vec::new(),
    }
}

/// `Authorization` with this value.
pub fn header_credential(value: &str) -> Placement {
    Placement::Header { name: HeaderName::from_static("authorization"), value: Text::compile(value).unwrap() }
}

/// How the doors are set up.
pub struct Setup {
    pub integrations: Vec<Integration>,
    pub limits: Limits,
    pub mode: Mode,
    pub callers: Vec<Caller>,
    pub private_networks: Vec<Network>,
    pub names: Vec<(&'static str, Vec<&'static str>)>,
    pub proxy: Listen,
    pub mock: Option<SocketAddr>,
    pub doors: Settings,
    pub egress: Egress,
    pub tls: Vec<DoorName>,
    pub clock: Arc<dyn Clock>,
}

impl Setup {
    /// Doors for one integration, in development mode, so that loopback may be called.
    pub fn of(integration: Integration) -> Self {
        let everything = Grant {
            integration: Glob::new("*"),
            connection: Glob::new("*"),
            methods: Vec::new(),
            paths: Vec::new(),
            tokens: Vec::new(),
        };
        Self {
            integrations: vec![integration],
            limits: Limits::default(),
            mode: Mode::Development,
            callers: vec![caller("app", KEY, everything)],
            private_networks: Vec::new(),
            names: Vec::new(),
            proxy: Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))),
            mock: None,
            doors: Settings::default(),
            egress: Egress::default(),
            tls: Vec::new(),
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A caller with one grant.
pub fn caller(id: &str, key: &str, grant: Grant) -> Caller {
    Caller { id: Arc::from(id), key_hash: Sha256::digest(key).into(), allow: vec![grant] }
}

/// Names that DNS knows in a test; addresses are never looked up anywhere else.
#[derive(Debug)]
struct Names(Vec<(&'static str, Vec<&'static str>)>);

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> Result<Found, Unresolved> {
        let known = self.0.iter().find(|(known, _)| *known == name).ok_or(Unresolved::NoAddress)?;
        let addresses = known.1.iter().map(|address| address.parse().unwrap()).collect();
        Ok(Found { addresses, ttl: Duration::from_mins(1) })
    }
}

/// Takes webhooks for `svc` and remembers them.
#[derive(Debug, Default)]
pub struct Inbox {
    live: Mutex<Option<Arc<Live>>>,
    pub received: Mutex<Vec<(RequestHead, Bytes)>>,
}

#[async_trait]
impl Receive for Inbox {
    async fn admit(&self, head: &RequestHead) -> Result<Admission, Answer> {
        let generation = self.live.lock().unwrap().as_ref().unwrap().load();
        let known = generation.integration(&head.integration).cloned();
        let integration = known.ok_or_else(|| Refusal::NotFound.answer("no such webhook"))?;
        Ok(Admission { generation, integration, endpoint: None, max_body: 100_000, admitted_at: Duration::ZERO })
    }

    async fn receive(&self, _admission: Admission, head: RequestHead, body: Bytes) -> Answer {
        let answer = Answer::json(StatusCode::OK, &json!({ "bytes": body.len() }));
        self.received.lock().unwrap().push((head, body));
        answer
    }
}

/// Welcomes nobody: these doors connect no accounts.
#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Welcome for Nobody {
    async fn answer(&self, _visit: Visit) -> Answer {
        Refusal::CallerForbidden.answer("no accounts are connected here")
    }
}

/// Both doors, open.
pub struct Doors {
    pub public: SocketAddr,
    pub proxy: SocketAddr,
    pub inbox: Arc<Inbox>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
    pub outbound: Arc<Outbound>,
    pub clients: Clients,
    pub live: Arc<Live>,
    pub running: [Running; 2],
}

impl Doors {
    pub fn start(setup: Setup) -> Self {
        Self::over(setup, Arc::new(Connections::declared()), None)
    }

    /// Doors over connections that are stored, and what renews their tokens.
    pub fn over(setup: Setup, connections: Arc<Connections>, refresher: Option<Arc<Refresher>>) -> Self {
        let clock = Arc::clone(&setup.clock);
        let metrics = Arc::new(Metrics::new().unwrap());
        let listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (public, proxy) = (Listener::bind(&listen).unwrap(), Listener::bind(&setup.proxy).unwrap());
        let names = Arc::new(Names(setup.names.clone()));
        let redirect = setup.mock.map(|address| Redirect { address });
        let dialer = Dialer::new(Resolver::new(names, Arc::clone(&clock)), redirect);
        let dialer = Arc::new(dialer.leaving_by(setup.egress.clone()));
        let live = Arc::new(Live::new(generation(setup)));
        let shared = Shared { live: Arc::clone(&live), metrics: Arc::clone(&metrics), clock: Arc::clone(&clock) };
        let activity = Arc::new(Activity::default());
        let clients = Clients::new(Arc::clone(&dialer), Trust::of(&[]));
        let outbound = Arc::new(Outbound::new(outbound::Parts {
            random: Arc::new(SystemRandom::default()),
            connections,
            refresher,
            clients: clients.clone(),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            activity: Arc::clone(&activity),
        }));
        let parts = Parts {
            live: Arc::clone(&live),
            outbound: Arc::clone(&outbound),
            clients: clients.clone(),
            dialer,
            metrics: Arc::clone(&metrics),
            clock,
            random: Arc::new(SystemRandom::default()),
            events: Arc::new(NoEvents),
            backlog: Arc::new(NoEvents),
        };
        let door = Arc::new(ProxyDoor::new(parts).unwrap());
        let inbox = Arc::new(Inbox { live: Mutex::new(Some(Arc::clone(&live))), ..Inbox::default() });
        let running = [
            open_public(public, shared.clone(), Arc::clone(&inbox) as Arc<dyn Receive>, Arc::new(Nobody)),
            open_proxy(proxy, shared, door),
        ];
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let [public, proxy] = [0, 1].map(|door| running[door].address().tcp().unwrap_or(nowhere));
        Self { public, proxy, inbox, metrics, activity, outbound, clients, live, running }
    }

    /// The value of a metric's sample, as `name{labels}` reads in the exposition.
    pub fn metric(&self, sample: &str) -> f64 {
        let text = String::from_utf8(self.metrics.render().unwrap()).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok());
        line.unwrap_or(0.0)
    }
}

/// The definitions of a set-up, in force.
pub fn generation(setup: Setup) -> Generation {
    let fixed = Fixed {
        mode: setup.mode,
        public: setup.proxy.clone(),
        proxy: setup.proxy.clone(),
        admin: setup.proxy,
        tls: setup.tls,
        integrations: Vec::new(),
        state: State::Sled { path: PathBuf::new(), cache: 0, min_free: Reserve::Bytes(0), retention: Duration::ZERO },
        key: KeySource::Missing,
        previous: trunkline::definition::plan::gateway::PreviousKeys::default(),
        egress: setup.egress.clone(),
        vault: None,
        trace: None,
        not_run: Vec::new(),
    };
    let gateway = Gateway {
        fixed,
        public_url: "http://localhost:8080".parse().unwrap(),
        doors: setup.doors,
        admin: Admin::default(),
        connect: Connect::default(),
        destinations: Vec::new(),
        callers: setup.callers,
        private_networks: setup.private_networks,
        workers: 1,
        durable_calls: trunkline::definition::plan::rule::Retry::default(),
        upkeep: trunkline::definition::plan::gateway::Upkeep::default(),
        own: Arc::new(trunkline::definition::plan::Integration::own(Vec::new())),
        notifications: trunkline::definition::plan::notifications::Notifications::default(),
        activity: trunkline::definition::plan::gateway::Activity::default(),
        usage: trunkline::definition::plan::gateway::Usage::default(),
        limits: setup.limits,
    };
    let by_id = |integration: Integration| (Arc::clone(&integration.id), Arc::new(integration));
    let integrations: HashMap<_, _> = setup.integrations.into_iter().map(by_id).collect();
    Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway),
        files: Vec::new(),
        integrations,
    }
}

/// A grant for some methods and paths of one integration and connection.
pub fn grant(integration: &str, connection: &str, methods: &[Method], paths: &[&str]) -> Grant {
    Grant {
        integration: Glob::new(integration),
        connection: Glob::new(connection),
        methods: methods.to_vec(),
        paths: paths.iter().map(|path| Glob::new(path)).collect(),
        tokens: Vec::new(),
    }
}
