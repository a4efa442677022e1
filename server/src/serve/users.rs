//! Who may come in, from the configuration and the users file.

use anyhow::{Context, Result, anyhow};
use leasehold_http_door::{Allowance, Permission, User, token_hash};

use crate::failure::Failure;
use crate::settings::{Given, PermissionEntry, Settings, UserEntry, read_users};
use crate::user::known;

/// All users; a name may stand in one place only.
///
/// # Errors
/// When one of them is not acceptable.
pub fn gather(given: &Given, settings: &Settings) -> Result<Vec<User>> {
    let mut users: Vec<User> = Vec::new();
    for entry in given.users.iter().cloned().chain(read_users(&settings.users_file)?) {
        let name = entry.name.clone();
        if users.iter().any(|user| user.name == name) {
            let wrong = format!("there are two users {name:?}; take one of them out");
            return Err(Failure::usage(wrong)).context("read the users");
        }
        let user = user(entry).map_err(|error| Failure::usage(format!("{error:#}")));
        users.push(user.with_context(|| format!("read user {name:?}"))?);
    }
    Ok(users)
}

fn user(entry: UserEntry) -> Result<User> {
    let UserEntry { name, password_hash, token_hashes, permissions } = entry;
    if name.is_empty() || name.contains(':') {
        return Err(anyhow!("a name has at least one character and no colon"));
    }
    if password_hash.is_none() && token_hashes.is_empty() {
        return Err(anyhow!("there is neither a password_hash nor a token hash; add one"));
    }
    if password_hash.as_ref().is_some_and(|hash| !hash.starts_with("$argon2")) {
        return Err(anyhow!("password_hash is no Argon2 hash; make it with `leasehold user add`"));
    }
    let wrong = "a token hash is not 64 hexadecimal digits; make it with `leasehold user add`";
    let tokens: Option<Vec<_>> = token_hashes.iter().map(|text| token_hash(text)).collect();
    let allowances: Result<Vec<_>> = permissions.into_iter().map(allowance).collect();
    let tokens = tokens.ok_or_else(|| anyhow!(wrong))?;
    Ok(User { name, password: password_hash, tokens, allowances: allowances? })
}

fn allowance(entry: PermissionEntry) -> Result<Allowance> {
    let permission = |name: &String| {
        let unknown = || anyhow!("there is no permission {name:?}; there are {}", known());
        Permission::named(name).ok_or_else(unknown)
    };
    let allow: Result<Vec<_>> = entry.allow.iter().map(permission).collect();
    Ok(Allowance { on: entry.on, allow: allow? })
}

/// Refuses to let the whole network in by mistake.
///
/// # Errors
/// When there are no users and the address can be reached from elsewhere.
pub fn may_listen(settings: &Settings, open: bool) -> Result<()> {
    let address = settings.http_listen;
    if !open || settings.insecure_listen || address.ip().is_loopback() {
        return Ok(());
    }
    let wrong = "there are no users, so whoever reaches this address could do everything; add one \
                 with `leasehold user add NAME`, listen on 127.0.0.1, or say --insecure-listen";
    Err(Failure::usage(wrong)).with_context(|| format!("listen on {address}"))
}
