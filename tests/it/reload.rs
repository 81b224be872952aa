//! Files to what is in force: every way in which files change, and what happens to faulty ones.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use trunkline::base::clock::SystemClock;
use trunkline::definition::live::{FileState, Live};
use trunkline::definition::load::environment::{Environment, FileFault, VariableError, read_text};
use trunkline::definition::plan::Integration;
use trunkline::definition::workspace::select;
use trunkline::reload::{Events, Outcome, ReloadResult, Reloader, Seams, Timing, watch};
use trunkline::store::model::{AuditEntry, AuditRecord};
use trunkline::store::{Audit, StoreError};
use trunkline::telemetry::metrics::Metrics;

const GATEWAY: &str =
    "trunkline: 1\nmode: development\npublic_url: http://localhost:8080\nintegrations: [./integrations]\n";

/// A deployment in a directory of its own.
struct Deployment {
    dir: tempfile::TempDir,
    reloader: Arc<Reloader>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

fn definition(id: &str, title: &str) -> String {
    format!("trunkline: 1\nid: {id}\ntitle: {title}\napi:\n  base_url: https://{id}.test\n")
}

/// Starts with definitions `a` and `b`, unless `prepare` writes others.
fn start(prepare: impl FnOnce(&Path)) -> Deployment {
    start_in(Arc::new(HashMap::<String, String>::new()), prepare)
}

/// As [`start`], with references looked up there.
fn start_in(environment: Arc<dyn Environment>, prepare: impl FnOnce(&Path)) -> Deployment {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("trunkline.yaml"), GATEWAY).unwrap();
    fs::create_dir(dir.path().join("integrations")).unwrap();
    for id in ["a", "b"] {
        fs::write(dir.path().join(format!("integrations/{id}.yaml")), definition(id, "First")).unwrap();
    }
    prepare(dir.path());
    let metrics = Arc::new(Metrics::new().unwrap());
    let seams = Seams { environment, clock: Arc::new(SystemClock::new()), metrics: Arc::clone(&metrics) };
    let selection = select(&[dir.path().to_owned()]).remove(0);
    let (reloader, live) = Reloader::start(selection, seams).map_err(|report| report.text(false)).unwrap();
    Deployment { dir, reloader: Arc::new(reloader), live, metrics }
}

impl Deployment {
    fn path(&self, id: &str) -> PathBuf {
        self.dir.path().join(format!("integrations/{id}.yaml"))
    }

    fn write(&self, id: &str, text: &str) {
        fs::write(self.path(id), text).unwrap();
    }

    fn get(&self, id: &str) -> Option<Arc<Integration>> {
        self.live.load().integration(id).cloned()
    }

    fn title(&self, id: &str) -> Option<String> {
        self.get(id).map(|integration| integration.title.clone())
    }

    fn state(&self, id: &str) -> Option<FileState> {
        let path = self.path(id);
        self.live.load().files.iter().find(|status| *status.file == path).map(|status| status.state)
    }

    async fn reload(&self) -> Outcome {
        self.reloader.reload().await
    }
}

fn ids(ids: &[Arc<str>]) -> Vec<&str> {
    ids.iter().map(|id| &**id).collect()
}

#[tokio::test]
async fn an_edit_replaces_one_integration_and_leaves_the_others_as_they_are() {
    let deployment = start(|_| {});
    let other = deployment.get("b").unwrap();
    deployment.write("a", &definition("a", "Second"));
    let outcome = deployment.reload().await;
    assert_eq!((outcome.result, ids(&outcome.changed), outcome.generation), (ReloadResult::Applied, vec!["a"], 2));
    assert_eq!(deployment.title("a").as_deref(), Some("Second"));
    assert!(Arc::ptr_eq(&other, &deployment.get("b").unwrap()), "an unchanged file keeps its compiled definition");
}

/// An audit log that keeps what it was given, with the generation that was in force then, and may refuse it.
struct Notes {
    live: Arc<Live>,
    kept: Mutex<Vec<(u64, AuditEntry)>>,
    refuses: bool,
}

#[async_trait]
impl Audit for Notes {
    async fn append(&self, entry: AuditEntry) -> Result<AuditRecord, StoreError> {
        self.kept.lock().unwrap().push((self.live.load().number, entry.clone()));
        if self.refuses {
            return Err(StoreError::Read("the log is full".into()));
        }
        Ok(AuditRecord { sequence: 1, entry, hash: String::new() })
    }

    async fn read(&self, _: u64, _: usize) -> Result<Vec<AuditRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn newest(&self) -> u64 {
        0
    }
}

#[tokio::test]
async fn a_generation_is_written_down_before_it_comes_into_force_and_comes_also_where_that_is_refused() {
    for refuses in [false, true] {
        let deployment = start(|_| {});
        let notes = Arc::new(Notes { live: Arc::clone(&deployment.live), kept: Mutex::default(), refuses });
        deployment.reloader.recorded_in(Arc::clone(&notes) as _).await;
        deployment.reload().await;
        deployment.write("a", &definition("a", "Second"));
        deployment.write("c", &definition("c", "First"));
        fs::remove_file(deployment.path("b")).unwrap();
        assert_eq!(deployment.reload().await.generation, 2);
        assert_eq!(deployment.title("a").as_deref(), Some("Second"));
        let kept = notes.kept.lock().unwrap();
        let detail = |place: usize| &kept[place].1.detail;
        assert_eq!((kept.len(), &detail(0)["generation"], &detail(1)["generation"]), (2, &1.into(), &2.into()));
        assert_eq!((kept[1].0, &*kept[1].1.actor, &*kept[1].1.action), (1, "system", "config.applied"));
        let named = ["added", "changed", "removed", "refused"].map(|kind| detail(1)[kind].to_string());
        assert_eq!(named, ["[\"c\"]", "[\"a\"]", "[\"b\"]", "[]"]);
        assert_eq!(detail(1)["files"].as_array().unwrap().len(), 3, "{}", detail(1));
    }
}

#[tokio::test]
async fn nothing_changed_means_no_new_generation() {
    let deployment = start(|_| {});
    let before = deployment.live.load();
    let outcome = deployment.reload().await;
    assert_eq!((outcome.result, outcome.generation), (ReloadResult::Unchanged, 1));
    assert!(Arc::ptr_eq(&before, &deployment.live.load()));
}

#[tokio::test]
async fn a_comment_changes_no_integration() {
    let deployment = start(|_| {});
    let before = deployment.get("a").unwrap();
    deployment.write("a", &format!("# A remark.\n{}", definition("a", "First")));
    let outcome = deployment.reload().await;
    assert_eq!(ids(&outcome.changed), [""; 0]);
    assert!(Arc::ptr_eq(&before, &deployment.get("a").unwrap()));
}

#[tokio::test]
async fn a_broken_file_keeps_its_last_good_version_and_touches_no_other() {
    let deployment = start(|_| {});
    let good = deployment.get("a").unwrap();
    deployment.write("a", "trunkline: 1\nid: a\ntitel: Broken\n");
    deployment.write("b", &definition("b", "Second"));
    let outcome = deployment.reload().await;
    assert_eq!((outcome.result, ids(&outcome.changed)), (ReloadResult::Rejected, vec!["b"]));
    assert!(outcome.rejected[0].problems[0].contains("did you mean `title`?"), "{:?}", outcome.rejected);
    assert!(Arc::ptr_eq(&good, &deployment.get("a").unwrap()));
    assert_eq!(deployment.state("a"), Some(FileState::Kept));
    deployment.write("a", &definition("a", "Mended"));
    assert_eq!(deployment.reload().await.result, ReloadResult::Applied);
    assert_eq!((deployment.title("a").as_deref(), deployment.state("a")), (Some("Mended"), Some(FileState::Loaded)));
}

#[tokio::test]
async fn truncated_empty_and_unreadable_files_are_not_deletions() {
    let deployment = start(|_| {});
    for text in ["", "trunkline: 1\nid: a\napi:\n  base_u", "trunkline: 1\nid: \"a"] {
        deployment.write("a", text);
        assert_eq!(deployment.reload().await.result, ReloadResult::Rejected, "{text}");
        assert_eq!(deployment.title("a").as_deref(), Some("First"), "{text}");
    }
    fs::remove_file(deployment.path("a")).unwrap();
    fs::create_dir(deployment.path("a")).unwrap();
    fs::rename(deployment.dir.path().join("integrations"), deployment.dir.path().join("elsewhere")).unwrap();
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert_eq!(deployment.title("b").as_deref(), Some("First"), "a directory that is gone deletes nothing");
}

#[tokio::test]
async fn files_come_and_go() {
    let deployment = start(|_| {});
    deployment.write("c", &definition("c", "Third"));
    fs::remove_file(deployment.path("b")).unwrap();
    let outcome = deployment.reload().await;
    assert_eq!((ids(&outcome.added), ids(&outcome.removed)), (vec!["c"], vec!["b"]));
    assert!(deployment.get("b").is_none() && deployment.get("c").is_some());
}

#[tokio::test]
async fn a_file_that_is_broken_from_the_start_keeps_nothing_from_starting() {
    let deployment = start(|dir| fs::write(dir.join("integrations/c.yaml"), "trunkline: 1\nid: c\nx: 1\n").unwrap());
    assert_eq!(deployment.state("c"), Some(FileState::Rejected));
    assert!(deployment.get("a").is_some() && deployment.get("c").is_none());
    let text = String::from_utf8(deployment.metrics.render().unwrap()).unwrap();
    for told in ["{state=\"rejected\"} 1", "{state=\"kept\"} 0"] {
        assert!(text.contains(&format!("trunkline_definitions{told}")), "{text}");
    }
}

#[tokio::test]
async fn a_file_that_is_broken_from_the_start_takes_none_down_that_names_it() {
    let deployment = start(|dir| {
        let rules = "webhook:\n  verify: { token: { header: X-Token } }\n  secrets: [\"${file:./secret}\"]\n  event: body.type\n\
                     rules:\n  - { id: r, when: '*', do: [{ call: other.note }] }\n";
        fs::write(dir.join("integrations/whole.yaml"), definition("whole", "Whole") + rules).unwrap();
        fs::write(dir.join("integrations/secret"), "a-long-enough-secret").unwrap();
        fs::write(dir.join("integrations/other.yaml"), "trunkline: 1\nid: other\noops: [").unwrap();
    });
    let generation = deployment.live.load();
    assert!(generation.integration("whole").is_some(), "{:?}", generation.files);
}

#[tokio::test]
async fn a_file_whose_id_does_not_read_takes_none_down_that_names_it() {
    let other = |id: &str| {
        let endpoints = "  endpoints: [{ id: note, request: GET /note }]\n";
        definition("other", "Other").replace("id: other", &format!("id: {id}")) + endpoints
    };
    for at_first in ["other", "Other!"] {
        let deployment = start(|dir| {
            let rules = "webhook:\n  verify: { token: { header: X-Token } }\n  secrets: [\"${file:./secret}\"]\n  event: body.type\n\
                         rules:\n  - { id: r, when: '*', do: [{ call: other.note }] }\n";
            fs::write(dir.join("integrations/whole.yaml"), definition("whole", "Whole") + rules).unwrap();
            fs::write(dir.join("integrations/secret"), "a-long-enough-secret").unwrap();
            fs::write(dir.join("integrations/other.yaml"), other(at_first)).unwrap();
        });
        deployment.write("other", &other("Other?"));
        deployment.reload().await;
        assert_eq!(deployment.state("whole"), Some(FileState::Loaded), "{at_first}");
        assert_eq!(deployment.get("other").is_some(), at_first == "other", "{at_first}");
    }
}

#[tokio::test]
async fn a_second_file_cannot_take_over_an_id_in_force() {
    let deployment = start(|_| {});
    let first = deployment.get("b").unwrap();
    deployment.write("0", &definition("b", "Taken over"));
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert!(Arc::ptr_eq(&first, &deployment.get("b").unwrap()));
    assert_eq!((deployment.state("0"), deployment.state("b")), (Some(FileState::Rejected), Some(FileState::Loaded)));
}

#[tokio::test]
async fn a_faulty_gateway_file_keeps_the_settings_in_force() {
    let deployment = start(|_| {});
    let settings = Arc::clone(&deployment.live.load().gateway);
    fs::write(deployment.dir.path().join("trunkline.yaml"), GATEWAY.replace("mode", "mood")).unwrap();
    deployment.write("a", &definition("a", "Second"));
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert!(Arc::ptr_eq(&settings, &deployment.live.load().gateway));
    assert_eq!(deployment.title("a").as_deref(), Some("Second"));
}

fn with_secret(dir: &Path) {
    fs::write(dir.join("key"), "first-secret-0123456789\n").unwrap();
    let connections =
        "auth: { basic: {} }\nconnections:\n  - { id: default, username: u, password: \"${file:../key}\" }\n";
    fs::write(dir.join("integrations/a.yaml"), definition("a", "First") + connections).unwrap();
}

#[tokio::test]
async fn a_changed_secret_file_reloads_its_users_only() {
    let deployment = start(with_secret);
    let (user, other) = (deployment.get("a").unwrap(), deployment.get("b").unwrap());
    fs::write(deployment.dir.path().join("key"), "second-secret-0123456789\n").unwrap();
    let outcome = deployment.reload().await;
    assert_eq!(ids(&outcome.changed), ["a"]);
    assert!(!Arc::ptr_eq(&user, &deployment.get("a").unwrap()) && Arc::ptr_eq(&other, &deployment.get("b").unwrap()));
    fs::remove_file(deployment.dir.path().join("key")).unwrap();
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert_eq!(deployment.state("a"), Some(FileState::Kept));
}

fn naming(file: &str) -> String {
    let connections = format!(
        "auth: {{ basic: {{}} }}\nconnections:\n  - {{ id: default, username: u, password: \"${{file:{file}}}\" }}\n"
    );
    definition("a", "First") + &connections
}

#[tokio::test]
async fn what_definitions_may_name_follows_the_gateway_file() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (secret, gateway) = (elsewhere.path().join("secret"), |files: &str| {
        format!("{GATEWAY}secrets: {{ key: \"${{file:./master.key}}\"{files} }}\n")
    });
    fs::write(&secret, "a-secret-from-elsewhere-0123\n").unwrap();
    let deployment = start(|dir| fs::write(dir.join("trunkline.yaml"), gateway("")).unwrap());
    let settings = deployment.dir.path().join("trunkline.yaml");
    deployment.write("a", &naming(secret.to_str().unwrap()));
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    fs::write(&settings, gateway(&format!(", files: [{}]", elsewhere.path().display()))).unwrap();
    deployment.reload().await;
    assert_eq!(deployment.state("a"), Some(FileState::Loaded));
    fs::write(&settings, gateway("")).unwrap();
    deployment.reload().await;
    assert_eq!(deployment.state("a"), Some(FileState::Kept), "what it had stays in force, and nothing new is read");
}

#[tokio::test]
async fn settings_that_do_not_count_open_nothing() {
    let with_key = format!("{GATEWAY}secrets: {{ key: \"${{file:./master.key}}\" }}\n");
    let deployment = start(|dir| {
        fs::write(dir.join("trunkline.yaml"), &with_key).unwrap();
        fs::write(dir.join("master.key"), "the-key\n").unwrap();
    });
    let faulty = with_key.replace("secrets", "secrest");
    fs::write(deployment.dir.path().join("trunkline.yaml"), faulty).unwrap();
    deployment.write("a", &naming("../master.key"));
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert_eq!(deployment.state("a"), Some(FileState::Kept));
}

#[tokio::test]
async fn a_link_is_followed_while_it_stays_inside() {
    let deployment = start(|dir| {
        fs::create_dir(dir.join("..1")).unwrap();
        fs::write(dir.join("..1/key"), "first-secret-0123456789\n").unwrap();
        symlink("..1", dir.join("..data")).unwrap();
        symlink("..data/key", dir.join("key")).unwrap();
    });
    deployment.write("a", &naming("../key"));
    assert_eq!(ids(&deployment.reload().await.changed), ["a"]);
    let elsewhere = tempfile::tempdir().unwrap();
    // The same content: it is the place that counts.
    fs::write(elsewhere.path().join("key"), "first-secret-0123456789\n").unwrap();
    fs::remove_file(deployment.dir.path().join("key")).unwrap();
    symlink(elsewhere.path().join("key"), deployment.dir.path().join("key")).unwrap();
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert_eq!(deployment.state("a"), Some(FileState::Kept));
}

/// Watches until `done`, which the change should bring about; fails after ten seconds.
async fn watched(deployment: &Deployment, change: impl FnOnce(), done: impl Fn() -> bool) {
    let timing = Timing { poll: FAR, ..Timing::default() };
    watched_by(Events::System, timing, deployment, change, done).await;
}

/// Farther away than any test lasts.
const FAR: Duration = Duration::from_mins(10);

async fn watched_by(
    events: Events,
    timing: Timing,
    deployment: &Deployment,
    change: impl FnOnce(),
    done: impl Fn() -> bool,
) {
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(Arc::clone(&deployment.reloader), events, timing, stop.clone()));
    // The first look, after which directories are watched, changes nothing but the count of reloads.
    let looked = || deployment.metrics.config_reloads.with_label_values(&["unchanged"]).get() > 0;
    let wait = async {
        while !looked() {
            tokio::task::yield_now().await;
        }
        change();
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the change took effect");
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_file_events_a_poll_finds_the_change() {
    let deployment = start(|_| {});
    let timing = Timing { poll: FAR, poll_alone: Duration::from_millis(20), ..Timing::default() };
    let change = || deployment.write("a", &definition("a", "Polled"));
    watched_by(Events::None, timing, &deployment, change, || deployment.title("a").as_deref() == Some("Polled")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_makes_it_look() {
    let deployment = start(|_| {});
    // Neither an event nor a poll tells of the change.
    let timing = Timing { poll: FAR, poll_alone: FAR, ..Timing::default() };
    let change = || {
        deployment.write("a", &definition("a", "Asked for"));
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::HUP).unwrap();
    };
    let done = || deployment.title("a").as_deref() == Some("Asked for");
    watched_by(Events::None, timing, &deployment, change, done).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_in_place_write_is_noticed() {
    let deployment = start(|_| {});
    let has = |title: &str| deployment.title("a").as_deref() == Some(title);
    watched(&deployment, || deployment.write("a", &definition("a", "Written")), || has("Written")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_all_the_time_beside_it_does_not_hold_a_change_up() {
    let deployment = start(|_| {});
    let logs = ["busy.log", "integrations/busy.log"].map(|log| deployment.dir.path().join(log));
    let stop = CancellationToken::new();
    let (busy, ended) = (logs.clone(), stop.clone());
    let writing = std::thread::spawn(move || {
        let mut files = busy.map(|log| fs::File::create(log).unwrap());
        while !ended.is_cancelled() {
            for file in &mut files {
                file.write_all(b"a line\n").unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    // It is looked at when nothing more happens for a while, and never before.
    let timing = Timing { poll: FAR, most: FAR, ..Timing::default() };
    let has = || deployment.title("a").as_deref() == Some("Written");
    watched_by(Events::System, timing, &deployment, || deployment.write("a", &definition("a", "Written")), has).await;
    stop.cancel();
    writing.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_referenced_link_leads_to_is_watched_where_it_stands_beside_it() {
    let deployment = start(|dir| {
        fs::write(dir.join("key-1"), "first-secret-0123456789\n").unwrap();
        symlink("key-1", dir.join("key")).unwrap();
    });
    deployment.write("a", &naming("../key"));
    assert_eq!(ids(&deployment.reload().await.changed), ["a"]);
    let generation = deployment.live.load().number;
    let change = || fs::write(deployment.dir.path().join("key-1"), "second-secret-0123456789\n").unwrap();
    watched(&deployment, change, || deployment.live.load().number != generation).await;
}

/// What happens to a deployment's directory.
type Change<'a> = &'a dyn Fn(&Path);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_referenced_path_leads_through_is_watched() {
    let swap = |dir: &Path, to: &str| {
        symlink(to, dir.join("current.new")).unwrap();
        fs::rename(dir.join("current.new"), dir.join("current")).unwrap();
    };
    let second = "second-secret-0123456789\n";
    let written = |dir: &Path| fs::write(dir.join("held/key"), second).unwrap();
    let cases: [(&str, &str, Change<'_>); 4] = [
        ("two links, one after the other", "../key", &written),
        ("a directory that is a link", "../current/key", &written),
        ("a directory that is another from now on", "../current/key", &|dir: &Path| {
            fs::create_dir(dir.join("next")).unwrap();
            fs::write(dir.join("next/key"), second).unwrap();
            swap(dir, "next");
        }),
        ("a directory that is watched by two names", "../alias/held/key", &written),
    ];
    for (case, file, change) in cases {
        let deployment = start(|dir| {
            fs::create_dir(dir.join("held")).unwrap();
            fs::write(dir.join("held/key"), "first-secret-0123456789\n").unwrap();
            fs::create_dir(dir.join("links")).unwrap();
            symlink("../held/key", dir.join("links/key")).unwrap();
            symlink("links/key", dir.join("key")).unwrap();
            symlink(".", dir.join("alias")).unwrap();
            swap(dir, "held");
            let both = naming(file).replace("../alias/held", "../held");
            fs::write(dir.join("integrations/b.yaml"), both.replace("id: a", "id: b")).unwrap();
        });
        deployment.write("a", &naming(file));
        assert_eq!(ids(&deployment.reload().await.changed), ["a"], "{case}");
        let before = deployment.get("a").unwrap();
        let changed = || !Arc::ptr_eq(&before, &deployment.get("a").unwrap());
        watched(&deployment, || change(deployment.dir.path()), changed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_watched_where_it_really_stands() {
    let deployment = start(|dir| {
        fs::create_dir(dir.join("integrations/..held")).unwrap();
        fs::rename(dir.join("integrations/a.yaml"), dir.join("integrations/..held/a.txt")).unwrap();
        symlink("..held/a.txt", dir.join("integrations/a.yaml")).unwrap();
    });
    let has = |title: &str| deployment.title("a").as_deref() == Some(title);
    assert!(has("First"));
    let place = deployment.dir.path().join("integrations/..held/a.txt");
    watched(&deployment, || fs::write(&place, definition("a", "Written")).unwrap(), || has("Written")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_comes_again_is_watched_again() {
    let deployment = start(|_| {});
    let stop = CancellationToken::new();
    let timing = Timing { poll: FAR, ..Timing::default() };
    let watching = tokio::spawn(watch(Arc::clone(&deployment.reloader), Events::System, timing, stop.clone()));
    let directory = deployment.dir.path().join("integrations");
    let becomes = async |title: &str| {
        deployment.write("a", &definition("a", title));
        let wait = async {
            while deployment.title("a").as_deref() != Some(title) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.expect(title);
    };
    becomes("Before").await;
    for round in ["one", "two", "three"] {
        fs::remove_dir_all(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        becomes(&format!("Made anew, {round}")).await;
        becomes(&format!("Written, {round}")).await;
    }
    // So is one that was away, with what it is in, for longer than any look lasts.
    let home = deployment.dir.path();
    let aside = home.with_extension("aside");
    fs::rename(home, &aside).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(deployment.title("a").as_deref(), Some("Written, three"), "what cannot be read stays in force");
    fs::rename(&aside, home).unwrap();
    becomes("Back").await;
    stop.cancel();
    watching.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_editors_rename_is_noticed() {
    let deployment = start(|_| {});
    let change = || {
        let new = deployment.dir.path().join("integrations/.a.yaml.tmp");
        fs::write(&new, definition("a", "Renamed")).unwrap();
        fs::rename(&new, deployment.path("a")).unwrap();
    };
    watched(&deployment, change, || deployment.title("a").as_deref() == Some("Renamed")).await;
}

/// A volume as Kubernetes mounts one: names are links through `..data`, which is put in place at once.
fn volume(dir: &Path, version: &str, title: &str) {
    let data = dir.join(format!("integrations/..{version}"));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("a.yaml"), definition("a", title)).unwrap();
    let link = dir.join("integrations/..data_tmp");
    symlink(format!("..{version}"), &link).unwrap();
    fs::rename(&link, dir.join("integrations/..data")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_volume_swap_is_noticed_every_time() {
    let deployment = start(|dir| {
        volume(dir, "v1", "One");
        fs::remove_file(dir.join("integrations/a.yaml")).unwrap();
        symlink("..data/a.yaml", dir.join("integrations/a.yaml")).unwrap();
    });
    assert_eq!(deployment.title("a").as_deref(), Some("One"));
    for (version, title) in [("v2", "Two"), ("v3", "Three")] {
        let change = || volume(deployment.dir.path(), version, title);
        watched(&deployment, change, || deployment.title("a").as_deref() == Some(title)).await;
    }
}

#[tokio::test]
async fn a_definition_that_is_a_link_out_of_its_directories_is_not_read() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("app.env"), "DB_PASSWORD=hunter2Canary\n").unwrap();
    fs::write(elsewhere.path().join("c.yaml"), definition("c", "Elsewhere")).unwrap();
    let deployment = start(|dir| {
        volume(dir, "v1", "One");
        symlink("..data/a.yaml", dir.join("integrations/k.yaml")).unwrap();
        fs::remove_file(dir.join("integrations/a.yaml")).unwrap();
        for (name, to) in [("env", "app.env"), ("c", "c.yaml")] {
            symlink(elsewhere.path().join(to), dir.join(format!("integrations/{name}.yaml"))).unwrap();
        }
        symlink("../trunkline.yaml", dir.join("integrations/own.yaml")).unwrap();
    });
    assert_eq!((deployment.state("k"), deployment.title("a").as_deref()), (Some(FileState::Loaded), Some("One")));
    let report = deployment.reloader.deployment().report().text(false);
    assert!(!report.contains("Canary") && report.matches("error[out-of-reach]").count() == 3, "{report}");
    // A file that is in force stays so when a link takes its place, and is what it was.
    fs::remove_file(deployment.path("b")).unwrap();
    symlink(elsewhere.path().join("c.yaml"), deployment.path("b")).unwrap();
    assert_eq!(deployment.reload().await.result, ReloadResult::Rejected);
    assert_eq!((deployment.state("b"), deployment.title("b").as_deref()), (Some(FileState::Kept), Some("First")));
    let listed = GATEWAY.replace("[./integrations]", &format!("[./integrations, \"{}\"]", elsewhere.path().display()));
    fs::write(deployment.dir.path().join("trunkline.yaml"), listed).unwrap();
    deployment.reload().await;
    assert_eq!(deployment.title("c").as_deref(), Some("Elsewhere"), "a directory that is listed is one of them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_file_that_is_replaced_is_noticed() {
    let deployment = start(with_secret);
    let before = deployment.get("a").unwrap();
    let change = || {
        let new = deployment.dir.path().join("key.new");
        fs::write(&new, "second-secret-0123456789\n").unwrap();
        fs::rename(&new, deployment.dir.path().join("key")).unwrap();
    };
    watched(&deployment, change, || !Arc::ptr_eq(&before, &deployment.get("a").unwrap())).await;
}

/// Files on something that answers when it is let.
#[derive(Debug, Default)]
struct Hanging(Mutex<bool>, Condvar);

impl Hanging {
    fn hang(&self, hangs: bool) {
        *self.0.lock().unwrap() = hangs;
        self.1.notify_all();
    }
}

impl Environment for Hanging {
    fn variable(&self, _name: &str) -> Result<String, VariableError> {
        Err(VariableError::Missing)
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn file(&self, path: &Path) -> Result<String, FileFault> {
        drop(self.1.wait_while(self.0.lock().unwrap(), |hangs| *hangs).unwrap());
        read_text(path).map_err(FileFault::Unread)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_hangs_is_told_of_and_what_changed_counts_when_it_answers() {
    let files = Arc::new(Hanging::default());
    let deployment = start_in(Arc::clone(&files) as Arc<dyn Environment>, |root| {
        let callers = "callers: [{ id: app, key: \"${file:./key}\" }]";
        fs::write(root.join("key"), "a-key-of-a-caller-0123456789").unwrap();
        fs::write(root.join("trunkline.yaml"), format!("{GATEWAY}limits: {{ files_time: 100ms }}\n{callers}\n"))
            .unwrap();
    });
    assert_eq!((deployment.title("b").as_deref(), deployment.reloader.stalled()), (Some("First"), None));
    files.hang(true);
    deployment.write("b", &definition("b", "Second"));
    for _ in 0..3 {
        let outcome = deployment.reload().await;
        assert_eq!((outcome.result, outcome.generation), (ReloadResult::Stalled, 1));
    }
    assert_eq!(deployment.metrics.config_reloads.with_label_values(&["stalled"]).get(), 3);
    assert!(deployment.reloader.stalled().is_some());
    assert_eq!(deployment.title("b").as_deref(), Some("First"), "what was read last stays in force");
    files.hang(false);
    let told = async { while deployment.reload().await.result == ReloadResult::Stalled {} };
    tokio::time::timeout(Duration::from_secs(20), told).await.expect("it reads again by itself");
    assert_eq!((deployment.title("b").as_deref(), deployment.reloader.stalled()), (Some("Second"), None));
}

#[tokio::test]
async fn of_very_many_faults_each_file_keeps_its_first_ones_and_says_how_many_more_it_has() {
    let odd: Vec<_> = (0..50).map(|number| format!("odd{number}: 1\n")).collect();
    let faulty = |id: &str| definition(id, "First") + &odd.concat();
    let names = |from: usize| (from..from + 10).map(|number| format!("t{number}"));
    let deployment = start(|dir| {
        fs::write(dir.join("trunkline.yaml"), format!("{GATEWAY}limits: {{ listed_faults: 100 }}\n")).unwrap();
        names(10).for_each(|id| fs::write(dir.join(format!("integrations/{id}.yaml")), faulty(&id)).unwrap());
    });
    let kept = |id: &str| {
        let (path, live) = (deployment.path(id), deployment.live.load());
        let status = live.files.iter().find(|status| *status.file == path).unwrap();
        (status.problems.len(), status.left_out.errors)
    };
    let left_out = || deployment.metrics.admin_limits_reached.with_label_values(&["listed_faults"]).get();
    assert_eq!((kept("t10"), kept("t19"), kept("a"), left_out()), ((10, 40), (10, 40), (0, 0), 400));
    deployment.write("t10", &definition("t10", "Mended"));
    let outcome = deployment.reload().await;
    let told = &outcome.rejected[0].problems;
    assert_eq!((outcome.rejected.len(), told.len()), (9, 11));
    assert!(told[10].ends_with("t11.yaml: and 40 more errors: `trunkline check` shows all"), "{told:?}");
    assert_eq!((kept("t10"), kept("t11"), left_out()), ((0, 0), (10, 40), 400), "what was told is not told again");
    // More files have faults, and what is kept of the first ones is less: no news of theirs.
    names(20).for_each(|id| deployment.write(&id, &faulty(&id)));
    deployment.reload().await;
    assert_eq!((kept("t11"), kept("t29"), left_out()), ((5, 45), (5, 45), 400 + 450));
    assert_eq!((deployment.title("a").is_some(), deployment.state("t10")), (true, Some(FileState::Loaded)));
}
