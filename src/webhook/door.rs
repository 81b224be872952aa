//! What the public door and the receiver of webhooks agree on.
//!
//! The door owns sockets, framing, time limits and the reading of bodies; the receiver owns what a
//! webhook means. Between them stand two calls: [`Receive::admit`] sees the head alone, so that cheap
//! refusals come before a byte of the body is read, and [`Receive::receive`] gets the whole body and
//! gives the answer. Called by `server`; implemented here in `webhook`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::base::secret::Secret;
use crate::connection::endpoints::Endpoint;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::respond::Answer;

/// The head of a request to the public door. Framing has been checked: there is one `Host`, and one way
/// to read the body's length.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The integration that the path names; not yet known to exist.
    pub integration: String,
    /// What the path has after the integration, where it has something: the token of a managed endpoint.
    pub token: Option<Arc<Secret>>,
    /// The query string without the question mark; empty when there is none.
    pub query: String,
    /// The path and query exactly as they were sent.
    pub target: String,
    /// The headers, every value of each.
    pub headers: Arc<HeaderMap>,
    /// Who is connected; `None` on a Unix socket.
    pub source: Option<IpAddr>,
    /// What the body's length is, where the head says.
    pub content_length: Option<u64>,
}

/// A request whose body is worth reading.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The generation the request belongs to, to its end.
    pub generation: Arc<Generation>,
    /// The integration it is for.
    pub integration: Arc<Integration>,
    /// The managed endpoint it came to, where it was one.
    pub endpoint: Option<Arc<Endpoint>>,
    /// The most bytes its body may have; the door refuses a longer one with 413.
    pub max_body: u64,
    /// When it was admitted, by the monotonic clock; from here the acknowledgement is timed.
    pub admitted_at: Duration,
}

/// Takes webhooks in.
#[async_trait]
pub trait Receive: Send + Sync + 'static {
    /// Decides from the head alone whether the body is worth reading.
    ///
    /// # Errors
    /// The answer to give instead.
    async fn admit(&self, head: &RequestHead) -> Result<Admission, Answer>;

    /// Takes the whole request and answers it. A success means that the event is durable.
    async fn receive(&self, admission: Admission, head: RequestHead, body: Bytes) -> Answer;
}
