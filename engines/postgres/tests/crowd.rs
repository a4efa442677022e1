//! Many who want one lock: what they cost in writes, whether they are served alike, and how they
//! come into its line.

mod client;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::client;
use leasehold_api::Leasehold;
use leasehold_contenders::Contender;
use leasehold_testbed::Server;
use leasehold_testbed::servers::postgres;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// How many come.
const CROWD: u32 = 60;
/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

async fn open(url: &str) -> Leasehold {
    Leasehold::new(leasehold_postgres::connect(url).await.expect("it accepts"))
}

/// A server that counts calls of functions.
async fn counting() -> Server {
    let server = postgres::start(&[]);
    let sql = "alter database postgres set track_functions = 'all'";
    client(&server).await.batch_execute(sql).await.expect("it is ours");
    server
}

/// How often sessions have tried to write; they have told all of it when they have ended.
async fn writes(server: &Server) -> i64 {
    let client = client(server).await;
    let others = "select count(*) from pg_stat_activity \
                  where backend_type = 'client backend' and pid <> pg_backend_pid()";
    let all_ended = async {
        while client.query_one(others, &[]).await.expect("it answers").get::<_, i64>(0) > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, all_ended).await.expect("they end");
    let sql = "select sum(calls)::bigint from pg_stat_user_functions \
               where funcname in ('swap', 'append')";
    client.query_one(sql, &[]).await.expect("it was called").get(0)
}

/// So many wait for the lock.
async fn in_line(handle: &Leasehold, count: u32) {
    let all_in_line = async {
        while handle.inspect("l").await.expect("it answers").waiting < count {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_in_line).await.expect("they come");
}

/// All come at one moment behind a holder, and have the lock one after the other; gives the
/// writes for each of them.
async fn crowd(server: &Server, handles: Vec<Leasehold>) -> f64 {
    let holder = open(&server.url()).await;
    let held = holder.lock("l").acquire().await.expect("it is free");
    let mut crowd = JoinSet::new();
    for handle in handles.iter().cycle().take(CROWD as usize) {
        let lock = handle.lock("l");
        crowd.spawn(async move { lock.acquire().await?.release().await });
    }
    in_line(&holder, CROWD).await;
    held.release().await.expect("it is held");
    while let Some(had) = timeout(PATIENCE, crowd.join_next()).await.expect("turns come") {
        had.expect("no panic").expect("its turn comes");
    }
    drop((holder, handles));
    let writes = writes(server).await as f64 / f64::from(CROWD);
    println!("{writes:.1} writes each");
    writes
}

/// Coming, saying that it holds and leaving are three, and some of them are tried twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_one_process_writes_a_few_times_each() {
    let server = counting().await;
    let handle = open(&server.url()).await;
    let writes = crowd(&server, vec![handle]).await;
    assert!(writes < 6.0, "{writes} writes each");
}

/// Nobody comes in vain more than once, however many come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_engines_writes_as_seldom() {
    let server = counting().await;
    let mut handles = Vec::new();
    for _ in 0..CROWD {
        handles.push(open(&server.url()).await);
    }
    let writes = crowd(&server, handles).await;
    // Four, and signs of life where a disk is so slow that they wait for long; it was above 12.
    assert!(writes < 9.0, "{writes} writes each");
}

/// Engines that take turns at one lock, as processes do, and do nothing under it.
const ENGINES: usize = 16;
/// How many turns all of them take.
const TURNS: usize = 16 * 12;

/// Who is served comes back to the end of the line before all who stand there have had their turn,
/// or one round later if others ask the server at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_at_one_lock_are_served_alike() {
    let server = postgres::start(&[]);
    let holder = open(&server.url()).await;
    let held = holder.lock("l").acquire().await.expect("it is free");
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut engines = JoinSet::new();
    for engine in 0..ENGINES {
        let handle = open(&server.url()).await;
        let served = served.clone();
        engines.spawn(async move {
            loop {
                let guard = handle.lock("l").acquire().await?;
                let count = {
                    let mut served = served.lock().expect("nobody panics");
                    served.push((engine, guard.token()));
                    served.len()
                };
                guard.release().await?;
                if count >= TURNS {
                    return leasehold_api::Result::Ok(());
                }
            }
        });
    }
    in_line(&holder, ENGINES as u32).await;
    held.release().await.expect("it is held");
    while let Some(had) = timeout(PATIENCE, engines.join_next()).await.expect("turns come") {
        had.expect("no panic").expect("its turn comes");
    }
    let served = Arc::into_inner(served).expect("all have ended").into_inner();
    let mut served = served.expect("nobody panics");
    assert!(served.is_sorted_by_key(|(_, token)| *token), "tokens rise: {served:?}");
    served.truncate(TURNS);
    let mut counts = [0; ENGINES];
    served.iter().for_each(|(engine, _)| counts[*engine] += 1);
    let again = served.windows(2).filter(|two| two[0].0 == two[1].0).count();
    println!("{counts:?}, {again} of {TURNS} to who had it last");
    let (most, least) = (counts.iter().max(), counts.iter().min());
    assert!(most <= least.map(|least| least * 2).as_ref(), "{counts:?}");
}

/// A contender as it is written, with what only the store knows as given.
fn contender(id: &str, mode: &Value, known: u64) -> Value {
    json!({
        "id": id, "token": known, "session": u64::MAX, "hold": (1_u64 << 53) - 1, "mode": mode,
        "entries": 1, "label": "\"token\":0, ü \\ \n", "joined": known, "renewed": known,
        "lasts": u64::MAX, "session_lasts": 7, "session_renewed": known, "delay": 3,
    })
}

/// Lines as the server keeps them.
struct Kept {
    client: tokio_postgres::Client,
}

impl Kept {
    /// Writes a line that ends then; gives its version and the time.
    async fn write(&self, line: &Value, lasts: Option<i64>) -> (u64, u64) {
        let sql = "with gone as (delete from leasehold.entries where name = 'l') \
                   select nextval('leasehold.versions')";
        let version: i64 = self.client.query_one(sql, &[]).await.expect("it runs").get(0);
        let sql = "insert into leasehold.entries values (0, 'l', $1, 1000, 1000 + $3::bigint, $2)";
        let value = line.to_string().into_bytes();
        self.client.execute(sql, &[&version, &value, &lasts]).await.expect("it runs");
        (version.cast_unsigned(), 1000)
    }

    async fn append(&self, new: &Value, lasts: Option<i64>, line_max: i32) -> Row {
        let sql = "select * from leasehold.append('l', $1, $2, $3)";
        let arguments: [&(dyn ToSql + Sync); 3] = [&new.to_string(), &lasts, &line_max];
        self.client.query_one(sql, &arguments).await.expect("it runs")
    }

    /// Nothing changes, and the line is told as it is.
    async fn refuses(&self, line: &Value, new: &Value, line_max: i32) {
        let (version, _) = self.write(line, None).await;
        let row = self.append(new, None, line_max).await;
        assert!(!row.get::<_, bool>("done"), "{new} came to {line}");
        assert_eq!(row.get::<_, i64>("version").cast_unsigned(), version);
        assert_eq!(row.get::<_, Vec<u8>>("value"), line.to_string().into_bytes());
        let sql = "select version, value from leasehold.entries where name = 'l'";
        let row = self.client.query_one(sql, &[]).await.expect("it is there");
        assert_eq!(row.get::<_, i64>(0).cast_unsigned(), version);
        assert_eq!(row.get::<_, Vec<u8>>(1), line.to_string().into_bytes());
    }
}

fn line(row: &Row) -> Vec<Contender> {
    serde_json::from_slice(&row.get::<_, Vec<u8>>("value")).expect("it is a line")
}

#[tokio::test]
async fn who_is_put_into_a_line_finds_all_numbers_as_they_were() {
    let server = postgres::start(&[]);
    let _engine = open(&server.url()).await;
    let kept = Kept { client: client(&server).await };
    let (x, permit) = (json!("x"), json!([2, 5]));
    let mut holder = contender("a", &x, 0);
    holder["granted"] = json!(0);
    let mut old = contender("b", &json!("s"), 1 << 52);
    old["granted"] = json!(u64::MAX - 1);
    old["with"] = json!(["l", "other"]);
    // What is not there is 0, but for what need not be there.
    let least = json!({ "id": "c", "mode": permit, "entries": 4 });
    let new = contender("d", &permit, 0);
    let (version, written) = kept.write(&json!([holder, old, least]), Some(50)).await;
    let row = kept.append(&new, Some(20), 4).await;
    assert!(row.get::<_, bool>("done"));
    assert!(row.get::<_, i64>("version").cast_unsigned() > version);
    assert_eq!(row.get::<_, i64>("written"), row.get::<_, i64>("moment"));
    for field in ["joined", "renewed", "session_renewed", "granted"] {
        holder[field] = json!(written);
    }
    holder["token"] = json!(version);
    let least = json!({
        "id": "c", "mode": permit, "entries": 4, "token": version, "joined": written,
        "renewed": written, "session_renewed": written,
    });
    let expected: Vec<Contender> =
        serde_json::from_value(json!([holder, old, least, new])).expect("it is a line");
    assert_eq!(line(&row), expected);

    // The row stays for as long as the longest.
    let written: i64 = row.get("written");
    let sql = "select version, written, value, expires from leasehold.entries where name = 'l'";
    let now = kept.client.query_one(sql, &[]).await.expect("it is there");
    assert_eq!(line(&now), line(&row));
    assert_eq!(now.get::<_, i64>("version"), row.get::<_, i64>("version"));
    assert_eq!(now.get::<_, i64>("written"), written);
    assert_eq!(now.get::<_, Option<i64>>("expires"), Some(written + 20));
    for (old, new, expires) in [
        (Some(i64::MAX / 2), Some(20), Some(1000 + i64::MAX / 2)),
        (None, Some(20), None),
        (Some(20), None, None),
    ] {
        kept.write(&json!([contender("a", &x, 0)]), old).await;
        assert!(kept.append(&contender("b", &x, 0), new, 9).await.get::<_, bool>("done"));
        let now = kept.client.query_one(sql, &[]).await.expect("it is there");
        assert_eq!(now.get::<_, Option<i64>>("expires"), expires);
    }
}

#[tokio::test]
async fn who_must_look_first_is_not_put_into_a_line() {
    let server = postgres::start(&[]);
    let _engine = open(&server.url()).await;
    let kept = Kept { client: client(&server).await };
    let (x, new) = (json!("x"), contender("b", &json!([2, 5]), 0));
    let row = kept.append(&new, None, 9).await;
    assert_eq!((row.get::<_, bool>("done"), row.get::<_, Option<i64>>("version")), (false, None));
    kept.refuses(&json!([]), &new, 9).await;
    kept.refuses(&json!([contender("b", &x, 0)]), &new, 9).await;
    kept.refuses(&json!([contender("a", &json!([2, 6]), 0)]), &new, 9).await;
    kept.refuses(&json!([contender("a", &x, 0), contender("c", &x, 0)]), &new, 2).await;
    let mut zero = contender("a", &x, 0);
    zero["label"] = json!("a\0b");
    kept.refuses(&json!([zero]), &new, 9).await;
    zero["id"] = json!("b");
    kept.refuses(&json!([contender("a", &x, 0)]), &zero, 9).await;
}
