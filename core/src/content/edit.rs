//! Edits as they lie in the journal. Append only: a tag is never reused.

use alloc::vec::Vec;

use super::{Bytes, Edit, Kind};
use crate::wire::{self, DecodeError, Reader};

impl Edit {
    /// The most bytes it takes in the journal.
    pub(crate) fn bytes(&self) -> usize {
        24 + match self {
            Self::Put(a, b) => a.len() + b.len(),
            Self::Text(a)
            | Self::Drop(a)
            | Self::Insert(_, a)
            | Self::Replace(_, a)
            | Self::Add(a)
            | Self::Take(a)
            | Self::Score(a, _)
            | Self::Unscore(a) => a.len(),
            Self::Remove(..) => 0,
        }
    }

    /// Whether it can make the content larger.
    pub(crate) fn adds(&self) -> bool {
        !matches!(self, Self::Drop(_) | Self::Remove(..) | Self::Take(_) | Self::Unscore(_))
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let place = |out: &mut Vec<u8>, place: u32| wire::put_u64(out, u64::from(place));
        let one = |out: &mut Vec<u8>, tag: u8, bytes: &[u8]| {
            out.push(tag);
            wire::put_bytes(out, bytes);
        };
        match self {
            Self::Text(text) => one(out, 0, text),
            Self::Put(field, value) => {
                one(out, 1, field);
                wire::put_bytes(out, value);
            }
            Self::Drop(field) => one(out, 2, field),
            Self::Insert(at, item) => {
                one(out, 3, item);
                place(out, *at);
            }
            Self::Replace(at, item) => {
                one(out, 4, item);
                place(out, *at);
            }
            Self::Remove(at, count) => {
                out.push(5);
                place(out, *at);
                place(out, *count);
            }
            Self::Add(member) => one(out, 6, member),
            Self::Take(member) => one(out, 7, member),
            Self::Score(member, score) => {
                one(out, 8, member);
                out.extend_from_slice(&score.to_bits().to_le_bytes());
            }
            Self::Unscore(member) => one(out, 9, member),
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = |from: &mut Reader<'_>| from.bytes("edit").map(Bytes::from);
        Ok(match from.u8("edit tag")? {
            0 => Self::Text(bytes(from)?),
            1 => Self::Put(bytes(from)?, bytes(from)?),
            2 => Self::Drop(bytes(from)?),
            3 => {
                let item = bytes(from)?;
                Self::Insert(from.u32("place")?, item)
            }
            4 => {
                let item = bytes(from)?;
                Self::Replace(from.u32("place")?, item)
            }
            5 => Self::Remove(from.u32("place")?, from.u32("count")?),
            6 => Self::Add(bytes(from)?),
            7 => Self::Take(bytes(from)?),
            8 => {
                let member = bytes(from)?;
                let score = from.take(8, "score")?.try_into().expect("eight bytes");
                let score = f64::from_bits(u64::from_le_bytes(score));
                if score.is_nan() {
                    return Err(DecodeError { what: "score", offset: 0 });
                }
                Self::Score(member, score)
            }
            9 => Self::Unscore(bytes(from)?),
            _ => return Err(DecodeError { what: "edit tag", offset: 0 }),
        })
    }

    /// The kind of content it belongs to.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Text(_) => Kind::Text,
            Self::Put(..) | Self::Drop(_) => Kind::Hash,
            Self::Insert(..) | Self::Replace(..) | Self::Remove(..) => Kind::List,
            Self::Add(_) | Self::Take(_) => Kind::Set,
            Self::Score(..) | Self::Unscore(_) => Kind::Sorted,
        }
    }
}

/// Edits that are in memory (when an event is made) or still encoded (when it is read).
#[derive(Debug, Clone, Copy)]
pub enum Edits<'a> {
    /// In memory.
    Made(&'a [Edit]),
    /// Encoded: how many, and the bytes, which decoding has checked.
    Read(usize, &'a [u8]),
}

impl<'a> Edits<'a> {
    /// Does something with each.
    pub fn each(&self, mut with: impl FnMut(&Edit)) {
        match self {
            Self::Made(edits) => edits.iter().for_each(with),
            Self::Read(count, bytes) => {
                let mut reader = Reader::new(bytes);
                for _ in 0..*count {
                    with(&Edit::decode(&mut reader).expect("checked when decoded"));
                }
            }
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Made(edits) => {
                wire::put_u64(out, edits.len() as u64);
                edits.iter().for_each(|edit| edit.encode(out));
            }
            Self::Read(count, bytes) => {
                wire::put_u64(out, *count as u64);
                out.extend_from_slice(bytes);
            }
        }
    }

    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = from.count(2, "edits")?;
        let rest = from.rest();
        for _ in 0..count {
            Edit::decode(from)?;
        }
        Ok(Self::Read(count, &rest[..rest.len() - from.rest().len()]))
    }
}

impl PartialEq for Edits<'_> {
    fn eq(&self, other: &Self) -> bool {
        let list = |edits: &Self| {
            let mut list = Vec::new();
            edits.each(|edit| list.push(edit.clone()));
            list
        };
        list(self) == list(other)
    }
}
