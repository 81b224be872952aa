//! Heads that are checked byte by byte before an HTTP implementation of another make reads them: the admin door's.
//!
//! A head that is refused never gets through. In its place goes one that no client can send, because its field has
//! an underscore in its name, which [`hygiene`] lets nobody use; what answers knows it by that ([`refusal`]). So
//! answers keep their order, and every refusal is a problem document. Called by `app`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::{Scan, too_large};
use super::hygiene::{self, Fault, Framing, Upgrades, malformed};
use crate::definition::plan::gateway::Limits;
use crate::proxy::chunks::ChunkCheck;
use crate::respond::Refusal;

/// The field of a head that stands for one that was refused: the refusal's code and what was wrong.
const REFUSED: HeaderName = HeaderName::from_static("refused_at_the_door");
/// What one read takes at most.
const PIECE: usize = 16 << 10;

/// A connection whose heads are checked as they come in, with what must live as long as it does.
#[derive(Debug)]
pub struct Guarded<S, H> {
    inner: S,
    _held: H,
    limits: Limits,
    at: At,
    /// What came and was not handed on yet.
    bytes: BytesMut,
    /// How many of them may be.
    open: usize,
}

/// Where in the conversation the next byte stands.
#[derive(Debug)]
enum At {
    Head(Scan),
    Body(u64),
    Chunks(ChunkCheck),
    /// Nothing more is read of it.
    Refused,
}

impl<S: AsyncRead + Unpin, H: Unpin> Guarded<S, H> {
    /// A connection at its beginning.
    pub fn new(inner: S, limits: Limits, held: H) -> Self {
        Self { inner, _held: held, limits, at: At::Head(Scan::default()), bytes: BytesMut::new(), open: 0 }
    }

    /// Lets more of what came through, where that can be judged; else more is needed.
    fn judge(&mut self) -> io::Result<()> {
        match &mut self.at {
            At::Head(scan) => {
                let found = scan.find_end(&self.bytes);
                match found.and_then(|end| self.head(end)) {
                    Ok(()) => {}
                    Err(fault) => self.refuse(fault),
                }
            }
            At::Body(left) => {
                let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(self.bytes.len());
                *left -= passed as u64;
                self.open = passed;
                if *left == 0 {
                    self.at = At::Head(Scan::default());
                }
            }
            At::Chunks(check) => {
                let end = check.end_in(&self.bytes);
                let end =
                    end.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a chunk is not well-formed"))?;
                self.open = end;
                if check.is_done() {
                    self.at = At::Head(Scan::default());
                }
            }
            At::Refused => {}
        }
        Ok(())
    }

    /// Lets a head through that ends at `end`.
    fn head(&mut self, end: Option<usize>) -> Result<(), Fault> {
        let size = end.unwrap_or(self.bytes.len());
        if size > self.limits.header_bytes {
            return Err(too_large(&self.bytes, &self.limits));
        }
        let Some(end) = end else { return Ok(()) };
        let checked = hygiene::check(&self.bytes[..end], &self.limits, Upgrades::None)?;
        let mut head = self.bytes.split_to(end);
        self.at = match checked.framing {
            Framing::Empty => At::Head(Scan::default()),
            Framing::Length(length) => At::Body(length),
            Framing::Chunked if ChunkCheck::default().read(&self.bytes) => At::Chunks(ChunkCheck::default()),
            Framing::Chunked => return Err(malformed("a chunk is not well-formed")),
        };
        checked.apply(&mut head);
        self.open = head.len();
        head.extend_from_slice(&self.bytes);
        self.bytes = head;
        Ok(())
    }

    fn refuse(&mut self, fault: Fault) {
        let (code, detail) = (fault.refusal.code(), fault.detail);
        let head = format!("GET / HTTP/1.1\r\nhost: door\r\nconnection: close\r\n{REFUSED}: {code} {detail}\r\n\r\n");
        self.bytes = head.as_bytes().into();
        self.open = head.len();
        self.at = At::Refused;
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut piece = [0; PIECE];
        let mut piece = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        self.bytes.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }
}

impl<S: AsyncRead + Unpin, H: Unpin> AsyncRead for Guarded<S, H> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.open > 0 {
                let count = this.open.min(buf.remaining());
                buf.put_slice(&this.bytes.split_to(count));
                this.open -= count;
                return Poll::Ready(Ok(()));
            }
            if matches!(this.at, At::Refused) {
                // Read to nowhere, so that what still comes does not reset the connection before its answer is
                // read; and never to an end, which would take the answer back.
                while ready!(this.poll_more(cx))? > 0 {
                    this.bytes.clear();
                }
                return Poll::Pending;
            }
            if !this.bytes.is_empty() {
                this.judge()?;
            }
            if this.open == 0 && ready!(this.poll_more(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Guarded<S, H> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The refusal that a head stands for, with what was wrong; `None` for a head that a client sent.
pub fn refusal(headers: &HeaderMap) -> Option<(&'static Refusal, &str)> {
    let (code, detail) = headers.get(REFUSED)?.to_str().ok()?.split_once(' ')?;
    Refusal::ALL.iter().find(|refusal| refusal.code() == code).map(|refusal| (refusal, detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    /// A guarded connection on which these bytes come, at most `size` at a time.
    fn coming(bytes: &str, size: usize) -> (Guarded<DuplexStream, ()>, tokio::task::JoinHandle<DuplexStream>) {
        let (mut client, door) = tokio::io::duplex(size);
        let bytes = bytes.as_bytes().to_vec();
        let sent = tokio::spawn(async move {
            client.write_all(&bytes).await.expect("room");
            client
        });
        (Guarded::new(door, Limits::default(), ()), sent)
    }

    #[tokio::test]
    async fn requests_pass_one_after_the_other_however_they_come() {
        let all = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
                   POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                   GET /d HTTP/1.1\r\nHost: a\r\n\r\n";
        for size in [1, 7, 40, 4_096] {
            let (mut guarded, sent) = coming(all, size);
            let mut out = vec![0; all.len()];
            guarded.read_exact(&mut out).await.expect("all of it passes");
            assert_eq!(String::from_utf8(out).expect("ASCII"), all, "in pieces of {size}");
            drop(sent.await);
            assert_eq!(guarded.read(&mut [0]).await.ok(), Some(0), "the end passes as well");
        }
    }

    #[tokio::test]
    async fn what_is_refused_is_replaced_and_nothing_behind_it_is_read() {
        let good = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
        for bad in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
            "GET / HTTP/1.1\r\nHost: a\r\nrefused_at_the_door: internal x\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let (mut guarded, sent) = coming(&format!("{good}{bad}{good}"), 4_096);
            let mut first = vec![0; good.len()];
            guarded.read_exact(&mut first).await.expect("the first passes");
            assert_eq!(first, good.as_bytes());
            let mut head = [0; 1_024];
            let count = guarded.read(&mut head).await.expect("a head in its place");
            let head = std::str::from_utf8(&head[..count]).expect("ASCII");
            assert!(head.starts_with("GET / HTTP/1.1\r\nhost: door\r\n") && head.ends_with("\r\n\r\n"), "{head}");
            assert!(head.contains("refused_at_the_door: malformed_request "), "{head}");
            assert!(guarded.read(&mut [0]).now_or_never().is_none(), "nothing more passes, not even an end");
            drop(sent.await);
        }
    }
}
