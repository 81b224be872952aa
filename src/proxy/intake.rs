//! Reads a request's whole body through Pingora: within a cap, counted, and at a bearable pace.
//!
//! For the few places that need all of it: webhooks, endpoints by name, transforms. Everything else
//! streams. Called by both doors.

use bytes::{Bytes, BytesMut};
use http::header;
use pingora::proxy::Session;

use super::room::Part;
use super::underway;
use super::watch::{Overdue, Watch};
use crate::respond::{Answer, Refusal};

/// The most that is set aside for a body before any of it has come.
const FIRST: usize = 64 << 10;
/// Pieces a body may come in besides one for each [`PIECE`] bytes: thousands of one-byte chunks cost more
/// than they carry.
const PIECES: usize = 256;
/// See [`PIECES`].
const PIECE: usize = 32;

/// The declared length of the body; `None` when it is chunked.
pub fn declared_length(session: &Session) -> Option<u64> {
    let fields = &session.req_header().headers;
    match fields.get(header::CONTENT_LENGTH) {
        Some(value) => value.to_str().ok().and_then(|digits| digits.parse().ok()),
        None => (!fields.contains_key(header::TRANSFER_ENCODING)).then_some(0),
    }
}

/// The whole body, at most `max` bytes of it, within what `part` may take. A client that waits for `100 Continue` gets it first.
///
/// # Errors
/// The answer to give instead: 413, 408, 400 or 503, each of which closes the connection.
pub async fn whole_body(session: &mut Session, max: u64, part: Part) -> Result<Bytes, Answer> {
    // A session of HTTP/2 is one of ours, whose head says HTTP/1.1 (see `server::streams`).
    let declared = declared_length(session);
    let mut part = part.among_others(session.is_custom());
    if declared.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    if session.req_header().headers.contains_key(header::EXPECT) && declared != Some(0) {
        session.write_continue_response().await.map_err(|_| gone())?;
    }
    let mut body = Gathered { limit: usize::try_from(max).unwrap_or(usize::MAX), ..Gathered::default() };
    loop {
        let piece = tokio::select! {
            biased;
            refused = part.given_up() => return Err(refused),
            piece = session.read_request_body() => piece,
        };
        match piece {
            Ok(Some(piece)) => {
                body.add(piece, declared, max)?;
                part.reach(body.length(), body.held())?;
            }
            Ok(None) => {
                if let Some(watch) = underway::watch(session) {
                    watch.body_ended();
                }
                return Ok(part.hold(body.finish()));
            }
            Err(_) => return Err(broken_off(session)),
        }
    }
}

#[derive(Default)]
struct Gathered {
    first: Bytes,
    rest: BytesMut,
    pieces: usize,
    limit: usize,
}

impl Gathered {
    fn length(&self) -> usize {
        self.first.len() + self.rest.len()
    }

    /// The memory it takes.
    fn held(&self) -> usize {
        self.first.len() + self.rest.capacity()
    }

    fn add(&mut self, piece: Bytes, declared: Option<u64>, max: u64) -> Result<(), Answer> {
        let length = self.length() + piece.len();
        if length > self.limit {
            return Err(too_large(max));
        }
        self.pieces += 1;
        if self.pieces > PIECES + length / PIECE {
            return Err(Refusal::MalformedRequest.answer("the body comes in too many pieces").closing());
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = piece;
            return Ok(());
        }
        if self.rest.capacity() < length {
            // What has come is doubled, and no more set aside than is declared.
            let declared = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(self.limit);
            let mut grown = BytesMut::with_capacity(FIRST.max(2 * length).min(declared).max(length));
            grown.extend_from_slice(&self.first);
            grown.extend_from_slice(&self.rest);
            (self.first, self.rest) = (Bytes::new(), grown);
        }
        self.rest.extend_from_slice(&piece);
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

fn too_large(max: u64) -> Answer {
    Refusal::BodyTooLarge.answer(&format!("the body may have at most {max} bytes")).closing()
}

fn gone() -> Answer {
    Refusal::MalformedRequest.answer("the connection broke off").closing()
}

fn broken_off(session: &Session) -> Answer {
    if underway::watch(session).and_then(Watch::overdue) == Some(Overdue::ClientSending) {
        return Refusal::RequestTimeout.answer("the body arrived too slowly").closing();
    }
    Refusal::MalformedRequest.answer("the body is not well-formed, or broke off").closing()
}
