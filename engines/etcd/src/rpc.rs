//! The messages of etcd's API that are used here, with the numbers of `api/etcdserverpb/rpc.proto`
//! and `api/mvccpb/kv.proto` of etcd. They are written down by hand, so that nobody who builds
//! this needs a compiler of protocol buffers.

/// Says that a member knows.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Header {
    /// The revision of the store at the time of the answer.
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub create_revision: i64,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub value: Vec<u8>,
    /// 0: none.
    #[prost(int64, tag = "6")]
    pub lease: i64,
}

/// Reads keys.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Range {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    /// Empty: one key.
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    /// 0: all.
    #[prost(int64, tag = "3")]
    pub limit: i64,
    /// 0: now.
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

/// What was read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Read {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    /// The limit ended it.
    #[prost(bool, tag = "3")]
    pub more: bool,
}

/// Writes a key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Put {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub lease: i64,
    /// The lease that it has stays.
    #[prost(bool, tag = "6")]
    pub ignore_lease: bool,
}

/// Deletes keys.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Delete {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
}

/// An answer that says nothing that is needed.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Done {}

/// A part of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Op {
    #[prost(oneof = "OpKind", tags = "1, 2, 3, 4")]
    pub kind: Option<OpKind>,
}

/// What a part does.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OpKind {
    #[prost(message, tag = "1")]
    Get(Range),
    #[prost(message, tag = "2")]
    Put(Put),
    #[prost(message, tag = "3")]
    Delete(Delete),
    #[prost(message, tag = "4")]
    Txn(Txn),
}

/// What came of a part.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OpDone {
    #[prost(oneof = "OpDoneKind", tags = "1, 2, 3, 4")]
    pub kind: Option<OpDoneKind>,
}

/// What came of a part, by what it did.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum OpDoneKind {
    #[prost(message, tag = "1")]
    Get(Read),
    #[prost(message, tag = "2")]
    Put(Done),
    #[prost(message, tag = "3")]
    Delete(Done),
    #[prost(message, tag = "4")]
    Txn(Done),
}

/// A condition of a transaction, on one key or on all of a range.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Compare {
    /// 0: equal, 1: greater, 2: less.
    #[prost(int32, tag = "1")]
    pub is: i32,
    /// 1: when it was created, 2: when it was last written.
    #[prost(int32, tag = "2")]
    pub what: i32,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(oneof = "With", tags = "5, 6")]
    pub with: Option<With>,
    #[prost(bytes = "vec", tag = "64")]
    pub range_end: Vec<u8>,
}

/// What it is compared with.
#[derive(Clone, Copy, PartialEq, prost::Oneof)]
pub(crate) enum With {
    #[prost(int64, tag = "5")]
    Created(i64),
    #[prost(int64, tag = "6")]
    Modified(i64),
}

/// If all compares so, the first are done, and else the second.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Txn {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<Op>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<Op>,
}

/// What came of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TxnDone {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<OpDone>,
}

/// Begins a watch.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Watch {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
    /// 0: no writes, 1: no deletions.
    #[prost(int32, repeated, tag = "5")]
    pub filters: Vec<i32>,
}

/// What is asked on a stream of watches.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WatchAsk {
    #[prost(message, optional, tag = "1")]
    pub create: Option<Watch>,
}

/// What is said on a stream of watches.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Watched {
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Done>,
}

/// Names a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct LeaseId {
    #[prost(int64, tag = "1")]
    pub id: i64,
}

/// Asks for a lease.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct LeaseGrant {
    /// Seconds.
    #[prost(int64, tag = "1")]
    pub ttl: i64,
    #[prost(int64, tag = "2")]
    pub id: i64,
}

/// A lease as it is.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Lease {
    /// Seconds; 0 or less: there is none.
    #[prost(int64, tag = "3")]
    pub ttl: i64,
}

/// Shows a name and a password.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Authenticate {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub password: String,
}

/// What is shown instead from then on.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Authenticated {
    #[prost(string, tag = "2")]
    pub token: String,
}

/// How a member is.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(string, tag = "2")]
    pub version: String,
    #[prost(int64, tag = "3")]
    pub db_size: i64,
    /// 0: it knows none.
    #[prost(uint64, tag = "4")]
    pub leader: u64,
}

/// An alarm of a member.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Alarm {
    /// 1: no space, 2: corrupt.
    #[prost(int32, tag = "2")]
    pub kind: i32,
}

/// All alarms.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Alarms {
    #[prost(message, repeated, tag = "2")]
    pub alarms: Vec<Alarm>,
}

/// All members.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Members {
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

/// A member.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Member {
    /// It has no vote.
    #[prost(bool, tag = "5")]
    pub is_learner: bool,
}
