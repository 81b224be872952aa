//! One claimed delivery, from its lease to what is recorded of it.
//!
//! Whatever happens in between, also a panic, ends in a record: an attempt with its verdict, or the lease
//! given back. What cannot be recorded because the store fails is left to its lease, which runs out.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::content::Seen;
use super::durable::{self, Conclusion, DurableCall};
use super::job::{Again, Errand, Report, Task};
use super::matching;
use super::{Parts, identity, schedule};
use crate::base::clock::Timestamp;
use crate::base::id::{DeliveryId, EventId};
use crate::definition::plan::Integration;
use crate::definition::plan::gateway::Gateway;
use crate::definition::plan::rule::{Action, Retry, What};
use crate::store::StoreError;
use crate::store::model::{Attempt, Event, EventHead, Item, Lane, Lease, Leased, NO_RULE, Verdict};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notice::{Kind, Notice, OWN};
use crate::telemetry::trace::context::STORED;
use crate::telemetry::trace::{self, Span, TraceContext};

/// The most bytes of an error text that are recorded.
const LONGEST_ERROR: usize = 1_024;

/// Items of one lane that are no longer under way.
#[derive(Debug)]
pub(super) struct Ended {
    pub leases: Vec<Lease>,
    pub lane: Lane,
    /// Whether the other side was well, where that is known.
    pub well: Option<bool>,
}

/// Runs a claimed delivery to its end, or until `cut`.
pub(super) async fn run(parts: Arc<Parts>, leased: Leased, cut: CancellationToken) -> Ended {
    let one = One { parts: &parts, leased: &leased, cut: &cut };
    let well = match AssertUnwindSafe(one.run()).catch_unwind().await {
        Ok(well) => well,
        Err(_) => one.after_panic().await,
    };
    Ended { leases: vec![leased.lease], lane: leased.lane.clone(), well }
}

struct One<'a> {
    parts: &'a Parts,
    leased: &'a Leased,
    cut: &'a CancellationToken,
}

/// A delivery about to be tried, or what is already known of it.
enum Ready {
    Task(Box<Task>),
    /// Nothing is to be tried: this is recorded.
    Settled(Report, Verdict),
    /// A try before has ended so, and its outcome is kept: only that is not recorded yet.
    Concluded(Report, Verdict),
    /// The store did not answer: the lease runs out and another look is taken.
    Unread,
}

impl One<'_> {
    async fn run(&self) -> Option<bool> {
        match &self.leased.item {
            // Those are matched in groups.
            Item::Match(_) => None,
            Item::Deliver { id, rule, action } => self.deliver(*id, rule, *action).await,
        }
    }

    async fn deliver(&self, id: DeliveryId, rule: &str, action: u16) -> Option<bool> {
        let started = self.parts.clock.now();
        let begun = self.parts.clock.monotonic();
        let event = match self.parts.events.event(id.event).await {
            Ok(Some(event)) => Arc::new(event),
            Ok(None) => {
                let why = "the event is past its retention, so there is nothing to carry out";
                self.record(started, &Report::failed(None, why, Again::Never), Verdict::Dead).await;
                return None;
            }
            Err(error) => {
                self.unread(&error);
                return None;
            }
        };
        let (report, verdict, task) = match self.ready(&event, id, (rule, action), started).await {
            Ready::Unread => return None,
            Ready::Settled(report, verdict) => (report, verdict, None),
            Ready::Concluded(report, verdict) => {
                let is_recorded = self.record_taking(started, Duration::ZERO, &report, verdict).await;
                if is_recorded && verdict == Verdict::Dead {
                    self.tell_dead(&event.head, (id, rule), &report);
                }
                return None;
            }
            Ready::Task(task) => {
                let Some(report) = self.attempt(&task).await else {
                    self.give_back().await;
                    return None;
                };
                let gateway = &task.generation.gateway;
                let retry = task.action().map_or(gateway.durable_calls, |action| retry_of(action, gateway));
                self.parts.look_at_the_clocks().await;
                let (now, leased) = (self.parts.clock.now(), self.leased);
                let verdict =
                    schedule::verdict(&report, (leased.attempt, leased.since), &retry, now, &*self.parts.random);
                (report, verdict, Some(task))
            }
        };
        let took = self.parts.clock.monotonic().saturating_sub(begun);
        if let Some(task) = &task {
            self.count(task, verdict, took);
        }
        self.tell(&event, id, &report, verdict);
        if let Err(error) = self.conclude(&event, id, &report, verdict).await {
            self.unread(&error);
            return None;
        }
        if self.record_taking(started, took, &report, verdict).await && verdict == Verdict::Dead {
            self.tell_dead(&event.head, (id, rule), &report);
        }
        match &report.result {
            Ok(()) => Some(true),
            Err(failed) if failed.again == Again::Never => None,
            Err(_) => Some(false),
        }
    }

    /// Keeps the outcome of a durable call that is not tried again.
    async fn conclude(
        &self,
        event: &Event,
        delivery: DeliveryId,
        report: &Report,
        verdict: Verdict,
    ) -> Result<(), StoreError> {
        let call = match verdict {
            Verdict::Retry { .. } | Verdict::Held { .. } => None,
            Verdict::Done | Verdict::Dead => DurableCall::of(event),
        };
        let Some(call) = &call else { return Ok(()) };
        let (integration, attempts) = (&event.head.integration, self.leased.attempt);
        self.parts.act.conclude(Conclusion { integration, call, delivery, report, attempts }).await
    }

    /// Tries the action, as a span of the trace that its event belongs to. `None` when it was cut and may be tried
    /// again from the start.
    async fn attempt(&self, task: &Task) -> Option<Report> {
        let traces = &self.parts.metrics.traces;
        let stored = traces.are_on().then(|| stored_trace(&task.event)).flatten();
        let mut span = traces.begin(stored.as_ref(), trace::Kind::Internal, || format!("delivery {}", task.label()));
        let place = span.as_ref().map(|span| span.context.clone());
        let report = trace::within(place, Box::pin(self.attempt_once(task))).await?;
        if let Some(span) = &mut span {
            self.describe(span, task, &report);
        }
        traces.end(span);
        Some(report)
    }

    fn describe(&self, span: &mut Span, task: &Task, report: &Report) {
        let head = &task.event.head;
        span.set("trunkline.integration", &*head.integration);
        span.set("trunkline.event", head.id.to_string());
        span.set("trunkline.event_type", &*head.event_type);
        span.set("trunkline.delivery", task.delivery.to_string());
        span.set_some("trunkline.rule", task.rule().map(|rule| &*rule.id));
        span.set("trunkline.attempt", self.leased.attempt);
        span.set_some("http.response.status_code", report.status);
        if report.result.is_err() {
            let why = report.status.map_or_else(|| "failed".to_owned(), |status| status.to_string());
            span.set("error.type", &*why);
            span.fail(why);
        }
    }

    async fn attempt_once(&self, task: &Task) -> Option<Report> {
        let tried = AssertUnwindSafe(self.parts.act.act(task)).catch_unwind();
        tokio::select! {
            tried = tried => Some(tried.unwrap_or_else(|_| self.panicked(task))),
            () = self.cut.cancelled() => {
                (!self.parts.act.may_be_cut(task)).then(|| Report::failed(None, INTERRUPTED, Again::Never))
            }
        }
    }

    fn panicked(&self, task: &Task) -> Report {
        self.parts.metrics.panics.with_label_values(&["delivery"]).inc();
        let again = if self.parts.act.may_be_cut(task) { Again::Scheduled } else { Again::Never };
        Report::failed(None, "the gateway itself failed while it carried this out (a panic): its log says where", again)
    }

    async fn ready(&self, event: &Arc<Event>, id: DeliveryId, (rule, action): (&str, u16), now: Timestamp) -> Ready {
        let dead = |why: String| Ready::Settled(Report::failed(None, why, Again::Never), Verdict::Dead);
        let name = &event.head.integration;
        let generation = self.parts.live.load();
        let loaded = generation.home(name).map(Arc::clone);
        let told = loaded.as_deref().map_or_else(|| Ok(Arc::clone(event)), |of| identity::of_stored(of, event));
        if rule == NO_RULE {
            let why = told.err().map(|why| format!(" ({why})")).unwrap_or_default();
            return dead(format!(
                "the rules of `{name}` could not be matched{why}: mend the cause and replay the event"
            ));
        }
        let Some(integration) = loaded else {
            let verdict = schedule::unloaded(event.head.received_at, now);
            return Ready::Settled(matching::unloaded(name), verdict);
        };
        let event = &match told {
            Ok(event) => event,
            Err(why) => return dead(format!("nobody can tell what event this is: {why}")),
        };
        let errand = match durable::errand(event) {
            Some(errand) => Some(errand),
            None => match self.planned(id, rule).await {
                Ok(planned) => {
                    let planned = planned.as_ref().map(|(words, before)| (words.as_str(), *before));
                    of_rule(&integration, rule, (action, planned))
                }
                Err(error) => {
                    self.unread(&error);
                    return Ready::Unread;
                }
            },
        };
        let Some(errand) = errand else {
            return dead(format!(
                "the rule `{rule}` of `{name}` no longer has this action: replay the event to match its rules anew"
            ));
        };
        let event = Arc::clone(event);
        let action = errand.action(&integration);
        let seen = Seen::of(&event, action.map(|action| action.what.names()).unwrap_or_default());
        self.checked(Task { generation, integration, event, seen, delivery: id, errand }).await
    }

    /// The rule's condition decides once more, by the definition in force; and what may not be done twice is
    /// not tried after a try of unknown end.
    async fn checked(&self, task: Task) -> Ready {
        let holds = task.rule().and_then(|rule| matching::holds(rule, &task.event));
        match holds {
            Some(Err(error)) => {
                let rule = task.rule().map(|rule| Arc::clone(&rule.id)).unwrap_or_default();
                let why = format!("`if` of the rule `{rule}` cannot be decided: {error}");
                return Ready::Settled(Report::failed(None, why, Again::Never), Verdict::Dead);
            }
            Some(Ok(false)) => return Ready::Settled(Report::done(None), Verdict::Done),
            Some(Ok(true)) | None => {}
        }
        if !self.leased.unknown {
            return Ready::Task(Box::new(task));
        }
        // What is known of its end was kept before the end itself.
        match durable::known_outcome(&*self.parts.events, &task.event, self.leased.since).await {
            Ok(Some(report)) => {
                let verdict = if report.result.is_ok() { Verdict::Done } else { Verdict::Dead };
                Ready::Concluded(report, verdict)
            }
            Ok(None) if self.parts.act.may_be_cut(&task) => Ready::Task(Box::new(task)),
            Ok(None) => Ready::Settled(Report::failed(None, INTERRUPTED, Again::Never), Verdict::Dead),
            Err(error) => {
                self.unread(&error);
                Ready::Unread
            }
        }
    }

    /// The action that was planned, in words, and how many with the same words stand before it.
    async fn planned(&self, id: DeliveryId, rule: &str) -> Result<Option<(String, usize)>, StoreError> {
        let deliveries = self.parts.events.deliveries(id.event).await?;
        let Some(summary) = deliveries.iter().find(|delivery| delivery.id == id).map(|found| found.summary.clone())
        else {
            return Ok(None);
        };
        let same = deliveries.iter().take_while(|delivery| delivery.id != id);
        let before = same.filter(|delivery| delivery.rule == rule && delivery.summary == summary).count();
        Ok(Some((summary, before)))
    }

    fn count(&self, task: &Task, verdict: Verdict, took: Duration) {
        let integration = &*task.integration.id;
        let action = task.label();
        let result = word(verdict);
        self.parts.metrics.delivery_attempts.with_label_values(&[integration, action, result]).inc();
        self.parts.metrics.delivery_duration.with_label_values(&[integration, action]).observe(took.as_secs_f64());
    }

    fn tell(&self, event: &Event, id: DeliveryId, report: &Report, verdict: Verdict) {
        let (attempt, lane) = (self.leased.attempt, &*self.leased.lane.0);
        let trace_id = stored_trace(event).map(|place| place.trace.to_string());
        match (&report.result, verdict) {
            (Err(failed), Verdict::Dead) => {
                tracing::warn!(delivery.id = %id, attempt, lane, trace_id, "delivery given up: {}", failed.error);
            }
            (Err(failed), _) => {
                tracing::info!(delivery.id = %id, attempt, lane, trace_id, "delivery will be tried again: {}", failed.error);
            }
            (Ok(()), _) => tracing::debug!(delivery.id = %id, attempt, lane, trace_id, "delivery done"),
        }
    }

    /// Tells of a delivery that was given up; but never of one that would have told something, so that what cannot be
    /// told makes nothing more to tell.
    fn tell_dead(&self, head: &EventHead, (id, rule): (DeliveryId, &str), report: &Report) {
        if &*head.integration == OWN {
            self.parts.metrics.notices_told.with_label_values(&["undelivered"]).inc();
            return;
        }
        self.parts.metrics.notices.tell(|| {
            let what = format!("A delivery of an event of `{}` was given up.", head.integration);
            let step = "See the dead-letter list; mend the cause and replay it.";
            let notice = Notice::new(Kind::EventDead, self.parts.clock.now(), what, step)
                .of(&head.integration)
                .at(format!("/events/{}", head.id))
                .with("event", head.id.to_string())
                .with("event_type", &*head.event_type)
                .with("delivery", id.to_string())
                .with("rule", rule);
            let notice = Notice { connection: head.connection().map(Arc::from), ..notice };
            match &report.result {
                Err(failed) => notice.because(bounded(&failed.error)),
                Ok(()) => notice,
            }
        });
    }

    async fn record(&self, started: Timestamp, report: &Report, verdict: Verdict) {
        self.record_taking(started, Duration::ZERO, report, verdict).await;
    }

    /// Answers whether it is on record.
    async fn record_taking(&self, started_at: Timestamp, took: Duration, report: &Report, verdict: Verdict) -> bool {
        let error = report.result.as_ref().err().map(|failed| bounded(&failed.error));
        let attempt = Attempt {
            number: self.leased.attempt,
            started_at,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            status: report.status,
            error,
        };
        let recorded = self.parts.work.finish(self.leased.lease, attempt, verdict).await;
        let is_recorded = recorded.is_ok();
        self.told(recorded, "an attempt");
        is_recorded
    }

    async fn give_back(&self) {
        let recorded = self.parts.work.release(self.leased.lease).await;
        self.told(recorded, "a lease given back");
    }

    async fn after_panic(&self) -> Option<bool> {
        self.parts.metrics.panics.with_label_values(&["queue"]).inc();
        let now = self.parts.clock.now();
        let report = Report::failed(None, PANICKED, Again::Never);
        self.record(now, &report, Verdict::Dead).await;
        if let Item::Deliver { id, rule, .. } = &self.leased.item
            && let Ok(Some(head)) = self.parts.events.head(id.event).await
        {
            self.tell_dead(&head, (*id, rule), &report);
        }
        None
    }

    fn told(&self, recorded: Result<(), StoreError>, what: &str) {
        told(self.leased.lease.event, recorded, what);
    }

    fn unread(&self, error: &StoreError) {
        unread(&self.parts.metrics, self.leased.lease.event, error);
    }
}

/// The place in a trace that an event came with.
fn stored_trace(event: &Event) -> Option<TraceContext> {
    let (_, value) = event.headers.iter().find(|(name, _)| name == STORED)?;
    TraceContext::parse(value)
}

/// What is said of an item that ended in a panic.
pub(super) const PANICKED: &str = "the gateway itself failed (a panic): its log says where";

/// Logs what was not recorded of an event's item.
pub(super) fn told(event: EventId, recorded: Result<(), StoreError>, what: &str) {
    match recorded {
        Ok(()) => {}
        Err(StoreError::LeaseLost) => {
            tracing::info!(event.id = %event, "{what} came too late: the lease had run out");
        }
        Err(error) => tracing::warn!(event.id = %event, "{what} was not recorded: {error}"),
    }
}

/// Counts and logs that an event could not be read.
pub(super) fn unread(metrics: &Metrics, event: EventId, error: &StoreError) {
    metrics.store_unread.with_label_values::<&str>(&[]).inc();
    tracing::warn!(event.id = %event, "an event could not be read, and is looked at again later: {error}");
}

/// What is said of a try whose end nobody knows and which may not be made twice.
const INTERRUPTED: &str = "interrupted while the call was under way: it may have been carried out, and the service was \
    given no idempotency key, so it is not sent again by itself; check at the service, then replay";

/// What a rule says is to be done: the same that was planned, where it was planned or, in a rule whose actions changed
/// places since, where it stands now. `planned` has the words of the action, and how many of the event's deliveries before
/// it are of the same rule with the same words.
fn of_rule(integration: &Integration, id: &str, (action, planned): (u16, Option<(&str, usize)>)) -> Option<Errand> {
    let rule = integration.rules.iter().position(|known| &*known.id == id)?;
    let (actions, action) = (&integration.rules.get(rule)?.actions, usize::from(action));
    let Some((words, before)) = planned else {
        return (action < actions.len()).then_some(Errand::OfRule { rule, action });
    };
    let is_same = |action: &Action| matching::summary(action) == words;
    let here = actions.get(action).is_some_and(is_same).then_some(action);
    let same = || actions.iter().enumerate().filter(|(_, action)| is_same(action)).nth(before);
    let action = here.or_else(|| same().map(|(place, _)| place))?;
    Some(Errand::OfRule { rule, action })
}

/// The action's schedule; where it says nothing, the destination's, and without that the usual one.
fn retry_of(action: &Action, gateway: &Gateway) -> Retry {
    let of_destination = || match &action.what {
        What::Deliver { destination, .. } => gateway.destination(destination)?.retry,
        _ => None,
    };
    action.retry.or_else(of_destination).unwrap_or_default()
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "done",
        Verdict::Retry { .. } => "retry",
        Verdict::Held { .. } => "held",
        Verdict::Dead => "dead",
    }
}

fn bounded(error: &str) -> String {
    let (kept, _) = error.split_at(error.floor_char_boundary(LONGEST_ERROR));
    kept.to_owned()
}
