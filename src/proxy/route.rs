//! Reads where a call is to go: `/{integration}/{path…}`, or `/{integration}/-/{endpoint}`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use super::path::{self, NormalPath, Unsafe};
use crate::base::units::parse_duration;
use crate::connection::DEFAULT;
use crate::respond::{Answer, Refusal};

/// The header that names the connection.
pub const CONNECTION_HEADER: HeaderName = HeaderName::from_static("trunkline-connection");
/// The header that says how long the token must last.
pub const VALIDITY_HEADER: HeaderName = HeaderName::from_static("trunkline-min-validity");
/// The header that names the token which a call carries.
pub const TOKEN_HEADER: HeaderName = HeaderName::from_static("trunkline-token");
/// The connection of calls that name none.
const DEFAULT_CONNECTION: &str = "default";

/// Where a call is to go; nothing of it is known to exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The integration's id.
    pub integration: &'a str,
    /// The path below the API's base, checked and in its normal form; begins with a slash.
    pub suffix: &'a str,
    /// The query, checked.
    pub query: Option<&'a str>,
    /// The endpoint's id, where one is called by name.
    pub endpoint: Option<&'a str>,
}

/// Reads a request's path and query.
///
/// # Errors
/// 404 when the path names no integration, 400 when the rest of it does not pass the gate.
pub fn read<'a>(path: &'a NormalPath<'_>, query: Option<&'a str>) -> Result<Route<'a>, Answer> {
    let rest = path.as_str().strip_prefix('/').unwrap_or_default();
    let (integration, suffix) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let checked = path::check_path(suffix).and_then(|()| query.map_or(Ok(()), path::check_query));
    checked.map_err(|Unsafe(detail)| Refusal::UnsafePath.answer(detail))?;
    if !is_id(integration) {
        return Err(Refusal::NotFound.answer("the path is not /{integration}/{path}"));
    }
    Ok(Route { integration, suffix, query, endpoint: suffix.strip_prefix("/-/") })
}

/// The connection that a call names.
///
/// # Errors
/// 404 when the name cannot be one.
pub fn connection(headers: &HeaderMap) -> Result<&str, Answer> {
    let Some(value) = headers.get(CONNECTION_HEADER) else { return Ok(DEFAULT_CONNECTION) };
    let name = value.to_str().ok().filter(|name| !name.is_empty() && name.len() <= 128);
    name.ok_or_else(|| Refusal::ConnectionUnknown.answer("Trunkline-Connection is not the id of a connection"))
}

/// The token that a call names: `Trunkline-Token: user`. The default one where it names none.
///
/// # Errors
/// 400 when the name cannot be one.
pub fn token(headers: &HeaderMap) -> Result<Option<&str>, Answer> {
    let Some(value) = headers.get(TOKEN_HEADER) else { return Ok(None) };
    let name = value.to_str().ok().filter(|name| !name.is_empty() && name.len() <= 64);
    let name = name.ok_or_else(|| Refusal::InvalidInput.answer("Trunkline-Token is not the name of a token"))?;
    Ok((name != DEFAULT).then_some(name))
}

/// How long the caller wants the token to last at least: `Trunkline-Min-Validity: 5m`. What is more than an
/// hour, or half of the token's life, counts as that.
///
/// # Errors
/// 400 when it is no duration.
pub fn min_validity(headers: &HeaderMap) -> Result<Duration, Answer> {
    let Some(value) = headers.get(VALIDITY_HEADER) else { return Ok(Duration::ZERO) };
    let read = value.to_str().ok().and_then(|text| parse_duration(text).ok());
    read.ok_or_else(|| Refusal::InvalidInput.answer("Trunkline-Min-Validity is not a duration such as 5m"))
}

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_validity_is_a_duration() {
        let read = |value: &'static str| {
            let headers = [(VALIDITY_HEADER, value.parse().expect("a value"))];
            min_validity(&headers.into_iter().collect()).map(|least| least.as_secs()).ok()
        };
        assert_eq!(
            [read("5m"), read("90s"), read("5"), read("-5m"), read("soon")],
            [Some(300), Some(90), None, None, None]
        );
        assert_eq!(min_validity(&HeaderMap::new()).ok(), Some(Duration::ZERO));
    }

    #[test]
    fn a_path_names_integration_and_suffix() {
        let read = |path| {
            let path = NormalPath::of(path);
            let route = read(&path, None).ok()?;
            Some(format!("{} {} {}", route.integration, route.suffix, route.endpoint.unwrap_or_default()))
        };
        assert_eq!(read("/stripe/v1/customers").as_deref(), Some("stripe /v1/customers "));
        assert_eq!(read("/%73tripe/v1/%63ustomers%3a").as_deref(), Some("stripe /v1/customers%3A "));
        assert_eq!(read("/stripe").as_deref(), Some("stripe / "));
        assert_eq!(read("/stripe/-/create").as_deref(), Some("stripe /-/create create"));
        assert_eq!(read("/stripe/%2D/create").as_deref(), Some("stripe /-/create create"));
        for path in [
            "/",
            "//x",
            "/Stripe/x",
            "/../x",
            "/a%2fb/x",
            "/stripe//evil",
            "/stripe/../x",
            "/stripe/%2e%2E/x",
            "/stripe/%2Fevil",
            "/.",
            "/a.b/",
        ] {
            assert_eq!(read(path), None, "{path}");
        }
    }
}
