//! What a token call brings, what it fails with, and the seam through which tokens are renewed.
//!
//! `connection::flow` makes these values over the network; `connection::refresh` asks for them through
//! [`TokenSource`]; `stored` keeps them. Nothing here sends or stores anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::directory::DEFAULT;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::definition::live::Generation;
use crate::definition::plan::Integration;

/// One token as the service issued it.
#[derive(Debug)]
pub struct Issued {
    /// What calls carry.
    pub access: Secret,
    /// What it is renewed with. In a [`Grant`], none means that the service sent no new one; the one held
    /// before then stays in force.
    pub refresh: Option<Secret>,
    /// When the access token stops working; `None` when the service did not say, and it is used until it
    /// is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// The scopes that were granted; `None` when the service did not say.
    pub scopes: Option<Vec<String>>,
    /// The id of the application that it was issued to, which alone may use its refresh token (RFC 6749 §6);
    /// `None` when nobody noted it.
    pub client: Option<String>,
}

impl Issued {
    /// An access token of which nothing else is known.
    pub fn bare(access: Secret, issued_at: Timestamp) -> Self {
        Self { access, refresh: None, expires_at: None, issued_at, scopes: None, client: None }
    }

    /// A second holder of the same secrets. Named, so that copies can be found.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            access: Secret::from(self.access.expose().as_str()),
            refresh: self.refresh.as_ref().map(|refresh| Secret::from(refresh.expose().as_str())),
            expires_at: self.expires_at,
            issued_at: self.issued_at,
            scopes: self.scopes.clone(),
            client: self.client.clone(),
        }
    }

    /// Whether it still works at `now` and for `least` longer. A token whose end nobody told is taken to.
    pub fn lasts(&self, now: Timestamp, least: Duration) -> bool {
        self.expires_at.is_none_or(|end| end > now.after(least))
    }
}

/// What a token call brought.
#[derive(Debug, Default)]
pub struct Grant {
    /// Tokens by name: `default`, and those with a name of their own.
    pub tokens: BTreeMap<Arc<str>, Issued>,
    /// The values it saved: `saved.NAME` in templates.
    pub saved: Map<String, Json>,
    /// Tokens whose refresh token is used up, although there is no new one: nothing renews them any more.
    pub spent: BTreeSet<Arc<str>>,
    /// What of the answer could not be used, beside tokens that could; nothing secret.
    pub warnings: Vec<String>,
    /// Why a renewal came to no new access token, although it brought a new refresh token: the old one is used up, so
    /// that the new one has to be kept beside the access token there was.
    pub unfinished: Option<TokenError>,
}

impl Grant {
    /// A grant of one token, the default one.
    pub fn of(token: Issued) -> Self {
        Self { tokens: BTreeMap::from([(Arc::from(DEFAULT), token)]), ..Self::default() }
    }

    /// A second holder of its tokens, with none of the values it saved.
    #[must_use]
    pub fn without_saved(&self) -> Self {
        let tokens = self.tokens.iter().map(|(name, issued)| (Arc::clone(name), issued.copy())).collect();
        let (spent, warnings, unfinished) = (self.spent.clone(), self.warnings.clone(), self.unfinished.clone());
        Self { tokens, saved: Map::new(), spent, warnings, unfinished }
    }
}

/// Why a token call brought none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenError {
    /// What follows from it.
    pub kind: TokenErrorKind,
    /// The error code of the service, such as `invalid_grant` (RFC 6749 §5.2).
    pub code: Option<String>,
    /// What the service says in words, without anything secret, at most some hundred characters.
    pub words: Option<String>,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// How long the service asks to be left alone.
    pub retry_after: Option<Duration>,
}

/// The code of an error that is none of a token call: the application could not register itself before it.
pub const REGISTRATION_FAILED: &str = "registration_failed";

/// What follows from a token call that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenErrorKind {
    /// The service refused for good: a person has to connect again.
    Permanent,
    /// It may work later; the service may or may not have seen the call.
    Passing,
    /// It may work later, and the service certainly has not seen the call.
    Unsent,
    /// The definition or its settings are wrong: the operator has to act, and no token is lost.
    Misconfigured,
}

impl TokenError {
    /// An error of which only the kind and some words are known.
    pub fn new(kind: TokenErrorKind, words: impl Into<String>) -> Self {
        Self { kind, code: None, words: Some(words.into()), status: None, retry_after: None }
    }

    /// What is known of it: status, code and words.
    pub fn detail(&self) -> String {
        let detail = [self.status.map(|status| status.to_string()), self.code.clone(), self.words.clone()];
        detail.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// This error of a registration: what the service called it stands in the words.
    #[must_use]
    pub fn of_registration(self) -> Self {
        let said: Vec<_> = [self.code, self.words].into_iter().flatten().collect();
        let words = (!said.is_empty()).then(|| said.join(": "));
        Self { code: Some(REGISTRATION_FAILED.to_owned()), words, ..self }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            TokenErrorKind::Permanent => "the service refuses the token call",
            TokenErrorKind::Passing => "the token call failed",
            TokenErrorKind::Unsent => "the token call could not be sent",
            TokenErrorKind::Misconfigured => "the token call cannot be made as it is declared",
        })?;
        match self.detail() {
            detail if detail.is_empty() => Ok(()),
            detail => write!(f, ": {detail}"),
        }
    }
}

impl std::error::Error for TokenError {}

/// The account a token call is for.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// The generation the call belongs to.
    pub generation: &'a Generation,
    /// The integration.
    pub integration: &'a Arc<Integration>,
    /// The connection's name.
    pub connection: &'a str,
    /// The connection's inputs, defaults filled in.
    pub inputs: &'a Map<String, Json>,
    /// The values its sign-in saved so far.
    pub saved: &'a Map<String, Json>,
}

impl Account<'_> {
    /// Where the service sends people back to.
    pub fn redirect_uri(&self) -> String {
        redirect_uri(self.generation, &self.integration.id)
    }
}

/// Where a service sends people back to: one address for each integration, so that one service cannot pass
/// its callback off as another's (RFC 9700 §4.4).
pub fn redirect_uri(generation: &Generation, integration: &str) -> String {
    let base = generation.gateway.public_url.as_str().trim_end_matches('/');
    format!("{base}/api/auth/callback/{integration}")
}

/// Names only: inputs may be secret.
impl fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}/{})", self.integration.id, self.connection)
    }
}

/// What makes new tokens of old ones.
#[async_trait]
pub trait TokenSource: Send + Sync {
    /// Renews the token of this name. Called by one holder of the connection's lease at a time, with the
    /// newest token that is on disk; what it returns is on disk before anyone uses it. It never tries
    /// twice by itself: a refresh token may be good for one call only.
    ///
    /// A grant without a refresh token means that the old one stays in force, unless it says that it is spent. One that
    /// is unfinished has the old access token, and is no success.
    ///
    /// # Errors
    /// [`TokenErrorKind::Permanent`] only when the service itself said so.
    async fn renew(&self, account: Account<'_>, name: &str, held: &Issued) -> Result<Grant, TokenError>;

    /// Whether this token can be renewed at all without a person: by default when it has a refresh token.
    /// Grants that need no person renew without one.
    fn renews(&self, _integration: &Integration, held: &Issued) -> bool {
        held.refresh.is_some()
    }
}

/// Gets the tokens of grants that need no person.
#[async_trait]
pub trait Grants: fmt::Debug + Send + Sync {
    /// Makes the token calls of an account's grant. Each is tried once.
    ///
    /// # Errors
    /// As the service answers, and [`TokenErrorKind::Misconfigured`] where a person has to consent.
    async fn grant_itself(&self, account: Account<'_>) -> Result<Grant, TokenError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_until_the_moment_it_expires() {
        let at = Timestamp::from_seconds;
        let mut token = Issued::bare("canary".into(), at(100));
        assert!(token.lasts(at(1_000_000), Duration::from_mins(5)), "nobody told when it ends");
        token.expires_at = Some(at(200));
        let left = [(at(199), 0), (at(200), 0), (at(139), 60), (at(140), 60)];
        let lasts = left.map(|(now, least)| token.lasts(now, Duration::from_secs(least)));
        assert_eq!(lasts, [true, false, true, false]);
        assert!(!format!("{token:?}").contains("canary"));
    }

    #[test]
    fn an_error_says_what_the_service_said() {
        let error = TokenError {
            code: Some("invalid_grant".to_owned()),
            status: Some(400),
            ..TokenError::new(TokenErrorKind::Permanent, "Token has been revoked")
        };
        let expected = "the service refuses the token call: 400, invalid_grant, Token has been revoked";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn what_an_error_says_is_not_taken_for_a_secret() {
        use TokenErrorKind::{Misconfigured, Passing, Permanent, Unsent};
        for kind in [Permanent, Passing, Unsent, Misconfigured] {
            let error = TokenError { status: Some(400), ..TokenError::new(kind, "Token has been revoked") };
            let said = error.to_string();
            assert!(said.contains(": 400, Token"), "{said}");
            assert_eq!(crate::telemetry::log::redact(&said), said);
        }
    }
}
