//! The one client of the gateway's own calls: guarded addresses, verified TLS, bounded time and size.
//!
//! It takes a proxy from the settings and never from the environment, keeps no cookies, decompresses nothing and follows no
//! redirect: where one leads is for whoever asks to go on to ([`redirected`](super::redirected)). It adds no credential and retries nothing that may
//! have been seen. Called by `outbound` (services) and `action` (destinations).

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use moka::future::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;
use url::Url;

use super::dial::{Dialer, MOCK_HEADER};
use super::exchange::{BodyLimit, Excess, Outgoing, Received, Towards, is_chunked};
use super::failure::{Failure, Phase, Reason, Sent, Through, classify};
use super::guard::Reach;
use super::origin::Scheme;
use super::room::{Answers, Part, Whose};
use super::trust::Trust;
use crate::base::origin::literal_address;
use crate::definition::live::Live;
use crate::definition::plan::api::{HttpVersions, Transport};
use crate::definition::plan::egress::Proxy;
use crate::definition::plan::identity::Identity;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{self, Span, Traces};

/// How the gateway calls itself.
const USER_AGENT: &str = concat!("trunkline/", env!("CARGO_PKG_VERSION"));
/// The most clients that are kept: one for each integration, port and way of being dialled in use.
const CAPACITY: u64 = 4_096;
/// How long a client that nobody uses is kept, and a connection that nobody uses stays open.
const IDLE: (Duration, Duration) = (Duration::from_mins(10), Duration::from_secs(55));

/// The clients, made as they are needed and shared. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    dialer: Arc<Dialer>,
    trust: Trust,
    pool: Cache<Key, reqwest::Client>,
    traces: Arc<Traces>,
    answers: Arc<Answers>,
}

/// What may share a client: connections are not shared between integrations, nor between calls that
/// may dial different addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    owner: Owner,
    port: u16,
    connect: Duration,
    ca: Option<Same<[Vec<u8>]>>,
    identity: Option<Same<Identity>>,
    http: HttpVersions,
    through: Option<Same<Proxy>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Service(Arc<str>, Reach),
    Destination(Arc<str>),
}

/// Certificates compared by where they are: equal content in another place only makes another client.
#[derive(Debug)]
struct Same<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Clone for Same<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: ?Sized> Eq for Same<T> {}

impl<T: ?Sized> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl Clients {
    /// Clients that dial through `dialer`.
    pub fn new(dialer: Arc<Dialer>, trust: Trust) -> Self {
        let pool = Cache::builder().max_capacity(CAPACITY).time_to_idle(IDLE.0).build();
        Self { dialer, trust, pool, traces: Arc::default(), answers: Arc::default() }
    }

    /// With what tells the other side which span a call belongs to.
    #[must_use]
    pub fn tracing(self, traces: &Arc<Traces>) -> Self {
        Self { traces: Arc::clone(traces), ..self }
    }

    /// With a bound for what all answers together may hold, as the settings in force say.
    #[must_use]
    pub fn bounded(self, live: &Arc<Live>, metrics: &Arc<Metrics>) -> Self {
        Self { answers: Arc::new(Answers::within(live, metrics)), ..self }
    }

    /// What was made of an answer of an integration for an application, or for the gateway itself, counted among the answers
    /// for as long as anything of it is there; `None` where there is no room for it.
    pub fn hold(&self, (integration, caller): (&Arc<str>, Option<&Arc<str>>), made: Bytes) -> Option<Bytes> {
        let mut part = Part::of(&self.answers, Whose::of(integration, caller));
        // The status is for the words of a failure, and this is told in others.
        part.reach(made.len(), 0).ok()?;
        Some(part.hold(made))
    }

    /// Where people reach the simulated service of an integration, under `serve --mock`: scheme, host and
    /// the first segment of the path. `None` where services are the real ones.
    pub fn simulated(&self, integration: &str) -> Option<String> {
        self.dialer.redirect().map(|redirect| format!("http://{}/{integration}", redirect.address))
    }

    /// Sends a call and reads the answer to its end.
    ///
    /// # Errors
    /// When there is no usable answer; [`Failure::sent`] tells whether the other side may have seen the
    /// call. An error status is an answer.
    pub async fn send(&self, mut outgoing: Outgoing) -> Result<Received, Failure> {
        let span = self.begin_span(&mut outgoing);
        let sent = self.send_in_time(outgoing).await;
        if let Some(span) = span {
            self.end_span(span, &sent);
        }
        sent
    }

    /// The span of a call that belongs to one: the other side is told.
    fn begin_span(&self, outgoing: &mut Outgoing) -> Option<Span> {
        let mut span = self.traces.below_current(trace::Kind::Client, || outgoing.method.to_string())?;
        span.context.put_in(&mut outgoing.headers);
        span.set("http.request.method", outgoing.method.as_str());
        span.set("server.address", &*outgoing.origin.host);
        span.set("server.port", outgoing.origin.port);
        Some(span)
    }

    fn end_span(&self, mut span: Span, sent: &Result<Received, Failure>) {
        let error = match sent {
            Ok(received) => {
                let status = received.status;
                span.set("http.response.status_code", status.as_u16());
                (status.as_u16() >= 400).then(|| status.as_str().to_owned())
            }
            Err(failure) => Some(failure.reason.word().to_owned()),
        };
        if let Some(error) = error {
            span.set("error.type", &*error);
            span.fail(error);
        }
        self.traces.end(Some(span));
    }

    async fn send_in_time(&self, outgoing: Outgoing) -> Result<Received, Failure> {
        let heard = AtomicU64::new(0);
        let answered = timeout(outgoing.timeouts.total, Box::pin(self.send_once(&outgoing, &heard))).await;
        let answered = answered.unwrap_or(Err((Reason::Timeout(Phase::Total), Sent::Maybe)));
        answered.map_err(|(reason, sent)| {
            let (origin, heard) = (outgoing.origin.to_string(), heard.load(Ordering::Relaxed));
            Failure { origin, reason, sent, heard }
        })
    }

    /// Tells `heard` how much of the answer's body was read, also where it is given up.
    async fn send_once(&self, outgoing: &Outgoing, heard: &AtomicU64) -> Result<Received, (Reason, Sent)> {
        let unsent = |reason| (reason, Sent::Nothing);
        let request = self.request(outgoing, url_of(outgoing).map_err(unsent)?).map_err(unsent)?;
        let whose = Whose::of(outgoing.towards.owner(), outgoing.caller.as_ref());
        if !self.answers.has_room(&whose, outgoing.limit.bytes) {
            return Err(unsent(Reason::NoRoom));
        }
        self.check_literal(outgoing).await.map_err(unsent)?;
        let client = self.client(outgoing).await.map_err(unsent)?;
        let patience = outgoing.timeouts.connect.saturating_add(outgoing.timeouts.response);
        let through = if self.proxy(outgoing).is_some() { Through::Proxy } else { Through::Nothing };
        let response = timeout(patience, client.execute(request))
            .await
            .map_err(|_elapsed| (Reason::Timeout(Phase::Response), Sent::Maybe))?
            .map_err(|error| classify(&error, through))?;
        let untunnelled = through == Through::Proxy && outgoing.origin.scheme == Scheme::Http;
        if untunnelled && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            // Plain HTTP goes through the proxy without a tunnel, and this answer is always the proxy's own.
            return Err((Reason::Egress("it wants other credentials (407)".to_owned()), Sent::Nothing));
        }
        let part = Part::of(&self.answers, whose);
        let read = read(response, (outgoing.limit, part), outgoing.timeouts.idle, heard).await;
        read.map_err(|reason| (reason, Sent::Maybe))
    }

    fn proxy(&self, outgoing: &Outgoing) -> Option<&Arc<Proxy>> {
        let mocked = matches!(outgoing.towards, Towards::Service { .. }) && self.dialer.redirect().is_some();
        if mocked { None } else { self.dialer.proxy_for(&outgoing.origin.host, outgoing.origin.port) }
    }

    /// An address written out in a URL is dialled without asking the resolver, so it is checked here.
    async fn check_literal(&self, outgoing: &Outgoing) -> Result<(), Reason> {
        let host = &outgoing.origin.host;
        if literal_address(host).is_none() {
            return Ok(());
        }
        let port = outgoing.origin.port;
        match &outgoing.towards {
            Towards::Service { reach, .. } => self.dialer.route(host, port, reach).await?,
            Towards::Destination { .. } => self.dialer.checked_route(host, port, &Reach::of_destination()).await?,
        };
        Ok(())
    }

    async fn client(&self, outgoing: &Outgoing) -> Result<reqwest::Client, Reason> {
        let (owner, transport) = match &outgoing.towards {
            Towards::Service { integration, transport, reach } => {
                (Owner::Service(Arc::clone(integration), reach.clone()), transport.clone())
            }
            Towards::Destination { id } => (Owner::Destination(Arc::clone(id)), Transport::default()),
        };
        let plain = outgoing.origin.scheme == Scheme::Http || self.dialer.redirect().is_some();
        if !plain && !self.trust.has_roots(&transport) {
            return Err(Reason::NoRoots);
        }
        let key = Key {
            owner,
            port: outgoing.origin.port,
            connect: outgoing.timeouts.connect,
            ca: transport.ca.clone().map(Same),
            identity: transport.identity.clone().map(Same),
            http: transport.http,
            through: self.proxy(outgoing).cloned().map(Same),
        };
        if let Some(client) = self.pool.get(&key).await {
            return Ok(client);
        }
        let client = self.build(&key, &transport)?;
        self.pool.insert(key, client.clone()).await;
        Ok(client)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that makes clients")]
    fn build(&self, key: &Key, transport: &Transport) -> Result<reqwest::Client, Reason> {
        let proxy = key.through.as_ref().map(|proxy| Arc::clone(&proxy.0));
        let resolver = Guarded {
            dialer: Arc::clone(&self.dialer),
            owner: key.owner.clone(),
            port: key.port,
            proxy: proxy.clone(),
        };
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            // What a service refuses over HTTP/2 it may have seen; another try is for whoever asked to decide.
            .retry(reqwest::retry::never())
            .dns_resolver(resolver)
            .connect_timeout(key.connect)
            .pool_idle_timeout(IDLE.1)
            .pool_max_idle_per_host(32)
            .http1_max_headers(128)
            .http2_max_header_list_size(64 << 10)
            .user_agent(USER_AGENT)
            .tls_backend_preconfigured(self.trust.client_config(transport)?);
        if let Some(proxy) = proxy {
            builder = builder.proxy(way_through(&proxy)?);
        }
        let builder = match key.http {
            HttpVersions::Best => builder,
            HttpVersions::One => builder.http1_only(),
            HttpVersions::Two => builder.http2_prior_knowledge(),
        };
        builder.build().map_err(|_| Reason::Unsendable("no client could be made for it"))
    }

    fn request(&self, outgoing: &Outgoing, url: Url) -> Result<reqwest::Request, Reason> {
        let framing = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
        if framing.iter().any(|name| outgoing.headers.contains_key(name)) {
            return Err(Reason::Unsendable("it has a header that belongs to the connection"));
        }
        let mut request = reqwest::Request::new(outgoing.method.clone(), url);
        *request.headers_mut() = outgoing.headers.clone();
        if !outgoing.body.is_empty() {
            *request.body_mut() = Some(outgoing.body.clone().into());
        }
        if let (Some(redirect), Towards::Service { integration, .. }) = (self.dialer.redirect(), &outgoing.towards) {
            let value =
                |text: &str| HeaderValue::from_str(text).map_err(|_| Reason::Unsendable("its host is not valid"));
            let headers = request.headers_mut();
            headers.insert(header::HOST, value(&outgoing.origin.authority())?);
            headers.insert(MOCK_HEADER, value(integration)?);
            let url = request.url_mut();
            let moved = url.set_scheme("http").is_ok()
                && url.set_ip_host(redirect.address.ip()).is_ok()
                && url.set_port(Some(redirect.address.port())).is_ok();
            if !moved {
                return Err(Reason::Unsendable("it cannot be sent to the mock"));
            }
        }
        Ok(request)
    }
}

/// The proxy as the HTTP library takes it.
fn way_through(proxy: &Proxy) -> Result<reqwest::Proxy, Reason> {
    let unusable = || Reason::Egress("its address or credentials cannot be used".to_owned());
    let way = reqwest::Proxy::all(format!("http://{}:{}", proxy.host, proxy.port)).map_err(|_| unusable())?;
    let Some(authorization) = &proxy.authorization else { return Ok(way) };
    let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(way.custom_http_auth(value))
}

/// The call's URL, refused when reading it again would give another path or host.
pub(super) fn url_of(outgoing: &Outgoing) -> Result<Url, Reason> {
    let changed = Reason::Unsendable("its path or host has more than one reading");
    let mut text = format!("{}{}", outgoing.origin, outgoing.path);
    let secret = outgoing.secret_query.as_ref().map(|secret| secret.expose().as_str());
    let query: Vec<&str> =
        [outgoing.query.as_deref(), secret].into_iter().flatten().filter(|q| !q.is_empty()).collect();
    if !query.is_empty() {
        text.push('?');
        text.push_str(&query.join("&"));
    }
    let url = Url::parse(&text).map_err(|_| changed.clone())?;
    let same_path = url.path() == outgoing.path || outgoing.path.is_empty() && url.path() == "/";
    let host = &outgoing.origin.host;
    let same_address = |theirs| literal_address(host).is_some_and(|ours| literal_address(theirs) == Some(ours));
    let same_host = url.host_str().is_some_and(|theirs| theirs == host || same_address(theirs));
    let same_port = url.port_or_known_default() == Some(outgoing.origin.port);
    let whole = url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    if same_path && same_host && same_port && whole { Ok(url) } else { Err(changed) }
}

/// Reads an answer's body up to its limit, however its length was declared.
async fn read(
    mut response: reqwest::Response,
    (limit, mut part): (BodyLimit, Part),
    idle: Duration,
    heard: &AtomicU64,
) -> Result<Received, Reason> {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let framed = framing(&response, &headers)?;
    // Over HTTP/2 a service may send a body where none belongs.
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Received { status, headers, body: Bytes::new(), framed, led: false });
    }
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if limit.excess == Excess::Refuse && declared.is_some_and(|declared| declared > limit.bytes as u64) {
        return Err(Reason::TooLarge { most: limit.bytes, status: status.as_u16() });
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = timeout(idle, response.chunk()).await.map_err(|_elapsed| Reason::Timeout(Phase::Idle))?;
        let Some(chunk) = chunk.map_err(|error| classify(&error, Through::Nothing).0)? else { break };
        heard.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let room = limit.bytes - body.len();
        if chunk.len() > room {
            match limit.excess {
                Excess::Refuse => return Err(Reason::TooLarge { most: limit.bytes, status: status.as_u16() }),
                Excess::Cut => {
                    body.extend_from_slice(chunk.get(..room).unwrap_or_default());
                    break;
                }
            }
        }
        part.reach(body.len() + chunk.len(), status.as_u16())?;
        body.extend_from_slice(&chunk);
    }
    Ok(Received { status, headers, body: part.hold(Bytes::from(body)), framed, led: false })
}

/// Whether the end of an answer's body can be told from a connection that broke off. As at the proxy door, an answer
/// whose end is in doubt is none: one with a transfer coding that is not `chunked` alone (RFC 9112 section 6.1), and one
/// that goes on in another protocol, which nobody asked for.
fn framing(response: &reqwest::Response, headers: &HeaderMap) -> Result<bool, Reason> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Reason::Malformed("it switches protocols, which nobody asked for".to_owned()));
    }
    let in_doubt = || Reason::Malformed("where it ends is in doubt".to_owned());
    let chunked = is_chunked(headers).ok_or_else(in_doubt)?;
    let bodiless = matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let framed = chunked || headers.contains_key(header::CONTENT_LENGTH) || bodiless;
    Ok(framed || response.version() >= http::Version::HTTP_2)
}

/// Gives the HTTP library the addresses that were checked, so that it dials those and no others.
#[derive(Debug)]
struct Guarded {
    dialer: Arc<Dialer>,
    owner: Owner,
    port: u16,
    /// Where there is one, it is the only name that is looked up.
    proxy: Option<Arc<Proxy>>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (dialer, owner, port) = (Arc::clone(&self.dialer), self.owner.clone(), self.port);
        let proxy = self.proxy.clone();
        Box::pin(async move {
            let addresses = match (proxy, owner) {
                (Some(proxy), _) => dialer.proxy_addresses(&proxy).await?,
                (None, Owner::Service(_, reach)) => dialer.addresses(name.as_str(), port, &reach).await?,
                (None, Owner::Destination(_)) => dialer.checked(name.as_str(), port, &Reach::of_destination()).await?,
            };
            let addresses: Vec<_> = addresses.iter().collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
