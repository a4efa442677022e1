//! Publishing: route, lock the queues, look for what was there before, put in.
//!
//! Two round trips to queues, one more for each step through exchanges. A request is remembered
//! with its answer in the same transaction, so a batch whose answer was lost is sent again and
//! counts once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use leasehold_api::engine::Publish;
use leasehold_api::{Error, ErrorKind, Overflow, Published, Result, Target};

use crate::connect::cell;
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::settings::{Head, PRIORITY_MAX, check_publish, due, us};
use crate::queue::tx::{Known, LockFault, Tx, no_queue};
use crate::sql::{Sql, hash};

/// How long a request is remembered, microseconds.
const REMEMBERED: u64 = 120_000_000;

type Names = BTreeSet<Arc<str>>;

/// What the state says about a batch before it is put in.
struct Looked {
    /// Answers of requests that were carried out before.
    answered: HashMap<u128, Published>,
    /// Message ids that a queue remembers.
    remembered: BTreeSet<(u64, [u8; 16])>,
}

/// What a batch puts in, as rows; many go with one statement.
#[derive(Default)]
struct Rows {
    messages: Vec<Sql>,
    /// Message ids that a queue takes, and for how long, microseconds.
    ids: BTreeMap<(u64, [u8; 16]), u64>,
}

pub(crate) fn fingerprint(text: &str) -> [u8; 16] {
    hash(&[text.as_bytes()])
}

impl Queues {
    /// Publishes within a transaction; the answers are in order. With `whole` the first refusal
    /// refuses all.
    pub async fn publish_in(
        &self,
        tx: &mut Tx<'_>,
        publishes: &[Publish],
        whole: bool,
    ) -> std::result::Result<Vec<Result<Published>>, Fault> {
        let mut targets = Vec::with_capacity(publishes.len());
        for publish in publishes {
            let target = match check_publish(publish) {
                Ok(()) => self.target(tx, publish).await?,
                Err(error) => Err(error),
            };
            targets.push(target);
        }
        let names: Names = targets.iter().flatten().flatten().cloned().collect();
        self.lock(tx, &names).await?;
        let looked = look(tx, publishes, &targets).await?;
        let mut answers = Vec::with_capacity(publishes.len());
        let mut taken = looked.remembered;
        let (mut rows, mut trim) = (Rows::default(), Names::new());
        for (publish, target) in publishes.iter().zip(targets) {
            let known = publish.request.and_then(|request| looked.answered.get(&request.0));
            let answer = match (known, target) {
                (Some(known), _) => Ok(*known),
                (None, Err(error)) => Err(error),
                (None, Ok(names)) => {
                    let answer = put_in(tx, publish, &names, &mut taken, &mut rows);
                    if answer.is_ok() {
                        trim.extend(names.into_iter().filter(|name| drops(tx, name)));
                    }
                    answer
                }
            };
            if whole && let Err(error) = answer {
                return Err(error.into());
            }
            answers.push(answer);
        }
        rows.put(tx).await?;
        remember(tx, publishes, &answers, &looked.answered).await?;
        self.trim(tx, trim).await?;
        Ok(answers)
    }

    /// Locks queues by name, those with bounds for this transaction alone.
    pub async fn lock(&self, tx: &mut Tx<'_>, names: &Names) -> std::result::Result<(), Fault> {
        let bounded = |name: &str| self.bounded().contains(name);
        match tx.lock_queues(names, bounded).await {
            Ok(()) => Ok(()),
            Err(LockFault::Fault(fault)) => Err(fault),
            Err(LockFault::Bounded(name)) => {
                self.bounded().insert(name);
                let wrong = "the queue has bounds, which was not known yet";
                Err(Fault::Again(Error::new(ErrorKind::Unavailable, wrong)))
            }
        }
    }

    /// The names of the queues that a publish goes to.
    async fn target(
        &self,
        tx: &mut Tx<'_>,
        publish: &Publish,
    ) -> std::result::Result<Result<Names>, Fault> {
        match &publish.target {
            Target::Queue(name) => Ok(Ok([name.clone()].into())),
            Target::Exchange(exchange, key) => {
                self.route(tx, exchange, key, &publish.message.headers, true).await
            }
        }
    }
}

/// Puts a message into its queues.
fn put_in(
    tx: &mut Tx<'_>,
    publish: &Publish,
    names: &Names,
    taken: &mut BTreeSet<(u64, [u8; 16])>,
    rows: &mut Rows,
) -> Result<Published> {
    let message = &publish.message;
    let due = due(message.due, tx.now)?;
    let id = message.id.as_deref().map(fingerprint);
    let (mut into, mut duplicates) = (Vec::new(), 0);
    for name in names {
        let Some(queue) = tx.locked(name) else {
            // A binding's queue may have gone just now; one that was named must be there.
            match publish.target {
                Target::Queue(_) => return Err(no_queue(name)),
                Target::Exchange(..) => continue,
            }
        };
        if let (Some(id), Some(_)) = (id, queue.config.dedup)
            && taken.contains(&(queue.id, id))
        {
            duplicates += 1;
            continue;
        }
        if is_full(tx, &queue, message.body.len()) {
            let wrong = format!("queue {name} is full; take messages out first");
            return Err(Error::new(ErrorKind::Full, wrong));
        }
        into.push(queue);
    }
    if into.is_empty() && duplicates == 0 && publish.mandatory {
        let wrong = "no queue takes the message; bind one";
        return Err(Error::new(ErrorKind::Unroutable, wrong));
    }
    for queue in &into {
        if let (Some(id), Some(window)) = (id, queue.config.dedup) {
            taken.insert((queue.id, id));
            rows.ids.insert((queue.id, id), us(window));
        }
    }
    rows.add(tx, publish, &into, due);
    Ok(Published { queues: into.len() as u32, duplicates })
}

/// Whether a locked queue drops its oldest when it is too full.
fn drops(tx: &Tx<'_>, name: &str) -> bool {
    tx.locked(name).is_some_and(|queue| queue.config.overflow == Overflow::DropOldest)
}

/// Whether a queue that refuses is full.
pub(crate) fn is_full(tx: &Tx<'_>, queue: &Known, bytes: usize) -> bool {
    let config = &queue.config;
    if config.overflow != Overflow::Reject {
        return false;
    }
    let fill = tx.fill(queue.id);
    let over = |is: i64, max: Option<u64>| max.is_some_and(|max| is > max.cast_signed());
    over(fill.messages + 1, config.messages_max)
        || over(fill.bytes + bytes as i64, config.bytes_max)
}

async fn look(
    tx: &mut Tx<'_>,
    publishes: &[Publish],
    targets: &[Result<Names>],
) -> std::result::Result<Looked, Fault> {
    // At the first try nobody has carried it out, most likely; if somebody has, remembering its
    // answer is an error, and the second try looks.
    let again = tx.is_again();
    let requests = publishes.iter().filter(|_| again).filter_map(|p| Some(p.request?.0));
    let requests: Vec<u128> = requests.collect();
    let mut ids: BTreeSet<(u64, [u8; 16])> = BTreeSet::new();
    for (publish, names) in publishes.iter().zip(targets) {
        let (Some(id), Ok(names)) = (&publish.message.id, names) else { continue };
        let queues = names.iter().filter_map(|name| tx.locked(name));
        let remembering = queues.filter(|queue| queue.config.dedup.is_some());
        ids.extend(remembering.map(|queue| (queue.id, fingerprint(id))));
    }
    let mut looked = Looked { answered: HashMap::new(), remembered: BTreeSet::new() };
    if requests.is_empty() && ids.is_empty() {
        return Ok(looked);
    }
    let mut sql = Sql::default();
    if !requests.is_empty() {
        sql = sql.and(tx.sql("SELECT id,answer FROM {}requests WHERE id IN "));
        sql = sql.list(&requests, |sql, id| sql.bytes(&id.to_be_bytes())).add(";");
    }
    if !ids.is_empty() {
        sql = sql.and(tx.sql("SELECT queue,id FROM {}ids WHERE until>@n AND ("));
        sql = sql.joined(&ids, " OR ", |sql, (queue, id)| {
            sql.add("(queue=").number(*queue).add(" AND id=").bytes(id).add(")")
        });
        sql = sql.add(");");
    }
    let mut answers = tx.ask(sql).await?;
    if !requests.is_empty() {
        for mut row in answers.rows()? {
            let id = id_of(&cell::<Vec<u8>>(&mut row, 0)?);
            if let Some(answer) = read_answer(&cell::<Vec<u8>>(&mut row, 1)?) {
                looked.answered.insert(u128::from_be_bytes(id), answer);
            }
        }
    }
    if !ids.is_empty() {
        for mut row in answers.rows()? {
            let queue = cell(&mut row, 0)?;
            looked.remembered.insert((queue, id_of(&cell::<Vec<u8>>(&mut row, 1)?)));
        }
    }
    Ok(looked)
}

fn id_of(bytes: &[u8]) -> [u8; 16] {
    bytes.try_into().unwrap_or_default()
}

/// A publish's answer as it is remembered.
fn read_answer(bytes: &[u8]) -> Option<Published> {
    let (queues, duplicates) = serde_json::from_slice(bytes).ok()?;
    Some(Published { queues, duplicates })
}

async fn remember(
    tx: &mut Tx<'_>,
    publishes: &[Publish],
    answers: &[Result<Published>],
    before: &HashMap<u128, Published>,
) -> std::result::Result<(), Fault> {
    let done = publishes.iter().zip(answers);
    let done = done.filter_map(|(one, answer)| Some((one.request?.0, *answer.as_ref().ok()?)));
    let done: BTreeMap<u128, Published> = done.filter(|(id, _)| !before.contains_key(id)).collect();
    let rows = done.into_iter().map(|(id, answer)| {
        let answer = serde_json::to_vec(&(answer.queues, answer.duplicates)).expect("numbers");
        let sql = Sql::new("(").bytes(&id.to_be_bytes()).add(",@n+").number(REMEMBERED);
        sql.add(",").bytes(&answer).add(")")
    });
    // If an earlier try of one got through meanwhile that is an error, and the transaction begins
    // anew.
    tx.put_rows("INSERT INTO {}requests (id,until,answer) VALUES ", rows.collect()).await
}

/// Remembers the version that a commit wrote, which is in `@v`.
pub(crate) async fn remember_answer_of_commit(
    tx: &mut Tx<'_>,
    id: u128,
) -> std::result::Result<(), Fault> {
    let sql = tx.sql("INSERT INTO {}requests (id,until,answer) VALUES (");
    let sql = sql.bytes(&id.to_be_bytes()).add(",@n+").number(REMEMBERED);
    tx.put(sql.add(",CAST(@v AS CHAR));")).await
}

/// The value of `turn` of a message that waits: the highest priority first.
pub(crate) fn turn(lane: u8) -> u64 {
    u64::from(PRIORITY_MAX - lane.min(PRIORITY_MAX))
}

impl Rows {
    /// Adds a message as a row of each queue that it comes into.
    fn add(&mut self, tx: &mut Tx<'_>, publish: &Publish, into: &[Known], due: Option<u64>) {
        let message = &publish.message;
        let head = Head::of(publish).write();
        let keyed = message.key.as_deref().map(fingerprint);
        for queue in into {
            let lane = message.priority.min(queue.config.priority_max);
            let ttl = [message.ttl, queue.config.ttl].into_iter().flatten().min();
            let dies = ttl.map(|ttl| due.unwrap_or(tx.now).saturating_add(us(ttl)));
            let sql = Sql::new("(").number(queue.id);
            let sql = sql.add(if due.is_none() { ",1," } else { ",0," });
            let sql = sql.number(due.unwrap_or_else(|| turn(lane))).add(",").number(lane);
            let sql = sql.add(",0,0,0,0,").bytes_or_null(keyed.as_ref().map(|key| &key[..]));
            let sql = sql.add(",").number_or_null(dies).add(",");
            let sql = sql.number(message.body.len() as u64).add(",@n,");
            self.messages.push(sql.bytes(&head).add(",").bytes(&message.body).add(")"));
            let bytes = message.body.len() as i64;
            let sums = tx.sums(queue.id);
            sums.totals.published += 1;
            (sums.messages, sums.bytes) = (sums.messages + 1, sums.bytes + bytes);
            tx.woken.insert(queue.id);
        }
    }

    /// Puts them in, the messages in the order in which they were added.
    async fn put(self, tx: &mut Tx<'_>) -> std::result::Result<(), Fault> {
        let Self { messages, ids } = self;
        if !ids.is_empty() {
            let sql = tx.sql("DELETE FROM {}ids WHERE until<=@n AND (");
            let sql = sql.joined(ids.keys(), " OR ", |sql, (queue, id)| {
                sql.add("(queue=").number(*queue).add(" AND id=").bytes(id).add(")")
            });
            tx.put(sql.add(");")).await?;
        }
        let row = |((queue, id), window): ((u64, [u8; 16]), u64)| {
            let sql = Sql::new("(").number(queue).add(",").bytes(&id).add(",@n+");
            sql.number(window).add(")")
        };
        // A duplicate that came in between is an error, and the transaction begins anew.
        let ids = ids.into_iter().map(row).collect();
        tx.put_rows("INSERT INTO {}ids (queue,id,until) VALUES ", ids).await?;
        let into = "INSERT INTO {}messages (queue,ready,turn,lane,held,token,session,attempts,\
                    keyed,dies,bytes,published,head,body) VALUES ";
        tx.put_rows(into, messages).await
    }
}
