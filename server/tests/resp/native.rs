//! Leases, sessions and queues: the commands that are no Redis commands.

use std::collections::BTreeSet;

use crate::Door;
use crate::raw::{Raw, Said};
use crate::support::until;
use crate::talk::number_of;

/// A connection that reads RESP3, and messages pushed.
fn reader(door: &Door) -> Raw {
    let mut one = door.raw();
    one.line("HELLO 3");
    one
}

/// A message that is pushed: its receipt and its body.
fn pushed(one: &mut Raw) -> (String, Vec<u8>) {
    let said = one.said();
    assert_eq!(said.parts()[0], Said::text("delivery"), "{said:?}");
    let message = said.parts()[2].parts();
    let (Said::Bulk(receipt), Said::Bulk(body)) = (&message[0], &message[2]) else {
        panic!("no message: {said:?}")
    };
    (String::from_utf8(receipt.clone()).expect("it is text"), body.clone())
}

/// A number that QUEUE.INFO tells.
fn info(one: &mut Raw, queue: &str, what: &str) -> i64 {
    let said = one.line(&format!("QUEUE.INFO {queue}"));
    let place = said.parts().iter().position(|part| *part == Said::text(what));
    said.parts()[place.expect("it is told") + 1].int()
}

#[test]
fn credit_of_a_consumer_is_changed_and_it_is_stopped() {
    let door = Door::open();
    let mut one = reader(&door);
    let mut other = door.raw();
    one.line("QUEUE.DECLARE work");
    for i in 0..10 {
        assert_eq!(other.ask(&["QUEUE.PUBLISH", "work", &i.to_string()]), Said::Int(1));
    }
    assert_eq!(one.line("QUEUE.STOP work"), Said::Int(0));
    assert_eq!(one.line("QUEUE.CONSUME work CREDIT 2"), Said::ok());
    let (first, _) = pushed(&mut one);
    pushed(&mut one);
    assert_eq!(info(&mut other, "work", "in-flight"), 2);
    // The same consumer, with more.
    one.tell(&["QUEUE.CONSUME", "work", "CREDIT", "5"]);
    let said: Vec<Said> = (0..4).map(|_| one.said()).collect();
    assert_eq!(said.iter().filter(|said| **said == Said::ok()).count(), 1, "{said:?}");
    assert_eq!(info(&mut other, "work", "consumers"), 1);
    assert_eq!(info(&mut other, "work", "in-flight"), 5);
    // With none: what is settled makes no room.
    assert_eq!(one.line("QUEUE.CONSUME work CREDIT 0"), Said::ok());
    assert_eq!(one.line(&format!("QUEUE.ACK work {first}")), Said::Int(1));
    assert_eq!(info(&mut other, "work", "in-flight"), 4);
    assert!(one.line("QUEUE.CONSUME work CREDIT 70000").error().contains("at most 65535"));
    // Stopped: what it has can still be settled, and nothing more comes.
    assert_eq!(one.line("QUEUE.CONSUME work CREDIT 5"), Said::ok());
    let (last, _) = pushed(&mut one);
    assert_eq!(one.line("QUEUE.STOP work"), Said::Int(1));
    assert_eq!(one.line("QUEUE.STOP work"), Said::Int(0));
    assert_eq!(info(&mut other, "work", "consumers"), 0);
    assert_eq!(one.line(&format!("QUEUE.ACK work {last}")), Said::Int(1));
    assert_eq!(one.line("PING"), Said::Status("PONG".into()));
    assert_eq!(info(&mut other, "work", "in-flight"), 4);
    // What it did not settle goes to others when it goes.
    drop(one);
    let mut bodies = BTreeSet::new();
    for _ in 0..8 {
        let message = other.line("QUEUE.RECEIVE work WAIT 30000");
        let Said::Bulk(body) = &message.parts()[2] else { panic!("no body: {message:?}") };
        bodies.insert(body.clone());
    }
    assert_eq!(bodies.len(), 8);
}

#[test]
fn a_consumer_needs_somebody_who_reads_what_is_pushed() {
    let door = Door::open();
    let (mut one, mut other) = (reader(&door), door.raw());
    one.line("QUEUE.DECLARE work");
    assert!(other.line("QUEUE.CONSUME work").error().contains("needs RESP3"));
    assert_eq!(one.line("QUEUE.CONSUME work"), Said::ok());
    assert!(one.line("HELLO 2").error().contains("QUEUE.STOP first"));
    // RESET goes back to RESP2, so it ends the consumer.
    assert_eq!(one.line("RESET"), Said::Status("RESET".into()));
    assert_eq!(info(&mut other, "work", "consumers"), 0);
    assert_eq!(other.line("QUEUE.PUBLISH work after"), Said::Int(1));
    assert_eq!(one.line("QUEUE.RECEIVE work").parts()[2], Said::text("after"));
    // So does the end of the session.
    one.line("HELLO 3");
    assert_eq!(one.line("QUEUE.CONSUME work"), Said::ok());
    assert_eq!(one.line("LEASE.SESSION CLOSE"), Said::ok());
    assert_eq!(info(&mut other, "work", "consumers"), 0);
    assert_eq!(one.line("QUEUE.CONSUME work"), Said::ok());
    assert_eq!(pushed(&mut one).1, b"after");
    // And the end of the queue, which is told.
    other.line("QUEUE.DELETE work");
    let ended = one.said();
    assert_eq!(ended.parts()[0], Said::text("consumer-ended"), "{ended:?}");
    assert_eq!(one.line("QUEUE.STOP work"), Said::Int(0));
    assert_eq!(number_of(&other.line("INFO clients"), "connected_clients"), 2);
}

/// The number and the proof of a session.
fn session(said: &Said) -> (i64, String) {
    let [number, Said::Bulk(proof)] = said.parts() else { panic!("no session: {said:?}") };
    (number.int(), String::from_utf8(proof.clone()).expect("it is text"))
}

fn refused(said: &Said, prefix: &str) {
    assert!(said.error().starts_with(prefix), "{said:?}");
}

#[test]
fn a_session_is_taken_up_by_whoever_proves_it() {
    let door = Door::open();
    let (mut one, mut other) = (door.raw(), door.raw());
    let (id, proof) = session(&one.line("LEASE.SESSION OPEN TTL 300000"));
    assert_eq!(one.line("LEASE.SESSION ID"), Said::Int(id));
    let token = one.line("LEASE.ACQUIRE kept me SESSION").parts()[0].int();
    let entered = one.line("LEASE.ACQUIRE entered me PX 300000 REENTRANT").parts()[0].int();
    drop(one);
    until("it is gone", || number_of(&other.line("INFO clients"), "connected_clients") == 1);
    assert_eq!(other.line("LEASE.ACQUIRE kept you PX 1000"), Said::Nil);
    // Nobody takes it by guessing, or gives back what it holds.
    let guessed = format!("LEASE.SESSION RESUME {id} {} TTL 1000", "0".repeat(32));
    refused(&other.line(&guessed), "NOSESSION");
    let next = format!("LEASE.SESSION RESUME {} {proof} TTL 1000", id + 1);
    refused(&other.line(&next), "NOSESSION");
    refused(&other.line(&format!("LEASE.SESSION RESUME {id} {proof}")), "ERR syntax");
    refused(&other.line(&format!("LEASE.SESSION RESUME {id} {proof} TTL 0")), "ERR the TTL");
    refused(&other.line("LEASE.SESSION OPEN TTL x"), "ERR the time");
    refused(&other.line(&format!("LEASE.RELEASE kept me {token}")), "ERR token");
    let mut two = door.raw();
    let resume = format!("LEASE.SESSION RESUME {id} {proof} TTL 300000");
    assert_eq!(session(&two.line(&resume)), (id, proof.clone()));
    assert_eq!(two.line(&format!("LEASE.CHECK kept {token}")), Said::Int(1));
    let again = two.line("LEASE.ACQUIRE entered me PX 300000 REENTRANT");
    assert_eq!(again.parts()[0].int(), entered, "entered, not taken again");
    assert_eq!(two.line(&format!("LEASE.RELEASE kept me {token}")), Said::Int(1));
    let yours = other.line("LEASE.ACQUIRE kept you PX 300000").parts()[0].int();
    assert!(yours > token, "{yours} after {token}");
    // Who takes it up while it is in use ends who has it.
    let mut three = door.raw();
    two.tell(&["LEASE.ACQUIRE", "kept", "me", "SESSION", "WAIT", "300000"]);
    until("it waits", || number_of(&other.line("INFO clients"), "blocked_clients") == 1);
    assert_eq!(session(&three.line(&resume)), (id, proof.clone()));
    assert_eq!(two.end(), 0);
    assert_eq!(other.line(&format!("LEASE.RELEASE kept you {yours}")), Said::Int(1));
    assert!(other.line("LEASE.ACQUIRE kept you PX 1000").parts()[0].int() > yours);
    assert_eq!(three.line(&format!("LEASE.CHECK entered {entered}")), Said::Int(1));
    // Its end ends what is bound to it.
    let bound = three.line("LEASE.ACQUIRE bound me SESSION").parts()[0].int();
    assert_eq!(three.line("LEASE.SESSION CLOSE"), Said::ok());
    assert_eq!(other.line(&format!("LEASE.CHECK bound {bound}")), Said::Int(0));
    refused(&other.line(&resume), "NOSESSION");
}

#[test]
fn a_session_outlives_the_server_and_ends_with_its_time() {
    let mut door = Door::open();
    let mut one = door.raw();
    let (id, proof) = session(&one.line("LEASE.SESSION OPEN TTL 1000"));
    let token = one.line("LEASE.ACQUIRE kept me SESSION PX 300000").parts()[0].int();
    door.restart();
    let mut one = door.raw();
    let resume = format!("LEASE.SESSION RESUME {id} {proof} TTL 100");
    assert_eq!(session(&one.line(&resume)).0, id);
    assert_eq!(one.line(&format!("LEASE.CHECK kept {token}")), Said::Int(1));
    // While a connection has it, its time does not run.
    let mut other = door.raw();
    other.tell(&["LEASE.ACQUIRE", "kept", "you", "PX", "1000", "WAIT", "500"]);
    assert_eq!(other.said(), Said::Nil);
    drop(one);
    other.tell(&["LEASE.ACQUIRE", "kept", "you", "PX", "1000", "WAIT", "30000"]);
    assert!(other.said().parts()[0].int() > token);
    refused(&other.line(&resume), "NOSESSION");
}

#[test]
fn a_lease_of_the_connection_ends_with_it() {
    let door = Door::open();
    let (mut one, mut other) = (door.raw(), door.raw());
    let token = one.line("LEASE.ACQUIRE bound me SESSION").parts()[0].int();
    let (again, entered) = ("LEASE.ACQUIRE twice me PX 300000 REENTRANT", 2);
    let twice: BTreeSet<i64> = (0..entered).map(|_| one.line(again).parts()[0].int()).collect();
    let twice = *twice.first().expect("there is one");
    for _ in 0..entered {
        assert_eq!(one.line(&format!("LEASE.CHECK twice {twice}")), Said::Int(1));
        assert_eq!(one.line(&format!("LEASE.RELEASE twice me {twice}")), Said::Int(1));
    }
    assert_eq!(one.line(&format!("LEASE.CHECK twice {twice}")), Said::Int(0));
    // Waits, and goes: it is never given to nobody.
    other.line("LEASE.ACQUIRE free me PX 300000");
    one.tell(&["LEASE.ACQUIRE", "free", "you", "PX", "300000", "WAIT", "300000"]);
    until("it waits", || number_of(&other.line("INFO clients"), "blocked_clients") == 1);
    drop(one);
    other.tell(&["LEASE.ACQUIRE", "bound", "you", "PX", "300000", "WAIT", "300000"]);
    assert!(other.said().parts()[0].int() > token);
    let view = other.line("LEASE.INSPECT free");
    let waiting = view.parts().iter().position(|part| *part == Said::text("waiting"));
    assert_eq!(view.parts()[waiting.expect("it is told") + 1], Said::Int(0));
    // A connection that begins anew has nothing of before.
    let mut one = reader(&door);
    one.line("LEASE.ACQUIRE mine me SESSION");
    assert_eq!(one.line("RESET"), Said::Status("RESET".into()));
    assert_eq!(one.line("LEASE.SESSION ID"), Said::Nil);
    assert_eq!(other.line("LEASE.ACQUIRE mine you PX 1000").parts().len(), 2);
    // Who goes at once leaves no session behind.
    for _ in 0..50 {
        door.raw().send(b"LEASE.SESSION OPEN\r\nLEASE.SESSION OPEN TTL 300000\r\n");
    }
    until("they are gone", || number_of(&other.line("INFO clients"), "connected_clients") == 2);
}

/// A lock, a message that is in work, and where the next one goes.
fn workshop(door: &Door) -> (Raw, Raw, i64, String) {
    let (mut one, mut other) = (door.raw(), door.raw());
    one.line("QUEUE.DECLARE in");
    one.line("QUEUE.DECLARE out");
    one.line("QUEUE.PUBLISH in task");
    let token = one.line("LEASE.ACQUIRE machine me PX 300000").parts()[0].int();
    let message = one.line("QUEUE.RECEIVE in");
    let Said::Bulk(receipt) = &message.parts()[0] else { panic!("no receipt: {message:?}") };
    let receipt = String::from_utf8(receipt.clone()).expect("it is text");
    assert_eq!(info(&mut other, "in", "in-flight"), 1);
    (one, other, token, receipt)
}

/// Sends lines between MULTI and EXEC, all at once; what EXEC says.
fn together(one: &mut Raw, lines: &[String]) -> Said {
    let all: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    one.send(format!("MULTI\r\n{all}EXEC\r\nPING\r\n").as_bytes());
    assert_eq!(one.said(), Said::ok());
    for line in lines {
        assert_eq!(one.said(), Said::Status("QUEUED".into()), "{line}");
    }
    let said = one.said();
    assert_eq!(one.said(), Said::Status("PONG".into()));
    said
}

#[test]
fn ack_publish_and_unlock_are_one_step() {
    let mut door = Door::open();
    let (mut one, mut other, token, receipt) = workshop(&door);
    let lines = [
        format!("LEASE.CHECK machine {token}"),
        format!("QUEUE.ACK in {receipt}"),
        "QUEUE.PUBLISH out first".into(),
        "QUEUE.PUBLISH out second PRIORITY 0".into(),
        format!("LEASE.RELEASE machine me {token}"),
    ];
    // Who waits for the lock gets it with the same step.
    other.tell(&["LEASE.ACQUIRE", "machine", "you", "PX", "300000", "WAIT", "300000"]);
    until("it waits", || number_of(&one.line("INFO clients"), "blocked_clients") == 1);
    assert_eq!(together(&mut one, &lines).parts(), vec![Said::Int(1); 5]);
    assert!(other.said().parts()[0].int() > token);
    let left = |one: &mut Raw| {
        let all = [("in", "ready"), ("in", "in-flight"), ("out", "ready"), ("out", "in-flight")];
        all.map(|(queue, what)| info(one, queue, what))
    };
    assert_eq!(left(&mut one), [0, 0, 2, 0]);
    door.restart();
    assert_eq!(left(&mut door.raw()), [0, 0, 2, 0]);
}

#[test]
fn one_stale_part_stops_the_whole_transaction() {
    let door = Door::open();
    let (mut one, mut other, token, receipt) = workshop(&door);
    let untouched = |one: &mut Raw| {
        let queues = [info(one, "in", "in-flight"), info(one, "out", "ready")];
        assert_eq!(queues, [1, 0]);
    };
    let ack = format!("QUEUE.ACK in {receipt}");
    let publish = "QUEUE.PUBLISH out next".to_owned();
    let release = format!("LEASE.RELEASE machine me {token}");
    // Another token of the same lock.
    let mut stale = other.line("LEASE.ACQUIRE brief me PX 60000").parts()[0].int();
    assert_eq!(other.line(&format!("LEASE.RELEASE brief me {stale}")), Said::Int(1));
    let check = format!("LEASE.CHECK brief {stale}");
    let said = together(&mut one, &[ack.clone(), publish.clone(), release.clone(), check]);
    refused(&said, "STALE");
    assert!(said.error().ends_with("Nothing of the transaction was done"), "{said:?}");
    untouched(&mut other);
    assert_eq!(one.line(&format!("LEASE.CHECK machine {token}")), Said::Int(1));
    // A receipt that is settled, and one of another connection.
    other.line("QUEUE.PUBLISH in second");
    let message = other.line("QUEUE.RECEIVE in");
    let Said::Bulk(foreign) = &message.parts()[0] else { panic!("no receipt: {message:?}") };
    let foreign = format!("QUEUE.ACK in {}", String::from_utf8_lossy(foreign));
    let said = together(&mut one, &[publish.clone(), release.clone(), foreign.clone()]);
    refused(&said, "ERR the delivery");
    assert_eq!(other.line(&foreign), Said::Int(1));
    refused(&together(&mut one, &[publish.clone(), foreign]), "STALE");
    untouched(&mut other);
    // A queue that is not there, the same twice, and somebody else's lock.
    let nowhere = "QUEUE.PUBLISH nowhere next".to_owned();
    refused(&together(&mut one, &[ack.clone(), nowhere]), "NOQUEUE");
    refused(&together(&mut one, &[ack.clone(), publish.clone(), ack.clone()]), "ERR");
    stale = other.line("LEASE.ACQUIRE brief me PX 60000").parts()[0].int();
    let wrong = format!("LEASE.RELEASE brief you {stale}");
    refused(&together(&mut one, &[ack.clone(), wrong]), "ERR token");
    untouched(&mut other);
    // Watched keys stand before it.
    one.line("WATCH key");
    other.line("SET key changed");
    assert_eq!(together(&mut one, &[ack.clone(), publish.clone()]), Said::Nil);
    untouched(&mut other);
    one.line("WATCH key");
    assert_eq!(together(&mut one, &[ack, publish, release]).parts(), vec![Said::Int(1); 3]);
}

#[test]
fn a_transaction_is_of_one_kind_and_read_before_it_is_kept() {
    let door = Door::open();
    let (mut one, mut other, token, receipt) = workshop(&door);
    let ack = format!("QUEUE.ACK in {receipt}");
    for with in ["SET key value", "PING", "EVAL return(1) 0"] {
        for lines in [[ack.clone(), with.into()], [with.into(), ack.clone()]] {
            refused(&together(&mut one, &lines), "EXECABORT");
        }
    }
    assert_eq!(other.line("EXISTS key"), Said::Int(0));
    // What waits or answers with more than a word stays outside.
    let outside = [
        "LEASE.ACQUIRE other me PX 1000",
        "LEASE.INSPECT machine",
        "LEASE.SESSION OPEN",
        "QUEUE.DECLARE more",
        "QUEUE.RECEIVE in",
        "QUEUE.INFO in",
        "QUEUE.STOP in",
    ];
    // So does what is no request as it stands.
    let wrong = ["QUEUE.ACK in receipt", "LEASE.CHECK machine", "QUEUE.PUBLISH out next DELAY"];
    for line in outside.iter().chain(&wrong) {
        assert_eq!(one.line("MULTI"), Said::ok());
        assert_eq!(one.line(&ack), Said::Status("QUEUED".into()));
        refused(&one.line(line), "ERR");
        refused(&one.line("EXEC"), "EXECABORT");
    }
    assert_eq!(one.line("MULTI"), Said::ok());
    one.line(&ack);
    assert_eq!(one.line("DISCARD"), Said::ok());
    assert_eq!(info(&mut other, "in", "in-flight"), 1);
    // A lease of a session is given back in it, and the other verdicts.
    session(&one.line("LEASE.SESSION OPEN TTL 300000"));
    let bound = one.line("LEASE.ACQUIRE bound me SESSION").parts()[0].int();
    let lines = [
        format!("LEASE.RELEASE bound me {bound}"),
        format!("LEASE.RELEASE machine me {token}"),
        format!("QUEUE.NACK in {receipt}"),
    ];
    assert_eq!(together(&mut one, &lines).parts(), vec![Said::Int(1); 3]);
    assert_eq!(other.line(&format!("LEASE.CHECK bound {bound}")), Said::Int(0));
    assert_eq!(info(&mut other, "in", "ready"), 1);
}
