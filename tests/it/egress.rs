//! The way out: through a proxy or straight, and never to where a definition may not lead.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use trunkline::base::clock::SystemClock;
use trunkline::connection::grant::TokenErrorKind;
use trunkline::definition::compile::exempt;
use trunkline::definition::plan::api::{Timeouts, Transport};
use trunkline::definition::plan::egress::Egress;
use trunkline::definition::plan::gateway::{Mode, Network};
use trunkline::net::client::Clients;
use trunkline::net::resolve::{Found, Lookup, Resolver, Unresolved};
use trunkline::net::trust::Trust;
use trunkline::net::{Base, BodyLimit, Dialer, Failure, Outgoing, Reach, Received, Sent, Towards};
use trunkline::respond::Refusal;

use crate::calls::world::Setting;
use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};
use crate::outside::within;
use crate::support::doors::{Doors, Setup, service};
use crate::support::forward_proxy::ForwardProxy;
use crate::support::origin::{Recorder, counting, serve};
use crate::support::raw::call;
use crate::support::tls::Authority;
use crate::tokens::world::{held, world_at};

/// Counts what is asked, and knows nothing.
#[derive(Debug, Default)]
struct Unasked(AtomicUsize);

#[async_trait]
impl Lookup for Unasked {
    async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Unresolved::NoAddress)
    }
}

/// A call of the gateway's own to a service.
async fn own_call(egress: Egress, url: &str, ca: Option<&Authority>) -> (Result<Received, Failure>, usize) {
    let names = Arc::new(Unasked::default());
    let resolver = Resolver::new(Arc::clone(&names) as Arc<dyn Lookup>, Arc::new(SystemClock::new()));
    let clients = Clients::new(Arc::new(Dialer::new(resolver, None).leaving_by(egress)), Trust::of(&[]));
    let base = Base::parse(url, true).unwrap();
    let transport = Transport { ca: ca.map(Authority::trusted), ..Transport::default() };
    let outgoing = Outgoing {
        towards: Towards::Service { integration: Arc::from("svc"), transport, reach: Reach::public() },
        caller: None,
        method: Method::GET,
        origin: base.origin,
        path: base.path,
        query: None,
        secret_query: None,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        timeouts: Timeouts::default(),
        limit: BodyLimit::default(),
    };
    (clients.send(outgoing).await, names.0.load(Ordering::SeqCst))
}

/// A service under TLS that answers everything, by this name.
async fn secure_service(authority: &Authority, name: &str) -> SocketAddr {
    let acceptor = authority.acceptor(name, &["http/1.1"]);
    serve(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tokio::io::AsyncReadExt::read_u8(&mut stream).await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            assert!(!String::from_utf8_lossy(&head).to_ascii_lowercase().contains("proxy-authorization"));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.unwrap();
            drop(stream.shutdown().await);
        }
    })
    .await
}

fn through(mut integration: trunkline::definition::plan::Integration, egress: Egress, ca: Option<&Authority>) -> Doors {
    let transport = &mut integration.api.as_mut().unwrap().transport;
    (transport.allow_plain_http, transport.ca) = (true, ca.map(Authority::trusted));
    let mut setup = Setup::of(integration);
    (setup.mode, setup.egress) = (Mode::Production, egress);
    Doors::start(setup)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_calling_go_through_the_proxy_which_looks_names_up() {
    let authority = Authority::new();
    let secure = secure_service(&authority, "api.example").await;
    let plain = Recorder::start().await;
    let proxy = ForwardProxy::start(&[("api.example:443", secure), ("api.example:8000", plain.address)], None).await;

    let doors = through(service("https://api.example"), proxy.egress(Vec::new()), Some(&authority));
    let reply = call(doors.proxy, "GET /svc/a", "", "").await;
    assert_eq!((reply.status, reply.text()), (200, "ok".to_owned()));
    let (received, asked) = own_call(proxy.egress(Vec::new()), "https://api.example/a", Some(&authority)).await;
    assert_eq!((&received.unwrap().body[..], asked), (&b"ok"[..], 0));
    assert_eq!(proxy.lines(), ["CONNECT api.example:443 HTTP/1.1", "CONNECT api.example:443 HTTP/1.1"]);
    let authorized = |head: &String| {
        head.to_ascii_lowercase().contains("proxy-authorization: basic z2f0zxdhetpjyw5hcnktcgfzc3dvcmq=")
    };
    assert!(proxy.asked.lock().unwrap().iter().all(authorized), "{:?}", proxy.asked);

    // Plain HTTP is tunnelled as well where calls are streamed.
    let doors = through(service("http://api.example:8000"), proxy.egress(Vec::new()), None);
    assert_eq!(call(doors.proxy, "POST /svc/a", "", "hello").await.text(), "hello");
    assert_eq!(proxy.lines()[2], "CONNECT api.example:8000 HTTP/1.1");
    assert!(plain.last().all("proxy-authorization").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxys_failures_are_not_the_services() {
    let broken = serve(|stream| async move { drop(stream) }).await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (answer, words) in [("407 Who", "other credentials"), ("403 No", "refused"), ("502 Bad", "refused")] {
        let proxy = ForwardProxy::start(&[], Some(answer)).await;
        let doors = through(service("https://api.example"), proxy.egress(Vec::new()), None);
        let reply = call(doors.proxy, "GET /svc/a", "", "").await;
        assert_eq!((reply.status, reply.code()), (502, Some("egress_failed")), "{answer}: {}", reply.text());
        assert!(reply.text().contains(words) && !reply.text().contains("canary"), "{}", reply.text());
        assert!(doors.metric("trunkline_upstream_errors_total{integration=\"svc\",reason=\"egress\"}") >= 1.0);
        let authority = Authority::new();
        let own = own_call(proxy.egress(Vec::new()), "https://api.example/a", Some(&authority)).await;
        let told = own.0.as_ref().unwrap_err().to_string();
        assert_eq!(own.0.unwrap_err().refusal(), Refusal::EgressFailed, "{told}");
        assert!(told.contains(words) && !told.contains("canary"), "{told}");
    }
    let proxy = ForwardProxy { address: nobody, asked: Arc::default() };
    let doors = through(service("https://api.example"), proxy.egress(Vec::new()), None);
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some("egress_failed"));
    let failure =
        own_call(proxy.egress(Vec::new()), "https://api.example/a", Some(&Authority::new())).await.0.unwrap_err();
    assert_eq!(failure.refusal(), Refusal::EgressFailed, "{failure}");
    // A service that breaks off behind a sound proxy.
    let proxy = ForwardProxy::start(&[("api.example:443", broken)], None).await;
    let doors = through(service("https://api.example"), proxy.egress(Vec::new()), None);
    assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some("service_unreachable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_calls_of_our_own_tell_the_proxys_want_of_credentials_from_an_answer() {
    let proxy = ForwardProxy::start(&[], Some("407 Who")).await;
    let failure = own_call(proxy.egress(Vec::new()), "http://api.example/a", None).await.0.unwrap_err();
    assert_eq!(failure.refusal(), Refusal::EgressFailed, "{failure}");
    assert_eq!(proxy.lines(), ["GET http://api.example/a HTTP/1.1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exempt_goes_straight_and_loopback_always_does() {
    let origin = Recorder::start().await;
    let proxy = ForwardProxy::start(&[], None).await;
    let mut setup = Setup::of(service(&origin.url()));
    setup.egress = proxy.egress(Vec::new());
    assert_eq!(call(Doors::start(setup).proxy, "GET /svc/a", "", "").await.status, 200);
    let (failed, asked) =
        own_call(proxy.egress(exempt(&[".example".to_owned()]).unwrap()), "https://api.example/", None).await;
    assert!(failed.is_err() && asked == 0, "no roots, and so not even a name is looked up");
    let authority = Authority::new();
    let list = exempt(&[".example".to_owned()]).unwrap();
    let (failed, asked) = own_call(proxy.egress(list), "https://api.example/", Some(&authority)).await;
    assert_eq!((failed.unwrap_err().refusal(), asked), (Refusal::ServiceUnresolved, 1));
    assert_eq!(proxy.lines(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_a_proxy_addresses_are_judged_as_ever() {
    let proxy = ForwardProxy::start(&[], None).await;
    for host in ["10.0.0.1", "169.254.169.254", "[::ffff:10.0.0.1]", "127.0.0.1", "localhost", "[64:ff9b::a00:1]"] {
        let doors = through(service(&format!("http://{host}:8000")), proxy.egress(Vec::new()), None);
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some("address_forbidden"), "{host}");
        let failure = own_call(proxy.egress(Vec::new()), &format!("http://{host}:8000/"), None).await.0.unwrap_err();
        assert_eq!(failure.refusal(), Refusal::AddressForbidden, "{host}");
    }
    assert_eq!(proxy.lines(), [""; 0]);
}

/// Where clouds hand credentials out, by address and by names that lead there.
const METADATA: [&str; 4] = ["169.254.169.254", "[fd00:ec2::254]", "metadata.test", "metadata6.test"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_of_call_reaches_a_metadata_service_whatever_networks_are_allowed() {
    let networks = || {
        let of = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
        vec![of("169.254.0.0", 16), of("fd00::", 8), of("127.0.0.0", 8)]
    };
    for host in METADATA {
        let base = format!("http://{host}");
        let mut integration = service(&base);
        let transport = &mut integration.api.as_mut().unwrap().transport;
        (transport.allow_private, transport.allow_plain_http) = (true, true);
        let names = vec![("metadata.test", vec!["169.254.169.254"]), ("metadata6.test", vec!["fd00:ec2::254"])];
        let doors = Doors::start(Setup { names, private_networks: networks(), ..Setup::of(integration) });
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.code(), Some("address_forbidden"), "{host}");
        let world = Setting { private_networks: networks(), ..Setting::at(base.as_str()) }.world();
        let error = world.get("/x").await.expect_err(host);
        assert_eq!((error.refusal(), error.sent()), (Refusal::AddressForbidden, Sent::Nothing), "{host}: {error}");
        let oauth2 = json!({ "token": "SVC/token", "client": { "id": "app", "secret": "canary-secret" } });
        let renewed = world_at(&base, &oauth2, &json!({})).renew("default", &held("old", Some("rt"))).await;
        let error = renewed.map(drop).expect_err(host);
        assert_eq!(error.kind, TokenErrorKind::Misconfigured, "{host}: {error}");
        assert!(error.to_string().contains("may not dial"), "{host}: {error}");
    }
}

/// Each line is a host that must never be dialled: an address in some spelling, or a name and what DNS says of it.
const FORBIDDEN: &str = include_str!("../vectors/forbidden_hosts.txt");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_spelling_of_an_inner_address_is_dialled() {
    let listeners = [TcpListener::bind("0.0.0.0:0").await.unwrap(), TcpListener::bind("[::]:0").await.unwrap()];
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let dialled = Arc::new(AtomicUsize::new(0));
    for listener in listeners {
        let dialled = Arc::clone(&dialled);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                dialled.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let lines: Vec<&'static str> =
        FORBIDDEN.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(lines.len() >= 120, "{}", lines.len());
    let mut setup = Setup::of(service("https://unused.example"));
    setup.mode = Mode::Production;
    let mut wanted = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let (host, addresses) = line.split_once(" = ").unwrap_or((line, ""));
        if !addresses.is_empty() {
            setup.names.push((host, addresses.split(' ').collect()));
        }
        for port in ports {
            let mut integration = service(&format!("http://{host}:{port}"));
            integration.id = Arc::from(format!("svc{number}-{port}"));
            integration.api.as_mut().unwrap().transport.allow_plain_http = true;
            wanted.push((*line, Arc::clone(&integration.id)));
            setup.integrations.push(integration);
        }
    }
    let doors = Doors::start(setup);
    let mut wrong = Vec::new();
    for (line, id) in wanted {
        let reply = call(doors.proxy, &format!("GET /{id}/a"), "", "").await;
        let refused = ["address_forbidden", "service_unresolved", "definition_failed"];
        if !reply.code().is_some_and(|code| refused.contains(&code)) {
            wrong.push((line, reply.status, reply.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(dialled.load(Ordering::SeqCst), 0);
}

/// Answers each time with another address of its list, and that at once out of date.
#[derive(Debug)]
struct Rebinding(AtomicUsize, Vec<IpAddr>);

#[async_trait]
impl Lookup for Rebinding {
    async fn lookup(&self, _name: &str) -> Result<Found, Unresolved> {
        let turn = self.0.fetch_add(1, Ordering::SeqCst);
        Ok(Found { addresses: vec![self.1[turn % self.1.len()]], ttl: Duration::ZERO })
    }
}

/// Only the address that was judged is dialled, however often the name changes what it stands for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_rebinds_is_never_dialled_at_the_other_address() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = trap.local_addr().unwrap().port();
    // The other address is one of ours as well, that nobody listens at: what is public cannot be dialled in a test.
    let allowed = Reach::of_destination();
    let names = Rebinding(AtomicUsize::new(0), vec![[127, 0, 0, 77].into(), [169, 254, 169, 254].into()]);
    let clock = Arc::new(trunkline::base::clock::ManualClock::at(trunkline::base::clock::Timestamp::default()));
    let dialer = Dialer::new(Resolver::new(Arc::new(names), clock.clone()), None);
    let mut refused = 0;
    for _ in 0..1_000 {
        clock.advance(Duration::from_secs(2));
        match dialer.route("evil.example", port, &allowed).await {
            Ok(route) => {
                let dialled = trunkline::net::connect::connect(&route.addresses().at_try(0)).await;
                assert!(dialled.is_err() && route.addresses().first().ip() == IpAddr::from([127, 0, 0, 77]));
            }
            Err(error) => {
                assert_eq!(error.refusal(), Refusal::AddressForbidden);
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 500);
    assert!(tokio::time::timeout(Duration::from_millis(100), trap.accept()).await.is_err());
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}", trap.local_addr().unwrap());
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let mut command = deployment.command("serve");
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env(name, &url);
    }
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let ready = || Client::new(deployment.admin).get("/readyz").is_ok_and(|reply| reply.status == 200);
    assert!(within(Duration::from_mins(1), ready));
    let ledger = Ledger::default();
    ledger.send_one(&mut Client::new(deployment.public), 100).expect("an answer");
    let ids: Vec<String> = ledger.acknowledged().into_keys().collect();
    let delivered = within(Duration::from_mins(1), || sink.missing(&ids).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(delivered);
    assert!(trap.accept().is_err(), "the proxy of the environment was asked");
}

/// Of two addresses one is silent: the call does not wait for it, and the connection to the other is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_that_answers_is_found_at_once_and_kept() {
    let (origin, opened) = counting().await;
    let mut integration = service(&format!("http://two.example:{}", origin.port()));
    let transport = &mut integration.api.as_mut().unwrap().transport;
    (transport.allow_plain_http, transport.allow_private) = (true, true);
    let mut setup = Setup::of(integration);
    setup.private_networks = vec![Network { address: IpAddr::from([127, 0, 0, 0]), prefix: 8 }];
    // Nobody listens at the first two.
    setup.names = vec![("two.example", vec!["127.0.0.9", "127.0.0.8", "127.0.0.1"])];
    let doors = Doors::start(setup);
    // The caller has its answer a moment before the connection is back in the pool: some calls may come too early.
    for _ in 0..20 {
        assert_eq!(call(doors.proxy, "GET /svc/a", "", "").await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(opened.load(Ordering::SeqCst) < 10, "{}", opened.load(Ordering::SeqCst));
}
