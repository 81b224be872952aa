//! The catalogue: the definitions in `integrations/`, embedded in the program and parsed once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use rust_embed::Embed;

use super::document::Document;
use super::load::tree::parse;

#[derive(Embed)]
#[folder = "integrations/"]
struct Files;

/// A catalogue entry: what `extends` starts from.
#[derive(Debug)]
pub struct Entry {
    /// Its text, for excerpts and for `trunkline new`.
    pub text: Arc<str>,
    /// Its content as written. Its file reads as `catalogue:NAME.yaml`, which no file of a deployment
    /// is called.
    pub document: Document,
}

static ENTRIES: LazyLock<BTreeMap<Box<str>, Entry>> = LazyLock::new(|| {
    let entry = |name: std::borrow::Cow<'static, str>| {
        let id = name.strip_suffix(".yaml")?;
        let text: Arc<str> = std::str::from_utf8(&Files::get(&name)?.data).ok()?.into();
        let document = parse(&Arc::new(PathBuf::from(format!("catalogue:{name}"))), &text).document?;
        Some((id.into(), Entry { text, document }))
    };
    Files::iter().filter_map(entry).collect()
});

/// The entry with this id.
pub fn entry(id: &str) -> Option<&'static Entry> {
    ENTRIES.get(id)
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
            let written = entry(id).and_then(|entry| entry.document.value.get("id")?.as_str());
            assert_eq!(written, Some(id));
        }
    }
}
