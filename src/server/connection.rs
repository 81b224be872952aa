//! One connection, from accept to close: head, check, request, and again.
//!
//! Pingora's own loop reads heads without a deadline and parses them leniently. Here each head is read
//! and checked first; Pingora gets it as bytes that were already read, one request at a time.

use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use super::caps::Caps;
use super::hygiene::{Fault, Framing, Upgrades, malformed};
use super::{Shared, head, streams};
use crate::definition::plan::gateway::DoorName;
use crate::proxy::answer;
use crate::proxy::stream::DoorStream;

/// What all connections of a door have in common.
pub struct DoorContext<A> {
    /// Which door's settings count.
    pub door: DoorName,
    /// Its name in metrics.
    pub name: &'static str,
    /// What answers.
    pub app: Arc<A>,
    /// What the program shares.
    pub shared: Shared,
    /// Which switches of protocol it takes part in.
    pub upgrades: Upgrades,
    /// Requests of HTTP/2 under way, where as many may be as there may be connections.
    pub requests: Option<Arc<Caps>>,
}

impl<A> DoorContext<A> {
    /// Whether connections are counted by address: not where no number of them is too many, as usually at the proxy
    /// door, so that nobody waits for the count.
    pub fn counts_sources(&self) -> bool {
        self.shared.live.load().gateway.limits.connections_at(self.door).per_source < usize::MAX
    }
}

/// Serves a connection until it ends. Once `drain` is true, the request under way is the last.
pub async fn serve<A: HttpServerApp + Send + Sync + 'static>(
    door: &DoorContext<A>,
    stream: DoorStream,
    mut drain: watch::Receiver<bool>,
) {
    let mut stream = Box::new(stream);
    if stream.is_http2() {
        return streams::serve(door, stream, drain).await;
    }
    loop {
        let limits = door.shared.live.load().gateway.limits;
        stream.watch().begin(false);
        let head = match head::read(&mut stream, &limits, door.upgrades, &mut drain).await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(fault) => return refuse(door, &mut stream, fault).await,
        };
        stream.begin(head.checked.framing != Framing::Empty);
        let behind = head.bytes.get(head.bytes.len() - head.behind..).unwrap_or_default();
        if head.checked.framing == Framing::Chunked && !stream.expect_chunks(behind) {
            return refuse(door, &mut stream, malformed("a chunk is not well-formed")).await;
        }
        let watch = stream.shared_watch();
        let mut session = ServerSession::new_http1(stream as Stream);
        session.set_pipelined_prefix(head.bytes);
        session.set_read_timeout(Some(limits.idle_timeout));
        session.set_write_timeout(Some(limits.idle_timeout));
        let reused = tokio::select! {
            biased;
            reused = door.app.process_new_http(session, &drain) => reused,
            () = watch.abandoned() => None,
        };
        let Some(reused) = reused else { return };
        let (below, _settings) = reused.consume();
        let Some(back) = DoorStream::back(below) else { return };
        stream = back;
    }
}

/// Answers a head that was not let in, and closes.
async fn refuse<A>(door: &DoorContext<A>, stream: &mut DoorStream, fault: Fault) {
    let metrics = &door.shared.metrics;
    metrics.http_refusals.with_label_values(&[door.name, fault.refusal.code()]).inc();
    tracing::debug!(door = door.name, code = fault.refusal.code(), "a request head was refused: {}", fault.detail);
    let bytes = answer::on_wire(&fault.refusal.answer(fault.detail));
    if stream.write_all(&bytes).await.is_ok() {
        stream.linger().await;
    }
}
