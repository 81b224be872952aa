//! HTTP/2 at the doors: heads that are refused, clients that are slow, floods that end the connection.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use trunkline::definition::plan::gateway::Limits;
use trunkline::definition::plan::policy::Retry;

use crate::calls::world::keyed;
use crate::doors_tls::Secure;
use crate::support::doors::{KEY, Setup, service};
use crate::support::origin::{Recorder, read_head, serve, until_closed};

/// A body that is sent in several parts.
static BODY: [u8; 64 << 10] = [b'x'; 64 << 10];

type Sender = h2::client::SendRequest<Bytes>;

async fn connect(
    secure: &Secure,
    door: std::net::SocketAddr,
) -> (Sender, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = secure.authority.connect(door, &["h2"]).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

/// One request; the body comes without a length where there is one.
async fn ask(sender: &Sender, request: Request<()>, body: Option<&'static [u8]>) -> (StatusCode, HeaderMap, Vec<u8>) {
    let mut sender = sender.clone().ready().await.unwrap();
    let (answer, mut stream) = sender.send_request(request, body.is_none()).unwrap();
    if let Some(body) = body {
        stream.send_data(Bytes::from_static(body), true).unwrap();
    }
    let (head, mut rest) = answer.await.unwrap().into_parts();
    let mut body = Vec::new();
    while let Some(piece) = rest.data().await {
        let piece = piece.unwrap();
        rest.flow_control().release_capacity(piece.len()).unwrap();
        body.extend_from_slice(&piece);
    }
    (head.status, head.headers, body)
}

fn get(path: &str) -> http::request::Builder {
    let url = format!("https://localhost{path}");
    Request::get(url).version(http::Version::HTTP_2).header("authorization", format!("Bearer {KEY}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_judged_as_those_of_http_1() {
    let origin = Recorder::start().await;
    let secure = Secure::over(Setup::of(service(&origin.url())));
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    let crumbs = get("/svc/a").header("cookie", "a=b").header("cookie", "c=d").body(()).unwrap();
    assert_eq!(ask(&sender, crumbs, None).await.0, 200);
    let (status, _, body) = ask(&sender, get("/svc/b").method(Method::POST).body(()).unwrap(), Some(b"hello")).await;
    assert_eq!((status.as_u16(), &body[..]), (200, &b"hello"[..]));
    assert_eq!(
        (origin.last().first_line(), origin.last().all("transfer-encoding")),
        ("POST /b HTTP/1.1", vec!["chunked"])
    );
    let before = origin.all().len();
    let many = (0..64).fold(get("/svc/a"), |request, number| request.header(format!("x-{number}"), "y"));
    let refused = [
        (get("/svc/a").header("x_y", "z"), 400),
        (get("/svc/a").header("content-type", "a/b").header("content-type", "c/d"), 400),
        (get("/svc/a").header("content-length", "+5"), 400),
        (get("/svc/a").header("host", "elsewhere.example"), 400),
        (get("/svc/a").header("x", "y".repeat(17_000)), 431),
        (get("/svc/../a"), 400),
        (get("/svc/a").method(Method::TRACE), 405),
        (get(&format!("/svc/{}", "x".repeat(9_000))), 414),
        (many, 431),
    ];
    for (request, expected) in refused {
        let request = request.body(()).unwrap();
        let shown = format!("{request:?}");
        let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
        let mut sender = sender.ready().await.unwrap();
        // What the codec itself refuses ends the stream without an answer.
        match sender.send_request(request, true).unwrap().0.await {
            Ok(answer) => assert_eq!(answer.status().as_u16(), expected, "{shown:.100}"),
            Err(error) => assert!(error.is_reset() || error.is_remote(), "{error} {shown:.100}"),
        }
    }
    let connect = Request::connect("localhost:443").version(http::Version::HTTP_2).body(()).unwrap();
    assert_eq!(ask(&sender, connect, None).await.0, 405);
    assert_eq!(origin.all().len(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_gateway_is_whole_and_others_go_on() {
    let origin = serve(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            if head.starts_with("GET /silent") {
                until_closed(&mut stream).await;
                return;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let mut integration = service(&format!("http://{origin}"));
    let timeouts = &mut integration.api.as_mut().unwrap().timeouts;
    (timeouts.response, timeouts.idle) = (Duration::from_millis(200), Duration::from_hours(1));
    let secure = Secure::over(Setup::of(integration));
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    let both = async {
        tokio::join!(
            ask(&sender, get("/svc/silent").body(()).unwrap(), None),
            ask(&sender, get("/svc/a").body(()).unwrap(), None)
        )
    };
    let (silent, other) = tokio::time::timeout(Duration::from_secs(30), both).await.expect("no answer of any kind");
    assert_eq!((silent.0.as_u16(), silent.1["trunkline-error"].to_str().unwrap()), (504, "service_timeout"));
    assert_eq!((other.0.as_u16(), &other.2[..]), (200, &b"ok"[..]));
    let sample = "trunkline_upstream_errors_total{integration=\"svc\",reason=\"response_timeout\"}";
    assert!((secure.doors.metric(sample) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_whose_call_fails_is_answered() {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let secure = Secure::over(Setup::of(service(&format!("http://{nowhere}"))));
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    for _ in 0..8 {
        let (status, headers, body) = ask(&sender, get("/svc/a").method(Method::HEAD).body(()).unwrap(), None).await;
        assert_eq!(
            (status.as_u16(), &headers["trunkline-error"], body.len()),
            (502, &"service_unreachable".parse().unwrap(), 0)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_service_is_given_up_in_time_however_the_body_came() {
    let origin = serve(|mut stream| async move {
        let mut sink = vec![0; 64 << 10];
        while matches!(stream.read(&mut sink).await, Ok(1..)) {}
    })
    .await;
    let mut integration = service(&format!("http://{origin}"));
    let timeouts = &mut integration.api.as_mut().unwrap().timeouts;
    (timeouts.response, timeouts.idle) = (Duration::from_millis(300), Duration::from_hours(1));
    let secure = Secure::over(Setup::of(integration));
    // Four parts with the end of the body filled the way to the service, where the limit was not looked at any more.
    for bytes in [1_000, 45_000, 50_000, 60_000, 60_000, 60_000, 60_000, 65_536] {
        let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
        let request = get("/svc/a").method(Method::POST).body(()).unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(20), ask(&sender, request, Some(&BODY[..bytes])));
        let (status, ..) = answer.await.unwrap_or_else(|_| panic!("{bytes}: no answer"));
        assert_eq!(status.as_u16(), 504, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_stays_silent_is_asked_again() {
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&asked);
    let origin = serve(move |mut stream| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            read_head(&mut stream).await;
            if number > 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
            until_closed(&mut stream).await;
        }
    })
    .await;
    let mut integration = service(&format!("http://{origin}"));
    let api = integration.api.as_mut().unwrap();
    (api.timeouts.response, api.timeouts.idle) = (Duration::from_millis(300), Duration::from_hours(1));
    api.policy.retry = keyed().retry.map(|retry| Retry { attempts: 2, ..retry });
    let secure = Secure::over(Setup::of(integration));
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    let answered = ask(&sender, get("/svc/a").body(()).unwrap(), None);
    let (status, _, body) =
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("no answer of any kind");
    assert_eq!((status.as_u16(), &body[..]), (200, &b"ok"[..]));
    assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_its_client_resets_is_a_call_whose_caller_left() {
    let (ended, end) = tokio::sync::oneshot::channel();
    let ended = std::sync::Arc::new(std::sync::Mutex::new(Some(ended)));
    let origin = serve(move |mut stream| {
        let ended = std::sync::Arc::clone(&ended);
        async move {
            read_head(&mut stream).await;
            until_closed(&mut stream).await;
            let ended = ended.lock().unwrap().take();
            ended.unwrap().send(()).unwrap();
        }
    })
    .await;
    let secure = Secure::over(Setup::of(service(&format!("http://{origin}"))));
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    let mut sender = sender.ready().await.unwrap();
    let (answer, mut stream) = sender.send_request(get("/svc/a").body(()).unwrap(), true).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    stream.send_reset(h2::Reason::CANCEL);
    drop(answer);
    tokio::time::timeout(Duration::from_secs(10), end).await.expect("the service is still waited for").unwrap();
    let sample = "trunkline_upstream_errors_total{integration=\"svc\",reason=\"client_malformed\"}";
    assert!(secure.doors.metric(sample) < 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_in_is_refused() {
    let secure = Secure::over(Setup::of(service("https://unused.example")));
    let (sender, _driver) = connect(&secure, secure.doors.public).await;
    let mut sender = sender.ready().await.unwrap();
    let request = get("/webhooks/svc").method(Method::POST).body(()).unwrap();
    let (answer, mut stream) = sender.send_request(request, false).unwrap();
    let trickle = async {
        let mut pace = tokio::time::interval(Duration::from_millis(500));
        loop {
            pace.tick().await;
            drop(stream.send_data(Bytes::from_static(b"x"), false));
        }
    };
    let answered = tokio::time::timeout(Duration::from_secs(25), async {
        tokio::select! { answer = answer => answer.unwrap().status().as_u16(), () = trickle => 0 }
    });
    assert_eq!(answered.await.expect("still waiting"), 408);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_its_client_does_not_read_is_ended() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 1 << 20, "x".repeat(1 << 20));
        // It breaks off where the gateway gives up.
        drop(stream.write_all(answer.as_bytes()).await);
    })
    .await;
    let mut setup = Setup::of(service(&format!("http://{origin}")));
    setup.limits = Limits { idle_timeout: Duration::from_hours(1), min_body_rate: 1 << 20, ..setup.limits };
    let secure = Secure::over(setup);
    let (sender, _driver) = connect(&secure, secure.doors.proxy).await;
    let mut sender = sender.ready().await.unwrap();
    let (answer, _) = sender.send_request(get("/svc/a").body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let reading = async move {
        // Nothing of what came is let go of before the end, so the window does not open again.
        while let Some(piece) = body.data().await {
            if let Err(error) = piece {
                return Some(error);
            }
        }
        None
    };
    let ended = tokio::time::timeout(Duration::from_secs(40), reading).await.expect("the door waits");
    assert!(ended.is_some_and(|error| error.is_reset()), "the stream is ended");
    let (status, ..) = ask(&sender, get("/nowhere/a").body(()).unwrap(), None).await;
    assert_eq!(status.as_u16(), 404, "others go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed_also_before_its_first_request() {
    let mut setup = Setup::of(service("https://unused.example"));
    setup.limits =
        Limits { idle_timeout: Duration::from_millis(300), header_timeout: Duration::from_millis(300), ..setup.limits };
    let secure = Secure::over(setup);
    let soon = Duration::from_secs(10);
    let (sender, driver) = connect(&secure, secure.doors.public).await;
    assert!(tokio::time::timeout(soon, driver).await.is_ok(), "no request");
    drop(sender);
    let (sender, driver) = connect(&secure, secure.doors.public).await;
    assert_eq!(ask(&sender, get("/").body(()).unwrap(), None).await.0, 404);
    assert!(tokio::time::timeout(soon, driver).await.is_ok(), "no second request");
    let mut mute = secure.authority.connect(secure.doors.public, &["h2"]).await.unwrap();
    let closed = tokio::time::timeout(soon, mute.read_to_end(&mut Vec::new())).await;
    assert!(closed.is_ok(), "no preface");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_door_that_closes_lets_streams_end() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let secure = Secure::over(Setup::of(service(&format!("http://{origin}"))));
    let (sender, driver) = connect(&secure, secure.doors.proxy).await;
    let asking = tokio::spawn(async move { ask(&sender, get("/svc/a").body(()).unwrap(), None).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let [_, proxy] = secure.doors.running;
    let drained = proxy.drain(Duration::from_secs(10)).await;
    assert_eq!((asking.await.unwrap().0.as_u16(), drained.cut), (200, 0));
    drop(driver.await);
}

/// A frame as bytes.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET https://localhost/svc/a` with a caller's key, literally (RFC 7541).
fn block() -> Vec<u8> {
    let key = format!("Bearer {KEY}");
    let length = u8::try_from(key.len()).unwrap();
    [b"\x82\x87\x41\x09localhost\x04\x06/svc/a\x0f\x08", &[length][..], key.as_bytes()].concat()
}

async fn begin(secure: &Secure) -> TlsStream<TcpStream> {
    let mut stream = secure.authority.connect(secure.doors.proxy, &["h2"]).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, b"")).await.unwrap();
    stream
}

/// Sends bytes again and again, and reads what comes, until the door has closed. Answers how often.
async fn flood(stream: TlsStream<TcpStream>, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let drain = tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    for round in 0..200_000 {
        let sent = tokio::time::timeout(Duration::from_secs(20), writer.write_all(&next(round))).await;
        if !matches!(sent, Ok(Ok(()))) || drain.is_finished() {
            return round;
        }
    }
    200_000
}

type Frames = Box<dyn FnMut(u32) -> Vec<u8>>;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_the_connection_and_take_no_memory() {
    let origin = serve(|mut stream| async move { until_closed(&mut stream).await }).await;
    let secure = Secure::over(Setup::of(service(&format!("http://{origin}"))));
    let headers = |round: u32, flags| frame(1, flags, 2 * round + 1, &block());
    let floods: [(&str, Frames, u32); 7] = [
        (
            "rapid reset",
            Box::new(move |round| [headers(round, 5), frame(3, 0, 2 * round + 1, &[0, 0, 0, 8])].concat()),
            5_000,
        ),
        ("ping", Box::new(|_| frame(6, 0, 0, &[0; 8])), 5_000),
        ("settings", Box::new(|_| frame(4, 0, 0, b"")), 5_000),
        ("no known kind", Box::new(|_| frame(0x42, 0, 0, &[0; 8])), 5_000),
        ("priority", Box::new(|_| frame(2, 0, 1, &[0, 0, 0, 0, 1])), 5_000),
        (
            "continuation",
            Box::new(move |round| match round {
                0 => headers(0, 1),
                _ => frame(9, 0, 1, &[0, 1, b'a', 1, b'b'].repeat(100)),
            }),
            5_000,
        ),
        ("empty data", Box::new(move |round| if round == 0 { headers(0, 4) } else { frame(0, 0, 1, b"") }), 5_000),
    ];
    let before = resident();
    for (name, next, most) in floods {
        let rounds = flood(begin(&secure).await, next).await;
        assert!(rounds < most, "{name}: still open after {rounds} rounds");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
    let sample = "trunkline_door_connections_broken_total{door=\"proxy\",reason=\"flood\"}";
    assert!(secure.doors.metric(sample) >= 3.0, "{}", secure.doors.metric(sample));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_cap_are_refused_and_the_others_served() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await;
        until_closed(&mut stream).await;
    })
    .await;
    let mut setup = Setup::of(service(&format!("http://{origin}")));
    setup.limits.http2_streams = 3;
    let secure = Secure::over(setup);
    let mut stream = begin(&secure).await;
    for round in 0..8_u32 {
        stream.write_all(&frame(1, 5, 2 * round + 1, &block())).await.unwrap();
    }
    let mut refused = 0;
    let reading = async {
        while refused < 5 {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            // RST_STREAM with REFUSED_STREAM: nothing of it was begun.
            refused += u32::from(head[3] == 3 && payload == [0, 0, 0, 7]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("streams beyond the cap are held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_public_door_are_counted_as_connections_are() {
    let mut setup = Setup::of(service("https://unused.example"));
    setup.limits.connections_per_source = 2;
    let secure = Secure::over(setup);
    let (sender, _driver) = connect(&secure, secure.doors.public).await;
    let webhook = || get("/webhooks/svc").method(Method::POST).body(()).unwrap();
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(webhook(), false).unwrap();
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        open.push((answer, body));
    }
    let sample = "trunkline_door_connections_refused_total{door=\"public\",reason=\"source\"}";
    let counted = async {
        while secure.doors.metric(sample) < 1.0 {
            tokio::task::yield_now().await;
        }
        let mut told = Vec::new();
        for (answer, mut body) in open {
            // The one that was turned away takes nothing more.
            drop(body.send_data(Bytes::from_static(b"}"), true));
            let answer = answer.await.unwrap();
            told.push((answer.status().as_u16(), answer.headers().contains_key("retry-after")));
        }
        told.sort_unstable();
        assert_eq!(told, [(200, false), (200, false), (503, true)]);
        while ask(&sender, webhook(), Some(b"{}")).await.0 != 200 {}
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("the places are counted and given back");
}
