//! What is remembered of one request between Pingora's phases.

use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora::proxy::Session;
use pingora::{Error, ErrorType};

use super::carried::Carried;
use super::kept::Kept;
use super::retry::Again;
use super::stream::DoorStream;
use super::stuck::Guard;
use super::traced::Traced;
use super::{Call, Known, Way};
use crate::activity::Course;
use crate::base::clock::Timestamp;
use crate::outbound::Pass;
use crate::respond::{Answer, Refusal};
use crate::telemetry::trace::TraceContext;

/// What is remembered of one request.
pub struct Context {
    pub(super) id: HeaderValue,
    pub(super) at: Timestamp,
    pub(super) began: Duration,
    pub(super) call: Option<Box<Call>>,
    /// What the policy let through, until it is told what became of it.
    pub(super) pass: Option<Pass>,
    /// `RateLimit-Policy` and `RateLimit` of the answer.
    pub(super) limits: Option<(HeaderValue, HeaderValue)>,
    /// Another try that is due.
    pub(super) again: Option<Again>,
    /// Whether it was sent once more because a kept connection was closed.
    pub(super) closed: bool,
    /// Tries made, the one under way among them; not the one after a kept connection that was closed.
    pub(super) attempts: u32,
    /// How often a service was dialled.
    pub(super) dials: usize,
    /// The idempotency key that the call was given here.
    pub(super) key: Option<HeaderValue>,
    /// The answer when the next try may not go.
    pub(super) refused: Option<Answer>,
    /// Whose call it is, and where it goes unless it is streamed.
    pub(super) known: Known,
    /// How it goes.
    pub(super) course: Course,
    pub(super) tries: usize,
    pub(super) error: Option<&'static Refusal>,
    pub(super) sent: Duration,
    pub(super) service: Option<(Duration, u16)>,
    pub(super) interim: u8,
    /// Whether the token was renewed because the service refused it; it is done once.
    pub(super) renewed: Renewed,
    /// What the caller gets because the service failed.
    pub(super) stale: Option<Box<Answer>>,
    /// Its trace, where traces are on.
    pub(super) traced: Option<Box<Traced>>,
    /// What it carries, where that may be kept.
    pub(super) carried: Option<Box<Carried>>,
    /// Looks after an upload that may get stuck, until its answer begins.
    pub(super) guard: Option<Guard>,
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
            pass: None,
            limits: None,
            again: None,
            closed: false,
            attempts: 1,
            dials: 0,
            key: None,
            refused: None,
            known: Known::default(),
            course: Course::default(),
            tries: 0,
            error: None,
            sent: Duration::ZERO,
            service: None,
            interim: 0,
            renewed: Renewed::No,
            stale: None,
            traced: None,
            carried: None,
            guard: None,
            apart: Kept::Apart,
        }
    }

    /// What the call has to do with what is kept.
    pub(super) fn kept(&mut self) -> &mut Kept {
        self.call.as_deref_mut().map_or(&mut self.apart, |call| &mut call.kept)
    }

    /// What is kept, where it may stand in for an answer that does not come.
    pub(super) fn instead(&mut self) -> Option<Answer> {
        let instead = self.kept().failed()?;
        self.course.cache = Some("stale");
        Some(instead)
    }

    /// Its place in a trace, where traces are on.
    pub(super) fn place(&self) -> Option<TraceContext> {
        self.traced.as_ref().map(|traced| traced.whole.context.clone())
    }

    /// The call, once it is admitted.
    pub(super) fn call(&self) -> pingora::Result<&Call> {
        self.call.as_deref().ok_or_else(|| Error::explain(ErrorType::InternalError, "the call was not admitted"))
    }

    /// When this try must have begun to be answered, where it is a further one: there is one time for all of them.
    pub(super) fn ends(&self) -> Option<Duration> {
        let call = self.call.as_deref().filter(|_| self.attempts > 1)?;
        Some(self.began.saturating_add(call.ready.timeouts.total))
    }

    /// How long the answer to this try may be waited for.
    pub(super) fn patience(&self, now: Duration) -> Duration {
        self.ends().map_or(Duration::MAX, |ends| ends.saturating_sub(now))
    }

    /// Where the call is dialled, once it may go.
    pub(super) fn way(&self) -> pingora::Result<&Way> {
        let way = self.call()?.way.as_ref();
        way.ok_or_else(|| Error::explain(ErrorType::InternalError, "the call has no way"))
    }
}

/// Returns when the caller is gone; never for one that is there, or of which that cannot be known.
pub(super) async fn gone(session: &Session) {
    match session.stream().and_then(DoorStream::below) {
        Some(stream) => stream.gone().await,
        None => std::future::pending().await,
    }
}

/// What comes of some work, unless the caller goes away before.
pub(super) async fn unless_gone<T>(session: &Session, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = gone(session) => None,
    }
}

/// Whether the caller asks for a WebSocket.
pub(super) fn is_websocket(session: &Session) -> bool {
    session.req_header().headers.contains_key(header::UPGRADE)
}

/// Whether the caller speaks HTTP/1.0.
pub(super) fn is_http_1_0(session: &Session) -> bool {
    session.req_header().version == Version::HTTP_10
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
