//! The cookies of a session and of a browser that has had one: named and marked by how the browser came.

use http::{HeaderMap, HeaderValue, header};

use super::SignedIn;
use crate::definition::plan::gateway::{DoorName, Gateway};

/// How long a browser keeps it that someone has signed in from it: a year.
const DEVICE: &str = "; Max-Age=31536000";

#[derive(Debug, Clone, Copy)]
enum Cookie {
    Session,
    Device,
}

/// How a browser comes to the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// By HTTPS, to this door or to the proxy before it; else by plain HTTP from this machine. Not every browser keeps a
    /// secure cookie then.
    is_secure: bool,
    /// The port that it names. Cookies know none: two doors of one host name have cookies of two names.
    port: Option<u16>,
}

impl Way {
    /// How the browser of a request comes, as far as its `Host` and the settings say; `None` where a password would
    /// cross a network in the clear.
    pub fn of(host: &str, gateway: &Gateway) -> Option<Self> {
        let outside = gateway.admin.url.as_ref().filter(|url| url.scheme() == "https");
        let by_proxy = outside.is_some_and(|url| {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            host.eq_ignore_ascii_case(&format!("{}{port}", url.host_str().unwrap_or_default()))
        });
        if by_proxy || gateway.fixed.tls.contains(&DoorName::Admin) {
            return Some(Self { is_secure: true, port: port_of(host) });
        }
        is_near(host).then(|| Self { is_secure: false, port: port_of(host) })
    }

    fn name(self, cookie: Cookie) -> String {
        let prefix = if self.is_secure { "__Host-" } else { "" };
        let kind = match cookie {
            Cookie::Session => "",
            Cookie::Device => "-device",
        };
        let port = self.port.map_or_else(String::new, |port| format!("-{port}"));
        format!("{prefix}trunkline{kind}{port}")
    }

    /// The session's cookie in a request.
    pub fn read(self, headers: &HeaderMap) -> Option<&str> {
        self.read_one(headers, Cookie::Session)
    }

    /// What a request shows of an earlier time that someone signed in from its browser.
    pub fn read_device(self, headers: &HeaderMap) -> Option<&str> {
        self.read_one(headers, Cookie::Device)
    }

    /// A cookie's value in a request. Of two of one name neither counts: one of them is not ours.
    fn read_one(self, headers: &HeaderMap, cookie: Cookie) -> Option<&str> {
        let name = self.name(cookie);
        let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let mut ours = pairs.filter(|(known, _)| *known == name).map(|(_, value)| value);
        ours.next().filter(|_| ours.next().is_none())
    }

    /// The cookies of a session that begins.
    pub fn begin(self, signed_in: &SignedIn) -> impl Iterator<Item = HeaderValue> {
        let session = self.set(Cookie::Session, signed_in.session.expose(), "");
        let device = signed_in.device.as_ref().and_then(|value| self.set(Cookie::Device, value.expose(), DEVICE));
        session.into_iter().chain(device)
    }

    /// The cookie that ends it. What says that someone has signed in from there stays.
    pub fn end(self) -> Option<HeaderValue> {
        self.set(Cookie::Session, "", "; Max-Age=0")
    }

    fn set(self, cookie: Cookie, value: &str, more: &str) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Strict{secure}{more}", self.name(cookie));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The port that a host is named with.
fn port_of(host: &str) -> Option<u16> {
    let behind = host.rsplit(']').next().unwrap_or(host);
    behind.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// Whether a host is this machine, as its own browsers name it.
fn is_near(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[') {
        return v6.split_once(']').is_some_and(|(v6, _)| v6 == "::1");
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    name == "localhost" || name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, line.parse().expect("a value"));
        }
        headers
    }

    const SECURE: Way = Way { is_secure: true, port: None };
    const NEAR: Way = Way { is_secure: false, port: Some(8082) };

    #[test]
    fn a_cookie_is_read_by_its_own_name_and_once() {
        let way = SECURE;
        assert_eq!(way.read(&headers(&["a=1; __Host-trunkline=x; trunkline=y"])), Some("x"));
        assert_eq!(NEAR.read(&headers(&["a=1; trunkline-9000=x; trunkline=x", "trunkline-8082=y"])), Some("y"));
        let other = Way { port: Some(8443), ..SECURE };
        assert_eq!(other.read(&headers(&["__Host-trunkline=x"])), None, "another door of this host");
        assert_eq!(way.read(&headers(&["__Host-trunkline=x; __Host-trunkline=z"])), None);
        assert_eq!(way.read(&headers(&["trunkline=y"])), None);
    }

    #[test]
    fn cookies_are_kept_from_scripts_and_other_sites() {
        let signed_in = SignedIn { session: Secret::from("v"), device: Some(Secret::from("d")) };
        let set = |way: Way| {
            let all = way.begin(&signed_in).map(|cookie| cookie.to_str().expect("text").to_owned());
            all.collect::<Vec<_>>()
        };
        assert_eq!(
            set(SECURE),
            [
                "__Host-trunkline=v; Path=/; HttpOnly; SameSite=Strict; Secure",
                "__Host-trunkline-device=d; Path=/; HttpOnly; SameSite=Strict; Secure; Max-Age=31536000",
            ]
        );
        assert_eq!(set(NEAR)[0], "trunkline-8082=v; Path=/; HttpOnly; SameSite=Strict");
    }

    #[test]
    fn ports_are_told_from_addresses() {
        let ports = ["localhost:8082", "[::1]:443", "127.0.0.1", "[::1]", "localhost:"].map(port_of);
        assert_eq!(ports, [Some(8082), Some(443), None, None, None]);
    }

    #[test]
    fn this_machine_is_told_from_others() {
        for (host, near) in [
            ("localhost:8082", true),
            ("127.0.0.1", true),
            ("127.9.9.9:80", true),
            ("[::1]:8082", true),
            ("10.0.0.1:8082", false),
            ("[fd00::1]", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_near(host), near, "{host}");
        }
    }
}
