"""What a comparison is in words, for the terminal and the page alike."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from align.comparison.found import Comparison, Difference, Group, Setting, Stage
from align.report.wording import count, percent, plural, points

STAGES = {
    "same": "same", "equal": "made again, equal contents", "different": "differs", "before only": "before only",
    "after only": "after only",
}  # fmt: skip
"""What a stage's kind is called."""


def headline(c: Comparison) -> list[str]:
    """Two paragraphs: whether the final policy is shown to be better, and how much differs besides."""
    return [_quality(c), _counts(c)]


def _quality(c: Comparison) -> str:
    mode = c.after.primary or "greedy"
    final = [d for d in c.differences if (d.before, d.after) == c.final]
    shown = [d for d in final if d.mode == mode] or [d for d in final if d.mode == "greedy"]
    if not shown:
        return "No policy is evaluated in both runs, so nothing is said about quality."
    return " ".join(_sentence(c, d, len(shown) > 1) for d in shown)


def _sentence(c: Comparison, d: Difference, several: bool) -> str:
    end = c.final == (c.before.final, c.after.final)
    who = f"the final policy ({d.after})" if end else d.after
    of = f"{d.suite}: {who}" if several else who[0].upper() + who[1:]
    if d.diff is None:
        return f"{of}: no item is graded in both runs."
    against = f"{percent(d.mean_before)} %" + (f" for {d.before}" if d.before != d.after else "")
    said = (
        f"{of} scores {percent(d.mean_after)} % after, {against} before, on {plural(d.n, 'shared item')}"
        f"{over_seeds(d)} ({d.mode}): {points(d.diff)} points {interval(d)}, "
    )
    return f"{said}of different measures, since the graders differ." if d.grader else f"{said}{d.verdict}."


def _counts(c: Comparison) -> str:
    """How much differs, part by part."""
    kinds: Counter[str] = Counter(stage.kind for stage in c.stages)
    told = [f"{kinds[kind]} {_did(kinds[kind], *verbs)}" for kind, verbs in DID.items() if kinds[kind]]
    if alone := kinds["before only"] + kinds["after only"]:
        told.append(f"{alone} finished in one run only")
    counted = [(c.rows, "row"), (c.verdicts, "filter verdict")]
    data = [plural(part.differ, what) for part, what in counted if part]
    data += [plural(sum(p.differ for p in c.pairs), "preference pair")] if c.pairs else []
    parts = [f"{plural(len(c.settings), 'setting')} {_did(len(c.settings), 'differs', 'differ')}"]
    parts += [f"of {plural(len(c.stages), 'stage')} {', '.join(told)}"] if told else []
    parts += [f"of the data differ {', '.join(data)}"] if data else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


DID = {
    "same": ("is the same", "are the same"),
    "equal": ("was made again with equal contents", "were made again with equal contents"),
    "different": ("differs", "differ"),
}  # fmt: skip


def _did(n: int, one: str, many: str) -> str:
    return one if n == 1 else many


def regraded(c: Comparison) -> str:
    """That equal texts have unequal grades; nothing where none have."""
    if not (n := sum(a.regraded for a in c.answers)):
        return ""
    return f"{plural(n, 'answer')} of the same text {_did(n, 'has', 'have')} another grade: that is the graders' doing."


def over_seeds(d: Difference) -> str:
    """Of how many seeds the scores are the means; nothing of one."""
    return f", over {plural(d.seeds, 'seed')}" if d.seeds > 1 else ""


def interval(d: Difference) -> str:
    """The ends of a difference's interval, in points."""
    return "" if d.low is None or d.high is None else f"[{points(d.low, False)}, {points(d.high, False)}]"


def policy(d: Any) -> str:
    """The policy that is compared; both names where they differ."""
    return d.after if d.before == d.after else f"{d.before} → {d.after}"


SETTINGS = ("setting", "before", "after")


def setting(s: Setting, most: int = 200) -> list[str]:
    """A setting as a row of SETTINGS."""
    return [s.key, *("(not there)" if s.only not in (None, side) else _value(getattr(s, side), most)
                     for side in ("before", "after"))]  # fmt: skip


def _value(value: Any, most: int) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def stage(s: Stage, most: int = 4) -> list[str]:
    """A stage, what became of it, and why; no more than `most` reasons."""
    more = len(s.why) - most
    why = [*s.why[:most], f"and {more} more"] if more > 0 else s.why
    return [s.stage, STAGES[s.kind], "; ".join(why)]


GROUPS = ("use", "split", "before", "after", "added", "removed", "changed", "moved in", "moved out")


def group(g: Group) -> list[Any]:
    """Rows of one use and split as a row of GROUPS."""
    return [g.use, g.split, g.before, g.after, g.added, g.removed, g.changed, g.moved_in, g.moved_out]


def verdict(reason: str | None) -> str:
    """The filter's verdict of a row."""
    return "kept" if reason is None else f"dropped: {reason}"


PAIRS = ("stage", "before", "after", "same", "flipped", "replaced", "added", "removed")
SCORES = ("policy", "suite", "mode", "before %", "after %", "points", "items", "not shared", "differ", "verdict")


def scores(d: Difference) -> list[Any]:
    """A paired difference as a row of SCORES. Its spaces do not break: it stays one line."""
    shown = "other graders" if d.grader and d.diff is not None else d.verdict
    if d.p_exact is not None and d.verdict == "too few to tell" and d.differ:
        shown += f" (p = {d.p_exact:.2g})"
    shown += over_seeds(d)
    change = "–" if d.diff is None else f"{points(d.diff)} {interval(d)}"
    items = count(d.n) if d.n == d.shared else f"{count(d.n)} of {count(d.shared)}"
    row = [policy(d), d.suite, d.mode, percent(d.mean_before), percent(d.mean_after), change, items,
           d.before_only + d.after_only, d.differ, shown]  # fmt: skip
    return [cell.replace(" ", "\N{NO-BREAK SPACE}") if isinstance(cell, str) else cell for cell in row]


ANSWERS = ("policy", "shared", "now right", "now wrong", "right in both", "wrong in both", "not graded", "other text")


def answers(c: Comparison) -> list[list[Any]]:
    """The answers as rows of ANSWERS."""
    return [[policy(a), a.shared, a.gained, a.lost, a.right_in_both, a.wrong_in_both, a.not_graded, a.other_text]
            for a in c.answers]  # fmt: skip


def kinds(examples: Sequence[dict[str, Any]]) -> str:
    """How many examples there are of which kind: 3 added, 1 removed."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(e["kind"] for e in examples).items())
