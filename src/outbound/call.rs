//! The gateway's own calls: filled in, credential placed, sent, answer read, recorded.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value as Json};

use super::credential::{PlaceError, Placed};
use super::error::{OutboundError, Unsuccessful, Why};
use super::kept::Looked;
use super::prepare::{Prepared, SignedOut};
use super::sign::{Leaving, own_headers};
use super::{Moment, Outbound, Parts, record};
use crate::activity::Asker;
use crate::base::secret::Secret;
use crate::connection::flow::Secrets;
use crate::connection::health::{Key, Tested, Trouble};
use crate::connection::{Connections, Content, Need, Status};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Api;
use crate::definition::plan::policy::Retry;
use crate::definition::plan::request::{CredentialUse, Request};
use crate::net::{BodyLimit, Excess, Follow, Outgoing, Reach, Received, Towards, origin};
use crate::request::{AnswerError, Filled, Outcome, Place, answer, fill};
use crate::template::Context;

/// What to do about a refused credential.
const REFUSED: &str = "see whether the account still has access at the service; connect it again if it has not";

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
    /// [`OutboundError::may_repeat`]. Only where the service refuses the token (401), it is renewed, and the
    /// call made once more if that cannot do its work twice.
    ///
    /// # Errors
    /// When the call was not made, or its answer is not a success.
    pub async fn run(&self, call: Call<'_>) -> Result<Outcome, OutboundError> {
        let need = Need { token: named_token(call.request), validity: Duration::ZERO };
        let prepared = self.prepare(call.generation, call.integration, call.connection, need).await?;
        let first = Box::pin(self.once(&call, Arc::clone(&prepared))).await;
        let result = match self.after_refusal(&call, &prepared, &first).await {
            Some(renewed) => {
                self.note_retry(call.integration, call.connection);
                Box::pin(self.once(&call, renewed)).await
            }
            None => first,
        };
        self.feel(&call, &prepared, &result);
        result
    }

    /// One try of a call.
    async fn once(&self, call: &Call<'_>, prepared: Arc<Prepared>) -> Result<Outcome, OutboundError> {
        let api = call.integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id(call)))?;
        let context = context(call, &prepared, &self.parts);
        let filled = fill::fill(call.request, &context)
            .map_err(|reason| OutboundError::Fill { integration: id(call), reason })?;
        let repeatable = is_repeatable(call, api);
        let underway = Underway { call, api, prepared, repeatable };
        let mut outgoing = underway.place(filled)?;
        let kept = match Box::pin(self.look(&underway, &mut outgoing)).await? {
            Looked::Given(received) => return underway.read(&context, Ok(received), &self.parts),
            Looked::Sent(kept) => kept,
        };
        let outgoing = underway.sign(outgoing, self.moment())?;
        let started = record::Started::of(&self.parts, &outgoing);
        let sent = Box::pin(self.parts.clients.send(outgoing)).await;
        let sent = self.settle(kept, sent);
        let result = underway.read(&context, sent, &self.parts);
        record::ended(&self.parts, &underway, started, &result);
        result
    }

    /// The connection with another token, when the service refused the one that a call carried and the call
    /// may be made again.
    async fn after_refusal(
        &self,
        call: &Call<'_>,
        prepared: &Arc<Prepared>,
        result: &Result<Outcome, OutboundError>,
    ) -> Option<Arc<Prepared>> {
        let Err(OutboundError::Tried(tried)) = result else { return None };
        let refused = matches!(tried.reason, Why::Answer(AnswerError::Refused { status: 401, .. }));
        if !refused || !carries_token(call.request) {
            return None;
        }
        let token = named_token(call.request);
        let (generation, integration) = (call.generation, call.integration);
        match self.sign_out(integration, prepared) {
            Some(SignedOut::Yes) => {}
            Some(SignedOut::TooYoung) => return None,
            None => {
                let refresher = self.parts.refresher.as_ref()?;
                refresher.after_refusal(generation, integration, &prepared.connection, token).await?;
            }
        }
        if !tried.repeatable {
            return None;
        }
        let need = Need { token, validity: Duration::ZERO };
        self.prepare(generation, integration, call.connection, need).await.ok()
    }

    /// Tells that a call is made once more with another token, because the service refused the one it carried.
    pub fn note_retry(&self, integration: &Integration, connection: &str) {
        let id = &*integration.id;
        self.parts.metrics.token_retries.with_label_values(&[id]).inc();
        tracing::info!(
            integration = id,
            connection,
            "{id} refused the token of `{connection}`: the call is made again"
        );
    }

    /// What a call says about its connection's health.
    fn feel(&self, call: &Call<'_>, prepared: &Prepared, result: &Result<Outcome, OutboundError>) {
        if !carries_token(call.request) {
            return;
        }
        let now = self.parts.clock.now();
        match result {
            Ok(_) => prepared.connection.health.succeed(now),
            Err(error) if error.status() == Some(401) => {
                prepared.connection.health.refuse(Trouble::new(now, &error.to_string(), REFUSED));
            }
            Err(_) => {}
        }
    }
}

/// The token that a request names, where it names one of its own.
fn named_token(request: &Request) -> Option<&str> {
    match &request.credential {
        CredentialUse::Token(name) => name.as_deref(),
        CredentialUse::Client | CredentialUse::None => None,
    }
}

/// Whether a request carries the connection's credential.
fn carries_token(request: &Request) -> bool {
    request.basic.is_none() && matches!(request.credential, CredentialUse::Token(_))
}

/// Runs an integration's test request for a connection. What comes of it is part of the connection's health.
///
/// # Errors
/// As [`Outbound::run`], and when there is no test request.
pub async fn test(
    outbound: &Outbound,
    generation: &Generation,
    integration: &Arc<Integration>,
    connection: &str,
) -> Result<Outcome, OutboundError> {
    let input = Map::new();
    let result = outbound.run(test_call((generation, integration), connection, &input)?).await;
    note_test(outbound, integration, connection, result.as_ref().err()).await;
    result
}

/// Runs an integration's test request for a connection that is stored nowhere.
///
/// # Errors
/// As [`test`], and when the connection does not fit the definition.
pub async fn try_out(
    outbound: &Outbound,
    (generation, integration): (&Generation, &Arc<Integration>),
    name: &str,
    content: Content,
) -> Result<Outcome, OutboundError> {
    let draft = Connections::draft(integration, name, content)?;
    let input = Map::new();
    let call = test_call((generation, integration), name, &input)?;
    let (used, made) = outbound.make(generation, integration, &draft).await?;
    let session = (!Arc::ptr_eq(&used, &draft)).then(|| Arc::clone(&used));
    let outcome = match Prepared::of(&generation.gateway, integration, (draft, used), made) {
        Ok(prepared) => Box::pin(outbound.once(&call, Arc::new(prepared))).await,
        Err(error) => Err(error),
    };
    if let Some(session) = session {
        outbound.logins.tried(integration, &session);
    }
    outcome
}

fn test_call<'a>(
    (generation, integration): (&'a Generation, &'a Arc<Integration>),
    connection: &'a str,
    input: &'a Map<String, Json>,
) -> Result<Call<'a>, OutboundError> {
    let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(Arc::clone(&integration.id)))?;
    let request = api.test.as_ref().ok_or_else(|| OutboundError::NoTest(Arc::clone(&integration.id)))?;
    let asker = Asker::Test;
    Ok(Call {
        generation,
        integration,
        connection,
        request,
        endpoint: None,
        input,
        asker,
        idempotency_key: None,
        deadline: None,
    })
}

/// Remembers how a test ended. A test that was not made says nothing.
async fn note_test(outbound: &Outbound, integration: &Integration, connection: &str, error: Option<&OutboundError>) {
    let tried = error.is_none_or(|error| matches!(error, OutboundError::Tried(_)));
    if !tried {
        return;
    }
    let (now, passed) = (outbound.parts.clock.now(), error.is_none());
    let word = if passed { "passed" } else { "failed" };
    outbound.parts.metrics.connection_tests.with_label_values(&[&*integration.id, word]).inc();
    let connections = &outbound.parts.connections;
    let key = Key::new(&integration.id, connection);
    let pulse = connections.pulse(&key).await;
    let turned_away = error.and_then(OutboundError::status).is_some_and(|status| matches!(status, 401 | 403));
    let (before, after) = pulse.change(now, |health| {
        health.last_test = Some(Tested { at: now, passed });
        health.last_error =
            error.map(|error| Trouble::new(now, &error.to_string(), REFUSED)).or(health.last_error.take());
        health.condition = match health.condition {
            Status::NeedsReconnect => Status::NeedsReconnect,
            _ if health.next_try.is_some() => health.condition,
            _ if passed => Status::Active,
            _ if turned_away => Status::Error,
            _ => Status::Warning,
        };
    });
    connections.note_status(&key, before, after).await;
    connections.save_health(&key, &pulse).await;
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
            CredentialUse::None => None,
            CredentialUse::Token(None) => Some(&prepared.credential),
            CredentialUse::Token(Some(_)) | CredentialUse::Client => own.as_ref(),
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
    pub(super) fn sign(&self, mut outgoing: Outgoing, moment: Moment<'_>) -> Result<Outgoing, OutboundError> {
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
            CredentialUse::Client => Placed::client(call.integration)
                .map(Some)
                .map_err(|reason| OutboundError::Client { integration: id(call), reason }),
            CredentialUse::Token(Some(name)) => Placed::of(&self.api.credential, &prepared.connection, Some(name))
                .map(Some)
                .map_err(|reason| self.unusable(reason)),
            CredentialUse::Token(None) | CredentialUse::None => Ok(None),
        }
    }

    fn idempotency(&self) -> Option<(HeaderName, HeaderValue)> {
        let retry = self.api.retry(self.call.endpoint.as_deref());
        let (name, key) = retry.and_then(|retry| retry.idempotency_key.as_ref()).zip(self.call.idempotency_key)?;
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
                let words = self.prepared.redact(&words);
                let (integration, inputs) = (self.call.integration, &self.prepared.connection.inputs);
                let words = Some(Secrets::of_client(integration).and_inputs(integration, inputs).redact(&words));
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
    let keyed = call.idempotency_key.is_some();
    repeats_safely(call.request, api.retry(call.endpoint.as_deref()), keyed)
}

/// Whether a request may be sent again when it may have been seen: by its method (RFC 9110, 9.2.2), or because
/// the service takes an idempotency key and the caller gives one (`keyed`).
pub fn repeats_safely(request: &Request, retry: Option<&Retry>, keyed: bool) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    idempotent.contains(&request.method) || keyed && retry.is_some_and(|retry| retry.idempotency_key.is_some())
}
