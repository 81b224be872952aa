//! The `webhook` block: how a service's webhooks come in.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{OneOrMany, Short, ShortOr};
use super::handshake::{Handshake, Reply};
use super::request::Request;
use super::scalar::{Cidr, DurationText, Expression, Id, MomentText, RateText, SecretText, SizeText};
use super::verify::Verify;
use crate::base::secret::Secret;

/// How a service's webhooks come in. A request is bounded, verified over its raw bytes, identified,
/// stored, and only then acknowledged.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-sees" = "webhook"))]
pub struct Webhook {
    /// What proves that a request comes from the service.
    pub verify: Verify,
    /// The secrets, several while rotating: any may match. Without one every request is refused.
    #[serde(default)]
    pub secrets: OneOrMany<ShortOr<WebhookSecret>>,
    /// What must hold besides, such as `headers['x-version'] == '1'`. A request for which it does not
    /// is refused like a wrong signature.
    pub require: Option<Expression>,
    /// Requests that are answered on the spot and not stored, in order: the first whose `if` holds is
    /// taken.
    #[serde(default)]
    pub handshake: Vec<Handshake>,
    /// The event's type, which rules' `when` matches.
    pub event: Expression,
    /// The sender's id of this delivery: a second one inside `dedupe_window` is acknowledged and not
    /// processed again. Without it every delivery counts.
    pub delivery_id: Option<Expression>,
    /// When it happened at the service.
    pub occurred_at: Option<Expression>,
    /// The list inside a body that holds several events. Each becomes an event of its own, and is what
    /// `event`, `delivery_id`, `occurred_at` and rules then see as `body`.
    pub batch: Option<Expression>,
    /// The types the service sends: for people, for completion and for `trunkline trigger`. Never a
    /// filter.
    #[serde(default)]
    pub events: Vec<String>,
    /// How long a second delivery with one `delivery_id` counts as a duplicate. Default 72h, at most
    /// 30d.
    pub dedupe_window: Option<DurationText>,
    /// After how long without a verified webhook, where one came before, the gateway tells so by an event of its own
    /// (`trunkline.webhook.silent`); `0s` is never. Default: as `notifications.silent_after` of the gateway file says.
    pub silent_after: Option<DurationText>,
    /// The largest body that is taken. Default 1MiB, at most 25MiB.
    pub max_body: Option<SizeText>,
    /// The most verified requests for this integration; more are refused with 429. What does not verify
    /// counts against its source alone, so that a flood of it takes nothing from the good. Default 1000/s.
    pub rate: Option<RateText>,
    /// The most requests from one address that do not verify; more are refused with 429 and not kept in the list of
    /// refused ones. What verifies is never counted here, so that good requests which share a proxy's address
    /// with bad ones get in. Default 100/s.
    pub rate_per_source: Option<RateText>,
    /// The networks the service sends from. Default: any.
    #[serde(default)]
    pub sources: Vec<Cidr>,
    /// Where webhooks come in. Default `plain`.
    pub address: Option<Address>,
    /// What an accepted webhook is answered, for services that want more than a 2xx status.
    #[schemars(extend("x-sees" = "reply"))]
    pub acknowledge: Option<ShortOr<Reply>>,
    /// How the service is told to send a connection's events to its endpoint. What its answer says is kept by `save`:
    /// `id` is what the service calls the subscription, `secret` the secret it signs with, where it makes that
    /// itself.
    #[schemars(extend("x-sees" = "subscription"))]
    pub register: Option<OneOrMany<ShortOr<Request>>>,
    /// How it is told to stop. That it does not know the subscription any more (404, 410) is a success.
    #[schemars(extend("x-sees" = "subscription"))]
    pub unregister: Option<OneOrMany<ShortOr<Request>>>,
}

/// Where webhooks come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Address {
    /// `/webhooks/ID`.
    Plain,
    /// `/webhooks/ID/TOKEN` only, with a token that cannot be guessed.
    Unguessable,
}

/// One secret of several, so that one can be replaced while the other still counts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSecret {
    /// What logs and the doctor call it. Default: its place in the list, from 1.
    pub id: Option<Id>,
    /// The secret.
    pub secret: SecretText,
    /// The moment after which it no longer counts, as RFC 3339: `2026-01-31T10:00:00Z`.
    pub expires_at: Option<MomentText>,
}

impl Short for WebhookSecret {
    const SHORT: &'static str = "a secret by reference: ${env:NAME} or ${file:PATH}";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-secret", "yes")];

    fn from_short(text: String) -> Result<Self, String> {
        Ok(Self { id: None, secret: SecretText(Secret::new(text)), expires_at: None })
    }
}
