//! The gateway's own settings, compiled from `trunkline.yaml`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use serde::Serialize;
use url::Url;

use super::Integration;
use super::egress::Egress;
use super::identity::Identity;
pub use super::limits::{Bounds, Limits};
use super::notifications::Notifications;
use super::rule::{Glob, Retry};
use super::trace::Trace;
use crate::base::secret::Secret;
use crate::base::units::{Rate, Reserve};
use crate::template::Text;

pub use super::activity::{Activity, Content, ContentOf};
pub use super::usage::Usage;

/// The gateway's own settings. Those under [`Fixed`] take effect at start only.
#[derive(Debug)]
pub struct Gateway {
    /// What cannot change while the program runs.
    pub fixed: Fixed,
    /// Where services and people reach the public door.
    pub public_url: Url,
    /// What of the doors counts without a restart.
    pub doors: Doors,
    /// Who may use the admin door.
    pub admin: Admin,
    /// How people connect accounts.
    pub connect: Connect,
    /// Places of the user's own that actions deliver to.
    pub destinations: Vec<Destination>,
    /// Applications that may use the proxy door.
    pub callers: Vec<Caller>,
    /// Networks that integrations with `allow_private` may reach, in CIDR notation.
    pub private_networks: Vec<Network>,
    /// How many deliveries run at once.
    pub workers: usize,
    /// When a durable call is tried again.
    pub durable_calls: Retry,
    /// How connections are kept usable.
    pub upkeep: Upkeep,
    /// What is remembered of calls.
    pub activity: Activity,
    /// What is counted of calls.
    pub usage: Usage,
    /// Bounds of what is taken in.
    pub limits: Limits,
    /// What the gateway's own events come to: its rules are those of the gateway file.
    pub own: Arc<Integration>,
    /// How much is told of these events.
    pub notifications: Notifications,
}

/// A door's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DoorName {
    /// Webhooks and people who connect accounts.
    Public,
    /// The application's calls.
    Proxy,
    /// The admin page, API and metrics.
    Admin,
}

impl DoorName {
    /// Its name in the file, in metrics and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Proxy => "proxy",
            Self::Admin => "admin",
        }
    }
}

/// What of the doors counts without a restart.
#[derive(Debug, Default)]
pub struct Doors {
    /// The public door.
    pub public: Door,
    /// The proxy door.
    pub proxy: Door,
    /// The admin door.
    pub admin: Door,
}

impl Doors {
    /// One of them.
    pub fn get(&self, name: DoorName) -> &Door {
        match name {
            DoorName::Public => &self.public,
            DoorName::Proxy => &self.proxy,
            DoorName::Admin => &self.admin,
        }
    }
}

/// What stands before a door, and what the door shows.
#[derive(Debug, Default)]
pub struct Door {
    /// What it shows in TLS; `None` is plain HTTP. Whether it speaks TLS at all is decided at start.
    pub tls: Option<Arc<Identity>>,
    /// Peers whose connections begin with a PROXY protocol header.
    pub proxy_protocol: Vec<Network>,
    /// Peers whose `Forwarded` or `X-Forwarded-For` is believed.
    pub forwarded: Vec<Network>,
}

/// How connections are kept usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upkeep {
    /// How many tokens of one integration are renewed at once. Default 8.
    pub refreshes_at_once: usize,
    /// How often each stored connection is tested; `None` is never. Default 12 h.
    pub test_every: Option<Duration>,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self { refreshes_at_once: 8, test_every: Some(Duration::from_hours(12)) }
    }
}

impl Gateway {
    /// The destination with this id.
    pub fn destination(&self, id: &str) -> Option<&Destination> {
        self.destinations.iter().find(|destination| &*destination.id == id)
    }
}

/// Who may use the admin door. The default is nobody from elsewhere than this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admin {
    /// Who may sign in; empty only where the door is open to this machine or shut.
    pub accounts: Vec<Account>,
    /// Names under which the door may be asked besides `localhost` and addresses; lower case, no port.
    pub hosts: Vec<String>,
    /// Where people reach the page from outside.
    pub url: Option<Url>,
    /// How long someone stays signed in.
    pub session: Session,
    /// Whether page and API change nothing.
    pub read_only: bool,
}

impl Admin {
    /// What stands before every address of the page: empty, or a path without a slash at its end.
    pub fn base_path(&self) -> &str {
        self.url.as_ref().map_or("", |url| url.path().trim_end_matches('/'))
    }

    /// The account of this name.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| &*account.name == name)
    }
}

/// Someone who may use the admin door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// What the audit log calls them.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// The argon2id hash of their password, in PHC form.
    pub password: Option<Arc<str>>,
    /// SHA-256 of their token. Tokens are long, so a plain digest cannot be searched.
    pub token: Option<[u8; 32]>,
}

/// What someone may do at the admin door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See, and change nothing.
    Viewer,
    /// Everything.
    Operator,
}

/// How long someone stays signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Without a request for this long. Default 30 minutes.
    pub idle: Duration,
    /// In all. Default 12 hours.
    pub lifetime: Duration,
}

impl Default for Session {
    fn default() -> Self {
        Self { idle: Duration::from_mins(30), lifetime: Duration::from_hours(12) }
    }
}

/// How people connect accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// Origins that may be told how a flow ended, and that people may be sent back to: scheme, host and a
    /// port that is not the scheme's own, as browsers write them.
    pub origins: Vec<String>,
    /// How long a connect link can be used. Default 15 minutes.
    pub link_ttl: Duration,
    /// Requests for pages and callbacks from one source. Default 300 a minute.
    pub rate_per_source: Rate,
}

const RATE_PER_SOURCE: Rate = Rate { count: 300, period: Duration::from_mins(1) };

impl Default for Connect {
    fn default() -> Self {
        Self { origins: Vec::new(), link_ttl: Duration::from_mins(15), rate_per_source: RATE_PER_SOURCE }
    }
}

/// What cannot change while the program runs; a reload that changes one of these says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// What a first try needs and production must not have.
    pub mode: Mode,
    /// Where the public door listens.
    pub public: Listen,
    /// Where the proxy door listens.
    pub proxy: Listen,
    /// Where the admin door listens.
    pub admin: Listen,
    /// The doors that speak TLS.
    pub tls: Vec<DoorName>,
    /// Directories of integration files.
    pub integrations: Vec<PathBuf>,
    /// Where state is kept.
    pub state: State,
    /// Where the master key is.
    pub key: KeySource,
    /// Key rings whose keys still open what they sealed, and seal nothing.
    pub previous: PreviousKeys,
    /// The way out.
    pub egress: Egress,
    /// The server whose secrets references may name.
    pub vault: Option<Arc<VaultServer>>,
    /// Which traces are recorded, and where they go; `None` is none.
    pub trace: Option<Trace>,
    /// What is written, not run by this version, and cannot be left out silently: the program does not start.
    pub not_run: Vec<String>,
}

/// A Vault or `OpenBao` server.
#[derive(Debug, PartialEq, Eq)]
pub struct VaultServer {
    /// Its address, without a path.
    pub url: Url,
    /// How to sign in.
    pub auth: VaultAuth,
    /// Where the KV version 2 engine is mounted. Default `secret`.
    pub mount: String,
    /// The namespace that everything is in.
    pub namespace: Option<String>,
    /// How often secrets are read again. Default 1 min.
    pub poll: Duration,
    /// How long one request may take. Default 5 s.
    pub timeout: Duration,
    /// Certificates (DER) trusted instead of the machine's.
    pub ca: Option<Arc<[Vec<u8>]>>,
}

/// How to sign in to Vault. Only what names a way counts when two are compared: the secrets are read again
/// at each sign-in.
pub enum VaultAuth {
    /// With a token.
    Token(Secret),
    /// By a login: where its method is mounted, and what is sent.
    Login {
        /// The method's mount, such as `approle`.
        mount: String,
        /// The fields of the login's body, some of them secret.
        fields: Vec<(&'static str, Secret)>,
    },
}

impl PartialEq for VaultAuth {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(_), Self::Token(_)) => true,
            (Self::Login { mount: a, fields: left }, Self::Login { mount: b, fields: right }) => {
                a == b && left.iter().map(|(name, _)| name).eq(right.iter().map(|(name, _)| name))
            }
            _ => false,
        }
    }
}

impl Eq for VaultAuth {}

impl std::fmt::Debug for VaultAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token"),
            Self::Login { mount, .. } => f.debug_tuple("Login").field(mount).finish(),
        }
    }
}

/// The texts of key rings that were in use before.
#[derive(Clone, Default)]
pub struct PreviousKeys(pub Arc<[Secret]>);

impl PartialEq for PreviousKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&*other.0).all(|(a, b)| a.expose() == b.expose())
    }
}

impl Eq for PreviousKeys {}

impl std::fmt::Debug for PreviousKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreviousKeys({})", self.0.len())
    }
}

/// What the gateway allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// What a first try needs: a key made by itself, plain HTTP to loopback, `serve --mock`.
    Development,
    /// Nothing of that.
    #[default]
    Production,
}

/// Where a door listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket, and the mode of its file.
    Unix(PathBuf, u32),
}

impl Listen {
    /// The mode of a Unix socket's file where the settings do not say.
    pub const MODE: u32 = 0o660;

    /// A Unix socket of the usual mode.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::Unix(path.into(), Self::MODE)
    }
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Embedded.
    Sled {
        /// The directory.
        path: PathBuf,
        /// The store's cache in bytes. Default 32 MiB.
        cache: u64,
        /// Nothing is accepted when the disk has less than this free.
        min_free: Reserve,
        /// How long finished events are kept. Default 7 days.
        retention: Duration,
    },
    /// `PostgreSQL`, which this version does not run.
    Postgres,
}

/// Where the master key is.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file that holds it, or will in development mode.
    File(PathBuf),
    /// The name of an environment variable that holds it.
    Environment(String),
    /// In the store, wrapped by a key of Vault's Transit engine.
    Transit(TransitKey),
    /// Nowhere: only a deployment without stored credentials runs like this.
    Missing,
}

/// A key of the Transit engine that wraps master keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitKey {
    /// Where the engine is mounted. Default `transit`.
    pub mount: String,
    /// The key's name.
    pub key: String,
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Environment(name) => f.debug_tuple("Environment").field(name).finish(),
            Self::Transit(key) => f.debug_tuple("Transit").field(key).finish(),
            Self::Missing => f.write_str("Missing"),
        }
    }
}

/// A place of the user's own that actions deliver to.
#[derive(Debug)]
pub struct Destination {
    /// Its id.
    pub id: Arc<str>,
    /// Where messages go, by POST.
    pub url: Url,
    /// What messages are signed with (Standard Webhooks); several while rotating: each signs.
    pub signing_secrets: Vec<Secret>,
    /// Headers that every message carries.
    pub headers: Vec<(HeaderName, Text)>,
    /// How many messages are under way at once. Default 10.
    pub concurrency: usize,
    /// How long an answer may take. Default 15 s.
    pub timeout: Duration,
    /// When to try again, where the rule does not say.
    pub retry: Option<Retry>,
}

/// An application that may use the proxy door.
#[derive(Debug)]
pub struct Caller {
    /// Its id: what logs and the audit log call it.
    pub id: Arc<str>,
    /// SHA-256 of its key. Keys are random and long, so a plain digest cannot be searched.
    pub key_hash: [u8; 32],
    /// What it may do; any may match.
    pub allow: Vec<Grant>,
}

/// What a caller may do.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Which integrations.
    pub integration: Glob,
    /// Which connections.
    pub connection: Glob,
    /// Which methods; empty means all.
    pub methods: Vec<Method>,
    /// Which paths below the integration, beginning with a slash; empty means all.
    pub paths: Vec<Glob>,
    /// Which tokens of a connection, the usual one being `default`; empty means all.
    pub tokens: Vec<Glob>,
}

/// An address range in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// The first address.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Network {
    /// Whether an address is in it. Networks of one family have none of the other.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shifted = |bits: u128, width: u32| {
            let prefix = u32::from(self.prefix).min(width);
            bits.checked_shr(width - prefix).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                shifted(u32::from(ours).into(), 32) == shifted(u32::from(theirs).into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                shifted(u128::from(ours), 128) == shifted(u128::from(theirs), 128)
            }
            _ => false,
        }
    }
}
