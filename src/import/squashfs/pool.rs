//! Blocks compressed by as many threads as there are cores, and returned in the order in which they
//! were put in.
//!
//! One thread puts blocks in ([`Pool::push`]), workers compress them ([`Pool::work`]), one thread
//! takes them out ([`Pool::next`]). Their number is bounded, and their buffers are used again: fresh
//! ones cost a page fault every 4 KiB.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::error::Result;
use crate::squashfs::compression::Compression;
use crate::squashfs::compressor::BlockCompressor;
use crate::squashfs::writer::BLOCK;
use crate::sync::ignore_poison;

/// Blocks in flight for each core, each 257 KiB, raw and compressed...
const DEPTH: usize = 8;
/// ... and for all, which bounds the memory on large machines to 64 MiB.
const MAX_DEPTH: usize = 256;

/// A data block with its buffers.
#[derive(Debug)]
pub struct Block {
    raw: Box<[u8]>,
    /// Bytes of `raw` that are in use.
    pub length: usize,
    /// To be stored as it is.
    pub is_plain: bool,
    packed: Box<[u8]>,
    /// Bytes of `packed`, if it is smaller.
    compressed: Option<usize>,
}

impl Block {
    fn new() -> Self {
        // Zeroed pages from the kernel, which cost nothing before they are used.
        let packed = vec![0; BlockCompressor::bound(BLOCK)].into();
        Self { raw: vec![0; BLOCK].into(), length: 0, is_plain: false, packed, compressed: None }
    }

    /// The uncompressed bytes.
    pub fn bytes(&self) -> &[u8] {
        self.raw.get(..self.length).unwrap_or_default()
    }

    /// The next `count` bytes, not in use yet; fewer if the block has less room.
    pub fn room(&mut self, count: usize) -> &mut [u8] {
        let end = self.length.saturating_add(count).min(self.raw.len());
        self.raw.get_mut(self.length..end).unwrap_or_default()
    }

    /// The bytes to store.
    pub fn stored(&self) -> &[u8] {
        match self.compressed {
            Some(size) => self.packed.get(..size).unwrap_or_default(),
            None => self.bytes(),
        }
    }

    pub fn is_compressed(&self) -> bool {
        self.compressed.is_some()
    }

    fn compress(&mut self, compressor: &mut BlockCompressor) {
        if !self.is_plain {
            let raw = self.raw.get(..self.length).unwrap_or_default();
            self.compressed = compressor.compress(raw, &mut self.packed);
        }
    }
}

/// The blocks in flight.
#[derive(Debug)]
pub struct Pool {
    state: Mutex<State>,
    /// For workers: there is a block to compress.
    filled: Bell,
    /// For the taker: the first block is ready.
    ready: Bell,
    /// For the putter: there is room.
    taken: Bell,
    workers: usize,
}

/// A condition variable that makes no system call when nobody waits for it, as is the rule here.
#[derive(Debug, Default)]
struct Bell {
    condition: Condvar,
    /// Changed and read under the lock of the state, or after a change that was made under it.
    waiting: AtomicUsize,
}

impl Bell {
    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = ignore_poison(self.condition.wait(state));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    fn wake_one(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.condition.notify_one();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    slots: VecDeque<Slot>,
    /// Number of slots that were ever removed from the front: gives each block a number.
    removed: usize,
    /// Number of the next block for a worker.
    next: usize,
    /// Blocks to use again.
    spare: Vec<Block>,
    /// No block follows.
    has_ended: bool,
    /// No block is wanted.
    is_closed: bool,
}

#[derive(Debug)]
enum Slot {
    Waiting(Block),
    /// A worker has the block.
    Working,
    Done(Block),
}

impl Pool {
    /// A pool for `workers` threads.
    pub fn new(workers: usize) -> Self {
        let [filled, ready, taken] = std::array::from_fn(|_| Bell::default());
        Self { state: Mutex::default(), filled, ready, taken, workers: workers.max(1) }
    }

    /// A compressor for each worker.
    pub fn compressors(&self, compression: Compression) -> Result<Vec<BlockCompressor>> {
        (0..self.workers).map(|_| BlockCompressor::new(compression)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// An empty block.
    pub fn block(&self) -> Block {
        let spare = self.lock().spare.pop();
        let mut block = spare.unwrap_or_else(Block::new);
        (block.length, block.is_plain, block.compressed) = (0, false, None);
        block
    }

    /// Takes a block that is not needed any more.
    pub fn give_back(&self, block: Block) {
        self.lock().spare.push(block);
    }

    /// Puts a block at the end, when there is room; false when no block is wanted any more.
    pub fn push(&self, block: Block) -> bool {
        let room = (DEPTH * self.workers).min(MAX_DEPTH);
        let mut state = self.lock();
        while state.slots.len() >= room && !state.is_closed {
            state = self.taken.wait(state);
        }
        if state.is_closed {
            return false;
        }
        state.slots.push_back(Slot::Waiting(block));
        self.filled.wake_one();
        true
    }

    /// Tells that no block follows.
    pub fn end(&self) {
        self.lock().has_ended = true;
        self.filled.condition.notify_all();
        self.ready.condition.notify_all();
    }

    /// Tells that no block is wanted any more: lets all other threads end.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.filled.condition.notify_all();
        self.taken.condition.notify_all();
    }

    /// Compresses blocks until there are no more.
    pub fn work(&self, compressor: &mut BlockCompressor) {
        let mut state = self.lock();
        while !state.is_closed {
            match state.claim() {
                Some((number, mut block)) => {
                    drop(state);
                    block.compress(compressor);
                    state = self.lock();
                    if state.store(number, block) {
                        self.ready.wake_one();
                    }
                }
                None if state.has_ended => return,
                None => state = self.filled.wait(state),
            }
        }
    }

    /// Takes the first block when it is ready; nothing after the last one.
    pub fn next(&self) -> Option<Block> {
        let mut state = self.lock();
        loop {
            match state.slots.pop_front() {
                Some(Slot::Done(block)) => {
                    state.removed += 1;
                    self.taken.wake_one();
                    return Some(block);
                }
                Some(slot) => state.slots.push_front(slot),
                None if state.has_ended => return None,
                None => {}
            }
            state = self.ready.wait(state);
        }
    }
}

impl State {
    /// The next block that no worker has taken.
    fn claim(&mut self) -> Option<(usize, Block)> {
        let number = self.next;
        let slot = self.slots.get_mut(number.checked_sub(self.removed)?)?;
        match std::mem::replace(slot, Slot::Working) {
            Slot::Waiting(block) => {
                self.next = number + 1;
                Some((number, block))
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    /// Puts a compressed block back, and tells if it is the first.
    fn store(&mut self, number: usize, block: Block) -> bool {
        let place = number.checked_sub(self.removed);
        if let Some(slot) = place.and_then(|place| self.slots.get_mut(place)) {
            *slot = Slot::Done(block);
        }
        place == Some(0)
    }
}
