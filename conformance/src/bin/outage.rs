//! Kills and pauses real clients and a real server, and judges what the clients saw.
//!
//! `outage --server PROGRAM`: Leasehold's own; `outage --engine NAME`: the system that an engine is
//! over, started for this; `outage --url URL`: one that is there, of which only the clients are
//! killed and paused. `--kills N` says how often, `--seed S` where choices come from. `client` and
//! `drain` are what it starts.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use leasehold_conformance::outage::client::Client;
use leasehold_conformance::outage::{Over, Plan, play};

const USAGE: &str = "usage: outage --server PROGRAM|--engine NAME|--url URL [--kills N] [--seed S]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["client", url, number, record, seed, ttl] => client(url, number, record, seed, Some(ttl)),
        ["drain", url, number, record] => client(url, number, record, "0", None),
        ["--server", program, ref rest @ ..] => run(Over::Leasehold(program.into()), rest),
        ["--engine", name, ref rest @ ..] => run(Over::Engine(name.to_owned()), rest),
        ["--url", url, ref rest @ ..] => run(Over::Url(url.to_owned()), rest),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("outage: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(over: Over, rest: &[&str]) -> Result<(), String> {
    let ttl = match over {
        Over::Leasehold(_) => Duration::from_millis(300),
        // The shortest that all of them have.
        Over::Engine(_) | Over::Url(_) => Duration::from_secs(2),
    };
    let mut plan = Plan {
        over,
        client: std::env::current_exe().map_err(|e| e.to_string())?,
        clients: 4,
        server_kills: 3,
        client_blows: 3,
        ttl,
        seed: 1,
    };
    for pair in rest.chunks(2) {
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
        match pair {
            ["--kills", n] => plan.server_kills = number(n)? as u32,
            ["--seed", n] => plan.seed = number(n)?,
            _ => return Err(format!("unknown: {pair:?}; {USAGE}")),
        }
    }
    let outcome = play(plan)?;
    let judged = outcome.judged;
    println!(
        "server paused and killed {} times (at most {:.0} ms until it answered again), clients \
         killed {} and paused {} times\njudged: {judged:?}\nsome order explains all of it",
        outcome.server_killed,
        outcome.recovery.as_secs_f64() * 1e3,
        outcome.killed,
        outcome.paused,
    );
    let least = judged.writes.min(judged.reads).min(judged.grants).min(judged.held);
    if least == 0 || outcome.queues && judged.messages == 0 {
        return Err("it was for nothing: some kind of operation was never judged".to_owned());
    }
    Ok(())
}

/// Is a client that works, or one that empties what is left if its locks have no TTL.
fn client(
    url: &str,
    number: &str,
    record: &str,
    seed: &str,
    ttl: Option<&str>,
) -> Result<(), String> {
    let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    let (number, seed) = (parse(number)?, parse(seed)?);
    let ttl = ttl.map(parse).transpose()?.map(Duration::from_millis);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let mut client = Client::connect(url, number, record.as_ref(), seed).await?;
        let Some(ttl) = ttl else { return client.drain().await };
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        // The end of the input is the parent's way to say "end", and its death says so too.
        std::thread::spawn(move || {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
            drop(tell);
        });
        let ended = async {
            told.await.ok();
        };
        client.work(ttl, ended).await
    })
}
