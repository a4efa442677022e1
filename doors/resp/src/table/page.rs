//! The reference of all commands, as Markdown. `docs/reference/resp-commands.md` is this text.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Entry, Flags, Group, offered, refused};

const OPENING: &str = "\
# Commands of the RESP door

<!-- Generated: `cargo run -p leasehold-resp-door --example resp-commands \
    > docs/reference/resp-commands.md`. -->

Programs that speak to Redis can speak to Leasehold. These are the commands of Redis 7.0, some of
later versions and our own, with what became of each. What is offered takes the arguments and gives
the replies of Redis 7.0. What is not offered is answered with an error that says so and why.
";

const REFUSED: &str = "
## Not offered

The answer is `ERR unknown command 'XADD' (not offered by leasehold: streams)`.

| why | commands |
|---|---|
";

/// Groups that have a part of the page, in its order.
const PARTS: &[(Group, &str)] = &[
    (Group::Leases, "Leases"),
    (Group::Queues, "Queues"),
    (Group::Strings, "Strings"),
    (Group::Keys, "Keys"),
    (Group::Hashes, "Hashes"),
    (Group::Lists, "Lists"),
    (Group::Sets, "Sets"),
    (Group::SortedSets, "Sorted sets"),
    (Group::Transactions, "Transactions"),
    (Group::Scripting, "Scripts"),
    (Group::Pubsub, "Channels"),
    (Group::Connection, "Connections"),
    (Group::Server, "The server"),
];

/// The whole page.
pub fn markdown() -> String {
    let mut page = OPENING.to_owned();
    for (group, title) in PARTS {
        let rows = offered().iter().filter(|entry| entry.group == *group);
        writeln!(page, "\n## {title}\n\n| command | arguments | what it does |\n|---|---|---|")
            .expect("a String takes everything");
        for entry in rows.filter(|entry| is_shown(entry)) {
            let (name, count, summary) = (entry.title(), arguments(entry), entry.summary);
            writeln!(page, "| `{name}` | {count} | {summary} |")
                .expect("a String takes everything");
        }
    }
    page.push_str(REFUSED);
    let mut reasons = BTreeMap::<&str, Vec<String>>::new();
    for entry in refused::REFUSED {
        let why = entry.offered.err().unwrap_or_default();
        reasons.entry(why).or_default().push(format!("`{}`", entry.title()));
    }
    for (why, names) in reasons {
        writeln!(page, "| {why} | {} |", names.join(", ")).expect("a String takes everything");
    }
    page
}

/// A container alone asks for nothing, but COMMAND does.
fn is_shown(entry: &Entry) -> bool {
    !entry.flags.has(Flags::CONTAINER) || entry.arity == -1
}

/// How many arguments follow the name.
fn arguments(entry: &Entry) -> String {
    let words = if entry.container().is_some() { 2 } else { 1 };
    let count = entry.arity.unsigned_abs().saturating_sub(words);
    if entry.arity < 0 { format!("{count} or more") } else { count.to_string() }
}
