//! What token calls are made for, and the standard parameters that follow from it.

use serde_json::{Map, Value as Json};

use super::registration::Need;
use super::scene::{Main, Scene, misconfigured};
use super::token_params::Params;
use super::{Stage, TokenCalls};
use crate::connection::grant::{Issued, TokenError};
use crate::definition::plan::oauth2::{self, DEFAULT_TOKEN};

/// What a token call is made for, and what is at hand for it.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A person consented: their code becomes tokens (RFC 6749 §4.1.3).
    Code {
        /// The code.
        code: &'a str,
        /// The callback's address, as the person was sent with it.
        redirect_uri: &'a str,
        /// The PKCE verifier, unless PKCE is off.
        verifier: Option<&'a str>,
        /// The callback's query by name, of which the definition keeps values.
        callback: &'a Map<String, Json>,
    },
    /// A token is renewed (RFC 6749 §6).
    Refresh {
        /// Its name.
        name: &'a str,
        /// The token as it is held.
        held: &'a Issued,
    },
    /// The application acts for itself (RFC 6749 §4.4).
    ClientCredentials,
    /// A person consents on another device (RFC 8628 §3.4): one poll.
    Device {
        /// The device code.
        device_code: &'a str,
    },
    /// A signed assertion is exchanged (RFC 7523).
    JwtBearer,
    /// A token is exchanged for another (RFC 8693).
    Exchange,
}

impl Purpose<'_> {
    /// The purpose of a grant that needs no person.
    pub const fn of_grant(grant: oauth2::Grant) -> Option<Self> {
        match grant {
            oauth2::Grant::AuthorizationCode | oauth2::Grant::DeviceCode => None,
            oauth2::Grant::ClientCredentials => Some(Self::ClientCredentials),
            oauth2::Grant::JwtBearer => Some(Self::JwtBearer),
            oauth2::Grant::TokenExchange => Some(Self::Exchange),
        }
    }

    /// Whether the application may register itself for it. A token, a code and a device code belong to the
    /// application that they were given to.
    pub(super) const fn need(&self) -> Need {
        match self {
            Self::Code { .. } | Self::Refresh { .. } | Self::Device { .. } => Need::Known,
            Self::ClientCredentials | Self::JwtBearer | Self::Exchange => Need::MayRegister,
        }
    }

    /// The name of the token that is wanted.
    pub(super) const fn token(&self) -> &str {
        if let Self::Refresh { name, .. } = self { name } else { DEFAULT_TOKEN }
    }

    /// The token that is renewed.
    pub(super) const fn held(&self) -> Option<&Issued> {
        if let Self::Refresh { held, .. } = self { Some(held) } else { None }
    }

    pub(super) fn stage(&self) -> Stage {
        if matches!(self, Self::Refresh { .. }) { Stage::Refresh } else { Stage::Token }
    }
}

/// The standard parameters of a purpose; what templates see of it is shown.
pub(super) fn params(calls: &TokenCalls, scene: &mut Scene<'_>, purpose: &Purpose<'_>) -> Result<Params, TokenError> {
    let mut params = Params::default();
    match *purpose {
        Purpose::Code { code, redirect_uri, verifier, callback } => {
            params.add("grant_type", "authorization_code");
            params.add("code", code);
            params.add("redirect_uri", redirect_uri);
            params.add_some("code_verifier", verifier);
            scene.show_secret("code", code);
            scene.show("redirect_uri", redirect_uri);
            if let Some(verifier) = verifier {
                scene.show_secret("code_verifier", verifier);
            }
            // Some token calls want the state again.
            if let Some(state) = callback.get("state").and_then(Json::as_str) {
                scene.show("state", state);
            }
            keep_of_callback(scene, callback)?;
        }
        Purpose::Refresh { name, held } => {
            params.add("grant_type", "refresh_token");
            params.add_some("refresh_token", held.refresh.as_ref().map(|refresh| refresh.expose().as_str()));
            scene.show_token(name, held, Main::Yes);
        }
        Purpose::ClientCredentials => {
            params.add("grant_type", "client_credentials");
            params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
        }
        Purpose::Device { device_code } => {
            params.add("grant_type", "urn:ietf:params:oauth:grant-type:device_code");
            params.add("device_code", device_code);
            scene.show_secret("code", device_code);
        }
        Purpose::JwtBearer => {
            let assertion = calls.assertion(scene)?;
            params.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
            params.add("assertion", assertion.expose().as_str());
            params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
            scene.show_secret("assertion", assertion.expose());
        }
        Purpose::Exchange => exchange(scene, &mut params)?,
    }
    params.add_all("resource", resources(scene)?);
    Ok(params)
}

/// The values that the definition keeps of a callback's query.
fn keep_of_callback(scene: &mut Scene<'_>, callback: &Map<String, Json>) -> Result<(), TokenError> {
    scene.show("query", callback.clone());
    let context = scene.context();
    let mut kept = Map::new();
    for (name, expr) in &scene.oauth2.callback.save {
        let value = expr.json(&context);
        let value = value.map_err(|error| misconfigured(format!("`callback.save.{name}`: {error}")))?;
        if !value.is_null() {
            kept.insert(name.clone(), value);
        }
    }
    scene.keep(kept);
    Ok(())
}

fn exchange(scene: &mut Scene<'_>, params: &mut Params) -> Result<(), TokenError> {
    let Some(exchange) = &scene.oauth2.exchange else {
        return Err(misconfigured("`grant: token_exchange` needs `exchange`"));
    };
    let context = scene.context();
    let render = |text: &crate::template::Text, field: &str| {
        text.render(&context).map_err(|error| misconfigured(format!("`exchange.{field}`: {error}")))
    };
    params.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
    let subject = render(&exchange.subject_token, "subject_token")?;
    scene.secrets.add(&subject);
    params.add("subject_token", subject);
    params.add("subject_token_type", exchange.subject_token_type.as_str());
    if let Some((token, kind)) = &exchange.actor {
        let actor = render(token, "actor_token")?;
        scene.secrets.add(&actor);
        params.add("actor_token", actor);
        params.add("actor_token_type", kind.as_str());
    }
    params.add_some("requested_token_type", exchange.requested_token_type.as_deref());
    let audience = exchange.audience.iter().map(|text| render(text, "audience"));
    params.add_all("audience", audience.collect::<Result<_, _>>()?);
    params.add_some("scope", scene.scope_text(DEFAULT_TOKEN));
    Ok(())
}

/// The resources the token is for (RFC 8707).
pub(super) fn resources(scene: &Scene<'_>) -> Result<Vec<String>, TokenError> {
    let context = scene.context();
    let resources = scene
        .oauth2
        .resource
        .iter()
        .map(|text| text.render(&context).map_err(|error| misconfigured(format!("`resource`: {error}"))));
    resources.collect()
}
