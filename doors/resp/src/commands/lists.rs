//! Lists: elements in order, pushed and popped at both ends.

use leasehold_core::content::{Bytes, Edit};
use leasehold_core::tree::Tree;

use super::numbers::{SYNTAX, a_count, an_integer, is, range};
use crate::Reply;
use crate::scene::{Scene, Step};

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The front.
    Left,
    /// The back.
    Right,
}

impl End {
    /// Reads the word.
    ///
    /// # Errors
    /// Another word.
    pub fn read(word: &[u8]) -> Step<Self> {
        match (is(word, "LEFT"), is(word, "RIGHT")) {
            (true, _) => Ok(Self::Left),
            (_, true) => Ok(Self::Right),
            _ => Err(SYNTAX),
        }
    }
}

type Items = Tree<Bytes>;

fn items(scene: &Scene, key: &[u8]) -> Step<Items> {
    scene.list(key).map(Option::unwrap_or_default)
}

fn bulk(item: Option<&Bytes>) -> Reply {
    item.map_or(Reply::Nil, |item| Reply::Bulk(item.clone()))
}

/// The place of an index that may count from the end.
fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|place| *place < len)
}

/// LPUSH, RPUSH, LPUSHX and RPUSHX.
pub fn push(scene: &mut Scene, args: &[&[u8]], end: End, only_there: bool) -> Step<Reply> {
    let list = scene.list(args[1])?;
    if only_there && list.is_none() {
        super::refuse_leased(scene, args[1])?;
        return Ok(Reply::Int(0));
    }
    let len = list.map_or(0, |items| items.len());
    let insert = |(i, item): (usize, &&[u8])| match end {
        End::Left => Edit::Insert(0, (*item).into()),
        End::Right => Edit::Insert((len + i) as u32, (*item).into()),
    };
    let edits: Vec<Edit> = args[2..].iter().enumerate().map(insert).collect();
    scene.edit(args[1], edits)?;
    Ok(Reply::Int((len + args.len() - 2) as i64))
}

/// Takes up to `count` items off an end, in the order in which they come off.
pub fn take(scene: &mut Scene, key: &[u8], end: End, count: usize) -> Step<Vec<Reply>> {
    let items = items(scene, key)?;
    let count = count.min(items.len());
    if count == 0 {
        return Ok(Vec::new());
    }
    let from = if end == End::Left { 0 } else { items.len() - count };
    let mut taken: Vec<Reply> =
        items.iter_from(from).take(count).map(|item| Reply::Bulk(item.clone())).collect();
    if end == End::Right {
        taken.reverse();
    }
    scene.edit(key, [Edit::Remove(from as u32, count as u32)])?;
    Ok(taken)
}

/// LPOP and RPOP.
pub fn pop(scene: &mut Scene, args: &[&[u8]], end: End) -> Step<Reply> {
    let count = match args {
        [name, _, _, _, ..] => {
            return Err(super::wrong_arity(&String::from_utf8_lossy(name).to_lowercase()));
        }
        [_, _, count] => Some(a_count(count)?),
        _ => None,
    };
    if scene.list(args[1])?.is_none() {
        super::refuse_leased(scene, args[1])?;
        return Ok(if count.is_some() { Reply::NilArray } else { Reply::Nil });
    }
    let mut taken = take(scene, args[1], end, count.unwrap_or(1))?;
    Ok(match count {
        Some(_) => Reply::Array(taken),
        None => taken.pop().unwrap_or(Reply::Nil),
    })
}

/// LLEN.
pub fn llen(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    Ok(Reply::Int(items(scene, args[1])?.len() as i64))
}

/// LRANGE.
pub fn lrange(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (start, end) = (an_integer(args[2])?, an_integer(args[3])?);
    let items = items(scene, args[1])?;
    let (from, count) = range(start, end, items.len());
    let part = items.iter_from(from).take(count);
    Ok(Reply::Array(part.map(|item| Reply::Bulk(item.clone())).collect()))
}

/// LINDEX.
pub fn lindex(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let Some(items) = scene.list(args[1])? else { return Ok(Reply::Nil) };
    let index = an_integer(args[2])?;
    Ok(bulk(place(index, items.len()).and_then(|place| items.get(place))))
}

/// LSET.
pub fn lset(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let Some(items) = scene.list(args[1])? else {
        super::refuse_leased(scene, args[1])?;
        return Err(super::NO_KEY);
    };
    let index = an_integer(args[2])?;
    let place = place(index, items.len()).ok_or_else(|| Reply::error("ERR index out of range"))?;
    scene.edit(args[1], [Edit::Replace(place as u32, args[3].into())])?;
    Ok(Reply::OK)
}

/// LINSERT.
pub fn linsert(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let after = match (is(args[2], "BEFORE"), is(args[2], "AFTER")) {
        (true, _) => 0,
        (_, true) => 1,
        _ => return Err(SYNTAX),
    };
    let Some(items) = scene.list(args[1])? else {
        super::refuse_leased(scene, args[1])?;
        return Ok(Reply::Int(0));
    };
    let Some(pivot) = items.iter().position(|item| **item == *args[3]) else {
        return Ok(Reply::Int(-1));
    };
    scene.edit(args[1], [Edit::Insert((pivot + after) as u32, args[4].into())])?;
    Ok(Reply::Int(items.len() as i64 + 1))
}

/// LREM. Neighbours go together.
pub fn lrem(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let count = an_integer(args[2])?;
    let items = items(scene, args[1])?;
    let most = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let equal = items.iter().enumerate().filter(|(_, item)| ***item == *args[3]);
    let mut places: Vec<usize> = equal.map(|(place, _)| place).collect();
    if count < 0 {
        places.drain(..places.len().saturating_sub(most));
    } else {
        places.truncate(most);
    }
    // From the back, so that places before stay what they are.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for place in places.iter().rev() {
        match runs.last_mut() {
            Some((from, count)) if *from == place + 1 => (*from, *count) = (*place, *count + 1),
            _ => runs.push((*place, 1)),
        }
    }
    let remove = |(from, count): &(usize, usize)| Edit::Remove(*from as u32, *count as u32);
    super::refuse_leased(scene, args[1])?;
    scene.edit(args[1], runs.iter().map(remove).collect::<Vec<_>>())?;
    Ok(Reply::Int(places.len() as i64))
}

/// LTRIM.
pub fn ltrim(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (start, end) = (an_integer(args[2])?, an_integer(args[3])?);
    let items = items(scene, args[1])?;
    let (from, count) = range(start, end, items.len());
    let behind = items.len() - from - count;
    let mut edits = Vec::new();
    if behind > 0 {
        edits.push(Edit::Remove((from + count) as u32, behind as u32));
    }
    if from > 0 {
        edits.push(Edit::Remove(0, from as u32));
    }
    super::refuse_leased(scene, args[1])?;
    scene.edit(args[1], edits)?;
    Ok(Reply::OK)
}

/// The options of LPOS.
#[derive(Debug)]
struct Seek {
    rank: i64,
    count: Option<usize>,
    longest: usize,
}

impl Seek {
    fn read(args: &[&[u8]]) -> Step<Self> {
        let mut seek = Self { rank: 1, count: None, longest: 0 };
        for pair in args.chunks(2) {
            let [word, value] = *pair else { return Err(SYNTAX) };
            let positive = |what: &str| {
                let value = super::numbers::integer(value);
                let value = value.and_then(|value| usize::try_from(value).ok());
                value.ok_or_else(|| Reply::error(format!("ERR {what} can't be negative")))
            };
            if is(word, "RANK") {
                // The lowest number has no opposite; to Redis it is -1.
                seek.rank = Some(an_integer(value)?).filter(|rank| *rank != i64::MIN).unwrap_or(-1);
                if seek.rank == 0 {
                    return Err(Reply::error(
                        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                         second ... or use negative to start from the end of the list",
                    ));
                }
            } else if is(word, "COUNT") {
                seek.count = Some(positive("COUNT")?);
            } else if is(word, "MAXLEN") {
                seek.longest = positive("MAXLEN")?;
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(seek)
    }

    fn places(&self, items: &Items, wanted: &[u8]) -> Vec<usize> {
        let (len, skip) = (items.len(), self.rank.unsigned_abs() as usize - 1);
        let most = match self.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        };
        let looked = if self.longest == 0 { len } else { self.longest.min(len) };
        if self.rank > 0 {
            let found = items.iter().take(looked).enumerate();
            let found = found.filter(|(_, item)| ***item == *wanted).map(|(place, _)| place);
            return found.skip(skip).take(most).collect();
        }
        let found = items.iter_from(len - looked).zip(len - looked..);
        let found = found.filter(|(item, _)| ***item == *wanted).map(|(_, place)| place);
        let found: Vec<usize> = found.collect();
        found.into_iter().rev().skip(skip).take(most).collect()
    }
}

/// LPOS.
pub fn lpos(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let seek = Seek::read(&args[3..])?;
    let places = seek.places(&items(scene, args[1])?, args[2]);
    Ok(match seek.count {
        Some(_) => Reply::Array(places.iter().map(|place| Reply::Int(*place as i64)).collect()),
        None => places.first().map_or(Reply::Nil, |place| Reply::Int(*place as i64)),
    })
}

/// Moves an item from an end of a list to an end of another or of the same; `None` when there is
/// none.
pub fn shift(
    scene: &mut Scene,
    (source, from): (&[u8], End),
    (target, to): (&[u8], End),
) -> Step<Option<Reply>> {
    let Some(items) = scene.list(source)? else {
        super::refuse_leased(scene, source)?;
        return Ok(None);
    };
    let others = scene.list(target)?;
    let len = items.len();
    let at = if from == End::Left { 0 } else { len - 1 };
    let item = items.get(at).expect("no list is empty").clone();
    if source == target {
        // It comes before it goes, or a list of one item would lose its expiry on the way.
        let insert = if to == End::Left { 0 } else { len };
        let remove = if to == End::Left { at + 1 } else { at };
        let edits = [Edit::Insert(insert as u32, item.clone()), Edit::Remove(remove as u32, 1)];
        scene.edit(source, edits)?;
    } else {
        let insert = if to == End::Left { 0 } else { others.map_or(0, |others| others.len()) };
        scene.edit(target, [Edit::Insert(insert as u32, item.clone())])?;
        scene.edit(source, [Edit::Remove(at as u32, 1)])?;
    }
    Ok(Some(Reply::Bulk(item)))
}

/// LMOVE.
pub fn lmove(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (from, to) = (End::read(args[3])?, End::read(args[4])?);
    Ok(shift(scene, (args[1], from), (args[2], to))?.unwrap_or(Reply::Nil))
}

/// RPOPLPUSH.
pub fn rpoplpush(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let moved = shift(scene, (args[1], End::Right), (args[2], End::Left))?;
    Ok(moved.unwrap_or(Reply::Nil))
}

/// What LMPOP and BLMPOP want, from the number of keys on: keys, the end, how many.
pub fn read_lmpop<'a>(args: super::Args<'a>) -> Step<(super::Args<'a>, End, usize)> {
    let (keys, rest) = super::counted_keys(args)?;
    let end = End::read(rest.first().ok_or(SYNTAX)?)?;
    Ok((keys, end, super::pop_options(&rest[1..])?))
}

/// Items of the first list that has some; `None` when none has.
pub fn take_first(
    scene: &mut Scene,
    keys: &[&[u8]],
    end: End,
    count: usize,
) -> Step<Option<Reply>> {
    for key in keys {
        if scene.list(key)?.is_some() {
            let taken = take(scene, key, end, count)?;
            return Ok(Some(Reply::Array(vec![Reply::bulk(key), Reply::Array(taken)])));
        }
    }
    Ok(None)
}

/// LMPOP.
pub fn lmpop(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (keys, end, count) = read_lmpop(&args[1..])?;
    Ok(take_first(scene, keys, end, count)?.unwrap_or(Reply::NilArray))
}
