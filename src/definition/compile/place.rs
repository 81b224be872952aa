//! A place in a document that is being compiled, with what every kind of value there becomes.

use http::HeaderName;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::definition::document::{Document, push_token};
use crate::definition::plan::api::HostPattern;
use crate::definition::problem::{Code, Problem};
use crate::definition::raw::form::Ordered;
use crate::definition::raw::scalar::{Expression, HeaderText, Template, Tree as RawTree};
use crate::definition::templates::Templates;
use crate::template::{Expr, TemplateError, Text, Tree};

/// The largest compiled form of a pattern; larger ones are refused, so that no pattern takes the
/// memory of all.
const PATTERN_BYTES: usize = 1 << 20;

/// What is wrong, at its place. Boxed, because a problem is far larger than what goes well.
pub type Fault = Box<Problem>;

/// A place in a document.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    document: &'a Document,
    templates: &'a Templates,
    pointer: String,
}

impl<'a> Place<'a> {
    pub(super) fn root(document: &'a Document, templates: &'a Templates) -> Self {
        Self { document, templates, pointer: String::new() }
    }

    pub(super) fn document(&self) -> &'a Document {
        self.document
    }

    pub(super) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The place under a key.
    pub(super) fn at(&self, key: &str) -> Self {
        let mut pointer = String::with_capacity(self.pointer.len() + key.len() + 1);
        pointer.push_str(&self.pointer);
        push_token(&mut pointer, key);
        Self { pointer, ..*self }
    }

    /// Another place of the same document.
    pub(super) fn of(&self, pointer: &str) -> Self {
        Self { pointer: pointer.to_owned(), ..*self }
    }

    /// Whether a list is written here.
    pub(super) fn is_list(&self) -> bool {
        self.document.value.pointer(&self.pointer).is_some_and(Value::is_array)
    }

    /// The place of a list's item.
    pub(super) fn item(&self, index: usize) -> Self {
        self.at(&index.to_string())
    }

    pub(super) fn problem(&self, code: Code, message: impl Into<String>) -> Fault {
        Box::new(Problem::error(code, self.document.place(&self.pointer), message))
    }

    fn template_problem(&self, error: TemplateError) -> Fault {
        let place = match error.range {
            Some(range) => self.document.place_within(&self.pointer, range),
            None => self.document.place(&self.pointer),
        };
        Box::new(Problem::error(Code::BadTemplate, place, error.message))
    }

    pub(super) fn text(&self, source: &Template) -> Result<Text, Fault> {
        self.text_of(&source.0)
    }

    pub(super) fn text_of(&self, source: &str) -> Result<Text, Fault> {
        self.templates.text(source).map_err(|error| self.template_problem(error))
    }

    pub(super) fn expression(&self, source: &Expression) -> Result<Expr, Fault> {
        self.templates.expression(&source.0).map_err(|error| self.template_problem(error))
    }

    /// The expression under a key, where there is one.
    pub(super) fn optional(&self, key: &str, source: Option<&Expression>) -> Result<Option<Expr>, Fault> {
        source.map(|source| self.at(key).expression(source)).transpose()
    }

    pub(super) fn tree(&self, source: &RawTree) -> Result<Tree, Fault> {
        self.tree_of(&source.0)
    }

    pub(super) fn tree_of(&self, source: &Value) -> Result<Tree, Fault> {
        let mut first = None;
        let tree = self.templates.tree(source, &mut |below, error| {
            let at = Self { pointer: format!("{}{below}", self.pointer), ..*self };
            first.get_or_insert_with(|| at.template_problem(error));
        });
        first.map_or(Ok(tree), Err)
    }

    /// Trees by name, in order.
    pub(super) fn trees(&self, source: &Ordered<RawTree>) -> Result<Vec<(String, Tree)>, Fault> {
        source.iter().map(|(name, tree)| Ok((name.to_owned(), self.at(name).tree(tree)?))).collect()
    }

    pub(super) fn header_name(&self, name: &str) -> Result<HeaderName, Fault> {
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| self.problem(Code::BadFormat, format!("`{name}` is not the name of a header")))
    }

    pub(super) fn header(&self, name: &HeaderText) -> Result<HeaderName, Fault> {
        self.header_name(&name.0)
    }

    /// Headers in order.
    pub(super) fn headers(&self, source: &Ordered<Template>) -> Result<Vec<(HeaderName, Text)>, Fault> {
        let header = |(name, value): (&str, &Template)| {
            let at = self.at(name);
            Ok((at.header_name(name)?, at.text(value)?))
        };
        source.iter().map(header).collect()
    }

    pub(super) fn regex(&self, pattern: &str) -> Result<Regex, Fault> {
        read_pattern(pattern)
            .map_err(|error| self.problem(Code::BadFormat, format!("the pattern does not compile: {error}")))
    }

    pub(super) fn hosts(&self, source: &[String]) -> Result<Vec<HostPattern>, Fault> {
        let pattern = |(index, host): (usize, &String)| {
            HostPattern::parse(host).ok_or_else(|| {
                self.item(index).problem(Code::BadFormat, format!("`{host}` is not a host or `*.` and a name"))
            })
        };
        source.iter().enumerate().map(pattern).collect()
    }
}

/// Compiles a pattern within bounds.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn read_pattern(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build().map_err(|error| {
        // The last line of the library's drawing says what is wrong.
        let drawing = error.to_string();
        drawing.lines().last().unwrap_or(&drawing).trim_start_matches("error: ").to_owned()
    })
}
