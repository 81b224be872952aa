//! Which connections there are, as definitions, files and the store say.

use super::super::keyring::{KeyRing, MasterKey};
use super::super::memory::{Memory, generation, integration};
use super::*;
use crate::base::clock::{ManualClock, Timestamp};
use crate::base::random::SystemRandom;
use crate::definition::plan::Input;
use crate::respond::Refusal;
use crate::store::Records;

struct Fixture {
    memory: Arc<Memory>,
    connections: Connections,
}

fn fixture() -> Fixture {
    let memory = Arc::new(Memory::default());
    let key = MasterKey::generate(&SystemRandom::default()).expect("random");
    let vault = Vault::new(KeyRing::of(key), Arc::new(SystemRandom::default()));
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1)));
    let stored = Stored::new(Arc::new(vault), memory.clone(), memory.clone(), clock);
    Fixture { memory, connections: Connections::with_stored(stored) }
}

fn input(name: &str) -> Input {
    Input {
        name: name.into(),
        title: name.to_owned(),
        help: None,
        choices: Vec::new(),
        optional: false,
        default: None,
        pattern: None,
        secret: false,
    }
}

fn key(key: &str) -> Content {
    Content { credential: Credential::ApiKey(key.into()), inputs: Map::new(), saved: Map::new() }
}

fn api_key_of(connection: &Connection) -> &str {
    match &connection.credential {
        Credential::ApiKey(key) => key.expose(),
        other => other.kind(),
    }
}

#[tokio::test]
async fn a_stored_connection_is_found_replaced_and_removed() {
    let Fixture { connections, memory } = fixture();
    let generation = generation(vec![integration("a", Auth::ApiKey { pattern: None })]);
    let a = generation.integration("a").expect("there");
    for value in ["canary-1", "canary-2"] {
        connections.put("operator", a, "team", key(value)).await.expect("stored");
        let found = connections.resolve(&generation, a, "team").await.expect("found");
        assert_eq!(api_key_of(&found), value);
        assert!(!format!("{found:?}{connections:?}").contains("canary"));
    }
    assert!(connections.remove("operator", "a", "team").await.expect("removed"));
    let gone = connections.resolve(&generation, a, "team").await.expect_err("gone");
    assert_eq!(gone.refusal(), Refusal::ConnectionUnknown);
    assert!(!connections.remove("operator", "a", "team").await.expect("nothing to remove"));
    let audit = memory.audit.lock().expect("no panic").clone();
    let target = "connection:a/team".to_owned();
    let expected = [("connection.put", 0), ("connection.put", 1), ("connection.remove", 1)];
    assert_eq!(audit, expected.map(|(action, stored_then)| (format!("{action} {target}"), stored_then)));
}

#[tokio::test]
async fn what_is_stored_is_sealed() {
    let Fixture { connections, memory } = fixture();
    let generation = generation(vec![integration("a", Auth::ApiKey { pattern: None })]);
    connections
        .put("o", generation.integration("a").expect("there"), "x", key("canary-0123456789"))
        .await
        .expect("stored");
    let record = memory.keys("connections").await.expect("keys").remove(0);
    let (sealed, _) = memory.get(&record).await.expect("read").expect("there");
    assert!(!String::from_utf8_lossy(&sealed).contains("canary"));
    let elsewhere = RecordKeyOf("a/y");
    memory.put(&elsewhere.key(), sealed, None).await.expect("swapped");
    let a = generation.integration("a").expect("there");
    let error = connections.resolve(&generation, a, "y").await.expect_err("another record's content");
    assert_eq!(error.refusal(), Refusal::ConnectionUnusable);
}

struct RecordKeyOf(&'static str);

impl RecordKeyOf {
    fn key(&self) -> crate::store::model::RecordKey {
        crate::store::model::RecordKey { collection: Arc::from("connections"), key: Arc::from(self.0) }
    }
}

#[tokio::test]
async fn what_does_not_fit_the_definition_is_refused() {
    let Fixture { connections, memory } = fixture();
    let pattern = regex::Regex::new("^sk_").expect("a pattern");
    let mut wants_key = integration("a", Auth::ApiKey { pattern: Some(pattern) });
    wants_key.inputs.push(input("site"));
    let with = |credential, site: &[(&str, &str)]| Content {
        credential,
        inputs: site.iter().map(|(name, value)| ((*name).to_owned(), Json::from(*value))).collect(),
        saved: Map::new(),
    };
    let good = || Credential::ApiKey("sk_1".into());
    for (id, content) in [
        ("x", with(Credential::ApiKey("pk_1".into()), &[("site", "s")])),
        ("x", with(Credential::None, &[("site", "s")])),
        ("x", with(good(), &[])),
        ("x", with(good(), &[("site", "s"), ("other", "o")])),
        ("a/b", with(good(), &[("site", "s")])),
        ("", with(good(), &[("site", "s")])),
    ] {
        let error = connections.put("o", &wants_key, id, content).await.expect_err("refused");
        assert_eq!(error.refusal(), Refusal::InvalidInput, "{error}");
    }
    assert!(memory.audit.lock().expect("no panic").is_empty());
    connections.put("o", &wants_key, "x", with(good(), &[("site", "s")])).await.expect("it fits");
}

#[tokio::test]
async fn what_nobody_declared_is_answered_by_the_kind_of_sign_in() {
    let generation =
        generation(vec![integration("open", Auth::None), integration("keyed", Auth::ApiKey { pattern: None })]);
    let connections = Connections::declared();
    let mut answers = Vec::new();
    for (integration, id) in [("open", "default"), ("open", "x"), ("keyed", "default")] {
        let integration = generation.integration(integration).expect("there");
        answers.push(connections.resolve(&generation, integration, id).await.map_err(|error| error.refusal()).err());
    }
    let unknown = Some(Refusal::ConnectionUnknown);
    assert_eq!(answers, [None, unknown, unknown]);
}
