//! What a request passes before any route sees it, and what routes are told of it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts as Head;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

use super::refusal::Refused;
use super::sign_in::cookie::Way;
use super::sign_in::{Identity, Proof, is_own_form};
use super::{Parts, guard};
use crate::definition::plan::gateway::Gateway;
use crate::respond::Refusal;

/// The header that carries a session's word where there is no form.
const FORM_HEADER: HeaderName = HeaderName::from_static("trunkline-form");
/// The field of a form that carries it.
const FORM_FIELD: &str = "form";

/// Where a request comes from, where that is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct Source(pub Option<IpAddr>);

/// What is known of a request before any route sees it.
#[derive(Debug, Clone)]
pub struct Entered {
    /// The settings it is judged by.
    pub gateway: Arc<Gateway>,
    /// Who makes it.
    pub who: Option<Identity>,
    /// How its browser comes; `None` where a password must not be sent.
    pub way: Option<Way>,
    /// Where it comes from.
    pub source: Option<IpAddr>,
}

/// Who makes a request, as the audit log calls them.
#[derive(Debug, Clone)]
pub struct By(pub Arc<str>);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Head, _: &S) -> Result<Self, Infallible> {
        let who = head.extensions.get::<Identity>().map(|who| Arc::clone(&who.name));
        Ok(Self(who.unwrap_or_else(|| Arc::from("unknown"))))
    }
}

/// Takes the path of `admin.url` from the front of a request's, where a proxy has left it there, and puts it before the
/// next page's in the answer.
pub async fn below_base_path(State(parts): State<Arc<Parts>>, mut request: Request, next: Next) -> Response {
    let gateway = Arc::clone(&parts.live.load().gateway);
    let base = gateway.admin.base_path();
    if let Some(uri) = without(request.uri(), base) {
        *request.uri_mut() = uri;
    }
    let mut answer = next.run(request).await;
    if let Some(link) = answer.headers_mut().get_mut(header::LINK)
        && let Some(placed) = below(base, link)
    {
        *link = placed;
    }
    answer
}

/// A `Link` to a path of the door as browsers and programs outside reach it; `None` where that is the same.
fn below(base: &str, link: &HeaderValue) -> Option<HeaderValue> {
    let rest = link.to_str().ok()?.strip_prefix("</").filter(|_| !base.is_empty())?;
    HeaderValue::from_str(&format!("<{base}/{rest}")).ok()
}

fn without(uri: &Uri, base: &str) -> Option<Uri> {
    let rest = uri.path().strip_prefix(base).filter(|_| !base.is_empty())?;
    if !(rest.is_empty() || rest.starts_with('/')) {
        return None;
    }
    let path = if rest.is_empty() { "/" } else { rest };
    let target = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

/// Judges a request and tells its routes what is known of it.
///
/// # Errors
/// The refusal to answer.
pub async fn enter(parts: &Parts, request: Request) -> Result<Request, Refused> {
    let gateway = Arc::clone(&parts.live.load().gateway);
    let host = guard::judge(&request, &gateway.admin)?;
    let way = Way::of(&host, &gateway);
    let source = request.extensions().get::<Source>().and_then(|source| source.0);
    let shown = guard::Shown { headers: request.headers(), way, source };
    let who = guard::identify(shown, &gateway.admin, &parts.sign_in).await?;
    let mut request = request;
    if guard::is_change(request.method())
        && let Some(who) = &who
    {
        if let Proof::Session { form } = &who.proof {
            request = own_form(request, form, gateway.limits.admin_body_bytes).await?;
        }
        guard::may_change(who, route(&request), &gateway.admin)?;
    }
    request.extensions_mut().insert(Entered { gateway, who, way, source });
    Ok(request)
}

/// The route that a request takes, as it is declared; empty where there is none.
pub(super) fn route(request: &Request) -> &str {
    request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str)
}

/// The most bytes that the body of a request may have.
pub fn most_bytes(request: &Request, gateway: &Gateway) -> usize {
    match route(request) {
        "/api/import" => gateway.limits.import_bytes,
        _ => gateway.limits.admin_body_bytes,
    }
}

/// Refuses what was not sent from one of the session's own pages.
async fn own_form(request: Request, expected: &str, most: usize) -> Result<Request, Refused> {
    let foreign = || {
        let help = "load the page again and send the form once more";
        Refused::with_help(Refusal::FormForeign, "the form lacks this session's word, or has another's", help)
    };
    if let Some(word) = request.headers().get(FORM_HEADER) {
        return if is_own_form(word.to_str().unwrap_or_default(), expected) { Ok(request) } else { Err(foreign()) };
    }
    let kind = request.headers().get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| kind.starts_with(b"application/x-www-form-urlencoded")) {
        return Err(foreign());
    }
    let (head, body) = request.into_parts();
    let too_large = |_| Refused::new(Refusal::BodyTooLarge, "the form could not be read to its end, or is too large");
    let body = to_bytes(body, most).await.map_err(too_large)?;
    let word = url::form_urlencoded::parse(&body).find(|(name, _)| name == FORM_FIELD).map(|(_, value)| value);
    if !word.is_some_and(|word| is_own_form(&word, expected)) {
        return Err(foreign());
    }
    Ok(Request::from_parts(head, Body::from(body)))
}

/// Whether who made a request may still be shown what it asked for, for answers that go on: not once their session has
/// ended, their account is gone or has another password or token, or the door is not open any more.
pub fn lasting(parts: &Arc<Parts>, entered: &Entered, head: &HeaderMap) -> impl Fn() -> bool + Send + Sync + use<> {
    let cookie = entered.way.and_then(|way| way.read(head));
    let known = entered.who.as_ref();
    let standing = known.and_then(|who| parts.sign_in.standing(&entered.gateway.admin, who, cookie));
    // Who looks on does not keep the program's parts when it ends.
    let parts = Arc::downgrade(parts);
    move || {
        let Some(parts) = parts.upgrade() else { return false };
        let gateway = Arc::clone(&parts.live.load().gateway);
        match &standing {
            Some(standing) => parts.sign_in.still_stands(&gateway.admin, standing),
            None => guard::is_open(&gateway, &parts.listen),
        }
    }
}

/// Lets through who may use the API.
pub async fn for_api(State(parts): State<Arc<Parts>>, mut request: Request, next: Next) -> Result<Response, Refused> {
    let entered = request.extensions().get::<Entered>().cloned();
    let entered = entered.ok_or_else(|| Refused::new(Refusal::Internal, "nobody judged this request"))?;
    let who = guard::caller(entered.who, &entered.gateway, &parts.listen)?;
    if guard::is_change(request.method()) {
        guard::may_change(&who, route(&request), &entered.gateway.admin)?;
    }
    request.extensions_mut().insert(who);
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_path_is_taken_away_where_it_stands() {
        let path = |uri: &str| without(&uri.parse().expect("a URI"), "/ops").map(|uri| uri.to_string());
        assert_eq!(path("/ops/events?a=1").as_deref(), Some("/events?a=1"));
        assert_eq!(path("/ops").as_deref(), Some("/"));
        assert_eq!((path("/opsx"), path("/events")), (None, None));
        assert_eq!(without(&"/events".parse().expect("a URI"), ""), None);
    }

    #[test]
    fn the_base_path_stands_before_the_next_page() {
        let link = HeaderValue::from_static("</api/events?after=a>; rel=\"next\"");
        assert_eq!(
            below("/ops", &link).as_ref().map(HeaderValue::as_bytes),
            Some(&b"</ops/api/events?after=a>; rel=\"next\""[..])
        );
        assert_eq!(below("", &link), None);
    }
}
