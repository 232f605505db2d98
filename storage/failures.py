"""What a bucket says instead of an answer: whether it is worth asking again, and what it means in one sentence."""

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

from align import redact
from align.errors import AlignError, InputError

_TRIES = 3  # how often is asked whose answer broke off
_PATIENCE = 10.0  # seconds for which is asked who is busy, or wants it slower; with half a lease's life, less than all
_PAUSE = 0.5  # seconds, after the tries of obstore, which together take about as long as Google wants to wait
_FAILED = re.compile(r"status code: (429[\w ]*|5\d\d[\w ]*)")

One = TypeVar("One")


class Asking:
    """The asking of one question until there is an answer."""

    def __init__(self) -> None:
        self._left, self._until = _TRIES - 1, time.monotonic() + _PATIENCE

    def again(self, error: Exception) -> bool:
        """Whether to ask again after an error; returns when it is time to. To ask twice is as where an answer was lost
        on the way."""
        if _FAILED.search(str(error)):
            time.sleep(_PAUSE * random.uniform(1, 1.5))
            return time.monotonic() < self._until
        self._left -= 1
        return self._left >= 0 and _broke_off(error)


def whole(ask: Callable[[], One]) -> One:
    """What the bucket answers, where answers break off or are put off."""
    asking = Asking()
    while True:
        try:
            return ask()
        except Exception as error:
            if not asking.again(error):
                raise


def no_bucket(error: Exception) -> bool:
    """Whether it is the bucket that is not there, and not an object in it."""
    return "NoSuchBucket" in str(error) or "bucket does not exist" in str(error)


def _broke_off(error: Exception) -> bool:
    """Whether an answer began and did not end. obstore asks again only where none came, and where it reads a file."""
    return "body error" in str(error)


def _keys(url: str) -> str:
    return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if url.startswith("s3:") else "GOOGLE_SERVICE_ACCOUNT"


def unusable(url: str, error: Exception) -> InputError:
    """The environment has something for a store that makes no sense."""
    if url.startswith("s3:"):
        return InputError(f"The store {url}: a variable AWS_... of the environment makes no sense ({_first(error)}).")
    path = re.search(r"Unable to open service account file from (.+?): ", str(error))
    wrong = f"there is no file {path[1]}" if path else "the key in the environment cannot be read"  # nor be repeated
    return InputError(f"The store {url}: {wrong}; set {_keys(url)} to the file of a service account's key.")


def _first(error: Exception) -> str:
    return redact.redact(" ".join(str(error).split("\n\n")[0].split())[:300])


def sentence(url: str, endpoint: str, error: Exception) -> AlignError:
    """What obstore raised."""
    kind, text = type(error).__name__, str(error)
    where = f" at {redact.redact(endpoint)}" if endpoint else ""
    if no_bucket(error):
        return InputError(f"The store {url}: there is no such bucket{where}.")
    if "169.254.169.254" in text or "computeMetadata" in text or "redential" in text:
        return InputError(f"The store {url}: the environment has no credentials for it; set {_keys(url)}.")
    if failed := _FAILED.search(text):
        return AlignError(
            f"The store {url}{where} answers {failed[1]} whenever asked; the same command resumes once it works."
        )
    if "RequestTimeTooSkewed" in text:
        return InputError(f"The store {url} refuses requests of this machine, whose clock is wrong; set the clock.")
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or "status code: 403" in text:
        return InputError(f"The store {url}: the credentials of the environment are not allowed to use it{where}.")
    if "error sending request" in text or "onnect" in text or "dns" in text:
        return InputError(f"The store {url} cannot be reached{where}.")
    if _broke_off(error):
        return AlignError(f"The answers of the store {url}{where} break off; the same command resumes once it works.")
    return AlignError(f"The store {url}: {_first(error)}")
