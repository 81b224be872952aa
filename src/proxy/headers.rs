//! Which headers cross the proxy door, in both directions.
//!
//! What a caller must not decide (who is called, with which credential, on whose behalf) and what
//! belongs to one connection only is dropped before anything is added. Called by [`super::forward`].

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType};

use super::Call;
use crate::net::dial::MOCK_HEADER;
use crate::net::exchange::is_chunked;
use crate::outbound::credential::Placed;
use crate::outbound::visible::is_not_for_the_caller;

/// What is dropped from requests by exact name. Names that begin with `x-forwarded-`, `proxy-` and
/// `trunkline-` go as well.
fn is_ours_to_set(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::COOKIE
            | header::HOST
            | header::FORWARDED
            | header::VIA
            | header::EXPECT
            | header::CONNECTION
            | header::UPGRADE
            | header::TE
            | header::TRAILER
    ) || matches!(
        name.as_str(),
        "x-real-ip"
            | "x-client-ip"
            | "x-cluster-client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "x-original-url"
            | "x-rewrite-url"
            | "x-original-host"
            | "x-host"
            | "x-api-key"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
            | "keep-alive"
            | "http2-settings"
            | "cookie2"
    ) || has_prefix(name, &["x-forwarded", "proxy-", "trunkline-"])
}

fn has_prefix(name: &HeaderName, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Makes a caller's request head into the one that the service gets. Pingora has taken out what
/// `Connection` names before this runs, so nothing that is added here can be named by it.
///
/// # Errors
/// When the target or a header cannot be written, which checks before have excluded.
pub fn to_service(request: &mut RequestHeader, call: &Call, via: &HeaderValue, mock: bool) -> pingora::Result<()> {
    let websocket = request.headers.contains_key(header::UPGRADE);
    let credential = call.ready.credential().header();
    // What is set below is replaced there; taking it out first would only cost.
    let replaced = |name: &HeaderName| {
        matches!(*name, header::HOST | header::VIA) || credential.is_some_and(|(set, _)| set == name)
    };
    let dropped = request.headers.keys().filter(|name| is_ours_to_set(name) && !replaced(name));
    let dropped: Vec<HeaderName> = dropped.cloned().collect();
    for name in dropped {
        request.remove_header(&name);
    }
    request.set_raw_path(call.target.as_bytes())?;
    request.insert_header(header::HOST, call.ready.common.host.clone())?;
    request.insert_header(header::VIA, via.clone())?;
    if websocket {
        request.insert_header(header::CONNECTION, "Upgrade")?;
        request.insert_header(header::UPGRADE, "websocket")?;
    }
    let common = &call.ready.common;
    for (name, value) in common.headers.iter().map(|(name, value)| (name, value)).chain(credential) {
        request.insert_header(name.clone(), value.clone())?;
    }
    if mock {
        request.insert_header(MOCK_HEADER, &*call.ready.integration.id)?;
    }
    Ok(())
}

/// The headers of a caller's request that a call of our own carries on.
pub fn kept(from: &HeaderMap) -> HeaderMap {
    let named = nominated(from);
    let stays = |name: &HeaderName| !is_ours_to_set(name) && !named.contains(name);
    from.iter().filter(|(name, _)| stays(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The headers of a service's answer that a caller gets.
pub fn kept_of_answer(from: &HeaderMap) -> HeaderMap {
    let named = nominated(from);
    let stays = |name: &HeaderName| !is_dropped(name, false) && !named.contains(name);
    from.iter().filter(|(name, _)| stays(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Leaves a service's answer with one framing that nobody reads in two ways, after Pingora has read it: of two equal
/// lengths one, and none where there is no body (RFC 9110 section 8.6).
///
/// # Errors
/// When the answer has a transfer coding that is not `chunked` alone, or any in HTTP/1.0 (RFC 9112 section 6.1): where
/// it ends is then in doubt.
pub fn settle_framing(response: &mut ResponseHeader) -> pingora::Result<()> {
    match is_chunked(&response.headers) {
        Some(chunked) if !(chunked && response.version == Version::HTTP_10) => {}
        _ => return Err(Error::explain(ErrorType::InvalidHTTPHeader, "where the answer ends is in doubt").into_up()),
    }
    if matches!(response.status, StatusCode::NO_CONTENT) {
        response.remove_header(&header::CONTENT_LENGTH);
        response.remove_header(&header::TRANSFER_ENCODING);
        return Ok(());
    }
    let mut lengths = response.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_some() || first.as_bytes().contains(&b',') {
        // Pingora has seen that all are the same.
        let one = first.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii().to_vec();
        response.insert_header(header::CONTENT_LENGTH, one)?;
    }
    Ok(())
}

/// Takes out of a service's answer what is not for the caller: cookies (a caller is not the account's
/// browser), offers of other routes to the service, names that only the gateway may use, and what tells the
/// credential on.
///
/// # Errors
/// When a header cannot be written.
pub fn to_caller(response: &mut ResponseHeader, credential: &Placed) -> pingora::Result<()> {
    let switching = response.status == http::StatusCode::SWITCHING_PROTOCOLS;
    let nominated = if switching { Vec::new() } else { nominated(&response.headers) };
    let dropped: Vec<HeaderName> = response
        .headers
        .keys()
        .filter(|name| is_dropped(name, switching) || nominated.contains(name))
        .cloned()
        .collect();
    for name in dropped {
        response.remove_header(&name);
    }
    for (name, values) in credential.told_on(&response.headers) {
        response.remove_header(&name);
        for value in values {
            response.append_header(name.clone(), value)?;
        }
    }
    Ok(())
}

/// Makes the trailers of an answer into those that the caller gets: like the head, without what is not for callers and
/// what tells the credential on, and without what RFC 9110, section 6.5.1 has no place for in them.
pub fn trailers_to_caller(trailers: &mut HeaderMap, credential: &Placed) {
    let dropped: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_dropped(name, false) || is_of_a_head(name) || has_prefix(name, &["trunkline-"]))
        .cloned()
        .collect();
    for name in dropped {
        trailers.remove(&name);
    }
    for (name, values) in credential.told_on(trailers) {
        trailers.remove(&name);
        for value in values {
            trailers.append(name.clone(), value);
        }
    }
}

/// What frames, routes, authenticates or describes a message, and so must come before its content.
fn is_of_a_head(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::CONTENT_TYPE
            | header::CONTENT_ENCODING
            | header::CONTENT_RANGE
            | header::HOST
            | header::LOCATION
            | header::LINK
            | header::CACHE_CONTROL
            | header::AUTHORIZATION
            | header::WWW_AUTHENTICATE
            | header::SET_COOKIE
            | header::TRAILER
    )
}

fn is_dropped(name: &HeaderName, switching: bool) -> bool {
    is_not_for_the_caller(name) || !switching && *name == header::UPGRADE
}

/// The headers that `Connection` names, framing aside.
fn nominated(headers: &HeaderMap) -> Vec<HeaderName> {
    let names =
        headers.get_all(header::CONNECTION).into_iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    names
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONTENT_TYPE))
        .take(16)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_bring_nothing_that_a_head_may_not() {
        let credential = Placed::default();
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "0"),
            ("set-cookie", "a=b"),
            ("trunkline-error", "x"),
            ("location", "/elsewhere"),
            ("content-type", "text/html"),
        ] {
            trailers.append(name, HeaderValue::from_static(value));
        }
        trailers_to_caller(&mut trailers, &credential);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status"]);
    }

    #[test]
    fn an_answer_has_one_framing_or_is_refused() {
        let settled = |version, status, pairs: &[(&'static str, &'static str)]| {
            let mut head = ResponseHeader::build(status, None).expect("a head");
            head.set_version(version);
            for (name, value) in pairs {
                head.append_header(*name, *value).expect("a header");
            }
            settle_framing(&mut head).ok()?;
            let all = |name| head.headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned());
            Some(all(header::CONTENT_LENGTH).chain(all(header::TRANSFER_ENCODING)).collect::<Vec<_>>())
        };
        let one = |text: &str| Some(vec![text.to_owned()]);
        assert_eq!(settled(Version::HTTP_11, 200, &[("transfer-encoding", "Chunked")]), one("Chunked"));
        assert_eq!(settled(Version::HTTP_11, 200, &[("content-length", "2, 2")]), one("2"));
        assert_eq!(settled(Version::HTTP_11, 200, &[("content-length", "2"), ("content-length", "2")]), one("2"));
        assert_eq!(settled(Version::HTTP_11, 204, &[("content-length", "2")]), Some(Vec::new()));
        assert_eq!(settled(Version::HTTP_11, 304, &[("content-length", "7")]), one("7"));
        for doubtful in ["xchunked", "identity", "chunked, gzip", "gzip, chunked", "chunked, chunked", ""] {
            assert_eq!(settled(Version::HTTP_11, 200, &[("transfer-encoding", doubtful)]), None, "{doubtful}");
        }
        assert_eq!(settled(Version::HTTP_10, 200, &[("transfer-encoding", "chunked")]), None);
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(settled(Version::HTTP_11, 200, &twice), None);
    }

    #[test]
    fn a_services_answer_keeps_what_is_for_the_caller() {
        let mut response = ResponseHeader::build(200, None).expect("a head");
        for (name, value) in [
            ("set-cookie", "a=b"),
            ("alt-svc", "h3"),
            ("trunkline-error", "spoofed"),
            ("connection", "x-hop, close"),
            ("x-hop", "1"),
            ("x-ratelimit-remaining", "7"),
            ("content-type", "text/plain"),
        ] {
            response.append_header(name, value).expect("a header");
        }
        to_caller(&mut response, &Placed::default()).expect("headers");
        let mut left: Vec<_> = response.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["connection", "content-type", "x-ratelimit-remaining"]);
    }
}
