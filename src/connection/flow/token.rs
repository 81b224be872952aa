//! Token calls: from what is at hand to tokens.
//!
//! The path is: what the purpose gives ([`Purpose`]), the calls that are made for it one after the other,
//! what each brings, and what follows for the tokens' life. Nothing is tried twice and nothing is stored.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;

use super::issuer::{self, Issuers};
use super::purpose::{Purpose, params};
use super::registration::Registrations;
use super::scene::{Main, Scene, misconfigured};
use super::send::{self, Step};
use super::token_params::{self, Params};
use super::token_reply::{self, Reply, Tokens, Wanted};
use super::{Parts, Stage};
use crate::base::clock::Timestamp;
use crate::connection::Connections;
use crate::connection::grant::{Account, Grant, Grants, Issued, TokenError, TokenErrorKind, TokenSource};
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, OAuth2, RefreshPolicy, TokenCall};
use crate::definition::plan::{Auth, Integration};
use crate::request::skew::{self, Skews};

/// What makes token calls. One for the whole program.
#[derive(Debug)]
pub struct TokenCalls {
    pub(super) parts: Parts,
    pub(super) issuers: Issuers,
    pub(super) registrations: Registrations,
    /// Clocks by which assertions are signed.
    pub(super) skews: Skews,
}

#[async_trait]
impl Grants for TokenCalls {
    async fn grant_itself(&self, account: Account<'_>) -> Result<Grant, TokenError> {
        let purpose = match &account.integration.auth {
            Auth::OAuth2(oauth2) => Purpose::of_grant(oauth2.grant),
            _ => None,
        };
        let purpose = purpose.ok_or_else(|| misconfigured("this way to sign in needs a person"))?;
        self.obtain(account, purpose).await
    }
}

impl TokenCalls {
    /// Token calls made with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts, issuers: Issuers::default(), registrations: Registrations::default(), skews: Skews::default() }
    }

    /// These, keeping the registrations of applications that register themselves beside the connections.
    #[must_use]
    pub fn keeping(mut self, connections: Arc<Connections>) -> Self {
        self.registrations = Registrations::keeping(connections, &*self.parts.random);
        self
    }

    /// Makes the calls of a purpose, and says what they brought. Each is tried once.
    ///
    /// # Errors
    /// When a call was not made, or the service gave no usable token.
    pub async fn obtain(&self, account: Account<'_>, purpose: Purpose<'_>) -> Result<Grant, TokenError> {
        let obtained = self.obtain_by_their_clock(account, purpose).await;
        let result = obtained.as_ref().and_then(|grant| grant.unfinished.as_ref().map_or(Ok(()), Err));
        self.count((&account.integration.id, purpose.stage().field()), result);
        obtained
    }

    /// Counts a call by what came of it.
    pub(super) fn count(&self, (integration, call): (&str, &str), result: Result<(), &TokenError>) {
        let result = match result.map_err(|error| error.kind) {
            Ok(()) => "ok",
            Err(TokenErrorKind::Permanent) => "permanent",
            Err(TokenErrorKind::Passing) => "passing",
            Err(TokenErrorKind::Unsent) => "unsent",
            Err(TokenErrorKind::Misconfigured) => "misconfigured",
        };
        self.parts.metrics.token_calls.with_label_values(&[integration, call, result]).inc();
    }

    pub(super) async fn obtain_once(&self, account: Account<'_>, purpose: Purpose<'_>) -> Result<Grant, TokenError> {
        let mut scene = self.scene(account, purpose.need()).await?;
        if matches!(purpose, Purpose::Refresh { .. }) && scene.is_unregistered() {
            return Err(no_registration());
        }
        if let Purpose::Refresh { held, .. } = purpose {
            scene.may_renew(held)?;
        }
        let params = params(self, &mut scene, &purpose)?;
        let oauth2 = scene.oauth2;
        let discovered = if oauth2.token.is_empty() { self.endpoints(&scene).await? } else { None };
        let standard = discovered.as_ref().and_then(|found| found.token.as_ref()).map(std::slice::from_ref);
        if let Some(untrusted) = discovered.as_ref().and_then(|found| found.untrusted(issuer::TOKEN)) {
            return Err(untrusted);
        }
        let token = standard.unwrap_or(&oauth2.token);
        let (mut brought, name) = (Brought::default(), purpose.token());
        let ran = match purpose {
            Purpose::Refresh { name, held } => {
                let renewing = oauth2.refresh.is_some();
                let calls = oauth2.refresh.as_deref().unwrap_or(token);
                if held.refresh.is_none() && !renewing {
                    return Err(no_refresh_token());
                }
                let wanted = match oauth2.refresh_tokens {
                    RefreshPolicy::Extend => Tokens::Extended(name, held),
                    RefreshPolicy::Keep | RefreshPolicy::Rotate => Tokens::Renewed(name),
                };
                self.run(&mut scene, (calls, params), (Stage::Refresh, wanted), &mut brought).await
            }
            _ => self.run(&mut scene, (token, params), (Stage::Token, Tokens::Issued), &mut brought).await,
        };
        let ran = ran.and_then(|status| leave_out_unsendable(account.integration, &mut brought, (name, status)));
        if let Err(error) = ran {
            return purpose.held().and_then(|held| unfinished(brought, (name, held), &error)).ok_or(error);
        }
        self.find_end(&mut scene, &mut brought).await;
        let mut spent = BTreeSet::new();
        if let Purpose::Refresh { name, held } = purpose
            && is_spent(oauth2, &mut brought, name, held)
        {
            spent.insert(Arc::from(name));
        }
        if let Some(client) = scene.known_client() {
            brought.tokens.values_mut().for_each(|token| token.client = Some(client.id.clone()));
        }
        let Brought { tokens, warnings, .. } = brought;
        Ok(Grant { tokens, saved: scene.into_kept(), spent, warnings, unfinished: None })
    }

    /// Makes calls one after the other, and gives the status of the last answer. The first has the standard parameters
    /// and proves who asks; those after it are plain requests that see what came before.
    async fn run(
        &self,
        scene: &mut Scene<'_>,
        (calls, params): (&[TokenCall], Params),
        (stage, wanted): (Stage, Tokens<'_>),
        brought: &mut Brought,
    ) -> Result<u16, TokenError> {
        let (mut first, last) = (Some(params), calls.len().saturating_sub(1));
        let mut answered = 0;
        if calls.is_empty() {
            return Err(misconfigured(
                "`auth.oauth2.token` is missing: write the address of the service's token calls",
            ));
        }
        for (index, call) in calls.iter().enumerate() {
            let tokens = if index == last { wanted } else { Tokens::Any };
            let Reply { tokens, saved, warnings, status } =
                self.call(scene, call, (stage, tokens), first.take()).await?;
            scene.keep(saved);
            brought.warnings.extend(warnings);
            for (name, token) in &tokens {
                let main = if &**name == DEFAULT_TOKEN { Main::Yes } else { Main::No };
                scene.show_token(name, token, main);
            }
            brought.tokens.extend(tokens);
            brought.ttl = call.default_ttl.or(brought.ttl);
            answered = status;
        }
        Ok(answered)
    }

    /// One call, with the standard parameters where they belong to it.
    pub(super) async fn call(
        &self,
        scene: &Scene<'_>,
        call: &TokenCall,
        (stage, tokens): (Stage, Tokens<'_>),
        params: Option<Params>,
    ) -> Result<Reply, TokenError> {
        let (request, proof) = match params {
            None => (call.request.clone(), None),
            Some(mut params) => {
                let assertion = self.client_assertion(scene, &call.request)?;
                let proof = token_params::prove((scene, call), &mut params, assertion.as_ref())?;
                (token_params::placed(call, params), proof)
            }
        };
        let finish = |headers: &mut HeaderMap| token_params::headers(&request, headers, proof.clone());
        let step = Step { stage, request: &request, finish: &finish };
        let received = send::send(&self.parts, scene, step).await?;
        let now = self.parts.clock.now();
        let headers = received.headers.clone();
        let wanted = Wanted { tokens, separator: &scene.oauth2.scope_separator, now };
        let read = token_reply::read(call, (&scene.context(), &scene.secrets), received, wanted);
        if read.as_ref().is_err_and(|error| scene.is_of_the_clock(error)) {
            let account = (&*scene.account.integration.id, scene.account.connection);
            self.skews.learn(account, now, &headers, skew::ASSERTION);
        }
        read
    }

    /// When the tokens end, where their answers did not say: as the service tells when asked (RFC 7662),
    /// else after the time the definition gives. A service that does not tell is no reason to refuse its
    /// tokens.
    async fn find_end(&self, scene: &mut Scene<'_>, brought: &mut Brought) {
        let oauth2 = scene.oauth2;
        for (name, token) in brought.tokens.iter_mut().filter(|(_, token)| token.expires_at.is_none()) {
            if let Some(call) = &oauth2.introspect {
                scene.show_token(name, token, Main::Yes);
                token.expires_at = self.introspected(scene, call, token).await;
            }
            if token.expires_at.is_none() {
                token.expires_at = brought.ttl.map(|ttl| token.issued_at.after(ttl));
            }
        }
    }

    async fn introspected(&self, scene: &Scene<'_>, call: &TokenCall, token: &Issued) -> Option<Timestamp> {
        let mut params = Params::default();
        params.add("token", token.access.expose().as_str());
        params.add("token_type_hint", "access_token");
        // The answer tells of the token that was asked about, wherever the definition says it does.
        let wanted = Tokens::Extended(DEFAULT_TOKEN, token);
        match self.call(scene, call, (Stage::Introspect, wanted), Some(params)).await {
            Ok(reply) => reply.tokens.get(DEFAULT_TOKEN).and_then(|token| token.expires_at),
            Err(error) => {
                let account = &scene.account;
                tracing::warn!(
                    integration = &*account.integration.id,
                    connection = account.connection,
                    error = %error,
                    "a new token could not be introspected, so when it ends is not known"
                );
                None
            }
        }
    }
}

/// What a run of calls brought.
#[derive(Debug, Default)]
struct Brought {
    tokens: BTreeMap<Arc<str>, Issued>,
    /// How long tokens live when nobody says.
    ttl: Option<Duration>,
    /// What was left out.
    warnings: Vec<String>,
}

/// Leaves out tokens that no call to the API could carry.
///
/// # Errors
/// When the one that is wanted is among them.
fn leave_out_unsendable(
    integration: &Integration,
    brought: &mut Brought,
    (wanted, status): (&str, u16),
) -> Result<(), TokenError> {
    let Some(api) = &integration.api else { return Ok(()) };
    let carries = |issued: &Issued| api.credential.carries(issued.access.expose());
    if brought.tokens.get(wanted).is_some_and(|issued| !carries(issued)) {
        let words = format!("the answer cannot be used: the token `{wanted}` {UNSENDABLE}");
        return Err(TokenError { status: Some(status), ..TokenError::new(TokenErrorKind::Passing, words) });
    }
    let out: Vec<_> = brought.tokens.extract_if(.., |_, issued| !carries(issued)).collect();
    brought.warnings.extend(out.iter().map(|(name, _)| format!("the token `{name}` was left out, it {UNSENDABLE}")));
    Ok(())
}

const UNSENDABLE: &str = "has characters that no call can carry";

/// What of the token that was renewed stays as it was; and whether its refresh token is used up and there is no new
/// one. Without a new one the old one stays (RFC 6749 §6), unless the definition says that each works once.
fn is_spent(oauth2: &OAuth2, brought: &mut Brought, name: &str, held: &Issued) -> bool {
    let Some(token) = brought.tokens.get_mut(name) else { return false };
    // An answer that does not name the scopes means the same as before (RFC 6749 §5.1 and §6).
    if token.scopes.is_none() {
        token.scopes.clone_from(&held.scopes);
    }
    let spent = oauth2.refresh_tokens == RefreshPolicy::Rotate && held.refresh.is_some() && token.refresh.is_none();
    if spent {
        let until = token.expires_at.map_or_else(|| "once the token ends".to_owned(), |end| format!("at {end}"));
        brought.warnings.push(format!(
            "the answer has no new refresh token, although each works once (`refresh_tokens: rotate`): the account has \
             to be connected again {until}"
        ));
    }
    spent
}

/// What is to be kept of a renewal that failed: the refresh token that it brought, in place of the one that is used
/// up. `None` where it brought none.
fn unfinished(mut brought: Brought, (name, held): (&str, &Issued), error: &TokenError) -> Option<Grant> {
    let came = brought.tokens.remove(name).or_else(|| brought.tokens.remove(DEFAULT_TOKEN));
    let refresh = came?.refresh?;
    let is_new = held.refresh.as_ref().is_none_or(|before| before.expose() != refresh.expose());
    let token = Issued { refresh: Some(refresh), ..held.copy() };
    let tokens = BTreeMap::from([(Arc::from(name), token)]);
    is_new.then(|| Grant { tokens, unfinished: Some(error.clone()), ..Grant::default() })
}

fn no_registration() -> TokenError {
    let words = "the application's registration at the service is gone or has ended, and with it what renews the token: \
                 connect the account again, which registers it anew";
    TokenError::new(TokenErrorKind::Permanent, words)
}

fn no_refresh_token() -> TokenError {
    let words = "there is no refresh token: the service gave none, so a person has to connect again";
    TokenError::new(TokenErrorKind::Permanent, words)
}

#[async_trait]
impl TokenSource for TokenCalls {
    async fn renew(&self, account: Account<'_>, name: &str, held: &Issued) -> Result<Grant, TokenError> {
        let purpose = match &account.integration.auth {
            Auth::OAuth2(oauth2) if oauth2.refresh.is_none() => Purpose::of_grant(oauth2.grant),
            _ => None,
        };
        self.obtain(account, purpose.unwrap_or(Purpose::Refresh { name, held })).await
    }

    fn renews(&self, integration: &Integration, held: &Issued) -> bool {
        let Auth::OAuth2(oauth2) = &integration.auth else { return false };
        held.refresh.is_some() || !oauth2.grant.needs_person() || oauth2.refresh.is_some()
    }
}
