//! What a session has to know about a command before it runs it, with the names of Redis.

/// A set of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident $bit:literal $text:literal;)*) => {
        impl Flags {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            /// Those that COMMAND shows, in its order.
            const NAMES: &[(Self, &'static str)] = &[$((Self::$name, $text)),*];
        }
    };
}

flags! {
    /// Changes keys.
    WRITE 0 "write";
    /// Only reads keys.
    READONLY 1 "readonly";
    /// May need more memory.
    DENYOOM 2 "denyoom";
    /// For those who run the server.
    ADMIN 3 "admin";
    /// About channels.
    PUBSUB 4 "pubsub";
    /// Not within a script.
    NOSCRIPT 5 "noscript";
    /// May wait.
    BLOCKING 6 "blocking";
    /// Also while the server comes up.
    LOADING 7 "loading";
    /// Also where data may be old.
    STALE 8 "stale";
    /// Not shown to MONITOR.
    SKIP_MONITOR 9 "skip_monitor";
    /// Not counted as slow.
    SKIP_SLOWLOG 10 "skip_slowlog";
    /// Takes the same short time however much data there is.
    FAST 11 "fast";
    /// Also before the client has said who it is.
    NO_AUTH 12 "no_auth";
    /// May have no keys although it can.
    NO_MANDATORY_KEYS 13 "no_mandatory_keys";
    /// Keys do not stand at fixed places alone.
    MOVABLEKEYS 14 "movablekeys";
    /// Also while a script runs for long.
    ALLOW_BUSY 15 "allow_busy";
    /// Has subcommands.
    CONTAINER 16 "";
}

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);

    /// These and those.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether one of `other` is among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The names as in the reply of COMMAND INFO.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let known =
            Self::NAMES.iter().filter(move |(flag, name)| self.has(*flag) && !name.is_empty());
        known.map(|(_, name)| *name)
    }
}
