//! The `auth` block, compiled.

use std::sync::Arc;
use std::time::Duration;

use super::oauth2;
use super::place::{Fault, Place};
use crate::base::secret::Secret;
use crate::definition::plan::auth::{Assertion, Auth, JwtAlgorithm, KeyEncoding};
use crate::definition::plan::{NotYet, auth};
use crate::definition::raw::auth as raw;

/// How long a signed token lives unless the definition says otherwise (RFC 7523 wants minutes).
const ASSERTION_TTL: Duration = Duration::from_mins(5);

pub(super) fn compile(raw: Option<&raw::Auth>, place: &Place<'_>) -> Result<Auth, Fault> {
    use raw::Auth as Raw;
    Ok(match raw {
        None | Some(Raw::None(_)) => Auth::None,
        Some(Raw::Basic(_)) => Auth::Basic,
        Some(Raw::ApiKey(key)) => {
            let at = place.at("api_key").at("pattern");
            Auth::ApiKey { pattern: key.pattern.as_ref().map(|pattern| at.regex(pattern)).transpose()? }
        }
        Some(Raw::OAuth2(raw)) => Auth::OAuth2(Arc::new(oauth2::compile(raw, &place.at("oauth2"))?)),
        Some(other) => Auth::NotYet(NotYet { part: format!("auth.{}", kind(other)) }),
    })
}

/// The word by which a file names a kind of sign-in.
fn kind(auth: &raw::Auth) -> &'static str {
    use raw::Auth as Raw;
    match auth {
        Raw::OAuth2(_) => "oauth2",
        Raw::ApiKey(_) => "api_key",
        Raw::Basic(_) => "basic",
        Raw::OAuth1(_) => "oauth1",
        Raw::Jwt(_) => "jwt",
        Raw::SigV4(_) => "sigv4",
        Raw::Mtls(_) => "mtls",
        Raw::Login(_) => "login",
        Raw::None(_) => "none",
    }
}

pub(super) fn assertion(raw: &raw::Assertion, place: &Place<'_>) -> Result<Assertion, Fault> {
    Ok(Assertion {
        algorithm: algorithm(raw.algorithm),
        key: raw.key.as_ref().map(|key| Secret::new(key.0.expose().clone())),
        key_encoding: raw.key_encoding.map_or(KeyEncoding::default(), encoding),
        key_id: raw.key_id.as_ref().map(|id| place.at("key_id").text(id)).transpose()?,
        claims: place.at("claims").trees(&raw.claims)?,
        ttl: raw.ttl.map_or(ASSERTION_TTL, |ttl| ttl.0),
    })
}

fn algorithm(raw: raw::JwtAlgorithm) -> auth::JwtAlgorithm {
    use raw::JwtAlgorithm as Raw;
    match raw {
        Raw::HS256 => JwtAlgorithm::HS256,
        Raw::HS384 => JwtAlgorithm::HS384,
        Raw::HS512 => JwtAlgorithm::HS512,
        Raw::RS256 => JwtAlgorithm::RS256,
        Raw::RS384 => JwtAlgorithm::RS384,
        Raw::RS512 => JwtAlgorithm::RS512,
        Raw::PS256 => JwtAlgorithm::PS256,
        Raw::PS384 => JwtAlgorithm::PS384,
        Raw::PS512 => JwtAlgorithm::PS512,
        Raw::ES256 => JwtAlgorithm::ES256,
        Raw::ES384 => JwtAlgorithm::ES384,
        Raw::EdDSA => JwtAlgorithm::EdDSA,
    }
}

fn encoding(raw: raw::KeyEncoding) -> KeyEncoding {
    use raw::KeyEncoding as Raw;
    match raw {
        Raw::Utf8 => KeyEncoding::Utf8,
        Raw::Hex => KeyEncoding::Hex,
        Raw::Base64 => KeyEncoding::Base64,
        Raw::Base64url => KeyEncoding::Base64Url,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_of_sign_in_to_come_are_named() {
        let integration = compiled(json!({
            "trunkline": 1, "id": "a", "auth": { "sigv4": { "service": "s3", "region": "eu" } },
        }));
        let auth = integration.expect("compiles").auth;
        assert!(matches!(auth, Auth::NotYet(not_yet) if not_yet.part == "auth.sigv4"));
    }
}
