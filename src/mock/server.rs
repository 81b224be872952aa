//! The mock's listener: finds the service that a call is for, applies faults on demand, answers.
//!
//! Two ways lead to a service. A gateway under `serve --mock` sends calls with the service's own `Host`
//! and names the integration in a header; people put the integration's id first in the path, as in
//! `http://127.0.0.1:9400/github/user`. Called by `cli` and by tests.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

use super::limit::Moment;
use super::oauth::{At, Consent, OAuthSide};
use super::received::Received;
use super::service::Service;
use super::{Faults, Simulated};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::base::units::parse_duration;
use crate::net::dial::MOCK_HEADER;
use crate::respond::Answer;

/// The most bytes of a request's body.
const MAX_BODY: usize = 8 << 20;
/// How many of the last requests are kept for `/-/requests`.
const KEPT: usize = 100;
/// The form of what is kept for a later process.
const STATE: u64 = 1;
/// The longest delay a request may ask for.
const MAX_LATENCY: Duration = Duration::from_secs(30);

/// What every simulated service does besides what its definition says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Controls {
    /// What goes wrong.
    pub faults: Faults,
    /// What becomes of those who sign in.
    pub consent: Consent,
}

impl From<Faults> for Controls {
    fn from(faults: Faults) -> Self {
        Self { faults, consent: Consent::default() }
    }
}

/// Every simulated service behind one listener.
#[derive(Debug)]
pub struct Mock {
    services: Vec<Service>,
    faults: Faults,
    here: OnceLock<SocketAddr>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    seen: Mutex<VecDeque<Value>>,
}

impl Mock {
    /// Simulates these services under these conditions.
    pub fn new(services: &[Simulated], controls: Controls, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        let Controls { faults, consent } = controls;
        let mut services: Vec<_> = services.iter().map(|service| Service::new(service, consent)).collect();
        services.sort_by(|a, b| a.id.cmp(&b.id));
        Self { services, faults, here: OnceLock::new(), clock, random, seen: Mutex::default() }
    }

    /// Makes a change to how a service lets people and calls in, as `POST /-/oauth/{id}` does. Where it signs in by
    /// OAuth 2.0, an object with any of `expire: true`, `revoke: true`, `issue: true`, `consent: asked | granted |
    /// denied`, `fail: {error, times}` and `delay: 2s`; elsewhere any of `accept: CREDENTIAL`, `revoke: true`,
    /// `expire: true` (sessions) and `consent` (OAuth 1.0a). Answers what was issued so far.
    ///
    /// # Errors
    /// When there is no such service, or the change is not understood.
    pub fn control(&self, id: &str, change: &Value) -> Result<Value, String> {
        let service = self.by_id(id).ok_or_else(|| format!("there is no simulated service `{id}`"))?;
        let at = At { now: self.clock.now(), random: &*self.random };
        service.control(change, at)
    }

    /// What every service has issued: tokens, consents, registered applications. It holds what lets calls in, so it is a
    /// secret as far as anything simulated is one.
    pub fn state(&self) -> Value {
        let services: Map<_, _> = self.services.iter().map(|service| (service.id.clone(), service.state())).collect();
        json!({ "trunkline_mock": STATE, "services": services })
    }

    /// How often [`Self::state`] may have changed: as long as this stays the same, so does that. What is in the state
    /// that is taken after this was asked has all the changes counted here.
    pub fn changes(&self) -> u64 {
        self.services.iter().map(Service::changes).sum()
    }

    /// Goes on from what an earlier process had issued, so that what was connected then still works. Services that it
    /// does not name begin anew.
    ///
    /// # Errors
    /// When the value is not a [`Self::state`].
    pub fn restore(&self, state: &Value) -> Result<(), String> {
        if state["trunkline_mock"] != STATE {
            return Err("this is not what `trunkline mock` of this version keeps".to_owned());
        }
        let known =
            |service: &Service| state["services"].get(&service.id).map_or(Ok(()), |state| service.restore(state));
        self.services.iter().try_for_each(|service| known(service).map_err(|error| format!("{}: {error}", service.id)))
    }

    /// Serves until `stop` is ready, then finishes the calls under way.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let address = listener.local_addr()?;
        // Served at several listeners, people are sent to the first.
        self.here.get_or_init(|| address);
        let router = Router::new().fallback(handle).with_state(self);
        axum::serve(listener, router).with_graceful_shutdown(stop).await
    }

    /// The last requests as they arrived, oldest first, credentials left out.
    pub fn requests(&self) -> Vec<Value> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn find(&self, parts: &http::request::Parts) -> Option<(&Service, String, String)> {
        let text = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let authority = text("host");
        let path = parts.uri.path();
        if let Some(service) = self.by_id(text(MOCK_HEADER)).or_else(|| self.by_host(authority)) {
            return Some((service, path.to_owned(), format!("https://{authority}")));
        }
        let (id, rest) = path.strip_prefix('/')?.split_once('/').unwrap_or((path.strip_prefix('/')?, ""));
        let service = self.by_id(id)?;
        Some((service, format!("/{rest}"), format!("http://{authority}/{id}")))
    }

    fn by_id(&self, id: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.id == id)
    }

    fn by_host(&self, authority: &str) -> Option<&Service> {
        let authority: Authority = authority.parse().ok()?;
        let (host, port) = (authority.host().to_ascii_lowercase(), authority.port_u16());
        if self.is_here(&host, port) {
            return None;
        }
        let best = self.services.iter().rev().max_by_key(|service| service.claims(&host, port))?;
        (best.claims(&host, port) > 0).then_some(best)
    }

    /// Whether this is the mock's own address, under which people find all services by their ids: a service on the same
    /// machine does not take it over.
    fn is_here(&self, host: &str, port: Option<u16>) -> bool {
        let is_near = host == "localhost" || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_near && self.here.get().is_some_and(|here| here.port() == port.unwrap_or(80))
    }

    fn remember(&self, integration: &str, shown: &Value, status: StatusCode) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == KEPT {
            seen.pop_front();
        }
        seen.push_back(json!({ "integration": integration, "request": shown, "status": status.as_u16() }));
    }

    /// What the mock says of itself, for calls to no service.
    fn about(&self, path: &str) -> Answer {
        match path {
            "/-/requests" => Answer::json(StatusCode::OK, &Value::Array(self.requests())),
            "/" | "/-/" => {
                let ids: Vec<_> = self.services.iter().map(|service| service.id.as_str()).collect();
                Answer::json(
                    StatusCode::OK,
                    &json!({ "mock": "trunkline", "services": ids, "requests": "/-/requests", "controls": "/-/oauth/{service}" }),
                )
            }
            _ => {
                let ids: Vec<_> = self.services.iter().map(|service| service.id.as_str()).collect();
                let detail =
                    format!("no simulated service has this host or first path segment; there are: {}", ids.join(", "));
                Answer::json(StatusCode::NOT_FOUND, &json!({ "mock": "trunkline", "error": detail }))
            }
        }
    }

    /// What a control of an OAuth side answers.
    fn controlled(&self, id: &str, body: &[u8]) -> Answer {
        let change = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) };
        let told = change.map_err(|error| error.to_string()).and_then(|change| self.control(id, &change));
        match told {
            Ok(told) => Answer::json(StatusCode::OK, &told),
            Err(error) => Answer::json(StatusCode::BAD_REQUEST, &json!({ "mock": "trunkline", "error": error })),
        }
    }

    async fn answer(&self, parts: http::request::Parts, body: Bytes) -> Answer {
        if let Some(id) = parts.uri.path().strip_prefix("/-/oauth/") {
            return self.controlled(id, &body);
        }
        let Some((service, path, origin)) = self.find(&parts) else { return self.about(parts.uri.path()) };
        let raw_query = parts.uri.query().unwrap_or_default().to_owned();
        let query = url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
        let here = self.here.get().map(|address| format!("http://{address}/{}", service.id)).unwrap_or_default();
        let (method, headers) = (parts.method, parts.headers);
        let received = Received { method, path, query, raw_query, headers, body, origin, here };
        let faults = self.faults.of(&received.headers);
        let asked = service.oauth().filter(|oauth| oauth.is_token_call(&received)).map(OAuthSide::delay);
        tokio::time::sleep((faults.latency + asked.unwrap_or_default()).min(MAX_LATENCY)).await;
        let now = Moment { wall: self.clock.now(), monotonic: self.clock.monotonic() };
        let mut answer = match faults.status {
            Some(status) => Answer::json(status, &json!({ "error": { "message": "a fault that was asked for" } })),
            None if self.random.unit() < faults.error_rate => {
                Answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": { "message": "a simulated outage" } }))
            }
            None => service.answer(&received, now, &*self.random),
        };
        answer.close = faults.reset || self.random.unit() < faults.reset_rate;
        self.remember(&service.id, &service.shown(&received), answer.status);
        tracing::info!(
            target: "trunkline::mock",
            integration = %service.id,
            status = answer.status.as_u16(),
            "{} answers {} {} with {}",
            service.id, received.method, received.path, answer.status.as_u16(),
        );
        answer
    }
}

impl Faults {
    /// These faults, changed as a request's own headers ask: `Mock-Latency: 200ms`, `Mock-Status: 503`,
    /// `Mock-Reset: true`.
    fn of(&self, headers: &http::HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            latency: text("mock-latency").and_then(|value| parse_duration(value).ok()).unwrap_or(self.latency),
            status: text("mock-status").and_then(|value| value.parse().ok()).or(self.status),
            reset: self.reset || text("mock-reset").is_some_and(|value| value == "true" || value == "1"),
            ..*self
        }
    }
}

async fn handle(State(mock): State<Arc<Mock>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(body) => mock.answer(parts, body).await,
        Err(error) => {
            Answer::json(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": { "message": error.to_string() } }))
        }
    };
    if answer.close { torn(answer) } else { whole(answer, Body::from) }
}

pub(super) fn whole(answer: Answer, body: impl FnOnce(Bytes) -> Body) -> Response {
    let mut response = Response::new(body(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().extend(answer.headers);
    response
}

/// An answer whose connection breaks in the middle of its body.
fn torn(answer: Answer) -> Response {
    let promised = HeaderValue::from(answer.body.len() + 1_024);
    let broken = |body: Bytes| {
        let end = io::Error::new(io::ErrorKind::ConnectionReset, "a reset that was asked for");
        Body::from_stream(futures_util::stream::iter([Ok(body), Err(end)]))
    };
    whole(answer.with(header::CONTENT_LENGTH, promised), broken)
}
