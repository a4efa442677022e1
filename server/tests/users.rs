//! Users that come and go while the server runs.

mod support;

use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;
use support::{Server, done, leasehold, out, refused, run, until};

/// A server with its log in a file, and one user to begin with.
struct Guarded {
    server: Server,
    ada: String,
}

fn add(directory: &Path, name: &str) -> String {
    let text = done(directory, &["--json", "user", "add", name, "--with-token"]);
    let added: Value = serde_json::from_str(&text).expect("it prints JSON");
    added["token"].as_str().expect("it has a token").to_owned()
}

impl Guarded {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let ada = add(directory.path(), "ada");
        let log = std::fs::File::create(directory.path().join("log")).expect("it is writable");
        let mut command = leasehold(directory.path(), &["serve", "--json"]);
        command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").stderr(log);
        let (process, url) = support::ready(&mut command);
        Self { server: Server { process, url, directory }, ada }
    }

    fn may_come_in(&self, token: &str) -> bool {
        let ask = ["--token", token, "lock", "ls"];
        let output = self.server.run(&ask);
        let said = support::err(&output);
        assert!(output.status.success() || said.contains("not known here"), "{said}");
        output.status.success()
    }

    fn logged(&self, what: &[&str]) {
        until(&format!("{what:?} is logged"), || {
            let log = std::fs::read_to_string(self.server.path().join("log"));
            let log = log.expect("it is readable");
            log.lines().any(|line| what.iter().all(|part| line.contains(part)))
        });
    }
}

#[test]
fn users_come_and_go_without_a_restart() {
    let guarded = Guarded::start();
    assert!(guarded.may_come_in(&guarded.ada));
    // One token in sixty-four begins like an option.
    assert!(!guarded.may_come_in("-q0jRmE4"));
    let bob = add(guarded.server.path(), "bob");
    until("bob may come in", || guarded.may_come_in(&bob));
    done(guarded.server.path(), &["user", "rm", "ada"]);
    until("ada is a stranger", || !guarded.may_come_in(&guarded.ada));
    assert!(guarded.may_come_in(&bob));
}

#[test]
fn a_bad_users_file_changes_nothing_and_is_named_with_its_line() {
    let guarded = Guarded::start();
    let file = guarded.server.path().join("leasehold-users.toml");
    let good = std::fs::read_to_string(&file).expect("it is there");
    for (wrong, at, part) in [
        ("\n[[users]]\nnam = 'eve'\n", 3, "unknown field `nam`"),
        ("\n[[users]]\nname = 'ada'\ntoken_hashes = ['x']\n", 2, "another user of this name"),
        ("\n[[users]]\nname = 'eve'\n", 2, "neither a password_hash nor a token hash"),
    ] {
        let line = format!("line {}", good.lines().count() + at);
        std::fs::write(&file, format!("{good}{wrong}")).expect("it is writable");
        let stays = "the users stay as they were";
        guarded.logged(&["ERROR", stays, "leasehold-users.toml", line.as_str(), part]);
        assert!(guarded.may_come_in(&guarded.ada));
    }
}

#[test]
fn the_last_user_stays_while_the_server_runs() {
    let guarded = Guarded::start();
    let told = out(&run(guarded.server.path(), &["user", "rm", "ada"]));
    assert!(told.contains("keeps it until it is started again"), "{told}");
    guarded.logged(&["ERROR", "has none left"]);
    assert!(guarded.may_come_in(&guarded.ada));
    let refused = refused(guarded.server.path(), &["--on", &guarded.server.url, "lock", "ls"], 1);
    assert!(refused.contains("say who you are"), "{refused}");
    // An editor that empties a file before it writes it.
    std::fs::write(guarded.server.path().join("leasehold-users.toml"), "").expect("writable");
    let bob = add(guarded.server.path(), "bob");
    until("bob may come in", || guarded.may_come_in(&bob));
}

#[test]
fn a_hang_up_reads_the_configuration_again() {
    let guarded = Guarded::start();
    let hash = "8433f60ef14a09604ef75e041d1f4bfb41e8973baccc674d4033639bef1eaff4";
    let config = format!(
        "[[users]]\nname = 'eve'\ntoken_hashes = ['{hash}']\n\
         permissions = [{{ on = '*', allow = ['admin'] }}]\n"
    );
    std::fs::write(guarded.server.path().join("leasehold.toml"), config).expect("it is writable");
    assert!(!guarded.may_come_in("eve's token"));
    guarded.server.process.signal(Signal::HUP);
    until("eve may come in", || guarded.may_come_in("eve's token"));
    assert!(guarded.may_come_in(&guarded.ada));
}
