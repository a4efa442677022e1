//! What a node is opened with.

use leasehold_core::Limits;

/// When outcomes are released, and so what they survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// A grant, a confirmed publish, a register write survives power loss: it waits for the sync.
    /// Losing a release or an ack is safe (the lock runs out, the message comes again), so those
    /// are answered at once and synced at the latest after `lazy_sync_us`.
    #[default]
    Always,
    /// Survives a crash of the process at once, and power loss after this many microseconds.
    Interval(u64),
    /// Survives a crash of the process; the operating system decides about the rest.
    None,
}

/// Options of a node. `Default` is what the server runs with.
#[derive(Debug, Clone)]
pub struct Options {
    /// When outcomes are released.
    pub durability: Durability,
    /// Bounds on names, sizes and numbers.
    pub limits: Limits,
    /// Bytes of recently written records kept in memory for delivery.
    pub tail_cache_bytes: usize,
    /// Bytes of records read back from the disk kept in memory.
    pub read_cache_bytes: usize,
    /// Journal bytes after which a checkpoint is taken: bounds what a restart replays.
    pub checkpoint_bytes: u64,
    /// Changed cells after which a checkpoint is taken: bounds how long taking it holds the shard.
    pub checkpoint_cells: usize,
    /// How long an early answer may stay unsynced, microseconds.
    pub lazy_sync_us: u64,
    /// Commands waiting in the inbox before senders have to wait.
    pub inbox_commands: usize,
    /// Bytes of bodies waiting in the inbox before senders have to wait.
    pub inbox_bytes: usize,
    /// Notices waiting for one client before it counts as lost and its mailbox is closed.
    pub mailbox_notices: usize,
    /// Commands taken into one turn.
    pub turn_commands: usize,
}

/// What a node in memory has at most.
const MEMORY_SEGMENT_BYTES: u64 = 4 << 20;
const MEMORY_CHECKPOINT_BYTES: u64 = 4 << 20;
const MEMORY_CACHE_BYTES: usize = 1 << 20;

impl Options {
    /// The same for a disk in memory, where what old segments, checkpoints and caches hold is
    /// memory, and reading and writing cost little.
    pub(crate) fn for_memory(mut self) -> Self {
        let segment_bytes = &mut self.limits.segment_bytes;
        *segment_bytes = MEMORY_SEGMENT_BYTES.min(*segment_bytes);
        let most = self.limits.segment_bytes as usize / 2;
        self.limits.content_bytes = self.limits.content_bytes.min(most);
        self.limits.decision_bytes = self.limits.decision_bytes.min(most);
        self.checkpoint_bytes = MEMORY_CHECKPOINT_BYTES.min(self.checkpoint_bytes);
        self.tail_cache_bytes = MEMORY_CACHE_BYTES.min(self.tail_cache_bytes);
        self.read_cache_bytes = MEMORY_CACHE_BYTES.min(self.read_cache_bytes);
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Always,
            limits: Limits::default(),
            tail_cache_bytes: 8 << 20,
            read_cache_bytes: 8 << 20,
            checkpoint_bytes: 32 << 20,
            checkpoint_cells: 16_384,
            lazy_sync_us: 50_000,
            inbox_commands: 65_536,
            inbox_bytes: 64 << 20,
            mailbox_notices: 1 << 20,
            turn_commands: 4096,
        }
    }
}
