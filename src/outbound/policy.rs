//! The policy as it runs: what a call meets between being complete and being sent, and what its answer teaches.
//!
//! One [`Policy`] for each integration, found once when a connection is prepared and the same for both transports.
//! Its state outlives reloads: what a changed definition left the same of it goes on. Called by `call` and by the
//! proxy door: [`Policy::admit`] before a call goes, then [`Pass::answered`] once for each.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use super::breaker::circuit::End;
use super::breaker::{Breakers, Guard, Refused, end_of};
use super::limit::{Ask, Count, Full, Lane, Limiter, Pause, Permit, Why};
use super::quota::Report;
use super::retry::{Between, Budget, Fault, Next, Spent};
use super::told::{self, Seen};
use crate::base::clock::Clock;
use crate::base::random::Random;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::policy::{Reading, Scope};
use crate::net::{DialError, Failure, Reason, Received, Sent};
use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;

/// How the limits of a call stand (draft-ietf-httpapi-ratelimit-headers-11).
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// Which limits they are.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The policy of every integration that is called.
#[derive(Debug)]
pub struct Policies {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    kept: RwLock<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    generation: u64,
    policies: HashMap<Arc<str>, Arc<Policy>>,
}

/// The policy of one integration.
#[derive(Debug)]
pub struct Policy {
    integration: Arc<Integration>,
    limiter: Option<Arc<Limiter>>,
    breakers: Arc<Breakers>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// A call that may go. Dropped without a word it was sent, and its answer never came.
#[derive(Debug)]
pub struct Pass {
    policy: Arc<Policy>,
    permit: Option<Permit>,
    guard: Option<Guard>,
    waited: Duration,
}

/// A call that may not go now. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Held {
    /// A limit, or the service's own count.
    #[error("{}", words(.0))]
    Full(Box<Full>),
    /// A circuit that is open.
    #[error("{}", open_words(.0))]
    Open(Refused),
}

impl Policies {
    /// Policies by this clock.
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { clock, metrics, kept: RwLock::default() }
    }

    /// The policy of an integration. The first one after a reload lets go of what the reload ended.
    pub fn of(&self, generation: &Generation, integration: &Arc<Integration>) -> Arc<Policy> {
        {
            let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(policy) = kept.policies.get(&integration.id)
                && Arc::ptr_eq(&policy.integration, integration)
            {
                return Arc::clone(policy);
            }
        }
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.generation < generation.number {
            kept.generation = generation.number;
            kept.policies.retain(|id, _| generation.integration(id).is_some());
        }
        // A call that began before the reload does not bring back what it ended: it goes by what is in force.
        if let Some(policy) = kept.policies.get(&integration.id).filter(|_| generation.number < kept.generation) {
            return Arc::clone(policy);
        }
        let policy = Arc::new(self.make(integration, kept.policies.get(&integration.id)));
        if kept.generation == generation.number {
            kept.policies.insert(Arc::clone(&integration.id), Arc::clone(&policy));
        }
        policy
    }

    /// Now, in monotonic time.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn make(&self, integration: &Arc<Integration>, before: Option<&Arc<Policy>>) -> Policy {
        let plan = integration.api.as_ref().map(|api| &api.policy);
        let bounded = plan.filter(|plan| !plan.limits.is_empty() || plan.quota.told.is_some());
        let known = before.and_then(|before| before.limiter.as_ref());
        let limiter = match bounded {
            Some(plan) => {
                let waiting = self.metrics.calls_waiting.with_label_values(&[&*integration.id]);
                Some(Limiter::of((&plan.limits, plan.quota.reserve), known, waiting, &self.clock))
            }
            None => known.map(Limiter::lifted),
        };
        let breakers = Breakers::of(
            plan.and_then(|plan| plan.breaker.clone()),
            &integration.id,
            before.map(|before| &before.breakers),
            (&self.metrics, &self.clock),
        );
        let budget = before.map(|before| Arc::clone(&before.budget));
        Policy {
            integration: Arc::clone(integration),
            limiter,
            breakers,
            budget: budget.unwrap_or_else(|| Arc::new(Budget::new(Arc::clone(&self.clock)))),
            clock: Arc::clone(&self.clock),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl Policy {
    /// Lets a call go, at once or when it is its turn. `waiting_calls` is how many may wait. Dropping the future
    /// leaves the queue.
    ///
    /// # Errors
    /// When the call may not go now.
    pub async fn admit(self: &Arc<Self>, ask: Ask<'_>, waiting_calls: usize) -> Result<Pass, Held> {
        // Nobody waits for a turn only to be refused, and what has waited is looked at again.
        let spot = self.breakers.spot(ask.place, ask.method, ask.path);
        self.breakers.check(spot).map_err(|refused| self.open(refused))?;
        let (permit, waited) = match self.limiter.as_ref().filter(|_| ask.lane != Lane::Apart) {
            Some(limiter) => {
                let (permit, waited) = self.turn(limiter, ask, waiting_calls).await?;
                (Some(permit), waited)
            }
            None => (None, Duration::ZERO),
        };
        match self.breakers.enter(spot) {
            Ok(guard) => Ok(Pass { policy: Arc::clone(self), permit, guard, waited }),
            Err(refused) => {
                if let Some(permit) = permit {
                    permit.unsent();
                }
                Err(self.open(refused))
            }
        }
    }

    fn open(&self, refused: Refused) -> Held {
        self.metrics.calls_held.with_label_values(&[&*self.integration.id, "open"]).inc();
        Held::Open(refused)
    }

    /// A call begins, of which retries may be a share.
    pub fn begin(&self) {
        self.budget.call();
    }

    /// Whether a call is tried again after a fault, and after what pause; the budget is charged for it.
    pub fn again(&self, between: &Between<'_>, fault: Fault, random: &dyn Random) -> Option<(Duration, Spent)> {
        let word = match between.next(fault, random) {
            Next::After(pause) => match self.budget.spend() {
                Some(spent) => {
                    self.count_retry("made");
                    return Some((pause, spent));
                }
                None => "budget",
            },
            Next::Over => return None,
            Next::Unsafe => "unsafe",
            Next::Late => "late",
        };
        self.count_retry(word);
        None
    }

    /// Counts what came of a failed try.
    pub fn count_retry(&self, result: &str) {
        self.metrics.retries.with_label_values(&[&*self.integration.id, result]).inc();
    }

    /// What is known of the service's own counts.
    pub fn counts(&self) -> Vec<Count> {
        self.limiter.as_ref().map(|limiter| limiter.counts()).unwrap_or_default()
    }

    /// What the service said of its counts that holds calls up.
    pub fn pauses(&self) -> Vec<Pause> {
        self.limiter.as_ref().map(|limiter| limiter.pauses()).unwrap_or_default()
    }

    /// Lets calls go, whatever opened circuits and whatever the service said of its counts.
    pub fn release(&self) {
        self.breakers.release();
        if let Some(limiter) = &self.limiter {
            limiter.lift();
        }
    }

    /// The circuits of the integration.
    pub fn breakers(&self) -> &Arc<Breakers> {
        &self.breakers
    }

    /// The turn of a call, and how long it waited for it.
    async fn turn(
        &self,
        limiter: &Arc<Limiter>,
        ask: Ask<'_>,
        waiting_calls: usize,
    ) -> Result<(Permit, Duration), Held> {
        let (id, began) = (&*self.integration.id, self.clock.monotonic());
        let admitted = limiter.admit(&ask, waiting_calls).await;
        let waited = self.clock.monotonic().saturating_sub(began);
        if waited >= Duration::from_millis(1) {
            self.metrics.calls_waited.with_label_values(&[id]).observe(waited.as_secs_f64());
        }
        admitted.map(|permit| (permit, waited)).map_err(|full| {
            self.metrics.calls_held.with_label_values(&[id, full.why.word()]).inc();
            Held::Full(Box::new(Full { waited, ..full }))
        })
    }

    /// Whether the endpoint that a call is for matters here.
    pub fn knows_endpoints(&self) -> bool {
        let Some(api) = &self.integration.api else { return false };
        api.endpoints.iter().any(|endpoint| endpoint.retry.is_some())
            || api.policy.limits.iter().any(|limit| limit.endpoint.is_some() || limit.per == Scope::Endpoint)
    }

    /// Whether what is left is read from answers' bodies.
    fn reads_bodies(&self) -> bool {
        let told = self.integration.api.as_ref().and_then(|api| api.policy.quota.told.as_ref());
        let is_header = |reading: &Reading| matches!(reading, Reading::Header(_));
        told.is_some_and(|told| {
            let resets = told.resets.as_ref().map(|resets| &resets.value);
            ![Some(&told.remaining), told.limit.as_ref(), resets].into_iter().flatten().all(is_header)
        })
    }

    fn report(&self, seen: Seen<'_>, asked: Option<Duration>) -> Report {
        let Some(api) = &self.integration.api else { return Report::default() };
        let report = told::read(&api.policy, seen, asked, self.clock.now());
        if report.refused {
            self.metrics.quota_refusals.with_label_values(&[&*self.integration.id]).inc();
        }
        report
    }
}

impl Pass {
    /// How long it waited for its turn.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// `RateLimit-Policy` and `RateLimit`, where limits are for this call.
    pub fn fields(&self) -> Option<(HeaderValue, HeaderValue)> {
        self.permit.as_ref()?.fields()
    }

    /// The service answered with this head. `endpoint` is the one that was called. Answers how long the service
    /// asks to wait.
    pub fn answered(self, (status, headers): (StatusCode, &HeaderMap), endpoint: Option<&str>) -> Option<Duration> {
        self.learn(Seen { status, headers, body: None }, endpoint)
    }

    /// The service answered, and the answer was read to its end. Answers how long the service asks to wait.
    pub fn read(self, received: &Received, endpoint: Option<&str>) -> Option<Duration> {
        let wanted = self.permit.is_some() && self.policy.reads_bodies();
        let body: Option<Value> = wanted.then(|| serde_json::from_slice(&received.body).ok()).flatten();
        self.learn(Seen { status: received.status, headers: &received.headers, body: body.as_ref() }, endpoint)
    }

    /// An answer of another place that a redirect led to: it says nothing of what the service lets the account do, but how
    /// long that place asks to wait.
    pub fn read_elsewhere(self, received: &Received) -> Option<Duration> {
        if let Some(guard) = self.guard {
            guard.end(end_of(received.status));
        }
        if let Some(permit) = self.permit {
            permit.answered(Report::default());
        }
        let seen = Seen { status: received.status, headers: &received.headers, body: None };
        if seen.status.as_u16() < 400 { None } else { told::pause(None, seen, self.policy.clock.now()) }
    }

    /// There was no answer.
    pub fn failed(self, failure: &Failure) {
        let is_services = match &failure.reason {
            Reason::Dial(DialError::Unresolved { .. })
            | Reason::Connect(_)
            | Reason::Untrusted(_)
            | Reason::Tls(_)
            | Reason::Timeout(_)
            | Reason::Reset
            | Reason::Malformed(_) => true,
            // The way out failed, and says nothing of the service.
            Reason::Egress(_)
            | Reason::Dial(DialError::Egress(_) | DialError::Forbidden { .. })
            | Reason::NoRoots
            | Reason::NoRoom
            | Reason::Unread { .. }
            | Reason::TooLarge { .. }
            | Reason::Redirects(_)
            | Reason::Held { .. }
            | Reason::Unsendable(_) => false,
        };
        match (is_services, failure.sent) {
            (true, Sent::Nothing) => self.unreachable(),
            (true, Sent::Maybe) => self.broken(),
            (false, Sent::Nothing) => self.unsent(),
            (false, Sent::Maybe) => {}
        }
    }

    /// No connection could be made, so nothing was sent.
    pub fn unreachable(mut self) {
        if let Some(guard) = self.guard.take() {
            guard.end(End::Failed);
        }
        self.unsent();
    }

    /// The service was silent or broke off before its answer.
    pub fn broken(self) {
        if let Some(guard) = self.guard {
            guard.end(End::Failed);
        }
    }

    /// Nothing was sent: what was taken is given back.
    pub fn unsent(self) {
        if let Some(permit) = self.permit {
            permit.unsent();
        }
    }

    fn learn(self, seen: Seen<'_>, endpoint: Option<&str>) -> Option<Duration> {
        if let Some(guard) = self.guard {
            guard.end(end_of(seen.status));
        }
        let asked = || {
            let api = self.policy.integration.api.as_ref()?;
            let declared = api.retry(endpoint).and_then(|retry| retry.retry_after.as_ref());
            told::pause(declared, seen, self.policy.clock.now())
        };
        let asked = if seen.status.as_u16() < 400 { None } else { asked() };
        if let Some(permit) = self.permit {
            permit.answered(self.policy.report(seen, asked));
        }
        asked
    }
}

impl Held {
    /// How long until it makes sense to come again.
    pub fn after(&self) -> Duration {
        match self {
            Self::Full(full) => full.after,
            Self::Open(refused) => refused.after,
        }
    }

    /// How long it waited before it was refused.
    pub fn waited(&self) -> Duration {
        match self {
            Self::Full(full) => full.waited,
            Self::Open(_) => Duration::ZERO,
        }
    }

    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Full(_) => Refusal::RateLimited,
            Self::Open(_) => Refusal::ServiceHeld,
        }
    }

    /// The answer, with `Retry-After` and, where there are limits, how they stand.
    pub fn answer(&self, integration: &str) -> Answer {
        let answer = self.refusal().answer_after(&format!("`{integration}`: {self}"), self.after());
        let fields = match self {
            Self::Full(full) => full.fields.as_ref(),
            Self::Open(_) => None,
        };
        match fields {
            Some((policy, left)) => answer.with(RATE_LIMIT_POLICY, policy.clone()).with(RATE_LIMIT, left.clone()),
            None => answer,
        }
    }
}

fn open_words(refused: &Refused) -> String {
    let place = &refused.place;
    if refused.by_hand {
        "a person holds its calls back for now".to_owned()
    } else {
        match &refused.group {
            Some(group) => format!("`{group}` at {place} has been failing, and is left alone for a while"),
            None => format!("{place} has been failing, and is left alone for a while"),
        }
    }
}

fn words(full: &Full) -> String {
    let what = match &full.limit {
        Some(name) => format!("its limit `{name}` has nothing left"),
        None => "the service has no calls left for this account, or asked for a pause".to_owned(),
    };
    match full.why {
        Why::Rate | Why::Quota => what,
        Why::Waited => format!("the call waited for its turn in vain: {what}"),
        Why::Crowded => format!("too many calls wait already: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::definition::compile;
    use crate::definition::document::Document;
    use crate::definition::plan::Fingerprint;
    use crate::definition::templates::Templates;
    use http::Method;
    use serde_json::json;

    fn integration(limits: &Value) -> Arc<Integration> {
        let api = json!({ "base_url": "https://a.example", "limits": limits });
        let document = Document::unplaced("a.yaml".into(), json!({ "trunkline": 1, "id": "svc", "api": api }));
        Arc::new(compile::integration(&document, &Templates::new()).expect("compiles"))
    }

    fn gateway() -> Arc<crate::definition::plan::gateway::Gateway> {
        let file = json!({ "trunkline": 1, "public_url": "https://hooks.example.com", "integrations": ["x"] });
        let document = Document::unplaced("/etc/trunkline.yaml".into(), file);
        Arc::new(compile::gateway(&document, &Templates::new()).expect("compiles"))
    }

    fn generation(number: u64, integrations: &[Arc<Integration>]) -> Generation {
        let by_id = |integration: &Arc<Integration>| (Arc::clone(&integration.id), Arc::clone(integration));
        Generation {
            number,
            since: Timestamp::default(),
            fingerprint: Fingerprint([0; 32]),
            gateway: gateway(),
            integrations: integrations.iter().map(by_id).collect(),
            files: Vec::new(),
        }
    }

    fn policies() -> (Policies, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        (Policies::new(Arc::new(ManualClock::at(Timestamp::default())), Arc::clone(&metrics)), metrics)
    }

    async fn goes(policy: &Arc<Policy>) -> bool {
        let (connection, place, method) = (Arc::from("default"), Arc::from("https://a.example"), Method::GET);
        let (connection, place, method) = (&connection, &place, &method);
        let ask =
            Ask { connection, caller: None, endpoint: None, method, path: "/", place, until: None, lane: Lane::Turn };
        policy.admit(ask, 0).await.is_ok()
    }

    #[tokio::test]
    async fn a_reload_keeps_the_counts_of_what_did_not_change() {
        let (policies, metrics) = policies();
        let first = integration(&json!([{ "rate": "1/h" }]));
        let before = policies.of(&generation(1, &[Arc::clone(&first)]), &first);
        assert!(goes(&before).await && !goes(&before).await);
        let same = integration(&json!([{ "rate": "1/h" }]));
        let after = policies.of(&generation(2, &[Arc::clone(&same)]), &same);
        assert!(!Arc::ptr_eq(&before, &after) && !goes(&after).await, "the call of before counts");
        let more = integration(&json!([{ "rate": "1/h" }, { "rate": "9/h", "per": "integration" }]));
        assert!(!goes(&policies.of(&generation(3, &[Arc::clone(&more)]), &more)).await);
        let changed = integration(&json!([{ "rate": "2/h" }]));
        assert!(goes(&policies.of(&generation(4, &[Arc::clone(&changed)]), &changed)).await);
        assert_eq!(metrics.calls_held.with_label_values(&["svc", "rate"]).get(), 3);
    }

    #[tokio::test]
    async fn what_is_gone_is_let_go_and_an_old_call_does_not_bring_it_back() {
        let (policies, _) = policies();
        let old = integration(&json!([{ "rate": "1/h" }]));
        let generations = [generation(1, &[Arc::clone(&old)]), generation(2, &[])];
        assert!(goes(&policies.of(&generations[0], &old)).await);
        let other = integration(&json!([]));
        policies.of(&generations[1], &other);
        let stray = policies.of(&generations[0], &old);
        assert!(goes(&stray).await, "it began anew");
        let kept = policies.kept.read().expect("no panic");
        assert!(kept.policies.get("svc").is_some_and(|kept| !Arc::ptr_eq(&kept.integration, &old)));
    }

    #[tokio::test]
    async fn a_call_that_began_before_a_reload_goes_by_the_limits_in_force() {
        let (policies, _) = policies();
        let (old, new) = (integration(&json!([{ "rate": "1000/s" }])), integration(&json!([{ "rate": "1/h" }])));
        let generations = [generation(1, &[Arc::clone(&old)]), generation(2, &[Arc::clone(&new)])];
        assert!(goes(&policies.of(&generations[0], &old)).await);
        let in_force = policies.of(&generations[1], &new);
        assert!(goes(&in_force).await);
        assert!(!goes(&policies.of(&generations[0], &old)).await, "it began before, and is one too many");
        assert!(!goes(&in_force).await && !goes(&policies.of(&generations[1], &new)).await);
    }

    #[tokio::test]
    async fn limits_that_are_taken_out_hold_up_nothing_and_are_not_new_when_they_are_put_back() {
        let (policies, _) = policies();
        let (first, free) = (integration(&json!([{ "rate": "1/h" }])), integration(&json!([])));
        let before = policies.of(&generation(1, &[Arc::clone(&first)]), &first);
        assert!(goes(&before).await && !goes(&before).await);
        let lifted = policies.of(&generation(2, &[Arc::clone(&free)]), &free);
        assert!(goes(&lifted).await && goes(&lifted).await && goes(&before).await);
        let back = integration(&json!([{ "rate": "1/h" }]));
        assert!(!goes(&policies.of(&generation(3, &[Arc::clone(&back)]), &back)).await, "the call of before counts");
    }

    #[tokio::test]
    async fn without_limits_and_quota_there_is_nothing_to_pay() {
        let (policies, _) = policies();
        let free = integration(&json!([]));
        let policy = policies.of(&generation(1, &[Arc::clone(&free)]), &free);
        assert!(policy.limiter.is_none() && goes(&policy).await);
    }
}
