//! The gateway's way out with definitions made by hand, and names that all lead to this machine.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, Method};
use serde_json::{Map, Value, json};
use trunkline::activity::{Activity, Asker};
use trunkline::base::backoff::Backoff;
use trunkline::base::clock::{SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::Connections;
use trunkline::definition::live::Generation;
use trunkline::definition::plan::about::About;
use trunkline::definition::plan::api::{Api, HostPattern, Placement, Timeouts, Transport};
use trunkline::definition::plan::gateway::{
    Admin, Connect, Fixed, Gateway, KeySource, Limits, Listen, Mode, Network, State,
};
use trunkline::definition::plan::policy::{Policy, Retry};
use trunkline::definition::plan::request::{Body, CredentialUse, Request, Target};
use trunkline::definition::plan::{Auth, DeclaredConnection, DeclaredCredential, Fingerprint, Integration};
use trunkline::net::resolve::{Found, Lookup, Resolver, Unresolved};
use trunkline::net::{Clients, Dialer, Redirect, Trust};
use trunkline::outbound::{Call, Outbound, OutboundError, Parts};
use trunkline::request::Outcome;
use trunkline::telemetry::metrics::Metrics;
use trunkline::template::{Expr, Text, Tree};

/// Names under `.example` lead to this machine, `private.test` and such to where they say.
#[derive(Debug)]
pub struct Names;

#[async_trait]
impl Lookup for Names {
    async fn lookup(&self, name: &str) -> Result<Found, Unresolved> {
        let address = match name {
            "private.test" => IpAddr::from([10, 0, 0, 1]),
            "metadata.test" => IpAddr::from([169, 254, 169, 254]),
            "metadata6.test" => "fd00:ec2::254".parse().unwrap(),
            "mapped.test" => "::ffff:127.0.0.1".parse().unwrap(),
            "nowhere.test" => return Err(Unresolved::NoAddress),
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        Ok(Found { addresses: vec![address], ttl: Duration::from_mins(1) })
    }
}

pub struct World {
    pub outbound: Outbound,
    pub clients: Clients,
    pub metrics: Arc<Metrics>,
    pub generation: Generation,
}

/// What a test changes of the usual definition.
pub struct Setting {
    pub base_url: String,
    pub placement: Placement,
    pub credential: DeclaredCredential,
    pub transport: Transport,
    pub hosts: Vec<HostPattern>,
    pub timeouts: Timeouts,
    pub policy: Policy,
    pub mode: Mode,
    pub private_networks: Vec<Network>,
    pub redirect: Option<Redirect>,
    pub limits: Limits,
}

impl Setting {
    /// An API on this machine that wants a key in a header, in a gateway that may dial it.
    pub fn at(base_url: impl Into<String>) -> Self {
        let value = Text::compile("Bearer {{ api_key }}").unwrap();
        Self {
            base_url: base_url.into(),
            placement: Placement::Header { name: http::header::AUTHORIZATION, value },
            credential: DeclaredCredential::ApiKey("canary-credential".into()),
            transport: Transport { allow_private: true, allow_plain_http: true, ..Transport::default() },
            hosts: Vec::new(),
            timeouts: Timeouts::default(),
            policy: Policy::default(),
            mode: Mode::Production,
            private_networks: vec![Network { address: IpAddr::from([127, 0, 0, 0]), prefix: 8 }],
            redirect: None,
            limits: Limits::default(),
        }
    }

    pub fn world(self) -> World {
        let dialer = Dialer::new(Resolver::new(Arc::new(Names), Arc::new(SystemClock::new())), self.redirect);
        let clients = Clients::new(Arc::new(dialer), Trust::of(&[]));
        let metrics = Arc::new(Metrics::new().unwrap());
        let outbound = Outbound::new(Parts {
            random: Arc::new(SystemRandom::default()),
            connections: Arc::new(Connections::declared()),
            refresher: None,
            clients: clients.clone(),
            clock: Arc::new(SystemClock::new()),
            metrics: Arc::clone(&metrics),
            activity: Arc::new(Activity::default()),
        });
        World { outbound, clients, metrics, generation: self.generation() }
    }

    fn generation(self) -> Generation {
        let gateway = Gateway { limits: self.limits, ..gateway(self.mode, self.private_networks) };
        let inputs = json!({ "site": "canary-input" }).as_object().unwrap().clone();
        let connection =
            DeclaredConnection { id: "default".into(), credential: self.credential, inputs, saved: Map::new() };
        let api = Api {
            base_url: Text::compile(&self.base_url).unwrap(),
            hosts: self.hosts,
            headers: vec![(HeaderName::from_static("x-site"), Text::compile("{{ input.site }}").unwrap())],
            credential: self.placement,
            test: Some(request(Method::GET, "/test")),
            endpoints: Vec::new(),
            ok: None,
            error: Some(Expr::compile("body.error").unwrap()),
            policy: self.policy,
            timeouts: self.timeouts,
            cache: None,
            body_limit: 1 << 20,
            transport: self.transport,
        };
        let integration = Integration {
            id: "svc".into(),
            title: "Service".into(),
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
        };
        Generation {
            number: 1,
            since: Timestamp::default(),
            fingerprint: Fingerprint([0; 32]),
            gateway: Arc::new(gateway),
            integrations: HashMap::from([(Arc::from("svc"), Arc::new(integration))]),
            files: Vec::new(),
        }
    }
}

/// One try, by a service that takes idempotency keys.
pub fn keyed() -> Policy {
    let backoff = Backoff { base: Duration::ZERO, cap: Duration::ZERO };
    let idempotency_key = Some(HeaderName::from_static("idempotency-key"));
    let retry = Retry { attempts: 1, backoff, statuses: Vec::new(), idempotency_key, retry_after: None };
    Policy { retry: Some(retry), ..Policy::default() }
}

/// Settings in which little is set.
pub fn gateway(mode: Mode, private_networks: Vec<Network>) -> Gateway {
    let listen = || Listen::unix("/nonexistent");
    let fixed = Fixed {
        mode,
        public: listen(),
        proxy: listen(),
        admin: listen(),
        tls: Vec::new(),
        integrations: Vec::new(),
        state: State::Postgres,
        key: KeySource::Missing,
        previous: trunkline::definition::plan::gateway::PreviousKeys::default(),
        egress: trunkline::definition::plan::egress::Egress::default(),
        vault: None,
        trace: None,
        not_run: Vec::new(),
    };
    Gateway {
        fixed,
        public_url: url::Url::parse("https://gateway.example").unwrap(),
        doors: trunkline::definition::plan::gateway::Doors::default(),
        admin: Admin::default(),
        connect: Connect::default(),
        destinations: Vec::new(),
        callers: Vec::new(),
        private_networks,
        workers: 1,
        durable_calls: trunkline::definition::plan::rule::Retry::default(),
        upkeep: trunkline::definition::plan::gateway::Upkeep::default(),
        own: Arc::new(trunkline::definition::plan::Integration::own(Vec::new())),
        notifications: trunkline::definition::plan::notifications::Notifications::default(),
        activity: trunkline::definition::plan::gateway::Activity::default(),
        usage: trunkline::definition::plan::gateway::Usage::default(),
        limits: Limits::default(),
    }
}

/// A request without more than method and path.
pub fn request(method: Method, path: &str) -> Request {
    Request {
        method,
        target: Target::Path { path: Text::compile(path).unwrap(), query: None },
        query: Vec::new(),
        headers: Vec::new(),
        body: Body::Empty,
        basic: None,
        credential: CredentialUse::Token(None),
        ok: None,
        error: None,
        save: Vec::new(),
        result: None,
        timeout: None,
    }
}

/// A request with a JSON body.
pub fn with_json(method: Method, path: &str, body: &Value) -> Request {
    Request { body: Body::Json(Tree::compile(body, &mut |_, error| panic!("{error}"))), ..request(method, path) }
}

impl World {
    pub async fn run(&self, request: &Request) -> Result<Outcome, OutboundError> {
        self.run_with(request, &json!({}), None).await
    }

    pub async fn run_with(
        &self,
        request: &Request,
        input: &Value,
        idempotency_key: Option<&str>,
    ) -> Result<Outcome, OutboundError> {
        let call = Call {
            generation: &self.generation,
            integration: self.generation.integration("svc").unwrap(),
            connection: "default",
            request,
            endpoint: None,
            input: input.as_object().unwrap(),
            asker: Asker::Test,
            caller: None,
            idempotency_key,
            deadline: None,
            setting: None,
        };
        self.outbound.run(call).await
    }

    pub async fn get(&self, path: &str) -> Result<Outcome, OutboundError> {
        self.run(&request(Method::GET, path)).await
    }
}
