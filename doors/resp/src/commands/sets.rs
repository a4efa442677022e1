//! Sets: members without order, each once.

use std::collections::BTreeSet;

use leasehold_core::content::{Bytes, Content, Edit, find_member};
use leasehold_core::tree::Tree;

use super::numbers::{SYNTAX, integer, is};
use super::picks;
use crate::Reply;
use crate::scene::{Scene, Step};

type Members = Tree<Bytes>;

/// How several sets become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Members of all.
    Inter,
    /// Members of any.
    Union,
    /// Members of the first only.
    Diff,
}

fn members(scene: &Scene, key: &[u8]) -> Step<Members> {
    scene.set(key).map(Option::unwrap_or_default)
}

fn has(members: &Members, member: &[u8]) -> bool {
    find_member(members, member).is_ok()
}

fn bulk(member: &Bytes) -> Reply {
    Reply::Bulk(member.clone())
}

/// SADD.
pub fn sadd(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let before = members(scene, args[1])?;
    let new = args[2..].iter().filter(|member| !has(&before, member));
    let new: BTreeSet<&[u8]> = new.copied().collect();
    super::refuse_leased(scene, args[1])?;
    scene.edit(args[1], new.iter().map(|one| Edit::Add((*one).into())).collect::<Vec<_>>())?;
    Ok(Reply::Int(new.len() as i64))
}

/// SREM.
pub fn srem(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let before = members(scene, args[1])?;
    let gone = args[2..].iter().filter(|member| has(&before, member));
    let gone: BTreeSet<&[u8]> = gone.copied().collect();
    super::refuse_leased(scene, args[1])?;
    scene.edit(args[1], gone.iter().map(|one| Edit::Take((*one).into())).collect::<Vec<_>>())?;
    Ok(Reply::Int(gone.len() as i64))
}

/// SCARD.
pub fn scard(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(members(scene, args[1])?.len() as i64))
}

/// SISMEMBER.
pub fn sismember(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(has(&members(scene, args[1])?, args[2]).into()))
}

/// SMISMEMBER.
pub fn smismember(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let members = members(scene, args[1])?;
    let one = |member: &&[u8]| Reply::Int(has(&members, member).into());
    Ok(Reply::Array(args[2..].iter().map(one).collect()))
}

/// SMEMBERS.
pub fn smembers(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Set(members(scene, args[1])?.iter().map(bulk).collect()))
}

/// SMOVE.
pub fn smove(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let Some(source) = scene.set(args[1])? else {
        super::refuse_leased(scene, args[1])?;
        return Ok(Reply::Int(0));
    };
    let target = members(scene, args[2])?;
    if !has(&source, args[3]) {
        return Ok(Reply::Int(0));
    }
    if args[1] != args[2] {
        // The target first: when it refuses, nothing has happened.
        let add = if has(&target, args[3]) { vec![] } else { vec![Edit::Add(args[3].into())] };
        scene.edit(args[2], add)?;
        scene.edit(args[1], [Edit::Take(args[3].into())])?;
    }
    Ok(Reply::Int(1))
}

/// SPOP.
pub fn spop(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let count = picks::pop_count(&args[2..])?;
    let Some(members) = scene.set(args[1])? else {
        super::refuse_leased(scene, args[1])?;
        return Ok(if count.is_some() { Reply::Set(Vec::new()) } else { Reply::Nil });
    };
    let places = picks::different(scene, count.unwrap_or(1), members.len());
    let at = |place: &usize| members.get(*place).expect("a place in the set").clone();
    let taken: Vec<Bytes> = places.iter().map(at).collect();
    scene.edit(args[1], taken.iter().cloned().map(Edit::Take).collect::<Vec<_>>())?;
    Ok(match count {
        Some(_) => Reply::Set(taken.iter().map(bulk).collect()),
        None => taken.first().map_or(Reply::Nil, bulk),
    })
}

/// SRANDMEMBER.
pub fn srandmember(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let Some(wish) = picks::Wish::read(&args[2..], "")? else {
        let members = members(scene, args[1])?;
        let place = scene.random(members.len());
        return Ok(members.get(place).map_or(Reply::Nil, bulk));
    };
    let members = members(scene, args[1])?;
    let places = wish.places(scene, members.len());
    let at = |place: usize| bulk(members.get(place).expect("a place in the set"));
    Ok(Reply::Array(places.into_iter().map(at).collect()))
}

/// What becomes of several sets; at most so many members of an intersection.
fn combine(scene: &Scene, keys: &[&[u8]], way: Way, most: usize) -> Step<Vec<Bytes>> {
    let mut sets = Vec::with_capacity(keys.len());
    for key in keys {
        sets.push(members(scene, key)?);
    }
    Ok(match way {
        Way::Union => {
            let all: BTreeSet<&Bytes> = sets.iter().flat_map(|members| members.iter()).collect();
            all.into_iter().cloned().collect()
        }
        Way::Diff => {
            let others = &sets[1..];
            let only = |one: &&Bytes| !others.iter().any(|members| has(members, one));
            sets[0].iter().filter(only).cloned().collect()
        }
        Way::Inter => {
            sets.sort_by_key(Tree::len);
            let others = &sets[1..];
            let all = |one: &&Bytes| others.iter().all(|members| has(members, one));
            sets[0].iter().filter(all).take(most).cloned().collect()
        }
    })
}

/// SINTER, SUNION and SDIFF.
pub fn combined(scene: &mut Scene, args: &[&[u8]], way: Way) -> Step<Reply> {
    let members = combine(scene, &args[1..], way, usize::MAX)?;
    Ok(Reply::Set(members.into_iter().map(Reply::Bulk).collect()))
}

/// SINTERSTORE, SUNIONSTORE and SDIFFSTORE.
pub fn store(scene: &mut Scene, args: &[&[u8]], way: Way) -> Step<Reply> {
    let members = combine(scene, &args[2..], way, usize::MAX)?;
    let count = members.len() as i64;
    scene.put(args[1], Content::Set(members.into_iter().collect()))?;
    Ok(Reply::Int(count))
}

/// The number of keys, the keys and LIMIT of SINTERCARD and ZINTERCARD.
pub fn read_intercard<'a>(args: super::Args<'a>) -> Step<(super::Args<'a>, usize)> {
    let count = integer(args[1]).filter(|count| *count > 0);
    let count = count.ok_or_else(|| Reply::error("ERR numkeys should be greater than 0"))?;
    let (keys, options) = args[2..]
        .split_at_checked(count as usize)
        .ok_or_else(|| Reply::error("ERR Number of keys can't be greater than number of args"))?;
    let mut limit = 0;
    for pair in options.chunks(2) {
        let [word, value] = *pair else { return Err(SYNTAX) };
        if !is(word, "LIMIT") {
            return Err(SYNTAX);
        }
        let value = integer(value).and_then(|value| usize::try_from(value).ok());
        limit = value.ok_or_else(|| Reply::error("ERR LIMIT can't be negative"))?;
    }
    Ok((keys, if limit == 0 { usize::MAX } else { limit }))
}

/// SINTERCARD.
pub fn sintercard(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (keys, limit) = read_intercard(args)?;
    Ok(Reply::Int(combine(scene, keys, Way::Inter, limit)?.len() as i64))
}

/// SSCAN.
pub fn sscan(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    picks::read_cursor(args[2])?;
    let members = scene.set(args[1])?;
    let items = members.as_ref().map(Tree::iter);
    picks::scan(args, items, |one| one, |one, reply| reply.push(bulk(one)))
}
