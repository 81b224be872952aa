//! The cache's place in a call through the proxy door: after the caller's grants, before anything is dialled.
//!
//! A streamed call carries a [`Kept`] through Pingora's phases; what it does at each is here. A call that is
//! read whole looks by itself ([`super::whole`]), by the same [`asked`].

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};

use super::admit::has_body;
use super::ready::Ready;
use super::route::Route;
use super::whole::{self, Renewed, WholeCall};
use super::{Incoming, ProxyDoor, headers, record};
use crate::activity::{Asker, CallRecord, Course, Told};
use crate::definition::live::Generation;
use crate::net::Received;
use crate::outbound::cache::{self, Asked, Given, Key, Look, Next, Recording, Turn, is_unsafe};
use crate::respond::{Answer, Refusal};

/// What a streamed call has to do with what is kept.
#[derive(Debug, Default)]
pub enum Kept {
    /// Nothing.
    #[default]
    Apart,
    /// Its answer may be kept, or an answer is kept that it may renew.
    Turn(Box<Turn>),
    /// Its answer is kept when all of it has come.
    Recording(Box<Recording>),
    /// It may change what is kept.
    Changes(Key),
}

/// A refresh that nobody waits for.
pub struct Behind {
    call: Arc<WholeCall>,
    headers: HeaderMap,
    turn: Box<Turn>,
}

/// What is made of a call before it is dialled.
pub enum Before {
    /// It goes on.
    On(Kept),
    /// It is answered from what is kept.
    Answered(Box<FromKept>),
}

/// An answer from what is kept.
pub struct FromKept {
    /// The answer.
    pub answer: Answer,
    /// What the cache made of the call.
    pub verdict: &'static str,
    /// The refresh of what it is, where it is stale.
    pub behind: Option<Behind>,
    /// What the call would have been made with.
    pub ready: Arc<Ready>,
}

/// Path and query as the service gets them, without a credential.
fn plain_target(ready: &Ready, suffix: &str, query: Option<&str>) -> String {
    let base = &ready.common.base.path;
    let mut target = String::with_capacity(base.len() + suffix.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(base);
    target.push_str(suffix);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    target
}

/// The key of a call.
pub fn key(ready: &Ready, suffix: &str, query: Option<&str>) -> Key {
    let common = &ready.common;
    Key::new(&ready.integration, &common.connection, &common.place, plain_target(ready, suffix, query))
}

/// A GET or HEAD as the cache is asked for it; `None` where nothing of it is kept.
pub fn asked<'a>(
    generation: &Generation,
    ready: &Ready,
    (method, headers): (&'a Method, &'a HeaderMap),
    (suffix, query): (&str, Option<&str>),
) -> Option<Asked<'a>> {
    let rule = ready.integration.api.as_ref()?.cache_of(suffix)?;
    // What another token is answered with may differ, and keys know nothing of tokens.
    let fits = matches!(*method, Method::GET | Method::HEAD)
        && ready.token().is_none()
        && !headers.contains_key(header::UPGRADE);
    let patience = ready.timeouts.connect.saturating_add(ready.timeouts.response);
    let most = generation.gateway.limits.cache_bytes;
    fits.then(|| Asked { rule, key: key(ready, suffix, query), method, headers, patience, most })
}

/// The key that an unsafe call may change; `None` where nothing is kept.
pub fn changes(ready: &Ready, method: &Method, (suffix, query): (&str, Option<&str>)) -> Option<Key> {
    let keeps = ready.integration.api.as_ref().is_some_and(crate::definition::plan::api::Api::caches);
    (keeps && is_unsafe(method)).then(|| key(ready, suffix, query))
}

impl ProxyDoor {
    /// Looks a call up before it is dialled; `known_as` is the endpoint that it is for, whose limits a refresh keeps to.
    pub(super) async fn look(
        &self,
        generation: &Arc<Generation>,
        ready: &Arc<Ready>,
        request: &Incoming<'_>,
        (route, known_as): (&Route<'_>, Option<&Arc<str>>),
    ) -> Before {
        let place = (route.suffix, route.query);
        if let Some(key) = changes(ready, request.method, place) {
            return Before::On(Kept::Changes(key));
        }
        if has_body(request.headers) || ready.integration.api.as_ref().is_none_or(|api| !api.caches()) {
            return Before::On(Kept::Apart);
        }
        let headers = headers::kept(request.headers);
        let Some(asked) = asked(generation, ready, (request.method, &headers), place) else {
            return Before::On(Kept::Apart);
        };
        match self.parts.outbound.cache().look(asked).await {
            Look::Ask(turn) => Before::On(Kept::Turn(turn)),
            Look::Given(given) => {
                let Given { answer, verdict, refresh } = *given;
                let call = || WholeCall {
                    generation: Arc::clone(generation),
                    ready: Arc::clone(ready),
                    caller: None,
                    known_as: known_as.cloned(),
                    endpoint: None,
                    suffix: route.suffix.to_owned(),
                    query: route.query.map(str::to_owned),
                    renewed: Renewed::default(),
                };
                let behind = refresh.map(|turn| Behind::new(&Arc::new(call()), headers, turn));
                let ready = Arc::clone(ready);
                Before::Answered(Box::new(FromKept { answer, verdict, behind, ready }))
            }
        }
    }
}

impl Behind {
    /// The refresh of what a call was answered with; `headers` are those of the call.
    pub fn new(call: &Arc<WholeCall>, headers: HeaderMap, turn: Box<Turn>) -> Self {
        Self { call: Arc::clone(call), headers, turn }
    }

    /// Begins it.
    pub fn begin(self, door: &Arc<ProxyDoor>) {
        let door = Arc::clone(door);
        tokio::spawn(async move {
            let Self { call, mut headers, turn } = self;
            for name in Turn::CONDITIONS {
                headers.remove(name);
            }
            turn.ask(&mut headers);
            // An answer that did not come leaves what is kept as it is; the next one who asks tries again.
            if let Ok(received) = get(&door, &call, &headers).await {
                drop(turn.settle(received));
            }
        });
    }
}

/// A GET for the cache, which is written down as a call of its own.
async fn get(door: &ProxyDoor, call: &WholeCall, headers: &HeaderMap) -> Result<Received, Answer> {
    let (mut course, clock) = (Course::default(), &door.parts.clock);
    let (at, began) = (clock.now(), clock.monotonic());
    let answered = whole::get(door, call, headers, &mut course).await;
    let (origin, path) = call.place();
    record::apart(
        door,
        CallRecord {
            at,
            generation: call.generation.number,
            integration: Arc::clone(&call.ready.integration.id),
            connection: Arc::clone(&call.ready.common.connection.id),
            asker: Asker::Cache,
            endpoint: None,
            method: Method::GET,
            origin,
            path,
            status: answered.as_ref().ok().map(|received| received.status.as_u16()),
            error: answered.as_ref().err().and_then(Refusal::of).map(|refusal| refusal.code()),
            duration_ms: u64::try_from(clock.monotonic().saturating_sub(began).as_millis()).unwrap_or(u64::MAX),
            sent_bytes: 0,
            received_bytes: answered.as_ref().map_or(0, |received| received.body.len() as u64),
            course,
            told: Told::default(),
        },
    );
    answered
}

impl Kept {
    /// Makes the request ask whether what is kept still holds.
    ///
    /// # Errors
    /// When a header cannot be written.
    pub fn ask(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        let Self::Turn(turn) = self else { return Ok(()) };
        if !turn.renews() {
            return Ok(());
        }
        let mut conditions: HeaderMap = Turn::CONDITIONS
            .into_iter()
            .flat_map(|name| request.headers.get_all(&name).into_iter().map(move |value| (name.clone(), value.clone())))
            .collect();
        turn.ask(&mut conditions);
        for name in Turn::CONDITIONS {
            request.remove_header(&name);
        }
        cache::listed(conditions).try_for_each(|(name, value)| request.append_header(name, value).map(drop))
    }

    /// What becomes of an answer whose head has come, in a word of the cache's metrics where it may be kept; else what
    /// the caller gets instead.
    pub fn head(
        &mut self,
        response: &mut ResponseHeader,
        cache: &cache::Cache,
    ) -> Result<Option<&'static str>, Instead> {
        let status = response.status;
        let Self::Turn(turn) = self else {
            if let Self::Changes(key) = self {
                cache.changed(key, status, &response.headers);
                *self = Self::Apart;
            }
            return Ok(None);
        };
        let passes = turn.verdict();
        match std::mem::take(self) {
            Self::Turn(mut turn) => match turn.head(status, &response.headers, is_framed(response)) {
                Next::Pass(told) => note(response, told),
                Next::Keep(recording, told) => {
                    note(response, told);
                    *self = Self::Recording(recording);
                    if has_no_body(response) {
                        self.ends();
                    }
                }
                Next::Unchanged(answer) => return Err(Instead::Unchanged(answer)),
                Next::Stale(answer) => return Err(Instead::Stale(answer)),
            },
            other => *self = other,
        }
        Ok(Some(passes))
    }

    /// A piece of the body passes.
    pub fn passes(&mut self, piece: &[u8]) {
        if let Self::Recording(recording) = self
            && !recording.push(piece)
        {
            *self = Self::Apart;
        }
    }

    /// All of the answer has come.
    pub fn ends(&mut self) {
        match std::mem::take(self) {
            Self::Recording(recording) => recording.finish(),
            other => *self = other,
        }
    }

    /// The service could not be asked, or broke off: the answer to give instead, where one may be.
    pub fn failed(&mut self) -> Option<Answer> {
        match std::mem::take(self) {
            Self::Turn(mut turn) => turn.failed(),
            _ => None,
        }
    }
}

/// What a caller gets instead of the answer that came.
#[derive(Debug)]
pub enum Instead {
    /// What is kept, which still holds.
    Unchanged(Box<Answer>),
    /// What is kept, since the service failed.
    Stale(Box<Answer>),
}

fn note(response: &mut ResponseHeader, told: HeaderValue) {
    // Names are checked when the program is built; there is no header that could not be added.
    drop(response.append_header(cache::CACHE_STATUS, told));
}

/// Whether the end of an answer's body can be told from a connection that broke off. Of transfer codings only
/// `chunked` has come so far ([`super::headers::settle_framing`]).
fn is_framed(response: &ResponseHeader) -> bool {
    let headers = &response.headers;
    response.version == Version::HTTP_2
        || headers.contains_key(header::TRANSFER_ENCODING)
        || headers.contains_key(header::CONTENT_LENGTH)
        || has_no_body(response)
}

fn has_no_body(response: &ResponseHeader) -> bool {
    let empty = response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length == "0");
    empty || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_ends_with_its_connection_is_not_known_to_be_whole() {
        let head = |version, pairs: &[(&'static str, &'static str)]| {
            let mut head = ResponseHeader::build(200, None).expect("a head");
            head.set_version(version);
            for (name, value) in pairs {
                head.append_header(*name, *value).expect("a header");
            }
            is_framed(&head)
        };
        assert!(!head(Version::HTTP_11, &[]));
        assert!(head(Version::HTTP_11, &[("content-length", "5")]));
        assert!(head(Version::HTTP_11, &[("transfer-encoding", "chunked")]));
        assert!(head(Version::HTTP_2, &[]));
    }
}
