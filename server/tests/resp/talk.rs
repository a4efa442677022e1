//! What the door does that a lock library does not show.

use std::time::Duration;

use crate::Door;
use crate::raw::{Raw, Said, request};
use crate::support::{self, until};

const UNLOCK: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                      return redis.call('del', KEYS[1]) else return 0 end";

fn waiting(door: &Door, how_many: usize) {
    let mut one = door.raw();
    until("they wait", || {
        let Said::Bulk(text) = one.line("CLIENT LIST") else { panic!("it is a text") };
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().filter(|line| line.contains(" flags=b ")).count() == how_many
    });
}

/// Waits until a script runs, as somebody who comes then.
fn busy(door: &Door) {
    until("it is busy", || matches!(door.raw().line("PING"), Said::Error(_)));
}

pub fn number_of(info: &Said, name: &str) -> u64 {
    let Said::Bulk(text) = info else { panic!("it is a text") };
    let text = String::from_utf8_lossy(text);
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|text| text.trim().parse().ok()).expect("it is told")
}

#[test]
fn who_waits_first_is_served_first() {
    let door = Door::open();
    let mut waiters: Vec<Raw> = Vec::new();
    for _ in 0..20 {
        let mut waiter = door.raw();
        waiter.line("PING");
        waiter.tell(&["BLPOP", "line", "0"]);
        waiters.push(waiter);
        waiting(&door, waiters.len());
    }
    let mut pusher = door.raw();
    for i in 0..10 {
        pusher.ask(&["RPUSH", "line", &i.to_string()]);
    }
    let rest: Vec<String> = (10..20).map(|i| i.to_string()).collect();
    let mut words = vec!["RPUSH", "line"];
    words.extend(rest.iter().map(String::as_str));
    assert_eq!(pusher.ask(&words), Said::Int(10));
    for (i, waiter) in waiters.iter_mut().enumerate() {
        assert_eq!(waiter.said().parts()[1], Said::text(&i.to_string()));
    }
    assert_eq!(pusher.line("EXISTS line"), Said::Int(0));
}

#[test]
fn a_waiter_that_is_gone_takes_nothing() {
    let door = Door::open();
    let mut gone = door.raw();
    gone.tell(&["BLPOP", "line", "0"]);
    waiting(&door, 1);
    let mut waiter = door.raw();
    waiter.tell(&["BLPOP", "line", "0"]);
    waiting(&door, 2);
    drop(gone);
    waiting(&door, 1);
    let mut pusher = door.raw();
    pusher.line("RPUSH line only");
    assert_eq!(waiter.said().parts()[1], Said::text("only"));
    waiter.tell(&["BLPOP", "line", "0.05"]);
    assert_eq!(waiter.said(), Said::Nil);
}

#[test]
fn a_lock_of_set_nx_and_a_lease_are_the_same_lock() {
    let door = Door::open();
    let (mut naive, mut waiter) = (door.raw(), door.raw());
    assert_eq!(naive.line("SET both mine NX PX 30000"), Said::ok());
    assert_eq!(waiter.line("LEASE.ACQUIRE both me PX 30000"), Said::Nil);
    waiter.tell(&["LEASE.ACQUIRE", "both", "me", "PX", "30000", "WAIT", "30000"]);
    waiting(&door, 1);
    assert_eq!(naive.line("DEL both"), Said::Int(1));
    let token = waiter.said().parts()[0].int();
    assert!(token > 0);
    assert_eq!(naive.line("SET both mine NX PX 30000"), Said::Nil);
    let release = format!("LEASE.RELEASE both me {token}");
    assert_eq!(waiter.line(&release), Said::Int(1));
    assert_eq!(naive.line("SET both mine NX PX 30000"), Said::ok());
    // By a script, as most libraries let go.
    waiter.tell(&["LEASE.ACQUIRE", "both", "me", "PX", "30000", "WAIT", "30000"]);
    waiting(&door, 1);
    assert_eq!(naive.ask(&["EVAL", UNLOCK, "1", "both", "theirs"]), Said::Int(0));
    waiting(&door, 1);
    assert_eq!(naive.ask(&["EVAL", UNLOCK, "1", "both", "mine"]), Said::Int(1));
    let again = waiter.said().parts()[0].int();
    assert!(again > token, "{again} after {token}");
    assert_eq!(waiter.line(&format!("LEASE.RELEASE both me {again}")), Said::Int(1));
    // By its end.
    assert_eq!(naive.line("SET both mine NX PX 300"), Said::ok());
    waiter.tell(&["LEASE.ACQUIRE", "both", "me", "PX", "30000", "WAIT", "30000"]);
    assert!(waiter.said().parts()[0].int() > again);
    // By the end of everything.
    assert_eq!(naive.line("SET other mine NX PX 30000"), Said::ok());
    naive.tell(&["LEASE.ACQUIRE", "other", "me", "PX", "30000", "WAIT", "30000"]);
    waiting(&door, 1);
    assert_eq!(waiter.line("DEL other"), Said::Int(1));
    assert_eq!(naive.said().parts().len(), 2);
}

#[test]
fn a_lease_outlives_the_server_and_stays_its_owners() {
    let mut door = Door::open();
    let mut one = door.raw();
    let token = one.line("LEASE.ACQUIRE kept me PX 300000").parts()[0].int();
    one.line("SET naive mine NX PX 300000");
    one.line("SET short mine NX PX 1000");
    one.line("RPUSH list a b c");
    door.restart();
    let mut one = door.raw();
    assert_eq!(one.line("LEASE.ACQUIRE kept you PX 1000"), Said::Nil);
    assert_eq!(one.line("SET naive theirs NX"), Said::Nil);
    assert_eq!(one.line(&format!("LEASE.CHECK kept {token}")), Said::Int(1));
    assert!((1..=300_000).contains(&one.line("PTTL naive").int()));
    assert_eq!(one.line("LRANGE list 0 -1").parts().len(), 3);
    let wrong = one.line(&format!("LEASE.RELEASE kept me {}", token + 1));
    assert!(wrong.error().starts_with("STALE"), "{wrong:?}");
    assert!(one.line(&format!("LEASE.RENEW kept me {token} PX 400000")).int() > 300_000);
    assert_eq!(one.line(&format!("LEASE.RELEASE kept me {token}")), Said::Int(1));
    assert_eq!(one.ask(&["EVAL", UNLOCK, "1", "naive", "mine"]), Said::Int(1));
    until("the short one ends", || one.line("EXISTS short") == Said::Int(0));
    let next = one.line("LEASE.ACQUIRE kept you PX 1000").parts()[0].int();
    assert!(next > token, "{next} after {token}");
}

#[test]
fn an_endless_script_is_stopped_and_leaves_no_trace() {
    let directory = tempfile::tempdir().expect("a directory");
    let door = Door::with(directory, &["--resp-script-time", "1h"]);
    let (mut endless, mut other) = (door.raw(), door.raw());
    other.line("SET seen before");
    let script = "redis.call('set', 'seen', 'within'); redis.call('rpush', 'trace', 1) \
                  redis.call('publish', 'news', 'within') while true do end";
    let mut listener = door.raw();
    listener.line("SUBSCRIBE news");
    endless.tell(&["EVAL", script, "0"]);
    until("it is busy", || match other.line("GET seen") {
        Said::Error(text) => {
            assert!(text.starts_with("BUSY"), "{text}");
            true
        }
        before => {
            assert_eq!(before, Said::text("before"));
            false
        }
    });
    assert_eq!(other.line("SCRIPT KILL"), Said::ok());
    let stopped = endless.said();
    assert!(stopped.error().contains("SCRIPT KILL") || stopped.error().contains("stopped"));
    assert_eq!(other.line("GET seen"), Said::text("before"));
    assert_eq!(other.line("EXISTS trace"), Said::Int(0));
    assert_eq!(endless.line("PING"), Said::Status("PONG".into()));
    assert!(other.line("SCRIPT KILL").error().starts_with("NOTBUSY"));
    assert_eq!(other.line("PUBLISH news after"), Said::Int(1));
    assert_eq!(listener.said().parts()[2], Said::text("after"));
}

#[test]
fn a_script_ends_with_its_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut one = Door::with(directory, &["--resp-script-time", "100ms"]);
    let mut endless = one.raw();
    let script = "redis.call('set', 'trace', 1) while true do pcall(redis.call, 'ping') end";
    endless.ask(&["EVAL", script, "0"]).error();
    assert_eq!(endless.line("EXISTS trace"), Said::Int(0));
    // A transaction is one decision: what it changed beside the script is gone with it.
    endless.line("MULTI");
    endless.line("SET beside 1");
    endless.ask(&["EVAL", script, "0"]);
    endless.line("SET behind 1");
    let said = endless.line("EXEC");
    let why = said.error();
    assert!(why.starts_with("EXECABORT"), "{why}");
    assert_eq!(endless.line("EXISTS beside behind trace"), Said::Int(0));
    one.restart();
    assert_eq!(one.raw().line("EXISTS beside behind trace"), Said::Int(0));
}

#[test]
fn inline_requests() {
    let door = Door::open();
    let mut one = door.raw();
    let asks: String = (0..10_000).map(|i| format!("SET inline:{i} \"a {i}\"\r\n")).collect();
    let mut writer = Raw::to(door.port);
    std::mem::swap(&mut writer.0, &mut one.0);
    let socket = writer.0.get_ref().try_clone().expect("it is a socket");
    let sender = std::thread::spawn(move || {
        std::io::Write::write_all(&mut &socket, asks.as_bytes()).expect("it is read");
    });
    for _ in 0..10_000 {
        assert_eq!(writer.said(), Said::ok());
    }
    sender.join().expect("it was sent");
    assert_eq!(writer.line("GET inline:77"), Said::text("a 77"));
    writer.send(b"\r\n\r\nPING\n");
    assert_eq!(writer.said(), Said::Status("PONG".into()));
}

#[test]
fn garbage_is_refused_and_ends_the_connection() {
    let door = Door::open();
    let cases: &[&[u8]] = &[
        b"*x\r\n",
        b"*1\r\n+PING\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-5\r\n",
        b"*99999999\r\n",
        b"*1\r\n$99999999999\r\n",
        b"SET \"unbalanced\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
    ];
    for case in cases {
        let mut one = door.raw();
        one.send(case);
        let refused = one.said();
        let shown = String::from_utf8_lossy(case);
        assert!(refused.error().starts_with("ERR Protocol error"), "{shown:?}: {refused:?}");
        assert_eq!(one.end(), 0, "{shown:?}");
    }
    // A line without an end is not read for ever.
    let mut one = door.raw();
    let endless = vec![b'x'; 1 << 20];
    while std::io::Write::write_all(one.0.get_mut(), &endless).is_ok() {}
    one.end();
    // Noise of all bytes.
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let mut one = door.raw();
        let mut bytes = Vec::new();
        for _ in 0..64 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            bytes.extend(noise.to_le_bytes());
        }
        std::io::Write::write_all(one.0.get_mut(), &bytes).ok();
        one.0.get_ref().shutdown(std::net::Shutdown::Write).ok();
        one.end();
    }
    assert_eq!(door.raw().line("PING"), Said::Status("PONG".into()));
}

#[test]
fn a_request_in_the_smallest_pieces() {
    let door = Door::open();
    let mut one = door.raw();
    for _ in 0..3 {
        for byte in request(&[b"SET", b"slow", b"ly"]) {
            one.send(&[byte]);
        }
        assert_eq!(one.said(), Said::ok());
    }
}

#[test]
fn who_listens_and_does_not_read_is_cut_off() {
    let door = Door::open();
    let mut slow = door.raw();
    slow.line("SUBSCRIBE news");
    let mut teller = door.raw();
    let body = vec![b'x'; 1 << 20];
    let publish = request(&[b"PUBLISH", b"news", &body]);
    teller.send(&publish);
    assert_eq!(teller.said(), Said::Int(1));
    let mut told = 1;
    let mut most = 0;
    until("it is cut off", || {
        teller.send(&publish);
        told += 1;
        most = most.max(door.memory());
        teller.said() == Said::Int(0)
    });
    assert!(told < 200, "{told} megabytes were kept for who does not read");
    assert!(most < 512 << 20, "{most} bytes");
    assert_eq!(number_of(&teller.line("INFO stats"), "clients_cut_off"), 1);
    assert!(slow.end() < 200 << 20);
}

#[test]
fn who_asks_and_does_not_read_is_not_read() {
    let door = Door::open();
    let mut one = door.raw();
    let body = vec![b'x'; 1 << 20];
    one.send(&request(&[b"SET", b"large", &body]));
    assert_eq!(one.said(), Said::ok());
    one.0.get_ref().set_write_timeout(Some(Duration::from_millis(500))).expect("a socket");
    let ask = request(&[b"GET", b"large"]);
    let asks = ask.repeat(1000);
    let mut most = 0;
    for _ in 0..40 {
        if std::io::Write::write_all(one.0.get_mut(), &asks).is_err() {
            break;
        }
        most = most.max(door.memory());
    }
    most = most.max(door.memory());
    assert!(most < 600 << 20, "{most} bytes");
    assert_eq!(door.raw().line("PING"), Said::Status("PONG".into()));
}

#[test]
fn an_answer_that_would_take_all_memory_is_an_error() {
    let door = Door::open();
    let mut one = door.raw();
    one.send(&request(&[b"SET", b"large", &vec![b'x'; 1 << 20]]));
    assert_eq!(one.said(), Said::ok());
    let many = |name: &'static str, times: usize| {
        let words: Vec<&str> = std::iter::once(name).chain(["large"].repeat(times)).collect();
        words.join(" ")
    };
    assert_eq!(one.line(&many("MGET", 3)).parts().len(), 3);
    assert!(one.line(&many("MGET", 300)).error().contains("ERR the answer has 314"));
    assert!(one.line(&many("MGET", 100_000)).error().contains("carried out"));
    one.line("MULTI");
    for _ in 0..300 {
        one.line("GET large");
    }
    one.line("SET told no");
    assert!(one.line("EXEC").error().contains("the answer has"));
    assert_eq!(one.line("GET told"), Said::text("no"));
    assert!(door.memory() < 256 << 20, "{} bytes", door.memory());
}

#[test]
fn resp3_pushes_come_between_answers() {
    let door = Door::open();
    let mut one = door.raw();
    let greeting = one.line("HELLO 3");
    assert!(matches!(greeting, Said::Many(b'%', _)), "{greeting:?}");
    let told = one.line("SUBSCRIBE news");
    assert!(matches!(told, Said::Many(b'>', _)), "{told:?}");
    assert_eq!(one.line("SET in between"), Said::ok());
    assert_eq!(one.line("PSUBSCRIBE ne?s"), {
        let parts = vec![Said::text("psubscribe"), Said::text("ne?s"), Said::Int(2)];
        Said::Many(b'>', parts)
    });
    let mut other = door.raw();
    assert_eq!(other.line("PUBLISH news hello"), Said::Int(2));
    let message = vec![Said::text("message"), Said::text("news"), Said::text("hello")];
    assert_eq!(one.said(), Said::Many(b'>', message));
    assert_eq!(one.said().parts()[0], Said::text("pmessage"));
    assert_eq!(one.line("GET in"), Said::text("between"));
    let mut two = door.raw();
    two.line("SUBSCRIBE news");
    assert!(two.line("GET in").error().contains("allowed in this context"));
    assert_eq!(two.line("PING").parts()[0], Said::text("pong"));
}

#[test]
fn a_lease_over_many_waiters_goes_in_order() {
    let door = Door::open();
    let mut holder = door.raw();
    let mut token = holder.line("LEASE.ACQUIRE turn h PX 300000").parts()[0].int();
    let mut waiters: Vec<Raw> = Vec::new();
    for i in 0..20 {
        let mut waiter = door.raw();
        let name = format!("w{i}");
        waiter.tell(&["LEASE.ACQUIRE", "turn", &name, "PX", "300000", "WAIT", "300000"]);
        waiters.push(waiter);
        waiting(&door, i + 1);
    }
    let mut name = "h".to_owned();
    for (i, waiter) in waiters.iter_mut().enumerate() {
        assert_eq!(holder.line(&format!("LEASE.RELEASE turn {name} {token}")), Said::Int(1));
        let next = waiter.said().parts()[0].int();
        assert!(next > token, "{next} after {token}");
        (token, name) = (next, format!("w{i}"));
    }
}

#[test]
fn too_many_clients_are_told_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let door = Door::with(directory, &["--resp-clients", "2"]);
    let (mut one, mut two) = (door.raw(), door.raw());
    one.line("PING");
    two.line("PING");
    assert_eq!(door.raw().said(), Said::Error("ERR max number of clients reached".into()));
    drop(two);
    support::until("there is room again", || {
        let mut three = door.raw();
        std::io::Write::write_all(three.0.get_mut(), b"PING\r\n").ok();
        matches!(three.said(), Said::Status(_))
    });
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    let door = Door::open();
    for _ in 0..20 {
        let mut one = door.raw();
        let asks: String = (0..3000).map(|i| format!("SET half:{i} {i}\r\n")).collect();
        one.send(asks.as_bytes());
        one.0.get_ref().shutdown(std::net::Shutdown::Write).expect("it is open");
        for _ in 0..3000 {
            assert_eq!(one.said(), Said::ok());
        }
        assert_eq!(one.end(), 0);
    }
}

#[test]
fn who_goes_in_the_middle_of_a_request_is_forgotten() {
    let door = Door::open();
    let mut stays = door.raw();
    for cut in 1..30 {
        let mut one = door.raw();
        one.send(&request(&[b"SET", b"cut", b"off"])[..cut.min(28)]);
    }
    until("they are forgotten", || number_of(&stays.line("INFO"), "connected_clients") == 1);
    assert_eq!(stays.line("EXISTS cut"), Said::Int(0));
}

#[test]
fn commands_about_itself_in_a_pipeline() {
    let door = Door::open();
    let mut one = door.raw();
    one.send(b"PING\r\nCLIENT LIST\r\nCLIENT INFO\r\nINFO\r\nSELECT 1\r\nCLIENT ID\r\nPING\r\n");
    let said: Vec<Said> = (0..7).map(|_| one.said()).collect();
    assert_eq!(said[6], Said::Status("PONG".into()));
    assert!(matches!(&said[1], Said::Bulk(text) if text.starts_with(b"id=")));
    one.line("MULTI");
    assert!(one.line("INFO").error().contains("not allowed in transactions"));
    assert!(one.line("EXEC").error().starts_with("EXECABORT"));
}

#[test]
fn scripts_are_loaded_known_and_forgotten() {
    let mut door = Door::open();
    let mut one = door.raw();
    let Said::Bulk(sha) = one.ask(&["SCRIPT", "LOAD", UNLOCK]) else { panic!("no number") };
    let sha = String::from_utf8(sha).expect("it is text");
    let exists = format!("SCRIPT EXISTS {sha} {}", "0".repeat(40));
    assert_eq!(one.line(&exists).parts(), [Said::Int(1), Said::Int(0)]);
    one.line("SET key mine");
    assert_eq!(one.line(&format!("EVALSHA {sha} 1 key theirs")), Said::Int(0));
    assert_eq!(one.line("SCRIPT FLUSH"), Said::ok());
    let unknown = one.line(&format!("EVALSHA {sha} 1 key mine"));
    assert!(unknown.error().starts_with("NOSCRIPT"), "{unknown:?}");
    one.ask(&["SCRIPT", "LOAD", UNLOCK]);
    door.restart();
    let mut one = door.raw();
    // As with Redis, scripts are not kept; what they did is.
    let unknown = one.line(&format!("EVALSHA {sha} 1 key mine"));
    assert!(unknown.error().starts_with("NOSCRIPT"), "{unknown:?}");
    assert_eq!(one.ask(&["EVAL", UNLOCK, "1", "key", "mine"]), Said::Int(1));
    assert_eq!(one.line(&format!("EVALSHA {sha} 1 key mine")), Said::Int(0));
}

#[test]
fn who_talks_while_its_script_runs_is_heard_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let door = Door::with(directory, &["--resp-script-time", "1h"]);
    let mut gone = door.raw();
    gone.tell(&["BLPOP", "line", "0"]);
    waiting(&door, 1);
    for _ in 0..2 {
        let mut one = door.raw();
        one.tell(&["EVAL", "while true do end", "0"]);
        // Whoever comes is told that it is busy, so what comes next is sent while the script runs.
        busy(&door);
        one.tell(&["PING"]);
        assert_eq!(door.raw().line("SCRIPT KILL"), Said::ok());
        one.said().error();
        assert_eq!(one.said(), Said::Status("PONG".into()));
    }
    // Who waited and went while a script ran takes nothing.
    let mut one = door.raw();
    one.tell(&["EVAL", "while true do end", "0"]);
    busy(&door);
    drop(gone);
    assert_eq!(door.raw().line("SCRIPT KILL"), Said::ok());
    one.said().error();
    until("it is forgotten", || number_of(&one.line("INFO"), "blocked_clients") == 0);
    assert_eq!(one.line("RPUSH line only"), Said::Int(1));
    assert_eq!(one.line("LPOP line"), Said::text("only"));
}

#[test]
fn who_was_answered_before_a_long_script_hears_it_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let door = Door::with(directory, &["--resp-script-time", "1h"]);
    let (mut first, mut second) = (door.raw(), door.raw());
    first.line("PING");
    second.line("PING");
    // What comes while the server stands still is served in one turn, the first client first.
    door.paused(|| {
        first.tell(&["PING"]);
        second.tell(&["EVAL", "while true do end", "0"]);
    });
    assert_eq!(first.said(), Said::Status("PONG".into()));
    assert_eq!(first.line("SCRIPT KILL"), Said::ok());
    second.said().error();
}

#[test]
fn a_script_that_selects_does_so_for_itself() {
    let door = Door::open();
    let mut one = door.raw();
    let script = "redis.call('select', '3') return redis.call('set', KEYS[1], 'there')";
    assert_eq!(one.line("MULTI"), Said::ok());
    one.ask(&["EVAL", script, "1", "key"]);
    one.line("SET key here");
    assert_eq!(one.line("EXEC").parts(), [Said::ok(), Said::ok()]);
    assert_eq!(one.line("GET key"), Said::text("here"));
    one.line("SELECT 3");
    assert_eq!(one.line("GET key"), Said::text("there"));
}
