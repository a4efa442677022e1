"""Users: AUTH, HELLO with AUTH, and names that a user may not touch."""

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from cases import PATIENCE, PORT, fails, ok, same


def client(user=None, password=None, protocol=2):
    return redis.Redis(port=PORT, username=user, password=password, protocol=protocol,
                       decode_responses=True)


for protocol in [2, 3]:
    fails(AuthenticationError, client(protocol=protocol).ping)
    fails(AuthenticationError, client("ada", "wrong", protocol).ping)
    fails(AuthenticationError, client("nobody", "secret of ada", protocol).ping)
    ok(f"strangers stay outside, RESP{protocol}")
    one = client("ada", "secret of ada", protocol)
    lock = one.lock("ada:lock", timeout=PATIENCE)
    assert lock.acquire(blocking=False)
    lock.release()
    same(one.acl_whoami(), "ada")
    ok(f"a user locks what it may, RESP{protocol}")
    for ask in [
        lambda: one.get("eve:lock"),
        lambda: one.set("eve:lock", 1, nx=True),
        lambda: one.mset({"ada:one": 1, "eve:two": 2}),
        lambda: one.eval("return redis.call('get', KEYS[1])", 1, "eve:lock"),
        lambda: one.publish("eve:news", "hello"),
        lambda: one.keys("*"),
        one.flushall,
        lambda: one.execute_command("LEASE.ACQUIRE", "eve:lock", "me", "PX", 1000),
        lambda: one.execute_command("QUEUE.PUBLISH", "eve:queue", "body"),
    ]:
        fails(NoPermissionError, ask, "no permissions")
    ok(f"NOPERM on other names, RESP{protocol}")
    for key in ["redis.call('set', 'eve:hidden', 1)", "redis.pcall('get', 'eve:hidden')['x']()"]:
        fails(ResponseError, lambda: one.eval(key, 0))
    with one.pipeline() as pipe:
        pipe.set("ada:multi", 1)
        pipe.get("eve:multi")
        fails(ResponseError, pipe.execute)
    same(one.get("ada:multi"), None)
    pick = client("ada", "secret of ada", protocol)
    pick.select(3)
    fails(NoPermissionError, lambda: pick.get("ada:lock"))
    ok(f"no way around by scripts, transactions or SELECT, RESP{protocol}")
all_of_it = client("root", "secret of root")
assert all_of_it.set("eve:lock", 1, nx=True)
same(all_of_it.keys("*"), ["eve:lock"])
assert all_of_it.flushall()
ok("a user without bounds")
