//! Master keys replaced while everything runs: power cuts at every step, writers meanwhile, restores.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use trunkline::base::clock::SystemClock;
use trunkline::base::random::SystemRandom;
use trunkline::connection::keys::{RotateError, open_keys};
use trunkline::connection::rotation::RotationState;
use trunkline::connection::stored::{COLLECTION, FIELD};
use trunkline::connection::vault::sealed_by;
use trunkline::connection::{KeyPlace, Keys, MasterKey, OpeningError};
use trunkline::definition::plan::gateway::{KeySource, Mode, PreviousKeys};
use trunkline::store::embedded::{Embedded, Options};
use trunkline::store::model::RecordKey;
use trunkline::store::{Audit, Records};

use crate::outside::rounds;
use crate::support::disk::{Fault, FaultyDisk};
use crate::support::store::{open, options};

/// How many credentials a rotation is about.
const RECORDS: usize = 40;

fn record(number: usize) -> RecordKey {
    RecordKey { collection: Arc::from(COLLECTION), key: Arc::from(format!("svc/c{number}")) }
}

fn key() -> MasterKey {
    MasterKey::generate(&SystemRandom::default()).unwrap()
}

/// A key file with these keys.
fn key_file(directory: &Path, keys: &[&MasterKey]) -> PathBuf {
    let path = directory.join("master.key");
    let lines: Vec<_> = keys.iter().map(|key| key.line().expose().clone()).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    path
}

async fn keys(file: &Path, store: &Arc<Embedded>) -> Result<Keys, OpeningError> {
    keys_after(file, store, PreviousKeys::default()).await
}

async fn keys_after(file: &Path, store: &Arc<Embedded>, previous: PreviousKeys) -> Result<Keys, OpeningError> {
    let place = KeyPlace {
        source: KeySource::File(file.to_owned()),
        previous,
        mode: Mode::Production,
        environment: Arc::new(|_| None),
        random: Arc::new(SystemRandom::default()),
        wrap: None,
        records: store.clone(),
    };
    open_keys(place, store.clone(), Arc::new(SystemClock::new())).await.map(Option::unwrap)
}

async fn plant(keys: &Keys, store: &Embedded, content: &str) {
    for number in 0..RECORDS {
        write(keys, store, number, content).await;
    }
}

async fn write(keys: &Keys, store: &Embedded, number: usize, content: &str) {
    let key = record(number);
    let sealed = keys.vault().seal(&key, FIELD, format!("{content} {number}").as_bytes()).unwrap();
    store.put(&key, Bytes::from(sealed), None).await.unwrap();
}

async fn read(keys: &Keys, store: &Embedded, number: usize) -> String {
    let key = record(number);
    let (sealed, _) = store.get(&key).await.unwrap().unwrap();
    String::from_utf8(keys.vault().open(&key, FIELD, &sealed).unwrap().expose().clone()).unwrap()
}

fn on(disk: &FaultyDisk, directory: &Path) -> Options {
    Options { disk: Arc::new(disk.clone()), ..options(directory, Arc::new(SystemClock::new())) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if path.is_dir() { copy(&path, &to.join(name)) } else { _ = fs::copy(&path, to.join(name)).unwrap() }
    }
}

/// A closed store whose records are all sealed by `old`.
async fn template(old: &MasterKey) -> TempDir {
    let directory = TempDir::new().unwrap();
    let file = key_file(directory.path(), &[old]);
    let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
    plant(&keys(&file, &store).await.unwrap(), &store, "secret").await;
    store.close().await;
    directory
}

/// What happens in a round at one call to the disk.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// The power goes.
    Cut,
    /// The call fails, and then the power goes.
    Fails(Fault),
}

/// Rotates on a copy of the template until the blow falls, and gives what is left of the disk; with it how
/// many calls to the disk the rotation made.
async fn rotate_until(template: &Path, ring: &[&MasterKey], blow: Option<(usize, Blow)>) -> (TempDir, usize) {
    let (directory, after) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let state = directory.path().join("state");
    copy(&template.join("state"), &state);
    let file = key_file(directory.path(), ring);
    let disk = FaultyDisk::default();
    let store = open(on(&disk, &state)).await.unwrap();
    let keys = keys(&file, &store).await.unwrap();
    let before = disk.calls().len();
    let left = after.path().join("state");
    if let Some((at, Blow::Fails(fault))) = blow {
        disk.fail(before + at, fault);
    }
    let rotating = async { keys.rotate("test").await.is_ok() && keys.settled().await.state != RotationState::Running };
    let watching = async {
        match blow {
            Some((at, Blow::Cut)) => {
                while disk.calls().len() < before + at {
                    tokio::task::yield_now().await;
                }
                disk.cut_power(&state, &left);
            }
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        () = watching => {}
        _ = rotating => disk.cut_power(&state, &left),
    }
    let calls = disk.calls().len() - before;
    store.close().await;
    (after, calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_power_cut_at_any_step_leaves_every_credential_readable_and_the_rotation_goes_on() {
    let (old, new) = (key(), key());
    let template = template(&old).await;
    let (_, calls) = rotate_until(template.path(), &[&old, &new], None).await;
    assert!(calls > 5, "{calls}");
    let rounds = rounds("TRUNKLINE_ROTATION_ROUNDS", 200) as usize;
    let mut interrupted = 0;
    for round in 0..rounds {
        let blow = [Blow::Cut, Blow::Fails(Fault::Fails), Blow::Fails(Fault::Tears)][round % 3];
        let at = (round / 3) % calls;
        let (left, _) = rotate_until(template.path(), &[&old, &new], Some((at, blow))).await;
        let state = left.path().join("state");
        let store = open(on(&FaultyDisk::default(), &state)).await.unwrap();
        let file = key_file(left.path(), &[&old, &new]);
        let opened =
            keys(&file, &store).await.unwrap_or_else(|error| panic!("round {round}, {blow:?} at {at}: {error}"));
        for number in 0..RECORDS {
            assert_eq!(read(&opened, &store, number).await, format!("secret {number}"), "round {round}");
        }
        let by_old = opened.list().await.unwrap().iter().find(|state| !state.newest).map_or(0, |state| state.records);
        interrupted += usize::from(by_old > 0);
        opened.resume().await.unwrap();
        opened.settled().await;
        let checked = opened.check().await.unwrap();
        assert_eq!((checked.opened, checked.failed), (RECORDS, Vec::new()), "round {round}");
        let alone = keys(&key_file(left.path(), &[&new]), &store).await;
        assert!(alone.is_ok(), "round {round}: the old key is still needed: {:?}", alone.err());
        store.close().await;
    }
    assert!(interrupted * 4 > rounds, "only {interrupted} of {rounds} rounds were interrupted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_written_meanwhile_is_not_lost() {
    let directory = TempDir::new().unwrap();
    let file = key_file(directory.path(), &[&key()]);
    let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
    let keys = Arc::new(keys(&file, &store).await.unwrap());
    plant(&keys, &store, "old").await;
    let writers: Vec<_> = (0..RECORDS)
        .map(|number| {
            let (keys, store) = (Arc::clone(&keys), Arc::clone(&store));
            tokio::spawn(async move {
                for version in 0..5 {
                    write(&keys, &store, number, &format!("new {version}")).await;
                }
            })
        })
        .collect();
    keys.rotate("test").await.unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(keys.settled().await.state, RotationState::Done);
    for number in 0..RECORDS {
        assert_eq!(read(&keys, &store, number).await, format!("new 4 {number}"));
    }
    store.close().await;
}

#[tokio::test]
async fn a_key_is_made_and_each_step_is_in_the_audit_log() {
    let (directory, old) = (TempDir::new().unwrap(), key());
    let file = key_file(directory.path(), &[&old]);
    let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
    let keys = keys(&file, &store).await.unwrap();
    plant(&keys, &store, "secret").await;
    keys.rotate("operator").await.unwrap();
    let progress = keys.settled().await;
    assert_eq!((progress.state, progress.resealed, progress.failed), (RotationState::Done, RECORDS, 0));
    let listed = keys.list().await.unwrap();
    assert_eq!(listed.iter().map(|key| (key.newest, key.records)).collect::<Vec<_>>(), [(true, RECORDS), (false, 0)]);
    assert_eq!(listed[1].id, old.id().to_string());
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
    let actions: Vec<_> = store.read(0, 10).await.unwrap().into_iter().map(|line| line.entry.action).collect();
    assert_eq!(actions, ["keys.add", "keys.rotate"]);
    let (sealed, _) = store.get(&record(0)).await.unwrap().unwrap();
    assert_eq!(sealed_by(&sealed).unwrap().to_string(), listed[0].id);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_lost_the_key_in_use_is_refused_before_anything_changes() {
    let (directory, old, new) = (TempDir::new().unwrap(), key(), key());
    let file = key_file(directory.path(), &[&old]);
    let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
    let keys = keys(&file, &store).await.unwrap();
    plant(&keys, &store, "secret").await;
    key_file(directory.path(), &[&new]);
    let error = keys.rotate("operator").await.expect_err("the old key is gone");
    assert!(matches!(error, RotateError::Dropped(RECORDS, id) if id == old.id()), "{error}");
    assert_eq!(keys.vault().ring().newest().id(), old.id());
    store.close().await;
}

#[tokio::test]
async fn previous_keys_open_and_what_they_sealed_needs_them_no_more_after_the_next_start() {
    let (directory, old, new) = (TempDir::new().unwrap(), key(), key());
    let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
    let before = keys(&key_file(directory.path(), &[&old]), &store).await.unwrap();
    plant(&before, &store, "secret").await;
    let file = key_file(directory.path(), &[&new]);
    let refused = keys(&file, &store).await.expect_err("the old key is needed").to_string();
    assert!(refused.contains("does not fit the store") && refused.contains(&old.id().to_string()), "{refused}");
    let previous = PreviousKeys([old.line()].into());
    let after = keys_after(&file, &store, previous).await.unwrap();
    assert_eq!(read(&after, &store, 7).await, "secret 7");
    after.resume().await.unwrap();
    assert_eq!(after.settled().await.resealed, RECORDS);
    assert_eq!(after.older(), 0);
    assert!(keys(&file, &store).await.is_ok());
    store.close().await;
}

#[tokio::test]
async fn one_state_restored_twice_seals_under_different_nonces() {
    let template = template(&key()).await;
    let mut heads = Vec::new();
    for _ in 0..2 {
        let directory = TempDir::new().unwrap();
        copy(template.path(), directory.path());
        let store = open(on(&FaultyDisk::default(), &directory.path().join("state"))).await.unwrap();
        let keys = keys(&directory.path().join("master.key"), &store).await.unwrap();
        write(&keys, &store, 0, "the same").await;
        let (sealed, _) = store.get(&record(0)).await.unwrap().unwrap();
        heads.push(sealed);
        store.close().await;
    }
    // Head (12), nonce (24), wrapped key (48), nonce (24).
    for range in [12..36, 36..84, 84..108] {
        assert_ne!(heads[0][range.clone()], heads[1][range]);
    }
}
