//! Lists in events: made from memory, or read in place from a journal record.

use alloc::vec::Vec;

use super::Arrival;
use crate::wire::{self, DecodeError, Reader};

/// A list that is either in memory (when an event is made) or still encoded (when it is read).
#[derive(Debug, Clone, Copy)]
pub enum List<'a, T> {
    /// In memory.
    Made(&'a [T]),
    /// Encoded: how many, and the bytes, which decoding has checked.
    Read(usize, &'a [u8]),
}

impl<T: Copy + Wire> List<'_, T> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Made(list) => list.len(),
            Self::Read(n, _) => *n,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        let (made, mut reader) = match self {
            Self::Made(list) => (*list, Reader::new(&[])),
            Self::Read(_, bytes) => (&[][..], Reader::new(bytes)),
        };
        let read = core::iter::from_fn(move || {
            (!reader.rest().is_empty()).then(|| T::get(&mut reader).expect("checked when decoded"))
        });
        made.iter().copied().chain(read)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, self.len() as u64);
        match self {
            Self::Made(list) => list.iter().for_each(|element| element.put(out)),
            Self::Read(_, bytes) => out.extend_from_slice(bytes),
        }
    }
}

impl<'a, T: Copy + Wire> List<'a, T> {
    pub(super) fn decode(from: &mut Reader<'a>, what: &'static str) -> Result<Self, DecodeError> {
        let count = from.count(1, what)?;
        let rest = from.rest();
        for _ in 0..count {
            T::get(from)?;
        }
        Ok(Self::Read(count, &rest[..rest.len() - from.rest().len()]))
    }
}

impl<T: Copy + Wire + PartialEq> PartialEq for List<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// An element of a [`List`].
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it.
    ///
    /// # Errors
    /// When the bytes are not one.
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl Wire for Arrival {
    fn put(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, u64::from(self.queue));
        out.push(self.lane);
        wire::put_u64(out, self.expires);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { queue: from.u32("queue")?, lane: from.u8("lane")?, expires: from.u64("expiry")? })
    }
}

/// Positions `first .. first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Wire for Range {
    fn put(&self, out: &mut Vec<u8>) {
        wire::put_u64(out, self.first);
        wire::put_u64(out, self.count);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { first: from.u64("range start")?, count: from.u64("range length")? })
    }
}

/// Names one after the other, each with its length.
#[derive(Debug, Clone, Copy)]
pub enum Names<'a> {
    /// In memory.
    Made(&'a [crate::Name]),
    /// Encoded.
    Read(&'a [u8]),
}

impl<'a> Names<'a> {
    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> {
        let (made, bytes) = match *self {
            Self::Made(list) => (list, &[][..]),
            Self::Read(bytes) => (&[][..], bytes),
        };
        let mut reader = Reader::new(bytes);
        let read = core::iter::from_fn(move || {
            (!reader.rest().is_empty()).then(|| reader.text("name").expect("checked when decoded"))
        });
        made.iter().map(crate::Name::as_str).chain(read)
    }
}

impl PartialEq for Names<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
