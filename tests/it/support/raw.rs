//! A client that sends exactly the bytes it is given.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::doors::KEY;

/// The longest that any test waits for the other side.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The gateway's error code, where the answer is the gateway's own.
    pub fn code(&self) -> Option<&str> {
        self.header("trunkline-error")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// A connection to a door.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn open(door: SocketAddr) -> Self {
        let stream = TcpStream::connect(door).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Bytes up to and with `end`.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let reading = async {
            let mut byte = [0];
            while !bytes.ends_with(end) {
                if self.0.read(&mut byte).await.unwrap_or(0) == 0 {
                    return false;
                }
                bytes.push(byte[0]);
            }
            true
        };
        let whole = timeout(PATIENCE, reading).await.expect("the other side is silent");
        assert!(whole, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes
    }

    /// A head, without its last empty line.
    pub async fn head(&mut self) -> String {
        let head = self.until(b"\r\n\r\n").await;
        String::from_utf8_lossy(&head).trim_end().to_owned()
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("silent").expect("closed");
        bytes
    }

    /// The answer to a HEAD, which has no body whatever its head says.
    pub async fn head_only(&mut self) -> Reply {
        let head = self.head().await;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Reply { status, head, body: Vec::new() }
    }

    /// One answer, by its framing.
    pub async fn reply(&mut self) -> Reply {
        let mut head = self.head().await;
        while head.starts_with("HTTP/1.1 1") && !head.starts_with("HTTP/1.1 101") {
            head = self.head().await;
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut reply = Reply { status, head, body: Vec::new() };
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.until(b"\r\n").await;
                let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a size");
                let chunk = self.exactly(size + 2).await;
                reply.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = reply.header("content-length").and_then(|length| length.parse().ok()) {
            reply.body = self.exactly(length).await;
        }
        reply
    }

    /// All that comes until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it is closed").expect("read");
        rest
    }

    /// Whether the other side closes, whatever it still sends before.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.is_ok()
    }
}

/// Sends a whole request and reads one answer.
pub async fn send(door: SocketAddr, bytes: impl AsRef<[u8]>) -> Reply {
    let mut wire = Wire::open(door).await;
    wire.send(bytes).await;
    wire.reply().await
}

/// A call through the proxy door with the caller's key: `headers` are whole lines.
pub async fn call(door: SocketAddr, first_line: &str, headers: &str, body: &str) -> Reply {
    let framing = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    send(
        door,
        format!(
            "{first_line} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n{headers}{framing}\r\n{body}"
        ),
    )
    .await
}
