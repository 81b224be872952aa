//! Cases of [`trunkline::store::Records`] and [`trunkline::store::Audit`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use trunkline::store::StoreError;
use trunkline::store::model::{AuditEntry, AuditRecord, RecordKey};

use super::{Engine, Lab};

pub async fn a_record_reads_back_with_its_version<E: Engine>(lab: Lab<E>) {
    let (store, key) = (lab.store(), key("connections", "stripe/default"));
    assert_eq!(store.get(&key).await.unwrap(), None);
    let first = store.put(&key, Bytes::from_static(b"one"), None).await.unwrap();
    let second = store.put(&key, Bytes::from_static(b"\x00two"), Some(first)).await.unwrap();
    assert!(second > first);
    assert_eq!(store.get(&key).await.unwrap(), Some((Bytes::from_static(b"\x00two"), second)));
}

pub async fn a_put_with_a_wrong_expectation_is_a_conflict<E: Engine>(lab: Lab<E>) {
    let (store, key) = (lab.store(), key("keys", "check"));
    let value = || Bytes::from_static(b"v");
    assert!(matches!(store.put(&key, value(), Some(3)).await, Err(StoreError::Conflict(_))));
    let version = store.put(&key, value(), Some(0)).await.unwrap();
    assert!(matches!(store.put(&key, value(), Some(0)).await, Err(StoreError::Conflict(_))));
    assert!(matches!(store.put(&key, value(), Some(version + 1)).await, Err(StoreError::Conflict(_))));
    assert_eq!(store.get(&key).await.unwrap(), Some((value(), version)));
}

pub async fn of_concurrent_puts_with_one_expectation_one_happens<E: Engine>(lab: Lab<E>) {
    let key = key("keys", "check");
    let puts = (0_u8..20).map(|n| lab.store().put(&key, Bytes::from(vec![n]), Some(0)));
    let answers = join_all(puts).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let winner = answers.iter().position(Result::is_ok).unwrap();
    let (stored, _) = lab.store().get(&key).await.unwrap().unwrap();
    assert_eq!(usize::from(stored[0]), winner);
}

pub async fn a_removed_record_is_absent<E: Engine>(lab: Lab<E>) {
    let key = key("connections", "a");
    lab.store().put(&key, Bytes::from_static(b"v"), None).await.unwrap();
    lab.store().remove(&key).await.unwrap();
    lab.store().remove(&key).await.unwrap();
    let lab = lab.crash().await;
    assert_eq!(lab.store().get(&key).await.unwrap(), None);
    assert!(lab.store().keys("connections").await.unwrap().is_empty());
    lab.store().put(&key, Bytes::from_static(b"again"), Some(0)).await.unwrap();
}

pub async fn of_concurrent_takes_one_gets_the_record<E: Engine>(lab: Lab<E>) {
    let key = key("flows", "a");
    assert_eq!(lab.store().take(&key).await.unwrap(), None);
    lab.store().put(&key, Bytes::from_static(b"once"), None).await.unwrap();
    let taken = join_all((0..20).map(|_| lab.store().take(&key))).await;
    let got: Vec<_> = taken.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(got, [Bytes::from_static(b"once")]);
    let lab = lab.crash().await;
    assert_eq!(lab.store().take(&key).await.unwrap(), None);
}

pub async fn records_survive_a_crash<E: Engine>(lab: Lab<E>) {
    let (key, value) = (key("connections", "a"), Bytes::from(vec![9; 256 << 10]));
    let version = lab.store().put(&key, value.clone(), None).await.unwrap();
    let lab = lab.crash().await;
    assert_eq!(lab.store().get(&key).await.unwrap(), Some((value.clone(), version)));
    let lab = lab.reopen().await;
    assert_eq!(lab.store().get(&key).await.unwrap(), Some((value, version)));
}

pub async fn keys_of_a_collection_are_in_order<E: Engine>(lab: Lab<E>) {
    for (collection, name) in [("c", "b"), ("c", "a"), ("ca", "z"), ("c", "a/x"), ("b", "q")] {
        lab.store().put(&key(collection, name), Bytes::from_static(b"v"), None).await.unwrap();
    }
    assert_eq!(lab.store().keys("c").await.unwrap(), ["a", "a/x", "b"].map(|name| key("c", name)));
    assert!(lab.store().keys("").await.unwrap().is_empty());
}

pub async fn a_record_above_256_kib_is_refused<E: Engine>(lab: Lab<E>) {
    let big = lab.store().put(&key("c", "k"), Bytes::from(vec![0; (256 << 10) + 1]), None).await;
    assert!(matches!(big, Err(StoreError::TooLarge { limit: 262_144, .. })), "{big:?}");
    let long = lab.store().put(&key("c", &"k".repeat(257)), Bytes::new(), None).await;
    assert!(matches!(long, Err(StoreError::TooLarge { .. })), "{long:?}");
}

pub async fn audit_entries_are_numbered_and_chained<E: Engine>(lab: Lab<E>) {
    let mut told = Vec::new();
    for n in 0..5 {
        told.push(lab.store().append(entry(&lab, n)).await.unwrap());
    }
    assert_eq!(told.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert!(told.iter().all(|record| record.hash.len() == 64 && record.hash == record.hash.to_lowercase()));
    let repeated = lab.store().append(entry(&lab, 4)).await.unwrap();
    assert_ne!(repeated.hash, told[4].hash, "the chain covers what came before");
    assert_eq!(lab.store().read(2, 3).await.unwrap(), told[1..4]);
    assert_eq!(lab.store().read(7, 3).await.unwrap(), []);
}

pub async fn concurrent_audit_entries_leave_no_gap<E: Engine>(lab: Lab<E>) {
    let appends = join_all((0..30).map(|n| lab.store().append(entry(&lab, n)))).await;
    let mut told: Vec<AuditRecord> = appends.into_iter().map(Result::unwrap).collect();
    told.sort_by_key(|record| record.sequence);
    assert_eq!(lab.store().read(1, 100).await.unwrap(), told);
    assert!(told.iter().zip(1..).all(|(record, sequence)| record.sequence == sequence));
}

pub async fn the_audit_chain_goes_on_after_crash_and_restart<E: Engine>(lab: Lab<E>) {
    let first = lab.store().append(entry(&lab, 1)).await.unwrap();
    let lab = lab.crash().await;
    let second = lab.store().append(entry(&lab, 2)).await.unwrap();
    let lab = lab.reopen().await;
    let third = lab.store().append(entry(&lab, 3)).await.unwrap();
    assert_eq!(lab.store().read(0, 10).await.unwrap(), [first, second, third]);
}

pub async fn an_open_store_is_writable_and_measured<E: Engine>(lab: Lab<E>) {
    lab.accept().await;
    assert!(lab.store().writable().is_ok());
    assert!(lab.store().bytes_on_disk() > 0);
}

fn key(collection: &str, key: &str) -> RecordKey {
    RecordKey { collection: Arc::from(collection), key: Arc::from(key) }
}

fn entry<E: Engine>(lab: &Lab<E>, n: u32) -> AuditEntry {
    AuditEntry {
        at: lab.now(),
        actor: "operator".to_owned(),
        action: "event.replay".to_owned(),
        target: format!("event:{n}"),
        detail: serde_json::json!({"n": n}),
    }
}
