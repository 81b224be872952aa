//! Sends the gateway's own answers: through a Pingora session, or as bytes where there is none yet.
//!
//! Which answer a refusal has is decided in `respond` alone. Called by both doors.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::underway;
use crate::respond::Answer;

/// How long a client may go on to send after it was answered.
const LINGER: Duration = Duration::from_secs(2);

/// Sends an answer and ends the request. The connection closes after it when the answer says so, or
/// when the request's body was not read to its end.
///
/// # Errors
/// When the client is gone.
pub async fn write(session: &mut Session, answer: Answer) -> pingora::Result<()> {
    if answer.close {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(answer.status, Some(answer.headers.len() + 3))?;
    for (name, value) in answer.headers {
        head.append_header(name, value)?;
    }
    let bodiless = matches!(answer.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if !bodiless {
        head.insert_header(header::CONTENT_LENGTH, answer.body.len())?;
    }
    let silent = bodiless || answer.body.is_empty() || session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), silent).await?;
    if silent {
        // Pingora writes a head without its end over HTTP/2, and ends the stream by itself only where no service was
        // asked.
        if underway::stream(session).is_some() {
            session.write_response_body(None, true).await?;
        }
    } else {
        session.write_response_body(Some(answer.body), true).await?;
    }
    // Under HTTP/2 there is no connection to linger on: a client whose stream is reset while it sends may never
    // look at its answer.
    if underway::stream(session).is_some() && !session.is_body_done() {
        session.set_total_drain_timeout(Some(LINGER));
        // Running out of time is as good an end as any.
        drop(session.drain_request_body().await);
    }
    Ok(())
}

/// An answer as HTTP/1.1 bytes, after which the connection closes.
pub fn on_wire(answer: &Answer) -> Bytes {
    let reason = answer.status.canonical_reason().unwrap_or("Refused");
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", answer.status.as_u16()).into_bytes();
    for (name, value) in &answer.headers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", answer.body.len()).as_bytes());
    out.extend_from_slice(&answer.body);
    out.into()
}
