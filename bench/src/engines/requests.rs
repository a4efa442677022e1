//! How often a server was asked, where it counts that.

use super::ways::Way;

/// What a client of our engine asks of Redis: scripts, and which bells it listens to.
const ASKED: [&str; 4] = ["eval", "evalsha", "subscribe", "unsubscribe"];

/// How often a way has asked its server so far; `None` where nobody counts.
pub async fn so_far(way: Way, url: &str) -> Option<u64> {
    if way != Way::Ours || !url.starts_with("redis:") {
        return None;
    }
    let client = redis::Client::open(url).expect("a URL");
    let mut line = client.get_multiplexed_async_connection().await.expect("it accepts");
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut line).await.expect("it answers");
    let calls = |command: &&str| {
        let row = stats.lines().find_map(|row| row.strip_prefix(&format!("cmdstat_{command}:")))?;
        row.split(',').find_map(|part| part.strip_prefix("calls=")?.parse::<u64>().ok())
    };
    Some(ASKED.iter().filter_map(calls).sum())
}
