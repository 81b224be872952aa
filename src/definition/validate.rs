//! The JSON Schema's verdict on a document, as located problems in words a person can act on.
//!
//! The schema is compiled once. A fault inside a choice is told for the kind that was chosen, never as
//! "not valid under any of the given schemas". No value that is secret, or may be, is quoted.

use std::collections::HashSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::document::{Document, Spot, push_token};
use super::problem::{Code, MOST_OF_FILE, Problem};
use super::render::redact::is_name;
use super::shape::{Shape, View, type_of};
use super::suggest::nearest;

/// A schema ready to judge documents.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    shape: Shape,
}

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// When it is not a JSON Schema; never for the generated ones.
    pub fn new(schema: &Value) -> Result<Self, Box<ValidationError<'static>>> {
        let validator = jsonschema::draft202012::options().build(schema).map_err(Box::new)?;
        Ok(Self { validator, shape: Shape::new(schema) })
    }

    /// What it says of each place.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Every fault of a document, save those that follow from faults told already.
    pub fn judge(&self, document: &Document) -> Vec<Problem> {
        if self.validator.is_valid(&document.value) {
            return Vec::new();
        }
        let mut judge = Judge { document, shape: &self.shape, problems: Vec::new(), told: HashSet::new() };
        for error in self.validator.iter_errors(&document.value) {
            // One more than are listed tells that there are more.
            if judge.problems.len() > MOST_OF_FILE {
                break;
            }
            judge.tell(&error);
        }
        judge.without_consequences()
    }
}

struct Judge<'a> {
    document: &'a Document,
    shape: &'a Shape,
    problems: Vec<Problem>,
    /// Place, code and words of each of them.
    told: HashSet<(String, Code, String)>,
}

impl<'a> Judge<'a> {
    fn tell(&mut self, error: &ValidationError<'_>) {
        use ValidationErrorKind as Kind;
        let pointer = error.instance_path().as_str();
        let Some(value) = self.document.value.pointer(pointer) else { return };
        if self.is_known_faulty(pointer) {
            return;
        }
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                for name in unexpected.iter().take(MOST_OF_FILE + 1) {
                    self.unknown_field(pointer, value, name);
                }
            }
            Kind::Required { property } => self.missing(pointer, value, property.as_str().unwrap_or_default()),
            Kind::Type { kind } => self.wrong_type(pointer, value, &type_names(kind)),
            Kind::MinProperties { .. } if self.view(pointer, value).is_choice() => self.no_choice(pointer, value),
            Kind::MaxProperties { .. } if self.view(pointer, value).is_choice() => self.two_kinds(pointer, value),
            Kind::Enum { .. } | Kind::Constant { .. } => self.unknown_value(pointer, value),
            Kind::PropertyNames { error } => self.bad_name(pointer, error),
            Kind::MinLength { .. } if value.as_str() == Some("") => {
                self.push(Problem::error(Code::BadFormat, self.document.place(pointer), "the text is empty"), pointer);
            }
            Kind::Pattern { .. } | Kind::Format { .. } | Kind::MinLength { .. } | Kind::MaxLength { .. } => {
                self.bad_format(pointer, value, error);
            }
            other => self.out_of_range(pointer, value, other),
        }
    }

    fn unknown_field(&mut self, pointer: &str, map: &Value, name: &str) {
        let view = self.view(pointer, map);
        let names = view.field_names();
        let at = child(pointer, name);
        let owner = owner(pointer);
        let what = if view.is_choice() { "kind" } else { "field" };
        let shown = if is_name(name) { format!("`{name}`") } else { "this name".to_owned() };
        let message = format!("{shown} is not a {what} of {owner}");
        let mut problem = Problem::error(Code::UnknownField, self.document.key_place(&at), message)
            .suggestion(nearest(name, names.iter().copied()));
        if problem.suggestion.is_none() {
            // Looking around takes as long as the file is large: of a file that is something else it tells nothing.
            let few = self.problems.len() < LOOKED_AROUND;
            let elsewhere = of_the_gateway(pointer, name).or_else(|| few.then(|| self.misplaced(pointer, name))?);
            problem.help = elsewhere.or_else(|| listed("There are", &names));
        }
        self.push(problem, &at);
    }

    /// Where a field that is unknown here is known: in a block around this one or right below it.
    fn misplaced(&self, pointer: &str, name: &str) -> Option<String> {
        let has = |at: &str| {
            let value = self.document.value.pointer(at)?;
            self.view(at, value).field_names().contains(&name).then(|| at.to_owned())
        };
        let ancestors = std::iter::successors(Some(pointer), |at| at.rsplit_once('/').map(|(parent, _)| parent));
        let blocks = self.document.value.pointer(pointer)?.as_object()?.iter().filter(|(_, value)| value.is_object());
        let below = blocks.take(LOOKED_AROUND).map(|(key, _)| child(pointer, key));
        let found =
            ancestors.skip(1).find_map(has).or_else(|| below.collect::<Vec<_>>().iter().find_map(|at| has(at)))?;
        Some(format!("`{name}` is a field of {}: check the indentation.", owner(&found)))
    }

    fn missing(&mut self, pointer: &str, map: &Value, name: &str) {
        let view = self.view(pointer, map);
        let place = self.document.key_place(pointer);
        let mut problem = Problem::error(Code::MissingField, place, format!("{} has no `{name}`", owner(pointer)));
        problem.label = Some(format!("expected `{name}` in here"));
        problem.help = view.field_description(name).map(|words| format!("`{name}`: {}", one_line(words)));
        self.push(problem, pointer);
    }

    fn no_choice(&mut self, pointer: &str, map: &Value) {
        let message = format!("{} names no kind", owner(pointer));
        let problem = Problem::error(Code::MissingField, self.document.key_place(pointer), message);
        let help = listed("Choose one of", &self.view(pointer, map).choices());
        self.push(Problem { help, ..problem }, pointer);
    }

    /// A choice with more than one key. Keys that are no kind are told as unknown fields.
    fn two_kinds(&mut self, pointer: &str, map: &Value) {
        let choices = self.view(pointer, map).choices();
        let keys = map.as_object().into_iter().flat_map(serde_json::Map::keys);
        let known: Vec<&String> = keys.filter(|key| choices.contains(&key.as_str())).collect();
        let Some((first, more)) = known.split_first() else { return };
        for second in more {
            let at = child(pointer, second);
            let message = format!("{} has two kinds, `{first}` and `{second}`", owner(pointer));
            let problem = Problem::error(Code::Conflict, self.document.key_place(&at), message);
            self.push(problem.help("Keep one of them."), &at);
        }
    }

    fn wrong_type(&mut self, pointer: &str, value: &Value, types: &[&str]) {
        let text = Value::String(String::new());
        let marked = Some(self.view(pointer, &text)).filter(|_| types == ["string"]).and_then(|view| view.expected());
        let plain = types.iter().filter(|kind| **kind != "null").map(|kind| words(kind));
        let expected = marked.map_or_else(|| joined(plain, "or"), str::to_owned);
        if value.is_null() {
            let message = format!("{} has no value", owner(pointer));
            let problem = Problem::error(Code::WrongType, self.document.key_place(pointer), message);
            return self.push(problem.label(format!("expected {expected}")), pointer);
        }
        let found = words(type_of(value));
        let message = format!("{} is {found}, not {expected}", owner(pointer));
        let problem = Problem::error(Code::WrongType, self.document.place(pointer), message);
        let mut problem = problem.label(format!("expected {expected}"));
        problem.help = if marked.is_some() { None } else { self.type_help(pointer, value, types) };
        self.push(problem, pointer);
    }

    fn type_help(&self, pointer: &str, value: &Value, types: &[&str]) -> Option<String> {
        let expects = |kind: &str| types.contains(&kind);
        match value {
            Value::String(_) if self.document.written(pointer).is_some() && !expects("string") => {
                Some("A reference gives text; this place cannot take one.".to_owned())
            }
            Value::String(text) if expects("boolean") && scalar_is_old_boolean(text) => {
                Some("Write `true` or `false`: in YAML 1.2 other words are text.".to_owned())
            }
            Value::String(text) if (expects("integer") || expects("number")) && text.parse::<f64>().is_ok() => {
                Some("Remove the quotes.".to_owned())
            }
            Value::Number(_) | Value::Bool(_) if expects("string") && self.is_secret(pointer, value) => None,
            Value::Number(_) | Value::Bool(_) if expects("string") => Some(format!("Quote it: \"{value}\".")),
            Value::String(text) if expects("object") => self.long_form(pointer, text),
            Value::String(_) | Value::Object(_) if expects("array") => Some("Write it as a list: `[…]`.".to_owned()),
            _ => None,
        }
    }

    /// How a text that stands where a map is needed would be written: a kind as a key, a header as a field.
    fn long_form(&self, pointer: &str, text: &str) -> Option<String> {
        let view = self.view(pointer, &Value::Object(serde_json::Map::new()));
        let field = pointer.rsplit('/').next().unwrap_or_default();
        if view.is_choice() {
            let kind = view.choices().into_iter().find(|kind| *kind == text)?;
            let fields = match kind {
                "oauth2" => "{ authorize: https://…, token: https://…, client: { id: …, secret: … } }",
                "api_key" | "basic" | "none" => "{}",
                _ => "{ … }",
            };
            return Some(format!(
                "The kind is a key, and its fields stand below it: `{field}: {{ {kind}: {fields} }}`."
            ));
        }
        if view.field_names().contains(&"header") && !self.is_secret(pointer, &Value::String(text.to_owned())) {
            return Some(format!("Say what it is the name of: `{field}: {{ header: {text} }}`."));
        }
        listed("It is a map with", &view.field_names())
    }

    fn unknown_value(&mut self, pointer: &str, value: &Value) {
        if let Some(only) = self.view(pointer, value).only() {
            return self.other_than(pointer, value, only);
        }
        let view = self.view(pointer, value);
        let options: Vec<&str> = view.options().into_iter().filter_map(Value::as_str).collect();
        let Some(text) = value.as_str() else {
            let known = self.view(pointer, &Value::String(String::new()));
            let options: Vec<&str> = known.options().into_iter().filter_map(Value::as_str).collect();
            let message = format!("{} is {}, not a known word", owner(pointer), words(type_of(value)));
            let problem = Problem::error(Code::UnknownValue, self.document.place(pointer), message);
            let quoted = options.contains(&value.to_string().as_str()).then(|| format!("Quote it: \"{value}\"."));
            let help = quoted.or_else(|| listed("Known are", &options));
            return self.push(Problem { help, ..problem }, pointer);
        };
        let message = match self.quoted(pointer, text) {
            Some(text) => format!("{text} is not a value of {}", owner(pointer)),
            None => format!("{} has a value that is not known", owner(pointer)),
        };
        let problem = Problem::error(Code::UnknownValue, self.document.place(pointer), message);
        let suggestion = nearest(text, options.iter().copied()).filter(|_| !self.is_secret(pointer, value));
        self.push(Problem { help: listed("Known are", &options), suggestion, ..problem }, pointer);
    }

    /// A value at a place that has just one.
    fn other_than(&mut self, pointer: &str, value: &Value, only: &Value) {
        let quoted = value.as_str() == Some(only.to_string().as_str());
        let message = match value {
            Value::Number(number) => format!("{} is {number}, and only {only} is known", owner(pointer)),
            _ => format!("{} is {}, not the number {only}", owner(pointer), words(type_of(value))),
        };
        let mut problem = Problem::error(Code::UnknownValue, self.document.place(pointer), message);
        problem.help = Some(if quoted { "Remove the quotes.".to_owned() } else { format!("Write {only}.") });
        self.push(problem, pointer);
    }

    fn bad_format(&mut self, pointer: &str, value: &Value, error: &ValidationError<'_>) {
        let view = self.view(pointer, value);
        let expected = view.expected().map(str::to_owned).or_else(|| match error.kind() {
            ValidationErrorKind::Pattern { pattern } => Some(format!("a text that matches {pattern}")),
            ValidationErrorKind::Format { format } => Some(format!("a text of the form `{format}`")),
            ValidationErrorKind::MinLength { limit } => Some(format!("at least {limit} characters")),
            ValidationErrorKind::MaxLength { limit } => Some(format!("at most {limit} characters")),
            _ => None,
        });
        let text = value.as_str().and_then(|text| self.quoted(pointer, text));
        let expected = expected.unwrap_or_else(|| "another form".to_owned());
        let message = match text {
            Some(text) => format!("{text} is not {expected}"),
            None => format!("{} is not {expected}", owner(pointer)),
        };
        let problem = Problem::error(Code::BadFormat, self.document.place(pointer), message);
        self.push(problem, pointer);
    }

    fn bad_name(&mut self, pointer: &str, error: &ValidationError<'_>) {
        let Some(name) = error.instance().as_str() else { return };
        let expected = match error.kind() {
            ValidationErrorKind::Pattern { pattern } => format!("expected a name that matches {pattern}"),
            _ => "expected another name".to_owned(),
        };
        let at = child(pointer, name);
        let message = format!("`{name}` cannot be a name in {}", owner(pointer));
        let problem = Problem::error(Code::BadFormat, self.document.key_place(&at), message);
        self.push(problem.label(expected), &at);
    }

    fn out_of_range(&mut self, pointer: &str, value: &Value, kind: &ValidationErrorKind) {
        use ValidationErrorKind as Kind;
        let expected = match kind {
            Kind::Minimum { limit } => format!("at least {limit}"),
            Kind::Maximum { limit } => format!("at most {limit}"),
            Kind::ExclusiveMinimum { limit } => format!("more than {limit}"),
            Kind::ExclusiveMaximum { limit } => format!("less than {limit}"),
            Kind::MinItems { limit } => format!("at least {}", counted(*limit, "item")),
            Kind::MaxItems { limit } => format!("at most {}", counted(*limit, "item")),
            Kind::MinProperties { limit } => format!("at least {}", counted(*limit, "entry")),
            Kind::MaxProperties { limit } => format!("at most {}", counted(*limit, "entry")),
            Kind::UniqueItems => "each item once".to_owned(),
            Kind::FalseSchema => "nothing here".to_owned(),
            Kind::OneOfMultipleValid { .. } => "one kind only".to_owned(),
            _ => "another value".to_owned(),
        };
        let message = match value {
            Value::Number(number) if !self.is_secret(pointer, value) => {
                format!("{} is {number}, not {expected}", owner(pointer))
            }
            _ => format!("{} must have {expected}", owner(pointer)),
        };
        let problem = Problem::error(Code::OutOfRange, self.document.place(pointer), message);
        self.push(problem.label(format!("expected {expected}")), pointer);
    }

    fn view(&self, pointer: &str, like: &Value) -> View<'a> {
        match pointer.rsplit_once('/') {
            Some((parent, token)) => {
                let token = token.replace("~1", "/").replace("~0", "~");
                let above = self.shape.at(&self.document.value, parent);
                match self.document.value.pointer(parent) {
                    Some(Value::Array(_)) => above.item(like),
                    _ => above.field(&token, like),
                }
            }
            None => self.shape.root(like),
        }
    }

    /// Whether a value at a place is secret, or stands where a secret or a list of them is expected.
    fn is_secret(&self, pointer: &str, value: &Value) -> bool {
        let as_list = Value::Array(Vec::new());
        let text = Value::String(String::new());
        self.document.written(pointer).is_some()
            || self.view(pointer, value).is_secret()
            || self.view(pointer, &text).is_secret()
            || self.view(pointer, &as_list).item(&text).is_secret()
    }

    /// A value in backquotes, shortened; `None` when it may be secret.
    fn quoted(&self, pointer: &str, text: &str) -> Option<String> {
        if self.is_secret(pointer, &Value::String(text.to_owned())) {
            return None;
        }
        let short: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Some(if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") })
    }

    /// Whether a fault of this very value was told when it was read.
    fn is_known_faulty(&self, pointer: &str) -> bool {
        let mut at: &Spot = &self.document.places;
        for token in pointer.split('/').skip(1) {
            match at.child(&token.replace("~1", "/").replace("~0", "~")) {
                Some(child) => at = child,
                None => return false,
            }
            if at.faulty {
                return true;
            }
        }
        at.faulty
    }

    /// What is wrong, without what only follows: a value of the wrong type is no known word either.
    fn without_consequences(self) -> Vec<Problem> {
        let mistyped: HashSet<String> = self
            .problems
            .iter()
            .filter(|problem| problem.code == Code::WrongType)
            .map(|problem| problem.place.pointer.clone())
            .collect();
        let follows = |problem: &Problem| problem.code != Code::WrongType && mistyped.contains(&problem.place.pointer);
        self.problems.into_iter().filter(|problem| !follows(problem)).collect()
    }

    fn push(&mut self, mut problem: Problem, pointer: &str) {
        pointer.clone_into(&mut problem.place.pointer);
        if self.told.insert((pointer.to_owned(), problem.code, problem.message.clone())) {
            self.problems.push(problem);
        }
    }
}

fn type_names(kind: &TypeKind) -> Vec<&'static str> {
    match kind {
        TypeKind::Single(one) => vec![name_of(one.as_str())],
        TypeKind::Multiple(set) => set.iter().map(|one| name_of(one.as_str())).collect(),
    }
}

fn name_of(name: &str) -> &'static str {
    ["array", "boolean", "integer", "null", "number", "object", "string"]
        .into_iter()
        .find(|known| *known == name)
        .unwrap_or("value")
}

/// A JSON type in the words of the manual.
fn words(kind: &str) -> &'static str {
    match kind {
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "null" => "nothing",
        "number" => "a number",
        "object" => "a map",
        "string" => "text",
        _ => "a value",
    }
}

fn scalar_is_old_boolean(text: &str) -> bool {
    matches!(text.to_ascii_lowercase().as_str(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false")
}

/// What a person calls the value at a pointer.
fn owner(pointer: &str) -> String {
    let mut tokens = pointer.rsplit('/').take_while(|token| !token.is_empty());
    let name = |token: &str| token.replace("~1", "/").replace("~0", "~");
    match tokens.next() {
        None => "the file".to_owned(),
        Some(place) if place.bytes().all(|byte| byte.is_ascii_digit()) => match tokens.next() {
            Some(list) => format!("item {} of `{}`", place.parse::<usize>().unwrap_or_default() + 1, name(list)),
            None => format!("item {place}"),
        },
        Some(field) => format!("`{}`", name(field)),
    }
}

fn child(pointer: &str, key: &str) -> String {
    let mut at = pointer.to_owned();
    push_token(&mut at, key);
    at
}

/// For how many faults of a file is told whether a field is known elsewhere in it, and in how many blocks is looked.
const LOOKED_AROUND: usize = 50;

/// What to say of a field that only a gateway's settings have, in a file that is not read as such.
fn of_the_gateway(pointer: &str, name: &str) -> Option<String> {
    let is_setting = ["listen", "mode", "public_url", "state", "destinations", "callers"].contains(&name);
    (pointer.is_empty() && is_setting).then(|| {
        format!("`{name}` is one of the gateway's settings, which are looked for in a file called `trunkline.yaml`.")
    })
}

fn listed(intro: &str, names: &[&str]) -> Option<String> {
    let quoted = names.iter().take(24).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 24 { ", …" } else { "" };
    (!names.is_empty()).then(|| format!("{intro} {quoted}{more}."))
}

fn joined<'a>(words: impl Iterator<Item = &'a str>, last: &str) -> String {
    let mut words: Vec<&str> = words.collect();
    words.dedup();
    match words.split_last() {
        Some((only, [])) => (*only).to_owned(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => "another value".to_owned(),
    }
}

fn counted(count: u64, noun: &str) -> String {
    match (count, noun) {
        (1, noun) => format!("one {noun}"),
        (count, "entry") => format!("{count} entries"),
        (count, noun) => format!("{count} {noun}s"),
    }
}

/// The first sentence of the manual's words.
fn one_line(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = joined.find(". ").map_or(joined.len(), |end| end + 1);
    joined.get(..end).unwrap_or(&joined).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::tree::parse;
    use serde_json::json;
    use std::path::PathBuf;
    use std::sync::Arc;

    fn schema() -> Schema {
        let hmac = json!({
            "type": "object", "additionalProperties": false, "required": ["algorithm"],
            "properties": {
                "algorithm": { "enum": ["sha1", "sha256"], "description": "The digest. More words." },
                "tolerance": { "type": "string", "pattern": "^[0-9]+m$", "x-expected": "a duration" },
            },
        });
        Schema::new(&json!({
            "type": "object", "additionalProperties": false, "required": ["id"],
            "properties": {
                "id": { "type": "string" },
                "on": { "type": "boolean" },
                "verify": {
                    "type": "object", "x-choice": true, "minProperties": 1, "maxProperties": 1,
                    "properties": { "hmac": hmac, "token": { "type": "object" } }, "additionalProperties": false,
                },
                "secrets": { "type": "array", "items": { "type": "string", "x-secret": "yes" } },
                "attempts": { "type": "integer", "minimum": 1 },
                "short": {
                    "type": ["string", "object"], "properties": { "url": { "type": "string" } }, "required": ["url"],
                },
            },
        }))
        .expect("a schema")
    }

    fn told(text: &str) -> Vec<String> {
        let document = parse(&Arc::new(PathBuf::from("a.yaml")), text).document.expect("a document");
        let tell = |p: &Problem| {
            let more = p.suggestion.as_ref().map(|s| format!(" ({s}?)")).unwrap_or_default();
            format!("{} {} {}{more}", p.place.span.start, p.code, p.message)
        };
        schema().judge(&document).iter().map(tell).collect()
    }

    #[test]
    fn faults_are_told_in_words_at_their_place() {
        for (text, expected) in [
            ("id: a\nsecret: [b]", "2:1 unknown-field `secret` is not a field of the file (secrets?)"),
            ("on: true", "1:1 missing-field the file has no `id`"),
            ("id: 5", "1:5 wrong-type `id` is a whole number, not text"),
            ("id: a\non: yes", "2:5 wrong-type `on` is text, not true or false"),
            ("id: a\nattempts: 0", "2:11 out-of-range `attempts` is 0, not at least 1"),
            ("id: a\nverify:", "2:1 wrong-type `verify` has no value"),
            ("id: a\nshort: 5", "2:8 wrong-type `short` is a whole number, not text or a map"),
            ("id: a\nshort: { ulr: x }", "2:1 missing-field `short` has no `url`"),
        ] {
            assert_eq!(told(text).first().map(String::as_str), Some(expected), "{text}");
        }
    }

    #[test]
    fn settings_of_the_gateway_are_told_where_they_belong() {
        let document = parse(&Arc::new(PathBuf::from("a.yaml")), "id: a\nlisten: { proxy: x }").document.expect("one");
        let told = schema().judge(&document);
        let help = told.first().and_then(|problem| problem.help.as_deref()).unwrap_or_default();
        assert!(help.contains("`trunkline.yaml`"), "{help}");
    }

    #[test]
    fn faults_inside_a_choice_are_those_of_the_kind_chosen() {
        for (text, expected) in [
            ("{ hmac: { algorithm: sha265 } }", "2:22 unknown-value `sha265` is not a value of `algorithm` (sha256?)"),
            ("{ hmac: {} }", "2:11 missing-field `hmac` has no `algorithm`"),
            ("{ hmca: {} }", "2:11 unknown-field `hmca` is not a kind of `verify` (hmac?)"),
            ("{}", "2:1 missing-field `verify` names no kind"),
            ("{ hmac: { algorithm: sha1 }, token: {} }", "2:38 conflict `verify` has two kinds, `hmac` and `token`"),
            (
                "{ hmac: { algorithm: sha1, tolerance: 5 } }",
                "2:47 wrong-type `tolerance` is a whole number, not a duration",
            ),
            ("{ hmac: { algorithm: sha1, tolerance: 5s } }", "2:47 bad-format `5s` is not a duration"),
        ] {
            let expected = expected.replacen("2:22", "2:30", 1);
            assert_eq!(told(&format!("id: a\nverify: {text}")), [expected], "{text}");
        }
    }

    #[test]
    fn a_secret_in_the_wrong_form_is_not_quoted() {
        let problems = told("id: a\nsecrets: sk_live_abcdefgh\n").concat();
        assert!(problems.contains("`secrets` is text, not a list") && !problems.contains("sk_live"), "{problems}");
    }
}
