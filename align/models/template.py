"""A bound on what a chat template may cost. It is code of whoever made the model: the sandbox that renders it keeps it
from files and Python, but not from looping for ever or writing without end, and nothing can interrupt it from within.
"""

import json
import signal
import subprocess
import sys
from functools import cache

from align.errors import InputError, StageError
from align.models import template_worker

SECONDS = 2  # of CPU time, for eight renderings that take a millisecond each
MEMORY = 512  # MiB, the interpreter's own among them
CHARACTERS = 1_000_000  # the longest probe has 80,000
DEADLINE = 120  # seconds on the clock, however busy the machine is
_TOLD = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # from outside: no template does that


@cache
def check_template(template: str, tokens: tuple[tuple[str, str], ...], name: str) -> None:
    """InputError unless the template renders probe conversations within limits, in a process of its own.

    `tokens` are the special tokens by name. Later renderings in this process are trusted.
    """
    limits = {"seconds": SECONDS, "memory_mb": MEMORY, "characters": CHARACTERS}
    request = json.dumps({"template": template, "tokens": dict(tokens), **limits})
    try:
        child = subprocess.run(
            [sys.executable, "-I", template_worker.__file__],
            input=request.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"TZ": "UTC", "LANG": "C.UTF-8"},
            timeout=DEADLINE,
            start_new_session=True,
        )
        status = child.returncode
    except subprocess.TimeoutExpired:
        status = -signal.SIGXCPU
    if -status in _TOLD:
        raise StageError(f"The process that tries {name} was ended by {signal.Signals(-status).name}.")
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        what = f"takes more than {SECONDS} seconds"
    elif status == template_worker.TOO_LONG:
        what = f"writes more than {CHARACTERS:,} characters"
    elif status == template_worker.TOO_BIG:
        what = f"takes more than {MEMORY} MiB of memory"
    elif status:
        what = f"ends its process with status {status}"
    else:
        return
    raise InputError(f"{name} {what} for a short conversation; set base.chat_template to one that ends.")
