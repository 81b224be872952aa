//! What an endpoint's `transform` changes in calls that pass: headers and JSON bodies, both ways.
//!
//! A changed message has its framing written anew by whoever sends it, and loses what described the body that
//! it had. Called by [`super::whole`].

use std::io::Read;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use minijinja::value::Value;

use crate::base::clock::Timestamp;
use crate::definition::plan::api::{Api, Change, Endpoint, Errors, Transform};
use crate::net::Received;
use crate::request::answer::{AnswerError, body_value};
use crate::respond::{Answer, Refusal};
use crate::template::{Context, Headers, TemplateError, TemplateErrorKind};

/// Why an answer cannot be given.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// A template gave no value.
    #[error("`transform.{0}`: {1}")]
    Template(&'static str, TemplateError),
    /// What the caller sent cannot be read, so that it cannot be changed.
    #[error(
        "`transform.request` reads the body: send it as UTF-8 text or JSON, as its content type says, and not compressed"
    )]
    Unread,
    /// The answer's body cannot be read, so that it cannot be changed.
    #[error("the service's answer cannot be changed: {0}")]
    Unreadable(&'static str),
    /// The definition says that the answer is an error.
    #[error(transparent)]
    NoSuccess(#[from] AnswerError),
}

impl TransformError {
    /// What the caller gets. `plain` takes the connection's credential out of a service's words.
    pub fn answer(&self, plain: impl Fn(&str) -> String) -> Answer {
        match self {
            Self::Template(..) => Refusal::DefinitionFailed.answer(&self.to_string()),
            Self::Unread => Refusal::UnsupportedMediaType.answer(&self.to_string()),
            Self::Unreadable(_) => Refusal::ServiceAnswerInvalid.answer(&self.to_string()),
            Self::NoSuccess(error) => {
                let words = plain(&error.to_string());
                match error {
                    AnswerError::Refused { retry_after: Some(wait), .. } => error.refusal().answer_after(&words, *wait),
                    _ => error.refusal().answer(&words),
                }
            }
        }
    }
}

/// Whether an answer must be read as what it says, so that its caller cannot have a part of it or its mere
/// being unchanged.
pub fn reads_answers(transform: &Transform) -> bool {
    transform.errors == Errors::Problem || transform.response.as_ref().is_some_and(|change| change.json.is_some())
}

/// Changes a request. `seen` is what its templates see besides headers and body.
///
/// # Errors
/// When a template gives no value; where that is because the body cannot be read, the error is the caller's.
pub fn request(change: &Change, seen: Context, headers: &mut HeaderMap, body: Bytes) -> Result<Bytes, TransformError> {
    let sent = body_value(headers, &body);
    let context = seen.with("headers", visible(headers)).with_lazy("body", sent.clone());
    changed(change, &context, headers, body).map_err(|error| {
        if sent().is_undefined() { TransformError::Unread } else { TransformError::Template("request", error) }
    })
}

/// Changes an answer. `seen` is what its templates see besides status, headers and body.
///
/// # Errors
/// When a template gives no value, the body cannot be read, or the answer is an error where the endpoint wants
/// to know.
pub fn response(
    (endpoint, api): (&Endpoint, &Api),
    seen: Context,
    received: Received,
    now: Timestamp,
) -> Result<Received, TransformError> {
    let Some(transform) = &endpoint.transform else { return Ok(received) };
    let failed = received.status.as_u16() >= 400;
    let received = match decoded(&received, transform.max_body) {
        Ok(None) => received,
        Ok(Some(decoded)) => decoded,
        // A service's own error passes as it is.
        Err(_) if failed => return Ok(received),
        Err(reason) => return Err(TransformError::Unreadable(reason)),
    };
    if transform.errors == Errors::Problem && !failed {
        let answer = crate::request::Answer::of(received.clone());
        let context = answer.seen(&seen);
        if !answer.holds(endpoint.request.ok.as_ref().or(api.ok.as_ref()), &context)? {
            let words = endpoint.request.error.as_ref().or(api.error.as_ref());
            return Err(answer.refused(words, &context, now).into());
        }
    }
    let Some(change) = transform.response.as_ref().filter(|change| applies(change, &received)) else {
        return Ok(received);
    };
    let Received { status, mut headers, body, framed, led } = received;
    let context = seen
        .with("status", status.as_u16())
        .with("headers", visible(&headers))
        .with_lazy("body", body_value(&headers, &body));
    let body = changed(change, &context, &mut headers, body);
    let body = body.map_err(|error| TransformError::Template("response", error))?;
    Ok(Received { status, headers, body, framed, led })
}

/// Whether an answer has what a change changes. One without a body stays without; an error that is not in JSON
/// is not what templates are written for, and says more as it is.
fn applies(change: &Change, received: &Received) -> bool {
    let bodiless =
        matches!(received.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED);
    let foreign = || serde_json::from_slice::<serde::de::IgnoredAny>(&received.body).is_err();
    change.json.is_none() || !(bodiless || received.status.as_u16() >= 400 && foreign())
}

/// Applies a change to headers and body.
fn changed(change: &Change, context: &Context, headers: &mut HeaderMap, body: Bytes) -> Result<Bytes, TemplateError> {
    let mut set = Vec::with_capacity(change.headers.len());
    for (name, text) in &change.headers {
        let value =
            if text.value(context)?.is_null() { None } else { Some(header_value(name, &text.render(context)?)?) };
        set.push((name, value));
    }
    let new = change.json.as_ref().map(|tree| tree.render(context)).transpose()?;
    if new.is_some() {
        for name in OF_A_BODY {
            headers.remove(name);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in set {
        match value {
            Some(value) => drop(headers.insert(name.clone(), value)),
            None => drop(headers.remove(name)),
        }
    }
    Ok(new.map_or(body, |new| Bytes::from(new.to_string())))
}

/// What describes a body that is replaced. `Content-Type` is among it, and may be set by the change itself.
const OF_A_BODY: [&str; 11] = [
    "content-type",
    "content-encoding",
    "content-language",
    "content-location",
    "content-range",
    "content-md5",
    "content-digest",
    "repr-digest",
    "digest",
    "accept-ranges",
    "etag",
];

fn header_value(name: &HeaderName, text: &str) -> Result<HeaderValue, TemplateError> {
    HeaderValue::from_str(text).map_err(|_| TemplateError {
        kind: TemplateErrorKind::WrongType,
        message: format!("`{name}` would hold characters that no header can carry"),
        range: None,
    })
}

fn visible(headers: &HeaderMap) -> Value {
    Headers::from_pairs(headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))))
}

/// An answer with its body as it was before it was compressed, `None` where it is not: some services compress
/// whatever they are asked for. The bound is that of the body that is changed, so that a small one cannot become
/// any size.
pub fn decoded(received: &Received, most: u64) -> Result<Option<Received>, &'static str> {
    let codings: Vec<_> = received.headers.get_all(header::CONTENT_ENCODING).into_iter().collect();
    let reader: Box<dyn Read + '_> = match codings.as_slice() {
        [] => return Ok(None),
        [one] if received.body.is_empty() || one.as_bytes().eq_ignore_ascii_case(b"identity") => return Ok(None),
        [one] if is_gzip(one) => Box::new(MultiGzDecoder::new(&received.body[..])),
        [one] if one.as_bytes().eq_ignore_ascii_case(b"deflate") => Box::new(ZlibDecoder::new(&received.body[..])),
        _ => return Err("its body is compressed in a way that was not asked for"),
    };
    let mut body = Vec::new();
    let read = reader.take(most.saturating_add(1)).read_to_end(&mut body);
    if body.len() as u64 > most {
        return Err("its body has more bytes than `transform.max_body`");
    }
    read.map_err(|_| "its body is not compressed as it says")?;
    let mut headers = received.headers.clone();
    for name in [header::CONTENT_ENCODING, header::ETAG, header::ACCEPT_RANGES] {
        headers.remove(name);
    }
    Ok(Some(Received { headers, body: Bytes::from(body), ..received.clone() }))
}

fn is_gzip(coding: &HeaderValue) -> bool {
    [&b"gzip"[..], b"x-gzip"].iter().any(|known| coding.as_bytes().eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::read::GzEncoder;

    fn gzip(text: &[u8]) -> Bytes {
        let mut packed = Vec::new();
        GzEncoder::new(text, Compression::default()).read_to_end(&mut packed).expect("compresses");
        packed.into()
    }

    fn answer(coding: &'static str, body: Bytes) -> Received {
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(coding))]);
        Received { status: StatusCode::OK, headers, body, framed: true, led: false }
    }

    #[test]
    fn a_compressed_answer_is_read_and_never_beyond_its_bound() {
        let read = |coding, body, most| decoded(&answer(coding, body), most).map(|read| read.map(|read| read.body));
        assert_eq!(read("gzip", gzip(b"{\"a\":1}"), 100), Ok(Some(Bytes::from_static(b"{\"a\":1}"))));
        assert_eq!(read("identity", gzip(b"{}"), 100), Ok(None));
        assert!(read("GZIP", gzip(&vec![b' '; 1_000_000]), 1_000).is_err_and(|why| why.contains("max_body")));
        assert!(read("gzip", Bytes::from_static(b"{}"), 100).is_err());
        assert!(read("br", gzip(b"{}"), 100).is_err());
        let truncated = gzip(b"{\"a\":1}").slice(..15);
        assert!(read("gzip", truncated, 100).is_err());
    }
}
