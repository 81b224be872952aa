//! Secrets by path and field: read when first asked for, read again, kept while the server is away.
//!
//! Files are read on threads that may wait, and by commands that have no runtime at all, so the store has a
//! small runtime of its own and is asked without `await`. What it has read it answers at once; only a
//! secret that was never read is waited for.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::client::{Client, Reread, VaultError};
use super::settings::server_of;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::definition::load::environment::{Environment, SecretFault, VariableError};
use crate::definition::plan::gateway::VaultServer;
use crate::net::resolve::{Lookup, Resolver};
use crate::net::{Clients, Dialer, Trust};
use crate::telemetry::metrics::Metrics;

/// While the server is away, secrets that were never read fail at once for this long: a deployment with
/// many of them must not wait for each.
const AWAY: Duration = Duration::from_secs(2);
/// A secret that nobody asked for in so long is let go.
const UNASKED: Duration = Duration::from_mins(30);
/// The most secrets that are kept.
const MOST: usize = 10_000;

/// The world outside, as a store needs it.
#[derive(Debug, Clone)]
pub struct Outside {
    /// What other references are looked up in, and those of the server's own settings.
    pub environment: Arc<dyn Environment>,
    /// Names to addresses.
    pub lookup: Arc<dyn Lookup>,
    /// Root certificates.
    pub trust: Trust,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where reads are counted.
    pub metrics: Arc<Metrics>,
}

/// How the store stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many secrets were read.
    pub known: usize,
    /// How many of them could not be read again: what was read before is in use.
    pub stale: usize,
    /// How many are named and could never be read: the files that name them are not in force, or as they were before.
    pub unread: usize,
    /// Why, of one of them.
    pub reason: Option<String>,
}

/// The secrets of one server, beside an environment.
pub struct SecretStore {
    base: Arc<dyn Environment>,
    shared: Arc<Shared>,
    /// Taken when the store is dropped.
    runtime: Option<Runtime>,
}

struct Shared {
    client: Client,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<String, Known>>,
    /// Why each secret that is named could never be read.
    unread: Mutex<BTreeMap<String, String>>,
    /// The one of them that was asked for last while the server was away: the next one is asked for first.
    asked_last: Mutex<Option<String>>,
    /// Whether there was ever a moment without such.
    was_whole: AtomicBool,
    away: Mutex<Option<(Duration, SecretFault)>>,
    changed: watch::Sender<u64>,
}

struct Known {
    fields: Fields,
    stale: Option<String>,
    asked: Duration,
}

type Fields = BTreeMap<String, Option<Secret>>;

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("client", &self.shared.client).finish_non_exhaustive()
    }
}

impl SecretStore {
    /// The store of the server that a gateway file names; `None` when it names none.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn of_file(file: PathBuf, outside: Outside) -> std::io::Result<Option<Arc<Self>>> {
        let Some(server) = server_of(&file, &*outside.environment) else { return Ok(None) };
        let environment = Arc::clone(&outside.environment);
        let reread: Reread = Arc::new(move || server_of(&file, &*environment));
        Self::start(Arc::new(server), reread, outside).map(Some)
    }

    /// The store of a server, read again in the background. Nothing is asked yet.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(server: Arc<VaultServer>, reread: Reread, outside: Outside) -> std::io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("secrets")
            .enable_all()
            .build()?;
        let Outside { environment, lookup, trust, clock, metrics } = outside;
        let dialer = Dialer::new(Resolver::new(lookup, Arc::clone(&clock)), None);
        let client = Client::new(server, reread, Clients::new(Arc::new(dialer), trust), Arc::clone(&clock));
        let shared = Arc::new(Shared {
            client,
            clock,
            metrics,
            known: Mutex::default(),
            unread: Mutex::default(),
            asked_last: Mutex::default(),
            was_whole: AtomicBool::new(false),
            away: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        runtime.spawn(Arc::clone(&shared).watch());
        Ok(Arc::new(Self { base: environment, shared, runtime: Some(runtime) }))
    }

    /// Changes whenever a secret that was read has another value, or is gone.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// How the store stands.
    pub fn standing(&self) -> Standing {
        let known = self.shared.known();
        let mut reasons = known.values().filter_map(|known| known.stale.clone());
        let reason = reasons.next();
        let stale = usize::from(reason.is_some()) + reasons.count();
        let unread = self.shared.unread();
        let reason = reason.or_else(|| unread.values().next().cloned());
        Standing { known: known.len(), stale, unread: unread.len(), reason }
    }

    /// Whether every secret that is named could be read at some time since the start. Until then definitions are missing
    /// of which nobody knows what they say; afterwards an outage takes nothing away that was there.
    pub fn was_whole(&self) -> bool {
        if self.shared.unread().is_empty() {
            self.shared.was_whole.store(true, Ordering::Relaxed);
        }
        self.shared.was_whole.load(Ordering::Relaxed)
    }

    /// Runs an operation of the Transit engine; see [`Client::transit`].
    ///
    /// # Errors
    /// When the server does not do it.
    pub async fn transit(
        &self,
        path: String,
        (name, input): (&'static str, Zeroizing<String>),
        output: &'static str,
    ) -> Result<Secret, VaultError> {
        let shared = Arc::clone(&self.shared);
        let work = async move { shared.client.transit(&path, (name, &input), output).await };
        match &self.runtime {
            Some(runtime) => runtime.spawn(work).await.map_err(|_| VaultError::Answer("end"))?,
            None => Err(VaultError::Answer("client any more")),
        }
    }

    /// Reads a secret for the first time, and waits for it. One that could not be read is asked for again in the
    /// background until it can be.
    fn fetch(&self, path: &str) -> Result<(), SecretFault> {
        let fetched = self.fetch_now(path);
        if let Err(SecretFault::Unread(reason)) = &fetched {
            let mut unread = self.shared.unread();
            if unread.len() < MOST {
                unread.insert(path.to_owned(), reason.clone());
            }
        }
        fetched
    }

    fn fetch_now(&self, path: &str) -> Result<(), SecretFault> {
        if let Some(fault) = self.shared.fault_of_the_server() {
            return Err(fault);
        }
        let ended = || SecretFault::Unread("the secret store has ended".to_owned());
        let (tell, told) = sync_channel(1);
        let (shared, wanted) = (Arc::clone(&self.shared), path.to_owned());
        let runtime = self.runtime.as_ref().ok_or_else(ended)?;
        runtime.spawn(async move {
            // The one who asked may have stopped waiting.
            drop(tell.send(shared.learn(&wanted).await));
        });
        // A sign-in, a refused token, another sign-in and the read itself: four requests at most.
        let patience = self.shared.client.server().timeout * 4 + AWAY;
        told.recv_timeout(patience).map_err(|_| SecretFault::Unread("it did not answer in time".to_owned()))?
    }
}

impl Environment for SecretStore {
    fn variable(&self, name: &str) -> Result<String, VariableError> {
        self.base.variable(name)
    }

    fn names(&self) -> Vec<String> {
        self.base.names()
    }

    fn secret(&self, path: &str, field: &str) -> Result<String, SecretFault> {
        if let Some(answer) = self.shared.answer(path, field) {
            return answer;
        }
        self.fetch(path)?;
        self.shared.answer(path, field).unwrap_or(Err(SecretFault::NoSecret))
    }

    fn named(&self, secrets: &BTreeSet<&str>) {
        self.shared.unread().retain(|path, _| secrets.contains(&**path));
    }
}

impl Shared {
    /// What is known of a field; `None` when the secret was never read.
    fn answer(&self, path: &str, field: &str) -> Option<Result<String, SecretFault>> {
        let mut known = self.known();
        let known = known.get_mut(path)?;
        known.asked = self.clock.monotonic();
        Some(match known.fields.get(field) {
            Some(Some(value)) => Ok(value.expose().clone()),
            Some(None) => Err(SecretFault::NotText),
            None => Err(SecretFault::NoField(known.fields.keys().cloned().collect())),
        })
    }

    async fn learn(&self, path: &str) -> Result<(), SecretFault> {
        let read = self.read(path).await;
        let now = self.clock.monotonic();
        if matches!(read, Ok(_) | Err(VaultError::NotFound)) {
            self.unread().remove(path);
        }
        match read {
            Ok(fields) => {
                *self.away() = None;
                let mut known = self.known();
                if known.len() >= MOST && !known.contains_key(path) {
                    return Err(SecretFault::Unread(format!("more than {MOST} secrets are named")));
                }
                known.insert(path.to_owned(), Known { fields, stale: None, asked: now });
                Ok(())
            }
            Err(VaultError::NotFound) => Err(SecretFault::NoSecret),
            Err(error) => {
                let fault = SecretFault::Unread(error.to_string());
                // What is wrong with the server is so for every secret; the rest is this one's.
                if matches!(error, VaultError::Unreachable(_) | VaultError::Sealed | VaultError::SignIn(_)) {
                    *self.away() = Some((now + AWAY, fault.clone()));
                }
                Err(fault)
            }
        }
    }

    /// What is wrong with the server, where it was away a moment ago.
    fn fault_of_the_server(&self) -> Option<SecretFault> {
        let now = self.clock.monotonic();
        self.away().as_ref().filter(|(until, _)| now < *until).map(|(_, fault)| fault.clone())
    }

    async fn read(&self, path: &str) -> Result<Fields, VaultError> {
        let read = self.client.read(path).await;
        let result = match &read {
            Ok(_) => "ok",
            Err(VaultError::NotFound) => "missing",
            Err(VaultError::Denied(_) | VaultError::SignIn(_)) => "denied",
            Err(_) => "failed",
        };
        self.metrics.secret_reads.with_label_values(&[result]).inc();
        read
    }

    /// Keeps the client signed in and what is known in step with the server, for as long as the runtime
    /// lives.
    async fn watch(self: Arc<Self>) {
        let poll = self.client.server().poll;
        let mut next = self.clock.monotonic() + poll;
        loop {
            tokio::time::sleep(self.pause(next).await).await;
            if self.clock.monotonic() < next {
                continue;
            }
            self.read_again().await;
            // Whoever waits for a first reading waits no longer than it has to.
            let pause = if self.unread().is_empty() { poll } else { poll.min(AWAY) };
            next = self.clock.monotonic() + pause;
        }
    }

    /// How long there is nothing to do: until the next look, or until the token should be renewed. A
    /// client that was never needed is not signed in.
    async fn pause(&self, next: Duration) -> Duration {
        let until_look = next.saturating_sub(self.clock.monotonic());
        if !self.client.is_signed_in().await {
            return until_look.min(AWAY);
        }
        let renewal = self.client.keep_signed_in().await.ok().and_then(|signed| signed.renew_at);
        let until_renewal = renewal.map(|at| at.saturating_sub(self.clock.monotonic()));
        until_renewal.unwrap_or(until_look).min(until_look).max(Duration::from_millis(20))
    }

    async fn read_again(&self) {
        let now = self.clock.monotonic();
        let paths: Vec<String> = {
            let mut known = self.known();
            known.retain(|_, known| now.saturating_sub(known.asked) < UNASKED);
            known.keys().cloned().collect()
        };
        let mut changed = self.read_the_unread().await;
        for path in paths {
            let read = self.read(&path).await;
            let mut held = self.known();
            let Some(known) = held.get_mut(&path) else { continue };
            match read {
                Ok(fields) => {
                    changed |= !same(&fields, &known.fields);
                    (known.fields, known.stale) = (fields, None);
                }
                Err(VaultError::NotFound) => {
                    held.remove(&path);
                    changed = true;
                }
                Err(error) => known.stale = Some(error.to_string()),
            }
        }
        self.tell();
        if changed {
            self.changed.send_modify(|count| *count += 1);
        }
    }

    /// Tries what could never be read; whether anything is known now that was not.
    async fn read_the_unread(&self) -> bool {
        let mut paths: Vec<String> = self.unread().keys().cloned().collect();
        if let Some(last) = &*self.asked_last() {
            // One on which the server hangs must not be the first each time, and keep it from all others.
            let after = paths.partition_point(|path| path <= last);
            paths.rotate_left(after);
        }
        let mut changed = false;
        for path in paths {
            match self.learn(&path).await {
                Ok(()) | Err(SecretFault::NoSecret) => changed = true,
                // While the server is away there is no use in asking for the rest.
                Err(_) if self.fault_of_the_server().is_some() => {
                    *self.asked_last() = Some(path);
                    break;
                }
                Err(_) => {}
            }
        }
        changed
    }

    /// Says in metrics and log how the store stands.
    fn tell(&self) {
        let known = self.known();
        let stale = known.values().filter(|known| known.stale.is_some()).count();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let before = self.metrics.secrets.with_label_values(&["stale"]).get();
        self.metrics.secrets.with_label_values(&["current"]).set(gauge(known.len() - stale));
        self.metrics.secrets.with_label_values(&["stale"]).set(gauge(stale));
        self.metrics.secrets.with_label_values(&["unread"]).set(gauge(self.unread().len()));
        let reason = known.values().find_map(|known| known.stale.as_deref());
        match reason {
            Some(reason) if before == 0 => {
                tracing::warn!(secrets.stale = stale, "{stale} secrets are in use as they were last read: {reason}");
            }
            None if before > 0 => tracing::info!("every secret could be read again"),
            _ => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unread(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked_last(&self) -> MutexGuard<'_, Option<String>> {
        self.asked_last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away(&self) -> MutexGuard<'_, Option<(Duration, SecretFault)>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(a: &Fields, b: &Fields) -> bool {
    let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| Zeroizing::new(secret.expose().clone()));
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && text(a.1) == text(b.1))
}

impl Drop for SecretStore {
    fn drop(&mut self) {
        // Waiting is not allowed where the last reference may be dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
