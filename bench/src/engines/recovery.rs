//! How long a lock is missed whose holder was killed.
//!
//! The holder is this program in a second process: it takes a lock, says so, and is killed while
//! somebody else waits.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Shown;
use super::ways::Way;
use crate::servers::Server;

/// Tells this program to be the holder: what follows is the way, the URL and the lock.
const HOLD: &str = "--hold";
/// How long the lock lasts without a sign of life.
const TTL: Duration = Duration::from_secs(2);
/// The waiter stands in line by then.
const HEAD_START: Duration = Duration::from_millis(500);

/// Is the holder, if this program was called to be one, until it is killed or left alone.
pub fn is_holder() -> bool {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(HOLD) {
        return false;
    }
    let mut next = || arguments.next().expect("the way, the URL and the lock");
    let (way, url, lock) = (next(), next(), next());
    let way = Way::of(&way).expect("a way");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut client = runtime.block_on(async {
        let mut client = way.process(&url).await.client().await;
        client.acquire(&lock, TTL).await;
        client
    });
    println!("held");
    // Ends with who called.
    std::io::stdin().lock().read_line(&mut String::new()).ok();
    runtime.block_on(client.release());
    true
}

/// From the kill, or from the end of the TTL if that is later, to the next grant.
pub async fn killed(way: Way, url: &str, name: &str) -> Shown {
    let program = std::env::current_exe().expect("this program has a path");
    let mut call = Command::new(program);
    call.args([HOLD, &format!("{way:?}"), url, name]);
    let mut child = call.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let stdout = child.stdout.take().expect("it is piped");
    let holder = Server::new(child);
    let said = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let said = said.await.expect("it does not panic").expect("it says when it has the lock");
    assert_eq!(said, "held\n");
    let held = Instant::now();
    let process = way.process(url).await;
    let lock = name.to_owned();
    let waiter = tokio::spawn(async move {
        let mut client = process.client().await;
        client.acquire(&lock, Duration::from_secs(10)).await;
        let granted = Instant::now();
        client.release().await;
        granted
    });
    sleep(HEAD_START).await;
    assert!(!waiter.is_finished(), "it is held by somebody else");
    let from = match way.outlives(url) {
        true => Instant::now().max(held + TTL),
        false => Instant::now(),
    };
    drop(holder);
    let granted = waiter.await.expect("it does not panic");
    // What ended a moment too soon by our clock was held from a moment before we heard of it.
    let missed = granted.saturating_duration_since(from);
    vec![("granted after", "ms", missed.as_secs_f64() * 1e3)]
}
