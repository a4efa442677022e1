//! What the commands about keys do: texts, hashes, lists, sets, sorted sets, and keys as such.
//!
//! Each is a function of a [`Scene`] and the arguments as they came; the table has seen to it that
//! there are enough of them. Errors are replies like others, so functions end with them early.
//! A command either does all that it should or nothing: what can refuse comes before what changes.

pub mod blocking;
mod extended;
mod hashes;
mod keyspace;
mod lists;
pub(crate) mod numbers;
mod picks;
mod ranges;
mod sets;
mod sorted;
mod strings;
mod times;
mod unions;

use std::borrow::Cow;

use leasehold_core::Token;

use crate::Reply;
use crate::scene::{Scene, Step};
use crate::table::Command;

use keyspace::Aspect;
use lists::End;
pub use numbers::integer;
use numbers::{SYNTAX, an_integer, is};
use ranges::By;
use sets::Way;
use times::Unit;

/// The error for a key that has to be there.
const NO_KEY: Reply = Reply::Error(Cow::Borrowed("ERR no such key"));
/// The error for a command that is not about keys.
const NOT_HERE: Reply = Reply::Error(Cow::Borrowed("ERR this command is not about keys"));

/// Runs a command about keys. `args` begins with its name and has as many arguments as the table
/// asks for. A command that would wait answers as if its time were over; see [`blocking`].
pub fn run(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Reply {
    match texts(command, scene, args) {
        Ok(reply) | Err(reply) => reply,
    }
}

fn wrong_arity(name: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn leased(token: Token) -> Reply {
    Reply::error(format!(
        "LEASED the key is held as a lease with token {}; use LEASE.RELEASE",
        token.0
    ))
}

/// Commands that change a key refuse a lease even when there would be nothing to change.
fn refuse_leased(scene: &Scene, key: &[u8]) -> Step<()> {
    scene.keys.leased(&scene.name(key)).map_or(Ok(()), |lease| Err(leased(lease.token)))
}

/// Some of the arguments.
type Args<'a> = &'a [&'a [u8]];

/// A number of keys, so many keys, and the arguments behind them.
fn counted_keys<'a>(args: Args<'a>) -> Step<(Args<'a>, Args<'a>)> {
    let count = integer(args[0]).filter(|count| *count > 0);
    let count = count.ok_or_else(|| Reply::error("ERR numkeys should be greater than 0"))?;
    args[1..].split_at_checked(count as usize).ok_or(SYNTAX)
}

/// COUNT at the end of LMPOP and ZMPOP.
fn pop_options(args: &[&[u8]]) -> Step<usize> {
    match *args {
        [] => Ok(1),
        [word, count, ..] if is(word, "COUNT") => {
            let count = integer(count).filter(|count| *count > 0);
            let count = count.ok_or_else(|| Reply::error("ERR count should be greater than 0"))?;
            if args.len() > 2 { Err(SYNTAX) } else { Ok(count as usize) }
        }
        _ => Err(SYNTAX),
    }
}

fn texts(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    match command {
        Command::Append => strings::append(scene, args),
        Command::Decr => strings::add(scene, args[1], -1),
        Command::Decrby => strings::decrby(scene, args),
        Command::Delex => strings::delex(scene, args),
        Command::Get => strings::get(scene, args),
        Command::Getdel => strings::getdel(scene, args),
        Command::Getex => strings::getex(scene, args),
        Command::Getrange | Command::Substr => strings::getrange(scene, args),
        Command::Getset => strings::getset(scene, args),
        Command::Incr => strings::add(scene, args[1], 1),
        Command::Incrby => strings::add(scene, args[1], an_integer(args[2])?),
        Command::Incrbyfloat => strings::incrbyfloat(scene, args),
        Command::Mget => strings::mget(scene, args),
        Command::Mset => strings::mset(scene, args, false),
        Command::Msetnx => strings::mset(scene, args, true),
        Command::Psetex => strings::setex(scene, args, Unit::Milliseconds),
        Command::Set => strings::set(scene, args),
        Command::Setex => strings::setex(scene, args, Unit::Seconds),
        Command::Setnx => strings::setnx(scene, args),
        Command::Setrange => strings::setrange(scene, args),
        Command::Strlen => strings::strlen(scene, args),
        Command::Hdel => hashes::hdel(scene, args),
        Command::Hexists => hashes::hexists(scene, args),
        Command::Hget => hashes::hget(scene, args),
        Command::Hgetall => hashes::hgetall(scene, args),
        Command::Hincrby => hashes::hincrby(scene, args),
        Command::Hincrbyfloat => hashes::hincrbyfloat(scene, args),
        Command::Hkeys => hashes::hkeys(scene, args),
        Command::Hlen => hashes::hlen(scene, args),
        Command::Hmget => hashes::hmget(scene, args),
        Command::Hmset => hashes::hset(scene, args, true),
        Command::Hrandfield => hashes::hrandfield(scene, args),
        Command::Hscan => hashes::hscan(scene, args),
        Command::Hset => hashes::hset(scene, args, false),
        Command::Hsetnx => hashes::hsetnx(scene, args),
        Command::Hstrlen => hashes::hstrlen(scene, args),
        Command::Hvals => hashes::hvals(scene, args),
        _ => keys(command, scene, args),
    }
}

fn keys(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    match command {
        Command::Copy => keyspace::copy(scene, args),
        Command::Dbsize => keyspace::dbsize(scene),
        Command::Del | Command::Unlink => keyspace::del(scene, args),
        Command::Exists | Command::Touch => keyspace::exists(scene, args),
        Command::Expire => times::expire(scene, args, Unit::Seconds),
        Command::Expireat => times::expire(scene, args, Unit::DateSeconds),
        Command::Expiretime => times::left(scene, args, Unit::DateSeconds),
        Command::Flushall => keyspace::flush(scene, args, true),
        Command::Flushdb => keyspace::flush(scene, args, false),
        Command::Keys => keyspace::keys(scene, args),
        Command::ObjectEncoding => keyspace::object(scene, args, Aspect::Encoding),
        Command::ObjectFreq => keyspace::object(scene, args, Aspect::Frequency),
        Command::ObjectIdletime => keyspace::object(scene, args, Aspect::Idle),
        Command::ObjectRefcount => keyspace::object(scene, args, Aspect::References),
        Command::Persist => times::persist(scene, args),
        Command::Pexpire => times::expire(scene, args, Unit::Milliseconds),
        Command::Pexpireat => times::expire(scene, args, Unit::DateMilliseconds),
        Command::Pexpiretime => times::left(scene, args, Unit::DateMilliseconds),
        Command::Pttl => times::left(scene, args, Unit::Milliseconds),
        Command::Randomkey => keyspace::randomkey(scene),
        Command::Rename => keyspace::rename(scene, args, false),
        Command::Renamenx => keyspace::rename(scene, args, true),
        Command::Scan => keyspace::scan(scene, args),
        Command::Ttl => times::left(scene, args, Unit::Seconds),
        Command::Type => keyspace::kind(scene, args),
        _ => collections(command, scene, args),
    }
}

fn collections(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    match command {
        Command::Lindex => lists::lindex(scene, args),
        Command::Linsert => lists::linsert(scene, args),
        Command::Llen => lists::llen(scene, args),
        Command::Lmove => lists::lmove(scene, args),
        Command::Lmpop => lists::lmpop(scene, args),
        Command::Lpop => lists::pop(scene, args, End::Left),
        Command::Lpos => lists::lpos(scene, args),
        Command::Lpush => lists::push(scene, args, End::Left, false),
        Command::Lpushx => lists::push(scene, args, End::Left, true),
        Command::Lrange => lists::lrange(scene, args),
        Command::Lrem => lists::lrem(scene, args),
        Command::Lset => lists::lset(scene, args),
        Command::Ltrim => lists::ltrim(scene, args),
        Command::Rpop => lists::pop(scene, args, End::Right),
        Command::Rpoplpush => lists::rpoplpush(scene, args),
        Command::Rpush => lists::push(scene, args, End::Right, false),
        Command::Rpushx => lists::push(scene, args, End::Right, true),
        Command::Sadd => sets::sadd(scene, args),
        Command::Scard => sets::scard(scene, args),
        Command::Sdiff => sets::combined(scene, args, Way::Diff),
        Command::Sdiffstore => sets::store(scene, args, Way::Diff),
        Command::Sinter => sets::combined(scene, args, Way::Inter),
        Command::Sintercard => sets::sintercard(scene, args),
        Command::Sinterstore => sets::store(scene, args, Way::Inter),
        Command::Sismember => sets::sismember(scene, args),
        Command::Smembers => sets::smembers(scene, args),
        Command::Smismember => sets::smismember(scene, args),
        Command::Smove => sets::smove(scene, args),
        Command::Spop => sets::spop(scene, args),
        Command::Srandmember => sets::srandmember(scene, args),
        Command::Srem => sets::srem(scene, args),
        Command::Sscan => sets::sscan(scene, args),
        Command::Sunion => sets::combined(scene, args, Way::Union),
        Command::Sunionstore => sets::store(scene, args, Way::Union),
        _ => sorted_sets(command, scene, args),
    }
}

fn sorted_sets(command: Command, scene: &mut Scene, args: &[&[u8]]) -> Step<Reply> {
    let (rank, score, text) = (Some(By::Rank), Some(By::Score), Some(By::Text));
    match command {
        Command::Zadd => sorted::zadd(scene, args),
        Command::Zcard => sorted::zcard(scene, args),
        Command::Zcount => ranges::zcount(scene, args, By::Score),
        Command::Zdiff => unions::combined(scene, args, Way::Diff),
        Command::Zdiffstore => unions::store(scene, args, Way::Diff),
        Command::Zincrby => sorted::zincrby(scene, args),
        Command::Zinter => unions::combined(scene, args, Way::Inter),
        Command::Zintercard => unions::zintercard(scene, args),
        Command::Zinterstore => unions::store(scene, args, Way::Inter),
        Command::Zlexcount => ranges::zcount(scene, args, By::Text),
        Command::Zmpop => sorted::zmpop(scene, args),
        Command::Zmscore => sorted::zmscore(scene, args),
        Command::Zpopmax => sorted::zpop(scene, args, true),
        Command::Zpopmin => sorted::zpop(scene, args, false),
        Command::Zrandmember => sorted::zrandmember(scene, args),
        Command::Zrange => ranges::zrange(scene, args, None, None),
        Command::Zrangebylex => ranges::zrange(scene, args, text, Some(false)),
        Command::Zrangebyscore => ranges::zrange(scene, args, score, Some(false)),
        Command::Zrangestore => ranges::zrangestore(scene, args),
        Command::Zrank => sorted::zrank(scene, args, false),
        Command::Zrem => sorted::zrem(scene, args),
        Command::Zremrangebylex => ranges::zremrange(scene, args, By::Text),
        Command::Zremrangebyrank => ranges::zremrange(scene, args, By::Rank),
        Command::Zremrangebyscore => ranges::zremrange(scene, args, By::Score),
        Command::Zrevrange => ranges::zrange(scene, args, rank, Some(true)),
        Command::Zrevrangebylex => ranges::zrange(scene, args, text, Some(true)),
        Command::Zrevrangebyscore => ranges::zrange(scene, args, score, Some(true)),
        Command::Zrevrank => sorted::zrank(scene, args, true),
        Command::Zscan => sorted::zscan(scene, args),
        Command::Zscore => sorted::zscore(scene, args),
        Command::Zunion => unions::combined(scene, args, Way::Union),
        Command::Zunionstore => unions::store(scene, args, Way::Union),
        _ => blocking::at_once(command, scene, args),
    }
}
