"""redlock-py over one server."""

from redlock import Redlock

from cases import PATIENCE, PORT, SHORT_MS, ok, restart, until

one = Redlock([{"host": "127.0.0.1", "port": PORT}], retry_count=1)
two = Redlock([{"host": "127.0.0.1", "port": PORT}], retry_count=1)
held = one.lock("rl", PATIENCE * 1000)
assert held and not two.lock("rl", PATIENCE * 1000)
ok("contention")
two.unlock(held._replace(key="somebody else"))
assert not two.lock("rl", PATIENCE * 1000)
ok("released by another stays held")
one.unlock(held)
held = two.lock("rl", SHORT_MS)
assert held
ok("release")
until("it expires", lambda: one.lock("rl", PATIENCE * 1000))
two.unlock(held)
assert not two.lock("rl", PATIENCE * 1000)
ok("expiry")
held = one.lock("rl:kept", PATIENCE * 1000)
assert held
restart()
assert not two.lock("rl:kept", PATIENCE * 1000)
one.unlock(held)
assert two.lock("rl:kept", PATIENCE * 1000)
ok("after kill -9")
