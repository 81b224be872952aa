//! The gateway file, `trunkline.yaml`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::secret::Secret;

use super::bounds::Limits;
use super::form::{Filled, OneOrMany, Ordered, Short, ShortOr, single_key};
use super::limits::DeliveryRetry;
use super::notifications::Notifications;
use super::plugin::Plugin;
use super::rule::Rule;
use super::scalar::{
    Cidr, DurationText, GrammarVersion, Id, Method, RateText, SecretText, SizeText, SocketMode, Template,
};
use super::trace::Trace;
use super::usage::Usage;

/// Pointers of values whose references the reader leaves as they are, because what they name need not
/// be there yet: in development mode the master key is made by itself.
pub const UNEXPANDED: [&str; 1] = ["/secrets/key"];

/// How durable calls are carried out.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DurableCalls {
    /// When one is tried again that had no success and may be made again. Default: 3 attempts from 2s.
    pub retry: Option<DeliveryRetry>,
}

/// The settings of a deployment.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Trunkline gateway")]
pub struct Gateway {
    /// The grammar's version. Always 1.
    pub trunkline: GrammarVersion,
    /// What the gateway allows. Default `production`. `development` makes a master key by itself, lets
    /// services be at plain HTTP on loopback, and allows `serve --mock`; it says so in the log, on the
    /// page and in a metric. Takes effect at start.
    pub mode: Option<Mode>,
    /// Where the three doors listen. Takes effect at start.
    pub listen: Option<Listen>,
    /// Where services and people reach the public door from outside: the base of webhook and callback
    /// addresses. Must be https outside development mode.
    #[schemars(example = &"https://hooks.example.com", extend("x-url" = "public"))]
    pub public_url: String,
    /// Directories of integration files, relative to this file. Takes effect at start.
    pub integrations: Filled<String>,
    /// Where state is kept. Default: `sled` in `./data`. Takes effect at start.
    pub state: Option<State>,
    /// What seals credentials, the Vault server whose secrets may be named, and the directories whose files may.
    /// Takes effect at start, but `files` at once.
    pub secrets: Option<Secrets>,
    /// The way out, where calls must leave through a proxy. Takes effect at start.
    pub egress: Option<Egress>,
    /// Who may use the admin door.
    pub admin: Option<Admin>,
    /// How people connect accounts.
    pub connect: Option<Connect>,
    /// Places of your own that actions deliver to, by id.
    #[serde(default)]
    #[schemars(extend("x-sees" = "message", "x-names" = "id"))]
    pub destinations: Ordered<Destination>,
    /// Applications that may use the proxy door.
    #[serde(default)]
    pub callers: Vec<Caller>,
    /// Networks that integrations with `allow_private` may reach. Default: none.
    #[serde(default)]
    pub private_networks: Vec<Cidr>,
    /// How many deliveries run at once. Default 10.
    #[schemars(range(min = 1, max = 1000))]
    pub workers: Option<u32>,
    /// How durable calls (`Trunkline-Async: true`) are carried out.
    pub durable_calls: Option<DurableCalls>,
    /// How connections are kept usable.
    pub upkeep: Option<Upkeep>,
    /// What is remembered of calls.
    pub activity: Option<Activity>,
    /// What is counted of calls.
    pub usage: Option<Usage>,
    /// Bounds of what the doors take in.
    pub limits: Option<Limits>,
    /// What happens because of the gateway's own events, such as `trunkline.breaker.open`.
    #[serde(default)]
    #[schemars(extend("x-sees" = "rule"))]
    pub rules: Vec<Rule>,
    /// How much is told of the gateway's own events.
    pub notifications: Option<Notifications>,
    /// Which traces are recorded, and where they go. Default: none.
    pub trace: Option<Trace>,
    /// Sandboxed modules, by name.
    #[serde(default)]
    #[schemars(extend("x-names" = "id"))]
    pub plugins: Ordered<ShortOr<Plugin>>,
}

/// What the gateway allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// What a first try needs and production must not have.
    Development,
    /// Nothing of that.
    Production,
}

/// Where the three doors listen: an address and port, `unix:PATH`, or a map with more.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Webhooks, callbacks, connect pages. Default `0.0.0.0:8080`.
    pub public: Option<ShortOr<Door>>,
    /// The application's way out. Default `127.0.0.1:8081`.
    pub proxy: Option<ShortOr<Door>>,
    /// The admin page, API, metrics, health. Default `127.0.0.1:8082`.
    pub admin: Option<ShortOr<Door>>,
}

/// Where a door listens, and what stands before it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// An address and port, or `unix:PATH`. Default: the door's own.
    pub address: Option<String>,
    /// The mode of a Unix socket's file. Default `0660`.
    pub mode: Option<SocketMode>,
    /// What the door shows; it then speaks TLS 1.2 and 1.3 and nothing else, and at the public and proxy
    /// doors HTTP/2 to whoever offers it. Default: plain HTTP, for a TLS proxy before the door. A changed
    /// certificate counts from the next connection on; that a door speaks TLS at all takes effect at start.
    pub tls: Option<Tls>,
    /// Networks of load balancers whose connections begin with a PROXY protocol header (version 1 or 2): the
    /// address in it is the client's. A connection of theirs without one is closed; from elsewhere such a
    /// header is a malformed request. For the public and the proxy door. Default: none.
    #[serde(default)]
    pub proxy_protocol: Vec<Cidr>,
    /// Networks of HTTP proxies whose `Forwarded` or `X-Forwarded-For` is believed: limits by address then
    /// count clients, not the proxies. From elsewhere these headers say nothing. For the public and the admin
    /// door. Default: none.
    #[serde(default)]
    pub forwarded: Vec<Cidr>,
}

impl Short for Door {
    const SHORT: &'static str = "an address and port, or unix:PATH";

    fn from_short(text: String) -> Result<Self, String> {
        Ok(Self { address: Some(text), ..Self::default() })
    }
}

/// Where state is kept: one kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key)]
pub enum State {
    /// In a directory of this host: a journal and its indexes. One process at a time.
    Sled(Embedded),
    /// In a `PostgreSQL` database that several processes share.
    Postgres(Postgres),
}

/// State in a directory of this host.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// The directory, relative to this file. Made when it is not there.
    pub path: String,
    /// The index's cache. Default 32MiB.
    pub cache: Option<SizeText>,
    /// Webhooks are refused with 503 when the disk has less than this free. Default 256MiB, or a
    /// twentieth of the disk where that is less.
    pub min_free: Option<SizeText>,
    /// How long finished events are kept. Default 7d.
    pub retention: Option<DurationText>,
}

/// State in a database.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// Its address with name and password, as `postgres://…`.
    pub url: SecretText,
    /// How many connections to it are kept. Default 10.
    #[schemars(range(min = 1, max = 1000))]
    pub connections: Option<u32>,
    /// How long finished events are kept. Default 7d.
    pub retention: Option<DurationText>,
}

/// What seals credentials, and where secrets are kept besides.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The master key: `${file:PATH}` or `${env:NAME}`, as `trunkline keys generate` makes one; or
    /// `{ transit: … }`, and Vault wraps it. `trunkline keys rotate` replaces it while the gateway runs.
    pub key: ShortOr<MasterKey>,
    /// Keys that were master keys before: they still open what they sealed, until a rotation has sealed it
    /// anew, which begins by itself at start.
    #[serde(default)]
    pub previous: OneOrMany<SecretText>,
    /// Directories, relative to this file, below which integration files may name files by `${file:PATH}`, besides
    /// the directories of this file and of the definitions themselves. What is the gateway's own (the master key,
    /// the state, whatever this file takes secrets from) they may name nowhere. Default: files right in
    /// `/run/secrets`, and nothing deeper.
    pub files: Option<Vec<String>>,
    /// The Vault or `OpenBao` server that `${vault:PATH#FIELD}` and `key: { transit: … }` mean.
    pub vault: Option<Vault>,
}

/// Where the master key is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key)]
pub enum MasterKey {
    /// In the store, wrapped by a key of the Transit engine of the server under `vault`: it is unwrapped
    /// at start and kept in memory, so that the server need not be there afterwards.
    Transit(Transit),
    /// Where a text says.
    #[serde(skip)]
    #[schemars(skip)]
    Reference(SecretText),
}

impl Short for MasterKey {
    const SHORT: &'static str = "the master key by reference: ${file:PATH} or ${env:NAME}";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-secret", "yes")];

    fn from_short(text: String) -> Result<Self, String> {
        Ok(Self::Reference(SecretText(Secret::new(text))))
    }
}

/// A key of the Transit engine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transit {
    /// The key's name. It is made beforehand, as by `vault write -f transit/keys/trunkline`.
    pub key: String,
    /// Where the engine is mounted. Default `transit`.
    pub mount: Option<String>,
}

/// A Vault or `OpenBao` server. Takes effect at start; files and variables that its `auth` names are read
/// again at each sign-in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Vault {
    /// Its address, such as `https://vault.example.com:8200`. Plain HTTP is for development mode, and for
    /// an agent on this machine.
    pub url: String,
    /// How to sign in: one way.
    pub auth: VaultAuth,
    /// Where the KV version 2 engine is mounted whose secrets `${vault:PATH#FIELD}` names. Default
    /// `secret`.
    pub mount: Option<String>,
    /// Which secrets definitions may name, by path, such as `integrations/*`; `*` stands for any text. Default: all but
    /// those that this file names, which no definition may.
    pub definitions: Option<Vec<String>>,
    /// The namespace that everything here is in. Default: none.
    pub namespace: Option<String>,
    /// How often secrets are read again; a changed one reloads what names it. Default 1m.
    pub poll: Option<DurationText>,
    /// How long one request may take. Default 5s.
    pub timeout: Option<DurationText>,
    /// Certificates in PEM that are trusted instead of the machine's, usually `${file:ca.pem}`.
    #[schemars(extend("x-pem" = "certificate"))]
    pub ca: Option<String>,
}

/// How to sign in to Vault: one way.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = single_key)]
pub enum VaultAuth {
    /// With a token. It is renewed while it can be.
    Token(SecretText),
    /// As an application.
    Approle(AppRole),
    /// As a pod, with its service account.
    Kubernetes(Kubernetes),
}

/// How an application signs in to Vault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AppRole {
    /// Its role's id.
    pub role_id: String,
    /// Its secret id.
    pub secret_id: SecretText,
    /// Where the method is mounted. Default `approle`.
    pub mount: Option<String>,
}

/// How a pod signs in to Vault.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The role that its service account is bound to.
    pub role: String,
    /// The service account's token, usually `${file:/var/run/secrets/kubernetes.io/serviceaccount/token}`.
    pub jwt: SecretText,
    /// Where the method is mounted. Default `kubernetes`.
    pub mount: Option<String>,
}

/// The way out. Nothing of it is taken from the environment but what a reference names.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Egress {
    /// The HTTP proxy that calls to services and destinations leave through, by CONNECT. Default: none.
    pub proxy: ShortOr<EgressProxy>,
    /// What goes without it, in the form of the `NO_PROXY` variable: names (with all below them), `.NAME` (only
    /// what is below), addresses, address ranges, each with `:PORT` or without, or `*`; a text may hold several
    /// between commas. Loopback always goes without. Addresses and ranges mean hosts written as addresses. Default:
    /// none.
    #[serde(default)]
    pub no_proxy: OneOrMany<String>,
}

/// An HTTP proxy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressProxy {
    /// Its address, as `http://HOST:PORT`.
    pub url: String,
    /// Who asks, for Basic authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<SecretText>,
    /// The whole of it where a reference says it, with name and password.
    #[serde(skip)]
    #[schemars(skip)]
    pub whole: Option<SecretText>,
}

impl Short for EgressProxy {
    const SHORT: &'static str =
        "the proxy by reference, such as ${env:HTTPS_PROXY}, with name and password where it has them";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-secret", "yes")];

    fn from_short(text: String) -> Result<Self, String> {
        let whole = Some(SecretText(Secret::new(text)));
        Ok(Self { url: String::new(), username: None, password: None, whole })
    }
}

/// Who may use the admin door.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// What people and scripts send as `Authorization: Bearer`, at least 16 bytes. Without it the API
    /// answers in development mode and on loopback only; metrics and health are open to all who reach
    /// the door.
    pub token: Option<SecretText>,
    /// Names under which the door may be asked besides `localhost` and addresses, such as
    /// `trunkline.internal`. A request for another name is refused with 421.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Where people reach the page from outside, such as `https://ops.example.com/trunkline`: its host is one of
    /// `hosts`, its path stands before every address of the page whether or not the proxy before the door takes
    /// it away, and https makes the page's cookie a secure one.
    #[schemars(example = &"https://ops.example.com/trunkline", extend("x-url" = "base"))]
    pub url: Option<String>,
    /// Who may sign in on the page or use the API, by name. `operator` is who has `token`.
    #[serde(default)]
    #[schemars(extend("x-names" = "id"))]
    pub people: Ordered<Person>,
    /// How long someone stays signed in on the page.
    pub session: Option<Session>,
    /// Whether page and API change nothing, whoever asks: what is wanted comes from files alone. Signing in and
    /// out, reading the files again, tests that keep nothing, and events and dead letters that are replayed go on.
    #[serde(default)]
    pub read_only: bool,
}

/// Someone who may use the admin door.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// What they may do.
    pub role: Role,
    /// What proves their password on the page: an argon2id hash, as `trunkline password` prints it.
    #[schemars(example = &"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$HASH")]
    pub password_hash: Option<String>,
    /// What they, or a program of theirs, send as `Authorization: Bearer`, at least 16 bytes. It signs in on the
    /// page, too.
    pub token: Option<SecretText>,
}

/// What someone may do at the admin door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything that is shown, and change nothing.
    Viewer,
    /// Everything that the door offers.
    Operator,
}

/// How long someone stays signed in.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// Without a request for this long. Default 30m.
    pub idle: Option<DurationText>,
    /// In all. Default 12h.
    pub lifetime: Option<DurationText>,
}

/// How people connect accounts.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// Origins of your own pages, such as `https://app.example.com`: exactly these may be told how a
    /// connect flow ended, and people are sent back to no other. Addresses without an origin, such as
    /// `/settings`, are below the origin of `public_url` and always allowed. Default: none.
    #[serde(default)]
    pub origins: Vec<String>,
    /// How long a connect link can be used, at most 7d. Default 15m.
    pub link_ttl: Option<DurationText>,
    /// Requests for connect pages and callbacks from one address (of IPv6 from one /64); what comes beyond is answered
    /// with 429. Files of the pages do not count. Default 300/m.
    pub rate_per_source: Option<RateText>,
}

/// A place of your own that actions deliver to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Where messages go, by POST. Plain HTTP is for loopback and private networks.
    #[schemars(extend("x-url" = "destination"))]
    pub url: String,
    /// What messages are signed with (Standard Webhooks: HMAC-SHA256 over id, time and body). Several
    /// while rotating: each signs. A `whsec_` prefix means base 64.
    #[serde(default)]
    pub signing_secret: OneOrMany<SecretText>,
    /// Headers that every message carries.
    #[serde(default)]
    #[schemars(extend("x-headers" = true))]
    pub headers: Ordered<Template>,
    /// How many messages are under way at once. Default 10.
    #[schemars(range(min = 1, max = 1000))]
    pub concurrency: Option<u32>,
    /// How long an answer may take; a 2xx within it is success. Default 15s.
    pub timeout: Option<DurationText>,
    /// When to try again, where the rule does not say. Default: 3 attempts from 2s.
    pub retry: Option<DeliveryRetry>,
}

/// An application that may use the proxy door.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// What the log and the audit log call it.
    pub id: Id,
    /// Its key: what it sends as `Authorization: Bearer`. At least 16 bytes; only its digest is kept.
    pub key: SecretText,
    /// What it may do; any may match. Default: nothing.
    #[serde(default)]
    pub allow: Vec<Grant>,
}

/// What a caller may do.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Which integrations; `*` stands for any text.
    pub integration: String,
    /// Which connections; `*` stands for any text.
    pub connection: String,
    /// Which methods. Default: all. For an endpoint that is called by name it is the method of the endpoint's
    /// own request that counts, not the `POST` that it is called with.
    #[serde(default)]
    pub methods: Vec<Method>,
    /// Which paths below the integration, such as `/v1/customers*`; that of an endpoint called by name is
    /// `/-/NAME`. Default: all.
    #[serde(default)]
    pub paths: Vec<String>,
    /// Which of a connection's tokens a call may name (`Trunkline-Token`), such as `user`; the one of calls that name
    /// none is `default`. `*` stands for any text. Default: all.
    #[serde(default)]
    pub tokens: Vec<String>,
}

/// How connections are kept usable.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upkeep {
    /// How many tokens of one integration are renewed at once; others wait for their turn. Default 8.
    #[schemars(range(min = 1, max = 1000))]
    pub refreshes_at_once: Option<u32>,
    /// How often each stored connection is tried by its integration's `api.test`, where there is one; at
    /// least a minute counts, and `0s` is never. Default 12h.
    pub test_every: Option<DurationText>,
}

/// What is remembered of calls. Every call that is answered has an entry, whoever answers it; the audit log has a line
/// for groups of them.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Activity {
    /// How many of the newest calls and webhooks `/api/activity` has; the oldest go first. Each takes about half a
    /// kilobyte of memory. Default 10000.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub keep: Option<u32>,
    /// For how long. Default 7d.
    pub retain: Option<DurationText>,
    /// The most bytes of the files they are in, at least 1MiB; the oldest file goes first, and what is in it with it.
    /// Default 256MiB.
    pub bytes: Option<SizeText>,
    /// The share of calls with a status below 400, 0 to 1, that get an entry; all others always do. Default 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: Option<f64>,
    /// What is kept of the headers and bodies of calls, without known secrets and without what stands under names such
    /// as `password`.
    pub content: Option<ActivityContent>,
    /// How often the audit log gets a line that says who made how many calls with which connection;
    /// at least a second counts. Default 10s.
    pub audit_every: Option<DurationText>,
    /// How many may look at the live activity at once; others are refused (429). Default 100.
    #[schemars(range(min = 0, max = 200))]
    pub viewers: Option<u32>,
    /// How long one of them may take nothing of what is sent before it is let go; at least 1s. Default 10s.
    pub viewer_timeout: Option<DurationText>,
}

/// What is kept of the headers and bodies of calls: of those of applications, of deliveries that call endpoints, and of
/// tests; never of calls for tokens.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivityContent {
    /// Of which calls. Default errors.
    pub of: Option<ContentOf>,
    /// The most bytes of each body; the beginning is kept. 64B to 64KiB. Default 4KiB.
    pub bytes: Option<SizeText>,
    /// The most bytes of memory that all take together; the oldest go first. Default 16MiB.
    pub memory: Option<SizeText>,
    /// Of at most how many calls a second. Default 100.
    #[schemars(range(min = 0, max = 100_000))]
    pub rate: Option<u32>,
}

/// Of which calls headers and bodies are kept.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContentOf {
    /// Of none.
    None,
    /// Of those that failed: refused here, answered with 400 or above, or not at all.
    Errors,
    /// Of all that have an entry.
    All,
}

/// The certificate of a door.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain in PEM, usually `${file:tls/cert.pem}`.
    #[schemars(extend("x-pem" = "certificate"))]
    pub certificate: String,
    /// Its key in PEM, such as `${file:tls/key.pem}`.
    pub key: SecretText,
}
