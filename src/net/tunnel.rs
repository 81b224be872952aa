//! The way through an HTTP proxy: CONNECT, with Basic authentication where the settings have it (RFC 9110
//! section 9.3.6).
//!
//! The proxy's credentials are sent to the proxy alone, and are in no error. Called by `proxy`, which dials for
//! Pingora; the HTTP client of our own calls does the like by itself.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::definition::plan::egress::Proxy;

/// The most bytes of a proxy's answer.
const HEAD: usize = 8 << 10;

/// Why the proxy did not lead on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// It cannot be reached, or closed the connection.
    #[error("the egress proxy cannot be reached: {0}")]
    Unreachable(String),
    /// It does not accept the credentials, or there are none.
    #[error("the egress proxy wants other credentials (407)")]
    Unauthorized,
    /// It refused to connect, or could not.
    #[error("the egress proxy answered {0} to CONNECT")]
    Refused(u16),
    /// What came from it is not an answer to CONNECT.
    #[error("the egress proxy's answer cannot be read")]
    Malformed,
}

/// Asks the proxy at the other end of `stream` for a tunnel to `target`, as `HOST:PORT`. Not a byte from behind
/// the tunnel is read.
///
/// # Errors
/// Why there is none.
pub async fn open<S>(stream: &mut S, proxy: &Proxy, target: &str) -> Result<(), EgressError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: std::io::Error| EgressError::Unreachable(error.kind().to_string());
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str("Proxy-Authorization: ");
        request.push_str(authorization.expose());
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD {
            return Err(EgressError::Malformed);
        }
        head.push(stream.read_u8().await.map_err(broken)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(EgressError::Unauthorized),
        Some(other) => Err(EgressError::Refused(other)),
        None => Err(EgressError::Malformed),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let digits = rest.get(..3).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use std::sync::Arc;

    /// What becomes of a tunnel when the proxy answers so, what it was sent, and what is left behind the answer.
    async fn opened(answer: &'static [u8], authorization: Option<&str>) -> (Result<(), EgressError>, String, Vec<u8>) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
        theirs.write_all(answer).await.expect("there is room");
        let proxy = Proxy {
            host: "proxy.internal".into(),
            port: 3128,
            authorization: authorization.map(|text| Arc::new(Secret::from(text))),
        };
        let result = open(&mut ours, &proxy, "api.example:443").await;
        theirs.shutdown().await.expect("open");
        let mut left = Vec::new();
        ours.read_to_end(&mut left).await.expect("open");
        drop(ours);
        let mut sent = String::new();
        theirs.read_to_string(&mut sent).await.expect("text");
        (result, sent, left)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_and_what_is_behind_it_is_left() {
        let (result, sent, left) = opened(b"HTTP/1.1 200 Established\r\nVia: x\r\n\r\nhello", Some("Basic dTpw")).await;
        assert_eq!((result, &left[..]), (Ok(()), &b"hello"[..]));
        let expected =
            "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic dTpw\r\n\r\n";
        assert_eq!(sent, expected);
        assert!(!opened(b"HTTP/1.0 200 OK\r\n\r\n", None).await.1.contains("Authorization"));
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        for (answer, error) in [
            (&b"HTTP/1.1 407 Who\r\n\r\n"[..], EgressError::Unauthorized),
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", EgressError::Refused(403)),
            (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", EgressError::Refused(502)),
            (b"SSH-2.0-OpenSSH\r\n\r\n", EgressError::Malformed),
            (b"HTTP/1.1 2xx\r\n\r\n", EgressError::Malformed),
        ] {
            assert_eq!(opened(answer, None).await.0, Err(error));
        }
    }
}
