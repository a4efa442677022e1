//! Room for connections: each takes a descriptor, and the usual limit of a shell is 1024.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Descriptors for everything that is no connection: the journal, the listener, the runtime.
const OTHERS: u64 = 256;

/// Raises the number of descriptors that this process may open as far as it may by itself, for
/// these connections and what another door needs beside them, and gives how many connections there
/// can be: those that were asked for, or fewer.
pub fn room_for(connections: u32, beside: u32) -> u32 {
    let wanted = u64::from(connections) + OTHERS;
    let all = wanted + u64::from(beside);
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < all) {
        limit.current = Some(limit.maximum.map_or(all, |maximum| maximum.min(all)));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit on open files stays as it is");
        }
    }
    let Some(may) = getrlimit(Resource::Nofile).current.filter(|may| *may < wanted) else {
        return connections;
    };
    let room = may.saturating_sub(OTHERS).max(may / 2);
    tracing::warn!(
        "there is room for {room} connections at once, not {connections}: the process may open \
         {may} files; raise its limit (ulimit -n, LimitNOFILE)"
    );
    u32::try_from(room).unwrap_or(connections).min(connections)
}
