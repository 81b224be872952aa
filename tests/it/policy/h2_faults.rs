//! Faults of a service that speaks HTTP/2: the connection is cut at every byte of either direction, streams are reset
//! and connections sent away. No POST without a key reaches the service twice.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use trunkline::base::clock::{Clock, ManualClock, Timestamp};
use trunkline::definition::plan::Integration;
use trunkline::definition::plan::api::{Endpoint, Errors, HttpVersions, Transform};

use super::retries::{conversation, named, retry};
use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::{read_head, serve};
use crate::support::raw::Wire;
use crate::support::tls::Authority;

/// What happens to the first connection, or to the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It ends after so many bytes from the gateway.
    Request(usize),
    /// It ends after so many bytes to the gateway.
    Answer(usize),
    /// The stream is reset at once.
    Reset(Reason),
    /// The stream is reset after the answer's head.
    ResetAfterHead,
    /// The connection is sent away by GOAWAY at once, which ends the stream.
    GoAway(Reason),
    /// The connection is sent away, and what is under way is answered.
    GoAwayGently,
    /// An answer that has no body comes with one.
    BodyOfNone,
}

/// A stream of which one direction ends early.
struct Cut {
    inner: TlsStream<TcpStream>,
    up: usize,
    down: usize,
}

impl AsyncRead for Cut {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut bytes = vec![0; self.up.min(into.remaining())];
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(&mut bytes);
        let read = Pin::new(&mut self.inner).poll_read(context, &mut part);
        into.put_slice(part.filled());
        self.up -= part.filled().len();
        read
    }
}

impl AsyncWrite for Cut {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let most = self.down.min(bytes.len());
        if most == 0 {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut self.inner).poll_write(context, &bytes[..most]);
        if let Poll::Ready(Ok(count)) = written {
            self.down -= count;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

fn answered(mut respond: SendResponse<Bytes>) {
    let head = http::Response::builder().header("content-length", 4).body(()).unwrap();
    // Either fails where the connection is cut.
    if let Ok(mut body) = respond.send_response(head, false) {
        drop(body.send_data("done".into(), true));
    }
}

/// One connection of the service. `fault` is that of the first one.
async fn converse(stream: TlsStream<TcpStream>, fault: Option<Fault>, reached: Arc<AtomicUsize>) {
    let (up, down) = match fault {
        Some(Fault::Request(bytes)) => (bytes, usize::MAX),
        Some(Fault::Answer(bytes)) => (usize::MAX, bytes),
        _ => (usize::MAX, usize::MAX),
    };
    let Ok(mut connection) = h2::server::handshake(Cut { inner: stream, up, down }).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        reached.fetch_add(1, Ordering::SeqCst);
        match fault {
            Some(Fault::Reset(reason)) => respond.send_reset(reason),
            Some(Fault::ResetAfterHead) => {
                let head = http::Response::builder().header("content-length", 4).body(()).unwrap();
                respond.send_response(head, false).unwrap().send_reset(Reason::INTERNAL_ERROR);
            }
            Some(Fault::BodyOfNone) => {
                let head = http::Response::builder().status(204).body(()).unwrap();
                respond.send_response(head, false).unwrap().send_data("HTTP/1.1 200 OK".into(), true).unwrap();
            }
            Some(Fault::GoAway(reason)) => connection.abrupt_shutdown(reason),
            Some(Fault::GoAwayGently) => {
                connection.graceful_shutdown();
                answered(respond);
            }
            _ => answered(respond),
        }
    }
}

/// Makes one call to a service with this fault; what the caller got, and how often the service was reached.
async fn calling(acceptor: &TlsAcceptor, authority: &Authority, method: &str, fault: Fault) -> (String, usize) {
    calling_by(acceptor, authority, (method, fault), false).await
}

/// The same; `whole` is a call that is read whole and made by the gateway's own client.
async fn calling_by(
    acceptor: &TlsAcceptor,
    authority: &Authority,
    (method, fault): (&str, Fault),
    whole: bool,
) -> (String, usize) {
    let (reached, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, acceptor) = (Arc::clone(&reached), acceptor.clone());
    let address = serve(move |stream| {
        let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
        let fault = (!begun.swap(true, Ordering::SeqCst)).then_some(fault);
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, fault, count).await;
            }
        }
    })
    .await;
    let mut integration = service(&format!("https://localhost:{}", address.port()));
    let api = integration.api.as_mut().unwrap();
    (api.transport.ca, api.transport.allow_private) = (Some(authority.trusted()), true);
    api.policy = retry(None);
    if whole {
        let transform = Transform { request: None, response: None, errors: Errors::Pass, max_body: 1_000 };
        api.endpoints = vec![Endpoint { transform: Some(transform), ..named(http::Method::POST) }];
    }
    let setup = Setup { names: vec![("localhost", vec!["127.0.0.1"])], ..Setup::of(integration) };
    let doors = Doors::start(setup);
    let text = conversation(&doors, method, if method == "GET" { "" } else { "hello" }).await;
    (text, reached.load(Ordering::SeqCst))
}

/// More bytes than a call has in either direction, so that the last cuts come too late to matter.
const REQUEST: usize = 420;
const ANSWER: usize = 160;

const FAULTS: [Fault; 8] = [
    Fault::Reset(Reason::REFUSED_STREAM),
    Fault::Reset(Reason::INTERNAL_ERROR),
    Fault::Reset(Reason::CANCEL),
    Fault::Reset(Reason::NO_ERROR),
    Fault::ResetAfterHead,
    Fault::GoAway(Reason::NO_ERROR),
    Fault::GoAway(Reason::ENHANCE_YOUR_CALM),
    Fault::GoAwayGently,
];

fn cuts() -> impl Iterator<Item = Fault> {
    (0..REQUEST).map(Fault::Request).chain((0..ANSWER).map(Fault::Answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_over_http_2_no_post_without_a_key_reaches_the_service_twice() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("localhost", &["h2"]);
    let mut whole = 0;
    for fault in cuts().chain(FAULTS) {
        let (text, reached) = calling(&acceptor, &authority, "POST", fault).await;
        assert!(reached <= 1, "{fault:?}: {reached} times, {text}");
        let told = ["service_unreachable", "service_answer_invalid"].iter().any(|code| text.contains(code));
        assert!(told || text.starts_with("HTTP/1.1 200"), "{fault:?}: {text}");
        whole += usize::from(text.starts_with("HTTP/1.1 200") && text.ends_with("done"));
    }
    for fault in FAULTS {
        let (text, reached) = calling_by(&acceptor, &authority, ("POST", fault), true).await;
        assert!(reached == 1, "{fault:?}, read whole: {reached} times, {text}");
    }
    assert!((2..400).contains(&whole), "{whole} of all got through: the cuts are somewhere else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_over_http_2_before_the_answers_head_is_done_in_the_end_where_it_may_be() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("localhost", &["h2"]);
    // After any other reset the door speaks HTTP/1.1 to this place from then on, which this service does not.
    let resets = [Fault::Reset(Reason::REFUSED_STREAM), Fault::GoAwayGently];
    for fault in (0..REQUEST).step_by(7).map(Fault::Request).chain(resets) {
        let (text, reached) = calling(&acceptor, &authority, "GET", fault).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{fault:?}: {text}");
        assert!((1..=2).contains(&reached), "{fault:?}: {reached}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_body_stays_without_one() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("localhost", &["h2"]);
    for whole in [false, true] {
        let (text, reached) = calling_by(&acceptor, &authority, ("POST", Fault::BodyOfNone), whole).await;
        assert!(text.starts_with("HTTP/1.1 204") && text.ends_with("\r\n\r\n"), "{whole}: {text}");
        assert_eq!((reached, text.matches("HTTP/1.1").count()), (1, 1), "{whole}: {text}");
    }
}

/// A service of both versions, whose first connection has a fault; which of them each connection spoke.
async fn of_both(authority: &Authority, fault: Option<Fault>) -> (Integration, Arc<Mutex<Vec<bool>>>) {
    let acceptor = authority.acceptor("localhost", &["h2", "http/1.1"]);
    let spoken = Arc::<Mutex<Vec<bool>>>::default();
    let seen = Arc::clone(&spoken);
    let address = serve(move |stream| {
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let is_http_2 = stream.get_ref().1.alpn_protocol() == Some(&b"h2"[..]);
            let is_first = {
                let mut seen = seen.lock().unwrap();
                seen.push(is_http_2);
                seen.len() == 1
            };
            if is_http_2 {
                return converse(stream, fault.filter(|_| is_first), Arc::default()).await;
            }
            while let Some(head) = read_head(&mut stream).await {
                let length = head
                    .to_lowercase()
                    .split("content-length: ")
                    .nth(1)
                    .map(|rest| rest.lines().next().unwrap().parse::<usize>().unwrap());
                stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await.unwrap();
            }
        }
    })
    .await;
    let mut integration = service(&format!("https://localhost:{}", address.port()));
    let api = integration.api.as_mut().unwrap();
    (api.transport.ca, api.transport.allow_private) = (Some(authority.trusted()), true);
    (integration, spoken)
}

fn names() -> Vec<(&'static str, Vec<&'static str>)> {
    vec![("localhost", vec!["127.0.0.1"])]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_is_tried_again_some_time_after_a_fault() {
    let authority = Authority::new();
    let (integration, spoken) = of_both(&authority, Some(Fault::Reset(Reason::HTTP_1_1_REQUIRED))).await;
    let clock = Arc::new(ManualClock::at(Timestamp::from_seconds(1_000)));
    let doors =
        Doors::start(Setup { names: names(), clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Setup::of(integration) });
    for pause in [0, 1, 600] {
        clock.advance(Duration::from_secs(pause));
        let text = conversation(&doors, "GET", "").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "after {pause} s: {text}");
    }
    assert_eq!(*spoken.lock().unwrap(), [true, false, false, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_takes_as_long_as_it_makes_progress() {
    const PIECES: usize = 10;
    let authority = Authority::new();
    let (mut integration, spoken) = of_both(&authority, None).await;
    let timeouts = &mut integration.api.as_mut().unwrap().timeouts;
    (timeouts.response, timeouts.idle) = (Duration::from_secs(2), Duration::from_secs(2));
    let doors = Doors::start(Setup { names: names(), ..Setup::of(integration) });
    assert!(conversation(&doors, "POST", "short").await.ends_with("done"));
    let mut wire = Wire::open(doors.proxy).await;
    let length = PIECES * 8_000;
    wire.send(format!("POST /svc/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")).await;
    // Longer than both of its limits and what is added to them.
    for _ in 0..PIECES {
        wire.send(vec![b'x'; 8_000]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut text = String::new();
    wire.0.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("done"), "{text}");
    assert_eq!(*spoken.lock().unwrap(), [true, false], "what is short goes over HTTP/2");
}

/// A service that speaks HTTP/2 only, reads each body to its end, and answers with its length.
async fn of_two(authority: &Authority) -> Integration {
    let acceptor = authority.acceptor("localhost", &["h2"]);
    let address = serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                tokio::spawn(async move {
                    let (mut body, mut length) = (request.into_body(), 0);
                    while let Some(piece) = body.data().await {
                        let piece = piece.unwrap();
                        length += piece.len();
                        body.flow_control().release_capacity(piece.len()).unwrap();
                    }
                    let head = http::Response::builder().body(()).unwrap();
                    let text = format!("{length} bytes");
                    respond.send_response(head, false).unwrap().send_data(text.into(), true).unwrap();
                });
            }
        }
    })
    .await;
    let mut integration = service(&format!("https://localhost:{}", address.port()));
    let api = integration.api.as_mut().unwrap();
    (api.transport.ca, api.transport.allow_private) = (Some(authority.trusted()), true);
    integration
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_of_http_2_only_gets_long_bodies_as_well_where_the_file_says_so() {
    let authority = Authority::new();
    for (http, takes_long) in [(HttpVersions::Two, true), (HttpVersions::Best, false)] {
        let mut integration = of_two(&authority).await;
        integration.api.as_mut().unwrap().transport.http = http;
        let doors = Doors::start(Setup { names: names(), ..Setup::of(integration) });
        for length in [0, 5, 200_000] {
            let text = conversation(&doors, "POST", &"x".repeat(length)).await;
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            if length < 64 << 10 || takes_long {
                assert!(
                    head.starts_with("HTTP/1.1 200") && body.contains(&format!("{length} bytes")),
                    "{http:?}: {text}"
                );
            } else {
                assert!(
                    head.starts_with("HTTP/1.1 502"),
                    "it takes no HTTP/1.1, which is what long bodies go in: {text}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_a_service_of_http_2_only_takes_no_more_of_is_given_up() {
    let authority = Authority::new();
    let (acceptor, ended) = (authority.acceptor("localhost", &["h2"]), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&ended);
    let address = serve(move |stream| {
        let (acceptor, counted) = (acceptor.clone(), Arc::clone(&counted));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    // Nothing of it is read, so its window does not open again.
                    let _body = request.into_body();
                    drop(std::future::poll_fn(|context| respond.poll_reset(context)).await);
                    counted.fetch_add(1, Ordering::SeqCst);
                });
            }
        }
    })
    .await;
    let mut integration = service(&format!("https://localhost:{}", address.port()));
    let api = integration.api.as_mut().unwrap();
    (api.transport.ca, api.transport.allow_private) = (Some(authority.trusted()), true);
    api.transport.http = HttpVersions::Two;
    (api.timeouts.response, api.timeouts.idle) = (Duration::from_millis(500), Duration::from_millis(500));
    let doors = Doors::start(Setup { names: names(), ..Setup::of(integration) });
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!(
        "POST /svc/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100000\r\n\r\n"
    ))
    .await;
    wire.send(vec![b'x'; 100_000]).await;
    let over = async {
        assert!(wire.is_closed().await);
        while ended.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), over).await.expect("the service holds the call");
    let sample = "trunkline_upstream_errors_total{integration=\"svc\",reason=\"response_timeout\"}";
    assert!((doors.metric(sample) - 1.0).abs() < f64::EPSILON, "{}", doors.metric(sample));
    let sent = async {
        loop {
            if let Some(entry) = doors.activity.newest(1, |_| true).first() {
                return entry.sent_bytes;
            }
            tokio::task::yield_now().await;
        }
    };
    let sent = tokio::time::timeout(Duration::from_secs(30), sent).await.expect("the call is written down");
    assert!((1..=100_000).contains(&sent), "{sent}: the service may have acted on what it has");
}
