//! One TCP connection to any of several addresses, without waiting for each in turn (RFC 8305).
//!
//! Called by `proxy`, which dials for Pingora; the HTTP client of our own calls does the like by itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long an attempt has before the next address is tried beside it.
const DELAY: Duration = Duration::from_millis(250);

/// Connects to the first address that answers, in their order. An attempt that fails gives way to the next at
/// once; one that is silent has 250 ms before the next is begun beside it. There is no time limit here.
///
/// # Errors
/// That of the attempt that failed last.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut rest = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match rest.next() {
            Some(address) => attempts.push(TcpStream::connect(*address)),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        let more = !rest.as_slice().is_empty();
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            },
            () = tokio::time::sleep(DELAY), if more => {}
        }
    }
}

/// Addresses in the order to try them: families in turn, IPv6 first (RFC 8305 section 4), and within a family as
/// they were given.
pub fn in_turn(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let (six, four): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv6());
    let longest = six.len().max(four.len());
    (0..longest).flat_map(|place| [six.get(place), four.get(place)]).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    #[test]
    fn families_take_turns() {
        let parsed = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|text| text.parse().expect("ip")).collect() };
        let given = parsed(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"]);
        assert_eq!(in_turn(&given), parsed(&["fd00::1", "10.0.0.1", "fd00::2", "10.0.0.2", "10.0.0.3"]));
        assert_eq!(in_turn(&parsed(&["10.0.0.1"])), parsed(&["10.0.0.1"]));
    }

    /// A listener whose queue is full: connecting to it stays without an answer.
    async fn silent() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let listener = socket.listen(1).expect("listens");
        let address = listener.local_addr().expect("an address");
        let mut held = Vec::new();
        while let Ok(Ok(stream)) = tokio::time::timeout(DELAY, TcpStream::connect(address)).await {
            held.push(stream);
        }
        (address, held, listener)
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_next() {
        let (silent, _held, _listener) = silent().await;
        let answering = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        let good = answering.local_addr().expect("an address");
        let stream = tokio::time::timeout(Duration::from_secs(10), connect(&[silent, good])).await;
        let peer = stream.expect("in time").expect("connects").peer_addr().expect("a peer");
        assert_eq!(peer, good);
    }

    #[tokio::test]
    async fn what_fails_gives_way_and_the_last_failure_is_told() {
        let answering = TcpListener::bind("[::1]:0").await.expect("listens");
        let good = answering.local_addr().expect("an address");
        let closed = TcpListener::bind("127.0.0.1:0").await.and_then(|it| it.local_addr()).expect("an address");
        assert!(connect(&[closed, good]).await.is_ok());
        let error = connect(&[closed, closed]).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect(&[]).await.is_err());
    }
}
