//! What may be written in a file: one Rust file per YAML block.
//!
//! The doc comment of a field is its page in the manual and its hover text in an editor: what it is,
//! its unit, its default, when to change it. Unknown fields are errors. Nothing here decides a
//! default or resolves a name; `compile` does. Only `check` and `compile` see these types.

pub mod api;
pub mod auth;
pub mod integration;
pub mod oauth2;
pub mod request;
pub mod scalar;
pub mod sync;
