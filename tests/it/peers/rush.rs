//! Many callers at the moment a token ends, through two processes on one store, against a certified server
//! that rotates refresh tokens and takes everything back when it sees a used one.
//!
//! `TRUNKLINE_RUSH_ROUNDS=1000` makes the run longer.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, json};
use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::connection::refresh::Parts;
use trunkline::connection::{
    Connections, Content, Credential, KeyRing, MasterKey, Neighbours, Refresher, Stored, Tokens, Vault,
};
use trunkline::definition::compile;
use trunkline::definition::document::Document;
use trunkline::definition::live::Live;
use trunkline::definition::plan::Integration;
use trunkline::definition::templates::Templates;
use trunkline::store::embedded::Embedded;
use trunkline::telemetry::metrics::Metrics;

use super::tokens::{self, oidc_definition};
use super::{SECRET, oidc_client};
use crate::outside::rounds;
use crate::refresh::world::{LIFE, directory};
use crate::support::desk::Desk;
use crate::support::doors::{Doors, KEY, Setup};
use crate::support::peer::Peer;
use crate::support::raw::Wire;
use crate::support::store;

/// How many call at once; half of them each process.
const CALLERS: usize = 200;

/// A process: its door, and a connection to it for each of its callers.
struct Process {
    _doors: Doors,
    connections: Arc<Connections>,
    wires: Vec<Wire>,
}

fn integration(definition: &serde_json::Value) -> Integration {
    let document = Document::unplaced("svc.yaml".into(), definition.clone());
    compile::integration(&document, &Templates::new()).unwrap_or_else(|fault| panic!("{}", fault.message))
}

async fn process(
    peer: &Peer,
    (store, vault): (&Arc<Embedded>, &Arc<Vault>),
    clock: &Arc<ManualClock>,
) -> (Process, Desk, Arc<Live>) {
    let definition = tokens::definition(peer, &oidc_definition("basic"));
    let of_all: Arc<dyn Clock> = clock.clone();
    let stored = Stored::new(vault.clone(), store.clone(), store.clone(), clock.clone());
    let connections = Arc::new(Connections::with_stored(stored));
    let (desk, other) = (Desk::of(definition.clone(), &of_all), Desk::of(definition.clone(), &of_all));
    let live = Arc::new(Live::new(other.generation));
    let parts = Parts {
        live: live.clone(),
        connections: connections.clone(),
        source: Arc::new(other.calls),
        revocations: None,
        clock: clock.clone(),
        random: Arc::new(SystemRandom::default()),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    let refresher = Arc::new(Refresher::new(parts, Neighbours::Some).unwrap());
    let doors = Doors::over(Setup::of(integration(&definition)), connections.clone(), Some(refresher));
    let wires = join_all((0..CALLERS / 2).map(|_| Wire::open(doors.proxy))).await;
    (Process { _doors: doors, connections, wires }, desk, live)
}

/// Every caller calls at once. Answers what did not work.
async fn rush(processes: &mut [Process]) -> Vec<String> {
    let wires = processes.iter_mut().flat_map(|process| &mut process.wires);
    let calls = wires.map(|wire| async {
        let head = "GET /svc/me HTTP/1.1\r\nHost: gateway\r\nTrunkline-Connection: team\r\n";
        wire.send(format!("{head}Authorization: Bearer {KEY}\r\n\r\n")).await;
        let reply = wire.reply().await;
        (reply.status != 200 || reply.json()["sub"] != "ada").then(|| format!("{} {}", reply.head, reply.text()))
    });
    join_all(calls).await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_callers_at_the_end_of_a_token_make_one_refresh_and_no_connection_dies() {
    let mut client = oidc_client(SECRET);
    client["token_endpoint_auth_method"] = json!("client_secret_basic");
    let peer = Peer::oidc(&json!({ "clients": [client] }));
    let (clock, directory) = (Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000))), directory());
    let store = store::open(store::options(directory.path(), clock.clone())).await.unwrap();
    let random = Arc::new(SystemRandom::default());
    let vault = Arc::new(Vault::new(KeyRing::of(MasterKey::generate(&*random).unwrap()), random));
    let (one, desk, live) = process(&peer, (&store, &vault), &clock).await;
    let (two, ..) = process(&peer, (&store, &vault), &clock).await;
    let grant = tokens::connect(&desk, &["openid"]).await.unwrap();
    let credential = Credential::Tokens(Tokens(grant.tokens));
    let content = Content { credential, inputs: Map::new(), saved: Map::new() };
    one.connections.put("test", live.load().integration("svc").unwrap(), "team", content).await.unwrap();
    let mut both = [one, two];
    assert_eq!(rush(&mut both).await, Vec::<String>::new(), "before anything ended");
    let all = u64::from(rounds("TRUNKLINE_RUSH_ROUNDS", 20));
    for round in 1..=all {
        // Every fourth time the service says so before we know.
        if round % 4 == 0 {
            clock.advance(Duration::from_mins(20));
            peer.post("/-/expire", &json!({}));
        } else {
            clock.advance(LIFE);
        }
        let broken = rush(&mut both).await;
        assert!(broken.is_empty(), "round {round}: {} of {CALLERS}, such as {}", broken.len(), broken[0]);
        let granted = peer.stat("/granted/refresh_token");
        assert_eq!((granted, peer.stat("/revoked")), (round, 0), "round {round}");
    }
    assert_eq!(peer.get("/-/stats").json()["refused"], json!({}), "a refresh token was presented twice");
    for process in &both {
        assert_eq!(process.connections.health("svc", "team").await.status().word(), "active");
    }
    println!("{all} rounds of {CALLERS} callers: {all} refreshes, 0 refused, 0 dead connections");
}
