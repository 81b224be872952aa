//! A call of the gateway's own on its way out, and the answer to it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::failure::{Failure, Sent};
use super::guard::Reach;
use super::origin::Origin;
use crate::base::secret::Secret;
use crate::definition::plan::api::{HostPattern, Timeouts, Transport};

/// Who is called: this decides what may be dialled, what is trusted, and whose connections are shared.
#[derive(Debug, Clone)]
pub enum Towards {
    /// A service. `serve --mock` sends these calls to the mock instead.
    Service {
        /// The integration's id.
        integration: Arc<str>,
        /// How the service is dialled and trusted.
        transport: Transport,
        /// What may be dialled.
        reach: Reach,
    },
    /// A place of the operator's own; never redirected to the mock.
    Destination {
        /// The destination's id.
        id: Arc<str>,
    },
}

impl Towards {
    /// The id of the integration or of the destination.
    pub(super) const fn owner(&self) -> &Arc<str> {
        match self {
            Self::Service { integration: id, .. } | Self::Destination { id } => id,
        }
    }
}

/// A call, complete but for what the transport adds: `Host`, `Content-Length`, `User-Agent`.
#[derive(Clone)]
pub struct Outgoing {
    /// Who is called.
    pub towards: Towards,
    /// The application that asks, where one does: the answer is part of what its answers may hold together.
    pub caller: Option<Arc<str>>,
    /// The method.
    pub method: Method,
    /// Scheme, host and port.
    pub origin: Origin,
    /// The path, percent-encoded; begins with a slash.
    pub path: String,
    /// The query string without the question mark.
    pub query: Option<String>,
    /// A credential that goes after the query, as `name=value`, percent-encoded.
    pub secret_query: Option<Arc<Secret>>,
    /// The headers. `Host` and those of the framing are refused.
    pub headers: HeaderMap,
    /// The body; empty means none.
    pub body: Bytes,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much of the answer's body is taken.
    pub limit: BodyLimit,
}

/// Where to, and sizes: headers, bodies and queries may hold secrets.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({} {}{}, {} bytes)", self.method, self.origin, self.path, self.body.len())
    }
}

/// How much of an answer's body is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimit {
    /// The most bytes.
    pub bytes: usize,
    /// What happens when there are more.
    pub excess: Excess,
}

/// What happens to an answer whose body is longer than its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// The call fails.
    Refuse,
    /// The rest is not read; for answers whose status is what counts.
    Cut,
}

impl Default for BodyLimit {
    /// 10 MiB, and more is refused.
    fn default() -> Self {
        Self { bytes: 10 << 20, excess: Excess::Refuse }
    }
}

/// Where a call goes on to when its answer is a redirect. Within one origin a GET or HEAD is sent again in full, and
/// a 303 makes a GET of any method. At another origin only a GET or HEAD goes on, without any of the
/// call's headers but `Accept`, without its body and its credential, and only to a host that is listed here. From
/// HTTPS to plain HTTP nothing goes on. What may not go on is answered as it came.
#[derive(Debug, Clone, Default)]
pub struct Follow {
    /// How often at most; zero means that a redirect is an answer like any other.
    pub hops: u8,
    /// Other hosts that may be gone on to.
    pub hosts: Vec<HostPattern>,
    /// What may be dialled there.
    pub reach: Reach,
}

/// An answer, read to its end.
#[derive(Clone)]
pub struct Received {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as it was sent: nothing is decompressed.
    pub body: Bytes,
    /// Whether the end of the body can be told from a connection that broke off (RFC 9112 section 6.3).
    pub framed: bool,
    /// Whether it is the answer of a place that another answer led to: what it says is of that place, and the call before
    /// it was carried out.
    pub led: bool,
}

/// How many bytes of an answer's body were read, also where it was given up.
pub fn heard(sent: &Result<Received, Failure>) -> u64 {
    sent.as_ref().map_or_else(|failure| failure.heard, |received| received.body.len() as u64)
}

/// Whether certainly nothing of a call was sent.
pub fn is_unsent(sent: &Result<Received, Failure>) -> bool {
    sent.as_ref().is_err_and(|failure| failure.sent == Sent::Nothing)
}

/// Whether an answer's body comes in chunks; `None` where its end is in doubt, because it has a transfer coding that is
/// not `chunked` alone (RFC 9112 section 6.1).
pub fn is_chunked(headers: &HeaderMap) -> Option<bool> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Some(false) };
    let alone = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    alone.then_some(true)
}

/// Status and size: bodies may hold secrets.
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Received({}, {} bytes)", self.status.as_u16(), self.body.len())
    }
}
