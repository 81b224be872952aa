//! One renewal: the place at the gate, the lease, and the call.
//!
//! The order is what a crash leaves: the intent is on disk before the call, the new tokens are on disk before
//! anyone can read them, the old ones stay until then. What the call brought goes on in [`super::outcome`].

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::flight::Ended;
use super::intent::{Course, Insist, Lease, Leases, Taken};
use super::{Cause, Mark, RefreshError, Refresher, Wish, schedule};
use crate::connection::credential::Credential;
use crate::connection::directory::checked_inputs;
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind};
use crate::connection::health::{Renewal, Status, Trouble};
use crate::connection::stored::{Content, StoredError};
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::telemetry::trace;

/// How long a token call may take; less than a lease lasts.
const CALL: Duration = Duration::from_secs(40);
/// How often a lease of another process is looked at, and how many times.
const POLL: (Duration, usize) = (Duration::from_millis(100), 650);

/// A renewal with everything it needs.
pub(super) struct Trial<'a> {
    pub leases: &'a Leases,
    pub wish: &'a Wish,
    pub lease: Lease,
    pub generation: Arc<Generation>,
    pub integration: Arc<Integration>,
}

/// What the store has when a token is to be renewed.
pub(super) struct Held {
    /// The connection.
    pub content: Content,
    /// The token.
    pub issued: Issued,
}

impl Refresher {
    /// Renews a token. Runs in a task of its own, which nobody cancels.
    pub(super) async fn attempt(&self, wish: &Wish, place: Option<OwnedSemaphorePermit>) -> Ended {
        let traces = &self.parts.metrics.traces;
        let mut span = traces.begin(None, trace::Kind::Internal, || "renew a token".to_owned());
        let within = span.as_ref().map(|span| span.context.clone());
        let ended = trace::within(within, Box::pin(self.attempt_once(wish, place))).await;
        if let Some(span) = &mut span {
            span.set("trunkline.integration", &*wish.key.integration);
            span.set("trunkline.connection", &*wish.key.id);
            span.set("trunkline.cause", wish.cause.word());
            if let Err(error) = &ended {
                span.fail(error.to_string());
            }
        }
        traces.end(span);
        ended
    }

    async fn attempt_once(&self, wish: &Wish, place: Option<OwnedSemaphorePermit>) -> Ended {
        let leases = self.leases.as_ref().ok_or(RefreshError::Gone)?;
        let generation = self.parts.live.load();
        let integration = generation.integration(&wish.key.integration).map(Arc::clone).ok_or(RefreshError::Gone)?;
        let gate = self.flights.gate(&integration.id, generation.gateway.upkeep.refreshes_at_once);
        let _place = match place {
            Some(place) => place,
            None => gate.acquire_owned().await.map_err(|_| RefreshError::Broken)?,
        };
        let Some(lease) = self.take(leases, wish, &integration).await? else { return Ok(()) };
        let trial = Trial { leases, wish, lease, generation, integration };
        let Some(held) = self.held(wish).await? else {
            trial
                .leases
                .close(&wish.key, trial.lease, |all| _ = all.remove(&*wish.token))
                .await
                .map_err(StoredError::Store)?;
            return Err(RefreshError::Gone);
        };
        if self.is_newer(wish, &held.issued) {
            return self.another(trial).await;
        }
        if self.ends_for_good(&trial.integration, &held.issued) {
            return self.over(trial, &held.issued).await;
        }
        let (key, cause, nth) = (&wish.key, wish.cause.word(), trial.lease.failures().saturating_add(1));
        tracing::info!(connection = %key, cause, "renewing a token of {key}: {cause}, try {nth}");
        match self.call(&trial, &held).await {
            Ok(grant) => self.keep(trial, held, grant).await,
            Err(error) => self.failed(trial, &held.issued, error).await,
        }
    }

    /// Whether a person has to connect again once a token has ended. Of one that is not of the way in which the
    /// definition signs in by now, nothing is known.
    pub(super) fn ends_for_good(&self, integration: &Integration, issued: &Issued) -> bool {
        matches!(integration.auth, Auth::OAuth2(_)) && !self.parts.source.renews(integration, issued)
    }

    /// The lease, as soon as it can be had; `None` when whoever had it has renewed the token.
    async fn take(
        &self,
        leases: &Leases,
        wish: &Wish,
        integration: &Integration,
    ) -> Result<Option<Lease>, RefreshError> {
        let definition = integration.fingerprint.to_string();
        let mut insist = if wish.cause == Cause::Asked { Insist::Yes } else { Insist::No };
        for _ in 0..POLL.1 {
            let now = self.parts.clock.now();
            match leases.take(&wish.key, &wish.token, now, insist).await.map_err(StoredError::Store)? {
                Taken::Lease(lease) => return Ok(Some(*lease)),
                Taken::TooEarly(course) if course.is_corrected(&definition) => {
                    insist = Insist::Yes;
                    continue;
                }
                Taken::TooEarly(course) => return Err(self.too_early(leases, wish, &course).await),
                Taken::Held => {}
            }
            if self.held(wish).await?.is_some_and(|held| self.is_newer(wish, &held.issued)) {
                self.parts.connections.let_go(&wish.key);
                return Ok(None);
            }
            sleep(POLL.0).await;
        }
        Err(RefreshError::Slow)
    }

    async fn too_early(&self, leases: &Leases, wish: &Wish, course: &Course) -> RefreshError {
        let known = self.parts.connections.pulse(&wish.key).await.health().renewals.remove(&*wish.token);
        let now = self.parts.clock.now();
        let renewal = known.clone().unwrap_or_else(|| {
            let refused = ("the service refused to renew the token", "connect the account again");
            let failed = ("the last token call failed", "nothing yet: it is tried again by itself");
            let (what, step) = if course.refused { refused } else { failed };
            Renewal::new(Status::Active, Trouble::new(now, what, step))
        });
        let what = renewal.trouble.what.clone();
        // A crash may have come between the two records, and another process writes them as well.
        let status = match wish.cause {
            _ if course.refused => Status::NeedsReconnect,
            Cause::Expired => Status::Error,
            Cause::Due | Cause::Refused | Cause::Asked => Status::Warning,
        };
        let is_told = known.is_some_and(|known| {
            known.next_try == course.next_try && course.refused == (known.status == Status::NeedsReconnect)
        });
        if !is_told {
            let held = self.held(wish).await.ok().flatten();
            let ends = held.and_then(|held| held.issued.expires_at);
            let (next_try, definition) = (course.next_try, course.definition.clone());
            let renewal = Renewal { status, next_try, ends, definition, ..renewal };
            self.remember(leases, wish, course, renewal).await;
        }
        if course.refused {
            return RefreshError::Refused(what);
        }
        RefreshError::Later { what, wait: course.next_try.unwrap_or_default().since(now) }
    }

    /// What the store has now.
    pub(super) async fn held(&self, wish: &Wish) -> Result<Option<Held>, StoredError> {
        let Some(stored) = self.parts.connections.stored() else { return Ok(None) };
        let Some((content, _)) = stored.versioned(&wish.key).await? else { return Ok(None) };
        let Credential::Tokens(tokens) = &content.credential else { return Ok(None) };
        let Some(issued) = tokens.issued(Some(&wish.token)).map(Issued::copy) else { return Ok(None) };
        Ok(Some(Held { content, issued }))
    }

    /// Whether the store has a usable token that the one who wished did not know of.
    fn is_newer(&self, wish: &Wish, held: &Issued) -> bool {
        Mark::of(held) != wish.seen && held.lasts(self.parts.clock.now(), schedule::least(held, Duration::ZERO))
    }

    async fn call(&self, trial: &Trial<'_>, held: &Held) -> Result<Grant, TokenError> {
        let (wish, content) = (trial.wish, &held.content);
        let misconfigured = |words: String| TokenError::new(TokenErrorKind::Misconfigured, words);
        let inputs = checked_inputs(&trial.integration, &wish.key.id, content.inputs.clone());
        let inputs = inputs.map_err(|error| misconfigured(error.to_string()))?;
        let account = Account {
            generation: &trial.generation,
            integration: &trial.integration,
            connection: &wish.key.id,
            inputs: &inputs,
            saved: &content.saved,
        };
        let called = timeout(CALL, self.parts.source.renew(account, &wish.token, &held.issued)).await;
        let late = format!("no answer within {} s", CALL.as_secs());
        let grant = called.map_err(|_| TokenError::new(TokenErrorKind::Passing, late))??;
        if grant.tokens.contains_key(&wish.token) {
            Ok(grant)
        } else {
            Err(misconfigured(format!("the answer brought no token `{}`", wish.token)))
        }
    }
}
