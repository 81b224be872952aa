//! The admin door under hostile inputs: whatever is asked, the answer is the asker's fault, never a 5xx.
//!
//! Through the binary: what is asked here went through the same parsers in the same order as in life.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use trunkline::admin::api::document;
use trunkline::base::random::Random;

use crate::outside::chance;
use crate::outside::gateway::Deployment;
use crate::outside::http::{Client, Reply};
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};

/// What the admin door serves beside the API.
const OTHERS: [&str; 4] = ["/metrics", "/livez", "/readyz", "/healthz"];

/// A path with `{}` where an id goes, and the methods that it is for.
struct Route {
    path: String,
    methods: Vec<String>,
}

/// Every route, from the table that the router is made of; but streams, whose answers have no end. Paths with a server of
/// their own are the public door's.
fn routes() -> Vec<Route> {
    let document: Value = serde_json::from_str(document::text()).unwrap();
    let of_api = document["paths"].as_object().unwrap().iter();
    let of_api = of_api.filter(|(path, item)| !path.ends_with("/stream") && item.get("servers").is_none());
    let of_api = of_api.map(|(path, item)| Route {
        path: path.replace("{id}", "{}").replace("{result}", "{}"),
        methods: item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect(),
    });
    let others = OTHERS.map(|path| Route { path: path.to_owned(), methods: vec!["GET".to_owned()] });
    of_api.chain(others).collect()
}

const IDS: &[&str] = &[
    "x",
    "evt_",
    "evt_00000000000000000000000000",
    "evt_7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "evt_ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "evt_0000000000000000000000000",
    "evt_00000000000000000000000000.0",
    "evt_00000000000000000000000000.65535",
    "evt_00000000000000000000000000.65536",
    "evt_00000000000000000000000000.-1",
    "evt_00000000000000000000000000.99999999999999999999",
    "%00",
    "%ff%fe",
    "%2e%2e%2fconfig",
    "..%5c..",
    "%",
    "%zz",
    "evt_%30",
    "%E2%80%AE",
    "'%20OR%201=1--",
    "{}",
    "*",
];

const QUERIES: &[&str] = &[
    "limit=0",
    "limit=-1",
    "limit=1001",
    "limit=99999999999999999999999",
    "limit=1e3",
    "limit=",
    "limit",
    "limit=1&limit=2",
    "after=x",
    "after=evt_00000000000000000000000000",
    "after=evt_7ZZZZZZZZZZZZZZZZZZZZZZZZZ",
    "after=%00",
    "since=yesterday",
    "since=99999999999999h",
    "since=-1h",
    "since=0000-00-00T00:00:00Z",
    "until=9999-12-31T23:59:59.999999999%2B23:59",
    "until=1970-01-01T00:00:00Z&since=9999-12-31T23:59:59Z",
    "state=alive",
    "state=dead&state=done",
    "type=%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2A%2Ax",
    "integration=%ff",
    "integration=../../etc/passwd",
    "no_such=1",
    "%",
    "%zz=%zz",
    "&&&&",
    "=",
    "a=b=c&",
    "verbose=%00",
];

struct Door {
    client: Client,
    address: SocketAddr,
}

impl Door {
    fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> Reply {
        let reply = self.client.send(method, target, &[("content-type", "application/json")], body);
        let reply = reply.unwrap_or_else(|error| panic!("{method} {target}: no answer: {error}"));
        check(&reply, &format!("{method} {target}"));
        if reply.header("connection").is_some_and(|value| value == "close") {
            self.client = Client::new(self.address);
        }
        reply
    }
}

fn check(reply: &Reply, what: &str) {
    let text = String::from_utf8_lossy(&reply.body);
    assert!((200..500).contains(&reply.status), "{what}: {} {text}", reply.status);
    let is_page = reply.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    if is_page {
        // Addresses outside the API are the page's, which answers people.
        assert!(!what.contains(" /api/") && text.contains("</html>"), "{what}: {text}");
    } else if reply.status >= 400 {
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {text}");
        assert!(reply.json()["code"].is_string() && reply.json()["status"] == reply.status, "{what}: {text}");
    }
}

#[test]
fn hostile_requests_are_refused_as_such_and_none_is_an_error_of_the_gateway() {
    let sink = Sink::start(Mood::Failing);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let mut gateway = deployment.start();
    let ledger = Ledger::default();
    ledger.send_one(&mut Client::new(deployment.public), 300).expect("an answer");
    let event = ledger.acknowledged().into_values().next().flatten().expect("an event");
    let mut door = Door { client: Client::new(deployment.admin), address: deployment.admin };
    let long = "a".repeat(7_000);
    let routes = routes();
    assert!(routes.len() > 50, "{} routes", routes.len());
    for Route { path, methods } in &routes {
        let target = path.replace("{}", &event);
        for method in methods {
            for id in IDS.iter().copied().chain([long.as_str(), &event]).take(if path.contains("{}") { 99 } else { 1 })
            {
                door.ask(method, &path.replace("{}", id), b"");
            }
            for query in QUERIES.iter().copied().chain([long.as_str()]) {
                door.ask(method, &format!("{target}?{query}"), b"");
            }
            for body in [&b"{"[..], b"[1e400]", b"\xff\xfe\x00", b"null", b"{}"] {
                door.ask(method, &target, body);
            }
        }
        for other in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let reply = door.ask(other, &target, b"");
            let is_for = methods.iter().any(|method| method == other);
            assert!(is_for || reply.status == 405, "{other} {target}: {}", reply.status);
        }
    }
    for target in ["/api", "/api/", "//api/events", "/api/events/", "/api/events/a/b/c", "/%2e%2e/api/config", "/*"] {
        assert_eq!(door.ask("GET", target, b"").status, 404, "{target}");
    }
    random_requests(&mut door);
    raw_requests(deployment.admin);
    assert!(gateway.is_ready(), "{}", deployment.log_tail());
    let metrics = door.ask("GET", "/metrics", b"");
    let panics = String::from_utf8_lossy(&metrics.body).into_owned();
    let mut panics = panics.lines().filter(|line| line.starts_with("trunkline_panics_total"));
    assert!(panics.all(|line| line.ends_with(" 0")), "{}", deployment.log_tail());
}

/// Targets from the alphabet that parsers stumble over; `TRUNKLINE_CHAOS_SEED` repeats them.
fn random_requests(door: &mut Door) {
    const PIECES: &[&str] = &[
        "/",
        "/api",
        "/events",
        "/deliveries",
        "evt_",
        "0",
        "7Z",
        ".",
        "..",
        "%2f",
        "%00",
        "%c3",
        "?",
        "&",
        "=",
        "limit",
        "after",
        "state",
        "*",
        "%25",
        ";",
        "'",
        "|",
        "~",
    ];
    let random = chance("hostile requests");
    for _ in 0..2_000 {
        let mut bytes = [0; 12];
        random.fill(&mut bytes).unwrap();
        let count = 1 + usize::from(bytes[0] % 11);
        let target: String = bytes[1..=count].iter().map(|byte| PIECES[usize::from(*byte) % PIECES.len()]).collect();
        door.ask(if bytes[0] & 64 == 0 { "GET" } else { "POST" }, &format!("/{target}"), b"");
    }
}

/// What is no HTTP, or too much of it: refused or closed, within seconds.
fn raw_requests(address: SocketAddr) {
    let many = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "a: b\r\n".repeat(5_000));
    let long = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    let target = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "z".repeat(100_000));
    let body = format!(
        "POST /api/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999\r\n\r\n{}",
        "b".repeat(400_000)
    );
    let chunks = "POST /api/reload HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    let both = "POST /api/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let hosts =
        ["", "host: evil.example\r\n", "host: a\r\nhost: b\r\n", "host: localhost@evil.example\r\n", "host: \u{0}\r\n"];
    let hosts = hosts.map(|host| format!("GET /api/config HTTP/1.1\r\n{host}\r\n"));
    let others = [
        "GET\r\n\r\n",
        "\r\n\r\n\r\n\u{0}",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let all = [many, long, target, body, chunks.to_owned(), both.to_owned()].into_iter().chain(hosts);
    for request in all.chain(others.map(str::to_owned)) {
        let shown: String = request.chars().take(60).collect();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        // It may close before it has read all.
        drop(stream.write_all(request.as_bytes()));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        // A reset ends it as well; what must not happen is that it hangs.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{shown:?} is left hanging");
        }
        let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        assert!(!first.contains(" 5"), "{shown:?}: {first}");
    }
}
