//! What the server is, and whether its settings keep the promises.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use leasehold_api::{
    Agreement, Check, CheckVerdict, Checks, Deadlocks, Error, ErrorKind, Fencing, Guarantees,
    Result, Routing, Survives,
};
use redis::Value;

use crate::config::Place;
use crate::connect::Link;

/// The first version whose scripts replicate what they do and whose ACLs and RESP3 are there.
const OLDEST: u64 = 6;

/// What the server says of itself.
#[derive(Debug, Default)]
pub(crate) struct Found {
    info: HashMap<String, String>,
    /// How often the log is synced; `None`: it does not say.
    fsync: Option<String>,
}

impl Found {
    /// Asks the server.
    pub async fn ask(link: &Link) -> Result<Self> {
        let info = link.command(&redis::cmd("INFO")).await.map_err(|failure| failure.error)?;
        let text = match info {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::VerbatimString { text, .. } => text,
            _ => String::new(),
        };
        let mut found = Self::read(&text);
        // Managed servers refuse CONFIG; then it is not known.
        found.fsync = setting(link, "appendfsync").await?;
        if !found.info.contains_key("maxmemory_policy")
            && let Some(policy) = setting(link, "maxmemory-policy").await?
        {
            found.info.insert("maxmemory_policy".to_owned(), policy);
        }
        Ok(found)
    }

    fn read(text: &str) -> Self {
        let pairs = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        let info = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self { info, fsync: None }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.info.get(name).map(String::as_str)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }

    fn replicas(&self) -> u64 {
        self.get("connected_slaves").and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// What a confirmed change survives. With `everysec` and `no` it is written, not synced, before
    /// the answer leaves; see the section on persistence in Redis' manual, and in its source
    /// `flushAppendOnlyFile`.
    fn survives(&self) -> Survives {
        match (self.is("aof_enabled", "1"), self.fsync.as_deref()) {
            (true, Some("always")) => Survives::Power,
            (true, _) => Survives::Process,
            (false, _) => Survives::Nothing,
        }
    }

    /// Whether a replica may take over that has not heard of everything.
    fn may_fail_over(&self, link: &Link) -> bool {
        let place = &link.config().place;
        matches!(place, Place::Sentinel(_) | Place::Cluster)
            || self.is("cluster_enabled", "1")
            || self.replicas() > 0
    }

    /// What is promised of this server.
    pub fn guarantees(&self, link: &Link) -> Guarantees {
        let fencing = if self.may_fail_over(link) { Fencing::Advisory } else { Fencing::Strict };
        Guarantees { survives: self.survives(), fencing, ..GUARANTEES }
    }

    fn checks(&self, link: &Link) -> Vec<Check> {
        vec![self.version(), self.role(link), self.eviction(link), self.log(), self.copies(link)]
    }

    fn version(&self) -> Check {
        let redis = self.get("redis_version").unwrap_or("0");
        let name = match self.get("valkey_version") {
            Some(valkey) => format!("Valkey {valkey}, as Redis {redis}"),
            None => format!("Redis {redis}"),
        };
        let major = redis.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
        if major >= OLDEST {
            return Check::ok("version", name);
        }
        Check::failed("version", format!("{name} is too old; {OLDEST}.0 or later is needed"))
    }

    fn role(&self, link: &Link) -> Check {
        if self.is("cluster_enabled", "1") && link.config().place != Place::Cluster {
            let why = "it is a node of a cluster; write redis+cluster:// instead of redis://";
            return Check::failed("role", why);
        }
        if self.is("role", "slave") {
            let why = "it is a replica, which cannot be written to; name its master, or use \
                       redis+sentinel:// to find it";
            return Check::failed("role", why);
        }
        Check::ok("role", "it is a master")
    }

    fn eviction(&self, link: &Link) -> Check {
        let what = "maxmemory-policy";
        match self.get("maxmemory_policy") {
            Some("noeviction") => Check::ok(what, "noeviction: nothing is thrown away"),
            None => Check::warning(what, "it does not say; it must be noeviction"),
            Some(policy) => {
                let why = format!(
                    "{policy} throws locks and messages away when memory is short; set \
                     maxmemory-policy noeviction, or take the risk with ?allow=eviction"
                );
                match link.config().allow_eviction {
                    true => Check::warning(what, why),
                    false => Check::failed(what, why),
                }
            }
        }
    }

    fn log(&self) -> Check {
        let what = "appendonly, appendfsync";
        match (self.survives(), self.fsync.as_deref()) {
            (Survives::Power, _) => {
                Check::ok(what, "always: what is confirmed survives power loss")
            }
            (Survives::Nothing, _) => Check::warning(
                what,
                "there is no append-only log: a crash forgets locks and messages since the last \
                 snapshot; set appendonly yes",
            ),
            (_, Some(fsync)) => Check::warning(
                what,
                format!(
                    "{fsync}: it survives the death of the process; a power loss forgets the \
                     last second or more, so that a lock may be held twice; set appendfsync always"
                ),
            ),
            (_, None) => Check::warning(
                what,
                "there is an append-only log; how often it is synced is not said (CONFIG GET is \
                 refused)",
            ),
        }
    }

    fn copies(&self, link: &Link) -> Check {
        let (what, wait) = ("replication", link.config().wait);
        if !self.may_fail_over(link) {
            return Check::ok(what, "there is one server and no replica");
        }
        let why = match wait {
            0 => {
                "replicas are not waited for: a failover may forget a lock that is held, so \
                  locks are for efficiency only; ?wait=N makes it less likely"
            }
            _ => {
                "a failover may still choose a replica that has not heard of a lock: locks are \
                  for efficiency only"
            }
        };
        Check::warning(what, why)
    }

    /// Refuses a server that would break a promise.
    pub fn admit(&self, link: &Link) -> Result<()> {
        for check in self.checks(link) {
            let why = format!("{}: {}: {}", link.config().shown, check.what, check.why);
            match check.verdict {
                CheckVerdict::Failed => {
                    let kind = match check.what.as_str() {
                        "role" => ErrorKind::Invalid,
                        _ => ErrorKind::Unsupported,
                    };
                    return Err(Error::new(kind, why));
                }
                CheckVerdict::Warning => tracing::warn!("{why}"),
                CheckVerdict::Ok => {}
            }
        }
        Ok(())
    }
}

/// A setting, if the server tells it.
async fn setting(link: &Link, name: &str) -> Result<Option<String>> {
    let mut ask = redis::cmd("CONFIG");
    ask.arg("GET").arg(name);
    match link.command(&ask).await {
        Ok(Value::Array(pair)) => Ok(match pair.get(1) {
            Some(Value::BulkString(value)) => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        }),
        Err(failure) if failure.error.kind == ErrorKind::Unavailable => Err(failure.error),
        _ => Ok(None),
    }
}

/// What one server promises whose log is synced with every write (`appendonly yes`,
/// `appendfsync always`). A connection promises what its server's settings allow: see
/// [`connect`](fn@crate::connect).
pub const GUARANTEES: Guarantees = Guarantees {
    agreement: Agreement::One,
    deadlocks: Deadlocks::Unseen,
    routing: Routing::No,
    ..Guarantees::EVERYTHING
};

/// What `doctor` asks.
pub(crate) struct RedisChecks {
    pub link: Arc<Link>,
}

#[async_trait]
impl Checks for RedisChecks {
    async fn checks(&self) -> Vec<Check> {
        match Found::ask(&self.link).await {
            Ok(found) => found.checks(&self.link),
            Err(error) => vec![Check::failed("connection", error.to_string())],
        }
    }
}
