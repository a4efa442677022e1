"""What all Python clients here share: where the server is, and how they tell of a case."""

import os
import sys
import threading
import time

PORT = int(os.environ["RESP_PORT"])
# Nothing here takes so long unless it hangs.
PATIENCE = 30
# Shorter than any lease that has to last, longer than a round trip.
SHORT_MS = 300


def ok(name):
    print("ok", name, flush=True)


def restart():
    """Lets the server be killed with SIGKILL and started again on the same data and port."""
    print("restart", flush=True)
    assert sys.stdin.readline() == "restarted\n"


def until(what, so):
    end = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def same(got, wanted):
    assert got == wanted, f"{got!r} instead of {wanted!r}"


def fails(error, do, part=""):
    """Runs something that has to fail in this way; gives the error."""
    try:
        result = do()
    except error as caught:
        assert part in str(caught), f"{caught!r} without {part!r}"
        return caught
    raise AssertionError(f"{result!r} instead of {error}")


class Waiter(threading.Thread):
    """Does something elsewhere; `result` waits for it."""

    def __init__(self, do):
        super().__init__(daemon=True)
        self.do, self.value, self.error = do, None, None
        self.start()

    def run(self):
        try:
            self.value = self.do()
        except BaseException as error:
            self.error = error

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        if self.error:
            raise self.error
        return self.value
