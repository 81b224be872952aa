//! `call`: an endpoint of any integration, by its one policy for calls.

use serde_json::Value;

use crate::activity::Asker;
use crate::definition::plan::rule::What;
use crate::outbound::{Call, Outbound, call};
use crate::queue::{Again, Report, Task};

/// Runs the endpoint once.
pub async fn run(outbound: &Outbound, task: &Task, what: &What) -> Report {
    let What::Call { integration, endpoint, connection, input } = what else {
        return Report::failed(None, "not a call", Again::Never);
    };
    let Some(target) = task.generation.integration(integration) else {
        let error = format!("the integration `{integration}` that is called is not loaded");
        return Report::failed(None, error, Again::Scheduled);
    };
    let Some(found) = target.api.as_ref().and_then(|api| api.endpoint(endpoint)) else {
        return Report::failed(None, format!("`{integration}` has no endpoint `{endpoint}`"), Again::Never);
    };
    let input = match input.render(&task.seen.context) {
        Ok(Value::Object(input)) => input,
        Ok(_) => return Report::failed(None, "`input` is not a map", Again::Never),
        Err(error) => {
            return Report::failed(
                None,
                format!("`input` cannot be made: {}", task.seen.explain(&error)),
                Again::Never,
            );
        }
    };
    let key = task.delivery.idempotency_key();
    let call = Call {
        generation: &task.generation,
        integration: target,
        connection,
        request: &found.request,
        endpoint: Some(found.id.clone()),
        input: &input,
        asker: Asker::Delivery(task.delivery.to_string()),
        caller: None,
        idempotency_key: Some(&key),
        deadline: None,
        setting: None,
    };
    match outbound.run(call).await {
        Ok(outcome) => Report::done(Some(outcome.status.as_u16())),
        Err(error) => Report::from(&error),
    }
}

/// Whether the call may be made again when nobody knows whether it was.
pub fn repeats_safely(task: &Task, what: &What) -> bool {
    let What::Call { integration, endpoint, .. } = what else { return true };
    let api = task.generation.integration(integration).and_then(|target| target.api.as_ref());
    // What is not there is not called, so nothing can be done twice.
    api.and_then(|api| Some((api.endpoint(endpoint)?, api)))
        .is_none_or(|(endpoint, api)| call::repeats_safely(&endpoint.request, api.retry(Some(&endpoint.id)), true))
}
