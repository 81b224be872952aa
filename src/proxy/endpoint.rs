//! Endpoints by name: `POST /{integration}/-/{endpoint}` with a JSON object of inputs.
//!
//! The call itself goes through the same stages as every call of our own ([`Outbound::run`]). This file
//! reads the inputs and gives the result.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::activity::Asker;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Endpoint;
use crate::outbound::policy::{RATE_LIMIT, RATE_LIMIT_POLICY};
use crate::outbound::{Call, Outbound, OutboundError};
use crate::queue::{Again, Answered, Report};
use crate::request::Outcome;
use crate::respond::{Answer, Refusal};

/// The most bytes that the inputs of an endpoint may have.
pub const MAX_INPUT: u64 = 1 << 20;

/// A call of an endpoint by name, admitted.
#[derive(Debug, Clone)]
pub struct NamedCall {
    pub(super) generation: Arc<Generation>,
    pub(super) integration: Arc<Integration>,
    pub(super) connection: Arc<str>,
    pub(super) caller: Arc<str>,
    pub(super) endpoint: Arc<str>,
}

/// Finds an endpoint that may be called by name.
///
/// # Errors
/// 404 for an endpoint that there is not, 405 for a method other than POST.
pub fn find<'a>(integration: &'a Integration, endpoint: &str, method: &Method) -> Result<&'a Endpoint, Answer> {
    let api = integration.api.as_ref().ok_or_else(|| super::ready::no_api(integration))?;
    let found = api
        .endpoint(endpoint)
        .ok_or_else(|| Refusal::NotFound.answer(&format!("`{}` has no endpoint `{endpoint}`", integration.id)))?;
    if *method != Method::POST {
        return Err(Refusal::MethodNotAllowed.answer("endpoints are called by POST with a JSON object of inputs"));
    }
    Ok(found)
}

/// Runs an admitted call with the request's body.
pub async fn run(outbound: &Outbound, named: &NamedCall, body: &Bytes) -> Answer {
    let made = make(outbound, named, (body, None), Asker::Caller(Arc::clone(&named.caller))).await;
    match made {
        Ok(outcome) => {
            let limits = [RATE_LIMIT_POLICY, RATE_LIMIT].into_iter();
            let limits = limits.filter_map(|name| outcome.headers.get(&name).map(|value| (name, value.clone())));
            limits.fold(Answer::json(StatusCode::OK, &outcome.result), |answer, (name, value)| answer.with(name, value))
        }
        Err(Unmade::Refused(refused)) => refused,
        Err(Unmade::Tried(error)) => error.answer(),
    }
}

/// Carries out a durable call of an endpoint; the service knows a repeated one by `key`.
pub async fn carry(outbound: &Outbound, named: &NamedCall, (body, key): (&Bytes, &str), delivery: String) -> Report {
    match make(outbound, named, (body, Some(key)), Asker::Delivery(delivery)).await {
        Ok(outcome) => {
            let Answer { status, headers, body, .. } = Answer::json(outcome.status, &outcome.result);
            Report::done(Some(status.as_u16())).with_answer(Some(Answered { status, headers, body }))
        }
        Err(Unmade::Refused(_)) => Report::failed(None, "the inputs do not fit the endpoint", Again::Never),
        Err(Unmade::Tried(error)) => Report::from(&error),
    }
}

/// A call by name that came to no result.
enum Unmade {
    Refused(Answer),
    Tried(OutboundError),
}

async fn make(
    outbound: &Outbound,
    named: &NamedCall,
    (body, key): (&Bytes, Option<&str>),
    asker: Asker,
) -> Result<Outcome, Unmade> {
    let input = inputs(body).map_err(Unmade::Refused)?;
    let endpoint = find(&named.integration, &named.endpoint, &Method::POST).map_err(Unmade::Refused)?;
    let call = Call {
        generation: &named.generation,
        integration: &named.integration,
        connection: &named.connection,
        request: &endpoint.request,
        endpoint: Some(Arc::clone(&named.endpoint)),
        input: &input,
        asker,
        idempotency_key: key,
        deadline: None,
        setting: None,
    };
    Box::pin(outbound.run(call)).await.map_err(Unmade::Tried)
}

/// The inputs that a body holds; without one there are none.
///
/// # Errors
/// 400 when it is no JSON object.
pub fn inputs(body: &Bytes) -> Result<Map<String, Value>, Answer> {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(input)) => Ok(input),
        Ok(_) => Err(Refusal::InvalidInput.answer("the inputs must be a JSON object")),
        Err(_) if body.is_empty() => Ok(Map::new()),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(Refusal::InvalidInput.answer(&format!("the inputs are not JSON: fault at {line}:{column}")))
        }
    }
}
