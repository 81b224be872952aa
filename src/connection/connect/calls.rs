//! The calls of a connect flow, each made by the part that knows the way to sign in: [`TokenCalls`] for OAuth
//! 2.0, [`ThreeLegs`] for OAuth 1.0a.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Map;

use super::pending::Issuer;
use super::provider::{Ask, Code, Departure, Found, Held, Provider, Who};
use crate::connection::flow::{Authorization, DeviceCode, Discovered, Poll, Purpose, TokenCalls};
use crate::connection::grant::{Account, Grant, Grants as _, TokenError};
use crate::connection::sign_in::login::Logins;
use crate::connection::sign_in::oauth1::{Consent, ThreeLegs};
use crate::definition::plan::Auth;

/// The calls of a connect flow.
pub struct Calls {
    /// Those of OAuth 2.0.
    pub tokens: Arc<TokenCalls>,
    /// Those of OAuth 1.0a.
    pub legs: ThreeLegs,
    /// Those of services that are signed in to by requests of their own.
    pub logins: Arc<Logins>,
}

fn is_oauth1(account: &Account<'_>) -> bool {
    matches!(account.integration.auth, Auth::OAuth1(_))
}

#[async_trait]
impl Provider for Calls {
    async fn depart(&self, account: Account<'_>, ask: Ask<'_>) -> Result<Departure, TokenError> {
        let Ask { state, redirect_uri, scopes, challenge } = ask;
        if is_oauth1(&account) {
            // It has no state of its own, so that ours travels in the callback's address.
            let begun = self.legs.begin(account, &format!("{redirect_uri}?state={}", state.expose())).await?;
            let held = Some(Held { token: begun.token, secret: begun.secret });
            return Ok(Departure { url: begun.url, issuer: None, held });
        }
        let authorization = Authorization { state: state.expose(), redirect_uri, scopes, challenge };
        let url = self.tokens.authorize_url(account, authorization).await?;
        let issuer = self.tokens.issuer(account).await?;
        let issuer = issuer.map(|issuer| Issuer { name: issuer.id, always: issuer.always_sent });
        Ok(Departure { url, issuer, held: None })
    }

    async fn exchange(&self, account: Account<'_>, code: Code<'_>) -> Result<Grant, TokenError> {
        let Code { code, redirect_uri, verifier, held, callback } = code;
        if let Some((token, secret)) = held {
            return self.legs.finish(account, Consent { token, secret, verifier: code }).await;
        }
        let (code, verifier) = (code.expose(), verifier.map(|verifier| verifier.expose().as_str()));
        self.tokens.obtain(account, Purpose::Code { code, redirect_uri, verifier, callback }).await
    }

    async fn grant_itself(&self, account: Account<'_>) -> Result<Grant, TokenError> {
        self.tokens.grant_itself(account).await
    }

    async fn device_code(&self, account: Account<'_>, scopes: &[String]) -> Result<DeviceCode, TokenError> {
        self.tokens.device_code(account, Some(scopes)).await
    }

    async fn device_poll(
        &self,
        account: Account<'_>,
        code: &DeviceCode,
        interval: Duration,
    ) -> Result<Poll, TokenError> {
        self.tokens.device_poll(account, code, interval).await
    }

    async fn identity(&self, account: Account<'_>, grant: &Grant) -> Result<Option<Who>, TokenError> {
        if is_oauth1(&account) {
            return Ok(None);
        }
        let who = self.tokens.identity(account, &grant.tokens).await?;
        Ok(who.map(|who| Who { id: Some(who.id), name: who.name.or_else(|| who.email.clone()), email: who.email }))
    }

    async fn discover(&self, account: Account<'_>, grant: &Grant, step: usize) -> Result<(usize, Found), TokenError> {
        if is_oauth1(&account) {
            return Ok((step, Found::Settled(Map::new())));
        }
        Ok(match self.tokens.discover(account, &grant.tokens, step).await? {
            Discovered::Settled(values) => (step, Found::Settled(values)),
            Discovered::Nothing => (step, Found::Nothing),
            Discovered::Several { next, kept, choices } => {
                let with_kept = |(label, values)| {
                    let mut all = kept.clone();
                    all.extend(values);
                    (label, all)
                };
                (next.saturating_sub(1), Found::Several(choices.into_iter().map(with_kept).collect()))
            }
        })
    }

    async fn revoke(&self, account: Account<'_>, grant: &Grant) -> Result<bool, TokenError> {
        match &account.integration.auth {
            Auth::OAuth1(_) => return Ok(false),
            Auth::Login(_) => return self.logins.log_out(account, &grant.tokens).await,
            _ => {}
        }
        self.tokens.revoke(account, &grant.tokens).await
    }
}
