//! Registers: versioned values with compare-and-set.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use leasehold_api::ErrorKind;
use leasehold_users::Permission::{Admin, Lock};
use leasehold_wire::lock::{List, Watch};
use leasehold_wire::register::{
    DeleteRegister, DeleteRegisterQuery, Register, Registers, Watched, WriteRegister, Written,
};
use leasehold_wire::time::duration;

use crate::ask::{Asked, Key, Said, Whole, json};
use crate::caller::Caller;
use crate::door::Door;
use crate::refusal::{Answer, Missing, Races, Refusal, Refusals, asking};

/// Read a register
#[utoipa::path(
    get, path = "/v1/registers/{key}", tag = "registers",
    params(("key" = String, Path, description = "The key, any bytes; percent-encoded.")),
    responses((status = 200, body = Register), Refusals, Missing)
)]
pub(crate) async fn read_register(
    State(door): State<Arc<Door>>,
    caller: Caller,
    key: Key,
) -> Answer<Register> {
    let name = key.name();
    caller.may(Lock, &name)?;
    let found = door.locks()?.read(&key.0).await.map_err(asking("read register", &name))?;
    let none = || Refusal::new(ErrorKind::NotFound, "the register has no value");
    found
        .map(|register| Json(register.into()))
        .ok_or_else(none)
        .map_err(asking("read register", &name))
}

/// Write a register
///
/// With `expect` it is a compare-and-set; with `guard` a late holder of a lock is refused.
#[utoipa::path(
    put, path = "/v1/registers/{key}", tag = "registers", request_body = WriteRegister,
    params(("key" = String, Path, description = "The key, any bytes; percent-encoded.")),
    responses((status = 200, body = Written), Refusals, Races)
)]
pub(crate) async fn write_register(
    State(door): State<Arc<Door>>,
    caller: Caller,
    key: Key,
    Said(said): Said<WriteRegister>,
) -> Answer<Written> {
    let name = key.name();
    caller.may(Lock, &name)?;
    let request = caller.request(said.request_id.as_deref())?;
    let write = said.into_api(key.0, request)?;
    let version = door.locks()?.write(&write).await.map_err(asking("write register", &name))?;
    Ok(Json(Written { version }))
}

/// Delete a register
///
/// What is expected may be said in the query or in a body, not in both.
#[utoipa::path(
    delete, path = "/v1/registers/{key}", tag = "registers",
    request_body = Option<DeleteRegister>,
    params(
        ("key" = String, Path, description = "The key, any bytes; percent-encoded."),
        DeleteRegisterQuery
    ),
    responses((status = 200, body = Written), Refusals, Races)
)]
pub(crate) async fn delete_register(
    State(door): State<Arc<Door>>,
    caller: Caller,
    key: Key,
    Asked(query): Asked<DeleteRegisterQuery>,
    Whole(body): Whole,
) -> Answer<Written> {
    let name = key.name();
    caller.may(Lock, &name)?;
    let said = match body.is_empty() {
        true => query.into_body()?,
        false if query == DeleteRegisterQuery::default() => json::<DeleteRegister>(&body)?,
        false => return Err(Refusal::invalid("say it in the query or in the body, not in both")),
    };
    let request = caller.request(said.request_id.as_deref())?;
    let write = said.into_api(key.0, request);
    let version = door.locks()?.write(&write).await.map_err(asking("delete register", &name))?;
    Ok(Json(Written { version }))
}

/// List registers
#[utoipa::path(
    get, path = "/v1/registers", tag = "registers", params(List),
    responses((status = 200, body = Registers), Refusals)
)]
pub(crate) async fn list_registers(
    State(door): State<Arc<Door>>,
    caller: Caller,
    Asked(list): Asked<List>,
) -> Answer<Registers> {
    caller.may_all(Admin, &list.prefix)?;
    let some = door.locks()?.list_registers(&list.into_api()).await;
    let some = some.map_err(asking("list registers", ""))?;
    Ok(Json(Registers { items: some.items.into_iter().map(Into::into).collect(), next: some.next }))
}

/// Wait until a register has another version
///
/// Answers when its version is not `known` any more, or after `wait_ms`, with the register as it
/// is then.
#[utoipa::path(
    get, path = "/v1/registers/{key}/watch", tag = "registers",
    params(("key" = String, Path, description = "The key, any bytes; percent-encoded."), Watch),
    responses((status = 200, body = Watched), Refusals)
)]
pub(crate) async fn watch_register(
    State(door): State<Arc<Door>>,
    caller: Caller,
    key: Key,
    Asked(watch): Asked<Watch>,
) -> Answer<Watched> {
    let name = key.name();
    caller.may(Lock, &name)?;
    let change = door.locks()?.watch_register(&key.0, watch.known, duration(watch.wait_ms));
    let found = door.patient(watch.wait_ms, change).await;
    let found = found.map_err(asking("watch register", &name))?;
    Ok(Json(Watched { register: found.map(Into::into) }))
}
