//! What is known of a request under way besides its head: its limits, and who sent it.
//!
//! Under HTTP/1.1 the connection itself knows ([`DoorStream`]). An HTTP/2 connection carries many requests, so
//! each has a [`Stream`] of its own among its head's extensions. Called by both doors.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::proxy::Session;

use super::stream::DoorStream;
use super::watch::{Overdue, Pace, Watch};
use crate::base::clock::Clock;

/// How often a wait is looked at.
const TICK: Duration = Duration::from_millis(250);

/// One request of an HTTP/2 connection.
#[derive(Debug)]
pub struct Stream {
    /// Its limits.
    pub watch: Watch,
    /// Who is connected.
    pub source: Option<IpAddr>,
    /// The least bytes a second of a body.
    pub minimum_rate: u64,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

fn stream(session: &Session) -> Option<&Arc<Stream>> {
    session.req_header().extensions.get()
}

/// The limits of the request under way.
pub fn watch(session: &Session) -> Option<&Watch> {
    match session.stream() {
        Some(connection) => DoorStream::below(connection).map(DoorStream::watch),
        None => stream(session).map(|stream| &stream.watch),
    }
}

/// Who is connected; `None` on a Unix socket.
pub fn source(session: &Session) -> Option<IpAddr> {
    match session.stream() {
        Some(connection) => DoorStream::below(connection).and_then(DoorStream::source),
        None => stream(session)?.source,
    }
}

/// The next piece of a request's body. Under HTTP/2, where no connection keeps the pace of one body, it is
/// kept here.
///
/// # Errors
/// When the client is gone or too slow; then [`Watch::overdue`] says so.
pub async fn next_piece(session: &mut Session, pace: &mut Pace) -> pingora::Result<Option<Bytes>> {
    let Some(stream) = stream(session).cloned() else { return session.read_request_body().await };
    let reading = session.read_request_body();
    tokio::pin!(reading);
    loop {
        tokio::select! {
            piece = reading.as_mut() => {
                let length = piece.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
                pace.moved(length, || stream.clock.monotonic());
                return piece;
            }
            () = tokio::time::sleep(TICK) => {
                if pace.waits(stream.clock.monotonic(), stream.minimum_rate) {
                    stream.watch.end(Overdue::ClientSending);
                    return pingora::Error::e_explain(pingora::ErrorType::ReadTimedout, "the body is too slow");
                }
            }
        }
    }
}
