//! Signing in by requests of a service's own: each step sees what those before it kept, and the last one's
//! answer holds the tokens. Grants of OAuth 2.0 that need no person are had in the same way, for connections that keep
//! no token, and so are temporary access keys, whose call is signed ([`key`]).
//!
//! A session can be had again at any time from what the connection tells, so it is kept in memory and
//! nowhere else; one that has a refresh token is renewed by that where the definition says how. Who asks at once for one connection waits for one sign-in; one that failed is not tried
//! again for a while, because services lock accounts.
//!
//! Of a service that can be told of the end of a session the live ones are known here: one that was
//! replaced, or whose connection is gone, is given to whoever tells services ([`Logins::over`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tokio::sync::Notify;

use super::Parts;
use super::key;
use super::send::{self, misconfigured};
use crate::base::secret::Secret;
use crate::connection::directory::DEFAULT;
use crate::connection::flow::Secrets;
use crate::connection::flow::token_reply::{self, Tokens, Wanted};
use crate::connection::grant::{Account, Grant, Grants, Issued, TokenError, TokenErrorKind};
use crate::connection::told::Called;
use crate::connection::{Connection, Credential};
use crate::definition::plan::Integration;
use crate::definition::plan::auth::Auth;
use crate::definition::plan::login::Login;
use crate::definition::plan::sigv4::KEY_SECRET;
use crate::net::Outgoing;

/// How long a sign-in that the service refused is not tried again, and one that failed otherwise.
const AGAIN: (Duration, Duration) = (Duration::from_mins(5), Duration::from_secs(10));
/// Connections of which is remembered that they failed or sign in now.
const MOST: usize = 16_384;

/// What signs in.
#[derive(Debug)]
pub struct Logins {
    parts: Parts,
    /// What gets the grants that need no person.
    grants: Option<Arc<dyn Grants>>,
    flights: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    failures: Mutex<HashMap<String, Failed>>,
    sessions: Mutex<Sessions>,
    /// Told when a session is over.
    pub ended: Notify,
}

/// Sessions that are renewed, or that the service is to be told of when they are over.
#[derive(Debug, Default)]
struct Sessions {
    live: HashMap<String, Arc<Connection>>,
    over: Vec<Arc<Connection>>,
}

/// A sign-in that failed.
#[derive(Debug, Clone)]
struct Failed {
    /// When it may be tried again, in monotonic time.
    until: Duration,
    /// Why it failed.
    error: TokenError,
    /// What it was tried with: another definition, other inputs or another key are tried at once.
    tried: (Weak<Integration>, Map<String, Json>, Option<Arc<Secret>>),
}

impl Logins {
    /// Sign-ins made with these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            grants: None,
            flights: Mutex::default(),
            failures: Mutex::default(),
            sessions: Mutex::default(),
            ended: Notify::new(),
        }
    }

    /// The same, which gets the grants of OAuth 2.0 that need no person here.
    #[must_use]
    pub fn granted_by(self, grants: Arc<dyn Grants>) -> Self {
        Self { grants: Some(grants), ..self }
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

    /// Signs in, unless it failed a short while ago. `own` is what the connection has to sign with.
    ///
    /// # Errors
    /// As the service answers, or answered then.
    pub async fn sign_in(&self, account: Account<'_>, own: &Credential) -> Result<Grant, TokenError> {
        let key = format!("{}/{}", account.integration.id, account.connection);
        let now = self.parts.clock.monotonic();
        let before = self.failures.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(failed) = before.filter(|failed| failed.until > now && failed.is_of(&account, own)) {
            return Err(failed.error);
        }
        let result = Box::pin(self.run(account, own)).await;
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST {
            failures.clear();
        }
        match &result {
            Ok(_) => _ = failures.remove(&key),
            Err(error) => {
                let wait = if error.kind == TokenErrorKind::Permanent { AGAIN.0 } else { AGAIN.1 };
                let wait = error.retry_after.unwrap_or(wait).clamp(AGAIN.1, AGAIN.0);
                let signed = key::secrets(&account, own).next();
                let signed = signed.map(|secret| Arc::new(Secret::from(secret.expose().as_str())));
                let tried = (Arc::downgrade(account.integration), account.inputs.clone(), signed);
                failures.insert(key, Failed { until: now.saturating_add(wait), error: error.clone(), tried });
            }
        }
        result
    }

    /// Notes a session that is in use from now on; the one before it is over. `signed_in` is the connection
    /// with the session's tokens.
    pub fn began(&self, integration: &Integration, signed_in: &Arc<Connection>) {
        if !is_remembered(integration) {
            return;
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{}/{}", integration.id, signed_in.id);
        if sessions.live.len() >= MOST && !sessions.live.contains_key(&key) {
            tracing::warn!(integration = %integration.id, "too many sessions to remember: one will not be logged out");
            return;
        }
        let before = sessions.live.insert(key, Arc::clone(signed_in));
        if let Some(before) = before.filter(|_| says_farewell(integration)) {
            self.end(&mut sessions, before);
        }
    }

    /// Notes that a session which [`Self::began`] does not know is over.
    pub fn tried(&self, integration: &Integration, signed_in: &Arc<Connection>) {
        if says_farewell(integration) {
            self.end(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner), Arc::clone(signed_in));
        }
    }

    /// Lets go of a connection's live session, for whoever ends it.
    pub fn leave(&self, integration: &str, connection: &str) -> Option<Arc<Connection>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.live.remove(&format!("{integration}/{connection}"))
    }

    /// Goes on with a session that was let go of, unless another has begun.
    pub fn stay(&self, session: Arc<Connection>) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("{}/{}", session.integration, session.id);
        match sessions.live.entry(key) {
            Entry::Vacant(place) => _ = place.insert(session),
            Entry::Occupied(_) => self.end(&mut sessions, session),
        }
    }

    /// Integration and connection of every live session.
    pub fn live(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.live.values().map(|session| (Arc::clone(&session.integration), Arc::clone(&session.id))).collect()
    }

    /// The sessions that are over and that nobody was told of, once.
    pub fn over(&self) -> Vec<Arc<Connection>> {
        std::mem::take(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner).over)
    }

    fn end(&self, sessions: &mut Sessions, session: Arc<Connection>) {
        if sessions.over.len() >= MOST {
            tracing::warn!(integration = %session.integration, "too many sessions ended at once: one is not logged out");
            return;
        }
        sessions.over.push(session);
        self.ended.notify_one();
    }

    /// Ends a session at the service; `false` when the definition does not say how. A session that the
    /// service does not know any more is no error.
    ///
    /// # Errors
    /// As the service answers.
    pub async fn log_out(&self, account: Account<'_>, tokens: &BTreeMap<Arc<str>, Issued>) -> Result<bool, TokenError> {
        let login = plan(&account)?;
        let mut secrets = secrets_of(&account);
        let token = shown(tokens, &mut secrets);
        let mut saved = account.saved.clone();
        for request in &login.logout {
            let now_account = Account { saved: &saved, ..account };
            let context = send::context(&now_account, &self.parts).with_json("token", &token);
            let called = Called { field: "logout", secrets: &secrets };
            match Box::pin(send::send(&self.parts, &now_account, (request, &context), called, &|_| Ok(()))).await {
                Ok(outcome) => saved.extend(outcome.saved),
                Err(TokenError { status: Some(401 | 404 | 410), .. }) => return Ok(true),
                Err(error) => return Err(redacted(error, &secrets)),
            }
        }
        Ok(!login.logout.is_empty())
    }

    async fn run(&self, account: Account<'_>, own: &Credential) -> Result<Grant, TokenError> {
        if let (Auth::OAuth2(_), Some(grants)) = (&account.integration.auth, &self.grants) {
            return grants.grant_itself(account).await;
        }
        let login = plan(&account)?;
        if let Some(grant) = Box::pin(self.renewed(account, login)).await {
            return Ok(grant);
        }
        let mut secrets = secrets_of(&account);
        key::secrets(&account, own).for_each(|secret| secrets.add(secret.expose()));
        let (mut saved, mut kept) = (account.saved.clone(), Map::new());
        let mut tokens = BTreeMap::new();
        let last = login.steps.len().saturating_sub(1);
        for (index, step) in login.steps.iter().enumerate() {
            let now_account = Account { saved: &saved, ..account };
            let context = send::context(&now_account, &self.parts);
            let sign = |outgoing: &mut Outgoing| key::sign(&self.parts, &now_account, (own, &context), outgoing);
            let called = Called { field: field(&account), secrets: &secrets };
            let received = send::received(&self.parts, &now_account, (&step.request, &context), called, &sign).await;
            let received = received.map_err(|error| redacted(error, &secrets))?;
            let wanted = if index == last { Tokens::Issued } else { Tokens::Any };
            let wanted = Wanted { tokens: wanted, separator: " ", now: self.parts.clock.now() };
            let reply = token_reply::read(step, (&context, &secrets), received, wanted).map_err(for_good)?;
            left_out(&account, &reply);
            kept.extend(reply.saved.clone());
            saved.extend(reply.saved);
            tokens.extend(reply.tokens);
            for token in tokens.values_mut().filter(|token: &&mut Issued| token.expires_at.is_none()) {
                token.expires_at = step.default_ttl.map(|ttl| token.issued_at.after(ttl));
            }
        }
        if matches!(account.integration.auth, Auth::SigV4(_)) && !tokens.contains_key(KEY_SECRET) {
            let words = "the answer cannot be used: it has no key at `access_key.secret`";
            return Err(TokenError::new(TokenErrorKind::Passing, words.to_owned()));
        }
        Ok(Grant { tokens, saved: kept, ..Grant::default() })
    }
}

impl Logins {
    /// The session of an account, renewed by its refresh token; `None` where the definition does not say how, there
    /// is no session of this very account, or the service refuses: then the account signs in.
    async fn renewed(&self, account: Account<'_>, login: &Login) -> Option<Grant> {
        let call = login.refresh.as_ref()?;
        let key = format!("{}/{}", account.integration.id, account.connection);
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).live.get(&key).cloned()?;
        let Credential::Tokens(held) = &session.credential else { return None };
        if session.inputs != *account.inputs || held.issued(None)?.refresh.is_none() {
            return None;
        }
        let mut secrets = secrets_of(&account);
        let token = shown(&held.0, &mut secrets);
        let context = send::context(&account, &self.parts).with_json("token", &token);
        let called = Called { field: "refresh", secrets: &secrets };
        let received = send::received(&self.parts, &account, (&call.request, &context), called, &|_| Ok(())).await;
        let wanted = Wanted { tokens: Tokens::Issued, separator: " ", now: self.parts.clock.now() };
        let reply = received.and_then(|received| token_reply::read(call, (&context, &secrets), received, wanted));
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                let error = redacted(error, &secrets);
                tracing::info!(integration = %account.integration.id, "a session is not renewed, so the account signs in: {error}");
                return None;
            }
        };
        left_out(&account, &reply);
        let grant = Grant { tokens: reply.tokens, saved: reply.saved, ..Grant::default() };
        let mut tokens = held.renewed(&grant).0;
        for token in tokens.values_mut().filter(|token| token.expires_at.is_none()) {
            token.expires_at = call.default_ttl.map(|ttl| token.issued_at.after(ttl));
        }
        // It is the same session, which goes on: the service is not told that it is over.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).live.remove(&key);
        Some(Grant { tokens, ..grant })
    }
}

/// Logs what of an answer could not be used, beside tokens that could.
fn left_out(account: &Account<'_>, reply: &token_reply::Reply) {
    for words in &reply.warnings {
        tracing::warn!(integration = %account.integration.id, connection = account.connection, "signing in: {words}");
    }
}

impl Failed {
    fn is_of(&self, account: &Account<'_>, own: &Credential) -> bool {
        let (integration, inputs, key) = &self.tried;
        let same_key = key.as_ref().map(|key| key.expose()) == key::secrets(account, own).next().map(Secret::expose);
        std::ptr::eq(integration.as_ptr(), Arc::as_ptr(account.integration)) && inputs == account.inputs && same_key
    }
}

/// Whether a service can be told of the end of a session.
fn says_farewell(integration: &Integration) -> bool {
    matches!(&integration.auth, Auth::Login(login) if !login.logout.is_empty())
}

/// Whether live sessions are known here.
fn is_remembered(integration: &Integration) -> bool {
    says_farewell(integration) || matches!(&integration.auth, Auth::Login(login) if login.refresh.is_some())
}

/// Tokens as templates see them: `token.NAME.access`, and the usual one as `token.access` as well.
fn shown(tokens: &BTreeMap<Arc<str>, Issued>, secrets: &mut Secrets) -> Json {
    let mut all = Map::new();
    for (name, issued) in tokens {
        let mut fields = Map::new();
        for (field, secret) in [("access", Some(&issued.access)), ("refresh", issued.refresh.as_ref())] {
            let Some(secret) = secret else { continue };
            secrets.add(secret.expose());
            fields.insert(field.to_owned(), Json::from(secret.expose().as_str()));
        }
        if &**name == DEFAULT {
            all.extend(fields.clone());
        }
        all.insert(name.to_string(), Json::Object(fields));
    }
    Json::Object(all)
}

fn plan<'a>(account: &Account<'a>) -> Result<&'a Login, TokenError> {
    let login = match &account.integration.auth {
        Auth::Login(plan) => Some(&**plan),
        Auth::SigV4(plan) => plan.session.as_ref().map(|session| &session.login),
        _ => None,
    };
    login.ok_or_else(|| misconfigured(format!("`{}` does not sign in by requests of its own", account.integration.id)))
}

/// The field of the definition's `auth` that describes the calls that sign in.
fn field(account: &Account<'_>) -> &'static str {
    match &account.integration.auth {
        Auth::SigV4(_) => "session",
        _ => "steps",
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
