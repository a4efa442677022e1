//! The `redis` crate.

use redis::{Client, Commands, Connection, Script};

use crate::Door;
use crate::support::until;

/// Longer than the test.
const LONG: u64 = 300_000;

fn connect(door: &Door) -> Connection {
    let url = format!("redis://127.0.0.1:{}/", door.port);
    let client = Client::open(url).expect("it is an address");
    client.get_connection().expect("the door is open")
}

fn acquire(from: &mut Connection, name: &str, value: &str, ttl: u64) -> bool {
    let mut ask = redis::cmd("SET");
    ask.arg(name).arg(value).arg("NX").arg("PX").arg(ttl);
    ask.query::<Option<String>>(from).expect("an answer").is_some()
}

fn release(from: &mut Connection, name: &str, value: &str) -> bool {
    let script = Script::new(
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end \
         return 0",
    );
    script.key(name).arg(value).invoke::<bool>(from).expect("an answer")
}

fn renew(from: &mut Connection, name: &str, value: &str, ttl: u64) -> bool {
    let script = Script::new(
        "if redis.call('get', KEYS[1]) ~= ARGV[1] then return 0 end \
         return redis.call('pexpire', KEYS[1], ARGV[2])",
    );
    script.key(name).arg(value).arg(ttl).invoke::<bool>(from).expect("an answer")
}

#[test]
fn a_lock() {
    let mut door = Door::open();
    let (mut one, mut two) = (connect(&door), connect(&door));
    assert!(acquire(&mut one, "rs", "one", LONG));
    assert!(!acquire(&mut two, "rs", "two", LONG));
    assert!(renew(&mut one, "rs", "one", 2 * LONG));
    assert!(!renew(&mut two, "rs", "two", LONG));
    assert!(one.pttl::<_, u64>("rs").expect("an answer") > LONG);
    assert!(!release(&mut two, "rs", "two"));
    assert!(release(&mut one, "rs", "one"));
    assert!(acquire(&mut one, "rs", "one", 300));
    until("it ends", || acquire(&mut two, "rs", "two", LONG));
    assert!(!release(&mut one, "rs", "one"));
    door.restart();
    let (mut one, mut two) = (connect(&door), connect(&door));
    assert!(!acquire(&mut one, "rs", "one", LONG));
    assert!(!release(&mut one, "rs", "one"));
    assert!(release(&mut two, "rs", "two"));
    assert!(acquire(&mut one, "rs", "one", LONG));
}

#[test]
fn a_pipeline_and_a_transaction() {
    let door = Door::open();
    let (mut one, mut two) = (connect(&door), connect(&door));
    let mut many = redis::pipe();
    for _ in 0..10_000 {
        many.incr("count", 1).ignore();
    }
    let (count,): (u64,) = many.get("count").query(&mut one).expect("answers");
    assert_eq!(count, 10_000);
    let mut tries = 0;
    let twice = redis::transaction(&mut one, &["count"], |from, pipe| {
        let before: u64 = from.get("count")?;
        tries += 1;
        if tries == 1 {
            two.incr::<_, _, ()>("count", 1)?;
        }
        pipe.set("count", before * 2).ignore().get("count").query(from)
    });
    let (twice,): (u64,) = twice.expect("answers");
    assert_eq!((twice, tries), (20_002, 2));
}
