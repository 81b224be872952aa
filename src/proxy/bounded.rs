//! A request of an HTTP/2 connection, each wait of which keeps the request's limits.
//!
//! Under HTTP/1.1 the connection itself ends a wait that lasts too long ([`super::stream::DoorStream`]). Here many
//! requests share one connection, so each ends its own: whoever waits for the client, for its body or for its
//! leaving, is told what [`super::watch`] says of service and client; and whoever writes, when the client reads too slowly. Everything else is Pingora's HTTP/2 session.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream as Messages;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, Result};
use tokio::time::Sleep;

use super::underway::Stream;
use super::watch::{Overdue, Pace};

/// How often a wait is looked at.
const TICK: Duration = Duration::from_millis(250);

/// One request of an HTTP/2 connection.
pub struct BoundedSession {
    session: HttpSession,
    bounds: Bounds,
    ending: Ending,
}

/// When the end of a body is told.
///
/// Pingora looks at the client no more while four parts of a body wait to be sent on after its end; then nothing keeps the
/// limits, and nobody notices that the client leaves. So the end of a body of several parts is told a moment after the
/// last of them, when a service that reads has taken them.
#[derive(Default)]
struct Ending {
    parts: u8,
    told: bool,
    due: Option<Pin<Box<Sleep>>>,
}

/// How long a part of an answer may wait for its client besides what it takes at the least rate.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many parts as leave room for the end behind them.
const FEW: u8 = 2;
/// How long the end waits.
const MOMENT: Duration = Duration::from_millis(2);

impl Ending {
    fn read(&mut self, read: &Result<Option<Bytes>>) {
        match read {
            Ok(Some(_)) => self.parts = self.parts.saturating_add(1),
            Ok(None) | Err(_) => self.told = true,
        }
    }

    fn is_told(&self) -> bool {
        self.told || self.parts <= FEW
    }

    /// Waits until the end may be told. May be dropped and begun again: the moment is counted from the first time.
    async fn moment(&mut self) {
        self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(MOMENT))).as_mut().await;
    }
}

/// What ends a wait.
struct Bounds {
    stream: Arc<Stream>,
    sending: Pace,
    tick: Pin<Box<Sleep>>,
}

impl BoundedSession {
    /// A session with the limits of its request.
    pub fn new(session: HttpSession, stream: Arc<Stream>) -> Self {
        let bounds = Bounds { stream, sending: Pace::default(), tick: Box::pin(tokio::time::sleep(TICK)) };
        Self { session, bounds, ending: Ending::default() }
    }
}

impl Bounds {
    /// Why waiting must end now, if it must.
    fn overdue(&mut self) -> Option<Overdue> {
        let Stream { watch, clock, minimum_rate, .. } = &*self.stream;
        let now = clock.monotonic();
        if watch.service_is_overdue(now) {
            return Some(Overdue::Service);
        }
        (watch.expects_body() && self.sending.waits(now, *minimum_rate)).then_some(Overdue::ClientSending)
    }

    /// Ready when a wait has lasted too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Box<Error>> {
        loop {
            if let Some(why) = self.overdue() {
                self.stream.watch.end(why);
                return Poll::Ready(Error::explain(ErrorType::ReadTimedout, "a wait that lasted too long").into_down());
            }
            ready!(self.tick.as_mut().poll(cx));
            self.tick.set(tokio::time::sleep(TICK));
        }
    }

    /// What is written, within the time that a client which reads at the least rate takes for so many bytes. HTTP/2 has a
    /// window of each stream's own, which a client may open byte by byte.
    async fn write<T>(&self, bytes: usize, writing: impl Future<Output = Result<T>>) -> Result<T> {
        let Stream { watch, minimum_rate, .. } = &*self.stream;
        let seconds = (bytes as u64).div_ceil((*minimum_rate).max(1));
        let written = tokio::time::timeout(PATIENCE.saturating_add(Duration::from_secs(seconds)), writing).await;
        written.unwrap_or_else(|_elapsed| {
            watch.end(Overdue::ClientReading);
            Err(Error::explain(ErrorType::WriteTimedout, "the client reads too slowly").into_down())
        })
    }

    /// What is read, within the bounds.
    async fn keep(&mut self, reading: impl Future<Output = Result<Option<Bytes>>>) -> Result<Option<Bytes>> {
        tokio::pin!(reading);
        let read = poll_fn(|cx| match reading.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => self.poll(cx).map(Err),
        });
        let read = read.await;
        if let Ok(piece) = &read {
            let clock = &self.stream.clock;
            self.sending.moved(piece.as_ref().map_or(0, Bytes::len), || clock.monotonic());
        }
        read
    }
}

#[async_trait]
impl Session for BoundedSession {
    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let read = self.bounds.keep(self.session.read_body_bytes()).await;
        self.ending.read(&read);
        read
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let Self { session, bounds, ending } = self;
        let is_ending = !ending.is_told() && session.is_body_done();
        let reading = async {
            if is_ending {
                ending.moment().await;
                return Ok(None);
            }
            if !no_body_expected && !session.is_body_done() {
                return session.read_body_bytes().await;
            }
            session.idle().await?;
            Err(Error::explain(ErrorType::ConnectionClosed, "the client has reset the stream").into_down())
        };
        let read = bounds.keep(reading).await;
        ending.read(&read);
        read
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.session.drain_request_body().await
    }

    fn req_header(&self) -> &RequestHeader {
        self.session.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.session.req_header_mut()
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.session.write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.session.write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.bounds.write(data.len(), self.session.write_body(data, end)).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.session.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let of = |task: &HttpTask| match task {
            HttpTask::Body(data, _) => data.as_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let bytes = tasks.iter().map(of).sum();
        self.bounds.write(bytes, self.session.response_duplex_vec(tasks)).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.session.finish()
    }

    async fn shutdown(&mut self, _code: u32, _why: &str) {
        self.session.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.session.is_body_done() && self.ending.is_told()
    }

    fn is_body_empty(&mut self) -> bool {
        self.session.is_body_empty()
    }

    /// Reading is bounded by the request's limits, which change with its phases.
    fn set_read_timeout(&mut self, _timeout: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.session.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.session.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.session.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.session.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.session.response_written()
    }

    fn body_bytes_sent(&self) -> usize {
        self.session.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.session.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.session.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.session.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.session.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.session.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.session.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.session.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.session.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.session.get_retry_buffer()
    }

    // HTTP/2 has no messages beside requests and their answers.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _writer: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
