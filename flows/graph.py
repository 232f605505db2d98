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
    edges: dict[str, list[str]] = {}

    def stage(name: str, function: Callable[..., dict[str, Any]], config: Config, **inputs: Any) -> Node:
        edges[name] = list(dict.fromkeys(v.stage for v in inputs.values() if isinstance(v, Node)))
        return Node(name)

    dag(recipe, stage)
    return edges


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
    """The DAG as a Mermaid flowchart. Edges into the report are left out: it reads everything."""
    edges = parents(recipe)
    lines = ["flowchart LR", *(f"    {a} --> {b}" for b in edges for a in edges[b] if b != "report")]
    return "\n".join([*lines, "    evaluate --> report"])
