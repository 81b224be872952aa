//! A request that the definition describes, and the answer to it. Called by `service`.

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::page::Pages;
use super::paths::{Read, reads, tree_reads};
use super::received::Received;
use super::samples;
use super::shape::{self, Existing};
use crate::base::path::normal;
use crate::definition::plan::api::PathPattern;
use crate::definition::plan::request::{CredentialUse, Request, Target};
use crate::respond::Answer;
use crate::template::{Expr, Segment, Text};

/// A request that the definition describes. Several uses of one method and path make one route, whose
/// answer has what each of them reads.
#[derive(Debug)]
pub(super) struct Route {
    pattern: PathPattern,
    /// Read of the answer to tell success.
    ok: Vec<Read>,
    /// Read of the answer for anything else.
    others: Vec<Read>,
    /// The collection, when a sync walks it.
    pages: Option<Pages>,
    /// The answer in the service's own words, where it is kept.
    kept: Option<Value>,
    /// Whether the request brings what it needs by itself, and no credential where the API wants one.
    open: bool,
}

impl Route {
    /// The route of a compiled request; `ok` is the API's own condition, for requests without one.
    pub fn of_request(integration: &str, request: &Request, ok: Option<&Expr>) -> Self {
        let mut route = Self::new(integration, request.method.clone(), path(request));
        route.open = request.credential == CredentialUse::None;
        route.ok = request.ok.as_ref().or(ok).map(|ok| reads(ok.source())).unwrap_or_default();
        route.others = request.save.iter().flat_map(|(_, saved)| reads(saved.source())).collect();
        route.others.extend(request.result.iter().flat_map(tree_reads));
        route
    }

    /// The route of a request in a resolved definition whose engine this version lacks: its `request`
    /// and whatever else in it is an expression. `None` when it has no method and target.
    pub fn of_declared(integration: &str, declared: &Value) -> Option<Self> {
        let request = declared.as_str().or_else(|| declared.get("request").and_then(Value::as_str))?;
        let (method, target) = request.split_once(char::is_whitespace).unwrap_or(("GET", request));
        let path = target.trim().split('?').next().unwrap_or_default();
        let mut route = Self::new(integration, method.parse().ok()?, &Text::compile(path).ok()?);
        route.ok = declared.get("ok").and_then(Value::as_str).map(reads).unwrap_or_default();
        let expressions =
            ["id", "name", "email"].iter().filter_map(|field| declared.get(field).and_then(Value::as_str));
        route.others = expressions.flat_map(reads).collect();
        route.pages = Pages::new(declared);
        Some(route)
    }

    fn new(integration: &str, method: Method, path: &Text) -> Self {
        let kept = path.literal().and_then(|path| samples::answer(integration, &method, path));
        let pattern = PathPattern { method, segments: segments(path) };
        Self { pattern, ok: Vec::new(), others: Vec::new(), pages: None, kept, open: false }
    }

    /// The route with more that is read of its answer.
    #[must_use]
    pub fn reading(mut self, more: impl IntoIterator<Item = Read>) -> Self {
        self.others.extend(more);
        self
    }

    /// The route with what is read of its answer before all else: what is made first is kept.
    #[must_use]
    pub fn reading_first(mut self, first: impl IntoIterator<Item = Read>) -> Self {
        self.others.splice(0..0, first);
        self
    }

    /// Whether the request brings what it needs by itself.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether both are for the same method and path.
    pub fn is_same(&self, other: &Self) -> bool {
        self.pattern.method == other.pattern.method && self.pattern.segments == other.pattern.segments
    }

    /// Takes in what another use of the same request reads.
    pub fn merge(&mut self, other: Self) {
        self.ok.extend(other.ok);
        self.others.extend(other.others);
        self.pages = self.pages.take().or(other.pages);
        self.kept = self.kept.take().or(other.kept);
    }

    /// Whether a call is this request.
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        self.pattern.matches(method, path)
    }

    /// How many segments of its path may be anything.
    pub fn slots(&self) -> usize {
        self.pattern.segments.iter().filter(|segment| segment.is_none()).count()
    }

    /// The answer; `None` when the definition reads nothing of it, so that there is nothing to make.
    /// `serial` tells created things apart.
    pub fn answer(&self, received: &Received, serial: u64) -> Option<Answer> {
        let status = self.status();
        if let Some(pages) = &self.pages {
            let page = pages.page(received);
            let answer = Answer::json(StatusCode::OK, &self.completed(page.body, 1));
            return Some(page.link.into_iter().fold(answer, |answer, (name, value)| answer.with(name, value)));
        }
        if self.kept.is_none() && self.ok.is_empty() && self.others.is_empty() {
            return None;
        }
        if status == StatusCode::NO_CONTENT {
            return Some(Answer::empty(status));
        }
        let creates = received.method != Method::GET && received.method != Method::HEAD;
        let fields = if creates { received.fields() } else { Map::new() };
        let serial = if creates { serial } else { 1 };
        Some(Answer::json(status, &self.completed(self.started(fields), serial)))
    }

    /// What is kept of this answer, with the fields that were sent: a created thing tells them again.
    fn started(&self, fields: Map<String, Value>) -> Value {
        match self.kept.clone() {
            Some(Value::Object(mut kept)) => {
                kept.extend(fields);
                Value::Object(kept)
            }
            Some(other) => other,
            None if fields.is_empty() => Value::Null,
            None => Value::Object(fields),
        }
    }

    /// The body with everything that is read in it; what tells success is never what the caller sent.
    fn completed(&self, mut body: Value, serial: u64) -> Value {
        for read in self.ok.iter().filter(|read| read.root == "body" && !read.steps.is_empty()) {
            let name = super::paths::last_key(&read.steps).unwrap_or("ok");
            // What tells success may be a value that another use must have in a certain form.
            let same = self.others.iter().find(|other| other.root == read.root && other.steps == read.steps);
            let known = read.equals.as_ref().or(same.and_then(|other| other.equals.as_ref()));
            let value = known.cloned().unwrap_or_else(|| truthy(shape::plausible(name, serial)));
            shape::put(&mut body, &read.steps, value, Existing::Replace);
        }
        shape::fill(&mut body, "body", &self.others, serial);
        if body.is_null() { Value::Object(Map::new()) } else { body }
    }

    /// The first status that the condition of success names, else 200.
    fn status(&self) -> StatusCode {
        let named = self.ok.iter().filter(|read| read.root == "status").find_map(|read| read.equals.as_ref());
        let code = named.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::OK)
    }
}

fn truthy(value: Value) -> Value {
    match value {
        Value::Array(items) if items.is_empty() => Value::Bool(true),
        Value::Bool(false) | Value::Null => Value::Bool(true),
        other => other,
    }
}

/// The path or URL of a request.
fn path(request: &Request) -> &Text {
    match &request.target {
        Target::Path { path, .. } => path,
        Target::Url(url) => url,
    }
}

/// What calls must look like to be this request.
pub(super) fn pattern(request: &Request) -> PathPattern {
    PathPattern { method: request.method.clone(), segments: segments(path(request)) }
}

/// Whether a call is this request; `below` is its path below the API's base.
pub(super) fn is_at(request: &Request, received: &Received, below: Option<&str>) -> bool {
    let pattern = pattern(request);
    match (&request.target, below) {
        (Target::Path { .. }, Some(below)) => pattern.matches(&received.method, below),
        _ => pattern.matches(&received.method, &received.path),
    }
}

/// The path's segments; one with a slot may be anything. Of a URL the path counts, also where a slot
/// stands for its scheme and host.
pub(super) fn segments(path: &Text) -> Vec<Option<Box<str>>> {
    // A mark that no path contains stands for slots while the text is split.
    const SLOT: &str = "\u{0}";
    let parts = path.segments().unwrap_or_default();
    let marked: String = parts
        .iter()
        .map(|part| match part {
            Segment::Literal(text) => normal(text).into_owned(),
            Segment::Slot(_) => SLOT.to_owned(),
        })
        .collect();
    let rest = match (marked.split_once("://"), marked.starts_with(SLOT)) {
        (Some((_, rest)), _) => Some(rest),
        (None, true) => Some(marked.as_str()),
        (None, false) => None,
    };
    let below = rest.map_or(marked.as_str(), |rest| rest.split_once('/').map_or("", |(_, path)| path));
    let below = below.split('?').next().unwrap_or_default();
    below
        .strip_prefix('/')
        .unwrap_or(below)
        .split('/')
        .map(|segment| (!segment.contains(SLOT)).then(|| segment.into()))
        .collect()
}
