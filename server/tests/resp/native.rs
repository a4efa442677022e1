//! Leases, sessions and queues: the commands that are no Redis commands.

use std::collections::BTreeSet;

use crate::Door;
use crate::raw::{Raw, Said};
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
