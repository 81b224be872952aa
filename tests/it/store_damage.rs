//! Stored files changed behind the store's back: whatever is lost is told, never silently missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tempfile::TempDir;
use trunkline::base::clock::{ManualClock, Timestamp};
use trunkline::base::id::EventId;
use trunkline::base::random::{Random, SeededRandom};
use trunkline::store::embedded::Embedded;
use trunkline::store::model::{
    Attempt, AuditEntry, AuditRecord, Claim, EventFilter, EventState, Item, Lane, Lease, Leased, NewEvent, PageRequest,
    PlannedDelivery, RecordKey, Verdict,
};
use trunkline::store::{Audit, Backlog, DEDUPE_WINDOW, Events, Records, StoreError, Work};

use crate::support::disk::copy;
use crate::support::store::{open, options};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const TRIALS: u64 = 300;

/// What the test knows to be stored.
#[derive(Debug, Default)]
struct Ledger {
    events: BTreeMap<EventId, (Bytes, EventState)>,
    records: BTreeMap<RecordKey, Bytes>,
    audit: Vec<AuditRecord>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_flip_zeroing_cut_or_deletion_loses_a_fact_silently() {
    let clock = Arc::new(ManualClock::at(NOW));
    let original = Arc::new(TempDir::new().unwrap());
    let ledger = Arc::new(fill(original.path(), &clock).await);
    let trials = (0..TRIALS).map(|seed| {
        let (original, clock, ledger) = (Arc::clone(&original), Arc::clone(&clock), Arc::clone(&ledger));
        tokio::spawn(async move { trial(seed, original.path(), &clock, &ledger).await })
    });
    let mut told = 0;
    let mut running = futures_util::stream::iter(trials).buffer_unordered(16);
    while let Some(judgement) = running.next().await {
        told += usize::from(judgement.unwrap() == Judgement::Told);
    }
    assert!(told > 30, "only {told} of {TRIALS} trials hit anything that matters");
}

async fn trial(seed: u64, original: &Path, clock: &Arc<ManualClock>, ledger: &Ledger) -> Judgement {
    let directory = TempDir::new().unwrap();
    copy(original, directory.path(), &mut |path| Some(fs::read(path).unwrap()));
    let what = damage(directory.path(), &SeededRandom::new(seed));
    judge(directory.path(), clock, ledger).await.unwrap_or_else(|lost| panic!("trial {seed}: {what}: {lost}"))
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Harmless,
    Told,
}

/// Opens a damaged store and compares all it tells with the ledger.
async fn judge(directory: &Path, clock: &Arc<ManualClock>, ledger: &Ledger) -> Result<Judgement, String> {
    let store = match open(options(directory, clock.clone())).await {
        Ok(store) => store,
        Err(StoreError::Damaged { help, .. }) if help.contains("trunkline") => return Ok(Judgement::Told),
        Err(StoreError::NewerFormat { .. }) => return Ok(Judgement::Told),
        Err(other) => return Err(format!("opening told no way out: {other}")),
    };
    let answers = [
        judge_events(&store, ledger).await,
        judge_list(&store, ledger).await,
        judge_work(&store, ledger).await,
        judge_records(&store, ledger).await,
        judge_audit(&store, ledger).await,
    ];
    store.close().await;
    let told = answers.into_iter().collect::<Result<Vec<_>, _>>()?.contains(&Judgement::Told);
    Ok(if told { Judgement::Told } else { Judgement::Harmless })
}

async fn judge_events(store: &Embedded, ledger: &Ledger) -> Result<Judgement, String> {
    let mut judgement = Judgement::Harmless;
    for (id, (body, state)) in &ledger.events {
        match store.event(*id).await {
            Ok(Some(event)) if event.body == *body && event.head.state == *state => {}
            Ok(Some(event)) => {
                return Err(format!("{id} is {:?} instead of {state:?}, or its body differs", event.head.state));
            }
            Ok(None) => return Err(format!("{id} is gone")),
            Err(_) => judgement = Judgement::Told,
        }
    }
    Ok(judgement)
}

async fn judge_list(store: &Embedded, ledger: &Ledger) -> Result<Judgement, String> {
    match store.list(&EventFilter::default(), PageRequest { after: None, limit: 1_000 }).await {
        Ok(page) if page.rows.iter().rev().map(|row| &row.id).eq(ledger.events.keys()) => Ok(Judgement::Harmless),
        Ok(page) => Err(format!("{} events are listed instead of {}", page.rows.len(), ledger.events.len())),
        Err(_) => Ok(Judgement::Told),
    }
}

async fn judge_work(store: &Embedded, ledger: &Ledger) -> Result<Judgement, String> {
    let dead = ledger.events.values().filter(|(_, state)| *state == EventState::Dead).count();
    if store.depth().dead != dead as u64 {
        return Err(format!("{} deliveries are dead instead of {dead}", store.depth().dead));
    }
    let open = |state| [EventState::Queued, EventState::Delivering].contains(&state);
    let due: BTreeSet<_> = ledger.events.iter().filter(|(_, (_, state))| open(*state)).map(|(id, _)| *id).collect();
    let claim = Claim {
        now: NOW,
        until: NOW.after(Duration::from_mins(1)),
        max: 1_000,
        busy: &[],
        per_lane: 1_000,
        matching: 1_000,
    };
    match store.claim(claim).await {
        Ok(leased) if leased.iter().map(|leased| leased.item.event()).collect::<BTreeSet<_>>() == due => {
            Ok(Judgement::Harmless)
        }
        Ok(leased) => Err(format!("{} items are claimable instead of {}", leased.len(), due.len())),
        Err(_) => Ok(Judgement::Told),
    }
}

async fn judge_records(store: &Embedded, ledger: &Ledger) -> Result<Judgement, String> {
    match store.keys("connections").await {
        Ok(keys) if keys.iter().eq(ledger.records.keys()) => {}
        Ok(keys) => return Err(format!("{} records instead of {}", keys.len(), ledger.records.len())),
        Err(_) => return Ok(Judgement::Told),
    }
    for (key, value) in &ledger.records {
        match store.get(key).await {
            Ok(Some((found, _))) if found == *value => {}
            Ok(found) => return Err(format!("{key:?} holds {found:?}")),
            Err(_) => return Ok(Judgement::Told),
        }
    }
    Ok(Judgement::Harmless)
}

async fn judge_audit(store: &Embedded, ledger: &Ledger) -> Result<Judgement, String> {
    match store.read(1, 1_000).await {
        Ok(found) if found == ledger.audit => Ok(Judgement::Harmless),
        Ok(found) => Err(format!("{} audit entries instead of {}, or they differ", found.len(), ledger.audit.len())),
        Err(_) => Ok(Judgement::Told),
    }
}

/// A store with events in every state, records and an audit log, closed.
async fn fill(directory: &Path, clock: &Arc<ManualClock>) -> Ledger {
    let store = open(options(directory, clock.clone())).await.unwrap();
    let (mut ledger, mut held, random) = (Ledger::default(), Vec::new(), SeededRandom::new(1));
    for number in 0..60_u8 {
        let body = Bytes::from(vec![number; 900]);
        let id = accept(&store, &random, body.clone()).await;
        ledger.events.insert(id, (body, take_to(&store, id, number % 6, &mut held).await));
        let key = RecordKey { collection: Arc::from("connections"), key: Arc::from(format!("c-{:02}", number % 20)) };
        let value = Bytes::from(vec![number; 300]);
        store.put(&key, value.clone(), None).await.unwrap();
        ledger.records.insert(key, value);
        ledger.audit.push(store.append(entry(number)).await.unwrap());
    }
    for lease in held {
        store.release(lease).await.unwrap();
    }
    store.close().await;
    ledger
}

async fn accept(store: &Embedded, random: &SeededRandom, body: Bytes) -> EventId {
    let id = EventId::generate(NOW, random).unwrap();
    let event = NewEvent {
        id,
        integration: Arc::from("stripe"),
        endpoint: None,
        event_type: "charge.paid".to_owned(),
        delivery_id: Some(id.to_string()),
        dedupe_window: DEDUPE_WINDOW,
        received_at: NOW,
        query: String::new(),
        headers: vec![("content-type".to_owned(), Bytes::from_static(b"application/json"))],
        body,
    };
    store.accept(event).await.unwrap();
    id
}

/// Leads an event to one of the states an event can stay in. What is left for later stays leased until
/// the store has been filled, out of the way of the next claims.
async fn take_to(store: &Embedded, id: EventId, which: u8, held: &mut Vec<Lease>) -> EventState {
    let matching = claim_all(store).await.remove(0);
    assert_eq!(matching.item, Item::Match(id));
    if which < 2 {
        held.push(matching.lease);
        return EventState::Queued;
    }
    let planned = PlannedDelivery {
        rule: "forward".to_owned(),
        action: 0,
        summary: "deliver app".to_owned(),
        lane: Lane(Arc::from("destination:app")),
        due: NOW,
    };
    store.plan(matching.lease, if which == 2 { Vec::new() } else { vec![planned] }).await.unwrap();
    let (verdict, state) = match which {
        2 => return EventState::Discarded,
        3 => (Verdict::Retry { due: NOW }, EventState::Delivering),
        4 => (Verdict::Done, EventState::Done),
        _ => (Verdict::Dead, EventState::Dead),
    };
    let leased = claim_all(store).await.remove(0);
    let attempt = Attempt { number: 1, started_at: NOW, duration_ms: 3, status: Some(500), error: None };
    store.finish(leased.lease, attempt, verdict).await.unwrap();
    held.extend(claim_all(store).await.into_iter().map(|leased| leased.lease));
    state
}

async fn claim_all(store: &Embedded) -> Vec<Leased> {
    let claim = Claim {
        now: NOW,
        until: NOW.after(Duration::from_mins(1)),
        max: 1_000,
        busy: &[],
        per_lane: 1_000,
        matching: 1_000,
    };
    store.claim(claim).await.unwrap()
}

fn entry(number: u8) -> AuditEntry {
    AuditEntry {
        at: NOW,
        actor: "operator".to_owned(),
        action: "connection.put".to_owned(),
        target: format!("connection:{number}"),
        detail: serde_json::json!({"n": number}),
    }
}

/// Changes one file of a store, and says how.
fn damage(directory: &Path, random: &SeededRandom) -> String {
    let mut files = Vec::new();
    collect(directory, &mut files);
    files.sort();
    let path = &files[below(random, files.len())];
    let mut bytes = fs::read(path).unwrap();
    let place = place_in(random, &bytes);
    let what = match below(random, 8) {
        0..=2 if !bytes.is_empty() => {
            bytes[place] ^= 1 << below(random, 8);
            format!("flipped a bit at {place}")
        }
        3 | 4 if !bytes.is_empty() => {
            let begin = place / 4_096 * 4_096;
            let end = (begin + 4_096).min(bytes.len());
            bytes[begin..end].fill(0);
            format!("zeroed {begin}..{end}")
        }
        5 | 6 => {
            bytes.truncate(place);
            format!("cut to {place} bytes")
        }
        _ => {
            fs::remove_file(path).unwrap();
            return format!("deleted {}", path.display());
        }
    };
    fs::write(path, bytes).unwrap();
    format!("{what} in {}", path.display())
}

/// A place in a file, mostly one that holds something.
fn place_in(random: &SeededRandom, bytes: &[u8]) -> usize {
    let filled: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    match below(random, 5) {
        1.. if !filled.is_empty() => filled[below(random, filled.len())],
        _ => below(random, bytes.len().max(1)),
    }
}

fn below(random: &SeededRandom, end: usize) -> usize {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).unwrap();
    usize::try_from(u64::from_le_bytes(bytes) % end as u64).unwrap()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
