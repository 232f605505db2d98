"""Leases: what a lock between processes is where machines share a bucket and no kernel.

A lease is an object that its holder writes anew every few seconds, each time on the condition that it is still the one
that it wrote last. One that was not written for `seconds`, by the bucket's clock, belongs to whoever writes it next, on
the same condition; the holder's next write then fails. What must happen under the lease or not at all is written into
it (`Lease.decide`): there are no two objects, one of which a holder could write while another has the lease. Whoever
gets a lease with such a decision in it carries that out first.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from align.errors import AlignError, StageError
from storage.bucket import Bucket, Gone, Object

SECONDS = 30.0
"""How long a lease holds without a sign of its holder."""
_POLL = 1.0

Decision = dict[str, Any]


class LeaseLost(StageError):
    """The lease was held by another when it was needed: this process was away for too long."""


class Lease:
    """A lease that this process holds. Made by `hold`."""

    def __init__(self, bucket: Bucket, name: str, body: dict[str, Any], tag: str, seconds: float):
        self.name = name
        self._bucket, self._body, self._tag, self._seconds = bucket, body, tag, seconds
        self._lost, self._seen = False, time.monotonic()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {name}", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raise LeaseLost where another has the lease, or may have had it. Costs a request."""
        self._write()

    def decide(self, decision: Decision) -> None:
        """What the holder, or whoever has the lease after it, will do. Raises LeaseLost, and then nobody will."""
        self._write(decision=decision)

    def release(self) -> None:
        """Let go of it. One that may be another's by now is left alone, and one that the bucket does not let go of ends
        by itself: neither is worth a failure of what was done under it."""
        self._ended.set()
        self._heart.join()
        if not self._lost and time.monotonic() - self._seen < self._seconds / 2:
            with suppress(AlignError):
                self._bucket.remove([self.name])

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds / 3):
            try:
                self._write()
            except LeaseLost:
                return
            except Exception:
                continue  # no answer: the next write shows whose it is

    def _write(self, **more: Any) -> None:
        with self._lock:
            if self._lost:
                raise self._gone()
            body = {**self._body, "beat": self._body["beat"] + 1, **more}
            begun = time.monotonic()
            try:
                self._tag = self._bucket.swap(self.name, _bytes(body), self._tag)
            except Gone:
                found = look(self._bucket, self.name)
                if found is None or found[1] != body:  # else it was written, and the answer was lost
                    self._lost = True
                    raise self._gone() from None
                self._tag = found[0].tag
            self._body, self._seen = body, begun

    def _gone(self) -> LeaseLost:
        return LeaseLost(
            f"This process was away from the store for more than {self._seconds:.0f} s, and {self.name} may be "
            "another's now, so nothing was published; the same command resumes."
        )


def look(bucket: Bucket, name: str) -> tuple[Object, dict[str, Any]] | None:
    """A lease as it is now: the object and what it says; None where nobody has it."""
    found = bucket.see(name)
    return (found[0], json.loads(found[1])) if found else None


def is_held(bucket: Bucket, found: Object, who: str, seconds: float) -> bool:
    """Whether the holder of a lease has given a sign within `seconds`."""
    return bucket.now(who) - found.modified <= timedelta(seconds=seconds)


@contextmanager
def hold(
    bucket: Bucket,
    name: str,
    who: str,
    *,
    carry_out: Callable[[Decision], None] = lambda _: None,
    mine: bool = False,
    wait: bool = True,
    seconds: float = SECONDS,
) -> Iterator[Lease]:
    """Hold a lease; wait for it, or raise BlockingIOError where another has it.

    `who` names this machine. With `mine`, no other process of it can hold the lease, so that one which this machine
    left behind is taken at once. `carry_out` does what a holder decided who did not get to do it.
    """
    body = {"holder": who, "token": uuid.uuid4().hex, "beat": 0}
    while True:
        tag = bucket.put(name, _bytes(body))
        if tag is None and (found := look(bucket, name)):
            there, said = found
            if said == body:
                tag = there.tag
            elif (mine and said["holder"] == who) or not is_held(bucket, there, who, seconds):
                if said.get("decision"):
                    carry_out(said["decision"])
                try:
                    tag = bucket.swap(name, _bytes(body), there.tag)
                except Gone:
                    continue
            elif wait:
                time.sleep(min(_POLL, seconds / 10))
                continue
            else:
                raise BlockingIOError(f"{name} is held by {said['holder']}")
        if tag is not None:
            break
    lease = Lease(bucket, name, body, tag, seconds)
    try:
        yield lease
    finally:
        lease.release()


def end_all(bucket: Bucket, folder: str, who: str, seconds: float) -> None:
    """Take for good the leases below a folder whose holders are gone: one that was only away finds it lost when it is
    back. Raises BlockingIOError where one is held. No other process of this machine may hold one."""
    for name in [found.name for found in bucket.below(folder)]:
        if seen := look(bucket, name):
            there, said = seen
            if said["holder"] != who and is_held(bucket, there, who, seconds):
                raise BlockingIOError(f"{name} is held by {said['holder']}")
            try:
                bucket.swap(name, _bytes({**said, "holder": who, "token": uuid.uuid4().hex}), there.tag)
            except Gone:
                raise BlockingIOError(f"{name} is held by {said['holder']}") from None


def _bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()
