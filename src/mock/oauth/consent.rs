//! The authorization endpoint: what the gateway asks for is examined, a person is asked, and sent back
//! with a code. Called by the room's front.

use http::Method;
use url::Url;

use super::ledger::{Bound, FamilyId};
use super::page;
use super::presented::expected_text;
use super::{At, Consent, OAuthSide};
use crate::definition::plan::oauth2::{Authorize, Pkce, Scope};
use crate::mock::paths::Step;
use crate::mock::received::Received;
use crate::respond::Answer;
use crate::template::Tree;

/// An authorization request that is in order.
struct Asked {
    redirect: Url,
    redirect_uri: Option<String>,
    state: Option<String>,
    challenge: Option<String>,
    scopes: Vec<String>,
}

/// Why an authorization request is not in order.
enum Fault {
    /// It must not be answered by a redirect: nobody knows that the address is the application's.
    Shown(String),
    /// The application is told.
    Told { redirect: Box<Url>, state: Option<String>, code: &'static str, words: String },
}

impl OAuthSide {
    /// The answer to a call of the authorization endpoint, where it is one.
    pub(super) fn authorize(&self, received: &Received, at: At<'_>) -> Option<Answer> {
        if !self.is_authorize(received) {
            return None;
        }
        let received = match self.pulled(received, at.now) {
            Ok(pulled) => pulled,
            Err(words) => return Some(page::fault(&self.title, &words)),
        };
        let received = received.as_ref();
        let asked = match self.asked(received) {
            Ok(asked) => asked,
            Err(Fault::Shown(words)) => return Some(page::fault(&self.title, &words)),
            Err(Fault::Told { redirect, state, code, words }) => {
                return Some(self.back(*redirect, state.as_deref(), &[("error", code), ("error_description", &words)]));
            }
        };
        let decided = match (self.consent(), &received.method) {
            (Consent::Granted, _) => Some(asked.scopes.clone()),
            (Consent::Denied, _) => None,
            (Consent::Asked, &Method::POST) => {
                let form: Vec<(String, String)> = url::form_urlencoded::parse(&received.body).into_owned().collect();
                let allowed = form.iter().any(|(name, value)| name == "decision" && value == "allow");
                let ticked = |scope: &String| form.iter().any(|(name, value)| name == "granted" && value == scope);
                allowed.then(|| asked.scopes.iter().filter(|scope| ticked(scope)).cloned().collect())
            }
            (Consent::Asked, _) => return Some(page::consent(&self.title, &self.described(&asked.scopes))),
        };
        let Some(scopes) = decided else {
            let told = [("error", "access_denied"), ("error_description", "the person said no")];
            return Some(self.back(asked.redirect, asked.state.as_deref(), &told));
        };
        Some(self.send_code(asked, scopes, at))
    }

    fn described(&self, scopes: &[String]) -> Vec<(String, String)> {
        let words = |name: &String| {
            let known = self.plan.scopes.iter().find(|scope| scope.name == *name);
            (name.clone(), known.map(|scope| scope.grants.clone()).unwrap_or_default())
        };
        scopes.iter().map(words).collect()
    }

    fn send_code(&self, asked: Asked, scopes: Vec<String>, at: At<'_>) -> Answer {
        let family: FamilyId = self.ledger.open(scopes);
        let bound = Bound { redirect_uri: asked.redirect_uri, challenge: asked.challenge };
        let Ok(code) = self.ledger.code(family, bound, (at.now, at.random)) else {
            return page::fault(&self.title, "this machine has no random numbers to give");
        };
        let mut told = vec![(self.plan.callback.code.clone(), code)];
        // What the definition keeps from the callback's query is there to be kept.
        for read in self.saved.reads(&self.plan.callback.save) {
            if let ("query", [Step::Key(name)]) = (read.root.as_str(), read.steps.as_slice()) {
                let value = read.equals.clone().unwrap_or_else(|| crate::mock::shape::plausible(name, 1));
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                told.push((name.clone(), text));
            }
        }
        let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.back(asked.redirect, asked.state.as_deref(), &told)
    }

    /// A redirect to the application.
    fn back(&self, mut redirect: Url, state: Option<&str>, told: &[(&str, &str)]) -> Answer {
        {
            let mut query = redirect.query_pairs_mut();
            query.extend_pairs(told).extend_pairs(state.map(|state| ("state", state)));
            query.extend_pairs(self.issuer_literal().map(|issuer| ("iss", issuer)));
        }
        page::back(&self.title, &redirect)
    }

    fn asked(&self, received: &Received) -> Result<Asked, Fault> {
        let plan = self.plan.authorize.as_ref();
        let omitted = |name: &str| plan.is_some_and(|plan| plan.omit.iter().any(|known| known == name));
        let name = |standard: &'static str| {
            let renamed = plan.and_then(|plan| plan.rename.iter().find(|(from, _)| from == standard));
            renamed.map_or(standard.to_owned(), |(_, to)| to.clone())
        };
        let value = |standard: &'static str| received.parameter(&name(standard)).filter(|value| !value.is_empty());
        let shown = |words: String| Err(Fault::Shown(words));
        let client = self.plan.client.as_ref();
        if !omitted("client_id") {
            match value("client_id") {
                None => return shown(format!("the parameter `{}` is missing", name("client_id"))),
                Some(id) if client.is_some_and(|client| client.id != id) => {
                    return shown(format!("no application has the id `{id}`"));
                }
                Some(_) => {}
            }
        }
        let redirect_uri = value("redirect_uri").map(str::to_owned);
        let Some(redirect) = redirect_uri.as_deref().and_then(|uri| Url::parse(uri).ok()) else {
            return shown("`redirect_uri` is missing or no address".to_owned());
        };
        if redirect.fragment().is_some() || !matches!(redirect.scheme(), "http" | "https") {
            return shown("`redirect_uri` is not an address that codes may be sent to".to_owned());
        }
        if !self.sends_back_to(value("client_id"), redirect_uri.as_deref().unwrap_or_default()) {
            return shown("no application of this id registered this `redirect_uri`".to_owned());
        }
        let state = value("state").map(str::to_owned);
        let told = |code: &'static str, words: String| {
            Err(Fault::Told { redirect: Box::new(redirect.clone()), state: state.clone(), code, words })
        };
        if !omitted("response_type") && value("response_type") != Some("code") {
            return told("unsupported_response_type", "`response_type` is not `code`".to_owned());
        }
        let challenge = match self.challenge(value("code_challenge"), value("code_challenge_method")) {
            Ok(challenge) => challenge,
            Err(words) => return told("invalid_request", words),
        };
        if let Some(missing) = plan.and_then(|plan| self.missing(plan, received)) {
            return told(
                "invalid_request",
                format!("the parameter `{missing}`, as the definition declares it, is missing"),
            );
        }
        match self.asked_scopes(received, value("scope"), omitted("scope")) {
            Ok(scopes) => Ok(Asked { redirect, redirect_uri, state, challenge, scopes }),
            Err(words) => told("invalid_scope", words),
        }
    }

    fn challenge(&self, challenge: Option<&str>, method: Option<&str>) -> Result<Option<String>, String> {
        match (&self.plan.pkce, challenge) {
            (Pkce::Off(_), None) => Ok(None),
            (Pkce::Off(reason), Some(_)) => Err(format!("`code_challenge` is not taken here: {reason}")),
            (Pkce::S256, Some(challenge)) if method == Some("S256") && challenge.len() == 43 => {
                Ok(Some(challenge.to_owned()))
            }
            (Pkce::S256, _) => Err("PKCE with S256 is required".to_owned()),
        }
    }

    /// A parameter that the definition writes out and the call does not have.
    fn missing<'a>(&self, plan: &'a Authorize, received: &Received) -> Option<&'a str> {
        let literal = |tree: &Tree| match tree {
            Tree::Text(text) => expected_text(text, self.plan.client.as_ref()),
            Tree::Literal(serde_json::Value::String(text)) => Some(text.as_str().into()),
            _ => None,
        };
        let lacks = |(name, tree): &&(String, Tree)| {
            // What is empty is not sent.
            let wanted = literal(tree).filter(|wanted| !wanted.expose().is_empty());
            wanted.is_some_and(|wanted| received.parameter(name) != Some(wanted.expose().as_str()))
        };
        plan.params.iter().find(lacks).map(|(name, _)| name.as_str())
    }

    fn asked_scopes(&self, received: &Received, text: Option<&str>, omitted: bool) -> Result<Vec<String>, String> {
        if self.plan.scopes.is_empty() {
            return Ok(self.split_scopes(text.unwrap_or_default()));
        }
        if omitted {
            return Ok(self.plan.default_scopes().map(|scope| scope.name.clone()).collect());
        }
        let raw = self.plan.authorize.as_ref().is_some_and(|plan| plan.raw_scope);
        let text = text.unwrap_or_default();
        let mut scopes = if raw { self.raw_scopes(received) } else { self.split_scopes(text) };
        // Scopes of other tokens than the default one are asked for in parameters of their own.
        let elsewhere = |scope: &&Scope| {
            let words = received.query.iter().flat_map(|(_, value)| value.split([',', ' ', '+']));
            scope.token != crate::definition::plan::oauth2::DEFAULT_TOKEN
                && words.into_iter().any(|word| word == scope.name)
        };
        scopes.extend(self.plan.scopes.iter().filter(elsewhere).map(|scope| scope.name.clone()));
        let unknown = scopes.iter().find(|scope| self.plan.scopes.iter().all(|known| known.name != **scope));
        unknown.map_or(Ok(scopes.clone()), |scope| Err(format!("there is no scope `{scope}`")))
    }

    /// Scopes of a service that wants them without percent-encoding: decoding them would lose the
    /// separator.
    fn raw_scopes(&self, received: &Received) -> Vec<String> {
        let value = received.raw_query.split('&').find_map(|pair| pair.strip_prefix("scope="));
        let separator = self.plan.scope_separator.as_str();
        let parts = value.unwrap_or_default().split(separator).filter(|part| !part.is_empty());
        parts.map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
    }
}
