//! The proxy door: an application's calls to services, with the credential added here.
//!
//! [`ProxyDoor::handle`] is the list of what a call meets before a byte of it goes out; [`forward`] is
//! Pingora's side of it, which streams. Nothing here opens sockets inwards (`server` does), and no
//! Pingora type is known outside this room and `server`.

pub mod answer;
mod caller;
mod carry;
mod chunks;
mod context;
mod depart;
mod dial;
mod durable;
pub mod endpoint;
pub mod forward;
mod frames;
mod headers;
pub mod intake;
mod kept;
mod pages;
mod path;
mod peer;
mod ready;
mod record;
mod renew;
mod respond;
pub mod retry;
mod route;
mod sign;
pub mod socket;
pub mod stream;
mod transform;
pub mod underway;
pub mod watch;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};

use crate::base::clock::{Clock, Timestamp};
use crate::base::random::{Random, RandomUnavailable};
use crate::connection::Need;
use crate::connection::health::Trouble;
use crate::definition::live::{Generation, Live};
use crate::definition::plan::Integration;
use crate::net::client::Clients;
use crate::net::{self, DialError, Dialer};
use crate::outbound::visible::is_parameter;
use crate::outbound::{Outbound, SignedOut};
use crate::respond::{Answer, Refusal};
use crate::store::Events;
use crate::telemetry::metrics::Metrics;
use durable::Submission;
use endpoint::NamedCall;
use kept::{Before, FromKept, Kept};
use pages::PagesCall;
use ready::{Ready, ReadyConnections};
use route::Route;
use whole::WholeCall;

/// What the proxy door is made of.
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// What prepares connections for calls, makes those that are not streamed, and remembers them.
    pub outbound: Arc<Outbound>,
    /// What sends calls that cannot be streamed.
    pub clients: Clients,
    /// What is dialled through.
    pub dialer: Arc<Dialer>,
    /// The program's metrics.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness, for ids.
    pub random: Arc<dyn Random>,
    /// Where durable calls are kept.
    pub events: Arc<dyn Events>,
}

/// The proxy door.
pub struct ProxyDoor {
    parts: Parts,
    connections: ReadyConnections,
    /// Names this process in `Via`, so that a call that comes back is known.
    pseudonym: String,
    via: HeaderValue,
}

/// A request as the stages see it.
pub(crate) struct Incoming<'a> {
    method: &'a Method,
    path: &'a str,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
}

/// A call that may go out.
pub(crate) struct Call {
    generation: Arc<Generation>,
    ready: Arc<Ready>,
    /// Who asked for it.
    caller: Arc<str>,
    /// The endpoint that it is for, where that matters to the policy.
    endpoint: Option<Arc<str>>,
    /// Path and query as the service gets them.
    target: String,
    /// Where it is dialled, once it may go.
    way: Option<Way>,
    kept: Kept,
}

/// Where a call is dialled.
pub(crate) struct Way {
    route: net::Route,
    /// When connecting must be done, in monotonic time.
    connect_by: Duration,
}

impl Call {
    /// The path below the API's base, without the query.
    fn below(&self) -> &str {
        let path = self.target.split_once('?').map_or(&*self.target, |(path, _)| path);
        path.strip_prefix(&self.ready.common.base.path).unwrap_or(path)
    }

    /// Where it goes: origin and path, without the query, which may hold the credential.
    fn into_place(mut self) -> (Arc<str>, String) {
        self.target.truncate(self.target.find('?').unwrap_or(self.target.len()));
        (Arc::clone(&self.ready.common.place), self.target)
    }
}

/// What is known of a call for those who read of it later, however far it comes.
#[derive(Default)]
pub(crate) struct Known {
    /// Whose it is, once a caller has shown a key and named an integration that there is.
    subject: Option<Subject>,
    /// Where it goes, or would have gone: origin and path. None for what is no call to a service, and for calls that
    /// are recorded where they are made.
    place: Option<(Arc<str>, String)>,
}

/// Whose call it is, for those who read of it later.
pub(crate) struct Subject {
    generation: u64,
    integration: Arc<str>,
    connection: Arc<str>,
    caller: Arc<str>,
}

/// What becomes of a request.
pub(crate) enum Admitted {
    /// It is answered from what is kept; the service may be asked behind it.
    Kept(Box<FromKept>),
    /// It is streamed to the service.
    Forward(Box<Call>),
    /// It is changed on the way, or its credential or signature depends on its body, and so it is read whole.
    Whole(Box<WholeCall>),
    /// It is answered with all pages of a collection.
    Pages(Box<PagesCall>),
    /// It runs an endpoint by name.
    Named(Box<NamedCall>),
    /// It is stored, and made later.
    Durable(Box<Submission>),
    /// It asks about a durable call.
    Answered(Answer),
}

impl ProxyDoor {
    /// A door of these parts.
    ///
    /// # Errors
    /// When there is no randomness to name this process with.
    pub fn new(parts: Parts) -> Result<Self, RandomUnavailable> {
        let mut bytes = [0_u8; 6];
        parts.random.fill(&mut bytes)?;
        let name = bytes.iter().fold(String::from("trunkline-"), |name, byte| format!("{name}{byte:02x}"));
        let via = HeaderValue::from_str(&format!("1.1 {name}")).map_err(|_| RandomUnavailable)?;
        let connections = ReadyConnections::new(Arc::clone(&parts.outbound));
        Ok(Self { parts, connections, pseudonym: name, via })
    }

    /// What a call meets before a byte of it goes out.
    async fn handle(&self, request: &Incoming<'_>, known: &mut Known) -> Result<Admitted, Answer> {
        let generation = self.parts.live.load();
        self.refuse_loops(request.headers)?;
        let caller = caller::identify(&generation.gateway, request.headers)?;
        let route = route::read(request.path, request.query)?;
        let connection = route::connection(request.headers)?;
        let found = generation.integration(route.integration);
        let subject = found.map(|integration| Subject::of(&generation, integration, connection, &caller.id));
        known.subject = subject;
        if let Some(id) = durable::asked_about(request.method, &route) {
            let integration = find_integration(&generation, &route)?;
            let given = Box::pin(durable::status(self, integration, caller, id)).await;
            return Ok(Admitted::Answered(given));
        }
        caller::permit(caller, asked_method(&generation, &route, request.method), &route, connection)?;
        let integration = find_integration(&generation, &route)?;
        if durable::is_asked_for(request.headers)? {
            let subject = Subject::of(&generation, integration, connection, &caller.id);
            let submission = Box::pin(self.submission(&generation, integration, (request, &route), &subject)).await?;
            return Ok(Admitted::Durable(Box::new(submission)));
        }
        let token = route::token(request.headers)?;
        if let Some(endpoint) = route.endpoint {
            refuse_named_token(token)?;
            let endpoint = Arc::clone(&endpoint::find(integration, endpoint, request.method)?.id);
            let integration = Arc::clone(integration);
            let connection = Arc::from(connection);
            let (caller, generation) = (Arc::clone(&caller.id), Arc::clone(&generation));
            let call = NamedCall { generation, integration, connection, caller, endpoint };
            return Ok(Admitted::Named(Box::new(call)));
        }
        let need = Need { token, validity: route::min_validity(request.headers)? };
        let ready = self.connections.get(&generation, integration, connection, need).await?;
        refuse_added_parameter(&ready, &route)?;
        if let Some(all) = pages::asked(request.headers, route.query)? {
            let call = PagesCall::of(&generation, &ready, (request.method, &route, all), &caller.id)?;
            return Ok(Admitted::Pages(Box::new(call)));
        }
        let endpoint = transformed(integration, request.method, &route);
        let known_as = recognised(&ready, request.method, &route);
        if endpoint.is_some() || (has_body(request.headers) && ready.common.needs_body(request.headers)) {
            let (suffix, query) = (route.suffix.to_owned(), route.query.map(str::to_owned));
            let generation = Arc::clone(&generation);
            let caller = Some(Arc::clone(&caller.id));
            let call = WholeCall { generation, ready, caller, known_as, endpoint, suffix, query };
            return Ok(Admitted::Whole(Box::new(call)));
        }
        refuse_without_body(&ready)?;
        let kept = match self.look(&generation, &ready, request, &route).await {
            Before::Answered(given) => {
                let path = format!("{}{}", ready.common.base.path, route.suffix);
                known.place = Some((Arc::clone(&ready.common.place), path));
                return Ok(Admitted::Kept(given));
            }
            Before::On(kept) => kept,
        };
        let target = target(&ready, &route);
        let (caller, generation) = (Arc::clone(&caller.id), Arc::clone(&generation));
        let call = Call { generation, ready, caller, endpoint: known_as, target, way: None, kept };
        Ok(Admitted::Forward(Box::new(call)))
    }

    /// After the service refused a call for its token: the connection with another one. `None` where there
    /// is no other to be had.
    async fn renewed(&self, generation: &Generation, ready: &Ready) -> Option<Arc<Ready>> {
        let (integration, connection) = (&ready.integration, &ready.common.connection);
        match self.parts.outbound.sign_out(integration, &ready.common) {
            Some(SignedOut::Yes) => {}
            Some(SignedOut::TooYoung) => return None,
            None => {
                self.parts
                    .outbound
                    .refresher()?
                    .after_refusal(generation, integration, connection, ready.token())
                    .await?;
            }
        }
        self.afresh(generation, ready).await
    }

    /// The same call with another token.
    async fn again(&self, call: &Call) -> Option<Call> {
        let ready = self.renewed(&call.generation, &call.ready).await?;
        Self::with(call, ready)
    }

    /// The same call, made ready anew.
    async fn once_more(&self, call: &Call) -> Option<Call> {
        let ready = self.afresh(&call.generation, &call.ready).await?;
        Self::with(call, ready)
    }

    async fn afresh(&self, generation: &Generation, ready: &Ready) -> Option<Arc<Ready>> {
        let need = Need { token: ready.token(), validity: Duration::ZERO };
        self.connections.get(generation, &ready.integration, &ready.common.connection.id, need).await.ok()
    }

    fn with(call: &Call, ready: Arc<Ready>) -> Option<Call> {
        let target = match (call.ready.credential().query(), ready.credential().query()) {
            (Some((_, old)), Some((_, new))) => {
                format!("{}{}", call.target.strip_suffix(old.expose().as_str())?, new.expose())
            }
            _ => call.target.clone(),
        };
        let (caller, endpoint, kept) = (Arc::clone(&call.caller), call.endpoint.clone(), Kept::Apart);
        Some(Call { generation: Arc::clone(&call.generation), ready, caller, endpoint, target, way: None, kept })
    }

    /// A call that has been through this process before would go round for ever.
    fn refuse_loops(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let ours = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains(&self.pseudonym));
        if headers.get_all(header::VIA).iter().any(ours) {
            return Err(Refusal::LoopDetected.answer("`Via` names this gateway"));
        }
        Ok(())
    }

    /// How a service is reached; else the answer, and whether its name could not be resolved.
    async fn resolve(&self, ready: &Ready) -> Result<net::Route, (Answer, bool)> {
        let origin = &ready.common.base.origin;
        let found = self.parts.dialer.route(&origin.host, origin.port, &ready.common.reach).await;
        found.map_err(|error| {
            let failure = respond::of_dialling(&error);
            let labels = [&*ready.integration.id, failure.reason];
            self.parts.metrics.upstream_errors.with_label_values(&labels).inc();
            (failure.answer(&origin.host), matches!(error, DialError::Unresolved { .. }))
        })
    }
}

impl Known {
    /// A call whose caller is known was refused before it was known where it goes. `path` is that of the request.
    fn refuse(&mut self, path: &str) {
        let Some(subject) = &self.subject else { return };
        let below = path.strip_prefix('/').and_then(|rest| rest.strip_prefix(&*subject.integration)).unwrap_or(path);
        self.place.get_or_insert_with(|| (Arc::from(""), below.to_owned()));
    }
}

impl Subject {
    fn of(generation: &Generation, integration: &Integration, connection: &str, caller: &Arc<str>) -> Self {
        let (integration, connection) = (Arc::clone(&integration.id), Arc::from(connection));
        Self { generation: generation.number, integration, connection, caller: Arc::clone(caller) }
    }
}

/// What an answer says about the health of the connection that the call was made for.
fn feel(ready: &Ready, status: http::StatusCode, now: Timestamp) {
    let health = &ready.common.connection.health;
    if status == http::StatusCode::UNAUTHORIZED {
        let step = "see whether the account still has access at the service; connect it again if it has not";
        health.refuse(Trouble::new(now, "the service answered 401", step));
    } else if status.as_u16() < 400 {
        health.succeed(now);
    }
}

fn find_integration<'a>(generation: &'a Generation, route: &Route<'_>) -> Result<&'a Arc<Integration>, Answer> {
    generation
        .integration(route.integration)
        .ok_or_else(|| Refusal::NotFound.answer(&format!("there is no integration `{}`", route.integration)))
}

/// The endpoint that a call is for, where the policy cares.
fn recognised(ready: &Ready, method: &Method, route: &Route<'_>) -> Option<Arc<str>> {
    let api = ready.integration.api.as_ref().filter(|_| ready.common.policy.knows_endpoints())?;
    api.recognise(method, route.suffix).map(|endpoint| Arc::clone(&endpoint.id))
}

/// The method that a caller must be granted: of an endpoint that is called by name the one of the request that it
/// stands for. `None` for an endpoint that there is not.
fn asked_method<'a>(generation: &'a Generation, route: &Route<'_>, method: &'a Method) -> Option<&'a Method> {
    let Some(endpoint) = route.endpoint else { return Some(method) };
    let api = generation.integration(route.integration)?.api.as_ref()?;
    Some(&api.endpoint(endpoint)?.request.method)
}

/// The place of the endpoint with a transform that a call is for.
fn transformed(integration: &Integration, method: &Method, route: &Route<'_>) -> Option<usize> {
    let endpoints = &integration.api.as_ref()?.endpoints;
    endpoints.iter().position(|endpoint| endpoint.transform.is_some() && endpoint.pattern.matches(method, route.suffix))
}

/// The credential must not be one of two parameters of the same name.
fn refuse_added_parameter(ready: &Ready, route: &Route<'_>) -> Result<(), Answer> {
    match (ready.credential().query(), route.query) {
        (Some((name, _)), Some(query)) if has_parameter(query, name) => {
            Err(Refusal::InvalidInput.answer(&format!("the query parameter `{name}` is set by the gateway")))
        }
        _ => Ok(()),
    }
}

/// An endpoint that is called by name carries the token that its definition says.
fn refuse_named_token(token: Option<&str>) -> Result<(), Answer> {
    let Some(token) = token else { return Ok(()) };
    let words = format!("the endpoint's definition says which token it carries: leave `Trunkline-Token: {token}` out");
    Err(Refusal::InvalidInput.answer(&words))
}

/// Whether a request's head announces a body.
fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0")
}

/// A credential that is a field of the body has no place in a call without one.
fn refuse_without_body(ready: &Ready) -> Result<(), Answer> {
    if !ready.credential().is_in_body() {
        return Ok(());
    }
    let words = "the credential of this service goes into the body, so a call has a form or a JSON object";
    Err(Refusal::InvalidInput.answer(words))
}

/// Path and query as the service gets them: the base's path, the caller's, and what is added.
fn target(ready: &Ready, route: &Route<'_>) -> String {
    let base = &ready.common.base.path;
    let mut target = String::with_capacity(base.len() + route.suffix.len() + 16);
    target.push_str(base);
    target.push_str(route.suffix);
    if let Some(query) = route.query {
        target.push('?');
        target.push_str(query);
    }
    if let Some((_, added)) = ready.credential().query() {
        target.push(if route.query.is_some() { '&' } else { '?' });
        target.push_str(added.expose());
    }
    target
}

/// Whether a query has a parameter of this name, however it is encoded; also with `;` between
/// parameters and with a bracket behind the name, as some servers read them.
fn has_parameter(query: &str, name: &str) -> bool {
    query.split(['&', ';']).any(|pair| is_parameter(pair, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_parameter_is_found_in_every_spelling() {
        for query in ["key=1", "a=b&key=1", "a;key=1", "%6bey=1", "KEY=1", "key", "key[]=1", "key%5B%5D=1", "+key=1"] {
            assert!(has_parameter(query, "key"), "{query}");
        }
        for query in ["", "keys=1", "a=key", "monkey=1", "a=b%26key=1"] {
            assert!(!has_parameter(query, "key"), "{query}");
        }
    }
}
