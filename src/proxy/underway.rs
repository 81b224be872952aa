//! What is known of a request under way besides its head: its limits, and who sent it.
//!
//! Under HTTP/1.1 the connection itself knows ([`DoorStream`]). An HTTP/2 connection carries many requests, so
//! each has a [`Stream`] of its own among its head's extensions. Called by both doors.

use std::net::IpAddr;
use std::sync::Arc;

use pingora::proxy::Session;

use super::stream::DoorStream;
use super::watch::Watch;
use crate::base::clock::Clock;

/// One request of an HTTP/2 connection.
#[derive(Debug)]
pub struct Stream {
    /// Its limits.
    pub watch: Arc<Watch>,
    /// Who is connected.
    pub source: Option<IpAddr>,
    /// The least bytes a second of a body.
    pub minimum_rate: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What is known of a request of an HTTP/2 connection; `None` of another.
pub fn stream(session: &Session) -> Option<&Arc<Stream>> {
    session.req_header().extensions.get()
}

/// The limits of the request under way.
pub fn watch(session: &Session) -> Option<&Watch> {
    match session.stream() {
        Some(connection) => DoorStream::below(connection).map(DoorStream::watch),
        None => stream(session).map(|stream| &*stream.watch),
    }
}

/// The limits of the request under way, for who has to hold them beside it.
pub fn shared_watch(session: &Session) -> Option<Arc<Watch>> {
    match session.stream() {
        Some(connection) => DoorStream::below(connection).map(DoorStream::shared_watch),
        None => stream(session).map(|stream| Arc::clone(&stream.watch)),
    }
}

/// Who is connected; `None` on a Unix socket.
pub fn source(session: &Session) -> Option<IpAddr> {
    match session.stream() {
        Some(connection) => DoorStream::below(connection).and_then(DoorStream::source),
        None => stream(session)?.source,
    }
}
