//! A call between being filled in and being answered: placed, signed, read.
//!
//! Called by [`super::call`].

use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::call::{Call, Setting, id};
use super::credential::{PlaceError, Placed};
use super::error::{OutboundError, Unsuccessful, Why};
use super::kept::Kept;
use super::prepare::Prepared;
use super::sign::{Carried, Leaving, whole_query};
use super::{Moment, Parts};
use crate::activity::Asker;
use crate::base::redact::redact;
use crate::base::secret::Secret;
use crate::connection::Credential;
use crate::definition::plan::api::Api;
use crate::definition::plan::request::CredentialUse;
use crate::net::{BodyLimit, Excess, Failure, Follow, Outgoing, Reach, Received, Towards, origin};
use crate::request::{AnswerError, Filled, Outcome, Place, answer};
use crate::template::Context;

/// A call on its way through the stages.
pub(super) struct Underway<'a> {
    pub call: &'a Call<'a>,
    pub api: &'a Api,
    pub prepared: Arc<Prepared>,
    pub repeatable: bool,
}

impl Underway<'_> {
    /// What is kept, where it may stand in for a call that may not go; else why it may not.
    pub(super) fn instead(
        &self,
        kept: Kept,
        held: OutboundError,
        context: &Context,
        parts: &Parts,
    ) -> Result<Outcome, OutboundError> {
        match kept.instead() {
            Some(received) => self.read(context, Ok(received), parts),
            None => Err(held),
        }
    }

    /// The call with all that the API and the connection add to it, checked to go where it may.
    pub(super) fn place(&self, filled: Filled) -> Result<Outgoing, OutboundError> {
        let (call, prepared) = (self.call, &self.prepared);
        let (origin, path, literal_host) = self.target(filled.place)?;
        let mut headers = filled.headers;
        for (name, value) in &prepared.headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        let own = self.own_credential()?;
        let placed = match &call.request.credential {
            _ if call.request.basic.is_some() => None,
            CredentialUse::None => None,
            CredentialUse::Token(None) => Some(&prepared.credential),
            CredentialUse::Token(Some(_)) | CredentialUse::Client => own.as_ref(),
        };
        let mut body = filled.body;
        if let Some(placed) = placed {
            placed.put_on(&mut headers);
            body = placed.put_in(&mut headers, body).map_err(|reason| self.unusable(reason))?;
        }
        if let Some((name, key)) = self.idempotency() {
            headers.insert(name, key);
        }
        let reach = Reach::of_integration(
            &prepared.gateway,
            self.api.transport.allow_private,
            literal_host.then_some(&origin.host),
        );
        Ok(Outgoing {
            towards: Towards::Service { integration: id(call), transport: self.api.transport.clone(), reach },
            caller: call.caller.cloned(),
            method: filled.method,
            origin,
            path,
            query: Some(filled.query).filter(|query| !query.is_empty()),
            secret_query: placed
                .and_then(Placed::query)
                .map(|(_, pair)| Arc::new(Secret::from(pair.expose().as_str()))),
            headers,
            body,
            timeouts: self.api.timeouts,
            limit: BodyLimit { bytes: call.generation.gateway.limits.answer_bytes, excess: Excess::Refuse },
        })
    }

    /// The call with the headers that are its own: those that sign it, where its connection signs calls, and those that
    /// are made anew for each.
    pub(super) fn sign(&self, mut outgoing: Outgoing, moment: Moment<'_>) -> Result<Outgoing, OutboundError> {
        if !self.prepared.signs() {
            return Ok(outgoing);
        }
        let carried = self.carried();
        if carried != Carried::Nothing {
            for name in self.prepared.proofs() {
                outgoing.headers.remove(name);
            }
        }
        let query = whole_query(outgoing.query.as_deref().unwrap_or_default(), outgoing.secret_query.as_deref());
        let leaving = Leaving {
            method: &outgoing.method,
            origin: &outgoing.origin,
            path: &outgoing.path,
            query: query.expose(),
            headers: &outgoing.headers,
            body: Some(&outgoing.body),
        };
        let added = self.prepared.sign(carried, leaving, moment).map_err(|reason| self.unusable(reason))?;
        outgoing.headers.extend(added);
        Ok(outgoing)
    }

    /// What it carries of its connection's credential.
    fn carried(&self) -> Carried<'_> {
        match &self.call.request.credential {
            CredentialUse::Token(name) if self.call.request.basic.is_none() => Carried::Credential(name.as_deref()),
            CredentialUse::Token(_) | CredentialUse::Client | CredentialUse::None => Carried::Nothing,
        }
    }

    /// Whether it has a header that is good for it alone.
    fn is_signed(&self) -> bool {
        let has_proof = self.carried() != Carried::Nothing && self.prepared.proofs().next().is_some();
        has_proof || self.prepared.tells_of_calls()
    }

    fn unusable(&self, reason: PlaceError) -> OutboundError {
        let (integration, connection) = (id(self.call), Arc::clone(&self.prepared.connection.id));
        OutboundError::Credential { integration, connection, reason }
    }

    /// Where the call goes on to. A signature holds for the one call that it was made for.
    pub(super) fn follow(&self) -> Option<Follow> {
        let hops = self.call.generation.gateway.limits.redirects;
        let reach = Reach::of_integration(&self.prepared.gateway, self.api.transport.allow_private, None);
        (hops > 0 && !self.is_signed()).then(|| Follow { hops, hosts: self.api.hosts.clone(), reach })
    }

    fn target(&self, place: Place) -> Result<(origin::Origin, String, bool), OutboundError> {
        let base = &self.prepared.base;
        match place {
            Place::Below(path) => Ok((base.origin.clone(), format!("{}{path}", base.path), base.literal_host)),
            Place::At { origin, literal_host, path } => {
                let literal_host = literal_host || origin == base.origin && base.literal_host;
                origin::allow(self.api, &self.prepared.gateway, &origin, literal_host)
                    .map_err(|reason| OutboundError::Base { integration: id(self.call), reason })?;
                Ok((origin, path, literal_host))
            }
        }
    }

    /// The credential that this request names, where it names one of its own.
    fn own_credential(&self) -> Result<Option<Placed>, OutboundError> {
        let (call, prepared) = (self.call, &self.prepared);
        match &call.request.credential {
            CredentialUse::Client => Placed::client(call.integration)
                .map(Some)
                .map_err(|reason| OutboundError::Client { integration: id(call), reason }),
            CredentialUse::Token(Some(name)) => Placed::of(&self.api.credential, &prepared.connection, Some(name))
                .map(Some)
                .map_err(|reason| self.unusable(reason)),
            CredentialUse::Token(None) | CredentialUse::None => Ok(None),
        }
    }

    fn idempotency(&self) -> Option<(HeaderName, HeaderValue)> {
        let retry = self.api.retry(self.call.endpoint.as_deref());
        let (name, key) = retry.and_then(|retry| retry.idempotency_key.as_ref()).zip(self.call.idempotency_key)?;
        Some((name.clone(), HeaderValue::from_str(key).ok()?))
    }

    pub(super) fn read(
        &self,
        context: &Context,
        sent: Result<Received, Failure>,
        parts: &Parts,
    ) -> Result<Outcome, OutboundError> {
        let now = parts.clock.now();
        let read = sent.map_err(Why::from).and_then(|received| {
            if received.led && self.is_any_success() {
                let (status, reason) = (received.status.as_u16(), ELSEWHERE.to_owned());
                return Err(Why::Answer(AnswerError::Invalid { status, reason }));
            }
            answer::read((self.call.request, Some(self.api)), context, received, now).map_err(Why::from)
        });
        read.map_err(|reason| {
            let reason = self.without_credential(reason);
            let refused = Unsuccessful { integration: id(self.call), repeatable: self.repeatable, reason };
            OutboundError::Tried(Box::new(refused))
        })
    }

    /// Whether it is a test for which any 2xx answer is a success: one of another place, such as a page to sign in at,
    /// says nothing of the credential.
    fn is_any_success(&self) -> bool {
        let is_test = self.api.test.as_ref().is_some_and(|test| std::ptr::eq(test, self.call.request));
        is_test && self.call.asker == Asker::Test && self.call.request.ok.is_none() && self.api.ok.is_none()
    }

    fn without_credential(&self, reason: Why) -> Why {
        match reason {
            Why::Answer(AnswerError::Refused { status, words: Some(words), retry_after, led }) => {
                let mut words = self.prepared.redact(&words);
                // An endpoint is set up with its secret, and a service may repeat what it refuses.
                let of_endpoint = self.call.setting.as_ref().and_then(|setting| setting.webhook["secret"].as_str());
                if let Some(secret) = of_endpoint {
                    words = redact(&words, &[Secret::from(secret)]);
                }
                let words = Some(words);
                Why::Answer(AnswerError::Refused { status, words, retry_after, led })
            }
            other => other,
        }
    }
}

/// Why a test has not passed that a redirect led away.
const ELSEWHERE: &str = "the test was led to another place, whose answer says nothing of the credential: write the \
                         address it leads to, or `ok` for what a success is";

/// What the templates of a call see.
pub(super) fn context(call: &Call<'_>, prepared: &Prepared, parts: &Parts) -> Context {
    let mut input = call.input.clone();
    input.extend(prepared.connection.inputs.clone());
    let context = prepared.connection.context.clone().with_json("input", &Json::Object(input));
    let context = match &call.setting {
        Some(Setting { webhook, saved }) => {
            let mut all = prepared.connection.saved.clone();
            all.extend((*saved).clone());
            context.with_json("webhook", webhook).with_json("saved", &Json::Object(all))
        }
        None => context,
    };
    // Of what an account signs in with its name alone: services have it in their addresses.
    let context = match &prepared.connection.credential {
        Credential::Basic { username, .. } => context.with("username", username.expose().as_str()),
        _ => context,
    };
    context.with_moment(parts.clock.now(), Arc::clone(&parts.random))
}
