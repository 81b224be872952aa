//! Durable calls at the door: taken in and stored before they are answered for, asked about, and carried out.
//!
//! `Trunkline-Async: true` on any call asks for it. A call meets the gates of the door twice: when it is taken
//! in, so that what cannot be is refused at once, and when it is carried out, because what its caller may do
//! may have changed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};

use super::admit::{self, Permitted};
use super::endpoint::{self, MAX_INPUT, NamedCall};
use super::outcome::answered;
use super::pages;
use super::path::NormalPath;
use super::retry::has_key;
use super::route::{self, Route};
use super::whole::{self, Renewed, Unmade, WholeCall};
use super::{Incoming, ProxyDoor, caller, carried, headers, record};
use crate::activity::{Asker, CallRecord, Course, Told};
use crate::base::id::{DeliveryId, EventId};
use crate::connection::{Connection, Credential, Need};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Api;
use crate::definition::plan::gateway::{Caller, Gateway};
use crate::outbound::call::{grants_by_name, repeats_safely};
use crate::outbound::{OutboundError, Placed, Unsuccessful, Why};
use crate::queue::durable::{Carry, DurableCall, newest_outcome};
use crate::queue::{Again, Report, apart};
use crate::request::{AnswerError, retry_after};
use crate::respond::{Answer, Refusal};
use crate::store::StoreError;
use crate::store::model::{Accepted, Delivery, DeliveryState, Event};
use crate::telemetry::trace;

/// The header that asks for a durable call.
pub const ASYNC_HEADER: HeaderName = HeaderName::from_static("trunkline-async");
/// The header that names the destination of its outcome.
pub const DELIVER_HEADER: HeaderName = HeaderName::from_static("trunkline-deliver-to");
/// The header by which a call that is sent twice is known as one.
const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Below an integration's `/-/`: where durable calls are asked about.
const CALLS: &str = "calls/";
/// The longest idempotency key.
const LONGEST_KEY: usize = 255;
/// When to try again what cannot be stored, or waits behind too many.
const STORE_RETRY: Duration = Duration::from_secs(10);

/// A call that is to be stored, admitted.
pub struct Submission {
    generation: Arc<Generation>,
    integration: Arc<Integration>,
    connection: Arc<str>,
    pub(super) caller: Arc<str>,
    /// The token that it carries, where it is not the default one.
    token: Option<String>,
    path: String,
    query: Option<String>,
    /// The most bytes that its body may have.
    pub(super) max_body: u64,
    /// What its body must fit, where that is known before it is carried out.
    body: FitsBody,
}

/// What the body of a durable call must fit.
enum FitsBody {
    /// Nothing that is known.
    Any,
    /// It is the inputs of an endpoint.
    Inputs,
    /// It takes the credential in as a field.
    Credential(Box<Placed>),
}

impl ProxyDoor {
    /// A call that is to be stored: what can be known now to be refused later is refused now, as the same call
    /// would be without being durable.
    pub(super) async fn submission(&self, call: Permitted<'_>) -> Result<Submission, Answer> {
        let Permitted { generation, integration, connection, caller, request, route } = call;
        self.has_room(&generation.gateway)?;
        let api = integration.api.as_ref().ok_or_else(|| super::ready::no_api(integration))?;
        let token = route::token(request.headers)?;
        let named = route.endpoint.map(|id| endpoint::find(integration, id, request.method)).transpose()?;
        let max_body = if named.is_some() {
            admit::refuse_named_token(token)?;
            MAX_INPUT
        } else {
            route::min_validity(request.headers)?;
            admit::refuse_added_parameter(api, route)?;
            pages::refuse_stored(request.headers, route.query)?;
            max_body(api, admit::transformed(api, request.method, route))
        };
        let resolved = self.parts.outbound.connections().resolve(generation, integration, connection).await;
        let body = match resolved {
            Ok(resolved) => {
                match named {
                    Some(endpoint) => {
                        grants_by_name(integration, &resolved, endpoint).map_err(|error| error.answer())?;
                    }
                    None => admit::refuse_missing_scopes((integration, &resolved), (request.method, route), token)?,
                }
                fits_body(api, &resolved, (request, route), token)?
            }
            Err(error) if error.passing() => FitsBody::Any,
            Err(error) => return Err(error.refusal().answer(&error.to_string())),
        };
        Ok(Submission {
            generation: Arc::clone(generation),
            integration: Arc::clone(integration),
            connection: Arc::from(connection),
            caller: Arc::clone(caller),
            token: token.map(str::to_owned),
            path: format!("/{}{}", route.integration, route.suffix),
            query: route.query.map(str::to_owned),
            max_body,
            body,
        })
    }

    /// Whether one more call may be stored.
    fn has_room(&self, gateway: &Gateway) -> Result<(), Answer> {
        let (depth, most) = (self.parts.backlog.depth(), gateway.limits.durable_calls);
        if depth.ready + depth.leased < u64::from(most) {
            return Ok(());
        }
        let detail = format!("{most} deliveries wait, which is as many as there may be (`limits.durable_calls`)");
        Err(Refusal::Unavailable.answer_after(&detail, STORE_RETRY))
    }
}

fn max_body(api: &Api, transformed: Option<usize>) -> u64 {
    let transform = transformed.and_then(|place| api.endpoints.get(place)?.transform.as_ref());
    transform.map_or(api.body_limit, |transform| transform.max_body)
}

/// What the body of a call must fit. A credential that is not there yet, as before the first token of an application,
/// says nothing.
fn fits_body(
    api: &Api,
    connection: &Connection,
    (request, route): (&Incoming<'_>, &Route<'_>),
    token: Option<&str>,
) -> Result<FitsBody, Answer> {
    if route.endpoint.is_some() {
        return Ok(FitsBody::Inputs);
    }
    let has_tokens = matches!(&connection.credential, Credential::Tokens(tokens) if tokens.token(None).is_some());
    let placed = match token {
        Some(token) if has_tokens => Some(super::ready::named(api, connection, token)?),
        _ => Placed::of(&api.credential, connection, token).ok(),
    };
    // What a transform makes of the body is known when it is carried out.
    let changed = admit::transformed(api, request.method, route).is_some();
    match placed.filter(|placed| placed.is_in_body() && !changed) {
        Some(_) if !admit::has_body(request.headers) => Err(admit::no_body()),
        Some(placed) => Ok(FitsBody::Credential(Box::new(placed))),
        None => Ok(FitsBody::Any),
    }
}

impl FitsBody {
    /// Whether a body is what it must be.
    ///
    /// # Errors
    /// The answer of the same call without being durable.
    fn check(&self, headers: &HeaderMap, body: &Bytes) -> Result<(), Answer> {
        match self {
            Self::Any => Ok(()),
            Self::Inputs => endpoint::inputs(body).map(drop),
            Self::Credential(placed) => {
                let put = placed.put_in(&mut headers.clone(), body.clone());
                put.map(drop).map_err(|reason| reason.refusal().answer(&reason.to_string()))
            }
        }
    }
}

/// Whether a call is to be a durable one.
///
/// # Errors
/// 400 for a value other than `true` and `false`, and for an upgrade, which is a conversation.
pub fn is_asked_for(headers: &HeaderMap) -> Result<bool, Answer> {
    let asked = match headers.get(ASYNC_HEADER).map(HeaderValue::as_bytes) {
        None | Some(b"false") => return Ok(false),
        Some(b"true") => !headers.contains_key(header::UPGRADE),
        Some(_) => false,
    };
    if asked {
        return Ok(true);
    }
    Err(Refusal::InvalidInput.answer("Trunkline-Async is `true` or `false`, and not for upgrades"))
}

/// The id of the durable call that a request asks about.
pub fn asked_about<'a>(method: &Method, route: &Route<'a>) -> Option<&'a str> {
    let id = route.endpoint?.strip_prefix(CALLS)?;
    (*method == Method::GET).then_some(id)
}

/// Stores a call and answers for it: 202 with its id. Nothing is answered for that is not on disk.
pub async fn accept(
    door: &ProxyDoor,
    submission: Submission,
    (method, from): (Method, &HeaderMap),
    body: Bytes,
) -> Answer {
    let mut kept = headers::kept(from);
    let gateway = &submission.generation.gateway;
    // Others may have come while its body did.
    let named = door
        .has_room(gateway)
        .and_then(|()| destination(gateway, from))
        .and_then(|deliver| Ok((deliver, key(from)?, submission.body.check(&kept, &body)?)));
    let (deliver, key, ()) = match named {
        Ok(named) => named,
        Err(refused) => return refused,
    };
    let integration = Arc::clone(&submission.integration.id);
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        kept.remove(name);
    }
    // The outcome is kept, and what is compressed shows not whether the credential is in it.
    kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let call = DurableCall {
        method,
        path: submission.path,
        query: submission.query,
        connection: submission.connection.to_string(),
        token: submission.token,
        caller: submission.caller.to_string(),
        deliver,
        headers: kept,
        body,
    };
    let now = door.parts.clock.now();
    let unavailable = |detail: &str| Refusal::StoreUnavailable.answer_after(detail, STORE_RETRY);
    let id = match EventId::generate(now, &*door.parts.random) {
        Ok(id) => id,
        Err(error) => return unavailable(&error.to_string()),
    };
    let mut event = call.clone().into_event(Arc::clone(&integration), id, key, now);
    event.headers.extend(trace::stored());
    match door.parts.events.accept(event).await {
        Ok(Accepted::New) => taken_in(&integration, id),
        Ok(Accepted::Duplicate(first)) => again(door, &integration, first, &call).await,
        Err(StoreError::TooLarge { .. }) => {
            Refusal::BodyTooLarge.answer("the call is larger than the store accepts").closing()
        }
        Err(error) => {
            tracing::warn!(integration = &*integration, "a durable call was not stored: {error}");
            unavailable("the call could not be made durable; send it again")
        }
    }
}

/// The destination that is named for the outcome.
fn destination(gateway: &Gateway, from: &HeaderMap) -> Result<Option<String>, Answer> {
    let Some(value) = from.get(DELIVER_HEADER) else { return Ok(None) };
    let name = value.to_str().unwrap_or_default();
    let known = gateway.destination(name).map(|destination| destination.id.to_string());
    let unknown = || Refusal::InvalidInput.answer("Trunkline-Deliver-To names no destination of trunkline.yaml");
    known.ok_or_else(unknown).map(Some)
}

fn key(from: &HeaderMap) -> Result<Option<&str>, Answer> {
    let Some(value) = from.get(KEY_HEADER) else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY);
    key.map(Some).ok_or_else(|| Refusal::InvalidInput.answer("Idempotency-Key has 1 to 255 visible characters"))
}

fn taken_in(integration: &str, id: EventId) -> Answer {
    let place = format!("/{integration}/-/{CALLS}{id}");
    let answer = Answer::json(StatusCode::ACCEPTED, &json!({ "call": id.to_string(), "status": place }));
    match HeaderValue::from_str(&place) {
        Ok(place) => answer.with(header::LOCATION, place),
        Err(_) => answer,
    }
}

/// A second call with the key of a first: the same call has the same answer, another is refused.
async fn again(door: &ProxyDoor, integration: &str, first: EventId, call: &DurableCall) -> Answer {
    match door.parts.events.event(first).await {
        Ok(Some(event)) if DurableCall::of(&event).is_some_and(|known| known.is_same(call)) => {
            taken_in(integration, first)
        }
        Ok(Some(_)) => Refusal::Conflict.answer("the idempotency key was used for another call"),
        // It is past its retention; that it was taken in is all that is known.
        Ok(None) => taken_in(integration, first),
        Err(error) => unreadable(&error),
    }
}

/// What became of a call, for the caller whose call it is.
pub async fn status(door: &ProxyDoor, integration: &Integration, caller: &Caller, id: &str) -> Answer {
    let unknown = || Refusal::NotFound.answer("there is no such call of this caller");
    let Ok(id) = id.parse::<EventId>() else { return unknown() };
    let event = match door.parts.events.event(id).await {
        Ok(event) => event.filter(|event| event.head.integration == integration.id),
        Err(error) => return unreadable(&error),
    };
    let Some((event, call)) = event.and_then(|event| DurableCall::of(&event).map(|call| (event, call))) else {
        return unknown();
    };
    if *call.caller != *caller.id {
        return unknown();
    }
    match told(door, &event, &call).await {
        Ok(told) => Answer::json(StatusCode::OK, &told),
        Err(error) => unreadable(&error),
    }
}

async fn told(door: &ProxyDoor, event: &Event, call: &DurableCall) -> Result<Value, StoreError> {
    let id = event.head.id;
    let deliveries = door.parts.events.deliveries(id).await?;
    let attempts: Vec<_> = deliveries.first().map(|delivery| delivery.attempts.as_slice()).unwrap_or_default().to_vec();
    let (newest, _) = newest_outcome(&*door.parts.events, id).await?;
    let outcome: Value = newest.and_then(|found| serde_json::from_slice(&found.body).ok()).unwrap_or_default();
    Ok(json!({
        "call": id.to_string(),
        "state": event.head.state,
        "received_at": event.head.received_at.to_string(),
        "method": call.method.as_str(),
        "path": call.path,
        "connection": call.connection,
        "next_try": deliveries.first().and_then(next_try),
        "attempts": attempts.iter().map(|attempt| json!({
            "number": attempt.number,
            "started_at": attempt.started_at.to_string(),
            "duration_ms": attempt.duration_ms,
            "status": attempt.status,
            "error": attempt.error,
        })).collect::<Vec<_>>(),
        "outcome": outcome,
    }))
}

fn next_try(delivery: &Delivery) -> Option<String> {
    match delivery.state {
        DeliveryState::Ready { due } => Some(due.to_string()),
        DeliveryState::Leased { .. } | DeliveryState::Done | DeliveryState::Dead | DeliveryState::Withdrawn => None,
    }
}

fn unreadable(error: &StoreError) -> Answer {
    tracing::error!("a durable call could not be read: {error}");
    Refusal::Internal.answer("the call could not be read from the store")
}

/// A durable call on its way out: no such call is streamed.
enum Held {
    Whole(WholeCall),
    Named(NamedCall),
}

#[async_trait]
impl Carry for ProxyDoor {
    async fn carry(&self, generation: &Arc<Generation>, call: &DurableCall, delivery: DeliveryId) -> Report {
        let key = delivery.idempotency_key();
        let mut headers = call.headers.clone();
        // A caller's key that says nothing is none: the service could not know the tries by it.
        if let (Some(name), Ok(value)) = (key_header(generation, call), HeaderValue::from_str(&key))
            && !has_key(&headers, &name)
        {
            headers.insert(name, value);
        }
        match self.admit_again(generation, call).await {
            Ok(Held::Whole(whole)) => self.carry_whole(&whole, call, (&headers, delivery)).await,
            Ok(Held::Named(named)) => {
                endpoint::carry(&self.parts.outbound, &named, (&call.body, &key), delivery.to_string()).await
            }
            Err(refused) => of_refusal(&refused),
        }
    }

    fn repeats_safely(&self, generation: &Generation, call: &DurableCall) -> bool {
        let path = NormalPath::of(&call.path);
        let Some((integration, route)) = place(generation, call, &path) else { return true };
        let api = integration.api.as_ref();
        let named = route.endpoint.and_then(|id| api?.endpoint(id));
        named.map_or_else(
            || call.method.is_idempotent() || key_header(generation, call).is_some(),
            |endpoint| repeats_safely(&endpoint.request, api.and_then(|api| api.retry(route.endpoint)), true),
        )
    }
}

impl ProxyDoor {
    /// The gates that a call met when it was taken in, by the definitions in force now.
    async fn admit_again(&self, generation: &Arc<Generation>, call: &DurableCall) -> Result<Held, Answer> {
        let gone = || Refusal::CallerForbidden.answer("the caller whose call this is is no longer one");
        let caller = generation.gateway.callers.iter().find(|known| *known.id == *call.caller).ok_or_else(gone)?;
        let path = NormalPath::of(&call.path);
        let route = route::read(&path, call.query.as_deref())?;
        caller::permit(
            caller,
            admit::asked_method(generation, &route, &call.method),
            &route,
            (&call.connection, call.token.as_deref()),
        )?;
        let integration = admit::find_integration(generation, &route)?;
        if let Some(id) = route.endpoint {
            let found = endpoint::find(integration, id, &call.method)?;
            return Ok(Held::Named(NamedCall {
                generation: Arc::clone(generation),
                integration: Arc::clone(integration),
                connection: Arc::from(call.connection.as_str()),
                caller: Arc::clone(&caller.id),
                endpoint: Arc::clone(&found.id),
                key: endpoint::own_key(&call.headers, integration, id),
            }));
        }
        let need = Need { token: call.token.as_deref(), validity: Duration::ZERO };
        let ready = self.connections.get(generation, integration, &call.connection, need).await?;
        let api = integration.api.as_ref().ok_or_else(|| super::ready::no_api(integration))?;
        admit::refuse_added_parameter(api, &route)?;
        let account = (&*ready.integration, &*ready.common.connection);
        admit::refuse_missing_scopes(account, (&call.method, &route), need.token)?;
        let endpoint = admit::transformed(api, &call.method, &route);
        if call.body.is_empty() && endpoint.is_none() {
            admit::refuse_without_body(&ready)?;
        }
        Ok(Held::Whole(WholeCall {
            generation: Arc::clone(generation),
            endpoint,
            caller: Some(Arc::clone(&caller.id)),
            known_as: admit::recognised(&ready, &call.method, &route),
            ready,
            suffix: route.suffix.to_owned(),
            query: call.query.clone(),
            renewed: Renewed::default(),
        }))
    }

    async fn carry_whole(
        &self,
        whole: &WholeCall,
        call: &DurableCall,
        (headers, delivery): (&HeaderMap, DeliveryId),
    ) -> Report {
        let (at, began) = (self.parts.clock.now(), self.parts.clock.monotonic());
        let mut course = Course::default();
        let made = whole::make(self, whole, &call.method, (headers, call.body.clone()), &mut course).await;
        let took = self.parts.clock.monotonic().saturating_sub(began);
        let (status, error) = match &made {
            Ok(answer) => (Some(answer.status.as_u16()), None),
            Err(unmade) => (None, unmade.code()),
        };
        let (origin, path) = whole.place();
        let content = carried::whole(self, (headers, &call.body), made.as_ref().ok(), &|text| whole.redact(text));
        record::apart(
            self,
            CallRecord {
                at,
                generation: whole.generation.number,
                integration: Arc::clone(&whole.ready.integration.id),
                connection: Arc::from(call.connection.as_str()),
                asker: Asker::Delivery(delivery.to_string()),
                endpoint: None,
                method: call.method.clone(),
                origin,
                path,
                status,
                error,
                duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                sent_bytes: course.sent_of(call.body.len() as u64),
                received_bytes: made.as_ref().map_or_else(Unmade::heard, |answer| answer.body.len() as u64),
                course,
                told: Told { content, ..Told::default().traced() },
            },
        );
        self.report(whole, call, made)
    }

    /// What the end of a call means for its delivery.
    fn report(&self, whole: &WholeCall, call: &DurableCall, made: Result<Answer, Unmade>) -> Report {
        let repeatable = self.repeats_safely(&whole.generation, call);
        let integration = Arc::clone(&whole.ready.integration.id);
        let tried = |reason| OutboundError::Tried(Box::new(Unsuccessful { integration, repeatable, reason }));
        match made {
            Ok(answer) if answer.status.is_success() || answer.status.is_redirection() => {
                Report::done(Some(answer.status.as_u16())).with_answer(Some(apart(|| answered(whole, answer))))
            }
            Ok(answer) => {
                let status = answer.status.as_u16();
                let waits: HeaderMap = answer.headers.iter().cloned().collect();
                let retry_after = retry_after(&waits, self.parts.clock.now());
                let refused = AnswerError::Refused { status, words: None, retry_after, led: false };
                Report::from(&tried(Why::Answer(refused))).with_answer(Some(apart(|| answered(whole, answer))))
            }
            Err(Unmade::Failed(failure)) => Report::from(&tried(Why::Failure(failure))),
            Err(Unmade::Refused(refused)) => of_refusal(&refused),
            Err(Unmade::Unreadable(refused, _)) => {
                let unknown = "the service may have carried the call out";
                Report::failed(None, format!("{}; {unknown}", words(&refused)), Again::Never)
            }
        }
    }
}

/// A call that met a gate: nothing of it was sent.
fn of_refusal(refused: &Answer) -> Report {
    let wait = refused.headers.iter().find(|(name, _)| *name == header::RETRY_AFTER);
    let wait = wait.and_then(|(_, value)| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
    let passing = refused.status.is_server_error() || refused.status == StatusCode::TOO_MANY_REQUESTS;
    let again = if passing { Again::Held(wait) } else { Again::Never };
    Report::failed(None, words(refused), again)
}

/// What a refusal says.
fn words(refused: &Answer) -> String {
    let problem = serde_json::from_slice::<Value>(&refused.body).unwrap_or_default();
    let detail = problem.get("detail").and_then(Value::as_str).unwrap_or("the gateway refused the call");
    detail.to_owned()
}

/// Where a stored call goes, by the definitions in force.
fn place<'a>(
    generation: &'a Generation,
    call: &'a DurableCall,
    path: &'a NormalPath<'_>,
) -> Option<(&'a Arc<Integration>, Route<'a>)> {
    let route = route::read(path, call.query.as_deref()).ok()?;
    Some((generation.integration(route.integration)?, route))
}

/// The header in which the service takes an idempotency key for this call.
fn key_header(generation: &Generation, call: &DurableCall) -> Option<HeaderName> {
    let path = NormalPath::of(&call.path);
    let (integration, route) = place(generation, call, &path)?;
    let api = integration.api.as_ref()?;
    let endpoint = api.recognise(&call.method, route.suffix).map(|endpoint| &*endpoint.id);
    api.retry(endpoint)?.idempotency_key.clone()
}
