//! Which connections there are, and what each is.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::credential::Credential;
use super::held::PerConnection;
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, DeclaredConnection, Integration, NotYet};
use crate::respond::Refusal;
use crate::template::Context;

/// The name a connection has when nobody names one.
pub const DEFAULT: &str = "default";

/// One account at a service, ready to be used.
pub struct Connection {
    /// The integration's id.
    pub integration: Arc<str>,
    /// Its name within the integration: the value of `Trunkline-Connection`.
    pub id: Arc<str>,
    /// What it signs in with.
    pub credential: Credential,
    /// What templates of this connection's calls see: `input`, `saved` and `connection`. No credential.
    pub context: Context,
    /// Its inputs, defaults filled in.
    pub inputs: Map<String, Json>,
    /// Values that its sign-in saved.
    pub saved: Map<String, Json>,
}

/// Names only: inputs may be secret.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({}/{}, {})", self.integration, self.id, self.credential.kind())
    }
}

impl Connection {
    fn new(integration: &Integration, id: Arc<str>, credential: Credential, values: Values) -> Self {
        let Values { inputs, saved } = values;
        let context = Context::new()
            .with_json("connection", &serde_json::json!({ "id": &*id }))
            .with_json("input", &Json::Object(inputs.clone()))
            .with_json("saved", &Json::Object(saved.clone()));
        Self { integration: Arc::clone(&integration.id), id, credential, context, inputs, saved }
    }
}

struct Values {
    inputs: Map<String, Json>,
    saved: Map<String, Json>,
}

/// Why there is no connection to use.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectionError {
    /// The integration has none of that name.
    #[error("`{integration}` has no connection `{connection}`")]
    Unknown {
        /// The integration.
        integration: Arc<str>,
        /// The name that was asked for.
        connection: String,
    },
    /// The way its connections sign in is declared and not run.
    #[error("`{integration}` has no connection `{connection}`, and cannot get one: {part}")]
    NotYet {
        /// The integration.
        integration: Arc<str>,
        /// The name that was asked for.
        connection: String,
        /// What is not run.
        part: NotYet,
    },
    /// It lacks something it needs.
    #[error("the connection `{integration}/{connection}` cannot be used: {reason}")]
    Unusable {
        /// The integration.
        integration: Arc<str>,
        /// The connection.
        connection: String,
        /// What it lacks, and what to do.
        reason: String,
    },
}

impl ConnectionError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unknown { .. } => Refusal::ConnectionUnknown,
            Self::NotYet { .. } => Refusal::NotYetRun,
            Self::Unusable { .. } => Refusal::ConnectionUnusable,
        }
    }

    /// Whether waiting may mend it: someone has to act, but nothing was sent.
    pub fn passing(&self) -> bool {
        matches!(self, Self::Unusable { .. })
    }
}

/// Finds connections. A connection that a file declares comes before a stored one of the same name.
#[derive(Debug, Default)]
pub struct Connections {
    held: PerConnection<Arc<Connection>>,
}

impl Connections {
    /// Only those that files declare.
    pub fn declared() -> Self {
        Self::default()
    }

    /// The connection of this name.
    ///
    /// # Errors
    /// When there is none, or it cannot be used.
    #[expect(clippy::unused_async, reason = "stored connections, which come next, are read from the store")]
    pub async fn resolve(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        id: &str,
    ) -> Result<Arc<Connection>, ConnectionError> {
        if let Some(connection) = self.held.get(integration, id) {
            return Ok(connection);
        }
        let connection = match integration.connection(id) {
            Some(declared) => of_declared(integration, declared),
            None => without_declaration(integration, id)?,
        };
        let connection = Arc::new(connection);
        self.held.keep(generation, integration, id, Arc::clone(&connection));
        Ok(connection)
    }
}

fn of_declared(integration: &Integration, declared: &DeclaredConnection) -> Connection {
    let values = Values { inputs: declared.inputs.clone(), saved: declared.saved.clone() };
    Connection::new(integration, Arc::clone(&declared.id), Credential::from(&declared.credential), values)
}

/// A service that wants no sign-in has a default connection without anyone declaring it.
fn without_declaration(integration: &Integration, id: &str) -> Result<Connection, ConnectionError> {
    let (name, connection) = (Arc::clone(&integration.id), id.to_owned());
    match &integration.auth {
        Auth::NotYet(part) => Err(ConnectionError::NotYet { integration: name, connection, part: part.clone() }),
        Auth::None if id == DEFAULT => {
            let inputs = default_inputs(integration)?;
            let values = Values { inputs, saved: Map::new() };
            Ok(Connection::new(integration, Arc::from(DEFAULT), Credential::None, values))
        }
        Auth::None | Auth::ApiKey { .. } | Auth::Basic => {
            Err(ConnectionError::Unknown { integration: name, connection })
        }
    }
}

fn default_inputs(integration: &Integration) -> Result<Map<String, Json>, ConnectionError> {
    let value = |input: &crate::definition::plan::Input| match &input.default {
        Some(default) => Ok((input.name.to_string(), Json::from(default.as_str()))),
        None => Err(ConnectionError::Unusable {
            integration: Arc::clone(&integration.id),
            connection: DEFAULT.to_owned(),
            reason: format!("the input `{}` has no default: declare the connection with a value for it", input.name),
        }),
    };
    integration.inputs.iter().map(value).collect()
}
