"""Handing a policy of a run over: `align export`. What the store knows of it goes into its card and certificate."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from align import tables
from align.errors import InputError, StageError
from align.grading.grade import item_of
from align.grading.kept_grades import grade_kept
from align.handover import endpoint, gguf, push
from align.handover.card import card
from align.handover.certificate import Certificate, Held, choose
from align.handover.export import Form, check, new_directory, weights
from align.models.served import ALIKE
from flows import show
from flows.card_facts import facts_of
from storage import runs
from storage.store import Store
from tasks.evaluate import EvaluateConfig

CARD, CERTIFICATE = "README.md", "served.json"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What is asked of an export."""

    form: Form = "merged"
    certify: int = 100
    """Evaluation items that the export has to answer; 0: it has no certificate."""
    server: bool = True
    """Whether a server is asked too, where one is installed."""
    licence: str | None = None
    push: str | None = None
    """ORG/NAME to upload it to."""
    public: bool = False
    converter: str | None = None


def hand_over(store: Store, run_id: str, model: str, to: Path, order: Order, tell: Tell) -> None:
    """Write a policy of a run to `to`, with its card and certificate, and upload it where that is asked.

    Raises InputError before anything is loaded for what cannot be done, and StageError, with the directory there, where
    the export is shown to answer worse than what was graded: it is not uploaded then.
    """
    run = show.run_of(store, run_id)["run_id"]
    base, artifact = show.base_of(store, run), show.artifact_of(store, run, model)
    check(base, order.form, to)
    secret = push.token(order.push) if order.push else ""
    if order.push and order.form == "adapter" and base.hub is None:
        raise InputError("--push: the base of this adapter is a local directory, which others lack; use --form merged.")
    converter = gguf.converter(order.converter) if order.form == "gguf" else []
    held = graded_answers(store, run, model) if order.certify else []
    certificate = _certificate(store, run, choose(held, order.certify)) if held else None
    served: dict[str, Any] | None = None
    with new_directory(to) as draft:
        look = certificate.look if certificate else None
        with weights(base, artifact, draft, order.form, converter, look) as loadable:
            tell(f"{order.form} weights are written")
            if certificate:
                served = _served(certificate, loadable, order, artifact.name, model, run)
                _write(draft / CERTIFICATE, json.dumps(served, indent=2, ensure_ascii=False))
        why = "no certificate was asked for" if not order.certify else f"the run has no graded answers of {model}"
        facts = facts_of(store, run, model, base, artifact.name, order.form, order.licence, served, why)
        _write(draft / CARD, card(facts))
    if served and served["certified"] is False:
        raise StageError(f"{to} is written, but not certified: {served['because']} ({CERTIFICATE}).")
    if order.push:
        tell(push.push(to, order.push, secret, f"{model} of run {run}", public=order.public))


def _write(file: Path, text: str) -> None:
    file.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _served(
    certificate: Certificate, folder: Path, order: Order, artifact: str, model: str, run: str
) -> dict[str, Any]:
    """What served.json holds."""
    found: dict[str, Any] = {"model": model, "run": run, "artifact": artifact, "form": order.form}
    if order.form == "gguf":
        found["asked"] = "the merged weights that the GGUF was converted from"
    found["plain"] = certificate.plain(folder, order.form)
    if order.form == "adapter":
        found["server"] = {"left_out": "an adapter is served with its base"}
    elif order.server:
        found["server"] = endpoint.ask(folder, certificate)
    return {**found, **verdict(order.form, found["plain"], found.get("server", {}))}


def verdict(form: Form, plain: Mapping[str, Any], server: Mapping[str, Any]) -> dict[str, Any]:
    """`certified` and `because`: False where an answerer is shown to be worse, or has the graded weights and says
    something else; None where nothing is graded."""
    for who, found in (("loaded by transformers", plain), ("behind a server", server)):
        if form != "adapter" and found.get("same_tokens", 1.0) < ALIKE:
            return {
                "certified": False,
                "because": f"{who} its greedy answers agree with those that were graded in only "
                f"{found['same_tokens']:.0%} of their first tokens",
            }
        if found.get("verdict") == "worse":
            return {
                "certified": False,
                "because": f"{who} it answers {found['graded']} evaluation items worse than what was graded, by "
                f"{-found['difference']:.1%} [{-found['high']:.1%}, {-found['low']:.1%}]",
            }
    if "verdict" not in plain:
        return {"certified": None, "because": f"none of {plain['items']} evaluation items is graded"}
    return {
        "certified": True,
        "because": f"on {plain['graded']} evaluation items it is not shown to be worse than what was graded",
    }


def graded_answers(store: Store, run: str, model: str) -> list[Held]:
    """The run's evaluation items with the graded greedy answers of a model; none where the run has no evaluation."""
    done = {s["stage"] for s in runs.stages(store, run) if s["artifact"]}
    if not {"ingest", "evaluate"} <= done:
        return []
    rows, config = _items(store, run), EvaluateConfig.model_validate(runs.source(store, run)["evaluate"])
    answers = tables.read(show.artifact_of(store, run, "evaluate") / "evaluations.parquet", model=model, mode="greedy")
    return [
        Held(a["suite"], a["row_id"], rows[a["row_id"]]["messages"], a["response"], a["score"])
        for a in answers
        if a["response"] is not None and a["row_id"] in rows and (a.get("turn") or 1) == 1
        and config.suite(a["suite"]).by_itself
    ]  # fmt: skip


def _items(store: Store, run: str) -> dict[str, dict[str, Any]]:
    """The rows that evaluation may ask, by id."""
    file = show.artifact_of(store, run, "ingest") / "rows.parquet"
    return {row["row_id"]: row for row in tables.read(file, split="evaluation")}


def _certificate(store: Store, run: str, held: Sequence[Held]) -> Certificate:
    config = EvaluateConfig.model_validate(runs.source(store, run)["evaluate"])
    rows = _items(store, run)

    def grade(held: Sequence[Held], said: Sequence[str]) -> list[float | None]:
        scores: dict[int, float | None] = {}
        for suite in {h.suite for h in held}:
            at = [i for i, h in enumerate(held) if h.suite == suite]
            grader = config.suite(suite).grader
            given = [item_of(rows[held[i].row_id], said[i]) for i in at]
            grades = grade_kept(grader, given, store.root / "cache" / "rows")
            scores |= {i: g.score for i, g in zip(at, grades, strict=True)}
        return [scores[i] for i in range(len(held))]

    return Certificate(held, grade, config.max_new_tokens)
