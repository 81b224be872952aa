//! Thousands of clients that take their time, at both doors of the real binary: they are held or shed, closed
//! by their deadlines, and everybody else is served meanwhile.
//!
//! Three kinds, as slowhttptest has them: heads that trickle in (H), bodies that trickle in (B), answers that
//! nobody reads (X). They come from many loopback addresses, because the public door counts by address.
//! `TRUNKLINE_SLOW_CLIENTS` sets how many at a door (10,000 by hand, as many as half of the file descriptors
//! allow); the default is small enough for a busy machine.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use trunkline::base::clock::{Clock, SystemClock};

use crate::outside::gateway::Deployment;
use crate::outside::http::Client;
use crate::outside::sender::Ledger;
use crate::outside::sink::{Mood, Sink};
use crate::outside::{rounds, within};

/// Connections from one address; the public door lets 200 in.
const PER_SOURCE: usize = 190;
/// How long between two bytes of a slow client.
const PACE: Duration = Duration::from_secs(1);
/// Every slow client must be gone this long after the last came: the deadlines below, and time to spare for a
/// busy machine.
const GONE: Duration = Duration::from_secs(90);
const LIMITS: &str = "limits: { header_timeout: 5s, idle_timeout: 5s, connections: 20000 }\n";

#[derive(Debug, Clone, Copy)]
enum Kind {
    Head,
    Body,
    Reader,
}

/// What became of the slow ones.
#[derive(Default)]
struct Tally {
    held: AtomicUsize,
    turned_away: AtomicUsize,
    ended: AtomicUsize,
}

#[test]
fn slow_clients_are_held_or_shed_and_good_ones_go_on() {
    raise_descriptors();
    let wanted = usize::try_from(rounds("TRUNKLINE_SLOW_CLIENTS", 1_500)).unwrap();
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let mut file = fs::OpenOptions::new().append(true).open(deployment.path().join("trunkline.yaml")).unwrap();
    file.write_all(LIMITS.as_bytes()).unwrap();
    let mut gateway = deployment.start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, door) in [("public", deployment.public), ("proxy", deployment.proxy)] {
        let tally = Arc::new(Tally::default());
        let slow = runtime.spawn(crowd(door, wanted, Arc::clone(&tally)));
        let clock = SystemClock::new();
        let (mut served, mut slowest) = (0_u32, Duration::ZERO);
        let ledger = Ledger::default();
        let mut good = Client::new(door);
        while !slow.is_finished() {
            assert!(clock.monotonic() < GONE * 3, "{name}: {} of {wanted} are not shed", tally.open(wanted));
            let begun = clock.monotonic();
            let status = match name {
                "public" => ledger.send_one(&mut good, 400).map(|reply| reply.status),
                _ => good.get("/nothing").ok().map(|reply| reply.status),
            };
            // An idle connection that was closed meanwhile is no refusal: the client connects anew, once.
            let status = status.or_else(|| {
                good = Client::new(door);
                good.get("/nothing").ok().map(|reply| reply.status)
            });
            assert!(status.is_some_and(|status| status < 500), "{name}: a good client got {status:?}");
            slowest = slowest.max(clock.monotonic().saturating_sub(begun));
            served += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        runtime.block_on(slow).unwrap();
        let load = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        println!(
            "{name}: {} held, {} turned away of {wanted} slow clients; {served} good requests, the slowest took {slowest:?}",
            load(&tally.held),
            load(&tally.turned_away),
        );
        assert_eq!(load(&tally.held) + load(&tally.turned_away), wanted);
        assert!(load(&tally.held) > wanted / 2 && served > 20, "too little happened to mean anything");
        assert!(slowest < Duration::from_secs(5), "a good client waited {slowest:?}");
        assert!(within(Duration::from_secs(20), || open_connections(&deployment, name) <= 3.0), "{name}");
    }
    assert!(gateway.is_ready(), "{}", deployment.log_tail());
}

#[test]
fn bodies_that_do_not_end_make_room_for_those_that_do() {
    const SLOW: usize = 900_000;
    let sink = Sink::start(Mood::Well);
    let deployment = Deployment::new(&[("sink", sink.url())], None);
    let mut file = fs::OpenOptions::new().append(true).open(deployment.path().join("trunkline.yaml")).unwrap();
    file.write_all(b"limits: { whole_bytes: 4MiB }\n").unwrap();
    let _gateway = deployment.start();
    let head = format!(
        "POST /webhooks/load HTTP/1.1\r\nHost: a\r\nX-Signature: sha256={}\r\nContent-Length: {}\r\n\r\n",
        "0".repeat(64),
        SLOW + 1
    );
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(deployment.public).unwrap();
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; SLOW])).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    let reply = Ledger::default().send_one(&mut Client::new(deployment.public), 800_000).unwrap();
    assert_eq!(reply.status, 202, "{}", String::from_utf8_lossy(&reply.body));
    let given_up = slow
        .into_iter()
        .filter_map(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).ok().map(|()| String::from_utf8_lossy(&answer).into_owned())
        })
        .collect::<Vec<_>>();
    assert_eq!(given_up, ["HTTP/1.1 503"], "one is given up, and no more than is needed");
}

impl Tally {
    fn open(&self, wanted: usize) -> usize {
        wanted - self.ended.load(Ordering::SeqCst)
    }
}

/// Takes as many descriptors as there may be; the gateway takes its own as many.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn open_connections(deployment: &Deployment, door: &str) -> f64 {
    let reply = Client::new(deployment.admin).get("/metrics").unwrap();
    let sample = format!("trunkline_door_connections{{door=\"{door}\"}} ");
    let text = String::from_utf8(reply.body).unwrap();
    text.lines().find_map(|line| line.strip_prefix(&sample)?.parse().ok()).unwrap_or(f64::NAN)
}

/// All slow clients of a door, until the last is shed.
async fn crowd(door: SocketAddr, wanted: usize, tally: Arc<Tally>) {
    let mut clients = JoinSet::new();
    for number in 0..wanted {
        // Readers that do not read cost the kernel memory for what waits, so they are few.
        let kind = match number % 50 {
            0 => Kind::Reader,
            odd if odd % 2 == 1 => Kind::Head,
            _ => Kind::Body,
        };
        let group = u8::try_from(number / PER_SOURCE % 250).unwrap();
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, group + 1));
        let tally = Arc::clone(&tally);
        clients.spawn(async move {
            if dawdle(door, source, kind).await {
                tally.held.fetch_add(1, Ordering::SeqCst);
            } else {
                tally.turned_away.fetch_add(1, Ordering::SeqCst);
            }
            tally.ended.fetch_add(1, Ordering::SeqCst);
        });
        if number % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
}

/// One slow client, until the door ends it; false when it was never let in.
async fn dawdle(door: SocketAddr, source: IpAddr, kind: Kind) -> bool {
    let Some(mut stream) = connect(door, source, kind).await else { return false };
    let signature = "0".repeat(64);
    let first = match kind {
        Kind::Head => "POST /webhooks/load HTTP/1.1\r\nHost: a\r\n".to_owned(),
        Kind::Body => format!(
            "POST /webhooks/load HTTP/1.1\r\nHost: a\r\nX-Signature: sha256={signature}\r\nContent-Length: 1000000\r\n\r\n"
        ),
        Kind::Reader => "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2_000),
    };
    let (mut reader, mut writer) = stream.split();
    let mut begun = false;
    let mut answer = vec![0; 4_096];
    let mut pace = tokio::time::interval(PACE);
    // The first tick comes at once, and is not of the pace.
    pace.tick().await;
    if writer.write_all(first.as_bytes()).await.is_err() {
        return false;
    }
    loop {
        tokio::select! {
            read = reader.read(&mut answer), if !matches!(kind, Kind::Reader) => match read {
                // A door that is full says so at once.
                Ok(count) if count > 0 && !begun && answer.starts_with(b"HTTP/1.1 503") => return false,
                Ok(count) if count > 0 => {}
                _ => return true,
            },
            _ = pace.tick() => {
                begun = true;
                let more: &[u8] = match kind {
                    Kind::Head => b"X: y\r\n",
                    Kind::Body => b"z",
                    Kind::Reader => b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n",
                };
                if writer.write_all(more).await.is_err() {
                    return true;
                }
            }
        }
    }
}

async fn connect(door: SocketAddr, source: IpAddr, kind: Kind) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_reuseaddr(true).ok()?;
    if matches!(kind, Kind::Reader) {
        socket.set_recv_buffer_size(4_096).ok()?;
    }
    socket.bind(SocketAddr::new(source, 0)).ok()?;
    tokio::time::timeout(Duration::from_secs(30), socket.connect(door)).await.ok()?.ok()
}
