//! The `auth` block, compiled.

use std::sync::Arc;

use super::place::{Fault, Place};
use super::{assertion, login, oauth2, signed};
use crate::definition::plan::Prompts;
use crate::definition::plan::auth::Auth;
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
        Some(Raw::Login(raw)) => Auth::Login(Arc::new(login::compile(raw, &place.at("login"))?)),
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
