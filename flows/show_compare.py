"""What `align compare` prints, and the page that it writes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from align.comparison import words
from align.comparison.found import Comparison, Part
from align.report.wording import MINUS
from align.text import short
from flows import pages, show

SHOWN = 160  # characters of a text in an example


def as_json(c: Comparison) -> dict[str, Any]:
    """Everything that was found; shares in 0..1."""
    return asdict(c)


def tables(c: Comparison) -> None:
    """Print what differs, part by part; what does not differ is said in a line."""
    for side, run in (("before", c.before), ("after", c.after)):
        named = "" if run.name == run.run_id else f"{run.name}: "
        show.say(f"{side:7}{named}{run.run_id} ({run.recipe}, {run.status}, {run.started_at[:19].replace('T', ' ')})")
    show.say()
    for sentence in words.headline(c):
        show.say(sentence.replace(MINUS, "-"))
    if c.settings:
        _table("settings", words.SETTINGS, [words.setting(s, 60) for s in c.settings])
    changed = [words.stage(s) for s in c.stages if s.kind != "same"]
    _notes(c, "stages")
    if changed:
        _table("stages", ["stage", "", "why"], changed)
    _notes(c, "rows")
    if c.rows and c.rows.differ:
        _table("rows", words.GROUPS, [words.group(g) for g in c.rows.groups])
        _list([
            (e["kind"], (e["after"] or e["before"])["row_id"], e["use"], e["split_after"] or e["split_before"],
             (e["after"] or e["before"])["prompt"]) for e in c.rows.examples
        ])  # fmt: skip
    _notes(c, "verdicts")
    if c.verdicts and c.verdicts.changes:
        found = [[*(words.verdict(r[s]) for s in ("before", "after")), r["rows"]] for r in c.verdicts.changes]
        _table("verdicts of the filter", ["before", "after", "rows"], found)
        _list(
            [
                (f"{words.verdict(e['before'])} → {words.verdict(e['after'])}", e["row_id"], e["prompt"])
                for e in c.verdicts.examples
            ]
        )
    _notes(c, "pairs")
    if any(p.differ for p in c.pairs):
        _table("preference pairs", words.PAIRS, [[getattr(p, name) for name in words.PAIRS] for p in c.pairs])
        for p in c.pairs:
            for e in p.examples:
                show.say(f"  {e['kind']}  {(e['after'] or e['before'])['row_id']}  {_one_line(e['prompt'])}")
                for side in filter(e.get, ("before", "after")):
                    said = (_one_line(e[side][what], SHOWN // 2) for what in ("chosen", "rejected"))
                    show.say(f"    {side:6}  {' > '.join(said)}")
    _notes(c, "scores")
    if c.differences:
        _table("scores on shared items", words.SCORES, [words.scores(d) for d in c.differences])
        for suite, grader in {d.suite: d.grader for d in c.differences if d.grader}.items():
            show.say(f"! {suite} is graded by different graders ({grader}): its scores are of different measures.")
        _table("answers", words.ANSWERS, words.answers(c))
        if again := words.regraded(c):
            show.say(f"! {again}")
        _answers(c)


def _answers(c: Comparison) -> None:
    """The answers of the final policies that changed."""
    for a in c.answers:
        for e in a.examples if (a.before, a.after) == c.final else ():
            show.say(f"  {'now right' if e['kind'] == 'gained' else 'now wrong'}  {e['suite']} {e['row_id']}")
            show.say(f"    prompt  {_one_line(e['prompt'])}")
            for side in ("before", "after"):
                detail = f" ({_one_line(e[side]['detail'])})" if e[side]["detail"] else ""
                show.say(f"    {side:6}  {e[side]['status']}: {_one_line(e[side]['response'])}{detail}")


def _notes(c: Comparison, *parts: Part) -> None:
    for part in parts:
        for text in c.said(part):
            show.say(f"! {part}: {text}")


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    show.say(f"\n{title}")
    show.table(names, [[cell.replace(MINUS, "-") if isinstance(cell, str) else cell for cell in row] for row in rows])


def _list(found: Sequence[tuple[str | None, ...]]) -> None:
    for *told, text in found:
        show.say(f"  {'  '.join(str(t) for t in told)}  {_one_line(text)}")


def _one_line(text: str | None, most: int = SHOWN) -> str:
    return short(" ".join((text or "").split()) or "(nothing)", most)


def page(c: Comparison, to: Path | None, open_: bool, aside: bool) -> None:
    """Write the page as flows.pages.write does."""
    from align.comparison.page import html

    pages.write(html(c), to, "compare", open_, aside)
