//! Webhooks on demand: a sample event, signed as its service would sign it. Called by `cli` and by
//! tests; sends nothing itself.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::draft::{self, DraftError};
use super::sign::{SignError, Signer, hex, with_query};
use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::definition::plan::Integration;
use crate::definition::plan::api::Timeouts;
use crate::definition::plan::webhook::WebhookSecret;
use crate::net::{Base, BodyLimit, Excess, Outgoing, Towards};

/// An event that is wanted.
#[derive(Debug, Clone)]
pub struct Trigger<'a> {
    /// The integration it comes from.
    pub integration: &'a Integration,
    /// Its type, as the definition's `event` expression gives it.
    pub event_type: &'a str,
    /// What it may be signed with: the first that counts is taken.
    pub secrets: &'a [WebhookSecret],
    /// The body to send byte for byte, instead of a sample.
    pub body: Option<Bytes>,
    /// The URL as the service was told it, for schemes that sign it; without query.
    pub url: &'a str,
    /// Whether it is signed with another secret, to see it refused.
    pub forged: bool,
}

/// A webhook ready to be posted.
#[derive(Debug, Clone)]
pub struct SignedWebhook {
    /// Headers in order. Their values are signatures and samples, no secrets, except under the `token` and
    /// `basic` schemes, which send the secret itself.
    pub headers: Vec<(HeaderName, String)>,
    /// Query parameters, not yet encoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl SignedWebhook {
    /// `url` with this webhook's query parameters.
    pub fn target(&self, url: &str) -> String {
        with_query(url, &self.query)
    }

    /// The call that posts it to this address.
    ///
    /// # Errors
    /// What of the address or of a header cannot be sent.
    pub fn outgoing(&self, to: &str) -> Result<Outgoing, Unsendable> {
        let target = self.target(to);
        let (url, query) = target.split_once('?').map_or((target.as_str(), None), |(url, query)| (url, Some(query)));
        let base = Base::parse(url, true).map_err(|error| Unsendable(format!("`{url}`: {error}")))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value);
            headers.append(name, value.map_err(|_| Unsendable(format!("the header `{name}` cannot hold its value")))?);
        }
        Ok(Outgoing {
            towards: Towards::Destination { id: Arc::from("trigger") },
            caller: None,
            method: Method::POST,
            origin: base.origin,
            path: base.path,
            query: query.map(str::to_owned),
            secret_query: None,
            headers,
            body: self.body.clone(),
            timeouts: Timeouts::default(),
            limit: BodyLimit { bytes: 64 << 10, excess: Excess::Cut },
        })
    }
}

/// What of a webhook cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsendable(String);

/// Why no webhook was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TriggerError {
    /// The definition has no webhook.
    #[error("`{0}` has no `webhook` in its definition, so it sends no events")]
    NoWebhook(String),
    /// There is no secret to sign with.
    #[error("`{0}` has no webhook secret that is still valid: every event would be refused")]
    NoSecret(String),
    /// There is no sample.
    #[error(transparent)]
    Draft(#[from] DraftError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A fresh delivery id cannot be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

impl Trigger<'_> {
    /// Makes the webhook. Each call makes one with a fresh delivery id, unless the body was given.
    ///
    /// # Errors
    /// When the definition has no webhook or secret, or no sample has the wanted type.
    pub fn make(&self, now: Timestamp, random: &dyn Random) -> Result<SignedWebhook, TriggerError> {
        let id = || self.integration.id.to_string();
        let webhook = self.integration.webhook.as_ref().ok_or_else(|| TriggerError::NoWebhook(id()))?;
        let valid = |expires: Option<Timestamp>| expires.is_none_or(|expires| expires > now);
        let secret = self.secrets.iter().find(|secret| valid(secret.expires_at));
        let secret = secret.ok_or_else(|| TriggerError::NoSecret(id()))?;
        let mut bytes = [0_u8; 10];
        random.fill(&mut bytes)?;
        let serial = hex(&bytes);
        let mut draft = draft::sample(self.integration, webhook, self.event_type, self.body.clone(), &serial)?;
        let signer = Signer { secret: secret.secret.expose(), url: self.url, now, forged: self.forged };
        signer.sign(&webhook.verify, &mut draft)?;
        let body = draft.bytes();
        Ok(SignedWebhook { headers: draft.headers, query: draft.query, body })
    }
}
