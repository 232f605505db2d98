"""What a run would do, and why, without doing it: the DAG walked with keys instead of work."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from align.config import Config
from align.errors import InputError
from flows import power
from flows.check import check
from flows.dag import Node, dag
from flows.graph import selected
from flows.promotion import crowned
from flows.recipe import Recipe
from flows.rounds import shut
from storage import build, identity, runs
from storage.build import Output, Request
from storage.store import Attempt, Store

_LOOK_BACK = 20  # runs that are looked through for a stage: enough for reruns of single stages, and a bound on time


@dataclass(frozen=True)
class Planned:
    """One stage of a plan."""

    stage: str
    status: str  # cached, run (will run), waits (on an earlier stage that will run), skipped (not selected, or shut)
    reason: str
    request: Request | None = None  # None while an input is not known
    attempt: Attempt | None = None  # the hit, where cached
    drift: tuple[str, ...] = ()  # library versions that differ from those of the hit
    shut: bool = False  # whether it is skipped because its gate is
    note: str = ""  # what it will be able to say


def plan(store: Store, recipe: Recipe, select: str | None = None, refresh: bool = False) -> list[Planned]:
    """Every stage in order. Raises InputError for whatever settings alone make a stage refuse, also one that is not
    selected, and where what is selected needs a stage that is neither selected nor cached."""
    recipe = crowned(store, recipe)
    chosen = selected(recipe, select)
    check(recipe)
    before = latest(store, recipe.name)
    planned: dict[str, Planned] = {}

    def stage(
        name: str,
        function: Callable[..., dict[str, Any]],
        config: Config,
        *gate: Node,
        **inputs: Node | Output | Config | None,
    ) -> Node:
        gates = [planned[node.stage] for node in gate]
        if why := next((why for g in gates if (why := _why_shut(g))), ""):
            planned[name] = Planned(name, "skipped", why, shut=True)
        else:
            there = {r: v for r, v in inputs.items() if not (isinstance(v, Node) and planned[v.stage].shut)}
            planned[name] = _plan_stage(
                store, name, function, config, there, gates, planned, before, name in chosen, refresh
            )
        return Node(name)

    dag(recipe, stage)
    if planned["evaluate"].status in ("run", "waits"):
        planned["evaluate"] = replace(planned["evaluate"], note=power.note(recipe, before))
    return list(planned.values())


def read_code(recipe: Recipe) -> None:
    """Digest the code of every stage now, while no thread of Prefect's is there to parse beside."""

    def stage(
        name: str,
        function: Callable[..., dict[str, Any]],
        config: Config,
        *gate: Node,
        **inputs: Node | Output | Config | None,
    ) -> Node:
        identity.code(function.__module__)
        identity.code(function.__module__, config)
        return Node(name)

    dag(recipe, stage)


def _why_shut(gate: Planned) -> str:
    """Why what stands behind a gate is skipped; "" where it is not, or nobody knows yet."""
    if gate.shut:
        return gate.reason
    return shut(gate.stage, gate.attempt.metrics) if gate.status == "cached" and gate.attempt else ""


def _plan_stage(
    store: Store,
    name: str,
    function: Callable[..., dict[str, Any]],
    config: Config,
    inputs: dict[str, Any],
    gates: list[Planned],
    planned: dict[str, Planned],
    before: dict[str, Attempt],
    chosen: bool,
    refresh: bool,
) -> Planned:
    upstream = list(dict.fromkeys([v.stage for v in inputs.values() if isinstance(v, Node)] + [g.stage for g in gates]))
    unknown = [s for s in upstream if planned[s].attempt is None or planned[s].status == "run"]
    if chosen and (lost := [s for s in unknown if planned[s].status == "skipped"]):
        raise InputError(
            f"{name} needs {' and '.join(lost)}, not selected and not up to date; use --select '+{name}' to run "
            "what it needs too."
        )
    if unknown:
        if not chosen:
            return Planned(name, "skipped", "not selected")
        why = _own_changes(store, config, function, before.get(name))
        return Planned(name, "waits", "; ".join([f"waits on {_several(unknown)}", *why]))
    resolved = {role: resolve(planned[v.stage].attempt, v.file) if isinstance(v, Node) else v
                for role, v in inputs.items()}  # fmt: skip
    try:
        request = build.request(store, name, function, config, resolved)
    except FileNotFoundError as error:
        lost = error.filename or error.args[0]
        raise InputError(f"{name}: {lost} does not exist; correct the path in the recipe.") from None
    except OSError as error:
        raise InputError(f"{name}: {error.filename}: cannot be read ({error.strerror}).") from None
    hit, wrong = store.lookup(request.key)
    if hit and not (refresh and chosen):
        drift = tuple(
            f"{lib} {hit.versions[lib]} → {version}"
            for lib, version in identity.versions().items()
            if hit.versions.get(lib, version) != version
        )
        return Planned(name, "cached", "", request, hit, drift)
    if not chosen:
        return Planned(name, "skipped", "not selected", request)
    return Planned(name, "run", _reason(request, before.get(name), wrong, bool(hit)), request)


def resolve(attempt: Attempt | None, file: str | None) -> Output:
    """The output of a finished attempt as an input."""
    assert attempt is not None
    return Output(attempt.artifact, file)


def _reason(request: Request, before: Attempt | None, wrong: str | None, refresh: bool) -> str:
    if refresh:
        return "refresh"
    if wrong:
        return wrong
    if before is None:
        return "never ran"
    words = build.differences(request.canonical, request.described, request.code, before)
    return "; ".join(words) or "never finished with these settings"


def _own_changes(store: Store, config: Config, function: Callable[..., Any], before: Attempt | None) -> list[str]:
    """What is known to have changed in a stage whose inputs are not known yet."""
    if before is None:
        return []
    canonical, code = identity.canonical(store, config), identity.code(function.__module__, config)
    return build.differences(canonical, before.inputs, code, before)


def _several(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} and {len(names) - 1} more"


def latest(store: Store, recipe: str) -> dict[str, Attempt]:
    """The attempt that each stage last used in a run of the recipe of that name, else in a recent run of another."""
    found: dict[str, Attempt] = {}
    newest = runs.history(store)[::-1]
    own = [run for run in newest if run["recipe"] == recipe]
    for run in (own or newest)[:_LOOK_BACK]:
        for record in runs.stages(store, run["run_id"]):
            if record["stage"] not in found and record["key"]:
                attempts = [a for a in store.attempts(record["key"]) if a.artifact == record["artifact"]]
                found |= {a.stage: a for a in attempts[-1:]}
    return found
