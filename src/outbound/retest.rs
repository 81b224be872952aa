//! Connections tried now and then by their integration's test request, so that one that broke is known before
//! someone needs it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::Outbound;
use super::trial::test;
use crate::base::clock::Timestamp;
use crate::connection::{ConnectionHead, Status};
use crate::definition::live::{Generation, Live};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(30);
/// How many connections one look finds due.
const IN_ONE_LOOK: usize = 100;

/// When each connection, by integration and name, was last tried by this process.
#[derive(Debug, Default)]
pub struct Tried(HashMap<(String, String), Timestamp>);

/// Tests connections that are due, until it is told to stop. The first test of a connection comes somewhere
/// within one interval of the start, so that a restart is no burst of calls. Connections of one integration
/// are tested one after another, and integrations at the same time: one that does not answer holds up none
/// but itself.
pub async fn run(outbound: Arc<Outbound>, live: Arc<Live>, stop: CancellationToken) {
    let started = outbound.parts.clock.now();
    let mut tried = Tried::default();
    let (mut testing, mut busy) = (FuturesUnordered::new(), HashSet::new());
    let mut looks = tokio::time::interval(EVERY);
    // The first is at once, when nothing can be due.
    looks.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(integration) = testing.next() => { busy.remove(&integration); }
            _ = looks.tick() => {
                let generation = live.load();
                for (integration, names) in due(&outbound, &generation, started, (&mut tried, &busy)).await {
                    busy.insert(integration.clone());
                    testing.push(test_all(&outbound, Arc::clone(&generation), integration, names));
                }
            }
        }
    }
}

/// Tests what is due now; answers how many. `tried` has when each was last tried by this process.
pub async fn look(outbound: &Outbound, generation: &Generation, started: Timestamp, tried: &mut Tried) -> usize {
    let due = due(outbound, generation, started, (tried, &HashSet::new())).await;
    let count = due.values().map(Vec::len).sum();
    let tests = due.into_iter().map(|(integration, names)| test_all(outbound, generation, integration, names));
    futures_util::future::join_all(tests).await;
    count
}

/// Tests these connections of an integration, and answers which integration it was.
async fn test_all(outbound: &Outbound, generation: impl Borrow<Generation>, id: String, names: Vec<String>) -> String {
    let generation = generation.borrow();
    if let Some(integration) = generation.integration(&id) {
        for name in names {
            // What comes of it is in the connection's health.
            drop(Box::pin(test(outbound, generation, integration, &name)).await);
        }
    }
    id
}

/// The names of connections that are due, by integration, but for integrations that are `busy`.
async fn due(
    outbound: &Outbound,
    generation: &Generation,
    started: Timestamp,
    (tried, busy): (&mut Tried, &HashSet<String>),
) -> BTreeMap<String, Vec<String>> {
    let mut due: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let Some(every) = generation.gateway.upkeep.test_every else { return due };
    let heads = match outbound.parts.connections.list(generation).await {
        Ok(heads) => heads,
        Err(error) => {
            tracing::warn!("connections could not be tested: {error}");
            return due;
        }
    };
    let now = outbound.parts.clock.now();
    let mut count = 0;
    for head in heads.into_iter().filter(|head| !busy.contains(&head.integration)) {
        if count == IN_ONE_LOOK {
            break;
        }
        let name = (head.integration.clone(), head.name.clone());
        let first = started.after(every.mul_f64(spread(&head)));
        if is_due(outbound, generation, &head, (now, first), (every, tried.0.get(&name))).await {
            tried.0.insert(name, now);
            due.entry(head.integration).or_default().push(head.name);
            count += 1;
        }
    }
    due
}

async fn is_due(
    outbound: &Outbound,
    generation: &Generation,
    head: &ConnectionHead,
    (now, first): (Timestamp, Timestamp),
    (every, tried): (Duration, Option<&Timestamp>),
) -> bool {
    let api = generation.integration(&head.integration).and_then(|integration| integration.api.as_ref());
    if api.is_none_or(|api| api.test.is_none()) {
        return false;
    }
    let health = outbound.parts.connections.health(&head.integration, &head.name).await;
    if matches!(health.status(), Status::Paused | Status::NeedsReconnect) {
        return false;
    }
    match health.last_test.map(|test| test.at).max(tried.copied()) {
        Some(last) => now >= last.after(every),
        None => now >= first,
    }
}

/// A share of the interval that is a connection's own.
fn spread(head: &ConnectionHead) -> f64 {
    let mut hasher = DefaultHasher::new();
    (&head.integration, &head.name).hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() % 1_000).unwrap_or(0)) / 1_000.0
}
