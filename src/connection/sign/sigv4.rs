//! AWS Signature Version 4: the headers that sign a call.
//!
//! The body's SHA-256 is part of what is signed. Amazon S3 takes `UNSIGNED-PAYLOAD` instead over TLS, so
//! uploads there stream; for every other service the body must be there whole.

use std::fmt::Write as _;

use http::{HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;
use ring::{digest, hmac};

use super::pairs::{canonical, encode_bytes, sorted};
use super::{Body, Unsigned};
use crate::base::clock::Timestamp;
use crate::base::secret::Secret;
use crate::connection::Credential;
use crate::definition::plan::sigv4::SigV4;

/// The header with the moment of signing.
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
/// The header with the session's token.
const SESSION: HeaderName = HeaderName::from_static("x-amz-security-token");
/// The header with the body's digest.
const DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// What stands for the digest of a body that is not signed.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// What a signature is for.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The service, as in `s3`.
    pub service: &'a str,
    /// The region, as in `eu-central-1`.
    pub region: &'a str,
}

impl Scope<'_> {
    /// Whether this is a service that takes a body which is not signed, and whose paths are keys of
    /// objects: taken as they are.
    pub fn is_s3(&self) -> bool {
        matches!(self.service, "s3" | "s3-outposts" | "s3-object-lambda" | "s3express")
    }
}

/// Who signs.
#[derive(Debug, Clone, Copy)]
pub struct AccessKey<'a> {
    /// The key's id.
    pub id: &'a str,
    /// The key.
    pub secret: &'a Secret,
    /// The token of temporary credentials.
    pub session: Option<&'a Secret>,
}

/// The access key with which a connection signs: its own, else that of the definition; `None` where there is none.
pub fn signing<'a>(plan: &'a SigV4, own: &'a Credential) -> Option<AccessKey<'a>> {
    match (own, &plan.key) {
        (Credential::AccessKey { id, secret, session }, _) => {
            Some(AccessKey { id: id.expose(), secret, session: session.as_ref() })
        }
        (_, Some((id, secret))) => Some(AccessKey { id, secret, session: None }),
        _ => None,
    }
}

/// Why a call was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The body has to be signed, and it is still on its way.
    #[error("the body is part of the signature, so it must be read first")]
    Streamed,
    /// The service, the region or the key's id cannot stand in a header.
    #[error("the service, the region, the access key's id or the session token cannot stand in a header")]
    Scope,
}

/// The headers that sign a call: to be set in place of any of the same names. `call.headers` must not
/// change afterwards in `Content-Type`, `Content-MD5` and those that begin with `x-amz-`, which are signed.
///
/// # Errors
/// When the call cannot be signed.
pub fn headers(
    call: &Unsigned<'_>,
    scope: Scope<'_>,
    key: AccessKey<'_>,
    now: Timestamp,
) -> Result<Vec<(HeaderName, HeaderValue)>, SignError> {
    let allowed = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b',');
    if !allowed(scope.service) || !allowed(scope.region) || !allowed(key.id) {
        return Err(SignError::Scope);
    }
    let moment = moment(now);
    let payload = payload(call, scope)?;
    let mut added = vec![(DATE, plain(&moment)?), (DIGEST, plain(&payload)?)];
    if let Some(session) = key.session {
        let mut value = plain(session.expose())?;
        value.set_sensitive(true);
        added.push((SESSION, value));
    }
    let signed = signed_headers(call, &added);
    let names: Vec<_> = signed.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");
    let request = canonical_request(call, scope, (&signed, &names), &payload);
    let day = moment.get(..8).unwrap_or_default();
    let credential = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{moment}\n{credential}\n{}",
        hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref())
    );
    let signature = hex(mac(&signing_key(key.secret, day, scope), to_sign.as_bytes()).as_ref());
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={}/{credential}, SignedHeaders={names}, Signature={signature}", key.id);
    let mut authorization = plain(&authorization)?;
    authorization.set_sensitive(true);
    added.push((header::AUTHORIZATION, authorization));
    Ok(added)
}

fn plain(text: &str) -> Result<HeaderValue, SignError> {
    HeaderValue::from_str(text).map_err(|_| SignError::Scope)
}

/// `20150830T123600Z`.
fn moment(now: Timestamp) -> String {
    let text = now.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    let mut moment: String = seconds.chars().filter(char::is_ascii_alphanumeric).collect();
    moment.push('Z');
    moment
}

fn payload(call: &Unsigned<'_>, scope: Scope<'_>) -> Result<String, SignError> {
    match call.body {
        Body::Whole(body) => Ok(hex(digest::digest(&digest::SHA256, body).as_ref())),
        Body::Streamed if may_stream(scope, call.secure) => Ok(UNSIGNED.to_owned()),
        Body::Streamed => Err(SignError::Streamed),
    }
}

/// Whether a call of a scope can be signed before its body is there.
pub fn may_stream(scope: Scope<'_>, secure: bool) -> bool {
    scope.is_s3() && secure
}

/// Names in lower case and values, sorted by name.
fn signed_headers(call: &Unsigned<'_>, added: &[(HeaderName, HeaderValue)]) -> Vec<(HeaderName, String)> {
    let ours = |name: &HeaderName| added.iter().any(|(known, _)| known == name) || *name == header::AUTHORIZATION;
    let covered = |name: &HeaderName| {
        *name == header::CONTENT_TYPE || name.as_str() == "content-md5" || name.as_str().starts_with("x-amz-")
    };
    let mut signed: Vec<(HeaderName, String)> = vec![(header::HOST, call.authority.to_owned())];
    for name in call.headers.keys().filter(|name| covered(name) && !ours(name)) {
        let values: Vec<_> = call.headers.get_all(name).iter().map(squeezed).collect();
        signed.push((name.clone(), values.join(",")));
    }
    signed.extend(added.iter().map(|(name, value)| (name.clone(), squeezed(value))));
    signed.sort_unstable_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
    signed
}

/// A value without spaces around it, and single spaces in it.
fn squeezed(value: &HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn canonical_request(
    call: &Unsigned<'_>,
    scope: Scope<'_>,
    (signed, names): (&[(HeaderName, String)], &str),
    payload: &str,
) -> String {
    let mut request = format!("{}\n{}\n{}\n", call.method, path(call.path, scope), sorted(canonical(call.query)));
    for (name, value) in signed {
        _ = writeln!(request, "{name}:{value}");
    }
    _ = write!(request, "\n{names}\n{payload}");
    request
}

/// The path as it is signed: S3's are decoded and encoded by the rule; all others are encoded as they
/// stand, once more, after doubled slashes are made single.
fn path(path: &str, scope: Scope<'_>) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let segments = path.split('/');
    if scope.is_s3() {
        let again = |segment: &str| encode_bytes(&percent_decode_str(segment).collect::<Vec<u8>>());
        return segments.map(again).collect::<Vec<_>>().join("/");
    }
    let mut whole: String = segments
        .filter(|segment| !segment.is_empty())
        .flat_map(|s| ["/".to_owned(), encode_bytes(s.as_bytes())])
        .collect();
    if path.ends_with('/') {
        whole.push('/');
    }
    whole
}

/// The key that signs the calls of one day, region and service.
fn signing_key(secret: &Secret, day: &str, scope: Scope<'_>) -> hmac::Tag {
    let first = Secret::new(format!("AWS4{}", secret.expose()));
    let first = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, first.expose().as_bytes()), day.as_bytes());
    let of_region = mac(&first, scope.region.as_bytes());
    let of_service = mac(&of_region, scope.service.as_bytes());
    mac(&of_service, b"aws4_request")
}

fn mac(key: &hmac::Tag, message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()), message)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
