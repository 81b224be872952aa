//! The tries of the gateway's own calls: their time, their turn under the policy, and what follows a failed one.

use std::sync::Arc;
use std::time::Duration;

use super::Outbound;
use super::call::{Call, id};
use super::error::{OutboundError, Why};
use super::limit::{Ask, Lane};
use super::policy::Pass;
use super::prepare::Prepared;
use super::retry::{Between, Fault, Spent, fresh_key, key_header};
use super::underway::Underway;
use crate::activity::Asker;
use crate::definition::plan::policy::Retry;
use crate::net::{Outgoing, Sent};
use crate::request::{AnswerError, Outcome};

impl Outbound {
    /// Waits for the call's turn; what is left of its time is what it has then.
    pub(super) async fn admit(
        &self,
        underway: &Underway<'_>,
        mut outgoing: Outgoing,
        ends: Duration,
    ) -> Result<(Pass, Outgoing), OutboundError> {
        let (call, prepared) = (underway.call, &underway.prepared);
        let elsewhere = (outgoing.origin != prepared.base.origin).then(|| Arc::from(outgoing.origin.to_string()));
        let caller = match &call.asker {
            Asker::Caller(caller) => Some(caller),
            _ => None,
        };
        let ask = Ask {
            connection: &prepared.connection.id,
            caller,
            endpoint: call.endpoint.as_ref(),
            method: &outgoing.method,
            path: outgoing.path.strip_prefix(&prepared.base.path).unwrap_or(&outgoing.path),
            place: elsewhere.as_ref().unwrap_or(&prepared.place),
            until: Some(ends),
            lane: Lane::Turn,
        };
        let admitted = prepared.policy.admit(ask, prepared.waiting_calls()).await;
        let pass = admitted.map_err(|reason| OutboundError::Held { integration: id(call), reason })?;
        outgoing.timeouts.total = ends.saturating_sub(self.parts.clock.monotonic());
        Ok((pass, outgoing))
    }

    /// Whether a call is tried again, and after what pause.
    pub(super) fn again(
        &self,
        call: &Call<'_>,
        prepared: &Prepared,
        result: &Result<Outcome, OutboundError>,
        (tries, ends): (u32, Duration),
    ) -> Option<(Duration, Spent)> {
        let plan = retries(call)?;
        let Err(OutboundError::Tried(failed)) = result else { return None };
        let fault = match &failed.reason {
            Why::Failure(failure) if !failure.passing() => return None,
            Why::Failure(failure) if failure.sent == Sent::Nothing => Fault::Unsent,
            Why::Failure(_) => Fault::Broken,
            Why::Answer(AnswerError::Refused { status, retry_after, .. }) => Fault::Status(*status, *retry_after),
            Why::Answer(AnswerError::Invalid { .. }) => return None,
        };
        let left = ends.saturating_sub(self.parts.clock.monotonic());
        let between = Between { plan, tries, repeatable: failed.repeatable, left };
        prepared.policy.again(&between, fault, &*self.parts.random)
    }

    /// A key for a call that is tried again and was given none: the same at each try.
    pub(super) fn own_key(&self, call: &Call<'_>) -> Option<String> {
        let needs = call.idempotency_key.is_none() && key_header(retries(call), &call.request.method).is_some();
        let key = needs.then(|| fresh_key(&*self.parts.random).ok()).flatten()?;
        key.to_str().ok().map(str::to_owned)
    }
}

/// How long a call may take in all, its pauses and further tries among it.
pub(super) fn whole_time(call: &Call<'_>) -> Duration {
    let of_api = call.integration.api.as_ref().map_or(Duration::MAX, |api| api.timeouts.total);
    call.request.timeout.unwrap_or(of_api).min(call.deadline.unwrap_or(Duration::MAX))
}

/// When a call is tried again. What the queue asks for has the queue's own schedule, and two schedules would
/// multiply; a test is to tell how one call fares.
pub(super) fn retries<'a>(call: &Call<'a>) -> Option<&'a Retry> {
    match call.asker {
        Asker::Caller(_) => call.integration.api.as_ref()?.retry(call.endpoint.as_deref()),
        Asker::Delivery(_) | Asker::Connect | Asker::Test | Asker::Webhook | Asker::SignIn | Asker::Event(_) => None,
    }
}

/// What the service asks for is what the definition reads it from, where it says.
pub(super) fn note_wish(result: &mut Result<Outcome, OutboundError>, asked: Option<Duration>) {
    if let Err(OutboundError::Tried(tried)) = result
        && let Why::Answer(AnswerError::Refused { retry_after, .. }) = &mut tried.reason
    {
        *retry_after = asked;
    }
}
