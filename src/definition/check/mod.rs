//! What a schema cannot say: whether templates compile and name what there is, whether values that are
//! each fine go together. Whether names point at something in other files is for `scope`.
//!
//! Every fault is told at once; nothing stops at the first. A document should have passed `validate`,
//! but needs not: what cannot be read is left out, and what would only follow from that is not told. Secrets written out and missing references are found
//! earlier, by `load`, which alone knows what was written. Called by the load of a generation and by
//! `trunkline check`.

mod about;
mod admin;
mod auth;
mod conflicts;
mod gateway;
mod readable;
mod rules;
mod templates;
mod values;
mod webhook;

use serde_json::Value;

use super::document::{Document, push_token};
use super::not_yet::{self, Effect, Part};
use super::problem::{Code, MOST_OF_FILE, Problem};
use super::raw;
use super::schema;
use super::templates::Templates;
use readable::LeftOut;

/// What is wrong inside one resolved definition. What is at the pointers `faulty` was told already.
pub fn integration(document: &Document, faulty: &[String], templates: &Templates) -> Vec<Problem> {
    let mut found = Findings::new(document, faulty);
    walk(schema::integration(), &mut found, templates);
    if found.is_full() {
        return found.told();
    }
    if let Some(raw) = found.left_out.read::<raw::integration::Integration>(&document.value) {
        about::check(&raw, &mut found);
        conflicts::check(&raw, &mut found);
        auth::check(&raw, &mut found);
        if let Some(webhook) = &raw.webhook {
            webhook::check(webhook, &mut found, templates);
        }
    }
    not_run(not_yet::INTEGRATION, &mut found);
    found.told()
}

/// What is wrong inside a gateway file. What is at the pointers `faulty` was told already.
pub fn gateway(document: &Document, faulty: &[String], templates: &Templates) -> Vec<Problem> {
    let mut found = Findings::new(document, faulty);
    walk(schema::gateway(), &mut found, templates);
    if found.is_full() {
        return found.told();
    }
    if let Some(raw) = found.left_out.read::<raw::gateway::Gateway>(&document.value) {
        gateway::check(&raw, &mut found);
    }
    not_run(not_yet::GATEWAY, &mut found);
    found.told()
}

fn walk(schema: &Value, found: &mut Findings<'_>, templates: &Templates) {
    let document = found.document;
    let inputs = declared_inputs(found);
    schema::walk::walk(schema, &document.value, &mut |visit| {
        if found.is_full() {
            return;
        }
        templates::check(visit, inputs.as_deref(), found, templates);
        values::check(visit, found);
    });
}

/// The names that `input` has: those under `inputs` and under `auth.login.fields`; `None` for a file that
/// can have none, and where a fault hides which there are.
fn declared_inputs(found: &Findings<'_>) -> Option<Vec<String>> {
    let (document, places) = (&found.document.value, ["/inputs", "/auth/login/fields"]);
    let maps = places.into_iter().filter_map(|at| document.pointer(at)?.as_object());
    let is_known = document.get("id").is_some() && !places.iter().any(|at| found.left_out.touches(at));
    is_known.then(|| maps.flat_map(|map| map.keys().cloned()).collect())
}

/// Tells each use of what this version does not run.
fn not_run(parts: &[Part], found: &mut Findings<'_>) {
    for part in parts {
        for pointer in part.uses(&found.document.value) {
            let place = found.document.key_place(&pointer);
            let message = format!("`{}` is declared, and not yet run by this version", part.name());
            let notice = |help: &str| Problem::notice(Code::NotYetRun, place.clone(), message.clone()).help(help);
            found.problems.push(match part.effect {
                Effect::Rests => notice("It is read and checked; nothing else depends on it."),
                Effect::Refuses if std::ptr::eq(parts, not_yet::GATEWAY) => {
                    Problem::warning(Code::NotYetRun, place, message)
                        .help("The gateway does not start with it: take it out.")
                }
                Effect::Refuses => notice("It is read and checked; what needs it answers with this sentence."),
            });
        }
    }
}

/// What was found so far, and where to look places up.
struct Findings<'a> {
    document: &'a Document,
    left_out: LeftOut,
    problems: Vec<Problem>,
    /// How many of them are errors.
    errors: usize,
}

impl<'a> Findings<'a> {
    fn new(document: &'a Document, faulty: &[String]) -> Self {
        Self { document, left_out: LeftOut::new(faulty), problems: Vec::new(), errors: 0 }
    }

    /// Whether errors enough were found: no more are looked for, one more than are listed tells that there are more.
    fn is_full(&self) -> bool {
        self.errors > MOST_OF_FILE
    }

    /// What was found, without what may only follow from a fault that was told already.
    fn told(mut self) -> Vec<Problem> {
        self.problems.retain(|problem| !self.left_out.touches(&problem.place.pointer));
        self.problems
    }

    /// An error about a value.
    fn error(&mut self, code: Code, pointer: &str, message: impl Into<String>) -> &mut Problem {
        let place = self.document.place(&self.left_out.in_file(pointer));
        self.push(Problem::error(code, place, message))
    }

    /// A warning about a value.
    fn warning(&mut self, code: Code, pointer: &str, message: impl Into<String>) -> &mut Problem {
        let place = self.document.place(&self.left_out.in_file(pointer));
        self.push(Problem::warning(code, place, message))
    }

    fn push(&mut self, problem: Problem) -> &mut Problem {
        let last = self.problems.len();
        self.errors += usize::from(problem.is_error());
        self.problems.push(problem);
        &mut self.problems[last]
    }

    /// Two entries of a list with one id.
    fn duplicates<'i>(&mut self, pointer: &str, what: &str, ids: impl IntoIterator<Item = &'i str>) {
        let mut seen = std::collections::HashSet::new();
        for (index, id) in ids.into_iter().enumerate() {
            if !seen.insert(id) {
                let at = format!("{pointer}/{index}/id");
                self.error(Code::DuplicateId, &at, format!("there are two {what} with the id `{id}`"));
            }
        }
    }
}

/// A pointer with one more key.
fn below(pointer: &str, key: &str) -> String {
    let mut whole = pointer.to_owned();
    push_token(&mut whole, key);
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Each problem as `code pointer: message`, notices left out.
    pub(super) fn told(value: Value) -> Vec<String> {
        let document = Document::unplaced("a.yaml".into(), value);
        let gateway_file = document.value.get("public_url").is_some();
        let templates = Templates::new();
        let check = if gateway_file { gateway } else { integration };
        let problems = check(&document, &[], &templates);
        let loud = problems.into_iter().filter(|problem| problem.code != Code::NotYetRun);
        loud.map(|problem| format!("{} {}: {}", problem.code, problem.place.pointer, problem.message)).collect()
    }

    /// A definition with some more blocks; rules get a webhook to come from.
    pub(super) fn with(more: &Value) -> Vec<String> {
        let mut value = json!({ "trunkline": 1, "id": "a" });
        let map = value.as_object_mut().expect("a map");
        if more.get("rules").is_some() {
            map.insert(
                "webhook".to_owned(),
                json!({
                    "verify": { "token": { "header": "X" } }, "secrets": "0123456789abcdef",
                    "event": "body.type", "delivery_id": "body.id",
                }),
            );
        }
        map.extend(more.as_object().expect("a map").clone());
        told(value)
    }

    #[test]
    fn what_is_not_run_is_a_notice_at_its_place() {
        let value = json!({ "trunkline": 1, "id": "a", "syncs": [], "api": { "base_url": "https://a.b" } });
        let document = Document::unplaced("a.yaml".into(), value);
        let notices = integration(&document, &[], &Templates::new());
        let told: Vec<_> = notices.iter().map(|problem| (problem.code, problem.place.pointer.as_str())).collect();
        assert_eq!(told, [(Code::NotYetRun, "/syncs")]);
    }

    #[test]
    fn ids_are_unique_in_their_list() {
        let rule = json!({ "id": "r", "when": "*", "do": [{ "log": "x" }] });
        assert_eq!(
            with(&json!({ "rules": [rule, rule] })),
            ["duplicate-id /rules/1/id: there are two rules with the id `r`"]
        );
    }
}
