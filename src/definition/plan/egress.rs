//! The way out: the proxy that calls leave through, and what goes without it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use super::gateway::Network;
use crate::base::secret::Secret;

/// The way out. The default is none: calls go straight to their services, whatever the environment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    /// The proxy, where there is one.
    pub proxy: Option<Arc<Proxy>>,
    /// What goes without it.
    pub no_proxy: Vec<Exempt>,
}

/// An HTTP proxy that leads on by CONNECT.
pub struct Proxy {
    /// Its name or address; an IPv6 address has its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<Arc<Secret>>,
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        let authorization = |proxy: &Self| proxy.authorization.as_ref().map(|text| text.expose().clone());
        self.host == other.host && self.port == other.port && authorization(self) == authorization(other)
    }
}

impl Eq for Proxy {}

/// Where it is, never the credentials.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// What goes without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempt {
    /// Which hosts.
    pub hosts: Hosts,
    /// Which port; `None` is any.
    pub port: Option<u16>,
}

/// Hosts that go without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// All.
    All,
    /// A domain, with or without the name itself; in lower case.
    Domain {
        /// The name.
        name: String,
        /// Whether it is meant itself, besides all below it.
        itself: bool,
    },
    /// Addresses written out as such.
    Addresses(Network),
}

impl Exempt {
    /// Whether a host and port are meant. `address` is the host where it is an address.
    pub fn means(&self, host: &str, port: u16, address: Option<IpAddr>) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let meant = match &self.hosts {
            Hosts::All => true,
            Hosts::Domain { name, itself } => {
                let below = host.len().checked_sub(name.len() + 1).and_then(|start| host.get(start..));
                *itself && host.eq_ignore_ascii_case(name)
                    || below.and_then(|end| end.strip_prefix('.')).is_some_and(|end| end.eq_ignore_ascii_case(name))
            }
            Hosts::Addresses(network) => address.is_some_and(|address| network.contains(address)),
        };
        meant && self.port.is_none_or(|own| own == port)
    }
}
