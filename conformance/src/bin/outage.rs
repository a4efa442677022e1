//! Kills and pauses real clients and a real server, and judges what the clients saw.
//!
//! `outage SERVER [--kills N] [--seed S]` plays; `client` and `drain` are what it starts.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use leasehold_conformance::outage::client::Client;
use leasehold_conformance::outage::{Plan, play};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["client", url, number, record, seed] => client(url, number, record, seed, false),
        ["drain", url, number, record] => client(url, number, record, "0", true),
        [server, ref rest @ ..] => run(server, rest),
        [] => Err("usage: outage SERVER [--kills N] [--seed S]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("outage: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(server: &str, rest: &[&str]) -> Result<(), String> {
    let mut plan = Plan {
        server: PathBuf::from(server),
        client: std::env::current_exe().map_err(|e| e.to_string())?,
        clients: 4,
        server_kills: 3,
        client_blows: 3,
        seed: 1,
    };
    for pair in rest.chunks(2) {
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no number"));
        match pair {
            ["--kills", n] => plan.server_kills = number(n)? as u32,
            ["--seed", n] => plan.seed = number(n)?,
            _ => return Err(format!("unknown: {pair:?}")),
        }
    }
    let kills = plan.server_kills;
    let outcome = play(plan)?;
    let judged = outcome.judged;
    println!(
        "server killed {kills} times (at most {:.0} ms until it answered again), clients killed {} \
         and paused {} times\njudged: {judged:?}\nsome order explains all of it",
        outcome.recovery.as_secs_f64() * 1e3,
        outcome.killed,
        outcome.paused,
    );
    let least = judged.writes.min(judged.reads).min(judged.grants).min(judged.messages);
    if least == 0 || judged.held == 0 {
        return Err("it was for nothing: some kind of operation was never judged".to_owned());
    }
    Ok(())
}

fn client(url: &str, number: &str, record: &str, seed: &str, drain: bool) -> Result<(), String> {
    let parse = |text: &str| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
    let (number, seed) = (parse(number)?, parse(seed)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        let mut client = Client::connect(url, number, record.as_ref(), seed).await?;
        if drain {
            return client.drain().await;
        }
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        // The end of the input is the parent's way to say "end", and its death says so too.
        std::thread::spawn(move || {
            std::io::stdin().read_to_end(&mut Vec::new()).ok();
            drop(tell);
        });
        let ended = async {
            told.await.ok();
        };
        client.work(ended).await
    })
}
