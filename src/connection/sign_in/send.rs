//! One call of signing in: filled in, sent to a host that the definition names, its answer read.
//!
//! Such a call carries secrets, so it follows no redirect, and no more of its answer is read than a token
//! could need.

use std::sync::Arc;

use http::header;
use serde_json::{Value as Json, json};

use super::Parts;
use crate::base::clock::Timestamp;
use crate::connection::grant::{Account, TokenError, TokenErrorKind};
use crate::connection::told::{Books, Called, Leaving};
use crate::connection::turn;
use crate::definition::plan::api::{Api, Timeouts};
use crate::definition::plan::request::Request;
use crate::net::{
    Base, BaseError, BodyLimit, Excess, Failure, Origin, Outgoing, Reach, Received, Sent, Towards, origin,
};
use crate::request::{AnswerError, Outcome, Place, answer, fill};
use crate::template::Context;

/// What puts its mark on a call before it goes.
pub(super) type Finish<'a> = &'a (dyn Fn(&mut Outgoing) -> Result<(), TokenError> + Sync);

/// What templates of an account's sign-in see.
pub(super) fn context(account: &Account<'_>, parts: &Parts) -> Context {
    Context::new()
        .with_json("input", &Json::Object(account.inputs.clone()))
        .with_json("saved", &Json::Object(account.saved.clone()))
        .with_json("connection", &json!({ "id": account.connection }))
        .with_moment(parts.clock.now(), Arc::clone(&parts.random))
}

/// Fills a request in, sends it and reads its answer.
///
/// # Errors
/// When the call may not or cannot be made, there is no answer, or it is not a success.
pub(super) async fn send(
    parts: &Parts,
    account: &Account<'_>,
    (request, context): (&Request, &Context),
    called: Called<'_>,
    finish: Finish<'_>,
) -> Result<Outcome, TokenError> {
    let received = received(parts, account, (request, context), called, finish).await?;
    read(request, context, received, parts.clock.now())
}

/// Reads what was answered to a request.
///
/// # Errors
/// When it is not a success.
pub(super) fn read(
    request: &Request,
    context: &Context,
    received: Received,
    now: Timestamp,
) -> Result<Outcome, TokenError> {
    answer::read((request, None), context, received, now).map_err(of_answer)
}

/// Fills a request in, sends it, and gives back whatever is answered.
///
/// # Errors
/// When the call may not or cannot be made, or there is no answer.
pub(super) async fn received(
    parts: &Parts,
    account: &Account<'_>,
    (request, context): (&Request, &Context),
    called: Called<'_>,
    finish: Finish<'_>,
) -> Result<Received, TokenError> {
    let api = account.integration.api.as_ref();
    let api = api.ok_or_else(|| misconfigured(format!("`{}` has no `api`", account.integration.id)))?;
    let mut outgoing = outgoing(account, api, request, context)?;
    finish(&mut outgoing)?;
    let entered = turn::enter((&parts.turns, &parts.clock), *account, context, &mut outgoing).await?;
    let books = Books { clock: &parts.clock, metrics: &parts.metrics, activity: &parts.activity };
    let leaving = Leaving::now(books, account, called, &outgoing);
    let sent = Box::pin(parts.clients.send(outgoing)).await;
    entered.ended(&sent);
    leaving.ended(&sent);
    sent.map_err(|failure| of_failure(&failure))
}

fn outgoing(account: &Account<'_>, api: &Api, request: &Request, context: &Context) -> Result<Outgoing, TokenError> {
    let filled = fill::fill(request, context).map_err(|error| misconfigured(error.to_string()))?;
    let (origin, path, literal_host) =
        target(account, api, filled.place, context).map_err(|error| misconfigured(error.to_string()))?;
    let gateway = &account.generation.gateway;
    let reach = Reach::of_integration(gateway, api.transport.allow_private, literal_host.then_some(&origin.host));
    let mut headers = filled.headers;
    headers.entry(header::ACCEPT).or_insert(http::HeaderValue::from_static("*/*"));
    Ok(Outgoing {
        towards: Towards::Service {
            integration: Arc::clone(&account.integration.id),
            transport: api.transport.clone(),
            reach,
        },
        caller: None,
        method: filled.method,
        origin,
        path,
        query: Some(filled.query).filter(|query| !query.is_empty()),
        secret_query: None,
        headers,
        body: filled.body,
        timeouts: Timeouts { total: request.timeout.unwrap_or(api.timeouts.total), ..api.timeouts },
        limit: BodyLimit { bytes: gateway.limits.sign_in_answer_bytes, excess: Excess::Refuse },
    })
}

/// Where a call goes, once it is one of the places that the definition names.
fn target(
    account: &Account<'_>,
    api: &Api,
    place: Place,
    context: &Context,
) -> Result<(Origin, String, bool), BaseError> {
    let gateway = &account.generation.gateway;
    match place {
        Place::Below(path) => {
            let base = Base::of(api, gateway, context)?;
            Ok((base.origin, format!("{}{path}", base.path), base.literal_host))
        }
        Place::At { origin, literal_host, path } => {
            origin::allow(api, gateway, &origin, literal_host)?;
            Ok((origin, path, literal_host))
        }
    }
}

fn of_failure(failure: &Failure) -> TokenError {
    let kind = match (failure.passing(), failure.sent) {
        (false, Sent::Nothing) => TokenErrorKind::Misconfigured,
        (true, Sent::Nothing) => TokenErrorKind::Unsent,
        (_, Sent::Maybe) => TokenErrorKind::Passing,
    };
    TokenError::new(kind, failure.to_string())
}

fn of_answer(error: AnswerError) -> TokenError {
    let passing = error.passing();
    let kind = if passing { TokenErrorKind::Passing } else { TokenErrorKind::Permanent };
    let status = Some(error.status());
    match error {
        AnswerError::Refused { words, retry_after, .. } => TokenError { kind, code: None, words, status, retry_after },
        AnswerError::Invalid { reason, .. } => {
            TokenError { kind: TokenErrorKind::Passing, code: None, words: Some(reason), status, retry_after: None }
        }
    }
}

pub(super) fn misconfigured(words: impl Into<String>) -> TokenError {
    TokenError::new(TokenErrorKind::Misconfigured, words)
}
