//! The `auth.oauth2` block, compiled.

use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::address::read_address;
use super::assertion::compile as assertion;
use super::place::{Fault, Place};
use super::{each, listed, request};
use crate::base::secret::Secret;
use crate::definition::plan::moment::{Moment, MomentUnit};
use crate::definition::plan::oauth2::{
    Authorize, Callback, Client, ClientAuth, DEFAULT_TOKEN, Discover, Exchange, Grant, Identity, OAuth2, ParamsIn,
    Pkce, RefreshPolicy, Registration, Scope, TOKEN_TIMEOUT, TokenCall, TokenMap,
};
use crate::definition::plan::request::{Body, CredentialUse, Request};
use crate::definition::problem::Code;
use crate::definition::raw::form::{OneOrMany, Ordered, ShortOr};
use crate::definition::raw::limits::Moment as RawMoment;
use crate::definition::raw::oauth2 as raw;
use crate::definition::raw::request::{Identity as RawIdentity, Request as RawRequest};
use crate::definition::raw::scalar::{Expression, TimeUnit};
use crate::template::Expr;

pub(super) fn compile(raw: &raw::OAuth2, place: &Place<'_>) -> Result<OAuth2, Fault> {
    let separator = raw.authorize.as_ref().and_then(|authorize| authorize.0.scope_separator.clone());
    let resource = raw.resource.iter().enumerate();
    let at_resource = place.at("resource");
    let token = token_calls(raw.token.as_ref(), &place.at("token"))?.unwrap_or_default();
    let mut refresh = token_calls(raw.refresh.as_ref(), &place.at("refresh"))?;
    if let Some(last) = refresh.as_mut().and_then(|calls| ttl(calls).is_none().then(|| calls.last_mut()).flatten()) {
        last.default_ttl = ttl(&token);
    }
    Ok(OAuth2 {
        grant: grant(raw.grant),
        issuer: raw.issuer.as_ref().map(|issuer| place.at("issuer").text(issuer)).transpose()?,
        authorize: raw.authorize.as_ref().map(|raw| authorize(&raw.0, &place.at("authorize"))).transpose()?,
        push: raw.push.as_ref().map(|raw| before_tokens(&raw.0, &place.at("push"))).transpose()?,
        scope_separator: separator.unwrap_or_else(|| " ".to_owned()),
        token,
        refresh,
        refresh_tokens: match raw.refresh_tokens {
            None | Some(raw::RefreshPolicy::Keep) => RefreshPolicy::Keep,
            Some(raw::RefreshPolicy::Rotate) => RefreshPolicy::Rotate,
            Some(raw::RefreshPolicy::Extend) => RefreshPolicy::Extend,
        },
        revoke: revocations(raw.revoke.as_ref(), &place.at("revoke"))?,
        revoke_replaced: raw.revoke_replaced,
        introspect: raw.introspect.as_ref().map(|raw| introspect(&raw.0, &place.at("introspect"))).transpose()?,
        device: raw.device.as_ref().map(|raw| before_tokens(&raw.0, &place.at("device"))).transpose()?,
        assertion: raw.assertion.as_ref().map(|raw| assertion(raw, &place.at("assertion"))).transpose()?,
        exchange: raw.exchange.as_ref().map(|raw| exchange(raw, &place.at("exchange"))).transpose()?,
        client_auth: client_auth(raw.client_auth),
        client: raw.client.as_ref().map(|raw| client(raw, &place.at("client"))).transpose()?,
        scopes: raw.scopes.iter().map(scope).collect(),
        pkce: match &raw.pkce {
            None => Pkce::S256,
            Some(raw::Pkce::Off(reason)) => Pkce::Off(reason.clone()),
        },
        resource: resource.map(|(index, text)| at_resource.item(index).text(text)).collect::<Result<_, _>>()?,
        registration: raw
            .registration
            .as_ref()
            .map(|raw| registration(&raw.0, &place.at("registration")))
            .transpose()?,
        callback: callback(raw.callback.as_ref(), &place.at("callback"))?,
        identity: raw.identity.as_ref().map(|raw| identity(raw, &place.at("identity"))).transpose()?,
        discover: each(&raw.discover, &place.at("discover"), discover)?,
    })
}

fn grant(raw: Option<raw::Grant>) -> Grant {
    match raw {
        None | Some(raw::Grant::AuthorizationCode) => Grant::AuthorizationCode,
        Some(raw::Grant::ClientCredentials) => Grant::ClientCredentials,
        Some(raw::Grant::DeviceCode) => Grant::DeviceCode,
        Some(raw::Grant::JwtBearer) => Grant::JwtBearer,
        Some(raw::Grant::TokenExchange) => Grant::TokenExchange,
    }
}

fn client_auth(raw: Option<raw::ClientAuth>) -> ClientAuth {
    match raw {
        None | Some(raw::ClientAuth::Form) => ClientAuth::Form,
        Some(raw::ClientAuth::Basic) => ClientAuth::Basic,
        Some(raw::ClientAuth::BasicRaw) => ClientAuth::BasicRaw,
        Some(raw::ClientAuth::None) => ClientAuth::None,
        Some(raw::ClientAuth::PrivateKeyJwt) => ClientAuth::PrivateKeyJwt,
    }
}

fn client(raw: &raw::Client, place: &Place<'_>) -> Result<Client, Fault> {
    let at = place.at("certificate");
    let certificate = raw.certificate.as_ref().map(super::identity).transpose();
    let certificate = certificate.map_err(|(field, words)| at.at(field).problem(Code::BadFormat, words))?;
    let secret = raw.secret.as_ref().map(|secret| Secret::new(secret.0.expose().clone()));
    Ok(Client { id: raw.id.clone(), secret, certificate: certificate.flatten().map(Arc::new) })
}

fn scope(raw: &raw::Scope) -> Scope {
    Scope {
        name: raw.name.clone(),
        grants: raw.grants.clone(),
        default: raw.default,
        token: raw.token.clone().unwrap_or_else(|| DEFAULT_TOKEN.to_owned()),
        includes: raw.includes.clone(),
    }
}

fn authorize(raw: &raw::Authorize, place: &Place<'_>) -> Result<Authorize, Fault> {
    let line = if place.document().value.pointer(place.pointer()).is_some_and(serde_json::Value::is_string) {
        place.clone()
    } else {
        place.at("url")
    };
    let url = line.text(&raw.url)?;
    if url.segments().is_none() {
        return Err(line.problem(Code::BadTemplate, "an address takes `{{ … }}` slots only, no `{% … %}` blocks"));
    }
    let at = place.at("params");
    let params = raw.params.iter().map(|(name, value)| {
        let tree = at.at(name).tree_of(&serde_json::Value::String(value.0.clone()))?;
        Ok((name.to_owned(), tree))
    });
    Ok(Authorize {
        url,
        params: params.collect::<Result<_, Fault>>()?,
        raw_scope: raw.raw_scope,
        rename: pairs(&raw.rename),
        omit: raw.omit.clone(),
        fragment: raw.fragment.clone(),
    })
}

fn pairs(raw: &Ordered<String>) -> Vec<(String, String)> {
    raw.iter().map(|(from, to)| (from.to_owned(), to.clone())).collect()
}

fn token_calls(
    raw: Option<&OneOrMany<ShortOr<raw::TokenCall>>>,
    place: &Place<'_>,
) -> Result<Option<Vec<TokenCall>>, Fault> {
    raw.map(|list| listed(list, place, |call, at| token_call(&call.0, at))).transpose()
}

/// How long tokens of these calls live when no answer says: as the last one says that has it.
fn ttl(calls: &[TokenCall]) -> Option<Duration> {
    calls.iter().rev().find_map(|call| call.default_ttl)
}

fn token_call(raw: &raw::TokenCall, place: &Place<'_>) -> Result<TokenCall, Fault> {
    let mut request = request::compile(raw.shape(), place)?;
    // A token call proves itself by `client_auth`; a token goes with it only where that is written.
    if raw.credential.is_none() {
        request.credential = CredentialUse::None;
    }
    request.timeout.get_or_insert(TOKEN_TIMEOUT);
    let at = place.at("tokens");
    let tokens = match &raw.tokens {
        Some(maps) => maps
            .iter()
            .map(|(name, map)| Ok((name.to_owned(), token_map(map, &at.at(name))?)))
            .collect::<Result<_, Fault>>()?,
        None => vec![(DEFAULT_TOKEN.to_owned(), standard_map(&at)?)],
    };
    Ok(TokenCall {
        params_in: params_in(raw.params_in, &request, place)?,
        rename: pairs(&raw.rename),
        omit: raw.omit.clone(),
        tokens,
        mapped: raw.tokens.is_some(),
        permanent: place.optional("permanent", raw.permanent.as_ref())?,
        default_ttl: raw.default_ttl.map(|ttl| ttl.0),
        request,
    })
}

/// Where the standard parameters go: where it is written, else where the body is.
fn params_in(raw: Option<raw::ParamsIn>, request: &Request, place: &Place<'_>) -> Result<ParamsIn, Fault> {
    let bodiless = request.method == Method::GET || request.method == Method::HEAD;
    let wanted = match (raw, &request.body) {
        (Some(raw::ParamsIn::Json), _) | (None, Body::Json(_)) => ParamsIn::Json,
        (Some(raw::ParamsIn::Query), _) => ParamsIn::Query,
        (None, Body::Empty) if bodiless => ParamsIn::Query,
        (Some(raw::ParamsIn::Form), _) | (None, Body::Empty | Body::Form(_)) => ParamsIn::Form,
        (None, Body::Text(_)) => ParamsIn::Nowhere,
    };
    let fits = match wanted {
        ParamsIn::Form => matches!(request.body, Body::Empty | Body::Form(_)),
        ParamsIn::Json => matches!(request.body, Body::Empty | Body::Json(crate::template::Tree::Map(_))),
        ParamsIn::Query | ParamsIn::Nowhere => true,
    };
    if fits {
        return Ok(wanted);
    }
    let message = "the standard parameters do not fit into this body: write `params_in: query`, or a body that is a form \
                   or a JSON object";
    Err(place.problem(Code::Conflict, message))
}

pub(super) fn token_map(raw: &raw::TokenMap, place: &Place<'_>) -> Result<TokenMap, Fault> {
    Ok(TokenMap {
        access: place.at("access").expression(&raw.access)?,
        refresh: place.optional("refresh", raw.refresh.as_ref())?,
        expires_in: place.optional("expires_in", raw.expires_in.as_ref())?,
        expires: raw.expires.as_ref().map(|raw| moment(raw, &place.at("expires"))).transpose()?,
        scope: place.optional("scope", raw.scope.as_ref())?,
    })
}

/// The fields of RFC 6749 §5.1.
fn standard_map(place: &Place<'_>) -> Result<TokenMap, Fault> {
    let field = |name: &str| place.expression(&Expression(format!("body.{name}")));
    Ok(TokenMap {
        access: field("access_token")?,
        refresh: Some(field("refresh_token")?),
        expires_in: Some(field("expires_in")?),
        expires: None,
        scope: Some(field("scope")?),
    })
}

pub(super) fn moment(raw: &RawMoment, place: &Place<'_>) -> Result<Moment, Fault> {
    let (value, key, relative) = match (&raw.at, &raw.after) {
        (Some(at), None) => (at, "at", false),
        (None, Some(after)) => (after, "after", true),
        _ => return Err(place.problem(Code::Conflict, "a moment has `at` a time or `after` a time, one of them")),
    };
    let unit = match raw.unit {
        TimeUnit::EpochSeconds => MomentUnit::EpochSeconds,
        TimeUnit::EpochMillis => MomentUnit::EpochMillis,
        TimeUnit::EpochMicros => MomentUnit::EpochMicros,
        TimeUnit::Rfc3339 => MomentUnit::Rfc3339,
        TimeUnit::HttpDate => MomentUnit::HttpDate,
        TimeUnit::JwtExp => MomentUnit::JwtExp,
        TimeUnit::Seconds => MomentUnit::AfterSeconds,
        TimeUnit::Millis => MomentUnit::AfterMillis,
        TimeUnit::Minutes => MomentUnit::AfterMinutes,
    };
    if unit.is_relative() != relative {
        let message = if relative {
            "`after` is a time from now: its unit is `seconds`, `millis` or `minutes`"
        } else {
            "`at` is a moment: its unit is not one of a time from now"
        };
        return Err(place.at("unit").problem(Code::Conflict, message));
    }
    Ok(Moment { value: place.at(key).expression(value)?, unit })
}

/// The answer of RFC 7662 §2.2 says when the token expires as `exp`, in seconds since 1970.
fn introspect(raw: &raw::TokenCall, place: &Place<'_>) -> Result<TokenCall, Fault> {
    let mut call = token_call(raw, place)?;
    if !call.mapped {
        for (_, map) in &mut call.tokens {
            let value = place.expression(&Expression("body.exp".to_owned()))?;
            map.expires = Some(Moment { value, unit: MomentUnit::EpochSeconds });
            map.expires_in = None;
        }
    }
    Ok(call)
}

fn revocations(raw: Option<&OneOrMany<ShortOr<RawRequest>>>, place: &Place<'_>) -> Result<Vec<Request>, Fault> {
    let Some(list) = raw else { return Ok(Vec::new()) };
    listed(list, place, |raw, at| {
        let mut request = request::compile(raw.0.shape(), at)?;
        if is_address_alone(&raw.0) {
            request.method = Method::POST;
        }
        Ok(request)
    })
}

/// A request that goes out before there is any token: it carries none unless that is written.
fn before_tokens(raw: &RawRequest, place: &Place<'_>) -> Result<Request, Fault> {
    let mut request = request::compile(raw.shape(), place)?;
    if raw.credential.is_none() {
        request.credential = CredentialUse::None;
    }
    if is_address_alone(raw) {
        request.method = Method::POST;
    }
    request.timeout.get_or_insert(TOKEN_TIMEOUT);
    Ok(request)
}

/// Whether only an address is written, without a method: RFC 7009, 8628 and 9126 all have it asked by POST.
fn is_address_alone(raw: &RawRequest) -> bool {
    read_address(&raw.shape().request.0).is_ok_and(|address| address.offset == 0)
}

fn registration(raw: &raw::Registration, place: &Place<'_>) -> Result<Registration, Fault> {
    let line = if place.document().value.pointer(place.pointer()).is_some_and(serde_json::Value::is_string) {
        place.clone()
    } else {
        place.at("url")
    };
    Ok(Registration {
        url: raw.url.as_ref().map(|url| line.text(url)).transpose()?,
        token: raw.token.as_ref().map(|token| Secret::new(token.0.expose().clone())),
        metadata: place.at("metadata").trees(&raw.metadata)?,
    })
}

fn exchange(raw: &raw::Exchange, place: &Place<'_>) -> Result<Exchange, Fault> {
    let actor = match (&raw.actor_token, &raw.actor_token_type) {
        (None, None) => None,
        (Some(token), Some(kind)) => Some((place.at("actor_token").text(token)?, kind.clone())),
        _ => {
            let message = "`actor_token` and `actor_token_type` come together (RFC 8693 §2.1)";
            return Err(place.problem(Code::MissingField, message));
        }
    };
    let at = place.at("audience");
    let audience = raw.audience.iter().enumerate().map(|(index, text)| at.item(index).text(text));
    Ok(Exchange {
        subject_token: place.at("subject_token").text(&raw.subject_token)?,
        subject_token_type: raw.subject_token_type.clone(),
        actor,
        requested_token_type: raw.requested_token_type.clone(),
        audience: audience.collect::<Result<_, _>>()?,
    })
}

fn callback(raw: Option<&raw::Callback>, place: &Place<'_>) -> Result<Callback, Fault> {
    let code = raw.and_then(|raw| raw.code.clone()).unwrap_or_else(|| "code".to_owned());
    let save = raw.map(|raw| expressions(&raw.save, &place.at("save"))).transpose()?.unwrap_or_default();
    Ok(Callback { code, save })
}

fn expressions(raw: &Ordered<Expression>, place: &Place<'_>) -> Result<Vec<(String, Expr)>, Fault> {
    raw.iter().map(|(name, value)| Ok((name.to_owned(), place.at(name).expression(value)?))).collect()
}

fn identity(raw: &RawIdentity, place: &Place<'_>) -> Result<Identity, Fault> {
    Ok(Identity {
        request: request::compile(raw.shape(), place)?,
        id: place.at("id").expression(&raw.id)?,
        name: place.optional("name", raw.name.as_ref())?,
        email: place.optional("email", raw.email.as_ref())?,
    })
}

fn discover(raw: &raw::Discover, place: &Place<'_>) -> Result<Discover, Fault> {
    Ok(Discover {
        request: request::compile(raw.shape(), place)?,
        choices: place.optional("choices", raw.choices.as_ref())?,
        label: place.optional("label", raw.label.as_ref())?,
        set: expressions(&raw.set, &place.at("set"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::compiled;
    use super::*;
    use crate::definition::plan::Auth;
    use serde_json::{Value, json};

    fn oauth2(block: &Value) -> Result<Arc<OAuth2>, String> {
        let document = json!({ "trunkline": 1, "id": "a", "auth": { "oauth2": block } });
        match compiled(document).map_err(|fault| format!("{}: {}", fault.place.pointer, fault.message))?.auth {
            Auth::OAuth2(oauth2) => Ok(oauth2),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_short_definition_has_every_default() {
        let plan = oauth2(&json!({ "authorize": "https://a.example/auth", "token": "https://a.example/token" }))
            .expect("compiles");
        assert_eq!((plan.grant, plan.client_auth), (Grant::AuthorizationCode, ClientAuth::Form));
        assert_eq!((&plan.pkce, plan.refresh_tokens), (&Pkce::S256, RefreshPolicy::Keep));
        assert_eq!((plan.scope_separator.as_str(), plan.callback.code.as_str()), (" ", "code"));
        let [call] = plan.token.as_slice() else { panic!("one call") };
        assert_eq!((call.params_in, &call.request.credential), (ParamsIn::Form, &CredentialUse::None));
        assert_eq!((&call.request.method, call.request.timeout), (&Method::POST, Some(TOKEN_TIMEOUT)));
        assert_eq!((call.tokens[0].0.as_str(), call.tokens[0].1.access.source()), ("default", "body.access_token"));
        assert!(plan.refresh.is_none());
    }

    #[test]
    fn an_address_alone_is_a_post_slots_or_not() {
        let method = |call: &str| oauth2(&json!({ "token": call })).map(|plan| plan.token[0].request.method.clone());
        assert_eq!(method("https://{{ input.host }}/token"), Ok(Method::POST));
        assert_eq!(method("{{ saved.url }}/token"), Ok(Method::POST));
        assert_eq!(method("GET https://{{ input.host }}/token"), Ok(Method::GET));
        let both = |line: &str| {
            let plan = oauth2(&json!({ "token": "https://a.example/t", "push": line, "revoke": line }))?;
            Ok::<_, String>((plan.push.as_ref().map(|push| push.method.clone()), plan.revoke[0].method.clone()))
        };
        assert_eq!(both("https://a.example/x").ok(), Some((Some(Method::POST), Method::POST)));
        assert_eq!(both("GET https://a.example/x").ok(), Some((Some(Method::GET), Method::GET)));
    }

    #[test]
    fn standard_parameters_go_where_the_body_is() {
        let place = |call: Value| oauth2(&json!({ "token": call })).map(|plan| plan.token[0].params_in);
        assert_eq!(place(json!("GET https://a.example/t")), Ok(ParamsIn::Query));
        assert_eq!(place(json!({ "request": "POST https://a.example/t", "json": { "a": 1 } })), Ok(ParamsIn::Json));
        assert_eq!(place(json!({ "request": "POST https://a.example/t", "text": "<a/>" })), Ok(ParamsIn::Nowhere));
        let odd = json!({ "request": "POST https://a.example/t", "params_in": "form", "json": {} });
        let error = place(odd).expect_err("two bodies");
        assert!(error.starts_with("/auth/oauth2/token: the standard parameters do not fit"), "{error}");
        assert!(place(json!({ "request": "POST https://a.example/t", "json": [1] })).is_err());
    }

    #[test]
    fn moments_have_a_unit_of_their_kind() {
        let with = |expires: Value| {
            let map = json!({ "access": "body.t", "expires": expires });
            let call = json!({ "request": "POST https://a.example/t", "tokens": { "default": map } });
            let plan = oauth2(&json!({ "token": call }))?;
            Ok::<_, String>(plan.token[0].tokens[0].1.expires.as_ref().map(|moment| moment.unit))
        };
        assert_eq!(with(json!({ "at": "body.e", "unit": "epoch_millis" })), Ok(Some(MomentUnit::EpochMillis)));
        assert_eq!(with(json!({ "after": "body.e", "unit": "minutes" })), Ok(Some(MomentUnit::AfterMinutes)));
        for bad in [
            json!({ "at": "body.e", "unit": "seconds" }),
            json!({ "after": "body.e", "unit": "rfc3339" }),
            json!({ "unit": "seconds" }),
            json!({ "at": "body.e", "after": "body.e", "unit": "seconds" }),
        ] {
            assert!(with(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_introspection_tells_the_expiry_as_the_rfc_says() {
        let plan = oauth2(&json!({ "introspect": "https://a.example/i" })).expect("compiles");
        let map = &plan.introspect.as_ref().expect("one").tokens[0].1;
        assert!(map.expires_in.is_none());
        let expires = map.expires.as_ref().expect("one");
        assert_eq!((expires.value.source(), expires.unit), ("body.exp", MomentUnit::EpochSeconds));
    }

    #[test]
    fn an_actor_has_a_type() {
        let exchange = json!({ "subject_token": "x", "subject_token_type": "t", "actor_token": "y" });
        let error = oauth2(&json!({ "exchange": exchange })).expect_err("no type");
        assert!(error.contains("come together"), "{error}");
    }
}
