//! How random commands are made.
//!
//! In a template `{a|b|}` is one of these, `*{..}` none to three of them and `+{..}` one to three.
//! A letter after `$` is a key of a kind, `#` a number of keys and the keys, `%` another argument.
//! See [`Writer`] for the letters.

/// Every data command, the common ones several times.
pub const TEMPLATES: &[&str] = &[
    "SET $s %v",
    "SET $x %v",
    "SET $s %v {NX|XX|} {GET|} {EX %e|PX %e|EXAT %d|PXAT %D|KEEPTTL|}",
    "SET $s %v *{NX|XX|GET|EX %e|PX %e|KEEPTTL|PERSIST|FOO}",
    "GET $s",
    "GETSET $s %v",
    "GETDEL $s",
    "GETEX $s {PERSIST|EX %e|PX %e|EXAT %d|PXAT %D|}",
    "GETEX $s *{PERSIST|EX %e|PX %e|EXAT %d|PXAT %D|KEEPTTL|NX}",
    "SETNX $s %v",
    "SETEX $s %e %v",
    "PSETEX $s %e %v",
    "MGET +{$x}",
    "MSET +{$s %v}",
    "MSETNX +{$s %v}",
    "MSET $s %v $s",
    "APPEND $s %v",
    "STRLEN $s",
    "GETRANGE $s %n %n",
    "SUBSTR $s %n %n",
    "SETRANGE $s %n %v",
    "INCR $s",
    "DECR $s",
    "INCRBY $s %i",
    "DECRBY $s %i",
    "INCRBYFLOAT $s %f",
    "INCRBYFLOAT $s %f",
    "SET $s %i",
    "SET $s %f",
    "HSET $h +{%m %v}",
    "HSET $h +{%m %v}",
    "HSET $h %m %i",
    "HSET $h %m %f",
    "HSET $h %m %v %m",
    "HMSET $h +{%m %v}",
    "HSETNX $h %m %v",
    "HGET $h %m",
    "HMGET $h +{%m}",
    "HGETALL $h",
    "HDEL $h +{%m}",
    "HEXISTS $h %m",
    "HLEN $h",
    "HSTRLEN $h %m",
    "HKEYS $h",
    "HVALS $h",
    "HINCRBY $h %m %i",
    "HINCRBYFLOAT $h %m %f",
    "HRANDFIELD $h",
    "HRANDFIELD $h %k {WITHVALUES|}",
    "HRANDFIELD $h %k FOO",
    "HSCAN $h %u *{MATCH %p|COUNT %c|TYPE hash}",
    "LPUSH $l +{%m}",
    "RPUSH $l +{%m}",
    "RPUSH $l +{%m}",
    "LPUSH $l +{%m}",
    "LPUSHX $l +{%m}",
    "RPUSHX $l +{%m}",
    "LPOP $l {%c|}",
    "RPOP $l {%c|}",
    "LPOP $l 1 2",
    "LLEN $l",
    "LRANGE $l %n %n",
    "LRANGE $l 0 -1",
    "LINDEX $l %n",
    "LSET $l %n %v",
    "LSET $l {0|-1} %v",
    "LINSERT $l {BEFORE|AFTER|FOO} %m %m",
    "LREM $l %n %m",
    "LTRIM $l %n %n",
    "LPOS $l %m *{RANK %n|COUNT %c|MAXLEN %c|FOO}",
    "LMOVE $l $l {LEFT|RIGHT|FOO} {LEFT|RIGHT}",
    "RPOPLPUSH $l $l",
    "LMPOP #l {LEFT|RIGHT|FOO} {COUNT %c|}",
    "BLPOP +{$l} %t",
    "BRPOP +{$l} %t",
    "BLMOVE $l $l {LEFT|RIGHT} {LEFT|RIGHT|FOO} %t",
    "BRPOPLPUSH $l $l %t",
    "BLMPOP %t #l {LEFT|RIGHT} {COUNT %c|}",
    "SADD $t +{%m}",
    "SADD $t +{%m}",
    "SADD $t +{%m}",
    "SREM $t +{%m}",
    "SMEMBERS $t",
    "SISMEMBER $t %m",
    "SMISMEMBER $t +{%m}",
    "SCARD $t",
    "SPOP $t {%c|}",
    "SRANDMEMBER $t {%k|}",
    "SRANDMEMBER $t %k 1",
    "SMOVE $t $t %m",
    "SINTER +{$t}",
    "SUNION +{$t}",
    "SDIFF +{$t}",
    "SINTERSTORE $t +{$t}",
    "SUNIONSTORE $t +{$t}",
    "SDIFFSTORE $t +{$t}",
    "SINTERCARD #t {LIMIT %c|FOO|}",
    "SSCAN $t %u *{MATCH %p|COUNT %c}",
    "ZADD $z +{%r %m}",
    "ZADD $z +{%r %m}",
    "ZADD $z +{%r %m}",
    "ZADD $z *{NX|XX|GT|LT|CH|INCR} +{%r %m}",
    "ZADD $z *{XX|GT|CH} +{%f %m}",
    "ZADD $z %r %m %r",
    "ZREM $z +{%m}",
    "ZCARD $z",
    "ZCOUNT $z %b %b",
    "ZSCORE $z %m",
    "ZMSCORE $z +{%m}",
    "ZRANK $z %m",
    "ZREVRANK $z %m",
    "ZINCRBY $z %f %m",
    "ZRANGE $z %n %n {WITHSCORES|REV|REV WITHSCORES|}",
    "ZRANGE $z %b %b BYSCORE {REV|} {LIMIT %n %n|} {WITHSCORES|}",
    "ZREVRANGE $z %n %n {WITHSCORES|}",
    "ZRANGE $z %n %n *{BYSCORE|BYLEX|REV|LIMIT %n %n|WITHSCORES|FOO}",
    "ZRANGE $q %x %x BYLEX {REV|} {LIMIT %n %n|}",
    "ZRANGEBYLEX $q %x %x {LIMIT %n %n|}",
    "ZREVRANGEBYLEX $q %x %x {LIMIT %n %n|}",
    "ZLEXCOUNT $q %x %x",
    "ZREMRANGEBYLEX $q %x %x",
    "ZADD $q +{0 %m}",
    "ZADD $q +{0 %m}",
    "ZRANGEBYSCORE $z %b %b {WITHSCORES|} {LIMIT %n %n|}",
    "ZREVRANGEBYSCORE $z %b %b {WITHSCORES|} {LIMIT %n %n|}",
    "ZREMRANGEBYRANK $z %n %n",
    "ZREMRANGEBYSCORE $z %b %b",
    "ZRANGESTORE $z $z %n %n {REV|WITHSCORES|}",
    "ZRANGESTORE $z $z %b %b BYSCORE {REV|} {LIMIT %n %n|}",
    "ZPOPMIN $z {%c|}",
    "ZPOPMAX $z {%c|}",
    "ZPOPMIN $z 1 2",
    "ZMPOP #z {MIN|MAX|FOO} {COUNT %c|}",
    "BZPOPMIN +{$z} %t",
    "BZPOPMAX +{$z} %t",
    "BZMPOP %t #z {MIN|MAX} {COUNT %c|}",
    "ZRANDMEMBER $z",
    "ZRANDMEMBER $z %k {WITHSCORES|}",
    "ZSCAN $z %u *{MATCH %p|COUNT %c}",
    "ZUNION #y {AGGREGATE {SUM|MIN|MAX|FOO}|} {WITHSCORES|}",
    "ZINTER #y {WITHSCORES|}",
    "ZINTER #y {WEIGHTS %f|WEIGHTS %f %f|} {AGGREGATE {SUM|MIN|MAX}|} {WITHSCORES|}",
    "ZUNION #y {WEIGHTS %f|WEIGHTS %f %f|} {WITHSCORES|}",
    "ZDIFF #y {WITHSCORES|LIMIT 1|}",
    "ZUNIONSTORE $z #y {WEIGHTS %f %f|} {AGGREGATE {SUM|MIN|MAX}|}",
    "ZDIFFSTORE $z #y",
    "ZINTERSTORE $z #y {WEIGHTS %f %f|AGGREGATE MAX|WITHSCORES|}",
    "ZINTERCARD #y {LIMIT %c|FOO|}",
    "DEL +{$x}",
    "UNLINK $x",
    "EXISTS +{$x}",
    "TOUCH +{$x}",
    "TYPE $x",
    "TYPE $x",
    "EXPIRE $x %e {NX|XX|GT|LT|FOO|}",
    "PEXPIRE $x %e *{NX|XX|GT|LT}",
    "EXPIREAT $x %d {NX|GT|}",
    "PEXPIREAT $x %D {XX|LT|}",
    "TTL $x",
    "PTTL $x",
    "EXPIRETIME $x",
    "PEXPIRETIME $x",
    "PERSIST $x",
    "RENAME $x $x",
    "RENAMENX $x $x",
    "COPY $x $x *{REPLACE|DB %c|FOO}",
    "COPY $x $x",
    "KEYS %p",
    "SCAN %u COUNT 10000",
    "SCAN 0 COUNT 10000 MATCH %p",
    "SCAN 0 COUNT 10000 TYPE {string|hash|list|set|zset|foo}",
    "SCAN 0 COUNT 0",
    "SCAN x",
    "DBSIZE",
    "RANDOMKEY",
    "OBJECT ENCODING $x",
    "OBJECT REFCOUNT $h",
    "OBJECT FREQ $x",
];

/// Rarer ones that end everything.
pub const ENDINGS: &[&str] = &["FLUSHDB {SYNC|ASYNC|FOO|}", "FLUSHALL {SYNC|ASYNC|FOO BAR|}"];

const MEMBERS: &[&str] = &["a", "b", "c", "d", "e", "aa", "ab", "1", "2", "10", "", "é", "x\0y"];
const VALUES: &[&str] =
    &["", "a", "hello world", "1", "-1", "10", "3.5", "0x1F", "\r\n", "é", "\0"];
const INTEGERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "-13",
    "100",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775807",
    "01",
    "+1",
    "-0",
    " 1",
    "1.5",
    "abc",
    "",
];
const FLOATS: &[&str] = &[
    "0",
    "1",
    "-1",
    "0.1",
    "-0.1",
    "1.5",
    "3.0e2",
    "1e17",
    "1e-5",
    "1e300",
    "-1e300",
    "inf",
    "-inf",
    "+inf",
    "nan",
    "0x10",
    "1e400",
    "1e-400",
    "abc",
    "",
    " 1",
    "1 ",
    ".5",
    "5.",
    "1e",
    "-0",
    "1000",
    "0.30000000000000004",
    "123456789.123456789",
    "99999999999999999999",
];
const SCORES: &[&str] = &["0", "1", "2", "3", "-1", "1.5", "-2.25", "1e10", "inf", "-inf", "0.1"];
const BOUNDS: &[&str] = &[
    "-inf", "+inf", "0", "1", "(1", "(0", "2", "(3", "1.5", "(-inf", "(inf", "abc", "(", "", "nan",
    "-5", "1e10", " 1",
];
const TEXT_BOUNDS: &[&str] =
    &["-", "+", "[a", "(a", "[b", "(c", "[", "(", "[zz", "a", "", "-a", "[1"];
const PATTERNS: &[&str] = &["*", "s*", "?1", "[sh]0", "[^s]*", "a*", "\\a", "", "*1", "[a-c]", "k"];
const ODD_KEYS: &[&[u8]] = &[b"", b"\xff\xff", b"\xff\xff\x01k", b"\xff", "é".as_bytes()];

/// Makes commands at random, the same for the same seed.
pub struct Writer {
    seed: u64,
    /// Seconds since 1970.
    pub wall: i64,
}

impl Writer {
    pub fn new(seed: u64, wall: i64) -> Self {
        Self { seed, wall }
    }

    pub fn below(&mut self, below: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mixed = (self.seed ^ (self.seed >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        ((mixed >> 33) as usize) % below
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    /// A command.
    pub fn command(&mut self) -> Vec<Vec<u8>> {
        let template = match self.below(300) {
            0 => self.one(ENDINGS),
            _ => self.one(TEMPLATES),
        };
        let mut args = Vec::new();
        self.write(template, &mut args);
        match self.below(100) {
            0 if args.len() > 1 => drop(args.pop()),
            1 => args.push(b"x".to_vec()),
            _ => {}
        }
        args
    }

    fn write(&mut self, template: &str, args: &mut Vec<Vec<u8>>) {
        let mut rest = template;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix(' ') {
                rest = after;
                continue;
            }
            let braced = rest.find('{').filter(|at| *at <= 1);
            let Some(open) = braced else {
                let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
                self.word(word, args);
                rest = after;
                continue;
            };
            let (inner, after) = split_group(&rest[open..]);
            let times = match rest.as_bytes()[0] {
                b'*' => self.below(4),
                b'+' => 1 + self.below(3),
                _ => 1,
            };
            for _ in 0..times {
                let choices = alternatives(inner);
                let choice = choices[self.below(choices.len())];
                self.write(choice, args);
            }
            rest = after;
        }
    }

    fn word(&mut self, word: &str, args: &mut Vec<Vec<u8>>) {
        let letter = word.as_bytes().get(1).copied().unwrap_or(b' ');
        match word.as_bytes()[0] {
            b'$' => args.push(self.key(letter)),
            b'#' => self.keys(letter, args),
            b'%' => {
                let text = self.argument(letter);
                args.push(text.into_bytes());
            }
            _ if self.below(10) == 0 => args.push(word.to_lowercase().into_bytes()),
            _ => args.push(word.as_bytes().to_vec()),
        }
    }

    /// Keys of a kind, mostly: text, hash, list, set (t), sorted, sorted with equal scores (q), set
    /// or sorted (y), any (x).
    fn key(&mut self, kind: u8) -> Vec<u8> {
        let kind = match kind {
            b'y' => self.one(&["z", "z", "t"]).as_bytes()[0],
            b'q' => b'q',
            _ if kind == b'x' || self.below(12) == 0 => {
                self.one(&["s", "h", "l", "t", "z"]).as_bytes()[0]
            }
            kind => kind,
        };
        if self.below(60) == 0 && kind != b'q' {
            return ODD_KEYS[self.below(ODD_KEYS.len())].to_vec();
        }
        vec![kind, b'0' + self.below(3) as u8]
    }

    fn keys(&mut self, kind: u8, args: &mut Vec<Vec<u8>>) {
        let count = 1 + self.below(3);
        let said = match self.below(20) {
            0 => self.one(&["0", "-1", "abc", "9", "9223372036854775807"]).to_owned(),
            1 => (count + 1).to_string(),
            _ => count.to_string(),
        };
        args.push(said.into_bytes());
        for _ in 0..count {
            let key = self.key(kind);
            args.push(key);
        }
    }

    fn argument(&mut self, letter: u8) -> String {
        let odd = self.below(25) == 0;
        let after = self.below(900_000) as i64 + 10_000;
        match letter {
            // A value, a member.
            b'v' => match self.below(8) {
                0 => "x".repeat(self.below(200)),
                _ => self.one(VALUES).to_owned(),
            },
            b'm' => self.one(MEMBERS).to_owned(),
            // A whole number, a place, a count, a cursor.
            b'n' if !odd => (self.below(13) as i64 - 6).to_string(),
            // For choices at random: Redis would answer for ever to the lowest number.
            b'k' if odd => self.one(&["abc", "01", "-9223372036854775808", "1.5"]).to_owned(),
            b'k' => (self.below(13) as i64 - 6).to_string(),
            b'c' if !odd => self.below(6).to_string(),
            b'u' if !odd => "0".to_owned(),
            b'u' => self.one(&["0", "abc", "", "-", "18446744073709551616"]).to_owned(),
            b'i' if self.below(3) > 0 => (self.below(41) as i64 - 20).to_string(),
            b'i' | b'n' | b'c' => self.one(INTEGERS).to_owned(),
            b'f' => self.one(FLOATS).to_owned(),
            // A score, and where ranges of scores and texts end.
            b'r' if odd => self.one(FLOATS).to_owned(),
            b'r' => self.one(SCORES).to_owned(),
            b'b' => self.one(BOUNDS).to_owned(),
            b'x' => self.one(TEXT_BOUNDS).to_owned(),
            b'p' => self.one(PATTERNS).to_owned(),
            // Times: from now, a date in seconds and in milliseconds, how long to wait.
            b'e' if self.below(6) == 0 => self
                .one(&["0", "-1", "-100", "abc", "9223372036854775807", "9223372036854775"])
                .to_owned(),
            b'e' => (after * 1000).to_string(),
            b'd' | b'D' if self.below(6) == 0 => self.one(&["0", "-1", "1", "abc"]).to_owned(),
            b'd' => (self.wall + after).to_string(),
            b'D' => (self.wall * 1000 + after * 1000 + 7).to_string(),
            b't' if odd => self.one(&["-1", "abc", "1e30", "inf", "nan", ""]).to_owned(),
            b't' => self.one(&["0", "0.01", "1"]).to_owned(),
            other => panic!("no argument {}", other as char),
        }
    }
}

/// What is within the braces at the start, and what comes after.
fn split_group(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return (&text[1..at], &text[at + 1..]),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    panic!("{text} has an end");
}

fn alternatives(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            b'|' if depth == 0 => {
                found.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[from..]);
    found
}
