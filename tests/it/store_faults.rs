//! Each call of the journals to the disk made to fail once, full disks, and simulated power cuts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tempfile::TempDir;
use trunkline::base::clock::{ManualClock, SystemClock, Timestamp};
use trunkline::base::id::EventId;
use trunkline::base::random::SeededRandom;
use trunkline::base::units::Reserve;
use trunkline::store::embedded::{Embedded, Options};
use trunkline::store::model::{Accepted, AuditEntry, NewEvent, RecordKey};
use trunkline::store::{Audit, Backlog, DEDUPE_WINDOW, Events, Records, Store, StoreError};

use crate::support::disk::{Fault, FaultyDisk};
use crate::support::store::{open, options};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// What was acknowledged.
#[derive(Debug, Default)]
struct Acknowledged {
    events: Vec<EventId>,
    records: Vec<u8>,
    audit: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whichever_call_fails_nothing_acknowledged_is_lost_and_the_store_recovers_by_itself() {
    let calls = calls_of_a_round().await;
    assert!(["create", "write_all", "write_at", "sync_data", "sync_directory"].iter().all(|name| calls.contains(name)));
    let rounds = calls.iter().enumerate().flat_map(|(call, name)| {
        [Fault::Fails, Fault::Tears].map(|fault| {
            let site = format!("call {call} ({name}) {fault:?}");
            tokio::spawn(async move {
                fail_once(call, fault).await.unwrap_or_else(|broken| panic!("{site}: {broken}"));
            })
        })
    });
    let mut running = futures_util::stream::iter(rounds).buffer_unordered(24);
    while let Some(round) = running.next().await {
        round.unwrap();
    }
}

/// One round with one failing call: what was acknowledged must be there after recovery, after a
/// restart, and after a power cut.
async fn fail_once(call: usize, fault: Fault) -> Result<(), String> {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    disk.fail(call, fault);
    let Ok(store) = open(faulty(&directory, &disk)).await else {
        // Opening itself failed, and nothing was acknowledged: the next opening must do.
        let store = open(faulty(&directory, &disk)).await.map_err(|error| format!("it stays closed: {error}"))?;
        store.close().await;
        return Ok(());
    };
    let mut told = work(&store, 0).await;
    recovered(&store).await?;
    let more = work(&store, 10).await;
    if !disk.has_failed() {
        return Err("the fault did not happen".to_owned());
    }
    if (more.events.len(), more.records.len(), more.audit) != (5, 5, 5) {
        return Err("it refuses after it said it had recovered".to_owned());
    }
    told.events.extend(more.events);
    told.records.extend(more.records);
    told.audit += more.audit;
    check(&store, &told).await.map_err(|lost| format!("before a restart: {lost}"))?;
    let after_cut = TempDir::new().unwrap();
    disk.cut_power(directory.path(), after_cut.path());
    store.close().await;
    drop(store);
    for (directory, when) in [(&directory, "after a restart"), (&after_cut, "after a power cut")] {
        let store =
            open(faulty(directory, &FaultyDisk::default())).await.map_err(|error| format!("{when}: {error}"))?;
        check(&store, &told).await.map_err(|lost| format!("{when}: {lost}"))?;
        store.close().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_disk_is_told_and_reads_go_on() {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let store = open(faulty(&directory, &disk)).await.unwrap();
    let first = event(1);
    let id = first.id;
    store.accept(first).await.unwrap();
    disk.set_broken(true);
    for number in 2..5 {
        assert!(matches!(store.accept(event(number)).await, Err(StoreError::Unavailable(_))));
    }
    assert!(matches!(store.writable(), Err(StoreError::Unavailable(_))));
    assert!(store.event(id).await.unwrap().is_some());
    disk.set_broken(false);
    recovered(&store).await.unwrap();
    assert_eq!(store.accept(event(9)).await.unwrap(), Accepted::New);
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_refuses_new_facts_and_recovers_without_a_restart() {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let store = open(Options { min_free: Reserve::Bytes(1 << 20), ..faulty(&directory, &disk) }).await.unwrap();
    store.accept(event(1)).await.unwrap();
    disk.set_free(1_000);
    let noticed = async {
        let mut number = 100;
        while store.accept(event(number)).await.is_ok() {
            number += 1;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), noticed).await.expect("the watermark is noticed");
    assert!(matches!(store.accept(event(3)).await, Err(StoreError::Full { free: 1_000, .. })));
    assert!(matches!(store.writable(), Err(StoreError::Full { .. })));
    disk.set_free(1 << 40);
    recovered(&store).await.unwrap();
    assert_eq!(store.accept(event(4)).await.unwrap(), Accepted::New);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_opened_on_a_full_disk_and_comes_into_use_when_there_is_room() {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let store = open(faulty(&directory, &disk)).await.unwrap();
    store.accept(event(1)).await.unwrap();
    store.put(&key(1), Bytes::from_static(b"sealed"), None).await.unwrap();
    store.close().await;
    drop(store);
    // The index is not behind the seam: this is what cannot be opened, as sled cannot without a write.
    let (index, aside) = (directory.path().join("index"), directory.path().join("aside"));
    std::fs::rename(&index, &aside).unwrap();
    std::fs::write(&index, "").unwrap();
    disk.set_free(0);
    let store = open(faulty(&directory, &disk)).await.unwrap();
    assert!(matches!(store.accept(event(2)).await, Err(StoreError::Full { free: 0, .. })));
    assert!(matches!(store.writable(), Err(StoreError::Full { .. })));
    assert!(store.retire().await.is_err(), "nothing is removed by an index that is not open");
    assert_eq!(store.get(&key(1)).await.unwrap().map(|(value, _)| value), Some(Bytes::from_static(b"sealed")));
    std::fs::remove_file(&index).unwrap();
    std::fs::rename(&aside, &index).unwrap();
    disk.set_free(1 << 40);
    recovered(&store).await.unwrap();
    assert_eq!(store.depth().ready, 1, "what waited before waits again");
    assert_eq!(store.accept(event(1)).await.unwrap(), Accepted::Duplicate(event(1).id));
    assert_eq!(store.accept(event(2)).await.unwrap(), Accepted::New);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_an_older_format_is_opened_on_a_full_disk_and_taken_over_when_there_is_room() {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let store = open(faulty(&directory, &disk)).await.unwrap();
    store.accept(event(1)).await.unwrap();
    store.put(&key(1), Bytes::from_static(b"sealed"), None).await.unwrap();
    store.close().await;
    drop(store);
    let format = directory.path().join("format");
    let now: serde_json::Value = serde_json::from_slice(&std::fs::read(&format).unwrap()).unwrap();
    let older = serde_json::json!({ "format": 5, "salt": now["salt"] }).to_string();
    std::fs::write(&format, &older).unwrap();
    disk.set_full(true);
    let store = open(faulty(&directory, &disk)).await.unwrap();
    assert!(matches!(store.accept(event(2)).await, Err(StoreError::Full { free: 0, .. })));
    assert_eq!(store.get(&key(1)).await.unwrap().map(|(value, _)| value), Some(Bytes::from_static(b"sealed")));
    assert_eq!(std::fs::read_to_string(&format).unwrap(), older, "it is not in use yet");
    disk.set_full(false);
    recovered(&store).await.unwrap();
    assert_eq!(store.accept(event(2)).await.unwrap(), Accepted::New);
    assert_eq!(store.depth().ready, 2);
    let taken: serde_json::Value = serde_json::from_slice(&std::fs::read(&format).unwrap()).unwrap();
    assert_eq!((&taken["begun"], &taken["salt"]), (&true.into(), &now["salt"]));
    store.close().await;
}

#[tokio::test]
async fn a_full_disk_without_its_index_does_not_hide_what_else_is_wrong() {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    open(faulty(&directory, &disk)).await.unwrap().close().await;
    let index = directory.path().join("index");
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::write(&index, "").unwrap();
    assert!(
        matches!(open(faulty(&directory, &disk)).await, Err(StoreError::Unavailable(_))),
        "with room it is an error"
    );
}

#[tokio::test]
async fn a_second_opening_of_one_directory_is_refused_and_names_the_holder() {
    let (directory, clock) = (TempDir::new().unwrap(), Arc::new(ManualClock::at(NOW)));
    let store = open(options(directory.path(), clock.clone())).await.unwrap();
    let second = trunkline::store::embedded::open(&options(directory.path(), clock.clone()));
    let Err(StoreError::InUse { holder, .. }) = second else { panic!("{second:?}") };
    assert_eq!(holder, format!("with pid {}", std::process::id()));
    // A stranger's hand lets nobody in.
    std::fs::remove_file(directory.path().join("lock")).unwrap();
    let third = trunkline::store::embedded::open(&options(directory.path(), clock.clone()));
    assert!(matches!(third, Err(StoreError::InUse { .. })), "{third:?}");
    store.close().await;
    open(options(directory.path(), clock)).await.unwrap().close().await;
}

/// Five events, five records and five audit entries; what is refused is left out.
async fn work(store: &Embedded, from: u8) -> Acknowledged {
    let mut told = Acknowledged::default();
    for number in from..from + 5 {
        let event = event(u64::from(number));
        let id = event.id;
        if store.accept(event).await.is_ok() {
            told.events.push(id);
        }
        let value = Bytes::from(vec![number; 2_000]);
        if store.put(&key(number), value, None).await.is_ok() {
            told.records.push(number);
        }
        told.audit += usize::from(store.append(entry(number)).await.is_ok());
    }
    told
}

async fn check(store: &Embedded, told: &Acknowledged) -> Result<(), String> {
    for id in &told.events {
        let found = store.event(*id).await.map_err(|error| error.to_string())?;
        if found.is_none() {
            return Err(format!("{id} is gone"));
        }
    }
    for number in &told.records {
        let found = store.get(&key(*number)).await.map_err(|error| error.to_string())?;
        if found.is_none_or(|(value, _)| value != vec![*number; 2_000]) {
            return Err(format!("record {number} is gone"));
        }
    }
    let audit = store.read(1, 1_000).await.map_err(|error| error.to_string())?;
    let gapless = audit.iter().zip(1..).all(|(record, sequence)| record.sequence == sequence);
    if audit.len() < told.audit || !gapless {
        return Err(format!("{} audit entries of {}", audit.len(), told.audit));
    }
    let known = u64::try_from(told.events.len()).unwrap();
    if store.depth().ready < known {
        return Err(format!("{} items are ready of {known}", store.depth().ready));
    }
    Ok(())
}

/// Waits until the store says that it takes writes.
async fn recovered(store: &Embedded) -> Result<(), String> {
    for _ in 0..1_000 {
        if store.writable().is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("it does not recover: {:?}", store.writable()))
}

async fn calls_of_a_round() -> Vec<&'static str> {
    let (directory, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let store = open(faulty(&directory, &disk)).await.unwrap();
    work(&store, 0).await;
    let calls = disk.calls();
    store.close().await;
    calls
}

fn faulty(directory: &TempDir, disk: &FaultyDisk) -> Options {
    let clock = Arc::new(SystemClock::new());
    Options { disk: Arc::new(disk.clone()), segment_bytes: 4_096, ..options(directory.path(), clock) }
}

fn event(number: u64) -> NewEvent {
    let id = EventId::generate(NOW, &SeededRandom::new(number)).unwrap();
    NewEvent {
        id,
        integration: Arc::from("stripe"),
        endpoint: None,
        event_type: "charge.paid".to_owned(),
        delivery_id: Some(id.to_string()),
        dedupe_window: DEDUPE_WINDOW,
        received_at: NOW,
        query: String::new(),
        headers: Vec::new(),
        body: Bytes::from(vec![7; 1_500]),
    }
}

fn key(number: u8) -> RecordKey {
    RecordKey { collection: Arc::from("connections"), key: Arc::from(format!("c-{number:02}")) }
}

fn entry(number: u8) -> AuditEntry {
    AuditEntry {
        at: NOW,
        actor: "system".to_owned(),
        action: "connection.put".to_owned(),
        target: format!("connection:{number}"),
        detail: serde_json::Value::Null,
    }
}
