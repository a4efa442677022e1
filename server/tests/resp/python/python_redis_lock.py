"""python-redis-lock, which waits with BLPOP on a list that the release pushes to."""

import redis
import redis_lock

from cases import PATIENCE, PORT, Waiter, fails, ok, restart, same, until

one = redis.Redis(port=PORT, socket_timeout=None)
two = redis.Redis(port=PORT, socket_timeout=None)


def lock(conn, name="prl", **options):
    return redis_lock.Lock(conn, name, **options)


mine, other = lock(one, expire=PATIENCE, id="one"), lock(two, expire=PATIENCE, id="two")
assert mine.acquire(blocking=False)
assert not other.acquire(blocking=False)
assert not other.acquire(timeout=1)
assert mine.locked() and other.locked()
same(other.get_owner_id(), "one")
ok("contention")
mine.extend(1000)
assert one.ttl("lock:prl") > PATIENCE
fails(redis_lock.NotAcquired, other.extend)
ok("extend")
fails(redis_lock.NotAcquired, other.release)
assert mine.locked()
ok("released by another stays held")
waiter = Waiter(lambda: other.acquire(timeout=PATIENCE))
until("it waits", lambda: any(other["cmd"] == "blpop" for other in one.client_list()))
mine.release()
assert waiter.result()
other.release()
ok("release wakes who waits")
short = lock(one, expire=1, id="short")
assert short.acquire()
# It learns of the end when its own BLPOP is over.
next_one = lock(two, expire=2, id="next")
assert next_one.acquire()
fails(redis_lock.NotAcquired, short.release)
next_one.release()
ok("expiry")
renewed = lock(one, "prl:renewed", expire=1, auto_renewal=True)
renewed.acquire()
blocked = lock(two, "prl:renewed", expire=PATIENCE)
assert not blocked.acquire(timeout=2)
renewed.release()
assert blocked.acquire(timeout=PATIENCE)
blocked.release()
ok("renewed by itself")
assert mine.acquire()
lock(two).reset()
assert other.acquire(blocking=False)
redis_lock.reset_all(two)
assert not mine.locked()
ok("reset")
assert mine.acquire()
restart()
until("it is reached again", one.ping)
assert not other.acquire(blocking=False)
fails(redis_lock.NotAcquired, other.release)
mine.extend(1000)
assert one.ttl("lock:prl") > PATIENCE
mine.release()
assert other.acquire(blocking=False)
other.release()
ok("after kill -9")
