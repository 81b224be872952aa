//! A shared value in a header or query parameter. It proves less than a signature: it does not cover the
//! body, and whoever sees one request can make another.

use std::sync::Arc;

use super::key::same;
use super::{Failure, Verified, current, single};
use crate::base::clock::Timestamp;
use crate::definition::plan::webhook::{TokenPlace, WebhookSecret};
use crate::webhook::door::RequestHead;

/// Verifies a request by its head.
///
/// # Errors
/// The reason for which it must be refused.
pub fn verify(
    place: &TokenPlace,
    secrets: &[WebhookSecret],
    head: &RequestHead,
    now: Timestamp,
) -> Result<Verified, Failure> {
    let mut usable = current(secrets, now).filter(|(_, secret)| !secret.secret.expose().is_empty()).peekable();
    usable.peek().ok_or(Failure::NoSecret)?;
    let offered = offered(place, head)?;
    // Every secret is compared, so that the time does not tell which one matched.
    let matching: Vec<_> = usable.filter(|(_, secret)| same(secret.secret.expose().as_bytes(), &offered)).collect();
    let (first, secret) = matching.first().ok_or(Failure::Mismatch)?;
    Ok(Verified { secret: Arc::clone(&secret.id), first: *first, moment: None })
}

fn offered(place: &TokenPlace, head: &RequestHead) -> Result<Vec<u8>, Failure> {
    match place {
        TokenPlace::Header { name, prefix } => {
            let value = single(&head.headers, name)?.ok_or_else(|| Failure::HeaderMissing(name.clone()))?;
            let bare = value.strip_prefix(prefix.as_bytes());
            let malformed = || Failure::Malformed { header: name.clone(), expected: "the prefix of the definition" };
            bare.map(<[u8]>::to_vec).ok_or_else(malformed)
        }
        TokenPlace::Query(name) => {
            let mut values = url::form_urlencoded::parse(head.query.as_bytes()).filter(|(known, _)| known == name);
            match (values.next(), values.next()) {
                (Some((_, value)), None) => Ok(value.into_owned().into_bytes()),
                _ => Err(Failure::QueryParameter(name.clone())),
            }
        }
    }
}
