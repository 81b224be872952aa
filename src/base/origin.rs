//! Where a URL leads: scheme, host and port, read strictly, and what a host is.
//!
//! What is not written in exactly one way is refused, because two readers would take it for two places. Called by `net`,
//! which calls what is read here, and by `definition`, which says at once what no call could use.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

/// How a service is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// Its name in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that URLs leave out.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// The host in lower case; an IPv6 address has its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// The `Host` that requests carry: without the port where it is the scheme's own.
    pub fn authority(&self) -> Cow<'_, str> {
        if self.port == self.scheme.default_port() {
            Cow::Borrowed(&self.host)
        } else {
            Cow::Owned(format!("{}:{}", self.host, self.port))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// Scheme, host and port of `http(s)://HOST[:PORT]`, and all that follows. `None` for anything else.
pub fn take_apart(url: &str) -> Option<(Origin, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return None,
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = split_authority(authority, scheme)?;
    Some((Origin { scheme, host, port }, path))
}

/// Host and port of `HOST[:PORT]`, the host in lower case; an IPv6 address has its brackets.
pub fn split_authority(authority: &str, scheme: Scheme) -> Option<(String, u16)> {
    let bracket_end = if authority.starts_with('[') { authority.find(']')? + 1 } else { 0 };
    let (host, port) = match authority.get(bracket_end..)?.find(':') {
        Some(at) => {
            let (host, port) = authority.split_at(bracket_end + at);
            let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
            (host, digits.parse().ok().filter(|port| *port > 0)?)
        }
        None => (authority, scheme.default_port()),
    };
    let known = match host.strip_prefix('[') {
        Some(_) => literal_address(host).is_some_and(|address| address.is_ipv6()),
        None => is_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok(),
    };
    known.then(|| (host.to_ascii_lowercase(), port))
}

/// Whether a base path is one that no server reads in another way: visible ASCII, no empty or dot
/// segments, no query or fragment.
pub fn is_plain_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&b);
    let segment = |segment: &str| {
        let decoded = percent_encoding::percent_decode_str(segment).collect::<Vec<u8>>();
        !matches!(&*decoded, b"" | b"." | b"..") && !decoded.iter().any(|b| matches!(b, b'/' | b'\\' | 0..=0x1f))
    };
    let encoded =
        |after: &str| after.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    path.is_empty()
        || path.bytes().all(plain) && path.split('%').skip(1).all(encoded) && path.split('/').skip(1).all(segment)
}

/// The address that a host is, written as addresses are in URLs. Other spellings (`0x7f.1`, `017.0.0.1`)
/// are not addresses here, and [`is_name`] refuses them as names.
pub fn literal_address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// Whether a host written in a definition means this machine.
pub fn names_loopback(host: &str) -> bool {
    is_localhost(host) || literal_address(host).is_some_and(|address| address.is_loopback())
}

/// Whether a name is this machine by RFC 6761, section 6.3.
pub fn is_localhost(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    name.eq_ignore_ascii_case("localhost") || name.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a text is a host name: letters, digits, hyphens and underscores in labels, hyphens at neither end of one
/// (RFC 1123, section 2.1), and not a number at its end, which other software would read as an address.
pub fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    name.len() <= 253 && name.split('.').all(label) && !number
}
