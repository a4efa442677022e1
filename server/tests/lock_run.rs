//! `lock run` against a server: exclusion, exit codes, and what happens when something dies or
//! stands still at the worst moment.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use support::{Process, Server, content, err, out, runs, until};

/// A command that says its number in a file and then does nothing.
const SLEEPER: &str = "trap '' TERM; echo $$ > child; while :; do sleep 0.05; done";

fn pid_in(path: &Path) -> i32 {
    content(path).parse().expect("a process id")
}

fn holders(server: &Server, lock: &str) -> usize {
    let shown = server.done(&["--json", "lock", "show", lock]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("it prints JSON");
    shown["holders"].as_array().expect("a list").len()
}

#[test]
fn two_runs_exclude_each_other() {
    let server = Server::start();
    // Whoever finds the other's mark has not been excluded.
    let script = "test ! -e mark || exit 9; touch mark; sleep 0.2; rm mark";
    let arguments = ["lock", "run", "one", "--", "sh", "-c", script];
    let runs = (0..4).map(|_| Process::start(&mut server.leasehold(&arguments)));
    for mut run in runs.collect::<Vec<_>>() {
        assert_eq!(run.wait().code(), Some(0));
    }
    assert_eq!(holders(&server, "one"), 0);
}

#[test]
fn exit_codes_are_passed_on() {
    let server = Server::start();
    let code = |script: &str| {
        server.run(&["lock", "run", "codes", "--", "sh", "-c", script]).status.code()
    };
    assert_eq!(code("exit 0"), Some(0));
    assert_eq!(code("exit 3"), Some(3));
    assert_eq!(code("kill -USR1 $$"), Some(128 + 10));
}

#[test]
fn who_holds_it_is_said_when_it_is_not_to_be_had() {
    let server = Server::start();
    let hold = ["lock", "run", "busy", "--label", "the holder", "--", "sh", "-c", SLEEPER];
    let mut holder = Process::start(&mut server.leasehold(&hold));
    pid_in(&server.path().join("child"));
    for wait in ["0", "100ms"] {
        let output = server.run(&["lock", "run", "busy", "--wait", wait, "--", "true"]);
        assert_eq!(output.status.code(), Some(75), "{}", err(&output));
        assert!(err(&output).contains("held by the holder"), "{}", err(&output));
    }
    holder.0.kill().expect("it runs");
    holder.wait();
}

#[test]
fn a_signal_reaches_the_command_and_frees_the_lock() {
    let server = Server::start();
    let script =
        "trap 'echo told > told; exit 5' TERM; echo $$ > child; while :; do sleep 0.05; done";
    let mut run =
        Process::start(&mut server.leasehold(&["lock", "run", "told", "--", "sh", "-c", script]));
    let child = pid_in(&server.path().join("child"));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(5));
    assert_eq!(content(&server.path().join("told")), "told");
    assert!(!runs(child));
    assert_eq!(holders(&server, "told"), 0);
}

#[test]
fn a_command_that_ignores_the_signal_is_killed_after_the_grace() {
    let server = Server::start();
    let run = ["lock", "run", "deaf", "--grace", "300ms", "--", "sh", "-c", SLEEPER];
    let mut run = Process::start(&mut server.leasehold(&run));
    let child = pid_in(&server.path().join("child"));
    run.signal(Signal::TERM);
    assert_eq!(run.wait().code(), Some(128 + 9));
    until("the command is gone", || !runs(child));
}

#[test]
fn a_waiting_run_ends_by_a_signal_and_leaves_the_line() {
    let server = Server::start();
    let hold = ["lock", "run", "line", "--", "sh", "-c", SLEEPER];
    let _holder = Process::start(&mut server.leasehold(&hold));
    pid_in(&server.path().join("child"));
    let waits = ["lock", "run", "line", "--", "true"];
    let mut waiter = Process::start(&mut server.leasehold(&waits));
    let waiting = || {
        let shown = server.done(&["--json", "lock", "show", "line"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("it prints JSON");
        shown["waiting"].as_u64().expect("a number")
    };
    until("it waits", || waiting() == 1);
    waiter.signal(Signal::INT);
    assert_eq!(waiter.wait().code(), Some(128 + 2));
    until("it is out of the line", || waiting() == 0);
}

#[test]
fn a_command_that_lost_its_lock_is_killed() {
    let server = Server::start();
    let run = ["lock", "run", "revoked", "--", "sh", "-c", SLEEPER];
    let mut run = Process::start(&mut server.leasehold(&run));
    let child = pid_in(&server.path().join("child"));
    server.done(&["lock", "release", "revoked"]);
    assert_eq!(run.wait().code(), Some(70));
    until("the command is gone", || !runs(child));
}

#[test]
fn what_the_command_leaves_behind_is_stopped_before_the_lock_is_free() {
    let server = Server::start();
    let script = "(trap '' HUP; echo $$ > /dev/null; sleep 1000 & echo $! > child) & wait; exit 4";
    let output = server.run(&["lock", "run", "rest", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(4), "{}", err(&output));
    assert!(!runs(pid_in(&server.path().join("child"))));
    assert!(err(&output).contains("left processes behind"), "{}", err(&output));
}

#[test]
fn a_stopped_supervisor_costs_the_command_its_life_before_another_may_hold_the_lock() {
    let server = Server::start();
    let run = ["lock", "run", "stopped", "--ttl", "2s", "--grace", "200ms"];
    let mut command = server.leasehold(&[&run[..], &["--", "sh", "-c", SLEEPER]].concat());
    let mut run = Process::start(command.stderr(Stdio::piped()));
    let child = pid_in(&server.path().join("child"));
    run.signal(Signal::STOP);
    // Whoever gets the lock next must not find the command.
    let next = ["lock", "run", "stopped", "--wait", "20s", "--", "true"];
    let mut next = Process::start(&mut server.leasehold(&next));
    assert!(next.wait().success());
    assert!(!runs(child), "the command lives while another had the lock");
    run.signal(Signal::CONT);
    assert_eq!(run.wait().code(), Some(70));
}

#[test]
fn a_killed_supervisor_takes_the_command_with_it() {
    let server = Server::start();
    let run = ["lock", "run", "killed", "--ttl", "10s", "--grace", "300ms"];
    let mut command = server.leasehold(&[&run[..], &["--", "sh", "-c", SLEEPER]].concat());
    let mut run = Process::start(&mut command);
    let child = pid_in(&server.path().join("child"));
    assert!(runs(child));
    run.0.kill().expect("it runs");
    run.wait();
    until("the command is gone", || !runs(child));
    assert_eq!(holders(&server, "killed"), 1, "long before the lock is free");
}

/// Whether a shell runs that was given this text.
fn shell_with(text: &str) -> bool {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc");
    processes.flatten().any(|process| {
        // Whatever ended since the listing says nothing.
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.starts_with(b"sh\0") && String::from_utf8_lossy(&line).contains(text)
    })
}

#[test]
fn there_is_no_moment_in_which_a_killed_supervisor_leaves_the_command_behind() {
    let server = Server::start();
    let mark = server.path().display().to_string();
    let script = format!("trap '' TERM; echo > ran; while :; do sleep 0.05; done # {mark}");
    for at in 0..50 {
        let lock = format!("lock {at}");
        let run = ["lock", "run", &lock, "--ttl", "10s", "--grace", "50ms", "--"];
        let command = [&run[..], &["sh", "-c", &script]].concat();
        let mut run = Process::start(&mut server.leasehold(&command));
        std::thread::sleep(Duration::from_millis(2 * at));
        run.0.kill().expect("it was not waited for");
        run.wait();
    }
    until("nothing of it runs", || !shell_with(&mark));
    assert!(server.path().join("ran").exists(), "no supervisor lived until it ran its command");
}

#[test]
fn a_dead_server_costs_the_command_its_life() {
    let mut server = Server::start();
    let run = ["lock", "run", "alone", "--ttl", "2s", "--grace", "200ms"];
    let mut command = server.leasehold(&[&run[..], &["--", "sh", "-c", SLEEPER]].concat());
    let mut run = Process::start(&mut command);
    let child = pid_in(&server.path().join("child"));
    server.process.0.kill().expect("it runs");
    server.process.wait();
    until("the command is gone", || !runs(child));
    assert_eq!(run.wait().code(), Some(70));
}

#[test]
fn a_lock_stays_taken_as_long_as_asked() {
    let server = Server::start();
    server.done(&["lock", "run", "nightly", "--at-least", "1h", "--", "true"]);
    let output = server.run(&["lock", "run", "nightly", "--wait", "0", "--", "true"]);
    assert_eq!(output.status.code(), Some(75), "{}", err(&output));
}

#[test]
fn permits_are_shared_out() {
    let server = Server::start();
    let take = |count: &str| {
        let run = ["lock", "run", "slots", "--wait", "0", "--of", "3", "--permits", count];
        let mut command = server.leasehold(&[&run[..], &["--", "sh", "-c", "cat"]].concat());
        Process::start(command.stdin(Stdio::piped()))
    };
    let _two = take("2");
    until("two are taken", || holders(&server, "slots") == 1);
    assert_eq!(take("2").wait().code(), Some(75));
    let mut one = take("1");
    until("all are taken", || holders(&server, "slots") == 2);
    drop(one.0.stdin.take());
    assert_eq!(one.wait().code(), Some(0));
}

#[test]
fn a_lock_shows_in_the_list_and_its_command_finds_the_server() {
    let server = Server::start();
    let output =
        server.run(&["lock", "run", "outer", "--", env!("CARGO_BIN_EXE_leasehold"), "lock", "ls"]);
    assert!(output.status.success(), "{}", err(&output));
    assert!(out(&output).contains("outer"), "{}", out(&output));
}
