//! The commands for the store, through the binary, on what a running gateway wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;

const SOON: Duration = Duration::from_secs(20);

/// Two destinations: one took everything, the other nothing; the gateway has been killed.
struct Yard {
    good: Sink,
    bad: Sink,
    deployment: Deployment,
    ledger: Ledger,
    backup: tempfile::TempDir,
}

impl Yard {
    /// Five events, delivered to one destination and not to the other, and a backup made meanwhile.
    fn begin() -> Self {
        let (good, bad) = (Sink::start(Mood::Well), Sink::start(Mood::Failing));
        let deployment = Deployment::new(&[("good", good.url()), ("bad", bad.url())], None);
        let yard = Self { good, bad, deployment, ledger: Ledger::default(), backup: tempfile::tempdir().unwrap() };
        let gateway = yard.deployment.start();
        let mut client = Client::new(yard.deployment.public);
        for _ in 0..5 {
            yard.ledger.send_one(&mut client, 400).expect("an answer");
        }
        let sent = yard.ledger.acknowledged();
        assert!(sent.len() == 5 && within(SOON, || yard.good.missing(sent.keys()).is_empty()));
        let (refused, code) = yard.run("store", &["check"]);
        assert!(code == 2 && refused.contains("in use by another process"), "{refused}");
        let (made, code) = yard.run("backup", &[yard.backup().to_str().unwrap()]);
        assert!(code == 0 && made.contains("events"), "{made}");
        gateway.kill();
        yard
    }

    fn backup(&self) -> PathBuf {
        self.backup.path().join("made")
    }

    fn data(&self) -> PathBuf {
        self.deployment.path().join("data")
    }

    /// Runs a command; what it said, and its exit code.
    fn run(&self, command: &str, arguments: &[&str]) -> (String, i32) {
        let Output { status, stdout, stderr } = self.deployment.command(command).args(arguments).output().unwrap();
        let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (text, status.code().unwrap())
    }

    fn dead(&self) -> usize {
        let reply = Client::new(self.deployment.admin).get("/api/deliveries?state=dead&limit=100").unwrap();
        reply.json().as_array().map_or(0, Vec::len)
    }
}

fn segment(journal: &Path) -> PathBuf {
    let files = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "journal")).min().unwrap()
}

#[test]
fn a_store_is_checked_and_its_index_made_anew() {
    let yard = Yard::begin();
    let (sound, code) = yard.run("store", &["check"]);
    assert!(code == 0 && sound.contains("5 events"), "{sound}");
    fs::remove_dir_all(yard.data().join("index")).unwrap();
    let (told, code) = yard.run("store", &["check"]);
    assert!(code == 1 && told.contains("the index is missing"), "{told}");
    let (rebuilt, code) = yard.run("store", &["rebuild", "--json"]);
    assert!(code == 0 && rebuilt.contains("\"entries\""), "{rebuilt}");
    assert_eq!(yard.run("store", &["check"]).1, 0);
    let path = segment(&yard.data().join("events"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (told, code) = yard.run("store", &["check"]);
    assert!(code == 1 && told.contains(path.to_str().unwrap()) && told.contains("trunkline restore"), "{told}");
    let elsewhere = yard.deployment.path().join("nothing");
    let (none, code) = yard.run("store", &["check", "--state", elsewhere.to_str().unwrap()]);
    assert!(code == 2 && none.contains("is not in the store") && !elsewhere.exists(), "{none}");
}

#[test]
fn a_backup_is_verified_and_restored_and_nothing_is_sent_again_unasked() {
    let yard = Yard::begin();
    let backup = yard.backup();
    let backup = backup.to_str().unwrap();
    assert_eq!(yard.run("backup", &["--verify", backup]).1, 0);
    let (refused, code) = yard.run("restore", &[backup]);
    assert!(code == 2 && refused.contains("is not empty"), "{refused}");
    // The key stands in the state directory here, and is no part of a backup.
    let key = fs::read(yard.data().join("master.key")).unwrap();
    fs::remove_dir_all(yard.data()).unwrap();
    let (restored, code) = yard.run("restore", &[backup]);
    assert!(code == 0 && restored.contains("dead-letter list"), "{restored}");
    fs::write(yard.data().join("master.key"), key).unwrap();
    yard.bad.set(Mood::Well);
    let _gateway = yard.deployment.start();
    assert_eq!(yard.dead(), 5);
    let sent = yard.ledger.acknowledged();
    assert_eq!((yard.good.repeats(), yard.bad.missing(sent.keys()).len()), (0, 5));
    let (replayed, code) = yard.run("events", &["replay", "--dead"]);
    assert!(code == 0 && replayed.contains("replayed 5"), "{replayed}");
    assert!(within(SOON, || yard.bad.missing(sent.keys()).is_empty()), "{}", yard.deployment.log_tail());
    assert_eq!(yard.good.repeats(), 0);
}

#[test]
fn a_restore_resends_when_it_is_asked_to_and_refuses_what_is_not_whole() {
    let yard = Yard::begin();
    let path = segment(&yard.backup().join("events"));
    let whole = fs::read(&path).unwrap();
    let key = fs::read(yard.data().join("master.key")).unwrap();
    fs::remove_dir_all(yard.data()).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    for command in [&["backup", "--verify"][..], &["restore", "--resend"]] {
        let (told, code) = yard.run(command[0], &[command[1], yard.backup().to_str().unwrap()]);
        assert!(code == 1 && told.contains(path.to_str().unwrap()), "{told}");
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(yard.run("restore", &["--resend", yard.backup().to_str().unwrap()]).1, 0);
    fs::write(yard.data().join("master.key"), key).unwrap();
    yard.bad.set(Mood::Well);
    let _gateway = yard.deployment.start();
    let sent = yard.ledger.acknowledged();
    assert!(within(SOON, || yard.bad.missing(sent.keys()).is_empty()), "{}", yard.deployment.log_tail());
}
