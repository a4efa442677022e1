//! One contender, and how a line of them is written down.

use leasehold_api::engine::Mode;
use leasehold_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::Entry;

/// Somebody who wants a lock, or has it.
///
/// Times are the store's, in microseconds; a number that only the store can give, the version or
/// the time of the write, is 0 when it is written and known to whoever reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// Names the request, so that one whose answer was lost is found again.
    pub id: String,
    /// The fencing token: the version of the write with which it came.
    #[serde(default)]
    pub token: u64,
    /// Whose it is; 0: nobody's in particular.
    #[serde(default)]
    pub session: u64,
    /// Who within the session.
    #[serde(default)]
    pub hold: u64,
    /// How it wants to hold.
    #[serde(with = "mode")]
    pub mode: Mode,
    /// All the locks that it wants together, this one too, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// How often it is entered.
    pub entries: u32,
    /// What it says about itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// When it came.
    #[serde(default)]
    pub joined: u64,
    /// When it learnt that it holds; `None`: it does not know yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u64>,
    /// When it last showed that it lives.
    #[serde(default)]
    pub renewed: u64,
    /// How long it stays after that; `None`: until it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<u64>,
    /// The same for its session, if it ends with that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_lasts: Option<u64>,
    /// When its session last showed that it lives.
    #[serde(default)]
    pub session_renewed: u64,
    /// How long nobody may hold after it was lost while it held.
    #[serde(default)]
    pub delay: u64,
}

impl Contender {
    /// When it ends unless it is renewed.
    pub fn until(&self) -> Option<u64> {
        let own = self.lasts.map(|lasts| self.renewed.saturating_add(lasts));
        let lasts = self.session_lasts;
        let session = lasts.map(|lasts| self.session_renewed.saturating_add(lasts));
        [own, session].into_iter().flatten().min()
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: u64) -> bool {
        self.until().is_some_and(|until| until <= now)
    }

    /// When it stands in nobody's way any more, even if it is over.
    pub fn out_of_the_way(&self) -> Option<u64> {
        let delay = if self.granted.is_some() { self.delay } else { 0 };
        self.until().map(|until| until.saturating_add(delay))
    }

    /// Whether it still stands in others' way.
    pub fn blocks(&self, now: u64) -> bool {
        self.out_of_the_way().is_none_or(|end| end > now)
    }

    /// Whether it is the one that a hold names.
    pub fn is(&self, session: u64, hold: u64) -> bool {
        (self.session, self.hold) == (session, hold)
    }

    /// Puts in what only the store knew when it was written.
    fn resolve(&mut self, version: u64, written: u64) {
        let set = |field: &mut u64, to: u64| {
            if *field == 0 {
                *field = to;
            }
        };
        set(&mut self.token, version);
        set(&mut self.joined, written);
        set(&mut self.renewed, written);
        set(&mut self.session_renewed, written);
        if let Some(granted) = &mut self.granted {
            set(granted, written);
        }
    }
}

/// Puts in what only the store knew when a line was written.
pub fn resolve(line: &mut [Contender], version: u64, written: u64) {
    line.iter_mut().for_each(|contender| contender.resolve(version, written));
}

/// Reads a line.
///
/// # Errors
/// `Broken` when somebody else wrote there.
pub fn read(entry: &Entry) -> Result<Vec<Contender>> {
    let mut line: Vec<Contender> = serde_json::from_slice(&entry.value).map_err(|error| {
        let wrong = format!("the entry is no line of contenders ({error}); who else writes there?");
        Error::new(ErrorKind::Broken, wrong)
    })?;
    resolve(&mut line, entry.version, entry.written);
    Ok(line)
}

/// Writes a line.
pub fn write(line: &[Contender]) -> Vec<u8> {
    serde_json::to_vec(line).expect("a line has only text and numbers")
}

mod mode {
    use leasehold_api::engine::Mode;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        One(char),
        Permits(u32, u32),
    }

    pub fn serialize<S: Serializer>(mode: &Mode, to: S) -> Result<S::Ok, S::Error> {
        match *mode {
            Mode::Exclusive => Written::One('x'),
            Mode::Shared => Written::One('s'),
            Mode::Permits { take, of } => Written::Permits(take, of),
        }
        .serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mode, D::Error> {
        match Written::deserialize(from)? {
            Written::One('s') => Ok(Mode::Shared),
            Written::One('x') => Ok(Mode::Exclusive),
            Written::One(_) => Err(serde::de::Error::custom("no such mode")),
            Written::Permits(take, of) => Ok(Mode::Permits { take, of }),
        }
    }
}
