//! Signing in at the admin door: who someone is, for how long, and how often they may guess.
//!
//! Scripts send a token with each request; people get a session, whose cookie is a random number that is kept here
//! as a digest only. A password is compared on a thread of its own, at most [`AT_ONCE`] at a time, and an unknown
//! name costs as much as a wrong password. Guesses are slowed down by [`lockout`]. Every sign-in, refused one and
//! sign-out is in the audit log first. Called by the guard and by the page.

pub mod cookie;
mod device;
mod lockout;
mod once;
mod sessions;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use ring::digest::{SHA256, digest};
use serde_json::json;
use tokio::sync::Semaphore;

use super::refusal::Refused;
use crate::base::clock::{Clock, Timestamp};
use crate::base::random::Random;
use crate::base::secret::Secret;
use crate::definition::password;
use crate::definition::plan::gateway::{Account, Admin, Role};
use crate::respond::Refusal;
use crate::store::model::AuditEntry;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use lockout::{Lockout, Wrong};
use once::Links;
use sessions::{Begun, Sessions};

/// Passwords that are compared at once: each takes some 20 MB.
const AT_ONCE: usize = 2;
/// The most bytes of a password that are looked at.
const PASSWORD: usize = 1_024;
/// What an unknown name's password is compared with.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$RdescudvJCsgt3ub+b4dWRWJTmaaJObGUmFuZG9tQnk";
/// What to do when a token is missing or wrong.
pub const TOKEN_HELP: &str = "set `admin: { token: \"${env:TRUNKLINE_ADMIN_TOKEN}\" }` in trunkline.yaml and send it as \
    `Authorization: Bearer`";
/// Who signs in by a link that the gateway printed, where no account is set.
pub const LOCAL: &str = "operator";

/// What signing in is made of.
pub struct Parts {
    /// Where sessions and the audit log are kept.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What session numbers are made of.
    pub random: Arc<dyn Random>,
    /// Where sign-ins are counted.
    pub metrics: Arc<Metrics>,
}

/// Who makes a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What the audit log calls them.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// What proves it.
    pub proof: Proof,
}

/// What proves who someone is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: the door is open to this machine.
    Near,
    /// A token in the request.
    Token,
    /// A session; its forms carry this.
    Session {
        /// What a form of the session's own pages carries.
        form: String,
    },
}

/// What someone was known by, to see later whether it still counts.
#[derive(Debug, Clone)]
pub enum Standing {
    /// A token of this account, as the account was then.
    Account(Arc<str>, String),
    /// The session of this digest of a cookie.
    Session(String),
}

/// What someone shows who wants to sign in.
pub struct Attempt<'a> {
    /// Their name.
    pub name: &'a str,
    /// Their password or token.
    pub password: &'a Secret,
    /// Where they come from, where that is known.
    pub source: Option<IpAddr>,
    /// What their browser shows from an earlier time.
    pub device: Option<&'a str>,
}

/// What the browser of someone who signed in gets to keep.
#[derive(Debug)]
pub struct SignedIn {
    /// The session's cookie.
    pub session: Secret,
    /// What says that this account has signed in from there, where it is one of the settings.
    pub device: Option<Secret>,
}

/// Signing in.
pub struct SignIn {
    parts: Parts,
    sessions: Sessions,
    lockout: Lockout,
    links: Links,
    comparing: Arc<Semaphore>,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignIn(…)")
    }
}

impl SignIn {
    /// Nobody is signed in but whom the store knows.
    pub fn new(parts: Parts) -> Self {
        Self {
            sessions: Sessions::new(Arc::clone(&parts.store)),
            lockout: Lockout::default(),
            links: Links::default(),
            comparing: Arc::new(Semaphore::new(AT_ONCE)),
            parts,
        }
    }

    /// Who a session's cookie stands for.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn of_session(&self, admin: &Admin, cookie: &str) -> Result<Option<Identity>, Refused> {
        let now = self.parts.clock.now();
        let Some(session) = self.sessions.find(cookie, admin.session, now).await? else { return Ok(None) };
        let Some((name, role)) = whose(admin, &session) else {
            // Begun by what was in force before: it is over for good, as those are that a reload ends.
            self.sessions.end(cookie).await?;
            return Ok(None);
        };
        Ok(Some(Identity { name, role, proof: Proof::Session { form: form_word(cookie) } }))
    }

    /// What someone is known by; `cookie` is what their browser shows. `None` where there is nothing that could end but
    /// the door's being open.
    pub fn standing(&self, admin: &Admin, who: &Identity, cookie: Option<&str>) -> Option<Standing> {
        match &who.proof {
            Proof::Near => None,
            Proof::Token => {
                let proof = admin.account(&who.name).map(fingerprint).unwrap_or_default();
                Some(Standing::Account(Arc::clone(&who.name), proof))
            }
            Proof::Session { .. } => Some(Standing::Session(sessions::key(cookie.unwrap_or_default()))),
        }
    }

    /// Whether someone is still known by that. A session that is only looked at so is not seen: it does not go on by it.
    pub fn still_stands(&self, admin: &Admin, standing: &Standing) -> bool {
        match standing {
            Standing::Account(name, proof) => admin.account(name).is_some_and(|account| fingerprint(account) == *proof),
            Standing::Session(key) => {
                let session = self.sessions.look_at(key, admin.session, self.parts.clock.now());
                session.is_some_and(|session| whose(admin, &session).is_some())
            }
        }
    }

    /// Ends the sessions of accounts that are gone or have another password or token, for good: they do not come back
    /// with the account. Called at the start and at each reload.
    ///
    /// # Errors
    /// When the store fails; the sessions have then ended for this process.
    pub async fn end_of_others(&self, admin: &Admin) -> Result<usize, StoreError> {
        self.sessions.keep(|session| whose(admin, session).is_some()).await
    }

    /// Begins a session for who shows their password or token.
    ///
    /// # Errors
    /// When they do not fit, when there were too many guesses, or when the store fails.
    pub async fn by_password(&self, admin: &Admin, attempt: Attempt<'_>) -> Result<SignedIn, Refused> {
        let now = self.parts.clock.now();
        let known = admin.account(attempt.name);
        let is_own = |cookie: &&str| known.is_some_and(|account| device::is_of(account, cookie));
        let places = match attempt.device.filter(is_own) {
            Some(cookie) => lockout::place_of_device(cookie),
            None => lockout::places(attempt.source, attempt.name, known.map(|account| &*account.name)),
        };
        let wait = self.lockout.attempt(&places, now).map_err(|wait| {
            self.count("locked");
            let detail = "too many wrong passwords came from here or for this name";
            Refused::from(Refusal::RateLimited.answer_after(detail, wait))
        })?;
        // A name that is nobody's may be a password in the wrong field.
        let name = known.map_or("unknown", |account| &*account.name);
        let guess = Guess { parts: &self.parts, entry: Some(entry(now, name, "sign_in.abandoned", attempt.source)) };
        let proved = self.proves(known, attempt.password).await;
        guess.judged();
        if !proved {
            self.count("refused");
            self.note(now, name, "sign_in.refused", attempt.source).await?;
            let detail = "the name, or the password or token, is wrong";
            let answer = Refusal::SignInRefused.answer(detail);
            return Err(wait.map_or_else(|| answer, |wait| Refusal::SignInRefused.answer_after(detail, wait)).into());
        }
        self.lockout.succeed(&places);
        let Some(account) = known else { return Err(Refused::new(Refusal::SignInRefused, "nobody has this name")) };
        let session = self.begin(&account.name, &fingerprint(account), attempt.source).await?;
        Ok(SignedIn { session, device: device::issue(account, &*self.parts.random) })
    }

    /// Who shows this token with a request. Wrong ones are slowed down by where they come from, apart from passwords, so
    /// that a program with an old token keeps nobody from signing in.
    ///
    /// # Errors
    /// When it is nobody's, or when there were too many wrong ones: then it is not compared.
    pub fn by_token(&self, admin: &Admin, given: &[u8], source: Option<IpAddr>) -> Result<Identity, Refused> {
        let now = self.parts.clock.now();
        let places = lockout::places_of_tokens(source);
        self.lockout.judge(&places, now, || of_token(admin, given)).map_err(|wrong| match wrong {
            Wrong::Early(wait) => {
                let detail = "too many wrong tokens came from here";
                Refusal::RateLimited.answer_after(detail, wait).into()
            }
            Wrong::Token(wait) => {
                let answer = Refusal::AdminUnknown.answer_with("the admin token is wrong", Some(TOKEN_HELP), None);
                match wait {
                    Some(wait) => answer.after(wait).into(),
                    None => answer.into(),
                }
            }
        })
    }

    /// A link's word that signs `account` in once, within [`once::LIFETIME`]; `None` when there is no randomness.
    pub fn link_for(&self, account: &str) -> Option<Secret> {
        self.links.make(account, self.parts.clock.now(), &*self.parts.random)
    }

    /// Begins a session for who follows a link.
    ///
    /// # Errors
    /// When the link was used or is over, or when the store fails.
    pub async fn by_link(&self, admin: &Admin, word: &str, source: Option<IpAddr>) -> Result<SignedIn, Refused> {
        let now = self.parts.clock.now();
        let proof = |name: &str| match admin.account(name) {
            Some(account) => Some(fingerprint(account)),
            None => admin.accounts.is_empty().then(String::new),
        };
        let known = self.links.take(word, now).and_then(|name| Some((proof(&name)?, name)));
        let Some((proof, name)) = known else {
            self.count("refused");
            let help = "`trunkline sign-in` prints another one";
            return Err(Refused::with_help(Refusal::SignInRefused, "this link was used before, or is over", help));
        };
        let session = self.begin(&name, &proof, source).await?;
        let device = admin.account(&name).and_then(|account| device::issue(account, &*self.parts.random));
        Ok(SignedIn { session, device })
    }

    /// Ends a session.
    ///
    /// # Errors
    /// When the store fails; the session then goes on.
    pub async fn sign_out(&self, name: &str, cookie: &str, source: Option<IpAddr>) -> Result<(), Refused> {
        self.note(self.parts.clock.now(), name, "sign_out", source).await?;
        self.sessions.end(cookie).await?;
        self.count("out");
        Ok(())
    }

    async fn begin(&self, name: &str, proof: &str, source: Option<IpAddr>) -> Result<Secret, Refused> {
        let now = self.parts.clock.now();
        self.note(now, name, "sign_in", source).await?;
        let begun = Begun { account: name.to_owned(), proof: proof.to_owned(), began: now };
        let cookie = self.sessions.begin(begun, &*self.parts.random).await?;
        self.count("signed_in");
        Ok(cookie)
    }

    /// Whether a password or token is an account's. Takes as long for nobody's.
    async fn proves(&self, account: Option<&Account>, given: &Secret) -> bool {
        let bytes = given.expose().as_bytes();
        if account.is_some_and(|account| account.token.is_some_and(|token| is_digest_of(&token, bytes))) {
            return true;
        }
        let hash = account.and_then(|account| account.password.clone());
        let (known, hash) = (hash.is_some(), hash.unwrap_or_else(|| Arc::from(NOBODY)));
        let given = Secret::new(bytes.get(..PASSWORD).unwrap_or(bytes).to_vec());
        let Ok(place) = Arc::clone(&self.comparing).acquire_owned().await else { return false };
        let compare = move || {
            // Who leaves before the answer does not free the place: the comparison goes on.
            let _place = place;
            password::fits(given.expose(), &hash)
        };
        let compared = tokio::task::spawn_blocking(compare).await;
        known && compared.unwrap_or(false)
    }

    fn count(&self, result: &str) {
        self.parts.metrics.sign_ins.with_label_values(&[result]).inc();
    }

    async fn note(&self, at: Timestamp, name: &str, action: &str, source: Option<IpAddr>) -> Result<(), Refused> {
        self.parts.store.append(entry(at, name, action, source)).await?;
        Ok(())
    }
}

fn entry(at: Timestamp, name: &str, action: &str, source: Option<IpAddr>) -> AuditEntry {
    let detail = source.map_or_else(|| json!({}), |source| json!({ "source": source.to_string() }));
    AuditEntry { at, actor: name.to_owned(), action: action.to_owned(), target: "admin".to_owned(), detail }
}

/// A guess whose comparison goes on. Who leaves before its answer is in the audit log as well.
struct Guess<'a> {
    parts: &'a Parts,
    entry: Option<AuditEntry>,
}

impl Guess<'_> {
    fn judged(mut self) {
        self.entry = None;
    }
}

impl Drop for Guess<'_> {
    fn drop(&mut self) {
        let (Some(entry), Ok(runtime)) = (self.entry.take(), tokio::runtime::Handle::try_current()) else { return };
        self.parts.metrics.sign_ins.with_label_values(&["abandoned"]).inc();
        let store = Arc::clone(&self.parts.store);
        runtime.spawn(async move {
            if let Err(error) = store.append(entry).await {
                tracing::error!(%error, "an abandoned sign-in could not be written to the audit log");
            }
        });
    }
}

/// Who has a session, and what they may do; `None` where the account is gone, or is not as it was proved.
fn whose(admin: &Admin, session: &Begun) -> Option<(Arc<str>, Role)> {
    match admin.account(&session.account) {
        Some(account) if fingerprint(account) == session.proof => Some((Arc::clone(&account.name), account.role)),
        // A link that the gateway printed counts while nobody else could sign in.
        None if admin.accounts.is_empty() && session.proof.is_empty() => Some((Arc::from(LOCAL), Role::Operator)),
        _ => None,
    }
}

/// The account whose token a request shows. Every account is compared, so that the time says nothing.
fn of_token(admin: &Admin, given: &[u8]) -> Option<Identity> {
    let fits = |account: &&Account| account.token.is_some_and(|token| is_digest_of(&token, given));
    let found: Vec<_> = admin.accounts.iter().filter(fits).collect();
    let account = found.first()?;
    Some(Identity { name: Arc::clone(&account.name), role: account.role, proof: Proof::Token })
}

/// The bytes of an `Authorization: Bearer`. Another scheme is nobody's token: a proxy in front may ask for a password of
/// its own, which browsers then send along.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let given = headers.get(http::header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = given.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

/// Whether a request's form carries the word of its session.
pub fn is_own_form(given: &str, expected: &str) -> bool {
    is_equal(given.as_bytes(), expected.as_bytes())
}

/// Every byte is looked at, whatever the first ones say.
fn is_digest_of(expected: &[u8; 32], given: &[u8]) -> bool {
    is_equal(digest(&SHA256, given).as_ref(), expected)
}

fn is_equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// What of an account a session depends on: a changed password or token ends its sessions.
fn fingerprint(account: &Account) -> String {
    let mut all = account.password.as_deref().unwrap_or_default().as_bytes().to_vec();
    all.push(0);
    all.extend(account.token.unwrap_or_default());
    hex(digest(&SHA256, &all).as_ref())
}

/// What forms of a session carry: known to whoever can read the session's pages, and says nothing of the cookie.
fn form_word(cookie: &str) -> String {
    let digest = digest(&SHA256, format!("form of {cookie}").as_bytes());
    hex(digest.as_ref().get(..16).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// How long until a link is over, for people.
pub const LINK_LIFETIME: Duration = once::LIFETIME;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::random::SeededRandom;
    use crate::store::embedded;
    use futures_util::FutureExt as _;

    fn sign_in(directory: &std::path::Path) -> SignIn {
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
        let store = embedded::open(&embedded::Options::new(directory, Arc::clone(&clock) as Arc<dyn Clock>));
        SignIn::new(Parts {
            store: store.expect("a store"),
            clock,
            random: Arc::new(SeededRandom::new(1)),
            metrics: Arc::new(Metrics::new().expect("metrics")),
        })
    }

    #[test]
    fn who_leaves_before_the_answer_keeps_the_place_and_has_guessed() {
        // The one thread that compares is busy, so that no comparison ends.
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let (free, busy) = std::sync::mpsc::channel::<()>();
        drop(runtime.spawn_blocking(move || busy.recv()));
        let directory = tempfile::tempdir().expect("a directory");
        let (sign_in, admin) = (sign_in(directory.path()), Admin::default());
        let guess = |source: u8| {
            let attempt = Attempt {
                name: if source == 1 { "ada" } else { "bob" },
                password: &Secret::new("a guess".to_owned()),
                source: Some(IpAddr::from([192, 0, 2, source])),
                device: None,
            };
            // Asked once and then left.
            runtime.block_on(async { Box::pin(sign_in.by_password(&admin, attempt)).now_or_never() })
        };
        assert!(guess(1).is_none() && sign_in.comparing.available_permits() == 1, "the place is free again");
        assert!(guess(1).is_none() && sign_in.comparing.available_permits() == 0, "the place is free again");
        // These wait for a place.
        assert!(guess(1).is_none() && guess(1).is_none());
        let refused = guess(1).expect("an answer at once").expect_err("five guesses");
        assert_eq!(refused.document()["code"], "rate_limited");
        assert!(guess(2).is_none(), "another source waits as well");
        // The store needs a thread as well.
        drop(free);
        let store = &sign_in.parts.store;
        let noted = runtime.block_on(async {
            while store.newest().await < 5 {
                tokio::task::yield_now().await;
            }
            store.read(1, 9).await.expect("the audit log")
        });
        assert!(noted.iter().all(|record| record.entry.action == "sign_in.abandoned") && noted.len() == 5);
    }

    #[test]
    fn an_unknown_name_costs_what_a_wrong_password_costs() {
        assert!(password::read(NOBODY).is_ok(), "nobody's hash is compared with nothing");
        assert!(!password::fits(b"", NOBODY));
    }

    #[test]
    fn a_token_is_whose_digest_it_has() {
        let account = |name: &str, token: &str| {
            let mut digest = [0; 32];
            digest.copy_from_slice(ring::digest::digest(&SHA256, token.as_bytes()).as_ref());
            Account { name: name.into(), role: Role::Viewer, password: None, token: Some(digest) }
        };
        let accounts = vec![account("a", "0123456789abcdef"), account("b", "fedcba9876543210")];
        let admin = Admin { accounts, ..Admin::default() };
        let name = |token: &[u8]| of_token(&admin, token).map(|who| who.name.to_string());
        assert_eq!(name(b"fedcba9876543210").as_deref(), Some("b"));
        assert_eq!((name(b"fedcba9876543211"), name(b"")), (None, None));
    }
}
