//! What Pingora needs of a connection besides what all calls have in common: its own pool, and trust in
//! Pingora's terms. Made once and kept while nothing of it changes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pingora::protocols::tls::CaType;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use super::dial::Last;
use crate::connection::credential::TOKEN_SECRET;
use crate::connection::{Connection, Need, PerConnection};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::{Api, HttpVersions, Timeouts};
use crate::definition::plan::identity::Identity;
use crate::net::Scheme;
use crate::outbound::{Outbound, PlaceError, Placed, Prepared};
use crate::respond::{Answer, Refusal};

/// A connection, ready for calls through the proxy door.
pub struct Ready {
    /// The integration.
    pub integration: Arc<Integration>,
    /// What all its calls have in common.
    pub common: Arc<Prepared>,
    /// The token that its calls carry, where it is not the default one, and how.
    named: Option<(Arc<str>, Placed)>,
    /// How long each phase of a call may take.
    pub timeouts: Timeouts,
    /// The connection pool that its calls share with nobody else's.
    pub pool: u64,
    /// Where the service answered last.
    pub last: Arc<Last>,
    /// What is offered to the service; without TLS that is HTTP/1.1.
    pub http: HttpVersions,
    /// Certificates that are trusted instead of the system's.
    pub ca: Option<Arc<CaType>>,
    /// What is shown to a service that asks who connects.
    pub identity: Option<Arc<CertKey>>,
}

/// The connections that are ready.
pub struct ReadyConnections {
    outbound: Arc<Outbound>,
    kept: PerConnection<Arc<Ready>>,
}

impl ReadyConnections {
    /// Connections as `outbound` prepares them.
    pub fn new(outbound: Arc<Outbound>) -> Self {
        Self { outbound, kept: PerConnection::default() }
    }

    /// A connection, ready, with a token that lasts as `need` says.
    ///
    /// # Errors
    /// The answer when the connection or its definition cannot be used.
    pub async fn get(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        need: Need<'_>,
    ) -> Result<Arc<Ready>, Answer> {
        let api = integration.api.as_ref().ok_or_else(|| no_api(integration))?;
        let prepared = self.outbound.prepare(generation, integration, connection, need).await;
        let common = prepared.map_err(|error| error.answer())?;
        let own;
        let kept_as = match need.token {
            None => connection,
            // No connection has such a name.
            Some(token) => {
                own = format!("{connection}\0{token}");
                &own
            }
        };
        if let Some(ready) = self.kept.get(integration, kept_as)
            && Arc::ptr_eq(&ready.common, &common)
        {
            return Ok(ready);
        }
        let ready = Arc::new(Ready::of(integration, api, common, need.token)?);
        self.kept.keep(generation, integration, kept_as, Arc::clone(&ready));
        Ok(ready)
    }
}

impl Ready {
    fn of(
        integration: &Arc<Integration>,
        api: &Api,
        common: Arc<Prepared>,
        token: Option<&str>,
    ) -> Result<Self, Answer> {
        let named = token.map(|token| Ok((Arc::from(token), named(api, &common.connection, token)?))).transpose()?;
        Ok(Self {
            integration: Arc::clone(integration),
            timeouts: api.timeouts,
            pool: pool_of(api, &common),
            last: Arc::default(),
            http: if common.base.origin.scheme == Scheme::Http { HttpVersions::One } else { api.transport.http },
            ca: api.transport.ca.as_deref().map(trusted),
            identity: api.transport.identity.as_deref().map(shown),
            common,
            named,
        })
    }

    /// The credential that its calls carry.
    pub fn credential(&self) -> &Placed {
        self.named.as_ref().map_or(&self.common.credential, |(_, placed)| placed)
    }

    /// The name of the token that its calls carry; `None` for the default one.
    pub fn token(&self) -> Option<&str> {
        self.named.as_ref().map(|(name, _)| &**name)
    }
}

/// A named token in the place that the API wants. The secret of an OAuth 1.0a token stands among them and is
/// none: it signs, and is never sent.
///
/// # Errors
/// The answer when the connection has no such token, or the API puts none on calls.
pub fn named(api: &Api, connection: &Connection, token: &str) -> Result<Placed, Answer> {
    let placed = match token {
        TOKEN_SECRET => Err(PlaceError::NoToken(token.to_owned())),
        _ => Placed::of(&api.credential, connection, Some(token)),
    };
    placed.map_err(|reason| reason.refusal().answer(&reason.to_string()))
}

/// The answer of an integration that has no API.
pub fn no_api(integration: &Integration) -> Answer {
    Refusal::NotFound.answer(&format!("`{}` has no API to call", integration.id))
}

/// Pingora's pool knows neither credentials nor certificate authorities nor offered versions: all that
/// must not be shared goes into this number.
fn pool_of(api: &Api, common: &Prepared) -> u64 {
    let mut hasher = DefaultHasher::new();
    let connection = &common.connection;
    (&*connection.integration, &*connection.id, &common.base.origin).hash(&mut hasher);
    (api.transport.http as u8, &api.transport.ca).hash(&mut hasher);
    api.transport.identity.as_ref().map(|identity| &identity.chain).hash(&mut hasher);
    hasher.finish()
}

/// Definitions are compiled only when their certificates parse, which Pingora's parser does not survive
/// otherwise.
fn trusted(certificates: &[Vec<u8>]) -> Arc<CaType> {
    certificates.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect::<Vec<_>>().into()
}

/// Definitions are compiled only when the certificate parses and belongs to its key.
fn shown(identity: &Identity) -> Arc<CertKey> {
    Arc::new(CertKey::new(identity.chain.clone(), identity.key.expose().clone()))
}
