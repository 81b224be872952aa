//! The `auth.login` block, compiled.

use std::time::Duration;

use super::oauth2::{moment, token_map};
use super::place::{Fault, Place};
use super::request;
use crate::definition::plan::login::Login;
use crate::definition::plan::oauth2::{DEFAULT_TOKEN, ParamsIn, TokenCall, TokenMap};
use crate::definition::plan::request::{CredentialUse, Request as PlannedRequest};
use crate::definition::plan::sigv4::{KEY_SECRET, KEY_SESSION};
use crate::definition::raw::auth as raw;
use crate::definition::raw::form::ShortOr;
use crate::definition::raw::request::Request;

/// How long a temporary access key lives when nobody says: the shortest that AWS STS gives.
const KEY_LIFE: Duration = Duration::from_mins(15);

pub(super) fn compile(raw: &raw::Login, place: &Place<'_>) -> Result<Login, Fault> {
    let at = place.at("tokens");
    let map = |(name, map): (&str, _)| Ok((name.to_owned(), token_map(map, &at.at(name))?));
    let tokens = raw.tokens.iter().map(map).collect::<Result<Vec<_>, Fault>>()?;
    let last = raw.steps.0.len().saturating_sub(1);
    let ttl = raw.default_ttl.map(|ttl| ttl.0);
    let steps = raw.steps.0.iter().enumerate().map(|(index, raw_step)| {
        let mut step = step(raw_step, &one_of(place.at("steps"), raw.steps.0.len(), index))?;
        if index == last {
            (step.tokens, step.default_ttl) = (tokens.clone(), ttl);
        }
        Ok(step)
    });
    let refresh = raw.refresh.as_ref().map(|refresh| step(refresh, &place.at("refresh"))).transpose()?;
    let refresh = refresh.map(|call| TokenCall { tokens: tokens.clone(), default_ttl: ttl, ..call });
    let raw_logout = raw.logout.as_ref().map(|logout| logout.0.as_slice()).unwrap_or_default();
    let logout = raw_logout
        .iter()
        .enumerate()
        .map(|(index, raw_step)| Ok(step(raw_step, &one_of(place.at("logout"), raw_logout.len(), index))?.request));
    let (steps, logout) = (steps.collect::<Result<_, Fault>>()?, logout.collect::<Result<_, Fault>>()?);
    Ok(Login { steps, refresh, logout })
}

/// The one call that is answered with a temporary access key.
pub(super) fn one_call(raw: &raw::KeySession, place: &Place<'_>) -> Result<Login, Fault> {
    let at = place.at("access_key");
    let map = &raw.access_key;
    let token = |access| TokenMap { access, refresh: None, expires_in: None, expires: None, scope: None };
    let mut id = token(at.at("id").expression(&map.id)?);
    id.expires_in = at.optional("expires_in", map.expires_in.as_ref())?;
    id.expires = map.expires.as_ref().map(|raw| moment(raw, &at.at("expires"))).transpose()?;
    let secret = token(at.at("secret").expression(&map.secret)?);
    let session = at.optional("session", map.session.as_ref())?.map(token);
    let named = |name: &str, map| (name.to_owned(), map);
    let mut tokens = vec![named(DEFAULT_TOKEN, id), named(KEY_SECRET, secret)];
    tokens.extend(session.map(|map| named(KEY_SESSION, map)));
    let ttl = raw.default_ttl.map_or(KEY_LIFE, |ttl| ttl.0);
    let call = TokenCall { tokens, default_ttl: Some(ttl), ..unasked(request::compile(raw.shape(), place)?) };
    Ok(Login { steps: vec![call], refresh: None, logout: Vec::new() })
}

/// The place of one request of several: one alone may be written without a list.
fn one_of(all: Place<'_>, count: usize, index: usize) -> Place<'_> {
    if count == 1 && !all.is_list() { all } else { all.item(index) }
}

/// A step as a call that has no parameters but its own.
fn step(raw: &ShortOr<Request>, place: &Place<'_>) -> Result<TokenCall, Fault> {
    let mut request = request::compile(raw.0.shape(), place)?;
    if raw.0.shape().credential.is_none() {
        request.credential = CredentialUse::None;
    }
    Ok(unasked(request))
}

/// A request as a call that has no parameters but its own and brings no token.
fn unasked(request: PlannedRequest) -> TokenCall {
    TokenCall {
        request,
        params_in: ParamsIn::Nowhere,
        rename: Vec::new(),
        omit: Vec::new(),
        tokens: Vec::new(),
        mapped: true,
        permanent: None,
        default_ttl: None,
    }
}
