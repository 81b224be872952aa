//! The proxy door: an application's calls to services, with the credential added here.
//!
//! [`admit`] is the list of what a call meets before a byte of it goes out; [`forward`] is Pingora's side of
//! it, which streams. Nothing here opens sockets inwards (`server` does), and no
//! Pingora type is known outside this room and `server`.

mod admit;
pub mod answer;
pub mod bounded;
mod caller;
mod carried;
mod carry;
pub mod chunks;
mod context;
mod depart;
mod dial;
mod distrust;
mod durable;
pub mod endpoint;
pub mod forward;
mod frames;
mod headers;
pub mod intake;
mod kept;
mod outcome;
mod pages;
pub mod path;
mod peer;
mod ready;
mod record;
mod renew;
mod respond;
pub mod retry;
pub mod room;
mod route;
mod sign;
pub mod socket;
pub mod stream;
mod strangers;
mod stuck;
mod traced;
mod transform;
pub mod underway;
pub mod watch;
mod whole;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};

use crate::base::clock::{Clock, Timestamp};
use crate::base::random::{Random, RandomUnavailable};
use crate::connection::Need;
use crate::connection::health::Trouble;
use crate::definition::live::{Generation, Live};
use crate::definition::plan::Integration;
use crate::net::client::Clients;
use crate::net::{self, DialError, Dialer};
use crate::outbound::{Outbound, SignedOut};
use crate::respond::Answer;
use crate::store::{Backlog, Events};
use crate::telemetry::metrics::Metrics;
use distrust::Distrust;
use durable::Submission;
use endpoint::NamedCall;
use kept::{FromKept, Kept};
use pages::PagesCall;
use ready::{Ready, ReadyConnections};
use room::{Part, Room};
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
    /// How many wait to be carried out.
    pub backlog: Arc<dyn Backlog>,
}

/// The proxy door.
pub struct ProxyDoor {
    parts: Parts,
    connections: ReadyConnections,
    /// Names this process in `Via`, so that a call that comes back is known.
    pseudonym: String,
    room: Arc<Room>,
    via: HeaderValue,
    /// Services whose HTTP/2 was at fault.
    distrust: Distrust,
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

    /// As [`Self::into_place`], of a call that goes on.
    fn place(&self) -> (Arc<str>, String) {
        let path = self.target.split_once('?').map_or(&*self.target, |(path, _)| path);
        (Arc::clone(&self.ready.common.place), path.to_owned())
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
#[derive(Clone)]
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
    /// What the body of a request of an application that is read whole may take.
    fn room(&self, caller: &Arc<str>) -> Part {
        Part::of(&self.room, self.parts.live.load().gateway.limits.whole_bytes, caller)
    }

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
        let room = Room::new("proxy", Arc::clone(&parts.metrics), Arc::clone(&parts.clock));
        Ok(Self { parts, connections, pseudonym: name, room, via, distrust: Distrust::default() })
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
        health.refuse(Trouble::new(now, "the service answered 401 Unauthorized", step));
    } else if status.as_u16() < 400 {
        health.succeed(now);
    }
}
