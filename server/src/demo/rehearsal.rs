//! The sale within one process, on an embedded engine, with workers that are dropped instead of
//! killed: quick enough for every test run, and without ports.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::accounts::{self, Accounts, Word};
use super::books::{self, Expected};
use super::desk::{Desk, QUEUES};
use super::ledger::{Fact, Intent, Ledger, SHOP, Why, tamper};
use super::night::NIGHT;
use super::plan::Plan;
use super::shop::Shop;
use super::worker;

const ORDERS: u32 = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_balances_until_somebody_tampers_with_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = leasehold::memory().await?;
    let ledger = Ledger::open(dir.path(), SHOP)?;
    let shop = Arc::new(Shop { at: at.clone(), ledger, plan: Plan::new(7, ORDERS, 30) });
    shop.open().await?;
    let hire = |number| -> Result<_> {
        let desk = Arc::new(Desk::new(at.clone(), dir.path(), number)?);
        Ok(tokio::spawn(worker::work(desk, 0)))
    };
    let mut crew = vec![hire(1)?, hire(2)?, hire(3)?];
    let service = tokio::spawn(shop.clone().answer_for_the_dead());
    let (_room, rooms) = watch::channel(ORDERS);
    let orders = tokio::spawn(shop.clone().take_orders(rooms));
    at.register(NIGHT).write("1").await?;
    for number in 4..8 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        crew.remove(0).abort();
        crew.push(hire(number)?);
    }
    orders.await??;
    let mut quiet = 0;
    while quiet < 2 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut open = 0;
        for name in QUEUES {
            let queue = at.queue(name).inspect().await?;
            open += queue.ready + queue.in_flight + queue.delayed + queue.parked;
        }
        for worker in &crew {
            assert!(!worker.is_finished(), "a worker ended by itself");
        }
        quiet = if open == 0 { quiet + 1 } else { 0 };
    }
    service.abort();
    crew.iter().for_each(tokio::task::JoinHandle::abort);
    let word = accounts::ask(&at, 30).await?;
    let expected = Expected { nights: 1, sleepers: false, kills: 0, restarts: 0 };
    let balance = || -> Result<_> {
        let accounts = Accounts::read(dir.path(), &word)?;
        Ok(books::balance(&shop.plan, expected, &accounts, &word))
    };
    for book in balance()? {
        assert!(book.balances, "{book:#?}");
    }
    each_book_can_fail(&shop.plan, expected, dir.path(), &word)?;
    let what = tamper(dir.path())?;
    let broken: Vec<_> = balance()?.into_iter().filter(|book| !book.balances).collect();
    assert!(broken.iter().any(|book| book.name == "stock"), "{what}: {broken:#?}");
    Ok(())
}

/// A way to falsify what was written or said.
type Forgery = fn(&mut Accounts, &mut Word);

/// The intents that happened and whose lines are as wanted, in a fixed order.
fn happened(accounts: &Accounts, wanted: fn(&Fact) -> bool) -> Vec<Intent> {
    let found = accounts.happened().filter(|(_, fact)| wanted(fact));
    let mut found: Vec<Intent> = found.map(|(intent, _)| intent).collect();
    found.sort();
    found
}

fn sells(fact: &Fact) -> bool {
    matches!(fact, Fact::Stock { sold, .. } if !sold.is_empty())
}

fn charges(fact: &Fact) -> bool {
    matches!(fact, Fact::Pay { paid, .. } if !paid.is_empty())
}

fn reminds(fact: &Fact) -> bool {
    matches!(fact, Fact::Remind { .. })
}

fn ships(fact: &Fact) -> bool {
    matches!(fact, Fact::Ship { .. })
}

#[rustfmt::skip]
const FORGERIES: &[(&str, Forgery)] = &[
    ("orders", |a, _| { a.confirmed.remove(&17); }),
    ("orders", |a, _| { a.done.remove(&last(a, sells)); a.intents.remove(&last(a, sells)); }),
    ("stock", |a, _| double(a, sells)),
    ("stock", |a, _| { a.opened.entry(3).and_modify(|(left, _)| *left += 1); }),
    ("holders", |a, _| forge_token(a)),
    ("payments", |a, _| double(a, charges)),
    ("payments", |a, _| { a.intents.remove(&last(a, reminds)); }),
    ("shipping", |a, _| { a.intents.remove(&last(a, ships)); }),
    ("shipping", |a, _| double(a, ships)),
    ("dead letters", |a, _| { a.buried.clear(); }),
    ("dead letters", |a, _| { a.buried.insert(5, "deliveries".to_owned()); }),
    ("late hands", |a, _| { a.void.insert(last(a, sells), (Why::Stale, String::new())); }),
    ("late hands", |a, _| a.frozen.push(last(a, sells))),
    ("nights", |a, _| { a.nights.insert(1, vec![1, 2]); }),
    ("nights", |a, _| { a.nights.clear(); a.nights_begun.clear(); }),
    ("server", |_, w| { w.shelves.entry(3).and_modify(|(left, ..)| *left += 1); }),
    ("server", |_, w| { w.manifests.insert(Intent { worker: 9, n: 9 }); }),
    ("server", |_, w| w.queues[0].totals.acked += 1),
    ("server", |_, w| w.queues[2].delayed += 1),
];

fn last(accounts: &Accounts, wanted: fn(&Fact) -> bool) -> Intent {
    *happened(accounts, wanted).last().expect("there is one")
}

/// Lets something happen once more, by another worker.
fn double(accounts: &mut Accounts, wanted: fn(&Fact) -> bool) {
    let intent = last(accounts, wanted);
    let (again, fact) = (Intent { worker: 99, ..intent }, accounts.intents[&intent].clone());
    accounts.intents.insert(again, fact);
    let done = accounts.done.values().next().copied().expect("something was done");
    accounts.done.insert(again, done);
}

/// Gives a late writer of an article the token of an early one.
fn forge_token(accounts: &mut Accounts) {
    let under_lock = happened(accounts, |fact| matches!(fact, Fact::Stock { token: Some(_), .. }));
    let late = under_lock.iter().rev().find(|intent| {
        let Fact::Stock { from, .. } = &accounts.intents[*intent] else { return false };
        from.by != accounts::OPENING
    });
    let late = late.expect("an article was written twice");
    let Some(Fact::Stock { token, .. }) = accounts.intents.get_mut(late) else { return };
    *token = Some(1);
}

fn each_book_can_fail(plan: &Plan, expected: Expected, dir: &Path, word: &Word) -> Result<()> {
    for (index, (name, forge)) in FORGERIES.iter().enumerate() {
        let (mut accounts, mut word) = (Accounts::read(dir, word)?, word.clone());
        forge(&mut accounts, &mut word);
        let books = books::balance(plan, expected, &accounts, &word);
        let book = books.iter().find(|book| book.name == *name).expect("a book of that name");
        assert!(!book.balances, "forgery {index} was not seen by {name}: {book:#?}");
        assert!(!book.wrong.is_empty(), "{book:#?}");
    }
    let more = Expected { kills: 1, sleepers: true, ..expected };
    let books = books::balance(plan, more, &Accounts::read(dir, word)?, word);
    let broken: Vec<_> = books.iter().filter(|book| !book.balances).map(|book| book.name).collect();
    assert_eq!(broken, ["late hands", "misfortunes"]);
    Ok(())
}
