//! Connections that a file declares, compiled.

use serde_json::{Map, Value};

use super::place::{Fault, Place};
use crate::base::secret::Secret;
use crate::definition::plan::api::Api;
use crate::definition::plan::{DeclaredConnection, DeclaredCredential};
use crate::definition::problem::Code;
use crate::definition::raw::auth::Auth;
use crate::definition::raw::connection::Connection;
use crate::definition::raw::integration::Integration;
use crate::definition::raw::scalar::SecretText;

pub(super) fn compile(
    raw: &Connection,
    (whole, api): (&Integration, Option<&Api>),
    place: &Place<'_>,
) -> Result<DeclaredConnection, Fault> {
    let credential = credential(raw, whole.auth.as_ref(), place)?;
    sendable(&credential, (whole.auth.as_ref(), api), place)?;
    let mut inputs = Map::new();
    for (name, input) in super::all_inputs(whole) {
        match raw.inputs.get(name).or(input.default.as_ref()) {
            Some(value) => _ = inputs.insert(name.to_owned(), Value::String(value.clone())),
            None if input.optional => {}
            None => {
                let message = format!("connection `{}` does not tell `{name}`", raw.id.0);
                return Err(place.problem(Code::MissingField, message));
            }
        }
    }
    let saved = raw.saved.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    Ok(DeclaredConnection { id: raw.id.0.as_str().into(), credential, inputs, saved })
}

fn credential(raw: &Connection, auth: Option<&Auth>, place: &Place<'_>) -> Result<DeclaredCredential, Fault> {
    let missing = |field: &str, kind: &str| {
        let message = format!("connection `{}` has no `{field}`, which `auth: {kind}` needs", raw.id.0);
        place.problem(Code::MissingField, message)
    };
    let key = |kind| raw.api_key.as_ref().map(copy).ok_or_else(|| missing("api_key", kind));
    Ok(match auth {
        Some(Auth::ApiKey(_)) => DeclaredCredential::ApiKey(key("api_key")?),
        Some(Auth::Jwt(assertion)) if assertion.key.is_none() => DeclaredCredential::ApiKey(key("jwt")?),
        Some(Auth::Basic(_)) => {
            let username = raw.username.clone().ok_or_else(|| missing("username", "basic"))?;
            let password = raw.password.as_ref().map_or_else(|| Secret::from(""), copy);
            DeclaredCredential::Basic { username: Secret::new(username), password }
        }
        Some(Auth::SigV4(sigv4)) if !sigv4.wants_key() => DeclaredCredential::None,
        Some(Auth::SigV4(_)) => {
            let id = raw.username.clone().ok_or_else(|| missing("username", "sigv4"))?;
            let secret = raw.password.as_ref().map(copy).ok_or_else(|| missing("password", "sigv4"))?;
            DeclaredCredential::AccessKey { id: Secret::new(id), secret, session: raw.token.as_ref().map(copy) }
        }
        Some(Auth::OAuth1(_) | Auth::OAuth2(_) | Auth::Login(_)) => match &raw.token {
            Some(token) => {
                DeclaredCredential::Token { token: copy(token), secret: raw.token_secret.as_ref().map(copy) }
            }
            None => DeclaredCredential::None,
        },
        Some(Auth::Jwt(_) | Auth::Mtls(_) | Auth::None(_)) | None => DeclaredCredential::None,
    })
}

/// Whether a credential can stand in calls at all: one that cannot would make each of them fail.
fn sendable(
    credential: &DeclaredCredential,
    (auth, api): (Option<&Auth>, Option<&Api>),
    place: &Place<'_>,
) -> Result<(), Fault> {
    let (field, secret) = match (credential, auth) {
        (DeclaredCredential::ApiKey(key), Some(Auth::ApiKey(_))) => ("api_key", key),
        (DeclaredCredential::Token { token, .. }, Some(Auth::OAuth2(_) | Auth::Login(_))) => ("token", token),
        _ => return Ok(()),
    };
    if api.is_none_or(|api| api.credential.carries(secret.expose())) {
        return Ok(());
    }
    let message = "this has characters that no header can carry, such as an accented letter or a line break";
    Err(place.at(field).problem(Code::BadFormat, message))
}

fn copy(text: &SecretText) -> Secret {
    Secret::from(text.0.expose().as_str())
}
