//! The one expression language of definitions: minijinja, strict where text is made.
//!
//! - An [`Expr`] is a bare expression. What is undefined in it is none and falsy.
//! - A [`Text`] has `{{ … }}` slots and, rarely, `{% … %}` blocks. What is undefined or none in a
//!   slot is an error, never an empty string. A text that is one lone slot keeps its value's type.
//! - A [`Tree`] is a JSON value whose texts are templates: the tree itself is never templated, so a
//!   value cannot break out of its place.
//!
//! Everything is compiled at load, and bounded in length, fuel and output ([`LIMITS`]). This room knows no
//! place that uses templates; `definition` says which variables each place sees. Called by
//! `definition` (to compile) and by every room that fills in a definition's values.

mod context;
mod digest;
mod engine;
mod expr;
mod guard;
mod made;
pub mod payload;
mod syntax;
mod takes;
mod text;
mod tree;
mod weight;

pub use context::{Context, Headers};
pub use engine::{LIMITS, Limits};
pub use expr::Expr;
pub use syntax::Name;
pub use takes::{FILTERS, FUNCTIONS, TESTS, Takes};
pub use text::{Segment, Text};
pub use tree::Tree;

use std::ops::Range;

/// Why a template did not compile or did not give a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// What kind of fault.
    pub kind: TemplateErrorKind,
    /// What is wrong, as a lower-case fragment. Quotes the template, never a value.
    pub message: String,
    /// The fault's place in the template's source, in bytes, where known.
    pub range: Option<Range<usize>>,
}

/// What kind of fault a template has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TemplateErrorKind {
    /// It does not compile.
    Syntax,
    /// It uses a filter, test or function that there is not.
    UnknownFilter,
    /// It gives one of them what it does not take; these are the arguments that it takes by name.
    WrongArguments(&'static [&'static str]),
    /// A slot's value is undefined or none.
    Missing,
    /// A value has a type the operation does not take.
    WrongType,
    /// It ran longer than its fuel allows.
    OutOfFuel,
    /// It produced more than its limit.
    TooLarge,
    /// Anything else the engine refused.
    Failed,
}
