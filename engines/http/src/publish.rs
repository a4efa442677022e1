//! Publishing: messages with one target go together, in their order.
//!
//! Each message has a request id of its own, so a batch whose answer was lost is sent again and
//! none of it counts twice. A batch is bounded below what a door takes as one body; a long body of
//! bytes travels alone and as it is, because base64 would make it a third longer, too long for the
//! longest.

use bytes::Bytes;
use hyper::Method;
use hyper::header::HeaderValue;
use leasehold_api::engine::Publish;
use leasehold_api::{Due, Error, ErrorKind, Message, Published, Result, Target};
use leasehold_wire::message::{self, PublishResults, PublishToExchange, PublishToQueue};
use leasehold_wire::time::{ms, since_1970_ms};

use crate::acquire::{new_request, request_text};
use crate::ask::{Ask, Path};
use crate::{HttpEngine, is};

/// No batch is longer, but for a single message.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// No batch has more messages.
const BATCH_MESSAGES_MAX: usize = 4096;
/// Bodies of this length travel as they are, if everything else about them fits a query.
const RAW_BYTES_MIN: usize = 1 << 20;

fn asked(target: &Target) -> String {
    match target {
        Target::Queue(queue) => format!("publish to queue {queue}"),
        Target::Exchange(exchange, key) => {
            format!("publish to exchange {exchange} with key {key:?}")
        }
    }
}

/// About how long a message is in JSON.
fn weight(message: &Message) -> usize {
    let body = message.body.len();
    let body = if std::str::from_utf8(&message.body).is_ok() { body } else { body / 3 * 4 };
    let headers = message.headers.iter().map(|(name, value)| name.len() + header_bytes(value));
    body + headers.sum::<usize>() + 256
}

fn header_bytes(value: &leasehold_api::Value) -> usize {
    match value {
        leasehold_api::Value::Text(text) => text.len() + 8,
        leasehold_api::Value::Bytes(bytes) => bytes.len() / 3 * 4 + 24,
        _ => 24,
    }
}

/// Messages that are published with one request.
struct Batch {
    target: Target,
    mandatory: bool,
    messages: Vec<(Message, String)>,
    bytes: usize,
}

/// Puts neighbours with one target together.
fn batches(publishes: Vec<Publish>) -> Result<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    for publish in publishes {
        let Publish { target, message, mandatory, request } = publish;
        let request = request_text(request.map_or_else(new_request, Ok)?);
        let bytes = weight(&message);
        let fits = batches.last_mut().filter(|last| {
            last.target == target
                && last.mandatory == mandatory
                && last.bytes + bytes <= BATCH_BYTES_MAX
                && last.messages.len() < BATCH_MESSAGES_MAX
        });
        match fits {
            Some(last) => {
                last.bytes += bytes;
                last.messages.push((message, request));
            }
            None => {
                batches.push(Batch { target, mandatory, messages: vec![(message, request)], bytes })
            }
        }
    }
    Ok(batches)
}

impl Batch {
    fn ask(&self) -> Result<Ask> {
        let of = |(message, request): &(Message, String)| {
            message::Message::of(message, Some(request.clone()))
        };
        let messages = Some(self.messages.iter().map(of).collect());
        let asked = asked(&self.target);
        match &self.target {
            Target::Queue(queue) => {
                let path = Path::new("/v1/queues").name(&**queue).word("messages");
                let body = PublishToQueue { messages, ..PublishToQueue::default() };
                Ask::post(path.query("declare", false), &body, asked)
            }
            Target::Exchange(exchange, key) => {
                let path = Path::new("/v1/exchanges").name(&**exchange).word("messages");
                let (routing_key, mandatory) = (key.to_string(), self.mandatory);
                let body =
                    PublishToExchange { routing_key, mandatory, messages, ..Default::default() };
                Ask::post(path, &body, asked)
            }
        }
    }

    /// The request whose body is the message's, if that is worth it and says everything.
    fn raw(&mut self) -> Option<Ask> {
        let Target::Queue(queue) = &self.target else { return None };
        let [(message, request)] = &mut self.messages[..] else { return None };
        if message.body.len() < RAW_BYTES_MIN || !message.headers.is_empty() {
            return None;
        }
        let path = Path::new("/v1/queues").name(&**queue).word("messages");
        let path = path.query("declare", false).query("priority", message.priority);
        let path = path.query_if("id", message.id.as_ref());
        let path = path.query_if("key", message.key.as_ref());
        let path =
            path.query_if("ttl_ms", message.ttl.map(ms)).query("transient", message.transient);
        let path = match message.due {
            Due::Now => path,
            Due::After(delay) => path.query("delay_ms", ms(delay)),
            Due::At(at) => path.query("at_ms", since_1970_ms(at)),
        };
        let mut ask = Ask::new(Method::POST, path, asked(&self.target));
        ask.parcel.body = Bytes::from(std::mem::take(&mut message.body));
        ask.parcel.raw = Some(HeaderValue::from_str(request).ok());
        Some(ask)
    }
}

impl HttpEngine {
    async fn publish_batch(&self, mut batch: Batch) -> Result<Vec<Result<Published>>> {
        if let Some(raw) = batch.raw() {
            let published: Result<message::Published> = self.server.get(Ok(raw)).await;
            let published = published
                .map(|done| Published { queues: done.queues, duplicates: done.duplicates });
            return Ok(vec![published]);
        }
        let answer: PublishResults = self.server.get(batch.ask()).await?;
        if answer.results.len() != batch.messages.len() {
            let wrong = "the server answered another number of messages than it was sent";
            return Err(Error::new(ErrorKind::Broken, wrong).asking(asked(&batch.target)));
        }
        let asked = asked(&batch.target);
        let result = |one: message::PublishResult| {
            one.into_api().map_err(|error| error.asking(asked.clone()))
        };
        Ok(answer.results.into_iter().map(result).collect())
    }

    pub(crate) async fn published(
        &self,
        publishes: Vec<Publish>,
    ) -> Result<Vec<Result<Published>>> {
        let batches = batches(publishes)?;
        let (only, mut answers) = (batches.len() == 1, Vec::new());
        for batch in batches {
            let (count, mandatory) = (batch.messages.len(), batch.mandatory);
            let to_queue = matches!(batch.target, Target::Queue(_));
            let mut done = match self.publish_batch(batch).await {
                Ok(done) => done,
                Err(error) if only && is(&error, ErrorKind::Unavailable) => return Err(error),
                // Of the batches before it is known what became of them.
                Err(error) => vec![Err(error); count],
            };
            if to_queue && !mandatory {
                done.iter_mut().for_each(forgive);
            }
            answers.append(&mut done);
        }
        Ok(answers)
    }
}

/// The door always demands that a queue is there; one who does not is told that none took it.
fn forgive(answer: &mut Result<Published>) {
    if answer.as_ref().is_err_and(|error| is(error, ErrorKind::Unroutable)) {
        *answer = Ok(Published { queues: 0, duplicates: 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(to: &str, bytes: usize) -> Publish {
        let (target, message) = (Target::Queue(to.into()), Message::new(vec![b'x'; bytes]));
        Publish { target, message, mandatory: true, request: None }
    }

    #[test]
    fn neighbours_go_together_as_long_as_they_fit() {
        let big = BATCH_BYTES_MAX / 2;
        let all = vec![publish("a", 1), publish("a", 2), publish("b", 1), publish("a", big)];
        let mut all = all;
        all.extend([publish("a", big), publish("a", 3 * big)]);
        let counts: Vec<usize> = batches(all).unwrap().iter().map(|b| b.messages.len()).collect();
        assert_eq!(counts, [2, 1, 1, 1, 1]);
    }

    #[test]
    fn a_long_body_travels_as_it_is() {
        let mut one = publish("a/b", RAW_BYTES_MIN);
        one.message.id = Some("x y".to_owned());
        let mut batch = batches(vec![one]).unwrap().remove(0);
        let ask = batch.raw().unwrap();
        assert_eq!(ask.parcel.body.len(), RAW_BYTES_MIN);
        assert!(ask.parcel.path.starts_with("/v1/queues/a%2Fb/messages?declare=false"));
        assert!(ask.parcel.path.contains("&id=x%20y"), "{}", ask.parcel.path);
        assert!(batches(vec![publish("a", 10)]).unwrap().remove(0).raw().is_none());
    }
}
