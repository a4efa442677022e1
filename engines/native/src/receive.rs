//! Taking a few messages at once.
//!
//! A receive is a row of one-shot consumers. The first may wait. The others do not, and go out
//! together with a read behind them: the node answers in order, so when the read is answered every
//! one-shot that could be served has been. One that is still open then stands before a message
//! whose ordering key is in flight; it is withdrawn rather than waited for.
//!
//! What was taken is in a [`Catch`] until it is handed over, so wherever the future is dropped the
//! messages go back.

use std::sync::Arc;

use leasehold_api::Result;
use leasehold_api::engine::{Delivered, Receive};
use leasehold_core::{Consume, Limits, Name, Op, Refusal, SessionId, Wait};
use leasehold_node::Received;

use crate::convert;
use crate::error::{Fault, refused};
use crate::link::Link;
use crate::table::{Kind, Reply};

/// One-shot consumers that go out together.
const TOGETHER: usize = 64;

/// Messages that were taken and not handed over; dropping it gives them back.
struct Catch<'a> {
    link: &'a Arc<Link>,
    session: SessionId,
    messages: Vec<Received>,
}

impl Drop for Catch<'_> {
    fn drop(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        self.link.with(|table| {
            for message in self.messages.drain(..) {
                table.give_back(self.session, message.delivery.receipt);
            }
        });
    }
}

fn once(queue: &Name, wait: Wait) -> Op {
    Op::Consume(Box::new(Consume {
        queue: queue.clone(),
        credit: 1,
        once: Some(wait),
        no_ack: false,
        exclusive: false,
        label: None,
    }))
}

/// See [`QueueEngine::receive`](leasehold_api::engine::QueueEngine::receive).
pub(crate) async fn receive(
    link: &Arc<Link>,
    limits: &Limits,
    ask: &Receive,
) -> Result<Vec<Delivered>> {
    check(limits, ask)?;
    let queue = convert::name(&ask.queue)?;
    let session = SessionId(ask.session.id);
    let mut catch = Catch { link, session, messages: Vec::new() };
    let wait = match convert::wait(ask.wait) {
        Wait::No | Wait::AtMost(0) => None,
        // Less than the least that the node can wait is that.
        Wait::AtMost(time) => Some(Wait::AtMost(time.max(limits.ttl_us_min))),
        Wait::Forever => Some(Wait::Forever),
    };
    if let Some(wait) = wait {
        match link.call(session, None, once(&queue, wait), Kind::Once).await {
            Ok(Reply::Message(message)) => catch.messages.push(message),
            Err(Fault::Refused(Refusal::Empty)) => return Ok(Vec::new()),
            Ok(_) => return Err(crate::error::odd(&leasehold_core::Outcome::Done)),
            Err(fault) => return Err(fault.into()),
        }
    }
    let max = ask.max as usize;
    while catch.messages.len() < max {
        let more = TOGETHER.min(max - catch.messages.len());
        if !catch.take(&queue, more).await? {
            break;
        }
    }
    if let Some(lease) = ask.lease {
        catch.extend(convert::us(lease)).await?;
    }
    catch.hand_over()
}

/// What the node would refuse only after a message was taken.
fn check(limits: &Limits, ask: &Receive) -> Result<()> {
    let max = u64::from(limits.credit_max);
    if ask.max == 0 {
        return Err(refused(&Refusal::Zero("the number of messages")));
    }
    if u64::from(ask.max) > max {
        let is = u64::from(ask.max);
        return Err(refused(&Refusal::TooLarge("the number of messages", is, max)));
    }
    let Some(lease) = ask.lease.map(convert::us) else { return Ok(()) };
    let (min, max) = (limits.ttl_us_min, limits.ttl_us_max);
    if (min..=max).contains(&lease) {
        return Ok(());
    }
    Err(refused(&Refusal::Time("the lease", lease, min, max)))
}

impl Catch<'_> {
    /// Takes up to so many messages that are there; false if there were fewer.
    async fn take(&mut self, queue: &Name, count: usize) -> Result<bool> {
        let mut calls = Vec::with_capacity(count);
        for _ in 0..count {
            let mut call = self.link.prepare(self.session, Kind::Once)?;
            call.send(None, once(queue, Wait::No)).await?;
            calls.push(call);
        }
        let barrier = Op::Read(Arc::from(&b"-"[..]));
        self.link.ask(SessionId::NONE, None, barrier).await?;
        let mut all = true;
        let mut refusal = None;
        for call in calls {
            match call.answer_now() {
                Some(Ok(Reply::Message(message))) => self.messages.push(message),
                Some(Err(Fault::Refused(Refusal::Empty))) | Some(Ok(_)) | None => all = false,
                Some(Err(fault)) => refusal = Some(fault),
            }
        }
        match refusal {
            // What was taken before is still good, unless nothing is.
            Some(fault) if self.messages.is_empty() => Err(fault.into()),
            Some(_) => Ok(false),
            None => Ok(all),
        }
    }

    /// Gives each message a lease of its own; what was lost meanwhile is left out.
    async fn extend(&mut self, lease_us: u64) -> Result<()> {
        let mut calls = Vec::with_capacity(self.messages.len());
        for message in &self.messages {
            let mut call = self.link.prepare(self.session, Kind::Plain)?;
            call.send(None, Op::Extend(message.delivery.receipt, lease_us)).await?;
            calls.push(call);
        }
        let mut lost = Vec::new();
        for call in calls {
            match call.answer().await {
                Ok(_) => lost.push(false),
                Err(Fault::Refused(Refusal::StaleDelivery(_))) => lost.push(true),
                Err(fault) => return Err(fault.into()),
            }
        }
        let mut lost = lost.into_iter();
        self.messages.retain(|_| !lost.next().unwrap_or(false));
        Ok(())
    }

    fn hand_over(mut self) -> Result<Vec<Delivered>> {
        let convert = |message: &Received| convert::delivered(message, self.session);
        let delivered = self.messages.iter().map(convert).collect::<Result<_>>()?;
        self.messages.clear();
        Ok(delivered)
    }
}
