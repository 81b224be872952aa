//! Credentials at rest: sealed in the real store, found again with the right key and with no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, json};
use trunkline::base::clock::{SystemClock, Timestamp};
use trunkline::base::random::SystemRandom;
use trunkline::base::secret::Secret;
use trunkline::base::units::Reserve;
use trunkline::connection::{Connections, Content, Credential, Opening, OpeningError};
use trunkline::definition::live::Generation;
use trunkline::definition::plan::about::About;
use trunkline::definition::plan::gateway::{KeySource, Mode, PreviousKeys};
use trunkline::definition::plan::{Auth, Fingerprint, Integration};
use trunkline::store::embedded::{self, Embedded};

use crate::calls::world::gateway;

const CANARIES: usize = 50;

struct Deployment {
    directory: tempfile::TempDir,
}

impl Deployment {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn store(&self) -> Arc<Embedded> {
        let options = embedded::Options {
            min_free: Reserve::Bytes(0),
            ..embedded::Options::new(self.state(), Arc::new(SystemClock::new()))
        };
        embedded::open(&options).unwrap()
    }

    async fn connections(&self, store: &Arc<Embedded>, key: &str, mode: Mode) -> Result<Connections, OpeningError> {
        Connections::open(Opening {
            source: if key.is_empty() { KeySource::Missing } else { KeySource::File(self.directory.path().join(key)) },
            previous: PreviousKeys::default(),
            wrap: None,
            mode,
            environment: Arc::new(|_| None),
            random: Arc::new(SystemRandom::default()),
            records: store.clone(),
            audit: store.clone(),
            clock: Arc::new(SystemClock::new()),
        })
        .await
    }
}

fn generation() -> Generation {
    let integration = Integration {
        id: "svc".into(),
        title: "Service".into(),
        about: About::default(),
        fingerprint: Fingerprint([0; 32]),
        inputs: Vec::new(),
        auth: Auth::ApiKey { pattern: None },
        api: None,
        connections: Vec::new(),
        webhook: None,
        prompts: trunkline::definition::plan::Prompts::default(),
        rules: Vec::new(),
        referenced: Vec::new(),
    };
    Generation {
        number: 1,
        since: Timestamp::default(),
        fingerprint: Fingerprint([0; 32]),
        gateway: Arc::new(gateway(Mode::Production, Vec::new())),
        integrations: [(Arc::from("svc"), Arc::new(integration))].into(),
        files: Vec::new(),
    }
}

fn canary(number: usize) -> String {
    format!("canary+{number}/\"secret\"={}", "é".repeat(number % 3))
}

async fn plant(connections: &Connections, generation: &Generation) {
    let integration = generation.integration("svc").unwrap();
    for number in 0..CANARIES {
        let credential = Credential::ApiKey(Secret::new(canary(number)));
        let saved = json!({ "refresh": canary(number) }).as_object().unwrap().clone();
        let content = Content { credential, inputs: Map::new(), saved };
        connections.put("operator", integration, &format!("c{number}"), content).await.unwrap();
    }
}

/// A secret in every form in which it might leak.
fn spellings(secret: &str) -> Vec<String> {
    let hex = secret.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let escaped = serde_json::to_string(secret).unwrap().trim_matches('"').to_owned();
    let encoded = percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string();
    vec![secret.to_owned(), STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret), hex, escaped, encoded]
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn no_byte_of_a_credential_is_on_disk_and_all_are_found_again() {
    let (deployment, generation) = (Deployment::new(), generation());
    let store = deployment.store();
    let connections = deployment.connections(&store, "master.key", Mode::Development).await.unwrap();
    plant(&connections, &generation).await;
    store.close().await;
    let disk: Vec<u8> = files(&deployment.state()).iter().flat_map(|path| fs::read(path).unwrap()).collect();
    assert!(disk.len() > CANARIES * 100 && contains(&disk, "svc/c7"), "the records are there");
    for number in 0..CANARIES {
        let found = spellings(&canary(number)).into_iter().find(|spelling| contains(&disk, spelling));
        assert_eq!(found, None);
    }
    drop((connections, store));
    let store = deployment.store();
    let connections = deployment.connections(&store, "master.key", Mode::Production).await.unwrap();
    for number in 0..CANARIES {
        let integration = generation.integration("svc").unwrap();
        let found = connections.resolve(&generation, integration, &format!("c{number}")).await.unwrap();
        assert!(matches!(&found.credential, Credential::ApiKey(key) if *key.expose() == canary(number)));
    }
    assert_eq!(connections.list(&generation).await.unwrap().len(), CANARIES);
}

fn contains(disk: &[u8], text: &str) -> bool {
    disk.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn another_key_or_none_is_an_error_and_never_an_empty_start() {
    let (deployment, generation) = (Deployment::new(), generation());
    let store = deployment.store();
    let connections = deployment.connections(&store, "master.key", Mode::Development).await.unwrap();
    plant(&connections, &generation).await;
    for (key, mode, words) in [
        ("other.key", Mode::Production, "there is no master key at"),
        ("other.key", Mode::Development, "does not fit the store"),
        ("", Mode::Production, "50 sealed credentials and there is no master key"),
    ] {
        let error = deployment.connections(&store, key, mode).await.expect_err(words).to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_name_and_an_empty_password_come_back_as_they_were() {
    let deployment = Deployment::new();
    let store = deployment.store();
    let connections = deployment.connections(&store, "master.key", Mode::Development).await.unwrap();
    let mut generation = generation();
    let mut integration = Arc::into_inner(generation.integrations.remove("svc").unwrap()).unwrap();
    integration.auth = Auth::Basic;
    let integration = Arc::new(integration);
    let basic = Credential::Basic { username: "n\u{0}\"".into(), password: "".into() };
    let content = Content { credential: basic, inputs: Map::new(), saved: Map::new() };
    connections.put("operator", &integration, "b", content).await.unwrap();
    let found = connections.resolve(&generation, &integration, "b").await.unwrap();
    let Credential::Basic { username, password } = &found.credential else { panic!("{found:?}") };
    assert_eq!((username.expose().as_str(), password.expose().as_str()), ("n\u{0}\"", ""));
}
