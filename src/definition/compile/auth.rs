//! The `auth` block, compiled.

use std::sync::Arc;

use super::place::{Fault, Place};
use super::{assertion, oauth2, signed};
use crate::definition::plan::auth::Auth;
use crate::definition::plan::{NotYet, Prompts};
use crate::definition::raw::auth as raw;

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
        Some(Raw::OAuth1(raw)) => Auth::OAuth1(Arc::new(signed::oauth1(raw, &place.at("oauth1"))?)),
        Some(Raw::Jwt(raw)) => Auth::Jwt(Arc::new(assertion::compile(raw, &place.at("jwt"))?)),
        Some(Raw::SigV4(raw)) => Auth::SigV4(Arc::new(signed::sigv4(raw, &place.at("sigv4"))?)),
        Some(Raw::Mtls(_)) => Auth::Mtls,
        Some(other) => Auth::NotYet(NotYet { part: format!("auth.{}", kind(other)) }),
    })
}

/// What people are asked for.
pub(super) fn prompts(raw: Option<&raw::Auth>) -> Prompts {
    let usual = Prompts::default();
    match raw {
        Some(raw::Auth::ApiKey(key)) => {
            Prompts { key: key.title.clone().unwrap_or(usual.key), help: key.help.clone(), ..Prompts::default() }
        }
        Some(raw::Auth::Basic(basic)) => Prompts {
            username: basic.username_title.clone().unwrap_or(usual.username),
            password: basic.password_title.clone().unwrap_or(usual.password),
            help: basic.help.clone(),
            ..Prompts::default()
        },
        _ => usual,
    }
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

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use serde_json::json;

    #[test]
    fn kinds_of_sign_in_to_come_are_named() {
        let integration = compiled(json!({
            "trunkline": 1, "id": "a", "auth": { "login": { "steps": "POST https://a.b/login", "tokens": { "default": { "access": "body.t" } } } },
        }));
        let auth = integration.expect("compiles").auth;
        assert!(matches!(auth, Auth::NotYet(not_yet) if not_yet.part == "auth.login"));
    }
}
