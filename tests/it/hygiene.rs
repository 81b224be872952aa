//! Request heads and bodies as bytes, against both doors: each is refused, or reaches a strict origin
//! with one framing.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::outside::gateway::Deployment;
use crate::outside::within;
use crate::support::doors::{Doors, KEY, Setup, service};
use crate::support::origin::Recorder;
use crate::support::peer::Peer;
use crate::support::raw::{Wire, call};

/// What must become of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// Refused with this status, and the connection closed.
    Refused(u16),
    /// Let in, with a body of so many bytes.
    Passed(usize),
}

use Fate::{Passed, Refused};

/// See the file for what a line is.
const REQUESTS: &str = include_str!("../vectors/requests.txt");

struct Case {
    name: &'static str,
    fate: Fate,
    template: &'static str,
}

fn cases() -> Vec<Case> {
    let lines = REQUESTS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases: Vec<_> = lines
        .map(|line| {
            let mut parts = line.splitn(3, " | ");
            let [name, fate, template] = [(); 3].map(|()| parts.next().expect(line));
            let fate = match fate.strip_prefix("pass ") {
                Some(bytes) => Passed(bytes.parse().unwrap()),
                None => Refused(fate.parse().unwrap()),
            };
            Case { name, fate, template }
        })
        .collect();
    assert!(cases.len() >= 104, "{}", cases.len());
    cases
}

impl Case {
    fn bytes(&self, target: &str, needs: &str) -> Vec<u8> {
        let text = self.template.replace("{T}", target).replace("{A}", &needs.replace("\r\n", "\\r\\n"));
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((first, behind)) = rest.split_first() {
            let (byte, taken) = match (first, behind) {
                (b'\\', [b'r', ..]) => (b'\r', 1),
                (b'\\', [b'n', ..]) => (b'\n', 1),
                (b'\\', [b't', ..]) => (b'\t', 1),
                (b'\\', [b'0', ..]) => (0, 1),
                (b'\\', [b'x', digits @ ..]) => {
                    (u8::from_str_radix(std::str::from_utf8(&digits[..2]).unwrap(), 16).unwrap(), 3)
                }
                (b'\\', [escaped, ..]) => (*escaped, 1),
                _ => (*first, 0),
            };
            bytes.push(byte);
            rest = &behind[taken..];
        }
        bytes
    }
}

async fn fate(door: std::net::SocketAddr, bytes: &[u8]) -> Fate {
    let request = String::from_utf8_lossy(bytes);
    let mut wire = Wire::open(door).await;
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
    for case in cases() {
        let before = origin.all().len();
        let found = fate(doors.proxy, &case.bytes("/svc/x", &needs)).await;
        let reached = origin.all().len() - before;
        if found != case.fate || reached > usize::from(matches!(case.fate, Passed(_))) {
            wrong.push((case.name, case.fate, found, reached));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_refused_or_has_one_reading_at_the_public_door() {
    let doors = Doors::start(Setup::of(service("https://unused.example")));
    let mut wrong = Vec::new();
    for case in cases() {
        let found = fate(doors.public, &case.bytes("/webhooks/svc", "X-Y: z\r\n")).await;
        if found != case.fate {
            wrong.push((case.name, case.fate, found));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let passed = cases().iter().filter(|case| matches!(case.fate, Passed(_))).count();
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

/// Every case against servers that others wrote, each followed by what would be a smuggled request and by a good one
/// over the connections that are left: a server sees what was let in once, what was refused at most as one broken
/// request, and nothing else.
async fn no_case_makes_a_second_request_at(peer: &Peer) {
    let log = peer.told.iter().find_map(|line| line.strip_prefix("log ")).expect("a log").to_owned();
    let doors = Doors::start(Setup::of(service(&peer.url())));
    let needs = format!("Authorization: Bearer {KEY}\r\n");
    let (cases, mut good) = (cases(), 0);
    for (number, case) in cases.iter().enumerate() {
        let mut bytes = case.bytes(&format!("/svc/x?case={number}-"), &needs);
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n");
        let mut wire = Wire::open(doors.proxy).await;
        wire.send(bytes).await;
        let reply = wire.reply().await;
        match case.fate {
            Refused(status) => assert_eq!(reply.status, status, "{}", case.name),
            Passed(_) => assert!(reply.code().is_none(), "{}: {reply:?}", case.name),
        }
        let probe = call(doors.proxy, &format!("GET /svc/x?case=good{number}-"), "", "").await;
        assert!(probe.code().is_none(), "after {}: {probe:?}", case.name);
        good += 1;
    }
    // Some servers write their log now and then.
    let read = || std::fs::read_to_string(&log).unwrap();
    assert!(within(Duration::from_secs(30), || read().matches("case=good").count() >= good), "{}", read());
    let text = read();
    for (number, case) in cases.iter().enumerate() {
        let seen = text.lines().filter(|line| line.contains(&format!("case={number}-"))).count();
        match case.fate {
            Passed(_) => assert_eq!(seen, 1, "{}: {text}", case.name),
            Refused(_) => assert!(seen <= 1, "{}: {text}", case.name),
        }
    }
    assert_eq!(text.matches("case=good").count(), good, "{text}");
    let others: Vec<_> = text.lines().filter(|line| !line.contains("case=")).collect();
    assert!(!text.contains("smuggled") && others.iter().all(|line| line.trim().len() <= 2), "{others:?}");
}

macro_rules! origins {
    ($($test:ident: $name:literal;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let peer = tokio::task::spawn_blocking(|| Peer::origin($name)).await.unwrap();
            no_case_makes_a_second_request_at(&peer).await;
        })+
    };
}

origins! {
    nothing_is_smuggled_to_nginx: "nginx";
    nothing_is_smuggled_to_apache: "apache2";
    nothing_is_smuggled_to_lighttpd: "lighttpd";
    nothing_is_smuggled_to_haproxy: "haproxy";
    nothing_is_smuggled_to_gunicorn: "gunicorn";
    nothing_is_smuggled_to_waitress: "waitress";
    nothing_is_smuggled_to_node: "node";
}

#[tokio::test]
async fn a_chunk_extension_without_end_is_refused_and_kept_by_nobody() {
    let origin = Recorder::start().await;
    let doors = Doors::start(Setup::of(service(&origin.url())));
    for (door, target, needs) in [
        (doors.public, "/webhooks/svc", String::new()),
        (doors.proxy, "/svc/x", format!("Authorization: Bearer {KEY}\r\n")),
    ] {
        let head = format!("POST {target} HTTP/1.1\r\nHost: a\r\n{needs}Transfer-Encoding: chunked\r\n\r\n");
        let mut wire = Wire::open(door).await;
        wire.send(&head).await;
        drop(wire.0.write_all(format!("5;x={}\r\nhello\r\n0\r\n\r\n", "y".repeat(100_000)).as_bytes()).await);
        assert_eq!(wire.reply().await.status, 400, "{target}");
    }
}

/// Nobody has to know what is at the admin door for this: what is let in is refused for its host, as nothing else is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_refused_or_has_one_reading_at_the_admin_door() {
    let (deployment, _gateway) = tokio::task::spawn_blocking(|| {
        let deployment = Deployment::of(&[]);
        let gateway = deployment.start();
        (deployment, gateway)
    })
    .await
    .unwrap();
    let mut wrong = Vec::new();
    for case in cases() {
        let mut wire = Wire::open(deployment.admin).await;
        wire.send(case.bytes("/api/reload", "X-Y: z\r\n")).await;
        let reply = wire.reply().await;
        let fits = match case.fate {
            Refused(status) => {
                let problem = reply.header("content-type") == Some("application/problem+json");
                reply.status == status && problem && reply.code() != Some("misdirected") && wire.is_closed().await
            }
            // An address is no name, so it is let in as far as who asks is known.
            Passed(_) => matches!(reply.code(), Some("misdirected" | "admin_unknown")),
        };
        if !fits {
            wrong.push((case.name, case.fate, reply.head));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
