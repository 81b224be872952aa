//! Texts with slots.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use minijinja::Environment;
use minijinja::value::Value;

use super::engine::{LIMITS, environment, printed, translate};
use super::guard::Guarded;
use super::made::{Bounded, to_json};
use super::{Context, Expr, Name, TemplateError, TemplateErrorKind, syntax};

/// A compiled text. Cheap to clone.
#[derive(Clone)]
pub struct Text {
    source: Arc<str>,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// Nothing to fill in.
    Literal,
    /// Slots only: each can be encoded for its place.
    Segments(Arc<[Segment]>, Arc<[Name]>),
    /// With `{% … %}` or `{# … #}`: rendered as a whole.
    Blocks(Arc<(Environment<'static>, Guarded)>, Arc<[Name]>),
}

/// A part of a text.
#[derive(Clone)]
pub enum Segment {
    /// Text that stands as it is.
    Literal(Box<str>),
    /// A slot.
    Slot(Expr),
}

/// The name under which a text with blocks is kept in its own environment.
const BLOCKS: &str = "text";

impl Text {
    /// Compiles a text.
    ///
    /// # Errors
    /// When a slot or block does not compile; the range is within `source`.
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        let form = if source.contains("{%") || source.contains("{#") {
            let (names, guarded) = syntax::blocks(source)?;
            let mut env = environment();
            env.add_template_owned(BLOCKS, guarded.source.clone())
                .map_err(|error| translate(&error, |range| guarded.written(&range), source))?;
            Form::Blocks(Arc::new((env, guarded)), names.into())
        } else if source.contains("{{") {
            let (segments, names) = segments(source)?;
            Form::Segments(segments.into(), names.into())
        } else {
            Form::Literal
        };
        Ok(Self { source: Arc::from(source), form })
    }

    /// What was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text when it has nothing to fill in.
    pub fn literal(&self) -> Option<&str> {
        matches!(self.form, Form::Literal).then_some(&*self.source)
    }

    /// Its parts, or `None` when it has blocks and can only be rendered as a whole.
    pub fn segments(&self) -> Option<Cow<'_, [Segment]>> {
        match &self.form {
            Form::Literal => Some(Cow::Owned(vec![Segment::Literal((&*self.source).into())])),
            Form::Segments(segments, _) => Some(Cow::Borrowed(segments)),
            Form::Blocks(..) => None,
        }
    }

    /// The names it reads, without their places.
    pub fn names(&self) -> BTreeSet<String> {
        self.reads().iter().map(|name| name.path.clone()).collect()
    }

    /// The names it reads, dotted where they are, with their places in the source.
    pub fn reads(&self) -> &[Name] {
        match &self.form {
            Form::Literal => &[],
            Form::Segments(_, names) | Form::Blocks(_, names) => names,
        }
    }

    /// The text with its slots filled in.
    ///
    /// # Errors
    /// When a slot's value is missing or none, an operation does not fit its values, or the limits
    /// are reached.
    pub fn render(&self, context: &Context) -> Result<String, TemplateError> {
        self.render_encoded(context, |text, out| out.push_str(text))
    }

    /// The text with each slot's value written by `encode`, for places such as a path in which a value
    /// must not bring structure of its own. A text with blocks is encoded as a whole: places that need
    /// their own structure kept refuse blocks when they compile.
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn render_encoded(
        &self,
        context: &Context,
        encode: impl Fn(&str, &mut String),
    ) -> Result<String, TemplateError> {
        let segments = match &self.form {
            Form::Literal => return Ok(self.source.to_string()),
            Form::Segments(segments, _) => segments,
            Form::Blocks(env, _) => {
                let mut out = String::new();
                encode(&render_blocks(env, &self.source, context)?, &mut out);
                return Ok(out);
            }
        };
        let mut out = String::with_capacity(self.source.len());
        for segment in segments.iter() {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Slot(expr) => {
                    let value = expr.value(context)?;
                    encode(printed(&value).map_err(|error| missing(expr, &error))?.as_str(), &mut out);
                }
            }
            if out.len() > LIMITS.output {
                return Err(too_large());
            }
        }
        Ok(out)
    }

    /// The value: that of the slot when the text is one lone slot, else the rendered text.
    ///
    /// # Errors
    /// As [`Self::render`]; a lone slot may be none, but not undefined.
    pub fn value(&self, context: &Context) -> Result<serde_json::Value, TemplateError> {
        match self.lone_slot() {
            Some(expr) => {
                let value = expr.value(context)?;
                if value.is_undefined() { Err(undefined(expr)) } else { to_json(&value) }
            }
            None => self.render(context).map(serde_json::Value::String),
        }
    }

    /// The slot, when the text is nothing else.
    pub fn lone_slot(&self) -> Option<&Expr> {
        match &self.form {
            Form::Segments(segments, _) => match &**segments {
                [Segment::Slot(expr)] => Some(expr),
                _ => None,
            },
            Form::Literal | Form::Blocks(..) => None,
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(text) => write!(f, "Literal({} bytes)", text.len()),
            Self::Slot(_) => f.write_str("Slot"),
        }
    }
}

impl Segment {
    /// The expression, when the segment is a slot.
    pub fn slot(&self) -> Option<&Expr> {
        match self {
            Self::Slot(expr) => Some(expr),
            Self::Literal(_) => None,
        }
    }
}

/// Says how long the text is, not what it is: a reference that stands in it has been expanded.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.source.len())
    }
}

/// Splits a text at its slots. Whitespace control (`{{-`) is refused: it means nothing in one value.
fn segments(source: &str) -> Result<(Vec<Segment>, Vec<Name>), TemplateError> {
    let (mut parts, mut names) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(found) = source.get(at..).and_then(|rest| rest.find("{{")) {
        let open = at + found;
        if let Some(literal) = source.get(at..open).filter(|literal| !literal.is_empty()) {
            parts.push(Segment::Literal(literal.into()));
        }
        let inner = open + 2;
        let close = slot_end(source, inner).ok_or_else(|| TemplateError {
            kind: TemplateErrorKind::Syntax,
            message: "this slot has no closing `}}`".to_owned(),
            range: Some(open..source.len()),
        })?;
        let expression = source.get(inner..close).unwrap_or_default();
        let expr = Expr::compile(expression).map_err(|error| shifted(error, inner))?;
        names.extend(
            expr.reads()
                .iter()
                .map(|name| Name { range: name.range.start + inner..name.range.end + inner, ..name.clone() }),
        );
        parts.push(Segment::Slot(expr));
        at = close + 2;
    }
    if let Some(literal) = source.get(at..).filter(|literal| !literal.is_empty()) {
        parts.push(Segment::Literal(literal.into()));
    }
    Ok((parts, names))
}

/// Where the `}}` of a slot that starts at `from` stands, outside quotes and inner braces.
fn slot_end(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut depth, mut quote) = (from, 0_usize, None);
    while let Some(&byte) = bytes.get(at) {
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if open == byte => quote = None,
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            (Some(_) | None, _) => {}
        }
        at += 1;
    }
    None
}

fn shifted(error: TemplateError, by: usize) -> TemplateError {
    TemplateError { range: error.range.map(|range| range.start + by..range.end + by), ..error }
}

fn undefined(expr: &Expr) -> TemplateError {
    TemplateError {
        kind: TemplateErrorKind::Missing,
        message: format!("`{}` is missing", expr.source().trim()),
        range: None,
    }
}

fn missing(expr: &Expr, error: &minijinja::Error) -> TemplateError {
    let translated = expr.explain(error);
    match translated.kind {
        TemplateErrorKind::Missing => TemplateError {
            message: format!(
                "`{}`: {}; say what stands in its place with `| default('…')`",
                expr.source().trim(),
                translated.message
            ),
            ..translated
        },
        _ => translated,
    }
}

fn too_large() -> TemplateError {
    TemplateError {
        kind: TemplateErrorKind::TooLarge,
        message: format!("makes more than {} bytes", LIMITS.output),
        range: None,
    }
}

fn render_blocks(
    (env, guarded): &(Environment<'static>, Guarded),
    source: &str,
    context: &Context,
) -> Result<String, TemplateError> {
    let mut out = Bounded::default();
    let explain = |error: minijinja::Error| translate(&error, |range| guarded.written(&range), source);
    let template = env.get_template(BLOCKS).map_err(explain)?;
    template.render_captured_to(Value::clone(&context.root()), &mut out).map_err(explain)?;
    out.text().ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn context() -> Context {
        Context::new()
            .with_json("body", &json!({ "a": "x", "n": 3, "yes": true, "none": null, "list": [1, "b"] }))
            .with("cursor", Value::from(()))
    }

    fn render(source: &str) -> Result<String, TemplateError> {
        Text::compile(source)?.render(&context())
    }

    fn value(source: &str) -> Result<serde_json::Value, TemplateError> {
        Text::compile(source)?.value(&context())
    }

    #[test]
    fn a_lone_slot_keeps_its_type() {
        assert_eq!(value("{{ body.n }}"), Ok(json!(3)));
        assert_eq!(value("{{ body.list }}"), Ok(json!([1, "b"])));
        assert_eq!(value("{{ body.none }}"), Ok(json!(null)));
        assert_eq!(value("{{ body.gone | default([]) }}"), Ok(json!([])));
        assert_eq!(value("{{ {'k': {'b': '}}'}} }}"), Ok(json!({ "k": { "b": "}}" } })));
        assert_eq!(value("n={{ body.n }} {{ body.yes }} {{ body.list }}"), Ok(json!("n=3 true [1,\"b\"]")));
    }

    #[test]
    fn what_is_missing_in_text_is_an_error() {
        for source in
            ["{{ body.gone }}", "a {{ body.gone.deep }}", "a {{ body.none }}", "{% if 1 %}{{ body.gone }}{% endif %}"]
        {
            let error = value(source).expect_err(source);
            assert_eq!(error.kind, TemplateErrorKind::Missing, "{source}: {error}");
        }
        assert_eq!(render("{{ body.gone.deep | default('d') }}!"), Ok("d!".to_owned()));
    }

    #[test]
    fn null_is_none_for_default_and_false_is_not() {
        assert_eq!(render("{{ body.none | default('-') }}{{ body.none.deep | default('') }}!"), Ok("-!".to_owned()));
        assert_eq!(value("{{ body.none | default([]) }}"), Ok(json!([])));
        assert_eq!(value("{{ body.none | default(none) }}"), Ok(json!(null)));
        assert_eq!(value("{{ body.gone | default }}"), Ok(json!("")));
        assert_eq!(value("{{ (1 > 2) | default('d') }}"), Ok(json!(false)));
        assert_eq!(value("{{ (1 > 2) | default('d', true) }}"), Ok(json!("d")));
        assert!(value("{{ body.none | default(1, true, 2) }}").is_err());
    }

    #[test]
    fn debug_output_hides_what_references_brought() {
        let text = Text::compile("Bearer hunter2 {{ body.a }}").expect("compiles");
        assert!(!format!("{text:?} {:?}", text.segments()).contains("hunter2"));
    }

    #[test]
    fn blocks_work_in_texts() {
        let soql = "SELECT Id{% if cursor %} WHERE x >= {{ cursor }}{% endif %} ORDER BY x";
        assert_eq!(render(soql), Ok("SELECT Id ORDER BY x".to_owned()));
        assert!(
            Text::compile(soql)
                .is_ok_and(|text| text.segments().is_none() && text.reads().iter().any(|name| name.path == "cursor"))
        );
    }

    #[test]
    fn slots_are_encoded_and_literals_are_not() {
        let text = Text::compile("/repos/{{ body.a }}/x y").expect("compiles");
        let upper = text.render_encoded(&context(), |value, out| out.push_str(&value.to_uppercase()));
        assert_eq!(upper, Ok("/repos/X/x y".to_owned()));
    }

    #[test]
    fn errors_point_into_the_text() {
        let source = "abc {{ body. }} def";
        let error = Text::compile(source).expect_err("incomplete");
        let range = error.range.expect("located");
        assert!(range.start >= 6 && range.end <= source.len(), "{range:?}");
        assert!(Text::compile("a {{ b").is_err());
        // What the engine cannot read it tells by one byte, also behind the end and inside a character.
        for source in ["{{ \" }}\"", "({{😀}}", "{%\n0x", "-{%raw%}%}if~", "{%'"] {
            let error = Text::compile(source).expect_err(source);
            assert!(error.range.is_some_and(|range| source.get(range).is_some()), "{source}");
        }
        for source in ["\"", "1e", "(0x", "\u{2028}|1"] {
            let error = Expr::compile(source).expect_err(source);
            assert!(error.range.is_some_and(|range| source.get(range).is_some()), "{source}");
        }
    }

    #[test]
    fn lists_and_maps_are_neither_repeated_nor_written_out_without_a_bound() {
        let many = "body.list * 100000000";
        let repeated = [
            "{{ {'a': MANY} | upper | length }}",
            "{% set l = [0] %}{% set m = {'a': l * 100000000} %}{{ (m ~ '') | length }}",
            "{{ 'x' | replace({'a': MANY}, 'y') }}",
            "{% if [MANY] == [MANY] %}a{% endif %}",
            "{{ [[MANY], [MANY]] | max | length }}",
            "{{ [{'a': MANY}] | join(',') | length }}",
            "{% if {'a': MANY} is startingwith('x') %}{% endif %}",
            "{% if [MANY] in [[MANY]] %}a{% endif %}",
            "{{ {(MANY): 1} | length }}",
            "{{ (body.n) * (body.list) }}",
            "{{ body.list[0:1] * body.n * 100000 }}",
            "{{ 2*(body.list|list)|length }}{{ body.list|list*100000000 }}",
        ];
        for source in repeated.map(|source| source.replace("MANY", many)) {
            let error = render(&source).expect_err(&source);
            assert!(error.message.starts_with("a list is not repeated"), "{source}: {error}");
            let place = error.range.and_then(|range| source.get(range).map(str::to_owned)).expect("a place");
            assert!(!place.contains("_multiplied"), "{source}: {place}");
        }
        for source in [
            "{{ body ~ '' }}",
            "{{ '' ~ (body.list) ~ 'x' }}",
            "{{ body | upper }}",
            "{{ body | trim }}",
            "{{ [[1]] | join(',') }}",
            "{{ 'a' | replace(body, 'b') }}",
            "{{ body.list | map('lower') | list }}",
            "{{ 'a' is endingwith(body) }}",
        ] {
            assert_eq!(
                render(&source.replace("body.list |", "[body] |")).expect_err(source).kind,
                TemplateErrorKind::WrongType
            );
        }
        let doubled = |count: usize| "{% set a = [a, a] %}".repeat(count);
        for source in [
            format!("{{% set a = body %}}{}{{{{ [a] == [a] }}}}", doubled(30)),
            format!("{{% set a = 'x' %}}{}{{{{ [a] == [a] }}}}", doubled(30)),
            format!("{{% if 1 %}}{}{{% endif %}}", "{% if 1 %}{% set a = {'b': a, 'c': a} %}{% endif %}".repeat(30)),
        ] {
            assert!(Text::compile(&source).is_err(), "{source}");
        }
    }

    #[test]
    fn a_loop_of_comparisons_ends_in_good_time() {
        let many: Vec<u32> = vec![0; 50_000];
        let context = Context::new().with_json("body", &json!({ "a": many, "b": many, "nested": [many] }));
        for (source, kind) in [
            (
                "{% for i in range(9000) %}{% if [body.a] == [body.b] %}{% endif %}{% endfor %}",
                TemplateErrorKind::OutOfFuel,
            ),
            ("{% for i in range(9000) %}{% if {body.a: 1} %}{% endif %}{% endfor %}", TemplateErrorKind::OutOfFuel),
            ("{{ [[body.a], [body.b]] | unique | length }}", TemplateErrorKind::WrongType),
            ("{{ body.nested | max | length }}", TemplateErrorKind::WrongType),
            ("{{ body.nested is eq(body.nested) }}", TemplateErrorKind::WrongType),
            ("{{ [1] | join(body) }}", TemplateErrorKind::WrongType),
        ] {
            let rendered = Text::compile(source).and_then(|text| text.render(&context));
            assert_eq!(rendered.map_err(|error| error.kind), Err(kind), "{source}");
        }
        for (source, rendered) in [
            ("{% for a in [3, 1] %}{{ loop.index }}/{{ loop.length }}={{ a }} {% endfor %}", "1/2=3 2/2=1 "),
            ("{% for key in {'a': 1, 'b': 2} %}{{ key }}{% else %}none{% endfor %}", "ab"),
            ("{% for key, value in {'a': 1} | items %}{{ key }}{{ value }}{% endfor %}", "a1"),
            ("{% for a in (body.gone) %}x{% else %}none{% endfor %}", "none"),
            ("{% for a in ([1, 2, 3]) if a > 1 %}{{ a }}{% endfor %}", "23"),
            ("{{ 'x' | int(default=3) }}{{ [{'k': 'a'}, {'k': 'b'}] | join('+', attribute='k') }}", "3a+b"),
            ("{{ [{'k': 1, 'v': [2]}, {'k': 1}] | unique(attribute='k') | length }}{{ [1, 2] | max }}", "12"),
            ("{{ {'b': 1, 'a': 2} | dictsort | tojson }}", "[[\"a\",2],[\"b\",1]]"),
            ("{{ [[2, 'b'], [1, 'a']] | sort | tojson }}", "[[1,\"a\"],[2,\"b\"]]"),
            ("{{ [{'k': 2}, {'k': 1}] | sort(attribute='k') | first | tojson }}", "{\"k\":1}"),
        ] {
            let text = Text::compile(source).and_then(|text| text.render(&context));
            assert_eq!(text.as_deref(), Ok(rendered), "{source}");
        }
    }

    #[test]
    fn what_is_usual_is_neither_too_much_nor_in_the_way() {
        for (source, rendered) in [
            ("{{ body.n * 100 }}", "300"),
            ("{{ 2*body.n*(body.n + 1)*2 }}", "48"),
            ("{{ (body.n | int) * 2 ~ '-' ~ body.a * 2 ~ ('!' * 2) }}", "6-xx!!"),
            ("{% if body.n*2 == 6 %}{{ body.a ~ (body.n*2) ~ body.a }}{% endif %}", "x6x"),
            ("{% set a = '' %}{% for b in body.list %}{% set a = a ~ b %}{{ a }}{% endfor %}", "1b"),
            ("{{ -body.n * -2 }} {{ body.n ** 2 * 2 }} {{ not body.n * 0 }}", "6 18 true"),
            ("{{ [1 * body.n, {'k': body.n * 2}['k']] | join('~*') }}", "3~*6"),
            ("{{ '*' ~ \"~\" ~ body.list[body.n * 0] }}", "*~1"),
            (
                "{% for a in body.list %}{% for b in body.list %}{% set k = a ~ '-' ~ b %}{% set k = k ~ (k | length) %}{{ k }} {% endfor %}{% endfor %}",
                "1-13 1-b3 b-13 b-b3 ",
            ),
            ("{% set q = body.n %}{% set q = q + q %}{% set q = q + q %}{% set q = q * q %}{{ q }}", "144"),
            ("{% for b in body.list if b * 1 == b %}{{ b }}{% endfor %}{# * ~ #}", "1b"),
        ] {
            assert_eq!(render(source), Ok(rendered.to_owned()), "{source}");
        }
        let error = render("{{ body.n * body.gone }}").expect_err("no number");
        assert!(error.range.is_some_and(|range| range.end <= 20), "places are those of what was written");
    }

    #[test]
    fn hostile_templates_are_stopped() {
        let hostile = [
            "{{ 'x' * 100000000 }}",
            "{{ body.a * 99999999 ~ body.a * 99999999 }}",
            "{% for a in range(30) %}{% for b in range(30) %}{{ 'x' * 100000 }}{% endfor %}{% endfor %}",
            "{{ range(100000) | list * 100000 }}",
            "{{ (range(9999) | join('yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') * 999) | replace('y', 'zzzzzzzz') }}",
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{{ body.a | replace('', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy') | indent(1000000000) }}",
            "{{ '%999999999d' | format(1) }}",
        ];
        for source in hostile {
            assert!(render(source).is_err(), "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_compiles_or_is_refused(source in ".{0,200}") {
            if let Ok(text) = Text::compile(&source) {
                let rendered = text.render(&context());
                if text.literal().is_some() {
                    prop_assert_eq!(rendered, Ok(source));
                }
            }
        }
    }
}
