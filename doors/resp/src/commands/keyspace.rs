//! Keys whatever they hold: whether they are there, other names for them, and all of them.

use leasehold_core::content::{Bytes, Content};

use super::numbers::{SYNTAX, an_integer, integer, is};
use super::picks::ScanOptions;
use crate::Reply;
use crate::glob;
use crate::scene::{DATABASES, Scene, Step, client_name};

/// So often a key is drawn at random before all are looked at.
const DRAWS: usize = 100;
/// Places that one SCAN goes through at most, whatever COUNT says: nobody else is served meanwhile.
const SCANNED: usize = 10_000;

/// DEL and UNLINK.
pub fn del(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    for key in &args[1..] {
        super::refuse_leased(scene, key)?;
    }
    // All of them or none. There is room for a few whether they are there or not.
    if scene.check_room(args[1..].iter().map(|key| key.len())).is_err() {
        let there = args[1..].iter().filter(|key| scene.content(key).is_some());
        scene.check_room(there.map(|key| key.len()))?;
    }
    let mut count = 0;
    for key in &args[1..] {
        count += i64::from(scene.remove(key)?);
    }
    Ok(Reply::Int(count))
}

/// EXISTS and TOUCH.
pub fn exists(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    args[1..].iter().for_each(|key| scene.look(key));
    let count = args[1..].iter().filter(|key| scene.exists(key)).count();
    Ok(Reply::Int(count as i64))
}

/// TYPE. A lease looks like a text.
pub fn kind(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    scene.look(args[1]);
    let kind = match scene.content(args[1]) {
        Some(content) => content.kind().name(),
        None if scene.exists(args[1]) => "string",
        None => "none",
    };
    Ok(Reply::Status(kind.into()))
}

/// RENAME and RENAMENX.
pub fn rename(scene: &mut Scene, args: &[&[u8]], only_absent: bool) -> Step<Reply> {
    let Some(content) = scene.content(args[1]).cloned() else {
        super::refuse_leased(scene, args[1])?;
        return Err(super::NO_KEY);
    };
    let done = if only_absent { Reply::Int(1) } else { Reply::OK };
    if args[1] == args[2] {
        return Ok(if only_absent { Reply::Int(0) } else { done });
    }
    if only_absent && scene.exists(args[2]) {
        return Ok(Reply::Int(0));
    }
    let expires = scene.expires(args[1]);
    scene.put(args[2], content)?;
    if expires.is_some() {
        scene.expire(args[2], expires)?;
    }
    scene.remove(args[1])?;
    Ok(done)
}

/// COPY.
pub fn copy(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (home, mut db, mut replace) = (scene.db, scene.db, false);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        if is(word, "REPLACE") {
            replace = true;
        } else if is(word, "DB") && at + 1 < args.len() {
            at += 1;
            let number = i32::try_from(an_integer(args[at])?).map_err(|_| {
                Reply::error(
                    "ERR value is out of range, value must between -2147483648 and 2147483647",
                )
            })?;
            let number = u8::try_from(number).ok().filter(|db| *db < DATABASES);
            db = number.ok_or_else(|| Reply::error("ERR DB index is out of range"))?;
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    if home == db && args[1] == args[2] {
        return Err(Reply::error("ERR source and destination objects are the same"));
    }
    let Some(content) = scene.content(args[1]).cloned() else { return Ok(Reply::Int(0)) };
    let expires = scene.expires(args[1]);
    scene.db = db;
    let copied = copy_to(scene, args[2], content, expires, replace);
    scene.db = home;
    copied
}

fn copy_to(
    scene: &mut Scene,
    key: &[u8],
    content: Content,
    expires: Option<u64>,
    replace: bool,
) -> Step<Reply> {
    if !replace && scene.exists(key) {
        return Ok(Reply::Int(0));
    }
    scene.put(key, content)?;
    if expires.is_some() {
        scene.expire(key, expires)?;
    }
    Ok(Reply::Int(1))
}

/// The keys of the chosen set, as the shard names them.
fn all(scene: &Scene) -> Vec<Bytes> {
    let (mut found, _) = scene.keys.scan(scene.db, 0, usize::MAX);
    found.extend(scene.keys.made(scene.db).cloned());
    found
}

/// KEYS.
pub fn keys(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let mut all = all(scene);
    all.retain(|name| glob::matches(args[1], client_name(name).1));
    all.sort_unstable();
    Ok(Reply::Array(all.iter().map(|name| Reply::bulk(client_name(name).1)).collect()))
}

/// DBSIZE.
pub fn dbsize(scene: &mut Scene) -> Step<Reply> {
    Ok(Reply::Int(scene.keys.count(scene.db) as i64))
}

/// RANDOMKEY.
pub fn randomkey(scene: &mut Scene) -> Step<Reply> {
    let (db, places) = (scene.db, scene.keys.places(scene.db));
    let made = scene.keys.made(db).count();
    for _ in 0..DRAWS {
        let drawn = scene.random(places + made);
        let key = match drawn.checked_sub(places) {
            None => scene.keys.at(db, drawn),
            Some(place) => scene.keys.made(db).nth(place).cloned(),
        };
        if let Some(name) = key {
            return Ok(Reply::bulk(client_name(&name).1));
        }
    }
    // Nearly all keys have run out, or this decision has removed them.
    let found = all(scene);
    let drawn = scene.random(found.len());
    Ok(found.get(drawn).map_or(Reply::Nil, |name| Reply::bulk(client_name(name).1)))
}

/// SCAN.
pub fn scan(scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let options = ScanOptions::read(args[1], &args[2..], true)?;
    let from = u32::try_from(options.cursor).unwrap_or(u32::MAX);
    let (mut found, next) = scene.keys.scan(scene.db, from, options.count.min(SCANNED));
    if next.is_none() {
        found.extend(scene.keys.made(scene.db).cloned());
    }
    let wanted = |name: &&Bytes| {
        let kind = || scene.keys.get(name).map(|seen| seen.content.kind().name());
        options.matches(client_name(name).1)
            && options.kind.is_none_or(|wanted| kind().is_some_and(|kind| is(wanted, kind)))
    };
    let keys = found.iter().filter(wanted).map(|name| Reply::bulk(client_name(name).1));
    let cursor = Reply::bulk(next.unwrap_or(0).to_string());
    Ok(Reply::Array(vec![cursor, Reply::Array(keys.collect())]))
}

/// FLUSHDB and FLUSHALL. Leases stay.
pub fn flush(scene: &mut Scene, args: &[&[u8]], everything: bool) -> Step<Reply> {
    match args[1..] {
        [] => {}
        [word] if is(word, "SYNC") || is(word, "ASYNC") => {}
        _ => return Err(SYNTAX),
    }
    match everything {
        true => scene.keys.empty_all(),
        false => scene.keys.empty(scene.db),
    }
    Ok(Reply::OK)
}

/// What OBJECT asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// How Redis would keep it.
    Encoding,
    /// How often it is used.
    Frequency,
    /// How long nobody used it.
    Idle,
    /// How often Redis would share it.
    References,
}

/// OBJECT.
pub fn object(scene: &mut Scene, args: &[&[u8]], aspect: Aspect) -> Step<Reply> {
    let Some(content) = scene.content(args[2]) else { return Ok(Reply::Nil) };
    Ok(match aspect {
        Aspect::Encoding => Reply::bulk(encoding(content)),
        Aspect::Frequency => Reply::error(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please \
             note that when switching between policies at runtime LRU and LFU data will take some \
             time to adjust.",
        ),
        Aspect::Idle => Reply::Int(0),
        Aspect::References => Reply::Int(1),
    })
}

/// By the sizes at which Redis chooses, as it is set up by default.
fn encoding(content: &Content) -> &'static str {
    const ITEMS: usize = 128;
    const BYTES: usize = 64;
    let packed = content.len() <= ITEMS;
    match content {
        Content::Text(text) if integer(text).is_some() => "int",
        Content::Text(text) if text.len() <= 44 => "embstr",
        Content::Text(_) => "raw",
        Content::Hash(fields) => {
            let short = |(f, v): &(Bytes, Bytes)| f.len() <= BYTES && v.len() <= BYTES;
            if packed && fields.iter().all(short) { "listpack" } else { "hashtable" }
        }
        Content::List(_) => "quicklist",
        Content::Set(members) => {
            let whole = |member: &Bytes| integer(member).is_some();
            if members.len() <= 512 && members.iter().all(whole) { "intset" } else { "hashtable" }
        }
        Content::Sorted(sorted) => {
            let short = |(member, _): &(Bytes, f64)| member.len() <= BYTES;
            if packed && sorted.members().iter().all(short) { "listpack" } else { "skiplist" }
        }
    }
}
