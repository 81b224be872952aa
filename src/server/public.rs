//! The public door: what the internet may ask for. Webhooks go to their receiver, people who connect an
//! account to the connect flow; nothing here adds a credential or shows data.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::proxy::{ProxyHttp, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::caps::{self, Caps};
use super::{Shared, source};
use crate::base::secret::Secret;
use crate::connection::connect;
use crate::connection::connect::door::{MAX_FORM, Visit, Welcome};
use crate::definition::plan::gateway::{DoorName, Limits};
use crate::proxy::room::{Part, Room};
use crate::proxy::{answer, intake, underway};
use crate::respond::{Answer, Refusal};
use crate::webhook::door::{Receive, RequestHead};

/// What metrics call a request that is for no known integration.
const OTHER: &str = "other";

/// The public door's application.
pub struct PublicDoor {
    shared: Shared,
    /// Requests under way whose client a trusted proxy named, by that client.
    behind: Arc<Caps>,
    room: Arc<Room>,
    receiver: Arc<dyn Receive>,
    welcome: Arc<dyn Welcome>,
}

/// What is remembered of one request.
pub struct Context {
    began: Duration,
    integration: Arc<str>,
}

impl PublicDoor {
    /// A door that hands webhooks to `receiver` and people to `welcome`.
    pub fn new(shared: Shared, receiver: Arc<dyn Receive>, welcome: Arc<dyn Welcome>) -> Self {
        let room = Room::new("public", Arc::clone(&shared.metrics), Arc::clone(&shared.clock));
        Self { shared, behind: Arc::default(), room, receiver, welcome }
    }

    /// The path is a list: route, admit, read, receive.
    async fn handle(&self, session: &mut Session, context: &mut Context) -> Answer {
        let place = match route(session) {
            Route::Webhook(place) => place,
            Route::Connect(id) => return self.connect(session, context, id).await,
            Route::Nothing => return Refusal::NotFound.answer("there is nothing at this path"),
        };
        let (peer, gateway) = (underway::source(session), Arc::clone(&self.shared.live.load().gateway));
        let behind = source::behind(peer, &session.req_header().headers, &gateway.doors.public.forwarded);
        let _place = match behind.map(|client| self.place(client, &gateway.limits)).transpose() {
            Ok(place) => place,
            Err(refused) => return refused,
        };
        let head = head_of(session, place, behind.or(peer));
        let admission = match self.receiver.admit(&head).await {
            Ok(admission) => admission,
            Err(refused) => return refused,
        };
        context.integration = Arc::clone(&admission.integration.id);
        let part = Part::of_stranger(&self.room, gateway.limits.whole_bytes);
        match intake::whole_body(session, admission.max_body, part).await {
            Ok(body) => self.receiver.receive(admission, head, body).await,
            Err(refused) => refused,
        }
    }

    /// A proxy's connections say nothing of how many one client has, so its requests are counted instead.
    fn place(&self, client: IpAddr, limits: &Limits) -> Result<caps::Place, Answer> {
        let bounds = limits.connections_at(DoorName::Public);
        self.behind.enter(bounds).and_then(|place| place.of(client, bounds)).map_err(|full| {
            let labels = ["public", full.as_str()];
            self.shared.metrics.door_connections_refused.with_label_values(&labels).inc();
            Refusal::Unavailable.answer_after("too many requests at once from one address", Duration::from_secs(1))
        })
    }

    /// The client's address: that of the peer, or the one that a trusted proxy names.
    fn source(&self, session: &Session) -> Option<IpAddr> {
        let (peer, gateway) = (underway::source(session), Arc::clone(&self.shared.live.load().gateway));
        source::behind(peer, &session.req_header().headers, &gateway.doors.public.forwarded).or(peer)
    }

    /// A person, or a page that waits for one.
    async fn connect(&self, session: &mut Session, context: &mut Context, integration: Option<String>) -> Answer {
        if let Some(known) = integration.and_then(|id| self.shared.live.load().integration(&id).cloned()) {
            context.integration = Arc::clone(&known.id);
        }
        let source = self.source(session);
        let most = self.shared.live.load().gateway.limits.whole_bytes;
        let part = Part::of_stranger(&self.room, most);
        let body = match intake::whole_body(session, MAX_FORM, part).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let request = session.req_header();
        let visit = Visit {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: request.headers.clone(),
            body,
            source,
        };
        self.welcome.answer(visit).await
    }
}

/// Where a webhook came to.
struct Place {
    integration: String,
    token: Option<Arc<Secret>>,
}

enum Route {
    Webhook(Place),
    /// A page of the connect flow, and the integration it is for where it is for one.
    Connect(Option<String>),
    Nothing,
}

fn route(session: &Session) -> Route {
    let request = session.req_header();
    let path = request.uri.path();
    if let Some(rest) = path.strip_prefix("/webhooks/") {
        return webhook(rest).map_or(Route::Nothing, Route::Webhook);
    }
    match connect::door::place(path) {
        Some(place) => Route::Connect(place.integration().map(str::to_owned)),
        None => Route::Nothing,
    }
}

/// `INTEGRATION` or `INTEGRATION/TOKEN`.
fn webhook(rest: &str) -> Option<Place> {
    let (integration, token) = rest.split_once('/').map_or((rest, None), |(id, token)| (id, Some(token)));
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let is_id = (1..=64).contains(&integration.len()) && integration.bytes().all(plain);
    let is_token = |token: &str| token.len() <= 64 && token.bytes().all(|b| plain(b) || b.is_ascii_uppercase());
    (is_id && token.is_none_or(is_token))
        .then(|| Place { integration: integration.to_owned(), token: token.map(|token| Arc::new(Secret::from(token))) })
}

fn head_of(session: &Session, place: Place, source: Option<IpAddr>) -> RequestHead {
    let request = session.req_header();
    RequestHead {
        method: request.method.clone(),
        integration: place.integration,
        token: place.token,
        query: request.uri.query().unwrap_or_default().to_owned(),
        target: String::from_utf8_lossy(request.raw_path()).into_owned(),
        headers: Arc::new(request.headers.clone()),
        source,
        content_length: intake::declared_length(session),
    }
}

#[async_trait]
impl ProxyHttp for PublicDoor {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context { began: self.shared.clock.monotonic(), integration: Arc::from(OTHER) }
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        let given = self.handle(session, context).await;
        let metrics = &self.shared.metrics;
        if let Some((_, code)) = given.headers.iter().find(|(name, _)| *name == crate::respond::ERROR_HEADER) {
            let code = code.to_str().unwrap_or_default();
            metrics.http_refusals.with_label_values(&["public", code]).inc();
        }
        let status = given.status;
        let written = answer::write(session, given).await;
        let integration = &*context.integration;
        metrics.http_requests.with_label_values(&["public", integration, status.as_str()]).inc();
        let took = self.shared.clock.monotonic().saturating_sub(context.began);
        metrics.http_request_duration.with_label_values(&["public", integration]).observe(took.as_secs_f64());
        written.map(|()| true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "the public door answers every request itself")
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }
}
