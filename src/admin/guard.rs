//! Who may ask the admin door.
//!
//! Three walls, each for an attack that the others let through: the `Host` list against pages whose name
//! was rebound to our address, the origin check against pages that send requests blindly, and the token
//! against everybody else. Metrics and health need no token, so that probes can be simple.

use axum::extract::Request;
use http::{HeaderMap, Method, Uri, header};

use super::refusal::Refused;
use crate::definition::plan::gateway::{Admin, Gateway, Listen, Mode};
use crate::respond::Refusal;

/// Paths that need no token.
const OPEN: [&str; 4] = ["/metrics", "/livez", "/readyz", "/healthz"];
/// What to do when the door is shut.
const HELP: &str = "set `admin: { token: \"${env:TRUNKLINE_ADMIN_TOKEN}\" }` in trunkline.yaml and send it as \
    `Authorization: Bearer`";

/// What the settings say about who may ask.
#[derive(Debug)]
pub struct Access<'a> {
    admin: &'a Admin,
    /// Whether a request without a token is let in while none is set.
    trusting: bool,
}

impl<'a> Access<'a> {
    /// What the settings say for a door that listens at `listen`. Only in development, and only where
    /// nobody but this machine can reach the door, is a token not needed.
    pub fn of(gateway: &'a Gateway, listen: &Listen) -> Self {
        let near = match listen {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(..) => true,
        };
        Self { admin: &gateway.admin, trusting: near && gateway.fixed.mode == Mode::Development }
    }
}

/// Decides on a request from its head.
///
/// # Errors
/// The refusal to answer.
pub fn judge(request: &Request, access: &Access<'_>) -> Result<(), Refused> {
    let (headers, path) = (request.headers(), request.uri().path());
    let host = host_of(headers, request.uri())?;
    if !is_ours(&host, access.admin) {
        return Err(Refused::with_help(
            Refusal::Misdirected,
            &format!("`{host}` is not a name of this door"),
            "name it under `admin: { hosts: […] }` in trunkline.yaml, or ask by address",
        ));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        refuse_foreign_pages(headers)?;
    }
    if OPEN.contains(&path) { Ok(()) } else { check_token(headers, access) }
}

/// The authority the request is for.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Result<String, Refused> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let refuse = |detail| Refused::new(Refusal::MalformedRequest, detail);
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err(refuse("a request needs one `Host`"));
    };
    let host = host.to_str().map_err(|_| refuse("`Host` is not text"))?;
    if uri.authority().is_some_and(|authority| authority.as_str() != host) {
        return Err(refuse("the request names two hosts"));
    }
    Ok(host.to_ascii_lowercase())
}

/// Whether a host is one of ours. A literal address cannot be rebound, so any of them is.
fn is_ours(host: &str, admin: &Admin) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => return v6.split_once(']').is_some_and(|(v6, _)| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost"
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || admin.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Browsers say which page a request comes from; other programs say nothing.
fn refuse_foreign_pages(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    let foreign_site = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.contains_key(header::ORIGIN) && {
        let authority =
            text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        authority.is_none() || authority != text(header::HOST)
    };
    if foreign_site || foreign_origin {
        return Err(Refused::new(Refusal::OriginForbidden, "the request comes from a page of another site"));
    }
    Ok(())
}

fn check_token(headers: &HeaderMap, access: &Access<'_>) -> Result<(), Refused> {
    let Some(expected) = &access.admin.token_hash else {
        return if access.trusting {
            Ok(())
        } else {
            let detail = "no admin token is set, and this is not development mode on loopback";
            Err(Refused::with_help(Refusal::AdminClosed, detail, HELP))
        };
    };
    let given = headers.get(header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
    let Some((scheme, token)) = given.and_then(|given| given.split_at_checked(7)) else {
        return Err(Refused::with_help(Refusal::AdminUnknown, "there is no admin token", HELP));
    };
    let digest = ring::digest::digest(&ring::digest::SHA256, token);
    // Every byte is looked at, whatever the first ones say.
    let differ = digest.as_ref().iter().zip(expected).fold(0, |differ, (a, b)| differ | (a ^ b));
    if scheme.eq_ignore_ascii_case(b"bearer ") && differ == 0 {
        return Ok(());
    }
    Err(Refused::with_help(Refusal::AdminUnknown, "the admin token is wrong", HELP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse;

    fn access(admin: &Admin, trusting: bool) -> Access<'_> {
        Access { admin, trusting }
    }

    fn status(request: http::request::Builder, access: &Access<'_>) -> u16 {
        let request = request.body(Body::empty()).expect("a request");
        judge(&request, access).map_or_else(|refused| refused.into_response().status().as_u16(), |()| 200)
    }

    fn get(path: &str, host: &str) -> http::request::Builder {
        Request::get(path).header("host", host)
    }

    #[test]
    fn a_rebound_name_is_refused_and_an_address_is_not() {
        let admin = Admin { token_hash: None, hosts: vec!["trunkline.internal".to_owned()] };
        let access = access(&admin, true);
        for host in
            ["localhost:8082", "LOCALHOST.", "127.0.0.1", "[::1]:8082", "10.0.0.7:8082", "Trunkline.Internal:80"]
        {
            assert_eq!(status(get("/api/events", host), &access), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "[::1", "[evil]:80"] {
            assert_eq!(status(get("/metrics", host), &access), 421, "{host}");
        }
        assert_eq!(status(Request::get("/livez"), &access), 400);
        assert_eq!(status(get("/livez", "localhost").header("host", "localhost"), &access), 400);
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let admin = Admin::default();
        let access = access(&admin, true);
        let post = || Request::post("/api/reload").header("host", "localhost:8082");
        assert_eq!(status(post(), &access), 200);
        assert_eq!(status(post().header("origin", "http://localhost:8082"), &access), 200);
        assert_eq!(status(post().header("sec-fetch-site", "same-origin"), &access), 200);
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("origin", "http://localhost:9999"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            assert_eq!(status(post().header(name, value), &access), 403, "{name}: {value}");
        }
    }

    #[test]
    fn without_development_a_token_is_needed_for_all_but_health() {
        let digest = ring::digest::digest(&ring::digest::SHA256, b"0123456789abcdef");
        let admin = Admin { token_hash: digest.as_ref().try_into().ok(), hosts: Vec::new() };
        let with = access(&admin, true);
        let ask = |value: &str| get("/api/config", "localhost").header("authorization", value);
        assert_eq!(status(ask("Bearer 0123456789abcdef"), &with), 200);
        for wrong in ["Bearer 0123456789abcdeF", "Basic 0123456789abcdef", "Bearer", "", "0123456789abcdef"] {
            assert_eq!(status(ask(wrong), &with), 401, "{wrong}");
        }
        assert_eq!(status(get("/readyz", "localhost"), &with), 200);
        let unset = Admin::default();
        assert_eq!(status(get("/api/config", "localhost"), &access(&unset, false)), 403);
        assert_eq!(status(get("/metrics", "localhost"), &access(&unset, false)), 200);
    }
}
