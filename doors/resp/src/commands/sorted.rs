//! Sorted sets: members with scores, one at a time. Ranges are in `ranges`, several sets at once in
//! `unions`.

use leasehold_core::content::{Bytes, Content, Edit, Sorted};

use super::numbers::{SYNTAX, a_count, a_float, is};
use super::picks;
use crate::Reply;
use crate::scene::{Scene, Step};

/// The members of a sorted set; none when it is not there.
///
/// # Errors
/// Another kind.
pub fn members(scene: &Scene, key: &[u8]) -> Step<Sorted> {
    scene.sorted(key).map(Option::unwrap_or_default)
}

/// The conditions of ZADD.
#[derive(Debug, Default, Clone, Copy)]
struct Conditions {
    new: bool,
    old: bool,
    greater: bool,
    less: bool,
    changed: bool,
    increment: bool,
}

impl Conditions {
    /// Reads words up to the first that is none; how many there were.
    fn read(args: &[&[u8]]) -> (Self, usize) {
        let mut it = Self::default();
        for (at, word) in args.iter().enumerate() {
            let known = [
                ("NX", &mut it.new),
                ("XX", &mut it.old),
                ("CH", &mut it.changed),
                ("INCR", &mut it.increment),
                ("GT", &mut it.greater),
                ("LT", &mut it.less),
            ];
            let Some((_, flag)) = known.into_iter().find(|(name, _)| is(word, name)) else {
                return (it, at);
            };
            *flag = true;
        }
        (it, args.len())
    }

    fn check(self, pairs: usize) -> Step<()> {
        let error = if self.new && self.old {
            "ERR XX and NX options at the same time are not compatible"
        } else if self.new && (self.greater || self.less) || self.greater && self.less {
            "ERR GT, LT, and/or NX options at the same time are not compatible"
        } else if self.increment && pairs > 1 {
            "ERR INCR option supports a single increment-element pair"
        } else {
            return Ok(());
        };
        Err(Reply::error(error))
    }

    /// The score after, or `None` when the conditions do not hold.
    fn score(self, before: Option<f64>, given: f64) -> Step<Option<f64>> {
        let Some(before) = before else { return Ok((!self.old).then_some(given)) };
        if self.new {
            return Ok(None);
        }
        let score = if self.increment { before + given } else { given };
        if score.is_nan() {
            return Err(Reply::error("ERR resulting score is not a number (NaN)"));
        }
        let wrong_way = self.less && score >= before || self.greater && score <= before;
        Ok((!wrong_way).then_some(score))
    }
}

/// ZADD.
pub fn zadd(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (conditions, words) = Conditions::read(&args[2..]);
    let pairs = &args[2 + words..];
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err(SYNTAX);
    }
    conditions.check(pairs.len() / 2)?;
    add(scene, args[1], conditions, pairs)
}

/// ZINCRBY.
pub fn zincrby(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let conditions = Conditions { increment: true, ..Conditions::default() };
    add(scene, args[1], conditions, &args[2..])
}

fn add(scene: &mut Scene, key: &[u8], conditions: Conditions, pairs: &[&[u8]]) -> Step<Reply> {
    let mut given = Vec::with_capacity(pairs.len() / 2);
    for pair in pairs.chunks_exact(2) {
        given.push((a_float(pair[0])?, pair[1]));
    }
    let mut after = Content::Sorted(members(scene, key)?);
    let (mut added, mut updated, mut result) = (0, 0, None);
    let mut edits = Vec::new();
    for (score, member) in given {
        let Content::Sorted(sorted) = &after else { continue };
        let before = sorted.score(member);
        result = conditions.score(before, score)?;
        let Some(score) = result else { continue };
        added += i64::from(before.is_none());
        if before != Some(score) {
            updated += i64::from(before.is_some());
            let edit = Edit::Score(member.into(), kept(score));
            after.apply(&edit);
            edits.push(edit);
        }
    }
    super::refuse_leased(scene, key)?;
    scene.edit(key, edits)?;
    if conditions.increment {
        return Ok(result.map_or(Reply::Nil, Reply::Double));
    }
    Ok(Reply::Int(if conditions.changed { added + updated } else { added }))
}

/// A score as it is kept: small sorted sets of Redis keep minus zero as zero.
pub fn kept(score: f64) -> f64 {
    score + 0.0
}

/// ZREM.
pub fn zrem(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let sorted = members(scene, args[1])?;
    let mut gone: Vec<&[u8]> = args[2..].to_vec();
    gone.retain(|member| sorted.score(member).is_some());
    gone.sort_unstable();
    gone.dedup();
    remove(scene, args[1], gone.iter().map(|member| Bytes::from(*member)))
}

/// Removes members that are there.
///
/// # Errors
/// A lease of this name.
pub fn remove(scene: &mut Scene, key: &[u8], members: impl Iterator<Item = Bytes>) -> Step<Reply> {
    let edits: Vec<Edit> = members.map(Edit::Unscore).collect();
    super::refuse_leased(scene, key)?;
    let count = edits.len() as i64;
    scene.edit(key, edits)?;
    Ok(Reply::Int(count))
}

/// ZCARD.
pub fn zcard(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(members(scene, args[1])?.len() as i64))
}

/// ZSCORE.
pub fn zscore(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(members(scene, args[1])?.score(args[2]).map_or(Reply::Nil, Reply::Double))
}

/// ZMSCORE.
pub fn zmscore(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let sorted = members(scene, args[1])?;
    let one = |member: &&[u8]| sorted.score(member).map_or(Reply::Nil, Reply::Double);
    Ok(Reply::Array(args[2..].iter().map(one).collect()))
}

/// ZRANK and ZREVRANK.
pub fn zrank(scene: &mut Scene, args: &[&[u8]], from_end: bool) -> Step<Reply> {
    let sorted = members(scene, args[1])?;
    let Some(rank) = sorted.rank(args[2]) else { return Ok(Reply::Nil) };
    let rank = if from_end { sorted.len() - 1 - rank } else { rank };
    Ok(Reply::Int(rank as i64))
}

/// Takes up to `count` members with the lowest or highest scores off.
///
/// # Errors
/// Another kind.
pub fn take(scene: &mut Scene, key: &[u8], highest: bool, count: usize) -> Step<Vec<(Bytes, f64)>> {
    let sorted = members(scene, key)?;
    let count = count.min(sorted.len());
    let from = if highest { sorted.len() - count } else { 0 };
    let mut taken: Vec<_> = sorted.ranks().iter_from(from).take(count).cloned().collect();
    if highest {
        taken.reverse();
    }
    remove(scene, key, taken.iter().map(|(member, _)| member.clone()))?;
    Ok(taken)
}

/// ZPOPMIN and ZPOPMAX.
pub fn zpop(scene: &mut Scene, args: &[&[u8]], highest: bool) -> Step<Reply> {
    let count = match args[2..] {
        [] => None,
        [count] => Some(a_count(count)?),
        _ => return Err(SYNTAX),
    };
    let taken = take(scene, args[1], highest, count.unwrap_or(1))?;
    let mut reply = Vec::new();
    let nested = scene.resp3 && count.is_some();
    for (member, score) in taken {
        picks::with(&mut reply, Reply::Bulk(member), Some(Reply::Double(score)), nested);
    }
    Ok(Reply::Array(reply))
}

/// What ZMPOP and BZMPOP want, from the number of keys on: keys, whether the highest, how many.
pub fn read_zmpop<'a>(args: super::Args<'a>) -> Step<(super::Args<'a>, bool, usize)> {
    let (keys, rest) = super::counted_keys(args)?;
    let word = rest.first().ok_or(SYNTAX)?;
    let highest = match (is(word, "MIN"), is(word, "MAX")) {
        (true, _) => false,
        (_, true) => true,
        _ => return Err(SYNTAX),
    };
    Ok((keys, highest, super::pop_options(&rest[1..])?))
}

/// Members of the first set that has some; `None` when none has.
pub fn take_first(
    scene: &mut Scene,
    keys: &[&[u8]],
    highest: bool,
    count: usize,
) -> Step<Option<Reply>> {
    for key in keys {
        if scene.sorted(key)?.is_some() {
            let taken = take(scene, key, highest, count)?;
            let pair =
                |(member, score)| Reply::Array(vec![Reply::Bulk(member), Reply::Double(score)]);
            let taken = Reply::Array(taken.into_iter().map(pair).collect());
            return Ok(Some(Reply::Array(vec![Reply::bulk(key), taken])));
        }
    }
    Ok(None)
}

/// ZMPOP.
pub fn zmpop(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (keys, highest, count) = read_zmpop(&args[1..])?;
    Ok(take_first(scene, keys, highest, count)?.unwrap_or(Reply::NilArray))
}

/// ZRANDMEMBER.
pub fn zrandmember(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let wish = picks::Wish::read(&args[2..], "WITHSCORES")?;
    let sorted = members(scene, args[1])?;
    let Some(wish) = wish else {
        let place = scene.random(sorted.len());
        let one = sorted.ranks().get(place);
        return Ok(one.map_or(Reply::Nil, |(member, _)| Reply::Bulk(member.clone())));
    };
    let mut reply = Vec::new();
    for place in wish.places(scene, sorted.len()) {
        let (member, score) = sorted.ranks().get(place).expect("a place in the set");
        let score = wish.with.then_some(Reply::Double(*score));
        picks::with(&mut reply, Reply::Bulk(member.clone()), score, scene.resp3);
    }
    Ok(Reply::Array(reply))
}

/// ZSCAN.
pub fn zscan(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    picks::read_cursor(args[2])?;
    let sorted = scene.sorted(args[1])?;
    picks::scan(
        args,
        sorted.as_ref().map(|sorted| sorted.ranks().iter()),
        |(member, _)| member,
        |(member, score), reply| {
            // Bytes in both versions of the protocol, and whole numbers in full.
            let whole = score.fract() == 0.0 && score.abs() < i64::MAX as f64;
            let score = match whole {
                true => (*score as i64).to_string(),
                false => crate::codec::double(*score),
            };
            let score = Reply::bulk(score);
            reply.extend([Reply::Bulk(member.clone()), score]);
        },
    )
}
