//! Token calls: from what is at hand to tokens.
//!
//! The path is: what the purpose gives ([`Purpose`]), the calls that are made for it one after the other,
//! what each brings, and what follows for the tokens' life. Nothing is tried twice and nothing is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use serde_json::{Map, Value as Json};

use super::issuer::Issuers;
use super::scene::{Main, Scene, misconfigured};
use super::send::{self, Step};
use super::token_params::{self, Params};
use super::token_reply::{self, Reply, Tokens, Wanted};
use super::{Parts, Stage};
use crate::base::clock::Timestamp;
use crate::connection::grant::{Account, Grant, Issued, TokenError, TokenErrorKind, TokenSource};
use crate::definition::plan::oauth2::{self, DEFAULT_TOKEN, OAuth2, RefreshPolicy, TokenCall};
use crate::definition::plan::{Auth, Integration};

/// What makes token calls. One for the whole program.
#[derive(Debug)]
pub struct TokenCalls {
    pub(super) parts: Parts,
    pub(super) issuers: Issuers,
}

/// What a token call is made for, and what is at hand for it.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A person consented: their code becomes tokens (RFC 6749 §4.1.3).
    Code {
        /// The code.
        code: &'a str,
        /// The callback's address, as the person was sent with it.
        redirect_uri: &'a str,
        /// The PKCE verifier, unless PKCE is off.
        verifier: Option<&'a str>,
        /// The callback's query by name, of which the definition keeps values.
        callback: &'a Map<String, Json>,
    },
    /// A token is renewed (RFC 6749 §6).
    Refresh {
        /// Its name.
        name: &'a str,
        /// The token as it is held.
        held: &'a Issued,
    },
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// A person consents on another device (RFC 8628 §3.4): one poll.
    Device {
        /// The device code.
        device_code: &'a str,
    },
    /// A signed assertion is exchanged (RFC 7523).
    JwtBearer,
    /// A token is exchanged for another (RFC 8693).
    Exchange,
}

impl Purpose<'_> {
    /// The purpose of a grant that needs no person.
    pub const fn of_grant(grant: oauth2::Grant) -> Option<Self> {
        match grant {
            oauth2::Grant::AuthorizationCode | oauth2::Grant::DeviceCode => None,
            oauth2::Grant::ClientCredentials => Some(Self::ClientCredentials),
            oauth2::Grant::JwtBearer => Some(Self::JwtBearer),
            oauth2::Grant::TokenExchange => Some(Self::Exchange),
        }
    }

    fn stage(&self) -> Stage {
        if matches!(self, Self::Refresh { .. }) { Stage::Refresh } else { Stage::Token }
    }
}

impl TokenCalls {
    /// Token calls made with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts, issuers: Issuers::default() }
    }

    /// Makes the calls of a purpose, and says what they brought. Each is tried once.
    ///
    /// # Errors
    /// When a call was not made, or the service gave no usable token.
    pub async fn obtain(&self, account: Account<'_>, purpose: Purpose<'_>) -> Result<Grant, TokenError> {
        let obtained = Box::pin(self.obtain_uncounted(account, purpose)).await;
        let result = match &obtained {
            Ok(_) => "ok",
            Err(error) => match error.kind {
                TokenErrorKind::Permanent => "permanent",
                TokenErrorKind::Passing => "passing",
                TokenErrorKind::Unsent => "unsent",
                TokenErrorKind::Misconfigured => "misconfigured",
            },
        };
        let labels = [&*account.integration.id, purpose.stage().field(), result];
        self.parts.metrics.token_calls.with_label_values(&labels).inc();
        obtained
    }

    async fn obtain_uncounted(&self, account: Account<'_>, purpose: Purpose<'_>) -> Result<Grant, TokenError> {
        let mut scene = Scene::of(account)?;
        let params = params(self, &mut scene, &purpose)?;
        let oauth2 = scene.oauth2;
        let discovered = if oauth2.token.is_empty() { self.endpoints(&scene).await? } else { None };
        let standard = discovered.as_ref().and_then(|found| found.token.as_ref()).map(std::slice::from_ref);
        let token = standard.unwrap_or(&oauth2.token);
        let mut brought = match purpose {
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
                self.run(&mut scene, calls, (Stage::Refresh, wanted), params).await?
            }
            _ => self.run(&mut scene, token, (Stage::Token, Tokens::Issued), params).await?,
        };
        self.find_end(&mut scene, &mut brought).await;
        if let Purpose::Refresh { name, held } = purpose {
            keep_what_stays(oauth2, &mut brought.tokens, name, held)?;
        }
        Ok(Grant { tokens: brought.tokens, saved: scene.into_kept() })
    }

    /// Makes calls one after the other. The first has the standard parameters and proves who asks; those
    /// after it are plain requests that see what came before.
    async fn run(
        &self,
        scene: &mut Scene<'_>,
        calls: &[TokenCall],
        (stage, wanted): (Stage, Tokens<'_>),
        params: Params,
    ) -> Result<Brought, TokenError> {
        let mut brought = Brought::default();
        let (mut first, last) = (Some(params), calls.len().saturating_sub(1));
        if calls.is_empty() {
            return Err(misconfigured(
                "`auth.oauth2.token` is missing: write the address of the service's token calls",
            ));
        }
        for (index, call) in calls.iter().enumerate() {
            let tokens = if index == last { wanted } else { Tokens::Any };
            let Reply { tokens, saved } = self.call(scene, call, (stage, tokens), first.take()).await?;
            scene.keep(saved);
            for (name, token) in &tokens {
                let main = if &**name == DEFAULT_TOKEN { Main::Yes } else { Main::No };
                scene.show_token(name, token, main);
            }
            brought.tokens.extend(tokens);
            brought.ttl = call.default_ttl.or(brought.ttl);
        }
        Ok(brought)
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
                let assertion = self.client_assertion(scene, call)?;
                let proof = token_params::prove((scene, call), &mut params, assertion.as_ref())?;
                (token_params::placed(call, params), proof)
            }
        };
        let finish = |headers: &mut HeaderMap| token_params::headers(&request, headers, proof.clone());
        let step = Step { stage, request: &request, finish: &finish };
        let received = send::send(&self.parts, scene, step).await?;
        let now = self.parts.clock.now();
        let wanted = Wanted { tokens, separator: &scene.oauth2.scope_separator, now };
        token_reply::read(call, (&scene.context(), &scene.secrets), received, wanted)
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
}

/// The standard parameters of a purpose; what templates see of it is shown.
fn params(calls: &TokenCalls, scene: &mut Scene<'_>, purpose: &Purpose<'_>) -> Result<Params, TokenError> {
    let mut params = Params::default();
    match *purpose {
        Purpose::Code { code, redirect_uri, verifier, callback } => {
            params.add("grant_type", "authorization_code");
            params.add("code", code);
            params.add("redirect_uri", redirect_uri);
            params.add_some("code_verifier", verifier);
            scene.show_secret("code", code);
            scene.show("redirect_uri", redirect_uri);
            if let Some(verifier) = verifier {
                scene.show_secret("code_verifier", verifier);
            }
            // Some token calls want the state again.
            if let Some(state) = callback.get("state").and_then(Json::as_str) {
                scene.show("state", state);
            }
            keep_of_callback(scene, callback)?;
        }
        Purpose::Refresh { name, held } => {
            params.add("grant_type", "refresh_token");
            params.add_some("refresh_token", held.refresh.as_ref().map(|refresh| refresh.expose().as_str()));
            scene.show_token(name, held, Main::Yes);
        }
        Purpose::ClientCredentials => {
            params.add("grant_type", "client_credentials");
            params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
        }
        Purpose::Device { device_code } => {
            params.add("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
            params.add("device_code", device_code);
            scene.show_secret("code", device_code);
        }
        Purpose::JwtBearer => {
            let assertion = calls.assertion(scene)?;
            params.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
            params.add("assertion", assertion.expose().as_str());
            params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
            scene.show_secret("assertion", assertion.expose());
        }
        Purpose::Exchange => exchange(scene, &mut params)?,
    }
    params.add_all("resource", resources(scene)?);
    Ok(params)
}

/// The values that the definition keeps of a callback's query.
fn keep_of_callback(scene: &mut Scene<'_>, callback: &Map<String, Json>) -> Result<(), TokenError> {
    scene.show("query", callback.clone());
    let context = scene.context();
    let mut kept = Map::new();
    for (name, expr) in &scene.oauth2.callback.save {
        let value = expr.json(&context);
        let value = value.map_err(|error| misconfigured(format!("`callback.save.{name}`: {error}")))?;
        if !value.is_null() {
            kept.insert(name.clone(), value);
        }
    }
    scene.keep(kept);
    Ok(())
}

fn exchange(scene: &mut Scene<'_>, params: &mut Params) -> Result<(), TokenError> {
    let Some(exchange) = &scene.oauth2.exchange else {
        return Err(misconfigured("`grant: token_exchange` needs `exchange`"));
    };
    let context = scene.context();
    let render = |text: &crate::template::Text, field: &str| {
        text.render(&context).map_err(|error| misconfigured(format!("`exchange.{field}`: {error}")))
    };
    params.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    let subject = render(&exchange.subject_token, "subject_token")?;
    scene.secrets.add(&subject);
    params.add("subject_token", subject);
    params.add("subject_token_type", exchange.subject_token_type.as_str());
    if let Some((token, kind)) = &exchange.actor {
        let actor = render(token, "actor_token")?;
        scene.secrets.add(&actor);
        params.add("actor_token", actor);
        params.add("actor_token_type", kind.as_str());
    }
    params.add_some("requested_token_type", exchange.requested_token_type.as_deref());
    let audience = exchange.audience.iter().map(|text| render(text, "audience"));
    params.add_all("audience", audience.collect::<Result<_, _>>()?);
    params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
    Ok(())
}

/// The resources the token is for (RFC 8707).
pub(super) fn resources(scene: &Scene<'_>) -> Result<Vec<String>, TokenError> {
    let context = scene.context();
    let resources = scene
        .oauth2
        .resource
        .iter()
        .map(|text| text.render(&context).map_err(|error| misconfigured(format!("`resource`: {error}"))));
    resources.collect()
}

/// What of the token that was renewed stays as it was, and whether that may be.
fn keep_what_stays(
    oauth2: &OAuth2,
    tokens: &mut BTreeMap<Arc<str>, Issued>,
    name: &str,
    held: &Issued,
) -> Result<(), TokenError> {
    let Some(token) = tokens.get_mut(name) else { return Ok(()) };
    // An answer that does not name the scopes means the same as before (RFC 6749 §5.1 and §6).
    if token.scopes.is_none() {
        token.scopes.clone_from(&held.scopes);
    }
    if oauth2.refresh_tokens == RefreshPolicy::Rotate && token.refresh.is_none() {
        let words = "the answer has no new refresh token, although each works once (`refresh_tokens: rotate`)";
        return Err(TokenError::new(TokenErrorKind::Passing, words));
    }
    Ok(())
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
