//! How many connections a door holds: in all, and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

use super::Shared;
use crate::definition::plan::gateway::{Bounds, DoorName};
use crate::proxy::socket::Socket;

/// What a connection beyond a cap is told before it is closed.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n\
    Trunkline-Error: unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 133\r\n\r\n\
    {\"type\":\"urn:trunkline:error:unavailable\",\"title\":\"Too many connections\",\
    \"status\":503,\"code\":\"unavailable\",\"detail\":\"connection cap\"}";

/// Which cap was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The door's.
    Total,
    /// The source address's.
    Source,
}

impl Full {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Source => "source",
        }
    }
}

/// Lets connections in at a door, within its caps, and tells those that it turns away why.
#[derive(Debug, Clone)]
pub struct Doorkeeper {
    door: DoorName,
    /// The door's name in metrics.
    name: &'static str,
    shared: Shared,
    caps: Arc<Caps>,
    /// Under TLS nothing can be said before the handshake, which is the costly part.
    speaks_tls: bool,
}

impl Doorkeeper {
    /// One for a door, which `speaks` TLS or plain HTTP.
    pub fn new((door, name): (DoorName, &'static str), shared: Shared, speaks: Speaks) -> Self {
        let caps = Arc::new(Caps::new(shared.metrics.door_connections.with_label_values(&[name])));
        Self { door, name, shared, caps, speaks_tls: speaks == Speaks::Tls }
    }

    /// A place for a connection, counted for `source` where there is one; else it was turned away.
    pub fn admit(&self, socket: &Socket, source: Option<IpAddr>) -> Option<Place> {
        let bounds = self.shared.live.load().gateway.limits.connections_at(self.door);
        let place = self.caps.enter(bounds).and_then(|place| match source {
            Some(source) => place.of(source, bounds),
            None => Ok(place),
        });
        match place {
            Ok(place) => Some(place),
            Err(full) => {
                self.turned_away(full);
                if !self.speaks_tls {
                    socket.send_now(FULL);
                }
                None
            }
        }
    }

    /// Counts a connection that was turned away.
    pub fn turned_away(&self, full: Full) {
        let refused = &self.shared.metrics.door_connections_refused;
        refused.with_label_values(&[self.name, full.as_str()]).inc();
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.caps.open()
    }
}

/// What is spoken at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP as it is.
    Plain,
    /// TLS.
    Tls,
}

/// The connections of one door.
#[derive(Debug, Default)]
pub struct Caps {
    open: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, usize>>,
    /// What tells of them, where they are a door's connections.
    gauge: Option<IntGauge>,
}

/// One connection's place; gives it back when dropped.
#[derive(Debug)]
pub struct Place {
    caps: Arc<Caps>,
    source: Option<IpAddr>,
}

impl Caps {
    /// No connections; `gauge` tells of them.
    fn new(gauge: IntGauge) -> Self {
        Self { gauge: Some(gauge), ..Self::default() }
    }

    /// A place, of which nobody knows yet for whom.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn enter(self: &Arc<Self>, bounds: Bounds) -> Result<Place, Full> {
        let cap = bounds.total.min(half_of_descriptors());
        if self.open.fetch_add(1, Ordering::Relaxed) >= cap {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Total);
        }
        if let Some(gauge) = &self.gauge {
            gauge.inc();
        }
        Ok(Place { caps: Arc::clone(self), source: None })
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Place {
    /// This place, counted for an address.
    ///
    /// # Errors
    /// When the address has as many as it may; the place is given back.
    pub fn of(mut self, source: IpAddr, bounds: Bounds) -> Result<Self, Full> {
        let source = network(source);
        let mut sources = self.caps.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= bounds.per_source {
            drop(sources);
            return Err(Full::Source);
        }
        *count += 1;
        drop(sources);
        self.source = Some(source);
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caps.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(gauge) = &self.caps.gauge {
            gauge.dec();
        }
        let Some(source) = self.source else { return };
        let mut sources = self.caps.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = sources.entry(source) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// One party's addresses: an IPv6 customer has a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Half of the file descriptors this process may have, so that calls outwards and the store always find
/// some.
fn half_of_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit / 2).ok()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::plan::gateway::Limits;

    #[test]
    fn places_are_counted_and_given_back() {
        let metrics = crate::telemetry::metrics::Metrics::new().expect("metrics");
        let gauge = metrics.door_connections.with_label_values(&["public"]);
        let caps = Arc::new(Caps::new(gauge.clone()));
        let bounds = Bounds { total: 3, per_source: 2 };
        let enter = |text: &str| caps.enter(bounds)?.of(text.parse().expect("an address"), bounds);
        let a = enter("2001:db8::1").expect("first");
        let b = enter("2001:db8::2").expect("second");
        assert_eq!(enter("2001:db8::3").map(drop), Err(Full::Source));
        let c = caps.enter(bounds).expect("third");
        assert_eq!(gauge.get(), 3);
        assert_eq!(enter("10.0.0.1").map(drop), Err(Full::Total));
        drop((a, b, c));
        assert_eq!((caps.open(), caps.sources.lock().expect("no panic").len(), gauge.get()), (0, 0, 0));
    }

    #[test]
    fn one_address_never_holds_all_of_the_admin_door() {
        let limits = Limits { admin_connections: 6, admin_connections_per_source: 9, ..Limits::default() };
        assert_eq!(limits.connections_at(DoorName::Admin), Bounds { total: 6, per_source: 5 });
        assert_eq!(limits.connections_at(DoorName::Public), Bounds { total: 10_000, per_source: 200 });
    }

    #[test]
    fn the_answer_of_a_full_door_is_whole() {
        let text = std::str::from_utf8(FULL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
