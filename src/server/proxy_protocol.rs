//! The header that a load balancer puts before a connection to say whose it is: PROXY protocol 1 and 2.
//!
//! Only bytes of the header are read, so that what follows is untouched. Whether a peer may send one is
//! decided by the caller, [`super::accept`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What a version 2 header begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 header, and the most that follows the head of a version 2 one.
const LONGEST: (usize, usize) = (107, 4_096);

/// Whose a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// This client's.
    Client(IpAddr),
    /// The load balancer's own, as for its health checks, or one whose client has no IP address.
    Itself,
}

/// Reads a header.
///
/// # Errors
/// As the connection, and `InvalidData` when there is no header or it is not well-formed.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Announced> {
    let mut start = [0; 12];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let [version, family, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST.1 {
            return Err(malformed());
        }
        let mut addresses = vec![0; length];
        stream.read_exact(&mut addresses).await?;
        return version_2(version, family, &addresses).ok_or_else(malformed);
    }
    let mut line = start.to_vec();
    if !line.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST.0 {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    version_1(&line).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the connection does not begin with a PROXY protocol header")
}

fn version_1(line: &[u8]) -> Option<Announced> {
    let line = std::str::from_utf8(line).ok()?.strip_prefix("PROXY ")?.strip_suffix("\r\n")?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Announced::Itself);
    }
    let mut parts = line.split(' ');
    let family = parts.next()?;
    let [from, to] = [parts.next()?, parts.next()?];
    let numbers = [parts.next()?, parts.next()?];
    let port = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    if parts.next().is_some() || !numbers.iter().all(port) {
        return None;
    }
    let client = match family {
        "TCP4" => to.parse::<Ipv4Addr>().ok().and_then(|_| from.parse::<Ipv4Addr>().ok()).map(IpAddr::V4),
        "TCP6" => to.parse::<Ipv6Addr>().ok().and_then(|_| from.parse::<Ipv6Addr>().ok()).map(IpAddr::V6),
        _ => None,
    };
    client.map(|client| Announced::Client(client.to_canonical()))
}

fn version_2(version: u8, family: u8, addresses: &[u8]) -> Option<Announced> {
    match version {
        0x20 => return Some(Announced::Itself),
        0x21 => {}
        _ => return None,
    }
    let client = match family {
        0x11 => IpAddr::from(*addresses.get(..12)?.first_chunk::<4>()?),
        0x21 => IpAddr::from(*addresses.get(..36)?.first_chunk::<16>()?),
        // Unspecified, datagrams, Unix sockets: there is no client address that means anything here.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => return Some(Announced::Itself),
        _ => return None,
    };
    Some(Announced::Client(client.to_canonical()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a header says, and how much behind it is left.
    fn announced(bytes: &[u8]) -> Option<(Announced, usize)> {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(read(&mut rest)).ok().map(|announced| (announced, rest.len()))
    }

    fn client(text: &str) -> Announced {
        Announced::Client(text.parse().expect("an address"))
    }

    fn second(kind: [u8; 2], addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &kind, &length, addresses, b"GET"].concat()
    }

    #[test]
    fn version_1_is_read_to_its_line_end() {
        assert_eq!(announced(b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\nGET"), Some((client("192.0.2.1"), 3)));
        assert_eq!(announced(b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\n"), Some((client("2001:db8::1"), 0)));
        assert_eq!(announced(b"PROXY UNKNOWN\r\nGET"), Some((Announced::Itself, 3)));
        assert_eq!(announced(b"PROXY UNKNOWN a b c\r\n"), Some((Announced::Itself, 0)));
        for wrong in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 5000\r\n",
            "PROXY TCP4 2001:db8::1 10.0.0.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 70000 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +5 443\r\n",
            "PROXY TCP4 192.0.2.1  10.0.0.1 5000 443\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\n",
        ] {
            assert_eq!(announced(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(announced(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).as_bytes()), None, "too long");
    }

    #[test]
    fn version_2_is_read_with_what_follows_its_addresses() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 1, 2, 3, 4, 0x20, 0, 1, 9];
        assert_eq!(announced(&second([0x21, 0x11], &v4)), Some((client("192.0.2.7"), 3)));
        assert_eq!(announced(&second([0x20, 0x00], &[])), Some((Announced::Itself, 3)));
        assert_eq!(announced(&second([0x21, 0x31], &[0; 216])), Some((Announced::Itself, 3)));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        assert_eq!(announced(&second([0x21, 0x21], &v6)), Some((client("2001:db8::"), 3)));
        for (kind, addresses) in
            [([0x11, 0x11], &v4[..]), ([0x21, 0x11], &v4[..11]), ([0x21, 0x44], &v4), ([0x22, 0x11], &v4)]
        {
            assert_eq!(announced(&second(kind, addresses)), None, "{kind:?}");
        }
        assert_eq!(announced(&second([0x21, 0x11], &[0; 4_097])), None, "too long");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), start in 0..3) {
            let start: &[u8] = match start { 0 => b"", 1 => b"PROXY ", _ => SIGNATURE };
            announced(&[start, &bytes].concat());
        }
    }
}
