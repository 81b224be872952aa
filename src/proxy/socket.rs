//! The sockets below a door's connections: TCP or Unix, plain or under TLS. Made by `server`.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// What a first read takes at most.
const FIRST_READ: usize = 16 << 10;

/// A socket as it was accepted.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

macro_rules! each {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl Socket {
    /// Who is connected; `None` on a Unix socket, or when the other side is gone already.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            Self::Unix(_) => None,
        }
    }

    /// Sends a few bytes if that is possible at once.
    pub fn send_now(&self, bytes: &[u8]) -> bool {
        each!(self, io => io.try_write(bytes)).is_ok_and(|written| written == bytes.len())
    }

    /// Waits until there is something to read, or the other side has closed. Answers whether it has.
    async fn is_closed(&self) -> bool {
        each!(self, io => io.ready(Interest::READABLE).await).map_or(true, Ready::is_read_closed)
    }

    /// The first bytes of something, waited for without holding memory; empty when the other side has
    /// closed. As many as one read gives are taken, so that a request of usual size comes whole; what little
    /// came is moved to a buffer of at least `capacity` for the rest to be waited for in. A socket may say that it
    /// is readable and then not be, so only bytes count.
    async fn first_bytes(&self, capacity: usize) -> io::Result<BytesMut> {
        loop {
            each!(self, io => io.readable().await)?;
            let mut bytes = BytesMut::with_capacity(FIRST_READ);
            match each!(self, io => io.try_read_buf(&mut bytes)) {
                Ok(count) if count > FIRST_READ / 2 => return Ok(bytes),
                Ok(count) => {
                    let mut kept = BytesMut::with_capacity(capacity.max(count));
                    kept.extend_from_slice(&bytes);
                    return Ok(kept);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        each!(self, io => io.as_raw_fd())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(&mut *self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(&mut *self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut *self, io => Pin::new(io).poll_shutdown(cx))
    }
}

/// What a connection's bytes go through.
#[derive(Debug)]
pub enum Channel {
    /// Nothing.
    Plain(Socket),
    /// TLS.
    Tls(Box<TlsStream<Socket>>),
}

macro_rules! either {
    ($channel:expr, $inner:ident => $call:expr) => {
        match $channel {
            Channel::Plain($inner) => $call,
            Channel::Tls($inner) => $call,
        }
    };
}

impl Channel {
    /// Whether HTTP/2 was agreed on.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Waits until there is something to read, or the other side has closed. Answers whether it has.
    pub async fn is_closed(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_closed().await,
            Self::Tls(stream) => stream.get_ref().0.is_closed().await,
        }
    }

    /// As [`Socket::first_bytes`]. Under TLS the memory for them is held while they are waited for, beside
    /// all that TLS itself holds.
    pub async fn first_bytes(&mut self, capacity: usize) -> io::Result<BytesMut> {
        match self {
            Self::Plain(socket) => socket.first_bytes(capacity).await,
            Self::Tls(stream) => {
                let mut bytes = BytesMut::with_capacity(capacity);
                stream.read_buf(&mut bytes).await?;
                Ok(bytes)
            }
        }
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Plain(socket) => socket.as_raw_fd(),
            Self::Tls(stream) => stream.get_ref().0.as_raw_fd(),
        }
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(&mut *self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(&mut *self, io => Pin::new(io).poll_write_vectored(cx, bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(&mut *self, io => Pin::new(io).poll_shutdown(cx))
    }
}
