//! One sale from its opening to its books: who starts what, who is killed when, when it is over.
//!
//! Misfortune strikes by progress, not by the clock: the n-th kill comes when so many orders have
//! been decided. The same seed therefore means the same misfortunes on a slow machine, and a small
//! run has them all.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::DemoOptions;
use super::accounts::{self, Accounts, Word};
use super::books::{self, Book, Expected};
use super::desk::QUEUES;
use super::figures::{Figures, LockTraffic};
use super::ledger::{self, Fact, Ledger, SHOP, Step, Tail, Why, now_us};
use super::night::{self, NIGHT, REPORTED};
use super::plan::{Dice, Plan};
use super::processes::{Crew, Server};
use super::shop::Shop;
use super::show::{Progress, Screen};
use super::stock::LOCK_TTL;

/// Nights of a sale.
const NIGHTS: u32 = 3;
/// How often the ledgers are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker sleeps: long enough for its locks to be somebody else's.
const SLEEP: Duration = LOCK_TTL.saturating_add(Duration::from_millis(700));
/// The share of the sale, in thousandths, between whose ends the kills lie.
const KILLS_FROM: u64 = 40;
const KILLS_TO: u64 = 930;

/// What is to go wrong, the next first: after so many decided orders.
#[derive(Debug)]
struct Misfortunes {
    kills: VecDeque<u32>,
    restart: Option<u32>,
    nights: VecDeque<u32>,
    /// Workers that are to fall asleep, one at a time; the small sale may end before the last.
    freezes: u32,
    dice: Dice,
}

impl Misfortunes {
    fn new(options: &DemoOptions) -> Self {
        let mut dice = Dice::new(options.seed, u64::MAX);
        let at = |thousandths: u64| (u64::from(options.orders) * thousandths / 1000) as u32;
        let mut draw = |_| at(KILLS_FROM + dice.below(KILLS_TO - KILLS_FROM));
        let mut kills: Vec<u32> = (0..options.kills).map(&mut draw).collect();
        kills.sort_unstable();
        Self {
            kills: kills.into(),
            restart: Some(at(500)),
            nights: (1..=u64::from(NIGHTS)).map(|n| at(n * 1000 / u64::from(NIGHTS + 1))).collect(),
            freezes: 1 + options.kills / 10,
            dice,
        }
    }
}

/// How a sale ended.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub balanced: bool,
    pub orders: u32,
    pub articles: u32,
    pub seed: u64,
    pub workers: u32,
    pub books: Vec<Book>,
    /// What went wrong besides the books.
    pub failures: Vec<String>,
    /// The line that was falsified on purpose. The books have to find it by themselves.
    pub tampered: Option<String>,
    pub figures: Figures,
    pub dir: PathBuf,
}

/// A sale that runs.
pub struct Sale {
    options: DemoOptions,
    dir: PathBuf,
    shop: Arc<Shop>,
    server: Server,
    crew: Crew,
    misfortunes: Misfortunes,
    screen: Screen,
    progress: Progress,
    tail: Tail,
    /// Workers that sleep, and since when.
    asleep: BTreeMap<u32, Instant>,
    /// Workers that are to fall asleep, and the intents over which they did. Nobody kills them
    /// before they were told what became of that.
    doomed: BTreeMap<u32, Option<u32>>,
    frozen: u32,
    locks: LockTraffic,
    failures: Vec<String>,
}

impl Sale {
    /// Starts the server, opens the shop and hires the workers.
    pub async fn open(options: DemoOptions, json: bool, dir: &Path) -> Result<Self> {
        let ledgers = dir.join("ledgers");
        std::fs::create_dir_all(&ledgers).with_context(|| format!("make {}", dir.display()))?;
        let mut screen = Screen::new(json);
        let ledger = Ledger::open(&ledgers, SHOP)
            .with_context(|| format!("{} has a sale in it already", dir.display()))?;
        let server = Server::start(dir).await?;
        screen.say(&format!("server at {}, everything in {}", server.url(), dir.display()));
        let at = leasehold::connect(&server.url()).await?.with_label("demo shop");
        let plan = Plan::new(options.seed, options.orders, options.articles);
        let shop = Arc::new(Shop { at, ledger, plan });
        shop.open().await?;
        let misfortunes = Misfortunes::new(&options);
        let mut sale = Self {
            dir: dir.to_owned(),
            crew: Crew::new(dir, server.url()),
            server,
            shop,
            misfortunes,
            screen,
            progress: Progress { orders: options.orders, ..Progress::default() },
            tail: Tail::default(),
            asleep: BTreeMap::new(),
            doomed: BTreeMap::new(),
            frozen: 0,
            locks: LockTraffic::default(),
            failures: Vec::new(),
            options,
        };
        for _ in 0..sale.options.workers.max(1) {
            sale.hire()?;
        }
        Ok(sale)
    }

    /// Runs the sale and balances its books.
    pub async fn run(mut self) -> Result<Outcome> {
        let (room, rooms) = watch::channel(0);
        let mut orders = Some(tokio::spawn(self.shop.clone().take_orders(rooms)));
        let mut service = Some(tokio::spawn(self.shop.clone().answer_for_the_dead()));
        let limit = Duration::from_secs(self.options.seconds_limit);
        let began = Instant::now();
        let mut quiet = 0;
        // Twice in a row, because a message between two queues' answers is in neither.
        while quiet < 2 {
            tokio::time::sleep(TICK).await;
            self.look(&room).await?;
            self.strike().await?;
            self.screen.draw(&self.progress);
            if has_ended(&mut service).await? {
                bail!("nobody answers for the dead letters");
            }
            let placed = has_ended(&mut orders).await?;
            quiet = if placed && self.is_quiet() { quiet + 1 } else { 0 };
            if began.elapsed() > limit {
                self.failures.push(format!("not done within {} s", limit.as_secs()));
                break;
            }
        }
        let word = accounts::ask(&self.shop.at, self.options.articles).await?;
        self.locks.add(&self.server.totals().await.unwrap_or_default());
        [orders, service].iter().flatten().for_each(JoinHandle::abort);
        self.crew.dismiss().await?;
        self.shop.at.close().await.ok();
        self.server.stop().await?;
        let expected =
            Expected { nights: NIGHTS, sleepers: true, kills: self.options.kills, restarts: 1 };
        self.screen.say("the sale is over; balancing the books");
        let failures = self.failures;
        audit(&self.options, &self.dir, &self.shop.plan, expected, &word, self.locks, failures)
    }

    /// Hires a worker; some of them are to fall asleep.
    fn hire(&mut self) -> Result<()> {
        let sleepers = self.frozen as usize + self.doomed.len();
        let falls_asleep = sleepers < self.misfortunes.freezes as usize && self.doomed.is_empty();
        // Soon, so that a small sale has it too; not at once, so that others compete by then.
        let freeze_in = match falls_asleep {
            true => 2 + self.misfortunes.dice.below(8) as u32,
            false => 0,
        };
        let number = self.crew.hire(freeze_in)?;
        if falls_asleep {
            self.doomed.insert(number, None);
        }
        Ok(())
    }

    /// Reads what is new in the ledgers and asks for the queues.
    async fn look(&mut self, room: &watch::Sender<u32>) -> Result<()> {
        let ledgers = self.dir.join("ledgers");
        let (progress, doomed, frozen) = (&mut self.progress, &mut self.doomed, &mut self.frozen);
        let mut slept = Vec::new();
        self.tail.poll(&ledgers, |worker, fact| {
            match fact {
                Fact::Frozen { n, .. } => {
                    doomed.insert(worker, Some(n));
                    slept.push(worker);
                }
                Fact::Done { n, .. } | Fact::Void { n, .. } | Fact::Unknown { n, .. }
                    if doomed.get(&worker) == Some(&Some(n)) =>
                {
                    doomed.remove(&worker);
                    *frozen += 1;
                }
                _ => {}
            }
            count(progress, fact);
        })?;
        for worker in slept {
            self.screen.say(&format!("worker {worker} sleeps with a lock in its hand"));
            self.asleep.insert(worker, Instant::now());
        }
        let mut open = 0;
        for (name, depth) in QUEUES.iter().zip(&mut self.progress.depths) {
            // While the server is away, what was known stays on show.
            if let Ok(queue) = self.shop.at.queue(*name).inspect().await {
                *depth = queue.ready + queue.in_flight + queue.delayed + queue.parked;
            }
            open += *depth;
        }
        let open = u32::try_from(open).unwrap_or(u32::MAX);
        // A small sale in one gulp would be over before anything could go wrong.
        let most = self.options.backlog.min(self.options.orders / 8);
        room.send(most.saturating_sub(open)).ok();
        self.progress.workers = self.crew.numbers().count();
        self.progress.frozen = self.asleep.len();
        Ok(())
    }

    /// Whether nothing is left to do.
    fn is_quiet(&self) -> bool {
        let m = &self.misfortunes;
        self.progress.depths == [0; 5]
            && m.kills.is_empty()
            && m.restart.is_none()
            && m.nights.is_empty()
            && self.progress.nights >= NIGHTS
            && self.asleep.is_empty()
            && self.doomed.values().all(Option::is_none)
    }

    /// Lets happen what is due.
    async fn strike(&mut self) -> Result<()> {
        for worker in self.crew.deserters()? {
            self.failures.push(format!("worker {worker} ended by itself; see workers.log"));
            self.hire()?;
        }
        self.wake()?;
        // When all is sold, what is still to come must not be waited for in vain: the display
        // counts answers, and those of the killed are missing.
        let over = self.progress.placed >= self.options.orders && self.progress.depths == [0; 5];
        let decided = if over { u32::MAX } else { self.progress.handled() };
        self.let_night_fall(decided).await?;
        if self.misfortunes.restart.take_if(|at| *at <= decided).is_some() {
            self.restart_server().await?;
        }
        if self.misfortunes.kills.pop_front_if(|at| *at <= decided).is_some() {
            self.kill_worker().await?;
        }
        Ok(())
    }

    /// Lets the next night fall when it is due and the one before has its report.
    async fn let_night_fall(&mut self, decided: u32) -> Result<()> {
        let m = &mut self.misfortunes;
        if m.nights.front().is_none_or(|at| *at > decided) {
            return Ok(());
        }
        let reported = night::number(&self.shop.at.register(REPORTED)).await?.0;
        let tonight = NIGHTS + 1 - m.nights.len() as u32;
        if reported + 1 == tonight {
            m.nights.pop_front();
            self.shop.at.register(NIGHT).write(tonight.to_string()).await?;
            self.screen.say(&format!("night {tonight} falls"));
        }
        Ok(())
    }

    /// Wakes who has slept long enough.
    fn wake(&mut self) -> Result<()> {
        let slept: Vec<u32> = self
            .asleep
            .iter()
            .filter(|(_, since)| since.elapsed() >= SLEEP)
            .map(|(worker, _)| *worker)
            .collect();
        for worker in slept {
            self.asleep.remove(&worker);
            self.crew.wake(worker)?;
            self.screen.say(&format!("worker {worker} wakes and goes on where it was"));
        }
        Ok(())
    }

    async fn kill_worker(&mut self) -> Result<()> {
        let doomed = &self.doomed;
        let alive: Vec<u32> = self.crew.numbers().filter(|n| !doomed.contains_key(n)).collect();
        let Some(victim) =
            alive.get(self.misfortunes.dice.below(alive.len().max(1) as u64) as usize)
        else {
            // All are to be asleep first; the kill waits.
            self.misfortunes.kills.push_front(0);
            return Ok(());
        };
        self.crew.kill(*victim).await?;
        self.shop.ledger.enter(&Fact::Killed { at: now_us(), worker: *victim })?;
        self.hire()
    }

    async fn restart_server(&mut self) -> Result<()> {
        self.locks.add(&self.server.totals().await.unwrap_or_default());
        let away = self.server.kill_and_restart().await?;
        let us = away.as_micros() as u64;
        self.shop.ledger.enter(&Fact::Restarted { at: now_us(), us })?;
        self.screen.say(&format!("server killed; ready again after {away:.0?}"));
        self.progress.restarts.push(away);
        Ok(())
    }
}

/// Counts one line for the display.
fn count(progress: &mut Progress, fact: Fact) {
    match fact {
        Fact::Placed { orders, .. } => progress.placed += orders.len() as u32,
        Fact::Buried { .. } => progress.dead += 1,
        Fact::Killed { .. } => progress.killed += 1,
        Fact::Reported { night, .. } => progress.nights = progress.nights.max(night),
        Fact::Void { why: Why::Stale, .. } => progress.stale += 1,
        Fact::Void { why: Why::Conflict, .. } => progress.conflicts += 1,
        Fact::Done { step, did: [first, second], waited_us, .. } => {
            if let Some(us) = waited_us {
                progress.waited_us.0 += u64::from(us);
                progress.waited_us.1 += 1;
            }
            match step {
                Step::Stock => {
                    progress.sold += first;
                    progress.refused += second;
                }
                Step::Pay => progress.paid += first,
                Step::Ship => progress.shipped += first,
                Step::Remind => {}
            }
        }
        _ => {}
    }
}

/// Whether a task has ended; passes on its failure.
async fn has_ended(task: &mut Option<JoinHandle<Result<()>>>) -> Result<bool> {
    if let Some(ended) = task.take_if(|task| task.is_finished()) {
        ended.await??;
    }
    Ok(task.is_none())
}

/// Balances the books of a sale from what is in its directory.
fn audit(
    options: &DemoOptions,
    dir: &Path,
    plan: &Plan,
    expected: Expected,
    word: &Word,
    locks: LockTraffic,
    failures: Vec<String>,
) -> Result<Outcome> {
    let ledgers = dir.join("ledgers");
    let tampered = options.tamper.then(|| ledger::tamper(&ledgers)).transpose()?;
    let accounts = Accounts::read(&ledgers, word)?;
    let books = books::balance(plan, expected, &accounts, word);
    let balanced = failures.is_empty() && books.iter().all(|book| book.balances);
    Ok(Outcome {
        balanced,
        orders: options.orders,
        articles: options.articles,
        seed: options.seed,
        workers: options.workers,
        books,
        failures,
        tampered,
        figures: Figures::of(&accounts, locks)?,
        dir: dir.to_owned(),
    })
}
