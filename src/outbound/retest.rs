//! Connections tried now and then by their integration's test request, so that one that broke is known before
//! someone needs it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::Outbound;
use super::call::test;
use crate::base::clock::Timestamp;
use crate::connection::{ConnectionHead, Status};
use crate::definition::live::{Generation, Live};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(30);
/// How many tests run at once, and how many in one look.
const AT_ONCE: usize = 4;
const IN_ONE_LOOK: usize = 100;

/// When each connection, by integration and name, was last tried by this process.
#[derive(Debug, Default)]
pub struct Tried(HashMap<(String, String), Timestamp>);

/// Tests connections that are due, until it is told to stop. The first test of a connection comes somewhere
/// within one interval of the start, so that a restart is no burst of calls.
pub async fn run(outbound: Arc<Outbound>, live: Arc<Live>, stop: CancellationToken) {
    let started = outbound.parts.clock.now();
    let mut tried = Tried::default();
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        let generation = live.load();
        let work = look(&outbound, &generation, started, &mut tried);
        if stop.run_until_cancelled(work).await.is_none() {
            return;
        }
    }
}

/// Tests what is due now; answers how many. `tried` has when each was last tried by this process.
pub async fn look(outbound: &Outbound, generation: &Generation, started: Timestamp, tried: &mut Tried) -> usize {
    let Some(every) = generation.gateway.upkeep.test_every else { return 0 };
    let heads = match outbound.parts.connections.list(generation).await {
        Ok(heads) => heads,
        Err(error) => {
            tracing::warn!("connections could not be tested: {error}");
            return 0;
        }
    };
    let now = outbound.parts.clock.now();
    let mut due = Vec::new();
    for head in heads {
        if due.len() >= IN_ONE_LOOK {
            break;
        }
        let name = (head.integration.clone(), head.name.clone());
        if is_due(
            outbound,
            generation,
            &head,
            (now, started.after(every.mul_f64(spread(&head)))),
            (every, tried.0.get(&name)),
        )
        .await
        {
            tried.0.insert(name, now);
            due.push(head);
        }
    }
    let count = due.len();
    let tests = due.into_iter().map(|head| async move {
        let Some(integration) = generation.integration(&head.integration) else { return };
        // What comes of it is in the connection's health.
        drop(Box::pin(test(outbound, generation, integration, &head.name)).await);
    });
    futures_util::stream::iter(tests).buffer_unordered(AT_ONCE).collect::<()>().await;
    count
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
