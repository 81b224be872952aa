//! A webhook's way in, one line a stage: [`Receiver::admit`] by the head, [`Receiver::receive`] with the
//! body.
//!
//! A success is answered when the event, its dedupe mark and its work item are durable, and not before.
//! Refusals that cost least come first. Called by `server` through [`Receive`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::door::{Admission, Receive, RequestHead};
use super::identify::{self, Identity};
use super::limits::Limits;
use super::readings::Readings;
use super::refused::{Refused, RefusedList};
use super::scope::{self, Scope, query_without_secret};
use super::silence::Silence;
use super::tally::{Came, Tallies};
use super::verify::{self, Failure, Request, Verified};
use super::{handshake, keep};
use crate::activity::{Activity, Asker, CallRecord, Course, Told};
use crate::base::clock::{Clock, Timestamp};
use crate::base::id::EventId;
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::connection::endpoints::{Endpoint, Endpoints};
use crate::definition::live::Live;
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::Mode;
use crate::definition::plan::webhook::{Address, Verify, Webhook, WebhookSecret};
use crate::respond::{Answer, Refusal};
use crate::store::model::{Accepted, NewEvent};
use crate::store::{Events, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::{self, Span};
use crate::template::payload::Numbers;

/// The header of an acknowledgement that names the event.
pub const EVENT_HEADER: HeaderName = HeaderName::from_static("trunkline-event");
/// When a sender should come again while nothing can be stored.
const STORE_RETRY: Duration = Duration::from_secs(10);
/// The result of an event that its endpoint does not take.
const PASSED_OVER: &str = "unsubscribed";
/// The label of metrics for what names no integration of ours.
const OTHER: &str = "other";

/// What a receiver works with.
#[derive(Clone)]
pub struct Parts {
    /// The definitions in force.
    pub live: Arc<Live>,
    /// Where events are stored.
    pub events: Arc<dyn Events>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness for event ids.
    pub random: Arc<dyn Random>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// The managed endpoints.
    pub endpoints: Arc<Endpoints>,
    /// What came to them.
    pub tallies: Arc<Tallies>,
    /// Where what was taken in is remembered for people.
    pub activity: Arc<Activity>,
}

/// Takes webhooks in.
pub struct Receiver {
    parts: Parts,
    limits: Limits,
    readings: Readings,
    refused: Arc<RefusedList>,
    silence: Arc<Silence>,
}

impl Receiver {
    /// A receiver with full budgets that has refused nothing.
    pub fn new(parts: Parts) -> Self {
        let (limits, readings) = (Limits::default(), Readings::default());
        Self { parts, limits, readings, refused: Arc::default(), silence: Arc::default() }
    }

    /// What was refused lately.
    pub fn refused(&self) -> Arc<RefusedList> {
        Arc::clone(&self.refused)
    }

    /// When webhooks were last verified.
    pub fn silence(&self) -> Arc<Silence> {
        Arc::clone(&self.silence)
    }
}

#[async_trait]
impl Receive for Receiver {
    async fn admit(&self, head: &RequestHead) -> Result<Admission, Answer> {
        let admission = self.find(head)?;
        let visit = self.visit(&admission, head)?;
        visit.is_secure()?;
        visit.is_wanted()?;
        visit.fits()?;
        visit.can_be_verified()?;
        Ok(admission)
    }

    async fn receive(&self, admission: Admission, head: RequestHead, body: Bytes) -> Answer {
        let traces = &self.parts.metrics.traces;
        let span = traces.of_anyone(&head.headers, || format!("webhook {}", admission.integration.id));
        let place = span.as_ref().map(|span| span.context.clone());
        let taken = match self.visit(&admission, &head) {
            Ok(visit) => trace::within(place, Box::pin(visit.take(body))).await,
            Err(refused) => Err(refused),
        };
        let answer = taken.unwrap_or_else(|refused| refused);
        traces.end(span.and_then(|span| described(span, &admission, &answer)));
        answer
    }
}

/// The span of a webhook, unless it was refused: anyone can send such a one.
fn described(mut span: Span, admission: &Admission, answer: &Answer) -> Option<Span> {
    let status = answer.status;
    span.set("http.request.method", "POST");
    span.set("http.response.status_code", status.as_u16());
    span.set("trunkline.integration", &*admission.integration.id);
    let event = answer.headers.iter().find(|(name, _)| *name == EVENT_HEADER);
    span.set_some("trunkline.event", event.and_then(|(_, value)| value.to_str().ok()));
    if status.is_server_error() {
        span.fail(status.as_str());
    }
    (!status.is_client_error()).then_some(span)
}

impl Receiver {
    fn find(&self, head: &RequestHead) -> Result<Admission, Answer> {
        let generation = self.parts.live.load();
        let integration = generation.integration(&head.integration).cloned();
        let Some((integration, webhook)) =
            integration.as_ref().and_then(|found| Some((found, found.webhook.as_ref()?)))
        else {
            let faulty = integration.is_none() && generation.is_faulty(&head.integration);
            return Err(if faulty { self.not_in_force() } else { self.unknown() });
        };
        let endpoint = match &head.token {
            None if webhook.address == Address::Plain => None,
            None => return Err(self.unknown()),
            Some(token) => Some(self.endpoint(integration, webhook, (token, head.source))?),
        };
        let (integration, max_body) = (Arc::clone(integration), webhook.max_body);
        Ok(Admission { generation, integration, endpoint, max_body, admitted_at: self.parts.clock.monotonic() })
    }

    /// The managed endpoint that a token names. Guesses count against their source as what does not verify.
    fn endpoint(
        &self,
        integration: &Integration,
        webhook: &Webhook,
        (token, source): (&Secret, Option<IpAddr>),
    ) -> Result<Arc<Endpoint>, Answer> {
        if let Some(endpoint) = self.parts.endpoints.at(&integration.id, token) {
            return Ok(endpoint);
        }
        let now = self.parts.clock.monotonic();
        match self.limits.charge_unverified(&integration.id, source, webhook.rate_per_source, now) {
            Ok(()) => Err(self.unknown()),
            Err(wait) => {
                self.count(&integration.id, Refusal::RateLimited.code());
                Err(Refusal::RateLimited.answer_after("this webhook takes no more requests for now", wait).closing())
            }
        }
    }

    /// A sender must not take an address for gone whose definition has an error just now, as while a secret of it cannot
    /// be read.
    fn not_in_force(&self) -> Answer {
        self.count(OTHER, Refusal::Unavailable.code());
        Refusal::Unavailable.answer_after("nothing takes webhooks at this address just now", STORE_RETRY).closing()
    }

    fn unknown(&self) -> Answer {
        self.count(OTHER, Refusal::NotFound.code());
        Refusal::NotFound.answer("nothing takes webhooks at this address")
    }

    fn visit<'a>(&'a self, admission: &'a Admission, head: &'a RequestHead) -> Result<Visit<'a>, Answer> {
        match &admission.integration.webhook {
            Some(webhook) => Ok(Visit { receiver: self, admission, head, webhook, now: self.parts.clock.now() }),
            None => Err(self.unknown()),
        }
    }

    fn count(&self, integration: &str, result: &str) {
        self.parts.metrics.webhooks_received.with_label_values(&[integration, result]).inc();
    }
}

/// One request at one integration's webhook.
struct Visit<'a> {
    receiver: &'a Receiver,
    admission: &'a Admission,
    head: &'a RequestHead,
    webhook: &'a Webhook,
    now: Timestamp,
}

/// Where it came to.
impl Visit<'_> {
    fn endpoint(&self) -> Option<&Endpoint> {
        self.admission.endpoint.as_deref()
    }

    /// The secrets that count: an endpoint has its own.
    fn secrets(&self) -> &[WebhookSecret] {
        self.endpoint().map_or(&self.webhook.secrets, |endpoint| &endpoint.secrets)
    }

    fn came(&self, came: Came) {
        if let Some(endpoint) = self.endpoint() {
            self.receiver.parts.tallies.count(endpoint.id, came, self.now);
        }
    }
}

/// The stages that need no body.
impl Visit<'_> {
    /// Outside development mode a webhook comes by HTTPS: to a `public_url` that is, and by what a proxy
    /// before us says.
    fn is_secure(&self) -> Result<(), Answer> {
        let gateway = &self.admission.generation.gateway;
        if gateway.fixed.mode == Mode::Development {
            return Ok(());
        }
        let plain = |value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"https");
        let forwarded_plain = self.head.headers.get("x-forwarded-proto").is_some_and(plain);
        if gateway.public_url.scheme() == "https" && !forwarded_plain {
            return Ok(());
        }
        Err(self.refuse(Refusal::HttpsRequired, "webhooks are taken by HTTPS only: `public_url` must be an https URL"))
    }

    fn is_wanted(&self) -> Result<(), Answer> {
        if handshake::takes(self.webhook, &self.head.method) {
            return Ok(());
        }
        let answer = self.refuse(Refusal::MethodNotAllowed, "webhooks come by POST");
        Err(answer.with(header::ALLOW, HeaderValue::from_static("POST")))
    }

    fn fits(&self) -> Result<(), Answer> {
        match self.head.content_length {
            Some(length) if length > self.webhook.max_body => {
                let detail = format!("the body has {length} bytes, more than {}", self.webhook.max_body);
                Err(self.refuse(Refusal::BodyTooLarge, &detail).closing())
            }
            _ => Ok(()),
        }
    }

    fn can_be_verified(&self) -> Result<(), Answer> {
        if handshake::may_be_unverified(self.webhook, &self.head.method) {
            return Ok(());
        }
        verify::precheck(&self.webhook.verify, self.secrets(), self.head, self.now)
            .map_err(|failure| self.unverified(&failure, None))
    }
}

/// The stages that have the body.
impl Visit<'_> {
    async fn take(&self, body: Bytes) -> Result<Answer, Answer> {
        let wanted = self.receiver.readings.of(self.admission, self.webhook);
        let came = scope::Came { head: self.head, body: &body };
        let scope = Scope::of(came, &wanted, Numbers::Values);
        self.is_run(&body)?;
        if let Some(reply) = self.handshake_unverified(&scope)? {
            return Ok(reply);
        }
        let verified = self.verify(&body, &scope)?;
        if let Some(reply) = self.handshake_verified(&scope) {
            return Ok(reply);
        }
        self.is_event()?;
        self.has_room()?;
        let identity = self.identify((came, &scope), &verified)?;
        if let Some(passed_over) = self.pass_over(&identity) {
            return Ok(passed_over);
        }
        self.accept(body, identity).await
    }

    /// A webhook of which a part is not run answers no handshake either: a provider would take it for set up, and a
    /// key that comes once would be lost.
    fn is_run(&self, body: &Bytes) -> Result<(), Answer> {
        match &self.webhook.verify {
            Verify::NotYet(part) => Err(self.unverified(&Failure::NotYet(part.clone()), Some(body))),
            _ => Ok(()),
        }
    }

    fn handshake_unverified(&self, scope: &Scope) -> Result<Option<Answer>, Answer> {
        let Some(found) = handshake::find(self.webhook, &self.head.method, &scope.context, false) else {
            return Ok(None);
        };
        self.charge()?;
        self.receiver.count(&self.admission.integration.id, "handshake");
        Ok(Some(handshake::answer(&found.reply, &scope.context)))
    }

    fn verify(&self, body: &Bytes, scope: &Scope) -> Result<Verified, Answer> {
        let public_url = &self.admission.generation.gateway.public_url;
        let request = Request { head: self.head, body, public_url, context: &scope.context, now: self.now };
        let verified = verify::verify(&self.webhook.verify, self.secrets(), &request)
            .map_err(|failure| self.unverified(&failure, Some(body)))?;
        if self.receiver.parts.metrics.notices.are_wanted() {
            self.receiver.silence.hear(&self.admission.integration.id, self.now);
        }
        let (integration, secret) = (&*self.admission.integration.id, &*verified.secret);
        if verified.first {
            tracing::debug!(integration, secret, "webhook verified");
        } else {
            tracing::info!(integration, secret, "webhook verified with a secret that is not the first of the list");
        }
        Ok(verified)
    }

    fn handshake_verified(&self, scope: &Scope) -> Option<Answer> {
        let found = handshake::find(self.webhook, &self.head.method, &scope.context, true)?;
        self.receiver.count(&self.admission.integration.id, "handshake");
        Some(handshake::answer(&found.reply, &scope.context))
    }

    fn is_event(&self) -> Result<(), Answer> {
        if self.head.method == Method::POST {
            return Ok(());
        }
        Err(self.refuse(Refusal::MethodNotAllowed, "this request is none of the handshakes, and events come by POST"))
    }

    fn has_room(&self) -> Result<(), Answer> {
        let id = &self.admission.integration.id;
        let now = self.receiver.parts.clock.monotonic();
        self.receiver.limits.take_verified(id, self.webhook.rate, now).map_err(|wait| self.too_many(wait))
    }

    fn identify(&self, seen: (scope::Came<'_>, &Scope), verified: &Verified) -> Result<Identity, Answer> {
        let identity = identify::identify(self.webhook, seen, verified)
            .map_err(|error| self.refuse(Refusal::MalformedRequest, &error.to_string()))?;
        if let Some(why) = &identity.untold {
            let integration = &*self.admission.integration.id;
            tracing::warn!(
                integration,
                "webhook stored for the dead-letter list, because {why}; mend the definition and replay the event"
            );
        }
        Ok(identity)
    }

    /// The answer to an event of a type that its endpoint does not take: acknowledged, so that it does not come again,
    /// and not stored. One that nobody can tell is never passed over.
    fn pass_over(&self, identity: &Identity) -> Option<Answer> {
        let endpoint = self.endpoint().filter(|_| identity.untold.is_none())?;
        if endpoint.takes(&identity.event_type) {
            return None;
        }
        self.came(Came::Taken);
        self.receiver.count(&self.admission.integration.id, PASSED_OVER);
        Some(Answer::json(StatusCode::OK, &serde_json::json!({ "result": PASSED_OVER })))
    }

    async fn accept(&self, body: Bytes, identity: Identity) -> Result<Answer, Answer> {
        let parts = &self.receiver.parts;
        let unavailable = |detail: &str| {
            self.came(Came::Refused);
            self.receiver.count(&self.admission.integration.id, Refusal::StoreUnavailable.code());
            Refusal::StoreUnavailable.answer_after(detail, STORE_RETRY)
        };
        let id = EventId::generate(self.now, &*parts.random).map_err(|error| unavailable(&error.to_string()))?;
        let bytes = body.len() as u64;
        let result = if identity.untold.is_some() { "untold" } else { "accepted" };
        let mut headers = keep::headers(&self.head.headers, &self.webhook.verify);
        headers.extend(trace::stored());
        let event = NewEvent {
            id,
            integration: Arc::clone(&self.admission.integration.id),
            endpoint: self.endpoint().map(|endpoint| Arc::clone(&endpoint.name)),
            event_type: identity.event_type,
            delivery_id: identity.delivery_id,
            dedupe_window: self.webhook.dedupe_window,
            received_at: self.now,
            query: query_without_secret(&self.head.query, &self.webhook.verify),
            headers,
            body,
        };
        match parts.events.accept(event).await {
            Ok(Accepted::New) => Ok(self.acknowledge((StatusCode::ACCEPTED, bytes), id, result)),
            Ok(Accepted::Duplicate(first)) => Ok(self.acknowledge((StatusCode::OK, bytes), first, "duplicate")),
            Err(StoreError::TooLarge { .. }) => {
                Err(self.refuse(Refusal::BodyTooLarge, "the event is larger than the store accepts"))
            }
            Err(error) => {
                tracing::warn!(integration = &*self.admission.integration.id, "a webhook was not stored: {error}");
                Err(unavailable("the event could not be made durable; send it again"))
            }
        }
    }

    fn acknowledge(&self, (status, bytes): (StatusCode, u64), id: EventId, result: &str) -> Answer {
        self.came(Came::Taken);
        let integration = &*self.admission.integration.id;
        let taken = self.receiver.parts.clock.monotonic().saturating_sub(self.admission.admitted_at);
        let metrics = &self.receiver.parts.metrics;
        metrics.webhook_ack_duration.with_label_values(&[integration]).observe(taken.as_secs_f64());
        self.receiver.count(integration, result);
        let id = id.to_string();
        self.remember((status, bytes), taken, &id);
        let answer = Answer::json(status, &serde_json::json!({ "event": id, "result": result }));
        match HeaderValue::from_str(&id) {
            Ok(value) => answer.with(EVENT_HEADER, value),
            Err(_) => answer,
        }
    }

    /// What was taken in has an entry of the activity. What was refused has none: anyone can send it, and it must not
    /// push out what calls left there; [`RefusedList`] has it.
    fn remember(&self, (status, bytes): (StatusCode, u64), taken: Duration, event: &str) {
        self.receiver.parts.activity.record(CallRecord {
            at: self.now,
            generation: self.admission.generation.number,
            integration: Arc::clone(&self.admission.integration.id),
            connection: self.endpoint().map_or_else(|| Arc::from(""), |endpoint| Arc::clone(&endpoint.connection)),
            asker: Asker::Event(event.to_owned()),
            endpoint: None,
            method: self.head.method.clone(),
            origin: Arc::from(""),
            path: format!("/webhooks/{}", self.admission.integration.id),
            status: Some(status.as_u16()),
            error: None,
            duration_ms: u64::try_from(taken.as_millis()).unwrap_or(u64::MAX),
            sent_bytes: bytes,
            received_bytes: 0,
            course: Course::default(),
            told: Told::default().traced(),
        });
    }
}

/// Refusing.
impl Visit<'_> {
    fn refuse(&self, refusal: Refusal, detail: &str) -> Answer {
        self.came(Came::Refused);
        self.receiver.count(&self.admission.integration.id, refusal.code());
        refusal.answer(detail)
    }

    fn too_many(&self, wait: Duration) -> Answer {
        self.came(Came::Refused);
        self.receiver.count(&self.admission.integration.id, Refusal::RateLimited.code());
        Refusal::RateLimited.answer_after("this webhook takes no more requests for now", wait)
    }

    /// Charges the source for a request that did not verify.
    fn charge(&self) -> Result<(), Answer> {
        let (id, rate) = (&self.admission.integration.id, self.webhook.rate_per_source);
        let now = self.receiver.parts.clock.monotonic();
        let charged = self.receiver.limits.charge_unverified(id, self.head.source, rate, now);
        charged.map_err(|wait| self.too_many(wait))
    }

    /// The answer to a request that could not be verified. What a source sends beyond its budget is
    /// counted and not kept, so that a flood does not wash out the list.
    fn unverified(&self, failure: &Failure, body: Option<&Bytes>) -> Answer {
        if let Err(too_many) = self.charge() {
            return too_many;
        }
        let (integration, reason) = (&*self.admission.integration.id, failure.reason());
        tracing::info!(integration, reason, "webhook refused: {failure}");
        self.receiver.refused.record(Refused {
            at: self.now,
            integration: Arc::clone(&self.admission.integration.id),
            webhook: self.endpoint().map(|endpoint| endpoint.id),
            reason,
            detail: failure.to_string(),
            headers: self.head.headers.keys().map(|name| name.as_str().to_owned()).collect(),
            timestamp_skew_ms: match failure {
                Failure::Stale { skew_ms } => Some(*skew_ms),
                _ => None,
            },
            secrets: match failure {
                Failure::Mismatch => verify::current_ids(self.secrets(), self.now),
                _ => Vec::new(),
            },
            body_bytes: body.map(|body| body.len() as u64),
            body_sha256: body.map(|body| identify::digest(body)),
        });
        self.refuse(failure.refusal(), &failure.to_string())
    }
}
