//! The commands about keys, on a shard of their own: first what is ours alone, locks and leases and
//! limits, then everything against a Redis.

mod differential;

use std::time::Duration;

use differential::redis::Value;
use differential::shard::{Shard, View};
use leasehold_core::limits::SECOND;
use leasehold_core::{
    Acquire, Command, EffectKind, HoldRef, Limits, Mode, Name, Op, Outcome, Refusal, SessionId,
    Tenure, Ticket, Token, Wait, Wants,
};
use leasehold_resp_door::Reply;
use leasehold_resp_door::commands::blocking::Attempt;

fn shard() -> Shard {
    Shard::new(Limits::default())
}

/// A command with words between spaces.
fn run(shard: &mut Shard, view: View, line: &str) -> Reply {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    shard.run(view, &args)
}

fn ask(shard: &mut Shard, line: &str) -> Reply {
    run(shard, View::default(), line)
}

fn error(text: &'static str) -> Reply {
    Reply::error(text)
}

/// Takes a lease; the token, or why not.
fn acquire(shard: &mut Shard, name: &str, label: Option<&str>) -> Result<Token, Refusal> {
    let op = Op::Acquire(Box::new(Acquire {
        wants: Wants::One(Name::new(name).expect("a name"), Mode::Exclusive),
        hold: 0,
        reentrant: false,
        tenure: Tenure { ttl_us: Some(100 * SECOND), session: false },
        wait: Wait::No,
        lock_delay_us: 0,
        label: label.map(Into::into),
    }));
    let command = Command { ticket: Ticket(1), session: SessionId(0), request: None, op };
    for effect in shard.step(command) {
        if let EffectKind::Reply(_, answer) = effect.kind {
            return answer.map(|outcome| match outcome {
                Outcome::Granted { token, .. } => token,
                other => panic!("{other:?} is no grant"),
            });
        }
    }
    panic!("no answer")
}

fn is_lock(shard: &mut Shard, name: &str) -> bool {
    match acquire(shard, name, None) {
        Ok(_) => false,
        Err(Refusal::Busy { .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn keys_that_are_set_if_absent_are_locks() {
    let mut s = shard();
    let takes = [
        ("a", "SET a owner NX PX 30000", Reply::OK),
        ("b", "SET b owner NX", Reply::OK),
        ("c", "SETNX c owner", Reply::Int(1)),
        ("d", "SET d owner EX 30 NX GET", Reply::Nil),
        ("e", "SET e owner IFNE nobody PX 30000", Reply::OK),
        ("f", "MSETNX f 1 g 2", Reply::Int(1)),
    ];
    for (key, line, reply) in takes {
        assert_eq!(ask(&mut s, line), reply, "{line}");
        assert!(is_lock(&mut s, key), "{line} takes a lock");
    }
    assert!(is_lock(&mut s, "g"));
    for line in ["SET h v", "SET i v PX 1000", "SET j v XX", "APPEND k v", "INCR l", "HSET m a b"] {
        ask(&mut s, line);
        let key = line.split(' ').nth(1).expect("a key");
        assert!(!is_lock(&mut s, key), "{line} takes no lock");
    }
    assert_eq!(ask(&mut s, "SET a other NX"), Reply::Nil);
    assert_eq!(ask(&mut s, "SETNX a other"), Reply::Int(0));
    assert_eq!(ask(&mut s, "DELEX a IFEQ other"), Reply::Int(0));
    assert_eq!(ask(&mut s, "DELEX a IFEQ owner"), Reply::Int(1));
    assert!(!is_lock(&mut s, "a"), "a deleted key is no lock any more");
    s.check();
}

#[test]
fn what_a_script_finds_absent_and_lets_expire_is_a_lock() {
    let takes = ["EXISTS r", "HEXISTS r f", "GET r", "TYPE r", "PTTL r", "TTL r", "HGET r f"];
    for look in takes {
        for (in_multi, locks) in [(true, true), (false, false)] {
            let mut s = shard();
            let lines = [look, "HINCRBY r f 1", "PEXPIRE r 30000"];
            s.decide(|keys| {
                let mut scene = leasehold_resp_door::scene::Scene::new(keys, 1);
                scene.in_multi = in_multi;
                for line in lines {
                    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
                    let entry = leasehold_resp_door::table::resolve(&args).expect("a command");
                    leasehold_resp_door::commands::run(entry.id, &mut scene, &args);
                }
            });
            assert_eq!(is_lock(&mut s, "r"), locks, "{look} {in_multi}");
        }
    }
}

#[test]
fn leases_are_seen_as_texts_and_not_written() {
    let mut s = shard();
    let token = acquire(&mut s, "job", None).expect("a free lock");
    acquire(&mut s, "named", Some("worker 7")).expect("a free lock");
    let shown = format!("lease:{}", token.0);
    assert_eq!(ask(&mut s, "GET job"), Reply::bulk(&shown));
    assert_eq!(ask(&mut s, "GET named"), Reply::bulk("worker 7"));
    assert_eq!(ask(&mut s, "EXISTS job job nothing"), Reply::Int(2));
    assert_eq!(ask(&mut s, "TYPE job"), Reply::Status("string".into()));
    assert_eq!(ask(&mut s, "TTL job"), Reply::Int(100));
    assert!(matches!(ask(&mut s, "PTTL job"), Reply::Int(99_000..=100_000)));
    assert_eq!(ask(&mut s, "SET job me NX PX 1000"), Reply::Nil);
    assert_eq!(ask(&mut s, "SETNX job me"), Reply::Int(0));
    assert_eq!(ask(&mut s, "MSETNX other 1 job 2"), Reply::Int(0));
    assert_eq!(ask(&mut s, "HEXISTS job f"), Reply::Int(0));
    let refusal = Reply::error(format!(
        "LEASED the key is held as a lease with token {}; use LEASE.RELEASE",
        token.0
    ));
    let writes = [
        "SET job v",
        "SET job v XX",
        "DEL job",
        "UNLINK a job",
        "EXPIRE job 5",
        "PERSIST job",
        "APPEND job v",
        "INCR job",
        "GETDEL job",
        "GETSET job v",
        "MSET a 1 job 2",
        "HSET job f v",
        "HDEL job f",
        "LPUSH job v",
        "LPUSHX job v",
        "LPOP job",
        "LREM job 0 v",
        "LTRIM job 0 1",
        "SADD job v",
        "SREM job v",
        "SPOP job",
        "ZADD job 1 v",
        "ZREM job v",
        "ZPOPMIN job",
        "RENAME job other",
        "COPY named job REPLACE",
        "SETRANGE job 0 v",
        "DELEX job",
        "SMOVE job a v",
        "GETEX job EX 5",
        "LSET job 0 v",
        "RPOPLPUSH job a",
    ];
    ask(&mut s, "SET src v");
    for line in writes {
        let line = line.replace("COPY named", "COPY src");
        assert_eq!(ask(&mut s, &line), refusal, "{line}");
    }
    assert_eq!(ask(&mut s, "EXISTS a other"), Reply::Int(0), "nothing was half done");
    assert_eq!(ask(&mut s, "DBSIZE"), Reply::Int(1));
    assert_eq!(run(&mut s, View { db: 1, ..View::default() }, "SET job v"), Reply::OK);
    s.check();
}

#[test]
fn a_value_is_compared_before_it_is_set() {
    let mut s = shard();
    assert_eq!(ask(&mut s, "SET k new IFEQ old"), Reply::Nil);
    assert_eq!(ask(&mut s, "EXISTS k"), Reply::Int(0));
    ask(&mut s, "SET k old PX 90000");
    assert_eq!(ask(&mut s, "SET k new IFEQ other"), Reply::Nil);
    assert_eq!(ask(&mut s, "SET k new IFEQ other GET"), Reply::bulk("old"));
    assert_eq!(ask(&mut s, "SET k new IFEQ old KEEPTTL"), Reply::OK);
    assert!(matches!(ask(&mut s, "PTTL k"), Reply::Int(80_000..)));
    assert_eq!(ask(&mut s, "SET k newer IFNE new"), Reply::Nil);
    assert_eq!(ask(&mut s, "SET k newer IFNE old GET"), Reply::bulk("new"));
    assert_eq!(ask(&mut s, "GET k"), Reply::bulk("newer"));
    for line in ["SET k v IFEQ", "SET k v IFEQ a NX", "SET k v NX IFNE a", "SET k v IFEQ a IFEQ a"]
    {
        assert_eq!(ask(&mut s, line), error("ERR syntax error"), "{line}");
    }
    ask(&mut s, "LPUSH l v");
    let wrong = "WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(ask(&mut s, "SET l v IFEQ v"), error(wrong));
    let wrong = "ERR Key should be of string type if conditions are specified";
    assert_eq!(ask(&mut s, "DELEX l IFEQ v"), error(wrong));
    assert_eq!(ask(&mut s, "DELEX l"), Reply::Int(1));
    assert_eq!(ask(&mut s, "DELEX k IFNE newer"), Reply::Int(0));
    assert_eq!(ask(&mut s, "DELEX k IFNE older"), Reply::Int(1));
    assert_eq!(ask(&mut s, "DELEX k IFEQ x"), Reply::Int(0));
    let arity = error("ERR wrong number of arguments for 'delex' command");
    assert_eq!(ask(&mut s, "DELEX k IFEQ"), arity);
}

#[test]
fn numbered_sets_do_not_meet() {
    let mut s = shard();
    let view = |db| View { db, ..View::default() };
    let odd: [&[u8]; 4] = [b"", b"\xff\xff", b"\xff\xff\x01k", b"k"];
    for key in odd {
        for db in 0..3 {
            let value = [db];
            assert_eq!(s.run(view(db), &[b"SET", key, &value]), Reply::OK);
        }
    }
    for db in 0..3 {
        let mut keys = match s.run(view(db), &[b"KEYS", b"*"]) {
            Reply::Array(keys) => keys,
            other => panic!("{other:?}"),
        };
        keys.sort_by_key(|key| format!("{key:?}"));
        let mut all: Vec<_> = odd.iter().map(Reply::bulk).collect();
        all.sort_by_key(|key| format!("{key:?}"));
        assert_eq!(keys, all);
        odd.iter().for_each(|key| assert_eq!(s.run(view(db), &[b"GET", key]), Reply::bulk([db])));
    }
    assert_eq!(s.run(view(1), &[b"FLUSHDB"]), Reply::OK);
    assert_eq!(s.run(view(1), &[b"DBSIZE"]), Reply::Int(0));
    assert_eq!(s.run(view(2), &[b"DBSIZE"]), Reply::Int(4));
    assert_eq!(s.run(view(1), &[b"RANDOMKEY"]), Reply::Nil);
    assert_eq!(run(&mut s, view(2), "COPY k copied DB 1"), Reply::Int(1));
    assert_eq!(run(&mut s, view(1), "GET copied"), Reply::bulk([2]));
    assert_eq!(run(&mut s, view(1), "COPY k x DB 16"), error("ERR DB index is out of range"));
    assert_eq!(ask(&mut s, "FLUSHALL"), Reply::OK);
    assert_eq!(run(&mut s, view(2), "DBSIZE"), Reply::Int(0));
    s.check();
}

#[test]
fn keys_vanish_when_their_time_is_over() {
    let mut s = shard();
    ask(&mut s, "SET k v PX 1500");
    ask(&mut s, "RPUSH l a");
    ask(&mut s, "PEXPIRE l 2500");
    s.ahead += 2 * SECOND;
    assert_eq!(ask(&mut s, "EXISTS k l"), Reply::Int(1));
    assert_eq!(ask(&mut s, "DBSIZE"), Reply::Int(1));
    assert_eq!(ask(&mut s, "RPUSH l b"), Reply::Int(2), "a push keeps the time");
    assert_eq!(ask(&mut s, "SET k w NX"), Reply::OK, "what has vanished is absent");
    s.ahead += SECOND;
    assert_eq!(ask(&mut s, "EXISTS k l"), Reply::Int(1));
    assert_eq!(ask(&mut s, "RPUSH l c"), Reply::Int(1));
    assert_eq!(ask(&mut s, "TTL l"), Reply::Int(-1), "a new list has no end");
    s.check();
}

#[test]
fn what_is_too_large_changes_nothing() {
    let limits = Limits { value_bytes: 1000, content_bytes: 4000, ..Limits::default() };
    let mut s = Shard::new(limits);
    let long = "x".repeat(1001);
    let value = error("ERR the value's size in bytes is 1001; at most 1000 is allowed");
    assert_eq!(ask(&mut s, &format!("SET k {long}")), value);
    assert_eq!(ask(&mut s, &format!("APPEND k {long}")), value);
    assert_eq!(ask(&mut s, &format!("MSET a 1 k {long}")), value);
    assert_eq!(ask(&mut s, "EXISTS a"), Reply::Int(0));
    let far = error("ERR the value's size in bytes is 400000001; at most 1000 is allowed");
    assert_eq!(ask(&mut s, "SETRANGE k 400000000 x"), far);
    let longest = error("ERR string exceeds maximum allowed size (proto-max-bulk-len)");
    assert_eq!(ask(&mut s, "SETRANGE k 536870912 x"), longest);
    let item = "x".repeat(900);
    let line = format!("RPUSH l {item} {item} {item} {item} {item}");
    assert!(matches!(ask(&mut s, &line), Reply::Error(_)));
    assert_eq!(ask(&mut s, "EXISTS l"), Reply::Int(0), "all of the elements or none");
    assert_eq!(ask(&mut s, &format!("RPUSH l {item} {item} {item}")), Reply::Int(3));
    assert!(matches!(ask(&mut s, &format!("RPUSH l {item} {item}")), Reply::Error(_)));
    assert_eq!(ask(&mut s, "LLEN l"), Reply::Int(3));
    assert_eq!(ask(&mut s, "LPOP l 2"), Reply::Array(vec![Reply::bulk(&item); 2]));
    let name = "n".repeat(1025);
    let key = error("ERR the register's key is 1025; at most 1024 is allowed");
    assert_eq!(ask(&mut s, &format!("SET {name} v")), key);
    s.check();
}

#[test]
fn who_waits_is_told_for_what_and_how_long() {
    let mut s = shard();
    let attempt = |s: &mut Shard, db, line: &str| {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        s.attempt(View { db, ..View::default() }, &args)
    };
    let blocks = |keys: &[&[u8]], ms: u64| Attempt::WouldBlock {
        keys: keys.iter().map(|key| key.to_vec()).collect(),
        timeout: (ms > 0).then(|| Duration::from_millis(ms)),
        on_timeout: Reply::NilArray,
    };
    assert_eq!(attempt(&mut s, 0, "BLPOP a b 0"), blocks(&[b"a", b"b"], 0));
    assert_eq!(attempt(&mut s, 0, "BRPOP a 1.5"), blocks(&[b"a"], 1500));
    assert_eq!(attempt(&mut s, 0, "BLPOP a 0.0001"), blocks(&[b"a"], 1));
    assert_eq!(attempt(&mut s, 3, "BZPOPMIN a 2"), blocks(&[b"\xff\xff\x03a"], 2000));
    assert_eq!(attempt(&mut s, 0, "BLMPOP 2 2 a b LEFT"), blocks(&[b"a", b"b"], 2000));
    assert_eq!(attempt(&mut s, 0, "BZMPOP 2 1 a MAX"), blocks(&[b"a"], 2000));
    assert_eq!(attempt(&mut s, 0, "BLMOVE a b LEFT RIGHT 2"), blocks(&[b"a"], 2000));
    assert_eq!(attempt(&mut s, 0, "BRPOPLPUSH a b 2"), blocks(&[b"a"], 2000));
    run(&mut s, View { db: 3, ..View::default() }, "ZADD a 1 m");
    assert_eq!(s.pushed, [b"\xff\xff\x03a".to_vec()]);
    ask(&mut s, "RPUSH c x y");
    assert_eq!(s.pushed, [b"c".to_vec()]);
    ask(&mut s, "LPOP c");
    assert!(s.pushed.is_empty());
    ask(&mut s, "RENAME c a");
    assert_eq!(s.pushed, [b"a".to_vec()]);
    let popped = Reply::Array(vec![Reply::bulk("a"), Reply::bulk("y")]);
    assert_eq!(attempt(&mut s, 0, "BLPOP b a 0"), Attempt::Done(popped));
    let now = View { in_multi: true, ..View::default() };
    assert_eq!(run(&mut s, now, "BLPOP a 0"), Reply::NilArray);
    assert_eq!(run(&mut s, now, "BLMOVE a b LEFT LEFT 0"), Reply::Nil);
}

#[test]
fn choices_are_members_and_all_come_up() {
    let mut s = shard();
    let members: Vec<String> = (0..20).map(|n| format!("m{n:02}")).collect();
    ask(&mut s, &format!("SADD t {}", members.join(" ")));
    let known = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => {
            let name = String::from_utf8_lossy(bytes).into_owned();
            assert!(members.contains(&name));
            name
        }
        other => panic!("{other:?} is no member"),
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..400 {
        seen.insert(known(&ask(&mut s, "SRANDMEMBER t")));
    }
    assert_eq!(seen.len(), 20);
    let Reply::Array(some) = ask(&mut s, "SRANDMEMBER t 7") else { panic!("a list") };
    let different: std::collections::BTreeSet<_> = some.iter().map(known).collect();
    assert_eq!((some.len(), different.len()), (7, 7));
    let Reply::Array(some) = ask(&mut s, "SRANDMEMBER t -50") else { panic!("a list") };
    assert_eq!(some.len(), 50);
    let mut popped = std::collections::BTreeSet::new();
    for left in (0..20).rev() {
        popped.insert(known(&ask(&mut s, "SPOP t")));
        assert_eq!(ask(&mut s, "SCARD t"), Reply::Int(left));
    }
    assert_eq!(popped.len(), 20);
    assert_eq!(ask(&mut s, "SPOP t"), Reply::Nil);
    s.check();
}

#[test]
fn keys_are_all_seen_by_scanning() {
    let mut s = shard();
    for n in 0..100 {
        ask(&mut s, &format!("SET k{n} v"));
    }
    let mut cursor = "0".to_owned();
    let mut seen = std::collections::BTreeSet::new();
    let mut calls = 0;
    loop {
        let Reply::Array(reply) = ask(&mut s, &format!("SCAN {cursor} COUNT 7")) else {
            panic!("a pair")
        };
        let [Reply::Bulk(next), Reply::Array(keys)] = &reply[..] else { panic!("a cursor") };
        for key in keys {
            let Reply::Bulk(key) = key else { panic!("a key") };
            seen.insert(key.clone());
        }
        // What is deleted meanwhile moves nothing.
        ask(&mut s, &format!("DEL k{calls}"));
        calls += 1;
        cursor = String::from_utf8_lossy(next).into_owned();
        if cursor == "0" {
            break;
        }
    }
    assert!(seen.len() >= 85, "{}", seen.len());
    assert!((15..=20).contains(&calls), "{calls}");
    // A script sees the keys that it has made itself.
    let lines = ["SET made v", "KEYS made", "DBSIZE", "SCAN 0 COUNT 1000 MATCH made"];
    let replies = s.decide(|keys| {
        let mut scene = leasehold_resp_door::scene::Scene::new(keys, 1);
        lines.map(|line| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let entry = leasehold_resp_door::table::resolve(&args).expect("a command");
            leasehold_resp_door::commands::run(entry.id, &mut scene, &args)
        })
    });
    let made = Reply::Array(vec![Reply::bulk("made")]);
    assert_eq!(replies[1], made);
    assert_eq!(replies[2], Reply::Int(101 - calls));
    assert_eq!(replies[3], Reply::Array(vec![Reply::bulk("0"), made]));
}

#[test]
fn neighbours_leave_a_list_together() {
    let mut s = shard();
    ask(&mut s, "RPUSH l a x x b x a x x x");
    assert_eq!(ask(&mut s, "LREM l -4 x"), Reply::Int(4));
    let items = |text: &str| Reply::Array(text.split(' ').map(Reply::bulk).collect());
    assert_eq!(ask(&mut s, "LRANGE l 0 -1"), items("a x x b a"));
    ask(&mut s, "PEXPIRE l 90000");
    assert_eq!(ask(&mut s, "LTRIM l 1 2"), Reply::OK);
    assert_eq!(ask(&mut s, "LMOVE l l LEFT RIGHT"), Reply::bulk("x"));
    ask(&mut s, "LPOP l");
    assert_eq!(ask(&mut s, "LMOVE l l LEFT RIGHT"), Reply::bulk("x"));
    assert!(matches!(ask(&mut s, "PTTL l"), Reply::Int(80_000..)), "turning keeps the time");
    s.check();
}

#[test]
fn replies_have_the_shapes_of_both_versions() {
    let mut s = shard();
    ask(&mut s, "ZADD z 1 a 2.5 b");
    let two = View::default();
    let three = View { resp3: true, ..two };
    let bulk = |text: &str| Value::Bulk(text.as_bytes().to_vec());
    let line = [&b"ZRANGE"[..], b"z", b"0", b"-1", b"WITHSCORES"];
    let flat = Value::Array(vec![bulk("a"), bulk("1"), bulk("b"), bulk("2.5")]);
    assert_eq!(s.ask(two, &line), flat);
    let pair = |name, score: &str| Value::Array(vec![bulk(name), Value::Double(score.into())]);
    assert_eq!(s.ask(three, &line), Value::Array(vec![pair("a", "1"), pair("b", "2.5")]));
}

#[test]
fn every_reply_is_as_redis_gives_it() {
    differential::compare();
}

#[test]
fn a_name_that_somebody_waits_for_looks_as_if_it_were_held() {
    let mut s = shard();
    let token = acquire(&mut s, "b", None).expect("it is free");
    let wants = ["a", "b"].map(|name| (Name::new(name).expect("a name"), Mode::Exclusive));
    let op = Op::Acquire(Box::new(Acquire {
        wants: Wants::Many(wants.into()),
        hold: 0,
        reentrant: false,
        tenure: Tenure { ttl_us: Some(100 * SECOND), session: false },
        wait: Wait::AtMost(100 * SECOND),
        lock_delay_us: 0,
        label: None,
    }));
    let waits = Command { ticket: Ticket(2), session: SessionId(0), request: None, op };
    assert!(s.step(waits).is_empty(), "b is held");
    assert_eq!(ask(&mut s, "SET a me NX PX 1000"), Reply::Nil);
    assert_eq!(ask(&mut s, "SETNX a me"), Reply::Int(0));
    assert_eq!(ask(&mut s, "EXISTS a"), Reply::Int(1));
    assert_eq!(ask(&mut s, "GET a"), Reply::bulk("lease:0"));
    assert!(matches!(ask(&mut s, "PTTL a"), Reply::Int(90_000..=100_000)), "when b's lease ends");
    for line in ["SET a me", "HSET a field me", "RPUSH a me"] {
        let Reply::Error(text) = ask(&mut s, line) else { panic!("{line} passed") };
        assert!(text.starts_with("ERR lock a is") && text.contains("others wait"), "{text}");
    }
    assert_eq!(ask(&mut s, "DEL a"), Reply::Int(0), "there is nothing to be deleted");
    assert_eq!(ask(&mut s, "DBSIZE"), Reply::Int(0));
    let hold = HoldRef { name: Name::new("b").expect("a name"), token, hold: 0 };
    let op = Op::Release(hold);
    s.step(Command { ticket: Ticket(3), session: SessionId(0), request: None, op });
    let Reply::Error(text) = ask(&mut s, "SET a me") else { panic!("it is leased") };
    assert!(text.starts_with("LEASED"), "{text}");
    s.check();
}

#[test]
fn databases_are_counted_drawn_from_and_flushed_apart() {
    let mut s = shard();
    let one = View { db: 1, ..View::default() };
    for n in 0..50 {
        ask(&mut s, &format!("SET k{n} v"));
    }
    run(&mut s, one, "SET only v PX 50");
    let sizes = |s: &mut Shard| [View::default(), one].map(|view| run(s, view, "DBSIZE"));
    assert_eq!(sizes(&mut s), [Reply::Int(50), Reply::Int(1)]);
    assert_eq!(run(&mut s, one, "RANDOMKEY"), Reply::bulk("only"));
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let Reply::Bulk(key) = ask(&mut s, "RANDOMKEY") else { panic!("a key") };
        drawn.insert(key);
    }
    assert_eq!(drawn.len(), 50, "every key is drawn now and then");
    s.ahead += 100_000;
    assert_eq!(run(&mut s, one, "RANDOMKEY"), Reply::Nil);
    assert_eq!(sizes(&mut s), [Reply::Int(50), Reply::Int(0)]);
    run(&mut s, one, "SET other v");
    assert_eq!(ask(&mut s, "FLUSHDB"), Reply::OK);
    assert_eq!(sizes(&mut s), [Reply::Int(0), Reply::Int(1)]);
    assert_eq!(ask(&mut s, "SETNX k3 v"), Reply::Int(1));
    assert_eq!(ask(&mut s, "FLUSHALL ASYNC"), Reply::OK);
    assert_eq!(sizes(&mut s), [Reply::Int(0), Reply::Int(0)]);
    assert_eq!(run(&mut s, one, "KEYS *"), Reply::Array(vec![]));
    s.check();
}
