//! Who may come in, and what they may do: the same answer at every door.
//!
//! ```text
//! configuration, users file ─► Users::replace ─► the set ◄── password, token ◄── doors
//!                                                  └── User::may ◄── doors, for each request
//! ```
//! * **A password costs 50 ms of a core on purpose**, which at one request each would be twenty
//!   requests a second. What was verified is therefore remembered for a while under its SHA-256,
//!   and no more than a few are verified at once.
//! * **A name that nobody has costs as much as one that somebody has.**
//! * **The set is replaced whole**, and what was verified against it goes with it: whoever was
//!   taken out is a stranger at the next request, and a connection that lasts hears of it
//!   ([`Users::departed`]).
//! * Without a single user everybody may do everything ([`Users::is_open`]). Whether that is
//!   acceptable depends on who can reach a door, which its owner knows.

mod digest;
mod user;
mod verify;

pub use digest::{hex, sha256};
pub use user::{Allowance, Permission, User};
pub use verify::{UserLimits, Users, hash_password, hash_token, token_hash};
