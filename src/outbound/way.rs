//! A call that is filled in, on its way: in its turn under the policy, sent, and on to where its answer leads.
//!
//! To limits, breakers and metrics each redirect that is followed is a call of its own, so that a service which
//! leads on is called no more often than it allows. Called by [`super::call`] and, for answers that are brought up to
//! date behind a caller's back, by [`super::kept`].

use std::sync::Arc;
use std::time::Duration;

use super::Parts;
use super::limit::{Ask, Lane};
use super::policy::{Held, Pass};
use super::prepare::Prepared;
use super::record;
use crate::net::{Failure, Follow, Outgoing, Reason, Received, Sent, redirected};

/// What came of a call, and how long the service asks to wait.
pub(super) type Answered = (Result<Received, Failure>, Option<Duration>);

/// What holds for a call and for all that it leads on to.
pub(super) struct Way<'a> {
    pub parts: &'a Parts,
    pub prepared: &'a Prepared,
    pub endpoint: Option<&'a Arc<str>>,
    /// The application that asks, where one does.
    pub caller: Option<&'a Arc<str>>,
    /// When its time is over, by the monotonic clock.
    pub ends: Duration,
    /// Where it goes on to; nowhere where a redirect is an answer like any other.
    pub follow: Option<Follow>,
}

impl Way<'_> {
    /// Waits for the call's turn; what is left of its time is what it has then.
    pub async fn admit(&self, mut outgoing: Outgoing) -> Result<(Pass, Outgoing), Held> {
        let prepared = self.prepared;
        let elsewhere = (outgoing.origin != prepared.base.origin).then(|| Arc::from(outgoing.origin.to_string()));
        let ask = Ask {
            connection: &prepared.connection.id,
            caller: self.caller,
            endpoint: self.endpoint,
            method: &outgoing.method,
            path: outgoing.path.strip_prefix(&prepared.base.path).unwrap_or(&outgoing.path),
            place: elsewhere.as_ref().unwrap_or(&prepared.place),
            until: Some(self.ends),
            lane: Lane::Turn,
        };
        let pass = prepared.policy.admit(ask, prepared.waiting_calls()).await?;
        outgoing.timeouts.total = self.ends.saturating_sub(self.parts.clock.monotonic());
        Ok((pass, outgoing))
    }

    /// Sends a call that may go, tells the policy what came of it, and goes on where its answer leads. Adds to `waited`
    /// what the calls that it leads on to wait for their turns.
    pub async fn send(&self, mut pass: Pass, mut outgoing: Outgoing, waited: &mut Duration) -> Answered {
        let mut hops = 0;
        loop {
            let trail = self.follow.as_ref().map(|follow| (follow, outgoing.clone()));
            let (sent, asked) = self.send_once(pass, outgoing, hops > 0).await;
            let sent = match sent {
                Ok(received) => Ok(Received { led: hops > 0, ..received }),
                Err(failure) if hops > 0 => Err(Failure { sent: Sent::Maybe, ..failure }),
                Err(failure) => Err(failure),
            };
            let next = trail
                .zip(sent.as_ref().ok())
                .and_then(|((follow, trail), received)| Some((redirected(&trail, follow, received)?, follow.hops)));
            let Some((next, most)) = next else { return (sent, asked) };
            let heard = sent.as_ref().map_or(0, |received| received.body.len() as u64);
            let origin = next.origin.to_string();
            if hops == most {
                return (Err(self.goes_no_further(origin, Reason::Redirects(hops), heard)), None);
            }
            hops += 1;
            (pass, outgoing) = match self.admit(next).await {
                Ok(admitted) => admitted,
                Err(held) => {
                    *waited = waited.saturating_add(held.waited());
                    let reason = Reason::Held { refusal: held.refusal(), why: held.to_string() };
                    return (Err(self.goes_no_further(origin, reason, heard)), None);
                }
            };
            *waited = waited.saturating_add(pass.waited());
        }
    }

    /// Why a call does not go on to where it was led. What was sent before may have done its work, and was answered with
    /// a body of `heard` bytes.
    fn goes_no_further(&self, origin: String, reason: Reason, heard: u64) -> Failure {
        let labels = [&*self.prepared.connection.integration, reason.word()];
        self.parts.metrics.upstream_errors.with_label_values(&labels).inc();
        Failure { origin, reason, sent: Sent::Maybe, heard }
    }

    /// `led` says that a redirect led here.
    async fn send_once(&self, pass: Pass, outgoing: Outgoing, led: bool) -> Answered {
        let began = self.parts.clock.monotonic();
        let is_elsewhere = led && outgoing.origin != self.prepared.base.origin;
        let sent = Box::pin(self.parts.clients.send(outgoing)).await;
        let asked = match &sent {
            Ok(received) if is_elsewhere => pass.read_elsewhere(received),
            Ok(received) => pass.read(received, self.endpoint.map(|id| &**id)),
            Err(failure) => {
                pass.failed(failure);
                None
            }
        };
        record::tried(self.parts, &self.prepared.connection.integration, (began, &sent));
        (sent, asked)
    }
}
