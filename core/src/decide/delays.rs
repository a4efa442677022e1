//! Delayed messages become ready.

use alloc::vec::Vec;

use crate::delay::Front;
use crate::event::Event;
use crate::index::{Item, ListId};
use crate::outcome::EffectKind;
use crate::slab::NONE;
use crate::step::Step;
use crate::wire;

impl Step<'_> {
    /// The map of the newest delayed messages has grown: it becomes a run, on stored pages.
    pub(crate) fn start_run(&mut self) {
        let run = self.d.delays.runs.next_slot();
        self.emit(Event::RunStarted { run });
        let bases: Vec<u64> = self.d.delays.runs[run].pages.iter().map(|page| page.base).collect();
        for base in bases {
            self.store_page(ListId::Run(run), base);
            self.cache().uncache_page(ListId::Run(run), base);
        }
        self.refresh_front(run);
        self.wake_for_next();
    }

    fn refresh_front(&mut self, run: u32) {
        if let Some(due) = self.d.delays.runs.get(run).and_then(|run| run.front_due()) {
            self.v.run_fronts.insert((due, run));
        }
    }

    /// The earliest delayed message and where it is.
    fn delays_front(&self) -> Option<(u64, Front)> {
        let fresh = self.d.delays.fresh.keys().next().map(|(due, _)| (*due, Front::Fresh));
        let run = self.v.run_fronts.first().map(|(due, run)| (*due, Front::Run(*run)));
        fresh.into_iter().chain(run).min_by_key(|(due, _)| *due)
    }

    fn wake_for_next(&mut self) {
        if let Some((due, _)) = self.delays_front() {
            self.wake_delays(due);
        }
    }

    /// Moves what is due into its lanes, a bounded number at a time.
    pub(super) fn promote(&mut self) {
        let mut work = self.v.limits.work_per_step;
        while work > 0 {
            match self.delays_front() {
                Some((due, front)) if due <= self.wall => {
                    let moved = match front {
                        Front::Fresh => self.promote_fresh(work),
                        Front::Run(run) => match self.promote_run(run, work) {
                            Some(moved) => moved,
                            // Its page is being fetched; it calls back.
                            None => return,
                        },
                    };
                    work -= moved.min(work);
                }
                _ => break,
            }
        }
        self.wake_for_next();
    }

    fn promote_fresh(&mut self, max: usize) -> usize {
        let due = self.d.delays.fresh.iter().take_while(|((due, _), _)| *due <= self.wall);
        let queues: Vec<u32> = due.take(max).map(|(_, item)| item.queue.slot).collect();
        self.emit(Event::Promoted { run: None, count: queues.len() as u32, items: &[] });
        queues.iter().for_each(|&slot| self.look_at(slot));
        queues.len()
    }

    fn promote_run(&mut self, slot: u32, max: usize) -> Option<usize> {
        let front = *self.v.run_fronts.iter().find(|(_, run)| *run == slot).expect("it is a front");
        let page = self.d.delays.runs[slot].pages.front().expect("runs have pages");
        if !page.resident {
            let (base, place) = (page.base, page.stored.expect("it is stored"));
            self.effect_now(EffectKind::LoadPage(ListId::Run(slot), base, place));
            return None;
        }
        let (mut at, mut items, mut queues) = (page.base, Vec::new(), Vec::new());
        while queues.len() < max
            && let Some(live) = page.next_live(at)
        {
            let item = page.item(live).expect("the page is resident");
            if item.due > self.wall {
                break;
            }
            item.encode(&mut items);
            queues.push(item.queue.slot);
            at = live + 1;
        }
        let count = queues.len() as u32;
        let mut counted = Vec::with_capacity(items.len() + 4);
        wire::put_u64(&mut counted, u64::from(count));
        counted.extend_from_slice(&items);
        self.v.run_fronts.remove(&front);
        if count > 0 {
            let items = &counted;
            self.emit_large(items.len(), Event::Promoted { run: Some(slot), count, items });
        }
        self.refresh_front(slot);
        queues.iter().for_each(|&queue| self.look_at(queue));
        Some(queues.len())
    }

    /// A run's page is in memory: its front is known exactly now.
    pub(super) fn run_page_loaded(&mut self, run: u32) {
        self.v.run_fronts.retain(|(_, other)| *other != run);
        self.refresh_front(run);
        self.promote();
    }

    pub(super) fn boot_delays(&mut self) {
        self.v.delays_timer = NONE;
        let runs: Vec<u32> = self.d.delays.runs.iter().map(|(run, _)| run).collect();
        runs.into_iter().for_each(|run| self.refresh_front(run));
        self.wake_for_next();
    }
}
