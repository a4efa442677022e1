//! Loads of queues.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Shown;
use super::ways::Way;

/// What messages hold.
pub const BODY: [u8; 100] = [7; 100];
/// Messages that a consumer has in hand at most.
pub const PREFETCH: u32 = 50;
/// A queue that gives nothing for so long is empty.
pub const DRY: Duration = Duration::from_millis(500);
/// Messages in one publish.
const BATCH: usize = 100;

/// One publishes, one by one and by the hundred; then so many consume what is there.
pub async fn run(way: Way, url: &str, queue: &str, workers: usize, time: Duration) -> Shown {
    let mut mails = way.mails(url, queue, workers).await;
    // The first makes connections and what else is needed.
    mails[0].publish(1).await;
    let mut rates = [0.0; 2];
    for (rate, batch) in rates.iter_mut().zip([1, BATCH]) {
        let (began, mut sent) = (Instant::now(), 0);
        while began.elapsed() < time {
            mails[0].publish(batch).await;
            sent += batch;
        }
        *rate = sent as f64 / began.elapsed().as_secs_f64();
    }
    join_all(mails.iter_mut().map(|mail| mail.join())).await;
    let began = Instant::now();
    let until = began + time;
    let taking = mails.into_iter().map(|mut mail| {
        // Some clients block when they are dropped, and others are still taking then.
        tokio::spawn(async move { (mail.take(until).await, mail) })
    });
    let taking: Vec<_> = taking.collect();
    let (mut count, mut last) = (0, began);
    for taken in join_all(taking).await {
        let ((own, ended), _) = taken.as_ref().expect("it does not panic");
        count += own;
        last = last.max(*ended);
    }
    let taken = count as f64 / last.duration_since(began).as_secs_f64();
    vec![
        ("publish", "/s", rates[0]),
        ("publish by the hundred", "/s", rates[1]),
        ("consume + ack", "/s", taken),
    ]
}
