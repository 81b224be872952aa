//! Pingora's side of the proxy door: its phases, each a line or two around a stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};

use super::context::{Context, Renewed, is_http_1_0, is_websocket};
use super::depart;
use super::kept::Instead;
use super::record::{self, Ended};
use super::traced::{self, Traced};
use super::underway::watch;
use super::watch::{Overdue, Watch};
use super::{Admitted, Incoming, ProxyDoor, answer, carried, headers, pages, peer, renew, respond, retry, sign, stuck};
use crate::definition::plan::api::HttpVersions;
use crate::outbound::retry::Fault;
use crate::respond::{Answer, Refusal};
use crate::telemetry::trace::within;

/// Counts the pools that no connection is kept in.
static NEVER_KEPT: AtomicU64 = AtomicU64::new(1);

/// Names a request in answers, logs and activity.
const REQUEST_ID: HeaderName = HeaderName::from_static("trunkline-request-id");
/// Interim answers (1xx) that one call may have; a service that sends more is not answering.
const INTERIM: u8 = 16;
/// The least time that one address of several is tried for.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// The proxy door as a Pingora application.
pub struct Forward {
    pub(super) door: Arc<ProxyDoor>,
    requests: AtomicU64,
}

impl Forward {
    /// An application for a door.
    pub fn new(door: Arc<ProxyDoor>) -> Self {
        let first = door.parts.clock.now().millis() << 20;
        Self { door, requests: AtomicU64::new(first) }
    }

    pub(super) fn now(&self) -> Duration {
        self.door.parts.clock.monotonic()
    }

    /// HTTP/2 of the service that a call went to was at fault.
    fn distrust(&self, context: &Context) {
        let Ok(call) = context.call() else { return };
        let is_news = self.door.distrust.note(call.ready.pool, self.now());
        // A service that speaks HTTP/2 only is spoken to in nothing else.
        if is_news && call.ready.http == HttpVersions::Best {
            let integration = &*call.ready.integration.id;
            tracing::warn!(
                integration,
                "`{integration}` answered HTTP/2 with a fault: it is spoken to in HTTP/1.1 for the next ten minutes"
            );
        }
    }

    /// Sends an answer of our own, marked with the request's id.
    pub(super) async fn answer(
        &self,
        session: &mut Session,
        context: &mut Context,
        given: Answer,
    ) -> pingora::Result<()> {
        context.error = Refusal::of(&given);
        answer::write(session, given.with(REQUEST_ID, context.id.clone())).await
    }
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::of(self.requests.fetch_add(1, Ordering::Relaxed), (self.door.parts.clock.now(), self.now()))
    }

    /// No module: answers pass as they come, compressed or not.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> pingora::Result<bool> {
        let request = session.req_header();
        context.traced = Traced::begin(&self.door, request);
        let place = context.place();
        let uri = &request.uri;
        let incoming =
            Incoming { method: &request.method, path: uri.path(), query: uri.query(), headers: &request.headers };
        let admitted = self.door.handle(&incoming, &mut context.known).await;
        let given = match admitted {
            Ok(Admitted::Forward(call)) => return self.forward(session, context, call).await,
            Ok(Admitted::Kept(kept)) => self.answer_kept(session, context, *kept),
            // Apart, because their futures are ten times as large as that of a call which passes.
            Ok(Admitted::Whole(call)) => within(place, Box::pin(self.whole(session, context, *call))).await?,
            Ok(Admitted::Pages(call)) => {
                context.known.place = Some(call.place());
                match within(place, Box::pin(pages::run(&self.door, session, *call, context))).await? {
                    Some(refused) => refused,
                    None => return Ok(true),
                }
            }
            Ok(Admitted::Named(call)) => within(place, Box::pin(self.named(session, &call))).await?,
            Ok(Admitted::Durable(submission)) => within(place, Box::pin(self.accept(session, *submission))).await,
            Ok(Admitted::Answered(given)) => given,
            Err(refused) => {
                context.known.refuse(uri.path());
                refused
            }
        };
        self.answer(session, context, given).await.map(|()| true)
    }

    /// Each try begins with another address, and goes on to the others by itself. The time for connecting is that
    /// of all tries together.
    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        context.guard = None;
        retry::resume(&self.door, session, context).await?;
        let (call, way) = (context.call()?, context.way()?);
        let left = way.connect_by.saturating_sub(self.now());
        let tries = way.route.addresses().count().saturating_sub(context.tries).max(1);
        let share = left / u32::try_from(tries).unwrap_or(1);
        let connect = share.max(LEAST_TRY).min(left.max(Duration::from_millis(1)));
        let (pool, distrusted) = self.door.distrust.pool(call.ready.pool, self.now());
        let offer = peer::Offer::of(call, session, distrusted);
        let redirected = self.door.parts.dialer.redirect().is_some();
        let mut peer = peer::peer((call, &way.route), context.tries, connect, offer, redirected);
        peer.group_key = pool;
        if context.closed {
            // Another kept connection may be closed as well, so this one comes from no pool that anybody has put one into.
            peer.group_key = NEVER_KEPT.fetch_add(1, Ordering::Relaxed) ^ !peer.group_key;
        }
        context.tries += 1;
        context.dials += 1;
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let mock = self.door.parts.dialer.redirect().is_some();
        let call = context.call()?;
        headers::to_service(request, call, &self.door.via, mock)?;
        call.kept.ask(request)?;
        retry::put_key(&self.door, request, context)?;
        traced::ask(&self.door, request, context)?;
        let call = context.call()?;
        sign::put_on(request, call, &self.door, session.is_body_done())?;
        let timeouts = call.ready.timeouts;
        context.sent = self.now();
        if let Some(carried) = &mut context.carried {
            carried.begin_again();
        }
        let limit = if session.is_body_done() { timeouts.response } else { timeouts.idle };
        let limit = limit.min(context.patience(context.sent));
        if let Some(watch) = watch(session) {
            watch.expect_service(context.sent, limit);
        }
        context.guard = if session.is_body_done() { None } else { stuck::guard(&self.door, session, context) };
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        if let Some(piece) = body {
            carried::sends(&self.door, context, piece);
        }
        let (timeouts, patience) = (context.call()?.ready.timeouts, context.patience(self.now()));
        let Some(watch) = watch(session) else { return Ok(()) };
        // Once the answer has begun, silence is measured between its parts.
        let awaited = context.service.is_none();
        if end {
            watch.body_ended();
        }
        let limit = if end && awaited { timeouts.response.min(patience) } else { timeouts.idle };
        watch.expect_service(self.now(), limit);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        let idle = context.call()?.ready.timeouts.idle;
        let now = self.now();
        if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
            return interim(response, context);
        }
        context.guard = None;
        traced::answered(&self.door, context, response.status.as_u16());
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !is_websocket(session) {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "a switch that nobody asked for").into_up());
        }
        headers::settle_framing(response)?;
        let asked = depart::answered(context, response);
        if renew::sign_again(&self.door, session, context, response).await {
            let status = response.status.as_u16();
            return Err(Error::explain(ErrorType::HTTPStatus(status), "signed again by the service's clock").into_up());
        }
        if response.status == StatusCode::UNAUTHORIZED && renew::renew(&self.door, session, context).await {
            return Err(Error::explain(ErrorType::HTTPStatus(401), "tried again with a new token").into_up());
        }
        if retry::after_answer(&self.door, session, context, (response, asked)) {
            let status = response.status.as_u16();
            return Err(Error::explain(ErrorType::HTTPStatus(status), "tried again as declared").into_up());
        }
        super::feel(&context.call()?.ready, response.status, self.door.parts.clock.now());
        context.service = Some((now.saturating_sub(context.sent), response.status.as_u16()));
        headers::to_caller(response, context.call()?.ready.credential())?;
        match context.kept().head(response, self.door.parts.outbound.cache()) {
            Ok(verdict) => context.course.cache = verdict,
            // The rest of this answer is nothing but its head, and Pingora does not write a second one: so the
            // connection to the service is kept.
            Err(Instead::Unchanged(kept)) => {
                context.course.cache = Some("revalidated");
                carried::given(&self.door, context, &kept);
                return self.answer(session, context, *kept).await;
            }
            Err(Instead::Stale(kept)) => {
                context.course.cache = Some("stale");
                context.stale = Some(kept);
                return Err(Error::explain(ErrorType::HTTPStatus(response.status.as_u16()), "a kept answer").into_up());
            }
        }
        carried::answered(&self.door, context, response);
        depart::tell_limits(context, response)?;
        response.insert_header(REQUEST_ID, context.id.clone())?;
        if let Some(watch) = watch(session) {
            watch.expect_service(now, idle);
            if response.status == StatusCode::SWITCHING_PROTOCOLS {
                watch.become_tunnel();
            }
        }
        Ok(())
    }

    /// HTTP/1.0 knows no chunks: an answer whose length nobody tells ends where the connection does (RFC 9112
    /// section 6.3). Chunks are of Pingora's making here where the service sent none, so this comes last.
    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _context: &mut Context,
    ) -> pingora::Result<()> {
        if is_http_1_0(session) && response.remove_header(&header::TRANSFER_ENCODING).is_some() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn upstream_response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        context: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        // HTTP/2 lets a service send what belongs to no answer of this kind (RFC 9110 sections 15.3.5 and 15.4.5).
        if context.service.is_some_and(|(_, status)| matches!(status, 204 | 304)) {
            *body = None;
        }
        if let (Some(piece), Some(carried)) = (&*body, &mut context.carried) {
            carried.hears(piece);
        }
        let kept = context.kept();
        if let Some(piece) = body {
            kept.passes(piece);
        }
        if end {
            kept.ends();
        }
        Ok(None)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        _body: &mut Option<Bytes>,
        _end: bool,
        context: &mut Context,
    ) -> pingora::Result<Option<Duration>> {
        let idle = context.call()?.ready.timeouts.idle;
        if let Some(watch) = watch(session) {
            watch.expect_service(self.now(), idle);
        }
        Ok(None)
    }

    /// Nothing was sent yet, so the next address may be tried, except where the certificate is wrong.
    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        let way = context.way().ok();
        let more = way.is_some_and(|way| context.tries < way.route.addresses().count());
        let time = way.is_some_and(|way| self.now() < way.connect_by);
        let again = more && time && !matches!(error.etype, ErrorType::InvalidCert);
        if let Some(pass) = context.pass.take_if(|_| !again) {
            // The way out failed, and says nothing of the service.
            if error.etype == ErrorType::Custom(super::dial::EGRESS) { pass.unsent() } else { pass.unreachable() }
        }
        let trusted = !matches!(error.etype, ErrorType::InvalidCert);
        error.set_retry(again || trusted && retry::after(&self.door, session, context, Fault::Unsent));
        error
    }

    /// Without a word of the definition a call is tried again only when a kept connection turned out to be closed
    /// before anything of an answer came, and only when doing it twice is the same as doing it once.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        context: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        if matches!(error.etype, ErrorType::H2Downgrade | ErrorType::InvalidH2) {
            self.distrust(context);
        }
        if context.renewed == Renewed::Again {
            context.renewed = Renewed::Done;
            error.set_retry(true);
            return error;
        }
        if context.again.is_some() {
            error.set_retry(true);
            return error;
        }
        if retry::met_silence(session, context) {
            if let Some(pass) = context.pass.take() {
                pass.broken();
            }
            error.set_retry(retry::after_silence(&self.door, session, context));
            return error;
        }
        let again = error.esource == ErrorSource::Upstream
            && context.service.is_none()
            && session.req_header().method.is_idempotent()
            && !session.as_ref().retry_buffer_truncated();
        if again {
            error.retry.decide_reuse(reused);
        }
        if again && error.retry() && retry::after_closed(context) {
            error.set_retry(true);
        } else {
            let broken = error.esource == ErrorSource::Upstream && context.service.is_none();
            if let Some(pass) = context.pass.take_if(|_| broken) {
                pass.broken();
            }
            error.set_retry(broken && retry::after(&self.door, session, context, Fault::Broken));
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let gone = FailToProxy { error_code: 0, can_reuse_downstream: false };
        // Of the interim answers 101 alone is the last: what is written behind it belongs to the other protocol.
        let is_last = |status: StatusCode| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS;
        let begun = session.response_written().is_some_and(|written| is_last(written.status));
        let stale = context.stale.take().map(|stale| *stale).or_else(|| context.instead());
        if let Some(refused) = context.refused.take() {
            let given = stale.unwrap_or(refused).closing();
            let error_code = given.status.as_u16();
            return match self.answer(session, context, given).await {
                Ok(()) => FailToProxy { error_code, can_reuse_downstream: false },
                Err(_) => gone,
            };
        }
        let overdue = watch(session).and_then(Watch::overdue);
        let Some(failure) = respond::of_call(error, overdue) else { return gone };
        if let Some(pass) = context.pass.take_if(|_| overdue == Some(Overdue::Service)) {
            pass.broken();
        }
        let (integration, host) = match &context.call {
            Some(call) => (call.ready.integration.id.clone(), call.ready.common.base.origin.host.clone()),
            None => (Arc::from("other"), String::from("the service")),
        };
        self.door.parts.metrics.upstream_errors.with_label_values(&[&*integration, failure.reason]).inc();
        // The kind only: the context of an answer that cannot be read is the answer, which may repeat what it was sent.
        let kind = error.etype().as_str();
        tracing::debug!(integration = &*integration, reason = failure.reason, "a call failed: {kind}");
        context.error = Refusal::ALL.iter().find(|refusal| **refusal == failure.refusal);
        // An answer that has begun cannot be taken back: the connection closes in the middle of it.
        if begun {
            return gone;
        }
        let given = stale.unwrap_or_else(|| failure.answer(&host));
        if self.answer(session, context, given.closing()).await.is_err() {
            return gone;
        }
        if !session.is_body_done() {
            session.shutdown().await;
        }
        FailToProxy { error_code: failure.refusal.status(), can_reuse_downstream: false }
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        context: &mut Context,
    ) -> pingora::Result<Option<Bytes>> {
        headers::trailers_to_caller(trailers, context.call()?.ready.credential());
        Ok(None)
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, context: &mut Context) {
        let status = session.response_written().map_or(0, |written| written.status.as_u16());
        let carried = carried::content(&self.door, &session.req_header().headers, context);
        let streamed = context.call.take().map(|call| call.into_place());
        let bytes = (session.body_bytes_read() as u64, session.body_bytes_sent() as u64);
        record::record(
            &self.door,
            Ended {
                at: context.at,
                id: context.id.clone(),
                subject: context.known.subject.take(),
                place: streamed.or_else(|| context.known.place.take()),
                method: session.req_header().method.clone(),
                status,
                error: context.error.map(|refusal| refusal.code()),
                took: self.now().saturating_sub(context.began),
                service: context.service,
                sent: context.sent.saturating_sub(context.began),
                course: context.course,
                bytes,
                traced: context.traced.take(),
                content: carried,
            },
        );
    }

    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _context: &Context,
        _error: &Error,
        _of: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// An answer before the answer (RFC 9110 §15.2): it passes, and there are only so many.
fn interim(response: &mut ResponseHeader, context: &mut Context) -> pingora::Result<()> {
    context.interim += 1;
    if context.interim > INTERIM {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "too many interim answers").into_up());
    }
    headers::to_caller(response, context.call()?.ready.credential())
}
