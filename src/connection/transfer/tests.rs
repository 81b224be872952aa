//! Exports and imports between two deployments in memory.

use std::io::Read as _;
use std::sync::Arc;

use super::super::credential::{Credential, Tokens};
use super::super::grant::Issued;
use super::super::keyring::{KeyRing, MasterKey};
use super::super::memory::{Memory, generation, integration};
use super::super::stored::{Content, Stored};
use super::super::upkeep::Use;
use super::super::vault::Vault;
use super::import::{NEWER, is_newer, not_from_the_future};
use super::*;
use crate::base::clock::ManualClock;
use crate::base::random::SystemRandom;
use crate::definition::plan::{Auth, Input};

struct World {
    connections: Connections,
    generation: Generation,
    memory: Arc<Memory>,
}

/// A deployment with the integrations `svc` (an API key, a public and a secret input) and `open`.
fn world() -> World {
    let random = Arc::new(SystemRandom::default());
    let memory = Arc::new(Memory::default());
    let vault = Vault::new(KeyRing::of(MasterKey::generate(&*random).expect("a key")), random);
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_800_000_000)));
    let stored = Stored::new(Arc::new(vault), memory.clone(), memory.clone(), clock);
    let mut svc = integration("svc", Auth::ApiKey { pattern: None });
    let input = |name: &str, secret| Input {
        name: name.into(),
        title: name.to_owned(),
        help: None,
        choices: Vec::new(),
        optional: false,
        default: Some(String::new()),
        pattern: None,
        secret,
    };
    svc.inputs = vec![input("site", false), input("pin", true)];
    let generation = generation(vec![svc, integration("open", Auth::None)]);
    World { connections: Connections::with_stored(stored), generation, memory }
}

async fn put(world: &World, name: &str, key: &str) {
    let json = serde_json::json!({ "site": "here", "pin": "pin-canary", "note": "saved-canary" });
    let Json::Object(mut inputs) = json else { panic!("a map") };
    let saved = inputs.remove("note").into_iter().map(|note| ("note".to_owned(), note)).collect();
    let content = Content { credential: Credential::ApiKey(key.into()), inputs, saved };
    let svc = world.generation.integration("svc").expect("there");
    world.connections.put("test", svc, name, content).await.expect("put");
}

fn actions(plan: &Plan) -> Vec<(&str, Action)> {
    plan.rows.iter().map(|row| (row.name.as_str(), row.action)).collect()
}

async fn opened(world: &World) -> Export {
    let identity = age::x25519::Identity::generate();
    let recipients = [identity.to_public().to_string()];
    let sealed = world.connections.export_sealed("test", &world.generation, &recipients).await.expect("sealed").text;
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") && !sealed.contains("canary"), "{sealed}");
    let decryptor = age::Decryptor::new(age::armor::ArmoredReader::new(sealed.as_bytes())).expect("age");
    let mut plain = Vec::new();
    let identity = &identity as &dyn age::Identity;
    decryptor.decrypt(std::iter::once(identity)).expect("opens").read_to_end(&mut plain).expect("read");
    serde_json::from_slice(&plain).expect("an export")
}

#[tokio::test]
async fn an_export_in_clear_has_no_secret_and_says_what_there_is() {
    let world = world();
    put(&world, "a", "key-canary").await;
    let export = world.connections.export("test", &world.generation).await.expect("exported");
    let text = serde_json::to_string(&export).expect("JSON");
    assert!(!text.contains("canary") && text.contains("\"site\":\"here\"") && text.contains("an API key"), "{text}");
    let without = generation(Vec::new());
    let export = world.connections.export("test", &without).await.expect("exported");
    assert!(export.connections[0].inputs.is_empty(), "without its definition every input is secret");
    let audit = world.memory.audit.lock().expect("no panic");
    assert!(audit.iter().any(|(line, _)| line == "connections.export connections"));
}

#[tokio::test]
async fn what_is_sealed_is_the_same_in_another_deployment() {
    let (from, to) = (world(), world());
    put(&from, "a", "key-canary").await;
    put(&from, "b", "other-canary").await;
    let export = opened(&from).await;
    let import = (&export, OnConflict::Keep);
    let plan = to.connections.plan_import(&to.generation, &export, OnConflict::Keep).await.expect("a plan");
    assert_eq!(actions(&plan), [("a", Action::Make), ("b", Action::Make)]);
    assert!(to.connections.list(&to.generation).await.expect("listed").iter().all(|head| head.name == "default"));
    let digest = Some(plan.digest.as_str());
    let done = to.connections.import("test", &to.generation, import, digest).await.expect("imported");
    assert_eq!(done, plan);
    let svc = to.generation.integration("svc").expect("there");
    let found = to.connections.resolve(&to.generation, svc, "a").await.expect("there");
    assert!(matches!(&found.credential, Credential::ApiKey(key) if key.expose() == "key-canary"));
    assert_eq!((&found.inputs["pin"], &found.saved["note"]), (&Json::from("pin-canary"), &Json::from("saved-canary")));
    let again = to.connections.import("test", &to.generation, import, digest).await;
    assert!(matches!(again, Err(TransferError::Changed)), "the plan is another by now");
    let again = to.connections.import("test", &to.generation, import, None).await.expect("harmless");
    assert_eq!(actions(&again), [("a", Action::Same), ("b", Action::Same)]);
}

#[tokio::test]
async fn what_is_out_of_use_is_so_in_another_deployment_as_well() {
    let (from, to) = (world(), world());
    put(&from, "a", "theirs").await;
    put(&from, "b", "theirs").await;
    from.connections.set_use("test", "svc", "a", Use::Paused).await.expect("paused");
    let export = opened(&from).await;
    let done = to.connections.import("test", &to.generation, (&export, OnConflict::Keep), None).await.expect("done");
    let told = done.rows.iter().map(|row| row.reason.as_deref()).collect::<Vec<_>>();
    assert_eq!(told, [Some("it is paused, as in the export"), None]);
    assert!(to.connections.health("svc", "a").await.paused && !to.connections.health("svc", "b").await.paused);
}

#[test]
fn a_token_from_the_future_is_of_now() {
    let (now, later) = (Timestamp::from_seconds(9), Timestamp::from_seconds(99));
    let issued = |at| Credential::Tokens(Tokens([(Arc::from("default"), Issued::bare("t".into(), at))].into()));
    for (at, expected) in [(later, now), (Timestamp::from_seconds(5), Timestamp::from_seconds(5))] {
        let mut credential = issued(at);
        not_from_the_future(&mut credential, now);
        let Credential::Tokens(tokens) = credential else { unreachable!() };
        assert_eq!(tokens.0["default"].issued_at, expected);
    }
}

#[tokio::test]
async fn one_that_differs_stays_unless_it_is_to_be_replaced() {
    let (from, to) = (world(), world());
    put(&from, "a", "theirs").await;
    put(&to, "a", "ours").await;
    let export = opened(&from).await;
    let key = async || {
        let svc = to.generation.integration("svc").expect("there");
        let found = to.connections.resolve(&to.generation, svc, "a").await.expect("there");
        let Credential::ApiKey(key) = &found.credential else { panic!("{found:?}") };
        key.expose().clone()
    };
    let kept = to.connections.import("test", &to.generation, (&export, OnConflict::Keep), None).await.expect("kept");
    assert_eq!((actions(&kept), key().await.as_str()), (vec![("a", Action::Conflict)], "ours"));
    let what = (&export, OnConflict::Replace);
    let changed = to.connections.import("test", &to.generation, what, None).await.expect("replaced");
    assert_eq!((actions(&changed), key().await.as_str()), (vec![("a", Action::Change)], "theirs"));
}

#[tokio::test]
async fn what_is_newer_here_stays_until_it_is_named() {
    let world = world();
    put(&world, "a", "key").await;
    let mut export = opened(&world).await;
    let there = export.connections[0].content.clone().expect("secrets");
    let tokens = |issued_at: u64, updated_at: u64| {
        let token = serde_json::json!({ "access": format!("a{issued_at}"), "issued_at": issued_at });
        let mut content = there.clone();
        content["credential"] = serde_json::json!({ "issued": { "default": token } });
        content["updated_at"] = Json::from(updated_at);
        content
    };
    assert!(is_newer(&tokens(9, 1), &tokens(8, 2)), "the token was issued later, whatever was written when");
    assert!(!is_newer(&tokens(8, 2), &tokens(9, 1)));
    let older = export.connections[0].content.as_mut().expect("secrets");
    older["credential"] = serde_json::json!({ "api_key": "older-key" });
    older["updated_at"] = Json::from(1);
    let plan = async |on_conflict| {
        let plan = world.connections.plan_import(&world.generation, &export, on_conflict).await.expect("a plan");
        (plan.rows[0].action, plan.rows[0].reason.clone().unwrap_or_default())
    };
    let (action, reason) = plan(OnConflict::Replace).await;
    assert!(action == Action::Newer && reason.starts_with(NEWER) && reason.contains("replace_newer"), "{reason}");
    assert_eq!(plan(OnConflict::ReplaceNewer).await, (Action::Change, NEWER.to_owned()));
    let done = world.connections.import("test", &world.generation, (&export, OnConflict::Replace), None).await;
    assert_eq!(actions(&done.expect("nothing to do")), [("a", Action::Newer)]);
    let kept = world.connections.peek("svc", "a").await.expect("read").expect("there");
    assert!(matches!(&kept.credential, Credential::ApiKey(key) if key.expose() == "key"));
}

#[tokio::test]
async fn an_export_with_one_name_twice_is_refused() {
    let world = world();
    put(&world, "a", "key").await;
    let (mut export, again) = (opened(&world).await, opened(&world).await);
    export.connections.extend(again.connections);
    let plan = world.connections.plan_import(&world.generation, &export, OnConflict::Keep).await;
    assert!(matches!(plan, Err(TransferError::Twice(name)) if name == "svc/a"));
}

#[tokio::test]
async fn what_cannot_be_made_says_why() {
    let world = world();
    put(&world, "there", "key").await;
    let row = |integration: &str, name: &str, content: Json| serde_json::json!({ "integration": integration, "name": name, "credential": "?", "inputs": {}, "content": content });
    let basic = serde_json::json!({
        "format": 2, "credential": { "basic": { "username": "canary", "password": "canary" } }, "inputs": {},
        "saved": {}, "updated_at": 1,
    });
    let empty = serde_json::json!({
        "format": 2, "credential": { "api_key": "" }, "inputs": {}, "saved": {}, "updated_at": 1,
    });
    let export = serde_json::json!({ "trunkline_export": 1, "exported_at": 1, "secrets": true, "connections": [
        row("gone", "a", Json::Null), row("svc", "b", Json::Null), row("svc", "there", Json::Null),
        row("svc", "c", basic.clone()), row("svc", "d", serde_json::json!({ "format": 99 })),
        row("svc", "e f", basic), row("open", "g", Json::Null), row("svc", "h", empty),
    ] });
    let export: Export = serde_json::from_value(export).expect("an export");
    let plan = world.connections.plan_import(&world.generation, &export, OnConflict::Keep).await.expect("a plan");
    let reasons: Vec<_> = plan.rows.iter().map(|row| row.reason.as_deref().unwrap_or_default()).collect();
    let expected = [
        (Action::Refuse, "there is no integration `gone`"),
        (Action::Refuse, "connect it here anew"),
        (Action::Same, "stays as it is"),
        (Action::Refuse, "does not sign in with a name and a password"),
        (Action::Refuse, "a form that this version does not read"),
        (Action::Refuse, "a name has 1 to 128 letters"),
        (Action::Make, ""),
        (Action::Refuse, "the key is empty"),
    ];
    for ((row, reason), (action, words)) in plan.rows.iter().zip(&reasons).zip(expected) {
        assert!(row.action == action && reason.contains(words) && !reason.contains("canary"), "{row:?}");
    }
}

#[tokio::test]
async fn who_cannot_read_it_and_what_cannot_be_read_is_refused() {
    let world = world();
    let seal = async |recipients: &[String]| {
        world.connections.export_sealed("test", &world.generation, recipients).await.expect_err("refused")
    };
    assert!(matches!(seal(&[]).await, TransferError::NoRecipient));
    let ours = age::x25519::Identity::generate().to_public().to_string();
    assert!(matches!(seal(&[ours, "age1nobody".to_owned()]).await, TransferError::Recipient(2)));
    let newer = Export {
        trunkline_export: 2,
        exported_at: None,
        secrets: false,
        connections: Vec::new(),
        unreadable: Vec::new(),
    };
    let refused = world.connections.plan_import(&world.generation, &newer, OnConflict::Keep).await;
    assert!(matches!(refused, Err(TransferError::Format(2))));
}

#[tokio::test]
async fn a_plan_stands_for_what_is_written_and_for_what_it_is_written_over() {
    let (from, to) = (world(), world());
    put(&from, "a", "one").await;
    put(&to, "a", "ours").await;
    let first = opened(&from).await;
    put(&from, "a", "two").await;
    let second = opened(&from).await;
    let plan = async |export| {
        to.connections.plan_import(&to.generation, export, OnConflict::Replace).await.expect("a plan").digest
    };
    let shown = plan(&first).await;
    assert_eq!(plan(&first).await, shown);
    assert_ne!(plan(&second).await, shown, "another content under the same name");
    put(&to, "a", "renewed meanwhile").await;
    let late = to.connections.import("test", &to.generation, (&first, OnConflict::Replace), Some(&shown)).await;
    assert!(matches!(late, Err(TransferError::Changed)));
    let svc = to.generation.integration("svc").expect("there");
    let content = || Content { credential: Credential::ApiKey("x".into()), inputs: Map::new(), saved: Map::new() };
    let key = |name: &str| super::super::health::Key::new("svc", name);
    let seen = to.connections.seen(&key("a")).await.expect("read");
    to.connections.remove("test", "svc", "a").await.expect("removed");
    put(&to, "a", "connected anew").await;
    put(&to, "a", "and again").await;
    assert_eq!(to.connections.seen(&key("a")).await.expect("read").version, seen.version, "which alone tells nothing");
    let over = to.connections.put_over("test", svc, ("a", Some(seen)), content()).await;
    assert!(matches!(over, Err(ConnectionError::Store { reason: StoreError::Conflict(_), .. })));
    let none = to.connections.seen(&key("b")).await.expect("read");
    to.connections.put_over("test", svc, ("b", Some(none)), content()).await.expect("there was none");
}

#[tokio::test]
async fn one_record_that_does_not_open_leaves_out_nothing_but_itself() {
    let world = world();
    put(&world, "a", "key").await;
    put(&world, "b", "key").await;
    let record = |name: &str| super::super::health::Key::new("svc", name).record(stored::COLLECTION);
    let whole = opened(&world).await;
    let (sealed, _) = crate::store::Records::get(&*world.memory, &record("a")).await.expect("read").expect("there");
    crate::store::Records::put(&*world.memory, &record("b"), sealed, None).await.expect("swapped");
    let export = opened(&world).await;
    let names: Vec<_> = export.connections.iter().map(|one| one.name.as_str()).collect();
    let left: Vec<_> = export.unreadable.iter().map(|one| one.name.as_str()).collect();
    assert_eq!((names, left), (vec!["a"], vec!["b"]));
    assert!(export.unreadable[0].reason.contains("does not open"), "{:?}", export.unreadable);
    let plan = async |on_conflict| {
        let plan = world.connections.plan_import(&world.generation, &whole, on_conflict).await.expect("a plan");
        plan.rows[1].action
    };
    assert_eq!(plan(OnConflict::Keep).await, Action::Conflict);
    assert_eq!(plan(OnConflict::Replace).await, Action::Change);
    let what = (&whole, OnConflict::Replace);
    world.connections.import("test", &world.generation, what, None).await.expect("mended");
    assert_eq!(opened(&world).await.unreadable, []);
}
