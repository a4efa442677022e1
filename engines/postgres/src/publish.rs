//! Publishing: many messages with one round trip, each with an answer of its own.

use std::time::SystemTime;

use leasehold_api::engine::{Due, Publish, Published, Target};
use leasehold_api::{Error, ErrorKind, Result};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::Inner;
use crate::bells::Bell;
use crate::content::{check, headers, text, time, tokens};
use crate::error::odd;

/// Messages and bytes of one statement.
const TOGETHER: (usize, usize) = (500, 8 << 20);

/// Messages, column by column.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    requests: Vec<Vec<u8>>,
    through: Vec<Option<String>>,
    keys: Vec<String>,
    mandatory: Vec<bool>,
    bodies: Vec<Vec<u8>>,
    levels: Vec<i16>,
    okeys: Vec<Option<Vec<u8>>>,
    ids: Vec<Option<Vec<u8>>>,
    ttls: Vec<Option<i64>>,
    delays: Vec<Option<i64>>,
    dues: Vec<Option<i64>>,
    headers: Vec<Option<Vec<u8>>>,
    token_of: Vec<i32>,
    tokens: Vec<Vec<u8>>,
    bytes: usize,
    all_transient: bool,
}

/// What was asked, for errors.
pub(crate) fn asked(target: &Target) -> String {
    match target {
        Target::Queue(queue) => format!("publish to queue {queue}"),
        Target::Exchange(exchange, key) => {
            format!("publish to exchange {exchange} with key {key:?}")
        }
    }
}

/// When it is due: after a time, and at a time.
fn due(due: Due) -> Result<(Option<i64>, Option<i64>)> {
    Ok(match due {
        Due::Now => (None, None),
        Due::After(delay) if delay.is_zero() => (None, None),
        Due::After(delay) => (Some(time("the delay", delay)?), None),
        Due::At(at) => {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // Whether it is too far away is seen from here; what counts is the server's clock.
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            if !left.is_zero() {
                time("the delay", left.max(std::time::Duration::from_millis(1)))?;
            }
            (None, Some(crate::book::us(since)))
        }
    })
}

impl Columns {
    pub fn new() -> Self {
        Self { all_transient: true, ..Self::default() }
    }

    fn len(&self) -> usize {
        self.bodies.len()
    }

    /// Adds a message.
    ///
    /// # Errors
    /// `Invalid`; nothing is added then.
    pub fn push(&mut self, publish: Publish) -> Result<()> {
        let Publish { target, message, mandatory, request } = publish;
        check(&message)?;
        let (through, key) = match target {
            Target::Queue(queue) => {
                leasehold_contenders::limits::name(&queue)?;
                (None, queue.to_string())
            }
            Target::Exchange(exchange, key) => {
                leasehold_contenders::limits::name(&exchange)?;
                text("the routing key", &key)?;
                (Some(exchange.to_string()), key.to_string())
            }
        };
        let ttl = message.ttl.map(|ttl| time("the message's TTL", ttl)).transpose()?;
        let (delay, at) = due(message.due)?;
        let request = request.map_or_else(crate::request, |request| request.0);
        if through.is_some() {
            let place = self.len() as i32 + 1;
            let all = tokens(&message.headers);
            self.token_of.extend(all.iter().map(|_| place));
            self.tokens.extend(all);
        }
        self.requests.push(request.to_be_bytes().to_vec());
        self.through.push(through);
        self.keys.push(key);
        self.mandatory.push(mandatory);
        self.bytes += message.body.len();
        self.bodies.push(message.body);
        self.levels.push(message.priority.into());
        self.okeys.push(message.key.map(String::into_bytes));
        self.ids.push(message.id.map(String::into_bytes));
        self.ttls.push(ttl);
        self.delays.push(delay);
        self.dues.push(at);
        self.headers.push(headers(&message.headers));
        self.all_transient &= message.transient;
        Ok(())
    }

    /// What wakes who waits for these: the bells of the queues that are named.
    pub fn bells(&self) -> Vec<String> {
        let named = self.keys.iter().zip(&self.through).filter(|(_, through)| through.is_none());
        let mut names: Vec<&str> = named.map(|(queue, _)| queue.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().map(|queue| Bell::named(queue).payload()).collect()
    }

    /// The columns after the requests.
    pub fn arguments(&self) -> [&(dyn ToSql + Sync); 13] {
        [
            &self.through,
            &self.keys,
            &self.mandatory,
            &self.bodies,
            &self.levels,
            &self.okeys,
            &self.ids,
            &self.ttls,
            &self.delays,
            &self.dues,
            &self.headers,
            &self.token_of,
            &self.tokens,
        ]
    }
}

/// What became of one message.
fn answer(row: &Row) -> Result<Published> {
    let read = || {
        let refusal: Option<String> = row.try_get(2)?;
        let wrong: Option<String> = row.try_get(3)?;
        let count = |at| row.try_get::<_, i32>(at).map(|count| count.max(0).cast_unsigned());
        Ok((refusal, wrong, Published { queues: count(0)?, duplicates: count(1)? }))
    };
    match read().map_err(|error| odd(&error))? {
        (None, _, published) => Ok(published),
        (Some(kind), wrong, _) => {
            let kind = ErrorKind::named(&kind).unwrap_or(ErrorKind::Broken);
            Err(Error::new(kind, wrong.unwrap_or_default()))
        }
    }
}

impl Inner {
    /// See [`QueueEngine::publish`](leasehold_api::engine::QueueEngine::publish).
    pub(crate) async fn publish_all(
        &self,
        messages: Vec<Publish>,
    ) -> Result<Vec<Result<Published>>> {
        let mut answers: Vec<Option<Result<Published>>> = Vec::with_capacity(messages.len());
        let mut targets = Vec::with_capacity(messages.len());
        let mut columns = Columns::new();
        for publish in messages {
            let is_full = columns.len() >= TOGETHER.0
                || columns.bytes + publish.message.body.len() > TOGETHER.1;
            if is_full && columns.len() > 0 {
                self.publish_some(std::mem::replace(&mut columns, Columns::new()), &mut answers)
                    .await?;
            }
            targets.push(publish.target.clone());
            answers.push(columns.push(publish).err().map(Err));
        }
        self.publish_some(columns, &mut answers).await?;
        let answers = answers.into_iter().zip(&targets).map(|(answer, target)| {
            let none = || Err(Error::new(ErrorKind::Broken, "there is no answer to it"));
            answer.unwrap_or_else(none).map_err(|error| error.asking(asked(target)))
        });
        Ok(answers.collect())
    }

    /// Publishes what is in the columns, and fills in the answers that are open.
    async fn publish_some(
        &self,
        columns: Columns,
        answers: &mut [Option<Result<Published>>],
    ) -> Result<()> {
        if columns.len() == 0 {
            return Ok(());
        }
        let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&columns.requests];
        arguments.extend(columns.arguments());
        arguments.push(&columns.all_transient);
        let sql = self.server.call("publish", 15);
        let rows = self.server.rows_and_ring(&sql, &arguments, &columns.bells()).await;
        let rows = rows.map_err(|error| error.asking("publish"))?;
        let open = answers.iter_mut().filter(|answer| answer.is_none());
        open.zip(&rows).for_each(|(open, row)| *open = Some(answer(row)));
        Ok(())
    }
}
