//! A keyed digest over what was sent (RFC 2104).
//!
//! The parts of what is signed are streamed into the MAC from where they are; nothing is put together or
//! re-serialised. Of several secrets and several signatures any pair may match.

use std::sync::Arc;

use ::hmac::{Hmac as MacOf, KeyInit, Mac};
use http::HeaderMap;

use super::key::Key;
use super::signature::candidates;
use super::{Failure, Request, Verified, current, single, timestamp};
use crate::base::clock::Timestamp;
use crate::definition::plan::webhook::{Digest, Hmac, SignaturePlace, SignedPart, WebhookSecret};

/// Verifies a whole request.
///
/// # Errors
/// The reason for which it must be refused.
pub fn verify(scheme: &Hmac, secrets: &[WebhookSecret], request: &Request<'_>) -> Result<Verified, Failure> {
    let keys = keys(scheme, secrets, request.now)?;
    let offered = offered(scheme, &request.head.headers)?;
    let stamp = scheme.timestamp.as_ref().map(|rule| timestamp::text(rule, request)).transpose()?;
    let parts = parts(scheme, stamp.as_deref(), request)?;
    let compare = Comparison { keys: &keys, parts: &parts, offered: &offered };
    let (key, signature) = match scheme.algorithm {
        Digest::Sha1 => compare.run::<MacOf<sha1::Sha1>>(),
        Digest::Sha256 => compare.run::<MacOf<sha2::Sha256>>(),
        Digest::Sha384 => compare.run::<MacOf<sha2::Sha384>>(),
        Digest::Sha512 => compare.run::<MacOf<sha2::Sha512>>(),
    }
    .ok_or(Failure::Mismatch)?;
    let moment = stamp.is_some().then(|| signature.to_vec());
    Ok(Verified { secret: Arc::clone(&key.id), first: key.first, moment })
}

/// Finds out from the head whether there is a signature to verify and a key to do it with.
///
/// # Errors
/// The reason for which the request must be refused.
pub fn precheck(scheme: &Hmac, secrets: &[WebhookSecret], headers: &HeaderMap, now: Timestamp) -> Result<(), Failure> {
    keys(scheme, secrets, now)?;
    offered(scheme, headers).map(drop)
}

struct UsableKey {
    id: Arc<str>,
    first: bool,
    key: Key,
}

fn keys(scheme: &Hmac, secrets: &[WebhookSecret], now: Timestamp) -> Result<Vec<UsableKey>, Failure> {
    let usable = |(first, secret): (bool, &WebhookSecret)| {
        let key = Key::of(&scheme.key, &secret.secret)?;
        Some(UsableKey { id: Arc::clone(&secret.id), first, key })
    };
    let keys: Vec<UsableKey> = current(secrets, now).filter_map(usable).collect();
    if keys.is_empty() { Err(Failure::NoSecret) } else { Ok(keys) }
}

const fn length(algorithm: Digest) -> usize {
    match algorithm {
        Digest::Sha1 => 20,
        Digest::Sha256 => 32,
        Digest::Sha384 => 48,
        Digest::Sha512 => 64,
    }
}

/// The well-formed signatures of all places.
fn offered(scheme: &Hmac, headers: &HeaderMap) -> Result<Vec<Vec<u8>>, Failure> {
    let mut offered = Vec::new();
    let mut present: Option<&SignaturePlace> = None;
    for place in &scheme.signatures {
        if let Some(value) = single(headers, &place.header)? {
            present = Some(place);
            let found = candidates(place, value, length(scheme.algorithm));
            offered.extend(found.ok_or_else(|| malformed(place))?);
        }
    }
    match (present, scheme.signatures.first()) {
        (Some(place), _) if offered.is_empty() => Err(malformed(place)),
        (Some(_), _) => Ok(offered),
        (None, Some(place)) => Err(Failure::HeaderMissing(place.header.clone())),
        (None, None) => Err(Failure::Mismatch),
    }
}

fn malformed(place: &SignaturePlace) -> Failure {
    Failure::Malformed {
        header: place.header.clone(),
        expected: "a signature in the form that the definition says (prefix, encoding, length)",
    }
}

/// A part of what is signed, where it lies.
enum Part<'a> {
    Lent(&'a [u8]),
    Made(String),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Made(text) => text.as_bytes(),
        }
    }
}

fn parts<'a>(scheme: &'a Hmac, stamp: Option<&'a [u8]>, request: &Request<'a>) -> Result<Vec<Part<'a>>, Failure> {
    let mut parts = Vec::with_capacity(scheme.signed.len() + 1);
    for part in &scheme.signed {
        let part = match part {
            SignedPart::Literal(bytes) => Part::Lent(bytes),
            SignedPart::Body => Part::Lent(request.body),
            SignedPart::Timestamp => Part::Lent(stamp.ok_or(Failure::TimestampUnreadable)?),
            SignedPart::Method => Part::Lent(request.head.method.as_str().as_bytes()),
            SignedPart::Url => {
                let base = request.public_url.as_str().split(['?', '#']).next().unwrap_or_default();
                parts.push(Part::Lent(base.trim_end_matches('/').as_bytes()));
                Part::Lent(request.head.target.as_bytes())
            }
            SignedPart::Header(name) => {
                let value = single(&request.head.headers, name)?;
                Part::Lent(value.ok_or_else(|| Failure::PartMissing(name.to_string()))?)
            }
            SignedPart::Value(expr) => match expr.text(request.context) {
                Ok(Some(text)) => Part::Made(text),
                Ok(None) | Err(_) => return Err(Failure::PartMissing(expr.source().trim().to_owned())),
            },
        };
        parts.push(part);
    }
    Ok(parts)
}

struct Comparison<'a> {
    keys: &'a [UsableKey],
    parts: &'a [Part<'a>],
    offered: &'a [Vec<u8>],
}

impl<'a> Comparison<'a> {
    /// The first key and signature that belong together.
    fn run<M: Mac + KeyInit + Clone>(&self) -> Option<(&'a UsableKey, &'a [u8])> {
        self.keys.iter().find_map(|key| {
            // HMAC takes keys of any length, so the constructor has nothing to refuse.
            let mut mac = <M as KeyInit>::new_from_slice(key.key.bytes()).ok()?;
            self.parts.iter().for_each(|part| mac.update(part.bytes()));
            let matching = self.offered.iter().find(|signature| mac.clone().verify_slice(signature).is_ok());
            matching.map(|signature| (key, signature.as_slice()))
        })
    }
}
