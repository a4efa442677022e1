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
