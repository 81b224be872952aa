//! What all calls of one connection have in common, made once and kept.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::credential::{PlaceError, Placed};
use super::error::OutboundError;
use super::policy::Policy;
use super::sign::{self, Carried, Leaving, PerCall, Signer, own_headers};
use super::{Moment, Outbound};
use crate::base::clock::Timestamp;
use crate::base::redact::Redactor;
use crate::base::secret::Secret;
use crate::connection::flow::Secrets;
use crate::connection::grant::{Account, Grant, TokenError, TokenErrorKind};
use crate::connection::health::{Health, Key, Trouble};
use crate::connection::{Connection, Credential, Need, Status};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::Api;
use crate::definition::plan::auth::Auth;
use crate::definition::plan::gateway::Gateway;
use crate::net::{Base, BaseError, Reach};
use crate::template::{TemplateError, Text};

/// What all calls of one connection have in common.
#[derive(Debug)]
pub struct Prepared {
    /// The connection.
    pub connection: Arc<Connection>,
    /// Where its calls go.
    pub base: Base,
    /// The `Host` of its calls.
    pub host: HeaderValue,
    /// Scheme, host and port, as activity shows where its calls went.
    pub place: Arc<str>,
    /// The API's headers; a caller's own value of one of these is replaced.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Those of the API's headers that are made anew for each call.
    per_call: Vec<PerCall>,
    /// The headers in which the service takes idempotency keys: those of a call stay at each of its tries.
    keys: Vec<HeaderName>,
    /// The credential, as calls without another word carry it.
    pub credential: Placed,
    /// What signs its calls one by one, where they are signed.
    pub signer: Option<Signer>,
    /// What its calls may dial.
    pub reach: Reach,
    /// What its calls meet before they go.
    pub policy: Arc<Policy>,
    pub(super) gateway: Arc<Gateway>,
    /// Secrets that calls may carry beside the credential.
    others: Secrets,
    /// The connection as it is kept; that of this value may have been signed in.
    resolved: Arc<Connection>,
    /// A credential made here, and until when it is put on calls.
    made: Option<Made>,
    /// What takes its secrets out of texts, once there is one.
    redactor: OnceLock<Redactor>,
}

/// A credential made here, for as long as it serves.
#[derive(Debug)]
pub(super) struct Made {
    /// None where the connection of the prepared value has it.
    pub credential: Option<Credential>,
    /// When it was made.
    pub at: Timestamp,
    /// Until when it is put on calls; `None` until the service refuses it.
    pub until: Option<Timestamp>,
}

/// A sign-in that is younger than this is not made again because a call was refused.
const LEAST_AGE: Duration = Duration::from_secs(30);

impl Outbound {
    /// What all calls of a connection have in common, with a token that lasts as `need` says. Cheap after the
    /// first time, until the definition, the gateway's settings or the connection change.
    ///
    /// # Errors
    /// When the connection cannot be used, or the definition gives no place to call.
    pub async fn prepare(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &str,
        need: Need<'_>,
    ) -> Result<Arc<Prepared>, OutboundError> {
        let mut resolved = self.parts.connections.resolve(generation, integration, connection).await?;
        if let Some(refresher) = &self.parts.refresher {
            resolved = refresher.usable(generation, integration, resolved, need).await?;
        }
        if let Some(prepared) = self.kept(&generation.gateway, integration, (&resolved, need)) {
            return Ok(prepared);
        }
        // Apart, so that the future of a call that finds it made stays small.
        Box::pin(self.prepare_anew(generation, integration, (connection, resolved), need)).await
    }

    async fn prepare_anew(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        (connection, resolved): (&str, Arc<Connection>),
        need: Need<'_>,
    ) -> Result<Arc<Prepared>, OutboundError> {
        // Of all who ask at once one makes the credential; the others find it made.
        let turn = self.logins.turn(&integration.id, connection);
        let waits = signs_in(&integration.auth, &resolved.credential);
        let _turn = if waits { Some(turn.lock().await) } else { None };
        if let Some(prepared) = self.kept(&generation.gateway, integration, (&resolved, need)) {
            return Ok(prepared);
        }
        let (used, made) = self.make(generation, integration, &resolved).await?;
        if !Arc::ptr_eq(&used, &resolved) {
            self.logins.began(integration, &used);
        }
        let policy = self.policies.of(generation, integration);
        let prepared = Prepared::of((&generation.gateway, policy), integration, (resolved, used), made)?;
        let prepared = Arc::new(prepared);
        self.prepared.keep(generation, integration, connection, Arc::clone(&prepared));
        Ok(prepared)
    }

    fn kept(
        &self,
        gateway: &Arc<Gateway>,
        integration: &Arc<Integration>,
        (resolved, need): (&Arc<Connection>, Need<'_>),
    ) -> Option<Arc<Prepared>> {
        let prepared = self.prepared.get(integration, &resolved.id)?;
        let same = Arc::ptr_eq(&prepared.resolved, resolved) && Arc::ptr_eq(&prepared.gateway, gateway);
        let lasts = || prepared.made.as_ref().is_none_or(|made| made.lasts(self.parts.clock.now(), need.validity));
        (same && lasts()).then_some(prepared)
    }

    /// The credential that is made here for this connection, where one is.
    pub(super) async fn make(
        &self,
        generation: &Generation,
        integration: &Arc<Integration>,
        connection: &Arc<Connection>,
    ) -> Result<(Arc<Connection>, Option<Made>), OutboundError> {
        let unusable = |reason| OutboundError::Credential {
            integration: Arc::clone(&integration.id),
            connection: Arc::clone(&connection.id),
            reason,
        };
        match &integration.auth {
            Auth::Jwt(assertion) => {
                let made = sign::own_token(assertion, connection, self.signing_moment(connection)).map_err(unusable)?;
                Ok((Arc::clone(connection), Some(made)))
            }
            auth if signs_in(auth, &connection.credential) => {
                let (inputs, saved) = (&connection.inputs, &connection.saved);
                let account = Account { generation, integration, connection: &connection.id, inputs, saved };
                let grant = match self.logins.sign_in(account, &connection.credential).await {
                    Ok(grant) => grant,
                    Err(error) => {
                        self.feel_sign_in(integration, connection, &error).await;
                        return Err(unusable(PlaceError::SignIn(Box::new(error))));
                    }
                };
                self.feel_signed_in(connection).await;
                let made = Made::of(&grant, self.parts.clock.now());
                let signed_in = connection.signed_in(integration, grant);
                Ok((Arc::new(signed_in), Some(made)))
            }
            _ => Ok((Arc::clone(connection), None)),
        }
    }

    /// What a sign-in that worked says about the connection's health. A warning ends with a call that succeeds.
    async fn feel_signed_in(&self, connection: &Connection) {
        if matches!(connection.health.health().condition, Status::Error | Status::NeedsReconnect) {
            self.felt(connection, |health| health.condition = Status::Active).await;
        }
    }

    /// Changes a connection's health. A change of status is durable and in the audit log; the rest is written now and
    /// then.
    async fn felt(&self, connection: &Connection, change: impl FnOnce(&mut Health)) {
        let (before, after) = connection.health.change(self.parts.clock.now(), change);
        // That of a draft is nobody's.
        if before != after && connection.health.is_kept() {
            let key = Key { integration: Arc::clone(&connection.integration), id: Arc::clone(&connection.id) };
            self.parts.connections.note_status(&key, before, after).await;
            self.parts.connections.save_health(&key, &connection.health).await;
        }
    }

    /// What a sign-in that failed says about the connection's health: without a token it does not work. It is told by
    /// every call that tries, so that one which works again is seen as soon as it does. What only a person can mend
    /// stays so whatever fails after it.
    async fn feel_sign_in(&self, integration: &Integration, connection: &Connection, error: &TokenError) {
        let now = self.parts.clock.now();
        let is_granted = matches!(integration.auth, Auth::OAuth2(_));
        let is_key = matches!(integration.auth, Auth::SigV4(_));
        let (condition, step) = match error.kind {
            TokenErrorKind::Permanent if is_key => {
                (Status::Error, "see whether the role trusts the access key that asks for a temporary one")
            }
            TokenErrorKind::Misconfigured if is_key => {
                (Status::Error, "correct `auth.sigv4.session` in the definition, or what the connection tells")
            }
            TokenErrorKind::Permanent if is_granted => {
                (Status::Error, "see whether the service still knows the application that `auth.oauth2` names")
            }
            TokenErrorKind::Permanent => {
                (Status::NeedsReconnect, "connect the account again, with a name and a password that the service takes")
            }
            TokenErrorKind::Misconfigured if is_granted => (Status::Error, "correct `auth.oauth2` in the definition"),
            TokenErrorKind::Misconfigured => (Status::Error, "correct `auth.login` in the definition"),
            TokenErrorKind::Passing | TokenErrorKind::Unsent => {
                (Status::Error, "see whether the service can be reached; the next call tries again")
            }
        };
        let trouble = Trouble::new(now, &error.to_string(), step);
        let change = |health: &mut Health| {
            if condition == Status::NeedsReconnect {
                health.last_error = Some(trouble);
            } else {
                health.blame(trouble);
            }
            health.condition = health.condition.max(condition);
        };
        self.felt(connection, change).await;
    }

    /// After the service refused a sign-in's token (401): the next call signs in anew, unless the token is so
    /// young that this would be asking again and again. `None` where the connection has no sign-in.
    pub fn sign_out(&self, integration: &Arc<Integration>, prepared: &Arc<Prepared>) -> Option<SignedOut> {
        let made = prepared.made.as_ref().filter(|made| made.credential.is_none())?;
        let id = &prepared.connection.id;
        match self.prepared.get(integration, id) {
            Some(kept) if Arc::ptr_eq(&kept, prepared) => {}
            // Somebody else did, or there is a newer one already.
            _ => return Some(SignedOut::Yes),
        }
        if self.parts.clock.now().since(made.at) < LEAST_AGE {
            return Some(SignedOut::TooYoung);
        }
        self.prepared.forget(&integration.id, id);
        Some(SignedOut::Yes)
    }
}

/// Whether the credential of calls is had by asking the service for it.
fn signs_in(auth: &Auth, credential: &Credential) -> bool {
    match (auth, credential) {
        (Auth::Login(_) | Auth::OAuth2(_), Credential::None) => true,
        (Auth::SigV4(sigv4), _) => sigv4.session.is_some(),
        _ => false,
    }
}

/// What came of a token that the service refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedOut {
    /// It is not used any more.
    Yes,
    /// It was had a moment ago, and is kept.
    TooYoung,
}

impl Made {
    /// Whether it is used at `now` by a call that needs it to last so long; of its life half at most counts, since a
    /// new one may last no longer.
    fn lasts(&self, now: Timestamp, validity: Duration) -> bool {
        self.until.is_none_or(|until| now.after(validity.min(until.since(self.at) / 2)) < until)
    }

    fn of(grant: &Grant, now: Timestamp) -> Self {
        let ends = grant.tokens.values().filter_map(|token| token.expires_at).min();
        // A tenth of its life is left for calls under way, a minute at most.
        let margin = |end: Timestamp| (end.since(now) / 10).min(Duration::from_mins(1));
        Self { credential: None, at: now, until: ends.map(|end| end.before(margin(end))) }
    }
}

impl Prepared {
    pub(super) fn of(
        (gateway, policy): (&Arc<Gateway>, Arc<Policy>),
        integration: &Integration,
        (resolved, connection): (Arc<Connection>, Arc<Connection>),
        made: Option<Made>,
    ) -> Result<Self, OutboundError> {
        let id = || Arc::clone(&integration.id);
        let api = integration.api.as_ref().ok_or_else(|| OutboundError::NoApi(id()))?;
        let base = Base::of(api, gateway, &connection.context)
            .map_err(|reason| OutboundError::Base { integration: id(), reason })?;
        let host = HeaderValue::from_str(&base.origin.authority())
            .map_err(|_| OutboundError::Base { integration: id(), reason: BaseError::Shape })?;
        let unusable =
            |reason| OutboundError::Credential { integration: id(), connection: Arc::clone(&connection.id), reason };
        let shown = made.as_ref().and_then(|made| made.credential.as_ref()).unwrap_or(&connection.credential);
        let credential =
            Placed::of_credential(&api.credential, (shown, &connection.context), None).map_err(unusable)?;
        if matches!(integration.auth, Auth::Mtls) && api.transport.identity.is_none() {
            let words = "`auth.mtls` has no `certificate` and `key` yet, so there is nothing to show the service";
            return Err(unusable(PlaceError::Unsigned(words.to_owned())));
        }
        let signer = Signer::of(&integration.auth, &connection).map_err(unusable)?;
        let literal_host = base.literal_host.then_some(base.origin.host.as_str());
        let reach = Reach::of_integration(gateway, api.transport.allow_private, literal_host);
        let per_call = sign::per_call_of(api);
        let retries =
            api.policy.retry.iter().chain(api.endpoints.iter().filter_map(|endpoint| endpoint.retry.as_ref()));
        let keys = retries.filter_map(|retry| retry.idempotency_key.clone()).collect();
        let unchanged = fixed(api, &per_call);
        let headers = api_headers(unchanged, &connection).map_err(|(header, reason)| OutboundError::Header {
            integration: id(),
            header,
            reason,
        })?;
        let others = others((integration, &connection), fixed(api, &per_call).zip(&headers));
        let gateway = Arc::clone(gateway);
        let place = Arc::from(base.origin.to_string());
        Ok(Self {
            connection,
            base,
            host,
            place,
            headers,
            per_call,
            keys,
            credential,
            signer,
            reach,
            policy,
            gateway,
            others,
            resolved,
            made,
            redactor: OnceLock::new(),
        })
    }
}

impl Prepared {
    /// Whether each call gets headers of its own, by [`Self::sign`].
    pub fn signs(&self) -> bool {
        self.signer.is_some() || !self.per_call.is_empty()
    }

    /// The headers of each call that show who makes it: good for that call alone, and none of whoever asks for it.
    pub(super) fn proofs(&self) -> impl Iterator<Item = &HeaderName> {
        let of_signer = self.signer.as_ref().map(|_| own_headers()).unwrap_or_default();
        of_signer.iter().chain(self.per_call.iter().filter(|header| header.is_proof).map(|header| &header.name))
    }

    /// Whether each call has a header that tells of it alone, which would not fit where a redirect leads.
    pub(super) fn tells_of_calls(&self) -> bool {
        self.per_call.iter().any(|header| header.is_of_call && !header.is_proof)
    }

    /// The headers that a caller must not bring to a call of this connection. An idempotency key is not among them.
    pub fn own_headers(&self) -> impl Iterator<Item = &HeaderName> {
        let others = self.per_call.iter().filter(|header| !header.is_proof).map(|header| &header.name);
        self.proofs().chain(others.filter(|name| !self.keys.contains(name)))
    }

    /// The headers that one call of this connection gets beside those of all calls: those that name the moment or the
    /// call, and those that sign it. The [`Self::own_headers`] of a caller must be taken out before.
    ///
    /// # Errors
    /// When the call cannot be signed.
    pub fn sign(
        &self,
        carried: Carried<'_>,
        leaving: Leaving<'_>,
        moment: Moment<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, PlaceError> {
        let mut added = Vec::new();
        if !self.per_call.is_empty() {
            let shown = self.made.as_ref().and_then(|made| made.credential.as_ref());
            let shown = shown.unwrap_or(&self.connection.credential);
            added = sign::per_call(&self.per_call, (shown, &self.connection.context, carried), leaving, moment)?;
        }
        if let (Some(signer), Carried::Credential(_)) = (&self.signer, carried) {
            // What is made anew is part of what is signed.
            let mut headers = Cow::Borrowed(leaving.headers);
            if !added.is_empty() {
                headers.to_mut().extend(added.iter().cloned());
            }
            let signed = signer.sign(&self.connection, Leaving { headers: &headers, ..leaving }, moment)?;
            added.extend(signed);
        }
        Ok(added)
    }

    /// Whether a call with a body must be read whole before it can be sent.
    pub fn needs_body(&self, headers: &HeaderMap) -> bool {
        let signs = self.signer.as_ref().is_some_and(|signer| signer.needs_body(headers, &self.base.origin));
        signs || self.credential.is_in_body()
    }

    /// How many calls of its integration may wait for their turn.
    pub fn waiting_calls(&self) -> usize {
        self.gateway.limits.waiting_calls
    }

    /// `text` without any secret that a call may have carried: the credential, what was made of it, secret inputs and the
    /// application's secret.
    pub fn redact(&self, text: &str) -> String {
        self.redactor().redact(text)
    }

    /// The same of a text that is known to be whole: what it ends with stays.
    pub fn redact_whole(&self, text: &str) -> String {
        self.redactor().redact_whole(text)
    }

    fn redactor(&self) -> &Redactor {
        self.redactor.get_or_init(|| {
            let made = self.made.as_ref().and_then(|made| made.credential.as_ref());
            let all = [Some(&self.connection.credential), Some(&self.resolved.credential), made];
            // In base 64 the name of a pair would stay, although the password is found.
            let pairs: Vec<Secret> = all.into_iter().flatten().filter_map(Credential::pair).collect();
            // What is sent may be made of a secret and be none that is kept: a digest of it.
            let placed = self.credential.secrets();
            let secrets = all.into_iter().flatten().flat_map(Credential::secrets);
            let known: Vec<&Secret> = secrets.chain(self.others.all()).chain(&pairs).chain(&placed).collect();
            let members: Vec<Secret> = known.iter().flat_map(|secret| members(secret)).collect();
            Redactor::of(known.into_iter().chain(&members))
        })
    }
}

/// The fewest bytes of a text in a secret that is JSON by which it is a secret of its own.
const MEMBER: usize = 12;

/// The texts in a secret that is JSON, such as a service account's key: a service may write it out in another way.
fn members(secret: &Secret) -> Vec<Secret> {
    let text = secret.expose();
    let Some(Ok(json)) = text.starts_with('{').then(|| serde_json::from_str::<serde_json::Value>(text)) else {
        return Vec::new();
    };
    let texts = json.as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str());
    texts.filter(|text| text.len() >= MEMBER).map(Secret::from).collect()
}

/// Secrets that calls may carry beside the credential: `headers` are the texts of those of the API, and what they are.
fn others<'a>(
    (integration, connection): (&Integration, &Connection),
    headers: impl Iterator<Item = (&'a (HeaderName, Text), &'a (HeaderName, HeaderValue))>,
) -> Secrets {
    let known = Secrets::of_client(integration).and_inputs(integration, &connection.inputs);
    let mut known = known.and_referenced(integration);
    let made = headers.filter(|((_, text), _)| tells_secrets(text, integration));
    for value in made.filter_map(|(_, (_, value))| value.to_str().ok()) {
        known.add(value);
    }
    known
}

/// The headers of an API that are the same for all calls of a connection.
fn fixed<'a>(api: &'a Api, per_call: &'a [PerCall]) -> impl Iterator<Item = &'a (HeaderName, Text)> {
    api.headers.iter().filter(|(name, _)| per_call.iter().all(|made| made.name != *name))
}

/// Whether a text is made of what is secret.
fn tells_secrets(text: &Text, integration: &Integration) -> bool {
    let secret = |name: &str| match name.split_once('.') {
        Some(("input", field)) => integration.inputs.iter().any(|input| input.secret && *input.name == *field),
        root => {
            matches!(root.map_or(name, |(root, _)| root), "api_key" | "token" | "password" | "client" | "assertion")
        }
    };
    text.names().iter().any(|name| secret(name))
}

fn api_headers<'a>(
    headers: impl Iterator<Item = &'a (HeaderName, Text)>,
    connection: &Connection,
) -> Result<Vec<(HeaderName, HeaderValue)>, (HeaderName, String)> {
    let fill = |(name, text): &(HeaderName, Text)| {
        let fault = |reason: String| (name.clone(), reason);
        let value = text.render(&connection.context).map_err(|error: TemplateError| fault(error.to_string()))?;
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| fault("the value has characters that no header can carry".to_owned()))?;
        // It may be made of inputs, and inputs may be secret.
        value.set_sensitive(true);
        Ok((name.clone(), value))
    };
    headers.map(fill).collect()
}
