//! Calls that are read whole: of endpoints with `transform`, and those whose credential or signature depends
//! on the body. They are changed or signed, sent as a call of our own, and answered likewise. What streams
//! cannot be changed, so these calls have a size cap in both directions.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use minijinja::value::Value;

use super::ready::Ready;
use super::{ProxyDoor, headers};
use crate::definition::live::Generation;
use crate::definition::plan::api::{Change, Transform};
use crate::net::client::Clients;
use crate::net::exchange::{BodyLimit, Excess, Follow, Outgoing, Received, Towards};
use crate::outbound::PlaceError;
use crate::outbound::sign::{Leaving, own_headers};
use crate::respond::{Answer, Refusal};
use crate::template::{Context, Headers, TemplateError, TemplateErrorKind};

/// A call that is read whole, admitted.
pub struct WholeCall {
    pub(super) generation: Arc<Generation>,
    pub(super) ready: Arc<Ready>,
    /// The place in its API of the endpoint whose transform changes it.
    pub(super) endpoint: Option<usize>,
    pub(super) suffix: String,
    pub(super) query: Option<String>,
}

impl WholeCall {
    fn transform(&self) -> Option<&Transform> {
        self.ready.integration.api.as_ref()?.endpoints.get(self.endpoint?)?.transform.as_ref()
    }

    /// Where it goes: origin and path.
    pub fn place(&self) -> (Arc<str>, String) {
        let common = &self.ready.common;
        (Arc::clone(&common.place), format!("{}{}", common.base.path, self.suffix))
    }

    /// The most bytes that the request's body may have.
    pub fn max_body(&self) -> u64 {
        let of_api = || self.ready.integration.api.as_ref().map_or(0, |api| api.body_limit);
        self.transform().map_or_else(of_api, |transform| transform.max_body)
    }
}

/// Makes the call: change, send, change.
pub async fn run(door: &ProxyDoor, call: &WholeCall, method: &Method, from: &HeaderMap, body: Bytes) -> Answer {
    let transform = call.transform();
    let first = once(door, call, &call.ready, method, (from, body.clone())).await;
    let refused = first.as_ref().is_ok_and(|received| received.status == StatusCode::UNAUTHORIZED);
    let renewed = if refused { door.renewed(&call.generation, &call.ready).await } else { None };
    let received = match renewed {
        Some(ready) if method.is_idempotent() => once(door, call, &ready, method, (from, body)).await,
        _ => first,
    };
    let received = match received {
        Ok(received) => received,
        Err(refused) => return refused,
    };
    feel(door, call, received.status);
    answer(transform, received).unwrap_or_else(|error| failed("response", &error))
}

/// One try.
async fn once(
    door: &ProxyDoor,
    call: &WholeCall,
    ready: &Ready,
    method: &Method,
    request: (&HeaderMap, Bytes),
) -> Result<Received, Answer> {
    send(&door.parts.clients, outgoing(door, call, ready, method, request)?).await
}

/// What an answer says about the connection's health.
fn feel(door: &ProxyDoor, call: &WholeCall, status: StatusCode) {
    super::feel(&call.ready, status, door.parts.clock.now());
}

fn outgoing(
    door: &ProxyDoor,
    call: &WholeCall,
    ready: &Ready,
    method: &Method,
    (from, body): (&HeaderMap, Bytes),
) -> Result<Outgoing, Answer> {
    let common = &ready.common;
    let Some(api) = ready.integration.api.as_ref() else { return Err(super::ready::no_api(&ready.integration)) };
    let transform = call.transform();
    let mut kept = headers::kept(from);
    if transform.is_some_and(|transform| transform.response.is_some()) {
        // A compressed answer could not be changed.
        kept.remove(header::ACCEPT_ENCODING);
    }
    kept.insert(header::VIA, door.via.clone());
    let mut body = body;
    if let Some(change) = transform.and_then(|transform| transform.request.as_ref()) {
        let context = common
            .connection
            .context
            .clone()
            .with("headers", visible(&kept))
            .with("query", query_values(call.query.as_deref().unwrap_or_default()))
            .with_lazy("body", json_of(body.clone()));
        body = changed(change, &context, &mut kept, body).map_err(|error| failed("request", &error))?;
    }
    for (name, value) in &common.headers {
        kept.insert(name.clone(), value.clone());
    }
    common.credential.put_on(&mut kept);
    let unusable = |reason: PlaceError| reason.refusal().answer(&reason.to_string());
    let body = common.credential.put_in(&mut kept, body).map_err(unusable)?;
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        kept.remove(name);
    }
    let path = format!("{}{}", common.base.path, call.suffix);
    if common.signer.is_some() {
        for name in own_headers() {
            kept.remove(name);
        }
        let leaving = Leaving {
            method,
            origin: &common.base.origin,
            path: &path,
            query: call.query.as_deref().unwrap_or_default(),
            headers: &kept,
            body: Some(&body),
        };
        let added = common.sign(leaving, door.parts.outbound.moment()).map_err(unusable)?;
        kept.extend(added);
    }
    let limit = BodyLimit { bytes: usize::try_from(call.max_body()).unwrap_or(usize::MAX), excess: Excess::Refuse };
    let secret =
        common.credential.query().map(|(_, pair)| Arc::new(crate::base::secret::Secret::new(pair.expose().clone())));
    Ok(Outgoing {
        towards: Towards::Service {
            integration: Arc::clone(&ready.integration.id),
            transport: api.transport.clone(),
            reach: common.reach.clone(),
        },
        method: method.clone(),
        origin: common.base.origin.clone(),
        path,
        query: call.query.clone(),
        secret_query: secret,
        headers: kept,
        body,
        timeouts: ready.timeouts,
        limit,
        follow: Follow::default(),
    })
}

async fn send(clients: &Clients, outgoing: Outgoing) -> Result<Received, Answer> {
    clients.send(outgoing).await.map_err(|failure| failure.refusal().answer(&failure.to_string()))
}

fn answer(transform: Option<&Transform>, received: Received) -> Result<Answer, TemplateError> {
    let mut kept = headers::kept_of_answer(&received.headers);
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        kept.remove(name);
    }
    let mut body = received.body;
    if let Some(change) = transform.and_then(|transform| transform.response.as_ref()) {
        let context = Context::new()
            .with("status", received.status.as_u16())
            .with("headers", visible(&kept))
            .with_lazy("body", json_of(body.clone()));
        body = changed(change, &context, &mut kept, body)?;
    }
    let headers = kept.into_iter().scan(None::<HeaderName>, |last, (name, value)| {
        // A header map names a header once and then gives its further values without a name.
        *last = name.or_else(|| last.take());
        last.clone().map(|name| (name, value))
    });
    Ok(Answer { status: received.status, headers: headers.collect(), body, close: false })
}

/// Applies a change to headers and body.
fn changed(change: &Change, context: &Context, headers: &mut HeaderMap, body: Bytes) -> Result<Bytes, TemplateError> {
    for (name, text) in &change.headers {
        if text.value(context)?.is_null() {
            headers.remove(name);
            continue;
        }
        let value = HeaderValue::from_str(&text.render(context)?).map_err(|_| TemplateError {
            kind: TemplateErrorKind::WrongType,
            message: format!("`{name}` would hold characters that no header can carry"),
            range: None,
        })?;
        headers.insert(name.clone(), value);
    }
    let Some(tree) = &change.json else { return Ok(body) };
    let new = tree.render(context)?;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::ETAG);
    Ok(Bytes::from(new.to_string()))
}

/// A body as JSON, where it is JSON; undefined where it is not.
fn json_of(body: Bytes) -> impl Fn() -> Value + Send + Sync + 'static {
    move || match serde_json::from_slice::<serde_json::Value>(&body) {
        Ok(json) => Value::from(minijinja::value::Serde(&json)),
        Err(_) => Value::UNDEFINED,
    }
}

fn visible(headers: &HeaderMap) -> Value {
    Headers::from_pairs(headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))))
}

/// A query's parameters; of several with one name the first.
fn query_values(query: &str) -> Value {
    let mut seen: Vec<(String, String)> = Vec::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if seen.iter().all(|(known, _)| *known != name) {
            seen.push((name.into_owned(), value.into_owned()));
        }
    }
    let map: serde_json::Map<String, serde_json::Value> = seen.into_iter().map(|(k, v)| (k, v.into())).collect();
    Value::from(minijinja::value::Serde(&map))
}

fn failed(which: &str, error: &TemplateError) -> Answer {
    Refusal::DefinitionFailed.answer(&format!("`transform.{which}`: {error}"))
}
