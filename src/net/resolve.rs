//! Names to addresses, without ever blocking: a bounded cache over an asynchronous lookup.
//!
//! An answer is kept for its TTL (at least 1 s, at most 1 h), a failure for 5 s. When a name that was
//! known cannot be looked up, its last addresses serve for up to an hour more (RFC 8767), so that a DNS
//! outage does not become ours. One lookup runs for a name however many ask. Called by
//! [`Dialer`](super::Dialer).

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

use super::connect::in_turn;
use crate::base::clock::Clock;
use crate::base::origin::{is_localhost, is_name, literal_address};

/// How long a lookup may take in all.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long a failure is remembered.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);
/// The bounds of a TTL.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
/// How long addresses serve after their TTL when there are no newer ones.
const STALE: Duration = Duration::from_hours(1);
/// The most names that are remembered. Names come from definitions and from values that sign-ins saved.
const CAPACITY: usize = 16_384;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// The text is not a host name or address.
    #[error("the host is not a name or an address")]
    NotAName,
    /// DNS says that there is no such name, or that it has no addresses.
    #[error("the name has no address")]
    NoAddress,
    /// DNS did not answer in time, or with an error.
    #[error("DNS did not answer")]
    NoAnswer,
}

/// The addresses of a name as DNS has them now.
#[derive(Debug, Clone)]
pub struct Found {
    /// The addresses; not empty.
    pub addresses: Vec<IpAddr>,
    /// How long they may be remembered.
    pub ttl: Duration,
}

/// A source of addresses: DNS in production, a table in tests.
#[async_trait]
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The addresses of a name in lower case.
    ///
    /// # Errors
    /// When there are none.
    async fn lookup(&self, name: &str) -> Result<Found, Unresolved>;
}

/// The system's name servers and hosts file.
#[derive(Clone)]
pub struct SystemDns(TokioResolver);

impl fmt::Debug for SystemDns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemDns")
    }
}

/// The system's resolver settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the system's name servers could not be read (/etc/resolv.conf): {0}")]
pub struct NoNameServers(String);

impl SystemDns {
    /// Reads the system's settings.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn new() -> Result<Self, NoNameServers> {
        let fault = |error: hickory_resolver::net::NetError| NoNameServers(error.to_string());
        let mut builder = TokioResolver::builder_tokio().map_err(fault)?;
        let options = builder.options_mut();
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        builder.build().map(Self).map_err(fault)
    }
}

#[async_trait]
impl Lookup for SystemDns {
    async fn lookup(&self, name: &str) -> Result<Found, Unresolved> {
        // A name with a dot is absolute: search domains must not turn one service into another.
        let absolute = if name.contains('.') && !name.ends_with('.') { format!("{name}.") } else { name.to_owned() };
        let answer = self.0.lookup_ip(absolute).await.map_err(|error| {
            if error.is_nx_domain() || error.is_no_records_found() {
                Unresolved::NoAddress
            } else {
                Unresolved::NoAnswer
            }
        })?;
        let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
        let addresses = in_turn(&answer.iter().collect::<Vec<IpAddr>>());
        if addresses.is_empty() {
            return Err(Unresolved::NoAddress);
        }
        Ok(Found { addresses, ttl: Duration::from_secs(ttl.into()) })
    }
}

/// What is known about a name.
#[derive(Debug)]
struct Known {
    result: Result<Arc<[IpAddr]>, Unresolved>,
    fresh_until: Duration,
    /// Until when the addresses may serve although they could not be looked up again.
    serve_until: Duration,
}

#[derive(Debug, Default)]
struct Entry {
    known: ArcSwapOption<Known>,
    lookup: tokio::sync::Mutex<()>,
}

/// The cache over a [`Lookup`].
#[derive(Debug)]
pub struct Resolver {
    source: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
    names: RwLock<HashMap<Box<str>, Arc<Entry>>>,
}

impl Resolver {
    /// A cache with nothing in it.
    pub fn new(source: Arc<dyn Lookup>, clock: Arc<dyn Clock>) -> Self {
        Self { source, clock, names: RwLock::default() }
    }

    /// The addresses of a host: a name, an IPv4 address, or an IPv6 address with or without brackets.
    /// Names of the `localhost` domain are loopback without a lookup (RFC 6761).
    ///
    /// # Errors
    /// When there are none.
    pub async fn resolve(&self, host: &str) -> Result<Arc<[IpAddr]>, Unresolved> {
        if let Some(address) = literal_address(host) {
            return Ok(Arc::from([address]));
        }
        if is_localhost(host) {
            return Ok(Arc::from([IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]));
        }
        if !is_name(host) {
            return Err(Unresolved::NotAName);
        }
        let entry = self.entry(host);
        if let Some(result) = self.fresh(&entry) {
            return result;
        }
        let _one_at_a_time = entry.lookup.lock().await;
        if let Some(result) = self.fresh(&entry) {
            return result;
        }
        self.look_up(host, &entry).await
    }

    fn fresh(&self, entry: &Entry) -> Option<Result<Arc<[IpAddr]>, Unresolved>> {
        let known = entry.known.load();
        known.as_ref().filter(|known| self.clock.monotonic() < known.fresh_until).map(|known| known.result.clone())
    }

    async fn look_up(&self, host: &str, entry: &Entry) -> Result<Arc<[IpAddr]>, Unresolved> {
        let found = match tokio::time::timeout(DEADLINE, self.source.lookup(host)).await {
            Ok(found) => found,
            Err(_elapsed) => Err(Unresolved::NoAnswer),
        };
        let now = self.clock.monotonic();
        let known = match found {
            Ok(found) => {
                let fresh_until = now.saturating_add(found.ttl.clamp(TTL.0, TTL.1));
                Known {
                    result: Ok(found.addresses.into()),
                    fresh_until,
                    serve_until: fresh_until.saturating_add(STALE),
                }
            }
            Err(reason) => Self::without_answer(entry, reason, now),
        };
        let result = known.result.clone();
        entry.known.store(Some(Arc::new(known)));
        result
    }

    /// What to believe when a lookup failed: the last addresses while they may serve. A name that DNS
    /// says is gone is gone.
    fn without_answer(entry: &Entry, reason: Unresolved, now: Duration) -> Known {
        let fresh_until = now.saturating_add(NEGATIVE_TTL);
        match entry.known.load().as_ref() {
            Some(last) if reason == Unresolved::NoAnswer && last.result.is_ok() && now < last.serve_until => {
                Known { result: last.result.clone(), fresh_until, serve_until: last.serve_until }
            }
            _ => Known { result: Err(reason), fresh_until, serve_until: Duration::ZERO },
        }
    }

    fn entry(&self, host: &str) -> Arc<Entry> {
        if let Some(entry) = self.names.read().unwrap_or_else(PoisonError::into_inner).get(host) {
            return Arc::clone(entry);
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= CAPACITY {
            let now = self.clock.monotonic();
            names.retain(|_, entry| entry.known.load().as_ref().is_some_and(|known| now < known.fresh_until));
        }
        if names.len() >= CAPACITY {
            return Arc::default();
        }
        Arc::clone(names.entry(host.into()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::{ManualClock, Timestamp};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    struct Table {
        answer: Mutex<Result<Found, Unresolved>>,
        asked: AtomicUsize,
    }

    #[async_trait]
    impl Lookup for Table {
        async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            self.answer.lock().expect("no panic").clone()
        }
    }

    fn found(address: &str, ttl: u64) -> Found {
        Found { addresses: vec![address.parse().expect("ip")], ttl: Duration::from_secs(ttl) }
    }

    fn fixture() -> (Arc<Table>, Arc<ManualClock>, Resolver) {
        let table = Arc::new(Table { answer: Mutex::new(Ok(found("8.8.8.8", 60))), asked: AtomicUsize::new(0) });
        let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(0)));
        let resolver = Resolver::new(Arc::clone(&table) as Arc<dyn Lookup>, Arc::clone(&clock) as Arc<dyn Clock>);
        (table, clock, resolver)
    }

    #[tokio::test]
    async fn one_lookup_serves_all_who_ask_until_the_ttl_ends() {
        let (table, clock, resolver) = fixture();
        let both = tokio::join!(resolver.resolve("a.example"), resolver.resolve("a.example"));
        assert_eq!(both.0, both.1);
        assert_eq!(table.asked.load(Ordering::SeqCst), 1);
        clock.advance(Duration::from_secs(61));
        resolver.resolve("a.example").await.expect("found");
        assert_eq!(table.asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn an_outage_of_dns_is_bridged_for_an_hour_and_a_removed_name_is_not() {
        let (table, clock, resolver) = fixture();
        resolver.resolve("a.example").await.expect("found");
        *table.answer.lock().expect("no panic") = Err(Unresolved::NoAnswer);
        clock.advance(Duration::from_mins(30));
        assert!(resolver.resolve("a.example").await.is_ok());
        clock.advance(Duration::from_mins(32));
        assert_eq!(resolver.resolve("a.example").await, Err(Unresolved::NoAnswer));
        *table.answer.lock().expect("no panic") = Ok(found("8.8.4.4", 1));
        clock.advance(Duration::from_secs(6));
        assert!(resolver.resolve("a.example").await.is_ok(), "a failure is remembered for seconds only");
        *table.answer.lock().expect("no panic") = Err(Unresolved::NoAddress);
        clock.advance(Duration::from_secs(2));
        assert_eq!(resolver.resolve("a.example").await, Err(Unresolved::NoAddress));
    }

    #[tokio::test]
    async fn addresses_and_localhost_are_not_looked_up() {
        let (table, _clock, resolver) = fixture();
        for host in ["127.0.0.1", "[::1]", "::1", "localhost", "LOCALHOST.", "x.localhost"] {
            assert!(resolver.resolve(host).await.expect("known").iter().all(IpAddr::is_loopback), "{host}");
        }
        for host in ["0x7f.1", "2130706433", "0177.0.0.1", "127.1", "a b", "a/b", "", "a..b", "①.1", "x@y", "h:80"] {
            assert_eq!(resolver.resolve(host).await, Err(Unresolved::NotAName), "{host}");
        }
        assert_eq!(table.asked.load(Ordering::SeqCst), 0);
    }
}
