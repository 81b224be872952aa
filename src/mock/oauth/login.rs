//! Signing in by requests of a service's own, simulated: sessions that are issued, end and are ended, and temporary
//! access keys, each of which has a secret that follows from its id. Called by `service`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, StatusCode};
use serde_json::Value;

use super::ledger::{FamilyId, Ledger};
use super::presented::{as_declared, values};
use super::reply::{Reply, Unsolved};
use super::token::{ACCESS_LIFE, refusal, unsigned_jwt};
use super::{At, is_at};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::definition::plan::login::Login;
use crate::definition::plan::moment::MomentUnit;
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, TokenCall};
use crate::definition::plan::sigv4::{KEY_SECRET, KEY_SESSION, SigV4};
use crate::definition::plan::{Auth, Integration};
use crate::mock::credential::Right;
use crate::mock::paths::{last_key, reads};
use crate::mock::received::Received;
use crate::mock::shape::{self, Existing};
use crate::mock::signed;
use crate::respond::Answer;

/// The header with a temporary access key's token.
const SESSION_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// The sessions of one simulated service.
#[derive(Debug)]
pub(in crate::mock) struct LoginSide {
    plan: Plan,
    ledger: Ledger,
}

/// How the service is signed in to.
#[derive(Debug)]
enum Plan {
    /// By requests of its own.
    Login(Arc<Login>),
    /// By a call that gives a temporary access key.
    Key(Arc<SigV4>),
}

impl Plan {
    fn login(&self) -> Option<&Login> {
        match self {
            Self::Login(login) => Some(login),
            Self::Key(sigv4) => sigv4.session.as_ref().map(|session| &session.login),
        }
    }

    /// Whether those who sign in must sign the call.
    fn wants_signature(&self) -> bool {
        matches!(self, Self::Key(sigv4) if sigv4.session.as_ref().is_some_and(|session| session.scope.is_some()))
    }
}

/// The secret of a temporary access key.
fn secret_of(id: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, format!("the secret of {id}").as_bytes());
    URL_SAFE_NO_PAD.encode(digest)
}

impl LoginSide {
    /// The sign-in that a definition describes; `None` when it is not of this kind.
    pub fn new(integration: &Integration) -> Option<Self> {
        match &integration.auth {
            Auth::Login(plan) => Some(Self { plan: Plan::Login(Arc::clone(plan)), ledger: Ledger::default() }),
            Auth::SigV4(plan) if plan.session.is_some() => {
                Some(Self { plan: Plan::Key(Arc::clone(plan)), ledger: Ledger::default() })
            }
            _ => None,
        }
    }

    /// The sessions, for a later process.
    pub fn state(&self) -> Value {
        self.ledger.state()
    }

    /// How often [`Self::state`] may have changed.
    pub fn changes(&self) -> u64 {
        self.ledger.changes()
    }

    /// Goes on from a [`Self::state`].
    ///
    /// # Errors
    /// When the value is none.
    pub fn restore(&self, state: &Value) -> Result<(), serde_json::Error> {
        self.ledger.restore(state)
    }

    /// The answer to a call that signs in or out; `None` for calls to the API. `right` is what those who sign in
    /// must tell.
    pub fn answer(&self, (received, below): (&Received, Option<&str>), right: &Right, at: At<'_>) -> Option<Answer> {
        let plan = self.plan.login()?;
        if plan.logout.iter().any(|request| is_at(request, received, below)) {
            for family in values(received).iter().filter_map(|value| self.ledger.family_of(value)) {
                self.ledger.revoke(family);
            }
            return Some(Reply::new(StatusCode::OK).answer());
        }
        let step = plan.steps.iter().position(|step| is_at(&step.request, received, below))?;
        let call = plan.steps.get(step)?;
        if let Err(complaint) = as_declared(&call.request, None, received) {
            self.ledger.count_refused();
            return Some(refusal(call, complaint.code(), &complaint.to_string()));
        }
        let is_right = if self.plan.wants_signature() {
            right.signs(received)
        } else {
            step > 0 || right.is_among(&values(received))
        };
        if !is_right {
            self.ledger.count_refused();
            let words = if self.plan.wants_signature() {
                "the signature is wrong"
            } else {
                "the name or the password is wrong"
            };
            return Some(refusal(call, "invalid_client", words));
        }
        let told = self.tell(call, at);
        Some(told.map_or_else(
            |error| Answer::json(StatusCode::NOT_IMPLEMENTED, &serde_json::json!({ "error": error.to_string() })),
            Reply::answer,
        ))
    }

    /// Whether a value that stands where the credential is placed is a live session, or the id of a live access key
    /// that signed the call.
    pub fn admits(&self, received: &Received, value: &str, now: Timestamp) -> Result<(), String> {
        let live = |part: &str| self.ledger.holder(part, now).is_ok();
        if let Plan::Key(sigv4) = &self.plan {
            let key = Secret::new(format!("{value}:{}", secret_of(value)));
            let tokens = sigv4.session.iter().flat_map(|session| &session.login.steps).flat_map(|call| &call.tokens);
            let has_token = || received.header(&SESSION_TOKEN).is_some_and(live);
            let is_whole = tokens.filter(|(name, _)| name == KEY_SESSION).all(|_| has_token());
            let is_right = live(value) && is_whole && signed::by_access_key(received, &key);
            return if is_right { Ok(()) } else { Err("the access key is not known here, or is over".to_owned()) };
        }
        let is_live = live(value) || value.split([' ', ';', ',', '=', '"']).any(live);
        if is_live { Ok(()) } else { Err("the session is not known here, or is over".to_owned()) }
    }

    /// Ends every session: `expire` as time does, `revoke` for good. Answers what was issued so far.
    pub fn control(&self, expire: bool, revoke: bool) -> Value {
        if expire {
            self.ledger.expire_all();
        }
        if revoke {
            self.ledger.revoke_all();
        }
        self.ledger.told()
    }

    fn tell(&self, call: &TokenCall, at: At<'_>) -> Result<Reply, Unsolved> {
        let mut reply = Reply::new(StatusCode::OK);
        let family = self.ledger.open(Vec::new());
        if !call.tokens.is_empty() {
            self.ledger.count_grant();
        }
        self.tell_tokens(&mut reply, (call, family), at)?;
        for read in call.request.save.iter().flat_map(|(_, expr)| reads(expr.source())) {
            let name = last_key(&read.steps).unwrap_or("value").to_owned();
            let value = read.equals.clone().unwrap_or_else(|| shape::plausible(&name, 1));
            reply.put(&read, value, Existing::Keep);
        }
        if let Some(ok) = &call.request.ok {
            reply.decide(ok, true)?;
        }
        Ok(reply)
    }

    fn tell_tokens(
        &self,
        reply: &mut Reply,
        (call, family): (&TokenCall, FamilyId),
        at: At<'_>,
    ) -> Result<(), Unsolved> {
        let lost = |_| Unsolved("the machine's randomness".to_owned());
        let mut key_id = String::new();
        for (name, map) in call.tokens.iter().filter(|(_, map)| Reply::concerns(&map.access)) {
            let told = map.expires.is_some() || map.expires_in.is_some();
            let life = call.default_ttl.or(told.then_some(ACCESS_LIFE));
            let end = life.map(|life| at.now.after(life));
            let is_jwt = map.expires.as_ref().is_some_and(|moment| moment.unit == MomentUnit::JwtExp);
            let of_key = (matches!(self.plan, Plan::Key(_)) && name == KEY_SECRET).then(|| secret_of(&key_id));
            let shaped = |value: String| if is_jwt { unsigned_jwt(&value, end) } else { of_key.unwrap_or(value) };
            let access = self.ledger.access(family, end, at.random, shaped).map_err(lost)?;
            if name == DEFAULT_TOKEN {
                key_id.clone_from(&access);
            }
            reply.solve(&map.access, &Value::from(access))?;
            if let Some(refresh) = map.refresh.as_ref().filter(|expr| Reply::concerns(expr)) {
                let token = self.ledger.refresh(family, name, at.random).map_err(lost)?;
                reply.solve(refresh, &Value::from(token))?;
            }
            if call.default_ttl.is_none()
                && let Some(end) = end
            {
                if let Some(expr) = &map.expires_in {
                    reply.solve(expr, &Value::from(end.since(at.now).as_secs()))?;
                }
                if let Some(moment) = &map.expires {
                    reply.solve_moment(moment, end, at.now)?;
                }
            }
        }
        Ok(())
    }
}
