//! What may be written in a file: one Rust file per YAML block.
//!
//! The doc comment of a field is its page in the manual and its hover text in an editor: what it is,
//! its unit, its default, when to change it. Unknown fields are errors. Nothing here decides a
//! default or resolves a name; `compile` does. Only `check`, `schema` and `compile` see these types.
//!
//! Beside types and words, a schema carries what `check` needs to know of a value: `x-template` (what
//! kind of template it is), `x-sees` and `x-answer` (which [`variables`] it may name), `x-secret`,
//! `x-headers`, `x-hosts`, `x-regex`, `x-url`, `x-pem`, `x-choice`, `x-short`, `x-expected`.

pub mod api;
pub mod auth;
pub mod bounds;
pub mod connection;
pub mod form;
pub mod gateway;
pub mod handshake;
pub mod inputs;
pub mod integration;
pub mod limits;
pub mod notifications;
pub mod oauth2;
pub mod plugin;
pub mod request;
pub mod rule;
pub mod scalar;
mod strict;
pub mod sync;
pub mod trace;
pub mod usage;
pub mod variables;
pub mod verify;
pub mod webhook;

use serde::Deserialize;
use serde_json::Value;

use crate::definition::document::push_token;

/// A value that does not have the type its place needs. A document that its schema accepts gives none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// RFC 6901 pointer of the value.
    pub pointer: String,
    /// What was expected, as a lower-case fragment.
    pub message: String,
}

/// Reads a resolved document into its type.
///
/// # Errors
/// [`ReadError`] for the first value that does not fit.
pub fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, ReadError> {
    serde_path_to_error::deserialize(strict::Strict(value)).map_err(|error| {
        let mut pointer = String::new();
        for segment in error.path() {
            match segment {
                serde_path_to_error::Segment::Seq { index } => push_token(&mut pointer, &index.to_string()),
                serde_path_to_error::Segment::Map { key } => push_token(&mut pointer, key),
                serde_path_to_error::Segment::Enum { variant } => push_token(&mut pointer, variant),
                serde_path_to_error::Segment::Unknown => {}
            }
        }
        ReadError { pointer, message: error.inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::gateway::Gateway;
    use super::integration::Integration;
    use super::*;
    use crate::definition::{catalogue, schema};

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).expect("YAML")
    }

    fn faults(schema: &Value, document: &Value) -> Vec<String> {
        let validator = jsonschema::validator_for(schema).expect("a schema");
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    #[test]
    fn the_catalogue_reads_unchanged() {
        for entry in catalogue::ids().filter_map(catalogue::entry) {
            let document = yaml(&entry.text);
            assert_eq!(faults(schema::integration(), &document), [""; 0], "{:?}", entry.file);
            let read = read::<Integration>(&document);
            assert!(read.is_ok(), "{:?}: {:?}", entry.file, read.err());
        }
    }

    #[test]
    fn the_quickstart_gateway_reads_unchanged() {
        let document = yaml(include_str!("../../../examples/quickstart/trunkline.yaml"));
        assert_eq!(faults(schema::gateway(), &document), [""; 0]);
        assert!(read::<Gateway>(&document).is_ok());
    }

    #[test]
    fn a_fault_is_told_with_its_pointer() {
        let document = yaml("{ trunkline: 1, id: a, api: { base_url: 'https://a.b', timeouts: { connect: 5 } } }");
        let error = read::<Integration>(&document).expect_err("a number without unit");
        assert_eq!(error.pointer, "/api/timeouts/connect");
    }
}
