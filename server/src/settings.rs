//! The server's settings, from one table.
//!
//! A row of the table makes a field of [`Settings`], a flag of `leasehold serve`, an environment
//! variable, a key of the configuration file and a row of `docs/reference/configuration.md`, so
//! that none of them can be forgotten. Rejected: a derived struct per source and a merge of them,
//! which names every setting four times and loses where a bad value came from.

mod file;
mod reference;
mod value;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use crate::failure::Failure;
use file::ConfigFile;
pub use file::{PermissionEntry, Placed, UserEntry, add_user, read_users, remove_user};
pub use reference::markdown;
use value::Value;
pub use value::{Bytes, Doorway, LogFormat, Names};

use leasehold_node::Durability;

/// A row of the table.
pub struct Setting {
    /// Its key in the configuration file, with dots between sections.
    pub key: &'static str,
    /// Its value if nobody says otherwise, as it would be written; empty: none.
    pub default: &'static str,
    /// What values it takes.
    pub form: &'static str,
    /// What it does.
    pub help: &'static str,
    /// A flag that needs no value.
    switch: bool,
}

impl Setting {
    /// The flag on the command line, without its dashes.
    pub fn flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// The environment variable.
    pub fn variable(&self) -> String {
        format!("LEASEHOLD_{}", self.key.replace('.', "_").to_uppercase())
    }
}

macro_rules! settings {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $key:literal, $default:literal;)+) => {
        /// What the server runs with.
        #[derive(Debug)]
        pub struct Settings {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        /// Every setting, in the order of the reference.
        pub const TABLE: &[Setting] = &[$(Setting {
            key: $key,
            default: $default,
            form: <$type as Value>::FORM,
            help: concat!($($help),+),
            switch: <$type as Value>::SWITCH,
        }),+];

        impl Settings {
            /// The settings from what was given, with defaults for the rest.
            ///
            /// # Errors
            /// The first value that is not acceptable, with where it came from.
            pub fn resolve(given: &Given) -> Result<Self> {
                Ok(Self { $($field: given.value($key, $default)?,)+ })
            }
        }
    };
}

settings! {
    /// The directory of the journal. It is made at the first start; one server at a time uses it.
    data_dir: PathBuf = "data_dir", "./leasehold-data";
    /// The URL of another engine. The server is then a gateway: its HTTP door in front of that
    /// engine, and no data directory and no RESP door of its own. `leasehold serve --on URL` says
    /// the same.
    engine: Option<String> = "engine", "";
    /// Where the HTTP door listens. Port 0 takes a free one.
    http_listen: SocketAddr = "http.listen", "127.0.0.1:7070";
    /// The certificate chain of the HTTP door, PEM. With it and its key the door speaks HTTPS.
    http_tls_cert: Option<PathBuf> = "http.tls_cert", "";
    /// The private key of the certificate, PEM.
    http_tls_key: Option<PathBuf> = "http.tls_key", "";
    /// A file with the 32 bytes that seal sessions and receipts; it is made if it is not there.
    /// If none is said it is in the data directory, and a gateway makes up another at each start.
    /// Gateways that stand behind one name need the same.
    http_secret: Option<PathBuf> = "http.secret", "";
    /// Host names under which the HTTP door is reached besides `localhost` and addresses, with
    /// commas between. Only asked while there are no users: then the name is all that keeps
    /// foreign web pages out.
    http_hosts: Names = "http.hosts", "";
    /// Where the RESP door listens, for programs that lock with Redis. Port 0 takes a free one;
    /// `off` leaves it closed.
    resp_listen: Doorway = "resp.listen", "127.0.0.1:7379";
    /// The certificate chain of the RESP door, PEM. With it and its key the door speaks TLS and
    /// nothing else, and clients connect with `rediss://`.
    resp_tls_cert: Option<PathBuf> = "resp.tls_cert", "";
    /// The private key of that certificate, PEM.
    resp_tls_key: Option<PathBuf> = "resp.tls_key", "";
    /// RESP clients at once; more are refused.
    resp_clients: u32 = "resp.clients", "10000";
    /// How long a script of a RESP client may run. The shard does nothing else meanwhile; a script
    /// that is stopped leaves no trace.
    resp_script_time: std::time::Duration = "resp.script_time", "1s";
    /// Listen beyond this machine although there are no users: whoever reaches the port may do
    /// everything.
    insecure_listen: bool = "insecure_listen", "false";
    /// A file with more users, in the form of this file's `[[users]]`; `leasehold user` keeps it.
    users_file: PathBuf = "users_file", "./leasehold-users.toml";
    /// When a change is confirmed. `always`: once it is safe on the disk. `interval=50ms`: once it
    /// is written; power loss may cost the last 50 ms. `none`: once it is written; the system
    /// decides when it is safe.
    durability: Durability = "durability", "always";
    /// How long locks that are held by a session stay taken after a restart, so that their
    /// holders can come back.
    restart_grace: std::time::Duration = "restart_grace", "30s";
    /// Length of a journal segment. Only used when the data directory is made.
    journal_segment: Bytes = "journal.segment", "64MiB";
    /// Memory for recently published messages.
    memory_tail: Bytes = "memory.tail_cache", "8MiB";
    /// Memory for messages read back from the disk.
    memory_read: Bytes = "memory.read_cache", "8MiB";
    /// Index entries of waiting messages kept in memory, about 56 bytes each; the rest is on disk.
    memory_entries: u32 = "memory.resident_entries", "262144";
    /// The largest request body. The largest message, 16 MiB, takes 21.4 MiB in base64.
    limits_body: Bytes = "limits.body", "24MiB";
    /// Connections at once; more are refused with 503.
    limits_connections: u32 = "limits.connections", "20000";
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or a filter such as
    /// `info,leasehold_http_door=debug`.
    log_level: String = "log.level", "info";
    /// How logs are written, on stderr.
    log_format: LogFormat = "log.format", "text";
}

/// Where a value came from, for errors.
#[derive(Debug, Clone)]
enum Origin {
    Flag,
    Variable,
    File(PathBuf, usize),
}

/// What was said on the command line, in the environment and in the configuration file.
#[derive(Debug, Clone, Default)]
pub struct Given {
    config: Option<PathBuf>,
    values: BTreeMap<&'static str, (String, Origin)>,
    /// The users in the configuration file.
    pub users: Vec<Placed>,
}

/// The configuration file that is read if it is there.
const CONFIG: &str = "./leasehold.toml";

impl Given {
    /// Adds what the configuration file says.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has a key that is none.
    pub fn with_file(mut self) -> Result<Self> {
        let path = match &self.config {
            Some(path) => path.clone(),
            None if Path::new(CONFIG).exists() => PathBuf::from(CONFIG),
            None => return Ok(self),
        };
        let file = ConfigFile::read(&path)?;
        for (setting, text, line) in file.values {
            let origin = Origin::File(path.clone(), line);
            self.values.entry(setting.key).or_insert((text, origin));
        }
        self.users = file.users;
        Ok(self)
    }

    /// A setting's value as text, if it was given.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|(text, _)| text.as_str())
    }

    /// Sets a value as a flag of the command line does.
    pub fn flag(&mut self, key: &'static str, text: &str) {
        self.values.insert(key, (text.to_owned(), Origin::Flag));
    }

    /// Where a setting's value comes from.
    pub fn origin(&self, key: &str) -> String {
        match self.values.get(key) {
            None => "default".to_owned(),
            Some((_, origin)) => named(key, origin),
        }
    }

    fn value<T: Value>(&self, key: &'static str, default: &str) -> Result<T> {
        let Some((text, origin)) = self.values.get(key) else {
            return Ok(T::parse(default).expect("every default is acceptable"));
        };
        let wrong = |wrong| {
            let named = named(key, origin);
            Failure::usage(format!("read {named}: {text:?} is not acceptable: {wrong}")).into()
        };
        T::parse(text).map_err(wrong)
    }
}

fn named(key: &str, origin: &Origin) -> String {
    let setting = TABLE.iter().find(|setting| setting.key == key);
    match (origin, setting) {
        (Origin::File(path, line), _) => format!("{} line {line}, `{key}`", path.display()),
        (Origin::Flag, Some(setting)) => format!("--{}", setting.flag()),
        (Origin::Variable, Some(setting)) => setting.variable(),
        (_, None) => key.to_owned(),
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .env("LEASEHOLD_CONFIG")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("The configuration file [default: ./leasehold.toml if it is there]");
        let arguments = TABLE.iter().map(|setting| {
            let mut help = setting.help.trim().to_owned();
            if !setting.default.is_empty() {
                help.push_str(&format!(" [default: {}]", setting.default));
            }
            let argument = Arg::new(setting.key)
                .long(setting.flag())
                .env(setting.variable())
                .hide_env_values(true)
                .help_heading("Settings")
                .help(help);
            match setting.switch {
                true => argument
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_name("true|false"),
                false => argument.value_name("VALUE"),
            }
        });
        command.arg(config).args(arguments.collect::<Vec<_>>())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = Self::default();
        given.update_from_arg_matches(matches)?;
        Ok(given)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.config = matches.get_one::<PathBuf>("config").cloned();
        for setting in TABLE {
            let Some(text) = matches.get_one::<String>(setting.key) else { continue };
            let origin = match matches.value_source(setting.key) {
                Some(ValueSource::EnvVariable) => Origin::Variable,
                _ => Origin::Flag,
            };
            self.values.insert(setting.key, (text.clone(), origin));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_acceptable() {
        let settings = Settings::resolve(&Given::default()).expect("defaults are right");
        assert_eq!(settings.http_listen.port(), 7070);
        assert_eq!(settings.durability, Durability::Always);
    }

    #[test]
    fn a_bad_value_says_where_it_came_from() {
        let mut given = Given::default();
        given.values.insert("http.listen", ("here".to_owned(), Origin::Variable));
        let error = Settings::resolve(&given).expect_err("it is no address").to_string();
        assert!(error.contains("LEASEHOLD_HTTP_LISTEN"), "{error}");
        given.values.insert("http.listen", ("here".to_owned(), Origin::File("a.toml".into(), 7)));
        let error = Settings::resolve(&given).expect_err("it is no address").to_string();
        assert!(error.contains("a.toml line 7, `http.listen`"), "{error}");
    }
}
