//! The sign-in side of a simulated service: for OAuth 2.0 authorization page, codes, tokens, revocation and device
//! flow; [`oauth1`] and [`login`] for OAuth 1.0a and requests of a service's own.
//!
//! It is made from the compiled definition and wants of the gateway exactly what that declares: parameters
//! under their names and in their place, the client's proof in its form, PKCE unless it is off, the same redirect
//! address twice. Its answers have the shape that the definition reads. So a definition that the engine
//! cannot run, or an engine that does not do what a definition says, shows here; whether the definition
//! is right about the real service cannot. What was issued is kept in memory, and told for a later process. Called by
//! `service`.

mod assertion;
mod consent;
mod control;
mod device;
mod ledger;
mod login;
mod metadata;
mod oauth1;
mod page;
mod presented;
mod pushed;
mod registration;
mod reply;
mod saved;
mod taking_back;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::counted::{Borrowed, Counted};
use super::paths::reads;
use super::received::Received;
use super::route::{Route, is_at, segments};
use crate::base::clock::Timestamp;
use crate::base::random::Random;
use crate::definition::plan::api::PathPattern;
use crate::definition::plan::oauth2::{OAuth2, TokenCall};
use crate::definition::plan::request::Request;
use crate::definition::plan::{Auth, Integration};
use crate::respond::Answer;
use crate::template::Expr;

pub(super) use login::LoginSide;
pub(super) use oauth1::OAuth1Side;
use saved::Saved;

/// What becomes of authorization requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// A person is asked on a page.
    #[default]
    Asked,
    /// Everyone agrees at once, for runs without people.
    Granted,
    /// Everyone refuses.
    Denied,
}

/// When a call arrives, and what new values are drawn from.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    /// The time.
    pub now: Timestamp,
    /// Randomness.
    pub random: &'a dyn Random,
}

/// The authorization server of one simulated service.
#[derive(Debug)]
pub(super) struct OAuthSide {
    id: String,
    title: String,
    integration: Arc<Integration>,
    plan: Arc<OAuth2>,
    /// The token call of a definition that leaves it to its issuer.
    standard: Vec<TokenCall>,
    /// The authorization endpoint, where a person is sent to one.
    authorize_at: Option<Vec<Option<Box<str>>>>,
    ledger: ledger::Ledger,
    saved: Saved,
    switches: Mutex<Switches>,
    flows: Mutex<Vec<device::Flow>>,
    pushed: Mutex<Vec<pushed::Pushed>>,
    applications: Counted<Vec<registration::Application>>,
}

#[derive(Debug, Default)]
struct Switches {
    consent: Consent,
    failing: Option<control::Failing>,
    delay: Duration,
}

impl OAuthSide {
    /// The authorization server that a definition describes; `None` when it is not of this kind.
    pub fn new(integration: &Arc<Integration>, consent: Consent) -> Option<Self> {
        let Auth::OAuth2(plan) = &integration.auth else { return None };
        let standard = plan.issuer.as_ref().filter(|_| plan.token.is_empty()).and_then(metadata::standard_call);
        let by_issuer = || {
            let issuer = Url::parse(plan.issuer.as_ref()?.literal()?).ok()?;
            let path = format!("{}{}", issuer.path().trim_end_matches('/'), metadata::AUTHORIZE);
            crate::template::Text::compile(&path).ok().map(|path| segments(&path))
        };
        Some(Self {
            id: integration.id.to_string(),
            title: integration.title.clone(),
            authorize_at: plan.authorize.as_ref().map(|plan| segments(&plan.url)).or_else(by_issuer),
            saved: Saved::new(integration, plan),
            integration: Arc::clone(integration),
            plan: Arc::clone(plan),
            standard: standard.into_iter().collect(),
            ledger: ledger::Ledger::default(),
            switches: Mutex::new(Switches { consent, ..Switches::default() }),
            flows: Mutex::default(),
            pushed: Mutex::default(),
            applications: Counted::default(),
        })
    }

    /// What was issued and who registered, for a later process.
    pub fn state(&self) -> Value {
        json!({ "ledger": self.ledger.state(), "applications": &*self.applications() })
    }

    /// How often [`Self::state`] may have changed.
    pub fn changes(&self) -> u64 {
        self.ledger.changes() + self.applications.changes()
    }

    /// Goes on from a [`Self::state`].
    ///
    /// # Errors
    /// When the value is none.
    pub fn restore(&self, state: &Value) -> Result<(), serde_json::Error> {
        self.ledger.restore(&state["ledger"])?;
        *self.applications() = Deserialize::deserialize(&state["applications"])?;
        Ok(())
    }

    /// The answer to a call of the authorization server; `None` for calls to the API.
    pub fn answer(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        self.metadata(received)
            .or_else(|| self.device_page(received, at))
            .or_else(|| self.device(received, below, at))
            .or_else(|| self.registration(received, at))
            .or_else(|| self.push(received, below, at))
            .or_else(|| self.token(received, below, at))
            .or_else(|| self.introspect(received, below, at))
            .or_else(|| self.taking_back(received, below, at))
            .or_else(|| self.authorize(received, at))
    }

    /// Whether a call is to the token endpoint, which may be asked to take its time.
    pub fn is_token_call(&self, received: &Received) -> bool {
        let calls = self.token_calls().iter().chain(self.plan.refresh.iter().flatten());
        calls.into_iter().any(|call| is_at(&call.request, received, None))
    }

    /// Whether a call carries an access token that is good: `value` is what stands where the definition
    /// places its credential.
    pub fn admits(&self, value: &str, now: Timestamp) -> Result<(), String> {
        let parts = std::iter::once(value).chain(value.split([' ', ',', ';', ':', '"', '=']));
        let mut refused = ledger::Refused::Unknown;
        for part in parts {
            match self.ledger.holder(part, now) {
                Ok(_) => return Ok(()),
                Err(ledger::Refused::Unknown) => {}
                Err(other) => refused = other,
            }
        }
        Err(format!("the access token is not valid: {refused}"))
    }

    /// As [`Self::admits`], for a proof in which the token may stand in a form that only a real service knows.
    pub fn admits_proof(&self, value: &str, now: Timestamp) -> Result<(), String> {
        let is_known = |part: &str| !matches!(self.ledger.holder(part, now), Err(ledger::Refused::Unknown));
        let has_token = value.split([' ', ',', ';', ':', '"', '=']).any(is_known);
        if has_token { self.admits(value, now) } else { Ok(()) }
    }

    /// As [`Self::admits`], for calls whose definition puts the token in a place of its own.
    pub fn admits_anywhere(&self, received: &Received, now: Timestamp) -> bool {
        presented::values(received).iter().any(|value| self.ledger.holder(value, now).is_ok())
    }

    /// The routes of the calls that a sign-in makes once it has a token.
    pub fn routes(&self, ok: Option<&Expr>) -> Vec<Route> {
        let whole = |request: &Request| {
            let saved = self.saved.reads(&request.save);
            // Reads that must have a value of their own go first: the first one counts.
            Route::of_request(&self.id, request, ok).reading_first(saved)
        };
        let identity = self.plan.identity.iter().map(|identity| {
            let read = [Some(&identity.id), identity.name.as_ref(), identity.email.as_ref()];
            whole(&identity.request).reading(read.into_iter().flatten().flat_map(|expr| reads(expr.source())))
        });
        let choosing = self.plan.discover.iter();
        let choosing = choosing.map(|step| whole(&step.request).reading_first(self.saved.choice_reads(step)));
        identity.chain(choosing).collect()
    }

    fn token_calls(&self) -> &[TokenCall] {
        if self.plan.token.is_empty() { &self.standard } else { &self.plan.token }
    }

    fn is_authorize(&self, received: &Received) -> bool {
        let Some(at) = &self.authorize_at else { return false };
        let at = PathPattern { method: received.method.clone(), segments: at.clone() };
        matches!(received.method, Method::GET | Method::POST) && at.matches(&received.method, &received.path)
    }

    fn issuer_literal(&self) -> Option<&str> {
        self.plan.issuer.as_ref().and_then(|issuer| issuer.literal())
    }

    fn consent(&self) -> Consent {
        self.switches().consent
    }

    fn switches(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applications(&self) -> Borrowed<'_, Vec<registration::Application>> {
        self.applications.borrow()
    }

    fn pushed(&self) -> MutexGuard<'_, Vec<pushed::Pushed>> {
        self.pushed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flows(&self) -> MutexGuard<'_, Vec<device::Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
