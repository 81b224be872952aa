//! Files to documents: bytes, YAML, `extends`, references.
//!
//! Nothing here knows the grammar: what a place is for comes from the schema, by way of
//! [`shape`](super::shape). Called by `definition::workspace`.

pub mod bytes;
pub mod environment;
pub mod expand;
pub mod extends;
pub mod reach;
pub mod reference;
mod scalar;
mod syntax;
mod trouble;
pub mod tree;
pub mod visit;
