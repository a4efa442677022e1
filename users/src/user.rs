//! A user, and what the user may do with which names.

/// What somebody may do with the names of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Acquire, renew, release, watch and inspect locks; read and write registers.
    Lock,
    /// Publish to queues, exchanges and topics.
    Publish,
    /// Receive, settle and look at messages.
    Consume,
    /// Declare, delete, purge, pause, redrive, force-release and list; on `*` status and metrics.
    Admin,
}

impl Permission {
    /// All of them with their names in configuration files.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Lock, "lock"),
        (Self::Publish, "publish"),
        (Self::Consume, "consume"),
        (Self::Admin, "admin"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(one, _)| *one == self).map_or("", |(_, name)| name)
    }

    /// The permission with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(one, _)| *one)
    }
}

/// Some permissions on some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// Names of locks, registers, queues and exchanges; `*` stands for any characters.
    pub on: String,
    /// What may be done with them.
    pub allow: Vec<Permission>,
}

/// Somebody who may come in.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The password as [`hash_password`](crate::hash_password) made it; `None`: only tokens.
    pub password: Option<String>,
    /// SHA-256 of each bearer token, as [`hash_token`](crate::hash_token) made it.
    pub tokens: Vec<[u8; 32]>,
    /// What the user may do.
    pub allowances: Vec<Allowance>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

impl User {
    /// Whether the user may do something with one name.
    pub fn may(&self, permission: Permission, name: &str) -> bool {
        self.patterns(permission).any(|pattern| matches(pattern, name))
    }

    /// Whether the user may do something with all names that begin with a prefix.
    pub fn may_all(&self, permission: Permission, prefix: &str) -> bool {
        let covers = |pattern: &str| pattern.ends_with('*') && matches(pattern, prefix);
        self.patterns(permission).any(covers)
    }

    fn patterns(&self, permission: Permission) -> impl Iterator<Item = &str> {
        let allowing = self.allowances.iter().filter(move |one| one.allow.contains(&permission));
        allowing.map(|one| one.on.as_str())
    }
}

/// Whether a name fits a pattern in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and how much of the name it has swallowed.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(one) if *one == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, swallowed)) => {
                    star = Some((at, swallowed + 1));
                    (p, n) = (at + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "a/b", true),
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("orders*", "orders", true),
            ("*/dead", "a/b/dead", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abde", false),
            ("**", "x", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_list_needs_a_pattern_that_covers_it() {
        let allowances = vec![Allowance { on: "shop.*".into(), allow: vec![Permission::Admin] }];
        let (name, password, tokens) = ("ada".into(), None, Vec::new());
        let user = User { name, password, tokens, allowances };
        assert!(user.may_all(Permission::Admin, "shop."));
        assert!(user.may_all(Permission::Admin, "shop.a"));
        assert!(!user.may_all(Permission::Admin, "shop"));
        assert!(!user.may_all(Permission::Lock, "shop."));
    }
}
