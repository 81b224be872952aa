//! Definitions: YAML text to checked, compiled integrations.
//!
//! Three shapes, never mixed: what was written ([`raw`], serde and schemars types), what is wrong
//! with it ([`problem`]), and what the request path needs ([`plan`]). [`load`] reads files,
//! expands references and resolves `extends`; [`check`] finds what a schema cannot say; [`live`]
//! holds the one set in force. Nothing above this room sees a raw type.

pub mod problem;
pub mod bound;
pub mod document;
pub mod raw;
pub mod schema;
pub mod catalogue;
pub mod scope;
pub mod live;
pub mod load;
pub mod shape;
pub mod suggest;
pub mod validate;
pub mod render;
pub mod resolve;
pub mod workspace;
pub mod assemble;
pub mod history;
pub mod password;
pub mod plan;
pub mod not_yet;
pub mod templates;
pub mod compile;
pub mod check;
