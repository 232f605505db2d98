"""Rounds of the chain: what their stages are called, and what a gate says to the stages behind it."""

from collections.abc import Mapping
from typing import Any

from align.report.numbers import MINUS, points

MARK = "_r"


def of_round(name: str, k: int) -> str:
    """The node of a stage in round k: those of the first have the stage's own name."""
    return name if k == 1 else f"{name}{MARK}{k}"


def round_of(node: str) -> int:
    """The round that a node is of."""
    _, mark, k = node.rpartition(MARK)
    return int(k) if mark and k.isdigit() else 1


def shut(gate: str, metrics: Mapping[str, Any]) -> str:
    """Why nothing behind a gate is done; "" where its round was shown to help. `metrics` are those of the gate."""
    if metrics["shown"]:
        return ""
    gain, low, high = (metrics[name] for name in ("gain", "gain.low", "gain.high"))
    change = f"{points(gain)} [{points(low, False)}, {points(high, False)}]".replace(MINUS, "-")
    few = ", too few to tell" if metrics["verdict"] == "too few to tell" else ""
    return f"round {round_of(gate)} was not shown to help: {change}{few}"
