//! Publishing: route, check, record once, append to each queue.
//!
//! A message is one journal record however many queues it reaches. Ids that a queue remembers are
//! skipped queue by queue, so a retry after a partial change of bindings reaches the new ones only.

use alloc::vec::Vec;

use super::answer;
use crate::event::{Arrival, Event, List};
use crate::limits::NAME_BYTES;
use crate::message::{Due, Envelope, Headers, encode_headers};
use crate::outcome::{Outcome, Refusal};
use crate::step::Step;
use crate::volatile::Timer;
use crate::window::fingerprint;
use crate::{Publish, RequestId, SessionId, Time};

/// A publish that was checked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Planned {
    pub due: Time,
    pub key: u64,
    pub id: u128,
    pub duplicates: u32,
}

impl Step<'_> {
    pub(super) fn publish(
        &mut self,
        _session: SessionId,
        request: Option<RequestId>,
        publish: &Publish,
    ) -> Result<Outcome, Refusal> {
        let mut arrivals = core::mem::take(&mut self.v.arrivals);
        let planned = self.plan_publish(publish, &mut arrivals);
        let result = planned.map(|planned| {
            self.apply_publish(publish, planned, &arrivals);
            let (queues, duplicates) = (arrivals.len() as u32, planned.duplicates);
            self.remember(request, answer::PUBLISHED, u64::from(queues), u64::from(duplicates));
            Outcome::Published { queues, duplicates }
        });
        self.v.arrivals = arrivals;
        result
    }

    /// Checks a publish and finds where the message arrives.
    pub(super) fn plan_publish(
        &mut self,
        publish: &Publish,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<Planned, Refusal> {
        arrivals.clear();
        let message = &publish.message;
        Self::check_size("the body's length", message.body.len(), self.v.limits.body_bytes)?;
        let mut planned = Planned::default();
        let mut ttl_us = None;
        if let Some(more) = &message.more {
            let header = |(name, value): &(_, crate::Value)| -> usize {
                let name: &alloc::boxed::Box<str> = name;
                name.len() + value.bytes()
            };
            let headers: usize = more.headers.iter().map(header).sum();
            let bytes = headers + more.properties.len();
            Self::check_size("the headers' length", bytes, self.v.limits.headers_bytes)?;
            for (what, text) in [("the message id", &more.id), ("the ordering key", &more.key)] {
                if let Some(text) = text {
                    if text.is_empty() {
                        return Err(Refusal::Zero(what));
                    }
                    Self::check_size(what, text.len(), NAME_BYTES)?;
                }
            }
            // Fingerprint 0 means none; a text that hashes to it is treated as its neighbour.
            planned.id = more.id.as_ref().map_or(0, |id| fingerprint(id.as_bytes()).max(1));
            planned.key =
                more.key.as_ref().map_or(0, |key| (fingerprint(key.as_bytes()) as u64).max(1));
            if let Some(ttl) = more.ttl_us {
                ttl_us = Some(self.check_time("the message's ttl", ttl)?);
            }
            planned.due = self.due(more.due)?;
        }
        let mut targets = core::mem::take(&mut self.v.targets);
        let none = Headers::new();
        let headers = message.more.as_ref().map_or(&none, |more| &more.headers);
        let result = self.resolve(&publish.target, headers, &mut targets).and_then(|()| {
            if targets.is_empty() && publish.mandatory {
                return Err(Refusal::Unroutable);
            }
            self.arrive(message, ttl_us, &targets, &mut planned, arrivals)
        });
        self.v.targets = targets;
        result.map(|()| planned)
    }

    fn due(&self, due: Due) -> Result<Time, Refusal> {
        Ok(match due {
            Due::Now | Due::After(0) => 0,
            Due::After(delay) => self.wall + self.check_time("the delay", delay)?,
            Due::At(wall) if wall <= self.wall => 0,
            Due::At(wall) => {
                self.check_time("the delay", (wall - self.wall).max(self.v.limits.ttl_us_min))?;
                wall
            }
        })
    }

    fn arrive(
        &self,
        message: &crate::Message,
        ttl_us: Option<Time>,
        targets: &[u32],
        planned: &mut Planned,
        arrivals: &mut Vec<Arrival>,
    ) -> Result<(), Refusal> {
        for &slot in targets {
            let queue = &self.d.queues[slot];
            if planned.id != 0
                && let Some(dedup_us) = queue.config.dedup_us
                && queue.dedup.get(planned.id, self.now.saturating_sub(dedup_us)).is_some()
            {
                planned.duplicates += 1;
                continue;
            }
            if self.is_full(slot, 1, message.body.len() as u64) {
                return Err(Refusal::QueueFull(queue.name.clone()));
            }
            let ttl = [ttl_us, queue.config.ttl_us].into_iter().flatten().min();
            let expires = ttl.map_or(0, |ttl| planned.due.max(self.wall) + ttl);
            arrivals.push(Arrival { queue: slot, lane: queue.lane_for(message.priority), expires });
        }
        Ok(())
    }

    /// Records a publish that was checked.
    pub(super) fn apply_publish(
        &mut self,
        publish: &Publish,
        planned: Planned,
        arrivals: &[Arrival],
    ) {
        if arrivals.is_empty() {
            return;
        }
        let (exchange, routing_key) = self.address(&publish.target);
        let message = &publish.message;
        let more = message.more.as_deref();
        let mut headers = core::mem::take(&mut self.v.scratch);
        headers.clear();
        if let Some(more) = more {
            encode_headers(&more.headers, &mut headers);
        }
        let envelope = Envelope {
            exchange: exchange.as_ref().map_or("", |name| name.as_str()),
            routing_key: &routing_key,
            published_at: self.wall,
            priority: message.priority,
            transient: message.transient,
            id: more.and_then(|more| more.id.as_deref()),
            key: more.and_then(|more| more.key.as_deref()),
            headers: &headers,
            properties: more.map_or(&[], |more| &more.properties),
            body: &message.body,
        };
        let Planned { due, key, id, .. } = planned;
        self.emit(Event::Published { due, key, id, arrivals: List::Made(arrivals), envelope });
        self.v.scratch = headers;
        if due == 0 {
            arrivals.iter().for_each(|arrival| self.look_at(arrival.queue));
        } else {
            self.wake_delays(due);
        }
    }

    /// Makes sure that delayed messages are looked at when one is due.
    pub(super) fn wake_delays(&mut self, due: Time) {
        if self.v.delays_timer != crate::slab::NONE {
            if self.v.delays_due <= due {
                return;
            }
            self.v.wheel.cancel(self.v.delays_timer);
        }
        // Due times are wall-clock times; the wheel runs on the shard's time.
        let at = self.now + due.saturating_sub(self.wall).max(1);
        self.v.delays_timer = self.v.wheel.insert(at, Timer::Delays);
        self.v.delays_due = due;
    }
}
