//! What is remembered of one request between Pingora's phases.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, header};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::kept::Kept;
use super::{Call, Subject};
use crate::base::clock::Timestamp;
use crate::respond::{Answer, Refusal};

/// What is remembered of one request.
pub struct Context {
    pub(super) id: HeaderValue,
    pub(super) at: Timestamp,
    pub(super) began: Duration,
    pub(super) call: Option<Box<Call>>,
    /// Where a call went that is not streamed: origin and path.
    pub(super) sent_to: Option<(Arc<str>, String)>,
    pub(super) subject: Option<Subject>,
    pub(super) tries: usize,
    pub(super) error: Option<&'static Refusal>,
    pub(super) sent: Duration,
    pub(super) service: Option<(Duration, u16)>,
    pub(super) interim: u8,
    /// Whether the token was renewed because the service refused it; it is done once.
    pub(super) renewed: Renewed,
    /// What the caller gets because the service failed.
    pub(super) stale: Option<Box<Answer>>,
    /// Stands in where no call is under way.
    apart: Kept,
}

/// Where a call stands that was refused for its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewed {
    /// It was not, or not yet.
    No,
    /// It has a new token, and its next try is not begun.
    Again,
    /// Its next try is the last.
    Done,
}

impl Context {
    /// That of a request which begins now, by both clocks; `number` becomes its id.
    pub(super) fn of(number: u64, (at, began): (Timestamp, Duration)) -> Self {
        Self {
            id: id_of(number),
            at,
            began,
            call: None,
            sent_to: None,
            subject: None,
            tries: 0,
            error: None,
            sent: Duration::ZERO,
            service: None,
            interim: 0,
            renewed: Renewed::No,
            stale: None,
            apart: Kept::Apart,
        }
    }

    /// What the call has to do with what is kept.
    pub(super) fn kept(&mut self) -> &mut Kept {
        self.call.as_deref_mut().map_or(&mut self.apart, |call| &mut call.kept)
    }

    /// The call, once it is admitted.
    pub(super) fn call(&self) -> pingora::Result<&Call> {
        self.call.as_deref().ok_or_else(|| Error::explain(ErrorType::InternalError, "the call was not admitted"))
    }
}

/// Whether the caller asks for a WebSocket.
pub(super) fn is_websocket(session: &Session) -> bool {
    session.req_header().headers.contains_key(header::UPGRADE)
}

/// A request's number in sixteen hexadecimal digits.
fn id_of(number: u64) -> HeaderValue {
    let mut digits = [0_u8; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
    }
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("0"))
}

fn hex_digit(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}
