//! `leasehold queue publish`.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use leasehold::{ErrorKind, Message, Published, Queue, QueueConfig, Value};
use serde_json::json;

use crate::cli::Global;
use crate::failure::Failure;
use crate::{print, span};

/// Messages of one request when every line is one.
const BATCH: usize = 256;

/// Arguments of `queue publish`.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The queue
    name: String,
    /// The message; - or nothing reads it from stdin
    #[arg(conflicts_with_all = ["file", "lines"])]
    body: Option<String>,
    /// Read the message from a file
    #[arg(long, value_name = "FILE", conflicts_with = "lines")]
    file: Option<PathBuf>,
    /// Make a message of every line of stdin
    #[arg(long)]
    lines: bool,
    /// Higher goes first; 0 is the lowest
    #[arg(long, value_name = "N", default_value = "0")]
    priority: u8,
    /// Hold it back for so long
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    delay: Option<Duration>,
    /// Names the message: a queue that remembers ids takes each once
    #[arg(long, value_name = "TEXT", conflicts_with = "lines")]
    id: Option<String>,
    /// Messages with the same key are delivered one at a time, in order
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Let it die if it waits longer
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    ttl: Option<Duration>,
    /// Adds a header; may be given often
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// Make the queue first if it is not there
    #[arg(long)]
    declare: bool,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it has to be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Does it.
pub async fn run(arguments: PublishArgs, global: &Global) -> Result<()> {
    let asked = || format!("publish to queue {}", arguments.name);
    let queue = super::open(&arguments.name, "publish", global).await?;
    if arguments.declare {
        match queue.declare(&QueueConfig::default()).await {
            // It is there, with settings of its own, and those are none of our business.
            Err(error) if error.kind == ErrorKind::Different => {}
            result => {
                result.with_context(asked)?;
            }
        }
    }
    let tally = match arguments.lines {
        true => lines(&arguments, &queue).await.with_context(asked)?,
        false => {
            let message = arguments.message(arguments.read().with_context(asked)?);
            let mut tally = Tally::default();
            tally.add(queue.publish(message).await?);
            tally
        }
    };
    let Tally { published, duplicates } = tally;
    let value =
        json!({ "queue": arguments.name, "published": published, "duplicates": duplicates });
    print::either(global.json, &value, || {
        let text = format!("{} published to queue {}", super::messages(published), arguments.name);
        match duplicates {
            0 => text,
            _ => format!("{text}, {} taken before", super::messages(duplicates)),
        }
    })
}

#[derive(Default)]
struct Tally {
    published: u64,
    duplicates: u64,
}

impl Tally {
    fn add(&mut self, published: Published) {
        self.published += u64::from(published.queues > 0);
        self.duplicates += u64::from(published.duplicates > 0);
    }
}

/// Publishes every line of stdin. Lines are read on a thread of their own, which has to wait when
/// the engine is slower.
async fn lines(arguments: &PublishArgs, queue: &Queue) -> Result<Tally> {
    let (send, mut receive) = tokio::sync::mpsc::channel(BATCH);
    let reader = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
        for line in std::io::stdin().lock().split(b'\n') {
            if send.blocking_send(line?).is_err() {
                break;
            }
        }
        Ok(())
    });
    let bar = print::progress(None, "publishing");
    let mut tally = Tally::default();
    let mut batch = Vec::new();
    while receive.recv_many(&mut batch, BATCH).await > 0 {
        let messages = batch.drain(..).map(|line| arguments.message(line)).collect::<Vec<_>>();
        for answer in queue.publish_all(messages).await? {
            let line = tally.published + tally.duplicates + 1;
            tally.add(answer.with_context(|| format!("line {line}"))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    reader.await.context("read stdin")?.context("read stdin")?;
    Ok(tally)
}

impl PublishArgs {
    fn read(&self) -> Result<Vec<u8>> {
        if let Some(file) = &self.file {
            let read = std::fs::read(file);
            return read.map_err(|error| {
                Failure::usage(format!("read {}: {error}", file.display())).into()
            });
        }
        match self.body.as_deref() {
            None | Some("-") => {
                let mut body = Vec::new();
                std::io::stdin().lock().read_to_end(&mut body).context("read stdin")?;
                Ok(body)
            }
            Some(body) => Ok(body.as_bytes().to_vec()),
        }
    }

    fn message(&self, body: Vec<u8>) -> Message {
        let mut message = Message::new(body).priority(self.priority);
        if let Some(delay) = self.delay {
            message = message.delay(delay);
        }
        if let Some(ttl) = self.ttl {
            message = message.ttl(ttl);
        }
        message.id.clone_from(&self.id);
        message.key.clone_from(&self.key);
        for (name, value) in &self.header {
            message = message.header(name, Value::Text(value.clone()));
        }
        message
    }
}
