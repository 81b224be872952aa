//! Requests that are sent twice: a change with an `Idempotency-Key` is made once, and whoever sends it again gets the
//! first answer (draft-ietf-httpapi-idempotency-key-header).
//!
//! That a request is under way is durable before it is; its answer is sealed, since it may have a secret, and kept for
//! [`KEPT`]. A key belongs to whoever uses it: two people's same keys are two. The audit log has each answer that is given
//! again first, and nothing is kept of what shows a secret anew ([`MADE_AGAIN`]).

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::config::entry;
use crate::admin::entry::{most_bytes, route};
use crate::admin::refusal::Refused;
use crate::admin::sign_in::Identity;
use crate::admin::{Parts, guard};
use crate::base::clock::Timestamp;
use crate::connection::Vault;
use crate::connection::vault::ANSWERS;
use crate::definition::plan::gateway::Gateway;
use crate::respond::Refusal;
use crate::store::StoreError;
use crate::store::model::RecordKey;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_hours(24);
/// The most characters of a key.
const LONGEST: usize = 255;
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Routes of which no answer is kept, as they are declared: they show what there is, and the audit log has each time.
const MADE_AGAIN: [&str; 1] = ["/api/webhooks/{id}/reveal"];

/// What is kept of a request with a key.
#[derive(Serialize, Deserialize)]
struct Kept {
    at: Timestamp,
    /// Stands for the request.
    request: String,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// It was begun; after a crash it is not known how far it came.
    Begun,
    /// It was answered by more than is kept.
    TooLarge,
    Answered(Answer),
}

#[derive(Serialize, Deserialize)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// A request with a key.
struct Claim {
    place: RecordKey,
    request: String,
    who: Arc<str>,
    /// Its method and path.
    what: String,
}

/// The answers that are kept.
pub struct Answers {
    parts: Arc<Parts>,
    /// When each was begun.
    known: Mutex<BTreeSet<(Timestamp, Arc<str>)>>,
    under_way: Mutex<HashSet<Arc<str>>>,
    read: OnceCell<()>,
}

/// A request that is under way, until it is dropped.
struct Turn {
    answers: Arc<Answers>,
    key: Arc<str>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.answers.under_way).remove(&self.key);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a change with a key be made once.
///
/// # Errors
/// When its key is not one, is another request's, or of one that is under way or whose answer is not kept.
pub async fn once(State(answers): State<Arc<Answers>>, request: Request, next: Next) -> Result<Response, Refused> {
    let is_made_again = MADE_AGAIN.contains(&route(&request));
    if !guard::is_change(request.method()) || !request.headers().contains_key(KEY) || is_made_again {
        return Ok(next.run(request).await);
    }
    let vault = answers.parts.connections.vault().ok_or_else(|| {
        let help = "make a key with `trunkline keys generate`, and name it under `secrets.key`";
        Refused::with_help(Refusal::Conflict, "without a master key no answer is kept, and so no key counts", help)
    })?;
    let (claim, request) = claim(request, &answers.parts.live.load().gateway).await?;
    let turn = answers.turn(&claim)?;
    if let Some(answer) = answers.begin(&vault, &claim).await? {
        return Ok(answer);
    }
    // It goes on when the asker does not wait for it: its answer is what the next one with this key gets.
    let made = tokio::spawn(async move {
        let response = next.run(request).await;
        turn.answers.end(&vault, &claim, response).await
    });
    made.await.map_err(|error| {
        tracing::error!("a request with an idempotency key broke off: {error}");
        Refused::new(Refusal::Internal, "the request broke off")
    })?
}

/// Reads a request whole, so that it can be compared.
async fn claim(request: Request, gateway: &Gateway) -> Result<(Claim, Request), Refused> {
    let key = key_of(request.headers())?;
    let most = most_bytes(&request, gateway);
    let (head, body) = request.into_parts();
    let too_large = |_| Refused::new(Refusal::BodyTooLarge, "the body could not be read to its end, or is too large");
    let body = to_bytes(body, most).await.map_err(too_large)?;
    let who = head.extensions.get::<Identity>().map(|who| Arc::clone(&who.name)).unwrap_or_default();
    let target = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let place =
        RecordKey { collection: Arc::from(ANSWERS.collection), key: digest(&[who.as_bytes(), key.as_bytes()]).into() };
    let request = digest(&[head.method.as_str().as_bytes(), target.as_bytes(), &body]);
    let what = format!("{} {}", head.method, head.uri.path());
    Ok((Claim { place, request, who, what }, Request::from_parts(head, Body::from(body))))
}

/// SHA-256 over parts, each with its length, so that no two lists read the same.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// The key: a string of RFC 8941 §3.3.3, or a word without quotes.
fn key_of(headers: &HeaderMap) -> Result<String, Refused> {
    let refuse = |detail: &str| Refused::new(Refusal::InvalidInput, &format!("`Idempotency-Key`: {detail}"));
    let mut lines = headers.get_all(KEY).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(refuse("it is given twice")) };
    let text = line.to_str().map_err(|_| refuse("it is not text"))?;
    let key = if text.starts_with('"') {
        let item = sfv::Parser::new(text).parse::<sfv::Item>().map_err(|_| refuse("its quotes are not closed"))?;
        item.bare_item.as_string().map(|text| text.as_str().to_owned()).unwrap_or_default()
    } else {
        text.to_owned()
    };
    if !(1..=LONGEST).contains(&key.len()) {
        return Err(refuse("it has 1 to 255 characters"));
    }
    Ok(key)
}

impl Answers {
    /// The answers that the store of these parts keeps, read when the first is asked for.
    pub fn new(parts: Arc<Parts>) -> Self {
        Self { parts, known: Mutex::default(), under_way: Mutex::default(), read: OnceCell::new() }
    }

    fn turn(self: &Arc<Self>, claim: &Claim) -> Result<Turn, Refused> {
        let key = Arc::clone(&claim.place.key);
        if lock(&self.under_way).insert(Arc::clone(&key)) {
            return Ok(Turn { answers: Arc::clone(self), key });
        }
        self.count("under_way");
        let detail = "the request with this `Idempotency-Key` is under way";
        Err(Refused::with_help(Refusal::RequestUnderWay, detail, "send it again in a while for its answer"))
    }

    /// The answer that a request had before. When it had none, it is begun.
    async fn begin(&self, vault: &Vault, claim: &Claim) -> Result<Option<Response>, Refused> {
        let now = self.parts.clock.now();
        self.read_all(vault).await?;
        self.sweep(now).await?;
        let (found, version) = match self.parts.store.get(&claim.place).await? {
            Some((sealed, version)) => (open(vault, &claim.place, &sealed), version),
            None => (None, 0),
        };
        if let Some(kept) = found {
            return self.repeat(kept, claim).await.map(Some);
        }
        self.refuse_full(now)?;
        let begun = Kept { at: now, request: claim.request.clone(), outcome: Outcome::Begun };
        self.parts.store.put(&claim.place, seal(vault, &claim.place, &begun)?, Some(version)).await?;
        lock(&self.known).insert((now, Arc::clone(&claim.place.key)));
        self.count("made");
        Ok(None)
    }

    async fn repeat(&self, kept: Kept, claim: &Claim) -> Result<Response, Refused> {
        if kept.request != claim.request {
            self.count("reused");
            let help = "take a fresh key for each request";
            let detail = "this `Idempotency-Key` is that of another request";
            return Err(Refused::with_help(Refusal::IdempotencyKeyReused, detail, help));
        }
        let help = "look at what there is, and take a fresh key";
        match kept.outcome {
            Outcome::Begun => {
                self.count("not_kept");
                let detail = "the gateway ended while the request was under way: how far it came is not known";
                Err(Refused::with_help(Refusal::AnswerNotKept, detail, help))
            }
            Outcome::TooLarge => {
                self.count("not_kept");
                let detail =
                    "the request was made, and its answer is larger than what is kept (`limits.admin_answer_bytes`)";
                Err(Refused::with_help(Refusal::AnswerNotKept, detail, help))
            }
            Outcome::Answered(answer) => {
                let detail = json!({ "status": answer.status });
                let noted = entry(&self.parts, &claim.who, "answer.replay", format!("request:{}", claim.what), detail);
                self.parts.store.append(noted).await?;
                self.count("replayed");
                answer.replayed().ok_or_else(|| Refused::new(Refusal::AnswerNotKept, "the answer cannot be read"))
            }
        }
    }

    /// Keeps an answer. One that says to come again means that nothing was done, and is forgotten.
    async fn end(&self, vault: &Vault, claim: &Claim, response: Response) -> Result<Response, Refused> {
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(|error| {
            tracing::error!("an answer could not be written: {error}");
            Refused::new(Refusal::Internal, "the answer could not be written")
        })?;
        let kept = if matches!(head.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            self.forget(&claim.place.key).await
        } else {
            let outcome = if body.len() > self.parts.live.load().gateway.limits.admin_answer_bytes {
                self.parts.metrics.admin_limits_reached.with_label_values(&["admin_answer_bytes"]).inc();
                Outcome::TooLarge
            } else {
                Outcome::Answered(Answer::of(head.status, &head.headers, &body))
            };
            self.keep(vault, claim, outcome).await
        };
        if let Err(refused) = kept {
            // What was done is done; whoever asks again is told that its answer is not kept.
            tracing::warn!(problem = %refused.document(), "an answer could not be kept for its idempotency key");
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }

    async fn keep(&self, vault: &Vault, claim: &Claim, outcome: Outcome) -> Result<(), Refused> {
        let kept = Kept { at: self.parts.clock.now(), request: claim.request.clone(), outcome };
        self.parts.store.put(&claim.place, seal(vault, &claim.place, &kept)?, None).await?;
        Ok(())
    }

    async fn forget(&self, key: &Arc<str>) -> Result<(), Refused> {
        lock(&self.known).retain(|(_, known)| known != key);
        let place = RecordKey { collection: Arc::from(ANSWERS.collection), key: Arc::clone(key) };
        Ok(self.parts.store.remove(&place).await?)
    }

    /// Forgets what is older than [`KEPT`].
    async fn sweep(&self, now: Timestamp) -> Result<(), Refused> {
        let old: Vec<Arc<str>> = {
            let known = lock(&self.known);
            known.iter().take_while(|(at, _)| now.since(*at) >= KEPT).map(|(_, key)| Arc::clone(key)).collect()
        };
        for key in old {
            self.forget(&key).await?;
        }
        Ok(())
    }

    fn refuse_full(&self, now: Timestamp) -> Result<(), Refused> {
        let (count, oldest) = {
            let known = lock(&self.known);
            (known.len(), known.first().map(|(at, _)| *at))
        };
        self.parts
            .metrics
            .idempotent_answers
            .with_label_values::<&str>(&[])
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        if count < self.parts.live.load().gateway.limits.admin_answers {
            return Ok(());
        }
        self.count("full");
        let wait = oldest.map_or(KEPT, |oldest| KEPT.saturating_sub(now.since(oldest)));
        let detail = "as many answers are kept for their keys as `limits.admin_answers` allows";
        Err(Refusal::Unavailable.answer_after(detail, wait).into())
    }

    /// Reads when each was begun; what does not open is of no use any more.
    async fn read_all(&self, vault: &Vault) -> Result<(), StoreError> {
        let read = async || {
            for place in self.parts.store.keys(ANSWERS.collection).await? {
                let Some((sealed, _)) = self.parts.store.get(&place).await? else { continue };
                match open(vault, &place, &sealed) {
                    Some(kept) => drop(lock(&self.known).insert((kept.at, Arc::clone(&place.key)))),
                    None => self.parts.store.remove(&place).await?,
                }
            }
            Ok(())
        };
        self.read.get_or_try_init(read).await.copied()
    }

    fn count(&self, result: &str) {
        self.parts.metrics.idempotent_requests.with_label_values(&[result]).inc();
    }
}

fn seal(vault: &Vault, place: &RecordKey, kept: &Kept) -> Result<Bytes, Refused> {
    let plain = serde_json::to_vec(kept).map(zeroize::Zeroizing::new);
    let plain = plain.map_err(|_| Refused::new(Refusal::Internal, "an answer could not be written"))?;
    let sealed = vault.seal(place, ANSWERS.field, &plain);
    sealed.map(Bytes::from).map_err(|error| Refused::new(Refusal::Unavailable, &error.to_string()))
}

fn open(vault: &Vault, place: &RecordKey, sealed: &[u8]) -> Option<Kept> {
    let plain = vault.open(place, ANSWERS.field, sealed).ok()?;
    serde_json::from_slice(plain.expose()).ok()
}

impl Answer {
    fn of(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Self {
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        };
        Self {
            status: status.as_u16(),
            headers: headers.iter().filter_map(text).collect(),
            body: STANDARD.encode(body),
        }
    }

    fn replayed(self) -> Option<Response> {
        let mut response = Response::new(Body::from(STANDARD.decode(self.body).ok()?));
        *response.status_mut() = StatusCode::from_u16(self.status).ok()?;
        for (name, value) in self.headers {
            response.headers_mut().append(name.parse::<HeaderName>().ok()?, value.parse().ok()?);
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<String> {
        key_of(&HeaderMap::from_iter([(KEY, text.parse().expect("a value"))])).ok()
    }

    #[test]
    fn keys_are_strings_or_words() {
        assert_eq!(key("\"a b\\\"c\"").as_deref(), Some("a b\"c"));
        assert_eq!(
            key("8e03978e-40d5-43dd-bc93-6894a57f9324").as_deref(),
            Some("8e03978e-40d5-43dd-bc93-6894a57f9324")
        );
        assert_eq!(key("\"a").or(key("\"\"")).or(key("")).or(key(&"k".repeat(256))), None);
        let twice = HeaderMap::from_iter([(KEY, "a".parse().expect("a value"))]);
        let mut twice = twice;
        twice.append(KEY, "b".parse().expect("a value"));
        assert!(key_of(&twice).is_err());
    }

    #[test]
    fn an_answer_comes_back_as_it_was_and_says_that_it_does() {
        let headers =
            HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let answer = Answer::of(StatusCode::CREATED, &headers, &Bytes::from_static(b"{\"a\":1}"));
        let response = answer.replayed().expect("an answer");
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()[http::header::CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[REPLAYED], "true");
    }

    #[test]
    fn parts_of_a_digest_do_not_run_into_each_other() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
    }
}
