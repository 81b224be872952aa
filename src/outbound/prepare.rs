//! What all calls of one connection have in common, made once and kept.

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::Outbound;
use super::credential::Placed;
use super::error::OutboundError;
use crate::connection::Connection;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Api;
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
    /// The API's headers; a caller's own value of one of these is replaced.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The credential, as calls without another word carry it.
    pub credential: Placed,
    /// What its calls may dial.
    pub reach: Reach,
    pub(super) gateway: Arc<Gateway>,
}

impl Outbound {
    /// What all calls of a connection have in common. Cheap after the first time, until the definition,
    /// the gateway's settings or the connection change.
    ///
    /// # Errors
    /// When the connection cannot be used, or the definition gives no place to call.
    pub async fn prepare(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
    ) -> Result<Arc<Prepared>, OutboundError> {
        let resolved = self.parts.connections.resolve(generation, integration, connection).await?;
        if let Some(prepared) = self.prepared.get(integration, connection)
            && Arc::ptr_eq(&prepared.connection, &resolved)
            && Arc::ptr_eq(&prepared.gateway, &generation.gateway)
        {
            return Ok(prepared);
        }
        let prepared = Arc::new(Prepared::of(&generation.gateway, integration, resolved)?);
        self.prepared.keep(generation, integration, connection, Arc::clone(&prepared));
        Ok(prepared)
    }
}

impl Prepared {
    fn of(
        gateway: &Arc<Gateway>,
        integration: &Integration,
        connection: Arc<Connection>,
    ) -> Result<Self, OutboundError> {
        let id = || Arc::clone(&integration.id);
        let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id()))?;
        let base = Base::of(api, gateway, &connection.context)
            .map_err(|reason| OutboundError::Base { integration: id(), reason })?;
        let host = HeaderValue::from_str(&base.origin.authority())
            .map_err(|_| OutboundError::Base { integration: id(), reason: BaseError::Shape })?;
        let credential = Placed::of(&api.credential, &connection, None).map_err(|reason| {
            OutboundError::Credential { integration: id(), connection: Arc::clone(&connection.id), reason }
        })?;
        let literal_host = base.literal_host.then_some(base.origin.host.as_str());
        let reach = Reach::of_integration(gateway, api.transport.allow_private, literal_host);
        let headers = api_headers(api, &connection).map_err(|(header, reason)| OutboundError::Header {
            integration: id(),
            header,
            reason,
        })?;
        Ok(Self { connection, base, host, headers, credential, reach, gateway: Arc::clone(gateway) })
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
