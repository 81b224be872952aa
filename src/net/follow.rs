//! Where a redirect leads, and what of the call goes along.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use url::{Host, Url};

use super::client::url_of;
use super::exchange::{Follow, Outgoing, Received, Towards};
use super::origin::{Origin, Scheme};
use crate::base::secret::Secret;

/// The call that a redirect asks for; `None` when the answer is no redirect, or is one that may not be
/// followed: then it is the answer. How often it goes on is for whoever sends it to count.
pub fn redirected(outgoing: &Outgoing, follow: &Follow, received: &Received) -> Option<Outgoing> {
    let method = method_after(&outgoing.method, received.status)?;
    let target = target(&url_of(outgoing).ok()?, &received.headers)?;
    let origin = origin_of(&target)?;
    let mut next = outgoing.clone();
    target.path().clone_into(&mut next.path);
    next.query = target.query().map(str::to_owned);
    // A service that repeats the credential in its own URL would otherwise get it twice.
    let repeated = |pair: &Arc<Secret>| target.query().is_some_and(|query| query.contains(pair.expose().as_str()));
    next.secret_query = next.secret_query.filter(|pair| !repeated(pair));
    if method != outgoing.method {
        next.body = Bytes::new();
        next.headers.remove(header::CONTENT_TYPE);
    }
    if origin != outgoing.origin {
        next = at_another_origin(next, (outgoing, follow), &origin, &method)?;
    }
    (next.method, next.origin) = (method, origin);
    Some(next)
}

/// The method of the next call. A call that changes something is never repeated because of a redirect.
fn method_after(method: &Method, status: StatusCode) -> Option<Method> {
    let safe = method == Method::GET || method == Method::HEAD;
    match status {
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT
            if safe =>
        {
            Some(method.clone())
        }
        StatusCode::SEE_OTHER => Some(if *method == Method::HEAD { Method::HEAD } else { Method::GET }),
        _ => None,
    }
}

fn target(current: &Url, headers: &HeaderMap) -> Option<Url> {
    let mut locations = headers.get_all(header::LOCATION).iter();
    let location = locations.next()?.to_str().ok()?;
    if locations.next().is_some() {
        return None;
    }
    let mut target = current.join(location).ok()?;
    target.set_fragment(None);
    (target.username().is_empty() && target.password().is_none()).then_some(target)
}

fn origin_of(url: &Url) -> Option<Origin> {
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let host = match url.host()? {
        Host::Domain(name) => name.to_owned(),
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => format!("[{address}]"),
    };
    Some(Origin { scheme, host, port: url.port_or_known_default()? })
}

/// Whether a query has a credential in it that went out as a pair of one, in whatever spelling.
fn repeats(query: &str, pair: &Secret) -> bool {
    let decoded =
        |text: &str| -> Vec<(String, String)> { url::form_urlencoded::parse(text.as_bytes()).into_owned().collect() };
    let secrets = decoded(pair.expose());
    let fields = decoded(query);
    let holds = |secret: &str| fields.iter().any(|(name, value)| name.contains(secret) || value.contains(secret));
    secrets.iter().any(|(_, secret)| !secret.is_empty() && holds(secret))
}

/// The call at another origin: nothing of what was added for the first one goes along.
fn at_another_origin(
    mut next: Outgoing,
    (from, follow): (&Outgoing, &Follow),
    origin: &Origin,
    method: &Method,
) -> Option<Outgoing> {
    let safe = *method == Method::GET || *method == Method::HEAD;
    // A service that repeats the query it was asked with would send the credential to another's logs.
    if from.secret_query.as_ref().is_some_and(|pair| repeats(next.query.as_deref().unwrap_or_default(), pair)) {
        return None;
    }
    let listed = follow.hosts.iter().any(|pattern| pattern.matches(&origin.host));
    let downgraded = origin.scheme == Scheme::Http && from.origin.scheme == Scheme::Https;
    if !safe || !listed || downgraded {
        return None;
    }
    next.secret_query = None;
    next.body = Bytes::new();
    next.headers =
        from.headers.get(header::ACCEPT).map(|accept| (header::ACCEPT, accept.clone())).into_iter().collect();
    match &mut next.towards {
        Towards::Service { reach, transport, .. } => {
            reach.clone_from(&follow.reach);
            transport.identity = None;
        }
        Towards::Destination { .. } => return None,
    }
    Some(next)
}
