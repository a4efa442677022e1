//! What a key can hold, and the edits that change it.
//!
//! An edit says what is so now, not what was wished: places are counted, numbers are worked out.
//! The journal keeps edits, so changing one field of a large hash costs one small record. Copies
//! share their items, so trying edits on a copy costs little.

mod edit;
mod sorted;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::tree::Tree;

pub use edit::Edits;
pub use sorted::Sorted;

/// Bytes of any kind, shared.
pub type Bytes = Arc<[u8]>;

/// The kinds of content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Bytes.
    Text = 0,
    /// Fields with values.
    Hash = 1,
    /// Items in order.
    List = 2,
    /// Members, each once.
    Set = 3,
    /// Members with scores, in the order of those.
    Sorted = 4,
}

impl Kind {
    pub(crate) fn from_u8(byte: u8) -> Option<Self> {
        use Kind::*;
        [Text, Hash, List, Set, Sorted].get(usize::from(byte)).copied()
    }
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// Bytes.
    Text(Bytes),
    /// Fields and values, sorted by field.
    Hash(Tree<(Bytes, Bytes)>),
    /// Items in order.
    List(Tree<Bytes>),
    /// Members, sorted.
    Set(Tree<Bytes>),
    /// Members with scores.
    Sorted(Sorted),
}

/// One change of what a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    /// The text is this.
    Text(Bytes),
    /// A field has a value.
    Put(Bytes, Bytes),
    /// A field is gone.
    Drop(Bytes),
    /// An item stands at a place of the list; those from there on moved up.
    Insert(u32, Bytes),
    /// An item stands in the stead of another.
    Replace(u32, Bytes),
    /// So many items from a place on are gone from the list.
    Remove(u32, u32),
    /// A member is in the set.
    Add(Bytes),
    /// A member is not in the set.
    Take(Bytes),
    /// A member has a score.
    Score(Bytes, f64),
    /// A member has no score.
    Unscore(Bytes),
}

/// What an item costs besides its bytes: nodes, counts, pointers.
const ITEM_BYTES: usize = 64;

impl Content {
    /// Nothing yet.
    pub fn empty(kind: Kind) -> Self {
        match kind {
            Kind::Text => Self::Text(Arc::default()),
            Kind::Hash => Self::Hash(Tree::default()),
            Kind::List => Self::List(Tree::default()),
            Kind::Set => Self::Set(Tree::default()),
            Kind::Sorted => Self::Sorted(Sorted::default()),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Hash(_) => Kind::Hash,
            Self::List(_) => Kind::List,
            Self::Set(_) => Kind::Set,
            Self::Sorted(_) => Kind::Sorted,
        }
    }

    /// How many items; 1 for text.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(_) => 1,
            Self::Hash(fields) => fields.len(),
            Self::List(items) => items.len(),
            Self::Set(members) => members.len(),
            Self::Sorted(sorted) => sorted.len(),
        }
    }

    /// Whether it is a collection without items, which is as good as no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&Bytes> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it says about whoever claimed its key: a text, or the first field of a hash, as far as
    /// it is UTF-8 and not longer than this.
    pub(crate) fn label(&self, bytes_max: usize) -> Option<Arc<str>> {
        let bytes = match self {
            Self::Text(text) => text,
            Self::Hash(fields) => &fields.get(0)?.0,
            _ => return None,
        };
        let text = core::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
        Some(Arc::from(&text[..text.floor_char_boundary(bytes_max)]))
    }

    /// About how many bytes it takes in memory; counts every item.
    pub fn bytes(&self) -> usize {
        let sum = |lens: &mut dyn Iterator<Item = usize>| lens.map(|len| len + ITEM_BYTES).sum();
        match self {
            Self::Text(text) => text.len(),
            Self::Hash(fields) => sum(&mut fields.iter().map(|(f, v)| f.len() + v.len())),
            Self::List(items) | Self::Set(items) => sum(&mut items.iter().map(|item| item.len())),
            Self::Sorted(sorted) => sum(&mut sorted.members().iter().map(|(m, _)| m.len() + 16)),
        }
    }

    /// Changes it; gives by how much [`Content::bytes`] changed.
    ///
    /// # Panics
    /// When the edit is for another kind of content, or for a place that is not there: a bug of
    /// whoever made it.
    pub fn apply(&mut self, edit: &Edit) -> isize {
        let (came, gone) = match (self, edit) {
            (Self::Text(text), Edit::Text(new)) => {
                (new.len(), core::mem::replace(text, new.clone()).len())
            }
            (Self::Hash(fields), Edit::Put(field, value)) => {
                let item = (field.clone(), value.clone());
                let cost = |value: &Bytes| field.len() + value.len() + ITEM_BYTES;
                match find_field(fields, field) {
                    Ok(place) => {
                        let old = fields.replace(place, item).expect("it was found");
                        (cost(value), cost(&old.1))
                    }
                    Err(place) => {
                        fields.insert(place, item);
                        (cost(value), 0)
                    }
                }
            }
            (Self::Hash(fields), Edit::Drop(field)) => {
                let old = find_field(fields, field).ok().and_then(|place| fields.remove(place));
                (0, old.map_or(0, |(field, value)| field.len() + value.len() + ITEM_BYTES))
            }
            (Self::List(items), Edit::Insert(place, item)) => {
                items.insert(*place as usize, item.clone());
                (item.len() + ITEM_BYTES, 0)
            }
            (Self::List(items), Edit::Replace(place, item)) => {
                let old = items.replace(*place as usize, item.clone());
                (item.len(), old.expect("a place in the list").len())
            }
            (Self::List(items), Edit::Remove(place, count)) => {
                let mut take = |_| items.remove(*place as usize).expect("a place in the list");
                (0, (0..*count).map(|n| take(n).len() + ITEM_BYTES).sum())
            }
            (Self::Set(members), Edit::Add(member)) => match find_member(members, member) {
                Ok(_) => (0, 0),
                Err(place) => {
                    members.insert(place, member.clone());
                    (member.len() + ITEM_BYTES, 0)
                }
            },
            (Self::Set(members), Edit::Take(member)) => {
                let old = find_member(members, member).ok().and_then(|at| members.remove(at));
                (0, old.map_or(0, |member| member.len() + ITEM_BYTES))
            }
            (Self::Sorted(sorted), Edit::Score(member, score)) => {
                let before = sorted.len();
                sorted.set(member, *score);
                ((sorted.len() - before) * (member.len() + 16 + ITEM_BYTES), 0)
            }
            (Self::Sorted(sorted), Edit::Unscore(member)) => {
                let before = sorted.len();
                sorted.unset(member);
                (0, (before - sorted.len()) * (member.len() + 16 + ITEM_BYTES))
            }
            (content, edit) => panic!("{edit:?} does not belong to {:?}", content.kind()),
        };
        came as isize - gone as isize
    }

    /// Whether an edit can be applied.
    pub(crate) fn fits(&self, edit: &Edit) -> bool {
        let len = self.len();
        self.kind() == edit.kind()
            && match edit {
                Edit::Insert(place, _) => *place as usize <= len,
                Edit::Replace(place, _) => (*place as usize) < len,
                Edit::Remove(place, count) => *place as usize + *count as usize <= len,
                _ => true,
            }
    }

    /// The edits that make it out of nothing.
    pub fn edits(&self) -> Vec<Edit> {
        match self {
            Self::Text(text) => alloc::vec![Edit::Text(text.clone())],
            Self::Hash(fields) => fields
                .iter()
                .map(|(field, value)| Edit::Put(field.clone(), value.clone()))
                .collect(),
            Self::List(items) => {
                let insert =
                    |(place, item): (usize, &Bytes)| Edit::Insert(place as u32, item.clone());
                items.iter().enumerate().map(insert).collect()
            }
            Self::Set(members) => members.iter().map(|one| Edit::Add(one.clone())).collect(),
            Self::Sorted(sorted) => {
                sorted.ranks().iter().map(|(one, score)| Edit::Score(one.clone(), *score)).collect()
            }
        }
    }
}

/// The place of a field.
///
/// # Errors
/// Where it would stand.
pub fn find_field(fields: &Tree<(Bytes, Bytes)>, field: &[u8]) -> Result<usize, usize> {
    fields.find(|(other, _)| (**other).cmp(field))
}

/// The place of a member.
///
/// # Errors
/// Where it would stand.
pub fn find_member(members: &Tree<Bytes>, member: &[u8]) -> Result<usize, usize> {
    members.find(|other| (**other).cmp(member))
}
