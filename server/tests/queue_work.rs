//! `queue work` against a server: the exit code is the verdict.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Process, Server, content, err, runs, until};

fn show(server: &Server, queue: &str) -> Value {
    let shown = server.done(&["--json", "queue", "show", queue]);
    serde_json::from_str(&shown).expect("it prints JSON")
}

#[test]
fn the_exit_code_is_the_verdict() {
    let server = Server::start();
    server.done(&["queue", "declare", "dead"]);
    server.done(&["queue", "declare", "orders", "--dead-letter", "dead"]);
    for body in ["0", "65", "75", "1"] {
        server.done(&["queue", "publish", "orders", body, "--id", body]);
    }
    let work = ["--json", "queue", "work", "orders", "--max", "4", "--retry-delay", "1h"];
    let output = server.run(&[&work[..], &["--", "sh", "-c", "exit $(cat)"]].concat());
    assert!(output.status.success(), "{}", err(&output));
    let tally: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    assert_eq!(
        (&tally["done"], &tally["again"], &tally["dead"]),
        (&1.into(), &2.into(), &1.into())
    );
    let shown = show(&server, "orders");
    assert_eq!((&shown["ready"], &shown["delayed"]), (&0.into(), &2.into()));
    assert_eq!(show(&server, "dead")["ready"], 1);
    assert!(err(&output).contains("message 75, attempt 1: not now; again in 1h"));
}

#[test]
fn a_command_learns_what_it_works_on() {
    let server = Server::start();
    let publish = ["queue", "publish", "env", "hello", "--declare", "--id", "m1"];
    server.done(&[&publish[..], &["--header", "content-type=text/plain"]].concat());
    let script = "echo $LEASEHOLD_QUEUE $LEASEHOLD_MESSAGE_ID $LEASEHOLD_ATTEMPT \
                  $LEASEHOLD_HEADER_CONTENT_TYPE $(cat); test $LEASEHOLD_TOKEN -gt 0";
    let text = server.done(&["queue", "work", "env", "--max", "1", "--", "sh", "-c", script]);
    assert_eq!(text.trim(), "env m1 1 text/plain hello");
}

#[test]
fn a_lease_is_extended_while_the_command_runs() {
    let server = Server::start();
    server.done(&["queue", "publish", "slow", "x", "--declare"]);
    let work = ["queue", "work", "slow", "--max", "1", "--lease", "500ms"];
    let output = server.run(&[&work[..], &["--", "sh", "-c", "sleep 2"]].concat());
    assert!(output.status.success(), "{}", err(&output));
    let shown = show(&server, "slow");
    assert_eq!(shown["totals"]["acked"], 1, "{}", err(&output));
    assert_eq!(shown["totals"]["returned"], 0);
}

#[test]
fn a_first_signal_lets_the_command_finish_and_a_second_gives_the_message_back() {
    let server = Server::start();
    let script = "read body; echo $$ > child-$body; \
                  while test ! -e finish-$body; do sleep 0.05; done";
    let work = ["queue", "work", "orders", "--", "sh", "-c", script];
    server.done(&["queue", "publish", "orders", "a\n", "--declare"]);
    server.done(&["queue", "publish", "orders", "b\n"]);
    let mut worker = Process::start(&mut server.leasehold(&work));
    content(&server.path().join("child-a"));
    worker.signal(Signal::TERM);
    until("what was not begun goes back", || show(&server, "orders")["ready"] == 1);
    std::fs::write(server.path().join("finish-a"), "").expect("it is writable");
    assert!(worker.wait().success());
    let mut worker = Process::start(&mut server.leasehold(&work));
    content(&server.path().join("child-b"));
    worker.signal(Signal::TERM);
    until("it has stopped consuming", || show(&server, "orders")["consumers"] == 0);
    worker.signal(Signal::TERM);
    assert!(worker.wait().success());
    let shown = show(&server, "orders");
    assert_eq!((&shown["ready"], &shown["totals"]["acked"]), (&1.into(), &1.into()));
}

#[test]
fn a_command_that_cannot_start_costs_no_message() {
    let server = Server::start();
    server.done(&["queue", "publish", "orders", "x", "--declare"]);
    let output = server.run(&["queue", "work", "orders", "--", "./absent"]);
    assert_eq!(output.status.code(), Some(127), "{}", err(&output));
    assert_eq!(show(&server, "orders")["ready"], 1);
}

/// A command that says its number in a file named after its message and then does nothing.
const SLEEPER: &str =
    "trap '' TERM; read body; echo $$ > child-$body; while :; do sleep 0.05; done";

fn child(server: &Server, body: &str) -> i32 {
    content(&server.path().join(format!("child-{body}"))).parse().expect("a process id")
}

#[test]
fn a_killed_worker_takes_its_commands_with_it() {
    let server = Server::start();
    server.done(&["queue", "publish", "orders", "a\n", "--declare"]);
    server.done(&["queue", "publish", "orders", "b\n"]);
    let work = ["queue", "work", "orders", "--concurrency", "2", "--", "sh", "-c", SLEEPER];
    let mut worker = Process::start(&mut server.leasehold(&work));
    let children = ["a", "b"].map(|body| child(&server, body));
    assert!(children.into_iter().all(runs));
    worker.0.kill().expect("it runs");
    worker.wait();
    until("the commands are gone", || !children.into_iter().any(runs));
}

#[test]
fn a_stopped_worker_costs_the_command_its_life_when_the_lease_ends() {
    let server = Server::start();
    server.done(&["queue", "publish", "orders", "a\n", "--declare"]);
    let work = ["queue", "work", "orders", "--lease", "1s", "--", "sh", "-c", SLEEPER];
    let mut worker = Process::start(&mut server.leasehold(&work));
    let command = child(&server, "a");
    worker.signal(Signal::STOP);
    until("the command is gone", || !runs(command));
    worker.signal(Signal::TERM);
    worker.signal(Signal::CONT);
    assert!(worker.wait().success());
}
