//! Secrets from a Vault server: named in files, read again, kept while it is away; keys wrapped by it.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use trunkline::app::{App, Options, Running, Seams};
use trunkline::definition::load::environment::{Environment, SecretFault};
use trunkline::definition::plan::DeclaredCredential;
use trunkline::definition::workspace::{Reading, select};
use trunkline::secrets::SecretStore;

use crate::outside::within;
use crate::support::vault::{ROOT, Vault};

/// The longest that a test waits for something to happen.
const PATIENCE: Duration = Duration::from_secs(20);

const ACME: &str = "trunkline: 1\nid: acme\ntitle: Acme\nsummary: A service.\nauth: { api_key: {} }\n\
    api:\n  base_url: https://api.acme.example\n  credential: { header: Authorization, value: \"Bearer {{ api_key }}\" }\n\
    connections:\n  - { id: default, api_key: \"${vault:apps/acme#key}\" }\n";

/// A deployment whose gateway file has these lines under `secrets`, and one definition.
fn deployment(secrets: &str, acme: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let gateway = format!(
        "trunkline: 1\nmode: development\nlisten: {{ public: \"127.0.0.1:0\", proxy: \"127.0.0.1:0\", admin: \"127.0.0.1:0\" }}\n\
         public_url: http://localhost:8080\nintegrations: [./integrations]\nstate: {{ sled: {{ path: ./data, min_free: 1KiB }} }}\n\
         secrets:\n{secrets}"
    );
    fs::write(directory.path().join("trunkline.yaml"), gateway).unwrap();
    fs::create_dir(directory.path().join("integrations")).unwrap();
    fs::write(directory.path().join("integrations/acme.yaml"), acme).unwrap();
    directory
}

fn vault_settings(vault: &Vault, auth: &str) -> String {
    format!("  vault: {{ url: \"{}\", poll: 50ms, timeout: 1s, auth: {auth} }}\n", vault.url())
}

fn with_key(settings: &str) -> String {
    format!("  key: \"${{file:./master.key}}\"\n{settings}")
}

fn seams() -> Seams {
    let environment = HashMap::from([("VAULT_TOKEN".to_owned(), ROOT.to_owned())]);
    Seams { environment: Arc::new(environment), ..Seams::of_system().unwrap() }
}

fn store(directory: &Path) -> Arc<SecretStore> {
    SecretStore::of_file(directory.join("trunkline.yaml"), seams().outside()).unwrap().expect("a server is named")
}

/// What `check` says of a deployment.
fn told(directory: &Path) -> String {
    let store = store(directory);
    let selection = select(&[directory.to_owned()]).remove(0);
    let read = Reading { environment: &*store, previous: None, keep_documents: false }.read(&selection);
    read.report().text(false)
}

async fn start(directory: &Path) -> Result<Running, String> {
    let options = Options { gateway: directory.to_owned(), development: false, mock: None, seams: seams() };
    App::start(options).await.map_err(|error| error.to_string())
}

/// The key of the default connection, as it is in force.
fn key_in_force(running: &Running) -> Option<String> {
    let generation = running.live().load();
    match &generation.integration("acme")?.connections.first()?.credential {
        DeclaredCredential::ApiKey(key) => Some(key.expose().clone()),
        other => panic!("{other:?}"),
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let done = tokio::task::block_in_place(|| within(PATIENCE, &mut holds));
    assert!(done, "within {PATIENCE:?}: {what}");
}

fn token(vault: &Vault) -> String {
    with_key(&vault_settings(vault, "{ token: \"${env:VAULT_TOKEN}\" }"))
}

#[test]
fn a_field_is_brought_in_once_as_data() {
    let vault = Vault::start();
    vault.put(
        "apps/acme",
        json!({ "key": "a${env:VAULT_TOKEN}{{ 1 }}${vault:apps/acme#key}", "port": 8200, "on": true }),
    );
    let directory = deployment(&token(&vault), ACME);
    assert_eq!(
        told(directory.path()).lines().last().unwrap_or_default(),
        told(directory.path()).lines().last().unwrap()
    );
    let store = store(directory.path());
    assert_eq!(store.secret("apps/acme", "port"), Ok("8200".to_owned()));
    assert_eq!(store.secret("apps/acme", "on"), Ok("true".to_owned()));
    let selection = select(&[directory.path().to_owned()]).remove(0);
    let read = Reading { environment: &*store, previous: None, keep_documents: false }.read(&selection);
    let acme = read.integrations[0].compiled.as_ref().unwrap_or_else(|| panic!("{}", read.report().text(false)));
    let DeclaredCredential::ApiKey(key) = &acme.connections[0].credential else { panic!("a key") };
    assert_eq!(key.expose(), "a${env:VAULT_TOKEN}{{ 1 }}${vault:apps/acme#key}");
}

#[test]
fn what_is_missing_is_told_at_its_place() {
    let vault = Vault::start();
    vault.put("apps/acme", json!({ "kye": "a", "list": ["a"] }));
    vault.put("apps/gone", json!({ "key": "a" }));
    vault.delete("apps/gone");
    vault.state().forbidden.push("secret/data/apps/denied".to_owned());
    let cases = [
        ("apps/acme#key", "acme.yaml:10:30", "the secret `apps/acme#key` has no such field"),
        ("apps/acme#list", "acme.yaml:10:30", "the secret `apps/acme#list` holds no text"),
        ("apps/none#key", "acme.yaml:10:30", "the secret `apps/none#key` is not there"),
        ("apps/gone#key", "acme.yaml:10:30", "the secret `apps/gone#key` is not there"),
        ("apps/denied#key", "acme.yaml:10:30", "does not allow this token to do it"),
    ];
    for (reference, place, words) in cases {
        let directory = deployment(&token(&vault), &ACME.replace("apps/acme#key", reference));
        let told = told(directory.path());
        assert!(told.contains(place) && told.contains(words), "{reference}: {told}");
        assert!(reference != "apps/acme#key" || told.contains("did you mean `kye`"), "{told}");
    }
    let directory = deployment(&token(&vault), ACME);
    vault.state().sealed = true;
    assert!(told(directory.path()).contains("sealed or not initialised"));
    vault.state().sealed = false;
    vault.state().tokens.clear();
    assert!(told(directory.path()).contains("refused the sign-in: permission denied"), "{}", told(directory.path()));
    drop(vault);
    let told = told(directory.path());
    assert!(told.contains("could not be read: the Vault server at http://127.0.0.1:"), "{told}");
    assert!(!told.contains(ROOT), "{told}");
}

#[test]
fn a_file_without_a_server_says_how_to_name_one() {
    let directory = deployment(&with_key(""), ACME);
    assert!(SecretStore::of_file(directory.path().join("trunkline.yaml"), seams().outside()).unwrap().is_none());
    let seams = seams();
    let selection = select(&[directory.path().to_owned()]).remove(0);
    let read = Reading { environment: &*seams.environment, previous: None, keep_documents: false }.read(&selection);
    let told = read.report().text(false);
    assert!(told.contains("no Vault server is named") && told.contains("secrets: { vault: { url: …"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_changed_secret_comes_into_force_and_an_outage_changes_nothing() {
    let mut vault = Vault::start();
    vault.put("apps/acme", json!({ "key": "one" }));
    let directory = deployment(&token(&vault), ACME);
    let running = start(directory.path()).await.unwrap();
    assert_eq!(key_in_force(&running).as_deref(), Some("one"));
    vault.put("apps/acme", json!({ "key": "two" }));
    eventually("the new value is in force", || key_in_force(&running).as_deref() == Some("two"));

    vault.down();
    let stale = || running.metrics().secrets.with_label_values(&["stale"]).get();
    eventually("the outage is counted", || stale() == 1);
    running.reloader().reload().await;
    assert_eq!(key_in_force(&running).as_deref(), Some("two"));
    let ready = readiness(&running);
    assert_eq!((&ready["ready"], &ready["checks"]["secrets"]["stale"]), (&json!(true), &json!(1)), "{ready}");
    assert!(ready["checks"]["secrets"]["detail"].as_str().unwrap().contains("the Vault server at"), "{ready}");

    vault.put("apps/acme", json!({ "key": "three" }));
    vault.back();
    eventually("the value of after the outage", || key_in_force(&running).as_deref() == Some("three"));
    assert_eq!(stale(), 0);

    vault.delete("apps/acme");
    eventually("the file is faulty now", || running.live().load().rejected().count() == 1);
    assert_eq!(key_in_force(&running).as_deref(), Some("three"), "its last good version stays in force");
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_without_the_server_is_not_ready_and_mends_itself() {
    let mut vault = Vault::start();
    vault.put("apps/acme", json!({ "key": "one" }));
    let directory = deployment(&token(&vault), ACME);
    vault.down();
    let running = start(directory.path()).await.unwrap();
    let ready = readiness(&running);
    assert_eq!((&ready["ready"], &ready["checks"]["secrets"]["unread"]), (&json!(false), &json!(1)), "{ready}");
    let ask = |address: SocketAddr, method: &'static str, target: &'static str| {
        let key = [("authorization", "Bearer unknown")];
        let mut client = crate::outside::http::Client::new(address);
        tokio::task::block_in_place(|| client.send(method, target, &key, b"{}").unwrap())
    };
    let public = running.public().tcp().unwrap();
    let reply = ask(public, "POST", "/webhooks/acme");
    assert_eq!((reply.status, reply.header("retry-after").is_some()), (503, true));
    assert_eq!(ask(public, "POST", "/webhooks/none").status, 404);
    vault.back();
    eventually("the secret is read", || key_in_force(&running).as_deref() == Some("one"));
    eventually("it is ready", || readiness(&running)["ready"] == json!(true));

    // From then on an outage takes nothing away, and neither does a new file that needs another secret.
    vault.down();
    let other = ACME.replace("id: acme", "id: other").replace("apps/acme#key", "apps/other#key");
    fs::write(directory.path().join("integrations/other.yaml"), other).unwrap();
    running.reloader().reload().await;
    let ready = readiness(&running);
    assert_eq!((&ready["ready"], &ready["checks"]["secrets"]["unread"]), (&json!(true), &json!(1)), "{ready}");
    running.stop(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_secret_that_the_server_cannot_give_holds_up_no_other_and_nobody_waits_for_one_that_nothing_names() {
    let mut vault = Vault::start();
    vault.put("apps/acme", json!({ "key": "one" }));
    vault.put("apps/aaa", json!({ "key": "two" }));
    let directory = deployment(&token(&vault), ACME);
    let other = directory.path().join("integrations/other.yaml");
    fs::write(&other, ACME.replace("id: acme", "id: other").replace("apps/acme#key", "apps/aaa#key")).unwrap();
    vault.down();
    let running = start(directory.path()).await.unwrap();
    assert_eq!(readiness(&running)["checks"]["secrets"]["unread"], json!(2));
    vault.state().broken.push("secret/data/apps/aaa".to_owned());
    vault.back();
    eventually("the one behind it is read", || key_in_force(&running).as_deref() == Some("one"));
    let ready = readiness(&running);
    assert_eq!((&ready["ready"], &ready["checks"]["secrets"]["unread"]), (&json!(false), &json!(1)), "{ready}");
    let told = ready["checks"]["secrets"]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains("answered 500"), "{told}");
    fs::remove_file(other).unwrap();
    running.reloader().reload().await;
    let ready = readiness(&running);
    assert_eq!((&ready["ready"], &ready["checks"]["secrets"]["unread"]), (&json!(true), &json!(0)), "{ready}");
    running.stop(Duration::from_secs(5)).await;
}

fn readiness(running: &Running) -> serde_json::Value {
    let address = running.admin().tcp().unwrap();
    tokio::task::block_in_place(|| crate::outside::http::Client::new(address).get("/readyz?verbose").unwrap().json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lease_is_renewed_and_a_lost_token_is_replaced_with_what_the_file_says_by_then() {
    let vault = Vault::start();
    vault.put("apps/acme", json!({ "key": "one" }));
    {
        let mut state = vault.state();
        (state.lease, state.namespace) = (1, Some("team/a".to_owned()));
        state.logins = vec!["kubernetes:gateway:first".to_owned()];
    }
    let auth = "{ kubernetes: { role: gateway, jwt: \"${file:./jwt}\" } }, namespace: team/a";
    let directory = deployment(&with_key(&vault_settings(&vault, auth)), ACME);
    fs::write(directory.path().join("jwt"), "first\n").unwrap();
    let running = start(directory.path()).await.unwrap();
    assert_eq!(key_in_force(&running).as_deref(), Some("one"));
    eventually("two renewals", || vault.count("POST auth/token/renew-self") >= 2);
    assert_eq!(vault.count("POST auth/kubernetes/login"), 1);
    {
        let mut state = vault.state();
        state.tokens.clear();
        state.logins = vec!["kubernetes:gateway:second".to_owned()];
    }
    fs::write(directory.path().join("jwt"), "second\n").unwrap();
    vault.put("apps/acme", json!({ "key": "two" }));
    eventually("signed in anew", || key_in_force(&running).as_deref() == Some("two"));
    running.stop(Duration::from_secs(5)).await;
}

#[test]
fn an_application_signs_in_with_its_role() {
    let vault = Vault::start();
    vault.put("apps/acme", json!({ "key": "one" }));
    vault.state().logins = vec!["approle:gateway:s3cret+/=".to_owned()];
    let auth = "{ approle: { role_id: gateway, secret_id: \"${file:./secret-id}\" } }";
    let directory = deployment(&with_key(&vault_settings(&vault, auth)), ACME);
    fs::write(directory.path().join("secret-id"), "s3cret+/=").unwrap();
    assert_eq!(store(directory.path()).secret("apps/acme", "key"), Ok("one".to_owned()));
    fs::write(directory.path().join("secret-id"), "wrong-secret").unwrap();
    let Err(SecretFault::Unread(words)) = store(directory.path()).secret("apps/acme", "key") else { panic!("refused") };
    assert!(words.contains("invalid role or secret ID") && !words.contains("wrong-secret"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_master_key_is_wrapped_by_transit_and_kept_while_the_server_is_away() {
    let mut vault = Vault::start();
    let settings = format!(
        "  key: {{ transit: {{ key: trunkline }} }}\n{}",
        vault_settings(&vault, "{ token: \"${env:VAULT_TOKEN}\" }")
    );
    vault.put("apps/acme", json!({ "key": "one" }));
    let directory = deployment(&settings, ACME);
    let first = start(directory.path()).await.unwrap();
    let [made] = &listed(&first)[..] else { panic!("one key") };
    assert_eq!((vault.count("POST transit/encrypt/trunkline"), made["newest"].as_bool()), (1, Some(true)));
    first.stop(Duration::from_secs(5)).await;

    let second = start(directory.path()).await.unwrap();
    assert_eq!(listed(&second)[0]["id"], made["id"], "the same key again");
    let address = second.admin().tcp().unwrap();
    let rotated = tokio::task::block_in_place(|| {
        crate::outside::http::Client::new(address).send("POST", "/api/keys/rotate", &[], b"").unwrap()
    });
    assert_eq!(rotated.status, 202, "{}", rotated.json());
    let keys = listed(&second);
    assert_eq!((keys.len(), &keys[1]["id"]), (2, &made["id"]));
    vault.down();
    assert_eq!(listed(&second).len(), 2, "the keys are in memory");
    second.stop(Duration::from_secs(5)).await;

    let error = start(directory.path()).await.map(|_| ()).expect_err("no key, no start");
    assert!(error.contains("could not be unwrapped by Transit: the Vault server at"), "{error}");
    vault.back();
    let third = start(directory.path()).await.unwrap();
    assert_eq!(listed(&third).len(), 2);
    third.stop(Duration::from_secs(5)).await;
}

fn listed(running: &Running) -> Vec<serde_json::Value> {
    let address = running.admin().tcp().unwrap();
    let listed =
        tokio::task::block_in_place(|| crate::outside::http::Client::new(address).get("/api/keys").unwrap().json());
    listed["keys"].as_array().unwrap_or_else(|| panic!("{listed}")).clone()
}

#[test]
fn a_client_that_others_wrote_finds_the_fake_to_be_vault() {
    let vault = Vault::start();
    vault.state().logins = vec!["approle:gateway:secret".to_owned(), "kubernetes:gateway:jwt".to_owned()];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let python = target.join("peers/python/bin/python");
    assert!(python.exists(), "{} is not there: run `make peers`", python.display());
    let script = root.join("tests/peers/python/hvac_client.py");
    let run = std::process::Command::new(python).arg(script).args([&vault.url(), ROOT]).output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
