//! The commands that are offered, a row each: its variant of [`Command`], name, arity, flags, keys
//! (first, last, step, and the argument that says how many more follow) and what it does.
//!
//! Names, arities, flags and places of keys are those that COMMAND INFO of Redis 7.0 tells.

use super::{Entry, Flags, Group, Keys};

macro_rules! commands {
    ($($group:ident {$(
        $id:ident $name:literal $arity:literal [$($flag:ident)*]
            ($first:literal $last:literal $step:literal $numkeys:literal) $summary:literal;
    )*})*) => {
        /// A command or subcommand that is offered. The variant is the name with a large letter at
        /// the start of each of its parts: `EVAL_RO` is `EvalRo`, `CLIENT ID` is `ClientId`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Command {
            $($(#[doc = $summary] $id,)*)*
            /// Not offered.
            Refused,
        }

        /// The rows.
        pub(super) const OFFERED: &[Entry] = &[$($(Entry {
            flags: Flags::NONE$(.with(Flags::$flag))*,
            keys: Keys { first: $first, last: $last, step: $step, numkeys: $numkeys },
            summary: $summary,
            ..Entry::new(Group::$group, $name, Command::$id, $arity, Ok(()))
        },)*)*];
    };
}

commands! {
    Connection {
        Auth "auth" -2 [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY] (0 0 0 0)
            "Says who the client is.";
        Client "client" -2 [CONTAINER] (0 0 0 0) "About connections.";
        ClientGetname "client|getname" 2 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "The name of this connection.";
        ClientHelp "client|help" 2 [LOADING STALE] (0 0 0 0)
            "What there is to ask about connections.";
        ClientId "client|id" 2 [NOSCRIPT LOADING STALE] (0 0 0 0) "The number of this connection.";
        ClientInfo "client|info" 2 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "This connection in one line.";
        ClientKill "client|kill" -3 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0) "Closes connections.";
        ClientList "client|list" -2 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0)
            "All connections, a line each.";
        ClientNoEvict "client|no-evict" 3 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0)
            "Accepted; nothing is evicted.";
        ClientNoTouch "client|no-touch" 3 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "Accepted; reading a key changes nothing about it.";
        ClientReply "client|reply" 3 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "Switches replies on or off.";
        ClientSetinfo "client|setinfo" 4 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "Names the client's library and its version.";
        ClientSetname "client|setname" 3 [NOSCRIPT LOADING STALE] (0 0 0 0)
            "Names this connection.";
        ClientUnblock "client|unblock" -3 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0)
            "Wakes a connection that waits.";
        Echo "echo" 2 [LOADING STALE FAST] (0 0 0 0) "Answers the same bytes.";
        Hello "hello" -1 [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY] (0 0 0 0)
            "Chooses the version of the protocol.";
        Ping "ping" -1 [FAST] (0 0 0 0) "Answers PONG.";
        Quit "quit" -1 [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY] (0 0 0 0)
            "Closes the connection.";
        Reset "reset" 1 [NOSCRIPT LOADING STALE FAST NO_AUTH ALLOW_BUSY] (0 0 0 0)
            "Makes the connection as new.";
        Select "select" 2 [LOADING STALE FAST] (0 0 0 0) "Chooses the numbered set of keys.";
    }
    Server {
        Acl "acl" -2 [CONTAINER] (0 0 0 0) "About users.";
        AclHelp "acl|help" 2 [LOADING STALE] (0 0 0 0) "What there is to ask about users.";
        AclWhoami "acl|whoami" 2 [NOSCRIPT LOADING STALE] (0 0 0 0) "The user of this connection.";
        Command "command" -1 [CONTAINER LOADING STALE] (0 0 0 0) "About commands.";
        CommandCount "command|count" 2 [LOADING STALE] (0 0 0 0) "How many commands there are.";
        CommandDocs "command|docs" -2 [LOADING STALE] (0 0 0 0) "What commands do.";
        CommandGetkeys "command|getkeys" -4 [LOADING STALE] (0 0 0 0)
            "The keys among the arguments of a command.";
        CommandHelp "command|help" 2 [LOADING STALE] (0 0 0 0)
            "What there is to ask about commands.";
        CommandInfo "command|info" -2 [LOADING STALE] (0 0 0 0)
            "Arity, flags and keys of commands.";
        CommandList "command|list" -2 [LOADING STALE] (0 0 0 0) "The names of all commands.";
        Config "config" -2 [CONTAINER] (0 0 0 0) "About settings.";
        ConfigGet "config|get" -3 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0)
            "Settings that clients ask for.";
        ConfigHelp "config|help" 2 [LOADING STALE] (0 0 0 0) "What there is to ask about settings.";
        ConfigResetstat "config|resetstat" 2 [ADMIN NOSCRIPT LOADING STALE] (0 0 0 0)
            "Accepted; counters of the server only grow.";
        Dbsize "dbsize" 1 [READONLY FAST] (0 0 0 0) "How many keys there are.";
        Flushall "flushall" -1 [WRITE] (0 0 0 0) "Removes all keys of all numbered sets.";
        Flushdb "flushdb" -1 [WRITE] (0 0 0 0) "Removes all keys of the chosen set.";
        Info "info" -1 [LOADING STALE] (0 0 0 0) "The server in lines of text.";
        Time "time" 1 [LOADING STALE FAST] (0 0 0 0) "Seconds and microseconds since 1970.";
    }
    Transactions {
        Discard "discard" 1 [NOSCRIPT LOADING STALE FAST ALLOW_BUSY] (0 0 0 0)
            "Forgets the commands since MULTI.";
        Exec "exec" 1 [NOSCRIPT LOADING STALE SKIP_SLOWLOG] (0 0 0 0)
            "Runs the commands since MULTI, all or none.";
        Multi "multi" 1 [NOSCRIPT LOADING STALE FAST ALLOW_BUSY] (0 0 0 0)
            "Begins to collect commands for EXEC.";
        Unwatch "unwatch" 1 [NOSCRIPT LOADING STALE FAST ALLOW_BUSY] (0 0 0 0)
            "Forgets the watched keys.";
        Watch "watch" -2 [NOSCRIPT LOADING STALE FAST ALLOW_BUSY] (1 -1 1 0)
            "EXEC does nothing once one of these keys has changed.";
    }
    Pubsub {
        Psubscribe "psubscribe" -2 [PUBSUB NOSCRIPT LOADING STALE] (0 0 0 0)
            "Receives messages of channels that match patterns.";
        Publish "publish" 3 [PUBSUB LOADING STALE FAST] (0 0 0 0)
            "Sends a message to those who listen now.";
        Pubsub "pubsub" -2 [CONTAINER] (0 0 0 0) "About channels.";
        PubsubChannels "pubsub|channels" -2 [PUBSUB LOADING STALE] (0 0 0 0)
            "Channels with listeners.";
        PubsubHelp "pubsub|help" 2 [LOADING STALE] (0 0 0 0) "What there is to ask about channels.";
        PubsubNumpat "pubsub|numpat" 2 [PUBSUB LOADING STALE] (0 0 0 0)
            "How many patterns are listened to.";
        PubsubNumsub "pubsub|numsub" -2 [PUBSUB LOADING STALE] (0 0 0 0)
            "How many listeners channels have.";
        PubsubShardchannels "pubsub|shardchannels" -2 [PUBSUB LOADING STALE] (0 0 0 0)
            "Channels of SSUBSCRIBE with listeners.";
        PubsubShardnumsub "pubsub|shardnumsub" -2 [PUBSUB LOADING STALE] (0 0 0 0)
            "How many listeners channels of SSUBSCRIBE have.";
        Punsubscribe "punsubscribe" -1 [PUBSUB NOSCRIPT LOADING STALE] (0 0 0 0) "Ends PSUBSCRIBE.";
        Spublish "spublish" 3 [PUBSUB LOADING STALE FAST] (1 1 1 0)
            "Sends a message to listeners of SSUBSCRIBE.";
        Ssubscribe "ssubscribe" -2 [PUBSUB NOSCRIPT LOADING STALE] (1 -1 1 0)
            "Receives messages of SPUBLISH.";
        Subscribe "subscribe" -2 [PUBSUB NOSCRIPT LOADING STALE] (0 0 0 0)
            "Receives messages of channels.";
        Sunsubscribe "sunsubscribe" -1 [PUBSUB NOSCRIPT LOADING STALE] (1 -1 1 0)
            "Ends SSUBSCRIBE.";
        Unsubscribe "unsubscribe" -1 [PUBSUB NOSCRIPT LOADING STALE] (0 0 0 0) "Ends SUBSCRIBE.";
    }
    Scripting {
        Eval "eval" -3 [NOSCRIPT STALE SKIP_MONITOR NO_MANDATORY_KEYS MOVABLEKEYS] (0 0 0 2)
            "Runs a Lua script.";
        EvalRo "eval_ro" -3
            [READONLY NOSCRIPT STALE SKIP_MONITOR NO_MANDATORY_KEYS MOVABLEKEYS] (0 0 0 2)
            "Runs a Lua script that only reads.";
        Evalsha "evalsha" -3 [NOSCRIPT STALE SKIP_MONITOR NO_MANDATORY_KEYS MOVABLEKEYS] (0 0 0 2)
            "Runs a known Lua script, named by its SHA-1.";
        EvalshaRo "evalsha_ro" -3
            [READONLY NOSCRIPT STALE SKIP_MONITOR NO_MANDATORY_KEYS MOVABLEKEYS] (0 0 0 2)
            "Runs a known Lua script that only reads.";
        Script "script" -2 [CONTAINER] (0 0 0 0) "About Lua scripts.";
        ScriptExists "script|exists" -3 [NOSCRIPT] (0 0 0 0) "Which scripts are known.";
        ScriptFlush "script|flush" -2 [NOSCRIPT] (0 0 0 0) "Forgets all scripts.";
        ScriptHelp "script|help" 2 [LOADING STALE] (0 0 0 0) "What there is to do with scripts.";
        ScriptKill "script|kill" 2 [NOSCRIPT ALLOW_BUSY] (0 0 0 0) "Ends the script that runs.";
        ScriptLoad "script|load" 3 [NOSCRIPT STALE] (0 0 0 0) "Makes a script known.";
    }
    Strings {
        Append "append" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds bytes to the end of a value.";
        Decr "decr" 2 [WRITE DENYOOM FAST] (1 1 1 0) "Subtracts one.";
        Decrby "decrby" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Subtracts a whole number.";
        Delex "delex" -2 [WRITE FAST] (1 1 1 0) "Removes a key if its value is one, or is not one.";
        Get "get" 2 [READONLY FAST] (1 1 1 0) "The value of a key.";
        Getdel "getdel" 2 [WRITE FAST] (1 1 1 0) "The value of a key, which is removed.";
        Getex "getex" -2 [WRITE FAST] (1 1 1 0) "The value of a key, whose expiry is changed.";
        Getrange "getrange" 4 [READONLY] (1 1 1 0) "A part of a value.";
        Getset "getset" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Sets a value and answers the one before.";
        Incr "incr" 2 [WRITE DENYOOM FAST] (1 1 1 0) "Adds one.";
        Incrby "incrby" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds a whole number.";
        Incrbyfloat "incrbyfloat" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds a number with a fraction.";
        Mget "mget" -2 [READONLY FAST] (1 -1 1 0) "The values of several keys.";
        Mset "mset" -3 [WRITE DENYOOM] (1 -1 2 0) "Sets several keys.";
        Msetnx "msetnx" -3 [WRITE DENYOOM] (1 -1 2 0) "Sets several keys if none of them is there.";
        Psetex "psetex" 4 [WRITE DENYOOM] (1 1 1 0) "Sets a value that expires after milliseconds.";
        Set "set" -3 [WRITE DENYOOM] (1 1 1 0) "Sets a value, on conditions and with an expiry.";
        Setex "setex" 4 [WRITE DENYOOM] (1 1 1 0) "Sets a value that expires after seconds.";
        Setnx "setnx" 3 [WRITE DENYOOM FAST] (1 1 1 0) "Sets a value if the key is not there.";
        Setrange "setrange" 4 [WRITE DENYOOM] (1 1 1 0) "Overwrites a part of a value.";
        Strlen "strlen" 2 [READONLY FAST] (1 1 1 0) "The length of a value.";
        Substr "substr" 4 [READONLY] (1 1 1 0) "A part of a value; the older name of GETRANGE.";
    }
    Hashes {
        Hdel "hdel" -3 [WRITE FAST] (1 1 1 0) "Removes fields.";
        Hexists "hexists" 3 [READONLY FAST] (1 1 1 0) "Whether there is a field.";
        Hget "hget" 3 [READONLY FAST] (1 1 1 0) "The value of a field.";
        Hgetall "hgetall" 2 [READONLY] (1 1 1 0) "All fields and values.";
        Hincrby "hincrby" 4 [WRITE DENYOOM FAST] (1 1 1 0) "Adds a whole number to a field.";
        Hincrbyfloat "hincrbyfloat" 4 [WRITE DENYOOM FAST] (1 1 1 0)
            "Adds a number with a fraction to a field.";
        Hkeys "hkeys" 2 [READONLY] (1 1 1 0) "All fields.";
        Hlen "hlen" 2 [READONLY FAST] (1 1 1 0) "How many fields there are.";
        Hmget "hmget" -3 [READONLY FAST] (1 1 1 0) "The values of several fields.";
        Hmset "hmset" -4 [WRITE DENYOOM FAST] (1 1 1 0)
            "Sets several fields; the older name of HSET.";
        Hrandfield "hrandfield" -2 [READONLY] (1 1 1 0) "Fields at random.";
        Hscan "hscan" -3 [READONLY] (1 1 1 0) "Fields and values, a part at a time.";
        Hset "hset" -4 [WRITE DENYOOM FAST] (1 1 1 0) "Sets fields.";
        Hsetnx "hsetnx" 4 [WRITE DENYOOM FAST] (1 1 1 0) "Sets a field if it is not there.";
        Hstrlen "hstrlen" 3 [READONLY FAST] (1 1 1 0) "The length of a field's value.";
        Hvals "hvals" 2 [READONLY] (1 1 1 0) "All values.";
    }
    Lists {
        Blmove "blmove" 6 [WRITE DENYOOM NOSCRIPT BLOCKING] (1 2 1 0)
            "LMOVE, and waits for an element.";
        Blmpop "blmpop" -5 [WRITE BLOCKING MOVABLEKEYS] (0 0 0 2)
            "LMPOP, and waits for an element.";
        Blpop "blpop" -3 [WRITE NOSCRIPT BLOCKING] (1 -2 1 0)
            "LPOP of the first list that has an element, and waits for one.";
        Brpop "brpop" -3 [WRITE NOSCRIPT BLOCKING] (1 -2 1 0)
            "RPOP of the first list that has an element, and waits for one.";
        Brpoplpush "brpoplpush" 4 [WRITE DENYOOM NOSCRIPT BLOCKING] (1 2 1 0)
            "RPOPLPUSH, and waits for an element.";
        Lindex "lindex" 3 [READONLY] (1 1 1 0) "The element at a position.";
        Linsert "linsert" 5 [WRITE DENYOOM] (1 1 1 0) "Adds an element before or after another.";
        Llen "llen" 2 [READONLY FAST] (1 1 1 0) "How many elements there are.";
        Lmove "lmove" 5 [WRITE DENYOOM] (1 2 1 0)
            "Moves an element from one end of a list to an end of another.";
        Lmpop "lmpop" -4 [WRITE MOVABLEKEYS] (0 0 0 1)
            "Takes elements of the first list that has some.";
        Lpop "lpop" -2 [WRITE FAST] (1 1 1 0) "Takes elements from the front.";
        Lpos "lpos" -3 [READONLY] (1 1 1 0) "Where an element is.";
        Lpush "lpush" -3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds elements at the front.";
        Lpushx "lpushx" -3 [WRITE DENYOOM FAST] (1 1 1 0)
            "Adds elements at the front if there is a list.";
        Lrange "lrange" 4 [READONLY] (1 1 1 0) "The elements between two positions.";
        Lrem "lrem" 4 [WRITE] (1 1 1 0) "Removes elements that are equal to one.";
        Lset "lset" 4 [WRITE DENYOOM] (1 1 1 0) "Replaces the element at a position.";
        Ltrim "ltrim" 4 [WRITE] (1 1 1 0) "Keeps the elements between two positions only.";
        Rpop "rpop" -2 [WRITE FAST] (1 1 1 0) "Takes elements from the back.";
        Rpoplpush "rpoplpush" 3 [WRITE DENYOOM] (1 2 1 0)
            "Moves the last element of a list to the front of another.";
        Rpush "rpush" -3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds elements at the back.";
        Rpushx "rpushx" -3 [WRITE DENYOOM FAST] (1 1 1 0)
            "Adds elements at the back if there is a list.";
    }
    Sets {
        Sadd "sadd" -3 [WRITE DENYOOM FAST] (1 1 1 0) "Adds members.";
        Scard "scard" 2 [READONLY FAST] (1 1 1 0) "How many members there are.";
        Sdiff "sdiff" -2 [READONLY] (1 -1 1 0)
            "Members of the first set that are in none of the others.";
        Sdiffstore "sdiffstore" -3 [WRITE DENYOOM] (1 -1 1 0) "SDIFF into a key.";
        Sinter "sinter" -2 [READONLY] (1 -1 1 0) "Members that are in all sets.";
        Sintercard "sintercard" -3 [READONLY MOVABLEKEYS] (0 0 0 1)
            "How many members are in all sets.";
        Sinterstore "sinterstore" -3 [WRITE DENYOOM] (1 -1 1 0) "SINTER into a key.";
        Sismember "sismember" 3 [READONLY FAST] (1 1 1 0) "Whether there is a member.";
        Smembers "smembers" 2 [READONLY] (1 1 1 0) "All members.";
        Smismember "smismember" -3 [READONLY FAST] (1 1 1 0) "Which of several members there are.";
        Smove "smove" 4 [WRITE FAST] (1 2 1 0) "Moves a member to another set.";
        Spop "spop" -2 [WRITE FAST] (1 1 1 0) "Takes members at random.";
        Srandmember "srandmember" -2 [READONLY] (1 1 1 0) "Members at random.";
        Srem "srem" -3 [WRITE FAST] (1 1 1 0) "Removes members.";
        Sscan "sscan" -3 [READONLY] (1 1 1 0) "Members, a part at a time.";
        Sunion "sunion" -2 [READONLY] (1 -1 1 0) "Members that are in any of the sets.";
        Sunionstore "sunionstore" -3 [WRITE DENYOOM] (1 -1 1 0) "SUNION into a key.";
    }
    SortedSets {
        Bzmpop "bzmpop" -5 [WRITE BLOCKING MOVABLEKEYS] (0 0 0 2) "ZMPOP, and waits for a member.";
        Bzpopmax "bzpopmax" -3 [WRITE NOSCRIPT BLOCKING FAST] (1 -2 1 0)
            "ZPOPMAX of the first set that has a member, and waits for one.";
        Bzpopmin "bzpopmin" -3 [WRITE NOSCRIPT BLOCKING FAST] (1 -2 1 0)
            "ZPOPMIN of the first set that has a member, and waits for one.";
        Zadd "zadd" -4 [WRITE DENYOOM FAST] (1 1 1 0) "Adds members with scores.";
        Zcard "zcard" 2 [READONLY FAST] (1 1 1 0) "How many members there are.";
        Zcount "zcount" 4 [READONLY FAST] (1 1 1 0) "How many members have a score between two.";
        Zdiff "zdiff" -3 [READONLY MOVABLEKEYS] (0 0 0 1)
            "Members of the first set that are in none of the others.";
        Zdiffstore "zdiffstore" -4 [WRITE DENYOOM MOVABLEKEYS] (1 1 1 2) "ZDIFF into a key.";
        Zincrby "zincrby" 4 [WRITE DENYOOM FAST] (1 1 1 0) "Adds to a member's score.";
        Zinter "zinter" -3 [READONLY MOVABLEKEYS] (0 0 0 1) "Members that are in all sets.";
        Zintercard "zintercard" -3 [READONLY MOVABLEKEYS] (0 0 0 1)
            "How many members are in all sets.";
        Zinterstore "zinterstore" -4 [WRITE DENYOOM MOVABLEKEYS] (1 1 1 2) "ZINTER into a key.";
        Zlexcount "zlexcount" 4 [READONLY FAST] (1 1 1 0) "How many members lie between two texts.";
        Zmpop "zmpop" -4 [WRITE MOVABLEKEYS] (0 0 0 1)
            "Takes the lowest or highest members of the first set that has some.";
        Zmscore "zmscore" -3 [READONLY FAST] (1 1 1 0) "The scores of several members.";
        Zpopmax "zpopmax" -2 [WRITE FAST] (1 1 1 0) "Takes the members with the highest scores.";
        Zpopmin "zpopmin" -2 [WRITE FAST] (1 1 1 0) "Takes the members with the lowest scores.";
        Zrandmember "zrandmember" -2 [READONLY] (1 1 1 0) "Members at random.";
        Zrange "zrange" -4 [READONLY] (1 1 1 0) "Members by rank, score or text.";
        Zrangebylex "zrangebylex" -4 [READONLY] (1 1 1 0) "Members between two texts.";
        Zrangebyscore "zrangebyscore" -4 [READONLY] (1 1 1 0) "Members with a score between two.";
        Zrangestore "zrangestore" -5 [WRITE DENYOOM] (1 2 1 0) "ZRANGE into a key.";
        Zrank "zrank" 3 [READONLY FAST] (1 1 1 0) "The rank of a member.";
        Zrem "zrem" -3 [WRITE FAST] (1 1 1 0) "Removes members.";
        Zremrangebylex "zremrangebylex" 4 [WRITE] (1 1 1 0) "Removes members between two texts.";
        Zremrangebyrank "zremrangebyrank" 4 [WRITE] (1 1 1 0) "Removes members between two ranks.";
        Zremrangebyscore "zremrangebyscore" 4 [WRITE] (1 1 1 0)
            "Removes members with a score between two.";
        Zrevrange "zrevrange" -4 [READONLY] (1 1 1 0) "Members by rank, highest first.";
        Zrevrangebylex "zrevrangebylex" -4 [READONLY] (1 1 1 0)
            "Members between two texts, last first.";
        Zrevrangebyscore "zrevrangebyscore" -4 [READONLY] (1 1 1 0)
            "Members with a score between two, highest first.";
        Zrevrank "zrevrank" 3 [READONLY FAST] (1 1 1 0) "The rank of a member, from the highest.";
        Zscan "zscan" -3 [READONLY] (1 1 1 0) "Members and scores, a part at a time.";
        Zscore "zscore" 3 [READONLY FAST] (1 1 1 0) "The score of a member.";
        Zunion "zunion" -3 [READONLY MOVABLEKEYS] (0 0 0 1) "Members that are in any of the sets.";
        Zunionstore "zunionstore" -4 [WRITE DENYOOM MOVABLEKEYS] (1 1 1 2) "ZUNION into a key.";
    }
    Keys {
        Copy "copy" -3 [WRITE DENYOOM] (1 2 1 0) "Copies a value to another key.";
        Del "del" -2 [WRITE] (1 -1 1 0) "Removes keys.";
        Exists "exists" -2 [READONLY FAST] (1 -1 1 0) "How many of the keys there are.";
        Expire "expire" -3 [WRITE FAST] (1 1 1 0) "Lets a key expire after seconds.";
        Expireat "expireat" -3 [WRITE FAST] (1 1 1 0) "Lets a key expire at a second since 1970.";
        Expiretime "expiretime" 2 [READONLY FAST] (1 1 1 0)
            "The second since 1970 at which a key expires.";
        Keys "keys" 2 [READONLY] (0 0 0 0) "The keys that match a pattern.";
        Object "object" -2 [CONTAINER] (0 0 0 0) "About a value.";
        ObjectEncoding "object|encoding" 3 [READONLY] (2 2 1 0) "How Redis would keep the value.";
        ObjectFreq "object|freq" 3 [READONLY] (2 2 1 0)
            "An error, as in a Redis that does not count uses.";
        ObjectHelp "object|help" 2 [LOADING STALE] (0 0 0 0) "What there is to ask about a value.";
        ObjectIdletime "object|idletime" 3 [READONLY] (2 2 1 0)
            "How long nobody has used the value.";
        ObjectRefcount "object|refcount" 3 [READONLY] (2 2 1 0) "One.";
        Persist "persist" 2 [WRITE FAST] (1 1 1 0) "Keeps a key from expiring.";
        Pexpire "pexpire" -3 [WRITE FAST] (1 1 1 0) "Lets a key expire after milliseconds.";
        Pexpireat "pexpireat" -3 [WRITE FAST] (1 1 1 0)
            "Lets a key expire at a millisecond since 1970.";
        Pexpiretime "pexpiretime" 2 [READONLY FAST] (1 1 1 0)
            "The millisecond since 1970 at which a key expires.";
        Pttl "pttl" 2 [READONLY FAST] (1 1 1 0) "Milliseconds until a key expires.";
        Randomkey "randomkey" 1 [READONLY] (0 0 0 0) "A key at random.";
        Rename "rename" 3 [WRITE] (1 2 1 0) "Gives a key another name.";
        Renamenx "renamenx" 3 [WRITE FAST] (1 2 1 0) "Gives a key another name if no key has it.";
        Scan "scan" -2 [READONLY] (0 0 0 0) "The keys, a part at a time.";
        Touch "touch" -2 [READONLY FAST] (1 -1 1 0) "How many of the keys there are.";
        Ttl "ttl" 2 [READONLY FAST] (1 1 1 0) "Seconds until a key expires.";
        Type "type" 2 [READONLY FAST] (1 1 1 0) "What kind of value a key has.";
        Unlink "unlink" -2 [WRITE FAST] (1 -1 1 0) "Removes keys.";
        Wait "wait" 3 [NOSCRIPT] (0 0 0 0) "Answers 0 replicas.";
        Waitaof "waitaof" 4 [NOSCRIPT] (0 0 0 0)
            "Answers whether the journal has what this connection wrote.";
    }
    Leases {
        LeaseAcquire "lease.acquire" -4 [WRITE NOSCRIPT BLOCKING FAST] (1 1 1 0)
            "Takes a lock, and waits for it if asked to.";
        LeaseCheck "lease.check" -2 [READONLY NOSCRIPT FAST] (1 1 1 0)
            "Whether a lock is still held.";
        LeaseInspect "lease.inspect" -2 [READONLY NOSCRIPT FAST] (1 1 1 0)
            "Who holds a lock and who waits for it.";
        LeaseRelease "lease.release" -3 [WRITE NOSCRIPT FAST] (1 1 1 0) "Gives a lock back.";
        LeaseRenew "lease.renew" -3 [WRITE NOSCRIPT FAST] (1 1 1 0) "Holds a lock for longer.";
        LeaseSession "lease.session" -1 [WRITE NOSCRIPT FAST] (0 0 0 0)
            "A session for leases, of this connection or beyond it.";
    }
    Queues {
        QueueAck "queue.ack" -3 [WRITE NOSCRIPT FAST] (1 1 1 0) "A message is done with.";
        QueueConsume "queue.consume" -2 [WRITE NOSCRIPT BLOCKING] (1 1 1 0)
            "Receives messages as they come.";
        QueueDeclare "queue.declare" -2 [WRITE NOSCRIPT] (1 1 1 0) "Makes a queue.";
        QueueDelete "queue.delete" -2 [WRITE NOSCRIPT] (1 1 1 0) "Removes a queue.";
        QueueExtend "queue.extend" -3 [WRITE NOSCRIPT FAST] (1 1 1 0) "Keeps a message for longer.";
        QueueInfo "queue.info" -2 [READONLY NOSCRIPT FAST] (1 1 1 0) "A queue in numbers.";
        QueueNack "queue.nack" -3 [WRITE NOSCRIPT FAST] (1 1 1 0)
            "Gives a message back to be delivered again.";
        QueuePublish "queue.publish" -3 [WRITE DENYOOM NOSCRIPT FAST] (1 1 1 0)
            "Puts messages into a queue.";
        QueuePurge "queue.purge" -2 [WRITE NOSCRIPT] (1 1 1 0) "Removes the messages of a queue.";
        QueueReceive "queue.receive" -2 [WRITE NOSCRIPT BLOCKING] (1 1 1 0)
            "Takes messages, and waits for them if asked to.";
        QueueReject "queue.reject" -3 [WRITE NOSCRIPT FAST] (1 1 1 0)
            "Gives a message up as not to be delivered again.";
        QueueStop "queue.stop" -2 [WRITE NOSCRIPT FAST] (1 1 1 0)
            "Receives no more messages of a queue.";
    }
}
