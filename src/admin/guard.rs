//! Who may ask the admin door, and for what.
//!
//! Walls, each for an attack that the others let through: the `Host` list against pages whose name was rebound to
//! our address, the origin check against pages that send requests blindly, tokens and sessions against everybody
//! else, the form's word against what the origin check cannot see, the role. [`judge`] and [`identify`] look at every
//! request; the API and the page each say themselves that they want to know who asks. Metrics and health do not, so
//! that probes can be simple.

use std::net::IpAddr;

use axum::extract::Request;
use http::{HeaderMap, Method, Uri, header};

use super::refusal::Refused;
use super::sign_in::cookie::Way;
use super::sign_in::{self, Identity, LOCAL, Proof, SignIn, TOKEN_HELP};
use crate::definition::plan::gateway::{Admin, Gateway, Listen, Mode, Role};
use crate::respond::Refusal;

/// Looks at where a request is for and where it comes from. Returns the host it is for, in lower case.
///
/// # Errors
/// The refusal to answer.
pub fn judge(request: &Request, admin: &Admin) -> Result<String, Refused> {
    let headers = request.headers();
    let host = host_of(headers, request.uri())?;
    if !is_ours(&host, admin) {
        return Err(Refused::with_help(
            Refusal::Misdirected,
            &format!("`{host}` is not a name of this door"),
            "name it under `admin: { hosts: […] }` in trunkline.yaml, or ask by address",
        ));
    }
    refuse_foreign_pages(request, admin)?;
    Ok(host)
}

/// Whether a request with this method may change something.
pub fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What of a request says who makes it.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its token or cookie.
    pub headers: &'a HeaderMap,
    /// How its browser comes.
    pub way: Option<Way>,
    /// Where it comes from.
    pub source: Option<IpAddr>,
}

/// Who makes a request: by token, else by session.
///
/// # Errors
/// When it shows a token that is nobody's, there were too many of those, or the store fails.
pub async fn identify(shown: Shown<'_>, admin: &Admin, sign_in: &SignIn) -> Result<Option<Identity>, Refused> {
    if let Some(given) = sign_in::bearer(shown.headers) {
        // Where the door is open, a token that nobody asked for is no fault.
        return if admin.accounts.is_empty() {
            Ok(None)
        } else {
            sign_in.by_token(admin, given, shown.source).map(Some)
        };
    }
    match shown.way.and_then(|way| way.read(shown.headers)) {
        Some(cookie) => sign_in.of_session(admin, cookie).await,
        None => Ok(None),
    }
}

/// Whether a door that listens at `listen` answers the API without a token: only in development, only where nobody
/// but this machine can reach the door, and only while nobody is named who has one.
pub fn is_open(gateway: &Gateway, listen: &Listen) -> bool {
    let near = match listen {
        Listen::Tcp(address) => address.ip().is_loopback(),
        Listen::Unix(..) => true,
    };
    near && gateway.fixed.mode == Mode::Development && gateway.admin.accounts.is_empty()
}

/// Who uses the API.
///
/// # Errors
/// When that is not known and the door is not open.
pub fn caller(known: Option<Identity>, gateway: &Gateway, listen: &Listen) -> Result<Identity, Refused> {
    if let Some(known) = known {
        return Ok(known);
    }
    if is_open(gateway, listen) {
        return Ok(Identity { name: LOCAL.into(), role: Role::Operator, proof: Proof::Near });
    }
    if gateway.admin.accounts.is_empty() {
        let detail = "no admin token is set, and this is not development mode on loopback";
        return Err(Refused::with_help(Refusal::AdminClosed, detail, TOKEN_HELP));
    }
    Err(Refused::with_help(Refusal::AdminUnknown, "there is no admin token", TOKEN_HELP))
}

/// Routes of what a read-only deployment still takes: it changes nothing that files say.
const GOES_ON: [&str; 19] = [
    "/api/reload",
    "/api/events/{id}/replay",
    "/api/deliveries/replay",
    "/api/replays",
    "/api/replays/{id}/run",
    "/api/replays/{id}/cancel",
    "/api/deliveries/{id}/replay",
    "/api/integrations/test",
    "/api/integrations/connections/{id}/test",
    "/api/webhooks/{id}/test",
    "/api/keys/check",
    "/configuration/reload",
    "/events/{id}/replay",
    "/dead-letters/replay",
    "/replays/{id}/run",
    "/replays/{id}/cancel",
    "/deliveries/{id}/replay",
    "/connections/{id}/test",
    "/webhooks/{id}/test",
];

/// Whether someone may make a request that changes something, by its route as it is declared (`/events/{id}/replay`);
/// an address that has none changes nothing.
///
/// # Errors
/// When their role or the settings do not allow it.
pub fn may_change(who: &Identity, route: &str, admin: &Admin) -> Result<(), Refused> {
    // Neither changes more than whether the one who asks is signed in.
    if matches!(route, "/sign-out" | "/api/sign-in-links") {
        return Ok(());
    }
    if who.role == Role::Viewer {
        let detail = format!("`{}` may see everything here and change nothing", who.name);
        return Err(Refused::with_help(Refusal::RoleForbidden, &detail, "ask an operator"));
    }
    if admin.read_only && !GOES_ON.contains(&route) {
        let help = "change the deployment's files; `admin.read_only` says so";
        return Err(Refused::with_help(Refusal::ReadOnly, "page and API change nothing in this deployment", help));
    }
    Ok(())
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

/// Browsers say which page a request comes from; other programs say nothing. A proxy may name this door by another
/// `Host` than people do: the origin of `admin.url` is ours as well.
///
/// Links lead from elsewhere to screens, and to nothing else: the API is for programs and for our own pages, since what
/// it answers may stay open for hours, or be written down under the name of whoever is signed in. Who follows a link
/// sends no origin, and a browser that says nothing of how it asks is an old one.
fn refuse_foreign_pages(request: &Request, admin: &Admin) -> Result<(), Refused> {
    let headers = request.headers();
    if *request.method() == Method::OPTIONS {
        return Ok(());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").map(http::HeaderValue::as_bytes);
    let is_followed = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate") && is_screen(request);
    let foreign_site = !is_followed && site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let foreign_origin = headers.contains_key(header::ORIGIN) && {
        let authority =
            text(header::ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
        let is_outside = admin
            .url
            .as_ref()
            .is_some_and(|url| Some(url.origin().ascii_serialization().as_str()) == text(header::ORIGIN));
        !is_outside && (authority.is_none() || authority != text(header::HOST))
    };
    if foreign_site || foreign_origin {
        let help = "behind a proxy, say under `admin.url` where people reach the page, or let it pass `Host` on";
        let detail = "the request comes from a page of another site";
        return Err(Refused::with_help(Refusal::OriginForbidden, detail, help));
    }
    Ok(())
}

/// Whether a request only looks at what is for people.
fn is_screen(request: &Request) -> bool {
    let path = request.uri().path();
    !is_change(request.method()) && !path.starts_with("/api/") && !path.ends_with("/stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::response::IntoResponse;

    fn status(request: http::request::Builder, admin: &Admin) -> u16 {
        let request = request.body(Body::empty()).expect("a request");
        judge(&request, admin).map_or_else(|refused| refused.into_response().status().as_u16(), |_| 200)
    }

    fn get(path: &str, host: &str) -> http::request::Builder {
        Request::get(path).header("host", host)
    }

    #[test]
    fn a_rebound_name_is_refused_and_an_address_is_not() {
        let access = Admin { hosts: vec!["trunkline.internal".to_owned()], ..Admin::default() };
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
        let access = Admin::default();
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
        // Behind a proxy that names the door by its address.
        let url = url::Url::parse("https://ops.example.com/trunkline").expect("a URL");
        let access = Admin { url: Some(url), ..Admin::default() };
        let through = |origin: &str| {
            let post = Request::post("/api/reload").header("host", "127.0.0.1:8082").header("origin", origin);
            status(post.header("sec-fetch-site", "same-origin"), &access)
        };
        assert_eq!(through("https://ops.example.com"), 200);
        for origin in ["http://ops.example.com", "https://ops.example.com:8443", "https://evil.example", "null"] {
            assert_eq!(through(origin), 403, "{origin}");
        }
    }

    #[test]
    fn pages_of_other_sites_follow_links_to_screens_and_read_nothing_else() {
        let access = Admin::default();
        let asked = |path: &str, fields: &[(&str, &str)]| {
            let request = get(path, "localhost:8082");
            status(fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)), &access)
        };
        let [cross, same] = ["cross-site", "same-site"].map(|site| ("sec-fetch-site", site));
        let link = ("sec-fetch-mode", "navigate");
        for path in ["/", "/events?state=dead", "/sign-in/link?t=x", "/metrics"] {
            for fields in [&[][..], &[cross, link], &[same, link], &[cross]] {
                assert_eq!(asked(path, fields), 200, "{path} {fields:?}");
            }
            for fields in [&[cross, ("sec-fetch-mode", "no-cors")][..], &[("origin", "http://evil.example")]] {
                assert_eq!(asked(path, fields), 403, "{path} {fields:?}");
            }
        }
        for path in ["/api/export", "/api/activity/stream", "/api/integrations/1/logs/stream", "/activity/stream"] {
            for own in [&[][..], &[("sec-fetch-site", "same-origin")], &[("sec-fetch-site", "none"), link]] {
                assert_eq!(asked(path, own), 200, "{path} {own:?}");
            }
            for fields in [&[cross, link][..], &[same], &[("origin", "null")], &[("origin", "http://localhost:9999")]] {
                assert_eq!(asked(path, fields), 403, "{path} {fields:?}");
            }
        }
    }

    #[test]
    fn viewers_change_nothing_and_nobody_does_what_only_files_may() {
        let who = |role| Identity { name: "ada".into(), role, proof: Proof::Token };
        let may = |role, route: &str, read_only| {
            may_change(&who(role), route, &Admin { read_only, ..Admin::default() }).is_ok()
        };
        assert!(may(Role::Operator, "/api/connect-links", false) && !may(Role::Operator, "/api/connect-links", true));
        for route in GOES_ON {
            assert!(may(Role::Operator, route, true) && !may(Role::Viewer, route, false), "{route}");
        }
        for route in ["", "/x/reload", "/api/integrations/{id}/registration/test", "/api/events/replay"] {
            assert!(!may(Role::Operator, route, true), "{route}");
        }
        assert!(may(Role::Viewer, "/sign-out", true));
    }
}
