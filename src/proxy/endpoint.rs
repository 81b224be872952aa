//! Endpoints by name: `POST /{integration}/-/{endpoint}` with a JSON object of inputs.
//!
//! The call itself goes through the same stages as every call of our own ([`Outbound::run`]). This file
//! reads the inputs and gives the result.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::retry::has_key;
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
    /// The caller's own idempotency key, where the service is told such.
    pub(super) key: Option<String>,
}

/// The caller's own key, by which a service that is told one knows a call that is made again.
pub fn own_key(headers: &HeaderMap, integration: &Integration, endpoint: &str) -> Option<String> {
    let plan = integration.api.as_ref()?.retry(Some(endpoint));
    let name = plan?.idempotency_key.as_ref().filter(|name| has_key(headers, name))?;
    headers.get(name)?.to_str().ok().map(str::to_owned)
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
    let key = named.key.as_deref();
    let made = make(outbound, named, (body, key), Asker::Caller(Arc::clone(&named.caller))).await;
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
    let key = named.key.as_deref().unwrap_or(key);
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
        caller: Some(&named.caller),
        idempotency_key: key,
        deadline: None,
        setting: None,
    };
    Box::pin(outbound.run(call)).await.map_err(Unmade::Tried)
}

/// The inputs that a body holds; without one there are none.
///
/// # Errors
/// 400 when it is no JSON object, or one input stands twice: of two values, another reader might take the other one.
pub fn inputs(body: &Bytes) -> Result<Map<String, Value>, Answer> {
    match serde_json::from_slice::<Inputs>(body) {
        Ok(Inputs { map, repeated: None }) => Ok(map),
        Ok(Inputs { repeated: Some(name), .. }) => {
            Err(Refusal::InvalidInput.answer(&format!("the input `{name}` stands twice")))
        }
        Err(_) if body.is_empty() => Ok(Map::new()),
        Err(error) if error.is_data() => Err(Refusal::InvalidInput.answer("the inputs must be a JSON object")),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(Refusal::InvalidInput.answer(&format!("the inputs are not JSON: fault at {line}:{column}")))
        }
    }
}

/// A JSON object, and a name that stands twice in it.
struct Inputs {
    map: Map<String, Value>,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Read)
    }
}

/// Reads [`Inputs`].
struct Read;

impl<'de> Visitor<'de> for Read {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Inputs, A::Error> {
        let mut read = Inputs { map: Map::new(), repeated: None };
        while let Some((name, value)) = access.next_entry::<String, Value>()? {
            if read.map.contains_key(&name) {
                read.repeated = Some(name.clone());
            }
            read.map.insert(name, value);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_an_object_in_which_no_name_stands_twice() {
        let read = |text: &'static str| inputs(&Bytes::from_static(text.as_bytes()));
        assert_eq!(read("").map(|map| map.len()).ok(), Some(0));
        assert_eq!(read(r#"{"a":1,"b":{"a":1}}"#).map(|map| map.len()).ok(), Some(2));
        let told = |text| read(text).err().map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
        for (text, words) in [
            (r#"{"id":1,"id":2}"#, "the input `id` stands twice"),
            ("[1]", "must be a JSON object"),
            ("{\"a\":", "are not JSON: fault at 1:"),
        ] {
            let told = told(text).unwrap_or_default();
            assert!(told.contains(words), "{text}: {told}");
        }
    }
}
