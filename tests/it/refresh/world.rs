//! A store, a service that rotates, and processes that share both.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Map;
use tempfile::TempDir;
use trunkline::base::clock::{ManualClock, Timestamp};
use trunkline::base::random::{SeededRandom, SystemRandom};
use trunkline::base::units::Reserve;
use trunkline::connection::connect::Revocations;
use trunkline::connection::health::Health;
use trunkline::connection::refresh::{self, Parts};
use trunkline::connection::{
    Connection, Connections, Content, Credential, Issued, Neighbours, Opening, Refresher, Tokens,
};
use trunkline::definition::live::{Generation, Live};
use trunkline::definition::plan::gateway::{KeySource, Mode, PreviousKeys};
use trunkline::definition::plan::{Fingerprint, Integration};
use trunkline::definition::workspace::{Reading, select};
use trunkline::store::embedded::{self, Embedded, Options};
use trunkline::store::model::RecordKey;
use trunkline::store::{Records, StoreError};
use trunkline::telemetry::metrics::Metrics;

use super::provider::{Line, Provider, Step, Trap};
use crate::calls::world::gateway;

/// How long an access token lives.
pub const LIFE: Duration = Duration::from_hours(1);
pub const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Tokens of this number, issued now.
pub fn issued(number: usize, now: Timestamp) -> Issued {
    Issued {
        access: format!("a{number}").as_str().into(),
        refresh: Some(format!("r{number}").as_str().into()),
        expires_at: Some(now.after(LIFE)),
        issued_at: now,
        scopes: None,
        client: None,
    }
}

/// The access token of a connection; without a name the default one.
pub fn access(connection: &Connection, name: Option<&str>) -> String {
    let Credential::Tokens(tokens) = &connection.credential else { panic!("{connection:?}") };
    tokens.token(name).unwrap().expose().clone()
}

/// A store that springs a trap where a crash would hurt.
pub struct Wired {
    pub store: Arc<Embedded>,
    pub trap: Arc<Trap>,
}

#[async_trait]
impl Records for Wired {
    async fn put(&self, key: &RecordKey, value: Bytes, expected: Option<u64>) -> Result<u64, StoreError> {
        let around = match &*key.collection {
            "connections" => Some((Step::BeforeTokens, Step::AfterTokens)),
            refresh::COLLECTION => {
                let intent: serde_json::Value = serde_json::from_slice(&value).unwrap();
                let open = intent["open"] == true;
                Some(if open { (Step::BeforeIntent, Step::AfterIntent) } else { (Step::BeforeClose, Step::AfterClose) })
            }
            _ => None,
        };
        if let Some((before, _)) = around {
            self.trap.pass(before).await;
        }
        let put = self.store.put(key, value, expected).await;
        if let Some((_, after)) = around {
            self.trap.pass(after).await;
        }
        put
    }

    async fn get(&self, key: &RecordKey) -> Result<Option<(Bytes, u64)>, StoreError> {
        self.store.get(key).await
    }

    async fn remove(&self, key: &RecordKey) -> Result<(), StoreError> {
        self.store.remove(key).await
    }

    async fn take(&self, key: &RecordKey) -> Result<Option<Bytes>, StoreError> {
        self.store.take(key).await
    }

    async fn keys(&self, collection: &str) -> Result<Vec<RecordKey>, StoreError> {
        self.store.keys(collection).await
    }
}

/// What one process has of the world.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub provider: Arc<Provider>,
    pub live: Arc<Live>,
    pub store: Arc<Embedded>,
    pub trap: Arc<Trap>,
    connections: Arc<Connections>,
    pub revocations: Arc<Revocations>,
    key: Arc<TempDir>,
    seed: u64,
    /// Goes with the last process, where it is not the simulation's; last, so that the store goes before.
    directory: Option<Arc<TempDir>>,
}

/// A directory in memory where there is one: what is proved is what was synced, not how fast.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// How the store is opened on a disk.
pub fn options(directory: &Path, clock: &Arc<ManualClock>, trap: &Trap) -> Options {
    Options { min_free: Reserve::Bytes(0), disk: Arc::new(trap.disk.clone()), ..Options::new(directory, clock.clone()) }
}

async fn connections(world: (&Arc<Embedded>, &Arc<Trap>, &Arc<ManualClock>), key: &Path) -> Arc<Connections> {
    let (store, trap, clock) = world;
    let records = Arc::new(Wired { store: store.clone(), trap: trap.clone() });
    let opening = Opening {
        source: KeySource::File(key.join("master.key")),
        previous: PreviousKeys::default(),
        wrap: None,
        mode: Mode::Development,
        environment: Arc::new(|_| None),
        random: Arc::new(SystemRandom::default()),
        records,
        audit: store.clone(),
        clock: clock.clone(),
    };
    Arc::new(Connections::open(opening).await.unwrap())
}

fn revocations(connections: &Connections, store: &Arc<Embedded>, clock: &Arc<ManualClock>) -> Arc<Revocations> {
    let (clock, random) = (clock.clone(), Arc::new(SystemRandom::default()));
    Arc::new(Revocations::new(connections.vault().unwrap(), store.clone(), clock, random))
}

/// Two integrations, `svc` and `other`, of the same service; of these `svc` has replaced tokens taken back.
fn live() -> Arc<Live> {
    static COMPILED: LazyLock<[Arc<Integration>; 2]> =
        LazyLock::new(|| ["svc", "other"].map(|id| compiled(id, "0123456789abcdef")));
    Arc::new(Live::new(generation(COMPILED.iter().map(Arc::clone))))
}

fn generation(all: impl Iterator<Item = Arc<Integration>>) -> Generation {
    let all = all.map(|integration| (Arc::clone(&integration.id), integration));
    Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway(Mode::Production, Vec::new())),
        integrations: all.collect(),
        files: Vec::new(),
    }
}

fn compiled(id: &str, secret: &str) -> Arc<Integration> {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("svc.yaml");
    let replaced = id == "svc";
    let text = format!(
        "
            trunkline: 1
            id: {id}
            auth:
              oauth2:
                authorize: https://svc.example/authorize
                token: https://svc.example/token
                revoke: https://svc.example/revoke
                revoke_replaced: {replaced}
                client: {{ id: '${{env:CLIENT}}', secret: '${{env:CLIENT}}' }}
        "
    );
    std::fs::write(&file, text).unwrap();
    let environment: HashMap<String, String> = [("CLIENT".to_owned(), secret.to_owned())].into();
    let selection = select(&[file]).pop().unwrap();
    let read = Reading { environment: &environment, previous: None, keep_documents: false }.read(&selection);
    let definition = &read.integrations[0];
    Arc::clone(definition.compiled.as_ref().unwrap_or_else(|| panic!("{:?}", definition.problems)))
}

impl World {
    /// A world with one connection, `svc/team`, whose tokens have number 0.
    pub async fn new(seed: u64) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let provider = Arc::new(Provider::new(clock.clone(), Duration::ZERO, true));
        let directory = Arc::new(directory());
        let mut world = Self::at(directory.path(), (provider, clock), Arc::new(Trap::default()), None, seed).await;
        world.directory = Some(directory);
        world.connect(0).await;
        world
    }

    /// What a process finds in a directory.
    pub async fn at(
        directory: &Path,
        (provider, clock): (Arc<Provider>, Arc<ManualClock>),
        trap: Arc<Trap>,
        key: Option<Arc<TempDir>>,
        seed: u64,
    ) -> Self {
        let store = embedded::open(&options(directory, &clock, &trap)).unwrap();
        let key = key.unwrap_or_else(|| Arc::new(self::directory()));
        let connections = connections((&store, &trap, &clock), key.path()).await;
        let revocations = revocations(&connections, &store, &clock);
        Self { clock, provider, live: live(), store, trap, connections, revocations, key, seed, directory: None }
    }

    /// The operator puts another secret of the application into force.
    pub fn correct(&self, secret: &str) {
        self.live.swap(generation(["svc", "other"].map(|id| compiled(id, secret)).into_iter()));
    }

    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    pub fn key(&self) -> Arc<TempDir> {
        self.key.clone()
    }

    /// A process of this world.
    pub fn process(&self, neighbours: Neighbours) -> Arc<Refresher> {
        let parts = Parts {
            live: self.live.clone(),
            connections: self.connections.clone(),
            source: Arc::new(Line { provider: self.provider.clone(), trap: self.trap.clone() }),
            revocations: Some(self.revocations.clone()),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(self.seed)),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        Arc::new(Refresher::new(parts, neighbours).unwrap())
    }

    /// Another process on the same store, with nothing in its memory.
    pub fn second(&self, neighbours: Neighbours) -> (Arc<Refresher>, Self) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.beside(self.trap.clone(), neighbours))
        })
    }

    /// Another process on the same store, with a trap of its own.
    pub async fn beside(&self, trap: Arc<Trap>, neighbours: Neighbours) -> (Arc<Refresher>, Self) {
        let connections = connections((&self.store, &trap, &self.clock), self.key.path()).await;
        let world = Self {
            clock: self.clock.clone(),
            provider: self.provider.clone(),
            live: self.live.clone(),
            store: self.store.clone(),
            trap,
            connections,
            revocations: self.revocations.clone(),
            key: self.key.clone(),
            seed: self.seed + 1,
            directory: self.directory.clone(),
        };
        (world.process(neighbours), world)
    }

    /// The person consents: tokens of this number.
    pub async fn connect(&self, number: usize) {
        self.connect_as("team", number).await;
    }

    pub async fn connect_as(&self, id: &str, number: usize) {
        self.connect_to("svc", id, number).await;
    }

    /// The person of `svc/team` consents to a second token of this name, beside the default one.
    pub async fn connect_second(&self, name: &str, number: usize) {
        use trunkline::base::clock::Clock as _;
        self.provider.consent(number);
        let now = self.clock.now();
        let tokens = Tokens([(Arc::from("default"), issued(0, now)), (Arc::from(name), issued(number, now))].into());
        let content = Content { credential: Credential::Tokens(tokens), inputs: Map::new(), saved: Map::new() };
        let generation = self.live.load();
        self.connections.put("operator", generation.integration("svc").unwrap(), "team", content).await.unwrap();
    }

    pub async fn connect_to(&self, integration: &str, id: &str, number: usize) {
        use trunkline::base::clock::Clock as _;
        self.provider.consent(number);
        let tokens = Tokens([(Arc::from("default"), issued(number, self.clock.now()))].into());
        let content = Content { credential: Credential::Tokens(tokens), inputs: Map::new(), saved: Map::new() };
        let generation = self.live.load();
        let integration = generation.integration(integration).unwrap();
        self.connections.put("operator", integration, id, content).await.unwrap();
    }

    pub async fn health(&self) -> Health {
        self.connections.health("svc", "team").await
    }

    /// Access and refresh token that a process which starts now would find.
    pub async fn stored(&self) -> (String, String) {
        let fresh = connections((&self.store, &self.trap, &self.clock), self.key.path()).await;
        let generation = self.live.load();
        let found = fresh.resolve(&generation, generation.integration("svc").unwrap(), "team").await.unwrap();
        let Credential::Tokens(tokens) = &found.credential else { panic!("{found:?}") };
        let issued = tokens.issued(None).unwrap();
        (issued.access.expose().clone(), issued.refresh.as_ref().unwrap().expose().clone())
    }
}
