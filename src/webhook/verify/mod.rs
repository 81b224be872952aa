//! What proves that a request comes from the service.
//!
//! One scheme a file: [`hmac`] over what was sent, a shared [`token`], [`basic`] authentication. All see
//! the raw bytes and compare in constant time. Nothing here stores, answers or counts; a refusal is a
//! [`Failure`] that says why without telling a secret. Called by `receive`.

pub mod basic;
pub mod hmac;
pub mod key;
pub mod signature;
pub mod timestamp;
pub mod token;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use url::Url;

use crate::base::clock::Timestamp;
use crate::definition::plan::NotYet;
use crate::definition::plan::webhook::{Verify, WebhookSecret};
use crate::respond::Refusal;
use crate::template::Context;
use crate::webhook::door::RequestHead;

/// What is verified.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The head.
    pub head: &'a RequestHead,
    /// The body, byte for byte.
    pub body: &'a Bytes,
    /// Where the service was told to find the public door.
    pub public_url: &'a Url,
    /// What expressions see: `body`, `headers`, `query`.
    pub context: &'a Context,
    /// Now.
    pub now: Timestamp,
}

/// What a verified request was verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The id of the secret that matched.
    pub secret: Arc<str>,
    /// Whether that secret is the first of the list: another one is on its way out, or in.
    pub first: bool,
    /// The signature that matched, where a signed time makes it good for one moment only.
    pub moment: Option<Vec<u8>>,
}

/// Why a request was not verified. The texts go to the sender and to the doctor: they quote names,
/// never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The scheme is declared and not run.
    #[error("{0}")]
    NotYet(NotYet),
    /// There is nothing to verify with.
    #[error("no secret is set, or each has expired or is not in the form that the definition says")]
    NoSecret,
    /// A header is not there.
    #[error("the header `{0}` is missing")]
    HeaderMissing(HeaderName),
    /// A header is there more than once.
    #[error("the header `{0}` was sent more than once")]
    HeaderRepeated(HeaderName),
    /// A query parameter is not there, or more than once.
    #[error("the query parameter `{0}` is missing or was sent more than once")]
    QueryParameter(String),
    /// A header does not hold what it should.
    #[error("the header `{header}` does not hold {expected}")]
    Malformed {
        /// The header.
        header: HeaderName,
        /// What it should hold.
        expected: &'static str,
    },
    /// The signed time is not there or not a time.
    #[error("the signed timestamp is missing or is not written as the definition says")]
    TimestampUnreadable,
    /// The signed time is outside the tolerance.
    #[error("the signed timestamp lies {} s in the {}", seconds(*skew_ms), if *skew_ms < 0 { "past" } else { "future" })]
    Stale {
        /// How far it is ahead of the gateway's clock, in milliseconds; negative when it is behind.
        skew_ms: i64,
    },
    /// A part of what is signed is not there.
    #[error("`{0}` is signed and the request does not have it")]
    PartMissing(String),
    /// Nothing matched.
    #[error("the signature or shared value does not match")]
    Mismatch,
}

fn seconds(skew_ms: i64) -> u64 {
    skew_ms.unsigned_abs() / 1_000
}

impl Failure {
    /// The reason as a stable word, for the doctor.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotYet(_) => "not_yet_run",
            Self::NoSecret => "secret_missing",
            Self::HeaderMissing(_) => "header_missing",
            Self::HeaderRepeated(_) => "header_repeated",
            Self::QueryParameter(_) => "query_parameter",
            Self::Malformed { .. } => "malformed",
            Self::TimestampUnreadable => "timestamp_unreadable",
            Self::Stale { .. } => "timestamp_stale",
            Self::PartMissing(_) => "part_missing",
            Self::Mismatch => "mismatch",
        }
    }

    /// What the sender is answered.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::NotYet(_) => Refusal::NotYetRun,
            Self::NoSecret => Refusal::SecretMissing,
            Self::Stale { .. } => Refusal::SignatureStale,
            _ => Refusal::SignatureInvalid,
        }
    }
}

/// Verifies a whole request by a scheme with these secrets.
///
/// # Errors
/// The reason for which it must be refused. Without a usable secret every request is.
pub fn verify(scheme: &Verify, secrets: &[WebhookSecret], request: &Request<'_>) -> Result<Verified, Failure> {
    match scheme {
        Verify::Hmac(scheme) => hmac::verify(scheme, secrets, request),
        Verify::Token(place) => token::verify(place, secrets, request.head, request.now),
        Verify::Basic { username } => basic::verify(username, secrets, &request.head.headers, request.now),
        Verify::NotYet(part) => Err(Failure::NotYet(part.clone())),
    }
}

/// Finds out from the head alone whether a request cannot be verified: what no body can mend.
///
/// # Errors
/// The reason for which it must be refused.
pub fn precheck(scheme: &Verify, secrets: &[WebhookSecret], head: &RequestHead, now: Timestamp) -> Result<(), Failure> {
    match scheme {
        Verify::Hmac(scheme) => hmac::precheck(scheme, secrets, &head.headers, now),
        Verify::Token(place) => token::verify(place, secrets, head, now).map(drop),
        Verify::Basic { username } => basic::verify(username, secrets, &head.headers, now).map(drop),
        Verify::NotYet(part) => Err(Failure::NotYet(part.clone())),
    }
}

/// The ids of the secrets that count now.
pub fn current_ids(secrets: &[WebhookSecret], now: Timestamp) -> Vec<Arc<str>> {
    current(secrets, now).map(|(_, secret)| Arc::clone(&secret.id)).collect()
}

/// The secrets that count now, each with whether it is the first.
fn current(secrets: &[WebhookSecret], now: Timestamp) -> impl Iterator<Item = (bool, &WebhookSecret)> {
    let counts = move |secret: &WebhookSecret| secret.expires_at.is_none_or(|end| now < end);
    secrets.iter().enumerate().filter(move |(_, secret)| counts(secret)).map(|(place, secret)| (place == 0, secret))
}

/// The one value of a header; none when it is not there.
///
/// # Errors
/// [`Failure::HeaderRepeated`]: of two values, another reader might take the other one.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        Some(_) => Err(Failure::HeaderRepeated(name.clone())),
        None => Ok(first.map(http::HeaderValue::as_bytes)),
    }
}
