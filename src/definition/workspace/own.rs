//! What a gateway file says of references: what is the gateway's own, and from where files may be named besides.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::definition::compile::{DEFAULT_STATE, state_directory};
use crate::definition::document::Document;
use crate::definition::load::reach::Own;
use crate::definition::load::reference::{Part, Reference, parts};
use crate::definition::load::visit::visit;
use crate::definition::plan::rule::Glob;
use crate::definition::resolve::Kind;

/// Reads it from a gateway file whose references are expanded.
pub(super) fn own(document: &Document) -> Own {
    let home = document.file.parent().unwrap_or(Path::new(""));
    let files = vec![PathBuf::clone(&document.file)];
    let mut own = Own { files, state: state(document, home), ..Own::default() };
    own.listed = texts(document, "/secrets/files").map(|listed| listed.map(|directory| home.join(directory)).collect());
    own.secrets_listed = texts(document, "/secrets/vault/definitions").map(|listed| listed.map(Glob::new).collect());
    let view = Kind::Gateway.schema().shape().root(&document.value);
    visit(&document.value, &view, &mut |visited| {
        let text = document.written(visited.pointer).or(visited.value.as_str()).unwrap_or_default();
        if !visited.view.is_secret() && is_public(visited.pointer) {
            return;
        }
        for part in parts(text) {
            match part {
                Part::Reference(Reference::Env(name, _), _) => drop(own.variables.insert(name.to_owned())),
                Part::Reference(Reference::File(name), _) => own.files.push(home.join(name)),
                Part::Reference(Reference::Vault(path, _), _) => drop(own.secrets.insert(path.to_owned())),
                Part::Text(_) | Part::Dollar | Part::Broken(..) => {}
            }
        }
    });
    own
}

/// Whether what stands there is known to whoever is served. All else that the gateway file refers to is its own:
/// password hashes, addresses with a key in them and headers are secret, and no type says so.
fn is_public(pointer: &str) -> bool {
    const PUBLIC: [&str; 6] = ["/public_url", "/listen/", "/connect/", "/admin/url", "/admin/hosts/", "/mode"];
    PUBLIC.iter().any(|public| pointer.starts_with(public))
}

fn texts<'a>(document: &'a Document, pointer: &str) -> Option<impl Iterator<Item = &'a str>> {
    Some(document.value.pointer(pointer)?.as_array()?.iter().filter_map(Value::as_str))
}

fn state(document: &Document, home: &Path) -> Option<PathBuf> {
    let path = match document.value.get("state") {
        None => DEFAULT_STATE,
        Some(state) => state.pointer("/sled/path")?.as_str()?,
    };
    Some(state_directory(home, path))
}
