//! The commands for the store, through the binary, on what a running gateway wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use trunkline::store::journal::frame;

use crate::outside::gateway::{ADMIN_TOKEN, Deployment};
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
    assert!(code == 0 && told.contains("note: there is no index yet"), "{told}");
    let (rebuilt, code) = yard.run("store", &["rebuild", "--json"]);
    assert!(code == 0 && rebuilt.contains("\"entries\""), "{rebuilt}");
    assert_eq!(yard.run("store", &["check"]).1, 0);
    // Without its mark nothing tells whether entries are missing at the end of a journal.
    let newest = fs::read_dir(yard.data().join("events")).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.filter(|path| path.extension().is_some_and(|kind| kind == "journal")).max().unwrap();
    let whole = fs::read(&newest).unwrap();
    fs::write(&newest, &whole[..whole.len() - 3]).unwrap();
    fs::remove_file(yard.data().join("events/mark")).unwrap();
    let (rebuilt, code) = yard.run("store", &["rebuild"]);
    let says = |words: &str| assert!(code == 3 && rebuilt.contains(words), "{rebuilt}");
    says("entries may be missing at the end of journal `events`");
    says("bytes that are no whole entry");
    let path = segment(&yard.data().join("events"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (told, code) = yard.run("store", &["check"]);
    assert!(code == 1 && told.contains(path.to_str().unwrap()) && told.contains("trunkline restore"), "{told}");
    let elsewhere = yard.deployment.path().join("nothing");
    let (none, code) = yard.run("store", &["check", "--state", elsewhere.to_str().unwrap()]);
    assert!(code == 2 && none.contains("there is no store at") && !elsewhere.exists(), "{none}");
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
fn a_backup_that_is_not_complete_says_what_it_lacks() {
    let yard = Yard::begin();
    let path = segment(&yard.data().join("events"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[36 + 16 + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let again = yard.backup.path().join("again");
    let (told, code) = yard.run("backup", &[again.to_str().unwrap()]);
    assert!(code == 3 && told.contains(path.to_str().unwrap()) && told.contains("1 entry"), "{told}");
    assert_eq!(yard.run("backup", &["--verify", again.to_str().unwrap()]).1, 3);
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

#[test]
fn what_the_operator_did_is_listed_and_verified() {
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("good", sink.url())], None);
    let gateway = deployment.start();
    let run = |arguments: &[&str]| {
        let Output { status, stdout, stderr } =
            deployment.command(arguments[0]).args(&arguments[1..]).output().unwrap();
        let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (text, status.code().unwrap())
    };
    assert_eq!((run(&["reload"]).1, run(&["reload"]).1), (0, 0));
    let (listed, code) = run(&["audit", "list", "--action", "config.reload", "--actor", "operator"]);
    assert!(code == 0 && listed.matches("config.reload").count() == 2, "{listed}");
    let (nobody, code) = run(&["audit", "list", "--actor", "nobody"]);
    assert!(code == 0 && !nobody.contains("config.reload"), "{nobody}");
    let (first, code) = run(&["audit", "list", "--limit", "1"]);
    assert!(code == 0 && first.contains("There are more"), "{first}");
    let (verified, code) = run(&["audit", "verify"]);
    assert!(code == 0 && verified.contains("the chain is whole; it ends with "), "{verified}");
    let end = verified.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(run(&["reload"]).1, 0);
    let (later, code) = run(&["audit", "verify", "--known", &end]);
    assert!(code == 0 && !later.contains(&end), "what was noted is still in it: {later}");
    gateway.kill();
}

/// A deployment with six entries in its audit log (what was in force, and five reloads), and its export.
struct Audited {
    _sink: Sink,
    deployment: Deployment,
    export: PathBuf,
}

impl Audited {
    fn begin() -> Self {
        let sink = Sink::start(Mood::Well);
        let deployment = Deployment::new(&[("good", sink.url())], None);
        let gateway = deployment.start();
        let export = deployment.path().join("audit.ndjson");
        let audited = Self { _sink: sink, deployment, export };
        for _ in 0..5 {
            assert_eq!(audited.run(&["reload"]).1, 0);
        }
        assert_eq!(audited.run(&["audit", "export", "--to", audited.export.to_str().unwrap()]), (String::new(), 0));
        gateway.kill();
        audited
    }

    fn run(&self, arguments: &[&str]) -> (String, i32) {
        let Output { status, stdout, stderr } =
            self.deployment.command(arguments[0]).args(&arguments[1..]).output().unwrap();
        let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        (text, status.code().unwrap())
    }

    /// What a check says of the export after a change.
    fn changed(&self, change: impl Fn(&mut Vec<String>), more: &[&str]) -> (String, i32) {
        let mut lines: Vec<_> = fs::read_to_string(&self.export).unwrap().lines().map(str::to_owned).collect();
        change(&mut lines);
        let other = self.deployment.path().join("other.ndjson");
        fs::write(&other, lines.join("\n") + "\n").unwrap();
        self.run(&[&["audit", "verify", "--export", other.to_str().unwrap()], more].concat())
    }
}

#[test]
fn what_was_done_to_an_exported_audit_log_is_found_and_located() {
    let audited = Audited::begin();
    let (whole, code) = audited.changed(|_| {}, &[]);
    assert!(code == 0 && whole.contains("6 entries: the chain is whole"), "{whole}");
    let end = whole.trim().rsplit(' ').next().unwrap().to_owned();
    let told = |change: &dyn Fn(&mut Vec<String>), words: &str| {
        let (told, code) = audited.changed(change, &[]);
        assert!(code == 1 && told.starts_with(words) && told.contains("the chain is broken"), "{told}");
    };
    told(&|lines| lines[2] = lines[2].replace("operator", "somebody"), "entry 3 is not what was recorded");
    told(&|lines| drop(lines.remove(2)), "entry 4 stands where entry 3 should be");
    told(&|lines| lines.swap(1, 2), "entry 3 stands where entry 2 should be");
    told(&|lines| drop(lines.remove(0)), "entry 2 stands where entry 1 should be");
    let (told, code) = audited.changed(|lines| lines[2] = lines[2].replacen("Z\"", "999Z\"", 1), &[]);
    assert!(code == 2 && told.contains(":3: this is not how an export writes a time"), "{told}");
    let cut = |lines: &mut Vec<String>| drop(lines.pop());
    assert_eq!(audited.changed(cut, &[]).1, 0, "an end that is cut off is told by what was noted alone");
    let (told, code) = audited.changed(cut, &["--known", &end]);
    assert!(code == 1 && told.contains("entry 6 with the known hash is not in it"), "{told}");
}

#[test]
fn an_export_that_is_refused_leaves_no_file() {
    let deployment = Deployment::of(&[]);
    let gateway = deployment.start();
    let file = deployment.path().join("again.ndjson");
    let export = |token: &str| {
        let mut command = deployment.command("audit");
        command.arg("export").arg("--to").arg(&file).env("TRUNKLINE_ADMIN_TOKEN", token);
        let Output { status, stderr, .. } = command.output().unwrap();
        (status.code(), String::from_utf8(stderr).unwrap())
    };
    let left = || {
        let files = fs::read_dir(deployment.path()).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name.to_string_lossy().contains("again")).collect::<Vec<_>>()
    };
    let (refused, told) = export("wrong");
    assert_eq!((refused, left().len()), (Some(1), 0), "{told}: {:?}", left());
    assert_eq!(export(ADMIN_TOKEN).0, Some(0));
    let (refused, told) = export(ADMIN_TOKEN);
    assert!(refused == Some(2) && told.contains("again.ndjson"), "{told}");
    assert_eq!(left(), ["again.ndjson"]);
    gateway.kill();
}

#[test]
fn an_audit_entry_that_was_changed_on_disk_is_found_and_located() {
    let audited = Audited::begin();
    let file = segment(&audited.deployment.path().join("data/audit"));
    rewrite(&file, |sequence, payload| if sequence == 3 { payload.replace("operator", "somebody") } else { payload });
    let (checked, code) = audited.run(&["store", "check"]);
    assert!(code == 1 && checked.contains("audit: entry 3 is not what was recorded"), "{checked}");
    let gateway = audited.deployment.start();
    let (verified, code) = audited.run(&["audit", "verify"]);
    assert!(code == 1 && verified.starts_with("entry 3 is not what was recorded"), "{verified}");
    let listed = audited.run(&["audit", "list"]).0;
    assert!(listed.contains("entry 3 does not continue the chain"), "{listed}");
    gateway.kill();
}

/// Rewrites the frames of a segment as someone does who knows their form: with checksums that fit.
fn rewrite(file: &Path, change: impl Fn(u64, String) -> String) {
    let (bytes, mut made, mut at) = (fs::read(file).unwrap(), Vec::new(), 0);
    let begin = (0..bytes.len()).find(|at| matches!(frame::decode(&bytes[*at..]), frame::Read::Frame(..))).unwrap();
    made.extend_from_slice(&bytes[..begin]);
    at += begin;
    let mut sequence: u64 = file.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    while let frame::Read::Frame(found, taken) = frame::decode(&bytes[at..]) {
        let payload = change(sequence, String::from_utf8(found.payload.to_vec()).unwrap());
        frame::encode(found.number, payload.as_bytes(), &mut made);
        at += taken;
        sequence += 1;
    }
    made.extend_from_slice(&bytes[at..]);
    fs::write(file, made).unwrap();
}

#[test]
fn a_backup_that_is_not_there_is_no_broken_one() {
    let deployment = Deployment::new(&[], None);
    let nowhere = deployment.path().join("nothing");
    for command in [&["backup", "--verify"][..], &["restore"]] {
        let output = deployment.command(command[0]).args(&command[1..]).arg(&nowhere).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && told.contains("there is no backup"), "{command:?}: {told}");
    }
}
