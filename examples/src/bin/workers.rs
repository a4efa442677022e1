//! Distributing tasks to workers: competing consumers, retries with a delay, dead letters.

use std::time::Duration;

use leasehold::{DeadLetter, Delivery, Leasehold, QueueConfig};

async fn handle(worker: u32, task: Delivery) -> leasehold::Result<()> {
    let text = String::from_utf8_lossy(task.body()).into_owned();
    match text.as_str() {
        "broken" => {
            println!("worker {worker}: {text} can never work, to the dead letters");
            task.reject().await
        }
        "flaky" if task.attempt == 1 => {
            println!("worker {worker}: {text} failed, again in a moment");
            task.nack_after(Duration::from_millis(50)).await
        }
        _ => {
            println!("worker {worker}: {text} done at attempt {}", task.attempt);
            task.ack().await
        }
    }
}

async fn work(leasehold: Leasehold, worker: u32) -> leasehold::Result<()> {
    let mut tasks = leasehold.queue("tasks").consume().prefetch(2).await?;
    while let Some(task) = tasks.next().await? {
        handle(worker, task).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> leasehold::Result<()> {
    let leasehold = leasehold_examples::engine().await?;
    let (tasks, dead) = (leasehold.queue("tasks"), leasehold.queue("tasks.dead"));
    dead.declare(&QueueConfig::default()).await?;
    let config = QueueConfig {
        deliveries_max: Some(5),
        dead_letter: Some(DeadLetter::queue("tasks.dead")),
        ..QueueConfig::default()
    };
    tasks.declare(&config).await?;
    for worker in 1..=3 {
        // Each worker is a session of its own, as another process would be.
        tokio::spawn(work(leasehold.with_label(format!("worker-{worker}")), worker));
    }
    for task in ["resize 1", "resize 2", "flaky", "broken", "resize 3"] {
        tasks.publish(task).await?;
    }
    loop {
        let view = tasks.inspect().await?;
        if view.totals.acked == 4 && view.totals.dead == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let buried = dead.peek(10).await?;
    let death = &buried[0].content.deaths[0];
    println!("dead: {:?}, {} in {}", buried[0].content.body, death.reason, death.queue);
    Ok(())
}
