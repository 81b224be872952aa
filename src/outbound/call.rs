//! The gateway's own calls: filled in, credential placed, sent, answer read, recorded.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value as Json};

use super::credential::{PlaceError, Placed};
use super::error::{OutboundError, Unsuccessful, Why};
use super::prepare::Prepared;
use super::sign::{Leaving, own_headers};
use super::{Moment, Outbound, Parts, record};
use crate::activity::Asker;
use crate::base::secret::Secret;
use crate::definition::live::Generation;
use crate::definition::plan::api::Api;
use crate::definition::plan::request::{CredentialUse, Request};
use crate::definition::plan::{Integration, NotYet};
use crate::net::{BodyLimit, Excess, Follow, Outgoing, Reach, Received, Towards, origin};
use crate::request::{AnswerError, Filled, Outcome, Place, answer, fill};
use crate::template::Context;

/// A call of the gateway's own.
#[derive(Debug)]
pub struct Call<'a> {
    /// The generation it belongs to.
    pub generation: &'a Generation,
    /// The integration.
    pub integration: &'a Arc<Integration>,
    /// The connection's name.
    pub connection: &'a str,
    /// The request.
    pub request: &'a Request,
    /// The endpoint's id, where the request is one.
    pub endpoint: Option<Arc<str>>,
    /// What the request's templates see as `input`. The connection's own inputs come before those of the
    /// same name, so that a caller cannot put others in their place.
    pub input: &'a Map<String, Json>,
    /// Who asks.
    pub asker: Asker,
    /// What the service recognises a repeated call by; sent where the API names a header for it.
    pub idempotency_key: Option<&'a str>,
    /// How much time is left, where it is less than the request's own limit.
    pub deadline: Option<Duration>,
}

/// A call on its way through the stages.
pub(super) struct Underway<'a> {
    pub call: &'a Call<'a>,
    pub api: &'a Api,
    pub prepared: Arc<Prepared>,
    pub repeatable: bool,
}

impl Outbound {
    /// Makes a call and says what its answer means. One try: whoever asks decides on another, by
    /// [`OutboundError::may_repeat`].
    ///
    /// # Errors
    /// When the call was not made, or its answer is not a success.
    pub async fn run(&self, call: Call<'_>) -> Result<Outcome, OutboundError> {
        let prepared = self.prepare(call.generation, call.integration, call.connection).await?;
        let api = call.integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id(&call)))?;
        let context = context(&call, &prepared, &self.parts);
        let filled = fill::fill(call.request, &context)
            .map_err(|reason| OutboundError::Fill { integration: id(&call), reason })?;
        let repeatable = is_repeatable(&call, api);
        let underway = Underway { call: &call, api, prepared, repeatable };
        let outgoing = underway.sign(underway.place(filled)?, self.moment())?;
        let started = record::Started::of(&self.parts, &outgoing);
        let sent = Box::pin(self.parts.clients.send(outgoing)).await;
        let result = underway.read(&context, sent, &self.parts);
        record::ended(&self.parts, &underway, started, &result);
        result
    }
}

/// Runs an integration's test request for a connection.
///
/// # Errors
/// As [`Outbound::run`], and when there is no test request.
pub async fn test(
    outbound: &Outbound,
    generation: &Generation,
    integration: &Arc<Integration>,
    connection: &str,
) -> Result<Outcome, OutboundError> {
    let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(Arc::clone(&integration.id)))?;
    let request = api.test.as_ref().ok_or_else(|| OutboundError::NoTest(Arc::clone(&integration.id)))?;
    let call = Call {
        generation,
        integration,
        connection,
        request,
        endpoint: None,
        input: &Map::new(),
        asker: Asker::Test,
        idempotency_key: None,
        deadline: None,
    };
    outbound.run(call).await
}

impl Underway<'_> {
    /// The call with all that the API and the connection add to it, checked to go where it may.
    fn place(&self, filled: Filled) -> Result<Outgoing, OutboundError> {
        let (call, prepared) = (self.call, &self.prepared);
        let (origin, path, literal_host) = self.target(filled.place)?;
        let mut headers = filled.headers;
        for (name, value) in &prepared.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        let own = self.own_credential()?;
        let placed = match &call.request.credential {
            _ if call.request.basic.is_some() => None,
            CredentialUse::None | CredentialUse::Client => None,
            CredentialUse::Token(None) => Some(&prepared.credential),
            CredentialUse::Token(Some(_)) => own.as_ref(),
        };
        let mut body = filled.body;
        if let Some(placed) = placed {
            placed.put_on(&mut headers);
            body = placed.put_in(&mut headers, body).map_err(|reason| self.unusable(reason))?;
        }
        if let Some((name, key)) = self.idempotency() {
            headers.insert(name, key);
        }
        let mut timeouts = self.api.timeouts;
        timeouts.total = call.request.timeout.unwrap_or(timeouts.total).min(call.deadline.unwrap_or(Duration::MAX));
        let reach = Reach::of_integration(
            &prepared.gateway,
            self.api.transport.allow_private,
            literal_host.then_some(&origin.host),
        );
        Ok(Outgoing {
            towards: Towards::Service { integration: id(call), transport: self.api.transport.clone(), reach },
            method: filled.method,
            origin,
            path,
            query: Some(filled.query).filter(|query| !query.is_empty()),
            secret_query: placed
                .and_then(Placed::query)
                .map(|(_, pair)| Arc::new(Secret::from(pair.expose().as_str()))),
            headers,
            body,
            timeouts,
            limit: BodyLimit { bytes: call.generation.gateway.limits.answer_bytes, excess: Excess::Refuse },
            follow: self.follow(),
        })
    }

    /// The call with the headers that sign it, where its connection signs calls.
    fn sign(&self, mut outgoing: Outgoing, moment: Moment<'_>) -> Result<Outgoing, OutboundError> {
        let carries = matches!(self.call.request.credential, CredentialUse::Token(_));
        if self.prepared.signer.is_none() || !carries || self.call.request.basic.is_some() {
            return Ok(outgoing);
        }
        for name in own_headers() {
            outgoing.headers.remove(name);
        }
        let leaving = Leaving {
            method: &outgoing.method,
            origin: &outgoing.origin,
            path: &outgoing.path,
            query: outgoing.query.as_deref().unwrap_or_default(),
            headers: &outgoing.headers,
            body: Some(&outgoing.body),
        };
        let added = self.prepared.sign(leaving, moment).map_err(|reason| self.unusable(reason))?;
        outgoing.headers.extend(added);
        outgoing.follow = Follow::default();
        Ok(outgoing)
    }

    fn unusable(&self, reason: PlaceError) -> OutboundError {
        let (integration, connection) = (id(self.call), Arc::clone(&self.prepared.connection.id));
        OutboundError::Credential { integration, connection, reason }
    }

    fn follow(&self) -> Follow {
        let reach = Reach::of_integration(&self.prepared.gateway, self.api.transport.allow_private, None);
        Follow { hops: self.call.generation.gateway.limits.redirects, hosts: self.api.hosts.clone(), reach }
    }

    fn target(&self, place: Place) -> Result<(origin::Origin, String, bool), OutboundError> {
        let base = &self.prepared.base;
        match place {
            Place::Below(path) => Ok((base.origin.clone(), format!("{}{path}", base.path), base.literal_host)),
            Place::At { origin, literal_host, path } => {
                let literal_host = literal_host || origin == base.origin && base.literal_host;
                origin::allow(self.api, &self.prepared.gateway, &origin, literal_host)
                    .map_err(|reason| OutboundError::Base { integration: id(self.call), reason })?;
                Ok((origin, path, literal_host))
            }
        }
    }

    /// The credential that this request names, where it names one of its own.
    fn own_credential(&self) -> Result<Option<Placed>, OutboundError> {
        let (call, prepared) = (self.call, &self.prepared);
        match &call.request.credential {
            CredentialUse::Client => {
                let part = NotYet { part: "credential: client".to_owned() };
                Err(OutboundError::NotYet { integration: id(call), part })
            }
            CredentialUse::Token(Some(name)) => Placed::of(&self.api.credential, &prepared.connection, Some(name))
                .map(Some)
                .map_err(|reason| self.unusable(reason)),
            CredentialUse::Token(None) | CredentialUse::None => Ok(None),
        }
    }

    fn idempotency(&self) -> Option<(HeaderName, HeaderValue)> {
        let (name, key) = self.api.idempotency_key.as_ref().zip(self.call.idempotency_key)?;
        Some((name.clone(), HeaderValue::from_str(key).ok()?))
    }

    fn read(
        &self,
        context: &Context,
        sent: Result<Received, crate::net::Failure>,
        parts: &Parts,
    ) -> Result<Outcome, OutboundError> {
        let now = parts.clock.now();
        let read = sent.map_err(Why::from).and_then(|received| {
            answer::read((self.call.request, Some(self.api)), context, received, now).map_err(Why::from)
        });
        read.map_err(|reason| {
            let reason = self.without_credential(reason);
            let refused = Unsuccessful { integration: id(self.call), repeatable: self.repeatable, reason };
            OutboundError::Tried(Box::new(refused))
        })
    }

    fn without_credential(&self, reason: Why) -> Why {
        match reason {
            Why::Answer(AnswerError::Refused { status, words: Some(words), retry_after }) => {
                let words = Some(self.prepared.redact(&words));
                Why::Answer(AnswerError::Refused { status, words, retry_after })
            }
            other => other,
        }
    }
}

fn id(call: &Call<'_>) -> Arc<str> {
    Arc::clone(&call.integration.id)
}

fn context(call: &Call<'_>, prepared: &Prepared, parts: &Parts) -> Context {
    let mut input = call.input.clone();
    input.extend(prepared.connection.inputs.clone());
    let context = prepared.connection.context.clone().with_json("input", &Json::Object(input));
    context.with_moment(parts.clock.now(), Arc::clone(&parts.random))
}

/// Whether sending the call again has no further effect (RFC 9110, 9.2.2), or the service will see that
/// it is the same.
fn is_repeatable(call: &Call<'_>, api: &Api) -> bool {
    repeats_safely(call.request, api, call.idempotency_key.is_some())
}

/// Whether a request of an API may be sent again when it may have been seen: by its method (RFC 9110,
/// 9.2.2), or because the API takes an idempotency key and the caller gives one (`keyed`).
pub fn repeats_safely(request: &Request, api: &Api, keyed: bool) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    idempotent.contains(&request.method) || api.idempotency_key.is_some() && keyed
}
