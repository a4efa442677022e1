//! `leasehold user`: the users file.

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use leasehold_users::{Permission, hash_password, hash_token};
use serde_json::json;

use crate::failure::Failure;
use crate::print;
use crate::settings::{PermissionEntry, UserEntry, add_user, read_users, remove_user};

/// What can be done with users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Write a user to the file, in place of one of the same name
    Add(AddArgs),
    /// List the users in the file
    Ls(FileArg),
    /// Take a user out of the file
    Rm {
        /// The user
        name: String,
        #[command(flatten)]
        file: FileArg,
    },
}

/// Names the users file.
#[derive(Debug, Args)]
pub struct FileArg {
    /// The users file
    #[arg(long = "users-file", value_name = "FILE", env = "LEASEHOLD_USERS_FILE")]
    #[arg(default_value = "./leasehold-users.toml")]
    file: PathBuf,
}

/// Arguments of `user add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// The user's name
    name: String,
    /// Make a bearer token, which is printed once, instead of asking for a password
    #[arg(long = "with-token")]
    with_token: bool,
    /// Read the password from the first line of stdin
    #[arg(long, conflicts_with = "with_token")]
    password_stdin: bool,
    /// What the user may do with which names, such as 'orders*=publish,consume'; may be given
    /// often [default: everything]
    #[arg(long = "allow", value_name = "NAMES=WHAT", value_parser = parse_permission)]
    allow: Vec<PermissionEntry>,
    #[command(flatten)]
    file: FileArg,
}

/// Bytes of a bearer token; in base64 it has a third more characters.
const TOKEN_BYTES: usize = 32;
/// Shorter passwords are refused.
const PASSWORD_CHARS_MIN: usize = 8;

fn parse_permission(text: &str) -> Result<PermissionEntry, String> {
    let (on, allow) = text.rsplit_once('=').ok_or("it has to be NAMES=WHAT")?;
    let allow: Vec<String> = allow.split(',').map(|one| one.trim().to_owned()).collect();
    match allow.iter().find(|one| Permission::named(one).is_none()) {
        Some(unknown) => Err(format!("there is no permission {unknown:?}; there are {}", known())),
        None => Ok(PermissionEntry { on: on.to_owned(), allow }),
    }
}

/// The names of all permissions.
pub fn known() -> String {
    Permission::ALL.map(|(_, name)| name).join(", ")
}

/// Does it.
pub fn run(command: UserCommand, json: bool) -> Result<ExitCode> {
    match command {
        UserCommand::Add(arguments) => add(arguments, json)?,
        UserCommand::Ls(file) => list(&file, json)?,
        UserCommand::Rm { name, file } => {
            if !remove_user(&file.file, &name)? {
                let wrong = format!("there is no such user in {}", file.file.display());
                return Err(anyhow::anyhow!(wrong)).context(format!("remove user {name}"));
            }
            let left = read_users(&file.file)?.len();
            let value = json!({ "name": name, "removed": true, "left": left });
            print::either(json, &value, || {
                let after = match left {
                    0 => "none is left, so a running server keeps it until it is started again",
                    _ => "a running server shuts it out in a moment",
                };
                format!("user {name} removed; {after}")
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add(arguments: AddArgs, json: bool) -> Result<()> {
    let AddArgs { name, with_token, password_stdin, allow, file } = arguments;
    let asked = || format!("add user {name}");
    if name.is_empty() || name.contains(':') || name.chars().any(char::is_control) {
        let wrong = "a name has at least one character, no colon and no control characters";
        return Err(Failure::usage(wrong)).with_context(asked);
    }
    let everything = || {
        let allow = Permission::ALL.map(|(_, name)| name.to_owned()).to_vec();
        vec![PermissionEntry { on: "*".to_owned(), allow }]
    };
    let permissions = if allow.is_empty() { everything() } else { allow };
    let mut user = UserEntry { name: name.clone(), permissions, ..UserEntry::default() };
    let mut token = None;
    if with_token {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes).context("make a token: the system has no randomness")?;
        let text = BASE64_URL_SAFE_NO_PAD.encode(bytes);
        user.token_hashes.push(hash_token(&text));
        token = Some(text);
    } else {
        let password = read_password(&name, password_stdin).with_context(asked)?;
        user.password_hash = Some(hash_password(&password).with_context(asked)?);
    }
    let replaced = add_user(&file.file, user).with_context(asked)?;
    let value = json!({ "name": name, "replaced": replaced, "token": token });
    print::either(json, &value, || {
        let done = if replaced { "replaced" } else { "added" };
        let text = format!(
            "user {name} {done} in {}; a running server knows it in a moment",
            file.file.display()
        );
        match token {
            Some(token) => format!("{text}\nits token, shown this once:\n{token}"),
            None => text,
        }
    })
}

fn read_password(name: &str, from_stdin: bool) -> Result<String> {
    let password = if from_stdin || !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).context("read the password from stdin")?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        let ask = |prompt| rpassword::prompt_password(prompt).context("read the password");
        let password = ask(format!("password of {name}: "))?;
        if ask("the same again: ".to_owned())? != password {
            return Err(Failure::usage("the two are not the same; try again").into());
        }
        password
    };
    if password.chars().count() < PASSWORD_CHARS_MIN {
        let wrong = format!("the password has to have at least {PASSWORD_CHARS_MIN} characters");
        return Err(Failure::usage(wrong).into());
    }
    Ok(password)
}

fn list(file: &FileArg, json: bool) -> Result<()> {
    let users = read_users(&file.file)?.into_iter().map(|user| user.entry).collect::<Vec<_>>();
    let permission = |one: &PermissionEntry| format!("{}={}", one.on, one.allow.join(","));
    let permissions =
        |user: &UserEntry| user.permissions.iter().map(permission).collect::<Vec<_>>().join(" ");
    let object = |user: &UserEntry| {
        json!({
            "name": user.name,
            "password": user.password_hash.is_some(),
            "tokens": user.token_hashes.len(),
            "permissions": user.permissions.iter().map(permission).collect::<Vec<_>>(),
        })
    };
    let all: Vec<_> = users.iter().map(object).collect();
    let rows = users.iter().map(|user| {
        let password = if user.password_hash.is_some() { "yes" } else { "no" };
        let tokens = user.token_hashes.len().to_string();
        [user.name.clone(), password.to_owned(), tokens, permissions(user)]
    });
    let head = ["USER", "PASSWORD", "TOKENS", "MAY"];
    print::either(json, &all.into(), || print::table(head, rows))
}
