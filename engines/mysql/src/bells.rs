//! Bells: how waiters learn that somebody has gone.
//!
//! MySQL has no notification. What it has is a lock by name that its server gives to the next who
//! wants it, also when the connection that has it breaks: `GET_LOCK`. A contender *hangs a bell*
//! by taking such a lock; whoever waits for it asks for the same lock, gets it when the bell is
//! taken down, and gives it back at once. So a bell says "look again" and nothing else: who holds
//! what is in the entries, and a bell that was lost costs time only.
//!
//! All bells of a process hang on one connection. Who waits needs a connection of its own for as
//! long; there are a bounded number, and whoever gets none looks again after a pause. Bells of the
//! own process are heard without the server.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use leasehold_api::Result;
use leasehold_contenders::bell::Bell;
use leasehold_contenders::{Book, Change, Key, Seen, Watch};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::book::Entries;
use crate::connect::{Line, Server, cell, jittered};
use crate::error::Fault;
use crate::sql::{Sql, hash, hex};

/// How long a waiter sleeps that has no bell, or no connection to hear one on.
const LOOK: Duration = Duration::from_millis(100);
/// How long one that hears a bell sleeps before it looks: not every change rings it, such as a
/// release by an operator.
const GLANCE: Duration = Duration::from_secs(1);
/// Bells hung or taken down with one round trip.
const BATCH: usize = 64;
/// The bells' connection is used at least so often, so that a broken one is noticed; the server
/// closes it when it is silent for longer than twice that.
const SIGN: Duration = Duration::from_secs(10);
/// How long a bell may take to hang: without one the contender is looked for instead.
const HANGING: Duration = Duration::from_secs(2);

/// What the connection of the bells is to do.
enum Order {
    Hang(String, oneshot::Sender<()>),
    TakeDown(String),
}

/// The bells of one engine.
pub(crate) struct Bells {
    server: Arc<Server>,
    orders: mpsc::UnboundedSender<Order>,
    /// Those that hang here, and who listens to them in this process.
    own: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    /// Who waits in this process for a change of a key, or for a queue.
    doors: Mutex<HashMap<Vec<u8>, Door>>,
    /// Connections to hear bells on, and room for them.
    lines: Mutex<Vec<(Line, Instant)>>,
    room: Arc<Semaphore>,
}

struct Door {
    notify: Arc<Notify>,
    guests: usize,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a bell on the server: 51 characters, as names are limited to 64, and all lower
/// case, as the server does not tell the cases apart.
fn name(prefix: &str, database: &str, bell: &str) -> String {
    let parts = [database.as_bytes(), prefix.as_bytes(), bell.as_bytes()];
    format!("lh:{}", hex(&hash::<24>(&parts)))
}

fn door(key: &Key) -> Vec<u8> {
    let space = match key.space {
        leasehold_contenders::Space::Lock => 0,
        leasehold_contenders::Space::Register => 1,
    };
    [&[space], &key.name[..]].concat()
}

/// The door of a contender's bell.
fn bell_door(bell: &Bell) -> Vec<u8> {
    [&[3], bell.name().as_bytes()].concat()
}

/// The door of a queue.
pub(crate) fn queue_door(queue: u64) -> Vec<u8> {
    [&[2][..], &queue.to_le_bytes()].concat()
}

/// Polls a future once, so that it listens from now on; whether it is ready.
pub(crate) async fn is_ready<F: Future<Output = ()>>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Somebody who listens at doors; the doors close when nobody does.
pub(crate) struct Guest<'b> {
    bells: &'b Bells,
    doors: Vec<(Vec<u8>, Arc<Notify>)>,
}

impl Guest<'_> {
    /// Waits until somebody knocks at one of the doors.
    pub async fn knocked(&self) {
        let knocks = self.doors.iter().map(|(_, notify)| Box::pin(notify.notified()));
        let knocks: Vec<_> = knocks.collect();
        if knocks.is_empty() {
            std::future::pending::<()>().await;
        }
        futures_util::future::select_all(knocks).await;
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut doors = locked(&self.bells.doors);
        for (key, notify) in self.doors.drain(..) {
            if let Some(door) = doors.get_mut(&key)
                && Arc::ptr_eq(&door.notify, &notify)
            {
                door.guests -= 1;
                if door.guests == 0 {
                    doors.remove(&key);
                }
            }
        }
    }
}

impl Bells {
    /// The bells of an engine, and the task that hangs them; it ends with the last bell's engine.
    pub fn new(server: Arc<Server>) -> Arc<Self> {
        let (orders, ordered) = mpsc::unbounded_channel();
        let own: Arc<Mutex<HashMap<String, Arc<Notify>>>> = Arc::default();
        let room = Arc::new(Semaphore::new(server.config.waiters));
        tokio::spawn(ringer(server.clone(), own.clone(), ordered));
        let (doors, lines) = (Mutex::default(), Mutex::default());
        Arc::new(Self { server, orders, own, doors, lines, room })
    }

    fn name(&self, bell: &str) -> String {
        name(&self.server.config.prefix, &self.server.config.database, bell)
    }

    /// Hangs a bell. Without the server it hangs later: whoever waits looks meanwhile.
    pub async fn hang(&self, bell: &str) -> Result<()> {
        let name = self.name(bell);
        locked(&self.own).insert(name.clone(), Arc::default());
        let (tell, told) = oneshot::channel();
        // The task ends only with us.
        self.orders.send(Order::Hang(name, tell)).ok();
        timeout(HANGING, told).await.ok();
        Ok(())
    }

    /// Takes a bell down.
    pub fn take_down(&self, bell: &str) {
        let name = self.name(bell);
        if let Some(notify) = locked(&self.own).remove(&name) {
            notify.notify_waiters();
            self.orders.send(Order::TakeDown(name)).ok();
        }
    }

    /// Wakes who waits in this process for changes.
    pub fn changed(&self, changes: &[Change]) {
        for change in changes {
            if change.ring {
                self.knock(&door(&change.key));
            }
            change.bells.iter().for_each(|bell| self.knock(&bell_door(bell)));
        }
    }

    /// Wakes who waits in this process at a door.
    pub fn knock(&self, door: &[u8]) {
        if let Some(door) = locked(&self.doors).get(door) {
            door.notify.notify_waiters();
        }
    }

    /// Listens at doors.
    pub fn listen(&self, keys: Vec<Vec<u8>>) -> Guest<'_> {
        let mut doors = locked(&self.doors);
        let open = |key: Vec<u8>| {
            let door = doors.entry(key.clone());
            let door = door.or_insert_with(|| Door { notify: Arc::default(), guests: 0 });
            door.guests += 1;
            (key, door.notify.clone())
        };
        let opened = keys.into_iter().map(open).collect();
        drop(doors);
        Guest { bells: self, doors: opened }
    }

    /// Waits until there is something new, at most so long.
    pub async fn wait(
        &self,
        book: &Entries,
        watch: &Watch<'_>,
        at_most: Duration,
    ) -> Result<Option<Seen>> {
        let until = Instant::now().checked_add(at_most);
        let guest = self.listen(match &watch.bell {
            Some(bell) => vec![bell_door(bell)],
            None => watch.keys.iter().map(door).collect(),
        });
        let mut in_vain = false;
        loop {
            // It listens before it looks: `notified` counts from its first poll.
            let knocked = guest.knocked();
            tokio::pin!(knocked);
            if is_ready(knocked.as_mut()).await {
                return Ok(None);
            }
            let seen = book.read(watch.keys).await?;
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let slice = left.unwrap_or(GLANCE).min(GLANCE);
            if !(watch.same)(&seen) || slice.is_zero() {
                return Ok(Some(seen));
            }
            tokio::select! {
                () = knocked => return Ok(None),
                waited = self.hear(watch.going.as_deref(), slice, in_vain) => in_vain = !waited,
            }
        }
    }

    /// Waits until a bell rings, at most so long; whether it waited. A bell that is heard at once
    /// was taken down just now, or does not hang: the second time it is that, and not heard again
    /// before a pause.
    async fn hear(&self, bell: Option<&str>, at_most: Duration, in_vain: bool) -> bool {
        let Some(bell) = bell.filter(|_| !in_vain) else {
            sleep(at_most.min(LOOK)).await;
            return true;
        };
        let name = self.name(bell);
        let own = locked(&self.own).get(&name).cloned();
        let Some(notify) = own else { return self.hear_there(name, at_most).await };
        let notified = notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        // It may have been taken down just before.
        if locked(&self.own).contains_key(&name) {
            timeout(at_most, notified).await.ok();
        }
        true
    }

    /// Waits on the server; whether it could.
    async fn hear_there(&self, name: String, at_most: Duration) -> bool {
        let Ok(room) = self.room.clone().try_acquire_owned() else { return false };
        let kept = locked(&self.lines).pop().filter(|(_, since)| since.elapsed() < SIGN);
        let line = match kept {
            Some((line, _)) => line,
            None => match self.server.connect().await {
                Ok(line) => line,
                Err(error) => {
                    tracing::debug!(%error, "nothing to hear a bell on");
                    return false;
                }
            },
        };
        // Who is dropped leaves the connection to this task, which waits for a slice at most.
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let heard = hear_on(line, &name, at_most).await;
            drop(room);
            tell.send(heard).ok();
        });
        match told.await {
            Ok(Some((line, rang))) => {
                locked(&self.lines).push((line, Instant::now()));
                rang
            }
            _ => false,
        }
    }
}

/// Waits for a bell; the connection if it is good, and whether it waited.
async fn hear_on(mut line: Line, name: &str, at_most: Duration) -> Option<(Line, bool)> {
    let began = Instant::now();
    // MySQL counts in whole seconds.
    let sql = Sql::new("SELECT GET_LOCK(").bytes(name.as_bytes()).add(",1);DO RELEASE_LOCK(");
    let asking = line.ask(sql.bytes(name.as_bytes()).add(")"));
    let got = match timeout(at_most.max(GLANCE) + GLANCE, asking).await {
        Ok(Ok(mut answers)) => answers.row().and_then(|mut row| cell::<Option<u64>>(&mut row, 0)),
        Ok(Err(fault)) => Err(fault),
        Err(_) => {
            line.close().await;
            return None;
        }
    };
    match got {
        // Got at once: nobody has it, or it was taken down just now.
        Ok(got) => {
            let waited = got != Some(1) || began.elapsed() > Duration::from_millis(5);
            Some((line, waited))
        }
        Err(_) => {
            line.close().await;
            None
        }
    }
}

/// Hangs bells and takes them down, in the order they come, several with one round trip. When the
/// connection breaks all hang anew.
async fn ringer(
    server: Arc<Server>,
    own: Arc<Mutex<HashMap<String, Arc<Notify>>>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut line: Option<Line> = None;
    let mut pause = LOOK;
    loop {
        let mut batch = Vec::new();
        let nothing = locked(&own).is_empty();
        let coming = orders.recv_many(&mut batch, BATCH);
        let came = match (&line, nothing) {
            (None, true) => coming.await,
            (None, false) => timeout(jittered(pause), coming).await.unwrap_or(1),
            (Some(_), _) => timeout(SIGN, coming).await.unwrap_or(1),
        };
        if came == 0 {
            break;
        }
        let (mut hang, mut down, mut tell) = (Vec::new(), Vec::new(), Vec::new());
        for order in batch {
            match order {
                Order::Hang(name, hung) => {
                    hang.push(name);
                    tell.push(hung);
                }
                Order::TakeDown(name) => down.push(name),
            }
        }
        let hung = match line.as_mut() {
            Some(line) => ring(line, &hang, &down).await,
            None => Err(None),
        };
        if let Err(fault) = hung {
            if let Some(Fault::Lost(error) | Fault::Again(error) | Fault::Refused(error)) = fault {
                tracing::warn!(%error, "the bells fell; hanging them again");
            }
            if let Some(line) = line.take() {
                line.close().await;
            }
            let all: Vec<String> = locked(&own).keys().cloned().collect();
            match hang_all(&server, &all).await {
                Some(new) => (line, pause) = (Some(new), LOOK),
                None => pause = (pause * 2).min(GLANCE),
            }
        }
        for hung in tell {
            hung.send(()).ok();
        }
    }
    if let Some(line) = line {
        line.close().await;
    }
}

async fn hang_all(server: &Server, all: &[String]) -> Option<Line> {
    let mut line = server.connect().await.ok()?;
    for some in all.chunks(BATCH) {
        if ring(&mut line, some, &[]).await.is_err() {
            line.close().await;
            return None;
        }
    }
    Some(line)
}

/// Hangs some bells and takes some down.
async fn ring(
    line: &mut Line,
    hang: &[String],
    down: &[String],
) -> std::result::Result<(), Option<Fault>> {
    let sql = Sql::new("DO 0");
    let sql =
        hang.iter().fold(sql, |sql, name| sql.add(",GET_LOCK(").bytes(name.as_bytes()).add(",0)"));
    let sql = down
        .iter()
        .fold(sql, |sql, name| sql.add(",RELEASE_LOCK(").bytes(name.as_bytes()).add(")"));
    match timeout(SIGN, line.ask(sql)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(fault)) => Err(Some(fault)),
        Err(_) => Err(None),
    }
}
