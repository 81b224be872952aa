//! What an opening writes: the format, what the last process had under way, what a backup had unfinished.
//!
//! It is written once all that can refuse the start has been looked at, because from then on the version before may not
//! be able to read the store. Where the disk is full it is written when there is room; until then the store gives its
//! records, takes nothing new and gives no work, as a store does that runs while its disk fills up.

use std::fs;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use super::applier::catch_up;
use super::op::{self, ItemKey, Op};
use super::open::{DEATHS, Format, Options, RESTORED, is_about, new_salt, scheduler, unavailable, write_format};
use super::{Embedded, Entry};
use crate::base::id::EventId;
use crate::store::StoreError;
use crate::store::journal::Durability;
use crate::store::journal::salt::{self, Salt};

/// Why an item is given up that ended its processes.
const POISON: &str = "given up: the process ended each time this was tried; replay it when the cause is found";
/// Why an item is given up that a backup had unfinished.
const FROM_BACKUP: &str = "held: restored from a backup, so it may have been delivered since; replay it to send it";
/// With less than this free, an index that does not open is taken to want room: sled writes while it opens, half a MiB
/// at least, and has several ways to say that it could not.
const ROOM: u64 = 16 << 20;
/// How long after a try the next one follows.
const RETRY: Duration = Duration::from_millis(500);

/// How far the opening of a store has come.
#[derive(Debug)]
pub struct Beginning {
    state: RwLock<Result<(), StoreError>>,
    /// What is left to do; nothing once it is done, or the store is closed.
    left: Mutex<Option<Left>>,
}

/// What is left to do before a store is used.
#[derive(Debug)]
pub struct Left {
    options: Options,
    /// Whether the format file says that this version uses the store.
    is_begun: bool,
    /// What hides the numbers of entries from here on: none where it is of a format without.
    salt: salt::Current,
    /// Why the index is not open, where the disk had no room for it.
    blind: Option<StoreError>,
    /// Items that the last process held when it ended.
    interrupted: Vec<ItemKey>,
    /// Those of them that too many processes before it held as well.
    poison: Vec<ItemKey>,
}

impl Left {
    /// What is left where nothing was under way.
    pub fn new(options: &Options, is_begun: bool, salt: salt::Current) -> Self {
        Self { options: options.clone(), is_begun, salt, blind: None, interrupted: Vec::new(), poison: Vec::new() }
    }

    /// Takes note of what was under way, each with how many processes before the last ended with it.
    pub fn take_up(&mut self, interrupted: Vec<(ItemKey, u8)>) {
        let poison = interrupted.iter().filter(|(_, deaths)| *deaths + 1 >= DEATHS);
        self.poison = poison.map(|(key, _)| *key).collect();
        self.interrupted = interrupted.into_iter().map(|(key, _)| key).collect();
    }

    /// Takes note that the index does not open.
    ///
    /// # Errors
    /// What kept it from opening, where that is not a full disk.
    pub fn waits_for_room(&mut self, error: &StoreError) -> Result<(), StoreError> {
        let is_of_index = match error {
            StoreError::Unavailable(_) | StoreError::Full { .. } | StoreError::NoRoom { .. } => true,
            error => is_about(error, &self.options.directory.join("index")),
        };
        let space = self.options.disk.space(&self.options.directory).ok().filter(|_| is_of_index);
        let Some(space) = space else { return Err(error.clone()) };
        let needed = self.options.min_free.of(space.total).max(ROOM);
        if space.free >= needed {
            return Err(error.clone());
        }
        tracing::error!(error = %error, "the index does not open, because the disk is full");
        self.blind = Some(StoreError::Full { free: space.free, needed });
        Ok(())
    }

    /// Writes into the format file that this version uses the store, whose journals all have a mark by now.
    fn take_over(&mut self) -> Result<(), StoreError> {
        if self.is_begun {
            return Ok(());
        }
        let Options { directory, disk, min_free, .. } = &self.options;
        let salt = if self.salt.get() == Salt::NONE { new_salt()? } else { self.salt.get() };
        write_format(&**disk, directory, &Format::new(salt, true)).map_err(|error| match disk.space(directory) {
            Ok(space) if error.kind() == ErrorKind::StorageFull => {
                StoreError::Full { free: space.free, needed: min_free.of(space.total).max(space.free + 1) }
            }
            _ => unavailable(&directory.join("format"), &error),
        })?;
        self.salt.set(salt);
        self.is_begun = true;
        Ok(())
    }
}

impl Beginning {
    /// Of a store of which this is left to do.
    pub fn with(left: Left) -> Self {
        let state = Err(StoreError::Unavailable(Arc::from("it is being opened")));
        Self { state: RwLock::new(state), left: Mutex::new(Some(left)) }
    }

    /// Whether the store is in use.
    pub fn state(&self) -> Result<(), StoreError> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, state: Result<(), StoreError>) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn left(&self) -> MutexGuard<'_, Option<Left>> {
        // What a panic left undone is in it still.
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing more is done from here on. Blocks while something is.
    pub fn end(&self) {
        *self.left() = None;
    }
}

impl Embedded {
    /// Begins to use the store: from here on it may hold what the version before does not read. On a full disk it
    /// begins by itself once there is room, and takes no events until then. Blocks.
    ///
    /// # Errors
    /// When a write fails for another reason.
    pub fn begin(self: &Arc<Self>) -> Result<(), StoreError> {
        let blind = self.beginning.left().as_ref().and_then(|left| left.blind.clone());
        match blind.map_or_else(|| self.write_left(), Err) {
            Err(full @ StoreError::Full { .. }) => self.begin_later(full),
            other => other,
        }
    }

    /// Tries again until it is done, or the store is closed.
    fn begin_later(self: &Arc<Self>, full: StoreError) -> Result<(), StoreError> {
        tracing::error!(
            error = %full,
            "webhooks and durable calls are refused, and nothing is delivered, until there is room; calls go on"
        );
        self.beginning.tell(Err(full));
        let store = Arc::downgrade(self);
        let begun = std::thread::Builder::new().name("opening".to_owned()).spawn(move || {
            loop {
                std::thread::sleep(RETRY);
                let Some(store) = store.upgrade() else { return };
                match store.write_left() {
                    Ok(()) if store.beginning.state().is_ok() => return tracing::info!("the store is in use now"),
                    // It was closed.
                    Ok(()) => return,
                    Err(error) => store.beginning.tell(Err(error)),
                }
            }
        });
        begun.map(drop).map_err(|error| unavailable(&self.directory, &error))
    }

    /// Does what is left. After an error it can be gone on with.
    fn write_left(&self) -> Result<(), StoreError> {
        let mut held = self.beginning.left();
        let Some(left) = held.as_mut() else { return Ok(()) };
        left.take_over()?;
        if left.blind.is_some() {
            self.events.state()?;
            self.open_index(left)?;
        }
        if !left.interrupted.is_empty() {
            let op = Op::Interrupted { items: left.interrupted.clone() };
            self.events.append_blocking(op::encode(&op, &[])?, Entry::of(op), Durability::Written)?;
            left.interrupted.clear();
        }
        while let Some(&(event, ordinal)) = left.poison.last() {
            self.condemn((event, ordinal), POISON, Durability::Synced)?;
            let id = EventId::from_u128(event);
            tracing::error!(event = %id, ordinal, "{DEATHS} processes ended while they tried this; it is given up");
            left.poison.pop();
        }
        self.hold_restored()?;
        *held = None;
        self.beginning.tell(Ok(()));
        self.wake.send_modify(|count| *count = count.wrapping_add(1));
        Ok(())
    }

    /// Opens the index that could not be opened before, and takes up what it tells.
    fn open_index(&self, left: &mut Left) -> Result<(), StoreError> {
        let from = left.options.surroundings();
        let caught_up = || catch_up(&from, &self.index, u64::MAX);
        let end = match self.index.reopen().and_then(|()| caught_up()) {
            Ok(end) if end.sequence >= self.index.applied() => end,
            Err(error) if !is_about(&error, &self.directory.join("index")) => return Err(error),
            // It is damaged, or ahead of the journal.
            _ => self.index.wipe().and_then(|()| caught_up())?,
        };
        let (found, interrupted) = scheduler(&left.options, &self.index, end)?;
        *self.scheduler() = found;
        left.take_up(interrupted);
        left.blind = None;
        Ok(())
    }

    /// Holds what was unfinished in the backup this store was made from: it may have been delivered
    /// since, so it is sent only when a person replays it. A start that is cut off here is taken up by the
    /// next.
    fn hold_restored(&self) -> Result<(), StoreError> {
        let marker = self.directory.join(RESTORED);
        if !marker.exists() {
            return Ok(());
        }
        let items = self.scheduler().unfinished();
        for (place, key) in items.iter().enumerate() {
            // One sync is enough for all of them: until the marker is gone the next start goes on.
            let durability = if place + 1 == items.len() { Durability::Synced } else { Durability::Written };
            self.condemn(*key, FROM_BACKUP, durability)?;
        }
        let gone = fs::remove_file(&marker).and_then(|()| self.disk.sync_directory(&self.directory));
        gone.map_err(|error| unavailable(&marker, &error))?;
        if !items.is_empty() {
            tracing::warn!(
                items = items.len(),
                "what the backup had unfinished is in the dead-letter list: it may have been delivered since; replay \
                 what is still to be sent"
            );
        }
        Ok(())
    }
}
