//! Logs, on stderr: for people, or one JSON object a line.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::settings::{LogFormat, Settings};

/// Starts to log what the settings ask for.
pub fn start(settings: &Settings) -> Result<()> {
    let filter = EnvFilter::try_new(&settings.log_level).map_err(|error| {
        Failure::usage(format!("{error}; give error, warn, info, debug, trace or a filter"))
    });
    let filter = filter.with_context(|| format!("read log.level {:?}", settings.log_level))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => logs.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Logs of a command: silent but for errors, unless the environment wants more.
pub fn quiet() {
    let filter = EnvFilter::try_from_env("LEASEHOLD_LOG_LEVEL");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("off"));
    let ansi = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    logs.with_ansi(ansi).without_time().init();
}
