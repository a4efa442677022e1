//! Ledgers: what each process wrote down about its own deeds, and nothing else.
//!
//! One file per process, one fact per line, one `write` per line into a file opened for appending,
//! so a SIGKILL tears at most the last line, and a line that was written stays: the page cache
//! outlives the process. The order of writing is the proof:
//!
//! ```text
//! intent  ──►  commit  ──►  answer  ──►  done | void | unknown
//! ```
//! An intent without an answer line is *open*: its worker died, or never heard. It is settled by
//! facts that others wrote later (see `accounts`), never by assuming. A torn last line counts as
//! never written, which is right on both sides: a torn intent was never sent, a torn answer leaves
//! its intent open.
//!
//! Lines are JSON because a reader of a broken book will want to grep them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The shop itself writes under this number; workers count from 1.
pub const SHOP: u32 = 0;
const SUFFIX: &str = "ledger";

/// Names one intent in the whole sale: the worker's number and its own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Intent {
    pub worker: u32,
    pub n: u32,
}

impl std::fmt::Display for Intent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.worker, self.n)
    }
}

impl std::str::FromStr for Intent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('.').and_then(|(worker, n)| {
            Some(Self { worker: worker.parse().ok()?, n: n.parse().ok()? })
        });
        parts.ok_or_else(|| format!("`{text}` is no intent; it looks like 3.17"))
    }
}

impl From<Intent> for String {
    fn from(intent: Intent) -> Self {
        intent.to_string()
    }
}

impl TryFrom<String> for Intent {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// The steps of an order's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    Stock,
    Pay,
    Remind,
    Ship,
}

/// Why a commit was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// A lock or delivery was not the worker's any more.
    Stale,
    /// Somebody else had written the register.
    Conflict,
    /// The session had ended.
    Session,
    /// The server was away, and it is certain that it never heard of it.
    Away,
    /// Anything else, which the books do not forgive.
    Other,
}

/// A register of stock as a worker read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub version: u64,
    pub left: u32,
    /// The intent that had written it.
    pub by: Intent,
}

/// An order and the intent that sent it here.
pub type Sent = (u32, Intent);

/// One line. Times are microseconds of the wall clock: all processes share one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Shop: an article lies on the shelf.
    Opened { article: u32, left: u32, version: u64 },
    /// Shop: is about to publish these orders.
    Placing { at: u64, orders: Vec<u32> },
    /// Shop: they are confirmed. So many copies had been taken before and were absorbed.
    Placed { at: u64, orders: Vec<u32>, absorbed: u32 },
    /// Shop: took an order from the dead letters.
    Buried { at: u64, order: u32, reason: String },
    /// Shop: a good order died of too many crashes and was put back.
    Revived { at: u64, order: u32, token: u64 },
    /// Shop: killed a worker.
    Killed { at: u64, worker: u32 },
    /// Shop: killed the server; it was ready again so many microseconds later.
    Restarted { at: u64, us: u64 },

    /// Intent: take pieces from an article. `from` is what the register said, `left` what it is to
    /// say; `token` is the lock's, or none if compare-and-set guards the write.
    Stock {
        n: u32,
        at: u64,
        article: u32,
        token: Option<u64>,
        from: Seen,
        left: u32,
        sold: Vec<(u32, u32)>,
        refused: Vec<(u32, u32)>,
        again: u32,
    },
    /// Intent: charge customers; the late ones get a reminder, the declined ones another try.
    Pay { n: u32, at: u64, paid: Vec<Sent>, late: Vec<Sent>, declined: Vec<Sent>, again: u32 },
    /// Intent: remind customers, who then pay.
    Remind { n: u32, at: u64, orders: Vec<Sent>, again: u32 },
    /// Intent: hand parcels to the carrier, with a manifest.
    Ship { n: u32, at: u64, orders: Vec<Sent>, again: u32 },

    /// Answer: the intent's commit happened.
    Done {
        n: u32,
        at: u64,
        step: Step,
        /// Orders sold, paid, reminded or shipped; and orders refused, reminded or declined.
        did: [u32; 2],
        /// Of the register written.
        version: Option<u64>,
        /// How long the commit took.
        us: u32,
        /// How long the lock was waited for.
        waited_us: Option<u32>,
    },
    /// Answer: the commit was refused; nothing has happened.
    Void { n: u32, at: u64, step: Step, why: Why, wrong: String },
    /// Answer: none came.
    Unknown { n: u32, at: u64, step: Step, wrong: String },

    /// A worker holds a lock, is about to write, and lets the kernel stop it.
    Frozen { n: u32, at: u64 },
    /// A lock was asked for in vain.
    Missed { at: u64, article: u32, wrong: String },
    /// An order that nobody can handle was returned or rejected.
    Bad { at: u64, order: u32, attempt: u32, reject: bool },
    /// The nightly job runs.
    Night { at: u64, night: u32, token: u64 },
    /// The nightly job ran.
    Reported { at: u64, night: u32, token: u64, version: u64 },
}

/// Now, in microseconds of the wall clock.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// The ledger of one process.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    worker: u32,
    next: AtomicU32,
}

impl Ledger {
    pub fn open(dir: &Path, worker: u32) -> io::Result<Self> {
        let path = dir.join(format!("{worker}.{SUFFIX}"));
        let file = OpenOptions::new().append(true).create_new(true).open(path)?;
        Ok(Self { file, worker, next: AtomicU32::new(1) })
    }

    /// A new intent.
    pub fn intent(&self) -> Intent {
        Intent { worker: self.worker, n: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    /// Writes a line. A worker that cannot write must not act: the error ends it.
    pub fn enter(&self, fact: &Fact) -> io::Result<()> {
        let mut line = serde_json::to_vec(fact)?;
        line.push(b'\n');
        (&self.file).write_all(&line)
    }
}

/// The ledgers of a directory, by worker.
fn files(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let Some(worker) = number
            && path.extension().is_some_and(|extension| extension == SUFFIX)
        {
            found.push((worker, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads every ledger from its beginning. Fails at a line that is no fact, unless it is torn.
pub fn read_all(dir: &Path, mut each: impl FnMut(u32, Fact)) -> anyhow::Result<()> {
    for (worker, path) in files(dir)? {
        let text = fs::read(&path)?;
        for (index, line) in whole_lines(&text).0.enumerate() {
            let fact = serde_json::from_slice(line)
                .map_err(|error| anyhow::anyhow!("{}:{}: {error}", path.display(), index + 1))?;
            each(worker, fact);
        }
    }
    Ok(())
}

/// The lines that have an end, and how many bytes they are.
fn whole_lines(text: &[u8]) -> (impl Iterator<Item = &[u8]>, usize) {
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    (text[..end].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()), end)
}

/// Follows the ledgers while they are written, for the display. Intents are skipped unread: they
/// are most of the bytes, and the processor belongs to the sale.
#[derive(Debug, Default)]
pub struct Tail {
    files: std::collections::HashMap<u32, (File, u64)>,
    buffer: Vec<u8>,
}

impl Tail {
    const INTENTS: [&'static [u8]; 5] =
        [b"{\"stock\"", b"{\"pay\"", b"{\"remind\"", b"{\"ship\"", b"{\"placing\""];

    pub fn poll(&mut self, dir: &Path, mut each: impl FnMut(u32, Fact)) -> io::Result<()> {
        for (worker, path) in files(dir)? {
            let (file, at) = match self.files.entry(worker) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert((File::open(path)?, 0))
                }
            };
            self.buffer.clear();
            file.seek(SeekFrom::Start(*at))?;
            file.read_to_end(&mut self.buffer)?;
            let (lines, end) = whole_lines(&self.buffer);
            *at += end as u64;
            for line in lines.filter(|line| !Self::INTENTS.iter().any(|i| line.starts_with(i))) {
                // What cannot be read here is named with its line when the books are balanced.
                if let Ok(fact) = serde_json::from_slice(line) {
                    each(worker, fact);
                }
            }
        }
        Ok(())
    }
}

/// Falsifies one line, so that the books must not balance: one order gets a piece more than it
/// paid for. Gives what was changed.
pub fn tamper(dir: &Path) -> anyhow::Result<String> {
    for (worker, path) in files(dir)? {
        let text = fs::read_to_string(&path)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for index in 0..lines.len() {
            let Ok(Fact::Stock { n, mut sold, .. }) = serde_json::from_str(&lines[index]) else {
                continue;
            };
            let done = format!("{{\"done\":{{\"n\":{n},");
            if sold.is_empty() || !lines[index..].iter().any(|line| line.starts_with(&done)) {
                continue;
            }
            let mut fact: Fact = serde_json::from_str(&lines[index])?;
            sold[0].1 += 1;
            let order = sold[0].0;
            if let Fact::Stock { sold: changed, .. } = &mut fact {
                *changed = sold;
            }
            lines[index] = serde_json::to_string(&fact)?;
            fs::write(&path, lines.join("\n") + "\n")?;
            return Ok(format!("ledger {worker}, line {}: order {order}", index + 1));
        }
    }
    anyhow::bail!("no ledger has a sale to falsify")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_was_never_written() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let ledger = Ledger::open(dir.path(), 3)?;
        let fact = Fact::Killed { at: 1, worker: 3 };
        ledger.enter(&fact)?;
        (&ledger.file).write_all(b"{\"killed\":{\"at\":2")?;
        let (mut read, mut seen) = (Vec::new(), Vec::new());
        read_all(dir.path(), |worker, fact| read.push((worker, fact)))?;
        assert_eq!(read, [(3, fact.clone())]);
        let mut tail = Tail::default();
        tail.poll(dir.path(), |worker, fact| seen.push((worker, fact)))?;
        (&ledger.file).write_all(b",\"worker\":4}}\n")?;
        tail.poll(dir.path(), |worker, fact| seen.push((worker, fact)))?;
        assert_eq!(seen, [(3, fact), (3, Fact::Killed { at: 2, worker: 4 })]);
        Ok(())
    }

    #[test]
    fn a_line_that_is_no_fact_is_named() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        (&Ledger::open(dir.path(), 0)?.file).write_all(b"nonsense\n")?;
        let error = read_all(dir.path(), |_, _| {}).expect_err("nonsense");
        assert!(error.to_string().contains("0.ledger:1"), "{error}");
        Ok(())
    }
}
