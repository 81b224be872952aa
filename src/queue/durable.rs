//! Durable calls: calls of an application that are stored before they are answered for, and then carried out
//! like any other work, with its retries and its dead-letter list.
//!
//! Such a call is an event of its integration whose only action is the call itself. What else it needs stands
//! in headers that begin with a colon, which no HTTP request can carry, so no webhook can pass for one. What
//! comes of it is an event too, the outcome, which goes to a destination where the application asked for that.
//! Written by `proxy`, planned by `matching`, carried out by `action`.

use std::borrow::Cow;
use std::str;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};

use super::job::{Again, Answered, Errand, Report};
use crate::base;
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::definition::live::Generation;
use crate::definition::plan::rule::{Action, What};
use crate::store::model::{Event, Lane, NewEvent, PlannedDelivery};
use crate::store::{Events, StoreError};

/// The type of the event that a durable call is.
pub const CALL: &str = "trunkline.call";
/// The type of the event that its outcome is.
pub const OUTCOME: &str = "trunkline.call.outcome";
/// How long a second call with the same idempotency key counts as the first.
pub const KEY_WINDOW: Duration = Duration::from_hours(72);

/// Where the idempotency keys of callers are told apart from the ids of webhooks: it stands in the place of a managed
/// endpoint, none of which has a colon in its name.
pub const KEYS: &str = ":keys";

const METHOD: &str = ":method";
const PATH: &str = ":path";
const CONNECTION: &str = ":connection";
const TOKEN: &str = ":token";
const CALLER: &str = ":caller";
/// Of a call: where its outcome goes. Of an outcome: where it goes.
const DELIVER: &str = ":deliver";
/// Of an outcome: the call's id.
const OF: &str = ":call";

/// A call as the application made it, without its key.
#[derive(Debug, Clone)]
pub struct DurableCall {
    /// The method.
    pub method: Method,
    /// The path at the proxy door: `/{integration}/…`.
    pub path: String,
    /// The query without the question mark.
    pub query: Option<String>,
    /// The connection it uses.
    pub connection: String,
    /// The token that it carries, where it is not the default one.
    pub token: Option<String>,
    /// Whose call it is.
    pub caller: String,
    /// The destination that its outcome goes to.
    pub deliver: Option<String>,
    /// The headers that go out with it.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl DurableCall {
    /// The call as it is stored. A second one with the same `key` is not.
    pub fn into_event(self, integration: Arc<str>, id: EventId, key: Option<&str>, now: Timestamp) -> NewEvent {
        let delivery_id = key.map(|key| format!("{CALL}/{}/{key}", self.caller));
        let own = [
            (METHOD, Some(self.method.as_str().to_owned())),
            (PATH, Some(self.path)),
            (CONNECTION, Some(self.connection)),
            (TOKEN, self.token),
            (CALLER, Some(self.caller)),
            (DELIVER, self.deliver),
        ];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Bytes::from(value?))));
        let sent = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        NewEvent {
            id,
            integration,
            endpoint: delivery_id.is_some().then(|| Arc::from(KEYS)),
            event_type: CALL.to_owned(),
            delivery_id,
            dedupe_window: KEY_WINDOW,
            received_at: now,
            // A query that is there and empty is another target than none.
            query: self.query.map(|query| format!("?{query}")).unwrap_or_default(),
            headers: own.chain(sent).collect(),
            body: self.body,
        }
    }

    /// The call that an event is, if it is one.
    pub fn of(event: &Event) -> Option<Self> {
        let own = |name: &str| text(event, name).map(str::to_owned);
        let mut headers = HeaderMap::new();
        for (name, value) in event.headers.iter().filter(|(name, _)| !name.starts_with(':')) {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
        Some(Self {
            method: own(METHOD)?.parse().ok()?,
            path: own(PATH)?,
            query: event.query.strip_prefix('?').map(str::to_owned),
            connection: own(CONNECTION)?,
            token: own(TOKEN),
            caller: own(CALLER)?,
            deliver: own(DELIVER),
            headers,
            body: event.body.clone(),
        })
    }

    /// Whether another call is the same one.
    pub fn is_same(&self, other: &Self) -> bool {
        self.method == other.method
            && (&self.path, &self.query, &self.connection) == (&other.path, &other.query, &other.connection)
            && (&self.token, &self.deliver) == (&other.token, &other.deliver)
            && self.body == other.body
    }
}

fn text<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let (_, value) = event.headers.iter().find(|(known, _)| known == name)?;
    str::from_utf8(value).ok()
}

/// Makes an application's calls.
#[async_trait]
pub trait Carry: Send + Sync + 'static {
    /// Makes the call once, as its caller may by the definitions in `generation`.
    async fn carry(&self, generation: &Arc<Generation>, call: &DurableCall, delivery: DeliveryId) -> Report;

    /// Whether the call may be made again when nobody knows whether it was.
    fn repeats_safely(&self, generation: &Generation, call: &DurableCall) -> bool;
}

/// What came of a durable call, once no try follows.
#[derive(Debug, Clone, Copy)]
pub struct Conclusion<'a> {
    /// The integration.
    pub integration: &'a Arc<str>,
    /// The call.
    pub call: &'a DurableCall,
    /// The delivery that it was carried out as.
    pub delivery: DeliveryId,
    /// How the last try ended.
    pub report: &'a Report,
    /// How many tries there were.
    pub attempts: u32,
}

impl Conclusion<'_> {
    /// The outcome as it is stored and delivered.
    pub fn into_event(self, id: EventId, now: Timestamp) -> NewEvent {
        let of = self.delivery.event;
        let body = json!({
            "call": of.to_string(),
            "integration": &**self.integration,
            "connection": self.call.connection,
            "method": self.call.method.as_str(),
            "path": self.call.path,
            "result": if self.report.result.is_ok() { "done" } else { "dead" },
            "attempts": self.attempts,
            "error": self.report.result.as_ref().err().map(|failed| &failed.error),
            "answer": self.report.answer.as_deref().map(answer),
            "at": now.to_string(),
        });
        let own = [(OF, Some(of.to_string())), (DELIVER, self.call.deliver.clone())];
        let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Bytes::from(value?))));
        let media = (header::CONTENT_TYPE.as_str().to_owned(), Bytes::from_static(b"application/json"));
        NewEvent {
            id,
            integration: Arc::clone(self.integration),
            endpoint: None,
            event_type: OUTCOME.to_owned(),
            delivery_id: None,
            dedupe_window: Duration::ZERO,
            received_at: now,
            query: String::new(),
            headers: own.chain([media]).collect(),
            body: Bytes::from(body.to_string()),
        }
    }
}

fn answer(answer: &Answered) -> Value {
    let headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name.as_str(), "value": String::from_utf8_lossy(value.as_bytes()) }))
        .collect();
    // What would become other numbers, or lose a member whose name stands twice, is kept as it came.
    let is_exact = matches!(base::json::lossless(&answer.body), Ok(Cow::Borrowed(_)))
        && base::json::has_distinct_names(&answer.body);
    let read = is_exact.then(|| serde_json::from_slice::<Value>(&answer.body).ok()).flatten();
    let (kind, body) = match (read, str::from_utf8(&answer.body)) {
        (Some(read), _) => ("json", read),
        (None, Ok(text)) => ("text", Value::from(text)),
        (None, Err(_)) => ("base64", Value::from(STANDARD.encode(&answer.body))),
    };
    json!({ "status": answer.status.as_u16(), "headers": headers, "body": { kind: body } })
}

/// The id of a call's outcome: the first is the id after the call's, the second, after a replay, the one
/// after that. Ids are random below their time, so none of these is another event's.
pub fn outcome_id(call: EventId, number: u32) -> EventId {
    EventId::from_u128(call.to_u128().wrapping_add(u128::from(number)))
}

/// The call that an event is the outcome of.
pub fn outcome_of(event: &Event) -> Option<EventId> {
    text(event, OF)?.parse().ok()
}

/// The newest outcome of a call, where it has one, and the id of the next: one that was replayed has one for each time.
///
/// # Errors
/// When the store cannot be read.
pub async fn newest_outcome(events: &dyn Events, call: EventId) -> Result<(Option<Event>, EventId), StoreError> {
    let (mut number, mut newest) = (1, None);
    loop {
        let id = outcome_id(call, number);
        let Some(found) = events.event(id).await? else { return Ok((newest, id)) };
        (newest, number) = (Some(found), number + 1);
    }
}

/// What came of a durable call since a moment, by its newest outcome; `None` where no outcome was kept since.
///
/// # Errors
/// When the store cannot be read.
pub async fn known_outcome(events: &dyn Events, call: &Event, since: Timestamp) -> Result<Option<Report>, StoreError> {
    if text(call, METHOD).is_none() {
        return Ok(None);
    }
    let (newest, _) = newest_outcome(events, call.head.id).await?;
    let Some(outcome) = newest.filter(|outcome| outcome.head.received_at >= since) else { return Ok(None) };
    let told: Value = serde_json::from_slice(&outcome.body).unwrap_or_default();
    let status = told["answer"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    Ok(Some(match told["result"].as_str() {
        Some("done") => Report::done(status),
        _ => Report::failed(status, told["error"].as_str().unwrap_or("its outcome says why"), Again::Never),
    }))
}

/// Whether an event of this type may be a durable call or an outcome; its headers say whether it is.
pub fn may_be(event_type: &str) -> bool {
    matches!(event_type, CALL | OUTCOME)
}

/// What there is to do for a durable call or its outcome; `None` for every other event.
pub fn plan(event: &Event, now: Timestamp) -> Option<Vec<PlannedDelivery>> {
    let integration = &event.head.integration;
    let planned = |summary: String, lane: String| PlannedDelivery {
        rule: event.head.event_type.clone(),
        action: 0,
        summary,
        lane: Lane(lane.into()),
        due: now,
    };
    match (text(event, METHOD), text(event, OF), text(event, DELIVER)) {
        (Some(method), ..) => {
            let path = text(event, PATH).unwrap_or_default();
            Some(vec![planned(format!("{method} {}", bounded(path)), format!("integration:{integration}"))])
        }
        (None, Some(_), Some(to)) => Some(vec![planned(format!("deliver {to}"), format!("destination:{to}"))]),
        (None, Some(_), None) => Some(Vec::new()),
        (None, None, _) => None,
    }
}

/// What to do for one delivery of such an event; `None` where a rule says it.
pub(super) fn errand(event: &Event) -> Option<Errand> {
    if let Some(call) = DurableCall::of(event) {
        return Some(Errand::Call(Box::new(call)));
    }
    text(event, OF)?;
    let destination = text(event, DELIVER)?.into();
    let what = What::Deliver { destination, json: None, headers: Vec::new() };
    Some(Errand::Own(Action { what, retry: None, timeout: None }))
}

/// As much of a path as a list shows.
fn bounded(path: &str) -> &str {
    path.split_at(path.floor_char_boundary(200)).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::model::{EventHead, EventState};
    use http::StatusCode;

    const NOW: Timestamp = Timestamp::from_seconds(1_000);
    const ID: EventId = EventId::from_u128(7 << 80);

    fn call() -> DurableCall {
        let headers = [(header::ACCEPT, HeaderValue::from_static("text/plain"))].into_iter().collect();
        DurableCall {
            method: Method::POST,
            path: "/shop/v1/orders".to_owned(),
            query: Some("a=1".to_owned()),
            connection: "default".to_owned(),
            token: Some("user".to_owned()),
            caller: "app".to_owned(),
            deliver: Some("backend".to_owned()),
            headers,
            body: Bytes::from_static(b"\x00\xff"),
        }
    }

    fn stored(new: NewEvent) -> Event {
        let head = EventHead {
            id: new.id,
            integration: new.integration,
            endpoint: new.endpoint,
            event_type: new.event_type,
            delivery_id: new.delivery_id,
            received_at: new.received_at,
            body_bytes: new.body.len() as u64,
            state: EventState::Queued,
        };
        Event { head, query: new.query, headers: new.headers, body: new.body }
    }

    #[test]
    fn a_call_is_read_back_as_it_was() {
        let event = stored(call().into_event("shop".into(), ID, Some("k1"), NOW));
        let (space, key) = (event.head.endpoint.as_deref(), event.head.delivery_id.as_deref());
        assert_eq!((space, key), (Some(KEYS), Some("trunkline.call/app/k1")));
        let read = DurableCall::of(&event).expect("a call");
        assert!(read.is_same(&call()) && read.headers == call().headers && read.caller == "app");
        let planned = plan(&event, NOW).expect("a plan");
        assert_eq!(
            (planned.len(), &*planned[0].summary, &*planned[0].lane.0),
            (1, "POST /shop/v1/orders", "integration:shop")
        );
    }

    #[test]
    fn another_call_is_not_the_same() {
        let others: [fn(&mut DurableCall); 6] = [
            |call| call.method = Method::PUT,
            |call| call.query = None,
            |call| call.connection = "b".to_owned(),
            |call| call.body = Bytes::new(),
            |call| call.deliver = None,
            |call| call.token = None,
        ];
        for change in others {
            let mut other = call();
            change(&mut other);
            assert!(!call().is_same(&other));
        }
    }

    #[test]
    fn an_outcome_goes_where_it_was_asked_for() {
        let report = Report::done(Some(201)).with_answer(Some(Answered {
            status: StatusCode::CREATED,
            headers: Vec::new(),
            body: Bytes::from_static(b"{\"id\":1}"),
        }));
        let delivery = DeliveryId { event: ID, ordinal: 0 };
        let (call, integration) = (call(), Arc::from("shop"));
        let conclusion = Conclusion { integration: &integration, call: &call, delivery, report: &report, attempts: 2 };
        let event = stored(conclusion.into_event(outcome_id(ID, 1), NOW));
        let body: Value = serde_json::from_slice(&event.body).expect("JSON");
        assert_eq!((&body["answer"]["body"]["json"]["id"], &body["result"]), (&json!(1), &json!("done")));
        assert_eq!(outcome_of(&event), Some(ID));
        assert_eq!(plan(&event, NOW).expect("a plan")[0].lane.0.as_ref(), "destination:backend");
        assert!(DurableCall::of(&event).is_none());
    }

    #[test]
    fn an_answer_that_reading_would_change_is_kept_as_it_came() {
        for body in [r#"{"id":1,"id":2}"#, r#"[{"a":{"b":1,"b":1}}]"#, r#"{"id":12345678901234567890123}"#] {
            let answered =
                Answered { status: StatusCode::OK, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()) };
            assert_eq!(answer(&answered)["body"], json!({ "text": body }));
        }
    }

    #[test]
    fn a_webhook_is_neither() {
        let mut event = stored(call().into_event("shop".into(), ID, None, NOW));
        event.headers.retain(|(name, _)| !name.starts_with(':'));
        assert!(plan(&event, NOW).is_none() && errand(&event).is_none());
    }
}
