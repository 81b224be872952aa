//! What all calls of one connection have in common, made once and kept.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::credential::{PlaceError, Placed};
use super::error::OutboundError;
use super::sign::{self, Leaving, Signer};
use super::{Moment, Outbound};
use crate::base::clock::Timestamp;
use crate::connection::{Connection, Credential, Need};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Api;
use crate::definition::plan::auth::Auth;
use crate::definition::plan::gateway::Gateway;
use crate::net::{Base, BaseError, Reach};
use crate::template::TemplateError;

/// What all calls of one connection have in common.
#[derive(Debug)]
pub struct Prepared {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Where its calls go.
    pub base: Base,
    /// The `Host` of its calls.
    pub host: HeaderValue,
    /// Scheme, host and port, as activity shows where its calls went.
    pub place: Arc<str>,
    /// The API's headers; a caller's own value of one of these is replaced.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The credential, as calls without another word carry it.
    pub credential: Placed,
    /// What signs its calls one by one, where they are signed.
    pub signer: Option<Signer>,
    /// What its calls may dial.
    pub reach: Reach,
    pub(super) gateway: Arc<Gateway>,
    /// A credential made here, and until when it is put on calls.
    made: Option<(Credential, Timestamp)>,
}

impl Outbound {
    /// What all calls of a connection have in common, with a token that lasts as `need` says. Cheap after the
    /// first time, until the definition, the gateway's settings or the connection change.
    ///
    /// # Errors
    /// When the connection cannot be used, or the definition gives no place to call.
    pub async fn prepare(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        need: Need<'_>,
    ) -> Result<Arc<Prepared>, OutboundError> {
        let mut resolved = self.parts.connections.resolve(generation, integration, connection).await?;
        if let Some(refresher) = &self.parts.refresher {
            resolved = refresher.usable(generation, integration, resolved, need).await?;
        }
        if let Some(prepared) = self.prepared.get(integration, connection)
            && Arc::ptr_eq(&prepared.connection, &resolved)
            && Arc::ptr_eq(&prepared.gateway, &generation.gateway)
            && prepared.made.as_ref().is_none_or(|(_, until)| self.parts.clock.now() < *until)
        {
            return Ok(prepared);
        }
        let prepared = Arc::new(Prepared::of(&generation.gateway, integration, resolved, self.moment())?);
        self.prepared.keep(generation, integration, connection, Arc::clone(&prepared));
        Ok(prepared)
    }
}

impl Prepared {
    pub(super) fn of(
        gateway: &Arc<Gateway>,
        integration: &Integration,
        connection: Arc<Connection>,
        moment: Moment<'_>,
    ) -> Result<Self, OutboundError> {
        let id = || Arc::clone(&integration.id);
        let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id()))?;
        let base = Base::of(api, gateway, &connection.context)
            .map_err(|reason| OutboundError::Base { integration: id(), reason })?;
        let host = HeaderValue::from_str(&base.origin.authority())
            .map_err(|_| OutboundError::Base { integration: id(), reason: BaseError::Shape })?;
        let unusable =
            |reason| OutboundError::Credential { integration: id(), connection: Arc::clone(&connection.id), reason };
        let made = match &integration.auth {
            Auth::Jwt(assertion) => Some(sign::own_token(assertion, &connection, moment).map_err(unusable)?),
            _ => None,
        };
        let shown = made.as_ref().map_or(&connection.credential, |(made, _)| made);
        let credential =
            Placed::of_credential(&api.credential, (shown, &connection.context), None).map_err(unusable)?;
        if matches!(integration.auth, Auth::Mtls) && api.transport.identity.is_none() {
            let words = "`auth.mtls` has no `certificate` and `key` yet, so there is nothing to show the service";
            return Err(unusable(PlaceError::Unsigned(words.to_owned())));
        }
        let signer = Signer::of(&integration.auth, &connection).map_err(unusable)?;
        let literal_host = base.literal_host.then_some(base.origin.host.as_str());
        let reach = Reach::of_integration(gateway, api.transport.allow_private, literal_host);
        let headers = api_headers(api, &connection).map_err(|(header, reason)| OutboundError::Header {
            integration: id(),
            header,
            reason,
        })?;
        let gateway = Arc::clone(gateway);
        let place = Arc::from(base.origin.to_string());
        Ok(Self { connection, base, host, place, headers, credential, signer, reach, gateway, made })
    }
}

impl Prepared {
    /// The headers that sign a call of this connection; none where calls are not signed. What
    /// [`sign::own_headers`] names must be taken out before.
    ///
    /// # Errors
    /// When the call cannot be signed.
    pub fn sign(&self, leaving: Leaving<'_>, moment: Moment<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, PlaceError> {
        self.signer.as_ref().map_or(Ok(Vec::new()), |signer| signer.sign(&self.connection, leaving, moment))
    }

    /// Whether a call with a body must be read whole before it can be sent.
    pub fn needs_body(&self, headers: &HeaderMap) -> bool {
        let signs = self.signer.as_ref().is_some_and(|signer| signer.needs_body(headers, &self.base.origin));
        signs || self.credential.is_in_body()
    }

    /// `text` without any part of the credential.
    pub fn redact(&self, text: &str) -> String {
        let clean = self.connection.credential.redact(text);
        self.made.as_ref().map_or(clean.clone(), |(made, _)| made.redact(&clean))
    }
}

fn api_headers(api: &Api, connection: &Connection) -> Result<Vec<(HeaderName, HeaderValue)>, (HeaderName, String)> {
    let fill = |(name, text): &(HeaderName, crate::template::Text)| {
        let fault = |reason: String| (name.clone(), reason);
        let value = text.render(&connection.context).map_err(|error: TemplateError| fault(error.to_string()))?;
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| fault("the value has characters that no header can carry".to_owned()))?;
        // It may be made of inputs, and inputs may be secret.
        value.set_sensitive(true);
        Ok((name.clone(), value))
    };
    api.headers.iter().map(fill).collect()
}
