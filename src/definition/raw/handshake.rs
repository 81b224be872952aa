//! The `handshake` block: requests that are answered on the spot.

use schemars::JsonSchema;
use serde::Deserialize;

use super::auth::KeyEncoding;
use super::form::{Filled, Ordered, Short, ShortOr};
use super::scalar::{Expression, Method, Signed, Template, Tree};
use super::verify::{DigestAlgorithm, Encoding};

/// A request that is answered on the spot and not stored, such as a service's check of the address.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// Which requests. Default: all with this method.
    #[serde(rename = "if")]
    pub condition: Option<Expression>,
    /// The method it comes with. Default `POST`.
    pub method: Option<Method>,
    /// Whether the request must verify first. Default: a POST must, others need not.
    pub verify: Option<bool>,
    /// The answer. Values in it are at most 1 KiB of visible ASCII, so that a challenge cannot reflect a
    /// script.
    #[schemars(extend("x-sees" = "reply"))]
    pub reply: ShortOr<Reply>,
    /// A secret that the request brings and that is kept as the webhook's. Only while the endpoint is
    /// armed from the admin door, and once.
    pub secret: Option<Expression>,
    /// An address that is fetched to confirm a subscription.
    pub confirm: Option<Confirm>,
}

/// An address that is fetched to confirm a subscription.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The address.
    pub url: Expression,
    /// The hosts it may be at: a name, or `*.` and a name for all names below it.
    #[schemars(extend("x-hosts" = true))]
    pub hosts: Filled<String>,
}

/// An answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The status. Default 200.
    #[schemars(range(min = 200, max = 499))]
    pub status: Option<u16>,
    /// The content type of a text. Default `text/plain; charset=utf-8`. Never HTML.
    pub content_type: Option<String>,
    /// Headers.
    #[serde(default)]
    #[schemars(extend("x-headers" = true))]
    pub headers: Ordered<Template>,
    /// The body as text.
    pub text: Option<Template>,
    /// The body as JSON.
    pub json: Option<Tree>,
    /// A digest over the challenge, seen as `digest` by the other fields.
    pub digest: Option<ReplyDigest>,
}

impl Short for Reply {
    const SHORT: &'static str = "the answer's text, such as `{{ body.challenge }}`";
    const MARKS: &'static [(&'static str, &'static str)] = &[("x-template", "text")];

    fn from_short(text: String) -> Result<Self, String> {
        Ok(Self {
            status: None,
            content_type: None,
            headers: Ordered::default(),
            text: Some(Template(text)),
            json: None,
            digest: None,
        })
    }
}

/// A digest over a challenge.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplyDigest {
    /// The algorithm.
    pub algorithm: DigestAlgorithm,
    /// What it is made over.
    #[schemars(extend("x-sees" = "signed"))]
    pub over: Signed,
    /// Whether the webhook's first secret is its key (HMAC). Default: yes.
    pub keyed: Option<bool>,
    /// How the secret's text becomes key bytes. Default `utf8`.
    pub key_encoding: Option<KeyEncoding>,
    /// How it is written. Default `hex`.
    pub encoding: Option<Encoding>,
    /// A regular expression that the challenge must match, so that the door signs nothing else.
    #[schemars(extend("x-regex" = true))]
    pub challenge: Option<String>,
}
