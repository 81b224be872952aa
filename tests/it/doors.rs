//! The doors themselves: caps, deadlines, sizes, routes and closing.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::definition::plan::gateway::{Limits, Listen};

use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::{Recorder, read_head, serve, until_closed};
use crate::support::raw::{Wire, send};

fn with_limits(limits: &Limits) -> Doors {
    let mut setup = Setup::of(service("https://unused.example"));
    setup.limits = *limits;
    Doors::start(setup)
}

#[tokio::test]
async fn connections_beyond_the_cap_are_turned_away_and_counted() {
    let doors = with_limits(&Limits { connections: 2, connections_per_source: 1, ..Limits::default() });
    for (door, name, cap, reason) in [(doors.proxy, "proxy", 2, "total"), (doors.public, "public", 1, "source")] {
        let mut held = Vec::new();
        for _ in 0..cap {
            let mut wire = Wire::open(door).await;
            wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            wire.head().await;
            held.push(wire);
        }
        let mut beyond = Wire::open(door).await;
        assert!(beyond.head().await.starts_with("HTTP/1.1 503"));
        assert!(beyond.is_closed().await);
        let sample = format!("trunkline_door_connections_refused_total{{door=\"{name}\",reason=\"{reason}\"}}");
        assert!(doors.metric(&sample) >= 1.0);
    }
}

#[tokio::test]
async fn one_host_does_not_take_all_places_at_the_proxy_door_where_that_is_set() {
    let doors = with_limits(&Limits { proxy_connections_per_source: NonZeroU32::new(1), ..Limits::default() });
    let mut held = Wire::open(doors.proxy).await;
    held.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    held.head().await;
    let mut beyond = Wire::open(doors.proxy).await;
    assert!(beyond.head().await.starts_with("HTTP/1.1 503"));
    assert!(doors.metric("trunkline_door_connections_refused_total{door=\"proxy\",reason=\"source\"}") >= 1.0);
}

#[tokio::test]
async fn a_head_has_one_deadline_however_it_trickles_in() {
    let limits = Limits { header_timeout: Duration::from_millis(400), ..Limits::default() };
    let doors = with_limits(&limits);
    for door in [doors.public, doors.proxy] {
        let mut wire = Wire::open(door).await;
        let (mut reader, mut writer) =
            (Vec::new(), b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyy".iter());
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                read = wire.0.read_buf(&mut reader) => if read.unwrap_or(0) == 0 { break },
                _ = pace.tick() => if let Some(byte) = writer.next() { drop(wire.0.write_all(&[*byte]).await); },
            }
        }
        assert!(reader.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&reader));
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() };
    let doors = with_limits(&limits);
    let mut wire = Wire::open(doors.public).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.reply().await.status, 404);
    let soon = Duration::from_secs(5);
    assert!(tokio::time::timeout(soon, wire.is_closed()).await.is_ok());
    let mut silent = Wire::open(doors.proxy).await;
    assert!(tokio::time::timeout(soon, silent.is_closed()).await.is_ok());
}

#[tokio::test]
async fn a_body_that_trickles_in_is_refused() {
    let doors = with_limits(&Limits::default());
    let mut wire = Wire::open(doors.public).await;
    wire.send("POST /webhooks/svc HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n").await;
    let mut answer = Vec::new();
    let mut pace = tokio::time::interval(Duration::from_millis(500));
    let trickle = async {
        loop {
            tokio::select! {
                read = wire.0.read_buf(&mut answer) => if read.unwrap_or(0) == 0 { break },
                _ = pace.tick() => drop(wire.0.write_all(b"x").await),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(18), trickle).await.expect("still waiting");
    assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await;
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await);
        let piece = vec![7; 65_536];
        while stream.write_all(&piece).await.is_ok() {}
    })
    .await;
    let doors = Doors::start(Setup::of(service(&format!("http://{origin}"))));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    wire.head().await;
    let cut = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while doors.running[1].open_connections() > 0 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(18), cut).await.expect("still held");
}

#[tokio::test]
async fn sizes_are_bounded() {
    let doors = with_limits(&Limits::default());
    let long = "x".repeat(9_000);
    let many = "X-Y: z\r\n".repeat(65);
    let big = format!("X-Y: {}\r\n", "z".repeat(17_000));
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100_000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{big}\r\n"), 431),
        ("POST /webhooks/svc HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\n\r\n".to_owned(), 413),
        (
            format!(
                "POST /webhooks/svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n{}\r\n0\r\n\r\n",
                "x".repeat(100_001)
            ),
            413,
        ),
        (
            format!(
                "POST /webhooks/svc HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
                "1\r\nx\r\n".repeat(2_000)
            ),
            400,
        ),
    ] {
        for door in [doors.public, doors.proxy] {
            if request.starts_with("POST") && door == doors.proxy {
                continue;
            }
            let mut wire = Wire::open(door).await;
            wire.send(&request).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, status, "{request:.60}");
            assert!(wire.is_closed().await);
        }
    }
}

#[tokio::test]
async fn the_public_door_serves_webhooks_and_connect_pages_and_nothing_else() {
    let doors = with_limits(&Limits::default());
    let status = async |line: &str| {
        let reply = send(doors.public, format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        (reply.status, reply.code().unwrap_or_default().to_owned())
    };
    for line in ["POST /webhooks/svc?x=1", "POST /webhooks/svc/token"] {
        assert_eq!(status(line).await, (200, String::new()), "{line}");
    }
    for line in [
        "POST /webhooks/other",
        "POST /webhooks/svc/token/more",
        "GET /",
        "GET /svc/x",
        "GET /metrics",
        "POST /webhooks/",
        "POST /webhooks/SVC",
        "POST /webhooks/../svc",
    ] {
        assert_eq!(status(line).await, (404, "not_found".to_owned()), "{line}");
    }
    // These lead to the connect flow, which welcomes nobody here and says so in its own words.
    for line in ["GET /api/connect/svc", "POST /api/connect/svc", "GET /api/auth/callback/svc?code=1"] {
        assert_eq!(status(line).await, (403, "caller_forbidden".to_owned()), "{line}");
    }
    let (head, _) = doors.inbox.received.lock().unwrap()[0].clone();
    assert_eq!((&*head.target, &*head.query, head.source), ("/webhooks/svc?x=1", "x=1", Some([127, 0, 0, 1].into())));
}

#[tokio::test]
async fn a_door_closes_after_the_requests_under_way() {
    let origin = serve(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        if head.starts_with("GET /endless") {
            until_closed(&mut stream).await;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.write_all(b"world").await.unwrap();
    })
    .await;
    let doors = Doors::start(Setup::of(service(&format!("http://{origin}"))));
    let request = |path: &str| format!("GET /svc/{path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let (mut idle, mut busy, mut endless) =
        (Wire::open(doors.proxy).await, Wire::open(doors.proxy).await, Wire::open(doors.proxy).await);
    endless.send(request("endless")).await;
    busy.send(request("a")).await;
    busy.head().await;
    let [_, proxy] = doors.running;
    let address = doors.proxy;
    let drained = tokio::spawn(proxy.drain(Duration::from_secs(2)));
    assert!(idle.is_closed().await);
    assert_eq!(busy.exactly(10).await, b"helloworld");
    assert_eq!(drained.await.unwrap().cut, 1, "the endless one");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    assert!(endless.is_closed().await);
}

#[tokio::test]
async fn the_proxy_door_also_listens_on_a_unix_socket() {
    let origin = Recorder::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let mut setup = Setup::of(service(&origin.url()));
    setup.proxy = Listen::unix(&path);
    let doors = Doors::start(setup);
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let request = format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(doors.running[1].address().to_string(), format!("unix:{}", path.display()));
}
