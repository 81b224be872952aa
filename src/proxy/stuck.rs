//! Uploads that a service which speaks HTTP/2 takes no more of.
//!
//! Once a piece of a body could not be sent on for `timeouts.idle`, Pingora looks at the client no more, and waits for an
//! answer, which the service may give all the same. Of HTTP/2 its limit for that is the time of a whole upload, and no limit
//! of ours is looked at ([`super::watch`]). So such a call is ended from outside when its answer should have come as well:
//! without one to the caller, because who could give it is what waits. Called by `forward`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pingora::proxy::Session;
use tokio::task::AbortHandle;

use super::context::Context;
use super::record::{self, Ended};
use super::watch::{Overdue, Watch};
use super::{ProxyDoor, underway};
use crate::definition::plan::api::HttpVersions;
use crate::respond::Refusal;

/// How often it is looked whether a call is stuck.
const TICK: Duration = Duration::from_secs(1);

/// Looks after a call until it is dropped.
#[derive(Debug)]
pub struct Guard {
    task: AbortHandle,
    /// Bytes of its body that were sent on, or are about to be.
    sent: Arc<AtomicU64>,
}

impl Guard {
    /// A piece of the body passes.
    pub fn passes(&self, piece: &[u8]) {
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A guard of a call that is about to be sent, and whose body is still to come; `None` where Pingora's own limits are
/// enough.
pub fn guard(door: &Arc<ProxyDoor>, session: &Session, context: &Context) -> Option<Guard> {
    let call = context.call.as_deref().filter(|call| call.ready.http == HttpVersions::Two)?;
    let (timeouts, sent) = (call.ready.timeouts, Arc::new(AtomicU64::new(0)));
    let stuck = Stuck {
        door: Arc::clone(door),
        watch: underway::shared_watch(session)?,
        patience: timeouts.response.max(timeouts.idle),
        began: context.began,
        sent: Arc::clone(&sent),
        ended: Ended {
            at: context.at,
            id: context.id.clone(),
            subject: context.known.subject.clone(),
            place: Some(call.place()),
            method: session.req_header().method.clone(),
            status: 0,
            error: Some(Refusal::ServiceTimeout.code()),
            took: Duration::ZERO,
            service: None,
            sent: context.sent.saturating_sub(context.began),
            course: context.course,
            bytes: (0, 0),
            traced: None,
            content: None,
        },
    };
    Some(Guard { task: tokio::spawn(stuck.look_after()).abort_handle(), sent })
}

/// A call that may get stuck.
struct Stuck {
    door: Arc<ProxyDoor>,
    watch: Arc<Watch>,
    /// What its answer may take once the service takes no more of it.
    patience: Duration,
    began: Duration,
    sent: Arc<AtomicU64>,
    /// How it is written down then.
    ended: Ended,
}

impl Stuck {
    async fn look_after(mut self) {
        loop {
            tokio::time::sleep(TICK).await;
            let now = self.door.parts.clock.monotonic();
            if self.watch.service_is_overdue(now.saturating_sub(self.patience)) {
                self.ended.took = now.saturating_sub(self.began);
                self.ended.bytes.0 = self.sent.load(Ordering::Relaxed);
                return self.give_up();
            }
        }
    }

    fn give_up(self) {
        let integration = self.ended.subject.as_ref().map_or("other", |subject| &*subject.integration);
        self.door.parts.metrics.upstream_errors.with_label_values(&[integration, "response_timeout"]).inc();
        tracing::debug!(integration, "a call was given up: the service takes no more of its body, and does not answer");
        self.watch.end(Overdue::Service);
        self.watch.abandon();
        record::record(&self.door, self.ended);
    }
}
