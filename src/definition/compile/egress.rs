//! The way out, compiled.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::Url;

use super::gateway::read_network;
use super::place::{Fault, Place};
use crate::base::secret::Secret;
use crate::definition::plan::egress::{Egress, Exempt, Hosts, Proxy};
use crate::definition::plan::gateway::Network;
use crate::definition::problem::Code;
use crate::definition::raw::gateway as raw;

/// Compiles the way out.
pub(super) fn egress(raw: Option<&raw::Egress>, place: &Place<'_>) -> Result<Egress, Fault> {
    let Some(raw) = raw else { return Ok(Egress::default()) };
    let proxy = egress_proxy(&raw.proxy.0).map_err(|words| place.at("proxy").problem(Code::BadFormat, words))?;
    let no_proxy = exempt(&raw.no_proxy.0).map_err(|words| place.at("no_proxy").problem(Code::BadFormat, words))?;
    Ok(Egress { proxy: Some(Arc::new(proxy)), no_proxy })
}

/// Reads a proxy.
///
/// # Errors
/// What is wrong, in words that hold nothing of it: it may be a secret as a whole.
pub fn egress_proxy(raw: &raw::EgressProxy) -> Result<Proxy, String> {
    let text = raw.whole.as_ref().map_or(raw.url.as_str(), |whole| whole.0.expose());
    let url = Url::parse(text).map_err(|error| format!("this is not the address of a proxy: {error}"))?;
    if url.scheme() != "http" {
        return Err("a proxy is asked by plain HTTP: expected http://HOST:PORT".to_owned());
    }
    let (Some(host), Some(port)) = (url.host_str().filter(|host| !host.is_empty()), url.port_or_known_default()) else {
        return Err("this address has no host: expected http://HOST:PORT".to_owned());
    };
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("the address of a proxy ends with its port".to_owned());
    }
    let named = !url.username().is_empty() || url.password().is_some();
    if raw.whole.is_none() && named {
        return Err("name and password go under `username` and `password`, or the whole into a reference".to_owned());
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (name, password) = if named {
        (Some(decoded(url.username())), decoded(url.password().unwrap_or_default()))
    } else {
        (raw.username.clone(), raw.password.as_ref().map_or_else(String::new, |text| text.0.expose().clone()))
    };
    if name.is_none() && !password.is_empty() {
        return Err("there is a password without a `username`".to_owned());
    }
    if name.as_ref().is_some_and(|name| name.contains(':')) {
        return Err("a name has no colon in Basic authentication".to_owned());
    }
    let basic =
        |name: String| Arc::new(Secret::new(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))));
    Ok(Proxy { host: host.to_owned(), port, authorization: name.map(basic) })
}

/// Reads what goes without a proxy.
///
/// # Errors
/// The entry that is none.
pub fn exempt(texts: &[String]) -> Result<Vec<Exempt>, String> {
    let entries = texts.iter().flat_map(|text| text.split([',', ' '])).map(str::trim).filter(|entry| !entry.is_empty());
    entries
        .map(|entry| read_exempt(entry).ok_or_else(|| format!("`{entry}` is not a name, address or range")))
        .collect()
}

fn read_exempt(text: &str) -> Option<Exempt> {
    let exempt = |hosts, port| Some(Exempt { hosts, port });
    if let Some(network) = read_network(text).or_else(|| address(text)) {
        return exempt(Hosts::Addresses(network), None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    if host == "*" {
        return exempt(Hosts::All, port);
    }
    if let Some(network) = address(host) {
        return exempt(Hosts::Addresses(network), port);
    }
    let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
    let name = below.unwrap_or(host).to_ascii_lowercase();
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    name.split('.').all(label).then_some(())?;
    exempt(Hosts::Domain { name, itself: below.is_none() }, port)
}

fn address(text: &str) -> Option<Network> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address: std::net::IpAddr = bare.parse().ok()?;
    Some(Network { address, prefix: if address.is_ipv4() { 32 } else { 128 } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::raw::scalar::SecretText;

    fn long(url: &str, username: Option<&str>, password: Option<&str>) -> Result<Proxy, String> {
        egress_proxy(&raw::EgressProxy {
            url: url.to_owned(),
            username: username.map(str::to_owned),
            password: password.map(|text| SecretText(Secret::from(text))),
            whole: None,
        })
    }

    fn short(text: &str) -> Result<Proxy, String> {
        let whole = Some(SecretText(Secret::from(text)));
        egress_proxy(&raw::EgressProxy { url: String::new(), username: None, password: None, whole })
    }

    #[test]
    fn a_proxy_is_read_with_its_credentials_and_shows_none() {
        let proxy = short("http://user:p%40ss@proxy.internal:3128").expect("a proxy");
        assert_eq!((&*proxy.host, proxy.port), ("proxy.internal", 3128));
        assert_eq!(proxy.authorization.as_ref().map(|it| it.expose().as_str()), Some("Basic dXNlcjpwQHNz"));
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy.internal:3128)");
        assert_eq!(long("http://proxy.internal:3128", Some("user"), Some("p@ss")).expect("a proxy"), proxy);
        assert!(short("http://proxy.internal").expect("a proxy").authorization.is_none());
        for (fault, words) in [
            (short("socks5://p:1"), "plain HTTP"),
            (short("https://user:hunter2@p:1"), "plain HTTP"),
            (short("hunter2"), "not the address"),
            (short("http://p:1/path"), "ends with its port"),
            (long("http://u:hunter2@p:1", None, None), "`username` and `password`"),
            (long("http://p:1", None, Some("hunter2")), "without a `username`"),
            (long("http://p:1", Some("a:b"), None), "no colon"),
        ] {
            let told = fault.expect_err(words);
            assert!(told.contains(words) && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn what_goes_without_is_what_the_variable_means() {
        let list =
            exempt(&["localhost,.internal.example, shop.example:8443".to_owned(), "10.0.0.0/8, fd00::1".to_owned()]);
        let list = list.expect("entries");
        let goes = |host: &str, port| {
            let address = host.trim_matches(['[', ']']).parse().ok();
            list.iter().any(|entry| entry.means(host, port, address))
        };
        for (host, port) in [
            ("localhost", 1),
            ("a.localhost", 1),
            ("a.internal.example", 443),
            ("A.B.Internal.Example.", 443),
            ("shop.example", 8443),
            ("10.9.8.7", 443),
            ("[fd00::1]", 443),
        ] {
            assert!(goes(host, port), "{host}:{port}");
        }
        for (host, port) in [
            ("internal.example", 443),
            ("notinternal.example", 443),
            ("shop.example", 443),
            ("11.0.0.1", 443),
            ("fd00::2", 443),
            ("10.example", 443),
        ] {
            assert!(!goes(host, port), "{host}:{port}");
        }
        assert!(exempt(&["*".to_owned()]).expect("all")[0].means("a", 1, None));
        for wrong in ["a b/c", "a..b", "a:port", "http://a", "10.0.0.1/8"] {
            assert!(exempt(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
