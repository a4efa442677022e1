//! What is wrong with a configuration is said in one line, before anything is touched.

mod support;

use std::net::TcpListener;

use rustix::process::Signal;
use support::{Server, done, leasehold, ready, refused, run, serve, until};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_nearest_known() {
    let here = directory();
    std::fs::write(here.path().join("leasehold.toml"), "\n[http]\nlisen = '127.0.0.1:0'\n")
        .expect("it is writable");
    let text = refused(here.path(), &["serve"], 2);
    assert!(text.contains("leasehold.toml: line 3"), "{text}");
    assert!(text.contains("`http.lisen`; did you mean `http.listen`?"), "{text}");
    assert!(!here.path().join("leasehold-data").exists());
}

#[test]
fn a_bad_value_says_where_it_came_from_and_what_is_accepted() {
    let here = directory();
    let text = refused(here.path(), &["serve", "--durability", "sometimes"], 2);
    assert!(text.contains("--durability: \"sometimes\""), "{text}");
    assert!(text.contains("always, interval=TIME"), "{text}");
    std::fs::write(here.path().join("other.toml"), "durability = 'never'\n").expect("writable");
    let text = refused(here.path(), &["serve", "--config", "other.toml"], 2);
    assert!(text.contains("other.toml line 1, `durability`"), "{text}");
    let text = refused(here.path(), &["serve", "--config", "absent.toml"], 2);
    assert!(text.contains("absent.toml") && text.contains("--config"), "{text}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let here = directory();
    std::fs::write(here.path().join("leasehold.toml"), "restart_grace = '1s'\n[log]\nlevel='a'\n")
        .expect("it is writable");
    let mut command = support::leasehold(here.path(), &["config", "--restart-grace", "3s"]);
    command.args(["--json"]).env("LEASEHOLD_RESTART_GRACE", "2s");
    command.env("LEASEHOLD_DURABILITY", "none");
    let output = command.output().expect("it runs");
    let settings: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("it prints JSON");
    assert_eq!(settings["restart_grace"]["value"], "3s");
    assert_eq!(settings["durability"]["from"], "LEASEHOLD_DURABILITY");
    assert_eq!(settings["log.level"]["value"], "a");
    assert_eq!(settings["users_file"]["from"], "default");
}

#[test]
fn a_taken_port_is_refused_before_the_data_directory_is_made() {
    let here = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("it has one").to_string();
    let text = refused(here.path(), &["serve", "--http-listen", &address], 2);
    assert!(text.contains(&address) && text.contains("choose another port"), "{text}");
    assert!(!here.path().join("leasehold-data").exists());
}

#[test]
fn the_network_is_not_let_in_without_users() {
    let here = directory();
    let text = refused(here.path(), &["serve", "--http-listen", "0.0.0.0:0"], 2);
    assert!(text.contains("leasehold user add") && text.contains("--insecure-listen"), "{text}");
    let (mut server, _) = serve(here.path(), &["--http-listen", "0.0.0.0:0", "--insecure-listen"]);
    server.signal(Signal::TERM);
    assert!(server.wait().success());
}

#[test]
fn a_data_directory_in_use_is_refused_naming_the_process() {
    let server = Server::start();
    let text = refused(server.path(), &["serve", "--http-listen", "127.0.0.1:0"], 1);
    assert!(text.contains("in use by process"), "{text}");
    assert!(text.contains(&server.process.id().to_string()), "{text}");
    let text = refused(server.path(), &["journal", "verify", "leasehold-data"], 1);
    assert!(text.contains("has it open"), "{text}");
}

#[test]
fn certificates_that_cannot_serve_are_refused() {
    let here = directory();
    let text = refused(here.path(), &["serve", "--http-tls-cert", "a.pem"], 2);
    assert!(text.contains("give http.tls_key as well"), "{text}");
    let text = refused(here.path(), &["serve", "--resp-tls-key", "k.pem"], 2);
    assert!(text.contains("RESP") && text.contains("give resp.tls_cert as well"), "{text}");
    std::fs::write(here.path().join("a.pem"), "no certificate\n").expect("it is writable");
    let both = ["serve", "--http-tls-cert", "a.pem", "--http-tls-key", "a.pem"];
    let text = refused(here.path(), &both, 2);
    assert!(text.contains("a.pem") && text.contains("no certificate in it"), "{text}");
}

#[test]
fn an_expired_certificate_is_refused() {
    let here = directory();
    let mut days = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    days.not_before = rcgen::date_time_ymd(2020, 1, 1);
    days.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = days.self_signed(&key).expect("a certificate");
    std::fs::write(here.path().join("a.pem"), own.pem()).expect("it is writable");
    std::fs::write(here.path().join("k.pem"), key.serialize_pem()).expect("it is writable");
    let both = ["serve", "--http-tls-cert", "a.pem", "--http-tls-key", "k.pem"];
    let text = refused(here.path(), &both, 2);
    assert!(text.contains("a.pem") && text.contains("it ended on"), "{text}");
    assert!(!here.path().join("leasehold-data").exists());
}

#[test]
fn users_come_in_over_https() {
    let here = directory();
    leasehold_testbed::Certificate::new(here.path(), "127.0.0.1");
    let text = done(here.path(), &["--json", "user", "add", "bot", "--with-token"]);
    let added: serde_json::Value = serde_json::from_str(&text).expect("it prints JSON");
    let token = added["token"].as_str().expect("it has a token");
    let both = ["--http-tls-cert", "cert.pem", "--http-tls-key", "key.pem"];
    let (_server, url) = serve(here.path(), &both);
    assert!(url.starts_with("https://"), "{url}");
    let on = format!("{url}?ca=cert.pem");
    // The command under the lock comes in as well, although it has a token of another kind.
    let inner = [env!("CARGO_BIN_EXE_leasehold"), "lock", "run", "b", "--", "true"];
    let outer = ["--on", &on, "--token", token, "lock", "run", "a", "--"];
    done(here.path(), &[&outer[..], &inner].concat());
    let text = refused(here.path(), &["--on", &on, "lock", "run", "a", "--", "true"], 1);
    assert!(text.contains("run under lock a"), "{text}");
    done(here.path(), &["--on", &on, "ping"]);
}

#[test]
fn a_renewed_certificate_is_presented_without_a_restart() {
    let here = directory();
    let pair = || {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a pair");
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let write = |name: &str, text: &str| {
        std::fs::write(here.path().join(name), text).expect("it is writable");
    };
    let (old, renewed) = (pair(), pair());
    write("a.pem", &old.0);
    write("k.pem", &old.1);
    write("old.pem", &old.0);
    write("renewed.pem", &renewed.0);
    let both = ["serve", "--json", "--http-tls-cert", "a.pem", "--http-tls-key", "k.pem"];
    let log = std::fs::File::create(here.path().join("log")).expect("it is writable");
    let mut command = leasehold(here.path(), &both);
    let command = command.env("LEASEHOLD_HTTP_LISTEN", "127.0.0.1:0").stderr(log);
    let (_server, url) = ready(command);
    let trusted = |authority: &str| {
        let on = format!("{url}?ca={authority}");
        run(here.path(), &["--on", &on, "ping"]).status.success()
    };
    assert!(trusted("old.pem") && !trusted("renewed.pem"));
    // The chain is there before its key: they do not fit, and the old pair stays.
    write("a.pem", &renewed.0);
    until("they are looked at", || {
        let log = std::fs::read_to_string(here.path().join("log")).expect("it is readable");
        log.contains("the certificate stays as it was")
    });
    assert!(trusted("old.pem"));
    write("k.pem", &renewed.1);
    until("the renewed certificate is presented", || trusted("renewed.pem"));
    assert!(!trusted("old.pem"));
}

#[test]
fn a_server_ends_in_peace_and_keeps_its_secret() {
    let here = directory();
    let secret = here.path().join("leasehold-data/door-secret");
    let mut before = None;
    for signal in [Signal::TERM, Signal::INT] {
        let (mut server, _) = serve(here.path(), &[]);
        let found = std::fs::read(&secret).expect("it was made");
        assert_eq!(before.get_or_insert(found.clone()), &found);
        server.signal(signal);
        assert!(server.wait().success());
    }
    let text = done(here.path(), &["journal", "verify", "leasehold-data", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&text).expect("it prints JSON");
    assert_eq!(report["closed_cleanly"], true);
}

#[test]
fn completions_know_the_commands() {
    let here = directory();
    for shell in ["bash", "zsh", "fish"] {
        let script = done(here.path(), &["completions", shell]);
        assert!(script.contains("redrive") && script.contains("at-least"), "{shell}");
        assert!(!script.contains("group-"), "{shell}");
    }
}
