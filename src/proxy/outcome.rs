//! What is kept of the answer to a durable call: the answer without the connection's credential, however the service
//! repeats it. Called by `durable`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::transform;
use super::whole::WholeCall;
use crate::net::Received;
use crate::queue::Answered;
use crate::respond::Answer;

type Fields = Vec<(HeaderName, HeaderValue)>;

/// An answer as it is kept: without the connection's credential, should the service have repeated it.
pub fn answered(whole: &WholeCall, answer: Answer) -> Answered {
    let plain = |text: &str| Some(whole.redact(text)).filter(|clean| clean != text);
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
    let body = bytes(&body).map_or(body, Bytes::from);
    Answered { status, headers, body }
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
