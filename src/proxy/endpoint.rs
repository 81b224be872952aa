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
use crate::outbound::{Call, Outbound};
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
    let input = match inputs(body) {
        Ok(input) => input,
        Err(refused) => return refused,
    };
    let endpoint = match find(&named.integration, &named.endpoint, &Method::POST) {
        Ok(endpoint) => endpoint,
        Err(refused) => return refused,
    };
    let call = Call {
        generation: &named.generation,
        integration: &named.integration,
        connection: &named.connection,
        request: &endpoint.request,
        endpoint: Some(Arc::clone(&named.endpoint)),
        input: &input,
        asker: Asker::Caller(Arc::clone(&named.caller)),
        idempotency_key: None,
        deadline: None,
    };
    match Box::pin(outbound.run(call)).await {
        Ok(outcome) => Answer::json(StatusCode::OK, &outcome.result),
        Err(error) => error.answer(),
    }
}

fn inputs(body: &Bytes) -> Result<Map<String, Value>, Answer> {
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
