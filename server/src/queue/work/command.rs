//! One command that works on one message.

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use leasehold::Retry;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::super::message;
use super::{Lease, Worker};
use crate::connect;
use crate::failure::{Failure, NOT_FOUND, NOT_STARTED};
use crate::group::Group;
use crate::watch::Place;

/// How soon an extension that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How long before the end of its lease a command is killed, so that the helper need not.
const AHEAD: Duration = Duration::from_millis(50);

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Because this process was told to end.
    Told,
    /// Because its lease was lost.
    Lost,
}

/// A command that runs.
pub struct Running {
    child: Child,
    group: Group,
    worker: Arc<Worker>,
}

impl Running {
    /// Starts the command in a group of its own, so that a terminal's Ctrl-C does not reach it,
    /// and feeds it the message.
    pub fn start(worker: &Arc<Worker>, lease: &Lease<'_>) -> Result<Self> {
        let delivery = lease.delivery;
        let arguments = &worker.arguments;
        let program = &arguments.command[0];
        let mut command = Command::new(program);
        command.args(&arguments.command[1..]).stdin(Stdio::piped());
        command.env("LEASEHOLD_QUEUE", &arguments.name);
        command.env("LEASEHOLD_ATTEMPT", delivery.attempt.to_string());
        command.env("LEASEHOLD_TOKEN", delivery.token().to_string());
        let names = [
            ("LEASEHOLD_MESSAGE_ID", &delivery.content.id),
            ("LEASEHOLD_MESSAGE_KEY", &delivery.content.key),
        ];
        for (name, value) in names {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        for (name, value) in &delivery.content.headers {
            command.env(variable(name), message::header_text(value));
        }
        connect::pass_on(&worker.global, &mut command)?;
        let place = Place::open()?;
        let group = place.group();
        lease.tell(group);
        let child = command.process_group(group.number()).spawn().map_err(|error| {
            let code = match error.kind() {
                std::io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_STARTED,
            };
            let wrong = format!("start {program}: {error}; name a program that can be run");
            Failure::new(code, wrong)
        });
        drop(place);
        let child = child.inspect_err(|_| worker.watcher().let_go(group))?;
        let mut running = Self { child, group, worker: worker.clone() };
        if let Some(mut stdin) = running.child.stdin.take() {
            let body = delivery.content.body.clone();
            // A command need not read what it does not want.
            tokio::spawn(async move { stdin.write_all(&body).await.ok() });
        }
        Ok(running)
    }

    /// Extends the lease until the command has ended.
    pub async fn watch(
        &mut self,
        lease: &mut Lease<'_>,
        mut ending: watch::Receiver<bool>,
    ) -> Result<End> {
        let mut extend_at = Instant::now() + lease.time() / 3;
        let mut told = false;
        let mut lost = false;
        let ahead = AHEAD.min(lease.time() / 20);
        let status = loop {
            tokio::select! {
                biased;
                status = self.child.wait() => break status.context("wait for the command")?,
                () = heard(&mut ending), if !told => {
                    told = true;
                    self.group.signal(Signal::TERM);
                }
                () = sleep_until(extend_at), if !lost => {
                    let until = lease.until - ahead;
                    extend_at = match timeout_at(until, lease.extend()).await {
                        Ok(Ok(())) => {
                            lease.tell(self.group);
                            Instant::now() + lease.time() / 3
                        }
                        Ok(Err(error)) if error.retry != Retry::Never && Instant::now() < until => {
                            (Instant::now() + RETRY).min(until)
                        }
                        _ => {
                            lost = true;
                            self.group.kill();
                            extend_at
                        }
                    };
                }
            }
        };
        // What the group's number names from now on is nobody's business here.
        self.worker.watcher().let_go(self.group);
        Ok(match (status.code(), status.signal()) {
            _ if lost => End::Lost,
            // Done is done, however it came to end.
            (Some(0), _) => End::Code(0),
            _ if told => End::Told,
            (Some(code), _) => End::Code(code),
            (None, signal) => End::Signal(signal.unwrap_or(0)),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.worker.watcher().let_go(self.group);
    }
}

/// Resolves when running commands have to end.
async fn heard(ending: &mut watch::Receiver<bool>) {
    if ending.wait_for(|ending| *ending).await.is_err() {
        // Nobody is left who could say it.
        std::future::pending::<()>().await;
    }
}

/// The environment variable of a header.
fn variable(header: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("LEASEHOLD_HEADER_{}", header.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_variables() {
        assert_eq!(variable("content-type"), "LEASEHOLD_HEADER_CONTENT_TYPE");
    }
}
