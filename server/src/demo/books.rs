//! The books, one function each. A book that does not balance says what is wrong in one line that
//! names the order, article or intent to look for in the ledgers.
//!
//! All but the last are balanced from the ledgers alone, so a server that lies cannot balance
//! them; the last compares them with what the server says.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::accounts::{Accounts, Effect, OPENING, Standing, Word, step_of};
use super::desk::{ORDERS, ORDERS_DEAD};
use super::ledger::{Fact, Intent, Seen, Step, Why};
use super::plan::{Order, Plan, Poison};

/// Findings that are spelt out; the rest is counted.
const FINDINGS_MAX: usize = 3;

/// One book.
#[derive(Debug, Clone, Serialize)]
pub struct Book {
    pub name: &'static str,
    pub balances: bool,
    /// What it shows when it balances.
    pub shows: String,
    /// What is wrong with it, the first of it spelt out.
    pub wrong: Vec<String>,
}

impl Book {
    fn new(name: &'static str, shows: String, mut wrong: Vec<String>) -> Self {
        let balances = wrong.is_empty();
        wrong.sort();
        if wrong.len() > FINDINGS_MAX {
            let more = wrong.len() - FINDINGS_MAX;
            wrong.truncate(FINDINGS_MAX);
            wrong.push(format!("and {more} more like these"));
        }
        Self { name, balances, shows, wrong }
    }
}

/// What was meant to happen besides the plan's orders.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub nights: u32,
    /// Whether somebody was to sleep through a lock.
    pub sleepers: bool,
    pub kills: u32,
    pub restarts: u32,
}

/// Balances all books.
pub fn balance(plan: &Plan, expected: Expected, accounts: &Accounts, word: &Word) -> Vec<Book> {
    let effects = accounts.effects();
    vec![
        orders(plan, accounts, &effects),
        stock(plan, accounts, &effects),
        holders(accounts),
        payments(plan, &effects),
        shipping(&effects),
        dead_letters(plan, accounts, &effects),
        late_hands(expected, accounts),
        nights(expected, accounts, word),
        misfortunes(expected, accounts),
        server(accounts, &effects, word),
    ]
}

/// Every confirmed order was handled once in effect.
fn orders(plan: &Plan, accounts: &Accounts, effects: &HashMap<u32, Effect>) -> Book {
    let (mut wrong, mut sums) = (Vec::new(), [0_u32; 3]);
    for id in 0..plan.orders {
        let effect = effects.get(&id).copied().unwrap_or_default();
        let ends = [effect.sold, effect.refused, u32::from(accounts.buried.contains_key(&id))];
        if !accounts.confirmed.contains(&id) {
            wrong.push(format!("order {id} was never confirmed"));
        } else if ends.iter().sum::<u32>() != 1 {
            let [sold, refused, dead] = ends;
            wrong.push(format!("order {id}: sold {sold}, refused {refused}, dead {dead} times"));
        }
        sums.iter_mut().zip(ends).for_each(|(sum, end)| *sum += end);
    }
    let unasked = effects.keys().filter(|id| **id >= plan.orders);
    wrong.extend(unasked.map(|id| format!("order {id} was handled, and nobody placed it")));
    let [sold, refused, dead] = sums;
    let all = plan.orders;
    let shows = format!("{all} confirmed = {sold} sold + {refused} refused + {dead} dead");
    Book::new("orders", shows, wrong)
}

/// Writes of one article that happened, by the intent that they followed.
type Chain<'a> = HashMap<Intent, (Intent, &'a Fact)>;

fn chains<'a>(accounts: &'a Accounts, wrong: &mut Vec<String>) -> BTreeMap<u32, Chain<'a>> {
    let mut chains: BTreeMap<u32, Chain> = BTreeMap::new();
    for (intent, fact) in accounts.happened() {
        let Fact::Stock { article, from, .. } = fact else { continue };
        let chain = chains.entry(*article).or_default();
        if let Some((other, _)) = chain.insert(from.by, (intent, fact)) {
            let after = from.by;
            wrong.push(format!("article {article}: {other} and {intent} both wrote after {after}"));
        }
    }
    chains
}

/// Nothing was sold twice: each shelf's writes are one unbroken chain from the opening to the end,
/// never below zero, and what was sold and what is left is what there was.
fn stock(plan: &Plan, accounts: &Accounts, effects: &HashMap<u32, Effect>) -> Book {
    let mut wrong = Vec::new();
    let chains = chains(accounts, &mut wrong);
    let (mut had, mut left_over, mut writes) = (0_u64, 0_u64, 0);
    for article in 0..plan.articles {
        let Some(&(opening, version)) = accounts.opened.get(&article) else {
            wrong.push(format!("article {article} was never laid on the shelf"));
            continue;
        };
        if opening != plan.stock(article) {
            wrong.push(format!("article {article}: {opening} on the shelf, not as planned"));
        }
        let chain = chains.get(&article);
        let mut now = Seen { version, left: opening, by: OPENING };
        let (mut walked, mut fits) = (0, true);
        while let Some((intent, fact)) = chain.and_then(|chain| chain.get(&now.by)) {
            match follow(accounts, now, *intent, fact) {
                Ok(next) => now = next,
                Err(why) => {
                    wrong.push(format!("article {article}: {why}"));
                    fits = false;
                    break;
                }
            }
            walked += 1;
        }
        let all = chain.map_or(0, HashMap::len);
        if fits && walked != all {
            wrong.push(format!("article {article}: {} of {all} writes lost", all - walked));
        }
        had += u64::from(opening);
        left_over += u64::from(now.left);
        writes += walked;
    }
    let sold: u64 = effects.values().map(|effect| u64::from(effect.pieces)).sum();
    if had != sold + left_over {
        wrong.push(format!("all articles: {had} pieces at first, {sold} sold, {left_over} left"));
    }
    let shows = format!("{had} pieces = {sold} sold + {left_over} left; {writes} writes in a row");
    Book::new("stock", shows, wrong)
}

/// What a shelf says after one more write, if that fits to what it said before.
fn follow(accounts: &Accounts, now: Seen, intent: Intent, fact: &Fact) -> Result<Seen, String> {
    let Fact::Stock { from, left, sold, .. } = fact else {
        return Err(format!("{intent} is no write"));
    };
    let known = now.version == 0 || from.version == now.version;
    if from.left != now.left || !known {
        return Err(format!("{intent} found {} left where {} lay", from.left, now.left));
    }
    let taken: u32 = sold.iter().map(|(_, quantity)| quantity).sum();
    if now.left.checked_sub(taken) != Some(*left) {
        return Err(format!("{intent} took {taken} from {} and left {left}", now.left));
    }
    // Of an intent whose answer never came the version is what the next one finds.
    let version = accounts.done.get(&intent).and_then(|done| done.version).unwrap_or(0);
    if version != 0 && version <= from.version {
        return Err(format!("{intent} wrote version {version} after {}", from.version));
    }
    Ok(Seen { version, left: *left, by: intent })
}

/// No two holders overlapped: along each shelf's chain, the locks' tokens rise.
fn holders(accounts: &Accounts) -> Book {
    let mut wrong = Vec::new();
    let chains = chains(accounts, &mut Vec::new());
    let (mut tokens, mut articles) = (0, 0);
    for (article, chain) in chains {
        let (mut by, mut highest) = (OPENING, 0);
        let before = tokens;
        // Bounded by the chain's length, in case a broken one bites its own tail.
        for _ in 0..chain.len() {
            let Some((intent, Fact::Stock { token, .. })) = chain.get(&by) else { break };
            by = *intent;
            let Some(token) = *token else { continue };
            if token <= highest {
                wrong.push(format!("article {article}: {intent} wrote under {token} ≤ {highest}"));
            }
            highest = token;
            tokens += 1;
        }
        articles += u32::from(tokens > before);
    }
    let shows = format!("{tokens} fencing tokens rise along the writes of {articles} articles");
    Book::new("holders", shows, wrong)
}

/// Whoever bought was charged once, the late ones after one reminder.
fn payments(plan: &Plan, effects: &HashMap<u32, Effect>) -> Book {
    let (mut wrong, mut paid, mut reminded) = (Vec::new(), 0, 0);
    for (id, effect) in effects {
        let late = u32::from(plan.order(*id).late) * effect.sold;
        if effect.paid != effect.sold || effect.late != late || effect.reminded != late {
            let Effect { paid, sold, reminded, .. } = effect;
            wrong.push(format!("order {id}: sold {sold}, paid {paid}, reminded {reminded} times"));
        }
        paid += effect.paid;
        reminded += effect.reminded;
    }
    let shows = format!("{paid} charged once each, {reminded} of them after a reminder");
    Book::new("payments", shows, wrong)
}

/// What was sold was shipped, once.
fn shipping(effects: &HashMap<u32, Effect>) -> Book {
    let unequal = effects.iter().filter(|(_, effect)| effect.shipped != effect.sold);
    let wrong = unequal.map(|(id, Effect { sold, shipped, .. })| {
        format!("order {id}: sold {sold} times, shipped {shipped} times")
    });
    let wrong = wrong.collect();
    let sum = |of: fn(&Effect) -> u32| effects.values().map(of).sum::<u32>();
    let shows = format!("{} shipped = {} accepted", sum(|e| e.shipped), sum(|e| e.sold));
    Book::new("shipping", shows, wrong)
}

/// The dead letters are the poison, all of it and nothing else.
fn dead_letters(plan: &Plan, accounts: &Accounts, effects: &HashMap<u32, Effect>) -> Book {
    let mut wrong = Vec::new();
    for id in plan.poison() {
        let Order { poison, .. } = plan.order(id);
        let expected = match poison {
            Some(Poison::Malformed) => "deliveries",
            _ => "rejected",
        };
        match accounts.buried.get(&id).map(String::as_str) {
            None => wrong.push(format!("order {id} is poison and did not die")),
            // One that was to be rejected can use up its deliveries before, by crashes.
            Some("deliveries") => {}
            Some(reason) if reason == expected => {}
            Some(reason) => wrong.push(format!("order {id} died by `{reason}`, not {expected}")),
        }
        if effects.contains_key(&id) {
            wrong.push(format!("order {id} is poison and was handled"));
        }
    }
    let innocent = accounts.buried.keys().filter(|id| plan.order(**id).poison.is_none());
    wrong.extend(innocent.map(|id| format!("order {id} died and was no poison")));
    let (dead, revived) = (accounts.buried.len(), accounts.revived.len());
    let shows = format!("{dead} poison orders died, {revived} good ones were put back");
    Book::new("dead letters", shows, wrong)
}

/// Late hands were refused, and what was refused left no trace.
fn late_hands(expected: Expected, accounts: &Accounts) -> Book {
    let mut wrong = Vec::new();
    for (intent, (why, text)) in &accounts.void {
        if accounts.seen(*intent) || accounts.done.contains_key(intent) {
            wrong.push(format!("{intent} was refused and happened"));
        }
        if *why == Why::Other {
            wrong.push(format!("{intent} was refused for no good reason: {text}"));
        }
    }
    let mut frozen = 0;
    for intent in &accounts.frozen {
        match accounts.standing(*intent) {
            Standing::Void(Why::Stale | Why::Session) => frozen += 1,
            standing => {
                wrong.push(format!("{intent} slept through its lock and is {standing:?}"));
            }
        }
    }
    if expected.sleepers && frozen == 0 {
        wrong.push("nobody slept through a lock, so nothing is shown".to_owned());
    }
    let stale = accounts.count(|standing| standing == Standing::Void(Why::Stale));
    let conflicts = accounts.count(|standing| standing == Standing::Void(Why::Conflict));
    let shows = format!(
        "{stale} stale commits refused, {frozen} of them by sleepers; {conflicts} lost a race"
    );
    Book::new("late hands", shows, wrong)
}

/// Each night was reported once.
fn nights(expected: Expected, accounts: &Accounts, word: &Word) -> Book {
    let mut wrong = Vec::new();
    for night in 1..=expected.nights {
        let reported = accounts.nights.get(&night).map_or(0, Vec::len);
        let begun = accounts.nights_begun.get(&night).map_or(0, Vec::len);
        // A reporter can die between its register and its line: the register says so then.
        let unheard = reported == 0 && begun > 0 && word.night >= night;
        if reported != 1 && !unheard {
            wrong.push(format!("night {night}: reported {reported} times, begun {begun} times"));
        }
    }
    let never = accounts.nights.keys().filter(|night| **night > expected.nights);
    wrong.extend(never.map(|night| format!("night {night} was reported and never was")));
    let begun: usize = accounts.nights_begun.values().map(Vec::len).sum();
    let shows = format!("{} nights reported once each, begun {begun} times", expected.nights);
    Book::new("nights", shows, wrong)
}

/// Everything that was to go wrong went wrong.
fn misfortunes(expected: Expected, accounts: &Accounts) -> Book {
    let (killed, restarts) = (accounts.killed.len(), accounts.restarts_us.len());
    let mut wrong = Vec::new();
    if killed < expected.kills as usize || restarts < expected.restarts as usize {
        wrong.push(format!(
            "{killed} workers killed of {}, {restarts} server restarts of {}",
            expected.kills, expected.restarts
        ));
    }
    let named = accounts.count(|standing| standing == Standing::Named);
    let kept = accounts.count(|standing| standing == Standing::Kept);
    let lost = accounts.count(|standing| standing == Standing::Lost);
    let shows = format!(
        "{killed} workers killed, {restarts} server restarts; of the intents cut short {named} \
         happened by later ledgers, {kept} by a register, {lost} did not"
    );
    Book::new("misfortunes", shows, wrong)
}

/// The server says the same as the ledgers.
fn server(accounts: &Accounts, effects: &HashMap<u32, Effect>, word: &Word) -> Book {
    let mut wrong = Vec::new();
    let mut pieces: HashMap<u32, u64> = HashMap::new();
    let mut parcels = 0;
    for (intent, fact) in accounts.happened() {
        match fact {
            Fact::Stock { article, sold, .. } => {
                let taken: u64 = sold.iter().map(|(_, quantity)| u64::from(*quantity)).sum();
                *pieces.entry(*article).or_default() += taken;
            }
            fact if step_of(fact) == Some(Step::Ship) => {
                parcels += 1;
                if !word.manifests.contains(&intent) {
                    wrong.push(format!("{intent} shipped and has no manifest"));
                }
            }
            _ => {}
        }
    }
    for (article, (opening, _)) in &accounts.opened {
        let taken = pieces.get(article).copied().unwrap_or(0);
        let Some((left, ..)) = word.shelves.get(article) else {
            wrong.push(format!("article {article} has no register"));
            continue;
        };
        if u64::from(*left) + taken != u64::from(*opening) {
            wrong.push(format!("article {article}: {taken} sold of {opening}, {left} left"));
        }
    }
    if word.manifests.len() != parcels {
        let manifests = word.manifests.len();
        wrong.push(format!("{manifests} manifests for {parcels} shipments"));
    }
    for queue in &word.queues {
        let open = queue.ready + queue.in_flight + queue.delayed + queue.parked;
        if open > 0 {
            wrong.push(format!("queue {} still has {open} messages", queue.name));
        }
    }
    wrong.extend(totals(accounts, effects, word));
    let shows = format!(
        "{} registers, {parcels} manifests and the queues' totals say the same",
        word.shelves.len()
    );
    Book::new("server", shows, wrong)
}

/// The server's counts of orders against the ledgers'.
fn totals(accounts: &Accounts, effects: &HashMap<u32, Effect>, word: &Word) -> Vec<String> {
    let of = |name| word.queues.iter().find(|queue| queue.name == name).map(|queue| queue.totals);
    let (Some(orders), Some(dead)) = (of(ORDERS), of(ORDERS_DEAD)) else {
        return vec!["the queues are gone".to_owned()];
    };
    let (buried, revived) = (accounts.buried.len() as u64, accounts.revived.len() as u64);
    let handled: u64 = effects.values().map(|e| u64::from(e.sold + e.refused)).sum();
    let pairs = [
        ("orders published", orders.published, accounts.confirmed.len() as u64 + revived),
        ("orders acknowledged", orders.acked, handled),
        ("orders dead", orders.dead, buried + revived),
        ("dead letters taken", dead.acked, buried + revived),
    ];
    let unequal = pairs.iter().filter(|(_, server, ledgers)| server != ledgers);
    unequal.map(|(what, s, l)| format!("{what}: {s} by the server, {l} by ledgers")).collect()
}
