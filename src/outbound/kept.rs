//! The cache's place in the gateway's own calls: endpoints by name, where a caller runs them.
//!
//! Actions, tests and syncs read what is so now, and are answered by the service alone; whoever changes
//! something ends what was kept of it.

use std::sync::Arc;

use http::{Method, header};

use super::Outbound;
use super::cache::{Asked, Key, Look, Turn, is_unsafe, of_answer};
use super::error::OutboundError;
use super::record::{self, Journey};
use super::underway::Underway;
use super::way::Way;
use crate::activity::Asker;
use crate::definition::plan::request::CredentialUse;
use crate::net::{Failure, Outgoing, Received};

/// What is made of a call before it is sent.
pub(super) enum Looked {
    /// It is answered from what is kept; and how.
    Given(Received, &'static str),
    /// It is sent.
    Sent(Kept),
}

/// What becomes of the answer.
pub(super) enum Kept {
    /// Nothing.
    Apart,
    /// It may be kept, or renews what is.
    Turn(Box<Turn>),
    /// It may end what is kept.
    Changes(Key),
}

impl Kept {
    /// What is kept, where it may stand in for an answer that does not come.
    pub fn instead(self) -> Option<Received> {
        match self {
            Self::Turn(mut turn) => turn.failed().map(of_answer),
            Self::Apart | Self::Changes(_) => None,
        }
    }
}

impl Outbound {
    /// Looks a call up, and makes it ask whether what is kept still holds.
    pub(super) async fn look(&self, underway: &Underway<'_>, outgoing: &mut Outgoing) -> Result<Looked, OutboundError> {
        let (call, prepared) = (underway.call, &underway.prepared);
        if !underway.api.caches() {
            return Ok(Looked::Sent(Kept::Apart));
        }
        let target =
            outgoing.query.as_ref().map_or_else(|| outgoing.path.clone(), |q| format!("{}?{q}", outgoing.path));
        let place = Arc::from(outgoing.origin.to_string());
        let key = Key::new(call.integration, &prepared.connection, &place, target);
        if is_unsafe(&outgoing.method) {
            return Ok(Looked::Sent(Kept::Changes(key)));
        }
        // What another token, or nobody, is answered with may differ, and keys know nothing of credentials.
        if call.request.credential != CredentialUse::Token(None) || call.request.basic.is_some() {
            return Ok(Looked::Sent(Kept::Apart));
        }
        let endpoint = call.endpoint.as_deref().filter(|_| matches!(call.asker, Asker::Caller(_)));
        let endpoint = endpoint.and_then(|id| underway.api.endpoint(id));
        let rule = endpoint.and_then(|endpoint| endpoint.cache.or(underway.api.cache));
        let Some(rule) = rule.filter(|_| outgoing.method == Method::GET && outgoing.body.is_empty()) else {
            return Ok(Looked::Sent(Kept::Apart));
        };
        let mut headers = outgoing.headers.clone();
        headers.remove(header::AUTHORIZATION);
        if let Some((name, _)) = prepared.credential.header() {
            headers.remove(name);
        }
        let patience = outgoing.timeouts.connect.saturating_add(outgoing.timeouts.response);
        let most = call.generation.gateway.limits.cache_bytes;
        let asked = Asked { rule, key, method: &Method::GET, headers: &headers, patience, most };
        match self.cache.look(asked).await {
            Look::Ask(turn) => {
                turn.ask(&mut outgoing.headers);
                Ok(Looked::Sent(Kept::Turn(turn)))
            }
            Look::Given(given) => {
                if let Some(turn) = given.refresh {
                    let mut again = outgoing.clone();
                    turn.ask(&mut again.headers);
                    self.refresh(
                        turn,
                        underway.sign(again, self.signing_moment(&underway.prepared.connection))?,
                        underway,
                    );
                }
                let given_answer = of_answer(given.answer);
                // The proxy door keeps redirects under the same address; here they are followed, by calls that have
                // addresses of their own.
                if given_answer.status.is_redirection() && underway.follow().is_some() {
                    return Ok(Looked::Sent(Kept::Apart));
                }
                Ok(Looked::Given(given_answer, given.verdict))
            }
        }
    }

    /// Brings what is kept up to date, behind the caller's back, when it is the refresh's turn.
    fn refresh(&self, turn: Box<Turn>, outgoing: Outgoing, underway: &Underway<'_>) {
        let (parts, prepared, follow) = (self.parts.clone(), Arc::clone(&underway.prepared), underway.follow());
        let (generation, endpoint) = (underway.call.generation.number, underway.call.endpoint.clone());
        let ends = self.parts.clock.monotonic().saturating_add(outgoing.timeouts.total);
        tokio::spawn(async move {
            let (mut journey, method) = (Journey::begin(&parts), outgoing.method.clone());
            journey.leads(&outgoing);
            let way =
                Way { parts: &parts, prepared: &prepared, endpoint: endpoint.as_ref(), caller: None, ends, follow };
            let sent = match way.admit(outgoing).await {
                Ok((pass, outgoing)) => {
                    journey.tries(pass.waited());
                    let (sent, _) = Box::pin(way.send(pass, outgoing, &mut journey.course.waited)).await;
                    journey.comes_to(&sent);
                    sent.map_err(|failure| failure.refusal())
                }
                Err(held) => {
                    journey.waits(held.waited());
                    Err(held.refusal())
                }
            };
            record::refreshed(&parts, (&prepared.connection, generation), (method, endpoint.clone()), journey, &sent);
            // An answer that did not come leaves what is kept as it is; the next one who asks tries again.
            if let Ok(received) = sent
                && !received.led
            {
                drop(turn.settle(received));
            }
        });
    }

    /// What a call's answer comes to.
    pub(super) fn settle(
        &self,
        kept: Kept,
        sent: Result<Received, Failure>,
        verdict: &mut Option<&'static str>,
    ) -> Result<Received, Failure> {
        match (kept, sent) {
            // The answer of another address is not kept as one of this.
            (Kept::Turn(_), Ok(received)) if received.led => Ok(received),
            (Kept::Turn(turn), Ok(received)) => {
                let (received, how) = turn.settle(received);
                *verdict = Some(how);
                Ok(received)
            }
            (kept @ Kept::Turn(_), Err(failure)) => {
                let instead = kept.instead().ok_or(failure)?;
                *verdict = Some("stale");
                Ok(instead)
            }
            (Kept::Changes(key), Ok(received)) => {
                self.cache.changed(&key, received.status, &received.headers);
                Ok(received)
            }
            (_, sent) => sent,
        }
    }
}
