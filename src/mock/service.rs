//! One simulated service: which calls are its own, and what it says to them.
//!
//! No clock, no socket and no log: a call and a moment in, an answer out. Called by `server`.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use url::Url;

use super::Simulated;
use super::control::Change;
use super::credential::{Gate, Holder};
use super::limit::{Limits, Moment};
use super::oauth::{At, Consent, LoginSide, OAuth1Side, OAuthSide};
use super::paths::{Read, reads};
use super::received::Received;
use super::route::{Route, segments};
use super::shape::{self, Existing};
use crate::base::random::Random;
use crate::definition::plan::Integration;
use crate::definition::plan::api::HostPattern;
use crate::definition::plan::request::Request;
use crate::respond::Answer;
use crate::template::{Expr, Segment, Text};

/// A simulated service.
#[derive(Debug)]
pub(super) struct Service {
    /// The integration's id.
    pub id: String,
    /// Hosts that the definition names outright, with the port where it names one.
    hosts: Vec<Host>,
    /// Hosts that it allows by pattern.
    patterns: Vec<HostPattern>,
    /// The segments of the path of the API's base URL; one with a slot may be anything.
    base: Vec<Option<Box<str>>>,
    gate: Gate,
    oauth: Option<OAuthSide>,
    oauth1: Option<OAuth1Side>,
    login: Option<LoginSide>,
    limits: Limits,
    routes: Vec<Route>,
    /// Where the service says that something went wrong, and what.
    ok: Vec<Read>,
    error: Vec<Read>,
    created: AtomicU64,
}

/// A host's name, and the port where one is named with it.
type Host = (String, Option<u16>);

impl Service {
    /// The service that a definition describes. `consent` is what becomes of those who sign in.
    pub fn new(simulated: &Simulated, consent: Consent) -> Self {
        let Simulated { integration, resolved } = simulated;
        let api = integration.api.as_ref();
        let base = api.and_then(|api| Url::parse(&leading(&api.base_url)).ok());
        let oauth = OAuthSide::new(integration, consent);
        let mut hosts: Vec<_> =
            base.iter().filter_map(|url| Some((url.host_str()?.to_ascii_lowercase(), url.port()))).collect();
        named_hosts(resolved, &mut hosts);
        let test = api.and_then(|api| api.test.as_ref());
        let read = |of: fn(&Request) -> Option<&Expr>, general: Option<&Expr>| {
            test.and_then(of).or(general).map(|expr| reads(expr.source())).unwrap_or_default()
        };
        Self {
            id: integration.id.to_string(),
            hosts,
            patterns: api.map(|api| api.hosts.clone()).unwrap_or_default(),
            base: api.map(|api| segments(&api.base_url)).unwrap_or_default(),
            gate: Gate::new(integration),
            oauth1: OAuth1Side::new(integration, consent),
            login: LoginSide::new(integration),
            limits: Limits::new(resolved),
            routes: routes(integration, oauth.as_ref(), resolved),
            oauth,
            ok: read(|request| request.ok.as_ref(), api.and_then(|api| api.ok.as_ref())),
            error: read(|request| request.error.as_ref(), api.and_then(|api| api.error.as_ref())),
            created: AtomicU64::new(1),
        }
    }

    /// How surely a call to this host and port is for this service: 2 by name, 1 by pattern, 0 not. A port that the
    /// definition does not name may be any: the mock has one of its own.
    pub fn claims(&self, host: &str, port: Option<u16>) -> u8 {
        let is_it = |(known, at): &Host| known == host && at.is_none_or(|at| Some(at) == port);
        if self.hosts.iter().any(is_it) {
            2
        } else {
            u8::from(self.patterns.iter().any(|pattern| pattern.matches(host)))
        }
    }

    /// What arrived, credentials left out.
    pub fn shown(&self, received: &Received) -> Value {
        received.shown(&self.gate)
    }

    /// Makes a change to how it lets people and calls in; see `Mock::control`.
    ///
    /// # Errors
    /// When the change is not understood.
    pub fn control(&self, change: &Value, at: At<'_>) -> Result<Value, String> {
        if let Some(oauth) = &self.oauth {
            return oauth.control(change, at);
        }
        let change: Change = serde::Deserialize::deserialize(change).map_err(|error| error.to_string())?;
        let Change { accept, revoke, expire, consent } = change;
        if revoke {
            self.gate.right().revoke();
        }
        if let Some(accept) = accept {
            self.gate.right().accept(&accept);
        }
        let oauth1 = self.oauth1.as_ref().map(|oauth1| oauth1.control(consent, revoke));
        let told = oauth1.or_else(|| self.login.as_ref().map(|login| login.control(expire, revoke)));
        Ok(told.unwrap_or_else(|| json!({})))
    }

    /// What it has issued, for a later process.
    pub fn state(&self) -> Value {
        json!({
            "oauth": self.oauth.as_ref().map(OAuthSide::state),
            "oauth1": self.oauth1.as_ref().map(OAuth1Side::state),
            "login": self.login.as_ref().map(LoginSide::state),
        })
    }

    /// How often [`Self::state`] may have changed.
    pub fn changes(&self) -> u64 {
        let oauth = self.oauth.as_ref().map_or(0, OAuthSide::changes);
        let oauth1 = self.oauth1.as_ref().map_or(0, OAuth1Side::changes);
        oauth + oauth1 + self.login.as_ref().map_or(0, LoginSide::changes)
    }

    /// Goes on from a [`Self::state`]; what is not there, as after the definition changed, begins anew.
    ///
    /// # Errors
    /// When the value is none.
    pub fn restore(&self, state: &Value) -> Result<(), serde_json::Error> {
        let of = |name: &str| state.get(name).filter(|state| !state.is_null());
        let oauth = of("oauth").zip(self.oauth.as_ref()).map_or(Ok(()), |(state, side)| side.restore(state));
        let oauth1 = of("oauth1").zip(self.oauth1.as_ref()).map_or(Ok(()), |(state, side)| side.restore(state));
        let login = of("login").zip(self.login.as_ref()).map_or(Ok(()), |(state, side)| side.restore(state));
        oauth.and(oauth1).and(login)
    }

    /// The OAuth side, where it has one.
    pub fn oauth(&self) -> Option<&OAuthSide> {
        self.oauth.as_ref()
    }

    /// The answer to a call.
    pub fn answer(&self, received: &Received, now: Moment, random: &dyn Random) -> Answer {
        let below = self.below(&received.path);
        let below = below.as_deref();
        let at = At { now: now.wall, random };
        if let Some(answer) = self.signed_in(received, below, at) {
            return answer;
        }
        let holder = match self.admitted(received, below, at) {
            Ok(holder) => holder,
            Err(missing) => {
                return self
                    .refusal(StatusCode::UNAUTHORIZED, &missing)
                    .with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"trunkline mock\""));
            }
        };
        let outcome = self.limits.take(holder, below.unwrap_or(&received.path), now);
        let answer = match outcome.refused {
            Some(wait) => self
                .refusal(StatusCode::TOO_MANY_REQUESTS, "the rate limit of the definition is reached")
                .with(header::RETRY_AFTER, HeaderValue::from(wait.as_secs())),
            None => self.routed(received, below),
        };
        outcome.headers.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value))
    }

    /// The path below the API's base, beginning with a slash; `None` when it is not below that.
    fn below(&self, path: &str) -> Option<String> {
        let mut rest = path.strip_prefix('/')?;
        for segment in self.base.iter().filter(|segment| segment.as_deref() != Some("")) {
            let (head, tail) = rest.split_once('/')?;
            if segment.as_deref().is_some_and(|literal| literal != head) {
                return None;
            }
            rest = tail;
        }
        Some(format!("/{rest}"))
    }

    /// The answer to a call of a sign-in; `None` for calls to the API.
    fn signed_in(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Option<Answer> {
        let oauth = self.oauth.as_ref().and_then(|oauth| oauth.answer(received, below, at));
        let oauth = oauth.or_else(|| self.oauth1.as_ref().and_then(|oauth1| oauth1.answer(received, below, at)));
        let right = self.gate.right();
        oauth.or_else(|| self.login.as_ref().and_then(|login| login.answer((received, below), right, at)))
    }

    /// Who calls, when they may.
    fn admitted(&self, received: &Received, below: Option<&str>, at: At<'_>) -> Result<Holder, String> {
        if let Some(oauth1) = &self.oauth1 {
            return oauth1.admits(received, at).map(|token| self.gate.holder(&token));
        }
        if let Some(login) = &self.login {
            let (holder, value) = self.gate.check(received)?;
            return login.admits(received, value.expose(), at.now).map(|()| holder);
        }
        let Some(oauth) = &self.oauth else { return self.gate.admits(received) };
        let is_open = self.route(received, below).is_some_and(Route::is_open);
        match self.gate.check(received) {
            Ok((holder, value)) if self.gate.is_proof() => oauth.admits_proof(value.expose(), at.now).map(|()| holder),
            Ok((holder, value)) => oauth.admits(value.expose(), at.now).map(|()| holder),
            Err(_) if is_open && oauth.admits_anywhere(received, at.now) => Ok(Holder(0)),
            Err(missing) => Err(missing),
        }
    }

    fn route(&self, received: &Received, below: Option<&str>) -> Option<&Route> {
        // `/meta/whoami` is not `/{base}/{table}`: the route that says most of the path counts.
        let is_for = |path: &str| {
            let fitting = self.routes.iter().filter(|route| route.matches(&received.method, path));
            fitting.min_by_key(|route| route.slots())
        };
        below.and_then(is_for).or_else(|| is_for(&received.path))
    }

    fn routed(&self, received: &Received, below: Option<&str>) -> Answer {
        let route = self.route(received, below);
        let serial = self.created.fetch_add(1, Ordering::Relaxed);
        route.and_then(|route| route.answer(received, serial)).unwrap_or_else(|| self.echo(received))
    }

    /// What arrived, for calls of which the definition says nothing.
    fn echo(&self, received: &Received) -> Answer {
        let mut body = json!({ "mock": self.id });
        if let (Value::Object(body), Value::Object(shown)) = (&mut body, self.shown(received)) {
            body.extend(shown);
        }
        for read in self.ok.iter().filter(|read| read.root == "body") {
            shape::put(&mut body, &read.steps, Value::Bool(true), Existing::Keep);
        }
        Answer::json(StatusCode::OK, &body)
    }

    /// A refusal in the service's own form: where its `ok` and `error` look.
    fn refusal(&self, status: StatusCode, message: &str) -> Answer {
        let mut body = Value::Object(Map::new());
        for read in self.error.iter().filter(|read| read.root == "body" && !read.steps.is_empty()) {
            shape::put(&mut body, &read.steps, Value::from(message), Existing::Keep);
        }
        for read in self.ok.iter().filter(|read| read.root == "body" && !read.steps.is_empty()) {
            shape::put(&mut body, &read.steps, Value::Bool(false), Existing::Keep);
        }
        if body.as_object().is_some_and(Map::is_empty) {
            body = json!({ "error": { "message": message } });
        }
        Answer::json(status, &body)
    }
}

/// The text up to its first slot, ended so that it parses as a URL when the slot is in its path.
fn leading(text: &Text) -> String {
    let segments = text.segments().unwrap_or_default();
    match segments.first() {
        Some(Segment::Literal(literal)) => literal.to_string(),
        _ => String::new(),
    }
}

/// The routes of everything the definition asks the service for; the first that matches a call counts.
fn routes(integration: &Integration, oauth: Option<&OAuthSide>, resolved: &Value) -> Vec<Route> {
    let (id, api) = (&*integration.id, integration.api.as_ref());
    let ok = api.and_then(|api| api.ok.as_ref());
    let signing_in = oauth.map(|oauth| oauth.routes(ok)).unwrap_or_default();
    let endpoints = api.into_iter().flat_map(|api| api.endpoints.iter().map(|endpoint| &endpoint.request));
    let webhook = integration.webhook.as_ref();
    let subscriptions = webhook.into_iter().flat_map(|webhook| webhook.register.iter().chain(&webhook.unregister));
    let compiled = endpoints.chain(api.and_then(|api| api.test.as_ref())).chain(subscriptions);
    let syncs = resolved.get("syncs").and_then(Value::as_array).into_iter().flatten();
    let identity = resolved.get("auth").and_then(Value::as_object).into_iter().flat_map(|auth| auth.values());
    // Those of OAuth 2.0 are compiled, and come with what they save.
    let identity = identity.filter(|_| oauth.is_none());
    // What is read of an endpoint's answer is compiled, and how it comes in pages is declared.
    let paged = resolved.pointer("/api/endpoints").and_then(Value::as_array).into_iter().flatten();
    let paged = paged.filter(|endpoint| endpoint.get("page").is_some());
    let declared = syncs.chain(paged).chain(identity.filter_map(|kind| kind.get("identity")));
    let mut all: Vec<Route> = Vec::new();
    let routes = compiled.map(|request| Route::of_request(id, request, ok));
    let declared = declared.filter_map(|declared| Route::of_declared(id, declared));
    for route in routes.chain(signing_in).chain(declared) {
        match all.iter_mut().find(|known| known.is_same(&route)) {
            Some(known) => known.merge(route),
            None => all.push(route),
        }
    }
    all
}

/// Literal hosts of the URLs that a definition asks, anywhere in its `auth` and `syncs`.
fn named_hosts(resolved: &Value, hosts: &mut Vec<Host>) {
    fn walk(value: &Value, hosts: &mut Vec<Host>) {
        match value {
            Value::String(text) => {
                let rest = text.split_once("://").map(|(_, rest)| rest);
                let host = rest.and_then(|rest| rest.split(['/', '?']).next()).map(str::to_ascii_lowercase);
                // A slot in the host's place is text that no host has.
                let host = host.filter(|host| HostPattern::parse(host).is_some() && host.contains('.'));
                hosts.extend(host.map(|host| (host, None)));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, hosts)),
            Value::Object(map) => map.values().for_each(|item| walk(item, hosts)),
            _ => {}
        }
    }
    for room in ["auth", "syncs"] {
        if let Some(value) = resolved.get(room) {
            walk(value, hosts);
        }
    }
}
