//! From an exchange to the queues that it means (AMQP 0-9-1, sections 3.1.3 and 3.3.5).

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_api::{Error, ErrorKind, ExchangeKind, Result, Value};

use crate::connect::cell;
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::settings::{invalid, read_headers};
use crate::queue::tx::Tx;
use crate::sql::Sql;

/// Queues that one message may reach.
const FAN_OUT_MAX: usize = 10_000;

pub(crate) fn kind_number(kind: ExchangeKind) -> u8 {
    match kind {
        ExchangeKind::Direct => 0,
        ExchangeKind::Fanout => 1,
        ExchangeKind::Topic => 2,
        ExchangeKind::Headers => 3,
    }
}

pub(crate) fn kind(number: u8) -> ExchangeKind {
    match number {
        0 => ExchangeKind::Direct,
        1 => ExchangeKind::Fanout,
        2 => ExchangeKind::Topic,
        _ => ExchangeKind::Headers,
    }
}

pub(crate) fn no_exchange(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no exchange {name}; declare it first"))
}

/// Whether a topic pattern matches a routing key: words between dots, `*` is one, `#` any number.
/// `matched[n]` says whether the pattern so far matches the first `n` words, so the work is the
/// product of the two lengths at most.
pub(crate) fn topic_matches(pattern: &str, key: &str) -> bool {
    let words: Vec<&str> = if key.is_empty() { Vec::new() } else { key.split('.').collect() };
    let parts: Vec<&str> =
        if pattern.is_empty() { Vec::new() } else { pattern.split('.').collect() };
    let mut matched = vec![false; words.len() + 1];
    matched[0] = true;
    for part in parts {
        let mut next = vec![false; words.len() + 1];
        match part {
            "#" => {
                let mut any = false;
                for (place, was) in matched.iter().enumerate() {
                    any |= was;
                    next[place] = any;
                }
            }
            part => {
                for (place, word) in words.iter().enumerate() {
                    next[place + 1] = matched[place] && (part == "*" || part == *word);
                }
            }
        }
        matched = next;
    }
    matched[words.len()]
}

fn headers_match(arguments: &[(String, Value)], all: bool, headers: &[(String, Value)]) -> bool {
    let mut has = arguments.iter().map(|argument| headers.contains(argument));
    if all { has.all(|has| has) } else { has.any(|has| has) }
}

impl Queues {
    /// The queues that a message published to an exchange reaches. Exchanges that lead to each
    /// other are visited once.
    pub async fn route(
        &self,
        tx: &mut Tx<'_>,
        exchange: &str,
        key: &str,
        headers: &[(String, Value)],
        from_outside: bool,
    ) -> std::result::Result<Result<BTreeSet<Arc<str>>>, Fault> {
        let (mut names, mut visited) = (BTreeSet::new(), BTreeSet::new());
        let sql = tx.sql("SELECT id,internal FROM {}exchanges WHERE name=");
        let named = Sql::new("e.name=").bytes(exchange.as_bytes());
        let sql = sql.bytes(exchange.as_bytes()).add(";").and(leads(tx, named, key));
        let mut answers = tx.ask(sql).await?;
        let Some(mut first) = answers.rows()?.into_iter().next() else {
            return Ok(Err(no_exchange(exchange)));
        };
        if from_outside && cell::<u8>(&mut first, 1)? == 1 {
            let wrong = format!("exchange {exchange} is internal; publish to another");
            return Ok(Err(invalid(wrong)));
        }
        visited.insert(cell::<u64>(&mut first, 0)?);
        loop {
            let mut open = BTreeSet::new();
            for mut row in answers.rows()? {
                let routing = cell::<Vec<u8>>(&mut row, 1)?;
                let takes = match kind(cell(&mut row, 0)?) {
                    ExchangeKind::Direct | ExchangeKind::Fanout => true,
                    ExchangeKind::Topic => topic_matches(&String::from_utf8_lossy(&routing), key),
                    ExchangeKind::Headers => {
                        let arguments = read_headers(&cell::<Vec<u8>>(&mut row, 2)?)?;
                        headers_match(&arguments, cell::<u8>(&mut row, 3)? == 1, headers)
                    }
                };
                if !takes {
                    continue;
                }
                if let Some(name) = cell::<Option<Vec<u8>>>(&mut row, 4)? {
                    names.insert(String::from_utf8_lossy(&name).as_ref().into());
                }
                open.extend(cell::<Option<u64>>(&mut row, 5)?);
            }
            if names.len() > FAN_OUT_MAX {
                let wrong = format!("the message reaches more than {FAN_OUT_MAX} queues");
                return Ok(Err(invalid(wrong)));
            }
            open.retain(|id| visited.insert(*id));
            if open.is_empty() {
                return Ok(Ok(names));
            }
            let which = Sql::new("e.id IN ").numbers(open);
            answers = tx.ask(leads(tx, which, key)).await?;
        }
    }
}

/// Where some exchanges lead; the routing keys of direct ones are compared by the server.
fn leads(tx: &Tx<'_>, which: Sql, key: &str) -> Sql {
    tx.sql(
        "SELECT e.kind,b.routing,b.arguments,b.match_all,q.name,b.to_exchange \
            FROM {}exchanges e JOIN {}bindings b ON b.exchange=e.id \
            LEFT JOIN {}queues q ON q.id=b.to_queue WHERE ",
    )
    .and(which)
    .add(" AND (e.kind<>0 OR b.routing=")
    .bytes(key.as_bytes())
    .add(")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_patterns_match_as_the_protocol_says() {
        let cases = [
            ("usd.*", "usd.stock", true),
            ("usd.*", "usd", false),
            ("#", "", true),
            ("#", "a.b.c", true),
            ("*", "", false),
            ("", "", true),
            ("a.#.z", "a.z", true),
            ("a.#.z", "a.b.c.z", true),
            ("a.#.z", "a.b.c", false),
            ("#.b.*", "a.b.b.c", true),
            ("a.#", "a", true),
            ("*.*", "a", false),
            ("#.#.#", "x", true),
            ("a.*.b", "a..b", true),
        ];
        for (pattern, key, expected) in cases {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} on {key}");
        }
    }
}
