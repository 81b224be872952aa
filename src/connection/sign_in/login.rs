//! Signing in by requests of a service's own: each step sees what those before it kept, and the last one's
//! answer holds the tokens.
//!
//! A session can be had again at any time from what the connection tells, so it is kept in memory and
//! nowhere else. Who asks at once for one connection waits for one sign-in; one that failed is not tried
//! again for a while, because services lock accounts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::Parts;
use super::send::{self, misconfigured};
use crate::connection::flow::Secrets;
use crate::connection::flow::token_reply::{self, Tokens, Wanted};
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind, TokenSource};
use crate::definition::plan::Integration;
use crate::definition::plan::auth::Auth;
use crate::definition::plan::login::Login;

/// How long a sign-in that the service refused is not tried again, and one that failed otherwise.
const AGAIN: (Duration, Duration) = (Duration::from_mins(5), Duration::from_secs(10));
/// Connections of which is remembered that they failed or sign in now.
const MOST: usize = 16_384;

/// What signs in.
#[derive(Debug)]
pub struct Logins {
    parts: Parts,
    flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    failures: Mutex<HashMap<String, Failed>>,
}

/// A sign-in that failed.
#[derive(Debug, Clone)]
struct Failed {
    /// When it may be tried again, in monotonic time.
    until: Duration,
    /// Why it failed.
    error: TokenError,
    /// What it was tried with: another definition or other inputs are tried at once.
    tried: (Weak<Integration>, Map<String, Json>),
}

impl Logins {
    /// Sign-ins made with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts, flights: Mutex::default(), failures: Mutex::default() }
    }

    /// The turn of a connection: who holds it signs in, the others wait.
    pub fn turn(&self, integration: &str, connection: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{integration}/{connection}");
        if let Some(turn) = flights.get(&key).and_then(Weak::upgrade) {
            return turn;
        }
        if flights.len() >= MOST {
            flights.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        flights.insert(key, Arc::downgrade(&turn));
        turn
    }

    /// Signs in, unless it failed a short while ago.
    ///
    /// # Errors
    /// As the service answers, or answered then.
    pub async fn sign_in(&self, account: Account<'_>) -> Result<Grant, TokenError> {
        let key = format!("{}/{}", account.integration.id, account.connection);
        let now = self.parts.clock.monotonic();
        let before = self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(failed) = before.filter(|failed| failed.until > now && failed.is_of(&account)) {
            return Err(failed.error);
        }
        let result = Box::pin(self.run(account)).await;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST {
            failures.clear();
        }
        match &result {
            Ok(_) => _ = failures.remove(&key),
            Err(error) => {
                let wait = if error.kind == TokenErrorKind::Permanent { AGAIN.0 } else { AGAIN.1 };
                let wait = error.retry_after.unwrap_or(wait).clamp(AGAIN.1, AGAIN.0);
                let tried = (Arc::downgrade(account.integration), account.inputs.clone());
                failures.insert(key, Failed { until: now.saturating_add(wait), error: error.clone(), tried });
            }
        }
        result
    }

    async fn run(&self, account: Account<'_>) -> Result<Grant, TokenError> {
        let login = plan(&account)?;
        let secrets = secrets_of(&account);
        let (mut saved, mut kept) = (account.saved.clone(), Map::new());
        let mut tokens = std::collections::BTreeMap::new();
        let last = login.steps.len().saturating_sub(1);
        for (index, step) in login.steps.iter().enumerate() {
            let now_account = Account { saved: &saved, ..account };
            let context = send::context(&now_account, &self.parts);
            let received = send::received(&self.parts, &now_account, (&step.request, &context), &|_| Ok(())).await;
            let received = received.map_err(|error| redacted(error, &secrets))?;
            let wanted = if index == last { Tokens::Issued } else { Tokens::Any };
            let wanted = Wanted { tokens: wanted, separator: " ", now: self.parts.clock.now() };
            let reply = token_reply::read(step, (&context, &secrets), received, wanted).map_err(for_good)?;
            kept.extend(reply.saved.clone());
            saved.extend(reply.saved);
            tokens.extend(reply.tokens);
            for token in tokens.values_mut().filter(|token: &&mut Issued| token.expires_at.is_none()) {
                token.expires_at = step.default_ttl.map(|ttl| token.issued_at.after(ttl));
            }
        }
        Ok(Grant { tokens, saved: kept })
    }
}

impl Failed {
    fn is_of(&self, account: &Account<'_>) -> bool {
        let (integration, inputs) = &self.tried;
        std::ptr::eq(integration.as_ptr(), Arc::as_ptr(account.integration)) && inputs == account.inputs
    }
}

/// A sign-in is renewed by signing in again.
#[async_trait]
impl TokenSource for Logins {
    async fn renew(&self, account: Account<'_>, _name: &str, _held: &Issued) -> Result<Grant, TokenError> {
        self.sign_in(account).await
    }

    fn renews(&self, _integration: &Integration, _held: &Issued) -> bool {
        true
    }
}

fn plan<'a>(account: &Account<'a>) -> Result<&'a Login, TokenError> {
    match &account.integration.auth {
        Auth::Login(plan) => Ok(plan),
        _ => Err(misconfigured(format!("`{}` does not sign in by `auth: login`", account.integration.id))),
    }
}

/// Whatever a connection tells may be what it signs in with.
fn secrets_of(account: &Account<'_>) -> Secrets {
    Secrets::default().and_inputs(account.integration, account.inputs)
}

/// Login steps have no error codes of OAuth's: a 401 or 403 says that the name or the password is wrong.
fn for_good(error: TokenError) -> TokenError {
    match (error.kind, error.status) {
        (TokenErrorKind::Misconfigured, Some(401 | 403)) => TokenError { kind: TokenErrorKind::Permanent, ..error },
        _ => error,
    }
}

fn redacted(error: TokenError, secrets: &Secrets) -> TokenError {
    TokenError { words: error.words.map(|words| secrets.redact(&words)), ..error }
}
