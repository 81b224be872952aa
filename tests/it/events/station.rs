//! A receiver, workers and a real store around definitions written as YAML, with a clock that stands.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sha2::Sha256;
use tempfile::TempDir;
use trunkline::action::Actions;
use trunkline::activity::Activity;
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::id::{DeliveryId, EventId};
use trunkline::base::random::SystemRandom;
use trunkline::base::units::Reserve;
use trunkline::connection::Connections;
use trunkline::connection::endpoints::{self, Endpoints};
use trunkline::definition::compile;
use trunkline::definition::live::{Generation, Live};
use trunkline::definition::load::tree;
use trunkline::definition::plan::gateway::{
    Admin, Connect, Destination, Fixed, Gateway, KeySource, Limits, Listen, Mode, Network, State,
};
use trunkline::definition::plan::{Fingerprint, Integration};
use trunkline::definition::templates::Templates;
use trunkline::net::resolve::{Found, Lookup, Resolver, Unresolved};
use trunkline::net::{Clients, Dialer, Trust};
use trunkline::outbound::{self, Outbound};
use trunkline::queue::durable::{Carry, DurableCall};
use trunkline::queue::{self, Act, Again, Report, Running};
use trunkline::respond::Answer;
use trunkline::store::embedded::{Embedded, Options, open};
use trunkline::store::model::{Delivery, EventState};
use trunkline::store::{Events, Work};
use trunkline::telemetry::metrics::Metrics;
use trunkline::webhook::door::{Receive, RequestHead};
use trunkline::webhook::tally::Tallies;
use trunkline::webhook::{self, Receiver};

use crate::support::store::NoEvents;

pub const SECRET: &str = "a-secret-of-enough-bytes";
/// What messages to destinations are signed with.
pub const SIGNING: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const START: Timestamp = Timestamp::from_seconds(1_769_853_600);

/// An integration `hub` whose events are signed over the body, with these rules.
pub fn hub(rules: &str) -> String {
    format!(
        "trunkline: 1\nid: hub\ntitle: Hub\nwebhook:\n  verify:\n    hmac: {{ algorithm: sha256, signature: {{ \
         header: X-Sig, encoding: hex }}, signed: \"{{{{ body }}}}\" }}\n  secrets: [{SECRET}]\n  event: body.type\n  \
         delivery_id: body.id\n{rules}"
    )
}

/// A rule that sends every event to these destinations as it came.
pub fn to(destinations: &[&str]) -> String {
    let actions: Vec<_> = destinations.iter().map(|id| format!("{{ deliver: {id} }}")).collect();
    hub(&format!("rules: [{{ id: all, when: '*', do: [{}] }}]", actions.join(", ")))
}

/// What a station is made of.
pub struct Plan {
    pub definitions: Vec<String>,
    pub destinations: Vec<(&'static str, u16)>,
    pub workers: usize,
    pub mode: Mode,
    pub act: Option<Arc<dyn Act>>,
}

impl Plan {
    pub fn of(definition: String) -> Self {
        let definitions = vec![definition];
        Self { definitions, destinations: Vec::new(), workers: 10, mode: Mode::Development, act: None }
    }

    /// With a destination at a port of this machine.
    pub fn with(mut self, id: &'static str, port: u16) -> Self {
        self.destinations.push((id, port));
        self
    }

    fn generation(&self, number: u64) -> Generation {
        let compiled = self.definitions.iter().map(|text| compiled(text));
        Generation {
            number,
            since: START,
            fingerprint: Fingerprint([0; 32]),
            gateway: Arc::new(gateway(self)),
            integrations: compiled.map(|integration| (Arc::clone(&integration.id), Arc::new(integration))).collect(),
            files: Vec::new(),
        }
    }
}

pub fn compiled(text: &str) -> Integration {
    let parsed = tree::parse(&Arc::new(PathBuf::from("test.yaml")), text);
    assert!(parsed.problems.is_empty(), "{text}\n{:?}", parsed.problems);
    compile::integration(&parsed.document.unwrap(), &Templates::new()).unwrap()
}

fn gateway(plan: &Plan) -> Gateway {
    let listen = || Listen::unix("/nonexistent");
    let fixed = Fixed {
        mode: plan.mode,
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
    let destination = |(id, port): &(&str, u16)| Destination {
        id: Arc::from(*id),
        url: format!("http://127.0.0.1:{port}/in?x=1").parse().unwrap(),
        signing_secrets: vec![SIGNING.into()],
        headers: Vec::new(),
        concurrency: 10,
        timeout: Duration::from_secs(15),
        retry: None,
    };
    Gateway {
        fixed,
        public_url: "http://localhost:8080".parse().unwrap(),
        doors: trunkline::definition::plan::gateway::Doors::default(),
        admin: Admin::default(),
        connect: Connect::default(),
        destinations: plan.destinations.iter().map(destination).collect(),
        callers: Vec::new(),
        private_networks: vec![Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 }],
        workers: plan.workers,
        durable_calls: trunkline::definition::plan::rule::Retry::default(),
        upkeep: trunkline::definition::plan::gateway::Upkeep::default(),
        own: Arc::new(trunkline::definition::plan::Integration::own(Vec::new())),
        notifications: trunkline::definition::plan::notifications::Notifications::default(),
        activity: trunkline::definition::plan::gateway::Activity::default(),
        usage: trunkline::definition::plan::gateway::Usage::default(),
        limits: Limits::default(),
    }
}

#[derive(Debug)]
struct NoNames;

#[async_trait]
impl Lookup for NoNames {
    async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
        Err(Unresolved::NoAddress)
    }
}

pub struct Station {
    pub clock: Arc<ManualClock>,
    pub store: Arc<Embedded>,
    pub live: Arc<Live>,
    pub receiver: Receiver,
    pub workers: Running,
    pub metrics: Arc<Metrics>,
    pub plan: Plan,
    pub directory: TempDir,
}

impl Station {
    pub async fn start(plan: Plan) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        Self::start_at(plan, tempfile::tempdir().unwrap(), clock).await
    }

    async fn start_at(plan: Plan, directory: TempDir, clock: Arc<ManualClock>) -> Self {
        let options = Options {
            min_free: Reserve::Bytes(0),
            ..Options::new(directory.path(), Arc::clone(&clock) as Arc<dyn Clock>)
        };
        let store = tokio::task::spawn_blocking(move || open(&options)).await.unwrap().unwrap();
        let live = Arc::new(Live::new(plan.generation(1)));
        let (metrics, random) = (Arc::new(Metrics::new().unwrap()), Arc::new(SystemRandom::default()));
        let holds = Arc::new(queue::Holds::default());
        let endpoints = Endpoints::new(endpoints::Parts {
            vault: None,
            records: Arc::clone(&store) as _,
            audit: Arc::clone(&store) as _,
            clock: Arc::clone(&clock) as _,
            random: Arc::clone(&random) as _,
            holding: Arc::clone(&holds) as _,
        });
        let receiver = Receiver::new(webhook::Parts {
            endpoints: Arc::new(endpoints),
            tallies: Arc::new(Tallies::new(Arc::clone(&store) as _)),
            live: Arc::clone(&live),
            events: Arc::clone(&store) as Arc<dyn Events>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::clone(&random) as _,
            metrics: Arc::clone(&metrics),
            activity: Arc::default(),
        });
        let workers = queue::start(queue::Parts {
            clocks: Arc::default(),
            holds,
            live: Arc::clone(&live),
            events: Arc::clone(&store) as Arc<dyn Events>,
            work: Arc::clone(&store) as Arc<dyn Work>,
            act: plan.act.clone().unwrap_or_else(|| Arc::new(actions(&clock, &metrics))),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: random as _,
            metrics: Arc::clone(&metrics),
        });
        Self { clock, store, live, receiver, workers, metrics, plan, directory }
    }

    /// Ends as a killed process does: nothing is given back or written any more.
    pub async fn crash(self) -> (Plan, TempDir, Arc<ManualClock>) {
        let Self { workers, receiver, store, plan, directory, clock, .. } = self;
        drop((workers, receiver));
        store.close().await;
        (plan, directory, clock)
    }

    pub async fn resume((plan, directory, clock): (Plan, TempDir, Arc<ManualClock>)) -> Self {
        Self::start_at(plan, directory, clock).await
    }

    /// Puts other definitions into force.
    pub fn reload(&mut self, definitions: Vec<String>) {
        self.plan.definitions = definitions;
        self.live.swap(self.plan.generation(self.live.load().number + 1));
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub fn pass(&self, by: Duration) {
        self.clock.advance(by);
        self.workers.look();
    }

    /// Sends a body with its signature and answers the status and the event.
    pub async fn send(&self, body: &str) -> (u16, Option<EventId>) {
        let answer = self.offer(head(body, &signature(body)), body).await;
        (answer.status.as_u16(), event_of(&answer))
    }

    /// Sends an event of a type, and answers its id.
    pub async fn accept(&self, event_type: &str, id: &str) -> EventId {
        let (status, event) = self.send(&format!("{{\"type\":\"{event_type}\",\"id\":\"{id}\"}}")).await;
        assert_eq!(status, 202);
        event.unwrap()
    }

    pub async fn offer(&self, head: RequestHead, body: &str) -> Answer {
        match self.receiver.admit(&head).await {
            Ok(admission) => self.receiver.receive(admission, head, Bytes::copy_from_slice(body.as_bytes())).await,
            Err(refused) => refused,
        }
    }

    pub async fn deliveries(&self, id: EventId) -> Vec<Delivery> {
        self.store.deliveries(id).await.unwrap()
    }

    /// Waits until an event stands so.
    pub async fn until(&self, id: EventId, state: EventState) {
        eventually(&format!("{id} is {state:?}"), async || {
            self.store.event(id).await.unwrap().is_some_and(|event| event.head.state == state)
        })
        .await;
    }

    /// Waits until the event's first delivery has so many attempts recorded.
    pub async fn until_tried(&self, id: EventId, attempts: usize) -> Delivery {
        eventually(&format!("{id} was tried {attempts} times"), async || {
            self.deliveries(id).await.first().is_some_and(|delivery| delivery.attempts.len() == attempts)
        })
        .await;
        self.deliveries(id).await.remove(0)
    }

    pub fn metric(&self, sample: &str) -> u64 {
        let text = String::from_utf8(self.metrics.render().unwrap()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok()).unwrap_or(0)
    }
}

fn actions(clock: &Arc<ManualClock>, metrics: &Arc<Metrics>) -> Actions {
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let dialer = Dialer::new(Resolver::new(Arc::new(NoNames), Arc::clone(&clock)), None);
    let clients = Clients::new(Arc::new(dialer), Trust::of(&[]));
    let outbound = Outbound::new(outbound::Parts {
        random: Arc::new(SystemRandom::default()),
        connections: Arc::new(Connections::declared()),
        refresher: None,
        clients: clients.clone(),
        clock: Arc::clone(&clock),
        metrics: Arc::clone(metrics),
        activity: Arc::new(Activity::default()),
    });
    Actions { outbound: Arc::new(outbound), clients, clock, calls: Arc::new(NoCalls), events: Arc::new(NoEvents) }
}

/// Makes none of an application's calls.
struct NoCalls;

#[async_trait]
impl Carry for NoCalls {
    async fn carry(&self, _: &Arc<Generation>, _: &DurableCall, _: DeliveryId) -> Report {
        Report::failed(None, "no calls are made here", Again::Never)
    }

    fn repeats_safely(&self, _: &Generation, _: &DurableCall) -> bool {
        false
    }
}

/// Looks again and again, each time after others could run, until `holds`; fails after half a minute.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let look = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), look).await;
    assert!(waited.is_ok(), "it never came that {what}");
}

pub fn signature(body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

pub fn head(body: &str, signature: &str) -> RequestHead {
    let headers = HashMap::from([("x-sig", signature), ("content-type", "application/json"), ("cookie", "c")]);
    let header = |(name, value): (&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    RequestHead {
        token: None,
        method: Method::POST,
        integration: "hub".to_owned(),
        query: String::new(),
        target: "/webhooks/hub".to_owned(),
        headers: Arc::new(headers.into_iter().map(header).collect::<HeaderMap>()),
        source: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        content_length: Some(body.len() as u64),
    }
}

fn event_of(answer: &Answer) -> Option<EventId> {
    let json: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
    json["event"].as_str()?.parse().ok()
}
