//! One HTTP/2 connection: many requests, each checked as an HTTP/1.1 head is, and each with limits of its own.
//!
//! Frames, flow control and compression are the `h2` crate's, the accept loop is Pingora's; the budget of frames
//! that carry nothing is the connection's ([`DoorStream::count_frames`]). A request goes on in the form that
//! HTTP/1.1 would have given it, so that nothing behind this file knows the difference. Called by
//! [`super::connection`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Uri, Version, header};
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream as PingoraStream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::H2Options;
use pingora::server::ShutdownWatch;
use tokio::sync::watch;

use super::caps::{Caps, Full, Place};
use super::connection::DoorContext;
use super::hygiene::{self, Fault};
use super::{Shared, source};
use crate::definition::plan::gateway::{DoorName, Limits};
use crate::proxy::bounded::BoundedSession;
use crate::proxy::stream::DoorStream;
use crate::proxy::underway::Stream;
use crate::proxy::watch::{Overdue, Watch};
use crate::respond::{Answer, Refusal};

/// Windows of a stream and of a connection: what a client may send that nobody has read yet.
const WINDOWS: (u32, u32) = (64 << 10, 1 << 20);
/// What is kept of an answer for a stream whose client does not read.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that are remembered after a reset, and that may be reset by us for what the client did.
const RESETS: (usize, usize) = (32, 64);

/// Serves a connection on which HTTP/2 was agreed, until it ends.
pub async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    door: &DoorContext<A>,
    mut stream: Box<DoorStream>,
    drain: watch::Receiver<bool>,
) {
    let limits = door.shared.live.load().gateway.limits;
    let connection = stream.shared_watch();
    stream.count_frames(limits.http2_control_frames);
    // Until the first request there is no time limit but this one.
    connection.expect_service(stream.now(), limits.header_timeout.max(limits.idle_timeout));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(limits.idle_timeout);
    let gate = Arc::new(Gate {
        door: door.door,
        name: door.name,
        requests: door.requests.clone(),
        app: Arc::clone(&door.app),
        shared: door.shared.clone(),
        connection: Arc::clone(&connection),
        source: stream.source(),
        limits,
        options,
    });
    drop(gate.process_new(stream as PingoraStream, &drain).await);
    if connection.overdue() == Some(Overdue::Flood) {
        door.shared.metrics.door_connections_broken.with_label_values(&[door.name, "flood"]).inc();
    }
}

/// The application of one connection: checks what comes, and passes it on to the door's.
struct Gate<A> {
    door: DoorName,
    name: &'static str,
    requests: Option<Arc<Caps>>,
    app: Arc<A>,
    shared: Shared,
    connection: Arc<Watch>,
    source: Option<IpAddr>,
    limits: Limits,
    options: HttpServerOptions,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for Gate<A> {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.connection.expect_nothing();
        let _place = match self.place() {
            Ok(place) => place,
            Err(full) => {
                self.turn_away(session, full).await;
                return None;
            }
        };
        let body = !session.is_body_empty();
        let mut head = session.req_header().as_owned_parts();
        if let Err(fault) = hygiene::check_parts(&head, &self.limits).and_then(|()| as_http_1(&mut head, body)) {
            self.refuse(session, fault).await;
            return None;
        }
        let stream = Arc::new(Stream {
            watch: Arc::default(),
            source: self.source,
            minimum_rate: self.limits.min_body_rate,
            clock: Arc::clone(&self.shared.clock),
        });
        stream.watch.begin(body);
        let watch = Arc::clone(&stream.watch);
        head.extensions.insert(Arc::clone(&stream));
        *session.req_header_mut() = head.into();
        session.set_write_timeout(Some(self.limits.idle_timeout));
        let session = match session {
            ServerSession::H2(session) => ServerSession::new_custom(Box::new(BoundedSession::new(session, stream))),
            other => other,
        };
        tokio::select! {
            biased;
            reused = self.app.process_new_http(session, shutdown) => reused,
            () = watch.abandoned() => None,
        }
    }

    fn h2_options(&self) -> Option<H2Options> {
        let mut options = H2Options::default();
        options
            .max_concurrent_streams(self.limits.http2_streams)
            .max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX))
            .initial_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_reset_streams(RESETS.0)
            .max_pending_accept_reset_streams(RESETS.0)
            .max_local_error_reset_streams(Some(RESETS.1));
        Some(options)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

impl<A> Gate<A> {
    /// A place for a request, where they are counted. One connection has many, and each holds as much as a connection of
    /// HTTP/1.1, so as many may be under way as connections may be open: in all, and from one address. A trusted proxy's
    /// are counted for the clients that it names, once their heads have been read.
    fn place(&self) -> Result<Option<Place>, Full> {
        let Some(requests) = &self.requests else { return Ok(None) };
        let gateway = Arc::clone(&self.shared.live.load().gateway);
        let bounds = gateway.limits.connections_at(self.door);
        let place = requests.enter(bounds)?;
        let counted = self.source.filter(|peer| !source::is_trusted(*peer, &gateway.doors.public.forwarded));
        match counted {
            Some(source) => place.of(source, bounds).map(Some),
            None => Ok(Some(place)),
        }
    }

    /// Tells a request that it is one too many: in a head alone, because a body could wait for its client.
    async fn turn_away(&self, mut session: ServerSession, full: Full) {
        let metrics = &self.shared.metrics;
        metrics.door_connections_refused.with_label_values(&[self.name, full.as_str()]).inc();
        let mut given = Refusal::Unavailable.answer_after("too many requests at once", Duration::from_secs(1));
        given.headers.retain(|(name, _)| *name != header::CONTENT_TYPE);
        given.body = Bytes::new();
        // A client that is gone needs no answer.
        drop(answer(&mut session, given).await);
    }

    async fn refuse(&self, mut session: ServerSession, fault: Fault) {
        let code = fault.refusal.code();
        self.shared.metrics.http_refusals.with_label_values(&[self.name, code]).inc();
        tracing::debug!(door = self.name, code, "a request head was refused: {}", fault.detail);
        // A client that is gone needs no answer.
        drop(answer(&mut session, fault.refusal.answer(fault.detail)).await);
    }
}

async fn answer(session: &mut ServerSession, given: Answer) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(given.status, Some(given.headers.len() + 1))?;
    for (name, value) in given.headers {
        head.append_header(name, value)?;
    }
    head.insert_header(header::CONTENT_LENGTH, given.body.len())?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(given.body, true).await
}

/// Gives a head the form that HTTP/1.1 would have given it: the host as `Host`, crumbs of cookies in one
/// line (RFC 9113 section 8.2.3), a body without a length as chunks.
fn as_http_1(head: &mut Parts, body: bool) -> Result<(), Fault> {
    let authority = head.uri.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    if let Some(Ok(host)) = authority {
        head.headers.insert(header::HOST, host);
    }
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse::<Uri>().map_err(|_| hygiene::malformed("the path is not well-formed"))?;
    head.version = Version::HTTP_11;
    let crumbs: Vec<&[u8]> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let whole = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]));
        head.headers.insert(header::COOKIE, whole.map_err(|_| hygiene::malformed("the cookies are not well-formed"))?);
    }
    // Nobody waits for it: in HTTP/2 a body comes as soon as there is a window for it.
    head.headers.remove(header::EXPECT);
    if body && !head.headers.contains_key(header::CONTENT_LENGTH) {
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    Ok(())
}
