//! Conditional requests (RFC 9110 §13): what the asker has is not sent again, and nothing is changed that is not any more
//! as the asker knows it.
//!
//! A JSON answer to GET has a strong `ETag`: the digest of its body. A change with `If-Match` happens only while GET of the
//! same path would answer with that tag; where the last part of a path says what is done (`…/rotate`), the path before
//! it counts. Changes with a condition have their path to themselves, so that no other request comes between.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use tokio::sync::RwLock;

use crate::admin::Entered;
use crate::admin::refusal::Refused;
use crate::admin::sign_in::Identity;
use crate::respond::Refusal;

/// Places at which changes wait for each other; paths share them by their hash.
const TURNS: usize = 64;

/// What conditions are judged by.
pub struct Conditions {
    /// The routes, behind everything that judges who asks.
    reads: Router,
    /// The paths that GET is for, as routes.
    readable: HashSet<String>,
    turns: Vec<RwLock<()>>,
}

impl Conditions {
    /// Conditions over these routes, of which those paths can be read.
    pub fn new(reads: Router, readable: HashSet<String>) -> Self {
        Self { reads, readable, turns: (0..TURNS).map(|_| RwLock::default()).collect() }
    }

    /// The path whose tag counts for a change at this one.
    fn place<'a>(&self, route: &str, path: &'a str) -> Option<&'a str> {
        if self.readable.contains(route) {
            return Some(path);
        }
        let (above, _) = route.rsplit_once('/')?;
        path.rsplit_once('/').map(|(place, _)| place).filter(|_| self.readable.contains(above))
    }

    fn turn(&self, place: &str) -> Option<&RwLock<()>> {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let hash = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default();
        self.turns.get(hash)
    }

    /// The tag that GET of a path answers with now; `None` where it answers with none. It is asked for by whoever
    /// wants the change.
    async fn tag(&self, asked: Request) -> Option<HeaderValue> {
        let answer = TowerToHyperService::new(self.reads.clone()).call(asked).await.ok()?;
        if !has_tag(&answer) {
            return None;
        }
        tag_of(&to_bytes(answer.into_body(), usize::MAX).await.ok()?)
    }
}

/// The request to read a place, by whoever wants a change.
fn reading(place: &str, change: &Request) -> Option<Request> {
    let mut asked = Request::get(place).body(Body::empty()).ok()?;
    let known = change.extensions();
    known.get::<Identity>().cloned().and_then(|who| asked.extensions_mut().insert(who));
    known.get::<Entered>().cloned().and_then(|entered| asked.extensions_mut().insert(entered));
    Some(asked)
}

/// Judges the conditions of a request.
///
/// # Errors
/// When what is to be changed is not what the asker knows.
pub async fn judge(
    State(conditions): State<Arc<Conditions>>,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return read(request, next).await;
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let place = conditions.place(route, request.uri().path());
    let Some(turn) = conditions.turn(place.unwrap_or(request.uri().path())) else {
        return Err(Refused::new(Refusal::Internal, "there is no turn for this path"));
    };
    if !request.headers().contains_key(header::IF_MATCH) {
        let _with_others = turn.read().await;
        return Ok(next.run(request).await);
    }
    let _alone = turn.write().await;
    let tag = match place.and_then(|place| reading(place, &request)) {
        Some(asked) => conditions.tag(asked).await,
        None => None,
    };
    if !tag.is_some_and(|tag| names(request.headers(), header::IF_MATCH, &tag)) {
        let detail = "it is not any more what `If-Match` names, or GET answers with no `ETag` there";
        return Err(Refused::with_help(Refusal::PreconditionFailed, detail, "read it again, and decide anew"));
    }
    Ok(next.run(request).await)
}

async fn read(request: Request, next: Next) -> Result<Response, Refused> {
    let asked: HeaderMap = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .map(|value| (header::IF_NONE_MATCH, value.clone()))
        .collect();
    let response = next.run(request).await;
    if !has_tag(&response) {
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|error| {
        tracing::error!("an answer could not be written: {error}");
        Refused::new(Refusal::Internal, "the answer could not be written")
    })?;
    // The answer to HEAD has lost its body before it comes here.
    let Some(tag) = tag_of(&body).filter(|_| !body.is_empty()) else {
        return Ok(Response::from_parts(head, Body::from(body)));
    };
    let known = weakly(&asked, &tag);
    head.headers.insert(header::ETAG, tag);
    head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if known {
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        head.headers.remove(header::CONTENT_LENGTH);
        return Ok(Response::from_parts(head, Body::empty()));
    }
    Ok(Response::from_parts(head, Body::from(body)))
}

/// Whether an answer is of a kind that has a tag.
fn has_tag(answer: &Response) -> bool {
    let kind = answer.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    answer.status() == StatusCode::OK && kind == Some(b"application/json")
}

fn tag_of(body: &Bytes) -> Option<HeaderValue> {
    let digest = Sha256::digest(body);
    let tag = digest.iter().take(16).fold(String::from("\""), |tag, byte| format!("{tag}{byte:02x}")) + "\"";
    HeaderValue::from_str(&tag).ok()
}

/// Whether a list of tags has this one, or is `*`.
fn names(headers: &HeaderMap, list: HeaderName, tag: &HeaderValue) -> bool {
    let lines = headers.get_all(list).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).any(|known| known == "*" || *tag == known)
}

/// The same, where it does not matter whether a tag is weak.
fn weakly(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let lines = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    let mut tags = lines.flat_map(|line| line.split(',')).map(str::trim);
    tags.any(|known| known == "*" || *tag == known.strip_prefix("W/").unwrap_or(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a value"))])
    }

    #[test]
    fn reading_takes_weak_tags_and_changing_does_not() {
        let tag = HeaderValue::from_static("\"a\"");
        let given = ["\"a\"", "\"b\", \"a\"", "*", "W/\"a\"", "\"b\"", "a"];
        let reads = given.map(|text| weakly(&headers(header::IF_NONE_MATCH, text), &tag));
        assert_eq!(reads, [true, true, true, true, false, false]);
        let changes = given.map(|text| names(&headers(header::IF_MATCH, text), header::IF_MATCH, &tag));
        assert_eq!(changes, [true, true, true, false, false, false]);
    }

    #[test]
    fn the_tag_of_a_change_is_that_of_its_path_or_of_the_one_above() {
        let readable = ["/api/webhooks/{id}", "/api/keys"].map(str::to_owned).into();
        let conditions = Conditions::new(Router::new(), readable);
        assert_eq!(conditions.place("/api/webhooks/{id}", "/api/webhooks/a"), Some("/api/webhooks/a"));
        assert_eq!(conditions.place("/api/webhooks/{id}/rotate", "/api/webhooks/a/rotate"), Some("/api/webhooks/a"));
        assert_eq!(conditions.place("/api/keys/rotate", "/api/keys/rotate"), Some("/api/keys"));
        assert_eq!(conditions.place("/api/reload", "/api/reload"), None);
    }
}
