//! References to values, once, after parsing and merging.
//!
//! What a reference brings in is data: it is never read for references again, and where the place is a
//! template its braces are written so that the template prints them as they are. A secret left in
//! clear in a file is found here too, because only here is it known what was written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::environment::{Environment, SecretFault, VariableError};
use super::reference::{Part, Reference, has_dollar_form, parts, says_itself};
use super::trouble::{Trouble, broken, missing_file, missing_secret, missing_variable};
use super::visit::{Visited, visit};
use crate::definition::document::{Below, Document, Spot};
use crate::definition::problem::{Code, MOST_OF_FILE, Place, Problem};
use crate::definition::shape::{Shape, TemplateKind};

/// Something outside a file that its meaning depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    /// Where it is.
    pub source: Source,
    /// SHA-256 of what it held; `None` when it held nothing.
    digest: Option<[u8; 32]>,
}

/// Where a reference points.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// An environment variable.
    Env(String),
    /// A file.
    File(PathBuf),
    /// A field of a secret in the secret store: its path and its name.
    Secret(String, String),
}

impl Dependency {
    fn new(source: Source, value: Option<&str>) -> Self {
        Self { source, digest: value.map(|value| Sha256::digest(value).into()) }
    }

    /// Stands for what it held; all zero when it held nothing.
    pub fn digest(&self) -> [u8; 32] {
        self.digest.unwrap_or_default()
    }

    /// Whether it still holds what it held.
    pub fn is_current(&self, environment: &dyn Environment) -> bool {
        let value = match &self.source {
            Source::Env(name) => environment.variable(name).ok(),
            Source::File(path) => environment.file(path).ok(),
            Source::Secret(path, field) => environment.secret(path, field).ok(),
        };
        Self::new(self.source.clone(), value.as_deref()).digest == self.digest
    }
}

/// What expanding a document found.
#[derive(Debug, Default)]
pub struct Expanded {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What the document depends on.
    pub dependencies: Vec<Dependency>,
    /// Where values stand that may be secrets written out: in no excerpt are they shown.
    pub hidden: Vec<Place>,
}

/// Expands the references of a document in place. Those at the pointers of `later` stay as they are.
pub fn expand(document: &mut Document, shape: &Shape, later: &[&str], environment: &dyn Environment) -> Expanded {
    let (mut found, mut hidden, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let view = shape.root(&document.value);
    visit(&document.value, &view, &mut |visited| {
        if visited.is_hidden() {
            hidden.push(document.stretch(visited.pointer));
        }
        if visited.is_credential_header() {
            written.push(visited.pointer.to_owned());
        }
        found.extend(Candidate::of(visited));
    });
    found.retain(|text| !later.contains(&text.pointer.as_str()) || !has_reference(document, &text.pointer));
    let mut expanded = Expanded { hidden, ..Expanded::default() };
    for pointer in written {
        if expanded.problems.len() <= MOST_OF_FILE {
            expanded.problems.push(literal_secret(document, &pointer));
        }
        mark_faulty(document, &pointer);
    }
    for text in found {
        // All of these are errors: of so many the rest is left as it is, and not told.
        if expanded.problems.len() > MOST_OF_FILE {
            mark_faulty(document, &text.pointer);
        } else {
            one(document, &text, environment, &mut expanded);
        }
    }
    expanded
}

/// A text that needs a look, and what its place is for.
struct Candidate {
    pointer: String,
    secret: bool,
    template: Option<TemplateKind>,
}

impl Candidate {
    fn of(visited: &Visited<'_>) -> Option<Self> {
        let text = visited.value.as_str()?;
        let secret = visited.view.is_secret();
        let template = visited.view.template();
        (secret || has_dollar_form(text)).then(|| Self { pointer: visited.pointer.to_owned(), secret, template })
    }
}

fn one(document: &mut Document, at: &Candidate, environment: &dyn Environment, expanded: &mut Expanded) {
    let Some(text) = document.value.pointer(&at.pointer).and_then(Value::as_str).map(str::to_owned) else { return };
    let parts = parts(&text);
    let is_reference = |part: &Part<'_>| matches!(part, Part::Reference(..) | Part::Broken(..));
    let is_broken = |part: &Part<'_>| matches!(part, Part::Broken(..));
    let is_literal = !parts.iter().any(is_reference) || (says_itself(&text) && !parts.iter().any(is_broken));
    if at.secret && is_literal {
        expanded.problems.push(literal_secret(document, &at.pointer));
        return mark_faulty(document, &at.pointer);
    }
    let (mut result, mut referenced, mut faulty) = (String::with_capacity(text.len()), false, false);
    for part in &parts {
        match part {
            Part::Text(text) => result.push_str(text),
            Part::Dollar => result.push('$'),
            Part::Broken(fault, range) => {
                let place = document.place_within(&at.pointer, range.clone());
                expanded.problems.push(broken(fault, environment).at(place));
                faulty = true;
            }
            Part::Reference(reference, range) => {
                referenced = true;
                let file = document.place(&at.pointer).file;
                let value = refuse_inside_expression(at, &text, range.start)
                    .and_then(|()| refuse_in_its_own_settings(at, *reference))
                    .and_then(|()| look_up(*reference, &file, environment, &mut expanded.dependencies));
                let value = value.map_err(|fault| if at.secret { fault.without_default() } else { fault });
                match value {
                    Ok(value) if at.template == Some(TemplateKind::Text) => push_as_data(&value, &mut result),
                    Ok(value) => result.push_str(&value),
                    Err(fault) => {
                        expanded.problems.push(fault.at(document.place_within(&at.pointer, range.clone())));
                        faulty = true;
                    }
                }
            }
        }
    }
    if faulty {
        return mark_faulty(document, &at.pointer);
    }
    if let Some(value) = document.value.pointer_mut(&at.pointer) {
        *value = Value::String(result);
    }
    if let Some(spot) = spot_mut(&mut document.places, &at.pointer) {
        spot.verbatim = None;
        spot.written = referenced.then(|| text.into());
    }
}

fn has_reference(document: &Document, pointer: &str) -> bool {
    document.value.pointer(pointer).and_then(Value::as_str).is_some_and(|text| text.contains("${"))
}

/// Writes a value into a template so that the template prints it as it is.
fn push_as_data(value: &str, out: &mut String) {
    for character in value.chars() {
        match character {
            '{' => out.push_str("{{ '{' }}"),
            other => out.push(other),
        }
    }
}

/// A reference inside an expression would become program text.
fn refuse_inside_expression(at: &Candidate, text: &str, start: usize) -> Result<(), Trouble> {
    let before = text.get(..start).unwrap_or_default();
    let open = |from: &str, to: &str| before.rfind(from).is_some_and(|at| before.rfind(to).is_none_or(|end| end < at));
    let (message, help) = match at.template {
        Some(TemplateKind::Expression) => (
            "a reference cannot stand in an expression",
            "Its value would become part of the program; compare with a value of the request instead.",
        ),
        Some(TemplateKind::Text) if open("{{", "}}") || open("{%", "%}") => (
            "a reference cannot stand inside `{{ … }}`",
            "Put it outside the braces: the text around them may hold it.",
        ),
        _ => return Ok(()),
    };
    Err(Trouble::new(Code::BadFormat, message.to_owned()).help(help))
}

fn look_up(
    reference: Reference<'_>,
    file: &Path,
    environment: &dyn Environment,
    dependencies: &mut Vec<Dependency>,
) -> Result<String, Trouble> {
    match reference {
        Reference::Env(name, default) => {
            let value = environment.variable(name);
            dependencies.push(Dependency::new(Source::Env(name.to_owned()), value.as_deref().ok()));
            match (value, default) {
                (Ok(value), _) if !value.is_empty() => Ok(value),
                (Ok(_) | Err(VariableError::Missing | VariableError::NotUtf8), Some(default)) => Ok(default.to_owned()),
                (value, _) => Err(missing_variable(name, &value, environment)),
            }
        }
        Reference::File(name) => {
            let path = file.parent().unwrap_or(Path::new("")).join(name);
            let value = environment.file(&path);
            dependencies.push(Dependency::new(Source::File(path), value.as_deref().ok()));
            value.map_err(|fault| missing_file(name, &fault))
        }
        Reference::Vault(path, field) => {
            let value = environment.secret(path, field).and_then(|value| match value.as_str() {
                "" => Err(SecretFault::NotText),
                _ => Ok(value),
            });
            dependencies
                .push(Dependency::new(Source::Secret(path.to_owned(), field.to_owned()), value.as_deref().ok()));
            value.map_err(|fault| missing_secret(path, field, &fault))
        }
    }
}

/// The settings of the secret store are needed before it can be asked.
fn refuse_in_its_own_settings(at: &Candidate, reference: Reference<'_>) -> Result<(), Trouble> {
    if !matches!(reference, Reference::Vault(..)) || !at.pointer.starts_with("/secrets/") {
        return Ok(());
    }
    let message = "a setting under `secrets` cannot come from the secret store".to_owned();
    let help = "It is needed before the store can be asked: use `${env:NAME}` or `${file:PATH}`.";
    Err(Trouble::new(Code::BadFormat, message).help(help))
}

fn literal_secret(document: &Document, pointer: &str) -> Problem {
    let problem = Problem::error(Code::LiteralSecret, document.place(pointer), "a secret is written out in the file");
    let help = "Replace it by `${env:NAME}`, `${file:PATH}` or `${vault:PATH#FIELD}`, and treat the one written here as known to others.";
    problem.label("not shown").help(help)
}

fn mark_faulty(document: &mut Document, pointer: &str) {
    if let Some(spot) = spot_mut(&mut document.places, pointer) {
        spot.faulty = true;
    }
}

/// The spot at a pointer, made this document's own.
fn spot_mut<'a>(root: &'a mut Arc<Spot>, pointer: &str) -> Option<&'a mut Spot> {
    let mut at = Arc::make_mut(root);
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let child = match &mut at.below {
            Below::Nothing => return None,
            Below::List(items) => items.get_mut(token.parse::<usize>().ok()?)?,
            Below::Map(entries) => entries.get_mut(token.as_str())?,
        };
        at = Arc::make_mut(child);
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::load::tree::parse;
    use crate::template::{Context, Text};
    use proptest::prelude::*;
    use serde_json::json;
    use std::collections::HashMap;

    fn shape() -> Shape {
        Shape::new(&json!({ "properties": {
            "plain": { "type": "string" },
            "text": { "type": "string", "x-template": "text" },
            "if": { "type": "string", "x-template": "expression" },
            "json": true,
            "secret": { "type": "string", "x-secret": "yes" },
            "key": { "type": "string", "x-secret": "yes" },
        }}))
    }

    fn run(text: &str, variables: &[(&str, &str)]) -> (Document, Expanded) {
        let mut document = parse(&Arc::new(PathBuf::from("a.yaml")), text).document.expect("a document");
        let environment: HashMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let expanded = expand(&mut document, &shape(), &["/key"], &environment);
        (document, expanded)
    }

    fn told(text: &str) -> Vec<String> {
        let tell = |p: &Problem| format!("{} {} {}", p.place.span.start, p.code, p.message);
        run(text, &[("GITHUB_TOKEN", "t"), ("EMPTY", "")]).1.problems.iter().map(tell).collect()
    }

    #[test]
    fn references_expand_once() {
        let text = "plain: a${env:A}b$$c${env:GONE:-d}\nsecret: ${env:A}\nkey: ${file:./later}\n";
        let (document, expanded) = run(text, &[("A", "${env:B}")]);
        assert_eq!(expanded.problems, []);
        assert_eq!(document.value["plain"], json!("a${env:B}b$cd"));
        assert_eq!(document.value["key"], json!("${file:./later}"));
        assert_eq!(document.written("/secret"), Some("${env:A}"));
        assert_eq!(document.written("/key"), None);
    }

    #[test]
    fn every_missing_one_is_told_at_its_place() {
        let text = "plain: x ${env:GITHUB_TOKN} ${file:gone}\nsecret: ${env:EMPTY}\njson: { a: \"${A}\" }\n";
        let expected = [
            "1:10 missing-reference the environment variable `GITHUB_TOKN` is not set",
            "1:29 missing-reference the file `gone` cannot be read: no such file or directory",
            "2:9 missing-reference the environment variable `EMPTY` is empty",
            "3:13 bad-format `${A}` does not say where its value comes from",
        ];
        assert_eq!(told(text), expected);
        let (_, expanded) = run(text, &[("GITHUB_TOKEN", "t")]);
        assert_eq!(expanded.problems[0].suggestion.as_deref(), Some("GITHUB_TOKEN"));
    }

    #[test]
    fn written_out_secrets_and_references_in_programs_are_refused() {
        assert_eq!(told("secret: hunter22\n"), ["1:9 literal-secret a secret is written out in the file"]);
        assert_eq!(told("secret: $${env:A}\n"), ["1:9 literal-secret a secret is written out in the file"]);
        for text in ["${env:GITHUB_TOKEN:-hunter22}", "hunter22${env:GITHUB_TOKEN}", "${env:GONE:-hunter22}"] {
            assert_eq!(told(&format!("secret: {text}\n")), ["1:9 literal-secret a secret is written out in the file"]);
            let (_, expanded) = run(&format!("secret: {text}\n"), &[]);
            assert_eq!(expanded.hidden.len(), 1, "{text}");
        }
        assert_eq!(told("secret: ${env:GITHUB_TOKEN:-}\n"), [""; 0]);
        let help = |text: &str| run(text, &[]).1.problems[0].help.clone().unwrap_or_default();
        assert!(help("secret: ${env:A}\n") == "Set it." && help("plain: ${env:A}\n").contains("default"));
        assert_eq!(told("if: body.a == '${env:GITHUB_TOKEN}'\n").len(), 1);
        assert_eq!(told("text: \"{{ '${env:GITHUB_TOKEN}' }}\"\n").len(), 1);
        assert_eq!(told("text: \"{{ a }}${env:GITHUB_TOKEN}{{ b }}\"\n"), [""; 0]);
        let no_store = "1:8 missing-reference the secret `a/b#c` cannot be looked up: no Vault server is named";
        assert_eq!(told("plain: ${vault:a/b#c}\n"), [no_store]);
        assert_eq!(told("plain: ${vault:a/b}\n")[0].split(' ').nth(1), Some("bad-format"));
    }

    #[test]
    fn a_changed_source_is_noticed() {
        let (_, expanded) = run("plain: ${env:A}\n", &[("A", "1")]);
        let now = |value: &str| HashMap::from([("A".to_owned(), value.to_owned())]);
        let current = |value: &str| expanded.dependencies.iter().all(|d| d.is_current(&now(value)));
        assert!(current("1") && !current("2"));
    }

    proptest! {
        #[test]
        fn a_secret_in_a_template_is_printed_as_it_is(secret in "(\\{|\\}|%|#|'|\"|\\$|a|é| |\\n|-){1,20}") {
            let (document, expanded) = run("text: \"<${env:S}>\"\njson: [\"${env:S}\"]\n", &[("S", &secret)]);
            prop_assert!(expanded.problems.is_empty());
            for (pointer, expected) in [("/text", format!("<{secret}>")), ("/json/0", secret.clone())] {
                let source = document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                let rendered = Text::compile(source).and_then(|text| text.render(&Context::new()));
                prop_assert_eq!(rendered, Ok(expected));
            }
        }
    }
}
