//! The disk: durable content, and a log of what was written since the last flush.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a block: what is kept or lost as one.
pub const BLOCK: usize = 4_096;

type Block = Arc<[u8]>;

/// What a disk holds; blocks that were never written are zero. Cheap to clone.
#[derive(Clone)]
pub struct Image {
    size: u64,
    blocks: BTreeMap<u64, Block>,
}

impl Image {
    /// A disk of zeros.
    pub fn empty(size: u64) -> Self {
        Self { size, blocks: BTreeMap::new() }
    }
}

/// What a power cut leaves of the writes since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All of them: the kernel died, the drive wrote on.
    Kernel,
    /// Each with a chance that is drawn anew for each cut, from 0 to 80 %.
    Drive,
    /// None: to see that the rig loses what was not flushed.
    Nothing,
}

/// A disk in use.
pub struct Disk(Mutex<State>);

struct State {
    durable: Image,
    /// Blocks written since the last flush, in order; one block may be here more than once.
    log: Vec<(u64, Block)>,
    /// The newest of each, for reading.
    newest: HashMap<u64, Block>,
}

impl Disk {
    /// A disk with this content.
    pub fn new(image: Image) -> Self {
        Self(Mutex::new(State { durable: image, log: Vec::new(), newest: HashMap::new() }))
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.state().durable.size
    }

    /// The bytes at `offset`; fewer at the disk's end.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let state = self.state();
        let end = state.durable.size.min(offset.saturating_add(length as u64));
        let mut bytes = Vec::with_capacity(length);
        let mut at = offset;
        while at < end {
            let (number, within) = (at / BLOCK as u64, usize::try_from(at % BLOCK as u64).unwrap());
            let take = (BLOCK - within).min(usize::try_from(end - at).unwrap());
            match state.block(number) {
                Some(block) => bytes.extend_from_slice(&block[within..within + take]),
                None => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        bytes
    }

    /// Writes; durable only after the next flush.
    pub fn write(&self, offset: u64, mut bytes: &[u8]) {
        let mut state = self.state();
        let mut at = offset;
        while !bytes.is_empty() {
            let (number, within) = (at / BLOCK as u64, usize::try_from(at % BLOCK as u64).unwrap());
            let (part, rest) = bytes.split_at((BLOCK - within).min(bytes.len()));
            let mut block = state.block(number).map_or_else(|| vec![0; BLOCK], |block| block.to_vec());
            block[within..within + part.len()].copy_from_slice(part);
            let block: Block = block.into();
            state.log.push((number, Arc::clone(&block)));
            state.newest.insert(number, block);
            at += part.len() as u64;
            bytes = rest;
        }
    }

    /// Makes everything written so far durable.
    pub fn flush(&self) {
        let state = &mut *self.state();
        state.durable.blocks.extend(state.newest.drain());
        state.log.clear();
    }

    /// What is left if the power fails now. `chance` gives numbers from 0 to 1.
    pub fn cut(&self, how: Cut, mut chance: impl FnMut() -> f64) -> Image {
        let state = self.state();
        let mut image = state.durable.clone();
        let share = chance() * 0.8;
        for (number, block) in &state.log {
            let kept = match how {
                Cut::Kernel => true,
                Cut::Drive => chance() < share,
                Cut::Nothing => false,
            };
            if kept {
                image.blocks.insert(*number, Arc::clone(block));
            }
        }
        image
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn block(&self, number: u64) -> Option<&Block> {
        self.newest.get(&number).or_else(|| self.durable.blocks.get(&number))
    }
}
