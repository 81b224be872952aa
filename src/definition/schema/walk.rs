//! Walking a document beside its schema.
//!
//! The schema says of each value what it is (a template, a secret, a header's name …), so that checks
//! are written once for all places. Schemas here have no `oneOf`, so there is one way to walk.

use serde_json::{Map, Value};

use crate::definition::document::push_token;

/// A value, and what its schema says of it.
#[derive(Debug, Clone, Copy)]
pub struct Visit<'a> {
    /// RFC 6901 pointer of the value.
    pub pointer: &'a str,
    /// The value.
    pub value: &'a Value,
    /// The place whose variables templates here may name.
    pub sees: Option<&'a str>,
    /// Whether templates here also see the answer to their request.
    pub answer: bool,
    facets: Facets<'a>,
}

/// A schema and the one it refers to.
#[derive(Debug, Clone, Copy)]
struct Facets<'a> {
    own: Option<&'a Map<String, Value>>,
    referred: Option<&'a Map<String, Value>>,
}

impl<'a> Facets<'a> {
    fn of(root: &'a Value, schema: &'a Value) -> Self {
        let own = schema.as_object();
        let reference = own.and_then(|own| own.get("$ref")).and_then(Value::as_str);
        let referred = reference.and_then(|path| root.pointer(path.strip_prefix('#')?)).and_then(Value::as_object);
        Self { own, referred }
    }

    fn get(self, keyword: &str) -> Option<&'a Value> {
        let own = self.own.and_then(|schema| schema.get(keyword));
        own.or_else(|| self.referred.and_then(|schema| schema.get(keyword)))
    }
}

impl<'a> Visit<'a> {
    /// What the schema says under a keyword.
    pub fn facet(&self, keyword: &str) -> Option<&'a Value> {
        self.facets.get(keyword)
    }

    /// A keyword whose value is a word.
    pub fn word(&self, keyword: &str) -> Option<&'a str> {
        self.facet(keyword).and_then(Value::as_str)
    }

    /// Whether a keyword is there and true.
    pub fn marked(&self, keyword: &str) -> bool {
        self.facet(keyword).and_then(Value::as_bool).unwrap_or_default()
    }
}

/// Visits every value of a document that its schema knows, parents first.
pub fn walk(schema: &Value, document: &Value, visit: &mut dyn FnMut(&Visit<'_>)) {
    let mut walker = Walker { root: schema, pointer: String::new(), visit };
    walker.step(schema, document, None, false);
}

struct Walker<'a, 'v> {
    root: &'a Value,
    pointer: String,
    visit: &'v mut dyn FnMut(&Visit<'_>),
}

impl<'a> Walker<'a, '_> {
    fn step(&mut self, schema: &'a Value, value: &Value, sees: Option<&'a str>, answer: bool) {
        let facets = Facets::of(self.root, schema);
        let sees = facets.get("x-sees").and_then(Value::as_str).or(sees);
        let answer = answer || facets.get("x-answer").is_some();
        (self.visit)(&Visit { pointer: &self.pointer, value, sees, answer, facets });
        match value {
            Value::Array(items) => {
                let Some(schema) = facets.get("items") else { return };
                for (place, item) in items.iter().enumerate() {
                    self.below(&place.to_string(), |walker| walker.step(schema, item, sees, answer));
                }
            }
            Value::Object(map) => {
                let properties = facets.get("properties").and_then(Value::as_object);
                let others = facets.get("additionalProperties").filter(|schema| schema.is_object());
                for (key, item) in map {
                    let known = properties.and_then(|properties| properties.get(key)).or(others);
                    if let Some(schema) = known {
                        self.below(key, |walker| walker.step(schema, item, sees, answer));
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn below(&mut self, token: &str, run: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        push_token(&mut self.pointer, token);
        run(self);
        self.pointer.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::schema;
    use serde_json::json;

    fn templates(document: &Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        walk(schema::integration(), document, &mut |visit| {
            if let Some(kind) = visit.word("x-template") {
                let sees = visit.sees.unwrap_or("nothing");
                let answer = if visit.answer { "+answer" } else { "" };
                found.push((visit.pointer.to_owned(), format!("{kind} {sees}{answer}")));
            }
        });
        found
    }

    #[test]
    fn every_template_is_found_with_its_place() {
        let found = templates(&json!({
            "api": { "test": "GET /user", "endpoints": [{ "id": "a", "request": "GET /", "ok": "body.ok" }] },
            "webhook": { "verify": { "any": [{ "hmac": { "signed": "{{ body }}" } }] } },
            "rules": [{ "id": "r", "if": "body.x", "do": [{ "deliver": "app", "json": {} }] }],
        }));
        let expected = [
            ("/api/test", "text call"),
            ("/api/endpoints/0/request", "text call"),
            ("/api/endpoints/0/ok", "expression call+answer"),
            ("/webhook/verify/any/0/hmac/signed", "signed signed"),
            ("/rules/0/if", "expression rule"),
            ("/rules/0/do/0/json", "tree rule"),
        ];
        assert_eq!(found, expected.map(|(pointer, what)| (pointer.to_owned(), what.to_owned())));
    }
}
