//! Where a call really goes: resolved once, every answer checked, and the checked addresses dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::guard::{Forbidden, Guard, Reach};
use super::resolve::{Resolver, Unresolved};
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

    /// The address to dial at this try, counted from zero; it begins again after the last.
    pub fn at_try(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.ips[number % self.ips.len()], self.port)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, self.port))
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
}

impl Dialer {
    /// A dialer over a resolver. `redirect` is for development: see [`Redirect`].
    pub fn new(resolver: Resolver, redirect: Option<Redirect>) -> Self {
        Self { resolver, guard: Guard::default(), redirect }
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
