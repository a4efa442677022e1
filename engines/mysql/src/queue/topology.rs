//! Queues, exchanges and bindings: declared, found again, and taken away.

use std::collections::BTreeSet;
use std::sync::Arc;

use leasehold_api::engine::Binding;
use leasehold_api::{Destination, Error, ErrorKind, ExchangeConfig, QueueConfig, Result};
use leasehold_contenders::limits;

use crate::connect::{Repeat, cell};
use crate::error::Fault;
use crate::queue::Queues;
use crate::queue::route::{kind, kind_number, no_exchange};
use crate::queue::settings::{
    check_config, difference, name, read_config, size, write_config, write_headers,
};
use crate::queue::tx::{Tx, known, no_queue};
use crate::sql::{Sql, hash};

/// Length of a binding's arguments, bytes.
const ARGUMENTS_BYTES: usize = 64 << 10;

fn different(what: &str, name: &str, setting: &str) -> Error {
    let wrong = format!(
        "{what} {name} exists with another {setting}; declare it as it is, or \
                         delete it first"
    );
    Error::new(ErrorKind::Different, wrong)
}

impl Queues {
    /// Makes a queue or finds it; gives whether it existed.
    pub async fn declare(self: &Arc<Self>, queue: &str, config: &QueueConfig) -> Result<bool> {
        name("queue", queue)?;
        check_config(config)?;
        self.keep_up();
        let this = (queue.to_owned(), config.clone());
        self.tx(Repeat::Freely, move |tx| {
            let (queue, config) = this.clone();
            Box::pin(async move {
                let find = tx.sql("SELECT config FROM {}queues WHERE name=");
                let find = find.bytes(queue.as_bytes());
                let found = tx.ask(find).await?.rows()?.into_iter().next();
                let Some(mut row) = found else {
                    // One that comes in between is an error, and the transaction begins anew.
                    let sql = tx.sql("INSERT INTO {}queues (name,paused,config) VALUES (");
                    let sql = sql.bytes(queue.as_bytes()).add(",0,").bytes(&write_config(&config));
                    tx.last(sql.add(");")).await?;
                    return Ok(false);
                };
                match difference(&read_config(&cell::<Vec<u8>>(&mut row, 0)?)?, &config) {
                    Some(setting) => Err(different("queue", &queue, setting).into()),
                    None => Ok(true),
                }
            })
        })
        .await
    }

    /// Removes a queue; gives how many messages went with it.
    pub async fn delete(
        self: &Arc<Self>,
        queue: &str,
        if_unused: bool,
        if_empty: bool,
    ) -> Result<u64> {
        name("queue", queue)?;
        let this = (self.clone(), queue.to_owned());
        let done = self.tx(Repeat::Never, move |tx| {
            let (queues, queue) = this.clone();
            Box::pin(async move {
                let sql = tx.sql("SELECT id,name,config FROM {}queues WHERE name=");
                let sql = sql.bytes(queue.as_bytes()).add(" FOR UPDATE");
                let found = tx.ask(sql).await?.rows()?.into_iter().next();
                let mut row = found.ok_or_else(|| no_queue(&queue))?;
                let id = known(&mut row)?.id;
                let sql = tx.sql("SELECT COUNT(*) FROM {}consumers WHERE until>@n AND queue=");
                let sql = sql.number(id).and(tx.sql(
                    ";SELECT COALESCE(CAST(SUM(messages) AS SIGNED),0) FROM {}sums WHERE queue=",
                ));
                let mut answers = tx.ask(sql.number(id)).await?;
                let consumers: u64 = cell(&mut answers.row()?, 0)?;
                let messages: i64 = cell(&mut answers.row()?, 0)?;
                if if_unused && consumers > 0 {
                    let wrong = format!("queue {queue} has {consumers} consumers");
                    return Err(Error::new(ErrorKind::InUse, wrong).into());
                }
                if if_empty && messages > 0 {
                    let wrong = format!("queue {queue} has {messages} messages");
                    return Err(Error::new(ErrorKind::InUse, wrong).into());
                }
                queues.delete_in(tx, id).await?;
                Ok(messages.max(0).cast_unsigned())
            })
        });
        let messages = done.await?;
        self.forget(queue);
        self.sweep();
        Ok(messages)
    }

    /// Removes a queue that is locked, with all that leads to it. Its messages follow later.
    pub async fn delete_in(&self, tx: &mut Tx<'_>, queue: u64) -> std::result::Result<(), Fault> {
        let sql = tx.sql(
            "SELECT DISTINCT b.exchange FROM {}bindings b JOIN {}exchanges e ON \
                          e.id=b.exchange WHERE e.auto_delete=1 AND b.to_queue=",
        );
        let losing = exchanges(tx, sql.number(queue)).await?;
        for table in [
            "queues WHERE id=",
            "bindings WHERE to_queue=",
            "keys WHERE queue=",
            "sums WHERE queue=",
            "ids WHERE queue=",
            "consumers WHERE queue=",
        ] {
            let sql = tx.sql(&format!("DELETE FROM {{}}{table}")).number(queue).add(";");
            tx.put(sql).await?;
        }
        tx.put(tx.sql("INSERT IGNORE INTO {}doomed VALUES (").number(queue).add(");")).await?;
        tx.woken.insert(queue);
        fall(tx, losing).await
    }

    /// Makes an exchange or finds it.
    pub async fn exchange(self: &Arc<Self>, called: &str, config: &ExchangeConfig) -> Result<()> {
        name("exchange", called)?;
        let this = (called.to_owned(), *config);
        self.tx(Repeat::Freely, move |tx| {
            let (called, config) = this.clone();
            Box::pin(async move {
                let find = tx.sql(
                    "SELECT kind,durable,auto_delete,internal FROM {}exchanges \
                                   WHERE name=",
                );
                let found = tx.ask(find.bytes(called.as_bytes())).await?.rows()?.into_iter().next();
                let Some(mut row) = found else {
                    let sql = tx.sql(
                        "INSERT INTO {}exchanges (name,kind,durable,auto_delete,\
                                      internal) VALUES (",
                    );
                    let sql =
                        sql.bytes(called.as_bytes()).add(",").number(kind_number(config.kind));
                    let flags = [config.durable, config.auto_delete, config.internal];
                    let sql =
                        flags.iter().fold(sql, |sql, flag| sql.add(",").number(u8::from(*flag)));
                    tx.last(sql.add(");")).await?;
                    return Ok(());
                };
                let flag = |row: &mut _, at| Ok::<_, Fault>(cell::<u8>(row, at)? == 1);
                let settings = [
                    ("kind", kind(cell(&mut row, 0)?) == config.kind),
                    ("durable", flag(&mut row, 1)? == config.durable),
                    ("auto_delete", flag(&mut row, 2)? == config.auto_delete),
                    ("internal", flag(&mut row, 3)? == config.internal),
                ];
                match settings.iter().find(|(_, same)| !same) {
                    Some((setting, _)) => Err(different("exchange", &called, setting).into()),
                    None => Ok(()),
                }
            })
        })
        .await
    }

    /// Removes an exchange.
    pub async fn delete_exchange(self: &Arc<Self>, called: &str, if_unused: bool) -> Result<()> {
        name("exchange", called)?;
        let called = called.to_owned();
        self.tx(Repeat::Never, move |tx| {
            let called = called.clone();
            Box::pin(async move {
                let sql = tx.sql("SELECT id FROM {}exchanges WHERE name=");
                let sql = sql.bytes(called.as_bytes()).add(" FOR UPDATE");
                let found = tx.ask(sql).await?.rows()?.into_iter().next();
                let id: u64 = cell(&mut found.ok_or_else(|| no_exchange(&called))?, 0)?;
                let sql = tx.sql("SELECT COUNT(*) FROM {}bindings WHERE exchange=").number(id);
                let bindings: u64 = cell(&mut tx.ask(sql).await?.row()?, 0)?;
                if if_unused && bindings > 0 {
                    let wrong = format!("exchange {called} has {bindings} bindings");
                    return Err(Error::new(ErrorKind::InUse, wrong).into());
                }
                let losing = remove_exchange(tx, id).await?;
                fall(tx, losing).await
            })
        })
        .await
    }

    /// Binds, or takes a binding back.
    pub async fn binding(self: &Arc<Self>, binding: &Binding, bind: bool) -> Result<()> {
        let Binding { exchange, to, key, .. } = binding;
        name("exchange", exchange)?;
        match to {
            Destination::Queue(queue) => name("queue", queue)?,
            Destination::Exchange(other) => name("exchange", other)?,
        }
        size("the routing key's length", key.len(), limits::NAME_BYTES)?;
        let arguments = write_headers(&binding.arguments);
        size("the size of the arguments", arguments.len(), ARGUMENTS_BYTES)?;
        let this = (binding.clone(), arguments);
        let repeat = if bind { Repeat::Freely } else { Repeat::Never };
        self.tx(repeat, move |tx| {
            let (binding, arguments) = this.clone();
            Box::pin(async move { binding_in(tx, &binding, &arguments, bind).await })
        })
        .await
    }
}

async fn exchanges(tx: &mut Tx<'_>, sql: Sql) -> std::result::Result<BTreeSet<u64>, Fault> {
    let rows = tx.ask(sql).await?.rows()?.into_iter();
    rows.map(|mut row| cell(&mut row, 0)).collect()
}

/// Removes an exchange and its bindings; gives the auto-delete ones that led to it.
async fn remove_exchange(tx: &mut Tx<'_>, id: u64) -> std::result::Result<BTreeSet<u64>, Fault> {
    let sql = tx.sql(
        "SELECT DISTINCT b.exchange FROM {}bindings b JOIN {}exchanges e ON \
                      e.id=b.exchange WHERE e.auto_delete=1 AND b.to_exchange=",
    );
    let losing = exchanges(tx, sql.number(id)).await?;
    let sql = tx.sql("DELETE FROM {}bindings WHERE exchange=").number(id);
    let sql = sql.add(" OR to_exchange=").number(id).add(";");
    let sql = sql.and(tx.sql("DELETE FROM {}exchanges WHERE id=")).number(id).add(";");
    tx.put(sql).await?;
    Ok(losing)
}

/// Removes those auto-delete exchanges that have no binding left, and what falls with them.
async fn fall(tx: &mut Tx<'_>, mut losing: BTreeSet<u64>) -> std::result::Result<(), Fault> {
    while let Some(id) = losing.pop_first() {
        let sql = tx.sql(
            "SELECT COUNT(*) FROM {}exchanges e WHERE e.auto_delete=1 AND NOT \
                          EXISTS(SELECT 1 FROM {}bindings b WHERE b.exchange=e.id) AND e.id=",
        );
        if cell::<u64>(&mut tx.ask(sql.number(id)).await?.row()?, 0)? == 1 {
            losing.extend(remove_exchange(tx, id).await?);
        }
    }
    Ok(())
}

async fn binding_in(
    tx: &mut Tx<'_>,
    binding: &Binding,
    arguments: &[u8],
    bind: bool,
) -> std::result::Result<(), Fault> {
    let (column, table, to) = match &binding.to {
        Destination::Queue(queue) => ("to_queue", "queues", queue),
        Destination::Exchange(other) => ("to_exchange", "exchanges", other),
    };
    let find = |tx: &Tx<'_>, table: &str, name: &str| {
        let sql = tx.sql(&format!("SELECT id FROM {{}}{table} WHERE name="));
        sql.bytes(name.as_bytes()).add(" LOCK IN SHARE MODE;")
    };
    let sql = find(tx, "exchanges", &binding.exchange).and(find(tx, table, to));
    let mut answers = tx.ask(sql).await?;
    let found = answers.rows()?.into_iter().next();
    let exchange: u64 = cell(&mut found.ok_or_else(|| no_exchange(&binding.exchange))?, 0)?;
    let found = answers.rows()?.into_iter().next();
    let none = || match &binding.to {
        Destination::Queue(queue) => no_queue(queue),
        Destination::Exchange(other) => no_exchange(other),
    };
    let to: u64 = cell(&mut found.ok_or_else(none)?, 0)?;
    let all = u8::from(binding.match_all);
    let same: [u8; 16] =
        hash(&[column.as_bytes(), &to.to_le_bytes(), binding.key.as_bytes(), arguments, &[all]]);
    if bind {
        let sql = tx.sql(&format!(
            "INSERT IGNORE INTO {{}}bindings (exchange,same,{column},\
                                   routing,arguments,match_all) VALUES ("
        ));
        let sql = sql.number(exchange).add(",").bytes(&same).add(",").number(to).add(",");
        let sql = sql.bytes(binding.key.as_bytes()).add(",").bytes(arguments).add(",");
        return tx.put(sql.number(all).add(");")).await;
    }
    let sql = tx.sql("DELETE FROM {}bindings WHERE exchange=").number(exchange);
    let sql = sql.add(" AND same=").bytes(&same).add(";SELECT ROW_COUNT();");
    if cell::<i64>(&mut tx.ask(sql).await?.row()?, 0)? == 0 {
        let wrong = format!("there is no such binding of exchange {}", binding.exchange);
        return Err(Error::new(ErrorKind::NotFound, wrong).into());
    }
    fall(tx, BTreeSet::from([exchange])).await
}
