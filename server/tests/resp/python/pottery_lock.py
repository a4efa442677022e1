"""pottery: Redlock, ids and a synchronized function over one server."""

import redis
from pottery import NextID, Redlock, ReleaseUnlockedLock, RedisDict, synchronize

from cases import PATIENCE, PORT, SHORT_MS, Waiter, fails, ok, restart, same

one, two = redis.Redis(port=PORT), redis.Redis(port=PORT)


def lock(conn, ttl=PATIENCE, key="pot"):
    return Redlock(key=key, masters={conn}, auto_release_time=ttl)


mine, other = lock(one), lock(two)
assert mine.acquire(blocking=False)
assert not other.acquire(blocking=False)
assert not other.locked()
assert 0 < mine.locked() <= PATIENCE
ok("contention")
mine.extend()
assert mine.locked()
ok("extend")
fails(ReleaseUnlockedLock, other.release)
assert mine.locked()
ok("released by another stays held")
waiter = Waiter(lambda: other.acquire(timeout=PATIENCE))
mine.release()
assert waiter.result()
other.release()
ok("release")
short = lock(one, SHORT_MS / 1000)
assert short.acquire()
assert other.acquire(timeout=PATIENCE)
fails(ReleaseUnlockedLock, short.release)
ok("expiry")
restart()
assert other.locked()
assert not mine.acquire(blocking=False)
other.release()
assert mine.acquire(blocking=False)
mine.release()
ok("after kill -9")
ids = NextID(key="pot:ids", masters={one})
same([next(ids) for _ in range(5)], [1, 2, 3, 4, 5])
ok("ids")
counts = RedisDict(redis=one, key="pot:dict")


@synchronize(key="pot:synchronized", masters={one}, auto_release_time=PATIENCE)
def add():
    counts["n"] = counts.get("n", 0) + 1


waiters = [Waiter(add) for _ in range(8)]
for waiter in waiters:
    waiter.result()
same(counts["n"], 8)
ok("a synchronized function")
