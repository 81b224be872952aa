//! The policy for calls that leave, end to end: limits, the service's own count, the breaker, retries.

mod breaker;
mod h2_faults;
mod limits;
mod observed;
mod retries;
mod shared;
mod spelled;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use trunkline::base::units::Rate;
use trunkline::definition::plan::Integration;
use trunkline::definition::plan::policy::{Limit, Policy, Scope};

use crate::support::doors::{Doors, Setup, service};
use crate::support::origin::{Seen, read_request, serve};
use crate::support::raw::PATIENCE;

/// A service that answers each request as `answer` says, by its number from zero, and keeps what came.
struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    async fn start(answer: impl Fn(usize, &Seen) -> String + Send + Sync + 'static) -> Self {
        let (seen, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let kept = Arc::clone(&seen);
        let address = serve(move |mut stream| {
            let (kept, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            async move {
                while let Some(request) = read_request(&mut stream).await {
                    let number = {
                        let mut kept = kept.lock().unwrap();
                        kept.push(request.clone());
                        kept.len() - 1
                    };
                    let text = answer(number, &request);
                    if text.is_empty() || stream.write_all(text.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        Self { address, seen }
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn doors(&self, policy: Policy) -> Doors {
        Doors::start(Setup::of(self.integration(policy)))
    }

    fn integration(&self, policy: Policy) -> Integration {
        let mut integration = service(&format!("http://{}", self.address));
        integration.api.as_mut().unwrap().policy = policy;
        integration
    }
}

/// An answer without a body; `headers` are whole lines.
fn answer(status: u16, headers: &str) -> String {
    format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n{headers}\r\n")
}

fn limit(count: u32, period: Duration, wait: Duration) -> Limit {
    Limit {
        name: "connection".into(),
        rate: Rate { count, period },
        burst: 1,
        per: Scope::Connection,
        endpoint: None,
        paths: Vec::new(),
        methods: Vec::new(),
        wait,
    }
}

fn limited(limit: Limit) -> Policy {
    Policy { limits: vec![limit], ..Policy::default() }
}

/// Waits until a metric has a value.
async fn until(doors: &Doors, sample: &str, value: f64) {
    let reached = async {
        while (doors.metric(sample) - value).abs() > f64::EPSILON {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("{sample} is {}, not {value}", doors.metric(sample)));
}
