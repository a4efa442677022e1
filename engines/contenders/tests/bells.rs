//! Nobody who could hold stays asleep: the rule of bells, on generated lines and actions.
//!
//! Contenders of two locks come, go, die, renew and shorten their time, and are slow between their
//! plan and its write. Whoever waits sleeps as the engine does: until its bell rings, until the end
//! that it knows of, or until it looks in any case. After every action all who were woken have
//! looked; who then holds and does not know was not woken.

use std::collections::BTreeMap;

use leasehold_api::Mode;
use leasehold_contenders::bell::{self, Bell, LOOK};
use leasehold_contenders::{Contender, line};
use proptest::prelude::*;

const LOOK_US: u64 = LOOK.as_micros() as u64;
/// How long somebody who waits stands in line without a sign of life.
const WAITING: u64 = 10_000_000;

#[derive(Debug, Clone)]
enum Action {
    /// Somebody wants these locks: the first, the second, or both.
    Join {
        locks: (bool, bool),
        mode: Mode,
        ttl: u64,
        delay: u64,
    },
    /// Somebody releases, or gives up waiting; so much time passes between the plan and the write.
    Leave {
        who: usize,
        slow: u64,
    },
    /// Somebody's process dies.
    Die {
        who: usize,
    },
    /// A holder renews, perhaps for a shorter time.
    Renew {
        who: usize,
        ttl: u64,
    },
    Pass {
        time: u64,
    },
}

struct Person {
    locks: Vec<usize>,
    mode: Mode,
    ttl: u64,
    delay: u64,
    is_granted: bool,
    /// It sleeps, listening to this in these lines, until then.
    sleeps: Option<(Option<Bell>, u64)>,
}

struct World {
    lines: [Vec<Contender>; 2],
    now: u64,
    versions: u64,
    people: BTreeMap<String, Person>,
    /// Rings are lost, as when whoever has written dies before it could ring.
    is_silent: bool,
}

fn prune(list: &mut Vec<Contender>, now: u64) {
    list.retain(|one| one.blocks(now));
}

impl World {
    fn new() -> Self {
        let lines = [Vec::new(), Vec::new()];
        Self { lines, now: 1000, versions: 0, people: BTreeMap::new(), is_silent: false }
    }

    /// Writes lines that were planned at some time, and wakes who hears of it.
    fn write(&mut self, plan: &BTreeMap<usize, Vec<Contender>>, planned: u64) {
        self.versions += 1;
        for (lock, after) in plan {
            let rung = bell::rung(&self.lines[*lock], after, planned);
            let mut after = after.clone();
            for one in after.iter_mut().filter(|one| one.token == 0) {
                one.token = self.versions;
            }
            self.lines[*lock] = after;
            if self.is_silent {
                continue;
            }
            for person in self.people.values_mut().filter(|person| person.locks.contains(lock)) {
                let hears = person.sleeps.as_ref().is_some_and(|(bell, _)| match bell {
                    Some(bell) => rung.bells.contains(bell),
                    None => rung.any,
                });
                if hears {
                    person.sleeps = None;
                }
            }
        }
    }

    /// Changes lines at this moment.
    fn change(&mut self, locks: &[usize], mut with: impl FnMut(&mut Vec<Contender>)) {
        let plan = self.plan(locks, &mut with);
        self.write(&plan, self.now);
    }

    fn plan(
        &self,
        locks: &[usize],
        mut with: impl FnMut(&mut Vec<Contender>),
    ) -> BTreeMap<usize, Vec<Contender>> {
        let planned = |lock: &usize| {
            let mut list = self.lines[*lock].clone();
            prune(&mut list, self.now);
            with(&mut list);
            (*lock, list)
        };
        locks.iter().map(planned).collect()
    }

    fn join(&mut self, id: &str) {
        let Person { locks, mode, ttl, delay, .. } = &self.people[id];
        let (locks, mode, now) = (locks.clone(), *mode, self.now);
        let with = locks.iter().filter(|_| locks.len() > 1).map(|lock| lock.to_string()).collect();
        let mut new = Contender {
            id: id.to_owned(),
            token: 0,
            session: 0,
            hold: 0,
            mode,
            with,
            entries: 1,
            label: None,
            joined: now,
            granted: None,
            renewed: now,
            lasts: Some(WAITING),
            session_lasts: None,
            session_renewed: now,
            delay: *delay,
        };
        let ttl = *ttl;
        let plan = self.plan(&locks, |_| {});
        if plan.values().all(|list| line::has_room(list, mode, now)) {
            (new.granted, new.lasts) = (Some(now), Some(ttl));
        }
        let person = self.people.get_mut(id).expect("it was just there");
        person.is_granted = new.granted.is_some();
        self.change(&locks, |list| list.push(new.clone()));
    }

    /// Whether somebody holds in all of its lines; `None`: it is not in one of them.
    fn holds(&self, id: &str) -> Option<bool> {
        let mut all = true;
        for lock in &self.people[id].locks {
            let mut list = self.lines[*lock].clone();
            prune(&mut list, self.now);
            let place = list.iter().position(|one| one.id == id)?;
            all &= line::holds(&list, place, self.now) && !list[place].is_over(self.now);
        }
        Some(all)
    }

    /// Somebody awake looks, as `Acquiring::look` does.
    fn look(&mut self, id: &str) {
        let (locks, now) = (self.people[id].locks.clone(), self.now);
        match self.holds(id) {
            None => return self.join(id),
            Some(true) => {
                let person = self.people.get_mut(id).expect("it is there");
                person.is_granted = true;
                let ttl = person.ttl;
                return self.change(&locks, |list| {
                    let own = list.iter_mut().find(|own| own.id == id).expect("it is there");
                    (own.granted, own.lasts, own.renewed) = (Some(now), Some(ttl), now);
                });
            }
            Some(false) => {}
        }
        let renewed = self.lines[locks[0]].iter().find(|own| own.id == id).map(|own| own.renewed);
        if renewed.is_some_and(|renewed| now - renewed >= WAITING / 3) {
            self.change(&locks, |list| {
                let own = list.iter_mut().find(|own| own.id == id).expect("it is there");
                own.renewed = now;
            });
        }
        let mut lists: Vec<Vec<Contender>> = Vec::new();
        for lock in &locks {
            let mut list = self.lines[*lock].clone();
            prune(&mut list, now);
            lists.push(list);
        }
        let place = |list: &Vec<Contender>| list.iter().position(|own| own.id == id);
        let places = lists.iter().map(|list| (&list[..], place(list).expect("it is there")));
        let awaited = bell::awaited_in(&places.collect::<Vec<_>>(), now);
        let (bell, until) = awaited.map_or((None, None), |awaited| (awaited.bell, awaited.until));
        let latest = now + LOOK_US.min(WAITING / 3);
        let until = until.map_or(latest, |until| until.min(latest)).max(now + 1);
        self.people.get_mut(id).expect("it is there").sleeps = Some((bell, until));
    }

    /// All who are awake look, until all sleep or hold.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let awake =
                |(_, person): &(&String, &Person)| !person.is_granted && person.sleeps.is_none();
            let Some(id) = self.people.iter().find(awake).map(|(id, _)| id.clone()) else { return };
            self.look(&id);
        }
        panic!("they wake each other without end");
    }

    fn pass(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            let sleeping = self.people.values().filter_map(|person| person.sleeps.as_ref());
            let next = sleeping.map(|(_, until)| *until).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            for person in self.people.values_mut() {
                if person.sleeps.as_ref().is_some_and(|(_, until)| *until <= next) {
                    person.sleeps = None;
                }
            }
            self.settle();
        }
        self.now = end;
        self.lose();
    }

    /// Who held and is over knows it.
    fn lose(&mut self) {
        let lost = |id: &String| self.people[id].is_granted && self.holds(id) != Some(true);
        let lost: Vec<String> = self.people.keys().filter(|id| lost(id)).cloned().collect();
        lost.iter().for_each(|id| drop(self.people.remove(id)));
    }

    fn leave(&mut self, id: &str, slow: u64) {
        let locks = self.people[id].locks.clone();
        self.people.remove(id);
        let go = |list: &mut Vec<Contender>| list.retain(|own| own.id != id);
        let (plan, planned, before) = (self.plan(&locks, go), self.now, self.lines.clone());
        self.pass(slow);
        if self.lines == before {
            self.write(&plan, planned);
        } else {
            self.change(&locks, go);
        }
    }

    fn whose(&self, who: usize) -> Option<String> {
        let count = self.people.len();
        self.people.keys().nth(who.checked_rem(count)?).cloned()
    }

    fn act(&mut self, number: usize, action: &Action) {
        match *action {
            Action::Join { locks: (first, second), mode, ttl, delay } => {
                let locks: Vec<usize> = match (first, second) {
                    (true, true) => vec![0, 1],
                    (false, true) => vec![1],
                    _ => vec![0],
                };
                let id = format!("{number:03}");
                let is_granted = false;
                let person = Person { locks, mode, ttl, delay, is_granted, sleeps: None };
                self.people.insert(id.clone(), person);
                self.join(&id);
            }
            Action::Leave { who, slow } => {
                if let Some(id) = self.whose(who) {
                    self.leave(&id, slow);
                }
            }
            Action::Die { who } => {
                if let Some(id) = self.whose(who) {
                    self.people.remove(&id);
                }
            }
            Action::Renew { who, ttl } => {
                let Some(id) = self.whose(who).filter(|id| self.people[id].is_granted) else {
                    return;
                };
                let (locks, now) = (self.people[&id].locks.clone(), self.now);
                self.change(&locks, |list| {
                    let own = list.iter_mut().find(|own| own.id == id).expect("it holds");
                    (own.renewed, own.lasts) = (now, Some(ttl));
                });
            }
            Action::Pass { time } => self.pass(time),
        }
        self.settle();
    }

    /// Demands that whoever holds knows it.
    fn check(&self) -> Result<(), TestCaseError> {
        for (id, person) in &self.people {
            let sleeps = !person.is_granted && self.holds(id) == Some(true);
            prop_assert!(!sleeps, "{id} could hold and sleeps: {:#?}", self.lines);
        }
        Ok(())
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => Just(Mode::Exclusive),
        2 => Just(Mode::Shared),
        3 => (1..=3u32).prop_map(|take| Mode::Permits { take, of: 4 }),
    ]
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![1..100_000u64, 100_000..5_000_000u64, 5_000_000..30_000_000u64]
}

fn action() -> impl Strategy<Value = Action> {
    let slow = prop_oneof![3 => Just(0), 1 => time()];
    let delay = prop_oneof![3 => Just(0), 1 => time()];
    let join = (any::<(bool, bool)>(), mode(), time(), delay);
    prop_oneof![
        5 => join.prop_map(|(locks, mode, ttl, delay)| Action::Join { locks, mode, ttl, delay }),
        4 => (0..64usize, slow).prop_map(|(who, slow)| Action::Leave { who, slow }),
        1 => (0..64usize).prop_map(|who| Action::Die { who }),
        1 => (0..64usize, time()).prop_map(|(who, ttl)| Action::Renew { who, ttl }),
        2 => time().prop_map(|time| Action::Pass { time }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nobody_who_could_hold_stays_asleep(
        actions in proptest::collection::vec(action(), 1..40)
    ) {
        let mut world = World::new();
        for (number, action) in actions.iter().enumerate() {
            world.act(number, action);
            world.lose();
            world.check()?;
        }
    }

    /// What rings is lost with a process that dies, and costs at most the time of one look.
    #[test]
    fn a_lost_ring_costs_one_look(
        actions in proptest::collection::vec(action(), 1..20),
        who in 0..64usize,
    ) {
        let mut world = World::new();
        for (number, action) in actions.iter().enumerate() {
            world.act(number, action);
            world.lose();
        }
        if let Some(id) = world.whose(who) {
            world.is_silent = true;
            world.leave(&id, 0);
            world.is_silent = false;
            world.pass(LOOK_US);
            world.check()?;
        }
    }
}
