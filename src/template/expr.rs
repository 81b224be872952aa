//! Bare expressions.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use minijinja::value::Value;

use super::engine::{ENVIRONMENT, translate};
use super::guard::Guarded;
use super::made::to_json;
use super::{Context, Name, TemplateError, TemplateErrorKind, syntax};

/// A compiled expression, such as `body.action`. Cheap to clone.
#[derive(Clone)]
pub struct Expr {
    source: Arc<str>,
    names: Arc<[Name]>,
    program: Arc<Program>,
}

/// What the engine runs. It keeps room for 256 instructions, 8 KiB, however few there are, so that of the expressions of
/// a catalogue only those take it that are in use.
struct Program {
    guarded: Guarded,
    compiled: OnceLock<minijinja::Expression<'static, 'static>>,
}

impl Program {
    fn compile(&self, source: &str) -> Result<minijinja::Expression<'static, 'static>, TemplateError> {
        let compiled = ENVIRONMENT.compile_expression_owned(self.guarded.source.clone());
        compiled.map_err(|error| self.explain(&error, source))
    }

    /// What the engine says of it, in our words.
    fn explain(&self, error: &minijinja::Error, source: &str) -> TemplateError {
        translate(error, |range| self.guarded.written(&range), source)
    }
}

impl Expr {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is not an expression, or names a filter or test that there is not.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        let (names, guarded) = syntax::expression(source)?;
        let program = Program { guarded, compiled: OnceLock::new() };
        // For its faults alone: it is kept when it is first run.
        program.compile(source)?;
        Ok(Self { source: Arc::from(source), names: names.into(), program: Arc::new(program) })
    }

    /// What was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The names it reads, without their places.
    pub fn names(&self) -> BTreeSet<String> {
        self.reads().iter().map(|name| name.path.clone()).collect()
    }

    /// The names it reads, dotted where they are (`body.action`), with their places in the source.
    pub fn reads(&self) -> &[Name] {
        &self.names
    }

    /// Its value. What is missing is [undefined](Value::UNDEFINED).
    ///
    /// # Errors
    /// When an operation does not fit its values, or the limits are reached.
    pub fn value(&self, context: &Context) -> Result<Value, TemplateError> {
        let compiled = if let Some(compiled) = self.program.compiled.get() {
            compiled
        } else {
            let compiled = self.program.compile(&self.source)?;
            self.program.compiled.get_or_init(|| compiled)
        };
        compiled.eval(context.root()).map_err(|error| self.explain(&error))
    }

    /// What the engine says of it, in our words.
    pub(super) fn explain(&self, error: &minijinja::Error) -> TemplateError {
        self.program.explain(error, &self.source)
    }

    /// Whether its value is true in the language's sense: missing, none, false, zero and empty are not.
    ///
    /// # Errors
    /// As [`Self::value`].
    pub fn holds(&self, context: &Context) -> Result<bool, TemplateError> {
        self.value(context).map(|value| value.is_true())
    }

    /// Its value as JSON; none and missing are `null`.
    ///
    /// # Errors
    /// As [`Self::value`], and when the value has no JSON form.
    pub fn json(&self, context: &Context) -> Result<serde_json::Value, TemplateError> {
        to_json(&self.value(context)?)
    }

    /// Its value as text: `None` when it is missing, none or empty; numbers and booleans in words.
    ///
    /// # Errors
    /// As [`Self::value`], and when the value is a map or a list.
    pub fn text(&self, context: &Context) -> Result<Option<String>, TemplateError> {
        use minijinja::value::ValueKind;
        let value = self.value(context)?;
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => Ok(None),
            ValueKind::String => Ok(value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)),
            ValueKind::Number => Ok(Some(value.to_string())),
            ValueKind::Bool => Ok(Some(if value.is_true() { "true" } else { "false" }.to_owned())),
            kind => Err(TemplateError {
                kind: TemplateErrorKind::WrongType,
                message: format!("`{}` is a {kind}, not a text", self.source),
                range: None,
            }),
        }
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expr").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        Context::new()
            .with_json("body", &json!({ "action": "opened", "n": 3, "none": null }))
            .with_headers("headers", [("x-github-event", "pull_request")])
    }

    fn text(source: &str) -> Result<Option<String>, TemplateError> {
        Expr::compile(source)?.text(&context())
    }

    #[test]
    fn what_is_missing_is_none_and_falsy() {
        let event = "headers['X-GitHub-Event'] ~ ('.' ~ body.action if body.action else '')";
        assert_eq!(text(event), Ok(Some("pull_request.opened".to_owned())));
        let without = event.replace("body.action", "body.a.b.c");
        assert_eq!(text(&without), Ok(Some("pull_request".to_owned())));
        assert_eq!(text("body.none"), Ok(None));
        assert_eq!(text("body.n"), Ok(Some("3".to_owned())));
        assert!(text("body").is_err());
    }

    #[test]
    fn names_are_those_it_reads() {
        let expr = Expr::compile("body.a and headers['x'] or saved.b").expect("compiles");
        let names: Vec<_> = expr.reads().iter().map(|name| name.path.as_str()).collect();
        assert_eq!(names, ["body.a", "headers", "saved.b"]);
    }

    #[test]
    fn syntax_errors_say_where() {
        let error = Expr::compile("body.a ==").expect_err("incomplete");
        assert_eq!(error.kind, TemplateErrorKind::Syntax);
        assert!(error.range.is_some());
    }
}
