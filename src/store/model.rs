//! What is stored, in the product's words.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId, WebhookId};

/// A verified webhook on its way into the store.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// Its id, generated at arrival.
    pub id: EventId,
    /// The integration it came to.
    pub integration: Arc<str>,
    /// The managed endpoint it came to, where it was one, as [`endpoint_name`] writes it; part of the dedupe scope.
    pub endpoint: Option<Arc<str>>,
    /// What kind of event it is, as the definition's `event` expression says.
    pub event_type: String,
    /// The sender's id of this delivery, where the definition names one.
    pub delivery_id: Option<String>,
    /// How long a second event with this delivery id counts as a duplicate.
    pub dedupe_window: Duration,
    /// When it arrived.
    pub received_at: Timestamp,
    /// The request's query string without the question mark.
    pub query: String,
    /// The request's headers in order of arrival, names in lower case, without credentials.
    pub headers: Vec<(String, Bytes)>,
    /// The body, byte for byte as it was signed.
    pub body: Bytes,
}

/// How an event names the managed endpoint it came to: by the endpoint's id and its connection, so that the connection
/// is known when the endpoint is gone.
pub fn endpoint_name(id: WebhookId, connection: &str) -> Arc<str> {
    Arc::from(format!("{id}/{connection}"))
}

/// The endpoint and the connection that such a name tells.
pub fn named_endpoint(name: &str) -> Option<(WebhookId, &str)> {
    let (id, connection) = name.split_once('/')?;
    Some((id.parse().ok()?, connection))
}

/// What became of an event that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is durable.
    New,
    /// This delivery was stored before, as the event named here.
    Duplicate(EventId),
}

/// A stored event with its content.
#[derive(Debug, Clone)]
pub struct Event {
    /// What lists show of it.
    pub head: EventHead,
    /// The request's query string without the question mark.
    pub query: String,
    /// The request's headers in order of arrival, names in lower case.
    pub headers: Vec<(String, Bytes)>,
    /// The body, byte for byte.
    pub body: Bytes,
}

/// What lists show of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EventHead {
    /// Its id.
    pub id: EventId,
    /// The integration it came to.
    pub integration: Arc<str>,
    /// The managed endpoint it came to, where it was one.
    pub endpoint: Option<Arc<str>>,
    /// What kind of event it is.
    pub event_type: String,
    /// The sender's id of this delivery.
    pub delivery_id: Option<String>,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Size of the body in bytes.
    pub body_bytes: u64,
    /// Where it stands.
    pub state: EventState,
}

impl EventHead {
    /// The managed endpoint it came to, where it was one.
    pub fn webhook(&self) -> Option<WebhookId> {
        named_endpoint(self.endpoint.as_deref()?).map(|(id, _)| id)
    }

    /// The connection whose endpoint it came to, where it was one.
    pub fn connection(&self) -> Option<&str> {
        named_endpoint(self.endpoint.as_deref()?).map(|(_, connection)| connection)
    }
}

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventState {
    /// Stored; its rules have not been matched yet.
    Queued,
    /// Its deliveries are under way.
    Delivering,
    /// Every delivery succeeded.
    Done,
    /// No rule wanted it.
    Discarded,
    /// At least one delivery was given up; the others are finished.
    Dead,
}

/// One action of one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The rule that asked for it.
    pub rule: String,
    /// The action's position in the rule's `do` list, from zero.
    pub action: u16,
    /// The action in words, as in `deliver app` or `call slack.post_message`.
    pub summary: String,
    /// What it competes with for slots.
    pub lane: Lane,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts so far, oldest first; the newest 20 are kept.
    pub attempts: Vec<Attempt>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum DeliveryState {
    /// It will be tried at `due`.
    Ready {
        /// When.
        due: Timestamp,
    },
    /// A worker has it.
    Leased {
        /// When the lease runs out.
        until: Timestamp,
    },
    /// It succeeded.
    Done,
    /// It was given up: the dead-letter list.
    Dead,
    /// It was given up, and then its event was replayed, whose rules no longer ask for it.
    Withdrawn,
}

/// The lane of matching, and what the lanes of endpoints begin with.
const MATCHING: &str = "match";

/// What limits concurrency: deliveries of one lane share its slots. `destination:app`,
/// `integration:slack`, or `match` for the matching of rules, `match:ENDPOINT` for that of a managed endpoint's events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lane(pub Arc<str>);

impl Lane {
    /// The lane of events whose rules have not been matched.
    pub fn matching() -> Self {
        Self(Arc::from(MATCHING))
    }

    /// The lane of events of a managed endpoint whose rules have not been matched: one of its own, so that an
    /// endpoint can be held back without touching its events.
    pub fn matching_of(endpoint: Option<&str>) -> Self {
        endpoint.map_or_else(Self::matching, |endpoint| Self(Arc::from(format!("{MATCHING}:{endpoint}"))))
    }

    /// Whether its items are events whose rules have not been matched.
    pub fn is_matching(&self) -> bool {
        self.0.strip_prefix(MATCHING).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }
}

/// The rule of a planned delivery that only tells that an event's rules were not matched; replayed, they are matched
/// again.
pub const NO_RULE: &str = "";

/// A delivery that rules asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDelivery {
    /// The rule's id.
    pub rule: String,
    /// The action's position in the rule's `do` list, from zero.
    pub action: u16,
    /// The action in words.
    pub summary: String,
    /// What it competes with for slots.
    pub lane: Lane,
    /// When to try it first.
    pub due: Timestamp,
}

/// What the rules made of a claimed match item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What proves the claim.
    pub lease: Lease,
    /// What the rules ask for; empty means *discarded by rule*.
    pub deliveries: Vec<PlannedDelivery>,
}

/// One try at a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From one, counted since the last replay.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The other side's HTTP status, where it answered.
    pub status: Option<u16>,
    /// What went wrong, in words a person can act on; never a secret. At most 1 KiB is kept.
    pub error: Option<String>,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Verdict {
    /// It succeeded.
    Done,
    /// Try again then.
    Retry {
        /// When.
        due: Timestamp,
    },
    /// Try again then, and do not count this: nobody was asked.
    Held {
        /// When.
        due: Timestamp,
    },
    /// Give up.
    Dead,
}

/// A request for work.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// Now.
    pub now: Timestamp,
    /// When the leases run out.
    pub until: Timestamp,
    /// The most items to lease.
    pub max: usize,
    /// Lanes whose slots are all taken, each with nothing to claim from.
    pub busy: &'a [Lane],
    /// The most items to lease from any one lane.
    pub per_lane: usize,
    /// The most items to lease from the lane of matching, beside `max` of all others.
    pub matching: usize,
}

/// A claimed item.
#[derive(Debug, Clone)]
pub struct Leased {
    /// What proves the claim.
    pub lease: Lease,
    /// What to do.
    pub item: Item,
    /// Which attempt this is since the last replay, from one.
    pub attempt: u32,
    /// Whether nobody knows how one before it ended: its process did, or its lease ran out. Until one has ended.
    pub unknown: bool,
    /// When the first of those of unknown end was due, or this one; what came of them is not from before.
    pub since: Timestamp,
    /// The lane the item holds a slot of.
    pub lane: Lane,
}

/// What a claimed item asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Match the event's rules and plan its deliveries.
    Match(EventId),
    /// Try the delivery.
    Deliver {
        /// The delivery.
        id: DeliveryId,
        /// The rule that asked for it.
        rule: String,
        /// The action's position in the rule's `do` list.
        action: u16,
    },
}

impl Item {
    /// The event the item belongs to.
    pub fn event(&self) -> EventId {
        match self {
            Self::Match(event) => *event,
            Self::Deliver { id, .. } => id.event,
        }
    }
}

/// Proof of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The event.
    pub event: EventId,
    /// The delivery's ordinal; `None` for the match item.
    pub ordinal: Option<u16>,
    /// Grows with each claim of the item.
    pub fence: u64,
}

/// Which events to list. Empty fields do not filter.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only this integration's.
    pub integration: Option<String>,
    /// Only what came to an endpoint of the connection of this name.
    pub connection: Option<String>,
    /// Only what came to this managed endpoint.
    pub webhook: Option<WebhookId>,
    /// Only in this state.
    pub state: Option<EventState>,
    /// Only of this type; `*` stands for any text.
    pub event_type: Option<String>,
    /// Only with this delivery id.
    pub delivery_id: Option<String>,
    /// Only received at or after this moment.
    pub since: Option<Timestamp>,
    /// Only received before this moment.
    pub until: Option<Timestamp>,
}

/// A page of a list.
#[derive(Debug, Clone, Copy)]
pub struct PageRequest {
    /// Where the previous page ended.
    pub after: Option<EventId>,
    /// The most rows to return, 1 to 1,000.
    pub limit: usize,
}

/// Rows, and where to go on.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<EventId>,
}

/// How much work there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// Items that are ready, due now or later.
    pub ready: u64,
    /// Items that a worker has.
    pub leased: u64,
    /// Deliveries in the dead-letter list.
    pub dead: u64,
    /// When the oldest event that is not finished arrived.
    pub oldest: Option<Timestamp>,
}

/// The name of a record: a collection and a key within it, both at most 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordKey {
    /// The collection, such as `connections`.
    pub collection: Arc<str>,
    /// The key, such as `stripe/default`.
    pub key: Arc<str>,
}

/// Something worth remembering about who did what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who: `caller:backend`, `operator`, `system`.
    pub actor: String,
    /// What, as a stable dotted word: `event.replay`, `config.reload`, `connection.put`.
    pub action: String,
    /// To what: `event:evt_…`, `integration:github`.
    pub target: String,
    /// Details without secrets, as JSON.
    pub detail: serde_json::Value,
}

/// An audit entry as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// From one, without gaps.
    pub sequence: u64,
    /// The entry.
    pub entry: AuditEntry,
    /// Lower-case hex SHA-256 over the previous record's hash and this entry.
    pub hash: String,
}
