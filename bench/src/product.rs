//! The library as its users have it: in this process, and over HTTP against a real server.
//!
//! The same tasks run against both, so the difference is the door, the network and the other
//! process. Each task has a handle of its own, which over HTTP is a connection of its own. The
//! server is pinned to one processor and this program to the other, as in the other benchmarks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use leasehold::{Leasehold, QueueConfig};

use crate::figures::Figures;
use crate::machine;
use crate::servers::Server;

/// How many tasks at one time.
const TASKS: [usize; 3] = [1, 16, 128];
/// How often each is measured.
const ROUNDS: usize = 3;
/// Messages in one publish of a batch.
const BATCH: usize = 100;

/// What the tasks do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Acquire and release a lock of the task's own.
    Lock,
    /// Publish 100 bytes and wait for the confirm.
    Publish,
    /// Publish a hundred messages of 100 bytes with one request.
    Batch,
    /// Publish one message, receive one, acknowledge it.
    Cycle,
}

const WORKS: [(Work, &str, usize); 4] = [
    (Work::Lock, "lock + unlock", 1),
    (Work::Publish, "publish, confirmed", 1),
    (Work::Batch, "publish by the hundred", BATCH),
    (Work::Cycle, "publish + receive + ack", 1),
];

/// Measures everything, `time` each.
pub fn run(server: &Path, directory: &Path, figures: &mut Figures, time: Duration) {
    let directory_of_server = directory.join("server");
    let (server, ready) =
        Server::leasehold(server, &directory_of_server, &["--resp-listen", "off"]);
    let url = ready["http"].as_str().expect("it says where").to_owned();
    machine::pin(&[1]);
    // One thread: a second one would compete with the server for its processor.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (work, name, weight) in WORKS {
        for tasks in TASKS {
            let own = directory.join(format!("own-{work:?}-{tasks}"));
            let mut rounds = [Vec::new(), Vec::new()];
            // In turn, so that a busy moment of the machine strikes both.
            for _ in 0..ROUNDS {
                for (rounds, over) in rounds.iter_mut().zip([None, Some(&url)]) {
                    rounds.push(runtime.block_on(measure(work, tasks, over, &own, time)));
                }
            }
            let rate = |one: &Histogram<u64>| one.len() as f64 * weight as f64 / time.as_secs_f64();
            for (rounds, place) in rounds.iter().zip(["in process", "over HTTP"]) {
                let title = format!("{name}, {tasks} at a time, {place}");
                let rates = rounds.iter().map(rate).collect();
                figures.plain(format!("{title}: rate"), "/s", rates);
                for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
                    let value = |one: &Histogram<u64>| one.value_at_quantile(quantile) as f64 / 1e3;
                    let values = rounds.iter().map(value).collect();
                    figures.plain(format!("{title}: {label}"), "µs", values);
                }
            }
            let pairs = rounds[0].iter().zip(&rounds[1]);
            let ratios = pairs.map(|(own, http)| rate(http) / rate(own)).collect();
            let title = format!("{name}, {tasks} at a time: HTTP ÷ in process");
            figures.plain(title, "×", ratios);
        }
    }
    drop(server);
    machine::pin(&[0, 1]);
}

async fn measure(
    work: Work,
    tasks: usize,
    over: Option<&String>,
    directory: &Path,
    time: Duration,
) -> Histogram<u64> {
    let own = match over {
        None => Some(leasehold::open(directory).await.expect("it opens")),
        Some(_) => None,
    };
    let mut running = Vec::new();
    for task in 0..tasks {
        let at = match (&own, over) {
            (Some(own), _) => Leasehold::new(own.engine().clone()),
            (None, Some(url)) => leasehold::connect(url).await.expect("it connects"),
            (None, None) => unreachable!("one of the two"),
        };
        running.push(tokio::spawn(one(at, work, task, time)));
    }
    let mut all = histogram();
    for task in running {
        all.add(task.await.expect("it does not panic")).expect("the same bounds");
    }
    all
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("good bounds")
}

async fn one(at: Leasehold, work: Work, task: usize, time: Duration) -> Histogram<u64> {
    let mut times = histogram();
    let queue = at.queue(format!("bench-{work:?}-{task}"));
    queue.declare(&QueueConfig::default()).await.expect("it is declared");
    queue.purge().await.expect("it is emptied");
    let lock = at.lock(format!("bench-{task}")).without_renewal();
    let body = vec![7u8; 100];
    let began = Instant::now();
    while began.elapsed() < time {
        let start = Instant::now();
        match work {
            Work::Lock => {
                let guard = lock.acquire().await.expect("nobody else wants it");
                guard.release().await.expect("it is ours");
            }
            Work::Publish => drop(queue.publish(body.clone()).await.expect("it is taken")),
            Work::Batch => {
                let answers = queue.publish_all(vec![body.clone(); BATCH]).await;
                let refused = answers.expect("answers").into_iter().find_map(Result::err);
                assert!(refused.is_none(), "{refused:?}");
            }
            Work::Cycle => {
                queue.publish(body.clone()).await.expect("it is taken");
                let came = queue.receive(Duration::from_secs(10)).await.expect("it answers");
                came.expect("it was published").ack().await.expect("it is ours");
            }
        }
        times.saturating_record(start.elapsed().as_nanos() as u64);
    }
    times
}

/// Where `cargo build --release` puts the server, seen from this program.
pub fn server_beside() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    own.with_file_name("leasehold")
}
