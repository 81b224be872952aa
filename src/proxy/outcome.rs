//! What is kept of the answer to a durable call: the answer without the connection's credential, however the service
//! repeats it. Called by `durable`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use serde_json::Value;

use super::transform;
use super::whole::WholeCall;
use crate::base::json;
use crate::net::Received;
use crate::queue::Answered;
use crate::respond::Answer;

type Fields = Vec<(HeaderName, HeaderValue)>;

/// An answer as it is kept: without the connection's credential, should the service have repeated it. JSON stays JSON, with
/// its names and numbers.
pub fn answered(whole: &WholeCall, answer: Answer) -> Answered {
    let plain = |text: &str| Some(whole.redact_whole(text)).filter(|clean| clean != text);
    let bytes = |bytes: &[u8]| match str::from_utf8(bytes) {
        Ok(text) => plain(text).map(String::into_bytes),
        // Byte for byte, so that what is no text stays what it is around the credential.
        Err(_) => plain(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>())
            .map(|clean| clean.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect()),
    };
    let Answer { status, headers, body, .. } = answer;
    let (mut headers, body) = readable(headers, body, whole.max_body());
    for (_, value) in &mut headers {
        if let Some(clean) = bytes(value.as_bytes()) {
            *value = HeaderValue::try_from(clean).unwrap_or(HeaderValue::from_static(""));
        }
    }
    // JSON is put together anew, and looked through once more: what of the credential is a part of a name, or is JSON
    // itself, is found in the whole alone.
    let in_json = || in_json(&body, &plain).filter(|json| bytes(json).is_none());
    let body = bytes(&body).map_or(body.clone(), |clean| in_json().unwrap_or(clean).into());
    Answered { status, headers, body }
}

/// A body that is JSON with `plain` texts, numbers and names; `None` where it is none, or has a name twice: then what was
/// taken out of its text stands.
fn in_json(body: &[u8], plain: &dyn Fn(&str) -> Option<String>) -> Option<Vec<u8>> {
    let readable = json::lossless(body).ok().filter(|readable| json::has_distinct_names(readable))?;
    let value: Value = serde_json::from_slice(&readable).ok()?;
    serde_json::to_vec(&cleaned(value, plain)).ok()
}

fn cleaned(value: Value, plain: &dyn Fn(&str) -> Option<String>) -> Value {
    match value {
        Value::String(text) => Value::String(plain(&text).unwrap_or(text)),
        Value::Number(number) => match plain(&number.to_string()) {
            Some(clean) => Value::String(clean),
            None => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(|item| cleaned(item, plain)).collect(),
        Value::Object(map) => {
            map.into_iter().map(|(name, item)| (plain(&name).unwrap_or(name), cleaned(item, plain))).collect()
        }
        other => other,
    }
}

/// Headers and body without compression, which nobody asked for. A body that cannot be read is left out: nobody knows
/// whether the credential is in it.
fn readable(headers: Fields, body: Bytes, most: u64) -> (Fields, Bytes) {
    if headers.iter().all(|(name, _)| name != header::CONTENT_ENCODING) {
        return (headers, body);
    }
    let all: HeaderMap = headers.iter().cloned().collect();
    let received = Received { status: StatusCode::OK, headers: all, body, framed: true, led: false };
    let body = match transform::decoded(&received, most) {
        Ok(Some(decoded)) => decoded.body,
        Ok(None) => received.body,
        Err(_) => Bytes::new(),
    };
    let gone = [header::CONTENT_ENCODING, header::ETAG, header::ACCEPT_RANGES, header::CONTENT_LENGTH];
    (headers.into_iter().filter(|(name, _)| !gone.contains(name)).collect(), body)
}
