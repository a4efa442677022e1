//! Exchanges and bindings: how a publish finds its queues.
//!
//! An exchange keeps its routes by routing key. Direct looks one key up, fanout takes all, topic
//! matches patterns, headers compares arguments. Exchange-to-exchange bindings are followed with a
//! visited list, so a cycle of exchanges is harmless and a queue gets one copy however many ways
//! lead to it (AMQP 0-9-1, sections 3.1.3 and 3.3.5; exchange-to-exchange as in RabbitMQ).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::checkpoint::Mark;
use crate::message::{Headers, Value};
use crate::{Durable, Name};

/// How an exchange chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Bindings whose key equals the routing key.
    Direct,
    /// All bindings.
    Fanout,
    /// Bindings whose pattern matches: `*` is one word, `#` any number of words.
    Topic,
    /// Bindings whose arguments are all, or any, among the message's headers.
    Headers,
}

/// What an exchange is declared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExchangeConfig {
    /// How it chooses.
    pub kind: ExchangeKind,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes when its last binding goes.
    pub auto_delete: bool,
    /// Whether only other exchanges may publish to it.
    pub internal: bool,
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To a queue.
    Queue(Name),
    /// To another exchange.
    Exchange(Name),
}

/// One binding, as asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// From which exchange.
    pub exchange: Name,
    /// To what.
    pub to: Destination,
    /// The routing key or pattern; ignored by fanout and headers.
    pub key: Arc<str>,
    /// What a headers exchange compares.
    pub arguments: Headers,
    /// Whether all arguments must match, or any one.
    pub match_all: bool,
}

/// Where a route leads, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteTo {
    /// A queue's slot.
    Queue(u32),
    /// An exchange's slot.
    Exchange(u32),
}

/// One route of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub to: RouteTo,
    /// What a headers exchange compares.
    pub arguments: Headers,
    /// Whether all arguments must match, or any one.
    pub match_all: bool,
}

/// Routes that share a routing key.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// In the order they were bound.
    pub list: Vec<Route>,
    pub(crate) mark: Mark,
}

/// An exchange in the state.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its name.
    pub name: Name,
    /// Its settings.
    pub config: ExchangeConfig,
    /// Routes by routing key or pattern.
    pub routes: BTreeMap<Arc<str>, Routes>,
    /// How many routes there are.
    pub bindings: usize,
    pub(crate) mark: Mark,
}

/// Whether a topic pattern matches a routing key. Both are words between dots.
///
/// Two cursors with one point to return to: linear in the usual case, at worst the product of
/// the two lengths, and never recursive.
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    if pattern == "#" {
        return true;
    }
    let (mut words, mut patterns) = (Words::new(key), Words::new(pattern));
    let mut retry: Option<(Words<'_>, Words<'_>)> = None;
    loop {
        let (word, part) = (words.clone().next(), patterns.clone().next());
        match (word, part) {
            (_, Some("#")) => {
                patterns.next();
                retry = Some((words.clone(), patterns.clone()));
                continue;
            }
            (Some(w), Some(p)) if p == "*" || p == w => {
                words.next();
                patterns.next();
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        // A mismatch: let the last `#` swallow one word more.
        let Some((from, after)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (words, patterns) = (from.clone(), after.clone());
    }
}

/// The words of a key; an empty key has none.
#[derive(Clone)]
struct Words<'a>(Option<&'a str>);

impl<'a> Words<'a> {
    fn new(text: &'a str) -> Self {
        Self((!text.is_empty()).then_some(text))
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;
    fn next(&mut self) -> Option<&'a str> {
        let text = self.0?;
        match text.split_once('.') {
            Some((word, rest)) => {
                self.0 = Some(rest);
                Some(word)
            }
            None => {
                self.0 = None;
                Some(text)
            }
        }
    }
}

fn headers_match(route: &Route, headers: &Headers) -> bool {
    let has = |(name, value): &(_, Value)| headers.iter().any(|(n, v)| n == name && v == value);
    if route.match_all { route.arguments.iter().all(has) } else { route.arguments.iter().any(has) }
}

/// Collects the queues that a message published to `exchange` reaches, each once, in slot order.
pub fn route(state: &Durable, exchange: u32, key: &str, headers: &Headers, out: &mut Vec<u32>) {
    out.clear();
    let mut visited = Vec::new();
    let mut open = alloc::vec![exchange];
    while let Some(slot) = open.pop() {
        if visited.contains(&slot) {
            continue;
        }
        visited.push(slot);
        let Some(exchange) = state.exchanges().get(slot) else { continue };
        let mut take = |route: &Route| match route.to {
            RouteTo::Queue(queue) => out.push(queue),
            RouteTo::Exchange(next) => open.push(next),
        };
        match exchange.config.kind {
            ExchangeKind::Direct => {
                exchange.routes.get(key).into_iter().flat_map(|r| &r.list).for_each(&mut take);
            }
            ExchangeKind::Fanout => {
                exchange.routes.values().flat_map(|r| &r.list).for_each(&mut take);
            }
            ExchangeKind::Topic => {
                let matching = exchange.routes.iter().filter(|(p, _)| topic_matches(p, key));
                matching.flat_map(|(_, r)| &r.list).for_each(&mut take);
            }
            ExchangeKind::Headers => {
                let all = exchange.routes.values().flat_map(|r| &r.list);
                all.filter(|route| headers_match(route, headers)).for_each(&mut take);
            }
        }
    }
    out.sort_unstable();
    out.dedup();
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
            ("a.#.z", "a.z", true),
            ("a.#.z", "a.b.c.z", true),
            ("a.#.z", "a.b.c", false),
            ("#.b.*", "a.b.b.c", true),
            ("#.b", "b", true),
            ("a.#", "a", true),
            ("*.*", "a", false),
            ("#.#.#", "x", true),
            ("a..b", "a..b", true),
            ("a.*.b", "a..b", true),
        ];
        for (pattern, key, expected) in cases {
            assert_eq!(topic_matches(pattern, key), expected, "{pattern} on {key}");
        }
    }
}
