//! What a flow asks of the service: the seam between pages here and token calls in `flow`.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value as Json};

use super::drawer::Enclosed;
use super::pending::Issuer;
use crate::base::secret::Secret;
use crate::connection::flow::{DeviceCode, Poll};
use crate::connection::grant::{Account, Grant, TokenError};
use crate::request::answer::plain_words;

/// What a person is sent to the service with.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The state that must come back.
    pub state: &'a Secret,
    /// Where the service sends them back to.
    pub redirect_uri: &'a str,
    /// The scopes that are asked for.
    pub scopes: &'a [String],
    /// The PKCE challenge (S256); none where the definition turns PKCE off.
    pub challenge: Option<&'a str>,
}

/// Where a person is sent.
#[derive(Debug)]
pub struct Departure {
    /// The address.
    pub url: String,
    /// Who must sign the callback.
    pub issuer: Option<Issuer>,
    /// What the service gave before, and wants again afterwards.
    pub held: Option<Held>,
}

/// A temporary token of OAuth 1.0a (RFC 5849 §2.1), which the callback repeats.
#[derive(Debug)]
pub struct Held {
    /// The token.
    pub token: Secret,
    /// Its secret.
    pub secret: Secret,
}

impl Held {
    pub(super) fn enclosed(self) -> (Enclosed, Enclosed) {
        (Enclosed(self.token), Enclosed(self.secret))
    }
}

/// What came back.
#[derive(Debug, Clone, Copy)]
pub struct Code<'a> {
    /// The code.
    pub code: &'a Secret,
    /// The redirect address that was sent.
    pub redirect_uri: &'a str,
    /// The PKCE verifier.
    pub verifier: Option<&'a Secret>,
    /// The temporary token and its secret, where [`Departure::held`] had them.
    pub held: Option<(&'a Secret, &'a Secret)>,
    /// All that the callback's query has: services put more than a code there.
    pub callback: &'a Map<String, Json>,
}

/// Whose account was connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// Its id at the service.
    pub id: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Its mail address.
    pub email: Option<String>,
}

impl Who {
    /// The same, without what turns or hides text on the pages and lists that show it.
    #[must_use]
    pub fn plain(self) -> Self {
        let plain = |text: Option<String>| text.map(|text| plain_words(&text)).filter(|text| !text.is_empty());
        Self { id: plain(self.id), name: plain(self.name), email: plain(self.email) }
    }
}

/// One step that lets a person choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All steps are done; these values are kept.
    Settled(Map<String, Json>),
    /// A person has to choose: what is shown of each choice, and what is kept of it.
    Several(Vec<(String, Map<String, Json>)>),
    /// There is nothing to choose from, although the definition needs one.
    Nothing,
}

/// Makes the calls of a connect flow.
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Where the person is sent.
    ///
    /// # Errors
    /// When the definition gives no address, or the issuer's metadata cannot be had.
    async fn depart(&self, account: Account<'_>, ask: Ask<'_>) -> Result<Departure, TokenError>;

    /// Exchanges a code for tokens. Called once for each code.
    ///
    /// # Errors
    /// As the service answers.
    async fn exchange(&self, account: Account<'_>, code: Code<'_>) -> Result<Grant, TokenError>;

    /// Gets the tokens of a grant that needs no person.
    ///
    /// # Errors
    /// As the service answers.
    async fn grant_itself(&self, account: Account<'_>) -> Result<Grant, TokenError>;

    /// Asks for a code that a person types on another device (RFC 8628 §3.1).
    ///
    /// # Errors
    /// As the service answers.
    async fn device_code(&self, account: Account<'_>, scopes: &[String]) -> Result<DeviceCode, TokenError>;

    /// Asks once whether the person has consented; `interval` is the wait before.
    ///
    /// # Errors
    /// When the person said no, the code has expired, or the service refuses for good.
    async fn device_poll(
        &self,
        account: Account<'_>,
        code: &DeviceCode,
        interval: Duration,
    ) -> Result<Poll, TokenError>;

    /// Asks with the new tokens whose account it is; `None` when the definition does not say how. This is
    /// also the first use of the token.
    ///
    /// # Errors
    /// As the service answers.
    async fn identity(&self, account: Account<'_>, grant: &Grant) -> Result<Option<Who>, TokenError>;

    /// Runs the `discover` steps from the one with this number, until they are done or a person has to
    /// choose. `account.saved` has what earlier steps and choices gave.
    ///
    /// # Errors
    /// As the service answers.
    async fn discover(&self, account: Account<'_>, grant: &Grant, step: usize) -> Result<(usize, Found), TokenError>;

    /// Takes the tokens back at the service (RFC 7009); `false` when the definition does not say how.
    ///
    /// # Errors
    /// As the service answers. A token that it does not know any more is no error.
    async fn revoke(&self, account: Account<'_>, grant: &Grant) -> Result<bool, TokenError>;
}
