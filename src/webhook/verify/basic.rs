//! `Authorization: Basic` (RFC 7617) whose password is the secret.

use std::sync::Arc;

use base64::alphabet::STANDARD;
use http::{HeaderMap, header};

use super::key::{base64, same};
use super::{Failure, Verified, current, single};
use crate::base::clock::Timestamp;
use crate::definition::plan::webhook::WebhookSecret;

/// Verifies a request by its head.
///
/// # Errors
/// The reason for which it must be refused.
pub fn verify(
    username: &str,
    secrets: &[WebhookSecret],
    headers: &HeaderMap,
    now: Timestamp,
) -> Result<Verified, Failure> {
    let mut usable = current(secrets, now).filter(|(_, secret)| !secret.secret.expose().is_empty()).peekable();
    usable.peek().ok_or(Failure::NoSecret)?;
    let value = single(headers, &header::AUTHORIZATION)?;
    let value = value.ok_or(Failure::HeaderMissing(header::AUTHORIZATION))?;
    let pair = pair(value).ok_or(Failure::Malformed {
        header: header::AUTHORIZATION,
        expected: "`Basic` and a name and password in base 64",
    })?;
    let colon = pair.iter().position(|byte| *byte == b':').unwrap_or(pair.len());
    let (name, password) = (&pair[..colon], pair.get(colon + 1..).unwrap_or_default());
    let named = same(username.as_bytes(), name);
    // Every secret is compared whatever the name, so that the time tells neither.
    let matching: Vec<_> = usable.filter(|(_, secret)| same(secret.secret.expose().as_bytes(), password)).collect();
    match matching.first() {
        Some((first, secret)) if named => Ok(Verified { secret: Arc::clone(&secret.id), first: *first, moment: None }),
        _ => Err(Failure::Mismatch),
    }
}

fn pair(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = value.split_at_checked(6)?;
    let pair = base64(rest.trim_ascii(), &STANDARD).filter(|pair| pair.contains(&b':'))?;
    scheme.eq_ignore_ascii_case(b"basic ").then_some(pair)
}
