//! Where an API is: its base URL with the slots filled in, and whether calls may go there.
//!
//! A base URL is taken apart once, strictly, and put together again from its parts: nothing is ever
//! joined to it by URL resolution, so a suffix cannot change where a call goes. Called by `request` and
//! `proxy`.

use crate::base::origin::{self, names_loopback};
pub use crate::base::origin::{Origin, Scheme};
use crate::definition::plan::api::{Api, HostPattern};
use crate::definition::plan::gateway::{Gateway, Mode};
use crate::respond::Refusal;
use crate::template::{Context, Segment, TemplateError, Text};

/// Where an API is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Scheme, host and port.
    pub origin: Origin,
    /// The path all calls are below: empty, or beginning with a slash and not ending with one.
    pub path: String,
    /// Whether the definition itself writes out the host, instead of a value learned at run time.
    pub literal_host: bool,
}

/// Why calls cannot go where a base URL says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BaseError {
    /// The template gave no value.
    #[error("`base_url`: {0}")]
    Template(#[from] TemplateError),
    /// A value does not fit its place in the URL.
    #[error("a value of this connection does not fit into `base_url`")]
    Value,
    /// It is not a URL of the kind a base can be.
    #[error("the base URL is not `https://HOST/PATH` without user, query and fragment")]
    Shape,
    /// The host is not one that the definition names.
    #[error("`{0}` is not among the hosts that the definition names")]
    Host(String),
    /// It is plain HTTP.
    #[error("`{0}` would be called by plain HTTP, which the definition does not allow")]
    PlainHttp(String),
}

impl BaseError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Host(_) | Self::PlainHttp(_) => Refusal::HostForbidden,
            Self::Template(_) | Self::Value | Self::Shape => Refusal::DefinitionFailed,
        }
    }
}

impl Base {
    /// The base of an API for one connection, checked: `context` holds `input` and `saved`.
    ///
    /// # Errors
    /// When a slot has no value, a value does not fit, or calls may not go there.
    pub fn of(api: &Api, gateway: &Gateway, context: &Context) -> Result<Self, BaseError> {
        let base = Self::fill(&api.base_url, context)?;
        allow(api, gateway, &base.origin, base.literal_host)?;
        Ok(base)
    }

    /// The base that a template gives, not yet checked against hosts. A lone slot is a whole URL, and so is
    /// one that a path follows, as in `{{ saved.instance }}/v1`; a slot in the host takes letters, digits,
    /// dots and hyphens; a slot in the path is one segment.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn fill(template: &Text, context: &Context) -> Result<Self, BaseError> {
        if let Some(literal) = template.literal() {
            return Self::parse(literal, true);
        }
        let segments = template.segments().ok_or(BaseError::Shape)?;
        if let [Segment::Slot(_)] = &*segments {
            return Self::parse(&template.render(context)?, false);
        }
        let mut url = String::new();
        let mut literal_host = true;
        let mut rest = &*segments;
        if let [Segment::Slot(start), Segment::Literal(path), ..] = rest
            && path.starts_with('/')
        {
            let start = Self::parse(&start.text(context)?.ok_or(BaseError::Value)?, false)?;
            url = format!("{}{}", start.origin, start.path);
            (literal_host, rest) = (false, rest.get(1..).unwrap_or_default());
        }
        for segment in rest {
            match segment {
                Segment::Literal(text) => url.push_str(text),
                Segment::Slot(slot) => {
                    let value = slot.text(context)?.ok_or(BaseError::Value)?;
                    let in_path = url.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
                    literal_host &= in_path;
                    place(&value, in_path, &mut url)?;
                }
            }
        }
        Self::parse(&url, literal_host)
    }

    /// Takes a URL apart.
    ///
    /// # Errors
    /// [`BaseError::Shape`] when it is not `http(s)://HOST[:PORT][/PATH]` in visible ASCII.
    pub fn parse(url: &str, literal_host: bool) -> Result<Self, BaseError> {
        let (origin, path) = origin::take_apart(url).ok_or(BaseError::Shape)?;
        let path = path.trim_end_matches('/');
        if !origin::is_plain_path(path) {
            return Err(BaseError::Shape);
        }
        Ok(Self { origin, path: path.to_owned(), literal_host })
    }
}

/// Whether calls of an API may go to an origin: a host the definition writes out or lists, and HTTPS
/// unless the definition allows otherwise or development mode calls loopback.
///
/// # Errors
/// [`BaseError::Host`] or [`BaseError::PlainHttp`].
pub fn allow(api: &Api, gateway: &Gateway, origin: &Origin, literal_host: bool) -> Result<(), BaseError> {
    allow_named((&api.hosts, api.transport.allow_plain_http), gateway, origin, literal_host)
}

/// As [`allow`], for calls that belong to no API: `hosts` are those that are listed, and whether plain
/// HTTP is allowed.
///
/// # Errors
/// As [`allow`].
pub fn allow_named(
    (hosts, plain_http): (&[HostPattern], bool),
    gateway: &Gateway,
    origin: &Origin,
    literal_host: bool,
) -> Result<(), BaseError> {
    if !literal_host && !hosts.iter().any(|pattern| pattern.matches(&origin.host)) {
        return Err(BaseError::Host(origin.host.clone()));
    }
    let loopback = gateway.fixed.mode == Mode::Development && literal_host && names_loopback(&origin.host);
    if origin.scheme == Scheme::Http && !plain_http && !loopback {
        return Err(BaseError::PlainHttp(origin.host.clone()));
    }
    Ok(())
}

/// Puts a value into its place: as it is into a host, as one percent-encoded segment into a path.
fn place(value: &str, in_path: bool, url: &mut String) -> Result<(), BaseError> {
    if !in_path {
        let fits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        url.push_str(if fits { value } else { return Err(BaseError::Value) });
        return Ok(());
    }
    if matches!(value, "" | "." | "..") {
        return Err(BaseError::Value);
    }
    url.extend(percent_encoding::utf8_percent_encode(value, SEGMENT));
    Ok(())
}

/// What is encoded in a value that stands for one segment of a path: all but RFC 3986's unreserved.
pub const SEGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, value: &str) -> Result<String, BaseError> {
        let text = Text::compile(template).expect("compiles");
        Base::fill(&text, &Context::new().with("v", value)).map(|base| format!("{}{}", base.origin, base.path))
    }

    #[test]
    fn a_base_url_is_read_strictly() {
        let parse = |url: &str| Base::parse(url, true).map(|base| format!("{}{}", base.origin, base.path));
        for (url, expected) in [
            ("https://API.example.com", "https://api.example.com"),
            ("https://api.example.com:443/", "https://api.example.com"),
            ("https://api.example.com:8443/v1/", "https://api.example.com:8443/v1"),
            ("http://127.0.0.1:80/a", "http://127.0.0.1/a"),
            ("https://[::1]:9/a", "https://[::1]:9/a"),
        ] {
            assert_eq!(parse(url).as_deref(), Ok(expected), "{url}");
        }
        for url in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https:///a",
            "https://u@a",
            "https://u:p@a",
            "https://a:0",
            "https://a:",
            "https://a:+1",
            "https://a:70000",
            "https://a?x",
            "https://a#x",
            "https://a/b?c",
            "https://a/../b",
            "https://a/%2e%2e/b",
            "https://a//b",
            "https://a/b%2fc",
            "https://a/b\\c",
            "https://a\\b",
            "https://a b",
            "https://0x7f.1",
            "https://127.1",
            "https://[::1",
            "https://[v1.a]",
            "HTTPS://a",
            "https://a\t/b",
        ] {
            assert_eq!(parse(url), Err(BaseError::Shape), "{url}");
        }
    }

    #[test]
    fn values_stay_in_their_place() {
        assert_eq!(fill("https://{{ v }}.example.com/x", "shop-1").as_deref(), Ok("https://shop-1.example.com/x"));
        assert_eq!(fill("https://a.example/v/{{ v }}/w", "é?#").as_deref(), Ok("https://a.example/v/%C3%A9%3F%23/w"));
        assert_eq!(fill("{{ v }}", "https://na1.example.com/s").as_deref(), Ok("https://na1.example.com/s"));
        assert_eq!(fill("{{ v }}/v1/x", "https://na1.example.com/s/").as_deref(), Ok("https://na1.example.com/s/v1/x"));
        for value in ["na1.example.com", "https://u@a", "https://a?x", "https://a#", "https://a/..", "", "https://a\\b"]
        {
            assert!(fill("{{ v }}/v1/x", value).is_err(), "{value}");
        }
        for value in ["evil.com/", "a@b", "a:1", "", "a#", "a?", "a\\b", "é"] {
            assert!(fill("https://{{ v }}.example.com/x", value).is_err(), "{value}");
        }
        for value in ["..", ".", "", "a/b", "a\\b", "a\nb"] {
            assert!(fill("https://a.example/{{ v }}/w", value).is_err(), "{value}");
        }
    }
}
