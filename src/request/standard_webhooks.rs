//! Signatures by the Standard Webhooks specification (symmetric, `v1`), both sides of them.
//!
//! Called by `action` to sign what goes to destinations, and by whoever checks such a message.

use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;

/// The header with the message's id, the same at every attempt.
pub const ID: HeaderName = HeaderName::from_static("webhook-id");
/// The header with the attempt's time in seconds.
pub const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// The header with the signatures, separated by spaces.
pub const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Base 64, padded or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The most signatures of a message that are compared.
const MOST: usize = 10;

/// Why a message was not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// There is no secret to sign with.
    #[error("there is no signing secret")]
    NoSecret,
    /// A secret is not one of this scheme.
    #[error("a signing secret is not `whsec_` and at least 16 bytes in base 64")]
    Secret,
    /// The id has a character that it must not have.
    #[error("the message's id has a dot or a character that no header can carry")]
    Id,
}

/// Why a message is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header is missing, repeated or not readable.
    #[error("`webhook-id`, `webhook-timestamp` or `webhook-signature` is missing or not readable")]
    Headers,
    /// The message is too old or too new.
    #[error("the timestamp is outside the tolerance")]
    Stale,
    /// No signature fits.
    #[error("no signature fits")]
    Signature,
    /// A secret is not one of this scheme.
    #[error("a secret is not `whsec_` and at least 16 bytes in base 64")]
    Secret,
}

/// The key bytes of a secret: base 64 after an optional `whsec_`. `None` when it is not, or has fewer
/// than 16 bytes.
pub fn key_of(secret: &Secret) -> Option<Secret<Vec<u8>>> {
    let text = secret.expose();
    let encoded = text.strip_prefix("whsec_").unwrap_or(text);
    let key = Secret::new(BASE64.decode(encoded).ok()?);
    (key.expose().len() >= 16).then_some(key)
}

/// The three headers of a message: one signature for each secret, so that a receiver may hold any one
/// of them. `id` stays the same when the message is sent again; it has no dot.
///
/// # Errors
/// When a secret or the id is not of the right form.
pub fn sign(secrets: &[Secret], id: &str, now: Timestamp, body: &[u8]) -> Result<HeaderMap, SignError> {
    if secrets.is_empty() {
        return Err(SignError::NoSecret);
    }
    if id.is_empty() || id.contains('.') {
        return Err(SignError::Id);
    }
    let timestamp = now.seconds().to_string();
    let mut signatures = String::new();
    for secret in secrets {
        let mac = mac(secret, [id, &timestamp], body).ok_or(SignError::Secret)?;
        signatures.push_str(if signatures.is_empty() { "v1," } else { " v1," });
        BASE64.encode_string(mac.finalize().into_bytes(), &mut signatures);
    }
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| SignError::Id);
    let mut headers = HeaderMap::with_capacity(3);
    headers.insert(ID, value(id)?);
    headers.insert(TIMESTAMP, value(&timestamp)?);
    headers.insert(SIGNATURE, value(&signatures)?);
    Ok(headers)
}

/// Whether a message was signed with one of `secrets` at most `tolerance` before or after `now`. In
/// constant time with regard to the signature.
///
/// # Errors
/// Why not.
pub fn verify(
    secrets: &[Secret],
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), VerifyError> {
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    };
    let (id, timestamp, signatures) =
        one(&ID).zip(one(&TIMESTAMP)).zip(one(&SIGNATURE)).map(|((a, b), c)| (a, b, c)).ok_or(VerifyError::Headers)?;
    let sent = timestamp.parse().map(Timestamp::from_seconds).map_err(|_| VerifyError::Headers)?;
    if sent.since(now) > tolerance || now.since(sent) > tolerance {
        return Err(VerifyError::Stale);
    }
    let candidates: Vec<Vec<u8>> = signatures
        .split(' ')
        .take(MOST)
        .filter_map(|signature| BASE64.decode(signature.strip_prefix("v1,")?).ok())
        .collect();
    let mut fits = false;
    for secret in secrets {
        let mac = mac(secret, [id, timestamp], body).ok_or(VerifyError::Secret)?;
        for candidate in &candidates {
            fits |= mac.clone().verify_slice(candidate).is_ok();
        }
    }
    if fits { Ok(()) } else { Err(VerifyError::Signature) }
}

fn mac(secret: &Secret, [id, timestamp]: [&str; 2], body: &[u8]) -> Option<Hmac<Sha256>> {
    let key = key_of(secret)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose()).ok()?;
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    const TOLERANCE: Duration = Duration::from_mins(5);

    fn vectors() -> Vec<Value> {
        serde_json::from_str(include_str!("../../tests/vectors/standard_webhooks.json")).expect("JSON")
    }

    fn verdict(vector: &Value) -> Result<(), VerifyError> {
        let mut headers = HeaderMap::new();
        for (name, value) in vector["request"]["headers"].as_object().expect("headers") {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.insert(name, HeaderValue::from_str(value.as_str().expect("text")).expect("a value"));
        }
        let body = STANDARD.decode(vector["request"]["body_base64"].as_str().expect("a body")).expect("base 64");
        let secret = Secret::from(vector["secret"]["value"].as_str().expect("a secret"));
        let now = Timestamp::from_seconds(vector["now"].as_u64().expect("a time"));
        verify(&[secret], &headers, &body, now, TOLERANCE)
    }

    #[test]
    fn every_published_vector_gets_its_verdict() {
        let vectors = vectors();
        assert!(vectors.len() >= 10);
        for vector in vectors {
            let expected = vector["expected"].as_bool().expect("a verdict");
            assert_eq!(verdict(&vector).is_ok(), expected, "{}", vector["id"]);
        }
    }

    #[test]
    fn the_published_message_is_signed_as_published() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let headers = sign(
            &[secret.into()],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            Timestamp::from_seconds(1_614_265_330),
            br#"{"test": 2432232314}"#,
        );
        let signature = headers.expect("signed")[SIGNATURE].clone();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs_and_any_one_of_them_verifies() {
        let secrets = || ["whsec_AAAAAAAAAAAAAAAAAAAAAAAA", "whsec_BBBBBBBBBBBBBBBBBBBBBBBB"].map(Secret::from);
        let now = Timestamp::from_seconds(1_700_000_000);
        let headers = sign(&secrets(), "msg_1", now, b"body").expect("signed");
        for secret in secrets() {
            assert_eq!(verify(&[secret], &headers, b"body", now, TOLERANCE), Ok(()));
        }
        assert_eq!(verify(&secrets(), &headers, b"Body", now, TOLERANCE), Err(VerifyError::Signature));
        let late = now.after(Duration::from_secs(301));
        assert_eq!(verify(&secrets(), &headers, b"body", late, TOLERANCE), Err(VerifyError::Stale));
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        let sign = |secrets: &[&str], id| {
            let secrets: Vec<_> = secrets.iter().map(|secret| Secret::from(*secret)).collect();
            sign(&secrets, id, Timestamp::default(), b"").err()
        };
        assert_eq!(sign(&[], "a"), Some(SignError::NoSecret));
        for short in ["", "whsec_", "whsec_AAAA", "not base 64 at all"] {
            assert_eq!(sign(&[short], "a"), Some(SignError::Secret), "{short}");
        }
        for id in ["", "a.b", "a\nb"] {
            assert_eq!(sign(&["whsec_AAAAAAAAAAAAAAAAAAAAAAAA"], id), Some(SignError::Id), "{id:?}");
        }
    }
}
