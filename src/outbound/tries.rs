//! The tries of the gateway's own calls: their time, and what follows a failed one.

use std::time::Duration;

use super::Outbound;
use super::call::Call;
use super::error::{OutboundError, Why};
use super::prepare::Prepared;
use super::retry::{Between, Fault, Spent, fresh_key, key_header};
use crate::activity::Asker;
use crate::definition::plan::policy::Retry;
use crate::net::Sent;
use crate::request::{AnswerError, Outcome};

impl Outbound {
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
        Asker::Delivery(_)
        | Asker::Connect
        | Asker::Test
        | Asker::Webhook
        | Asker::SignIn
        | Asker::Cache
        | Asker::Event(_) => None,
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
