//! Applies operations to the index, in batches, behind everyone's back.
//!
//! An event that came and ended within one batch is written once, in its last state. When the index
//! fails, nothing new is accepted until it has been written again; the operations wait meanwhile, and
//! would be read from the journal after a restart.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::index::{Batch, DeliveryRow, EventRow, Index, ItemKind, Stand, dedupe_hash};
use super::op::{ItemKey, MATCH, Op, Outcome};
use crate::store::StoreError;
use crate::store::journal::Appended;
use crate::store::model::EventState;

/// Operations that may wait; the journal waits when there are more.
const WAITING: usize = 16_384;
/// Operations of one batch.
const BATCH: usize = 8_192;
/// How long a batch gathers.
const GATHER: Duration = Duration::from_millis(100);
/// How long after a failure the index is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Rows of accepted events that are not in the index yet.
pub type Pending = Arc<RwLock<HashMap<u128, EventRow>>>;

enum Message {
    Op(Appended, Box<Op>),
    /// Apply what came before, then answer.
    Barrier(oneshot::Sender<()>),
}

/// The way to the applier's thread.
#[derive(Debug)]
pub struct Applier {
    sender: Mutex<Option<SyncSender<Message>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    pending: Pending,
    state: Arc<RwLock<Result<(), StoreError>>>,
}

/// What feeds the applier from the journal's thread.
pub struct Feed {
    sender: SyncSender<Message>,
    pending: Pending,
}

impl Feed {
    /// Takes an operation. Waits while too many wait already.
    pub fn push(&self, appended: Appended, op: Op) {
        if let Op::Accepted(head) = &op {
            let row = EventRow {
                head: head.clone(),
                pointer: appended.pointer,
                state: EventState::Queued,
                deliveries: 0,
                strikes: 0,
            };
            self.pending.write().unwrap_or_else(PoisonError::into_inner).insert(head.id, row);
        }
        // The thread ends only after every feed is gone.
        let _ended = self.sender.send(Message::Op(appended, Box::new(op))).is_err();
    }
}

impl Applier {
    /// Starts the thread.
    pub fn start(index: Arc<Index>) -> std::io::Result<(Self, Feed)> {
        let (sender, receiver) = sync_channel(WAITING);
        let (pending, state) = (Pending::default(), Arc::new(RwLock::new(Ok(()))));
        let worker = Worker { index, pending: Arc::clone(&pending), state: Arc::clone(&state) };
        let thread = std::thread::Builder::new().name("index".to_owned()).spawn(move || worker.run(&receiver))?;
        let feed = Feed { sender: sender.clone(), pending: Arc::clone(&pending) };
        let applier = Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)), pending, state };
        Ok((applier, feed))
    }

    /// Returns when everything that was pushed before is in the index.
    pub async fn barrier(&self) -> Result<(), StoreError> {
        self.state()?;
        let closed = || StoreError::Unavailable(Arc::from("the store is closed"));
        let (done, applied) = oneshot::channel();
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or_else(closed)?;
        tokio::task::spawn_blocking(move || sender.send(Message::Barrier(done)))
            .await
            .map_err(|_| closed())?
            .map_err(|_| closed())?;
        applied.await.map_err(|_| closed())
    }

    /// The row of an event that may not be in the index yet.
    pub fn pending(&self, event: u128) -> Option<EventRow> {
        self.pending.read().unwrap_or_else(PoisonError::into_inner).get(&event).cloned()
    }

    /// Whether the index takes writes.
    pub fn state(&self) -> Result<(), StoreError> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies what waits and ends the thread. The journal that feeds it must be closed before.
    pub async fn close(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has been reported by the panic hook.
            drop(tokio::task::spawn_blocking(move || thread.join()).await);
        }
    }
}

struct Worker {
    index: Arc<Index>,
    pending: Pending,
    state: Arc<RwLock<Result<(), StoreError>>>,
}

impl Worker {
    fn run(self, receiver: &Receiver<Message>) {
        loop {
            let mut gathered = Gathered::default();
            match receiver.recv() {
                Ok(first) => gathered.take(first),
                Err(_) => return,
            }
            while gathered.ops.len() < BATCH && gathered.barriers.is_empty() {
                match receiver.recv_timeout(GATHER) {
                    Ok(next) => gathered.take(next),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            self.apply_until_done(&gathered.ops);
            for barrier in gathered.barriers {
                let _gone = barrier.send(()).is_err();
            }
        }
    }

    fn apply_until_done(&self, ops: &[(Appended, Box<Op>)]) {
        while let Err(error) = apply(&self.index, ops.iter().map(|(appended, op)| (*appended, &**op))) {
            tracing::error!(error = %error, "the index could not be written; nothing new is accepted until it is");
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Err(error);
            std::thread::sleep(RETRY);
        }
        if self.state.read().unwrap_or_else(PoisonError::into_inner).is_err() {
            *self.state.write().unwrap_or_else(PoisonError::into_inner) = Ok(());
        }
        let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
        for (_, op) in ops {
            if let Op::Accepted(head) = &**op {
                pending.remove(&head.id);
            }
        }
    }
}

#[derive(Default)]
struct Gathered {
    ops: Vec<(Appended, Box<Op>)>,
    barriers: Vec<oneshot::Sender<()>>,
}

impl Gathered {
    fn take(&mut self, message: Message) {
        match message {
            Message::Op(appended, op) => self.ops.push((appended, op)),
            Message::Barrier(done) => self.barriers.push(done),
        }
    }
}

/// Applies operations to the index as one durable step.
pub fn apply<'a>(index: &Index, ops: impl Iterator<Item = (Appended, &'a Op)>) -> Result<(), StoreError> {
    let mut fold = Fold { index, events: BTreeMap::new(), deliveries: BTreeMap::new(), accepted: Vec::new() };
    let mut applied = None;
    for (appended, op) in ops {
        fold.apply(appended, op)?;
        applied = Some(appended.sequence);
    }
    match applied {
        Some(applied) => index.write(fold.batch()?, applied),
        None => Ok(()),
    }
}

/// Rows as they will be after a batch; a row that is not here is as the index has it.
struct Fold<'a> {
    index: &'a Index,
    events: BTreeMap<u128, EventRow>,
    deliveries: BTreeMap<ItemKey, DeliveryRow>,
    accepted: Vec<u128>,
}

impl Fold<'_> {
    fn apply(&mut self, appended: Appended, op: &Op) -> Result<(), StoreError> {
        match op {
            Op::Accepted(head) => {
                let state = EventState::Queued;
                let row = EventRow { head: head.clone(), pointer: appended.pointer, state, deliveries: 0, strikes: 0 };
                self.events.insert(head.id, row);
                self.accepted.push(head.id);
                Ok(())
            }
            Op::Claimed { items } => items.iter().try_for_each(|key| self.claimed(*key)),
            Op::Planned { event, deliveries } => {
                for (ordinal, planned) in (0_u16..).zip(deliveries) {
                    let row = DeliveryRow {
                        rule: planned.rule.clone(),
                        action: planned.action,
                        summary: planned.summary.clone(),
                        lane: planned.lane.clone(),
                        stand: Stand::Ready(planned.due),
                        attempts: Vec::new(),
                        tried: 0,
                        strikes: 0,
                    };
                    self.deliveries.insert((*event, ordinal), row);
                }
                let count = u16::try_from(deliveries.len()).unwrap_or(MATCH);
                self.change_event(*event, |row| {
                    row.state = if count == 0 { EventState::Discarded } else { EventState::Delivering };
                    (row.deliveries, row.strikes) = (row.deliveries.max(count), 0);
                })
            }
            Op::Finished { event, ordinal, attempt, outcome } => {
                self.change_delivery((*event, *ordinal), |row| {
                    row.record(attempt);
                    row.strikes = 0;
                    row.stand = (*outcome).into();
                })?;
                if matches!(outcome, Outcome::Retry(_)) { Ok(()) } else { self.settle_event(*event) }
            }
            Op::Released { event, ordinal: MATCH, .. } => {
                self.change_event(*event, |row| row.strikes = row.strikes.saturating_sub(1))
            }
            Op::Released { event, ordinal, due } => self.change_delivery((*event, *ordinal), |row| {
                (row.tried, row.strikes) = (row.tried.saturating_sub(1), row.strikes.saturating_sub(1));
                row.stand = Stand::Ready(*due);
            }),
            Op::ReplayedDelivery { event, ordinal, at } => {
                self.change_delivery((*event, *ordinal), |row| {
                    (row.tried, row.strikes) = (0, 0);
                    row.stand = Stand::Ready(*at);
                })?;
                self.change_event(*event, |row| row.state = EventState::Delivering)
            }
            Op::ReplayedEvent { event, .. } => {
                self.forget_deliveries(*event)?;
                self.change_event(*event, |row| (row.state, row.strikes) = (EventState::Queued, 0))
            }
        }
    }

    fn claimed(&mut self, key: ItemKey) -> Result<(), StoreError> {
        if key.1 == MATCH {
            return self.change_event(key.0, |row| row.strikes = row.strikes.saturating_add(1));
        }
        self.change_delivery(key, |row| (row.tried, row.strikes) = (row.tried + 1, row.strikes.saturating_add(1)))
    }

    fn change_event(&mut self, event: u128, change: impl FnOnce(&mut EventRow)) -> Result<(), StoreError> {
        if !self.events.contains_key(&event) {
            match self.index.event(event)? {
                Some(row) => drop(self.events.insert(event, row)),
                None => return Ok(()),
            }
        }
        if let Some(row) = self.events.get_mut(&event) {
            change(row);
        }
        Ok(())
    }

    fn change_delivery(&mut self, key: ItemKey, change: impl FnOnce(&mut DeliveryRow)) -> Result<(), StoreError> {
        if let Some(mut row) = self.delivery(key)? {
            change(&mut row);
            self.deliveries.insert(key, row);
        }
        Ok(())
    }

    fn delivery(&mut self, key: ItemKey) -> Result<Option<DeliveryRow>, StoreError> {
        match self.deliveries.remove(&key) {
            Some(row) => Ok(Some(row)),
            None => self.index.delivery(key),
        }
    }

    /// The event's state after one of its deliveries has ended.
    fn settle_event(&mut self, event: u128) -> Result<(), StoreError> {
        let mut count = 0;
        self.change_event(event, |row| count = row.deliveries)?;
        let (mut open, mut dead) = (false, false);
        for ordinal in 0..count {
            let state = match self.deliveries.get(&(event, ordinal)) {
                Some(row) => Some(row.stand),
                None => self.index.delivery((event, ordinal))?.map(|row| row.stand),
            };
            match state {
                Some(Stand::Dead) => dead = true,
                Some(Stand::Ready(_)) => open = true,
                Some(Stand::Done) | None => {}
            }
        }
        let state = match (open, dead) {
            (true, _) => EventState::Delivering,
            (false, true) => EventState::Dead,
            (false, false) => EventState::Done,
        };
        self.change_event(event, |row| row.state = state)
    }

    /// Ends the deliveries of a plan that is made anew; their attempts stay until the new plan takes
    /// their places.
    fn forget_deliveries(&mut self, event: u128) -> Result<(), StoreError> {
        let mut count = 0;
        self.change_event(event, |row| count = row.deliveries)?;
        for ordinal in 0..count {
            self.change_delivery((event, ordinal), |row| row.stand = Stand::Done)?;
        }
        Ok(())
    }

    fn batch(&self) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        for event in &self.accepted {
            if let Some((hash, row)) = self.events.get(event).and_then(|row| dedupe_hash(&row.head).zip(Some(row))) {
                batch.duplicate(&hash, row.head.id)?;
            }
        }
        for (event, row) in &self.events {
            batch.event(row)?;
            batch.item(ItemKind::Active, (*event, MATCH), row.state == EventState::Queued);
        }
        for (key, row) in &self.deliveries {
            batch.delivery(*key, row)?;
            let ended = !matches!(row.stand, Stand::Ready(_));
            batch.item(ItemKind::Active, *key, !ended);
            batch.item(ItemKind::Dead, *key, row.stand == Stand::Dead);
        }
        Ok(batch)
    }
}
