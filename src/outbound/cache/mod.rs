//! Answers that are used again (RFC 9111), each for the one connection it was asked for.
//!
//! [`Cache::look`] answers a request from what is kept, or gives it a [`Turn`]: what it is to send, and what
//! becomes of the answer. The rules are in [`stored`] (may it be kept, how long is it fresh), [`key`] (whose is
//! it, which request does it fit) and [`given`] (what the caller gets of it); [`store`] bounds the memory and
//! [`flight`] makes one call of many. The proxy door streams through a turn, the gateway's own calls take
//! theirs whole. Called after the caller's grants were checked, so that what is kept is for those who might
//! have asked themselves.
//!
//! Since all that is kept belongs to one account, `private` answers are kept, and so are answers to calls that
//! carry `Authorization`, which all do. In all else this is a cache that several use. Nothing is kept where a
//! definition has no `cache`; lifetimes are never guessed.
//!
//! Why this is not the cache of the proxy library that streams the calls: there, keeping is tied to a stored
//! `SystemTime`, to storage that lives as long as the process, and to requests that come through the door,
//! so that endpoints by name, transforms and refreshes behind an answer would need a second one beside it;
//! and its bound does not count what is still being read.

pub mod directives;
mod flight;
mod given;
mod key;
mod store;
mod stored;
mod turn;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::base::clock::Clock;
use crate::definition::plan::api::Cache as Rule;
use crate::respond::{Answer, Refusal};
use crate::telemetry::metrics::Metrics;
use directives::{Directives, texts};
use flight::{Ended, Flights, Lead, Line};
pub use given::{CACHE_STATUS, listed};
pub use key::Key;
use store::Store;
use stored::{Now, Stored};
pub use turn::{Next, Recording, Turn, of_answer};

/// Refreshes behind an answer that are made at once for one integration; where there are more, the stale answer is given
/// and nothing is asked. Each has its own, so that a service that hangs holds up no other's.
const REFRESHES: usize = 16;

/// In how many lines a request waits before it asks by itself: in one for all that ask for the same, and in one for those
/// that the answer of that one does not tell apart.
const LINES: usize = 2;

/// The kept answers of all connections.
#[derive(Debug)]
pub struct Cache {
    store: Arc<Store>,
    flights: Arc<Flights>,
    refreshes: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

/// A request that may be answered from what is kept: GET or HEAD, without a body.
#[derive(Debug)]
pub struct Asked<'a> {
    /// What the definition says.
    pub rule: Rule,
    /// What is asked for.
    pub key: Key,
    /// GET or HEAD.
    pub method: &'a Method,
    /// The caller's headers, as far as they reach the service.
    pub headers: &'a HeaderMap,
    /// How long it waits for somebody else who asks the same.
    pub patience: Duration,
    /// The most bytes that may be kept and read in all.
    pub most: usize,
}

/// What is made of a request.
#[derive(Debug)]
pub enum Look {
    /// It is answered.
    Given(Box<Given>),
    /// The service is asked.
    Ask(Box<Turn>),
}

/// An answer from what is kept.
#[derive(Debug)]
pub struct Given {
    /// The answer.
    pub answer: Answer,
    /// What came of the request: `hit`, `stale`, `collapsed` or `refused`.
    pub verdict: &'static str,
    /// The turn of whoever brings it up to date behind the caller's back.
    pub refresh: Option<Box<Turn>>,
}

/// What a kept answer is worth to a request.
enum Worth {
    /// It is given.
    Fresh,
    /// The caller takes it though it is stale.
    Taken,
    /// It is given, and brought up to date afterwards.
    Refreshed,
    /// The service is asked whether it still holds; why, in the words of RFC 9211.
    Asked(&'static str),
}

impl Cache {
    /// An empty cache.
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let store = Arc::new(Store::new(Arc::clone(&metrics)));
        Self { store, flights: Arc::default(), refreshes: Mutex::default(), metrics, clock }
    }

    /// Answers a request from what is kept, or gives it its turn at the service. Waits for another request
    /// for the same, where there is one, and never longer than `patience`.
    pub async fn look(self: &Arc<Self>, asked: Asked<'_>) -> Look {
        let said = Directives::of_request(asked.headers);
        let began = self.clock.monotonic();
        // Those that it waited in: the first answer of all may tell what the others differ by.
        let mut waited: Vec<Line> = Vec::new();
        loop {
            let now = self.now();
            let (entry, newest) = self.store.find(&asked.key, asked.headers);
            let why = match entry.as_deref().map(|entry| worth(entry, &said, &asked.rule, now.monotonic)) {
                None if newest.is_some() => "vary-miss",
                None => "uri-miss",
                Some(Worth::Asked(why)) => why,
                Some(worth) => {
                    let Some(entry) = entry else { continue };
                    return Look::Given(Box::new(self.give(&asked, &entry, &worth, !waited.is_empty())));
                }
            };
            if said.only_if_cached {
                self.count(&asked.key, "refused");
                let words = "nothing kept fits, and the request says `only-if-cached`";
                let answer = Refusal::NotCached.answer(words);
                return Look::Given(Box::new(Given { answer, verdict: "refused", refresh: None }));
            }
            let alone = said.no_store || said.no_cache || *asked.method == Method::HEAD || waited.len() >= LINES;
            let alone =
                alone || asked.headers.contains_key(header::RANGE) || self.store.is_unkept(&asked.key, now.monotonic);
            let ask = |lead| Look::Ask(Box::new(Turn::new(self, &asked, &said, (entry.clone(), lead), why)));
            if alone {
                return ask(None);
            }
            let line = line(&asked, newest.as_deref());
            if waited.contains(&line) {
                return ask(None);
            }
            match self.flights.join(&line) {
                Ok(lead) => return ask(Some(lead)),
                Err(other) => {
                    let spent = now.monotonic.saturating_sub(began);
                    if other.ended(asked.patience.saturating_sub(spent)).await == Ended::Done {
                        waited.push(line);
                    }
                }
            }
        }
    }

    fn give(self: &Arc<Self>, asked: &Asked<'_>, entry: &Arc<Stored>, worth: &Worth, collapsed: bool) -> Given {
        let now = self.clock.monotonic();
        let (left, over) = (entry.freshness.left(now).as_secs(), entry.freshness.stale_for(now).as_secs());
        let (result, status) = match worth {
            _ if collapsed => ("collapsed", "trunkline; fwd=uri-miss; collapsed".to_owned()),
            Worth::Fresh => ("hit", format!("trunkline; hit; ttl={left}")),
            _ => ("stale", format!("trunkline; hit; ttl=-{over}")),
        };
        self.count(&asked.key, result);
        self.save(&asked.key, result);
        let refresh = match worth {
            Worth::Refreshed => self.turn_behind(asked, entry),
            _ => None,
        };
        let answer = answer(entry, (asked.method, asked.headers), now, &status);
        Given { answer, verdict: result, refresh: refresh.map(Box::new) }
    }

    /// The turn of a refresh that nobody waits for, where none is under way.
    fn turn_behind(self: &Arc<Self>, asked: &Asked<'_>, entry: &Arc<Stored>) -> Option<Turn> {
        let permit = self.room_to_refresh(asked.key.integration())?;
        let line = Line { key: asked.key.clone(), chosen: Some(entry.chosen.of_request(asked.headers)) };
        let lead = self.flights.join(&line).ok()?;
        let unsaid = Directives::default();
        Some(Turn::new(self, asked, &unsaid, (Some(Arc::clone(entry)), Some(lead)), "stale").behind(permit))
    }

    fn room_to_refresh(&self, integration: &Arc<str>) -> Option<OwnedSemaphorePermit> {
        let mut refreshes = self.refreshes.lock().unwrap_or_else(PoisonError::into_inner);
        let own = refreshes.entry(Arc::clone(integration)).or_insert_with(|| Arc::new(Semaphore::new(REFRESHES)));
        Arc::clone(own).try_acquire_owned().ok()
    }

    /// Lets go of what a call has changed: what it was made for, and what its answer names at the same origin
    /// (RFC 9111 §4.4). Answers that are errors change nothing.
    pub fn changed(&self, key: &Key, status: StatusCode, headers: &HeaderMap) {
        if !(200..400).contains(&status.as_u16()) {
            return;
        }
        let now = self.clock.monotonic();
        self.store.invalidate(key, now);
        let named = [header::LOCATION, header::CONTENT_LOCATION].into_iter();
        for reference in named.filter_map(|name| texts(headers, name).next()) {
            if let Some(named) = key.named_by(reference) {
                self.store.invalidate(&named, now);
            }
        }
    }

    /// Bytes that are kept or being read.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    fn now(&self) -> Now {
        Now { wall: self.clock.now(), monotonic: self.clock.monotonic() }
    }

    fn count(&self, key: &Key, result: &str) {
        self.metrics.cache_requests.with_label_values(&[&**key.integration(), result]).inc();
    }

    fn save(&self, key: &Key, by: &str) {
        self.metrics.cache_calls_saved.with_label_values(&[&**key.integration(), by]).inc();
    }
}

/// With which others a request waits: as long as nothing is known of what answers differ by, with all that ask for the same.
fn line(asked: &Asked<'_>, newest: Option<&Stored>) -> Line {
    let chosen = newest.map(|newest| newest.chosen.of_request(asked.headers));
    Line { key: asked.key.clone(), chosen }
}

/// Whether a method may change what is kept (RFC 9110 §9.2.1).
pub fn is_unsafe(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE)
}

fn worth(entry: &Stored, said: &Directives, rule: &Rule, now: Duration) -> Worth {
    let fresh = &entry.freshness;
    let (left, over) = (fresh.left(now), fresh.stale_for(now));
    if said.no_store || said.no_cache {
        return Worth::Asked("request");
    }
    if fresh.must_ask {
        return Worth::Asked("stale");
    }
    let young = said.max_age.is_none_or(|most| fresh.age(now) <= most);
    let lasts = said.min_fresh.is_none_or(|least| left >= least);
    if !left.is_zero() {
        return if young && lasts { Worth::Fresh } else { Worth::Asked("request") };
    }
    let unasked = said.max_age.is_none() && said.min_fresh.is_none();
    if fresh.never_stale {
        Worth::Asked("stale")
    } else if said.max_stale.is_some_and(|most| over <= most) && young && lasts {
        Worth::Taken
    } else if unasked && over < rule.stale_while_revalidate {
        Worth::Refreshed
    } else {
        Worth::Asked("stale")
    }
}

fn answer(entry: &Stored, (method, request): (&Method, &HeaderMap), now: Duration, status: &str) -> Answer {
    let answer = given::give(entry, method, request, entry.freshness.age(now).as_secs());
    match HeaderValue::from_str(status) {
        Ok(value) => answer.with(CACHE_STATUS, value),
        Err(_) => answer,
    }
}
