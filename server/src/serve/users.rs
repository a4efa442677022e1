//! Who may come in, from the configuration and the users file, and changes of it while the server
//! runs.
//!
//! What cannot be read whole leaves the users as they are. So does a file without a user: everybody
//! could do everything then, which nobody should get by an editor that empties a file before it
//! writes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use leasehold_users::{Allowance, Permission, User, UserLimits, Users, token_hash};

use super::seen::Seen;
use crate::failure::{Failure, one_line};
use crate::settings::{Given, PermissionEntry, Placed, Settings, UserEntry, read_users};
use crate::user::known;

/// The users of a running server, and where they come from.
pub struct Keeper {
    users: Arc<Users>,
    known: Vec<User>,
    /// What was said without the configuration file, which is read again.
    given: Given,
    file: PathBuf,
    seen: Seen,
}

impl Keeper {
    /// The users at the start.
    ///
    /// # Errors
    /// When one of them is not acceptable, or there is none and whoever reaches the address could
    /// do everything.
    pub fn start(given: &Given, settings: &Settings) -> Result<Self> {
        let file = settings.users_file.clone();
        // Looked at before it is read: what changes in between is read once more.
        let seen = Seen::at(&file);
        let known = gather(given, &file)?;
        may_listen(settings, known.is_empty())?;
        let users = Arc::new(Users::new(known.clone(), UserLimits::default()));
        Ok(Self { users, known, given: given.clone(), file, seen })
    }

    /// The users, for all doors.
    pub fn users(&self) -> Arc<Users> {
        self.users.clone()
    }

    /// Reads the users again if their file looks different.
    pub fn look(&mut self) {
        if Seen::at(&self.file) != self.seen {
            self.read_again();
        }
    }

    /// Reads the users again, the configuration's too.
    pub fn read_again(&mut self) {
        self.seen = Seen::at(&self.file);
        match gather(&self.given, &self.file) {
            Err(error) => {
                tracing::error!("the users stay as they were: {}", one_line(&error));
            }
            Ok(users) if users == self.known => tracing::info!("the users are the same as before"),
            Ok(users) if users.is_empty() => {
                let file = self.file.display();
                tracing::error!(
                    "the users stay as they were: {file} has none left, and everybody could do \
                     everything; add one, or start the server again"
                );
            }
            Ok(users) => {
                tracing::info!(users = users.len(), "the users were read again");
                self.known.clone_from(&users);
                self.users.replace(users);
            }
        }
    }
}

/// All users; a name may stand in one place only.
fn gather(given: &Given, file: &Path) -> Result<Vec<User>> {
    let given = given.clone().with_file()?;
    let mut users: Vec<User> = Vec::new();
    for Placed { entry, place } in given.users.into_iter().chain(read_users(file)?) {
        let name = entry.name.clone();
        let asked = || format!("read user {name:?} ({place})");
        if users.iter().any(|user| user.name == name) {
            let wrong = "there is another user of this name; take one of them out";
            return Err(Failure::usage(wrong)).with_context(asked);
        }
        let user = user(entry).map_err(|error| Failure::usage(format!("{error:#}")));
        users.push(user.with_context(asked)?);
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
fn may_listen(settings: &Settings, open: bool) -> Result<()> {
    if !open || settings.insecure_listen {
        return Ok(());
    }
    let mut addresses = [Some(settings.http_listen), settings.resp_listen.0].into_iter().flatten();
    let Some(address) = addresses.find(|address| !address.ip().is_loopback()) else {
        return Ok(());
    };
    let wrong = "there are no users, so whoever reaches this address could do everything; add one \
                 with `leasehold user add NAME`, listen on 127.0.0.1, or say --insecure-listen";
    Err(Failure::usage(wrong)).with_context(|| format!("listen on {address}"))
}
