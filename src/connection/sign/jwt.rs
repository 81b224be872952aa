//! JSON Web Tokens signed here (RFC 7515, RFC 7519): for each call, as `private_key_jwt`, or to be
//! exchanged for another token (RFC 7523).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value as Json};

use crate::base::clock::Timestamp;
use crate::base::random::{Random, RandomUnavailable};
use crate::base::secret::Secret;
use crate::base::signing_key::{KeyFault, SigningKey, Unsigned};
use crate::definition::plan::assertion::Assertion;
use crate::template::{Context, TemplateError};

/// A token before it is signed.
#[derive(Debug)]
pub struct Claims<'a> {
    /// The `kid` header.
    pub key_id: Option<&'a str>,
    /// What it claims. `iat`, `exp` and `jti` are added; one that is null is left out.
    pub claims: Map<String, Json>,
    /// How long it lives; what is less than a second is cut off.
    pub ttl: Duration,
}

/// Why no token was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The definition has no key, and the connection brought none.
    #[error("there is no key to sign with: the definition has none, and the connection brings none")]
    NoKey,
    /// What the connection brought is no key.
    #[error(transparent)]
    Key(#[from] KeyFault),
    /// The key id or a claim could not be made.
    #[error("`{field}`: {reason}")]
    Template {
        /// The field, such as `claims.sub`.
        field: String,
        /// Why not.
        reason: TemplateError,
    },
    /// The key did not sign.
    #[error(transparent)]
    Unsigned(#[from] Unsigned),
    /// There is no randomness for `jti`.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
}

/// Signs a token in the compact form of RFC 7515. `jti` is 128 random bits, so that no two are equal.
///
/// # Errors
/// [`SignError::Unsigned`] and [`SignError::Random`].
pub fn sign(key: &SigningKey, unsigned: Claims<'_>, now: Timestamp, random: &dyn Random) -> Result<Secret, SignError> {
    let mut claims = unsigned.claims;
    claims.entry("iat").or_insert_with(|| now.seconds().into());
    claims.entry("exp").or_insert_with(|| (now.seconds() + unsigned.ttl.as_secs()).into());
    if !claims.contains_key("jti") {
        let mut bytes = [0_u8; 16];
        random.fill(&mut bytes)?;
        claims.insert("jti".to_owned(), URL_SAFE_NO_PAD.encode(bytes).into());
    }
    claims.retain(|_, value| !value.is_null());
    let mut header = Map::new();
    header.insert("alg".to_owned(), key.algorithm().name().into());
    header.insert("typ".to_owned(), "JWT".into());
    if let Some(id) = unsigned.key_id.or_else(|| key.id()) {
        header.insert("kid".to_owned(), id.into());
    }
    compact(key, &Json::Object(header).to_string(), &Json::Object(claims).to_string())
}

/// The compact form of a header and a payload, both as they stand (RFC 7515, section 3.1).
fn compact(key: &SigningKey, header: &str, payload: &str) -> Result<Secret, SignError> {
    let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(Secret::new(token))
}

/// Signs what a definition declares. `context` is what its place sees; `own` is the key that the
/// connection brings, which is used where the definition has none.
///
/// # Errors
/// When there is no key, or a claim cannot be made.
pub fn assertion(
    assertion: &Assertion,
    own: Option<&Secret>,
    context: &Context,
    (now, random): (Timestamp, &dyn Random),
) -> Result<Secret, SignError> {
    let read;
    let key = match (&assertion.key, own) {
        (Some(key), _) => &**key,
        (None, Some(text)) => {
            read = SigningKey::read(assertion.algorithm, text, assertion.encoding)?;
            &read
        }
        (None, None) => return Err(SignError::NoKey),
    };
    let fault = |field: String| move |reason| SignError::Template { field, reason };
    let key_id = assertion.key_id.as_ref().map(|id| id.render(context).map_err(fault("key_id".to_owned())));
    let key_id = key_id.transpose()?;
    let mut claims = Map::new();
    for (name, tree) in &assertion.claims {
        let value = tree.render(context).map_err(fault(format!("claims.{name}")))?;
        claims.insert(name.clone(), value);
    }
    sign(key, Claims { key_id: key_id.as_deref(), claims, ttl: assertion.ttl }, now, random)
}

#[cfg(test)]
mod tests;
