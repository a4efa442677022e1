"""redis-py: its lock, its pipelines, transactions and subscriptions, in both protocols."""

import asyncio
import sys

import redis
import redis.asyncio
from redis.exceptions import LockError, LockNotOwnedError, NoScriptError, ResponseError, WatchError

from cases import PATIENCE, PORT, SHORT_MS, Waiter, fails, ok, restart, same, until

PROTOCOL = int(sys.argv[1])
UNLOCK = """
if redis.call("get", KEYS[1]) == ARGV[1] then
    return redis.call("del", KEYS[1])
else
    return 0
end
"""


def client(**options):
    return redis.Redis(port=PORT, protocol=PROTOCOL, decode_responses=True, **options)


def lock():
    one, two = client(), client()
    mine = one.lock("py:lock", timeout=PATIENCE)
    other = two.lock("py:lock", timeout=PATIENCE, thread_local=False)
    assert mine.acquire(blocking=False)
    assert mine.locked() and mine.owned() and not other.owned()
    assert not other.acquire(blocking=False)
    assert not other.acquire(blocking_timeout=0.05)
    ok("lock: contention")
    assert mine.extend(1000, replace_ttl=True)
    assert one.pttl("py:lock") > PATIENCE * 1000
    assert mine.reacquire()
    assert one.pttl("py:lock") <= PATIENCE * 1000
    ok("lock: extend and reacquire")
    other.local.token = b"somebody else"
    fails(LockNotOwnedError, other.release)
    other.local.token = None
    fails(LockError, other.release)
    assert mine.owned()
    ok("lock: released by another stays held")
    waiter = Waiter(lambda: other.acquire(blocking_timeout=PATIENCE))
    mine.release()
    assert waiter.result() and other.owned()
    other.release()
    same(one.exists("py:lock"), 0)
    ok("lock: release lets the next one in")
    short = one.lock("py:lock", timeout=SHORT_MS / 1000)
    assert short.acquire()
    assert other.acquire(blocking_timeout=PATIENCE)
    fails(LockNotOwnedError, lambda: short.extend(5))
    fails(LockNotOwnedError, short.release)
    assert other.owned()
    other.release()
    ok("lock: expiry")
    with one.lock("py:with", timeout=PATIENCE, blocking_timeout=PATIENCE) as held:
        assert held.owned()
    same(one.exists("py:with"), 0)
    ok("lock: as a context")


def naive():
    one, two = client(), client()
    assert one.setnx("py:naive", "one")
    assert one.expire("py:naive", PATIENCE)
    assert not two.setnx("py:naive", "two")
    assert 0 < two.ttl("py:naive") <= PATIENCE
    assert one.pexpire("py:naive", 1)
    until("the naive lock ends", lambda: two.setnx("py:naive", "two"))
    same(one.get("py:naive"), "two")
    same(one.ttl("py:naive"), -1)
    one.delete("py:naive")
    ok("naive: SETNX and EXPIRE")


def compare_and_delete():
    one, two = client(), client()
    assert one.set("py:cad", "mine", nx=True, px=PATIENCE * 1000)
    same(two.set("py:cad", "theirs", nx=True, px=PATIENCE * 1000), None)
    same(two.eval(UNLOCK, 1, "py:cad", "theirs"), 0)
    same(one.eval(UNLOCK, 1, "py:cad", "mine"), 1)
    same(one.get("py:cad"), None)
    ok("SET NX PX and EVAL")
    one.script_flush()
    script = one.register_script(UNLOCK)
    fails(NoScriptError, lambda: one.evalsha(script.sha, 1, "py:cad", "mine"))
    assert one.set("py:cad", "mine", nx=True, px=PATIENCE * 1000)
    same(script(keys=["py:cad"], args=["theirs"]), 0)
    same(script(keys=["py:cad"], args=["mine"]), 1)
    same(one.script_exists(script.sha), [True])
    ok("EVALSHA after NOSCRIPT")


def pipelines():
    one = client()
    with one.pipeline(transaction=False) as pipe:
        for i in range(10_000):
            pipe.set(f"py:pipe:{i}", i)
        assert all(pipe.execute())
        for i in range(10_000):
            pipe.get(f"py:pipe:{i}")
        same(pipe.execute(), [str(i) for i in range(10_000)])
        for i in range(10_000):
            pipe.delete(f"py:pipe:{i}")
        same(sum(pipe.execute()), 10_000)
    ok("pipelines of 10,000")
    with one.pipeline(transaction=True) as pipe:
        for i in range(10_000):
            pipe.incr("py:pipe:count")
        same(pipe.execute()[-1], 10_000)
    one.delete("py:pipe:count")
    ok("a transaction of 10,000")


def transactions():
    one, two = client(), client()
    one.set("py:watched", 1)
    with one.pipeline() as pipe:
        pipe.watch("py:watched")
        two.set("py:watched", 2)
        pipe.multi()
        pipe.set("py:watched", 3)
        fails(WatchError, pipe.execute)
    same(one.get("py:watched"), "2")
    with one.pipeline() as pipe:
        pipe.watch("py:watched")
        value = int(pipe.get("py:watched"))
        pipe.multi()
        pipe.set("py:watched", value + 1).lpush("py:watched", "wrong").get("py:watched")
        same([type(part) for part in pipe.execute(raise_on_error=False)], [bool, ResponseError, str])
    same(one.get("py:watched"), "3")
    one.set("py:gone", 1)
    with one.pipeline() as pipe:
        pipe.watch("py:gone")
        two.delete("py:gone")
        two.set("py:gone", 1)
        pipe.multi()
        pipe.set("py:gone", 1)
        fails(WatchError, pipe.execute)
    one.execute_command("MULTI")
    fails(ResponseError, lambda: one.execute_command("NOTHING"))
    ok("MULTI, EXEC, WATCH")


def listening():
    one, two = client(), client()
    sub = two.pubsub()
    sub.subscribe("py:news")
    sub.psubscribe("py:n*", "py:[xyz]?")
    begun = [sub.get_message(timeout=PATIENCE)["type"] for _ in range(3)]
    same(begun, ["subscribe", "psubscribe", "psubscribe"])
    same(one.publish("py:news", "hello"), 2)
    got = [sub.get_message(timeout=PATIENCE) for _ in range(2)]
    same([(m["type"], m["pattern"], m["channel"], m["data"]) for m in got],
         [("message", None, "py:news", "hello"), ("pmessage", "py:n*", "py:news", "hello")])
    same(one.publish("py:x1", "two"), 1)
    same(sub.get_message(timeout=PATIENCE)["pattern"], "py:[xyz]?")
    same(one.publish("py:q", "none"), 0)
    same(one.pubsub_numsub("py:news"), [("py:news", 1)])
    sub.unsubscribe()
    sub.punsubscribe()
    for _ in range(3):
        assert "unsubscribe" in sub.get_message(timeout=PATIENCE)["type"]
    same(one.publish("py:news", "gone"), 0)
    sub.close()
    ok("channels and patterns")


def databases():
    zero, five = client(), client(db=5)
    zero.set("py:where", "zero")
    same(five.get("py:where"), None)
    five.set("py:where", "five")
    same(zero.get("py:where"), "zero")
    mine, other = zero.lock("py:each", timeout=PATIENCE), five.lock("py:each", timeout=PATIENCE)
    assert mine.acquire(blocking=False) and other.acquire(blocking=False)
    mine.release()
    assert other.owned()
    other.release()
    same(five.dbsize(), 1)
    assert five.flushdb()
    same((zero.get("py:where"), five.dbsize()), ("zero", 0))
    fails(ResponseError, lambda: zero.execute_command("SELECT", 16), "out of range")
    ok("SELECT")


def large():
    one = redis.Redis(port=PORT, protocol=PROTOCOL)
    most = 1 << 20
    body = bytes(range(256)) * (most // 256)
    assert one.set("py:large", body)
    assert one.get("py:large") == body
    ok("a value of 1 MiB")
    fails(ResponseError, lambda: one.set("py:large", body + b"x"), "at most 1048576")
    fails(ResponseError, lambda: one.append("py:large", b"x"))
    fails(ResponseError, lambda: one.setrange("py:large", most, b"x"))
    fails(ResponseError, lambda: one.setbit("py:large", 8 * most, 1))
    assert one.get("py:large") == body
    request = int(one.config_get("proto-max-bulk-len")["proto-max-bulk-len"])
    fails((ResponseError, redis.ConnectionError), lambda: one.set("py:large", bytes(request + 1)))
    assert one.get("py:large") == body
    one.delete("py:large")
    ok("a larger one is refused")
    lists = [b"y" * 1000] * 1000
    one.rpush("py:many", *lists)
    same(one.lrange("py:many", 0, -1), lists)
    one.delete("py:many")
    ok("a list of 1,000 elements")


def killed():
    one = client()
    lock = one.lock("py:kept", timeout=1000)
    assert lock.acquire()
    other = client().lock("py:kept", timeout=1000)
    short = one.lock("py:kept:short", timeout=2)
    assert short.acquire()
    restart()
    assert not other.acquire(blocking=False)
    assert lock.owned()
    assert 1 <= one.ttl("py:kept") <= 1000
    other.local.token = b"somebody else"
    fails(LockNotOwnedError, other.release)
    assert lock.extend(1)
    lock.release()
    assert other.acquire(blocking=False)
    other.release()
    until("the short one ends", lambda: one.exists("py:kept:short") == 0)
    ok("lock: after kill -9")


async def asynchronous():
    one = redis.asyncio.Redis(port=PORT, protocol=PROTOCOL)
    two = redis.asyncio.Redis(port=PORT, protocol=PROTOCOL)
    mine, other = one.lock("py:async", timeout=PATIENCE), two.lock("py:async", timeout=PATIENCE)
    assert await mine.acquire(blocking=False)
    assert not await other.acquire(blocking=False)
    assert await mine.extend(1000)
    assert await mine.owned() and not await other.owned()
    waiter = asyncio.create_task(other.acquire(blocking_timeout=PATIENCE))
    await mine.release()
    assert await waiter
    try:
        mine.local.token = b"somebody else"
        await mine.release()
        raise AssertionError("released by another")
    except LockNotOwnedError:
        pass
    assert await other.owned()
    await other.release()
    short = one.lock("py:async", timeout=SHORT_MS / 1000)
    assert await short.acquire()
    assert await other.acquire(blocking_timeout=PATIENCE)
    ok("asyncio: lock")
    restart()
    assert await other.owned()
    assert not await mine.acquire(blocking=False)
    await other.release()
    assert await mine.acquire(blocking=False)
    await mine.release()
    ok("asyncio: lock after kill -9")
    tasks = [asyncio.create_task(contend(one)) for _ in range(20)]
    await asyncio.gather(*tasks)
    same(int(await one.get("py:async:count")), 20)
    await one.delete("py:async:count")
    await one.aclose()
    await two.aclose()
    ok("asyncio: twenty take turns")


async def contend(one):
    async with one.lock("py:async:turns", timeout=PATIENCE, sleep=0.005):
        value = int(await one.get("py:async:count") or 0)
        await asyncio.sleep(0)
        await one.set("py:async:count", value + 1)


for part in [lock, naive, compare_and_delete, pipelines, transactions, listening, databases]:
    part()
large()
killed()
asyncio.run(asynchronous())
