//! Whose a connection or a request is: what load balancers and proxies say, and who is believed.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trunkline::definition::plan::gateway::{Door, Doors as Settings, Limits, Network};

use crate::support::doors::{Doors, Setup, service};
use crate::support::raw::{Wire, send};

const HERE: Network = Network { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), prefix: 8 };
const V2: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
const WEBHOOK: &str = "POST /webhooks/svc HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n";

fn doors(public: Door, limits: &Limits) -> Doors {
    let mut setup = Setup::of(service("https://unused.example"));
    setup.doors = Settings { public, ..Settings::default() };
    setup.limits = *limits;
    Doors::start(setup)
}

fn last_source(doors: &Doors) -> Option<String> {
    doors.inbox.received.lock().unwrap().pop().unwrap().0.source.map(|source| source.to_string())
}

fn counted(doors: &Doors, name: &str, reason: &str) -> f64 {
    doors.metric(&format!("trunkline_door_connections_{name}_total{{door=\"public\",reason=\"{reason}\"}}"))
}

#[tokio::test]
async fn a_load_balancer_says_whose_a_connection_is() {
    let balanced = Door { proxy_protocol: vec![HERE], ..Door::default() };
    let doors = doors(balanced, &Limits::default());
    let request = format!("{WEBHOOK}\r\n{{}}");
    let v2 = [&V2[..], &[192, 0, 2, 9, 10, 0, 0, 1, 1, 2, 3, 4]].concat();
    for (header, source) in [
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n".to_vec(), "192.0.2.1"),
        (b"PROXY TCP6 2001:db8::1 ::1 5000 443\r\n".to_vec(), "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (v2, "192.0.2.9"),
    ] {
        assert_eq!(send(doors.public, [&header[..], request.as_bytes()].concat()).await.status, 200);
        assert_eq!(last_source(&doors).as_deref(), Some(source));
    }
    let mut wire = Wire::open(doors.public).await;
    wire.send(&request).await;
    assert!(wire.is_closed().await);
    assert!(counted(&doors, "broken", "proxy_protocol") >= 1.0);
    let nobody = doors.inbox.received.lock().unwrap().is_empty();
    assert!(nobody, "a connection without a header is nobody's");
}

#[tokio::test]
async fn from_elsewhere_such_a_header_is_a_malformed_request() {
    let elsewhere = Network { address: IpAddr::from([10, 0, 0, 0]), prefix: 8 };
    let doors = doors(Door { proxy_protocol: vec![elsewhere], ..Door::default() }, &Limits::default());
    let request = format!("PROXY TCP4 192.0.2.1 10.0.0.1 5000 443\r\n{WEBHOOK}\r\n{{}}");
    assert_eq!(send(doors.public, request).await.status, 400);
}

#[tokio::test]
async fn places_are_counted_for_the_client_that_a_load_balancer_names() {
    let balanced = Door { proxy_protocol: vec![HERE], ..Door::default() };
    let doors = doors(balanced, &Limits { connections_per_source: 1, ..Limits::default() });
    let open = async |client: &str| {
        let mut wire = Wire::open(doors.public).await;
        wire.send(format!("PROXY TCP4 {client} 10.0.0.1 5000 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        wire
    };
    let (mut first, mut other) = (open("192.0.2.1").await, open("192.0.2.2").await);
    assert_eq!((first.reply().await.status, other.reply().await.status), (404, 404));
    assert!(open("192.0.2.1").await.is_closed().await);
    assert!(counted(&doors, "refused", "source") >= 1.0);
    drop(first);
    for _ in 0..100 {
        let mut again = open("192.0.2.1").await;
        if again.until(b"\r\n").await.starts_with(b"HTTP/1.1 404") {
            return;
        }
    }
    panic!("the place is not given back");
}

#[tokio::test]
async fn a_header_that_trickles_in_ends_with_its_time() {
    let balanced = Door { proxy_protocol: vec![HERE], ..Door::default() };
    let doors = doors(balanced, &Limits { header_timeout: Duration::from_millis(300), ..Limits::default() });
    let mut wire = Wire::open(doors.public).await;
    wire.0.write_all(b"PROXY TCP4 192").await.unwrap();
    assert!(wire.is_closed().await);
    assert!(counted(&doors, "broken", "timeout") >= 1.0);
}

async fn source_of(doors: &Doors, headers: &str) -> Option<String> {
    assert_eq!(send(doors.public, format!("{WEBHOOK}{headers}\r\n{{}}")).await.status, 200);
    last_source(doors)
}

#[tokio::test]
async fn forwarded_sources_are_believed_of_trusted_proxies_only() {
    let trusting = doors(Door { forwarded: vec![HERE], ..Door::default() }, &Limits::default());
    let told = "X-Forwarded-For: 1.1.1.1, 192.0.2.1, 127.0.0.9\r\n";
    assert_eq!(source_of(&trusting, told).await.as_deref(), Some("192.0.2.1"));
    assert_eq!(source_of(&trusting, "Forwarded: for=192.0.2.3\r\n").await.as_deref(), Some("192.0.2.3"));
    assert_eq!(source_of(&trusting, "").await.as_deref(), Some("127.0.0.1"));
    let others = doors(Door::default(), &Limits::default());
    assert_eq!(source_of(&others, told).await.as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn requests_are_counted_for_the_client_that_a_proxy_names() {
    let limits = Limits { connections_per_source: 1, ..Limits::default() };
    let trusted = Door { forwarded: vec![HERE], ..Door::default() };
    // Over Unix or from elsewhere the proxy's own connections would count as one address'.
    let balanced = Door { proxy_protocol: vec![HERE], ..trusted };
    let doors = doors(balanced, &limits);
    let begin = async |client: &str, port: u16| {
        let mut wire = Wire::open(doors.public).await;
        let from = format!("PROXY TCP4 127.0.{port}.1 10.0.0.1 5000 443\r\n");
        wire.send(format!("{from}{WEBHOOK}X-Forwarded-For: {client}\r\n\r\n{{")).await;
        wire
    };
    let mut first = begin("192.0.2.1", 1).await;
    // It is under way once its head has been read; the refused ones tell.
    let mut refused = 0;
    for port in 2..100 {
        let mut second = begin("192.0.2.1", port).await;
        second.send("}").await;
        if second.reply().await.status == 503 {
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1);
    let mut other = begin("192.0.2.2", 101).await;
    other.send("}").await;
    first.send("}").await;
    assert_eq!((other.reply().await.status, first.reply().await.status), (200, 200));
}

#[tokio::test]
async fn curl_speaks_the_proxy_protocol() {
    let balanced = Door { proxy_protocol: vec![HERE], ..Door::default() };
    let doors = doors(balanced, &Limits::default());
    let mut command = std::process::Command::new("curl");
    let at = SocketAddr::from(([127, 0, 0, 1], doors.public.port()));
    command.args(["--silent", "--noproxy", "*", "--haproxy-protocol", "--data", "{}", "--output", "-"]);
    command.arg(format!("http://{at}/webhooks/svc"));
    let output = crate::doors_tls::run(command).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"bytes\":2}");
}
