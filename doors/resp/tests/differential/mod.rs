//! The same random commands to Redis and to us; the replies have to be the same, byte by byte.
//!
//! Replies without an order are sorted first, those at random are compared by their shape, and
//! times may differ by what passes between the two. What else differs stands in [`DIFFERENCES`]
//! with its reason, as `docs/reference/resp-differences.md` repeats. After a difference that is not
//! there both start over, so that one does not lead to the next.

pub mod redis;
pub mod shard;
mod templates;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use leasehold_core::Limits;
use leasehold_resp_door::table;

use redis::{Client, Server, Value};
use shard::{Shard, View};
use templates::Writer;

/// Commands of one seed.
const COMMANDS: usize = 32_000;
/// Everything is compared after so many.
const ROUND: usize = 500;
/// So many differences are shown.
const SHOWN: usize = 25;

/// A reply that is meant to differ.
struct Difference {
    /// The command.
    command: &'static str,
    /// What differs.
    what: &'static str,
    /// Why.
    why: &'static str,
    /// Whether two replies differ in this way: ours, theirs. `None`: the random commands do not ask
    /// for it.
    is: Option<fn(&Value, &Value) -> bool>,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        command: "object",
        what: "OBJECT ENCODING tells how Redis would keep a new value of this content",
        why: "there is one encoding here; Redis does not go back from a larger one, or from `raw`",
        is: Some(|ours, theirs| matches!((ours, theirs), (Value::Bulk(_), Value::Bulk(_)))),
    },
    Difference {
        command: "object",
        what: "OBJECT REFCOUNT is always 1",
        why: "small whole numbers are one shared object in Redis, with a count of 2147483647",
        is: Some(|ours, theirs| (ours, theirs) == (&Value::Int(1), &Value::Int(i32::MAX.into()))),
    },
    Difference {
        command: "hscan",
        what: "HSCAN answers all fields at once",
        why: "a cursor would miss fields when others are removed meanwhile; small hashes do it too",
        is: Some(at_once),
    },
    Difference {
        command: "sscan",
        what: "SSCAN answers all members at once",
        why: "as HSCAN",
        is: Some(at_once),
    },
    Difference {
        command: "zscan",
        what: "ZSCAN answers all members at once",
        why: "as HSCAN",
        is: Some(at_once),
    },
    Difference {
        command: "dbsize",
        what: "DBSIZE counts keys whose time is over for a few milliseconds at most",
        why: "Redis counts them until it happens to remove them",
        is: Some(|ours, theirs| match (ours, theirs) {
            (Value::Int(ours), Value::Int(theirs)) => *ours <= theirs + 2,
            _ => false,
        }),
    },
    Difference {
        command: "object",
        what: "OBJECT IDLETIME is 0",
        why: "nothing counts when a key was last read",
        is: None,
    },
    Difference {
        command: "srandmember",
        what: "SRANDMEMBER, HRANDFIELD and ZRANDMEMBER with a count below 0 draw 1,048,576 at most",
        why: "Redis would answer until its memory is full",
        is: None,
    },
    Difference {
        command: "zrangebylex",
        what: "ranges by text of members with different scores hold other members",
        why: "Redis calls the result undefined",
        is: None,
    },
    Difference {
        command: "zadd",
        what: "a score of -0 is kept as 0 in large sorted sets too",
        why: "Redis does so in small ones only",
        is: None,
    },
    Difference {
        command: "zscan",
        what: "ZSCAN tells whole scores from 1e17 on in full for large sorted sets too",
        why: "as before",
        is: None,
    },
    Difference {
        command: "set",
        what: "SET knows IFEQ and IFNE, and there is DELEX",
        why: "as Redis 8.4; locks are given back without a script",
        is: None,
    },
    Difference {
        command: "set",
        what: "names, values, collections and what one command writes have limits of their own",
        why: "limits of the server; the errors name them",
        is: None,
    },
    Difference {
        command: "pexpireat",
        what: "times after the year 586,000 end there",
        why: "time is 64 bits of microseconds",
        is: None,
    },
    Difference {
        command: "keys",
        what: "KEYS, SMEMBERS, HGETALL and others without an order are sorted by bytes",
        why: "collections are kept in that order; Redis promises none",
        is: None,
    },
    Difference {
        command: "scan",
        what: "SCAN takes a COUNT above 10,000 for 10,000",
        why: "everybody else waits for a step of it",
        is: None,
    },
    Difference {
        command: "scan",
        what: "SCAN, KEYS and DBSIZE do not tell leases, and FLUSHALL does not end them",
        why: "they are no keys",
        is: None,
    },
    Difference {
        command: "get",
        what: "the name of a lease, and one that somebody waits for, reads as a text, counts for \
               EXISTS and NX, and is not written",
        why: "both are locks of one name",
        is: None,
    },
];

/// We have answered all, Redis has not.
fn at_once(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            let end = Value::Bulk(b"0".to_vec());
            ours.first() == Some(&end) && theirs.first() != Some(&end)
        }
        _ => false,
    }
}

/// The same commands for every seed that is asked for.
pub fn compare() {
    let seeds = std::env::var("LEASEHOLD_SEEDS").ok();
    let seeds = seeds.and_then(|text| text.parse().ok()).unwrap_or(1);
    let first = std::env::var("LEASEHOLD_SEED").ok();
    let first = first.and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + seeds {
        println!("seed {seed}");
        Run::new(seed).run();
    }
    for Difference { command, what, why, .. } in DIFFERENCES {
        println!("{command}: {what}, because {why}");
    }
}

fn wall() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

struct Run {
    seed: u64,
    writer: Writer,
    /// With RESP2 and with RESP3.
    redis: [Client; 2],
    _server: Server,
    ours: Shard,
    db: u8,
    found: Vec<String>,
    accepted: usize,
    compared: usize,
    /// Replies of each command, and how many of them were errors.
    commands: BTreeMap<String, (usize, usize)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let server = Server::start(&format!("seed{seed}"));
        let redis = [server.connect(false), server.connect(true)];
        let writer = Writer::new(seed, wall());
        let ours = Shard::new(Limits::default());
        let found = Vec::new();
        Self {
            seed,
            writer,
            redis,
            _server: server,
            ours,
            db: 0,
            found,
            accepted: 0,
            compared: 0,
            commands: BTreeMap::new(),
        }
    }

    fn run(mut self) {
        for number in 0..COMMANDS {
            if number % ROUND == ROUND - 1 {
                self.compare_all();
                self.ours.check();
            }
            if self.writer.below(200) == 0 {
                self.db = self.writer.below(3) as u8;
                let db = self.db.to_string();
                for client in &mut self.redis {
                    client.ask(&[b"SELECT", db.as_bytes()]);
                }
            }
            let command = self.writer.command();
            let args: Vec<&[u8]> = command.iter().map(|arg| &**arg).collect();
            self.compare_one(number, &args);
            if self.found.len() >= SHOWN {
                break;
            }
        }
        let (compared, accepted) = (self.compared, self.accepted);
        println!("seed {}: {compared} replies compared, {accepted} meant to differ", self.seed);
        self.check_reach();
        assert!(self.found.is_empty(), "seed {}:\n{}", self.seed, self.found.join("\n"));
    }

    /// Comparing errors alone would prove little.
    fn check_reach(&self) {
        let names = templates::TEMPLATES.iter().filter_map(|line| line.split(' ').next());
        let of = |name: &str| {
            let (replies, errors) =
                self.commands.get(&name.to_lowercase()).copied().unwrap_or_default();
            (errors * 10 >= replies * 9).then(|| format!("{name}: {errors} of {replies}"))
        };
        let mostly: BTreeSet<String> = names.filter_map(of).collect();
        assert!(mostly.is_empty(), "these answer errors mostly: {mostly:?}");
    }

    fn compare_one(&mut self, number: usize, args: &[&[u8]]) {
        let Ok(entry) = table::resolve(args) else {
            // What the table refuses never comes to the commands.
            return;
        };
        let resp3 = self.writer.below(2) == 1;
        let waits = entry.flags.has(table::Flags::BLOCKING);
        let client = &mut self.redis[usize::from(resp3)];
        let theirs = match waits {
            false => client.ask(args),
            true => {
                client.ask(&[b"MULTI"]);
                client.ask(args);
                match client.ask(&[b"EXEC"]) {
                    Value::Array(mut replies) => replies.pop().expect("one reply"),
                    other => other,
                }
            }
        };
        let view = View { db: self.db, resp3, in_multi: waits };
        let ours = self.ours.ask(view, args);
        self.compared += 1;
        let name = args[0].to_ascii_lowercase();
        let name = String::from_utf8_lossy(&name).into_owned();
        let (replies, errors) = self.commands.entry(name.clone()).or_default();
        *replies += 1;
        *errors += usize::from(matches!(theirs, Value::Error(_)));
        if same(&name, &ours, &theirs) {
            self.follow(&name, args, &ours, &theirs);
            return;
        }
        let meant = |difference: &&Difference| {
            difference.command == name && difference.is.is_some_and(|is| is(&ours, &theirs))
        };
        if DIFFERENCES.iter().any(|difference| meant(&difference)) {
            self.accepted += 1;
            return;
        }
        let text: Vec<_> = args.iter().map(|arg| arg.escape_ascii().to_string()).collect();
        let text = text.join(" ");
        self.found.push(format!("{number}: {text}\n   ours   {ours:?}\n   theirs {theirs:?}"));
        self.start_over();
    }

    fn start_over(&mut self) {
        self.redis[0].ask(&[b"FLUSHALL"]);
        self.ours.ask(View::default(), &[b"FLUSHALL"]);
    }

    /// Takes from our set what Redis took from its own.
    fn follow(&mut self, name: &str, args: &[&[u8]], ours: &Value, theirs: &Value) {
        if name != "spop" {
            return;
        }
        let view = View { db: self.db, ..View::default() };
        for (value, command) in [(ours, &b"SADD"[..]), (theirs, b"SREM")] {
            let one = std::slice::from_ref(value);
            let members = match value {
                Value::Array(items) | Value::Set(items) => items,
                _ => one,
            };
            for member in members {
                if let Value::Bulk(member) = member
                    && ours != theirs
                {
                    self.ours.ask(view, &[command, args[1], member]);
                }
            }
        }
    }

    /// Everything in every database.
    fn compare_all(&mut self) {
        for db in 0..6u8 {
            let view = View { db, ..View::default() };
            self.redis[0].ask(&[b"SELECT", db.to_string().as_bytes()]);
            let theirs = self.redis[0].ask(&[b"KEYS", b"*"]).sorted(false);
            let ours = self.ours.ask(view, &[b"KEYS", b"*"]).sorted(false);
            let mut differs = (ours != theirs).then(|| format!("KEYS {ours:?} {theirs:?}"));
            if let Value::Array(keys) = &theirs {
                for key in keys {
                    let Value::Bulk(key) = key else { panic!("keys are bytes") };
                    differs = differs.or_else(|| self.compare_key(view, key));
                }
            }
            if let Some(differs) = differs {
                self.found.push(format!("in database {db}: {differs}"));
                self.start_over();
            }
        }
        let db = self.db.to_string();
        self.redis[0].ask(&[b"SELECT", db.as_bytes()]);
    }

    fn compare_key(&mut self, view: View, key: &[u8]) -> Option<String> {
        let questions: [&[&[u8]]; 7] = [
            &[b"TYPE", key],
            &[b"PTTL", key],
            &[b"GET", key],
            &[b"HGETALL", key],
            &[b"LRANGE", key, b"0", b"-1"],
            &[b"SMEMBERS", key],
            &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        ];
        for args in questions {
            let (ours, theirs) = (self.ours.ask(view, args), self.redis[0].ask(args));
            let name = String::from_utf8_lossy(args[0]).to_lowercase();
            if !same(&name, &ours, &theirs) {
                return Some(format!("{name} {}: {ours:?} {theirs:?}", key.escape_ascii()));
            }
        }
        None
    }
}

/// Whether two replies are the same, as far as they have to be.
fn same(name: &str, ours: &Value, theirs: &Value) -> bool {
    if ours == theirs {
        return true;
    }
    let sorted = |value: &Value, pairs| value.clone().sorted(pairs);
    let within = |value: &Value, pairs| match value {
        Value::Array(parts) if parts.len() == 2 => {
            vec![parts[0].clone(), sorted(&parts[1], pairs)]
        }
        other => vec![other.clone()],
    };
    match name {
        "hgetall" => sorted(ours, true) == sorted(theirs, true),
        "hkeys" | "hvals" | "smembers" | "sinter" | "sunion" | "sdiff" | "keys" => {
            sorted(ours, false) == sorted(theirs, false)
        }
        "hscan" => within(ours, true) == within(theirs, true),
        "scan" | "sscan" => within(ours, false) == within(theirs, false),
        "spop" | "randomkey" => ours.clone().shape() == theirs.clone().shape(),
        "hrandfield" | "srandmember" | "zrandmember" => {
            ours.clone().shape() == theirs.clone().shape()
        }
        "ttl" | "expiretime" => near(ours, theirs, 1),
        "pttl" | "pexpiretime" => near(ours, theirs, 2000),
        _ => false,
    }
}

fn near(ours: &Value, theirs: &Value, by: u64) -> bool {
    match (ours, theirs) {
        (Value::Int(one), Value::Int(other)) => {
            *one > 0 && *other > 0 && one.abs_diff(*other) <= by
        }
        _ => false,
    }
}
