//! Which addresses may be dialled: the defence against calls that are steered inwards.
//!
//! An address is classified by what it is, not by how it was written, and after DNS has answered. Only
//! public unicast addresses are open to all; private ones need a [`Reach`] that names their network;
//! metadata services, multicast, translation prefixes and our own doors are never dialled.
//! Called by [`Dialer`](super::Dialer).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::definition::plan::gateway::{Gateway, Mode, Network};

/// What an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// Unicast on the internet.
    Public,
    /// This host.
    Loopback,
    /// RFC 1918, carrier-grade NAT, benchmarking and unique local networks.
    Private,
    /// RFC 3927 and RFC 4291 link-local.
    LinkLocal,
    /// A cloud provider's metadata or credential service.
    Metadata,
    /// A prefix behind which another address is dialled: NAT64, 6to4, Teredo, IPv4 in IPv6.
    Translated,
    /// `0.0.0.0/8`, `::`, multicast, broadcast, documentation and reserved ranges.
    Unusable,
}

/// Addresses at which cloud providers hand out credentials. The IPv6 one is a unique local address.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
];
const METADATA_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// What an address is, by the IANA special-purpose registries.
pub fn classify(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    if METADATA_V4.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.octets() {
        [127, ..] => AddressClass::Loopback,
        [10, ..] | [192, 168, ..] | [172, 16..=31, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => {
            AddressClass::Private
        }
        [169, 254, ..] => AddressClass::LinkLocal,
        [192, 88, 99, _] => AddressClass::Translated,
        [0 | 224.., ..] | [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Unusable,
        _ => AddressClass::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    if METADATA_V6.contains(&address) {
        return AddressClass::Metadata;
    }
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        [0, 0, 0, 0, 0, 0, 0, 0] | [0x2001, 1..=0x1ff | 0xdb8, ..] | [0x3ff0..=0x3fff, ..] => AddressClass::Unusable,
        // IPv4-compatible, IPv4-mapped, IPv4-translated, NAT64, 6to4 and Teredo.
        [0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..] => AddressClass::Translated,
        [0xfc00..=0xfdff, ..] => AddressClass::Private,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Unusable,
    }
}

/// What one call may dial besides public addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Reach {
    networks: Arc<[Network]>,
    loopback: bool,
    inside: bool,
}

impl Reach {
    /// Public addresses only.
    pub fn public() -> Self {
        Self::default()
    }

    /// What an integration's calls may dial: private networks when the integration says
    /// `allow_private`, and then those that the gateway file lists; loopback in development mode when
    /// the definition itself names a loopback host. `literal_host` is the host as the definition
    /// writes it, `None` when it comes from a value learned at run time.
    pub fn of_integration(gateway: &Gateway, allow_private: bool, literal_host: Option<&str>) -> Self {
        let networks = if allow_private { Arc::from(&*gateway.private_networks) } else { Arc::default() };
        let loopback =
            gateway.fixed.mode == Mode::Development && literal_host.is_some_and(crate::base::origin::names_loopback);
        Self { networks, loopback, inside: false }
    }

    /// What deliveries may dial: a destination is the operator's own, so private networks and loopback
    /// are open; metadata services, link-local addresses and our own doors are not.
    pub fn of_destination() -> Self {
        Self { networks: Arc::default(), loopback: true, inside: true }
    }

    fn lists(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// An address must not be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is a {class:?} address, which this call may not dial")]
pub struct Forbidden {
    /// The address.
    pub address: SocketAddr,
    /// What it is.
    pub class: AddressClass,
}

/// The guard of one program: it also knows the program's own doors.
#[derive(Debug, Default)]
pub struct Guard {
    own: ArcSwap<Vec<SocketAddr>>,
}

impl Guard {
    /// Names the addresses at which this program listens, which no call may come back to.
    pub fn set_own(&self, listeners: Vec<SocketAddr>) {
        self.own.store(Arc::new(listeners));
    }

    /// Whether a call may dial an address.
    ///
    /// # Errors
    /// [`Forbidden`] when not.
    pub fn check(&self, address: SocketAddr, reach: &Reach) -> Result<(), Forbidden> {
        let ip = address.ip();
        let class = classify(ip);
        let open = match class {
            AddressClass::Public => true,
            AddressClass::Loopback => reach.loopback || reach.lists(ip),
            AddressClass::Private => reach.inside || reach.lists(ip),
            AddressClass::LinkLocal => reach.lists(ip),
            AddressClass::Metadata | AddressClass::Translated | AddressClass::Unusable => false,
        };
        if open && !self.is_own(address) { Ok(()) } else { Err(Forbidden { address, class }) }
    }

    /// Whether dialling an address would reach one of our own doors. A door on the unspecified address
    /// is reached through every address of this host: only those can be bound to.
    fn is_own(&self, address: SocketAddr) -> bool {
        self.own.load().iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip() || own.ip().is_unspecified() && UdpSocket::bind((address.ip(), 0)).is_ok())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(text: &str) -> AddressClass {
        classify(text.parse().expect("an address"))
    }

    #[test]
    fn every_special_range_is_known() {
        use AddressClass::{LinkLocal, Loopback, Metadata, Private, Public, Translated, Unusable};
        let table = [
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("10.0.0.1", Private),
            ("10.255.255.255", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.0.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("198.18.0.1", Private),
            ("198.19.255.255", Private),
            ("fc00::1", Private),
            ("fdff:ffff::1", Private),
            ("169.254.0.1", LinkLocal),
            ("169.254.255.255", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("169.254.170.2", Metadata),
            ("169.254.170.23", Metadata),
            ("100.100.100.200", Metadata),
            ("fd00:ec2::254", Metadata),
            ("fd00:ec2::23", Metadata),
            ("::ffff:127.0.0.1", Translated),
            ("::ffff:8.8.8.8", Translated),
            ("::ffff:169.254.169.254", Translated),
            ("::127.0.0.1", Translated),
            ("::ffff:0:10.0.0.1", Translated),
            ("64:ff9b::10.0.0.1", Translated),
            ("64:ff9b:1::1", Translated),
            ("2002:7f00:1::", Translated),
            ("2002:a00:1::", Translated),
            ("2001::1", Translated),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", Translated),
            ("192.88.99.1", Translated),
            ("0.0.0.0", Unusable),
            ("0.1.2.3", Unusable),
            ("::", Unusable),
            ("224.0.0.1", Unusable),
            ("239.255.255.255", Unusable),
            ("240.0.0.1", Unusable),
            ("255.255.255.255", Unusable),
            ("192.0.0.1", Unusable),
            ("192.0.2.1", Unusable),
            ("198.51.100.1", Unusable),
            ("203.0.113.1", Unusable),
            ("ff02::1", Unusable),
            ("2001:db8::1", Unusable),
            ("2001:10::1", Unusable),
            ("3fff::1", Unusable),
            ("100::1", Unusable),
            ("fec0::1", Unusable),
            ("5f00::1", Unusable),
            ("4000::1", Unusable),
            ("8.8.8.8", Public),
            ("1.1.1.1", Public),
            ("172.15.0.1", Public),
            ("172.32.0.1", Public),
            ("100.63.0.1", Public),
            ("100.128.0.1", Public),
            ("192.167.0.1", Public),
            ("198.17.0.1", Public),
            ("223.255.255.255", Public),
            ("2606:4700::1111", Public),
            ("2a00:1450::1", Public),
            ("2001:4860::8888", Public),
        ];
        let wrong: Vec<_> = table.iter().filter(|(text, expected)| class(text) != *expected).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    fn listing(networks: &[(&str, u8)]) -> Reach {
        let network =
            |(address, prefix): &(&str, u8)| Network { address: address.parse().expect("ip"), prefix: *prefix };
        Reach { networks: networks.iter().map(network).collect(), loopback: false, inside: false }
    }

    fn may(reach: &Reach, address: &str) -> bool {
        Guard::default().check(address.parse().expect("an address"), reach).is_ok()
    }

    #[test]
    fn private_addresses_need_their_network_listed() {
        let reach = listing(&[("10.1.0.0", 16), ("fd12::", 16), ("169.254.0.0", 16)]);
        assert!(may(&reach, "10.1.2.3:443") && may(&reach, "[fd12::1]:443") && may(&reach, "8.8.8.8:53"));
        assert!(!may(&reach, "10.2.0.1:443") && !may(&reach, "[fd13::1]:443") && !may(&reach, "127.0.0.1:80"));
        assert!(may(&reach, "169.254.1.1:80") && !may(&reach, "169.254.169.254:80"));
        assert!(!may(&listing(&[("0.0.0.0", 0), ("::", 0)]), "[::ffff:127.0.0.1]:80"));
    }

    #[test]
    fn destinations_may_be_inside_and_services_may_not() {
        let (inside, public) = (Reach::of_destination(), Reach::public());
        assert!(may(&inside, "127.0.0.1:3000") && may(&inside, "192.168.1.1:80") && !may(&inside, "169.254.1.1:80"));
        assert!(!may(&public, "127.0.0.1:3000") && !may(&public, "192.168.1.1:80"));
    }

    #[test]
    fn our_own_doors_are_never_dialled() {
        let guard = Guard::default();
        guard.set_own(vec!["0.0.0.0:8081".parse().expect("own"), "127.0.0.1:8082".parse().expect("own")]);
        let check = |text: &str| guard.check(text.parse().expect("an address"), &Reach::of_destination()).is_ok();
        assert!(!check("127.0.0.1:8081") && !check("127.0.0.1:8082") && check("127.0.0.1:8083"));
        assert!(check("192.168.77.77:8081"), "another host's port of the same number");
    }
}
