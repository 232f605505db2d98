"""The DAG as a graph: its edges, dbt's selection over them, and its drawing. Nothing is read or run."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from align.config import Config
from align.errors import InputError
from align.text import quote, short
from flows.dag import Node, dag
from flows.recipe import Recipe


def parents(recipe: Recipe) -> dict[str, list[str]]:
    """Every stage of a recipe in order, with the stages that it reads from."""
    read, gates = _edges(recipe)
    return {name: list(dict.fromkeys([*before, *gates[name]])) for name, before in read.items()}


def _edges(recipe: Recipe) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What every stage reads, and the gate that it stands behind, if any."""
    read: dict[str, list[str]] = {}
    gates: dict[str, list[str]] = {}

    def stage(name: str, function: Callable[..., dict[str, Any]], config: Config, *gate: Node, **inputs: Any) -> Node:
        read[name] = list(dict.fromkeys(v.stage for v in inputs.values() if isinstance(v, Node)))
        gates[name] = [node.stage for node in gate]
        return Node(name)

    dag(recipe, stage)
    return read, gates


def selected(recipe: Recipe, expression: str | None) -> set[str]:
    """The stages that an expression names: `a`, `+a` with all before it, `a+` with all after it, several by spaces."""
    edges = parents(recipe)
    if expression is None:
        return set(edges)
    children: dict[str, list[str]] = {name: [c for c in edges if name in edges[c]] for name in edges}
    chosen: set[str] = set()
    for word in expression.split():
        name = word.strip("+")
        if name not in edges:
            near = get_close_matches(name[:100], edges, 1)
            hint = f"did you mean {near[0]}?" if near else f"the stages are {', '.join(edges)}."
            raise InputError(f"--select {short(word)}: no stage is called {quote(name)}; {hint}")
        chosen |= {name}
        chosen |= _reach(name, edges) if word.startswith("+") else set()
        chosen |= _reach(name, children) if word.endswith("+") else set()
    if not chosen:
        raise InputError("--select is empty; name a stage, for instance --select dpo or --select +dpo.")
    return chosen


def _reach(name: str, edges: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        for other in edges[todo.pop()]:
            if other not in found:
                found.add(other)
                todo.append(other)
    return found


def mermaid(recipe: Recipe) -> str:
    """The DAG as a Mermaid flowchart. Edges into the report are left out: it reads everything; so are those of a gate
    (dotted) to stages that read another behind it."""
    read, gates = _edges(recipe)
    lines = ["flowchart LR"]
    for b in read:
        first = [g for g in gates[b] if not any(g in gates[a] for a in read[b])]
        lines += [f"    {a} --> {b}" for a in read[b] if b != "report"] + [f"    {g} -.-> {b}" for g in first]
    return "\n".join([*lines, "    evaluate --> report"])
