//! Commands that wait for an element. Here they only try; the session does the waiting.
//!
//! A client that waits tries again when a key that it named has got something. The keys are told as
//! the shard names them, as [`Scene::pushed`] tells those that got something.

use std::time::Duration;

use leasehold_core::Time;

use super::lists::End;
use super::{extended, lists, picks, sorted};
use crate::Reply;
use crate::scene::{Scene, Step};
use crate::table::Command;

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// The answer.
    Done(Reply),
    /// There is nothing yet.
    WouldBlock {
        /// One of these has to get an element.
        keys: Vec<Vec<u8>>,
        /// How long to wait for that; `None`: for ever.
        timeout: Option<Duration>,
        /// The answer when nothing came.
        on_timeout: Reply,
    },
}

/// Tries a command that may wait. In scripts and between MULTI and EXEC it never does.
pub fn attempt(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Attempt {
    let now = scene.in_script || scene.in_multi;
    match try_once(command, scene, args) {
        Ok(Tried::Got(reply)) | Err(reply) => Attempt::Done(reply),
        Ok(Tried::Nothing { at_once, .. }) if now => Attempt::Done(at_once),
        Ok(Tried::Nothing { keys, timeout, .. }) => {
            let keys = keys.iter().map(|key| scene.name(key).into_owned()).collect();
            Attempt::WouldBlock { keys, timeout, on_timeout: Reply::NilArray }
        }
    }
}

/// Runs such a command as if its time were over at once.
///
/// # Errors
/// Those of the command.
pub fn at_once(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    try_once(command, scene, args).map(|tried| match tried {
        Tried::Got(reply) => reply,
        Tried::Nothing { at_once, .. } => at_once,
    })
}

enum Tried<'a> {
    Got(Reply),
    Nothing { keys: &'a [&'a [u8]], timeout: Option<Duration>, at_once: Reply },
}

fn try_once<'a>(command: Command, scene: &mut Scene, args: &'a [&'a [u8]]) -> Step<Tried<'a>> {
    let last = args.len() - 1;
    let (got, keys, timeout, at_once) = match command {
        Command::Blpop | Command::Brpop => {
            let timeout = timeout(scene, args[last])?;
            let end = if command == Command::Blpop { End::Left } else { End::Right };
            (pop(scene, &args[1..last], end)?, &args[1..last], timeout, Reply::NilArray)
        }
        Command::Blmove | Command::Brpoplpush => {
            let (from, to) = match command {
                Command::Blmove => (End::read(args[3])?, End::read(args[4])?),
                _ => (End::Right, End::Left),
            };
            let timeout = timeout(scene, args[last])?;
            let moved = lists::shift(scene, (args[1], from), (args[2], to))?;
            (moved, &args[1..2], timeout, Reply::Nil)
        }
        Command::Blmpop => {
            let (keys, end, count) = lists::read_lmpop(&args[2..])?;
            let timeout = timeout(scene, args[1])?;
            (lists::take_first(scene, keys, end, count)?, keys, timeout, Reply::NilArray)
        }
        Command::Bzmpop => {
            let (keys, highest, count) = sorted::read_zmpop(&args[2..])?;
            let timeout = timeout(scene, args[1])?;
            (sorted::take_first(scene, keys, highest, count)?, keys, timeout, Reply::NilArray)
        }
        Command::Bzpopmin | Command::Bzpopmax => {
            let timeout = timeout(scene, args[last])?;
            let highest = command == Command::Bzpopmax;
            (zpop(scene, &args[1..last], highest)?, &args[1..last], timeout, Reply::NilArray)
        }
        _ => return Err(super::NOT_HERE),
    };
    Ok(match got {
        Some(reply) => Tried::Got(reply),
        None => Tried::Nothing { keys, timeout, at_once },
    })
}

fn pop(scene: &mut Scene, keys: &[&[u8]], end: End) -> Step<Option<Reply>> {
    for key in keys {
        let mut taken = lists::take(scene, key, end, 1)?;
        if let Some(item) = taken.pop() {
            return Ok(Some(Reply::Array(vec![Reply::bulk(key), item])));
        }
    }
    Ok(None)
}

fn zpop(scene: &mut Scene, keys: &[&[u8]], highest: bool) -> Step<Option<Reply>> {
    for key in keys {
        if let Some((member, score)) = sorted::take(scene, key, highest, 1)?.pop() {
            let mut reply = vec![Reply::bulk(key)];
            picks::with(&mut reply, Reply::Bulk(member), Some(Reply::Double(score)), false);
            return Ok(Some(Reply::Array(reply)));
        }
    }
    Ok(None)
}

/// Seconds with a fraction; 0 is for ever.
fn timeout(scene: &Scene, text: &[u8]) -> Step<Option<Duration>> {
    let number = extended::read(text)
        .map_err(|_| Reply::error("ERR timeout is not a float or out of range"))?;
    let out_of_range = || Reply::error("ERR timeout is out of range");
    // What does not fit is negative to Redis too.
    let ms = number.milliseconds().filter(|ms| *ms >= 0);
    let ms = ms.ok_or_else(|| Reply::error("ERR timeout is negative"))?;
    ms.checked_add(scene.wall_ms()).ok_or_else(out_of_range)?;
    Ok((ms > 0).then(|| Duration::from_millis(ms as Time)))
}
