//! Guarding a database row: the lock alone is not enough, the row has to check the token.
//!
//! A holder that is paused (garbage collection, a full disk, SIGSTOP) does not notice that its lock
//! ran out. The row remembers the highest token it has seen and refuses lower ones, so a late
//! write cannot get through. In SQL:
//! `UPDATE accounts SET balance = ?, token = ? WHERE id = ? AND token <= ?`.

use std::sync::Mutex;
use std::time::Duration;

/// Stands for a row of a database.
#[derive(Default)]
struct Row {
    balance: i64,
    token: u64,
}

fn write(row: &Mutex<Row>, balance: i64, token: u64) -> Result<(), String> {
    let mut row = row.lock().expect("nobody panics here");
    if token < row.token {
        return Err(format!("token {token} is stale, {} wrote since", row.token));
    }
    *row = Row { balance, token };
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    let row = Mutex::new(Row::default());
    let lock = leasehold.lock("account/42").ttl(Duration::from_millis(200));

    let slow = lock.clone().without_renewal().acquire().await?;
    println!("the slow one holds token {}", slow.token());
    println!("... and is paused until it has lost the lock: {}", slow.lost().await);

    let quick = lock.acquire().await?;
    let written = write(&row, 100, quick.token());
    println!("the quick one writes under token {}: {written:?}", quick.token());

    // A guard knows, if it is asked. A paused program does not ask.
    println!("the slow one's guard says: {}", slow.check().expect_err("it is lost"));
    let late = write(&row, -1, slow.token());
    println!("the slow one writes under token {}: {late:?}", slow.token());

    quick.release().await?;
    assert!(late.is_err());
    println!("balance {}", row.lock().expect("nobody panics here").balance);
    Ok(())
}
