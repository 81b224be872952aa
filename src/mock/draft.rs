//! Sample events: a webhook that a definition takes for an event of a wanted type.
//!
//! Bodies of the catalogue's events are kept as files (`samples/`). For other events a body is made
//! from what the definition's expressions read. The type is then brought about by search: few places
//! decide it, so trying values in each finds one that the `event` expression turns into the wanted
//! text. Called by `trigger`.

use bytes::Bytes;
use http::HeaderName;
use serde_json::{Map, Value, json};

use super::paths::{Read, Step, reads, text_reads, tree_reads};
use super::shape::{self, Existing};
use crate::definition::plan::webhook::Webhook;
use crate::definition::plan::{Integration, rule};
use crate::template::{Context, Expr, TemplateError};

/// A webhook before it is signed.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// Headers in order.
    pub headers: Vec<(HeaderName, String)>,
    /// Query parameters in order, not yet encoded.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Body,
}

/// A draft's body.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// One that may still be changed.
    Open(Value),
    /// One that was given and is sent byte for byte.
    Fixed(Bytes),
}

/// Why there is no sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    /// No value of the places that `event` reads gives the type.
    #[error(
        "no sample found for which `event: {expression}` gives `{wanted}`{hint}: give a body of your own with --body FILE"
    )]
    Unreachable {
        /// The definition's expression.
        expression: String,
        /// The type that was asked for.
        wanted: String,
        /// What else may help.
        hint: String,
    },
    /// An expression of the definition fails over the sample.
    #[error("`{expression}` fails over the sample: {error}")]
    Fails {
        /// The expression.
        expression: String,
        /// What the engine says.
        error: TemplateError,
    },
}

impl Draft {
    fn new(body: Body) -> Self {
        let content_type = (http::header::CONTENT_TYPE, "application/json".to_owned());
        let agent = (http::header::USER_AGENT, "trunkline-trigger".to_owned());
        Self { headers: vec![content_type, agent], query: Vec::new(), body }
    }

    /// The body's bytes as they are sent.
    pub fn bytes(&self) -> Bytes {
        match &self.body {
            Body::Open(value) => Bytes::from(value.to_string()),
            Body::Fixed(bytes) => bytes.clone(),
        }
    }

    /// What expressions over this request see.
    pub fn context(&self) -> Context {
        let body = match &self.body {
            Body::Open(value) => value.clone(),
            Body::Fixed(bytes) => serde_json::from_slice(bytes).unwrap_or(Value::Null),
        };
        let query: Map<String, Value> =
            self.query.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        Context::new()
            .with_json("body", &body)
            .with_json("query", &Value::Object(query))
            .with_headers("headers", self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            .with("method", "POST")
    }

    /// Gives a place a value; false when it cannot have one, such as a fixed body.
    pub fn put(&mut self, read: &Read, value: Value, existing: Existing) -> bool {
        match (read.root.as_str(), read.steps.as_slice(), &mut self.body) {
            ("body", [_, ..], Body::Open(body)) => {
                shape::put(body, &read.steps, value, existing);
                true
            }
            ("headers", [Step::Key(name)], _) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => {
                    place(&mut self.headers, name, value, existing);
                    true
                }
                Err(_) => false,
            },
            ("query", [Step::Key(name)], _) => {
                place(&mut self.query, name.clone(), value, existing);
                true
            }
            _ => false,
        }
    }
}

fn place<N: PartialEq>(pairs: &mut Vec<(N, String)>, name: N, value: Value, existing: Existing) {
    let text = match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    match pairs.iter_mut().find(|(known, _)| *known == name) {
        Some((_, kept)) if existing == Existing::Replace => *kept = text,
        Some(_) => {}
        None => pairs.push((name, text)),
    }
}

/// A sample event of this type. `given` is sent byte for byte instead of a made-up body; `serial`
/// makes its delivery id unlike any other's.
pub(super) fn sample(
    integration: &Integration,
    webhook: &Webhook,
    wanted: &str,
    given: Option<Bytes>,
    serial: &str,
) -> Result<Draft, DraftError> {
    let kept = super::samples::event(&integration.id, wanted);
    let is_made_up = given.is_none() && kept.is_none();
    let body = match (given, kept) {
        (Some(bytes), _) => Body::Fixed(bytes),
        (None, Some(sample)) => Body::Open(sample),
        (None, None) => Body::Open(json!({})),
    };
    let mut draft =
        bring_about(&webhook.event, Draft::new(body), wanted).ok_or_else(|| unreachable(webhook, wanted))?;
    if is_made_up {
        let type_reads = reads(webhook.event.source());
        for read in rule_reads(integration, wanted) {
            // What decides the type is decided; a rule that compares it must not change it.
            if type_reads.iter().all(|known| known.steps != read.steps || known.root != read.root) {
                fill_one(&mut draft, &read);
            }
        }
    }
    if let Some(expr) = &webhook.delivery_id {
        identify(&mut draft, expr, &webhook.event, serial);
    }
    if holds(&webhook.event, &draft, wanted) { Ok(draft) } else { Err(unreachable(webhook, wanted)) }
}

fn fill_one(draft: &mut Draft, read: &Read) {
    let name = super::paths::last_key(&read.steps).unwrap_or("value").to_owned();
    let value = read.equals.clone().unwrap_or_else(|| shape::plausible(&name, 1));
    draft.put(read, value, Existing::Keep);
}

fn unreachable(webhook: &Webhook, wanted: &str) -> DraftError {
    let known = webhook.events.iter().any(|event| event == wanted);
    let hint = if known || webhook.events.is_empty() {
        String::new()
    } else {
        format!(" (the definition lists {})", webhook.events.join(", "))
    };
    DraftError::Unreachable { expression: webhook.event.source().to_owned(), wanted: wanted.to_owned(), hint }
}

fn holds(expr: &Expr, draft: &Draft, wanted: &str) -> bool {
    expr.text(&draft.context()).is_ok_and(|text| text.as_deref() == Some(wanted))
}

/// The draft changed so that `expr` gives `wanted`: as it is, with one place set to the whole, or with
/// two places set to its parts, each over every choice of what the expression compares with.
fn bring_about(expr: &Expr, draft: Draft, wanted: &str) -> Option<Draft> {
    if holds(expr, &draft, wanted) {
        return Some(draft);
    }
    let all = reads(expr.source());
    let (compared, mut free): (Vec<Read>, Vec<Read>) = all.into_iter().partition(|read| read.equals.is_some());
    free.dedup_by(|a, b| a.steps == b.steps && a.root == b.root);
    let choices = 1_u32 << compared.len().min(4);
    (0..choices).rev().find_map(|choice| {
        let mut base = draft.clone();
        for (_, read) in compared.iter().enumerate().filter(|(place, _)| choice >> place & 1 == 1) {
            base.put(read, read.equals.clone().unwrap_or_default(), Existing::Replace);
        }
        with_places(expr, &base, &free, wanted)
    })
}

fn with_places(expr: &Expr, base: &Draft, free: &[Read], wanted: &str) -> Option<Draft> {
    let with = |changes: &[(&Read, &str)]| {
        let mut draft = base.clone();
        let fits = changes.iter().all(|(read, value)| draft.put(read, Value::from(*value), Existing::Replace));
        (fits && holds(expr, &draft, wanted)).then_some(draft)
    };
    if let Some(draft) = with(&[]) {
        return Some(draft);
    }
    // Parts before the whole: a header that holds the whole type would satisfy many expressions, and look
    // like nothing the service sends.
    let breaks = wanted.char_indices().filter(|(_, c)| !c.is_alphanumeric());
    for (at, separator) in breaks {
        let (left, right) = (wanted.get(..at)?, wanted.get(at + separator.len_utf8()..)?);
        for first in free {
            for second in free.iter().filter(|second| *second != first) {
                if let Some(draft) = with(&[(first, left), (second, right)]) {
                    return Some(draft);
                }
            }
        }
    }
    free.iter().find_map(|read| with(&[(read, wanted)]))
}

/// What the rules for this type read, so that their templates find values.
fn rule_reads(integration: &Integration, wanted: &str) -> Vec<Read> {
    let mut found = Vec::new();
    for rule in integration.rules.iter().filter(|rule| rule.is_for(wanted)) {
        found.extend(rule.condition.iter().flat_map(|condition| reads(condition.source())));
        for action in &rule.actions {
            found.extend(match &action.what {
                rule::What::Call { input, .. } => tree_reads(input),
                rule::What::Deliver { json: Some(json), .. } => tree_reads(json),
                rule::What::Log { message, .. } => text_reads(message),
                rule::What::Deliver { json: None, .. } | rule::What::NotYet(_) => Vec::new(),
            });
        }
    }
    found
}

/// Gives each place that the delivery id is made of a fresh value, except those that also decide the
/// type. A fixed body keeps its own.
fn identify(draft: &mut Draft, id: &Expr, event: &Expr, serial: &str) {
    let decided = reads(event.source());
    let is_free = |read: &Read| decided.iter().all(|known| known.root != read.root || known.steps != read.steps);
    for read in reads(id.source()).into_iter().filter(is_free) {
        let now = lookup(draft, &read);
        let prefix = now.as_deref().map_or("", |text| text.split_inclusive('_').next().unwrap_or_default());
        let prefix = if prefix.ends_with('_') { prefix } else { "" };
        draft.put(&read, Value::from(format!("{prefix}{serial}")), Existing::Replace);
    }
}

fn lookup(draft: &Draft, read: &Read) -> Option<String> {
    let Body::Open(body) = &draft.body else { return None };
    shape::find(body, &read.steps).filter(|_| read.root == "body").and_then(Value::as_str).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brought_about(expr: &str, body: Value, wanted: &str) -> Option<Draft> {
        bring_about(&Expr::compile(expr).expect("an expression"), Draft::new(Body::Open(body)), wanted)
    }

    fn body_of(draft: Option<Draft>) -> Value {
        match draft.map(|draft| draft.body) {
            Some(Body::Open(body)) => body,
            _ => Value::Null,
        }
    }

    #[test]
    fn a_type_of_two_parts_is_split_between_header_and_body() {
        let expr = "headers['x-github-event'] ~ ('.' ~ body.action if body.action else '')";
        let draft = brought_about(expr, json!({}), "pull_request.opened").expect("found");
        assert!(draft.headers.iter().any(|(name, value)| name == "x-github-event" && value == "pull_request"));
        assert_eq!(body_of(Some(draft)), json!({ "action": "opened" }));
    }

    #[test]
    fn what_the_expression_compares_with_is_tried() {
        let expr = "body.event.type if body.type == 'event_callback' else body.type";
        let body = body_of(brought_about(expr, json!({}), "message"));
        assert_eq!(body, json!({ "type": "event_callback", "event": { "type": "message" } }));
    }

    #[test]
    fn a_sample_that_has_the_type_is_left_alone() {
        let body = json!({ "type": "url_verification", "challenge": "abc" });
        let expr = "body.event.type if body.type == 'event_callback' else body.type";
        assert_eq!(body_of(brought_about(expr, body.clone(), "url_verification")), body);
    }

    #[test]
    fn what_decides_the_type_is_no_part_of_a_fresh_id() {
        let (event, id) = ("body.type", "body.type ~ ':' ~ body.id");
        let compile = |source| Expr::compile(source).expect("an expression");
        let mut draft = brought_about(event, json!({ "id": "evt_1" }), "a.b").expect("found");
        identify(&mut draft, &compile(id), &compile(event), "9");
        assert_eq!(body_of(Some(draft)), json!({ "type": "a.b", "id": "evt_9" }));
    }

    #[test]
    fn an_unreachable_type_is_not_invented() {
        assert!(brought_about("'fixed'", json!({}), "other").is_none());
    }
}
