//! The commands of Redis 7.0 that are not offered, with the reason and their arity there.

use super::{Command, Entry, Group};

macro_rules! refused {
    ($($group:ident $why:literal {$($name:literal $arity:literal),* $(,)?})*) => {
        /// The rows.
        pub(super) const REFUSED: &[Entry] =
            &[$($(Entry::new(Group::$group, $name, Command::Refused, $arity, Err($why)),)*)*];
    };
}

refused! {
    Bitmaps "bitmaps" {
        "bitcount" -2, "bitfield" -2, "bitfield_ro" -2, "bitop" -4, "bitpos" -3, "getbit" 3,
        "setbit" 4,
    }
    Connection "client-side caching" {
        "client|caching" 3, "client|getredir" 2, "client|tracking" -3, "client|trackinginfo" 2,
    }
    Cluster "cluster" {
        "asking" 1, "cluster" -2, "cluster|addslots" -3, "cluster|addslotsrange" -4,
        "cluster|bumpepoch" 2, "cluster|count-failure-reports" 3, "cluster|countkeysinslot" 3,
        "cluster|delslots" -3, "cluster|delslotsrange" -4, "cluster|failover" -2,
        "cluster|flushslots" 2, "cluster|forget" 3, "cluster|getkeysinslot" 4, "cluster|help" 2,
        "cluster|info" 2, "cluster|keyslot" 3, "cluster|links" 2, "cluster|meet" -4,
        "cluster|myid" 2, "cluster|nodes" 2, "cluster|replicas" 3, "cluster|replicate" 3,
        "cluster|reset" -2, "cluster|saveconfig" 2, "cluster|set-config-epoch" 3,
        "cluster|setslot" -4, "cluster|shards" 2, "cluster|slaves" 3, "cluster|slots" 2,
        "readonly" 1, "readwrite" 1,
    }
    Server "cluster" {
        "restore-asking" -4,
    }
    Scripting "debugging" {
        "script|debug" 3,
    }
    Server "debugging" {
        "debug" -2,
    }
    Scripting "functions" {
        "fcall" -3, "fcall_ro" -3, "function" -2, "function|delete" 3, "function|dump" 2,
        "function|flush" -2, "function|help" 2, "function|kill" 2, "function|list" -2,
        "function|load" -3, "function|restore" -3, "function|stats" 2,
    }
    Geo "geo" {
        "geoadd" -5, "geodist" -4, "geohash" -2, "geopos" -2, "georadius" -6, "georadius_ro" -6,
        "georadiusbymember" -5, "georadiusbymember_ro" -5, "geosearch" -7, "geosearchstore" -8,
    }
    HyperLogLog "hyperloglog" {
        "pfadd" -2, "pfcount" -2, "pfdebug" 3, "pfmerge" -2, "pfselftest" 1,
    }
    Server "key flags" {
        "command|getkeysandflags" -4,
    }
    Strings "longest common subsequence" {
        "lcs" -3,
    }
    Server "measuring is for metrics" {
        "latency" -2, "latency|doctor" 2, "latency|graph" 3, "latency|help" 2,
        "latency|histogram" -2, "latency|history" 3, "latency|latest" 2, "latency|reset" -2,
        "memory" -2, "memory|doctor" 2, "memory|help" 2, "memory|malloc-stats" 2, "memory|purge" 2,
        "memory|stats" 2, "memory|usage" -3, "monitor" 1, "slowlog" -2, "slowlog|get" -2,
        "slowlog|help" 2, "slowlog|len" 2, "slowlog|reset" 2,
    }
    Server "modules" {
        "module" -2, "module|help" 2, "module|list" 2, "module|load" -3, "module|loadex" -3,
        "module|unload" 3,
    }
    Keys "moving between numbered sets" {
        "move" 3,
    }
    Server "moving between numbered sets" {
        "swapdb" 3,
    }
    Server "no use" {
        "lolwut" -1,
    }
    Connection "pausing clients" {
        "client|pause" -3, "client|unpause" 2,
    }
    Server "persistence is the journal's" {
        "bgrewriteaof" 1, "bgsave" -1, "lastsave" 1, "save" 1,
    }
    Keys "replication" {
        "migrate" -6,
    }
    Server "replication" {
        "failover" -1, "psync" -3, "replconf" -1, "replicaof" 3, "role" 1, "slaveof" 3, "sync" 1,
    }
    Keys "serialised values" {
        "dump" 2, "restore" -4,
    }
    Server "settings are given at the start" {
        "config|rewrite" 2, "config|set" -4,
    }
    Keys "sorting" {
        "sort" -2, "sort_ro" -2,
    }
    Server "stop the server's process" {
        "shutdown" -1,
    }
    Streams "streams" {
        "xack" -4, "xadd" -5, "xautoclaim" -6, "xclaim" -6, "xdel" -3, "xgroup" -2,
        "xgroup|create" -5, "xgroup|createconsumer" 5, "xgroup|delconsumer" 5, "xgroup|destroy" 4,
        "xgroup|help" 2, "xgroup|setid" -5, "xinfo" -2, "xinfo|consumers" 4, "xinfo|groups" 3,
        "xinfo|help" 2, "xinfo|stream" -3, "xlen" 2, "xpending" -3, "xrange" -4, "xread" -4,
        "xreadgroup" -7, "xrevrange" -4, "xsetid" -3, "xtrim" -4,
    }
    Server "users are kept with `leasehold user`" {
        "acl|cat" -2, "acl|deluser" -3, "acl|dryrun" -4, "acl|genpass" -2, "acl|getuser" 3,
        "acl|list" 2, "acl|load" 2, "acl|log" -2, "acl|save" 2, "acl|setuser" -3, "acl|users" 2,
    }
}
