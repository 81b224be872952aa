//! Who a request comes from, where a trusted proxy says so: `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Both are lists to which each proxy appends, so they are read from their end: the first address that is not
//! a trusted proxy's is the client's. Called by [`super::public`].

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use crate::definition::plan::gateway::Network;

/// The name of the header that most proxies send.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The most entries that are read, from the end.
const MOST: usize = 32;

/// The client behind `peer`, where `peer` is a trusted proxy that names one; else `None`. A request that has
/// both headers and is told two clients has been through something that does not clean them: then nobody is
/// believed.
pub fn behind(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Network]) -> Option<IpAddr> {
    let is_trusted = |address: IpAddr| is_trusted(address, trusted);
    if !peer.is_some_and(is_trusted) {
        return None;
    }
    let of = |name: &HeaderName, entry: fn(&str) -> Option<IpAddr>| {
        headers.contains_key(name).then(|| first_outside(headers, name, entry, &is_trusted))
    };
    match (of(&header::FORWARDED, forwarded_entry), of(&X_FORWARDED_FOR, plain_entry)) {
        (Some(one), Some(other)) => one.filter(|_| one == other),
        (one, other) => one.or(other).flatten(),
    }
}

/// Whether an address is that of a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[Network]) -> bool {
    trusted.iter().any(|network| network.contains(address))
}

/// The last address that is not a proxy's of ours. A text that is no address ends the search: what stands
/// before it was told by someone unknown.
fn first_outside(
    headers: &HeaderMap,
    name: &HeaderName,
    entry: fn(&str) -> Option<IpAddr>,
    is_trusted: &dyn Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let lines: Vec<&str> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    let entries = lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MOST);
    let mut last = None;
    for text in entries {
        let Some(address) = entry(text.trim()) else { return last };
        last = Some(address);
        if !is_trusted(address) {
            return last;
        }
    }
    last
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn plain_entry(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|found| found.ip()))?;
    Some(address.to_canonical())
}

/// `for=192.0.2.1;proto=https`, with the address perhaps in quotes.
fn forwarded_entry(text: &str) -> Option<IpAddr> {
    let mut parts = text.split(';').filter_map(|part| part.trim().split_once('='));
    let (_, node) = parts.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    plain_entry(node.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(peer: &str, lines: &[(&str, &str)]) -> Option<String> {
        let trusted = [("10.0.0.0", 8), ("fd00::", 8)];
        let trusted = trusted.map(|(address, prefix)| Network { address: address.parse().expect("ip"), prefix });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"));
        }
        behind(peer.parse().ok(), &headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        let told = [("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client("10.0.0.1", &told).as_deref(), Some("192.0.2.1"));
        assert_eq!(client("192.0.2.9", &told), None);
        assert_eq!(client("", &told), None, "a Unix socket has no address");
        assert_eq!(client("10.0.0.1", &[]), None);
    }

    #[test]
    fn the_last_address_that_is_not_a_proxys_is_the_clients() {
        for (value, expected) in [
            ("1.1.1.1, 192.0.2.1, 10.0.0.7", Some("192.0.2.1")),
            ("1.1.1.1, 192.0.2.1:5000", Some("192.0.2.1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("10.0.0.9, fd00::2", Some("10.0.0.9")),
            ("1.1.1.1, unknown", None),
            ("1.1.1.1, unknown, 10.0.0.7", Some("10.0.0.7")),
            ("", None),
        ] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", value)]).as_deref(), expected, "{value}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.1")];
        assert_eq!(client("10.0.0.1", &lines).as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn forwarded_is_read_and_two_stories_are_none() {
        for (value, expected) in [
            ("for=192.0.2.1;proto=https;by=10.0.0.1", Some("192.0.2.1")),
            ("for=1.1.1.1, For=\"[2001:db8::1]:4711\"", Some("2001:db8::1")),
            ("for=_hidden", None),
            ("proto=https", None),
        ] {
            assert_eq!(client("10.0.0.1", &[("forwarded", value)]).as_deref(), expected, "{value}");
        }
        let both = |a, b| client("10.0.0.1", &[("forwarded", a), ("x-forwarded-for", b)]);
        assert_eq!(both("for=192.0.2.1", "192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(both("for=192.0.2.2", "192.0.2.1"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~]{0,60}") {
            client("10.0.0.1", &[("forwarded", &text), ("x-forwarded-for", &text)]);
        }
    }
}
