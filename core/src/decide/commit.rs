//! The atomic commit: acks, publishes, register writes and releases under token checks, all or
//! none.
//!
//! Everything is checked before the first event, and the events go into one journal frame, so
//! neither a refusal nor a crash can tear it. It is the step for which one otherwise needs a lock,
//! a queue and a database that agree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::answer;
use super::publish::Planned;
use crate::event::Arrival;
use crate::outcome::{Outcome, Refusal};
use crate::step::Step;
use crate::{Commit, HoldRef, Publish, RequestId, SessionId};

impl Step<'_> {
    pub(super) fn commit(
        &mut self,
        request: Option<RequestId>,
        commit: &Commit,
    ) -> Result<Outcome, Refusal> {
        let parts = commit.checks.len()
            + commit.settles.len()
            + commit.publishes.len()
            + commit.writes.len()
            + commit.releases.len();
        Self::check_size("the number of parts", parts, self.v.limits.commit_parts_max)?;
        for (name, token) in &commit.checks {
            self.check_token(name, *token)?;
        }
        self.find_flights(commit.settles.iter().map(|(session, receipt, _)| (*session, *receipt)))?;
        for (.., verdict) in &commit.settles {
            self.check_verdict(*verdict)?;
        }
        let planned = self.plan_publishes(&commit.publishes)?;
        for (i, write) in commit.writes.iter().enumerate() {
            if commit.writes[..i].iter().any(|other| other.key == write.key) {
                return Err(Refusal::BadSettings("a register is named twice; name it once"));
            }
            self.check_write(write)?;
        }
        let holds = self.find_holds(&commit.releases)?;

        for (_, receipt, verdict) in &commit.settles {
            self.apply_verdict(receipt.slot, *verdict);
        }
        for (publish, (plan, arrivals)) in commit.publishes.iter().zip(planned) {
            self.apply_publish(publish, plan, &arrivals);
        }
        let versions: Vec<u64> =
            commit.writes.iter().map(|write| self.apply_write(write)).collect();
        for hold in holds {
            self.apply_release(hold);
        }
        let first = versions.first().copied().unwrap_or(0);
        self.remember(request, answer::COMMITTED, first, versions.len() as u64);
        Ok(Outcome::Committed { versions })
    }

    /// Checks publishes against the state and against those before them, which are not in it yet.
    fn plan_publishes(
        &mut self,
        publishes: &[Publish],
    ) -> Result<Vec<(Planned, Vec<Arrival>)>, Refusal> {
        let mut planned = Vec::with_capacity(publishes.len());
        let mut ids: BTreeSet<(u32, u128)> = BTreeSet::new();
        let mut taken: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for publish in publishes {
            let mut arrivals = Vec::new();
            let mut plan = self.plan_publish(publish, &mut arrivals)?;
            let all = arrivals.len();
            arrivals.retain(|arrival| {
                let remembers = self.d.queues[arrival.queue].config.dedup_us.is_some();
                plan.id == 0 || !remembers || ids.insert((arrival.queue, plan.id))
            });
            plan.duplicates += (all - arrivals.len()) as u32;
            for arrival in &arrivals {
                let (messages, bytes) = taken.entry(arrival.queue).or_default();
                *messages += 1;
                *bytes += publish.message.body.len() as u64;
                if self.is_full(arrival.queue, *messages, *bytes) {
                    let name = self.d.queues[arrival.queue].name.clone();
                    return Err(Refusal::QueueFull(name));
                }
            }
            planned.push((plan, arrivals));
        }
        Ok(planned)
    }

    fn find_holds(&self, releases: &[(SessionId, HoldRef)]) -> Result<Vec<u32>, Refusal> {
        let mut holds = Vec::with_capacity(releases.len());
        for (session, release) in releases {
            let hold = self.find_hold(*session, release)?;
            if holds.contains(&hold) {
                return Err(Refusal::NamedTwice(release.name.clone()));
            }
            holds.push(hold);
        }
        Ok(holds)
    }
}
