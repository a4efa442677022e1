//! What a running server reads again: its users and its certificates.
//!
//! Their files are looked at every [`LOOK`]. After SIGHUP all of them are read again, and the
//! configuration's users with them.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::sleep;

use super::certificate::Certificate;
use super::users::Keeper;
use crate::signals::Signals;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What is read again.
pub struct Reload {
    /// Who may come in.
    pub users: Keeper,
    /// Of the doors with TLS.
    pub certificates: Vec<Certificate>,
}

impl Reload {
    /// Keeps everything as the files have it until a signal asks the process to end, and gives
    /// that signal. A hang-up is one only if `hang_up_ends`; else everything is read again.
    pub async fn keep(&mut self, signals: &mut Signals, hang_up_ends: bool) -> Signal {
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::HUP if !hang_up_ends => {
                        self.users.read_again();
                        self.certificates.iter_mut().for_each(Certificate::read_again);
                    }
                    signal => return signal,
                },
                () = sleep(LOOK) => {
                    self.users.look();
                    self.certificates.iter_mut().for_each(Certificate::look);
                }
            }
        }
    }
}
