//! Who calls, and what they may do.

use http::{HeaderMap, Method, header};
use sha2::{Digest, Sha256};

use super::route::Route;
use crate::connection::DEFAULT;
use crate::definition::plan::gateway::{Caller, Gateway, Grant};
use crate::respond::{Answer, Refusal};

/// The caller whose key a request carries. Every known key is compared in full, so that neither the
/// number of matching bytes nor the place in the list shows in the time it takes.
///
/// # Errors
/// 401 when there is no key, or an unknown one.
pub fn identify<'a>(gateway: &'a Gateway, headers: &HeaderMap) -> Result<&'a Caller, Answer> {
    let key = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes())).ok_or_else(|| {
        unknown("send the caller's key as `Authorization: Bearer KEY`; the service's credential is added here")
    })?;
    let hash: [u8; 32] = Sha256::digest(key).into();
    let mut found = None;
    for caller in &gateway.callers {
        let difference = caller.key_hash.iter().zip(&hash).fold(0, |all, (ours, theirs)| all | (ours ^ theirs));
        if std::hint::black_box(difference) == 0 {
            found = Some(caller);
        }
    }
    found.ok_or_else(|| unknown("the key is not one of a known caller"))
}

fn unknown(detail: &str) -> Answer {
    Refusal::CallerUnknown
        .answer(detail)
        .with(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer realm=\"trunkline\""))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    let key = key.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

/// Whether a caller may make a call: any of its grants may allow it. `token` is the connection's token that the call
/// names, the default one without; an endpoint that is called by name carries the one of its definition. `method` is what is asked of the service;
/// none, where there is no such endpoint, is covered only by grants of all methods.
///
/// # Errors
/// 403 when none does. The answer is the same for what does not exist.
pub fn permit(
    caller: &Caller,
    method: Option<&Method>,
    route: &Route<'_>,
    (connection, token): (&str, Option<&str>),
) -> Result<(), Answer> {
    let allows = |grant: &Grant| {
        grant.integration.matches(route.integration)
            && grant.connection.matches(connection)
            && (grant.methods.is_empty() || method.is_some_and(|method| grant.methods.contains(method)))
            && (grant.paths.is_empty() || grant.paths.iter().any(|path| path.matches(route.suffix)))
            && (grant.tokens.is_empty() || grant.tokens.iter().any(|known| known.matches(token.unwrap_or(DEFAULT))))
    };
    if caller.allow.iter().any(allows) {
        return Ok(());
    }
    Err(Refusal::CallerForbidden
        .answer("none of the caller's grants covers this integration, connection, method, path and token"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::rule::Glob;
    use std::sync::Arc;

    fn allowed(grant: Grant, method: &Method, path: &str, connection: &str) -> bool {
        let caller = Caller { id: Arc::from("app"), key_hash: [0; 32], allow: vec![grant] };
        let path = super::super::path::NormalPath::of(path);
        let route = super::super::route::read(&path, None).expect("a route");
        permit(&caller, Some(method), &route, (connection, None)).is_ok()
    }

    #[test]
    fn grants_are_by_integration_connection_method_and_path() {
        let grant = || Grant {
            integration: Glob::new("stripe"),
            connection: Glob::new("team-*"),
            methods: vec![Method::GET],
            paths: vec![Glob::new("/v1/customers*")],
            tokens: Vec::new(),
        };
        assert!(allowed(grant(), &Method::GET, "/stripe/v1/customers/1", "team-a"));
        assert!(!allowed(grant(), &Method::POST, "/stripe/v1/customers", "team-a"));
        assert!(!allowed(grant(), &Method::GET, "/stripe/v1/charges", "team-a"));
        assert!(!allowed(grant(), &Method::GET, "/stripe/v1/customers", "other"));
        assert!(!allowed(grant(), &Method::GET, "/github/v1/customers", "team-a"));
        assert!(allowed(grant(), &Method::GET, "/stripe/v1/%63ustomers", "team-a"));
        let exact = || Grant { paths: vec![Glob::new("/v1/customers")], ..grant() };
        assert!(!allowed(exact(), &Method::GET, "/stripe/v1/customers/", "team-a"), "a grant does not grow");
    }

    #[test]
    fn a_grant_of_some_tokens_covers_no_other() {
        let all = Glob::new("*");
        let grant = |tokens: &[&str]| Grant {
            integration: all.clone(),
            connection: all.clone(),
            methods: Vec::new(),
            paths: Vec::new(),
            tokens: tokens.iter().map(|name| Glob::new(name)).collect(),
        };
        let allows = |tokens: &[&str], token: Option<&str>| {
            let caller = Caller { id: Arc::from("app"), key_hash: [0; 32], allow: vec![grant(tokens)] };
            let path = super::super::path::NormalPath::of("/slack/chat.postMessage");
            let route = super::super::route::read(&path, None).expect("a route");
            permit(&caller, Some(&Method::POST), &route, ("team", token)).is_ok()
        };
        assert!(allows(&[], None) && allows(&[], Some("user")), "no list is all of them");
        assert!(allows(&["default"], None) && !allows(&["default"], Some("user")));
        assert!(allows(&["u*"], Some("user")) && !allows(&["u*"], None));
    }

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer(b"bearer  k "), Some(&b"k"[..]));
        for value in [&b"Basic x"[..], b"Bearer ", b"Bearer", b"Bearerk", b"k", b""] {
            assert_eq!(bearer(value), None);
        }
    }
}
