//! Whether templates compile, and whether what they name is there.

use serde_json::Value;

use super::{Findings, below};
use crate::definition::problem::{Code, Problem};
use crate::definition::raw::variables::{self, FIELDS};
use crate::definition::schema::walk::Visit;
use crate::definition::suggest::nearest;
use crate::definition::templates::Templates;
use crate::template::{FILTERS, FUNCTIONS, Name, TESTS, TemplateError, TemplateErrorKind};

/// Places where `input` holds just what the definition's `inputs` ask for.
const INPUT_PLACES: [&str; 4] = ["address", "api-header", "credential", "sign-in"];

/// Places where the credential of the connection is seen, and what it is called there.
const CREDENTIAL_PLACES: [&str; 2] = ["api-header", "credential"];
const CREDENTIALS: [&str; 4] = ["api_key", "username", "password", "token"];

pub(super) fn check(visit: &Visit<'_>, inputs: Option<&[String]>, found: &mut Findings<'_>, templates: &Templates) {
    let Some(kind) = visit.word("x-template") else { return };
    let view = View::of(visit, inputs).with_credential(found);
    match (kind, visit.value) {
        ("tree", value) => tree(value, visit.pointer, &view, found, templates),
        ("expression", Value::String(source)) => match templates.expression(source) {
            Ok(expression) => names(expression.reads(), visit.pointer, &view, found),
            Err(_) if source.contains("{{") => braces(source, visit.pointer, found),
            Err(error) => fault(error, visit.pointer, found),
        },
        (_, Value::String(source)) => text(source, visit.pointer, &view, found, templates),
        _ => {}
    }
}

fn tree(value: &Value, pointer: &str, view: &View<'_>, found: &mut Findings<'_>, templates: &Templates) {
    match value {
        _ if found.is_full() => {}
        Value::String(source) => text(source, pointer, view, found, templates),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                tree(item, &below(pointer, &index.to_string()), view, found, templates);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                tree(item, &below(pointer, key), view, found, templates);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn text(source: &str, pointer: &str, view: &View<'_>, found: &mut Findings<'_>, templates: &Templates) {
    match templates.text(source) {
        Ok(text) => names(text.reads(), pointer, view, found),
        Err(error) => fault(error, pointer, found),
    }
}

/// An expression written like a text's slot.
fn braces(source: &str, pointer: &str, found: &mut Findings<'_>) {
    let inner = source.trim().strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    let inner = inner.filter(|inner| !inner.contains("{{")).map(str::to_owned);
    let help = if inner.is_some() { None } else { Some("Put texts and values together with `~`: 'a-' ~ body.b.") };
    let problem = found.error(Code::BadTemplate, pointer, "this is an expression: leave the braces out");
    problem.suggestion = inner;
    problem.help = help.map(str::to_owned);
}

fn fault(error: TemplateError, pointer: &str, found: &mut Findings<'_>) {
    let source = found.document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let word = error.range.clone().and_then(|range| source.get(range)).unwrap_or_default();
    let suggestion = match error.kind {
        TemplateErrorKind::UnknownFilter => {
            let known = FILTERS.iter().chain(&TESTS).chain(&FUNCTIONS).map(|known| known.name);
            nearest(word.trim_start_matches(['|', ' ']).trim_matches(['"', '\'']), known)
        }
        TemplateErrorKind::WrongArguments(named) => nearest(word, named.iter().copied()),
        _ => None,
    };
    let place = match error.range {
        Some(range) => found.document.place_within(pointer, range),
        None => found.document.place(pointer),
    };
    let message = match error.message.as_str() {
        "unexpected end of string" => "a quote in this template is never closed".to_owned(),
        _ => error.message,
    };
    found.push(Problem::error(Code::BadTemplate, place, message).suggestion(suggestion));
}

/// What templates at a place may name.
struct View<'a> {
    place: Option<&'a str>,
    names: Vec<&'static str>,
    inputs: Option<&'a [String]>,
}

impl<'a> View<'a> {
    fn of(visit: &Visit<'a>, inputs: Option<&'a [String]>) -> Self {
        let place = visit.sees;
        let own = place.map_or(&[][..], variables::of_place);
        let answer = if visit.answer { variables::ANSWER } else { &[] };
        let mut names: Vec<_> = own.iter().chain(answer).map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        Self { inputs: inputs.filter(|_| place.is_some_and(|place| INPUT_PLACES.contains(&place))), place, names }
    }
}

impl View<'_> {
    /// Without the names of credentials that connections of this definition do not have.
    fn with_credential(mut self, found: &Findings<'_>) -> Self {
        let is_of_calls = self.place.is_some_and(|place| CREDENTIAL_PLACES.contains(&place));
        let auth = found.document.value.get("auth").and_then(Value::as_object);
        let kind = auth.and_then(|auth| auth.keys().next()).filter(|_| !found.left_out.touches("/auth"));
        if let Some(kind) = kind.filter(|_| is_of_calls) {
            let own: &[&str] = match kind.as_str() {
                "api_key" => &["api_key"],
                "basic" => &["username", "password"],
                "oauth2" | "oauth1" | "login" | "jwt" => &["token"],
                _ => &[],
            };
            self.names.retain(|name| !CREDENTIALS.contains(name) || own.contains(name));
        }
        self
    }
}

fn names(reads: &[Name], pointer: &str, view: &View<'_>, found: &mut Findings<'_>) {
    if view.place.is_none() {
        return;
    }
    for name in reads {
        if found.is_full() {
            return;
        }
        let mut parts = name.path.split('.');
        let root = parts.next().unwrap_or_default();
        let place = || found.document.place_within(pointer, name.range.clone());
        if !view.names.contains(&root) {
            let problem = Problem::error(Code::UnknownVariable, place(), format!("there is no `{root}` here"))
                .suggestion(nearest(root, view.names.iter().copied()))
                .help(format!("Templates here see `{}`.", view.names.join("`, `")));
            found.push(problem);
            continue;
        }
        let Some(field) = parts.next() else { continue };
        let known: Option<Vec<&str>> = match (root, view.inputs) {
            ("input", Some(inputs)) => Some(inputs.iter().map(String::as_str).collect()),
            _ => FIELDS.iter().find(|(variable, _)| *variable == root).map(|(_, fields)| fields.to_vec()),
        };
        let Some(known) = known.filter(|known| !known.contains(&field)) else { continue };
        let message = format!("`{root}` has no `{field}`");
        let help = match (root, known.is_empty()) {
            ("input", true) => "This definition has no `inputs`: declare what each connection must tell.".to_owned(),
            ("input", false) => format!("The `inputs` of this definition are `{}`.", known.join("`, `")),
            _ => format!("It has `{}`.", known.join("`, `")),
        };
        let suggestion = nearest(field, known.iter().copied());
        found.push(Problem::error(Code::UnknownVariable, place(), message).suggestion(suggestion).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::with;
    use serde_json::json;

    #[test]
    fn unknown_variables_are_told_with_what_there_is() {
        let rule = json!({ "id": "r", "when": "*", "if": "bdy.x", "do": [{ "deliver": "app", "json": { "a": ["{{ evnt.id }}"] } }] });
        assert_eq!(
            with(&json!({ "rules": [rule] })),
            [
                "unknown-variable /rules/0/if: there is no `bdy` here",
                "unknown-variable /rules/0/do/0/json/a/0: there is no `evnt` here",
            ]
        );
    }

    #[test]
    fn fields_of_known_variables_are_checked() {
        let rule = json!({ "id": "r", "when": "*", "do": [{ "log": "{{ event.typ }} {{ body.anything.at.all }}" }] });
        assert_eq!(with(&json!({ "rules": [rule] })), ["unknown-variable /rules/0/do/0/log: `event` has no `typ`"]);
    }

    #[test]
    fn a_credential_is_of_the_definitions_own_kind() {
        let told = |auth: serde_json::Value, name: &str| {
            let api = json!({ "base_url": "https://a.example.com", "headers": { "X-A": format!("{{{{ {name} }}}}") } });
            with(&json!({ "auth": auth, "api": api }))
        };
        let refused = |name: &str| vec![format!("unknown-variable /api/headers/X-A: there is no `{name}` here")];
        assert_eq!(told(json!({ "none": {} }), "api_key"), refused("api_key"));
        assert_eq!(told(json!({ "basic": {} }), "token.access"), refused("token"));
        assert_eq!(told(json!({ "basic": {} }), "username"), Vec::<String>::new());
    }

    #[test]
    fn inputs_are_those_the_definition_asks_for() {
        let api = json!({ "base_url": "https://{{ input.hots }}.example.com", "hosts": ["*.example.com"] });
        let inputs = json!({ "host": { "pattern": "^[a-z]+$" } });
        assert_eq!(
            with(&json!({ "inputs": inputs, "api": api })),
            ["unknown-variable /api/base_url: `input` has no `hots`"]
        );
    }

    #[test]
    fn an_answer_is_seen_only_by_what_reads_it() {
        let endpoint = json!({ "id": "e", "request": "GET /{{ body.x }}", "ok": "body.x", "result": "{{ status }}" });
        let api = json!({ "base_url": "https://a.example", "endpoints": [endpoint] });
        assert_eq!(
            with(&json!({ "api": api })),
            ["unknown-variable /api/endpoints/0/request: there is no `body` here"]
        );
    }

    #[test]
    fn names_that_a_template_makes_itself_are_its_own() {
        let log = "{% for item in body.list %}{{ item.name }}{% endfor %}{% set x = 1 %}{{ x }}";
        let rule = json!({ "id": "r", "when": "*", "do": [{ "log": log }] });
        assert_eq!(with(&json!({ "rules": [rule] })), [""; 0]);
    }

    #[test]
    fn what_does_not_compile_is_told() {
        let rule = json!({ "id": "r", "when": "*", "if": "body.a ==", "do": [{ "log": "{{ body.a | uper }}" }] });
        let told = with(&json!({ "rules": [rule] }));
        assert!(
            told.iter().all(|problem| problem.starts_with("bad-template /rules/0/")) && told.len() == 2,
            "{told:?}"
        );
    }
}
