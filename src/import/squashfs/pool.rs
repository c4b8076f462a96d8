//! Blocks compressed ahead of the writer, by as many threads as there are cores.
//!
//! `backhand` asks for one compressed block at a time. The walker ([`super::content::walk`]) puts
//! the blocks that it will ask for into a bounded queue, workers compress them, and
//! [`Ahead::compress`] takes the results. It compares the bytes: what it does not find it
//! compresses itself, so the image never depends on the walker's guess.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use crate::sync::ignore_poison;

use backhand::compression::{CompressionAction, Compressor};
use backhand::kind::Kind;
use backhand::{BackhandError, FilesystemCompressor, Flags, SuperBlock};

use super::BLOCK;
use super::compressor::{Engine, LZ4_OPTIONS};
use crate::squashfs::compression::Compression;

/// Blocks in flight for each core, each at most 256 KiB raw and compressed...
const DEPTH: usize = 8;
/// ... and for all, which bounds the memory on large machines to 64 MiB.
const MAX_DEPTH: usize = 256;

/// The blocks in flight.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// For workers: there is a block to compress.
    filled: Bell,
    /// For the writer: there is a block in front, or its result.
    ready: Bell,
    /// For the walker: there is room.
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
    blocks: VecDeque<Block>,
    /// How many blocks were ever removed from the front: gives each block a number.
    removed: usize,
    /// The number of the next block that no worker has taken.
    next: usize,
    /// Buffers to use again: fresh ones cost a page fault every 4 KiB.
    spare: Vec<Vec<u8>>,
    /// The walker has put its last block.
    ended: bool,
    /// The writer needs nothing more.
    closed: bool,
}

#[derive(Debug)]
struct Block {
    raw: Arc<Vec<u8>>,
    /// Absent while a worker has it or none has taken it yet.
    compressed: Option<Vec<u8>>,
}

impl Queue {
    /// For `workers` threads.
    pub fn new(workers: usize) -> Arc<Self> {
        let [filled, ready, taken] = std::array::from_fn(|_| Bell::default());
        Arc::new(Self { state: Mutex::default(), filled, ready, taken, workers })
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        ignore_poison(self.state.lock())
    }

    /// An empty buffer for a block.
    pub fn buffer(&self) -> Vec<u8> {
        self.lock().spare.pop().unwrap_or_else(|| Vec::with_capacity(BLOCK))
    }

    /// Puts a block at the end, when there is room; false when nobody wants it any more.
    pub fn push(&self, raw: Vec<u8>) -> bool {
        let room = (DEPTH * self.workers).min(MAX_DEPTH);
        let mut state = self.lock();
        while state.blocks.len() >= room && !state.closed {
            state = self.taken.wait(state);
        }
        if state.closed {
            return false;
        }
        state.blocks.push_back(Block { raw: Arc::new(raw), compressed: None });
        self.filled.wake_one();
        self.ready.wake_one();
        true
    }

    /// The walker has nothing more.
    pub fn end(&self) {
        self.lock().ended = true;
        self.filled.condition.notify_all();
        self.ready.condition.notify_all();
    }

    /// The writer has all it needs: lets walker and workers end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.condition.notify_all();
        self.taken.condition.notify_all();
    }

    /// Compresses blocks until there are no more.
    pub fn work(&self, compression: Compression) {
        let Ok(mut engine) = Engine::new(compression) else { return };
        let mut state = self.lock();
        while !state.closed {
            match state.claim() {
                Some((number, raw)) => {
                    drop(state);
                    let compressed = engine.compress(&raw);
                    drop(raw);
                    state = self.lock();
                    if state.store(number, compressed) {
                        self.ready.wake_one();
                    }
                }
                None if state.ended => return,
                None => state = self.filled.wait(state),
            }
        }
    }

    /// The compressed form of `raw`, if the walker guessed that it would be asked for.
    fn take(&self, raw: &[u8], engine: &mut Engine) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.blocks.is_empty() && !state.ended {
            state = self.ready.wait(state);
        }
        let ahead = state.blocks.iter().position(|block| same(&block.raw, raw))?;
        for _ in 0..ahead {
            state.remove();
        }
        loop {
            let front = state.blocks.front_mut()?;
            if let Some(compressed) = front.compressed.take() {
                state.remove();
                self.taken.wake_one();
                return Some(compressed);
            }
            // Rather than wait for a worker to begin, begin.
            if state.next <= state.removed {
                state.next = state.removed + 1;
                drop(state);
                let compressed = engine.compress(raw);
                self.lock().remove();
                self.taken.wake_one();
                return Some(compressed);
            }
            state = self.ready.wait(state);
        }
    }
}

impl State {
    /// The next block that nobody compresses yet.
    fn claim(&mut self) -> Option<(usize, Arc<Vec<u8>>)> {
        let number = self.next.max(self.removed);
        let block = self.blocks.get(number - self.removed)?;
        self.next = number + 1;
        Some((number, Arc::clone(&block.raw)))
    }

    /// Keeps a result, unless the writer has passed the block; tells whether it now is in front.
    fn store(&mut self, number: usize, compressed: Vec<u8>) -> bool {
        let Some(place) = number.checked_sub(self.removed) else { return false };
        if let Some(block) = self.blocks.get_mut(place) {
            block.compressed = Some(compressed);
        }
        place == 0
    }

    fn remove(&mut self) {
        let Some(block) = self.blocks.pop_front() else { return };
        self.removed += 1;
        // A worker may still hold a block that was passed over.
        if let Ok(mut raw) = Arc::try_unwrap(block.raw) {
            raw.clear();
            self.spare.push(raw);
        }
    }
}

/// Whether two blocks are equal; word by word, since musl's `memcmp` goes byte by byte.
fn same(left: &[u8], right: &[u8]) -> bool {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    left_rest == right_rest
        && left.len() == right.len()
        && left
            .iter()
            .zip(right)
            .all(|(left, right)| u64::from_ne_bytes(*left) == u64::from_ne_bytes(*right))
}

/// What `backhand` calls: results of the pool where there are any.
pub struct Ahead {
    queue: Arc<Queue>,
    engine: Mutex<Engine>,
}

impl Ahead {
    pub fn new(queue: &Arc<Queue>, engine: Engine) -> Self {
        Self { queue: Arc::clone(queue), engine: Mutex::new(engine) }
    }
}

impl CompressionAction for Ahead {
    type Error = BackhandError;
    type Compressor = Compressor;
    type FilesystemCompressor = FilesystemCompressor;
    type SuperBlock = SuperBlock;

    fn decompress(&self, _: &[u8], _: &mut Vec<u8>, _: Compressor) -> Result<(), BackhandError> {
        // We only ever write.
        Err(BackhandError::Unreachable)
    }

    fn compress(
        &self,
        bytes: &[u8],
        _: FilesystemCompressor,
        _: u32,
    ) -> Result<Vec<u8>, BackhandError> {
        let mut engine = ignore_poison(self.engine.lock());
        let found = self.queue.take(bytes, &mut engine);
        Ok(found.unwrap_or_else(|| engine.compress(bytes)))
    }

    /// Asked for only where there are options, as lz4 has.
    fn compression_options(
        &self,
        superblock: &mut SuperBlock,
        _: &Kind,
        _: FilesystemCompressor,
    ) -> Result<Option<Vec<u8>>, BackhandError> {
        superblock.flags |= Flags::CompressorOptionsArePresent as u16;
        Ok(Some(LZ4_OPTIONS.to_vec()))
    }
}
