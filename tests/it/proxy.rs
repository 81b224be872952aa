//! The proxy door, end to end: who may call, what reaches the service, what comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderName, Method};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use trunkline::base::secret::Secret;
use trunkline::definition::plan::api::{Change, Endpoint, Errors, PathPattern, Placement, Transform};
use trunkline::definition::plan::gateway::{Mode, Network};
use trunkline::definition::plan::request::{Body, CredentialUse, Request, Target};
use trunkline::definition::plan::{DeclaredConnection, DeclaredCredential, Integration};
use trunkline::template::{Text, Tree};

use crate::support::doors::{Doors, KEY, Setup, caller, grant, service};
use crate::support::origin::{Recorder, answering, counting, read_head, serve, until_closed};
use crate::support::raw::{Reply, Wire, call, send};
use crate::support::tls::Authority;

fn doors(integration: Integration) -> Doors {
    Doors::start(Setup::of(integration))
}

fn text(source: &str) -> Text {
    Text::compile(source).unwrap()
}

#[tokio::test]
async fn the_credential_is_added_where_the_api_wants_it() {
    let origin = Recorder::start().await;
    let with = |placement: Placement, credential: DeclaredCredential| {
        let mut integration = service(&format!("{}/base", origin.url()));
        integration.api.as_mut().unwrap().credential = placement;
        integration.connections[0].credential = credential;
        integration
    };
    let key = || DeclaredCredential::ApiKey(Secret::from("sk_te&st"));
    let header = Placement::Header { name: HeaderName::from_static("x-token"), value: text("key {{ api_key }}") };
    call(doors(with(header, key())).proxy, "GET /svc/a?b=c", "X-Token: mine\r\n", "").await;
    assert_eq!((origin.last().all("x-token"), origin.last().all("authorization")), (vec!["key sk_te&st"], vec![]));
    let query = Placement::Query { name: "key".to_owned(), value: text("{{ api_key }}") };
    call(doors(with(query, key())).proxy, "GET /svc/a?b=c", "", "").await;
    assert_eq!(origin.last().first_line(), "GET /base/a?b=c&key=sk_te%26st HTTP/1.1");
    let basic = DeclaredCredential::Basic { username: Secret::from("u"), password: Secret::from("p") };
    call(doors(with(Placement::Basic, basic)).proxy, "GET /svc/a", "", "").await;
    assert_eq!(origin.last().all("authorization"), ["Basic dTpw"]);
    call(doors(with(Placement::Nowhere, key())).proxy, "GET /svc/a", "", "").await;
    assert_eq!(origin.last().all("authorization"), Vec::<&str>::new());
}

#[tokio::test]
async fn a_caller_cannot_send_the_added_parameter_as_well() {
    let origin = Recorder::start().await;
    let mut integration = service(&origin.url());
    integration.api.as_mut().unwrap().credential =
        Placement::Query { name: "key".to_owned(), value: text("{{ api_key }}") };
    let doors = doors(integration);
    for query in ["key=1", "a=b&%6bey=1", "KEY=1", "key[]=1", "a;key=1"] {
        let reply = call(doors.proxy, &format!("GET /svc/a?{query}"), "", "").await;
        assert_eq!((reply.status, reply.code()), (400, Some("invalid_input")), "{query}");
    }
    assert_eq!(origin.all().len(), 0);
}

#[tokio::test]
async fn what_a_caller_must_not_decide_is_dropped_or_replaced() {
    let origin = Recorder::start().await;
    let mut integration = service(&origin.url());
    integration.api.as_mut().unwrap().headers = vec![(HeaderName::from_static("x-version"), text("7"))];
    let doors = doors(integration);
    let headers = "Cookie: a=b\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\n\
        X-Real-IP: 1.2.3.4\r\nProxy-Authorization: x\r\nX-Api-Key: x\r\nX-Version: 1\r\nVia: 1.1 other\r\n\
        Trunkline-Connection: default\r\nX-HTTP-Method-Override: DELETE\r\nTE: trailers\r\nX-Hop: 1\r\n\
        Connection: X-Hop, Authorization, X-Version\r\nX-Kept: yes\r\nUser-Agent: app/1\r\n";
    assert_eq!(call(doors.proxy, "POST /svc/a", headers, "hi").await.status, 200);
    let seen = origin.last();
    assert_eq!(seen.all("authorization"), ["Bearer sk_test"]);
    assert_eq!(seen.all("host"), [origin.address.to_string()]);
    assert_eq!(
        (seen.all("x-version"), seen.all("x-kept"), seen.all("user-agent")),
        (vec!["7"], vec!["yes"], vec!["app/1"])
    );
    for name in [
        "cookie",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "proxy-authorization",
        "x-api-key",
        "trunkline-connection",
        "x-http-method-override",
        "te",
        "x-hop",
        "connection",
    ] {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
    }
    assert!(seen.all("via")[0].starts_with("1.1 trunkline-") && seen.all("via").len() == 1);
}

#[tokio::test]
async fn a_call_that_comes_back_is_refused() {
    let origin = Recorder::start().await;
    let doors = doors(service(&origin.url()));
    call(doors.proxy, "GET /svc/a", "", "").await;
    let via = origin.last().all("via")[0].to_owned();
    let reply = call(doors.proxy, "GET /svc/a", &format!("Via: 1.0 x, {via}\r\n"), "").await;
    assert_eq!((reply.status, reply.code()), (508, Some("loop_detected")));
}

#[tokio::test]
async fn no_path_leaves_the_base() {
    let origin = Recorder::start().await;
    let doors = doors(service(&format!("{}/base", origin.url())));
    for path in [
        "/svc//evil.example",
        "/svc/../x",
        "/svc/..",
        "/svc/%2e%2e/x",
        "/svc/a%2fb",
        "/svc/a%5cb",
        "/svc/a\\b",
        "/svc/..;/x",
        "/svc/%00",
        "/svc/a/./b",
        "/svc/%252e%252e/x",
        "/svc/a%c0%ae",
        "/svc/a%zz",
        "/svc/a|b",
    ] {
        let reply = call(doors.proxy, &format!("GET {path}"), "", "").await;
        assert_eq!((reply.status, reply.code()), (400, Some("unsafe_path")), "{path}");
    }
    for path in ["//svc/x", "/", "/./svc/x", "/SVC/x", "/-/x", "/svc%2fx"] {
        let reply = call(doors.proxy, &format!("GET {path}"), "", "").await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
    }
    assert_eq!(origin.all().len(), 0);
}

#[tokio::test]
async fn callers_are_known_by_key_and_bound_by_grants() {
    let origin = Recorder::start().await;
    let mut setup = Setup::of(service(&origin.url()));
    setup.callers.push(caller("narrow", "narrow-key", grant("svc", "default", &[Method::GET], &["/v1/*"])));
    let doors = Doors::start(setup);
    let with = async |first_line: &str, key: &str| {
        let reply = send(doors.proxy, format!("{first_line} HTTP/1.1\r\nHost: a\r\n{key}\r\n")).await;
        (reply.status, reply.code().map(str::to_owned))
    };
    let problem = |status, code: &str| (status, Some(code.to_owned()));
    assert_eq!(with("GET /svc/v1/a", "").await, problem(401, "caller_unknown"));
    assert_eq!(with("GET /svc/v1/a", "Authorization: Bearer wrong\r\n").await, problem(401, "caller_unknown"));
    assert_eq!(
        with("GET /svc/v1/a", "Authorization: Basic bmFycm93LWtleQ==\r\n").await,
        problem(401, "caller_unknown")
    );
    let narrow = "Authorization: Bearer narrow-key\r\n";
    assert_eq!(with("GET /svc/v1/a", narrow).await, (200, None));
    assert_eq!(with("POST /svc/v1/a", narrow).await, problem(403, "caller_forbidden"));
    assert_eq!(with("GET /svc/v2/a", narrow).await, problem(403, "caller_forbidden"));
    assert_eq!(with("GET /nothing/v1/a", narrow).await, problem(403, "caller_forbidden"));
    let all = format!("Authorization: Bearer {KEY}\r\n");
    assert_eq!(with("GET /nothing/v1/a", &all).await, problem(404, "not_found"));
    let other = format!("{all}Trunkline-Connection: other\r\n");
    assert_eq!(with("GET /svc/v1/a", &other).await, problem(404, "connection_unknown"));
}

#[tokio::test]
async fn connections_do_not_share_a_pool() {
    let (origin, opened) = counting().await;
    let mut integration = service(&format!("http://{origin}"));
    let credential = DeclaredCredential::ApiKey(Secret::from("other"));
    let (inputs, saved) = (serde_json::Map::new(), serde_json::Map::new());
    integration.connections.push(DeclaredConnection { id: Arc::from("other"), credential, inputs, saved });
    let doors = doors(integration);
    // The caller has its answer a moment before the connection is back in the pool: some calls may come too early.
    for _ in 0..10 {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.text(), "ok");
        assert_eq!(call(doors.proxy, "GET /svc/a", "Trunkline-Connection: other\r\n", "").await.text(), "ok");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((2..10).contains(&opened.load(Ordering::SeqCst)), "{}", opened.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_switch_of_protocols_that_no_call_asked_for_is_a_malformed_answer() {
    let origin =
        answering(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    for integration in both(origin) {
        let reply = call(doors(integration).proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.code()), (502, Some("service_answer_invalid")), "{}", reply.text());
    }
}

/// A service whose answers stream, and one whose answers are read whole.
fn both(origin: SocketAddr) -> [Integration; 2] {
    let mut whole = service(&format!("http://{origin}"));
    let transform = Transform { request: None, response: None, errors: Errors::Pass, max_body: 1000 };
    let pattern = PathPattern { method: Method::GET, segments: vec![Some("a".into())] };
    whole.api.as_mut().unwrap().endpoints = vec![Endpoint { pattern, ..endpoint(Some(transform)) }];
    [service(&format!("http://{origin}")), whole]
}

#[tokio::test]
async fn an_answer_whose_end_is_in_doubt_is_refused_or_has_one_framing() {
    for doubtful in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    ] {
        for integration in both(answering(doubtful).await) {
            let reply = call(doors(integration).proxy, "GET /svc/a", "", "").await;
            let head = String::from_utf8_lossy(doubtful);
            assert_eq!((reply.status, reply.code()), (502, Some("service_answer_invalid")), "{head}: {}", reply.text());
        }
    }
    for (settled, status, lengths) in [
        (&b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok"[..], 200, Some("2")),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, Some("2")),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", 204, None),
    ] {
        let origin = answering(settled).await;
        let reply = call(doors(service(&format!("http://{origin}"))).proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.header("content-length")), (status, lengths));
        assert_eq!(reply.header("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn a_services_errors_pass_untouched_and_its_cookies_do_not() {
    let origin = answering(
        b"HTTP/1.1 422 Unprocessable Content\r\nSet-Cookie: a=b\r\nX-Kept: 1\r\nTrunkline-Error: spoofed\r\nContent-Length: 4\r\n\r\nnope",
    )
    .await;
    let reply = call(doors(service(&format!("http://{origin}"))).proxy, "GET /svc/a", "", "").await;
    assert_eq!((reply.status, reply.text().as_str(), reply.code()), (422, "nope", None));
    assert_eq!((reply.header("x-kept"), reply.header("set-cookie")), (Some("1"), None));
    assert!(reply.header("trunkline-request-id").is_some_and(|id| id.len() == 16));
}

#[tokio::test]
async fn a_credential_in_the_query_does_not_come_back_in_a_header() {
    let origin = answering(
        b"HTTP/1.1 302 Found\r\nLocation: /b?key=sk_te%26st&x=1\r\nLink: </c?page=2&%6bey=sk_te%26st>; rel=\"next\"\r\nX-Uri: /a?key=sk_te%26st\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    for whole in [false, true] {
        let mut integration = service(&format!("http://{origin}"));
        let api = integration.api.as_mut().unwrap();
        api.credential = Placement::Query { name: "key".to_owned(), value: text("{{ api_key }}") };
        if whole {
            let transform = Transform { request: None, response: None, errors: Errors::Pass, max_body: 1000 };
            let pattern = PathPattern { method: Method::GET, segments: vec![Some("a".into())] };
            api.endpoints = vec![Endpoint { pattern, ..endpoint(Some(transform)) }];
        }
        integration.connections[0].credential = DeclaredCredential::ApiKey(Secret::from("sk_te&st"));
        let reply = call(doors(integration).proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.header("location")), (302, Some("/b?x=1")), "whole: {whole}");
        assert_eq!(reply.header("link"), Some("</c?page=2>; rel=\"next\""));
        assert_eq!((reply.header("x-uri"), reply.header("x-kept")), (None, Some("1")));
    }
}

#[tokio::test]
async fn answers_without_a_body_stay_without() {
    let origin = serve(|mut stream| async move {
        while let Some(head) = read_head(&mut stream).await {
            let answer: &[u8] = match head.split(' ').nth(1) {
                Some("/204") => b"HTTP/1.1 204 No Content\r\n\r\n",
                Some("/304") => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
            };
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    for (line, status) in
        [("GET /svc/204", "204"), ("GET /svc/304", "304"), ("HEAD /svc/x", "200"), ("GET /svc/204", "204")]
    {
        wire.send(format!("{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
        let head = wire.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
}

#[tokio::test]
async fn interim_answers_are_relayed_and_bounded() {
    let origin = serve(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        let hints = if head.starts_with("GET /many") { 100 } else { 1 };
        for _ in 0..hints {
            drop(stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await);
        }
        drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await);
        read_head(&mut stream).await;
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/one HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 103"));
    assert_eq!(wire.reply().await.text(), "ok");
    assert_eq!(call(doors.proxy, "GET /svc/many", "", "").await.code(), Some("service_answer_invalid"));
}

#[tokio::test]
async fn a_waiting_client_is_told_to_continue_before_its_body() {
    let origin = Recorder::start().await;
    let doors = doors(service(&origin.url()));
    for door in [(doors.proxy, "/svc/a"), (doors.public, "/webhooks/svc")] {
        let mut wire = Wire::open(door.0).await;
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            door.1
        );
        wire.send(head).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 100"));
        wire.send("hello").await;
        assert_eq!(wire.reply().await.status, 200);
    }
}

#[tokio::test]
async fn the_first_event_of_a_stream_is_not_held_back() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await.unwrap();
        // The stream stays open until the client has seen each part and closes.
        stream.write_all(b"data: 1\n\n").await.unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    wire.until(b"data: 1\n\n").await;
}

#[tokio::test]
async fn a_head_without_a_body_yet_is_not_held_back() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n").await.unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!("GET /svc/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn websockets_pass_in_both_directions_from_the_first_byte() {
    let origin = serve(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
        // The first frame comes in the same write as the switch.
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst";
        stream.write_all(switch).await.unwrap();
        let mut bytes = [0; 1024];
        loop {
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(count) => stream.write_all(&bytes[..count]).await.unwrap(),
            }
        }
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!(
        "GET /svc/ws HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ))
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(wire.exactly(5).await, b"first");
    for message in ["one", "two", "three"] {
        wire.send(message).await;
        assert_eq!(wire.exactly(message.len()).await, message.as_bytes());
    }
}

#[tokio::test]
async fn nothing_is_written_into_a_tunnel_that_is_idle() {
    let origin = serve(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst";
        stream.write_all(switch).await.unwrap();
        crate::support::origin::until_closed(&mut stream).await;
    })
    .await;
    let mut integration = service(&format!("http://{origin}"));
    let timeouts = &mut integration.api.as_mut().unwrap().timeouts;
    (timeouts.idle, timeouts.response) = (Duration::from_millis(300), Duration::from_millis(300));
    let doors = doors(integration);
    let mut wire = Wire::open(doors.proxy).await;
    wire.send(format!(
        "GET /svc/ws HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ))
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 101"));
    assert_eq!(wire.exactly(5).await, b"first");
    assert_eq!(String::from_utf8_lossy(&wire.rest().await), "", "nothing more is said in it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_kept_connections_that_are_all_gone_is_made_over_a_new_one() {
    let gate = Arc::new(tokio::sync::Barrier::new(2));
    let origin = serve(move |mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            let head = read_head(&mut stream).await.unwrap();
            // Both of the first calls are under way at once, so that there are two connections to keep.
            if head.starts_with("GET /pair") {
                gate.wait().await;
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            // It is closed when the next call comes: by then it was kept.
            drop(read_head(&mut stream).await);
        }
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    for _ in 0..5 {
        let pair = tokio::join!(call(doors.proxy, "GET /svc/pair", "", ""), call(doors.proxy, "GET /svc/pair", "", ""));
        assert_eq!((pair.0.text(), pair.1.text()), ("ok".to_owned(), "ok".to_owned()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        let next = call(doors.proxy, "GET /svc/next", "", "").await;
        assert_eq!((next.status, next.text()), (200, "ok".to_owned()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Resident memory of this process in MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1024
}

/// How much is streamed each way: 96 MiB, or as many MiB as `TRUNKLINE_STREAM_MIB` says.
fn streamed() -> usize {
    std::env::var("TRUNKLINE_STREAM_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(96) << 20
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_any_length_take_constant_memory() {
    const PIECE: usize = 64 << 10;
    let total = streamed();
    let origin = serve(move |mut stream| async move {
        read_head(&mut stream).await;
        let (mut piece, mut left) = (vec![7; PIECE], total);
        while left > 0 {
            left -= stream.read(&mut piece).await.unwrap();
        }
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n").as_bytes()).await.unwrap();
        for _ in 0..total / PIECE {
            stream.write_all(&piece).await.unwrap();
        }
    })
    .await;
    let doors = doors(service(&format!("http://{origin}")));
    let mut wire = Wire::open(doors.proxy).await;
    let before = resident();
    wire.send(format!(
        "POST /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {total}\r\n\r\n"
    ))
    .await;
    let mut piece = vec![7; PIECE];
    for _ in 0..total / PIECE {
        wire.send(&piece).await;
    }
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    let mut left = total;
    while left > 0 {
        left -= wire.0.read(&mut piece).await.unwrap();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 24, "{grown} MiB more after {} MiB each way", total >> 20);
}

fn failing(mut integration: Integration, response: u64, idle: u64) -> Integration {
    let timeouts = &mut integration.api.as_mut().unwrap().timeouts;
    timeouts.connect = Duration::from_secs(2);
    timeouts.response = Duration::from_millis(response);
    timeouts.idle = Duration::from_millis(idle);
    integration
}

#[tokio::test]
async fn each_failure_of_a_service_has_its_own_code() {
    let code_of = async |base: &str| {
        let doors = doors(failing(service(base), 600, 600));
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        assert!(reply.header("proxy-status").is_some_and(|status| status.starts_with("trunkline; error=")));
        (reply.status, reply.code().unwrap_or_default().to_owned())
    };
    let url = |address| format!("http://{address}");
    let case = |status: u16, code: &str| (status, code.to_owned());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code_of(&url(closed)).await, case(502, "service_unreachable"));
    assert_eq!(code_of("https://no-such-name.example").await, case(502, "service_unresolved"));
    assert_eq!(code_of("https://10.1.2.3").await, case(502, "address_forbidden"));
    assert_eq!(code_of("https://169.254.169.254").await, case(502, "address_forbidden"));
    let hangs_up = serve(|mut stream| async move { drop(read_head(&mut stream).await) }).await;
    assert_eq!(code_of(&url(hangs_up)).await, case(502, "service_unreachable"));
    let garbled = answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    assert_eq!(code_of(&url(garbled)).await, case(502, "service_answer_invalid"));
    let silent = serve(|mut stream| async move {
        read_head(&mut stream).await;
        until_closed(&mut stream).await;
    })
    .await;
    assert_eq!(code_of(&url(silent)).await, case(504, "service_timeout"));
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_stalls_is_cut_off_and_not_completed() {
    let resets = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    let stalls = serve(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await.unwrap();
        until_closed(&mut stream).await;
    })
    .await;
    for origin in [resets, stalls] {
        let doors = doors(failing(service(&format!("http://{origin}")), 600, 600));
        let mut wire = Wire::open(doors.proxy).await;
        wire.send(format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n")).await;
        assert!(wire.head().await.starts_with("HTTP/1.1 200"));
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), wire.0.read_to_end(&mut rest)).await;
        assert!(ended.is_ok() && String::from_utf8_lossy(&rest).contains("part"));
        assert!(!rest.ends_with(b"0\r\n\r\n"), "a broken answer was made to look whole");
    }
}

async fn tls_service(authority: &Authority, name: &str, protocols: &[&str]) -> std::net::SocketAddr {
    let acceptor = authority.acceptor(name, protocols);
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if h2 {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let key = request.headers()["authorization"].to_str().unwrap().to_owned();
                    let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                    body.send_data(format!("h2 {key}").into(), true).unwrap();
                }
                return;
            }
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.unwrap_or(0) > 0 {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh1").await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_verified_and_spoken_to_by_http_2_where_they_take_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let reply_of = async |trusted: &Authority, name: &'static str, protocols: &[&str]| {
        let origin = tls_service(&authority, "api.internal.example", protocols).await;
        let mut integration = service(&format!("https://{name}:{}", origin.port()));
        let transport = &mut integration.api.as_mut().unwrap().transport;
        transport.ca = Some(trusted.trusted());
        transport.allow_private = true;
        let mut setup = Setup::of(integration);
        setup.mode = Mode::Production;
        setup.private_networks = vec![Network { address: [127, 0, 0, 0].into(), prefix: 8 }];
        // The first address refuses, so that the second is tried.
        setup.names = vec![(name, vec!["127.0.0.2", "127.0.0.1"])];
        let doors = Doors::start(setup);
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        (reply.status, reply.code().map_or_else(|| reply.text(), str::to_owned))
    };
    let name = "api.internal.example";
    assert_eq!(reply_of(&authority, name, &["h2", "http/1.1"]).await, (200, "h2 Bearer sk_test".to_owned()));
    assert_eq!(reply_of(&authority, name, &["http/1.1"]).await, (200, "h1".to_owned()));
    assert_eq!(reply_of(&stranger, name, &["http/1.1"]).await, (502, "service_untrusted".to_owned()));
    assert_eq!(reply_of(&authority, "other.example", &["http/1.1"]).await, (502, "service_untrusted".to_owned()));
}

#[tokio::test]
async fn plain_http_and_loopback_need_development_mode() {
    let origin = Recorder::start().await;
    let mut setup = Setup::of(service(&origin.url()));
    setup.mode = Mode::Production;
    let reply = call(Doors::start(setup).proxy, "GET /svc/a", "", "").await;
    assert_eq!(reply.code(), Some("host_forbidden"));
    let mut integration = service("http://inside.example");
    integration.api.as_mut().unwrap().transport.allow_plain_http = true;
    let mut setup = Setup::of(integration);
    setup.names = vec![("inside.example", vec!["8.8.8.8", "127.0.0.1"])];
    let reply = call(Doors::start(setup).proxy, "GET /svc/a", "", "").await;
    assert_eq!(reply.code(), Some("address_forbidden"), "one forbidden address forbids the name");
}

#[tokio::test]
async fn the_mock_gets_the_call_instead_with_the_services_own_host() {
    let origin = Recorder::start().await;
    let mut setup = Setup::of(service("https://api.example.com/v1"));
    setup.mock = Some(origin.address);
    assert_eq!(call(Doors::start(setup).proxy, "GET /svc/a", "", "").await.status, 200);
    let seen = origin.last();
    assert_eq!((seen.first_line(), seen.all("host")), ("GET /v1/a HTTP/1.1", vec!["api.example.com"]));
    assert_eq!(seen.all("trunkline-mock-integration"), ["svc"]);
}

#[tokio::test]
async fn a_large_body_survives_a_refusal() {
    let doors = doors(service("https://unused.example"));
    let mut wire = Wire::open(doors.proxy).await;
    wire.send("POST /svc/a HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").await;
    wire.send(vec![b'x'; 200_000]).await;
    assert_eq!(wire.reply().await.status, 401);
    assert!(wire.is_closed().await);
}

fn endpoint(transform: Option<Transform>) -> Endpoint {
    let request = Request {
        method: Method::POST,
        target: Target::Path { path: text("/items"), query: None },
        query: Vec::new(),
        headers: Vec::new(),
        body: Body::Empty,
        basic: None,
        credential: CredentialUse::Token(None),
        ok: None,
        error: None,
        save: Vec::new(),
        result: None,
        timeout: None,
    };
    let pattern = PathPattern { method: Method::POST, segments: vec![Some("items".into())] };
    Endpoint {
        id: Arc::from("create"),
        request,
        pattern,
        scopes: Vec::new(),
        retry: None,
        transform,
        cache: None,
        page: None,
    }
}

#[tokio::test]
async fn an_endpoints_transform_changes_request_and_answer() {
    let origin = Recorder::start().await;
    let mut integration = service(&origin.url());
    let change = |json: serde_json::Value, header: &str| Change {
        headers: vec![(HeaderName::from_static("x-changed"), text(header))],
        json: Some(Tree::compile(&json, &mut |_, error| panic!("{error}"))),
    };
    let transform = Transform {
        request: Some(change(
            serde_json::json!({ "wrapped": "{{ body }}", "q": "{{ query.q }}", "c": "{{ connection.id }}" }),
            "{{ body.a }}",
        )),
        response: Some(change(serde_json::json!({ "was": "{{ body.wrapped.a }}" }), "{{ status }}")),
        errors: Errors::Pass,
        max_body: 1000,
    };
    integration.api.as_mut().unwrap().endpoints = vec![endpoint(Some(transform))];
    let doors = doors(integration);
    let reply = call(doors.proxy, "POST /svc/items?q=7", "Accept-Encoding: gzip\r\n", r#"{"a":1}"#).await;
    assert_eq!((reply.status, reply.json()), (200, serde_json::json!({ "was": 1 })));
    assert_eq!(reply.header("x-changed"), Some("200"));
    let seen = origin.last();
    assert_eq!(String::from_utf8_lossy(&seen.body), r#"{"wrapped":{"a":1},"q":"7","c":"default"}"#);
    assert_eq!((seen.all("x-changed"), seen.all("authorization")), (vec!["1"], vec!["Bearer sk_test"]));
    assert_eq!(seen.all("accept-encoding"), ["identity"]);
    let reply = call(doors.proxy, "POST /svc/items", "", &"x".repeat(1001)).await;
    assert_eq!((reply.status, reply.code()), (413, Some("body_too_large")));
}

#[tokio::test]
async fn endpoints_run_by_name() {
    let origin = Recorder::start().await;
    let mut integration = service(&origin.url());
    let mut create = endpoint(None);
    create.request.body =
        Body::Json(Tree::compile(&serde_json::json!({ "it": "{{ input.a }}" }), &mut |_, error| panic!("{error}")));
    create.request.result =
        Some(Tree::compile(&serde_json::json!({ "was": "{{ body.it }}" }), &mut |_, error| panic!("{error}")));
    integration.api.as_mut().unwrap().endpoints = vec![create];
    let doors = doors(integration);
    let reply = call(doors.proxy, "POST /svc/-/create", "", r#"{"a":1}"#).await;
    assert_eq!((reply.status, reply.json()), (200, serde_json::json!({ "was": 1 })));
    assert_eq!(origin.last().all("authorization"), ["Bearer sk_test"]);
    for (line, body, code) in [
        ("POST /svc/-/other", "{}", "not_found"),
        ("GET /svc/-/create", "", "method_not_allowed"),
        ("POST /svc/-/create", "[1]", "invalid_input"),
        ("POST /svc/-/create", "{", "invalid_input"),
    ] {
        assert_eq!(call(doors.proxy, line, "", body).await.code(), Some(code), "{line}");
    }
}

#[tokio::test]
async fn an_endpoint_by_name_needs_the_method_of_its_own_request() {
    let origin = Recorder::start().await;
    for (methods, paths, name, status) in [
        (&[Method::GET, Method::HEAD][..], &[][..], "create", 403),
        (&[Method::GET], &[], "other", 403),
        (&[Method::POST], &[], "create", 200),
        (&[Method::POST], &[], "other", 403),
        (&[], &["/-/create"], "create", 200),
        (&[], &["/-/create"], "other", 403),
    ] {
        let mut integration = service(&origin.url());
        integration.api.as_mut().unwrap().endpoints = vec![endpoint(None)];
        let mut setup = Setup::of(integration);
        setup.callers = vec![caller("app", KEY, grant("svc", "*", methods, paths))];
        let doors = Doors::start(setup);
        let reply = call(doors.proxy, &format!("POST /svc/-/{name}"), "", "{}").await;
        assert_eq!(reply.status, status, "{methods:?} {paths:?} {name}: {}", reply.text());
    }
}

#[tokio::test]
async fn calls_are_counted_and_kept_without_their_query() {
    let origin = Recorder::start().await;
    let doors = doors(service(&origin.url()));
    let mut wire = Wire::open(doors.proxy).await;
    for _ in 0..2 {
        wire.send(format!(
            "POST /svc/v1/x?secret=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 2\r\n\r\nhi"
        ))
        .await;
        assert_eq!(wire.reply().await.text(), "hi");
    }
    drop(wire);
    let kept = doors.activity.newest(10, |_| true);
    assert!(!kept.is_empty());
    assert_eq!(
        (&*kept[0].path, kept[0].status, kept[0].sent_bytes, kept[0].received_bytes),
        ("/v1/x", Some(200), 2, 2)
    );
    let sample = "trunkline_http_requests_total{code=\"200\",door=\"proxy\",integration=\"svc\"}";
    assert!(doors.metric(sample) >= 1.0);
    assert!(doors.metric("trunkline_upstream_requests_total{code=\"200\",integration=\"svc\"}") >= 1.0);
}

#[tokio::test]
async fn a_grant_is_for_every_spelling_of_its_paths_and_for_no_other_path() {
    let origin = Recorder::start().await;
    let mut setup = Setup::of(service(&origin.url()));
    setup.callers = vec![caller("app", KEY, grant("svc", "*", &[], &["/v1/a", "/-/create"]))];
    let doors = Doors::start(setup);
    for (path, status) in [
        ("/v1/a", 200),
        ("/v1/%61", 200),
        ("/%76%31/a", 200),
        ("/v1/a/", 403),
        ("/v1//a", 403),
        ("/v1/a;x", 403),
        ("/v1/a%3Bx", 403),
        ("/v1/%62", 403),
        ("/v1/a/%2e%2e/b", 400),
        ("/%2d/other", 403),
        ("/%2d/create", 404),
    ] {
        let reply = call(doors.proxy, &format!("POST /svc{path}"), "", "{}").await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    assert!(origin.all().iter().all(|seen| seen.first_line() == "POST /v1/a HTTP/1.1"), "{:?}", origin.all());
}

#[tokio::test]
async fn a_caller_of_http_1_0_gets_what_ends_with_the_connection() {
    let chunked = answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
    let endless = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello").await;
    let known = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
    for (at, length) in [(chunked, None), (endless, None), (known, Some("5"))] {
        let doors = doors(service(&format!("http://{at}")));
        let mut wire = Wire::open(doors.proxy).await;
        wire.send(format!(
            "GET /svc/a HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        ))
        .await;
        let reply = Reply { head: wire.head().await, status: 200, body: wire.exactly(5).await };
        assert_eq!((reply.header("transfer-encoding"), reply.header("content-length")), (None, length), "{reply:?}");
        assert_eq!(reply.text(), "hello");
        if length.is_none() {
            assert!(wire.is_closed().await);
        }
    }
}
