//! OAuth 1.0a (RFC 5849): the `Authorization` header of a call.
//!
//! Parameters of the query and of a form body are part of what is signed, so a form body must be there
//! whole; other bodies are not signed (section 3.4.1.3.1) and may stream.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use ring::hmac;

use super::pairs::{canonical, encode, sorted};
use super::{Body, Unsigned};
use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::base::signing_key::Unsigned as KeyFailed;
use crate::definition::plan::oauth1::Signature;

/// Who signs.
#[derive(Debug, Clone, Copy)]
pub struct Signatory<'a> {
    /// How.
    pub method: &'a Signature,
    /// The application's key.
    pub consumer: &'a str,
    /// The application's secret; empty where there is none.
    pub secret: &'a Secret,
    /// The token and its secret, once there is one.
    pub token: Option<(&'a Secret, Option<&'a Secret>)>,
    /// The `realm` of the header, which is not signed.
    pub realm: Option<&'a str>,
}

/// Why a call was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The form in the body has to be signed, and it is still on its way.
    #[error("the fields of a form are part of the signature, so the body must be read first")]
    Streamed,
    /// There is no private key.
    #[error("there is no private key to sign with: `auth.oauth1.client` has no `secret`")]
    NoKey,
    /// The secrets would go over the wire unprotected.
    #[error("PLAINTEXT signatures are the secrets themselves: they go over TLS only")]
    Unprotected,
    /// A realm that no header can carry.
    #[error("the realm has characters that no header can carry")]
    Realm,
    /// The key did not sign.
    #[error(transparent)]
    Key(#[from] KeyFailed),
    /// There is no randomness for a nonce.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// The `Authorization` header of a call. `more` are protocol parameters besides the usual ones, such as
/// `oauth_callback`; they are part of the header and signed. The value is marked sensitive.
///
/// # Errors
/// When the call cannot be signed this way.
pub fn authorization(
    call: &Unsigned<'_>,
    signatory: Signatory<'_>,
    more: &[(&str, &str)],
    (now, random): (Timestamp, &dyn Random),
) -> Result<HeaderValue, SignError> {
    let mut nonce = [0_u8; 16];
    random.fill(&mut nonce)?;
    let (nonce, timestamp) = (URL_SAFE_NO_PAD.encode(nonce), now.seconds().to_string());
    let mut params = vec![
        ("oauth_consumer_key", signatory.consumer),
        ("oauth_nonce", &*nonce),
        ("oauth_signature_method", signatory.method.name()),
        ("oauth_timestamp", &*timestamp),
        ("oauth_version", "1.0"),
    ];
    if let Some((token, _)) = signatory.token {
        params.push(("oauth_token", token.expose()));
    }
    params.extend_from_slice(more);
    let signature = signature(call, signatory, &params)?;
    params.push(("oauth_signature", signature.expose()));
    header_of(signatory.realm, &params)
}

fn header_of(realm: Option<&str>, params: &[(&str, &str)]) -> Result<HeaderValue, SignError> {
    let mut text = String::from("OAuth ");
    if let Some(realm) = realm {
        if realm.contains(['"', '\\']) {
            return Err(SignError::Realm);
        }
        _ = write!(text, "realm=\"{realm}\", ");
    }
    let written: Vec<_> =
        params.iter().map(|(name, value)| format!("{}=\"{}\"", encode(name), encode(value))).collect();
    text.push_str(&written.join(", "));
    let text = Secret::new(text);
    let mut value = HeaderValue::from_str(text.expose()).map_err(|_| SignError::Realm)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The signature over a call and the protocol parameters (section 3.4), `realm` and `oauth_signature` left
/// out. Who checks a call compares it with the one that came, in constant time.
///
/// # Errors
/// When the call cannot be signed this way.
pub fn signature(call: &Unsigned<'_>, signatory: Signatory<'_>, params: &[(&str, &str)]) -> Result<Secret, SignError> {
    let token_secret = signatory.token.and_then(|(_, secret)| secret).map_or("", |secret| secret.expose());
    let key = Secret::new(format!("{}&{}", encode(signatory.secret.expose()), encode(token_secret)));
    let mac = |algorithm| -> Result<Secret, SignError> {
        let key = hmac::Key::new(algorithm, key.expose().as_bytes());
        Ok(Secret::new(STANDARD.encode(hmac::sign(&key, base_string(call, params)?.as_bytes()))))
    };
    match signatory.method {
        Signature::HmacSha1 => mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        Signature::HmacSha256 => mac(hmac::HMAC_SHA256),
        Signature::Plaintext if call.secure => Ok(key),
        Signature::Plaintext => Err(SignError::Unprotected),
        Signature::RsaSha1(None) => Err(SignError::NoKey),
        Signature::RsaSha1(Some(private)) => {
            let signed = private.sign(base_string(call, params)?.as_bytes())?;
            Ok(Secret::new(STANDARD.encode(signed)))
        }
    }
}

/// What is signed (section 3.4.1).
fn base_string(call: &Unsigned<'_>, params: &[(&str, &str)]) -> Result<String, SignError> {
    let mut all = canonical(call.query);
    all.extend(params.iter().map(|(name, value)| (encode(name).into_owned(), encode(value).into_owned())));
    if is_form(call.headers) {
        let Body::Whole(body) = call.body else { return Err(SignError::Streamed) };
        all.extend(canonical(&String::from_utf8_lossy(body)));
    }
    let scheme = if call.secure { "https" } else { "http" };
    let path = if call.path.is_empty() { "/" } else { call.path };
    let place = format!("{scheme}://{}{path}", call.authority.to_ascii_lowercase());
    Ok(format!("{}&{}&{}", call.method, encode(&place), encode(&sorted(all))))
}

/// Whether the body's fields are part of what is signed (section 3.4.1.3.1).
pub fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

#[cfg(test)]
mod tests;
