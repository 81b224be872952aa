//! What a call meets before a byte of it goes out, in order: [`ProxyDoor::handle`].
//!
//! A durable call meets the same refusals when it is taken in ([`super::durable`]). Called by `forward`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, header};

use super::endpoint::{self, NamedCall};
use super::kept::{Before, Kept};
use super::pages::{self, PagesCall};
use super::path::NormalPath;
use super::ready::Ready;
use super::route::{self, Route};
use super::whole::{Renewed, WholeCall};
use super::{Admitted, Call, Incoming, Known, ProxyDoor, Subject, caller, durable};
use crate::connection::{Connection, Need};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;
use crate::definition::plan::api::{Api, Placement};
use crate::outbound::call::grants;
use crate::outbound::visible::is_parameter;
use crate::respond::{Answer, Refusal};

/// A call whose caller may make it.
#[derive(Clone, Copy)]
pub(super) struct Permitted<'a> {
    pub generation: &'a Arc<Generation>,
    pub integration: &'a Arc<Integration>,
    /// The connection's name; nobody knows yet whether there is one.
    pub connection: &'a str,
    /// The caller's id.
    pub caller: &'a Arc<str>,
    pub request: &'a Incoming<'a>,
    pub route: &'a Route<'a>,
}

impl ProxyDoor {
    /// What every call meets; how it goes on depends on what it asks for.
    pub(super) async fn handle(&self, request: &Incoming<'_>, known: &mut Known) -> Result<Admitted, Answer> {
        let generation = self.parts.live.load();
        self.refuse_loops(request.headers)?;
        let caller = caller::identify(&generation.gateway, request.headers)?;
        let path = NormalPath::of(request.path);
        let route = route::read(&path, request.query)?;
        let connection = route::connection(request.headers)?;
        let found = generation.integration(route.integration);
        known.subject = found.map(|integration| Subject::of(&generation, integration, connection, &caller.id));
        if let Some(id) = durable::asked_about(request.method, &route) {
            let integration = find_integration(&generation, &route)?;
            let given = Box::pin(durable::status(self, integration, caller, id)).await;
            return Ok(Admitted::Answered(given));
        }
        let token = route::token(request.headers)?;
        let method = asked_method(&generation, &route, request.method);
        caller::permit(caller, method, &route, (connection, token))?;
        let integration = find_integration(&generation, &route)?;
        let call =
            Permitted { generation: &generation, integration, connection, caller: &caller.id, request, route: &route };
        if durable::is_asked_for(request.headers)? {
            return Ok(Admitted::Durable(Box::new(Box::pin(self.submission(call)).await?)));
        }
        match route.endpoint {
            Some(endpoint) => named(call, endpoint).map(|call| Admitted::Named(Box::new(call))),
            None => self.by_path(call, known).await,
        }
    }

    /// What a call meets that goes to a path of the service.
    async fn by_path(&self, call: Permitted<'_>, known: &mut Known) -> Result<Admitted, Answer> {
        let Permitted { generation, integration, connection, caller, request, route } = call;
        let need = Need { token: route::token(request.headers)?, validity: route::min_validity(request.headers)? };
        let ready = self.connections.get(generation, integration, connection, need).await?;
        let api = integration.api.as_ref().ok_or_else(|| super::ready::no_api(integration))?;
        refuse_added_parameter(api, route)?;
        refuse_missing_scopes((integration, &ready.common.connection), (request.method, route), need.token)?;
        if let Some(all) = pages::asked(request.headers, route.query)? {
            let call = PagesCall::of(generation, &ready, (request.method, route, all), caller)?;
            return Ok(Admitted::Pages(Box::new(call)));
        }
        let endpoint = transformed(api, request.method, route);
        let known_as = recognised(&ready, request.method, route);
        if endpoint.is_some() || (has_body(request.headers) && ready.common.needs_body(request.headers)) {
            let (suffix, query) = (route.suffix.to_owned(), route.query.map(str::to_owned));
            let (generation, caller) = (Arc::clone(generation), Some(Arc::clone(caller)));
            let call =
                WholeCall { generation, ready, caller, known_as, endpoint, suffix, query, renewed: Renewed::default() };
            return Ok(Admitted::Whole(Box::new(call)));
        }
        refuse_without_body(&ready)?;
        let kept = match self.look(generation, &ready, request, (route, known_as.as_ref())).await {
            Before::Answered(given) => {
                let path = format!("{}{}", ready.common.base.path, route.suffix);
                known.place = Some((Arc::clone(&ready.common.place), path));
                return Ok(Admitted::Kept(given));
            }
            Before::On(kept) => kept,
        };
        Ok(Admitted::Forward(Box::new(streamed((generation, caller), ready, route, (known_as, kept)))))
    }

    /// A call that has been through this process before would go round for ever.
    fn refuse_loops(&self, headers: &HeaderMap) -> Result<(), Answer> {
        let ours = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains(&self.pseudonym));
        if headers.get_all(header::VIA).iter().any(ours) {
            return Err(Refusal::LoopDetected.answer("`Via` names this gateway"));
        }
        Ok(())
    }
}

/// What a call meets that runs an endpoint by name.
fn named(call: Permitted<'_>, endpoint: &str) -> Result<NamedCall, Answer> {
    refuse_named_token(route::token(call.request.headers)?)?;
    Ok(NamedCall {
        generation: Arc::clone(call.generation),
        integration: Arc::clone(call.integration),
        connection: Arc::from(call.connection),
        caller: Arc::clone(call.caller),
        endpoint: Arc::clone(&endpoint::find(call.integration, endpoint, call.request.method)?.id),
        key: endpoint::own_key(call.request.headers, call.integration, endpoint),
    })
}

/// A call that is streamed.
fn streamed(
    (generation, caller): (&Arc<Generation>, &Arc<str>),
    ready: Arc<Ready>,
    route: &Route<'_>,
    (endpoint, kept): (Option<Arc<str>>, Kept),
) -> Call {
    let target = target(&ready, route);
    let (generation, caller) = (Arc::clone(generation), Arc::clone(caller));
    Call { generation, ready, caller, endpoint, target, way: None, kept }
}

/// When to come again to an integration whose definition has to be mended first.
const MENDED: Duration = Duration::from_secs(30);

/// The integration that a route names.
pub(super) fn find_integration<'a>(
    generation: &'a Generation,
    route: &Route<'_>,
) -> Result<&'a Arc<Integration>, Answer> {
    let id = route.integration;
    generation.integration(id).ok_or_else(|| {
        if generation.is_faulty(id) {
            let detail = format!("the definition of `{id}` has errors, and no version of it is in force");
            return Refusal::Unavailable.answer_after(&detail, MENDED);
        }
        Refusal::NotFound.answer(&format!("there is no integration `{id}`"))
    })
}

/// The endpoint that a call is for, where the policy cares.
pub(super) fn recognised(ready: &Ready, method: &Method, route: &Route<'_>) -> Option<Arc<str>> {
    let api = ready.integration.api.as_ref().filter(|_| ready.common.policy.knows_endpoints())?;
    api.recognise(method, route.suffix).map(|endpoint| Arc::clone(&endpoint.id))
}

/// The method that a caller must be granted: of an endpoint that is called by name the one of the request that it
/// stands for. `None` for an endpoint that there is not.
pub(super) fn asked_method<'a>(
    generation: &'a Generation,
    route: &Route<'_>,
    method: &'a Method,
) -> Option<&'a Method> {
    let Some(endpoint) = route.endpoint else { return Some(method) };
    let api = generation.integration(route.integration)?.api.as_ref()?;
    Some(&api.endpoint(endpoint)?.request.method)
}

/// The place of the endpoint with a transform that a call is for.
pub(super) fn transformed(api: &Api, method: &Method, route: &Route<'_>) -> Option<usize> {
    api.place_of((method, route.suffix), |endpoint| endpoint.transform.is_some())
}

/// The credential must not be one of two parameters of the same name.
pub(super) fn refuse_added_parameter(api: &Api, route: &Route<'_>) -> Result<(), Answer> {
    match (&api.credential, route.query) {
        (Placement::Query { name, .. }, Some(query)) if has_parameter(query, name) => {
            Err(Refusal::InvalidInput.answer(&format!("the query parameter `{name}` is set by the gateway")))
        }
        _ => Ok(()),
    }
}

/// A path of an endpoint needs the scopes of the endpoint, whoever writes the path.
pub(super) fn refuse_missing_scopes(
    (integration, connection): (&Integration, &Connection),
    (method, route): (&Method, &Route<'_>),
    token: Option<&str>,
) -> Result<(), Answer> {
    let Some(api) = integration.api.as_ref() else { return Ok(()) };
    let needing = api.place_of((method, route.suffix), |endpoint| !endpoint.scopes.is_empty());
    let Some(endpoint) = needing.and_then(|place| api.endpoints.get(place)) else { return Ok(()) };
    grants(integration, connection, endpoint, token).map_err(|error| error.answer())
}

/// An endpoint that is called by name carries the token that its definition says.
pub(super) fn refuse_named_token(token: Option<&str>) -> Result<(), Answer> {
    let Some(token) = token else { return Ok(()) };
    let words = format!("the endpoint's definition says which token it carries: leave `Trunkline-Token: {token}` out");
    Err(Refusal::InvalidInput.answer(&words))
}

/// Whether a request's head announces a body.
pub(super) fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).map(HeaderValue::as_bytes);
    headers.contains_key(header::TRANSFER_ENCODING) || length.is_some_and(|length| length != b"0")
}

/// A credential that is a field of the body has no place in a call without one.
pub(super) fn refuse_without_body(ready: &Ready) -> Result<(), Answer> {
    if ready.credential().is_in_body() { Err(no_body()) } else { Ok(()) }
}

/// The answer to a call without a body to put the credential in.
pub(super) fn no_body() -> Answer {
    let words = "the credential of this service goes into the body, so a call has a form or a JSON object";
    Refusal::InvalidInput.answer(words)
}

/// Path and query as the service gets them: the base's path, the caller's, and what is added.
fn target(ready: &Ready, route: &Route<'_>) -> String {
    let base = &ready.common.base.path;
    let mut target = String::with_capacity(base.len() + route.suffix.len() + 16);
    target.push_str(base);
    target.push_str(route.suffix);
    if let Some(query) = route.query {
        target.push('?');
        target.push_str(query);
    }
    if let Some((_, added)) = ready.credential().query() {
        target.push(if route.query.is_some() { '&' } else { '?' });
        target.push_str(added.expose());
    }
    target
}

/// Whether a query has a parameter of this name, however it is encoded; also with `;` between
/// parameters and with a bracket behind the name, as some servers read them.
pub(super) fn has_parameter(query: &str, name: &str) -> bool {
    query.split(['&', ';']).any(|pair| is_parameter(pair, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_parameter_is_found_in_every_spelling() {
        for query in ["key=1", "a=b&key=1", "a;key=1", "%6bey=1", "KEY=1", "key", "key[]=1", "key%5B%5D=1", "+key=1"] {
            assert!(has_parameter(query, "key"), "{query}");
        }
        for query in ["", "keys=1", "a=key", "monkey=1", "a=b%26key=1"] {
            assert!(!has_parameter(query, "key"), "{query}");
        }
    }
}
