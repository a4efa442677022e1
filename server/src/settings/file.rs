//! The configuration file and the users file: TOML, in which an unknown key is an error.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Setting, TABLE};
use crate::failure::Failure;

/// What a configuration file says.
pub struct ConfigFile {
    /// Settings as text, with their lines.
    pub values: Vec<(&'static Setting, String, usize)>,
    /// The users in it.
    pub users: Vec<Placed>,
}

/// A user, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// The user.
    pub entry: UserEntry,
    /// The file and the line.
    pub place: String,
}

/// A user as a file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The name, without colons.
    pub name: String,
    /// The Argon2 hash of the password, in PHC form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_hash: Option<String>,
    /// Hex SHA-256 of bearer tokens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_hashes: Vec<String>,
    /// What the user may do.
    #[serde(default)]
    pub permissions: Vec<PermissionEntry>,
}

/// A permission as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PermissionEntry {
    /// Names it is about; `*` at the end stands for any rest.
    pub on: String,
    /// What may be done with them.
    pub allow: Vec<String>,
}

/// A file's users as they are read, with their places.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    users: Vec<Spanned<UserEntry>>,
}

/// A file's users as they are written.
#[derive(Serialize)]
struct Users {
    users: Vec<UserEntry>,
}

impl ConfigFile {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has a key that is none.
    pub fn read(path: &Path) -> Result<Self> {
        let asked = || format!("read {}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("{error}; name a file that can be read with --config"))
        });
        Self::parse(&text.with_context(asked)?, path).map_err(Failure::usage).with_context(asked)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, String> {
        let root = DeTable::parse(text).map_err(|error| refused(text, &error))?;
        let mut values = Vec::new();
        let mut users = false;
        let mut tables = vec![(String::new(), root.into_inner())];
        while let Some((prefix, table)) = tables.pop() {
            for (key, value) in table {
                let line = line_of(text, key.span().start);
                let key = format!("{prefix}{}", key.get_ref());
                let value = value.into_inner();
                if key == "users" && value.is_array() {
                    users = true;
                } else if let Some(setting) = TABLE.iter().find(|setting| setting.key == key) {
                    values.push((setting, written(&value, line, setting)?, line));
                } else if TABLE.iter().any(|known| known.key.starts_with(&format!("{key}.")))
                    && let DeValue::Table(table) = value
                {
                    tables.push((format!("{key}."), table));
                } else {
                    return Err(unknown(&key, line));
                }
            }
        }
        let users = match users {
            true => parse_users(text, path)?,
            false => Vec::new(),
        };
        Ok(Self { values, users })
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset.min(text.len())].matches('\n').count()
}

fn refused(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    format!("line {line}: {}", error.message())
}

/// A value as text; lists and tables are none.
fn written(value: &DeValue, line: usize, setting: &Setting) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        other => {
            let (key, form) = (setting.key, setting.form);
            let found = other.type_str();
            Err(format!("line {line}: `{key}` is {found}; it has to be {form}"))
        }
    }
}

fn unknown(key: &str, line: usize) -> String {
    let known = TABLE.iter().map(|setting| setting.key).chain(["users"]);
    let near = known.map(|known| (strsim::damerau_levenshtein(key, known), known)).min();
    let advice = match near {
        Some((distance, known)) if distance <= 1 + known.len() / 3 => {
            format!("did you mean `{known}`?")
        }
        _ => "see docs/reference/configuration.md, or `leasehold config`".to_owned(),
    };
    format!("line {line}: there is no setting `{key}`; {advice}")
}

fn parse_users(text: &str, path: &Path) -> Result<Vec<Placed>, String> {
    let found: Found = toml::from_str(text).map_err(|error| refused(text, &error))?;
    let placed = |user: Spanned<UserEntry>| {
        let line = line_of(text, user.span().start);
        let place = format!("{} line {line}", path.display());
        Placed { entry: user.into_inner(), place }
    };
    Ok(found.users.into_iter().map(placed).collect())
}

/// The users in a users file; none if it is not there.
///
/// # Errors
/// When it cannot be read or has something else in it.
pub fn read_users(path: &Path) -> Result<Vec<Placed>> {
    let asked = || format!("read {}", path.display());
    match std::fs::read_to_string(path) {
        Ok(text) => parse_users(&text, path).map_err(Failure::usage).with_context(asked),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(asked),
    }
}

fn entries(path: &Path) -> Result<Vec<UserEntry>> {
    Ok(read_users(path)?.into_iter().map(|user| user.entry).collect())
}

/// Writes a user to a users file, in place of one of the same name; gives whether there was one.
///
/// # Errors
/// When the file cannot be read or written.
pub fn add_user(path: &Path, user: UserEntry) -> Result<bool> {
    let mut users = entries(path)?;
    let replaced = users.iter().position(|known| known.name == user.name);
    match replaced {
        Some(place) => users[place] = user,
        None => users.push(user),
    }
    write_users(path, users)?;
    Ok(replaced.is_some())
}

/// Takes a user out of a users file; gives whether there was one.
///
/// # Errors
/// When the file cannot be read or written.
pub fn remove_user(path: &Path, name: &str) -> Result<bool> {
    let mut users = entries(path)?;
    let before = users.len();
    users.retain(|known| known.name != name);
    let found = users.len() < before;
    if found {
        write_users(path, users)?;
    }
    Ok(found)
}

/// Written whole beside the old file and renamed over it: a crash leaves one of the two.
fn write_users(path: &Path, users: Vec<UserEntry>) -> Result<()> {
    let text = toml::to_string(&Users { users }).context("write the users as TOML")?;
    crate::serve::write_private(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_read_with_their_lines() {
        let text = "data_dir = 'd'\n[http]\nlisten = '[::]:1'\n[memory]\nresident_entries = 5\n";
        let file = ConfigFile::parse(text, Path::new("a.toml")).expect("it is right");
        let mut found: Vec<_> =
            file.values.iter().map(|(s, text, line)| (s.key, text.as_str(), *line)).collect();
        found.sort_unstable();
        let wanted = [
            ("data_dir", "d", 1),
            ("http.listen", "[::]:1", 3),
            ("memory.resident_entries", "5", 5),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_example_has_every_setting_with_its_default() {
        let text = include_str!("../../../packaging/leasehold.toml");
        // Settings without a default are commented out, and so are users.
        let file = ConfigFile::parse(text, Path::new("a.toml")).expect("it is right");
        let mut found: Vec<_> =
            file.values.iter().map(|(s, text, _)| (s.key, text.replace('_', ""))).collect();
        found.sort_unstable();
        let defaults = TABLE.iter().filter(|setting| !setting.default.is_empty());
        let mut wanted: Vec<_> = defaults.map(|s| (s.key, s.default.replace('_', ""))).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        let last = |key: &'static str| key.rsplit('.').next().unwrap_or(key);
        assert!(TABLE.iter().all(|s| text.contains(&format!("{} = ", last(s.key)))));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known() {
        let wrong = |text: &str| {
            ConfigFile::parse(text, Path::new("a.toml")).map(|_| ()).expect_err("it is wrong")
        };
        let error = wrong("data_dir = 'd'\n[http]\nlisten_on = 'x'\n");
        assert_eq!(
            error,
            "line 3: there is no setting `http.listen_on`; did you mean `http.listen`?"
        );
        let error = wrong("data_dri = 'd'");
        assert!(error.ends_with("did you mean `data_dir`?"), "{error}");
        assert!(wrong("[http]\nlisten = ['x']").starts_with("line 2: `http.listen` is array"));
        assert!(wrong("\n\na = =").starts_with("line 3: "));
    }

    #[test]
    fn users_are_read_and_misspelt_fields_named() {
        let text = "[[users]]\nname = 'shop'\npermissions = [{ on = '*', allow = ['publish'] }]\n";
        let file = ConfigFile::parse(text, Path::new("a.toml")).expect("it is right");
        let user = &file.users[0];
        assert_eq!(user.entry.permissions[0].allow, ["publish"]);
        assert_eq!(user.place, "a.toml line 1");
        let error = ConfigFile::parse("[[users]]\nnam = 'shop'\n", Path::new("a.toml")).map(|_| ());
        let error = error.expect_err("it is wrong");
        assert!(error.starts_with("line 2: unknown field `nam`"), "{error}");
    }
}
