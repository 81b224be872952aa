//! A collection in pages, as a sync of the definition expects to walk it.
//!
//! Every collection has [`TOTAL`] records in pages of [`SIZE`]. Where a walk stands is in the request
//! alone: nothing is kept between pages. Called by `route`.

use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::paths::{Read, Step, reads};
use super::received::Received;
use super::shape::{self, Existing};

/// Records in a collection.
pub(super) const TOTAL: u64 = 25;
/// Records on a page.
pub(super) const SIZE: u64 = 10;
/// The query parameter that carries the place of a walk where the definition leaves it to the service.
const PLACE: &str = "page";

/// A collection.
#[derive(Debug)]
pub(super) struct Pages {
    /// Where an answer has its records.
    records: Vec<Step>,
    /// What is read of each record.
    fields: Vec<Read>,
    /// What makes a record count as deleted.
    deleted: Vec<Read>,
    paging: Paging,
    /// Where the last page has the mark for the next walk.
    mark: Option<Vec<Step>>,
}

#[derive(Debug)]
enum Paging {
    /// All on one page.
    Whole,
    /// A `Link` header (RFC 8288).
    Link,
    /// A query parameter whose next value the answer holds.
    Query { name: String, from: Vec<Step>, more: Option<Vec<Step>> },
    /// A URL or path in the answer.
    Url { from: Vec<Step> },
}

impl Paging {
    /// Where the records are that nothing names.
    fn usual_records(&self) -> Option<Vec<Step>> {
        let list = || vec![Step::Key("items".to_owned())];
        match self {
            Self::Whole => None,
            Self::Link => Some(Vec::new()),
            // A cursor that is read of the last record says where the records are.
            Self::Query { from, .. } => {
                let item = from.iter().position(|step| *step == Step::Item);
                Some(item.map_or_else(list, |item| from.iter().take(item).cloned().collect()))
            }
            Self::Url { .. } => Some(list()),
        }
    }
}

/// One page.
pub(super) struct Page {
    /// The answer's body.
    pub body: Value,
    /// The `Link` header, where this is how pages are found.
    pub link: Option<(http::HeaderName, HeaderValue)>,
}

impl Pages {
    /// The collection that a sync or an endpoint of the resolved definition walks; `None` when it names neither
    /// records nor pages. Where pages have no name for their records, those are the body, or its only list.
    pub fn new(sync: &Value) -> Option<Self> {
        let expression = |pointer: &str| sync.pointer(pointer).and_then(Value::as_str).map(reads).unwrap_or_default();
        let way =
            |pointer: &str| expression(pointer).into_iter().find(|read| read.root == "body").map(|read| read.steps);
        let name = sync.pointer("/page/query").and_then(Value::as_str);
        let paging = match (name, way("/page/from"), way("/page/url"), sync.pointer("/page/link")) {
            (Some(name), Some(from), ..) => Paging::Query { name: name.to_owned(), from, more: way("/page/while") },
            (_, _, Some(from), _) => Paging::Url { from },
            (_, _, _, Some(_)) => Paging::Link,
            _ => Paging::Whole,
        };
        let fields = ["/key", "/cursor/from"].iter().flat_map(|pointer| expression(pointer)).collect();
        let (deleted, mark) = (expression("/deleted"), way("/cursor/token"));
        let records = way("/records").or_else(|| paging.usual_records())?;
        Some(Self { records, fields, deleted, paging, mark })
    }

    /// The page that a request asks for.
    pub fn page(&self, received: &Received) -> Page {
        let size = if matches!(self.paging, Paging::Whole) { TOTAL } else { SIZE };
        let start = self.start(received).min(TOTAL);
        let end = (start + size).min(TOTAL);
        let records: Vec<Value> = (start..end).map(|place| self.record(place)).collect();
        let mut body = Value::Null;
        shape::put(&mut body, &self.records, Value::Array(records), Existing::Replace);
        let has_more = end < TOTAL;
        let link = self.point_on(&mut body, received, has_more.then_some(end));
        if let Some(mark) = self.mark.as_ref().filter(|_| !has_more) {
            shape::put(&mut body, mark, Value::from("mock-mark"), Existing::Replace);
        }
        Page { body, link }
    }

    fn record(&self, place: u64) -> Value {
        let serial = place + 1;
        let mut record = json!({});
        shape::fill(&mut record, "record", &self.fields, serial);
        let is_deleted = serial == TOTAL;
        for read in &self.deleted {
            let name = super::paths::last_key(&read.steps).unwrap_or("deleted");
            let value = match (is_deleted, &read.equals) {
                (true, Some(value)) => value.clone(),
                (true, None) => Value::Bool(true),
                (false, _) => shape::plausible(name, serial),
            };
            shape::put(&mut record, &read.steps, value, Existing::Keep);
        }
        shape::put(
            &mut record,
            &[Step::Key("name".to_owned())],
            Value::from(format!("Record {serial}")),
            Existing::Keep,
        );
        record
    }

    /// Where in the collection the page that is asked for begins.
    fn start(&self, received: &Received) -> u64 {
        match &self.paging {
            Paging::Whole => 0,
            Paging::Link | Paging::Url { .. } => {
                received.parameter(PLACE).and_then(|place| place.parse().ok()).unwrap_or(0)
            }
            Paging::Query { name, from, .. } => {
                let Some(value) = received.parameter(name) else { return 0 };
                match self.below_record(from) {
                    Some(field) => self.after_record(field, value),
                    None => value.strip_prefix("page-").and_then(|place| place.parse().ok()).unwrap_or(0),
                }
            }
        }
    }

    /// The way below a record, when the next cursor is a field of the last record.
    fn below_record<'a>(&self, from: &'a [Step]) -> Option<&'a [Step]> {
        from.strip_prefix(self.records.as_slice())?.strip_prefix(&[Step::Item])
    }

    fn after_record(&self, field: &[Step], value: &str) -> u64 {
        let is_it = |place: &u64| match shape::find(&self.record(*place), field) {
            Some(Value::String(text)) => text == value,
            Some(other) => serde_json::from_str(value).is_ok_and(|value: Value| value == *other),
            None => false,
        };
        (0..TOTAL).find(is_it).map_or(TOTAL, |place| place + 1)
    }

    /// Says in the answer where the next page is, or that there is none.
    fn point_on(
        &self,
        body: &mut Value,
        received: &Received,
        next: Option<u64>,
    ) -> Option<(http::HeaderName, HeaderValue)> {
        match (&self.paging, next) {
            (Paging::Query { from, more, .. }, next) => {
                if let Some(more) = more {
                    shape::put(body, more, Value::Bool(next.is_some()), Existing::Replace);
                }
                if let (Some(next), None) = (next, self.below_record(from)) {
                    shape::put(body, from, Value::from(format!("page-{next}")), Existing::Replace);
                }
                None
            }
            (Paging::Url { from }, Some(next)) => {
                let target = target(received, next);
                shape::put(body, from, Value::from(target), Existing::Replace);
                None
            }
            (Paging::Link, Some(next)) => {
                let link = format!("<{}{}>; rel=\"next\"", received.origin, target(received, next));
                HeaderValue::from_str(&link).ok().map(|value| (header::LINK, value))
            }
            _ => None,
        }
    }
}

/// The request's own path and query, at another place of the collection.
fn target(received: &Received, next: u64) -> String {
    let next = next.to_string();
    let kept =
        received.query.iter().filter(|(name, _)| name != PLACE).map(|(name, value)| (name.as_str(), value.as_str()));
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept.chain(std::iter::once((PLACE, next.as_str()))))
        .finish();
    format!("{}?{query}", received.path)
}
