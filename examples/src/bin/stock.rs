//! Optimistic stock update: nobody waits for a lock; who comes second reads again.

use leasehold::Leasehold;

/// Takes one piece; false when none is left.
async fn take_one(leasehold: &Leasehold) -> leasehold::Result<bool> {
    let written = leasehold
        .register("stock/42")
        .update(|value| {
            let left: u32 = String::from_utf8_lossy(value.unwrap_or(b"0")).parse().unwrap_or(0);
            left.checked_sub(1).map(|left| left.to_string().into_bytes())
        })
        .await?;
    Ok(written.is_some())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    leasehold.register("stock/42").write("10").await?;
    let mut buyers = Vec::new();
    for _ in 0..25 {
        let leasehold = leasehold.clone();
        buyers.push(tokio::spawn(async move { take_one(&leasehold).await }));
    }
    let mut sold = 0;
    for buyer in buyers {
        sold += u32::from(buyer.await.expect("it does not panic")?);
    }
    println!("25 wanted one, 10 were there, {sold} were sold");
    assert_eq!(sold, 10);
    Ok(())
}
