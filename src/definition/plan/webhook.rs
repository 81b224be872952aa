//! How a service's webhooks come in, compiled.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::NotYet;
use super::request::Request;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::base::units::Rate;
use crate::template::{Expr, Text, Tree};

/// How a service's webhooks come in.
#[derive(Debug)]
pub struct Webhook {
    /// What proves that a request comes from the service.
    pub verify: Verify,
    /// The secrets, any of which may match; empty means that every request is refused.
    pub secrets: Vec<WebhookSecret>,
    /// Requests that are answered and not stored, in order; the first whose `if` holds is taken.
    pub handshakes: Vec<Handshake>,
    /// The event's type; sees `body`, `headers`, `query`.
    pub event: Expr,
    /// The sender's id of this delivery; sees the same.
    pub delivery_id: Option<Expr>,
    /// The types the service is known to send: for people and for `trigger`, never a filter.
    pub events: Vec<String>,
    /// How long a second event with one delivery id counts as a duplicate. Default 72 h.
    pub dedupe_window: Duration,
    /// After how long without a webhook that is told. Default: as the gateway file says.
    pub silent_after: Option<Duration>,
    /// The most bytes a body may have. Default 1 MiB, at most 25 MiB.
    pub max_body: u64,
    /// The most verified requests for this integration. Default 1000/s.
    pub rate: Rate,
    /// The most requests from one source address that do not verify. Default 100/s.
    pub rate_per_source: Rate,
    /// Where they come in.
    pub address: Address,
    /// How the service is told to send a connection's events to its endpoint, in order; empty where it is not.
    pub register: Vec<Request>,
    /// How it is told to stop.
    pub unregister: Vec<Request>,
}

/// Where webhooks come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// At `/webhooks/ID`, and at those of managed endpoints.
    Plain,
    /// At those of managed endpoints only.
    Unguessable,
}

/// One secret of several, so that one can be replaced while the other still counts.
#[derive(Debug)]
pub struct WebhookSecret {
    /// What logs and the doctor call it: its place in the list where the file gives no id.
    pub id: Arc<str>,
    /// The secret as written; the scheme says how it becomes key bytes.
    pub secret: Secret,
    /// After this moment it no longer counts.
    pub expires_at: Option<Timestamp>,
}

/// What proves that a request comes from the service.
#[derive(Debug)]
pub enum Verify {
    /// A keyed digest over what was sent.
    Hmac(Hmac),
    /// A shared value in a header or query parameter.
    Token(TokenPlace),
    /// `Authorization: Basic` whose password is the secret.
    Basic {
        /// The name that must come with it.
        username: String,
    },
    /// By a kind that this version does not run: every request is refused with 501.
    NotYet(NotYet),
}

/// Where a shared value is found.
#[derive(Debug, Clone)]
pub enum TokenPlace {
    /// A header, after an optional fixed prefix such as `Bearer `.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands before the value.
        prefix: String,
    },
    /// A query parameter.
    Query(String),
}

/// A keyed digest over what was sent (RFC 2104).
#[derive(Debug)]
pub struct Hmac {
    /// The digest.
    pub algorithm: Digest,
    /// How a secret's text becomes key bytes.
    pub key: KeyForm,
    /// Where signatures are found: of several places any may match.
    pub signatures: Vec<SignaturePlace>,
    /// The time that is part of what is signed.
    pub timestamp: Option<TimestampRule>,
    /// What is signed, in order; streamed into the MAC, never put together.
    pub signed: Vec<SignedPart>,
}

/// A digest algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Digest {
    /// SHA-1: only because some services know nothing else; safe under HMAC.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// How a secret's text becomes key bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyForm {
    /// A prefix that is taken off first where it is there, such as `whsec_`.
    pub strip_prefix: Option<String>,
    /// How the rest is decoded.
    pub encoding: KeyEncoding,
}

/// How a secret's text is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyEncoding {
    /// Its UTF-8 bytes.
    #[default]
    Utf8,
    /// Hexadecimal.
    Hex,
    /// Base 64, padded or not.
    Base64,
    /// Base 64 with the URL alphabet, padded or not.
    Base64Url,
}

/// Where signatures are found, and how they are written.
#[derive(Debug, Clone)]
pub struct SignaturePlace {
    /// The header. Exactly one instance is accepted.
    pub header: HeaderName,
    /// How the header's value holds the signatures.
    pub form: SignatureForm,
    /// What stands before each signature.
    pub prefix: Option<Prefix>,
    /// How the digest is written.
    pub encoding: SignatureEncoding,
}

/// A fixed text before a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The text, such as `sha256=`.
    pub text: String,
    /// Whether a signature without it is taken as well.
    pub optional: bool,
}

/// How a header's value holds signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignatureForm {
    /// It is one.
    Single,
    /// It is a list; of at most ten items any may match.
    List {
        /// What stands between items: a space, a comma.
        separator: char,
    },
    /// It is a list of `name=value` pairs, as in `t=…,v1=…`; those with this name are signatures.
    Pairs {
        /// The name.
        name: String,
        /// What stands between pairs: a comma unless the definition says otherwise.
        separator: char,
    },
    /// It is a list in which the item at this place is one.
    Position {
        /// From zero.
        index: usize,
        /// What stands between items.
        separator: char,
    },
}

/// How a digest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Hexadecimal; upper case only where the definition allows it.
    Hex {
        /// Whether upper-case digits are accepted.
        upper: bool,
    },
    /// Base 64 with padding.
    Base64,
    /// Base 64 with the URL alphabet, canonical, padded or not.
    Base64Url,
}

/// The time that is part of what is signed.
#[derive(Debug, Clone)]
pub struct TimestampRule {
    /// Where it is.
    pub place: ValuePlace,
    /// How it is written.
    pub unit: TimeUnit,
    /// How far it may lie in the past.
    pub past: Duration,
    /// How far it may lie in the future.
    pub future: Duration,
}

/// Where a single value is found.
#[derive(Debug, Clone)]
pub enum ValuePlace {
    /// A header, as a whole or as the pair of this name or the item at this place.
    Header {
        /// The header.
        name: HeaderName,
        /// How its value holds it.
        form: SignatureForm,
    },
    /// An expression over `body`, `query` and `headers`.
    Expr(Expr),
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since the Unix epoch.
    EpochSeconds,
    /// Milliseconds since the Unix epoch.
    EpochMillis,
    /// RFC 3339.
    Rfc3339,
}

/// A part of what is signed.
#[derive(Debug, Clone)]
pub enum SignedPart {
    /// These bytes.
    Literal(Box<[u8]>),
    /// The body, byte for byte.
    Body,
    /// The timestamp exactly as it was sent.
    Timestamp,
    /// The request's method.
    Method,
    /// The URL as the service was told it: `public_url`, path and query.
    Url,
    /// A header's value exactly as it was sent; a missing one refuses the request.
    Header(HeaderName),
    /// The text of an expression over `body`, `query` and `headers`; a missing one refuses the request.
    Value(Expr),
}

/// A request that is answered on the spot and not stored.
#[derive(Debug)]
pub struct Handshake {
    /// Which requests; sees `body`, `headers`, `query`, `method`. Without it all with this method.
    pub condition: Option<Expr>,
    /// The method it comes with. Default POST.
    pub method: Method,
    /// Whether the request must verify first. Default: a POST must, a GET need not.
    pub verified: bool,
    /// The answer; sees the same.
    pub reply: Reply,
}

/// An answer to a handshake. Its values are at most 1 KiB of visible ASCII, so that a challenge cannot
/// be used to reflect a script.
#[derive(Debug)]
pub struct Reply {
    /// The status. Default 200.
    pub status: u16,
    /// The content type of a text; JSON has its own.
    pub content_type: String,
    /// Headers.
    pub headers: Vec<(HeaderName, Text)>,
    /// The body.
    pub body: ReplyBody,
}

/// The body of a reply.
#[derive(Debug)]
pub enum ReplyBody {
    /// None.
    Empty,
    /// Text.
    Text(Text),
    /// JSON.
    Json(Tree),
}
