"""The policy that the rounds end with: the newest of the last round that was shown to help."""

import json
import os
import shutil
from pathlib import Path

from align.config import Config, Metrics
from align.models.trained import folder


class NewestConfig(Config):
    """Settings of newest: what it is given, in the order of the rounds."""

    policies: tuple[str, ...]
    """The policy that the first round begins with, and what each round makes."""
    gates: tuple[str, ...]
    """The gate after each round."""


def newest(config: NewestConfig, out: Path, **stages: Path) -> Metrics:
    """Hand on the policy of the last round up to which every gate in `stages` says that it helped.

    `stages` are the artifacts of policies and gates by name, without those that were skipped. Writes the policy's
    adapter/ or model/, as links to its files where the file system has them.
    """
    config.check()
    helped = 0
    for gate in config.gates:
        if gate not in stages or not json.loads((stages[gate] / "metrics.json").read_text())["shown"]:
            break
        helped += 1
    name = config.policies[helped]
    place = folder(stages[name])
    shutil.copytree(place, out / place.name, copy_function=_link)
    return {"policy": name, "rounds": len(config.gates), "rounds.helped": helped}


def _link(source: str, to: str) -> None:
    try:
        os.link(source, to)
    except OSError:
        shutil.copy2(source, to)
