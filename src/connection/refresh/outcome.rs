//! What came of a renewal: tokens made durable, and how it ended remembered for the token, honestly.
//!
//! Whoever lost the lease meanwhile says nothing of the connection's health: another has it, or the connection was
//! connected anew or removed. A refusal counts as final only when the store still has the token that was refused.
//! Tokens that came for a connection which is not the same any more are taken back at the service. Called by
//! `attempt`.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::sleep;

use super::attempt::{Held, Trial};
use super::flight::Ended;
use super::intent::{Closed, Course, Leases};
use super::{Cause, Mark, RefreshError, Refresher, Wish, schedule};
use crate::connection::connect::What;
use crate::connection::credential::{Credential, Tokens};
use crate::connection::directory::DEFAULT;
use crate::connection::grant::{Grant, Issued, TokenError, TokenErrorKind};
use crate::connection::health::{Health, Key, Renewal, Status, Trouble};
use crate::connection::stored::{Content, StoredError};
use crate::connection::upkeep::Replaced;
use crate::definition::plan::Auth;
use crate::store::StoreError;

/// The first and the longest pause between tries to store what must not be lost.
const STORE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

impl Refresher {
    /// Makes new tokens durable, and only then lets them be used.
    pub(super) async fn keep(&self, trial: Trial<'_>, held: Held, mut grant: Grant) -> Ended {
        let unfinished = grant.unfinished.take();
        match (self.store(trial.wish, &held.issued, &grant).await, unfinished) {
            (Ok(Replaced::Done), Some(error)) => self.failed(trial, &held.issued, error).await,
            (Ok(Replaced::Done), None) => self.renewed(trial, &grant).await,
            (Ok(replaced), _) => self.too_late(trial, held.content, grant, replaced).await,
            (Err(error), _) => self.not_kept(trial, &held.issued, error).await,
        }
    }

    /// Stores new tokens, however long the disk refuses: the old ones may be worth nothing any more. What was to be
    /// saved beside them is left out when the record would be too large with it.
    async fn store(&self, wish: &Wish, tried: &Issued, grant: &Grant) -> Result<Replaced, StoredError> {
        let connections = &self.parts.connections;
        let stored = insist(wish, || connections.replace(&wish.key, &wish.token, tried, grant)).await;
        match stored {
            Err(StoredError::Store(StoreError::TooLarge { .. })) if !grant.saved.is_empty() => {
                tracing::error!(connection = %wish.key, "what a token call saved is too large to be kept: it is left out");
                let bare = grant.without_saved();
                insist(wish, || connections.replace(&wish.key, &wish.token, tried, &bare)).await
            }
            stored => stored,
        }
    }

    async fn renewed(&self, trial: Trial<'_>, grant: &Grant) -> Ended {
        let (wish, now) = (trial.wish, self.parts.clock.now());
        let ends = grant.tokens.get(&wish.token).and_then(|token| token.expires_at).map(|end| end.to_string());
        self.note(&trial, json!({ "result": "renewed", "expires_at": ends, "warnings": grant.warnings })).await;
        self.count(&trial, "renewed");
        let pulse = self.parts.connections.pulse(&wish.key).await;
        match wish.cause {
            Cause::Refused => pulse.renewed_for_refusal(&wish.token),
            Cause::Due | Cause::Expired | Cause::Asked => pulse.renewed_in_time(&wish.token),
        }
        let warning = (!grant.warnings.is_empty()).then(|| {
            let trouble = Trouble::new(now, &of_token(wish, &grant.warnings.join("; ")), ODD_ANSWER);
            Renewal::new(Status::Warning, trouble)
        });
        let courses = |all: &mut BTreeMap<String, Course>| {
            all.retain(|token, _| !grant.tokens.contains_key(&**token));
        };
        let health = |health: &mut Health| {
            health.condition = Status::Active;
            health.last_refresh = Some(now);
            grant.tokens.keys().for_each(|token| health.clear(token));
            if let Some(warning) = warning {
                health.hold_against(&wish.token, warning);
            }
        };
        self.end(trial, courses, health).await;
        Ok(())
    }

    /// The store has other tokens than those that were tried: what was held against them counts no more.
    pub(super) async fn another(&self, trial: Trial<'_>) -> Ended {
        let wish = trial.wish;
        self.parts.connections.let_go(&wish.key);
        self.end(trial, |all| _ = all.remove(&*wish.token), |health| health.clear(&wish.token)).await;
        Ok(())
    }

    /// New tokens came, and the connection is gone or has others. Those of a consent that is over are taken back at
    /// the service; those that another process got of the same consent before are left alone, because taking one
    /// back may end the others.
    async fn too_late(&self, trial: Trial<'_>, content: Content, grant: Grant, replaced: Replaced) -> Ended {
        let what = match replaced {
            Replaced::Gone => Some(What::Connection),
            Replaced::Done | Replaced::Superseded => self.since(&trial).await,
        };
        let took = match what {
            Some(what) => self.take_back(&trial, content, grant, what).await,
            None => false,
        };
        let result = if what.is_some() { "late" } else { "superseded" };
        self.note(&trial, json!({ "result": result, "taken_back": took })).await;
        self.count(&trial, result);
        if replaced == Replaced::Gone {
            // Nothing is remembered of a connection that is not there.
            trial.leases.close(&trial.wish.key, trial.lease, BTreeMap::clear).await.map_err(StoredError::Store)?;
            return Ok(());
        }
        self.another(trial).await
    }

    /// What happened to the connection since the lease was taken: it was removed, and perhaps connected again later,
    /// or it was connected anew; `None` where neither.
    async fn since(&self, trial: &Trial<'_>) -> Option<What> {
        let (then, read) = (&trial.lease.intent, || async { Ok(trial.leases.read(&trial.wish.key).await?) });
        let (now, _) = insist(trial.wish, read).await.ok()?;
        if now.removals != then.removals {
            return Some(What::Connection);
        }
        (now.era != then.era).then_some(What::Replaced)
    }

    /// Has the service told of tokens that nobody will use; whether it is told.
    async fn take_back(&self, trial: &Trial<'_>, content: Content, grant: Grant, what: What) -> bool {
        let wish = trial.wish;
        let Auth::OAuth2(oauth2) = &trial.integration.auth else { return false };
        let Some(revocations) = &self.parts.revocations else { return false };
        if what == What::Replaced && !oauth2.revoke_replaced {
            return false;
        }
        let tokens = match self.held(wish).await {
            Ok(Some(Held { content: Content { credential: Credential::Tokens(now), .. }, .. })) => {
                Tokens(grant.tokens).without(&now)
            }
            _ => Tokens(grant.tokens),
        };
        if tokens.0.is_empty() {
            return false;
        }
        let mut saved = content.saved;
        saved.extend(grant.saved);
        let content = Content { credential: Credential::Tokens(tokens), inputs: content.inputs, saved };
        let queued =
            insist(wish, || async { revocations.queue(&wish.key, what, &content).await.map_err(StoredError::from) });
        match queued.await {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(connection = %wish.key, "tokens that came too late live on at the service: {error}");
                false
            }
        }
    }

    /// New tokens came and cannot be kept, whatever is tried: they are lost. The old ones may be used up, and are
    /// tried again after a pause as after any call whose answer did not come.
    async fn not_kept(&self, trial: Trial<'_>, tried: &Issued, error: StoredError) -> Ended {
        tracing::error!(connection = %trial.wish.key, "new tokens cannot be kept: {error}");
        let what = format!("the service gave a new token, and it cannot be kept: {error}");
        let step = "see the log for what is wrong with the store; if the token is refused after that, connect the account again";
        let fault = TokenError::new(TokenErrorKind::Passing, what.clone());
        self.count_failed(&trial, "unkept");
        self.note(&trial, json!({ "result": "unkept", "error": error.to_string() })).await;
        Err(self.put_off(trial, tried, (&fault, &what, step)).await)
    }

    pub(super) async fn failed(&self, trial: Trial<'_>, tried: &Issued, mut error: TokenError) -> Ended {
        let wish = trial.wish;
        if error.kind == TokenErrorKind::Permanent {
            match self.held(wish).await {
                // Someone else has put other tokens there; the refusal was of the old ones.
                Ok(Some(now)) if Mark::of(&now.issued) != Mark::of(tried) => return self.another(trial).await,
                Ok(_) => {}
                // Whether there are others cannot be told, so nothing is given up.
                Err(_) => error.kind = TokenErrorKind::Passing,
            }
        }
        self.count_failed(&trial, word(error.kind));
        let result = json!({ "result": word(error.kind), "code": error.code, "status": error.status });
        self.note(&trial, result).await;
        let (what, step) = (error.to_string(), step(error.kind));
        if error.kind == TokenErrorKind::Permanent {
            return Err(self.give_up(trial, &what, step).await);
        }
        Err(self.put_off(trial, tried, (&error, &what, step)).await)
    }

    /// A token has ended that nothing renews.
    pub(super) async fn over(&self, trial: Trial<'_>, held: &Issued) -> Ended {
        let end = held.expires_at.unwrap_or_default();
        let what = format!("the token ended at {end}, and the service gave nothing to renew it with");
        if held.lasts(self.parts.clock.now(), Duration::ZERO) {
            self.end(trial, |_| (), |_| ()).await;
            return Err(RefreshError::Refused(what));
        }
        self.note(&trial, json!({ "result": "ended" })).await;
        Err(self.give_up(trial, &what, step(TokenErrorKind::Permanent)).await)
    }

    /// A person has to connect again.
    async fn give_up(&self, trial: Trial<'_>, what: &str, step: &str) -> RefreshError {
        let trouble = Trouble::new(self.parts.clock.now(), &of_token(trial.wish, what), step);
        let (token, failures) = (Arc::clone(&trial.wish.token), trial.lease.failures().saturating_add(1));
        let course = Course { failures, refused: true, ..Course::default() };
        let what = trouble.what.clone();
        let renewal = Renewal::new(Status::NeedsReconnect, trouble);
        let health = |health: &mut Health| health.hold_against(&token, renewal);
        self.end(trial, |all| _ = all.insert(token.to_string(), course), health).await;
        RefreshError::Refused(what)
    }

    /// It is tried again after a pause.
    async fn put_off(
        &self,
        trial: Trial<'_>,
        tried: &Issued,
        (error, what, step): (&TokenError, &str, &str),
    ) -> RefreshError {
        let (now, failures) = (self.parts.clock.now(), trial.lease.failures().saturating_add(1));
        let wait = schedule::pause(error, failures, &*self.parts.random);
        let status = if tried.lasts(now, Duration::ZERO) { Status::Warning } else { Status::Error };
        let trouble = Trouble::new(now, &of_token(trial.wish, what), step);
        let (token, next_try) = (Arc::clone(&trial.wish.token), Some(now.after(wait)));
        let misconfigured = error.kind == TokenErrorKind::Misconfigured;
        let definition = misconfigured.then(|| trial.integration.fingerprint.to_string());
        let course = Course { failures, next_try, definition: definition.clone(), ..Course::default() };
        let what = trouble.what.clone();
        let renewal = Renewal { next_try, ends: tried.expires_at, definition, ..Renewal::new(status, trouble) };
        let health = |health: &mut Health| health.hold_against(&token, renewal);
        self.end(trial, |all| _ = all.insert(token.to_string(), course), health).await;
        RefreshError::Later { what, wait }
    }

    /// Gives the lease back and changes the connection's health as one, so that nobody connects it anew in between;
    /// changes nothing when the lease was lost.
    async fn end(
        &self,
        trial: Trial<'_>,
        courses: impl FnOnce(&mut BTreeMap<String, Course>),
        health: impl FnOnce(&mut Health),
    ) {
        let (key, connections) = (&trial.wish.key, &self.parts.connections);
        let _alone = connections.changing(key).write().await;
        match trial.leases.close(key, trial.lease, courses).await {
            Ok(Closed::InTime) => {}
            Ok(Closed::Lost) => {
                tracing::info!(connection = %key, "the lease of a refresh was lost: how the connection fares is another's word");
                return;
            }
            // It runs out by itself. What is in memory holds the next try back meanwhile.
            Err(error) => {
                tracing::warn!(connection = %key, "the lease of a refresh could not be given back: {error}");
            }
        }
        self.change(key, health).await;
    }

    /// Remembers what the intents say of a token, unless they say otherwise by now.
    pub(super) async fn remember(&self, leases: &Leases, wish: &Wish, course: &Course, renewal: Renewal) {
        let _alone = self.parts.connections.changing(&wish.key).write().await;
        let same = leases.read(&wish.key).await.is_ok_and(|(now, _)| now.courses.get(&*wish.token) == Some(course));
        if same {
            self.change(&wish.key, |health| health.hold_against(&wish.token, renewal)).await;
        }
    }

    /// A connection whose token has ended since renewing it failed does not work any more, which is told before it is
    /// tried again.
    pub(super) async fn outlive(&self, key: &Key) {
        let _alone = self.parts.connections.changing(key).write().await;
        let now = self.parts.clock.now();
        if self.parts.connections.pulse(key).await.health().is_outlived(now) {
            self.change(key, |health| health.outlive(now)).await;
        }
    }

    /// Changes a connection's health and makes it durable; a change of status is in the audit log.
    async fn change(&self, key: &Key, change: impl FnOnce(&mut Health)) {
        let pulse = self.parts.connections.pulse(key).await;
        let (before, after) = pulse.change(self.parts.clock.now(), change);
        self.parts.connections.note_status(key, before, after).await;
        self.parts.connections.save_health(key, &pulse).await;
    }

    /// Writes to the audit log how a renewal ended; what cannot be written is logged, because tokens do not wait
    /// for it.
    async fn note(&self, trial: &Trial<'_>, ended: Json) {
        let (wish, Some(stored)) = (trial.wish, self.parts.connections.stored()) else { return };
        let mut detail =
            json!({ "token": &*wish.token, "cause": wish.cause.word(), "fence": trial.lease.intent.fence });
        if let (Json::Object(detail), Json::Object(ended)) = (&mut detail, ended) {
            detail.extend(ended);
        }
        if let Err(error) = stored.note("system", "connection.refresh", &wish.key, detail).await {
            tracing::error!(connection = %wish.key, "the audit log refused `connection.refresh`: {error}");
        }
    }

    fn count(&self, trial: &Trial<'_>, result: &str) {
        let nth = if trial.lease.failures() == 0 { "first" } else { "another" };
        let labels = [&*trial.integration.id, trial.wish.cause.word(), nth, result];
        self.parts.metrics.token_refreshes.with_label_values(&labels).inc();
    }

    /// One after which the token is the same.
    fn count_failed(&self, trial: &Trial<'_>, result: &str) {
        self.count(trial, result);
        self.parts.metrics.token_refreshes_failed.with_label_values(&[&*trial.integration.id]).inc();
    }
}

/// Does something again until the store does not fail with it, for as long as that may help.
async fn insist<T, F: Future<Output = Result<T, StoredError>>>(
    wish: &Wish,
    mut attempt: impl FnMut() -> F,
) -> Result<T, StoredError> {
    let mut pause = STORE_PAUSE.0;
    loop {
        match attempt().await {
            // Something else of the connection changed at the same time.
            Err(StoredError::Store(StoreError::Conflict(_))) => {}
            Err(StoredError::Store(error)) if !matches!(error, StoreError::TooLarge { .. }) => {
                tracing::error!(connection = %wish.key, "what a token call brought waits for the store, which refuses: {error}");
            }
            Err(StoredError::Random(error)) => {
                tracing::error!(connection = %wish.key, "what a token call brought waits to be sealed: {error}");
            }
            ended => return ended,
        }
        sleep(pause).await;
        pause = (pause * 2).min(STORE_PAUSE.1);
    }
}

/// What is told of a token: with its name, where it is not the only one that people know of.
fn of_token(wish: &Wish, what: &str) -> String {
    if &*wish.token == DEFAULT { what.to_owned() } else { format!("the token `{}`: {what}", wish.token) }
}

/// What to do about a token that came with something odd beside it.
const ODD_ANSWER: &str = "see whether `auth` of the definition says where the service's answers have what it reads";

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
