//! One call of signing in, on its way: where it may go, what it carries, and what is remembered of it.
//!
//! Such a call carries an application's secret or a token, so it goes only to hosts that the definition
//! names, follows no redirect, and reads no more of an answer than a token could need. One try: a code
//! or a refresh token may be good for one call only. Called by every stage of `flow` that asks a service.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use percent_encoding::utf8_percent_encode;

use super::scene::{Scene, misconfigured};
use super::token_params::scene_header;
use super::{Parts, Stage};
use crate::base::secret::Secret;
use crate::connection::grant::{TokenError, TokenErrorKind};
use crate::connection::sign::seen_request;
use crate::connection::told::{Books, Called, Leaving};
use crate::connection::turn;
use crate::definition::plan::api::{Placement, Timeouts, Transport};
use crate::definition::plan::oauth2::ClientAuth;
use crate::definition::plan::request::{CredentialUse, Request};
use crate::net::origin::{self, SEGMENT};
use crate::net::{Base, BodyLimit, Excess, Failure, Origin, Outgoing, Reach, Reason, Received, Sent, Towards};
use crate::request::fill::{self, Filled, Place};
use crate::template::{Context, Text};

/// A call before it is sent.
pub(super) struct Step<'a> {
    /// What it is for, in activity and metrics.
    pub stage: Stage,
    /// The request, its standard parameters in place.
    pub request: &'a Request,
    /// Headers that it has besides its own, once those are filled in.
    pub finish: &'a (dyn Fn(&mut HeaderMap) + Sync),
}

/// Fills in a call, sends it and reads the answer to its end. An error status is an answer.
///
/// # Errors
/// When the call may not or cannot be made, or there is no answer.
pub(super) async fn send(parts: &Parts, scene: &Scene<'_>, step: Step<'_>) -> Result<Received, TokenError> {
    let context = scene.context();
    let filled = fill::fill(step.request, &context)
        .map_err(|error| misconfigured(scene.secrets.redact(&format!("`{}`: {error}", step.stage.field()))))?;
    let mut outgoing = outgoing(scene, &context, step.request, filled)?;
    (step.finish)(&mut outgoing.headers);
    let entered = turn::enter((&parts.turns, &parts.clock), scene.account, &context, &mut outgoing).await?;
    let books = Books { clock: &parts.clock, metrics: &parts.metrics, activity: &parts.activity };
    let called = Called { field: step.stage.field(), secrets: &scene.secrets };
    let leaving = Leaving::now(books, &scene.account, called, &outgoing);
    let sent = Box::pin(parts.clients.send(outgoing)).await;
    entered.ended(&sent);
    leaving.ended(&sent);
    sent.map_err(|failure| of_failure(&failure, scene))
}

fn of_failure(failure: &Failure, scene: &Scene<'_>) -> TokenError {
    let kind = match (failure.passing(), failure.sent) {
        (false, Sent::Nothing) => TokenErrorKind::Misconfigured,
        (true, Sent::Nothing) => TokenErrorKind::Unsent,
        (_, Sent::Maybe) => TokenErrorKind::Passing,
    };
    // The service was reached, and its answer is what is wrong.
    let status = match failure.reason {
        Reason::TooLarge { status, .. } => Some(status),
        _ => None,
    };
    TokenError { status, ..TokenError::new(kind, scene.secrets.redact(&failure.to_string())) }
}

fn outgoing(scene: &Scene<'_>, context: &Context, request: &Request, filled: Filled) -> Result<Outgoing, TokenError> {
    let account = &scene.account;
    let gateway = &account.generation.gateway;
    let api = account.integration.api.as_ref();
    let (origin, path, literal_host) = target(scene, context, filled.place)?;
    let mut transport = api.map_or_else(Transport::default, |api| api.transport.clone());
    // Calls that carry the token are the API's; all others are the application's own.
    if !matches!(request.credential, CredentialUse::Token(_)) {
        transport.identity = scene.known_client().and_then(|client| client.certificate.clone());
    }
    let reach = Reach::of_integration(gateway, transport.allow_private, literal_host.then_some(&origin.host));
    let mut headers = filled.headers;
    let seen = context.clone().with("request", seen_request(&filled.method, &origin.authority(), &path, &filled.query));
    let secret_query = credential(scene, &seen, request, &mut headers)?;
    let usual = api.map_or_else(Timeouts::default, |api| api.timeouts);
    Ok(Outgoing {
        towards: Towards::Service { integration: Arc::clone(&account.integration.id), transport, reach },
        caller: None,
        method: filled.method,
        origin,
        path,
        query: Some(filled.query).filter(|query| !query.is_empty()),
        secret_query,
        headers,
        body: filled.body,
        timeouts: Timeouts { total: request.timeout.unwrap_or(usual.total), ..usual },
        limit: BodyLimit { bytes: gateway.limits.sign_in_answer_bytes, excess: Excess::Refuse },
    })
}

/// Where a call goes, once it is one of the places that the definition names.
fn target(scene: &Scene<'_>, context: &Context, place: Place) -> Result<(Origin, String, bool), TokenError> {
    let account = &scene.account;
    let (integration, gateway) = (account.integration, &account.generation.gateway);
    let bad = |error: origin::BaseError| misconfigured(scene.secrets.redact(&error.to_string()));
    match place {
        Place::Below(path) => {
            let api = integration.api.as_ref();
            let api = api
                .ok_or_else(|| misconfigured(format!("`{path}` is below the API's address, and there is no `api`")))?;
            let base = Base::of(api, gateway, context).map_err(bad)?;
            Ok((base.origin, format!("{}{path}", base.path), base.literal_host))
        }
        Place::At { origin, literal_host, path } => {
            let named = integration.api.as_ref().map(|api| (api.hosts.as_slice(), api.transport.allow_plain_http));
            origin::allow_named(named.unwrap_or((&[], false)), gateway, &origin, literal_host).map_err(bad)?;
            Ok((origin, path, literal_host))
        }
    }
}

/// Puts on what the request says it carries; what goes into the query comes back.
fn credential(
    scene: &Scene<'_>,
    context: &Context,
    request: &Request,
    headers: &mut HeaderMap,
) -> Result<Option<Arc<Secret>>, TokenError> {
    let token = match &request.credential {
        _ if request.basic.is_some() => return Ok(None),
        CredentialUse::None => return Ok(None),
        // The assertion is among the parameters.
        CredentialUse::Client if scene.client_auth() == ClientAuth::PrivateKeyJwt => return Ok(None),
        CredentialUse::Client => {
            headers.insert(header::AUTHORIZATION, scene_header(scene)?);
            return Ok(None);
        }
        CredentialUse::Token(name) => name.as_deref(),
    };
    let api = scene.account.integration.api.as_ref();
    let context = scene.carrying(context, token)?;
    // The API's own headers go with its token: some services answer nothing without them.
    for (name, text) in api.iter().flat_map(|api| &api.headers) {
        if !headers.contains_key(name) {
            let value = header_value(text, &context)?;
            headers.insert(name.clone(), value);
        }
    }
    let bearer = || Text::compile("Bearer {{ token.access }}").map_err(|error| misconfigured(error.to_string()));
    match api.map(|api| &api.credential) {
        Some(Placement::Header { name, value }) => _ = headers.insert(name.clone(), header_value(value, &context)?),
        Some(Placement::Query { name, value }) => {
            let value = Secret::new(value.render(&context).map_err(|error| misconfigured(error.to_string()))?);
            let (name, value) = (utf8_percent_encode(name, SEGMENT), utf8_percent_encode(value.expose(), SEGMENT));
            return Ok(Some(Arc::new(Secret::new(format!("{name}={value}")))));
        }
        _ => _ = headers.insert(header::AUTHORIZATION, header_value(&bearer()?, &context)?),
    }
    Ok(None)
}

fn header_value(text: &Text, context: &Context) -> Result<HeaderValue, TokenError> {
    let value = Secret::new(text.render(context).map_err(|error| misconfigured(error.to_string()))?);
    let mut value =
        HeaderValue::from_str(value.expose()).map_err(|_| misconfigured("a header's value fits no header"))?;
    value.set_sensitive(true);
    Ok(value)
}
