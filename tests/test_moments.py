"""Runs that are told to end or killed at random moments, they or a process of their stages, twice in a row: nothing is
half visible, nothing stays behind, and the next run completes with the same digests."""

import json
import os
import random
import signal
import threading
from pathlib import Path

import psutil
import pytest
from preloaded import script
from served import wait_for

from align.errors import StageError
from align.models.template import check_template

EVERY = os.environ.get("FAULTS") == "all"  # `make faults`: more of them, and others each time
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6) if EVERY else 12))


@pytest.mark.parametrize(("select", "moments"), [("+filter", 40 if EVERY else 8), ("+sft", 20 if EVERY else 2)])
def test_at_random_moments(select: str, moments: int, tmp_path: Path) -> None:
    print(f"SEED={SEED}")
    done = script("moments.py", tmp_path, SEED, moments, select)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["wrong"] == [] and len(found["hits"]) >= moments


@pytest.mark.skipif(not EVERY, reason="a minute for each; `make faults`")
@pytest.mark.timeout(3 * 3600)
def test_what_align_serve_is_made_of_at_random_moments(tmp_path: Path) -> None:
    done = script("moments_served.py", tmp_path, SEED, 50)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["wrong"] == [] and len(found["hits"]) >= 25


def test_the_process_that_tries_a_template_is_not_taken_for_the_template() -> None:
    failed: list[BaseException] = []

    def tries() -> None:
        try:
            check_template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", (), "t")
        except BaseException as error:
            failed.append(error)

    before = psutil.Process().children()
    thread = threading.Thread(target=tries)
    thread.start()
    (trying,) = wait_for(lambda: [child for child in psutil.Process().children() if child not in before], every=0.01)
    trying.send_signal(signal.SIGTERM)
    thread.join()
    assert isinstance(failed[0], StageError) and str(failed[0]) == "The process that tries t was ended by SIGTERM."
