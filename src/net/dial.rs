//! Where a call really goes: resolved once, every answer checked, and the checked addresses dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::guard::{Forbidden, Guard, Reach};
use super::resolve::{Resolver, Unresolved};
use super::tunnel::EgressError;
use crate::base::origin::{is_name, literal_address, names_loopback};
use crate::definition::plan::egress::{Egress, Proxy};
use crate::respond::Refusal;

/// Why a host cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// It has no usable address.
    #[error("`{host}` could not be resolved: {reason}")]
    Unresolved {
        /// The host.
        host: String,
        /// Why not.
        reason: Unresolved,
    },
    /// The proxy on the way out cannot be used.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// One of its addresses must not be dialled.
    #[error("`{host}` must not be dialled: {reason}")]
    Forbidden {
        /// The host.
        host: String,
        /// Which, and why.
        reason: Forbidden,
    },
}

impl DialError {
    /// What the gateway answers because of it.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Unresolved { .. } => Refusal::ServiceUnresolved,
            Self::Egress(_) => Refusal::EgressFailed,
            Self::Forbidden { .. } => Refusal::AddressForbidden,
        }
    }
}

/// Addresses that were checked for one call, in the order to try them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Addresses {
    ips: Arc<[IpAddr]>,
    port: u16,
}

impl Addresses {
    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.ips.len()
    }

    /// The first of them, which stands for all.
    pub fn first(&self) -> SocketAddr {
        let ip = self.ips.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
        SocketAddr::new(ip, self.port)
    }

    /// The one that the try of this number begins with, counted from zero.
    pub fn nth(&self, number: usize) -> SocketAddr {
        let ip = self.ips.get(number % self.ips.len().max(1)).copied();
        ip.map_or_else(|| self.first(), |ip| SocketAddr::new(ip, self.port))
    }

    /// All of them in the order to dial them at this try, counted from zero: each try begins with another.
    pub fn at_try(&self, number: usize) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.iter().collect();
        let count = all.len().max(1);
        all.rotate_left(number % count);
        all
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, self.port))
    }
}

/// How a host is reached.
#[derive(Debug, Clone)]
pub enum Route {
    /// At its own addresses.
    Direct(Addresses),
    /// Through the proxy at these addresses, which looks the host up itself.
    Through(Addresses, Arc<Proxy>),
}

impl Route {
    /// What is dialled.
    pub fn addresses(&self) -> &Addresses {
        match self {
            Self::Direct(addresses) | Self::Through(addresses, _) => addresses,
        }
    }
}

/// Where `serve --mock URL` sends every service's traffic instead: plain HTTP to this address, with the
/// service's own `Host`, and the integration named in `Trunkline-Mock-Integration`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The mock's address.
    pub address: SocketAddr,
}

/// The header that names the integration to the mock.
pub const MOCK_HEADER: &str = "trunkline-mock-integration";

/// What every client dials through.
#[derive(Debug)]
pub struct Dialer {
    resolver: Resolver,
    guard: Guard,
    redirect: Option<Redirect>,
    egress: Egress,
}

impl Dialer {
    /// A dialer over a resolver. `redirect` is for development: see [`Redirect`].
    pub fn new(resolver: Resolver, redirect: Option<Redirect>) -> Self {
        Self { resolver, guard: Guard::default(), redirect, egress: Egress::default() }
    }

    /// This dialer, with this way out.
    #[must_use]
    pub fn leaving_by(self, egress: Egress) -> Self {
        Self { egress, ..self }
    }

    /// The guard, to be told of the program's own doors.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Where services' traffic goes instead, where it does. Clients must then speak plain HTTP.
    pub fn redirect(&self) -> Option<Redirect> {
        self.redirect
    }

    /// The addresses to dial for a service's host. When any of a name's addresses is forbidden all are:
    /// a name that points inwards at all is not one to send credentials to.
    ///
    /// # Errors
    /// When the host has no address, or one that must not be dialled.
    pub async fn addresses(&self, host: &str, port: u16, reach: &Reach) -> Result<Addresses, DialError> {
        match self.redirect {
            Some(Redirect { address }) => Ok(Addresses { ips: Arc::from([address.ip()]), port: address.port() }),
            None => self.checked(host, port, reach).await,
        }
    }

    /// How to reach a service's host: as [`Self::addresses`], or through the proxy where the settings have one.
    /// Through the proxy names are not looked up here, so that what they stand for is the proxy's to judge; a
    /// host that is written as an address is judged here as ever.
    ///
    /// # Errors
    /// As [`Self::addresses`], and when the proxy has no address.
    pub async fn route(&self, host: &str, port: u16, reach: &Reach) -> Result<Route, DialError> {
        match self.proxy_for(host, port) {
            Some(proxy) if self.redirect.is_none() => self.through(proxy, host, port, reach).await,
            _ => self.addresses(host, port, reach).await.map(Route::Direct),
        }
    }

    /// As [`Self::route`] for a host that is never redirected: destinations.
    ///
    /// # Errors
    /// As [`Self::route`].
    pub async fn checked_route(&self, host: &str, port: u16, reach: &Reach) -> Result<Route, DialError> {
        match self.proxy_for(host, port) {
            Some(proxy) => self.through(proxy, host, port, reach).await,
            None => self.checked(host, port, reach).await.map(Route::Direct),
        }
    }

    /// The proxy that leads to a host, where one does. Loopback is this machine's own, and never the proxy's.
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&Arc<Proxy>> {
        let proxy = self.egress.proxy.as_ref()?;
        let address = literal_address(host);
        let exempt = names_loopback(host) || self.egress.no_proxy.iter().any(|entry| entry.means(host, port, address));
        (!exempt).then_some(proxy)
    }

    async fn through(&self, proxy: &Arc<Proxy>, host: &str, port: u16, reach: &Reach) -> Result<Route, DialError> {
        if let Some(address) = literal_address(host) {
            let forbidden = |reason| DialError::Forbidden { host: host.to_owned(), reason };
            self.guard.check(SocketAddr::new(address, port), reach).map_err(forbidden)?;
        } else if !is_name(host) {
            return Err(DialError::Unresolved { host: host.to_owned(), reason: Unresolved::NotAName });
        }
        self.proxy_addresses(proxy).await.map(|addresses| Route::Through(addresses, Arc::clone(proxy)))
    }

    /// The proxy's own addresses. It is the operator's, like a destination.
    ///
    /// # Errors
    /// When there are none, or one must not be dialled even so.
    pub async fn proxy_addresses(&self, proxy: &Proxy) -> Result<Addresses, DialError> {
        let found = self.checked(&proxy.host, proxy.port, &Reach::of_destination()).await;
        found.map_err(|error| DialError::Egress(EgressError::Unreachable(error.to_string())))
    }

    /// As [`Self::addresses`] for a host that is never redirected: destinations.
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub async fn checked(&self, host: &str, port: u16, reach: &Reach) -> Result<Addresses, DialError> {
        let unresolved = |reason| DialError::Unresolved { host: host.to_owned(), reason };
        let ips = self.resolver.resolve(host).await.map_err(unresolved)?;
        let addresses = Addresses { ips, port };
        for address in addresses.iter() {
            self.guard
                .check(address, reach)
                .map_err(|reason| DialError::Forbidden { host: host.to_owned(), reason })?;
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use crate::net::resolve::{Found, Lookup};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// Answers in turn with a public address, and with that and a loopback one.
    #[derive(Debug, Default)]
    struct Rebinding(AtomicUsize);

    #[async_trait]
    impl Lookup for Rebinding {
        async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
            let turn = self.0.fetch_add(1, Ordering::SeqCst);
            let mut addresses = vec![IpAddr::from([8, 8, 8, 8])];
            addresses.extend((turn % 2 == 1).then_some(IpAddr::from([127, 0, 0, 1])));
            Ok(Found { addresses, ttl: Duration::ZERO })
        }
    }

    #[tokio::test]
    async fn a_proxy_takes_names_and_addresses_are_judged_here_all_the_same() {
        use crate::definition::plan::egress::{Exempt, Hosts};
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        let proxy = Proxy { host: "10.0.0.9".to_owned(), port: 3128, authorization: None };
        let name = "direct.example".to_owned();
        let exempt = Exempt { hosts: Hosts::Domain { name, itself: true }, port: None };
        let egress = Egress { proxy: Some(Arc::new(proxy)), no_proxy: vec![exempt] };
        let dialer = Dialer::new(Resolver::new(Arc::new(Rebinding::default()), clock), None).leaving_by(egress);
        let public = Reach::public();
        let through = |host: &'static str| dialer.route(host, 443, &public);
        assert!(matches!(through("api.example").await, Ok(Route::Through(at, _)) if at.at_try(0)[0].port() == 3128));
        assert!(matches!(through("direct.example").await, Ok(Route::Direct(_))));
        assert!(matches!(through("8.8.8.8").await, Ok(Route::Through(..))));
        for forbidden in ["10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]", "127.0.0.1", "localhost", "[::1]"] {
            assert!(matches!(through(forbidden).await, Err(DialError::Forbidden { .. })), "{forbidden}");
        }
        for none in ["0x7f.1", "2130706433", "a b", "a..b"] {
            assert!(matches!(through(none).await, Err(DialError::Unresolved { .. })), "{none}");
        }
    }

    #[tokio::test]
    async fn a_rebinding_name_never_yields_a_forbidden_address() {
        let clock = Arc::new(ManualClock::at(Timestamp::default()));
        let dialer = Dialer::new(Resolver::new(Arc::new(Rebinding::default()), clock.clone()), None);
        let mut refused = 0;
        for _ in 0..1_000 {
            clock.advance(Duration::from_secs(2));
            match dialer.addresses("evil.example", 443, &Reach::public()).await {
                Ok(addresses) => assert!(addresses.iter().all(|address| !address.ip().is_loopback())),
                Err(error) => {
                    assert_eq!(error.refusal(), Refusal::AddressForbidden);
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 500);
    }
}
