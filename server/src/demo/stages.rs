//! What follows a sale: payment, reminder, shipping. Each handful of messages is one commit that
//! acks them and publishes what comes next.
//!
//! Shipping is the end of the line, so no later message can prove that its commit happened. It
//! therefore writes a register, the manifest of its parcels, in the same commit.

use std::sync::Arc;
use std::time::Duration;

use leasehold::{Delivery, Expect, Message, Verdict};

use super::desk::{Deed, Desk, Intake, PAYMENTS, REMINDERS, SHIPPING};
use super::ledger::{Fact, Intent, Sent, Step, now_us};
use super::plan::Slip;

/// Messages taken and not settled, per worker and stage.
const PREFETCH: u32 = 512;
/// Messages in one commit; each is a settlement and perhaps a publish.
const HANDFUL_MAX: usize = 400;
/// How long a handful may grow.
const LINGER: Duration = Duration::from_millis(20);
/// How long a declined payment rests before it is tried again.
const DECLINED_REST: Duration = Duration::from_millis(300);
/// When a customer who has not paid is reminded.
const REMIND_AFTER: Duration = Duration::from_secs(2);

/// The register that a shipping intent writes.
pub const MANIFESTS: &str = "manifest/";

/// A slip, who had sent it, and its delivery.
type Item = (Slip, Intent, Delivery);

/// Messages of one commit, read.
struct Handful {
    items: Vec<Item>,
    again: u32,
}

impl Handful {
    async fn take(intake: &mut Intake) -> anyhow::Result<Self> {
        let deliveries = intake.handful(HANDFUL_MAX).await;
        let read = |delivery: Delivery| {
            let slip = Slip::read(delivery.body()).ok_or_else(|| {
                let body = String::from_utf8_lossy(delivery.body()).into_owned();
                anyhow::anyhow!("a worker published what no worker can read: {body}")
            })?;
            let by = slip.by;
            Ok((slip, by, delivery))
        };
        let items = deliveries.into_iter().map(read).collect::<anyhow::Result<Vec<Item>>>()?;
        // A declined payment comes again on purpose.
        let crashed = |(slip, _, delivery): &&Item| delivery.redelivered && !slip.declines;
        let again = items.iter().filter(crashed).count() as u32;
        Ok(Self { items, again })
    }
}

/// Charges customers, for ever.
pub async fn pay(desk: Arc<Desk>) -> anyhow::Result<()> {
    let mut intake = Intake::new(&desk.at, PAYMENTS, PREFETCH, LINGER);
    loop {
        let Handful { items, again } = Handful::take(&mut intake).await?;
        let intent = desk.ledger.intent();
        let (mut paid, mut late, mut declined) = (Vec::new(), Vec::new(), Vec::new());
        let (mut commit, mut parts) = (desk.at.commit(), Vec::new());
        for (slip, by, delivery) in items {
            let sent: Sent = (slip.order, by);
            let mut verdict = Verdict::Ack;
            if slip.declines && delivery.attempt == 1 {
                declined.push(sent);
                verdict = Verdict::Nack(DECLINED_REST);
            } else if slip.late {
                late.push(sent);
                let next = Slip { late: false, declines: false, ..slip };
                commit = commit.publish(REMINDERS, next.sent_by(intent).delay(REMIND_AFTER));
            } else {
                paid.push(sent);
                let next = Slip { declines: false, ..slip };
                commit = commit.publish(SHIPPING, next.sent_by(intent));
            }
            parts.push((delivery, verdict));
        }
        let did = [paid.len() as u32, (late.len() + declined.len()) as u32];
        let (n, at) = (intent.n, now_us());
        desk.ledger.enter(&Fact::Pay { n, at, paid, late, declined, again })?;
        let deed = Deed { intent, step: Step::Pay, did, waited_us: None };
        desk.settle(deed, commit, parts).await?;
    }
}

/// Reminds customers, who then pay, for ever.
pub async fn remind(desk: Arc<Desk>) -> anyhow::Result<()> {
    let mut intake = Intake::new(&desk.at, REMINDERS, PREFETCH, LINGER);
    loop {
        let Handful { items, again } = Handful::take(&mut intake).await?;
        let intent = desk.ledger.intent();
        let publish: Vec<Message> = items.iter().map(|(slip, ..)| slip.sent_by(intent)).collect();
        let (orders, parts) = ack_all(items);
        let did = [orders.len() as u32, 0];
        desk.ledger.enter(&Fact::Remind { n: intent.n, at: now_us(), orders, again })?;
        let empty = desk.at.commit();
        let commit = publish.into_iter().fold(empty, |commit, m| commit.publish(PAYMENTS, m));
        let deed = Deed { intent, step: Step::Remind, did, waited_us: None };
        desk.settle(deed, commit, parts).await?;
    }
}

/// Hands parcels to the carrier, for ever.
pub async fn ship(desk: Arc<Desk>) -> anyhow::Result<()> {
    let mut intake = Intake::new(&desk.at, SHIPPING, PREFETCH, LINGER);
    loop {
        let Handful { items, again } = Handful::take(&mut intake).await?;
        let intent = desk.ledger.intent();
        let (orders, parts) = ack_all(items);
        let did = [orders.len() as u32, 0];
        let (key, value) = (format!("{MANIFESTS}{intent}"), format!("{} parcels", orders.len()));
        desk.ledger.enter(&Fact::Ship { n: intent.n, at: now_us(), orders, again })?;
        let commit = desk.at.commit().write(key, value, Expect::Absent);
        let deed = Deed { intent, step: Step::Ship, did, waited_us: None };
        desk.settle(deed, commit, parts).await?;
    }
}

fn ack_all(items: Vec<Item>) -> (Vec<Sent>, Vec<(Delivery, Verdict)>) {
    let acked = |(slip, by, delivery): Item| ((slip.order, by), (delivery, Verdict::Ack));
    items.into_iter().map(acked).unzip()
}
