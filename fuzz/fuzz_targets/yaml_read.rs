//! Any bytes are read as a definition or refused: no panic, no hang, no unbounded memory.
#![no_main]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use trunkline::definition::load::bytes;
use trunkline::definition::resolve::{Kind, resolve};

fuzz_target!(|content: &[u8]| {
    let file = Arc::new(PathBuf::from("fuzz.yaml"));
    let Ok(text) = bytes::text(&file, content) else { return };
    let environment = HashMap::from([("A".to_owned(), "{{ a }} ${env:A}".to_owned())]);
    for kind in [Kind::Integration, Kind::Gateway] {
        let resolved = resolve(kind, &file, &text, &environment);
        assert!(resolved.document.is_some() || !resolved.problems.is_empty());
    }
});
