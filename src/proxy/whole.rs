//! Calls that are read whole: of endpoints with `transform`, and those whose credential or signature depends
//! on the body. They are changed or signed, sent as a call of our own, and answered likewise. What streams
//! cannot be changed, so these calls have a size cap in both directions.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use minijinja::value::Value;

use super::kept::{self, Behind};
use super::ready::Ready;
use super::retry::has_key;
use super::transform::{self, TransformError};
use super::{ProxyDoor, depart, headers};
use crate::activity::Course;
use crate::base::secret::Secret;
use crate::definition::live::Generation;
use crate::definition::plan::api::{Api, Endpoint, Transform};
use crate::definition::plan::policy::Retry;
use crate::net::exchange::{BodyLimit, Excess, Outgoing, Received, Towards};
use crate::net::{Failure, Sent};
use crate::outbound::cache::{Look, Turn, is_unsafe, listed, of_answer};
use crate::outbound::policy::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::outbound::retry::{Between, Fault, Spent, fresh_key, key_header};
use crate::outbound::sign::{Carried, Leaving, whole_query};
use crate::outbound::{Ask, Lane, PlaceError};
use crate::request::fill::FRAMING;
use crate::respond::{Answer, Refusal};
use crate::template::Context;

/// What is told of an answer of which too much was made.
pub(super) const NO_ROOM: &str = "there is no room for what is made of it (`limits.whole_answer_bytes`)";

/// A call that is read whole, admitted.
pub struct WholeCall {
    pub(super) generation: Arc<Generation>,
    pub(super) ready: Arc<Ready>,
    /// Who asked for it; none for what the gateway does by itself.
    pub(super) caller: Option<Arc<str>>,
    /// The endpoint that it is for, where that matters to the policy.
    pub(super) known_as: Option<Arc<str>>,
    /// The place in its API of the endpoint whose transform changes it.
    pub(super) endpoint: Option<usize>,
    pub(super) suffix: String,
    pub(super) query: Option<String>,
    pub(super) renewed: Renewed,
}

/// The connection with other credentials than the call's own, where it was sent with one: after a renewal, or signed by
/// another clock.
#[derive(Default)]
pub(super) struct Renewed(Mutex<Vec<Arc<Ready>>>);

impl Renewed {
    fn note(&self, ready: &Arc<Ready>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(ready));
    }
}

impl WholeCall {
    /// A text without any credential that the call was sent with.
    pub(super) fn redact(&self, text: &str) -> String {
        let renewed = self.renewed.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.iter().fold(self.ready.common.redact(text), |text, ready| ready.common.redact(&text))
    }

    /// The same of a text that is known to be whole: what it ends with stays.
    pub(super) fn redact_whole(&self, text: &str) -> String {
        let renewed = self.renewed.0.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.iter().fold(self.ready.common.redact_whole(text), |text, ready| ready.common.redact_whole(&text))
    }

    fn endpoint(&self) -> Option<&Endpoint> {
        self.ready.integration.api.as_ref()?.endpoints.get(self.endpoint?)
    }

    fn transform(&self) -> Option<&Transform> {
        self.endpoint()?.transform.as_ref()
    }

    /// What its templates see besides a message.
    fn seen(&self) -> Context {
        let query = query_values(self.query.as_deref().unwrap_or_default());
        self.ready.common.connection.context.clone().with("query", query)
    }

    /// The headers by which the service chooses its answer (`Vary`), where a transform makes others of these; `None` where
    /// it gives the call a body, by which the answer may be chosen as well.
    fn choosing<'a>(&self, headers: &'a HeaderMap) -> Result<Option<Cow<'a, HeaderMap>>, TransformError> {
        let Some(change) = self.transform().and_then(|transform| transform.request.as_ref()) else {
            return Ok(Some(Cow::Borrowed(headers)));
        };
        let mut sent = headers.clone();
        let body = transform::request(change, self.seen(), &mut sent, Bytes::new())?;
        // What the caller wants of the cache is the caller's word.
        for name in Turn::CONDITIONS.iter().chain([&header::CACHE_CONTROL, &header::PRAGMA]) {
            sent.remove(name);
            for value in headers.get_all(name) {
                sent.append(name, value.clone());
            }
        }
        Ok(body.is_empty().then_some(Cow::Owned(sent)))
    }

    fn refused(&self, error: &TransformError) -> Answer {
        error.answer(|words| self.redact(words))
    }

    /// When a call that begins now must be over.
    fn ends(&self, door: &ProxyDoor) -> Duration {
        door.parts.clock.monotonic().saturating_add(self.ready.timeouts.total)
    }

    fn retry(&self) -> Option<&Retry> {
        self.ready.integration.api.as_ref()?.retry(self.known_as.as_deref())
    }

    /// Where it goes: origin and path.
    pub fn place(&self) -> (Arc<str>, String) {
        let common = &self.ready.common;
        (Arc::clone(&common.place), format!("{}{}", common.base.path, self.suffix))
    }

    /// The most bytes that the request's body may have.
    pub fn max_body(&self) -> u64 {
        let of_api = || self.ready.integration.api.as_ref().map_or(0, |api| api.body_limit);
        self.transform().map_or_else(of_api, |transform| transform.max_body)
    }
}

/// A call that came to no answer of the service.
#[derive(Debug)]
pub enum Unmade {
    /// Nothing was sent.
    Refused(Answer),
    /// It failed on its way.
    Failed(Failure),
    /// The service answered what cannot be passed on; and how many bytes its body had.
    Unreadable(Answer, u64),
}

impl Unmade {
    /// What the caller gets.
    pub fn into_answer(self) -> Answer {
        match self {
            Self::Refused(answer) | Self::Unreadable(answer, _) => answer,
            Self::Failed(failure) => failure.refusal().answer(&failure.to_string()),
        }
    }

    /// How many bytes were read of the body of the service's answer.
    pub const fn heard(&self) -> u64 {
        match self {
            Self::Refused(_) => 0,
            Self::Failed(failure) => failure.heard,
            Self::Unreadable(_, heard) => *heard,
        }
    }

    /// The gateway's code for it.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Refused(answer) | Self::Unreadable(answer, _) => Refusal::of(answer).map(|refusal| refusal.code()),
            Self::Failed(failure) => Some(failure.refusal().code()),
        }
    }
}

/// Makes the call: change, send, change. A GET may be answered from what is kept, as the service said it: what
/// is changed is changed each time.
pub async fn run(
    door: &Arc<ProxyDoor>,
    call: &Arc<WholeCall>,
    from: (&Method, &HeaderMap),
    body: Bytes,
    course: &mut Course,
) -> Answer {
    let (received, limits) = match fetch(door, call, from, body, course).await {
        Ok(received) => received,
        Err(unmade) => return unmade.into_answer(),
    };
    let told = depart::tells_limits(&received.headers);
    let answer = answer(door, call, received).unwrap_or_else(|error| call.refused(&error));
    match limits.filter(|_| !told) {
        Some((policy, left)) => answer.with(RATE_LIMIT_POLICY, policy).with(RATE_LIMIT, left),
        None => answer,
    }
}

/// Makes the call once, without what is kept and without further tries: for who decides on those.
///
/// # Errors
/// When there is no answer of the service to give.
pub async fn make(
    door: &ProxyDoor,
    call: &WholeCall,
    method: &Method,
    (from, body): (&HeaderMap, Bytes),
    course: &mut Course,
) -> Result<Answer, Unmade> {
    let headers = headers::kept(from);
    let message = Message { headers: &headers, body, ends: call.ends(door) };
    let tried = renewing(door, call, method, message, course).await?;
    let received = noted(door, call, method, tried.received);
    let heard = received.body.len() as u64;
    answer(door, call, received).map_err(|error| Unmade::Unreadable(call.refused(&error), heard))
}

/// An answer, and how the limits stood when its call went.
type Fetched = (Received, Option<(HeaderValue, HeaderValue)>);

/// The service's answer, or what is kept of one.
pub async fn fetch(
    door: &Arc<ProxyDoor>,
    call: &Arc<WholeCall>,
    (method, from): (&Method, &HeaderMap),
    body: Bytes,
    course: &mut Course,
) -> Result<Fetched, Unmade> {
    let place = (call.suffix.as_str(), call.query.as_deref());
    let mut headers = headers::kept(from);
    if call.transform().is_some_and(transform::reads_answers) {
        // The caller's conditions are about an answer that the service does not know.
        for name in Turn::CONDITIONS {
            headers.remove(name);
        }
    }
    let may_be_kept = call.ready.integration.api.as_ref().is_some_and(Api::caches) && !is_unsafe(method);
    let choosing = if may_be_kept && body.is_empty() {
        call.choosing(&headers).map_err(|error| Unmade::Refused(call.refused(&error)))?
    } else {
        None
    };
    let asked =
        choosing.as_deref().and_then(|headers| kept::asked(&call.generation, &call.ready, (method, headers), place));
    let mut turn = match asked {
        None => None,
        Some(asked) => match door.parts.outbound.cache().look(asked).await {
            Look::Ask(turn) => Some(turn),
            Look::Given(given) => {
                course.cache = Some(given.verdict);
                if let Some(turn) = given.refresh {
                    Behind::new(call, headers, turn).begin(door);
                }
                return Ok((of_answer(given.answer), None));
            }
        },
    };
    if let Some(turn) = &turn {
        turn.ask(&mut headers);
    }
    let (received, limits) = match trying(door, call, method, (&headers, body), course).await {
        Ok(fetched) => fetched,
        Err(unmade) => {
            let stale = turn.as_mut().and_then(|turn| turn.failed()).map(of_answer);
            let stale = stale.ok_or(unmade)?;
            course.cache = Some("stale");
            return Ok((stale, None));
        }
    };
    let received = noted(door, call, method, received);
    let received = match turn {
        Some(turn) => {
            let (received, verdict) = turn.settle(received);
            course.cache = Some(verdict);
            received
        }
        None => received,
    };
    Ok((received, limits))
}

/// What an answer says about the connection and about what is kept.
fn noted(door: &ProxyDoor, call: &WholeCall, method: &Method, received: Received) -> Received {
    super::feel(&call.ready, received.status, door.parts.clock.now());
    if let Some(key) = kept::changes(&call.ready, method, (call.suffix.as_str(), call.query.as_deref())) {
        door.parts.outbound.cache().changed(&key, received.status, &received.headers);
    }
    received
}

/// A try that was answered.
struct Tried {
    received: Received,
    /// How the limits stand.
    limits: Option<(HeaderValue, HeaderValue)>,
    /// How long the service asks to wait.
    asked: Option<Duration>,
}

/// What is sent with each try.
#[derive(Clone)]
struct Message<'a> {
    headers: &'a HeaderMap,
    body: Bytes,
    /// When it must be over: there is one time for all tries.
    ends: Duration,
}

/// A call, and further tries of it as declared.
async fn trying(
    door: &ProxyDoor,
    call: &WholeCall,
    method: &Method,
    (from, body): (&HeaderMap, Bytes),
    course: &mut Course,
) -> Result<Fetched, Unmade> {
    call.ready.common.policy.begin();
    let from = &keyed(door, call, method, from);
    let ends = call.ends(door);
    let mut count = 0;
    loop {
        let message = Message { headers: from, body: body.clone(), ends };
        let tried = renewing(door, call, method, message, course).await;
        count += 1;
        let Some((pause, spent)) = again(door, call, (method, from), (&tried, count, ends)) else {
            return tried.map(|tried| (tried.received, tried.limits));
        };
        tokio::time::sleep(pause).await;
        course.waited += pause;
        spent.goes();
    }
}

/// The headers with an idempotency key, where a call needs one and has none.
fn keyed(door: &ProxyDoor, call: &WholeCall, method: &Method, from: &HeaderMap) -> HeaderMap {
    let mut headers = from.clone();
    let plan = call.retry();
    if let Some(name) = key_header(plan, method).filter(|name| !has_key(&headers, name))
        && let Ok(key) = fresh_key(&**door.parts.outbound.moment().1)
    {
        headers.insert(name.clone(), key);
    }
    headers
}

/// Whether the call is tried again, and after what pause.
fn again(
    door: &ProxyDoor,
    call: &WholeCall,
    (method, from): (&Method, &HeaderMap),
    (tried, count, ends): (&Result<Tried, Unmade>, u32, Duration),
) -> Option<(Duration, Spent)> {
    let plan = call.retry()?;
    let fault = match tried {
        Ok(tried) if tried.received.status.as_u16() >= 400 => {
            Fault::Status(tried.received.status.as_u16(), tried.asked)
        }
        Err(Unmade::Failed(failure)) if failure.passing() && failure.sent == Sent::Nothing => Fault::Unsent,
        Err(Unmade::Failed(failure)) if failure.passing() => Fault::Broken,
        Ok(_) | Err(_) => return None,
    };
    let keyed = plan.idempotency_key.as_ref().is_some_and(|name| has_key(from, name));
    let left = ends.saturating_sub(door.parts.clock.monotonic());
    let between = Between { plan, tries: count, repeatable: method.is_idempotent() || keyed, left };
    call.ready.common.policy.again(&between, fault, &**door.parts.outbound.moment().1)
}

/// One try, and a second with another token where the service refuses the first.
async fn renewing(
    door: &ProxyDoor,
    call: &WholeCall,
    method: &Method,
    message: Message<'_>,
    course: &mut Course,
) -> Result<Tried, Unmade> {
    let first = once(door, (call, &call.ready), method, message.clone(), course).await;
    if heard(door, call, &first)
        && method.is_idempotent()
        && let Some(ready) = door.afresh(&call.generation, &call.ready).await
    {
        call.renewed.note(&ready);
        let again = once(door, (call, &ready), method, message, course).await;
        heard(door, call, &again);
        return again;
    }
    let refused = first.as_ref().is_ok_and(|tried| tried.received.status == StatusCode::UNAUTHORIZED);
    let renewed = if refused { door.renewed(&call.generation, &call.ready).await } else { None };
    match renewed {
        Some(ready) if method.is_idempotent() => {
            door.parts.outbound.note_retry(&ready.integration, &ready.common.connection.id);
            call.renewed.note(&ready);
            once(door, (call, &ready), method, message, course).await
        }
        _ => first,
    }
}

/// What an answer says of the service's clock; true when signing once more may help.
fn heard(door: &ProxyDoor, call: &WholeCall, tried: &Result<Tried, Unmade>) -> bool {
    let Ok(tried) = tried else { return false };
    let answer = (tried.received.status.as_u16(), &tried.received.headers);
    door.parts.outbound.hear_clock(&call.ready.integration, &call.ready.common, answer)
}

/// One try.
async fn once(
    door: &ProxyDoor,
    (call, ready): (&WholeCall, &Ready),
    method: &Method,
    message: Message<'_>,
    course: &mut Course,
) -> Result<Tried, Unmade> {
    let Message { headers, body, ends } = message;
    let endpoint = call.known_as.as_ref();
    let common = &ready.common;
    let ask = Ask {
        connection: &common.connection.id,
        caller: call.caller.as_ref(),
        endpoint,
        method,
        path: &call.suffix,
        place: &common.place,
        until: Some(ends),
        lane: Lane::Turn,
    };
    let admitted = common.policy.admit(ask, common.waiting_calls()).await;
    let pass = admitted.map_err(|held| {
        course.waited += held.waited();
        Unmade::Refused(held.answer(&ready.integration.id))
    })?;
    course.waited += pass.waited();
    course.attempts += 1;
    let mut outgoing = match outgoing(door, call, ready, method, (headers, body)) {
        Ok(outgoing) => outgoing,
        Err(refused) => {
            pass.unsent();
            course.unsent += 1;
            return Err(Unmade::Refused(refused));
        }
    };
    outgoing.timeouts.total = outgoing.timeouts.total.min(ends.saturating_sub(door.parts.clock.monotonic()));
    let limits = pass.fields();
    match door.parts.clients.send(outgoing).await {
        Ok(mut received) => {
            let asked = pass.read(&received, endpoint.map(|id| &**id));
            ready.credential().withhold(&mut received.headers);
            Ok(Tried { received, limits, asked })
        }
        Err(failure) => {
            pass.failed(&failure);
            course.unsent += u32::from(failure.sent == Sent::Nothing);
            Err(Unmade::Failed(failure))
        }
    }
}

/// A GET with these headers, for the cache.
pub async fn get(
    door: &ProxyDoor,
    call: &WholeCall,
    headers: &HeaderMap,
    course: &mut Course,
) -> Result<Received, Answer> {
    let message = Message { headers, body: Bytes::new(), ends: call.ends(door) };
    let tried = once(door, (call, &call.ready), &Method::GET, message, course).await;
    tried.map(|tried| tried.received).map_err(Unmade::into_answer)
}

fn outgoing(
    door: &ProxyDoor,
    call: &WholeCall,
    ready: &Ready,
    method: &Method,
    (from, body): (&HeaderMap, Bytes),
) -> Result<Outgoing, Answer> {
    let common = &ready.common;
    let Some(api) = ready.integration.api.as_ref() else { return Err(super::ready::no_api(&ready.integration)) };
    let transform = call.transform();
    let mut kept = headers::kept(from);
    let mut body = body;
    if let Some(change) = transform.and_then(|transform| transform.request.as_ref()) {
        body = transform::request(change, call.seen(), &mut kept, body).map_err(|error| call.refused(&error))?;
    }
    // What a transform makes of the key must not leave a call that is tried again without one.
    if let Some(name) = key_header(call.retry(), method).filter(|name| !has_key(&kept, name))
        && let Some(key) = from.get(name)
    {
        kept.insert(name.clone(), key.clone());
    }
    if transform.is_some_and(transform::reads_answers) {
        // Leaving it out would leave the choice to the service.
        kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    without_framing(&mut kept);
    kept.insert(header::VIA, door.via.clone());
    for (name, value) in &common.headers {
        kept.insert(name.clone(), value.clone());
    }
    ready.credential().put_on(&mut kept);
    let unusable = |reason: PlaceError| reason.refusal().answer(&reason.to_string());
    let body = ready.credential().put_in(&mut kept, body).map_err(unusable)?;
    let path = format!("{}{}", common.base.path, call.suffix);
    if common.signs() {
        let plain = call.query.as_deref().unwrap_or_default();
        let query = whole_query(plain, ready.credential().query().map(|(_, pair)| pair));
        let signed = (method, path.as_str(), query.expose().as_str());
        sign(door, ready, signed, (&mut kept, &body)).map_err(unusable)?;
    }
    let limit = BodyLimit { bytes: usize::try_from(call.max_body()).unwrap_or(usize::MAX), excess: Excess::Refuse };
    let secret = ready.credential().query().map(|(_, pair)| Arc::new(Secret::new(pair.expose().clone())));
    Ok(Outgoing {
        towards: Towards::Service {
            integration: Arc::clone(&ready.integration.id),
            transport: api.transport.clone(),
            reach: common.reach.clone(),
        },
        caller: call.caller.clone(),
        method: method.clone(),
        origin: common.base.origin.clone(),
        path,
        query: call.query.clone(),
        secret_query: secret,
        headers: kept,
        body,
        timeouts: ready.timeouts,
        limit,
    })
}

/// Signs a call with this method, path and query.
fn sign(
    door: &ProxyDoor,
    ready: &Ready,
    (method, path, query): (&Method, &str, &str),
    (headers, body): (&mut HeaderMap, &Bytes),
) -> Result<(), PlaceError> {
    let common = &ready.common;
    for name in common.own_headers() {
        headers.remove(name);
    }
    let leaving = Leaving { method, origin: &common.base.origin, path, query, headers, body: Some(body) };
    let carried = Carried::Credential(ready.token());
    let added = common.sign(carried, leaving, door.parts.outbound.signing_moment(&common.connection))?;
    headers.extend(added);
    Ok(())
}

/// What the caller gets: the answer as the endpoint's transform makes it.
fn answer(door: &ProxyDoor, call: &WholeCall, received: Received) -> Result<Answer, TransformError> {
    let headers = headers::kept_of_answer(&received.headers);
    let came = received.body.clone();
    let received = Received { headers, ..received };
    let received = match (call.endpoint(), call.ready.integration.api.as_ref()) {
        (Some(endpoint), Some(api)) => {
            transform::response((endpoint, api), call.seen(), received, door.parts.clock.now())?
        }
        _ => received,
    };
    let Received { status, mut headers, body, .. } = received;
    // What came holds its part already, and what was made of it waits for the caller in its place.
    let is_made = (came.as_ptr(), came.len()) != (body.as_ptr(), body.len());
    drop(came);
    let whose = (&call.ready.integration.id, call.caller.as_ref());
    let hold = |body| door.parts.clients.hold(whose, body);
    let body = if is_made { hold(body).ok_or(TransformError::Unreadable(NO_ROOM))? } else { body };
    without_framing(&mut headers);
    Ok(Answer { status, headers: listed(headers).collect(), body, close: false })
}

/// Framing is written by whoever sends the message, from what it has.
fn without_framing(headers: &mut HeaderMap) {
    for name in FRAMING {
        headers.remove(name);
    }
}

/// A query's parameters; of several with one name the first.
fn query_values(query: &str) -> Value {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if seen.iter().all(|(known, _)| *known != name) {
            seen.push((name.into_owned(), value.into_owned()));
        }
    }
    let map: serde_json::Map<String, serde_json::Value> = seen.into_iter().map(|(k, v)| (k, v.into())).collect();
    Value::from(minijinja::value::Serde(&map))
}
