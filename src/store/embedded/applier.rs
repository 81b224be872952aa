//! Brings operations into the index, in batches, behind everyone's back.
//!
//! When the index fails, nothing new is accepted until it has been opened anew, or made anew from the
//! journal; the operations wait meanwhile. While nothing is to be done, it reads back what it has not
//! checked since the opening.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::dedupe::Dedupe;
use super::fold;
use super::index::Index;
use super::op::{self, Op};
use super::row::EventRow;
use crate::base::clock::Clock;
use crate::store::StoreError;
use crate::store::disk::Disk;
use crate::store::journal::{Appended, segment};

/// Batches of the journal that may wait; the journal waits when there are more. A batch is what waited while
/// the one before was synced.
const WAITING: usize = 1_024;
/// Operations of one batch.
const BATCH: usize = 8_192;
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(200);
/// How long after a failure the index is tried again.
const RETRY: Duration = Duration::from_millis(250);
/// How long there must be nothing to do before the index is checked, and the rows of one step.
const IDLE: Duration = Duration::from_millis(500);
const SCRUB: usize = 1_024;

/// Rows of accepted events that are not in the index yet.
type Pending = Arc<RwLock<HashMap<u128, EventRow>>>;

enum Message {
    Ops(Vec<(Appended, Op)>),
    /// Apply what came before, then answer.
    Barrier(oneshot::Sender<()>),
    /// The store closes: apply what came before, and end.
    End,
}

/// Where the journal is read from when the index has to be made anew, and what is told of progress.
#[derive(Debug)]
pub struct Surroundings {
    /// The file system.
    pub disk: Arc<dyn Disk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The events journal's directory.
    pub journal: PathBuf,
    /// The delivery ids that are kept in memory until the index has them.
    pub dedupe: Arc<Dedupe>,
    /// The last sequence number that is durable. The index never gets ahead of it, or a power cut would
    /// leave it with operations whose numbers are used again for others.
    pub synced: Arc<AtomicU64>,
}

/// The way to the applier's thread.
#[derive(Debug)]
pub struct Applier {
    sender: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pending: Pending,
    index: Arc<Index>,
    fed: Arc<AtomicU64>,
    state: watch::Sender<Result<(), StoreError>>,
    closing: Arc<AtomicBool>,
}

/// What feeds the applier from the journal's thread.
pub struct Feed {
    sender: SyncSender<Message>,
    pending: Pending,
    fed: Arc<AtomicU64>,
}

impl Feed {
    /// Takes operations in order. Waits while too many wait already.
    pub fn push(&self, ops: Vec<(Appended, Op)>) {
        let Some((last, _)) = ops.last() else { return };
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for (appended, op) in &ops {
            if let Some(head) = op.arrival() {
                pending.insert(head.id, EventRow::arrived(head.clone(), appended.pointer));
            }
        }
        drop(pending);
        self.fed.store(last.sequence, Ordering::Release);
        // The thread ends only when the store closes, and finds the rest in the journal next time.
        let _ended = self.sender.send(Message::Ops(ops)).is_err();
    }
}

impl Applier {
    /// Starts the thread. `held` is kept until it has ended.
    pub fn start(
        index: Arc<Index>,
        surroundings: Surroundings,
        held: Arc<dyn std::any::Any + Send + Sync>,
    ) -> std::io::Result<(Self, Feed)> {
        let (outlet, receiver) = sync_channel(WAITING);
        let (pending, state) = (Pending::default(), watch::Sender::new(Ok(())));
        let (fed, closing) = (Arc::new(AtomicU64::new(index.applied())), Arc::new(AtomicBool::new(false)));
        let worker = Worker {
            index: Arc::clone(&index),
            pending: Arc::clone(&pending),
            state: state.clone(),
            closing: Arc::clone(&closing),
            surroundings,
            ops: VecDeque::new(),
            ending: false,
        };
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(move || {
            worker.run(&receiver);
            drop(held);
        })?;
        let inlet = Feed { sender: outlet.clone(), pending: Arc::clone(&pending), fed: Arc::clone(&fed) };
        Ok((Self { sender: outlet, thread: Mutex::new(Some(thread)), pending, index, fed, state, closing }, inlet))
    }

    /// Returns when everything that was pushed before is in the index.
    ///
    /// # Errors
    /// When the index fails before that: nobody can say how long its repair takes.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        let mut state = self.state.subscribe();
        self.state()?;
        if self.index.applied() >= self.fed.load(Ordering::Acquire) {
            return Ok(());
        }
        let closed = || StoreError::Unavailable(Arc::from("the store is closed"));
        let (barrier, applied) = oneshot::channel();
        let sender = self.sender.clone();
        let passed = async {
            let sent = tokio::task::spawn_blocking(move || sender.send(Message::Barrier(barrier))).await;
            sent.map_err(|_| closed())?.map_err(|_| closed())?;
            applied.await.map_err(|_| closed())
        };
        tokio::select! {
            passed = passed => passed,
            failed = state.wait_for(Result::is_err) => failed.map_or_else(|_| Err(closed()), |failed| failed.clone()),
        }
    }

    /// The row of an event that may not be in the index yet.
    pub fn pending(&self, event: u128) -> Option<EventRow> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).get(&event).cloned()
    }

    /// Whether the index takes writes.
    pub fn state(&self) -> Result<(), StoreError> {
        self.state.borrow().clone()
    }

    /// Operations that are durable and not in the index yet.
    pub fn lag(&self) -> u64 {
        self.fed.load(Ordering::Acquire).saturating_sub(self.index.applied())
    }

    /// From now on an index that fails is not repaired: what it lacks, the next start gives it.
    pub fn end_repairs(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Applies what waits and ends the thread. The journal that feeds it must be closed before.
    pub async fn close(&self) {
        let (thread, sender) = (self.thread.lock().unwrap_or_else(PoisonError::into_inner).take(), self.sender.clone());
        if let Some(thread) = thread {
            // A panic has been reported by the panic hook.
            drop(tokio::task::spawn_blocking(move || sender.send(Message::End).is_ok() && thread.join().is_ok()).await);
        }
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.end_repairs();
        // Full means that it has much to do, and ends by itself when the last sender is gone.
        let _later = self.sender.try_send(Message::End).is_err();
    }
}

struct Worker {
    index: Arc<Index>,
    pending: Pending,
    state: watch::Sender<Result<(), StoreError>>,
    closing: Arc<AtomicBool>,
    surroundings: Surroundings,
    /// What has come in and is not in the index yet.
    ops: VecDeque<(Appended, Op)>,
    ending: bool,
}

impl Worker {
    fn run(mut self, receiver: &Receiver<Message>) {
        let _ended = self.apply_all(receiver).is_break();
        self.index.close();
    }

    fn apply_all(&mut self, receiver: &Receiver<Message>) -> ControlFlow<()> {
        while !self.ending {
            let patience = if self.ops.is_empty() { IDLE } else { GATHER };
            let barriers = match receiver.recv_timeout(patience) {
                Ok(first) => self.gather(first, receiver),
                Err(RecvTimeoutError::Timeout) if self.ops.is_empty() => {
                    self.check()?;
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => Vec::new(),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            self.apply()?;
            for barrier in barriers {
                let _gone = barrier.send(()).is_err();
            }
        }
        self.apply()
    }

    fn gather(&mut self, first: Message, receiver: &Receiver<Message>) -> Vec<oneshot::Sender<()>> {
        let end = self.surroundings.clock.monotonic() + GATHER;
        let (mut barriers, mut next) = (Vec::new(), Some(first));
        while let Some(message) = next {
            match message {
                Message::Ops(ops) => self.ops.extend(ops),
                Message::Barrier(done) => barriers.push(done),
                Message::End => self.ending = true,
            }
            let patience = end.saturating_sub(self.surroundings.clock.monotonic());
            let wait = self.ops.len() < BATCH && barriers.is_empty() && !self.ending;
            next = if wait { receiver.recv_timeout(patience).ok() } else { None };
        }
        barriers
    }

    /// Brings into the index what is durable. Breaks off where the index failed and is not repaired.
    fn apply(&mut self) -> ControlFlow<()> {
        let synced = self.surroundings.synced.load(Ordering::Acquire);
        let durable = self.ops.partition_point(|(appended, _)| appended.sequence <= synced);
        let ops: Vec<_> = self.ops.drain(..durable).collect();
        let Some((last, _)) = ops.last() else { return ControlFlow::Continue(()) };
        if let Err(error) = self.apply_once(&ops) {
            self.recover(error, last.sequence)?;
        }
        let heads: Vec<_> = ops.iter().filter_map(|(_, op)| op.arrival()).collect();
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for head in &heads {
            pending.remove(&head.id);
        }
        drop(pending);
        self.surroundings.dedupe.forget(heads.into_iter());
        ControlFlow::Continue(())
    }

    fn apply_once(&self, ops: &[(Appended, Op)]) -> Result<(), StoreError> {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            fold::apply(&self.index, ops.iter().map(|(appended, op)| (*appended, op)))
        }))
        .unwrap_or_else(|_| Err(self.index.damaged("sled cannot read it")))
    }

    /// Reads back some of the index while there is nothing else to do.
    fn check(&self) -> ControlFlow<()> {
        if !self.index.is_open() {
            // The disk had no room for it; who opened the store opens it when there is.
            return ControlFlow::Continue(());
        }
        let checked = if self.index.is_suspect() {
            Err(self.index.damaged("something in it does not read back as it was written"))
        } else {
            self.index.scrub(SCRUB)
        };
        match checked {
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => self.recover(error, self.index.applied()),
        }
    }

    /// Opens the index anew until it has all operations up to `last`, or the store closes.
    fn recover(&self, error: StoreError, last: u64) -> ControlFlow<()> {
        tracing::error!(error = %error, "the index failed; nothing new is accepted until it is whole again");
        let mut error = error;
        loop {
            let damaged = matches!(error, StoreError::Damaged { .. });
            self.tell(Err(StoreError::Unavailable(Arc::from(format!("the index is being repaired: {error}")))));
            let again = if damaged { self.index.wipe() } else { self.index.reopen() };
            match again.and_then(|()| catch_up(&self.surroundings, &self.index, last)) {
                Ok(_) => break,
                Err(again) => error = again,
            }
            if self.closing.load(Ordering::Acquire) {
                tracing::warn!(error = %error, "the index is not whole; the next start brings it up to the journal's end");
                return ControlFlow::Break(());
            }
            tracing::warn!(error = %error, "the index is not whole yet");
            std::thread::sleep(RETRY);
        }
        tracing::info!("the index is whole again");
        self.tell(Ok(()));
        ControlFlow::Continue(())
    }

    fn tell(&self, state: Result<(), StoreError>) {
        drop(self.state.send_replace(state));
    }
}

/// Applies what the journal has after the index's own end, up to sequence number `last`.
pub fn catch_up(from: &Surroundings, index: &Index, last: u64) -> Result<segment::End, StoreError> {
    let mut waiting: Vec<(Appended, Op)> = Vec::new();
    let flush = |waiting: &mut Vec<(Appended, Op)>| {
        fold::apply(index, waiting.iter().map(|(appended, op)| (*appended, op))).map(|()| waiting.clear())
    };
    let end = segment::walk(&*from.disk, &from.journal, index.applied() + 1, &mut |sequence, pointer, payload| {
        if sequence > last {
            return Ok(ControlFlow::Break(()));
        }
        waiting.push((Appended { sequence, pointer }, op::decode(payload)?.0));
        if waiting.len() >= BATCH {
            flush(&mut waiting)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    flush(&mut waiting)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::super::open::open;
    use super::super::open::tests::{event, options};
    use crate::store::model::{Accepted, NewEvent};
    use crate::store::{Events as _, Store as _};
    use std::time::Duration;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_whose_index_cannot_be_repaired_closes_and_the_next_start_repairs_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = open(&options(directory.path())).expect("opens");
        let index = directory.path().join("index");
        store.index.close();
        std::fs::remove_dir_all(&index).expect("removes");
        std::fs::write(&index, "").expect("writes");
        // Without a delivery id, which the index would be asked for.
        let unnamed = NewEvent { delivery_id: None, ..event(1) };
        assert_eq!(store.accept(unnamed).await.expect("the journal has it"), Accepted::New);
        let read = tokio::time::timeout(Duration::from_secs(20), store.up_to_date());
        assert!(read.await.expect("nobody waits for its repair").is_err());
        assert!(store.writable().is_err());
        tokio::time::timeout(Duration::from_secs(20), store.close()).await.expect("does not wait for the index");
        drop(store);
        std::fs::remove_file(&index).expect("removes");
        let store = open(&options(directory.path())).expect("opens again");
        assert!(store.event(event(1).id).await.expect("reads").is_some());
        store.close().await;
    }
}
