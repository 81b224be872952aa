//! The service's side: signed webhooks from several threads, and the ledger of those acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::http::{Client, Reply};

/// What webhooks are signed with.
pub const SECRET: &str = "a-secret-for-fault-tests-0123456789";

/// How long a sender waits after a connection failed.
const PAUSE: Duration = Duration::from_millis(5);

/// What was acknowledged: the sender's id of each event, and the gateway's where the answer told it.
#[derive(Default)]
pub struct Ledger {
    acknowledged: Mutex<BTreeMap<String, Option<String>>>,
    next: AtomicU64,
}

impl Ledger {
    /// What was acknowledged so far.
    pub fn acknowledged(&self) -> BTreeMap<String, Option<String>> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn len(&self) -> usize {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Sends one event with a body of about `size` bytes; the answer, when there was one.
    pub fn send_one(&self, client: &mut Client, size: usize) -> Option<Reply> {
        let id = format!("sent-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let body = body(&id, size);
        let signature = format!("sha256={}", sign(body.as_bytes()));
        let headers = [("content-type", "application/json"), ("x-signature", signature.as_str())];
        let reply = client.send("POST", "/webhooks/load", &headers, body.as_bytes()).ok()?;
        if (200..300).contains(&reply.status) {
            let event = reply.json().get("event").and_then(|id| id.as_str()).map(str::to_owned);
            self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(id, event);
        }
        Some(reply)
    }
}

/// Threads that send until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends events from `threads` threads; `sizes` are taken in turn. A thread whose connection breaks
    /// makes a new one.
    pub fn start(ledger: &Arc<Ledger>, address: SocketAddr, threads: usize, sizes: &'static [usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let send = |turn: usize| {
            let (ledger, stop) = (Arc::clone(ledger), Arc::clone(&stop));
            thread::spawn(move || {
                let mut client = Client::new(address);
                for size in sizes.iter().cycle().skip(turn) {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    // Connected before anything is computed: senders that spin while the gateway is away
                    // would take the processor from its start.
                    if client.connect().is_err() || ledger.send_one(&mut client, *size).is_none() {
                        client = Client::new(address);
                        thread::sleep(PAUSE);
                    }
                }
            })
        };
        let threads = (0..threads).map(send).collect();
        Self { stop, threads }
    }

    /// Stops, and waits for the answers under way.
    pub fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a sender panicked");
        }
    }
}

fn body(id: &str, size: usize) -> String {
    let filler = "x".repeat(size.saturating_sub(60));
    format!("{{\"id\":\"{id}\",\"type\":\"thing.happened\",\"filler\":\"{filler}\"}}")
}

fn sign(body: &[u8]) -> String {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}
