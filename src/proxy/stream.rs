//! A client's connection as Pingora sees it, with our own buffering and time limits.
//!
//! Pingora's own stream made from a bare socket writes a head and each piece of a body with a system
//! call of its own, because its buffer sizes can only be set inside Pingora. This one gathers small
//! writes and sends them when asked to flush, or as soon as it is polled for reading, so that nothing
//! waits in memory while the connection waits for the other side. It also ends waits that last too long
//! (see [`Watch`]) and floods of HTTP/2 frames (see [`FrameBudget`]). Made by `server`; used by both doors.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::chunks::ChunkCheck;
use super::frames::FrameBudget;
use super::socket::Channel;
use super::watch::{Overdue, Pace, Watch};
use crate::base::clock::Clock;

/// The most bytes that are gathered before they are sent.
const GATHER: usize = 16 << 10;
/// How often a wait is looked at.
const TICK: Duration = Duration::from_millis(250);
/// How much a client may still send after we have answered and closed, and how long it may take. Closing
/// at once would reset the connection and could destroy the answer on its way.
const LINGER: (usize, Duration) = (256 << 10, Duration::from_secs(2));

/// A client's connection.
pub struct DoorStream {
    io: Channel,
    source: Option<IpAddr>,
    out: BytesMut,
    watch: Arc<Watch>,
    frames: Option<FrameBudget>,
    chunks: Option<ChunkCheck>,
    sending: Pace,
    reading: Pace,
    minimum_rate: u64,
    clock: Arc<dyn Clock>,
    tick: Option<Pin<Box<Sleep>>>,
    digest: Arc<SocketDigest>,
}

impl fmt::Debug for DoorStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorStream").field("io", &self.io).finish_non_exhaustive()
    }
}

impl DoorStream {
    /// A connection of `source` over a channel. `minimum_rate` is in bytes a second.
    pub fn new(io: Channel, source: Option<IpAddr>, minimum_rate: u64, clock: Arc<dyn Clock>) -> Self {
        let digest = Arc::new(SocketDigest::from_raw_fd(io.as_raw_fd()));
        Self {
            io,
            source,
            out: BytesMut::new(),
            watch: Arc::default(),
            frames: None,
            chunks: None,
            sending: Pace::default(),
            reading: Pace::default(),
            minimum_rate,
            clock,
            tick: None,
            digest,
        }
    }

    /// The connection below a Pingora stream; `None` when it is of another kind.
    pub fn below(stream: &Stream) -> Option<&Self> {
        (**stream).as_any().downcast_ref()
    }

    /// The connection a Pingora stream was made from.
    ///
    /// # Errors
    /// Nothing is left to do with a stream of another kind.
    pub fn back(stream: Stream) -> Option<Box<Self>> {
        stream.into_any().downcast().ok()
    }

    /// The limits of the request under way.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// The limits, for who has to hold them beside the connection.
    pub fn shared_watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_http2(&self) -> bool {
        self.io.is_http2()
    }

    /// Returns when the client has closed its side, for waits in which nothing is read from it.
    pub async fn gone(&self) {
        while !self.io.is_closed().await {
            tokio::time::sleep(TICK).await;
        }
    }

    /// From here on HTTP/2 frames are counted.
    pub fn count_frames(&mut self, most: u32) {
        self.frames = Some(FrameBudget::new(most, self.now()));
    }

    /// Monotonic time.
    pub fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Who is connected; `None` on a Unix socket.
    pub fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Begins a request: pace and limits count from here.
    pub fn begin(&mut self, body: bool) {
        self.watch.begin(body);
        self.sending.begin();
        self.reading.begin();
        self.chunks = None;
    }

    /// The body of the request that was begun is chunked, and `first` of it has come. Answers whether that is
    /// well-formed; the rest is checked as it comes.
    pub fn expect_chunks(&mut self, first: &[u8]) -> bool {
        self.chunks.insert(ChunkCheck::default()).read(first)
    }

    /// The first bytes of something, waited for while as little memory as possible is held; empty when the
    /// other side has closed.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn first_bytes(&mut self, capacity: usize) -> io::Result<BytesMut> {
        self.out = BytesMut::new();
        self.io.first_bytes(capacity).await
    }

    /// Says that nothing more will be sent, and takes in what the client has still under way.
    pub async fn linger(&mut self) {
        if AsyncWriteExt::shutdown(self).await.is_err() {
            return;
        }
        let discard = async {
            let mut buffer = [0_u8; 4096];
            let mut taken = 0;
            while taken < LINGER.0 {
                match self.io.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => taken += count,
                }
            }
        };
        // Running out of time is as good an end as any.
        drop(tokio::time::timeout(LINGER.1, discard).await);
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wrote(written);
            self.out.advance(written);
        }
        // TLS may hold a record back until it is asked for.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn wrote(&mut self, bytes: usize) {
        self.reading.moved(bytes, || self.clock.monotonic());
    }

    /// Why waiting must end now, if it must. `writing` says which way the wait is.
    fn overdue(&mut self, writing: bool) -> Option<Overdue> {
        let now = self.clock.monotonic();
        if self.watch.service_is_overdue(now) && !writing {
            return Some(Overdue::Service);
        }
        if writing {
            let slow = !self.watch.is_tunnel() && self.reading.waits(now, self.minimum_rate);
            return slow.then_some(Overdue::ClientReading);
        }
        (self.watch.expects_body() && self.sending.waits(now, self.minimum_rate)).then_some(Overdue::ClientSending)
    }

    /// Ends a wait that lasts too long, else sees to it that it is looked at again.
    fn poll_wait(&mut self, cx: &mut Context<'_>, writing: bool) -> Poll<io::Error> {
        loop {
            if let Some(why) = self.overdue(writing) {
                self.watch.end(why);
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            if !writing && !self.watch.has_deadline() && !self.watch.expects_body() {
                return Poll::Pending;
            }
            let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
            ready!(tick.as_mut().poll(cx));
            tick.set(tokio::time::sleep(TICK));
        }
    }
}

impl AsyncRead for DoorStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let came = buf.filled().get(before..).unwrap_or_default();
                this.sending.moved(came.len(), || this.clock.monotonic());
                if this.chunks.as_mut().is_some_and(|chunks| !chunks.read(came)) {
                    this.watch.end(Overdue::Malformed);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                if this.frames.as_mut().is_some_and(|frames| !frames.read(came, this.clock.monotonic())) {
                    this.watch.end(Overdue::Flood);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                if let Poll::Ready(Err(error)) = this.poll_out(cx) {
                    return Poll::Ready(Err(error));
                }
                this.poll_wait(cx, false).map(Err)
            }
        }
    }
}

impl AsyncWrite for DoorStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.out.len() + buf.len() <= GATHER {
            this.out.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        loop {
            let both = [IoSlice::new(&this.out), IoSlice::new(buf)];
            let Poll::Ready(written) = Pin::new(&mut this.io).poll_write_vectored(cx, &both) else {
                return this.poll_wait(cx, true).map(Err);
            };
            let written = written?;
            this.wrote(written);
            let gathered = written.min(this.out.len());
            this.out.advance(gathered);
            if written > gathered {
                return Poll::Ready(Ok(written - gathered));
            }
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.poll_out(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_wait(cx, true).map(Err),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for DoorStream {
    async fn shutdown(&mut self) {
        self.linger().await;
    }
}

impl UniqueID for DoorStream {
    fn id(&self) -> UniqueIDType {
        self.io.as_raw_fd()
    }
}

impl Ssl for DoorStream {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.is_http2().then_some(ALPN::H2)
    }
}

impl GetTimingDigest for DoorStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for DoorStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for DoorStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl Peek for DoorStream {}
