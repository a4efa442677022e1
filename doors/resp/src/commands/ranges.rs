//! Parts of sorted sets: by rank, by score and by text, forwards and backwards.

use leasehold_core::content::{Bytes, Content, Edit, Kind, Sorted};

use super::numbers::{SYNTAX, an_integer, float, is, range};
use super::{picks, sorted};
use crate::Reply;
use crate::scene::{Scene, Step};

/// By what members are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Their place.
    Rank,
    /// Their score.
    Score,
    /// Their text, where all scores are the same.
    Text,
}

/// Which members are meant.
#[derive(Debug, Clone, Copy)]
enum Span<'a> {
    Ranks(i64, i64),
    Scores(Bound<f64>, Bound<f64>),
    Texts(Bound<Edge<'a>>, Bound<Edge<'a>>),
}

/// Where a span begins or ends.
#[derive(Debug, Clone, Copy)]
struct Bound<T> {
    at: T,
    /// What stands there is not meant.
    open: bool,
}

/// A text, or what is before or behind all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Edge<'a> {
    Least,
    Text(&'a [u8]),
    Greatest,
}

impl Bound<f64> {
    fn score(text: &[u8]) -> Step<Self> {
        let (open, digits) = match text {
            [b'(', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let trimmed = digits.trim_ascii_start();
        // As C reads it: nothing is 0, what is too large is infinite.
        let at = match digits.is_empty() {
            true => Some(0.0),
            false => float(trimmed).or_else(|| std::str::from_utf8(trimmed).ok()?.parse().ok()),
        };
        let at = at.filter(|at: &f64| !at.is_nan());
        let at = at.ok_or_else(|| Reply::error("ERR min or max is not a float"))?;
        Ok(Self { at, open })
    }
}

impl<'a> Bound<Edge<'a>> {
    fn text(text: &'a [u8]) -> Step<Self> {
        let (at, open) = match text {
            b"-" => (Edge::Least, false),
            b"+" => (Edge::Greatest, false),
            [b'(', text @ ..] => (Edge::Text(text), true),
            [b'[', text @ ..] => (Edge::Text(text), false),
            _ => return Err(Reply::error("ERR min or max not valid string range item")),
        };
        Ok(Self { at, open })
    }
}

impl<T: PartialOrd> Bound<T> {
    /// Whether an item stands before the span that begins here.
    fn is_behind(&self, item: &T) -> bool {
        *item < self.at || self.open && *item == self.at
    }

    /// Whether an item stands within the span that ends here.
    fn covers(&self, item: &T) -> bool {
        *item < self.at || !self.open && *item == self.at
    }
}

impl<'a> Span<'a> {
    fn read(by: By, min: &'a [u8], max: &'a [u8]) -> Step<Self> {
        Ok(match by {
            By::Rank => Self::Ranks(an_integer(min)?, an_integer(max)?),
            By::Score => Self::Scores(Bound::score(min)?, Bound::score(max)?),
            By::Text => Self::Texts(Bound::text(min)?, Bound::text(max)?),
        })
    }

    /// The first place and how many there are; ranks count from the end when `back`.
    fn places(self, sorted: &Sorted, back: bool) -> (usize, usize) {
        use std::cmp::Ordering::{Greater, Less};
        let first = |before: &dyn Fn(&(Bytes, f64)) -> bool| {
            let order = |item: &(Bytes, f64)| if before(item) { Less } else { Greater };
            sorted.ranks().find(order).unwrap_or_else(|place| place)
        };
        let (from, upto) = match self {
            Self::Ranks(start, end) => {
                let (from, count) = range(start, end, sorted.len());
                return if back { (sorted.len() - from - count, count) } else { (from, count) };
            }
            Self::Scores(min, max) => {
                (first(&|item| min.is_behind(&item.1)), first(&|item| max.covers(&item.1)))
            }
            Self::Texts(min, max) => (
                first(&|item| min.is_behind(&Edge::Text(&item.0))),
                first(&|item| max.covers(&Edge::Text(&item.0))),
            ),
        };
        (from, upto.saturating_sub(from))
    }
}

/// A question for a part of a sorted set.
#[derive(Debug)]
struct Query<'a> {
    key: &'a [u8],
    span: Span<'a>,
    back: bool,
    scores: bool,
    skip: i64,
    most: i64,
}

impl<'a> Query<'a> {
    /// Reads the key, the ends and the options; what the command's name says already is given.
    fn read(args: &[&'a [u8]], by: Option<By>, back: Option<bool>, store: bool) -> Step<Self> {
        let (mut found_by, mut found_back) = (by, back);
        let (mut scores, mut skip, mut most) = (false, 0, -1);
        let mut at = 3;
        while let Some(word) = args.get(at) {
            at += 1;
            if !store && is(word, "WITHSCORES") {
                scores = true;
            } else if is(word, "LIMIT") && args.len() >= at + 2 {
                (skip, most) = (an_integer(args[at])?, an_integer(args[at + 1])?);
                at += 2;
            } else if found_back.is_none() && is(word, "REV") {
                found_back = Some(true);
            } else if found_by.is_none() && is(word, "BYLEX") {
                found_by = Some(By::Text);
            } else if found_by.is_none() && is(word, "BYSCORE") {
                found_by = Some(By::Score);
            } else {
                return Err(SYNTAX);
            }
        }
        let (by, back) = (found_by.unwrap_or(By::Rank), found_back.unwrap_or(false));
        if most != -1 && by == By::Rank {
            return Err(Reply::error(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or \
                 BYLEX",
            ));
        }
        if scores && by == By::Text {
            return Err(Reply::error(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        // `LIMIT 5 -1` is let through for ranks, and means nothing.
        let skip = if by == By::Rank { 0 } else { skip };
        let turned = back && by != By::Rank;
        let (min, max) = if turned { (args[2], args[1]) } else { (args[1], args[2]) };
        Ok(Self { key: args[0], span: Span::read(by, min, max)?, back, scores, skip, most })
    }

    /// The members, in the order of the reply.
    fn answer(&self, scene: &Scene) -> Step<Vec<(Bytes, f64)>> {
        let sorted = sorted::members(scene, self.key)?;
        let (from, count) = self.span.places(&sorted, self.back);
        // A negative number to skip is never reached by counting down: it skips all.
        let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(count);
        let left = count - skip;
        let most = usize::try_from(self.most).unwrap_or(usize::MAX).min(left);
        let from = if self.back { from + left - most } else { from + skip };
        let mut found: Vec<_> = sorted.ranks().iter_from(from).take(most).cloned().collect();
        if self.back {
            found.reverse();
        }
        Ok(found)
    }
}

/// Members with or without scores.
pub fn show(members: Vec<(Bytes, f64)>, scores: bool, resp3: bool) -> Reply {
    let mut reply = Vec::with_capacity(members.len());
    for (member, score) in members {
        let score = scores.then_some(Reply::Double(score));
        picks::with(&mut reply, Reply::Bulk(member), score, resp3);
    }
    Reply::Array(reply)
}

/// Sets a key to a sorted set and tells how many members it has.
///
/// # Errors
/// Refusals of the core.
pub fn keep(scene: &mut Scene, key: &[u8], members: Vec<(Bytes, f64)>) -> Step<Reply> {
    let count = members.len() as i64;
    let mut content = Content::empty(Kind::Sorted);
    for (member, score) in members {
        content.apply(&Edit::Score(member, sorted::kept(score)));
    }
    scene.put(key, content)?;
    Ok(Reply::Int(count))
}

/// ZRANGE and its older names.
pub fn zrange(
    scene: &mut Scene,
    args: &[&[u8]],
    by: Option<By>,
    back: Option<bool>,
) -> Step<Reply> {
    let query = Query::read(&args[1..], by, back, false)?;
    let found = query.answer(scene)?;
    Ok(show(found, query.scores, scene.resp3))
}

/// ZRANGESTORE.
pub fn zrangestore(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let query = Query::read(&args[2..], None, None, true)?;
    let found = query.answer(scene)?;
    keep(scene, args[1], found)
}

/// ZREMRANGEBYRANK, ZREMRANGEBYSCORE and ZREMRANGEBYLEX.
pub fn zremrange(scene: &mut Scene, args: &[&[u8]], by: By) -> Step<Reply> {
    let span = Span::read(by, args[2], args[3])?;
    let sorted = sorted::members(scene, args[1])?;
    let (from, count) = span.places(&sorted, false);
    let gone = sorted.ranks().iter_from(from).take(count);
    sorted::remove(scene, args[1], gone.map(|(member, _)| member.clone()))
}

/// ZCOUNT and ZLEXCOUNT.
pub fn zcount(scene: &mut Scene, args: &[&[u8]], by: By) -> Step<Reply> {
    let span = Span::read(by, args[2], args[3])?;
    let (_, count) = span.places(&sorted::members(scene, args[1])?, false);
    Ok(Reply::Int(count as i64))
}
