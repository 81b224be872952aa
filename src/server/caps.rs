//! How many connections a door holds: in all, and from one address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::definition::plan::gateway::Limits;

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

/// The connections of one door.
#[derive(Debug, Default)]
pub struct Caps {
    open: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place; gives it back when dropped.
#[derive(Debug)]
pub struct Place {
    caps: Arc<Caps>,
    source: Option<IpAddr>,
}

impl Caps {
    /// A place for a connection. `source` is `None` where addresses are not counted.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn enter(self: &Arc<Self>, source: Option<IpAddr>, limits: &Limits) -> Result<Place, Full> {
        let cap = limits.connections.min(half_of_descriptors());
        if self.open.fetch_add(1, Ordering::Relaxed) >= cap {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Total);
        }
        let mut place = Place { caps: Arc::clone(self), source: None };
        let Some(source) = source.map(network) else { return Ok(place) };
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= limits.connections_per_source {
            return Err(Full::Source);
        }
        *count += 1;
        place.source = Some(source);
        Ok(place)
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.caps.open.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn places_are_counted_and_given_back() {
        let caps = Arc::new(Caps::default());
        let limits = Limits { connections: 3, connections_per_source: 2, ..Limits::default() };
        let from = |text: &str| Some(text.parse().expect("an address"));
        let a = caps.enter(from("2001:db8::1"), &limits).expect("first");
        let b = caps.enter(from("2001:db8::2"), &limits).expect("second");
        assert_eq!(caps.enter(from("2001:db8::3"), &limits).map(drop), Err(Full::Source));
        let c = caps.enter(None, &limits).expect("third");
        assert_eq!(caps.enter(from("10.0.0.1"), &limits).map(drop), Err(Full::Total));
        drop((a, b, c));
        assert_eq!((caps.open(), caps.sources.lock().expect("no panic").len()), (0, 0));
    }
}
