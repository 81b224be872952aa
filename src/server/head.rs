//! Reads one request head from a connection: within its time, within its size, and checked.
//!
//! Waiting for a request holds no memory. The whole head has one deadline, however it trickles in.
//! Called by [`super::connection`].

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::hygiene::{self, Checked, Fault, Upgrades};
use crate::definition::plan::gateway::Limits;
use crate::proxy::stream::DoorStream;
use crate::respond::Refusal;

/// What a head's buffer starts with; most heads fit.
const FIRST: usize = 2 << 10;

/// A head, checked, with whatever came behind it.
#[derive(Debug)]
pub struct Head {
    /// The bytes, for Pingora to parse.
    pub bytes: BytesMut,
    /// What was found out about it.
    pub checked: Checked,
    /// How many of the bytes are behind it.
    pub behind: usize,
}

/// Reads the next head. `None` when the connection is over: closed, idle for too long, or `drain` came
/// true before anything was sent.
///
/// # Errors
/// The [`Fault`] to answer before closing.
pub async fn read(
    stream: &mut DoorStream,
    limits: &Limits,
    upgrades: Upgrades,
    drain: &mut watch::Receiver<bool>,
) -> Result<Option<Head>, Fault> {
    let stopping = async {
        // An error means that whoever would stop us is gone, which is a stop as well.
        drop(drain.wait_for(|stop| *stop).await);
    };
    let waited = tokio::select! {
        biased;
        waited = timeout(limits.idle_timeout, stream.first_bytes(FIRST.min(limits.header_bytes))) => waited,
        () = stopping => return Ok(None),
    };
    let Ok(Ok(first)) = waited else { return Ok(None) };
    if first.is_empty() {
        return Ok(None);
    }
    match timeout(limits.header_timeout, receive(stream, first, limits)).await {
        Ok(Ok(Some((mut bytes, end)))) => {
            let checked = hygiene::check(&bytes[..end], limits, upgrades)?;
            let behind = bytes.len() - end;
            checked.apply(&mut bytes);
            Ok(Some(Head { bytes, checked, behind }))
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Err(fault)) => Err(fault),
        Err(_elapsed) => Err(Fault { refusal: Refusal::RequestTimeout, detail: "the head did not arrive in time" }),
    }
}

/// The bytes up to and beyond the head's end, and where the head ends.
async fn receive(
    stream: &mut DoorStream,
    mut bytes: BytesMut,
    limits: &Limits,
) -> Result<Option<(BytesMut, usize)>, Fault> {
    let mut scan = Scan::default();
    loop {
        if let Some(end) = scan.find_end(&bytes)? {
            if end > limits.header_bytes {
                return Err(too_large(&bytes, limits));
            }
            return Ok(Some((bytes, end)));
        }
        if bytes.len() > limits.header_bytes {
            return Err(too_large(&bytes, limits));
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(bytes.len().max(FIRST));
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}

/// A head that is too large because of its target is refused as such.
pub(super) fn too_large(bytes: &[u8], limits: &Limits) -> Fault {
    let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    if first_line > limits.uri_bytes {
        return Fault { refusal: Refusal::UriTooLong, detail: "the target is too long" };
    }
    Fault { refusal: Refusal::HeadersTooLarge, detail: "the head is too large" }
}

/// Looks for the empty line, each byte once.
#[derive(Debug, Default)]
pub(super) struct Scan {
    at: usize,
    line: usize,
}

impl Scan {
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(feed) = memchr::memchr(b'\n', &bytes[self.at..]) {
            let feed = self.at + feed;
            self.at = feed + 1;
            match bytes[self.line..feed] {
                [b'\r'] if self.line > 0 => return Ok(Some(self.at)),
                // An empty first line would be skipped by some and not by others.
                [.., b'\r'] if feed - self.line > 1 => self.line = self.at,
                _ => {
                    let detail = "a line ends without a carriage return, or the first line is empty";
                    return Err(Fault { refusal: Refusal::MalformedRequest, detail });
                }
            }
        }
        self.at = bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_head_arrives() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
        let mut scan = Scan::default();
        let ends: Vec<_> = (1..=head.len()).filter_map(|n| scan.find_end(&head[..n]).ok().flatten()).collect();
        assert_eq!(ends.first(), Some(&27));
        for bad in [&b"GET / HTTP/1.1\nHost: a\n\n"[..], b"\r\nGET / HTTP/1.1\r\n\r\n", b"\n\n"] {
            assert!(Scan::default().find_end(bad).is_err());
        }
    }
}
