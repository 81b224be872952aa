//! `deliver`: a message to a destination by POST, signed by Standard Webhooks, so that the application
//! verifies one scheme whatever service an event came from.
//!
//! A 2xx is a success. `410 Gone` gives up. Every other status and every failure to reach the destination is
//! tried again by the schedule, because an application that is being deployed answers all sorts of things.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Position;

use crate::base::clock::Clock;
use crate::definition::plan::api::Timeouts;
use crate::definition::plan::gateway::Destination;
use crate::definition::plan::rule::What;
use crate::net::{Base, BodyLimit, Clients, Excess, Outgoing, Received, Towards};
use crate::queue::{Again, Report, Task};
use crate::request::{retry_after, standard_webhooks};
use crate::template::{Text, Tree};

/// The header with the id of the event that a message is about.
pub const EVENT: HeaderName = HeaderName::from_static("trunkline-event");
/// The header with that event's type.
pub const EVENT_TYPE: HeaderName = HeaderName::from_static("trunkline-event-type");
/// The header with the integration that it came to.
pub const INTEGRATION: HeaderName = HeaderName::from_static("trunkline-integration");
/// How much of an answer is read; only its status counts.
const ANSWER: BodyLimit = BodyLimit { bytes: 16 << 10, excess: Excess::Cut };

/// Sends the message once.
pub async fn run(clients: &Clients, clock: &dyn Clock, task: &Task, what: &What) -> Report {
    let What::Deliver { destination: id, json, headers } = what else {
        return Report::failed(None, "not a delivery", Again::Never);
    };
    let Some(destination) = task.generation.gateway.destination(id) else {
        return Report::failed(None, format!("there is no destination `{id}` in trunkline.yaml"), Again::Never);
    };
    let outgoing = match message(clock, task, destination, (json.as_ref(), headers)) {
        Ok(outgoing) => outgoing,
        Err(error) => return Report::failed(None, error, Again::Never),
    };
    match clients.send(outgoing).await {
        Ok(received) => answered(id, &received, clock),
        Err(failure) if failure.passing() => {
            let again = if failure.was_held() { Again::Held(None) } else { Again::Scheduled };
            Report::failed(None, format!("destination `{id}`: {failure}"), again)
        }
        Err(failure) => Report::failed(None, format!("destination `{id}`: {failure}"), Again::Never),
    }
}

fn answered(id: &str, received: &Received, clock: &dyn Clock) -> Report {
    let status = received.status;
    if status.is_success() {
        return Report::done(Some(status.as_u16()));
    }
    let error = format!("destination `{id}` answered {status}");
    let again = match retry_after(&received.headers, clock.now()) {
        _ if status == StatusCode::GONE => Again::Never,
        Some(wait) => Again::After(wait),
        None => Again::Scheduled,
    };
    Report::failed(Some(status.as_u16()), error, again)
}

/// The message, signed. An error says in words why it cannot be made.
fn message(
    clock: &dyn Clock,
    task: &Task,
    destination: &Destination,
    (json, headers): (Option<&Tree>, &[(HeaderName, Text)]),
) -> Result<Outgoing, String> {
    let (body, content_type) = body(task, json)?;
    let mut all = HeaderMap::new();
    all.insert(header::CONTENT_TYPE, content_type);
    put(&mut all, &destination.headers, task)?;
    put(&mut all, headers, task)?;
    let head = &task.event.head;
    for (name, text) in [
        (EVENT, head.id.to_string()),
        (EVENT_TYPE, head.event_type.clone()),
        (INTEGRATION, head.integration.to_string()),
    ] {
        // A type beyond ASCII has no place in a header; the message itself can carry it.
        if let Ok(value) = HeaderValue::from_str(&text) {
            all.insert(name, value);
        }
    }
    let id = task.delivery.idempotency_key();
    let signature = standard_webhooks::sign(&destination.signing_secrets, &id, clock.now(), &body)
        .map_err(|error| format!("the message to `{}` cannot be signed: {error}", destination.id))?;
    all.extend(signature);
    let url = &destination.url;
    let base = Base::parse(&url[..Position::BeforePath], false)
        .map_err(|error| format!("the URL of destination `{}`: {error}", destination.id))?;
    let timeouts = Timeouts { response: destination.timeout, total: destination.timeout, ..Timeouts::default() };
    Ok(Outgoing {
        towards: Towards::Destination { id: destination.id.clone() },
        caller: None,
        method: Method::POST,
        origin: base.origin,
        path: url.path().to_owned(),
        query: url.query().map(str::to_owned),
        secret_query: None,
        headers: all,
        body,
        timeouts,
        limit: ANSWER,
    })
}

/// The definition's own message as JSON, or the event's body byte for byte.
fn body(task: &Task, json: Option<&Tree>) -> Result<(Bytes, HeaderValue), String> {
    if let Some(tree) = json {
        let message = tree.render(&task.seen.context);
        let message = message.map_err(|error| format!("`json` cannot be made: {}", task.seen.explain(&error)))?;
        return Ok((Bytes::from(message.to_string()), HeaderValue::from_static("application/json")));
    }
    let own = task.event.headers.iter().find(|(name, _)| name == "content-type");
    let content_type = own.and_then(|(_, value)| HeaderValue::from_bytes(value).ok());
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
    Ok((task.event.body.clone(), content_type))
}

fn put(all: &mut HeaderMap, headers: &[(HeaderName, Text)], task: &Task) -> Result<(), String> {
    for (name, text) in headers {
        let value = text.render(&task.seen.context);
        let value =
            value.map_err(|error| format!("the header `{name}` cannot be made: {}", task.seen.explain(&error)))?;
        let value = HeaderValue::from_str(&value)
            .map_err(|_| format!("the header `{name}` would have a character that no header can carry"))?;
        all.insert(name, value);
    }
    Ok(())
}
