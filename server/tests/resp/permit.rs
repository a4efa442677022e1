//! Who may do what: strangers who speak another protocol, and users who may do a part.

use std::io::Write;
use std::process::Stdio;

use crate::Door;
use crate::raw::{Raw, Said};
use crate::support::{Process, leasehold};
use crate::talk::number_of;

/// What a user with a permission for `mine*` may ask of `mine`.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "lock",
        &[
            "SET mine 1",
            "GET mine",
            "SET mine me NX PX 1000",
            "PEXPIRE mine 1000",
            "DEL mine",
            "HSET mine field value",
            "LPUSH mine 1",
            "ZADD mine 1 one",
            "WATCH mine",
            "EVAL return(1) 1 mine",
            "LEASE.ACQUIRE mine me PX 1000",
            "LEASE.RENEW mine me 1",
            "LEASE.RELEASE mine me 1",
            "LEASE.CHECK mine 1",
            "LEASE.INSPECT mine",
        ],
    ),
    ("publish", &["QUEUE.PUBLISH mine body", "PUBLISH mine body", "SPUBLISH mine body"]),
    (
        "consume",
        &[
            "QUEUE.RECEIVE mine",
            "QUEUE.CONSUME mine",
            "QUEUE.STOP mine",
            "QUEUE.INFO mine",
            "QUEUE.ACK mine 1-1",
            "QUEUE.NACK mine 1-1",
            "QUEUE.REJECT mine 1-1",
            "QUEUE.EXTEND mine 1-1 1000",
            "SUBSCRIBE mine",
            "SSUBSCRIBE mine",
            "PSUBSCRIBE mine.*",
        ],
    ),
    ("admin", &["QUEUE.DECLARE mine", "QUEUE.PURGE mine", "QUEUE.DELETE mine"]),
];

/// What concerns everybody, and who may ask for it of everything.
const EVERYBODYS: &[(&str, &str)] = &[
    ("KEYS *", "lock"),
    ("SCAN 0", "lock"),
    ("DBSIZE", "lock"),
    ("RANDOMKEY", "lock"),
    ("PSUBSCRIBE *", "consume"),
    ("CLIENT LIST", "admin"),
    ("CLIENT KILL ID 1000000", "admin"),
    ("CONFIG GET *", "admin"),
    ("SCRIPT FLUSH", "admin"),
    ("FLUSHALL", "admin"),
];

/// A door with users, each with its permission.
fn guarded(users: &[(&str, &str)]) -> Door {
    let directory = tempfile::tempdir().expect("a directory");
    for (name, allow) in users {
        let words = ["user", "add", name, "--password-stdin", "--allow", allow];
        let mut add = leasehold(directory.path(), &words);
        let mut add = Process::start(add.stdin(Stdio::piped()).stdout(Stdio::null()));
        let mut stdin = add.0.stdin.take().expect("it is piped");
        writeln!(stdin, "secret of {name}").expect("it reads");
        drop(stdin);
        assert!(add.wait().success(), "{name}");
    }
    Door::with(directory, &[])
}

fn user(door: &Door, name: &str) -> Raw {
    let mut one = door.raw();
    let said = one.ask(&["HELLO", "3", "AUTH", name, &format!("secret of {name}")]);
    assert!(matches!(said, Said::Many(b'%', _)), "{name}: {said:?}");
    one
}

/// Whether a request was refused for want of a permission.
fn denied(said: &Said) -> bool {
    matches!(said, Said::Error(text) if text.starts_with("NOPERM"))
}

#[test]
fn each_group_of_commands_needs_its_permission() {
    let users: Vec<(&str, String)> =
        GROUPS.iter().map(|(group, _)| (*group, format!("mine*={group}"))).collect();
    let users: Vec<(&str, &str)> = users.iter().map(|(name, on)| (*name, on.as_str())).collect();
    let door = guarded(&users);
    for (name, _) in GROUPS {
        for (group, lines) in GROUPS {
            for line in *lines {
                // A connection for each: some of them listen, wait or switch something.
                let mut one = user(&door, name);
                let other = line.replace("mine", "yours");
                assert!(denied(&one.line(&other)), "{name}: {other}");
                let said = one.line(line);
                assert_eq!(denied(&said), name != group, "{name}: {line}: {said:?}");
            }
        }
        let mut one = user(&door, name);
        for (line, _) in EVERYBODYS {
            assert!(denied(&one.line(line)), "{name}: {line}");
        }
        for line in ["PING", "CLIENT ID", "LEASE.SESSION OPEN", "ACL WHOAMI"] {
            let said = one.line(line);
            assert!(!matches!(said, Said::Error(_)), "{name}: {line}: {said:?}");
        }
        // What is refused while a transaction is put together spoils it.
        assert_eq!(one.line("MULTI"), Said::ok());
        for line in ["QUEUE.PUBLISH yours body", "LEASE.RELEASE yours me 1", "SET yours 1"] {
            assert!(denied(&one.line(line)), "{name}: {line}");
        }
        assert!(one.line("EXEC").error().starts_with("EXECABORT"), "{name}");
    }
}

#[test]
fn what_concerns_everybody_needs_a_permission_for_everything() {
    let groups = ["lock", "publish", "consume", "admin"];
    let users = groups.map(|group| (group, format!("*={group}")));
    let door = guarded(&users.each_ref().map(|(name, on)| (*name, on.as_str())));
    for name in groups {
        for (line, group) in EVERYBODYS {
            let said = user(&door, name).line(line);
            assert_eq!(denied(&said), name != *group, "{name}: {line}: {said:?}");
        }
    }
    // Nobody takes up another user's session, whatever it may do.
    let (mut one, mut other) = (user(&door, "lock"), user(&door, "admin"));
    let opened = one.line("LEASE.SESSION OPEN TTL 300000");
    let [id, Said::Bulk(proof)] = opened.parts() else { panic!("no session: {opened:?}") };
    let (id, proof) = (id.int(), String::from_utf8_lossy(proof).into_owned());
    let resume = format!("LEASE.SESSION RESUME {id} {proof} TTL 300000");
    assert!(other.line(&resume).error().starts_with("NOSESSION"));
    drop(one);
    assert_eq!(user(&door, "lock").line(&resume).parts()[0].int(), id);
}

#[test]
fn what_a_web_page_could_send_is_not_carried_out() {
    let door = Door::open();
    let page = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET of_the_page 1\r\n";
    // Another method is one that Redis does not know either; the next line tells what it is.
    let other = b"PUT / HTTP/1.1\r\nhOST: 127.0.0.1\r\n\r\nSET of_the_page 1\r\n";
    let array = b"*1\r\n$4\r\npost\r\n*3\r\n$3\r\nSET\r\n$11\r\nof_the_page\r\n$1\r\n1\r\n";
    for (bytes, answered) in [(&page[..], false), (other, true), (array, false)] {
        let mut one = door.raw();
        one.send(bytes);
        assert_eq!(one.end() > 0, answered, "{}", String::from_utf8_lossy(bytes));
    }
    let mut own = door.raw();
    assert_eq!(own.line("EXISTS of_the_page"), Said::Int(0));
    // What was asked before is answered; a value may say what it wants.
    own.send(b"SET POST Host:\r\nGET POST\r\nPOST\r\nDEL POST\r\n");
    assert_eq!([own.said(), own.said()], [Said::ok(), Said::text("Host:")]);
    assert_eq!(own.end(), 0);
    assert_eq!(door.raw().line("EXISTS POST"), Said::Int(1));
    assert_eq!(number_of(&door.raw().line("INFO clients"), "connected_clients"), 1);
}
