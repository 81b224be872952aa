//! All pages of a collection as one answer, for a caller who asks for `trunkline-page=all`.
//!
//! Pages are fetched one after the other, each when the one before is written, so that a slow reader holds
//! fetching back and no more than one page is in memory. Pages, bytes and time are bounded. The next page must be
//! below the API's base and within the caller's grants, and no page is fetched twice. The first page's failure is
//! an answer like any other; a later one ends lines with a problem document, and an array without its bracket.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use serde_json::Value;
use tokio::time::timeout;

use super::path::NormalPath;
use super::ready::Ready;
use super::route::Route;
use super::whole::{self, Renewed, WholeCall};
use super::{ProxyDoor, admit, caller, carried, context, headers, path, transform};
use crate::activity::Course;
use crate::connection::Need;
use crate::definition::live::Generation;
use crate::definition::plan::api::{Api, Endpoint};
use crate::definition::plan::page::{Paging, Way};
use crate::net::Received;
use crate::outbound::cache::{Turn, listed};
use crate::request::{Answer as Read, link};
use crate::respond::{Answer, Refusal};
use crate::template::Context;

/// The query parameter and the header that ask for all pages.
const NAME: &str = "trunkline-page";
const HEADER: HeaderName = HeaderName::from_static(NAME);
/// Lines of JSON.
const LINES: &str = "application/x-ndjson";

/// A call for all pages, admitted.
pub struct PagesCall {
    generation: Arc<Generation>,
    ready: Arc<Ready>,
    /// The place of the endpoint in its API.
    endpoint: usize,
    caller: Arc<str>,
    at: At,
}

/// Where a page is: below the base, without a credential.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct At {
    suffix: String,
    query: Option<String>,
}

/// A page.
struct Page {
    records: Vec<Value>,
    next: Option<At>,
}

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Array,
    Lines,
}

/// What is written next of the answer.
struct Writing {
    form: Form,
    /// What comes before the next record.
    before: &'static str,
}

/// The name of the error when an array ends without its bracket.
pub const BROKEN: &str = "broken pages";

/// A call that asks for all pages: its query without the parameter that does so.
#[derive(Debug, PartialEq, Eq)]
pub struct AllPages {
    /// What goes to the service.
    pub query: Option<String>,
}

/// Whether a call asks for all pages.
///
/// # Errors
/// 400 when something else than `all` is asked for.
pub fn asked(headers: &HeaderMap, query: Option<&str>) -> Result<Option<AllPages>, Answer> {
    let by_header = headers.get(HEADER).map(|value| value == "all");
    let is_ours = |pair: &&str| pair.split('=').next() == Some(NAME);
    let pairs = || query.into_iter().flat_map(|query| query.split('&'));
    let by_query = pairs().find(is_ours).map(|pair| pair.split_once('=').is_some_and(|(_, value)| value == "all"));
    match by_header.or(by_query) {
        None => Ok(None),
        Some(false) => Err(Refusal::InvalidInput.answer("`trunkline-page` can be `all`")),
        Some(true) => {
            let kept: Vec<_> = pairs().filter(|pair| !is_ours(pair)).collect();
            let query = Some(kept.join("&")).filter(|query| !query.is_empty());
            Ok(Some(AllPages { query }))
        }
    }
}

/// All pages are written while they are fetched, so a call that is made later has none.
///
/// # Errors
/// 400 when they are asked for, in whatever words.
pub fn refuse_stored(headers: &HeaderMap, query: Option<&str>) -> Result<(), Answer> {
    match asked(headers, query)? {
        None => Ok(()),
        Some(_) => Err(Refusal::InvalidInput.answer("all pages are answered at once: not with `Trunkline-Async`")),
    }
}

impl PagesCall {
    /// A call for all pages of what a route leads to.
    ///
    /// # Errors
    /// 400 when no endpoint with pages is meant.
    pub fn of(
        generation: &Arc<Generation>,
        ready: &Arc<Ready>,
        (method, route, all): (&Method, &Route<'_>, AllPages),
        caller: &Arc<str>,
    ) -> Result<Self, Answer> {
        let api = ready.integration.api.as_ref();
        let endpoint = api.and_then(|api| api.place_of((method, route.suffix), |endpoint| endpoint.page.is_some()));
        let endpoint = endpoint.filter(|_| *method == Method::GET);
        let Some(endpoint) = endpoint else {
            let words = "only a GET of an endpoint with `page` comes in pages that can be strung together";
            return Err(Refusal::InvalidInput.answer(words));
        };
        let at = At { suffix: route.suffix.to_owned(), query: all.query };
        let (generation, ready, caller) = (Arc::clone(generation), Arc::clone(ready), Arc::clone(caller));
        Ok(Self { generation, ready, endpoint, caller, at })
    }

    /// Where it goes first: origin and path.
    pub fn place(&self) -> (Arc<str>, String) {
        let common = &self.ready.common;
        (Arc::clone(&common.place), format!("{}{}", common.base.path, self.at.suffix))
    }
}

/// Answers with all pages. What is returned is to be answered instead: nothing of the pages was written.
///
/// # Errors
/// When the caller is gone, or an array cannot be ended; the connection then closes in the middle of it.
pub async fn run(
    door: &Arc<ProxyDoor>,
    session: &mut Session,
    call: PagesCall,
    context: &mut context::Context,
) -> pingora::Result<Option<Answer>> {
    let from = session.req_header().headers.clone();
    let accepts = from.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = if accepts.contains(LINES) { Form::Lines } else { Form::Array };
    let integration = Arc::clone(&call.ready.integration.id);
    let count = |result: &str| door.parts.metrics.page_walks.with_label_values(&[&*integration, result]).inc();
    let (at, began) = (call.at.clone(), door.parts.clock.monotonic());
    let mut walk = Walk::new(door, call, &from);
    let first = Box::pin(walk.page(at)).await;
    let took = door.parts.clock.monotonic().saturating_sub(began);
    let of_service = |status: StatusCode, course: Course| (course.attempts > 0).then_some((took, status.as_u16()));
    let page = match first {
        Ok(page) => page,
        Err(refused) => {
            context.course = walk.course;
            count("refused");
            context.service = of_service(refused.status, walk.course).filter(|_| Refusal::of(&refused).is_none());
            let plain = |text: &str| walk.call.ready.common.redact(text);
            let kept = carried::whole(door, (&from, &Bytes::new()), Some(&refused), &plain);
            carried::note(context, kept);
            return Ok(Some(refused));
        }
    };
    context.service = of_service(StatusCode::OK, walk.course);
    let written = Box::pin(write(session, (&mut walk, page), form, &context.id)).await;
    (context.course, context.error) = (walk.course, walk.broken);
    count(match &written {
        Ok(End::Whole) => "whole",
        Ok(End::Broken) => "broken",
        Err(error) if error.etype == ErrorType::Custom(BROKEN) => "broken",
        Err(_) => "left",
    });
    written.map(|_| None)
}

/// How an answer that was begun ended.
enum End {
    Whole,
    Broken,
}

/// Writes page after page.
async fn write(
    session: &mut Session,
    (walk, mut page): (&mut Walk<'_>, Page),
    form: Form,
    id: &HeaderValue,
) -> pingora::Result<End> {
    write_head(session, form, id).await?;
    let mut writing = Writing { form, before: if form == Form::Array { "[" } else { "" } };
    loop {
        let text = writing.records(&std::mem::take(&mut page.records));
        let whose = (&walk.call.ready.integration.id, Some(&walk.call.caller));
        let Some(text) = walk.door.parts.clients.hold(whose, text) else {
            return Err(Error::explain(ErrorType::Custom(BROKEN), "there is no room for a page"));
        };
        session.write_response_body(Some(text), false).await?;
        let Some(next) = page.next else { break };
        page = match Box::pin(walk.page(next)).await {
            Ok(page) => page,
            Err(refused) => {
                // A service's own answer is none here: nobody is given it.
                walk.broken = Some(Refusal::of(&refused).unwrap_or(&Refusal::ServiceRefused));
                if form == Form::Array {
                    return Err(Error::explain(ErrorType::Custom(BROKEN), "a later page failed"));
                }
                let line = [&refused.body[..], b"\n"].concat();
                session.write_response_body(Some(line.into()), true).await?;
                return Ok(End::Broken);
            }
        };
    }
    session.write_response_body(Some(writing.end()), true).await.map(|()| End::Whole)
}

async fn write_head(session: &mut Session, form: Form, id: &HeaderValue) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
    head.insert_header(header::CONTENT_TYPE, if form == Form::Lines { LINES } else { "application/json" })?;
    head.insert_header("trunkline-request-id", id.clone())?;
    match session.req_header().version {
        Version::HTTP_2 => {}
        // It knows no chunks: the answer ends where the connection does.
        Version::HTTP_10 => session.set_keepalive(None),
        _ => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
    }
    session.write_response_header(Box::new(head), false).await
}

impl Writing {
    fn records(&mut self, records: &[Value]) -> Bytes {
        let mut out = String::new();
        for record in records {
            match self.form {
                Form::Array => {
                    out.push_str(self.before);
                    out.push_str(&record.to_string());
                    self.before = ",";
                }
                Form::Lines => {
                    out.push_str(&record.to_string());
                    out.push('\n');
                }
            }
        }
        out.into()
    }

    fn end(&self) -> Bytes {
        Bytes::from_static(match (self.form, self.before) {
            (Form::Array, "[") => b"[]",
            (Form::Array, _) => b"]",
            (Form::Lines, _) => b"",
        })
    }
}

/// A walk through the pages.
struct Walk<'a> {
    door: &'a Arc<ProxyDoor>,
    call: PagesCall,
    headers: HeaderMap,
    seen: HashSet<At>,
    bytes: usize,
    until: Duration,
    /// How the calls for its pages went, together.
    course: Course,
    /// Why a later page did not come.
    broken: Option<&'static Refusal>,
}

impl<'a> Walk<'a> {
    fn new(door: &'a Arc<ProxyDoor>, call: PagesCall, from: &HeaderMap) -> Self {
        let mut headers = headers::kept(from);
        for name in Turn::CONDITIONS {
            headers.remove(name);
        }
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let until = door.parts.clock.monotonic().saturating_add(call.generation.gateway.limits.pages_time);
        let (seen, course) = (HashSet::new(), Course::default());
        Self { door, call, headers, seen, bytes: 0, until, course, broken: None }
    }

    /// Fetches a page.
    async fn page(&mut self, at: At) -> Result<Page, Answer> {
        let limits = self.call.generation.gateway.limits;
        if self.seen.len() >= limits.pages {
            return Err(ended(&format!("there are more than {} pages", limits.pages)));
        }
        if !self.seen.insert(at.clone()) {
            return Err(ended("a page leads to one that was there before"));
        }
        let left = self.until.saturating_sub(self.door.parts.clock.monotonic());
        let fetched = timeout(left, Box::pin(self.fetch(&at))).await;
        let received = fetched.map_err(|_| ended("the pages take longer than `limits.pages_time`"))??;
        self.bytes = self.bytes.saturating_add(received.body.len());
        if self.bytes > limits.pages_bytes {
            return Err(ended(&format!("the pages have more than {} bytes", limits.pages_bytes)));
        }
        self.read(&at, received)
    }

    async fn fetch(&mut self, at: &At) -> Result<Received, Answer> {
        let call = &self.call;
        let (generation, integration) = (&call.generation, &call.ready.integration);
        let connection = &call.ready.common.connection.id;
        let known = generation.gateway.callers.iter().find(|known| known.id == call.caller);
        let route =
            Route { integration: &integration.id, suffix: &at.suffix, query: at.query.as_deref(), endpoint: None };
        let need = Need { token: call.ready.token(), validity: Duration::ZERO };
        caller::permit(
            known.ok_or_else(|| ended("the caller is not known"))?,
            Some(&Method::GET),
            &route,
            (connection, need.token),
        )?;
        let ready = self.door.connections.get(generation, integration, connection, need).await?;
        let endpoints = ready.integration.api.as_ref().map(|api| api.endpoints.as_slice()).unwrap_or_default();
        let known_as = endpoints.get(call.endpoint).map(|endpoint| Arc::clone(&endpoint.id));
        let page = WholeCall {
            generation: Arc::clone(generation),
            ready,
            caller: Some(Arc::clone(&call.caller)),
            known_as,
            endpoint: Some(call.endpoint),
            suffix: at.suffix.clone(),
            query: at.query.clone(),
            renewed: Renewed::default(),
        };
        let from = (&Method::GET, &self.headers);
        let fetched = whole::fetch(self.door, &Arc::new(page), from, Bytes::new(), &mut self.course).await;
        fetched.map(|(received, _)| received).map_err(whole::Unmade::into_answer)
    }

    /// What is on a page, and where the next one is.
    fn read(&self, at: &At, received: Received) -> Result<Page, Answer> {
        let (api, endpoint, paging) = self.declared()?;
        let most = api.body_limit;
        let received = match transform::decoded(&received, most) {
            Ok(decoded) => decoded.unwrap_or(received),
            Err(reason) => return Err(Refusal::ServiceAnswerInvalid.answer(reason)),
        };
        let first = self.seen.len() == 1;
        if first && received.status.as_u16() >= 400 {
            return Err(passing(received));
        }
        let answer = Read::of(received);
        let context = answer.seen(&self.call.ready.common.connection.context);
        let refused = |error: crate::request::AnswerError| {
            error.refusal().answer(&self.call.ready.common.redact(&error.to_string()))
        };
        if !answer.holds(endpoint.request.ok.as_ref().or(api.ok.as_ref()), &context).map_err(refused)? {
            let words = endpoint.request.error.as_ref().or(api.error.as_ref());
            return Err(refused(answer.refused(words, &context, self.door.parts.clock.now())));
        }
        let records = records(paging, &answer, &context)?;
        let next = self.next(paging, at, &answer, &context)?;
        Ok(Page { records, next })
    }

    fn declared(&self) -> Result<(&Api, &Endpoint, &Paging), Answer> {
        let api = self.call.ready.integration.api.as_ref();
        let endpoint = api.and_then(|api| api.endpoints.get(self.call.endpoint));
        let paging = endpoint.and_then(|endpoint| endpoint.page.as_ref());
        match (api, endpoint, paging) {
            (Some(api), Some(endpoint), Some(paging)) => Ok((api, endpoint, paging)),
            _ => Err(super::ready::no_api(&self.call.ready.integration)),
        }
    }

    fn next(&self, paging: &Paging, at: &At, answer: &Read, context: &Context) -> Result<Option<At>, Answer> {
        let failed =
            |error: crate::template::TemplateError| Refusal::DefinitionFailed.answer(&format!("`page`: {error}"));
        if let Some(more) = &paging.more
            && !more.holds(context).map_err(failed)?
        {
            return Ok(None);
        }
        let present = |value: Option<String>| value.filter(|value| !value.is_empty());
        match &paging.way {
            Way::Query { name, from } => {
                let value = present(from.text(context).map_err(failed)?);
                Ok(value.map(|value| At { query: Some(replaced(at.query.as_deref(), name, &value)), ..at.clone() }))
            }
            Way::Url(from) => match present(from.text(context).map_err(failed)?) {
                Some(reference) => self.below(at, &reference).map(Some),
                None => Ok(None),
            },
            Way::Link(relation) => {
                let mut lines =
                    answer.headers().get_all(header::LINK).into_iter().filter_map(|line| line.to_str().ok());
                match lines.find_map(|line| link::target(line, relation)) {
                    Some(reference) => self.below(at, reference).map(Some),
                    None => Ok(None),
                }
            }
        }
    }

    /// Where a reference leads from a page: below the API's base, or nowhere.
    fn below(&self, at: &At, reference: &str) -> Result<At, Answer> {
        let outside = || ended("a page leads to an address that is not below the API's base");
        let base = &self.call.ready.common.base;
        let query = at.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
        let own =
            url::Url::parse(&format!("{}{}{}{query}", base.origin, base.path, at.suffix)).map_err(|_| outside())?;
        let next = own.join(reference).map_err(|_| outside())?;
        let same = next.origin() == own.origin() && next.username().is_empty() && next.password().is_none();
        let suffix = next.path().strip_prefix(base.path.as_str()).filter(|suffix| same && suffix.starts_with('/'));
        let suffix = NormalPath::of(suffix.ok_or_else(outside)?).as_str().to_owned();
        // Some services repeat the credential in the address of the next page.
        let secret = self.call.ready.credential().query().map(|(name, _)| name);
        let is_secret = |pair: &&str| secret.is_some_and(|name| admit::has_parameter(pair, name));
        let kept = |query: &str| query.split('&').filter(|pair| !is_secret(pair)).collect::<Vec<_>>().join("&");
        let query = next.query().map(kept).filter(|query| !query.is_empty());
        let gate = path::check_path(&suffix).and_then(|()| query.as_deref().map_or(Ok(()), path::check_query));
        gate.map_err(|_| outside())?;
        Ok(At { suffix, query })
    }
}

fn ended(why: &str) -> Answer {
    Refusal::PagesEnded.answer(why)
}

/// A service's own error about the first page.
fn passing(received: Received) -> Answer {
    let mut kept = headers::kept_of_answer(&received.headers);
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION] {
        kept.remove(name);
    }
    Answer { status: received.status, headers: listed(kept).collect(), body: received.body, close: false }
}

/// The list on a page: what `records` finds, else the body, else its only list.
fn records(paging: &Paging, answer: &Read, context: &Context) -> Result<Vec<Value>, Answer> {
    let found = match &paging.records {
        Some(records) => {
            records.json(context).map_err(|error| Refusal::DefinitionFailed.answer(&format!("`records`: {error}")))?
        }
        None => match answer.json() {
            Some(Value::Object(body)) => {
                let mut lists = body.values().filter(|value| value.is_array());
                let first = lists.next();
                first.filter(|_| lists.next().is_none()).cloned().unwrap_or_default()
            }
            body => body.cloned().unwrap_or_default(),
        },
    };
    match found {
        Value::Array(records) => Ok(records),
        _ => Err(Refusal::DefinitionFailed.answer("a page has no list that `records` names, nor one list only")),
    }
}

/// A query with another value of one parameter.
fn replaced(query: Option<&str>, name: &str, value: &str) -> String {
    let kept = query.into_iter().flat_map(|query| query.split('&')).filter(|pair| {
        let known = pair.split('=').next().unwrap_or_default().replace('+', " ");
        !pair.is_empty() && percent_encoding::percent_decode_str(&known).decode_utf8_lossy() != name
    });
    let added = url::form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
    kept.chain(std::iter::once(added.as_str())).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_all_pages_does_not_go_to_the_service() {
        let of = |query: &'static str| asked(&HeaderMap::new(), Some(query)).map_err(|refused| refused.status.as_u16());
        assert_eq!(of("a=1&trunkline-page=all&b=2"), Ok(Some(AllPages { query: Some("a=1&b=2".to_owned()) })));
        assert_eq!(of("trunkline-page=all"), Ok(Some(AllPages { query: None })));
        assert_eq!(of("a=trunkline-page"), Ok(None));
        assert_eq!(of("trunkline-page=2"), Err(400));
    }

    #[test]
    fn an_array_is_one_whatever_its_pages_hold() {
        let written = |form, pages: &[&[u8]]| {
            let mut writing = Writing { form, before: "[" };
            let number = |n: &u8| Value::from(*n);
            let mut all: Vec<Bytes> =
                pages.iter().map(|page| writing.records(&page.iter().map(number).collect::<Vec<_>>())).collect();
            all.push(writing.end());
            String::from_utf8(all.concat()).expect("UTF-8")
        };
        assert_eq!(written(Form::Array, &[&[], &[1, 2], &[], &[3]]), "[1,2,3]");
        assert_eq!(written(Form::Array, &[&[], &[]]), "[]");
        assert_eq!(written(Form::Lines, &[&[1], &[], &[2]]), "1\n2\n");
    }

    #[test]
    fn a_parameter_is_replaced_in_every_spelling() {
        assert_eq!(replaced(Some("a=1&pa%67e=1&b=2"), "page", "2&x"), "a=1&b=2&page=2%26x");
        assert_eq!(replaced(None, "c", "d"), "c=d");
    }
}
