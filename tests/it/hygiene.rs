//! Request heads and bodies as bytes, against both doors: each is refused, or reaches a strict origin
//! with one framing.

use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::Recorder;
use crate::support::raw::Wire;

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Refused with this status, and the connection closed.
    Refused(u16),
    /// Let in, with a body of so many bytes.
    Passed(usize),
}

use Fate::{Passed, Refused};

/// `{T}` stands for a target of the door, `{A}` for the header lines it needs besides `Host`.
const CASES: &[(&str, &str, Fate)] = &[
    // Framing of the body.
    ("no body", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Passed(0)),
    ("length", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5\r\n\r\nhello", Passed(5)),
    ("leading zeros", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0005\r\n\r\nhello", Passed(5)),
    (
        "chunks",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Passed(5),
    ),
    (
        "chunked in capitals",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Passed(5),
    ),
    (
        "chunk extension",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\r\n",
        Passed(5),
    ),
    (
        "both framings",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "both, other order",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("plus sign", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: +5\r\n\r\nhello", Refused(400)),
    ("minus sign", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: -5\r\n\r\nhello", Refused(400)),
    ("hexadecimal length", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0x5\r\n\r\nhello", Refused(400)),
    ("length with letters", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5a\r\n\r\nhello", Refused(400)),
    ("empty length", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: \r\n\r\nhello", Refused(400)),
    ("length with a space", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5 5\r\n\r\nhello", Refused(400)),
    ("length list", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5, 5\r\n\r\nhello", Refused(400)),
    (
        "length beyond 64 bits",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 99999999999999999999\r\n\r\nhello",
        Refused(400),
    ),
    (
        "two equal lengths",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        Refused(400),
    ),
    (
        "two lengths",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        Refused(400),
    ),
    (
        "two codings",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "coding list",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunked twice in a list",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("identity", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: identity\r\n\r\n", Refused(400)),
    ("unknown coding", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "quoted coding",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "coding with a vertical tab",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "coding with a parameter",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked;x=y\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "coding in HTTP/1.0",
        "POST {T} HTTP/1.0\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("space before the colon", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length : 5\r\n\r\nhello", Refused(400)),
    (
        "coding with space before the colon",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "tab before the colon",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunk size with a sign",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunk size in 0x",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunk size of letters",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunk without its end",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        Refused(400),
    ),
    (
        "chunk size beyond 64 bits",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        Refused(400),
    ),
    // Lines and names.
    ("folded line", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: y\r\n z\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    (
        "folded coding",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("folded first header", "POST {T} HTTP/1.1\r\n Host: a\r\n{A}\r\n", Refused(400)),
    ("bare line feeds", "POST {T} HTTP/1.1\nHost: a\n{A}\n\n", Refused(400)),
    ("one bare line feed", "POST {T} HTTP/1.1\r\nHost: a\nX: y\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    (
        "bare line feed in a value",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: y\nContent-Length: 5\r\n\r\nhello",
        Refused(400),
    ),
    (
        "bare carriage return in a value",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: y\rContent-Length: 5\r\n\r\nhello",
        Refused(400),
    ),
    ("NUL in a value", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: y\0z\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("NUL in a name", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X\0: y\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("delete in a value", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: \x7f\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("line without a colon", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}XYZ\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("empty name", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}: y\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("underscore", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content_Length: 5\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("parenthesis in a name", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X(y): z\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    (
        "letters beyond ASCII in a name",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X\u{e9}: z\r\nContent-Length: 0\r\n\r\n",
        Refused(400),
    ),
    (
        "letters beyond ASCII in a value",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: \u{e9}\r\nContent-Length: 0\r\n\r\n",
        Passed(0),
    ),
    ("tab in a value", "POST {T} HTTP/1.1\r\nHost: a\r\n{A}X: y\tz\r\nContent-Length: 0\r\n\r\n", Passed(0)),
    ("empty line first", "\r\nPOST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    // The first line.
    ("two spaces", "POST  {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("tabs", "POST\t{T}\tHTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("space at its end", "POST {T} HTTP/1.1 \r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("no version", "POST {T}\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("HTTP/0.9", "POST {T} HTTP/0.9\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("HTTP/1.2", "POST {T} HTTP/1.2\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("HTTP/2.0", "POST {T} HTTP/2.0\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("small letters", "POST {T} http/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Refused(400)),
    ("method with a bracket", "PO[ST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n{A}\r\n", Refused(405)),
    ("TRACE", "TRACE {T} HTTP/1.1\r\nHost: a\r\n{A}\r\n", Refused(405)),
    ("no slash", "POST x{T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n{A}\r\n", Refused(400)),
    ("fragment", "POST {T}#x HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    (
        "letters beyond ASCII in the target",
        "POST {T}\u{e9} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n",
        Refused(400),
    ),
    ("NUL in the target", "POST {T}\0 HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("absolute form, same host", "POST http://a{T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Passed(0)),
    (
        "absolute form, other host",
        "POST http://evil.example{T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n",
        Refused(400),
    ),
    (
        "absolute form, userinfo",
        "POST http://a@evil.example{T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n",
        Refused(400),
    ),
    (
        "absolute form, other scheme",
        "POST ftp://a{T} HTTP/1.1\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n",
        Refused(400),
    ),
    // Host.
    ("no host", "POST {T} HTTP/1.1\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("no host in HTTP/1.0", "POST {T} HTTP/1.0\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("empty host", "POST {T} HTTP/1.1\r\nHost: \r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("two hosts", "POST {T} HTTP/1.1\r\nHost: a\r\nHost: b\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("two equal hosts", "POST {T} HTTP/1.1\r\nHost: a\r\nHost: a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("host list", "POST {T} HTTP/1.1\r\nHost: a, b\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("userinfo in the host", "POST {T} HTTP/1.1\r\nHost: u@a\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("path in the host", "POST {T} HTTP/1.1\r\nHost: a/b\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("port of letters", "POST {T} HTTP/1.1\r\nHost: a:b\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("broken IPv6 host", "POST {T} HTTP/1.1\r\nHost: [::1\r\n{A}Content-Length: 0\r\n\r\n", Refused(400)),
    ("IPv6 host", "POST {T} HTTP/1.1\r\nHost: [::1]:80\r\n{A}Content-Length: 0\r\n\r\n", Passed(0)),
    ("HTTP/1.0", "POST {T} HTTP/1.0\r\nHost: a\r\n{A}Content-Length: 5\r\n\r\nhello", Passed(5)),
    // Switches of protocol and expectations.
    (
        "offer of h2c",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\nContent-Length: 5\r\n\r\nhello",
        Passed(5),
    ),
    (
        "offer of WebSocket with a body",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello",
        Passed(5),
    ),
    (
        "expectation",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Passed(5),
    ),
    (
        "unknown expectation",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Expect: 200-ok\r\nContent-Length: 0\r\n\r\n",
        Refused(400),
    ),
    (
        "two content types",
        "POST {T} HTTP/1.1\r\nHost: a\r\n{A}Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Length: 0\r\n\r\n",
        Refused(400),
    ),
];

async fn fate(door: std::net::SocketAddr, request: &str) -> Fate {
    let mut wire = Wire::open(door).await;
    // Some of these are Latin-1 on the wire, as old clients send it.
    let bytes: Vec<u8> = request.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    wire.send(bytes).await;
    let reply = wire.reply().await;
    if reply.status == 200 {
        let counted = reply.body.strip_prefix(b"{\"bytes\":".as_slice()).map(|rest| &rest[..rest.len() - 1]);
        let bytes = counted.map_or(reply.body.len(), |count| std::str::from_utf8(count).unwrap().parse().unwrap());
        return Passed(bytes);
    }
    assert!(wire.is_closed().await, "still open after {}: {request:?}", reply.status);
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{request:?}: {reply:?}");
    Refused(reply.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_refused_or_has_one_reading_at_the_proxy_door() {
    let origin = Recorder::start().await;
    let doors = Doors::start(Setup::of(service(&origin.url())));
    let needs = format!("Authorization: Bearer {KEY}\r\n");
    let mut wrong = Vec::new();
    for (name, template, expected) in CASES {
        let before = origin.all().len();
        let found = fate(doors.proxy, &template.replace("{T}", "/svc/x").replace("{A}", &needs)).await;
        let reached = origin.all().len() - before;
        if found != *expected || reached > usize::from(matches!(expected, Passed(_))) {
            wrong.push((name, *expected, found, reached));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(CASES.len() >= 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_refused_or_has_one_reading_at_the_public_door() {
    let doors = Doors::start(Setup::of(service("https://unused.example")));
    let mut wrong = Vec::new();
    for (name, template, expected) in CASES {
        let found = fate(doors.public, &template.replace("{T}", "/webhooks/svc").replace("{A}", "X-Y: z\r\n")).await;
        if found != *expected {
            wrong.push((name, *expected, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let passed = CASES.iter().filter(|case| matches!(case.2, Passed(_))).count();
    assert_eq!(doors.inbox.received.lock().unwrap().len(), passed);
}

#[tokio::test]
async fn a_smuggled_second_request_is_not_read() {
    let origin = Recorder::start().await;
    let doors = Doors::start(Setup::of(service(&origin.url())));
    let mut wire = Wire::open(doors.proxy).await;
    let one = format!("GET /svc/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let two = one.replace("/svc/a", "/svc/b");
    wire.send(format!("{one}{two}")).await;
    assert_eq!(wire.reply().await.status, 200);
    assert!(wire.is_closed().await);
    assert_eq!(origin.all().len(), 1);
}
