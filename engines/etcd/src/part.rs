//! Words for transactions.

use crate::rpc::{Compare, Delete, Op, OpDoneKind, OpKind, Put, Range, Read, Txn, TxnDone, With};

const EQUAL: i32 = 0;
const GREATER: i32 = 1;
const LESS: i32 = 2;
const CREATED: i32 = 1;
const MODIFIED: i32 = 2;

/// Ends the range of all keys that begin with a prefix.
pub(crate) fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    // Ours begin with text, so there is always a next one.
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

fn created(key: Vec<u8>, is: i32, revision: i64) -> Compare {
    let with = Some(With::Created(revision));
    Compare { is, what: CREATED, key, with, range_end: Vec::new() }
}

fn of_all(compare: Compare) -> Compare {
    let range_end = end_of(&compare.key);
    Compare { range_end, ..compare }
}

/// A key is there, as it came at a revision.
pub(crate) fn came_at(key: Vec<u8>, token: u64) -> Compare {
    created(key, EQUAL, token.cast_signed())
}

/// A key is there that came after a revision.
pub(crate) fn came_after(key: Vec<u8>, revision: i64) -> Compare {
    created(key, GREATER, revision)
}

/// A key is not there.
pub(crate) fn absent(key: Vec<u8>) -> Compare {
    created(key, EQUAL, 0)
}

/// A key is there.
pub(crate) fn present(key: Vec<u8>) -> Compare {
    created(key, GREATER, 0)
}

/// A key is as it was written at a revision.
pub(crate) fn unchanged(key: Vec<u8>, revision: i64) -> Compare {
    let with = Some(With::Modified(revision));
    Compare { is: EQUAL, what: MODIFIED, key, with, range_end: Vec::new() }
}

/// No key begins so: of a range without keys etcd compares as of one key that is absent.
pub(crate) fn none_begin(prefix: Vec<u8>) -> Compare {
    of_all(absent(prefix))
}

/// All keys that begin so came before a revision, if there are any.
pub(crate) fn all_before(prefix: Vec<u8>, revision: i64) -> Compare {
    of_all(created(prefix, LESS, revision))
}

fn op(kind: OpKind) -> Op {
    Op { kind: Some(kind) }
}

/// Reads one key.
pub(crate) fn get(key: Vec<u8>) -> Op {
    op(OpKind::Get(Range { key, ..Range::default() }))
}

/// Reads all keys that begin so.
pub(crate) fn get_all(prefix: Vec<u8>) -> Op {
    op(OpKind::Get(all(prefix)))
}

/// All keys that begin so.
pub(crate) fn all(prefix: Vec<u8>) -> Range {
    Range { range_end: end_of(&prefix), key: prefix, ..Range::default() }
}

/// Writes a key onto a lease; 0: onto none.
pub(crate) fn put(key: Vec<u8>, value: impl Into<Vec<u8>>, lease: i64) -> Op {
    op(OpKind::Put(Put { key, value: value.into(), lease, ignore_lease: false }))
}

/// Writes a key that is there, on the lease that it has.
pub(crate) fn rewrite(key: Vec<u8>, value: Vec<u8>) -> Op {
    op(OpKind::Put(Put { key, value, lease: 0, ignore_lease: true }))
}

/// Deletes a key.
pub(crate) fn delete(key: Vec<u8>) -> Op {
    op(OpKind::Delete(Delete { key, range_end: Vec::new() }))
}

/// Deletes all keys that begin so.
pub(crate) fn delete_all(prefix: Vec<u8>) -> Op {
    op(OpKind::Delete(Delete { range_end: end_of(&prefix), key: prefix }))
}

impl Txn {
    /// Without a condition.
    pub fn of(success: Vec<Op>) -> Self {
        Self { success, ..Self::default() }
    }

    /// With conditions.
    pub fn when(compare: Vec<Compare>, success: Vec<Op>, failure: Vec<Op>) -> Self {
        Self { compare, success, failure }
    }

    /// As a part of another.
    pub fn within(self) -> Op {
        op(OpKind::Txn(self))
    }
}

impl TxnDone {
    /// What its own parts read.
    pub fn reads(self) -> Vec<Read> {
        let read = |done: crate::rpc::OpDone| match done.kind {
            Some(OpDoneKind::Get(read)) => Some(read),
            _ => None,
        };
        self.responses.into_iter().filter_map(read).collect()
    }
}
