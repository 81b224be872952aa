//! Connections carried from one deployment to another: exports, and imports that are a plan first.
//!
//! An export says which connections there are. It has their secrets only when it is encrypted to `age`
//! recipients, and then the whole of it is: there is no way to get secrets out in clear. What a connection
//! saved at its sign-in counts as secret, and so does every input that the definition calls so; without its
//! definition a connection's inputs are all secret. An import is compared with what is there, told as a
//! [`Plan`], and carried out only if it is still that plan.

use std::collections::HashSet;
use std::fmt;
use std::io::Write as _;

use age::armor::{ArmoredWriter, Format};
use age::x25519::Recipient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::credential::Credential;
use super::directory::{ConnectionError, Connections};
use super::stored::{self, Content, Stored};
use crate::base::clock::Timestamp;
use crate::definition::live::Generation;
use crate::definition::plan::{Auth, Integration};
use crate::store::StoreError;

/// The form that is written and read.
pub const FORMAT: u32 = 1;
/// The most connections of one export; far more than one admin request should carry.
pub const MOST: usize = 100_000;

/// An export. Its `Debug` tells how much, never what.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The form; see [`FORMAT`].
    pub trunkline_export: u32,
    /// When it was made; absent without a master key, when there is nothing to export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<Timestamp>,
    /// Whether it has secrets.
    pub secrets: bool,
    /// The connections, by integration and name.
    pub connections: Vec<Exported>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Export({} connections, secrets: {})", self.connections.len(), self.secrets)
    }
}

/// A connection as it is exported.
#[derive(Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exported {
    /// The integration's id.
    pub integration: String,
    /// Its name within the integration.
    pub name: String,
    /// What it signs in with, in words.
    pub credential: String,
    /// Its inputs that are not secret.
    pub inputs: Map<String, Json>,
    /// All of it, where the export has secrets: the form in which the store seals it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Json>,
}

impl fmt::Debug for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exported({}/{}, {})", self.integration, self.name, self.credential)
    }
}

/// What to do about a connection that is there already and differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Leave it as it is, and say so.
    #[default]
    Keep,
    /// Put the imported one in its place, unless the one that is there is newer.
    Replace,
    /// Put the imported one in its place, whichever is newer.
    ReplaceNewer,
}

/// What an import would do, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportPlan)]
pub struct Plan {
    /// A row a connection, in the export's order.
    pub rows: Vec<Row>,
    /// Stands for the rows: an import that names it is refused when the plan has changed since.
    pub digest: String,
}

/// What an import does with one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ImportRow)]
pub struct Row {
    /// The integration's id.
    pub integration: String,
    /// Its name.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// Why, where that needs words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ImportAction)]
pub enum Action {
    /// It is made.
    Make,
    /// It takes the place of the one that is there.
    Change,
    /// It is there already as it is in the export.
    Same,
    /// Another of its name is there, and stays.
    Conflict,
    /// One that is newer is there, and stays although others are replaced.
    Newer,
    /// It cannot be made here.
    Refuse,
}

/// Why there is no export or import.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Someone who should be able to read it is not named as age names people.
    #[error("recipient {0} is not one: expected an age public key, `age1…`, as `age-keygen` prints it")]
    Recipient(usize),
    /// Nobody could read it.
    #[error("an export with secrets is encrypted, so name at least one recipient")]
    NoRecipient,
    /// It could not be encrypted.
    #[error("the export could not be encrypted: {0}")]
    Encrypt(String),
    /// It is in a form that this version does not read.
    #[error(
        "the export has form {0}, and this version reads form {FORMAT}: use the version that it was made with, or a newer one"
    )]
    Format(u32),
    /// It has too many connections.
    #[error("the export has {0} connections, more than the limit of {MOST}")]
    TooMany(usize),
    /// It has two connections of one name.
    #[error("the export has `{0}` twice: leave one of the two out")]
    Twice(String),
    /// The plan is another by now.
    #[error("the plan has changed since it was shown: look at it again")]
    Changed,
    /// There is nowhere to put them.
    #[error("there is no master key to seal connections with: name one under `secrets.key`")]
    NoKey,
    /// One connection could not be read or written.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether secrets are put in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Without,
    With,
}

impl Connections {
    /// Every stored connection, without its secrets. The audit log has it first.
    ///
    /// # Errors
    /// When the store fails, or a connection does not open.
    pub async fn export(&self, actor: &str, generation: &Generation) -> Result<Export, TransferError> {
        self.gather(actor, generation, Secrets::Without).await
    }

    /// Every stored connection with its secrets, encrypted to these age public keys, as armoured text. The
    /// audit log has it first.
    ///
    /// # Errors
    /// When a recipient is none, the store fails, or a connection does not open.
    pub async fn export_sealed(
        &self,
        actor: &str,
        generation: &Generation,
        recipients: &[String],
    ) -> Result<String, TransferError> {
        let read = |(at, text): (usize, &String)| {
            text.trim().parse::<Recipient>().map_err(|_| TransferError::Recipient(at + 1))
        };
        let recipients = recipients.iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
        if recipients.is_empty() {
            return Err(TransferError::NoRecipient);
        }
        let export = self.gather(actor, generation, Secrets::With).await?;
        let broken = |error: serde_json::Error| TransferError::Encrypt(error.to_string());
        let plain = Zeroizing::new(serde_json::to_vec(&export).map_err(broken)?);
        seal(&plain, &recipients).map_err(TransferError::Encrypt)
    }

    async fn gather(&self, actor: &str, generation: &Generation, secrets: Secrets) -> Result<Export, TransferError> {
        let mut export = Export {
            trunkline_export: FORMAT,
            exported_at: None,
            secrets: secrets == Secrets::With,
            connections: Vec::new(),
        };
        let Some(stored) = self.stored() else { return Ok(export) };
        let names = stored.names().await.map_err(ConnectionError::listing)?;
        let detail = serde_json::json!({ "connections": names.len(), "secrets": export.secrets });
        export.exported_at = Some(stored.record(actor, "connections.export", detail).await?);
        for (integration, name) in names {
            let read = stored.json(&integration, &name).await;
            let Some(content) = read.map_err(|reason| ConnectionError::of_stored(&integration, &name, reason))? else {
                continue;
            };
            let of = generation.integration(&integration);
            export.connections.push(exported((integration, name), of.map(|of| &**of), content, secrets));
        }
        Ok(export)
    }

    /// What importing this would do. Nothing changes.
    ///
    /// # Errors
    /// When the export cannot be read, or the store fails.
    pub async fn plan_import(
        &self,
        generation: &Generation,
        export: &Export,
        on_conflict: OnConflict,
    ) -> Result<Plan, TransferError> {
        if export.trunkline_export != FORMAT {
            return Err(TransferError::Format(export.trunkline_export));
        }
        if export.connections.len() > MOST {
            return Err(TransferError::TooMany(export.connections.len()));
        }
        let mut names = HashSet::new();
        if let Some(twice) = export.connections.iter().find(|one| !names.insert((&one.integration, &one.name))) {
            return Err(TransferError::Twice(format!("{}/{}", twice.integration, twice.name)));
        }
        let stored = self.stored().ok_or(TransferError::NoKey)?;
        let mut rows = Vec::with_capacity(export.connections.len());
        for one in &export.connections {
            let (action, reason) = self.judge(stored, generation, one, on_conflict).await?;
            let (integration, name) = (one.integration.clone(), one.name.clone());
            rows.push(Row { integration, name, action, reason });
        }
        Ok(Plan { digest: digest(&rows), rows })
    }

    /// Does what the plan says, and gives it. With `expected` only when the plan is still the one of that
    /// digest. What was done before an error stays done, and doing it again is harmless: those connections
    /// are then the same. The audit log has the import first, and each connection.
    ///
    /// # Errors
    /// As [`Self::plan_import`], and when a connection could not be written.
    pub async fn import(
        &self,
        actor: &str,
        generation: &Generation,
        (export, on_conflict): (&Export, OnConflict),
        expected: Option<&str>,
    ) -> Result<Plan, TransferError> {
        let plan = self.plan_import(generation, export, on_conflict).await?;
        if expected.is_some_and(|expected| expected != plan.digest) {
            return Err(TransferError::Changed);
        }
        let stored = self.stored().ok_or(TransferError::NoKey)?;
        let count = |action| plan.rows.iter().filter(|row| row.action == action).count();
        let detail = serde_json::json!({ "made": count(Action::Make), "changed": count(Action::Change) });
        stored.record(actor, "connections.import", detail).await?;
        for (row, one) in plan.rows.iter().zip(&export.connections) {
            let wanted = matches!(row.action, Action::Make | Action::Change);
            let Some(integration) = generation.integration(&one.integration).filter(|_| wanted) else { continue };
            if let Some(content) = content_of(integration, one) {
                self.put(actor, integration, &one.name, content).await?;
            }
        }
        Ok(plan)
    }

    async fn judge(
        &self,
        stored: &Stored,
        generation: &Generation,
        one: &Exported,
        on_conflict: OnConflict,
    ) -> Result<(Action, Option<String>), TransferError> {
        let refused = |reason: String| Ok((Action::Refuse, Some(reason)));
        let Some(integration) = generation.integration(&one.integration) else {
            return refused(format!("there is no integration `{}` here", one.integration));
        };
        let there = stored.json(&one.integration, &one.name).await;
        let there = there.map_err(|reason| ConnectionError::of_stored(&one.integration, &one.name, reason))?;
        let Some(content) = content_of(integration, one) else {
            return match (&there, &one.content) {
                (_, Some(_)) => refused("its content has a form that this version does not read".to_owned()),
                (Some(_), None) => {
                    Ok((Action::Same, Some("the export has no secrets, so it stays as it is".to_owned())))
                }
                (None, None) => refused("the export has no secrets: connect it here anew".to_owned()),
            };
        };
        if let Err(error) = Self::admissible(integration, &one.name, content) {
            return refused(error.to_string());
        }
        Ok(match (there, on_conflict) {
            (None, _) => (Action::Make, None),
            (Some(there), _) if one.content.as_ref().is_some_and(|new| same(new, &there)) => (Action::Same, None),
            (Some(_), OnConflict::Keep) => {
                (Action::Conflict, Some("another of this name is here: replacing it must be asked for".to_owned()))
            }
            (Some(there), _) if !one.content.as_ref().is_some_and(|new| is_newer(&there, new)) => {
                (Action::Change, None)
            }
            (Some(_), OnConflict::ReplaceNewer) => (Action::Change, Some(NEWER.to_owned())),
            (Some(_), OnConflict::Replace) => {
                let reason = format!("{NEWER}, and that may be used up: `replace_newer` replaces it all the same");
                (Action::Newer, Some(reason))
            }
        })
    }
}

fn exported(
    (integration, name): (String, String),
    of: Option<&Integration>,
    content: Json,
    secrets: Secrets,
) -> Exported {
    let parsed = stored::of_json(&content);
    let credential = parsed.as_ref().map_or("unknown", |content| content.credential.kind()).to_owned();
    let public =
        |input: &str| of.is_some_and(|of| of.inputs.iter().any(|known| &*known.name == input && !known.secret));
    let inputs = parsed.map(|content| content.inputs).unwrap_or_default();
    let inputs = inputs.into_iter().filter(|(input, _)| public(input)).collect();
    Exported { integration, name, credential, inputs, content: (secrets == Secrets::With).then_some(content) }
}

/// What is to be put: the export's content, or nothing but inputs for a service that wants no sign-in.
fn content_of(integration: &Integration, one: &Exported) -> Option<Content> {
    match &one.content {
        Some(content) => stored::of_json(content),
        None if matches!(integration.auth, Auth::None) => {
            Some(Content { credential: Credential::None, inputs: one.inputs.clone(), saved: Map::new() })
        }
        None => None,
    }
}

/// Whether two contents are the same but for when they were written.
fn same(a: &Json, b: &Json) -> bool {
    let rest = |value: &Json| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            map.remove("updated_at");
        }
        value
    };
    rest(a) == rest(b)
}

const NEWER: &str = "what is here is newer than what the export has";

/// Whether what is there is newer: one of its tokens was issued later than the other's of that name; where not both
/// have tokens, it was written later.
fn is_newer(there: &Json, new: &Json) -> bool {
    let credential = |content| stored::of_json(content).map(|content| content.credential);
    match (credential(there), credential(new)) {
        (Some(Credential::Tokens(there)), Some(Credential::Tokens(new))) => there
            .0
            .iter()
            .any(|(name, ours)| new.issued(Some(name)).is_some_and(|theirs| ours.issued_at > theirs.issued_at)),
        _ => there["updated_at"].as_u64() > new["updated_at"].as_u64(),
    }
}

fn digest(rows: &[Row]) -> String {
    let mut digest = Sha256::new();
    for row in rows {
        let action = format!("{:?}", row.action);
        let reason = row.reason.clone().unwrap_or_default();
        for part in [&row.integration, &row.name, &action, &reason] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let digest: [u8; 32] = digest.finalize().into();
    digest.first_chunk().map(|head| format!("{:032x}", u128::from_be_bytes(*head))).unwrap_or_default()
}

fn seal(plain: &[u8], recipients: &[Recipient]) -> Result<String, String> {
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| error.to_string())?;
    let mut armoured = Vec::new();
    let told = |error: std::io::Error| error.to_string();
    let armour = ArmoredWriter::wrap_output(&mut armoured, Format::AsciiArmor).map_err(told)?;
    let mut writer = encryptor.wrap_output(armour).map_err(told)?;
    writer.write_all(plain).map_err(told)?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(told)?;
    String::from_utf8(armoured).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use super::super::keyring::{KeyRing, MasterKey};
    use super::super::memory::{Memory, generation, integration};
    use super::super::vault::Vault;
    use super::*;
    use crate::base::clock::ManualClock;
    use crate::base::random::SystemRandom;
    use crate::definition::plan::Input;

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
        let sealed = world.connections.export_sealed("test", &world.generation, &recipients).await.expect("sealed");
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
        assert!(
            !text.contains("canary") && text.contains("\"site\":\"here\"") && text.contains("an API key"),
            "{text}"
        );
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
        assert_eq!(
            (&found.inputs["pin"], &found.saved["note"]),
            (&Json::from("pin-canary"), &Json::from("saved-canary"))
        );
        let again = to.connections.import("test", &to.generation, import, digest).await;
        assert!(matches!(again, Err(TransferError::Changed)), "the plan is another by now");
        let again = to.connections.import("test", &to.generation, import, None).await.expect("harmless");
        assert_eq!(actions(&again), [("a", Action::Same), ("b", Action::Same)]);
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
        let kept =
            to.connections.import("test", &to.generation, (&export, OnConflict::Keep), None).await.expect("kept");
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
        let export = serde_json::json!({ "trunkline_export": 1, "exported_at": 1, "secrets": true, "connections": [
            row("gone", "a", Json::Null), row("svc", "b", Json::Null), row("svc", "there", Json::Null),
            row("svc", "c", basic.clone()), row("svc", "d", serde_json::json!({ "format": 99 })),
            row("svc", "e f", basic), row("open", "g", Json::Null),
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
        let newer = Export { trunkline_export: 2, exported_at: None, secrets: false, connections: Vec::new() };
        let refused = world.connections.plan_import(&world.generation, &newer, OnConflict::Keep).await;
        assert!(matches!(refused, Err(TransferError::Format(2))));
    }
}
