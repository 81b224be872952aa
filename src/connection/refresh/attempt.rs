//! One renewal: the place at the gate, the lease, the call, and what came of it made durable.
//!
//! The order is what a crash leaves: the intent is on disk before the call, the new tokens are on disk before
//! anyone can read them, the old ones stay until then. A refusal counts as final only when the store still has
//! the token that was refused.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};

use super::flight::Ended;
use super::intent::{Insist, Intent, Lease, Leases, Taken};
use super::{Cause, Mark, RefreshError, Refresher, Wish, schedule};
use crate::connection::credential::Credential;
use crate::connection::directory::checked_inputs;
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind};
use crate::connection::health::{Health, Status, Trouble};
use crate::connection::stored::{Content, StoredError};
use crate::connection::upkeep::Replaced;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::store::StoreError;
use crate::telemetry::trace;

/// How long a token call may take; less than a lease lasts.
const CALL: Duration = Duration::from_secs(40);
/// How often a lease of another process is looked at, and how many times.
const POLL: (Duration, usize) = (Duration::from_millis(100), 650);
/// The first and the longest pause between tries to store new tokens.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// A renewal with everything it needs.
struct Trial<'a> {
    leases: &'a Leases,
    wish: &'a Wish,
    generation: Arc<Generation>,
    integration: Arc<Integration>,
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
        let Some(lease) = self.take(leases, wish).await? else { return Ok(()) };
        let trial = Trial { leases, wish, generation, integration };
        let Some((content, held)) = self.held(wish).await? else {
            leases.close(&wish.key, lease, |_| ()).await.map_err(StoredError::Store)?;
            return Err(RefreshError::Gone);
        };
        if self.is_newer(wish, &held) {
            self.parts.connections.let_go(&wish.key);
            self.give_back(leases, wish, lease, |_| ()).await;
            return Ok(());
        }
        let (key, cause, nth) = (&wish.key, wish.cause.word(), lease.intent.failures.saturating_add(1));
        tracing::info!(connection = %key, cause, "renewing a token of {key}: {cause}, try {nth}");
        match self.call(&trial, &content, &held).await {
            Ok(grant) => self.keep(&trial, lease, &held, &grant).await,
            Err(error) => self.failed(&trial, lease, &held, error).await,
        }
    }

    /// The lease, as soon as it can be had; `None` when whoever had it has renewed the token.
    async fn take(&self, leases: &Leases, wish: &Wish) -> Result<Option<Lease>, RefreshError> {
        let insist = if wish.cause == Cause::Asked { Insist::Yes } else { Insist::No };
        for _ in 0..POLL.1 {
            let now = self.parts.clock.now();
            match leases.take(&wish.key, &wish.token, now, insist).await.map_err(StoredError::Store)? {
                Taken::Lease(lease) => return Ok(Some(*lease)),
                Taken::TooEarly(intent) => return Err(self.too_early(wish, &intent).await),
                Taken::Held => {}
            }
            if self.held(wish).await?.is_some_and(|(_, held)| self.is_newer(wish, &held)) {
                self.parts.connections.let_go(&wish.key);
                return Ok(None);
            }
            sleep(POLL.0).await;
        }
        Err(RefreshError::Slow)
    }

    async fn too_early(&self, wish: &Wish, intent: &Intent) -> RefreshError {
        let health = self.parts.connections.pulse(&wish.key).await.health();
        let what = health.last_error.map_or_else(|| "the last token call failed".to_owned(), |trouble| trouble.what);
        // A crash may have come between the two records, and another process writes them as well.
        if health.next_try != intent.next_try || intent.refused != (health.condition == Status::NeedsReconnect) {
            self.change(wish, |health| {
                health.next_try = intent.next_try;
                health.condition = match wish.cause {
                    _ if intent.refused => Status::NeedsReconnect,
                    Cause::Expired => Status::Error,
                    Cause::Due | Cause::Refused | Cause::Asked => Status::Warning,
                };
            })
            .await;
        }
        if intent.refused {
            return RefreshError::Refused(what);
        }
        let wait = intent.next_try.unwrap_or_default().since(self.parts.clock.now());
        RefreshError::Later { what, wait }
    }

    /// What the store has now.
    async fn held(&self, wish: &Wish) -> Result<Option<(Content, Issued)>, RefreshError> {
        let Some(stored) = self.parts.connections.stored() else { return Ok(None) };
        let Some((content, _)) = stored.versioned(&wish.key).await? else { return Ok(None) };
        let Credential::Tokens(tokens) = &content.credential else { return Ok(None) };
        let Some(held) = tokens.issued(Some(&wish.token)).map(Issued::copy) else { return Ok(None) };
        Ok(Some((content, held)))
    }

    /// Whether the store has a usable token that the one who wished did not know of.
    fn is_newer(&self, wish: &Wish, held: &Issued) -> bool {
        Mark::of(held) != wish.seen && held.lasts(self.parts.clock.now(), schedule::least(held, Duration::ZERO))
    }

    async fn call(&self, trial: &Trial<'_>, content: &Content, held: &Issued) -> Result<Grant, TokenError> {
        let wish = trial.wish;
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
        let called = timeout(CALL, self.parts.source.renew(account, &wish.token, held)).await;
        let late = format!("no answer within {} s", CALL.as_secs());
        let grant = called.map_err(|_| TokenError::new(TokenErrorKind::Passing, late))??;
        if grant.tokens.contains_key(&wish.token) {
            Ok(grant)
        } else {
            Err(misconfigured(format!("the answer brought no token `{}`", wish.token)))
        }
    }

    /// Makes new tokens durable, and only then lets them be used.
    async fn keep(&self, trial: &Trial<'_>, lease: Lease, tried: &Issued, grant: &Grant) -> Ended {
        let wish = trial.wish;
        let ends = grant.tokens.get(&wish.token).and_then(|token| token.expires_at).map(|end| end.to_string());
        let detail = json!({ "token": &*wish.token, "cause": wish.cause.word(), "fence": lease.intent.fence,
            "result": "renewed", "expires_at": ends });
        let (replaced, ()) =
            tokio::join!(self.store(wish, tried, grant), self.note(wish, "connection.refresh", detail));
        let now = self.parts.clock.now();
        let result = if replaced? == Replaced::Done { "renewed" } else { "superseded" };
        self.count(trial, &lease, result);
        let pulse = self.parts.connections.pulse(&wish.key).await;
        match wish.cause {
            Cause::Refused => pulse.renewed_for_refusal(),
            Cause::Due | Cause::Expired | Cause::Asked => pulse.renewed_in_time(),
        }
        self.change(wish, |health| {
            health.condition = Status::Active;
            health.last_refresh = Some(now);
            health.next_try = None;
        })
        .await;
        self.give_back(trial.leases, wish, lease, |intent| {
            *intent = Intent { failures: 0, next_try: None, refused: false, ..std::mem::take(intent) };
        })
        .await;
        Ok(())
    }

    /// Stores new tokens, however long the disk refuses: the old ones may be worth nothing any more.
    async fn store(&self, wish: &Wish, tried: &Issued, grant: &Grant) -> Result<Replaced, RefreshError> {
        let mut pause = STORE_PAUSE.0;
        loop {
            match self.parts.connections.replace(&wish.key, &wish.token, tried, grant).await {
                Ok(replaced) => return Ok(replaced),
                // Something else of the connection changed at the same time.
                Err(StoredError::Store(StoreError::Conflict(_))) => {}
                Err(StoredError::Store(error)) if !matches!(error, StoreError::TooLarge { .. }) => {
                    tracing::error!(connection = %wish.key, "new tokens wait for the store, which refuses: {error}");
                }
                Err(error) => return Err(RefreshError::Stored(error)),
            }
            sleep(pause).await;
            pause = (pause * 2).min(STORE_PAUSE.1);
        }
    }

    async fn failed(&self, trial: &Trial<'_>, lease: Lease, tried: &Issued, error: TokenError) -> Ended {
        let wish = trial.wish;
        let permanent = error.kind == TokenErrorKind::Permanent;
        if permanent && self.held(wish).await?.is_some_and(|(_, now)| Mark::of(&now) != Mark::of(tried)) {
            // Someone else has put other tokens there; the refusal was of the old ones.
            self.parts.connections.let_go(&wish.key);
            self.give_back(trial.leases, wish, lease, |_| ()).await;
            return Ok(());
        }
        let (now, failures) = (self.parts.clock.now(), lease.intent.failures.saturating_add(1));
        let wait = schedule::pause(&error, failures, &*self.parts.random);
        self.count(trial, &lease, word(error.kind));
        let trouble = Trouble::new(now, &error.to_string(), step(error.kind));
        let what = trouble.what.clone();
        let detail = json!({ "token": &*wish.token, "cause": wish.cause.word(), "fence": lease.intent.fence,
            "result": word(error.kind), "code": error.code, "status": error.status });
        self.note(wish, "connection.refresh", detail).await;
        let next_try = (!permanent).then(|| now.after(wait));
        self.give_back(trial.leases, wish, lease, |intent| {
            *intent = Intent { failures, next_try, refused: permanent, ..std::mem::take(intent) };
        })
        .await;
        let works = tried.lasts(now, Duration::ZERO);
        self.change(wish, |health| {
            health.condition = match error.kind {
                TokenErrorKind::Permanent => Status::NeedsReconnect,
                _ if works => Status::Warning,
                _ => Status::Error,
            };
            health.last_error = Some(trouble);
            health.next_try = next_try;
        })
        .await;
        Err(if permanent { RefreshError::Refused(what) } else { RefreshError::Later { what, wait } })
    }

    /// Changes a connection's health and makes it durable; a change of status is in the audit log.
    async fn change(&self, wish: &Wish, change: impl FnOnce(&mut Health)) {
        let pulse = self.parts.connections.pulse(&wish.key).await;
        let (before, after) = pulse.change(self.parts.clock.now(), change);
        self.parts.connections.note_status(&wish.key, before, after).await;
        self.parts.connections.save_health(&wish.key, &pulse).await;
    }

    /// Writes to the audit log; what cannot be written is logged, because tokens do not wait for it.
    async fn note(&self, wish: &Wish, action: &str, detail: Json) {
        let Some(stored) = self.parts.connections.stored() else { return };
        if let Err(error) = stored.note("system", action, &wish.key, detail).await {
            tracing::error!(connection = %wish.key, "the audit log refused `{action}`: {error}");
        }
    }

    /// Gives the lease back. When that fails it runs out by itself.
    async fn give_back(&self, leases: &Leases, wish: &Wish, lease: Lease, end: impl FnOnce(&mut Intent)) {
        if let Err(error) = leases.close(&wish.key, lease, end).await {
            tracing::warn!(connection = %wish.key, "the lease of a refresh could not be given back: {error}");
        }
    }

    fn count(&self, trial: &Trial<'_>, lease: &Lease, result: &str) {
        let nth = if lease.intent.failures == 0 { "first" } else { "another" };
        let labels = [&*trial.integration.id, trial.wish.cause.word(), nth, result];
        self.parts.metrics.token_refreshes.with_label_values(&labels).inc();
    }
}

const fn word(kind: TokenErrorKind) -> &'static str {
    match kind {
        TokenErrorKind::Permanent => "refused",
        TokenErrorKind::Passing => "failed",
        TokenErrorKind::Unsent => "unsent",
        TokenErrorKind::Misconfigured => "misconfigured",
    }
}

const fn step(kind: TokenErrorKind) -> &'static str {
    match kind {
        TokenErrorKind::Permanent => "connect the account again",
        TokenErrorKind::Passing => "nothing yet: it is tried again by itself",
        TokenErrorKind::Unsent => "see whether the service can be reached from here; it is tried again by itself",
        TokenErrorKind::Misconfigured => "correct `auth` of the definition, or the client's id and secret",
    }
}
