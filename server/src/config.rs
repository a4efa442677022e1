//! `leasehold config`: the settings in force, or their reference.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::print;
use crate::settings::{self, Given, Settings, TABLE};

/// Arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Print the reference of all settings as Markdown instead
    #[arg(long)]
    markdown: bool,
    #[command(flatten)]
    given: Given,
}

/// Shows what the server would run with.
pub fn run(arguments: ConfigArgs, json: bool) -> Result<ExitCode> {
    if arguments.markdown {
        print::raw(settings::markdown().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let given = arguments.given.with_file()?;
    Settings::resolve(&given)?;
    let value = |key, default| given.text(key).unwrap_or(default).to_owned();
    let rows = TABLE.iter().map(|setting| {
        let key = setting.key;
        [key.to_owned(), value(key, setting.default), given.origin(key)]
    });
    let object: Map<String, Value> = rows
        .clone()
        .map(|[key, value, from]| (key, json!({ "value": value, "from": from })))
        .collect();
    print::either(json, &object.into(), || print::table(["SETTING", "VALUE", "FROM"], rows))?;
    Ok(ExitCode::SUCCESS)
}
