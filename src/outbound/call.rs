//! The gateway's own calls: filled in, credential placed, sent, answer read, recorded.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json};

use super::Outbound;
use super::error::{OutboundError, Why};
use super::kept::Looked;
use super::policy::{Pass, RATE_LIMIT, RATE_LIMIT_POLICY};
use super::prepare::{Prepared, SignedOut};
use super::record::{self, Journey};
use super::tries::{note_wish, whole_time};
use super::underway::{Underway, context};
use super::way::{Answered, Way};
use crate::activity::Asker;
use crate::connection::health::Trouble;
use crate::connection::{Connection, Credential, Need};
use crate::definition::live::Generation;
use crate::definition::plan::api::{Api, Endpoint};
use crate::definition::plan::policy::Retry;
use crate::definition::plan::request::{CredentialUse, Request};
use crate::definition::plan::{Auth, Integration};
use crate::net::Outgoing;
use crate::request::moment::Skew;
use crate::request::{AnswerError, Outcome, fill};
use crate::telemetry::trace;

/// What to do about a refused credential.
pub(super) const REFUSED: &str =
    "see whether the account still has access at the service; connect it again if it has not";

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
    /// The application whose budget it counts against, where one asked for it.
    pub caller: Option<&'a Arc<str>>,
    /// What the service recognises a repeated call by; sent where the API names a header for it.
    pub idempotency_key: Option<&'a str>,
    /// How much time is left, where it is less than the request's own limit.
    pub deadline: Option<Duration>,
    /// What its templates see besides, where the request sets up a webhook endpoint.
    pub setting: Option<Setting<'a>>,
}

/// What the requests that set up a webhook endpoint see besides.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The endpoint, as `webhook`.
    pub webhook: &'a Json,
    /// What earlier answers gave to keep, over what the connection has, as `saved`.
    pub saved: &'a Map<String, Json>,
}

impl Outbound {
    /// Makes a call and says what its answer means. A caller's call is tried again as the definition declares; the
    /// queue's and those that only try a connection are one try, and whoever asks decides on another, by
    /// [`OutboundError::may_repeat`]. Where the service refuses the token (401), it is renewed, and the call
    /// made once more if that cannot do its work twice.
    ///
    /// # Errors
    /// When the call was not made, or its answer is not a success.
    pub async fn run(&self, call: Call<'_>) -> Result<Outcome, OutboundError> {
        let key = self.own_key(&call);
        let call = Call { idempotency_key: call.idempotency_key.or(key.as_deref()), ..call };
        let ends = self.parts.clock.monotonic().saturating_add(whole_time(&call));
        let mut journey = Journey::begin(&self.parts);
        let mut span = record::span(&self.parts, &call);
        let place = span.as_ref().map(|span| span.context.clone());
        let result = trace::within(place, Box::pin(self.trying(&call, ends, &mut journey))).await;
        record::describe(span.as_mut(), &call, journey.course, &result);
        self.parts.metrics.traces.end(span);
        record::ended(&self.parts, &call, journey, &result);
        result
    }

    async fn trying(&self, call: &Call<'_>, ends: Duration, journey: &mut Journey) -> Result<Outcome, OutboundError> {
        let mut tries = 0;
        loop {
            let need = Need { token: named_token(call.request), validity: Duration::ZERO };
            let prepared = self.prepare(call.generation, call.integration, call.connection, need).await?;
            if tries == 0 {
                is_granted(call, &prepared)?;
                prepared.policy.begin();
            }
            let clock = self.believed_clock(&prepared.connection);
            let first = Box::pin(self.once(call, Arc::clone(&prepared), ends, journey)).await;
            let again = match self.signed_again(call, &prepared, &first, clock).await {
                Some(again) => Some(again),
                None => self.after_refusal(call, &prepared, &first).await,
            };
            let result = match again {
                Some(renewed) => {
                    self.note_retry(call.integration, call.connection);
                    Box::pin(self.once(call, renewed, ends, journey)).await
                }
                None => first,
            };
            self.feel(call, &prepared, &result);
            tries += 1;
            let Some((pause, spent)) = self.again(call, &prepared, &result, (tries, ends)) else { return result };
            tokio::time::sleep(pause).await;
            journey.waits(pause);
            spent.goes();
        }
    }

    /// One try of a call.
    pub(super) async fn once(
        &self,
        call: &Call<'_>,
        prepared: Arc<Prepared>,
        ends: Duration,
        journey: &mut Journey,
    ) -> Result<Outcome, OutboundError> {
        let api = call.integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id(call)))?;
        let context = context(call, &prepared, &self.parts);
        let filled = fill::fill(call.request, &context)
            .map_err(|reason| OutboundError::Fill { integration: id(call), reason })?;
        let repeatable = is_repeatable(call, api);
        let underway = Underway { call, api, prepared, repeatable };
        let mut outgoing = underway.place(filled)?;
        journey.leads(&outgoing);
        journey.carries(&self.parts, &call.asker, (&underway.prepared, &outgoing));
        let kept = match Box::pin(self.look(&underway, &mut outgoing)).await? {
            Looked::Given(received, how) => {
                journey.course.cache = Some(how);
                journey.hears(&self.parts, &received);
                return underway.read(&context, Ok(received), &self.parts);
            }
            Looked::Sent(kept) => kept,
        };
        let way = self.way(&underway, ends);
        let (pass, outgoing) = match Box::pin(way.admit(outgoing)).await {
            Ok(admitted) => admitted,
            Err(reason) => {
                let held = OutboundError::Held { integration: id(call), reason };
                let instead = underway.instead(kept, held, &context, &self.parts);
                journey.held(&instead);
                return instead;
            }
        };
        journey.tries(pass.waited());
        let limits = pass.fields();
        let (sent, asked) = Box::pin(self.send(&underway, &way, (pass, outgoing), journey)).await?;
        let sent = self.settle(kept, sent, &mut journey.course.cache);
        let mut result = underway.read(&context, sent, &self.parts);
        if matches!(call.asker, Asker::Delivery(_)) {
            // What a delivery brings is kept, and a service may repeat what it was sent.
            result = result.map(|outcome| outcome.with_plain_result(|text| underway.prepared.redact(text)));
        }
        note_wish(&mut result, asked);
        if let (Ok(outcome), Some((policy, left))) = (&mut result, limits) {
            outcome.headers.entry(RATE_LIMIT_POLICY).or_insert(policy);
            outcome.headers.entry(RATE_LIMIT).or_insert(left);
        }
        result
    }

    /// The way of a call whose time is over at `ends`.
    pub(super) fn way<'a>(&'a self, underway: &'a Underway<'_>, ends: Duration) -> Way<'a> {
        let caller = underway.call.caller;
        let (parts, prepared, endpoint) = (&self.parts, &*underway.prepared, underway.call.endpoint.as_ref());
        Way { parts, prepared, endpoint, caller, ends, follow: underway.follow() }
    }

    /// Signs and sends a call that may go.
    async fn send(
        &self,
        underway: &Underway<'_>,
        way: &Way<'_>,
        (pass, outgoing): (Pass, Outgoing),
        journey: &mut Journey,
    ) -> Result<Answered, OutboundError> {
        let prepared = &underway.prepared;
        let outgoing = match underway.sign(outgoing, self.signing_moment(&prepared.connection)) {
            Ok(signed) => signed,
            Err(unsigned) => {
                pass.unsent();
                journey.course.unsent += 1;
                return Err(unsigned);
            }
        };
        let (sent, asked) = way.send(pass, outgoing, &mut journey.course.waited).await;
        journey.comes_to(&sent);
        if let Ok(received) = &sent {
            journey.hears(&self.parts, received);
            self.hear_clock(underway.call.integration, prepared, (received.status.as_u16(), &received.headers));
        }
        Ok((sent, asked))
    }

    /// The connection as it signs by the service's own clock, when the call was refused, another clock is believed
    /// since, and the call may be made again.
    async fn signed_again(
        &self,
        call: &Call<'_>,
        prepared: &Prepared,
        result: &Result<Outcome, OutboundError>,
        before: Option<Skew>,
    ) -> Option<Arc<Prepared>> {
        let now = self.believed_clock(&prepared.connection);
        let Err(OutboundError::Tried(tried)) = result else { return None };
        if now.is_none() || now == before || !tried.repeatable {
            return None;
        }
        let need = Need { token: named_token(call.request), validity: Duration::ZERO };
        self.prepare(call.generation, call.integration, call.connection, need).await.ok()
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
        // A place that a redirect led to was not shown the token, if it is another one.
        let refused = matches!(tried.reason, Why::Answer(AnswerError::Refused { status: 401, led: false, .. }));
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
            Err(error) if error.status() == Some(401) && !error.was_led() => {
                prepared.connection.health.refuse(Trouble::new(now, &error.to_string(), REFUSED));
            }
            Err(_) => {}
        }
    }
}

/// Whether a connection was granted what a call's endpoint needs.
fn is_granted(call: &Call<'_>, prepared: &Prepared) -> Result<(), OutboundError> {
    let endpoint = call.endpoint.as_deref().and_then(|id| call.integration.api.as_ref()?.endpoint(id));
    endpoint.map_or(Ok(()), |endpoint| grants_by_name(call.integration, &prepared.connection, endpoint))
}

/// [`grants`] for an endpoint that is called by name, and so with the token that its definition says.
///
/// # Errors
/// As those.
pub fn grants_by_name(
    integration: &Integration,
    connection: &Connection,
    endpoint: &Endpoint,
) -> Result<(), OutboundError> {
    grants(integration, connection, endpoint, named_token(&endpoint.request))
}

/// Whether the token of this name of a connection was granted what an endpoint needs. One of which nobody knows what
/// it was granted is the service's to judge.
///
/// # Errors
/// [`OutboundError::Scope`] with what is missing.
pub fn grants(
    integration: &Integration,
    connection: &Connection,
    endpoint: &Endpoint,
    token: Option<&str>,
) -> Result<(), OutboundError> {
    if endpoint.scopes.is_empty() {
        return Ok(());
    }
    let (Auth::OAuth2(oauth2), Credential::Tokens(tokens)) = (&integration.auth, &connection.credential) else {
        return Ok(());
    };
    let Some(granted) = tokens.issued(token).and_then(|issued| issued.scopes.as_ref()) else { return Ok(()) };
    let lacks = |needed: &&String| !oauth2.grants(granted, needed);
    let missing: Vec<_> = endpoint.scopes.iter().filter(lacks).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(OutboundError::Scope {
        integration: Arc::clone(&integration.id),
        connection: Arc::clone(&connection.id),
        endpoint: Arc::clone(&endpoint.id),
        granted: granted.clone(),
        missing,
    })
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

pub(super) fn id(call: &Call<'_>) -> Arc<str> {
    Arc::clone(&call.integration.id)
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
    request.method.is_idempotent() || keyed && retry.is_some_and(|retry| retry.idempotency_key.is_some())
}
