//! Names to entries: a hash table that is built when the program is compiled.

use super::{Entry, commands, refused};

const ENTRIES: usize = commands::OFFERED.len() + refused::REFUSED.len();
/// More than twice as many as entries, so that a name is nearly always found at once.
const SLOTS: usize = (2 * ENTRIES).next_power_of_two();
/// No name is longer.
const LONGEST: usize = 48;

/// What is offered, then what is refused.
static ALL: [Entry; ENTRIES] = {
    let mut all = [commands::OFFERED[0]; ENTRIES];
    let mut at = 0;
    while at < ENTRIES {
        all[at] = match at < commands::OFFERED.len() {
            true => commands::OFFERED[at],
            false => refused::REFUSED[at - commands::OFFERED.len()],
        };
        assert!(all[at].name.len() <= LONGEST, "a longer name than there is room for");
        at += 1;
    }
    all
};

/// Places in [`ALL`], one too high; 0 is a free slot.
static INDEX: [u16; SLOTS] = {
    let mut index = [0; SLOTS];
    let mut at = 0;
    while at < ENTRIES {
        let mut slot = hash(ALL[at].name.as_bytes());
        while index[slot] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = at as u16 + 1;
        at += 1;
    }
    index
};

/// The slot where the search for a name begins, the same for large and small letters.
const fn hash(name: &[u8]) -> usize {
    const SMALL: u64 = 0x2020_2020_2020_2020;
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = name.len() as u64;
    let mut rest = name;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        hash = (hash ^ (u64::from_le_bytes(*eight) | SMALL)).wrapping_mul(ODD);
        hash ^= hash >> 32;
        rest = after;
    }
    let mut last = 0;
    while let Some((byte, after)) = rest.split_first() {
        last = last << 8 | *byte as u64;
        rest = after;
    }
    hash = (hash ^ (last | SMALL)).wrapping_mul(ODD);
    (hash >> 32) as usize % SLOTS
}

/// The entry of a whole name, such as `get` or `client|id`.
pub(super) fn lookup(name: &[u8]) -> Option<&'static Entry> {
    if name.len() > LONGEST {
        return None;
    }
    let mut slot = hash(name);
    loop {
        let entry = &ALL[usize::from(INDEX[slot].checked_sub(1)?)];
        if entry.name.as_bytes().eq_ignore_ascii_case(name) {
            return Some(entry);
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// The entry of a subcommand.
pub(super) fn lookup_sub(container: &[u8], name: &[u8]) -> Option<&'static Entry> {
    let mut whole = [0; LONGEST];
    let start = container.len() + 1;
    let end = start + name.len();
    whole.get_mut(start..end)?.copy_from_slice(name);
    whole[..start - 1].copy_from_slice(container);
    whole[start - 1] = b'|';
    lookup(&whole[..end]).filter(|entry| usize::from(entry.sub) == start)
}
