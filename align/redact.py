"""Keeping secrets out of what is recorded and shown: errors, reasons and logs.

A secret is the value of an environment variable whose name says so or which a config names as the place of a key, and
what stands before the @ of a URL. Values of fewer than eight characters would take ordinary words with them.
"""

import base64
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from align.errors import AlignError, StageError

HIDDEN = "***"
_SHORTEST = 8
_TELLING = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|AUTH|CREDENTIAL)S?(_|$)", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/?#@\s'\"]+@")
_named: set[str] = set()


def remember(variable: str) -> None:
    """From now on the value of this environment variable is a secret, whatever its name."""
    _named.add(variable)


def check_url(name: str, url: str) -> None:
    """Raise ValueError if a URL holds a user or a password: it would be stored with every run. Does not repeat it."""
    authority = re.split(r"[/?#\\]", re.sub(r"^[\w.+-]+:[/\\]+", "", url.strip()))[0]
    if "@" in authority:
        raise ValueError(
            f"{name} holds a user name or a password, which every run would record; leave it out of the URL and put "
            f"the key into the environment variable that api_key_env names"
        )


def redact(text: str) -> str:
    """The text without the secrets that the environment holds now."""
    for variable, value in os.environ.items():
        if variable in _named or _TELLING.search(variable):
            text = hide(text, value)
    return _LOGIN.sub(f"{HIDDEN}@", text)


def hide(text: str, secret: str) -> str:
    """The text without one secret, in any of the forms in which programs repeat it; short ones stay."""
    secret = secret.strip()
    forms = {secret, " ".join(secret.split()), json.dumps(secret)[1:-1], repr(secret)[1:-1], quote(secret, safe="")}
    forms.add(base64.b64encode(secret.encode(errors="surrogateescape")).decode())
    forms.add(secret.partition(":")[2])  # of user:password
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= _SHORTEST:
            text = text.replace(form, HIDDEN)
    return text


def clean(error: Exception) -> Exception:
    """The error itself where it and its causes hold no secret, else one of its kind without them and without causes."""
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) and cause not in chain:
        chain.append(cause)
    if all(redact(str(e)) == str(e) for e in chain):
        return error
    message = redact(str(error))
    return type(error)(message) if isinstance(error, AlignError) else StageError(f"{type(error).__name__}: {message}")


@contextmanager
def leaving() -> Iterator[None]:
    """What leaves a flow for Prefect's database: its logs from now on, and the error that ends it."""
    clean_logs()
    try:
        yield
    except Exception as error:
        if (shown := clean(error)) is error:
            raise
        raise shown from None


def clean_logs() -> None:
    """From now on every log record of this process is made without secrets, for all handlers. Safe to call twice."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        try:
            message = made.getMessage()
        except Exception:  # arguments that do not fit: the handler says so
            return made
        if (shown := redact(message)) != message:
            made.msg, made.args = shown, None
        if made.exc_info:
            trace = logging.Formatter().formatException(made.exc_info)
            if (shown := redact(trace)) != trace:
                made.exc_text, made.exc_info = shown, None
        return made

    record.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(record)
