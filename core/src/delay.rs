//! Delayed messages: the durable half of schedules and of retries with a pause.
//!
//! New ones gather in a map sorted by due time. When it has grown to `delayed_entries` it becomes a
//! *run*: its items in due order on index pages that are stored in the journal and leave memory.
//! Due messages are taken from whichever front is earliest, the map's or a run's, so twenty million
//! delayed messages cost a page descriptor for every 2048 of them, and being moved once. A timing
//! wheel on disk was rejected: it rewrites each entry at every level it falls through.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::Time;
use crate::index::{Delayed, Page};
use crate::slab::Slab;

/// Delayed messages in due order, in pages.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Pages with live items, the earliest first.
    pub pages: VecDeque<Page<Delayed>>,
}

impl Run {
    /// The earliest due time, as far as it can be told: exact when the front page is resident.
    pub fn front_due(&self) -> Option<Time> {
        let page = self.pages.front()?;
        let at = page.next_live(page.base)?;
        Some(page.item(at).map_or(page.least, |item| item.due))
    }
}

/// All delayed messages of a shard.
#[derive(Debug, Clone, Default)]
pub struct Delays {
    /// The newest, by due time and serial number.
    pub fresh: BTreeMap<(Time, u64), Delayed>,
    /// The next serial number.
    pub serial: u64,
    /// The older ones.
    pub runs: Slab<Run>,
    /// `fresh` differs from what the checkpoint has.
    pub(crate) fresh_changed: bool,
}

/// Where the earliest delayed message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    /// In the map.
    Fresh,
    /// In a run.
    Run(u32),
}

impl Delays {
    pub(crate) fn add(&mut self, item: Delayed) {
        self.fresh.insert((item.due, self.serial), item);
        self.serial += 1;
        self.fresh_changed = true;
    }

    /// Takes the first `count` of the map.
    pub(crate) fn take_fresh(&mut self, count: usize) -> Vec<Delayed> {
        self.fresh_changed = true;
        let first =
            |map: &mut BTreeMap<(Time, u64), Delayed>| map.pop_first().map(|(_, item)| item);
        (0..count).map_while(|_| first(&mut self.fresh)).collect()
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        let pages = self.runs.iter().flat_map(|(_, run)| &run.pages);
        self.fresh.len() as u64 + pages.map(|page| u64::from(page.live)).sum::<u64>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
