//! Hashes: fields with values under one key.

use leasehold_core::content::{Bytes, Edit, find_field};
use leasehold_core::tree::Tree;

use super::numbers::{an_integer, integer};
use super::{extended, picks};
use crate::Reply;
use crate::scene::{Scene, Step};

type Fields = Tree<(Bytes, Bytes)>;

fn value<'f>(fields: &'f Fields, field: &[u8]) -> Option<&'f Bytes> {
    let place = find_field(fields, field).ok()?;
    fields.get(place).map(|(_, value)| value)
}

fn fields(scene: &Scene, key: &[u8]) -> Step<Fields> {
    scene.hash(key).map(Option::unwrap_or_default)
}

fn bulk(value: Option<&Bytes>) -> Reply {
    value.map_or(Reply::Nil, |value| Reply::Bulk(value.clone()))
}

/// HSET and HMSET.
pub fn hset(scene: &mut Scene, args: &[&[u8]], old: bool) -> Step<Reply> {
    if args.len() % 2 == 1 {
        return Err(super::wrong_arity(if old { "hmset" } else { "hset" }));
    }
    let mut after = fields(scene, args[1])?;
    let before = after.len();
    let mut edits = Vec::with_capacity(args.len() / 2);
    for pair in args[2..].chunks_exact(2) {
        let (field, value): (Bytes, Bytes) = (pair[0].into(), pair[1].into());
        if let Err(place) = find_field(&after, &field) {
            after.insert(place, (field.clone(), value.clone()));
        }
        edits.push(Edit::Put(field, value));
    }
    scene.edit(args[1], edits)?;
    Ok(if old { Reply::OK } else { Reply::Int((after.len() - before) as i64) })
}

/// HSETNX.
pub fn hsetnx(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    scene.look(args[1]);
    if value(&fields(scene, args[1])?, args[2]).is_some() {
        return Ok(Reply::Int(0));
    }
    scene.edit(args[1], [Edit::Put(args[2].into(), args[3].into())])?;
    Ok(Reply::Int(1))
}

/// HGET.
pub fn hget(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    scene.look(args[1]);
    Ok(bulk(value(&fields(scene, args[1])?, args[2])))
}

/// HMGET.
pub fn hmget(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let fields = fields(scene, args[1])?;
    Ok(Reply::Array(args[2..].iter().map(|field| bulk(value(&fields, field))).collect()))
}

/// HGETALL.
pub fn hgetall(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let pair = |(f, v): &(Bytes, Bytes)| (Reply::Bulk(f.clone()), Reply::Bulk(v.clone()));
    Ok(Reply::Map(fields(scene, args[1])?.iter().map(pair).collect()))
}

/// HKEYS.
pub fn hkeys(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let fields = fields(scene, args[1])?;
    Ok(Reply::Array(fields.iter().map(|(field, _)| Reply::Bulk(field.clone())).collect()))
}

/// HVALS.
pub fn hvals(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let fields = fields(scene, args[1])?;
    Ok(Reply::Array(fields.iter().map(|(_, value)| Reply::Bulk(value.clone())).collect()))
}

/// HDEL.
pub fn hdel(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let mut after = fields(scene, args[1])?;
    let before = after.len();
    let mut edits = Vec::new();
    for field in &args[2..] {
        if let Ok(place) = find_field(&after, field) {
            let gone = after.remove(place);
            edits.extend(gone.map(|(field, _)| Edit::Drop(field)));
        }
    }
    super::refuse_leased(scene, args[1])?;
    scene.edit(args[1], edits)?;
    Ok(Reply::Int((before - after.len()) as i64))
}

/// HEXISTS.
pub fn hexists(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    scene.look(args[1]);
    let there = value(&fields(scene, args[1])?, args[2]).is_some();
    Ok(Reply::Int(there.into()))
}

/// HLEN.
pub fn hlen(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(fields(scene, args[1])?.len() as i64))
}

/// HSTRLEN.
pub fn hstrlen(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let fields = fields(scene, args[1])?;
    Ok(Reply::Int(value(&fields, args[2]).map_or(0, |value| value.len() as i64)))
}

/// HINCRBY.
pub fn hincrby(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let amount = an_integer(args[3])?;
    let fields = fields(scene, args[1])?;
    let before = match value(&fields, args[2]) {
        Some(text) => {
            integer(text).ok_or_else(|| Reply::error("ERR hash value is not an integer"))?
        }
        None => 0,
    };
    let overflow = || Reply::error("ERR increment or decrement would overflow");
    let sum = before.checked_add(amount).ok_or_else(overflow)?;
    scene.edit(args[1], [Edit::Put(args[2].into(), sum.to_string().as_bytes().into())])?;
    Ok(Reply::Int(sum))
}

/// HINCRBYFLOAT.
pub fn hincrbyfloat(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let amount = extended::read(args[3])?;
    if !amount.is_finite() {
        return Err(Reply::error("ERR value is NaN or Infinity"));
    }
    let fields = fields(scene, args[1])?;
    let before = value(&fields, args[2]).map_or(&b"0"[..], |text| &**text);
    let before =
        extended::read(before).map_err(|_| Reply::error("ERR hash value is not a float"))?;
    let sum: Bytes = extended::add(before, amount)?.as_bytes().into();
    scene.edit(args[1], [Edit::Put(args[2].into(), sum.clone())])?;
    Ok(Reply::Bulk(sum))
}

/// HRANDFIELD.
pub fn hrandfield(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let Some(wish) = picks::Wish::read(&args[2..], "WITHVALUES")? else {
        let fields = fields(scene, args[1])?;
        let place = scene.random(fields.len());
        return Ok(bulk(fields.get(place).map(|(field, _)| field)));
    };
    let fields = fields(scene, args[1])?;
    let mut reply = Vec::new();
    for place in wish.places(scene, fields.len()) {
        let (field, value) = fields.get(place).expect("a place in the hash");
        let (field, value) = (Reply::Bulk(field.clone()), Reply::Bulk(value.clone()));
        picks::with(&mut reply, field, wish.with.then_some(value), scene.resp3);
    }
    Ok(Reply::Array(reply))
}

/// HSCAN.
pub fn hscan(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    picks::read_cursor(args[2])?;
    let fields = scene.hash(args[1])?;
    picks::scan(
        args,
        fields.as_ref().map(Tree::iter),
        |(field, _)| field,
        |(field, value), reply| {
            reply.extend([Reply::Bulk(field.clone()), Reply::Bulk(value.clone())]);
        },
    )
}
