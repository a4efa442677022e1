//! The truth, put together from what everybody wrote down.
//!
//! A worker that dies between its commit and its next line leaves an open intent. Three kinds of
//! evidence close it, in this order of trust:
//!
//! 1. *Later ledgers.* Every commit leaves its intent's name in what it changes: a shelf says who
//!    wrote it, a slip says who sent it. Whoever comes next writes down the name it found. So an
//!    open intent that is named happened, and one that was refused must never be named.
//! 2. *The register at the end of the line*: the last writer of each shelf, and the manifests of
//!    parcels, have no successor. Only these need the server's word.
//! 3. *Neither*: it never happened, and its orders must stand in somebody else's ledger. If they
//!    do not, the books are broken, so this is a check and no assumption.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::ledger::{Fact, Intent, SHOP, Sent, Step, Why, read_all};
use super::stages::MANIFESTS;

/// What the shop wrote on the shelves in the beginning stands under this name.
pub const OPENING: Intent = Intent { worker: SHOP, n: 0 };

/// What the server says at the end.
#[derive(Debug, Clone, Default)]
pub struct Word {
    /// What is left of each article, who wrote it, and the version.
    pub shelves: BTreeMap<u32, (u32, Intent, u64)>,
    pub manifests: HashSet<Intent>,
    pub queues: Vec<leasehold::engine::QueueView>,
    /// The last night reported.
    pub night: u32,
}

/// How it is known whether an intent happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Its worker heard so.
    Done,
    /// A later ledger names it.
    Named,
    /// A register names it.
    Kept,
    /// Its worker heard that it was refused.
    Void(Why),
    /// Nobody has seen anything of it.
    Lost,
}

impl Standing {
    /// Whether it happened.
    pub fn holds(self) -> bool {
        matches!(self, Self::Done | Self::Named | Self::Kept)
    }
}

/// How a worker heard of its commit.
#[derive(Debug, Clone, Copy)]
pub struct DoneLine {
    pub at: u64,
    pub version: Option<u64>,
    pub us: u32,
    pub waited_us: Option<u32>,
}

/// Everything from all ledgers, sorted by what it is about.
#[derive(Debug, Default)]
pub struct Accounts {
    /// What lay on each shelf in the beginning, and the register's version.
    pub opened: BTreeMap<u32, (u32, u64)>,
    /// When an order was first placed.
    pub placing: HashMap<u32, u64>,
    pub confirmed: HashSet<u32>,
    pub absorbed: u32,
    pub buried: HashMap<u32, String>,
    /// Good orders that were put back, with the tokens of their dead letters.
    pub revived: HashSet<(u32, u64)>,
    pub killed: Vec<u32>,
    /// How long the server was away, in microseconds.
    pub restarts_us: Vec<u64>,
    /// Intents with their lines.
    pub intents: HashMap<Intent, Fact>,
    pub done: HashMap<Intent, DoneLine>,
    pub void: HashMap<Intent, (Why, String)>,
    pub unknown: HashSet<Intent>,
    pub frozen: Vec<Intent>,
    pub missed: u32,
    /// Orders that were returned or rejected as poison.
    pub bad: HashSet<u32>,
    /// Who began and who finished each night's report.
    pub nights_begun: BTreeMap<u32, Vec<u64>>,
    pub nights: BTreeMap<u32, Vec<u64>>,
    /// Intents that later lines name.
    named: HashSet<Intent>,
    /// Intents that registers name.
    kept: HashSet<Intent>,
    /// Messages that came more than once.
    pub again: u64,
}

impl Accounts {
    /// Reads all ledgers of a directory, and of the server's word what closes open intents.
    pub fn read(dir: &Path, word: &Word) -> anyhow::Result<Self> {
        let mut accounts = Self::default();
        read_all(dir, |worker, fact| accounts.enter(worker, fact))?;
        accounts.kept.extend(word.shelves.values().map(|(_, by, _)| *by));
        accounts.kept.extend(&word.manifests);
        Ok(accounts)
    }

    fn enter(&mut self, worker: u32, fact: Fact) {
        let id = |n| Intent { worker, n };
        match fact {
            Fact::Stock { n, .. } | Fact::Pay { n, .. } => self.intend(id(n), fact),
            Fact::Remind { n, .. } | Fact::Ship { n, .. } => self.intend(id(n), fact),
            Fact::Done { n, at, version, us, waited_us, .. } => {
                self.done.insert(id(n), DoneLine { at, version, us, waited_us });
            }
            Fact::Void { n, why, wrong, .. } => {
                self.void.insert(id(n), (why, wrong));
            }
            Fact::Unknown { n, .. } => {
                self.unknown.insert(id(n));
            }
            Fact::Frozen { n, .. } => self.frozen.push(id(n)),
            Fact::Missed { .. } => self.missed += 1,
            Fact::Bad { order, .. } => {
                self.bad.insert(order);
            }
            Fact::Night { night, token, .. } => {
                self.nights_begun.entry(night).or_default().push(token);
            }
            Fact::Reported { night, token, .. } => {
                self.nights.entry(night).or_default().push(token);
            }
            Fact::Opened { article, left, version } => {
                self.opened.insert(article, (left, version));
            }
            Fact::Placing { at, orders } => {
                for order in orders {
                    self.placing.entry(order).or_insert(at);
                }
            }
            Fact::Placed { orders, absorbed, .. } => {
                self.confirmed.extend(orders);
                self.absorbed += absorbed;
            }
            Fact::Buried { order, reason, .. } => {
                self.buried.insert(order, reason);
            }
            Fact::Revived { order, token, .. } => {
                self.revived.insert((order, token));
            }
            Fact::Killed { worker, .. } => self.killed.push(worker),
            Fact::Restarted { us, .. } => self.restarts_us.push(us),
        }
    }

    fn intend(&mut self, intent: Intent, fact: Fact) {
        let by = |sent: &Sent| sent.1;
        match &fact {
            Fact::Stock { from, again, .. } => {
                self.named.insert(from.by);
                self.again += u64::from(*again);
            }
            Fact::Pay { paid, late, declined, again, .. } => {
                self.named.extend(paid.iter().chain(late).chain(declined).map(by));
                self.again += u64::from(*again);
            }
            Fact::Remind { orders, again, .. } | Fact::Ship { orders, again, .. } => {
                self.named.extend(orders.iter().map(by));
                self.again += u64::from(*again);
            }
            _ => {}
        }
        self.intents.insert(intent, fact);
    }

    /// Whether an intent happened, and how that is known.
    pub fn standing(&self, intent: Intent) -> Standing {
        match (self.done.contains_key(&intent), self.void.get(&intent)) {
            (true, _) => Standing::Done,
            (_, Some((why, _))) => Standing::Void(*why),
            _ if self.named.contains(&intent) => Standing::Named,
            _ if self.kept.contains(&intent) => Standing::Kept,
            _ => Standing::Lost,
        }
    }

    /// Whether anything of an intent has been seen.
    pub fn seen(&self, intent: Intent) -> bool {
        self.named.contains(&intent) || self.kept.contains(&intent)
    }

    /// Intents that happened, with their lines.
    pub fn happened(&self) -> impl Iterator<Item = (Intent, &Fact)> {
        let holds = |(intent, _): &(&Intent, &Fact)| self.standing(**intent).holds();
        self.intents.iter().filter(holds).map(|(intent, fact)| (*intent, fact))
    }

    /// How many intents stand like this.
    pub fn count(&self, standing: impl Fn(Standing) -> bool) -> usize {
        self.intents.keys().filter(|intent| standing(self.standing(**intent))).count()
    }

    /// How often each order was taken through each step, in effect.
    pub fn effects(&self) -> HashMap<u32, Effect> {
        let mut effects: HashMap<u32, Effect> = HashMap::new();
        for (_, fact) in self.happened() {
            let mut count = |orders: &[Sent], of: fn(&mut Effect) -> &mut u32| {
                for (order, _) in orders {
                    *of(effects.entry(*order).or_default()) += 1;
                }
            };
            match fact {
                Fact::Pay { paid, late, .. } => {
                    count(paid, |effect| &mut effect.paid);
                    count(late, |effect| &mut effect.late);
                }
                Fact::Remind { orders, .. } => count(orders, |effect| &mut effect.reminded),
                Fact::Ship { orders, .. } => count(orders, |effect| &mut effect.shipped),
                Fact::Stock { sold, refused, .. } => {
                    for (order, quantity) in sold {
                        let effect = effects.entry(*order).or_default();
                        effect.sold += 1;
                        effect.pieces += quantity;
                    }
                    for (order, _) in refused {
                        effects.entry(*order).or_default().refused += 1;
                    }
                }
                _ => {}
            }
        }
        effects
    }
}

/// How often one order was taken through each step, in effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    pub sold: u32,
    pub refused: u32,
    /// Pieces taken off the shelf for it.
    pub pieces: u32,
    pub paid: u32,
    pub late: u32,
    pub reminded: u32,
    pub shipped: u32,
}

/// The step that a line intends.
pub fn step_of(fact: &Fact) -> Option<Step> {
    match fact {
        Fact::Stock { .. } => Some(Step::Stock),
        Fact::Pay { .. } => Some(Step::Pay),
        Fact::Remind { .. } => Some(Step::Remind),
        Fact::Ship { .. } => Some(Step::Ship),
        _ => None,
    }
}

/// Asks the server for its word.
pub async fn ask(at: &leasehold::Leasehold, articles: u32) -> anyhow::Result<Word> {
    use super::{desk, night, stock};
    let mut word = Word::default();
    for article in 0..articles {
        let Some(now) = at.register(stock::shelf_key(article)).read().await? else { continue };
        if let Some((left, by)) = stock::read_shelf(&now.value) {
            word.shelves.insert(article, (left, by, now.version));
        }
    }
    let locks = at.engine().locks.as_ref().ok_or_else(|| anyhow::anyhow!("no locks"))?;
    let mut list = leasehold::engine::List { prefix: MANIFESTS.to_owned(), after: 0, max: 1000 };
    loop {
        let listed = locks.list_registers(&list).await?;
        for register in listed.items {
            let key = String::from_utf8_lossy(&register.key).into_owned();
            let name = key.strip_prefix(MANIFESTS).unwrap_or(&key);
            word.manifests.insert(name.parse().map_err(anyhow::Error::msg)?);
        }
        let Some(next) = listed.next else { break };
        list.after = next;
    }
    for name in desk::QUEUES {
        word.queues.push(at.queue(name).inspect().await?);
    }
    word.night = night::number(&at.register(night::REPORTED)).await?.0;
    Ok(word)
}
