"""The report on rounds: what each gate found, and which rounds there were at all."""

from collections.abc import Mapping
from typing import Any

from align.report.chapters import Chapter
from align.report.evidence import VERDICTS, kind_of
from align.report.findings import Finding, doubt
from align.report.outline import Outline
from align.report.wording import count, nats, number, percent, points
from align.report.words import say

Metrics = Mapping[str, Any]


def took_place(outline: Outline, done: Mapping[str, Metrics], newest: str = "newest") -> Outline:
    """The outline without the rounds that were skipped, which are not in `done`, stages with their metrics. Where the
    stage `newest` chose a policy, that stands for its name, and is what the chain ends with if nothing goes on from it.
    """
    if newest not in done:
        return outline
    kept = [part for part in outline.parts if part.added_by != "chain.rounds" or part.stage in done]
    chosen = str(done[newest]["policy"])
    parts = tuple(
        part.model_copy(update={"questions": tuple(
            q.model_copy(update={k: chosen for k in ("model", "against") if getattr(q, k) == newest})
            for q in part.questions
        )})
        for part in kept
    )  # fmt: skip
    at = next(i for i, part in enumerate(parts) if part.stage == newest)
    goes_on = any(part.policy and not part.control for part in parts[at:])
    return outline.model_copy(update={"parts": parts, "final": "" if goes_on else chosen})


def findings(gates: Mapping[str, Metrics], rounds: int) -> dict[str, Finding]:
    """A finding for each gate, of so many rounds that the recipe has."""
    return {name: _finding(k, m, rounds) for k, (name, m) in enumerate(gates.items(), 1)}


def _finding(k: int, m: Metrics, rounds: int) -> Finding:
    verdict = kind_of(m["verdict"])
    text = say(
        "On {n:prompt} held out from training, the policy that round {k} began with scores {before} %, the one that it "
        "ended with {after} %: {points} points {interval}{doubt}.",
        n=m["prompts.graded"], k=k, before=percent(m["score.before"]), after=percent(m["score.after"]),
        points=points(m["gain"]), interval=f"[{points(m['gain.low'], False)}, {points(m['gain.high'], False)}]",
        doubt=doubt(verdict, m["prompts.differ"], m.get("gain.p")),
    )  # fmt: skip
    if not m["shown"] and k == rounds:
        text += " " + say("The rounds end with the policy that this one began with.")
    elif not m["shown"]:
        text += " " + say("The rounds end with the policy that this one began with, and later rounds were skipped.")
    return Finding(say("Whether to go on after round {k}", k=k), verdict, text)


def chapter(gates: Mapping[str, Metrics], rounds: int, done: Mapping[str, Metrics]) -> Chapter:
    """What each gate found, and of `done`, stages with their metrics, what each round was trained on."""
    found = Chapter("rounds", say("The rounds"))
    helped = sum(m["shown"] for m in gates.values())
    text = "{helped:round} of {rounds} shown to help on prompts held out from training."
    found.lead = say(text, helped=helped, rounds=rounds)
    body = [
        [str(k), say(VERDICTS[kind_of(m["verdict"])]), percent(m["score.before"]), percent(m["score.after"]),
         f"{points(m['gain'])} [{points(m['gain.low'], False)}, {points(m['gain.high'], False)}]",
         count(m["prompts.graded"]), count(m["prompts.differ"])]
        for k, m in enumerate(gates.values(), 1)
    ]  # fmt: skip
    names = ["round", "verdict", "before %", "after %", "gain", "prompts", "of them differ"]
    caption = say("A round that is not shown to help is the last, and its policy is not kept.")
    found.table([say(name) for name in names], body, caption, text=2)
    names = ["round", "right samples %", "distinct %", "prompts with a pair", "pairs", "reward model, held out %",
             "prompts with a selection", "chosen, nats"]  # fmt: skip
    caption = say(
        "What each round was trained on. Fewer prompts with a pair, or samples less distinct, leave it less to learn. "
        "The last column is what training on pairs did to the log-probability of the chosen responses held out."
    )
    found.table([say(name) for name in names], [_trained_on(k, name, done) for k, name in enumerate(gates, 1)], caption)
    return found


def _trained_on(k: int, gate: str, done: Mapping[str, Metrics]) -> list[str]:
    """A row of the table, of which a recipe may lack some. The round's stages are called as its gate is."""
    mark = gate.removeprefix("gate")
    sample, pairs, reward, select, dpo = (
        done.get(stage + mark, {}) for stage in ("sample", "pairs", "reward", "select", "dpo")
    )
    graded = sum(pairs.get(fate, 0) for fate in ("correct", "wrong", "unreadable"))
    shift = dpo.get("logps.chosen_shift.held_out")
    return [
        str(k), percent(pairs["correct"] / graded if graded else None), percent(sample.get("share.distinct")),
        number(pairs.get("prompts.paired")), number(pairs.get("pairs")), percent(reward.get("accuracy.held_out")),
        number(select.get("prompts.kept")), "–" if shift is None else nats(shift),
    ]  # fmt: skip
