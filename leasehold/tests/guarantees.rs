//! `GUARANTEES.md` is made of what the engines declare, which the conformance suite proves.

#![cfg(all(
    feature = "native",
    feature = "http",
    feature = "files",
    feature = "redis",
    feature = "postgres",
    feature = "mysql",
    feature = "zookeeper",
    feature = "etcd",
    feature = "amqp"
))]

use std::fmt::Write;

use leasehold::{Guarantees, Told};

/// An engine, the URLs that open it, and what it promises.
const ENGINES: &[(&str, &str, Guarantees)] = &[
    ("native", "a directory, `file:DIR`, `mem:`", leasehold_native::GUARANTEES),
    ("http", "`http://`, `https://`", leasehold_http::GUARANTEES),
    ("files", "`file:///DIR`", leasehold_files::GUARANTEES),
    ("redis", "`redis://`, `rediss://`", leasehold_redis::GUARANTEES),
    ("postgres", "`postgres://`, `postgresql://`", leasehold_postgres::GUARANTEES),
    ("mysql", "`mysql://`, `mariadb://`", leasehold_mysql::GUARANTEES),
    ("zookeeper", "`zookeeper://`", leasehold_zookeeper::GUARANTEES),
    ("etcd", "`etcd://`, `etcds://`", leasehold_etcd::GUARANTEES),
    ("amqp", "`amqp://`, `amqps://`", leasehold_amqp::GUARANTEES),
    ("kafka", "`kafka://`, `kafkas://`", leasehold_kafka::GUARANTEES),
];

const OPENING: &str = "\
# Guarantees

<!-- Generated: `LEASEHOLD_REWRITE=1 cargo test -p leasehold --test guarantees`. -->

What each engine promises, from what it declares in its code. The conformance suite runs against
every engine: what it declares has to hold, and what it declares absent has to be refused with
`Unsupported`; nothing is emulated. More is greater, so that a program can demand a floor:

```rust
let leasehold = leasehold::connect(url).await?.require(leasehold::Fencing::Strict)?;
```

`leasehold doctor URL` proves the most important of it on an engine as it stands, and says whether
its settings keep it.

An engine's label is about its locks. *Efficiency only*: two may hold one, seldom, so use it where
that costs work and no data. *Fenced*: a late hand is refused, if what it writes to checks the
token. *Consensus*: fenced, and no single node decides.

";

const REMARKS: &str = "
* `native` survives the death of a process with `durability` `interval` or `none`, and nothing in
  memory.
* `http` promises what its server says, and is shown here with a server on the embedded engine.
* `kafka` is in a build with the feature `kafka` alone, and has no locks.
";

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The weakest level is small, so that the eye finds what there is.
fn level(told: &Told) -> String {
    match (told.is_weakest, told.level) {
        (true, "No" | "None" | "Nothing") => "–".to_owned(),
        (true, level) => level.to_lowercase(),
        (false, level) => format!("**{}**", level.to_lowercase()),
    }
}

fn row(page: &mut String, head: &str, cells: impl Iterator<Item = String>) {
    let cells: Vec<String> = cells.collect();
    writeln!(page, "| {head} | {} |", cells.join(" | ")).expect("a String takes everything");
}

fn markdown() -> String {
    let mut page = OPENING.to_owned();
    row(&mut page, "", ENGINES.iter().map(|(name, ..)| (*name).to_owned()));
    row(&mut page, "---", ENGINES.iter().map(|_| "---".to_owned()));
    row(&mut page, "URL", ENGINES.iter().map(|(_, url, _)| (*url).to_owned()));
    row(&mut page, "label", ENGINES.iter().map(|(.., given)| given.label().to_owned()));
    for (place, told) in Guarantees::NOTHING.all().enumerate() {
        let cell = |(.., given): &(&str, &str, Guarantees)| {
            given.all().nth(place).as_ref().map(level).unwrap_or_default()
        };
        row(&mut page, &words(told.name), ENGINES.iter().map(cell));
    }
    page.push_str(REMARKS);
    page.push_str("\n## What the words mean\n");
    let mut last = "";
    for told in Guarantees::levels() {
        if told.name != last {
            last = told.name;
            write!(page, "\n**{}.** {}\n\n", words(told.name), told.about)
                .expect("a String takes everything");
        }
        writeln!(page, "* {}: {}", told.level.to_lowercase(), told.means)
            .expect("a String takes everything");
    }
    page
}

#[test]
fn the_page_in_the_repository_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../GUARANTEES.md");
    if std::env::var_os("LEASEHOLD_REWRITE").is_some() {
        std::fs::write(path, markdown()).expect("it can be written");
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    let again = "LEASEHOLD_REWRITE=1 cargo test -p leasehold --test guarantees";
    assert_eq!(found, markdown(), "the page is out of date: {again}");
}
