//! The catalogue: the definitions in `integrations/`, embedded in the program. Each is parsed when it is
//! asked for, so that a deployment pays for the entries it extends and not for the shelf, and is kept until
//! [`forget`]: many definitions may extend one entry, and none needs it once it is compiled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use rust_embed::Embed;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::document::Document;
use super::load::tree::parse;
use super::not_yet;

#[derive(Embed)]
#[folder = "integrations/"]
struct Files;

/// A catalogue entry: what `extends` starts from.
#[derive(Debug)]
pub struct Entry {
    /// Its text, for excerpts and for `trunkline new`.
    pub text: Arc<str>,
    /// What its file is called in diagnostics: `catalogue:NAME.yaml`, which no file of a deployment is.
    pub file: Arc<PathBuf>,
    kept: Mutex<Option<Arc<Document>>>,
}

/// What the names of entries begin with in diagnostics.
const PREFIX: &str = "catalogue:";

static ENTRIES: LazyLock<BTreeMap<Box<str>, Entry>> = LazyLock::new(|| {
    let entry = |name: std::borrow::Cow<'static, str>| {
        let id = name.strip_suffix(".yaml")?;
        let text: Arc<str> = std::str::from_utf8(&Files::get(&name)?.data).ok()?.into();
        let file = Arc::new(PathBuf::from(format!("{PREFIX}{name}")));
        Some((id.into(), Entry { text, file, kept: Mutex::default() }))
    };
    Files::iter().filter_map(entry).collect()
});

impl Entry {
    /// The SHA-256 of its file, in hexadecimal digits.
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(self.text.as_bytes());
        digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }

    /// Its content as written.
    pub fn document(&self) -> Arc<Document> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let document = kept.get_or_insert_with(|| {
            // A test parses every embedded file; one that did not parse would be an entry without content.
            let parsed = parse(&self.file, &self.text).document;
            Arc::new(parsed.unwrap_or_else(|| Document::unplaced(self.file.as_ref().clone(), Value::Null)))
        });
        Arc::clone(document)
    }
}

/// Lets go of the contents of all entries; whoever holds one keeps it.
pub fn forget() {
    for entry in ENTRIES.values() {
        *entry.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl<'a> Listing<'a> {
    /// What a list says of an entry with this content.
    pub fn of(entry: &'a Document) -> Self {
        let value = &entry.value;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let texts = |pointer: &str, key: &str| {
            let items = value.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.get(key).unwrap_or(item).as_str()).collect()
        };
        let auth = value.get("auth").and_then(Value::as_object).and_then(|kinds| kinds.keys().next());
        let auth = auth.map_or("none", String::as_str);
        let offered: Vec<&str> = texts("/features", "");
        let (features, not_yet) = offered.into_iter().partition(|feature| not_yet::is_run(feature, value));
        let grant = match (auth, text("/auth/oauth2/grant")) {
            ("oauth2", "") => Some("authorization_code"),
            ("oauth2", grant) => Some(grant),
            _ => None,
        };
        Self {
            id: text("/id"),
            title: text("/title"),
            summary: text("/summary"),
            category: text("/category"),
            features,
            not_yet,
            pricing: value.get("pricing").and_then(Value::as_str),
            featured: value.get("featured").and_then(Value::as_bool).unwrap_or_default(),
            docs: text("/docs"),
            auth,
            grant,
            inputs: value.get("inputs").and_then(Value::as_object).into_iter().flat_map(|map| map.keys()).collect(),
            scopes: texts("/auth/oauth2/scopes", "name"),
            endpoints: texts("/api/endpoints", "id"),
            events: texts("/webhook/events", ""),
            syncs: texts("/syncs", "id"),
        }
    }
}

/// What a list says of an entry.
#[derive(Debug, Clone, Serialize)]
pub struct Listing<'a> {
    /// Its id, which is what `extends` names.
    pub id: &'a str,
    /// What people call the service.
    pub title: &'a str,
    /// What it is for.
    pub summary: &'a str,
    /// The shelf it stands on.
    pub category: &'a str,
    /// What it offers.
    pub features: Vec<&'a str>,
    /// What it would offer, and this version does not run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_yet: Vec<&'a str>,
    /// What it costs: `free`, `freemium` or `paid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pricing: Option<&'a str>,
    /// Whether it stands on the marketplace's first shelf.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub featured: bool,
    /// The service's own documentation.
    pub docs: &'a str,
    /// How connections sign in, by the grammar's word.
    pub auth: &'a str,
    /// How a token is come by, where they sign in by OAuth 2.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<&'a str>,
    /// What each connection must tell.
    pub inputs: Vec<&'a String>,
    /// What can be asked for.
    pub scopes: Vec<&'a str>,
    /// Its named requests.
    pub endpoints: Vec<&'a str>,
    /// The events it sends.
    pub events: Vec<&'a str>,
    /// The collections it keeps in copy.
    pub syncs: Vec<&'a str>,
}

impl Listing<'_> {
    /// Whether it has this word: part of its id, title, summary, category, one of its features, or the
    /// way of signing in. Case does not count.
    pub fn has(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let texts = [self.id, self.title, self.summary, self.category, self.auth, self.grant.unwrap_or_default()];
        texts.iter().chain(&self.features).chain(&self.not_yet).any(|text| text.to_lowercase().contains(&word))
    }
}

/// A line for each entry that passes its simulated run: the SHA-256 of its file, and its id. The tests that run them keep
/// it: one that was changed and not run again is not in it.
const VERIFIED: &str = include_str!("verified.txt");

static DIGESTS: LazyLock<std::collections::BTreeSet<&'static str>> = LazyLock::new(|| {
    let listed = |id: &str, entry: &Entry| {
        let line = format!("{}  {id}", entry.digest());
        VERIFIED.lines().any(|known| known == line)
    };
    ENTRIES.iter().filter(|(id, entry)| listed(id, entry)).map(|(id, _)| &**id).collect()
});

/// Whether the entry with this id is the one that passed its simulated run. Whether this version takes its webhooks is
/// another question ([`not_yet`]).
pub fn is_verified(id: &str) -> bool {
    DIGESTS.contains(id)
}

/// The entry with this id.
pub fn entry(id: &str) -> Option<&'static Entry> {
    ENTRIES.get(id)
}

/// Whether a finding that stands in this file stands in an entry.
pub fn is_entry(file: &Path) -> bool {
    let name = file.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".yaml"));
    name.is_some_and(|id| ENTRIES.contains_key(id))
}

/// The ids of all entries, sorted.
pub fn ids() -> impl Iterator<Item = &'static str> {
    ENTRIES.keys().map(|id| &**id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_is_an_entry_under_its_own_id() {
        assert_eq!(ids().count(), Files::iter().count());
        for id in ids() {
            let document = entry(id).expect("listed").document();
            assert_eq!(document.value.get("id").and_then(Value::as_str), Some(id));
        }
    }

    #[test]
    fn every_entry_stands_on_a_shelf_with_a_sentence_and_its_documentation() {
        for document in ids().filter_map(entry).map(Entry::document) {
            let listing = Listing::of(&document);
            let sentence = listing.summary.ends_with('.') && listing.summary.len() < 120;
            let complete = sentence && !listing.category.is_empty() && !listing.features.is_empty();
            assert!(complete && listing.docs.starts_with("https://"), "{listing:?}");
        }
    }

    #[test]
    fn entries_are_found_by_what_people_know_of_them() {
        let found = |word: &str| ids().filter_map(entry).any(|entry| Listing::of(&entry.document()).has(word));
        for word in ["GITHUB", "payments", "Sync", "authorization_code", "api_key", "invoices"] {
            assert!(found(word), "{word}");
        }
        assert!(!found("no such thing"));
    }
}
