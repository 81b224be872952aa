//! The kept answers in memory, and what may be under way to them: one bound for both.
//!
//! When there is no room, what was used longest ago goes. An answer that is still being read holds its room
//! already, at most half of all; where that is not to be had, the answer passes without being kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use lru::LruCache;

use super::key::Key;
use super::stored::Stored;
use crate::telemetry::metrics::Metrics;

/// Answers of one key that differ by what `Vary` names; of more, the oldest goes.
const VARIANTS: usize = 16;
/// Keys of which it is remembered for a while that their answers cannot be kept, or that they were changed.
const NOTED: usize = 4_096;
/// For how long.
const NOTED_FOR: Duration = Duration::from_mins(1);

/// The answers.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct State {
    kept: LruCache<Key, Vec<Arc<Stored>>>,
    /// Bytes of what is kept.
    used: usize,
    /// Bytes of what is being read.
    held: usize,
    /// When a key's answers were made invalid.
    changed: LruCache<u64, Duration>,
    /// Until when a key's requests are not worth waiting for each other.
    unkept: LruCache<u64, Duration>,
}

/// Room that an answer takes while it is read. Given back when dropped.
#[derive(Debug)]
pub struct Room {
    store: Arc<Store>,
    bytes: usize,
}

impl Store {
    /// An empty store.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let noted = std::num::NonZeroUsize::new(NOTED).unwrap_or(std::num::NonZeroUsize::MIN);
        let state = State {
            kept: LruCache::unbounded(),
            used: 0,
            held: 0,
            changed: LruCache::new(noted),
            unkept: LruCache::new(noted),
        };
        Self { state: Mutex::new(state), metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer of a key that fits a request's headers, and the newest, whether it fits or not.
    pub fn find(&self, key: &Key, request: &HeaderMap) -> (Option<Arc<Stored>>, Option<Arc<Stored>>) {
        let mut state = self.lock();
        let Some(variants) = state.kept.get(key) else { return (None, None) };
        // The newest first, for a service that changes its mind about `Vary`.
        let found = variants.iter().rev().find(|stored| stored.chosen.matches(request));
        (found.cloned(), variants.last().cloned())
    }

    /// Keeps an answer in place of one that the same headers chose, unless the key was made invalid after
    /// it was asked for. `false` when there is no room for it.
    pub fn keep(&self, key: &Key, stored: Stored, asked_at: Duration, most: usize) -> bool {
        let (bytes, hash) = (stored.bytes() + key.bytes(), key.hash());
        let mut state = self.lock();
        if state.changed.get(&hash).is_some_and(|changed| *changed >= asked_at) {
            return false;
        }
        state.unkept.pop(&hash);
        let mut variants = state.take(key);
        variants.retain(|known| known.chosen != stored.chosen);
        while variants.len() >= VARIANTS {
            variants.remove(0);
        }
        let all = bytes + variants.iter().map(|known| known.bytes() + key.bytes()).sum::<usize>();
        let fits = self.make_room(&mut state, all, most);
        if fits {
            variants.push(Arc::new(stored));
            state.used += all;
            state.kept.put(key.clone(), variants);
        }
        self.show(&state);
        fits
    }

    /// Lets go of a key's answers: something changed what they are about.
    pub fn invalidate(&self, key: &Key, now: Duration) {
        let hash = key.hash();
        let mut state = self.lock();
        drop(state.take(key));
        state.changed.put(hash, now);
        self.show(&state);
    }

    /// Remembers that a key's answers cannot be kept.
    pub fn note_unkept(&self, key: &Key, now: Duration) {
        let hash = key.hash();
        self.lock().unkept.put(hash, now.saturating_add(NOTED_FOR));
    }

    /// Whether a key's last answer could not be kept.
    pub fn is_unkept(&self, key: &Key, now: Duration) -> bool {
        let hash = key.hash();
        self.lock().unkept.get(&hash).is_some_and(|until| now < *until)
    }

    /// Room for an answer that is being read; `None` when too much is being read already.
    pub fn hold(self: &Arc<Self>, bytes: usize, most: usize) -> Option<Room> {
        let mut room = Room { store: Arc::clone(self), bytes: 0 };
        room.grow(bytes, most).then_some(room)
    }

    /// Bytes that are kept or being read.
    pub fn bytes(&self) -> usize {
        let state = self.lock();
        state.used + state.held
    }

    fn make_room(&self, state: &mut State, bytes: usize, most: usize) -> bool {
        if state.held.saturating_add(bytes) > most {
            return false;
        }
        while state.used + state.held + bytes > most {
            let Some((key, variants)) = state.kept.pop_lru() else { return false };
            state.used = state.used.saturating_sub(weight(&key, &variants));
            self.metrics.cache_evictions.with_label_values::<&str>(&[]).inc();
        }
        true
    }

    fn show(&self, state: &State) {
        let bytes = i64::try_from(state.used + state.held).unwrap_or(i64::MAX);
        self.metrics.cache_bytes.with_label_values::<&str>(&[]).set(bytes);
    }
}

impl State {
    fn take(&mut self, key: &Key) -> Vec<Arc<Stored>> {
        let Some(variants) = self.kept.pop(key) else { return Vec::new() };
        self.used = self.used.saturating_sub(weight(key, &variants));
        variants
    }
}

fn weight(key: &Key, variants: &[Arc<Stored>]) -> usize {
    variants.iter().map(|stored| stored.bytes() + key.bytes()).sum()
}

impl Room {
    /// Takes more room; `false`, and none of it, when there is not so much.
    pub fn grow(&mut self, bytes: usize, most: usize) -> bool {
        let store = Arc::clone(&self.store);
        let mut state = store.lock();
        let fits = state.held.saturating_add(bytes) <= most / 2 && store.make_room(&mut state, bytes, most);
        if fits {
            state.held += bytes;
            self.bytes += bytes;
            store.show(&state);
        }
        fits
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.store.lock();
        state.held = state.held.saturating_sub(self.bytes);
        self.store.show(&state);
    }
}
