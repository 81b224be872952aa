//! Whether what a connection signs is signed with the right key: calls by AWS Signature Version 4, and tokens of its
//! own. Called by `credential`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use super::received::Received;
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::base::signing_key::SigningKey;
use crate::connection::sign::sigv4::{self, AccessKey, Scope};
use crate::connection::sign::{Body, Unsigned};
use crate::definition::plan::assertion::Assertion;

const SCHEME: &str = "AWS4-HMAC-SHA256 ";

/// The parts of a credential scope: the key's id, day, region, service.
fn scope(received: &Received) -> Option<(&str, &str, &str)> {
    let value = received.header(&header::AUTHORIZATION)?.strip_prefix(SCHEME)?;
    let credential = value.split(", ").find_map(|part| part.strip_prefix("Credential="))?;
    match credential.split('/').collect::<Vec<_>>().as_slice() {
        [id, _day, region, service, "aws4_request"] => Some((id, region, service)),
        _ => None,
    }
}

/// The access key's id that a call names.
///
/// # Errors
/// What is missing, in words.
pub(super) fn access_key_id(received: &Received) -> Result<String, String> {
    let (id, ..) = scope(received).ok_or("the header `authorization` is no signature of AWS Signature Version 4")?;
    Ok(id.to_owned())
}

/// Whether a call is signed with this access key, which is written `ID:SECRET`.
pub(super) fn by_access_key(received: &Received, key: &Secret) -> bool {
    signed_again(received, key).is_some_and(|wanted| Some(wanted.as_str()) == received.header(&header::AUTHORIZATION))
}

/// What the `Authorization` of a call would be with this key.
fn signed_again(received: &Received, key: &Secret) -> Option<String> {
    let (_, region, service) = scope(received)?;
    let (id, secret) = key.expose().split_once(':')?;
    let (secure, authority, path) = received.reached()?;
    // Only what was signed: transports add headers of their own.
    let covered =
        received.header(&header::AUTHORIZATION)?.split(", ").find_map(|part| part.strip_prefix("SignedHeaders="))?;
    let mut headers = HeaderMap::new();
    for name in covered.split(';').filter(|name| *name != "host") {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        received.headers.get_all(&name).iter().for_each(|value| _ = headers.append(&name, value.clone()));
    }
    let call = Unsigned {
        method: &received.method,
        secure,
        authority: &authority,
        path: &path,
        query: &received.raw_query,
        headers: &headers,
        body: Body::Whole(&received.body),
    };
    let key = AccessKey { id, secret: &Secret::from(secret), session: None };
    let at = moment(received.header(&HeaderName::from_static("x-amz-date"))?)?;
    let signed = sigv4::headers(&call, Scope { service, region }, key, at).ok()?;
    let (_, value) = signed.into_iter().find(|(name, _)| *name == header::AUTHORIZATION)?;
    value.to_str().ok().map(str::to_owned)
}

/// The moment of `20150830T123600Z`.
fn moment(text: &str) -> Option<Timestamp> {
    let digits = |from: usize, to: usize| text.get(from..to);
    let (date, time) =
        ((digits(0, 4)?, digits(4, 6)?, digits(6, 8)?), (digits(9, 11)?, digits(11, 13)?, digits(13, 15)?));
    Timestamp::parse_rfc3339(&format!("{}-{}-{}T{}:{}:{}Z", date.0, date.1, date.2, time.0, time.1, time.2))
}

/// Whether a token (RFC 7519) is signed with this key, in the declared way.
pub(super) fn by_key(assertion: &Assertion, token: &str, key: &Secret) -> bool {
    let verified = || {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, _) = signed.split_once('.')?;
        let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        let key = SigningKey::read(assertion.algorithm, key, assertion.encoding).ok()?;
        let is_named = head.get("alg").and_then(Value::as_str) == Some(assertion.algorithm.name());
        Some(is_named && key.verifies(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?))
    };
    verified().unwrap_or(false)
}
