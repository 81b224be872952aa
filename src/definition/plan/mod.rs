//! What the request path needs: definitions compiled, every default decided, every name typed.
//!
//! Nothing here reads files or reports problems; `compile` makes these values from raw types. An
//! integration is immutable and shared: a request keeps the `Arc` it began with to its end.
//! Parts whose engines this version lacks stand here as `NotYet` with the words of the answer.

pub mod about;
pub mod activity;
pub mod api;
pub mod assertion;
pub mod auth;
pub mod egress;
pub mod gateway;
pub mod identity;
pub mod limits;
pub mod login;
pub mod moment;
pub mod notifications;
pub mod oauth1;
pub mod oauth2;
pub mod page;
pub mod path;
pub mod policy;
pub mod request;
pub mod rule;
pub mod sigv4;
pub mod trace;
pub mod usage;
pub mod webhook;

use std::fmt;
use std::sync::Arc;

use crate::base::secret::Secret;
use crate::telemetry::notice::OWN;
use about::About;
use api::Api;
pub use auth::Auth;
use rule::Rule;
use webhook::Webhook;

/// A compiled definition of this deployment.
#[derive(Debug)]
pub struct Integration {
    /// Its id: `[a-z0-9_-]`, at most 64 characters; the first segment of its proxy path.
    pub id: Arc<str>,
    /// What people call it.
    pub title: String,
    /// What people are told of it.
    pub about: About,
    /// SHA-256 over the resolved definition with its references expanded: equal when nothing changed.
    pub fingerprint: Fingerprint,
    /// What each connection must tell.
    pub inputs: Vec<Input>,
    /// How connections sign in.
    pub auth: Auth,
    /// What people are asked for who enter what they sign in with.
    pub prompts: Prompts,
    /// The service's API; `None` when the definition has none.
    pub api: Option<Api>,
    /// The connections that the file declares.
    pub connections: Vec<DeclaredConnection>,
    /// How its webhooks come in; `None` when the definition has none.
    pub webhook: Option<Webhook>,
    /// What happens because of its events.
    pub rules: Vec<Rule>,
    /// What references (`${env:…}`) brought into what its calls carry: secrets of the deployment.
    pub referenced: Vec<Secret>,
}

impl Integration {
    /// What the gateway's own events come to. It is in no list of integrations, and nobody can call it.
    pub fn own(rules: Vec<Rule>) -> Self {
        Self {
            id: Arc::from(OWN),
            title: "Trunkline".to_owned(),
            about: About::default(),
            fingerprint: Fingerprint([0; 32]),
            inputs: Vec::new(),
            auth: Auth::None,
            prompts: Prompts::default(),
            api: None,
            connections: Vec::new(),
            webhook: None,
            rules,
            referenced: Vec::new(),
        }
    }

    /// The declared connection with this id.
    pub fn connection(&self, id: &str) -> Option<&DeclaredConnection> {
        self.connections.iter().find(|connection| &*connection.id == id)
    }
}

/// What people are asked for who enter what they sign in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompts {
    /// What the service calls its key.
    pub key: String,
    /// What it calls the name.
    pub username: String,
    /// What it calls the password.
    pub password: String,
    /// Where a person finds them: a page's address or a sentence.
    pub help: Option<String>,
}

impl Default for Prompts {
    fn default() -> Self {
        let owned = str::to_owned;
        Self { key: owned("API key"), username: owned("User name"), password: owned("Password"), help: None }
    }
}

/// A SHA-256 digest that stands for a content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A grammar part that is declared and not run by this version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotYet {
    /// The part, as in `auth.oauth2`.
    pub part: String,
}

impl fmt::Display for NotYet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is declared, and not yet run by this version", self.part)
    }
}

/// Something a connection must tell before it can be used: `input.NAME` in templates.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its name.
    pub name: Arc<str>,
    /// What people call it.
    pub title: String,
    /// Where a person finds it: a page's address or a sentence.
    pub help: Option<String>,
    /// The values there are, where they are few; empty when there are many.
    pub choices: Vec<String>,
    /// Whether a connection may leave it out.
    pub optional: bool,
    /// What stands in for it when a connection does not tell.
    pub default: Option<String>,
    /// What its value must match, anchored by its author.
    pub pattern: Option<regex::Regex>,
    /// Whether it is shown nowhere.
    pub secret: bool,
}

/// A connection that a file declares.
pub struct DeclaredConnection {
    /// Its id within the integration: the value of `Trunkline-Connection`.
    pub id: Arc<str>,
    /// Its credential.
    pub credential: DeclaredCredential,
    /// Its inputs, defaults filled in.
    pub inputs: serde_json::Map<String, serde_json::Value>,
    /// Values that a sign-in would have saved.
    pub saved: serde_json::Map<String, serde_json::Value>,
}

/// Names only: inputs may be secret.
impl fmt::Debug for DeclaredConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inputs: Vec<_> = self.inputs.keys().collect();
        let mut shown = f.debug_struct("DeclaredConnection");
        shown.field("id", &self.id).field("credential", &self.credential).field("inputs", &inputs);
        shown.finish_non_exhaustive()
    }
}

/// The credential of a declared connection.
#[derive(Debug)]
pub enum DeclaredCredential {
    /// None is needed.
    None,
    /// An API key: `api_key` in templates.
    ApiKey(Secret),
    /// Name and password.
    Basic {
        /// The name.
        username: Secret,
        /// The password; may be empty.
        password: Secret,
    },
    /// A token that was got elsewhere.
    Token {
        /// The token.
        token: Secret,
        /// Its secret, where it has one (OAuth 1.0a).
        secret: Option<Secret>,
    },
    /// An access key of AWS.
    AccessKey {
        /// Its id.
        id: Secret,
        /// The key.
        secret: Secret,
        /// The token of temporary credentials.
        session: Option<Secret>,
    },
}
