//! Renewal in the background, ahead of the end of each token.
//!
//! A sweep looks at what is due and begins what has a place: at its integration's gate and among all. What
//! has none is due at the next sweep as well, and integrations take turns, so that neither a service that
//! fails nor one with many accounts keeps the others waiting. What each connection needs is learned by
//! opening it once, a bounded number in a sweep, and kept until it changes.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Cause, Mark, Refresher, Wish, schedule};
use crate::base::clock::Timestamp;
use crate::connection::credential::Credential;
use crate::connection::error::ConnectionError;
use crate::connection::grant::Issued;
use crate::connection::health::{Key, Pulse};
use crate::connection::stored::{Stored, StoredError};
use crate::definition::live::Generation;
use crate::definition::plan::Integration;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(10);
/// How soon is looked again for places, while somebody waits for one.
const AGAIN: Duration = Duration::from_millis(100);
/// The most renewals that the background has under way.
const AT_ONCE: usize = 64;
/// The most connections that one sweep opens to learn about them.
const LEARN: usize = 2_000;
/// The most records of health that one sweep writes.
const FLUSH: usize = 500;
/// What is left of tokens, for the metric: name and bound.
const LEFT: [(&str, Duration); 5] = [
    ("0s", Duration::ZERO),
    ("5m", Duration::from_mins(5)),
    ("1h", Duration::from_hours(1)),
    ("1d", Duration::from_hours(24)),
    ("7d", Duration::from_hours(168)),
];

/// What is known of stored connections.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    known: HashMap<Key, Vec<Item>>,
    /// What a crash left open and has not been tried again yet; `None` until it was looked for.
    interrupted: Option<Vec<(Key, Vec<String>)>>,
    /// Which integration had the first turn at the last sweep.
    turn: usize,
}

/// What came of a look for what is due.
#[derive(Debug, Clone, Copy, Default)]
struct Begun {
    /// How many renewals were begun.
    count: usize,
    /// Whether more are due than there were places for. A slow service may have all its places taken for long:
    /// that is no reason to look for free ones less often.
    others_wait: bool,
}

/// A token that ends.
#[derive(Debug, Clone)]
struct Item {
    token: Arc<str>,
    seen: Mark,
    /// When something is to be done about it: its renewal ahead of its end; where nothing renews it a person is told
    /// of its end.
    due: Timestamp,
    end: Timestamp,
    renews: bool,
}

impl Refresher {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has to be looked at anew.
    pub(super) fn reschedule(&self, key: &Key) {
        self.schedule().known.remove(key);
    }

    /// Sweeps until it is told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let mut begun = self.look().await.unwrap_or_else(|error| {
                tracing::warn!("tokens could not be renewed ahead of their end: {error}");
                Begun::default()
            });
            while begun.others_wait {
                if stop.run_until_cancelled(tokio::time::sleep(AGAIN)).await.is_none() {
                    return;
                }
                begun = self.begin(&self.parts.live.load());
            }
            if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// Looks once. Answers how many renewals were begun.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sweep(self: &Arc<Self>) -> Result<usize, ConnectionError> {
        self.look().await.map(|begun| begun.count)
    }

    async fn look(self: &Arc<Self>) -> Result<Begun, ConnectionError> {
        let generation = self.parts.live.load();
        self.learn(&generation).await?;
        self.recover(&generation).await?;
        for key in self.parts.connections.outlived(self.parts.clock.now(), FLUSH) {
            self.outlive(&key).await;
        }
        let begun = self.begin(&generation);
        self.measure();
        self.parts.connections.flush_some_health(FLUSH).await;
        Ok(begun)
    }

    /// Opens connections that are not known, to see when their tokens end.
    async fn learn(&self, generation: &Generation) -> Result<(), ConnectionError> {
        for key in self.parts.connections.take_touched() {
            self.reschedule(&key);
        }
        let Some(stored) = self.parts.connections.stored() else { return Ok(()) };
        let keys = self.parts.connections.stored_keys().await?;
        let unknown: Vec<Key> = {
            let mut schedule = self.schedule();
            if schedule.known.len() > keys.len() {
                let there: std::collections::HashSet<&Key> = keys.iter().collect();
                schedule.known.retain(|key, _| there.contains(key));
            }
            // Of an integration that is not in force nothing can be learned, and it must not take the place of others.
            let learnable = |key: &Key| generation.integration(&key.integration).is_some();
            keys.into_iter().filter(|key| !schedule.known.contains_key(key) && learnable(key)).take(LEARN).collect()
        };
        for key in unknown {
            self.learn_one(generation, stored, &key).await;
        }
        Ok(())
    }

    async fn learn_one(&self, generation: &Generation, stored: &Stored, key: &Key) {
        let Some(integration) = generation.integration(&key.integration) else { return };
        let items = match stored.versioned(key).await {
            Ok(Some((content, _))) => match &content.credential {
                Credential::Tokens(tokens) => {
                    let item = |(name, issued): (&Arc<str>, &Issued)| {
                        let item = item(key, name, issued)?;
                        if self.parts.source.renews(integration, issued) {
                            return Some(item);
                        }
                        self.ends_for_good(integration, issued).then_some(Item { due: item.end, renews: false, ..item })
                    };
                    tokens.0.iter().filter_map(item).collect()
                }
                _ => Vec::new(),
            },
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(connection = %key, "a stored connection cannot be watched: {error}");
                if matches!(error, StoredError::Store(_)) {
                    // The next sweep tries again.
                    return;
                }
                Vec::new()
            }
        };
        // The status of those that nobody calls is counted as well.
        self.parts.connections.pulse(key).await;
        self.schedule().known.insert(key.clone(), items);
    }

    /// What a crash left open is tried again at once: the old token once, before it is too late for it.
    async fn recover(&self, generation: &Generation) -> Result<(), ConnectionError> {
        let Some((leases, stored)) = self.leases.as_ref().zip(self.parts.connections.stored()) else { return Ok(()) };
        let known = self.schedule().interrupted.take();
        let open = match known {
            Some(open) => open,
            None => leases.open().await.map_err(|reason| ConnectionError::Store {
                integration: Arc::from("*"),
                connection: "*".to_owned(),
                reason,
            })?,
        };
        // Those whose integration is not in force now wait until it is.
        let (open, waiting) =
            open.into_iter().partition::<Vec<_>, _>(|(key, _)| generation.integration(&key.integration).is_some());
        self.schedule().interrupted = Some(waiting);
        for (key, tokens) in open {
            tracing::info!(connection = %key, "a refresh was interrupted; its token is tried again");
            self.learn_one(generation, stored, &key).await;
            for item in self.schedule().known.get_mut(&key).into_iter().flatten() {
                if tokens.iter().any(|token| **token == *item.token) {
                    item.due = Timestamp::default();
                }
            }
        }
        Ok(())
    }

    /// Begins what is due and has a place.
    fn begin(self: &Arc<Self>, generation: &Generation) -> Begun {
        let mut waiting = self.due(generation);
        let due: usize = waiting.values().map(Vec::len).sum();
        let mut count = 0;
        let most = generation.gateway.upkeep.refreshes_at_once;
        let mut order: Vec<_> = waiting.keys().map(Arc::clone).collect();
        let turn = {
            let mut schedule = self.schedule();
            schedule.turn = schedule.turn.wrapping_add(1);
            schedule.turn
        };
        if let Some(first) = turn.checked_rem(order.len()) {
            order.rotate_left(first);
        }
        while !order.is_empty() && self.tasks.len() < AT_ONCE {
            order.retain(|integration| {
                let Some(wish) = waiting.get_mut(integration).and_then(Vec::pop) else { return false };
                let Ok(place) = self.flights.gate(integration, most).try_acquire_owned() else { return false };
                if self.tasks.len() >= AT_ONCE {
                    return false;
                }
                self.board(&wish, Some(place));
                count += 1;
                true
            });
        }
        Begun { count, others_wait: due > count }
    }

    /// What is due by integration, the one that ends first last.
    fn due(&self, generation: &Generation) -> BTreeMap<Arc<str>, Vec<Wish>> {
        let now = self.parts.clock.now();
        let print =
            |(id, integration): (&Arc<str>, &Arc<Integration>)| (Arc::clone(id), integration.fingerprint.to_string());
        let definitions: HashMap<Arc<str>, String> = generation.integrations.iter().map(print).collect();
        let definition = |key: &Key| definitions.get(&key.integration).map_or("", String::as_str);
        let due: Vec<(Key, Item)> = {
            let schedule = self.schedule();
            let ready = schedule.known.iter().filter(|(key, _)| !self.flights.has(key));
            let item = |(key, items): (&Key, &Vec<Item>)| {
                let due = items
                    .iter()
                    .filter(|item| item.due <= now && !self.is_held_back((key, item), definition(key), now));
                Some((key.clone(), due.min_by_key(|item| item.end)?.clone()))
            };
            ready.filter_map(item).collect()
        };
        let mut waiting: BTreeMap<Arc<str>, Vec<(Timestamp, Wish)>> = BTreeMap::new();
        for (key, Item { token, seen, end, .. }) in due {
            let integration = Arc::clone(&key.integration);
            waiting.entry(integration).or_default().push((end, Wish { key, token, seen, cause: Cause::Due }));
        }
        let sorted = |mut wishes: Vec<(Timestamp, Wish)>| {
            wishes.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
            wishes.into_iter().map(|(_, wish)| wish).collect()
        };
        waiting.into_iter().map(|(integration, wishes)| (integration, sorted(wishes))).collect()
    }

    /// Whether a token is known to be renewed later, or never by itself.
    fn is_held_back(&self, (key, item): (&Key, &Item), definition: &str, now: Timestamp) -> bool {
        let pulse = self.parts.connections.known_pulse(key);
        let holds = |pulse: Arc<Pulse>| {
            pulse.health().renewals.get(&item.token).is_some_and(|renewal| renewal.holds_back(now, definition))
        };
        pulse.is_some_and(holds)
    }

    /// How connections fare, and how long their tokens last.
    fn measure(&self) {
        let metrics = &self.parts.metrics;
        metrics.connections.reset();
        for ((integration, status), count) in self.parts.connections.count_health() {
            metrics.connections.with_label_values(&[&*integration, status.word()]).set(count);
        }
        let now = self.parts.clock.now();
        let mut counts = [0_i64; LEFT.len() + 1];
        for item in self.schedule().known.values().flatten().filter(|item| item.renews) {
            let left = item.end.since(now);
            let bucket = LEFT.iter().position(|(_, bound)| left <= *bound).unwrap_or(LEFT.len());
            counts[bucket] += 1;
        }
        let names = LEFT.iter().map(|(name, _)| *name).chain(["more"]);
        for (name, count) in names.zip(counts) {
            metrics.tokens_ending.with_label_values(&[name]).set(count);
        }
    }
}

/// A token's place in the schedule; `None` when nobody told when it ends.
fn item(key: &Key, name: &Arc<str>, issued: &Issued) -> Option<Item> {
    let mut hasher = DefaultHasher::new();
    (key, name, issued.issued_at).hash(&mut hasher);
    let due = schedule::due(issued, hasher.finish())?;
    Some(Item { token: Arc::clone(name), seen: Mark::of(issued), due, end: issued.expires_at?, renews: true })
}
