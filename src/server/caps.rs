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
    /// A place, of which nobody knows yet for whom.
    ///
    /// # Errors
    /// The cap that was reached.
    pub fn enter(self: &Arc<Self>, limits: &Limits) -> Result<Place, Full> {
        let cap = limits.connections.min(half_of_descriptors());
        if self.open.fetch_add(1, Ordering::Relaxed) >= cap {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Total);
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
    pub fn of(mut self, source: IpAddr, limits: &Limits) -> Result<Self, Full> {
        let source = network(source);
        let mut sources = self.caps.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= limits.connections_per_source {
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
        let enter = |text: &str| caps.enter(&limits)?.of(text.parse().expect("an address"), &limits);
        let a = enter("2001:db8::1").expect("first");
        let b = enter("2001:db8::2").expect("second");
        assert_eq!(enter("2001:db8::3").map(drop), Err(Full::Source));
        let c = caps.enter(&limits).expect("third");
        assert_eq!(enter("10.0.0.1").map(drop), Err(Full::Total));
        drop((a, b, c));
        assert_eq!((caps.open(), caps.sources.lock().expect("no panic").len()), (0, 0));
    }
}
