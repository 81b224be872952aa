//! Raw to plan: names typed, templates and patterns compiled, every default decided.
//!
//! A document that `validate` and `check` find no error in compiles. What is wrong all the same comes
//! back as a located problem, never as a panic. Nothing here reads files or knows other files: names
//! that point elsewhere are kept as names. Called by the load of a generation.

mod about;
mod address;
mod admin;
mod api;
mod assertion;
mod auth;
mod declared;
mod doors;
mod egress;
mod gateway;
mod login;
mod oauth2;
mod place;
mod policy;
mod request;
mod rule;
pub mod secrets;
mod signed;
mod trace;
mod verify;
mod webhook;

use std::sync::Arc;

use regex::Regex;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::document::Document;
use super::not_yet;
use super::plan::{Fingerprint, Input, Integration, NotYet};
use super::problem::{Code, Problem};
use super::raw;
use super::raw::form::OneOrMany;
use super::templates::Templates;
use crate::base::secret::Secret;
use place::Place;

pub use admin::OPERATOR;
pub use api::certificates;
pub use assertion::{algorithm, encoding, read_key};
pub use egress::{egress_proxy, exempt};
pub use place::{Fault, read_pattern};
pub use signed::{identity, pair, rsa_sha1};
pub use webhook::{BODY_MOST, DEDUPE_MOST};

pub use address::{Address, read_address};
pub use gateway::{DEFAULT_STATE, gateway, read_network, read_origin, state_directory};

/// Compiles a resolved definition.
///
/// # Errors
/// What is wrong, at its place.
pub fn integration(document: &Document, templates: &Templates) -> Result<Integration, Fault> {
    let place = Place::root(document, templates);
    let raw: raw::integration::Integration = read(document)?;
    let id: Arc<str> = raw.id.0.as_str().into();
    let inputs = inputs(&raw, &place.at("inputs"))?;
    let connections = raw.connections.iter().enumerate();
    let api = raw.api.as_ref().map(|api| api::compile(api, raw.auth.as_ref(), &place.at("api"))).transpose()?;
    Ok(Integration {
        title: raw.title.clone().unwrap_or_else(|| raw.id.0.clone()),
        about: about::compile(&raw, &document.value),
        fingerprint: fingerprint(&document.value),
        auth: auth::compile(raw.auth.as_ref(), &place.at("auth"))?,
        prompts: auth::prompts(raw.auth.as_ref()),
        connections: connections
            .map(|(index, connection)| {
                declared::compile(connection, (&raw, api.as_ref()), &place.at("connections").item(index))
            })
            .collect::<Result<_, _>>()?,
        api,
        webhook: raw.webhook.as_ref().map(|webhook| webhook::compile(webhook, &place.at("webhook"))).transpose()?,
        rules: rule::compile_all(&raw.rules, &place.at("rules"))?,
        referenced: referenced(document),
        inputs,
        id,
    })
}

/// What references brought into what calls carry. Where they go and whom they trust is no secret.
fn referenced(document: &Document) -> Vec<Secret> {
    let mut found = Vec::new();
    for block in ["api", "auth"] {
        let Some(value) = document.value.get(block) else { continue };
        below(document, value, &mut format!("/{block}"), &mut found);
    }
    found
}

fn below(document: &Document, value: &Value, pointer: &mut String, found: &mut Vec<Secret>) {
    let length = pointer.len();
    let mut into = |token: &str, value: &Value, pointer: &mut String| {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        below(document, value, pointer, found);
        pointer.truncate(length);
    };
    match value {
        Value::Object(map) => {
            let open = ["base_url", "hosts", "ca"];
            let fields = map.iter().filter(|(name, _)| pointer != "/api" || !open.contains(&name.as_str()));
            for (name, value) in fields.collect::<Vec<_>>() {
                into(name, value, pointer);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                into(&index.to_string(), value, pointer);
            }
        }
        Value::String(text) => {
            let Some(written) = document.written(pointer) else { return };
            // What was written around the references is known to everybody.
            let before = written.find("${").unwrap_or_default();
            let after = written.rfind('}').map_or(0, |end| written.len() - end - 1);
            let inner = text.get(before..text.len().saturating_sub(after)).unwrap_or(text);
            found.push(Secret::from(inner));
        }
        _ => {}
    }
}

/// Reads a document into its type.
fn read<'a, T: serde::Deserialize<'a>>(document: &'a Document) -> Result<T, Fault> {
    raw::read(&document.value)
        .map_err(|error| Box::new(Problem::error(Code::WrongType, document.place(&error.pointer), error.message)))
}

/// SHA-256 over a resolved document, references expanded: the order of a map's keys counts, because it
/// is the order in which headers and parameters are sent.
pub fn fingerprint(document: &Value) -> Fingerprint {
    let mut digest = Sha256::new();
    hash(document, &mut digest);
    Fingerprint(digest.finalize().into())
}

fn hash(value: &Value, digest: &mut Sha256) {
    let mut put = |kind: &[u8], length: usize| {
        digest.update(kind);
        digest.update(length.to_le_bytes());
    };
    match value {
        Value::Null => put(b"n", 0),
        Value::Bool(value) => put(b"b", usize::from(*value)),
        Value::Number(number) => {
            let text = number.to_string();
            put(b"#", text.len());
            digest.update(text);
        }
        Value::String(text) => {
            put(b"s", text.len());
            digest.update(text);
        }
        Value::Array(items) => {
            put(b"[", items.len());
            for item in items {
                hash(item, digest);
            }
        }
        Value::Object(map) => {
            put(b"{", map.len());
            for (key, item) in map {
                digest.update(key.len().to_le_bytes());
                digest.update(key);
                hash(item, digest);
            }
        }
    }
}

fn each<T, U>(
    items: &[T],
    place: &Place<'_>,
    compile: impl Fn(&T, &Place<'_>) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    items.iter().enumerate().map(|(index, item)| compile(item, &place.item(index))).collect()
}

/// The places of a list's items; one that is written alone stands at the list's own place.
fn listed<T, U>(
    list: &OneOrMany<T>,
    place: &Place<'_>,
    compile: impl Fn(&T, &Place<'_>) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    let is_list = place.document().value.pointer(place.pointer()).is_some_and(serde_json::Value::is_array);
    match list.0.as_slice() {
        [one] if !is_list => compile(one, place).map(|one| vec![one]),
        items => each(items, place, compile),
    }
}

fn inputs(raw: &raw::integration::Integration, place: &Place<'_>) -> Result<Vec<Input>, Fault> {
    let input = |(name, input): (&str, &raw::inputs::Input)| {
        let at = place.at(name);
        let pattern = match &input.pattern {
            Some(pattern) => Some(at.at("pattern").regex(pattern)?),
            None => one_of(&input.choices, &at)?,
        };
        Ok(Input {
            name: name.into(),
            title: input.title.clone().unwrap_or_else(|| name.to_owned()),
            help: input.help.clone(),
            choices: input.choices.clone(),
            optional: input.optional,
            default: input.default.clone(),
            pattern,
            secret: input.secret,
        })
    };
    all_inputs(raw).map(input).collect()
}

/// What each connection must tell: the definition's inputs, and the fields of its login.
pub(super) fn all_inputs(raw: &raw::integration::Integration) -> impl Iterator<Item = (&str, &raw::inputs::Input)> {
    let fields = match &raw.auth {
        Some(raw::auth::Auth::Login(login)) => Some(login.fields.iter()),
        _ => None,
    };
    raw.inputs.iter().chain(fields.into_iter().flatten())
}

/// A pattern for a few fixed values.
fn one_of(choices: &[String], place: &Place<'_>) -> Result<Option<Regex>, Fault> {
    if choices.is_empty() {
        return Ok(None);
    }
    let escaped: Vec<_> = choices.iter().map(|choice| regex::escape(choice)).collect();
    place.at("choices").regex(&format!("^(?:{})$", escaped.join("|"))).map(Some)
}

/// The part of the grammar at a place, when this version does not run it.
fn not_run(place: &Place<'_>) -> Option<NotYet> {
    let here = |part: &&not_yet::Part| part.uses(&place.document().value).iter().any(|at| at == place.pointer());
    not_yet::INTEGRATION.iter().find(here).map(|part| NotYet { part: part.name() })
}

#[cfg(test)]
mod tests {
    use super::super::plan::DeclaredCredential;
    use super::*;
    use serde_json::json;
    use std::path::PathBuf;

    pub(super) fn document(value: Value) -> Document {
        Document::unplaced(PathBuf::from("a.yaml"), value)
    }

    pub(super) fn compiled(value: Value) -> Result<Integration, Fault> {
        integration(&document(value), &Templates::new())
    }

    #[test]
    fn connections_get_their_inputs_defaults_and_credential() {
        let integration = compiled(json!({
            "trunkline": 1, "id": "a", "auth": { "basic": {} },
            "inputs": { "region": { "default": "eu" }, "site": {}, "team": { "optional": true } },
            "connections": [{ "id": "default", "username": "u", "inputs": { "site": "s" }, "saved": { "n": 1 } }],
        }))
        .expect("compiles");
        let connection = integration.connection("default").expect("declared");
        assert_eq!(Value::Object(connection.inputs.clone()), json!({ "region": "eu", "site": "s" }));
        assert_eq!(Value::Object(connection.saved.clone()), json!({ "n": 1 }));
        assert!(
            matches!(&connection.credential, DeclaredCredential::Basic { password, .. } if password.expose().is_empty())
        );
    }

    #[test]
    fn what_a_connection_must_tell_is_asked_for() {
        let told = |connection: Value| {
            let document = json!({
                "trunkline": 1, "id": "a", "auth": { "api_key": {} }, "inputs": { "site": {} }, "connections": [connection],
            });
            compiled(document).expect_err("incomplete").message
        };
        assert_eq!(told(json!({ "id": "c", "api_key": "k" })), "connection `c` does not tell `site`");
        assert!(told(json!({ "id": "c" })).contains("has no `api_key`"));
    }

    #[test]
    fn fingerprints_tell_contents_apart() {
        let print = |value: Value| fingerprint(&value);
        assert_eq!(print(json!({ "a": [1, "b"] })), print(json!({ "a": [1, "b"] })));
        assert_ne!(print(json!({ "a": ["1", "b"] })), print(json!({ "a": [1, "b"] })));
        assert_ne!(print(json!(["ab", "c"])), print(json!(["a", "bc"])));
        assert_ne!(print(json!({ "a": 1, "b": 2 })), print(json!({ "b": 2, "a": 1 })));
    }
}
